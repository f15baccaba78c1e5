//! `broker.toml`.

use super::RUN_DIR;
use super::connection::{self, Defaults, Sections};
use super::hooks::Hooks;
use super::picture::Picture;
use super::prefixes::{self, Owners};
use super::reader::{Document, Section};
use super::secrets::Secrets;
use super::tunnel::{Listen, Tunnel};
use super::users::Users;
use super::values::{self, Range6};
use crate::cli::UsageError;
use crate::logging::Filter;
use crate::sandbox::Process;
use ferry6_ike::config::{AddressConfig, HalfOpenLimits, RemoteId, Retransmit, Unique};
use ferry6_ike::{Connection, Identity, Prefix6, TrafficSelector};
use ferry6_tun_router::size::MssClamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// A broker's configuration, read and checked.
pub struct Broker {
    /// Address and ports.
    pub listen: Listen,
    /// Further IPv4 addresses at which clients reach us, to be told to those that speak MOBIKE.
    pub addresses: Vec<Ipv4Addr>,
    /// Connections, the first that fits is taken.
    pub connections: Vec<Connection>,
    /// Pools by connection name.
    pub pools: BTreeMap<String, Pool>,
    /// Retransmission.
    pub retransmit: Retransmit,
    /// Bounds against floods.
    pub half_open: HalfOpenLimits,
    /// Device and workers.
    pub tunnel: Tunnel,
    /// Whether to switch IPv6 forwarding on.
    pub forwarding: bool,
    /// Interface on which to answer neighbour solicitations for the clients' addresses.
    pub proxy_ndp: Option<String>,
    /// Where the leases are kept.
    pub state_dir: PathBuf,
    /// Where CRLs that were fetched are kept.
    pub crl_cache: PathBuf,
    /// Control socket.
    pub control: PathBuf,
    /// Whose rights the process has, and what holds it.
    pub process: Process,
    /// What goes to the log; `None` where nothing is said.
    pub log: Option<Filter>,
    /// Programs to run when a client's tunnel is up, and down.
    pub hooks: Hooks,
    /// What is set for single users.
    pub users: Users,
    /// Where its files are, for when it is read anew.
    pub directories: BTreeSet<PathBuf>,
    /// What should be seen, but is no fault.
    pub warnings: Vec<String>,
    /// The secrets it was read with, for when it is read anew and they cannot be.
    pub secrets: Secrets,
    /// What it says, to tell what changed when it is read anew.
    pub picture: Picture,
}

impl Broker {
    /// With what is set for single users.
    ///
    /// # Errors
    /// A fault of that file, or something in it that contradicts the configuration.
    pub(super) fn with_users(mut self, file: &Path) -> Result<Self, UsageError> {
        self.users = Users::read(file)?;
        self.pools = self.pools_with(file, &self.users)?;
        Ok(self)
    }

    /// The pools with what these settings of single users, of that file, fix in them.
    ///
    /// # Errors
    /// Something in them that contradicts the configuration.
    pub(super) fn pools_with(
        &self,
        file: &Path,
        users: &Users,
    ) -> Result<BTreeMap<String, Pool>, UsageError> {
        let mut pools = self.pools.clone();
        users.fix(&mut pools).map_err(|text| UsageError(format!("{}: {text}", file.display())))?;
        Ok(pools)
    }
}

/// What a connection's clients get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Addresses to lease.
    pub ranges: Vec<Range6>,
    /// Addresses that belong to an identity.
    pub fixed: BTreeMap<Identity, Ipv6Addr>,
    /// Where prefixes for those who ask for one come from.
    pub prefixes: Vec<Prefix6>,
    /// The length of the prefix that one of them gets.
    pub prefix_length: u8,
    /// Prefixes that belong to an identity.
    pub fixed_prefixes: BTreeMap<Identity, Prefix6>,
    /// DNS servers to tell.
    pub dns: Vec<Ipv6Addr>,
    /// Whether an identity may have several tunnels, and so several addresses, at once.
    pub several: bool,
}

impl Pool {
    /// What is routed into the tunnel for it.
    pub fn routes(&self) -> Vec<Prefix6> {
        let mut list: Vec<Prefix6> = self.ranges.iter().flat_map(|r| r.prefixes()).collect();
        let outside = |a: &&Ipv6Addr| !self.ranges.iter().any(|r| r.contains(**a));
        list.extend(self.fixed.values().filter(outside).map(|a| Prefix6 { address: *a, len: 128 }));
        list.extend(&self.prefixes);
        let within = |from: &Prefix6, p: &Prefix6| from.len <= p.len && from.contains(p.address);
        let outside = |p: &&Prefix6| !self.prefixes.iter().any(|from| within(from, p));
        list.extend(self.fixed_prefixes.values().filter(outside));
        list
    }

    /// Whether it gives this prefix to whoever asks.
    pub fn has(&self, prefix: Prefix6) -> bool {
        prefix.len == self.prefix_length && self.prefixes.iter().any(|from| from.contains(prefix.address))
    }
}

