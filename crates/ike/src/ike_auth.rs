//! IKE_AUTH (RFC 7296 sections 1.2, 2.15, 2.16, 2.19, 2.21.2): both roles.
//!
//! A peer whose authentication fails learns AUTHENTICATION_FAILED and nothing else; why, stands in the log.

use crate::auth::{self, AuthError, method};
use crate::certs::{self, CertError};
use crate::checking::{Checking, Then};
use crate::child::{self, Offer, Placement, Refusal, SpiFor, Terms};
use crate::config::{
    AddressConfig, Connection, Credential, LeaseRequest, NatPolicy, Now, PeerAuth, PrefixWish, RemoteId,
    Role, Unique,
};
use crate::counters::Counter;
use crate::endpoint::{Datagram, Endpoint, IkeSaCommon, State};
use crate::established::Established;
use crate::event::{Activate, CloseReason, Lease, Reqid};
use crate::identity::Identity;
use crate::ike_sa_init::InitKey;
use crate::keymat::{AuthKeys, SkD};
use crate::mobike;
use crate::nat::Nat;
use crate::negotiation::{self, SelectedIke};
use crate::notify;
use crate::payloads::Payloads;
use crate::per_resource;
use crate::revocation::Query;
use crate::spare::Spare;
use crate::timer::Timer;
use crate::window::{Incoming, Packets, ResponseToken, Window};
use crate::wire::cert::encoding::X509_SIGNATURE;
use crate::wire::config::{encode_ip6_address, encode_ip6_prefix, ip6_address, ip6_dns, ip6_prefix};
use crate::wire::{Config, ExchangeType, Payload, RawId, attribute, cfg_type};
use ferry6_crypto::HashAlgorithm;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Why a peer's authentication is refused: where it is counted, and the text for the log.
pub(crate) struct Failure {
    pub(crate) kind: Counter,
    pub(crate) why: String,
}

impl Failure {
    pub(crate) fn new(kind: Counter, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }
    /// A certificate is revoked, or whether it is was not to be learned.
    pub(crate) fn revoked(error: &CertError) -> Self {
        Self::new(Counter::AuthRevoked, error.to_string())
    }
}

impl From<CertError> for Failure {
    fn from(error: CertError) -> Self {
        let kind = match error {
            CertError::Revoked { .. } | CertError::RevocationUnknown { .. } | CertError::NoCrl { .. } => {
                Counter::AuthRevoked
            }
            _ => Counter::AuthCertificate,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        let kind = match error {
            AuthError::Method(_) => Counter::AuthMethod,
            _ => Counter::AuthSignature,
        };
        Self::new(kind, error.to_string())
    }
}

/// What IKE_SA_INIT leaves for IKE_AUTH. Dropped when that is over.
pub(crate) struct Agreed {
    pub(crate) selected: SelectedIke,
    pub(crate) sk_d: SkD,
    pub(crate) auth_keys: AuthKeys,
    pub(crate) window: Window,
    /// RealMessage1 and RealMessage2 of section 2.15.
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    pub(crate) ni: Vec<u8>,
    pub(crate) nr: Vec<u8>,
    pub(crate) peer_hashes: Option<Vec<HashAlgorithm>>,
    pub(crate) fragmentation: bool,
    pub(crate) nat: Nat,
    pub(crate) vendor: Vec<String>,
}

impl Agreed {
    /// What `signer` signs: its first message, the other's nonce, prf(SK_p, its ID).
    fn signed_octets(&self, endpoint: &Endpoint, signer: Role, id: &RawId) -> Vec<u8> {
        let (message, nonce) = match signer {
            Role::Initiator => (&self.request, &self.nr),
            Role::Responder => (&self.response, &self.ni),
        };
        let sk_p = self.auth_keys.of(signer);
        auth::signed_octets(&endpoint.crypto, self.selected.prf(), message, nonce, sk_p, id)
    }

    /// Our AUTH payload, and in front of it our CERT payloads.
    fn prove(
        &self,
        endpoint: &Endpoint,
        connection: &Connection,
        role: Role,
        id: &RawId,
    ) -> Result<(Vec<Payload>, Payload), String> {
        let octets = self.signed_octets(endpoint, role, id);
        match &connection.credential {
            Credential::Psk(psk) => {
                let data = auth::psk_auth(&endpoint.crypto, self.selected.prf(), psk, &octets);
                let data = data.expose().to_vec();
                Ok((Vec::new(), Payload::Auth { method: method::PSK, data }))
            }
            Credential::Certificate { chain, key } => {
                let (method, data) = auth::sign(key.as_ref(), self.peer_hashes.as_deref(), &octets)
                    .map_err(|e| format!("connection {:?}: cannot sign: {e}", connection.name))?;
                let certs = chain
                    .iter()
                    .map(|c| Payload::Cert { encoding: X509_SIGNATURE, data: c.to_vec() })
                    .collect();
                Ok((certs, Payload::Auth { method, data }))
            }
        }
    }

