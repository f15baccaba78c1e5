//! `ferry6 status`.

use super::connect;
use super::{Request, Response, Status, render};
use crate::exit::{self, Exit, Fault};
use anyhow::anyhow;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  ferry6 status
  ferry6 status --socket /run/ferry6/client.sock
  ferry6 status --json | jq '.[].router.ike_sas[].remote'

The socket belongs to the daemon's user: ask as that user or as root.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Everything, as a JSON array with one object per daemon.
    #[arg(long)]
    pub json: bool,
    /// Ask this control socket only; without it every socket in /run/ferry6 is asked.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Prints the status.
///
/// # Errors
/// No daemon answers.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let sockets = connect::sockets(args.socket.as_deref())?;
    let mut list: Vec<Status> = Vec::new();
    let mut faults = Vec::new();
    for socket in &sockets {
        match connect::ask(socket, &Request::Status) {
            Ok(Response::Status(status)) => list.push(*status),
            Ok(_) => faults.push(anyhow!("{}: an answer to another question", socket.display())),
            Err(error) => faults.push(error),
        }
    }
    if list.is_empty() {
        let exit = faults.first().map_or(Exit::NoDaemon, exit::code);
        let text = faults.iter().map(|e| format!("{e:#}")).collect::<Vec<_>>().join("; ");
        return Err(Fault { exit, text }.into());
    }
    let text = if args.json {
        let mut text = serde_json::to_string_pretty(&list)?;
        text.push('\n');
        text
    } else {
        list.iter().map(render::status).collect::<Vec<_>>().join("\n")
    };
    for fault in &faults {
        eprintln!("warning: {fault:#}");
    }
    // `ferry6 status | head` closes the pipe early, which is no failure.
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
