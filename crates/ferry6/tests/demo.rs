//! `ferry6 demo` as people run it: the whole product, end to end. Needs root or user namespaces.

#![allow(clippy::unwrap_used)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One at a time: each measures on the machine's few cores.
static ALONE: Mutex<()> = Mutex::new(());

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferry6"));
    command.arg("demo").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether this user may not run it at all, which is no fault of the demo.
fn skipped(output: &Output) -> bool {
    let errors = String::from_utf8_lossy(&output.stderr);
    let refused = errors.contains("cannot make network namespaces") || errors.contains("/dev/net/tun");
    let skip = refused && !nix::unistd::geteuid().is_root();
    if skip {
        eprintln!("SKIPPED: {errors}");
    }
    skip
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Starts `demo --keep` and waits until it stands; none where this user may not.
fn standing() -> Option<(Child, Vec<String>)> {
    let mut child = demo(&["--keep", "--megabytes", "1"]).spawn().unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
        lines.push(line.unwrap());
        if lines.last().is_some_and(|l| l.contains("seen from within")) {
            return Some((child, lines));
        }
    }
    let output = child.wait_with_output().unwrap();
    assert!(skipped(&output), "{}{}", lines.join("\n"), text(&output));
    None
}

/// Processes below `ancestor`, itself included, with their command lines.
fn family(ancestor: u32) -> Vec<(u32, String)> {
    let mut known = vec![(ancestor, String::new())];
    let mut grew = true;
    while grew {
        grew = false;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let parent =
                stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok());
            if parent.is_some_and(|parent| known.iter().any(|(p, _)| *p == parent))
                && !known.iter().any(|(p, _)| *p == pid)
            {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                known.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
                grew = true;
            }
        }
    }
    known
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn all_end(family: &[(u32, String)]) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while family.iter().any(|(pid, _)| alive(*pid)) {
        assert!(Instant::now() < deadline, "still there: {family:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_main_job() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let directory = tempfile::tempdir().unwrap();
    let pcap = directory.path().join("internet.pcap");
    let output = demo(&["--megabytes", "20", "--pcap", pcap.to_str().unwrap()]).output().unwrap();
    if skipped(&output) {
        return;
    }
    let all = text(&output);
    assert!(output.status.success(), "{all}");
    let count = |what: &str| all.lines().filter(|l| l.starts_with("  ✓ ") && l.contains(what)).count();
    assert_eq!(count("20 of 20, round trip"), 3, "{all}");
    assert_eq!(count("20 MB in "), 2, "{all}");
    assert_eq!(count("; nothing else, save"), 2, "{all}");
    for expected in
        ["2a00::101, never deprecated", "ferry6 status on the client", "ferry6 status on the broker", "SAD:"]
    {
        assert!(all.contains(expected), "no {expected:?} in\n{all}");
    }
    assert!(!all.contains("✗"), "{all}");
    // What was captured is more than what was moved, and has the name of neither end in it: those go encrypted.
    let frames = std::fs::read(&pcap).unwrap();
    assert!(frames.len() > 40_000_000, "{} octets", frames.len());
    let names: [&[u8]; 2] = [b"client@my.domain", b"tunnel.my.domain"];
    for name in names {
        assert!(!frames.windows(name.len()).any(|w| w == name));
    }
}

#[test]
fn without_nat() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let output = demo(&["--megabytes", "1", "--no-nat"]).output().unwrap();
    if skipped(&output) {
        return;
    }
    let all = text(&output);
    assert!(output.status.success(), "{all}");
    assert!(all.contains("! NAT"), "{all}");
    assert!(all.contains("nat none"), "the SAs know that there is none: {all}");
}

#[test]
fn an_interrupt_tears_all_down() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let Some((child, lines)) = standing() else { return };
    let family = family(child.id());
    assert!(family.iter().any(|(_, line)| line.contains(" client --config")), "{family:?}");
    // Each host can be entered as it says.
    let enter =
        lines.iter().find_map(|l| l.trim_start().strip_prefix("home ")).expect("how to enter home").trim();
    let script = format!("{enter} cat /proc/net/if_inet6");
    let inside = Command::new("sh").args(["-c", &script]).output().unwrap();
    if inside.status.success() {
        let table = String::from_utf8_lossy(&inside.stdout).into_owned();
        assert!(table.contains("2a000000000000000000000000000101"), "{table}");
    } else {
        eprintln!("NOT TESTED: {script}: {}", text(&inside));
    }
    signal(child.id(), Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("✓ end"), "{}", text(&output));
    all_end(&family);
}

#[test]
fn a_dead_broker_is_a_failure() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let Some((child, _)) = standing() else { return };
    let family = family(child.id());
    let (broker, _) = family.iter().find(|(_, line)| line.contains(" broker --config")).expect("a broker");
    signal(*broker, Signal::SIGKILL);
    std::thread::sleep(Duration::from_millis(100));
    signal(child.id(), Signal::SIGTERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("error: the broker ended with signal: 9"), "{}", text(&output));
    all_end(&family);
}

#[test]
fn nothing_outlives_a_killed_demo() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let Some((mut child, _)) = standing() else { return };
    let family = family(child.id());
    assert!(family.len() >= 4, "{family:?}");
    signal(child.id(), Signal::SIGKILL);
    child.wait().unwrap();
    all_end(&family);
}

#[test]
fn a_plain_user_runs_it_or_is_told_why_not() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    if !nix::unistd::geteuid().is_root() {
        return; // the other tests are run by one, then
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("ferry6");
    std::fs::copy(env!("CARGO_BIN_EXE_ferry6"), &program).unwrap();
    for path in [directory.path(), &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = Command::new(&program)
        .args(["demo", "--megabytes", "1"])
        .uid(65_534)
        .gid(65_534)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let all = text(&output);
    let tun = std::fs::metadata("/dev/net/tun").is_ok_and(|m| m.permissions().mode() & 0o006 == 0o006);
    match (output.status.success(), tun) {
        (true, true) => assert!(all.contains("in a user namespace"), "{all}"),
        (true, false) => panic!("it may not open /dev/net/tun, and yet: {all}"),
        (false, false) => {
            assert!(all.contains("error: /dev/net/tun may not be opened by this user: run"), "{all}")
        }
        // Without user namespaces on this machine it must say so.
        (false, true) => assert!(all.contains("error: cannot make network namespaces: "), "{all}"),
    }
}
