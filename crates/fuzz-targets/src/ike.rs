//! IKE messages and traffic selectors.

use crate::input::Input;
use ferry6_ike::TrafficSelector;
use ferry6_ike::selector::{AddressRange, narrow};
use ferry6_ike::wire::{Header, Payload, encode_message, encode_payloads, parse_payloads, payload_type};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A whole message in clear: header, chain, and what it becomes when encoded again.
pub fn ike_message(data: &[u8]) {
    let _ = Header::peek(data);
    let Ok(header) = Header::parse(data) else { return };
    let Ok(payloads) = parse_payloads(header.next_payload, &data[Header::LEN..]) else { return };
    let again = encode_message(&header.fields(), &payloads);
    let parsed = Header::parse(&again).expect("our own header");
    assert_eq!(parsed.fields(), header.fields());
    assert_eq!(parse_payloads(parsed.next_payload, &again[Header::LEN..]), Ok(encodable(payloads)));
}

/// One payload of any type, or a chain that begins with it.
///
/// Input: type of the first payload, then the chain.
pub fn ike_payload(data: &[u8]) {
    let Some((&first, chain)) = data.split_first() else { return };
    survives(first, chain);
    // alone, its generic header made right, so that the fuzzer need not learn lengths
    if let Ok(len) = u16::try_from(chain.len() + 4) {
        let mut alone = vec![payload_type::NONE, 0];
        alone.extend_from_slice(&len.to_be_bytes());
        alone.extend_from_slice(chain);
        survives(first, &alone);
    }
}

fn survives(first: u8, chain: &[u8]) {
    let Ok(payloads) = parse_payloads(first, chain) else { return };
    let _ = payloads.iter().map(|payload| format!("{payload:?}").len()).sum::<usize>();
    let (first, encoded) = encode_payloads(&payloads);
    assert!(encoded.len() <= chain.len(), "canonical form is never longer");
    assert_eq!(parse_payloads(first, &encoded), Ok(encodable(payloads)));
}

/// What is left of payloads after encoding: attributes that are not understood are never encoded.
pub(crate) fn encodable(mut payloads: Vec<Payload>) -> Vec<Payload> {
    for payload in &mut payloads {
        if let Payload::Sa(proposals) = payload {
            for transform in proposals.iter_mut().flat_map(|proposal| &mut proposal.transforms) {
                transform.unknown_attribute = false;
            }
        }
    }
    payloads
}

/// Narrowing and intersection against their definition: what both allow, and nothing else.
///
/// Input: number of offered selectors, the selectors, probes.
pub fn traffic_selectors(data: &[u8]) {
    let mut input = Input(data);
    let counts = input.u8();
    let mut take = |count: u8| (0..count).map(|_| selector(&mut input)).collect::<Vec<_>>();
    let (offer, policy) = (take(counts & 7), take(counts >> 3 & 7));
    for selector in offer.iter().chain(&policy) {
        let text = selector.to_string();
        assert_eq!(text.parse::<TrafficSelector>().as_ref(), Ok(selector), "{text}");
        assert_eq!(selector.intersect(selector).as_ref(), Some(selector));
        assert!(selector.contains(selector));
    }
    for (ours, theirs) in offer.iter().flat_map(|a| policy.iter().map(move |b| (a, b))) {
        assert_eq!(ours.intersect(theirs), theirs.intersect(ours));
        if let Some(both) = ours.intersect(theirs) {
            assert!(ours.contains(&both) && theirs.contains(&both));
        }
    }
    let narrowed = narrow(&offer, &policy);
    assert!(narrowed.len() <= 255);
    for selector in &narrowed {
        assert!(offer.iter().any(|ours| ours.contains(selector)));
        assert!(policy.iter().any(|theirs| theirs.contains(selector)));
    }
    // a packet passes the narrowed set exactly where it passes both
    while !input.is_empty() {
        let address = address(&mut input);
        let protocol = PROTOCOLS[usize::from(input.u8() % 4)];
        let port = Some(input.u16()).filter(|port| *port != 7);
        let passes = |set: &[TrafficSelector]| set.iter().any(|ts| ts.matches_v6(address, protocol, port));
        assert_eq!(passes(&narrowed), passes(&offer) && passes(&policy), "{address} {protocol} {port:?}");
    }
}

const PROTOCOLS: [u8; 4] = [0, 6, 17, 58];

/// Near each other, so that ranges meet.
fn address(input: &mut Input<'_>) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2a00 << 112 | u128::from(input.u16() & 0x1ff))
}

fn selector(input: &mut Input<'_>) -> TrafficSelector {
    let kind = input.u8();
    let addresses = if kind & 0x0f == 0 {
        let (a, b) = (Ipv4Addr::from(input.u32()), Ipv4Addr::from(input.u32()));
        AddressRange::V4(a.min(b), a.max(b))
    } else if kind & 0x0f == 1 {
        AddressRange::V6(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX))
    } else {
        let (a, b) = (address(input), address(input));
        AddressRange::V6(a.min(b), a.max(b))
    };
    let protocol = PROTOCOLS[usize::from(kind >> 4 & 3)];
    let (start_port, end_port) = match kind >> 6 {
        // RFC 7296 section 3.13.1: no ports without a protocol
        _ if protocol == 0 => (0, u16::MAX),
        0 | 1 => (0, u16::MAX),
        2 => (u16::MAX, 0),
        _ => {
            let (a, b) = (input.u16(), input.u16());
            (a.min(b), a.max(b))
        }
    };
    TrafficSelector { protocol, start_port, end_port, addresses }
}
