use super::{CRYPTO, established};
use crate::event::Event;
use crate::testing::{Pair, Side, psk_connections};
use std::time::Duration;

#[test]
fn psk() {
    let mut pair = established(|_, _| {});
    let up = pair.client.established()[0].clone();
    assert_eq!(up.lease.address, Some("2a00::101".parse().unwrap()));
    assert_eq!(up.path.remote.port(), 4500);
    assert!(!up.nat_local && !up.nat_remote, "there is no NAT, whatever the hashes pretend");
    let sa = pair.client.live()[0].clone();
    assert_eq!(sa.local_ts.len(), 1);
    pair.ping(Side::Client);
    pair.ping(Side::Broker);
    pair.run(Duration::from_secs(1));
    assert_eq!((pair.client.pings, pair.broker.pings), (1, 1));
    assert!(pair.client.warnings().is_empty() && pair.broker.warnings().is_empty());
}
