//! Several IKE SAs of one identity: INITIAL_CONTACT (RFC 7296 section 2.4), the unique policy, and how one takes the place
//! of another without losing a packet (reauthentication by make-before-break, section 2.8.3).

use crate::child::{Child, Negotiated, Phase};
use crate::config::{Connection, Now, Unique};
use crate::endpoint::{Endpoint, IkeSaCommon, State};
use crate::established::Established;
use crate::event::{CloseReason, IkeSaId, Path};
use crate::identity::Identity;
use crate::timer::Timer;
use ferry6_crypto::Spi;
use std::time::Duration;

impl Endpoint {
    /// What a new IKE SA means for older ones of the same identity. INITIAL_CONTACT (section 2.4) says that they are
    /// dead: nothing is sent on them then. Without it the peer may be reauthenticating: an old one that is to go still
    /// carries traffic for `linger`, or until the peer deletes it.
    ///
    /// # Errors
    /// The reason for the log, where the new one is to be refused.
    pub(crate) fn apply_unique(
        &mut self,
        now: Now,
        connection: &Connection,
        remote_id: &Identity,
        path: Path,
        initial_contact: bool,
    ) -> Result<(), String> {
        let old: Vec<IkeSaId> = self.peers.get(remote_id).cloned().unwrap_or_default();
        match connection.unique {
            Unique::Never if !initial_contact => {}
            Unique::Never => old.into_iter().for_each(|id| self.drop_silently(id)),
            Unique::Replace => {
                for id in old {
                    if initial_contact {
                        self.drop_silently(id);
                    } else {
                        self.retire(now, id);
                    }
                }
            }
            Unique::Keep => {
                for id in old {
                    let at = self.path_of(id).map(|old| old.remote);
                    if initial_contact && at.is_some_and(|at| at.ip() == path.remote.ip()) {
                        self.drop_silently(id);
                        continue;
                    }
                    // The same socket: the same peer, which reauthenticates.
                    if at == Some(path.remote) {
                        self.retire(now, id);
                        continue;
                    }
                    // Should the old one be dead, the next attempt will find it gone.
                    self.probe_now(now, id);
                    return Err(
                        "the identity is connected already, and `unique = keep` keeps the older one".into()
                    );
                }
            }
        }
        Ok(())
    }

    /// An older IKE SA goes soon.
    fn retire(&mut self, now: Now, ike: IkeSaId) {
        let Some(spi) = self.spi_of(ike) else { return };
        let at = now.monotonic + self.config.linger;
        self.with_established(spi, |s, _, common| {
            common
                .timers
                .set(Timer::Retire, common.timers.get(Timer::Retire).map_or(at, |known| known.min(at)));
            State::Established(s)
        });
    }

    /// The other IKE SAs with this peer that carry the same traffic.
    fn twins(&self, ike: IkeSaId, remote_id: &Identity, same: impl Fn(&Child) -> bool) -> Vec<u64> {
        let ids = self.peers.get(remote_id).map_or(&[][..], Vec::as_slice);
        ids.iter()
            .filter(|id| **id != ike)
            .filter_map(|id| self.spi_of(*id))
            .filter(|spi| {
                self.established_at(*spi).is_some_and(|s| s.closing.is_none() && s.children.iter().any(&same))
            })
            .collect()
    }

    /// Whether a new Child SA with these selectors takes over from one of another IKE SA.
    pub(crate) fn has_twin(&self, ike: IkeSaId, remote_id: &Identity, new: &Negotiated) -> bool {
        let same = |c: &Child| c.local_ts == new.local_ts && c.remote_ts == new.remote_ts;
        !self.twins(ike, remote_id, same).is_empty()
    }
}

impl Established {
    /// It leaves. Where another one has its traffic, that one sends now at the latest, and what the peer still sends here
    /// is taken for a while.
    pub(crate) fn hand_traffic_over(&self, endpoint: &mut Endpoint, common: &IkeSaCommon) -> Duration {
        let same = |c: &Child| {
            self.children.iter().any(|own| own.local_ts == c.local_ts && own.remote_ts == c.remote_ts)
        };
        let twins = endpoint.twins(common.id, &self.remote_id, same);
        for spi in &twins {
            endpoint.with_established(*spi, |mut s, endpoint, _| {
                let fresh: Vec<Spi> =
                    s.children.iter().filter(|c| c.phase == Phase::Fresh).map(|c| c.inbound).collect();
                fresh.into_iter().for_each(|inbound| s.use_outbound(endpoint, inbound));
                State::Established(s)
            });
        }
        if twins.is_empty() { Duration::ZERO } else { endpoint.config.linger }
    }

    /// Its successor has had its time to come into use.
    pub(crate) fn on_retire(
        self: Box<Self>,
        endpoint: &mut Endpoint,
        now: Now,
        common: &mut IkeSaCommon,
    ) -> State {
        self.close(endpoint, now, common, CloseReason::Replaced)
    }
}
