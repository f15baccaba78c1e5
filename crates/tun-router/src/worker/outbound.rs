//! From the TUN device to the wire: SPD, segments, IPComp, ESP, one send.

use super::Report;
use crate::batch::{SendBatch, UdpPath};
use crate::classify::{self, IPV6_HEADER_LEN, ParseError, Parsed, SelectorPair};
use crate::counters::{DropReason, Drops, SaCounters};
use crate::gro::TunSink;
use crate::gso::{GsoError, Segments};
use crate::icmp::{self, IcmpError, RateLimit};
use crate::mss;
use crate::sad::NumberHash;
use crate::size::{NO_CLAMP, Outer};
use crate::spd::{Policy, Spd};
use crate::virtio::Header;
use ferry6_crypto::Spi;
use ferry6_crypto::provider::LANES;
use ferry6_esp::ipcomp::{Compressor, Deflater};
use ferry6_esp::{OutboundSa, Plain, SealError, next_header};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Octets of the send batch: where it is ripe, with the largest super-packet's worth of usual segments behind it.
const BATCH_LEN: usize = 320 * 1024;
/// A SYN longer than this, with data, keeps its MSS.
const SYN_LEN: usize = 2048;

/// What the outbound half needs of the world.
pub trait OutboundIo: TunSink {
    /// Sends all runs of a batch and empties it.
    fn send(&mut self, batch: &mut SendBatch);
    /// A path is another one, or has another size: what was learnt from refused sends may be wrong now.
    fn path_changed(&mut self) {}
    /// Tells the control thread.
    fn report(&mut self, report: Report);
}

/// An outbound SA to install.
pub struct NewOutbound {
    /// Which child.
    pub reqid: u32,
    /// Keys and sequence number.
    pub sa: OutboundSa,
    /// Compression, where it was negotiated.
    pub compressor: Option<Compressor>,
    /// Where to.
    pub path: UdpPath,
    /// Its counters, shared with the control thread.
    pub counters: Arc<SaCounters>,
    /// A report comes at this many packets.
    pub soft_packets: u64,
    /// Or octets.
    pub soft_bytes: u64,
    /// Its sizes, and what its outer headers say.
    pub outer: Outer,
}

/// An SA in place.
struct Installed {
    new: NewOutbound,
    soft_told: bool,
}

/// What compressing needs; made when the first SA with IPComp comes.
struct Compression {
    deflater: Deflater,
    /// A segment before it is compressed.
    plain: Box<[u8]>,
}

impl Compression {
    /// Writes a segment, compressed where that makes it smaller.
    fn write(
        &mut self,
        compressor: &mut Compressor,
        segments: &Segments<'_>,
        index: usize,
        payload: &mut [u8],
    ) -> Plain {
        let len = segments.write(index, &mut self.plain);
        let plain = &self.plain[..len];
        match compressor.compress(&mut self.deflater, plain, next_header::IPV6, &mut payload[..len]) {
            Some(len) => Plain { len, next_header: next_header::IPCOMP },
            None => {
                payload[..len].copy_from_slice(plain);
                Plain { len, next_header: next_header::IPV6 }
            }
        }
    }
}

/// From the control thread.
pub enum OutboundCommand {
    /// Enters a policy, in place of what the reqid had. All workers get it.
    SetPolicy(Policy, Arc<SelectorPair>),
    /// Takes a policy out.
    RemovePolicy(u32),
    /// Gives the policy of a reqid to another worker: its first SA is gone, and this one has another. All workers get it.
    SetOwner(u32, usize),
    /// Installs an SA; the owner gets it. `true`: and switches to it.
    Install(Box<NewOutbound>, bool),
    /// Switches the reqid to the SA with this SPI.
    Use(u32, Spi),
    /// Removes an SA.
    Remove(u32, Spi),
    /// The SAs of a reqid send to another path.
    SetPath(u32, UdpPath),
    /// The path of an SA has another size.
    SetOuter(u32, Spi, Outer),
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Sealed, or dropped and counted.
    Done,
    /// It is another worker's: hand it on.
    HandOff(usize),
}

