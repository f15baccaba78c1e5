//! What the tests of whole processes share.

#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used)]

pub(crate) mod site;

use ferry6::lab::{Error, Host, Lab};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub(crate) const FERRY6: &str = env!("CARGO_BIN_EXE_ferry6");

/// A broker at 10.0.0.1 and 2a00::2, and a client at 10.0.0.2, on one cable.
pub(crate) struct Cable {
    pub(crate) broker: Host,
    pub(crate) client: Host,
    _lab: Lab,
}

impl Cable {
    /// None where this user may make no namespaces.
    pub(crate) fn new() -> Option<Self> {
        let lab = match Lab::new() {
            Ok(lab) => lab,
            Err(Error::Privilege(why)) if !nix::unistd::geteuid().is_root() => {
                eprintln!("SKIPPED: {why}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let (broker, client) = (lab.host("broker").unwrap(), lab.host("client").unwrap());
        lab.link(&broker, "eth0", &client, "eth0").unwrap();
        broker.address("eth0", "10.0.0.1/24").unwrap();
        broker.address("eth0", "2a00::2/64").unwrap();
        client.address("eth0", "10.0.0.2/24").unwrap();
        Some(Self { broker, client, _lab: lab })
    }
}

/// A process that ends with its test.
pub(crate) struct Daemon(pub(crate) Child);

impl Daemon {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    /// In order.
    pub(crate) fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All that a process said.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A broker at 10.0.0.1 in `b`, and alice's tunnel to it, joined in `c`.
pub(crate) fn joined(dir: &Path) {
    for words in [
        &["broker", "init", "--dir", "b", "--address", "10.0.0.1", "--prefix", "2a00::100/120", "--no-unit"]
            [..],
        &["broker", "invite", "alice", "--dir", "b"],
        &["client", "join", "alice.ferry6", "--dir", "c"],
    ] {
        let output = Command::new(FERRY6).args(words).current_dir(dir).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
}
