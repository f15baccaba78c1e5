//! Whole messages: header and payload chain.

use super::{ExchangeType, Header, Payload};

/// Why octets are not an IKE message; each says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than what stands there claims.
    #[error("{what} is cut short")]
    Truncated {
        /// The structure.
        what: &'static str,
    },
    /// A length field that lies.
    #[error("{what}: wrong length {length}")]
    Length {
        /// The structure.
        what: &'static str,
        /// What it says.
        length: usize,
    },
    /// A field with a value that the RFC forbids.
    #[error("{what}: {problem}")]
    Invalid {
        /// The structure.
        what: &'static str,
        /// The cause.
        problem: &'static str,
    },
    /// Major version not 2 (RFC 7296 section 2.5).
    #[error("IKE major version {0}")]
    Version(u8),
    /// More payloads, proposals or transforms than any peer sends.
    #[error("too many {0}")]
    TooMany(&'static str),
}

impl Header {
    /// Octets.
    pub const LEN: usize = 28;

    /// Parses and checks that `length` is the message's length.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn parse(_message: &[u8]) -> Result<Self, WireError> {
        todo!()
    }
}

/// What of a header the sender chooses; the rest follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// Initiator's SPI.
    pub initiator_spi: u64,
    /// Responder's SPI.
    pub responder_spi: u64,
    /// Exchange type.
    pub exchange: ExchangeType,
    /// From the original initiator.
    pub from_initiator: bool,
    /// A response.
    pub response: bool,
    /// Message ID.
    pub message_id: u32,
}

/// Parses the payload chain of `body`, whose first payload has type `first`. Does not step into SK and SKF: they end the
/// chain and come as [`Payload::Unknown`] of their type.
///
/// # Errors
/// [`WireError`].
pub fn parse_payloads(_first: u8, _body: &[u8]) -> Result<Vec<Payload>, WireError> {
    todo!()
}

/// Encodes a chain; returns the type of the first payload and the octets.
pub fn encode_payloads(_payloads: &[Payload]) -> (u8, Vec<u8>) {
    todo!()
}

/// Encodes a message in clear (IKE_SA_INIT).
pub fn encode_message(_header: &HeaderFields, _payloads: &[Payload]) -> Vec<u8> {
    todo!()
}
