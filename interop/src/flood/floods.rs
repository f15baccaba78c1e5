//! The floods, one after the other: what they cost the tunnel that stands, whether a newcomer gets in, what they leave in
//! memory.

use super::attack::{Attack, Load, Random, Sink, overhear};
use super::clients::{Clients, Happened, first_request, with_cookie};
use super::net::{self, Net};
use crate::ferry::Ferry;
use crate::traffic::{self, Pinger};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The share of its throughput that the tunnel keeps.
const SHARE: f64 = 0.8;
/// How long a newcomer may need, seconds.
const PATIENCE: f64 = 5.0;
/// What all floods together may leave in the broker's memory, MiB: docs/security.md tells what it is made of.
pub const BOUND_MIB: f64 = 96.0;
/// Datagrams that a client sends for one of the handshakes of the last two floods: the first message, and again with a cookie.
const DATAGRAMS_EACH: f64 = 2.0;
/// How long a newcomer is waited for, seconds.
const LONGEST: u64 = 20;
/// Sources of the half-open flood; as many IKE SAs each as one may have.
const SOURCES: u32 = 400;

/// The floods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Init,
    Garbage500,
    Garbage4500,
    Marked4500,
    UnknownSpi,
    NearSpi,
    Replay,
    ForgedCookie,
    ForgedSpi,
    OpenAndDrop,
    HalfOpen,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Init,
        Self::Garbage500,
        Self::Garbage4500,
        Self::Marked4500,
        Self::UnknownSpi,
        Self::NearSpi,
        Self::Replay,
        Self::ForgedCookie,
        Self::ForgedSpi,
        Self::OpenAndDrop,
        Self::HalfOpen,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init-spoofed",
            Self::Garbage500 => "garbage-500",
            Self::Garbage4500 => "garbage-4500",
            Self::Marked4500 => "garbage-4500-ike",
            Self::UnknownSpi => "esp-unknown-spi",
            Self::NearSpi => "esp-near-spi",
            Self::Replay => "esp-replayed",
            Self::ForgedCookie => "init-forged-cookie",
            Self::ForgedSpi => "ike-forged-spi",
            Self::OpenAndDrop => "open-and-drop",
            Self::HalfOpen => "half-open",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Init | Self::ForgedCookie | Self::Garbage500 => 500,
            _ => 4500,
        }
    }
}

/// What one flood did.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub flood: &'static str,
    /// Thousands of datagrams a second that were sent to the sink, and to the broker; of the last two, handshakes.
    pub kpps: [f64; 2],
    /// Mbit/s through the tunnel meanwhile.
    pub mbits: [f64; 2],
    /// The second by the first; the median of the rounds.
    pub share: f64,
    /// From the start of a new client's process to its first ping, seconds.
    pub newcomer: f64,
    /// Resident memory of the broker, MiB, and how much more than before all floods.
    pub rss: f64,
    pub growth: f64,
    /// What the broker counted meanwhile.
    pub counted: BTreeMap<String, u64>,
}

impl Row {
    /// What was not kept of what is promised.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.share < SHARE {
            faults.push(format!("{}: the tunnel kept {:.2} of its throughput", self.flood, self.share));
        }
        if self.newcomer > PATIENCE {
            faults.push(format!("{}: a newcomer needed {:.1} s", self.flood, self.newcomer));
        }
        if self.growth > BOUND_MIB {
            faults.push(format!("{}: the broker grew by {:.1} MiB", self.flood, self.growth));
        }
        faults
    }
}

/// Something that attacks, until it is stopped and tells its rate.
enum Running {
    Packets(Attack),
    Handshakes { stop: Arc<AtomicBool>, done: Arc<AtomicU64>, begin: Instant, thread: JoinHandle<Result<()>> },
}

impl Running {
    fn handshakes(work: impl FnOnce(&AtomicBool, &AtomicU64) -> Result<()> + Send + 'static) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (flag, count) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = std::thread::spawn(move || work(&flag, &count));
        Self::Handshakes { stop, done, begin: Instant::now(), thread }
    }

    /// A second.
    fn stop(self) -> Result<f64> {
        match self {
            Self::Packets(attack) => attack.stop(),
            Self::Handshakes { stop, done, begin, thread } => {
                stop.store(true, Ordering::Relaxed);
                let seconds = begin.elapsed().as_secs_f64();
                thread.join().map_err(|_| anyhow::anyhow!("the attacker panicked"))??;
                Ok(done.load(Ordering::Relaxed) as f64 / seconds)
            }
        }
    }
}

