//! DPD, DELETE, unique identities, limits.

use super::protected::{ask, logged};
use super::{CRYPTO, established, reason, secs};
use crate::config::{HalfOpenLimits, Unique};
use crate::counters::Counter;
use crate::event::{CloseReason, Event, Path};
use crate::notify;
use crate::testing::{
    BROKER, CLIENT, Fate, Pair, SeededRandom, Side, config, endpoint, first_path, pool, psk_connections,
};
use crate::wire::{ExchangeType, Header};
use ferry6_crypto::SecureRandom;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

#[test]
fn close_from_each_side() {
    for side in [Side::Client, Side::Broker] {
        let mut pair = established(|_, _| {});
        let ike = pair.host(side).established()[0].ike;
        pair.act(side, |e, now| e.close(now, ike).unwrap());
        assert!(pair.host(side).live().is_empty(), "traffic stops at once");
        pair.run(secs(2));
        assert!(matches!(reason(pair.host(side)), CloseReason::Local));
        assert!(matches!(reason(pair.host(side.other())), CloseReason::PeerDeleted));
        assert!(pair.host(side.other()).closed()[0].established);
        pair.run(secs(100));
        assert!(pair.client.endpoint.ike_sas().is_empty() && pair.broker.endpoint.ike_sas().is_empty());
    }
}

#[test]
fn close_all_with_bounded_patience_towards_a_dead_peer() {
    let mut pair = established(|_, _| {});
    pair.link.fate = Box::new(|_| Fate::Drop);
    pair.act(Side::Client, |e, now| e.close_all(now, secs(2)));
    pair.run(secs(1));
    assert!(pair.client.closed().is_empty());
    pair.run(secs(1));
    assert!(matches!(reason(&pair.client), CloseReason::Local));
}

#[test]
fn both_close_at_once() {
    let mut pair = established(|_, _| {});
    for side in [Side::Client, Side::Broker] {
        let ike = pair.host(side).established()[0].ike;
        pair.act(side, |e, now| e.close(now, ike).unwrap());
    }
    pair.run(secs(100));
    assert!(matches!(reason(&pair.client), CloseReason::Local));
    assert!(matches!(reason(&pair.broker), CloseReason::Local));
}

#[test]
fn a_lost_answer_to_delete_is_repeated() {
    let mut pair = established(|_, _| {});
    let mut n = 0;
    pair.link.fate = Box::new(move |_| {
        n += 1;
        if n == 2 { Fate::Drop } else { Fate::Deliver }
    });
    let ike = pair.client.established()[0].ike;
    pair.act(Side::Client, |e, now| e.close(now, ike).unwrap());
    pair.run(secs(4));
    assert_eq!(pair.client.closed().len(), 1);
    let deletes = pair.sent[4..].iter().map(|(side, _)| *side).collect::<Vec<_>>();
    assert_eq!(deletes, [Side::Client, Side::Broker, Side::Client, Side::Broker]);
}

#[test]
fn silence_is_probed_and_traffic_is_proof_of_life() {
    let mut pair = established(|c, b| {
        c.dpd = secs(10);
        b.dpd = secs(0);
    });
    let before = pair.sent.len();
    pair.run_with_pings(secs(60), secs(2));
    assert_eq!(pair.sent.len(), before, "traffic satisfies DPD");
    pair.run(secs(45));
    let probes = pair.sent[before..].iter().filter(|(side, _)| *side == Side::Client).count();
    assert!((3..=5).contains(&probes), "{probes} probes in 45 s of silence");
    assert!(pair.client.closed().is_empty());
}

#[test]
fn a_dead_peer_is_found() {
    let pool = pool();
    let (client, mut broker) = psk_connections();
    broker.dpd = secs(10);
    let mut pair = Pair::of(
        endpoint(*CRYPTO, config([client]), 1, None),
        endpoint(*CRYPTO, config([broker]), 2, Some(pool.clone())),
    );
    pair.initiate();
    pair.run(secs(1));
    assert_eq!(pool.given(), 1);
    pair.link.fate = Box::new(|_| Fate::Drop);
    pair.run(secs(200));
    for side in [Side::Client, Side::Broker] {
        assert!(matches!(reason(pair.host(side)), CloseReason::Timeout { tries: 7, .. }));
        assert!(pair.host(side).live().is_empty());
    }
    assert_eq!(pool.given(), 0, "the broker frees what it must");
}

