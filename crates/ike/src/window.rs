//! Message windows of one (RFC 7296 sections 2.1 to 2.3): message IDs, retransmission, cached responses, and the
//! protection of messages by SK_e and SK_a, with fragmentation (RFC 7383).

use crate::config::{Now, Retransmit, Role};
use crate::counters::{Counter, Counters};
use crate::endpoint::{Datagram, Endpoint, IkeSaCommon};
use crate::event::{CloseReason, Event, Path, Transmit};
use crate::fragments::{Fragments, Whose};
use crate::keymat::IkeKeys;
use crate::notify;
use crate::payloads::{Payloads, Unreadable};
use crate::timer::Timer;
use crate::wire::message::{HeaderFields, encode_payloads};
use crate::wire::sk::{self, Plain, SkMessage};
use crate::wire::{ExchangeType, Header, Payload};
use bytes::Bytes;
use ferry6_crypto::{CryptoError, CryptoProvider, OpeningKey, SealingKey};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A request on its way, or a response kept for its retransmissions: one message, or all its fragments.
#[derive(Debug)]
pub(crate) struct Packets(Vec<Bytes>);

impl Packets {
    pub(crate) fn one(message: Vec<u8>) -> Self {
        Self(vec![Bytes::from(message)])
    }
    pub(crate) fn transmit(&self, path: Path, events: &mut VecDeque<Event>) {
        self.transmit_by(path, false, events);
    }
    fn transmit_by(&self, path: Path, dont_fragment: bool, events: &mut VecDeque<Event>) {
        for payload in &self.0 {
            events.push_back(Event::Transmit(Transmit { path, payload: payload.clone(), dont_fragment }));
        }
    }
    /// Octets of the largest.
    fn largest(&self) -> usize {
        self.0.iter().map(Bytes::len).max().unwrap_or(0)
    }
}

/// An IKE message of this size crosses every path whole: 576 octets (RFC 791 section 3.1) less IPv4 and UDP header and the
/// non-ESP marker.
pub(crate) const SMALL_FRAGMENT: usize = 576 - 20 - 8 - 4;
/// So many sends of a message without an answer, and fragments of it get smaller (RFC 7383 section 2.5.1).
const SENDS_BEFORE_SMALL: u32 = 2;
/// A response that was asked for again so often was too large for the path, as it seems.
const REPEATS_BEFORE_SMALL: u32 = 2;
/// A probe of the path's size is sent so often with DF. Then it is made to get through, so that the window is free again.
const PROBE_SENDS: u32 = 3;
/// And it waits so long each time.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// A message before it is sealed, to be cut again into smaller fragments. Its message ID stays: whoever has a fragment of the
/// larger ones drops that when the total grows (RFC 7383 section 2.6): so it must.
#[derive(Debug)]
struct Content {
    exchange: ExchangeType,
    id: u32,
    first: u8,
    chain: Vec<u8>,
}

/// A request of ours.
struct Request {
    content: Content,
    flight: InFlight,
    /// It was cut again into smaller fragments.
    made_smaller: bool,
    /// What is sent every other time: a probe that was not answered, see [`Window::end_probe`].
    other: Option<Packets>,
}

/// A response of ours, kept for its retransmissions.
struct Answered {
    content: Content,
    packets: Packets,
    repeats: u32,
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    packets: Packets,
    tries: u32,
    /// Sends in all; `tries` begins anew with a new path.
    sends: u32,
    since: Instant,
    /// Where it goes, if not over the path in use.
    path: Option<Path>,
    /// It asks whether the path takes its size: with DF, and repeated sooner.
    probe: bool,
}

impl InFlight {
    /// The first send; sets the retransmission timer.
    pub(crate) fn start(
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        packets: Packets,
    ) -> Self {
        let mut this = Self { packets, tries: 0, sends: 0, since: now.monotonic, path: None, probe: false };
        this.send(endpoint, now, common);
        this
    }

    fn send(&mut self, endpoint: &mut Endpoint, now: Now, common: &mut IkeSaCommon) {
        let path = self.path.unwrap_or(common.path);
        self.tries += 1;
        self.sends += 1;
        self.packets.transmit_by(path, self.probe, &mut endpoint.events);
        let wait = if self.probe { PROBE_WAIT } else { self.wait(&endpoint.config.retransmit) };
        common.timers.set(Timer::Retransmit, now.monotonic + wait);
    }

