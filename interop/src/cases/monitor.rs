//! `ferry6 monitor` in a terminal, on both ends of a tunnel.

use super::tunnel::{BROKER_ID, CLIENT_ADDRESS, CLIENT_ID, FERRY6, Spec, Tunnel, ip, server6};
use super::{Case, Env, Peer, Role};
use crate::ferry::Ferry;
use crate::tmux::Terminal;
use crate::{traffic, wait_until};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    let case = |name, feature, run: fn(&mut Env) -> Result<()>| {
        Case::new(name, Peer::Ferry6, Role::Both, feature, run)
    };
    vec![
        case(
            "monitor-watch",
            "tunnels, rates, round trips, SAs, drops and log at 80x24 and 120x40; a daemon goes and comes",
            watch,
        ),
        case(
            "monitor-terminal",
            "the terminal is as before after q and SIGTERM; none is exit code 2; NO_COLOR",
            terminal,
        ),
    ]
}

/// The command that watches both daemons; then it says how that ended, and how the terminal is.
fn command(env: &Env, before: &str) -> Result<String> {
    let socket = |name: &str| env.subdir(name).map(|dir| Ferry::socket(&dir).display().to_string());
    Ok(format!(
        "{before} {} monitor --socket {} --socket {}; echo EXIT=$?; stty -a; sleep 100",
        env.ferry6.display(),
        socket("broker")?,
        socket("client")?
    ))
}

fn up(env: &Env) -> Result<Tunnel> {
    Spec::certified(env, FERRY6, FERRY6)?.up(env)
}

fn watch(env: &mut Env) -> Result<()> {
    let mut tunnel = up(env)?;
    let terminal = Terminal::start(&env.dir, (80, 24), &command(env, "")?)?;
    let broker = terminal.wait_for(&[
        "● 1 broker",
        "● 2 client",
        CLIENT_ID,
        CLIENT_ADDRESS,
        "leases 1",
        "rekey in",
    ])?;
    for wanted in
        ["SAs of client@my.domain", "AES_GCM_16_256", "IKE", "ESP", "▱", "log (UTC)", "drops", "q quit"]
    {
        ensure!(broker.contains(wanted), "the screen lacks {wanted:?}:\n{broker}");
    }
    // It asks for the round trip by itself.
    terminal.wait_until("the round trip is measured", |screen| {
        screen.lines().any(|l| l.contains(CLIENT_ADDRESS) && l.contains("ms"))
    })?;
    traffic::tcp_both_ways(&env.net.home, &env.net.server, server6()?, 4 << 20)?;
    terminal.wait_until("traffic is seen", |screen| {
        let head = screen.lines().nth(2).unwrap_or_default();
        head.contains("╭ in ") && head.contains("╮╭ out ") && head.matches("MB ╮").count() == 2
    })?;
    // What is dropped is told by its reason: this address is nobody's.
    ip(&env.net.broker, "-6 route add 2a00::1ee dev ferry0")?;
    let socket = env.net.broker.run(|| std::net::UdpSocket::bind("[::]:0"))?;
    // The first error that comes back is the next send's.
    for _ in 0..5 {
        let _ = socket.send_to(b"for nobody", "[2a00::1ee]:9");
    }
    terminal.wait_for(&["out no policy"])?;
    // The other daemon.
    terminal.press(&["Right"])?;
    terminal.wait_for(&[
        "● up",
        "broker 5.6.7.8",
        &format!("address {CLIENT_ADDRESS}"),
        &format!("SAs of {BROKER_ID}"),
    ])?;
    // It goes, what was known stays, and it comes back as another process.
    tunnel.client.ferry_mut()?.kill()?;
    terminal.wait_for(&["✗ 2 client", "gone for", "nobody answers", &format!("SAs of {BROKER_ID}")])?;
    tunnel.client.ferry_mut()?.restart()?;
    let pid = tunnel.client.ferry()?.pid().context("it runs")?;
    terminal.wait_for(&["● 2 client", "● up", &format!("pid {pid}")])?;
    // Larger, and too small.
    terminal.resize(120, 40)?;
    let large = terminal.wait_for(&["of late", "5.6.7.8:4500", "path mtu"])?;
    ensure!(large.lines().any(|l| l.chars().count() == 120), "it does not use 120 columns:\n{large}");
    terminal.resize(60, 20)?;
    terminal.wait_for(&["needs 80 x 24", "this is 60 x 20"])?;
    terminal.resize(80, 24)?;
    terminal.press(&["?"])?;
    terminal.wait_for(&["Help", "another daemon"])?;
    terminal.press(&["x"])?;
    terminal.press(&["l"])?;
    terminal.wait_until("the log has the screen", |screen| {
        screen.contains("tunnel up") && !screen.contains("drops")
    })?;
    Ok(())
}

