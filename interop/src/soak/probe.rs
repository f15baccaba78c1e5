//! The probes: numbered UDP packets one way through the tunnel, each with the time at which it was sent, and a content that
//! follows from its number. What was lost is known by number.

use super::relay::Random;
use anyhow::{Context, Result, bail};
use ferry6::lab::Host;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Octets of UDP payload: larger than anything else that the soak sends, so that the relay knows probes by their length.
const PAYLOAD: usize = 1252;
const HEADER: usize = 8;
/// How long packets may be under way at the end.
const LAST_WORD: Duration = Duration::from_millis(1500);

/// One way's counts.
#[derive(Debug, Default)]
pub struct Count {
    pub sent: u64,
    /// The kernel had no route or no address for it.
    pub unsent: u64,
    pub received: u64,
    pub duplicates: u64,
    /// Behind one with a higher number.
    pub late: u64,
    /// When those that never arrived were sent, in milliseconds of the soak.
    pub lost_at: Vec<u32>,
    /// When all were sent.
    pub sent_at: Vec<u32>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// When the youngest probe that arrived was sent.
    newest: AtomicU32,
}

/// A flow of probes.
pub struct Flow {
    /// `client to server`, for one.
    pub name: &'static str,
    shared: Arc<Shared>,
    sender: JoinHandle<(u64, Vec<u32>)>,
    receiver: JoinHandle<Result<Received>>,
}

#[derive(Debug, Default)]
struct Received {
    /// How often each number came.
    times: Vec<u8>,
    late: u64,
}

impl Flow {
    /// Starts it: a probe every `interval` from host to host. Times are those since `start`.
    pub fn start(
        name: &'static str,
        from: &Host,
        to: (&Host, Ipv6Addr, u16),
        interval: Duration,
        start: Instant,
    ) -> Result<Self> {
        let (host, address, port) = to;
        // Bound to no address: a client's own one goes and comes with its tunnel.
        let bind = |port: u16| move || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port));
        let out = from.run(bind(0)).context("the probes' socket")?;
        let back = host.run(bind(port)).context("the probes' socket")?;
        socket2::SockRef::from(&back).set_recv_buffer_size(4 << 20)?;
        back.set_read_timeout(Some(Duration::from_millis(50)))?;
        let shared = Arc::new(Shared::default());
        let (one, two) = (Arc::clone(&shared), Arc::clone(&shared));
        Ok(Self {
            name,
            shared,
            sender: std::thread::spawn(move || send(&one, &out, (address, port), interval, start)),
            receiver: std::thread::spawn(move || receive(&two, &back)),
        })
    }

    /// Whether a probe that was sent at this time or later has arrived.
    pub fn arrived_since(&self, milliseconds: u32) -> bool {
        self.shared.newest.load(Ordering::Relaxed) >= milliseconds
    }

    /// When the youngest probe that has arrived was sent, in milliseconds.
    pub fn newest(&self) -> u32 {
        self.shared.newest.load(Ordering::Relaxed)
    }

    /// Ends it, when the last has had time to arrive.
    pub fn stop(self) -> Result<Count> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let (unsent, sent) = self.sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        let got = self.receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
        let mut count = Count { sent: sent.len() as u64, unsent, late: got.late, ..Count::default() };
        for (number, at) in sent.iter().copied().enumerate() {
            match got.times.get(number).copied().unwrap_or(0) {
                0 => count.lost_at.push(at),
                times => {
                    count.received += 1;
                    count.duplicates += u64::from(times) - 1;
                }
            }
        }
        count.sent_at = sent;
        Ok(count)
    }
}

fn fill(number: u32, probe: &mut [u8]) {
    let mut random = Random::new(number.into());
    for word in probe.chunks_mut(6) {
        word.copy_from_slice(&random.next().to_le_bytes()[..word.len()]);
    }
}

fn send(
    shared: &Shared,
    socket: &UdpSocket,
    to: (Ipv6Addr, u16),
    interval: Duration,
    start: Instant,
) -> (u64, Vec<u32>) {
    let (mut sent, mut unsent) = (Vec::new(), 0);
    let mut probe = vec![0; PAYLOAD];
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now < next {
            std::thread::sleep(next - now);
            continue;
        }
        next += interval;
        let (number, at) = (sent.len() as u32, start.elapsed().as_millis() as u32);
        probe[..4].copy_from_slice(&number.to_be_bytes());
        probe[4..HEADER].copy_from_slice(&at.to_be_bytes());
        fill(number, &mut probe[HEADER..]);
        match socket.send_to(&probe, to) {
            Ok(_) => sent.push(at),
            Err(_) => unsent += 1,
        }
    }
    (unsent, sent)
}

fn receive(shared: &Shared, socket: &UdpSocket) -> Result<Received> {
    let mut got = Received::default();
    let (mut probe, mut expected) = (vec![0; 2 * PAYLOAD], vec![0; PAYLOAD - HEADER]);
    let mut last_word = None;
    loop {
        if shared.stop.load(Ordering::Relaxed)
            && *last_word.get_or_insert_with(|| Instant::now() + LAST_WORD) < Instant::now()
        {
            return Ok(got);
        }
        let length = match socket.recv(&mut probe) {
            Ok(length) => length,
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(e) => return Err(e).context("the probes' socket"),
        };
        if length != PAYLOAD {
            bail!("a probe of {length} octets");
        }
        let word = |at: usize| u32::from_be_bytes([probe[at], probe[at + 1], probe[at + 2], probe[at + 3]]);
        let (number, at) = (word(0), word(4));
        fill(number, &mut expected);
        if probe[HEADER..PAYLOAD] != expected {
            bail!("probe {number} arrived with another content");
        }
        let index = number as usize;
        if index >= got.times.len() {
            got.times.resize(index + 1, 0);
        } else {
            got.late += 1;
        }
        got.times[index] = got.times[index].saturating_add(1);
        shared.newest.fetch_max(at, Ordering::Relaxed);
    }
}
