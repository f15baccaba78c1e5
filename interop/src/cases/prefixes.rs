//! Whole prefixes that are routed to a client: who gets which, and a network behind it (router mode).

use super::tunnel::{CLIENT_ID, FERRY6, Program, Side, Spec, Tunnel, broker6, ip, server6};
use super::{Case, Env, Peer, Role};
use crate::{run, traffic, wait_until, write_private};
use anyhow::{Context, Result, ensure};
use ferry6::lab::Host;
use ferry6::lab::article::BROKER_IPV6;
use ferry6_ike::Prefix6;
use std::fs::File;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// All prefixes; the firewall routes them to the broker.
const ALL: &str = "2a00:0:0:1000::/52";
/// What the pool gives first.
const FIRST: &str = "2a00:0:0:1000::/64";
/// A prefix by name, of which a client has one more network than it has interfaces.
pub(super) const NAMED: &str = "2a00:0:0:1f00::/56";

/// The first network of those.
const LAN: &str = "2a00:0:0:1f00::/64";

pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// With a host's first router advertisement.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name: &str, peer, role, feature: &str, run: fn(&mut Env) -> Result<()>| {
        cases.push(Case::new(name, peer, role, feature, run));
    };
    case(
        "prefix-of-the-pool",
        Peer::Ferry6,
        Role::Both,
        "a client asks for a prefix, uses all of it across rekeys, and has the same after a restart of both",
        of_the_pool,
    );
    case(
        "prefix-strongswan-client",
        Peer::StrongSwan,
        Role::Broker,
        "strongSwan has its prefix by local_ts, both ways and across a rekey; of another's it gets nothing",
        strongswan_client,
    );
    case(
        "prefix-strongswan-broker",
        Peer::StrongSwan,
        Role::Client,
        "strongSwan as the broker knows no INTERNAL_IP6_PREFIX: the one that both sides name is used",
        strongswan_broker,
    );
    case(
        "prefix-anothers",
        Peer::Ferry6,
        Role::Both,
        "a client that asks for another's prefix, and sends from it, has its own and no more",
        anothers,
    );
    case(
        "prefix-lan",
        Peer::Ferry6,
        Role::Both,
        "router mode: a host behind the client gets its address from radvd and is reached; large packets; rekeys; down leaves nothing",
        lan,
    );
    case(
        "prefix-lan-lost",
        Peer::Ferry6,
        Role::Both,
        "router mode: while the tunnel is lost nothing leaves in clear by another default route, and no host is renumbered",
        lan_lost,
    );
    case(
        "prefix-lan-killed",
        Peer::Ferry6,
        Role::Both,
        "router mode: what a killed client left keeps packets in, and is taken away by the next one",
        lan_killed,
    );
    cases
}

/// A tunnel whose broker has prefixes to give.
pub(super) fn spec(env: &Env, client: Program, broker: Program) -> Result<Spec> {
    env.net.firewall.route(ALL, BROKER_IPV6)?;
    let mut spec = Spec::certified(env, client, broker)?;
    spec.ferry_pool += &format!("prefixes = \"{ALL}\"\n");
    Ok(spec)
}

pub(super) fn named(spec: &mut Spec, prefix: &str) {
    spec.ferry_pool += &format!("fixed_prefixes = {{ \"{CLIENT_ID}\" = \"{prefix}\" }}\n");
}

/// An address of a prefix on the client's loopback: what is behind it may be anything.
fn behind(host: &Host, address: &str) -> Result<Ipv6Addr> {
    host.address("lo", &format!("{address}/128"))?;
    Ok(address.parse()?)
}

/// It answers to the server, and reaches it.
fn reached(env: &Env, address: Ipv6Addr) -> Result<()> {
    traffic::ping_count(&env.net.server, address, 5, PAUSE)?.no_loss().context("server to the prefix")?;
    traffic::ping_from(&env.net.home, address, server6()?, 5)?.no_loss().context("the prefix to the server")
}

