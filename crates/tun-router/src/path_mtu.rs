//! The MTU of the path to a peer: what the kernel knows (its interface, and ICMP "fragmentation needed" that came back), checked
//! by probes that no router on the way can keep silent about: an IKE message of that size with DF, which the peer answers
//! (in the manner of RFC 8899). The search is pure, the rest of the control thread's part stands below it.

use crate::control::{Child, Control};
use crate::router::RouterEvent;
use crate::sad;
use crate::size::{DfPolicy, MIN_PATH, OUTER_HEADERS, Outer, USUAL_PATH};
use crate::sys::udp as sys;
use crate::threads::{InboundMessage, OutboundMessage};
use crate::worker::{InboundCommand, OutboundCommand};
use ferry6_esp::encap::NON_ESP_MARKER;
use ferry6_ike::config::Now;
use ferry6_ike::event::IkeSaId;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::{Duration, Instant};

/// After this long the path is looked at anew: it may have become larger (RFC 1191 section 6.3, RFC 8201 section 4), or smaller
/// without a word.
const RAISE: Duration = Duration::from_secs(600);
/// From a new path to its first probe.
const FIRST: Duration = Duration::from_millis(300);
/// An answer that is not there by now does not come: the IKE SA went on without it.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many peers are looked at in a second.
const LOOKS: usize = 32;

/// Sizes that paths have: Ethernet, PPPoE, tunnels over these and over each other, mobile networks, the IPv6 minimum. Between two of
/// them no path is expected; the lower one is taken.
const USUAL: [usize; 24] = [
    MIN_PATH, 800, 1006, 1100, 1200, 1240, 1280, 1300, 1316, 1340, 1358, 1380, 1400, 1412, 1420, 1430, 1440,
    1450, 1454, 1460, 1472, 1480, 1492, 1500,
];

/// How the size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// By the kernel alone: its interface, or ICMP.
    Told,
    /// A message of that size was answered.
    Proven,
}

impl Known {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Proven => "proven",
        }
    }
}

/// The search for the size of one path.
#[derive(Clone, Debug)]
pub(crate) struct PathMtu {
    /// What the kernel takes it for; never probed beyond.
    limit: usize,
    /// What is used.
    size: usize,
    known: Known,
    /// The largest size that was asked for and got through in this search, and the smallest that did not.
    low: usize,
    high: usize,
    /// What of `low` is proven.
    proven: usize,
    /// The size that got through in the search before.
    before: Option<usize>,
    probing: Option<(usize, Instant)>,
    /// What becomes of the one on its way does not matter any more.
    stale: bool,
    /// When the next probe is due.
    next: Instant,
}

