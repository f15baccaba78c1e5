//! Authentication: key types, chains, pre-shared keys, large certificates.

use super::tunnel::{
    BROKER_ID, CLIENT_ID, Credentials, FERRY6, FERRY6_RUST, Program, Side, Spec, Tunnel, certificates, psk,
};
use super::{Case, Env, Peer, Role};
use crate::pki::{Ca, Flaw, KeyType};
use anyhow::{Result, ensure};
use ferry6::lab::{Capture, CaptureOptions};

const KEY_TYPES: [(&str, KeyType); 4] = [
    ("rsa2048", KeyType::Rsa2048),
    ("ecdsa-p256", KeyType::Ecdsa256),
    ("ecdsa-p384", KeyType::Ecdsa384),
    ("ed25519", KeyType::Ed25519),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut both = |name: &str, feature: &str, run: fn(&mut Env, Program, Program) -> Result<()>| {
        for (role_name, client, broker, peer, role) in [
            ("client", FERRY6, Program::StrongSwan, Peer::StrongSwan, Role::Client),
            ("broker", Program::StrongSwan, FERRY6, Peer::StrongSwan, Role::Broker),
            ("client-rust", FERRY6_RUST, Program::StrongSwan, Peer::StrongSwan, Role::Client),
            ("broker-rust", Program::StrongSwan, FERRY6_RUST, Peer::StrongSwan, Role::Broker),
            ("ferry6", FERRY6, FERRY6_RUST, Peer::Ferry6, Role::Both),
        ] {
            cases.push(Case::new(format!("auth-{role_name}-{name}"), peer, role, feature, move |env| {
                run(env, client, broker)
            }));
        }
    };
    both("psk", "pre-shared key", |env, client, broker| {
        Spec::new(client, broker, psk("a pre-shared key of good length")).exercise(env).map(drop)
    });
    both("chain", "certificates below an intermediate CA, only the root is known to the peer", chain);
    both("rsa4096-fragments", "RSA-4096 chain in IKE fragments (RFC 7383)", fragments);
    for (name, key_type) in KEY_TYPES {
        for (role_name, client, broker, role) in [
            ("client", FERRY6, Program::StrongSwan, Role::Client),
            ("broker", Program::StrongSwan, FERRY6, Role::Broker),
            ("client-rust", FERRY6_RUST, Program::StrongSwan, Role::Client),
            ("broker-rust", Program::StrongSwan, FERRY6_RUST, Role::Broker),
        ] {
            cases.push(Case::new(
                format!("auth-{role_name}-{name}"),
                Peer::StrongSwan,
                role,
                format!("{name} certificates (RFC 7427)"),
                move |env| {
                    let pki = certificates(&env.subdir("pki")?, key_type)?;
                    Spec::new(client, broker, pki).exercise(env).map(drop)
                },
            ));
        }
    }
    for (name, key_type) in &KEY_TYPES[..2] {
        for (role_name, client, broker, role) in [
            ("client", FERRY6, Program::StrongSwan, Role::Client),
            ("broker", Program::StrongSwan, FERRY6, Role::Broker),
        ] {
            let key_type = *key_type;
            cases.push(Case::new(
                format!("auth-{role_name}-classic-{name}"),
                Peer::StrongSwan,
                role,
                format!("{name} with a peer that knows no RFC 7427 (methods 1 and 9)"),
                move |env| {
                    let pki = certificates(&env.subdir("pki")?, key_type)?;
                    let mut spec = Spec::new(client, broker, pki);
                    spec.swan_charon = "signature_authentication = no".into();
                    spec.exercise(env).map(drop)
                },
            ));
        }
    }
    cases
}

fn chained(env: &Env, key_type: KeyType) -> Result<(Credentials, Credentials)> {
    let root = Ca::new(&env.subdir("pki")?, "root", key_type)?;
    let side = |ca: &str, name: &str, id: &str| -> Result<Credentials> {
        let intermediate = root.intermediate(ca)?;
        Ok(Credentials {
            entity: Some(intermediate.issue(name, id, key_type, Flaw::default())?),
            intermediates: vec![intermediate.cert.clone()],
            trust: vec![root.cert.clone()],
            crls: Vec::new(),
            psk: String::new(),
        })
    };
    Ok((side("clients", "client", CLIENT_ID)?, side("brokers", "broker", BROKER_ID)?))
}

fn chain(env: &mut Env, client: Program, broker: Program) -> Result<()> {
    Spec::new(client, broker, chained(env, KeyType::Ecdsa256)?).exercise(env).map(drop)
}

fn fragments(env: &mut Env, client: Program, broker: Program) -> Result<()> {
    let spec = Spec::new(client, broker, chained(env, KeyType::Rsa4096)?);
    let pcap = env.dir.join("internet.pcap");
    let options = CaptureOptions { pcap: Some(pcap.clone()), ..CaptureOptions::default() };
    let capture = Capture::start(&env.net.internet, "colo", options)?;
    let tunnel = spec.up(env)?;
    tunnel.carries_traffic(env)?;
    let counts = capture.stop()?;
    ensure!(counts.only_ipsec(), "on the internet there was more than IPsec: {counts}");
    // Two chains of 4096-bit certificates are far above one datagram each way.
    ensure!(counts.ike_nat >= 4, "too few IKE datagrams for fragments: {counts}");
    says_fragments(&tunnel)
}

fn says_fragments(tunnel: &Tunnel) -> Result<()> {
    for side in [&tunnel.client, &tunnel.broker] {
        if let Side::Swan(swan) = side {
            let log = swan.log();
            for words in ["splitting IKE message", "received fragment #1 of"] {
                ensure!(log.contains(words), "strongSwan's log does not say “{words}”:\n{log}");
            }
        }
    }
    Ok(())
}
