//! CREATE_CHILD_SA (RFC 7296 sections 1.3, 2.8, 2.17, 2.18, 2.25): both roles, for Child SAs and IKE SAs.
//!
//! When both ends rekey the same SA at once, both exchanges go through, and the one with the lowest of the four
//! nonces is the redundant one; whoever began it deletes what it made (sections 2.8.1, 2.8.2).

use crate::child::{self, Child, Offer, Phase, Placement, Refusal, SpiFor, Terms};
use crate::config::{Now, Role};
use crate::endpoint::{Endpoint, IkeSa, IkeSaCommon, State};
use crate::established::{Established, Pending, Task};
use crate::event::{Activate, CloseReason, Event, Reqid};
use crate::keymat::Skeyseed;
use crate::negotiation::{self, SelectedIke};
use crate::notify;
use crate::payloads::{Payloads, key_exchange};
use crate::per_resource;
use crate::selector::TrafficSelector;
use crate::spare::{Heir, Spare, Successor};
use crate::timer::{Timer, Timers};
use crate::window::{ResponseToken, Window};
use crate::wire::{ExchangeType, Notify, Payload, Proposal, protocol};
use ferry6_crypto::{CryptoError, Group, KeyExchange, Secret, Spi};
use std::time::Duration;

/// Child SAs of one IKE SA, those that are being replaced included.
const MAX_CHILDREN: usize = 64;
/// When a rekey was refused, the next attempt comes after this.
const RETRY_REFUSED: Duration = Duration::from_secs(30);

/// What the peer's own rekey of the same SA made, while ours was on its way.
struct PeerRekey<T> {
    made: T,
    /// The lower one of its exchange's nonces.
    lowest: Vec<u8>,
}

fn lower(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.min(b).to_vec()
}

/// The group of INVALID_KE_PAYLOAD, if it is one that we offered and have not tried.
fn other_group(data: &[u8], offered: &[Proposal], tried: &[Group]) -> Option<Group> {
    let group = Group::from_transform(u16::from_be_bytes(data.try_into().ok()?))?;
    (negotiation::offers_group(offered, group) && !tried.contains(&group)).then_some(group)
}

/// What an answer without an SA payload says: the notify type and its data.
fn refusal(payloads: &Payloads) -> (u16, &[u8]) {
    payloads.error().map_or((notify::INVALID_SYNTAX, &[]), |n| (n.notify_type, &n.data))
}

fn syntax(why: &str) -> Refusal {
    Refusal::new(notify::INVALID_SYNTAX, why)
}

fn not_now(why: impl Into<String>) -> Refusal {
    Refusal::new(notify::TEMPORARY_FAILURE, why)
}

// --- Child SA, initiator ---------------------------------------------------------------------------------------

/// Our request for a Child SA, new or to replace another.
pub(crate) struct ChildRequest {
    offer: Offer,
    ke: Option<Box<dyn KeyExchange>>,
    groups_tried: Vec<Group>,
    ni: Vec<u8>,
    reqid: Reqid,
    place: Place,
    resource: Option<u32>,
    peer: Option<PeerRekey<Spi>>,
    /// What the peer deleted meanwhile of which we know nothing: it may be what its answer makes, which was overtaken.
    deleted: Vec<Spi>,
}

/// Where among the others a Child SA belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It is the first of its reqid.
    First,
    /// In place of the one with this inbound SPI.
    InPlaceOf(Spi),
    /// Beside the others of its reqid (RFC 9611).
    Beside,
}

impl Place {
    fn rekeys(self) -> Option<Spi> {
        match self {
            Self::InPlaceOf(old) => Some(old),
            Self::First | Self::Beside => None,
        }
    }
}

/// For whom a Child SA is.
struct Wanted {
    reqid: Reqid,
    place: Place,
    /// What SA_RESOURCE_INFO says; `None`: nothing.
    resource: Option<u32>,
    terms: Terms,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
}

impl ChildRequest {
    /// Whether it asks for one more Child SA, to stand beside others.
    pub(crate) fn is_beside(&self) -> bool {
        self.place == Place::Beside
    }

    /// The peer deleted a Child SA that we do not have, by the SPI that it receives with.
    pub(crate) fn peer_deleted(&mut self, outbound: Spi) {
        if self.deleted.len() < MAX_CHILDREN && !self.deleted.contains(&outbound) {
            self.deleted.push(outbound);
        }
    }