impl PathMtu {
    /// A path of which the kernel says `limit`.
    pub(crate) fn new(now: Instant, limit: usize) -> Self {
        let limit = limit.clamp(MIN_PATH, USUAL_PATH);
        Self {
            limit,
            size: limit,
            known: Known::Told,
            low: 0,
            high: usize::MAX,
            proven: 0,
            before: None,
            probing: None,
            stale: false,
            next: now + FIRST,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn known(&self) -> Known {
        self.known
    }

    /// The kernel's word, now and then. It is taken at once, and a search begins anew.
    pub(crate) fn told(&mut self, now: Instant, limit: usize) {
        let limit = limit.clamp(MIN_PATH, USUAL_PATH);
        if limit == self.limit {
            return;
        }
        // That ICMP is out of date says nothing yet; that it is there says all.
        if limit < self.size {
            (self.size, self.known) = (limit, Known::Told);
        }
        self.limit = limit;
        self.restart();
        self.next = now;
    }

    fn restart(&mut self) {
        (self.low, self.high, self.proven) = (0, usize::MAX, 0);
        self.stale = self.probing.is_some();
        self.before = (self.known == Known::Proven).then_some(self.size);
    }

    /// The size to ask for now, if any.
    pub(crate) fn due(&mut self, now: Instant) -> Option<usize> {
        if let Some((_, since)) = self.probing
            && now.saturating_duration_since(since) >= PATIENCE
        {
            (self.probing, self.stale) = (None, false);
            self.next = now;
        }
        if self.probing.is_some() || now < self.next {
            return None;
        }
        match self.candidate() {
            Some(size) => {
                self.probing = Some((size, now));
                Some(size)
            }
            None => {
                // The round is over, and this begins the next one.
                self.restart();
                self.probing = Some((self.limit, now));
                Some(self.limit)
            }
        }
    }

    /// What to ask for next: the limit first, then what it was before, then the middle of what is left. `None`: it is found.
    fn candidate(&self) -> Option<usize> {
        if self.high == usize::MAX {
            return (self.low == 0).then_some(self.limit);
        }
        if let Some(before) = self.before.filter(|before| self.low < *before && *before < self.high) {
            return Some(before);
        }
        let left = USUAL.map(|size| (self.low.max(MIN_PATH) < size && size < self.high).then_some(size));
        let left: Vec<usize> = left.into_iter().flatten().collect();
        left.get(left.len() / 2).copied()
    }

    /// What became of the probe under way; `got`: the size that got through, perhaps a little less than what was asked for.
    pub(crate) fn answered(&mut self, now: Instant, got: Option<usize>) {
        let Some((asked, _)) = self.probing.take() else { return };
        if std::mem::take(&mut self.stale) {
            self.next = now;
            return;
        }
        match got {
            // Block ciphers make no message of just any size; what the kernel says is not belied by the octets between.
            Some(got) => {
                self.low = asked;
                self.proven = if asked == self.limit { asked } else { got };
            }
            None => self.high = asked,
        }
        self.next = now;
        if self.before.is_some_and(|before| before >= self.high) {
            self.before = None;
        }
        if self.low == self.limit || self.candidate().is_none() {
            self.size = self.proven.max(MIN_PATH);
            self.known = Known::Proven;
            self.next = now + RAISE;
        }
    }

    /// The IKE SA is not there to be asked: the kernel's word stands.
    pub(crate) fn cannot_ask(&mut self, now: Instant) {
        self.probing = None;
        self.restart();
        self.next = now + RAISE;
    }

    /// Until the search ends: what may be sent with DF.
    fn cautious(&self) -> usize {
        if self.high == usize::MAX { self.size } else { self.proven.max(MIN_PATH).min(self.size) }
    }
}

/// Asks the kernel what it takes a path for.
pub(crate) fn kernel_mtu(listen: std::net::Ipv4Addr, remote: SocketAddrV4) -> io::Result<usize> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(listen, 0)))?;
    socket.connect(&SockAddr::from(remote))?;
    let mtu = sys::get_int(&socket, libc::IPPROTO_IP, libc::IP_MTU)?;
    Ok(usize::try_from(mtu).unwrap_or(MIN_PATH))
}

impl Control {
    fn observes(&self) -> bool {
        self.parts.config.sizes.df != DfPolicy::Clear
    }

    fn kernel_mtu(&self, remote: SocketAddrV4) -> usize {
        // Without a route there is nothing to be too large for.
        kernel_mtu(self.parts.config.listen, remote).unwrap_or(USUAL_PATH)
    }

    /// How an SA of this suite meets the path to the peer of `ike`, which is `remote`.
    pub(crate) fn outer(
        &mut self,
        ike: IkeSaId,
        remote: SocketAddrV4,
        suite: ferry6_crypto::CipherSuite,
    ) -> Outer {
        let policy = self.parts.config.sizes;
        if !self.observes() {
            return Outer::new(&policy, suite, USUAL_PATH);
        }
        if !self.paths.contains_key(&ike) {
            self.observe(ike, remote);
        }
        Outer::new(&policy, suite, self.path_size(ike))
    }

