//! Loss, repetition and reordering, drawn at random.

use super::collisions::{apply, op};
use super::{CRYPTO, secs};
use crate::testing::operations::Operation as Op;
use crate::testing::{Fate, Pair, SeededRandom, psk_connections};
use proptest::prelude::*;
use std::time::Duration;

/// A third is lost, repeated or late.
fn lossy(seed: u64) -> impl FnMut(&bytes::Bytes) -> Fate + Send {
    let mut random = SeededRandom(seed);
    move |_| match random.next_u64() % 12 {
        0 => Fate::Drop,
        1 | 2 => Fate::Duplicate,
        3 => Fate::Delay(Duration::from_millis(random.next_u64() % 5000)),
        _ => Fate::Deliver,
    }
}

proptest! {
    #[test]
    fn a_handshake_comes_through(seed: u64, cookies: bool, small: bool) {
        let (mut client, broker) = psk_connections();
        client.fragment_size = Some(if small { 200 } else { 1200 });
        let mut broker = crate::testing::config([crate::config::Connection { fragment_size: client.fragment_size, ..broker }]);
        broker.half_open.cookie_from = if cookies { 0 } else { 64 };
        let mut pair = Pair::with_config(*CRYPTO, crate::testing::config([client]), broker);
        pair.link.fate = Box::new(lossy(seed));
        pair.initiate();
        pair.run(secs(60));
        prop_assert_eq!(pair.client.established().len(), 1);
        prop_assert_eq!(pair.broker.established().len(), 1);
        pair.check_mirror().unwrap();
        prop_assert_eq!(pair.client.live().len(), 1);
    }

    #[test]
    fn a_life_on_a_bad_line(seed: u64, ops in proptest::collection::vec(op(), 1..12)) {
        let (client, broker) = psk_connections();
        let (mut client, mut broker) = (crate::testing::config([client]), crate::testing::config([broker]));
        // Seven in a row are lost once in some hundred thousand exchanges, and then the peer is rightly given up.
        (client.retransmit.tries, broker.retransmit.tries) = (20, 20);
        let mut pair = Pair::with_config(*CRYPTO, client, broker);
        pair.initiate();
        pair.run(secs(1));
        for op in ops {
            // The line is bad by itself.
            if !matches!(op, Op::LoseNext) {
                pair.link.fate = Box::new(lossy(seed));
                apply(&mut pair, &op);
            }
        }
        pair.run(secs(120));
        pair.link.fate = Box::new(|_| Fate::Deliver);
        pair.run_with_pings(secs(300), secs(1));
        pair.run(secs(5));
        pair.check_mirror().unwrap();
        let ends = format!("client {:?}, broker {:?}", pair.client.closed(), pair.broker.closed());
        prop_assert_eq!(pair.client.live().len(), 1, "closed: {}", ends);
        prop_assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty(), "closed: {}", ends);
        prop_assert_eq!(&pair.client.lost_pings, &Vec::<String>::new());
        prop_assert_eq!(&pair.broker.lost_pings, &Vec::<String>::new());
    }
}