    /// Rekeys the Child SA with this inbound SPI, if that is still wanted.
    pub(crate) fn rekey(
        s: &mut Established,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        inbound: Spi,
    ) -> Result<(), CryptoError> {
        let Some(child) = s.child(inbound).filter(|c| c.phase == Phase::Rekeying) else { return Ok(()) };
        let (reqid, resource) = (child.reqid, child.resource);
        let (local_ts, remote_ts) = (child.local_ts.clone(), child.remote_ts.clone());
        let terms = Terms::of(&s.connection);
        let place = Place::InPlaceOf(inbound);
        let wanted = Wanted { reqid, place, resource, terms, local_ts, remote_ts };
        Self::send(s, endpoint, now, common, wanted, Vec::new())
    }

    /// A Child SA from scratch.
    pub(crate) fn fresh(
        s: &mut Established,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> Result<(), CryptoError> {
        let wanted = Wanted {
            reqid: endpoint.fresh_reqid(),
            place: Place::First,
            resource: s.connection.per_resource.asks().then_some(0),
            terms: Terms::of(&s.connection),
            local_ts: child::local_policy(&s.connection, &s.lease),
            remote_ts: child::remote_policy(&s.connection, &s.lease),
        };
        Self::send(s, endpoint, now, common, wanted, Vec::new())
    }

    /// One more beside those of this reqid, with the same properties (RFC 9611 section 4), if that is still wanted.
    pub(crate) fn beside(
        s: &mut Established,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        reqid: Reqid,
    ) -> Result<(), CryptoError> {
        if !s.wants_more(reqid) {
            return Ok(());
        }
        let Some(like) = s.model_of(reqid) else { return Ok(()) };
        let wanted = Wanted {
            reqid,
            place: Place::Beside,
            resource: Some(s.free_resource(reqid)),
            terms: Terms::like(like, &s.connection),
            local_ts: like.local_ts.clone(),
            remote_ts: like.remote_ts.clone(),
        };
        Self::send(s, endpoint, now, common, wanted, Vec::new())
    }

    /// The last one of `tried` is the group to use; without any, the configuration's first.
    fn send(
        s: &mut Established,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        wanted: Wanted,
        mut tried: Vec<Group>,
    ) -> Result<(), CryptoError> {
        let Wanted { reqid, place, resource, terms, local_ts, remote_ts } = wanted;
        let mut groups = terms.esp.iter().flat_map(|p| &p.groups).copied();
        let group = tried.last().copied().or_else(|| groups.find(|&g| endpoint.crypto.groups.supports(g)));
        let ke = group.map(|g| endpoint.crypto.groups.initiate(g)).transpose()?;
        if tried.is_empty() {
            tried.extend(group);
        }
        let ni = endpoint.nonce()?;
        let mut between = vec![Payload::Nonce(ni.clone())];
        between.extend(ke.as_deref().map(|ke| key_exchange(ke.group(), ke.public())));
        let others = s.inbound_spis(reqid);
        let spi = match place {
            Place::First => SpiFor::New,
            Place::InPlaceOf(old) => SpiFor::InPlaceOf(old),
            Place::Beside => SpiFor::Beside(&others),
        };
        let (offer, offered) = child::offer(endpoint, &terms, local_ts, remote_ts, true, spi, between)?;
        let mut payloads: Vec<Payload> = Vec::new();
        payloads.extend(place.rekeys().map(|spi| notify::about_esp(notify::REKEY_SA, spi)));
        payloads.extend(resource.map(per_resource::info));
        payloads.extend(offered);
        let request = Self {
            offer,
            ke,
            groups_tried: tried,
            ni,
            reqid,
            place,
            resource,
            peer: None,
            deleted: Vec::new(),
        };
        let pending = Pending::Child(Box::new(request));
        s.send(endpoint, now, common, ExchangeType::CreateChildSa, &payloads, pending);
        Ok(())
    }

    pub(crate) fn on_response(
        self,
        mut s: Box<Established>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        payloads: &Payloads,
    ) -> State {
        if s.closing.is_some() {
            // DELETE for the IKE SA comes next and takes along what the peer has made.
            return State::Established(s);
        }
        if payloads.sa.is_none() {
            return self.on_refusal(s, endpoint, now, common, refusal(payloads));
        }
        let Self { offer, ke, ni, reqid, place, resource, peer, deleted, .. } = self;
        let rekeys = place.rekeys();
        let local = child::local_policy(&s.connection, &s.lease);
        let agreed = offer.accept(payloads, &local).and_then(|negotiated| {
            let nr = payloads.nonce.as_deref().ok_or("the answer has no nonce")?;
            let shared = match negotiated.selected.group() {
                Some(group) => Some(shared_secret(group, ke, payloads)?),
                None => None,
            };
            Ok((negotiated, nr, shared))
        });
        let (negotiated, nr, shared) = match agreed {
            Ok(agreed) => agreed,
            Err(why) => {
                // The peer has a Child SA now that we cannot have: only a new start brings both together.
                let reason = CloseReason::PeerMisbehaved(format!("CREATE_CHILD_SA response: {why}"));
                return s.close(endpoint, now, common, reason);
            }
        };
        let keys = s.sk_d.child(&endpoint.crypto, negotiated.selected.suite(), shared, &ni, nr);
        let (new, outbound) = (negotiated.inbound, negotiated.selected.peer_spi());
        let lost = peer.as_ref().is_some_and(|p| lower(&ni, nr) < p.lowest);
        let old = rekeys.filter(|old| s.child(*old).is_some());
        let agreed = payloads.has(notify::SA_RESOURCE_INFO);
        let resource = match place {
            Place::First => (agreed && s.connection.per_resource.asks()).then_some(0),
            Place::InPlaceOf(_) => resource,
            Place::Beside => Some(s.free_resource(reqid)),
        };
        // Those of one reqid have the same selectors, by RFC 9611 section 4; the peer narrowed it further.
        let unlike = place == Place::Beside
            && s.model_of(reqid).is_some_and(|like| {
                like.local_ts != negotiated.local_ts || like.remote_ts != negotiated.remote_ts
            });
        let activate = if lost || unlike { Activate::Later } else { Activate::Now };
        let replaces = old.filter(|_| !lost);
        let placement = Placement { reqid, resource, exchange_role: Role::Initiator, activate, replaces };
        s.install(endpoint, common, now, negotiated, keys, placement);
        if unlike {
            s.retire(new, Phase::Deleting);
            s.want(Task::DeleteChild(new));
            s.more.end();
            let who = s.who(common);
            endpoint.notice(
                true,
                "rekey",
                format!("{who}: another Child SA has narrower selectors than the first"),
            );
            return State::Established(s);
        }
        match place {
            Place::First => s.want_more(reqid),
            Place::InPlaceOf(_) => {}
            Place::Beside if s.wants_more(reqid) => s.want(Task::MoreChildren(reqid)),
            // The next request tells the peer that its answer came, so that it may use what it answered.
            Place::Beside => s.want(Task::Probe),
        }
        if lost {
            // Ours is the redundant one; the peer deletes the one that both rekeyed.
            s.retire(new, Phase::Deleting);
            s.want(Task::DeleteChild(new));
            if let Some(old) = old {
                s.retire(old, Phase::ReplacedByPeer);
            }
        } else {
            if let Some(old) = old {
                s.retire(old, Phase::Replaced { by: new });
            }
            if let Some(peer) = peer {
                s.retire(peer.made, Phase::ReplacedByPeer);
            }
        }
        if deleted.contains(&outbound) {
            // Its DELETE came first, and was answered as one for an SA that is not there. The peer holds nothing any more.
            s.deleted_by_peer(endpoint, common, outbound);
            return s.if_without_children(endpoint, now, common);
        }
        State::Established(s)
    }

    /// Section 2.25.1.
    fn on_refusal(
        self,
        mut s: Box<Established>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        (notify_type, data): (u16, &[u8]),
    ) -> State {
        let Self { offer, groups_tried, reqid, place, resource, peer, .. } = self;
        let rekeys = place.rekeys();
        if let (Some(_), Some(old)) = (&peer, rekeys) {
            // The peer's own rekey of it stands.
            s.retire(old, Phase::ReplacedByPeer);
            return State::Established(s);
        }
        let still_there = rekeys.filter(|old| s.child(*old).is_some());
        if rekeys.is_some() && still_there.is_none() {
            // The peer deleted it meanwhile, and its DELETE was dealt with, but for what to do without a Child SA: that waited
            // for this answer.
            if s.first_role == Role::Initiator && !s.children.iter().any(Child::is_current) {
                s.want(Task::NewChild);
            }
            return State::Established(s);
        }
        let other_group = other_group(data, &offer.proposals, &groups_tried);
        match (notify_type, other_group) {
            (notify::TEMPORARY_FAILURE, _) if place == Place::Beside => {
                if s.more.put_off() {
                    s.want_later(endpoint, now, common, Task::MoreChildren(reqid));
                }
            }
            (notify::TEMPORARY_FAILURE, _) => {
                let task = still_there.map_or(Task::NewChild, Task::RekeyChild);
                s.want_later(endpoint, now, common, task);
            }
            (notify::INVALID_KE_PAYLOAD, Some(group)) => {
                let mut tried = groups_tried;
                tried.push(group);
                let (local_ts, remote_ts) = offer.selectors();
                let terms = match s.model_of(reqid).filter(|_| place == Place::Beside) {
                    Some(like) => Terms::like(like, &s.connection),
                    None => Terms::of(&s.connection),
                };
                let wanted = Wanted { reqid, place, resource, terms, local_ts, remote_ts };
                if let Err(error) = Self::send(&mut s, endpoint, now, common, wanted, tried) {
                    let who = s.who(common);
                    endpoint.notice(true, "rekey", format!("{who}: cannot rekey: {error}"));
                }
            }
            (notify::CHILD_SA_NOT_FOUND, _) => {
                if let Some(old) = still_there {
                    let linger = endpoint.config.linger;
                    s.remove(endpoint, common, old, linger);
                }
                if !s.children.iter().any(|c| c.reqid == reqid && c.is_current()) {
                    s.want(Task::NewChild);
                }
            }
            _ if place == Place::Beside => {
                s.refused_more(endpoint, common, reqid, notify_type);
            }
            _ => {
                let name = notify::display(notify_type);
                let who = s.who(common);
                match still_there {
                    Some(spi) => {
                        if let Some(child) = s.child(spi) {
                            child.phase = Phase::Live;
                            child.rekey_at = Some(now.monotonic + RETRY_REFUSED);
                        }
                        endpoint.notice(
                            true,
                            "rekey",
                            format!("{who}: the peer refused to rekey Child SA {spi}: {name}"),
                        );
                    }
                    None if !s.children.iter().any(Child::is_current) => {
                        let reason = CloseReason::PeerRefused(format!("{name} for a new Child SA"));
                        return s.close(endpoint, now, common, reason);
                    }
                    None => {
                        endpoint.notice(true, "rekey", format!("{who}: the peer refused a Child SA: {name}"))
                    }
                }
            }
        }
        State::Established(s)
    }
}

/// The shared secret of a response that chose this group.
fn shared_secret(
    group: Group,
    ke: Option<Box<dyn KeyExchange>>,
    payloads: &Payloads,
) -> Result<Secret, &'static str> {
    let ke = ke.filter(|ke| ke.group() == group).ok_or("it chose a group for which we sent no KE payload")?;
    let (number, public) = payloads.ke.as_ref().ok_or("the answer has no KE payload")?;
    if *number != group.transform_id() {
        return Err("its KE payload is not of the group that it chose");
    }
    ke.agree(public).map_err(|_| "its KE payload is not acceptable")
}

