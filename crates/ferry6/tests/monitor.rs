//! `ferry6 monitor` as its user starts it, on a real terminal, made by script(1) of util-linux.

#![allow(clippy::unwrap_used)]

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Still running: what ended and has not been waited for is not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

/// A window that is closed, a connection that is lost: what reads from such a terminal never waits again.
#[test]
fn ends_with_its_terminal() {
    let line = format!(
        "stty rows 24 cols 80; echo PID=$$,; exec '{}' monitor --socket /nonexistent.sock",
        env!("CARGO_BIN_EXE_ferry6")
    );
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
    let mut script =
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("util-linux has script");

    // Once the first screen came, it waits for keys.
    let mut output = script.stdout.take().unwrap();
    let (reader, drawn) = channel();
    std::thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(octets @ 1..) = output.read(&mut some) {
            let _ = reader.send(String::from_utf8_lossy(&some[..octets]).into_owned());
        }
    });
    let mut all = String::new();
    while !all.contains("nonexistent.sock") {
        match drawn.recv_timeout(Duration::from_secs(30)) {
            Ok(more) => all += &more,
            Err(error) => {
                let _ = script.kill();
                panic!("{error}, and so far: {all:?}");
            }
        }
    }
    let pid: u32 = all.split_once("PID=").unwrap().1.split_once(',').unwrap().0.parse().unwrap();
    assert!(runs(pid), "{all:?}");

    script.kill().unwrap();
    script.wait().unwrap();
    let killed = Instant::now();
    while runs(pid) {
        if killed.elapsed() > Duration::from_secs(10) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            panic!("it goes on without a terminal");
        }
        sleep(Duration::from_millis(50));
    }
}
