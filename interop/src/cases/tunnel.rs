//! A tunnel between two peers, and what every tunnel must do.

use super::Env;
use crate::ferry::{Ferry, Mode};
use crate::guest::{self, Guest, How};
use crate::pki::{Ca, Entity, Flaw, KeyType};
use crate::strongswan::{self, StrongSwan};
use crate::traffic;
use crate::{run, wait_until};
use anyhow::{Context, Result, bail, ensure};
use ferry6::lab::article;
use ferry6::lab::{Capture, CaptureOptions, Host};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The client's identity, in its certificate's SAN.
pub const CLIENT_ID: &str = "client@my.domain";
/// The broker's.
pub const BROKER_ID: &str = "tunnel.my.domain";
/// The address that the client gets.
pub const CLIENT_ADDRESS: &str = "2a00::101";

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// ferry6 with this crypto provider.
    Ferry6(&'static str),
    StrongSwan,
    /// strongSwan in a guest, with the ESP and IPComp of the kernel there, and what it installs there rewritten so.
    KernelSwan(Option<How>),
}

/// ferry6 with its default provider.
pub const FERRY6: Program = Program::Ferry6("aws-lc");
/// ferry6 in pure Rust.
pub const FERRY6_RUST: Program = Program::Ferry6("rustcrypto");

/// What one side has: its own credential, and what it trusts.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Leaf and key; `None`: a pre-shared key.
    pub entity: Option<Entity>,
    /// Intermediate CAs that it sends along. strongSwan wants them on their own; ferry6 has them behind the leaf.
    pub intermediates: Vec<PathBuf>,
    /// CAs that it trusts.
    pub trust: Vec<PathBuf>,
    /// CRLs that it has.
    pub crls: Vec<PathBuf>,
    /// The pre-shared key.
    pub psk: String,
}

/// A tunnel to be.
#[derive(Clone, Debug)]
pub struct Spec {
    pub client: Program,
    pub broker: Program,
    /// IKE proposals of both, in strongSwan's words; ferry6 has the same.
    pub client_ike: String,
    pub broker_ike: String,
    /// ESP proposals.
    pub client_esp: String,
    pub broker_esp: String,
    pub client_id: String,
    /// Whom the broker lets in.
    pub accepted_ids: String,
    pub client_credentials: Credentials,
    pub broker_credentials: Credentials,
    /// `off`, `accept` or `on`, of ferry6 on both sides.
    pub ipcomp: &'static str,
    /// More lines for strongSwan's connection, child, and charon section.
    pub swan_connection: String,
    pub swan_remote: String,
    pub swan_child: String,
    pub swan_charon: String,
    /// strongSwan's pool.
    pub swan_pool: Option<String>,
    /// More lines for ferry6's tables.
    pub ferry_client: Extra,
    pub ferry_broker: Extra,
    /// ferry6's pool: the lines of its table.
    pub ferry_pool: String,
    /// ferry6 writes its keys to `keys` beside its log.
    pub keylog: bool,
}

/// Lines of ferry6's configuration by table.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    pub ike: String,
    pub child: String,
    pub tunnel: String,
    pub remote: String,
    pub listen: String,
}

impl Extra {
    /// Short lifetimes of Child SAs and IKE SAs.
    pub fn lifetimes(child: &str, ike: &str) -> Self {
        Self {
            ike: format!("rekey = \"{ike}\"\n"),
            child: format!("rekey = \"{child}\"\n"),
            ..Self::default()
        }
    }

    /// Dead peers are found soon.
    pub fn dpd(interval: &str) -> Self {
        let ike = format!("dpd = \"{interval}\"\nretransmit_timeout = \"500ms\"\nretransmit_tries = 4\n");
        Self { ike, ..Self::default() }
    }
}

/// A CA for both sides, and certificates of one key type.
pub fn certificates(dir: &Path, key_type: KeyType) -> Result<(Credentials, Credentials)> {
    let ca = Ca::new(dir, "ca", key_type)?;
    let client = ca.issue("client", CLIENT_ID, key_type, Flaw::default())?;
    let broker = ca.issue("broker", BROKER_ID, key_type, Flaw::default())?;
    let side = |entity: Entity| Credentials {
        entity: Some(entity),
        intermediates: Vec::new(),
        trust: vec![ca.cert.clone()],
        crls: Vec::new(),
        psk: String::new(),
    };
    Ok((side(client), side(broker)))
}