// --- Child SA, responder ---------------------------------------------------------------------------------------

impl Established {
    pub(crate) fn on_create_child_sa(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        token: ResponseToken,
        payloads: &Payloads,
    ) -> State {
        let for_ike = payloads.sa.iter().flatten().next().is_some_and(|p| p.protocol == protocol::IKE);
        if for_ike {
            return self.on_ike_rekey(endpoint, now, common, token, payloads);
        }
        let answer = self.answer_child(endpoint, now, common, payloads).unwrap_or_else(|refusal| {
            let who = self.who(common);
            endpoint.notice(
                true,
                "refused_child_sa",
                format!("{who}: CREATE_CHILD_SA refused with {refusal}"),
            );
            vec![refusal.notify]
        });
        self.respond(endpoint, common, now, token, &answer);
        State::Established(self)
    }

    /// Section 2.25.1 tells which requests are refused, and how.
    fn answer_child(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        payloads: &Payloads,
    ) -> Result<Vec<Payload>, Refusal> {
        if self.closing.is_some() || matches!(self.pending, Some(Pending::Ike(_))) {
            return Err(not_now("we are rekeying or closing the IKE SA"));
        }
        let rekey = payloads.notify(notify::REKEY_SA);
        let old = match rekey {
            None => None,
            Some(n) => Some(self.find_rekeyed(&n.spi).ok_or_else(|| match self.pending {
                // It may be the one that the peer's answer makes, which was overtaken.
                Some(Pending::Child(_)) => not_now("the Child SA to rekey is not known yet"),
                _ => Refusal {
                    notify: Payload::Notify(Notify { notify_type: notify::CHILD_SA_NOT_FOUND, ..n.clone() }),
                    reason: "the peer wants to rekey a Child SA that does not exist".to_owned(),
                },
            })?),
        };
        if old.is_some_and(|old| !old.is_current()) {
            return Err(not_now("the Child SA to rekey is being deleted"));
        }
        if self.children.len() >= MAX_CHILDREN {
            return Err(Refusal::new(notify::NO_ADDITIONAL_SAS, "too many Child SAs"));
        }
        let ni = payloads.nonce.as_deref().ok_or_else(|| syntax("the request has no nonce"))?;
        let ke_group = payloads.ke.as_ref().and_then(|(number, _)| Group::from_transform(*number));
        let connection = self.connection.clone();
        let info = payloads.has(notify::SA_RESOURCE_INFO) && connection.per_resource.answers();
        let beside = if old.is_none() && info { self.join(payloads)? } else { None };
        let terms = match beside {
            Some(like) => Terms::like(like, &connection),
            None => Terms::of(&connection),
        };
        let selected = child::choose(&terms, payloads, Some(ke_group))?;
        let (ke, shared) = match selected.group() {
            None => (None, None),
            Some(group) => {
                let (ke, shared) = respond_ke(endpoint, group, payloads)?;
                (Some(ke), Some(shared))
            }
        };
        let replaces = old.map(|old| old.inbound);
        let joins = beside.is_some();
        let (reqid, resource, local, remote) = match (old, beside) {
            (Some(old), _) => (old.reqid, old.resource, old.local_ts.clone(), old.remote_ts.clone()),
            (None, Some(like)) => {
                let resource = Some(self.free_resource(like.reqid));
                (like.reqid, resource, like.local_ts.clone(), like.remote_ts.clone())
            }
            (None, None) => (
                endpoint.fresh_reqid(),
                info.then_some(0),
                child::local_policy(&connection, &self.lease),
                child::remote_policy(&connection, &self.lease),
            ),
        };
        let others = self.inbound_spis(reqid);
        let spi = if joins { SpiFor::Beside(&others) } else { SpiFor::replacing(replaces) };
        let negotiated = child::answer(endpoint, terms.ipcomp, selected, payloads, &local, &remote, spi)?;
        let nr = endpoint.nonce().map_err(|e| not_now(e.to_string()))?;
        let keys = self.sk_d.child(&endpoint.crypto, selected.suite(), shared, ni, &nr);
        let mut between = vec![Payload::Nonce(nr.clone())];
        between.extend(ke);
        let mut answer: Vec<Payload> = resource.map(per_resource::info).into_iter().collect();
        answer.extend(negotiated.payloads(between));
        let new = negotiated.inbound;
        // What others carry meanwhile waits until the peer is ready.
        let activate = if replaces.is_some() || joins { Activate::Later } else { Activate::Now };
        let place = Placement { reqid, resource, exchange_role: Role::Responder, activate, replaces };
        self.install(endpoint, common, now, negotiated, keys, place);
        if joins {
            self.use_soon(common, now, new);
        }
        if let Some(old) = replaces {
            match &mut self.pending {
                Some(Pending::Child(request)) if request.place == Place::InPlaceOf(old) => {
                    request.peer = Some(PeerRekey { made: new, lowest: lower(ni, &nr) });
                }
                _ => self.retire(old, Phase::ReplacedByPeer),
            }
        }
        Ok(answer)
    }

