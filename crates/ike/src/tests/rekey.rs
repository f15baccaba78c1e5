//! Rekeys from each side, with traffic all the time.

use super::{established, no_ping_lost, secs};
use crate::config::Connection;
use crate::endpoint::State;
use crate::established::Task;
use crate::event::{CloseReason, Event};
use crate::testing::{Fate, Pair, Side};
use crate::wire::{ExchangeType, Header};
use ferry6_crypto::Group;
use std::time::Duration;

const OFTEN: Duration = Duration::from_millis(3);

fn spis(pair: &Pair) -> Vec<u32> {
    pair.client.live().iter().map(|sa| sa.inbound.spi.get()).collect()
}

fn child_rekey_keeps_every_ping(side: Side, change: impl FnOnce(&mut Connection, &mut Connection)) {
    let mut pair = established(change);
    let before = spis(&pair);
    let reqid = pair.host(side).live()[0].reqid;
    pair.run_with_pings(secs(1), OFTEN);
    pair.act(side, |e, now| e.rekey_child(now, reqid).unwrap());
    pair.run_with_pings(secs(2), OFTEN);
    pair.run(secs(10));
    no_ping_lost(&pair);
    pair.check_mirror().unwrap();
    let after = spis(&pair);
    assert_eq!(after.len(), 1, "one replaced the other: {after:?}");
    assert_ne!(before, after);
    assert_eq!(pair.host(side).live()[0].reqid, reqid, "the reqid stays");
    let removed = |e: &&Event| matches!(e, Event::RemoveChildSa { last, .. } if !last);
    assert_eq!(pair.client.events.iter().filter(removed).count(), 1);
    assert_eq!(pair.broker.events.iter().filter(removed).count(), 1);
}

#[test]
fn child_from_each_side() {
    child_rekey_keeps_every_ping(Side::Client, |_, _| {});
    child_rekey_keeps_every_ping(Side::Broker, |_, _| {});
}

#[test]
fn child_with_pfs() {
    for side in [Side::Client, Side::Broker] {
        child_rekey_keeps_every_ping(side, |c, b| {
            c.esp[0].groups = vec![Group::X25519];
            b.esp[0].groups = vec![Group::X25519];
        });
        // Another group than guessed: INVALID_KE_PAYLOAD, and once more.
        child_rekey_keeps_every_ping(side, |c, b| {
            let (ours, theirs) = if side == Side::Client { (c, b) } else { (b, c) };
            ours.esp[0].groups = vec![Group::X25519, Group::Ecp384];
            theirs.esp[0].groups = vec![Group::Ecp384];
        });
        // The asked side has no PFS in its configuration, and grants it.
        child_rekey_keeps_every_ping(side, |c, b| {
            let ours = if side == Side::Client { c } else { b };
            ours.esp[0].groups = vec![Group::Ecp256];
        });
    }
}

fn ike_rekey_keeps_every_ping(side: Side, change: impl FnOnce(&mut Connection, &mut Connection)) {
    let mut pair = established(change);
    let before = pair.client.endpoint.ike_sas()[0].clone();
    let ike = pair.host(side).established()[0].ike;
    pair.act(side, |e, now| e.rekey_ike(now, ike).unwrap());
    pair.run_with_pings(secs(2), OFTEN);
    let after = pair.client.endpoint.ike_sas();
    assert_eq!(after.len(), 1);
    assert_ne!(before.initiator_spi, after[0].initiator_spi);
    assert_eq!(before.ike, after[0].ike, "the ID stays");
    assert_eq!(after[0].children.len(), 1, "Child SAs are inherited");
    for host in [&pair.client, &pair.broker] {
        assert_eq!(host.events.iter().filter(|e| matches!(e, Event::IkeRekeyed { .. })).count(), 1);
    }
    // And all goes on: a child rekey from each side on the new IKE SA, another IKE rekey from the other side.
    for side in [Side::Client, Side::Broker] {
        let reqid = pair.host(side).live()[0].reqid;
        pair.act(side, |e, now| e.rekey_child(now, reqid).unwrap());
        pair.run_with_pings(secs(2), OFTEN);
    }
    let other = side.other();
    let ike = pair.host(other).established()[0].ike;
    pair.act(other, |e, now| e.rekey_ike(now, ike).unwrap());
    pair.run_with_pings(secs(2), OFTEN);
    pair.run(secs(100));
    no_ping_lost(&pair);
    pair.check_mirror().unwrap();
    assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
    let ike = pair.client.established()[0].ike;
    pair.act(Side::Client, |e, now| e.close(now, ike).unwrap());
    pair.run(secs(100));
    assert_eq!((pair.client.closed().len(), pair.broker.closed().len()), (1, 1));
    assert_eq!(pair.client.endpoint.poll_timeout(), None);
    assert_eq!(pair.broker.endpoint.poll_timeout(), None);
}

