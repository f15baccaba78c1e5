//! IKE_SA_INIT (RFC 7296 sections 1.2, 2.6, 2.7, 2.23): both roles.

use crate::auth;
use crate::config::{Connection, Now, Role};
use crate::cookie::{Asker, Cookies};
use crate::counters::Counter;
use crate::dn::hex;
use crate::endpoint::{CommandError, Datagram, Endpoint, IkeSa, IkeSaCommon, State};
use crate::event::{CloseReason, Event, IkeKeyLog, Path};
use crate::half_open::Admission;
use crate::ike_auth::{Agreed, AuthSent, HalfOpen};
use crate::keymat::{IkeKeys, Skeyseed};
use crate::nat::{self, Nat};
use crate::negotiation::{self, SelectedIke};
use crate::notify;
use crate::payloads::{Payloads, Unreadable, key_exchange};
use crate::timer::{Timer, Timers};
use crate::window::{InFlight, Packets, Window};
use crate::wire::message::{
    COOKIE_DEMAND_LEN, HeaderFields, demand_cookie, encode_message, first_nonce, leading_cookie,
};
use crate::wire::{ExchangeType, Header, Payload, Proposal};
use ferry6_crypto::{CryptoError, Group, HashAlgorithm, KeyExchange};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Cookies that a responder may ask for in a row.
const MAX_COOKIES: u8 = 3;
/// A cookie has 1 to 64 octets (section 2.6).
const COOKIE_LEN: std::ops::RangeInclusive<usize> = 1..=64;
/// A first message is kept until its sender has authenticated itself, as AUTH covers it; so it has a bound. Section 2 asks for 1,280
/// octets, and for 3,000 if possible.
const MAX_REQUEST: usize = 4096;
/// Recognises a retransmitted request by its sender, its SPI, and the digest of all of it (section 2.1).
pub(crate) type InitKey = (SocketAddr, u64, [u8; 32]);

fn signature_hashes() -> Payload {
    notify::plain(notify::SIGNATURE_HASH_ALGORITHMS, auth::encode_hashes())
}

/// The peer's list; `None` where it sent none (it then takes only the classic methods).
fn peer_hashes(payloads: &Payloads) -> Option<Vec<HashAlgorithm>> {
    payloads.notify(notify::SIGNATURE_HASH_ALGORITHMS).map(|list| auth::decode_hashes(&list.data))
}

fn vendor_text(payloads: &Payloads) -> Vec<String> {
    payloads
        .vendor_ids
        .iter()
        .take(8)
        .map(|id| {
            let id = &id[..id.len().min(64)];
            match std::str::from_utf8(id) {
                Ok(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => {
                    text.to_owned()
                }
                _ => hex(id),
            }
        })
        .collect()
}

/// What both sides do once they have all of IKE_SA_INIT: keys and windows.
struct Exchange<'a> {
    selected: SelectedIke,
    shared: ferry6_crypto::Secret,
    ni: Vec<u8>,
    nr: Vec<u8>,
    request: Vec<u8>,
    response: Vec<u8>,
    peer: &'a Payloads,
    nat: Nat,
}

impl Exchange<'_> {
    fn agree(self, endpoint: &mut Endpoint, common: &IkeSaCommon) -> Result<Agreed, CryptoError> {
        let spis = common.spis();
        let crypto = endpoint.crypto;
        let keys: IkeKeys = Skeyseed::initial(&crypto, self.selected, &self.ni, &self.nr, self.shared)
            .expand(&crypto, &self.ni, &self.nr, spis.0, spis.1);
        endpoint.log_keys(common, &keys);
        // The size of fragments is the connection's, which a responder knows in IKE_AUTH only.
        let window = Window::new(&crypto, common.role, spis, &keys, 1, None)?;
        Ok(Agreed {
            selected: self.selected,
            sk_d: keys.sk_d,
            auth_keys: keys.auth,
            window,
            request: self.request,
            response: self.response,
            ni: self.ni,
            nr: self.nr,
            peer_hashes: peer_hashes(self.peer),
            fragmentation: self.peer.has(notify::IKEV2_FRAGMENTATION_SUPPORTED),
            nat: self.nat,
            vendor: vendor_text(self.peer),
        })
    }
}

