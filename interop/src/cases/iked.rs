//! OpenIKED, with the ESP and IPComp of a guest's kernel, as broker and as client.

use super::kernel::{SIT, compresses};
use super::rekey::{replaced, spis_of};
use super::suites::child;
use super::tunnel::{
    BROKER_ID, CLIENT_ADDRESS, CLIENT_ID, Credentials, Extra, FERRY6, Program, Side, Spec, broker6, carry,
    certificates, server6,
};
use super::{Case, Env, Peer, Role};
use crate::guest::{self, Guest, How};
use crate::iked::{Files, Iked};
use crate::pki::{Ca, Entity, Flaw, KeyType};
use crate::traffic::{self, Pinger};
use crate::wait_until;
use anyhow::{Context, Result, ensure};
use ferry6::lab::{Capture, CaptureOptions, article};
use std::sync::Arc;
use std::time::Duration;

/// What a case without IPComp says of itself.
const UNSPEC: &str = "[SAs rewritten: flag af-unspec]";

pub(super) fn cases() -> Vec<Case> {
    type Run = fn(&mut Env) -> Result<()>;
    let broker: [(&str, String, Run); 6] = [
        (
            "iked-broker",
            format!("certificates, iked's default proposals, rekeys by ferry6; iked restarts {UNSPEC}"),
            plain,
        ),
        ("iked-broker-ipcomp", format!("the article's iked.conf with ipcomp: used both ways {SIT}"), ipcomp),
        (
            "iked-broker-rekeys",
            format!(
                "child and IKE rekeys by iked's lifetimes; no ping lost but for want of an SA in its kernel {UNSPEC}"
            ),
            rekeys,
        ),
        (
            "iked-broker-fragmentation",
            format!("RSA certificates: `set fragmentation`, and without: IKE_AUTH in IP fragments {UNSPEC}"),
            fragmentation,
        ),
        (
            "prefix-any-iked",
            format!(
                "a client asks for a prefix, any or a certain one, where there is none: the tunnel is up without {UNSPEC}"
            ),
            no_prefix,
        ),
        (
            "iked-broker-refusals",
            "no common proposal, wrong identity, untrusted CA: what ferry6 says".into(),
            refusals,
        ),
    ];
    let mut cases: Vec<_> = broker
        .into_iter()
        .map(|(name, feature, run)| Case::new(name, Peer::OpenIked, Role::Client, feature, run))
        .collect();
    cases.push(Case::new(
        "iked-client",
        Peer::OpenIked,
        Role::Broker,
        format!("`ikev2 active`, `from dynamic`, `request address`; rekeys by ferry6 {UNSPEC}"),
        client,
    ));
    for case in &mut cases {
        // The boot alone is some seconds.
        case.timeout = Duration::from_secs(120);
    }
    cases
}

/// The article's iked.conf, with lines before it and options in it.
fn broker_conf(globals: &str, mode: &str, options: &str) -> String {
    format!(
        "{globals}\nikev2 \"ipv6\" passive {mode} esp \\\n\tfrom ::/0 to {} \\\n\tlocal {} peer any \\\n\
         \tsrcid {BROKER_ID} dstid {CLIENT_ID} \\\n\t{options} config address {CLIENT_ADDRESS}/128\n",
        article::POOL,
        article::BROKER
    )
}

fn files(credentials: &Credentials) -> Files {
    Files {
        entity: credentials.entity.clone(),
        cas: credentials.trust.clone(),
        crls: credentials.crls.clone(),
    }
}

/// ferry6 as the client of an iked.
fn spec(env: &Env) -> Result<Spec> {
    Ok(Spec::certified(env, FERRY6, Program::StrongSwan)?.proposals("default", "default"))
}

/// iked as the broker in a guest, and ferry6 as its client.
struct Tunnel {
    client: Side,
    iked: Iked,
    guest: Arc<Guest>,
}

impl Tunnel {
    /// Starts both and waits until a ping comes through.
    fn up(env: &Env, conf: &str, how: How, spec: &Spec) -> Result<Self> {
        let dir = env.subdir("broker")?;
        let guest = Guest::boot(&env.net.broker, &dir, guest::BROKER)?;
        guest.rewrite(how, article::HOME_PUBLIC.parse()?, article::POOL)?;
        let iked = Iked::start(&guest, &dir, conf, &files(&spec.broker_credentials))?;
        let client = spec.start_client(env)?;
        let this = Self { client, iked, guest };
        this.wait(env)?;
        Ok(this)
    }

