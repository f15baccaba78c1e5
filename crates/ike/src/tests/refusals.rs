//! Each refusal: its notify on the wire as the client reads it, and its reason where it was decided.

use super::{CRYPTO, pair, pki, reason, secs};
use crate::config::{
    AddressConfig, Barred, Connection, Credential, EspProposal, PeerAuth, RemoteId, Revocation,
};
use crate::counters::Counter;
use crate::event::CloseReason;
use crate::identity::Identity;
use crate::selector::TrafficSelector;
use crate::testing::{Pair, Side, SmallPool, config, endpoint, psk_connections};
use ferry6_crypto::{Cipher, Group, Prf, Secret};
use std::collections::HashMap;
use std::sync::Arc;

/// Runs a handshake that the broker refuses: what the client was told, and why the broker did it.
#[track_caller]
fn refused(client: Connection, broker: Connection) -> (String, String) {
    let mut pair = Pair::new(*CRYPTO, client, broker);
    pair.initiate();
    pair.run(secs(5));
    assert!(pair.client.sad.is_empty() && pair.broker.sad.is_empty());
    assert!(pair.client.established().is_empty() && pair.broker.established().is_empty());
    assert!(!pair.client.closed()[0].established);
    let CloseReason::PeerRefused(told) = reason(&pair.client) else { panic!("{:?}", pair.client.events) };
    let why = match &pair.broker.closed()[..] {
        [closed] => {
            assert_eq!(closed.path.remote.ip(), crate::testing::CLIENT);
            let who = closed.remote_id.as_ref().map_or_else(String::new, ToString::to_string);
            format!("{} {who} {}", closed.path.remote, closed.reason)
        }
        [] => pair.broker.warnings().join("\n"),
        more => panic!("{more:?}"),
    };
    assert!(why.contains("192.168.0.2"), "the peer's address is told: {why}");
    pair.run(secs(200));
    assert!(pair.client.endpoint.ike_sas().is_empty() && pair.broker.endpoint.ike_sas().is_empty());
    assert_eq!(pair.broker.endpoint.poll_timeout(), None, "nothing is left of it");
    (told, why)
}

#[track_caller]
fn authentication_failed(client: Connection, broker: Connection) -> String {
    let (told, why) = refused(client, broker);
    assert!(told.starts_with("AUTHENTICATION_FAILED"), "{told}");
    assert!(why.contains("client@"), "the identity is told: {why}");
    assert!(why.contains("refused with AUTHENTICATION_FAILED"), "{why}");
    why
}

#[test]
fn wrong_psk() {
    let (mut client, broker) = psk_connections();
    client.credential = Credential::Psk(Secret::new(b"another one".to_vec()));
    let why = authentication_failed(client, broker);
    assert!(why.contains("pre-shared key"), "{why}");
}

#[test]
fn expired_certificate() {
    let ca = pki::ca("CA");
    let (mut client, broker) = pki::connections(CRYPTO, &ca);
    let leaf = pki::Leaf { not_after: 2025, ..pki::email("client@my.domain") };
    client.credential = pki::issue(CRYPTO, &ca, leaf, &[]);
    let why = authentication_failed(client, broker);
    assert!(why.contains("expired"), "{why}");
}

#[test]
fn unknown_ca() {
    let (ca, other) = (pki::ca("CA"), pki::ca("somebody"));
    let (mut client, broker) = pki::connections(CRYPTO, &ca);
    client.credential = pki::issue(CRYPTO, &other, pki::email("client@my.domain"), &[]);
    let why = authentication_failed(client, broker);
    assert!(why.contains("somebody") && why.contains("not one of the trusted CAs"), "{why}");
}

#[test]
fn identity_not_in_the_certificate() {
    let ca = pki::ca("CA");
    let (mut client, broker) = pki::connections(CRYPTO, &ca);
    client.credential = pki::issue(CRYPTO, &ca, pki::email("someone@my.domain"), &[]);
    let why = authentication_failed(client, broker);
    assert!(why.contains("does not stand in the certificate") && why.contains("someone@my.domain"), "{why}");
}

