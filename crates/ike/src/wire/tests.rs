//! Whole messages: recorded ones of strongSwan, made-up ones, and damaged ones.

use super::message::MAX_PAYLOADS;
use super::sk::{Reassembly, SkMessage};
use super::*;
use crate::auth;
use crate::certs;
use crate::config::Revocation;
use crate::identity::Identity;
use crate::selector::{AddressRange, TrafficSelector};
use ferry6_crypto::{Cipher, CipherSuite, Integ, PacketKeys, Prf, Secret, providers};
use proptest::prelude::*;
use rustls_pki_types::CertificateDer;
use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

// --- recorded conversations ----------------------------------------------------------------------------------------

/// One connection between two strongSwan daemons, with its keys.
struct Recording {
    values: HashMap<&'static str, Vec<u8>>,
    /// From the initiator or not, and the message.
    messages: Vec<(bool, Vec<u8>)>,
}

impl Recording {
    fn read(text: &'static str) -> Self {
        let mut recording = Self { values: HashMap::new(), messages: vec![] };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (key, octets) = line.split_once(' ').unwrap();
            let octets = hex::decode(octets).unwrap();
            match key {
                ">" | "<" => recording.messages.push((key == ">", octets)),
                key => {
                    recording.values.insert(key, octets);
                }
            }
        }
        recording
    }

    fn secret(&self, name: &str) -> Secret {
        Secret::from(self.values[name].as_slice())
    }

    fn first_message(&self, from_initiator: bool) -> &[u8] {
        &self.messages.iter().find(|(from, _)| *from == from_initiator).unwrap().1
    }
}

fn recordings() -> [Recording; 4] {
    [
        include_str!("../../testdata/strongswan/aes256-sha256-x25519.txt"),
        include_str!("../../testdata/strongswan/aes128gcm16-prfsha384-ecp384.txt"),
        include_str!("../../testdata/strongswan/chacha20poly1305-prfsha512-modp2048.txt"),
        include_str!("../../testdata/strongswan/default.txt"),
    ]
    .map(Recording::read)
}

/// What the responder chose.
fn chosen(payloads: &[Payload]) -> (CipherSuite, Prf) {
    let Some(Payload::Sa(proposals)) = payloads.iter().find(|payload| matches!(payload, Payload::Sa(_)))
    else {
        panic!("no SA payload");
    };
    let [proposal] = &proposals[..] else { panic!("more than one proposal") };
    let of = |kind| proposal.transforms.iter().find(|transform| transform.transform_type == kind);
    let encr = of(transform_type::ENCR).unwrap();
    let cipher = Cipher::from_transform(encr.id, encr.key_length).unwrap();
    let integ = of(transform_type::INTEG).map(|transform| Integ::from_transform(transform.id).unwrap());
    let prf = Prf::from_transform(of(transform_type::PRF).unwrap().id).unwrap();
    (CipherSuite::new(cipher, integ).unwrap(), prf)
}

