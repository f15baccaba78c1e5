//! The process that runs a broker's hooks: one at a time, so that a flood of clients never becomes one of processes.
//!
//! The broker tells one event, and the next one when this one was answered: what waits stands with the broker, see
//! [`super::broker`]. When the broker is gone, `down` is run for each client that was up, for as long as `END_PATIENCE`.

use super::run::{Deaf, run_hook};
use super::{LINE_LIMIT, PATIENCE};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Clients that are up at most; a broker that says more than that is ours no more.
const CLIENTS_LIMIT: usize = 100_000;
/// How long all hooks together may take when the broker is gone. What the unit waits for has to be longer.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(8);
/// Hooks that fail are told so often.
const QUIET: Duration = Duration::from_secs(10);

/// Arguments; everything that this process may run stands in them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The tunnel device.
    #[arg(long)]
    interface: String,
    /// The hook for a client that is up.
    #[arg(long)]
    up: Option<PathBuf>,
    /// The hook for one that is down.
    #[arg(long)]
    down: Option<PathBuf>,
}

/// What tells a client from others, as the hooks know it. Two IKE SAs with all of this the same are one client that
/// authenticates anew.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Client {
    pub identity: String,
    pub address: Option<Ipv6Addr>,
    /// In text; empty without one.
    pub prefix: String,
}

/// How it is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    pub remote: SocketAddr,
    pub connection: String,
}

/// What the broker tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Event {
    Up {
        client: Client,
        link: Link,
    },
    Down {
        client: Client,
        link: Link,
        reason: String,
    },
    /// The broker ends in order.
    Stopping,
}

/// Does what it is told on stdin until that ends.
///
/// # Errors
/// No runtime, or stdin that is no such socket, or says what it never says.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let deaf = Deaf::new()?;
    let stdin = std::io::stdin();
    let answers = stdin.as_fd().try_clone_to_owned().context("the broker's messages")?;
    let mut worker = Worker { args, up: BTreeMap::new(), failures: 0, told: None };
    let result = worker.listen(&mut BufReader::new(stdin.lock()), &mut UnixStream::from(answers));
    let reason = if matches!(result, Ok(true)) { "stopped" } else { "killed" };
    worker.end(reason);
    drop(deaf);
    result.map(|_| ExitCode::SUCCESS)
}

struct Worker {
    args: Args,
    /// Clients for which `up` was run.
    up: BTreeMap<Client, Link>,
    /// Hooks that failed, and were not told of.
    failures: u64,
    told: Option<Instant>,
}

impl Worker {
    /// Until the broker is gone; whether it ended in order.
    fn listen(
        &mut self,
        input: &mut impl std::io::BufRead,
        answers: &mut UnixStream,
    ) -> anyhow::Result<bool> {
        loop {
            let mut line = Vec::new();
            input.take(LINE_LIMIT).read_until(b'\n', &mut line).context("the broker's messages")?;
            if line.last() != Some(&b'\n') {
                return Ok(false);
            }
            match serde_json::from_slice(&line).context("the broker said what it never says")? {
                Event::Stopping => return Ok(true),
                Event::Up { client, link } => {
                    if self.up.len() >= CLIENTS_LIMIT {
                        bail!("the broker said what it never says: more than {CLIENTS_LIMIT} clients");
                    }
                    self.hook("up", &client, &link, "connected", PATIENCE);
                    self.up.insert(client, link);
                }
                Event::Down { client, link, reason } => {
                    if self.up.remove(&client).is_some() {
                        self.hook("down", &client, &link, &reason, PATIENCE);
                    }
                }
            }
            // Whoever is not there to hear it has ended: the next line tells so.
            let _ = answers.write_all(b"\n");
        }
    }

    /// The broker is gone, and with it all clients.
    fn end(&mut self, reason: &str) {
        let until = Instant::now() + END_PATIENCE;
        while let Some((client, link)) = self.up.pop_first() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let more = self.up.len() + 1;
                tracing::warn!(
                    "hook down: not run for {more} clients: {} s are over",
                    END_PATIENCE.as_secs()
                );
                break;
            }
            self.hook("down", &client, &link, reason, left.min(PATIENCE));
        }
        self.tell_failures();
    }

    fn hook(&mut self, event: &str, client: &Client, link: &Link, reason: &str, patience: Duration) {
        let hook = if event == "up" { &self.args.up } else { &self.args.down };
        let Some(hook) = hook else { return };
        let environment = [
            ("FERRY6_INTERFACE", self.args.interface.clone()),
            ("FERRY6_IDENTITY", client.identity.clone()),
            ("FERRY6_ADDRESS", client.address.map(|a| a.to_string()).unwrap_or_default()),
            ("FERRY6_PREFIX", client.prefix.clone()),
            ("FERRY6_REMOTE", link.remote.to_string()),
            ("FERRY6_CONNECTION", link.connection.clone()),
            ("FERRY6_REASON", reason.to_owned()),
        ];
        match run_hook(hook, event, &environment, patience) {
            Ok(()) => tracing::debug!("hook {event}: {} is done for {}", hook.display(), client.identity),
            Err(text) if self.told.is_none_or(|told| told.elapsed() >= QUIET) => {
                tracing::warn!("hook {event} for {}: {text}", client.identity);
                self.tell_failures();
                self.told = Some(Instant::now());
            }
            Err(_) => self.failures += 1,
        }
    }

    fn tell_failures(&mut self) {
        let more = std::mem::take(&mut self.failures);
        if more > 0 {
            tracing::warn!("and {more} hooks more failed");
        }
    }
}
