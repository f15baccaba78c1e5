//! The path between client and broker, with faults: a relay in the middle of the internet that loses, delays, doubles and
//! re-addresses datagrams, from a seed, and counts what it did.
//!
//! The internet host routes what it forwards into a TUN device of this program's, which gives it back, later, twice or
//! never. So neither end is changed, and no kernel needs netem.

use super::sys;
use crate::run;
use anyhow::{Context, Result};
use ferry6::lab::Host;
use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const DEVICE: &str = "relay";
/// Column of `/proc/net/dev`.
const TX_DROPPED: usize = 11;
/// The routing table of what goes into the relay.
const TABLE: &str = "100";
/// IPv4 packets from this length on are probes: the flow of `super::probe` alone is that large.
pub const PROBE_FROM: usize = 1348;

/// What is done to datagrams, in parts of a million.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Never arrive.
    pub loss: u32,
    /// Are held for up to [`Self::hold`], so that later ones overtake them.
    pub reorder: u32,
    /// Arrive twice.
    pub duplicate: u32,
    /// The longest hold.
    pub hold: Duration,
    /// How long a replaced NAT mapping still lets packets in.
    pub nat_grace: Duration,
}

/// What the relay did. Those with an index count ESP of the probes, other ESP, IKE and the rest.
#[derive(Debug, Default)]
pub struct Tally {
    pub seen: [AtomicU64; 4],
    pub lost: [AtomicU64; 4],
    /// Came for a NAT mapping that is no more.
    pub stale: [AtomicU64; 4],
    pub held: AtomicU64,
    pub doubled: AtomicU64,
    /// The kernel did not take it back, or had dropped it before: the relay's own fault.
    pub failed: AtomicU64,
    pub rebindings: AtomicU64,
    /// Every probe that the relay saw and what it did with it: what a lost probe is held against.
    pub probes: Mutex<Vec<Sight>>,
}

/// What became of a probe in the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Passed,
    /// Injected loss.
    Lost,
    /// Its NAT mapping is no more.
    Stale,
}

/// A probe that the relay saw.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    pub at: Instant,
    pub from_broker: bool,
    pub fate: Fate,
}

impl Tally {
    fn saw(&self, kind: usize, at: Instant, udp: &Udp, fate: Fate) {
        if kind == PROBE {
            let sight = Sight { at, from_broker: udp.comes_from_broker(), fate };
            self.probes.lock().unwrap_or_else(PoisonError::into_inner).push(sight);
        }
    }
}

/// Index of the probes' ESP in [`Tally`].
pub const PROBE: usize = 0;
const ESP: usize = 1;
/// Index of IKE.
pub const IKE: usize = 2;
const REST: usize = 3;

#[derive(Debug)]
struct Shared {
    tally: Tally,
    stop: AtomicBool,
    /// ESP is neither lost, held nor doubled while this is set. IKE is.
    esp_spared: AtomicBool,
    rebind: AtomicBool,
}

/// The running relay.
pub struct Relay {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    host: Host,
}

