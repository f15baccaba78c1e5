//! What is measured: the path without a tunnel, ferry6 in its kinds, and the peers.

use super::{net, peers};
use crate::ferry::{Ferry, Mode};
use crate::strongswan::{self, StrongSwan};
use crate::traffic;
use anyhow::{Context, Result};
use net::Net;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

const BROKER_ID: &str = "tunnel.my.domain";
const CLIENT_ID: &str = "client@my.domain";
/// The address that IKE leases.
const LEASED: &str = "2a00::101";
const PSK: &str = "a secret of the measurement alone";

/// Which program makes the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: the same path, routed.
    None,
    /// ferry6 on both ends.
    Ferry6 {
        /// ESP proposal.
        esp: &'static str,
        /// `off` or `on`.
        ipcomp: &'static str,
        /// More lines of `[tunnel]`.
        tunnel: &'static str,
    },
    StrongSwan,
    WireGuardGo,
    BoringTun,
    GotaTun,
    OpenVpn,
}

/// One row of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub name: &'static str,
    pub kind: Kind,
    /// Measured unless `--only` says otherwise.
    pub main: bool,
}

const fn ferry6(
    name: &'static str,
    esp: &'static str,
    ipcomp: &'static str,
    tunnel: &'static str,
) -> Subject {
    Subject { name, kind: Kind::Ferry6 { esp, ipcomp, tunnel }, main: false }
}

const fn peer(name: &'static str, kind: Kind) -> Subject {
    Subject { name, kind, main: true }
}

/// All, in the order of the table.
pub const ALL: &[Subject] = &[
    peer("none", Kind::None),
    Subject { main: true, ..ferry6("ferry6", "aes128gcm16", "off", "") },
    ferry6("ferry6-aes256gcm", "aes256gcm16", "off", ""),
    ferry6("ferry6-chacha20", "chacha20poly1305", "off", ""),
    ferry6("ferry6-aes128-sha1", "aes128-sha1", "off", ""),
    ferry6("ferry6-aes128-sha256", "aes128-sha256", "off", ""),
    ferry6("ferry6-aes256-sha256", "aes256-sha256", "off", ""),
    ferry6("ferry6-aes256-sha384", "aes256-sha384", "off", ""),
    ferry6("ferry6-aes256-sha512", "aes256-sha512", "off", ""),
    ferry6("ferry6-no-offload", "aes128gcm16", "off", "offload = false\n"),
    ferry6("ferry6-tun-tap", "aes128gcm16", "off", "kind = \"tun-tap\"\n"),
    ferry6("ferry6-ipcomp", "aes128gcm16", "on", ""),
    ferry6("ferry6-rustcrypto", "aes128gcm16", "off", "crypto = \"rustcrypto\"\n"),
    peer("strongswan", Kind::StrongSwan),
    peer("wireguard-go", Kind::WireGuardGo),
    peer("boringtun", Kind::BoringTun),
    peer("gotatun", Kind::GotaTun),
    peer("openvpn", Kind::OpenVpn),
];

/// Where the programs are.
pub struct Programs {
    pub ferry6: PathBuf,
    /// Searched before PATH.
    pub folders: Vec<PathBuf>,
}

impl Programs {
    /// Finds a program: in the folders, in PATH, in the sbin folders that a plain user's PATH lacks.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let sbin = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
        let folders = self.folders.iter().cloned().chain(std::env::split_paths(&path)).chain(sbin);
        folders.map(|folder| folder.join(name)).find(|file| file.is_file())
    }
}

impl Subject {
    /// What it needs and is not there, with what to do.
    pub fn missing(&self, programs: &Programs) -> Option<String> {
        let lacks = |needed: &[(&str, &str)]| {
            let absent: Vec<_> = needed
                .iter()
                .filter(|(name, _)| programs.find(name).is_none())
                .map(|(name, how)| format!("{name} is neither in PATH nor in --bin-dir ({how})"))
                .collect();
            (!absent.is_empty()).then(|| absent.join(", "))
        };
        let wg = ("wg", "Debian: wireguard-tools");
        match self.kind {
            Kind::None | Kind::Ferry6 { .. } => None,
            Kind::StrongSwan => strongswan::missing(),
            Kind::WireGuardGo => lacks(&[("wireguard-go", "Debian: wireguard-go"), wg]),
            Kind::BoringTun => lacks(&[("boringtun-cli", "cargo install boringtun-cli"), wg]),
            Kind::GotaTun => lacks(&[("gotatun", "cargo install gotatun-cli"), wg]),
            Kind::OpenVpn => lacks(&[("openvpn", "Debian: openvpn")]),
        }
    }
}

/// The processes of a tunnel.
pub enum Ends {
    None,
    Ferry { client: Ferry, broker: Ferry },
    Swan { client: StrongSwan, broker: StrongSwan },
    Plain { client: Child, broker: Child },
}

/// A subject that stands.
pub struct Standing {
    pub subject: Subject,
    pub net: Net,
    pub ends: Ends,
}

