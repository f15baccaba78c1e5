//! ESP and IKE on one UDP port (RFC 3948).

use crate::size::ESP_HEADER_LEN;
use ferry6_crypto::Spi;

/// Four zero octets in front of each IKE message on port 4500 (RFC 3948 section 2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The one octet of a NAT keepalive (RFC 3948 section 2.3).
pub const KEEPALIVE: [u8; 1] = [0xff];

/// What a datagram on port 4500 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// An IKE message, the marker taken off; never empty.
    Ike(&'a [u8]),
    /// An ESP packet for this SPI, header included.
    Esp(Spi),
    /// A NAT keepalive: drop it.
    Keepalive,
    /// Anything else: shorter than an ESP header, or an SPI of 1..=255.
    Malformed,
}

/// Tells IKE, ESP and keepalives apart (RFC 3948 section 2).
///
/// No SPI is zero, so the first four octets decide; an SPI of 1..=255 is reserved (RFC 4303 section 2.1).
#[inline]
pub fn classify(datagram: &[u8]) -> Datagram<'_> {
    let Some((first, rest)) = datagram.split_first_chunk::<4>() else {
        return if datagram == KEEPALIVE { Datagram::Keepalive } else { Datagram::Malformed };
    };
    match Spi::new(u32::from_be_bytes(*first)) {
        Some(spi) if datagram.len() >= ESP_HEADER_LEN => Datagram::Esp(spi),
        None if *first == NON_ESP_MARKER && !rest.is_empty() => Datagram::Ike(rest),
        _ => Datagram::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let esp = |spi| Datagram::Esp(Spi::new(spi).unwrap());
        let table: &[(&[u8], Datagram<'_>)] = &[
            (&[], Datagram::Malformed),
            (&[0xff], Datagram::Keepalive),
            (&[0xfe], Datagram::Malformed),
            (&[0], Datagram::Malformed),
            // RFC 3948 section 2.3: one octet, no more
            (&[0xff, 0xff], Datagram::Malformed),
            (&[0, 0, 0], Datagram::Malformed),
            (&[0, 0, 0, 0], Datagram::Malformed),
            (&[0, 0, 0, 0, 7], Datagram::Ike(&[7])),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 9], Datagram::Ike(&[0, 0, 0, 0, 9])),
            (&[0, 0, 0, 1, 0, 0, 0, 1, 1, 1], Datagram::Malformed),
            (&[0, 0, 0, 255, 0, 0, 0, 1, 1, 1], Datagram::Malformed),
            (&[0, 0, 1, 0, 0, 0, 0, 1], esp(256)),
            (&[0, 0, 1, 0, 0, 0, 0], Datagram::Malformed),
            (&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1], esp(u32::MAX)),
        ];
        for (datagram, kind) in table {
            assert_eq!(classify(datagram), *kind, "{datagram:02x?}");
        }
    }
}
