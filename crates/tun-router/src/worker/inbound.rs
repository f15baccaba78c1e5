//! From the wire to the TUN device: SAD, replay and ICV, IPComp, selectors, coalescing, one write.

use super::Report;
use crate::batch::{Received, UdpPath};
use crate::classify::{self, IPV6_HEADER_LEN, ParseError, SelectorPair};
use crate::counters::{DropReason, Drops, SaCounters};
use crate::gro::{Buffers, Coalescer, Place, TunSink};
use crate::mss;
use crate::sad::{self, Sad};
use crate::size::NO_CLAMP;
use ferry6_crypto::Spi;
use ferry6_esp::encap::{self, Datagram};
use ferry6_esp::ipcomp::{Decompressor, Inflater, IpcompError};
use ferry6_esp::replay::ReplayError;
use ferry6_esp::{InboundSa, OpenError, Opened, next_header};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bound of an inflated packet: an IPv6 header and its longest payload.
const MAX_INNER: usize = IPV6_HEADER_LEN + 65_535;
/// Inflated packets that wait to be written.
const INFLATED_LEN: usize = 4 * MAX_INNER;
/// A changed path is told at most this often per SA.
const PATH_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What the inbound half needs of the world.
pub trait InboundIo: TunSink {
    /// An IKE message, its marker taken off, came to a worker's socket.
    fn ike(&mut self, message: &[u8], meta: &Received);
    /// An ESP packet whose SPI is another worker's.
    fn hand_off(&mut self, owner: usize, packet: &[u8], meta: &Received);
    /// Tells the control thread.
    fn report(&mut self, report: Report);
}

/// An inbound SA to install.
pub struct NewInbound {
    /// Keys and replay window.
    pub sa: InboundSa,
    /// Decompression, where it was negotiated.
    pub decompressor: Option<Decompressor>,
    /// What may come in.
    pub selectors: Arc<SelectorPair>,
    /// Where the peer is, as far as known.
    pub path: UdpPath,
    /// The TUN queue that its packets are written to: that of the worker which owns the outbound half, so that the kernel
    /// gives the answers to the same queue.
    pub queue: usize,
    /// Its counters, shared with the control thread.
    pub counters: Arc<SaCounters>,
    /// A report comes at this many packets.
    pub soft_packets: u64,
    /// Or octets.
    pub soft_bytes: u64,
    /// The largest MSS in a TCP SYN; [`NO_CLAMP`]: any.
    pub mss: u16,
}

/// From the control thread.
pub enum InboundCommand {
    /// Installs an SA.
    Install(Box<NewInbound>),
    /// Removes one.
    Remove(Spi),
    /// The peer of an SA is somewhere else now.
    SetPath(Spi, UdpPath),
    /// The largest MSS in a TCP SYN that comes in on an SA.
    SetMss(Spi, u16),
}

struct Installed {
    new: NewInbound,
    used: bool,
    soft_told: bool,
    path_told: Option<Instant>,
}

/// The inbound half of a worker.
pub struct Inbound {
    index: usize,
    workers: usize,
    sad: Sad<Installed>,
    coalescer: Coalescer,
    inflater: Option<Inflater>,
    inflated: Box<[u8]>,
    inflated_used: usize,
    drops: Arc<Drops>,
}

impl Inbound {
    /// Worker number `index` of `workers`. `segmentation` and `udp_segmentation`: the device takes such super-packets.
    pub fn new(
        index: usize,
        workers: usize,
        segmentation: bool,
        udp_segmentation: bool,
        drops: Arc<Drops>,
    ) -> Self {
        Self {
            index,
            workers,
            sad: Sad::default(),
            coalescer: Coalescer::new(segmentation, udp_segmentation),
            inflater: None,
            inflated: Box::default(),
            inflated_used: 0,
            drops,
        }
    }

    /// Takes a command between two batches.
    pub fn handle_command(&mut self, command: InboundCommand) {
        match command {
            InboundCommand::Install(new) => {
                if new.decompressor.is_some() && self.inflater.is_none() {
                    self.inflater = Some(Inflater::new());
                    self.inflated = vec![0; INFLATED_LEN].into_boxed_slice();
                }
                let installed = Installed { new: *new, used: false, soft_told: false, path_told: None };
                self.sad.insert(installed.new.sa.spi(), Box::new(installed));
            }
            InboundCommand::Remove(spi) => {
                self.sad.remove(spi);
            }
            InboundCommand::SetMss(spi, mss) => {
                if let Some(sa) = self.sad.get_mut(spi) {
                    sa.new.mss = mss;
                }
            }
            InboundCommand::SetPath(spi, path) => {
                if let Some(sa) = self.sad.get_mut(spi) {
                    sa.new.path = path;
                }
            }
        }
    }

