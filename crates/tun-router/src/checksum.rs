//! The Internet checksum (RFC 1071), as unfolded sums that can be put together.

/// A one's complement sum that isn't folded yet. Sums of even-length parts may be added to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds octets; an odd last one counts as the high half of a word, so only the last part may be odd.
    #[inline]
    #[must_use]
    pub fn octets(self, octets: &[u8]) -> Self {
        // Native-endian 32-bit words in 64-bit lanes: the one's complement sum doesn't care about the octet order
        // (RFC 1071 section 2.B), and independent lanes let the compiler use vector registers.
        let mut lanes = [0_u64; 8];
        let mut blocks = octets.chunks_exact(32);
        for block in &mut blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
                *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            }
        }
        let mut sum: u64 = lanes.iter().sum();
        let mut words = blocks.remainder().chunks_exact(2);
        for word in &mut words {
            sum += u64::from(u16::from_ne_bytes([word[0], word[1]]));
        }
        if let [last] = words.remainder() {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Self(fold(self.0 + sum))
    }

    /// Adds a number of the packet.
    #[inline]
    #[must_use]
    pub fn add_u16(self, value: u16) -> Self {
        Self(self.0 + u64::from(value.to_be()))
    }

    /// Takes a number off that had been added.
    #[inline]
    #[must_use]
    pub fn sub_u16(self, value: u16) -> Self {
        self.add_u16(!value)
    }

    /// The IPv6 pseudo-header (RFC 8200 section 8.1). `addresses`: source and destination, 32 octets.
    #[inline]
    #[must_use]
    pub fn add_pseudo_header(self, addresses: &[u8], upper_len: usize, protocol: u8) -> Self {
        let len = (upper_len as u32).to_be_bytes();
        self.octets(addresses)
            .add_u16(u16::from_be_bytes([len[0], len[1]]))
            .add_u16(u16::from_be_bytes([len[2], len[3]]))
            .add_u16(u16::from(protocol))
    }

    /// The folded sum as it stands in a packet, not complemented: what a partial checksum
    /// (VIRTIO_NET_HDR_F_NEEDS_CSUM) holds.
    #[inline]
    pub fn partial(self) -> [u8; 2] {
        let folded = fold(self.0);
        let folded = (folded & 0xffff) + (folded >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        (folded as u16).to_ne_bytes()
    }

    /// The checksum as it stands in a packet.
    #[inline]
    pub fn checksum(self) -> [u8; 2] {
        (!u16::from_ne_bytes(self.partial())).to_ne_bytes()
    }

    /// Whether a sum over data and its checksum says that it is undamaged.
    #[inline]
    pub fn is_valid(self) -> bool {
        self.partial() == [0xff, 0xff]
    }
}

/// 64 bits to 32 and carry, so that many sums can be added without an overflow.
#[inline]
fn fold(sum: u64) -> u64 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    (sum & 0xffff_ffff) + (sum >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 section 1, word by word.
    fn plain(octets: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for word in octets.chunks(2) {
            sum += u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn rfc_1071_example() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.octets(&octets).checksum(), (!0xddf2_u16).to_be_bytes());
    }

    proptest! {
        #[test]
        fn equals_the_plain_sum(octets in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(u16::from_be_bytes(Sum::ZERO.octets(&octets).checksum()), plain(&octets));
        }
        #[test]
        fn parts_add_up(octets in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..150) {
            let cut = (cut * 2).min(octets.len() & !1);
            let (a, b) = octets.split_at(cut);
            prop_assert_eq!(Sum::ZERO.octets(a).octets(b).checksum(), Sum::ZERO.octets(&octets).checksum());
        }
        #[test]
        fn a_valid_checksum_verifies(mut octets in proptest::collection::vec(any::<u8>(), 2..300), value: u16) {
            octets[..2].fill(0);
            let sum = Sum::ZERO.octets(&octets).checksum();
            octets[..2].copy_from_slice(&sum);
            prop_assert!(Sum::ZERO.octets(&octets).is_valid());
            let with = Sum::ZERO.octets(&octets).add_u16(value).sub_u16(value);
            prop_assert!(with.is_valid());
        }
    }
}
