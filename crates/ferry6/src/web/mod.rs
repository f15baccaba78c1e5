//! `ferry6 web`: a status page, `/metrics` for Prometheus, `/healthz`.
//!
//! A process of its own, so that no daemon speaks HTTP: it asks their control sockets as `ferry6 status` does, and has no right
//! but that. It listens on a loopback address or a Unix socket, and on nothing else.

mod listen;
mod metrics;
mod page;
mod plot;
mod server;

use crate::cli::UsageError;
use crate::config::RUN_DIR;
use crate::sandbox::{self, Files, Process, RunAs, User};
use crate::view::View;
use crate::view::ask::{self, News, Watch};
use anyhow::Context as _;
use listen::{Listener, Where};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  ferry6 web --listen 127.0.0.1:9696                then look at http://127.0.0.1:9696/
  ferry6 web --unix /run/ferry6-web.sock --group www-data
  curl -s http://127.0.0.1:9696/metrics             for Prometheus
  curl -s http://127.0.0.1:9696/healthz             200, or 503 with the reason

Whoever may connect sees who is connected from where: on a machine with other users, listen on a
Unix socket. Run it as the daemons' user or as root: as root it becomes the owner of the control
sockets, and gives all other rights away. docs/monitoring.md tells more.";

/// News older than this is none: the daemon hangs, or we do.
const STALE: Duration = Duration::from_secs(20);

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = clap::ArgGroup::new("where").required(true).args(["listen", "unix"]))]
pub struct Args {
    /// Loopback address and port to listen on: `127.0.0.1:9696`, `[::1]:9696`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Unix socket to listen on, for its owner alone (mode 0600).
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,
    /// A group, by name or number, whose members may connect to the Unix socket (mode 0660).
    #[arg(long, value_name = "GROUP", conflicts_with = "listen")]
    pub group: Option<String>,
    /// Ask this control socket only (may be given several times); without it every socket in /run/ferry6 is asked.
    #[arg(long, value_name = "PATH")]
    pub socket: Vec<PathBuf>,
}

/// What is known of the daemons; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<Mutex<Vec<View>>>);

impl Known {
    fn take(&self, news: News) {
        let mut views = self.views();
        match views.binary_search_by(|view| view.socket.cmp(&news.socket)) {
            Ok(at) => views[at].take(news),
            Err(at) => {
                let mut view = View::new(news.socket.clone());
                view.take(news);
                views.insert(at, view);
            }
        }
    }

    fn views(&self) -> MutexGuard<'_, Vec<View>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a daemon is not well, if so.
pub(super) fn ailment(view: &View, now: Instant) -> Option<String> {
    let Some(status) = &view.status else {
        return Some(view.fault.as_ref().map_or("no answer yet".to_owned(), |(why, _)| why.clone()));
    };
    if let Some((why, _)) = &view.fault {
        return Some(why.clone());
    }
    let age = view.answered.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
    if age > STALE {
        return Some(format!("no answer for {} s", age.as_secs()));
    }
    let client = status.client.as_ref().filter(|client| client.state != "up")?;
    let reason = client.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
    Some(format!("the tunnel is {}{reason}", client.state))
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// An address that is no loopback address ([`UsageError`]), or what the system refused.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let group = args.group.as_deref().map(sandbox::group).transpose().map_err(UsageError)?;
    let place = match (args.listen, args.unix) {
        (Some(address), _) => Where::tcp(address)?,
        (None, Some(path)) => Where::Unix { path, group },
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let run_as = owner(&args.socket)?;
    let listener = Listener::bind(&place, &run_as)?;
    // There is one thread yet: those to come inherit it all.
    let mut files = Files::default();
    if args.socket.is_empty()
        && let Some(parent) = Path::new(RUN_DIR).parent()
    {
        // The directory itself goes and comes with the daemons, and a rule would be tied to the one that is there now.
        files = files.read(parent);
    }
    if let Some(directory) = place.directory() {
        files = files.write(directory);
    }
    let process = Process { run_as, ..Process::unchanged() };
    let confined = sandbox::confine_viewer(&process, &files)?;
    confined.this_thread(sandbox::Kind::Main);
    tracing::debug!("rights: {}", confined.status().line());

    let news = ask::start(Watch { sockets: args.socket.clone(), probe: false, log: true })
        .context("cannot start a thread")?;
    let known = Known::default();
    let taker = known.clone();
    std::thread::Builder::new()
        .name("news".to_owned())
        .spawn(move || take_all(&news, &taker))
        .context("cannot start a thread")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let listener = listener.into_tokio()?;
        tracing::info!("status page on {listener}");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = server::serve(&listener, known, args.socket) => {}
        }
        anyhow::Ok(())
    })?;
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

fn take_all(news: &Receiver<News>, known: &Known) {
    while let Ok(news) = news.recv() {
        known.take(news);
    }
}

/// As root: the user whose control sockets these are. Somebody else cannot change who he is.
fn owner(named: &[PathBuf]) -> anyhow::Result<RunAs> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(RunAs::Same);
    }
    let mut owners: BTreeMap<u32, PathBuf> = BTreeMap::new();
    for socket in ask::sockets(named).unwrap_or_default() {
        if let Ok(meta) = std::fs::metadata(&socket) {
            owners.entry(meta.uid()).or_insert(socket);
        }
    }
    if owners.len() > 1 {
        let list: Vec<String> =
            owners.iter().map(|(uid, socket)| format!("{} (user {uid})", socket.display())).collect();
        return Err(UsageError(format!(
            "the control sockets belong to several users: {}. Run one `ferry6 web` for each user, with --socket",
            list.join(", ")
        ))
        .into());
    }
    match owners.keys().next() {
        // Nobody runs yet: the user that a daemon would take.
        None => Ok(RunAs::by_default()),
        Some(uid) => Ok(RunAs::Configured(User::named(&uid.to_string()).map_err(UsageError)?)),
    }
}

#[cfg(test)]
mod tests;