impl Relay {
    /// Starts it on a router: what the router receives on these interfaces passes through.
    pub fn start(host: &Host, interfaces: &[&str], faults: Faults, seed: u64) -> Result<Self> {
        let device = host
            .run(|| {
                let device = tun_tap::Iface::without_packet_info(DEVICE, tun_tap::Mode::Tun)?;
                sys::set_nonblocking(&device)?;
                Ok(device)
            })
            .context("the relay's device")?;
        // Its queue must never be what loses a packet.
        ip(host, &format!("link set {DEVICE} txqueuelen 100000 up"))?;
        for key in ["all", DEVICE] {
            host.sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "0")?;
        }
        ip(host, &format!("route add default dev {DEVICE} table {TABLE}"))?;
        for interface in interfaces {
            ip(host, &format!("rule add iif {interface} lookup {TABLE}"))?;
        }
        let shared = Arc::new(Shared {
            tally: Tally::default(),
            stop: AtomicBool::new(false),
            esp_spared: AtomicBool::new(false),
            rebind: AtomicBool::new(false),
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            device,
            faults,
            random: Random::new(seed),
            held: BTreeMap::new(),
            number: 0,
            nat: Nat::default(),
        };
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || worker.run())?;
        Ok(Self { shared, thread: Some(thread), host: host.clone() })
    }

    /// The home's NAT forgets its mappings: the next packet of each comes from another port.
    pub fn rebind(&self) {
        self.shared.rebind.store(true, Ordering::Relaxed);
    }

    /// Whether ESP is left alone.
    pub fn spare_esp(&self, spare: bool) {
        self.shared.esp_spared.store(spare, Ordering::Relaxed);
    }

    /// Its counts so far.
    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// What the kernel dropped before the relay's device.
    pub fn overflow(&self) -> Result<u64> {
        let text = self.host.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
        let line = text.lines().find_map(|l| l.trim().strip_prefix(DEVICE)?.strip_prefix(':'));
        let dropped = line.and_then(|l| l.split_whitespace().nth(TX_DROPPED)?.parse().ok());
        dropped.context("/proc/net/dev does not tell what the relay's device dropped")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ip(host: &Host, words: &str) -> Result<()> {
    run(host.command("ip").args(words.split_whitespace()), &format!("ip {words}")).map(drop)
}

/// xorshift64*: a sequence that a seed brings back.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// True so many times in a million.
    fn chance(&mut self, parts: u32) -> bool {
        self.next() % 1_000_000 < parts.into()
    }

    /// A duration up to `most`.
    pub fn duration(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.next() % (most.as_micros() as u64 + 1))
    }
}

struct Worker {
    shared: Arc<Shared>,
    device: tun_tap::Iface,
    faults: Faults,
    random: Random,
    /// Packets that wait, by the time at which they go on.
    held: BTreeMap<(Instant, u64), Vec<u8>>,
    number: u64,
    nat: Nat,
}

