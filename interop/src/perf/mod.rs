//! `ferry6-perf`: ferry6 and its peers, end to end, in one run.
//!
//! Each subject has namespaces of its own for client, broker and server. All stand at the same time; then they are measured
//! in turn, round by round, so that a machine whose speed drifts is equally unfair to all of them. The namespaces and all
//! processes go with this process, however it ends.

mod measure;
mod net;
mod peers;
mod plot;
mod rekey;
mod report;
mod subject;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use ferry6::lab;
use measure::{Idle, Iperf, Sample};
use nix::sys::signal::{SigSet, Signal};
use report::Row;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use subject::{ALL, Kind, Programs, Standing, Subject};

/// Measures ferry6 and its peers through tunnels between network namespaces. Needs root, or user namespaces.
#[derive(Clone, Debug, Parser)]
#[command(name = "ferry6-perf")]
struct Cli {
    /// Rounds; the tables show medians over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds of each transfer; a subject's round has seven.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Only these subjects, by name, with commas between [default: none, ferry6 and all peers].
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", conflicts_with = "all")]
    only: Vec<String>,
    /// The default, but with these peers alone.
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", conflicts_with_all = ["all", "only"])]
    peers: Vec<String>,
    /// All subjects: each suite, IPComp, ferry6 without offload and with tun-tap, too.
    #[arg(long)]
    all: bool,
    /// List the subjects and end.
    #[arg(long)]
    list: bool,
    /// Without the measurement of rekeys under load.
    #[arg(long)]
    no_rekey: bool,
    /// Write all figures here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw a plot here.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Folders to look for the peers' programs in, before PATH.
    #[arg(long, value_name = "DIR")]
    bin_dir: Vec<PathBuf>,
    /// The program under test [default: `ferry6` beside this program].
    #[arg(long, value_name = "FILE")]
    ferry6: Option<PathBuf>,
    /// Where configurations and logs are left.
    #[arg(long, default_value = "target/test-logs/perf", value_name = "DIR")]
    logs: PathBuf,
    /// Start this one subject, tell how to enter its hosts, and stay until SIGINT.
    #[arg(long, value_name = "NAME")]
    hold: Option<String>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (1.0..=60.0).contains(&value) => Ok(value),
        _ => Err("expected seconds from 1 to 60".into()),
    }
}

/// The program.
pub fn main() -> ExitCode {
    crate::exit_code(run(&Cli::parse()))
}

fn find_subject(name: &str) -> Result<Subject> {
    let names = || ALL.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
    ALL.iter()
        .find(|s| s.name == name)
        .copied()
        .with_context(|| format!("there is no subject {name:?}; there are: {}", names()))
}

/// What is to be measured.
fn chosen(cli: &Cli) -> Result<Vec<Subject>> {
    if !cli.only.is_empty() {
        return cli.only.iter().map(|name| find_subject(name)).collect();
    }
    for name in &cli.peers {
        let peer = find_subject(name)?;
        ensure!(!matches!(peer.kind, Kind::None | Kind::Ferry6 { .. }), "{name} is no peer");
    }
    let wanted = |s: &&Subject| match s.kind {
        Kind::None | Kind::Ferry6 { .. } => cli.all || s.main,
        _ => cli.peers.is_empty() || cli.peers.iter().any(|name| name == s.name),
    };
    Ok(ALL.iter().filter(wanted).copied().collect())
}

