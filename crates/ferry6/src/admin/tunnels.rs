//! `ferry6 client up`, `down` and `status`: tunnels by name, in the background.

use super::{make_directory, usage};
use crate::config;
use crate::control::{ClientStatus, Request, Response, command, connect, render};
use crate::exit;
use anyhow::{Context as _, bail};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const UP_EXAMPLES: &str = "\
Examples:
  sudo ferry6 client up                             the only tunnel there is
  sudo ferry6 client up alice
  sudo ferry6 client up alice --wait 60             slow lines

Exit codes: 0 the tunnel is up, 1 it is not (yet): it goes on trying until `down`.";

const DOWN_EXAMPLES: &str = "\
Examples:
  sudo ferry6 client down alice";

const STATUS_EXAMPLES: &str = "\
Examples:
  sudo ferry6 client status
  sudo ferry6 client status alice --json";

/// How long a client may take to say good-bye and to go.
const DOWN_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
#[command(after_help = UP_EXAMPLES)]
pub struct UpArgs {
    /// The tunnel; may be left out where there is one only.
    name: Option<String>,
    /// Seconds to wait until it is up; 0 does not wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `down`.
#[derive(Debug, clap::Args)]
#[command(after_help = DOWN_EXAMPLES)]
pub struct DownArgs {
    /// The tunnel; may be left out where there is one only.
    name: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub struct StatusArgs {
    /// The tunnel; all where it is left out.
    name: Option<String>,
    /// Everything, as a JSON array with one object per running tunnel.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Directory of the tunnels.
    #[arg(long, value_name = "DIR", default_value = super::DIRECTORY)]
    dir: PathBuf,
}

/// A tunnel that was joined.
struct Tunnel {
    name: String,
    configuration: PathBuf,
    socket: PathBuf,
}

impl Tunnel {
    /// Whether somebody answers. Who may not ask does not know.
    fn is_running(&self) -> anyhow::Result<bool> {
        match UnixStream::connect(&self.socket) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Err(exit::not_permitted(format!(
                "{}: not permitted; ask as root or as the daemon's user",
                self.socket.display()
            ))),
            Err(_) => Ok(false),
        }
    }

    fn log(&self) -> PathBuf {
        self.socket.with_extension("log")
    }

