//! Child SAs: what is negotiated for them, in IKE_AUTH and CREATE_CHILD_SA alike, and how they are installed.

use crate::config::{AddressConfig, Connection, EspProposal, IpcompPolicy, Now, Role};
use crate::endpoint::{Endpoint, IkeSaCommon};
use crate::established::Established;
use crate::event::{Activate, ChildHalf, ChildSa, Event, Lease, Reqid};
use crate::keymat::ChildKeys;
use crate::negotiation::{self, SelectedEsp};
use crate::notify;
use crate::payloads::Payloads;
use crate::prefix::Prefix6;
use crate::selector::{self, TrafficSelector, narrow};
use crate::wire::{Payload, Proposal};
use ferry6_crypto::{CipherSuite, CryptoError, Group, Spi};
use std::fmt;
use std::time::{Duration, Instant};

/// IPCOMP_DEFLATE (RFC 7296 section 3.10.1).
const IPCOMP_DEFLATE: u8 = 2;

/// One Child SA.
pub(crate) struct Child {
    pub(crate) reqid: Reqid,
    /// Its number among those of its reqid, where SA_RESOURCE_INFO was agreed upon (RFC 9611).
    pub(crate) resource: Option<u32>,
    pub(crate) inbound: Spi,
    pub(crate) outbound: Spi,
    pub(crate) suite: CipherSuite,
    pub(crate) esn: bool,
    pub(crate) ipcomp: bool,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
    pub(crate) since: Instant,
    pub(crate) rekey_at: Option<Instant>,
    pub(crate) expire_at: Option<Instant>,
    /// A fresh one that stands beside others is used from then on, whether the peer has shown that it is ready or not.
    pub(crate) use_at: Option<Instant>,
    pub(crate) phase: Phase,
}

/// Where in its life a Child SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In use.
    Live,
    /// Answered by us, in a rekey or beside others: outbound is used when the peer has shown that it is ready.
    Fresh,
    /// A rekey is wanted or on its way.
    Rekeying,
    /// We replaced it; DELETE goes out when the worker uses the new one.
    Replaced { by: Spi },
    /// The peer replaced it and will delete it.
    ReplacedByPeer,
    /// Our DELETE is wanted or on its way.
    Deleting,
}

impl Child {
    /// Whether it carries, or will carry, the traffic of its reqid.
    pub(crate) fn is_current(&self) -> bool {
        matches!(self.phase, Phase::Live | Phase::Fresh | Phase::Rekeying)
    }
}

/// What may be negotiated for a Child SA.
pub(crate) struct Terms {
    pub(crate) esp: Vec<EspProposal>,
    pub(crate) ipcomp: IpcompPolicy,
}

impl Terms {
    /// What the connection allows.
    pub(crate) fn of(connection: &Connection) -> Self {
        Self { esp: connection.esp.clone(), ipcomp: connection.ipcomp }
    }
}

/// What we offered and must remember until the answer comes.
pub(crate) struct Offer {
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) inbound: Spi,
    cpi: Option<u16>,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
}

/// What both sides agreed upon.
pub(crate) struct Negotiated {
    pub(crate) selected: SelectedEsp,
    pub(crate) inbound: Spi,
    /// Ours, the peer's.
    cpi: Option<(u16, u16)>,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
}

/// Why there is no Child SA: the notify for the wire, the reason for the log.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) notify: Payload,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(notify_type: u16, reason: impl Into<String>) -> Self {
        Self { notify: notify::plain(notify_type, Vec::new()), reason: reason.into() }
    }
}