#[test]
fn ike_from_each_side() {
    ike_rekey_keeps_every_ping(Side::Client, |_, _| {});
    ike_rekey_keeps_every_ping(Side::Broker, |_, _| {});
}

#[test]
fn ike_with_another_group() {
    // The group in use is refused in the rekey: the asker follows INVALID_KE_PAYLOAD.
    let mut pair = established(|c, b| {
        c.ike[0].groups = vec![Group::X25519, Group::Ecp256];
        b.ike[0].groups = vec![Group::X25519, Group::Ecp256];
    });
    let ike = pair.broker.established()[0].ike;
    pair.act(Side::Broker, |e, now| e.rekey_ike(now, ike).unwrap());
    pair.run(secs(2));
    assert_eq!(pair.client.endpoint.ike_sas()[0].children.len(), 1);
}

#[test]
fn by_time_with_a_random_share() {
    let mut pair = established(|c, b| {
        (c.child_rekey, b.child_rekey) = (secs(100), secs(1000));
        (c.ike_rekey, b.ike_rekey) = (secs(250), secs(0));
    });
    let due = pair.client.endpoint.ike_sas()[0].children[0].next_rekey.unwrap() - pair.start;
    assert!(due > secs(89) && due <= secs(101), "{due:?}");
    pair.run_with_pings(secs(1000), secs(1));
    no_ping_lost(&pair);
    pair.check_mirror().unwrap();
    let count = |f: fn(&Event) -> bool| pair.client.events.iter().filter(|e| f(e)).count();
    let children = count(|e| matches!(e, Event::InstallChildSa(_)));
    assert!((10..=12).contains(&children), "{children} Child SAs in 1000 s");
    let ikes = count(|e| matches!(e, Event::IkeRekeyed { .. }));
    assert!((3..=4).contains(&ikes), "{ikes} IKE rekeys in 1000 s");
    assert!(pair.client.endpoint.ike_sas()[0].next_rekey.is_some());
}

#[test]
fn by_soft_limit() {
    let mut pair = established(|c, _| (c.child_rekey_packets, c.child_rekey_bytes) = (1000, 1_000_000));
    let sa = pair.client.live()[0].clone();
    assert!((900..=1000).contains(&sa.soft_packets), "{}", sa.soft_packets);
    assert!((900_000..=1_000_000).contains(&sa.soft_bytes));
    let old = sa.inbound.spi;
    // Told twice, as two workers might.
    pair.act(Side::Client, |e, now| {
        e.child_soft_limit(now, old);
        e.child_soft_limit(now, old);
    });
    pair.run(secs(10));
    assert_eq!(pair.client.live().len(), 1);
    assert_ne!(pair.client.live()[0].inbound.spi, old);
    let unlimited = pair.broker.live()[0];
    assert!(unlimited.soft_packets >= 1 << 31 && unlimited.soft_bytes <= 1 << 40, "the cipher's own limits");
}

#[test]
fn delete_waits_for_the_worker() {
    let mut pair = established(|_, _| {});
    pair.client.workers_answer = false;
    let reqid = pair.client.live()[0].reqid;
    pair.act(Side::Client, |e, now| e.rekey_child(now, reqid).unwrap());
    pair.run(secs(5));
    assert_eq!(
        (pair.client.live().len(), pair.broker.live().len()),
        (2, 2),
        "no DELETE before outbound is in use"
    );
    let new = pair.client.outbound[&(reqid, 0)];
    pair.act(Side::Client, |e, now| e.outbound_in_use(now, reqid, new));
    pair.run(secs(1));
    assert_eq!((pair.client.live().len(), pair.broker.live().len()), (1, 1));
}