/// A tunnel that stands, and its attacker.
pub struct Arena {
    net: Net,
    broker: Ferry,
    _client: Ferry,
    seconds: f64,
    /// Packets a second of an attack; 0: as many as the machine can send.
    rate: u64,
    first_rss: f64,
}

impl Arena {
    /// Starts broker and client.
    pub fn start(net: Net, seconds: f64, rate: u64) -> Result<Self> {
        let broker = net.broker("")?;
        let client = net.connect(&net.client, "client")?;
        net.wait_for_ping(&net.client, Duration::from_secs(10)).with_context(|| client.log())?;
        // Buffers are in use, as they are after a while of any traffic.
        throughput(&net, 1.0)?;
        let pid = broker.pid().context("the broker runs")?;
        Ok(Self { net, broker, _client: client, seconds, rate, first_rss: rss(pid)? })
    }

    fn attack(&self, kind: Kind, port: u16, rate: u64) -> Result<Running> {
        let packets = |load: Load| {
            let to = (net::BROKER_AT_ATTACKER, port);
            Ok(Running::Packets(Attack::start(&self.net.attacker, &load, to, rate)?))
        };
        match kind {
            Kind::Init => packets(Load::Init(first_request(&self.net.client_config("nobody")?.connection)?)),
            Kind::Garbage500 | Kind::Garbage4500 => packets(Load::Garbage),
            Kind::Marked4500 => packets(Load::MarkedGarbage),
            Kind::UnknownSpi => packets(Load::UnknownSpi),
            Kind::NearSpi => packets(Load::NearSpi),
            Kind::ForgedCookie => packets(Load::Init(self.learn_cookie()?)),
            Kind::ForgedSpi => packets(Load::ForgedSpi),
            // Fresh ones: while little else is sent they are duplicates, then they are older than the window.
            Kind::Replay => packets(Load::Replay(overhear(&self.net.broker, 64, || {
                traffic::ping_count(&self.net.client, net::SERVER, 64, Duration::from_millis(2)).map(drop)
            })?)),
            Kind::OpenAndDrop => self.open_and_drop(),
            Kind::HalfOpen => self.half_open(),
        }
    }

    /// A first message with a cookie that was right for another one: so an attacker who has asked once knows what they look like.
    fn learn_cookie(&self) -> Result<Vec<u8>> {
        let request = first_request(&self.net.client_config("nobody")?.connection)?;
        let socket = self.net.attacker.run(|| {
            let own = Ipv4Addr::from(u32::from(net::OWN_NET) + 0x1_0000);
            let socket = UdpSocket::bind((own, 0))?;
            socket.connect((net::BROKER_AT_ATTACKER, 500))?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(socket)
        })?;
        let (mut random, mut buffer) = (Random(11), [0; 2048]);
        // The first few are answered without.
        for _ in 0..300 {
            let mut message = request.clone();
            random.fill(&mut message[..8]);
            socket.send(&message)?;
            if let Ok(len) = socket.recv(&mut buffer)
                && let Some(again) = with_cookie(&message, &buffer[..len])
            {
                return Ok(again);
            }
        }
        anyhow::bail!("the broker asks for no cookie")
    }

    /// A user of the broker who opens IKE SAs and closes them again, as many as it may.
    fn open_and_drop(&self) -> Result<Running> {
        let connection = Arc::new(self.net.client_config("eve")?.connection);
        let mut clients = Clients::new(&self.net.attacker, net::BROKER_AT_ATTACKER)?;
        Ok(Running::handshakes(move |stop, done| {
            let mut under_way = 0;
            while !stop.load(Ordering::Relaxed) {
                while under_way < 16 {
                    clients.initiate(&connection)?;
                    under_way += 1;
                }
                for happened in clients.turn(Duration::from_millis(10))? {
                    match happened {
                        Happened::Up(ike) => {
                            done.fetch_add(1, Ordering::Relaxed);
                            clients.close(ike)?;
                        }
                        Happened::Closed(..) => under_way -= 1,
                        Happened::Child(_) | Happened::Esp(_) => {}
                    }
                }
            }
            Ok(())
        }))
    }

