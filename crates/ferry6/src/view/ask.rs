//! Asking the daemons, each in a thread of its own: one that hangs keeps none of the others.

use crate::control::{LogTail, Request, Response, Status, connect};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How often a daemon is asked.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// A daemon with many tunnels takes a while for its status: it shall spend no more than this share of its time with us.
const SHARE: u32 = 10;
/// How often its peers are asked whether they are there.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// With more tunnels than these nobody is asked: the daemon's own exchanges tell.
const PROBED: usize = 32;
/// Sockets that are watched.
const SOCKETS: usize = 64;

/// What to watch.
#[derive(Clone, Debug)]
pub struct Watch {
    /// These sockets alone; without any, all in the directory of the sockets.
    pub sockets: Vec<PathBuf>,
    /// Measures round trips, by an IKE exchange every ten seconds.
    pub probe: bool,
    /// Asks for the log too.
    pub log: bool,
}

/// What a daemon told, or why not.
#[derive(Debug)]
pub struct News {
    /// Who.
    pub socket: PathBuf,
    /// When.
    pub at: Instant,
    /// What.
    pub status: Result<Box<Status>, String>,
    /// What is new in its log.
    pub log: Option<LogTail>,
}

/// Starts to ask; daemons that come later are found. It ends when the receiver is dropped.
///
/// # Errors
/// No thread can be started.
pub fn start(watch: Watch) -> std::io::Result<Receiver<News>> {
    let (sender, receiver) = sync_channel(SOCKETS);
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || find(&watch, &sender))?;
    Ok(receiver)
}

/// The sockets that were named, else those that there are.
///
/// # Errors
/// There is none.
pub fn sockets(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    if named.is_empty() { connect::sockets(None) } else { Ok(named.to_owned()) }
}

fn find(watch: &Watch, sender: &SyncSender<News>) {
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    loop {
        for socket in sockets(&watch.sockets).unwrap_or_default() {
            if known.len() >= SOCKETS || known.contains(&socket) {
                continue;
            }
            let mut asker = Asker {
                socket: socket.clone(),
                watch: watch.clone(),
                process: None,
                next_line: None,
                probed: None,
            };
            let sender = sender.clone();
            let thread = std::thread::Builder::new().name("ask".to_owned());
            if thread.spawn(move || asker.run(&sender)).is_ok() {
                known.insert(socket);
            }
        }
        if !watch.sockets.is_empty() {
            return;
        }
        std::thread::sleep(INTERVAL);
    }
}

struct Asker {
    socket: PathBuf,
    watch: Watch,
    /// Its process ID.
    process: Option<u32>,
    next_line: Option<u64>,
    probed: Option<Instant>,
}

impl Asker {
    fn run(&mut self, sender: &SyncSender<News>) {
        loop {
            let begin = Instant::now();
            let news = self.news();
            let took = begin.elapsed();
            if sender.send(news).is_err() {
                return;
            }
            std::thread::sleep(INTERVAL.max(took * SHARE).saturating_sub(begin.elapsed()));
        }
    }

    fn news(&mut self) -> News {
        let status = match connect::ask(&self.socket, &Request::Status) {
            Ok(Response::Status(status)) => Ok(status),
            Ok(_) => Err("an answer to another question".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        };
        let at = Instant::now();
        let mut log = None;
        if let Ok(status) = &status {
            // Another process numbers its lines anew.
            if self.process.replace(status.pid) != Some(status.pid) {
                self.next_line = None;
            }
            if self.watch.log {
                log = self.log();
            }
        }
        if let Ok(status) = &status
            && self.watch.probe
            && status.router.ike_sas.len() <= PROBED
            && self.probed.is_none_or(|before| before.elapsed() >= PROBE_INTERVAL)
        {
            self.probed = Some(at);
            // An older daemon does not know this, and there is nothing to tell.
            let _ = connect::ask(&self.socket, &Request::Probe { which: None });
        }
        News { socket: self.socket.clone(), at, status, log }
    }

    fn log(&mut self) -> Option<LogTail> {
        match connect::ask(&self.socket, &Request::Log { since: self.next_line }) {
            Ok(Response::Log(tail)) => {
                self.next_line = Some(tail.next);
                Some(tail)
            }
            _ => None,
        }
    }
}