/// As a log has it: `TS_UNACCEPTABLE: the peer's traffic selectors ..`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Payload::Notify(notify) = &self.notify {
            write!(f, "{notify}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// Our side of the selectors: what we requested and got shrinks it to that.
pub(crate) fn local_policy(connection: &Connection, lease: &Lease) -> Vec<TrafficSelector> {
    match &connection.addresses {
        AddressConfig::Request { .. } => leased(lease, &connection.local_ts),
        AddressConfig::None | AddressConfig::Assign => connection.local_ts.clone(),
    }
}

/// The peer's side: what we gave shrinks it to that.
pub(crate) fn remote_policy(connection: &Connection, lease: &Lease) -> Vec<TrafficSelector> {
    match &connection.addresses {
        AddressConfig::Assign => leased(lease, &connection.remote_ts),
        AddressConfig::None | AddressConfig::Request { .. } => connection.remote_ts.clone(),
    }
}

/// The part of a policy that a lease leaves: its address, and its prefix.
fn leased(lease: &Lease, policy: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let Some(address) = lease.address else { return policy.to_vec() };
    let mut own = vec![TrafficSelector::host_v6(address)];
    own.extend(lease.prefix.map(Prefix6::selector));
    narrow(&own, policy)
}

/// For what an inbound SPI is, which decides on the worker that owns it.
#[derive(Clone, Copy)]
pub(crate) enum SpiFor<'a> {
    /// A Child SA of a new reqid.
    New,
    /// One that takes the place of this one.
    InPlaceOf(Spi),
    /// One more beside these.
    Beside(&'a [Spi]),
}

impl SpiFor<'_> {
    /// In a rekey, in place of what is rekeyed.
    pub(crate) fn replacing(old: Option<Spi>) -> Self {
        old.map_or(Self::New, Self::InPlaceOf)
    }
}

fn ipcomp_payload(cpi: u16) -> Payload {
    let [high, low] = cpi.to_be_bytes();
    notify::plain(notify::IPCOMP_SUPPORTED, vec![high, low, IPCOMP_DEFLATE])
}

/// The peer's CPI, if it offers DEFLATE (section 2.22).
fn peer_cpi(payloads: &Payloads) -> Option<u16> {
    payloads.notifies.iter().find_map(|n| match n.data[..] {
        [high, low, IPCOMP_DEFLATE] if n.notify_type == notify::IPCOMP_SUPPORTED => {
            Some(u16::from_be_bytes([high, low])).filter(|cpi| *cpi >= 256)
        }
        _ => None,
    })
}

/// Our offer and its payloads: `[N(IPCOMP_SUPPORTED)] SA`, then what `between` holds (nonce, KE), then `TSi TSr`.
pub(crate) fn offer(
    endpoint: &mut Endpoint,
    terms: &Terms,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
    with_ke: bool,
    spi: SpiFor<'_>,
    between: Vec<Payload>,
) -> Result<(Offer, Vec<Payload>), CryptoError> {
    let inbound = endpoint.fresh_spi(spi);
    let proposals = negotiation::offer_esp(&terms.esp, inbound, with_ke);
    let cpi = match terms.ipcomp {
        IpcompPolicy::On => Some(endpoint.fresh_cpi()?),
        IpcompPolicy::Off | IpcompPolicy::Accept => None,
    };
    let mut payloads: Vec<Payload> = cpi.map(ipcomp_payload).into_iter().collect();
    payloads.push(Payload::Sa(proposals.clone()));
    payloads.extend(between);
    payloads.push(Payload::TsInitiator(local_ts.clone()));
    payloads.push(Payload::TsResponder(remote_ts.clone()));
    Ok((Offer { proposals, inbound, cpi, local_ts, remote_ts }, payloads))
}

impl Offer {
    /// What was asked for: our side, the peer's.
    pub(crate) fn selectors(self) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
        (self.local_ts, self.remote_ts)
    }

    /// The peer's answer, checked against the offer. Selectors that are wider than what we asked for are narrowed to
    /// `local` (our address) and to what we asked for, since some peers answer with all of their policy.
    pub(crate) fn accept(
        self,
        payloads: &Payloads,
        local: &[TrafficSelector],
    ) -> Result<Negotiated, &'static str> {
        let answer = payloads.sa.as_deref().ok_or("the answer has no SA payload")?;
        let selected = negotiation::accept_esp(&self.proposals, answer)?;
        let ts_initiator = payloads.ts_initiator.as_deref().ok_or("the answer has no TSi payload")?;
        let ts_responder = payloads.ts_responder.as_deref().ok_or("the answer has no TSr payload")?;
        let local_ts = narrow(&narrow(ts_initiator, &self.local_ts), local);
        let remote_ts = narrow(&selector::meant(ts_responder), &self.remote_ts);
        if local_ts.is_empty() || remote_ts.is_empty() {
            return Err("the answer's traffic selectors have nothing in common with ours");
        }
        let cpi = self.cpi.and_then(|ours| Some((ours, peer_cpi(payloads)?)));
        Ok(Negotiated { selected, inbound: self.inbound, cpi, local_ts, remote_ts })
    }
}

