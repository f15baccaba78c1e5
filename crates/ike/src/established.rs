//! An IKE SA that is up: its Child SAs, what it wants to do next, and its timers.

use crate::child::{Child, Phase};
use crate::config::{Connection, Now, Role};
use crate::create_child_sa::{ChildRequest, IkeRequest};
use crate::endpoint::{Datagram, Endpoint, IkeSaCommon, State};
use crate::event::{self, CloseReason, Event, Lease, Path, Reqid};
use crate::identity::Identity;
use crate::ike_auth::Agreed;
use crate::ike_sa_init::InitKey;
use crate::keymat::SkD;
use crate::mobike::{Mobility, PathCheck, Update};
use crate::nat::Nat;
use crate::negotiation::SelectedIke;
use crate::notify;
use crate::payloads::{Payloads, Unreadable};
use crate::per_resource::More;
use crate::rtt::Rtt;
use crate::spare::{Spare, delete_ike};
use crate::timer::Timer;
use crate::window::{Incoming, ResponseToken, Window};
use crate::wire::{ExchangeType, Payload};
use ferry6_crypto::Spi;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After this long no peer retransmits a request any more; its cached response goes.
const CACHED_RESPONSE: Duration = Duration::from_secs(180);

/// With fewer message IDs left, an IKE SA is rekeyed whatever its lifetime; with fewer than the second, it is closed.
const FEW_IDS: u32 = 1 << 20;
const LAST_IDS: u32 = 8;
/// Between two attempts of such a rekey.
const RETRY_IDS: Duration = Duration::from_secs(30);

/// A Child SA that the peer does not use yet is not rekeyed before this.
const FRESH: Duration = Duration::from_secs(10);

/// An IKE SA that is up.
pub(crate) struct Established {
    pub(crate) connection: Arc<Connection>,
    /// Our role in the first exchange; a rekey does not change it.
    pub(crate) first_role: Role,
    pub(crate) remote_id: Identity,
    pub(crate) window: Window,
    pub(crate) selected: SelectedIke,
    pub(crate) sk_d: SkD,
    pub(crate) lease: Lease,
    /// The pool holds an address for it.
    pub(crate) leased: bool,
    pub(crate) nat: Nat,
    pub(crate) mobike: bool,
    pub(crate) mobility: Mobility,
    /// The hash of our address as the peer saw it last; another one tells of a new NAT mapping.
    pub(crate) seen_as: Option<Vec<u8>>,
    pub(crate) vendor: Vec<String>,
    /// How long the peer, as the responder, takes our authentication for good (RFC 4478).
    pub(crate) auth_lifetime: Option<Duration>,
    /// The request of IKE_SA_INIT, kept so long as copies of it may come.
    pub(crate) init: Option<InitKey>,
    pub(crate) since: Instant,
    /// When something authentic came last.
    pub(crate) heard: Instant,
    /// How long the peer takes to answer over the path in use.
    pub(crate) rtt: Option<Rtt>,
    pub(crate) children: Vec<Child>,
    /// When the youngest Child SA was made.
    pub(crate) last_child: Instant,
    /// Requests that wait for the window.
    tasks: VecDeque<Task>,
    /// How far the peer goes along with several Child SAs for one reqid.
    pub(crate) more: More,
    /// What the peer put off with TEMPORARY_FAILURE.
    pub(crate) later: Vec<Task>,
    /// What the request in flight is for.
    pub(crate) pending: Option<Pending>,
    /// It is being closed, and this is why.
    pub(crate) closing: Option<CloseReason>,
}

/// Something to ask of the peer when the window is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Rekey the Child SA with this inbound SPI.
    RekeyChild(Spi),
    /// A Child SA from scratch.
    NewChild,
    /// One more Child SA beside those of this reqid (RFC 9611).
    MoreChildren(Reqid),
    /// Delete the Child SA with this inbound SPI.
    DeleteChild(Spi),
    RekeyIke,
    /// An empty INFORMATIONAL: is the peer there?
    Probe,
    /// MOBIKE: tell the peer that we moved.
    UpdateAddresses,
    /// MOBIKE: is the peer where it says?
    CheckPath,
    /// MOBIKE: our other addresses.
    TellAddresses,
    /// Does a message of so many octets cross the path whole?
    ProbeSize(usize),
}

