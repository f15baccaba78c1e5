//! `ferry6 rekey`, `up` and `down`.

use super::connect;
use super::{Rekey, Request, Response};
use crate::client::lan;
use crate::net::Net;
use anyhow::bail;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const REKEY_EXAMPLES: &str = "\
Examples:
  ferry6 rekey                                      every Child SA
  ferry6 rekey --ike client@my.domain               the IKE SAs of one peer
  ferry6 rekey 5                                    the Child SA with reqid 5";

const DOWN_EXAMPLES: &str = "\
Examples:
  ferry6 down                                       on a client: down until `ferry6 up`; opens its leak guard, and
                                                    that of a client that was killed
  ferry6 down client@my.domain                      on a broker: one client; it may come again";

/// Arguments of `rekey`.
#[derive(Debug, clap::Args)]
#[command(after_help = REKEY_EXAMPLES)]
pub struct RekeyArgs {
    /// Child SAs (the default).
    #[arg(long, conflicts_with = "ike")]
    pub child: bool,
    /// IKE SAs.
    #[arg(long)]
    pub ike: bool,
    /// Which: number (`ike 3`, `reqid 5` in `status`), connection name or peer identity; all without it.
    pub which: Option<String>,
    /// Control socket of the daemon.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

const UP_EXAMPLES: &str = "\
Examples:
  ferry6 up                                         after `ferry6 down`, or at once instead of at the next try";

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
#[command(after_help = UP_EXAMPLES)]
pub struct UpArgs {
    /// Control socket of the daemon.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Arguments of `down`.
#[derive(Debug, clap::Args)]
#[command(after_help = DOWN_EXAMPLES)]
pub struct DownArgs {
    /// Which: number of the IKE SA, connection name or peer identity; all without it.
    pub which: Option<String>,
    /// Control socket of the daemon.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Runs `rekey`.
///
/// # Errors
/// No daemon, or it refused.
pub fn rekey(args: RekeyArgs) -> anyhow::Result<ExitCode> {
    let what = if args.ike { Rekey::Ike } else { Rekey::Child };
    command(args.socket.as_deref(), &Request::Rekey { what, which: args.which })
}

/// Runs `up`.
///
/// # Errors
/// No daemon, or it refused.
pub fn up(args: UpArgs) -> anyhow::Result<ExitCode> {
    command(args.socket.as_deref(), &Request::Up)
}

/// Runs `down`.
///
/// # Errors
/// No daemon, or it refused.
pub fn down(args: DownArgs) -> anyhow::Result<ExitCode> {
    if args.which.is_none() && !daemon_runs(args.socket.as_deref()) && open_guard()? {
        return Ok(ExitCode::SUCCESS);
    }
    command(args.socket.as_deref(), &Request::Down { which: args.which })
}

/// Whether anybody listens on the socket, or on any.
fn daemon_runs(socket: Option<&Path>) -> bool {
    connect::sockets(socket).is_ok_and(|list| list.iter().any(|socket| UnixStream::connect(socket).is_ok()))
}

/// Takes the leak guard away that a killed client left. Whether there was one.
///
/// # Errors
/// The kernel refused.
pub fn open_guard() -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let list = runtime.block_on(async { lan::remove_left_over(&Net::new()?).await })?;
    if !list.is_empty() {
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        println!(
            "no client is running; what one left is taken away, its leak guard among it: {}",
            list.join(", ")
        );
    }
    Ok(!list.is_empty())
}

fn command(socket: Option<&Path>, request: &Request) -> anyhow::Result<ExitCode> {
    match connect::ask(&connect::one_socket(socket)?, request)? {
        Response::Done(text) => {
            println!("{text}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("the daemon answered another question"),
    }
}
