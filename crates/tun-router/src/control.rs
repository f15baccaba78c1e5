//! The control thread: owns the `ike::Endpoint`, the IKE sockets and the book of Child SAs; tells the workers what to do.

use crate::batch::UdpPath;
use crate::classify::SelectorPair;
use crate::config::RouterConfig;
use crate::counters::{DropReason, Drops, SaCounters};
use crate::lanes::{self, WatchedLanes};
use crate::path_mtu::PathMtu;
use crate::roaming::Activity;
use crate::router::{ChildInfo, ChildKeys, Command, HandleError, RouterEvent};
use crate::sad::{self, SpisInUse};
use crate::size::Outer;
use crate::spd::Policy;
use crate::status::{RouterStatus, Traffic};
use crate::threads::{HandOn, IkeDatagram, InboundMessage, Mailbox, OutboundMessage, ThreadReport};
use crate::udp::{Lanes, Sender, Steering};
use crate::worker::{InboundCommand, NewInbound, NewOutbound, OutboundCommand, Report};
use ferry6_crypto::{CipherSuite, CryptoError, Spi};
use ferry6_esp::encap::{KEEPALIVE, NON_ESP_MARKER};
use ferry6_esp::ipcomp::{Compressor, Decompressor};
use ferry6_esp::{InboundSa, OutboundSa};
use ferry6_ike::config::Now;
use ferry6_ike::event::{Activate, ChildSa, Event, IkeSaId, Path, Reqid, Transmit};
use ferry6_ike::{Endpoint, TrafficSelector};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

/// How often the counters are looked at for signs of life.
const ACTIVITY_INTERVAL: Duration = Duration::from_secs(1);
/// Events that wait for the program; notices beyond this are lost, then what never came up.
const BACKLOG: usize = 1024;
/// How long the program may take to hear of the end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// So many children are compared with a new one, to find which one it takes over from.
const FEW: usize = 64;

/// One pair of ESP SAs of a child; several during a rekey, and where there is one for each worker (RFC 9611).
pub(crate) struct Pair {
    /// Its number; a rekey keeps it, and the owner with it.
    pub(crate) resource: u32,
    /// The worker that owns the outbound half.
    pub(crate) owner: usize,
    pub(crate) inbound: Spi,
    pub(crate) outbound: Spi,
    pub(crate) algorithms: String,
    pub(crate) suite: CipherSuite,
    pub(crate) outer: Outer,
    pub(crate) esn: bool,
    pub(crate) ipcomp: (Option<u16>, Option<u16>),
    pub(crate) counters_in: Arc<SaCounters>,
    pub(crate) counters_out: Arc<SaCounters>,
    pub(crate) installed: Instant,
    /// Whether the outbound half still exists; the inbound half lingers behind it.
    pub(crate) has_outbound: bool,
    /// Inbound packets when last looked at.
    seen_packets: u64,
    forgeries: u64,
}

/// One Child SA across its rekeys.
pub(crate) struct Child {
    pub(crate) ike: IkeSaId,
    pub(crate) reqid: Reqid,
    /// The worker that gets what comes to one without an SA of this child: the owner of the first one.
    owner: usize,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
    selectors: Arc<SelectorPair>,
    path: UdpPath,
    activity: Activity,
    pub(crate) pairs: Vec<Pair>,
    /// Whether its policy is in the SPD. Until then another child carries its traffic.
    policy: bool,
}

/// The account of an IKE SA.
#[derive(Default)]
pub(crate) struct Carried {
    /// Pairs of ESP SAs that still carry.
    pairs: usize,
    /// What those carried that are gone.
    pub(crate) past: Traffic,
    /// Whether the IKE SA is gone: with its last pair the account is closed.
    over: bool,
}

