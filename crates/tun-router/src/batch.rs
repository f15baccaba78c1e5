//! Batches: one contiguous buffer with many packets. They cross system calls and threads; single packets never do.

use crate::size::Fit;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The most octets of UDP payload in one send over IPv4.
pub const MAX_UDP_PAYLOAD: usize = 65_507;
/// The most segments in one GSO send (UDP_MAX_SEGMENTS of `linux/udp.h`; older kernels have 64).
pub const MAX_SEGMENTS: usize = 64;

/// Full GSO sends that one system call should take where there is enough to send. A super-packet of 64 KiB is a little more than one
/// with ESP around its segments: sent by itself it would be a long run and a short one, and the peer's device would get two
/// super-packets for one. Sent with others behind it only the last run is short.
const RIPE: usize = 3;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpPath {
    /// Our address; unspecified: the kernel chooses.
    pub local: Ipv4Addr,
    /// The peer.
    pub remote: SocketAddrV4,
}

/// Datagrams of one path that one system call can send: all of one size, the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First octet in the buffer.
    pub start: usize,
    /// Octets in all.
    pub len: usize,
    /// Octets of each datagram but the last.
    pub segment: usize,
    /// Datagrams.
    pub count: usize,
    /// Where to.
    pub path: UdpPath,
    /// The outer TOS octet: DS field and ECN.
    pub tos: u8,
    /// How it meets the path.
    pub fit: Fit,
}

/// Sealed packets on their way to the socket.
///
/// Reserve, write, commit: [`Self::room`] lends the space behind the last packet, [`Self::commit`] makes a packet of
/// it; what isn't committed was never there.
#[derive(Debug)]
pub struct SendBatch {
    buffer: Box<[u8]>,
    used: usize,
    runs: Vec<Run>,
    packets: usize,
    max_segments: usize,
}

impl SendBatch {
    /// A batch of so many octets.
    pub fn new(capacity: usize) -> Self {
        Self {
            buffer: vec![0; capacity].into_boxed_slice(),
            used: 0,
            // As many as there are packets when it is ripe, and a super-packet's on top.
            runs: Vec::with_capacity(4 * RIPE * MAX_SEGMENTS),
            packets: 0,
            max_segments: MAX_SEGMENTS,
        }
    }

    /// The free space.
    #[inline]
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.used..]
    }

    /// Takes the first `len` octets of [`Self::room`] as a datagram.
    #[inline]
    pub fn commit(&mut self, len: usize, path: UdpPath, tos: u8, fit: Fit) {
        debug_assert!(len > 0 && len <= self.buffer.len() - self.used);
        let start = self.used;
        self.used += len;
        self.packets += 1;
        if let Some(run) = self.runs.last_mut() {
            // A shorter datagram ends its run: `len` is no multiple of `segment` then.
            let open = run.len == run.count * run.segment;
            if open
                && len <= run.segment
                && run.count < self.max_segments
                && run.len + len <= MAX_UDP_PAYLOAD
                && run.tos == tos
                && run.fit == fit
                && fit != Fit::Fragments
                && run.path == path
            {
                run.len += len;
                run.count += 1;
                return;
            }
        }
        self.runs.push(Run { start, len, segment: len, count: 1, path, tos, fit });
    }

    /// Whether it is time to send: enough for some full GSO sends.
    #[inline]
    pub fn is_ripe(&self) -> bool {
        self.used >= RIPE * MAX_UDP_PAYLOAD || self.packets >= 2 * RIPE * MAX_SEGMENTS
    }

    /// Datagrams in it.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Whether there is nothing to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// The octets, and how to send them.
    pub fn runs(&self) -> (&[u8], &[Run]) {
        (&self.buffer[..self.used], &self.runs)
    }

    /// Empties it.
    #[inline]
    pub fn clear(&mut self) {
        self.used = 0;
        self.packets = 0;
        self.runs.clear();
    }
}

/// What is known of a received datagram, or of several in a row that GRO put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// First octet in the buffer.
    pub start: usize,
    /// Octets in all.
    pub len: usize,
    /// Octets of each datagram but the last, which may be shorter; at least 1.
    pub segment: usize,
    /// From whom.
    pub source: SocketAddrV4,
    /// To which address of ours.
    pub local: Ipv4Addr,
    /// The outer TOS octet.
    pub tos: u8,
}

