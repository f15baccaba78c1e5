use super::{CRYPTO, established, no_ping_lost, pair, pki, secs};
use crate::config::{AddressConfig, EspProposal, IkeProposal, IpcompPolicy, PrefixWish, RemoteId};
use crate::event::{Event, Path};
use crate::identity::Identity;
use crate::selector::TrafficSelector;
use crate::testing::{Fate, Pair, Side, config, first_path, psk_connections};
use crate::wire::{ExchangeType, Header};
use ferry6_crypto::{Cipher, Group, Integ, Prf};
use std::net::{Ipv4Addr, SocketAddr};

#[test]
fn psk() {
    let mut pair = established(|_, _| {});
    let up = pair.client.established()[0].clone();
    assert_eq!(up.lease.address, Some("2a00::101".parse().unwrap()));
    assert_eq!(up.lease.dns, ["2a00::53".parse::<std::net::Ipv6Addr>().unwrap()]);
    assert_eq!((up.path.local.port(), up.path.remote.port()), (4500, 4500));
    assert!(!up.nat_local && !up.nat_remote, "there is no NAT, whatever the hashes pretend");
    let client = TrafficSelector::prefix("2a00::101".parse().unwrap(), 128).unwrap();
    assert_eq!(pair.client.live()[0].local_ts, [client]);
    assert_eq!(pair.client.live()[0].remote_ts, [TrafficSelector::ANY_V6]);
    pair.run_with_pings(secs(2), secs(1));
    no_ping_lost(&pair);
    assert!(pair.client.warnings().is_empty() && pair.broker.warnings().is_empty());
    assert_eq!(pair.sent.len(), 4, "two exchanges of one message each way");
}

#[test]
fn installs_before_it_answers() {
    // The broker's events in their order: its Child SA must be there before the response of IKE_AUTH leaves.
    let mut pair = pair(|_, _| {});
    pair.initiate();
    let broker = |pair: &mut Pair, path: Path| {
        let (side, octets) = pair.sent.last().unwrap().clone();
        assert_eq!(side, Side::Client);
        let (now, path) = (pair.now, Path { local: path.remote, remote: path.local });
        pair.broker.endpoint.handle_datagram(now, path, &octets);
        std::iter::from_fn(|| pair.broker.endpoint.poll()).collect::<Vec<_>>()
    };
    let events = broker(&mut pair, first_path());
    let [Event::Transmit(answer)] = &events[..] else { panic!("{events:?}") };
    let octets = answer.payload.clone();
    pair.act(Side::Client, |e, now| e.handle_datagram(now, first_path(), &octets));
    let path = pair.client.endpoint.ike_sas()[0].path;
    let events = broker(&mut pair, path);
    let at = |is: fn(&Event) -> bool| events.iter().position(is);
    let (installed, sent) =
        (at(|e| matches!(e, Event::InstallChildSa(_))), at(|e| matches!(e, Event::Transmit(_))));
    assert!(installed.is_some() && installed < sent, "{events:?}");
}

#[test]
fn certificates_of_every_kind() {
    let ca = pki::ca("CA");
    let algorithms = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    for algorithm in algorithms {
        let (mut client, broker) = pki::connections(CRYPTO, &ca);
        let leaf = pki::Leaf { algorithm, ..pki::email("client@my.domain") };
        client.credential = pki::issue(CRYPTO, &ca, leaf, &[]);
        let mut pair = Pair::new(*CRYPTO, client, broker);
        pair.initiate();
        pair.run(secs(1));
        pair.check_mirror().unwrap();
        assert_eq!(pair.client.live().len(), 1, "{:?} {:?}", pair.client.events, pair.broker.events);
        let id = &pair.broker.established()[0].remote_id;
        assert_eq!(id.to_string(), Identity::Rfc822("client@my.domain".to_owned()).to_string());
    }
}

#[test]
fn two_cas_and_an_intermediate_in_fragments() {
    let (root, other) = (pki::ca("root"), pki::ca("other"));
    let between = pki::intermediate("between", &root);
    let (mut client, mut broker) = psk_connections();
    client.credential = pki::issue(CRYPTO, &between, pki::email("client@my.domain"), &[&between]);
    client.peer_auth = pki::trust(&other);
    broker.credential = pki::issue(CRYPTO, &other, pki::dns("tunnel.my.domain"), &[]);
    broker.peer_auth = pki::trust(&root);
    client.fragment_size = Some(600);
    let mut pair = Pair::new(*CRYPTO, client, broker);
    pair.initiate();
    pair.run(secs(1));
    pair.check_mirror().unwrap();
    assert_eq!(pair.client.live().len(), 1, "{:?} {:?}", pair.client.events, pair.broker.events);
    let auth: Vec<usize> = pair
        .sent
        .iter()
        .filter(|(side, m)| {
            *side == Side::Client && Header::parse(m).unwrap().exchange == ExchangeType::IkeAuth
        })
        .map(|(_, m)| m.len())
        .collect();
    assert!(auth.len() >= 3 && auth.iter().all(|len| *len <= 600), "{auth:?}");
}