/// How `stty -a` shows a terminal that takes lines and shows what is typed.
fn is_restored(screen: &str) -> bool {
    let words: Vec<&str> = screen.split([' ', '\n', ';']).collect();
    words.contains(&"icanon") && words.contains(&"echo") && !screen.contains("tunnels")
}

/// The monitor's PID: of the process whose command line says so.
fn monitor(env: &Env) -> Result<Pid> {
    let wanted = Ferry::socket(&env.dir.join("broker")).display().to_string();
    let mut found = None;
    wait_until("the monitor runs", Duration::from_secs(5), || {
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(pid) = path.file_name().and_then(|n| n.to_str()?.parse::<i32>().ok()) else { continue };
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
            if words.get(1).is_some_and(|w| w == "monitor") && words.iter().any(|w| *w == wanted) {
                found = Some(Pid::from_raw(pid));
            }
        }
        Ok(found.is_some())
    })?;
    found.context("it runs")
}

/// Whether a screen that was captured with its colours has some.
fn is_coloured(screen: &str) -> bool {
    screen.split("\x1b[").skip(1).filter_map(|rest| rest.split_once('m')).any(|(codes, _)| {
        codes.split(';').filter_map(|code| code.parse::<u8>().ok()).any(|c| matches!(c, 30..=38 | 90..=97))
    })
}

fn terminal(env: &mut Env) -> Result<()> {
    let _tunnel = up(env)?;
    let first = Terminal::start(&env.subdir("first")?, (80, 24), &command(env, "")?)?;
    first.wait_for(&["tunnels", CLIENT_ID])?;
    ensure!(is_coloured(&first.coloured()?), "there are no colours:\n{:?}", first.coloured()?);
    first.press(&["q"])?;
    let after = first.wait_for(&["EXIT=0", "icanon"])?;
    ensure!(is_restored(&after), "q leaves the terminal in disorder:\n{after}");
    drop(first);

    let second = Terminal::start(&env.subdir("second")?, (80, 24), &command(env, "NO_COLOR=1")?)?;
    second.wait_for(&["tunnels", CLIENT_ID])?;
    ensure!(!is_coloured(&second.coloured()?), "NO_COLOR has colours:\n{:?}", second.coloured()?);
    kill(monitor(env)?, Signal::SIGTERM)?;
    let after = second.wait_for(&["EXIT=0", "icanon"])?;
    ensure!(is_restored(&after), "SIGTERM leaves the terminal in disorder:\n{after}");
    drop(second);

    // Without a daemon it waits, and says for what.
    let dir = env.subdir("third")?;
    let nobody = format!("{} monitor --socket {}", env.ferry6.display(), dir.join("none").display());
    let third = Terminal::start(&dir, (80, 24), &nobody)?;
    third.wait_for(&["no ferry6 daemon is running", "as soon as it answers"])?;
    drop(third);

    let start = Instant::now();
    let output = Command::new(&env.ferry6).arg("monitor").stdin(Stdio::null()).output()?;
    ensure!(start.elapsed() < Duration::from_secs(5), "it hangs without a terminal");
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(2) && text.contains("terminal") && text.lines().count() == 1,
        "{}: {text}",
        output.status
    );
    Ok(())
}
