//! Prefixes of several users of one broker: whose is which, and nobody has anything of another's.

use super::life::ike_sas;
use super::tunnel::{FERRY6, Program, Side, Spec, Tunnel, broker6, ip, psk, server6};
use super::{Case, Env, Peer, Role};
use crate::ferry::{Ferry, Mode};
use crate::rogue::Rogue;
use crate::traffic::{self, Pinger};
use crate::{run, wait_until};
use anyhow::{Context, Result, ensure};
use ferry6::lab::Host;
use ferry6::lab::article::{BROKER_IPV6, BROKER_PUBLIC, POOL, Site};
use ferry6_ike::TrafficSelector;
use ferry6_ike::config::{AddressConfig, PrefixWish};
use std::net::Ipv6Addr;
use std::time::Duration;

/// All prefixes; the firewall routes them to the broker.
const ALL: &str = "2a00:0:0:1000::/52";
/// What the first user gets, and an address in it.
const ALICES: &str = "2a00:0:0:1000::/64";
const AT_ALICE: &str = "2a00:0:0:1000::7";
/// The second one's.
const BOBS: &str = "2a00:0:0:1001::/64";
const AT_BOB: &str = "2a00:0:0:1001::7";
/// Nobody's, of the same pool.
const AT_NOBODY: &str = "2a00:0:0:1002::7";
const PAUSE: Duration = Duration::from_millis(20);
const BOB: &str = "bob@my.domain";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "prefix-two-users",
            Peer::Ferry6,
            Role::Both,
            "two users have a prefix each, reach each other in them across rekeys, and have the same ones after the broker was killed",
            two_users,
        ),
        Case::new(
            "prefix-spoofed",
            Peer::Ferry6,
            Role::Broker,
            "a client that keeps to no selectors sends from another's prefix and address: dropped and counted; it receives nothing of another's",
            spoofed,
        ),
        Case::new(
            "prefix-any-strongswan",
            Peer::StrongSwan,
            Role::Client,
            "strongSwan as the broker passes over the question for any prefix: the tunnel is up without",
            any_of_strongswan,
        ),
        Case::new(
            "prefix-reload",
            Peer::Ferry6,
            Role::Both,
            "pool.prefixes come and go by `ferry6 reload`: routes follow, a tunnel loses nothing and keeps its prefix to its end",
            reload,
        ),
    ]
}

fn spec(env: &Env) -> Result<Spec> {
    env.net.firewall.route(ALL, BROKER_IPV6)?;
    let mut spec = Spec::new(FERRY6, FERRY6, psk("a secret of sixteen octets and more"));
    spec.ferry_pool = format!("range = \"{POOL}\"\nprefixes = \"{ALL}\"\n");
    spec.ferry_client.tunnel = "prefix = \"any\"\n".into();
    spec.ferry_client.ike = "dpd = \"2s\"\nretransmit_timeout = \"300ms\"\nretransmit_tries = 3\n".into();
    Ok(spec)
}

/// A host of a second home, which is there for as long as its site is held.
fn elsewhere(env: &Env) -> Result<(Site, Host)> {
    let (site, host) = (env.net.site(1)?, env.net.lab.host("elsewhere")?);
    env.net.attach(&site, &host, "eth0")?;
    env.net.default_route(&site, &host)?;
    Ok((site, host))
}

/// An address of a prefix on the client's loopback: what is behind it may be anything.
fn behind(host: &Host, address: &str) -> Result<Ipv6Addr> {
    host.address("lo", &format!("{address}/128"))?;
    Ok(address.parse()?)
}

/// Pings through the tunnel from this address of the host: its route says so.
fn ping_from(host: &Host, from: Ipv6Addr, to: Ipv6Addr) -> Result<()> {
    ip(host, &format!("-6 route replace {to} dev ferry0 src {from}"))?;
    traffic::ping_count(host, to, 5, PAUSE)?.no_loss()
}

/// The prefixes of the broker's tunnels, by identity.
fn prefix_of(broker: &Side, identity: &str) -> Result<Option<String>> {
    let status = broker.ferry()?.status()?;
    let leases = status[0]["broker"]["leases"].as_array().cloned().unwrap_or_default();
    let lease = leases.iter().find(|l| l["identity"].as_str().is_some_and(|i| i.contains(identity)));
    Ok(lease.and_then(|l| l["prefix"].as_str()).map(str::to_owned))
}

