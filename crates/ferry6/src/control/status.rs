//! `ferry6 status`.

use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Everything, as JSON.
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
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    todo!()
}
