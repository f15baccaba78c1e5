//! Viewers of a broker with thousands of tunnels.

use super::web::Web;
use super::{Case, Env, Peer, Role};
use crate::ferry::Ferry;
use crate::flood::scale::Crowd;
use crate::tmux::Terminal;
use anyhow::{Result, ensure};
use std::process::Command;
use std::time::{Duration, Instant};

const TUNNELS: usize = 2000;
/// What one refresh may take, however busy the machine: with work for each pair of tunnels it takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn cases() -> Vec<Case> {
    let case = Case::new(
        "monitor-crowd",
        Peer::Ferry6,
        Role::Broker,
        "2,000 tunnels: status, monitor and status page show them within seconds, and what is drawn is bounded",
        crowd,
    );
    vec![Case { timeout: Duration::from_secs(180), ..case }]
}

/// Does it, and says in the log how long that took.
fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    let done = work()?;
    let took = begin.elapsed();
    println!("{what}: {took:?}");
    ensure!(took < PATIENCE, "{what} took {took:?}");
    Ok(done)
}

fn crowd(env: &mut Env) -> Result<()> {
    let dir = env.dir.join("crowd");
    let crowd = Crowd::gather(&env.ferry6, &dir, TUNNELS)?;
    let status = timed("status --json", || crowd.broker().status())?;
    let there = status[0]["router"]["ike_sas"].as_array().map_or(0, Vec::len);
    ensure!(there == TUNNELS, "{there} tunnels are there");

    let socket = Ferry::socket(&dir).display().to_string();
    let terminal =
        Terminal::start(&env.dir, (120, 40), &format!("{} monitor --socket {socket}", env.ferry6.display()))?;
    timed("the monitor's first screen", || terminal.wait_for(&["tunnels 1/2,000", "leases 2,000"]))?;
    // What is typed is done at once, all the way down.
    timed("500 keys", || {
        for _ in 0..10 {
            terminal.press(&["Down"; 50])?;
        }
        terminal.wait_for(&["tunnels 501/2,000"])
    })?;
    timed("the end of the monitor", || {
        terminal.press(&["q"])?;
        // Its server ends with it.
        crate::wait_until("the monitor ends", PATIENCE, || Ok(terminal.screen().is_err()))
    })?;

    let web = Web::launch(env, Command::new(&env.ferry6).args(["web", "--socket", &socket]))?;
    web.wait_for("/healthz", "the broker has answered", |status, _| status == 200)?;
    let (status, page) = timed("the status page", || web.get("/"))?;
    ensure!(status == 200 && page.contains("and 1,500 more"), "{status}: {}", &page[..page.len().min(2000)]);
    ensure!(page.len() < 1 << 20, "the page has {} octets", page.len());
    let (_, metrics) = timed("/metrics", || web.get("/metrics"))?;
    let up = metrics.lines().filter(|l| l.starts_with("ferry6_tunnel_up{") && l.ends_with(" 1")).count();
    ensure!(up == TUNNELS, "/metrics has {up} tunnels");
    Ok(())
}
