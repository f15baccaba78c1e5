//! ferry6 as a process: its configuration, its log, its control commands.

use crate::{run, wait_until, write_private};
use anyhow::{Context, Result, bail, ensure};
use ferry6::lab::Host;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

/// `broker` or `client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Broker,
    Client,
}

impl Mode {
    /// The subcommand.
    pub fn word(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Client => "client",
        }
    }
}

/// A ferry6 process.
pub struct Ferry {
    binary: PathBuf,
    process: Option<Child>,
    host: Host,
    mode: Mode,
    dir: PathBuf,
    arguments: Vec<OsString>,
}

impl Ferry {
    /// Starts ferry6 on a host with this configuration; with these further arguments; its files and log are in
    /// `dir`. Returns when its control socket
    /// answers.
    pub fn start(
        binary: &Path,
        host: &Host,
        mode: Mode,
        dir: &Path,
        toml: &str,
        arguments: &[OsString],
    ) -> Result<Self> {
        write_private(&dir.join("ferry6.toml"), toml)?;
        let mut this = Self {
            binary: binary.into(),
            process: None,
            host: host.clone(),
            mode,
            dir: dir.into(),
            arguments: arguments.into(),
        };
        this.restart()?;
        Ok(this)
    }

    /// Starts it (again) with the same configuration.
    pub fn restart(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let process = self
            .host
            .command(&self.binary)
            .args([self.mode.word(), "--config"])
            .arg(self.dir.join("ferry6.toml"))
            .args(&self.arguments)
            .env("FERRY6_LOG", "info")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start ferry6")?;
        self.process = Some(process);
        wait_until("ferry6's control socket answers", Duration::from_secs(10), || {
            if let Some(status) = self.try_wait()? {
                bail!("ferry6 {} ended at once ({status}):\n{}", self.mode.word(), self.log());
            }
            Ok(self.status().is_ok())
        })
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("ferry6.log")
    }

    /// The control socket that the configuration names.
    pub fn socket(dir: &Path) -> PathBuf {
        dir.join("control")
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.process {
            Some(process) => Ok(process.try_wait()?),
            None => bail!("ferry6 was not started"),
        }
    }

    /// Runs a control command, such as `rekey --ike`.
    pub fn control(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.host.command(&self.binary);
        command.args(arguments).arg("--socket").arg(Self::socket(&self.dir));
        run(&mut command, &format!("ferry6 {}", arguments.join(" ")))
    }

    /// `ferry6 status --json`.
    pub fn status(&self) -> Result<Value> {
        let text = self.control(&["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("ferry6 status --json is no JSON:\n{text}"))
    }

    /// Its PID, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// SIGTERM: an orderly end, within some seconds and with exit code 0.
    pub fn stop(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("ferry6 was not started")?;
        kill(Pid::from_raw(process.id() as i32), Signal::SIGTERM)?;
        let mut status = None;
        wait_until("ferry6 ends after SIGTERM", Duration::from_secs(10), || {
            status = process.try_wait()?;
            Ok(status.is_some())
        })?;
        self.process = None;
        let status = status.context("it has ended")?;
        ensure!(status.success(), "ferry6 {} ended with {status} after SIGTERM", self.mode.word());
        Ok(())
    }

    /// SIGKILL: as a machine that loses its power.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("ferry6 was not started")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }
}
