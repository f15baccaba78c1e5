//! Two ends, each with one worker, and a wire between them that is a vector.

use super::*;
use crate::batch::{Received, SendBatch};
use crate::classify::SelectorPair;
use crate::counters::{DropReason, Drops, SaCounters};
use crate::gro::TunSink;
use crate::size::{Fit, NO_CLAMP, Outer, OuterFields};
use crate::spd::Policy;
use crate::testing::{self, Ipv6Packet, icmpv6, tcp, udp};
use crate::virtio::{Gso, Header};
use ferry6_crypto::{Cipher, CipherSuite, PacketKeys};
use ferry6_esp::ipcomp::{Compressor, Decompressor};
use ferry6_esp::{InboundSa, OutboundSa, next_header};
use ferry6_ike::TrafficSelector;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x101);
const HOST: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 2);
const GCM: CipherSuite = CipherSuite::new(Cipher::Aes128Gcm16, None).unwrap();

fn address(left: bool) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, u8::from(left) + 1), 4500)
}

/// What an end did to the world.
#[derive(Default)]
struct World {
    wire: Vec<(Vec<u8>, UdpPath, u8)>,
    fits: Vec<Fit>,
    tun: Vec<(Header, Vec<u8>)>,
    reports: Vec<Report>,
    ike: Vec<Vec<u8>>,
    handed_on: Vec<(usize, Vec<u8>)>,
}

impl TunSink for World {
    fn write(&mut self, _queue: usize, header: &Header, parts: &[IoSlice<'_>]) {
        self.tun.push((*header, parts.iter().flat_map(|part| part.to_vec()).collect()));
    }
}
impl OutboundIo for World {
    fn send(&mut self, batch: &mut SendBatch) {
        let (buffer, runs) = batch.runs();
        for run in runs {
            self.fits.push(run.fit);
            for datagram in buffer[run.start..run.start + run.len].chunks(run.segment) {
                self.wire.push((datagram.to_vec(), run.path, run.tos));
            }
        }
        batch.clear();
    }
    fn report(&mut self, report: Report) {
        self.reports.push(report);
    }
}
impl InboundIo for World {
    fn ike(&mut self, message: &[u8], _meta: &Received) {
        self.ike.push(message.to_vec());
    }
    fn hand_off(&mut self, owner: usize, packet: &[u8], _meta: &Received) {
        self.handed_on.push((owner, packet.to_vec()));
    }
    fn report(&mut self, report: Report) {
        self.reports.push(report);
    }
}

struct End {
    left: bool,
    outbound: Outbound,
    inbound: Inbound,
    world: World,
    drops: Arc<Drops>,
    counters_in: Arc<SaCounters>,
    counters_out: Arc<SaCounters>,
    now: Instant,
}

fn spi(number: u32) -> Spi {
    Spi::new(number).unwrap()
}

fn keys(suite: CipherSuite, seed: u8) -> PacketKeys {
    testing::keys(suite, seed, seed + 1)
}

#[derive(Clone)]
struct Options {
    suite: CipherSuite,
    ipcomp: bool,
    client_ts: Vec<TrafficSelector>,
    host_ts: Vec<TrafficSelector>,
    soft_packets: u64,
    mtu: usize,
    mss: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            suite: GCM,
            ipcomp: false,
            client_ts: vec![TrafficSelector::prefix(IpAddr::V6(CLIENT), 128).unwrap()],
            host_ts: vec![TrafficSelector::ANY_V6],
            soft_packets: u64::MAX,
            mtu: 1400,
            mss: NO_CLAMP,
        }
    }
}

impl End {
    fn new(left: bool) -> Self {
        let drops = Arc::<Drops>::default();
        Self {
            left,
            outbound: Outbound::new(0, Arc::clone(&drops)),
            inbound: Inbound::new(0, 1, true, true, Arc::clone(&drops)),
            world: World::default(),
            drops,
            counters_in: Arc::default(),
            counters_out: Arc::default(),
            now: Instant::now(),
        }
    }

    fn command(&mut self, command: OutboundCommand) {
        self.outbound.handle_command(command, &mut self.world);
    }

    fn policy(&mut self, options: &Options) {
        let (local, remote) = if self.left {
            (&options.client_ts, &options.host_ts)
        } else {
            (&options.host_ts, &options.client_ts)
        };
        self.command(OutboundCommand::SetPolicy(
            Policy { reqid: 1, owner: 0 },
            Arc::new(SelectorPair::new(local, remote)),
        ));
    }

