//! The control socket, and the commands that talk to it.
//!
//! A Unix socket of mode 0600; one JSON object per line, a response to each request. The daemon checks who asks, bounds
//! what it reads, and gives up on whoever is slow.

pub mod command;
pub mod connect;
pub mod render;
pub mod server;
pub mod status;

use crate::accounts::Usage;
use crate::leases::LeaseStatus;
use crate::sandbox::SecurityStatus;
use ferry6_tun_router::status::RouterStatus;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// Everything there is to see.
    Status,
    /// Rekey now.
    Rekey {
        /// What.
        what: Rekey,
        /// Number, connection or peer identity; all without it.
        #[serde(default)]
        which: Option<String>,
    },
    /// A client connects now.
    Up,
    /// It reads its configuration anew: what new tunnels must prove, CRLs, pools, routes.
    Reload,
    /// The daemon ends, as on SIGTERM.
    Stop,
    /// Lines of the log.
    Log {
        /// The first one that is wanted, by its number; all that are kept without it.
        #[serde(default)]
        since: Option<u64>,
    },
    /// Ask peers whether they are there, which measures how long they take; those that were measured just now are left alone.
    Probe {
        /// Number, connection or peer identity; all without it.
        #[serde(default)]
        which: Option<String>,
    },
    /// A broker's accounts of its users.
    Usage {
        /// An identity; all without it.
        #[serde(default)]
        who: Option<String>,
    },
    /// Close IKE SAs.
    Down {
        /// Number, connection or peer identity; all without it.
        #[serde(default)]
        which: Option<String>,
    },
}

/// What to rekey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rekey {
    /// Child SAs.
    Child,
    /// IKE SAs.
    Ike,
}

/// A response.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Log`].
    Log(LogTail),
    /// To [`Request::Usage`].
    Usage(Vec<Usage>),
    /// To the others: what was done.
    Done(String),
    /// What was wrong.
    Error(String),
    /// To [`Request::Reload`]: the faults of the configuration, of which nothing was taken.
    Misconfigured(String),
}

/// The whole of a daemon, as `ferry6 status --json` prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// `broker` or `client`.
    pub role: String,
    /// Program version.
    pub version: String,
    /// Process ID.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime: u64,
    /// Where `--keylog` writes all keys.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub keylog: Option<PathBuf>,
    /// Whose rights it has, and what holds it.
    #[serde(default)]
    pub security: SecurityStatus,
    /// A client's part.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<ClientStatus>,
    /// A broker's part.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub broker: Option<BrokerStatus>,
    /// SAs, flows, counters.
    pub router: RouterStatus,
}

/// The end of a daemon's log, which it keeps in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTail {
    /// The number of the next line, to ask for.
    pub next: u64,
    /// Lines, the oldest first.
    pub lines: Vec<LogLine>,
}

/// A line of a daemon's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its number since the start.
    pub number: u64,
    /// Milliseconds since 1970.
    pub time: u64,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: String,
    /// The text.
    pub text: String,
}

/// What only a client has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// As configured.
    pub broker: String,
    /// What its name resolved to at the last try.
    pub broker_address: Option<Ipv4Addr>,
    /// `up`, `offline` (up, but there is no network), `connecting`, `waiting` (for the next try) or `down` (by command).
    pub state: String,
    /// Why it is not up.
    pub reason: Option<String>,
    /// The last try was refused, by the broker or by us: the next ones will be, too, until somebody changes something.
    #[serde(default)]
    pub refused: bool,
    /// Seconds until the next try.
    pub retry_in: Option<u64>,
    /// Our address in the tunnel.
    pub address: Option<Ipv6Addr>,
    /// The prefix that is routed to us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The networks behind us, in router mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lan: Vec<LanStatus>,
    /// DNS servers that the broker told.
    pub dns: Vec<Ipv6Addr>,
    /// Routes into the tunnel.
    pub routes: Vec<String>,
    /// The leak guard: absent where it is off; else what is unreachable but through the tunnel, nothing after `down`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub leak_guard: Option<Vec<String>>,
}

/// A network behind a client (`tunnel.lan`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanStatus {
    /// Its interface.
    pub interface: String,
    /// Our address there, of 64 bits; absent where the prefix has no network for it, or there is no prefix.
    pub address: Option<Ipv6Addr>,
    /// The interface is not there, or took no address.
    #[serde(default)]
    pub missing: bool,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What only a broker has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Address and ports: `0.0.0.0 UDP 500, 4500`.
    pub listen: String,
    /// Whether the kernel forwards IPv6.
    pub forwarding: bool,
    /// Prefixes routed into the tunnel device.
    pub routes: Vec<String>,
    /// Leases.
    pub leases: Vec<LeaseStatus>,
}

#[cfg(test)]
mod tests;
