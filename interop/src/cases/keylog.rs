//! `--keylog`: `tshark` reads a capture from the internet with the keys that ferry6 wrote, whoever the peer is, and finds
//! nothing malformed in it.

use super::tunnel::{FERRY6, FERRY6_RUST, Program, Side, Spec, Tunnel, broker6};
use super::{Case, Env, Peer, Role};
use crate::{run, traffic, wait_until};
use anyhow::{Context, Result, ensure};
use ferry6::lab::{Capture, CaptureOptions};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// IKE and ESP proposals, in strongSwan's words: each kind of cipher and ICV that Wireshark knows.
const SUITES: [(&str, &str, &str); 3] = [
    ("aes256gcm", "aes256gcm16-prfsha256-x25519", "aes256gcm16-noesn"),
    ("aes128cbc-sha1", "aes128-sha1-modp2048", "aes128-sha1-noesn"),
    ("aes256cbc-sha512", "aes256-sha512-ecp256", "aes256-sha512-noesn"),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, ike, esp) in SUITES {
        for (sides, client, broker, peer, role) in [
            ("ferry6", FERRY6, FERRY6_RUST, Peer::Ferry6, Role::Both),
            ("client", FERRY6, Program::StrongSwan, Peer::StrongSwan, Role::Client),
            ("broker", Program::StrongSwan, FERRY6, Peer::StrongSwan, Role::Broker),
        ] {
            cases.push(Case::new(
                format!("keylog-{sides}-{name}"),
                peer,
                role,
                format!("tshark decrypts IKE and ESP, before and after rekeys: {esp}"),
                move |env| keylog(env, client, broker, ike, esp),
            ));
        }
    }
    cases.push(Case::new(
        "keylog-ferry6-esn",
        Peer::Ferry6,
        Role::Both,
        "tshark decrypts ESP with extended sequence numbers: aes128gcm16",
        |env| keylog(env, FERRY6, FERRY6_RUST, "aes128gcm16-prfsha256-x25519", "aes128gcm16-esn"),
    ));
    cases
}

fn keylog(env: &mut Env, client: Program, broker: Program, ike: &str, esp: &str) -> Result<()> {
    let mut spec = Spec::certified(env, client, broker)?.proposals(ike, esp);
    spec.keylog = true;
    let pcap = env.dir.join("internet.pcap");
    let options = CaptureOptions { pcap: Some(pcap.clone()), ..CaptureOptions::default() };
    let capture = Capture::start(&env.net.internet, "colo", options)?;
    let mut tunnel = spec.up(env)?;
    // strongSwan's data path shows that it has the new keys a moment after its IKE does.
    let pings = |env: &Env| {
        traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(5))?;
        traffic::ping_count(&env.net.home, broker6()?, 5, Duration::from_millis(10))?.no_loss()
    };
    pings(env).with_context(|| tunnel.logs())?;
    for rekey in ["--child", "--ike"] {
        let before = sa_count(&tunnel)?;
        let (ferry, _) = tunnel.ferry_and_other();
        ferry.ferry()?.control(&["rekey", rekey])?;
        wait_until("new keys are logged", Duration::from_secs(10), || Ok(sa_count(&tunnel)? > before))
            .with_context(|| tunnel.logs())?;
        pings(env).with_context(|| tunnel.logs())?;
    }
    let warned = tunnel.ferry_and_other().0.ferry()?.status()?;
    ensure!(warned[0]["keylog"].is_string(), "status does not warn: {warned}");
    let esn = super::suites::child(tunnel.ferry_and_other().0)?["esn"] == true;
    let mut checked = 0;
    for side in [&mut tunnel.client, &mut tunnel.broker] {
        if let Side::Ferry(ferry) = side {
            ensure!(ferry.log().contains("ALL KEYS ARE WRITTEN"), "the log does not warn:\n{}", ferry.log());
            // With DELETE, so that it is in the capture.
            ferry.stop()?;
            break;
        }
    }
    let counts = capture.stop()?;
    ensure!(counts.only_ipsec(), "on the internet there was more than IPsec: {counts}");
    for name in ["client", "broker"] {
        let keys = env.dir.join(name).join("keys");
        if keys.is_dir() {
            let found = dissect(&pcap, &keys, &env.dir.join(format!("wireshark-{name}")), esn)?;
            found.check().with_context(|| format!("with the keys of the {name}: {found}"))?;
            checked += 1;
        }
    }
    ensure!(checked > 0, "no side wrote keys");
    Ok(())
}

