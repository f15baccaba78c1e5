//! Fragments of IKE messages, in any order and with any numbers.

use crate::input::Input;
use ferry6_ike::wire::sk::{MAX_FRAGMENTS, MAX_REASSEMBLED, Plain, Reassembly};
use std::collections::BTreeMap;

/// Fragments that a peer with the keys may make up, against RFC 7383 section 2.6 said plainly.
///
/// Input: for each fragment its number, the total, the type of the first payload, length (in steps) and content.
pub fn ike_fragments(data: &[u8]) {
    let mut input = Input(data);
    let mut reassembly = Reassembly::default();
    let (mut total, mut first, mut kept) = (0, 0, BTreeMap::<u16, Vec<u8>>::new());
    while !input.is_empty() {
        let [number, of, kind, len, content] = input.array();
        // Mostly small, sometimes 16 KiB, so that the bound is met.
        let len = if len < 0xf0 { usize::from(len) } else { usize::from(len & 0x0f) << 11 };
        // The highest bit stands for the high octet.
        let wide = |n: u8| if n & 0x80 == 0 { u16::from(n) } else { u16::from(n) << 8 };
        let (number, of, octets) = (wide(number), wide(of), vec![content; len]);
        let got = reassembly.insert(number, of, kind, octets.clone());

        if number == 0 || number > of || of > MAX_FRAGMENTS {
            assert!(got.is_err(), "fragment {number} of {of}");
            continue;
        }
        if of > total {
            kept.clear();
            (total, first) = (of, 0);
        }
        if of < total || kept.contains_key(&number) {
            assert_eq!(got, Ok(None));
            continue;
        }
        if kept.values().map(Vec::len).sum::<usize>() + len > MAX_REASSEMBLED {
            assert!(got.is_err(), "beyond the bound");
            assert!(reassembly.is_empty());
            kept.clear();
            total = 0;
            continue;
        }
        if number == 1 {
            first = kind;
        }
        kept.insert(number, octets);
        if kept.len() < usize::from(total) {
            assert_eq!(got, Ok(None));
            assert!(!reassembly.is_empty());
            continue;
        }
        let body = std::mem::take(&mut kept).into_values().flatten().collect();
        assert_eq!(got, Ok(Some(Plain { first, body })));
        assert!(reassembly.is_empty());
        total = 0;
    }
}
