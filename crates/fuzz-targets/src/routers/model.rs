//! What two routers must do, said slowly: lists that are searched from the front, and the set of all numbers ever seen.

use super::{Datagram, TUNNELS, WINDOW};
use crate::esp::infer;
use ferry6_crypto::Spi;
use ferry6_tun_router::batch::UdpPath;
use ferry6_tun_router::counters::DropReason;
use ferry6_tun_router::worker::Report;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

/// The two ends.
pub(super) const LEFT: usize = 0;
/// The other one.
pub(super) const RIGHT: usize = 1;

/// One packet's selectors, as the fuzzer chose them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    /// 1 to 3; 4 has no policy.
    pub(super) tunnel: u16,
    /// Host numbers at the left and at the right.
    pub(super) hosts: [u16; 2],
    pub(super) protocol: u8,
    /// At the left and at the right.
    pub(super) ports: [u16; 2],
}

/// The host of one end of a tunnel: each end of each tunnel is a /64.
pub(super) fn host(side: usize, tunnel: u16, number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2a00, 0, 0, tunnel + 0x80 * side as u16, 0, 0, 0, number)
}

impl Meta {
    /// The policy, the same at both ends: tunnels 1 and 2 take everything, tunnel 3 UDP to port 2000 at the right.
    pub(super) fn policy(&self) -> Option<u32> {
        match self.tunnel {
            1 | 2 => Some(u32::from(self.tunnel)),
            3 if self.protocol == 17 && self.ports[RIGHT] == 2000 => Some(3),
            _ => None,
        }
    }

    /// The right takes less from tunnel 2 than the left sends: from the left's hosts number 0 and 1 only.
    pub(super) fn taken(&self, receiver: usize) -> bool {
        receiver == LEFT || self.tunnel != 2 || self.hosts[LEFT] <= 1
    }
}

/// An outbound SA set of one worker and tunnel.
#[derive(Clone, Debug, Default)]
pub(super) struct OutSet {
    pub(super) current: Option<Spi>,
    pub(super) waiting: Vec<Spi>,
}

/// An inbound SA.
#[derive(Clone, Debug)]
pub(super) struct InSa {
    pub(super) tunnel: u32,
    pub(super) queue: usize,
    top: u64,
    seen: BTreeSet<u64>,
    path: UdpPath,
    path_told: Option<Instant>,
    used: bool,
    delivered: u64,
    soft_told: bool,
}

/// A packet that was sealed.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) meta: Meta,
    pub(super) inner: Vec<u8>,
    pub(super) path: UdpPath,
    pub(super) tos: u8,
}

/// One end.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) out: HashMap<(u32, usize), OutSet>,
    /// Packets sealed on an outbound SA.
    pub(super) sequence: HashMap<Spi, u64>,
    soft_told: BTreeSet<u32>,
    pub(super) paths: HashMap<u32, UdpPath>,
    pub(super) inbound: BTreeMap<u32, InSa>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) reports: Vec<Report>,
}

/// Both ends.
pub(super) struct Model {
    pub(super) ends: [End; 2],
    pub(super) workers: usize,
    pub(super) soft: u64,
    pub(super) esn: bool,
    pub(super) mtu: usize,
    /// What was sealed by SPI and number, until it is seen on the wire.
    pub(super) sealed: HashMap<(u32, u32), Sealed>,
}

/// What becomes of a packet from the TUN device.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    HandOff(usize),
}

/// What becomes of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Nothing,
    Ike,
    HandOff(usize),
    Packet(usize, Vec<u8>),
}

impl Model {
    /// The worker that owns a tunnel's first SA.
    pub(super) fn owner(&self, tunnel: u32) -> usize {
        tunnel as usize % self.workers
    }

    fn count(&mut self, side: usize, reason: DropReason) {
        *self.ends[side].counts.entry(reason.name()).or_default() += 1;
    }

    pub(super) fn install_inbound(&mut self, side: usize, spi: Spi, tunnel: u32, path: UdpPath) {
        let queue = self.owner(tunnel);
        self.ends[side].inbound.insert(
            spi.get(),
            InSa {
                tunnel,
                queue,
                top: 0,
                seen: BTreeSet::from([0]),
                path,
                path_told: None,
                used: false,
                delivered: 0,
                soft_told: false,
            },
        );
    }

    pub(super) fn set_path(&mut self, side: usize, tunnel: u32, path: UdpPath) {
        self.ends[side].paths.insert(tunnel, path);
        for sa in self.ends[side].inbound.values_mut().filter(|sa| sa.tunnel == tunnel) {
            sa.path = path;
        }
    }

    /// The newest SA that waits is in use from here on.
    pub(super) fn switch(&mut self, side: usize, tunnel: u32, worker: usize, spi: Spi) {
        let end = &mut self.ends[side];
        let Some(set) = end.out.get_mut(&(tunnel, worker)) else { return };
        if set.waiting.contains(&spi) {
            set.waiting.retain(|other| *other != spi);
            set.waiting.extend(set.current.replace(spi));
        }
        if set.current == Some(spi) {
            end.reports.push(Report::OutboundInUse { reqid: tunnel, spi });
        }
    }

