//! Messages of a real peer: two handshakes of strongSwan, with all keys (`fixtures/README.md`).
#![allow(clippy::unwrap_used)]

use ferry6_crypto::{
    Cipher, CipherSuite, CryptoProvider, Group, Integ, PacketKeys, Prf, Secret, aws_lc, rustcrypto,
};
use ferry6_ike::wire::sk::{self, SkMessage};
use ferry6_ike::wire::{
    ExchangeType, Header, HeaderFields, Payload, encode_message, encode_payloads, parse_payloads,
};
use std::collections::HashMap;

const PROVIDERS: [CryptoProvider; 2] = [aws_lc::PROVIDER, rustcrypto::PROVIDER];

struct Handshake {
    values: HashMap<&'static str, Vec<u8>>,
    suite: CipherSuite,
    prf: Prf,
    group: Group,
}

impl Handshake {
    fn new(text: &'static str, suite: CipherSuite, prf: Prf, group: Group) -> Self {
        let values = text
            .lines()
            .map(|line| line.split_once(" = ").unwrap())
            .map(|(name, value)| (name, hex::decode(value).unwrap()))
            .collect();
        Self { values, suite, prf, group }
    }

    fn get(&self, name: &str) -> &[u8] {
        &self.values[name]
    }

    fn payloads(&self, name: &str) -> Vec<Payload> {
        let message = self.get(name);
        let header = Header::parse(message).unwrap();
        parse_payloads(header.next_payload, &message[Header::LEN..]).unwrap()
    }

    fn keys(&self, encryption: &str, integrity: &str) -> PacketKeys {
        PacketKeys {
            suite: self.suite,
            encryption: Secret::from(self.get(encryption)),
            integrity: Secret::from(self.values.get(integrity).map_or(&[][..], Vec::as_slice)),
        }
    }

    fn nonce(&self, name: &str) -> Vec<u8> {
        self.payloads(name)
            .into_iter()
            .find_map(|p| if let Payload::Nonce(nonce) = p { Some(nonce) } else { None })
            .unwrap()
    }
}

fn handshakes() -> [Handshake; 2] {
    let cbc = CipherSuite::new(Cipher::Aes128Cbc, Some(Integ::HmacSha256_128)).unwrap();
    let gcm = CipherSuite::new(Cipher::Aes256Gcm16, None).unwrap();
    [
        Handshake::new(include_str!("fixtures/strongswan-cbc.txt"), cbc, Prf::HmacSha256, Group::X25519),
        Handshake::new(include_str!("fixtures/strongswan-gcm.txt"), gcm, Prf::HmacSha384, Group::Ecp256),
    ]
}

#[test]
fn ike_sa_init_is_read_and_written_octet_by_octet() {
    for handshake in handshakes() {
        for (name, response) in [("ike_sa_init_request", false), ("ike_sa_init_response", true)] {
            let message = handshake.get(name);
            let header = Header::parse(message).unwrap();
            assert_eq!(header.exchange, ExchangeType::IkeSaInit);
            assert_eq!((header.from_initiator, header.response, header.message_id), (!response, response, 0));
            let payloads = handshake.payloads(name);
            assert!(matches!(payloads[0], Payload::Sa(_)), "{name}: {:?}", payloads[0]);
            let group = payloads.iter().find_map(|p| match p {
                Payload::KeyExchange { group, data } => Some((*group, data.len())),
                _ => None,
            });
            assert_eq!(group, Some((handshake.group.transform_id(), handshake.group.public_len())));

            let fields = HeaderFields {
                initiator_spi: header.initiator_spi,
                responder_spi: header.responder_spi,
                exchange: header.exchange,
                from_initiator: header.from_initiator,
                response: header.response,
                message_id: header.message_id,
            };
            assert_eq!(hex::encode(encode_message(&fields, &payloads)), hex::encode(message), "{name}");
        }
    }
}

#[test]
fn default_request_offers_two_proposals() {
    let [cbc, _] = handshakes();
    let payloads = cbc.payloads("ike_sa_init_request");
    let Payload::Sa(proposals) = &payloads[0] else { panic!("no SA first") };
    let transforms: Vec<usize> = proposals.iter().map(|p| p.transforms.len()).collect();
    assert_eq!(transforms, [38, 47]);
}

#[test]
fn key_schedule_gives_the_peers_keys() {
    for handshake in handshakes() {
        let (ni, nr) = (handshake.nonce("ike_sa_init_request"), handshake.nonce("ike_sa_init_response"));
        let header = Header::parse(handshake.get("ike_sa_init_response")).unwrap();
        for provider in PROVIDERS {
            // RFC 7296 section 2.14.
            let skeyseed = provider
                .hashes
                .prf(handshake.prf, &[&ni[..], &nr[..]].concat())
                .compute(&[handshake.get("shared_secret")]);
            assert_eq!(hex::encode(skeyseed.expose()), hex::encode(handshake.get("skeyseed")));
            let expected: Vec<u8> = ["sk_d", "sk_ai", "sk_ar", "sk_ei", "sk_er", "sk_pi", "sk_pr"]
                .iter()
                .filter_map(|name| handshake.values.get(name))
                .flatten()
                .copied()
                .collect();
            let seed =
                [&ni[..], &nr[..], &header.initiator_spi.to_be_bytes(), &header.responder_spi.to_be_bytes()];
            let material =
                provider.hashes.prf(handshake.prf, skeyseed.expose()).prf_plus(&seed, expected.len());
            assert_eq!(hex::encode(material.expose()), hex::encode(&expected));
        }
    }
}

#[test]
fn ike_auth_is_decrypted_read_and_written_octet_by_octet() {
    for handshake in handshakes() {
        for (name, plain, encryption, integrity) in [
            ("ike_auth_request", "ike_auth_request_plain", "sk_ei", "sk_ai"),
            ("ike_auth_response", "ike_auth_response_plain", "sk_er", "sk_ar"),
        ] {
            for provider in PROVIDERS {
                let mut key = provider.packets.opening(&handshake.keys(encryption, integrity)).unwrap();
                let message = handshake.get(name);
                let SkMessage::Whole(opened) = sk::open(message, &mut *key).unwrap() else {
                    panic!("{name} is no fragment")
                };
                assert_eq!(hex::encode(&opened.body), hex::encode(handshake.get(plain)), "{name}");

                let payloads = parse_payloads(opened.first, &opened.body).unwrap();
                let (first, body) = encode_payloads(&payloads);
                assert_eq!((first, hex::encode(&body)), (opened.first, hex::encode(&opened.body)), "{name}");
                let has = |f: fn(&Payload) -> bool| payloads.iter().any(f);
                assert!(has(|p| matches!(p, Payload::IdInitiator(_))) == (name == "ike_auth_request"));
                assert!(has(|p| matches!(p, Payload::IdResponder(_))));
                assert!(has(|p| matches!(p, Payload::Cert { encoding: 4, .. })));
                assert!(has(|p| matches!(p, Payload::Auth { method: 14, .. })));
                assert!(has(|p| matches!(p, Payload::Config(_))));
                assert!(has(|p| matches!(p, Payload::TsInitiator(_))));
                assert!(has(|p| matches!(p, Payload::TsResponder(_))));

                let mut wrong = message.to_vec();
                *wrong.last_mut().unwrap() ^= 1;
                assert_eq!(sk::open(&wrong, &mut *key), Err(sk::SkError::Integrity), "{name}");
            }
        }
    }
}