    /// The n-th wait is `first * factor^(n-1)`, at most `max`.
    fn wait(&self, config: &Retransmit) -> Duration {
        let exponent = i32::try_from(self.tries.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = config.first.as_secs_f64() * config.factor.powi(exponent);
        Duration::try_from_secs_f64(seconds).unwrap_or(config.max).min(config.max)
    }

    /// The retransmission timer fired: sends again, or tells that all tries are used up.
    pub(crate) fn again(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> Option<CloseReason> {
        if self.tries >= endpoint.config.retransmit.tries.max(1) {
            endpoint.counters.count(Counter::NoAnswer);
            let seconds = (now.monotonic - self.since).as_secs();
            return Some(CloseReason::Timeout { tries: self.tries, seconds });
        }
        endpoint.counters.count(Counter::RequestRepeated);
        self.send(endpoint, now, common);
        None
    }
}

/// Leave to answer one request, once.
#[derive(Debug)]
#[must_use]
pub(crate) struct ResponseToken {
    exchange: ExchangeType,
    message_id: u32,
    /// The answer goes where the request came from (section 2.11).
    path: Path,
}

impl ResponseToken {
    pub(crate) fn exchange(&self) -> ExchangeType {
        self.exchange
    }
    pub(crate) fn path(&self) -> Path {
        self.path
    }
}

/// What one authenticated message is.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Not authentic, a duplicate without meaning, or a fragment of something incomplete.
    Nothing,
    /// Authentic, but only a fragment yet, or a request that was answered before (its response went out again).
    Seen,
    /// A new request.
    Request(ResponseToken, Result<Payloads, Unreadable>),
    /// The answer to the request in flight, which is over with it.
    Response(Result<Payloads, Unreadable>),
}

/// Both windows of one IKE SA, and its keys.
pub(crate) struct Window {
    role: Role,
    initiator_spi: u64,
    responder_spi: u64,
    sealing: Box<dyn SealingKey>,
    opening: Box<dyn OpeningKey>,
    counter: u64,
    /// The largest message, as configured; `None`: no fragments.
    fragment_size: Option<usize>,
    /// And what was learnt of this path.
    learnt_size: usize,
    next_request: u32,
    in_flight: Option<Request>,
    expected_request: u32,
    answered: Option<Answered>,
    /// Octets of the largest fragment of the peer's request so far.
    request_largest: usize,
}

impl Window {
    /// `first_id` is the ID of the initiator's next request: 1 after IKE_SA_INIT, 0 for an IKE SA that comes from a
    /// rekey. The responder counts its own requests, from 0 in either case (section 2.2).
    pub(crate) fn new(
        crypto: &CryptoProvider,
        role: Role,
        spis: (u64, u64),
        keys: &IkeKeys,
        first_id: u32,
        fragment_size: Option<usize>,
    ) -> Result<Self, CryptoError> {
        let (ours, theirs) = match role {
            Role::Initiator => (&keys.initiator, &keys.responder),
            Role::Responder => (&keys.responder, &keys.initiator),
        };
        let (next_request, expected_request) = match role {
            Role::Initiator => (first_id, 0),
            Role::Responder => (0, first_id),
        };
        Ok(Self {
            role,
            initiator_spi: spis.0,
            responder_spi: spis.1,
            sealing: crypto.packets.sealing(ours)?,
            opening: crypto.packets.opening(theirs)?,
            counter: 0,
            fragment_size,
            learnt_size: usize::MAX,
            next_request,
            in_flight: None,
            expected_request,
            answered: None,
            request_largest: 0,
        })
    }

    /// The largest message, with what was learnt of the path; `None`: no fragments.
    pub(crate) fn fragment_size(&self) -> Option<usize> {
        self.fragment_size.map(|size| size.min(self.learnt_size))
    }
    pub(crate) fn set_fragment_size(&mut self, size: Option<usize>) {
        self.fragment_size = size;
    }
    /// The path is another one: its size is to be learnt anew.
    pub(crate) fn path_changed(&mut self) {
        self.learnt_size = usize::MAX;
    }
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    fn content(exchange: ExchangeType, id: u32, payloads: &[Payload]) -> Content {
        let (first, chain) = encode_payloads(payloads);
        Content { exchange, id, first, chain }
    }