#[test]
fn revoked_certificate() {
    let ca = pki::ca("CA");
    let (client, mut broker) = pki::connections(CRYPTO, &ca);
    let PeerAuth::Certificate { crls, .. } = &mut broker.peer_auth else { unreachable!() };
    *crls = vec![pki::crl(&ca, 7)];
    let why = authentication_failed(client, broker);
    assert!(why.contains("revoked"), "{why}");
}

#[test]
fn strict_without_a_crl() {
    let ca = pki::ca("CA");
    let (client, mut broker) = pki::connections(CRYPTO, &ca);
    let PeerAuth::Certificate { revocation, .. } = &mut broker.peer_auth else { unreachable!() };
    *revocation = Revocation::Strict;
    let why = authentication_failed(client, broker);
    assert!(why.contains("CRL"), "{why}");
}

#[test]
fn another_key_than_the_certificates() {
    let ca = pki::ca("CA");
    let (mut client, broker) = pki::connections(CRYPTO, &ca);
    let other = pki::issue(CRYPTO, &ca, pki::email("client@my.domain"), &[]);
    let (Credential::Certificate { key, .. }, Credential::Certificate { key: other, .. }) =
        (&mut client.credential, other)
    else {
        unreachable!()
    };
    *key = other;
    let why = authentication_failed(client, broker);
    assert!(why.contains("does not verify"), "{why}");
}

#[test]
fn an_identity_that_no_connection_is_for() {
    let (client, mut broker) = psk_connections();
    broker.remote_id = RemoteId::Exactly(Identity::Fqdn("somebody.else".to_owned()));
    let unknown = authentication_failed(client.clone(), broker);
    assert!(unknown.contains("no connection is for this identity"), "{unknown}");
}

#[test]
fn another_idr_than_ours() {
    let (client, mut broker) = psk_connections();
    broker.local_id = Identity::Fqdn("other.my.domain".to_owned());
    let why = authentication_failed(client, broker);
    assert!(why.contains("tunnel.my.domain"), "{why}");
}

#[test]
fn a_psk_where_a_certificate_is_required_and_the_other_way_round() {
    let ca = pki::ca("CA");
    let (psk_client, psk_broker) = psk_connections();
    let (cert_client, cert_broker) = pki::connections(CRYPTO, &ca);
    let why = authentication_failed(psk_client, cert_broker);
    assert!(why.contains("certificate is required"), "{why}");
    let why = authentication_failed(cert_client, psk_broker);
    assert!(why.contains("pre-shared key is required"), "{why}");
}

#[test]
fn what_is_refused_looks_the_same_on_the_wire() {
    // Unknown identity, wrong key, wrong kind: the client sees messages of the same lengths.
    let lengths = |client: Connection, broker: Connection| {
        let mut pair = Pair::new(*CRYPTO, client, broker);
        pair.initiate();
        pair.run(secs(2));
        let of_broker = pair.sent.iter().filter(|(side, _)| *side == Side::Broker);
        of_broker.map(|(_, m)| m.len()).collect::<Vec<_>>()
    };
    let (client, broker) = psk_connections();
    let mut wrong_key = client.clone();
    wrong_key.credential = Credential::Psk(Secret::new(b"another one".to_vec()));
    let mut unknown = client;
    unknown.local_id = Identity::Rfc822("nobody@else.where".to_owned());
    assert_eq!(lengths(wrong_key, broker.clone()), lengths(unknown, broker));
}

#[test]
fn no_common_ike_proposal() {
    for change in [
        (|c: &mut Connection| c.ike[0].ciphers = vec![Cipher::ChaCha20Poly1305]) as fn(&mut Connection),
        |c| c.ike[0].prfs = vec![Prf::HmacSha512],
        |c| c.ike[0].groups = vec![Group::Modp2048],
    ] {
        let (mut client, broker) = psk_connections();
        change(&mut client);
        let (told, why) = refused(client, broker);
        assert!(told.starts_with("NO_PROPOSAL_CHOSEN in IKE_SA_INIT"), "{told}");
        assert!(told.contains("we offered ENCR_"), "{told}");
        assert!(why.contains("NO_PROPOSAL_CHOSEN") && why.contains("it offers"), "{why}");
    }
}

