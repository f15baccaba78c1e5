//! The soak: a tunnel under traffic both ways, while keys are replaced every few seconds from both sides, the NAT forgets its
//! mappings, the client moves, the path loses, doubles and reorders datagrams, and each side is killed once. At its end
//! stands a table of what was sent, what arrived, and why the rest did not.

mod account;
pub mod full_speed;
pub mod probe;
pub mod relay;
mod sys;

use crate::cases::tunnel::{
    CLIENT_ADDRESS, Extra, FERRY6, FERRY6_RUST, Program, Side, Spec, Tunnel, server6,
};
use crate::cases::{Env, spis};
use crate::traffic;
use account::{Cause, Outage, Report};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use ferry6::lab::article::Site;
use probe::Flow;
use relay::{Faults, Random, Relay};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a killed side may take until packets flow again.
const REVIVAL: Duration = Duration::from_secs(60);
/// Longer than any packet is under way.
const SETTLE: Duration = Duration::from_millis(300);

/// Which program plays a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Ferry6,
    Strongswan,
}

/// What the soak does; also its arguments on the command line.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Soak (interop/soak MINUTES)")]
pub struct Options {
    /// Soak a tunnel for so many minutes (0.5 is half a minute), instead of running the cases.
    #[arg(long, value_name = "MINUTES")]
    pub soak: Option<f64>,
    /// The client.
    #[arg(long, value_enum, default_value = "ferry6")]
    pub client: Part,
    /// The broker.
    #[arg(long, value_enum, default_value = "ferry6")]
    pub broker: Part,
    /// `strongswan`: with strongSwan as broker, as client, and as both, to compare.
    #[arg(long, value_enum)]
    pub peer: Option<Part>,
    /// Datagrams that the path loses, in per cent.
    #[arg(long, default_value_t = 5.0)]
    pub loss: f64,
    /// Datagrams that are overtaken by later ones, in per cent.
    #[arg(long, default_value_t = 3.0)]
    pub reorder: f64,
    /// Datagrams that arrive twice, in per cent.
    #[arg(long, default_value_t = 1.0)]
    pub duplicate: f64,
    /// Kill neither side.
    #[arg(long)]
    pub no_kill: bool,
    /// The NAT keeps its mappings.
    #[arg(long)]
    pub no_rebinding: bool,
    /// The client stays where it is.
    #[arg(long)]
    pub no_moves: bool,
    /// How long a NAT that has rebound lets packets in for the old mapping, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pub nat_grace: u64,
    /// Probes a second, each way.
    #[arg(long, default_value_t = 400)]
    pub rate: u32,
    /// What all chance comes from.
    #[arg(long, default_value_t = 6)]
    pub seed: u64,
}

impl Options {
    /// Rekeys alone under traffic for so many seconds: nothing may be lost.
    pub fn calm(seconds: f64) -> Self {
        Self {
            soak: Some(seconds / 60.0),
            client: Part::Ferry6,
            broker: Part::Ferry6,
            peer: None,
            loss: 0.0,
            reorder: 0.0,
            duplicate: 0.0,
            no_kill: true,
            no_rebinding: true,
            no_moves: true,
            // Longer than it takes until a broker behind a NAT, which does not follow by itself, is told.
            nat_grace: 20_000,
            rate: 400,
            seed: 6,
        }
    }

    fn faults(&self) -> Faults {
        let parts = |percent: f64| (percent.clamp(0.0, 100.0) * 10_000.0) as u32;
        Faults {
            loss: parts(self.loss),
            reorder: parts(self.reorder),
            duplicate: parts(self.duplicate),
            hold: Duration::from_millis(15),
            nat_grace: Duration::from_millis(self.nat_grace),
        }
    }
}

fn program(part: Part, broker: bool) -> Program {
    match part {
        Part::Strongswan => Program::StrongSwan,
        // Both providers take part.
        Part::Ferry6 => {
            if broker {
                FERRY6_RUST
            } else {
                FERRY6
            }
        }
    }
}

fn spec(env: &Env, options: &Options) -> Result<Spec> {
    let mut spec = Spec::certified(env, program(options.client, false), program(options.broker, true))?;
    // Six tries in ten seconds: of a thousand exchanges on a path that loses every 20th datagram, none fails by chance.
    let extra = |child: &str, ike: &str| Extra {
        ike: format!(
            "rekey = \"{ike}\"\ndpd = \"2s\"\nretransmit_timeout = \"250ms\"\nretransmit_tries = 6\n"
        ),
        child: format!("rekey = \"{child}\"\n"),
        ..Extra::default()
    };
    spec.ferry_client = extra("3s", "7s");
    spec.ferry_broker = extra("4s", "8s");
    spec.swan_connection = "  rekey_time = 8s\n  over_time = 60s\n  dpd_delay = 2s\n".into();
    spec.swan_child = "    rekey_time = 4s\n    life_time = 60s\n    dpd_action = restart\n".into();
    Ok(spec)
}

