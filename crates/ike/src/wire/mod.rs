//! Wire formats of IKEv2 (RFC 7296 section 3): octets in, value out, no state.
//!
//! No input can make a parser panic, loop or allocate more than a small multiple of the message's length.
//! Numbers that are not known survive a parse and print as numbers.

pub mod message;
pub mod sk;

use crate::selector::TrafficSelector;

/// IKE header (section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Initiator's SPI.
    pub initiator_spi: u64,
    /// Responder's SPI; 0 in the first message.
    pub responder_spi: u64,
    /// Type of the first payload.
    pub next_payload: u8,
    /// Version octet: major and minor.
    pub version: u8,
    /// Exchange type.
    pub exchange: ExchangeType,
    /// From the original initiator of the IKE SA.
    pub from_initiator: bool,
    /// A response.
    pub response: bool,
    /// Message ID.
    pub message_id: u32,
    /// Length of the whole message.
    pub length: u32,
}

/// Exchange types; unknown ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeType {
    /// 34
    IkeSaInit,
    /// 35
    IkeAuth,
    /// 36
    CreateChildSa,
    /// 37
    Informational,
    /// Any other.
    Other(u8),
}

/// One payload, decoded. The Encrypted payload (SK, SKF) is not one of them: see `sk`.
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
        /// Whether the critical bit was set.
        critical: bool,
        /// Content.
        data: Vec<u8>,
    },
}

/// An ID payload before it is taken for an [`crate::Identity`]; `data` is what AUTH covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawId {
    /// ID type.
    pub id_type: u8,
    /// The three reserved octets as received, for they are part of what AUTH covers (section 2.15).
    pub reserved: [u8; 3],
    /// Identification data.
    pub data: Vec<u8>,
}

/// Proposal substructure (section 3.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Number, from 1.
    pub number: u8,
    /// 1 IKE, 3 ESP.
    pub protocol: u8,
    /// SPI: none, 4 or 8 octets.
    pub spi: Vec<u8>,
    /// Transforms.
    pub transforms: Vec<Transform>,
}

/// Transform substructure (section 3.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transform {
    /// 1 ENCR, 2 PRF, 3 INTEG, 4 KE, 5 ESN.
    pub transform_type: u8,
    /// Number.
    pub id: u16,
    /// Key Length attribute in bits.
    pub key_length: Option<u16>,
    /// Whether an attribute stood there that is not understood: then the transform must not be chosen (3.3.6).
    pub unknown_attribute: bool,
}

/// Notify payload (section 3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Protocol ID, 0 where none.
    pub protocol: u8,
    /// SPI, empty where none.
    pub spi: Vec<u8>,
    /// Type; see `notify`.
    pub notify_type: u16,
    /// Content.
    pub data: Vec<u8>,
}

/// Delete payload (section 3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// 1 IKE (no SPIs), 3 ESP.
    pub protocol: u8,
    /// SPIs of 4 octets.
    pub spis: Vec<u32>,
}

/// Configuration payload (section 3.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// 1 CFG_REQUEST, 2 CFG_REPLY, 3 CFG_SET, 4 CFG_ACK.
    pub cfg_type: u8,
    /// Attributes: type and value.
    pub attributes: Vec<(u16, Vec<u8>)>,
}
