//! Hostile peers that have the keys, or all that a stranger can have: one named test for each thing that they may try.
//! `docs/security.md` lists all of them, with those that stand elsewhere.

use super::protected::{ask, decrypt, error, esp, kinds, logged, read};
use super::{CRYPTO, pair, reason, secs};
use crate::config::Connection;
use crate::counters::Counter;
use crate::event::{CloseReason, Event, Path};
use crate::selector::TrafficSelector;
use crate::testing::{BROKER, CLIENT, Fate, Pair, Side, config, first_path, psk_connections};
use crate::wire::{
    Delete, ExchangeType, Header, HeaderFields, Notify, Payload, Transform, encode_message, encode_payloads,
    notify, parse_payloads, sk,
};
use ferry6_crypto::{Cipher, Group};
use std::net::SocketAddr;
use std::time::Duration;

/// What `side` says under the keys of the first IKE SA: any payload chain, in any exchange, with any ID.
fn authentic(pair: &Pair, side: Side, header: HeaderFields, first: u8, chain: &[u8]) -> Vec<u8> {
    let log = pair.client.events.iter().find_map(|e| match e {
        Event::IkeKeys(log) => Some(log),
        _ => None,
    });
    let log = log.expect("the keys are logged");
    let keys = if side == Side::Client { &log.initiator } else { &log.responder };
    let mut key = CRYPTO.packets.sealing(keys).unwrap();
    // Far from the counters in use: an IV never comes twice.
    let mut counter = (1 << 40) + pair.sent.len() as u64;
    sk::seal(&header, first, chain, key.as_mut(), &mut counter, None).remove(0)
}

/// A request of the client on the one IKE SA that there is.
fn header(pair: &Pair, exchange: ExchangeType, message_id: u32) -> HeaderFields {
    let status = &pair.client.endpoint.ike_sas()[0];
    let (initiator_spi, responder_spi) = (status.initiator_spi, status.responder_spi);
    HeaderFields { initiator_spi, responder_spi, exchange, from_initiator: true, response: false, message_id }
}

fn deliver(pair: &mut Pair, to: Side, octets: &[u8]) {
    let (client, broker) = (SocketAddr::new(CLIENT.into(), 4500), SocketAddr::new(BROKER.into(), 4500));
    let path = match to {
        Side::Client => Path { local: client, remote: broker },
        Side::Broker => Path { local: broker, remote: client },
    };
    pair.act(to, |e, now| e.handle_datagram(now, path, octets));
}

/// A Child SA as a client asks for it.
fn child_request(spi: u32, nonce: u8) -> Vec<Payload> {
    vec![
        esp(spi, 256, true),
        Payload::Nonce(vec![nonce; 32]),
        Payload::TsInitiator(vec![TrafficSelector::ANY_V6]),
        Payload::TsResponder(vec![TrafficSelector::ANY_V6]),
    ]
}

/// The broker reads this chain as the client's next request.
fn next_request(pair: &mut Pair, exchange: ExchangeType, first: u8, chain: &[u8]) {
    let header = header(pair, exchange, 2);
    let message = authentic(pair, Side::Client, header, first, chain);
    deliver(pair, Side::Broker, &message);
}

/// Section 2.21.3: who has the keys and sends what cannot be read is told so, and has no IKE SA any more.
fn ends_as_syntax(first: u8, chain: &[u8], what: &str) {
    let mut pair = logged(|_, _| {});
    let sent = pair.sent.len();
    next_request(&mut pair, ExchangeType::CreateChildSa, first, chain);
    assert!(matches!(reason(&pair.broker), CloseReason::PeerMisbehaved(_)), "{what}");
    assert!(pair.broker.live().is_empty() && pair.broker.endpoint.children.is_empty(), "{what}");
    assert_eq!(pair.sent.len(), sent + 1, "{what}");
    assert_eq!(read(&pair).last().unwrap().2, [error(notify::INVALID_SYNTAX)], "{what}");
}

#[test]
fn truncated_behind_the_icv() {
    let (first, chain) = encode_payloads(&child_request(0x0100_0001, 7));
    for len in 0..chain.len() {
        ends_as_syntax(first, &chain[..len], &format!("{len} octets"));
    }
}

