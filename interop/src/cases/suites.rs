//! Every suite, in both roles and with both crypto providers.

use super::tunnel::{FERRY6, FERRY6_RUST, Program, Side, Spec, Tunnel, eventually, server6};
use super::{Case, Env, Peer, Role};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Read;
use std::net::UdpSocket;
use std::time::Duration;

/// Name, IKE proposal, ESP proposal (in strongSwan's words), and what strongSwan calls that ESP suite.
const SUITES: [(&str, &str, &str, &str); 9] = [
    ("aes256gcm-x25519", "aes256gcm16-prfsha256-x25519", "aes256gcm16", "AES_GCM_16-256"),
    ("aes256cbc-sha256-ecp256", "aes256-sha256-ecp256", "aes256-sha256", "AES_CBC-256/HMAC_SHA2_256_128"),
    ("aes128cbc-sha1-modp2048", "aes128-sha1-modp2048", "aes128-sha1", "AES_CBC-128/HMAC_SHA1_96"),
    ("chacha20poly1305-x25519", "chacha20poly1305-prfsha256-x25519", "chacha20poly1305", "CHACHA20_POLY1305"),
    ("aes128gcm-ecp256", "aes128gcm16-prfsha256-ecp256", "aes128gcm16", "AES_GCM_16-128"),
    ("aes256cbc-sha512-modp3072", "aes256-sha512-modp3072", "aes256-sha512", "AES_CBC-256/HMAC_SHA2_512_256"),
    ("aes256cbc-sha384-ecp384", "aes256-sha384-ecp384", "aes256-sha384", "AES_CBC-256/HMAC_SHA2_384_192"),
    ("aes128cbc-sha256-modp4096", "aes128-sha256-modp4096", "aes128-sha256", "AES_CBC-128/HMAC_SHA2_256_128"),
    ("aes256gcm-prfsha512-ecp384", "aes256gcm16-prfsha512-ecp384", "aes256gcm16-ecp384", "AES_GCM_16-256"),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new(
        "harness-strongswan-strongswan",
        Peer::StrongSwan,
        Role::Neither,
        "strongSwan on both sides: the harness itself",
        |env| {
            let both = Program::StrongSwan;
            Spec::certified(env, both, both)?.exercise(env).map(drop)
        },
    )];
    for (name, ike, esp, swan) in SUITES {
        for (provider, program) in [("aws-lc", FERRY6), ("rust", FERRY6_RUST)] {
            cases.push(Case::new(
                format!("suite-client-{name}-{provider}"),
                Peer::StrongSwan,
                Role::Client,
                format!("{ike}, ESP {esp}, {provider}"),
                move |env| suite(env, program, Program::StrongSwan, ike, esp, swan),
            ));
            cases.push(Case::new(
                format!("suite-broker-{name}-{provider}"),
                Peer::StrongSwan,
                Role::Broker,
                format!("{ike}, ESP {esp}, {provider}"),
                move |env| suite(env, Program::StrongSwan, program, ike, esp, swan),
            ));
        }
        cases.push(Case::new(
            format!("suite-ferry6-{name}"),
            Peer::Ferry6,
            Role::Both,
            format!("{ike}, ESP {esp}, aws-lc against rustcrypto"),
            move |env| suite(env, FERRY6, FERRY6_RUST, ike, esp, swan),
        ));
    }
    for (name, client, broker, role) in [
        ("client", FERRY6, Program::StrongSwan, Role::Client),
        ("broker", Program::StrongSwan, FERRY6, Role::Broker),
    ] {
        cases.push(Case::new(
            format!("suite-{name}-default"),
            Peer::StrongSwan,
            role,
            "default proposals of both sides",
            move |env| {
                Spec::certified(env, client, broker)?.proposals("default", "default").exercise(env).map(drop)
            },
        ));
    }
    cases.push(Case::new("suite-ferry6-default", Peer::Ferry6, Role::Both, "default proposals", |env| {
        Spec::certified(env, FERRY6, FERRY6)?.proposals("default", "default").exercise(env).map(drop)
    }));
    cases.push(Case::new("suite-ferry6-esn", Peer::Ferry6, Role::Both, "extended sequence numbers", |env| {
        let spec = Spec::certified(env, FERRY6, FERRY6)?.proposals("default", "aes128gcm16-esn");
        let tunnel = spec.exercise(env)?;
        let child = child(&tunnel.client)?;
        ensure!(child["esn"] == true, "no ESN in the status: {child}");
        Ok(())
    }));
    cases.push(Case::new("suite-ferry6-ipcomp", Peer::Ferry6, Role::Both, "IPComp on both sides", |env| {
        let mut spec = Spec::certified(env, FERRY6, FERRY6)?;
        spec.ipcomp = "on";
        let tunnel = spec.exercise(env)?;
        for side in [&tunnel.client, &tunnel.broker] {
            let child = child(side)?;
            ensure!(
                child["ipcomp_in"].is_u64() && child["ipcomp_out"].is_u64(),
                "no CPIs in the status: {child}"
            );
        }
        Ok(())
    }));
    cases.push(Case::new(
        "ipcomp-adaptive",
        Peer::Ferry6,
        Role::Both,
        "IPComp: text is compressed, random data is not; when text comes back it is compressed again",
        adaptive,
    ));
    cases
}

