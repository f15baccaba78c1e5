//! Several Child SAs for one tunnel (RFC 9611).

use super::protected::{ask, error, esp, kinds, logged, read};
use super::{established, no_ping_lost, pair, secs};
use crate::config::{Connection, IpcompPolicy, PerResource};
use crate::endpoint::State;
use crate::established::Task;
use crate::event::{CloseReason, Event, Reqid};
use crate::selector::TrafficSelector;
use crate::testing::{Fate, Host, Pair, Side};
use crate::wire::{ExchangeType, Header, Notify, Payload, notify};
use ferry6_crypto::Spi;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

const OFTEN: Duration = Duration::from_millis(3);

fn on(wanted: usize, limit: usize) -> impl Fn(&mut Connection, &mut Connection) {
    move |c, b| {
        c.per_resource = PerResource { wanted, limit: 2 * wanted };
        b.per_resource = PerResource { wanted: limit, limit };
    }
}

/// What the live Child SAs of an end are numbered.
fn resources(host: &Host) -> Vec<u32> {
    let mut all: Vec<u32> = host.live().iter().map(|sa| sa.resource).collect();
    all.sort_unstable();
    all
}

fn create_child_requests(pair: &Pair) -> usize {
    let all = pair.sent.iter().map(|(_, message)| Header::parse(message).unwrap());
    all.filter(|h| h.exchange == ExchangeType::CreateChildSa && !h.response).count()
}

#[test]
fn as_many_as_wanted_and_each_is_used() {
    for wanted in [2, 4, 16] {
        let mut pair = established(on(wanted, 2 * wanted));
        pair.run(secs(1));
        pair.check_mirror().unwrap();
        let numbers: Vec<u32> = (0..wanted as u32).collect();
        for host in [&pair.client, &pair.broker] {
            assert_eq!(resources(host), numbers);
            let reqids: BTreeSet<Reqid> = host.live().iter().map(|sa| sa.reqid).collect();
            assert_eq!(reqids.len(), 1, "they share a reqid");
            assert_eq!(host.outbound.len(), wanted, "each is used");
            let keys: Vec<_> = host.live().iter().map(|sa| sa.inbound.keys.encryption.clone()).collect();
            assert!((1..keys.len()).all(|n| keys[n] != keys[0]), "each has keys of its own");
        }
        pair.run_with_pings(secs(1), OFTEN);
        pair.run(secs(1));
        no_ping_lost(&pair);
        assert_eq!(create_child_requests(&pair), wanted - 1);
        assert!(pair.client.warnings().is_empty() && pair.broker.warnings().is_empty());
        // And so it stays.
        pair.run(secs(600));
        assert_eq!(create_child_requests(&pair), wanted - 1);
    }
}

/// The responder must not send on an SA of which the initiator may not know yet, however busy the tunnel is.
#[test]
fn nothing_is_lost_while_they_come_up() {
    for delay in [1, 40, 300] {
        let mut pair = pair(on(4, 8));
        pair.link.delay = Duration::from_millis(delay);
        pair.initiate();
        pair.run_with_pings(secs(10), OFTEN);
        pair.run(secs(1));
        no_ping_lost(&pair);
        assert_eq!((pair.client.outbound.len(), pair.broker.outbound.len()), (4, 4));
    }
}

#[test]
fn each_message_lost_once() {
    for victim in 1..=20 {
        let mut pair = pair(on(4, 8));
        let mut n = 0;
        pair.link.fate = Box::new(move |_| {
            n += 1;
            if n == victim { Fate::Drop } else { Fate::Deliver }
        });
        pair.initiate();
        pair.run_with_pings(secs(30), Duration::from_millis(20));
        pair.run(secs(1));
        // The broker uses the first one at once, as every responder of IKE_AUTH may.
        if victim != 4 {
            no_ping_lost(&pair);
        }
        pair.check_mirror().unwrap();
        assert_eq!(resources(&pair.broker), [0, 1, 2, 3], "victim {victim}");
        assert_eq!((pair.client.outbound.len(), pair.broker.outbound.len()), (4, 4));
    }
}

