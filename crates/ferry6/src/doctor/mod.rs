//! `ferry6 doctor`: finds why it does not work.
//!
//! Each check looks at one thing and says what it saw and what to do. None changes anything, and each has its time: a check that
//! cannot look says why, and the others go on.

mod address;
mod certificate;
mod check;
mod clock;
mod daemon;
mod dns;
mod forwarding;
mod kernel;
mod lan;
mod name;
mod patient;
mod ports;
mod probe;
mod processes;
mod reach;
mod return_route;
mod routes;
mod settings;
mod sizes;
mod through;
mod vpn;

pub use check::{Check, Outcome, Report};

use crate::admin;
use crate::cli::UsageError;
use check::Findings;
use patient::Patient;
use std::io::Write as _;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  sudo ferry6 doctor                                all tunnels and the broker that this machine has
  sudo ferry6 doctor client alice
  sudo ferry6 doctor broker --config broker.toml
  ferry6 doctor client --only name --only udp-4500
  ferry6 doctor client --json | jq '.[].checks[] | select(.result == \"fail\")'

Exit codes: 0 nothing failed, 1 something did, 2 wrong usage. docs/troubleshooting.md goes by symptom.";

/// Which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// A client.
    Client,
    /// The broker.
    Broker,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Broker => "broker",
        }
    }
}

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which side to look at; both where it is left out.
    role: Option<Role>,
    /// A tunnel that was joined, by its name.
    #[arg(conflicts_with = "config")]
    name: Option<String>,
    /// The configuration, instead of those in /etc/ferry6.
    #[arg(long, short, value_name = "FILE", requires = "role")]
    config: Option<PathBuf>,
    /// Directory of the tunnels that were joined and of the broker.
    #[arg(long, value_name = "DIR", default_value = admin::DIRECTORY, conflicts_with = "config")]
    dir: PathBuf,
    /// The findings as a JSON array with one object per configuration.
    #[arg(long)]
    json: bool,
    /// Only this check; may be given several times.
    #[arg(long, value_name = "CHECK", value_parser = known_check)]
    only: Vec<String>,
    /// An IPv6 address to ping through the tunnel; the DNS servers that the broker tells, or else a public one, where it is left out.
    #[arg(long, value_name = "ADDRESS")]
    ping: Option<Ipv6Addr>,
    /// A name that has an IPv6 address, to look up while the tunnel is up.
    #[arg(long, value_name = "NAME", default_value = "one.one.one.one")]
    lookup: String,
}

/// What the checks are told beside the configuration.
#[derive(Clone, Debug)]
struct Wishes {
    ping: Option<Ipv6Addr>,
    lookup: String,
}

/// For which side a check is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Both,
    Client,
    Broker,
}

type Run = fn(&Patient, &mut Findings);

/// All checks, in the order in which one thing needs another.
const CHECKS: &[(&str, For, Run)] = &[
    ("config", For::Both, daemon::config),
    ("tun", For::Both, kernel::tun),
    ("rights", For::Both, kernel::rights),
    ("sandbox", For::Both, kernel::sandbox),
    ("ipv6", For::Both, kernel::ipv6),
    ("clock", For::Both, clock::check),
    ("certificate", For::Both, certificate::own),
    ("trust", For::Both, certificate::trust),
    ("daemon", For::Both, daemon::daemon),
    ("ports", For::Both, ports::check),
    ("vpn", For::Both, vpn::check),
    ("name", For::Client, name::check),
    ("broker-route", For::Client, routes::to_broker),
    ("udp-500", For::Client, reach::port_500),
    ("udp-4500", For::Client, reach::port_4500),
    ("proposals", For::Client, reach::proposals),
    ("nat", For::Client, reach::nat),
    ("fragments", For::Client, sizes::fragments),
    ("path-mtu", For::Client, sizes::mtu),
    ("forwarding", For::Broker, forwarding::forwarding),
    ("rp-filter", For::Broker, forwarding::rp_filter),
    ("firewall", For::Broker, forwarding::firewall),
    ("uplink", For::Broker, forwarding::uplink),
    ("pool-route", For::Broker, routes::of_pool),
    ("return-route", For::Broker, return_route::check),
    ("answers", For::Broker, reach::of_broker),
    ("client-nat", For::Broker, reach::nat_of_clients),
    ("address", For::Client, address::check),
    ("routes", For::Client, routes::of_client),
    ("leak-guard", For::Client, routes::leak_guard),
    ("lan", For::Client, lan::check),
    ("traffic", For::Both, daemon::traffic),
    ("inside", For::Client, through::check),
    ("dns", For::Client, dns::check),
];

fn known_check(text: &str) -> Result<String, String> {
    let mut names = CHECKS.iter().map(|(name, ..)| *name);
    if names.clone().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    let all = names.clone().collect::<Vec<_>>().join(", ");
    Err(match names.find(|name| strsim::jaro_winkler(name, text) > 0.85) {
        Some(near) => format!("there is no such check; do you mean {near}?"),
        None => format!("there is no such check; there are {all}"),
    })
}

/// Looks at everything, and prints what it found.
///
/// # Errors
/// There is nothing to look at.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let wishes = Wishes { ping: args.ping, lookup: args.lookup.clone() };
    let mut reports = Vec::new();
    for (role, path) in targets(args)? {
        let patient = Patient::new(role, path, wishes.clone())?;
        reports.push(examine(&patient, &args.only));
    }
    let text = if args.json {
        serde_json::to_string_pretty(&reports)? + "\n"
    } else {
        reports.iter().map(Report::text).collect::<Vec<_>>().join("\n")
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(if reports.iter().all(Report::is_well) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(patient: &Patient, only: &[String]) -> Report {
    let side = match patient.role {
        Role::Client => For::Client,
        Role::Broker => For::Broker,
    };
    let mut checks = Vec::new();
    for (name, whose, run) in CHECKS {
        let wanted = only.is_empty() || only.iter().any(|o| o == name);
        if !wanted || (*whose != For::Both && *whose != side) {
            continue;
        }
        let mut findings = Findings::of(name);
        run(patient, &mut findings);
        if findings.is_empty() {
            findings.ok("nothing wrong");
        }
        checks.extend(findings.into_list());
    }
    Report { role: patient.role.word(), config: patient.path.clone(), checks }
}

/// The configurations to look at.
fn targets(args: &Args) -> anyhow::Result<Vec<(Role, PathBuf)>> {
    if let (Some(role), Some(path)) = (args.role, &args.config) {
        return Ok(vec![(role, path.clone())]);
    }
    let directory = args.dir.as_path();
    let mut list = Vec::new();
    if args.role != Some(Role::Broker) {
        if let Some(name) = &args.name {
            let path = admin::tunnels::configuration(directory, Some(name))?;
            return Ok(vec![(Role::Client, path)]);
        }
        let plain = directory.join("client.toml");
        list.extend(plain.exists().then_some((Role::Client, plain)));
        list.extend(admin::tunnels::configurations(directory)?.into_iter().map(|path| (Role::Client, path)));
    } else if args.name.is_some() {
        return Err(
            UsageError("a name is a client's tunnel; a broker is named by --config FILE".into()).into()
        );
    }
    if args.role != Some(Role::Client) {
        let path = directory.join("broker.toml");
        list.extend(path.exists().then_some((Role::Broker, path)));
    }
    if list.is_empty() {
        return Err(UsageError(format!(
            "there is no {} in {}; name its configuration: ferry6 doctor {} --config FILE",
            args.role.map_or("tunnel and no broker", Role::word),
            directory.display(),
            args.role.unwrap_or(Role::Client).word()
        ))
        .into());
    }
    Ok(list)
}
