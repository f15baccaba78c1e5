//! Prefixes by configuration payload (RFC 5739 section 5.2), and what they mean for the selectors.

use super::{CRYPTO, no_ping_lost, secs};
use crate::config::{AddressConfig, Connection, PerResource, PrefixWish, Unique};
use crate::identity::Identity;
use crate::prefix::Prefix6;
use crate::selector::TrafficSelector;
use crate::testing::{Pair, Side, SmallPool, config, endpoint, pool, psk_connections};
use proptest::prelude::*;

fn prefix(text: &str) -> Prefix6 {
    text.parse().unwrap()
}

fn ts(texts: &[&str]) -> Vec<TrafficSelector> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn wishing(wish: PrefixWish) -> AddressConfig {
    AddressConfig::Request { address: None, prefix: wish }
}

/// A tunnel of a client with this wish, whose broker routes a prefix to it, or none.
fn pair_with(
    wish: PrefixWish,
    routed: Option<&str>,
    change: impl FnOnce(&mut Connection, &mut Connection),
) -> Pair {
    let (mut client, mut broker) = psk_connections();
    client.addresses = wishing(wish);
    change(&mut client, &mut broker);
    let pool: SmallPool = pool();
    if let Some(routed) = routed {
        pool.route(client.local_id.clone(), prefix(routed));
    }
    pool.route(Identity::Rfc822("somebody@my.domain".to_owned()), prefix("2a00:0:0:9::/64"));
    let client = endpoint(*CRYPTO, config([client]), 1, None);
    let broker = endpoint(*CRYPTO, config([broker]), 2, Some(pool));
    let mut pair = Pair::of(client, broker);
    pair.initiate();
    pair.run(secs(5));
    pair
}

#[track_caller]
fn check(pair: &Pair, got: Option<&str>, selectors: &[&str]) {
    pair.check_mirror().unwrap();
    assert_eq!(pair.client.established()[0].lease.prefix, got.map(prefix));
    assert_eq!(pair.client.live()[0].local_ts, ts(selectors));
    assert_eq!(pair.broker.live()[0].remote_ts, ts(selectors));
}

#[test]
fn any_prefix() {
    let mut pair = pair_with(PrefixWish::Any, Some("2a00:0:0:1::/64"), |_, _| {});
    check(&pair, Some("2a00:0:0:1::/64"), &["2a00::101/128", "2a00:0:0:1::/64"]);
    // A rekey, by either end, keeps both.
    for side in [Side::Client, Side::Broker] {
        let reqid = pair.host(side).live()[0].reqid;
        pair.act(side, |endpoint, now| endpoint.rekey_child(now, reqid)).unwrap();
        pair.run_with_pings(secs(8), secs(1));
        pair.check_mirror().unwrap();
        assert_eq!(pair.client.live().len(), 1);
        check(&pair, Some("2a00:0:0:1::/64"), &["2a00::101/128", "2a00:0:0:1::/64"]);
    }
    no_ping_lost(&pair);
}

/// Section 2.18 of RFC 7296: the new IKE SA inherits the Child SAs, and what was leased with them.
#[test]
fn a_rekeyed_ike_sa_still_has_the_prefix() {
    for side in [Side::Client, Side::Broker] {
        let mut pair = pair_with(PrefixWish::Any, Some("2a00:0:0:1::/64"), |_, _| {});
        let ike = pair.host(side).established()[0].ike;
        pair.act(side, |endpoint, now| endpoint.rekey_ike(now, ike)).unwrap();
        pair.run(secs(8));
        // What is made below the new one is bound as before.
        let reqid = pair.client.live()[0].reqid;
        let before = pair.client.live()[0].inbound.spi;
        pair.act(Side::Client, |endpoint, now| endpoint.rekey_child(now, reqid)).unwrap();
        pair.run_with_pings(secs(8), secs(1));
        assert!(pair.client.live().len() == 1 && pair.client.live()[0].inbound.spi != before);
        check(&pair, Some("2a00:0:0:1::/64"), &["2a00::101/128", "2a00:0:0:1::/64"]);
    }
}

/// RFC 9611: they share the traffic selectors of the first one.
#[test]
fn each_sa_of_several_has_the_prefix() {
    let mut pair = pair_with(PrefixWish::Any, Some("2a00:0:0:1::/64"), |client, broker| {
        client.per_resource = PerResource { wanted: 4, limit: 8 };
        broker.per_resource = PerResource { wanted: 4, limit: 8 };
    });
    pair.run(secs(2));
    pair.check_mirror().unwrap();
    assert_eq!((pair.client.live().len(), pair.broker.live().len()), (4, 4));
    let both = ts(&["2a00::101/128", "2a00:0:0:1::/64"]);
    assert!(pair.client.live().iter().all(|sa| sa.local_ts == both));
    assert!(pair.broker.live().iter().all(|sa| sa.remote_ts == both));
}

