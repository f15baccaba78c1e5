//! Peers with the ESP and IPComp of a real kernel, in a guest: strongSwan. OpenIKED has a file of its own.

use super::rekey::{replaced, spis_of};
use super::suites::child;
use super::tunnel::{CLIENT_ADDRESS, FERRY6, Program, Side, Spec, Tunnel, broker6, eventually, server6};
use super::{Case, Env, Peer, Role};
use crate::guest::{Guest, How};
use crate::traffic::{self, Pinger};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// What a case with IPComp says of itself.
pub(super) const SIT: &str = "[SAs rewritten: transport mode below sit, same octets on the wire]";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "kernel-broker-esn",
            Peer::KernelStrongSwan,
            Role::Client,
            "ESN; child and IKE rekeys by both under 200 pings/s, none lost; follows a NAT rebinding",
            broker_esn,
        ),
        Case::new(
            "kernel-broker-ipcomp",
            Peer::KernelStrongSwan,
            Role::Client,
            format!("compress=yes: IPComp both ways, again after rekeys by both {SIT}"),
            broker_ipcomp,
        ),
        Case::new(
            "kernel-client-esn",
            Peer::KernelStrongSwan,
            Role::Broker,
            "ESN; child and IKE rekeys by both",
            |env| client(env, None),
        ),
        Case::new(
            "kernel-client-ipcomp",
            Peer::KernelStrongSwan,
            Role::Broker,
            format!("compress=yes: IPComp both ways, again after rekeys by both {SIT}"),
            |env| client(env, Some(How::Sit)),
        ),
    ];
    for case in &mut cases {
        // The boot alone is some seconds.
        case.timeout = Duration::from_secs(120);
    }
    cases
}

/// The suites that the cases take, with ESN and an ICV of its own in one of them.
const ESN: &str = "aes256-sha256-esn";

/// charon's routes would lead around the sit device.
const NO_ROUTES: &str = "install_routes = no\n";

fn broker_esn(env: &mut Env) -> Result<()> {
    let kernel = Program::KernelSwan(None);
    let spec = Spec::certified(env, FERRY6, kernel)?.proposals("aes256gcm16-prfsha256-x25519", ESN);
    let tunnel = spec.exercise(env)?;
    uses_esn(&tunnel.client, guest(&tunnel.broker)?)?;

    let pause = Duration::from_millis(5);
    let out = Pinger::start(&env.net.home, server6()?, pause)?;
    let back = Pinger::start(&env.net.server, CLIENT_ADDRESS.parse()?, pause)?;
    rekeys(&tunnel)?;
    for (way, pinger) in [("client to server", out), ("server to client", back)] {
        pinger.stop()?.no_loss().context(way).with_context(|| tunnel.logs())?;
    }
    uses_esn(&tunnel.client, guest(&tunnel.broker)?)?;

    let before = peer_port(guest(&tunnel.broker)?)?;
    rebind(env)?;
    traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(10))
        .with_context(|| tunnel.logs())?;
    let after = peer_port(guest(&tunnel.broker)?)?;
    ensure!(before != after, "the NAT did not change the port {before}: the case shows nothing");
    tunnel.carries_traffic(env)
}

fn broker_ipcomp(env: &mut Env) -> Result<()> {
    let kernel = Program::KernelSwan(Some(How::Sit));
    let mut spec = Spec::certified(env, FERRY6, kernel)?.proposals("default", "aes256gcm16-noesn");
    spec.ipcomp = "on";
    spec.swan_child = "    ipcomp = yes\n".into();
    spec.swan_charon = NO_ROUTES.into();
    let tunnel = spec.exercise(env)?;
    let mut before = compresses(&tunnel.client, None)?;
    for round in 0..2 {
        rekey(&tunnel, round == 0, false)?;
        tunnel.carries_traffic(env)?;
        before = compresses(&tunnel.client, Some(&before))?;
    }
    Ok(())
}

