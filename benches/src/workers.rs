//! Workers in memory: from the TUN device to the wire and back, with policy check, segmentation, replay window, counters
//! and coalescing, and with no system call.

use crate::SPI;
use ferry6_crypto::{OpeningKey, SealingKey};
use ferry6_esp::{InboundSa, OutboundSa};
use ferry6_ike::TrafficSelector;
use ferry6_tun_router::batch::{Received, SendBatch, UdpPath};
use ferry6_tun_router::classify::SelectorPair;
use ferry6_tun_router::gro::TunSink;
use ferry6_tun_router::size::{NO_CLAMP, Outer};
use ferry6_tun_router::spd::Policy;
use ferry6_tun_router::testing;
use ferry6_tun_router::virtio::{Gso, Header};
use ferry6_tun_router::worker::{
    Inbound, InboundCommand, InboundIo, NewInbound, NewOutbound, Outbound, OutboundCommand, OutboundIo,
    Report, Verdict,
};
use std::fmt;
use std::hint::black_box;
use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

const PATH: UdpPath =
    UdpPath { local: Ipv4Addr::LOCALHOST, remote: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4500) };
/// IPv6 and TCP header with a timestamp, as `testing::tcp` makes them.
pub const HEADERS: usize = 40 + 32;

/// What comes from the TUN device in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// One TCP super-packet of 46 segments of 1400 octets.
    Super,
    /// 46 packets of 1400 octets, each read by itself.
    Packets,
    /// 64 packets of 100 octets, each read by itself.
    Small,
    /// One packet of 100 octets.
    Lone,
}

impl Traffic {
    /// All.
    pub const ALL: [Self; 4] = [Self::Super, Self::Packets, Self::Small, Self::Lone];

    /// Octets of each packet on the inside.
    pub fn packet_len(self) -> usize {
        if matches!(self, Self::Super | Self::Packets) { 1400 } else { 100 }
    }

    /// Packets.
    pub fn packets(self) -> usize {
        match self {
            Self::Super | Self::Packets => 46,
            Self::Small => 64,
            Self::Lone => 1,
        }
    }

    /// What the TUN device gives, read by read.
    pub fn reads(self) -> Vec<(Header, Vec<u8>)> {
        let segment = self.packet_len() - HEADERS;
        let [source, destination] =
            ["2a00::101", "2a00::2"].map(|a| a.parse::<Ipv6Addr>().expect("an address"));
        let packet = |index: usize, count: usize| {
            let payload = vec![0x55; segment * count];
            let sequence = (index * segment) as u32;
            let packet = testing::tcp(source, destination, 40_000, 80, sequence, 0x10, &payload);
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
        };
        match self {
            Self::Super => vec![packet(0, self.packets())],
            _ => (0..self.packets()).map(|index| packet(index, 1)).collect(),
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Super => "super",
            Self::Packets => "packets",
            Self::Small => "small",
            Self::Lone => "lone",
        })
    }
}

/// Datagrams as they come from the socket.
pub type Datagrams = (Vec<u8>, Vec<Received>);

/// Takes what comes out. What was sent is kept where that is wanted.
#[derive(Default)]
pub struct Sink {
    /// Keep it.
    pub keep: bool,
    /// What was kept.
    pub sent: Datagrams,
    /// Octets that were written to the TUN device.
    pub written: usize,
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
            let (buffer, received) = &mut self.sent;
            let base = buffer.len();
            buffer.extend_from_slice(octets);
            received.extend(runs.iter().map(|run| Received {
                start: base + run.start,
                len: run.len,
                segment: run.segment,
                source: PATH.remote,
                local: PATH.local,
                tos: run.tos,
            }));
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

/// An SA of a reqid, to a path that is nowhere.
pub fn new_outbound(reqid: u32, sa: OutboundSa) -> NewOutbound {
    NewOutbound {
        reqid,
        sa,
        compressor: None,
        path: PATH,
        counters: Arc::default(),
        soft_packets: u64::MAX,
        soft_bytes: u64::MAX,
        outer: Outer::plain(1400),
    }
}

/// A tunnel's two halves, one at each end, and the traffic that goes through.
pub struct Rig {
    /// From the TUN device.
    pub outbound: Outbound,
    /// To it.
    pub inbound: Inbound,
    reads: Vec<(Header, Vec<u8>)>,
    now: Instant,
    io: Sink,
}

impl Rig {
    /// One SA and one policy for everything, of IPv6.
    pub fn new(sealing: Box<dyn SealingKey>, opening: Box<dyn OpeningKey>, traffic: Traffic) -> Self {
        let mut io = Sink::default();
        let everything = Arc::new(SelectorPair::new(&[TrafficSelector::ANY_V6], &[TrafficSelector::ANY_V6]));
        let mut outbound = Outbound::new(0, Arc::default());
        let policy = Policy { reqid: 1, owner: 0 };
        outbound.handle_command(OutboundCommand::SetPolicy(policy, Arc::clone(&everything)), &mut io);
        let new = new_outbound(1, OutboundSa::with_key(sealing, SPI, true));
        outbound.handle_command(OutboundCommand::Install(Box::new(new), true), &mut io);
        let mut inbound = Inbound::new(0, 1, true, true, Arc::default());
        let new = NewInbound {
            sa: InboundSa::with_key(opening, SPI, true, 1024),
            decompressor: None,
            selectors: everything,
            path: PATH,
            queue: 0,
            counters: Arc::default(),
            soft_packets: u64::MAX,
            soft_bytes: u64::MAX,
            mss: NO_CLAMP,
        };
        inbound.handle_command(InboundCommand::Install(Box::new(new)));
        Self { outbound, inbound, reads: traffic.reads(), now: Instant::now(), io }
    }

    /// All the reads through the outbound half, and out.
    ///
    /// # Panics
    /// When a packet is not this worker's.
    #[inline]
    pub fn tun_to_udp(&mut self) {
        for (header, packet) in &self.reads {
            let verdict = self.outbound.handle_tun(self.now, header, black_box(packet), &mut self.io);
            assert_eq!(verdict, Verdict::Done);
        }
        self.outbound.flush(&mut self.io);
    }

    /// The same, and what was sent, for [`Self::udp_to_tun`]. Each can come in once.
    pub fn sealed(&mut self) -> Datagrams {
        self.io.keep = true;
        self.tun_to_udp();
        self.io.keep = false;
        let (buffer, received) = std::mem::take(&mut self.io.sent);
        (buffer, bundled(received))
    }

    /// Datagrams through the inbound half, and out.
    #[inline]
    pub fn udp_to_tun(&mut self, (buffer, received): &mut Datagrams) {
        self.inbound.handle_udp(self.now, buffer, received, &mut self.io);
    }

    /// Octets that came out of the inbound half so far.
    pub fn written(&self) -> usize {
        self.io.written
    }
}

/// As GRO bundles them: what follows each other in equal size is one message.
fn bundled(received: Vec<Received>) -> Vec<Received> {
    let mut all: Vec<Received> = Vec::new();
    for next in received {
        match all.last_mut() {
            Some(last) if last.segment == next.segment && last.len + next.len <= 65_507 => {
                last.len += next.len;
            }
            _ => all.push(next),
        }
    }
    all
}