/// The SAs of one reqid: the one in use, and those that wait.
#[derive(Default)]
struct Child {
    current: Option<Installed>,
    waiting: Vec<Installed>,
}

/// The outbound half of a worker.
pub struct Outbound {
    index: usize,
    spd: Spd,
    children: HashMap<u32, Child, BuildHasherDefault<NumberHash>>,
    batch: SendBatch,
    compression: Option<Compression>,
    /// A SYN before it is sealed, with another MSS.
    syn: Box<[u8; SYN_LEN]>,
    drops: Arc<Drops>,
    icmp_limit: RateLimit,
}

impl Outbound {
    /// Worker number `index`. It writes ICMPv6 errors to the TUN queue of the same number.
    pub fn new(index: usize, drops: Arc<Drops>) -> Self {
        Self {
            index,
            spd: Spd::default(),
            children: HashMap::default(),
            batch: SendBatch::new(BATCH_LEN),
            compression: None,
            syn: Box::new([0; SYN_LEN]),
            drops,
            icmp_limit: RateLimit::new(50, Duration::from_millis(10)),
        }
    }

    /// Sends what waits.
    #[inline]
    pub fn flush(&mut self, io: &mut impl OutboundIo) {
        if !self.batch.is_empty() {
            io.send(&mut self.batch);
        }
    }

    /// Takes a command between two batches.
    pub fn handle_command(&mut self, command: OutboundCommand, io: &mut impl OutboundIo) {
        match command {
            OutboundCommand::SetPolicy(policy, selectors) => self.spd.insert(policy, selectors),
            OutboundCommand::RemovePolicy(reqid) => self.spd.remove(reqid),
            OutboundCommand::SetOwner(reqid, owner) => self.spd.set_owner(reqid, owner),
            OutboundCommand::Install(new, switch) => {
                let (reqid, spi) = (new.reqid, new.sa.spi());
                if new.compressor.is_some() && self.compression.is_none() {
                    self.compression = Some(Compression {
                        deflater: Deflater::new(),
                        plain: vec![0; IPV6_HEADER_LEN + usize::from(u16::MAX)].into_boxed_slice(),
                    });
                }
                let installed = Installed { new: *new, soft_told: false };
                self.children.entry(reqid).or_default().waiting.push(installed);
                if switch {
                    self.switch(reqid, spi, io);
                }
            }
            OutboundCommand::Use(reqid, spi) => self.switch(reqid, spi, io),
            OutboundCommand::Remove(reqid, spi) => {
                // What was sealed for it still goes out.
                self.flush(io);
                if let Some(child) = self.children.get_mut(&reqid) {
                    child.waiting.retain(|sa| sa.new.sa.spi() != spi);
                    if child.current.as_ref().is_some_and(|sa| sa.new.sa.spi() == spi) {
                        // Where there are more SAs than workers, another one of the reqid is here.
                        child.current = child.waiting.pop();
                    }
                    if child.current.is_none() && child.waiting.is_empty() {
                        self.children.remove(&reqid);
                    }
                }
            }
            OutboundCommand::SetOuter(reqid, spi, outer) => {
                io.path_changed();
                if let Some(child) = self.children.get_mut(&reqid) {
                    let mut all = child.current.iter_mut().chain(&mut child.waiting);
                    if let Some(sa) = all.find(|sa| sa.new.sa.spi() == spi) {
                        sa.new.outer = outer;
                    }
                }
            }
            OutboundCommand::SetPath(reqid, path) => {
                io.path_changed();
                if let Some(child) = self.children.get_mut(&reqid) {
                    child.current.iter_mut().chain(&mut child.waiting).for_each(|sa| sa.new.path = path);
                }
            }
        }
    }

