//! An IKE SA without Child SAs: replaced by a rekey, or refused or deleted, until the last exchange on it is through.
//!
//! The embedder does not see it: its ID is already another's, or `Closed` was told.

use crate::config::Now;
use crate::endpoint::{Datagram, Endpoint, IkeSaCommon, State};
use crate::keymat::SkD;
use crate::negotiation::SelectedIke;
use crate::notify;
use crate::payloads::{Payloads, Unreadable};
use crate::timer::Timer;
use crate::window::{Incoming, ResponseToken, Window};
use crate::wire::{Delete, ExchangeType, Payload, protocol};

/// An IKE SA without Child SAs.
pub(crate) struct Spare {
    pub(crate) window: Window,
    /// What it would take to become the IKE SA after all, when a collision of rekeys is decided for it.
    pub(crate) heir: Option<Box<Heir>>,
    /// Our last request is on its way: its answer is the end.
    leaving: bool,
}

/// Keys and algorithms of an IKE SA that may yet inherit the Child SAs.
pub(crate) struct Heir {
    pub(crate) sk_d: SkD,
    pub(crate) selected: SelectedIke,
}

/// A new IKE SA, before it inherits the Child SAs.
pub(crate) struct Successor {
    pub(crate) common: IkeSaCommon,
    pub(crate) window: Window,
    pub(crate) heir: Heir,
}

/// "Delete the IKE SA" (section 1.4.1).
pub(crate) fn delete_ike() -> Payload {
    Payload::Delete(Delete { protocol: protocol::IKE, spis: Vec::new() })
}

impl Spare {
    /// Sends one last INFORMATIONAL request; gone when it is answered or given up.
    pub(crate) fn say_last(
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        mut window: Window,
        payloads: &[Payload],
    ) -> State {
        window.abandon();
        common.timers = Default::default();
        window.request(endpoint, now, common, ExchangeType::Informational, payloads);
        State::Spare(Box::new(Self { window, heir: None, leaving: true }))
    }

    /// Sends DELETE.
    pub(crate) fn delete(
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        window: Window,
    ) -> State {
        Self::say_last(endpoint, now, common, window, &[delete_ike()])
    }

    /// Stays to repeat its last answer, should that have been lost, or to await the peer's DELETE.
    pub(crate) fn linger(
        endpoint: &Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        window: Window,
        heir: Option<Heir>,
    ) -> State {
        let retransmit = common.timers.get(Timer::Retransmit).filter(|_| window.is_busy());
        common.timers = Default::default();
        common.timers.set_or_stop(Timer::Retransmit, retransmit);
        common.timers.set(Timer::GiveUp, now.monotonic + endpoint.config.half_open.lifetime);
        State::Spare(Box::new(Self { window, heir: heir.map(Box::new), leaving: false }))
    }

    pub(crate) fn on_timer(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        timer: Timer,
    ) -> State {
        match timer {
            Timer::Retransmit if self.window.retransmit(endpoint, now, common).is_some() => State::Gone,
            Timer::GiveUp => State::Gone,
            _ => State::Spare(self),
        }
    }

    pub(crate) fn on_message(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        datagram: &Datagram<'_>,
    ) -> State {
        match self.window.receive(endpoint, datagram) {
            Incoming::Response(_) => {
                common.timers.stop(Timer::Retransmit);
                if self.leaving { State::Gone } else { State::Spare(self) }
            }
            Incoming::Request(token, payloads) => self.on_request(endpoint, now, common, token, payloads),
            Incoming::Nothing | Incoming::Seen => State::Spare(self),
        }
    }

    fn on_request(
        mut self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        token: ResponseToken,
        payloads: Result<Payloads, Unreadable>,
    ) -> State {
        let deleted = payloads.as_ref().is_ok_and(Payloads::deletes_ike);
        if !deleted && self.heir.is_some() {
            // Both rekeyed, and the peer goes on with its own: it is the winner, or the peer has not seen ours.
            self = match endpoint.hand_over(now, common, self) {
                Ok(s) => return s.on_new_request(endpoint, now, common, token, payloads),
                Err(spare) => spare,
            };
        }
        let answer = match token.exchange() {
            // Section 2.25: the IKE SA is on its way out; the peer may ask again on the new one.
            ExchangeType::CreateChildSa => vec![notify::plain(notify::TEMPORARY_FAILURE, Vec::new())],
            _ => Vec::new(),
        };
        self.window.respond(token, &answer, &mut endpoint.events);
        if deleted {
            let Self { window, .. } = *self;
            return Self::linger(endpoint, now, common, window, None);
        }
        State::Spare(self)
    }
}