/// Section 2.8.3 of RFC 7296: a second IKE SA beside the first, and then in its place.
#[test]
fn who_authenticates_anew_has_the_same_prefix_all_the_while() {
    let mut pair = pair_with(PrefixWish::Any, Some("2a00:0:0:1::/64"), |client, broker| {
        client.reauth = secs(100);
        broker.unique = Unique::Keep;
    });
    let first = pair.client.established()[0].ike;
    pair.initiate();
    pair.run(secs(5));
    assert_eq!(pair.client.established().len(), 2);
    let both = ts(&["2a00::101/128", "2a00:0:0:1::/64"]);
    assert!(pair.client.live().iter().all(|sa| sa.local_ts == both), "{:?}", pair.client.live());
    assert_eq!(pair.client.established()[1].lease, pair.client.established()[0].lease);
    pair.act(Side::Client, |endpoint, now| endpoint.close(now, first)).unwrap();
    pair.run(secs(5));
    assert_eq!((pair.client.live().len(), pair.broker.live().len()), (1, 1));
    assert_eq!(pair.client.live()[0].local_ts, both);
    assert_eq!(pair.broker.live()[0].remote_ts, both);
}

#[test]
fn a_broker_without_any_gives_the_address_alone() {
    let pair = pair_with(PrefixWish::Any, None, |_, _| {});
    check(&pair, None, &["2a00::101/128"]);
    // Another's is not to be had by asking for it.
    let pair = pair_with(PrefixWish::This(prefix("2a00:0:0:9::/64")), None, |_, _| {});
    check(&pair, None, &["2a00::101/128"]);
    let pair = pair_with(PrefixWish::This(prefix("2a00:0:0:9::/64")), Some("2a00:0:0:1::/64"), |_, _| {});
    check(&pair, None, &["2a00::101/128"]);
}

/// As strongSwan, which does not know the attribute, and leaves selectors away that another one covers: whatever it offers, what
/// is routed to it is in the answer, and nothing else.
#[test]
fn who_does_not_ask_has_what_is_routed_to_it() {
    let both = ts(&["2a00::101/128", "2a00:0:0:1::/64"]);
    for offer in [&["::/0"][..], &["::/0", "2a00:0:0:1::/64"], &["2a00::/16"], &["::/0", "2a00:0:0:9::/64"]] {
        let offered = ts(offer);
        let pair =
            pair_with(PrefixWish::None, Some("2a00:0:0:1::/64"), |client, _| client.local_ts = offered);
        assert_eq!(pair.client.established()[0].lease.prefix, None, "it was not told");
        assert_eq!(pair.broker.live()[0].remote_ts, both, "{offer:?}");
        // Its own policy is the address.
        assert_eq!(pair.client.live()[0].local_ts, ts(&["2a00::101/128"]), "{offer:?}");
    }
    // Who offers less has less.
    let offered = ts(&["2a00::/64", "2a00:0:0:1::/80"]);
    let pair = pair_with(PrefixWish::None, Some("2a00:0:0:1::/64"), |client, _| client.local_ts = offered);
    assert_eq!(pair.broker.live()[0].remote_ts, ts(&["2a00::101/128", "2a00:0:0:1::/80"]));
}

#[test]
fn nobody_has_anothers_prefix_by_selectors() {
    let mine = ts(&["::/0", "2a00:0:0:9::/64"]);
    let pair = pair_with(PrefixWish::Any, Some("2a00:0:0:1::/64"), |client, _| client.local_ts = mine);
    check(&pair, Some("2a00:0:0:1::/64"), &["2a00::101/128", "2a00:0:0:1::/64"]);
}

#[test]
fn a_prefix_without_its_selector_is_none() {
    // The broker's policy is narrower than what its pool gives.
    let narrow = ts(&["2a00::/48[tcp]", "2a00::100/120"]);
    let pair = pair_with(PrefixWish::Any, Some("2a00:0:0:1::/64"), |_, broker| broker.remote_ts = narrow);
    assert_eq!(pair.client.established()[0].lease.prefix, None);
}

/// A peer that answers for a prefix by its configuration and never by payload, as strongSwan as the broker.
#[test]
fn a_prefix_by_name_that_both_sides_configured() {
    let set = |client: &mut Connection, broker: &mut Connection| {
        client.addresses = wishing(PrefixWish::This(prefix("2a00:0:0:1::/64")));
        broker.addresses = AddressConfig::Assign;
    };
    // The pool gives it, but the answer does not tell: taken out on the way, the client still finds it in the selectors.
    let (mut client, mut broker) = psk_connections();
    set(&mut client, &mut broker);
    let payloads = crate::payloads::Payloads {
        config: Some(crate::wire::Config {
            cfg_type: crate::wire::cfg_type::CFG_REPLY,
            attributes: vec![(
                crate::wire::attribute::INTERNAL_IP6_ADDRESS,
                crate::wire::config::encode_ip6_address("2a00::101".parse().unwrap(), 128),
            )],
        }),
        ..crate::payloads::Payloads::default()
    };
    let lease = crate::ike_auth::read_lease(&payloads, &client);
    assert_eq!(lease.prefix, Some(prefix("2a00:0:0:1::/64")));
    assert_eq!(crate::child::local_policy(&client, &lease), ts(&["2a00::101/128", "2a00:0:0:1::/64"]));
}

