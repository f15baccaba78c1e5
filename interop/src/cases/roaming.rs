//! MOBIKE and NAT rebinding (docs/mobility.md): a client that moves, and what its NAT does to it, under a TCP connection
//! whose content is checked.

use super::tunnel::{Extra, FERRY6, Program, Spec, Tunnel, eventually, server6};
use super::{Case, Env, Peer, Role};
use crate::traffic::Flow;
use anyhow::{Context, Result, ensure};
use ferry6::lab::{Host, LinkOptions};
use std::time::Duration;

const SWAN: Program = Program::StrongSwan;
/// How long traffic may rest when a client moves.
const PAUSE: Duration = Duration::from_secs(12);

pub(super) fn cases() -> Vec<Case> {
    let pairs = [
        ("both-ferry6", Peer::Ferry6, Role::Both, FERRY6, FERRY6),
        ("client-strongswan", Peer::StrongSwan, Role::Client, FERRY6, SWAN),
        ("broker-strongswan", Peer::StrongSwan, Role::Broker, SWAN, FERRY6),
    ];
    let mut cases = Vec::new();
    for (name, peer, role, client, broker) in pairs {
        cases.push(Case::new(
            format!("roam-network-{name}"),
            peer,
            role,
            "MOBIKE: the client moves to another network behind another NAT, and back; TCP goes on",
            move |env| other_network(env, client, broker),
        ));
        cases.push(Case::new(
            format!("roam-nat-no-nat-{name}"),
            peer,
            role,
            "MOBIKE: from behind a NAT to a public address, and back; TCP goes on",
            move |env| nat_and_no_nat(env, client, broker),
        ));
        cases.push(Case::new(
            format!("roam-rebinding-{name}"),
            peer,
            role,
            "NAT rebinding before a broker that is behind a NAT itself: the client finds it; TCP goes on",
            move |env| rebinding(env, client, broker, false),
        ));
    }
    cases.push(Case::new(
        "roam-rebinding-followed",
        Peer::Ferry6,
        Role::Both,
        "NAT rebinding before a public broker: it follows the first ESP packet; TCP goes on",
        |env| rebinding(env, FERRY6, FERRY6, true),
    ));
    cases.push(Case::new(
        "roam-outage-both-ferry6",
        Peer::Ferry6,
        Role::Both,
        "the client's address and route are gone for longer than DPD allows, then back: same SAs; TCP goes on",
        outage,
    ));
    cases.push(Case::new(
        "roam-without-mobike",
        Peer::Ferry6,
        Role::Both,
        "the client moves, and the broker speaks no MOBIKE: it connects anew at once, with the same address",
        without_mobike,
    ));
    cases
}

fn spec(env: &Env, client: Program, broker: Program) -> Result<Spec> {
    let mut spec = Spec::certified(env, client, broker)?;
    // strongSwan looks after a NAT mapping when it hears nothing.
    if client == SWAN {
        spec.swan_connection = "  dpd_delay = 2s\n".into();
    }
    Ok(spec)
}

/// Where the client and the broker think that they are, where they are ferry6.
fn paths(tunnel: &Tunnel) -> Result<(Option<String>, Option<String>)> {
    let of = |side: &super::tunnel::Side, key: &str| -> Result<Option<String>> {
        let Ok(ferry) = side.ferry() else { return Ok(None) };
        let status = ferry.status()?;
        let sas = super::life::ike_sas(&status);
        Ok(sas.first().and_then(|sa| sa[key].as_str()).map(ToOwned::to_owned))
    };
    Ok((of(&tunnel.client, "local")?, of(&tunnel.broker, "remote")?))
}

/// Waits until both ends that are ferry6 tell the client's address so: as itself knows it, as the broker sees it.
fn client_is_at(tunnel: &Tunnel, local: &str, seen: &str) -> Result<()> {
    eventually(tunnel, &format!("the client is at {local}, seen as {seen}"), || {
        let (at, from) = paths(tunnel)?;
        Ok(at.is_none_or(|at| at == format!("{local}:4500"))
            && from.is_none_or(|f| f.starts_with(&format!("{seen}:"))))
    })
}

