//! ESP in tunnel mode (RFC 4303), anti-replay, IPComp DEFLATE (RFC 3173, RFC 2394), UDP encapsulation (RFC 3948).
//!
//! Knows no IKE, no socket, no clock. Nothing here allocates per packet.

pub mod encap;
pub mod ipcomp;
pub mod replay;
pub mod sa;

pub use ferry6_crypto::{PacketKeys, Spi};
pub use sa::{InboundSa, OpenError, Opened, OutboundSa, SealError};

/// IP protocol numbers that stand in the Next Header field.
pub mod next_header {
    /// IPv4 in the tunnel.
    pub const IPV4: u8 = 4;
    /// IPv6 in the tunnel.
    pub const IPV6: u8 = 41;
    /// "No next header": a dummy packet (RFC 4303 section 2.6).
    pub const DUMMY: u8 = 59;
    /// IPComp.
    pub const IPCOMP: u8 = 108;
}