    /// Checks the peer's AUTH against one connection, and returns of which certificates the status must still be asked for.
    /// The error is for the log.
    fn verify(
        &self,
        endpoint: &Endpoint,
        now: Now,
        connection: &Connection,
        peer: Role,
        raw_id: &RawId,
        payloads: &Payloads,
    ) -> Result<Vec<Query>, Failure> {
        let Some((method, data)) = &payloads.auth else {
            let why = "it sent no AUTH payload: it wants EAP, which is not supported";
            return Err(Failure::new(Counter::AuthMethod, why));
        };
        let octets = self.signed_octets(endpoint, peer, raw_id);
        match &connection.peer_auth {
            PeerAuth::Psk(psk) => {
                if *method != method::PSK {
                    let why = format!("it authenticates by method {method}, a pre-shared key is required");
                    return Err(Failure::new(Counter::AuthMethod, why));
                }
                let expected = auth::psk_auth(&endpoint.crypto, self.selected.prf(), psk, &octets);
                if expected.ct_eq(data) {
                    Ok(Vec::new())
                } else {
                    Err(Failure::new(Counter::AuthPsk, "its pre-shared key is not the same as ours"))
                }
            }
            PeerAuth::Certificate { anchors, crls, revocation } => {
                if *method == method::PSK {
                    let why = "it authenticates by pre-shared key, a certificate is required";
                    return Err(Failure::new(Counter::AuthMethod, why));
                }
                let certs = payloads.certs.iter().map(|(encoding, der)| (*encoding, der.as_slice()));
                let chain = certs::chain_from_payloads(certs)?;
                let verified = certs::verify_peer(
                    &endpoint.crypto,
                    &chain,
                    &Identity::from(raw_id),
                    anchors,
                    crls,
                    *revocation,
                    now.wall,
                )?;
                auth::verify(&endpoint.crypto, &verified.spki, *method, data, &octets)?;
                Ok(verified.queries)
            }
        }
    }
}

/// Where the size of IKE messages is bounded, and the peer can put fragments together (RFC 7383 section 2.3).
fn fragment_size(connection: &Connection, agreed: &Agreed) -> Option<usize> {
    connection.fragment_size.filter(|_| agreed.fragmentation)
}

// --- initiator -------------------------------------------------------------------------------------------------

/// Awaits the response of IKE_AUTH.
pub(crate) struct AuthSent {
    pub(crate) connection: Arc<Connection>,
    pub(crate) agreed: Agreed,
    pub(crate) offer: Offer,
    pub(crate) reqid: Reqid,
}

impl AuthSent {
    pub(crate) fn start(
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        connection: Arc<Connection>,
        mut agreed: Agreed,
    ) -> State {
        if !agreed.nat.supported {
            // Without it the peer would send ESP outside UDP, which does not reach us.
            let why = "the peer does not support NAT traversal (no NAT_DETECTION in IKE_SA_INIT), and ESP is carried in UDP only";
            return endpoint.fail(common, Some(&connection), None, CloseReason::WeRefused(why.to_owned()));
        }
        if let Some(why) = forbidden_nat(&connection, &agreed.nat) {
            return endpoint.fail(common, Some(&connection), None, CloseReason::WeRefused(why.to_owned()));
        }
        agreed.window.set_fragment_size(fragment_size(&connection, &agreed));
        let id = RawId::from(&connection.local_id);
        let local_ts = connection.local_ts.clone();
        let remote_ts = connection.remote_ts.clone();
        let built = agreed.prove(endpoint, &connection, Role::Initiator, &id).and_then(|proof| {
            let terms = Terms::of(&connection);
            let child = child::offer(endpoint, &terms, local_ts, remote_ts, false, SpiFor::New, Vec::new())
                .map_err(|e| e.to_string())?;
            Ok((proof, child))
        });
        let ((certs, auth), (offer, child)) = match built {
            Ok(built) => built,
            Err(why) => {
                return endpoint.fail(common, Some(&connection), None, CloseReason::WeRefused(why));
            }
        };
        let mut payloads = vec![Payload::IdInitiator(id)];
        payloads.extend(certs);
        // We keep no IKE SA across a restart; where this is our first one with the peer, it may drop older ones. Not where other
        // hosts may have our identity too (section 2.4): those would be theirs.
        let alone = match &connection.remote_id {
            RemoteId::Exactly(id) => !endpoint.peers.contains_key(id),
            RemoteId::Any | RemoteId::Pattern(_) => endpoint.peers.is_empty(),
        };
        if alone && connection.unique != Unique::Never {
            payloads.push(notify::plain(notify::INITIAL_CONTACT, Vec::new()));
        }
        if let PeerAuth::Certificate { anchors, .. } = &connection.peer_auth {
            let data = certs::cert_request(&endpoint.crypto, anchors);
            payloads.push(Payload::CertReq { encoding: X509_SIGNATURE, data });
        }
        if let RemoteId::Exactly(id) = &connection.remote_id {
            payloads.push(Payload::IdResponder(RawId::from(id)));
        }
        payloads.push(auth);
        payloads.extend(config_request(&connection));
        payloads.extend(connection.per_resource.asks().then(|| per_resource::info(0)));
        payloads.extend(child);
        if connection.mobike {
            payloads.push(notify::plain(notify::MOBIKE_SUPPORTED, Vec::new()));
            payloads.extend(mobike::our_addresses(endpoint, common.path));
            if connection.nat == NatPolicy::Forbid {
                payloads.push(mobike::no_nats_of_ours(common.path));
            }
        }
        agreed.window.request(endpoint, now, common, ExchangeType::IkeAuth, &payloads);
        let reqid = endpoint.fresh_reqid();
        State::AuthSent(Box::new(Self { connection, agreed, offer, reqid }))
    }

