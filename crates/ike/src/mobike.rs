//! MOBIKE (RFC 4555): a client that moves keeps its IKE SA and its Child SAs. Both roles.
//!
//! The initiator of the first exchange decides on the addresses. It learns of a new path in three ways: the embedder
//! tells that our own address changed; a probe tells that our NAT mapping did; or the current path is dead, and a
//! request that is repeated over another pair of addresses is answered.

use crate::config::{NatPolicy, Now, Role, RoutabilityCheck};
use crate::endpoint::{CommandError, Endpoint, IkeSaCommon, State};
use crate::established::{Established, Pending, Task};
use crate::event::{CloseReason, Path};
use crate::nat;
use crate::notify;
use crate::payloads::Payloads;
use crate::wire::{ExchangeType, Payload};
use ferry6_crypto::CryptoError;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Addresses of a peer that are kept, and of our own that are told.
const MAX_ADDRESSES: usize = 16;
/// Sends of a request over the current path before others are tried.
const SENDS_BEFORE_OTHERS: u32 = 2;
/// An update that met a NAT although none is allowed is tried so often: a single packet may have been tampered with
/// (section 3.9).
const NAT_TRIES: u8 = 3;

/// What one IKE SA knows of paths, besides the one in use.
#[derive(Debug, Default)]
pub(crate) struct Mobility {
    /// The peer's other addresses, as it told them (section 3.6).
    pub(crate) peer: Vec<IpAddr>,
    /// We have no network: nothing is sent, and nobody is given up for it.
    pub(crate) offline: bool,
    /// Where the peer says that it is now, not checked yet.
    candidate: Option<Path>,
    /// Where the last answer came from.
    answered: Option<Path>,
    /// The request in flight went over another path too.
    trying: bool,
    /// Updates that met a NAT, in a row.
    nats: u8,
}

/// UPDATE_SA_ADDRESSES on its way, for this path (section 3.5).
pub(crate) struct Update {
    path: Path,
}

/// COOKIE2 on its way to this path.
pub(crate) struct PathCheck {
    cookie: Vec<u8>,
    path: Path,
}

/// ADDITIONAL_IP4_ADDRESS for each of our addresses but the one in use, or NO_ADDITIONAL_ADDRESSES (section 3.4).
pub(crate) fn our_addresses(endpoint: &Endpoint, path: Path) -> Vec<Payload> {
    let others = endpoint.config.addresses.iter().filter(|a| IpAddr::V4(**a) != path.local.ip());
    let list: Vec<Payload> = others
        .take(MAX_ADDRESSES)
        .map(|a| notify::plain(notify::ADDITIONAL_IP4_ADDRESS, a.octets()))
        .collect();
    if list.is_empty() { vec![notify::plain(notify::NO_ADDITIONAL_ADDRESSES, Vec::new())] } else { list }
}

/// The peer's, where the message tells them; the list replaces the one before (section 3.6). Those of IPv6 cannot be
/// reached over an IPv4 network.
pub(crate) fn peer_addresses(payloads: &Payloads) -> Option<Vec<IpAddr>> {
    let kinds =
        [notify::ADDITIONAL_IP4_ADDRESS, notify::ADDITIONAL_IP6_ADDRESS, notify::NO_ADDITIONAL_ADDRESSES];
    if !kinds.iter().any(|kind| payloads.has(*kind)) {
        return None;
    }
    let usable =
        |a: &Ipv4Addr| !a.is_unspecified() && !a.is_multicast() && !a.is_broadcast() && !a.is_loopback();
    let told = payloads.notifies.iter().filter(|n| n.notify_type == notify::ADDITIONAL_IP4_ADDRESS);
    let addresses = told.filter_map(|n| <[u8; 4]>::try_from(n.data.as_slice()).ok()).map(Ipv4Addr::from);
    Some(addresses.filter(usable).take(MAX_ADDRESSES).map(IpAddr::V4).collect())
}

/// NO_NATS_ALLOWED (section 4.2.6) as the sender at the other end of `path` writes it: its address, ours, its port,
/// ours.
pub(crate) fn no_nats(path: Path) -> Vec<u8> {
    let mut out = nat::octets(path.remote.ip());
    out.extend(nat::octets(path.local.ip()));
    out.extend(path.remote.port().to_be_bytes());
    out.extend(path.local.port().to_be_bytes());
    out
}