    /// REKEY_SA names the SPI that the peer receives with: our outbound one.
    fn find_rekeyed(&self, spi: &[u8]) -> Option<&Child> {
        let spi = Spi::new(u32::from_be_bytes(spi.try_into().ok()?))?;
        self.children.iter().find(|c| c.outbound == spi)
    }

    /// A Child SA is past its use: no more rekey of it.
    pub(crate) fn retire(&mut self, inbound: Spi, phase: Phase) {
        if let Some(child) = self.child(inbound) {
            child.phase = phase;
            child.rekey_at = None;
        }
        self.forget(&Task::RekeyChild(inbound));
    }
}

/// Our KE payload in answer to one of this group; another group in it gets INVALID_KE_PAYLOAD (section 1.3).
fn respond_ke(endpoint: &Endpoint, group: Group, payloads: &Payloads) -> Result<(Payload, Secret), Refusal> {
    match &payloads.ke {
        Some((number, public)) if *number == group.transform_id() => endpoint
            .crypto
            .groups
            .respond(group, public)
            .map(|(ours, shared)| (key_exchange(group, ours), shared))
            .map_err(|e| Refusal::new(notify::INVALID_SYNTAX, format!("KE payload: {e}"))),
        _ => Err(Refusal {
            notify: notify::plain(notify::INVALID_KE_PAYLOAD, group.transform_id().to_be_bytes()),
            reason: format!("key exchange method {} is required", group.transform_id()),
        }),
    }
}

