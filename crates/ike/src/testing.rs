//! Two endpoints on a fake clock, for tests, examples and fuzzing (feature `testing`).
//!
//! [`Pair`] runs a client and a broker over a [`Link`] that may lose, repeat and reorder. Each [`Host`] has a model of
//! the router beside its endpoint: it installs and removes Child SAs as the events say, and carries pings of "ESP",
//! so that a test sees whether a packet would have found its SA, with the right keys, at any moment.

pub mod operations;

use crate::config::{
    AddressConfig, AddressPool, Connection, Credential, EndpointConfig, EspProposal, IkeProposal,
    IpcompPolicy, LeaseError, LeaseRequest, NatPolicy, Now, PeerAuth, PerResource, PrefixWish, RemoteId,
    RoutabilityCheck, SpiGenerator, Unique,
};
use crate::endpoint::{Endpoint, Parts};
use crate::event::{Activate, ChildSa, Closed, Event, IkeSaId, Lease, Path, Reqid, Transmit};
use crate::identity::Identity;
use crate::prefix::Prefix6;
use crate::selector::TrafficSelector;
use bytes::Bytes;
use ferry6_crypto::{
    Cipher, CryptoError, CryptoProvider, Group, Integ, PacketKeys, Prf, Secret, SecureRandom, Spi,
};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// A generator that gives the same octets for the same seed (SplitMix64). Never for real keys.
#[derive(Clone, Debug)]
pub struct SeededRandom(pub u64);

impl SeededRandom {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl SecureRandom for SeededRandom {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), CryptoError> {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_be_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// SPIs in a row.
#[derive(Clone, Debug)]
pub struct CountingSpis(pub u32);

impl SpiGenerator for CountingSpis {
    fn generate(&mut self) -> Spi {
        self.0 = self.0.wrapping_add(1).max(Spi::MIN);
        Spi::new(self.0).expect("at least MIN")
    }
}

/// A pool of a few addresses; an identity gets the same one again while it holds it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SmallPool(Arc<Mutex<PoolState>>);

#[derive(Debug, Default)]
struct PoolState {
    free: Vec<Ipv6Addr>,
    given: HashMap<IkeSaId, (Identity, Ipv6Addr)>,
    prefixes: HashMap<Identity, Prefix6>,
}

impl SmallPool {
    /// With these addresses, given from the first on.
    pub fn new(addresses: impl IntoIterator<Item = Ipv6Addr>) -> Self {
        let mut free: Vec<Ipv6Addr> = addresses.into_iter().collect();
        free.reverse();
        Self(Arc::new(Mutex::new(PoolState { free, ..PoolState::default() })))
    }
    /// Routes a prefix to an identity from now on.
    pub fn route(&self, identity: Identity, prefix: Prefix6) {
        if let Ok(mut state) = self.0.lock() {
            state.prefixes.insert(identity, prefix);
        }
    }
    /// How many addresses are given.
    pub fn given(&self) -> usize {
        self.0.lock().map_or(0, |s| s.given.len())
    }
}

impl AddressPool for SmallPool {
    fn assign(&mut self, request: &LeaseRequest<'_>) -> Result<Lease, LeaseError> {
        let broken = || LeaseError("the pool is broken".to_owned());
        let mut state = self.0.lock().map_err(|_| broken())?;
        let same =
            state.given.iter().find(|(_, given)| given.0 == *request.identity).map(|(_, given)| given.1);
        let address = same
            .or_else(|| state.free.pop())
            .ok_or_else(|| LeaseError("no free address in the pool".to_owned()))?;
        state.given.insert(request.ike, (request.identity.clone(), address));
        Ok(Lease {
            address: Some(address),
            prefix: state.prefixes.get(request.identity).copied().filter(|prefix| match request.prefix {
                PrefixWish::This(wanted) => wanted == *prefix,
                PrefixWish::Any | PrefixWish::None => true,
            }),
            dns: vec![Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x53)],
        })
    }
    fn release(&mut self, ike: IkeSaId) {
        if let Ok(mut state) = self.0.lock()
            && let Some((_, address)) = state.given.remove(&ike)
            && !state.given.values().any(|given| given.1 == address)
        {
            state.free.push(address);
        }
    }
}

/// What a link does to one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fate {
    /// Arrives after the link's delay.
    #[default]
    Deliver,
    /// Is lost.
    Drop,
    /// Arrives twice.
    Duplicate,
    /// Arrives late, after datagrams that were sent later.
    Delay(Duration),
}

