//! The Notify payload ([RFC 7296 section 3.10](https://www.rfc-editor.org/rfc/rfc7296#section-3.10)) and its types.
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Protocol ID  |   SPI Size    |      Notify Message Type      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                Security Parameter Index (SPI)                 ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                       Notification Data                       ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use super::WireError;
use super::codec::{Reader, numbers, write_name};
use std::fmt;

pub use types::*;

numbers! {
    /// Notify message types by their IANA names ("IKEv2 Notify Message Error Types" and "... Status Types").
    mod types: u16 {
        // Errors (section 3.10.1).
        /// A payload with the critical bit that we do not know; data is its type.
        UNSUPPORTED_CRITICAL_PAYLOAD = 1,
        /// An IKE message with an SPI that is not known.
        INVALID_IKE_SPI = 4,
        /// Data is the version that we speak.
        INVALID_MAJOR_VERSION = 5,
        /// A message that breaks the format.
        INVALID_SYNTAX = 7,
        /// A Message ID outside the window.
        INVALID_MESSAGE_ID = 9,
        /// An ESP packet with an SPI that is not known; data is the SPI.
        INVALID_SPI = 11,
        /// No proposal, or nothing else that was offered, can be taken.
        NO_PROPOSAL_CHOSEN = 14,
        /// Another group is wanted; data is its number.
        INVALID_KE_PAYLOAD = 17,
        /// Authentication failed, for whatever reason.
        AUTHENTICATION_FAILED = 24,
        /// Only selectors of one address pair are taken.
        SINGLE_PAIR_REQUIRED = 34,
        /// No more Child SAs on this IKE SA.
        NO_ADDITIONAL_SAS = 35,
        /// No address to give.
        INTERNAL_ADDRESS_FAILURE = 36,
        /// A configuration request is required.
        FAILED_CP_REQUIRED = 37,
        /// No selector can be taken.
        TS_UNACCEPTABLE = 38,
        /// An ESP packet came that its SA's selectors do not allow.
        INVALID_SELECTORS = 39,
        /// MOBIKE (RFC 4555): addresses not acceptable.
        UNACCEPTABLE_ADDRESSES = 40,
        /// MOBIKE: a NAT where NO_NATS_ALLOWED forbids one.
        UNEXPECTED_NAT_DETECTED = 41,
        /// Mobile IPv6 (RFC 5026).
        USE_ASSIGNED_HOA = 42,
        /// Not now, for example while rekeying; try again (section 2.25).
        TEMPORARY_FAILURE = 43,
        /// The Child SA to rekey does not exist (section 2.25).
        CHILD_SA_NOT_FOUND = 44,
        /// Group keys (RFC 9838).
        INVALID_GROUP_ID = 45,
        /// Group keys.
        AUTHORIZATION_FAILED = 46,
        /// State of an IKE_FOLLOWUP_KE exchange is gone (RFC 9370).
        STATE_NOT_FOUND = 47,
        /// No more Child SAs with these selectors (RFC 9611).
        TS_MAX_QUEUE = 48,
        /// Group keys.
        REGISTRATION_FAILED = 49,

        // Statuses.
        /// This IKE SA is the only one between the two identities.
        INITIAL_CONTACT = 16384,
        /// How many requests may be outstanding.
        SET_WINDOW_SIZE = 16385,
        /// More selectors would be taken, in another Child SA.
        ADDITIONAL_TS_POSSIBLE = 16386,
        /// CPI and transform of IPComp (section 2.22).
        IPCOMP_SUPPORTED = 16387,
        /// SHA-1 of SPIs, source address and port (section 2.23).
        NAT_DETECTION_SOURCE_IP = 16388,
        /// SHA-1 of SPIs, destination address and port.
        NAT_DETECTION_DESTINATION_IP = 16389,
        /// Proof of a return path (section 2.6).
        COOKIE = 16390,
        /// Transport mode is asked for.
        USE_TRANSPORT_MODE = 16391,
        /// Certificates may be sent as hash and URL (section 3.6).
        HTTP_CERT_LOOKUP_SUPPORTED = 16392,
        /// This exchange rekeys the SA with this SPI.
        REKEY_SA = 16393,
        /// No TFC padding, please.
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
        /// Fragments ride on the same SA.
        NON_FIRST_FRAGMENTS_ALSO = 16395,
        /// MOBIKE (RFC 4555).
        MOBIKE_SUPPORTED = 16396,
        /// MOBIKE: another address of the sender.
        ADDITIONAL_IP4_ADDRESS = 16397,
        /// MOBIKE: another address of the sender.
        ADDITIONAL_IP6_ADDRESS = 16398,
        /// MOBIKE: no other address.
        NO_ADDITIONAL_ADDRESSES = 16399,
        /// MOBIKE: use the addresses of this message.
        UPDATE_SA_ADDRESSES = 16400,
        /// MOBIKE: return routability; echoed.
        COOKIE2 = 16401,
        /// MOBIKE: the addresses that must not be translated.
        NO_NATS_ALLOWED = 16402,
        /// When to authenticate again, in seconds (RFC 4478).
        AUTH_LIFETIME = 16403,
        /// Several authentications (RFC 4739).
        MULTIPLE_AUTH_SUPPORTED = 16404,
        /// Another authentication follows.
        ANOTHER_AUTH_FOLLOWS = 16405,
        /// Redirection (RFC 5685).
        REDIRECT_SUPPORTED = 16406,
        /// Go to this gateway.
        REDIRECT = 16407,
        /// Came from this gateway.
        REDIRECTED_FROM = 16408,
        /// Session resumption (RFC 5723).
        TICKET_LT_OPAQUE = 16409,
        /// Session resumption.
        TICKET_REQUEST = 16410,
        /// Session resumption.
        TICKET_ACK = 16411,
        /// Session resumption.
        TICKET_NACK = 16412,
        /// Session resumption.
        TICKET_OPAQUE = 16413,
        /// IPv6 configuration (RFC 5739).
        LINK_ID = 16414,
        /// Wrapped ESP (RFC 5840).
        USE_WESP_MODE = 16415,
        /// Robust header compression (RFC 5857).
        ROHC_SUPPORTED = 16416,
        /// The initiator asks for EAP alone (RFC 5998).
        EAP_ONLY_AUTHENTICATION = 16417,
        /// An IKE SA without a Child SA (RFC 6023).
        CHILDLESS_IKEV2_SUPPORTED = 16418,
        /// Quick crash detection token (RFC 6290).
        QUICK_CRASH_DETECTION = 16419,
        /// High availability (RFC 6311).
        IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420,
        /// High availability.
        IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421,
        /// High availability.
        IKEV2_MESSAGE_ID_SYNC = 16422,
        /// High availability.
        IPSEC_REPLAY_COUNTER_SYNC = 16423,
        /// Password methods (RFC 6467).
        SECURE_PASSWORD_METHODS = 16424,
        /// Password methods (RFC 6631).
        PSK_PERSIST = 16425,
        /// Password methods.
        PSK_CONFIRM = 16426,
        /// EAP re-authentication (RFC 6867).
        ERX_SUPPORTED = 16427,
        /// 3GPP.
        IFOM_CAPABILITY = 16428,
        /// Group keys.
        GROUP_SENDER = 16429,
        /// IKE fragmentation (RFC 7383).
        IKEV2_FRAGMENTATION_SUPPORTED = 16430,
        /// Hashes for signatures (RFC 7427).
        SIGNATURE_HASH_ALGORITHMS = 16431,
        /// Clones of an IKE SA (RFC 7791).
        CLONE_IKE_SA_SUPPORTED = 16432,
        /// Clones of an IKE SA.
        CLONE_IKE_SA = 16433,
        /// Puzzles against floods (RFC 8019).
        PUZZLE = 16434,
        /// Post-quantum pre-shared keys (RFC 8784).
        USE_PPK = 16435,
        /// Post-quantum pre-shared keys.
        PPK_IDENTITY = 16436,
        /// Post-quantum pre-shared keys.
        NO_PPK_AUTH = 16437,
        /// IKE_INTERMEDIATE (RFC 9242).
        INTERMEDIATE_EXCHANGE_SUPPORTED = 16438,
        /// Address families (RFC 8983).
        IP4_ALLOWED = 16439,
        /// Address families.
        IP6_ALLOWED = 16440,
        /// Multiple key exchanges (RFC 9370).
        ADDITIONAL_KEY_EXCHANGE = 16441,
        /// IP-TFS (RFC 9347).
        USE_AGGFRAG = 16442,
        /// Announcement of authentication methods (RFC 9593).
        SUPPORTED_AUTH_METHODS = 16443,
        /// One Child SA per resource (RFC 9611).
        SA_RESOURCE_INFO = 16444,
        /// Post-quantum pre-shared keys in IKE_INTERMEDIATE (RFC 9867).
        USE_PPK_INT = 16445,
        /// Post-quantum pre-shared keys in IKE_INTERMEDIATE.
        PPK_IDENTITY_KEY = 16446,
        /// Private use: nothing but octets, to make a message as long as a path may take (`path_size`). A peer ignores it
        /// (section 3.10.1: status types that are not known).
        PATH_PROBE = 63222,
    }
}