/// A second handshake of the same client identity, from a fresh endpoint (`restart`) or the same one.
fn again(unique: Unique, restart: bool) -> Pair {
    let mut pair = established(|_, b| b.unique = unique);
    if restart {
        pair.client.endpoint = endpoint(*CRYPTO, config([psk_connections().0]), 0x77, None);
        pair.client.sad.clear();
        pair.client.outbound.clear();
    }
    pair.initiate();
    pair.run(secs(8));
    pair
}

#[test]
fn unique_replace() {
    let pair = again(Unique::Replace, false);
    assert!(matches!(reason(&pair.broker), CloseReason::Replaced));
    assert!(matches!(reason(&pair.client), CloseReason::PeerDeleted), "the old one is deleted on the wire");
    assert_eq!((pair.broker.live().len(), pair.client.live().len()), (1, 1));
    pair.check_mirror().unwrap();
    assert_eq!(
        pair.client.established()[1].lease.address,
        Some("2a00::101".parse().unwrap()),
        "the old lease was given back before the new one was taken"
    );
}

#[test]
fn unique_replace_after_a_crash() {
    let pair = again(Unique::Replace, true);
    assert!(matches!(reason(&pair.broker), CloseReason::Replaced));
    pair.check_mirror().unwrap();
    let informational =
        pair.sent.iter().filter(|(_, m)| Header::parse(m).unwrap().exchange == ExchangeType::Informational);
    assert_eq!(informational.count(), 0, "INITIAL_CONTACT: nothing is sent on a dead IKE SA");
}

#[test]
fn unique_never() {
    let pair = again(Unique::Never, false);
    assert!(pair.broker.closed().is_empty());
    assert_eq!(pair.broker.live().len(), 2);
}

/// Hosts that share an identity must not say that theirs is the only IKE SA (section 2.4).
#[test]
fn unique_never_on_a_client_sends_no_initial_contact() {
    for (on_client, tunnels) in [(Unique::Never, 2), (Unique::Replace, 1)] {
        let mut pair = established(|_, b| b.unique = Unique::Never);
        let mut other_host = psk_connections().0;
        other_host.unique = on_client;
        pair.client.endpoint = endpoint(*CRYPTO, config([other_host]), 0x77, None);
        pair.client.sad.clear();
        pair.client.outbound.clear();
        pair.initiate();
        pair.run(secs(8));
        assert_eq!(pair.broker.live().len(), tunnels, "{on_client:?}");
    }
}

#[test]
fn unique_keep() {
    // Another machine.
    let mut pair = established(|_, b| b.unique = Unique::Keep);
    let elsewhere = SocketAddr::new(Ipv4Addr::new(10, 9, 8, 7).into(), 500);
    pair.act(Side::Client, |e, now| {
        e.initiate(now, "to-broker", Path { local: elsewhere, ..first_path() }).unwrap()
    });
    pair.run(secs(5));
    let closed = pair.client.closed();
    assert_eq!(closed.len(), 1);
    assert!(closed[0].reason.to_string().contains("AUTHENTICATION_FAILED"));
    assert!(pair.broker.closed()[0].reason.to_string().contains("unique"), "{:?}", pair.broker.closed());
    assert_eq!(pair.broker.live().len(), 1);
    // The same machine after a crash is not locked out.
    let pair = again(Unique::Keep, true);
    assert!(matches!(reason(&pair.broker), CloseReason::Replaced));
    pair.check_mirror().unwrap();
}