impl Worker {
    fn run(mut self) {
        let mut packet = vec![0; 65536];
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            while let Some(entry) = self.held.first_entry().filter(|e| e.key().0 <= now) {
                let packet = entry.remove();
                self.send(&packet);
            }
            if self.shared.rebind.swap(false, Ordering::Relaxed) {
                self.nat.rebind(now + self.faults.nat_grace);
                self.shared.tally.rebindings.fetch_add(1, Ordering::Relaxed);
            }
            // Some at a time, so that the held ones are looked at too.
            for _ in 0..64 {
                match self.device.recv(&mut packet) {
                    Ok(length) => self.pass(&mut packet[..length], Instant::now()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.wait();
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
    }

    fn wait(&self) {
        let next =
            self.held.first_key_value().map(|((at, _), _)| at.saturating_duration_since(Instant::now()));
        let wait = next.unwrap_or(Duration::from_millis(20)).min(Duration::from_millis(20));
        sys::wait_readable(&self.device, wait);
    }

    fn pass(&mut self, packet: &mut [u8], now: Instant) {
        let Some(udp) = Udp::read(packet) else { return self.send(packet) };
        let kind = udp.kind(packet);
        let tally = &self.shared.tally;
        tally.seen[kind].fetch_add(1, Ordering::Relaxed);
        if !self.nat.translate(&udp, packet, &mut self.random, now) {
            tally.stale[kind].fetch_add(1, Ordering::Relaxed);
            tally.saw(kind, now, &udp, Fate::Stale);
            return;
        }
        if kind == REST || (kind != IKE && self.shared.esp_spared.load(Ordering::Relaxed)) {
            tally.saw(kind, now, &udp, Fate::Passed);
            return self.send(packet);
        }
        if self.random.chance(self.faults.loss) {
            tally.lost[kind].fetch_add(1, Ordering::Relaxed);
            tally.saw(kind, now, &udp, Fate::Lost);
            return;
        }
        tally.saw(kind, now, &udp, Fate::Passed);
        if self.random.chance(self.faults.duplicate) {
            tally.doubled.fetch_add(1, Ordering::Relaxed);
            self.hold(packet, now);
        }
        if self.random.chance(self.faults.reorder) {
            self.shared.tally.held.fetch_add(1, Ordering::Relaxed);
            self.hold(packet, now);
        } else {
            self.send(packet);
        }
    }

    fn hold(&mut self, packet: &[u8], now: Instant) {
        self.number += 1;
        let at = now + self.random.duration(self.faults.hold);
        self.held.insert((at, self.number), packet.to_vec());
    }

    fn send(&mut self, packet: &[u8]) {
        if self.device.send(packet).is_err() {
            self.shared.tally.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where things stand in an IPv4 packet with UDP inside.
struct Udp {
    at: usize,
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
}

impl Udp {
    fn read(packet: &[u8]) -> Option<Self> {
        let at = usize::from(packet.first()? & 15) * 4;
        let header = packet.get(..at.max(20))?;
        // Not of later fragments, which have no ports.
        if header[0] >> 4 != 4 || header[9] != 17 || header[6] & 0x1f != 0 || header[7] != 0 {
            return None;
        }
        let ports = packet.get(at..at + 8)?;
        let address = |i: usize| Ipv4Addr::new(header[i], header[i + 1], header[i + 2], header[i + 3]);
        Some(Self {
            at,
            source: (address(12), u16::from_be_bytes([ports[0], ports[1]])),
            destination: (address(16), u16::from_be_bytes([ports[2], ports[3]])),
        })
    }

    fn comes_from_broker(&self) -> bool {
        [500, 4500].contains(&self.source.1)
    }

    fn kind(&self, packet: &[u8]) -> usize {
        let broker = if self.comes_from_broker() { self.source.1 } else { self.destination.1 };
        match (broker, packet.get(self.at + 8..self.at + 12)) {
            (500, _) | (4500, Some([0, 0, 0, 0])) => IKE,
            (4500, Some(_)) if packet.len() >= PROBE_FROM => PROBE,
            (4500, Some(_)) => ESP,
            _ => REST,
        }
    }
}

/// A NAT of the clients' ports that can be made to forget.
#[derive(Default)]
struct Nat {
    outside: HashMap<(Ipv4Addr, u16), u16>,
    /// By the outer port: the inner one, and until when it lets packets in.
    inside: HashMap<(Ipv4Addr, u16), (u16, Option<Instant>)>,
}

impl Nat {
    fn rebind(&mut self, until: Instant) {
        for ((address, _), outer) in self.outside.drain() {
            if let Some((_, end)) = self.inside.get_mut(&(address, outer)) {
                *end = Some(until);
            }
        }
    }

    /// False: there is no mapping for it.
    fn translate(&mut self, udp: &Udp, packet: &mut [u8], random: &mut Random, now: Instant) -> bool {
        if udp.comes_from_broker() {
            let (address, outer) = udp.destination;
            let Some(&(inner, end)) = self.inside.get(&(address, outer)) else { return false };
            if end.is_some_and(|end| end < now) {
                self.inside.remove(&(address, outer));
                return false;
            }
            set_port(packet, udp.at, udp.at + 2, inner);
            return true;
        }
        let (address, inner) = udp.source;
        let outer = *self.outside.entry((address, inner)).or_insert_with(|| {
            loop {
                let outer = 10_000 + (random.next() % 50_000) as u16;
                if let std::collections::hash_map::Entry::Vacant(place) = self.inside.entry((address, outer))
                {
                    place.insert((inner, None));
                    return outer;
                }
            }
        });
        set_port(packet, udp.at, udp.at, outer);
        true
    }
}

/// RFC 1624: the checksum follows the changed field.
fn set_port(packet: &mut [u8], udp: usize, at: usize, port: u16) {
    let old = u16::from_be_bytes([packet[at], packet[at + 1]]);
    packet[at..at + 2].copy_from_slice(&port.to_be_bytes());
    let check = u16::from_be_bytes([packet[udp + 6], packet[udp + 7]]);
    if check == 0 {
        return;
    }
    let mut sum = u32::from(!check) + u32::from(!old) + u32::from(port);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let check = match !(sum as u16) {
        0 => 0xffff,
        check => check,
    };
    packet[udp + 6..udp + 8].copy_from_slice(&check.to_be_bytes());
}