fn two_users(env: &mut Env) -> Result<()> {
    let mut spec = spec(env)?;
    let mut tunnel = spec.up(env)?;
    let (_site, host) = elsewhere(env)?;
    // Who asks for the other one's by its name gets the next one.
    spec.client_id = BOB.into();
    spec.ferry_client.tunnel = format!("prefix = \"{ALICES}\"\n");
    let dir = env.subdir("bob")?;
    let toml = spec.toml(Mode::Client, &dir, "aws-lc")?;
    let bob = Ferry::start(&env.ferry6, &host, Mode::Client, &dir, &toml, &[])?;
    let logs = |tunnel: &Tunnel| format!("{}\n--- bob\n{}", tunnel.logs(), bob.log());
    traffic::wait_for_ping(&host, broker6()?, Duration::from_secs(10)).with_context(|| logs(&tunnel))?;

    let (at_alice, at_bob) = (behind(&env.net.home, AT_ALICE)?, behind(&host, AT_BOB)?);
    let check = |tunnel: &Tunnel| -> Result<()> {
        let got = (prefix_of(&tunnel.broker, super::tunnel::CLIENT_ID)?, prefix_of(&tunnel.broker, BOB)?);
        ensure!(got == (Some(ALICES.into()), Some(BOBS.into())), "{got:?}");
        ping_from(&env.net.home, at_alice, at_bob).context("alice to bob")?;
        ping_from(&host, at_bob, at_alice).context("bob to alice")?;
        ping_from(&host, at_bob, server6()?).context("bob to the server")?;
        traffic::ping_count(&env.net.server, at_alice, 5, PAUSE)?.no_loss().context("server to alice")?;
        traffic::ping_count(&env.net.server, at_bob, 5, PAUSE)?.no_loss().context("server to bob")
    };
    check(&tunnel).with_context(|| logs(&tunnel))?;
    // The broker rekeys both tunnels.
    for kind in ["--child", "--ike"] {
        tunnel.broker.ferry()?.control(&["rekey", kind])?;
        std::thread::sleep(Duration::from_secs(1));
        check(&tunnel).with_context(|| logs(&tunnel))?;
    }
    // Nothing is written when it is killed; what they have was written before they heard of it.
    tunnel.broker.ferry_mut()?.kill()?;
    tunnel.broker.ferry_mut()?.restart()?;
    wait_until("both are back", Duration::from_secs(30), || {
        let back = |host: &Host| -> Result<bool> {
            Ok(traffic::ping_count(host, broker6()?, 1, Duration::ZERO)?.received == 1)
        };
        Ok(back(&env.net.home)? && back(&host)?)
    })
    .with_context(|| logs(&tunnel))?;
    check(&tunnel).with_context(|| logs(&tunnel))
}

/// How many packets of each source came to the server: as nftables counts them.
fn count_sources(env: &Env, sources: &[Ipv6Addr]) -> Result<()> {
    let rules: Vec<String> = sources.iter().map(|s| format!("ip6 saddr {s} counter\n")).collect();
    let chain = format!("chain in {{\ntype filter hook prerouting priority 0;\n{}}}\n", rules.concat());
    Ok(env.net.server.nft(&format!("table ip6 watch {{\n{chain}}}\n"))?)
}

fn came(env: &Env, source: Ipv6Addr) -> Result<u64> {
    let list = run(env.net.server.command("nft").args(["list", "chain", "ip6", "watch", "in"]), "nft list")?;
    let rule = format!("saddr {source} counter packets ");
    let count = list.split(&rule).nth(1).and_then(|rest| rest.split_whitespace().next());
    count.with_context(|| format!("no counter for {source} in {list}"))?.parse().context("a number")
}

/// What the broker dropped for its selectors.
fn mismatches(broker: &Side) -> Result<u64> {
    let status = broker.ferry()?.status()?;
    let children = ike_sas(&status).into_iter().filter_map(|sa| sa["children"].as_array()).flatten();
    Ok(children.filter_map(|child| child["drops"]["in_selector_mismatch"].as_u64()).sum())
}

