//! Whole exchanges between two endpoints on a fake clock.

mod collisions;
mod handshake;
mod hostile;
mod life;
mod lossy;
mod mobike;
mod path_size;
mod peers;
mod per_resource;
mod pki;
mod prefixes;
mod protected;
mod refusals;
mod rekey;
mod revocation;
mod rtt;

use crate::config::Connection;
use crate::event::CloseReason;
use crate::testing::{Host, Pair, psk_connections};
use ferry6_crypto::CryptoProvider;
use std::time::Duration;

static CRYPTO: &CryptoProvider = &ferry6_crypto::aws_lc::PROVIDER;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A pair with these changes to both connections, before its handshake.
fn pair(change: impl FnOnce(&mut Connection, &mut Connection)) -> Pair {
    let (mut client, mut broker) = psk_connections();
    change(&mut client, &mut broker);
    Pair::new(*CRYPTO, client, broker)
}

/// The same, after its handshake.
fn established(change: impl FnOnce(&mut Connection, &mut Connection)) -> Pair {
    let mut pair = pair(change);
    pair.initiate();
    pair.run(secs(1));
    assert_eq!(pair.client.established().len(), 1, "{:?} {:?}", pair.client.events, pair.broker.events);
    assert_eq!(pair.broker.established().len(), 1);
    pair.check_mirror().unwrap();
    pair
}

/// The reason of the one `Closed` that there is.
#[track_caller]
fn reason(host: &Host) -> CloseReason {
    let closed = host.closed();
    assert_eq!(closed.len(), 1, "{:?}", host.events);
    closed[0].reason.clone()
}

/// No ping was lost, and there were some.
#[track_caller]
fn no_ping_lost(pair: &Pair) {
    assert!(pair.client.pings > 0 && pair.broker.pings > 0);
    assert_eq!((&pair.client.lost_pings[..], &pair.broker.lost_pings[..]), (&[][..], &[][..]));
}
