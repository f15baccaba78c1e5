//! Coalescing inner packets into super-packets for the TUN device: what a network card does for GRO.
//!
//! TCP and UDP packets of one flow that follow each other become one write. A checksum is verified before a packet is
//! merged, for the merged packet gets a fresh one (RFC 9293: the end-to-end check must not be weakened). A flow is
//! never reordered: a packet goes behind the last one of its flow, or into it.
//!
//! Nothing is copied: packets stay in the receive buffer, headers of later packets are skipped by the gather list.

use crate::checksum::Sum;
use crate::classify::{IPV6_HEADER_LEN, Parsed, protocol};
use crate::virtio::{Gso, Header};
use std::io::IoSlice;

/// The most packets in one super-packet.
pub(crate) const MAX_PIECES: usize = 64;
/// How many of the latest super-packets are tried for a merge.
const SEARCH: usize = 8;

const TCP_PSH: u8 = 0x08;
const TCP_ACK: u8 = 0x10;

/// Where an inner packet lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the receive buffer.
    Received,
    /// In the buffer of inflated packets.
    Inflated,
}

/// The two buffers that inner packets lie in.
#[derive(Debug)]
pub struct Buffers<'a> {
    /// The receive buffer.
    pub received: &'a mut [u8],
    /// Inflated packets.
    pub inflated: &'a mut [u8],
}

impl Buffers<'_> {
    fn get(&self, place: Place) -> &[u8] {
        match place {
            Place::Received => self.received,
            Place::Inflated => self.inflated,
        }
    }
    fn get_mut(&mut self, place: Place) -> &mut [u8] {
        match place {
            Place::Received => self.received,
            Place::Inflated => self.inflated,
        }
    }
}

/// A range of octets in one of the buffers.
#[derive(Clone, Copy, Debug)]
struct Piece {
    place: Place,
    start: u32,
    len: u32,
    /// The next piece of the same super-packet.
    next: u32,
}

const END: u32 = u32::MAX;