    /// SPIs and keys of a generation are even towards the left, odd towards the right.
    fn install_inbound(&mut self, options: &Options, generation: u8) {
        let (local, remote) = if self.left {
            (&options.client_ts, &options.host_ts)
        } else {
            (&options.host_ts, &options.client_ts)
        };
        let number = generation * 2 + u8::from(!self.left);
        let keys = keys(options.suite, number);
        self.inbound.handle_command(InboundCommand::Install(Box::new(NewInbound {
            sa: InboundSa::new(
                &ferry6_crypto::aws_lc::PROVIDER,
                spi(1000 + u32::from(number)),
                &keys,
                false,
                1024,
            )
            .unwrap(),
            decompressor: options.ipcomp.then(|| Decompressor::new(300)),
            selectors: Arc::new(SelectorPair::new(local, remote)),
            path: UdpPath { local: *address(self.left).ip(), remote: address(!self.left) },
            queue: 0,
            counters: Arc::clone(&self.counters_in),
            soft_packets: options.soft_packets,
            soft_bytes: u64::MAX,
            mss: options.mss,
        })));
    }

    fn install_outbound(&mut self, options: &Options, generation: u8, switch: bool) {
        let number = generation * 2 + u8::from(self.left);
        let new = NewOutbound {
            reqid: 1,
            sa: OutboundSa::new(
                &ferry6_crypto::aws_lc::PROVIDER,
                spi(1000 + u32::from(number)),
                &keys(options.suite, number),
                false,
            )
            .unwrap(),
            compressor: options.ipcomp.then(|| Compressor::new(300)),
            path: UdpPath { local: *address(self.left).ip(), remote: address(!self.left) },
            counters: Arc::clone(&self.counters_out),
            soft_packets: options.soft_packets,
            soft_bytes: u64::MAX,
            outer: Outer { mss: options.mss, ..Outer::plain(options.mtu) },
        };
        self.command(OutboundCommand::Install(Box::new(new), switch));
    }

    fn tun(&mut self, header: &Header, packet: &[u8]) -> Verdict {
        self.outbound.handle_tun(self.now, header, packet, &mut self.world)
    }

    fn plain(&mut self, packet: &[u8]) {
        assert_eq!(self.tun(&Header::default(), packet), Verdict::Done);
        self.outbound.flush(&mut self.world);
    }

    /// Datagrams as GRO would bundle them: equal sizes in a row.
    fn receive(&mut self, datagrams: &[(Vec<u8>, UdpPath, u8)]) {
        let mut buffer = Vec::new();
        let mut received: Vec<Received> = Vec::new();
        for (datagram, _, tos) in datagrams {
            match received.last_mut() {
                Some(last)
                    if last.tos == *tos
                        && last.len.is_multiple_of(last.segment)
                        && datagram.len() <= last.segment =>
                {
                    last.len += datagram.len();
                }
                _ => received.push(Received {
                    start: buffer.len(),
                    len: datagram.len(),
                    segment: datagram.len().max(1),
                    source: address(!self.left),
                    local: *address(self.left).ip(),
                    tos: *tos,
                }),
            }
            buffer.extend_from_slice(datagram);
        }
        self.inbound.handle_udp(self.now, &mut buffer, &received, &mut self.world);
    }

    fn datagrams(&mut self, datagrams: &[&[u8]]) {
        let path = UdpPath { local: Ipv4Addr::UNSPECIFIED, remote: address(self.left) };
        let datagrams: Vec<_> = datagrams.iter().map(|datagram| (datagram.to_vec(), path, 0)).collect();
        self.receive(&datagrams);
    }

    /// The packets that came out of the tunnel, super-packets split again.
    fn delivered(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for (header, packet) in self.world.tun.drain(..) {
            let segments = crate::gso::Segments::new(&header, &packet).unwrap();
            for index in 0..segments.count() {
                let mut out = vec![0; segments.max_len()];
                let len = segments.write(index, &mut out);
                out.truncate(len);
                packets.push(out);
            }
        }
        packets
    }
}

fn pair(options: &Options) -> (End, End) {
    let (mut left, mut right) = (End::new(true), End::new(false));
    for end in [&mut left, &mut right] {
        end.policy(options);
        end.install_inbound(options, 1);
        end.install_outbound(options, 1, true);
        assert!(matches!(end.world.reports[..], [Report::OutboundInUse { reqid: 1, .. }]));
        end.world.reports.clear();
    }
    (left, right)
}

fn carry(from: &mut End, to: &mut End) -> Vec<Vec<u8>> {
    from.outbound.flush(&mut from.world);
    let wire = std::mem::take(&mut from.world.wire);
    to.receive(&wire);
    to.delivered()
}