fn names(payloads: &[Payload]) -> String {
    payloads.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Parses a chain, and checks that nothing in it is unknown and that encoding gives the same octets again.
fn parse_exactly(first: u8, body: &[u8]) -> Vec<Payload> {
    let payloads = parse_payloads(first, body).unwrap();
    assert!(
        !payloads.iter().any(|payload| matches!(payload, Payload::Unknown { .. })),
        "{}",
        names(&payloads)
    );
    assert_eq!(encode_payloads(&payloads), (first, body.to_vec()), "{}", names(&payloads));
    payloads
}

/// Every message of the recording: from the initiator or not, header, payloads.
fn decode(recording: &Recording, provider: usize) -> Vec<(bool, Header, Vec<Payload>)> {
    let response = recording.first_message(false);
    let header = Header::parse(response).unwrap();
    let (suite, _) = chosen(&parse_payloads(header.next_payload, &response[Header::LEN..]).unwrap());
    let key = |encryption, integrity| {
        let integrity = if suite.is_aead() { Secret::new(vec![]) } else { recording.secret(integrity) };
        let keys = PacketKeys { suite, encryption: recording.secret(encryption), integrity };
        providers()[provider].packets.opening(&keys).unwrap()
    };
    let (mut initiator, mut responder) = (key("sk_ei", "sk_ai"), key("sk_er", "sk_ar"));
    let mut reassembly = Reassembly::default();
    let mut decoded = vec![];
    for (from_initiator, message) in &recording.messages {
        let header = Header::parse(message).unwrap();
        assert_eq!(header.from_initiator, *from_initiator);
        if header.exchange == ExchangeType::IkeSaInit {
            let payloads = parse_exactly(header.next_payload, &message[Header::LEN..]);
            assert_eq!(encode_message(&header.fields(), &payloads), *message);
            decoded.push((*from_initiator, header, payloads));
            continue;
        }
        let key = if *from_initiator { &mut initiator } else { &mut responder };
        let plain = match sk::open(message, key.as_mut()).unwrap() {
            SkMessage::Whole(plain) => plain,
            SkMessage::Fragment { number, total, first, data } => {
                match reassembly.insert(number, total, first, data).unwrap() {
                    Some(plain) => plain,
                    None => continue,
                }
            }
        };
        decoded.push((*from_initiator, header, parse_exactly(plain.first, &plain.body)));
    }
    decoded
}

#[test]
fn conversations_of_strongswan() {
    for provider in 0..providers().len() {
        for recording in recordings() {
            let decoded = decode(&recording, provider);
            let story: Vec<String> = decoded
                .iter()
                .map(|(from_initiator, header, payloads)| {
                    format!(
                        "{} {} {}{}: {}",
                        if *from_initiator { '>' } else { '<' },
                        header.exchange,
                        header.message_id,
                        if header.response { " response" } else { "" },
                        names(payloads)
                    )
                })
                .collect();
            // With PFS in one of them.
            let ke = if story[6].contains(" KE ") { " KE" } else { "" };
            let expected = format!(
                "> IKE_SA_INIT 0: SA KE Nonce N(NAT_DETECTION_SOURCE_IP) N(NAT_DETECTION_DESTINATION_IP) \
                 N(IKEV2_FRAGMENTATION_SUPPORTED) N(SIGNATURE_HASH_ALGORITHMS) N(REDIRECT_SUPPORTED)\n\
                 < IKE_SA_INIT 0 response: SA KE Nonce N(NAT_DETECTION_SOURCE_IP) N(NAT_DETECTION_DESTINATION_IP) \
                 CERTREQ N(IKEV2_FRAGMENTATION_SUPPORTED) N(SIGNATURE_HASH_ALGORITHMS) \
                 N(CHILDLESS_IKEV2_SUPPORTED) N(MULTIPLE_AUTH_SUPPORTED)\n\
                 > IKE_AUTH 1: IDi CERT N(INITIAL_CONTACT) CERTREQ IDr AUTH CP SA TSi TSr N(MOBIKE_SUPPORTED) \
                 N(NO_ADDITIONAL_ADDRESSES) N(MULTIPLE_AUTH_SUPPORTED) N(EAP_ONLY_AUTHENTICATION) \
                 N(IKEV2_MESSAGE_ID_SYNC_SUPPORTED)\n\
                 < IKE_AUTH 1 response: IDr CERT AUTH CP SA TSi TSr N(MOBIKE_SUPPORTED) \
                 N(NO_ADDITIONAL_ADDRESSES)\n\
                 < INFORMATIONAL 0: N(NO_ADDITIONAL_ADDRESSES)\n\
                 > INFORMATIONAL 0 response: \n\
                 > CREATE_CHILD_SA 2: N(REKEY_SA) SA Nonce{ke} TSi TSr\n\
                 < CREATE_CHILD_SA 2 response: SA Nonce{ke} TSi TSr\n\
                 > INFORMATIONAL 3: D\n\
                 < INFORMATIONAL 3 response: D\n\
                 > INFORMATIONAL 4: D\n\
                 < INFORMATIONAL 4 response: "
            );
            assert_eq!(story.join("\n"), expected);
        }
    }
}

/// Certificates, identities and signatures of a real peer, both ways.
#[test]
fn strongswan_authenticates_itself() {
    let wall = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for provider in providers() {
        for recording in recordings() {
            let decoded = decode(&recording, 0);
            let payload_of = |index: usize, wanted: u8| {
                decoded[index].2.iter().find(|payload| payload.payload_type() == wanted).unwrap()
            };
            let nonce = |index| match payload_of(index, payload_type::NONCE) {
                Payload::Nonce(nonce) => nonce.clone(),
                _ => unreachable!(),
            };
            let (_, prf) = chosen(&decoded[1].2);
            let anchors = [CertificateDer::from(recording.values["ca"].as_slice())];
            for (from_initiator, index, id_type, sk_p, name) in [
                (true, 2, payload_type::IDI, "sk_pi", "client@my.domain"),
                (false, 3, payload_type::IDR, "sk_pr", "tunnel.my.domain"),
            ] {
                let (Payload::IdInitiator(id) | Payload::IdResponder(id)) = payload_of(index, id_type) else {
                    unreachable!()
                };
                let Payload::Auth { method, data } = payload_of(index, payload_type::AUTH) else {
                    unreachable!()
                };
                let certs = decoded[index].2.iter().filter_map(|payload| match payload {
                    Payload::Cert { encoding, data } => Some((*encoding, data.as_slice())),
                    _ => None,
                });
                let identity = Identity::from(id);
                assert_eq!(identity.to_string(), name);
                let chain = certs::chain_from_payloads(certs).unwrap();
                let verify = |identity: &Identity| {
                    certs::verify_peer(provider, &chain, identity, &anchors, &[], Revocation::IfUri, wall)
                };
                let spki = verify(&identity).unwrap().spki;
                assert!(verify(&"other@my.domain".parse().unwrap()).is_err());
                let signed = |nonce: &[u8]| {
                    let message = recording.first_message(from_initiator);
                    auth::signed_octets(provider, prf, message, nonce, &recording.secret(sk_p), id)
                };
                let peer_nonce = nonce(usize::from(from_initiator));
                assert_eq!(auth::verify(provider, &spki, *method, data, &signed(&peer_nonce)), Ok(()));
                let wrong = signed(&[0; 32]);
                assert_eq!(auth::verify(provider, &spki, *method, data, &wrong), Err(auth::AuthError::Wrong));
            }
            // The CERTREQ of the initiator names the CA.
            let Payload::CertReq { data, .. } = payload_of(2, payload_type::CERTREQ) else { unreachable!() };
            let wanted = certs::cert_request(provider, &anchors);
            assert!(wanted.len() == 20 && data.chunks(20).any(|hash| hash == wanted));
        }
    }
}

/// What the first Child SA of a road warrior looks like.
#[test]
fn strongswan_asks_for_an_address() {
    for recording in recordings() {
        let decoded = decode(&recording, 0);
        let of = |index: usize| {
            let mut found = (None, vec![], vec![]);
            for payload in &decoded[index].2 {
                match payload {
                    Payload::Config(config) => found.0 = Some(config.clone()),
                    Payload::TsInitiator(selectors) => found.1.clone_from(selectors),
                    Payload::TsResponder(selectors) => found.2.clone_from(selectors),
                    _ => {}
                }
            }
            (found.0.unwrap(), found.1, found.2)
        };
        let address = |config: &Config| {
            config
                .values(attribute::INTERNAL_IP6_ADDRESS)
                .next()
                .map(|value| config::ip6_address(value).unwrap())
        };
        let (request, tsi, tsr) = of(2);
        assert_eq!((request.cfg_type, address(&request)), (cfg_type::CFG_REQUEST, Some(None)));
        assert_eq!(
            (tsi.as_slice(), tsr.as_slice()),
            (&[TrafficSelector::ANY_V6][..], &[TrafficSelector::ANY_V6][..])
        );
        let (reply, tsi, tsr) = of(3);
        let leased = "2a00::101".parse().unwrap();
        assert_eq!(reply.cfg_type, cfg_type::CFG_REPLY);
        assert_eq!(address(&reply).unwrap().unwrap().0, leased);
        assert_eq!(tsi, [TrafficSelector::host_v6(leased)]);
        assert_eq!(tsr, [TrafficSelector::ANY_V6]);
    }
}

/// Every bit of a recorded message flipped, and every cut: no panic, and what still parses encodes and parses again.
#[test]
fn damaged_recordings() {
    for recording in recordings() {
        for message in [recording.first_message(true), recording.first_message(false)] {
            for bit in 0..message.len() * 8 {
                let mut damaged = message.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                again(&damaged);
            }
            for len in 0..message.len() {
                let mut cut = message[..len].to_vec();
                if len >= Header::LEN {
                    cut[24..28].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
                    let header = Header::parse(&cut).unwrap();
                    assert!(parse_payloads(header.next_payload, &cut[Header::LEN..]).is_err());
                } else {
                    assert!(Header::parse(&cut).is_err());
                }
            }
        }
    }
}

/// What parses encodes to something that parses to the same.
fn again(message: &[u8]) {
    let Ok(header) = Header::parse(message) else { return };
    let Ok(payloads) = parse_payloads(header.next_payload, &message[Header::LEN..]) else { return };
    again_payloads(&payloads);
}

fn again_payloads(payloads: &[Payload]) {
    let (first, body) = encode_payloads(payloads);
    let mut expected = payloads.to_vec();
    // An attribute that is not understood is not written.
    for payload in &mut expected {
        if let Payload::Sa(proposals) = payload {
            let transforms = proposals.iter_mut().flat_map(|proposal| &mut proposal.transforms);
            transforms.for_each(|transform| transform.unknown_attribute = false);
        }
    }
    assert_eq!(parse_payloads(first, &body), Ok(expected));
}

// --- rules for the chain -------------------------------------------------------------------------------------------

fn chain(octets: &str) -> Vec<u8> {
    hex::decode(octets.replace(' ', "")).unwrap()
}

#[test]
fn an_empty_chain() {
    assert_eq!(parse_payloads(0, &[]), Ok(vec![]));
    assert_eq!(encode_payloads(&[]), (0, vec![]));
    assert!(parse_payloads(0, &[0]).is_err());
    assert_eq!(parse_payloads(43, &[]), Err(WireError::Truncated { what: "payload" }));
}

/// RFC 7296 section 2.5: the bit is told for types that are not known, and means nothing on those that are.
#[test]
fn the_critical_bit() {
    let unknown = |critical| Payload::Unknown { payload_type: 130, critical, data: vec![1, 2] };
    assert_eq!(parse_payloads(130, &chain("00 80 0006 0102")), Ok(vec![unknown(true)]));
    assert_eq!(parse_payloads(130, &chain("00 7f 0006 0102")), Ok(vec![unknown(false)]));
    assert_eq!(parse_payloads(43, &chain("00 80 0006 0102")), Ok(vec![Payload::VendorId(vec![1, 2])]));
    assert_eq!(encode_payloads(&[unknown(true)]), (130, chain("00 80 0006 0102")));
    assert_eq!(encode_payloads(&[unknown(false)]), (130, chain("00 00 0006 0102")));
}

#[test]
fn lengths_that_lie() {
    for (octets, problem) in [
        ("00 00 0003", "payload: wrong length 3"),
        ("00 00 0000", "payload: wrong length 0"),
        ("00 00 0005", "payload: wrong length 5"),
        ("00 00 ffff 00", "payload: wrong length 65535"),
        ("00 00 00", "payload is cut short"),
        ("2b 00 0004", "payload is cut short"),
        ("00 00 0004 00", "octets behind the last payload"),
    ] {
        let error = parse_payloads(43, &chain(octets)).unwrap_err().to_string();
        assert!(error.contains(problem), "{octets}: {error}");
    }
}

#[test]
fn what_stands_twice() {
    let twice = |payload: Payload| {
        let (first, body) = encode_payloads(&[payload.clone(), payload]);
        parse_payloads(first, &body)
    };
    assert_eq!(twice(Payload::Nonce(vec![7; 16])), Err(WireError::Duplicate("Nonce")));
    assert_eq!(twice(Payload::TsInitiator(vec![])), Err(WireError::Duplicate("TSi")));
    assert!(twice(Payload::VendorId(vec![])).is_ok());
    assert!(twice(Payload::Cert { encoding: 4, data: vec![] }).is_ok());
    assert!(twice(Payload::Notify(Notify::new(notify::COOKIE, []))).is_ok());
    assert!(twice(Payload::Delete(Delete { protocol: 3, spis: vec![] })).is_ok());
}

#[test]
fn payloads_are_bounded() {
    let many = |count| encode_payloads(&vec![Payload::VendorId(vec![]); count]);
    let (first, body) = many(MAX_PAYLOADS);
    assert_eq!(parse_payloads(first, &body).unwrap().len(), MAX_PAYLOADS);
    let (first, body) = many(MAX_PAYLOADS + 1);
    assert_eq!(parse_payloads(first, &body), Err(WireError::TooMany("payloads")));
}

#[test]
fn nonces_have_16_to_256_octets() {
    for (len, good) in [(0, false), (15, false), (16, true), (256, true), (257, false)] {
        let (first, body) = encode_payloads(&[Payload::Nonce(vec![1; len])]);
        assert_eq!(parse_payloads(first, &body).is_ok(), good, "{len}");
    }
}

/// SK and SKF end the chain; their next-payload octet is about what is inside.
#[test]
fn encrypted_payloads_are_not_entered() {
    for sk in [payload_type::SK, payload_type::SKF] {
        let expected = Payload::Unknown { payload_type: sk, critical: false, data: vec![1, 2] };
        assert_eq!(parse_payloads(sk, &chain("23 00 0006 0102")), Ok(vec![expected]));
        assert!(parse_payloads(sk, &chain("23 00 0006 0102 00")).is_err());
    }
}

#[test]
fn reserved_octets_are_ignored() {
    assert_eq!(
        parse_payloads(34, &chain("00 7f 000a 001f ffff 0102")),
        Ok(vec![Payload::KeyExchange { group: 31, data: vec![1, 2] }])
    );
    assert_eq!(
        parse_payloads(39, &chain("00 00 0009 0e ffffff 01")),
        Ok(vec![Payload::Auth { method: 14, data: vec![1] }])
    );
    assert_eq!(
        parse_payloads(47, &chain("00 00 000c 01 ffffff 8008 0000")),
        Ok(vec![Payload::Config(Config { cfg_type: 1, attributes: vec![(8, vec![])] })])
    );
    assert_eq!(parse_payloads(44, &chain("00 00 0008 00 ffffff")), Ok(vec![Payload::TsInitiator(vec![])]));
}

#[test]
fn payloads_print_their_names() {
    let payloads = [
        Payload::Notify(Notify::new(notify::COOKIE, [])),
        Payload::Notify(Notify::new(50_000, [])),
        Payload::Unknown { payload_type: 130, critical: true, data: vec![] },
        Payload::Eap(vec![]),
    ];
    assert_eq!(names(&payloads), "N(COOKIE) N(notify 50000) payload type 130 EAP");
}

// --- made-up messages ----------------------------------------------------------------------------------------------

fn octets(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), any::<Option<u16>>()).prop_map(|(transform_type, id, key_length)| Transform {
        transform_type,
        id,
        key_length,
        unknown_attribute: false,
    })
}