// --- IKE SA, initiator -----------------------------------------------------------------------------------------

/// Our request to rekey the IKE SA.
pub(crate) struct IkeRequest {
    local_spi: u64,
    offered: Vec<Proposal>,
    ke: Box<dyn KeyExchange>,
    groups_tried: Vec<Group>,
    ni: Vec<u8>,
    /// The IKE SA (by our SPI) that the peer's own rekey made.
    peer: Option<PeerRekey<u64>>,
}

impl IkeRequest {
    pub(crate) fn start(
        s: &mut Established,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> Result<(), CryptoError> {
        // The group in use is one that the peer takes.
        let group = s.selected.group();
        Self::send(s, endpoint, now, common, group, Vec::new())
    }

    fn send(
        s: &mut Established,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        group: Group,
        mut tried: Vec<Group>,
    ) -> Result<(), CryptoError> {
        tried.push(group);
        let local_spi = endpoint.fresh_ike_spi()?;
        let offered = negotiation::offer_ike(&s.connection.ike, Some(local_spi));
        let ke = endpoint.crypto.groups.initiate(group)?;
        let ni = endpoint.nonce()?;
        let payloads =
            [Payload::Sa(offered.clone()), Payload::Nonce(ni.clone()), key_exchange(group, ke.public())];
        let request = Self { local_spi, offered, ke, groups_tried: tried, ni, peer: None };
        let pending = Pending::Ike(Box::new(request));
        s.send(endpoint, now, common, ExchangeType::CreateChildSa, &payloads, pending);
        Ok(())
    }

    pub(crate) fn on_response(
        self,
        s: Box<Established>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        payloads: &Payloads,
    ) -> State {
        let Some(answer) = payloads.sa.as_deref() else {
            return self.on_refusal(s, endpoint, now, common, refusal(payloads));
        };
        let Self { local_spi, offered, ke, ni, peer, .. } = self;
        let agreed = negotiation::accept_ike(&offered, answer).and_then(|selected| {
            let nr = payloads.nonce.as_deref().ok_or("the answer has no nonce")?;
            let shared = shared_secret(selected.group(), Some(ke), payloads)?;
            Ok((selected, nr, shared))
        });
        let (selected, nr, shared) = match agreed {
            Ok(agreed) => agreed,
            Err(why) => {
                let reason = CloseReason::PeerMisbehaved(format!("CREATE_CHILD_SA response: {why}"));
                return s.close(endpoint, now, common, reason);
            }
        };
        let new = NewIke { role: Role::Initiator, local_spi, selected, ni: &ni, nr };
        let mut ours = match new.derive(endpoint, common, &s, shared) {
            Ok(made) => made,
            Err(error) => {
                let reason = CloseReason::WeRefused(format!("cannot rekey the IKE SA: {error}"));
                return s.close(endpoint, now, common, reason);
            }
        };
        let lost = peer.filter(|p| lower(&ni, nr) < p.lowest).and_then(|p| endpoint.take_heir(p.made));
        match lost {
            Some(winner) => {
                // Ours is the redundant one; the peer deletes the one that both rekeyed.
                let state = Spare::delete(endpoint, now, &mut ours.common, ours.window);
                endpoint.insert(IkeSa::new(ours.common, state));
                s.inherit_and_linger(endpoint, now, common, winner)
            }
            None => {
                let old = s.inherit(endpoint, now, common, ours);
                Spare::delete(endpoint, now, common, old)
            }
        }
    }

    /// Section 2.25.2.
    fn on_refusal(
        self,
        mut s: Box<Established>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        (notify_type, data): (u16, &[u8]),
    ) -> State {
        if let Some(winner) = self.peer.as_ref().and_then(|p| endpoint.take_heir(p.made)) {
            return s.inherit_and_linger(endpoint, now, common, winner);
        }
        let other_group = other_group(data, &self.offered, &self.groups_tried);
        match (notify_type, other_group) {
            (notify::TEMPORARY_FAILURE, _) => s.want_later(endpoint, now, common, Task::RekeyIke),
            (notify::INVALID_KE_PAYLOAD, Some(group)) => {
                let tried = self.groups_tried;
                if let Err(error) = Self::send(&mut s, endpoint, now, common, group, tried) {
                    let who = s.who(common);
                    endpoint.notice(true, "rekey", format!("{who}: cannot rekey the IKE SA: {error}"));
                }
            }
            _ => {
                let (who, name) = (s.who(common), notify::display(notify_type));
                endpoint.notice(
                    true,
                    "rekey",
                    format!("{who}: the peer refused to rekey the IKE SA: {name}"),
                );
                common.timers.set(Timer::RekeyIke, now.monotonic + RETRY_REFUSED);
            }
        }
        State::Established(s)
    }
}

/// What an IKE SA is made of in a rekey.
struct NewIke<'a> {
    role: Role,
    local_spi: u64,
    selected: SelectedIke,
    ni: &'a [u8],
    nr: &'a [u8],
}