    /// What is used of the path to a peer.
    fn path_size(&self, ike: IkeSaId) -> usize {
        let Some(path) = self.paths.get(&ike) else { return USUAL_PATH };
        if self.parts.config.sizes.df == DfPolicy::Set { path.cautious() } else { path.size() }
    }

    /// The IKE SA has another path: nothing is known of it but what the kernel says.
    pub(crate) fn path_moved(&mut self, ike: IkeSaId, remote: SocketAddrV4) {
        if self.paths.contains_key(&ike) {
            self.observe(ike, remote);
            self.apply_size(ike);
        }
    }

    /// A path of which nothing is known but what the kernel says.
    fn observe(&mut self, ike: IkeSaId, remote: SocketAddrV4) {
        let now = Instant::now();
        self.paths.insert(ike, PathMtu::new(now, self.kernel_mtu(remote)));
        self.next_look = self.next_look.min(now + FIRST);
    }

    /// Once a second: what the kernel says of some paths, and the probes that are due.
    pub(crate) fn look_at_paths(&mut self, now: Now) {
        // In turns: behind the last one that was looked at, and then from the first one on.
        let behind = self.paths.range((Excluded(self.looked_at), Unbounded));
        let turns = behind.chain(self.paths.range(..=self.looked_at)).take(LOOKS);
        let turns: Vec<IkeSaId> = turns.map(|(ike, _)| *ike).collect();
        for ike in turns {
            self.looked_at = ike;
            let Some(SocketAddr::V4(remote)) = self.endpoint.remote_of(ike) else { continue };
            let limit = self.kernel_mtu(remote);
            let Some(path) = self.paths.get_mut(&ike) else { continue };
            path.told(now.monotonic, limit);
            if let Some(size) = path.due(now.monotonic) {
                let message = size - OUTER_HEADERS - NON_ESP_MARKER.len();
                if self.endpoint.probe_path_size(now, ike, message).is_err()
                    && let Some(path) = self.paths.get_mut(&ike)
                {
                    path.cannot_ask(now.monotonic);
                }
            }
            self.apply_size(ike);
        }
    }

    /// A probe was answered, or was not.
    pub(crate) fn path_probed(&mut self, ike: IkeSaId, message: Option<usize>) {
        let now = Instant::now();
        let Some(path) = self.paths.get_mut(&ike) else { return };
        let size = message.map(|len| len + OUTER_HEADERS + NON_ESP_MARKER.len());
        path.answered(now, size);
        if path.due_soon(now) {
            self.next_look = self.next_look.min(now);
        }
        self.apply_size(ike);
    }

    /// The SAs of a peer get the size that is known now, where it is another one.
    fn apply_size(&mut self, ike: IkeSaId) {
        let (policy, size) = (self.parts.config.sizes, self.path_size(ike));
        let mut changed = false;
        for child in self.children.values_mut().filter(|child| child.ike == ike) {
            for pair in child.pairs.iter_mut().filter(|pair| pair.outer.path_mtu != size) {
                pair.outer = Outer::new(&policy, pair.suite, size);
                changed = true;
                let set = OutboundCommand::SetOuter(child.reqid.0, pair.outbound, pair.outer);
                self.parts.outbound[pair.owner].post(OutboundMessage::Command(set));
                let worker = sad::owner(pair.inbound, self.parts.inbound.len());
                let set = InboundCommand::SetMss(pair.inbound, pair.outer.mss);
                self.parts.inbound[worker].post(InboundMessage::Command(set));
            }
        }
        if changed {
            self.tell_mtu(ike);
        }
    }

    /// The program may want to tell the kernel.
    pub(crate) fn tell_mtu(&mut self, ike: IkeSaId) {
        let of_it = self.children.values().filter(|child| child.ike == ike);
        if let Some(mtu) = of_it.filter_map(Child::mtu).min().and_then(|mtu| u16::try_from(mtu).ok()) {
            self.tell(RouterEvent::TunnelMtu { ike, mtu });
        }
    }
}