/// Chooses, as the exchange's responder. `ke` as in [`negotiation::select_esp`].
pub(crate) fn choose(
    terms: &Terms,
    payloads: &Payloads,
    ke: Option<Option<Group>>,
) -> Result<SelectedEsp, Refusal> {
    let offered = payloads
        .sa
        .as_deref()
        .ok_or_else(|| Refusal::new(notify::INVALID_SYNTAX, "the request has no SA payload"))?;
    negotiation::select_esp(&terms.esp, offered, ke).ok_or_else(|| {
        Refusal::new(
            notify::NO_PROPOSAL_CHOSEN,
            format!(
                "no ESP proposal of the peer fits the connection's; it offers {}",
                negotiation::describe(offered)
            ),
        )
    })
}

/// Narrows the peer's selectors to ours, as the exchange's responder, and takes an SPI.
pub(crate) fn answer(
    endpoint: &mut Endpoint,
    ipcomp: IpcompPolicy,
    selected: SelectedEsp,
    payloads: &Payloads,
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
    spi: SpiFor<'_>,
) -> Result<Negotiated, Refusal> {
    let (Some(ts_initiator), Some(ts_responder)) = (&payloads.ts_initiator, &payloads.ts_responder) else {
        return Err(Refusal::new(notify::INVALID_SYNTAX, "the request has no traffic selectors"));
    };
    let remote_ts = narrow(&selector::meant(ts_initiator), remote);
    let local_ts = narrow(ts_responder, local);
    if local_ts.is_empty() || remote_ts.is_empty() {
        return Err(Refusal::new(
            notify::TS_UNACCEPTABLE,
            format!(
                "the peer's traffic selectors have nothing in common with the connection's; it asks for {} === {}",
                selector::list(ts_initiator),
                selector::list(ts_responder)
            ),
        ));
    }
    let cpi = match (ipcomp, peer_cpi(payloads)) {
        (IpcompPolicy::Accept | IpcompPolicy::On, Some(theirs)) => {
            endpoint.fresh_cpi().ok().map(|c| (c, theirs))
        }
        _ => None,
    };
    Ok(Negotiated { selected, inbound: endpoint.fresh_spi(spi), cpi, local_ts, remote_ts })
}

impl Negotiated {
    /// `[N(IPCOMP_SUPPORTED)] SA`, then `between`, then `TSi TSr`, as the exchange's responder.
    pub(crate) fn payloads(&self, between: Vec<Payload>) -> Vec<Payload> {
        let mut out: Vec<Payload> = self.cpi.map(|(ours, _)| ipcomp_payload(ours)).into_iter().collect();
        out.push(Payload::Sa(vec![self.selected.to_proposal(self.inbound)]));
        out.extend(between);
        out.push(Payload::TsInitiator(self.remote_ts.clone()));
        out.push(Payload::TsResponder(self.local_ts.clone()));
        out
    }
}

/// How a new Child SA takes its place.
pub(crate) struct Placement {
    pub(crate) reqid: Reqid,
    /// As in [`Child::resource`].
    pub(crate) resource: Option<u32>,
    /// Our role in the exchange that made it.
    pub(crate) exchange_role: Role,
    pub(crate) activate: Activate,
    /// Our inbound SPI of the one that it replaces.
    pub(crate) replaces: Option<Spi>,
}

/// Packets that one SA may carry before it is rekeyed: below 2^32 sequence numbers, or with ESN far above what any
/// line carries between two rekeys.
const fn packet_limit(esn: bool) -> u64 {
    if esn { 1 << 40 } else { 3 << 30 }
}

/// Octets under one key: 2^36 blocks of AES keep the distinguishing advantage below 2^-56 (birthday bound of a
/// 128-bit block; draft-irtf-cfrg-aead-limits for GCM). ChaCha20-Poly1305 has no such bound.
fn octet_limit(suite: CipherSuite) -> u64 {
    match suite.cipher() {
        ferry6_crypto::Cipher::ChaCha20Poly1305 => 1 << 60,
        _ => 1 << 40,
    }
}

