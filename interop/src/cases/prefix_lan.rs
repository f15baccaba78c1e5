//! Router mode with several networks behind a client: what comes late, what is taken, and what a killed client left.

use super::prefixes::{
    NAMED, PAUSE, another_way, behind_reached, named, neighbour, nothing_in_clear, radvd, slaac, spec,
};
use super::tunnel::{FERRY6, Side, Tunnel, ip, server6};
use super::{Case, Env, Peer, Role};
use crate::{traffic, wait_until, write_private};
use anyhow::{Context, Result, ensure};
use ferry6::lab::Host;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

/// Room for two networks.
const TWO: &str = "2a00:0:0:1f00::/63";
const FIRST: &str = "2a00:0:0:1f00::/64";
const SECOND: &str = "2a00:0:0:1f01::/64";
/// The broker gives this one later.
const OTHER: &str = "2a00:0:0:1e00::/56";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "prefix-lan-several",
            Peer::Ferry6,
            Role::Both,
            "router mode: radvd is there before the tunnel, an interface comes later, has an address that is taken, there are more than the prefix has room for; two halves of a default route elsewhere",
            several,
        ),
        Case::new(
            "prefix-lan-renumbered",
            Peer::Ferry6,
            Role::Both,
            "router mode: of a killed client nothing is left, though metric, order of the interfaces and the prefix are others; nor after `down` without a client",
            renumbered,
        ),
        Case::new(
            "prefix-lan-hooks",
            Peer::Ferry6,
            Role::Both,
            "router mode: with hooks that start and stop radvd hosts have a default route while there is a tunnel, and keep their addresses",
            hooks,
        ),
    ];
    for case in &mut cases {
        // radvd and the client take their time, some seconds at each step.
        case.timeout = Duration::from_secs(120);
    }
    cases
}

/// What the client says of an interface.
fn lan_status(client: &Side, interface: &str) -> Result<Value> {
    let status = client.ferry()?.status()?;
    let list = status[0]["client"]["lan"].as_array().context("no list of interfaces")?;
    list.iter()
        .find(|lan| lan["interface"] == interface)
        .cloned()
        .with_context(|| format!("no {interface}: {list:?}"))
}

/// Waits for it. It is asked all the time, as a monitor does.
fn wait_for_lan(tunnel: &Tunnel, interface: &str, reason: Option<&str>) -> Result<()> {
    let what = format!("{interface} has its address, or none for {reason:?}");
    wait_until(&what, Duration::from_secs(20), || {
        let lan = lan_status(&tunnel.client, interface)?;
        Ok(match reason {
            None => lan["missing"] == false && lan["address"].is_string(),
            Some(words) => lan["reason"].as_str().is_some_and(|text| text.contains(words)),
        })
    })
    .with_context(|| tunnel.logs())
}