/// A second IKE SA beside the first, and the first goes when the second has its Child SA: no packet is lost, the address
/// stays, whatever the policy (but `never`, which gives a second address).
#[test]
fn reauthentication_loses_nothing() {
    for unique in [Unique::Replace, Unique::Keep] {
        // Whether the client sends, or only the broker.
        for both in [true, false] {
            let mut pair = established(|c, b| {
                b.unique = unique;
                c.reauth = secs(100);
            });
            let first = pair.client.established()[0].clone();
            let after = first.reauth.unwrap();
            assert!(after <= secs(100) && after >= secs(90), "{after:?}");
            let ping = |pair: &mut Pair, times| {
                for _ in 0..times {
                    pair.ping(Side::Broker);
                    if both {
                        pair.ping(Side::Client);
                    }
                    pair.run(Duration::from_millis(5));
                }
            };
            ping(&mut pair, 10);
            pair.initiate();
            let mut closed = false;
            for _ in 0..200 {
                ping(&mut pair, 1);
                if pair.client.established().len() == 2 && !std::mem::replace(&mut closed, true) {
                    pair.act(Side::Client, |e, now| e.close(now, first.ike)).unwrap();
                }
            }
            assert!(closed, "{unique:?}: {:?}", pair.broker.closed());
            ping(&mut pair, 2000);
            assert!(pair.client.pings > 2000 && (pair.broker.pings > 2000) == both);
            assert_eq!((&pair.client.lost_pings[..], &pair.broker.lost_pings[..]), (&[][..], &[][..]));
            assert_eq!(pair.client.established()[1].lease, first.lease);
            assert!(matches!(reason(&pair.client), CloseReason::Local));
            assert!(matches!(reason(&pair.broker), CloseReason::PeerDeleted));
            assert_eq!((pair.client.live().len(), pair.broker.live().len()), (1, 1));
            pair.check_mirror().unwrap();
        }
    }
}

/// RFC 4478: the broker tells how long an authentication lasts, and ends what is older.
#[test]
fn the_broker_asks_for_reauthentication() {
    let pair = established(|_, b| b.reauth = secs(1000));
    let after = pair.client.established()[0].reauth.unwrap();
    assert!(after <= secs(1000) && after >= secs(900), "{after:?}");
    // The sooner of both.
    let mut pair = established(|c, b| (c.reauth, b.reauth) = (secs(5000), secs(1000)));
    let after = pair.client.established()[0].reauth.unwrap();
    assert!(after <= secs(1000) && after >= secs(900), "{after:?}");
    assert!(pair.broker.established()[0].reauth.is_none());
    // A rekey is no authentication.
    let ike = pair.client.established()[0].ike;
    pair.run(secs(500));
    pair.act(Side::Client, |e, now| e.rekey_ike(now, ike)).unwrap();
    pair.run(secs(590));
    assert!(pair.broker.closed().is_empty());
    pair.run(secs(30));
    assert!(matches!(reason(&pair.broker), CloseReason::Expired(_)));
    assert!(matches!(reason(&pair.client), CloseReason::PeerDeleted));
}

/// RFC 4478 section 3: in an INFORMATIONAL of its own, sooner or later than before; only a responder has that to say.
#[test]
fn a_broker_changes_its_mind_on_reauthentication() {
    let mut pair = logged(|_, b| b.reauth = secs(1000));
    let asked = |pair: &Pair| -> Vec<Duration> {
        let both = pair.client.events.iter().chain(&pair.broker.events);
        both.filter_map(|e| match e {
            Event::ReauthenticateIn { after, .. } => Some(*after),
            _ => None,
        })
        .collect()
    };
    let tell = |pair: &mut Pair, side, data: &[u8]| {
        let payload = notify::plain(notify::AUTH_LIFETIME, data.to_vec());
        assert!(ask(pair, side, ExchangeType::Informational, &[payload]).is_empty());
    };
    tell(&mut pair, Side::Broker, &100_u32.to_be_bytes());
    tell(&mut pair, Side::Broker, &5000_u32.to_be_bytes());
    // No number, and none at all.
    tell(&mut pair, Side::Broker, &[0; 4]);
    tell(&mut pair, Side::Broker, &[1; 3]);
    tell(&mut pair, Side::Client, &7_u32.to_be_bytes());
    let [first, second] = asked(&pair)[..] else { panic!("{:?}", asked(&pair)) };
    assert!((secs(90)..=secs(100)).contains(&first), "{first:?}");
    assert!((secs(4500)..=secs(5000)).contains(&second), "{second:?}");
}

