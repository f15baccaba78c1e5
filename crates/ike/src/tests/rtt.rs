//! How long the peer takes to answer.

use super::{established, secs};
use crate::event::Event;
use crate::rtt::Rtt;
use crate::testing::{Fate, Pair, Side};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

fn rtt(pair: &Pair) -> Option<Rtt> {
    pair.client.endpoint.ike_sas()[0].rtt
}

fn probe(pair: &mut Pair) {
    let ike = pair.client.established()[0].ike;
    pair.act(Side::Client, |e, now| e.probe(now, ike)).unwrap();
}

#[test]
fn an_exchange_is_measured_and_costs_one() {
    let mut pair = established(|_, _| {});
    pair.link.delay = Duration::from_millis(40);
    assert_eq!(rtt(&pair), None);
    pair.sent.clear();
    // The second finds the first on its way.
    probe(&mut pair);
    probe(&mut pair);
    pair.run(secs(1));
    assert_eq!(pair.sent.len(), 2);
    let measured = rtt(&pair).unwrap();
    assert_eq!((measured.last, measured.smoothed), (Duration::from_millis(80), Duration::from_millis(80)));
    // A rekey is an exchange as well, and keeps what was measured.
    pair.link.delay = Duration::from_millis(80);
    let ike = pair.client.established()[0].ike;
    pair.act(Side::Client, |e, now| e.rekey_ike(now, ike)).unwrap();
    pair.run(secs(1));
    let measured = rtt(&pair).unwrap();
    assert_eq!(measured.last, Duration::from_millis(160));
    assert!(measured.smoothed > Duration::from_millis(80) && measured.smoothed < Duration::from_millis(160));
}

/// Nobody can tell which of several sends was answered (RFC 6298 section 3).
#[test]
fn a_repeated_request_is_not_measured() {
    let mut pair = established(|_, _| {});
    let lose = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&lose);
    pair.link.fate = Box::new(move |_| if flag.swap(false, Relaxed) { Fate::Drop } else { Fate::Deliver });
    probe(&mut pair);
    pair.run(secs(30));
    assert!(!lose.load(Relaxed));
    assert_eq!(rtt(&pair), None);
    probe(&mut pair);
    pair.run(secs(1));
    assert!(rtt(&pair).is_some());
}

#[test]
fn a_probe_that_nobody_answers_is_the_end() {
    let mut pair = established(|_, _| {});
    pair.link.fate = Box::new(|_| Fate::Drop);
    probe(&mut pair);
    pair.run(secs(1000));
    assert!(pair.client.events.iter().any(|event| matches!(event, Event::Closed(_))));
    let ike = pair.client.established()[0].ike;
    assert!(pair.act(Side::Client, |e, now| e.probe(now, ike)).is_err());
}
