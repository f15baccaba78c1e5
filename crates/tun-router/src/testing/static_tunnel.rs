//! The data path alone, with fixed keys and no IKE: to measure it.

use crate::batch::UdpPath;
use crate::classify::SelectorPair;
use crate::config::DeviceKind;
use crate::counters::{Drops, SaCounters};
use crate::datapath::{DataPath, Spawner};
use crate::device::Device;
use crate::router::StartError;
use crate::sad;
use crate::size::{NO_CLAMP, Outer};
use crate::spd::Policy;
use crate::threads::{InboundMessage, OutboundMessage, ThreadReport};
use crate::udp::Sockets;
use crate::worker::{InboundCommand, NewInbound, NewOutbound, OutboundCommand};
use ferry6_crypto::{CipherSuite, CryptoProvider, Spi};
use ferry6_esp::ipcomp::{Compressor, Decompressor};
use ferry6_esp::{InboundSa, OutboundSa};
use ferry6_ike::TrafficSelector;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use tokio::sync::mpsc;

/// One end. Both ends take the same keys, which protect nothing: for measurements only.
pub struct StaticConfig {
    /// Interface name.
    pub tun_name: String,
    /// Device kind.
    pub device: DeviceKind,
    /// MTU.
    pub mtu: u16,
    /// Our address.
    pub local: Ipv4Addr,
    /// The peer's.
    pub remote: Ipv4Addr,
    /// UDP port of both.
    pub port: u16,
    /// Workers.
    pub workers: usize,
    /// Tells the two ends apart.
    pub left: bool,
    /// Cryptography.
    pub crypto: CryptoProvider,
    /// Suite.
    pub suite: CipherSuite,
    /// IPComp.
    pub ipcomp: bool,
}

/// A running end.
pub struct StaticTunnel {
    data_path: DataPath,
    counters: [Arc<SaCounters>; 2],
    /// What was found out at start.
    pub description: String,
    reports: mpsc::UnboundedReceiver<ThreadReport>,
    /// Kept open: when a socket leaves a SO_REUSEPORT group, the kernel numbers the others anew.
    _sockets: Sockets,
}

impl StaticTunnel {
    /// Opens the device and starts the workers; everything goes through the tunnel.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Panics
    /// Never: the keys have the right length.
    pub fn start(config: &StaticConfig) -> Result<Self, StartError> {
        let device = Device::open(&config.tun_name, config.device, true, config.mtu, config.workers)?;
        let sockets = Sockets::bind(config.local, 0, config.port, config.workers, true)?;
        let (ike, _) = mpsc::channel(1);
        let (report_sender, reports) = mpsc::unbounded_channel();
        let data_path =
            DataPath::start(&device, &sockets.workers, &ike, &report_sender, &Spawner::default())?;
        let spi = |left: bool| Spi::new(0x0010_0000 + u32::from(left)).expect("above 255");
        let keys = |left: bool| super::keys(config.suite, u8::from(left) + 1, u8::from(left) + 3);
        let any = [TrafficSelector::ANY_V6];
        let selectors = Arc::new(SelectorPair::new(&any, &any));
        let path = UdpPath { local: config.local, remote: SocketAddrV4::new(config.remote, config.port) };
        let counters: [Arc<SaCounters>; 2] = Default::default();
        let inbound = InboundSa::new(&config.crypto, spi(config.left), &keys(config.left), true, 4096);
        data_path.inbound[sad::owner(spi(config.left), config.workers)].post(InboundMessage::Command(
            InboundCommand::Install(Box::new(NewInbound {
                sa: inbound.expect("keys of the right length"),
                decompressor: config.ipcomp.then(|| Decompressor::new(256)),
                selectors: Arc::clone(&selectors),
                path,
                queue: 0,
                counters: Arc::clone(&counters[0]),
                soft_packets: u64::MAX,
                soft_bytes: u64::MAX,
                mss: NO_CLAMP,
            })),
        ));
        let outbound = OutboundSa::new(&config.crypto, spi(!config.left), &keys(!config.left), true);
        let new = NewOutbound {
            reqid: 1,
            sa: outbound.expect("keys of the right length"),
            compressor: config.ipcomp.then(|| Compressor::new(256)),
            path,
            counters: Arc::clone(&counters[1]),
            soft_packets: u64::MAX,
            soft_bytes: u64::MAX,
            outer: Outer::plain(usize::from(config.mtu)),
        };
        let commands = [
            OutboundCommand::Install(Box::new(new), true),
            OutboundCommand::SetPolicy(Policy { reqid: 1, owner: 0 }, selectors),
        ];
        for command in commands {
            data_path.outbound[0].post(OutboundMessage::Command(command));
        }
        let description = format!("{}; {}", device.description(), sockets.description);
        Ok(Self { data_path, counters, description, reports, _sockets: sockets })
    }

    /// Packets and octets in and out, and all drops.
    pub fn counters(&mut self) -> ((u64, u64), (u64, u64), BTreeMap<String, u64>) {
        while self.reports.try_recv().is_ok() {}
        let mut drops = BTreeMap::new();
        let workers: Vec<&Drops> = self.data_path.drops.iter().map(|drops| &**drops).collect();
        for set in self.counters.iter().map(|counters| &counters.drops).chain(workers) {
            set.collect(&mut drops);
        }
        (self.counters[0].get(), self.counters[1].get(), drops)
    }
}