/// A pre-shared key for both sides.
pub fn psk(secret: &str) -> (Credentials, Credentials) {
    let side = Credentials {
        entity: None,
        intermediates: Vec::new(),
        trust: Vec::new(),
        crls: Vec::new(),
        psk: secret.into(),
    };
    (side.clone(), side)
}

impl Spec {
    /// A tunnel with the article's identities and AES-GCM.
    pub fn new(client: Program, broker: Program, credentials: (Credentials, Credentials)) -> Self {
        let (client_credentials, broker_credentials) = credentials;
        Self {
            client,
            broker,
            client_ike: "aes256gcm16-prfsha256-x25519".into(),
            broker_ike: "aes256gcm16-prfsha256-x25519".into(),
            client_esp: "aes256gcm16".into(),
            broker_esp: "aes256gcm16".into(),
            client_id: CLIENT_ID.into(),
            accepted_ids: "*@my.domain".into(),
            client_credentials,
            broker_credentials,
            ipcomp: "off",
            swan_connection: String::new(),
            swan_remote: String::new(),
            swan_child: String::new(),
            swan_charon: String::new(),
            swan_pool: Some(format!("{CLIENT_ADDRESS}/128")),
            ferry_client: Extra::default(),
            ferry_broker: Extra::default(),
            ferry_pool: format!("range = \"{CLIENT_ADDRESS}/128\"\n"),
            keylog: false,
        }
    }

    /// The same with ECDSA P-256 certificates of a CA made for the case.
    pub fn certified(env: &Env, client: Program, broker: Program) -> Result<Self> {
        Ok(Self::new(client, broker, certificates(&env.subdir("pki")?, KeyType::Ecdsa256)?))
    }

    /// The same proposals on both sides.
    pub fn proposals(mut self, ike: &str, esp: &str) -> Self {
        self.client_ike = ike.into();
        self.broker_ike = ike.into();
        self.client_esp = esp.into();
        self.broker_esp = esp.into();
        self
    }

    fn swan(&self, mode: Mode) -> strongswan::Config {
        let client = mode == Mode::Client;
        let credentials = if client { &self.client_credentials } else { &self.broker_credentials };
        let auth = match &credentials.entity {
            None => strongswan::Auth::Psk(credentials.psk.clone()),
            Some(entity) => strongswan::Auth::Cert {
                cert: entity.cert.clone(),
                key: entity.key.clone(),
                cas: credentials.trust.iter().chain(&credentials.intermediates).cloned().collect(),
                crls: credentials.crls.clone(),
            },
        };
        let (local_id, remote_id) = if client {
            (self.client_id.clone(), BROKER_ID.into())
        } else {
            (BROKER_ID.into(), self.accepted_ids.clone())
        };
        strongswan::Config {
            local_id,
            remote_id,
            auth,
            ike: if client { self.client_ike.clone() } else { self.broker_ike.clone() },
            esp: if client { self.client_esp.clone() } else { self.broker_esp.clone() },
            remote: client.then(|| article::BROKER_PUBLIC.into()),
            pool: if client { None } else { self.swan_pool.clone() },
            connection: self.swan_connection.clone(),
            remote_lines: self.swan_remote.clone(),
            child: self.swan_child.clone(),
            charon: self.swan_charon.clone(),
        }
    }
}

impl Spec {
    /// ferry6's configuration as broker or client.
    pub fn toml(&self, mode: Mode, dir: &Path, crypto: &str) -> Result<String> {
        let client = mode == Mode::Client;
        let (credentials, extra) = if client {
            (&self.client_credentials, &self.ferry_client)
        } else {
            (&self.broker_credentials, &self.ferry_broker)
        };
        let (local_id, remote_id, ike, esp) = if client {
            (self.client_id.as_str(), BROKER_ID, &self.client_ike, &self.client_esp)
        } else {
            (BROKER_ID, self.accepted_ids.as_str(), &self.broker_ike, &self.broker_esp)
        };
        let mut toml = String::new();
        writeln!(toml, "control = \"{}\"", Ferry::socket(dir).display())?;
        if client {
            writeln!(toml, "\n[broker]\naddress = \"{}\"", article::BROKER_PUBLIC)?;
        } else {
            writeln!(toml, "state_dir = \"{}\"", dir.join("state").display())?;
        }
        let proposals = |words: &str| match words {
            "default" => String::new(),
            words => format!("proposals = [\"{words}\"]\n"),
        };
        if !extra.listen.is_empty() {
            write!(toml, "\n[listen]\n{}", extra.listen)?;
        }
        writeln!(toml, "\n[local]\nid = \"{local_id}\"")?;
        match &credentials.entity {
            Some(Entity { cert, key }) => writeln!(toml, "cert = {cert:?}\nkey = {key:?}")?,
            None => writeln!(toml, "psk = \"{}\"", credentials.psk)?,
        }
        writeln!(toml, "\n[remote]\nid = \"{remote_id}\"")?;
        for (key, files) in [("ca", &credentials.trust), ("crl", &credentials.crls)] {
            if !files.is_empty() {
                writeln!(toml, "{key} = {files:?}")?;
            }
        }
        toml += &extra.remote;
        write!(toml, "\n[ike]\n{}{}", proposals(ike), extra.ike)?;
        write!(toml, "\n[child]\n{}ipcomp = \"{}\"\n{}", proposals(esp), self.ipcomp, extra.child)?;
        write!(toml, "\n[tunnel]\ncrypto = \"{crypto}\"\n{}", extra.tunnel)?;
        if !client {
            write!(toml, "\n[pool]\n{}", self.ferry_pool)?;
        }
        Ok(toml)
    }
}