    fn seal(&mut self, content: &Content, response: bool, fragment_size: Option<usize>) -> Packets {
        let header = HeaderFields {
            initiator_spi: self.initiator_spi,
            responder_spi: self.responder_spi,
            exchange: content.exchange,
            from_initiator: self.role == Role::Initiator,
            response,
            message_id: content.id,
        };
        let (key, counter) = (self.sealing.as_mut(), &mut self.counter);
        let messages = sk::seal(&header, content.first, &content.chain, key, counter, fragment_size);
        Packets(messages.into_iter().map(Bytes::from).collect())
    }

    /// Sends a request and sets the retransmission timer; the window must be free.
    ///
    /// # Panics
    /// When a request is in flight: callers ask [`Self::is_busy`] first.
    pub(crate) fn request(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) {
        let content = Self::content(exchange, self.next_id(&mut endpoint.fragments), payloads);
        let packets = self.seal(&content, false, self.fragment_size());
        let flight = InFlight::start(endpoint, now, common, packets);
        self.in_flight = Some(Request { content, flight, made_smaller: false, other: None });
    }

    /// How many message IDs are left in the direction that has fewer: they do not begin anew under the same keys (section 2.2).
    pub(crate) fn ids_left(&self) -> u32 {
        u32::MAX - self.next_request.max(self.expected_request)
    }

    /// As if so many requests had gone from this end, or come to it.
    #[cfg(test)]
    pub(crate) fn skip_ids(&mut self, sent: u32, received: u32) {
        self.next_request += sent;
        self.expected_request += received;
    }

    fn next_id(&mut self, fragments: &mut Fragments) -> u32 {
        assert!(self.in_flight.is_none(), "the window is one request wide");
        let id = self.next_request;
        // `ids_left` ends the IKE SA before.
        self.next_request = self.next_request.saturating_add(1);
        fragments.remove(self.message(true));
        id
    }

    /// Sends an INFORMATIONAL request of at most `len` octets, one message with DF; returns how many it has. The window must be
    /// free.
    ///
    /// # Panics
    /// When a request is in flight.
    pub(crate) fn probe_size(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        len: usize,
    ) -> usize {
        let id = self.next_id(&mut endpoint.fragments);
        let of = |octets: usize| {
            let padding = notify::plain(notify::PATH_PROBE, vec![0; octets]);
            Self::content(ExchangeType::Informational, id, &[padding])
        };
        let empty = sk::sealed_len(self.sealing.suite(), of(0).chain.len());
        let mut octets = len.saturating_sub(empty);
        // Padding of the cipher may round up.
        while octets > 0 && sk::sealed_len(self.sealing.suite(), of(octets).chain.len()) > len {
            octets -= 1;
        }
        let content = of(octets);
        let packets = self.seal(&content, false, None);
        let sent = packets.largest();
        let mut flight =
            InFlight { packets, tries: 0, sends: 0, since: now.monotonic, path: None, probe: true };
        flight.send(endpoint, now, common);
        self.in_flight = Some(Request { content, flight, made_smaller: false, other: None });
        sent
    }

    /// Whether the request in flight asks for the path's size, and may still be answered as such.
    pub(crate) fn is_probing_size(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|request| request.flight.probe)
    }

    /// The same message in small fragments, where the peer takes fragments and these are larger.
    fn smaller(&mut self, content: &Content, response: bool, packets: &Packets) -> Option<Packets> {
        if self.fragment_size.is_none() || packets.largest() <= SMALL_FRAGMENT {
            return None;
        }
        let small = self.seal(content, response, Some(SMALL_FRAGMENT));
        (small.0.len() > packets.0.len()).then_some(small)
    }

    /// Cuts the request in flight into small fragments.
    fn make_smaller(&mut self) {
        let Some(mut request) = self.in_flight.take() else { return };
        if let Some(small) = self.smaller(&request.content, false, &request.flight.packets) {
            request.flight.packets = small;
            request.made_smaller = true;
        }
        self.in_flight = Some(request);
    }

    /// Answers a request and keeps the answer for its retransmissions.
    pub(crate) fn respond(
        &mut self,
        token: ResponseToken,
        payloads: &[Payload],
        events: &mut VecDeque<Event>,
    ) {
        let content = Self::content(token.exchange, token.message_id, payloads);
        let packets = self.seal(&content, true, self.fragment_size());
        packets.transmit(token.path, events);
        self.answered = Some(Answered { content, packets, repeats: 0 });
    }