/// The running soak.
struct Soak<'a> {
    env: &'a Env,
    spec: Spec,
    relay: Relay,
    flows: Vec<Flow>,
    outages: Vec<Outage>,
    start: Instant,
}

impl Soak<'_> {
    fn now(&self) -> u32 {
        self.start.elapsed().as_millis() as u32
    }

    /// Kills one side, starts it again, and waits until packets flow both ways.
    fn kill(&mut self, tunnel: Tunnel, cause: Cause) -> Result<Tunnel> {
        // What is lost from here on has one cause. IKE is lost as before: the new handshake must bear it.
        self.relay.spare_esp(true);
        let calm = self.now();
        crate::wait_until("packets flow before the kill", REVIVAL, || {
            Ok(self.flows.iter().all(|f| f.arrived_since(calm)))
        })
        .with_context(|| tunnel.logs())?;
        std::thread::sleep(SETTLE);
        // What had not arrived by now may be inside the side that dies.
        let from = self.flows.iter().map(Flow::newest).min().unwrap_or(0);
        let Tunnel { client, broker } = tunnel;
        let tunnel = match cause {
            Cause::ClientKilled => Tunnel { client: self.revive(client, cause)?, broker },
            Cause::BrokerKilled => Tunnel { client, broker: self.revive(broker, cause)? },
        };
        let alive = self.now();
        crate::wait_until("packets flow again", REVIVAL, || {
            Ok(self.flows.iter().all(|f| f.arrived_since(alive)))
        })
        .with_context(|| tunnel.logs())?;
        let to = self.now();
        self.outages.push(Outage { cause, from, to });
        std::thread::sleep(SETTLE);
        self.relay.spare_esp(false);
        Ok(tunnel)
    }

    fn revive(&self, side: Side, cause: Cause) -> Result<Side> {
        match side {
            Side::Ferry(mut ferry) => {
                ferry.kill()?;
                std::thread::sleep(SETTLE);
                ferry.restart()?;
                Ok(Side::Ferry(ferry))
            }
            Side::Swan(swan) => {
                swan.kill()?;
                std::thread::sleep(SETTLE);
                if cause == Cause::BrokerKilled {
                    return self.spec.start_broker(self.env);
                }
                let client = self.spec.start_client(self.env)?;
                initiate(&client)?;
                Ok(client)
            }
        }
    }
}

/// strongSwan gives up after some tries.
fn initiate(client: &Side) -> Result<()> {
    if let Side::Swan(swan) = client
        && swan.initiate().is_err()
    {
        swan.initiate()?;
    }
    Ok(())
}

/// The places where the client can be: behind the home router, and behind another one.
struct Places<'a> {
    env: &'a Env,
    away: Option<Site>,
    at_home: bool,
}

impl Places<'_> {
    /// The client's other interface becomes its way out; what is under way on the old one still arrives.
    fn swap(&mut self) -> Result<()> {
        self.at_home = !self.at_home;
        let gateway = if self.at_home { "192.168.0.1" } else { "192.168.2.1" };
        let interface = if self.at_home { "eth0" } else { "eth1" };
        crate::cases::tunnel::ip(
            &self.env.net.home,
            &format!("route replace default via {gateway} dev {interface}"),
        )
        .map(drop)
    }
}