#[test]
fn every_suite_prf_and_group() {
    for cipher in Cipher::ALL {
        for (integ, prf, group) in [
            (Integ::HmacSha1_96, Prf::HmacSha1, Group::Modp2048),
            (Integ::HmacSha256_128, Prf::HmacSha256, Group::X25519),
            (Integ::HmacSha384_192, Prf::HmacSha384, Group::Ecp384),
            (Integ::HmacSha512_256, Prf::HmacSha512, Group::Ecp256),
        ] {
            let ike = IkeProposal {
                ciphers: vec![cipher],
                integs: vec![integ],
                prfs: vec![prf],
                groups: vec![group],
            };
            let esp = EspProposal {
                ciphers: vec![cipher],
                integs: vec![integ],
                groups: vec![group],
                esn: vec![true],
            };
            let mut pair = established(|c, b| {
                (c.ike, b.ike) = (vec![ike.clone()], vec![ike]);
                (c.esp, b.esp) = (vec![esp.clone()], vec![esp]);
            });
            pair.run_with_pings(secs(1), secs(1));
            pair.run(secs(1));
            no_ping_lost(&pair);
            assert!(pair.client.live()[0].esn);
            let status = &pair.client.endpoint.ike_sas()[0];
            assert_eq!(status.state, "established");
            assert!(!status.algorithms.is_empty() && status.children.len() == 1);
        }
    }
}

#[test]
fn another_group_than_guessed() {
    let pair = established(|client, broker| {
        client.ike[0].groups = vec![Group::X25519, Group::Ecp384];
        broker.ike[0].groups = vec![Group::Ecp384];
    });
    assert_eq!(pair.sent.len(), 6, "INVALID_KE_PAYLOAD costs one round trip");
    assert!(pair.client.endpoint.ike_sas()[0].algorithms.ends_with("ECP_384"));
}

#[test]
fn cookies_and_another_group_together() {
    let (mut client, mut broker) = psk_connections();
    client.ike[0].groups = vec![Group::X25519, Group::Ecp384];
    broker.ike[0].groups = vec![Group::Ecp384];
    let mut broker = config([broker]);
    broker.half_open.cookie_from = 0;
    let mut pair = Pair::with_config(*CRYPTO, config([client]), broker);
    pair.initiate();
    pair.run(secs(1));
    pair.check_mirror().unwrap();
    assert_eq!(pair.client.live().len(), 1);
    assert_eq!(pair.sent.len(), 8, "COOKIE, INVALID_KE_PAYLOAD with the same cookie, then both exchanges");
}

#[test]
fn nats_are_told_truthfully() {
    let public = SocketAddr::new(Ipv4Addr::new(1, 2, 3, 4).into(), 40001);
    for forced in [true, false] {
        let (client, broker) = psk_connections();
        let (mut client, mut broker) = (config([client]), config([broker]));
        (client.force_encap, broker.force_encap) = (forced, forced);
        let mut pair = Pair::with_config(*CRYPTO, client, broker);
        pair.link.nat = Box::new(move |a| SocketAddr::new(public.ip(), a.port() + 30000));
        pair.link.nat_back =
            Box::new(|a| Some(SocketAddr::new(crate::testing::CLIENT.into(), a.port() - 30000)));
        pair.initiate();
        pair.run(secs(1));
        let (up, broker_up) = (pair.client.established()[0], pair.broker.established()[0]);
        assert_eq!((up.nat_local, up.nat_remote), (true, false), "forced: {forced}");
        assert_eq!((broker_up.nat_local, broker_up.nat_remote), (false, true), "forced: {forced}");
        assert_eq!(broker_up.path.remote, SocketAddr::new(public.ip(), 34500));
    }
}

#[test]
fn from_port_4500_at_once() {
    let (client, broker) = psk_connections();
    let mut client = config([client]);
    client.nat_port = 23456;
    let mut pair = Pair::with_config(*CRYPTO, client, config([broker]));
    let path = Path {
        local: SocketAddr::new(crate::testing::CLIENT.into(), 23456),
        remote: SocketAddr::new(crate::testing::BROKER.into(), 4500),
    };
    pair.act(Side::Client, |e, now| e.initiate(now, "to-broker", path).unwrap());
    pair.run(secs(1));
    pair.check_mirror().unwrap();
    assert_eq!(pair.client.established()[0].path, path);
}

