//! Reauthentication, the leak guard, and what a kill leaves behind.

use super::life::ike_sas;
use super::tunnel::{CLIENT_ADDRESS, Extra, FERRY6, Program, Spec, Tunnel, broker6, eventually, ip};
use super::{Case, Env, Peer, Role};
use crate::traffic::{self, Pinger};
use crate::wait_until;
use anyhow::{Context, Result, bail, ensure};
use ferry6::lab::{Capture, CaptureOptions};
use std::time::{Duration, Instant};

const SWAN: Program = Program::StrongSwan;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for unique in ["replace", "keep"] {
        cases.push(Case::new(
            format!("reauth-both-ferry6-{unique}"),
            Peer::Ferry6,
            Role::Both,
            format!("reauthentication (make-before-break) under traffic, unique = {unique}: nothing lost, same address"),
            move |env| reauthentication(env, FERRY6, FERRY6, unique),
        ));
    }
    cases.push(Case::new(
        "reauth-client-strongswan",
        Peer::StrongSwan,
        Role::Client,
        "ferry6's client reauthenticates to strongSwan (make-before-break): same address",
        |env| reauthentication(env, FERRY6, SWAN, "replace"),
    ));
    cases.push(Case::new(
        "reauth-broker-strongswan",
        Peer::StrongSwan,
        Role::Broker,
        "strongSwan reauthenticates (make_before_break) to ferry6's broker: same address",
        |env| reauthentication(env, SWAN, FERRY6, "replace"),
    ));
    cases.push(Case::new(
        "leak-guard",
        Peer::Ferry6,
        Role::Both,
        "leak guard: no clear IPv6 leaves, before, after a kill of either side; unreachable at once; `down` opens it",
        leak_guard,
    ));
    cases.push(Case::new(
        "crash-leaves-nothing",
        Peer::Ferry6,
        Role::Both,
        "both sides killed: the broker that starts again takes the proxy NDP entries away that were left",
        leftovers,
    ));
    cases
}

fn reauthentication(env: &mut Env, client: Program, broker: Program, unique: &str) -> Result<()> {
    let mut spec = Spec::certified(env, client, broker)?;
    spec.ferry_client.ike = "reauth = \"4s\"\n".into();
    spec.ferry_broker.ike = format!("unique = \"{unique}\"\n");
    if client == SWAN {
        spec.swan_connection = "  reauth_time = 4s\n  over_time = 2s\n  rand_time = 0s\n".into();
        spec.swan_charon = "make_before_break = yes".into();
    }
    let tunnel = spec.up(env)?;
    let pinger = Pinger::start(&env.net.home, broker6()?, Duration::from_millis(2))?;
    let back = Pinger::start(&env.net.server, CLIENT_ADDRESS.parse()?, Duration::from_millis(2))?;
    std::thread::sleep(Duration::from_secs(10));
    let (there, back) = (pinger.stop()?, back.stop()?);
    let ferry = if client == FERRY6 { &tunnel.client } else { &tunnel.broker };
    let again =
        ferry.log().matches(if client == FERRY6 { "reauthenticated to" } else { " up from " }).count();
    ensure!(again >= 2, "{again} reauthentications in 10 s\n{}", tunnel.logs());
    if client == FERRY6 && broker == FERRY6 {
        there.no_loss().with_context(|| tunnel.logs())?;
        back.no_loss().with_context(|| tunnel.logs())?;
    } else {
        // strongSwan itself may lose what is under way when it changes SAs, but no more.
        for count in [there, back] {
            ensure!(
                count.unsent == 0 && count.received * 100 >= count.sent * 97,
                "{count:?}\n{}",
                tunnel.logs()
            );
        }
    }
    eventually(&tunnel, "one IKE SA is left", || {
        let status = ferry.ferry()?.status()?;
        Ok(ike_sas(&status).len() == 1)
    })?;
    tunnel.carries_traffic(env)
}

/// Packets on the home's interface that belong into the tunnel, in clear: echo requests, TCP and UDP over IPv6. Neighbour
/// discovery is the link's own.
fn clear_ipv6(capture: &Capture) -> u64 {
    let clear = ["IPv6, ICMPv6 type 128", "IPv6, next header 6", "IPv6, next header 17"];
    let counts = capture.counts();
    counts.other_kinds.iter().filter(|(kind, _)| clear.contains(&kind.as_str())).map(|(_, n)| n).sum()
}

/// A ping that must fail at once, for want of a way.
fn unreachable_at_once(env: &Env) -> Result<()> {
    let begin = Instant::now();
    let count = traffic::ping_count(&env.net.home, broker6()?, 5, Duration::from_millis(1))?;
    ensure!(count.sent == 0 && count.unsent == 5, "a ping found a way: {count:?}");
    ensure!(begin.elapsed() < Duration::from_secs(1), "it took {:?} to fail", begin.elapsed());
    Ok(())
}