#[test]
fn nested_lengths_that_lie() {
    let (first, chain) = encode_payloads(&child_request(0x0100_0001, 7));
    assert_eq!(chain.len(), 36 + 36 + 48 + 48);
    // SA: payload, proposal, both transforms. Nonce. Each TS: payload, selector.
    for at in [2, 6, 18, 30, 38, 74, 82, 122, 130] {
        let true_length = u16::from_be_bytes([chain[at], chain[at + 1]]);
        for length in [0, 1, 3, true_length - 1, true_length + 1, true_length + 4, 0x7fff, 0xffff] {
            let mut lying = chain.clone();
            lying[at..at + 2].copy_from_slice(&length.to_be_bytes());
            ends_as_syntax(first, &lying, &format!("{length} at {at}"));
        }
    }
    // Size of the SPI, number of transforms, number of selectors.
    for at in [10, 11, 76, 124] {
        for count in [0, chain[at] - 1, chain[at] + 1, 0xff] {
            let mut lying = chain.clone();
            lying[at] = count;
            ends_as_syntax(first, &lying, &format!("{count} at {at}"));
        }
    }
}

/// Each octet of a request in turn: whatever the broker makes of it, it answers once, and holds no more than was asked for.
#[test]
fn malformed_behind_the_icv() {
    let (first, chain) = encode_payloads(&child_request(0x0100_0001, 7));
    for at in 0..chain.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut other = chain.clone();
            other[at] ^= change;
            let mut pair = logged(|_, _| {});
            let sent = pair.sent.len();
            next_request(&mut pair, ExchangeType::CreateChildSa, first, &other);
            assert_eq!(pair.sent.len(), sent + 1, "{change} at {at}");
            let closed = !pair.broker.closed().is_empty();
            let live = pair.broker.live().len();
            assert!(
                if closed { live == 0 } else { live == 1 || live == 2 },
                "{change} at {at}: {live} Child SAs"
            );
            assert_eq!(pair.broker.endpoint.children.len(), live);
        }
    }
}

/// Where a message of 64 KiB is one message.
fn unfragmented() -> Pair {
    logged(|c, b| (c.fragment_size, b.fragment_size) = (None, None))
}

#[test]
fn huge_counts() {
    let mut pair = unfragmented();
    let own = pair.client.live()[0].inbound.spi.get();
    // As many SPIs as a message holds, none of which is there.
    let strangers: Vec<u32> = (0x0300_0000..0x0300_3f00).collect();
    let delete = Payload::Delete(Delete { protocol: 3, spis: strangers });
    assert!(ask(&mut pair, Side::Client, ExchangeType::Informational, &[delete]).is_empty());
    assert_eq!(pair.broker.live().len(), 1);
    // One that is there, as often.
    let delete = Payload::Delete(Delete { protocol: 3, spis: vec![own; 16_000] });
    let answer = ask(&mut pair, Side::Client, ExchangeType::Informational, &[delete]);
    let [Payload::Delete(deleted)] = &answer[..] else { panic!("{answer:?}") };
    assert_eq!(deleted.spis.len(), 1);
    assert!(pair.broker.live().is_empty());
    // More payloads than anybody has, and selectors that fill the message.
    let (first, chain) = encode_payloads(&vec![Payload::Notify(Notify::new(40_000, Vec::new())); 257]);
    ends_as_syntax(first, &chain, "257 payloads");
    let mut pair = unfragmented();
    let mut request = child_request(0x0100_0001, 7);
    request[2] = Payload::TsInitiator(vec![TrafficSelector::ANY_V6; 255]);
    request[3] = Payload::TsResponder(vec![TrafficSelector::ANY_V6; 255]);
    let answer = ask(&mut pair, Side::Client, ExchangeType::CreateChildSa, &request);
    assert_eq!(kinds(&answer), ["Sa", "Nonce", "TsInitiator", "TsResponder"]);
    let Payload::TsInitiator(narrowed) = &answer[2] else { panic!("{answer:?}") };
    assert_eq!(narrowed.len(), 1, "the same selector once");
}

/// While a request of ours waits for its answer, SPIs that the peer says it deletes are remembered: no more than an IKE SA may have.
#[test]
fn deletes_of_strangers_while_we_wait() {
    let mut pair = logged(|_, _| {});
    pair.link.fate = Box::new(|_| Fate::Drop);
    let reqid = pair.client.live()[0].reqid;
    pair.act(Side::Client, |e, now| e.rekey_child(now, reqid).unwrap());
    let (first, chain) = encode_payloads(&[Payload::Delete(Delete {
        protocol: 3,
        spis: (0x0300_0000..0x0300_3000).collect(),
    })]);
    let header = HeaderFields { from_initiator: false, ..header(&pair, ExchangeType::Informational, 0) };
    let message = authentic(&pair, Side::Broker, header, first, &chain);
    deliver(&mut pair, Side::Client, &message);
    assert_eq!(pair.client.live().len(), 1);
    pair.link.fate = Box::new(|_| Fate::Deliver);
    pair.run(secs(100));
    pair.check_mirror().unwrap();
    assert_eq!(pair.client.live().len(), 1, "and the rekey goes on");
}

