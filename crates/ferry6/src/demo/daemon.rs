//! The broker's and the client's process.

use super::Interrupt;
use crate::control::connect;
use crate::control::{Request, Response, Status};
use crate::lab::Host;
use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take for its clean stop.
const STOP: Duration = Duration::from_secs(10);
/// Lines of a log that tell why.
const TAIL: usize = 15;

pub(super) struct Daemon {
    role: &'static str,
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    pub(super) started: Instant,
}

impl Daemon {
    /// Starts `ferry6 broker` or `ferry6 client` in a host. Its files are `role.toml`, `role.sock` and `role.log` in `directory`.
    pub(super) fn start(
        role: &'static str,
        host: &Host,
        directory: &Path,
        configuration: &str,
    ) -> anyhow::Result<Daemon> {
        let file = |ending: &str| directory.join(format!("{role}.{ending}"));
        std::fs::write(file("toml"), configuration).with_context(|| format!("cannot write {role}.toml"))?;
        let log = File::create(file("log")).with_context(|| format!("cannot write {role}.log"))?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = host.command(&program);
        command.arg(role).arg("--config").arg(file("toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Daemon { role, child, socket: file("sock"), log: file("log"), started })
    }

    /// Its status.
    pub(super) fn status(&self) -> anyhow::Result<Status> {
        match connect::ask(&self.socket, &Request::Status)? {
            Response::Status(status) => Ok(*status),
            other => bail!("the {} answered {other:?}", self.role),
        }
    }

    /// Waits until the status is as wanted.
    pub(super) fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        interrupt: &Interrupt,
        ready: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        let deadline = Instant::now() + patience;
        loop {
            interrupt.check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("the {} ended by itself ({status}){}", self.role, self.tail());
            }
            let status = self.status();
            match status {
                Ok(status) if ready(&status) => return Ok(status),
                _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Ok(status) => {
                    let reason =
                        status.client.and_then(|c| c.reason).map_or(String::new(), |r| format!(" ({r})"));
                    let seconds = patience.as_secs();
                    bail!("the {} was not {what} within {seconds} s{reason}{}", self.role, self.tail())
                }
                Err(e) => bail!("the {} does not answer: {e:#}{}", self.role, self.tail()),
            }
        }
    }

    /// Stops it as an operator would, and waits.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        let gone = |status: ExitStatus, tail: String| match status.success() {
            true => Ok(()),
            false => bail!("the {} ended with {status}{tail}", self.role),
        };
        let deadline = Instant::now() + STOP;
        if self.child.try_wait()?.is_none() {
            kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        }
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return gone(status, self.tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the {} did not stop within {} s{}", self.role, STOP.as_secs(), self.tail())
    }

    /// Lines of the log that tell of an error: there must be none.
    pub(super) fn errors(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let bad = |line: &&str| line.contains(" ERROR ") || line.contains("panicked at");
        log.lines().filter(bad).map(str::to_owned).collect()
    }

    /// Whether it still runs, what it dropped, and the end of its log: a part of an error.
    pub(super) fn last_words(&mut self) -> String {
        let state = match (self.child.try_wait(), self.status()) {
            (Ok(Some(status)), _) => format!("\n  the {} has ended ({status})", self.role),
            (_, Ok(status)) => drops(self.role, &status),
            _ => String::new(),
        };
        state + &self.tail()
    }

    fn tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        match lines.len() {
            0 => format!("\n  the {}'s log is empty", self.role),
            n => format!(
                "\n  the end of the {}'s log:\n    {}",
                self.role,
                lines[n.saturating_sub(TAIL)..].join("\n    ")
            ),
        }
    }
}

/// All that was dropped, of SAs and otherwise, in a line.
fn drops(role: &str, status: &Status) -> String {
    let children = status.router.ike_sas.iter().flat_map(|sa| &sa.children);
    let all = children.map(|child| &child.drops).chain([&status.router.drops]).flatten();
    let all: Vec<String> = all.filter(|(_, n)| **n > 0).map(|(reason, n)| format!("{reason} {n}")).collect();
    if all.is_empty() { String::new() } else { format!("\n  the {role} dropped packets: {}", all.join(", ")) }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After `stop` there is nothing to kill; what fails here has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
