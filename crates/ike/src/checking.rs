//! Between AUTH and its consequences: the peer has proved who it is, and whether its certificate is revoked is being asked
//! (`Event::CheckRevocation`). The IKE SA waits, for a time with an end; messages of the peer, which can only repeat what it
//! said, are passed over. Only who holds a trusted CA's certificate and its key gets so far.

use crate::certs::CertError;
use crate::child::Offer;
use crate::config::{Connection, Now};
use crate::endpoint::{Endpoint, IkeSaCommon, State};
use crate::event::{CloseReason, Event, Reqid, RevocationCheck};
use crate::identity::Identity;
use crate::ike_auth::{self, Agreed, Failure};
use crate::ike_sa_init::InitKey;
use crate::payloads::Payloads;
use crate::revocation::Query;
use crate::timer::Timer;
use crate::window::ResponseToken;
use std::sync::Arc;

/// What goes on when the answer is there.
pub(crate) enum Then {
    /// We initiated: the peer's IKE_AUTH response is looked into.
    Accept(Offer, Reqid),
    /// We respond: the peer's IKE_AUTH request is answered.
    Answer(ResponseToken, InitKey),
}

/// Awaits whether the peer's certificates are revoked.
pub(crate) struct Checking {
    pub(crate) connection: Arc<Connection>,
    pub(crate) agreed: Agreed,
    pub(crate) payloads: Payloads,
    pub(crate) remote_id: Identity,
    pub(crate) then: Then,
}

impl Checking {
    /// Asks, or fails at once where too many wait already.
    pub(crate) fn start(
        self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        queries: Vec<Query>,
    ) -> State {
        if endpoint.checking >= endpoint.config.revocation_checks {
            let why = format!("{} other peers are being checked", endpoint.checking);
            let refused = queries.first().map_or(Ok(()), |query| Err(query.unknown(why)));
            return self.finish(endpoint, now, common, refused);
        }
        common.timers.set(Timer::GiveUp, now.monotonic + endpoint.config.revocation_patience);
        let check = RevocationCheck {
            ike: common.id,
            remote_id: self.remote_id.clone(),
            patience: endpoint.config.revocation_patience,
            queries,
        };
        endpoint.events.push_back(Event::CheckRevocation(Box::new(check)));
        State::Checking(Box::new(self))
    }

    pub(crate) fn on_timer(
        self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        timer: Timer,
    ) -> State {
        if timer != Timer::GiveUp {
            return State::Checking(self);
        }
        let late = CertError::RevocationUnknown {
            subject: self.remote_id.to_string(),
            cause: format!("no answer within {} s", endpoint.config.revocation_patience.as_secs()),
        };
        self.finish(endpoint, now, common, Err(late))
    }

    /// The answer is there.
    pub(crate) fn finish(
        self,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
        outcome: Result<(), CertError>,
    ) -> State {
        common.timers.stop(Timer::GiveUp);
        let Self { connection, agreed, payloads, remote_id, then } = self;
        let outcome = outcome.map_err(|error| Failure::revoked(&error));
        match then {
            Then::Accept(offer, reqid) => {
                let sent = ike_auth::AuthSent { connection, agreed, offer, reqid };
                sent.conclude(endpoint, now, common, &payloads, remote_id, outcome)
            }
            Then::Answer(token, init) => {
                let chosen = outcome.map(|()| connection);
                let mut state =
                    ike_auth::answer(endpoint, now, common, agreed, token, &payloads, remote_id, chosen);
                ike_auth::keep_init(endpoint, &mut state, init);
                state
            }
        }
    }

    /// It is told to close.
    pub(crate) fn close(self, endpoint: &mut Endpoint, common: &IkeSaCommon, reason: CloseReason) -> State {
        if let Then::Answer(_, init) = &self.then {
            endpoint.inits.remove(init);
        }
        endpoint.fail(common, Some(&self.connection), Some(self.remote_id), reason)
    }
}