/// Where the leases are, where `state_dir` does not say otherwise.
pub(super) const STATE_DIR: &str = "/var/lib/ferry6";

/// The name of a broker's connection where no `[[connection]]` names any.
const CONNECTION: &str = "clients";

pub(super) fn read(document: &Document) -> Result<Broker, UsageError> {
    let broker = document.read(read_root)?;
    let picture = Picture::of(document);
    Ok(Broker { warnings: document.take_warnings(), secrets: document.take_secrets(), picture, ..broker })
}

fn read_root(root: &Section<'_>) -> Option<Broker> {
    let document = root.document();
    let control = root.path("control").map_or_else(|| Path::new(RUN_DIR).join("broker.sock"), |f| f.value);
    let process = super::process::read(root);
    let log = root.parsed("log", "a log filter like \"info\"", str::parse::<Filter>).map(|found| found.value);
    let state_dir = root.path("state_dir").map_or_else(|| PathBuf::from(STATE_DIR), |f| f.value);
    let crl_cache = root.path("crl_cache").map_or_else(|| state_dir.join("crls"), |f| f.value);
    let listen_section = root.section("listen");
    let listen = Listen::read(&listen_section);
    let half_open = half_open(&listen_section);
    let addresses = listen_section
        .list("additional_addresses", "an IPv4 address", values::address4)
        .map_or_else(Vec::new, |f| f.value.into_iter().map(|a| a.value).collect());
    listen_section.finish();
    let tunnel_section = root.section("tunnel");
    let tunnel = Tunnel::read(&tunnel_section, MssClamp::Auto);
    let forwarding = tunnel_section.flag("forwarding").is_none_or(|f| f.value);
    let proxy_ndp = tunnel_section.text("proxy_ndp").map(|f| f.value);
    tunnel_section.finish();
    let hooks = Hooks::read(root);

    let base = Sections::of(root);
    let base_pool = root.section("pool");
    let retransmit = connection::retransmit(&base.ike);
    let mut connections = Vec::new();
    let mut pools = BTreeMap::new();
    let mut add = |name: String, sections: &Sections<'_>, pool: &Section<'_>| {
        let pool = if pool.is_present() { Some(read_pool(pool)) } else { None };
        let addresses = if pool.is_some() { AddressConfig::Assign } else { AddressConfig::None };
        if pool.is_none() && !sections.child.has("remote_ts") {
            root.missing(
                "pool.range",
                "the IPv6 addresses to lease, for example range = \"2a00::100/120\" in [pool]",
            );
        }
        let defaults = Defaults {
            name: name.clone(),
            addresses,
            remote_id: RemoteId::Any,
            remote_ts: vec![TrafficSelector::ANY_V6],
            prefer_email: false,
        };
        let connection = connection::read(sections, defaults, &tunnel);
        if let (Some(Some(mut pool)), Some(connection)) = (pool, &connection) {
            pool.several = connection.unique == Unique::Never;
            pools.insert(name, pool);
        }
        connections.extend(connection);
    };
    let named = root.sections("connection");
    if named.is_empty() {
        add(CONNECTION.to_owned(), &base, &base_pool);
    } else {
        let mut names = Vec::new();
        for section in named {
            let name =
                section.require("name", section.text("name"), "the connection's name, for logs and status");
            if let Some(found) = &name {
                if names.contains(&found.value) {
                    document.problem(found, format!("a second connection named {:?}", found.value));
                }
                names.push(found.value.clone());
            }
            let sections = Sections::of_connection(&section, &base);
            let pool = section.section_or("pool", Some(&base_pool));
            add(name.map_or_else(String::new, |f| f.value), &sections, &pool);
            sections.finish();
            pool.finish();
            section.finish();
        }
    }
    base.finish();
    base_pool.finish();
    check_pools(document, root, &pools);
    if connections.is_empty() {
        return None;
    }
    Some(Broker {
        listen,
        addresses,
        connections,
        pools,
        retransmit,
        half_open,
        tunnel,
        forwarding,
        proxy_ndp,
        state_dir,
        crl_cache,
        control,
        process,
        log,
        hooks,
        users: Users::default(),
        directories: root.document().directories(),
        warnings: Vec::new(),
        secrets: Secrets::default(),
        picture: Picture::default(),
    })
}

fn half_open(listen: &Section<'_>) -> HalfOpenLimits {
    let default = HalfOpenLimits::default();
    HalfOpenLimits {
        cookie_from: listen.number_or("cookie_from", 0..10_000_001, default.cookie_from),
        max: listen.number_or("half_open", 1..10_000_001, default.max),
        per_source: listen.number_or("half_open_per_source", 1..10_000_001, default.per_source),
        per_source_rate: listen.number_or("handshakes_per_source", 0..10_000_001, default.per_source_rate),
        lifetime: default.lifetime,
    }
}

