//! One identity at two places at once: `ike.unique` of the broker.

use super::life::ike_sas;
use super::tunnel::{FERRY6, Program, Spec, Tunnel, broker6, server6};
use super::{Case, Env, Peer, Role};
use crate::ferry::{Ferry, Mode};
use crate::traffic::{self, Pinger};
use crate::wait_until;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, peer, role, first) in [
        ("both-ferry6", Peer::Ferry6, Role::Both, FERRY6),
        ("broker-strongswan", Peer::StrongSwan, Role::Broker, Program::StrongSwan),
    ] {
        cases.push(Case::new(
            format!("unique-keep-{name}"),
            peer,
            role,
            "`unique = \"keep\"`: a second client of the identity, elsewhere, is refused; the first loses nothing",
            move |env| keep(env, first),
        ));
        cases.push(Case::new(
            format!("unique-never-{name}"),
            peer,
            role,
            "`unique = \"never\"` on both sides: two clients of one identity, with an address each, at once",
            move |env| never(env, first),
        ));
    }
    cases
}

/// A ferry6 client with the first one's credentials, on the internet: neither its address nor its network.
fn second(env: &Env, spec: &Spec) -> Result<Ferry> {
    let dir = env.subdir("second")?;
    let toml = spec.toml(Mode::Client, &dir, "aws-lc")?;
    Ferry::start(&env.ferry6, &env.net.internet, Mode::Client, &dir, &toml, &[])
}

/// How many IKE SAs with a Child SA the broker has.
fn tunnels(tunnel: &Tunnel) -> Result<usize> {
    let status = tunnel.broker.ferry()?.status()?;
    Ok(ike_sas(&status).iter().filter(|sa| sa["children"].as_array().is_some_and(|c| !c.is_empty())).count())
}

fn keep(env: &mut Env, first: Program) -> Result<()> {
    let mut spec = Spec::certified(env, first, FERRY6)?;
    spec.ferry_broker.ike = "unique = \"keep\"\n".into();
    let tunnel = spec.up(env)?;
    let pinger = Pinger::start(&env.net.home, server6()?, Duration::from_millis(5))?;
    let mut second = second(env, &spec)?;
    tunnel.broker.wait_for_log("keeps the older one").with_context(|| tunnel.logs())?;
    wait_until("the second client says that it was refused", Duration::from_secs(10), || {
        let status = second.status()?;
        Ok(status[0]["client"]["reason"].as_str().is_some_and(|r| r.contains("AUTHENTICATION_FAILED")))
    })
    .with_context(|| second.log())?;
    pinger.stop()?.no_loss().with_context(|| tunnel.logs())?;
    let n = tunnels(&tunnel)?;
    ensure!(n == 1, "the broker has {n} tunnels\n{}", tunnel.logs());
    second.stop()?;
    tunnel.carries_traffic(env)
}

fn never(env: &mut Env, first: Program) -> Result<()> {
    let mut spec = Spec::certified(env, first, FERRY6)?;
    spec.ferry_broker.ike = "unique = \"never\"\n".into();
    spec.ferry_client.ike = "unique = \"never\"\n".into();
    spec.ferry_pool = "range = \"2a00::100/120\"\n".into();
    let tunnel = spec.up(env)?;
    let pinger = Pinger::start(&env.net.home, server6()?, Duration::from_millis(5))?;
    let mut second = second(env, &spec)?;
    traffic::wait_for_ping(&env.net.internet, broker6()?, Duration::from_secs(10))
        .with_context(|| format!("{}\n{}", second.log(), tunnel.logs()))?;
    let counted = traffic::ping_count(&env.net.internet, broker6()?, 100, Duration::from_millis(5))?;
    counted.no_loss().with_context(|| second.log())?;
    pinger.stop()?.no_loss().with_context(|| tunnel.logs())?;
    let n = tunnels(&tunnel)?;
    ensure!(n == 2, "the broker has {n} tunnels\n{}", tunnel.logs());
    second.stop()?;
    // The end of one is not the end of the other.
    tunnel.carries_traffic(env)
}