/// A TCP super-packet as the kernel gives it.
fn super_packet(sequence: u32, payload: &[u8], mss: u16) -> (Header, Vec<u8>) {
    let mut packet = tcp(CLIENT, HOST, 5000, 80, sequence, 0x10, payload);
    let sum = crate::checksum::Sum::ZERO.add_pseudo_header(&packet[8..40], packet.len() - 40, 6).partial();
    packet[56..58].copy_from_slice(&sum);
    let header = Header {
        needs_csum: true,
        data_valid: false,
        gso: Gso::Tcp6,
        gso_size: mss,
        hdr_len: 72,
        csum_start: 40,
        csum_offset: 16,
    };
    (header, packet)
}

#[test]
fn a_super_packet_crosses_in_every_suite() {
    for suite in CipherSuite::all() {
        let (mut left, mut right) = pair(&Options { suite, ..Options::default() });
        let payload: Vec<u8> = (0..50_000_u32).map(|i| (i / 7) as u8).collect();
        let (header, packet) = super_packet(1, &payload, 1300);
        assert_eq!(left.tun(&header, &packet), Verdict::Done);
        left.outbound.flush(&mut left.world);
        let wire = std::mem::take(&mut left.world.wire);
        assert_eq!(wire.len(), 39);
        assert!(wire.iter().all(|(_, path, _)| path.remote == address(false)));
        right.receive(&wire);
        // One write for all.
        assert_eq!(right.world.tun.len(), 1);
        assert_eq!(right.world.tun[0].1[72..], payload);
        let delivered = right.delivered();
        assert_eq!(delivered.len(), 39);
        assert_eq!(left.counters_out.get(), right.counters_in.get());
        assert_eq!(right.counters_in.get().0, 39);
        assert_eq!(right.world.reports, [Report::FirstUse(spi(1003))]);
        // And an answer.
        right.plain(&icmpv6(HOST, CLIENT, 129, 0, b"12345678"));
        assert_eq!(carry(&mut right, &mut left), [icmpv6(HOST, CLIENT, 129, 0, b"12345678")]);
    }
}

#[test]
fn ipcomp_in_both_forms() {
    let (mut left, mut right) = pair(&Options { ipcomp: true, ..Options::default() });
    let text = b"the quick brown fox jumps over the lazy dog. ".repeat(20);
    // Not compressible: a multiplicative generator.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(900)
    .collect();
    let packets =
        [udp(CLIENT, HOST, 1, 2, &text), udp(CLIENT, HOST, 1, 2, &noise), udp(CLIENT, HOST, 1, 2, &text)];
    for packet in &packets {
        left.plain(packet);
    }
    let sizes: Vec<_> = left.world.wire.iter().map(|(datagram, _, _)| datagram.len()).collect();
    assert!(sizes[0] < packets[0].len() / 2 && sizes[1] > packets[1].len(), "{sizes:?}");
    assert_eq!(carry(&mut left, &mut right), packets);
    // Two of the three were worth it.
    let compressed = |counters: &SaCounters| counters.compressed.load(Relaxed);
    assert_eq!([&left.counters_out, &right.counters_in].map(|c| compressed(c)), [2, 2]);
    assert_eq!([&left.counters_in, &right.counters_out].map(|c| compressed(c)), [0, 0]);
    // A whole super-packet of them comes out as one again.
    let (header, packet) = super_packet(1, &text.repeat(50), 1300);
    left.tun(&header, &packet);
    left.outbound.flush(&mut left.world);
    let wire = std::mem::take(&mut left.world.wire);
    right.receive(&wire);
    assert_eq!(right.world.tun.len(), 1);
    assert_eq!(right.world.tun[0].1[72..], packet[72..]);
}

#[test]
fn ipcomp_that_was_not_negotiated_is_dropped() {
    let (mut left, _) = pair(&Options { ipcomp: true, ..Options::default() });
    let (_, mut right) = pair(&Options::default());
    left.plain(&udp(CLIENT, HOST, 1, 2, &[7; 1000]));
    assert!(carry(&mut left, &mut right).is_empty());
    assert_eq!(right.counters_in.drops.get(DropReason::InIpcompCpi), 1);
}

/// A packet of the peer's making: any payload and next header, sealed with the right keys.
fn sealed(next: u8, payload: &[u8], sequence: u64) -> Vec<u8> {
    let mut sa = OutboundSa::new(&ferry6_crypto::aws_lc::PROVIDER, spi(1003), &keys(GCM, 3), false).unwrap();
    for _ in 1..sequence {
        let mut skipped = [0; 100];
        sa.seal(&mut skipped, 0, next_header::DUMMY).unwrap();
    }
    let mut buffer = vec![0; payload.len() + 100];
    buffer[sa.overhead().front..][..payload.len()].copy_from_slice(payload);
    let len = sa.seal(&mut buffer, payload.len(), next).unwrap();
    buffer.truncate(len);
    buffer
}