impl NewIke<'_> {
    fn derive(
        self,
        endpoint: &mut Endpoint,
        old: &IkeSaCommon,
        s: &Established,
        shared: Secret,
    ) -> Result<Successor, CryptoError> {
        let Self { role, local_spi, selected, ni, nr } = self;
        let common = IkeSaCommon {
            id: old.id,
            role,
            local_spi,
            remote_spi: selected.peer_spi(),
            path: old.path,
            timers: Timers::default(),
        };
        let spis = common.spis();
        let crypto = endpoint.crypto;
        let keys = Skeyseed::rekey(&crypto, &s.sk_d, selected, ni, nr, shared)
            .expand(&crypto, ni, nr, spis.0, spis.1);
        endpoint.log_keys(&common, &keys);
        let window = Window::new(&crypto, role, spis, &keys, 0, s.window.fragment_size())?;
        Ok(Successor { common, window, heir: Heir { sk_d: keys.sk_d, selected } })
    }
}

// --- IKE SA, responder -----------------------------------------------------------------------------------------

impl Established {
    fn on_ike_rekey(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        token: ResponseToken,
        payloads: &Payloads,
    ) -> State {
        let made = self.answer_ike_rekey(endpoint, common, payloads);
        let (answer, mut new, lowest) = match made {
            Ok(made) => made,
            Err(refusal) => {
                let who = self.who(common);
                endpoint.notice(
                    true,
                    "refused_rekey",
                    format!("{who}: rekey of the IKE SA refused with {refusal}"),
                );
                self.respond(endpoint, common, now, token, &[refusal.notify]);
                return State::Established(self);
            }
        };
        self.respond(endpoint, common, now, token, &answer);
        if let Some(Pending::Ike(request)) = &mut self.pending {
            // Both at once: which of the two lives, the nonces decide when ours is answered.
            request.peer = Some(PeerRekey { made: new.common.local_spi, lowest });
            let state = Spare::linger(endpoint, now, &mut new.common, new.window, Some(new.heir));
            endpoint.insert(IkeSa::new(new.common, state));
            return State::Established(self);
        }
        self.inherit_and_linger(endpoint, now, common, new)
    }