/// Error types are those below this number (section 3.10.1); of them 8192 and more are for private use.
pub const STATUS_FROM: u16 = 16384;

/// Notify payload (section 3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Protocol ID, 0 where none.
    pub protocol: u8,
    /// SPI, empty where none.
    pub spi: Vec<u8>,
    /// Type; see [`crate::wire::notify`].
    pub notify_type: u16,
    /// Content.
    pub data: Vec<u8>,
}

impl Notify {
    /// A notify about the IKE SA: no protocol, no SPI.
    pub fn new(notify_type: u16, data: impl Into<Vec<u8>>) -> Self {
        Self { protocol: 0, spi: Vec::new(), notify_type, data: data.into() }
    }

    /// A notify about a Child SA (REKEY_SA, CHILD_SA_NOT_FOUND): ESP and an SPI of four octets.
    pub fn about_esp(notify_type: u16, spi: u32, data: impl Into<Vec<u8>>) -> Self {
        Self {
            protocol: super::protocol::ESP,
            spi: spi.to_be_bytes().to_vec(),
            notify_type,
            data: data.into(),
        }
    }

    /// Whether it reports an error (section 3.10.1). An unknown error in a request is ignored, in a response it means
    /// that the request failed.
    pub const fn is_error(&self) -> bool {
        self.notify_type < STATUS_FROM
    }
}