fn proposals() -> impl Strategy<Value = Vec<Proposal>> {
    let protocol_and_spi = prop_oneof![
        Just((protocol::IKE, vec![])),
        octets(8).prop_map(|spi| (protocol::IKE, spi)),
        octets(4).prop_map(|spi| (protocol::ESP, spi)),
        octets(4).prop_map(|spi| (protocol::AH, spi)),
        octets(0..20).prop_map(|spi| (77, spi)),
    ];
    let one = (protocol_and_spi, prop::collection::vec(transform(), 0..20));
    prop::collection::vec(one, 1..6).prop_map(|proposals| {
        (1..)
            .zip(proposals)
            .map(|(number, ((protocol, spi), transforms))| Proposal { number, protocol, spi, transforms })
            .collect()
    })
}

fn selectors() -> impl Strategy<Value = Vec<TrafficSelector>> {
    let ports = prop_oneof![
        any::<(u16, u16)>().prop_map(|(a, b)| (a.min(b), a.max(b))),
        Just((u16::MAX, 0)),
        Just((0, u16::MAX))
    ];
    let addresses = prop_oneof![
        any::<(u32, u32)>().prop_map(|(a, b)| AddressRange::V4(a.min(b).into(), a.max(b).into())),
        any::<(u128, u128)>().prop_map(|(a, b)| AddressRange::V6(a.min(b).into(), a.max(b).into())),
    ];
    let one = (any::<u8>(), ports, addresses).prop_map(|(protocol, (start_port, end_port), addresses)| {
        TrafficSelector { protocol, start_port, end_port, addresses }
    });
    prop::collection::vec(one, 0..5)
}

