//! Work that needs rights which a client gives away: DNS servers and hooks.
//!
//! Before it locks itself in, a client starts this program once more (`ferry6 helper`, not for people), with all the rights that it was
//! started with. What that process may do is fixed by its arguments: which interface, which hooks, which way to set DNS. Over a pair of
//! sockets the client tells it no more than that the tunnel is up, with which address and DNS servers, or down (`Event`). Whoever
//! takes the client over can't say anything else.
//!
//! When the client is gone, however it ended, the pair's end is, and the helper takes back what it had set.
//!
//! A broker with hooks has a helper as well (`ferry6 broker-helper`), for each of its clients: [`broker`] is the broker's end, [`clients`]
//! the process.

pub mod broker;
pub mod clients;
mod dns;
mod run;

pub use dns::Mode;
pub use run::{Args, check_hook, run};

use crate::config::Hooks;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// The longest message in octets.
const LINE_LIMIT: u64 = 4096;
/// DNS servers at most.
const DNS_LIMIT: usize = 16;
/// How long a hook, or a program that sets DNS, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the client waits at its end until all is taken back: a hook and DNS.
const STOP_PATIENCE: Duration = Duration::from_secs(22);

/// What the client tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Event {
    /// The tunnel is up, or has another address.
    Up { given: Given, reason: Reason },
    /// It is down.
    Down { reason: Reason },
}

/// What the broker gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// The address.
    pub address: Option<Ipv6Addr>,
    /// The prefix: its first address and its length.
    pub prefix: Option<(Ipv6Addr, u8)>,
    /// DNS servers.
    pub dns: Vec<Ipv6Addr>,
}

/// Why, as FERRY6_REASON says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The tunnel came up.
    Connected,
    /// It has another address or other DNS servers.
    Changed,
    /// The broker is gone, or ended it.
    Lost,
    /// `ferry6 down`.
    Command,
    /// The client ends.
    Stopped,
    /// The client ended without a word.
    Killed,
}

impl Reason {
    fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Changed => "changed",
            Self::Lost => "lost",
            Self::Command => "command",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
        }
    }
}

/// The client's end.
#[derive(Debug, Default)]
pub struct Helper {
    stream: Option<UnixStream>,
    /// What it was told last.
    told: Option<Given>,
}

/// What a helper is started with.
pub struct Setup<'a> {
    /// The tunnel device.
    pub interface: &'a str,
    /// How DNS servers are set.
    pub dns: Mode,
    /// What is run.
    pub hooks: &'a Hooks,
    /// The broker's identity, as configured.
    pub peer: String,
    /// Where it notes what it has set, for the next one, should it be killed itself.
    pub record: &'a Path,
}

impl Helper {
    /// Starts it where there is something to do for it.
    ///
    /// # Errors
    /// The process can't be started.
    pub fn start(setup: &Setup<'_>) -> anyhow::Result<Self> {
        if setup.hooks.is_empty() {
            match setup.dns.find() {
                // One that was killed may have left something: who finds nothing to set DNS with can't take it back either.
                Ok(None) => return Ok(Self::default()),
                Ok(Some(_)) => {}
                Err(text) => tracing::warn!("tunnel.dns: {text}: the broker's DNS servers will not be set"),
            }
        }
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command.args(["helper", "--interface", setup.interface, "--dns", setup.dns.word()]);
        command.arg("--record").arg(setup.record).arg("--peer").arg(&setup.peer);
        Ok(Self { stream: Some(spawn(command, setup.hooks)?), told: None })
    }

    /// The tunnel is up with this.
    pub async fn up(&mut self, mut given: Given) {
        given.dns.truncate(DNS_LIMIT);
        let reason = match &self.told {
            Some(told) if *told == given => return,
            Some(_) => Reason::Changed,
            None => Reason::Connected,
        };
        self.told = Some(given.clone());
        self.send(&Event::Up { given, reason }).await;
    }

    /// The tunnel is down.
    pub async fn down(&mut self, reason: Reason) {
        if self.told.take().is_some() {
            self.send(&Event::Down { reason }).await;
        }
    }

    /// The client ends: waits until all is taken back.
    pub async fn stop(&mut self) {
        self.down(Reason::Stopped).await;
        let Some(mut stream) = self.stream.take() else { return };
        let _ = stream.shutdown().await;
        // It has nothing to say; its end is the answer.
        let mut octet = [0];
        if tokio::time::timeout(STOP_PATIENCE, stream.read(&mut octet)).await.is_err() {
            tracing::warn!("a hook, or what sets DNS, takes longer than {} s", STOP_PATIENCE.as_secs());
        }
    }

    async fn send(&mut self, event: &Event) {
        let Some(stream) = &mut self.stream else { return };
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        // It reads while no hook runs; what it has not read by then waits in the socket's buffer, which is larger than all of this.
        let sent = tokio::time::timeout(PATIENCE, stream.write_all(&line)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::warn!("the helper is gone: DNS servers and hooks are not cared for any more");
            self.stream = None;
        }
    }
}

/// Starts a helper, with a pair of sockets to it as its stdin.
fn spawn(mut command: Command, hooks: &Hooks) -> anyhow::Result<UnixStream> {
    for (flag, hook) in [("--up", &hooks.up), ("--down", &hooks.down)] {
        if let Some(hook) = hook {
            command.arg(flag).arg(hook);
        }
    }
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().context("cannot start the helper")?;
    // It is no service of its own, and has to do its work after Ctrl-C too.
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").process_group(0);
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
    // It is not waited for: it ends after us.
    drop(command.spawn().context("cannot start the helper")?);
    ours.set_nonblocking(true).context("cannot start the helper")?;
    UnixStream::from_std(ours).context("cannot start the helper")
}
