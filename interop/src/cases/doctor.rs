//! `ferry6 doctor`: nothing to find where all is well, and each fault of docs/troubleshooting.md found where it is provoked.
//! Several to a case, one after the other, each taken back before the next.

mod certificates;
mod sandbox;

use super::tunnel::{
    BROKER_ID, CLIENT_ADDRESS, CLIENT_ID, FERRY6, Program, Side, Spec, Tunnel, certificates, ip,
};
use super::{Case, Env, Peer, Role};
use crate::ferry::{Ferry, Mode};
use crate::pki::{Ca, Entity, Flaw, KeyType};
use crate::{run, traffic, wait_until, write_private};
use anyhow::{Context, Result, bail, ensure};
use ferry6::lab::Host;
use ferry6::lab::article::{self, BROKER_IPV6, POOL, SERVER};
use ferry6::pki::{Profile, Validity};
use serde::Deserialize;
use std::net::{Ipv6Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const KEY: KeyType = KeyType::Ecdsa256;
/// A name that the lab's DNS server knows.
const NAME: &str = "server.my.domain";

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, role, feature: &str, run: fn(&mut Env) -> Result<()>| {
        Case::new(format!("doctor-{name}"), Peer::None, role, feature, run)
    };
    let mut list = vec![
        case("healthy", Role::Both, "doctor finds nothing where all is well, on client and broker", healthy),
        case("way-back", Role::Both, "doctor: no return route, forwarding off, ESP one way", way_back),
        case("client", Role::Client, "doctor: address, routes, rules, another VPN, DNS, leak guard", client),
        case(
            "path",
            Role::Client,
            "doctor: ports blocked, fragments lost, small path, other proposals",
            path,
        ),
        case("refused", Role::Both, "doctor: what the broker refuses, as both sides see it", refused),
        case("files", Role::Client, "doctor: certificates, clock, names, ports, device, rights", files),
        case("broker", Role::Broker, "doctor: what a broker's machine lacks", broker),
        case(
            "sandbox",
            Role::Client,
            "doctor: a kernel without landlock and seccomp; switched off",
            sandbox::case,
        ),
        case("certificates", Role::Client, "doctor: wrong key usages, broken chains", certificates::case),
    ];
    list.push(Case::new(
        "doctor-strongswan",
        Peer::StrongSwan,
        Role::Client,
        "doctor: what strongSwan says to its probes, and that it keeps nothing of them",
        strongswan,
    ));
    list.push(Case::new(
        "doctor-other-daemon",
        Peer::StrongSwan,
        Role::Client,
        "doctor: strongSwan has the ports",
        other_daemon,
    ));
    list
}

/// One finding.
#[derive(Clone, Debug, Deserialize)]
struct Finding {
    check: String,
    result: String,
    text: String,
    #[serde(default)]
    hint: String,
}

#[derive(Deserialize)]
struct Report {
    checks: Vec<Finding>,
}

/// What doctor said.
#[derive(Debug)]
struct Findings {
    list: Vec<Finding>,
    /// Exit code 0.
    well: bool,
}

impl Findings {
    /// Runs it on a host, looking at the checks named (all for none).
    fn of(env: &Env, host: &Host, mode: Mode, config: &Path, only: &[&str]) -> Result<Self> {
        let mut command = host.command(&env.ferry6);
        command
            .args(["doctor", mode.word(), "--json", "--ping", SERVER, "--lookup", NAME, "--config"])
            .arg(config);
        for check in only {
            command.args(["--only", check]);
        }
        Self::read(&mut command)
    }

    fn read(command: &mut Command) -> Result<Self> {
        let output = command.output().context("cannot start ferry6 doctor")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let reports: Vec<Report> = serde_json::from_str(&text)
            .with_context(|| format!("no JSON:\n{text}\n{}", String::from_utf8_lossy(&output.stderr)))?;
        let well = match output.status.code() {
            Some(0) => true,
            Some(1) => false,
            code => bail!("ferry6 doctor ended with {code:?}"),
        };
        let list: Vec<Finding> = reports.into_iter().flat_map(|r| r.checks).collect();
        let failed = list.iter().any(|f| f.result == "fail");
        ensure!(well != failed, "the exit code does not fit what was found:\n{list:#?}");
        Ok(Self { list, well })
    }