impl Endpoint {
    pub(crate) fn log_keys(&mut self, common: &IkeSaCommon, keys: &IkeKeys) {
        if self.config.keylog {
            let (initiator_spi, responder_spi) = common.spis();
            self.events.push_back(Event::IkeKeys(Box::new(IkeKeyLog {
                ike: common.id,
                initiator_spi,
                responder_spi,
                initiator: keys.initiator.clone(),
                responder: keys.responder.clone(),
            })));
        }
    }
}

// --- initiator -------------------------------------------------------------------------------------------------

/// Awaits the response of IKE_SA_INIT.
pub(crate) struct InitSent {
    pub(crate) connection: Arc<Connection>,
    offered: Vec<Proposal>,
    ke: Box<dyn KeyExchange>,
    groups_tried: Vec<Group>,
    ni: Vec<u8>,
    cookie: Option<Vec<u8>>,
    cookies_seen: u8,
    request: Vec<u8>,
    in_flight: InFlight,
}

impl InitSent {
    pub(crate) fn start(
        endpoint: &mut Endpoint,
        now: Now,
        connection: Arc<Connection>,
        path: Path,
    ) -> Result<Box<IkeSa>, CommandError> {
        let local_spi = endpoint.fresh_ike_spi()?;
        let group = connection
            .ike
            .iter()
            .flat_map(|p| &p.groups)
            .copied()
            .find(|&g| endpoint.crypto.groups.supports(g))
            .ok_or(CryptoError::Unsupported)?;
        let ke = endpoint.crypto.groups.initiate(group)?;
        let ni = endpoint.nonce()?;
        let mut common = IkeSaCommon {
            id: endpoint.fresh_id(),
            role: Role::Initiator,
            local_spi,
            remote_spi: 0,
            path,
            timers: Timers::default(),
        };
        let offered = negotiation::offer_ike(&connection.ike, None);
        let request = build_request(endpoint, &common, &offered, ke.as_ref(), &ni, None);
        let in_flight = InFlight::start(endpoint, now, &mut common, Packets::one(request.clone()));
        let state = Self {
            connection,
            offered,
            ke,
            groups_tried: vec![group],
            ni,
            cookie: None,
            cookies_seen: 0,
            request,
            in_flight,
        };
        Ok(IkeSa::new(common, State::InitSent(Box::new(state))))
    }

    /// The same request again with a cookie, or another group (sections 2.6.1, 1.3): nonce and SPI stay.
    fn send_again(mut self: Box<Self>, endpoint: &mut Endpoint, now: Now, common: &mut IkeSaCommon) -> State {
        self.request = build_request(
            endpoint,
            common,
            &self.offered,
            self.ke.as_ref(),
            &self.ni,
            self.cookie.as_deref(),
        );
        self.in_flight = InFlight::start(endpoint, now, common, Packets::one(self.request.clone()));
        State::InitSent(self)
    }

    pub(crate) fn on_timer(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        timer: Timer,
    ) -> State {
        if timer == Timer::Retransmit
            && let Some(timeout) = self.in_flight.again(endpoint, now, common)
        {
            return endpoint.fail(common, Some(&self.connection), None, timeout);
        }
        State::InitSent(self)
    }