/// Lines that ferry6's key logs have in all.
fn sa_count(tunnel: &Tunnel) -> Result<usize> {
    let dir = tunnel.ferry_and_other().0.ferry()?.dir().join("keys");
    let mut lines = 0;
    for name in ["ikev2_decryption_table", "esp_sa"] {
        let path = dir.join(name);
        let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{} has mode {mode:o}", path.display());
        lines += fs::read_to_string(&path)?.lines().count();
    }
    Ok(lines)
}

/// What tshark says of a capture.
#[derive(Debug, Default)]
struct Dissected {
    /// ESP packets whose ICV fits, and in which there is an inner IPv6 packet, by SPI.
    esp: BTreeMap<String, u32>,
    echo_requests: u32,
    echo_replies: u32,
    /// Decrypted IKE messages by exchange type.
    exchanges: BTreeMap<String, u32>,
    /// Frame and fault.
    faults: Vec<String>,
}

impl fmt::Display for Dissected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { esp, echo_requests, echo_replies, exchanges, faults } = self;
        write!(f, "ESP by SPI {esp:?}, {echo_requests} echo requests, {echo_replies} replies, ")?;
        write!(f, "IKE by exchange {exchanges:?}, faults:\n{}", faults.join("\n"))
    }
}

/// Runs tshark with these keys in a profile of its own.
fn dissect(pcap: &Path, keys: &Path, home: &Path, esn: bool) -> Result<Dissected> {
    let profile: PathBuf = home.join("wireshark");
    fs::create_dir_all(&profile)?;
    for name in ["ikev2_decryption_table", "esp_sa"] {
        fs::copy(keys.join(name), profile.join(name))?;
    }
    const FIELDS: [&str; 12] = [
        "frame.number",
        "esp.spi",
        "esp.icv_good",
        "esp.icv_bad",
        "icmpv6.type",
        "isakmp.exchangetype",
        "isakmp.enc.decrypted",
        "isakmp.enc.data",
        "_ws.malformed",
        "_ws.expert.severity",
        "_ws.expert.message",
        "ipv6.src",
    ];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(pcap).env("HOME", home).env("XDG_CONFIG_HOME", home);
    for option in ["enable_encryption_decode", "enable_authentication_check"] {
        tshark.args(["-o", &format!("esp.{option}:TRUE")]);
    }
    tshark.args(["-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=;"]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let text = run(&mut tshark, "tshark (Debian: apt install tshark)")?;
    let mut found = Dissected::default();
    for line in text.lines().filter(|line| line.contains('\t')) {
        let columns: Vec<&str> = line.split('\t').collect();
        ensure!(columns.len() == FIELDS.len(), "tshark printed {line:?}");
        let column = |name: &str| FIELDS.iter().position(|f| *f == name).map_or("", |at| columns[at]);
        let frame = column("frame.number");
        if !column("_ws.malformed").is_empty() {
            found.faults.push(format!("frame {frame}: malformed"));
        }
        // PI_ERROR of Wireshark's expert severities.
        if column("_ws.expert.severity").split(';').any(|s| s.parse::<u32>().is_ok_and(|s| s >= 0x80_0000)) {
            found.faults.push(format!("frame {frame}: {}", column("_ws.expert.message")));
        }
        if !column("esp.spi").is_empty() {
            // With ESN Wireshark cannot verify the ICV: it lacks the high half of the sequence number.
            let verified = column("esp.icv_good") == "1" && column("esp.icv_bad") != "1";
            if !(verified || esn) || column("ipv6.src").is_empty() {
                found.faults.push(format!("frame {frame}: ESP not decrypted: {line}"));
            }
            *found.esp.entry(column("esp.spi").to_owned()).or_default() += 1;
            found.echo_requests += u32::from(column("icmpv6.type") == "128");
            found.echo_replies += u32::from(column("icmpv6.type") == "129");
        }
        if !column("isakmp.enc.data").is_empty() {
            // A fragment is decrypted by itself, and put together in the last one.
            let exchange = column("isakmp.exchangetype").to_owned();
            if column("isakmp.enc.decrypted").is_empty() {
                found.faults.push(format!("frame {frame}: IKE exchange {exchange} not decrypted"));
            }
            *found.exchanges.entry(exchange).or_default() += 1;
        }
    }
    Ok(found)
}

impl Dissected {
    fn check(&self) -> Result<()> {
        ensure!(self.faults.is_empty(), "tshark finds faults");
        // Two SPIs at first, two after the rekey.
        ensure!(self.esp.len() >= 4, "too few SPIs");
        ensure!(self.echo_requests >= 15 && self.echo_replies >= 15, "too few pings were decrypted");
        for (exchange, name) in [("35", "IKE_AUTH"), ("36", "CREATE_CHILD_SA"), ("37", "INFORMATIONAL")] {
            ensure!(self.exchanges.contains_key(exchange), "no {name} was decrypted");
        }
        Ok(())
    }
}
