//! The broker's end of its helper: which client's `up` and `down` are to be run, and which not any more.
//!
//! Hooks take their time, and clients come and go as they like; so what waits is bounded by what there is: for each client one `up`
//! and one `down` before it at most. A client that is gone before its `up` was run is told of by neither.

use super::clients::{Client, END_PATIENCE, Event, Link};
use super::spawn;
use crate::config::Hooks;
use anyhow::Context as _;
use ferry6_ike::event::{Closed, Established, IkeSaId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

/// A longer identity is cut, as is a longer name of a connection: no line is longer than `LINE_LIMIT`.
const IDENTITY_LIMIT: usize = 512;
/// Clients that wait at most; those beyond go without.
const WAITING_LIMIT: usize = 20_000;

/// What waits to be run, and the process that runs it.
#[derive(Debug, Default)]
pub struct Runner {
    stream: Option<UnixStream>,
    /// An event was told, and is not answered yet.
    busy: bool,
    queue: Queue,
}

impl Runner {
    /// Starts the process where there is something to run.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(interface: &str, hooks: &Hooks) -> anyhow::Result<Self> {
        if hooks.is_empty() {
            return Ok(Self::default());
        }
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command.args(["broker-helper", "--interface", interface]);
        Ok(Self { stream: Some(spawn(command, hooks)?), busy: false, queue: Queue::default() })
    }

    /// A client is up.
    ///
    /// # Errors
    /// Too many wait: none is run for this one.
    pub fn established(&mut self, up: &Established) -> Result<(), String> {
        if self.stream.is_none() {
            return Ok(());
        }
        let client = Client {
            identity: shown(&up.remote_id.to_string()),
            address: up.lease.address,
            prefix: up.lease.prefix.map(|p| p.to_string()).unwrap_or_default(),
        };
        let link = Link { remote: up.path.remote, connection: shown(&up.connection) };
        if self.queue.established(up.ike, client, link) {
            return Ok(());
        }
        Err(format!("hooks: {WAITING_LIMIT} clients wait for theirs: none is run for {}", up.remote_id))
    }

    /// One is down.
    pub fn closed(&mut self, closed: &Closed) {
        self.queue.closed(closed.ike, closed.path.remote, closed.reason.cause());
    }

    /// Tells the process what waits, one by one as it answers; never ends. May be dropped and called again at any time.
    pub async fn turn(&mut self) {
        loop {
            let Some(stream) = &self.stream else { return std::future::pending().await };
            let gone = if self.busy || self.queue.waiting.is_empty() {
                if stream.readable().await.is_err() {
                    true
                } else {
                    match stream.try_read(&mut [0]) {
                        Ok(1) if self.busy => {
                            self.busy = false;
                            false
                        }
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
                        // Its end, or what nobody asked for.
                        _ => true,
                    }
                }
            } else {
                stream.writable().await.is_err() || !self.say_next()
            };
            if gone {
                tracing::error!("the helper is gone: no hooks are run any more; restart the broker");
                self.stream = None;
                self.queue = Queue::default();
            }
        }
    }

    /// Whether that went well, or may be tried again.
    fn say_next(&mut self) -> bool {
        let (Some(stream), Some(entry)) = (&self.stream, self.queue.waiting.first_entry()) else {
            return true;
        };
        let Ok(mut line) = serde_json::to_vec(entry.get()) else { return false };
        line.push(b'\n');
        match stream.try_write(&line) {
            // The one before it was read, so there is room for all of it.
            Ok(len) if len == line.len() => {
                let event = entry.remove();
                self.queue.said(&event);
                self.busy = true;
                true
            }
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            Ok(_) => false,
        }
    }

    /// The broker ends: waits until `down` was run for all that were up.
    pub async fn stop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let Ok(mut line) = serde_json::to_vec(&Event::Stopping) else { return };
        line.push(b'\n');
        let ended = async {
            stream.write_all(&line).await?;
            stream.shutdown().await?;
            // An answer that was still to come, and then its end.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        };
        // And the hook that runs.
        let patience = super::PATIENCE + END_PATIENCE + Duration::from_secs(1);
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!("hooks take longer than {} s", patience.as_secs());
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    /// IKE SAs that are up.
    live: HashMap<IkeSaId, (Client, Link)>,
    /// How many a client has: two while it authenticates anew.
    count: HashMap<Client, usize>,
    /// By number, the oldest first.
    waiting: BTreeMap<u64, Event>,
    next: u64,
    /// The number of a client's `up` that waits.
    ups: HashMap<Client, u64>,
    /// Clients whose `up` was told, and whose `down` does not wait yet.
    told: HashSet<Client>,
}

impl Queue {
    fn push(&mut self, event: Event) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, event);
        number
    }

    /// Whether there was room.
    fn established(&mut self, ike: IkeSaId, client: Client, link: Link) -> bool {
        self.live.insert(ike, (client.clone(), link.clone()));
        let count = self.count.entry(client.clone()).or_default();
        *count += 1;
        if *count > 1 {
            return true;
        }
        if self.ups.len() >= WAITING_LIMIT {
            return false;
        }
        let number = self.push(Event::Up { client: client.clone(), link });
        self.ups.insert(client, number);
        true
    }

    fn closed(&mut self, ike: IkeSaId, remote: SocketAddr, reason: &str) {
        let Some((client, link)) = self.live.remove(&ike) else { return };
        if let Some(count) = self.count.get_mut(&client) {
            *count -= 1;
            if *count > 0 {
                return;
            }
            self.count.remove(&client);
        }
        if let Some(number) = self.ups.remove(&client) {
            self.waiting.remove(&number);
        } else if self.told.remove(&client) {
            // Where it was at last.
            let link = Link { remote, ..link };
            self.push(Event::Down { client, link, reason: reason.to_owned() });
        }
    }

    /// The process was told.
    fn said(&mut self, event: &Event) {
        if let Event::Up { client, .. } = event {
            self.ups.remove(client);
            self.told.insert(client.clone());
        }
    }
}

/// What fits into an environment and a line of the log: nothing that breaks one.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    shown.truncate(shown.floor_char_boundary(IDENTITY_LIMIT));
    shown
}

#[cfg(test)]
mod tests;