    pub(crate) fn on_timer(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        timer: Timer,
    ) -> State {
        if timer == Timer::Retransmit
            && let Some(timeout) = self.agreed.window.retransmit(endpoint, now, common)
        {
            return endpoint.fail(common, Some(&self.connection), None, timeout);
        }
        State::AuthSent(self)
    }

    pub(crate) fn on_message(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        datagram: &Datagram<'_>,
    ) -> State {
        // A request can come only after our IKE_AUTH was answered: its time has not come, and the peer will repeat it.
        if !datagram.header.response {
            return State::AuthSent(self);
        }
        match self.agreed.window.receive(endpoint, datagram) {
            Incoming::Response(payloads) => {
                common.timers.stop(Timer::Retransmit);
                match payloads {
                    Ok(payloads) => self.on_response(endpoint, now, common, payloads),
                    Err(why) => {
                        let reason = CloseReason::PeerMisbehaved(format!("IKE_AUTH response: {why}"));
                        endpoint.fail(common, Some(&self.connection), None, reason)
                    }
                }
            }
            Incoming::Nothing | Incoming::Seen | Incoming::Request(..) => State::AuthSent(self),
        }
    }

    fn on_response(
        self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        payloads: Payloads,
    ) -> State {
        let (Some(raw_id), true) = (&payloads.id_responder, payloads.auth.is_some()) else {
            // No IKE SA came up: the notify stands alone.
            let reason = match payloads.error() {
                Some(error) => CloseReason::PeerRefused(refusal_text(error.notify_type, &self.offer)),
                None => CloseReason::PeerMisbehaved("IKE_AUTH response without IDr or AUTH".to_owned()),
            };
            return endpoint.fail(common, Some(&self.connection), None, reason);
        };
        let remote_id = Identity::from(raw_id);
        let connection = &self.connection;
        let verified = if connection.remote_id.matches(&remote_id) {
            self.agreed.verify(endpoint, now, connection, Role::Responder, raw_id, &payloads)
        } else {
            let why = format!("it is not the one that connection {:?} is for", connection.name);
            Err(Failure::new(Counter::AuthIdentity, why))
        };
        match verified {
            Ok(queries) if !queries.is_empty() => {
                let Self { connection, agreed, offer, reqid } = *self;
                let then = Then::Accept(offer, reqid);
                Checking { connection, agreed, payloads, remote_id, then }
                    .start(endpoint, now, common, queries)
            }
            verified => self.conclude(endpoint, now, common, &payloads, remote_id, verified.map(drop)),
        }
    }

