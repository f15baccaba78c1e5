//! Splitting super-packets from the TUN device: what a network card does for TSO and USO.

use crate::checksum::Sum;
use crate::classify::IPV6_HEADER_LEN;
use crate::virtio::{Gso, Header};

/// Offset of the checksum in a TCP header.
const TCP_CSUM: usize = 16;
/// Offset of the checksum in a UDP header.
const UDP_CSUM: usize = 6;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// Why a super-packet can't be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GsoError {
    /// The virtio-net header doesn't fit the packet.
    #[error("virtio-net header does not fit the packet")]
    Malformed,
    /// A kind of super-packet that was not asked for.
    #[error("unknown kind of super-packet")]
    Unsupported,
}

/// A super-packet, ready to be written out segment by segment. A lone packet is one of a single segment.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    packet: &'a [u8],
    /// All headers in front of the payload.
    headers: usize,
    /// Where the transport header begins.
    transport: usize,
    gso: Gso,
    size: usize,
    count: usize,
    /// The header's partial checksum without its length: to be completed for each segment.
    partial: Option<(Sum, usize)>,
}

impl<'a> Segments<'a> {
    /// Checks the header against the packet.
    ///
    /// # Errors
    /// [`GsoError`].
    #[inline]
    pub fn new(header: &Header, packet: &'a [u8]) -> Result<Self, GsoError> {
        let transport = usize::from(header.csum_start);
        let csum_offset = usize::from(header.csum_offset);
        if header.needs_csum && transport + csum_offset + 2 > packet.len() {
            return Err(GsoError::Malformed);
        }
        let lone = Self {
            packet,
            headers: packet.len(),
            transport,
            gso: Gso::None,
            size: 0,
            count: 1,
            partial: header.needs_csum.then_some((Sum::ZERO, transport + csum_offset)),
        };
        let (headers, csum) = match header.gso {
            Gso::None => return Ok(lone),
            Gso::Other(_) => return Err(GsoError::Unsupported),
            Gso::Tcp6 => {
                let offset = packet.get(transport + 12).ok_or(GsoError::Malformed)? >> 4;
                (transport + usize::from(offset) * 4, TCP_CSUM)
            }
            Gso::Udp => (transport + 8, UDP_CSUM),
        };
        let size = usize::from(header.gso_size);
        let minimum = transport + if header.gso == Gso::Tcp6 { 20 } else { 8 };
        if !header.needs_csum
            || csum_offset != csum
            || transport < IPV6_HEADER_LEN
            || headers < minimum
            || headers > packet.len()
            || size == 0
        {
            return Err(GsoError::Malformed);
        }
        let payload = packet.len() - headers;
        let upper = packet.len() - transport;
        let stored = [packet[transport + csum], packet[transport + csum + 1]];
        // The kernel summed the pseudo-header with the length of the whole; a Routing Header's final destination is in
        // it as well. So only the length is exchanged (RFC 1624).
        let base = Sum::ZERO.octets(&stored).sub_u16((upper >> 16) as u16).sub_u16(upper as u16);
        Ok(Self {
            packet,
            headers,
            transport,
            gso: header.gso,
            size,
            count: payload.div_ceil(size).max(1),
            partial: Some((base, transport + csum)),
        })
    }

    /// How many segments.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Octets of the largest segment with all its headers.
    #[inline]
    pub fn max_len(&self) -> usize {
        if self.gso == Gso::None {
            self.packet.len()
        } else {
            self.packet.len().min(self.headers + self.size)
        }
    }

    /// Octets of segment `index`.
    #[inline]
    pub fn len(&self, index: usize) -> usize {
        if self.gso == Gso::None {
            return self.packet.len();
        }
        let start = (self.headers + index * self.size).min(self.packet.len());
        self.headers + (self.packet.len() - start).min(self.size)
    }

    /// Never: there is at least one segment.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes segment `index` to the start of `out` with right lengths, sequence number, flags and checksum.
    /// Returns its length.
    ///
    /// # Panics
    /// When `out` is shorter than [`Self::len`], or `index` is not below [`Self::count`].
    #[inline]
    pub fn write(&self, index: usize, out: &mut [u8]) -> usize {
        assert!(index < self.count, "segment {index} of {}", self.count);
        let len = self.len(index);
        let out = &mut out[..len];
        if self.gso == Gso::None {
            out.copy_from_slice(self.packet);
            if let Some((_, at)) = self.partial {
                let sum = Sum::ZERO.octets(&out[self.transport..]).checksum();
                let udp = at - self.transport == UDP_CSUM;
                store(out, at, sum, udp);
            }
            return len;
        }
        let start = self.headers + index * self.size;
        out[..self.headers].copy_from_slice(&self.packet[..self.headers]);
        out[self.headers..].copy_from_slice(&self.packet[start..start + len - self.headers]);
        out[4..6].copy_from_slice(&((len - IPV6_HEADER_LEN) as u16).to_be_bytes());
        let upper = len - self.transport;
        let transport = &mut out[self.transport..];
        let last = index + 1 == self.count;
        if self.gso == Gso::Tcp6 {
            let sequence = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
            let sequence = sequence.wrapping_add((index * self.size) as u32);
            transport[4..8].copy_from_slice(&sequence.to_be_bytes());
            if !last {
                transport[13] &= !(TCP_FIN | TCP_PSH);
            }
            // RFC 3168 section 6.1.2: the receiver needs CWR once.
            if index > 0 {
                transport[13] &= !TCP_CWR;
            }
        } else {
            transport[4..6].copy_from_slice(&(upper as u16).to_be_bytes());
        }
        if let Some((base, at)) = self.partial {
            let at = at - self.transport;
            transport[at..at + 2].fill(0);
            let sum = base.add_u16((upper >> 16) as u16).add_u16(upper as u16).octets(transport).checksum();
            store(transport, at, sum, self.gso == Gso::Udp);
        }
        len
    }
}