/// The network between the two.
pub struct Link {
    /// One way.
    pub delay: Duration,
    /// Decides on each datagram; the octets are what is on the wire.
    pub fate: Box<dyn FnMut(&Bytes) -> Fate + Send>,
    /// The client's address and port as the broker sees them: its NAT. Identity without one.
    pub nat: Box<dyn Fn(SocketAddr) -> SocketAddr + Send>,
    /// And back; `None` where the NAT has no such mapping.
    pub nat_back: Box<dyn Fn(SocketAddr) -> Option<SocketAddr> + Send>,
    /// Whether what the client sends to this address arrives.
    pub works: Box<dyn Fn(SocketAddr) -> bool + Send>,
    /// The broker's own address behind its static NAT.
    pub broker_sees_itself_at: Option<IpAddr>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(10),
            fate: Box::new(|_| Fate::Deliver),
            nat: Box::new(|a| a),
            nat_back: Box::new(Some),
            works: Box::new(|_| true),
            broker_sees_itself_at: None,
        }
    }
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The initiator of the first exchange.
    Client,
    /// Its responder.
    Broker,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Broker,
            Self::Broker => Self::Client,
        }
    }
}

/// A Child SA as the model router holds it.
#[derive(Clone, Debug)]
pub struct Installed {
    /// As it came.
    pub sa: ChildSa,
    /// Its inbound half goes at this time.
    pub inbound_until: Option<Instant>,
    /// Its outbound half is gone.
    pub outbound_gone: bool,
}

/// An endpoint with a model of the router.
pub struct Host {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// By inbound SPI.
    pub sad: BTreeMap<Spi, Installed>,
    /// The outbound SPI in use, by reqid and resource.
    pub outbound: BTreeMap<(Reqid, u32), Spi>,
    /// Everything but `Transmit`.
    pub events: Vec<Event>,
    /// Whether the model tells `outbound_in_use` at once, as workers do.
    pub workers_answer: bool,
    /// Pings that arrived.
    pub pings: usize,
    /// Why pings were lost: no SA, or another key. Each cause once.
    pub lost_pings: Vec<String>,
}

