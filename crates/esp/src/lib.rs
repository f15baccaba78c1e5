//! ESP in tunnel mode (RFC 4303), anti-replay, IPComp DEFLATE (RFC 3173, RFC 2394), UDP encapsulation (RFC 3948).
//!
//! Knows no IKE, no socket, no clock. Nothing here allocates per packet.
//!
//! - [`sa`]: [`OutboundSa`] seals, [`InboundSa`] opens, both in place.
//! - [`size`]: what a suite adds to a packet, and the largest payload that fits.
//! - [`limits`]: how much one key may protect; the reason to rekey before time is up.
//! - [`replay`]: the window, and the inference of extended sequence numbers.
//! - [`ipcomp`]: compression of the inner packet.
//! - [`encap`]: tells IKE, ESP and keepalives on one UDP port apart.
//!
//! Errors are bad input, panics are bugs of ours. Each error names one cause, so that each can be one counter.

pub mod encap;
pub mod ipcomp;
pub mod limits;
pub mod replay;
pub mod sa;
pub mod size;

pub use ferry6_crypto::{PacketKeys, Spi};
pub use sa::{InboundSa, OpenError, Opened, OutboundSa, Plain, SealError};
pub use size::{ESP_HEADER_LEN, Overhead, max_payload, sealed_len};

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