impl Standing {
    /// Builds the network, starts both ends, and waits until a ping comes through.
    pub fn start(subject: Subject, programs: &Programs, dir: &Path) -> Result<Self> {
        let net = Net::build(subject.kind == Kind::None)?;
        let sub = |name: &str| -> Result<PathBuf> {
            let dir = dir.join(subject.name).join(name);
            std::fs::create_dir_all(&dir)?;
            Ok(dir)
        };
        let (client_dir, broker_dir) = (sub("client")?, sub("broker")?);
        let ends = match subject.kind {
            Kind::None => Ends::None,
            Kind::Ferry6 { esp, ipcomp, tunnel } => {
                let start = |host, mode, dir: &Path| {
                    let toml = ferry6_toml(mode, dir, esp, ipcomp, tunnel)?;
                    Ferry::start(&programs.ferry6, host, mode, dir, &toml, &[])
                };
                let broker = start(&net.broker, Mode::Broker, &broker_dir)?;
                Ends::Ferry { client: start(&net.client, Mode::Client, &client_dir)?, broker }
            }
            Kind::StrongSwan => {
                let broker = StrongSwan::start(&net.broker, &broker_dir, &swan_config(None))?;
                let client = StrongSwan::start(&net.client, &client_dir, &swan_config(Some(net::BROKER)))?;
                client.initiate()?;
                Ends::Swan { client, broker }
            }
            Kind::WireGuardGo | Kind::BoringTun | Kind::GotaTun => {
                peers::wireguard(subject.kind, programs, &net, &client_dir, &broker_dir)?
            }
            Kind::OpenVpn => peers::openvpn(programs, &net, &client_dir, &broker_dir)?,
        };
        let standing = Self { subject, net, ends };
        traffic::wait_for_ping(&standing.net.client, net::SERVER.parse()?, Duration::from_secs(20))?;
        Ok(standing)
    }

    /// The PIDs of the client's and the broker's end, in this PID namespace.
    pub fn processes(&self) -> Vec<u32> {
        match &self.ends {
            Ends::None => Vec::new(),
            Ends::Ferry { client, broker } => [client.pid(), broker.pid()].into_iter().flatten().collect(),
            Ends::Swan { client, broker } => [client.pid(), broker.pid()].into_iter().flatten().collect(),
            Ends::Plain { client, broker } => vec![client.id(), broker.id()],
        }
    }

    /// The client's address inside the tunnel.
    pub fn client_address(&self) -> &'static str {
        match self.subject.kind {
            Kind::Ferry6 { .. } | Kind::StrongSwan => LEASED,
            _ => net::CLIENT_INNER,
        }
    }
}

fn ferry6_toml(mode: Mode, dir: &Path, esp: &str, ipcomp: &str, tunnel: &str) -> Result<String> {
    let mut toml = format!("control = \"{}\"\n", Ferry::socket(dir).display());
    let (local, remote) = match mode {
        Mode::Client => (CLIENT_ID, BROKER_ID),
        Mode::Broker => (BROKER_ID, CLIENT_ID),
    };
    match mode {
        Mode::Client => write!(toml, "[broker]\naddress = \"{}\"\n", net::BROKER)?,
        Mode::Broker => write!(
            toml,
            "state_dir = \"{}\"\n[pool]\nrange = \"{LEASED}/128\"\n",
            dir.join("state").display()
        )?,
    }
    write!(
        toml,
        "[local]\nid = \"{local}\"\npsk = \"{PSK}\"\n[remote]\nid = \"{remote}\"\n[child]\nproposals = [\"{esp}\"]\n\
         ipcomp = \"{ipcomp}\"\n[tunnel]\nmtu = 1400\ndf = \"clear\"\n{tunnel}"
    )?;
    Ok(toml)
}

fn swan_config(remote: Option<&str>) -> strongswan::Config {
    let (local, peer) = if remote.is_some() { (CLIENT_ID, BROKER_ID) } else { (BROKER_ID, CLIENT_ID) };
    strongswan::Config {
        local_id: local.into(),
        remote_id: peer.into(),
        auth: strongswan::Auth::Psk(PSK.into()),
        ike: "aes256gcm16-prfsha256-x25519".into(),
        esp: "aes128gcm16".into(),
        remote: remote.map(str::to_owned),
        pool: remote.is_none().then(|| format!("{LEASED}/128")),
        connection: "  encap = yes\n".into(),
        remote_lines: String::new(),
        child: String::new(),
        // The fastest implementation of AES-GCM that Debian's packages have comes first.
        charon: "plugins { aesni { load = 100 } }\n  filelog { log { default = 0 } }\n".into(),
    }
}

/// Reads a whole log, for the error of a peer that did not come up.
pub fn log_of(dir: &Path, name: &str) -> Result<String> {
    let file = dir.join(name);
    Ok(String::from_utf8_lossy(&std::fs::read(&file).with_context(|| file.display().to_string())?)
        .into_owned())
}
