//! INFORMATIONAL (RFC 7296 sections 1.4, 2.4, 2.25) and MOBIKE (RFC 4555), both roles.

use crate::child::{Child, Phase};
use crate::config::{Now, Role};
use crate::endpoint::{Endpoint, IkeSaCommon, State};
use crate::established::{Established, Pending, Task};
use crate::event::{CloseReason, Path};
use crate::nat;
use crate::notify;
use crate::payloads::Payloads;
use crate::window::ResponseToken;
use crate::wire::{Delete, ExchangeType, Payload, protocol};
use ferry6_crypto::{CryptoError, Spi};
use std::time::Duration;

/// A peer that deletes our last Child SA sooner than this does not want one; we do not ask again.
const SHORT_LIFE: Duration = Duration::from_secs(10);

fn delete_esp(spis: impl IntoIterator<Item = Spi>) -> Payload {
    Payload::Delete(Delete { protocol: protocol::ESP, spis: spis.into_iter().map(Spi::get).collect() })
}

// --- initiator -------------------------------------------------------------------------------------------------

/// UPDATE_SA_ADDRESSES on its way, for this path (RFC 4555 section 3.5).
pub(crate) struct Update {
    path: Path,
}

/// COOKIE2 on its way.
pub(crate) struct PathCheck {
    cookie: Vec<u8>,
}

impl PathCheck {
    pub(crate) fn on_response(
        self,
        s: Box<Established>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        payloads: &Payloads,
    ) -> State {
        if payloads.notify(notify::COOKIE2).is_some_and(|n| n.data == self.cookie) {
            return State::Established(s);
        }
        let why = "it moved, but does not repeat the COOKIE2 sent to its new address".to_owned();
        s.close(endpoint, now, common, CloseReason::PeerMisbehaved(why))
    }
}

impl Established {
    /// DELETE for a Child SA, by our inbound SPI (section 1.4.1).
    pub(crate) fn delete_child(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        inbound: Spi,
    ) {
        let Some(child) = self.child(inbound) else { return };
        child.phase = Phase::Deleting;
        child.rekey_at = None;
        let pending = Pending::DeleteChild(inbound);
        self.send(endpoint, now, common, ExchangeType::Informational, &[delete_esp([inbound])], pending);
    }

    /// Is the peer there? With MOBIKE the answer also tells whether our NAT mapping has changed (RFC 4555 section 3.8).
    pub(crate) fn probe(&mut self, endpoint: &mut Endpoint, now: Now, common: &mut IkeSaCommon) {
        let payloads = if self.may_move() {
            self.nat_payloads(endpoint, common, common.path).to_vec()
        } else {
            Vec::new()
        };
        self.send(endpoint, now, common, ExchangeType::Informational, &payloads, Pending::Probe);
    }

    pub(crate) fn update_addresses(&mut self, endpoint: &mut Endpoint, now: Now, common: &mut IkeSaCommon) {
        let mut payloads = vec![notify::plain(notify::UPDATE_SA_ADDRESSES, Vec::new())];
        payloads.extend(self.nat_payloads(endpoint, common, common.path));
        let pending = Pending::Update(Update { path: common.path });
        self.send(endpoint, now, common, ExchangeType::Informational, &payloads, pending);
    }

    /// Return routability (RFC 4555 section 3.7): a peer that moved must read at its new address what we send there.
    pub(crate) fn check_path(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> Result<(), CryptoError> {
        let cookie = endpoint.nonce()?;
        let payload = notify::plain(notify::COOKIE2, cookie.clone());
        let pending = Pending::CheckPath(PathCheck { cookie });
        self.send(endpoint, now, common, ExchangeType::Informational, &[payload], pending);
        Ok(())
    }

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
}

impl Established {
    /// As the MOBIKE initiator we decide on the addresses (RFC 4555 section 3.5).
    pub(crate) fn may_move(&self) -> bool {
        self.mobike && self.first_role == Role::Initiator
    }

    /// As the MOBIKE initiator behind a NAT: asks how the peer sees us, to notice later that the mapping has changed.
    pub(crate) fn learn_mapping(&mut self) {
        if self.may_move() && self.nat.local {
            self.want(Task::Probe);
        }
    }

    /// The answer to a probe. With MOBIKE a new mapping is told to the peer: it may be behind a NAT itself, and does not
    /// follow by itself then (RFC 4555 section 3.8).
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
}

impl Update {
    pub(crate) fn on_response(
        self,
        mut s: Box<Established>,
        endpoint: &mut Endpoint,
        common: &mut IkeSaCommon,
        payloads: &Payloads,
    ) -> State {
        if let Some(error) = payloads.error() {
            let (who, name) = (s.who(common), notify::display(error.notify_type));
            endpoint.notice(true, format!("{who}: the peer does not follow our move: {name}"));
        } else {
            s.learn_nat(endpoint, common, self.path, payloads);
        }
        if common.path != self.path {
            s.want(Task::UpdateAddresses);
        }
        State::Established(s)
    }
}

// --- responder -------------------------------------------------------------------------------------------------

impl Established {
    pub(crate) fn on_informational(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        token: ResponseToken,
        payloads: &Payloads,
    ) -> State {
        if payloads.deletes_ike() {
            return self.on_delete_ike(endpoint, now, common, token);
        }
        if payloads.has(notify::AUTHENTICATION_FAILED) {
            // Section 2.21.2: an initiator that does not accept our AUTH says so here.
            self.respond(endpoint, common, now, token, &[]);
            let name = notify::display(notify::AUTHENTICATION_FAILED);
            let why = format!(
                "{name}: it does not accept our certificate, identity or pre-shared key; its log tells why"
            );
            return self.end(endpoint, now, common, CloseReason::PeerRefused(why));
        }
        let mut answer = self.on_deletes(endpoint, common, payloads);
        answer.extend(self.on_mobike(endpoint, common, token.path(), payloads));
        let deleted = !payloads.deletes.is_empty();
        self.respond(endpoint, common, now, token, &answer);
        if deleted && self.closing.is_none() && !self.children.iter().any(Child::is_current) {
            return self.without_children(endpoint, now, common);
        }
        State::Established(self)
    }