/// Nothing comes back to this address of ours.
fn not_reached(env: &Env, address: Ipv6Addr) -> Result<()> {
    let out = traffic::ping_from(&env.net.home, address, server6()?, 2)?;
    ensure!(out.received == 0, "{address} reaches the server");
    let back = traffic::ping_count(&env.net.server, address, 2, PAUSE)?;
    ensure!(back.received == 0, "the server reaches {address}");
    Ok(())
}

fn prefix_of(side: &Side) -> Result<Option<String>> {
    let status = side.ferry()?.status()?;
    Ok(status[0]["client"]["prefix"].as_str().map(str::to_owned))
}

fn of_the_pool(env: &mut Env) -> Result<()> {
    let mut spec = spec(env, FERRY6, FERRY6)?;
    let (hook, told) = (env.dir.join("up"), env.dir.join("told"));
    write_private(&hook, &format!("#!/bin/sh\necho \"$FERRY6_PREFIX\" >{}\n", told.display()))?;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o700))?;
    spec.ferry_client.tunnel += &format!("prefix = \"any\"\n[hooks]\nup = {hook:?}\n");
    let mut tunnel = spec.up(env)?;
    wait_until("the hook has run", Duration::from_secs(5), || {
        Ok(std::fs::read_to_string(&told).is_ok_and(|text| text.trim() == FIRST))
    })?;
    let address = behind(&env.net.home, "2a00:0:0:1000::7")?;
    let check = |tunnel: &Tunnel| -> Result<()> {
        ensure!(prefix_of(&tunnel.client)?.as_deref() == Some(FIRST), "not {FIRST}: {}", tunnel.logs());
        reached(env, address).with_context(|| tunnel.logs())?;
        tunnel.carries_traffic(env)
    };
    check(&tunnel)?;
    let leases = &tunnel.broker.ferry()?.status()?[0]["broker"]["leases"];
    ensure!(leases[0]["prefix"] == FIRST, "{leases}");
    for side in [&tunnel.client, &tunnel.broker] {
        side.rekey_child()?;
        side.rekey_ike()?;
        std::thread::sleep(Duration::from_secs(1));
        check(&tunnel)?;
    }
    // What belongs to nobody behind the client is told off there, and does not go round.
    let unused = traffic::ping_count(&env.net.server, "2a00:0:0:1000:dead::1".parse()?, 2, PAUSE)?;
    ensure!(unused.received == 0 && unused.no_route == 2, "nobody is there: {unused:?}");
    tunnel.client.ferry_mut()?.stop()?;
    let left = ip(&env.net.home, "-6 rule")? + &ip(&env.net.home, "-6 route show table all proto 246")?;
    ensure!(!left.contains("2a00:0:0:1000::"), "the client left {left}");
    tunnel.broker.ferry_mut()?.stop()?;
    tunnel.broker.ferry_mut()?.restart()?;
    tunnel.client.ferry_mut()?.restart()?;
    traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(10))?;
    check(&tunnel)
}

fn strongswan_client(env: &mut Env) -> Result<()> {
    let mut spec = spec(env, Program::StrongSwan, FERRY6)?;
    named(&mut spec, NAMED);
    // It names its own, and somebody else's.
    spec.swan_child += &format!("local_ts = dynamic,{NAMED},2a00:0:0:1000::/64\n");
    // Its routes want an address of each selector of its own.
    let address = behind(&env.net.home, "2a00:0:0:1f07::7")?;
    let foreign = behind(&env.net.home, "2a00:0:0:1000::7")?;
    let tunnel = spec.up(env)?;
    reached(env, address).with_context(|| tunnel.logs())?;
    tunnel.carries_traffic(env)?;
    for side in [&tunnel.client, &tunnel.broker] {
        side.rekey_child()?;
        std::thread::sleep(Duration::from_secs(1));
        reached(env, address).with_context(|| tunnel.logs())?;
    }
    let flows = tunnel.broker.ferry()?.control(&["status"])?;
    ensure!(flows.contains(NAMED) && !flows.contains("1000::/64 "), "{flows}");
    not_reached(env, foreign)
}

