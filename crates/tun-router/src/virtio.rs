//! The virtio-net header in front of each packet of a TUN device with IFF_VNET_HDR (`linux/virtio_net.h`).

/// Octets of the header.
pub const HEADER_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What the packet behind the header is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Gso {
    /// One packet.
    #[default]
    None,
    /// A TCP super-packet over IPv6.
    Tcp6,
    /// A UDP super-packet.
    Udp,
    /// A type that we don't ask for and can't split.
    Other(u8),
}

/// The header, in host order, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Header {
    /// The checksum at `csum_start + csum_offset` is the pseudo-header's sum only and must be completed.
    pub needs_csum: bool,
    /// The checksums have been verified.
    pub data_valid: bool,
    /// Kind of super-packet.
    pub gso: Gso,
    /// Octets of payload of each segment.
    pub gso_size: u16,
    /// Octets of all headers up to the payload; a hint.
    pub hdr_len: u16,
    /// Where the checksum begins to count, from the start of the packet.
    pub csum_start: u16,
    /// Where the checksum stands, from `csum_start`.
    pub csum_offset: u16,
}

impl Header {
    /// Reads the header.
    pub fn decode(octets: &[u8; HEADER_LEN]) -> Self {
        let u16_at = |i: usize| u16::from_ne_bytes([octets[i], octets[i + 1]]);
        Self {
            needs_csum: octets[0] & NEEDS_CSUM != 0,
            data_valid: octets[0] & DATA_VALID != 0,
            gso: match octets[1] & !GSO_ECN {
                0 => Gso::None,
                GSO_TCPV6 => Gso::Tcp6,
                GSO_UDP_L4 => Gso::Udp,
                other => Gso::Other(other),
            },
            hdr_len: u16_at(2),
            gso_size: u16_at(4),
            csum_start: u16_at(6),
            csum_offset: u16_at(8),
        }
    }

    /// Writes the header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut octets = [0; HEADER_LEN];
        octets[0] = (u8::from(self.needs_csum) * NEEDS_CSUM) | (u8::from(self.data_valid) * DATA_VALID);
        octets[1] = match self.gso {
            Gso::None => 0,
            Gso::Tcp6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
            Gso::Other(other) => other,
        };
        octets[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
        octets[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        octets[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        octets[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let header = Header {
            needs_csum: true,
            data_valid: false,
            gso: Gso::Tcp6,
            gso_size: 1340,
            hdr_len: 60,
            csum_start: 40,
            csum_offset: 16,
        };
        assert_eq!(Header::decode(&header.encode()), header);
        assert_eq!(Header::decode(&[0; HEADER_LEN]), Header::default());
    }
}