/// The IKE SA comes up on the broker, the Child SA does not: the client closes.
#[track_caller]
fn child_refused(pair: &mut Pair, notify: &str, why: &str) {
    pair.initiate();
    pair.run(secs(5));
    let CloseReason::PeerRefused(told) = reason(&pair.client) else { panic!("{:?}", pair.client.events) };
    assert!(told.starts_with(notify), "{told}");
    assert!(pair.client.established().is_empty() && pair.client.sad.is_empty());
    let warnings = pair.broker.warnings().join("\n");
    assert!(
        warnings.contains(why) && warnings.contains(notify) && warnings.contains("client@my.domain"),
        "{warnings}"
    );
    assert_eq!(pair.broker.established().len(), 1, "a failed child keeps the IKE SA");
    assert!(matches!(reason(&pair.broker), CloseReason::PeerDeleted), "the client deletes it");
}

#[test]
fn no_common_esp_proposal() {
    let mut pair = pair(|client, _| {
        client.esp = vec![EspProposal {
            ciphers: vec![Cipher::ChaCha20Poly1305],
            integs: vec![],
            groups: vec![],
            esn: vec![false],
        }];
    });
    child_refused(&mut pair, "NO_PROPOSAL_CHOSEN", "no ESP proposal");
    let CloseReason::PeerRefused(told) = reason(&pair.client) else { panic!() };
    assert!(told.contains("we offered ENCR_CHACHA20_POLY1305"), "{told}");
}

#[test]
fn selectors_with_nothing_in_common() {
    let mut pair = pair(|client, _| {
        client.remote_ts = vec![TrafficSelector::prefix("10.0.0.0".parse().unwrap(), 8).unwrap()];
    });
    child_refused(&mut pair, "TS_UNACCEPTABLE", "it asks for ::/0 === 10.0.0.0/8");
}

#[test]
fn no_free_address() {
    let (client, broker) = psk_connections();
    let pool = SmallPool::new([]);
    let mut pair = Pair::of(
        endpoint(*CRYPTO, config([client]), 1, None),
        endpoint(*CRYPTO, config([broker]), 2, Some(pool)),
    );
    child_refused(&mut pair, "INTERNAL_ADDRESS_FAILURE", "no free address");
}

#[test]
fn an_address_is_required_but_not_asked_for() {
    let mut pair = pair(|client, _| client.addresses = AddressConfig::None);
    child_refused(&mut pair, "FAILED_CP_REQUIRED", "requests no IPv6 address");
}

#[test]
fn an_address_is_given_back_when_the_child_fails() {
    let (mut client, broker) = psk_connections();
    client.remote_ts = vec![TrafficSelector::prefix("10.0.0.0".parse().unwrap(), 8).unwrap()];
    let pool = crate::testing::pool();
    let mut pair = Pair::of(
        endpoint(*CRYPTO, config([client]), 1, None),
        endpoint(*CRYPTO, config([broker]), 2, Some(pool.clone())),
    );
    pair.initiate();
    pair.run(secs(1));
    assert_eq!(pool.given(), 0);
}

#[test]
fn the_client_wants_an_address_and_gets_none() {
    let mut pair = pair(|_, broker| broker.addresses = AddressConfig::None);
    pair.initiate();
    pair.run(secs(5));
    assert!(reason(&pair.client).to_string().contains("has none"));
    assert!(matches!(reason(&pair.broker), CloseReason::PeerDeleted));
    assert!(pair.broker.live().is_empty());
}

/// The client refuses the broker: the broker learns AUTHENTICATION_FAILED, and both give up.
#[track_caller]
fn broker_refused(client: Connection, broker: Connection) -> String {
    let mut pair = Pair::new(*CRYPTO, client, broker);
    pair.initiate();
    pair.run(secs(5));
    let CloseReason::WeRefused(why) = reason(&pair.client) else { panic!("{:?}", pair.client.events) };
    let CloseReason::PeerRefused(told) = reason(&pair.broker) else { panic!("{:?}", pair.broker.events) };
    assert!(told.starts_with("AUTHENTICATION_FAILED"), "{told}");
    assert!(why.contains("192.168.100.2") && why.contains("tunnel.my.domain"), "{why}");
    assert!(pair.client.live().is_empty() && pair.broker.live().is_empty());
    why
}

