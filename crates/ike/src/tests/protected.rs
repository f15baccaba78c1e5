//! What stands inside the protected messages, read with the logged keys; and requests that no honest end sends.

use super::{CRYPTO, reason, secs};
use crate::config::{AddressConfig, Connection};
use crate::endpoint::State;
use crate::established::Pending;
use crate::event::{CloseReason, Event};
use crate::selector::TrafficSelector;
use crate::testing::{Fate, Pair, Side, config, psk_connections};
use crate::wire::sk::{self, SkMessage};
use crate::wire::{
    Delete, ExchangeType, Header, Notify, Payload, Proposal, Transform, notify, parse_payloads,
};
use std::time::Duration;

/// A pair whose keys are logged, after its handshake.
pub(super) fn logged(change: impl FnOnce(&mut Connection, &mut Connection)) -> Pair {
    let (mut client, mut broker) = psk_connections();
    change(&mut client, &mut broker);
    let (mut client, broker) = (config([client]), config([broker]));
    client.keylog = true;
    let mut pair = Pair::with_config(*CRYPTO, client, broker);
    pair.initiate();
    pair.run(secs(1));
    pair
}

/// One message in clear, if it is protected by keys that we have. No message here is fragmented.
pub(super) fn decrypt(pair: &Pair, octets: &[u8]) -> Option<Vec<Payload>> {
    let header = Header::parse(octets).unwrap();
    let keys = pair.client.events.iter().find_map(|e| match e {
        Event::IkeKeys(k)
            if k.initiator_spi == header.initiator_spi && k.responder_spi == header.responder_spi =>
        {
            Some(if header.from_initiator { &k.initiator } else { &k.responder })
        }
        _ => None,
    });
    let keys = keys.filter(|_| header.exchange != ExchangeType::IkeSaInit)?;
    let mut key = CRYPTO.packets.opening(keys).unwrap();
    match sk::open(octets, key.as_mut()).unwrap() {
        SkMessage::Whole(plain) => parse_payloads(plain.first, &plain.body).ok(),
        SkMessage::Fragment { .. } => panic!("a fragment"),
    }
}

/// All protected messages so far, in clear.
pub(super) fn read(pair: &Pair) -> Vec<(Side, Header, Vec<Payload>)> {
    let all = pair.sent.iter();
    all.filter_map(|(side, m)| Some((*side, Header::parse(m).unwrap(), decrypt(pair, m)?))).collect()
}

/// Sends these payloads from one end as a request.
fn send(pair: &mut Pair, side: Side, exchange: ExchangeType, payloads: &[Payload]) {
    let ike = pair.host(side).endpoint.ike_sas()[0].ike;
    let spi = pair.host(side).endpoint.spi_of(ike).unwrap();
    pair.act(side, |endpoint, now| {
        endpoint.with_established(spi, |mut s, endpoint, common| {
            s.send(endpoint, now, common, exchange, payloads, Pending::Probe);
            State::Established(s)
        });
    });
    pair.run(Duration::from_millis(100));
}

/// The same, and the other's answer.
pub(super) fn ask(pair: &mut Pair, side: Side, exchange: ExchangeType, payloads: &[Payload]) -> Vec<Payload> {
    let before = read(pair).len();
    send(pair, side, exchange, payloads);
    let all = read(pair);
    let (from, header, answer) = &all[before + 1];
    assert!(*from == side.other() && header.response);
    answer.clone()
}

pub(super) fn kinds(payloads: &[Payload]) -> Vec<String> {
    payloads
        .iter()
        .map(|p| match p {
            Payload::Notify(n) => format!("N({n})"),
            other => format!("{other:?}").split(['(', ' ', '{']).next().unwrap().to_owned(),
        })
        .collect()
}