/// A running peer.
pub enum Side {
    Ferry(Ferry),
    Swan(StrongSwan),
}

impl Side {
    /// ferry6, where it is that.
    pub fn ferry(&self) -> Result<&Ferry> {
        match self {
            Self::Ferry(ferry) => Ok(ferry),
            Self::Swan(_) => bail!("this side is strongSwan"),
        }
    }

    /// The same, to stop or start it.
    pub fn ferry_mut(&mut self) -> Result<&mut Ferry> {
        match self {
            Self::Ferry(ferry) => Ok(ferry),
            Self::Swan(_) => bail!("this side is strongSwan"),
        }
    }

    /// strongSwan, where it is that.
    pub fn swan(&self) -> Result<&StrongSwan> {
        match self {
            Self::Swan(swan) => Ok(swan),
            Self::Ferry(_) => bail!("this side is ferry6"),
        }
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        match self {
            Self::Ferry(ferry) => ferry.log(),
            Self::Swan(swan) => swan.log(),
        }
    }

    /// Waits until its log says this.
    pub fn wait_for_log(&self, words: &str) -> Result<()> {
        let name = match self {
            Self::Ferry(_) => "ferry6",
            Self::Swan(_) => "strongSwan",
        };
        let what = format!("the log of {name} says “{words}”");
        wait_until(&what, Duration::from_secs(10), || Ok(self.log().contains(words)))
    }

    /// Rekeys its Child SA.
    pub fn rekey_child(&self) -> Result<()> {
        match self {
            Self::Ferry(ferry) => ferry.control(&["rekey", "--child"])?,
            Self::Swan(swan) => swan.rekey_child()?,
        };
        Ok(())
    }

    /// Rekeys its IKE SA.
    pub fn rekey_ike(&self) -> Result<()> {
        match self {
            Self::Ferry(ferry) => ferry.control(&["rekey", "--ike"])?,
            Self::Swan(swan) => swan.rekey_ike()?,
        };
        Ok(())
    }
}

/// Two running peers.
pub struct Tunnel {
    pub client: Side,
    pub broker: Side,
}

impl Spec {
    fn arguments(&self, dir: &Path) -> Vec<OsString> {
        if self.keylog { vec!["--keylog".into(), dir.join("keys").into()] } else { Vec::new() }
    }

    /// Starts the broker.
    pub fn start_broker(&self, env: &Env) -> Result<Side> {
        let dir = env.subdir("broker")?;
        let host = &env.net.broker;
        host.forward()?;
        Ok(match self.broker {
            Program::StrongSwan => Side::Swan(StrongSwan::start(host, &dir, &self.swan(Mode::Broker))?),
            Program::KernelSwan(how) => {
                let guest = Guest::boot(host, &dir, guest::BROKER)?;
                if let Some(how) = how {
                    guest.rewrite(how, article::HOME_PUBLIC.parse()?, article::POOL)?;
                }
                Side::Swan(StrongSwan::start_in(&guest, &dir, &self.swan(Mode::Broker))?)
            }
            Program::Ferry6(crypto) => {
                let toml = self.toml(Mode::Broker, &dir, crypto)?;
                let arguments = self.arguments(&dir);
                Side::Ferry(Ferry::start(&env.ferry6, host, Mode::Broker, &dir, &toml, &arguments)?)
            }
        })
    }