/// Datagrams or super-packets handed from one worker to another.
#[derive(Debug)]
pub struct Handoff {
    /// The octets.
    pub buffer: Vec<u8>,
    /// What is in there; for super-packets only `start` and `len` count, and the virtio-net header stands in front.
    pub items: Vec<Received>,
}

impl Handoff {
    /// More octets or items than this make a batch full.
    pub const CAPACITY: usize = 128 * 1024;
    /// See [`Self::CAPACITY`].
    pub const MAX_ITEMS: usize = 256;

    /// An empty batch, with its memory.
    pub fn new() -> Self {
        Self { buffer: Vec::with_capacity(Self::CAPACITY), items: Vec::with_capacity(Self::MAX_ITEMS) }
    }

    /// Adds a datagram made of parts; of `meta`, only where it came from counts. `false`: full.
    pub fn push(&mut self, parts: &[&[u8]], meta: Received) -> bool {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.items.len() == Self::MAX_ITEMS || self.buffer.len() + len > Self::CAPACITY {
            return false;
        }
        let start = self.buffer.len();
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        self.items.push(Received { start, len, segment: len.max(1), ..meta });
        true
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.items.clear();
    }
}

impl Default for Handoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(port: u16) -> UdpPath {
        UdpPath { local: Ipv4Addr::UNSPECIFIED, remote: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port) }
    }

    proptest! {
        /// Cutting the runs again gives the datagrams that went in, in order, each with its path and TOS.
        #[test]
        fn runs_cut_to_the_same_datagrams(datagrams in proptest::collection::vec((prop::sample::select(vec![1_usize, 100, 1400, 1436]), 0_u16..2, 0_u8..2), 0..300)) {
            let mut batch = SendBatch::new(1 << 20);
            for (i, (len, port, tos)) in datagrams.iter().enumerate() {
                batch.room()[..*len].fill(i as u8);
                let fit = if *tos == 1 { Fit::Never } else { Fit::Whole };
                batch.commit(*len, path(*port), *tos, fit);
            }
            prop_assert_eq!(batch.packets(), datagrams.len());
            let (buffer, runs) = batch.runs();
            let mut cut = Vec::new();
            for run in runs {
                prop_assert!(run.len <= MAX_UDP_PAYLOAD && run.count <= MAX_SEGMENTS);
                let pieces: Vec<_> = buffer[run.start..run.start + run.len].chunks(run.segment).collect();
                prop_assert_eq!(pieces.len(), run.count);
                cut.extend(pieces.into_iter().map(|p| (p.to_vec(), run.path, run.tos)));
            }
            let expected: Vec<_> = datagrams.iter().enumerate().map(|(i, (len, port, tos))| (vec![i as u8; *len], path(*port), *tos)).collect();
            prop_assert_eq!(cut, expected);
        }
    }

    #[test]
    fn equal_sizes_share_a_run_and_uncommitted_octets_vanish() {
        let mut batch = SendBatch::new(1 << 20);
        for len in [1400, 1400, 1400, 700, 1400] {
            batch.room()[0] = 1;
            batch.commit(len, path(1), 0, Fit::Whole);
        }
        batch.room()[..100].fill(9);
        let (buffer, runs) = batch.runs();
        assert_eq!(runs.iter().map(|r| (r.segment, r.count)).collect::<Vec<_>>(), [(1400, 4), (1400, 1)]);
        assert_eq!(buffer.len(), 4 * 1400 + 700);
        batch.clear();
        assert!(batch.is_empty() && batch.runs().1.is_empty());
        // What is fragmented goes alone: GSO does not fragment.
        for _ in 0..3 {
            batch.commit(1400, path(1), 0, Fit::Fragments);
        }
        assert_eq!(batch.runs().1.iter().map(|r| r.count).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn handoff_is_bounded() {
        let meta = Received {
            start: 0,
            len: 0,
            segment: 1,
            source: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
            local: Ipv4Addr::LOCALHOST,
            tos: 0,
        };
        let mut handoff = Handoff::new();
        let mut pushed = 0;
        while handoff.push(&[&[1; 10], &[2; 990]], meta) {
            pushed += 1;
        }
        assert_eq!(pushed, Handoff::CAPACITY / 1000);
        assert_eq!(handoff.items[1].start, 1000);
        handoff.clear();
        for _ in 0..Handoff::MAX_ITEMS {
            assert!(handoff.push(&[&[1]], meta));
        }
        assert!(!handoff.push(&[&[1]], meta));
    }
}