    /// Only a response of IKE_SA_INIT to our SPI is looked at. What it says is not protected, so what is malformed is
    /// passed over rather than believed.
    pub(crate) fn on_message(
        self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        datagram: &Datagram<'_>,
    ) -> State {
        let Datagram { path, header, octets } = datagram;
        let ours = header.exchange == ExchangeType::IkeSaInit
            && header.response
            && !header.from_initiator
            && header.message_id == 0;
        let payloads = Payloads::read(header.next_payload, &octets[Header::LEN..]);
        let Some(payloads) = payloads.ok().filter(|_| ours) else {
            endpoint.counters.count(Counter::Malformed);
            endpoint.notice(
                true,
                "malformed",
                format!("{}: a malformed or unexpected answer to IKE_SA_INIT was ignored", path.remote),
            );
            return State::InitSent(self);
        };
        if let Some(cookie) = payloads.notify(notify::COOKIE) {
            let cookie = cookie.data.clone();
            return self.on_cookie(endpoint, now, common, cookie);
        }
        if let Some(n) = payloads.notify(notify::INVALID_KE_PAYLOAD) {
            let data = n.data.clone();
            return self.on_invalid_ke(endpoint, now, common, &data);
        }
        if let Some(error) = payloads.error() {
            let mut text = format!("{} in IKE_SA_INIT", notify::display(error.notify_type));
            if error.notify_type == notify::NO_PROPOSAL_CHOSEN {
                text += ": it accepts none of the IKE proposals of this connection; we offered ";
                text += &negotiation::describe(&self.offered);
            }
            let reason = CloseReason::PeerRefused(text);
            return endpoint.fail(common, Some(&self.connection), None, reason);
        }
        (*self).on_answer(endpoint, now, common, datagram, &payloads)
    }

    fn misbehaved(&self, endpoint: &mut Endpoint, common: &mut IkeSaCommon, why: &str) -> State {
        let reason = CloseReason::PeerMisbehaved(format!("IKE_SA_INIT: {why}"));
        endpoint.fail(common, Some(&self.connection), None, reason)
    }

    fn on_cookie(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        cookie: Vec<u8>,
    ) -> State {
        if !COOKIE_LEN.contains(&cookie.len()) {
            return self.misbehaved(endpoint, common, "a cookie of a length that is not allowed");
        }
        if self.cookie.as_deref() == Some(&cookie) {
            // A late copy of the demand that we have met already.
            return State::InitSent(self);
        }
        if self.cookies_seen >= MAX_COOKIES {
            return self.misbehaved(endpoint, common, "it asks for one cookie after the other");
        }
        self.cookies_seen += 1;
        self.cookie = Some(cookie);
        self.send_again(endpoint, now, common)
    }

    /// Another group is wanted; only one that we offered, and each once, so that nobody leads us in circles or below
    /// our configuration.
    fn on_invalid_ke(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        data: &[u8],
    ) -> State {
        let wanted = <[u8; 2]>::try_from(data).ok().map(u16::from_be_bytes);
        let group = wanted.and_then(Group::from_transform);
        let Some(group) = group.filter(|g| negotiation::offers_group(&self.offered, *g)) else {
            let number = wanted.map_or_else(|| "?".to_owned(), |n| n.to_string());
            let why = format!("it wants key exchange method {number}, which was not offered");
            return self.misbehaved(endpoint, common, &why);
        };
        if group == self.ke.group() {
            // A late copy of what we followed already.
            return State::InitSent(self);
        }
        if self.groups_tried.contains(&group) {
            return self.misbehaved(endpoint, common, "it refuses each key exchange method in turn");
        }
        match endpoint.crypto.groups.initiate(group) {
            Ok(ke) => {
                self.groups_tried.push(group);
                self.ke = ke;
                self.send_again(endpoint, now, common)
            }
            Err(error) => {
                let reason = CloseReason::WeRefused(format!("the key exchange that the peer wants: {error}"));
                endpoint.fail(common, Some(&self.connection), None, reason)
            }
        }
    }