/// The same for a message of ours.
pub(crate) fn no_nats_of_ours(path: Path) -> Payload {
    notify::plain(notify::NO_NATS_ALLOWED, no_nats(Path { local: path.remote, remote: path.local }))
}

/// Whether a message forbids NATs, and met one (section 3.9).
pub(crate) fn met_a_nat(payloads: &Payloads, path: Path) -> bool {
    payloads.notify(notify::NO_NATS_ALLOWED).is_some_and(|n| n.data != no_nats(path))
}

// --- the peer that decides -------------------------------------------------------------------------------------

impl Established {
    /// As the MOBIKE initiator we decide on the addresses (section 3.5).
    pub(crate) fn may_move(&self) -> bool {
        self.mobike && self.first_role == Role::Initiator
    }

    /// As the MOBIKE initiator behind a NAT: asks how the peer sees us, to notice later that the mapping has changed.
    pub(crate) fn learn_mapping(&mut self) {
        if self.may_move() && self.nat.local {
            self.want(Task::Probe);
        }
    }

    /// The same after an IKE rekey: what we learnt bore the old SPIs. A mapping that changed since the last look would be
    /// taken for the one that the peer knows, so it is told, not asked for.
    pub(crate) fn tell_mapping(&mut self) {
        if self.may_move() && self.nat.local {
            self.want(Task::UpdateAddresses);
        }
    }

    /// Is the peer there? With MOBIKE the answer also tells whether our NAT mapping has changed (section 3.8).
    pub(crate) fn probe(&mut self, endpoint: &mut Endpoint, now: Now, common: &mut IkeSaCommon) {
        let payloads = if self.may_move() {
            self.nat_payloads(endpoint, common, common.path).to_vec()
        } else {
            Vec::new()
        };
        self.send(endpoint, now, common, ExchangeType::Informational, &payloads, Pending::Probe);
    }

    /// The answer to a probe. With MOBIKE a new mapping is told to the peer: it may be behind a NAT itself, and does not
    /// follow by itself then (section 3.8).
    pub(crate) fn on_probed(&mut self, endpoint: &Endpoint, common: &IkeSaCommon, payloads: &Payloads) {
        if !self.may_move() {
            return;
        }
        let before = self.seen_as.take();
        let learnt = self.learn_nat(endpoint, common, common.path, payloads);
        if learnt && before.is_some_and(|before| self.seen_as.as_ref() != Some(&before)) {
            self.want(Task::UpdateAddresses);
        }
    }

