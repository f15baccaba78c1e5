//! MOBIKE (RFC 4555) and NAT rebinding (RFC 7296 section 2.23).

use super::{established, no_ping_lost, secs};
use crate::endpoint::CommandError;
use crate::event::{Event, Path};
use crate::testing::{BROKER, CLIENT, Fate, Pair, Side};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

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

#[test]
fn without_a_network_nobody_is_given_up() {
    for moves_on in [false, true] {
        let (mut pair, shift) = behind_nat(true);
        let ike = pair.client.established()[0].ike;
        pair.link.fate = Box::new(|_| Fate::Drop);
        let reqid = pair.client.live()[0].reqid;
        // A request is on its way as it happens.
        pair.act(Side::Client, |e, now| e.rekey_child(now, reqid)).unwrap();
        pair.act(Side::Client, |e, _| e.network_gone(ike)).unwrap();
        let sent = pair.sent.iter().filter(|s| s.0 == Side::Client).count();
        pair.run(secs(50));
        assert!(pair.client.closed().is_empty());
        assert_eq!(pair.sent.iter().filter(|s| s.0 == Side::Client).count(), sent, "it rests");
        pair.link.fate = Box::new(|_| Fate::Deliver);
        if moves_on {
            pair.act(Side::Client, |e, now| e.update_path(now, ike, moved())).unwrap();
            pair.link.nat = Box::new(|a| a);
            pair.link.nat_back = Box::new(Some);
        } else {
            // The same address, and another mapping.
            shift.store(31000, Ordering::Relaxed);
            pair.act(Side::Client, |e, now| e.network_back(now, ike)).unwrap();
        }
        pair.run(secs(20));
        let remote = pair.broker.endpoint.ike_sas()[0].path.remote;
        assert_eq!(
            remote,
            if moves_on { moved().local } else { SocketAddr::new([1, 2, 3, 4].into(), 35500) }
        );
        pair.run_with_pings(secs(100), secs(1));
        assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
        no_ping_lost(&pair);
        pair.check_mirror().unwrap();
    }
}

/// The dead peer is given up in the end, as ever, where there is a network.
#[test]
fn with_a_network_a_dead_peer_is_given_up() {
    let (mut pair, _) = behind_nat(false);
    pair.link.works = Box::new(|_| false);
    pair.run(secs(200));
    assert_eq!(pair.client.closed().len(), 1);
}

#[test]
fn another_address_of_the_broker_is_tried() {
    let second = Ipv4Addr::new(192, 168, 200, 2);
    let mut pair = super::pair(|_, _| {});
    // The broker would be heard still, by its own probes: only one direction is dead here.
    let broker = crate::config::Connection { dpd: secs(0), ..crate::testing::psk_connections().1 };
    let config = crate::testing::config([broker]);
    let addresses = vec![BROKER, second];
    let config = crate::config::EndpointConfig { addresses, ..config };
    let pool = Some(crate::testing::pool());
    pair.broker.endpoint = crate::testing::endpoint(*super::CRYPTO, config, 0xa2, pool);
    pair.initiate();
    pair.run(secs(1));
    assert_eq!(pair.client.endpoint.ike_sas()[0].peer_addresses, [second], "the other one only");
    pair.link.works = Box::new(move |to| to.ip() == second);
    // Dead peer detection finds that the first one is dead, and its third send goes to the second.
    pair.run(secs(60));
    let to = SocketAddr::new(second.into(), 4500);
    assert_eq!(pair.client.endpoint.ike_sas()[0].path.remote, to);
    assert_eq!(
        moves(&pair.broker.events),
        [Path { local: to, remote: SocketAddr::new(CLIENT.into(), 4500) }]
    );
    assert_eq!(moves(&pair.client.events).len(), 1);
    assert_eq!(pair.client.live()[0].path.remote.ip(), BROKER, "as installed; MovePath says where to");
    pair.run(secs(100));
    assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
}

#[test]
fn addresses_are_told_and_kept() {
    let mut pair = established(|_, _| {});
    assert!(pair.broker.endpoint.ike_sas()[0].peer_addresses.is_empty());
    let more = [CLIENT, Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 6)];
    pair.act(Side::Client, |e, now| e.set_addresses(now, more.to_vec()));
    pair.run(secs(1));
    assert_eq!(pair.broker.endpoint.ike_sas()[0].peer_addresses, more[1..]);
    // Gone again: NO_ADDITIONAL_ADDRESSES.
    pair.act(Side::Client, |e, now| e.set_addresses(now, vec![CLIENT]));
    pair.run(secs(1));
    assert!(pair.broker.endpoint.ike_sas()[0].peer_addresses.is_empty());
    // With a move they come in the update itself.
    let ike = pair.client.established()[0].ike;
    let sent = pair.sent.len();
    pair.act(Side::Client, |e, now| {
        e.set_addresses(now, vec![Ipv4Addr::new(10, 9, 8, 7), more[1]]);
        e.update_path(now, ike, moved())
    })
    .unwrap();
    pair.run(secs(1));
    assert_eq!(pair.broker.endpoint.ike_sas()[0].peer_addresses, more[1..2]);
    let asked = pair.sent[sent..].iter().filter(|(side, _)| *side == Side::Client).count();
    assert_eq!(asked, 2, "the update, and the answer to COOKIE2");
}