#[test]
fn the_client_refuses_the_broker() {
    let (ca, other) = (pki::ca("CA"), pki::ca("somebody"));
    let (mut client, broker) = pki::connections(CRYPTO, &ca);
    client.peer_auth = pki::trust(&other);
    assert!(broker_refused(client, broker).contains("not one of the trusted CAs"));
    // A broker that has a certificate of another name, however good.
    let (client, mut broker) = pki::connections(CRYPTO, &ca);
    broker.credential = pki::issue(CRYPTO, &ca, pki::dns("evil.my.domain"), &[]);
    assert!(broker_refused(client, broker).contains("does not stand in the certificate"));
}

#[test]
fn the_client_refuses_another_identity() {
    let (mut client, mut broker) = psk_connections();
    client.remote_id = RemoteId::Pattern("*.my.domain".to_owned());
    broker.local_id = Identity::Fqdn("evil.example".to_owned());
    let mut pair = Pair::new(*CRYPTO, client, broker);
    pair.initiate();
    pair.run(secs(5));
    assert!(reason(&pair.client).to_string().contains("evil.example"));
    assert!(reason(&pair.broker).to_string().contains("AUTHENTICATION_FAILED"));
}

#[test]
fn nobody_answers() {
    let mut pair = pair(|_, _| {});
    pair.link.fate = Box::new(|_| crate::testing::Fate::Drop);
    pair.initiate();
    pair.run(secs(300));
    let CloseReason::Timeout { tries, seconds } = reason(&pair.client) else { panic!() };
    // 1 + 1.8 + 3.24 + 5.83 + 10.5 + 18.9 + 34.0 seconds.
    assert_eq!((tries, seconds), (7, 75));
    assert_eq!(pair.sent.len(), 7);
    assert_eq!(pair.client.endpoint.poll_timeout(), None);
}

#[test]
fn a_barred_identity_is_closed_and_not_let_in() {
    let (client, broker) = psk_connections();
    let identity = client.local_id.clone();
    let other = Identity::Rfc822("somebody@my.domain".to_owned());
    let barred =
        |who: &Identity| -> Barred { Arc::new(HashMap::from([(who.clone(), "on holiday".to_owned())])) };
    let mut pair = Pair::new(*CRYPTO, client, broker);
    pair.initiate();
    pair.run(secs(5));
    assert_eq!(pair.broker.established().len(), 1);

    // Others are none of its business.
    pair.act(Side::Broker, |endpoint, now| endpoint.bar(now, barred(&other)));
    pair.run(secs(5));
    assert!(pair.broker.closed().is_empty());

    pair.act(Side::Broker, |endpoint, now| endpoint.bar(now, barred(&identity)));
    pair.run(secs(5));
    assert!(matches!(reason(&pair.client), CloseReason::PeerDeleted), "{:?}", pair.client.events);
    assert_eq!(reason(&pair.broker).to_string(), "closed by us: on holiday");
    assert_eq!(reason(&pair.broker).cause(), "barred");
    assert!(pair.client.live().is_empty() && pair.broker.live().is_empty());

    // It proves who it is, and is refused as if it could not.
    pair.initiate();
    pair.run(secs(5));
    let told = pair.client.closed()[1].reason.to_string();
    assert!(told.starts_with("the peer refused: AUTHENTICATION_FAILED"), "{told}");
    let why = pair.broker.closed()[1].reason.to_string();
    assert_eq!(why, "refused with AUTHENTICATION_FAILED: on holiday");
    assert_eq!(pair.broker.endpoint.counters().get(Counter::AuthBarred), 1);

    // And let in again.
    pair.act(Side::Broker, |endpoint, now| endpoint.bar(now, Barred::default()));
    pair.initiate();
    pair.run(secs(5));
    assert_eq!(pair.broker.established().len(), 2);
}

#[test]
fn a_barred_peer_leaves_the_tunnel_of_its_identity_alone() {
    // The one that stands was made by a connection of before; the list came while the second peer was on its way.
    let (client, broker) = psk_connections();
    let identity = client.local_id.clone();
    let mut pair = Pair::new(*CRYPTO, client, broker);
    pair.initiate();
    pair.run(secs(5));
    pair.broker.endpoint.config.barred = Arc::new(HashMap::from([(identity, "one is enough".to_owned())]));
    pair.initiate();
    pair.run(secs(5));
    assert_eq!(pair.broker.endpoint.ike_sas().len(), 1, "the older one stands");
    assert!(pair.broker.closed().iter().all(|closed| !closed.established));
}