    /// This check must come out so, with these words in its text or hint.
    fn must(&self, check: &str, result: &str, words: &str) -> Result<()> {
        let fits = |f: &&Finding| {
            f.check == check && f.result == result && (f.text.contains(words) || f.hint.contains(words))
        };
        ensure!(
            self.list.iter().any(|f| fits(&f)),
            "{check} does not say {result} with “{words}”:\n{:#?}",
            self.list
        );
        // What is wrong is told with what to do.
        let helpless = self.list.iter().find(|f| matches!(&*f.result, "fail" | "warn") && f.hint.is_empty());
        ensure!(helpless.is_none(), "no hint: {helpless:?}");
        Ok(())
    }
}

/// One check must come out so.
fn must(env: &Env, host: &Host, mode: Mode, config: &Path, found: (&str, &str, &str)) -> Result<()> {
    let (check, result, words) = found;
    Findings::of(env, host, mode, config, &[check])?.must(check, result, words)
}

/// A DNS server at the home router that knows one name with an IPv4 address, an IPv6 one, or both; and that makes the home's
/// computer use it.
fn dns(env: &Env, name: &'static str, v4: Option<[u8; 4]>, v6: Option<Ipv6Addr>) -> Result<()> {
    let socket = env.net.home_router.run(|| UdpSocket::bind("192.168.0.1:53")).context("DNS server")?;
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = dns_answer(&buffer[..len], name, v4, v6) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    resolv(env, "nameserver 192.168.0.1\noptions timeout:1 attempts:1\n")
}