fn several(env: &mut Env) -> Result<()> {
    let other = another_way(env)?;
    // As other tunnels have their default routes.
    for to in ["::/1", "8000::/1", "2000::/3"] {
        ip(&env.net.home, &format!("-6 route add {to} via 2b00::1 dev eth2 metric 10"))?;
    }
    let mut spec = spec(env, FERRY6, FERRY6)?;
    named(&mut spec, TWO);
    spec.ferry_client.tunnel += "lan = [\"eth1\", \"eth3\", \"eth4\"]\n";
    spec.ferry_client.ike += "retransmit_timeout = \"300ms\"\nretransmit_tries = 3\n";
    let first = neighbour(env, "eth1")?;
    let client = spec.start_client(env)?;
    let radvd = radvd(env, client.ferry()?.dir())?;
    let tunnel = Tunnel { broker: spec.start_broker(env)?, client };
    let at_first = slaac(&first, FIRST, Duration::from_secs(40)).with_context(|| tunnel.logs())?;
    behind_reached(env, &first, at_first).with_context(|| tunnel.logs())?;

    // One that there is no room for, and one that comes later.
    ensure!(lan_status(&tunnel.client, "eth4")?["address"].is_null(), "{}", tunnel.logs());
    let words = format!("{TWO} has 2 networks of 64 bits");
    ensure!(tunnel.client.log().contains(&words), "it is not told: {}", tunnel.logs());
    wait_for_lan(&tunnel, "eth3", Some("eth3"))?;
    let second = neighbour(env, "eth3")?;
    wait_for_lan(&tunnel, "eth3", None)?;
    let at_second = slaac(&second, SECOND, Duration::from_secs(40)).with_context(|| tunnel.logs())?;
    behind_reached(env, &second, at_second).with_context(|| tunnel.logs())?;
    traffic::ping_count(&first, at_second, 3, PAUSE)?.no_loss().context("from one network to the other")?;
    nothing_in_clear(env, &other)?;

    // Somebody takes away what is not his own, as systemd-networkd does. Nobody sends until it is there again.
    let home = &env.net.home;
    for words in
        ["-6 rule del priority 32000", "-6 rule del priority 32001", "-6 route flush table 246000050"]
    {
        ip(home, words)?;
    }
    wait_until("rules and routes are there again", Duration::from_secs(10), || {
        let (rules, routes) =
            (ip(home, "-6 rule show")?, ip(home, "-6 route show table 246000050 dev ferry0")?);
        Ok(rules.matches(TWO).count() == 2 && routes.contains("default"))
    })
    .with_context(|| tunnel.logs())?;
    behind_reached(env, &first, at_first).with_context(|| tunnel.logs())?;
    nothing_in_clear(env, &other)?;

    // A host that has our address there, until it has it no more.
    second.address("eth0", "2a00:0:0:1f01::1/64")?;
    env.net.home.sysctl("net.ipv6.conf.eth3.accept_dad", "1")?;
    env.net.home.down("eth3")?;
    env.net.home.up("eth3")?;
    wait_for_lan(&tunnel, "eth3", Some("another host there has 2a00:0:0:1f01::1"))?;
    second.remove_address("eth0", "2a00:0:0:1f01::1/64")?;
    wait_for_lan(&tunnel, "eth3", None)?;
    wait_until("the second network is reached again", Duration::from_secs(20), || {
        Ok(traffic::ping_count(&second, server6()?, 1, PAUSE).is_ok_and(|c| c.no_loss().is_ok()))
    })
    .with_context(|| tunnel.logs())?;
    let taken = tunnel.client.log().matches("another host there has").count();
    ensure!(taken == 1, "it is told {taken} times: {}", tunnel.logs());
    let again = tunnel.client.log().matches("set again").count();
    ensure!(again == 1, "somebody took things away once, it is told {again} times: {}", tunnel.logs());
    nothing_in_clear(env, &other)?;
    drop(radvd);
    Ok(())
}

/// All addresses, rules and routes of the home's computer that belong to one of these prefixes.
fn left(home: &Host, prefixes: &[&str]) -> Result<Vec<String>> {
    let all = [ip(home, "-6 -o addr show")?, ip(home, "-6 rule show")?, ip(home, "-6 route show table all")?]
        .concat();
    let starts: Vec<&str> = prefixes.iter().filter_map(|p| p.split("00::/").next()).collect();
    Ok(all.lines().filter(|line| starts.iter().any(|s| line.contains(s))).map(str::to_owned).collect())
}

/// Another configuration from the next start on.
fn reconfigure(side: &Side, from: &str, to: &str) -> Result<()> {
    let file = side.ferry()?.dir().join("ferry6.toml");
    let text = fs::read_to_string(&file)?;
    ensure!(text.contains(from), "no {from} in {text}");
    Ok(fs::write(&file, text.replace(from, to))?)
}