fn no_new_ike_sa(tunnel: &Tunnel) -> Result<()> {
    for side in [&tunnel.client, &tunnel.broker] {
        if side.ferry().is_ok() {
            ensure!(
                side.log().matches("tunnel up:").count() <= 1 && side.log().matches(" up from ").count() <= 1,
                "it connected anew instead of moving\n{}",
                tunnel.logs()
            );
        }
    }
    Ok(())
}

/// A flow through the tunnel that must go on after each step.
fn with_flow(env: &Env, tunnel: &Tunnel, steps: &mut [(&str, &mut dyn FnMut() -> Result<()>)]) -> Result<()> {
    let flow = Flow::start(&env.net.home, &env.net.server, server6()?)?;
    let mut run = || -> Result<()> {
        flow.goes_on(PAUSE).context("before anything moved")?;
        for (what, step) in steps.iter_mut() {
            step().with_context(|| (*what).to_owned())?;
            flow.goes_on(PAUSE).with_context(|| format!("after: {what}"))?;
        }
        Ok(())
    };
    let result = run();
    let end = flow.stop();
    result.and(end).with_context(|| tunnel.logs())
}

pub(super) fn move_route(home: &Host, from: &str, to: &str) -> Result<()> {
    home.remove_route("default", from)?;
    home.route("default", to)?;
    Ok(())
}

fn other_network(env: &mut Env, client: Program, broker: Program) -> Result<()> {
    let net = &env.net;
    let home = &net.home;
    let site = net.site(1)?;
    let there = net.attach(&site, home, "eth1")?;
    let tunnel = spec(env, client, broker)?.up(env)?;
    with_flow(
        env,
        &tunnel,
        &mut [
            ("to the second network, its plug pulled out of the first", &mut || {
                home.down("eth0")?;
                net.default_route(&site, home)?;
                client_is_at(&tunnel, &there, "1.2.4.4")
            }),
            ("back to the first network", &mut || {
                home.up("eth0")?;
                move_route(home, "192.168.1.1", "192.168.0.1")?;
                client_is_at(&tunnel, "192.168.0.2", "1.2.3.4")
            }),
        ],
    )?;
    no_new_ike_sa(&tunnel)?;
    tunnel.carries_traffic(env)
}

/// A line of the client's own to the internet, beside that behind the NAT.
pub(super) fn public_line(env: &Env) -> Result<()> {
    let (home, internet) = (&env.net.home, &env.net.internet);
    let options = LinkOptions { ipv6: false, ..LinkOptions::default() };
    env.net.lab.link_with(home, "eth1", internet, "direct", options)?;
    home.address("eth1", "1.2.9.4/24")?;
    internet.address("direct", "1.2.9.1/24")?;
    Ok(())
}

fn nat_and_no_nat(env: &mut Env, client: Program, broker: Program) -> Result<()> {
    public_line(env)?;
    let home = &env.net.home;
    let tunnel = spec(env, client, broker)?.up(env)?;
    let nat_of_client = |expected: bool| -> Result<()> {
        for (side, key) in [(&tunnel.client, "nat_local"), (&tunnel.broker, "nat_remote")] {
            // strongSwan asks for encapsulation by hashes that do not fit: the broker cannot know then.
            if side.ferry().is_err() || client == SWAN {
                continue;
            }
            eventually(&tunnel, &format!("{key} is {expected}"), || {
                let status = side.ferry()?.status()?;
                Ok(super::life::ike_sas(&status).first().is_some_and(|sa| sa[key] == expected))
            })?;
        }
        Ok(())
    };
    nat_of_client(true)?;
    with_flow(
        env,
        &tunnel,
        &mut [
            ("to a public address", &mut || {
                move_route(home, "192.168.0.1", "1.2.9.1")?;
                client_is_at(&tunnel, "1.2.9.4", "1.2.9.4")?;
                nat_of_client(false)
            }),
            ("back behind the NAT", &mut || {
                move_route(home, "1.2.9.1", "192.168.0.1")?;
                client_is_at(&tunnel, "192.168.0.2", "1.2.3.4")?;
                nat_of_client(true)
            }),
        ],
    )?;
    no_new_ike_sa(&tunnel)?;
    tunnel.carries_traffic(env)
}

