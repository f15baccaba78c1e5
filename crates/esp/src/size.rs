//! The sizes of ESP packets (RFC 4303 section 2): header, IV, padded text, ICV.

use ferry6_crypto::CipherSuite;

/// Octets of SPI and sequence number.
pub const ESP_HEADER_LEN: usize = 8;

/// Octets of the ESP trailer behind the padding: Pad Length and Next Header.
pub(crate) const TRAILER_LEN: usize = 2;

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
    pub const fn of(suite: CipherSuite) -> Self {
        let geometry = Geometry::of(suite);
        Self { front: geometry.front(), back: geometry.align - 1 + TRAILER_LEN + geometry.icv }
    }
}

/// The length on the wire of a payload of `payload` octets: header, IV, padded text, ICV.
pub const fn sealed_len(suite: CipherSuite, payload: usize) -> usize {
    Geometry::of(suite).sealed_len(payload)
}

/// The largest payload whose sealed form fits into `room` octets (`room` = path MTU less IPv4 and UDP headers);
/// 0 where none does.
pub const fn max_payload(suite: CipherSuite, room: usize) -> usize {
    let geometry = Geometry::of(suite);
    let text = room.saturating_sub(geometry.front() + geometry.icv);
    (text - text % geometry.align).saturating_sub(TRAILER_LEN)
}

/// The lengths of a suite, reckoned once per SA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    /// Octets of IV in each packet.
    pub(crate) iv: usize,
    /// Octets of ICV.
    pub(crate) icv: usize,
    /// The text is a multiple of this, a power of two: the block, and 4 at least (RFC 4303 section 2.4).
    pub(crate) align: usize,
}

impl Geometry {
    pub(crate) const fn of(suite: CipherSuite) -> Self {
        let block = suite.cipher().block_len();
        Self { iv: suite.cipher().iv_len(), icv: suite.icv_len(), align: if block < 4 { 4 } else { block } }
    }

    pub(crate) const fn front(self) -> usize {
        ESP_HEADER_LEN + self.iv
    }

    /// Payload, padding and trailer: the shortest multiple of `align` that holds them.
    pub(crate) const fn text_len(self, payload: usize) -> usize {
        payload.saturating_add(TRAILER_LEN + self.align - 1) & !(self.align - 1)
    }

    pub(crate) const fn sealed_len(self, payload: usize) -> usize {
        self.text_len(payload).saturating_add(self.front() + self.icv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry6_crypto::{Cipher, Integ};

    fn suite(cipher: Cipher, integ: Option<Integ>) -> CipherSuite {
        CipherSuite::new(cipher, integ).unwrap()
    }

    #[test]
    fn lengths_reckoned_by_hand() {
        let gcm = suite(Cipher::Aes128Gcm16, None);
        // 8 header + 8 IV + 1280 payload + 2 pad + 2 trailer + 16 ICV
        assert_eq!(sealed_len(gcm, 1280), 1316);
        assert_eq!(sealed_len(gcm, 1282), 1316);
        assert_eq!(sealed_len(gcm, 1283), 1320);
        assert_eq!(Overhead::of(gcm), Overhead { front: 16, back: 3 + 2 + 16 });
        let sha1 = suite(Cipher::Aes256Cbc, Some(Integ::HmacSha1_96));
        // 8 header + 16 IV + 1296 text (1280 payload, 14 pad, 2 trailer) + 12 ICV
        assert_eq!(sealed_len(sha1, 1280), 1332);
        assert_eq!(sealed_len(sha1, 1294), 1332);
        assert_eq!(sealed_len(sha1, 1295), 1348);
        let sha512 = suite(Cipher::Aes128Cbc, Some(Integ::HmacSha512_256));
        assert_eq!(sealed_len(sha512, 0), 8 + 16 + 16 + 32);
        assert_eq!(Overhead::of(sha512), Overhead { front: 24, back: 15 + 2 + 32 });
    }

    #[test]
    fn the_largest_payload_fits_and_one_more_does_not() {
        for suite in CipherSuite::all() {
            for room in 0..3000 {
                let payload = max_payload(suite, room);
                if room >= sealed_len(suite, 0) {
                    assert!(sealed_len(suite, payload) <= room, "{suite:?} {room}");
                    assert!(sealed_len(suite, payload + 1) > room, "{suite:?} {room}");
                } else {
                    assert_eq!(payload, 0);
                }
            }
            for payload in 0..3000 {
                let added = sealed_len(suite, payload) - payload;
                let overhead = Overhead::of(suite);
                assert!(added <= overhead.front + overhead.back, "{suite:?} {payload}");
            }
            assert_eq!(sealed_len(suite, usize::MAX), usize::MAX);
        }
    }
}