    /// A packet, or the segments of one super-packet, at a worker.
    pub(super) fn send(&mut self, side: usize, worker: usize, meta: Meta, segments: &[Vec<u8>]) -> Fate {
        let Some(tunnel) = meta.policy() else {
            self.count(side, DropReason::OutNoPolicy);
            return Fate::Done;
        };
        let current = self.ends[side].out.get(&(tunnel, worker)).and_then(|set| set.current);
        let Some(spi) = current else {
            if self.owner(tunnel) != worker {
                return Fate::HandOff(self.owner(tunnel));
            }
            self.count(side, DropReason::OutNoSa);
            return Fate::Done;
        };
        let longest = segments.iter().map(Vec::len).max().unwrap_or(0);
        if longest > self.mtu && longest > 1280 {
            self.count(side, DropReason::OutTooBig);
            return Fate::Done;
        }
        let end = &mut self.ends[side];
        let path = end.paths[&tunnel];
        let number = end.sequence.entry(spi).or_default();
        for inner in segments {
            *number += 1;
            let tos = inner[0] << 4 | inner[1] >> 4;
            let sealed = Sealed { meta, inner: inner.clone(), path, tos };
            self.sealed.insert((spi.get(), *number as u32), sealed);
        }
        if *number >= self.soft && end.soft_told.insert(spi.get()) {
            end.reports.push(Report::OutboundSoftLimit { reqid: tunnel, spi });
        }
        Fate::Done
    }

    /// A datagram at a worker.
    pub(super) fn receive(
        &mut self,
        side: usize,
        worker: usize,
        now: Instant,
        datagram: &Datagram,
    ) -> Arrival {
        let octets = &datagram.octets;
        // RFC 3948 section 2: keepalive, non-ESP marker, ESP; and an SPI below 256 is none (RFC 4303 section 2.1).
        if octets[..] == [0xff] {
            return Arrival::Nothing;
        }
        if octets.len() > 4 && octets[..4] == [0; 4] {
            return Arrival::Ike;
        }
        if octets.len() < 8 || octets[..3] == [0; 3] {
            self.count(side, DropReason::InMalformedDatagram);
            return Arrival::Nothing;
        }
        let [spi, low] =
            [0, 4].map(|at| u32::from_be_bytes(octets[at..at + 4].try_into().expect("4 octets")));
        let (workers, esn) = (self.workers, self.esn);
        let end = &mut self.ends[side];
        let known = spi as usize % workers == worker;
        let Some(sa) = end.inbound.get_mut(&spi).filter(|_| known) else {
            if !known {
                return Arrival::HandOff(spi as usize % workers);
            }
            self.count(side, DropReason::InUnknownSpi);
            return Arrival::Nothing;
        };
        // RFC 4303 section 3.4.3: the window first, then the ICV.
        let number = if esn { infer(sa.top, low, u64::from(WINDOW)) } else { Some(u64::from(low)) };
        let reason = match (number, &datagram.sealed) {
            (Some(0), _) => Some(DropReason::InReplayZero),
            (None, _) => Some(DropReason::InReplayTooOld),
            (Some(number), _) if number + u64::from(WINDOW) <= sa.top => Some(DropReason::InReplayTooOld),
            (Some(number), _) if sa.seen.contains(&number) => Some(DropReason::InReplayDuplicate),
            // Far behind, an extended number seems to be far ahead (RFC 4303 appendix A2.1), which the ICV refutes.
            (Some(number), _) if number >> 32 != 0 => Some(DropReason::InIntegrity),
            (_, None) => Some(DropReason::InIntegrity),
            _ => None,
        };
        let (None, Some(sealed), Some(number)) = (reason, &datagram.sealed, number) else {
            self.count(side, reason.expect("there is no packet, so there is a reason"));
            return Arrival::Nothing;
        };
        sa.seen.insert(number);
        sa.top = sa.top.max(number);
        let own = Spi::new(spi).expect("not zero");
        if !std::mem::replace(&mut sa.used, true) {
            end.reports.push(Report::FirstUse(own));
        }
        // RFC 7296 section 2.23: only the newest authentic packet tells where the peer is.
        let from = UdpPath { local: sa.path.local, remote: datagram.source };
        let due = sa.path_told.is_none_or(|told| now - told >= Duration::from_secs(1));
        if from != sa.path && number == sa.top && due {
            sa.path_told = Some(now);
            end.reports.push(Report::PathChanged(own, from));
        }
        if !sealed.meta.taken(side) {
            self.count(side, DropReason::InSelectorMismatch);
            return Arrival::Nothing;
        }
        let mut packet = sealed.inner.clone();
        let Some(ecn) = ecn(packet[1] >> 4 & 3, datagram.tos & 3) else {
            self.count(side, DropReason::InEcn);
            return Arrival::Nothing;
        };
        packet[1] = packet[1] & 0xcf | ecn << 4;
        sa.delivered += 1;
        if sa.delivered >= self.soft && !std::mem::replace(&mut sa.soft_told, true) {
            end.reports.push(Report::InboundSoftLimit(own));
        }
        Arrival::Packet(sa.queue, packet)
    }

    /// The tunnels that the fuzzer may choose from.
    pub(super) fn tunnel(number: u8) -> u32 {
        u32::from(number) % TUNNELS + 1
    }
}

/// RFC 6040 figure 4; rows and columns by the value of the field: Not-ECT, ECT(1), ECT(0), CE.
fn ecn(inner: u8, outer: u8) -> Option<u8> {
    const FIGURE: [[Option<u8>; 4]; 4] = [
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    FIGURE[usize::from(inner)][usize::from(outer)]
}