    /// The client's part, and why it is not up: also while the first try still waits for an answer.
    fn status(&self) -> anyhow::Result<ClientStatus> {
        match connect::ask(&self.socket, &Request::Status)? {
            Response::Status(status) => {
                let waits = render::waits_for(&status);
                let mut client = status.client.context("not a client's answer")?;
                client.reason = client.reason.or(waits);
                Ok(client)
            }
            _ => bail!("an answer to another question"),
        }
    }
}

/// All tunnels by name.
fn tunnels(directory: &Path) -> anyhow::Result<Vec<Tunnel>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| directory.display().to_string()),
    };
    let mut list = Vec::new();
    for entry in entries {
        let home = entry.with_context(|| directory.display().to_string())?.path();
        let configuration = home.join("client.toml");
        let Some(name) = home.file_name().and_then(|n| n.to_str()).filter(|n| !n.starts_with('.')) else {
            continue;
        };
        if !configuration.is_file() {
            continue;
        }
        let socket = config::control_socket(&configuration)
            .unwrap_or_else(|| Path::new(config::RUN_DIR).join(format!("{name}.sock")));
        list.push(Tunnel { name: name.to_owned(), configuration, socket });
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

fn tunnel(directory: &Path, name: Option<&str>) -> anyhow::Result<Tunnel> {
    let mut all = tunnels(directory)?;
    let names = all.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ");
    let position = match name {
        Some(name) => all.iter().position(|t| t.name == name),
        None if all.len() > 1 => return Err(usage(format!("which tunnel? There are {names}"))),
        None => (!all.is_empty()).then_some(0),
    };
    match (position, name) {
        (Some(position), _) => Ok(all.swap_remove(position)),
        (None, _) if all.is_empty() => {
            Err(usage(format!("there is no tunnel in {}: ferry6 client join FILE", directory.display())))
        }
        (None, name) => {
            Err(usage(format!("there is no tunnel {}; there are {names}", name.unwrap_or_default())))
        }
    }
}

/// The configurations of all tunnels that were joined.
///
/// # Errors
/// The directory cannot be read.
pub fn configurations(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(tunnels(directory)?.into_iter().map(|t| t.configuration).collect())
}

/// The configuration of one of them, or of the only one.
///
/// # Errors
/// There is none of this name, or there are several.
pub fn configuration(directory: &Path, name: Option<&str>) -> anyhow::Result<PathBuf> {
    Ok(tunnel(directory, name)?.configuration)
}

/// Brings a tunnel up and leaves it in the background.
///
/// # Errors
/// No such tunnel, a fault of its configuration, or it did not come up in time.
pub fn up(args: &UpArgs) -> anyhow::Result<ExitCode> {
    let tunnel = tunnel(&args.place.dir, args.name.as_deref())?;
    let running = tunnel.is_running()?;
    if !running {
        crate::daemon::check_permission()?;
    }
    // Faults of the configuration are told here, not in a log.
    config::client(&tunnel.configuration)?;
    let mut child = None;
    if running {
        connect::ask(&tunnel.socket, &Request::Up)?;
    } else {
        child = Some(start(&tunnel)?);
    }
    let until = Instant::now() + Duration::from_secs(args.wait);
    loop {
        if let Some(child) = &mut child
            && let Some(status) = child.try_wait()?
        {
            bail!("the client ended with {status}: {}", last_words(&tunnel.log()));
        }
        let status = tunnel.status().ok();
        if let Some(status) = status.as_ref().filter(|s| s.state == "up") {
            let address = status.address.map_or_else(|| "no address".to_owned(), |a| a.to_string());
            let prefix = status.prefix.as_ref().map_or_else(String::new, |p| format!(", prefix {p}"));
            println!("{} is up: {address}, routes {}{prefix}", tunnel.name, status.routes.join(", "));
            return Ok(ExitCode::SUCCESS);
        }
        let again = format!(
            "It goes on trying (log: {}); to stop it: ferry6 client down {}",
            tunnel.log().display(),
            tunnel.name
        );
        // What was refused is not waited for: only a person can change that.
        if let Some(status) = status.as_ref().filter(|s| s.refused && s.state == "waiting") {
            let reason = status.reason.as_deref().unwrap_or("refused");
            bail!("{} is not up: {reason}. {again}", tunnel.name);
        }
        if args.wait == 0 {
            println!("{} is coming up: ferry6 client status {}", tunnel.name, tunnel.name);
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= until {
            let reason =
                status.and_then(|s| s.reason).unwrap_or_else(|| "its client does not answer".to_owned());
            bail!("{} is not up after {} s: {reason}. {again}", tunnel.name, args.wait);
        }
        std::thread::sleep(POLL);
    }
}

/// Starts the client with its log beside its socket. It outlives us and our terminal.
fn start(tunnel: &Tunnel) -> anyhow::Result<Child> {
    let log = tunnel.log();
    if let Some(directory) = log.parent() {
        make_directory(directory, 0o755)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    Command::new(std::env::current_exe().context("where is this program?")?)
        .args(["client", "--detach", "--config"])
        .arg(&tunnel.configuration)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .context("cannot start the client")
}

/// The last line of a log, for an error.
fn last_words(log: &Path) -> String {
    last_line(log).map_or_else(
        || format!("see {}", log.display()),
        |line| line.trim_start_matches("error: ").to_owned(),
    )
}

fn last_line(log: &Path) -> Option<String> {
    let text = crate::files::tail(log);
    text.lines().rev().find(|l| !l.trim().is_empty()).map(str::to_owned)
}

/// The error that a client ended with, if it did.
fn failure(log: &Path) -> Option<String> {
    Some(last_line(log)?.strip_prefix("error: ")?.to_owned())
}

/// Takes a tunnel down and ends its client.
///
/// # Errors
/// No such tunnel, or it did not go.
pub fn down(args: &DownArgs) -> anyhow::Result<ExitCode> {
    let tunnel = tunnel(&args.place.dir, args.name.as_deref())?;
    if !tunnel.is_running()? {
        // A client that was killed leaves its leak guard; another one that runs has its own.
        let mut others = false;
        for other in tunnels(&args.place.dir)? {
            others |= other.is_running()?;
        }
        if !others {
            command::open_guard()?;
        }
        println!("{} is down already", tunnel.name);
        return Ok(ExitCode::SUCCESS);
    }
    connect::ask(&tunnel.socket, &Request::Stop)?;
    let until = Instant::now() + DOWN_PATIENCE;
    while tunnel.is_running()? || tunnel.socket.exists() {
        if Instant::now() >= until {
            bail!("{} does not end: see {}", tunnel.name, tunnel.log().display());
        }
        std::thread::sleep(POLL);
    }
    println!("{} is down", tunnel.name);
    Ok(ExitCode::SUCCESS)
}

/// Shows tunnels.
///
/// # Errors
/// No such tunnel, or none answers.
pub fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let list = match &args.name {
        Some(name) => vec![tunnel(&args.place.dir, Some(name))?],
        None => tunnels(&args.place.dir)?,
    };
    if list.is_empty() {
        return Err(usage(format!(
            "there is no tunnel in {}: ferry6 client join FILE",
            args.place.dir.display()
        )));
    }
    let mut running = Vec::new();
    let mut text = String::new();
    for tunnel in &list {
        if !tunnel.is_running()? {
            // Of one that failed the log's last line says why; an orderly end is no error.
            let reason = failure(&tunnel.log()).map_or(String::new(), |e| format!(": it ended with: {e}"));
            text += &format!("{}: down{reason} (ferry6 client up {})\n", tunnel.name, tunnel.name);
            continue;
        }
        match connect::ask(&tunnel.socket, &Request::Status)? {
            Response::Status(status) => {
                text += &format!("{}:\n{}", tunnel.name, render::status(&status));
                running.push(status);
            }
            _ => bail!("{}: an answer to another question", tunnel.socket.display()),
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&running)?);
    } else {
        print!("{text}");
    }
    Ok(if running.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
