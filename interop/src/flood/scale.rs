//! Many tunnels on one broker: handshakes a second, memory for each, and whether it gets slower as they grow.

use super::clients::{Clients, Happened};
use super::floods::rss;
use crate::ferry::{Ferry, Mode};
use crate::pki::{Ca, Flaw, KeyType};
use crate::write_private;
use anyhow::{Context, Result, bail, ensure};
use ferry6::lab::Lab;
use ferry6_ike::config::Unique;
use ferry6_ike::{Connection, Identity};
use serde::Serialize;
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BROKER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const BROKER_ID: &str = "tunnel.my.domain";
/// Handshakes under way at once.
const AT_ONCE: usize = 32;
/// KiB that an idle tunnel may take.
pub const GOAL_KIB: f64 = 16.0;

/// Handshakes with one kind of authentication.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    pub auth: &'static str,
    pub handshakes: usize,
    pub per_second: f64,
}

/// Many tunnels that stay.
#[derive(Clone, Debug, Serialize)]
pub struct Many {
    pub tunnels: usize,
    /// Handshakes a second, of each tenth of them.
    pub tenths: Vec<f64>,
    /// Resident memory of the broker before and after, MiB, and for each tunnel, KiB.
    pub rss: [f64; 2],
    pub kib_each: f64,
    /// The same after 35 s without traffic: with the answers to IKE_AUTH, which are kept for three minutes.
    pub kib_each_idle: f64,
    /// `ferry6 status --json` with all of them, seconds.
    pub status: f64,
    /// To close all, in an orderly way, seconds.
    pub stop: f64,
}

/// One generator on one host, one broker on another.
struct World {
    _lab: Lab,
    clients: Clients,
    broker: Ferry,
    connection: Connection,
}

impl World {
    fn start(ferry6: &Path, dir: &Path, local: &str, client: &str, more: &str) -> Result<Self> {
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        std::fs::create_dir_all(dir)?;
        let lab = Lab::new()?;
        let (generator, host) = (lab.host("clients")?, lab.host("broker")?);
        lab.link(&generator, "eth0", &host, "eth0")?;
        generator.address("eth0", "10.9.0.1/24")?;
        host.address("eth0", &format!("{BROKER}/24"))?;
        let toml = format!(
            "control = \"{}\"\nstate_dir = \"{}\"\n[listen]\nhandshakes_per_source = 0\nhalf_open_per_source = 10000\n\
             [pool]\nrange = \"2a00:2::/112\"\n[local]\nid = \"{BROKER_ID}\"\n{local}[remote]\nid = \"*@my.domain\"\n{more}",
            Ferry::socket(dir).display(),
            dir.join("state").display()
        );
        let broker = Ferry::start(ferry6, &host, Mode::Broker, dir, &toml, &[])?;
        let file = dir.join("client.toml");
        let text = format!(
            "[broker]\naddress = \"{BROKER}\"\n[local]\n{client}[remote]\nid = \"{BROKER_ID}\"\n{more}"
        );
        write_private(&file, &text)?;
        let connection = ferry6::config::client(&file)?.connection;
        let clients = Clients::new(&generator, BROKER)?;
        Ok(Self { _lab: lab, clients, broker, connection })
    }

    /// So many handshakes; each that is up is closed again, or stays. Returns when each was up, after the start.
    fn run(
        &mut self,
        count: usize,
        stay: bool,
        name: impl Fn(usize) -> Option<Identity>,
    ) -> Result<Vec<Duration>> {
        let begin = Instant::now();
        let (mut started, mut under_way, mut up) = (0, 0, Vec::with_capacity(count));
        let mut closing = HashSet::new();
        while up.len() < count || under_way > 0 {
            while under_way < AT_ONCE && started < count {
                let mut connection = self.connection.clone();
                if let Some(id) = name(started) {
                    connection.local_id = id;
                }
                self.clients.initiate(&Arc::new(connection))?;
                started += 1;
                under_way += 1;
            }
            for happened in self.clients.turn(Duration::from_millis(20))? {
                match happened {
                    Happened::Up(ike) => {
                        up.push(begin.elapsed());
                        if stay {
                            under_way -= 1;
                        } else {
                            closing.insert(ike);
                            self.clients.close(ike)?;
                        }
                    }
                    Happened::Closed(ike, _) if closing.remove(&ike) => under_way -= 1,
                    Happened::Child(_) | Happened::Esp(_) => {}
                    Happened::Closed(_, why) => bail!("a tunnel ended: {why}\n{}", self.broker.log()),
                }
            }
            ensure!(begin.elapsed() < Duration::from_secs(240), "{} of {count} were up in 240 s", up.len());
        }
        Ok(up)
    }
}

fn rate_of(up: &[Duration]) -> f64 {
    match (up.first(), up.last()) {
        (Some(first), Some(last)) if last > first => (up.len() - 1) as f64 / (*last - *first).as_secs_f64(),
        _ => 0.0,
    }
}

