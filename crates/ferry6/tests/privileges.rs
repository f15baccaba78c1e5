//! What a daemon gives away after set-up, as the kernel tells it, and what happens to a thread that asks for more; and
//! that no daemon goes on with a thread less. Needs root or user namespaces, and says so where it may not.

#![allow(clippy::unwrap_used)]
// Faults on purpose are not in a release build.
#![cfg(debug_assertions)]

mod common;

use common::Cable;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const FERRY6: &str = env!("CARGO_BIN_EXE_ferry6");
const NOBODY: u32 = 65_534;
/// CAP_NET_ADMIN alone.
const NET_ADMIN: &str = "0000000000001000";
const NONE: &str = "0000000000000000";
/// The user with the fewest rights that every system has.
const AS_NOBODY: &str = "user = \"65534\"\n";

/// A broker and a client on one cable, with certificates.
struct World {
    cable: Cable,
    dir: TempDir,
}

impl World {
    fn new() -> Option<Self> {
        let cable = Cable::new()?;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for words in [
            &["ca", "--cn", "CA", "--out", "ca"][..],
            &["issue", "--ca", "ca", "--san", "dns:tunnel.my.domain", "--out", "broker"],
            &["issue", "--ca", "ca", "--san", "email:client@my.domain", "--out", "client"],
        ] {
            let output =
                Command::new(FERRY6).arg("pki").args(words).current_dir(dir.path()).output().unwrap();
            assert!(output.status.success());
        }
        Some(Self { cable, dir })
    }

    /// Whether this process may become another user: not in a user namespace that knows only one.
    fn has_other_users() -> bool {
        fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) == Some("4294967295")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a daemon; `top` goes to the top of its configuration, `fault` into its thread.
    fn spawn(&self, role: &str, top: &str, fault: &str) -> Daemon {
        self.spawn_with(role, top, fault, "debug", &[])
    }

    fn spawn_with(&self, role: &str, top: &str, fault: &str, level: &str, words: &[&str]) -> Daemon {
        let rest = if role == "broker" {
            "state_dir = \"state\"\n[pool]\nrange = \"2a00::100/120\"\n[remote]\nca = \"ca.crt\"\n"
        } else {
            "[broker]\naddress = \"10.0.0.1\"\n[remote]\nid = \"tunnel.my.domain\"\nca = \"ca.crt\"\n"
        };
        let text = format!(
            "control = \"run/{role}.sock\"\n{top}{rest}[local]\ncert = \"{role}.crt\"\nkey = \"{role}.key\"\n[tunnel]\nworkers = 2\n"
        );
        fs::write(self.path(&format!("{role}.toml")), text).unwrap();
        let log = self.path(&format!("{role}.log"));
        let host = if role == "broker" { &self.cable.broker } else { &self.cable.client };
        let child = host
            .command(FERRY6)
            .args(["--log", level, role, "--config"])
            .arg(self.path(&format!("{role}.toml")))
            .args(words)
            .env("FERRY6_TEST_FAULT", fault)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Daemon { child, log, socket: self.path(&format!("run/{role}.sock")) }
    }

    fn start(&self, role: &str, top: &str, fault: &str) -> Daemon {
        let mut daemon = self.spawn(role, top, fault);
        until(|| {
            assert!(daemon.child.try_wait().unwrap().is_none(), "{}", daemon.log());
            daemon.status().is_some()
        });
        daemon
    }

    fn forwarding(&self) -> String {
        let command =
            self.cable.broker.command("cat").arg("/proc/sys/net/ipv6/conf/all/forwarding").output().unwrap();
        String::from_utf8(command.stdout).unwrap().trim().to_owned()
    }

