//! Beginning and end of tunnels: DELETE, DPD, restarts.

use super::tunnel::{CLIENT_ADDRESS, CLIENT_ID, Extra, FERRY6, Program, Side, Spec, Tunnel, broker6};
use super::{Case, Env, Peer, Role};
use crate::traffic;
use crate::wait_until;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    let swan = Program::StrongSwan;
    let mut cases = vec![
        Case::new(
            "delete-broker-by-strongswan",
            Peer::StrongSwan,
            Role::Broker,
            "DELETE from strongSwan's client: SAs and lease go, it may come again",
            delete_from_swan_client,
        ),
        Case::new(
            "hooks-broker",
            Peer::StrongSwan,
            Role::Broker,
            "hooks of the broker: up of strongSwan's client once, though it reauthenticates; down after its DELETE",
            hooks,
        ),
        Case::new(
            "delete-client-by-strongswan",
            Peer::StrongSwan,
            Role::Client,
            "DELETE from strongSwan's broker: ferry6's client comes back by itself",
            delete_from_swan_broker,
        ),
        Case::new(
            "delete-client-by-ferry6",
            Peer::StrongSwan,
            Role::Client,
            "SIGTERM to ferry6's client: DELETE reaches strongSwan",
            |env| delete_from_ferry(env, FERRY6, Program::StrongSwan),
        ),
        Case::new(
            "delete-broker-by-ferry6",
            Peer::StrongSwan,
            Role::Broker,
            "SIGTERM to ferry6's broker: DELETE reaches strongSwan",
            |env| delete_from_ferry(env, Program::StrongSwan, FERRY6),
        ),
        Case::new(
            "dpd-client-dead-broker",
            Peer::StrongSwan,
            Role::Client,
            "DPD: a dead strongSwan broker is noticed, and found again when it is back",
            dead_broker,
        ),
        Case::new(
            "dpd-broker-dead-client",
            Peer::StrongSwan,
            Role::Broker,
            "DPD: a dead strongSwan client is noticed, its SAs and lease go",
            dead_client,
        ),
        Case::new(
            "restart-client-initial-contact",
            Peer::StrongSwan,
            Role::Broker,
            "a killed strongSwan client comes again (INITIAL_CONTACT): one IKE SA, same address",
            |env| restarted_client(env, Program::StrongSwan, FERRY6),
        ),
        Case::new(
            "restart-ferry6-client",
            Peer::StrongSwan,
            Role::Client,
            "a killed ferry6 client comes again to strongSwan: one IKE SA, same address",
            |env| restarted_client(env, FERRY6, Program::StrongSwan),
        ),
        Case::new(
            "restart-ferry6-client-and-broker",
            Peer::Ferry6,
            Role::Both,
            "a killed client comes again: one IKE SA, same address",
            |env| restarted_client(env, FERRY6, FERRY6),
        ),
        Case::new(
            "restart-ferry6-broker",
            Peer::Ferry6,
            Role::Both,
            "a killed broker comes again: the client finds it, and gets the same address",
            restarted_broker,
        ),
    ];
    for (name, client, broker, role) in
        [("client", FERRY6, swan, Role::Client), ("broker", swan, FERRY6, Role::Broker)]
    {
        cases.push(Case::new(
            format!("dpd-{name}-answers"),
            Peer::StrongSwan,
            role,
            "DPD from strongSwan over an idle tunnel is answered",
            move |env| idle(env, client, broker, false),
        ));
        cases.push(Case::new(
            format!("dpd-{name}-asks"),
            Peer::StrongSwan,
            role,
            "DPD from ferry6 over an idle tunnel is understood",
            move |env| idle(env, client, broker, true),
        ));
    }
    cases
}

/// The IKE SAs in a status, whatever table they stand in.
pub(super) fn ike_sas(status: &Value) -> Vec<&Value> {
    fn find(value: &Value) -> Option<&Vec<Value>> {
        match value {
            Value::Object(map) => match map.get("ike_sas") {
                Some(Value::Array(list)) => Some(list),
                _ => map.values().find_map(find),
            },
            Value::Array(list) => list.iter().find_map(find),
            _ => None,
        }
    }
    find(status).map(|list| list.iter().collect()).unwrap_or_default()
}