    /// The peer is who it says, and whether its certificates are revoked is known; or not.
    pub(crate) fn conclude(
        self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        payloads: &Payloads,
        remote_id: Identity,
        verified: Result<(), Failure>,
    ) -> State {
        let Self { connection, agreed, offer, reqid } = self;
        if let Err(Failure { kind, why }) = verified {
            endpoint.counters.count(kind);
            // Section 2.21.2: the responder believes that the IKE SA is up; it is told by a request of its own.
            let failed = Refusal::new(notify::AUTHENTICATION_FAILED, why);
            let text = format!("{remote_id} ({}) is refused with {failed}", common.path.remote);
            let reason = CloseReason::WeRefused(text);
            endpoint.fail(common, Some(&connection), Some(remote_id), reason);
            return Spare::say_last(endpoint, now, common, agreed.window, &[failed.notify]);
        }
        let refuse = |endpoint: &mut Endpoint, common: &mut IkeSaCommon, window, reason| {
            endpoint.fail(common, Some(&connection), Some(remote_id.clone()), reason);
            Spare::delete(endpoint, now, common, window)
        };
        if let Some(error) = payloads.error().filter(|_| payloads.sa.is_none()) {
            let reason = CloseReason::PeerRefused(refusal_text(error.notify_type, &offer));
            return refuse(endpoint, common, agreed.window, reason);
        }
        let mut lease = read_lease(payloads, &connection);
        if matches!(connection.addresses, AddressConfig::Request { .. }) && lease.address.is_none() {
            let why = "an IPv6 address was requested, but the peer's configuration payload has none";
            return refuse(endpoint, common, agreed.window, CloseReason::PeerRefused(why.to_owned()));
        }
        let ours = child::local_policy(&connection, &lease);
        let negotiated = match offer.accept(payloads, &ours) {
            Ok(negotiated) => negotiated,
            Err(why) => {
                let reason = CloseReason::PeerMisbehaved(format!("IKE_AUTH response: {why}"));
                return refuse(endpoint, common, agreed.window, reason);
            }
        };
        // Whatever the peer says of a prefix: only what is within the selectors is carried.
        lease.prefix =
            lease.prefix.filter(|p| negotiated.local_ts.iter().any(|ts| ts.contains(&p.selector())));
        let keys =
            agreed.sk_d.child(&endpoint.crypto, negotiated.selected.suite(), None, &agreed.ni, &agreed.nr);
        let mobike = connection.mobike && payloads.has(notify::MOBIKE_SUPPORTED);
        let several = connection.per_resource.asks() && payloads.has(notify::SA_RESOURCE_INFO);
        let mut established = Established::new(connection, now, Role::Initiator, remote_id, agreed);
        established.lease = lease;
        established.mobike = mobike;
        established.mobility.peer = mobike::peer_addresses(payloads).unwrap_or_default();
        established.auth_lifetime = auth_lifetime(payloads);
        established.announce(endpoint, common, now);
        let place = Placement {
            reqid,
            resource: several.then_some(0),
            exchange_role: Role::Initiator,
            activate: Activate::Now,
            replaces: None,
        };
        established.install(endpoint, common, now, negotiated, keys, place);
        established.want_more(reqid);
        State::Established(Box::new(established))
    }
}

/// RFC 4478 section 3: seconds.
pub(crate) fn auth_lifetime(payloads: &Payloads) -> Option<Duration> {
    let seconds =
        payloads.notify(notify::AUTH_LIFETIME)?.data.as_slice().try_into().ok().map(u32::from_be_bytes)?;
    Some(Duration::from_secs(seconds.into())).filter(|d| !d.is_zero())
}

/// Where `nat = forbid` and there is one: why there is no tunnel.
fn forbidden_nat(connection: &Connection, nat: &Nat) -> Option<&'static str> {
    let found = connection.nat == NatPolicy::Forbid && (nat.local || nat.remote);
    found.then_some("a NAT stands between us and the peer, and `ike.nat = \"forbid\"` allows none")
}

fn refusal_text(notify_type: u16, offer: &Offer) -> String {
    let hint = match notify_type {
        notify::AUTHENTICATION_FAILED => {
            ": it does not accept our identity, certificate or pre-shared key; its log tells why"
        }
        notify::NO_PROPOSAL_CHOSEN => {
            return format!(
                "{}: it accepts none of the ESP proposals of this connection; we offered {}",
                notify::display(notify_type),
                negotiation::describe(&offer.proposals)
            );
        }
        notify::TS_UNACCEPTABLE => ": it does not accept the traffic selectors of this connection",
        notify::INTERNAL_ADDRESS_FAILURE => ": it has no address to give",
        notify::UNEXPECTED_NAT_DETECTED => {
            ": a NAT stands between, and our `ike.nat = \"forbid\"` allows none"
        }
        notify::FAILED_CP_REQUIRED => ": it wants us to request an address",
        _ => "",
    };
    format!("{}{hint}", notify::display(notify_type))
}