fn leak_guard(env: &mut Env) -> Result<()> {
    // The home has IPv6 of its own, by which everything would go without the guard.
    let (home, router) = (&env.net.home, &env.net.home_router);
    for (host, interface, address) in
        [(home, "eth0", "2001:db8:1::2/64"), (router, "lan", "2001:db8:1::1/64")]
    {
        host.sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
        host.address(interface, address)?;
    }
    home.route("default", "2001:db8:1::1")?;
    let capture = Capture::start(home, "eth0", CaptureOptions::default())?;
    let leaks = |env: &Env| -> Result<bool> {
        let before = clear_ipv6(&capture);
        traffic::ping_count(&env.net.home, broker6()?, 3, Duration::from_millis(1))?;
        Ok(clear_ipv6(&capture) > before)
    };
    ensure!(
        leaks(env)?,
        "without a guard nothing leaves: this case would show nothing ({})",
        capture.counts()
    );
    let seen = clear_ipv6(&capture);

    let mut spec = Spec::certified(env, FERRY6, FERRY6)?;
    spec.ferry_client = Extra::dpd("1s");
    spec.ferry_client.tunnel = "leak_guard = true\n".into();
    let mut client = spec.start_client(env)?;
    unreachable_at_once(env).context("the broker is not there")?;
    let mut broker = spec.start_broker(env)?;
    traffic::wait_for_ping(home, broker6()?, Duration::from_secs(40)).context("the broker is there")?;

    broker.ferry_mut()?.kill()?;
    wait_until("the client gives the broker up", Duration::from_secs(20), || {
        Ok(client.log().contains("no answer"))
    })?;
    unreachable_at_once(env).context("the broker was killed")?;
    ensure!(clear_ipv6(&capture) == seen, "IPv6 left in clear: {}", capture.counts());
    // Who manages the network may flush what is not its own: the guard stands again within seconds. What leaves till then is not
    // to be helped, and not counted.
    ip(home, "-6 route flush proto 246 table main")?;
    wait_until("the guard stands again", Duration::from_secs(10), || {
        Ok(traffic::ping_count(home, broker6()?, 1, Duration::ZERO)?.unsent == 1)
    })?;
    let seen = clear_ipv6(&capture);
    unreachable_at_once(env).context("the guard was flushed")?;
    broker.ferry_mut()?.restart()?;
    traffic::wait_for_ping(home, broker6()?, Duration::from_secs(40))
        .context("the broker was started again")?;

    client.ferry_mut()?.kill()?;
    unreachable_at_once(env).context("the client was killed")?;
    client.ferry_mut()?.restart()?;
    traffic::wait_for_ping(home, broker6()?, Duration::from_secs(20))
        .context("the client was started again")?;
    let guard = &client.ferry()?.status()?[0]["client"]["leak_guard"];
    ensure!(guard == &serde_json::json!(["::/0"]), "status says {guard}");
    ensure!(clear_ipv6(&capture) == seen, "IPv6 left in clear: {}", capture.counts());

    // What opens it: `down` at a client that runs, `down` for one that was killed, an orderly end.
    client.ferry()?.control(&["down"])?;
    ensure!(leaks(env)?, "`down` did not open the guard");
    client.ferry()?.control(&["up"])?;
    traffic::wait_for_ping(home, broker6()?, Duration::from_secs(20)).context("up again")?;
    client.ferry_mut()?.kill()?;
    unreachable_at_once(env).context("killed again")?;
    let said = client.ferry()?.control(&["down"])?;
    ensure!(said.contains("leak guard"), "`down` said {said:?}");
    ensure!(leaks(env)?, "`down` did not open the guard of a killed client");
    client.ferry_mut()?.restart()?;
    traffic::wait_for_ping(home, broker6()?, Duration::from_secs(20)).context("started again")?;
    client.ferry_mut()?.stop()?;
    let routes = ip(home, "-6 route show table all")?;
    ensure!(!routes.contains("unreachable"), "SIGTERM left a guard:\n{routes}");
    Ok(())
}

fn leftovers(env: &mut Env) -> Result<()> {
    let mut spec = Spec::certified(env, FERRY6, FERRY6)?;
    spec.ferry_client = Extra::dpd("1s");
    spec.ferry_broker.tunnel = "proxy_ndp = \"eth0\"\n".into();
    let Tunnel { mut client, mut broker } = spec.up(env)?;
    let host = &env.net.broker;
    let proxies = || ip(host, "-6 neighbour show proxy");
    ensure!(
        proxies()?.contains(CLIENT_ADDRESS),
        "the broker does not answer for its client:\n{}",
        proxies()?
    );
    client.ferry_mut()?.kill()?;
    broker.ferry_mut()?.kill()?;
    ensure!(proxies()?.contains(CLIENT_ADDRESS), "nothing was left: this case would show nothing");
    let links = ip(host, "-o link show")?;
    ensure!(!links.contains("ferry"), "the device outlived the process:\n{links}");
    broker.ferry_mut()?.restart()?;
    ensure!(!proxies()?.contains(CLIENT_ADDRESS), "the entry is still there:\n{}", proxies()?);
    client.ferry_mut()?.restart()?;
    traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(20))
        .with_context(|| format!("{}\n{}", client.log(), broker.log()))?;
    ensure!(proxies()?.contains(CLIENT_ADDRESS), "the broker does not answer for its client any more");
    broker.ferry_mut()?.stop()?;
    if proxies()?.contains(CLIENT_ADDRESS) {
        bail!("SIGTERM left the entry:\n{}", proxies()?);
    }
    Ok(())
}