#[test]
fn a_silent_responder_switches_by_delete() {
    // Nothing is sent by the client, so that only DELETE tells the broker to switch.
    let mut pair = established(|_, _| {});
    let reqid = pair.client.live()[0].reqid;
    pair.act(Side::Client, |e, now| e.rekey_child(now, reqid).unwrap());
    pair.run(secs(1));
    let new = pair.broker.live()[0].clone();
    assert_eq!(pair.broker.outbound[&(new.reqid, 0)], new.outbound.spi);
    assert!(
        pair.broker
            .events
            .iter()
            .any(|e| matches!(e, Event::UseOutbound { spi, .. } if *spi == new.outbound.spi))
    );
}

#[test]
fn each_message_of_a_rekey_lost_once() {
    for ike in [false, true] {
        for side in [Side::Client, Side::Broker] {
            for victim in 1..=6 {
                let mut pair = established(|_, _| {});
                let mut n = 0;
                pair.link.fate = Box::new(move |_| {
                    n += 1;
                    if n == victim { Fate::Drop } else { Fate::Deliver }
                });
                let (id, reqid) = (pair.host(side).established()[0].ike, pair.host(side).live()[0].reqid);
                pair.act(side, |e, now| if ike { e.rekey_ike(now, id) } else { e.rekey_child(now, reqid) })
                    .unwrap();
                pair.run_with_pings(secs(60), Duration::from_millis(50));
                pair.run(secs(1));
                no_ping_lost(&pair);
                pair.check_mirror().unwrap();
                assert_eq!(pair.client.live().len(), 1);
            }
        }
    }
}

#[test]
fn a_hundred_rekeys_leave_nothing_behind() {
    let mut pair = established(|_, _| {});
    for n in 0..100 {
        let side = if n % 2 == 0 { Side::Client } else { Side::Broker };
        let (id, reqid) = (pair.host(side).established()[0].ike, pair.host(side).live()[0].reqid);
        pair.act(side, |e, now| if n % 5 == 0 { e.rekey_ike(now, id) } else { e.rekey_child(now, reqid) })
            .unwrap();
        pair.run_with_pings(secs(1), Duration::from_millis(20));
    }
    pair.run(secs(60));
    no_ping_lost(&pair);
    pair.check_mirror().unwrap();
    assert_eq!(pair.client.endpoint.children.len(), 1);
    assert_eq!(pair.client.endpoint.reqids.len(), 1);
    assert_eq!(pair.broker.endpoint.children.len(), 1);
}

#[test]
fn rekey_of_what_is_not_there() {
    let mut pair = established(|_, _| {});
    let unknown = pair.act(Side::Client, |e, now| e.rekey_child(now, crate::event::Reqid(77)));
    assert_eq!(unknown, Err(crate::endpoint::CommandError::UnknownSa));
    let unknown = pair.act(Side::Client, |e, now| e.rekey_ike(now, crate::event::IkeSaId(77)));
    assert_eq!(unknown, Err(crate::endpoint::CommandError::UnknownSa));
    let unknown = pair.act(Side::Client, |e, now| e.initiate(now, "nowhere", crate::testing::first_path()));
    assert_eq!(unknown, Err(crate::endpoint::CommandError::UnknownConnection("nowhere".to_owned())));
}

/// RFC 7296 section 2.2: the IDs of each direction count by themselves, from zero. Two ends that both began with 1
/// understood each other, and no other peer.
#[test]
fn each_side_counts_its_own_requests() {
    let mut pair = established(|_, _| {});
    for (side, first) in [(Side::Broker, 0), (Side::Client, 2)] {
        let sent = pair.sent.len();
        let reqid = pair.host(side).live()[0].reqid;
        pair.act(side, |e, now| e.rekey_child(now, reqid).unwrap());
        pair.run(secs(1));
        // CREATE_CHILD_SA and then the DELETE of what it replaced.
        let ids: Vec<u32> = pair.sent[sent..]
            .iter()
            .filter(|(from, _)| *from == side)
            .map(|(_, message)| Header::parse(message).unwrap())
            .filter(|header| !header.response)
            .map(|header| header.message_id)
            .collect();
        assert_eq!(ids, [first, first + 1], "{side:?}");
    }
}