    /// Starts the client; strongSwan isn't told to initiate yet.
    pub fn start_client(&self, env: &Env) -> Result<Side> {
        let dir = env.subdir("client")?;
        let host = &env.net.home;
        Ok(match self.client {
            Program::StrongSwan => Side::Swan(StrongSwan::start(host, &dir, &self.swan(Mode::Client))?),
            Program::KernelSwan(how) => {
                let guest = Guest::boot(host, &dir, guest::HOME)?;
                if let Some(how) = how {
                    guest.rewrite(how, article::BROKER_PUBLIC.parse()?, "default")?;
                }
                Side::Swan(StrongSwan::start_in(&guest, &dir, &self.swan(Mode::Client))?)
            }
            Program::Ferry6(crypto) => {
                let toml = self.toml(Mode::Client, &dir, crypto)?;
                let arguments = self.arguments(&dir);
                Side::Ferry(Ferry::start(&env.ferry6, host, Mode::Client, &dir, &toml, &arguments)?)
            }
        })
    }

    /// Starts both and waits until a ping comes through.
    pub fn up(&self, env: &Env) -> Result<Tunnel> {
        let broker = self.start_broker(env)?;
        let client = self.start_client(env)?;
        if let Side::Swan(swan) = &client {
            swan.initiate()?;
        }
        let tunnel = Tunnel { client, broker };
        traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(10))
            .with_context(|| tunnel.logs())?;
        Ok(tunnel)
    }

    /// A tunnel that must carry pings and TCP, with nothing but IPsec on the internet.
    pub fn exercise(&self, env: &Env) -> Result<Tunnel> {
        let capture = Capture::start(&env.net.internet, "colo", CaptureOptions::default())?;
        let tunnel = self.up(env)?;
        tunnel.carries_traffic(env)?;
        let counts = capture.stop()?;
        ensure!(counts.only_ipsec(), "on the internet there was more than IPsec: {counts}");
        ensure!(counts.esp_in_udp > 100, "the traffic did not go through the tunnel: {counts}");
        Ok(tunnel)
    }
}

/// The broker's IPv6 address.
pub fn broker6() -> Result<Ipv6Addr> {
    Ok(article::BROKER_IPV6.parse()?)
}

/// The IPv6 host beyond.
pub fn server6() -> Result<Ipv6Addr> {
    Ok(article::SERVER.parse()?)
}

impl Tunnel {
    /// The side that is ferry6 (the client, where both are), and the other one.
    pub fn ferry_and_other(&self) -> (&Side, &Side) {
        match self.client {
            Side::Ferry(_) => (&self.client, &self.broker),
            Side::Swan(_) => (&self.broker, &self.client),
        }
    }

    /// The ends of both logs.
    pub fn logs(&self) -> String {
        let tail = |log: String| {
            let lines: Vec<_> = log.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        let (client, broker) = (tail(self.client.log()), tail(self.broker.log()));
        let guests = [&self.client, &self.broker].map(|side| match side {
            Side::Swan(swan) => swan.guest().map(Guest::kernel_state).unwrap_or_default(),
            Side::Ferry(_) => String::new(),
        });
        format!("--- client\n{client}\n--- broker\n{broker}\n---\n{}", guests.concat())
    }

    /// Pings in both directions and 4 MB of TCP each way, without loss or fault.
    pub fn carries_traffic(&self, env: &Env) -> Result<()> {
        carry(env).with_context(|| self.logs())
    }
}

/// Pings in both directions and 4 MB of TCP each way, without loss or fault.
pub fn carry(env: &Env) -> Result<()> {
    let (home, server) = (&env.net.home, &env.net.server);
    let pause = Duration::from_millis(10);
    traffic::ping_count(home, broker6()?, 20, pause)?.no_loss().context("client to broker")?;
    traffic::ping_count(home, server6()?, 20, pause)?.no_loss().context("client to server")?;
    traffic::ping_count(server, CLIENT_ADDRESS.parse()?, 20, pause)?.no_loss().context("server to client")?;
    traffic::tcp_both_ways(home, server, server6()?, 4 << 20)
}

/// What `ip` says on a host.
pub fn ip(host: &Host, words: &str) -> Result<String> {
    run(host.command("ip").args(words.split_whitespace()), &format!("ip {words}"))
}

/// Waits until a check that looks at the log or the status of a peer holds, and shows the logs where it does not.
pub fn eventually(tunnel: &Tunnel, what: &str, check: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_until(what, Duration::from_secs(10), check).with_context(|| tunnel.logs())
}