    /// The answer, the new IKE SA, and the lower one of the exchange's nonces.
    fn answer_ike_rekey(
        &mut self,
        endpoint: &mut Endpoint,
        common: &IkeSaCommon,
        payloads: &Payloads,
    ) -> Result<(Vec<Payload>, Successor, Vec<u8>), Refusal> {
        // Section 2.25.2.
        if self.closing.is_some() || matches!(self.pending, Some(Pending::Child(_) | Pending::DeleteChild(_)))
        {
            return Err(not_now("we are working on a Child SA, or closing"));
        }
        let offered = payloads.sa.as_deref().ok_or_else(|| syntax("the request has no SA payload"))?;
        let ni = payloads.nonce.as_deref().ok_or_else(|| syntax("the request has no nonce"))?;
        let ke_group = payloads.ke.as_ref().and_then(|(number, _)| Group::from_transform(*number));
        let selected =
            negotiation::select_ike(&self.connection.ike, offered, ke_group, true).ok_or_else(|| {
                let offers = negotiation::describe(offered);
                let why = format!("no IKE proposal of the peer fits the connection's; it offers {offers}");
                Refusal::new(notify::NO_PROPOSAL_CHOSEN, why)
            })?;
        let (ke, shared) = respond_ke(endpoint, selected.group(), payloads)?;
        let crypto_failed = |e: CryptoError| not_now(e.to_string());
        let nr = endpoint.nonce().map_err(crypto_failed)?;
        let local_spi = endpoint.fresh_ike_spi().map_err(crypto_failed)?;
        let new = NewIke { role: Role::Responder, local_spi, selected, ni, nr: &nr };
        let new = new.derive(endpoint, common, self, shared).map_err(crypto_failed)?;
        let answer =
            vec![Payload::Sa(vec![selected.to_proposal(Some(local_spi))]), Payload::Nonce(nr.clone()), ke];
        Ok((answer, new, lower(ni, &nr)))
    }