/// The first message of a client, which its broker has not seen.
fn first_message(pair: &mut Pair) -> Vec<u8> {
    pair.link.fate = Box::new(|_| Fate::Drop);
    pair.initiate();
    let request = pair.sent[0].1.to_vec();
    pair.link.fate = Box::new(|_| Fate::Deliver);
    request
}

/// `message` with other payloads.
fn rewritten(message: &[u8], change: impl FnOnce(&mut Vec<Payload>)) -> Vec<u8> {
    let header = Header::parse(message).unwrap();
    let mut payloads = parse_payloads(header.next_payload, &message[Header::LEN..]).unwrap();
    change(&mut payloads);
    encode_message(&header.fields(), &payloads)
}

fn first_to_broker(pair: &mut Pair, octets: &[u8]) {
    let path = Path { local: first_path().remote, remote: first_path().local };
    pair.act(Side::Broker, |e, now| e.handle_datagram(now, path, octets));
}

#[test]
fn oversized() {
    // A first message is kept until IKE_AUTH.
    let mut pair = pair(|_, _| {});
    let request = first_message(&mut pair);
    let stuffed =
        |len: usize| rewritten(&request, |p| p.push(Payload::VendorId(vec![0x55; len - request.len() - 4])));
    for len in [4097, 65_000] {
        first_to_broker(&mut pair, &stuffed(len));
        assert_eq!(
            (pair.broker.endpoint.half_open(), pair.broker.endpoint.counters().get(Counter::InitTooLong) > 0),
            (0, true)
        );
    }
    first_to_broker(&mut pair, &stuffed(4096));
    assert_eq!(pair.broker.endpoint.half_open(), 1);
    // A nonce of 257 octets.
    let long = rewritten(&request, |p| {
        for payload in p {
            if let Payload::Nonce(nonce) = payload {
                *nonce = vec![7; 257];
            }
        }
    });
    first_to_broker(&mut pair, &long);
    assert_eq!(pair.broker.endpoint.half_open(), 1);
    // An authentic message of 64 KiB, for nothing.
    let mut pair = unfragmented();
    let vendor = Payload::VendorId(vec![0x55; 65_000]);
    assert!(ask(&mut pair, Side::Client, ExchangeType::Informational, &[vendor]).is_empty());
    pair.check_mirror().unwrap();
}

/// The keys of IKE_SA_INIT make nobody somebody: nothing but IKE_AUTH is answered, and nothing is installed.
#[test]
fn wrong_state() {
    for exchange in [ExchangeType::CreateChildSa, ExchangeType::Informational, ExchangeType::IkeSaInit] {
        for payloads in [
            child_request(0x0100_0001, 7),
            vec![Payload::Delete(Delete { protocol: 1, spis: vec![] })],
            vec![],
        ] {
            let (mut client, broker) = psk_connections();
            client.dpd = Duration::ZERO;
            let mut client = config([client]);
            client.keylog = true;
            let mut pair = Pair::with_config(*CRYPTO, client, config([broker]));
            pair.initiate();
            // The answer to IKE_SA_INIT comes after 20 ms, IKE_AUTH never.
            pair.run(Duration::from_millis(15));
            pair.link.fate = Box::new(|_| Fate::Drop);
            pair.run(Duration::from_millis(15));
            assert_eq!(pair.broker.endpoint.half_open(), 1);
            let sent = pair.sent.len();
            let (first, chain) = encode_payloads(&payloads);
            for message_id in [0, 1, 2] {
                let message =
                    authentic(&pair, Side::Client, header(&pair, exchange, message_id), first, &chain);
                deliver(&mut pair, Side::Broker, &message);
            }
            assert!(pair.broker.established().is_empty() && pair.broker.live().is_empty(), "{exchange:?}");
            for (side, message) in &pair.sent[sent..] {
                assert_eq!(*side, Side::Broker);
                assert!(message.len() < 100, "no more than an error: {message:02x?}");
                let answer = decrypt(&pair, message).unwrap_or_default();
                assert!(answer.iter().all(|p| matches!(p, Payload::Notify(_))), "{answer:?}");
            }
            pair.run(secs(60));
            assert_eq!(pair.broker.endpoint.half_open(), 0);
        }
    }
}