/// strongSwan as the client, in a guest.
fn client(env: &mut Env, how: Option<How>) -> Result<()> {
    let kernel = Program::KernelSwan(how);
    let esp = if how.is_some() { "aes256gcm16-noesn" } else { ESN };
    let mut spec = Spec::certified(env, kernel, FERRY6)?.proposals("aes256gcm16-prfsha256-x25519", esp);
    if how.is_some() {
        spec.ipcomp = "on";
        spec.swan_child = "    ipcomp = yes\n".into();
        spec.swan_charon = NO_ROUTES.into();
    }
    let broker = spec.start_broker(env)?;
    let client = spec.start_client(env)?;
    client.swan()?.initiate()?;
    let tunnel = Tunnel { client, broker };
    let home = guest(&tunnel.client)?;
    let first = || Ok(home.ping(broker6()?, 1, Duration::ZERO)?.received == 1);
    crate::wait_until("a ping from the guest is answered", Duration::from_secs(10), first)
        .with_context(|| tunnel.logs())?;
    carry(env, home).with_context(|| tunnel.logs())?;
    if how.is_none() {
        uses_esn(&tunnel.broker, home)?;
    }
    let mut before = child(&tunnel.broker)?;
    for round in 0..2 {
        rekey(&tunnel, round == 0, false)?;
        carry(env, home).with_context(|| tunnel.logs())?;
        match how {
            Some(_) => before = compresses(&tunnel.broker, Some(&before))?,
            None => uses_esn(&tunnel.broker, home)?,
        }
    }
    Ok(())
}

/// Pings and TCP both ways where the client is a guest.
pub(super) fn carry(env: &Env, home: &Guest) -> Result<()> {
    let (server, pause) = (&env.net.server, Duration::from_millis(10));
    home.ping(broker6()?, 20, pause)?.no_loss().context("client to broker")?;
    home.ping(server6()?, 20, pause)?.no_loss().context("client to server")?;
    traffic::ping_count(server, CLIENT_ADDRESS.parse()?, 20, pause)?.no_loss().context("server to client")?;
    traffic::tcp_from(server, server6()?, 2 << 20, || home.tcp(server6()?, 2 << 20))
}

/// The guest in which a side runs.
fn guest(side: &Side) -> Result<&Guest> {
    side.swan()?.guest().context("this side runs in no guest")
}

/// Both ends use ESN, by their own words.
fn uses_esn(ferry: &Side, guest: &Guest) -> Result<()> {
    let child = child(ferry)?;
    ensure!(child["esn"] == true, "no ESN in ferry6's status: {child}");
    let states = guest.sh("ip xfrm state")?;
    ensure!(
        states.matches("anti-replay esn context").count() >= 2,
        "no ESN in the guest's kernel:\n{states}"
    );
    Ok(())
}

/// Each kind of rekey by each side.
fn rekeys(tunnel: &Tunnel) -> Result<()> {
    for by_client in [true, false] {
        for ike in [false, true] {
            rekey(tunnel, by_client, ike)?;
        }
    }
    Ok(())
}

fn rekey(tunnel: &Tunnel, by_client: bool, ike: bool) -> Result<()> {
    let side = if by_client { &tunnel.client } else { &tunnel.broker };
    let (ferry, _) = tunnel.ferry_and_other();
    let before = spis_of(ferry)?;
    if ike { side.rekey_ike() } else { side.rekey_child() }.with_context(|| tunnel.logs())?;
    let kind = if ike { "ike" } else { "esp" };
    eventually(tunnel, "one new SA has replaced the old one", || {
        Ok(replaced(&before, &spis_of(ferry)?, kind))
    })
}

/// IPComp is negotiated and used in both directions, by ferry6's counters; with CPIs that are not those of `before`.
pub(super) fn compresses(ferry: &Side, before: Option<&Value>) -> Result<Value> {
    let child = child(ferry)?;
    for way in ["ipcomp_in", "ipcomp_out"] {
        ensure!(child[way].is_u64(), "no {way} in the status: {child}");
        ensure!(before.is_none_or(|b| b[way] != child[way]), "a rekey without a new CPI: {child}");
    }
    for way in ["compressed_in", "compressed_out"] {
        let (compressed, all) = (number(&child, way), number(&child, &way.replace("compressed", "packets")));
        // Half of what the transfers carry is random, and so are acknowledgements too small.
        ensure!(compressed > 100 && compressed < all, "{way} is {compressed} of {all} packets: {child}");
    }
    Ok(child)
}

fn number(child: &Value, key: &str) -> u64 {
    child[key].as_u64().unwrap_or_default()
}

/// The home router forgets its translations: whatever comes next leaves from another port.
pub(super) fn rebind(env: &Env) -> Result<()> {
    let router = &env.net.home_router;
    // A masquerading interface that goes down takes its translations along.
    router.down("wan")?;
    router.up("wan")?;
    Ok(router.route("default", "1.2.3.1")?)
}

/// The port to which the guest's kernel sends.
fn peer_port(guest: &Guest) -> Result<String> {
    let states = guest.sh("ip xfrm state")?;
    let mut outbound = states.lines().filter_map(|l| l.split_once("sport 4500 dport ").map(|(_, port)| port));
    let port = outbound.next().with_context(|| format!("no outbound SA in UDP:\n{states}"))?;
    Ok(port.split(' ').next().unwrap_or_default().to_owned())
}