    fn wait(&self, env: &Env) -> Result<()> {
        let patience = Duration::from_secs(15);
        traffic::wait_for_ping(&env.net.home, broker6()?, patience).with_context(|| self.logs())
    }

    fn carries_traffic(&self, env: &Env) -> Result<()> {
        carry(env).with_context(|| self.logs())
    }

    /// ferry6 rekeys, and a new SA takes the old one's place.
    fn rekey(&self, what: &str) -> Result<()> {
        let before = spis_of(&self.client)?;
        if what == "ike" { self.client.rekey_ike() } else { self.client.rekey_child() }?;
        wait_until("one new SA has replaced the old one", Duration::from_secs(10), || {
            Ok(replaced(&before, &spis_of(&self.client)?, what))
        })
        .with_context(|| format!("{what} rekey\n{}", self.logs()))
    }

    fn logs(&self) -> String {
        logs(&self.client, &self.iked, &self.guest)
    }
}

fn logs(ferry: &Side, iked: &Iked, guest: &Guest) -> String {
    let tail = |text: String| {
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    };
    let (ferry, iked, kernel) = (tail(ferry.log()), tail(iked.log()), guest.kernel_state());
    format!("--- ferry6\n{ferry}\n--- iked\n{iked}\n{kernel}")
}

fn plain(env: &mut Env) -> Result<()> {
    let mut spec = spec(env)?;
    spec.ferry_client = Extra::dpd("2s");
    let capture = Capture::start(&env.net.internet, "colo", CaptureOptions::default())?;
    let mut tunnel = Tunnel::up(env, &broker_conf("", "", ""), How::AfUnspec, &spec)?;
    tunnel.carries_traffic(env)?;
    let counts = capture.stop()?;
    ensure!(counts.only_ipsec(), "on the internet there was more than IPsec: {counts}");
    ensure!(counts.esp_in_udp > 100, "the traffic did not go through the tunnel: {counts}");
    let used = child(&tunnel.client)?;
    ensure!(used["algorithms"] == "AES_CBC_256/HMAC_SHA2_384_192", "not iked's first proposal: {used}");
    // iked answers its policy's selectors, whatever was asked for.
    ensure!(tunnel.iked.log().contains("loaded flows: ESP-::/0=2a00::100/120"), "{}", tunnel.logs());
    ensure!(used["local_ts"] == serde_json::json!(["2a00::101/128"]), "not narrowed to our address: {used}");

    super::doctor::probes_are_answered(env, tunnel.client.ferry()?).with_context(|| tunnel.logs())?;

    for what in ["esp", "ike", "esp"] {
        tunnel.rekey(what)?;
        tunnel.wait(env)?;
    }
    tunnel.carries_traffic(env)?;

    tunnel.iked.kill(&tunnel.guest)?;
    tunnel.iked.restart(&tunnel.guest)?;
    let patience = Duration::from_secs(30);
    traffic::wait_for_ping(&env.net.home, broker6()?, patience).with_context(|| tunnel.logs())?;
    tunnel.carries_traffic(env)
}

fn no_prefix(env: &mut Env) -> Result<()> {
    let mut spec = spec(env)?;
    spec.ferry_client.tunnel = "prefix = \"any\"\n".into();
    let mut tunnel = Tunnel::up(env, &broker_conf("", "", ""), How::AfUnspec, &spec)?;
    let without = |tunnel: &Tunnel| -> Result<()> {
        tunnel.carries_traffic(env)?;
        let status = tunnel.client.ferry()?.status()?;
        ensure!(status[0]["client"]["prefix"].is_null(), "a prefix: {status}");
        let used = child(&tunnel.client)?;
        ensure!(used["local_ts"] == serde_json::json!(["2a00::101/128"]), "{used}");
        Ok(())
    };
    without(&tunnel)?;
    tunnel.client.ferry_mut()?.stop()?;
    spec.ferry_client.tunnel = "prefix = \"2a00:0:0:1000::/64\"\n".into();
    tunnel.client = spec.start_client(env)?;
    tunnel.wait(env)?;
    without(&tunnel)
}

fn ipcomp(env: &mut Env) -> Result<()> {
    let mut spec = spec(env)?;
    spec.ipcomp = "on";
    let tunnel = Tunnel::up(env, &broker_conf("", "ipcomp", ""), How::Sit, &spec)?;
    tunnel.carries_traffic(env)?;
    let before = compresses(&tunnel.client, None).with_context(|| tunnel.logs())?;
    tunnel.rekey("esp")?;
    tunnel.wait(env)?;
    tunnel.carries_traffic(env)?;
    compresses(&tunnel.client, Some(&before)).with_context(|| tunnel.logs()).map(drop)
}

