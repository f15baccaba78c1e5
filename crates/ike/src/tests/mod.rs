//! Whole exchanges between two endpoints on a fake clock.

mod handshake;

use crate::config::Connection;
use crate::testing::{Pair, psk_connections};
use ferry6_crypto::CryptoProvider;
use std::time::Duration;

const CRYPTO: CryptoProvider = ferry6_crypto::aws_lc::PROVIDER;

/// A pair with these changes to both connections, after its handshake.
fn established(change: impl FnOnce(&mut Connection, &mut Connection)) -> Pair {
    let (mut client, mut broker) = psk_connections();
    change(&mut client, &mut broker);
    let mut pair = Pair::new(CRYPTO, client, broker);
    pair.initiate();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.client.established().len(), 1, "{:?} {:?}", pair.client.events, pair.broker.events);
    assert_eq!(pair.broker.established().len(), 1);
    pair.check_mirror().unwrap();
    pair
}
