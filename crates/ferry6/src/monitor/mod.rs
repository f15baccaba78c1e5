//! `ferry6 monitor`: the running daemons, live in the terminal.
//!
//! Threads ask the control sockets (`view::ask`), one more waits for signals, and this one draws: whatever comes, it comes
//! through one channel, or from the keyboard.

mod app;
mod bottom;
mod draw;
mod panels;
mod theme;

use crate::cli::UsageError;
use crate::view::ask::{self, News, Watch};
use anyhow::{Context as _, bail};
use app::App;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use std::io::IsTerminal as _;
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use theme::Theme;
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  ferry6 monitor
  ferry6 monitor --socket /run/ferry6/client.sock

Keys: q ends, arrows choose daemon and tunnel, ? tells the others. NO_COLOR=1 draws without
colours. While it runs, the peers of a daemon with few tunnels are asked every ten seconds whether
they are there, which measures the round trip.";

/// How long to wait for a key before looking at everything else.
const TURN: Duration = Duration::from_millis(50);
/// Keys that are taken before it is drawn anew: one that is held down comes faster than a slow terminal draws.
const EVENTS: usize = 100;
/// Time to give the terminal back once a signal ends it.
const ENDING: Duration = Duration::from_secs(1);
/// It is drawn so often where nothing happens, as ages grow.
const REDRAW: Duration = Duration::from_millis(500);

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Watch this control socket only (may be given several times); without it every socket in /run/ferry6 is watched.
    #[arg(long, value_name = "PATH")]
    pub socket: Vec<PathBuf>,
}

/// Shows the daemons until `q`, SIGTERM or SIGINT.
///
/// # Errors
/// No terminal ([`UsageError`]), or one that does not work.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let text =
            "monitor draws on a terminal, and stdin or stdout is none; for scripts: ferry6 status --json";
        return Err(UsageError(text.to_owned()).into());
    }
    if std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty()) {
        let text = "monitor draws on a terminal, and TERM names none that can: set it (TERM=xterm-256color)";
        return Err(UsageError(text.to_owned()).into());
    }
    let stop = signals().context("cannot wait for signals")?;
    let watch = Watch { sockets: args.socket.clone(), probe: true, log: true };
    let news = ask::start(watch).context("cannot start a thread")?;
    on_terminal(|terminal| show(terminal, &args.socket, &news, &stop))
}

/// Some thread panicked: the terminal is given back by then, so nobody may draw on it.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Takes the terminal, and gives it back as it was, however this ends: a panic in any thread gives it back before it is told.
fn on_terminal<T>(work: impl FnOnce(&mut DefaultTerminal) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut terminal = ratatui::try_init().context("the terminal does not work")?;
    let restore = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICKED.store(true, Ordering::SeqCst);
        restore(info);
    }));
    let result = work(&mut terminal);
    ratatui::restore();
    result
}

/// Draws what comes, and does what the keys say, until one of them or a signal ends it.
fn show(
    terminal: &mut DefaultTerminal,
    sockets: &[PathBuf],
    news: &Receiver<News>,
    stop: &Receiver<()>,
) -> anyhow::Result<ExitCode> {
    let mut app = App::new(Theme::from_environment());
    let mut drawn: Option<Instant> = None;
    let mut fresh = true;
    loop {
        if PANICKED.load(Ordering::SeqCst) {
            bail!("a part of the monitor failed, as told above; this is a fault of ferry6: please report it");
        }
        while let Ok(news) = news.try_recv() {
            app.take(news);
            fresh = true;
        }
        if app.views.is_empty() {
            app.nobody = ask::sockets(sockets).err().map(|error| format!("{error:#}"));
        }
        if fresh || drawn.is_none_or(|at| at.elapsed() >= REDRAW) {
            let now = Instant::now();
            terminal.draw(|frame| draw::draw(frame, &mut app, now))?;
            drawn = Some(now);
            fresh = false;
        }
        if app.ended || stop.try_recv().is_ok() {
            return Ok(ExitCode::SUCCESS);
        }
        let mut wait = TURN;
        for _ in 0..EVENTS {
            if !event::poll(wait)? {
                break;
            }
            // What else comes is another size: it is drawn anew.
            if let Event::Key(key) = event::read()? {
                app.key(key);
            }
            fresh = true;
            wait = Duration::ZERO;
        }
    }
}

/// SIGTERM, SIGHUP and, from elsewhere than the keyboard, SIGINT end it in order; and the process where nobody takes notice: a
/// terminal that is gone reads as empty for ever, which crossterm takes for a key that is still to come, so `show` never returns.
fn signals() -> anyhow::Result<Receiver<()>> {
    let (sender, receiver) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let (mut terminate, mut interrupt, mut hang_up) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    drop(_guard);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        let _ = sender.send(());
        std::thread::sleep(ENDING);
        std::process::exit(1);
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests;
