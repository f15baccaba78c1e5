//! The two halves of an ESP SA. They are two types: nothing can seal with an inbound SA.

use crate::replay::ReplayError;
use crate::{PacketKeys, Spi};
use ferry6_crypto::{CipherSuite, CryptoError, CryptoProvider};

/// Octets of SPI and sequence number.
pub const ESP_HEADER_LEN: usize = 8;

/// What ESP adds to a packet of a suite; all in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overhead {
    /// In front of the payload: ESP header and IV.
    pub front: usize,
    /// At the most behind it: padding, pad length, next header, ICV.
    pub back: usize,
}

impl Overhead {
    /// Of this suite.
    pub const fn of(_suite: CipherSuite) -> Self {
        todo!()
    }
}

/// The length on the wire of a payload of `payload` octets: header, IV, padded text, ICV.
pub const fn sealed_len(_suite: CipherSuite, _payload: usize) -> usize {
    todo!()
}

/// The largest payload whose sealed form fits into `room` octets (`room` = path MTU less IPv4 and UDP headers).
pub const fn max_payload(_suite: CipherSuite, _room: usize) -> usize {
    todo!()
}

/// Why a packet could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The sequence number would wrap (RFC 4303 section 3.3.3): the SA must be rekeyed, it sends no more.
    #[error("sequence numbers exhausted")]
    Exhausted,
    /// `buffer` has no room for headers or trailer.
    #[error("no room in the buffer")]
    Room,
    /// The cipher refused; a bug.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// The sending half.
pub struct OutboundSa {
    _todo: (),
}

impl OutboundSa {
    /// A new SA whose first packet has sequence number 1.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    pub fn new(
        _provider: &CryptoProvider,
        _spi: Spi,
        _keys: &PacketKeys,
        _esn: bool,
    ) -> Result<Self, CryptoError> {
        todo!()
    }
    /// The peer's SPI.
    pub fn spi(&self) -> Spi {
        todo!()
    }
    /// The overhead of its suite.
    pub fn overhead(&self) -> Overhead {
        todo!()
    }
    /// The number of packets sealed so far.
    pub fn packets(&self) -> u64 {
        todo!()
    }
    /// How many packets may still be sealed.
    pub fn remaining(&self) -> u64 {
        todo!()
    }
    /// Seals in place. The payload stands at `buffer[overhead.front..][..payload_len]`; the ESP packet then starts
    /// at `buffer[0]`, and its length is returned.
    ///
    /// # Errors
    /// [`SealError`]; no sequence number is used up then.
    pub fn seal(
        &mut self,
        _buffer: &mut [u8],
        _payload_len: usize,
        _next_header: u8,
    ) -> Result<usize, SealError> {
        todo!()
    }
}

/// Why a packet is dropped, in the order of the checks (RFC 4303 section 3.4). One cause, one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than header, IV, one block and ICV, or text not a whole number of blocks.
    #[error("malformed ESP packet")]
    Malformed,
    /// Not of this SA.
    #[error("SPI of another SA")]
    Spi,
    /// Refused by the window.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// ICV does not fit.
    #[error("integrity check failed")]
    Integrity,
    /// Verified, but pad length or padding octets are wrong (RFC 4303 section 2.4).
    #[error("wrong padding")]
    Padding,
}

/// A verified packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The payload, padding taken off.
    pub payload: &'a mut [u8],
    /// Its protocol; [`crate::next_header::DUMMY`] means: drop silently, but it counts as received.
    pub next_header: u8,
    /// The full sequence number.
    pub sequence: u64,
}

/// The receiving half, with its replay window.
pub struct InboundSa {
    _todo: (),
}

impl InboundSa {
    /// `replay_window` in packets; 0 switches the check off.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    pub fn new(
        _provider: &CryptoProvider,
        _spi: Spi,
        _keys: &PacketKeys,
        _esn: bool,
        _replay_window: u32,
    ) -> Result<Self, CryptoError> {
        todo!()
    }
    /// Our SPI.
    pub fn spi(&self) -> Spi {
        todo!()
    }
    /// Replay check, ICV, decryption in place, replay accept, trailer.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open<'a>(&mut self, _packet: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        todo!()
    }
}
