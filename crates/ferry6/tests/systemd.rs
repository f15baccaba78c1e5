//! What a service manager hears of real daemons, and what systemd says of the units. Needs root or user namespaces, and says so where
//! it may not.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Cable, Daemon, FERRY6, joined, text};
use nix::sys::signal::Signal;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A directory with a broker and an invitation that was joined.
fn site() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    joined(dir.path());
    dir
}

/// A service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { socket, heard: Vec::new() }
    }

    /// Waits for a datagram that this is true of, and gives it.
    fn hear(&mut self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + Duration::from_secs(20);
        let mut octets = [0; 4096];
        loop {
            if let Ok(length) = self.socket.recv(&mut octets) {
                let said = String::from_utf8(octets[..length].to_vec()).unwrap();
                self.heard.push(said.clone());
                if is(&said) {
                    return said;
                }
            }
            assert!(Instant::now() < until, "no {what}: {:?}", self.heard);
        }
    }

    /// All that comes in this time.
    fn listen(&mut self, time: Duration) -> Vec<String> {
        let until = Instant::now() + time;
        let mut octets = [0; 4096];
        let mut list = Vec::new();
        while Instant::now() < until {
            if let Ok(length) = self.socket.recv(&mut octets) {
                list.push(String::from_utf8(octets[..length].to_vec()).unwrap());
            }
        }
        list
    }
}

fn start(mut command: Command, dir: &Path, notify: &str, log: &str) -> Daemon {
    let log = std::fs::File::create(dir.join(log)).unwrap();
    command.current_dir(dir).env("NOTIFY_SOCKET", notify).env("WATCHDOG_USEC", "400000");
    Daemon(command.stdin(Stdio::null()).stderr(log).spawn().unwrap())
}

#[test]
fn a_broker_is_ready_when_its_ports_are_open_and_lives_by_the_watchdog() {
    let Some(cable) = Cable::new() else { return };
    let dir = site();
    let path = dir.path().join("notify");
    let mut manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let mut command = cable.broker.command(FERRY6);
    command.args(["broker", "--config", "b/broker.toml"]);
    let mut broker = start(command, dir.path(), path.to_str().unwrap(), "log");

    manager.hear("READY", |said| said == "READY=1");
    // It answers at once, and its ports are taken.
    let status = Command::new(FERRY6)
        .args(["status", "--socket", "b/broker.sock"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", text(&status));
    for port in ["0.0.0.0:500", "0.0.0.0:4500"] {
        assert!(cable.broker.run(|| std::net::UdpSocket::bind(port)).is_err(), "{port}");
    }
    manager.hear("STATUS", |said| said == "STATUS=0.0.0.0 UDP 500, 4500; addresses in use: 0");
    for _ in 0..3 {
        manager.hear("WATCHDOG", |said| said == "WATCHDOG=1");
    }

    // A reload begins with its time and ends, whether by signal or by command, and whatever came of it.
    let reloaded = |manager: &mut Manager| {
        let said = manager.hear("RELOADING", |said| said.starts_with("RELOADING=1\nMONOTONIC_USEC="));
        let usec: u64 = said.rsplit_once('=').unwrap().1.parse().unwrap();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
        assert!((uptime - usec as f64 / 1e6).abs() < 20.0, "{usec} at {uptime}");
        manager.hear("READY", |said| said == "READY=1");
    };
    broker.signal(Signal::SIGHUP);
    reloaded(&mut manager);
    std::fs::write(dir.path().join("b/broker.toml"), "nonsense").unwrap();
    let reload = Command::new(FERRY6)
        .args(["reload", "--socket", "b/broker.sock"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(reload.status.code(), Some(2), "{}", text(&reload));
    reloaded(&mut manager);

    broker.signal(Signal::SIGTERM);
    manager.hear("STOPPING", |said| said == "STOPPING=1");
    assert!(broker.0.wait().unwrap().success());
}

#[test]
fn a_client_tells_where_it_is_on_an_abstract_socket() {
    let Some(cable) = Cable::new() else { return };
    let dir = site();
    let address = SocketAddr::from_abstract_name("ferry6/notify").unwrap();
    // Abstract names belong to a network namespace.
    let socket = cable.client.run(|| UnixDatagram::bind_addr(&address)).unwrap();
    let mut manager = Manager::new(socket);
    let mut command = cable.client.command(FERRY6);
    command.args(["client", "--config", "c/alice/client.toml"]);
    let mut client = start(command, dir.path(), "@ferry6/notify", "client.log");
    manager.hear("READY", |said| said == "READY=1");
    manager.hear("STATUS", |said| said == "STATUS=connecting to 10.0.0.1");
    manager.hear("WATCHDOG", |said| said == "WATCHDOG=1");

    let mut command = cable.broker.command(FERRY6);
    command.args(["broker", "--config", "b/broker.toml"]);
    let _broker = start(command, dir.path(), "", "broker.log");
    manager.hear("STATUS", |said| said == "STATUS=up at 10.0.0.1: 2a00::101");
    client.signal(Signal::SIGTERM);
    manager.hear("STOPPING", |said| said == "STOPPING=1");
    assert!(client.0.wait().unwrap().success());
}

/// The watchdog is not fed by a daemon whose control thread hangs, though its main thread lives.
#[test]
fn a_daemon_that_hangs_is_seen() {
    let Some(cable) = Cable::new() else { return };
    let dir = site();
    let path = dir.path().join("notify");
    let mut manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let mut command = cable.broker.command(FERRY6);
    command.args(["broker", "--config", "b/broker.toml"]).env("FERRY6_TEST_FAULT", "lease:hang=60");
    let _broker = start(command, dir.path(), path.to_str().unwrap(), "log");
    manager.hear("WATCHDOG", |said| said == "WATCHDOG=1");
    // It hangs where a client asks for an address.
    let mut command = cable.client.command(FERRY6);
    command.args(["client", "--config", "c/alice/client.toml"]);
    let _client = start(command, dir.path(), "", "client.log");
    let until = Instant::now() + Duration::from_secs(20);
    while !manager.listen(Duration::from_secs(2)).is_empty() {
        assert!(Instant::now() < until, "the watchdog is fed still");
    }
}

/// systemd knows every line of the units, and finds little that they leave open.
#[test]
fn systemd_takes_the_units() {
    let available =
        Command::new("systemd-analyze").arg("--version").output().is_ok_and(|o| o.status.success());
    if !available {
        eprintln!("SKIPPED: there is no systemd-analyze");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    for name in ["ferry6-broker.service", "ferry6-client@.service"] {
        let unit = std::fs::read_to_string(packaging.join(name)).unwrap();
        assert!(unit.contains("/usr/bin/ferry6 "));
        // An instance of a template; the program that is here; no man pages, which are not installed.
        let path = dir.path().join(name.replace('@', "@alice"));
        let text: String = unit
            .replace("/usr/bin/ferry6 ", &format!("{FERRY6} "))
            .lines()
            .filter(|l| !l.starts_with("Documentation="))
            .map(|l| format!("{l}\n"))
            .collect();
        std::fs::write(&path, text).unwrap();
        let output = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
        assert!(output.status.success() && text_is_empty(&output), "{name}: {}", self::text(&output));
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=40"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", self::text(&output));
    }
}

fn text_is_empty(output: &Output) -> bool {
    text(output).trim().is_empty()
}