    /// The retransmission timer fired: see [`InFlight::again`]. A request that nobody answers gets smaller fragments.
    pub(crate) fn retransmit(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> Option<CloseReason> {
        let request = self.in_flight.as_ref()?;
        let (probe, tries) = (request.flight.probe, request.flight.tries);
        let large = !probe && tries >= SENDS_BEFORE_SMALL && !request.made_smaller;
        if probe && tries >= PROBE_SENDS {
            self.end_probe(now);
            endpoint.events.push_back(Event::PathSize { ike: common.id, taken: None });
        } else if let Some(Request { flight, other: Some(other), .. }) = &mut self.in_flight {
            std::mem::swap(&mut flight.packets, other);
        } else if large {
            self.make_smaller();
        }
        self.in_flight.as_mut().and_then(|request| request.flight.again(endpoint, now, common))
    }

    /// The probe in flight becomes a request like others, with all its tries before it, and gets through whatever the path takes:
    /// an empty message with its ID and the probe itself without DF take turns. A peer that has seen nothing yet answers the
    /// first that comes, and one that has seen the probe knows that again. (Section 2.1 wants repetitions to be bitwise
    /// identical; but fragments of an INFORMATIONAL are more than strongSwan takes, and the probe says nothing in any case.)
    fn end_probe(&mut self, now: Now) {
        if !self.is_probing_size() {
            return;
        }
        let Some(mut request) = self.in_flight.take() else { return };
        let empty = Self::content(request.content.exchange, request.content.id, &[]);
        let small = self.seal(&empty, false, None);
        let flight = &mut request.flight;
        request.other = Some(std::mem::replace(&mut flight.packets, small));
        (flight.probe, flight.tries, flight.since) = (false, 0, now.monotonic);
        self.in_flight = Some(request);
    }

    /// When the request in flight was sent, if that was once and over the path in use.
    pub(crate) fn sent_once(&self) -> Option<Instant> {
        let flight = self.in_flight.as_ref().map(|request| &request.flight);
        flight.filter(|flight| flight.sends == 1 && flight.path.is_none()).map(|flight| flight.since)
    }

    /// How often the request in flight was sent.
    pub(crate) fn tries(&self) -> u32 {
        self.in_flight.as_ref().map_or(0, |request| request.flight.tries)
    }

    /// Where the request in flight goes when it is repeated; `None`: over the path in use.
    pub(crate) fn aim(&mut self, path: Option<Path>) {
        if let Some(request) = &mut self.in_flight {
            request.flight.path = path;
        }
    }

    /// The path in use is another one, or there is one again: the request in flight is sent at once, with all its tries.
    pub(crate) fn restart(&mut self, endpoint: &mut Endpoint, now: Now, common: &mut IkeSaCommon) {
        // What was asked of the old path is of no use any more.
        self.end_probe(now);
        if let Some(Request { flight, .. }) = &mut self.in_flight {
            (flight.tries, flight.since, flight.path) = (0, now.monotonic, None);
            flight.send(endpoint, now, common);
        }
    }

    /// Gives up the request in flight without an answer.
    pub(crate) fn abandon(&mut self) {
        self.in_flight = None;
    }

    /// No retransmission of the last request can come any more.
    pub(crate) fn drop_cached(&mut self, fragments: &mut Fragments) {
        self.answered = None;
        fragments.remove(self.message(false));
    }

    /// The peer's request, or its response, among the fragments.
    fn message(&self, response: bool) -> Whose {
        let ours = match self.role {
            Role::Initiator => self.initiator_spi,
            Role::Responder => self.responder_spi,
        };
        (ours, response)
    }

    /// Takes one message. What does not authenticate changes nothing; neither does a message ID outside of the window.
    pub(crate) fn receive(&mut self, endpoint: &mut Endpoint, datagram: &Datagram<'_>) -> Incoming {
        let Endpoint { events, counters, fragments, .. } = endpoint;
        let Datagram { path, header, octets } = *datagram;
        // A message that says it comes from our own role is one of ours, reflected.
        let peer_is_initiator = self.role == Role::Responder;
        if header.from_initiator != peer_is_initiator
            || header.initiator_spi != self.initiator_spi
            || header.responder_spi != self.responder_spi
        {
            counters.count(Counter::OutOfWindow);
            return Incoming::Nothing;
        }
        let outcome = if header.response {
            self.receive_response(header, octets, fragments, counters)
        } else {
            self.receive_request(header, octets, path, events, fragments, counters)
        };
        outcome.unwrap_or_else(|why| {
            counters.count(why);
            Incoming::Nothing
        })
    }

    fn receive_response(
        &mut self,
        header: &Header,
        message: &[u8],
        fragments: &mut Fragments,
        counters: &mut Counters,
    ) -> Result<Incoming, Counter> {
        match &self.in_flight {
            Some(Request { content, .. })
                if content.id == header.message_id && content.exchange == header.exchange => {}
            _ => return Err(Counter::OutOfWindow),
        }
        match self.open(message, true, fragments, counters)? {
            Opened::Whole(plain) => {
                // Only the small ones came through, as it seems.
                if self.in_flight.take().is_some_and(|request| request.made_smaller) {
                    self.learnt_size = SMALL_FRAGMENT;
                }
                fragments.remove(self.message(true));
                Ok(Incoming::Response(Payloads::read(plain.first, &plain.body)))
            }
            Opened::Part => Ok(Incoming::Seen),
        }
    }

    fn receive_request(
        &mut self,
        header: &Header,
        message: &[u8],
        path: Path,
        events: &mut VecDeque<Event>,
        fragments: &mut Fragments,
        counters: &mut Counters,
    ) -> Result<Incoming, Counter> {
        let id = header.message_id;
        if id == self.expected_request {
            return match self.open(message, false, fragments, counters)? {
                Opened::Whole(plain) => {
                    self.expected_request = self.expected_request.saturating_add(1);
                    fragments.remove(self.message(false));
                    self.answered = None;
                    // Who sends smaller fragments has found that larger ones are lost; so will be ours.
                    let largest = std::mem::take(&mut self.request_largest);
                    if largest > 0 {
                        self.learnt_size = self.learnt_size.min(largest.max(SMALL_FRAGMENT));
                    }
                    let token = ResponseToken { exchange: header.exchange, message_id: id, path };
                    Ok(Incoming::Request(token, Payloads::read(plain.first, &plain.body)))
                }
                Opened::Part => Ok(Incoming::Seen),
            };
        }
        if self.answered.as_ref().is_none_or(|answered| answered.content.id != id) {
            return Err(Counter::OutOfWindow);
        }
        // Section 2.1: the same response again. Of a fragmented request only fragment 1 asks for it (RFC 7383
        // section 2.6.1), and all must be authentic, so that nobody else can make us send.
        let again = match sk::open(message, self.opening.as_mut()) {
            Ok(SkMessage::Whole(_)) => true,
            Ok(SkMessage::Fragment { number, .. }) => number == 1,
            Err(_) => return Err(Counter::NotAuthentic),
        };
        if again && let Some(mut answered) = self.answered.take() {
            counters.count(Counter::ResponseRepeated);
            answered.repeats = answered.repeats.saturating_add(1);
            if answered.repeats == REPEATS_BEFORE_SMALL
                && self.fragment_size.is_some()
                && answered.packets.largest() > SMALL_FRAGMENT
            {
                if let Some(small) = self.smaller(&answered.content, true, &answered.packets) {
                    answered.packets = small;
                }
                self.learnt_size = SMALL_FRAGMENT;
            }
            answered.packets.transmit(path, events);
            self.answered = Some(answered);
        }
        Ok(Incoming::Seen)
    }

    fn open(
        &mut self,
        message: &[u8],
        response: bool,
        fragments: &mut Fragments,
        counters: &mut Counters,
    ) -> Result<Opened, Counter> {
        match sk::open(message, self.opening.as_mut()) {
            Ok(SkMessage::Whole(plain)) => Ok(Opened::Whole(plain)),
            Ok(SkMessage::Fragment { number, total, first, data }) => {
                let whose = self.message(response);
                if !response {
                    // Those of the larger ones before are dropped with the first one of more.
                    let anew = fragments.total(whose) < usize::from(total);
                    let before = if anew { 0 } else { self.request_largest };
                    self.request_largest = before.max(message.len());
                }
                let (outcome, forgotten) = fragments.insert(whose, number, total, first, data);
                (0..forgotten).for_each(|_| counters.count(Counter::FragmentsForgotten));
                match outcome {
                    Ok(Some(plain)) => Ok(Opened::Whole(plain)),
                    Ok(None) => Ok(Opened::Part),
                    Err(_) => Err(Counter::FragmentRefused),
                }
            }
            Err(_) => Err(Counter::NotAuthentic),
        }
    }
}

enum Opened {
    Whole(Plain),
    Part,
}