    /// The one switch of a rekey: between two batches, in the owner. The old SA stays until it is removed, unused.
    fn switch(&mut self, reqid: u32, spi: Spi, io: &mut impl OutboundIo) {
        // What the old one sealed leaves before what the new one will, and before anybody hears that it is out of use.
        self.flush(io);
        let Some(child) = self.children.get_mut(&reqid) else { return };
        if let Some(at) = child.waiting.iter().position(|sa| sa.new.sa.spi() == spi) {
            let new = child.waiting.swap_remove(at);
            if let Some(old) = child.current.replace(new) {
                child.waiting.push(old);
            }
        }
        if child.current.as_ref().is_some_and(|sa| sa.new.sa.spi() == spi) {
            io.report(Report::OutboundInUse { reqid, spi });
        }
    }

    /// Takes a packet or super-packet from the TUN device: one policy decision for all its segments.
    #[inline]
    pub fn handle_tun(
        &mut self,
        now: Instant,
        header: &Header,
        packet: &[u8],
        io: &mut impl OutboundIo,
    ) -> Verdict {
        let parsed = match classify::parse(packet) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.drops.count(match error {
                    ParseError::NotIpv6 => DropReason::OutNotIpv6,
                    ParseError::Malformed => DropReason::OutMalformed,
                });
                return Verdict::Done;
            }
        };
        let packet = &packet[..parsed.len];
        let Some(policy) = self.spd.lookup(&parsed.flow) else {
            self.discard(now, packet, &parsed, io);
            return Verdict::Done;
        };
        // With several SAs for one reqid each worker has its own, and seals what the kernel gives it; without, it is the owner's.
        let Some(sa) = self.children.get_mut(&policy.reqid).and_then(|child| child.current.as_mut()) else {
            if policy.owner != self.index {
                return Verdict::HandOff(policy.owner);
            }
            self.drops.count(DropReason::OutNoSa);
            self.answer(now, IcmpError::NoRoute, packet, &parsed, io);
            return Verdict::Done;
        };
        let original = packet;
        let packet =
            if sa.new.outer.mss != NO_CLAMP && packet.len() <= SYN_LEN && mss::is_syn(packet, &parsed) {
                let copy = &mut self.syn[..packet.len()];
                copy.copy_from_slice(packet);
                mss::clamp(copy, sa.new.outer.mss, !header.needs_csum);
                &*copy
            } else {
                packet
            };
        let segments = match Segments::new(header, packet) {
            Ok(segments) => segments,
            Err(GsoError::Malformed | GsoError::Unsupported) => {
                self.drops.count(DropReason::OutMalformed);
                return Verdict::Done;
            }
        };
        if segments.max_len() > sa.new.outer.mtu && segments.max_len() > icmp::MIN_MTU {
            // At 1280 and below the outer packet is fragmented instead (RFC 4213 section 3.2.1, RFC 2473 section 7.1).
            sa.new.counters.drops.count(DropReason::OutTooBig);
            let mtu = sa.new.outer.mtu as u32;
            self.answer(now, IcmpError::TooBig(mtu), original, &parsed, io);
            return Verdict::Done;
        }
        let tos = sa.new.outer.fields.tos(parsed.traffic_class);
        seal(sa, &segments, tos, &mut self.batch, self.compression.as_mut(), io);
        if self.batch.is_ripe() {
            self.flush(io);
        }
        Verdict::Done
    }

    #[cold]
    fn discard(&mut self, now: Instant, packet: &[u8], parsed: &Parsed, io: &mut impl OutboundIo) {
        let (source, destination) = (parsed.flow.source, parsed.flow.destination);
        // fe80::/10 and ff02::/16 (RFC 4291 section 2.5.6, 2.7).
        let link_scope = |address: u128| address >> 118 == 0x3fa || address >> 112 == 0xff02;
        if link_scope(source) || link_scope(destination) || source == 0 {
            self.drops.count(DropReason::OutLinkScope);
            return;
        }
        self.drops.count(DropReason::OutNoPolicy);
        // Without any policy the tunnel is down, rather than the packet forbidden.
        let error = if self.spd.is_empty() { IcmpError::NoRoute } else { IcmpError::Prohibited };
        self.answer(now, error, packet, parsed, io);
    }

    #[cold]
    fn answer(
        &mut self,
        now: Instant,
        error: IcmpError,
        packet: &[u8],
        parsed: &Parsed,
        io: &mut impl OutboundIo,
    ) {
        if !self.icmp_limit.allow(now) {
            return;
        }
        let mut message = [0; icmp::MAX_LEN];
        if let Some(len) = icmp::write(error, packet, parsed, &mut message) {
            io.write(self.index, &Header::default(), &[IoSlice::new(&message[..len])]);
        }
    }
}