fn spoofed(env: &mut Env) -> Result<()> {
    const TRIES: u64 = 5;
    let mut spec = spec(env)?;
    let mut tunnel = spec.up(env)?;
    let at_alice = behind(&env.net.home, AT_ALICE)?;
    let alice = "2a00::101".parse()?;
    let (at_rogue, at_nobody) = (AT_BOB.parse()?, AT_NOBODY.parse()?);
    let broker6 = broker6()?;

    spec.client_id = BOB.into();
    let dir = env.subdir("rogue")?;
    let file = dir.join("ferry6.toml");
    crate::write_private(&file, &spec.toml(Mode::Client, &dir, "aws-lc")?)?;
    let mut connection = ferry6::config::client(&file)?.connection;
    // By the payload and by selectors alike it asks for what is alice's.
    connection.addresses = AddressConfig::Request {
        address: Some(alice),
        prefix: PrefixWish::This(ALICES.parse().map_err(anyhow::Error::msg)?),
    };
    let selector = |text: &str| text.parse::<TrafficSelector>().map_err(anyhow::Error::msg);
    connection.local_ts = vec![selector("::/0")?, selector(ALICES)?, selector("2a00::101")?];
    let (_site, host) = elsewhere(env)?;
    let mut rogue =
        Rogue::connect(&host, BROKER_PUBLIC.parse()?, connection).with_context(|| tunnel.logs())?;
    ensure!(rogue.granted == [selector("2a00::102")?, selector(BOBS)?], "it is granted {:?}", rogue.granted);

    count_sources(env, &[at_rogue, at_alice, alice, at_nobody])?;
    // What is its own works: both ways, by this very means.
    let own_works = |rogue: &mut Rogue| -> Result<()> {
        for _ in 0..TRIES {
            rogue.echo_request(at_rogue, server6()?)?;
        }
        let answers = rogue.receives(Duration::from_millis(500))?;
        ensure!(answers == vec![at_rogue; TRIES as usize], "answers to its own echoes: {answers:?}");
        Ok(())
    };
    own_works(&mut rogue).with_context(|| tunnel.logs())?;
    ensure!(came(env, at_rogue)? == TRIES, "the server saw {} of its own", came(env, at_rogue)?);
    ensure!(mismatches(&tunnel.broker)? == 0, "its own was dropped");

    // From another's, and from what is nobody's: to the server, to the broker itself, to the other client.
    for source in [at_alice, alice, at_nobody] {
        for to in [server6()?, broker6, alice] {
            for _ in 0..TRIES {
                rogue.echo_request(source, to)?;
            }
        }
    }
    wait_until("the broker has counted all of them", Duration::from_secs(5), || {
        Ok(mismatches(&tunnel.broker)? == 9 * TRIES)
    })
    .with_context(|| format!("{:?} of {}", mismatches(&tunnel.broker), 9 * TRIES))?;
    for source in [at_alice, alice, at_nobody] {
        ensure!(came(env, source)? == 0, "the server saw packets from {source}");
    }

    // What is for alice comes to alice alone, in her prefix and out of it.
    for to in [at_alice, alice] {
        traffic::ping_count(&env.net.server, to, 5, PAUSE)?.no_loss().with_context(|| tunnel.logs())?;
    }
    // Whatever came meanwhile waits at its socket: the answers to its own are all there is.
    own_works(&mut rogue).context("with alice there").with_context(|| tunnel.logs())?;
    // Not even when she is gone.
    tunnel.client.ferry_mut()?.stop()?;
    let gone = traffic::ping_count(&env.net.server, at_alice, 5, PAUSE)?;
    ensure!(gone.received == 0, "somebody answered for alice");
    own_works(&mut rogue).context("with alice gone").with_context(|| tunnel.logs())
}

fn any_of_strongswan(env: &mut Env) -> Result<()> {
    let mut spec = Spec::certified(env, FERRY6, Program::StrongSwan)?;
    for prefix in ["any", ALICES] {
        spec.ferry_client.tunnel = format!("prefix = \"{prefix}\"\n");
        let mut tunnel = spec.up(env)?;
        tunnel.carries_traffic(env)?;
        let client = tunnel.client.ferry_mut()?;
        let status = client.status()?;
        ensure!(status[0]["client"]["state"] == "up", "{status}");
        ensure!(status[0]["client"]["prefix"].is_null(), "a prefix: {status}");
        client.stop()?;
        if let Side::Swan(swan) = tunnel.broker {
            swan.kill()?;
        }
    }
    Ok(())
}