#[test]
fn what_is_no_prefix_is_none() {
    use crate::wire::config::{encode_ip6_prefix, ip6_prefix};
    let good = prefix("2a00:0:0:1::/64");
    assert_eq!(ip6_prefix(&encode_ip6_prefix(good)), Ok(Some(good)));
    assert_eq!(ip6_prefix(&[]), Ok(None));
    let short = prefix("2a00::/16");
    assert_eq!(ip6_prefix(&encode_ip6_prefix(short)), Ok(Some(short)));
    // Bits behind its length.
    let mut value = encode_ip6_prefix(good);
    value[15] = 7;
    assert_eq!(ip6_prefix(&value), Ok(Some(good)));
    for (text, len) in [
        ("2a00::", 129),
        ("2a00::", 0),
        ("2000::", 3),
        ("2a00::", 15),
        ("::", 64),
        ("::1", 128),
        ("fe80::", 64),
        ("ff02::", 16),
    ] {
        let value = crate::wire::config::encode_ip6_address(text.parse().unwrap(), len);
        assert!(ip6_prefix(&value).is_err(), "{text}/{len}");
    }
    for len in [1, 16, 18] {
        assert!(ip6_prefix(&vec![0x20; len]).is_err(), "{len} octets");
    }
}

/// Prefixes in and around what is the client's, and what can be nobody's.
fn any_text() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "::/0",
        "::/1",
        "2a00::/16",
        "2a00::/64",
        "2a00::100/120",
        "2a00::101/128",
        "2a00::102/128",
        "2a00:0:0:1::/64",
        "2a00:0:0:1::/80",
        "2a00:0:0:1::1/128",
        "2a00:0:0:9::/64",
        "2a00:0:0:9::7/128",
        "fe80::/64",
        "ff00::/8",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever a client wishes and offers: the broker carries its address and its prefix, or a part of them, and the client
    /// believes in no prefix beyond that.
    #[test]
    fn the_policy_of_the_broker_is_the_bound(
        wish in proptest::option::of(proptest::option::of(any_text())),
        offer in proptest::collection::vec(any_text(), 1..5),
        routed in any::<bool>(),
    ) {
        let wish = match wish {
            None => PrefixWish::None,
            Some(None) => PrefixWish::Any,
            Some(Some(text)) => PrefixWish::This(prefix(text)),
        };
        let offered = ts(&offer);
        let own = if routed { "2a00:0:0:1::/64" } else { "2a00::101/128" };
        let pair = pair_with(wish, routed.then_some(own), |client, _| client.local_ts = offered);
        let bound = ts(&["2a00::101/128", own]);
        let within = |ts: &TrafficSelector| bound.iter().any(|bound| bound.contains(ts));
        for child in pair.broker.live() {
            prop_assert!(child.remote_ts.iter().all(within), "{:?} for {wish:?}, {offer:?}", child.remote_ts);
        }
        for up in pair.client.established() {
            prop_assert!(up.lease.prefix.is_none_or(|p| within(&p.selector())), "{:?}", up.lease);
        }
    }

    /// Of a broker that answers anything.
    #[test]
    fn any_answer_is_read(
        attributes in proptest::collection::vec(
            (
                proptest::sample::select(vec![8_u16, 10, 17, 18, 0x4000]),
                proptest::collection::vec(any::<u8>(), 0..20),
            ),
            0..12,
        ),
        named in any::<bool>(),
    ) {
        use crate::wire::{Config, cfg_type};
        let named = named.then(|| prefix("2a00:0:0:1::/64"));
        let (mut client, _) = psk_connections();
        client.addresses = wishing(named.map_or(PrefixWish::Any, PrefixWish::This));
        let config = Some(Config { cfg_type: cfg_type::CFG_REPLY, attributes: attributes.clone() });
        let payloads = crate::payloads::Payloads { config, ..crate::payloads::Payloads::default() };
        let lease = crate::ike_auth::read_lease(&payloads, &client);
        // The first that is a prefix, else the one that was named.
        let told = attributes
            .iter()
            .filter(|(kind, _)| *kind == 18)
            .find_map(|(_, value)| crate::wire::config::ip6_prefix(value).ok().flatten());
        prop_assert_eq!(lease.prefix, told.or(named));
        if let Some(told) = told {
            prop_assert!((1..=128).contains(&told.len) && Prefix6::new(told.address, told.len) == Some(told));
            prop_assert!(!told.address.is_multicast() && !told.address.is_unspecified());
        }
        client.addresses = AddressConfig::REQUEST;
        prop_assert_eq!(crate::ike_auth::read_lease(&payloads, &client).prefix, None);
    }
}