/// Somebody on the path takes the better part out of the first message. What was agreed then is not what the client signed
/// (section 2.15).
#[test]
fn downgraded() {
    let changes: [fn(&mut Vec<Payload>); 4] = [
        // AES-256 out of the offer: what is left is AES-128.
        |payloads| {
            for payload in payloads {
                if let Payload::Sa(proposals) = payload {
                    proposals[0].transforms.retain(|t| t.key_length != Some(256));
                }
            }
        },
        // The hashes for signatures, fragments.
        |payloads| payloads.retain(|p| !matches!(p, Payload::Notify(n) if n.notify_type == 16431)),
        |payloads| payloads.retain(|p| !matches!(p, Payload::Notify(n) if n.notify_type == 16430)),
        |payloads| payloads.push(Payload::Notify(Notify::new(40_000, Vec::new()))),
    ];
    for change in changes {
        let mut pair = pair(|c, b| {
            for connection in [c, b] {
                connection.ike[0].ciphers = vec![Cipher::Aes256Gcm16, Cipher::Aes128Gcm16];
            }
        });
        let request = first_message(&mut pair);
        let other = rewritten(&request, change);
        assert_ne!(request, other);
        first_to_broker(&mut pair, &other);
        pair.run(secs(100));
        assert!(pair.client.established().is_empty() && pair.broker.established().is_empty());
        assert!(pair.client.live().is_empty() && pair.broker.live().is_empty());
        assert!(matches!(reason(&pair.client), CloseReason::PeerRefused(_)), "{:?}", reason(&pair.client));
    }
}

#[test]
fn wrong_spis() {
    let mut pair = logged(|_, _| {});
    let right = header(&pair, ExchangeType::Informational, 2);
    let (i, r) = (right.initiator_spi, right.responder_spi);
    let sent = pair.sent.len();
    let unknown = |pair: &Pair| pair.broker.endpoint.counters().get(Counter::UnknownSpi);
    let before = unknown(&pair);
    for (n, (initiator_spi, responder_spi)) in
        [(i, r ^ 1), (i, 0), (r, i), (i ^ 1, r), (!i, r)].into_iter().enumerate()
    {
        let header = HeaderFields { initiator_spi, responder_spi, ..right };
        // DELETE for the IKE SA, authentic but for its SPIs.
        let (first, chain) = encode_payloads(&[Payload::Delete(Delete { protocol: 1, spis: vec![] })]);
        let message = authentic(&pair, Side::Client, header, first, &chain);
        deliver(&mut pair, Side::Broker, &message);
        assert_eq!(unknown(&pair) - before, (n as u64 + 1).min(3));
    }
    assert_eq!(pair.sent.len(), sent);
    pair.check_mirror().unwrap();
    assert_eq!(pair.broker.live().len(), 1);
}

/// A message comes back to who sent it, as it is and in the other's role.
#[test]
fn reflected() {
    let mut pair = logged(|_, _| {});
    let before = format!("{:?} {:?}", pair.client.endpoint.ike_sas(), pair.broker.endpoint.ike_sas());
    let all = pair.sent.clone();
    for (side, message) in &all {
        for flags in [0x00, 0x08, 0x20, 0x28] {
            let mut octets = message.to_vec();
            octets[19] = flags;
            deliver(&mut pair, *side, &octets);
        }
    }
    assert_eq!(pair.sent.len(), all.len(), "nothing is answered");
    pair.run(secs(1));
    assert_eq!(format!("{:?} {:?}", pair.client.endpoint.ike_sas(), pair.broker.endpoint.ike_sas()), before);
    // A client that waits for the broker takes its own message for no answer.
    let mut pair = super::pair(|_, _| {});
    let request = first_message(&mut pair);
    for flags in [0x08, 0x28, 0x00] {
        let mut octets = request.clone();
        octets[19] = flags;
        pair.act(Side::Client, |e, now| e.handle_datagram(now, first_path(), &octets));
        assert!(pair.client.closed().is_empty(), "{flags} {:?}", pair.client.closed());
    }
    assert!(pair.client.closed().is_empty() && pair.client.established().is_empty());
    pair.run(secs(20));
    assert_eq!(pair.client.established().len(), 1, "and goes on");
    pair.check_mirror().unwrap();
}

