//! Interop tests of ferry6 against real peers: strongSwan, and itself.
//!
//! Each case runs in a process of its own, in network namespaces of its own, in the topology of the article: the
//! client behind a masquerading router, the broker behind a static NAT, nothing but IPv4 between them. Run it
//! through `./test interop [FILTER]`.

// Programs: `pub` is for their own modules.
#![allow(unreachable_pub)]

mod cases;
mod ferry;
mod flood;
mod guest;
mod iked;
mod perf;
mod pki;
mod rogue;
mod runner;
mod soak;
mod strongswan;
mod tmux;
mod traffic;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Runs ferry6 against strongSwan and against itself.
#[derive(Clone, Debug, Parser)]
#[command(name = "ferry6-interop")]
struct Cli {
    /// Only the cases whose name contains one of these words.
    filter: Vec<String>,
    /// List the cases and end.
    #[arg(long)]
    list: bool,
    /// Where configurations, certificates and logs of failed cases are left.
    #[arg(long, default_value = "target/test-logs/interop", value_name = "DIR")]
    logs: PathBuf,
    /// Leave the files of passed cases too.
    #[arg(long)]
    keep: bool,
    /// Stop each case at its end, so that its hosts can be entered, until SIGINT.
    #[arg(long)]
    hold: bool,
    /// Cases at a time.
    #[arg(long, short, default_value_t = 2)]
    jobs: usize,
    /// Run a shell command in the guest of a held case, whose folder (with `console.log`) this is.
    #[arg(long, num_args = 2, value_names = ["DIR", "COMMAND"])]
    guest: Vec<String>,
    /// The program under test [default: `ferry6` beside this program].
    #[arg(long, value_name = "FILE")]
    ferry6: Option<PathBuf>,
    /// Write the table as JSON too: an array with one object per case.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    soak: soak::Options,
    /// Run this one case in this process (what each case's process is started with).
    #[arg(long, hide = true, value_name = "CASE")]
    one: Option<String>,
}

/// `ferry6-interop`: all interop cases, or those that were named.
pub fn interop() -> ExitCode {
    // A guest's kernel puts words of its own around these two.
    if let Some(dir) = std::env::args_os().skip_while(|a| a != guest::INIT).nth(1) {
        let result = guest::init::run(Path::new(&dir));
        eprintln!("the guest's init has ended: {result:?}");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    let result = match &cli.one {
        None if !cli.guest.is_empty() => {
            guest::shell(Path::new(&cli.guest[0]), &cli.guest[1]).map(|output| {
                print!("{output}");
                true
            })
        }
        Some(name) => runner::one(&cli, name).map(|()| true),
        None if cli.soak.soak.is_some() => runner::soak(&cli),
        None => runner::all(&cli),
    };
    exit_code(result)
}

/// Of a program of ours: whether all was well, or why it could not be seen.
fn exit_code(result: Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `ferry6-perf`: how fast ferry6 and its peers are, end to end.
pub fn perf() -> ExitCode {
    perf::main()
}

/// `ferry6-flood`: a broker under attack, and with many tunnels.
pub fn flood() -> ExitCode {
    flood::main()
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// Runs a command to its end, and returns what it says.
///
/// # Errors
/// It fails: with all it said.
fn run(command: &mut Command, what: &str) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {what}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(output.status.success(), "{what} failed:\n{text}");
    Ok(text)
}

/// Polls until it is so.
///
/// # Errors
/// Those of `check`, or time is over.
fn wait_until(what: &str, patience: Duration, mut check: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + patience;
    while !check()? {
        if Instant::now() > end {
            bail!("waited {} s in vain until {what}", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Ok(())
}
