//! Several Child SAs for one tunnel (RFC 9611): with ferry6 at both ends, and not without.

use super::tunnel::{Extra, FERRY6, Program, Spec, Tunnel, eventually, server6};
use super::{Case, Env, Peer, Role, life};
use crate::ferry::Ferry;
use crate::traffic::{self, Pinger};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "per-cpu-ferry6",
            Peer::Ferry6,
            Role::Both,
            "four Child SAs on four workers: 12 TCP streams use them all, rekeys meanwhile, content right",
            several,
        ),
        Case::new(
            "per-cpu-ferry6-max-queue",
            Peer::Ferry6,
            Role::Both,
            "a broker that grants four of eight says TS_MAX_QUEUE once, and the tunnel goes on with four",
            max_queue,
        ),
        Case::new(
            "per-cpu-ferry6-off",
            Peer::Ferry6,
            Role::Both,
            "a broker with per_cpu_sas = \"off\" is never asked for more Child SAs",
            |env| alone(env, FERRY6, FERRY6, "off"),
        ),
    ];
    for (name, client, broker, role) in [
        ("client", FERRY6, Program::StrongSwan, Role::Client),
        ("broker", Program::StrongSwan, FERRY6, Role::Broker),
    ] {
        cases.push(Case::new(
            format!("per-cpu-strongswan-{name}"),
            Peer::StrongSwan,
            role,
            "per_cpu_sas = 4 with a peer that does not know RFC 9611: one Child SA, rekeyed without loss",
            move |env| alone(env, client, broker, "4"),
        ));
    }
    cases
}

fn workers(sas: &str) -> Extra {
    let sas = if sas == "off" { "\"off\"" } else { sas };
    Extra { child: format!("per_cpu_sas = {sas}\n"), tunnel: "workers = 4\n".into(), ..Extra::default() }
}

/// The Child SAs of a ferry6 with one IKE SA.
fn children(ferry: &Ferry) -> Result<Vec<Value>> {
    let status = ferry.status()?;
    let sas = life::ike_sas(&status);
    ensure!(sas.len() == 1, "{} IKE SAs", sas.len());
    Ok(sas[0]["children"].as_array().cloned().unwrap_or_default())
}

fn resources(children: &[Value]) -> Vec<u64> {
    children.iter().filter_map(|child| child["resource"].as_u64()).collect()
}

fn both(tunnel: &Tunnel) -> Result<[&Ferry; 2]> {
    Ok([tunnel.client.ferry()?, tunnel.broker.ferry()?])
}

fn several(env: &mut Env) -> Result<()> {
    let mut spec = Spec::certified(env, FERRY6, FERRY6)?;
    (spec.ferry_client, spec.ferry_broker) = (workers("4"), workers("4"));
    let tunnel = spec.up(env)?;
    let ferries = both(&tunnel)?;
    let four = || -> Result<bool> {
        for ferry in ferries {
            if resources(&children(ferry)?) != [0, 1, 2, 3] {
                return Ok(false);
            }
        }
        Ok(true)
    };
    eventually(&tunnel, "both ends have four Child SAs", four)?;
    for ferry in ferries {
        let children = children(ferry)?;
        let distinct =
            |key: &str| children.iter().map(|child| child[key].to_string()).collect::<BTreeSet<_>>();
        ensure!(distinct("worker").len() == 4 && distinct("reqid").len() == 1, "{children:#?}");
    }
    let pinger = Pinger::start(&env.net.home, server6()?, Duration::from_millis(5))?;
    std::thread::scope(|s| -> Result<()> {
        let (home, server) = (&env.net.home, &env.net.server);
        let transfer = s.spawn(|| traffic::tcp_streams(home, server, server6()?, 8 << 20, 12));
        let mut rekeys = 0;
        while !transfer.is_finished() {
            std::thread::sleep(Duration::from_millis(300));
            if rekeys < 6 {
                let side = if rekeys % 2 == 0 { &tunnel.client } else { &tunnel.broker };
                side.rekey_child()?;
                rekeys += 1;
            }
        }
        transfer.join().map_err(|_| anyhow::anyhow!("the transfer panicked"))??;
        ensure!(rekeys > 0, "the transfer was over before a rekey");
        Ok(())
    })
    .with_context(|| tunnel.logs())?;
    pinger.stop()?.no_loss().context("pings beside the transfer").with_context(|| tunnel.logs())?;
    eventually(&tunnel, "four Child SAs are left", four)?;
    // After the last rekey their counters are at zero: once more, for all of them.
    traffic::tcp_streams(&env.net.home, &env.net.server, server6()?, 1 << 20, 32)?;
    for ferry in ferries {
        for child in children(ferry)? {
            let packets = |key: &str| child[key].as_u64().unwrap_or(0);
            ensure!(packets("packets_in") > 0 && packets("packets_out") > 0, "not used: {child:#}");
        }
        let text = ferry.control(&["status"])?;
        ensure!(text.contains("resource 3") && text.matches("flow esp out").count() == 1, "{text}");
    }
    Ok(())
}

fn max_queue(env: &mut Env) -> Result<()> {
    let mut spec = Spec::certified(env, FERRY6, FERRY6)?;
    spec.ferry_client = workers("8");
    spec.ferry_broker =
        Extra { child: "per_cpu_sas = 2\n".into(), tunnel: "workers = 2\n".into(), ..Extra::default() };
    let tunnel = spec.up(env)?;
    let ferries = both(&tunnel)?;
    let told = || ferries[0].log().matches("TS_MAX_QUEUE").count();
    eventually(&tunnel, "the client hears TS_MAX_QUEUE", || Ok(told() > 0))?;
    tunnel.carries_traffic(env)?;
    std::thread::sleep(Duration::from_secs(2));
    for ferry in ferries {
        let children = children(ferry)?;
        ensure!(resources(&children) == [0, 1, 2, 3], "{children:#?}");
    }
    ensure!(told() == 1, "the client asked again\n{}", tunnel.logs());
    Ok(())
}

/// One Child SA, without a number, and nothing asked for.
fn alone(env: &mut Env, client: Program, broker: Program, broker_sas: &str) -> Result<()> {
    let mut spec = Spec::certified(env, client, broker)?;
    (spec.ferry_client, spec.ferry_broker) = (workers("4"), workers(broker_sas));
    let tunnel = spec.up(env)?;
    tunnel.carries_traffic(env)?;
    let ferry = tunnel.ferry_and_other().0.ferry()?;
    let one = || -> Result<Option<String>> {
        let children = children(ferry)?;
        let one = children.len() == 1 && resources(&children).is_empty();
        Ok(one.then(|| children[0]["spi_in"].to_string()))
    };
    let before = one()?.with_context(|| format!("more than one Child SA\n{}", tunnel.logs()))?;
    let pinger = Pinger::start(&env.net.home, server6()?, Duration::from_millis(5))?;
    tunnel.client.rekey_child()?;
    eventually(&tunnel, "one new Child SA is left", || Ok(one()?.is_some_and(|spi| spi != before)))?;
    std::thread::sleep(Duration::from_secs(1));
    pinger.stop()?.no_loss().with_context(|| tunnel.logs())?;
    ensure!(one()?.is_some(), "more than one Child SA\n{}", tunnel.logs());
    Ok(())
}
