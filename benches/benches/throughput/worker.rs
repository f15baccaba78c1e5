//! A worker in memory: from the TUN device to the wire and back, with policy check, segmentation, replay window,
//! counters and coalescing, and with no system call.
//!
//! `super` is a TCP super-packet of 45 segments of 1400 B packets; `packet` one packet of 1400 B; `small` one of 100 B.

use divan::{Bencher, black_box, counter::BytesCount};
use ferry6_benches::{SPI, keys};
use ferry6_crypto::{Cipher, CipherSuite, Integ, aws_lc};
use ferry6_esp::{InboundSa, OutboundSa};
use ferry6_ike::TrafficSelector;
use ferry6_tun_router::batch::{Received, SendBatch, UdpPath};
use ferry6_tun_router::classify::SelectorPair;
use ferry6_tun_router::gro::TunSink;
use ferry6_tun_router::spd::Policy;
use ferry6_tun_router::testing;
use ferry6_tun_router::virtio::{Gso, Header};
use ferry6_tun_router::worker::{
    Inbound, InboundCommand, InboundIo, NewInbound, NewOutbound, Outbound, OutboundCommand, OutboundIo,
    Report, Verdict,
};

use std::fmt;
use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

const PATH: UdpPath =
    UdpPath { local: Ipv4Addr::LOCALHOST, remote: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4500) };
/// IPv6 and TCP header with a timestamp, as `testing::tcp` makes them.
const HEADERS: usize = 40 + 32;

#[derive(Clone, Copy)]
enum Traffic {
    Super,
    Packet,
    Small,
}

#[derive(Clone, Copy)]
struct Case {
    suite: CipherSuite,
    traffic: Traffic,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = match self.traffic {
            Traffic::Super => "super",
            Traffic::Packet => "packet",
            Traffic::Small => "small",
        };
        write!(f, "{} {traffic}", self.suite)
    }
}

fn cases() -> Vec<Case> {
    let suites = [
        CipherSuite::new(Cipher::Aes128Gcm16, None),
        CipherSuite::new(Cipher::ChaCha20Poly1305, None),
        CipherSuite::new(Cipher::Aes256Cbc, Some(Integ::HmacSha256_128)),
    ];
    let traffic = [Traffic::Super, Traffic::Packet, Traffic::Small];
    suites.into_iter().flatten().flat_map(|suite| traffic.map(|traffic| Case { suite, traffic })).collect()
}

impl Case {
    /// What the TUN device gives.
    fn read_from_tun(self) -> (Header, Vec<u8>) {
        let (segment, count) = match self.traffic {
            Traffic::Super => (1400 - HEADERS, 45),
            Traffic::Packet => (1400 - HEADERS, 1),
            Traffic::Small => (100 - HEADERS, 1),
        };
        let [source, destination] =
            ["2a00::101", "2a00::2"].map(|a| a.parse::<Ipv6Addr>().expect("an address"));
        let packet = testing::tcp(source, destination, 40_000, 80, 1, 0x10, &vec![0x55; segment * count]);
        let header = Header {
            gso: if count > 1 { Gso::Tcp6 } else { Gso::None },
            gso_size: if count > 1 { segment as u16 } else { 0 },
            hdr_len: HEADERS as u16,
            needs_csum: count > 1,
            csum_start: 40,
            csum_offset: 16,
            ..Header::default()
        };
        (header, packet)
    }
}

/// Takes what comes out. The last batch sent is kept where a bench wants it.
#[derive(Default)]
struct Sink {
    sent: Option<(Vec<u8>, Vec<Received>)>,
    keep: bool,
    written: usize,
}

impl TunSink for Sink {
    fn write(&mut self, _queue: usize, _header: &Header, parts: &[IoSlice<'_>]) {
        self.written += black_box(parts).iter().map(|part| part.len()).sum::<usize>();
    }
}

impl OutboundIo for Sink {
    fn send(&mut self, batch: &mut SendBatch) {
        let (octets, runs) = batch.runs();
        if self.keep {
            let received = runs.iter().map(|run| Received {
                start: run.start,
                len: run.len,
                segment: run.segment,
                source: PATH.remote,
                local: PATH.local,
                tos: run.tos,
            });
            self.sent = Some((octets.to_vec(), received.collect()));
        } else {
            black_box(octets.last());
        }
        batch.clear();
    }
    fn report(&mut self, _report: Report) {}
}

impl InboundIo for Sink {
    fn ike(&mut self, _message: &[u8], _meta: &Received) {}
    fn hand_off(&mut self, _owner: usize, _packet: &[u8], _meta: &Received) {}
    fn report(&mut self, _report: Report) {}
}

fn everything() -> Arc<SelectorPair> {
    Arc::new(SelectorPair::new(&[TrafficSelector::ANY_V6], &[TrafficSelector::ANY_V6]))
}

fn outbound(suite: CipherSuite, io: &mut Sink) -> Outbound {
    let mut worker = Outbound::new(0, Arc::default());
    worker.handle_command(OutboundCommand::SetPolicy(Policy { reqid: 1, owner: 0 }, everything()), io);
    let new = NewOutbound {
        reqid: 1,
        sa: OutboundSa::new(&aws_lc::PROVIDER, SPI, &keys(suite), true).expect("the keys fit"),
        compressor: None,
        path: PATH,
        counters: Arc::default(),
        soft_packets: u64::MAX,
        soft_bytes: u64::MAX,
        mtu: 1400,
    };
    worker.handle_command(OutboundCommand::Install(Box::new(new), true), io);
    worker
}

#[divan::bench(args = cases(), max_time = 0.3)]
fn tun_to_udp(bencher: Bencher<'_, '_>, case: Case) {
    let mut io = Sink::default();
    let mut worker = outbound(case.suite, &mut io);
    let (header, packet) = case.read_from_tun();
    let now = Instant::now();
    bencher.counter(BytesCount::new(packet.len())).bench_local(|| {
        let verdict = worker.handle_tun(now, &header, black_box(&packet), &mut io);
        assert_eq!(verdict, Verdict::Done);
        worker.flush(&mut io);
    });
}

#[divan::bench(args = cases(), max_time = 0.3, sample_size = 8)]
fn udp_to_tun(bencher: Bencher<'_, '_>, case: Case) {
    let mut out_io = Sink { keep: true, ..Sink::default() };
    let mut sender = outbound(case.suite, &mut out_io);
    let (header, packet) = case.read_from_tun();
    let mut io = Sink::default();
    let mut worker = Inbound::new(0, 1, true, true, Arc::default());
    let new = NewInbound {
        sa: InboundSa::new(&aws_lc::PROVIDER, SPI, &keys(case.suite), true, 1024).expect("the keys fit"),
        decompressor: None,
        selectors: everything(),
        path: PATH,
        queue: 0,
        counters: Arc::default(),
        soft_packets: u64::MAX,
        soft_bytes: u64::MAX,
    };
    worker.handle_command(InboundCommand::Install(Box::new(new)));
    let now = Instant::now();
    bencher
        .counter(BytesCount::new(packet.len()))
        .with_inputs(|| {
            sender.handle_tun(now, &header, &packet, &mut out_io);
            sender.flush(&mut out_io);
            out_io.sent.take().expect("it was sealed")
        })
        .bench_local_refs(|(buffer, received)| worker.handle_udp(now, buffer, received, &mut io));
    assert!(io.written > 0, "nothing came out");
}
