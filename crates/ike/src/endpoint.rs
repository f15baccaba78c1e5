//! The endpoint: all IKE SAs of one program.

use crate::certs::CertError;
use crate::checking::Checking;
use crate::child::{Phase, SpiFor};
use crate::config::{
    AddressPool, Barred, Connection, EndpointConfig, Now, PeerAuth, Role, Settings, SpiGenerator,
};
use crate::cookie::Cookies;
use crate::counters::{Counter, Counters};
use crate::established::{Established, Task};
use crate::event::{CloseReason, Closed, Event, IkeSaId, Path, Reqid, Transmit};
use crate::fragments::Fragments;
use crate::half_open::{Bounds, Place};
use crate::identity::Identity;
use crate::ike_auth::{AuthSent, HalfOpen};
use crate::ike_sa_init::{self, InitSent, Inits};
use crate::rtt::Rtt;
use crate::spare::{Spare, Successor};
use crate::timer::{Deadlines, Timer, Timers};
use crate::wire::message::COOKIE_DEMAND_LEN;
use crate::wire::{ExchangeType, Header, Payload};
use bytes::Bytes;
use ferry6_crypto::{CryptoError, CryptoProvider, SecureRandom, Spi};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Parts the endpoint is made of.
pub struct Parts {
    /// Cryptography.
    pub crypto: CryptoProvider,
    /// Nonces, SPIs, cookies.
    pub random: Box<dyn SecureRandom>,
    /// Inbound SPIs of Child SAs.
    pub spis: Box<dyn SpiGenerator>,
    /// Where a responder's leases come from; `None` gives none.
    pub pool: Option<Box<dyn AddressPool>>,
}

/// All IKE SAs of one program.
///
/// Use: `handle_*` and the commands take input; after each, [`Self::poll`] until `None`; then wait for a datagram
/// or for [`Self::poll_timeout`], whichever comes first.
///
/// Bad input never makes it panic: a panic is a bug of ours.
pub struct Endpoint {
    pub(crate) config: EndpointConfig,
    pub(crate) crypto: CryptoProvider,
    pub(crate) random: Box<dyn SecureRandom>,
    spis: Box<dyn SpiGenerator>,
    pub(crate) pool: Option<Box<dyn AddressPool>>,
    pub(crate) events: VecDeque<Event>,
    /// By our SPI. An SA is taken out while it is worked on.
    sas: HashMap<u64, Box<IkeSa>>,
    /// The IKE SA that bears an ID now; an IKE rekey moves it.
    by_id: HashMap<IkeSaId, u64>,
    /// Child SAs by our SPI: which IKE SA owns them.
    pub(crate) children: HashMap<Spi, u64>,
    /// Reqids: which IKE SA owns them.
    pub(crate) reqids: HashMap<Reqid, u64>,
    pub(crate) inits: Inits,
    /// Established IKE SAs by the peer's identity, for the unique policy.
    pub(crate) peers: HashMap<Identity, Vec<IkeSaId>>,
    pub(crate) bounds: Bounds,
    pub(crate) fragments: Fragments,
    pub(crate) counters: Counters,
    /// How many IKE SAs are in [`State::Checking`].
    pub(crate) checking: usize,
    pub(crate) cookies: Option<Cookies>,
    pub(crate) cert_request: Option<Payload>,
    deadlines: Deadlines,
    next_id: u64,
    next_reqid: u32,
}

/// The CERTREQ of IKE_SA_INIT: the anchors of all connections.
fn cert_request(config: &EndpointConfig, crypto: &CryptoProvider) -> Option<Payload> {
    let mut anchors = Vec::new();
    for connection in &config.connections {
        if let PeerAuth::Certificate { anchors: more, .. } = &connection.peer_auth {
            for anchor in more {
                if !anchors.contains(anchor) {
                    anchors.push(anchor.clone());
                }
            }
        }
    }
    (!anchors.is_empty()).then(|| Payload::CertReq {
        encoding: crate::wire::cert::encoding::X509_SIGNATURE,
        data: crate::certs::cert_request(crypto, &anchors),
    })
}

/// Why a command could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such connection.
    #[error("no connection named {0:?}")]
    UnknownConnection(String),
    /// No such IKE or Child SA.
    #[error("no such SA")]
    UnknownSa,
    /// Its state does not allow that now.
    #[error("not possible now: {0}")]
    NotNow(&'static str),
    /// No randomness, or a group that this provider lacks.
    #[error("cryptography failed: {0}")]
    Crypto(#[from] CryptoError),
}

/// Where [`Endpoint::handle_datagram_with`] writes a demand for a cookie.
pub struct DemandRoom([u8; COOKIE_DEMAND_LEN]);

impl Default for DemandRoom {
    fn default() -> Self {
        Self([0; COOKIE_DEMAND_LEN])
    }
}

/// A message with its header, and where it came from.
#[derive(Clone, Copy)]
pub(crate) struct Datagram<'a> {
    pub(crate) path: Path,
    pub(crate) header: &'a Header,
    pub(crate) octets: &'a [u8],
}