fn run(cli: &Cli) -> Result<bool> {
    if cli.list {
        for subject in ALL {
            println!("{:<22} {:?}", subject.name, subject.kind);
        }
        return Ok(true);
    }
    let mut subjects = chosen(cli)?;
    let held = cli.hold.as_deref().map(find_subject).transpose()?;
    // PID 1 of a PID namespace: whatever is started here ends with it.
    lab::enter()?;
    end_on_signals()?;
    let programs = Programs {
        ferry6: match &cli.ferry6 {
            Some(path) => std::path::absolute(path)?,
            None => std::env::current_exe()?.with_file_name("ferry6"),
        },
        folders: cli.bin_dir.iter().map(std::path::absolute).collect::<Result<_, _>>()?,
    };
    ensure!(
        programs.ferry6.is_file(),
        "{} is not there: build it (cargo build --release -p ferry6) or name it with --ferry6",
        programs.ferry6.display()
    );
    let logs = std::path::absolute(&cli.logs)?;
    fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    if let Some(subject) = held {
        return hold(subject, &programs, &logs);
    }
    ensure!(programs.find("iperf3").is_some(), "iperf3 is not installed (Debian: iperf3)");

    let machine = machine();
    println!("{machine}\nferry6: {}", programs.ferry6.display());
    let mut well = true;
    let mut missing = Vec::new();
    subjects.retain(|subject| match subject.missing(&programs) {
        Some(why) => {
            println!("!!! MISSING: {} is not measured: {why}", subject.name);
            missing.push(subject.name);
            false
        }
        None => true,
    });
    // One that was asked for by name has to be there.
    well &= missing.is_empty() || (cli.only.is_empty() && cli.peers.is_empty());

    let mut standing = Vec::new();
    for subject in subjects {
        match Standing::start(subject, &programs, &logs) {
            Ok(up) => standing.push(up),
            Err(error) => {
                println!("!!! FAILED: {} does not come up: {error:#}", subject.name);
                well = false;
            }
        }
    }
    if standing.is_empty() {
        bail!("nothing is left to measure");
    }
    let mut rows: Vec<Row> =
        standing.iter().map(|s| Row { subject: s.subject, samples: Vec::new() }).collect();
    let mut idle: Vec<_> = standing.iter().map(|up| Idle::begin(up).ok()).collect();
    let begin = Instant::now();
    for round in 0..usize::from(cli.rounds) {
        for step in 0..standing.len() {
            // Each round begins with another one.
            let index = (round + step) % standing.len();
            let up = &standing[index];
            let idled = idle[index].as_ref().and_then(|idle| idle.end(up).ok().flatten());
            // Now and then iperf3's server ends over a connection that was reset: a turn gets a server of its own, and a second try.
            let turn = || {
                let _server = Iperf::server(&up.net.server, net::SERVER)?;
                measure::sample(up, cli.seconds)
            };
            let sample = turn().or_else(|error| {
                println!("    {}: once more, for {error:#}", up.subject.name);
                turn()
            });
            let sample = sample.map(|sample| Sample { idle: idled, ..sample });
            idle[index] = Idle::begin(up).ok();
            let name = up.subject.name;
            match &sample {
                Ok(s) => println!(
                    "round {} of {}, {:>4} s  {name:<22} TCP {:.2} {:.2} {:.2} {:.2} Gbit/s, UDP {:.0} {:.0} kpps, ping {:.0} µs",
                    round + 1,
                    cli.rounds,
                    begin.elapsed().as_secs(),
                    s.tcp[0],
                    s.tcp[1],
                    s.tcp[2],
                    s.tcp[3],
                    s.udp[0],
                    s.udp[1],
                    s.ping[0]
                ),
                Err(error) => {
                    println!("!!! FAILED: round {}, {name}: {error:#}", round + 1);
                    well = false;
                }
            }
            rows[index].samples.push(sample.ok());
        }
    }
    let rekeyed = match standing.iter().find(|s| matches!(s.subject.kind, Kind::Ferry6 { .. })) {
        Some(up) if !cli.no_rekey => {
            let _server = Iperf::server(&up.net.server, net::SERVER)?;
            let outcome = rekey::run(up, (3.0 * cli.seconds).max(4.0))?;
            ensure!(outcome.rekeys > 0 && outcome.counted.sent > 0, "no rekey, or no packet, was seen");
            Some(outcome)
        }
        _ => None,
    };
    let goals = report::goals(&rows);
    println!("\nmedians over {} rounds of {} s\n{}", cli.rounds, cli.seconds, report::table(&rows));
    if !goals.is_empty() {
        println!("{}", report::goals_table(&goals));
    }
    if let Some(outcome) = &rekeyed {
        println!("{}", report::rekey_line(outcome));
    }
    if !missing.is_empty() {
        println!("!!! MISSING: {}", missing.join(", "));
    }
    if let Some(path) = &cli.json {
        let json = report::json(&machine, cli.seconds, &rows, &goals, rekeyed.as_ref());
        fs::write(path, serde_json::to_string_pretty(&json)? + "\n")
            .with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &cli.svg {
        fs::write(path, plot::svg(&rows)).with_context(|| path.display().to_string())?;
    }
    Ok(well)
}

/// SIGINT and SIGTERM end this process, and with it, as it is PID 1 of its namespace, everything. Before there are threads.
fn end_on_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        signals.add(signal);
    }
    signals.thread_block()?;
    std::thread::spawn(move || {
        let signal = signals.wait();
        eprintln!("ended by {signal:?}");
        std::process::exit(130);
    });
    Ok(())
}

fn hold(subject: Subject, programs: &Programs, logs: &std::path::Path) -> Result<bool> {
    if let Some(why) = subject.missing(programs) {
        bail!(why);
    }
    let up = Standing::start(subject, programs, logs)?;
    println!("{} stands; its server is {}; enter its hosts with:", subject.name, net::SERVER);
    for host in [&up.net.client, &up.net.broker, &up.net.server] {
        println!("  {:<8} {}", host.name(), host.enter_command());
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Processor, cores and kernel, for the report.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("machine: {model}, {cores} cores, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}