#[test]
fn not_without_both_ends() {
    for change in [
        (|c, _| c.per_resource = PerResource { wanted: 4, limit: 8 }) as fn(&mut Connection, &mut Connection),
        |_, b| b.per_resource = PerResource { wanted: 4, limit: 8 },
        // Willing, but it asks for none.
        |c, b| {
            c.per_resource = PerResource { wanted: 1, limit: 8 };
            b.per_resource = PerResource { wanted: 4, limit: 8 };
        },
    ] {
        let mut pair = logged(change);
        pair.run(secs(60));
        assert_eq!((pair.client.live().len(), pair.broker.live().len()), (1, 1));
        assert_eq!(create_child_requests(&pair), 0);
        let asked = kinds(&read(&pair)[0].2).contains(&"N(SA_RESOURCE_INFO)".to_owned());
        let answered = kinds(&read(&pair)[1].2).contains(&"N(SA_RESOURCE_INFO)".to_owned());
        assert!(!(asked && answered));
        assert!(pair.client.warnings().is_empty() && pair.broker.warnings().is_empty());
    }
}

/// Section 5.2, as the one who is told so: what there is, does, and no more are asked for.
#[test]
fn ts_max_queue_ends_the_asking() {
    let mut pair = established(on(8, 3));
    pair.run_with_pings(secs(2), OFTEN);
    pair.run(secs(600));
    no_ping_lost(&pair);
    pair.check_mirror().unwrap();
    assert_eq!((resources(&pair.client), resources(&pair.broker)), (vec![0, 1, 2], vec![0, 1, 2]));
    assert_eq!((pair.client.outbound.len(), pair.broker.outbound.len()), (3, 3));
    assert_eq!(create_child_requests(&pair), 3, "two that were granted and one that was not");
    assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
    let told = pair.client.events.iter().filter(|e| {
        matches!(e, Event::Notice { warning: false, text, .. } if text.contains("TS_MAX_QUEUE") && text.contains('3'))
    });
    assert_eq!(told.count(), 1, "told once");
}

fn ts() -> [Payload; 2] {
    [Payload::TsInitiator(vec![TrafficSelector::ANY_V6]), Payload::TsResponder(vec![TrafficSelector::ANY_V6])]
}

fn info(data: &[u8]) -> Payload {
    Payload::Notify(Notify::new(notify::SA_RESOURCE_INFO, data))
}

/// Section 5: what stands in the messages; and as the one who says TS_MAX_QUEUE, to a peer that asks again and again.
#[test]
fn on_the_wire_and_the_bound() {
    let mut pair = logged(on(2, 4));
    pair.run(secs(1));
    let all = read(&pair);
    for (message, data) in [(0, &[][..]), (1, &[]), (2, &[0, 0, 0, 1]), (3, &[0, 0, 0, 1])] {
        let found: Vec<&Payload> = all[message].2.iter().filter(|p| **p == info(data)).collect();
        assert_eq!(found.len(), 1, "message {message}: {:?}", kinds(&all[message].2));
    }
    assert_eq!(kinds(&all[2].2), ["N(SA_RESOURCE_INFO)", "Sa", "Nonce", "TsInitiator", "TsResponder"]);
    // Exactly what the first one has: one cipher, one kind of sequence numbers, the same selectors.
    let Payload::Sa(proposals) = &all[2].2[1] else { panic!() };
    assert_eq!((proposals.len(), proposals[0].transforms.len()), (1, 2), "{proposals:?}");
    let own = TrafficSelector::host_v6("2a00::101".parse().unwrap());
    assert_eq!(all[2].2[3], Payload::TsInitiator(vec![own]));

    let create = ExchangeType::CreateChildSa;
    let mut refused = 0;
    for n in 0..10 {
        let mut request = vec![info(b"queue"), esp(0x0200_0000 + n, 256, true), Payload::Nonce(vec![7; 32])];
        request.extend(ts());
        let answer = ask(&mut pair, Side::Client, create, &request);
        if answer == [error(notify::TS_MAX_QUEUE)] {
            refused += 1;
        } else {
            assert_eq!(kinds(&answer), ["N(SA_RESOURCE_INFO)", "Sa", "Nonce", "TsInitiator", "TsResponder"]);
        }
    }
    assert_eq!((pair.broker.live().len(), refused), (4, 8));
    // Other selectors are another group, with a bound of its own; the bound of all Child SAs holds for them.
    let narrow = TrafficSelector { protocol: 6, ..own };
    let mut request = vec![info(b""), esp(0x0300_0000, 256, true), Payload::Nonce(vec![7; 32])];
    request.extend([Payload::TsInitiator(vec![narrow]), ts()[1].clone()]);
    assert_eq!(kinds(&ask(&mut pair, Side::Client, create, &request))[0], "N(SA_RESOURCE_INFO)");
    // Another cipher than the first one's is not like it.
    let mut pair = logged(on(2, 4));
    pair.run(secs(1));
    let mut cbc = vec![info(b""), esp(0x0400_0000, 128, true), Payload::Nonce(vec![7; 32])];
    cbc.extend(ts());
    assert_eq!(ask(&mut pair, Side::Client, create, &cbc), [error(notify::NO_PROPOSAL_CHOSEN)]);
}