fn read_pool(section: &Section<'_>) -> Option<Pool> {
    let document = section.document();
    let ranges = section.require(
        "range",
        section.list("range", "an IPv6 prefix like \"2a00::100/120\"", values::range6),
        "the IPv6 addresses to lease, for example \"2a00::100/120\"",
    );
    let dns = section
        .list("dns", "an IPv6 address", values::address6)
        .map_or_else(Vec::new, |f| f.value.into_iter().map(|a| a.value).collect());
    let prefixes = prefixes::read(section, ranges.as_ref());
    let ranges = ranges?;
    for (n, range) in ranges.value.iter().enumerate() {
        if range.value.contains(Ipv6Addr::UNSPECIFIED)
            || range.value.last.is_multicast()
            || range.value.first.is_multicast()
        {
            document.problem(range, format!("{} is not a range of unicast addresses", range.value));
        }
        if let Some(other) = ranges.value[..n].iter().find(|o| o.value.overlaps(range.value)) {
            document.problem(range, format!("overlaps with {}", other.value));
        }
    }
    let owners = Owners::of([&prefixes].into_iter());
    let mut fixed = BTreeMap::new();
    for (who, address) in section.map("fixed", "identity = \"address\"") {
        let id = match values::identity(&who.value) {
            Ok(id) => id,
            Err(text) => {
                document.problem(&who, text);
                continue;
            }
        };
        let value = match values::address6(&address.value) {
            Ok(value) => value,
            Err(text) => {
                document.problem(&address, text);
                continue;
            }
        };
        if let Some(range) = ranges.value.iter().find(|r| r.value.anycast() == Some(value)) {
            document.problem(
                &address,
                format!("{value} is the subnet-router anycast address of {}; take another", range.value),
            );
        }
        if let Some((other, _)) = fixed.iter().find(|(_, a)| **a == value) {
            document.problem(&address, format!("{value} is {other}'s already"));
        }
        if fixed.contains_key(&id) {
            document.problem(&who, format!("{id} has a fixed address already"));
        }
        let own = prefixes.fixed_prefixes.get(&id);
        if let Some(text) = prefixes::anothers(&prefixes, &owners, &id, own, value) {
            document.problem(&address, text);
        }
        fixed.insert(id, value);
    }
    let ranges = ranges.value.into_iter().map(|f| f.value).collect();
    Some(Pool { ranges, fixed, dns, ..prefixes })
}

/// Pools of several connections may be one and the same, but must not overlap otherwise, nor give one address to two
/// identities.
fn check_pools(document: &Document, root: &Section<'_>, pools: &BTreeMap<String, Pool>) {
    let list: Vec<(&String, &Pool)> = pools.iter().collect();
    for (n, (name, pool)) in list.iter().enumerate() {
        for (other_name, other) in &list[..n] {
            if pool.ranges != other.ranges
                && pool.ranges.iter().any(|r| other.ranges.iter().any(|o| r.overlaps(*o)))
            {
                document.problem(
                    &root.here(),
                    format!("the pools of the connections {other_name:?} and {name:?} overlap without being the same"),
                );
            }
        }
    }
    for (n, (name, pool)) in list.iter().enumerate() {
        for (other_name, other) in &list[..n] {
            if let Some(text) = clash(pool, other).or_else(|| clash(other, pool)) {
                let text = format!("the pools of the connections {other_name:?} and {name:?}: {text}");
                document.problem(&root.here(), text);
            }
        }
    }
    let mut owners = BTreeMap::new();
    for (name, pool) in pools {
        for (id, address) in &pool.fixed {
            let (first_name, first) = *owners.entry(address).or_insert((name, id));
            if first != id {
                document.problem(
                    &root.here(),
                    format!(
                        "{address} is fixed for {first} in the pool of {first_name:?} and for {id} in that of {name:?}"
                    ),
                );
            }
        }
    }
}

/// What of a pool's prefixes is another's.
fn clash(pool: &Pool, other: &Pool) -> Option<String> {
    let all = pool.prefixes.iter().chain(pool.fixed_prefixes.values());
    for prefix in all {
        if let Some(addresses) = other.ranges.iter().find(|r| r.overlaps((*prefix).into())) {
            return Some(format!("the prefix {prefix} overlaps with the addresses {addresses}"));
        }
    }
    let parts = |pool: &Pool| (pool.prefixes.clone(), pool.prefix_length);
    if parts(pool) != parts(other)
        && let Some(prefix) = pool.prefixes.iter().find(|p| other.prefixes.iter().any(|o| p.overlaps(*o)))
    {
        return Some(format!("both give prefixes of {prefix} without being the same"));
    }
    let owners = Owners::of([other].into_iter());
    let anothers = |(id, a): (_, &_)| prefixes::anothers(other, &owners, id, pool.fixed_prefixes.get(id), *a);
    if let Some(text) = pool.fixed.iter().find_map(anothers) {
        return Some(text);
    }
    pool.fixed_prefixes.iter().find_map(|(id, prefix)| prefixes::overlap(&other.fixed_prefixes, id, *prefix))
}
