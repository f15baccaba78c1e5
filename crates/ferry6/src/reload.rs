//! `ferry6 reload`, and SIGHUP: a daemon reads its configuration anew, and no tunnel notices.

use crate::cli::UsageError;
use crate::config::picture::Change;
use crate::config::secrets::Secrets;
use crate::control::{Request, Response, connect};
use crate::supervisor::Supervisor;
use crate::{admin, config};
use anyhow::{anyhow, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  ferry6 reload                                     the only daemon there is
  ferry6 reload alice                               the tunnel alice
  ferry6 reload broker
  kill -HUP PID                                     the same; what it says goes to the log

A line for each key that changed: + is new, - is gone, ~ is another value, and whether new tunnels alone take it or it needs
a restart (`ferry6 config` tells which key does). A configuration with a fault changes nothing: exit code 2.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// `broker`, or the name of a tunnel; may be left out where one daemon runs.
    #[arg(conflicts_with = "socket")]
    pub name: Option<String>,
    /// Control socket of the daemon.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Directory of the broker and the tunnels.
    #[arg(long, value_name = "DIR", default_value = admin::DIRECTORY)]
    pub dir: PathBuf,
}

/// Has a daemon read its configuration anew.
///
/// # Errors
/// No daemon, or a fault of its configuration.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let socket = match (&args.socket, &args.name) {
        (Some(socket), _) => socket.clone(),
        (None, Some(name)) => socket(&args.dir, name),
        (None, None) => connect::one_socket(None)?,
    };
    match connect::ask(&socket, &Request::Reload)? {
        Response::Done(text) => {
            println!("{text}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("the daemon answered another question"),
    }
}

/// Where the daemon of this name listens.
fn socket(dir: &Path, name: &str) -> PathBuf {
    let file = if name == "broker" { dir.join("broker.toml") } else { dir.join(name).join("client.toml") };
    config::control_socket(&file).unwrap_or_else(|| Path::new(config::RUN_DIR).join(format!("{name}.sock")))
}

/// A fault of the new configuration: nothing of it was taken.
pub(crate) fn fault(error: &UsageError) -> anyhow::Error {
    // The process gave its rights up when it started. What is no secret is not kept, and a new secret was never read.
    let hint = if error.0.contains("ermission denied") {
        "; the running daemon may not read this file any more: restart it, and all files are read anew"
    } else {
        ""
    };
    UsageError(format!("{error}\nnothing was changed{hint}")).into()
}

/// What can't be taken without a restart, nor left aside.
pub(crate) fn needs_restart(path: &Path, what: &str) -> anyhow::Error {
    anyhow!("{}: {what}, which needs a restart; nothing was changed", path.display())
}

/// What was taken, for who asked and for the log.
pub(crate) fn report(path: &Path, changes: &[Change], secrets: &Secrets) -> String {
    let mut text = match changes.len() {
        0 => format!("{} was read anew: nothing changed", path.display()),
        1 => format!("{} was read anew, 1 change:", path.display()),
        many => format!("{} was read anew, {many} changes:", path.display()),
    };
    for change in changes {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{change}");
    }
    let kept: Vec<_> = secrets.stood_in().iter().map(|path| path.display().to_string()).collect();
    if !kept.is_empty() {
        let _ = write!(
            text,
            "\nas they were before, for the daemon's user may not read them: {}",
            kept.join(", ")
        );
    }
    text
}

/// Does it, and tells: the service manager that and when, the log and who asked of what came of it.
pub(crate) async fn answer(
    supervisor: &Supervisor,
    work: impl Future<Output = anyhow::Result<String>>,
) -> Response {
    supervisor.reloading();
    let result = work.await;
    supervisor.ready();
    match result {
        Ok(text) => {
            for line in text.lines() {
                tracing::info!("{line}");
            }
            Response::Done(text)
        }
        Err(error) => {
            tracing::error!("not reloaded: {error:#}");
            if error.is::<UsageError>() {
                Response::Misconfigured(format!("{error:#}"))
            } else {
                Response::Error(format!("{error:#}"))
            }
        }
    }
}
