//! Both ends act at once (RFC 7296 sections 2.8.1, 2.8.2, 2.25), by lists of operations.

use super::{established, no_ping_lost, secs};
use crate::testing::Side::{Broker, Client};
use crate::testing::operations::Operation as Op;
use crate::testing::{Fate, Host, Pair, Side};
use proptest::prelude::*;
use std::time::Duration;

pub(super) fn apply(pair: &mut Pair, op: &Op) {
    op.apply(pair).unwrap();
}

/// After all is through there is one Child SA on one IKE SA, the same for both, and no ping was lost.
fn settle(pair: &mut Pair) {
    pair.run_with_pings(secs(200), Duration::from_millis(500));
    pair.run(secs(60));
    no_ping_lost(pair);
    pair.check_mirror().unwrap();
    assert_eq!(pair.client.live().len(), 1);
    assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
    let (client, broker) = (pair.client.endpoint.ike_sas(), pair.broker.endpoint.ike_sas());
    assert_eq!((client.len(), broker.len()), (1, 1));
    assert_eq!(client[0].initiator_spi, broker[0].initiator_spi);
    assert_eq!(client[0].responder_spi, broker[0].responder_spi);
    assert_eq!((client[0].state, broker[0].state), ("established", "established"));
    // It still works.
    let reqid = pair.client.live()[0].reqid;
    pair.act(Client, |e, now| e.rekey_child(now, reqid)).unwrap();
    pair.run_with_pings(secs(20), Duration::from_millis(100));
    pair.run(secs(1));
    no_ping_lost(pair);
    pair.check_mirror().unwrap();
}

fn quiet() -> Pair {
    established(|c, b| (c.dpd, b.dpd) = (secs(0), secs(0)))
}

fn run(ops: &[Op]) -> Pair {
    let mut pair = quiet();
    for op in ops {
        apply(&mut pair, op);
    }
    settle(&mut pair);
    pair
}

#[test]
fn both_rekey_the_child() {
    // Several times, so that each side's nonces are the lowest sometimes.
    let mut pair = quiet();
    for _ in 0..8 {
        apply(&mut pair, &Op::RekeyChild(Client));
        apply(&mut pair, &Op::RekeyChild(Broker));
        pair.run_with_pings(secs(20), Duration::from_millis(7));
    }
    settle(&mut pair);
}

#[test]
fn both_rekey_the_ike_sa() {
    let mut pair = quiet();
    for _ in 0..8 {
        apply(&mut pair, &Op::RekeyIke(Client));
        apply(&mut pair, &Op::RekeyIke(Broker));
        pair.run_with_pings(secs(20), Duration::from_millis(7));
    }
    settle(&mut pair);
}

#[test]
fn child_against_ike() {
    run(&[Op::RekeyChild(Client), Op::RekeyIke(Broker)]);
    run(&[Op::RekeyIke(Client), Op::RekeyChild(Broker)]);
    run(&[Op::RekeyIke(Client), Op::RekeyChild(Client), Op::RekeyIke(Broker), Op::RekeyChild(Broker)]);
}

#[test]
fn one_request_of_the_two_is_lost() {
    for (first, second) in [(Client, Broker), (Broker, Client)] {
        run(&[Op::LoseNext, Op::RekeyChild(first), Op::RekeyChild(second)]);
        run(&[Op::LoseNext, Op::RekeyIke(first), Op::RekeyIke(second)]);
        run(&[Op::RekeyChild(first), Op::LoseNext, Op::RekeyChild(second)]);
        run(&[Op::RekeyIke(first), Op::LoseNext, Op::RekeyIke(second)]);
        run(&[Op::RekeyIke(first), Op::RekeyIke(second), Op::LoseNext]);
        run(&[Op::RekeyChild(first), Op::RekeyChild(second), Op::LoseNext]);
    }
}