/// Takes what is to be written to the TUN device.
pub trait TunSink {
    /// Writes one packet or super-packet, made of parts, to a queue of the device. Counts its own errors.
    fn write(&mut self, queue: usize, header: &Header, parts: &[IoSlice<'_>]);
}

/// A packet, or super-packet in the making.
#[derive(Debug)]
struct Slot {
    queue: usize,
    kind: Kind,
    /// First and last piece; the first is the whole first packet.
    first: u32,
    last: u32,
    pieces: u32,
    /// Headers of the first packet.
    headers: u16,
    /// Payload of each packet but the last.
    size: u16,
    /// Payload in all.
    payload: u32,
    /// TCP: the sequence number that comes next.
    next_sequence: u32,
    /// Takes no more packets.
    closed: bool,
    /// Some packet had PSH.
    push: bool,
    /// Addresses and ports: the flow.
    key: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    source: u128,
    destination: u128,
    /// Both ports as they stand in the header.
    ports: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Never merged with; a barrier for all flows between its addresses.
    Other,
    Tcp,
    Udp,
}

/// Collects the packets of one receive batch; [`Self::flush`] writes them.
#[derive(Debug)]
pub struct Coalescer {
    slots: Vec<Slot>,
    pieces: Vec<Piece>,
    enabled: bool,
    udp: bool,
}

impl Coalescer {
    /// `enabled`: the device takes super-packets; `udp`: of UDP too.
    pub fn new(enabled: bool, udp: bool) -> Self {
        Self { slots: Vec::with_capacity(128), pieces: Vec::with_capacity(1024), enabled, udp }
    }

    /// Adds the inner packet at `start`, `parsed.len` octets long.
    ///
    /// # Panics
    /// When the place is outside the buffers.
    #[inline]
    pub fn push(&mut self, buffers: &Buffers<'_>, place: Place, start: usize, parsed: &Parsed, queue: usize) {
        let packet = &buffers.get(place)[start..start + parsed.len];
        let candidate = if self.enabled { Candidate::new(packet, parsed, self.udp) } else { None };
        let piece = Piece { place, start: start as u32, len: parsed.len as u32, next: END };
        let Some(candidate) = candidate else {
            let key = Key { source: parsed.flow.source, destination: parsed.flow.destination, ports: 0 };
            self.slots.push(Slot {
                queue,
                kind: Kind::Other,
                first: self.pieces.len() as u32,
                last: self.pieces.len() as u32,
                pieces: 1,
                headers: 0,
                size: 0,
                payload: 0,
                next_sequence: 0,
                closed: true,
                push: false,
                key,
            });
            self.pieces.push(piece);
            return;
        };
        // The latest super-packet of the same flow, or a barrier between its addresses, decides.
        let newest = self.slots.iter_mut().rev().take(SEARCH).find(|slot| {
            slot.key == candidate.key && slot.kind == candidate.kind
                || slot.kind == Kind::Other
                    && slot.key.source == candidate.key.source
                    && slot.key.destination == candidate.key.destination
        });
        if let Some(slot) = newest
            && slot.kind == candidate.kind
            && !slot.closed
            && slot.queue == queue
        {
            let first = self.pieces[slot.first as usize];
            let head = &buffers.get(first.place)[first.start as usize..][..usize::from(slot.headers)];
            if slot.takes(head, packet, &candidate) && candidate.checksum_is_valid(packet) {
                let headers = usize::from(candidate.headers);
                let index = self.pieces.len() as u32;
                self.pieces.push(Piece {
                    start: (start + headers) as u32,
                    len: u32::from(candidate.payload),
                    ..piece
                });
                self.pieces[slot.last as usize].next = index;
                slot.last = index;
                slot.pieces += 1;
                slot.payload += u32::from(candidate.payload);
                slot.next_sequence = candidate.sequence.wrapping_add(u32::from(candidate.payload));
                slot.push |= candidate.push;
                slot.closed = candidate.push || candidate.payload < slot.size;
                return;
            }
        }
        let index = self.pieces.len() as u32;
        self.pieces.push(piece);
        self.slots.push(Slot {
            queue,
            kind: candidate.kind,
            first: index,
            last: index,
            pieces: 1,
            headers: candidate.headers,
            size: candidate.payload,
            payload: u32::from(candidate.payload),
            next_sequence: candidate.sequence.wrapping_add(u32::from(candidate.payload)),
            // Merging vouches for the checksum of the first packet too.
            closed: candidate.push || !candidate.checksum_is_valid(packet),
            push: candidate.push,
            key: candidate.key,
        });
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Writes all, in order, and is empty then.
    #[inline]
    pub fn flush(&mut self, buffers: &mut Buffers<'_>, sink: &mut impl TunSink) {
        for slot in self.slots.drain(..) {
            let first = self.pieces[slot.first as usize];
            let header = if slot.pieces == 1 {
                Header::default()
            } else {
                let packet =
                    &mut buffers.get_mut(first.place)[first.start as usize..][..usize::from(slot.headers)];
                slot.finish(packet)
            };
            let mut parts = [IoSlice::new(&[]); MAX_PIECES];
            let mut count = 0;
            let mut next = slot.first;
            while next != END && count < MAX_PIECES {
                let piece = self.pieces[next as usize];
                parts[count] =
                    IoSlice::new(&buffers.get(piece.place)[piece.start as usize..][..piece.len as usize]);
                count += 1;
                next = piece.next;
            }
            sink.write(slot.queue, &header, &parts[..count]);
        }
        self.pieces.clear();
    }
}

impl Slot {
    /// Whether `packet` may follow the first packet, whose headers are `head`.
    #[inline]
    fn takes(&self, head: &[u8], packet: &[u8], candidate: &Candidate) -> bool {
        if candidate.headers != self.headers
            || candidate.payload > self.size
            || self.pieces as usize >= MAX_PIECES
            || usize::from(self.headers) - IPV6_HEADER_LEN + (self.payload + u32::from(candidate.payload)) as usize
                > usize::from(u16::MAX)
            // Version, traffic class (with ECN) and flow label; then hop limit.
            || head[..4] != packet[..4]
            || head[7] != packet[7]
        {
            return false;
        }
        if self.kind == Kind::Udp {
            return true;
        }
        let (head, tcp) =
            (&head[IPV6_HEADER_LEN..], &packet[IPV6_HEADER_LEN..usize::from(candidate.headers)]);
        candidate.sequence == self.next_sequence
            // Acknowledgement and data offset; PSH may differ; window; urgent pointer and options, timestamps among them.
            && head[8..13] == tcp[8..13]
            && (head[13] ^ tcp[13]) & !TCP_PSH == 0
            && head[14..16] == tcp[14..16]
            && head[18..] == tcp[18..]
    }

    /// Writes the super-packet's lengths and partial checksum into the first packet's headers.
    fn finish(&self, head: &mut [u8]) -> Header {
        let upper = usize::from(self.headers) - IPV6_HEADER_LEN + self.payload as usize;
        head[4..6].copy_from_slice(&(upper as u16).to_be_bytes());
        let (gso, at, proto) = match self.kind {
            Kind::Tcp => (Gso::Tcp6, 16, protocol::TCP),
            _ => (Gso::Udp, 6, protocol::UDP),
        };
        let (ip, transport) = head.split_at_mut(IPV6_HEADER_LEN);
        if self.kind == Kind::Tcp {
            if self.push {
                transport[13] |= TCP_PSH;
            }
        } else {
            transport[4..6].copy_from_slice(&(upper as u16).to_be_bytes());
        }
        let sum = Sum::ZERO.add_pseudo_header(&ip[8..40], upper, proto).partial();
        transport[at..at + 2].copy_from_slice(&sum);
        Header {
            needs_csum: true,
            data_valid: false,
            gso,
            gso_size: self.size,
            hdr_len: self.headers,
            csum_start: IPV6_HEADER_LEN as u16,
            csum_offset: at as u16,
        }
    }
}

/// A packet that may be merged, its checksum not yet looked at.
struct Candidate {
    kind: Kind,
    key: Key,
    headers: u16,
    payload: u16,
    sequence: u32,
    push: bool,
}

impl Candidate {
    /// `None` for what is never merged: other protocols, extension headers, no payload, TCP flags other than ACK and PSH.
    #[inline]
    fn new(packet: &[u8], parsed: &Parsed, udp: bool) -> Option<Self> {
        if parsed.transport != IPV6_HEADER_LEN || parsed.fragment {
            return None;
        }
        let transport = &packet[IPV6_HEADER_LEN..];
        let (kind, header, sequence, push) = match parsed.flow.protocol {
            protocol::TCP => {
                let fixed = transport.first_chunk::<20>()?;
                let header = usize::from(fixed[12] >> 4) * 4;
                if header < 20 || fixed[13] & !TCP_PSH != TCP_ACK {
                    return None;
                }
                let sequence = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
                (Kind::Tcp, header, sequence, fixed[13] & TCP_PSH != 0)
            }
            protocol::UDP if udp => {
                let fixed = transport.first_chunk::<8>()?;
                if usize::from(u16::from_be_bytes([fixed[4], fixed[5]])) != transport.len()
                    || fixed[6..8] == [0, 0]
                {
                    return None;
                }
                (Kind::Udp, 8, 0, false)
            }
            _ => return None,
        };
        let payload = transport.len().checked_sub(header).filter(|payload| *payload > 0)?;
        let ports = u32::from_ne_bytes([transport[0], transport[1], transport[2], transport[3]]);
        Some(Self {
            kind,
            key: Key { source: parsed.flow.source, destination: parsed.flow.destination, ports },
            headers: (IPV6_HEADER_LEN + header) as u16,
            payload: payload as u16,
            sequence,
            push,
        })
    }

    #[inline]
    fn checksum_is_valid(&self, packet: &[u8]) -> bool {
        let proto = if self.kind == Kind::Tcp { protocol::TCP } else { protocol::UDP };
        Sum::ZERO
            .add_pseudo_header(&packet[8..40], packet.len() - IPV6_HEADER_LEN, proto)
            .octets(&packet[IPV6_HEADER_LEN..])
            .is_valid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::parse;
    use crate::gso::Segments;
    use crate::testing::{icmpv6, tcp, udp};
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    const A: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x101);
    const B: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 2);

    #[derive(Default)]
    struct Written(Vec<(Header, Vec<u8>)>);
    impl TunSink for Written {
        fn write(&mut self, _queue: usize, header: &Header, parts: &[IoSlice<'_>]) {
            self.0.push((*header, parts.iter().flat_map(|part| part.to_vec()).collect()));
        }
    }

    fn coalesce(packets: &[Vec<u8>]) -> Vec<(Header, Vec<u8>)> {
        let mut coalescer = Coalescer::new(true, true);
        let mut received: Vec<u8> = packets.concat();
        let mut buffers = Buffers { received: &mut received, inflated: &mut [] };
        let mut start = 0;
        for packet in packets {
            coalescer.push(&buffers, Place::Received, start, &parse(packet).unwrap(), 0);
            start += packet.len();
        }
        let mut written = Written::default();
        coalescer.flush(&mut buffers, &mut written);
        assert!(coalescer.is_empty());
        written.0
    }

    /// The plain reference: what was written, split again by the (independently tested) splitter.
    fn split_again(written: &[(Header, Vec<u8>)]) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for (header, packet) in written {
            let segments = Segments::new(header, packet).unwrap();
            for i in 0..segments.count() {
                let mut out = vec![0; segments.max_len()];
                let len = segments.write(i, &mut out);
                out.truncate(len);
                packets.push(out);
            }
        }
        packets
    }

    #[test]
    fn a_tcp_run_is_one_write() {
        let mut packets: Vec<_> =
            (0..40).map(|i| tcp(A, B, 1, 2, 1000 + i * 1300, 0x10, &[i as u8; 1300])).collect();
        packets.push(tcp(A, B, 1, 2, 1000 + 40 * 1300, 0x18, b"end"));
        let written = coalesce(&packets);
        assert_eq!(written.len(), 1);
        assert_eq!((written[0].0.gso, written[0].0.gso_size), (Gso::Tcp6, 1300));
        assert_eq!(split_again(&written), packets);
    }

    #[test]
    fn two_flows_each_become_one_write() {
        let mut packets = Vec::new();
        for i in 0..10 {
            packets.push(tcp(A, B, 1, 2, i * 100, 0x10, &[1; 100]));
            packets.push(udp(A, B, 1, 2, &[2; 200]));
        }
        let written = coalesce(&packets);
        assert_eq!(written.len(), 2);
        assert_eq!(written[1].0.gso, Gso::Udp);
    }

    #[test]
    fn what_must_not_merge() {
        let first = tcp(A, B, 1, 2, 0, 0x10, &[1; 100]);
        let mut bad_checksum = tcp(A, B, 1, 2, 100, 0x10, &[1; 100]);
        bad_checksum[80] ^= 1;
        let mut other_hop_limit = tcp(A, B, 1, 2, 100, 0x10, &[1; 100]);
        other_hop_limit[7] = 3;
        let mut other_class = tcp(A, B, 1, 2, 100, 0x10, &[1; 100]);
        other_class[1] |= 0x30;
        let mut udp_without_checksum = udp(A, B, 1, 2, &[1; 100]);
        udp_without_checksum[46..48].fill(0);
        for second in [
            tcp(A, B, 1, 2, 101, 0x10, &[1; 100]),
            tcp(A, B, 1, 3, 100, 0x10, &[1; 100]),
            tcp(A, B, 1, 2, 100, 0x11, &[1; 100]),
            tcp(A, B, 1, 2, 100, 0x30, &[1; 100]),
            tcp(A, B, 1, 2, 100, 0x10, &[1; 101]),
            tcp(A, B, 1, 2, 100, 0x10, &[]),
            bad_checksum,
            other_hop_limit,
            other_class,
            udp_without_checksum,
            icmpv6(A, B, 128, 0, &[0; 100]),
        ] {
            let packets = vec![first.clone(), second];
            let written = coalesce(&packets);
            assert_eq!(written.iter().map(|(_, p)| p.clone()).collect::<Vec<_>>(), packets);
            assert!(written.iter().all(|(header, _)| *header == Header::default()));
        }
        // A damaged first packet stays alone as well, and unchanged.
        let mut bad_first = first;
        bad_first[80] ^= 1;
        let packets = vec![bad_first, tcp(A, B, 1, 2, 100, 0x10, &[1; 100])];
        assert_eq!(coalesce(&packets).len(), 2);
    }

    #[test]
    fn order_within_a_flow_holds() {
        // A lost segment's retransmission must not slip into the older super-packet, nor anything after it.
        let packets = vec![
            tcp(A, B, 1, 2, 0, 0x10, &[1; 100]),
            tcp(A, B, 1, 2, 200, 0x10, &[3; 100]),
            tcp(A, B, 1, 2, 100, 0x10, &[2; 100]),
            tcp(A, B, 1, 2, 300, 0x10, &[4; 100]),
        ];
        assert_eq!(split_again(&coalesce(&packets)), packets);
        // A short packet ends a super-packet.
        let packets = vec![udp(A, B, 1, 2, &[1; 100]), udp(A, B, 1, 2, &[1; 50]), udp(A, B, 1, 2, &[1; 50])];
        let written = coalesce(&packets);
        assert_eq!(written.len(), 2);
        assert_eq!(split_again(&written), packets);
    }

    #[test]
    fn never_beyond_the_ipv6_length() {
        let packets: Vec<_> = (0..20).map(|i| udp(A, B, 1, 2, &vec![i; 9000])).collect();
        let written = coalesce(&packets);
        assert!(written.iter().all(|(_, p)| p.len() <= 40 + 65535));
        assert_eq!(split_again(&written), packets);
    }

    #[test]
    fn switched_off() {
        let mut coalescer = Coalescer::new(false, false);
        let packet = tcp(A, B, 1, 2, 0, 0x10, &[1; 100]);
        let mut received = packet.repeat(2);
        let mut buffers = Buffers { received: &mut received, inflated: &mut [] };
        coalescer.push(&buffers, Place::Received, 0, &parse(&packet).unwrap(), 0);
        coalescer.push(&buffers, Place::Received, packet.len(), &parse(&packet).unwrap(), 0);
        let mut written = Written::default();
        coalescer.flush(&mut buffers, &mut written);
        assert_eq!(written.0.len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        /// Whatever comes: each flow comes out as it went in, in order, to the octet.
        #[test]
        fn flows_survive(spec in proptest::collection::vec((0_u16..3, 0_u8..4, prop::sample::select(vec![0_usize, 1, 99, 100]), prop::sample::select(vec![0x10_u8, 0x18, 0x11]), 0_u8..20), 0..80)) {
            let mut next = [0_u32; 3];
            let mut packets = Vec::new();
            for (flow, kind, len, flags, twist) in spec {
                let sequence = next[usize::from(flow)];
                let mut packet = match kind {
                    0 | 1 => {
                        if twist > 0 { next[usize::from(flow)] = sequence + len as u32; }
                        tcp(A, B, flow, 2, sequence, flags, &vec![7; len])
                    }
                    2 => udp(A, B, flow, 2, &vec![8; len]),
                    _ => icmpv6(A, B, 128, 0, &vec![9; len]),
                };
                if twist == 1 { let last = packet.len() - 1; packet[last] ^= 1; }
                packets.push((usize::from(flow), kind.max(1), packet));
            }
            let plain: Vec<_> = packets.iter().map(|(_, _, p)| p.clone()).collect();
            let out = split_again(&coalesce(&plain));
            prop_assert_eq!(out.len(), plain.len());
            let key = |p: &Vec<u8>| (p[6], if p[6] == 58 { vec![] } else { p[40..44].to_vec() });
            for (_, _, packet) in &packets {
                let flow = key(packet);
                let before: Vec<_> = plain.iter().filter(|p| key(p) == flow).collect();
                let after: Vec<_> = out.iter().filter(|p| key(p) == flow).collect();
                prop_assert_eq!(before, after);
            }
        }
    }
}