/// One proposal of AES-GCM for a Child SA.
pub(super) fn esp(spi: u32, key_length: u16, esn: bool) -> Payload {
    let encr = Transform { key_length: Some(key_length), ..Transform::new(1, 20) };
    Payload::Sa(vec![Proposal {
        number: 1,
        protocol: 3,
        spi: spi.to_be_bytes().to_vec(),
        transforms: vec![encr, Transform::new(5, esn.into())],
    }])
}

pub(super) fn error(notify_type: u16) -> Payload {
    Payload::Notify(Notify::new(notify_type, Vec::new()))
}

#[test]
fn order_of_ike_auth() {
    let pair = logged(|c, _| c.ipcomp = crate::config::IpcompPolicy::On);
    let all = read(&pair);
    assert_eq!(
        kinds(&all[0].2),
        [
            "IdInitiator",
            "N(INITIAL_CONTACT)",
            "IdResponder",
            "Auth",
            "Config",
            "N(IPCOMP_SUPPORTED)",
            "Sa",
            "TsInitiator",
            "TsResponder",
            "N(MOBIKE_SUPPORTED)",
            "N(NO_ADDITIONAL_ADDRESSES)",
        ]
    );
    assert_eq!(
        kinds(&all[1].2),
        [
            "IdResponder",
            "Auth",
            "Config",
            "N(IPCOMP_SUPPORTED)",
            "Sa",
            "TsInitiator",
            "TsResponder",
            "N(MOBIKE_SUPPORTED)",
            "N(NO_ADDITIONAL_ADDRESSES)",
        ]
    );
    for payload in all.iter().flat_map(|m| &m.2) {
        if let Payload::Sa(proposals) = payload {
            assert!(
                proposals.iter().flat_map(|p| &p.transforms).all(|t| t.transform_type != 4),
                "no KE in IKE_AUTH"
            );
        }
        if let Payload::Config(c) = payload
            && c.cfg_type == 2
        {
            assert_eq!(c.attributes[0].1.len(), 17);
            assert_eq!(c.attributes[0].1[16], 128);
        }
    }
}

#[test]
fn a_refused_peer_gets_one_notify_alone() {
    let mut pair = logged(|_, b| b.local_id = crate::Identity::Fqdn("other.my.domain".to_owned()));
    pair.run(secs(1));
    let all = read(&pair);
    assert_eq!(all[1].2, [error(notify::AUTHENTICATION_FAILED)]);
    assert!(matches!(reason(&pair.client), CloseReason::PeerRefused(_)));
}

#[test]
fn a_failed_child_gets_a_notify_in_its_place() {
    for (change, expected) in [
        (
            (|c, _| c.esp[0].ciphers = vec![ferry6_crypto::Cipher::ChaCha20Poly1305])
                as fn(&mut Connection, &mut Connection),
            "NO_PROPOSAL_CHOSEN",
        ),
        (|c, _| c.addresses = AddressConfig::None, "FAILED_CP_REQUIRED"),
        (
            |c, _| c.remote_ts = vec![TrafficSelector::prefix("10.0.0.0".parse().unwrap(), 8).unwrap()],
            "TS_UNACCEPTABLE",
        ),
    ] {
        let pair = logged(change);
        let answer = kinds(&read(&pair)[1].2);
        assert_eq!(answer[..2], ["IdResponder", "Auth"]);
        assert_eq!(answer[2], format!("N({expected})"));
    }
}

