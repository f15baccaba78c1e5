//! INFORMATIONAL (RFC 7296 sections 1.4, 2.4, 2.25), both roles. What MOBIKE adds is in `mobike`.

use crate::child::{Child, Phase};
use crate::config::{Now, Role};
use crate::endpoint::{Endpoint, IkeSaCommon, State};
use crate::established::{Established, Pending, Task};
use crate::event::{CloseReason, Event};
use crate::ike_auth::auth_lifetime;
use crate::notify;
use crate::payloads::Payloads;
use crate::window::ResponseToken;
use crate::wire::{Delete, ExchangeType, Payload, protocol};
use ferry6_crypto::Spi;
use std::time::Duration;

/// A peer that deletes our last Child SA sooner than this does not want one; we do not ask again.
const SHORT_LIFE: Duration = Duration::from_secs(10);

fn delete_esp(spis: impl IntoIterator<Item = Spi>) -> Payload {
    Payload::Delete(Delete { protocol: protocol::ESP, spis: spis.into_iter().map(Spi::get).collect() })
}

// --- initiator -------------------------------------------------------------------------------------------------

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
        // RFC 4478 section 3: a responder may tell it, or change its mind, at any time; it counts from now on.
        if self.first_role == Role::Initiator
            && let Some(lifetime) = auth_lifetime(payloads)
        {
            self.auth_lifetime = Some(lifetime);
            if let Some(after) = self.reauth_in(endpoint) {
                endpoint.events.push_back(Event::ReauthenticateIn { ike: common.id, after });
            }
        }
        let mut answer = self.on_deletes(endpoint, common, payloads);
        answer.extend(self.on_mobike(endpoint, common, token.path(), payloads));
        let deleted = !payloads.deletes.is_empty();
        self.respond(endpoint, common, now, token, &answer);
        if deleted { self.if_without_children(endpoint, now, common) } else { State::Established(self) }
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
            match self.deleted_by_peer(endpoint, common, spi) {
                Some(inbound) if self.is_deleting(inbound) => {}
                Some(inbound) => ours.push(inbound),
                None => {
                    if let Some(Pending::Child(request)) = &mut self.pending {
                        request.peer_deleted(spi);
                    }
                }
            }
        }
        if ours.is_empty() { Vec::new() } else { vec![delete_esp(ours)] }
    }

    fn is_deleting(&self, inbound: Spi) -> bool {
        matches!(self.pending, Some(Pending::DeleteChild(in_flight)) if in_flight == inbound)
    }

    /// The peer deleted the Child SA that it receives on with this SPI. Returns our own SPI of it.
    pub(crate) fn deleted_by_peer(
        &mut self,
        endpoint: &mut Endpoint,
        common: &mut IkeSaCommon,
        outbound: Spi,
    ) -> Option<Spi> {
        let child = self.children.iter().find(|c| c.outbound == outbound)?;
        let (inbound, reqid, resource) = (child.inbound, child.reqid, child.resource);
        // Whoever deletes the old one sends on the new one.
        let of_it = |c: &&Child| (c.reqid, c.resource, c.phase) == (reqid, resource, Phase::Fresh);
        let fresh = self.children.iter().find(of_it);
        if let Some(fresh) = fresh.map(|c| c.inbound).filter(|f| *f != inbound) {
            self.use_outbound(endpoint, fresh);
        }
        // What it was made to replace is left to nobody else.
        let replaced = self.children.iter().filter(|c| c.phase == Phase::Replaced { by: inbound });
        for old in replaced.map(|c| c.inbound).collect::<Vec<_>>() {
            self.want(Task::DeleteChild(old));
        }
        let linger = endpoint.config.linger;
        self.forget(&Task::DeleteChild(inbound));
        self.forget(&Task::RekeyChild(inbound));
        self.remove(endpoint, common, inbound, linger);
        Some(inbound)
    }

    /// The peer deleted Child SAs. If our last one is among them and the IKE SA stays, a client asks for a new one; a broker
    /// waits for the client.
    pub(crate) fn if_without_children(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> State {
        if self.closing.is_some() || self.children.iter().any(Child::is_current) {
            return State::Established(self);
        }
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
