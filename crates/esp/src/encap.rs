//! ESP and IKE on one UDP port (RFC 3948).

/// Four zero octets in front of each IKE message on port 4500 (RFC 3948 section 2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The one octet of a NAT keepalive (RFC 3948 section 2.3).
pub const KEEPALIVE: [u8; 1] = [0xff];

/// What a datagram on port 4500 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// An IKE message, the marker taken off.
    Ike(&'a [u8]),
    /// An ESP packet for this SPI, header included.
    Esp(ferry6_crypto::Spi),
    /// A NAT keepalive: drop it.
    Keepalive,
    /// Anything else: too short, or an SPI of 1..=255.
    Malformed,
}

/// Tells IKE, ESP and keepalives apart (RFC 3948 section 2).
pub fn classify(_datagram: &[u8]) -> Datagram<'_> {
    todo!()
}