    /// Packets go out and none comes back: perhaps our NAT has forgotten us (section 3.8).
    pub(crate) fn suspect(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> State {
        if self.may_move() && self.nat.local && !self.mobility.offline && !self.window.is_busy() {
            self.want(Task::Probe);
        }
        self.pump(endpoint, now, common)
    }

    pub(crate) fn update_addresses(&mut self, endpoint: &mut Endpoint, now: Now, common: &mut IkeSaCommon) {
        let mut payloads = vec![notify::plain(notify::UPDATE_SA_ADDRESSES, Vec::new())];
        payloads.extend(self.nat_payloads(endpoint, common, common.path));
        payloads.extend(our_addresses(endpoint, common.path));
        if self.connection.nat == NatPolicy::Forbid {
            payloads.push(no_nats_of_ours(common.path));
        }
        let pending = Pending::Update(Update { path: common.path });
        self.send(endpoint, now, common, ExchangeType::Informational, &payloads, pending);
    }

    /// See [`Endpoint::update_path`].
    pub(crate) fn move_to(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        path: Path,
    ) -> (State, Result<(), CommandError>) {
        if !self.may_move() {
            let why = "MOBIKE was not negotiated with us as its initiator";
            return (State::Established(self), Err(CommandError::NotNow(why)));
        }
        self.set_path(endpoint, common, path);
        self.want(Task::UpdateAddresses);
        (self.online(endpoint, now, common), Ok(()))
    }

    /// See [`Endpoint::network_gone`].
    pub(crate) fn go_offline(&mut self) {
        self.mobility.offline = true;
    }

    /// See [`Endpoint::network_back`].
    pub(crate) fn come_back(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> State {
        self.want(Task::Probe);
        self.online(endpoint, now, common)
    }

    /// What is on its way is sent again, at once and over the path in use, with all its tries before it (section 3.5).
    fn online(mut self: Box<Self>, endpoint: &mut Endpoint, now: Now, common: &mut IkeSaCommon) -> State {
        let was_offline = std::mem::take(&mut self.mobility.offline);
        self.mobility.trying = false;
        self.window.restart(endpoint, now, common);
        if was_offline && !self.connection.dpd.is_zero() && self.closing.is_none() {
            common.timers.set(crate::timer::Timer::Dpd, now.monotonic + self.connection.dpd);
        }
        self.pump(endpoint, now, common)
    }

    /// Before a request is repeated: where to. When the path in use seems dead, the others take turns with it.
    pub(crate) fn choose_path(&mut self, endpoint: &Endpoint, common: &IkeSaCommon) {
        // What gets no answer because of its size says nothing of the path.
        if self.window.is_probing_size() {
            return;
        }
        let tries = self.window.tries();
        let others = match &self.pending {
            // The peer may be at its old address still.
            Some(Pending::CheckPath(check)) if check.path != common.path => vec![check.path],
            _ => self.other_paths(endpoint, common),
        };
        if tries < SENDS_BEFORE_OTHERS || others.is_empty() {
            return;
        }
        let turn = (tries - SENDS_BEFORE_OTHERS) as usize % (others.len() + 1);
        let path = others.get(turn).copied();
        self.mobility.trying |= path.is_some();
        self.window.aim(path);
    }

    /// Pairs of addresses besides the one in use; only who decides on them has any.
    fn other_paths(&self, endpoint: &Endpoint, common: &IkeSaCommon) -> Vec<Path> {
        let Path { local, remote } = common.path;
        if !self.may_move() {
            return Vec::new();
        }
        let ours = endpoint.config.addresses.iter().map(|a| IpAddr::V4(*a)).filter(|a| *a != local.ip());
        let theirs = self.mobility.peer.iter().filter(|a| **a != remote.ip());
        // Towards another address the kernel knows best which of ours it goes out from.
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), local.port());
        theirs
            .map(|a| Path { local: any, remote: SocketAddr::new(*a, remote.port()) })
            .chain(ours.map(|a| Path { local: SocketAddr::new(a, local.port()), remote }))
            .collect()
    }

    /// An authentic answer came over this path. Where that is one of those that we tried, it is the one that works.
    pub(crate) fn on_answer_from(&mut self, endpoint: &mut Endpoint, common: &mut IkeSaCommon, path: Path) {
        self.mobility.answered = Some(path);
        let tried = std::mem::take(&mut self.mobility.trying);
        if !tried || !self.may_move() || path == common.path {
            return;
        }
        let fits =
            |p: &Path| p.remote == path.remote && (p.local.ip().is_unspecified() || p.local == path.local);
        if self.other_paths(endpoint, common).iter().any(fits) {
            let (who, to) = (self.who(common), path.remote);
            endpoint.notice(
                false,
                "path",
                format!("{who}: the path is dead; {to} answers from {}", path.local.ip()),
            );
            self.set_path(endpoint, common, path);
            self.want(Task::UpdateAddresses);
        }
    }
}

impl Update {
    pub(crate) fn on_response(
        self,
        mut s: Box<Established>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        payloads: &Payloads,
    ) -> State {
        let moved_on = common.path != self.path;
        match payloads.error().map(|error| error.notify_type) {
            None => {
                s.mobility.nats = 0;
                s.learn_nat(endpoint, common, self.path, payloads);
            }
            Some(_) if moved_on => {}
            Some(notify::UNEXPECTED_NAT_DETECTED) if s.mobility.nats + 1 < NAT_TRIES => {
                s.mobility.nats += 1;
                s.want(Task::UpdateAddresses);
            }
            // It stays at addresses where we are no more: only a new IKE SA helps.
            Some(kind @ (notify::UNEXPECTED_NAT_DETECTED | notify::UNACCEPTABLE_ADDRESSES)) => {
                let why = format!("{}: it does not follow our move", notify::display(kind));
                return s.close(endpoint, now, common, CloseReason::PeerRefused(why));
            }
            Some(kind) => {
                let (who, name) = (s.who(common), notify::display(kind));
                endpoint.notice(true, "path", format!("{who}: the peer does not follow our move: {name}"));
            }
        }
        if moved_on {
            s.want(Task::UpdateAddresses);
        }
        State::Established(s)
    }
}