    /// From many true addresses: each repeats its cookie, and none goes on to IKE_AUTH.
    fn half_open(&self) -> Result<Running> {
        let request = first_request(&self.net.client_config("nobody")?.connection)?;
        let sockets = self.net.attacker.run(|| {
            (0..SOURCES)
                .map(|n| {
                    let own = Ipv4Addr::from(u32::from(net::OWN_NET) + 1 + n);
                    let socket = UdpSocket::bind((own, 0))?;
                    socket.connect((net::BROKER_AT_ATTACKER, 500))?;
                    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
                    Ok(socket)
                })
                .collect::<std::io::Result<Vec<_>>>()
        })?;
        Ok(Running::handshakes(move |stop, done| {
            let (mut random, mut buffer) = (Random(7), [0; 2048]);
            for socket in sockets.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let mut message = request.clone();
                random.fill(&mut message[..8]);
                // A question and its answer, twice at most; what is lost is lost.
                for _ in 0..2 {
                    socket.send(&message)?;
                    let Ok(len) = socket.recv(&mut buffer) else { break };
                    match with_cookie(&message, &buffer[..len]) {
                        Some(again) => message = again,
                        None => {
                            done.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                    }
                }
            }
            Ok(())
        }))
    }

    /// One flood, against the sink and against the broker, in turn.
    pub fn measure(&self, kind: Kind, rounds: usize) -> Result<Row> {
        let closed_loop = matches!(kind, Kind::OpenAndDrop | Kind::HalfOpen);
        let before = self.counters()?;
        let (mut kpps, mut mbits, mut shares) =
            ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()], Vec::new());
        let mut newcomer = 0.0_f64;
        for round in 0..rounds {
            // Who waits for answers gets none from a sink: it gets as many datagrams a second as the broker got.
            for broker in if closed_loop { [true, false] } else { [false, true] } {
                let at = usize::from(broker);
                let sink = Sink::start(&self.net.broker)?;
                let running = if broker {
                    // The same load: where as much is sent as one thread can, as much as the sink got.
                    let rate = match kpps[0].get(round) {
                        Some(sent) if self.rate == 0 => (sent * 1e3) as u64,
                        _ => self.rate,
                    };
                    self.attack(kind, kind.port(), rate)?
                } else if closed_loop {
                    let load = Load::Init(first_request(&self.net.client_config("nobody")?.connection)?);
                    let to = (net::BROKER_AT_ATTACKER, sink.port);
                    let rate = (kpps[1][round] * 1e3 * DATAGRAMS_EACH) as u64;
                    Running::Packets(Attack::start(&self.net.attacker, &load, to, rate.max(1))?)
                } else {
                    self.attack(kind, sink.port, self.rate)?
                };
                if broker && kind == Kind::HalfOpen && round == 0 {
                    self.fill_the_table()?;
                }
                std::thread::sleep(Duration::from_millis(300));
                mbits[at].push(throughput(&self.net, self.seconds)?);
                if broker {
                    newcomer = newcomer.max(self.newcomer()?);
                }
                kpps[at].push(running.stop()? / 1e3);
                let seen = sink.stop()?;
                ensure!(broker || seen > 0, "the sink saw nothing");
            }
            shares.push(mbits[1][round] / mbits[0][round]);
        }
        let rss = rss(self.broker.pid().context("the broker runs")?)?;
        let counted = self.counters()?.into_iter().filter_map(|(name, count)| {
            let more = count - before.get(&name).copied().unwrap_or(0).min(count);
            (more > 0).then_some((name, more))
        });
        Ok(Row {
            flood: kind.name(),
            kpps: kpps.map(median),
            mbits: mbits.map(median),
            share: median(shares),
            newcomer,
            rss,
            growth: rss - self.first_rss,
            counted: counted.collect(),
        })
    }

    /// The tunnel under one flood after the other, for so long each: pings, a newcomer, memory.
    pub fn endure(&self, kinds: &[Kind], time: Duration) -> Result<()> {
        for kind in kinds {
            let running = self.attack(*kind, kind.port(), self.rate)?;
            let pinger = Pinger::start(&self.net.client, net::SERVER, Duration::from_millis(5))?;
            let came = self.newcomer();
            std::thread::sleep(time);
            let count = pinger.stop()?;
            let rate = running.stop()?;
            let came = came?;
            let grown = rss(self.broker.pid().context("the broker runs")?)? - self.first_rss;
            println!(
                "{}: {rate:.0} a second; {count:?}; a newcomer came in {came:.2} s; grown by {grown:.1} MiB",
                kind.name()
            );
            ensure!(
                count.sent > 100 && count.received * 100 >= count.sent * 99,
                "{}: {count:?}",
                kind.name()
            );
            ensure!(came <= PATIENCE, "{}: a newcomer needed {came:.1} s", kind.name());
            ensure!(grown <= BOUND_MIB, "{}: the broker has grown by {grown:.1} MiB", kind.name());
        }
        Ok(())
    }

    /// Waits until there are as many half-open ones as there may be.
    fn fill_the_table(&self) -> Result<()> {
        crate::wait_until("10,000 IKE SAs are half-open", Duration::from_secs(25), || {
            Ok(self.status()?["router"]["half_open"].as_u64().is_some_and(|n| n >= 10_000))
        })
    }

    /// How long a new honest client needs, seconds; who has not come by then is taken for one that needs so long.
    fn newcomer(&self) -> Result<f64> {
        let begin = Instant::now();
        let mut guest = self.net.connect(&self.net.guest, "guest")?;
        let came = self.net.wait_for_ping(&self.net.guest, Duration::from_secs(LONGEST));
        let took = begin.elapsed().as_secs_f64();
        if let Err(error) = came {
            eprintln!("{error:#}\n{}", guest.log());
        }
        guest.stop()?;
        Ok(took)
    }

    fn status(&self) -> Result<Value> {
        Ok(self.broker.status()?[0].take())
    }

    /// What the broker counted so far: drops of the router and of IKE, and what the log kept back is none of it.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let status = self.status()?;
        let mut all = BTreeMap::new();
        for part in ["drops", "ike"] {
            for (name, count) in status["router"][part].as_object().into_iter().flatten() {
                all.insert(name.clone(), count.as_u64().unwrap_or(0));
            }
        }
        // Those of the SA that stands count, too: a replay is its affair.
        let children = status["router"]["ike_sas"].as_array().into_iter().flatten();
        for child in children.filter_map(|sa| sa["children"].as_array()).flatten() {
            for (name, count) in child["drops"].as_object().into_iter().flatten() {
                *all.entry(name.clone()).or_default() += count.as_u64().unwrap_or(0);
            }
        }
        Ok(all)
    }

    /// The broker's log.
    pub fn log(&self) -> String {
        self.broker.log()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Resident memory, MiB.
pub fn rss(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}

/// One TCP stream from the client through the tunnel to the server, Mbit/s.
fn throughput(net: &Net, seconds: f64) -> Result<f64> {
    let listener = net.server.run(|| TcpListener::bind((net::SERVER, 0)))?;
    let address = listener.local_addr()?;
    let mut sender = net.client.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(10)))?;
    let (mut receiver, _) = listener.accept()?;
    receiver.set_read_timeout(Some(Duration::from_secs(10)))?;
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let sending = std::thread::spawn(move || {
        let chunk = vec![0x36; 128 << 10];
        while Instant::now() < end && sender.write_all(&chunk).is_ok() {}
    });
    let (begin, mut octets, mut buffer) = (Instant::now(), 0_usize, vec![0; 256 << 10]);
    loop {
        match receiver.read(&mut buffer).context("the tunnel stands still")? {
            0 => break,
            len => octets += len,
        }
    }
    let elapsed = begin.elapsed().as_secs_f64();
    sending.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
    Ok(octets as f64 * 8.0 / 1e6 / elapsed)
}

