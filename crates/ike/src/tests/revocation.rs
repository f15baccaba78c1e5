//! An IKE SA that waits to hear whether its peer's certificate is revoked.

use super::{CRYPTO, pki, reason, secs};
use crate::certs::CertError;
use crate::config::{PeerAuth, Revocation};
use crate::event::{CloseReason, Event, IkeSaId, RevocationCheck};
use crate::testing::{Host, Pair, Side, config};

/// Both certificates name a CRL; only `asker` looks.
fn pair(asker: Side, checks: usize) -> Pair {
    let ca = pki::ca("CA");
    let (mut client, mut broker) = pki::connections(CRYPTO, &ca);
    client.credential = pki::issue_with_crl(CRYPTO, &ca, pki::email("client@my.domain"));
    broker.credential = pki::issue_with_crl(CRYPTO, &ca, pki::dns("tunnel.my.domain"));
    for (side, connection) in [(Side::Client, &mut client), (Side::Broker, &mut broker)] {
        let PeerAuth::Certificate { revocation, .. } = &mut connection.peer_auth else { unreachable!() };
        *revocation = if side == asker { Revocation::IfUri } else { Revocation::Off };
    }
    let (mut client, mut broker) = (config([client]), config([broker]));
    client.revocation_checks = checks;
    broker.revocation_checks = checks;
    let mut pair = Pair::with_config(*CRYPTO, client, broker);
    pair.initiate();
    pair.run(secs(1));
    pair
}

fn asked(host: &Host) -> Vec<&RevocationCheck> {
    host.events
        .iter()
        .filter_map(|event| match event {
            Event::CheckRevocation(check) => Some(check.as_ref()),
            _ => None,
        })
        .collect()
}

fn the_one(host: &Host) -> (IkeSaId, CertError) {
    let checks = asked(host);
    assert_eq!(checks.len(), 1, "{:?}", host.events);
    let query = &checks[0].queries[0];
    assert_eq!(query.crls, ["http://ca.my.domain/ca.crl"]);
    (checks[0].ike, query.revoked())
}

#[test]
fn it_waits_and_goes_on() {
    for side in [Side::Client, Side::Broker] {
        let mut pair = pair(side, 256);
        assert_eq!(pair.host(side).established().len(), 0);
        let (ike, _) = the_one(pair.host(side));
        // Retransmissions of the peer are taken for what they are.
        pair.run(secs(3));
        the_one(pair.host(side));
        pair.act(side, |endpoint, now| endpoint.revocation_checked(now, ike, Ok(())));
        pair.run(secs(4));
        assert_eq!((pair.client.established().len(), pair.broker.established().len()), (1, 1), "{side:?}");
        pair.check_mirror().unwrap();
        // An answer that comes twice changes nothing.
        pair.act(side, |endpoint, now| endpoint.revocation_checked(now, ike, Err(CertError::None)));
        pair.run(secs(1));
        assert!(pair.client.closed().is_empty() && pair.broker.closed().is_empty());
    }
}

#[test]
fn it_is_revoked() {
    for side in [Side::Client, Side::Broker] {
        let mut pair = pair(side, 256);
        let (ike, revoked) = the_one(pair.host(side));
        pair.act(side, |endpoint, now| endpoint.revocation_checked(now, ike, Err(revoked)));
        pair.run(secs(4));
        assert!(matches!(reason(pair.host(side)), CloseReason::WeRefused(why) if why.contains("is revoked")));
        assert!(pair.client.endpoint.is_idle() || side == Side::Client);
        assert_eq!(pair.host(side).established().len(), 0);
        pair.run(secs(60));
        assert!(pair.client.endpoint.is_idle() && pair.broker.endpoint.is_idle());
    }
}

#[test]
fn nobody_answers() {
    for side in [Side::Client, Side::Broker] {
        let mut pair = pair(side, 256);
        pair.run(secs(13));
        let CloseReason::WeRefused(why) = reason(pair.host(side)) else { unreachable!() };
        assert!(why.contains("no answer within 12 s"), "{why}");
        pair.run(secs(200));
        assert!(pair.client.endpoint.is_idle() && pair.broker.endpoint.is_idle(), "{side:?}");
    }
}

#[test]
fn no_more_wait_than_allowed() {
    let pair = pair(Side::Broker, 0);
    assert!(asked(&pair.broker).is_empty());
    assert!(
        matches!(reason(&pair.broker), CloseReason::WeRefused(why) if why.contains("other peers are being checked"))
    );
}

#[test]
fn it_is_closed_while_it_waits() {
    for side in [Side::Client, Side::Broker] {
        let mut pair = pair(side, 256);
        let (ike, _) = the_one(pair.host(side));
        pair.act(side, |endpoint, now| endpoint.close(now, ike)).unwrap();
        assert!(matches!(reason(pair.host(side)), CloseReason::Local));
        assert!(pair.host(side).endpoint.is_idle());
        pair.act(side, |endpoint, now| endpoint.revocation_checked(now, ike, Ok(())));
        assert!(pair.host(side).endpoint.is_idle());
    }
}