#[test]
fn order_of_a_child_rekey() {
    let mut pair = logged(|c, b| {
        (c.esp[0].groups, b.esp[0].groups) =
            (vec![ferry6_crypto::Group::X25519], vec![ferry6_crypto::Group::X25519]);
    });
    let old = pair.client.live()[0].clone();
    pair.act(Side::Client, |e, now| e.rekey_child(now, old.reqid)).unwrap();
    pair.run(secs(1));
    let all = read(&pair);
    assert_eq!(kinds(&all[2].2), ["N(REKEY_SA)", "Sa", "Nonce", "KeyExchange", "TsInitiator", "TsResponder"]);
    assert_eq!(kinds(&all[3].2), ["Sa", "Nonce", "KeyExchange", "TsInitiator", "TsResponder"]);
    let Payload::Notify(n) = &all[2].2[0] else { panic!() };
    assert_eq!(
        (n.protocol, &n.spi[..]),
        (3, &old.inbound.spi.to_be_bytes()[..]),
        "REKEY_SA names our inbound SPI"
    );
    // DELETE follows, of our inbound SPI; the answer names the other one.
    assert_eq!(all[4].2, [Payload::Delete(Delete { protocol: 3, spis: vec![old.inbound.spi.get()] })]);
    assert_eq!(all[5].2, [Payload::Delete(Delete { protocol: 3, spis: vec![old.outbound.spi.get()] })]);
}

#[test]
fn delete_of_the_ike_sa_is_answered_by_nothing() {
    let mut pair = logged(|_, _| {});
    let ike = pair.broker.established()[0].ike;
    pair.act(Side::Broker, |e, now| e.close(now, ike)).unwrap();
    pair.run(secs(1));
    let all = read(&pair);
    assert_eq!(all[2].2, [Payload::Delete(Delete { protocol: 1, spis: vec![] })]);
    assert!(all[3].2.is_empty());
}

#[test]
fn a_critical_payload_in_a_protected_request() {
    let mut pair = logged(|_, _| {});
    let unknown = |critical| Payload::Unknown { payload_type: 201, critical, data: vec![1] };
    for exchange in [ExchangeType::Informational, ExchangeType::CreateChildSa] {
        let answer = ask(&mut pair, Side::Client, exchange, &[unknown(true)]);
        assert_eq!(answer, [Payload::Notify(Notify::new(notify::UNSUPPORTED_CRITICAL_PAYLOAD, vec![201]))]);
    }
    assert!(ask(&mut pair, Side::Client, ExchangeType::Informational, &[unknown(false)]).is_empty());
    assert!(pair.broker.closed().is_empty());
    pair.check_mirror().unwrap();
}

#[test]
fn what_does_not_exist_or_fit() {
    let mut pair = logged(|_, _| {});
    let ts = [
        Payload::TsInitiator(vec![TrafficSelector::ANY_V6]),
        Payload::TsResponder(vec![TrafficSelector::ANY_V6]),
    ];
    let nonce = Payload::Nonce(vec![7; 32]);
    let rekey = Payload::Notify(Notify::about_esp(notify::REKEY_SA, 0x7777_7777, Vec::new()));
    let create = ExchangeType::CreateChildSa;
    let mut all = vec![rekey, esp(0x0100_0001, 256, false), nonce.clone()];
    all.extend(ts.clone());
    let answer = ask(&mut pair, Side::Client, create, &all);
    let [Payload::Notify(n)] = &answer[..] else { panic!("{answer:?}") };
    assert_eq!((n.notify_type, &n.spi[..]), (notify::CHILD_SA_NOT_FOUND, &[0x77; 4][..]));
    // No nonce, no SA, no selectors, a cipher that is not ours.
    let answer = ask(&mut pair, Side::Client, create, &all[1..2]);
    assert_eq!(answer, [error(notify::INVALID_SYNTAX)]);
    let answer = ask(&mut pair, Side::Client, create, &[nonce.clone(), ts[0].clone(), ts[1].clone()]);
    assert_eq!(answer, [error(notify::INVALID_SYNTAX)]);
    let answer = ask(&mut pair, Side::Client, create, &[esp(0x0100_0001, 256, false), nonce.clone()]);
    assert_eq!(answer, [error(notify::INVALID_SYNTAX)]);
    let mut other = vec![esp(0x0100_0001, 192, false), nonce.clone()];
    other.extend(ts.clone());
    assert_eq!(ask(&mut pair, Side::Client, create, &other), [error(notify::NO_PROPOSAL_CHOSEN)]);
    // DELETE of what is not there is answered without a Delete payload.
    let delete = Payload::Delete(Delete { protocol: 3, spis: vec![0x0100_0002, 0, 255] });
    assert!(ask(&mut pair, Side::Broker, ExchangeType::Informational, &[delete]).is_empty());
    // Another exchange than those after IKE_AUTH.
    assert_eq!(ask(&mut pair, Side::Client, ExchangeType::IkeAuth, &[]), [error(notify::INVALID_SYNTAX)]);
    pair.check_mirror().unwrap();
    assert_eq!(pair.client.live().len(), 1);
}

