//! Rekeying under traffic: no ping may be lost.

use super::tunnel::{
    Extra, FERRY6, FERRY6_RUST, Program, Side, Spec, Tunnel, broker6, certificates, eventually, server6,
};
use super::{Case, Env, Peer, Role, life};
use crate::pki::KeyType;
use crate::traffic::{self, Pinger};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Child,
    Ike,
}

/// Rekeys a case does, one after the other.
const REKEYS: usize = 4;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let swan = Program::StrongSwan;
    for (pair, client, broker, peer, role) in [
        ("client", FERRY6, swan, Peer::StrongSwan, Role::Client),
        ("broker", swan, FERRY6, Peer::StrongSwan, Role::Broker),
        ("ferry6", FERRY6, FERRY6_RUST, Peer::Ferry6, Role::Both),
    ] {
        for (what_name, what) in [("child", What::Child), ("ike", What::Ike)] {
            for by_client in [true, false] {
                let by = if by_client { "client" } else { "broker" };
                let by_whom =
                    if (if by_client { client } else { broker }) == swan { "strongSwan" } else { "ferry6" };
                cases.push(Case::new(
                    format!("rekey-{pair}-{what_name}-by-{by}"),
                    peer,
                    role,
                    format!("{REKEYS} {what_name} rekeys by {by_whom} as {by} under 200 pings/s, none lost"),
                    move |env| rekey(env, client, broker, what, by_client, "aes256gcm16"),
                ));
            }
        }
        let pfs = "aes256gcm16-x25519";
        for by_client in [true, false] {
            let by = if by_client { "client" } else { "broker" };
            cases.push(Case::new(
                format!("rekey-{pair}-child-pfs-by-{by}"),
                peer,
                role,
                format!(
                    "{REKEYS} child rekeys with key exchange (PFS) by the {by} under 200 pings/s, none lost"
                ),
                move |env| rekey(env, client, broker, What::Child, by_client, pfs),
            ));
        }
        cases.push(Case::new(
            format!("rekey-{pair}-lifetimes"),
            peer,
            role,
            "child and IKE rekeys by ferry6's lifetimes under 200 pings/s, none lost",
            move |env| lifetimes(env, client, broker),
        ));
    }
    cases.push(Case::new(
        "rekey-ferry6-tcp",
        Peer::Ferry6,
        Role::Both,
        "child rekeys by both sides under TCP at full speed: content right, nothing stalls",
        under_tcp,
    ));
    cases
}

fn spis(tunnel: &mut Tunnel) -> Result<BTreeSet<String>> {
    let side = match &mut tunnel.client {
        Side::Ferry(_) => &mut tunnel.client,
        Side::Swan(_) => &mut tunnel.broker,
    };
    let status = side.ferry()?.status()?;
    let mut set = BTreeSet::new();
    for sa in life::ike_sas(&status) {
        set.insert(format!("ike {} {}", sa["initiator_spi"], sa["responder_spi"]));
        for child in sa["children"].as_array().into_iter().flatten() {
            set.insert(format!("esp {} {}", child["spi_in"], child["spi_out"]));
        }
    }
    Ok(set)
}

fn count(set: &BTreeSet<String>, kind: &str) -> usize {
    set.iter().filter(|s| s.starts_with(kind)).count()
}

