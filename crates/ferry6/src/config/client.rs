//! `client.toml`.

use super::RUN_DIR;
use super::connection::{self, Defaults, Sections};
use super::hooks::Hooks;
use super::picture::Picture;
use super::reader::{Document, Found, Section};
use super::secrets::Secrets;
use super::tunnel::{Listen, Tunnel};
use super::values::{self, Host};
use crate::cli::UsageError;
use crate::helper::Mode;
use crate::logging::Filter;
use crate::sandbox::Process;
use ferry6_ike::config::{AddressConfig, PrefixWish, RemoteId, Retransmit};
use ferry6_ike::{Connection, Identity, Prefix6, TrafficSelector};
use ferry6_tun_router::size::MssClamp;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A client's configuration, read and checked.
pub struct Client {
    /// Where the broker is.
    pub broker: Host,
    /// Its IKE port.
    pub port: u16,
    /// Its port for IKE and ESP behind the non-ESP marker.
    pub nat_port: u16,
    /// Our own ports.
    pub listen: Listen,
    /// The connection.
    pub connection: Connection,
    /// Retransmission.
    pub retransmit: Retransmit,
    /// Device and workers.
    pub tunnel: Tunnel,
    /// Which routes go into the tunnel.
    pub routes: Routes,
    /// Interfaces of the networks behind us, which get a part of the prefix each.
    pub lan: Vec<String>,
    /// What belongs into the tunnel is unreachable while there is none.
    pub leak_guard: bool,
    /// How the broker's DNS servers are set.
    pub dns: Mode,
    /// What is run when the tunnel is up or down.
    pub hooks: Hooks,
    /// Where CRLs that were fetched are kept.
    pub crl_cache: PathBuf,
    /// Control socket.
    pub control: PathBuf,
    /// Whose rights the process has, and what holds it.
    pub process: Process,
    /// What goes to the log; `None` where nothing is said.
    pub log: Option<Filter>,
    /// Where its files are, for when it is read anew.
    pub directories: BTreeSet<PathBuf>,
    /// What should be seen, but is no fault.
    pub warnings: Vec<String>,
    /// The secrets it was read with, for when it is read anew and they cannot be.
    pub secrets: Secrets,
    /// What it says, to tell what changed when it is read anew.
    pub picture: Picture,
}

/// Which IPv6 routes go into the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// What the negotiated selectors of the peer allow (the default route for `::/0`), or exactly these.
    pub explicit: Option<Vec<Prefix6>>,
    /// Whether `::/0` may be among them.
    pub default_route: bool,
}

/// The name of a client's only connection.
pub(super) const CONNECTION: &str = "tunnel";

pub(super) fn read(document: &Document) -> Result<Client, UsageError> {
    let client = document.read(read_root)?;
    let picture = Picture::of(document);
    Ok(Client { warnings: document.take_warnings(), secrets: document.take_secrets(), picture, ..client })
}

