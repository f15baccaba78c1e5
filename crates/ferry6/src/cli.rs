//! The command line.

use crate::config::reference;
use crate::{
    broker, client, control, demo, doctor, exit, helper, import, logging, manual, monitor, pki, reload, web,
};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  ferry6 demo                                       see it work in network namespaces of its own
  ferry6 broker --config broker.toml --check        is the configuration right?
  ferry6 broker --config broker.toml                run a broker in the foreground
  ferry6 client --config client.toml                run a client in the foreground
  ferry6 import /etc/iked.conf                      what it would be as broker.toml
  ferry6 status                                     flows and SAs of the running daemons
  ferry6 monitor                                    the same, live
  ferry6 doctor                                     why does it not work?

Exit codes: 0 done, 1 failed at run time, 2 wrong usage or configuration, 3 no daemon is running, 4 not permitted,
5 another one is there already.";

/// IPv6 across an IPv4-only network in a standard IPsec tunnel (IKEv2, ESP in UDP), wholly in userspace.
#[derive(Debug, Parser)]
#[command(name = "ferry6", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What goes to the log on stderr: error, warn, info, debug, trace, or a filter like `info,ferry6_ike=debug`. A daemon's
    /// configuration may say it too (`log`); without either it is info.
    #[arg(long, global = true, env = "FERRY6_LOG", value_name = "FILTER")]
    pub log: Option<logging::Filter>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands; each has a module with its arguments and a `run`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker: answers clients, leases them IPv6 addresses, routes for them.
    Broker(broker::Args),
    /// Run the client: brings the tunnel up, sets address and default IPv6 route, keeps it up.
    Client(client::Args),
    /// Show flows, SAs, counters and leases of the running daemons.
    Status(control::status::Args),
    /// Watch the running daemons in the terminal: tunnels, rates, round trips, drops, SAs, log.
    Monitor(monitor::Args),
    /// Serve a status page, metrics for Prometheus and a health check, on this machine only.
    Web(web::Args),
    /// Rekey Child SAs or IKE SAs now.
    Rekey(control::command::RekeyArgs),
    /// Bring the client's connection up (again), without waiting for the next try.
    #[command(visible_alias = "initiate")]
    Up(control::command::UpArgs),
    /// Close IKE SAs: sends DELETE; a client stays down until `up`.
    #[command(visible_alias = "terminate")]
    Down(control::command::DownArgs),
    /// Have a running daemon read its configuration anew, without dropping a tunnel.
    Reload(reload::Args),
    /// Make a CA and certificates, and look at them.
    Pki(pki::Args),
    /// Turn the configuration of strongSwan or OpenIKED into one of ferry6.
    Import(import::Args),
    /// Explain the keys of the configuration files.
    Config(reference::Args),
    /// Find why it does not work: each check with its result and what to do.
    Doctor(doctor::Args),
    /// Write the man pages.
    #[command(hide = true)]
    Man(manual::ManArgs),
    /// Print completions for a shell.
    #[command(hide = true)]
    Completions(manual::CompletionArgs),
    /// What a client starts for work that needs root's rights; not for people.
    #[command(hide = true)]
    Helper(helper::Args),
    /// The same for a broker.
    #[command(hide = true)]
    BrokerHelper(helper::clients::Args),
    /// Show a tunnel between two ferry6 processes in network namespaces made for it.
    Demo(demo::Args),
}

/// A fault of usage or configuration, for exit code 2; [`exit`] has the others.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Reads the command line, runs the command, prints its error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::init(cli.log.as_ref());
    let result = match cli.command {
        Command::Broker(args) => broker::run(args),
        Command::Client(args) => client::run(args),
        Command::Status(args) => control::status::run(args),
        Command::Monitor(args) => monitor::run(args),
        Command::Web(args) => web::run(args),
        Command::Rekey(args) => control::command::rekey(args),
        Command::Up(args) => control::command::up(args),
        Command::Down(args) => control::command::down(args),
        Command::Reload(args) => reload::run(&args),
        Command::Pki(args) => pki::run(args),
        Command::Import(args) => import::run(args),
        Command::Config(args) => reference::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Man(args) => manual::man(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Helper(args) => helper::run(args),
        Command::BrokerHelper(args) => helper::clients::run(args),
        Command::Demo(args) => demo::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(exit::code(&error) as u8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