/// RFC 1035 section 4: the question again, and a record that points at its name.
fn dns_answer(question: &[u8], name: &str, v4: Option<[u8; 4]>, v6: Option<Ipv6Addr>) -> Option<Vec<u8>> {
    let end = 12 + question.get(12..)?.iter().position(|b| *b == 0)? + 1;
    let asked: Vec<u8> = question.get(12..end)?.to_vec();
    let wanted: Vec<u8> =
        name.split('.').flat_map(|l| [&[l.len() as u8], l.as_bytes()].concat()).chain([0]).collect();
    let kind = u16::from_be_bytes(question.get(end..end + 2)?.try_into().ok()?);
    let data = match kind {
        _ if asked != wanted => None,
        1 => v4.map(Vec::from),
        28 => v6.map(|a| a.octets().to_vec()),
        _ => None,
    };
    let known = asked == wanted;
    let mut out = question.get(..2)?.to_vec();
    out.extend_from_slice(&[
        0x81,
        if known { 0x80 } else { 0x83 },
        0,
        1,
        0,
        u8::from(data.is_some()),
        0,
        0,
        0,
        0,
    ]);
    out.extend_from_slice(question.get(12..end + 4)?);
    if let Some(data) = data {
        out.extend_from_slice(&[0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        out.extend_from_slice(&data);
    }
    Some(out)
}

fn resolv(env: &Env, text: &str) -> Result<()> {
    let file = env.dir.join("resolv.conf");
    let new = !file.exists();
    // The file that is bound stays the same one.
    std::fs::write(&file, text)?;
    if new {
        env.net.home.bind(&file, "/etc/resolv.conf")?;
    }
    Ok(())
}

/// A table with one chain on a hook, as nft reads it.
fn chain(table: &str, hook: &str, rule: &str) -> String {
    format!("table {table} {{\n chain {hook} {{\n type filter hook {hook} priority 0;\n {rule}\n }}\n}}\n")
}

/// ferry6 on both sides, with the whole pool of the article.
fn spec(env: &Env) -> Result<Spec> {
    let mut spec = Spec::certified(env, FERRY6, FERRY6)?;
    spec.ferry_pool = format!("range = \"{POOL}\"\n");
    Ok(spec)
}

fn config(tunnel: &Tunnel, mode: Mode) -> Result<PathBuf> {
    let side = if mode == Mode::Client { &tunnel.client } else { &tunnel.broker };
    Ok(side.ferry()?.dir().join("ferry6.toml"))
}

fn device(tunnel: &Tunnel) -> Result<String> {
    let status = tunnel.client.ferry()?.status()?;
    Ok(status[0]["router"]["tun"].as_str().context("a device")?.to_owned())
}

fn healthy(env: &mut Env) -> Result<()> {
    dns(env, NAME, Some([192, 0, 2, 1]), Some(SERVER.parse()?))?;
    let tunnel = spec(env)?.up(env)?;
    for (host, mode) in [(&env.net.home, Mode::Client), (&env.net.broker, Mode::Broker)] {
        let found = Findings::of(env, host, mode, &config(&tunnel, mode)?, &[])?;
        // This kernel may lack landlock.
        let other = found.list.iter().find(|f| f.result != "ok" && f.check != "sandbox");
        ensure!(found.well && other.is_none(), "{other:?} of a healthy {}:\n{:#?}", mode.word(), found.list);
        ensure!(found.list.len() >= 15, "too few checks:\n{:#?}", found.list);
    }
    let found = Findings::of(env, &env.net.home, Mode::Client, &config(&tunnel, Mode::Client)?, &[])?;
    found.must("nat", "ok", "a NAT here and one before the broker")?;
    found.must("path-mtu", "ok", "takes 1500 octets")?;
    found.must("inside", "ok", SERVER)?;
    found.must("dns", "ok", SERVER)?;
    let middle =
        Findings::of(env, &env.net.broker, Mode::Broker, &config(&tunnel, Mode::Broker)?, &["client-nat"])?;
    middle.must("client-nat", "ok", "changed for 1; a NAT before this machine")?;
    // The probes leave one half-open IKE SA each at the most, and harm no tunnel.
    let status = tunnel.broker.ferry()?.status()?;
    let half_open = status[0]["router"]["half_open"].as_u64().context("half_open")?;
    ensure!(half_open <= 2, "{half_open} half-open IKE SAs after two runs");
    tunnel.carries_traffic(env)
}

fn way_back(env: &mut Env) -> Result<()> {
    let spec = spec(env)?;
    let broker = spec.start_broker(env)?;
    // ESP comes out of the home, and not in: what begins with a zero word is IKE.
    let router = &env.net.home_router;
    router.nft(&chain("ip oneway", "forward", "udp sport 4500 @th,64,32 != 0 drop"))?;
    let client = spec.start_client(env)?;
    let tunnel = Tunnel { client, broker };
    let (client_file, broker_file) = (config(&tunnel, Mode::Client)?, config(&tunnel, Mode::Broker)?);
    let (home, middle) = (&env.net.home, &env.net.broker);
    wait_until("the tunnel is up", Duration::from_secs(10), || {
        Ok(tunnel.client.ferry()?.status()?[0]["client"]["state"] == "up")
    })?;
    let lost = traffic::ping_count(home, BROKER_IPV6.parse()?, 6, Duration::from_millis(50))?;
    ensure!(lost.no_loss().is_err(), "ESP came in");
    must(env, home, Mode::Client, &client_file, ("traffic", "fail", "none came back"))?;
    router.nft("delete table ip oneway")?;

    env.net.firewall.remove_route(POOL, BROKER_IPV6)?;
    must(env, home, Mode::Client, &client_file, ("inside", "fail", "return route is missing"))?;
    must(env, middle, Mode::Broker, &broker_file, ("return-route", "fail", "has no route to"))?;
    env.net.firewall.route(POOL, BROKER_IPV6)?;

    middle.sysctl("net.ipv6.conf.all.forwarding", "0")?;
    must(env, home, Mode::Client, &client_file, ("inside", "fail", "does not forward"))?;
    must(env, middle, Mode::Broker, &broker_file, ("forwarding", "fail", "forwarding is off"))?;
    middle.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    // The kernel takes router advertisements' place: what forwards not keeps its routes here, they are static.
    env.net.firewall.nft(&chain("ip6 strict", "forward", "ip6 daddr 2a00::100/120 drop"))?;
    let found = Findings::of(env, home, Mode::Client, &client_file, &["inside"])?;
    // The firewall's own Time Exceeded still comes: it is the host beyond that is cut off.
    found.must("inside", "warn", "does not answer")?;
    env.net.firewall.nft("delete table ip6 strict")?;
    must(env, home, Mode::Client, &client_file, ("inside", "ok", SERVER))
}

fn client(env: &mut Env) -> Result<()> {
    dns(env, NAME, None, Some(SERVER.parse()?))?;
    let mut spec = spec(env)?;
    spec.ferry_pool += "dns = [\"2a00:1::80\"]\n";
    spec.ferry_client.tunnel = "leak_guard = true\n".into();
    let mut tunnel = spec.up(env)?;
    let (file, tun) = (config(&tunnel, Mode::Client)?, device(&tunnel)?);
    let home = &env.net.home;
    let doctor = |found| must(env, home, Mode::Client, &file, found);

    ip(home, &format!("address change {CLIENT_ADDRESS}/128 dev {tun} preferred_lft 0 valid_lft forever"))?;
    doctor(("address", "fail", "deprecated"))?;
    ip(
        home,
        &format!("address change {CLIENT_ADDRESS}/128 dev {tun} preferred_lft forever valid_lft forever"),
    )?;
    doctor(("address", "ok", "preferred for ever"))?;

    // Another way out for IPv6: a better metric, more specific routes, a rule.
    ip(home, "tuntap add dev tun9 mode tun")?;
    ip(home, "link set tun9 up")?;
    for (to, metric, words) in [("default", 10, "metric 10"), ("2000::/3", 1024, "more specific")] {
        ip(home, &format!("-6 route add {to} dev tun9 metric {metric}"))?;
        doctor(("routes", "fail", words))?;
        doctor(("vpn", "warn", "tun9"))?;
        ip(home, &format!("-6 route del {to} dev tun9 metric {metric}"))?;
    }
    ip(home, "-6 route add default dev tun9 table 77")?;
    ip(home, "-6 rule add priority 100 table 77")?;
    doctor(("routes", "fail", "rule 100"))?;
    ip(home, "-6 rule del priority 100")?;
    // As wg-quick does it.
    ip(home, "-6 rule add priority 101 not fwmark 0xca6c table 77")?;
    doctor(("routes", "fail", "rule 101 (not fwmark 0xca6c)"))?;
    ip(home, "-6 rule del priority 101")?;
    ip(home, "-6 rule add priority 102 fwmark 0x1 table 77")?;
    doctor(("routes", "warn", "rule 102"))?;
    ip(home, "-6 rule del priority 102")?;
    ip(home, "-6 route del default dev tun9 table 77")?;
    ip(home, &format!("-4 route add {}/32 dev tun9", article::BROKER_PUBLIC))?;
    doctor(("broker-route", "warn", "another VPN"))?;
    ip(home, &format!("-4 route del {}/32 dev tun9", article::BROKER_PUBLIC))?;
    ip(home, "link del tun9")?;
    ip(home, "xfrm policy add src 2001:db8::/64 dst 2001:db8:1::/64 dir out action allow")?;
    doctor(("vpn", "warn", "IPsec policies"))?;
    ip(home, "xfrm policy flush")?;
    doctor(("vpn", "ok", ""))?;

    // What the broker tells is not used here; then there is no server at all.
    doctor(("dns", "warn", "2a00:1::80"))?;
    resolv(env, "nameserver 192.168.0.77\noptions timeout:1 attempts:1\n")?;
    doctor(("dns", "fail", "no name resolves"))?;
    doctor(("leak-guard", "ok", "which is up"))?;
    doctor(("routes", "ok", "::/0"))?;

    home.sysctl(&format!("net/ipv6/conf/{tun}/disable_ipv6"), "1")?;
    doctor(("ipv6", "fail", "disable_ipv6"))?;
    doctor(("address", "fail", "does not have it"))?;
    doctor(("routes", "fail", "has gone"))?;
    // No client, and its guard.
    tunnel.client.ferry_mut()?.kill()?;
    doctor(("leak-guard", "fail", "no client runs"))?;
    doctor(("daemon", "fail", "no ferry6 daemon"))
}

fn path(env: &mut Env) -> Result<()> {
    let mut spec = spec(env)?;
    spec.ferry_broker.tunnel = "workers = 1\n".into();
    let mut broker = spec.start_broker(env)?;
    let dir = env.subdir("client")?;
    let write = |spec: &Spec| -> Result<PathBuf> {
        let file = dir.join("ferry6.toml");
        write_private(&file, &spec.toml(Mode::Client, &dir, "aws-lc")?)?;
        Ok(file)
    };
    let file = write(&spec)?;
    let (home, internet) = (&env.net.home, &env.net.internet);
    let doctor = |found| must(env, home, Mode::Client, &file, found);
    let rule = |rule: &str| internet.nft(&chain("ip fault", "forward", rule));
    let heal = || internet.nft("delete table ip fault");

    rule("udp dport 4500 drop")?;
    let found = Findings::of(env, home, Mode::Client, &file, &["udp-500", "udp-4500"])?;
    found.must("udp-500", "ok", "answers")?;
    found.must("udp-4500", "fail", "the other port answers")?;
    heal()?;
    rule("ip daddr 5.6.7.8 reject with icmp type admin-prohibited")?;
    doctor(("udp-500", "fail", "5.6.7.8 UDP 500"))?;
    heal()?;
    rule("ip frag-off & 0x3fff != 0 drop")?;
    doctor(("fragments", "warn", "IP fragments are lost"))?;
    spec.ferry_client.ike = "fragmentation = false\n".into();
    write(&spec)?;
    doctor(("fragments", "fail", "fragmentation is off"))?;
    spec.ferry_client.ike = String::new();
    heal()?;

    // A path of 1400 octets whose router says nothing; the tunnel's MTU was set for Ethernet.
    spec.ferry_client.tunnel = "mtu = 1430\n".into();
    write(&spec)?;
    ip(internet, "link set colo mtu 1400")?;
    internet.nft(&chain("ip fault", "output", "ip protocol icmp drop"))?;
    doctor(("path-mtu", "warn", "takes 1400 octets"))?;
    heal()?;
    ip(internet, "link set colo mtu 1500")?;
    spec.ferry_client.tunnel = String::new();

    // The broker has x25519 and AES-GCM alone.
    spec.client_ike = "aes128-sha1-modp2048".into();
    write(&spec)?;
    let found = Findings::of(env, home, Mode::Client, &file, &["proposals"])?;
    found.must("proposals", "fail", "cipher and PRF and key exchange")?;
    found.must("proposals", "fail", "cipher aes256gcm16; PRF prfsha256; key exchange x25519")?;

    broker.ferry_mut()?.stop()?;
    doctor(("udp-500", "fail", "port unreachable"))?;
    // Nothing at all, as of a machine that is off.
    rule("ip daddr 5.6.7.8 drop")?;
    doctor(("udp-4500", "fail", "nothing comes back"))
}

/// What IKE says no to: a certificate, ESP proposals, an address.
fn refused(env: &mut Env) -> Result<()> {
    let mut spec = spec(env)?;
    let good = spec.client_credentials.clone();
    let other = Ca::new(&env.subdir("other")?, "other", KEY)?;
    spec.client_credentials.entity = Some(other.issue("client", CLIENT_ID, KEY, Flaw::default())?);
    let mut broker = spec.start_broker(env)?;
    let refusal = |spec: &Spec, words: &str| -> Result<()> {
        let mut client = spec.start_client(env)?;
        wait_until(&format!("the client is told {words}"), Duration::from_secs(10), || {
            let status = client.ferry()?.status()?;
            Ok(status[0]["client"]["reason"].as_str().is_some_and(|r| r.contains(words)))
        })?;
        let file = client.ferry()?.dir().join("ferry6.toml");
        must(env, &env.net.home, Mode::Client, &file, ("daemon", "fail", words))?;
        client.ferry_mut()?.stop()
    };
    refusal(&spec, "AUTHENTICATION_FAILED")?;
    let file = broker.ferry()?.dir().join("ferry6.toml");
    must(env, &env.net.broker, Mode::Broker, &file, ("daemon", "warn", "auth_certificate 1"))?;

    spec.client_credentials = good;
    spec.client_esp = "aes128-sha512".into();
    refusal(&spec, "NO_PROPOSAL_CHOSEN")?;
    spec.client_esp = spec.broker_esp.clone();
    // The only address is somebody else's.
    broker.ferry_mut()?.stop()?;
    spec.ferry_pool = format!(
        "range = \"{CLIENT_ADDRESS}/128\"\nfixed = {{ \"other@my.domain\" = \"{CLIENT_ADDRESS}\" }}\n"
    );
    let _broker = spec.start_broker(env)?;
    refusal(&spec, "INTERNAL_ADDRESS_FAILURE")
}

/// A client's configuration of files that are right, but for one thing each time.
fn files(env: &mut Env) -> Result<()> {
    let dir = env.subdir("client")?;
    let pki = env.subdir("pki")?;
    let (client, broker) = certificates(&pki, KEY)?;
    let ca = Ca::new(&env.subdir("own")?, "ca", KEY)?;
    let good = Spec::new(FERRY6, FERRY6, (client, broker));
    let file = dir.join("ferry6.toml");
    let home = env.net.home.clone();
    let write = |spec: &Spec| write_private(&file, &spec.toml(Mode::Client, &dir, "aws-lc")?);
    let doctor = |found| must(env, &home, Mode::Client, &file, found);
    let with = |entity: Entity| {
        let mut spec = good.clone();
        spec.client_credentials.entity = Some(entity);
        spec
    };
    write(&good)?;
    doctor(("certificate", "ok", "client"))?;

    write(&with(ca.issue("expired", CLIENT_ID, KEY, Flaw { expired: true })?))?;
    doctor(("certificate", "fail", "expired"))?;
    doctor(("config", "fail", "expired"))?;
    write(&with(tomorrow(&env.subdir("tomorrow")?)?))?;
    doctor(("certificate", "fail", "not valid before"))?;
    doctor(("clock", "fail", "was issued"))?;
    write(&with(ca.issue("other", "somebody@else.domain", KEY, Flaw::default())?))?;
    doctor(("certificate", "fail", "does not stand in the certificate"))?;
    let (one, two) = (
        ca.issue("one", CLIENT_ID, KEY, Flaw::default())?,
        ca.issue("two", CLIENT_ID, KEY, Flaw::default())?,
    );
    write(&with(Entity { cert: one.cert.clone(), key: two.key.clone() }))?;
    doctor(("certificate", "fail", "two pairs"))?;
    std::fs::set_permissions(&one.key, std::fs::Permissions::from_mode(0o644))?;
    write(&with(one))?;
    doctor(("certificate", "fail", "chmod 600"))?;
    let mut revoked = with(two.clone());
    revoked.client_credentials.trust = vec![ca.cert.clone()];
    revoked.client_credentials.crls = vec![ca.revoke(&two)?];
    write(&revoked)?;
    doctor(("certificate", "fail", "revoked"))?;
    let mut untrusted = good.clone();
    untrusted.client_credentials.trust = vec![dir.join("missing.crt")];
    write(&untrusted)?;
    doctor(("trust", "fail", "missing.crt"))?;
    write_private(&file, "nonsense = 1\n[broker]\naddress = \"5.6.7.8\"\n")?;
    doctor(("config", "fail", "ferry6.toml:1:1: nonsense"))?;

    // A name with IPv6 alone, and then one that nobody knows.
    let named = |name: &str| -> Result<()> {
        let text = good.toml(Mode::Client, &dir, "aws-lc")?;
        write_private(&file, &text.replace("address = \"5.6.7.8\"", &format!("address = \"{name}\"")))
    };
    dns(env, BROKER_ID, None, Some(BROKER_IPV6.parse()?))?;
    named(BROKER_ID)?;
    doctor(("name", "fail", "only IPv6"))?;
    named("nobody.my.domain")?;
    doctor(("name", "fail", "nobody.my.domain"))?;

    write(&good)?;
    doctor(("ports", "ok", "UDP 4500 is free"))?;
    let mut second = Ferry::start(
        &env.ferry6,
        &home,
        Mode::Client,
        &env.subdir("second")?,
        &good.toml(Mode::Client, &env.subdir("second")?, "aws-lc")?,
        &[],
    )?;
    doctor(("daemon", "fail", "another ferry6 client runs"))?;
    doctor(("ports", "fail", "UDP 4500 is taken by ferry6"))?;
    second.stop()?;

    // A user who may do nothing sees what there is to see, and root without the right is told of it.
    let setpriv = |arguments: &[&str]| {
        let mut command = home.command("setpriv");
        command
            .args(arguments)
            .arg(&env.ferry6)
            .args(["doctor", "client", "--json", "--only", "rights", "--config"])
            .arg(&file);
        Findings::read(&mut command)
    };
    setpriv(&["--bounding-set=-net_admin", "--inh-caps=-net_admin"])?.must(
        "rights",
        "fail",
        "CAP_NET_ADMIN",
    )?;
    setpriv(&["--reuid=65534", "--regid=65534", "--clear-groups"])?.must(
        "rights",
        "skipped",
        "CAP_NET_ADMIN",
    )?;
    home.tmpfs("/dev/net")?;
    doctor(("tun", "fail", "there is no /dev/net/tun"))
}

/// A certificate that will be valid: as one looks on a machine whose clock is slow.
fn tomorrow(dir: &Path) -> Result<Entity> {
    let authority = ferry6::pki::Authority::root(&Profile::new("ca")?.key_type(KEY))?;
    let day = Duration::from_secs(86_400);
    let Validity { not_before, not_after } = Validity::days(30)?;
    let validity = Validity { not_before: not_before + day, not_after };
    let profile =
        Profile { common_name: "client".into(), key_type: KEY, validity, ..Profile::for_name(CLIENT_ID)? };
    let credential = authority.issue(&profile)?;
    ferry6::pki::store::CaFiles::new(&dir.join("tomorrow")).save_credential(&credential, true)?;
    Ok(Entity::from_files(dir, "tomorrow"))
}

fn broker(env: &mut Env) -> Result<()> {
    let mut spec = spec(env)?;
    let mut side = spec.start_broker(env)?;
    let file = side.ferry()?.dir().join("ferry6.toml");
    let host = &env.net.broker;
    let doctor = |found| must(env, host, Mode::Broker, &file, found);
    doctor(("answers", "ok", "UDP 4500"))?;
    doctor(("return-route", "ok", "to this machine"))?;

    host.nft(
        &(chain("inet filter", "forward", "policy drop;") + &chain("inet filter", "input", "policy drop;")),
    )?;
    let found = Findings::of(env, host, Mode::Broker, &file, &["firewall", "answers"])?;
    found.must("firewall", "warn", "inet filter forward")?;
    found.must("firewall", "warn", "inet filter input")?;
    found.must("answers", "fail", "does not answer itself")?;
    host.nft("delete table inet filter")?;

    // A second uplink, and strict filtering.
    ip(host, "tuntap add dev uplink2 mode tun")?;
    ip(host, "link set uplink2 up")?;
    ip(host, "-4 route add default dev uplink2 metric 500")?;
    host.sysctl("net.ipv4.conf.uplink2.rp_filter", "1")?;
    host.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
    doctor(("rp-filter", "warn", "uplink2"))?;
    ip(host, "link del uplink2")?;

    let status = side.ferry()?.status()?;
    let tun = status[0]["router"]["tun"].as_str().context("a device")?.to_owned();
    ip(host, &format!("-6 route del {POOL} dev {tun}"))?;
    doctor(("pool-route", "fail", "has gone"))?;
    ip(host, &format!("-6 route add {POOL} dev {tun} metric 50"))?;
    doctor(("pool-route", "ok", POOL))?;
    // The router takes the pool for on-link.
    env.net.firewall.remove_route(POOL, BROKER_IPV6)?;
    doctor(("return-route", "fail", "proxy_ndp"))?;
    side.ferry_mut()?.stop()?;
    spec.ferry_broker.tunnel = "proxy_ndp = \"eth0\"\n".into();
    let _side = spec.start_broker(env)?;
    doctor(("return-route", "ok", "proxy_ndp answers"))?;
    ip(host, "-6 route del default")?;
    doctor(("uplink", "fail", "no IPv6 default route"))?;
    ip(host, "-6 route add default via fe80::1 dev eth0 metric 1024")?;
    doctor(("uplink", "warn", "accept_ra"))
}

fn other_daemon(env: &mut Env) -> Result<()> {
    let spec = Spec::certified(env, Program::StrongSwan, FERRY6)?;
    let client = spec.start_client(env)?;
    ensure!(matches!(client, Side::Swan(_)), "strongSwan runs");
    let dir = env.subdir("ferry6")?;
    let file = dir.join("ferry6.toml");
    write_private(&file, &spec.toml(Mode::Client, &dir, "aws-lc")?)?;
    let found = Findings::of(env, &env.net.home, Mode::Client, &file, &["ports", "vpn"])?;
    found.must("ports", "fail", "UDP 500 is taken by charon")?;
    found.must("vpn", "warn", "another IKE daemon runs: charon")?;
    // For people, and in the colours of none: lines that are aligned.
    let text = run(
        env.net.home.command(&env.ferry6).args(["doctor", "client", "--only", "name", "--config"]).arg(&file),
        "ferry6 doctor",
    )?;
    ensure!(text.contains("  ok       name  the broker is named by its address, 5.6.7.8\n"), "{text}");
    Ok(())
}

fn strongswan(env: &mut Env) -> Result<()> {
    let mut spec = Spec::certified(env, FERRY6, Program::StrongSwan)?;
    let broker = spec.start_broker(env)?;
    let dir = env.subdir("client")?;
    let file = dir.join("ferry6.toml");
    write_private(&file, &spec.toml(Mode::Client, &dir, "aws-lc")?)?;
    let checks = ["udp-500", "udp-4500", "proposals", "fragments", "path-mtu"];
    let found = Findings::of(env, &env.net.home, Mode::Client, &file, &checks)?;
    for check in checks {
        found.must(check, "ok", "")?;
    }
    // `IKE_SAs: 0 total, 0 half-open`
    let stats = broker.swan()?.swanctl(&["--stats"])?;
    ensure!(stats.contains("0 half-open"), "{stats}");
    // NAT detection is in a whole answer only.
    must(env, &env.net.home, Mode::Client, &file, ("nat", "ok", "a NAT here and one before the broker"))?;
    let stats = broker.swan()?.swanctl(&["--stats"])?;
    ensure!(stats.contains("1 half-open"), "{stats}");
    spec.client_ike = "aes128-sha1-modp2048".into();
    write_private(&file, &spec.toml(Mode::Client, &dir, "aws-lc")?)?;
    must(
        env,
        &env.net.home,
        Mode::Client,
        &file,
        ("proposals", "fail", "cipher aes256gcm16; PRF prfsha256; key exchange x25519"),
    )
}

/// The probes of doctor on a client's machine: each must find an answer of the broker, whichever it is.
pub(super) fn probes_are_answered(env: &Env, client: &Ferry) -> Result<()> {
    let checks = ["udp-500", "udp-4500", "proposals", "nat", "fragments", "path-mtu"];
    let file = client.dir().join("ferry6.toml");
    let found = Findings::of(env, &env.net.home, Mode::Client, &file, &checks)?;
    checks.iter().try_for_each(|check| found.must(check, "ok", ""))
}