#[test]
fn lifetimes_end_without_a_peer_that_rekeys() {
    // The broker refuses every rekey by having lost its proposals: simulated by a link that drops CREATE_CHILD_SA.
    let mut pair = established(|c, b| {
        c.child_rekey = secs(100);
        b.child_rekey = secs(0);
        (c.dpd, b.dpd) = (secs(0), secs(0));
        c.esp[0].groups = vec![ferry6_crypto::Group::Ecp384];
        b.esp[0].groups = vec![ferry6_crypto::Group::Ecp256];
    });
    pair.run(secs(300));
    assert!(
        pair.client.warnings().iter().any(|w| w.contains("NO_PROPOSAL_CHOSEN")),
        "{:?}",
        pair.client.warnings()
    );
    assert!(matches!(reason(&pair.client), CloseReason::Expired(_)));
    assert!(matches!(reason(&pair.broker), CloseReason::PeerDeleted));
    assert!(pair.client.live().is_empty() && pair.broker.live().is_empty());
}

fn init_request(seed: u64) -> Vec<u8> {
    let mut client = endpoint(*CRYPTO, config([psk_connections().0]), seed, None);
    let now =
        crate::config::Now { monotonic: std::time::Instant::now(), wall: std::time::SystemTime::UNIX_EPOCH };
    client.initiate(now, "to-broker", first_path()).unwrap();
    match client.poll() {
        Some(Event::Transmit(t)) => t.payload.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn from(ip: Ipv4Addr, port: u16) -> Path {
    Path { local: SocketAddr::new(BROKER.into(), 500), remote: SocketAddr::new(ip.into(), port) }
}

#[test]
fn half_open_is_bounded_and_cookies_are_stateless() {
    let mut broker = config([psk_connections().1]);
    broker.half_open = HalfOpenLimits { cookie_from: 3, max: 5, per_source: 4, ..HalfOpenLimits::default() };
    let mut pair = Pair::with_config(*CRYPTO, config([psk_connections().0]), broker);
    let message = init_request(1);
    let mut random = SeededRandom(5);
    let mut answers = Vec::new();
    for n in 0..200_u8 {
        let mut octets = message.clone();
        random.fill(&mut octets[..8]).unwrap();
        let path = from(Ipv4Addr::new(10, 0, 0, n), 500);
        let now = pair.now;
        pair.broker.endpoint.handle_datagram(now, path, &octets);
        while let Some(event) = pair.broker.endpoint.poll() {
            let Event::Transmit(t) = event else { panic!("{event:?}") };
            assert_eq!(t.path.remote, path.remote);
            answers.push(t.payload.len());
        }
    }
    assert_eq!(pair.broker.endpoint.half_open(), 3, "from here on only with a cookie");
    assert!(answers[3..].iter().all(|len| *len < message.len()), "a cookie demand is no amplifier");
    assert_eq!(answers.len(), 200);
    // An honest client gets in all the same.
    pair.initiate();
    pair.run(secs(2));
    assert_eq!(pair.broker.established().len(), 1);
    pair.run(secs(40));
    assert_eq!(pair.broker.endpoint.half_open(), 0, "half-open IKE SAs do not stay");
    assert!(pair.broker.closed().is_empty(), "and the embedder does not hear of them");
}

#[test]
fn one_source_cannot_take_all() {
    let mut broker = config([psk_connections().1]);
    broker.half_open = HalfOpenLimits { cookie_from: 1000, per_source: 8, ..HalfOpenLimits::default() };
    let mut pair = Pair::with_config(*CRYPTO, config([psk_connections().0]), broker);
    let message = init_request(1);
    let mut random = SeededRandom(5);
    for port in 0..100 {
        let mut octets = message.clone();
        random.fill(&mut octets[..8]).unwrap();
        let now = pair.now;
        pair.broker.endpoint.handle_datagram(now, from(CLIENT, 1000 + port), &octets);
    }
    // A quarter of its share without a cookie, so that a spoofer cannot lock out whom it imitates.
    assert_eq!(pair.broker.endpoint.half_open(), 3);
    while pair.broker.endpoint.poll().is_some() {}
    pair.initiate();
    pair.run(secs(2));
    assert_eq!(pair.broker.established().len(), 1);
}

#[test]
fn a_cookie_is_good_for_its_asker_alone() {
    let mut broker = config([psk_connections().1]);
    broker.half_open.cookie_from = 0;
    let mut pair = Pair::with_config(*CRYPTO, config([psk_connections().0]), broker);
    pair.initiate();
    pair.run(secs(1));
    let with_cookie =
        pair.sent.iter().filter(|(side, _)| *side == Side::Client).map(|(_, m)| m.clone()).nth(1).unwrap();
    assert_eq!(pair.broker.established().len(), 1);
    let now = pair.now;
    // From elsewhere, and too late.
    pair.broker.endpoint.handle_datagram(now, from(Ipv4Addr::new(10, 0, 0, 1), 500), &with_cookie);
    assert_eq!(pair.broker.endpoint.half_open(), 0);
    pair.run(secs(130));
    let now = pair.now;
    pair.broker.endpoint.handle_datagram(now, from(CLIENT, 500), &with_cookie);
    assert_eq!(pair.broker.endpoint.half_open(), 0);
}

/// The answer that carries the cookie for `request` from `path`, and that request with it.
fn with_cookie(pair: &mut Pair, path: Path, request: &[u8]) -> Vec<u8> {
    let now = pair.now;
    pair.broker.endpoint.handle_datagram(now, path, request);
    let Some(Event::Transmit(demand)) = pair.broker.endpoint.poll() else { panic!("no answer") };
    // Header, then one Notify payload, which goes in front of the others.
    let notify = &demand.payload[28..];
    let mut octets = request[..28].to_vec();
    octets[16] = 41;
    octets.push(request[16]);
    octets.extend_from_slice(&notify[1..]);
    octets.extend_from_slice(&request[28..]);
    let len = u32::try_from(octets.len()).unwrap().to_be_bytes();
    octets[24..28].copy_from_slice(&len);
    octets
}

/// Who fills the table has shown where it is; who comes then and shows that too gets in, and the oldest goes.
#[test]
fn a_full_table_forgets_the_oldest_and_refuses_nobody_with_a_cookie() {
    let mut broker = config([psk_connections().1]);
    broker.half_open = HalfOpenLimits { cookie_from: 0, max: 5, per_source: 3, ..HalfOpenLimits::default() };
    let mut pair = Pair::with_config(*CRYPTO, config([psk_connections().0]), broker);
    let message = init_request(1);
    let mut random = SeededRandom(5);
    for n in 0..50_u8 {
        let mut octets = message.clone();
        random.fill(&mut octets[..8]).unwrap();
        let path = from(Ipv4Addr::new(10, 0, 0, n), 500);
        let now = pair.now;
        let octets = with_cookie(&mut pair, path, &octets);
        pair.broker.endpoint.handle_datagram(now, path, &octets);
        while pair.broker.endpoint.poll().is_some() {}
    }
    assert_eq!(pair.broker.endpoint.half_open(), 5);
    assert_eq!(pair.broker.endpoint.inits.len(), 5);
    let count = |pair: &Pair, counter| pair.broker.endpoint.counters().get(counter);
    assert_eq!(count(&pair, Counter::HalfOpenForgotten), 45);
    pair.initiate();
    pair.run(secs(2));
    assert_eq!(pair.broker.established().len(), 1, "an honest client gets in");
    assert_eq!(count(&pair, Counter::CookieSent), 51);
    assert_eq!(count(&pair, Counter::CookieRight), 51);
    // One source has no more than its share of the table, and not more in a second than its rate.
    for n in 0..50_u8 {
        let mut octets = message.clone();
        random.fill(&mut octets[..8]).unwrap();
        let path = from(Ipv4Addr::new(10, 1, 0, 1), 1000 + u16::from(n));
        let now = pair.now;
        let octets = with_cookie(&mut pair, path, &octets);
        pair.broker.endpoint.handle_datagram(now, path, &octets);
        while pair.broker.endpoint.poll().is_some() {}
    }
    assert_eq!(count(&pair, Counter::SourceLimited), 47);
    assert!(pair.broker.endpoint.half_open() <= 5);
    pair.run(secs(40));
    let endpoint = &pair.broker.endpoint;
    assert_eq!((endpoint.half_open(), endpoint.inits.len()), (0, 1), "one is established");
}

/// A public value that is no point costs a computation, and leaves nothing half-open. A flood of them is asked for cookies
/// all the same.
#[test]
fn computations_for_nothing_have_a_rate() {
    let mut pair = Pair::with_config(*CRYPTO, config([psk_connections().0]), config([psk_connections().1]));
    let mut message = init_request(1);
    // X25519: a point of small order.
    let public = message.windows(4).rposition(|w| w == [0, 31, 0, 0]).expect("a KE payload of group 31") + 4;
    message[public..public + 32].fill(0);
    let mut random = SeededRandom(5);
    for n in 0..1000_u32 {
        random.fill(&mut message[..8]).unwrap();
        let now = pair.now;
        pair.broker.endpoint.handle_datagram(now, from(Ipv4Addr::from(0x0a00_0000 + n), 500), &message);
        while pair.broker.endpoint.poll().is_some() {}
    }
    let count = |counter| pair.broker.endpoint.counters().get(counter);
    assert_eq!((count(Counter::KeyExchange), count(Counter::CookieSent)), (64, 936));
}

/// A peer that opens and closes as fast as it may leaves no more behind than the table has places.
#[test]
fn what_is_over_is_bounded() {
    let mut broker = config([psk_connections().1]);
    broker.half_open = HalfOpenLimits { max: 3, per_source_rate: 0, ..HalfOpenLimits::default() };
    let mut pair = Pair::with_config(*CRYPTO, config([psk_connections().0]), broker);
    for _ in 0..10 {
        let ike = pair.initiate();
        pair.run(Duration::from_millis(300));
        pair.act(Side::Client, |e, now| e.close(now, ike).unwrap());
        pair.run(Duration::from_millis(300));
    }
    assert_eq!(pair.broker.closed().len(), 10);
    let endpoint = &pair.broker.endpoint;
    assert_eq!(endpoint.counters().get(Counter::LingeringForgotten), 7);
    assert_eq!((endpoint.half_open(), endpoint.inits.len()), (0, 0));
}

/// Each way not to get in has its counter.
#[test]
fn strangers_are_counted_by_cause() {
    let mut pair = Pair::with_config(*CRYPTO, config([]), config([psk_connections().1]));
    let path = from(CLIENT, 500);
    let request = init_request(1);
    let mut unknown = request.clone();
    unknown[8..16].fill(7);
    let mut other_version = request.clone();
    other_version[17] = 0x30;
    let mut cut = request.clone();
    cut.pop();
    for message in [&b"garbage"[..], &cut, &unknown, &other_version, &request, &request] {
        pair.act(Side::Broker, |e, now| e.handle_datagram(now, path, message));
    }
    let counted: Vec<_> = pair.broker.endpoint.counters().collect().into_iter().collect();
    let expected = [("init_repeated", 1), ("malformed", 2), ("other_version", 1), ("unknown_spi", 1)];
    assert_eq!(counted, expected.map(|(name, count)| (name.to_owned(), count)));
}

/// A half-open IKE SA that is closed leaves nothing behind: the same request begins anew.
#[test]
fn a_closed_half_open_ike_sa_is_forgotten() {
    let mut pair = Pair::with_config(*CRYPTO, config([]), config([psk_connections().1]));
    let request = init_request(1);
    for _ in 0..2 {
        pair.act(Side::Broker, |e, now| e.handle_datagram(now, from(CLIENT, 500), &request));
        assert_eq!(pair.broker.endpoint.half_open(), 1);
        assert_eq!(pair.broker.endpoint.inits.len(), 1);
        pair.act(Side::Broker, |e, now| e.close_all(now, secs(1)));
        assert_eq!(pair.broker.endpoint.half_open(), 0);
        assert!(pair.broker.endpoint.inits.len() == 0);
    }
}

#[test]
fn the_next_timeout_is_found_among_ten_thousand() {
    let mut broker = config([psk_connections().1]);
    broker.half_open = HalfOpenLimits {
        cookie_from: 100_000,
        max: 100_000,
        per_source: 100_000,
        ..HalfOpenLimits::default()
    };
    let mut pair = Pair::with_config(*CRYPTO, config([]), broker);
    let message = init_request(1);
    let mut random = SeededRandom(5);
    for n in 0..2000_u32 {
        let mut octets = message.clone();
        random.fill(&mut octets[..8]).unwrap();
        let path = from(Ipv4Addr::from(0x0a00_0000 + n), 500);
        pair.now.monotonic += Duration::from_millis(1);
        let now = pair.now;
        pair.broker.endpoint.handle_datagram(now, path, &octets);
        while pair.broker.endpoint.poll().is_some() {}
    }
    assert_eq!(pair.broker.endpoint.half_open(), 2000);
    let first = pair.broker.endpoint.poll_timeout().unwrap();
    assert_eq!(first - pair.start, secs(30) + Duration::from_millis(1));
    pair.run(secs(60));
    assert_eq!(pair.broker.endpoint.half_open(), 0);
    assert_eq!(pair.broker.endpoint.poll_timeout(), None);
}

/// What waits for the rest of a message is gone with its IKE SA, and when the message is whole.
#[test]
fn fragments_are_forgotten_with_their_ike_sa() {
    let mut pair = super::pair(|client, _| client.fragment_size = Some(256));
    // SKF, number 2.
    pair.link.fate = Box::new(|octets| {
        let second = octets[16] == 53 && octets[32..34] == [0, 2];
        if second { Fate::Drop } else { Fate::Deliver }
    });
    pair.initiate();
    pair.run(secs(2));
    assert_eq!((pair.broker.endpoint.half_open(), pair.broker.endpoint.fragments.size().0), (1, 1));
    pair.run(secs(60));
    assert_eq!((pair.broker.endpoint.half_open(), pair.broker.endpoint.fragments.size()), (0, (0, 0)));
    pair.link.fate = Box::new(|_| Fate::Deliver);
    pair.initiate();
    pair.run(secs(5));
    assert_eq!(pair.broker.established().len(), 1);
    assert_eq!(pair.broker.endpoint.fragments.size(), (0, 0));
}

/// More first messages than are listened to: who is honest gets in, since it comes again, and what the broker sends to those who
/// never asked is bounded.
#[test]
fn a_newcomer_gets_in_under_a_flood_of_spoofed_first_messages() {
    let mut pair = super::pair(|_, _| {});
    let mut message = init_request(1);
    let mut random = SeededRandom(5);
    let (mut sent, mut answers) = (0_u32, 0);
    for step in 0..40 {
        for _ in 0..6_000 {
            random.fill(&mut message[..8]).unwrap();
            sent += 1;
            let (now, path) = (pair.now, from(Ipv4Addr::from(0x0a00_0000 + sent), 500));
            pair.broker.endpoint.handle_datagram(now, path, &message);
            while let Some(event) = pair.broker.endpoint.poll() {
                answers += usize::from(matches!(event, Event::Transmit(_)));
            }
        }
        if step == 5 {
            pair.initiate();
        }
        pair.run(Duration::from_millis(100));
    }
    let count = |counter| pair.broker.endpoint.counters().get(counter);
    assert_eq!(pair.broker.established().len(), 1, "within 3.5 s");
    assert!(count(Counter::InitLimited) > 100_000 && count(Counter::CookieRight) == 1);
    assert!(answers < 2_500 + 4 * 5_000 + 5_000, "{answers} answers to {sent} of them");
    assert!(pair.broker.endpoint.half_open() <= 64 * 4);
}
