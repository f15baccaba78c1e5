//! IKE behind the cryptography: the Encrypted payload, and two endpoints that talk to each other.

use crate::ike::encodable;
use crate::input::Input;
use bytes::Bytes;
use ferry6_crypto::{CipherSuite, PacketKeys, fuzzing};
use ferry6_ike::config::PerResource;
use ferry6_ike::testing::operations::Operation;
use ferry6_ike::testing::{Fate, Pair, Side, psk_connections};
use ferry6_ike::wire::sk::{self, Reassembly, SkMessage};
use ferry6_ike::wire::{ExchangeType, HeaderFields, encode_payloads, parse_payloads};
use ferry6_tun_router::testing::keys;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The keys of the Encrypted payloads; the cipher looks at their length only.
pub fn ike_keys(suite: CipherSuite) -> PacketKeys {
    keys(suite, 1, 2)
}

/// The Encrypted payload with a cipher that takes any ICV, the chain in it, and fragments in any order.
///
/// Input: suite, fragment size, type of the first payload, order of the fragments, then octets.
pub fn ike_encrypted(data: &[u8]) {
    let mut input = Input(data);
    let suite = input.suite();
    let (size, first, order) = (usize::from(input.u16()), input.u8(), input.u8());
    let octets = input.rest();
    let packets = fuzzing::PROVIDER.packets;
    let mut opening = packets.opening(&ike_keys(suite)).expect("the keys fit");

    // as they come from the wire
    if let Ok(SkMessage::Whole(plain)) = sk::open(octets, &mut *opening)
        && let Ok(payloads) = parse_payloads(plain.first, &plain.body)
    {
        let (first, body) = encode_payloads(&payloads);
        assert_eq!(parse_payloads(first, &body), Ok(encodable(payloads)));
    }

    // sealed, perhaps in fragments, and opened again
    let mut sealing = packets.sealing(&ike_keys(suite)).expect("the keys fit");
    let header = HeaderFields {
        initiator_spi: 1,
        responder_spi: 2,
        exchange: ExchangeType::IkeAuth,
        from_initiator: true,
        response: false,
        message_id: 1,
    };
    let octets = &octets[..octets.len().min(6000)];
    let mut messages = sk::seal(&header, first, octets, &mut *sealing, &mut 0, Some(size % 2000));
    let count = messages.len();
    messages.rotate_left(usize::from(order) % count);
    let mut reassembly = Reassembly::default();
    for (index, message) in messages.iter().enumerate() {
        let whole = match sk::open(message, &mut *opening).expect("what was sealed opens") {
            SkMessage::Whole(plain) => Some(plain),
            SkMessage::Fragment { number, total, first, data } => {
                assert_eq!(usize::from(total), count);
                reassembly.insert(number, total, first, data).expect("fragments of one message fit")
            }
        };
        match whole {
            Some(plain) => {
                assert_eq!(index + 1, count, "complete before the last one");
                assert_eq!((plain.first, &plain.body[..]), (first, octets));
            }
            None => assert!(index + 1 < count, "all came, and it is not complete"),
        }
    }
}

/// A client and a broker, a network that loses, repeats and reorders, and somebody who forges messages that pass the
/// (fake) integrity check.
///
/// Input: number of decisions of the network, those, then operations of one octet and their arguments.
pub fn ike_endpoints(data: &[u8]) {
    let mut input = Input(data);
    let decisions = usize::from(input.u8()).min(input.0.len());
    let (fates, rest) = input.0.split_at(decisions);
    let mut input = Input(rest);

    let (mut client, mut broker) = psk_connections();
    if decisions % 2 == 1 {
        // Several Child SAs (RFC 9611), and one more asked for than is granted.
        client.per_resource = PerResource { wanted: 4, limit: 8 };
        broker.per_resource = PerResource { wanted: 1, limit: 3 };
    }
    if decisions & 2 != 0 {
        // So small that IKE_AUTH and rekeys come in fragments.
        (client.fragment_size, broker.fragment_size) = (Some(256), Some(256));
    }
    let mut pair = Pair::new(fuzzing::PROVIDER, client, broker);
    let fates = Arc::new(Mutex::new(VecDeque::from(fates.to_vec())));
    let network = Arc::clone(&fates);
    pair.link.fate = Box::new(move |_| match network.lock().expect("no panic holds it").pop_front() {
        None | Some(0..160) => Fate::Deliver,
        Some(160..200) => Fate::Drop,
        Some(200..225) => Fate::Duplicate,
        Some(late @ 225..) => Fate::Delay(Duration::from_millis(u64::from(late - 224) * 400)),
    });
    pair.initiate();
    let mut forged = false;
    for _ in 0..24 {
        if input.is_empty() {
            break;
        }
        let op = input.u8();
        let side = if op & 1 == 0 { Side::Client } else { Side::Broker };
        let operation = match op >> 1 & 0x0f {
            0..4 => Operation::Wait(Duration::from_millis(u64::from(input.u8()) * 40)),
            4 => Operation::Wait(Duration::from_secs(u64::from(input.u8()) * 10)),
            5 => Operation::RekeyChild(side),
            6 => Operation::RekeyIke(side),
            7 => Operation::Close(side),
            8 => Operation::Ping(side),
            9 => Operation::Initiate,
            // a message of this connection, with some octets changed
            10..13 => {
                let chosen = usize::from(input.u8());
                let Some((_, message)) = pair.sent.iter().rev().nth(chosen % 8).cloned() else { continue };
                let mut message = message.to_vec();
                for _ in 0..input.u8() % 4 + 1 {
                    let (at, value) = (usize::from(input.u16()) % message.len(), input.u8());
                    message[at] = value;
                }
                Operation::Forge(side, message.into())
            }
            // anything
            _ => {
                let len = usize::from(input.u8()).min(input.0.len());
                let (message, rest) = input.0.split_at(len);
                input = Input(rest);
                Operation::Forge(side, Bytes::copy_from_slice(message))
            }
        };
        forged |= matches!(operation, Operation::Forge(..));
        // What an end refuses to do changes nothing.
        let _ = operation.apply(&mut pair);
    }
    // a good network at last: whatever happened is settled, and nothing is left half done
    fates.lock().expect("no panic holds it").clear();
    pair.run(Duration::from_secs(1800));
    if !forged {
        pair.check_mirror().expect("both ends agree in the end");
    }
}
