//! `ferry6-flood`: a broker under attack, and with many tunnels. All in namespaces below a PID namespace: nothing leaves the
//! machine, and nothing remains.

mod attack;
mod clients;
pub mod floods;
pub mod net;
mod scale;

use crate::pki::KeyType;
use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use ferry6::lab;
use floods::{Arena, Kind};
use std::path::PathBuf;
use std::process::ExitCode;

/// Floods a broker, or opens many tunnels to it. Needs root, or user namespaces.
#[derive(Debug, Parser)]
#[command(name = "ferry6-flood")]
struct Cli {
    #[command(subcommand)]
    what: What,
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
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Transfers against the sink and against the broker, in turn.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Packets a second; 0: as many as one thread can send.
        #[arg(long, default_value_t = 0)]
        rate: u64,
    },
    /// Handshakes a second, and memory for each tunnel.
    Scale {
        /// Tunnels.
        #[arg(long, default_value_t = 10_000)]
        tunnels: usize,
        /// Handshakes of each kind of certificate.
        #[arg(long, default_value_t = 500)]
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
    let (json, well) = match &cli.what {
        What::Floods { filter, seconds, rounds, rate } => {
            let wanted =
                |kind: &Kind| filter.is_empty() || filter.iter().any(|f| kind.name().contains(f.as_str()));
            let arena = Arena::start(net::Net::build(&ferry6, &logs)?, *seconds, *rate)?;
            let mut rows = Vec::new();
            for kind in Kind::ALL.into_iter().filter(wanted) {
                let row = arena.measure(kind, (*rounds).max(1)).with_context(|| kind.name())?;
                print!("{}", floods::table(std::slice::from_ref(&row)));
                rows.push(row);
            }
            println!(
                "\n{}\nlines in the broker's log: {}",
                floods::table(&rows),
                arena.log().lines().count()
            );
            let faults = floods::faults(&rows);
            faults.iter().for_each(|fault| println!("NOT MET  {fault}"));
            (serde_json::to_value(&rows)?, faults.is_empty())
        }
        What::Scale { tunnels, handshakes } => {
            let mut rates = Vec::new();
            for (auth, key) in [("rsa-2048", KeyType::Rsa2048), ("ecdsa-p256", KeyType::Ecdsa256)] {
                if *handshakes > 0 {
                    rates.push(scale::rate(&ferry6, &logs, auth, key, *handshakes)?);
                    print!("{}", scale::table(&rates[rates.len() - 1..], None));
                }
            }
            let many = if *tunnels > 0 { Some(scale::many(&ferry6, &logs, *tunnels)?) } else { None };
            print!("{}", scale::table(&[], many.as_ref()));
            let well = many.as_ref().is_none_or(|many| many.kib_each_idle <= scale::GOAL_KIB);
            (serde_json::json!({"rates": rates, "tunnels": many}), well)
        }
    };
    if let Some(file) = &cli.json {
        std::fs::write(file, serde_json::to_string_pretty(&json)? + "\n")
            .with_context(|| file.display().to_string())?;
    }
    Ok(well)
}
