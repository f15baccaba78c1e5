//! Sizes and marks (docs/mtu.md): a path that is smaller than it looks, with and without ICMP; MSS, DSCP, ECN; and IKE where
//! fragments of IP are lost.

use super::tunnel::{CLIENT_ADDRESS, FERRY6, Program, Spec, Tunnel, ip, server6};
use super::{Case, Env, Peer, Role};
use crate::ferry::Ferry;
use crate::traffic::{self, Mark};
use crate::{run, wait_until};
use anyhow::{Context, Result, ensure};
use ferry6::lab::Host;
use std::net::Ipv6Addr;
use std::time::Duration;

const SWAN: Program = Program::StrongSwan;
const PAIRS: [(&str, Peer, Role, Program, Program); 3] = [
    ("both-ferry6", Peer::Ferry6, Role::Both, FERRY6, FERRY6),
    ("client-strongswan", Peer::StrongSwan, Role::Client, FERRY6, SWAN),
    ("broker-strongswan", Peer::StrongSwan, Role::Broker, SWAN, FERRY6),
];
/// AES-GCM: IPv4 and UDP 28, ESP and IV 16, trailer 2, ICV 16, and the text a multiple of 4.
const fn gcm(path: u64) -> u64 {
    (path - 28 - 32) / 4 * 4 - 2
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, peer, role, client, broker) in PAIRS {
        cases.push(Case::new(
            format!("mtu-icmp-{name}"),
            peer,
            role,
            "a link of 1400 octets on the way: ICMP tells, the tunnel's MTU follows, Packet Too Big has the right number",
            move |env| smaller(env, client, broker, 1400, false),
        ));
        cases.push(Case::new(
            format!("mtu-black-hole-{name}"),
            peer,
            role,
            "the same with ICMP filtered: probes find the 1400 octets",
            move |env| smaller(env, client, broker, 1400, true),
        ));
        cases.push(Case::new(
            format!("ike-fragments-{name}"),
            peer,
            role,
            "a path of 576 octets that loses fragments of IP: IKE_AUTH with certificates comes through (RFC 7383 2.5.1)",
            move |env| ike_fragments(env, client, broker),
        ));
    }
    cases.push(Case::new(
        "mtu-1280-both-ferry6",
        Peer::Ferry6,
        Role::Both,
        "a path of 1280 octets: inner packets of 1280 go through in outer fragments, larger ones are told 1280",
        |env| smaller(env, FERRY6, FERRY6, 1280, false),
    ));
    cases.push(Case::new(
        "mtu-df-set-both-ferry6",
        Peer::Ferry6,
        Role::Both,
        "tunnel.df = \"set\": no fragment of ESP on the wire, and the path of 1400 octets is found",
        df_set,
    ));
    for (name, peer, role, client, broker) in [PAIRS[0], PAIRS[2]] {
        cases.push(Case::new(
            format!("mss-{name}"),
            peer,
            role,
            "mss_clamp = 1000 on the broker: both ends of a TCP connection send segments of no more",
            move |env| mss(env, client, broker),
        ));
    }
    cases.push(Case::new(
        "dscp-ecn-both-ferry6",
        Peer::Ferry6,
        Role::Both,
        "DSCP and ECN of inner packets are on the outer ones, and a mark of a router (CE) comes through (RFC 6040)",
        |env| marks_copied(env, FERRY6),
    ));
    cases.push(Case::new(
        "dscp-ecn-client-strongswan",
        Peer::StrongSwan,
        Role::Client,
        "DSCP and ECN of inner packets are on the outer ones (strongSwan's libipsec itself looks at neither)",
        |env| marks_copied(env, SWAN),
    ));
    cases.push(Case::new(
        "dscp-ecn-set-both-ferry6",
        Peer::Ferry6,
        Role::Both,
        "dscp = 46 and ecn = \"off\": every outer packet says EF and Not-ECT",
        marks_set,
    ));
    cases
}

/// The link between home and internet takes no more than this.
fn narrow(env: &Env, mtu: u32) -> Result<()> {
    env.net.home_router.mtu("wan", mtu)?;
    Ok(env.net.internet.mtu("home", mtu)?)
}

/// The routers at that link are silent about what they drop.
fn filter_icmp(env: &Env) -> Result<()> {
    for host in [&env.net.home_router, &env.net.internet] {
        host.nft(
            "table ip silent { chain out { type filter hook output priority 0; \
             icmp type destination-unreachable drop; }; }",
        )?;
    }
    Ok(())
}

/// What `status` says: path MTU, how it is known, tunnel MTU.
fn sizes(ferry: &Ferry) -> Result<Option<(u64, String, u64)>> {
    let status = ferry.status()?;
    let sas = super::life::ike_sas(&status);
    let Some(sa) = sas.first() else { return Ok(None) };
    let known = sa["path_mtu_known"].as_str().unwrap_or_default().to_owned();
    Ok(sa["path_mtu"].as_u64().zip(sa["children"][0]["mtu"].as_u64()).map(|(p, t)| (p, known, t)))
}