impl Host {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            sad: BTreeMap::new(),
            outbound: BTreeMap::new(),
            events: Vec::new(),
            workers_answer: true,
            pings: 0,
            lost_pings: Vec::new(),
        }
    }

    /// The `Closed` events so far.
    pub fn closed(&self) -> Vec<&Closed> {
        self.events
            .iter()
            .filter_map(|e| match e {
                Event::Closed(closed) => Some(closed.as_ref()),
                _ => None,
            })
            .collect()
    }

    /// The `Established` events so far.
    pub fn established(&self) -> Vec<&crate::event::Established> {
        self.events
            .iter()
            .filter_map(|e| match e {
                Event::Established(up) => Some(up.as_ref()),
                _ => None,
            })
            .collect()
    }

    /// The texts of warnings.
    pub fn warnings(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|e| match e {
                Event::Notice { warning: true, text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// SAs that are not being removed.
    pub fn live(&self) -> Vec<&ChildSa> {
        self.sad.values().filter(|i| i.inbound_until.is_none()).map(|i| &i.sa).collect()
    }

    fn install(&mut self, sa: ChildSa) -> Option<(Reqid, Spi)> {
        let (reqid, resource, outbound, activate) = (sa.reqid, sa.resource, sa.outbound.spi, sa.activate);
        if let Some(old) = sa.replaces {
            assert!(self.sad.contains_key(&old), "replaces {old}, which is not installed");
        }
        let known =
            self.sad.insert(sa.inbound.spi, Installed { sa, inbound_until: None, outbound_gone: false });
        assert!(known.is_none(), "an inbound SPI was used twice");
        if activate == Activate::Now {
            self.outbound.insert((reqid, resource), outbound);
            return Some((reqid, outbound));
        }
        // It waits beside the one in use, be that of the same reqid or of another IKE SA with the same peer.
        None
    }

    fn remove(&mut self, now: Instant, inbound: Spi, linger: Duration, last: bool) {
        let installed = self.sad.get_mut(&inbound).expect("only installed SAs are removed");
        assert!(installed.inbound_until.is_none(), "removed twice");
        installed.outbound_gone = true;
        installed.inbound_until = Some(now + linger);
        let (reqid, outbound) = (installed.sa.reqid, installed.sa.outbound.spi);
        let place = (reqid, installed.sa.resource);
        if self.outbound.get(&place) == Some(&outbound) {
            self.outbound.remove(&place);
            if !last {
                // A router sends on what is left; the endpoint should have switched before.
                let of_it = |i: &&Installed| (i.sa.reqid, i.sa.resource) == place && !i.outbound_gone;
                if let Some(left) = self.sad.values().find(of_it) {
                    self.outbound.insert(place, left.sa.outbound.spi);
                }
            }
        }
        let others = self.sad.values().any(|i| i.sa.reqid == reqid && !i.outbound_gone);
        assert_eq!(last, !others, "`last` of {reqid:?} does not fit");
    }
}

#[derive(Clone, Debug)]
enum Wire {
    Ike(Path, Bytes),
    Ping(Spi, PacketKeys),
}

/// A client and a broker.
pub struct Pair {
    /// The initiator.
    pub client: Host,
    /// The responder.
    pub broker: Host,
    /// Between them.
    pub link: Link,
    /// The time.
    pub now: Now,
    /// Its start.
    pub start: Instant,
    /// Every IKE datagram that was sent, with its sender.
    pub sent: Vec<(Side, Bytes)>,
    queue: BTreeMap<(Instant, u64), (Side, Wire)>,
    sequence: u64,
}

/// Where the client is.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);
/// Where the broker is.
pub const BROKER: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 2);
/// 2026-01-01.
pub const WALL: Duration = Duration::from_secs(1_767_225_600);

/// The client's path at first.
pub fn first_path() -> Path {
    Path { local: SocketAddr::new(CLIENT.into(), 500), remote: SocketAddr::new(BROKER.into(), 500) }
}

/// An endpoint with deterministic parts.
pub fn endpoint(
    crypto: CryptoProvider,
    config: EndpointConfig,
    seed: u64,
    pool: Option<SmallPool>,
) -> Endpoint {
    let parts = Parts {
        crypto,
        random: Box::new(SeededRandom(seed)),
        spis: Box::new(CountingSpis(u32::try_from(seed & 0xff).unwrap_or(0) << 24 | 0x0001_0000)),
        pool: pool.map(|p| Box::new(p) as Box<dyn AddressPool>),
    };
    Endpoint::new(config, parts)
}

/// Two connections that fit each other, with a pre-shared key: the client asks for an address.
pub fn psk_connections() -> (Connection, Connection) {
    let psk = || Secret::new(b"correct horse battery staple".to_vec());
    let ike = vec![IkeProposal {
        ciphers: vec![Cipher::Aes256Gcm16, Cipher::Aes128Cbc],
        integs: vec![Integ::HmacSha256_128],
        prfs: vec![Prf::HmacSha256],
        groups: vec![Group::X25519, Group::Ecp256],
    }];
    let esp = vec![EspProposal {
        ciphers: vec![Cipher::Aes256Gcm16, Cipher::Aes128Cbc],
        integs: vec![Integ::HmacSha256_128],
        groups: vec![],
        esn: vec![true, false],
    }];
    let client = Connection {
        name: "to-broker".to_owned(),
        local_id: Identity::Rfc822("client@my.domain".to_owned()),
        credential: Credential::Psk(psk()),
        remote_id: RemoteId::Exactly(Identity::Fqdn("tunnel.my.domain".to_owned())),
        peer_auth: PeerAuth::Psk(psk()),
        ike,
        esp,
        local_ts: vec![TrafficSelector::ANY_V6],
        remote_ts: vec![TrafficSelector::ANY_V6],
        addresses: AddressConfig::REQUEST,
        ipcomp: IpcompPolicy::Accept,
        per_resource: PerResource::default(),
        mobike: true,
        nat: NatPolicy::Auto,
        routability: RoutabilityCheck::After,
        reauth: Duration::ZERO,
        fragment_size: Some(1200),
        child_rekey: Duration::from_secs(3600),
        ike_rekey: Duration::from_secs(4 * 3600),
        child_rekey_bytes: 0,
        child_rekey_packets: 0,
        dpd: Duration::from_secs(30),
        unique: Unique::Replace,
    };
    let broker = Connection {
        name: "clients".to_owned(),
        local_id: Identity::Fqdn("tunnel.my.domain".to_owned()),
        remote_id: RemoteId::Pattern("*@my.domain".to_owned()),
        addresses: AddressConfig::Assign,
        ..client.clone()
    };
    (client, broker)
}

/// A configuration with these connections.
pub fn config(connections: impl IntoIterator<Item = Connection>) -> EndpointConfig {
    EndpointConfig {
        connections: connections.into_iter().map(Arc::new).collect(),
        ..EndpointConfig::default()
    }
}

/// The pool that [`Pair::new`] gives to the broker: 2a00::101 to 2a00::104.
pub fn pool() -> SmallPool {
    SmallPool::new((0x101..=0x104).map(|last| Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, last)))
}