/// Datagrams of this content, one after the other; how many of them the client compressed.
fn compressed(env: &Env, tunnel: &Tunnel, count: u64, random: bool) -> Result<u64> {
    let before = child(&tunnel.client)?;
    let socket = env.net.home.run(|| UdpSocket::bind("[::]:0")).context("cannot bind")?;
    for number in 0..count {
        let mut payload = vec![b'6'; 1000];
        if random {
            File::open("/dev/urandom")?.read_exact(&mut payload)?;
        }
        // Nobody listens there: what is said of that to the socket is no fault.
        let _ = socket.send_to(&payload, (server6()?, 9));
        if number % 16 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let number = |child: &serde_json::Value, key: &str| child[key].as_u64().context(key.to_owned());
    let goal = number(&before, "packets_out")? + count;
    eventually(tunnel, "all datagrams have left", || {
        Ok(number(&child(&tunnel.client)?, "packets_out")? >= goal)
    })?;
    Ok(number(&child(&tunnel.client)?, "compressed_out")? - number(&before, "compressed_out")?)
}

fn adaptive(env: &mut Env) -> Result<()> {
    let mut spec = Spec::certified(env, FERRY6, FERRY6)?;
    spec.ipcomp = "on";
    let tunnel = spec.up(env)?;
    let text = compressed(env, &tunnel, 400, false)?;
    ensure!(text >= 395, "of 400 packets of text {text} were compressed");
    let random = compressed(env, &tunnel, 800, true)?;
    ensure!(random == 0, "{random} packets of random octets were sent compressed, and so larger");
    // It looks again after 256 packets at the latest.
    let again = compressed(env, &tunnel, 1000, false)?;
    ensure!(again >= 700, "of 1000 packets of text behind random octets {again} were compressed");
    tunnel.carries_traffic(env)
}

/// The one Child SA in the status of a ferry6.
pub(super) fn child(side: &Side) -> Result<serde_json::Value> {
    let status = side.ferry()?.status()?;
    super::life::ike_sas(&status)
        .first()
        .and_then(|sa| sa["children"].get(0).cloned())
        .with_context(|| format!("no Child SA in the status: {status}"))
}

fn suite(env: &mut Env, client: Program, broker: Program, ike: &str, esp: &str, swan: &str) -> Result<()> {
    let tunnel = Spec::certified(env, client, broker)?.proposals(ike, esp).exercise(env)?;
    uses(&tunnel, swan)
}

/// strongSwan's own word that this suite is in use, where it takes part.
fn uses(tunnel: &Tunnel, suite: &str) -> Result<()> {
    for side in [&tunnel.client, &tunnel.broker] {
        if let Side::Swan(swan) = side {
            let sas = swan.list_sas()?;
            ensure!(sas.contains(suite), "strongSwan does not use {suite}:\n{sas}");
        }
    }
    Ok(())
}
