//! A broker's directory made by `broker init`, and a cable with a client at its other end.

use super::{Cable, Daemon, FERRY6, text};
use ferry6::lab::Host;
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Runs it in a directory, without a terminal.
pub(crate) fn ferry6(directory: &Path, words: &[&str]) -> Output {
    Command::new(FERRY6).args(words).current_dir(directory).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

/// Exit code 2 and a line that says this.
pub(crate) fn refused(output: &Output, expected: &str) {
    let said = text(output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(expected), "{said}");
}

pub(crate) fn site() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    done(&ferry6(
        dir.path(),
        &["broker", "init", "--dir", "b", "--address", "10.0.0.1", "--prefix", "2a00::100/120", "--no-unit"],
    ));
    dir
}

/// A broker at 10.0.0.1 and a client at 10.0.0.2, on one cable.
pub(crate) struct World {
    pub(crate) cable: Cable,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Option<Self> {
        let cable = Cable::new()?;
        Some(Self { cable, dir: site() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn on(&self, host: &Host, words: &[&str]) -> Output {
        host.command(FERRY6).args(words).current_dir(self.dir.path()).stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn run_broker(&self) -> Daemon {
        let log = std::fs::File::create(self.path("broker.log")).unwrap();
        let mut command = self.cable.broker.command(FERRY6);
        command.args(["broker", "--config", "b/broker.toml"]).current_dir(self.dir.path()).stderr(log);
        let daemon = Daemon(command.stdin(Stdio::null()).spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        while !self.on(&self.cable.broker, &["status", "--socket", "b/broker.sock"]).status.success() {
            assert!(Instant::now() < until, "{}", std::fs::read_to_string(self.path("broker.log")).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    /// The client's address as the broker sees it, over the tunnel.
    pub(crate) fn carried(&self) -> std::io::Result<Ipv6Addr> {
        let listener = self.cable.broker.run(|| TcpListener::bind("[2a00::2]:0"))?;
        let target = listener.local_addr()?;
        let stream = self.cable.client.run(|| TcpStream::connect_timeout(&target, Duration::from_secs(5)))?;
        match stream.local_addr()?.ip() {
            std::net::IpAddr::V6(address) => Ok(address),
            std::net::IpAddr::V4(_) => Err(std::io::ErrorKind::Other.into()),
        }
    }
}