/// The broker's public address on a line of its own, without the firewall's NAT.
pub(super) fn public_broker(env: &Env) -> Result<()> {
    let (broker, internet) = (&env.net.broker, &env.net.internet);
    let options = LinkOptions { ipv6: false, ..LinkOptions::default() };
    env.net.lab.link_with(broker, "eth1", internet, "direct-b", options)?;
    broker.address("eth1", "5.6.9.2/24")?;
    broker.address("eth1", "5.6.7.8/32")?;
    internet.address("direct-b", "5.6.9.1/24")?;
    internet.route("5.6.7.8/32", "5.6.9.2")?;
    move_route(broker, "192.168.100.1", "5.6.9.1")
}

/// The home router forgets its mappings, as it does when it gets its address anew, and chooses other ports.
fn forget_mappings(env: &Env) -> Result<()> {
    let router = &env.net.home_router;
    router.remove_address("wan", "1.2.3.4/24")?;
    router.address("wan", "1.2.3.4/24")?;
    Ok(router.route("default", "1.2.3.1")?)
}

fn rebinding(env: &mut Env, client: Program, broker: Program, public: bool) -> Result<()> {
    if public {
        public_broker(env)?;
    }
    let tunnel = spec(env, client, broker)?.up(env)?;
    if client == SWAN {
        // It compares what it hears at a probe with what it heard at the one before.
        tunnel.client.wait_for_log("sending DPD request").with_context(|| tunnel.logs())?;
        std::thread::sleep(Duration::from_millis(500));
    }
    let ferry_broker = tunnel.broker.ferry().is_ok();
    let mut before = paths(&tunnel)?.1;
    let mut forget = || -> Result<()> {
        forget_mappings(env)?;
        if ferry_broker {
            eventually(&tunnel, "the broker sends to the new port", || Ok(paths(&tunnel)?.1 != before))?;
            before = paths(&tunnel)?.1;
        }
        Ok(())
    };
    with_flow(env, &tunnel, &mut [("the NAT forgets its mappings", &mut forget)])?;
    no_new_ike_sa(&tunnel)?;
    tunnel.carries_traffic(env)
}

fn outage(env: &mut Env) -> Result<()> {
    let mut spec = spec(env, FERRY6, FERRY6)?;
    // The client would give the broker up after some 3 s. The broker's patience is longer.
    spec.ferry_client = Extra::dpd("1s");
    let tunnel = spec.up(env)?;
    let home = &env.net.home;
    with_flow(
        env,
        &tunnel,
        &mut [("address and route gone for 8 s", &mut || {
            home.remove_address("eth0", "192.168.0.2/24")?;
            eventually(&tunnel, "the client knows that it is offline", || {
                Ok(tunnel.client.ferry()?.status()?[0]["client"]["state"] == "offline")
            })?;
            std::thread::sleep(Duration::from_secs(8));
            home.address("eth0", "192.168.0.2/24")?;
            Ok(home.route("default", "192.168.0.1")?)
        })],
    )?;
    no_new_ike_sa(&tunnel)?;
    ensure!(tunnel.client.ferry()?.status()?[0]["client"]["state"] == "up", "{}", tunnel.logs());
    tunnel.carries_traffic(env)
}

fn without_mobike(env: &mut Env) -> Result<()> {
    let mut spec = spec(env, FERRY6, FERRY6)?;
    spec.ferry_broker.ike = "mobike = false\n".into();
    public_line(env)?;
    let tunnel = spec.up(env)?;
    with_flow(
        env,
        &tunnel,
        &mut [("to a public address", &mut || {
            move_route(&env.net.home, "192.168.0.1", "1.2.9.1")?;
            client_is_at(&tunnel, "1.2.9.4", "1.2.9.4")
        })],
    )?;
    let sas = tunnel.broker.ferry()?.status()?;
    ensure!(super::life::ike_sas(&sas).len() == 1, "the old IKE SA is still there\n{}", tunnel.logs());
    tunnel.carries_traffic(env)
}