    fn on_answer(
        self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        datagram: &Datagram<'_>,
        payloads: &Payloads,
    ) -> State {
        let Datagram { path, header, octets } = *datagram;
        let (Some(sa), Some((group, public)), Some(nr)) = (&payloads.sa, &payloads.ke, &payloads.nonce)
        else {
            return self.misbehaved(endpoint, common, "SA, KE or nonce is missing in the answer");
        };
        if header.responder_spi == 0 {
            return self.misbehaved(endpoint, common, "its SPI is zero");
        }
        let selected = match negotiation::accept_ike(&self.offered, sa) {
            Ok(selected) => selected,
            Err(why) => return self.misbehaved(endpoint, common, why),
        };
        if selected.group() != self.ke.group() || *group != selected.group().transform_id() {
            return self.misbehaved(endpoint, common, "its KE payload is not of the group that it chose");
        }
        common.remote_spi = header.responder_spi;
        let Self { connection, ke, ni, request, .. } = self;
        let nat = nat::detect(&endpoint.crypto, common.spis(), path, payloads);
        let agreed = ke.agree(public).and_then(|shared| {
            let (nr, response) = (nr.clone(), octets.to_vec());
            Exchange { selected, shared, ni, nr, request, response, peer: payloads, nat }
                .agree(endpoint, common)
        });
        let agreed = match agreed {
            Ok(agreed) => agreed,
            Err(error) => {
                let reason = CloseReason::PeerMisbehaved(format!("IKE_SA_INIT, KE payload: {error}"));
                return endpoint.fail(common, Some(&connection), None, reason);
            }
        };
        common.timers.stop(Timer::Retransmit);
        float(endpoint, common, agreed.nat.supported);
        AuthSent::start(endpoint, now, common, connection, agreed)
    }
}

/// From IKE_AUTH on both use the NAT port (section 2.23), whether there is a NAT or not, since all our ESP goes there.
fn float(endpoint: &Endpoint, common: &mut IkeSaCommon, supported: bool) {
    if supported && common.path.local.port() != endpoint.config.nat_port {
        common.path.local.set_port(endpoint.config.nat_port);
        common.path.remote.set_port(endpoint.config.remote_nat_port);
    }
}

fn build_request(
    endpoint: &Endpoint,
    common: &IkeSaCommon,
    offered: &[Proposal],
    ke: &dyn KeyExchange,
    ni: &[u8],
    cookie: Option<&[u8]>,
) -> Vec<u8> {
    let header = HeaderFields {
        initiator_spi: common.local_spi,
        responder_spi: 0,
        exchange: ExchangeType::IkeSaInit,
        from_initiator: true,
        response: false,
        message_id: 0,
    };
    let mut payloads: Vec<Payload> = cookie.map(|c| notify::plain(notify::COOKIE, c)).into_iter().collect();
    payloads.push(Payload::Sa(offered.to_vec()));
    payloads.push(key_exchange(ke.group(), ke.public()));
    payloads.push(Payload::Nonce(ni.to_vec()));
    let spis = (common.local_spi, 0);
    payloads.extend(nat::payloads(&endpoint.crypto, spis, common.path, endpoint.config.force_encap));
    payloads.push(notify::plain(notify::IKEV2_FRAGMENTATION_SUPPORTED, Vec::new()));
    payloads.push(signature_hashes());
    encode_message(&header, &payloads)
}

// --- responder -------------------------------------------------------------------------------------------------

/// One unprotected answer, for which nothing is stored.
fn answer_in_clear(endpoint: &mut Endpoint, path: Path, header: &Header, payload: Payload) {
    let fields = HeaderFields { from_initiator: false, response: true, ..header.fields() };
    Packets::one(encode_message(&fields, &[payload])).transmit(path, &mut endpoint.events);
}

/// A message of another major version is answered by INVALID_MAJOR_VERSION with ours (section 2.5), if it is a request, and
/// not more of them than a rate. What is no IKE message at all is dropped without a word: the answer is never longer than what
/// asked for it.
pub(crate) fn answer_version(endpoint: &mut Endpoint, now: Now, path: Path, message: &[u8]) {
    let Ok(header) = Header::peek(message) else { return endpoint.counters.count(Counter::Malformed) };
    let whole = usize::try_from(header.length) == Ok(message.len());
    if header.version >> 4 > Header::VERSION >> 4 && !header.response && whole {
        endpoint.counters.count(Counter::OtherVersion);
        if endpoint.bounds.strangers.refuse(now.monotonic) {
            let refusal = notify::plain(notify::INVALID_MAJOR_VERSION, Vec::new());
            answer_in_clear(endpoint, path, &header, refusal);
        }
    } else {
        endpoint.counters.count(Counter::Malformed);
    }
}