/// One IKE SA: what all states share, and the state.
pub(crate) struct IkeSa {
    pub(crate) common: IkeSaCommon,
    pub(crate) state: State,
    /// The deadline that stands in the endpoint's set.
    registered: Option<Instant>,
    /// Its place among the half-open ones.
    half_open: Option<Place>,
    /// Its place among those that are over.
    lingering: Option<Place>,
    /// Whether it is counted as checking.
    checking: bool,
}

/// What every state of an IKE SA has.
pub(crate) struct IkeSaCommon {
    pub(crate) id: IkeSaId,
    /// Original initiator or responder of this IKE SA; a rekey by the other side swaps the roles (section 2.18).
    pub(crate) role: Role,
    pub(crate) local_spi: u64,
    pub(crate) remote_spi: u64,
    pub(crate) path: Path,
    pub(crate) timers: Timers,
}

impl IkeSaCommon {
    /// Initiator's and responder's SPI.
    pub(crate) fn spis(&self) -> (u64, u64) {
        match self.role {
            Role::Initiator => (self.local_spi, self.remote_spi),
            Role::Responder => (self.remote_spi, self.local_spi),
        }
    }
}

/// One type for each awaited message: what a state does not await, it has no code for.
pub(crate) enum State {
    /// Initiator: awaits the response of IKE_SA_INIT.
    InitSent(Box<InitSent>),
    /// Initiator: awaits the response of IKE_AUTH.
    AuthSent(Box<AuthSent>),
    /// Responder: awaits the request of IKE_AUTH.
    HalfOpen(Box<HalfOpen>),
    /// Awaits whether the peer's certificates are revoked.
    Checking(Box<Checking>),
    /// Up.
    Established(Box<Established>),
    /// Without Child SAs: replaced by a rekey, or refused, until its DELETE is through.
    Spare(Box<Spare>),
    /// Nothing is left of it.
    Gone,
}

impl IkeSa {
    pub(crate) fn new(common: IkeSaCommon, state: State) -> Box<Self> {
        Box::new(Self { common, state, registered: None, half_open: None, lingering: None, checking: false })
    }
}

impl Endpoint {
    /// An endpoint without any SA.
    pub fn new(config: EndpointConfig, parts: Parts) -> Self {
        let Parts { crypto, random, spis, pool } = parts;
        let cert_request = cert_request(&config, &crypto);
        Self {
            config,
            crypto,
            random,
            spis,
            pool,
            events: VecDeque::new(),
            sas: HashMap::new(),
            by_id: HashMap::new(),
            children: HashMap::new(),
            reqids: HashMap::new(),
            inits: Inits::default(),
            peers: HashMap::new(),
            bounds: Bounds::default(),
            fragments: Fragments::default(),
            counters: Counters::default(),
            checking: 0,
            cookies: None,
            cert_request,
            deadlines: Deadlines::default(),
            next_id: 1,
            next_reqid: 1,
        }
    }

    /// Puts other connections in place of those that new IKE SAs are made by. Those that stand keep theirs.
    pub fn set_connections(&mut self, connections: Vec<Arc<Connection>>) {
        self.config.connections = connections;
        self.cert_request = cert_request(&self.config, &self.crypto);
    }

    /// Takes other settings. New IKE SAs are made by the new connections; those that stand keep theirs.
    pub fn set(&mut self, settings: Settings) {
        let Settings { connections, retransmit, half_open, remote_nat_port, addresses } = settings;
        self.config.retransmit = retransmit;
        self.config.half_open = half_open;
        self.config.remote_nat_port = remote_nat_port;
        if let Some(addresses) = addresses {
            self.config.addresses = addresses;
        }
        self.set_connections(connections);
    }

    /// Takes another list of those that are not let in, and closes the IKE SAs that they have.
    pub fn bar(&mut self, now: Now, barred: Barred) {
        self.config.barred = barred;
        let (barred, patience) = (&self.config.barred, self.config.close_patience);
        // The smaller of the two is walked.
        let closing: Vec<(IkeSaId, String)> = if barred.len() < self.peers.len() {
            let known = barred.iter().filter_map(|(who, why)| Some((self.peers.get(who)?, why)));
            known.flat_map(|(ids, why)| ids.iter().map(|id| (*id, why.clone()))).collect()
        } else {
            let known = self.peers.iter().filter_map(|(who, ids)| Some((ids, barred.get(who)?)));
            known.flat_map(|(ids, why)| ids.iter().map(|id| (*id, why.clone()))).collect()
        };
        for (ike, why) in closing {
            // Each of them was there a line ago; a close of one may have taken another along, which is as good.
            let _ = self.close_within(now, ike, patience, CloseReason::Barred(why));
        }
    }

