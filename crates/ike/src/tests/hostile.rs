//! What an attacker, or a broken peer, may send.

use super::{established, pair, reason, secs};
use crate::event::{CloseReason, Event, Path};
use crate::testing::{BROKER, CLIENT, Pair, Side, first_path};
use crate::wire::message::{HeaderFields, encode_message, parse_payloads};
use crate::wire::{ExchangeType, Header, Notify, Payload};
use proptest::prelude::*;
use std::net::SocketAddr;

fn to(side: Side) -> Path {
    let (client, broker) = (SocketAddr::new(CLIENT.into(), 4500), SocketAddr::new(BROKER.into(), 4500));
    match side {
        Side::Client => Path { local: client, remote: broker },
        Side::Broker => Path { local: broker, remote: client },
    }
}

fn inject(pair: &mut Pair, side: Side, octets: &[u8]) {
    let mut path = to(side);
    if octets.get(18) == Some(&34) {
        path.local.set_port(500);
        path.remote.set_port(500);
    }
    pair.act(side, |e, now| e.handle_datagram(now, path, octets));
}

/// The state that must not change by what does not authenticate.
fn snapshot(pair: &Pair) -> String {
    format!("{:?} {:?}", pair.client.endpoint.ike_sas(), pair.broker.endpoint.ike_sas())
}

#[test]
fn what_does_not_authenticate_changes_nothing() {
    let mut pair = established(|_, _| {});
    let before = snapshot(&pair);
    let sent = pair.sent.len();
    for (side, octets) in pair.sent.clone() {
        for at in 0..octets.len() {
            let mut forged = octets.to_vec();
            forged[at] ^= 0x40;
            // IKE_SA_INIT is not protected, and another major version is answered by rule.
            if forged[18] == 34 || at == 17 {
                continue;
            }
            inject(&mut pair, side.other(), &forged);
            inject(&mut pair, side, &forged);
        }
    }
    assert_eq!(snapshot(&pair), before);
    assert_eq!(pair.sent.len(), sent, "and is not answered");
    assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
}

#[test]
fn replays_change_nothing() {
    let mut pair = established(|_, _| {});
    let reqid = pair.client.live()[0].reqid;
    pair.act(Side::Client, |e, now| e.rekey_child(now, reqid)).unwrap();
    pair.run(secs(10));
    let before = snapshot(&pair);
    let all = pair.sent.clone();
    for (side, octets) in &all {
        inject(&mut pair, side.other(), octets);
        // And reflected to its sender.
        inject(&mut pair, *side, octets);
    }
    pair.run(secs(1));
    pair.check_mirror().unwrap();
    assert_eq!(snapshot(&pair), before);
    assert!(pair.sent.len() <= all.len() + 2, "only the last request of each is answered again");
    assert_eq!(pair.broker.endpoint.half_open(), 0);
}

#[test]
fn unprotected_errors_do_not_end_an_established_ike_sa() {
    let mut pair = established(|_, _| {});
    let status = pair.client.endpoint.ike_sas()[0].clone();
    for exchange in [
        ExchangeType::Informational,
        ExchangeType::CreateChildSa,
        ExchangeType::IkeAuth,
        ExchangeType::IkeSaInit,
    ] {
        for (side, from_initiator) in [(Side::Client, false), (Side::Broker, true)] {
            for response in [false, true] {
                for message_id in 0..4 {
                    let header = HeaderFields {
                        initiator_spi: status.initiator_spi,
                        responder_spi: status.responder_spi,
                        exchange,
                        from_initiator,
                        response,
                        message_id,
                    };
                    for notify_type in [4, 5, 7, 14, 24, 16384] {
                        let notify = Payload::Notify(Notify::new(notify_type, Vec::new()));
                        inject(&mut pair, side, &encode_message(&header, &[notify]));
                    }
                }
            }
        }
    }
    pair.run(secs(1));
    assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
    pair.check_mirror().unwrap();
}

fn answer(request: &[u8], payloads: &[Payload]) -> Vec<u8> {
    let header = Header::parse(request).unwrap().fields();
    encode_message(&HeaderFields { from_initiator: false, response: true, ..header }, payloads)
}

/// A client whose first message stays unanswered.
fn waiting() -> (Pair, Vec<u8>) {
    let mut pair = pair(|_, _| {});
    pair.link.fate = Box::new(|_| crate::testing::Fate::Drop);
    pair.initiate();
    let request = pair.sent[0].1.to_vec();
    (pair, request)
}

#[test]
fn a_group_that_was_not_offered_is_not_followed() {
    for group in [1_u16, 2, 14, 0, 65535] {
        let (mut pair, request) = waiting();
        let notify = Payload::Notify(Notify::new(17, group.to_be_bytes()));
        let message = answer(&request, &[notify]);
        pair.act(Side::Client, |e, now| e.handle_datagram(now, first_path(), &message));
        assert!(matches!(reason(&pair.client), CloseReason::PeerMisbehaved(_)));
    }
}

#[test]
fn endless_cookies_and_groups_end() {
    let (mut pair, request) = waiting();
    for n in 0..20_u8 {
        let message = answer(&request, &[Payload::Notify(Notify::new(16390, vec![n; 16]))]);
        pair.act(Side::Client, |e, now| e.handle_datagram(now, first_path(), &message));
    }
    assert!(matches!(reason(&pair.client), CloseReason::PeerMisbehaved(_)));
    assert!(pair.sent.len() <= 5);
    let (mut pair, request) = waiting();
    for n in 0..20_u16 {
        let group: u16 = if n % 2 == 0 { 19 } else { 31 };
        let message = answer(&request, &[Payload::Notify(Notify::new(17, group.to_be_bytes()))]);
        pair.act(Side::Client, |e, now| e.handle_datagram(now, first_path(), &message));
    }
    assert!(matches!(reason(&pair.client), CloseReason::PeerMisbehaved(_)));
}