/// Soaks a tunnel between two peers.
///
/// # Errors
/// The tunnel did not come up, or not again; a TCP transfer failed.
pub fn run(env: &Env, options: &Options) -> Result<Report> {
    let lasting = Duration::from_secs_f64(options.soak.unwrap_or(1.0).max(0.1) * 60.0);
    let mut interfaces = vec!["home", "colo"];
    let mut places = Places { env, away: None, at_home: true };
    if !options.no_moves {
        let site = env.net.site(2)?;
        env.net.attach(&site, &env.net.home, "eth1")?;
        places.away = Some(site);
        interfaces.push("home2");
    }
    let relay = Relay::start(&env.net.internet, &interfaces, options.faults(), options.seed)?;
    let spec = spec(env, options)?;
    let broker = spec.start_broker(env)?;
    let client = spec.start_client(env)?;
    initiate(&client)?;
    let mut tunnel = Tunnel { client, broker };
    traffic::wait_for_ping(&env.net.home, server6()?, Duration::from_secs(30))
        .with_context(|| tunnel.logs())?;
    for host in [&env.net.home, &env.net.server] {
        // TCP waits twice as long after each try that fails: where the path is dead for seconds, again and again, that alone
        // comes to more than any patience. Kernels before 6.15 cannot be told.
        if host.sysctl("net/ipv4/tcp_rto_max_ms", "2000").is_ok() {
            host.sysctl("net/ipv4/tcp_retries2", "60")?;
        }
    }
    let tcp = Transfers::start(env)?;

    let start = Instant::now();
    let every = Duration::from_secs(1) / options.rate.clamp(1, 20_000);
    let (home, server) = (&env.net.home, &env.net.server);
    let flows = vec![
        Flow::start(account::UP, home, (server, server6()?, 5300), every, start)?,
        Flow::start(account::DOWN, server, (home, CLIENT_ADDRESS.parse()?, 5301), every, start)?,
    ];
    let mut soak = Soak { env, spec, relay, flows, outages: Vec::new(), start };
    let mut random = Random::new(options.seed ^ 0x5eed);
    let mut next = |least: u64, most: u64| {
        Instant::now() + Duration::from_millis(least) + random.duration(Duration::from_millis(most - least))
    };
    let (mut rebind_at, mut move_at) = (next(2000, 6000), next(5000, 9000));
    let mut kills =
        vec![(start + lasting * 2 / 3, Cause::BrokerKilled), (start + lasting / 3, Cause::ClientKilled)];
    if options.no_kill {
        kills.clear();
    }
    let (mut sas, mut moves) = (BTreeSet::new(), 0);
    while start.elapsed() < lasting {
        let now = Instant::now();
        if !options.no_rebinding && now >= rebind_at {
            soak.relay.rebind();
            rebind_at = next(2000, 8000);
        }
        if !options.no_moves && now >= move_at {
            places.swap()?;
            moves += 1;
            move_at = next(5000, 20_000);
        }
        if let Some((_, cause)) = kills.pop_if(|(at, _)| now >= *at) {
            tunnel = soak.kill(tunnel, cause)?;
        }
        if let Ok(more) = spis(&tunnel) {
            sas.extend(more);
        }
        ensure!(!tcp.failed(), "{:?}\n{}", tcp.stop().err(), tunnel.logs());
        std::thread::sleep(Duration::from_millis(100));
    }
    let transfers = tcp.stop().with_context(|| tunnel.logs())?;
    let mut counts = Vec::new();
    for flow in soak.flows {
        let name = flow.name;
        counts.push((name, flow.stop().with_context(|| tunnel.logs())?));
    }
    let kind = |kind: &str| sas.iter().filter(|s| s.starts_with(kind)).count();
    let tally = soak.relay.tally();
    let sights = tally.probes.lock().map_or_else(|_| Vec::new(), |probes| probes.clone());
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Report {
        swan: (options.client == Part::Strongswan, options.broker == Part::Strongswan),
        title: format!(
            "client {:?}, broker {:?}, {} % loss, {} % reordered, {} % doubled",
            options.client, options.broker, options.loss, options.reorder, options.duplicate
        ),
        lasted: start.elapsed(),
        flows: counts
            .into_iter()
            .map(|(name, count)| account::Way::new(name, count, &sights, start, &soak.outages))
            .collect(),
        outages: soak.outages,
        overflow: get(&tally.failed) + soak.relay.overflow()?,
        held: get(&tally.held),
        doubled: get(&tally.doubled),
        rebindings: get(&tally.rebindings),
        moves,
        ike_lost: get(&tally.lost[relay::IKE]),
        transfers,
        sas: (kind("ike"), kind("esp")),
    })
}

/// How long the last transfer may take: one that was under way while a side was dead waits for its timer.
const LAST_TRANSFER: Duration = Duration::from_secs(10);

/// TCP transfers one after the other, in the background.
struct Transfers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Transfers {
    fn start(env: &Env) -> Result<Self> {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (flag, count) = (Arc::clone(&stop), Arc::clone(&done));
        let (home, server, address) = (env.net.home.clone(), env.net.server.clone(), server6()?);
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                traffic::tcp_gently(&home, &server, address, 256 << 10)?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { stop, done, thread })
    }

    /// Whether it ended before it was told to.
    fn failed(&self) -> bool {
        self.thread.is_finished() && !self.stop.load(Ordering::Relaxed)
    }

    /// Ends it. How many came to their end.
    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let end = Instant::now() + LAST_TRANSFER;
        while !self.thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.thread.is_finished() {
            self.thread.join().map_err(|_| anyhow::anyhow!("the TCP transfers panicked"))??;
        }
        Ok(self.done.load(Ordering::Relaxed))
    }
}

/// The soak of the command line. `Ok(true)`: nothing is lost without a cause.
///
/// # Errors
/// See [`run`].
pub fn main(options: &Options, ferry6: &std::path::Path, logs: &std::path::Path) -> Result<bool> {
    let pairs = match options.peer {
        None => vec![(options.client, options.broker)],
        Some(peer) => vec![(Part::Ferry6, peer), (peer, Part::Ferry6), (peer, peer)],
    };
    let mut fine = true;
    let mut summary = Vec::new();
    for (client, broker) in pairs {
        let options = Options { client, broker, ..options.clone() };
        let dir = logs.join(format!("soak-{client:?}-{broker:?}").to_lowercase());
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        let report = run(&Env::new(ferry6, &dir)?, &options)?;
        println!("{}", report.table());
        summary.push(format!(
            "{client:?} - {broker:?}: {} lost, {} of them unexplained",
            report.lost(),
            report.unexplained()
        ));
        if let Err(error) = report.verify() {
            println!("FAILED: {error}; logs: {}", dir.display());
            fine = false;
        }
    }
    if summary.len() > 1 {
        println!("{}", summary.join("\n"));
    }
    Ok(fine)
}