/// Segments straight into the send batch, sealed in place there.
#[inline]
fn seal(
    installed: &mut Installed,
    segments: &Segments<'_>,
    tos: u8,
    batch: &mut SendBatch,
    mut compression: Option<&mut Compression>,
    io: &mut impl OutboundIo,
) {
    let Installed { new: NewOutbound { sa, compressor, path, counters, outer, .. }, .. } = installed;
    let overhead = sa.overhead();
    let fit = outer.fit(sa.sealed_len(segments.max_len()), segments.max_len());
    let (mut packets, mut bytes, mut compressed) = (0, 0, 0);
    let mut index = 0;
    while index < segments.count() {
        if batch.room().len() < overhead.front + segments.len(index) + overhead.back {
            io.send(batch);
        }
        // Several for suites that encrypt side by side; never more than there are sequence numbers.
        let most = sa.batch_len().min(usize::try_from(sa.remaining()).unwrap_or(usize::MAX)).max(1);
        let (mut group, mut count) = ([Plain::default(); LANES], 0);
        let (mut used, mut group_bytes) = (0, 0);
        let room = batch.room();
        while count < most && index < segments.count() {
            let len = segments.len(index);
            let Some(room) = room.get_mut(used..used + overhead.front + len + overhead.back) else { break };
            let payload = &mut room[overhead.front..];
            let plain = match (compressor.as_mut(), compression.as_deref_mut()) {
                (Some(compressor), Some(compression)) => {
                    compression.write(compressor, segments, index, payload)
                }
                _ => Plain { len: segments.write(index, payload), next_header: next_header::IPV6 },
            };
            group[count] = plain;
            used += sa.sealed_len(plain.len);
            group_bytes += len as u64;
            count += 1;
            index += 1;
        }
        if count == 0 {
            counters.drops.count(DropReason::OutSealFailed);
            index += 1;
            continue;
        }
        match sa.seal_batch(room, &group[..count]) {
            Ok(()) => {
                for plain in &group[..count] {
                    batch.commit(sa.sealed_len(plain.len), *path, tos, fit);
                }
                packets += count as u64;
                bytes += group_bytes;
                let smaller = |plain: &&Plain| plain.next_header == next_header::IPCOMP;
                compressed += group[..count].iter().filter(smaller).count() as u64;
            }
            Err(SealError::Exhausted) => counters.drops.add(DropReason::OutExhausted, count as u64),
            Err(SealError::Room | SealError::Crypto(_)) => {
                counters.drops.add(DropReason::OutSealFailed, count as u64);
            }
        }
    }
    counters.add(packets, bytes);
    if compressed > 0 {
        counters.add_compressed(compressed);
    }
    let new = &installed.new;
    if !installed.soft_told
        && (new.sa.packets() >= new.soft_packets || new.counters.get().1 >= new.soft_bytes)
    {
        installed.soft_told = true;
        io.report(Report::OutboundSoftLimit { reqid: new.reqid, spi: new.sa.spi() });
    }
}