fn strongswan_broker(env: &mut Env) -> Result<()> {
    let mut spec = spec(env, FERRY6, Program::StrongSwan)?;
    spec.swan_child += &format!("remote_ts = dynamic,{NAMED}\n");
    spec.ferry_client.tunnel += &format!("prefix = \"{NAMED}\"\n");
    let tunnel = spec.up(env)?;
    let address = behind(&env.net.home, "2a00:0:0:1f07::7")?;
    ensure!(prefix_of(&tunnel.client)?.as_deref() == Some(NAMED), "{}", tunnel.logs());
    reached(env, address).with_context(|| tunnel.logs())?;
    tunnel.client.rekey_child()?;
    std::thread::sleep(Duration::from_secs(1));
    reached(env, address).with_context(|| tunnel.logs())
}

fn anothers(env: &mut Env) -> Result<()> {
    let mut spec = spec(env, FERRY6, FERRY6)?;
    // The pool's first one is bob's.
    spec.ferry_pool += "fixed_prefixes = { \"bob@my.domain\" = \"2a00:0:0:1000::/64\" }\n";
    spec.ferry_client.tunnel += "prefix = \"2a00:0:0:1000::/64\"\n";
    let tunnel = spec.up(env)?;
    ensure!(prefix_of(&tunnel.client)?.as_deref() == Some("2a00:0:0:1001::/64"), "{}", tunnel.logs());
    reached(env, behind(&env.net.home, "2a00:0:0:1001::7")?).with_context(|| tunnel.logs())?;
    not_reached(env, behind(&env.net.home, "2a00:0:0:1000::7")?)
}

/// A host in a network behind the home's computer, on an interface of it.
pub(super) fn neighbour(env: &Env, interface: &str) -> Result<Host> {
    let host = env.net.lab.host(&format!("at-{interface}"))?;
    env.net.lab.link(&env.net.home, interface, &host, "eth0")?;
    // The lab's hosts do not ask for routers, as a rule.
    host.sysctl("net.ipv6.conf.eth0.router_solicitations", "3")?;
    Ok(host)
}

/// radvd with the configuration that ferry6 prints, until this is dropped.
pub(super) struct Radvd(Child);

impl Drop for Radvd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn radvd(env: &Env, client: &Path) -> Result<Radvd> {
    let dir = env.subdir("radvd")?;
    let mut command = env.net.home.command(&env.ferry6);
    let text =
        run(command.args(["client", "radvd", "--config"]).arg(client.join("ferry6.toml")), "client radvd")?;
    let file = dir.join("radvd.conf");
    std::fs::write(&file, &text)?;
    let (log, again) = (dir.join("radvd.log"), dir.join("radvd.pid"));
    let log = File::create(log)?;
    let mut radvd = env.net.home.command("radvd");
    radvd.args(["--nodaemon", "--logmethod", "stderr", "--debug", "1", "--config"]).arg(&file);
    radvd.arg("--pidfile").arg(again).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Radvd(radvd.spawn().context("radvd starts")?))
}

/// The address that a host gave itself in a network.
pub(super) fn slaac(host: &Host, network: &str, patience: Duration) -> Result<Ipv6Addr> {
    let network: Prefix6 = network.parse().map_err(anyhow::Error::msg)?;
    let mut found = None;
    wait_until("a host behind the client has an address", patience, || {
        let list = ip(host, "-6 -o addr show dev eth0 scope global -tentative")?;
        let addresses = list.split_whitespace().filter_map(|word| word.split('/').next()?.parse().ok());
        found = addresses.into_iter().find(|address: &Ipv6Addr| network.contains(*address));
        Ok(found.is_some())
    })?;
    found.context("it was found")
}

struct Router {
    tunnel: Tunnel,
    neighbour: Host,
    address: Ipv6Addr,
    radvd: Radvd,
}