#[test]
fn a_critical_payload_that_is_not_known() {
    let mut pair = pair(|_, _| {});
    let header = HeaderFields {
        initiator_spi: 0x0102_0304_0506_0708,
        responder_spi: 0,
        exchange: ExchangeType::IkeSaInit,
        from_initiator: true,
        response: false,
        message_id: 0,
    };
    for critical in [true, false] {
        let unknown = Payload::Unknown { payload_type: 200, critical, data: vec![1, 2, 3] };
        let message = encode_message(&header, &[unknown]);
        let now = pair.now;
        pair.broker.endpoint.handle_datagram(now, to(Side::Broker), &message);
        match (critical, pair.broker.endpoint.poll()) {
            (true, Some(Event::Transmit(t))) => {
                let header = Header::parse(&t.payload).unwrap();
                let payloads = parse_payloads(header.next_payload, &t.payload[Header::LEN..]).unwrap();
                assert_eq!(payloads, [Payload::Notify(Notify::new(1, vec![200]))]);
            }
            (false, None) => {}
            (_, other) => panic!("{critical} {other:?}"),
        }
    }
}

#[test]
fn another_major_version() {
    let (mut pair, mut request) = waiting();
    request[17] = 0x30;
    let now = pair.now;
    pair.broker.endpoint.handle_datagram(now, to(Side::Broker), &request);
    let Some(Event::Transmit(t)) = pair.broker.endpoint.poll() else { panic!() };
    let header = Header::parse(&t.payload).unwrap();
    assert!(header.response && t.payload.len() < request.len());
    // IKEv1 and answers are dropped.
    for (version, flags) in [(0x10, 0x08), (0x30, 0x20)] {
        (request[17], request[19]) = (version, flags);
        pair.broker.endpoint.handle_datagram(now, to(Side::Broker), &request);
        assert!(pair.broker.endpoint.poll().is_none());
    }
}

#[test]
fn bad_public_values_make_no_state() {
    let one = [&[1][..], &[0; 31]].concat();
    for (group, public) in [
        (31_u16, vec![0; 32]),
        (31, one),
        (31, vec![9; 31]),
        (19, vec![0; 64]),
        (19, vec![1; 64]),
        (19, vec![0xff; 64]),
        (19, vec![]),
    ] {
        let (mut pair, request) = waiting();
        let header = Header::parse(&request).unwrap();
        let mut payloads = parse_payloads(header.next_payload, &request[Header::LEN..]).unwrap();
        for p in &mut payloads {
            if let Payload::KeyExchange { group: g, data } = p {
                (*g, *data) = (group, public.clone());
            }
        }
        inject(&mut pair, Side::Broker, &encode_message(&header.fields(), &payloads));
        assert_eq!(pair.broker.endpoint.half_open(), 0, "{group} {public:?}");
        assert!(pair.broker.warnings().iter().any(|w| w.contains("KE payload")));
    }
}

#[test]
fn request_before_its_time() {
    // CREATE_CHILD_SA and INFORMATIONAL before IKE_AUTH: a peer with the keys of IKE_SA_INIT is not yet anybody.
    let mut pair = pair(|_, _| {});
    pair.initiate();
    pair.run(std::time::Duration::from_millis(15));
    assert_eq!(pair.broker.endpoint.half_open(), 1);
    let status = pair.broker.endpoint.ike_sas()[0].clone();
    assert_eq!(status.state, "connecting");
    let header = HeaderFields {
        initiator_spi: status.initiator_spi,
        responder_spi: status.responder_spi,
        exchange: ExchangeType::Informational,
        from_initiator: true,
        response: false,
        message_id: 1,
    };
    inject(&mut pair, Side::Broker, &encode_message(&header, &[]));
    assert_eq!(pair.broker.endpoint.half_open(), 1, "nothing that is not encrypted");
    pair.run(secs(1));
    pair.check_mirror().unwrap();
    assert_eq!(pair.client.live().len(), 1);
}

proptest! {
    #[test]
    fn garbage(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut pair = pair(|_, _| {});
        pair.initiate();
        inject(&mut pair, Side::Client, &octets);
        inject(&mut pair, Side::Broker, &octets);
        pair.run(secs(1));
        prop_assert_eq!(pair.client.live().len(), 1);
    }

    #[test]
    fn damaged_first_messages(at in 0_usize..600, bits in 1_u8.., cut in 0_usize..600) {
        let (mut pair, mut request) = waiting();
        let len = request.len();
        request[at % len] ^= bits;
        inject(&mut pair, Side::Broker, &request);
        let cut = cut % len;
        request.truncate(cut);
        if cut >= 28 {
            request[24..28].copy_from_slice(&u32::try_from(cut).unwrap().to_be_bytes());
        }
        inject(&mut pair, Side::Broker, &request);
        pair.run(secs(40));
        prop_assert_eq!(pair.broker.endpoint.half_open(), 0);
    }

    #[test]
    fn damaged_answers(at in 0_usize..600, bits in 1_u8..) {
        // Whatever an attacker makes of the answer to IKE_SA_INIT, no tunnel comes of it that both do not share.
        let mut pair = pair(|_, _| {});
        pair.initiate();
        pair.run(std::time::Duration::from_millis(12));
        let mut answer = pair.sent.iter().find(|(s, _)| *s == Side::Broker).unwrap().1.to_vec();
        let len = answer.len();
        answer[at % len] ^= bits;
        pair.act(Side::Client, |e, now| e.handle_datagram(now, first_path(), &answer));
        pair.run(secs(100));
        if pair.client.live().len() == 1 {
            pair.check_mirror().unwrap();
        }
    }
}