fn established(side: &Side) -> Result<usize> {
    let status = side.ferry()?.status()?;
    Ok(ike_sas(&status).iter().filter(|sa| sa["children"].as_array().is_some_and(|c| !c.is_empty())).count())
}

/// What the hooks of the broker are told, in words that are the same each time.
fn hooks(env: &mut Env) -> Result<()> {
    let mut spec = Spec::certified(env, Program::StrongSwan, FERRY6)?;
    spec.swan_connection = "  reauth_time = 3s\n  over_time = 2s\n  rand_time = 0s\n".into();
    spec.swan_charon = "make_before_break = yes".into();
    let (hook, log) = (env.dir.join("hook"), env.dir.join("hooks.log"));
    let words =
        "$FERRY6_EVENT $FERRY6_IDENTITY $FERRY6_ADDRESS <$FERRY6_PREFIX> $FERRY6_CONNECTION $FERRY6_REASON";
    std::fs::write(&hook, format!("#!/bin/sh\necho \"{words}\" >>{}\n", log.display()))?;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
    write!(spec.ferry_pool, "\n[hooks]\nup = {hook:?}\ndown = {hook:?}\n")?;
    let tunnel = spec.exercise(env)?;
    wait_until("strongSwan has authenticated anew twice", Duration::from_secs(15), || {
        Ok(tunnel.broker.log().matches(" up from ").count() >= 3)
    })
    .with_context(|| tunnel.logs())?;
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    let up = format!("up {CLIENT_ID} {CLIENT_ADDRESS} <> clients connected\n");
    ensure!(told() == up, "the hooks were told:\n{}\n{}", told(), tunnel.logs());
    tunnel.client.swan()?.terminate()?;
    let all = format!("{up}down {CLIENT_ID} {CLIENT_ADDRESS} <> clients peer_deleted\n");
    wait_until("down is run", Duration::from_secs(5), || Ok(told() == all))
        .with_context(|| format!("the hooks were told:\n{}\n{}", told(), tunnel.logs()))
}

fn delete_from_swan_client(env: &mut Env) -> Result<()> {
    let tunnel = Spec::certified(env, Program::StrongSwan, FERRY6)?.exercise(env)?;
    for _ in 0..2 {
        tunnel.client.swan()?.terminate()?;
        wait_until("ferry6's broker has no IKE SA", Duration::from_secs(5), || {
            Ok(ike_sas(&tunnel.broker.ferry()?.status()?).is_empty())
        })
        .with_context(|| tunnel.logs())?;
        tunnel.client.swan()?.initiate()?;
        traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(5))
            .with_context(|| tunnel.logs())?;
    }
    tunnel.carries_traffic(env)
}

fn delete_from_swan_broker(env: &mut Env) -> Result<()> {
    let tunnel = Spec::certified(env, FERRY6, Program::StrongSwan)?.exercise(env)?;
    tunnel.broker.swan()?.terminate()?;
    tunnel.client.wait_for_log("deleted by the peer").with_context(|| tunnel.logs())?;
    traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(15))
        .with_context(|| tunnel.logs())?;
    tunnel.carries_traffic(env)
}

fn delete_from_ferry(env: &mut Env, client: Program, broker: Program) -> Result<()> {
    let mut tunnel = Spec::certified(env, client, broker)?.exercise(env)?;
    match tunnel.client {
        Side::Ferry(_) => &mut tunnel.client,
        Side::Swan(_) => &mut tunnel.broker,
    }
    .ferry_mut()?
    .stop()?;
    let (_, swan) = tunnel.ferry_and_other();
    swan.wait_for_log("received DELETE for IKE_SA").with_context(|| tunnel.logs())?;
    let sas = swan.swan()?.list_sas()?;
    ensure!(!sas.contains("ESTABLISHED"), "strongSwan still has its IKE SA:\n{sas}");
    Ok(())
}

