//! Each exit code, from the commands as a script calls them; and one line that says why. Needs root or user namespaces for some, and says
//! so where it may not.

#![allow(clippy::unwrap_used)]

mod common;

use common::Cable;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const FERRY6: &str = env!("CARGO_BIN_EXE_ferry6");
const NOBODY: u32 = 65534;

fn ferry6(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(FERRY6);
    command.args(words).current_dir(dir).stdin(Stdio::null()).env_remove("FERRY6_LOG");
    command
}

/// This code, and one line on stderr that has these words.
#[track_caller]
fn ends(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    let lines: Vec<&str> = said.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    for word in words {
        assert!(lines[0].contains(word), "it does not say {word:?}: {said}");
    }
}

fn init(dir: &Path) {
    let words =
        ["broker", "init", "--dir", "b", "--address", "10.0.0.1", "--prefix", "2a00::100/120", "--no-unit"];
    let output = ferry6(dir, &words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_is_not_there_and_who_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    for words in [
        &["broker", "--config", "nosuch.toml"][..],
        &["client", "--config", "nosuch.toml", "--check"],
        &["import", "nosuch.conf"],
        &["client", "join", "nosuch.ferry6", "--dir", "c"],
        &["client", "up", "nosuch", "--dir", "c"],
        &["broker", "invite", "alice", "--dir", "nosuch"],
        &["broker", "disable", "alice", "--dir", "nosuch"],
        &["broker", "usage", "--dir", "nosuch"],
        &["client", "radvd", "--config", "nosuch.toml"],
        &["config", "ike.nosuch"],
    ] {
        ends(&ferry6(d, words).output().unwrap(), 2, &["nosuch"][usize::from(words[1] == "up")..]);
    }
    for command in ["status", "rekey", "up", "reload"] {
        ends(
            &ferry6(d, &[command, "--socket", "nosuch.sock"]).output().unwrap(),
            3,
            &["no ferry6 daemon is running", "nosuch.sock"],
        );
    }
    // One that was killed leaves its socket.
    drop(UnixListener::bind(d.join("dead.sock")).unwrap());
    for command in ["status", "rekey", "up", "reload"] {
        ends(
            &ferry6(d, &[command, "--socket", "dead.sock"]).output().unwrap(),
            3,
            &["no ferry6 daemon is running", "nobody answers"],
        );
    }
}

#[test]
fn who_has_no_right() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody without rights");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    init(d);
    std::fs::set_permissions(d, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _listener = UnixListener::bind(d.join("roots.sock")).unwrap();
    std::fs::set_permissions(d.join("roots.sock"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let program = d.join("ferry6");
    std::fs::copy(FERRY6, &program).unwrap();
    let nobody = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).current_dir(d).stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
        command.output().unwrap()
    };
    for command in ["status", "rekey", "up", "down", "reload"] {
        ends(&nobody(&[command, "--socket", "roots.sock"]), 4, &["roots.sock", "not permitted"]);
    }
    ends(&nobody(&["man", "b/man"]), 4, &["b/man", "ermission denied"]);
    ends(&nobody(&["pki", "ca", "--cn", "x", "--out", "b/x"]), 4, &["b/x", "ermission denied"]);
    let invited = ferry6(d, &["broker", "invite", "alice", "--dir", "b"]).output().unwrap();
    assert!(invited.status.success(), "{invited:?}");
    for words in [&["disable", "alice"][..], &["enable", "alice"], &["set", "alice", "--expires", "1d"]] {
        let words = [&["broker"], words, &["--dir", "b"]].concat();
        ends(&nobody(&words), 4, &["b/users.toml", "not permitted"]);
    }
    std::fs::create_dir(d.join("b/state")).unwrap();
    std::fs::set_permissions(d.join("b/state"), std::fs::Permissions::from_mode(0o700)).unwrap();
    ends(&nobody(&["broker", "usage", "--dir", "b"]), 4, &["b/state", "not permitted"]);
    // Keys that it may not read are a fault of what it was given.
    ends(&nobody(&["broker", "--config", "b/broker.toml"]), 2, &["broker.key", "ermission denied"]);
    // With keys of its own it lacks the right to make a device.
    for file in ["broker.toml", "broker.key", "broker.crt", "ca.crt", "ca.crl"] {
        std::os::unix::fs::chown(d.join("b").join(file), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    ends(&nobody(&["broker", "--config", "b/broker.toml"]), 4, &["not permitted", "CAP_NET_ADMIN"]);
}

/// On a disk that is full each command says so, and leaves nothing that is half done.
#[test]
fn a_full_disk() {
    let Some(cable) = Cable::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    init(d);
    let invited = ferry6(d, &["broker", "invite", "alice", "--dir", "b"]).output().unwrap();
    assert!(invited.status.success(), "{invited:?}");
    std::fs::create_dir(d.join("full")).unwrap();
    // Two pages, both taken.
    let script =
        "mount -t tmpfs -o size=8k none full && head -c 8192 /dev/zero > full/zero && exec \"$0\" \"$@\"";
    let on = |words: &[&str]| {
        let host = if words[0] == "client" { &cable.client } else { &cable.broker };
        // A mount namespace of its own for each, so that the next one finds an empty disk to fill.
        let mut command = host.command("unshare");
        command.args(["-m", "sh", "-c", script, FERRY6]).args(words);
        command.current_dir(d).stdin(Stdio::null()).output().unwrap()
    };
    for words in [
        &["broker", "init", "--dir", "full/b", "--address", "10.0.0.1", "--prefix", "2a00::/64", "--no-unit"]
            [..],
        &["broker", "invite", "bob", "--dir", "b", "--out", "full/bob.ferry6"],
        &["client", "join", "alice.ferry6", "--dir", "full/c"],
        &["pki", "ca", "--cn", "x", "--out", "full/x"],
        &["man", "full/man"],
    ] {
        ends(&on(words), 1, &["No space left on device", "full"]);
    }
    // What was begun for bob was taken back: he can be invited.
    let list = ferry6(d, &["broker", "list", "--dir", "b"]).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(!list.contains("bob"), "{list}");
    // A broker whose store does not fit does not start, and leaves nothing behind.
    let toml = std::fs::read_to_string(d.join("b/broker.toml")).unwrap();
    std::fs::write(d.join("b/broker.toml"), toml.replace("\"state\"", "\"../full/state\"")).unwrap();
    ends(&on(&["broker", "--config", "b/broker.toml"]), 1, &["full/state", "No space left on device"]);
    assert!(!d.join("b/broker.sock").exists());
}
