//! The data paths of two routers against a model: what one takes from its TUN device the other writes to its own, once,
//! in the order of its flow, or a counter says why not.

mod model;
mod send;
mod world;

use crate::coalesce::{flow, plain};
use crate::input::Input;
use ferry6_crypto::{CipherSuite, PacketKeys, Spi, aws_lc};
use ferry6_esp::ipcomp::{Compressor, Decompressor};
use ferry6_esp::{InboundSa, OutboundSa};
use ferry6_ike::TrafficSelector;
use ferry6_tun_router::batch::{Received, UdpPath};
use ferry6_tun_router::classify::SelectorPair;
use ferry6_tun_router::counters::{DropReason, Drops, SaCounters};
use ferry6_tun_router::gso::Segments;
use ferry6_tun_router::size::{NO_CLAMP, Outer};
use ferry6_tun_router::spd::Policy;
use ferry6_tun_router::testing::keys;
use ferry6_tun_router::virtio::Header;
use ferry6_tun_router::worker::{
    Inbound, InboundCommand, NewInbound, NewOutbound, Outbound, OutboundCommand, Report,
};
use model::{Arrival, LEFT, Model, RIGHT, Sealed, host};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};
use world::World;

/// Tunnels between the two.
const TUNNELS: u32 = 3;
/// The replay window, small enough to be left behind by one super-packet.
const WINDOW: u32 = 64;
/// The MTU of all tunnels.
const MTU: usize = 1400;
/// The most operations of one run, and SAs that are made.
const OPERATIONS: usize = 300;
const SAS: u32 = 80;
/// The CPI of the tunnel that compresses.
const CPI: u16 = 300;

/// On its way.
#[derive(Clone, Debug)]
struct Datagram {
    octets: Vec<u8>,
    source: SocketAddrV4,
    tos: u8,
    /// `None`: no packet of ours, or one that was changed.
    sealed: Option<Arc<Sealed>>,
}

/// The workers of one end.
struct End {
    outbound: Vec<Outbound>,
    inbound: Vec<Inbound>,
    world: World,
    /// The workers' and the SAs'.
    drops: Vec<Arc<Drops>>,
    sas: Vec<Arc<SaCounters>>,
    address: SocketAddrV4,
    /// New paths that the control thread has heard of and not told the workers yet.
    moves: VecDeque<(u32, UdpPath)>,
}

struct Run {
    ends: [End; 2],
    model: Model,
    suite: CipherSuite,
    /// Distance of one SPI from the next: whether they share a slot of the SAD.
    spacing: u32,
    serial: u32,
    /// On the way to each end; and all that ever was.
    wire: [VecDeque<Datagram>; 2],
    past: [Vec<Datagram>; 2],
    now: Instant,
    /// The number in the next packet.
    number: u64,
    delivered: HashSet<u64>,
    next_tcp: u32,
}

/// Sends, rekeys, loses, reorders, repeats, forges and moves, on two routers of one or two workers each.
///
/// Input: suite, switches, then operations of one octet and their arguments.
pub fn routers(data: &[u8]) {
    run(data);
}

fn run(data: &[u8]) -> Run {
    let mut input = Input(data);
    let suite = input.suite();
    let mut run = Run::new(suite, input.u8());
    for _ in 0..OPERATIONS {
        if input.is_empty() {
            break;
        }
        run.operation(&mut input);
        run.collect(LEFT);
        run.collect(RIGHT);
    }
    run.settle();
    run
}

/// What a tunnel takes at one end: the left's and the right's selectors.
fn selectors(side: usize, tunnel: u32, inbound: bool) -> Arc<SelectorPair> {
    let ends = [LEFT, RIGHT].map(|end| {
        // See `Meta::taken`.
        let number = u16::from(!(inbound && side == RIGHT && tunnel == 2 && end == LEFT));
        let prefix = if number == 1 { 64 } else { 127 };
        let address = host(end, tunnel as u16, 0);
        let mut selector = TrafficSelector::prefix(IpAddr::V6(address), prefix).expect("a prefix");
        if tunnel == 3 {
            selector.protocol = 17;
            if end == RIGHT {
                (selector.start_port, selector.end_port) = (2000, 2000);
            }
        }
        vec![selector]
    });
    Arc::new(SelectorPair::new(&ends[side], &ends[1 - side]))
}