fn renumbered(env: &mut Env) -> Result<()> {
    let home = env.net.home.clone();
    let mut spec = spec(env, FERRY6, FERRY6)?;
    named(&mut spec, NAMED);
    spec.ferry_client.tunnel += "metric = 50\nlan = [\"eth1\", \"eth3\"]\n";
    let (first, second) = (neighbour(env, "eth1")?, neighbour(env, "eth3")?);
    let mut tunnel = spec.up(env)?;
    let _radvd = radvd(env, tunnel.client.ferry()?.dir())?;
    let patience = Duration::from_secs(20);
    let at_first = slaac(&first, FIRST, patience).with_context(|| tunnel.logs())?;
    behind_reached(env, &first, at_first).with_context(|| tunnel.logs())?;

    tunnel.client.ferry_mut()?.kill()?;
    reconfigure(&tunnel.client, "metric = 50", "metric = 60")?;
    tunnel.client.ferry_mut()?.restart()?;
    wait_for_lan(&tunnel, "eth1", None)?;
    behind_reached(env, &first, at_first).with_context(|| tunnel.logs())?;
    let rules = ip(&home, "-6 rule show")?;
    ensure!(rules.contains("246000060") && !rules.contains("246000050"), "{rules}");

    // What is asked for at the first start of the next client is not what the killed one had.
    tunnel.client.ferry_mut()?.kill()?;
    tunnel.broker.ferry_mut()?.stop()?;
    reconfigure(&tunnel.broker, NAMED, OTHER)?;
    reconfigure(&tunnel.client, "[\"eth1\", \"eth3\"]", "[\"eth3\", \"eth1\"]")?;
    tunnel.broker.ferry_mut()?.restart()?;
    tunnel.client.ferry_mut()?.restart()?;
    wait_for_lan(&tunnel, "eth1", None)?;
    let at_second = slaac(&second, "2a00:0:0:1e00::/64", patience).with_context(|| tunnel.logs())?;
    behind_reached(env, &second, at_second).with_context(|| tunnel.logs())?;
    let at_first = slaac(&first, "2a00:0:0:1e01::/64", patience).with_context(|| tunnel.logs())?;
    behind_reached(env, &first, at_first).with_context(|| tunnel.logs())?;
    let old = left(&home, &[NAMED])?;
    ensure!(old.is_empty(), "of the prefix before: {old:#?}");

    // The user gives up: no client runs, and none will.
    tunnel.client.ferry_mut()?.kill()?;
    let kept = left(&home, &[OTHER])?;
    ensure!(kept.len() > 4, "a killed client holds nothing: {kept:#?}");
    tunnel.client.ferry()?.control(&["down"])?;
    let old = left(&home, &[OTHER, NAMED])?;
    ensure!(old.is_empty(), "`down` left {old:#?}");
    Ok(())
}

/// A hook.
fn script(path: &Path, commands: &str) -> Result<String> {
    write_private(path, &format!("#!/bin/sh\n{commands}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    Ok(format!("{path:?}"))
}

/// Whether a host behind has a default route now.
fn has_route(host: &Host, yes: bool) -> Result<()> {
    let what = if yes { "a host behind has a default route" } else { "it has none any more" };
    wait_until(what, Duration::from_secs(20), || {
        Ok(ip(host, "-6 route show default")?.contains("default via") == yes)
    })
}

fn hooks(env: &mut Env) -> Result<()> {
    let mut spec = spec(env, FERRY6, FERRY6)?;
    named(&mut spec, NAMED);
    let file = |name: &str| env.dir.join(name);
    let (conf, pid) = (file("radvd.conf"), file("radvd.pid"));
    let (ferry6, own) = (env.ferry6.display(), env.dir.join("client").join("ferry6.toml"));
    // What systemctl does, with no systemd here.
    let up = script(
        &file("up"),
        &format!(
            "{ferry6} client radvd --config {} >{} && exec radvd --config {} --pidfile {}",
            own.display(),
            conf.display(),
            conf.display(),
            pid.display()
        ),
    )?;
    let down = script(&file("down"), &format!("kill $(cat {})", pid.display()))?;
    spec.ferry_client.tunnel += &format!("lan = \"eth1\"\n[hooks]\nup = {up}\ndown = {down}\n");
    spec.ferry_client.ike += "dpd = \"2s\"\nretransmit_timeout = \"300ms\"\nretransmit_tries = 3\n";
    let host = neighbour(env, "eth1")?;
    let mut tunnel = spec.up(env)?;
    let address = slaac(&host, FIRST, Duration::from_secs(20)).with_context(|| tunnel.logs())?;
    behind_reached(env, &host, address).with_context(|| tunnel.logs())?;
    let text = fs::read_to_string(&conf)?;
    ensure!(text.contains("AdvLinkMTU"), "made while the tunnel is up, and without its MTU: {text}");
    has_route(&host, true)?;

    tunnel.broker.ferry_mut()?.kill()?;
    has_route(&host, false).with_context(|| tunnel.logs())?;
    let kept = slaac(&host, FIRST, Duration::from_secs(1))?;
    ensure!(kept == address, "{kept} was {address}");
    tunnel.broker.ferry_mut()?.restart()?;
    has_route(&host, true).with_context(|| tunnel.logs())?;
    behind_reached(env, &host, address).with_context(|| tunnel.logs())?;
    tunnel.client.ferry_mut()?.stop()?;
    has_route(&host, false).with_context(|| tunnel.logs())?;
    wait_until("radvd has ended", Duration::from_secs(5), || Ok(!pid.exists()))
}