#[test]
fn replays_forgeries_and_strange_contents_are_dropped_and_counted() {
    let (mut left, mut right) = pair(&Options::default());
    left.plain(&udp(CLIENT, HOST, 1, 2, b"once"));
    let wire = std::mem::take(&mut left.world.wire);
    right.receive(&wire);
    right.receive(&wire);
    assert_eq!(right.delivered().len(), 1);
    let count = |end: &End, reason| end.counters_in.drops.get(reason);
    assert_eq!(count(&right, DropReason::InReplayDuplicate), 1);
    let mut forged = sealed(41, &udp(CLIENT, HOST, 1, 2, b"twice"), 2);
    *forged.last_mut().unwrap() ^= 1;
    right.datagrams(&[&forged]);
    assert_eq!(count(&right, DropReason::InIntegrity), 1);
    // The forgery has not moved the window.
    right.datagrams(&[&sealed(41, &udp(CLIENT, HOST, 1, 2, b"twice"), 2)]);
    assert_eq!(right.delivered().len(), 1);
    for (next, payload, reason) in [
        (next_header::IPV4, vec![0x45; 60], DropReason::InNotIpv6),
        (next_header::IPV6, vec![0x45; 60], DropReason::InNotIpv6),
        (next_header::IPV6, vec![0x60; 60], DropReason::InMalformedInner),
        (next_header::IPV6, udp(HOST, HOST, 1, 2, b""), DropReason::InSelectorMismatch),
        (next_header::IPCOMP, vec![0; 60], DropReason::InIpcompCpi),
    ] {
        let (mut fresh_left, mut fresh) = pair(&Options::default());
        fresh.datagrams(&[&sealed(next, &payload, 1)]);
        assert_eq!(count(&fresh, reason), 1, "{reason:?}");
        assert!(fresh.delivered().is_empty());
        fresh_left.plain(&udp(CLIENT, HOST, 1, 2, b"")); // the other end is not disturbed
    }
    // A dummy packet counts as received and goes nowhere (RFC 4303 section 2.6).
    right.datagrams(&[&sealed(next_header::DUMMY, &[1; 30], 3)]);
    assert!(right.delivered().is_empty());
    assert_eq!(right.counters_in.get().0, 3);
    // Padding for traffic flow confidentiality is taken off (RFC 4303 section 2.7).
    let packet = udp(CLIENT, HOST, 1, 2, b"padded");
    right.datagrams(&[&sealed(next_header::IPV6, &[&packet[..], &[0; 200]].concat(), 4)]);
    assert_eq!(right.delivered(), [packet]);
}

#[test]
fn an_ipcomp_bomb_and_damage_are_dropped() {
    let options = Options { ipcomp: true, ..Options::default() };
    let deflated = |len: usize| {
        let mut state = flate2::Compress::new(flate2::Compression::best(), false);
        let mut out = vec![0; 10_000];
        out[..4].copy_from_slice(&[next_header::IPV6, 0, 1, 44]);
        state.compress(&vec![0x60; len], &mut out[4..], flate2::FlushCompress::Finish).unwrap();
        out.truncate(4 + state.total_out() as usize);
        out
    };
    for (payload, reason) in [
        (vec![41, 0, 1], DropReason::InIpcompDamaged),
        (vec![41, 0, 1, 44, 0xff, 0xff, 0xff], DropReason::InIpcompDamaged),
        (vec![41, 0, 9, 9, 3, 0], DropReason::InIpcompCpi),
        // Just an IPv6 header and 24,672 octets by its own word, but not from an address of the peer's.
        (deflated(65_575), DropReason::InSelectorMismatch),
        (deflated(1000), DropReason::InMalformedInner),
        (deflated(65_576), DropReason::InIpcompTooLarge),
        (deflated(1_000_000), DropReason::InIpcompTooLarge),
    ] {
        let (_, mut right) = pair(&options);
        right.datagrams(&[&sealed(next_header::IPCOMP, &payload, 1)]);
        assert_eq!(right.counters_in.drops.get(reason), 1, "{reason:?}");
        assert!(right.delivered().is_empty());
    }
}

#[test]
fn what_is_not_esp() {
    let (_, mut right) = pair(&Options::default());
    right.datagrams(&[
        &[0, 0, 0, 0, 1, 2, 3],
        &[0xff],
        &[0, 0, 0, 200, 1, 2, 3, 4, 5],
        &[9, 9, 9, 9, 0, 0, 0, 1],
        &[],
    ]);
    assert_eq!(right.world.ike, [vec![1, 2, 3]]);
    assert_eq!(right.drops.get(DropReason::InMalformedDatagram), 2);
    assert_eq!(right.drops.get(DropReason::InUnknownSpi), 1);
    // With two workers the unknown SPI may be the other one's.
    right.inbound = Inbound::new(0, 2, true, true, Arc::clone(&right.drops));
    right.datagrams(&[&[9, 9, 9, 9, 0, 0, 0, 1], &[9, 9, 9, 8, 0, 0, 0, 1]]);
    assert_eq!(right.world.handed_on, [(1, vec![9, 9, 9, 9, 0, 0, 0, 1])]);
    assert_eq!(right.drops.get(DropReason::InUnknownSpi), 2);
}