fn config_request(connection: &Connection) -> Option<Payload> {
    let AddressConfig::Request { address, prefix } = connection.addresses else { return None };
    let address = address.map_or(Vec::new(), |a| encode_ip6_address(a, 128));
    let mut attributes = vec![(attribute::INTERNAL_IP6_ADDRESS, address)];
    attributes.extend(match prefix {
        PrefixWish::None => None,
        PrefixWish::Any => Some((attribute::INTERNAL_IP6_PREFIX, Vec::new())),
        PrefixWish::This(prefix) => Some((attribute::INTERNAL_IP6_PREFIX, encode_ip6_prefix(prefix))),
    });
    attributes.push((attribute::INTERNAL_IP6_DNS, Vec::new()));
    Some(Payload::Config(Config { cfg_type: cfg_type::CFG_REQUEST, attributes }))
}

/// A CFG_REPLY. Whatever prefix length it tells, the address is ours alone. IPv4 attributes are passed over. A prefix that we want
/// by its name stays wanted where the peer says nothing of it.
pub(crate) fn read_lease(payloads: &Payloads, connection: &Connection) -> Lease {
    let mut lease = Lease::default();
    let AddressConfig::Request { prefix: wish, .. } = connection.addresses else { return lease };
    if let PrefixWish::This(prefix) = wish {
        lease.prefix = Some(prefix);
    }
    let mut told_prefix = false;
    let Some(config) = payloads.config.as_ref().filter(|c| c.cfg_type == cfg_type::CFG_REPLY) else {
        return lease;
    };
    for (kind, value) in &config.attributes {
        match *kind {
            attribute::INTERNAL_IP6_ADDRESS if lease.address.is_none() => {
                let address = ip6_address(value).ok().flatten().map(|(address, _)| address);
                lease.address = address.filter(|a| !a.is_unspecified() && !a.is_multicast());
            }
            attribute::INTERNAL_IP6_PREFIX if wish != PrefixWish::None && !told_prefix => {
                if let Ok(Some(prefix)) = ip6_prefix(value) {
                    lease.prefix = Some(prefix);
                    told_prefix = true;
                }
            }
            attribute::INTERNAL_IP6_DNS if lease.dns.len() < 8 => {
                lease.dns.extend(ip6_dns(value).ok().flatten())
            }
            _ => {}
        }
    }
    lease
}

// --- responder -------------------------------------------------------------------------------------------------

/// Awaits the request of IKE_AUTH.
pub(crate) struct HalfOpen {
    pub(crate) source: IpAddr,
    pub(crate) init: InitKey,
    pub(crate) response: Packets,
    pub(crate) agreed: Agreed,
}

impl HalfOpen {
    pub(crate) fn on_timer(self: Box<Self>, endpoint: &mut Endpoint, timer: Timer) -> State {
        if timer != Timer::GiveUp {
            return State::HalfOpen(self);
        }
        // No `Closed`: the embedder has never heard of it, and a flood must not fill its log.
        endpoint.counters.count(Counter::HalfOpenExpired);
        endpoint.inits.remove(&self.init);
        State::Gone
    }

    pub(crate) fn on_message(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        datagram: &Datagram<'_>,
    ) -> State {
        let (token, payloads) = match self.agreed.window.receive(endpoint, datagram) {
            Incoming::Request(token, payloads) => (token, payloads),
            Incoming::Nothing | Incoming::Seen | Incoming::Response(_) => return State::HalfOpen(self),
        };
        common.path = datagram.path;
        common.timers.stop(Timer::GiveUp);
        let agreed = self.agreed;
        let mut state = match payloads {
            Ok(_) if token.exchange() != ExchangeType::IkeAuth => {
                let why = Refusal::new(notify::INVALID_SYNTAX, "a message that is not IKE_AUTH came first");
                refuse(endpoint, now, common, agreed, token, None, why)
            }
            Ok(payloads) => {
                return on_auth_request(endpoint, now, common, agreed, token, payloads, self.init);
            }
            Err(error) => {
                let refusal = Refusal { notify: error.to_notify(), reason: error.to_string() };
                refuse(endpoint, now, common, agreed, token, None, refusal)
            }
        };
        keep_init(endpoint, &mut state, self.init);
        state
    }
}