fn finds(tunnel: &Tunnel, path: u64, inner: u64) -> Result<()> {
    for side in [&tunnel.client, &tunnel.broker] {
        let Ok(ferry) = side.ferry() else { continue };
        let mut last = None;
        wait_until(&format!("{path} octets are proven"), Duration::from_secs(40), || {
            last = sizes(ferry)?;
            Ok(last.as_ref().is_some_and(|(p, known, t)| (*p, known.as_str(), *t) == (path, "proven", inner)))
        })
        .with_context(|| format!("it says {last:?}\n{}", tunnel.logs()))?;
    }
    Ok(())
}

/// What a host's kernel has learnt of the path to an address.
fn learnt(host: &Host, to: Ipv6Addr) -> Result<Option<u64>> {
    let text = ip(host, &format!("-6 route get {to}"))?;
    let mut words = text.split_whitespace();
    Ok(words.find(|w| *w == "mtu").and_then(|_| words.next()).and_then(|n| n.parse().ok()))
}

fn smaller(env: &Env, client: Program, broker: Program, path: u32, silent: bool) -> Result<()> {
    narrow(env, path)?;
    if silent {
        filter_icmp(env)?;
    }
    let tunnel = Spec::certified(env, client, broker)?.up(env)?;
    let inner = gcm(path.into()).max(1280);
    finds(&tunnel, path.into(), inner)?;
    let (home, server) = (&env.net.home, &env.net.server);
    let address: Ipv6Addr = CLIENT_ADDRESS.parse()?;
    let most = usize::try_from(inner)?;
    if tunnel.client.ferry().is_ok() {
        let device = ip(home, "-6 route get 2a00:1::80")?;
        let device =
            device.split_whitespace().skip_while(|w| *w != "dev").nth(1).unwrap_or_default().to_owned();
        let link = ip(home, &format!("link show dev {device}"))?;
        ensure!(link.contains(&format!("mtu {inner} ")), "the client's device has another MTU: {link}");
        traffic::ping_marked(home, server6()?, 20, Mark { octets: most, ..Mark::default() })?
            .no_loss()
            .with_context(|| format!("{most} octets from the client\n{}", tunnel.logs()))?;
    }
    if tunnel.broker.ferry().is_ok() {
        let of = |octets| Mark { octets, ..Mark::default() };
        traffic::ping_marked(server, address, 20, of(most))?
            .no_loss()
            .with_context(|| format!("{most} octets from the server\n{}", tunnel.logs()))?;
        ensure!(learnt(server, address)?.is_none(), "what fits was refused");
        traffic::ping_marked(server, address, 1, of(most + 1))?;
        let told = learnt(server, address)?;
        ensure!(told == Some(inner), "the server was told {told:?} instead of {inner}\n{}", tunnel.logs());
    }
    tunnel.carries_traffic(env)
}

/// A rule with a counter of this name in the forwarding of a host.
fn count(host: &Host, rules: &[(&str, &str)]) -> Result<()> {
    let mut text = String::from("table inet seen {\n");
    for (name, _) in rules {
        text += &format!("counter {name} {{ }}\n");
    }
    text += "chain pass { type filter hook forward priority 10; }\nchain in { type filter hook input priority 10; }\n}\n";
    for (name, rule) in rules {
        for chain in ["pass", "in"] {
            text += &format!("add rule inet seen {chain} {rule} counter name {name}\n");
        }
    }
    Ok(host.nft(&text)?)
}

fn counted(host: &Host, name: &str) -> Result<u64> {
    let text = run(host.command("nft").args(["list", "counter", "inet", "seen", name]), "nft list counter")?;
    let mut words = text.split_whitespace();
    words
        .find(|w| *w == "packets")
        .and_then(|_| words.next())
        .and_then(|n| n.parse().ok())
        .with_context(|| format!("no counter in {text}"))
}

fn df_set(env: &mut Env) -> Result<()> {
    narrow(env, 1400)?;
    count(&env.net.internet, &[("fragments", "ip frag-off & 0x3fff != 0"), ("large", "udp length > 1290")])?;
    let mut spec = Spec::certified(env, FERRY6, FERRY6)?;
    for extra in [&mut spec.ferry_client, &mut spec.ferry_broker] {
        extra.tunnel = "df = \"set\"\n".into();
    }
    let tunnel = spec.up(env)?;
    finds(&tunnel, 1400, gcm(1400))?;
    tunnel.carries_traffic(env)?;
    let (fragments, esp) = (counted(&env.net.internet, "fragments")?, counted(&env.net.internet, "large")?);
    // Super-packets count as one.
    ensure!(esp > 50, "hardly a large packet was seen: {esp}");
    ensure!(fragments == 0, "{fragments} fragments on the internet");
    Ok(())
}