/// What the control thread was started with.
pub(crate) struct Parts {
    pub(crate) config: RouterConfig,
    /// A status with what does not change.
    pub(crate) status: RouterStatus,
    pub(crate) ike: Lanes,
    pub(crate) nat: Lanes,
    pub(crate) steering: Steering,
    pub(crate) outbound: Vec<Mailbox<OutboundMessage>>,
    pub(crate) inbound: Vec<Mailbox<InboundMessage>>,
    pub(crate) hand_on: HandOn<InboundMessage>,
    pub(crate) spis: SpisInUse,
    /// This thread's own drops, first; then those of the workers.
    pub(crate) drops: Vec<Arc<Drops>>,
    pub(crate) events: mpsc::Sender<RouterEvent>,
}

/// What comes in from other threads.
pub(crate) struct Channels {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) reports: mpsc::UnboundedReceiver<ThreadReport>,
    pub(crate) ike: mpsc::Receiver<IkeDatagram>,
}

pub(crate) struct Control {
    pub(crate) endpoint: Endpoint,
    pub(crate) parts: Parts,
    pub(crate) children: HashMap<Reqid, Child>,
    by_inbound: HashMap<Spi, Reqid>,
    /// Inbound halves to be removed.
    lingering: BTreeSet<(Instant, Spi)>,
    /// Outbound SAs per worker, to spread them.
    load: Vec<usize>,
    pub(crate) ike_sender: Sender,
    pub(crate) nat_sender: Sender,
    backlog: VecDeque<RouterEvent>,
    /// What each IKE SA's ESP SAs carried that are gone.
    pub(crate) carried: HashMap<IkeSaId, Carried>,
    /// The same of all.
    pub(crate) past: Traffic,
    /// Notices that the program was too slow for.
    pub(crate) notices_lost: u64,
    next_activity: Instant,
    next_keepalive: Option<Instant>,
    stop_at: Option<Instant>,
    /// The path to the peer of each IKE SA that has a child.
    pub(crate) paths: BTreeMap<IkeSaId, PathMtu>,
    pub(crate) next_look: Instant,
    /// The last one that was looked at.
    pub(crate) looked_at: IkeSaId,
}

pub(crate) fn now() -> Now {
    Now { monotonic: Instant::now(), wall: SystemTime::now() }
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        // The sockets are IPv4 only, so the endpoint has never seen another address.
        SocketAddr::V6(address) => SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, address.port()),
    }
}

fn udp_path(path: &Path) -> UdpPath {
    UdpPath { local: *v4(path.local).ip(), remote: v4(path.remote) }
}

impl Child {
    /// The largest inner packet.
    pub(crate) fn mtu(&self) -> Option<usize> {
        self.pairs.iter().filter(|pair| pair.has_outbound).map(|pair| pair.outer.mtu).min()
    }

    /// Its policy goes to all workers, unless they have it.
    fn enter(&mut self, workers: &[Mailbox<OutboundMessage>]) {
        if std::mem::replace(&mut self.policy, true) {
            return;
        }
        let policy = Policy { reqid: self.reqid.0, owner: self.owner };
        for worker in workers {
            let set = OutboundCommand::SetPolicy(policy, Arc::clone(&self.selectors));
            worker.post(OutboundMessage::Command(set));
        }
    }
}

