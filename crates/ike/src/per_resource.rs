//! Several Child SAs with the same traffic selectors, one for each core (RFC 9611). They share a reqid.
//!
//! Both ends say SA_RESOURCE_INFO when the first Child SA is made; a peer that does not is never asked for more. The
//! initiator of the IKE SA then asks for one after the other, until it has what it wants or the peer refuses. The first is the
//! fallback: what stands beside it may go at any time, and is not asked for again.

use crate::child::{Child, Phase, Refusal, Terms};
use crate::config::{Connection, EspProposal, IpcompPolicy, Now, Role};
use crate::endpoint::{Endpoint, IkeSaCommon};
use crate::established::{Established, Task};
use crate::event::Reqid;
use crate::notify;
use crate::payloads::Payloads;
use crate::selector::narrow;
use crate::wire::Payload;
use ferry6_crypto::{Group, Spi};
use std::time::Duration;

/// How often a peer may put one more Child SA off before it is not asked any more.
const PUT_OFF: u8 = 5;

/// An answer has arrived, or was sent again, by then.
const USE_AFTER: Duration = Duration::from_secs(2);

/// SA_RESOURCE_INFO (section 5.1); its data serve debugging alone. The first Child SA is bound to no resource.
pub(crate) fn info(resource: u32) -> Payload {
    let data = if resource == 0 { Vec::new() } else { resource.to_be_bytes().to_vec() };
    notify::plain(notify::SA_RESOURCE_INFO, data)
}

/// How far the peer goes along.
#[derive(Debug, Default)]
pub(crate) struct More {
    ended: bool,
    put_off: u8,
}

impl More {
    /// No more are asked for on this IKE SA.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// The peer says TEMPORARY_FAILURE; whether to try again.
    pub(crate) fn put_off(&mut self) -> bool {
        self.put_off += 1;
        self.ended |= self.put_off >= PUT_OFF;
        !self.ended
    }
}

impl Terms {
    /// Those by which `like` was negotiated: section 4 wants all of a reqid alike, with keys of their own.
    pub(crate) fn like(like: &Child, connection: &Connection) -> Self {
        let groups: Vec<Group> = connection.esp.iter().flat_map(|p| &p.groups).copied().collect();
        let esp = EspProposal {
            ciphers: vec![like.suite.cipher()],
            integs: like.suite.integ().into_iter().collect(),
            groups,
            esn: vec![like.esn],
        };
        let ipcomp = if like.ipcomp { IpcompPolicy::On } else { IpcompPolicy::Off };
        Self { esp: vec![esp], ipcomp }
    }
}

impl Established {
    fn of_reqid(&self, reqid: Reqid) -> impl Iterator<Item = &Child> {
        self.children.iter().filter(move |c| c.reqid == reqid && c.is_current())
    }

    /// Inbound SPIs of a reqid.
    pub(crate) fn inbound_spis(&self, reqid: Reqid) -> Vec<Spi> {
        self.of_reqid(reqid).map(|c| c.inbound).collect()
    }

    /// The one that further ones of this reqid must be like.
    pub(crate) fn model_of(&self, reqid: Reqid) -> Option<&Child> {
        self.of_reqid(reqid).min_by_key(|c| c.resource)
    }

    /// The lowest number that is not taken.
    pub(crate) fn free_resource(&self, reqid: Reqid) -> u32 {
        let taken = |n: u32| self.of_reqid(reqid).any(|c| c.resource == Some(n));
        (0..).find(|n| !taken(*n)).expect("there are fewer Child SAs than numbers")
    }

    /// Whether we ask for one more: the initiator of the IKE SA does, where both ends agreed upon it.
    pub(crate) fn wants_more(&self, reqid: Reqid) -> bool {
        self.first_role == Role::Initiator
            && !self.more.ended
            && self.of_reqid(reqid).any(|c| c.resource.is_some())
            && self.of_reqid(reqid).count() < self.connection.per_resource.wanted
    }

    /// A first Child SA came up.
    pub(crate) fn want_more(&mut self, reqid: Reqid) {
        if self.wants_more(reqid) {
            self.want(Task::MoreChildren(reqid));
        }
    }

    /// TS_MAX_QUEUE (section 5.2), NO_ADDITIONAL_SAS, or anything else: what there is, does.
    pub(crate) fn refused_more(
        &mut self,
        endpoint: &mut Endpoint,
        common: &IkeSaCommon,
        reqid: Reqid,
        notify_type: u16,
    ) {
        self.more.end();
        let count = self.of_reqid(reqid).count();
        if count == 0 {
            // The peer deleted them all meanwhile.
            return self.want(Task::NewChild);
        }
        let (who, name) = (self.who(common), notify::display(notify_type));
        endpoint.notice(
            false,
            "more_child_sas",
            format!("{who}: the peer takes no more Child SAs than {count}: {name}"),
        );
        self.want(Task::Probe);
    }

    // --- responder -------------------------------------------------------------------------------------------------

    /// The one beside which the peer wants another; `None` where it is the first with its selectors.
    pub(crate) fn join(&self, payloads: &Payloads) -> Result<Option<&Child>, Refusal> {
        let (Some(ts_initiator), Some(ts_responder)) = (&payloads.ts_initiator, &payloads.ts_responder)
        else {
            return Ok(None);
        };
        let same = |c: &&Child| {
            c.is_current()
                && c.resource.is_some()
                && narrow(ts_initiator, &c.remote_ts) == c.remote_ts
                && narrow(ts_responder, &c.local_ts) == c.local_ts
        };
        let Some(like) = self.children.iter().filter(same).min_by_key(|c| c.resource) else {
            return Ok(None);
        };
        let limit = self.connection.per_resource.limit;
        if self.of_reqid(like.reqid).count() >= limit {
            let why = format!(
                "the peer has {limit} Child SAs with these selectors, the bound of child.per_cpu_sas"
            );
            return Err(Refusal::new(notify::TS_MAX_QUEUE, why));
        }
        Ok(Some(like))
    }

    /// A new one beside others, which we answered: the peer must have our answer before it sees a packet.
    pub(crate) fn use_soon(&mut self, common: &mut IkeSaCommon, now: Now, inbound: Spi) {
        if let Some(child) = self.child(inbound) {
            child.use_at = Some(now.monotonic + USE_AFTER);
        }
        self.arm_children(common);
    }

    /// Another request came: by its window of one, the peer has our last answer (RFC 7296 section 2.3).
    pub(crate) fn peer_has_our_answer(&mut self, endpoint: &mut Endpoint) {
        let waits = |c: &&Child| c.phase == Phase::Fresh && c.use_at.is_some();
        let waiting: Vec<Spi> = self.children.iter().filter(waits).map(|c| c.inbound).collect();
        for inbound in waiting {
            self.use_outbound(endpoint, inbound);
        }
    }
}