#[test]
fn nothing_leaves_without_a_policy_and_the_sender_is_told() {
    let (mut left, _) = pair(&Options::default());
    let other = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x999);
    left.plain(&udp(other, HOST, 1, 2, b"not ours"));
    assert!(left.world.wire.is_empty());
    assert_eq!(left.drops.get(DropReason::OutNoPolicy), 1);
    let (_, answer) = left.world.tun.pop().unwrap();
    assert_eq!((answer[40], answer[41]), (1, 1));
    // Link-scope noise is counted apart and not answered.
    let router = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    left.plain(&icmpv6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), router, 133, 0, &[0; 4]));
    assert_eq!(left.drops.get(DropReason::OutLinkScope), 1);
    left.plain(&[0x45; 40]);
    assert_eq!(left.drops.get(DropReason::OutNotIpv6), 1);
    assert!(left.world.tun.is_empty() && left.world.wire.is_empty());
    // The tunnel goes down: the policy without an SA, then none at all; never in clear.
    left.command(OutboundCommand::Remove(1, spi(1003)));
    left.plain(&udp(CLIENT, HOST, 1, 2, b"secret"));
    assert_eq!(left.drops.get(DropReason::OutNoSa), 1);
    left.command(OutboundCommand::RemovePolicy(1));
    left.plain(&udp(CLIENT, HOST, 1, 2, b"secret"));
    assert_eq!(left.drops.get(DropReason::OutNoPolicy), 2);
    assert!(left.world.wire.is_empty());
    assert_eq!(left.world.tun.iter().map(|(_, p)| (p[40], p[41])).collect::<Vec<_>>(), [(1, 0), (1, 0)]);
    // The answers are limited in rate.
    left.world.tun.clear();
    for _ in 0..1000 {
        left.plain(&udp(CLIENT, HOST, 1, 2, b"secret"));
    }
    assert!(left.world.tun.len() <= 50);
    assert_eq!(left.drops.get(DropReason::OutNoPolicy), 1002);
}

#[test]
fn selectors_with_protocol_and_ports_hold_in_both_directions() {
    let web = |mut selector: TrafficSelector| {
        (selector.protocol, selector.start_port, selector.end_port) = (6, 80, 80);
        selector
    };
    let tcp_any = |mut selector: TrafficSelector| {
        selector.protocol = 6;
        selector
    };
    let options = Options {
        client_ts: vec![tcp_any(TrafficSelector::prefix(IpAddr::V6(CLIENT), 128).unwrap())],
        host_ts: vec![web(TrafficSelector::ANY_V6)],
        ..Options::default()
    };
    let (mut left, mut right) = pair(&options);
    let good = tcp(CLIENT, HOST, 5000, 80, 1, 0x10, b"x");
    left.plain(&good);
    left.plain(&tcp(CLIENT, HOST, 5000, 81, 1, 0x10, b"x"));
    left.plain(&udp(CLIENT, HOST, 5000, 80, b"x"));
    assert_eq!(left.drops.get(DropReason::OutNoPolicy), 2);
    assert_eq!(carry(&mut left, &mut right), [good]);
    right.datagrams(&[&sealed(41, &tcp(CLIENT, HOST, 5000, 81, 1, 0x10, b"x"), 2)]);
    assert_eq!(right.counters_in.drops.get(DropReason::InSelectorMismatch), 1);
    // A later fragment has no ports, so it is not within a selector with ports.
    let fragment = Ipv6Packet { source: CLIENT, destination: HOST, next_header: 44 };
    right.datagrams(&[&sealed(41, &fragment.build(&[6, 0, 0, 8, 0, 0, 0, 1, 0x13, 0x88, 0, 80]), 3)]);
    assert_eq!(right.counters_in.drops.get(DropReason::InSelectorMismatch), 2);
}