    /// The new IKE SA inherits all (section 2.8). Returns the old one's windows.
    pub(crate) fn inherit(
        self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        old: &IkeSaCommon,
        new: Successor,
    ) -> Window {
        let Successor { mut common, window, heir } = new;
        let (this, old_window) = self.take_over(endpoint, now, old, &mut common, window, heir);
        let state = this.pump(endpoint, now, &mut common);
        endpoint.insert(IkeSa::new(common, state));
        old_window
    }

    /// Where the peer deletes the old one.
    pub(crate) fn inherit_and_linger(
        self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        new: Successor,
    ) -> State {
        let old_window = self.inherit(endpoint, now, common, new);
        Spare::linger(endpoint, now, common, old_window, None)
    }

    /// Goes on as the new IKE SA `common`.
    pub(crate) fn take_over(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        old: &IkeSaCommon,
        common: &mut IkeSaCommon,
        window: Window,
        heir: Heir,
    ) -> (Box<Self>, Window) {
        common.path = old.path;
        common.timers = Timers::default();
        let old_window = std::mem::replace(&mut self.window, window);
        self.sk_d = heir.sk_d;
        self.selected = heir.selected;
        self.heard = now.monotonic;
        // That hash covers the SPIs.
        self.seen_as = None;
        self.tell_mapping();
        // Their answers come on the old one, where nobody waits for them.
        match self.pending.take() {
            Some(Pending::Update(_)) => self.want(Task::UpdateAddresses),
            Some(Pending::CheckPath(_)) => self.want(Task::CheckPath),
            Some(Pending::Tell) => self.want(Task::TellAddresses),
            _ => {}
        }
        self.forget(&Task::RekeyIke);
        for child in &self.children {
            endpoint.children.insert(child.inbound, common.local_spi);
            endpoint.reqids.insert(child.reqid, common.local_spi);
        }
        self.arm(endpoint, common, now);
        self.arm_children(common);
        common.timers.set_or_stop(Timer::Retry, old.timers.get(Timer::Retry));
        common.timers.set_or_stop(Timer::Retire, old.timers.get(Timer::Retire));
        let give_up = old.timers.get(Timer::GiveUp).filter(|_| self.closing.is_some());
        common.timers.set_or_stop(Timer::GiveUp, give_up);
        common.timers.set_or_stop(Timer::DropCached, old.timers.get(Timer::DropCached));
        endpoint.rename(common.id, common.local_spi);
        endpoint.events.push_back(Event::IkeRekeyed { ike: common.id });
        (self, old_window)
    }

    /// DELETE for the IKE SA came while our own rekey of it was on its way and the peer's had been answered: the peer
    /// has not seen ours, and goes on with its own (section 2.8.2).
    pub(crate) fn heir_of_collision(&self) -> Option<u64> {
        match &self.pending {
            Some(Pending::Ike(request)) => request.peer.as_ref().map(|p| p.made),
            _ => None,
        }
    }
}
