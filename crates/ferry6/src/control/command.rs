//! `ferry6 rekey`, `up` and `down`.

use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `rekey`.
#[derive(Debug, clap::Args)]
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

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Control socket of the daemon.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Arguments of `down`.
#[derive(Debug, clap::Args)]
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
pub fn rekey(_args: RekeyArgs) -> anyhow::Result<ExitCode> {
    todo!()
}

/// Runs `up`.
///
/// # Errors
/// No daemon, or it refused.
pub fn up(_args: UpArgs) -> anyhow::Result<ExitCode> {
    todo!()
}

/// Runs `down`.
///
/// # Errors
/// No daemon, or it refused.
pub fn down(_args: DownArgs) -> anyhow::Result<ExitCode> {
    todo!()
}