fn mss(env: &Env, client: Program, broker: Program) -> Result<()> {
    let mut spec = Spec::certified(env, client, broker)?;
    spec.ferry_broker.tunnel = "mss_clamp = 1000\n".into();
    let tunnel = spec.up(env)?;
    let sizes = traffic::segment_sizes(&env.net.home, &env.net.server, server6()?)?;
    ensure!(sizes.iter().all(|mss| (900..=1000).contains(mss)), "segments of {sizes:?} octets");
    tunnel.carries_traffic(env)
}

/// EF with ECT(0).
const CLASS: u8 = (46 << 2) | 0b10;

fn marks_copied(env: &Env, broker: Program) -> Result<()> {
    let internet = &env.net.internet;
    count(internet, &[("marked", "udp dport 4500 ip dscp ef ip ecn ect0")])?;
    count(&env.net.server, &[("congested", "ip6 ecn ce"), ("expedited", "ip6 dscp ef")])?;
    let tunnel = Spec::certified(env, FERRY6, broker)?.up(env)?;
    let mark = Mark { class: CLASS, ..Mark::default() };
    traffic::ping_marked(&env.net.home, server6()?, 10, mark)?.no_loss().with_context(|| tunnel.logs())?;
    let marked = counted(internet, "marked")?;
    ensure!(marked >= 10, "{marked} outer packets with the marks of the inner ones");
    ensure!(counted(&env.net.server, "expedited")? >= 10, "the inner DSCP did not survive");
    ensure!(counted(&env.net.server, "congested")? == 0, "a mark out of nowhere");
    if broker == SWAN {
        return Ok(());
    }
    // A router on the way is congested.
    internet.nft(
        "table ip congested { chain pass { type filter hook forward priority 0; \
         udp dport 4500 ip ecn ect0 ip ecn set ce; }; }",
    )?;
    traffic::ping_marked(&env.net.home, server6()?, 10, mark)?.no_loss().with_context(|| tunnel.logs())?;
    let congested = counted(&env.net.server, "congested")?;
    ensure!(congested == 10, "{congested} of 10 marks came through");
    Ok(())
}

fn marks_set(env: &mut Env) -> Result<()> {
    let internet = &env.net.internet;
    let as_set = "udp length > 60 ip dscp ef ip ecn not-ect";
    let (there, back) = (format!("udp dport 4500 {as_set}"), format!("udp sport 4500 {as_set}"));
    count(internet, &[("there", &there), ("back", &back)])?;
    let mut spec = Spec::certified(env, FERRY6, FERRY6)?;
    for extra in [&mut spec.ferry_client, &mut spec.ferry_broker] {
        extra.tunnel = "dscp = 46\necn = \"off\"\n".into();
    }
    let tunnel = spec.up(env)?;
    let seen = || -> Result<[u64; 2]> { Ok([counted(internet, "there")?, counted(internet, "back")?]) };
    let before = seen()?;
    let mark = Mark { class: (10 << 2) | 0b10, ..Mark::default() };
    traffic::ping_marked(&env.net.home, server6()?, 10, mark)?.no_loss().with_context(|| tunnel.logs())?;
    let after = seen()?;
    ensure!(
        after.iter().zip(before).all(|(after, before)| after - before >= 10),
        "outer packets as configured, there and back: {before:?}, then {after:?}"
    );
    Ok(())
}

fn ike_fragments(env: &Env, client: Program, broker: Program) -> Result<()> {
    narrow(env, 576)?;
    filter_icmp(env)?;
    // Before conntrack puts them together.
    env.net.internet.nft(
        "table ip lossy { chain pre { type filter hook prerouting priority -500; \
         ip frag-off & 0x3fff != 0 counter drop; }; }",
    )?;
    let mut spec = Spec::certified(env, client, broker)?;
    // charon does not adapt: it must be told.
    spec.swan_charon = "  fragment_size = 544\n".into();
    for extra in [&mut spec.ferry_client, &mut spec.ferry_broker] {
        extra.ike = "retransmit_timeout = \"500ms\"\n".into();
    }
    let tunnel = spec.up(env)?;
    finds(&tunnel, 576, 1280)?;
    // What was learnt holds for the next exchanges too.
    let (ferry, _) = tunnel.ferry_and_other();
    ferry.rekey_ike()?;
    ferry.wait_for_log("rekeyed")?;
    let pause = Duration::from_millis(10);
    traffic::ping_count(&env.net.home, server6()?, 20, pause)?.no_loss().with_context(|| tunnel.logs())
}