#[test]
fn ipcomp_is_the_same_for_all() {
    let mut pair = established(|c, b| {
        on(3, 6)(c, b);
        c.ipcomp = IpcompPolicy::On;
    });
    pair.run(secs(1));
    pair.check_mirror().unwrap();
    assert_eq!(pair.broker.live().len(), 3);
    assert!(pair.broker.live().iter().all(|sa| sa.inbound.ipcomp_cpi.is_some()));
    let cpis: BTreeSet<_> = pair.broker.live().iter().map(|sa| sa.inbound.ipcomp_cpi).collect();
    assert_eq!(cpis.len(), 3, "each has CPIs of its own");
}

#[test]
fn rekeys_keep_the_number_and_lose_nothing() {
    for side in [Side::Client, Side::Broker] {
        let mut pair = logged(on(4, 8));
        pair.run(secs(1));
        let reqid = pair.host(side).live()[0].reqid;
        let before: BTreeSet<Spi> = pair.host(side).live().iter().map(|sa| sa.inbound.spi).collect();
        pair.run_with_pings(Duration::from_millis(100), OFTEN);
        pair.act(side, |e, now| e.rekey_child(now, reqid).unwrap());
        pair.run_with_pings(secs(3), OFTEN);
        pair.run(secs(10));
        no_ping_lost(&pair);
        pair.check_mirror().unwrap();
        for host in [&pair.client, &pair.broker] {
            assert_eq!(resources(host), [0, 1, 2, 3]);
            assert_eq!(host.outbound.len(), 4);
        }
        let after: BTreeSet<Spi> = pair.host(side).live().iter().map(|sa| sa.inbound.spi).collect();
        assert!(before.is_disjoint(&after), "all were rekeyed");
        let named = |data: &[u8]| {
            let all = read(&pair);
            let requests = all.iter().filter(|(_, header, payloads)| {
                let rekey =
                    |p: &Payload| matches!(p, Payload::Notify(n) if n.notify_type == notify::REKEY_SA);
                !header.response && payloads.iter().any(rekey)
            });
            requests.filter(|(_, _, payloads)| payloads.contains(&info(data))).count()
        };
        for number in 1..4 {
            assert_eq!(named(&[0, 0, 0, number]), 1, "the rekey of {number} says so");
        }
        assert_eq!(named(&[]), 1);
    }
}

#[test]
fn an_ike_rekey_inherits_them() {
    for side in [Side::Client, Side::Broker] {
        let mut pair = established(on(4, 8));
        pair.run(secs(1));
        let ike = pair.host(side).established()[0].ike;
        pair.act(side, |e, now| e.rekey_ike(now, ike)).unwrap();
        pair.run_with_pings(secs(2), OFTEN);
        let reqid = pair.client.live()[0].reqid;
        pair.act(Side::Client, |e, now| e.rekey_child(now, reqid)).unwrap();
        pair.run_with_pings(secs(2), OFTEN);
        pair.run(secs(10));
        no_ping_lost(&pair);
        pair.check_mirror().unwrap();
        assert_eq!(resources(&pair.client), [0, 1, 2, 3]);
    }
}

/// DELETE for one of them.
fn delete(pair: &mut Pair, side: Side, resource: u32) {
    let sa = pair.host(side).live().into_iter().find(|sa| sa.resource == resource).unwrap().clone();
    let spi = pair.host(side).endpoint.spi_of(sa.ike).unwrap();
    pair.act(side, |endpoint, now| {
        endpoint.with_established(spi, |mut s, endpoint, common| {
            s.want(Task::DeleteChild(sa.inbound.spi));
            s.pump(endpoint, now, common)
        });
    });
    pair.run(secs(1));
}