fn reload(env: &mut Env) -> Result<()> {
    let mut spec = spec(env)?;
    let with = spec.ferry_pool.clone();
    let without = format!("range = \"{POOL}\"\n");
    spec.ferry_pool = without.clone();
    let mut tunnel = spec.up(env)?;
    let at_alice = behind(&env.net.home, AT_ALICE)?;
    let reload = |tunnel: &Tunnel, from: &str, to: &str| -> Result<()> {
        let file = tunnel.broker.ferry()?.dir().join("ferry6.toml");
        let text = std::fs::read_to_string(&file)?;
        ensure!(text.contains(from), "{from:?} is not in {text}");
        crate::write_private(&file, &text.replace(from, to))?;
        tunnel.broker.ferry()?.control(&["reload"])?;
        Ok(())
    };
    // Of the prefixes alone.
    let routes = || -> Result<Vec<String>> {
        let list = ip(&env.net.broker, "-6 route show dev ferry0")?;
        let words = list.lines().filter_map(|line| line.split_whitespace().next());
        Ok(words.filter(|word| word.starts_with("2a00:0:0:1")).map(str::to_owned).collect())
    };
    let has = |tunnel: &Tunnel, prefix: Option<&str>| -> Result<()> {
        let got = prefix_of(&tunnel.broker, super::tunnel::CLIENT_ID)?;
        ensure!(got.as_deref() == prefix, "{got:?} instead of {prefix:?}: {}", tunnel.logs());
        Ok(())
    };
    let again = |tunnel: &mut Tunnel| -> Result<()> {
        tunnel.client.ferry_mut()?.restart()?;
        traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(10))
            .with_context(|| tunnel.logs())
    };
    has(&tunnel, None)?;
    ensure!(routes()?.is_empty(), "{:?}", routes()?);

    // The tunnel stands, without a prefix; the next one has it.
    let pinger = Pinger::start(&env.net.home, server6()?, Duration::from_millis(5))?;
    reload(&tunnel, &without, &with)?;
    ensure!(routes()? == [ALL], "{:?}", routes()?);
    has(&tunnel, None)?;
    pinger.stop()?.no_loss().context("while prefixes came")?;
    tunnel.client.ferry_mut()?.stop()?;
    again(&mut tunnel)?;
    has(&tunnel, Some(ALICES))?;
    traffic::ping_count(&env.net.server, at_alice, 5, PAUSE)?.no_loss().with_context(|| tunnel.logs())?;

    // They go, and this one stays until its tunnel ends, over a rekey, too.
    let pinger = Pinger::start(&env.net.server, at_alice, Duration::from_millis(5))?;
    reload(&tunnel, &with, &without)?;
    ensure!(routes()? == [ALICES], "{:?}", routes()?);
    tunnel.broker.rekey_child()?;
    std::thread::sleep(Duration::from_secs(1));
    has(&tunnel, Some(ALICES))?;
    pinger.stop()?.no_loss().context("while prefixes went")?;
    tunnel.client.ferry_mut()?.stop()?;
    wait_until("its route is gone", Duration::from_secs(5), || Ok(routes()?.is_empty()))
        .with_context(|| format!("{:?}", routes()))?;
    again(&mut tunnel)?;
    has(&tunnel, None).context("nothing is told of what no pool has")?;
    tunnel.carries_traffic(env)?;
    let gone = traffic::ping_count(&env.net.server, at_alice, 2, PAUSE)?;
    ensure!(gone.received == 0, "a prefix of no pool is still reached");

    // And the same one again.
    reload(&tunnel, &without, &with)?;
    tunnel.client.ferry_mut()?.stop()?;
    again(&mut tunnel)?;
    has(&tunnel, Some(ALICES))?;
    traffic::ping_count(&env.net.server, at_alice, 5, PAUSE)?.no_loss().with_context(|| tunnel.logs())
}
