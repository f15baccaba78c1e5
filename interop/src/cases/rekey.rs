//! Rekeying under traffic: no ping may be lost.

use super::tunnel::{Extra, FERRY6, FERRY6_RUST, Program, Side, Spec, Tunnel, broker6, eventually, server6};
use super::{Case, Env, Peer, Role, life};
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
    for (name, limit) in
        [("limit-bytes", "rekey_bytes = \"50kB\"\n"), ("limit-packets", "rekey_packets = \"500\"\n")]
    {
        cases.push(Case::new(
            name,
            Peer::Ferry6,
            Role::Both,
            format!("`child.{}` under 400 packets/s each way: rekeys, none lost", limit.trim_end()),
            move |env| limits(env, limit),
        ));
    }
    cases
}

/// The SPIs of all SAs that ferry6 has.
pub fn spis(tunnel: &Tunnel) -> Result<BTreeSet<String>> {
    spis_of(tunnel.ferry_and_other().0)
}

/// The same of this side.
pub(super) fn spis_of(ferry: &Side) -> Result<BTreeSet<String>> {
    let status = ferry.ferry()?.status()?;
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

/// One SA of this kind is left, and it is none of those before.
pub(super) fn replaced(before: &BTreeSet<String>, after: &BTreeSet<String>, kind: &str) -> bool {
    let mut left = after.iter().filter(|s| s.starts_with(kind));
    left.next().is_some_and(|sa| !before.contains(sa)) && left.next().is_none()
}

fn rekey(
    env: &mut Env,
    client: Program,
    broker: Program,
    what: What,
    by_client: bool,
    esp: &str,
) -> Result<()> {
    let spec = Spec::certified(env, client, broker)?.proposals("aes256gcm16-prfsha256-x25519", esp);
    let tunnel = spec.up(env)?;
    let pause = Duration::from_millis(5);
    let out = Pinger::start(&env.net.home, server6()?, pause)?;
    let back = Pinger::start(&env.net.server, super::tunnel::CLIENT_ADDRESS.parse()?, pause)?;
    for round in 1..=REKEYS {
        let before = spis(&tunnel)?;
        let side = if by_client { &tunnel.client } else { &tunnel.broker };
        match what {
            What::Child => side.rekey_child(),
            What::Ike => side.rekey_ike(),
        }
        .with_context(|| tunnel.logs())?;
        let kind = if what == What::Child { "esp" } else { "ike" };
        eventually(&tunnel, "one new SA has replaced the old one", || {
            Ok(replaced(&before, &spis(&tunnel)?, kind))
        })
        .with_context(|| format!("rekey {round}"))?;
        std::thread::sleep(Duration::from_millis(300));
    }
    for (way, pinger) in [("client to server", out), ("server to client", back)] {
        pinger.stop()?.no_loss().context(way).with_context(|| tunnel.logs())?;
    }
    tunnel.carries_traffic(env)
}

fn lifetimes(env: &mut Env, client: Program, broker: Program) -> Result<()> {
    let mut spec = Spec::certified(env, client, broker)?;
    spec.ferry_client = Extra::lifetimes("3s", "7s");
    spec.ferry_broker = Extra::lifetimes("4s", "9s");
    let tunnel = spec.up(env)?;
    let first = spis(&tunnel)?;
    let pinger = Pinger::start(&env.net.home, broker6()?, Duration::from_millis(5))?;
    let mut all = first.clone();
    let end = std::time::Instant::now() + Duration::from_secs(16);
    while std::time::Instant::now() < end {
        all.extend(spis(&tunnel)?);
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
    let last = spis(&tunnel)?;
    ensure!(count(&last, "ike") == 1, "IKE SAs heap up: {last:?}");
    Ok(())
}

/// By time nothing is rekeyed here: `child.rekey` is an hour.
fn limits(env: &mut Env, limit: &str) -> Result<()> {
    let mut spec = Spec::certified(env, FERRY6, FERRY6_RUST)?;
    spec.ferry_client.child = limit.into();
    let tunnel = spec.up(env)?;
    let pause = Duration::from_millis(5);
    let out = Pinger::start(&env.net.home, server6()?, pause)?;
    let back = Pinger::start(&env.net.server, super::tunnel::CLIENT_ADDRESS.parse()?, pause)?;
    let mut all = spis(&tunnel)?;
    let end = std::time::Instant::now() + Duration::from_secs(12);
    while std::time::Instant::now() < end {
        all.extend(spis(&tunnel)?);
        std::thread::sleep(Duration::from_millis(100));
    }
    for (way, pinger) in [("client to server", out), ("server to client", back)] {
        pinger.stop()?.no_loss().context(way).with_context(|| tunnel.logs())?;
    }
    let (ike, esp) = (count(&all, "ike"), count(&all, "esp"));
    ensure!(ike == 1 && esp >= 4, "{ike} IKE SAs and {esp} Child SAs in 12 s\n{}", tunnel.logs());
    eventually(&tunnel, "one Child SA is left", || Ok(count(&spis(&tunnel)?, "esp") == 1))
}

fn under_tcp(env: &mut Env) -> Result<()> {
    let tunnel = Spec::certified(env, FERRY6, FERRY6)?.up(env)?;
    let first = spis(&tunnel)?;
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
    eventually(&tunnel, "one new Child SA is left", || Ok(replaced(&first, &spis(&tunnel)?, "esp")))?;
    let last = spis(&tunnel)?;
    ensure!(count(&last, "ike") == 1, "IKE SAs heap up: {last:?}");
    eventually(&tunnel, "a ping still passes", || {
        Ok(traffic::ping_count(&env.net.home, broker6()?, 1, Duration::ZERO)?.received == 1)
    })
}