    /// Takes a batch of received datagrams, which are opened in place, and writes what was in them.
    pub fn handle_udp(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        received: &[Received],
        io: &mut impl InboundIo,
    ) {
        for meta in received {
            let end = meta.start + meta.len;
            let mut start = meta.start;
            if start == end {
                self.drops.count(DropReason::InMalformedDatagram);
            }
            // GRO bundles datagrams of one sender whatever they are: cut first, classify then.
            while start < end {
                let len = meta.segment.min(end - start);
                self.handle_datagram(now, buffer, start, len, meta, io);
                start += len;
            }
        }
        self.flush(buffer, io);
    }

    fn flush(&mut self, received: &mut [u8], io: &mut impl InboundIo) {
        if !self.coalescer.is_empty() {
            let mut buffers = Buffers { received, inflated: &mut self.inflated };
            self.coalescer.flush(&mut buffers, io);
        }
        self.inflated_used = 0;
    }

    #[inline]
    fn handle_datagram(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        start: usize,
        len: usize,
        meta: &Received,
        io: &mut impl InboundIo,
    ) {
        let datagram = &mut buffer[start..start + len];
        let spi = match encap::classify(datagram) {
            Datagram::Esp(spi) => spi,
            Datagram::Ike(message) => return io.ike(message, meta),
            Datagram::Keepalive => return,
            Datagram::Malformed => return self.drops.count(DropReason::InMalformedDatagram),
        };
        let Some(installed) = self.sad.get_mut(spi) else {
            let owner = sad::owner(spi, self.workers);
            if owner == self.index {
                self.drops.count(DropReason::InUnknownSpi);
            } else {
                io.hand_off(owner, datagram, meta);
            }
            return;
        };
        let base = datagram.as_ptr() as usize;
        let new = &mut installed.new;
        let drops = &new.counters.drops;
        let (payload_at, payload_len, mut next, sequence) = match new.sa.open(datagram) {
            Ok(Opened { payload, next_header, sequence }) => {
                (payload.as_ptr() as usize - base, payload.len(), next_header, sequence)
            }
            Err(error) => return drops.count(open_reason(error)),
        };
        // Authenticated from here on.
        if !std::mem::replace(&mut installed.used, true) {
            io.report(Report::FirstUse(spi));
        }
        // Only the newest packet tells where the peer is: what was late, or held back by somebody, does not.
        if (meta.source != new.path.remote || meta.local != new.path.local) && new.sa.is_newest(sequence) {
            installed.notice_path(now, spi, meta, io);
        }
        let new = &mut installed.new;
        let drops = &new.counters.drops;
        let (mut place, mut at, mut inner_len) = (Place::Received, start + payload_at, payload_len);
        if next == next_header::IPCOMP {
            let (Some(decompressor), Some(inflater)) = (&mut new.decompressor, &mut self.inflater) else {
                return drops.count(DropReason::InIpcompCpi);
            };
            if self.inflated.len() - self.inflated_used < MAX_INNER {
                let mut buffers = Buffers { received: buffer, inflated: &mut self.inflated };
                self.coalescer.flush(&mut buffers, io);
                self.inflated_used = 0;
            }
            let payload = &buffer[at..at + inner_len];
            let out = &mut self.inflated[self.inflated_used..][..MAX_INNER];
            match decompressor.decompress(inflater, payload, out) {
                Ok((inner, len)) => {
                    (place, at, inner_len, next) = (Place::Inflated, self.inflated_used, len, inner);
                }
                Err(error) => return drops.count(ipcomp_reason(error)),
            }
        }
        match next {
            next_header::IPV6 => {}
            next_header::DUMMY => return new.counters.add(1, 0),
            _ => return drops.count(DropReason::InNotIpv6),
        }
        let packet = match place {
            Place::Received => &mut buffer[at..at + inner_len],
            Place::Inflated => &mut self.inflated[at..at + inner_len],
        };
        let parsed = match classify::parse(packet) {
            Ok(parsed) => parsed,
            Err(ParseError::NotIpv6) => return drops.count(DropReason::InNotIpv6),
            Err(ParseError::Malformed) => return drops.count(DropReason::InMalformedInner),
        };
        if !new.selectors.matches_inbound(&parsed.flow) {
            return drops.count(DropReason::InSelectorMismatch);
        }
        match decapsulated_ecn(parsed.traffic_class & 0b11, meta.tos & 0b11) {
            Some(ecn) => packet[1] = packet[1] & !(0b11 << 4) | ecn << 4,
            None => return drops.count(DropReason::InEcn),
        }
        if new.mss != NO_CLAMP && mss::is_syn(packet, &parsed) {
            mss::clamp(&mut packet[..parsed.len], new.mss, true);
        }
        new.counters.add(1, parsed.len as u64);
        if place == Place::Inflated {
            new.counters.add_compressed(1);
            self.inflated_used = at + inner_len;
        }
        let (queue, soft) = (new.queue, !installed.soft_told && soft_limit(new));
        if soft {
            installed.soft_told = true;
            io.report(Report::InboundSoftLimit(spi));
        }
        let buffers = Buffers { received: buffer, inflated: &mut self.inflated };
        self.coalescer.push(&buffers, place, at, &parsed, queue);
    }
}