/// The request of IKE_SA_INIT is remembered for as long as its IKE SA is there.
pub(crate) fn keep_init(endpoint: &mut Endpoint, state: &mut State, init: InitKey) {
    match state {
        State::Established(s) => s.init = Some(init),
        _ => {
            endpoint.inits.remove(&init);
        }
    }
}

/// Answers with one notify, and the IKE SA is gone.
fn refuse(
    endpoint: &mut Endpoint,
    now: Now,
    common: &mut IkeSaCommon,
    mut agreed: Agreed,
    token: ResponseToken,
    remote_id: Option<Identity>,
    refusal: Refusal,
) -> State {
    let text = format!("refused with {refusal}");
    agreed.window.respond(token, &[refusal.notify], &mut endpoint.events);
    endpoint.fail(common, None, remote_id, CloseReason::WeRefused(text));
    // A lost answer is repeated for a while.
    Spare::linger(endpoint, now, common, agreed.window, None)
}

fn on_auth_request(
    endpoint: &mut Endpoint,
    now: Now,
    common: &mut IkeSaCommon,
    agreed: Agreed,
    token: ResponseToken,
    payloads: Payloads,
    init: InitKey,
) -> State {
    let mut state = match &payloads.id_initiator {
        None => {
            let why = Refusal::new(notify::INVALID_SYNTAX, "IKE_AUTH request without IDi");
            refuse(endpoint, now, common, agreed, token, None, why)
        }
        Some(raw_id) => {
            let remote_id = Identity::from(raw_id);
            match choose_connection(endpoint, now, &agreed, raw_id, &remote_id, &payloads) {
                Ok((connection, queries)) if !queries.is_empty() => {
                    let then = Then::Answer(token, init);
                    let checking = Checking { connection, agreed, payloads, remote_id, then };
                    return checking.start(endpoint, now, common, queries);
                }
                chosen => {
                    let chosen = chosen.map(|(connection, _)| connection);
                    answer(endpoint, now, common, agreed, token, &payloads, remote_id, chosen)
                }
            }
        }
    };
    keep_init(endpoint, &mut state, init);
    state
}