impl Run {
    fn new(suite: CipherSuite, switches: u8) -> Self {
        let workers = usize::from(switches & 1) + 1;
        let mut run = Self {
            ends: [LEFT, RIGHT].map(|side| {
                let drops: Vec<_> = (0..2 * workers).map(|_| Arc::<Drops>::default()).collect();
                End {
                    outbound: (0..workers).map(|n| Outbound::new(n, Arc::clone(&drops[n]))).collect(),
                    inbound: (0..workers)
                        .map(|n| {
                            let drops = Arc::clone(&drops[workers + n]);
                            Inbound::new(n, workers, switches & 8 == 0, switches & 16 == 0, drops)
                        })
                        .collect(),
                    world: World::default(),
                    drops,
                    sas: Vec::new(),
                    address: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, side as u8 + 1), 4500),
                    moves: VecDeque::new(),
                }
            }),
            model: Model {
                ends: Default::default(),
                workers,
                soft: if switches & 32 != 0 { 20 } else { u64::MAX },
                esn: switches & 2 != 0,
                mtu: MTU,
                sealed: Default::default(),
            },
            suite,
            spacing: if switches & 4 != 0 { 4096 } else { 2 },
            serial: 0,
            wire: Default::default(),
            past: Default::default(),
            now: Instant::now(),
            number: 0,
            delivered: HashSet::new(),
            next_tcp: 0xffff_f000,
        };
        for tunnel in 1..=TUNNELS {
            let owner = run.model.owner(tunnel);
            for side in [LEFT, RIGHT] {
                let path = run.path(side);
                run.model.ends[side].paths.insert(tunnel, path);
                let end = &mut run.ends[side];
                for worker in &mut end.outbound {
                    let policy = Policy { reqid: tunnel, owner };
                    let command = OutboundCommand::SetPolicy(policy, selectors(side, tunnel, false));
                    worker.handle_command(command, &mut end.world);
                }
            }
            run.install(tunnel, owner);
            for side in [LEFT, RIGHT] {
                run.switch(side, tunnel, owner);
            }
        }
        run
    }

    /// From one end to where the other is now.
    fn path(&self, side: usize) -> UdpPath {
        UdpPath { local: *self.ends[side].address.ip(), remote: self.ends[1 - side].address }
    }

    fn keys(&self, spi: Spi) -> PacketKeys {
        let seed = (spi.get() / self.spacing) as u8;
        keys(self.suite, seed, seed ^ 0x55)
    }

    /// A new pair of SAs, not in use yet: at one worker of each end.
    fn install(&mut self, tunnel: u32, worker: usize) {
        for sender in [LEFT, RIGHT] {
            self.serial += 1;
            let workers = self.model.workers as u32;
            let number = 4096 + self.serial * self.spacing;
            let spi = Spi::new(number - number % workers + worker as u32).expect("not zero");
            let (keys, esn) = (self.keys(spi), self.model.esn);
            let compresses = tunnel == 2;
            let receiver = 1 - sender;
            // What is told of a new SA is where the IKE SA is, which is where the last one of this tunnel is.
            let path = self.model.ends[receiver].paths[&tunnel];
            let end = &mut self.ends[receiver];
            end.sas.push(Arc::default());
            end.inbound[worker].handle_command(InboundCommand::Install(Box::new(NewInbound {
                sa: InboundSa::new(&aws_lc::PROVIDER, spi, &keys, esn, WINDOW).expect("the keys fit"),
                decompressor: compresses.then(|| Decompressor::new(CPI)),
                selectors: selectors(receiver, tunnel, true),
                path,
                queue: self.model.owner(tunnel),
                counters: Arc::clone(end.sas.last().expect("pushed above")),
                soft_packets: self.model.soft,
                soft_bytes: u64::MAX,
                mss: NO_CLAMP,
            })));
            self.model.install_inbound(receiver, spi, tunnel, path);
            let end = &mut self.ends[sender];
            end.sas.push(Arc::default());
            let new = NewOutbound {
                reqid: tunnel,
                sa: OutboundSa::new(&aws_lc::PROVIDER, spi, &keys, esn).expect("the keys fit"),
                compressor: compresses.then(|| Compressor::new(CPI)),
                path: self.model.ends[sender].paths[&tunnel],
                counters: Arc::clone(end.sas.last().expect("pushed above")),
                soft_packets: self.model.soft,
                soft_bytes: u64::MAX,
                outer: Outer::plain(MTU),
            };
            let command = OutboundCommand::Install(Box::new(new), false);
            end.outbound[worker].handle_command(command, &mut end.world);
            self.model.ends[sender].out.entry((tunnel, worker)).or_default().waiting.push(spi);
        }
    }

    /// Switches to the SA that waited the shortest.
    fn switch(&mut self, side: usize, tunnel: u32, worker: usize) {
        let set = self.model.ends[side].out.get(&(tunnel, worker));
        let Some(spi) = set.and_then(|set| set.waiting.iter().max().copied()) else { return };
        self.model.switch(side, tunnel, worker, spi);
        let end = &mut self.ends[side];
        end.outbound[worker].handle_command(OutboundCommand::Use(tunnel, spi), &mut end.world);
    }

    /// Removes outbound SAs that are not in use, or the one in use where it is the only one.
    fn remove_outbound(&mut self, side: usize, tunnel: u32, worker: usize) {
        let Some(set) = self.model.ends[side].out.get_mut(&(tunnel, worker)) else { return };
        let gone = match set.waiting.pop() {
            Some(spi) => spi,
            None => match set.current.take() {
                Some(spi) => spi,
                None => return,
            },
        };
        let end = &mut self.ends[side];
        end.outbound[worker].handle_command(OutboundCommand::Remove(tunnel, gone), &mut end.world);
    }

    /// Removes the oldest inbound SA of a tunnel.
    fn remove_inbound(&mut self, side: usize, tunnel: u32) {
        let sas = &mut self.model.ends[side].inbound;
        let Some(spi) = sas.iter().find(|(_, sa)| sa.tunnel == tunnel).map(|(spi, _)| *spi) else { return };
        sas.remove(&spi);
        let worker = spi as usize % self.model.workers;
        let spi = Spi::new(spi).expect("not zero");
        self.ends[side].inbound[worker].handle_command(InboundCommand::Remove(spi));
    }

    fn operation(&mut self, input: &mut Input<'_>) {
        let op = input.u8();
        let side = usize::from(op & 1);
        let to = 1 - side;
        match op >> 1 & 31 {
            0..8 => self.send(side, input),
            8..10 => self.flush(side),
            10..16 => {
                let [count, how] = input.array();
                let worker = usize::from(how >> 1) % self.model.workers;
                let count = usize::from(count).min(self.wire[side].len());
                let batch: Vec<_> = self.wire[side].drain(..count).collect();
                self.deliver(side, worker, &batch, how & 1 == 0);
            }
            16 => {
                if let Some(at) = index(input.u8(), self.wire[to].len()) {
                    self.wire[to].remove(at);
                }
            }
            17..19 => {
                let [from, ahead] = input.array();
                if let (Some(from), Some(ahead)) =
                    (index(from, self.wire[to].len()), index(ahead, self.wire[to].len()))
                {
                    self.wire[to].swap(from, ahead);
                }
            }
            19 | 20 => {
                // An old one again, perhaps from somewhere else.
                let [which, from] = input.array();
                if let Some(at) = index(which, self.past[to].len()) {
                    let mut datagram = self.past[to][at].clone();
                    if from != 0 {
                        datagram.source.set_port(u16::from(from));
                    }
                    self.wire[to].push_front(datagram);
                }
            }
            21 => {
                let which = input.u8();
                let (at, change) = (usize::from(input.u16()), input.u8());
                if let Some(which) = index(which, self.wire[to].len()) {
                    let mut datagram = self.wire[to][which].clone();
                    let at = at % datagram.octets.len();
                    datagram.octets[at] ^= change.max(1);
                    // One that was changed before may be whole again.
                    let whole = self.past[to].iter().find(|sent| sent.octets == datagram.octets);
                    datagram.sealed = whole.and_then(|sent| sent.sealed.clone());
                    self.wire[to].insert(which, datagram);
                }
            }
            22 => {
                // A router on the way marks, or bleaches.
                let [which, ecn] = input.array();
                if let Some(at) = index(which, self.wire[to].len()) {
                    self.wire[to][at].tos = self.wire[to][at].tos & !3 | ecn & 3;
                }
            }
            23 | 24 => {
                let [tunnel, worker] = input.array();
                if self.serial < SAS {
                    self.install(Model::tunnel(tunnel), usize::from(worker) % self.model.workers);
                }
            }
            25 | 26 => {
                let [tunnel, worker] = input.array();
                self.switch(side, Model::tunnel(tunnel), usize::from(worker) % self.model.workers);
            }
            27 => {
                let [tunnel, worker] = input.array();
                self.remove_outbound(side, Model::tunnel(tunnel), usize::from(worker) % self.model.workers);
            }
            28 => self.remove_inbound(side, Model::tunnel(input.u8())),
            29 => {
                // Only the left moves.
                let port = self.ends[LEFT].address.port();
                self.ends[LEFT].address.set_port(port.wrapping_add(1).max(1024));
            }
            30 => {
                self.now += Duration::from_millis(u64::from(input.u8()) * 10);
                self.heed(side);
            }
            _ => {
                let len = usize::from(input.u8() % 64).min(input.0.len()).max(1);
                let (octets, rest) = input.0.split_at(len.min(input.0.len()));
                let mut octets = octets.to_vec();
                input.0 = rest;
                octets.resize(len, 0xff);
                if octets.len() >= 3 && octets[..3] != [0; 3] {
                    // No SPI of ours: what is too short for its suite is for another target.
                    octets[0] |= 0x80;
                }
                let source = self.ends[side].address;
                self.wire[to].push_front(Datagram { octets, source, tos: 0, sealed: None });
            }
        }
    }

    fn flush(&mut self, side: usize) {
        let end = &mut self.ends[side];
        for worker in &mut end.outbound {
            worker.flush(&mut end.world);
        }
    }

    /// What an end sent is on its way; each datagram is one that the model knows.
    fn collect(&mut self, side: usize) {
        let source = self.ends[side].address;
        for (octets, path, tos) in std::mem::take(&mut self.ends[side].world.wire) {
            let [spi, number] =
                [0, 4].map(|at| u32::from_be_bytes(octets[at..at + 4].try_into().expect("4 octets")));
            let sealed = self.model.sealed.remove(&(spi, number));
            let sealed = sealed.expect("a datagram that nobody sent, or a number twice");
            assert_eq!((path, tos), (sealed.path, sealed.tos));
            let datagram = Datagram { octets, source, tos, sealed: Some(Arc::new(sealed)) };
            self.past[1 - side].push(datagram.clone());
            self.wire[1 - side].push_back(datagram);
        }
        assert_eq!(
            std::mem::take(&mut self.ends[side].world.reports),
            std::mem::take(&mut self.model.ends[side].reports)
                .into_iter()
                .inspect(|report| {
                    if let Report::PathChanged(spi, path) = report
                        && let Some(sa) = self.model.ends[side].inbound.get(&spi.get())
                    {
                        self.ends[side].moves.push_back((sa.tunnel, *path));
                    }
                })
                .collect::<Vec<_>>()
        );
    }

    /// The control thread follows a peer that moved.
    fn heed(&mut self, side: usize) {
        while let Some((tunnel, path)) = self.ends[side].moves.pop_front() {
            self.model.set_path(side, tunnel, path);
            let end = &mut self.ends[side];
            for worker in &mut end.outbound {
                worker.handle_command(OutboundCommand::SetPath(tunnel, path), &mut end.world);
            }
            let of_tunnel = self.model.ends[side].inbound.iter().filter(|(_, sa)| sa.tunnel == tunnel);
            for spi in of_tunnel.map(|(spi, _)| Spi::new(*spi).expect("not zero")) {
                let worker = spi.get() as usize % self.model.workers;
                end.inbound[worker].handle_command(InboundCommand::SetPath(spi, path));
            }
        }
    }

    /// A batch comes to the socket of one worker, bundled as GRO would or not.
    fn deliver(&mut self, side: usize, worker: usize, batch: &[Datagram], bundle: bool) {
        let mut left = self.receive(side, worker, batch, bundle);
        for owner in 0..self.model.workers {
            let (own, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(to, _)| *to == owner);
            left = others;
            let own: Vec<_> = own.into_iter().map(|(_, datagram)| datagram).collect();
            assert!(self.receive(side, owner, &own, false).is_empty(), "handed on twice");
        }
        assert!(left.is_empty(), "handed to nobody");
    }

    /// Returns what has to be handed on.
    fn receive(
        &mut self,
        side: usize,
        worker: usize,
        batch: &[Datagram],
        bundle: bool,
    ) -> Vec<(usize, Datagram)> {
        let local = *self.ends[side].address.ip();
        let (mut buffer, mut received) = (Vec::new(), Vec::<Received>::new());
        for Datagram { octets, source, tos, .. } in batch {
            match received.last_mut() {
                Some(last)
                    if bundle
                        && (last.source, last.tos) == (*source, *tos)
                        && last.len.is_multiple_of(last.segment)
                        && last.len + octets.len() <= 65_535
                        && octets.len() <= last.segment =>
                {
                    last.len += octets.len();
                }
                _ => received.push(Received {
                    start: buffer.len(),
                    len: octets.len(),
                    segment: octets.len(),
                    source: *source,
                    local,
                    tos: *tos,
                }),
            }
            buffer.extend_from_slice(octets);
        }
        let (mut packets, mut hand_on, mut ike) = (Vec::new(), Vec::new(), 0);
        for datagram in batch {
            match self.model.receive(side, worker, self.now, datagram) {
                Arrival::Nothing => {}
                Arrival::Ike => ike += 1,
                Arrival::HandOff(owner) => hand_on.push((owner, datagram.clone())),
                Arrival::Packet(queue, packet) => packets.push((queue, packet)),
            }
        }
        let end = &mut self.ends[side];
        end.inbound[worker].handle_udp(self.now, &mut buffer, &received, &mut end.world);
        assert_eq!(std::mem::take(&mut end.world.ike), ike);
        let handed_on = std::mem::take(&mut end.world.handed_on);
        assert!(
            handed_on
                .iter()
                .map(|(owner, packet)| (*owner, packet))
                .eq(hand_on.iter().map(|(owner, datagram)| (*owner, &datagram.octets)))
        );
        let written = std::mem::take(&mut end.world.tun);
        self.compare(&packets, &written);
        hand_on
    }

    /// What was written is what the model says: each packet once, the flows in order, each on its queue.
    fn compare(&mut self, expected: &[(usize, Vec<u8>)], written: &[(usize, Header, Vec<u8>)]) {
        let mut got: BTreeMap<_, Vec<Vec<u8>>> = BTreeMap::new();
        for (queue, header, packet) in written {
            let segments = Segments::new(header, packet).expect("what is written can be split");
            for index in 0..segments.count() {
                let mut segment = vec![0; segments.max_len()];
                let len = segments.write(index, &mut segment);
                segment.truncate(len);
                got.entry((*queue, flow(&segment))).or_default().push(plain(&segment));
            }
        }
        let mut wanted: BTreeMap<_, Vec<Vec<u8>>> = BTreeMap::new();
        for (queue, packet) in expected {
            let at = match packet[6] {
                6 => 72,
                17 => 48,
                58 => 44,
                _ => 40,
            };
            let number = u64::from_be_bytes(packet[at..at + 8].try_into().expect("8 octets"));
            assert!(self.delivered.insert(number), "the model delivers a packet twice");
            wanted.entry((*queue, flow(packet))).or_default().push(plain(packet));
        }
        assert_eq!(got, wanted);
    }

    /// At last all that is on the way arrives, new SAs come up, and every tunnel carries a packet each way.
    fn settle(&mut self) {
        for side in [LEFT, RIGHT] {
            self.flush(side);
            self.collect(side);
        }
        assert!(self.model.sealed.is_empty(), "sealed, and never sent");
        for round in 0..3 {
            for tunnel in 1..=TUNNELS {
                let owner = self.model.owner(tunnel);
                if round == 0 {
                    self.install(tunnel, owner);
                    self.switch(LEFT, tunnel, owner);
                    self.switch(RIGHT, tunnel, owner);
                }
                for side in [LEFT, RIGHT] {
                    self.send(side, &mut Input(&[owner as u8, 1, tunnel as u8 - 1, 0, 1, 0]));
                }
            }
            for side in [LEFT, RIGHT] {
                self.flush(side);
                self.collect(side);
            }
            for side in [LEFT, RIGHT] {
                let before = self.delivered.len();
                let batch: Vec<_> = self.wire[side].drain(..).collect();
                self.deliver(side, 0, &batch, true);
                self.collect(side);
                assert!(self.delivered.len() - before >= TUNNELS as usize, "a tunnel is dead");
                self.now += Duration::from_secs(2);
                self.heed(side);
            }
        }
        // The peer was followed to where it is.
        let to_left = self.model.ends[RIGHT].paths.values().map(|path| path.remote);
        assert!(to_left.into_iter().all(|remote| remote == self.ends[LEFT].address));
        for side in [LEFT, RIGHT] {
            let mut counted = BTreeMap::new();
            let end = &self.ends[side];
            let all = end.drops.iter().map(|drops| &**drops).chain(end.sas.iter().map(|sa| &sa.drops));
            for drops in all {
                for reason in DropReason::ALL {
                    let count = drops.get(*reason);
                    if count > 0 {
                        *counted.entry(reason.name()).or_default() += count;
                    }
                }
            }
            assert_eq!(counted, self.model.ends[side].counts, "counters of end {side}");
        }
    }
}