fn dead_broker(env: &mut Env) -> Result<()> {
    let mut spec = Spec::certified(env, FERRY6, Program::StrongSwan)?;
    spec.ferry_client = Extra::dpd("2s");
    let Tunnel { client, broker } = spec.exercise(env)?;
    let Side::Swan(swan) = broker else { anyhow::bail!("the broker is strongSwan") };
    swan.kill()?;
    wait_until("ferry6's client sees that the broker is dead", Duration::from_secs(30), || {
        Ok(client.log().contains("no answer"))
    })
    .with_context(|| client.log())?;
    let broker = spec.start_broker(env)?;
    traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(30))
        .with_context(|| format!("{}\n{}", client.log(), broker.log()))?;
    Tunnel { client, broker }.carries_traffic(env)
}

fn dead_client(env: &mut Env) -> Result<()> {
    let mut spec = Spec::certified(env, Program::StrongSwan, FERRY6)?;
    spec.ferry_broker = Extra::dpd("2s");
    let Tunnel { client, broker } = spec.exercise(env)?;
    let Side::Swan(swan) = client else { anyhow::bail!("the client is strongSwan") };
    swan.kill()?;
    wait_until("ferry6's broker sees that the client is dead", Duration::from_secs(40), || {
        Ok(broker.log().contains("no answer") && ike_sas(&broker.ferry()?.status()?).is_empty())
    })
    .with_context(|| broker.log())
}

fn idle(env: &mut Env, client: Program, broker: Program, ferry_asks: bool) -> Result<()> {
    let mut spec = Spec::certified(env, client, broker)?;
    // Either side's DPD would satisfy the other's, so that it sends none.
    if ferry_asks {
        spec.ferry_client = Extra::dpd("2s");
        spec.ferry_broker = Extra::dpd("2s");
    } else {
        spec.ferry_client = Extra::dpd("never");
        spec.ferry_broker = Extra::dpd("never");
        spec.swan_connection = "  dpd_delay = 1s\n".into();
    }
    let tunnel = spec.exercise(env)?;
    std::thread::sleep(Duration::from_secs(7));
    let (ferry, swan) = tunnel.ferry_and_other();
    let log = swan.log();
    let dpds = if ferry_asks {
        log.matches("generating INFORMATIONAL response").count()
    } else {
        log.matches("sending DPD request").count()
    };
    ensure!(dpds >= 2, "{dpds} DPDs in 7 s\n{}", tunnel.logs());
    ensure!(!log.contains("retransmit 1 of request"), "a DPD was not answered\n{}", tunnel.logs());
    ensure!(established(ferry)? == 1, "the idle tunnel is gone\n{}", tunnel.logs());
    ensure!(!ferry.log().contains("no answer"), "ferry6 thought that strongSwan was dead\n{}", tunnel.logs());
    tunnel.carries_traffic(env)
}

fn restarted_client(env: &mut Env, client: Program, broker: Program) -> Result<()> {
    let spec = Spec::certified(env, client, broker)?;
    let Tunnel { client, broker } = spec.exercise(env)?;
    match client {
        Side::Swan(swan) => swan.kill()?,
        Side::Ferry(mut ferry) => ferry.kill()?,
    }
    let client = spec.start_client(env)?;
    if let Side::Swan(swan) = &client {
        swan.initiate()?;
    }
    let tunnel = Tunnel { client, broker };
    traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(10))
        .with_context(|| tunnel.logs())?;
    match &tunnel.broker {
        Side::Swan(swan) => {
            let sas = swan.list_sas()?;
            ensure!(sas.matches("ESTABLISHED").count() == 1, "strongSwan keeps the dead IKE SA:\n{sas}");
            ensure!(sas.contains(CLIENT_ADDRESS), "another address than before:\n{sas}");
        }
        side @ Side::Ferry(_) => {
            let n = established(side)?;
            ensure!(n == 1, "ferry6's broker has {n} IKE SAs\n{}", tunnel.logs());
        }
    }
    // To CLIENT_ADDRESS, as before.
    tunnel.carries_traffic(env)
}

fn restarted_broker(env: &mut Env) -> Result<()> {
    let mut spec = Spec::certified(env, FERRY6, FERRY6)?;
    spec.ferry_client = Extra::dpd("2s");
    let mut tunnel = spec.exercise(env)?;
    let broker = tunnel.broker.ferry_mut()?;
    broker.kill()?;
    broker.restart()?;
    traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(40))
        .with_context(|| tunnel.logs())?;
    tunnel.carries_traffic(env)
}