/// Keys depend on both nonces, and ours is new each time (section 2.10): the peer's may be what it wants, even one of ours.
#[test]
fn reused_nonces() {
    let mut pair = logged(|_, _| {});
    let mut nonce = vec![7; 32];
    for n in 0..8_u32 {
        let mut request = child_request(0x0100_0001 + n, 7);
        request[1] = Payload::Nonce(nonce.clone());
        let answer = ask(&mut pair, Side::Client, ExchangeType::CreateChildSa, &request);
        assert_eq!(kinds(&answer), ["Sa", "Nonce", "TsInitiator", "TsResponder"]);
        let Payload::Nonce(ours) = &answer[1] else { panic!("{answer:?}") };
        assert_ne!(*ours, nonce);
        if n >= 4 {
            nonce.clone_from(ours);
        }
    }
    let live = pair.broker.live();
    assert_eq!(live.len(), 9);
    let keys: Vec<_> = live.iter().flat_map(|sa| [&sa.inbound.keys, &sa.outbound.keys]).collect();
    for (n, key) in keys.iter().enumerate() {
        assert!(!keys[..n].contains(key), "keys came twice");
    }
}

/// RFC 3526 section 3.
const MODP_2048: &str = "
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F
    83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510
    15728E5A8AACAA68FFFFFFFFFFFFFFFF";

/// Public values that would make the secret one of a few known ones, or that are not in the group.
fn bad_values(group: Group) -> Vec<Vec<u8>> {
    let number = |low: u8| [vec![0; group.public_len() - 1], vec![low]].concat();
    let of = |text: &str| hex::decode(text.split_whitespace().collect::<String>()).unwrap();
    match group {
        Group::Modp2048 => {
            let p = of(MODP_2048);
            let p_less_one = [&p[..255], &[0xfe]].concat();
            vec![number(0), number(1), p_less_one, p, vec![0xff; 256]]
        }
        Group::X25519 => [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ]
        .map(of)
        .into(),
        _ => vec![number(0), number(1), vec![1; group.public_len()], vec![0xff; group.public_len()]],
    }
}

const GROUPS: [Group; 4] = [Group::Modp2048, Group::Ecp256, Group::Ecp384, Group::X25519];

fn with_public(message: &[u8], public: &[u8]) -> Vec<u8> {
    rewritten(message, |payloads| {
        for payload in payloads {
            if let Payload::KeyExchange { data, .. } = payload {
                *data = public.to_vec();
            }
        }
    })
}

/// RFC 6989, RFC 8031 section 5, in IKE_SA_INIT, by who asks and by who answers.
#[test]
fn zero_public_values_and_small_order_points() {
    for group in GROUPS {
        for public in bad_values(group) {
            let only = |connection: &mut Connection| connection.ike[0].groups = vec![group];
            let mut asked = pair(|c, b| [c, b].into_iter().for_each(only));
            let request = first_message(&mut asked);
            first_to_broker(&mut asked, &with_public(&request, &public));
            assert_eq!(asked.broker.endpoint.half_open(), 0, "{group:?} {public:02x?}");
            assert_eq!(asked.broker.endpoint.counters().get(Counter::KeyExchange), 1);

            let mut asker = pair(|c, b| [c, b].into_iter().for_each(only));
            asker.initiate();
            asker.run(Duration::from_millis(12));
            asker.link.fate = Box::new(|_| Fate::Drop);
            let answer = asker.sent.iter().find(|(side, _)| *side == Side::Broker).unwrap().1.clone();
            let sent = asker.sent.len();
            let forged = with_public(&answer, &public);
            asker.act(Side::Client, |e, now| e.handle_datagram(now, first_path(), &forged));
            assert!(asker.client.established().is_empty());
            let protected = asker.sent[sent..].iter().any(|(_, m)| m[18] != 34);
            assert!(!protected, "no message under keys that all know: {group:?} {public:02x?}");
        }
    }
}

/// The same in a CREATE_CHILD_SA with PFS: no Child SA, and life goes on.
#[test]
fn small_order_points_in_a_rekey() {
    for group in GROUPS {
        for public in bad_values(group) {
            let mut pair = logged(|c, b| (c.esp[0].groups, b.esp[0].groups) = (vec![group], vec![group]));
            let mut request = child_request(0x0100_0001, 7);
            if let Payload::Sa(proposals) = &mut request[0] {
                proposals[0].transforms.push(Transform::new(4, group.transform_id()));
            }
            request.insert(2, Payload::KeyExchange { group: group.transform_id(), data: public.clone() });
            let answer = ask(&mut pair, Side::Client, ExchangeType::CreateChildSa, &request);
            assert_eq!(answer, [error(notify::INVALID_SYNTAX)], "{group:?} {public:02x?}");
            pair.check_mirror().unwrap();
            assert_eq!(pair.broker.live().len(), 1);
        }
    }
}