fn index(number: u8, len: usize) -> Option<usize> {
    usize::from(number).checked_rem(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The committed seeds get to where their names say: else the target would be content with an empty wire.
    #[test]
    fn seeds_reach_what_they_are_named_for() {
        for (seed, side, reasons) in [
            ("there-and-back", RIGHT, &[][..]),
            ("no-policy", LEFT, &[DropReason::OutNoPolicy]),
            ("selectors-of-the-receiver", RIGHT, &[DropReason::InSelectorMismatch]),
            ("without-an-sa", LEFT, &[DropReason::OutNoSa]),
            ("lost-reordered-repeated", RIGHT, &[DropReason::InReplayDuplicate]),
            ("left-of-the-window", RIGHT, &[DropReason::InReplayTooOld]),
            ("forged", RIGHT, &[DropReason::InIntegrity, DropReason::InUnknownSpi]),
            ("marked", RIGHT, &[DropReason::InEcn]),
            ("too-big", LEFT, &[DropReason::OutTooBig]),
            ("ike-keepalive-noise", LEFT, &[DropReason::InMalformedDatagram]),
        ] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/routers");
            let run = run(&std::fs::read(folder.join(seed)).expect("a seed"));
            let counts = &run.model.ends[side].counts;
            assert_eq!(counts.len(), reasons.len(), "{seed}: {counts:?}");
            for reason in reasons {
                assert!(counts.contains_key(reason.name()), "{seed}: {counts:?}");
            }
        }
    }
}