/// The table.
pub fn table(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<18} {:>9} {:>9} {:>8} {:>8} {:>6} {:>8} {:>7} {:>7}  counted\n{:<18} {:>9} {:>9} {:>8} {:>8} {:>6} {:>8} {:>7} {:>7}\n",
        "flood",
        "to sink",
        "to broker",
        "tunnel",
        "tunnel",
        "share",
        "newcomer",
        "RSS",
        "grown",
        "",
        "kpps",
        "kpps",
        "Mbit/s",
        "Mbit/s",
        "",
        "s",
        "MiB",
        "MiB"
    );
    for row in rows {
        let counted: Vec<String> =
            row.counted.iter().map(|(name, count)| format!("{name} {count}")).collect();
        out += &format!(
            "{:<17} {:>9.1} {:>9.2} {:>8.0} {:>8.0} {:>6.2} {:>8.2} {:>7.1} {:>7.1}  {}\n",
            row.flood,
            row.kpps[0],
            row.kpps[1],
            row.mbits[0],
            row.mbits[1],
            row.share,
            row.newcomer,
            row.rss,
            row.growth,
            counted.join(", ")
        );
    }
    out
}

/// What was not kept, over all.
pub fn faults(rows: &[Row]) -> Vec<String> {
    rows.iter().flat_map(Row::faults).collect()
}
