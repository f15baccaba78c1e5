//! MOBIKE (RFC 4555) and NAT rebinding (RFC 7296 section 2.23).

use super::{established, no_ping_lost, secs};
use crate::endpoint::CommandError;
use crate::event::{Event, Path};
use crate::testing::{BROKER, CLIENT, Fate, Pair, Side};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

fn moved() -> Path {
    Path {
        local: SocketAddr::new(Ipv4Addr::new(10, 9, 8, 7).into(), 4500),
        remote: SocketAddr::new(BROKER.into(), 4500),
    }
}

fn moves(events: &[Event]) -> Vec<Path> {
    events
        .iter()
        .filter_map(|e| match e {
            Event::MovePath { path, .. } => Some(*path),
            _ => None,
        })
        .collect()
}

#[test]
fn the_client_moves() {
    let mut pair = established(|_, _| {});
    let ike = pair.client.established()[0].ike;
    pair.act(Side::Client, |e, now| e.update_path(now, ike, moved())).unwrap();
    pair.run_with_pings(secs(2), secs(1));
    assert_eq!(moves(&pair.client.events), [moved()]);
    assert_eq!(moves(&pair.broker.events), [Path { local: moved().remote, remote: moved().local }]);
    assert_eq!(pair.broker.endpoint.ike_sas()[0].path.remote, moved().local);
    // Rekeys go on from the new place.
    let reqid = pair.broker.live()[0].reqid;
    pair.act(Side::Broker, |e, now| e.rekey_child(now, reqid)).unwrap();
    pair.run(secs(10));
    pair.check_mirror().unwrap();
    no_ping_lost(&pair);
    assert_eq!(pair.client.live()[0].path, moved());
}

#[test]
fn the_client_moves_twice_while_its_messages_are_lost() {
    let mut pair = established(|_, _| {});
    let ike = pair.client.established()[0].ike;
    let mut n = 0;
    pair.link.fate = Box::new(move |_| {
        n += 1;
        if n <= 2 { Fate::Drop } else { Fate::Deliver }
    });
    let reqid = pair.client.live()[0].reqid;
    // A rekey is on its way as it moves: it is repeated from the new place, UPDATE_SA_ADDRESSES follows.
    pair.act(Side::Client, |e, now| e.rekey_child(now, reqid)).unwrap();
    pair.act(Side::Client, |e, now| e.update_path(now, ike, moved())).unwrap();
    let back =
        Path { local: SocketAddr::new(CLIENT.into(), 4500), remote: SocketAddr::new(BROKER.into(), 4500) };
    pair.run(secs(10));
    pair.act(Side::Client, |e, now| e.update_path(now, ike, back)).unwrap();
    pair.run(secs(10));
    assert_eq!(pair.broker.endpoint.ike_sas()[0].path.remote, back.local);
    pair.check_mirror().unwrap();
}

#[test]
fn only_the_mobike_initiator_may() {
    let mut pair = established(|_, _| {});
    let ike = pair.broker.established()[0].ike;
    let refused = pair.act(Side::Broker, |e, now| e.update_path(now, ike, moved()));
    assert!(matches!(refused, Err(CommandError::NotNow(_))));
    let mut pair = established(|_, b| b.mobike = false);
    let ike = pair.client.established()[0].ike;
    let refused = pair.act(Side::Client, |e, now| e.update_path(now, ike, moved()));
    assert!(matches!(refused, Err(CommandError::NotNow(_))));
}

/// A client behind a masquerading router that shifts ports; the number can change. The broker's own NAT, if `both`, is
/// static.
fn behind_nat(both: bool) -> (Pair, Arc<AtomicU16>) {
    let shift = Arc::new(AtomicU16::new(30000));
    let mut pair = super::pair(|_, _| {});
    let (out, back) = (shift.clone(), shift.clone());
    let public = Ipv4Addr::new(1, 2, 3, 4);
    pair.link.nat = Box::new(move |a| SocketAddr::new(public.into(), a.port() + out.load(Ordering::Relaxed)));
    pair.link.nat_back = Box::new(move |a| {
        let port = a.port().wrapping_sub(back.load(Ordering::Relaxed));
        [500, 4500].contains(&port).then(|| SocketAddr::new(CLIENT.into(), port))
    });
    if both {
        pair.link.broker_sees_itself_at = Some(Ipv4Addr::new(192, 168, 77, 7).into());
    }
    pair.initiate();
    pair.run(secs(1));
    pair.check_mirror().unwrap();
    (pair, shift)
}

#[test]
fn the_broker_follows_a_rebinding_the_client_does_not() {
    let (mut pair, _) = behind_nat(false);
    let inbound = pair.broker.live()[0].inbound.spi;
    let old = pair.broker.endpoint.ike_sas()[0].path;
    let new = Path { remote: SocketAddr::new(Ipv4Addr::new(1, 2, 3, 4).into(), 50111), ..old };
    pair.act(Side::Broker, |e, now| e.esp_path_changed(now, inbound, new));
    assert_eq!(moves(&pair.broker.events), [new]);
    // The client is behind a NAT itself: whatever comes from elsewhere, it stays where it is.
    let inbound = pair.client.live()[0].inbound.spi;
    let elsewhere = Path { remote: SocketAddr::new(Ipv4Addr::new(6, 6, 6, 6).into(), 4500), ..moved() };
    pair.act(Side::Client, |e, now| e.esp_path_changed(now, inbound, elsewhere));
    assert!(moves(&pair.client.events).is_empty());
}

#[test]
fn no_rebinding_without_a_nat() {
    let mut pair = established(|_, _| {});
    let inbound = pair.broker.live()[0].inbound.spi;
    let old = pair.broker.endpoint.ike_sas()[0].path;
    let new = Path { remote: SocketAddr::new(Ipv4Addr::new(1, 2, 3, 4).into(), 50111), ..old };
    pair.act(Side::Broker, |e, now| e.esp_path_changed(now, inbound, new));
    assert!(moves(&pair.broker.events).is_empty());
}

#[test]
fn a_probe_finds_a_new_mapping() {
    for both in [false, true] {
        let (mut pair, shift) = behind_nat(both);
        let up = pair.broker.established()[0];
        assert_eq!((up.nat_local, up.nat_remote), (both, true));
        for moved in [31000, 32000] {
            shift.store(moved, Ordering::Relaxed);
            pair.run(secs(75));
            // Behind a NAT itself the broker follows UPDATE_SA_ADDRESSES alone.
            let remote = pair.broker.endpoint.ike_sas()[0].path.remote;
            assert_eq!(remote.port(), 4500 + moved, "both: {both}");
        }
        assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
    }
}

#[test]
fn nat_and_no_nat() {
    let (mut pair, _) = behind_nat(false);
    pair.link.nat = Box::new(|a| a);
    pair.link.nat_back = Box::new(Some);
    let ike = pair.client.established()[0].ike;
    pair.act(Side::Client, |e, now| e.update_path(now, ike, moved())).unwrap();
    pair.run(secs(2));
    assert_eq!(pair.client.endpoint.ike_sas()[0].nat, (false, false));
    assert_eq!(pair.broker.endpoint.ike_sas()[0].nat, (false, false));
    assert_eq!(pair.broker.endpoint.ike_sas()[0].path.remote, moved().local);
}