fn rekeys(env: &mut Env) -> Result<()> {
    let spec = spec(env)?;
    let conf = broker_conf("", "", "ikelifetime 9 lifetime 5");
    let tunnel = Tunnel::up(env, &conf, How::AfUnspec, &spec)?;
    let before = tunnel.guest.packets_without_sa()?;
    let pinger = Pinger::start(&env.net.home, server6()?, Duration::from_millis(10))?;
    let mut all = spis_of(&tunnel.client)?;
    let count = |all: &std::collections::BTreeSet<String>, kind: &str| {
        all.iter().filter(|s| s.starts_with(kind)).count()
    };
    wait_until("iked has rekeyed two Child SAs and an IKE SA", Duration::from_secs(25), || {
        all.extend(spis_of(&tunnel.client)?);
        Ok(count(&all, "esp") >= 3 && count(&all, "ike") >= 2)
    })
    .with_context(|| format!("{all:?}\n{}", tunnel.logs()))?;
    let pings = pinger.stop()?;
    // iked answers before its kernel has the SAs, lets some expire before it has others, and the rewriting is a gap too. What is
    // lost elsewhere would be ours.
    let (lost, without_sa) = (pings.sent - pings.received, tunnel.guest.packets_without_sa()? - before);
    ensure!(
        lost <= without_sa,
        "{lost} pings of {} lost, but iked's kernel lacked an SA for {without_sa} only\n{}",
        pings.sent,
        tunnel.logs()
    );
    ensure!(pings.received * 2 > pings.sent, "{pings:?}\n{}", tunnel.logs());
    tunnel.wait(env)?;
    tunnel.carries_traffic(env)?;
    ensure!(!tunnel.client.log().contains("ERROR"), "{}", tunnel.logs());
    Ok(())
}

fn fragmentation(env: &mut Env) -> Result<()> {
    let (client, broker) = certificates(&env.subdir("pki")?, KeyType::Rsa2048)?;
    let mut spec = Spec::new(FERRY6, Program::StrongSwan, (client, broker)).proposals("default", "default");
    let conf = broker_conf("set fragmentation", "", "");
    let mut tunnel = Tunnel::up(env, &conf, How::AfUnspec, &spec)?;
    ensure!(tunnel.iked.log().contains("All fragments received: 2 of 2"), "{}", tunnel.logs());

    // The same without, on both sides: larger than the path, so that IP has to fragment it.
    tunnel.client.ferry_mut()?.stop()?;
    tunnel.iked.kill(&tunnel.guest)?;
    tunnel.iked.configure(&broker_conf("set nofragmentation", "", ""))?;
    tunnel.iked.restart(&tunnel.guest)?;
    spec.ferry_client.ike = "fragmentation = false\n".into();
    let capture = Capture::start(&env.net.internet, "colo", CaptureOptions::default())?;
    tunnel.client = spec.start_client(env)?;
    tunnel.wait(env)?;
    tunnel.carries_traffic(env)?;
    println!("{}", capture.stop()?);
    Ok(())
}