/// The first message of a peer. Until it has shown, where we ask for that, that it receives what we send, nothing is
/// stored for it. What is asked of it then is written to `room`: its length is returned.
///
/// The cheapest question comes first, since most of these messages come in a flood, if one comes: without a right cookie
/// there is a rate; then whether it is known already; then whether it needs a cookie. Only what is through all that is read.
pub(crate) fn on_request(
    endpoint: &mut Endpoint,
    now: Now,
    datagram: &Datagram<'_>,
    room: &mut [u8; COOKIE_DEMAND_LEN],
) -> Option<usize> {
    let Datagram { path, header, octets } = *datagram;
    let refuse = |endpoint: &mut Endpoint, why| {
        endpoint.counters.count(why);
        None
    };
    if !endpoint.config.connections.iter().any(|c| c.responds()) {
        return refuse(endpoint, Counter::NotAResponder);
    }
    if header.initiator_spi == 0 || header.message_id != 0 {
        return refuse(endpoint, Counter::Malformed);
    }
    if octets.len() > MAX_REQUEST {
        return refuse(endpoint, Counter::InitTooLong);
    }
    let failed = |endpoint: &mut Endpoint, error: CryptoError| {
        endpoint.counters.count(Counter::KeyExchange);
        endpoint.notice(true, "key_exchange", format!("{}: IKE_SA_INIT: {error}", path.remote));
        None
    };
    let proven = match has_right_cookie(endpoint, now, datagram) {
        Ok(proven) => proven,
        Err(error) => return failed(endpoint, error),
    };
    let Endpoint { bounds, random, .. } = endpoint;
    let key = || {
        let mut octets = [0; 8];
        // Without randomness the memory of a flood is only predictable.
        let _ = random.fill(&mut octets);
        u64::from_be_bytes(octets)
    };
    if !proven && !bounds.strangers.hear(now.monotonic, path.remote, header.initiator_spi, key) {
        return refuse(endpoint, Counter::InitLimited);
    }
    let mut key = None;
    if endpoint.inits.any_of(path.remote, header.initiator_spi) {
        let asked = init_key(endpoint, datagram)?;
        if let Some(spi) = endpoint.inits.get(&asked) {
            endpoint.counters.count(Counter::InitRepeated);
            endpoint.with_sa(spi, |endpoint, sa| {
                if let State::HalfOpen(s) = &sa.state {
                    s.response.transmit(path, &mut endpoint.events);
                }
            });
            return None;
        }
        key = Some(asked);
    }
    match admit(endpoint, now, datagram, proven, room) {
        Ok(Admitted::Yes) => {}
        Ok(Admitted::No(answer)) => return answer,
        Err(error) => return failed(endpoint, error),
    }
    let key = match key {
        Some(key) => key,
        None => init_key(endpoint, datagram)?,
    };
    take(endpoint, now, datagram, key);
    None
}

fn init_key(endpoint: &Endpoint, datagram: &Datagram<'_>) -> Option<InitKey> {
    let digest = endpoint.crypto.hashes.digest(HashAlgorithm::Sha256, &[datagram.octets]).ok()?;
    Some((datagram.path.remote, datagram.header.initiator_spi, digest.try_into().ok()?))
}

