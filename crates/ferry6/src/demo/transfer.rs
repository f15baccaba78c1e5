//! A TCP transfer between two hosts, with each octet checked.

use super::Interrupt;
use crate::lab::Host;
use anyhow::{Context, bail, ensure};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The content repeats after so many octets: a prime, so no power of two that goes astray goes unseen.
const PERIOD: usize = 1_048_573;
/// How long nothing may arrive.
const SILENCE: Duration = Duration::from_secs(10);
/// How often to see whether to stop.
const TICK: Duration = Duration::from_millis(200);

/// Outcome.
pub(super) struct Transfer {
    octets: u64,
    time: Duration,
}

impl std::fmt::Display for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, megabytes) = (self.time.as_secs_f64(), self.octets as f64 / 1e6);
        let rate = megabytes * 8.0 / seconds / 1000.0;
        write!(f, "{megabytes:.0} MB in {seconds:.2} s, {rate:.2} Gbit/s, each octet checked")
    }
}

/// Moves `octets` from a server at `address` to a client that connects to it, or, with `up`, the other way. The time runs from the
/// first octet sent to the word of the receiver that all have come.
pub(super) fn transfer(
    server: &Host,
    address: Ipv6Addr,
    client: &Host,
    octets: u64,
    up: bool,
    interrupt: &Interrupt,
) -> anyhow::Result<Transfer> {
    let bind = SocketAddrV6::new(address, 0, 0, 0);
    let listener =
        server.run(|| TcpListener::bind(bind)).with_context(|| format!("{}: {bind}", server.name()))?;
    let target: SocketAddr = listener.local_addr()?;
    let connected = client.run(|| TcpStream::connect_timeout(&target, SILENCE));
    let connected = connected.with_context(|| format!("{}: no TCP connection to {target}", client.name()))?;
    let (accepted, _) = listener.accept().context("the server's end of the connection")?;
    let (from, to) = if up { (connected, accepted) } else { (accepted, connected) };
    for stream in [&from, &to] {
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(TICK))?;
    }
    let pattern = pattern();
    let time = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&to, octets, &pattern, interrupt));
        let sent = send(&from, octets, &pattern, interrupt);
        // Without an end of the stream the receiver would wait for its silence.
        let _ = from.shutdown(std::net::Shutdown::Write);
        let received = receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        received.and(sent)
    })?;
    Ok(Transfer { octets, time })
}

fn send(
    mut stream: &TcpStream,
    octets: u64,
    pattern: &[u8],
    interrupt: &Interrupt,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut sent = 0;
    let mut patience = Patience::new(interrupt);
    while sent < octets {
        let at = (sent % PERIOD as u64) as usize;
        let end = pattern.len().min(at + (octets - sent).min(1 << 18) as usize);
        match stream.write(&pattern[at..end]) {
            Ok(n) => {
                sent += n as u64;
                patience.reset()?;
            }
            Err(e) => patience.wait_more(e, || format!("sending stopped after {sent} of {octets} octets"))?,
        }
    }
    let mut word = [0; 1];
    loop {
        match stream.read(&mut word) {
            Ok(1) => return Ok(start.elapsed()),
            Ok(_) => bail!("the receiver closed the connection after {sent} octets were sent"),
            Err(e) => patience.wait_more(e, || "no word from the receiver that all has come".into())?,
        }
    }
}

fn receive(mut stream: &TcpStream, octets: u64, pattern: &[u8], interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    let mut received = 0u64;
    let mut patience = Patience::new(interrupt);
    while received < octets {
        let room = buffer.len().min((octets - received) as usize);
        match stream.read(&mut buffer[..room]) {
            Ok(0) => bail!("the connection ended after {received} of {octets} octets"),
            Ok(n) => {
                let mut rest = &buffer[..n];
                while !rest.is_empty() {
                    let at = (received % PERIOD as u64) as usize;
                    let (part, after) = rest.split_at(rest.len().min(PERIOD - at));
                    ensure!(
                        part == &pattern[at..at + part.len()],
                        "other octets came than were sent, near {received}"
                    );
                    received += part.len() as u64;
                    rest = after;
                }
                patience.reset()?;
            }
            Err(e) => patience
                .wait_more(e, || format!("nothing came any more after {received} of {octets} octets"))?,
        }
    }
    stream.write_all(&[1]).context("the word that all has come")
}

/// Timeouts of a socket are for looking around; only a long silence is an error.
struct Patience<'a> {
    interrupt: &'a Interrupt,
    since: Instant,
}

impl<'a> Patience<'a> {
    fn new(interrupt: &'a Interrupt) -> Self {
        Patience { interrupt, since: Instant::now() }
    }

    fn reset(&mut self) -> anyhow::Result<()> {
        self.since = Instant::now();
        self.interrupt.check()
    }

    fn wait_more(&mut self, error: std::io::Error, what: impl Fn() -> String) -> anyhow::Result<()> {
        self.interrupt.check()?;
        let quiet =
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted);
        ensure!(self.since.elapsed() < SILENCE, "{}, for {} s", what(), SILENCE.as_secs());
        if quiet { Ok(()) } else { Err(error).with_context(what) }
    }
}

/// One period of octets that no compression shrinks: xorshift64.
fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(PERIOD)
    .collect()
}