/// RFC 8200 section 8.1: a UDP checksum that comes out as zero is sent as all ones.
#[inline]
fn store(packet: &mut [u8], at: usize, sum: [u8; 2], udp: bool) {
    let sum = if udp && sum == [0, 0] { [0xff, 0xff] } else { sum };
    packet[at..at + 2].copy_from_slice(&sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{tcp, udp};
    use pnet_packet::ipv6::Ipv6Packet;
    use pnet_packet::tcp::TcpPacket;
    use pnet_packet::udp::UdpPacket;
    use pnet_packet::{Packet, tcp::ipv6_checksum as tcp_checksum, udp::ipv6_checksum as udp_checksum};
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    const A: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x101);
    const B: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 2);

    /// The partial checksum that the kernel leaves: the pseudo-header's.
    fn make_partial(packet: &mut [u8], at: usize) {
        let sum = Sum::ZERO.add_pseudo_header(&packet[8..40], packet.len() - 40, packet[6]).partial();
        packet[at..at + 2].copy_from_slice(&sum);
    }
    fn header(gso: Gso, gso_size: usize, csum_offset: usize) -> Header {
        Header {
            needs_csum: true,
            data_valid: false,
            gso,
            gso_size: gso_size as u16,
            hdr_len: 0,
            csum_start: 40,
            csum_offset: csum_offset as u16,
        }
    }
    fn split(header: &Header, packet: &[u8]) -> Vec<Vec<u8>> {
        let segments = Segments::new(header, packet).unwrap();
        (0..segments.count())
            .map(|i| {
                let mut out = vec![0xaa; segments.max_len()];
                let len = segments.write(i, &mut out);
                out.truncate(len);
                out
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        /// pnet_packet is the independent reader: its checksums, its fields.
        #[test]
        fn tcp_segments_are_right(payload in proptest::collection::vec(any::<u8>(), 1..5000), mss in 1_usize..1500, seq: u32, flags: u8) {
            let mut packet = tcp(A, B, 1000, 80, seq, flags, &payload);
            make_partial(&mut packet, 56);
            let segments = split(&header(Gso::Tcp6, mss, 16), &packet);
            prop_assert_eq!(segments.len(), payload.len().div_ceil(mss));
            let mut rebuilt = Vec::new();
            for (i, segment) in segments.iter().enumerate() {
                let ip = Ipv6Packet::new(segment).unwrap();
                prop_assert_eq!(usize::from(ip.get_payload_length()), segment.len() - 40);
                let t = TcpPacket::new(ip.payload()).unwrap();
                prop_assert_eq!(t.get_checksum(), tcp_checksum(&t, &A, &B));
                prop_assert_eq!(t.get_sequence(), seq.wrapping_add((i * mss) as u32));
                prop_assert_eq!(t.get_acknowledgement(), 7);
                let mut expected = flags;
                if i + 1 < segments.len() { expected &= !0x09; }
                if i > 0 { expected &= !0x80; }
                prop_assert_eq!(segment[53], expected);
                prop_assert_eq!(&segment[60..72], &packet[60..72]);
                rebuilt.extend_from_slice(&segment[72..]);
            }
            prop_assert_eq!(rebuilt, payload);
        }
        #[test]
        fn udp_segments_are_right(payload in proptest::collection::vec(any::<u8>(), 1..5000), size in 1_usize..1500) {
            let mut packet = udp(A, B, 1000, 80, &payload);
            make_partial(&mut packet, 46);
            let mut rebuilt = Vec::new();
            for segment in split(&header(Gso::Udp, size, 6), &packet) {
                let ip = Ipv6Packet::new(&segment).unwrap();
                let u = UdpPacket::new(ip.payload()).unwrap();
                prop_assert_eq!(usize::from(u.get_length()), ip.payload().len());
                // RFC 8200 section 8.1: where it comes out as 0, 0xffff is sent. The reader does not know.
                let sum = match udp_checksum(&u, &A, &B) { 0 => 0xffff, sum => sum };
                prop_assert_eq!(u.get_checksum(), sum);
                rebuilt.extend_from_slice(u.payload());
            }
            prop_assert_eq!(rebuilt, payload);
        }
        #[test]
        fn a_lone_packet_is_completed(payload in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let whole = udp(A, B, 1000, 80, &payload);
            let mut packet = whole.clone();
            make_partial(&mut packet, 46);
            prop_assert_eq!(split(&header(Gso::None, 0, 6), &packet), vec![whole.clone()]);
            prop_assert_eq!(split(&Header::default(), &whole), vec![whole]);
        }
        #[test]
        fn never_panics(packet in proptest::collection::vec(any::<u8>(), 0..200), octets: [u8; 10], start in 0_u16..80, offset in 0_u16..20, size in 0_u16..50, kind in 0_u8..7) {
            let mut header = Header::decode(&octets);
            header.csum_start = start;
            header.csum_offset = offset;
            header.gso_size = size;
            header.gso = [Gso::None, Gso::Tcp6, Gso::Udp, Gso::Other(9), Gso::Tcp6, Gso::Udp, Gso::Tcp6][usize::from(kind)];
            if let Ok(segments) = Segments::new(&header, &packet) {
                for i in 0..segments.count() {
                    let mut out = vec![0; segments.max_len()];
                    prop_assert_eq!(segments.write(i, &mut out), segments.len(i));
                }
            }
        }
    }
}
