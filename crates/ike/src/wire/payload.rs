//! One payload: its type, and how its content is read and written.
//!
//! Each begins with the generic header ([RFC 7296 section 3.2](https://www.rfc-editor.org/rfc/rfc7296#section-3.2)):
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Next Payload  |C|  RESERVED   |         Payload Length        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use super::codec::{Reader, numbers, write_name};
use super::{Config, Delete, Notify, Proposal, RawId, WireError, config, delete, id, notify, sa, ts};
use crate::selector::TrafficSelector;
use std::fmt;

numbers! {
    /// Payload types.
    pub mod payload_type: u8 {
        /// End of the chain.
        NONE = 0,
        /// Security Association.
        SA = 33,
        /// Key Exchange.
        KE = 34,
        /// Identification, of the initiator.
        IDI = 35,
        /// Identification, of the responder.
        IDR = 36,
        /// Certificate.
        CERT = 37,
        /// Certificate Request.
        CERTREQ = 38,
        /// Authentication.
        AUTH = 39,
        /// Nonce.
        NONCE = 40,
        /// Notify.
        NOTIFY = 41,
        /// Delete.
        DELETE = 42,
        /// Vendor ID.
        VENDOR_ID = 43,
        /// Traffic Selector, of the initiator.
        TSI = 44,
        /// Traffic Selector, of the responder.
        TSR = 45,
        /// Encrypted and Authenticated.
        SK = 46,
        /// Configuration.
        CP = 47,
        /// Extensible Authentication.
        EAP = 48,
        /// Generic Secure Password Method (RFC 6467).
        GSPM = 49,
        /// Encrypted and Authenticated Fragment (RFC 7383).
        SKF = 53,
        /// Puzzle Solution (RFC 8019).
        PS = 54,
    }
}

/// The notation of RFC 7296 section 1.2: `IDi`, `CERT`, `N`.
pub const fn notation(payload: u8) -> Option<&'static str> {
    Some(match payload {
        payload_type::SA => "SA",
        payload_type::KE => "KE",
        payload_type::IDI => "IDi",
        payload_type::IDR => "IDr",
        payload_type::CERT => "CERT",
        payload_type::CERTREQ => "CERTREQ",
        payload_type::AUTH => "AUTH",
        payload_type::NONCE => "Nonce",
        payload_type::NOTIFY => "N",
        payload_type::DELETE => "D",
        payload_type::VENDOR_ID => "V",
        payload_type::TSI => "TSi",
        payload_type::TSR => "TSr",
        payload_type::SK => "SK",
        payload_type::CP => "CP",
        payload_type::EAP => "EAP",
        payload_type::GSPM => "GSPM",
        payload_type::SKF => "SKF",
        payload_type::PS => "PS",
        _ => return None,
    })
}

/// Octets of the generic payload header.
pub const GENERIC_HEADER_LEN: usize = 4;

/// Octets of a nonce ([section 3.9](https://www.rfc-editor.org/rfc/rfc7296#section-3.9)).
pub const NONCE_LEN: std::ops::RangeInclusive<usize> = 16..=256;

/// One payload, decoded. The Encrypted payload (SK, SKF) is not one of them: see [`crate::wire::sk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// SA (33)
    Sa(Vec<Proposal>),
    /// KE (34)
    KeyExchange {
        /// Group number.
        group: u16,
        /// Public value.
        data: Vec<u8>,
    },
    /// IDi (35)
    IdInitiator(RawId),
    /// IDr (36)
    IdResponder(RawId),
    /// CERT (37)
    Cert {
        /// Encoding; 4 is X.509 signature.
        encoding: u8,
        /// Content.
        data: Vec<u8>,
    },
    /// CERTREQ (38)
    CertReq {
        /// Encoding.
        encoding: u8,
        /// Concatenated SHA-1 hashes of the CAs' public keys, for encoding 4.
        data: Vec<u8>,
    },
    /// AUTH (39)
    Auth {
        /// Method.
        method: u8,
        /// Content.
        data: Vec<u8>,
    },
    /// Ni, Nr (40)
    Nonce(Vec<u8>),
    /// N (41)
    Notify(Notify),
    /// D (42)
    Delete(Delete),
    /// V (43)
    VendorId(Vec<u8>),
    /// TSi (44)
    TsInitiator(Vec<TrafficSelector>),
    /// TSr (45)
    TsResponder(Vec<TrafficSelector>),
    /// CP (47)
    Config(Config),
    /// EAP (48)
    Eap(Vec<u8>),
    /// A type that is not known.
    Unknown {
        /// Number.
        payload_type: u8,
        /// Whether the critical bit was set: then the message must be refused (section 2.5). On a payload that is
        /// known the bit means nothing.
        critical: bool,
        /// Content.
        data: Vec<u8>,
    },
}