// --- the peer that follows -------------------------------------------------------------------------------------

impl Established {
    /// MOBIKE notifies of the peer, and NAT detection, which is answered for the addresses that the packet really had.
    pub(crate) fn on_mobike(
        &mut self,
        endpoint: &mut Endpoint,
        common: &mut IkeSaCommon,
        path: Path,
        payloads: &Payloads,
    ) -> Vec<Payload> {
        if self.mobike && met_a_nat(payloads, path) {
            // Nothing else of such a message counts (section 3.9).
            return vec![notify::plain(notify::UNEXPECTED_NAT_DETECTED, Vec::new())];
        }
        let mut answer = Vec::new();
        let found = nat::detect(&endpoint.crypto, common.spis(), path, payloads);
        let follows = self.mobike && self.first_role == Role::Responder;
        if payloads.has(notify::UPDATE_SA_ADDRESSES) && follows {
            if self.connection.nat == NatPolicy::Forbid && (found.local || found.remote) {
                return vec![notify::plain(notify::UNACCEPTABLE_ADDRESSES, Vec::new())];
            }
            self.on_update(endpoint, common, path);
        }
        if self.mobike
            && let Some(addresses) = peer_addresses(payloads)
        {
            self.mobility.peer = addresses;
        }
        if self.learn_nat(endpoint, common, path, payloads) {
            answer.extend(self.nat_payloads(endpoint, common, path));
        }
        if let Some(cookie) = payloads.notify(notify::COOKIE2) {
            answer.push(notify::plain(notify::COOKIE2, cookie.data.clone()));
        }
        answer
    }

    fn on_update(&mut self, endpoint: &mut Endpoint, common: &mut IkeSaCommon, path: Path) {
        // A newer word of the peer replaces the one that is being checked.
        self.mobility.candidate = None;
        if common.path == path {
            return;
        }
        match self.connection.routability {
            RoutabilityCheck::Off => self.set_path(endpoint, common, path),
            RoutabilityCheck::After => {
                self.set_path(endpoint, common, path);
                self.want(Task::CheckPath);
            }
            RoutabilityCheck::Before => {
                self.mobility.candidate = Some(path);
                self.want(Task::CheckPath);
            }
        }
    }

    /// Return routability (section 3.7): a peer that moved must read at its new address what we send there.
    pub(crate) fn check_path(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> Result<(), CryptoError> {
        let cookie = endpoint.nonce()?;
        let payload = notify::plain(notify::COOKIE2, cookie.clone());
        let path = self.mobility.candidate.unwrap_or(common.path);
        let pending = Pending::CheckPath(PathCheck { cookie, path });
        let in_use = std::mem::replace(&mut common.path, path);
        self.send(endpoint, now, common, ExchangeType::Informational, &[payload], pending);
        common.path = in_use;
        self.window.aim((path != in_use).then_some(path));
        Ok(())
    }
}

impl PathCheck {
    pub(crate) fn on_response(
        self,
        mut s: Box<Established>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        payloads: &Payloads,
    ) -> State {
        if payloads.notify(notify::COOKIE2).is_none_or(|n| n.data != self.cookie) {
            let why = "it moved, but does not repeat the COOKIE2 sent to its new address".to_owned();
            return s.close(endpoint, now, common, CloseReason::PeerMisbehaved(why));
        }
        if s.mobility.candidate == Some(self.path) {
            s.mobility.candidate = None;
            if s.mobility.answered == Some(self.path) {
                s.set_path(endpoint, common, self.path);
            } else {
                let (who, to) = (s.who(common), self.path.remote);
                endpoint.notice(
                    true,
                    "path",
                    format!("{who}: it said that it moved to {to}, but is not there"),
                );
            }
        }
        State::Established(s)
    }
}

// --- both ------------------------------------------------------------------------------------------------------

impl Established {
    fn nat_payloads(&self, endpoint: &Endpoint, common: &IkeSaCommon, path: Path) -> [Payload; 2] {
        nat::payloads(&endpoint.crypto, common.spis(), path, endpoint.config.force_encap)
    }

