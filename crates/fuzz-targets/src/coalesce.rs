//! GRO: what goes to the tunnel device in super-packets must be, packet by packet, what came.

use crate::input::Input;
use ferry6_tun_router::classify::parse;
use ferry6_tun_router::gro::{Buffers, Coalescer, Place, TunSink};
use ferry6_tun_router::gso::Segments;
use ferry6_tun_router::testing::{Ipv6Packet, icmpv6, tcp, udp};
use ferry6_tun_router::virtio::Header;
use std::io::IoSlice;
use std::net::Ipv6Addr;

/// The most packets of one batch.
const PACKETS: usize = 200;

#[derive(Default)]
struct Written(Vec<(usize, Header, Vec<u8>)>);

impl TunSink for Written {
    fn write(&mut self, queue: usize, header: &Header, parts: &[IoSlice<'_>]) {
        self.0.push((queue, *header, parts.iter().flat_map(|part| part.to_vec()).collect()));
    }
}

/// A batch of packets through the coalescer, and back through the splitter.
///
/// Held against: nothing is lost, added or changed; packets between the same two addresses leave in the order in which they came, but for
/// those of two flows that both may be merged; each packet goes to its queue. The splitter has its own target and tests.
///
/// Input: switches, then for each packet kind, addresses and ports, flags, length, and what is wrong with it.
pub fn gro_coalesce(data: &[u8]) {
    let mut input = Input(data);
    let switches = input.u8();
    let (enabled, with_udp) = (switches & 1 == 0, switches & 2 == 0);
    let mut next_sequence = [0x7fff_fff0_u32, 0xffff_f000, 1, 0];
    let mut packets: Vec<(usize, Vec<u8>)> = Vec::new();
    while !input.is_empty() && packets.len() < PACKETS {
        packets.push(packet(&mut input, &mut next_sequence));
    }
    // Only what the inbound worker lets through gets to the coalescer.
    packets.retain(|(_, packet)| parse(packet).is_ok_and(|parsed| parsed.len == packet.len()));

    // Every other one lies in the buffer of inflated packets, if so switched.
    let (mut received, mut inflated, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (_, packet)) in packets.iter().enumerate() {
        let (place, buffer) = if switches & 4 != 0 && number % 2 == 1 {
            (Place::Inflated, &mut inflated)
        } else {
            (Place::Received, &mut received)
        };
        places.push((place, buffer.len()));
        buffer.extend_from_slice(packet);
    }
    let mut buffers = Buffers { received: &mut received, inflated: &mut inflated };
    let mut coalescer = Coalescer::new(enabled, with_udp);
    for ((queue, packet), (place, start)) in packets.iter().zip(&places) {
        let parsed = parse(packet).expect("it was parsed above");
        coalescer.push(&buffers, *place, *start, &parsed, *queue);
    }
    let mut written = Written::default();
    coalescer.flush(&mut buffers, &mut written);
    assert!(coalescer.is_empty());
    if !enabled {
        assert_eq!(written.0.len(), packets.len(), "merged, and nobody may");
    }

    let mut out: Vec<(usize, Vec<u8>)> = Vec::new();
    for (queue, header, packet) in &written.0 {
        let segments = Segments::new(header, packet).expect("what is written can be split");
        for index in 0..segments.count() {
            let mut segment = vec![0; segments.max_len()];
            let len = segments.write(index, &mut segment);
            segment.truncate(len);
            out.push((*queue, segment));
        }
    }
    let key = |(queue, packet): &(usize, Vec<u8>)| (*queue, flow(packet));
    let mut flows: Vec<_> = packets.iter().map(key).collect();
    flows.sort();
    flows.dedup();
    let of = |list: &[(usize, Vec<u8>)], wanted| -> Vec<Vec<u8>> {
        list.iter().filter(|p| key(p) == wanted).map(|p| plain(&p.1)).collect()
    };
    for wanted in flows {
        assert_eq!(of(&packets, wanted), of(&out, wanted), "a flow was changed");
    }
    assert_eq!(packets.len(), out.len(), "a packet more or less");
    // What is never merged keeps its place among all packets between its addresses.
    let barriers = |list: &[(usize, Vec<u8>)]| {
        let mut before = Vec::new();
        for (position, (_, packet)) in list.iter().enumerate().filter(|(_, p)| !mergeable(&p.1)) {
            let mut earlier: Vec<_> = list[..position]
                .iter()
                .filter(|p| p.1[8..40] == packet[8..40])
                .map(|p| plain(&p.1))
                .collect();
            earlier.sort();
            before.push((plain(packet), earlier));
        }
        before.sort();
        before
    };
    assert_eq!(barriers(&packets), barriers(&out), "something overtook a packet that is no part of a flow");
}

fn packet(input: &mut Input<'_>, next_sequence: &mut [u32; 4]) -> (usize, Vec<u8>) {
    let [kind, who, flags, length, fault] = input.array();
    let address = |n: u8| Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 1 + u16::from(n & 1));
    let (source, destination) = (address(who), address(who >> 1));
    let (from, to) = (1000 + u16::from(who >> 2 & 1), 2000 + u16::from(who >> 3 & 1));
    // Mostly equal sizes, as in a stream.
    let payload = vec![length; [16, 16, 16, usize::from(length), 1, 0, 700, 1400][usize::from(length & 7)]];
    let mut packet = match kind & 3 {
        0 | 1 => {
            let next = &mut next_sequence[usize::from(who >> 2 & 3)];
            let sequence = if kind & 4 == 0 { *next } else { next.wrapping_add(u32::from(fault)) };
            *next = sequence.wrapping_add(payload.len() as u32);
            tcp(source, destination, from, to, sequence, if kind & 8 == 0 { 0x10 } else { flags }, &payload)
        }
        2 => udp(source, destination, from, to, &payload),
        _ if kind & 4 == 0 => icmpv6(source, destination, 128, 0, &payload),
        // Any next header, with anything behind it.
        _ => Ipv6Packet { source, destination, next_header: flags }.build(&payload),
    };
    if kind & 0x10 != 0 {
        // One octet wrong, somewhere in the headers or at the start of the payload: the traffic class, options, a checksum.
        let at = usize::from(fault) % packet.len().min(80);
        packet[at] ^= flags | 1;
    }
    (usize::from(kind >> 5 & 1), packet)
}

/// Addresses, protocol and ports.
pub(crate) fn flow(packet: &[u8]) -> ([u8; 32], u8, [u8; 4]) {
    let addresses = packet[8..40].try_into().expect("32 octets");
    let ports = if mergeable(packet) { packet[40..44].try_into().expect("4 octets") } else { [0; 4] };
    (addresses, packet[6], ports)
}

/// TCP and UDP right behind the IPv6 header, in full: all else is never merged.
fn mergeable(packet: &[u8]) -> bool {
    matches!((packet[6], packet.len()), (6, 60..) | (17, 48..))
}

/// The packet with one spelling of a checksum of zero: both are right, and the splitter writes one.
pub(crate) fn plain(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let at = match packet[6] {
        6 => 56,
        17 => 46,
        _ => return packet,
    };
    if let Some(sum) = packet.get_mut(at..at + 2)
        && sum == [0xff, 0xff]
    {
        sum.copy_from_slice(&[0, 0]);
    }
    packet
}