impl Payload {
    /// The number of its type.
    pub const fn payload_type(&self) -> u8 {
        match self {
            Self::Sa(_) => payload_type::SA,
            Self::KeyExchange { .. } => payload_type::KE,
            Self::IdInitiator(_) => payload_type::IDI,
            Self::IdResponder(_) => payload_type::IDR,
            Self::Cert { .. } => payload_type::CERT,
            Self::CertReq { .. } => payload_type::CERTREQ,
            Self::Auth { .. } => payload_type::AUTH,
            Self::Nonce(_) => payload_type::NONCE,
            Self::Notify(_) => payload_type::NOTIFY,
            Self::Delete(_) => payload_type::DELETE,
            Self::VendorId(_) => payload_type::VENDOR_ID,
            Self::TsInitiator(_) => payload_type::TSI,
            Self::TsResponder(_) => payload_type::TSR,
            Self::Config(_) => payload_type::CP,
            Self::Eap(_) => payload_type::EAP,
            Self::Unknown { payload_type, .. } => *payload_type,
        }
    }

    /// Reads the content behind the generic header.
    pub(super) fn parse(payload_type: u8, critical: bool, body: &[u8]) -> Result<Self, WireError> {
        Ok(match payload_type {
            payload_type::SA => Self::Sa(sa::parse(body)?),
            payload_type::KE => {
                let mut reader = Reader::new("Key Exchange payload", body);
                let group = reader.u16()?;
                let _reserved = reader.u16()?;
                Self::KeyExchange { group, data: reader.rest().to_vec() }
            }
            payload_type::IDI => Self::IdInitiator(id::parse(body)?),
            payload_type::IDR => Self::IdResponder(id::parse(body)?),
            payload_type::CERT => {
                let mut reader = Reader::new("Certificate payload", body);
                Self::Cert { encoding: reader.u8()?, data: reader.rest().to_vec() }
            }
            payload_type::CERTREQ => {
                let mut reader = Reader::new("Certificate Request payload", body);
                Self::CertReq { encoding: reader.u8()?, data: reader.rest().to_vec() }
            }
            payload_type::AUTH => {
                let mut reader = Reader::new("Authentication payload", body);
                let [method, _, _, _] = reader.array()?;
                Self::Auth { method, data: reader.rest().to_vec() }
            }
            payload_type::NONCE if NONCE_LEN.contains(&body.len()) => Self::Nonce(body.to_vec()),
            payload_type::NONCE => {
                return Err(WireError::Invalid { what: "Nonce payload", problem: "not 16 to 256 octets" });
            }
            payload_type::NOTIFY => Self::Notify(notify::parse(body)?),
            payload_type::DELETE => Self::Delete(delete::parse(body)?),
            payload_type::VENDOR_ID => Self::VendorId(body.to_vec()),
            payload_type::TSI => Self::TsInitiator(ts::parse(body)?),
            payload_type::TSR => Self::TsResponder(ts::parse(body)?),
            payload_type::CP => Self::Config(config::parse(body)?),
            payload_type::EAP => Self::Eap(body.to_vec()),
            payload_type => Self::Unknown { payload_type, critical, data: body.to_vec() },
        })
    }

    /// Writes the content behind the generic header.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sa(proposals) => sa::encode(proposals, out),
            Self::KeyExchange { group, data } => {
                out.extend_from_slice(&group.to_be_bytes());
                out.extend_from_slice(&[0, 0]);
                out.extend_from_slice(data);
            }
            Self::IdInitiator(id) | Self::IdResponder(id) => id::encode(id, out),
            Self::Cert { encoding, data } | Self::CertReq { encoding, data } => {
                out.push(*encoding);
                out.extend_from_slice(data);
            }
            Self::Auth { method, data } => {
                out.extend_from_slice(&[*method, 0, 0, 0]);
                out.extend_from_slice(data);
            }
            Self::Notify(notify) => notify::encode(notify, out),
            Self::Delete(delete) => delete::encode(delete, out),
            Self::TsInitiator(selectors) | Self::TsResponder(selectors) => ts::encode(selectors, out),
            Self::Config(config) => config::encode(config, out),
            Self::Nonce(data) | Self::VendorId(data) | Self::Eap(data) | Self::Unknown { data, .. } => {
                out.extend_from_slice(data);
            }
        }
    }

    /// What of the second octet of the generic header is set.
    pub(super) const fn critical(&self) -> bool {
        matches!(self, Self::Unknown { critical: true, .. })
    }
}

/// Its type, and for a notify the type of that: `SA`, `N(COOKIE)`, `payload type 130`.
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notify(notify) => write!(f, "N({notify})"),
            _ => {
                let number = self.payload_type();
                write_name(f, notation(number), "payload type", number.into())
            }
        }
    }
}