impl Pair {
    /// Both ends with one connection each, and [`pool`] on the broker.
    pub fn new(crypto: CryptoProvider, client: Connection, broker: Connection) -> Self {
        Self::with_config(crypto, config([client]), config([broker]))
    }

    /// Both ends with all of their configuration.
    pub fn with_config(crypto: CryptoProvider, client: EndpointConfig, broker: EndpointConfig) -> Self {
        Self::of(endpoint(crypto, client, 0x51, None), endpoint(crypto, broker, 0xa2, Some(pool())))
    }

    /// Of two endpoints.
    pub fn of(client: Endpoint, broker: Endpoint) -> Self {
        let start = Instant::now();
        Self {
            client: Host::new(client),
            broker: Host::new(broker),
            link: Link::default(),
            now: Now { monotonic: start, wall: SystemTime::UNIX_EPOCH + WALL },
            start,
            sent: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// One of the two.
    pub fn host(&mut self, side: Side) -> &mut Host {
        match side {
            Side::Client => &mut self.client,
            Side::Broker => &mut self.broker,
        }
    }

    /// Starts the client's first connection.
    ///
    /// # Panics
    /// Where the client's configuration has none.
    pub fn initiate(&mut self) -> IkeSaId {
        let name = self.client.endpoint.config.connections[0].name.clone();
        let now = self.now;
        let id = self.client.endpoint.initiate(now, &name, first_path()).expect("the connection is there");
        self.drain(Side::Client);
        id
    }

    /// Does something to an endpoint, and then what its events ask for.
    pub fn act<T>(&mut self, side: Side, action: impl FnOnce(&mut Endpoint, Now) -> T) -> T {
        let now = self.now;
        let result = action(&mut self.host(side).endpoint, now);
        self.drain(side);
        result
    }

    fn enqueue(&mut self, to: Side, wire: Wire, after: Duration) {
        self.sequence += 1;
        self.queue.insert((self.now.monotonic + after, self.sequence), (to, wire));
    }

    fn transmit(&mut self, side: Side, Transmit { path, payload, .. }: Transmit) {
        self.sent.push((side, payload.clone()));
        let path = match side {
            Side::Client => {
                if !(self.link.works)(path.remote) {
                    return;
                }
                let mut local = path.remote;
                if let Some(inside) = self.link.broker_sees_itself_at {
                    local.set_ip(inside);
                }
                let mut from = path.local;
                if from.ip().is_unspecified() {
                    from.set_ip(CLIENT.into());
                }
                Path { local, remote: (self.link.nat)(from) }
            }
            Side::Broker => {
                let Some(local) = (self.link.nat_back)(path.remote) else { return };
                let from = match self.link.broker_sees_itself_at {
                    Some(_) => BROKER.into(),
                    None => path.local.ip(),
                };
                Path { local, remote: SocketAddr::new(from, path.local.port()) }
            }
        };
        let delay = self.link.delay;
        let wire = Wire::Ike(path, payload.clone());
        match (self.link.fate)(&payload) {
            Fate::Deliver => self.enqueue(side.other(), wire, delay),
            Fate::Drop => {}
            Fate::Duplicate => {
                self.enqueue(side.other(), wire.clone(), delay);
                self.enqueue(side.other(), wire, delay * 2);
            }
            Fate::Delay(more) => self.enqueue(side.other(), wire, delay + more),
        }
    }

    /// Does what the events ask for.
    fn drain(&mut self, side: Side) {
        while let Some(event) = self.host(side).endpoint.poll() {
            let now = self.now;
            let host = self.host(side);
            let mut in_use = None;
            match &event {
                Event::Transmit(_) => {}
                Event::InstallChildSa(sa) => in_use = host.install(sa.as_ref().clone()),
                Event::UseOutbound { reqid, spi } => {
                    let of_it = |i: &&Installed| i.sa.reqid == *reqid && i.sa.outbound.spi == *spi;
                    let used = host.sad.values().find(of_it).expect("only installed SAs are used");
                    let resource = used.sa.resource;
                    host.outbound.insert((*reqid, resource), *spi);
                    in_use = Some((*reqid, *spi));
                }
                Event::RemoveChildSa { inbound, linger, last, .. } => {
                    host.remove(now.monotonic, *inbound, *linger, *last);
                }
                Event::Closed(closed) => {
                    let left = host.live().iter().any(|sa| sa.ike == closed.ike);
                    assert!(!left, "Closed before RemoveChildSa");
                }
                Event::MovePath { .. }
                | Event::PathSize { .. }
                | Event::Established(_)
                | Event::IkeRekeyed { .. }
                | Event::ReauthenticateIn { .. }
                | Event::IkeKeys(_)
                | Event::CheckRevocation(_)
                | Event::Notice { .. } => {}
            }
            if let (Some((reqid, spi)), true) = (in_use, host.workers_answer) {
                host.endpoint.outbound_in_use(now, reqid, spi);
            }
            match event {
                Event::Transmit(transmit) => self.transmit(side, transmit),
                other => host.events.push(other),
            }
        }
    }

    /// Sends one packet of "ESP" on each outbound SA in use.
    pub fn ping(&mut self, side: Side) {
        let host = self.host(side);
        let packets: Vec<Wire> = host
            .outbound
            .values()
            .filter_map(|spi| host.sad.values().find(|i| i.sa.outbound.spi == *spi && !i.outbound_gone))
            .map(|i| Wire::Ping(i.sa.outbound.spi, i.sa.outbound.keys.clone()))
            .collect();
        for packet in packets {
            let delay = self.link.delay;
            self.enqueue(side.other(), packet, delay);
        }
    }

    fn deliver(&mut self, to: Side, wire: Wire) {
        let now = self.now;
        let host = self.host(to);
        match wire {
            Wire::Ike(path, octets) => host.endpoint.handle_datagram(now, path, &octets),
            Wire::Ping(spi, keys) => {
                let found = host.sad.get(&spi).filter(|i| i.inbound_until.is_none_or(|t| t > now.monotonic));
                let lost = match found {
                    Some(i) if i.sa.inbound.keys == keys => {
                        host.pings += 1;
                        host.endpoint.inbound_activity(now, spi);
                        None
                    }
                    Some(_) => Some(format!("{to:?}: {spi} has other keys")),
                    None => Some(format!("{to:?}: no inbound SA {spi}")),
                };
                if let Some(lost) = lost.filter(|lost| !host.lost_pings.contains(lost)) {
                    host.lost_pings.push(lost);
                }
            }
        }
        self.drain(to);
    }

    /// Goes to the next thing that happens, at `until` the latest. `false` when nothing is left before that.
    pub fn step(&mut self, until: Instant) -> bool {
        let arrival = self.queue.first_key_value().map(|(&(at, _), _)| at);
        let timers = [self.client.endpoint.poll_timeout(), self.broker.endpoint.poll_timeout()];
        let next = timers.into_iter().flatten().chain(arrival).min();
        let Some(next) = next.filter(|&at| at <= until) else {
            self.set_time(until);
            return false;
        };
        self.set_time(next.max(self.now.monotonic));
        let now = self.now;
        if arrival.is_some_and(|at| at <= now.monotonic)
            && let Some((_, (to, wire))) = self.queue.pop_first()
        {
            self.deliver(to, wire);
            return true;
        }
        for side in [Side::Client, Side::Broker] {
            if self.host(side).endpoint.poll_timeout().is_some_and(|at| at <= now.monotonic) {
                self.host(side).endpoint.handle_timeout(now);
                self.drain(side);
                let after = self.host(side).endpoint.poll_timeout();
                assert!(after.is_none_or(|at| at > now.monotonic), "a timer fired and is still due");
            }
        }
        true
    }

    fn set_time(&mut self, at: Instant) {
        let passed = at.saturating_duration_since(self.now.monotonic);
        self.now = Now { monotonic: self.now.monotonic + passed, wall: self.now.wall + passed };
    }

    /// Runs for so long.
    pub fn run(&mut self, time: Duration) {
        let until = self.now.monotonic + time;
        while self.step(until) {}
    }

    /// Runs, with a ping each way in every `interval`.
    pub fn run_with_pings(&mut self, time: Duration, interval: Duration) {
        let until = self.now.monotonic + time;
        while self.now.monotonic < until {
            self.ping(Side::Client);
            self.ping(Side::Broker);
            self.run(interval.min(until - self.now.monotonic));
        }
    }

    /// Whether both hold the same Child SAs, with the same keys the right way round, and send on SAs that the other has.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check_mirror(&self) -> Result<(), String> {
        let (client, broker) = (self.client.live(), self.broker.live());
        if client.len() != broker.len() {
            return Err(format!("the client has {} Child SAs, the broker {}", client.len(), broker.len()));
        }
        for ours in client {
            let theirs = broker
                .iter()
                .find(|sa| sa.inbound.spi == ours.outbound.spi && sa.outbound.spi == ours.inbound.spi)
                .ok_or_else(|| format!("the broker lacks {}/{}", ours.inbound.spi, ours.outbound.spi))?;
            if ours.inbound.keys != theirs.outbound.keys || ours.outbound.keys != theirs.inbound.keys {
                return Err("keys differ".to_owned());
            }
            if ours.local_ts != theirs.remote_ts
                || ours.remote_ts != theirs.local_ts
                || ours.esn != theirs.esn
            {
                return Err("selectors or ESN differ".to_owned());
            }
            if ours.inbound.ipcomp_cpi != theirs.outbound.ipcomp_cpi
                || ours.outbound.ipcomp_cpi != theirs.inbound.ipcomp_cpi
            {
                return Err("CPIs differ".to_owned());
            }
        }
        Ok(())
    }
}
