//! What two ends can do, as a list: the tests of collisions, the property tests and the fuzz target `ike_endpoints` are driven
//! by the same operations.

use super::{Fate, Pair, Side, first_path};
use crate::established::Task;
use crate::event::Path;
use bytes::Bytes;
use std::time::Duration;

/// One thing that an end does, or that the path does, or somebody on it.
#[derive(Clone, Debug)]
pub enum Operation {
    /// This end rekeys its first Child SA.
    RekeyChild(Side),
    /// This end rekeys its first IKE SA.
    RekeyIke(Side),
    /// This end deletes its first Child SA.
    DeleteChild(Side),
    /// This end closes its first IKE SA.
    Close(Side),
    /// The client connects (once more).
    Initiate,
    /// Time passes, and what is due happens.
    Wait(Duration),
    /// This end sends a packet on each of its SAs.
    Ping(Side),
    /// The path loses the next datagram, and none behind it.
    LoseNext,
    /// Somebody sends this to this end, as if it came from the other.
    Forge(Side, Bytes),
}

impl Operation {
    /// Does it. What an end has no SA for, it leaves.
    ///
    /// # Errors
    /// What the endpoint refuses of a rekey or a close.
    pub fn apply(&self, pair: &mut Pair) -> Result<(), String> {
        let sa = |pair: &mut Pair, side| pair.host(side).endpoint.ike_sas().first().map(|sa| sa.ike);
        match self {
            Self::RekeyChild(side) => match pair.host(*side).live().first().map(|sa| sa.reqid) {
                Some(reqid) => pair.act(*side, |e, now| e.rekey_child(now, reqid)).map_err(|e| e.to_string()),
                None => Ok(()),
            },
            Self::RekeyIke(side) => match sa(pair, *side) {
                Some(ike) => pair.act(*side, |e, now| e.rekey_ike(now, ike)).map_err(|e| e.to_string()),
                None => Ok(()),
            },
            Self::DeleteChild(side) => {
                let Some(sa) = pair.host(*side).live().first().map(|sa| (sa.ike, sa.inbound.spi)) else {
                    return Ok(());
                };
                pair.act(*side, |endpoint, now| {
                    let Some(spi) = endpoint.spi_of(sa.0) else { return };
                    endpoint.with_established(spi, |mut s, endpoint, common| {
                        s.want(Task::DeleteChild(sa.1));
                        s.pump(endpoint, now, common)
                    });
                });
                Ok(())
            }
            Self::Close(side) => match sa(pair, *side) {
                Some(ike) => pair.act(*side, |e, now| e.close(now, ike)).map_err(|e| e.to_string()),
                None => Ok(()),
            },
            Self::Initiate => {
                pair.initiate();
                Ok(())
            }
            Self::Wait(time) => {
                pair.run(*time);
                Ok(())
            }
            Self::Ping(side) => {
                pair.ping(*side);
                Ok(())
            }
            Self::LoseNext => {
                let mut done = false;
                pair.link.fate =
                    Box::new(
                        move |_| {
                            if std::mem::replace(&mut done, true) { Fate::Deliver } else { Fate::Drop }
                        },
                    );
                Ok(())
            }
            Self::Forge(to, message) => {
                let path = match to {
                    Side::Broker => Path { local: first_path().remote, remote: first_path().local },
                    Side::Client => first_path(),
                };
                pair.act(*to, |endpoint, now| endpoint.handle_datagram(now, path, message));
                Ok(())
            }
        }
    }
}