    /// Section 2.25.2: answered as usual, and our own rekey is forgotten.
    fn on_delete_ike(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        token: ResponseToken,
    ) -> State {
        self.respond(endpoint, common, now, token, &[]);
        if let Some(heir) = self.heir_of_collision().and_then(|spi| endpoint.take_heir(spi)) {
            return self.inherit_and_linger(endpoint, now, common, heir);
        }
        let reason = self.closing.take().unwrap_or(CloseReason::PeerDeleted);
        self.end(endpoint, now, common, reason)
    }

    /// Deletes of Child SAs; the SPIs are those that the peer receives with. The answer names ours, but not for those
    /// that we are deleting ourselves (sections 1.4.1, 2.25.1).
    fn on_deletes(
        &mut self,
        endpoint: &mut Endpoint,
        common: &mut IkeSaCommon,
        payloads: &Payloads,
    ) -> Vec<Payload> {
        let mut ours = Vec::new();
        let spis = payloads.deletes.iter().filter(|d| d.protocol == protocol::ESP).flat_map(|d| &d.spis);
        for spi in spis.filter_map(|spi| Spi::new(*spi)) {
            let Some(child) = self.children.iter().find(|c| c.outbound == spi) else { continue };
            let (inbound, reqid, resource) = (child.inbound, child.reqid, child.resource);
            if !matches!(self.pending, Some(Pending::DeleteChild(in_flight)) if in_flight == inbound) {
                ours.push(inbound);
            }
            // Whoever deletes the old one sends on the new one.
            let of_it = |c: &&Child| (c.reqid, c.resource, c.phase) == (reqid, resource, Phase::Fresh);
            let fresh = self.children.iter().find(of_it);
            if let Some(fresh) = fresh.map(|c| c.inbound).filter(|f| *f != inbound) {
                self.use_outbound(endpoint, fresh);
            }
            let linger = endpoint.config.linger;
            self.forget(&Task::DeleteChild(inbound));
            self.forget(&Task::RekeyChild(inbound));
            self.remove(endpoint, common, inbound, linger);
        }
        if ours.is_empty() { Vec::new() } else { vec![delete_esp(ours)] }
    }

    /// MOBIKE notifies of the peer, and NAT detection, which is answered for the addresses that the packet really had.
    fn on_mobike(
        &mut self,
        endpoint: &mut Endpoint,
        common: &mut IkeSaCommon,
        path: Path,
        payloads: &Payloads,
    ) -> Vec<Payload> {
        let mut answer = Vec::new();
        let follows = self.mobike && self.first_role == Role::Responder;
        if payloads.has(notify::UPDATE_SA_ADDRESSES) && follows {
            if let Some(n) = payloads.notify(notify::NO_NATS_ALLOWED)
                && n.data != no_nats(path)
            {
                answer.push(notify::plain(notify::UNEXPECTED_NAT_DETECTED, Vec::new()));
            } else if common.path != path {
                self.set_path(endpoint, common, path);
                self.want(Task::CheckPath);
            }
        }
        if self.learn_nat(endpoint, common, path, payloads) {
            answer.extend(self.nat_payloads(endpoint, common, path));
        }
        if let Some(cookie) = payloads.notify(notify::COOKIE2) {
            answer.push(notify::plain(notify::COOKIE2, cookie.data.clone()));
        }
        answer
    }

    /// The peer deleted our last Child SA and kept the IKE SA. A client asks for a new one; a broker waits for the client.
    fn without_children(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> State {
        if self.first_role == Role::Responder || matches!(self.pending, Some(Pending::Child(_))) {
            return State::Established(self);
        }
        if now.monotonic.saturating_duration_since(self.last_child) < SHORT_LIFE {
            return self.close(endpoint, now, common, CloseReason::PeerDeleted);
        }
        self.want(Task::NewChild);
        State::Established(self)
    }
}

/// NO_NATS_ALLOWED (RFC 4555 section 4.2.6) as the sender at the other end of `path` writes it: its address, ours, its
/// port, ours.
fn no_nats(path: Path) -> Vec<u8> {
    let mut out = nat::octets(path.remote.ip());
    out.extend(nat::octets(path.local.ip()));
    out.extend(path.remote.port().to_be_bytes());
    out.extend(path.local.port().to_be_bytes());
    out
}
