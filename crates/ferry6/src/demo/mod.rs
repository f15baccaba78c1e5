//! `ferry6 demo`.

use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the subcommand.
///
/// # Errors
/// What cannot be written or read.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    todo!()
}