    /// The kernel's view of all users: here root's.
    fn broker_ends_well(&self, mut broker: Daemon) {
        let status = broker.end();
        assert!(status.success(), "{status}: {}", broker.log());
        assert_eq!(self.forwarding(), "0", "forwarding was not put back: {}", broker.log());
        assert!(!broker.socket.exists(), "the socket is left behind: {}", broker.log());
        let record = fs::read_to_string(self.path("state/sysctl")).unwrap_or_default();
        assert_eq!(record, "", "the record of the sysctls is left behind");
        assert!(!broker.log().contains("ERROR"), "{}", broker.log());
    }
}

struct Daemon {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn proc(&self) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string())
    }

    fn ask(&self, words: &[&str]) -> Option<String> {
        let output = Command::new(FERRY6).args(words).arg("--socket").arg(&self.socket).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn status(&self) -> Option<Value> {
        let mut list: Value = serde_json::from_str(&self.ask(&["status", "--json"])?).unwrap();
        Some(list[0].take())
    }

    fn end(&mut self) -> ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        until(|| self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }
}

/// Up to 20 s: machines that run tests are busy.
fn until(mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < end, "it did not happen within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `/proc/PID/status` as a map.
fn facts(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter_map(|l| l.split_once(':'));
    lines.map(|(k, v)| (k.to_owned(), v.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

#[test]
fn daemons_keep_one_capability_and_no_way_back() {
    let Some(world) = World::new() else { return };
    let top = if World::has_other_users() { AS_NOBODY } else { "" };
    let broker = world.start("broker", top, "");
    let client = world.start("client", top, "");
    until(|| client.status().unwrap()["client"]["state"] == "up");
    assert_eq!(world.forwarding(), "1");
    for daemon in [&broker, &client] {
        let mut names = Vec::new();
        for task in fs::read_dir(daemon.proc().join("task")).unwrap() {
            let facts = facts(&task.unwrap().path().join("status"));
            let name = facts["Name"].clone();
            let uid = if World::has_other_users() { NOBODY } else { geteuid().as_raw() };
            assert_eq!(facts["Uid"], format!("{uid} {uid} {uid} {uid}"), "{name}");
            if World::has_other_users() {
                assert_eq!(facts["Gid"], format!("{uid} {uid} {uid} {uid}"), "{name}");
                assert_eq!(facts["Groups"], uid.to_string(), "{name}");
                assert_eq!(facts["CapBnd"], NET_ADMIN, "{name}");
            }
            assert_eq!(facts["CapEff"], NET_ADMIN, "{name}");
            assert_eq!(facts["CapPrm"], NET_ADMIN, "{name}");
            assert_eq!((&*facts["CapInh"], &*facts["CapAmb"]), (NONE, NONE), "{name}");
            assert_eq!((&*facts["NoNewPrivs"], &*facts["Seccomp"]), ("1", "2"), "{name}");
            names.push(name);
        }
        for name in ["control", "in-0", "in-1", "out-0", "out-1"] {
            assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
        }
        let limits = fs::read_to_string(daemon.proc().join("limits")).unwrap();
        let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        // What can't be dumped belongs to root in /proc, whatever its user.
        assert_eq!(fs::metadata(daemon.proc().join("environ")).unwrap().uid(), geteuid().as_raw());

        // The status says what the kernel says.
        let security = daemon.status().unwrap()["security"].take();
        assert_eq!(security["capabilities"], serde_json::json!(["CAP_NET_ADMIN"]));
        assert_eq!(security["no_new_privs"], true);
        assert_eq!(security["dumpable"], false);
        let threads = security["seccomp"].as_object().unwrap();
        assert!(threads.len() == 6 && threads.values().all(|f| f == true), "{security}");
        let line = daemon.ask(&["status"]).unwrap();
        assert!(line.contains(", CAP_NET_ADMIN, no_new_privs, "), "{line}");
        assert!(line.contains("seccomp on all 6 threads, no core dumps"), "{line}");
    }
    if World::has_other_users() {
        let security = broker.status().unwrap()["security"].take();
        assert_eq!(security["uid"], NOBODY);
        for mine in ["state", "state/leases.redb", "run", "run/broker.sock"] {
            assert_eq!(fs::symlink_metadata(world.path(mine)).unwrap().uid(), NOBODY, "{mine}");
        }
    }
    // Everything still works with what is left: a rekey, the end, and what was changed is put back.
    assert!(client.ask(&["rekey"]).is_some() && client.ask(&["rekey", "--ike"]).is_some());
    until(|| broker.log().contains("rekeyed"));
    let mut client = client;
    assert!(client.end().success(), "{}", client.log());
    assert!(!client.log().contains("ERROR"), "{}", client.log());
    world.broker_ends_well(broker);
}

/// What an attacker inside of a thread would try.
#[test]
fn a_thread_that_asks_for_more_ends_the_process() {
    for fault in [
        "in-0:open=/etc/hostname",
        "out-1:open=/etc/hostname",
        "control:open=/etc/hostname",
        "in-1:execute=/bin/true",
        "control:execute=/bin/true",
        "main:execute=/bin/true",
        "main:become-root",
        "in-0:become-root",
    ] {
        // One for each: a child that was about to start a program holds the store's lock for a moment longer than its parent.
        let Some(world) = World::new() else { return };
        let mut broker = world.spawn("broker", "", fault);
        let status = broker.wait();
        assert_eq!(status.signal(), Some(Signal::SIGSYS as i32), "{fault}: {status}: {}", broker.log());
        let log = broker.log();
        assert!(!log.contains("fault: "), "{fault}: {log}");
        // Who starts a program or changes the user blocks all signals first, and then there are no last words.
        assert!(log.contains("ERROR: system call ") || !fault.contains("open"), "{fault}: {log}");
    }
}

/// The main thread may open files, but only its own ones.
#[test]
fn other_files_are_out_of_reach() {
    let Some(world) = World::new() else { return };
    // The configuration's directory may be read, to read it anew; another one not.
    let elsewhere = tempfile::tempdir().unwrap();
    let free = elsewhere.path().join("free");
    fs::write(&free, "").unwrap();
    fs::set_permissions(&free, fs::Permissions::from_mode(0o666)).unwrap();
    let free = free.display().to_string();
    let own = world.path("ca.crt").display().to_string();
    for fault in [
        "main:open=/usr/bin/env",
        &format!("main:open={free}"),
        &format!("main:write={free}"),
        &format!("main:write={own}"),
    ] {
        let broker = world.start("broker", "", fault);
        if broker.status().unwrap()["security"]["landlock"].is_null() {
            eprintln!("SKIPPED: this kernel has no landlock");
            return;
        }
        assert!(broker.log().contains("PermissionDenied"), "{fault}: {}", broker.log());
    }
    // Its state is in reach.
    let broker = world.start("broker", "", &format!("main:write={}", world.path("state/new").display()));
    assert!(broker.log().contains("new: None"), "{}", broker.log());
    // Without the sandbox the file's mode alone decides, and the status says so.
    let broker = {
        drop(broker);
        world.start("broker", "sandbox = false\n", &format!("main:open={free}"))
    };
    assert!(broker.log().contains(&format!("open {free}: None")), "{}", broker.log());
    let line = broker.ask(&["status"]).unwrap();
    assert!(line.contains("no landlock, no seccomp"), "{line}");
}

#[test]
fn no_daemon_limps() {
    let Some(world) = World::new() else { return };
    for thread in ["in-0", "out-1", "control", "main"] {
        let mut broker = world.spawn("broker", "", &format!("{thread}:panic"));
        let status = broker.wait();
        let log = broker.log();
        assert_eq!(status.code(), Some(1), "{thread}: {status}: {log}");
        // The runtime is in the first thread.
        assert!(log.contains(&format!("panic in thread {thread} at ")), "{log}");
        assert!(log.contains("a fault on purpose"), "{log}");
        assert_eq!(world.forwarding(), "0", "{thread}: {log}");
        assert!(!broker.socket.exists(), "{thread}: {log}");
    }
}

/// The control thread fails in the middle of its work: a client asks for an address. The daemon ends and does not hang, though
/// nobody is left who would say DELETE.
#[test]
fn a_control_thread_that_fails_at_work_ends_the_daemon() {
    let Some(world) = World::new() else { return };
    let mut broker = world.start("broker", "", "lease:panic");
    assert_eq!(world.forwarding(), "1");
    let mut client = world.start("client", "", "");
    let status = broker.wait();
    let log = broker.log();
    assert_eq!(status.code(), Some(1), "{status}: {log}");
    assert!(log.contains("panic in thread control at "), "{log}");
    assert_eq!(world.forwarding(), "0", "{log}");
    assert!(!broker.socket.exists(), "{log}");
    let status = client.end();
    assert!(status.success(), "the client, which never came up, ends in order: {status}: {}", client.log());
}

/// All that is secret in a tunnel's life is known here, by `--keylog` and the key files: none of it is in a log at the finest level.
#[test]
fn no_secret_is_in_the_finest_log() {
    let Some(world) = World::new() else { return };
    let keys = world.path("keys");
    let broker = world.spawn_with("broker", "", "", "trace", &["--keylog", keys.to_str().unwrap()]);
    let client = world.spawn_with("client", "", "", "trace", &[]);
    until(|| client.status().is_some_and(|status| status["client"]["state"] == "up"));
    let written = |name: &str| fs::read_to_string(keys.join(name)).unwrap().lines().count();
    until(|| written("ikev2_decryption_table") == 1 && written("esp_sa") == 2);
    assert!(client.ask(&["rekey"]).is_some());
    until(|| written("esp_sa") == 4);
    assert!(client.ask(&["rekey", "--ike"]).is_some());
    until(|| written("ikev2_decryption_table") == 2);
    let mut secrets = Vec::new();
    for name in ["ikev2_decryption_table", "esp_sa"] {
        // SPIs are shorter, and no secret.
        let text = fs::read_to_string(keys.join(name)).unwrap().to_lowercase();
        let words =
            text.split(|c: char| !c.is_ascii_alphanumeric()).map(|word| word.trim_start_matches("0x"));
        secrets.extend(
            words.filter(|w| w.len() >= 32 && w.chars().all(|c| c.is_ascii_hexdigit())).map(str::to_owned),
        );
    }
    assert!(secrets.len() >= 8, "two IKE SAs and two Child SAs have keys: {secrets:?}");
    for name in ["broker.key", "client.key"] {
        let text = fs::read_to_string(world.path(name)).unwrap().to_lowercase();
        secrets.extend(
            text.lines().filter(|line| !line.contains("-----") && line.len() >= 16).map(str::to_owned),
        );
    }
    for daemon in [&broker, &client] {
        // As hex, and as Rust prints octets.
        let log = daemon.log().to_lowercase();
        assert!(log.contains("trace") || log.contains("debug"), "the log is not fine: {log}");
        let digits: String = log.chars().filter(char::is_ascii_hexdigit).collect();
        for secret in &secrets {
            assert!(!log.contains(secret.as_str()), "{secret} is in the log: {log}");
            if let Ok(octets) = hex(secret) {
                let numbers = octets[..12].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
                assert!(!log.contains(&numbers), "{secret} is in the log as numbers: {log}");
                assert!(!digits.contains(&secret[..32]), "{secret} is in the log in groups: {log}");
            }
        }
    }
}

fn hex(text: &str) -> Result<Vec<u8>, std::num::ParseIntError> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16)).collect()
}

#[test]
fn users_that_cannot_be() {
    let Some(world) = World::new() else { return };
    let mut broker =
        world.spawn("broker", "user = \"no-such-user\"\ncontrol_group = \"no-such-group\"\n", "");
    assert_eq!(broker.wait().code(), Some(2));
    let log = broker.log();
    for word in
        ["user: this system has no user", "useradd --system", "control_group: this system has no group"]
    {
        assert!(log.contains(word), "{log}");
    }
}
