//! An IPv6 packet on its way from a client's TUN device to a broker's: two workers with nothing between but memory.

use ferry6_crypto::{Cipher, CipherSuite, PacketKeys, Secret, Spi, aws_lc};
use ferry6_esp::{InboundSa, OutboundSa};
use ferry6_ike::TrafficSelector;
use ferry6_tun_router::batch::{Received, SendBatch, UdpPath};
use ferry6_tun_router::classify::SelectorPair;
use ferry6_tun_router::gro::TunSink;
use ferry6_tun_router::size::{NO_CLAMP, Outer};
use ferry6_tun_router::spd::Policy;
use ferry6_tun_router::testing;
use ferry6_tun_router::virtio::Header;
use ferry6_tun_router::worker::{
    Inbound, InboundCommand, InboundIo, NewInbound, NewOutbound, Outbound, OutboundCommand, OutboundIo,
    Report,
};
use std::error::Error;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

/// A router's surroundings: what it sent to the wire and wrote to the TUN device.
#[derive(Default)]
struct World {
    wire: Vec<Vec<u8>>,
    tun: Vec<Vec<u8>>,
}

impl TunSink for World {
    fn write(&mut self, _queue: usize, _header: &Header, parts: &[IoSlice<'_>]) {
        self.tun.push(parts.iter().flat_map(|part| part.iter().copied()).collect());
    }
}

impl OutboundIo for World {
    fn send(&mut self, batch: &mut SendBatch) {
        let (octets, runs) = batch.runs();
        for run in runs {
            self.wire.extend(octets[run.start..][..run.len].chunks(run.segment).map(<[u8]>::to_vec));
        }
        batch.clear();
    }
    fn report(&mut self, _report: Report) {}
}

impl InboundIo for World {
    fn ike(&mut self, _message: &[u8], _meta: &Received) {}
    fn hand_off(&mut self, _owner: usize, _packet: &[u8], _meta: &Received) {}
    fn report(&mut self, _report: Report) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    // What IKE would have agreed on.
    let spi = Spi::new(0xc0ff_ee02).ok_or("a reserved SPI")?;
    let suite = CipherSuite::new(Cipher::ChaCha20Poly1305, None).ok_or("an AEAD")?;
    let keys =
        PacketKeys { suite, encryption: Secret::new((0..36).collect()), integrity: Secret::new(Vec::new()) };
    let client: [TrafficSelector; 1] = ["2a00::101".parse()?];
    let everything = [TrafficSelector::ANY_V6];
    let [client_ip, broker_ip] = [Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8)];

    // The client's worker: one policy, one outbound SA.
    let (mut home, mut away) = (World::default(), World::default());
    let mut out = Outbound::new(0, Arc::default());
    let selectors = Arc::new(SelectorPair::new(&client, &everything));
    out.handle_command(OutboundCommand::SetPolicy(Policy { reqid: 1, owner: 0 }, selectors), &mut home);
    let new = NewOutbound {
        reqid: 1,
        sa: OutboundSa::new(&aws_lc::PROVIDER, spi, &keys, false)?,
        compressor: None,
        path: UdpPath { local: client_ip, remote: SocketAddrV4::new(broker_ip, 4500) },
        counters: Arc::default(),
        soft_packets: u64::MAX,
        soft_bytes: u64::MAX,
        outer: Outer::plain(1400),
    };
    out.handle_command(OutboundCommand::Install(Box::new(new), true), &mut home);

    // The broker's worker: the same SA from the other end.
    let mut inbound = Inbound::new(0, 1, false, false, Arc::default());
    inbound.handle_command(InboundCommand::Install(Box::new(NewInbound {
        sa: InboundSa::new(&aws_lc::PROVIDER, spi, &keys, false, 1024)?,
        decompressor: None,
        selectors: Arc::new(SelectorPair::new(&everything, &client)),
        path: UdpPath { local: broker_ip, remote: SocketAddrV4::new(client_ip, 4500) },
        queue: 0,
        counters: Arc::default(),
        soft_packets: u64::MAX,
        soft_bytes: u64::MAX,
        mss: NO_CLAMP,
    })));

    let now = Instant::now();
    for source in ["2a00::101", "2a00::666"] {
        println!("an echo request from {source} to 2a00::2");
        let packet = testing::icmpv6(source.parse()?, "2a00::2".parse()?, 128, 0, b"\0\x01\0\x01 hello");
        out.handle_tun(now, &Header::default(), &packet, &mut home);
        out.flush(&mut home);
        for error in home.tun.drain(..) {
            println!(
                "  nothing leaves, no policy is for it; the sender gets ICMPv6 type {} code {}",
                error[40], error[41]
            );
        }
        for mut datagram in home.wire.drain(..) {
            println!("  on the wire: {} octets of ESP in UDP for {} of IPv6", datagram.len(), packet.len());
            let meta = Received {
                start: 0,
                len: datagram.len(),
                segment: datagram.len(),
                source: SocketAddrV4::new(client_ip, 4500),
                local: broker_ip,
                tos: 0,
            };
            inbound.handle_udp(now, &mut datagram, &[meta], &mut away);
        }
        for arrived in away.tun.drain(..) {
            println!(
                "  at the broker's TUN device: {} octets, the same: {}",
                arrived.len(),
                arrived == packet
            );
        }
    }
    Ok(())
}
