//! `ferry6-flood`: a broker under attack, and with many tunnels. All in namespaces below a PID namespace: nothing leaves the
//! machine, and nothing remains.

mod attack;
pub mod clients;
pub mod floods;
pub mod net;
pub mod scale;

use crate::pki::KeyType;
use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use ferry6::lab;
use floods::{Arena, Kind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is done if nothing else is said.
const SECONDS: f64 = 3.0;
const ROUNDS: usize = 3;
const TUNNELS: usize = 10_000;
const HANDSHAKES: usize = 500;

/// Floods a broker, or opens many tunnels to it. Needs root, or user namespaces.
#[derive(Debug, Parser)]
#[command(name = "ferry6-flood", after_help = "Example: sudo interop/flood floods init half-open --rounds 1")]
struct Cli {
    /// Both, if it is not said.
    #[command(subcommand)]
    what: Option<What>,
    /// Write all figures here.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The program under test [default: `ferry6` beside this program].
    #[arg(long, global = true, value_name = "FILE")]
    ferry6: Option<PathBuf>,
    /// Where configurations and logs are left.
    #[arg(long, global = true, default_value = "target/test-logs/flood", value_name = "DIR")]
    logs: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What each flood costs the tunnel that stands, and whether a newcomer gets in.
    Floods {
        /// Only those whose name contains this.
        filter: Vec<String>,
        /// Seconds of each transfer.
        #[arg(long, default_value_t = SECONDS)]
        seconds: f64,
        /// Transfers against the sink and against the broker, in turn.
        #[arg(long, default_value_t = ROUNDS)]
        rounds: usize,
        /// Packets a second; 0: as many as one thread can send.
        #[arg(long, default_value_t = 0)]
        rate: u64,
    },
    /// Handshakes a second, and memory for each tunnel.
    Scale {
        /// Tunnels.
        #[arg(long, default_value_t = TUNNELS)]
        tunnels: usize,
        /// Handshakes of each kind of certificate.
        #[arg(long, default_value_t = HANDSHAKES)]
        handshakes: usize,
    },
}

/// The program.
pub fn main() -> ExitCode {
    crate::exit_code(run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<bool> {
    lab::enter()?;
    let ferry6 = match &cli.ferry6 {
        Some(path) => std::path::absolute(path)?,
        None => std::env::current_exe()?.with_file_name("ferry6"),
    };
    ensure!(ferry6.is_file(), "{} is not there: build it or name it with --ferry6", ferry6.display());
    let logs = std::path::absolute(&cli.logs)?;
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let both = [
        What::Floods { filter: Vec::new(), seconds: SECONDS, rounds: ROUNDS, rate: 0 },
        What::Scale { tunnels: TUNNELS, handshakes: HANDSHAKES },
    ];
    let wanted = match &cli.what {
        Some(what) => std::slice::from_ref(what),
        None => &both[..],
    };
    let (mut all, mut well) = (serde_json::Map::new(), true);
    for what in wanted {
        let (name, (json, kept)) = match what {
            What::Floods { filter, seconds, rounds, rate } => {
                ("floods", run_floods(&ferry6, &logs, filter, *seconds, *rounds, *rate)?)
            }
            What::Scale { tunnels, handshakes } => {
                ("scale", run_scale(&ferry6, &logs, *tunnels, *handshakes)?)
            }
        };
        all.insert(name.to_owned(), json);
        well &= kept;
    }
    let json = serde_json::Value::Object(all);
    if let Some(file) = &cli.json {
        std::fs::write(file, serde_json::to_string_pretty(&json)? + "\n")
            .with_context(|| file.display().to_string())?;
    }
    Ok(well)
}

fn run_floods(
    ferry6: &Path,
    logs: &Path,
    filter: &[String],
    seconds: f64,
    rounds: usize,
    rate: u64,
) -> Result<(serde_json::Value, bool)> {
    let wanted = |kind: &Kind| filter.is_empty() || filter.iter().any(|f| kind.name().contains(f.as_str()));
    let arena = Arena::start(net::Net::build(ferry6, logs)?, seconds, rate)?;
    let mut rows = Vec::new();
    for kind in Kind::ALL.into_iter().filter(wanted) {
        let row = arena.measure(kind, rounds.max(1)).with_context(|| kind.name())?;
        print!("{}", floods::table(std::slice::from_ref(&row)));
        rows.push(row);
    }
    println!("\n{}\nlines in the broker's log: {}", floods::table(&rows), arena.log().lines().count());
    let faults = floods::faults(&rows);
    faults.iter().for_each(|fault| println!("NOT MET  {fault}"));
    Ok((serde_json::to_value(&rows)?, faults.is_empty()))
}

fn run_scale(
    ferry6: &Path,
    logs: &Path,
    tunnels: usize,
    handshakes: usize,
) -> Result<(serde_json::Value, bool)> {
    let mut rates = Vec::new();
    for (auth, key) in [("rsa-2048", KeyType::Rsa2048), ("ecdsa-p256", KeyType::Ecdsa256)] {
        if handshakes > 0 {
            rates.push(scale::rate(ferry6, logs, auth, key, handshakes)?);
            print!("{}", scale::table(&rates[rates.len() - 1..], None));
        }
    }
    let many = if tunnels > 0 { Some(scale::many(ferry6, logs, tunnels)?) } else { None };
    print!("{}", scale::table(&[], many.as_ref()));
    let well = many.as_ref().is_none_or(|many| many.kib_each_idle <= scale::GOAL_KIB);
    Ok((serde_json::json!({"rates": rates, "tunnels": many}), well))
}