#[test]
fn too_big_is_told_with_the_number() {
    let (mut left, _) = pair(&Options::default());
    left.plain(&udp(CLIENT, HOST, 1, 2, &[1; 1400]));
    assert!(left.world.wire.is_empty());
    assert_eq!(left.counters_out.drops.get(DropReason::OutTooBig), 1);
    let (_, answer) = left.world.tun.pop().unwrap();
    assert_eq!((answer[40], &answer[44..48]), (2, &1400_u32.to_be_bytes()[..]));
    // At 1280 and below the outer packet is fragmented instead.
    let (mut left, mut right) = pair(&Options { mtu: 1000, ..Options::default() });
    let small = udp(CLIENT, HOST, 1, 2, &[1; 1232]);
    assert_eq!(small.len(), 1280);
    left.plain(&small);
    assert_eq!(carry(&mut left, &mut right), [small]);
    left.plain(&udp(CLIENT, HOST, 1, 2, &[1; 1233]));
    let (_, answer) = left.world.tun.pop().unwrap();
    assert_eq!(answer[44..48], 1280_u32.to_be_bytes());
}

/// RFC 8200 section 5 and RFC 4213 section 3.2: what IPv6 guarantees goes, in fragments, and without DF.
#[test]
fn only_what_may_be_told_off_has_df() {
    let (mut left, _) = pair(&Options::default());
    let outer = Outer { df: true, path_mtu: 1300, ..Outer::plain(1400) };
    left.command(OutboundCommand::SetOuter(1, spi(1000 + 3), outer));
    let mut fits = |len: usize| {
        left.plain(&udp(CLIENT, HOST, 1, 2, &vec![1; len - 48]));
        left.world.fits.pop().unwrap()
    };
    assert_eq!([1280, 1281].map(&mut fits), [Fit::Fragments, Fit::Never]);
    // 28 outside, 16 in front, 16 and the trailer behind.
    assert_eq!([1300 - 62, 1300 - 61].map(&mut fits), [Fit::Whole, Fit::Fragments]);
}

/// Both ways, and the checksum of each is right at the other end, with IPComp as well.
#[test]
fn syns_are_clamped_both_ways() {
    for ipcomp in [false, true] {
        let clamping = Options { mss: 1200, ipcomp, ..Options::default() };
        let plain = Options { ipcomp, ..Options::default() };
        let mss_of = |packet: &[u8]| {
            let parsed = crate::classify::parse(packet).unwrap();
            let sum = crate::checksum::Sum::ZERO.add_pseudo_header(&packet[8..40], packet.len() - 40, 6);
            assert!(sum.octets(&packet[40..]).is_valid(), "{parsed:?}");
            u16::from_be_bytes([packet[62], packet[63]])
        };
        let syn = |from, to, mss: u16| {
            // In place of the timestamp: MSS, then no-operations.
            let mut packet = tcp(from, to, 1, 2, 3, 0x02, b"");
            packet[60..72].fill(1);
            packet[60..62].copy_from_slice(&[2, 4]);
            packet[62..64].copy_from_slice(&mss.to_be_bytes());
            packet[56..58].fill(0);
            let sum = crate::checksum::Sum::ZERO.add_pseudo_header(&packet[8..40], packet.len() - 40, 6);
            let sum = sum.octets(&packet[40..]).checksum();
            packet[56..58].copy_from_slice(&sum);
            packet
        };
        for (left, right) in [(&clamping, &plain), (&plain, &clamping)] {
            let (mut left, _) = pair(left);
            let (_, mut right) = pair(right);
            for (mss, expected) in [(1440, 1200), (1200, 1200), (1000, 1000)] {
                left.plain(&syn(CLIENT, HOST, mss));
                let got = carry(&mut left, &mut right);
                assert_eq!(got.iter().map(|p| mss_of(p)).collect::<Vec<_>>(), [expected]);
                right.plain(&syn(HOST, CLIENT, mss));
                let got = carry(&mut right, &mut left);
                assert_eq!(got.iter().map(|p| mss_of(p)).collect::<Vec<_>>(), [expected]);
            }
        }
    }
}

#[test]
fn outer_fields_as_configured() {
    let (mut left, _) = pair(&Options::default());
    let fields = OuterFields { dscp: Some(46), ecn: false };
    left.command(OutboundCommand::SetOuter(1, spi(1000 + 3), Outer { fields, ..Outer::plain(1400) }));
    let mut packet = udp(CLIENT, HOST, 1, 2, b"x");
    (packet[0], packet[1]) = (0x60 | 0x2, 0xa0);
    left.plain(&packet);
    assert_eq!(left.world.wire[0].2, 46 << 2);
}

#[test]
fn ecn_and_traffic_class() {
    let (mut left, mut right) = pair(&Options::default());
    let mut packet = udp(CLIENT, HOST, 1, 2, b"x");
    // DSCP 10, ECT(0)
    (packet[0], packet[1]) = (0x60 | 0x2, 0xa0);
    left.plain(&packet);
    assert_eq!(left.world.wire[0].2, 0x2a);
    // A router on the way marks it.
    left.world.wire[0].2 = 0x2b;
    let delivered = carry(&mut left, &mut right);
    assert_eq!(delivered[0][1], 0xb0);
    // RFC 6040 figure 4, drop.
    left.plain(&udp(CLIENT, HOST, 1, 2, b"x"));
    left.world.wire[0].2 = 0b11;
    assert!(carry(&mut left, &mut right).is_empty());
    assert_eq!(right.counters_in.drops.get(DropReason::InEcn), 1);
}