impl PathMtu {
    fn due_soon(&self, now: Instant) -> bool {
        self.probing.is_none() && self.next <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a search to its end over a path that takes `real`, and of which the kernel says `limit`.
    fn search(path: &mut PathMtu, mut now: Instant, real: usize, step: usize) -> (Instant, usize) {
        let mut probes = 0;
        loop {
            now += Duration::from_secs(1);
            let Some(size) = path.due(now) else { return (now, probes) };
            probes += 1;
            let got = size - size % step;
            path.answered(now + Duration::from_secs(3), Some(got).filter(|got| *got <= real));
            now += Duration::from_secs(3);
        }
    }

    proptest! {
        /// The result is never larger than the path, but for the octets that a block cipher can't ask for, and it is the next
        /// usual size below. It needs few probes.
        #[test]
        fn the_size_is_found(real in MIN_PATH..1600_usize, limit in MIN_PATH..9000_usize, then in MIN_PATH..1600_usize, step in prop::sample::select(vec![1_usize, 16])) {
            let start = Instant::now();
            let mut path = PathMtu::new(start, limit);
            let limit = limit.min(USUAL_PATH);
            let mut now = start;
            for real in [real, then] {
                let (end, probes) = search(&mut path, now, real, step);
                prop_assert!(probes <= 8, "{probes} probes");
                prop_assert!(path.size() < real.min(limit) + step, "{path:?}");
                let usual = USUAL.into_iter().filter(|size| *size <= real && *size <= limit).max().unwrap_or(MIN_PATH);
                prop_assert!(path.size() + step > usual, "{path:?}, {usual}");
                prop_assert_eq!(path.known(), Known::Proven);
                now = end + RAISE;
            }
        }

        /// Whatever comes in whatever order: the size stays within its bounds, and a search goes on or rests.
        #[test]
        fn any_order(events in proptest::collection::vec((0_u8..4, 0_usize..70_000, 0_u64..700), 0..100)) {
            let mut now = Instant::now();
            let mut path = PathMtu::new(now, 1500);
            for (what, size, seconds) in events {
                now += Duration::from_secs(seconds);
                match what {
                    0 => path.told(now, size),
                    1 => drop(path.due(now)),
                    2 => path.answered(now, path.probing.map(|(asked, _)| asked)),
                    _ => path.answered(now, None),
                }
                prop_assert!((MIN_PATH..=USUAL_PATH).contains(&path.size()) && path.cautious() <= path.size());
            }
            now += PATIENCE + RAISE;
            prop_assert!(path.due(now).is_some());
        }
    }

    #[test]
    fn the_kernels_word_is_taken_at_once() {
        let mut now = Instant::now();
        let mut path = PathMtu::new(now, 1500);
        (now, _) = search(&mut path, now, 1500, 1);
        assert_eq!((path.size(), path.known()), (1500, Known::Proven));
        path.told(now, 1372);
        assert_eq!((path.size(), path.known()), (1372, Known::Told));
        (now, _) = search(&mut path, now, 1372, 1);
        assert_eq!((path.size(), path.known()), (1372, Known::Proven));
        // The kernel forgets; the path is as small as before, and in doubt that is what holds.
        path.told(now, 1500);
        assert_eq!(path.size(), 1372);
        // What was asked before ICMP came is not taken for an answer to what is asked since.
        assert_eq!(path.due(now), Some(1500));
        path.told(now, 1400);
        assert_eq!(path.due(now), None);
        path.answered(now, None);
        assert_eq!(path.due(now), Some(1400));
        path.answered(now, None);
        search(&mut path, now, 1372, 1);
        assert_eq!(path.size(), 1372);
    }

    #[test]
    fn the_kernel_knows_loopback() {
        let localhost = std::net::Ipv4Addr::LOCALHOST;
        assert!(kernel_mtu(localhost, SocketAddrV4::new(localhost, 4500)).unwrap() >= 1500);
    }
}
