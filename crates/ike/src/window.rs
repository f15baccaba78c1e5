//! Message windows of one (RFC 7296 sections 2.1 to 2.3): message IDs, retransmission, cached responses, and the
//! protection of messages by SK_e and SK_a, with fragmentation (RFC 7383).

use crate::config::{Now, Retransmit, Role};
use crate::endpoint::{Datagram, Endpoint, IkeSaCommon};
use crate::event::{CloseReason, Event, Path, Transmit};
use crate::keymat::IkeKeys;
use crate::payloads::{Payloads, Unreadable};
use crate::timer::Timer;
use crate::wire::message::{HeaderFields, encode_payloads};
use crate::wire::sk::{self, Plain, Reassembly, SkMessage};
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
        for payload in &self.0 {
            events.push_back(Event::Transmit(Transmit { path, payload: payload.clone() }));
        }
    }
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    packets: Packets,
    tries: u32,
    since: Instant,
    /// Where it goes, if not over the path in use.
    path: Option<Path>,
}

impl InFlight {
    /// The first send; sets the retransmission timer.
    pub(crate) fn start(
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        packets: Packets,
    ) -> Self {
        let mut this = Self { packets, tries: 0, since: now.monotonic, path: None };
        this.send(endpoint, now, common);
        this
    }

    fn send(&mut self, endpoint: &mut Endpoint, now: Now, common: &mut IkeSaCommon) {
        self.packets.transmit(self.path.unwrap_or(common.path), &mut endpoint.events);
        self.tries += 1;
        common.timers.set(Timer::Retransmit, now.monotonic + self.wait(&endpoint.config.retransmit));
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
            let seconds = (now.monotonic - self.since).as_secs();
            return Some(CloseReason::Timeout { tries: self.tries, seconds });
        }
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
    fragment_size: Option<usize>,
    next_request: u32,
    in_flight: Option<(u32, ExchangeType, InFlight)>,
    expected_request: u32,
    answered: Option<(u32, Packets)>,
    request_parts: Option<Box<Reassembly>>,
    response_parts: Option<Box<Reassembly>>,
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
            next_request,
            in_flight: None,
            expected_request,
            answered: None,
            request_parts: None,
            response_parts: None,
        })
    }

    pub(crate) fn fragment_size(&self) -> Option<usize> {
        self.fragment_size
    }
    pub(crate) fn set_fragment_size(&mut self, size: Option<usize>) {
        self.fragment_size = size;
    }
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    fn seal(&mut self, exchange: ExchangeType, response: bool, id: u32, payloads: &[Payload]) -> Packets {
        let header = HeaderFields {
            initiator_spi: self.initiator_spi,
            responder_spi: self.responder_spi,
            exchange,
            from_initiator: self.role == Role::Initiator,
            response,
            message_id: id,
        };
        let (first, chain) = encode_payloads(payloads);
        let messages =
            sk::seal(&header, first, &chain, self.sealing.as_mut(), &mut self.counter, self.fragment_size);
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
        assert!(self.in_flight.is_none(), "the window is one request wide");
        let id = self.next_request;
        // After 2^32 messages an IKE SA was rekeyed long ago (section 2.2).
        self.next_request = self.next_request.wrapping_add(1);
        self.response_parts = None;
        let packets = self.seal(exchange, false, id, payloads);
        self.in_flight = Some((id, exchange, InFlight::start(endpoint, now, common, packets)));
    }

    /// Answers a request and keeps the answer for its retransmissions.
    pub(crate) fn respond(
        &mut self,
        token: ResponseToken,
        payloads: &[Payload],
        events: &mut VecDeque<Event>,
    ) {
        let packets = self.seal(token.exchange, true, token.message_id, payloads);
        packets.transmit(token.path, events);
        self.answered = Some((token.message_id, packets));
    }

    /// The retransmission timer fired: see [`InFlight::again`].
    pub(crate) fn retransmit(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> Option<CloseReason> {
        self.in_flight.as_mut().and_then(|(_, _, request)| request.again(endpoint, now, common))
    }

    /// How often the request in flight was sent.
    pub(crate) fn tries(&self) -> u32 {
        self.in_flight.as_ref().map_or(0, |(_, _, request)| request.tries)
    }

    /// Where the request in flight goes when it is repeated; `None`: over the path in use.
    pub(crate) fn aim(&mut self, path: Option<Path>) {
        if let Some((_, _, request)) = &mut self.in_flight {
            request.path = path;
        }
    }

    /// The path in use is another one, or there is one again: the request in flight is sent at once, with all its tries.
    pub(crate) fn restart(&mut self, endpoint: &mut Endpoint, now: Now, common: &mut IkeSaCommon) {
        if let Some((_, _, request)) = &mut self.in_flight {
            (request.tries, request.since, request.path) = (0, now.monotonic, None);
            request.send(endpoint, now, common);
        }
    }

    /// Gives up the request in flight without an answer.
    pub(crate) fn abandon(&mut self) {
        self.in_flight = None;
    }

    /// No retransmission of the last request can come any more.
    pub(crate) fn drop_cached(&mut self) {
        self.answered = None;
        self.request_parts = None;
    }

    /// Takes one message. What does not authenticate changes nothing; neither does a message ID outside of the window.
    pub(crate) fn receive(&mut self, datagram: &Datagram<'_>, events: &mut VecDeque<Event>) -> Incoming {
        let Datagram { path, header, octets } = *datagram;
        // A message that says it comes from our own role is one of ours, reflected.
        let peer_is_initiator = self.role == Role::Responder;
        if header.from_initiator != peer_is_initiator
            || header.initiator_spi != self.initiator_spi
            || header.responder_spi != self.responder_spi
        {
            return Incoming::Nothing;
        }
        if header.response {
            self.receive_response(header, octets)
        } else {
            self.receive_request(header, octets, path, events)
        }
    }

    fn receive_response(&mut self, header: &Header, message: &[u8]) -> Incoming {
        match &self.in_flight {
            Some((id, exchange, _)) if *id == header.message_id && *exchange == header.exchange => {}
            _ => return Incoming::Nothing,
        }
        match self.open(message, true) {
            Opened::Whole(plain) => {
                self.in_flight = None;
                self.response_parts = None;
                Incoming::Response(Payloads::read(plain.first, &plain.body))
            }
            Opened::Part => Incoming::Seen,
            Opened::Refused => Incoming::Nothing,
        }
    }

    fn receive_request(
        &mut self,
        header: &Header,
        message: &[u8],
        path: Path,
        events: &mut VecDeque<Event>,
    ) -> Incoming {
        let id = header.message_id;
        if id == self.expected_request {
            return match self.open(message, false) {
                Opened::Whole(plain) => {
                    self.expected_request = self.expected_request.wrapping_add(1);
                    self.request_parts = None;
                    self.answered = None;
                    let token = ResponseToken { exchange: header.exchange, message_id: id, path };
                    Incoming::Request(token, Payloads::read(plain.first, &plain.body))
                }
                Opened::Part => Incoming::Seen,
                Opened::Refused => Incoming::Nothing,
            };
        }
        let answered = self.answered.as_ref().is_some_and(|(answered, _)| *answered == id);
        if !answered {
            return Incoming::Nothing;
        }
        // Section 2.1: the same response again. Of a fragmented request only fragment 1 asks for it (RFC 7383
        // section 2.6.1), and all must be authentic, so that nobody else can make us send.
        let again = match sk::open(message, self.opening.as_mut()) {
            Ok(SkMessage::Whole(_)) => true,
            Ok(SkMessage::Fragment { number, .. }) => number == 1,
            Err(_) => return Incoming::Nothing,
        };
        if let (true, Some((_, packets))) = (again, &self.answered) {
            packets.transmit(path, events);
        }
        Incoming::Seen
    }

    fn open(&mut self, message: &[u8], response: bool) -> Opened {
        match sk::open(message, self.opening.as_mut()) {
            Ok(SkMessage::Whole(plain)) => Opened::Whole(plain),
            Ok(SkMessage::Fragment { number, total, first, data }) => {
                let parts = if response { &mut self.response_parts } else { &mut self.request_parts };
                match parts.get_or_insert_default().insert(number, total, first, data) {
                    Ok(Some(plain)) => Opened::Whole(plain),
                    Ok(None) => Opened::Part,
                    Err(_) => Opened::Refused,
                }
            }
            Err(_) => Opened::Refused,
        }
    }
}

enum Opened {
    Whole(Plain),
    Part,
    Refused,
}