/// A first message that may cost us a computation.
fn take(endpoint: &mut Endpoint, now: Now, datagram: &Datagram<'_>, key: InitKey) {
    let Datagram { path, header, octets } = *datagram;
    let payloads = match Payloads::read(header.next_payload, &octets[Header::LEN..]) {
        Ok(payloads) => payloads,
        Err(critical @ Unreadable::Critical(_)) => {
            endpoint.counters.count(Counter::Malformed);
            return answer_in_clear(endpoint, path, header, critical.to_notify());
        }
        // INVALID_SYNTAX is for protected messages only (section 3.10.1).
        Err(Unreadable::Syntax(_)) => return endpoint.counters.count(Counter::Malformed),
    };
    let (Some(sa), Some((group, public)), true) = (&payloads.sa, &payloads.ke, payloads.nonce.is_some())
    else {
        return endpoint.counters.count(Counter::Malformed);
    };
    let ke_group = Group::from_transform(*group);
    let selected = endpoint
        .config
        .connections
        .iter()
        .filter(|c| c.responds())
        .find_map(|c| negotiation::select_ike(&c.ike, sa, ke_group, false));
    let Some(selected) = selected else {
        endpoint.counters.count(Counter::NoProposal);
        endpoint.notice(
            true,
            "no_proposal",
            format!(
                "{}: IKE_SA_INIT refused with NO_PROPOSAL_CHOSEN: no IKE proposal of the peer fits a connection; it offers {}",
                path.remote,
                negotiation::describe(sa)
            ),
        );
        let refusal = notify::plain(notify::NO_PROPOSAL_CHOSEN, Vec::new());
        return answer_in_clear(endpoint, path, header, refusal);
    };
    if ke_group != Some(selected.group()) {
        endpoint.counters.count(Counter::OtherGroup);
        let wanted = selected.group().transform_id().to_be_bytes();
        let refusal = notify::plain(notify::INVALID_KE_PAYLOAD, wanted);
        return answer_in_clear(endpoint, path, header, refusal);
    }
    if let Err(error) = answer(endpoint, now, datagram, key, selected, public, &payloads) {
        endpoint.counters.count(Counter::KeyExchange);
        endpoint.notice(
            true,
            "key_exchange",
            format!("{}: IKE_SA_INIT dropped, KE payload: {error}", path.remote),
        );
    }
}

/// Whether a cookie of ours for this sender leads the message (section 2.6). A wrong one is as good as none.
fn has_right_cookie(endpoint: &mut Endpoint, now: Now, datagram: &Datagram<'_>) -> Result<bool, CryptoError> {
    let Datagram { path, header, octets } = *datagram;
    let body = &octets[Header::LEN..];
    let Some(cookie) = leading_cookie(header.next_payload, body) else { return Ok(false) };
    let Endpoint { cookies: Some(cookies), crypto, random, counters, .. } = endpoint else {
        // We have not asked for any yet.
        endpoint.counters.count(Counter::CookieWrong);
        return Ok(false);
    };
    let right = match first_nonce(header.next_payload, body) {
        Some(nonce) => {
            let asker = Asker { from: path.remote, spi: header.initiator_spi, nonce };
            cookies.verify(crypto, random.as_mut(), now.monotonic, &asker, cookie)?
        }
        None => false,
    };
    if !right {
        counters.count(Counter::CookieWrong);
    }
    Ok(right)
}

/// Whether a first message is taken; if not, the length of the answer, where one is due.
enum Admitted {
    Yes,
    No(Option<usize>),
}

/// Limits and cookies (section 2.6).
fn admit(
    endpoint: &mut Endpoint,
    now: Now,
    datagram: &Datagram<'_>,
    proven: bool,
    room: &mut [u8; COOKIE_DEMAND_LEN],
) -> Result<Admitted, CryptoError> {
    let Datagram { path, header, octets } = *datagram;
    let limits = endpoint.config.half_open;
    let Endpoint { cookies, crypto, random, counters, bounds, .. } = endpoint;
    if proven {
        counters.count(Counter::CookieRight);
    }
    match bounds.admission(&limits, now.monotonic, path.remote.ip(), proven) {
        Admission::Admit => Ok(Admitted::Yes),
        Admission::TooFast => {
            counters.count(Counter::SourceLimited);
            Ok(Admitted::No(None))
        }
        Admission::AskCookie => {
            let Some(nonce) = first_nonce(header.next_payload, &octets[Header::LEN..]) else {
                counters.count(Counter::Malformed);
                return Ok(Admitted::No(None));
            };
            let cookies = match cookies {
                Some(cookies) => cookies,
                None => cookies.insert(Cookies::new(random.as_mut(), now.monotonic)?),
            };
            let asker = Asker { from: path.remote, spi: header.initiator_spi, nonce };
            let cookie = cookies.make(crypto, random.as_mut(), now.monotonic, &asker)?;
            counters.count(Counter::CookieSent);
            let fields = HeaderFields { from_initiator: false, response: true, ..header.fields() };
            Ok(Admitted::No(Some(demand_cookie(&fields, &cookie, room))))
        }
    }
}

