//! The Security Parameters Index.

use std::fmt;

/// An ESP SPI (RFC 4303 section 2.1).
///
/// 0 is for local use and 1..=255 are reserved by IANA, so none of them is ever an `Spi`; a non-ESP marker
/// (four zero octets, RFC 3948 section 2.2) can therefore never be taken for one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spi(u32);

impl Spi {
    /// The lowest SPI that may stand on the wire.
    pub const MIN: u32 = 256;

    /// `None` for 0..=255.
    pub const fn new(value: u32) -> Option<Self> {
        if value < Self::MIN { None } else { Some(Self(value)) }
    }

    /// The number in host order.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The four octets on the wire.
    pub const fn to_be_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