/// A DELETE of the Child SA that a request of ours makes, and that overtakes the answer to it: the answer then names an SA that the
/// peer has no more (sections 1.4.1, 2.25.1).
#[test]
fn a_delete_that_overtakes_the_answer() {
    for asker in [Side::Client, Side::Broker] {
        for rekey in [true, false] {
            let mut pair = established(|c, b| (c.dpd, b.dpd) = (Duration::ZERO, Duration::ZERO));
            pair.run(secs(30));
            pair.link.fate = Box::new(|message| match Header::parse(message) {
                Ok(h) if h.response && h.exchange == ExchangeType::CreateChildSa => Fate::Delay(secs(5)),
                _ => Fate::Deliver,
            });
            let old = spis(&pair);
            let old: Vec<u32> =
                old.into_iter().chain(pair.broker.live().iter().map(|sa| sa.inbound.spi.get())).collect();
            let reqid = pair.host(asker).live()[0].reqid;
            if rekey {
                pair.act(asker, |e, now| e.rekey_child(now, reqid).unwrap());
            } else {
                task(&mut pair, asker, Task::NewChild);
            }
            pair.run(Duration::from_millis(500));
            let deleter = asker.other();
            let made = pair
                .host(deleter)
                .live()
                .iter()
                .map(|sa| sa.inbound.spi)
                .find(|spi| !old.contains(&spi.get()));
            task(&mut pair, deleter, Task::DeleteChild(made.expect("it has answered")));
            pair.run(secs(1));
            assert!(!pair.host(deleter).live().iter().any(|sa| Some(sa.inbound.spi) == made), "and deleted");
            pair.run(secs(100));
            pair.check_mirror().unwrap_or_else(|why| panic!("{asker:?} {rekey}: {why}"));
            let ours = pair.host(asker);
            assert!(!ours.live().iter().any(|sa| Some(sa.outbound.spi) == made), "{asker:?} {rekey}");
            assert_eq!(ours.endpoint.children.len(), ours.live().len());
        }
    }
}

fn task(pair: &mut Pair, side: Side, task: Task) {
    let ike = pair.host(side).endpoint.ike_sas()[0].ike;
    pair.act(side, |endpoint, now| {
        let spi = endpoint.spi_of(ike).unwrap();
        endpoint.with_established(spi, |mut s, endpoint, common| {
            s.want(task);
            s.pump(endpoint, now, common)
        });
    });
}

/// Section 2.2: an IKE SA whose message IDs come to their end is rekeyed, also where its lifetime has none, or closed.
#[test]
fn message_ids_do_not_begin_anew() {
    let near_the_end = |left: u32| {
        let mut pair = established(|c, b| (c.ike_rekey, b.ike_rekey) = (Duration::ZERO, Duration::ZERO));
        let skip = u32::MAX - left - 2;
        for (side, sent, received) in [(Side::Client, skip, 0), (Side::Broker, 0, skip)] {
            let ike = pair.host(side).endpoint.ike_sas()[0].ike;
            pair.act(side, |endpoint, _| {
                let spi = endpoint.spi_of(ike).unwrap();
                endpoint.with_established(spi, |mut s, _, _| {
                    s.window.skip_ids(sent, received);
                    State::Established(s)
                });
            });
        }
        pair
    };
    let mut pair = near_the_end(1000);
    let before = pair.client.endpoint.ike_sas()[0].initiator_spi;
    let reqid = pair.client.live()[0].reqid;
    pair.act(Side::Client, |e, now| e.rekey_child(now, reqid).unwrap());
    pair.run_with_pings(secs(120), secs(1));
    no_ping_lost(&pair);
    pair.check_mirror().unwrap();
    assert_ne!(pair.client.endpoint.ike_sas()[0].initiator_spi, before, "rekeyed");
    assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
    // Nothing is left to rekey with.
    let mut pair = near_the_end(7);
    let reqid = pair.client.live()[0].reqid;
    pair.act(Side::Client, |e, now| e.rekey_child(now, reqid).unwrap());
    pair.run(secs(120));
    assert!(matches!(super::reason(&pair.client), CloseReason::Expired(why) if why.contains("message IDs")));
    assert!(pair.client.live().is_empty() && pair.broker.live().is_empty());
}