/// The requests of IKE_SA_INIT that were answered, and our SPIs of what came of them: a retransmission gets the same answer and
/// makes no new state (section 2.1).
#[derive(Debug, Default)]
pub(crate) struct Inits(BTreeMap<InitKey, u64>);

impl Inits {
    /// Whether any of them has this sender and SPI: only then the octets matter.
    fn any_of(&self, from: SocketAddr, spi: u64) -> bool {
        self.0.range((from, spi, [0; 32])..=(from, spi, [u8::MAX; 32])).next().is_some()
    }
    fn get(&self, key: &InitKey) -> Option<u64> {
        self.0.get(key).copied()
    }
    fn insert(&mut self, key: InitKey, spi: u64) {
        self.0.insert(key, spi);
    }
    pub(crate) fn remove(&mut self, key: &InitKey) {
        self.0.remove(key);
    }
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn answer(
    endpoint: &mut Endpoint,
    now: Now,
    datagram: &Datagram<'_>,
    key: InitKey,
    selected: SelectedIke,
    public: &[u8],
    payloads: &Payloads,
) -> Result<(), CryptoError> {
    let Datagram { path, header, octets } = *datagram;
    let (our_public, shared) = endpoint.crypto.groups.respond(selected.group(), public)?;
    let nr = endpoint.nonce()?;
    let mut common = IkeSaCommon {
        id: endpoint.fresh_id(),
        role: Role::Responder,
        local_spi: endpoint.fresh_ike_spi()?,
        remote_spi: header.initiator_spi,
        path,
        timers: Timers::default(),
    };
    let fields = HeaderFields {
        responder_spi: common.local_spi,
        from_initiator: false,
        response: true,
        ..header.fields()
    };
    let mut out = vec![
        Payload::Sa(vec![selected.to_proposal(None)]),
        key_exchange(selected.group(), our_public),
        Payload::Nonce(nr.clone()),
    ];
    out.extend(nat::payloads(&endpoint.crypto, common.spis(), path, endpoint.config.force_encap));
    out.extend(endpoint.cert_request.clone());
    out.push(notify::plain(notify::IKEV2_FRAGMENTATION_SUPPORTED, Vec::new()));
    if payloads.has(notify::SIGNATURE_HASH_ALGORITHMS) {
        out.push(signature_hashes());
    }
    let response = encode_message(&fields, &out);
    let ni = payloads.nonce.clone().unwrap_or_default();
    // The initiator computed its hashes before it knew our SPI.
    let nat = nat::detect(&endpoint.crypto, (header.initiator_spi, 0), path, payloads);
    let request = octets.to_vec();
    let agreed =
        Exchange { selected, shared, ni, nr, request, response: response.clone(), peer: payloads, nat }
            .agree(endpoint, &common)?;
    let response = Packets::one(response);
    response.transmit(path, &mut endpoint.events);
    common.timers.set(Timer::GiveUp, now.monotonic + endpoint.config.half_open.lifetime);
    endpoint.make_room(path.remote.ip());
    endpoint.inits.insert(key, common.local_spi);
    let state = HalfOpen { source: path.remote.ip(), init: key, response, agreed };
    endpoint.insert(IkeSa::new(common, State::HalfOpen(Box::new(state))));
    Ok(())
}