/// One type for each answer that may be awaited.
pub(crate) enum Pending {
    Child(Box<ChildRequest>),
    Ike(Box<IkeRequest>),
    DeleteChild(Spi),
    Close,
    Probe,
    Update(Update),
    CheckPath(PathCheck),
    /// With the octets of the message.
    ProbeSize(usize),
    /// Something that needs no answer but that it arrived.
    Tell,
}

impl Established {
    pub(crate) fn new(
        connection: Arc<Connection>,
        now: Now,
        first_role: Role,
        remote_id: Identity,
        agreed: Agreed,
    ) -> Self {
        Self {
            connection,
            first_role,
            remote_id,
            window: agreed.window,
            selected: agreed.selected,
            sk_d: agreed.sk_d,
            lease: Lease::default(),
            leased: false,
            nat: agreed.nat,
            mobike: false,
            mobility: Mobility::default(),
            seen_as: None,
            vendor: agreed.vendor,
            auth_lifetime: None,
            init: None,
            since: now.monotonic,
            heard: now.monotonic,
            rtt: None,
            children: Vec::new(),
            last_child: now.monotonic,
            tasks: VecDeque::new(),
            more: More::default(),
            later: Vec::new(),
            pending: None,
            closing: None,
        }
    }

    /// It is up: tells the embedder, sets the timers, and enters the books.
    pub(crate) fn announce(&mut self, endpoint: &mut Endpoint, common: &mut IkeSaCommon, now: Now) {
        endpoint.peers.entry(self.remote_id.clone()).or_default().push(common.id);
        let reauth = self.reauth_in(endpoint);
        endpoint.events.push_back(Event::Established(Box::new(event::Established {
            ike: common.id,
            connection: self.connection.name.clone(),
            role: self.first_role,
            local_id: self.connection.local_id.clone(),
            remote_id: self.remote_id.clone(),
            lease: self.lease.clone(),
            path: common.path,
            nat_local: self.nat.local,
            nat_remote: self.nat.remote,
            reauth,
        })));
        self.arm(endpoint, common, now);
        self.learn_mapping();
    }

    /// Timers of a new IKE SA, the first one or one from a rekey.
    pub(crate) fn arm(&self, endpoint: &mut Endpoint, common: &mut IkeSaCommon, now: Now) {
        let now = now.monotonic;
        let lifetime = Some(self.connection.ike_rekey).filter(|d| !d.is_zero());
        let share = endpoint.fuzz();
        common.timers.set_or_stop(Timer::RekeyIke, lifetime.map(|d| now + d - d.mul_f64(share)));
        common.timers.set_or_stop(Timer::ExpireIke, lifetime.map(|d| now + d + crate::child::hard_margin(d)));
        let reauth =
            Some(self.connection.reauth).filter(|d| !d.is_zero() && self.first_role == Role::Responder);
        let reauth = reauth.map(|d| self.since + d + crate::child::hard_margin(d));
        common.timers.set_or_stop(Timer::ExpireAuth, reauth);
        let dpd = Some(self.connection.dpd).filter(|d| !d.is_zero());
        common.timers.set_or_stop(Timer::Dpd, dpd.map(|d| now + d));
    }

    /// When an initiator is to authenticate anew: by its own configuration, or by the peer's (RFC 4478), whichever is
    /// sooner; in any case before the peer loses its patience.
    pub(crate) fn reauth_in(&self, endpoint: &mut Endpoint) -> Option<Duration> {
        let ours =
            Some(self.connection.reauth).filter(|d| !d.is_zero() && self.first_role == Role::Initiator);
        let lifetime = ours.into_iter().chain(self.auth_lifetime).min()?;
        Some(lifetime - lifetime.mul_f64(endpoint.fuzz()))
    }