#[test]
fn twice_the_same_payload_ends_the_ike_sa() {
    let mut pair = logged(|_, _| {});
    let nonce = Payload::Nonce(vec![7; 32]);
    send(&mut pair, Side::Client, ExchangeType::CreateChildSa, &[nonce.clone(), nonce]);
    let (side, answer) = pair.sent.last().unwrap().clone();
    assert_eq!(side, Side::Broker);
    assert_eq!(decrypt(&pair, &answer).unwrap(), [error(notify::INVALID_SYNTAX)]);
    assert!(matches!(reason(&pair.broker), CloseReason::PeerMisbehaved(_)));
    assert!(pair.broker.live().is_empty());
}

#[test]
fn more_child_sas_and_their_bound() {
    let mut pair = logged(|_, _| {});
    let mut refused = 0;
    for n in 0..72_u32 {
        let all = [
            esp(0x0200_0000 + n, 256, true),
            Payload::Nonce(vec![7; 32]),
            Payload::TsInitiator(vec![TrafficSelector::ANY_V6]),
            Payload::TsResponder(vec![TrafficSelector::ANY_V6]),
        ];
        let answer = ask(&mut pair, Side::Client, ExchangeType::CreateChildSa, &all);
        if answer == [error(notify::NO_ADDITIONAL_SAS)] {
            refused += 1;
        } else {
            assert_eq!(kinds(&answer), ["Sa", "Nonce", "TsInitiator", "TsResponder"]);
            let own = TrafficSelector::host_v6("2a00::101".parse().unwrap());
            assert_eq!(answer[2], Payload::TsInitiator(vec![own]), "never more than its address");
        }
    }
    assert_eq!((pair.broker.live().len(), refused), (64, 9));
}

#[test]
fn the_last_child_is_deleted_by_the_peer() {
    let mut pair = logged(|_, _| {});
    pair.run(secs(20));
    let old = pair.broker.live()[0].clone();
    let delete = Payload::Delete(Delete { protocol: 3, spis: vec![old.inbound.spi.get()] });
    // As a broker does that terminates a child: it forgets its side too.
    let spi = pair.broker.endpoint.spi_of(old.ike).unwrap();
    pair.act(Side::Broker, |e, _| {
        e.with_established(spi, |mut s, e, common| {
            s.remove(e, common, old.inbound.spi, Duration::ZERO);
            State::Established(s)
        });
    });
    ask(&mut pair, Side::Broker, ExchangeType::Informational, std::slice::from_ref(&delete));
    pair.run(secs(1));
    pair.check_mirror().unwrap();
    assert_eq!(pair.client.live().len(), 1, "the client asked for another one");
    assert_ne!(pair.client.live()[0].reqid, old.reqid);
    // Again at once: the peer does not want one.
    let old = pair.broker.live()[0].clone();
    let delete = Payload::Delete(Delete { protocol: 3, spis: vec![old.inbound.spi.get()] });
    ask(&mut pair, Side::Broker, ExchangeType::Informational, &[delete]);
    pair.run(secs(2));
    assert!(matches!(reason(&pair.client), CloseReason::PeerDeleted));
}