fn router(env: &Env) -> Result<Router> {
    let mut spec = spec(env, FERRY6, FERRY6)?;
    named(&mut spec, NAMED);
    spec.ferry_client.tunnel += "lan = \"eth1\"\n";
    spec.ferry_client.ike += "dpd = \"2s\"\nretransmit_timeout = \"300ms\"\nretransmit_tries = 3\n";
    let neighbour = neighbour(env, "eth1")?;
    // Where the home's computer has a better way of its own its pings go there.
    let tunnel = Tunnel { broker: spec.start_broker(env)?, client: spec.start_client(env)? };
    wait_until("the tunnel is up", Duration::from_secs(10), || {
        Ok(tunnel.client.ferry()?.status()?[0]["client"]["state"] == "up")
    })
    .with_context(|| tunnel.logs())?;
    let radvd = radvd(env, tunnel.client.ferry()?.dir())?;
    // It is plugged in.
    neighbour.down("eth0")?;
    neighbour.up("eth0")?;
    let address = slaac(&neighbour, LAN, PATIENCE).with_context(|| tunnel.logs())?;
    Ok(Router { tunnel, neighbour, address, radvd })
}

fn both_ways(env: &Env, router: &Router) -> Result<()> {
    behind_reached(env, &router.neighbour, router.address).with_context(|| router.tunnel.logs())
}

/// After one side was started again.
fn back(env: &Env, router: &Router) -> Result<()> {
    wait_until("the tunnel is back", Duration::from_secs(30), || {
        Ok(traffic::ping_count(&router.neighbour, server6()?, 1, PAUSE).is_ok_and(|c| c.no_loss().is_ok()))
    })?;
    both_ways(env, router)
}

/// A host behind reaches the server, and is reached.
pub(super) fn behind_reached(env: &Env, host: &Host, address: Ipv6Addr) -> Result<()> {
    traffic::ping_count(host, server6()?, 5, PAUSE)?.no_loss().context("a host behind to the server")?;
    traffic::ping_count(&env.net.server, address, 5, PAUSE)?.no_loss().context("the server to a host behind")
}

fn lan(env: &mut Env) -> Result<()> {
    let home = env.net.home.clone();
    home.sysctl("net.ipv6.conf.all.forwarding", "0")?;
    let mut router = router(env)?;
    both_ways(env, &router)?;
    traffic::tcp_both_ways(&router.neighbour, &env.net.server, server6()?, 4 << 20)?;
    // The server learns from the first one how large a fragment may be (RFC 8201).
    traffic::ping_large(&router.neighbour, server6()?, 1, 1900)?;
    traffic::ping_large(&router.neighbour, server6()?, 5, 1900)?.no_loss().context("in fragments")?;
    let status = router.tunnel.client.ferry()?.control(&["status"])?;
    ensure!(
        status.contains(&format!("prefix  {NAMED}")) && status.contains("lan     eth1 2a00:0:0:1f00::1/64"),
        "{status}"
    );
    for side in [&router.tunnel.client, &router.tunnel.broker] {
        side.rekey_child()?;
        std::thread::sleep(Duration::from_secs(1));
        both_ways(env, &router)?;
    }
    // The interface was away for a while, and its address with it.
    home.down("eth1")?;
    home.up("eth1")?;
    wait_until("the network behind is reached again", Duration::from_secs(15), || {
        Ok(traffic::ping_count(&router.neighbour, server6()?, 1, PAUSE).is_ok_and(|c| c.no_loss().is_ok()))
    })?;

    // Each fault is found.
    let client = router.tunnel.client.ferry()?;
    let doctor = |outcome: &str, words: &str| -> Result<()> {
        let mut command = home.command(&env.ferry6);
        command.args(["doctor", "client", "--only", "lan", "--config"]).arg(client.dir().join("ferry6.toml"));
        let said = String::from_utf8_lossy(&command.output()?.stdout).into_owned();
        let found = said.lines().any(|l| l.trim_start().starts_with(outcome) && l.contains(words));
        ensure!(found, "the doctor does not say {outcome} {words:?}: {said}");
        Ok(())
    };
    doctor("ok", "eth1 2a00:0:0:1f00::1/64")?;
    doctor("ok", "radvd")?;
    home.sysctl("net.ipv6.conf.all.forwarding", "0")?;
    doctor("FAIL", "forwarding is off")?;
    home.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    drop(router.radvd);
    doctor("warn", "router advertisements")?;
    home.down("eth1")?;
    wait_until("the doctor sees that eth1 is down", Duration::from_secs(15), || {
        Ok(doctor("FAIL", "eth1").is_ok())
    })?;
    home.up("eth1")?;

    router.tunnel.client.ferry_mut()?.stop()?;
    let left = [
        ip(&home, "-6 -o addr show scope global")?,
        ip(&home, "-6 rule show")?,
        ip(&home, "-6 route show table all proto 246")?,
    ]
    .concat();
    ensure!(!left.contains("2a00:"), "the client left {left}");
    let forwarding = run(home.command("cat").arg("/proc/sys/net/ipv6/conf/all/forwarding"), "cat")?;
    ensure!(forwarding.trim() == "0", "forwarding was left on");
    Ok(())
}