/// Answers an initiator for whom there is a connection, or why there is none.
#[allow(clippy::too_many_arguments)]
pub(crate) fn answer(
    endpoint: &mut Endpoint,
    now: Now,
    common: &mut IkeSaCommon,
    mut agreed: Agreed,
    token: ResponseToken,
    payloads: &Payloads,
    remote_id: Identity,
    chosen: Result<Arc<Connection>, Failure>,
) -> State {
    let failed = |why: String| Refusal::new(notify::AUTHENTICATION_FAILED, why);
    let connection = match chosen {
        Ok(connection) => connection,
        Err(Failure { kind, why }) => {
            endpoint.counters.count(kind);
            return refuse(endpoint, now, common, agreed, token, Some(remote_id), failed(why));
        }
    };
    // Before its older IKE SAs are touched: a peer that does not get in changes nothing.
    if let Some(why) = endpoint.config.barred.get(&remote_id).cloned() {
        endpoint.counters.count(Counter::AuthBarred);
        return refuse(endpoint, now, common, agreed, token, Some(remote_id), failed(why));
    }
    if connection.mobike
        && payloads.has(notify::MOBIKE_SUPPORTED)
        && mobike::met_a_nat(payloads, token.path())
    {
        let why = Refusal::new(
            notify::UNEXPECTED_NAT_DETECTED,
            "a NAT stands between, which the peer does not allow",
        );
        endpoint.counters.count(Counter::AuthRefused);
        return refuse(endpoint, now, common, agreed, token, Some(remote_id), why);
    }
    if let Some(why) = forbidden_nat(&connection, &agreed.nat) {
        endpoint.counters.count(Counter::AuthRefused);
        return refuse(endpoint, now, common, agreed, token, Some(remote_id), failed(why.to_owned()));
    }
    let initial_contact = payloads.has(notify::INITIAL_CONTACT);
    if let Err(why) = endpoint.apply_unique(now, &connection, &remote_id, common.path, initial_contact) {
        endpoint.counters.count(Counter::AuthRefused);
        return refuse(endpoint, now, common, agreed, token, Some(remote_id), failed(why));
    }
    agreed.window.set_fragment_size(fragment_size(&connection, &agreed));
    let id = RawId::from(&connection.local_id);
    let (certs, auth) = match agreed.prove(endpoint, &connection, Role::Responder, &id) {
        Ok(proof) => proof,
        Err(why) => {
            endpoint.counters.count(Counter::AuthRefused);
            return refuse(endpoint, now, common, agreed, token, Some(remote_id), failed(why));
        }
    };
    let outcome = negotiate_child(endpoint, common, &connection, &agreed, &remote_id, payloads);
    let outcome = outcome.map(|(negotiated, lease)| {
        let suite = negotiated.selected.suite();
        let keys = agreed.sk_d.child(&endpoint.crypto, suite, None, &agreed.ni, &agreed.nr);
        (negotiated, lease, keys)
    });
    let mobike = connection.mobike && payloads.has(notify::MOBIKE_SUPPORTED);
    let several = connection.per_resource.answers() && payloads.has(notify::SA_RESOURCE_INFO);
    let mut answer = vec![Payload::IdResponder(id)];
    answer.extend(certs);
    answer.push(auth);
    let mut established = Established::new(connection, now, Role::Responder, remote_id, agreed);
    established.mobike = mobike;
    if mobike {
        established.mobility.peer = mobike::peer_addresses(payloads).unwrap_or_default();
    }
    match outcome {
        Ok((negotiated, lease, keys)) => {
            answer.extend(config_reply(&lease, payloads));
            answer.extend(several.then(|| per_resource::info(0)));
            answer.extend(negotiated.payloads(Vec::new()));
            established.leased = matches!(established.connection.addresses, AddressConfig::Assign);
            established.lease = lease;
            // A peer that reauthenticates is not ready yet for what comes on the new SA: it learns its keys from this
            // very answer. Until it has sent something there, the old one carries its traffic.
            let twin = endpoint.has_twin(common.id, &established.remote_id, &negotiated);
            let activate = if twin { Activate::Later } else { Activate::Now };
            established.announce(endpoint, common, now);
            let reqid = endpoint.fresh_reqid();
            let place = Placement {
                reqid,
                resource: several.then_some(0),
                exchange_role: Role::Responder,
                activate,
                replaces: None,
            };
            established.install(endpoint, common, now, negotiated, keys, place);
        }
        // The IKE SA stays without a Child SA (section 1.2).
        Err(refusal) => {
            established.announce(endpoint, common, now);
            let who = established.who(common);
            endpoint.notice(true, "no_child_sa", format!("{who}: no Child SA: {refusal}"));
            answer.push(refusal.notify);
        }
    }
    if mobike {
        answer.push(notify::plain(notify::MOBIKE_SUPPORTED, Vec::new()));
        answer.extend(mobike::our_addresses(endpoint, common.path));
    }
    let reauth = established.connection.reauth.as_secs();
    if reauth > 0 {
        let seconds = u32::try_from(reauth).unwrap_or(u32::MAX);
        answer.push(notify::plain(notify::AUTH_LIFETIME, seconds.to_be_bytes()));
    }
    established.respond(endpoint, common, now, token, &answer);
    State::Established(Box::new(established))
}

/// The first connection whose identities, algorithms and kind of authentication fit and whose secret or CA verifies
/// AUTH. A peer that matches nothing learns as little as one with a wrong key.
fn choose_connection(
    endpoint: &Endpoint,
    now: Now,
    agreed: &Agreed,
    raw_id: &RawId,
    remote_id: &Identity,
    payloads: &Payloads,
) -> Result<(Arc<Connection>, Vec<Query>), Failure> {
    let wanted = payloads.id_responder.as_ref().map(Identity::from);
    let by_psk = payloads.auth.as_ref().map(|(m, _)| *m == method::PSK);
    let mut why = None;
    for connection in &endpoint.config.connections {
        if !connection.responds()
            || !agreed.selected.allowed_by(&connection.ike)
            || wanted.as_ref().is_some_and(|id| *id != connection.local_id)
            || !connection.remote_id.matches(remote_id)
        {
            continue;
        }
        match agreed.verify(endpoint, now, connection, Role::Initiator, raw_id, payloads) {
            Ok(queries) => return Ok((Arc::clone(connection), queries)),
            Err(reason) => {
                // What is told is the failure of a connection with the same kind of authentication, if there is one.
                let same_kind = by_psk == Some(matches!(connection.peer_auth, PeerAuth::Psk(_)));
                if same_kind || why.is_none() {
                    let text = format!("connection {:?}: {}", connection.name, reason.why);
                    why = Some(Failure::new(reason.kind, text));
                }
            }
        }
    }
    Err(why.unwrap_or_else(|| {
        let as_whom = wanted.map_or_else(String::new, |id| format!(" with us as {id}"));
        let text = format!("no connection is for this identity{as_whom} and these IKE algorithms");
        Failure::new(Counter::AuthIdentity, text)
    }))
}