#[test]
fn without_one_of_them_the_others_go_on() {
    for side in [Side::Client, Side::Broker] {
        for resource in 0..3 {
            let mut pair = established(on(3, 6));
            pair.run(secs(1));
            delete(&mut pair, side, resource);
            pair.check_mirror().unwrap();
            assert_eq!((pair.client.live().len(), pair.broker.live().len()), (2, 2));
            pair.run_with_pings(secs(60), secs(1));
            no_ping_lost(&pair);
            assert_eq!(pair.client.live().len(), 2, "it is not asked for again");
            assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
            let last = |e: &Event| matches!(e, Event::RemoveChildSa { last: true, .. });
            assert!(!pair.client.events.iter().any(last) && !pair.broker.events.iter().any(last));
        }
    }
}

#[test]
fn a_peer_that_always_says_not_now_is_left_alone() {
    // While it rekeys the IKE SA, the broker answers TEMPORARY_FAILURE (RFC 7296 section 2.25.2); here its answers never come.
    let mut pair = pair(on(3, 6));
    pair.initiate();
    pair.run(Duration::from_millis(45));
    let ike = pair.broker.established()[0].ike;
    pair.act(Side::Broker, |e, now| e.rekey_ike(now, ike)).unwrap();
    pair.run_with_pings(secs(30), Duration::from_millis(100));
    no_ping_lost(&pair);
    assert_eq!(resources(&pair.client), [0, 1, 2], "tried again");
    pair.check_mirror().unwrap();

    let mut more = crate::per_resource::More::default();
    let tries = (0..100).filter(|_| more.put_off()).count();
    assert_eq!(tries, 4, "then it is given up");
}

#[test]
fn all_go_with_the_ike_sa() {
    let mut pair = established(on(4, 8));
    pair.run(secs(1));
    let ike = pair.client.established()[0].ike;
    pair.act(Side::Client, |e, now| e.close(now, ike)).unwrap();
    pair.run(secs(60));
    assert!(pair.client.live().is_empty() && pair.broker.live().is_empty());
    assert!(matches!(pair.broker.closed()[0].reason, CloseReason::PeerDeleted));
    for host in [&pair.client, &pair.broker] {
        assert_eq!((host.endpoint.children.len(), host.endpoint.reqids.len()), (0, 0));
        assert_eq!(host.endpoint.poll_timeout(), None);
    }
}

#[test]
fn a_peer_that_forgot_one_of_them() {
    // The broker forgets one without a word; the client's rekey hears CHILD_SA_NOT_FOUND, and the others go on.
    let mut pair = established(on(3, 6));
    pair.run(secs(1));
    let gone = pair.broker.live().into_iter().find(|sa| sa.resource == 2).unwrap().clone();
    let spi = pair.broker.endpoint.spi_of(gone.ike).unwrap();
    pair.act(Side::Broker, |e, _| {
        e.with_established(spi, |mut s, e, common| {
            s.remove(e, common, gone.inbound.spi, Duration::ZERO);
            State::Established(s)
        });
    });
    let reqid = pair.client.live()[0].reqid;
    pair.act(Side::Client, |e, now| e.rekey_child(now, reqid)).unwrap();
    pair.run(secs(10));
    pair.check_mirror().unwrap();
    assert_eq!(resources(&pair.client).len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    /// Rekeys from both sides, losses and deletions at any time: both ends agree in the end, and nothing was lost.
    #[test]
    fn any_order(ops in proptest::collection::vec((0_u8..6, any::<bool>(), 0_u8..120), 0..12)) {
        let mut pair = established(on(3, 6));
        for (op, client, number) in ops {
            let side = if client { Side::Client } else { Side::Broker };
            match op {
                0 | 1 => {
                    if let Some(reqid) = pair.host(side).live().first().map(|sa| sa.reqid) {
                        pair.act(side, |e, now| e.rekey_child(now, reqid)).unwrap();
                    }
                }
                2 => {
                    let ike = pair.host(side).established()[0].ike;
                    pair.act(side, |e, now| e.rekey_ike(now, ike)).unwrap();
                }
                3 => {
                    let mut done = false;
                    pair.link.fate = Box::new(move |_| {
                        if std::mem::replace(&mut done, true) { Fate::Deliver } else { Fate::Drop }
                    });
                }
                _ => pair.run_with_pings(Duration::from_millis(number.into()), Duration::from_millis(10)),
            }
        }
        pair.run_with_pings(secs(200), Duration::from_millis(500));
        pair.run(secs(60));
        no_ping_lost(&pair);
        pair.check_mirror().unwrap();
        prop_assert_eq!(resources(&pair.client), [0, 1, 2]);
        prop_assert_eq!((pair.client.outbound.len(), pair.broker.outbound.len()), (3, 3));
    }
}