/// Another way into the internet for the home's computer, by IPv6 and in clear, which counts what comes from prefixes.
pub(super) fn another_way(env: &Env) -> Result<Host> {
    let other = env.net.lab.host("provider")?;
    env.net.lab.link(&env.net.home, "eth2", &other, "eth0")?;
    env.net.home.address("eth2", "2b00::2/64")?;
    other.address("eth0", "2b00::1/64")?;
    let route = "-6 route add default via 2b00::1 dev eth2 metric 10";
    ip(&env.net.home, route)?;
    other.nft(
        "table ip6 watch { chain in { type filter hook prerouting priority 0; ip6 saddr 2a00::/16 counter; }; }",
    )?;
    Ok(other)
}

/// Nothing came out there that belongs into the tunnel; but other things did.
pub(super) fn nothing_in_clear(env: &Env, other: &Host) -> Result<()> {
    traffic::ping_count(&env.net.home, "2b00::1".parse()?, 2, PAUSE)?
        .no_loss()
        .context("the other way works")?;
    let counter = run(other.command("nft").args(["list", "chain", "ip6", "watch", "in"]), "nft list")?;
    ensure!(counter.contains("counter packets 0 "), "in clear: {counter}");
    Ok(())
}

fn lan_lost(env: &mut Env) -> Result<()> {
    let other = another_way(env)?;
    let mut router = router(env)?;
    // The other default route is the better one by its metric, and yet what comes from the prefix goes into the tunnel.
    both_ways(env, &router)?;
    router.tunnel.broker.ferry_mut()?.kill()?;
    wait_until("the client notices", Duration::from_secs(20), || {
        Ok(router.tunnel.client.ferry()?.status()?[0]["client"]["state"] != "up")
    })?;
    let count = traffic::ping_count(&router.neighbour, server6()?, 2, PAUSE)?;
    ensure!(count.received == 0 && count.no_route == 2, "the host behind is not told: {count:?}");
    nothing_in_clear(env, &other)?;
    let kept = slaac(&router.neighbour, LAN, PATIENCE)?;
    ensure!(kept == router.address, "{kept} was {}", router.address);
    router.tunnel.broker.ferry_mut()?.restart()?;
    back(env, &router)?;
    router.tunnel.client.ferry()?.control(&["down"])?;
    let left = ip(&env.net.home, "-6 rule show")? + &ip(&env.net.home, "-6 addr show dev eth1")?;
    ensure!(!left.contains("2a00:"), "`down` left {left}");
    Ok(())
}

fn lan_killed(env: &mut Env) -> Result<()> {
    let other = another_way(env)?;
    let mut router = router(env)?;
    both_ways(env, &router)?;
    router.tunnel.client.ferry_mut()?.kill()?;
    let count = traffic::ping_count(&router.neighbour, server6()?, 3, PAUSE)?;
    ensure!(count.received == 0 && count.no_route > 0, "a killed client still carries packets: {count:?}");
    nothing_in_clear(env, &other)?;
    router.tunnel.client.ferry_mut()?.restart()?;
    back(env, &router)?;
    router.tunnel.client.ferry_mut()?.stop()?;
    let left = ip(&env.net.home, "-6 rule show")? + &ip(&env.net.home, "-6 addr show dev eth1 scope global")?;
    ensure!(!left.contains("2a00:"), "two clients left {left}");
    Ok(())
}