/// The Child SA of IKE_AUTH: algorithms first, then the address, then selectors, so that no address is given for
/// nothing.
fn negotiate_child(
    endpoint: &mut Endpoint,
    common: &IkeSaCommon,
    connection: &Connection,
    agreed: &Agreed,
    remote_id: &Identity,
    payloads: &Payloads,
) -> Result<(child::Negotiated, Lease), Refusal> {
    if !agreed.nat.supported || common.path.local.port() != endpoint.config.nat_port {
        let why = "the peer does not use NAT traversal, and ESP is carried in UDP only";
        return Err(Refusal::new(notify::NO_PROPOSAL_CHOSEN, why));
    }
    let selected = child::choose(&Terms::of(connection), payloads, None)?;
    let lease = match connection.addresses {
        AddressConfig::Assign => assign(endpoint, common, connection, remote_id, payloads)?,
        AddressConfig::None | AddressConfig::Request { .. } => Lease::default(),
    };
    let local = child::local_policy(connection, &lease);
    let remote = child::remote_policy(connection, &lease);
    let ipcomp = connection.ipcomp;
    match child::answer(endpoint, ipcomp, selected, payloads, &local, &remote, SpiFor::New) {
        Ok(negotiated) => Ok((negotiated, lease)),
        Err(refusal) => {
            if lease.address.is_some()
                && let Some(pool) = &mut endpoint.pool
            {
                pool.release(common.id);
            }
            Err(refusal)
        }
    }
}

/// A lease for an authenticated peer (section 2.19).
fn assign(
    endpoint: &mut Endpoint,
    common: &IkeSaCommon,
    connection: &Connection,
    remote_id: &Identity,
    payloads: &Payloads,
) -> Result<Lease, Refusal> {
    let request = payloads.config.as_ref().filter(|c| c.cfg_type == cfg_type::CFG_REQUEST);
    let Some(wanted) = request.and_then(|c| c.values(attribute::INTERNAL_IP6_ADDRESS).next()) else {
        let why =
            "the peer requests no IPv6 address by configuration payload, which this connection requires";
        return Err(Refusal::new(notify::FAILED_CP_REQUIRED, why));
    };
    // One that cannot be understood is asked for nothing by name.
    let prefix = request.and_then(|c| c.values(attribute::INTERNAL_IP6_PREFIX).next()).map(ip6_prefix);
    let request = LeaseRequest {
        ike: common.id,
        connection: &connection.name,
        identity: remote_id,
        prefix: match prefix {
            None => PrefixWish::None,
            Some(Ok(Some(prefix))) => PrefixWish::This(prefix),
            Some(Ok(None) | Err(_)) => PrefixWish::Any,
        },
        wanted: ip6_address(wanted).ok().flatten().map(|(a, _)| a).filter(|a| !a.is_unspecified()),
    };
    let lease = match &mut endpoint.pool {
        Some(pool) => pool.assign(&request).map_err(|e| e.to_string()),
        None => Err("no address pool is configured".to_owned()),
    };
    lease.map_err(|why| Refusal::new(notify::INTERNAL_ADDRESS_FAILURE, why))
}

/// CFG_REPLY; a prefix and DNS servers only to who asked for them.
fn config_reply(lease: &Lease, payloads: &Payloads) -> Option<Payload> {
    let address = lease.address?;
    let asked = |attribute| payloads.config.as_ref().is_some_and(|c| c.values(attribute).next().is_some());
    let mut attributes = vec![(attribute::INTERNAL_IP6_ADDRESS, encode_ip6_address(address, 128))];
    if asked(attribute::INTERNAL_IP6_PREFIX) {
        attributes.extend(lease.prefix.map(|p| (attribute::INTERNAL_IP6_PREFIX, encode_ip6_prefix(p))));
    }
    if asked(attribute::INTERNAL_IP6_DNS) {
        attributes.extend(lease.dns.iter().map(|d| (attribute::INTERNAL_IP6_DNS, d.octets().to_vec())));
    }
    Some(Payload::Config(Config { cfg_type: cfg_type::CFG_REPLY, attributes }))
}