fn rekey(
    env: &mut Env,
    client: Program,
    broker: Program,
    what: What,
    by_client: bool,
    esp: &str,
) -> Result<()> {
    let pki = certificates(&env.subdir("pki")?, KeyType::EcdsaP256)?;
    let spec = Spec::new(client, broker, pki).proposals("aes256gcm16-prfsha256-x25519", esp);
    let mut tunnel = spec.up(env)?;
    let pause = Duration::from_millis(5);
    let out = Pinger::start(&env.net.home, server6()?, pause)?;
    let back = Pinger::start(&env.net.server, super::tunnel::CLIENT_ADDRESS.parse()?, pause)?;
    for round in 1..=REKEYS {
        let before = spis(&mut tunnel)?;
        let side = if by_client { &tunnel.client } else { &tunnel.broker };
        match what {
            What::Child => side.rekey_child(),
            What::Ike => side.rekey_ike(),
        }
        .with_context(|| tunnel.logs())?;
        let kind = if what == What::Child { "esp" } else { "ike" };
        let logs = tunnel.logs();
        crate::wait_until("one new SA has replaced the old one", Duration::from_secs(10), || {
            let after = spis(&mut tunnel)?;
            let old = before.iter().filter(|s| s.starts_with(kind)).any(|s| after.contains(s));
            Ok(!old && count(&after, kind) == 1)
        })
        .with_context(|| format!("rekey {round}"))
        .with_context(|| logs)?;
        std::thread::sleep(Duration::from_millis(300));
    }
    for (way, pinger) in [("client to server", out), ("server to client", back)] {
        pinger.stop()?.no_loss().context(way).with_context(|| tunnel.logs())?;
    }
    tunnel.carries_traffic(env)
}

fn lifetimes(env: &mut Env, client: Program, broker: Program) -> Result<()> {
    let pki = certificates(&env.subdir("pki")?, KeyType::EcdsaP256)?;
    let mut spec = Spec::new(client, broker, pki);
    spec.ferry_client = Extra::lifetimes("3s", "7s");
    spec.ferry_broker = Extra::lifetimes("4s", "9s");
    let mut tunnel = spec.up(env)?;
    let first = spis(&mut tunnel)?;
    let pinger = Pinger::start(&env.net.home, broker6()?, Duration::from_millis(5))?;
    let mut all = first.clone();
    let end = std::time::Instant::now() + Duration::from_secs(16);
    while std::time::Instant::now() < end {
        all.extend(spis(&mut tunnel)?);
        std::thread::sleep(Duration::from_millis(200));
    }
    pinger.stop()?.no_loss().with_context(|| tunnel.logs())?;
    ensure!(
        count(&all, "ike") >= 2 && count(&all, "esp") >= 4,
        "too few rekeys in 16 s: {} IKE SAs and {} Child SAs were seen\n{}",
        count(&all, "ike"),
        count(&all, "esp"),
        tunnel.logs()
    );
    let last = spis(&mut tunnel)?;
    ensure!(count(&last, "ike") == 1, "IKE SAs heap up: {last:?}");
    Ok(())
}

fn under_tcp(env: &mut Env) -> Result<()> {
    let pki = certificates(&env.subdir("pki")?, KeyType::EcdsaP256)?;
    let mut tunnel = Spec::new(FERRY6, FERRY6, pki).up(env)?;
    let first = spis(&mut tunnel)?;
    std::thread::scope(|s| -> Result<()> {
        let (home, server) = (&env.net.home, &env.net.server);
        let transfer = s.spawn(|| traffic::tcp_both_ways(home, server, server6()?, 200 << 20));
        let mut round = 0;
        while !transfer.is_finished() {
            let side = if round % 2 == 0 { &tunnel.client } else { &tunnel.broker };
            side.rekey_child()?;
            round += 1;
            std::thread::sleep(Duration::from_millis(250));
        }
        transfer.join().map_err(|_| anyhow::anyhow!("the transfer panicked"))??;
        ensure!(round > 1, "the transfer was over before a rekey");
        Ok(())
    })
    .with_context(|| tunnel.logs())?;
    let mut last = BTreeSet::new();
    let logs = tunnel.logs();
    crate::wait_until("one Child SA is left", Duration::from_secs(10), || {
        last = spis(&mut tunnel)?;
        Ok(count(&last, "esp") == 1)
    })
    .context(logs)?;
    ensure!(first.is_disjoint(&last) || count(&last, "ike") == 1, "nothing was rekeyed");
    eventually(&tunnel, "a ping still passes", || {
        Ok(traffic::ping_count(&env.net.home, broker6()?, 1, Duration::ZERO)?.received == 1)
    })
}