    fn learn_nat(
        &mut self,
        endpoint: &Endpoint,
        common: &IkeSaCommon,
        path: Path,
        payloads: &Payloads,
    ) -> bool {
        let found = nat::detect(&endpoint.crypto, common.spis(), path, payloads);
        if found.supported {
            self.nat = found;
            let seen_as = payloads.notify(notify::NAT_DETECTION_DESTINATION_IP);
            self.seen_as = seen_as.map(|n| n.data.clone());
        }
        found.supported
    }

    /// NAT rebinding (RFC 7296 section 2.23): an authentic packet from another address or port moves the peer, but only
    /// if it is behind a NAT and we are not: a host behind a NAT does not follow. With MOBIKE the peer's own update comes
    /// later and says the same; until then what we send would be lost.
    pub(crate) fn follow_rebinding(&mut self, endpoint: &mut Endpoint, common: &mut IkeSaCommon, path: Path) {
        if path.remote != common.path.remote && self.nat.remote && !self.nat.local && self.closing.is_none() {
            self.set_path(endpoint, common, path);
        }
    }

    /// Our addresses changed, but not the one in use (section 3.6).
    pub(crate) fn tell_addresses(&mut self, endpoint: &mut Endpoint, now: Now, common: &mut IkeSaCommon) {
        let payloads = our_addresses(endpoint, common.path);
        self.send(endpoint, now, common, ExchangeType::Informational, &payloads, Pending::Tell);
    }
}

impl Endpoint {
    /// Our IPv4 addresses at which a peer could reach us, or that we could reach it from. Where a peer speaks MOBIKE it is
    /// told of a change (RFC 4555 section 3.6).
    pub fn set_addresses(&mut self, now: Now, addresses: Vec<Ipv4Addr>) {
        if self.config.addresses == addresses {
            return;
        }
        self.config.addresses = addresses;
        for ike in self.ike_sas() {
            let Some(spi) = self.spi_of(ike.ike) else { continue };
            self.with_established(spi, |mut s, endpoint, common| {
                // One that moves tells them with its update.
                let stays = IpAddr::V4(Ipv4Addr::UNSPECIFIED) == common.path.local.ip()
                    || endpoint.config.addresses.iter().any(|a| IpAddr::V4(*a) == common.path.local.ip());
                if s.mobike && stays && !s.mobility.offline {
                    s.want(Task::TellAddresses);
                }
                s.pump(endpoint, now, common)
            });
        }
    }

    /// There is no way to the peer of this IKE SA: it rests until [`Self::update_path`] or [`Self::network_back`].
    /// Lifetimes go on.
    ///
    /// # Errors
    /// [`CommandError::UnknownSa`].
    pub fn network_gone(&mut self, ike: crate::event::IkeSaId) -> Result<(), CommandError> {
        let spi = self.spi_of(ike).ok_or(CommandError::UnknownSa)?;
        self.with_established(spi, |mut s, _, _| {
            s.go_offline();
            State::Established(s)
        });
        Ok(())
    }

    /// There is a way to the peer again, from the address as before, or perhaps another way: asks the peer how it sees us.
    ///
    /// # Errors
    /// [`CommandError::UnknownSa`].
    pub fn network_back(&mut self, now: Now, ike: crate::event::IkeSaId) -> Result<(), CommandError> {
        let spi = self.spi_of(ike).ok_or(CommandError::UnknownSa)?;
        self.with_established(spi, |s, endpoint, common| s.come_back(endpoint, now, common));
        Ok(())
    }

    /// Packets go out on this Child SA and none has come in for a while: see that the peer still hears us.
    pub fn outbound_unanswered(&mut self, now: Now, inbound: ferry6_crypto::Spi) {
        if let Some(&ike) = self.children.get(&inbound) {
            self.with_established(ike, |s, endpoint, common| s.suspect(endpoint, now, common));
        }
    }
}