/// The inner ECN field after decapsulation (RFC 6040 section 4.2, figure 4); `None`: drop.
#[inline]
fn decapsulated_ecn(inner: u8, outer: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0b00;
    const ECT_1: u8 = 0b01;
    const ECT_0: u8 = 0b10;
    const CE: u8 = 0b11;
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        _ => Some(inner),
    }
}

#[inline]
fn soft_limit(new: &NewInbound) -> bool {
    let (packets, bytes) = new.counters.get();
    packets >= new.soft_packets || bytes >= new.soft_bytes
}

impl Installed {
    /// The peer's NAT gave it another address or port (RFC 7296 section 2.23), or it sends to another address of ours.
    #[cold]
    fn notice_path(&mut self, now: Instant, spi: Spi, meta: &Received, io: &mut impl InboundIo) {
        let path = &mut self.new.path;
        if path.local.is_unspecified() && meta.source == path.remote {
            path.local = meta.local;
            return;
        }
        let due =
            self.path_told.is_none_or(|told| now.saturating_duration_since(told) >= PATH_REPORT_INTERVAL);
        if due {
            self.path_told = Some(now);
            io.report(Report::PathChanged(spi, UdpPath { local: meta.local, remote: meta.source }));
        }
    }
}

fn open_reason(error: OpenError) -> DropReason {
    match error {
        OpenError::Malformed => DropReason::InMalformedEsp,
        OpenError::Spi => DropReason::InUnknownSpi,
        OpenError::Replay(ReplayError::Duplicate) => DropReason::InReplayDuplicate,
        OpenError::Replay(ReplayError::TooOld) => DropReason::InReplayTooOld,
        OpenError::Replay(ReplayError::Zero) => DropReason::InReplayZero,
        OpenError::Integrity => DropReason::InIntegrity,
        OpenError::Padding => DropReason::InPadding,
    }
}

fn ipcomp_reason(error: IpcompError) -> DropReason {
    match error {
        IpcompError::Cpi => DropReason::InIpcompCpi,
        IpcompError::Truncated | IpcompError::Damaged | IpcompError::Trailing => DropReason::InIpcompDamaged,
        IpcompError::TooLarge => DropReason::InIpcompTooLarge,
    }
}

#[cfg(test)]
mod tests {
    use super::decapsulated_ecn;

    /// RFC 6040 figure 4, row by row: inner Not-ECT, ECT(0), ECT(1), CE; columns: outer Not-ECT, ECT(0), ECT(1), CE.
    #[test]
    fn ecn_by_figure_4() {
        let codepoints = [0b00, 0b10, 0b01, 0b11];
        let figure = [
            [Some(0b00), Some(0b00), Some(0b00), None],
            [Some(0b10), Some(0b10), Some(0b01), Some(0b11)],
            [Some(0b01), Some(0b01), Some(0b01), Some(0b11)],
            [Some(0b11), Some(0b11), Some(0b11), Some(0b11)],
        ];
        for (inner, row) in codepoints.into_iter().zip(figure) {
            for (outer, expected) in codepoints.into_iter().zip(row) {
                assert_eq!(decapsulated_ecn(inner, outer), expected, "inner {inner:02b} outer {outer:02b}");
            }
        }
    }
}