fn read_root(root: &Section<'_>) -> Option<Client> {
    let control = root.path("control").map_or_else(|| Path::new(RUN_DIR).join("client.sock"), |f| f.value);
    let process = super::process::read(root);
    let log = root.parsed("log", "a log filter like \"info\"", str::parse::<Filter>).map(|found| found.value);
    let crl_cache = root.path("crl_cache").map_or_else(|| PathBuf::from("/var/lib/ferry6/crls"), |f| f.value);
    let broker_section = root.section("broker");
    let broker = broker_section.require(
        "address",
        broker_section.parsed("address", "a host name or an IPv4 address", values::host),
        "the broker's name or IPv4 address",
    );
    let port = broker_section.number_or("port", 1..65_536, 500);
    let nat_port = broker_section.number_or("nat_port", 1..65_536, 4500);
    broker_section.finish();
    let listen_section = root.section("listen");
    let listen = Listen::read(&listen_section);
    listen_section.finish();
    let tunnel_section = root.section("tunnel");
    let tunnel = Tunnel::read(&tunnel_section, MssClamp::Off);
    let routes = Routes {
        explicit: tunnel_section
            .list("routes", "an IPv6 prefix like \"2a00::/32\"", str::parse::<Prefix6>)
            .map(|f| f.value.into_iter().map(|p| p.value).collect()),
        default_route: tunnel_section.flag("default_route").is_none_or(|f| f.value),
    };
    let addresses = tunnel_section
        .parsed("address", "\"request\", \"none\" or an IPv6 address", |s| match s {
            "request" => Ok(AddressConfig::REQUEST),
            "none" => Ok(AddressConfig::None),
            address => values::address6(address)
                .map(|a| AddressConfig::Request { address: Some(a), prefix: PrefixWish::None })
                .map_err(|_| {
                    format!("expected \"request\", \"none\" or an IPv6 address to ask for, found {s:?}")
                }),
        })
        .map_or(AddressConfig::REQUEST, |f| f.value);
    let prefix = tunnel_section.parsed("prefix", "\"none\", \"any\" or an IPv6 prefix", |s| match s {
        "none" => Ok(PrefixWish::None),
        "any" => Ok(PrefixWish::Any),
        prefix => prefix.parse().map(PrefixWish::This),
    });
    let lan = tunnel_section.list("lan", "the name of an interface like \"eth1\"", interface);
    let prefix = match (&lan, prefix) {
        (Some(lan), None) => Some(Found { value: PrefixWish::Any, at: lan.at.clone(), key: lan.key.clone() }),
        (Some(lan), Some(prefix)) if prefix.value == PrefixWish::None => {
            let text =
                "an interface gets an address of a prefix, and `tunnel.prefix = \"none\"` asks for none";
            root.document().problem(lan, text);
            Some(prefix)
        }
        (_, prefix) => prefix,
    };
    let lan = lan.map_or_else(Vec::new, |found| found.value);
    for (n, name) in lan.iter().enumerate() {
        if lan[..n].iter().any(|other| other.value == name.value) {
            root.document().problem(name, format!("{} is there twice", name.value));
        }
        if name.value == tunnel.device {
            root.document().problem(name, format!("{} is the tunnel itself", name.value));
        }
    }
    let addresses = match (addresses, &prefix) {
        (AddressConfig::Request { address, .. }, Some(prefix)) => {
            AddressConfig::Request { address, prefix: prefix.value }
        }
        (other, Some(prefix)) if prefix.value != PrefixWish::None => {
            let text = "a prefix is asked for together with an address: leave `tunnel.address` away, or name the prefix in \
                        `child.local_ts`";
            root.document().problem(prefix, text);
            other
        }
        (other, _) => other,
    };
    let leak_guard = tunnel_section.flag("leak_guard").is_some_and(|f| f.value);
    let dns = [Mode::Auto, Mode::Resolved, Mode::Resolvconf, Mode::Off].map(|mode| (mode.word(), mode));
    let dns = tunnel_section.choice("dns", &dns).map_or(Mode::Auto, |f| f.value);
    tunnel_section.finish();
    let hooks = Hooks::read(root);
    let sections = Sections::of(root);
    let remote_id = match &broker {
        Some(found) => RemoteId::Exactly(match &found.value {
            Host::Name(name) => Identity::Fqdn(name.trim_end_matches('.').to_owned()),
            Host::Address(address) => Identity::Ipv4(*address),
        }),
        None => RemoteId::Any,
    };
    let defaults = Defaults {
        name: CONNECTION.to_owned(),
        addresses,
        remote_id,
        remote_ts: vec![TrafficSelector::ANY_V6],
        prefer_email: true,
    };
    let connection = connection::read(&sections, defaults, &tunnel);
    let retransmit = connection::retransmit(&sections.ike);
    sections.finish();
    Some(Client {
        broker: broker?.value,
        port,
        nat_port,
        listen,
        connection: connection?,
        retransmit,
        tunnel,
        routes,
        lan: lan.into_iter().map(|name| name.value).collect(),
        leak_guard,
        dns,
        hooks,
        crl_cache,
        control,
        process,
        log,
        directories: root.document().directories(),
        warnings: Vec::new(),
        secrets: Secrets::default(),
        picture: Picture::default(),
    })
}

/// An interface's name (15 octets at most, as `IFNAMSIZ` has it).
fn interface(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() < 16 && !text.contains(|c: char| c == '/' || c.is_whitespace());
    if fits && text != "." && text != ".." {
        Ok(text.to_owned())
    } else {
        Err(format!("expected the name of an interface like \"eth1\", found {text:?}"))
    }
}
