//! `ferry6 broker`.

use crate::config;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration; docs/configuration.md tells every key.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/ferry6/broker.toml")]
    pub config: PathBuf,
    /// Read and check the configuration and all files it names, change nothing, exit.
    #[arg(long)]
    pub check: bool,
}

/// Runs the broker in the foreground until SIGINT or SIGTERM.
///
/// # Errors
/// Wrong configuration ([`crate::cli::UsageError`]), or what the system refused.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = config::broker(&args.config)?;
    if args.check {
        print!("{}", config::summary::broker(&args.config, &config));
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::bail!("the router is not there yet")
}