    pub(crate) fn state_name(&self) -> &'static str {
        match (&self.closing, &self.pending) {
            (Some(_), _) => "closing",
            (None, Some(Pending::Child(request))) if request.is_beside() => "established",
            (None, Some(Pending::Ike(_) | Pending::Child(_))) => "rekeying",
            (None, _) => "established",
        }
    }

    /// Who and where, for a log.
    pub(crate) fn who(&self, common: &IkeSaCommon) -> String {
        format!("{} ({}), connection {:?}", self.remote_id, common.path.remote, self.connection.name)
    }

    // --- messages ----------------------------------------------------------------------------------------------

    pub(crate) fn on_message(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        datagram: &Datagram<'_>,
    ) -> State {
        // An answer that comes only to its fragments says nothing of the path.
        let probing_size = self.window.is_probing_size();
        let sent_once = self.window.sent_once();
        match self.window.receive(endpoint, datagram) {
            Incoming::Nothing => State::Established(self),
            Incoming::Seen => {
                self.heard = now.monotonic;
                State::Established(self)
            }
            Incoming::Request(token, payloads) => self.on_new_request(endpoint, now, common, token, payloads),
            Incoming::Response(payloads) => {
                self.heard = now.monotonic;
                common.timers.stop(Timer::Retransmit);
                self.on_answer_from(endpoint, common, datagram.path);
                if let Some(sent) = sent_once {
                    self.rtt = Some(Rtt::sample(self.rtt, sent, now.monotonic));
                }
                match payloads {
                    Ok(payloads) => self.on_response(endpoint, now, common, &payloads, probing_size),
                    Err(why) => {
                        let reason = CloseReason::PeerMisbehaved(format!("a response cannot be read: {why}"));
                        self.pending = None;
                        self.close(endpoint, now, common, reason)
                    }
                }
            }
        }
    }

    /// An authentic request that was not seen before.
    pub(crate) fn on_new_request(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        token: ResponseToken,
        payloads: Result<Payloads, Unreadable>,
    ) -> State {
        self.heard = now.monotonic;
        self.follow_rebinding(endpoint, common, token.path());
        self.peer_has_our_answer(endpoint);
        let error = match payloads {
            Ok(payloads) => return self.on_request(endpoint, now, common, token, &payloads),
            Err(error) => error,
        };
        self.respond(endpoint, common, now, token, &[error.to_notify()]);
        match error {
            // Section 2.5: refused as a whole, and life goes on.
            Unreadable::Critical(_) => State::Established(self),
            // Section 2.21.3: INVALID_SYNTAX is the end of the IKE SA.
            Unreadable::Syntax(why) => {
                let why = format!("a request cannot be read: {why}");
                self.end(endpoint, now, common, CloseReason::PeerMisbehaved(why))
            }
        }
    }

    /// `Closed` now; what is left only repeats its last answer.
    pub(crate) fn end(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        reason: CloseReason,
    ) -> State {
        self.tell_closed(endpoint, common, reason);
        Spare::linger(endpoint, now, common, self.window, None)
    }

    fn on_request(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        token: ResponseToken,
        payloads: &Payloads,
    ) -> State {
        let state = match token.exchange() {
            ExchangeType::CreateChildSa => self.on_create_child_sa(endpoint, now, common, token, payloads),
            ExchangeType::Informational => self.on_informational(endpoint, now, common, token, payloads),
            _ => {
                let answer = notify::plain(notify::INVALID_SYNTAX, Vec::new());
                self.respond(endpoint, common, now, token, &[answer]);
                State::Established(self)
            }
        };
        match state {
            State::Established(s) => s.pump(endpoint, now, common),
            other => other,
        }
    }

    fn on_response(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        payloads: &Payloads,
        probing_size: bool,
    ) -> State {
        let state = match self.pending.take() {
            Some(Pending::Child(request)) => (*request).on_response(self, endpoint, now, common, payloads),
            Some(Pending::Ike(request)) => (*request).on_response(self, endpoint, now, common, payloads),
            Some(Pending::DeleteChild(inbound)) => {
                let linger = endpoint.config.linger;
                self.remove(endpoint, common, inbound, linger);
                State::Established(self)
            }
            Some(Pending::Close) => return self.finish(endpoint, common),
            Some(Pending::Update(update)) => update.on_response(self, endpoint, now, common, payloads),
            Some(Pending::CheckPath(check)) => check.on_response(self, endpoint, now, common, payloads),
            Some(Pending::Probe) => {
                self.on_probed(endpoint, common, payloads);
                State::Established(self)
            }
            Some(Pending::ProbeSize(len)) => {
                if probing_size {
                    let (ike, taken) = (common.id, Some(len));
                    endpoint.events.push_back(Event::PathSize { ike, taken });
                }
                State::Established(self)
            }
            Some(Pending::Tell) | None => State::Established(self),
        };
        match state {
            State::Established(s) => s.pump(endpoint, now, common),
            other => other,
        }
    }

    pub(crate) fn respond(
        &mut self,
        endpoint: &mut Endpoint,
        common: &mut IkeSaCommon,
        now: Now,
        token: ResponseToken,
        payloads: &[Payload],
    ) {
        self.window.respond(token, payloads, &mut endpoint.events);
        common.timers.set(Timer::DropCached, now.monotonic + CACHED_RESPONSE);
    }

    /// Sends a request and remembers what its answer is for. The window must be free.
    pub(crate) fn send(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        exchange: ExchangeType,
        payloads: &[Payload],
        pending: Pending,
    ) {
        self.window.request(endpoint, now, common, exchange, payloads);
        self.pending = Some(pending);
    }

    // --- tasks -------------------------------------------------------------------------------------------------

    pub(crate) fn want(&mut self, task: Task) {
        if self.closing.is_none() && !self.tasks.contains(&task) && !self.later.contains(&task) {
            self.tasks.push_back(task);
        }
    }

    /// A task has lost its reason.
    pub(crate) fn forget(&mut self, task: &Task) {
        self.tasks.retain(|t| t != task);
        self.later.retain(|t| t != task);
    }

    /// Tries a task again when the peer may have finished what kept it (section 2.25).
    pub(crate) fn want_later(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        task: Task,
    ) {
        if !self.later.contains(&task) {
            self.later.push(task);
        }
        // A random part, so that both ends do not meet again.
        let wait = Duration::from_secs(2).mul_f64(1.0 + endpoint.spread());
        common.timers.set(Timer::Retry, now.monotonic + wait);
    }

    /// A Child SA in use is to be rekeyed.
    pub(crate) fn want_child_rekey(&mut self, inbound: Spi) {
        // Of a fresh one the peer may not know yet: our answer may have been lost.
        if let Some(child) = self.child(inbound).filter(|c| c.phase == Phase::Live) {
            child.phase = Phase::Rekeying;
            child.rekey_at = None;
            self.want(Task::RekeyChild(inbound));
        }
    }

    /// Starts tasks while the window is free.
    pub(crate) fn pump(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> State {
        if self.closing.is_none() && self.window.ids_left() < FEW_IDS {
            if self.window.ids_left() < LAST_IDS {
                let why = "its message IDs are used up and it could not be rekeyed";
                return self.close(endpoint, now, common, CloseReason::Expired(why));
            }
            let due = now.monotonic + RETRY_IDS;
            let at = common.timers.get(Timer::RekeyIke).map_or(due, |at| at.min(due));
            common.timers.set(Timer::RekeyIke, at);
        }
        while !self.window.is_busy() {
            if self.closing.is_some() {
                let exchange = ExchangeType::Informational;
                self.send(endpoint, now, common, exchange, &[delete_ike()], Pending::Close);
                break;
            }
            let Some(task) = self.tasks.pop_front() else { break };
            let started = match task {
                Task::RekeyChild(inbound) => ChildRequest::rekey(&mut self, endpoint, now, common, inbound),
                Task::NewChild => ChildRequest::fresh(&mut self, endpoint, now, common),
                Task::MoreChildren(reqid) => ChildRequest::beside(&mut self, endpoint, now, common, reqid),
                Task::DeleteChild(inbound) => {
                    self.delete_child(endpoint, now, common, inbound);
                    Ok(())
                }
                Task::RekeyIke => IkeRequest::start(&mut self, endpoint, now, common),
                Task::Probe => {
                    self.probe(endpoint, now, common);
                    Ok(())
                }
                Task::UpdateAddresses => {
                    self.update_addresses(endpoint, now, common);
                    Ok(())
                }
                Task::CheckPath => self.check_path(endpoint, now, common),
                Task::ProbeSize(len) => {
                    let len = self.window.probe_size(endpoint, now, common, len);
                    self.pending = Some(Pending::ProbeSize(len));
                    Ok(())
                }
                Task::TellAddresses => {
                    self.tell_addresses(endpoint, now, common);
                    Ok(())
                }
            };
            if let Err(error) = started {
                let who = self.who(common);
                endpoint.notice(true, "cryptography", format!("{who}: cryptography failed: {error}"));
            }
        }
        self.arm_children(common);
        State::Established(self)
    }

    // --- timers ------------------------------------------------------------------------------------------------

    pub(crate) fn on_timer(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        timer: Timer,
    ) -> State {
        match timer {
            // It goes on when there is a network again.
            Timer::Retransmit if self.mobility.offline && self.closing.is_none() => {}
            Timer::Retransmit => {
                self.choose_path(endpoint, common);
                if let Some(timeout) = self.window.retransmit(endpoint, now, common) {
                    self.closing.get_or_insert(timeout);
                    return self.finish(endpoint, common);
                }
            }
            Timer::GiveUp => return self.finish(endpoint, common),
            Timer::Dpd => self.on_dpd(now, common),
            Timer::RekeyIke => self.want(Task::RekeyIke),
            Timer::ExpireIke => {
                let why = "its lifetime is over and it could not be rekeyed";
                return self.close(endpoint, now, common, CloseReason::Expired(why));
            }
            Timer::ExpireAuth => {
                let why = "its authentication is too old (`ike.reauth`) and it did not reauthenticate";
                return self.close(endpoint, now, common, CloseReason::Expired(why));
            }
            Timer::Retire => return self.on_retire(endpoint, now, common),
            Timer::Retry => {
                for task in std::mem::take(&mut self.later) {
                    self.want(task);
                }
            }
            Timer::Children => return self.on_children_timer(endpoint, now, common),
            Timer::DropCached => {
                self.window.drop_cached(&mut endpoint.fragments);
                self.forget_init(endpoint);
            }
        }
        self.pump(endpoint, now, common)
    }

    /// Section 2.4: only silence makes us probe; a request in flight is a probe already.
    fn on_dpd(&mut self, now: Now, common: &mut IkeSaCommon) {
        if self.mobility.offline {
            return;
        }
        let dpd = self.connection.dpd;
        let due = self.heard + dpd;
        if due > now.monotonic {
            common.timers.set(Timer::Dpd, due);
        } else {
            if !self.window.is_busy() {
                self.want(Task::Probe);
            }
            common.timers.set(Timer::Dpd, now.monotonic + dpd);
        }
    }

    fn on_children_timer(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> State {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now.monotonic);
        let rekey: Vec<Spi> = self.children.iter().filter(|c| due(c.rekey_at)).map(|c| c.inbound).collect();
        let waited: Vec<Spi> = self.children.iter().filter(|c| due(c.use_at)).map(|c| c.inbound).collect();
        for inbound in waited {
            self.use_outbound(endpoint, inbound);
        }
        for inbound in rekey {
            if let Some(child) = self.child(inbound) {
                child.rekey_at = (child.phase == Phase::Fresh).then_some(now.monotonic + FRESH);
            }
            self.want_child_rekey(inbound);
        }
        let expired: Vec<Spi> =
            self.children.iter().filter(|c| due(c.expire_at)).map(|c| c.inbound).collect();
        for inbound in expired {
            if let Some(child) = self.child(inbound) {
                child.expire_at = None;
                child.phase = Phase::Deleting;
                self.want(Task::DeleteChild(inbound));
            }
        }
        if !self.children.is_empty() && !self.children.iter().any(Child::is_current) {
            let why = "the lifetime of its last Child SA is over and that could not be rekeyed";
            return self.close(endpoint, now, common, CloseReason::Expired(why));
        }
        self.pump(endpoint, now, common)
    }

    // --- what the embedder tells -------------------------------------------------------------------------------

    pub(crate) fn inbound_activity(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        inbound: Spi,
    ) -> State {
        self.heard = now.monotonic;
        self.use_outbound(endpoint, inbound);
        State::Established(self)
    }

    /// The peer uses a Child SA that we answered, or deletes the one before it: now we use it too.
    pub(crate) fn use_outbound(&mut self, endpoint: &mut Endpoint, inbound: Spi) {
        if let Some(child) = self.child(inbound).filter(|c| c.phase == Phase::Fresh) {
            child.phase = Phase::Live;
            child.use_at = None;
            endpoint.events.push_back(Event::UseOutbound { reqid: child.reqid, spi: child.outbound });
        }
    }

    pub(crate) fn outbound_in_use(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        reqid: Reqid,
        outbound: Spi,
    ) -> State {
        let new =
            self.children.iter().find(|c| c.reqid == reqid && c.outbound == outbound).map(|c| c.inbound);
        if let Some(new) = new {
            let old: Vec<Spi> = self
                .children
                .iter()
                .filter(|c| c.phase == Phase::Replaced { by: new })
                .map(|c| c.inbound)
                .collect();
            for inbound in old {
                self.want(Task::DeleteChild(inbound));
            }
        }
        self.pump(endpoint, now, common)
    }

    pub(crate) fn set_path(&mut self, endpoint: &mut Endpoint, common: &mut IkeSaCommon, path: Path) {
        if common.path != path {
            common.path = path;
            self.window.path_changed();
            self.rtt = None;
            endpoint.events.push_back(Event::MovePath { ike: common.id, path });
        }
    }

    // --- the end -----------------------------------------------------------------------------------------------

    fn forget_init(&mut self, endpoint: &mut Endpoint) {
        if let Some(key) = self.init.take() {
            endpoint.inits.remove(&key);
        }
    }

    /// Gives back what it holds: Child SAs, lease, its place in the books. May be called again.
    pub(crate) fn leave(&mut self, endpoint: &mut Endpoint, common: &mut IkeSaCommon) {
        self.forget_init(endpoint);
        let linger = self.hand_traffic_over(endpoint, common);
        let all: Vec<Spi> = self.children.iter().map(|c| c.inbound).collect();
        for inbound in all {
            self.remove(endpoint, common, inbound, linger);
        }
        if std::mem::take(&mut self.leased)
            && let Some(pool) = &mut endpoint.pool
        {
            pool.release(common.id);
        }
        if let Some(ids) = endpoint.peers.get_mut(&self.remote_id) {
            ids.retain(|id| *id != common.id);
            if ids.is_empty() {
                endpoint.peers.remove(&self.remote_id);
            }
        }
    }

    /// `RemoveChildSa` for what is left of its children, the lease back, then `Closed`.
    pub(crate) fn tell_closed(
        &mut self,
        endpoint: &mut Endpoint,
        common: &mut IkeSaCommon,
        reason: CloseReason,
    ) {
        self.leave(endpoint, common);
        let name = self.connection.name.clone();
        endpoint.closed(common, Some(name), Some(self.remote_id.clone()), true, reason);
    }

    /// [`Self::close_within`] the configured patience.
    pub(crate) fn close(
        self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        reason: CloseReason,
    ) -> State {
        let patience = endpoint.config.close_patience;
        self.close_within(endpoint, now, common, patience, reason)
    }

    /// Stops traffic, then DELETE as soon as the window is free; `Closed` comes within `patience`.
    pub(crate) fn close_within(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        patience: Duration,
        reason: CloseReason,
    ) -> State {
        let until = now.monotonic + patience;
        if self.closing.is_none() {
            self.closing = Some(reason);
            self.leave(endpoint, common);
            self.tasks.clear();
            self.later.clear();
            for timer in [
                Timer::Dpd,
                Timer::RekeyIke,
                Timer::ExpireIke,
                Timer::ExpireAuth,
                Timer::Retire,
                Timer::Retry,
            ] {
                common.timers.stop(timer);
            }
        }
        let until = common.timers.get(Timer::GiveUp).map_or(until, |known| known.min(until));
        common.timers.set(Timer::GiveUp, until);
        self.pump(endpoint, now, common)
    }

    fn finish(mut self: Box<Self>, endpoint: &mut Endpoint, common: &mut IkeSaCommon) -> State {
        let reason = self.closing.take().unwrap_or(CloseReason::Local);
        self.tell_closed(endpoint, common, reason);
        State::Gone
    }
}