/// Handshakes with certificates of both sides, each closed when it is up.
pub fn rate(ferry6: &Path, dir: &Path, auth: &'static str, key: KeyType, count: usize) -> Result<Rate> {
    let pki = dir.join(format!("pki-{auth}"));
    let ca = Ca::new(&pki, "ca", key)?;
    let broker = ca.issue("broker", BROKER_ID, key, Flaw::default())?;
    let client = ca.issue("client", "client@my.domain", key, Flaw::default())?;
    let lines =
        |cert: &Path, key: &Path| format!("cert = \"{}\"\nkey = \"{}\"\n", cert.display(), key.display());
    let more = format!("ca = \"{}\"\n[ike]\nunique = \"never\"\n", ca.cert.display());
    let own = lines(&broker.cert, &broker.key);
    let theirs = lines(&client.cert, &client.key);
    let mut world = World::start(ferry6, &dir.join(auth), &own, &theirs, &more)?;
    world.connection.unique = Unique::Never;
    let up = world.run(count, false, |_| None)?;
    world.broker.stop()?;
    Ok(Rate { auth, handshakes: count, per_second: rate_of(&up) })
}

/// A broker whose users have a pre-shared key in common, and a generator that speaks for them.
fn of_users(ferry6: &Path, dir: &Path) -> Result<World> {
    let secret = "psk = \"a secret of the scale alone\"\n";
    let client = format!("id = \"client@my.domain\"\n{secret}");
    World::start(ferry6, dir, secret, &client, "")
}

fn user(number: usize) -> Option<Identity> {
    format!("user{number}@my.domain").parse().ok()
}

/// A broker with many tunnels, to be looked at.
pub struct Crowd(World);

impl Crowd {
    /// With so many; the broker's files are in `dir`.
    ///
    /// # Errors
    /// They are not up in time.
    pub fn gather(ferry6: &Path, dir: &Path, count: usize) -> Result<Self> {
        let mut world = of_users(ferry6, dir)?;
        world.run(count, true, user)?;
        Ok(Self(world))
    }

    /// The broker.
    pub fn broker(&self) -> &Ferry {
        &self.0.broker
    }
}

/// So many tunnels, each of another user.
pub fn many(ferry6: &Path, dir: &Path, count: usize) -> Result<Many> {
    let mut world = of_users(ferry6, &dir.join("many"))?;
    let pid = world.broker.pid().context("the broker runs")?;
    // One user first: what a broker needs with the first tunnel is not the second one's.
    world.run(1, true, |_| user(1_000_000))?;
    let before = rss(pid)?;
    let up = world.run(count, true, user)?;
    let after = rss(pid)?;
    let tenths = up.chunks((count / 10).max(2)).map(rate_of).collect();
    let begin = Instant::now();
    let status = world.broker.status()?;
    let took = begin.elapsed().as_secs_f64();
    let there = status[0]["router"]["ike_sas"].as_array().map_or(0, Vec::len);
    ensure!(there == count + 1, "{there} of {} tunnels are there\n{}", count + 1, world.broker.log());
    // The last half-open and closed ones are gone by then; the answers to IKE_AUTH, kept for three minutes, are not.
    let until = Instant::now() + Duration::from_secs(35);
    while Instant::now() < until {
        world.clients.turn(Duration::from_millis(100))?;
    }
    let idle = rss(pid)?;
    let begin = Instant::now();
    let stopping = std::thread::scope(|scope| {
        let (broker, clients) = (&mut world.broker, &mut world.clients);
        let stopping = scope.spawn(|| broker.stop());
        while !stopping.is_finished() {
            if clients.turn(Duration::from_millis(20)).is_err() {
                break;
            }
        }
        stopping.join().map_err(|_| anyhow::anyhow!("the thread that stops the broker panicked"))
    })?;
    stopping?;
    let each = |rss: f64| (rss - before) * 1024.0 / count as f64;
    Ok(Many {
        tunnels: count,
        tenths,
        rss: [before, after],
        kib_each: each(after),
        kib_each_idle: each(idle),
        status: took,
        stop: begin.elapsed().as_secs_f64(),
    })
}

/// The tables.
pub fn table(rates: &[Rate], many: Option<&Many>) -> String {
    let mut out = String::new();
    for Rate { auth, handshakes, per_second } in rates {
        out += &format!(
            "{auth:<12} {per_second:>7.0} handshakes a second, of {handshakes}, each closed again\n"
        );
    }
    if let Some(many) = many {
        let tenths: Vec<String> = many.tenths.iter().map(|rate| format!("{rate:.0}")).collect();
        out += &format!(
            "{} tunnels: RSS {:.1} to {:.1} MiB, {:.1} KiB each, {:.1} when idle for 35 s (goal {GOAL_KIB})\n\
             handshakes a second, by tenths: {}\nstatus --json {:.2} s, orderly end {:.2} s\n",
            many.tunnels,
            many.rss[0],
            many.rss[1],
            many.kib_each,
            many.kib_each_idle,
            tenths.join(" "),
            many.status,
            many.stop
        );
    }
    out
}