    /// The port behind the non-ESP marker, as bound, where the configuration could not know it.
    pub fn set_nat_port(&mut self, port: u16) {
        self.config.nat_port = port;
    }

    // --- input -------------------------------------------------------------------------------------------------

    /// A datagram came in; on the NAT port the marker is already off.
    pub fn handle_datagram(&mut self, now: Now, path: Path, message: &[u8]) {
        let mut room = DemandRoom::default();
        if let Some(demand) = self.handle_datagram_with(now, path, message, &mut room) {
            let payload = Bytes::copy_from_slice(demand);
            self.events.push_back(Event::Transmit(Transmit { path, payload, dont_fragment: false }));
        }
    }

    /// The same for many datagrams of strangers: a demand for a cookie, for which nothing is stored (RFC 7296 section 2.6), is
    /// no event, but stands in `room` and is returned. It is to be sent back on `path`.
    pub fn handle_datagram_with<'a>(
        &mut self,
        now: Now,
        path: Path,
        message: &[u8],
        room: &'a mut DemandRoom,
    ) -> Option<&'a [u8]> {
        let Ok(header) = Header::parse(message) else {
            ike_sa_init::answer_version(self, now, path, message);
            return None;
        };
        let datagram = Datagram { path, header: &header, octets: message };
        let initial = header.exchange == ExchangeType::IkeSaInit
            && !header.response
            && header.from_initiator
            && header.responder_spi == 0;
        if initial {
            let len = ike_sa_init::on_request(self, now, &datagram, &mut room.0)?;
            return Some(&room.0[..len]);
        }
        let ours = if header.from_initiator { header.responder_spi } else { header.initiator_spi };
        if !self.sas.contains_key(&ours) {
            self.counters.count(Counter::UnknownSpi);
            return None;
        }
        self.with_sa(ours, |endpoint, sa| {
            let IkeSa { common, state, .. } = sa;
            *state = match std::mem::replace(state, State::Gone) {
                State::InitSent(s) => s.on_message(endpoint, now, common, &datagram),
                State::AuthSent(s) => s.on_message(endpoint, now, common, &datagram),
                State::HalfOpen(s) => s.on_message(endpoint, now, common, &datagram),
                // What it says now it has said before.
                checking @ State::Checking(_) => checking,
                State::Established(s) => s.on_message(endpoint, now, common, &datagram),
                State::Spare(s) => s.on_message(endpoint, now, common, &datagram),
                State::Gone => State::Gone,
            };
        });
        None
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(spi) = self.deadlines.due(now.monotonic) {
            self.with_sa(spi, |endpoint, sa| {
                let IkeSa { common, state, .. } = sa;
                while let Some(timer) = common.timers.expired(now.monotonic) {
                    *state = match std::mem::replace(state, State::Gone) {
                        State::InitSent(s) => s.on_timer(endpoint, now, common, timer),
                        State::AuthSent(s) => s.on_timer(endpoint, now, common, timer),
                        State::HalfOpen(s) => s.on_timer(endpoint, timer),
                        State::Checking(s) => s.on_timer(endpoint, now, common, timer),
                        State::Established(s) => s.on_timer(endpoint, now, common, timer),
                        State::Spare(s) => s.on_timer(endpoint, now, common, timer),
                        State::Gone => State::Gone,
                    };
                }
            });
        }
    }

    /// A worker switched outbound to `spi`; only now may DELETE for the old one leave.
    pub fn outbound_in_use(&mut self, now: Now, reqid: Reqid, spi: Spi) {
        if let Some(&ike) = self.reqids.get(&reqid) {
            self.with_established(ike, |s, endpoint, common| {
                s.outbound_in_use(endpoint, now, common, reqid, spi)
            });
        }
    }

    /// A worker saw the first packet on this inbound SA, or traffic since the last call: proof of life (DPD).
    pub fn inbound_activity(&mut self, now: Now, inbound: Spi) {
        if let Some(&ike) = self.children.get(&inbound) {
            self.with_established(ike, |s, endpoint, _| s.inbound_activity(endpoint, now, inbound));
        }
    }

    /// A child reached its soft limit of packets or octets: rekey it.
    pub fn child_soft_limit(&mut self, now: Now, inbound: Spi) {
        if let Some(&ike) = self.children.get(&inbound) {
            self.with_established(ike, |mut s, endpoint, common| {
                s.want_child_rekey(inbound);
                s.pump(endpoint, now, common)
            });
        }
    }

    /// An authenticated ESP packet came from another address or port (NAT rebinding, RFC 7296 section 2.23).
    pub fn esp_path_changed(&mut self, now: Now, inbound: Spi, path: Path) {
        if let Some(&ike) = self.children.get(&inbound) {
            self.with_established(ike, |mut s, endpoint, common| {
                s.heard = now.monotonic;
                s.follow_rebinding(endpoint, common, path);
                State::Established(s)
            });
        }
    }

    /// What the servers that [`Event::CheckRevocation`] names have said: `Ok` if none of the certificates is revoked. One
    /// that comes too late, or was not asked for, changes nothing.
    pub fn revocation_checked(&mut self, now: Now, ike: IkeSaId, outcome: Result<(), CertError>) {
        let Some(&spi) = self.by_id.get(&ike) else { return };
        self.with_sa(spi, |endpoint, sa| {
            let IkeSa { common, state, .. } = sa;
            *state = match std::mem::replace(state, State::Gone) {
                State::Checking(s) => s.finish(endpoint, now, common, outcome),
                other => other,
            };
        });
    }

    // --- commands ----------------------------------------------------------------------------------------------

    /// Starts IKE_SA_INIT on `path`. From IKE_AUTH on the peer's port is `EndpointConfig::remote_nat_port`, unless
    /// the path already starts on our NAT port: then both ports stay (RFC 7296 section 2.23).
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`], [`CommandError::Crypto`].
    pub fn initiate(&mut self, now: Now, connection: &str, path: Path) -> Result<IkeSaId, CommandError> {
        let connection = self
            .config
            .connections
            .iter()
            .find(|c| c.name == connection)
            .cloned()
            .ok_or_else(|| CommandError::UnknownConnection(connection.to_owned()))?;
        let sa = InitSent::start(self, now, connection, path)?;
        let id = sa.common.id;
        self.insert(sa);
        Ok(id)
    }

    /// Sends DELETE and closes when it is answered or given up.
    ///
    /// # Errors
    /// [`CommandError::UnknownSa`].
    pub fn close(&mut self, now: Now, ike: IkeSaId) -> Result<(), CommandError> {
        let patience = self.config.close_patience;
        self.close_within(now, ike, patience, CloseReason::Local)
    }

    /// Closes all; `Closed` comes for each within `patience`.
    pub fn close_all(&mut self, now: Now, patience: Duration) {
        let all: Vec<IkeSaId> = self.by_id.keys().copied().collect();
        for ike in all {
            // Each of them was there a line ago; a close of one may have taken another along, which is as good.
            let _ = self.close_within(now, ike, patience, CloseReason::Local);
        }
    }

    pub(crate) fn close_within(
        &mut self,
        now: Now,
        ike: IkeSaId,
        patience: Duration,
        reason: CloseReason,
    ) -> Result<(), CommandError> {
        let spi = *self.by_id.get(&ike).ok_or(CommandError::UnknownSa)?;
        self.with_sa(spi, |endpoint, sa| {
            let IkeSa { common, state, .. } = sa;
            *state = match std::mem::replace(state, State::Gone) {
                State::InitSent(s) => endpoint.fail(common, Some(&s.connection), None, reason),
                State::AuthSent(s) => endpoint.fail(common, Some(&s.connection), None, reason),
                State::HalfOpen(s) => {
                    endpoint.inits.remove(&s.init);
                    endpoint.fail(common, None, None, reason)
                }
                State::Checking(s) => s.close(endpoint, common, reason),
                State::Established(s) => s.close_within(endpoint, now, common, patience, reason),
                other @ (State::Spare(_) | State::Gone) => other,
            };
        });
        Ok(())
    }

    /// Rekeys the Child SAs of a reqid now.
    ///
    /// # Errors
    /// [`CommandError::UnknownSa`].
    pub fn rekey_child(&mut self, now: Now, reqid: Reqid) -> Result<(), CommandError> {
        let spi = *self.reqids.get(&reqid).ok_or(CommandError::UnknownSa)?;
        self.with_established(spi, |mut s, endpoint, common| {
            // A fresh one was rekeyed just now; the peer may not know it yet.
            let live = s.children.iter().filter(|c| c.reqid == reqid && c.phase == Phase::Live);
            let live: Vec<Spi> = live.map(|c| c.inbound).collect();
            live.into_iter().for_each(|inbound| s.want_child_rekey(inbound));
            s.pump(endpoint, now, common)
        });
        Ok(())
    }

    /// Rekeys an IKE SA now.
    ///
    /// # Errors
    /// [`CommandError::UnknownSa`].
    pub fn rekey_ike(&mut self, now: Now, ike: IkeSaId) -> Result<(), CommandError> {
        self.task(now, ike, Task::RekeyIke)
    }

    /// Our address changed, or there is one again after [`Self::network_gone`]: as the MOBIKE initiator, moves the IKE SA
    /// and its Child SAs to `path` (RFC 4555 section 3.5).
    ///
    /// # Errors
    /// [`CommandError::UnknownSa`]; [`CommandError::NotNow`] where the peer does not speak MOBIKE or we are not its
    /// initiator: then only a new IKE SA helps.
    pub fn update_path(&mut self, now: Now, ike: IkeSaId, path: Path) -> Result<(), CommandError> {
        let spi = *self.by_id.get(&ike).ok_or(CommandError::UnknownSa)?;
        let mut result = Err(CommandError::NotNow("the IKE SA is not established"));
        self.with_established(spi, |s, endpoint, common| {
            let (state, outcome) = s.move_to(endpoint, now, common, path);
            result = outcome;
            state
        });
        result
    }

    /// Asks whether an IKE message of `len` octets crosses the path whole, by an INFORMATIONAL exchange with DF (in the manner of
    /// RFC 8899, for which the peer need know nothing of it). [`Event::PathSize`] tells; nothing does where the path in
    /// use, or the IKE SA, is replaced meanwhile.
    ///
    /// # Errors
    /// [`CommandError::UnknownSa`].
    pub fn probe_path_size(&mut self, now: Now, ike: IkeSaId, len: usize) -> Result<(), CommandError> {
        self.task(now, ike, Task::ProbeSize(len))
    }

    /// Asks whether the peer is there, by an empty INFORMATIONAL exchange, whose time is measured ([`IkeSaStatus::rtt`]). Where a
    /// request is on its way, that one is enough.
    ///
    /// # Errors
    /// [`CommandError::UnknownSa`].
    pub fn probe(&mut self, now: Now, ike: IkeSaId) -> Result<(), CommandError> {
        let spi = *self.by_id.get(&ike).ok_or(CommandError::UnknownSa)?;
        self.with_established(spi, |mut s, endpoint, common| {
            if !s.window.is_busy() && !s.mobility.offline {
                s.want(Task::Probe);
            }
            s.pump(endpoint, now, common)
        });
        Ok(())
    }

    fn task(&mut self, now: Now, ike: IkeSaId, task: Task) -> Result<(), CommandError> {
        let spi = *self.by_id.get(&ike).ok_or(CommandError::UnknownSa)?;
        self.with_established(spi, |mut s, endpoint, common| {
            s.want(task);
            s.pump(endpoint, now, common)
        });
        Ok(())
    }

    // --- output ------------------------------------------------------------------------------------------------

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// How many IKE SAs are half-open.
    pub fn half_open(&self) -> usize {
        self.bounds.half_open.len()
    }

    /// What was dropped, refused or repeated so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether there is no IKE SA: [`Self::ike_sas`] would be empty.
    pub fn is_idle(&self) -> bool {
        !self.by_id.values().any(|spi| self.sas.contains_key(spi))
    }

    /// Where the peer of an IKE SA is.
    pub fn remote_of(&self, ike: IkeSaId) -> Option<std::net::SocketAddr> {
        self.path_of(ike).map(|path| path.remote)
    }

    /// All IKE SAs, for `status`.
    pub fn ike_sas(&self) -> Vec<IkeSaStatus> {
        let mut all: Vec<IkeSaStatus> = self
            .by_id
            .values()
            .filter_map(|spi| self.sas.get(spi))
            .map(|sa| {
                let mut status = IkeSaStatus::of(&sa.common);
                match &sa.state {
                    State::InitSent(s) => status.connection = Some(s.connection.name.clone()),
                    State::AuthSent(s) => status.connection = Some(s.connection.name.clone()),
                    State::Checking(s) => status.connection = Some(s.connection.name.clone()),
                    State::Established(s) => s.fill_status(&sa.common, &mut status),
                    State::HalfOpen(_) | State::Spare(_) | State::Gone => {}
                }
                status
            })
            .collect();
        all.sort_by_key(|s| s.ike);
        all
    }

    // --- for the states ----------------------------------------------------------------------------------------

    pub(crate) fn notice(&mut self, warning: bool, cause: &'static str, text: impl Into<String>) {
        self.events.push_back(Event::Notice { warning, cause, text: text.into() });
    }

    /// Makes room for one more half-open IKE SA of this source: the oldest goes, unheard of.
    pub(crate) fn make_room(&mut self, source: IpAddr) {
        let limits = self.config.half_open;
        if let Some(spi) = self.bounds.half_open.surplus(limits.max, source, limits.per_source) {
            self.counters.count(Counter::HalfOpenForgotten);
            self.with_sa(spi, |endpoint, sa| {
                if let State::HalfOpen(s) = std::mem::replace(&mut sa.state, State::Gone) {
                    endpoint.inits.remove(&s.init);
                }
            });
        }
    }

    /// The same for those that are over: without it a peer's retransmission stays unanswered, and no more.
    fn make_room_to_linger(&mut self, source: IpAddr) {
        let max = self.config.half_open.max;
        if let Some(spi) = self.bounds.lingering.surplus(max, source, max) {
            self.counters.count(Counter::LingeringForgotten);
            self.with_sa(spi, |_, sa| sa.state = State::Gone);
        }
    }

    pub(crate) fn fresh_id(&mut self) -> IkeSaId {
        let id = IkeSaId(self.next_id);
        self.next_id += 1;
        id
    }

    pub(crate) fn fresh_reqid(&mut self) -> Reqid {
        loop {
            let reqid = Reqid(self.next_reqid);
            self.next_reqid = self.next_reqid.checked_add(1).unwrap_or(1);
            if !self.reqids.contains_key(&reqid) {
                return reqid;
            }
        }
    }

    /// An IKE SPI that is not 0 and not in use.
    pub(crate) fn fresh_ike_spi(&mut self) -> Result<u64, CryptoError> {
        loop {
            let mut octets = [0; 8];
            self.random.fill(&mut octets)?;
            let spi = u64::from_be_bytes(octets);
            if spi != 0 && !self.sas.contains_key(&spi) {
                return Ok(spi);
            }
        }
    }

    /// An inbound SPI; the generator promises that it is not in use.
    pub(crate) fn fresh_spi(&mut self, spi: SpiFor<'_>) -> Spi {
        match spi {
            SpiFor::New => self.spis.generate(),
            SpiFor::InPlaceOf(old) => self.spis.generate_in_place_of(old),
            SpiFor::Beside(others) => self.spis.generate_beside(others),
        }
    }

    /// A CPI out of the range for negotiation, 256 to 61439 (RFC 3173 section 2.1).
    pub(crate) fn fresh_cpi(&mut self) -> Result<u16, CryptoError> {
        const FIRST: u32 = 256;
        const COUNT: u32 = 61440 - FIRST;
        let mut octets = [0; 4];
        self.random.fill(&mut octets)?;
        let cpi = FIRST + u32::from_be_bytes(octets) % COUNT;
        Ok(u16::try_from(cpi).expect("256 + at most 61183 fits"))
    }

    /// A nonce of 32 octets: at least half of the key size of every PRF (section 2.10).
    pub(crate) fn nonce(&mut self) -> Result<Vec<u8>, CryptoError> {
        let mut nonce = vec![0; 32];
        self.random.fill(&mut nonce)?;
        Ok(nonce)
    }

    /// A share between 0 and 1 for spreading.
    pub(crate) fn spread(&mut self) -> f64 {
        let mut octets = [0; 4];
        // Without randomness rekeys only lose their spread.
        let _ = self.random.fill(&mut octets);
        f64::from(u32::from_be_bytes(octets)) / f64::from(u32::MAX)
    }

    /// A random share of `rekey_fuzz`.
    pub(crate) fn fuzz(&mut self) -> f64 {
        self.spread() * self.config.rekey_fuzz.clamp(0.0, 0.9)
    }

    /// The current IKE SA with this ID.
    pub(crate) fn spi_of(&self, ike: IkeSaId) -> Option<u64> {
        self.by_id.get(&ike).copied()
    }

    /// What is up at one of our SPIs.
    pub(crate) fn established_at(&self, spi: u64) -> Option<&Established> {
        match &self.sas.get(&spi)?.state {
            State::Established(s) => Some(s),
            _ => None,
        }
    }

    /// `spi` bears the ID from now on.
    pub(crate) fn rename(&mut self, ike: IkeSaId, spi: u64) {
        self.by_id.insert(ike, spi);
    }

    pub(crate) fn insert(&mut self, mut sa: Box<IkeSa>) {
        let spi = sa.common.local_spi;
        self.by_id.entry(sa.common.id).or_insert(spi);
        self.register(&mut sa);
        if !matches!(sa.state, State::Gone) {
            self.sas.insert(spi, sa);
        }
    }

    /// Takes an SA out, works on it, and puts it back if anything is left of it.
    pub(crate) fn with_sa(&mut self, spi: u64, work: impl FnOnce(&mut Self, &mut IkeSa)) {
        let Some(mut sa) = self.sas.remove(&spi) else { return };
        work(self, &mut sa);
        self.register(&mut sa);
        if matches!(sa.state, State::Gone) {
            self.fragments.remove((spi, false));
            self.fragments.remove((spi, true));
            if self.by_id.get(&sa.common.id) == Some(&spi) {
                self.by_id.remove(&sa.common.id);
            }
        } else {
            self.sas.insert(spi, sa);
        }
    }

    pub(crate) fn with_established(
        &mut self,
        spi: u64,
        work: impl FnOnce(Box<Established>, &mut Self, &mut IkeSaCommon) -> State,
    ) {
        self.with_sa(spi, |endpoint, sa| {
            sa.state = match std::mem::replace(&mut sa.state, State::Gone) {
                State::Established(s) => work(s, endpoint, &mut sa.common),
                other => other,
            };
        });
    }

    /// Keeps the endpoint's books about an SA: its deadline, and whether it counts as half-open.
    fn register(&mut self, sa: &mut IkeSa) {
        let deadline = match sa.state {
            State::Gone => None,
            _ => sa.common.timers.next(),
        };
        self.deadlines.update(sa.common.local_spi, sa.registered, deadline);
        sa.registered = deadline;
        let spi = sa.common.local_spi;
        match (&sa.state, sa.half_open) {
            (State::HalfOpen(s), None) => sa.half_open = Some(self.bounds.half_open.add(spi, s.source)),
            (State::HalfOpen(_), Some(_)) | (_, None) => {}
            (_, Some(place)) => {
                self.bounds.half_open.remove(place);
                sa.half_open = None;
            }
        }
        let lingers = matches!(&sa.state, State::Spare(s) if s.heir.is_none());
        match (lingers, sa.lingering) {
            (true, None) => {
                let source = sa.common.path.remote.ip();
                self.make_room_to_linger(source);
                sa.lingering = Some(self.bounds.lingering.add(spi, source));
            }
            (false, Some(place)) => {
                self.bounds.lingering.remove(place);
                sa.lingering = None;
            }
            _ => {}
        }
        let checking = matches!(sa.state, State::Checking(_));
        match (sa.checking, checking) {
            (false, true) => self.checking += 1,
            (true, false) => self.checking -= 1,
            _ => {}
        }
        sa.checking = checking;
    }

    /// The end of an IKE SA that was never up.
    pub(crate) fn fail(
        &mut self,
        common: &IkeSaCommon,
        connection: Option<&Connection>,
        remote_id: Option<Identity>,
        reason: CloseReason,
    ) -> State {
        self.closed(common, connection.map(|c| c.name.clone()), remote_id, false, reason);
        State::Gone
    }

    /// Tells `Closed` and frees the ID.
    pub(crate) fn closed(
        &mut self,
        common: &IkeSaCommon,
        connection: Option<String>,
        remote_id: Option<Identity>,
        established: bool,
        reason: CloseReason,
    ) {
        let (ike, path) = (common.id, common.path);
        let closed = Closed { ike, connection, path, remote_id, established, reason };
        self.events.push_back(Event::Closed(Box::new(closed)));
        if self.by_id.get(&ike) == Some(&common.local_spi) {
            self.by_id.remove(&ike);
        }
    }

    /// Where the peer of an IKE SA is.
    pub(crate) fn path_of(&self, ike: IkeSaId) -> Option<Path> {
        self.by_id.get(&ike).and_then(|spi| self.sas.get(spi)).map(|sa| sa.common.path)
    }

    /// An IKE SA whose peer has forgotten it: nothing is sent.
    pub(crate) fn drop_silently(&mut self, ike: IkeSaId) {
        let Some(spi) = self.spi_of(ike) else { return };
        self.with_established(spi, |mut s, endpoint, common| {
            s.tell_closed(endpoint, common, CloseReason::Replaced);
            State::Gone
        });
    }

    /// Probes a peer now.
    pub(crate) fn probe_now(&mut self, now: Now, ike: IkeSaId) {
        // Without such an SA there is nobody to probe.
        let _ = self.task(now, ike, Task::Probe);
    }

    /// The IKE SA that a peer's rekey made becomes the one that bears the ID, where it still waits for that. `spare` is
    /// its state, `common` the rest of it.
    pub(crate) fn hand_over(
        &mut self,
        now: Now,
        common: &mut IkeSaCommon,
        mut spare: Box<Spare>,
    ) -> Result<Box<Established>, Box<Spare>> {
        let waits = |old: &u64| match self.sas.get(old).map(|sa| &sa.state) {
            Some(State::Established(s)) => s.heir_of_collision() == Some(common.local_spi),
            _ => false,
        };
        let old = self.spi_of(common.id).filter(waits);
        // Without one that waits the collision was decided already: it is an heir no more.
        let (Some(heir), Some(old)) = (spare.heir.take(), old) else { return Err(spare) };
        let mut established = None;
        self.with_established(old, |s, endpoint, old| {
            let (s, old_window) = s.take_over(endpoint, now, old, common, spare.window, *heir);
            established = Some(s);
            Spare::linger(endpoint, now, old, old_window, None)
        });
        Ok(established.expect("it is there, established, and waits"))
    }

    /// Takes the IKE SA that a peer's rekey made and that waits to know whether it lives.
    pub(crate) fn take_heir(&mut self, spi: u64) -> Option<Successor> {
        let is_heir = matches!(&self.sas.get(&spi)?.state, State::Spare(s) if s.heir.is_some());
        if !is_heir {
            return None;
        }
        let mut sa = self.sas.remove(&spi)?;
        let state = std::mem::replace(&mut sa.state, State::Gone);
        self.register(&mut sa);
        let IkeSa { mut common, .. } = *sa;
        common.timers = Timers::default();
        match state {
            State::Spare(s) => {
                let Spare { window, heir, .. } = *s;
                heir.map(|heir| Successor { common, window, heir: *heir })
            }
            _ => None,
        }
    }
}

/// One IKE SA, for `status`.
#[derive(Clone, Debug)]
pub struct IkeSaStatus {
    /// Which.
    pub ike: IkeSaId,
    /// Connection, once chosen.
    pub connection: Option<String>,
    /// Role.
    pub role: Role,
    /// `connecting`, `established`, `rekeying`, `closing`.
    pub state: &'static str,
    /// Initiator's SPI.
    pub initiator_spi: u64,
    /// Responder's SPI.
    pub responder_spi: u64,
    /// Where the peer is.
    pub path: Path,
    /// Our identity.
    pub local_id: Option<Identity>,
    /// The peer's.
    pub remote_id: Option<Identity>,
    /// `AES_GCM_16_256/PRF_HMAC_SHA2_256/CURVE25519`.
    pub algorithms: String,
    /// Behind a NAT: we, the peer.
    pub nat: (bool, bool),
    /// When it came up.
    pub established: Option<Instant>,
    /// When its rekey is due.
    pub next_rekey: Option<Instant>,
    /// How long the peer takes to answer, once that was measured on this path.
    pub rtt: Option<Rtt>,
    /// The peer's vendor IDs and implementation, as text, where it told.
    pub vendor: Vec<String>,
    /// The peer's other addresses, as it told them (RFC 4555).
    pub peer_addresses: Vec<IpAddr>,
    /// Its Child SAs.
    pub children: Vec<ChildSaStatus>,
}

impl IkeSaStatus {
    fn of(common: &IkeSaCommon) -> Self {
        let (initiator_spi, responder_spi) = common.spis();
        Self {
            ike: common.id,
            connection: None,
            role: common.role,
            state: "connecting",
            initiator_spi,
            responder_spi,
            path: common.path,
            local_id: None,
            remote_id: None,
            algorithms: String::new(),
            nat: (false, false),
            established: None,
            next_rekey: None,
            rtt: None,
            vendor: Vec::new(),
            peer_addresses: Vec::new(),
            children: Vec::new(),
        }
    }
}

impl Established {
    fn fill_status(&self, common: &IkeSaCommon, status: &mut IkeSaStatus) {
        status.connection = Some(self.connection.name.clone());
        status.role = self.first_role;
        status.state = self.state_name();
        status.local_id = Some(self.connection.local_id.clone());
        status.remote_id = Some(self.remote_id.clone());
        status.algorithms = self.selected.names();
        status.nat = (self.nat.local, self.nat.remote);
        status.established = Some(self.since);
        status.next_rekey = common.timers.get(Timer::RekeyIke);
        status.rtt = self.rtt;
        status.vendor = self.vendor.clone();
        status.peer_addresses.clone_from(&self.mobility.peer);
        status.children = self
            .children
            .iter()
            .map(|c| ChildSaStatus {
                reqid: c.reqid,
                inbound: c.inbound,
                outbound: c.outbound,
                algorithms: c.suite.to_string(),
                esn: c.esn,
                resource: c.resource,
                established: c.since,
                next_rekey: c.rekey_at,
            })
            .collect();
    }
}

/// One Child SA, for `status`.
#[derive(Clone, Debug)]
pub struct ChildSaStatus {
    /// Its reqid.
    pub reqid: Reqid,
    /// Our SPI.
    pub inbound: Spi,
    /// The peer's SPI.
    pub outbound: Spi,
    /// `AES_GCM_16_256` or `AES_CBC_256/HMAC_SHA2_256_128`.
    pub algorithms: String,
    /// Whether ESN is on.
    pub esn: bool,
    /// Its number among those of its reqid, where several were agreed upon (RFC 9611): 0 is the first one.
    pub resource: Option<u32>,
    /// When it was installed.
    pub established: Instant,
    /// When its rekey is due.
    pub next_rekey: Option<Instant>,
}