impl Control {
    pub(crate) fn new(mut endpoint: Endpoint, parts: Parts) -> Self {
        // The kernel may have chosen it; NAT detection is true only with the real one.
        endpoint.set_nat_port(parts.nat.port());
        let drops = &parts.drops[0];
        let start = Instant::now();
        Self {
            endpoint,
            children: HashMap::new(),
            by_inbound: HashMap::new(),
            lingering: BTreeSet::new(),
            load: vec![0; parts.outbound.len()],
            ike_sender: parts.ike.known.sender(Arc::clone(drops)),
            nat_sender: parts.nat.known.sender(Arc::clone(drops)),
            backlog: VecDeque::new(),
            carried: HashMap::new(),
            past: Traffic::default(),
            notices_lost: 0,
            next_activity: start + ACTIVITY_INTERVAL,
            next_keepalive: (!parts.config.keepalive.is_zero()).then(|| start + parts.config.keepalive),
            stop_at: None,
            paths: BTreeMap::new(),
            next_look: start,
            looked_at: IkeSaId(0),
            parts,
        }
    }

    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self, watched: WatchedLanes, mut channels: Channels) {
        let mut lanes = lanes::Lanes::new(&self.parts.ike, &self.parts.nat);
        loop {
            self.drain_endpoint();
            if let Some(stop_at) = self.stop_at
                && (Instant::now() >= stop_at || self.endpoint.is_idle())
            {
                break;
            }
            let rest = lanes.rest(Instant::now());
            let deadline = self.deadline();
            let deadline = rest.map_or(deadline, |rest| rest.min(deadline));
            let deadline = tokio::time::Instant::from_std(deadline);
            let events = self.parts.events.clone();
            tokio::select! {
                port = watched.known() => self.receive_known(&watched, &mut lanes, port),
                port = watched.stranger(), if rest.is_none() => {
                    self.receive_strangers(&watched, &mut lanes, port);
                }
                Some(datagram) = channels.ike.recv() => {
                    let path = Path {
                        local: SocketAddrV4::new(datagram.local, self.parts.nat.port()).into(),
                        remote: datagram.source.into(),
                    };
                    self.endpoint.handle_datagram(now(), path, &datagram.message);
                }
                Some(report) = channels.reports.recv() => self.handle_report(report),
                Some(command) = channels.commands.recv() => self.handle_command(command),
                permit = events.reserve(), if !self.backlog.is_empty() => match (permit, self.backlog.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    // Nobody listens any more.
                    _ => self.backlog.clear(),
                },
                () = tokio::time::sleep_until(deadline) => {}
            }
            self.handle_timers();
        }
        self.last_words().await;
    }

    /// What the program has not heard yet, while it listens and for as long as `LAST_WORDS`.
    async fn last_words(&mut self) {
        self.drain_endpoint();
        for (ike, traffic) in self.traffic() {
            self.tell(RouterEvent::Carried { ike, traffic });
        }
        let until = tokio::time::Instant::now() + LAST_WORDS;
        for event in self.backlog.drain(..) {
            if !matches!(tokio::time::timeout_at(until, self.parts.events.send(event)).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    fn deadline(&self) -> Instant {
        let timers = [
            self.endpoint.poll_timeout(),
            self.lingering.first().map(|(at, _)| *at),
            (!self.children.is_empty()).then_some(self.next_activity),
            (!self.paths.is_empty()).then_some(self.next_look),
            self.next_keepalive.filter(|_| !self.children.is_empty()),
            self.stop_at,
        ];
        // Without any timer an hour is as good as never.
        timers.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    fn handle_timers(&mut self) {
        let now = now();
        if self.endpoint.poll_timeout().is_some_and(|at| at <= now.monotonic) {
            self.endpoint.handle_timeout(now);
        }
        while let Some(&(at, spi)) = self.lingering.first()
            && at <= now.monotonic
        {
            self.lingering.pop_first();
            self.remove_inbound(spi);
        }
        if self.next_activity <= now.monotonic {
            self.next_activity = now.monotonic + ACTIVITY_INTERVAL;
            self.look_for_activity(now);
        }
        if self.next_look <= now.monotonic && !self.paths.is_empty() {
            self.next_look = now.monotonic + ACTIVITY_INTERVAL;
            self.look_at_paths(now);
        }
        if let Some(at) = self.next_keepalive.filter(|at| *at <= now.monotonic) {
            self.next_keepalive = Some(at.max(now.monotonic) + self.parts.config.keepalive);
            self.send_keepalives();
        }
    }

    // --- messages --------------------------------------------------------------------------------------------------

    fn transmit(&mut self, transmit: &Transmit) {
        let path = udp_path(&transmit.path);
        let result = if transmit.path.local.port() == self.parts.nat.port() {
            let mut datagram = Vec::with_capacity(NON_ESP_MARKER.len() + transmit.payload.len());
            datagram.extend_from_slice(&NON_ESP_MARKER);
            datagram.extend_from_slice(&transmit.payload);
            if transmit.dont_fragment {
                self.nat_sender.send_probe(&datagram, &path)
            } else {
                self.nat_sender.send_datagram(&datagram, &path)
            }
        } else {
            self.ike_sender.send_datagram(&transmit.payload, &path)
        };
        if let Err(error) = result {
            self.parts.drops[0].count(crate::udp::reason(&error));
            tracing::debug!("cannot send an IKE message to {}: {error}", path.remote);
        }
    }

    /// NAT keepalives (RFC 3948 section 4), for each IKE SA with which we are behind a NAT. They go out whatever else does:
    /// the mapping then never rests for longer than the interval, at the price of an octet.
    fn send_keepalives(&mut self) {
        for sa in self.endpoint.ike_sas() {
            if sa.nat.0
                && sa.established.is_some()
                && let Err(error) = self.nat_sender.send_datagram(&KEEPALIVE, &udp_path(&sa.path))
            {
                self.parts.drops[0].count(crate::udp::reason(&error));
            }
        }
    }

    // --- the endpoint's events -------------------------------------------------------------------------------------

    pub(crate) fn drain_endpoint(&mut self) {
        while let Some(event) = self.endpoint.poll() {
            match event {
                Event::Transmit(transmit) => self.transmit(&transmit),
                Event::InstallChildSa(child) => self.install(*child),
                Event::UseOutbound { reqid, spi } => {
                    if let Some(child) = self.children.get_mut(&reqid)
                        && let Some(pair) = child.pairs.iter().find(|p| p.outbound == spi && p.has_outbound)
                    {
                        self.parts.outbound[pair.owner]
                            .post(OutboundMessage::Command(OutboundCommand::Use(reqid.0, spi)));
                        child.enter(&self.parts.outbound);
                    }
                }
                Event::RemoveChildSa { reqid, inbound, outbound, linger, last } => {
                    self.remove(reqid, inbound, outbound, linger, last);
                }
                Event::MovePath { ike, path } => self.move_path(ike, &path),
                Event::PathSize { ike, taken } => self.path_probed(ike, taken),
                Event::Established(established) => {
                    self.carried.entry(established.ike).or_default();
                    self.tell(RouterEvent::Established(established));
                }
                Event::ReauthenticateIn { ike, after } => {
                    self.tell(RouterEvent::ReauthenticateIn { ike, after });
                }
                Event::IkeRekeyed { ike } => self.tell(RouterEvent::Notice {
                    warning: false,
                    cause: "rekeyed",
                    text: format!("IKE SA {} rekeyed", ike.0),
                }),
                Event::IkeKeys(keys) => self.tell(RouterEvent::IkeKeys(keys)),
                Event::CheckRevocation(check) => self.tell(RouterEvent::CheckRevocation(check)),
                Event::Closed(closed) => {
                    self.paths.remove(&closed.ike);
                    let ike = closed.ike;
                    self.tell(RouterEvent::Closed(closed));
                    if let Some(account) = self.carried.get_mut(&ike) {
                        account.over = true;
                    }
                    self.close_account(ike);
                }
                Event::Notice { warning, cause, text } => {
                    self.tell(RouterEvent::Notice { warning, cause, text });
                }
            }
        }
    }

    /// Tells what a tunnel carried that is gone with all of its SAs.
    fn close_account(&mut self, ike: IkeSaId) {
        if self.carried.get(&ike).is_some_and(|account| account.over && account.pairs == 0)
            && let Some(account) = self.carried.remove(&ike)
        {
            self.tell(RouterEvent::Carried { ike, traffic: account.past });
        }
    }

    /// What each tunnel has carried so far.
    pub(crate) fn traffic(&self) -> HashMap<IkeSaId, Traffic> {
        let mut all: HashMap<IkeSaId, Traffic> =
            self.carried.iter().map(|(ike, account)| (*ike, account.past)).collect();
        for child in self.children.values() {
            let traffic = all.entry(child.ike).or_default();
            for pair in &child.pairs {
                traffic.add(Traffic::of(&pair.counters_in, &pair.counters_out));
            }
        }
        all
    }

    /// The program may be slow; the control thread never waits for it.
    pub(crate) fn tell(&mut self, event: RouterEvent) {
        let dispensable = match &event {
            RouterEvent::Notice { .. } => true,
            RouterEvent::Closed(closed) => !closed.established && closed.connection.is_none(),
            _ => false,
        };
        if dispensable && self.backlog.len() >= BACKLOG {
            self.notices_lost += 1;
            return;
        }
        self.backlog.push_back(event);
    }

    fn install(&mut self, sa: ChildSa) {
        let (ike, reqid) = (sa.ike, sa.reqid);
        if let Err(error) = self.try_install(sa) {
            // The endpoint negotiated only what the provider has, with keys of the right length.
            self.tell(RouterEvent::Notice {
                warning: true,
                cause: "cryptography",
                text: format!("cannot install the Child SA {} of IKE SA {}: {error}", reqid.0, ike.0),
            });
        }
    }

    fn try_install(&mut self, sa: ChildSa) -> Result<(), CryptoError> {
        let path = udp_path(&sa.path);
        let suite = sa.outbound.keys.suite;
        let outer = self.outer(sa.ike, path.remote, suite);
        let crypto = &self.parts.config.crypto;
        let inbound = InboundSa::new(
            crypto,
            sa.inbound.spi,
            &sa.inbound.keys,
            sa.esn,
            self.parts.config.replay_window,
        )?;
        let outbound = OutboundSa::new(crypto, sa.outbound.spi, &sa.outbound.keys, sa.esn)?;
        let (counters_in, counters_out) = (Arc::<SaCounters>::default(), Arc::<SaCounters>::default());
        let selectors = Arc::new(SelectorPair::new(&sa.local_ts, &sa.remote_ts));
        let known = self.children.get(&sa.reqid).is_some_and(|child| child.policy);
        // A broker's new client has no twin, and need not be compared with all of the others.
        let may_have_twin = sa.activate == Activate::Later || self.children.len() <= FEW;
        let twin = may_have_twin.then_some(&*selectors);
        let (owner, new_place) = self.owner_for(sa.reqid, sa.resource, twin);
        let limit = |wanted: u64, most: u64| if wanted == 0 { most } else { wanted.min(most) };
        let (limits_in, limits_out) = (inbound.limits(), outbound.limits());
        let rekeyed = sa.replaces.is_some();

        self.parts.spis.add(sa.inbound.spi);
        self.parts.steering.admit(sa.inbound.spi);
        // Inbound first: the event that lets the peer use it comes later.
        self.parts.inbound[sad::owner(sa.inbound.spi, self.parts.inbound.len())].post(
            InboundMessage::Command(InboundCommand::Install(Box::new(NewInbound {
                sa: inbound,
                decompressor: sa.inbound.ipcomp_cpi.map(Decompressor::new),
                selectors: Arc::clone(&selectors),
                path,
                queue: owner,
                counters: Arc::clone(&counters_in),
                soft_packets: limit(sa.soft_packets, limits_in.packets),
                soft_bytes: limit(sa.soft_bytes, limits_in.octets),
                mss: outer.mss,
            }))),
        );
        let post = |message| self.parts.outbound[owner].post(message);
        if new_place {
            self.load[owner] += 1;
            post(OutboundMessage::Attach);
        }
        post(OutboundMessage::Command(OutboundCommand::Install(
            Box::new(NewOutbound {
                reqid: sa.reqid.0,
                sa: outbound,
                compressor: sa.outbound.ipcomp_cpi.map(Compressor::new),
                path,
                counters: Arc::clone(&counters_out),
                soft_packets: limit(sa.soft_packets, limits_out.packets),
                soft_bytes: limit(sa.soft_bytes, limits_out.octets),
                outer,
            }),
            sa.activate == Activate::Now,
        )));
        let child = self.children.entry(sa.reqid).or_insert_with(|| Child {
            ike: sa.ike,
            reqid: sa.reqid,
            owner,
            local_ts: Vec::new(),
            remote_ts: Vec::new(),
            selectors: Arc::clone(&selectors),
            path,
            activity: Activity::default(),
            pairs: Vec::new(),
            policy: false,
        });
        if !child.policy {
            child.owner = owner;
        }
        if child.selectors != selectors {
            (child.selectors, child.policy) = (selectors, false);
        }
        // A new child that is to be used later has one beside it, of the same peer, that has the traffic till then.
        if known || sa.activate == Activate::Now {
            child.enter(&self.parts.outbound);
        }
        child.path = path;
        child.local_ts.clone_from(&sa.local_ts);
        child.remote_ts.clone_from(&sa.remote_ts);
        let ike = child.ike;
        child.pairs.push(Pair {
            resource: sa.resource,
            owner,
            inbound: sa.inbound.spi,
            outbound: sa.outbound.spi,
            algorithms: suite.to_string(),
            suite,
            outer,
            esn: sa.esn,
            ipcomp: (sa.inbound.ipcomp_cpi, sa.outbound.ipcomp_cpi),
            counters_in,
            counters_out,
            installed: Instant::now(),
            has_outbound: true,
            seen_packets: 0,
            forgeries: limits_in.forgeries,
        });
        self.by_inbound.insert(sa.inbound.spi, sa.reqid);
        self.carried.entry(ike).or_default().pairs += 1;
        if self.parts.config.keylog {
            self.tell(RouterEvent::ChildKeys(Box::new(ChildKeys {
                ike: sa.ike,
                reqid: sa.reqid,
                esn: sa.esn,
                inbound: (sa.inbound.spi, sa.inbound.keys),
                outbound: (sa.outbound.spi, sa.outbound.keys),
            })));
        }
        self.tell(RouterEvent::ChildInstalled(Box::new(ChildInfo {
            ike: sa.ike,
            reqid: sa.reqid,
            local_ts: sa.local_ts,
            remote_ts: sa.remote_ts,
            rekeyed,
            resource: sa.resource,
        })));
        self.tell_mtu(sa.ike);
        Ok(())
    }

    /// The worker for the outbound half of an SA, and whether that is a new place: it stays across rekeys. Those of one child
    /// go to workers of their own as far as there are any, and where the fewest are. One that takes over from a child of
    /// another IKE SA, with the same selectors, goes where that one is: packets on their way to the owner stay right.
    fn owner_for(&self, reqid: Reqid, resource: u32, twin: Option<&SelectorPair>) -> (usize, bool) {
        let pairs = self.children.get(&reqid).map_or(&[][..], |child| &child.pairs);
        if let Some(pair) = pairs.iter().find(|pair| pair.resource == resource) {
            return (pair.owner, false);
        }
        let twins = self.children.values().filter(|c| twin.is_some_and(|s| *c.selectors == *s));
        if let Some(pair) = twins.flat_map(|c| &c.pairs).find(|p| p.resource == resource && p.has_outbound) {
            return (pair.owner, true);
        }
        let beside = |at: usize| pairs.iter().filter(|pair| pair.owner == at).count();
        let least = self.load.iter().enumerate().min_by_key(|(at, load)| (beside(*at), **load));
        (least.map_or(0, |(at, _)| at), true)
    }

    fn remove(&mut self, reqid: Reqid, inbound: Spi, outbound: Spi, linger: Duration, last: bool) {
        let Some(child) = self.children.get_mut(&reqid) else { return };
        let Some(pair) = child.pairs.iter_mut().find(|pair| pair.inbound == inbound) else { return };
        pair.has_outbound = false;
        let owner = pair.owner;
        // Without the first one another is the fallback: the workers know that before it goes.
        let left = || child.pairs.iter().filter(|pair| pair.has_outbound);
        if owner == child.owner
            && !left().any(|pair| pair.owner == owner)
            && let Some(heir) = left().min_by_key(|pair| pair.resource).map(|pair| pair.owner)
        {
            child.owner = heir;
            for worker in &self.parts.outbound {
                worker.post(OutboundMessage::Command(OutboundCommand::SetOwner(reqid.0, heir)));
            }
        }
        let remove = OutboundCommand::Remove(reqid.0, outbound);
        self.parts.outbound[owner].post(OutboundMessage::Command(remove));
        if last {
            child.policy = false;
            for worker in &self.parts.outbound {
                worker.post(OutboundMessage::Command(OutboundCommand::RemovePolicy(reqid.0)));
            }
        }
        if linger.is_zero() {
            self.remove_inbound(inbound);
        } else {
            self.lingering.insert((Instant::now() + linger, inbound));
        }
    }

    fn remove_inbound(&mut self, spi: Spi) {
        let Some(reqid) = self.by_inbound.remove(&spi) else { return };
        let worker = sad::owner(spi, self.parts.inbound.len());
        self.parts.inbound[worker].post(InboundMessage::Command(InboundCommand::Remove(spi)));
        self.parts.spis.remove(spi);
        let mut ended = None;
        if let Some(child) = self.children.get_mut(&reqid) {
            if let Some(at) = child.pairs.iter().position(|pair| pair.inbound == spi) {
                let gone = child.pairs.remove(at);
                // What it dropped stays in the sum of all: a count in `status` never falls.
                self.parts.drops[0].add_all(&gone.counters_in.drops);
                self.parts.drops[0].add_all(&gone.counters_out.drops);
                // The same of what it carried.
                let traffic = Traffic::of(&gone.counters_in, &gone.counters_out);
                self.past.add(traffic);
                ended = Some(child.ike);
                if let Some(account) = self.carried.get_mut(&child.ike) {
                    account.pairs -= 1;
                    account.past.add(traffic);
                }
                if !child.pairs.iter().any(|pair| pair.resource == gone.resource) {
                    self.load[gone.owner] -= 1;
                }
            }
            if child.pairs.is_empty() {
                self.children.remove(&reqid);
            }
        }
        if let Some(ike) = ended {
            self.close_account(ike);
        }
    }

    fn move_path(&mut self, ike: IkeSaId, path: &Path) {
        let path = udp_path(path);
        for child in self.children.values_mut().filter(|child| child.ike == ike) {
            child.path = path;
            for pair in &child.pairs {
                self.parts.outbound[pair.owner]
                    .post(OutboundMessage::Command(OutboundCommand::SetPath(child.reqid.0, path)));
                let worker = sad::owner(pair.inbound, self.parts.inbound.len());
                let set = InboundCommand::SetPath(pair.inbound, path);
                self.parts.inbound[worker].post(InboundMessage::Command(set));
            }
        }
        self.path_moved(ike, path.remote);
    }

    // --- reports and commands --------------------------------------------------------------------------------------

    fn handle_report(&mut self, report: ThreadReport) {
        let report = match report {
            ThreadReport::Worker(report) => report,
            ThreadReport::DeviceGone(error) => {
                return self.tell(RouterEvent::Notice {
                    warning: true,
                    cause: "device",
                    text: format!(
                        "the TUN device {} is gone ({error}): restart the program to make it anew",
                        self.parts.status.tun
                    ),
                });
            }
        };
        match report {
            Report::OutboundInUse { reqid, spi } => self.endpoint.outbound_in_use(now(), Reqid(reqid), spi),
            Report::FirstUse(spi) => self.endpoint.inbound_activity(now(), spi),
            Report::InboundSoftLimit(spi) => self.endpoint.child_soft_limit(now(), spi),
            Report::OutboundSoftLimit { reqid, spi } => {
                let pair = self
                    .children
                    .get(&Reqid(reqid))
                    .and_then(|child| child.pairs.iter().find(|pair| pair.outbound == spi));
                if let Some(pair) = pair {
                    self.endpoint.child_soft_limit(now(), pair.inbound);
                }
            }
            Report::PathChanged(spi, path) => {
                let path = Path {
                    local: SocketAddrV4::new(path.local, self.parts.nat.port()).into(),
                    remote: path.remote.into(),
                };
                self.endpoint.esp_path_changed(now(), spi, path);
            }
        }
    }

    /// Traffic is proof of life (RFC 7296 section 2.4); too many forgeries wear a key out.
    fn look_for_activity(&mut self, now: Now) {
        for child in self.children.values_mut() {
            let (mut received, mut sent) = (false, 0);
            for pair in &mut child.pairs {
                sent += pair.counters_out.get().0;
                let packets = pair.counters_in.get().0;
                if packets != pair.seen_packets {
                    received = true;
                    pair.seen_packets = packets;
                    self.endpoint.inbound_activity(now, pair.inbound);
                }
                if pair.counters_in.drops.get(DropReason::InIntegrity) >= pair.forgeries {
                    pair.forgeries = u64::MAX;
                    self.endpoint.child_soft_limit(now, pair.inbound);
                }
            }
            if child.activity.second(received, sent)
                && let Some(pair) = child.pairs.iter().find(|pair| pair.has_outbound)
            {
                self.endpoint.outbound_unanswered(now, pair.inbound);
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        // A caller that does not wait for its answer any more is no fault.
        match command {
            Command::Initiate { connection, broker, answer } => {
                let path = Path {
                    local: SocketAddr::new(self.local_address(broker), self.parts.ike.port()),
                    remote: broker.into(),
                };
                let _ =
                    answer.send(self.endpoint.initiate(now(), &connection, path).map_err(HandleError::from));
            }
            Command::Close { ike, answer } => {
                let _ = answer.send(self.endpoint.close(now(), ike).map_err(HandleError::from));
            }
            Command::RekeyChild { reqid, answer } => {
                let _ = answer.send(self.endpoint.rekey_child(now(), reqid).map_err(HandleError::from));
            }
            Command::RekeyIke { ike, answer } => {
                let _ = answer.send(self.endpoint.rekey_ike(now(), ike).map_err(HandleError::from));
            }
            Command::Probe { ike, answer } => {
                let _ = answer.send(self.endpoint.probe(now(), ike).map_err(HandleError::from));
            }
            Command::RevocationChecked { ike, outcome } => {
                self.endpoint.revocation_checked(now(), ike, outcome)
            }
            Command::Set { settings, answer } => {
                self.endpoint.set(*settings);
                let _ = answer.send(());
            }
            Command::Bar { barred, answer } => {
                self.endpoint.bar(now(), barred);
                let _ = answer.send(());
            }
            Command::Traffic { answer } => {
                let _ = answer.send(self.traffic().into_iter().collect());
            }
            Command::NetworkChanged { ike, addresses, answer } => {
                let _ = answer.send(self.network_changed(now(), ike, addresses).map_err(HandleError::from));
            }
            Command::Status { answer } => {
                let _ = answer.send(crate::status::snapshot(self));
            }
            Command::Ping { answer } => {
                let _ = answer.send(());
            }
            Command::Stop { patience } => {
                self.stop_at = Some(Instant::now() + patience);
                self.endpoint.close_all(now(), patience);
            }
        }
    }
}
