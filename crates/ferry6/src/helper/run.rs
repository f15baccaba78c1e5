//! The helper's process.

use super::dns::{Call, Mode, Tool};
use super::{DNS_LIMIT, Event, Given, LINE_LIMIT, PATIENCE, Reason};
use anyhow::Context as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Ipv6Addr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

/// Arguments; everything that this process may do stands in them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The tunnel device.
    #[arg(long)]
    interface: String,
    /// How DNS servers are set.
    #[arg(long)]
    dns: Mode,
    /// The hook for a tunnel that is up.
    #[arg(long)]
    up: Option<PathBuf>,
    /// The hook for one that is down.
    #[arg(long)]
    down: Option<PathBuf>,
    /// The broker's identity.
    #[arg(long)]
    peer: String,
    /// Where to note what was set.
    #[arg(long)]
    record: PathBuf,
}

/// Does what it is told on stdin until that ends.
///
/// # Errors
/// No runtime, or stdin that is no such socket.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let deaf = Deaf::new()?;
    let mut worker = Worker { tool: args.dns.find().unwrap_or(None), args, up: None };
    worker.take_left_over();
    let mut input = BufReader::new(std::io::stdin().lock());
    loop {
        let mut line = Vec::new();
        (&mut input).take(LINE_LIMIT).read_until(b'\n', &mut line).context("the client's messages")?;
        if line.last() != Some(&b'\n') {
            break;
        }
        match serde_json::from_slice::<Event>(&line) {
            Ok(event) => worker.take(event),
            // Whoever says something else is not our client any more.
            Err(error) => {
                tracing::error!("the client said what it never says: {error}");
                break;
            }
        }
    }
    worker.take(Event::Down { reason: Reason::Killed });
    drop(deaf);
    Ok(ExitCode::SUCCESS)
}

/// As long as this is there, the signals that end a daemon do nothing to its helper, which ends after it. They are taken, not
/// ignored: that would go on in the hooks.
pub(super) struct Deaf {
    _signals: [std::io::Result<Signals>; 3],
    _runtime: Runtime,
}

impl Deaf {
    pub(super) fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = runtime.block_on(async {
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
        });
        Ok(Self { _signals: signals, _runtime: runtime })
    }
}

struct Worker {
    args: Args,
    tool: Option<Tool>,
    /// What is set now.
    up: Option<Given>,
}

impl Worker {
    fn take(&mut self, event: Event) {
        match event {
            Event::Up { mut given, reason } => {
                given.dns.truncate(DNS_LIMIT);
                self.set_dns(&given.dns);
                self.up = Some(given);
                self.hook("up", self.args.up.clone(), reason);
            }
            Event::Down { reason } => {
                // Said twice, or before anything was up.
                if self.up.is_none() {
                    return;
                }
                self.hook("down", self.args.down.clone(), reason);
                self.set_dns(&[]);
                self.up = None;
            }
        }
    }

    /// These servers in place of those that are set.
    fn set_dns(&self, dns: &[Ipv6Addr]) {
        let before = self.up.as_ref().map_or(&[][..], |given| &given.dns);
        let Some(tool) = self.tool.filter(|_| before != dns) else { return };
        let interface = &self.args.interface;
        if dns.is_empty() {
            if calls(tool.revert(interface)) {
                let _ = std::fs::remove_file(&self.args.record);
            }
            return;
        }
        // Before it is done: what was never set does no harm to be taken away.
        if let Err(error) = std::fs::write(&self.args.record, format!("{} {interface}\n", tool.word())) {
            tracing::warn!("{}: {error}", self.args.record.display());
        }
        if calls(tool.set(interface, dns)) {
            let list: Vec<String> = dns.iter().map(ToString::to_string).collect();
            tracing::info!("DNS servers of the broker: {}, through {}", list.join(", "), tool.word());
        }
    }

    /// What a helper before this one had set, which was killed together with its client.
    fn take_left_over(&self) {
        let Ok(text) = std::fs::read_to_string(&self.args.record) else { return };
        if let Some((tool, interface)) =
            text.trim().split_once(' ').and_then(|(t, i)| Some((Tool::of_word(t)?, i)))
        {
            tracing::info!("DNS servers of a client that was killed are taken back");
            // resolved has forgotten them with the device.
            if tool == Tool::Resolvconf {
                calls(tool.revert(interface));
            }
        }
        let _ = std::fs::remove_file(&self.args.record);
    }