#[test]
fn rekey_against_delete() {
    for (closes, rekeys) in [(Client, Broker), (Broker, Client)] {
        for ike_rekey in [false, true] {
            let mut pair = quiet();
            apply(&mut pair, &if ike_rekey { Op::RekeyIke(rekeys) } else { Op::RekeyChild(rekeys) });
            apply(&mut pair, &Op::Close(closes));
            pair.run(secs(200));
            assert_eq!((pair.client.closed().len(), pair.broker.closed().len()), (1, 1));
            assert!(pair.client.live().is_empty() && pair.broker.live().is_empty());
            assert_eq!(pair.client.endpoint.poll_timeout(), None);
            assert_eq!(pair.broker.endpoint.poll_timeout(), None);
            assert!(pair.client.endpoint.ike_sas().is_empty() && pair.broker.endpoint.ike_sas().is_empty());
        }
    }
}

/// Sections 2.25.1, 1.4.1: whoever of the two comes first, in the end both have the same. A client whose
/// broker deleted the last one has asked for a new one; one that deleted it itself has not.
#[test]
fn rekey_against_delete_of_a_child_sa() {
    for (deletes, rekeys) in [(Client, Broker), (Broker, Client)] {
        for delete_first in [true, false] {
            for both_delete in [false, true] {
                let mut pair = quiet();
                pair.run(secs(30));
                let (delete, rekey) = (Op::DeleteChild(deletes), Op::RekeyChild(rekeys));
                let mut ops = if delete_first { vec![delete, rekey] } else { vec![rekey, delete] };
                if both_delete {
                    ops.push(Op::DeleteChild(rekeys));
                }
                for op in &ops {
                    apply(&mut pair, op);
                }
                pair.run(secs(200));
                pair.check_mirror().unwrap();
                let left = pair.client.live().len();
                assert!(left <= 1, "{ops:?}");
                if deletes == Broker && !both_delete {
                    assert_eq!(left, 1, "{ops:?}");
                }
                assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty(), "{ops:?}");
                assert_eq!(pair.client.endpoint.children.len(), left, "{ops:?}");
                assert_eq!(pair.broker.endpoint.children.len(), left, "{ops:?}");
            }
        }
    }
}

/// Section 2.25.2: what comes while the IKE SA is rekeyed is put off, and done later.
#[test]
fn temporary_failure_is_said_and_the_rekey_tried_again() {
    for (ike, child) in [(Client, Broker), (Broker, Client)] {
        let mut pair = quiet();
        let before = pair.client.live()[0].inbound.spi;
        apply(&mut pair, &Op::RekeyIke(ike));
        apply(&mut pair, &Op::RekeyChild(child));
        pair.run_with_pings(secs(20), Duration::from_millis(50));
        let said = |host: &Host| host.warnings().iter().any(|w| w.contains("TEMPORARY_FAILURE"));
        assert!(said(&pair.client) || said(&pair.broker), "{:?}", pair.client.warnings());
        assert_ne!(pair.client.live()[0].inbound.spi, before, "the Child SA was rekeyed in the end");
        settle(&mut pair);
    }
}

/// A message that comes 4 s late comes behind its own repetition, and behind what that led to.
#[test]
fn each_message_of_a_collision_late_once() {
    for (first, second) in [(Client, Broker), (Broker, Client)] {
        for ike in [false, true] {
            for victim in 1..=8 {
                let mut pair = quiet();
                let mut n = 0;
                pair.link.fate = Box::new(move |_| {
                    n += 1;
                    if n == victim { Fate::Delay(secs(4)) } else { Fate::Deliver }
                });
                let op = |side| if ike { Op::RekeyIke(side) } else { Op::RekeyChild(side) };
                apply(&mut pair, &op(first));
                apply(&mut pair, &op(second));
                settle(&mut pair);
            }
        }
    }
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Client), Just(Broker)]
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        side().prop_map(Op::RekeyChild),
        side().prop_map(Op::RekeyIke),
        any::<u8>().prop_map(|ms| Op::Wait(Duration::from_millis(ms.into()))),
        side().prop_map(Op::Ping),
        Just(Op::LoseNext),
    ]
}

proptest! {
    #[test]
    fn any_operations(ops in proptest::collection::vec(op(), 1..14)) {
        run(&ops);
    }
}