/// The name of a notify type, or `notify 41000`.
pub fn display(notify_type: u16) -> impl fmt::Display {
    struct Name(u16);
    impl fmt::Display for Name {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_name(f, name(self.0), "notify", self.0)
        }
    }
    Name(notify_type)
}

/// The name of its type; the content is not printed.
impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(self.notify_type).fmt(f)
    }
}

pub(super) fn parse(body: &[u8]) -> Result<Notify, WireError> {
    let mut reader = Reader::new("Notify payload", body);
    let [protocol, spi_size] = reader.array()?;
    let notify_type = reader.u16()?;
    let spi = reader.take(spi_size.into())?.to_vec();
    Ok(Notify { protocol, spi, notify_type, data: reader.rest().to_vec() })
}

pub(super) fn encode(notify: &Notify, out: &mut Vec<u8>) {
    let spi_size = u8::try_from(notify.spi.len()).expect("an SPI has 0, 4 or 8 octets");
    out.extend_from_slice(&[notify.protocol, spi_size]);
    out.extend_from_slice(&notify.notify_type.to_be_bytes());
    out.extend_from_slice(&notify.spi);
    out.extend_from_slice(&notify.data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rekey_sa() {
        let octets = hex::decode("03044009cafebabe").unwrap();
        let notify = parse(&octets).unwrap();
        assert_eq!(notify, Notify::about_esp(REKEY_SA, 0xcafe_babe, []));
        let mut out = Vec::new();
        encode(&notify, &mut out);
        assert_eq!(out, octets);
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(Notify::new(SIGNATURE_HASH_ALGORITHMS, []).to_string(), "SIGNATURE_HASH_ALGORITHMS");
        assert_eq!(Notify::new(40_961, []).to_string(), "notify 40961");
        assert!(Notify::new(TS_MAX_QUEUE, []).is_error());
        assert!(!Notify::new(INITIAL_CONTACT, []).is_error());
        // Errors, status types, and one of private use.
        assert_eq!(ALL.len(), 25 + 63 + 1);
    }

    #[test]
    fn an_spi_longer_than_the_payload_is_refused() {
        assert_eq!(
            parse(&hex::decode("03ff4009cafebabe").unwrap()),
            Err(WireError::Truncated { what: "Notify payload" })
        );
        assert!(parse(&[3, 0, 0]).is_err());
    }
}