fn refusals(env: &mut Env) -> Result<()> {
    let dir = env.subdir("broker")?;
    let guest = Guest::boot(&env.net.broker, &dir, guest::BROKER)?;
    let ca = Ca::new(&env.subdir("pki")?, "ca", KeyType::Ecdsa256)?;
    let side = |entity: Entity| Credentials {
        entity: Some(entity),
        intermediates: Vec::new(),
        trust: vec![ca.cert.clone()],
        crls: Vec::new(),
        psk: String::new(),
    };
    let issue = |name: &str, id: &str| ca.issue(name, id, KeyType::Ecdsa256, Flaw::default());
    let pair = (side(issue("client", CLIENT_ID)?), side(issue("broker", BROKER_ID)?));
    let good = Spec::new(FERRY6, Program::StrongSwan, pair).proposals("default", "default");
    let iked = Iked::start(&guest, &dir, &broker_conf("", "", ""), &files(&good.broker_credentials))?;

    // The log is the same file each time: only what is new counts.
    let refused = |spec: &Spec, words: &[&str]| -> Result<()> {
        let log = env.dir.join("client/ferry6.log");
        let before = std::fs::metadata(&log).map_or(0, |m| m.len() as usize);
        let mut client = spec.start_client(env)?;
        let news = |client: &Side| client.log().get(before..).unwrap_or_default().to_owned();
        wait_until("ferry6 says why there is no tunnel", Duration::from_secs(15), || {
            Ok(words.iter().all(|w| news(&client).contains(w)))
        })
        .with_context(|| format!("{words:?}\n{}", logs(&client, &iked, &guest)))?;
        ensure!(client.ferry()?.status().is_ok(), "ferry6 has ended");
        client.ferry_mut()?.stop()
    };
    let esp = good.clone().proposals("default", "aes256gcm16");
    refused(&esp, &["NO_PROPOSAL_CHOSEN", "none of the ESP proposals", "we offered ENCR_AES_GCM_16"])?;
    let ike = good.clone().proposals("chacha20poly1305-prfsha256-x25519", "default");
    refused(&ike, &["NO_PROPOSAL_CHOSEN", "none of the IKE proposals", "we offered ENCR_CHACHA20_POLY1305"])?;
    // A broker whose CA is not ours.
    let mut trust = good.clone();
    trust.client_credentials.trust = vec![Ca::new(&env.subdir("pki")?, "other", KeyType::Ecdsa256)?.cert];
    refused(&trust, &["is refused with AUTHENTICATION_FAILED", "not one of the trusted CAs"])?;
    // A client whom iked does not know: it has the right CA, and another identity.
    let mut stranger = good;
    stranger.client_id = "stranger@my.domain".into();
    stranger.client_credentials.entity = Some(issue("stranger", "stranger@my.domain")?);
    refused(&stranger, &["AUTHENTICATION_FAILED"])
}

/// iked as the client: `ikev2 active`, with an address by configuration payload.
fn client(env: &mut Env) -> Result<()> {
    let mut spec = Spec::certified(env, Program::StrongSwan, FERRY6)?.proposals("default", "default");
    let dir = env.subdir("client")?;
    let guest = Guest::boot(&env.net.home, &dir, guest::HOME)?;
    guest.rewrite(How::AfUnspec, article::BROKER_PUBLIC.parse()?, "default")?;
    guest.sh("/run/modprobe dummy numdummies=1; ip link set dummy0 up")?;
    let conf = format!(
        "ikev2 \"tunnel\" active esp \\\n\tfrom dynamic to ::/0 \\\n\tlocal 192.168.0.2 peer {} \\\n\
         \tsrcid {CLIENT_ID} dstid {BROKER_ID} \\\n\trequest address :: iface dummy0\n",
        article::BROKER_PUBLIC
    );
    // A broker that wants something else says what iked has.
    spec.broker_esp = "aes256gcm16".into();
    let mut broker = spec.start_broker(env)?;
    let mut iked = Iked::start(&guest, &dir, &conf, &files(&spec.client_credentials))?;
    let offers = "no ESP proposal of the peer fits the connection's; it offers ENCR_AES_CBC_256";
    broker.wait_for_log(offers).with_context(|| logs(&broker, &iked, &guest))?;
    broker.ferry_mut()?.stop()?;
    iked.kill(&guest)?;

    spec.broker_esp = "default".into();
    let broker = spec.start_broker(env)?;
    iked.restart(&guest)?;
    let told = || logs(&broker, &iked, &guest);
    // iked sets the address, and fails to set a route that Linux takes (its gateway is that address).
    let address = format!("ip -6 addr show dev dummy0 | grep {CLIENT_ADDRESS}/128");
    guest.wait_for("iked sets its address", &address, Duration::from_secs(15)).with_context(told)?;
    guest.sh("ip -6 route replace default dev dummy0")?;
    wait_until("a ping from the guest is answered", Duration::from_secs(10), || {
        Ok(guest.ping(broker6()?, 1, Duration::ZERO)?.received == 1)
    })
    .with_context(|| guest.sh("ip -6 addr; ip -6 route show table all").unwrap_or_default())
    .with_context(told)?;
    super::kernel::carry(env, &guest).with_context(told)?;
    for what in ["esp", "ike"] {
        let before = spis_of(&broker)?;
        if what == "ike" { broker.rekey_ike() } else { broker.rekey_child() }?;
        wait_until("one new SA has replaced the old one", Duration::from_secs(10), || {
            Ok(replaced(&before, &spis_of(&broker)?, what))
        })
        .with_context(|| format!("{what} rekey"))
        .with_context(told)?;
    }
    super::kernel::carry(env, &guest).with_context(told)
}