#[test]
fn ipcomp_by_policy() {
    use IpcompPolicy::{Accept, Off, On};
    for (client, broker, used) in
        [(On, Accept, true), (On, On, true), (On, Off, false), (Accept, On, false), (Accept, Accept, false)]
    {
        let mut pair = established(|c, b| (c.ipcomp, b.ipcomp) = (client, broker));
        let old = pair.client.live()[0].clone();
        assert_eq!(old.inbound.ipcomp_cpi.is_some(), used, "{client:?} {broker:?}");
        assert!(old.inbound.ipcomp_cpi.is_none_or(|cpi| (256..=61439).contains(&cpi)));
        let reqid = old.reqid;
        pair.act(Side::Client, |e, now| e.rekey_child(now, reqid).unwrap());
        pair.run(secs(10));
        pair.check_mirror().unwrap();
        let new = pair.client.live()[0].clone();
        assert_ne!(new.inbound.spi, old.inbound.spi);
        assert_eq!(new.inbound.ipcomp_cpi.is_some(), used);
        assert!(!used || new.inbound.ipcomp_cpi != old.inbound.ipcomp_cpi, "a new CPI in each rekey");
    }
}

#[test]
fn a_wide_answer_is_narrowed_to_our_address() {
    // As iked does: no lease-based narrowing on the broker's side.
    let pool = TrafficSelector::prefix("2a00::100".parse().unwrap(), 120).unwrap();
    let mut pair = pair(|client, broker| {
        broker.remote_ts = vec![pool];
        client.local_ts = vec![TrafficSelector::ANY_V6];
    });
    pair.initiate();
    pair.run(secs(1));
    pair.check_mirror().unwrap();
    let own = TrafficSelector::prefix("2a00::101".parse().unwrap(), 128).unwrap();
    assert_eq!(pair.client.live()[0].local_ts, [own]);
}

#[test]
fn connections_side_by_side() {
    let ca = pki::ca("CA");
    let (_, by_cert) = pki::connections(CRYPTO, &ca);
    let (client, mut by_psk) = psk_connections();
    let (cert_client, _) = pki::connections(CRYPTO, &ca);
    by_psk.name = "by-psk".to_owned();
    by_psk.remote_id = RemoteId::Any;
    let broker = || config([by_cert.clone(), by_psk.clone()]);
    for (client, expected) in [(client, "by-psk"), (cert_client, "clients")] {
        let mut pair = Pair::with_config(*CRYPTO, config([client]), broker());
        pair.initiate();
        pair.run(secs(1));
        pair.check_mirror().unwrap();
        assert_eq!(pair.broker.established()[0].connection, expected);
    }
}

#[test]
fn without_configuration_payload() {
    let ts = |s: &str, l| vec![TrafficSelector::prefix(s.parse().unwrap(), l).unwrap()];
    let pair = established(|client, broker| {
        (client.addresses, broker.addresses) = (AddressConfig::None, AddressConfig::None);
        client.local_ts = ts("2a00:1::", 64);
        client.remote_ts = ts("2a00:2::", 64);
        broker.local_ts = ts("2a00:2::", 48);
        broker.remote_ts = ts("2a00:1::", 48);
    });
    assert_eq!(pair.broker.live()[0].remote_ts, ts("2a00:1::", 64));
}

#[test]
fn a_wanted_address_is_asked_for() {
    let wanted = "2a00::103".parse().unwrap();
    let pair = established(|client, _| {
        client.addresses = AddressConfig::Request { address: Some(wanted), prefix: PrefixWish::None }
    });
    // The little pool does not care for wishes; the request itself must not fail.
    assert!(pair.client.established()[0].lease.address.is_some());
}

#[test]
fn every_first_message_lost_or_twice() {
    for fate in [Fate::Drop, Fate::Duplicate, Fate::Delay(secs(3))] {
        for victim in 0..4 {
            let mut pair = pair(|_, _| {});
            let mut n = 0;
            pair.link.fate = Box::new(move |_| {
                n += 1;
                if n == victim + 1 { fate } else { Fate::Deliver }
            });
            pair.initiate();
            pair.run(secs(20));
            pair.check_mirror().unwrap();
            assert_eq!(pair.client.live().len(), 1, "{fate:?} {victim}");
            assert_eq!(pair.broker.established().len(), 1, "no second SA: {fate:?} {victim}");
            assert_eq!(pair.broker.endpoint.half_open(), 0);
        }
    }
}

#[test]
fn keys_are_logged_only_when_asked() {
    let is_key = |e: &&Event| matches!(e, Event::IkeKeys(_));
    let pair = established(|_, _| {});
    assert_eq!(pair.client.events.iter().filter(is_key).count(), 0);
    let (client, broker) = psk_connections();
    let mut client = config([client]);
    client.keylog = true;
    let mut pair = Pair::with_config(*CRYPTO, client, config([broker]));
    let ike = pair.initiate();
    pair.run(secs(1));
    pair.act(Side::Client, |e, now| e.rekey_ike(now, ike).unwrap());
    pair.run(secs(5));
    assert_eq!(pair.client.events.iter().filter(is_key).count(), 2);
}