#[test]
fn a_rekey_under_traffic_loses_nothing() {
    // The responder installs `Later`, the initiator `Now`; packets are on the wire all the time.
    let options = Options::default();
    let (mut left, mut right) = pair(&options);
    let mut sent = Vec::new();
    let mut got = Vec::new();
    let mut in_flight: Vec<Vec<(Vec<u8>, UdpPath, u8)>> = Vec::new();
    let mut number = 0_u32;
    for round in 0_u8..100 {
        let generation = round + 2;
        for step in 0..6 {
            match step {
                // The responder has both halves before its response leaves, outbound asleep.
                1 => {
                    right.install_inbound(&options, generation);
                    right.install_outbound(&options, generation, false);
                }
                // The initiator installs both and switches.
                2 => {
                    left.install_inbound(&options, generation);
                    left.install_outbound(&options, generation, true);
                }
                // The responder switches when the first packet came on the new pair.
                4 => {
                    let number = u32::from(generation) * 2;
                    assert!(right.world.reports.contains(&Report::FirstUse(spi(1001 + number))));
                    right.command(OutboundCommand::Use(1, spi(1000 + number)));
                    right.world.reports.clear();
                }
                // The old pair goes away; its inbound half lingers until nothing of it is on the wire.
                5 => {
                    let old = u32::from(generation - 1) * 2;
                    left.command(OutboundCommand::Remove(1, spi(1001 + old)));
                    right.command(OutboundCommand::Remove(1, spi(1000 + old)));
                }
                _ => {}
            }
            for _ in 0..20 {
                number += 1;
                let packet = udp(CLIENT, HOST, 1, 2, &number.to_be_bytes());
                assert_eq!(left.tun(&Header::default(), &packet), Verdict::Done);
                sent.push(packet);
            }
            left.outbound.flush(&mut left.world);
            in_flight.push(std::mem::take(&mut left.world.wire));
            // One flight is always on its way.
            if in_flight.len() > 1 {
                let wire = in_flight.remove(0);
                right.receive(&wire);
                got.extend(right.delivered());
            }
            right.plain(&udp(HOST, CLIENT, 2, 1, b"back"));
            assert_eq!(carry(&mut right, &mut left).len(), 1);
        }
        if generation > 3 {
            let old = u32::from(generation - 2) * 2;
            right.inbound.handle_command(InboundCommand::Remove(spi(1001 + old)));
            left.inbound.handle_command(InboundCommand::Remove(spi(1000 + old)));
        }
    }
    for wire in in_flight {
        right.receive(&wire);
        got.extend(right.delivered());
    }
    assert_eq!(got, sent);
    let drops: u64 = DropReason::ALL
        .iter()
        .map(|reason| {
            [&left.drops, &right.drops].map(|drops| drops.get(*reason)).iter().sum::<u64>()
                + [&left.counters_in, &left.counters_out, &right.counters_in, &right.counters_out]
                    .map(|counters| counters.drops.get(*reason))
                    .iter()
                    .sum::<u64>()
        })
        .sum();
    assert_eq!(drops, 0);
}

#[test]
fn another_workers_packet_is_handed_on() {
    let (mut left, _) = pair(&Options::default());
    let any = [TrafficSelector::ANY_V6];
    left.command(OutboundCommand::SetPolicy(
        Policy { reqid: 9, owner: 3 },
        Arc::new(SelectorPair::new(&any, &[TrafficSelector::prefix(IpAddr::V6(HOST), 128).unwrap()])),
    ));
    assert_eq!(left.tun(&Header::default(), &udp(CLIENT, HOST, 1, 2, b"x")), Verdict::HandOff(3));
}

#[test]
fn soft_limits_are_told_once() {
    let (mut left, mut right) = pair(&Options { soft_packets: 5, ..Options::default() });
    for _ in 0..20 {
        left.plain(&udp(CLIENT, HOST, 1, 2, b"x"));
    }
    assert_eq!(carry(&mut left, &mut right).len(), 20);
    assert_eq!(left.world.reports, [Report::OutboundSoftLimit { reqid: 1, spi: spi(1003) }]);
    assert_eq!(right.world.reports, [Report::FirstUse(spi(1003)), Report::InboundSoftLimit(spi(1003))]);
}