    fn hook(&self, event: &str, hook: Option<PathBuf>, reason: Reason) {
        let Some(hook) = hook else { return };
        let Given { address, prefix, dns } = self.up.clone().unwrap_or_default();
        let environment = [
            ("FERRY6_INTERFACE", self.args.interface.clone()),
            ("FERRY6_ADDRESS", address.map(|a| a.to_string()).unwrap_or_default()),
            ("FERRY6_PREFIX", prefix.map(|(first, len)| format!("{first}/{len}")).unwrap_or_default()),
            ("FERRY6_DNS", dns.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
            ("FERRY6_PEER", self.args.peer.clone()),
            ("FERRY6_REASON", reason.word().to_owned()),
        ];
        match run_hook(&hook, event, &environment, PATIENCE) {
            Ok(()) => tracing::info!("hook {event}: {} is done", hook.display()),
            Err(text) => tracing::warn!("hook {event}: {text}"),
        }
    }
}

/// Runs a hook with this environment, and nothing else but `PATH`. What it prints goes to the log.
pub(super) fn run_hook(
    hook: &Path,
    event: &str,
    environment: &[(&str, String)],
    patience: Duration,
) -> Result<(), String> {
    check_hook(hook).map_err(|text| format!("{text}; it was not run"))?;
    let mut command = Command::new(hook);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("FERRY6_EVENT", event).envs(environment.iter().map(|(name, value)| (name, value)));
    match finish(command.stdin(Stdio::null()), "", patience) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} failed: {status}", hook.display())),
        Err(error) => Err(format!("{}: {error}", hook.display())),
    }
}

/// Whether a hook may be run with the rights of this process: nobody else may have written it, or may replace it.
///
/// # Errors
/// What is wrong with it, and the command that cures it.
pub fn check_hook(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|e| format!("{shown}: {e}"))?;
    if !meta.is_file() {
        return Err(format!("{shown} is no file"));
    }
    if meta.mode() & 0o100 == 0 {
        return Err(format!("{shown} can't be run; do: chmod u+x {shown}"));
    }
    let own = nix::unistd::geteuid().as_raw();
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = std::fs::metadata(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
    for (what, meta) in [(path, meta), (parent, directory)] {
        let shown = what.display();
        if ![0, own].contains(&meta.uid()) {
            return Err(format!(
                "{shown} belongs to user {}: who owns it could have it do anything with our rights; do: chown root {shown}",
                meta.uid()
            ));
        }
        // In a directory like /tmp (sticky) only its owner can replace a file.
        if meta.mode() & 0o022 != 0 && !(meta.is_dir() && meta.mode() & 0o1000 != 0) {
            return Err(format!(
                "{shown} may be written by others (mode {:04o}); do: chmod go-w {shown}",
                meta.mode() & 0o7777
            ));
        }
    }
    Ok(())
}

/// Runs them all; whether all went well.
fn calls(list: Vec<Call>) -> bool {
    let mut well = true;
    for call in list {
        let shown = format!("{} {}", call.program, call.arguments.join(" "));
        let mut command = Command::new(call.program);
        command.args(&call.arguments).stdin(Stdio::piped());
        match finish(&mut command, &call.input, PATIENCE) {
            Ok(status) if status.success() => tracing::debug!("{shown}: done"),
            Ok(status) => {
                tracing::warn!("DNS: {shown}: {status}");
                well = false;
            }
            Err(error) => {
                tracing::warn!("DNS: {shown}: {error}");
                well = false;
            }
        }
    }
    well
}

/// Runs a program to its end, or to the end of our patience: then it is killed, and all that it started.
fn finish(command: &mut Command, input: &str, patience: Duration) -> std::io::Result<ExitStatus> {
    let mut child = command.stdout(std::io::stderr()).process_group(0).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Short enough for the pipe. A program that does not read it is no fault of ours.
        let _ = stdin.write_all(input.as_bytes());
    }
    let until = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= until {
            let group = i32::try_from(child.id()).map(Pid::from_raw);
            if let Ok(group) = group {
                let _ = killpg(group, Signal::SIGKILL);
            }
            let _ = child.wait();
            return Err(std::io::Error::other(format!("killed after {} s", patience.as_secs())));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