fn raw_id() -> impl Strategy<Value = RawId> {
    (any::<u8>(), any::<[u8; 3]>(), octets(0..40)).prop_map(|(id_type, reserved, data)| RawId {
        id_type,
        reserved,
        data,
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        proposals().prop_map(Payload::Sa),
        (any::<u16>(), octets(0..80)).prop_map(|(group, data)| Payload::KeyExchange { group, data }),
        raw_id().prop_map(Payload::IdInitiator),
        raw_id().prop_map(Payload::IdResponder),
        (any::<u8>(), octets(0..40)).prop_map(|(encoding, data)| Payload::Cert { encoding, data }),
        (any::<u8>(), octets(0..40)).prop_map(|(encoding, data)| Payload::CertReq { encoding, data }),
        (any::<u8>(), octets(0..40)).prop_map(|(method, data)| Payload::Auth { method, data }),
        octets(16..=256).prop_map(Payload::Nonce),
        (any::<u8>(), octets(0..=255), any::<u16>(), octets(0..40)).prop_map(
            |(protocol, spi, notify_type, data)| Payload::Notify(Notify { protocol, spi, notify_type, data })
        ),
        (2..=3_u8, prop::collection::vec(any::<u32>(), 0..9))
            .prop_map(|(protocol, spis)| Payload::Delete(Delete { protocol, spis })),
        Just(Payload::Delete(Delete { protocol: protocol::IKE, spis: vec![] })),
        octets(0..40).prop_map(Payload::VendorId),
        selectors().prop_map(Payload::TsInitiator),
        selectors().prop_map(Payload::TsResponder),
        (any::<u8>(), prop::collection::vec((0..0x8000_u16, octets(0..20)), 0..9))
            .prop_map(|(cfg_type, attributes)| Payload::Config(Config { cfg_type, attributes })),
        octets(0..40).prop_map(Payload::Eap),
        (54..=255_u8, any::<bool>(), octets(0..40))
            .prop_map(|(payload_type, critical, data)| Payload::Unknown { payload_type, critical, data }),
    ]
}

/// A chain in which nothing stands twice that may not.
fn payloads() -> impl Strategy<Value = Vec<Payload>> {
    prop::collection::vec(payload(), 0..12).prop_map(|mut payloads| {
        let mut seen = std::collections::HashSet::new();
        payloads.retain(|payload| {
            let repeatable = matches!(
                payload,
                Payload::Cert { .. }
                    | Payload::CertReq { .. }
                    | Payload::Notify(_)
                    | Payload::Delete(_)
                    | Payload::VendorId(_)
                    | Payload::Unknown { .. }
            );
            seen.insert(payload.payload_type()) || repeatable
        });
        payloads
    })
}

proptest! {
    #[test]
    fn round_trip(payloads in payloads(), response: bool, message_id: u32) {
        let fields = HeaderFields {
            initiator_spi: 1,
            responder_spi: 2,
            exchange: ExchangeType::Informational,
            from_initiator: true,
            response,
            message_id,
        };
        let message = encode_message(&fields, &payloads);
        let header = Header::parse(&message).unwrap();
        prop_assert_eq!(header.fields(), fields);
        prop_assert_eq!(parse_payloads(header.next_payload, &message[Header::LEN..]), Ok(payloads));
    }

    #[test]
    fn damage(payloads in payloads(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let (first, mut body) = encode_payloads(&payloads);
        if !body.is_empty() {
            for (index, octet) in changes {
                let at = index.index(body.len());
                body[at] = octet;
            }
        }
        if let Ok(payloads) = parse_payloads(first, &body) {
            let _ = names(&payloads);
            again_payloads(&payloads);
        }
    }

    #[test]
    fn any_octets(first: u8, body in octets(0..120)) {
        if let Ok(payloads) = parse_payloads(first, &body) {
            again_payloads(&payloads);
        }
        let _ = Header::parse(&body);
    }
}

/// What a flood is looked at with finds what the parser finds, and keeps its calm with any octets.
#[test]
fn the_first_look_agrees_with_the_parser() {
    use super::message::{COOKIE_DEMAND_LEN, demand_cookie, first_nonce, leading_cookie};
    let cookie = |len: usize| Payload::Notify(Notify::new(crate::notify::COOKIE, vec![7; len]));
    let other = Payload::Notify(Notify::new(crate::notify::COOKIE2, vec![7; 33]));
    let nonce = Payload::Nonce(vec![9; 32]);
    let ke = Payload::KeyExchange { group: 31, data: vec![1; 32] };
    let look = |payloads: &[Payload]| {
        let (first, body) = encode_payloads(payloads);
        let found =
            (leading_cookie(first, &body).map(<[u8]>::len), first_nonce(first, &body).map(<[u8]>::len));
        for len in 0..body.len() {
            leading_cookie(first, &body[..len]);
            first_nonce(first, &body[..len]);
        }
        found
    };
    assert_eq!(look(&[cookie(33), ke.clone(), nonce.clone()]), (Some(33), Some(32)));
    assert_eq!(look(&[ke.clone(), nonce.clone(), cookie(33)]), (None, Some(32)), "it must come first");
    assert_eq!(look(&[other, nonce]), (None, Some(32)));
    assert_eq!(look(&[cookie(1), ke.clone()]), (Some(1), None));
    assert_eq!(look(&[ke, Payload::Nonce(vec![9; 15])]), (None, None), "no nonce has 15 octets");
    assert_eq!(look(&vec![cookie(0); 300]), (Some(0), None), "and nobody looks for one for ever");
    // The answer is the one that the parser and the encoder know.
    let header = HeaderFields {
        initiator_spi: 5,
        responder_spi: 0,
        exchange: ExchangeType::IkeSaInit,
        from_initiator: false,
        response: true,
        message_id: 0,
    };
    for len in [1, 33, 64] {
        let mut room = [0xff; COOKIE_DEMAND_LEN];
        let written = demand_cookie(&header, &vec![7; len], &mut room);
        assert_eq!(room[..written], encode_message(&header, &[cookie(len)]));
    }
}