#[test]
fn a_moved_peer_is_told_when_authentic_and_followed_on_command() {
    let (mut left, mut right) = pair(&Options::default());
    let elsewhere = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 40_000);
    let from_elsewhere = |right: &mut End, datagram: &[u8]| {
        let mut buffer = datagram.to_vec();
        let meta = Received {
            start: 0,
            len: buffer.len(),
            segment: buffer.len(),
            source: elsewhere,
            local: *address(false).ip(),
            tos: 0,
        };
        right.inbound.handle_udp(right.now, &mut buffer, &[meta], &mut right.world);
    };
    for _ in 0..5 {
        left.plain(&udp(CLIENT, HOST, 1, 2, b"x"));
    }
    let wire = std::mem::take(&mut left.world.wire);
    let mut forged = wire[0].0.clone();
    forged[20] ^= 1;
    from_elsewhere(&mut right, &forged);
    assert!(right.world.reports.is_empty());
    let path = UdpPath { local: *address(false).ip(), remote: elsewhere };
    from_elsewhere(&mut right, &wire[0].0);
    from_elsewhere(&mut right, &wire[1].0);
    // Once a second at most.
    assert_eq!(right.world.reports, [Report::FirstUse(spi(1003)), Report::PathChanged(spi(1003), path)]);
    right.now += Duration::from_secs(2);
    from_elsewhere(&mut right, &wire[3].0);
    assert_eq!(right.world.reports.len(), 3);
    // What is late, or a replay, is no sign of a move.
    right.now += Duration::from_secs(2);
    from_elsewhere(&mut right, &wire[2].0);
    from_elsewhere(&mut right, &wire[3].0);
    assert_eq!(right.world.reports.len(), 3);
    from_elsewhere(&mut right, &wire[4].0);
    assert_eq!(right.world.reports.len(), 4);
    right.command(OutboundCommand::SetPath(1, path));
    right.plain(&udp(HOST, CLIENT, 1, 2, b"x"));
    assert_eq!(right.world.wire[0].1, path);
}

#[test]
fn a_super_packet_of_tiny_segments_does_not_overrun_the_batch() {
    let (mut left, mut right) = pair(&Options::default());
    let (header, packet) = super_packet(1, &[5; 60_000], 10);
    left.tun(&header, &packet);
    left.outbound.flush(&mut left.world);
    assert_eq!(left.world.wire.len(), 6000);
    // More than the replay window at once, in order: all are new.
    let wire = std::mem::take(&mut left.world.wire);
    right.receive(&wire);
    let payload: Vec<u8> = right.delivered().iter().flat_map(|packet| packet[72..].to_vec()).collect();
    assert_eq!(payload, [5; 60_000]);
}

/// Several SAs for one reqid (RFC 9611): each worker seals what comes to it on its own, and hands on what it has none for.
#[test]
fn a_worker_with_an_sa_of_its_own_keeps_its_packets() {
    let options = Options::default();
    // The left end twice: worker 0, and worker 1 with another SA of the same reqid.
    let (mut first, mut second) = (End::new(true), End::new(true));
    second.outbound = Outbound::new(1, Arc::clone(&second.drops));
    first.policy(&options);
    second.policy(&options);
    first.install_outbound(&options, 1, true);
    let packet = udp(CLIENT, HOST, 1, 2, b"x");
    assert_eq!(second.tun(&Header::default(), &packet), Verdict::HandOff(0), "none of its own yet");
    second.install_outbound(&options, 2, false);
    assert_eq!(second.tun(&Header::default(), &packet), Verdict::HandOff(0), "it waits for the peer");
    second.command(OutboundCommand::Use(1, spi(1005)));
    second.plain(&packet);
    first.plain(&packet);
    let sent = |end: &mut End| {
        let wire = std::mem::take(&mut end.world.wire);
        wire.iter()
            .map(|(datagram, ..)| u32::from_be_bytes(*datagram.first_chunk().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!((sent(&mut first), sent(&mut second)), (vec![1003], vec![1005]));

    // The first one goes: from then on the other worker is the fallback.
    for end in [&mut first, &mut second] {
        end.command(OutboundCommand::SetOwner(1, 1));
    }
    first.command(OutboundCommand::Remove(1, spi(1003)));
    assert_eq!(first.tun(&Header::default(), &packet), Verdict::HandOff(1));
    second.plain(&packet);
    assert_eq!(sent(&mut second), [1005]);

    // More SAs than workers: the latest is used, and the one before it when that is gone.
    second.install_outbound(&options, 3, true);
    second.plain(&packet);
    second.command(OutboundCommand::Remove(1, spi(1007)));
    second.plain(&packet);
    assert_eq!(sent(&mut second), [1007, 1005]);
    second.command(OutboundCommand::Remove(1, spi(1005)));
    assert_eq!(second.tun(&Header::default(), &packet), Verdict::Done);
    assert_eq!(second.drops.get(DropReason::OutNoSa), 1);
}