#[test]
fn no_nat_where_none_is_allowed() {
    use crate::config::NatPolicy;
    // At the start, by either side.
    for client in [true, false] {
        let mut pair =
            super::pair(|c, b| if client { c.nat = NatPolicy::Forbid } else { b.nat = NatPolicy::Forbid });
        pair.link.nat = Box::new(|a| SocketAddr::new([1, 2, 3, 4].into(), a.port() + 30000));
        pair.link.nat_back = Box::new(|a| Some(SocketAddr::new(CLIENT.into(), a.port() - 30000)));
        pair.initiate();
        pair.run(secs(5));
        let closed = if client { pair.client.closed() } else { pair.broker.closed() };
        assert!(closed[0].reason.to_string().contains("NAT"), "{closed:?}");
        assert!(pair.client.live().is_empty() && pair.broker.live().is_empty());
    }
    // A NAT on the way to the second network: the peer stays where it was, and we give up after some tries.
    for client in [true, false] {
        let mut pair =
            established(|c, b| if client { c.nat = NatPolicy::Forbid } else { b.nat = NatPolicy::Forbid });
        let before = pair.broker.endpoint.ike_sas()[0].path;
        let ike = pair.client.established()[0].ike;
        pair.link.nat = Box::new(|a| SocketAddr::new([1, 2, 3, 4].into(), a.port()));
        pair.link.nat_back = Box::new(|a| Some(SocketAddr::new(moved().local.ip(), a.port())));
        let sent = pair.sent.len();
        pair.act(Side::Client, |e, now| e.update_path(now, ike, moved())).unwrap();
        pair.run(secs(5));
        assert_eq!(pair.client.closed().len(), 1);
        let why = pair.client.closed()[0].reason.to_string();
        let name = if client { "UNEXPECTED_NAT_DETECTED" } else { "UNACCEPTABLE_ADDRESSES" };
        assert!(why.contains(name), "{why}");
        assert!(moves(&pair.broker.events).is_empty(), "{:?} {before:?}", pair.broker.events);
        let asked = pair.sent[sent..].iter().filter(|(side, _)| *side == Side::Client).count();
        assert_eq!(
            asked,
            if client { 4 } else { 2 },
            "three updates where a packet may have been forged; DELETE"
        );
    }
}

#[test]
fn traffic_waits_for_the_check_where_that_is_asked_for() {
    use crate::config::RoutabilityCheck;
    let mut pair = established(|_, b| b.routability = RoutabilityCheck::Before);
    let ike = pair.client.established()[0].ike;
    // What the broker sends to the new address does not arrive at first.
    let before = pair.broker.endpoint.ike_sas()[0].path;
    pair.link.nat_back = Box::new(|a| (a != moved().local).then_some(a));
    pair.act(Side::Client, |e, now| e.update_path(now, ike, moved())).unwrap();
    pair.run(Duration::from_millis(900));
    assert_eq!(pair.broker.endpoint.ike_sas()[0].path, before);
    pair.link.nat_back = Box::new(Some);
    pair.run(secs(5));
    assert_eq!(pair.broker.endpoint.ike_sas()[0].path.remote, moved().local);
    assert!(moves(&pair.broker.events).len() == 1 && pair.client.closed().is_empty());

    let mut pair = established(|_, b| b.routability = RoutabilityCheck::Off);
    let ike = pair.client.established()[0].ike;
    pair.act(Side::Client, |e, now| e.update_path(now, ike, moved())).unwrap();
    let sent = pair.sent.len();
    pair.run(secs(5));
    assert_eq!(pair.broker.endpoint.ike_sas()[0].path.remote, moved().local);
    assert_eq!(pair.sent.len() - sent, 1, "the answer, no COOKIE2");
}

#[test]
fn who_says_that_it_moved_and_did_not_stays() {
    use crate::config::RoutabilityCheck;
    let mut pair = established(|_, b| b.routability = RoutabilityCheck::Before);
    let ike = pair.client.established()[0].ike;
    let before = pair.broker.endpoint.ike_sas()[0].path;
    // The check never arrives at the new address; at the old one it does, where the client still is.
    pair.act(Side::Client, |e, now| e.update_path(now, ike, moved())).unwrap();
    pair.run(Duration::from_millis(15));
    pair.link.nat_back = Box::new(|a| (a != moved().local).then_some(a));
    pair.link.nat = Box::new(move |_| before.remote);
    pair.run(secs(20));
    assert_eq!(pair.broker.endpoint.ike_sas()[0].path, before);
    assert!(pair.broker.warnings().iter().any(|w| w.contains("is not there")), "{:?}", pair.broker.events);
}

#[test]
fn a_mapping_that_changes_before_an_ike_rekey_is_told() {
    let (mut pair, shift) = behind_nat(true);
    let ike = pair.client.established()[0].ike;
    shift.store(31000, Ordering::Relaxed);
    pair.act(Side::Client, |e, now| e.rekey_ike(now, ike)).unwrap();
    pair.run(secs(2));
    assert_eq!(pair.broker.endpoint.ike_sas()[0].path.remote.port(), 35500);
}

#[test]
fn silence_while_sending_makes_the_client_ask() {
    let (mut pair, shift) = behind_nat(true);
    shift.store(31000, Ordering::Relaxed);
    let inbound = pair.client.live()[0].inbound.spi;
    pair.run(secs(1));
    pair.act(Side::Client, |e, now| e.outbound_unanswered(now, inbound));
    pair.run(secs(1));
    assert_eq!(pair.broker.endpoint.ike_sas()[0].path.remote.port(), 35500);
    // Who has no NAT to suspect is silent.
    let mut pair = established(|_, _| {});
    let (inbound, sent) = (pair.client.live()[0].inbound.spi, pair.sent.len());
    pair.act(Side::Client, |e, now| e.outbound_unanswered(now, inbound));
    pair.run(secs(1));
    assert_eq!(pair.sent.len(), sent);
}