#[test]
fn mobike_notifies() {
    let mut pair = logged(|_, _| {});
    let informational = ExchangeType::Informational;
    let cookie = Payload::Notify(Notify::new(notify::COOKIE2, vec![9; 20]));
    assert_eq!(ask(&mut pair, Side::Client, informational, std::slice::from_ref(&cookie)), [cookie]);
    // NAT detection is answered in kind.
    let hashes = [notify::NAT_DETECTION_SOURCE_IP, notify::NAT_DETECTION_DESTINATION_IP]
        .map(|n| Payload::Notify(Notify::new(n, vec![1; 20])));
    let answer = ask(&mut pair, Side::Client, informational, &hashes);
    assert_eq!(kinds(&answer), ["N(NAT_DETECTION_SOURCE_IP)", "N(NAT_DETECTION_DESTINATION_IP)"]);
    // NO_NATS_ALLOWED with addresses that are not those of the packet.
    let update = [
        Payload::Notify(Notify::new(notify::UPDATE_SA_ADDRESSES, Vec::new())),
        Payload::Notify(Notify::new(notify::NO_NATS_ALLOWED, vec![0; 12])),
    ];
    let answer = ask(&mut pair, Side::Client, informational, &update);
    assert_eq!(kinds(&answer), ["N(UNEXPECTED_NAT_DETECTED)"]);
    // UPDATE_SA_ADDRESSES from who is not the initiator moves nothing.
    let before = pair.client.endpoint.ike_sas()[0].path;
    ask(&mut pair, Side::Broker, informational, &update[..1]);
    assert_eq!(pair.client.endpoint.ike_sas()[0].path, before);
}

#[test]
fn a_moved_peer_is_asked_for_a_cookie() {
    use std::net::{Ipv4Addr, SocketAddr};
    let mut pair = logged(|_, _| {});
    let ike = pair.client.established()[0].ike;
    let mut path = pair.client.endpoint.ike_sas()[0].path;
    path.local = SocketAddr::new(Ipv4Addr::new(10, 9, 8, 7).into(), 4500);
    let before = read(&pair).len();
    pair.act(Side::Client, |e, now| e.update_path(now, ike, path)).unwrap();
    pair.run(secs(1));
    let all = read(&pair);
    let of = |n: usize| kinds(&all[before + n].2);
    assert_eq!(of(0)[0], "N(UPDATE_SA_ADDRESSES)");
    let check: Vec<_> = all[before..].iter().filter(|m| kinds(&m.2) == ["N(COOKIE2)"]).collect();
    assert_eq!(check.len(), 2);
    assert_eq!(check[0].2, check[1].2);
    assert!(check[0].0 == Side::Broker && check[1].0 == Side::Client);
}

/// The peer cannot leave the check of its new address behind by rekeying the IKE SA.
#[test]
fn the_check_of_a_moved_peer_outlives_a_rekey() {
    use std::net::{Ipv4Addr, SocketAddr};
    let mut pair = logged(|_, _| {});
    let old = pair.client.endpoint.ike_sas()[0].clone();
    let mut path = old.path;
    path.local = SocketAddr::new(Ipv4Addr::new(10, 9, 8, 7).into(), 4500);
    // UPDATE_SA_ADDRESSES and its answer come through, the COOKIE2 behind them is lost.
    let mut n = 0;
    pair.link.fate = Box::new(move |_| {
        n += 1;
        if n == 3 { Fate::Drop } else { Fate::Deliver }
    });
    pair.act(Side::Client, |e, now| e.update_path(now, old.ike, path)).unwrap();
    pair.run(Duration::from_millis(50));
    pair.act(Side::Client, |e, now| e.rekey_ike(now, old.ike)).unwrap();
    pair.run(Duration::from_millis(500));
    let checks: Vec<_> = read(&pair).into_iter().filter(|m| kinds(&m.2) == ["N(COOKIE2)"]).collect();
    let anew = checks.iter().filter(|(_, header, _)| header.initiator_spi != old.initiator_spi);
    assert_eq!(anew.map(|(side, ..)| *side).collect::<Vec<_>>(), [Side::Broker, Side::Client]);
}
