//! Paths that lose what is larger than they take: fragments get smaller, probes find the size.

use super::{CRYPTO, established, secs};
use crate::event::{Event, IkeSaId};
use crate::testing::{Fate, Pair, Side, psk_connections};
use crate::window::SMALL_FRAGMENT;
use proptest::prelude::*;

/// Loses what is longer.
fn narrow(pair: &mut Pair, most: usize) {
    pair.link.fate = Box::new(move |message| if message.len() > most { Fate::Drop } else { Fate::Deliver });
}

fn sizes(pair: &Pair) -> Vec<Option<usize>> {
    let told = pair.client.events.iter().filter_map(|event| match event {
        Event::PathSize { taken, .. } => Some(*taken),
        _ => None,
    });
    told.collect()
}

fn probe(pair: &mut Pair, ike: IkeSaId, len: usize) {
    pair.act(Side::Client, |e, now| e.probe_path_size(now, ike, len)).unwrap();
}

/// With certificates both messages of IKE_AUTH are larger than a path of 576 octets. RFC 7383 section 2.5.1.
#[test]
fn a_path_of_576_octets_without_ip_fragments() {
    let (client, broker) = super::pki::connections(CRYPTO, &super::pki::ca("root"));
    let mut pair = Pair::new(*CRYPTO, client, broker);
    narrow(&mut pair, SMALL_FRAGMENT);
    pair.initiate();
    pair.run(secs(60));
    assert_eq!((pair.client.established().len(), pair.broker.established().len()), (1, 1));
    // What was learnt holds: a rekey with a KE payload needs one send.
    pair.sent.clear();
    let ike = pair.client.established()[0].ike;
    pair.act(Side::Client, |e, now| e.rekey_ike(now, ike)).unwrap();
    pair.run(secs(1));
    assert!(pair.sent.iter().all(|(_, sent)| sent.len() <= SMALL_FRAGMENT));
    pair.check_mirror().unwrap();
}

#[test]
fn a_probe_is_answered_where_it_fits() {
    let mut pair = established(|_, _| {});
    let ike = pair.client.established()[0].ike;
    narrow(&mut pair, 1300);
    probe(&mut pair, ike, 1300);
    pair.run(secs(1));
    assert_eq!(sizes(&pair), [Some(1300)]);
    // One that does not is told so, and then out of the way.
    probe(&mut pair, ike, 1301);
    pair.run(secs(5));
    assert_eq!(sizes(&pair), [Some(1300), None]);
    let reqid = pair.client.live()[0].reqid;
    pair.act(Side::Client, |e, now| e.rekey_child(now, reqid)).unwrap();
    pair.run(secs(1));
    pair.check_mirror().unwrap();
    assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
    assert_eq!(pair.client.live().len(), 1);
}

/// The peer got the probe, and its answers are lost for a while: neither end is confused.
#[test]
fn a_probe_whose_answers_are_lost() {
    let mut pair = established(|client, _| client.fragment_size = None);
    let ike = pair.client.established()[0].ike;
    let mut answers = 0;
    let broker = pair.broker.endpoint.ike_sas()[0].responder_spi;
    pair.link.fate = Box::new(move |message| {
        let header = crate::wire::Header::parse(message).unwrap();
        assert_eq!(header.responder_spi, broker);
        answers += u32::from(header.response);
        if header.response && answers < 5 { Fate::Drop } else { Fate::Deliver }
    });
    probe(&mut pair, ike, 1400);
    pair.run(secs(30));
    assert_eq!(sizes(&pair), [None]);
    let reqid = pair.client.live()[0].reqid;
    pair.act(Side::Client, |e, now| e.rekey_child(now, reqid)).unwrap();
    pair.run(secs(1));
    pair.check_mirror().unwrap();
    assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
}

proptest! {
    /// Whatever the path takes, from 576 octets on: a probe says what is true, and the IKE SA outlives it.
    #[test]
    fn probes_tell_the_truth(most in SMALL_FRAGMENT..1500, lens in proptest::collection::vec(600_usize..1500, 1..5)) {
        let (client, broker) = psk_connections();
        let mut pair = Pair::new(*CRYPTO, client, broker);
        pair.initiate();
        pair.run(secs(5));
        narrow(&mut pair, most);
        let ike = pair.client.established()[0].ike;
        for len in &lens {
            probe(&mut pair, ike, *len);
            pair.run(secs(10));
        }
        let expected: Vec<_> = lens.iter().map(|len| Some(*len).filter(|len| *len <= most)).collect();
        prop_assert_eq!(sizes(&pair), expected);
        prop_assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
        pair.check_mirror().unwrap();
    }
}