fn lower_of(configured: u64, limit: u64) -> u64 {
    if configured == 0 { limit } else { configured.min(limit) }
}

impl Established {
    /// Registers and announces a new Child SA.
    pub(crate) fn install(
        &mut self,
        endpoint: &mut Endpoint,
        common: &mut IkeSaCommon,
        now: Now,
        negotiated: Negotiated,
        keys: ChildKeys,
        place: Placement,
    ) {
        let Negotiated { selected, inbound, cpi, local_ts, remote_ts } = negotiated;
        let outbound = selected.peer_spi();
        let (ours, theirs) = match place.exchange_role {
            Role::Initiator => (keys.initiator, keys.responder),
            Role::Responder => (keys.responder, keys.initiator),
        };
        let connection = &self.connection;
        let share = endpoint.fuzz();
        let less = |limit: u64| limit - (limit as f64 * share) as u64;
        let soft_packets = less(lower_of(connection.child_rekey_packets, packet_limit(selected.esn())));
        let soft_bytes = less(lower_of(connection.child_rekey_bytes, octet_limit(selected.suite())));
        let lifetime = Some(connection.child_rekey).filter(|d| !d.is_zero());
        let event = ChildSa {
            ike: common.id,
            connection: connection.name.clone(),
            reqid: place.reqid,
            resource: place.resource.unwrap_or(0),
            inbound: ChildHalf { spi: inbound, keys: theirs, ipcomp_cpi: cpi.map(|c| c.0) },
            outbound: ChildHalf { spi: outbound, keys: ours, ipcomp_cpi: cpi.map(|c| c.1) },
            esn: selected.esn(),
            local_ts: local_ts.clone(),
            remote_ts: remote_ts.clone(),
            path: common.path,
            activate: place.activate,
            replaces: place.replaces,
            soft_packets,
            soft_bytes,
        };
        let phase = match place.activate {
            Activate::Now => Phase::Live,
            Activate::Later => Phase::Fresh,
        };
        self.last_child = now.monotonic;
        self.children.push(Child {
            reqid: place.reqid,
            resource: place.resource,
            inbound,
            outbound,
            suite: selected.suite(),
            esn: selected.esn(),
            ipcomp: cpi.is_some(),
            local_ts,
            remote_ts,
            since: now.monotonic,
            rekey_at: lifetime.map(|d| now.monotonic + d - d.mul_f64(share)),
            expire_at: lifetime.map(|d| now.monotonic + d + hard_margin(d)),
            use_at: None,
            phase,
        });
        endpoint.children.insert(inbound, common.local_spi);
        endpoint.reqids.insert(place.reqid, common.local_spi);
        endpoint.events.push_back(Event::InstallChildSa(Box::new(event)));
        self.arm_children(common);
    }

    /// Takes a Child SA out and tells the embedder.
    pub(crate) fn remove(
        &mut self,
        endpoint: &mut Endpoint,
        common: &mut IkeSaCommon,
        inbound: Spi,
        linger: Duration,
    ) {
        let Some(at) = self.children.iter().position(|c| c.inbound == inbound) else { return };
        let child = self.children.remove(at);
        let last = !self.children.iter().any(|c| c.reqid == child.reqid);
        endpoint.children.remove(&inbound);
        if last {
            endpoint.reqids.remove(&child.reqid);
        }
        endpoint.events.push_back(Event::RemoveChildSa {
            reqid: child.reqid,
            inbound,
            outbound: child.outbound,
            linger,
            last,
        });
        self.arm_children(common);
    }

    pub(crate) fn child(&mut self, inbound: Spi) -> Option<&mut Child> {
        self.children.iter_mut().find(|c| c.inbound == inbound)
    }

    /// Sets the timer to the first of the Child SAs' times.
    pub(crate) fn arm_children(&self, common: &mut IkeSaCommon) {
        let next = self.children.iter().flat_map(|c| [c.rekey_at, c.expire_at, c.use_at]).flatten().min();
        common.timers.set_or_stop(crate::timer::Timer::Children, next);
    }
}

/// How long after its rekey was due an SA is given up: a tenth, but never less than a minute.
pub(crate) fn hard_margin(lifetime: Duration) -> Duration {
    (lifetime / 10).max(Duration::from_secs(60))
}
