//! Traffic through a tunnel: an own ICMPv6 pinger with a count of what was lost, and TCP transfers whose content is
//! checked octet by octet.

use anyhow::{Context, Result, bail, ensure};
use ferry6::lab::Host;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const UNREACHABLE: u8 = 1;
/// Octets of ICMPv6 in a ping.
const PING_LEN: usize = 64;

/// What a pinger saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct PingCount {
    /// Echo requests sent.
    pub sent: u32,
    /// Echo requests that the kernel did not take, for want of a route or an address.
    pub unsent: u32,
    /// Distinct replies.
    pub received: u32,
    /// Replies that came twice.
    pub duplicates: u32,
    /// "No route to destination" (RFC 4443 section 3.1), from whoever is on the way.
    pub no_route: u32,
}

impl PingCount {
    /// An error unless each request had its reply, once.
    pub fn no_loss(self) -> Result<()> {
        ensure!(
            self.unsent == 0 && self.sent == self.received && self.duplicates == 0 && self.sent > 0,
            "pings: {} sent, {} not sent, {} answered, {} duplicates",
            self.sent,
            self.unsent,
            self.received,
            self.duplicates
        );
        Ok(())
    }
}

/// Pings in the background.
pub struct Pinger {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<PingCount>>,
}

impl Pinger {
    /// Pings from `host` to `to` every `interval`.
    pub fn start(host: &Host, to: Ipv6Addr, interval: Duration) -> Result<Self> {
        let socket = host.run(ping_socket)?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || ping(&socket, to, interval, u32::MAX, &flag));
        Ok(Self { stop, thread })
    }

    /// Ends it; replies that are under way are waited for.
    pub fn stop(self) -> Result<PingCount> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the pinger panicked"))?
    }
}

/// Pings `count` times.
pub fn ping_count(host: &Host, to: Ipv6Addr, count: u32, interval: Duration) -> Result<PingCount> {
    let socket = host.run(ping_socket)?;
    ping(&socket, to, interval, count, &AtomicBool::new(false))
}

/// What pings look like.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Octets of the IPv6 packet.
    pub octets: usize,
    /// Its traffic class.
    pub class: u8,
}

impl Default for Mark {
    fn default() -> Self {
        Self { octets: 40 + PING_LEN, class: 0 }
    }
}

/// Pings of this size and class, never in fragments.
pub fn ping_marked(host: &Host, to: Ipv6Addr, count: u32, mark: Mark) -> Result<PingCount> {
    let socket = host.run(ping_socket)?;
    socket.set_tclass_v6(mark.class.into())?;
    setsockopt(&socket, sockopt::Ipv6DontFrag, &true)?;
    let len = mark.octets - 40;
    ping_with(&socket, to, Duration::from_millis(20), count, len, &AtomicBool::new(false))
}

/// Pings from this address of the host.
pub fn ping_from(host: &Host, from: Ipv6Addr, to: Ipv6Addr, count: u32) -> Result<PingCount> {
    let socket = host.run(ping_socket)?;
    socket.bind(&SocketAddrV6::new(from, 0, 0, 0).into())?;
    ping(&socket, to, Duration::from_millis(20), count, &AtomicBool::new(false))
}

/// Pings of this size, which the host cuts into fragments where they do not fit.
pub fn ping_large(host: &Host, to: Ipv6Addr, count: u32, octets: usize) -> Result<PingCount> {
    let socket = host.run(ping_socket)?;
    ping_with(&socket, to, Duration::from_millis(50), count, octets, &AtomicBool::new(false))
}

/// The same from the network namespace of this process.
pub fn ping_here(to: Ipv6Addr, count: u32, interval: Duration) -> Result<PingCount> {
    ping(&ping_socket()?, to, interval, count, &AtomicBool::new(false))
}

/// Pings until the first answer, at most for `patience`.
pub fn wait_for_ping(host: &Host, to: Ipv6Addr, patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    loop {
        if ping_count(host, to, 1, Duration::ZERO)?.received == 1 {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("no ping from {} to {to} was answered in {} s", host.name(), patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn ping_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_recv_buffer_size(1 << 20)?;
    Ok(socket)
}

fn ping(
    socket: &Socket,
    to: Ipv6Addr,
    interval: Duration,
    count: u32,
    stop: &AtomicBool,
) -> Result<PingCount> {
    ping_with(socket, to, interval, count, PING_LEN, stop)
}

/// With `len` octets of ICMPv6.
fn ping_with(
    socket: &Socket,
    to: Ipv6Addr,
    interval: Duration,
    count: u32,
    len: usize,
    stop: &AtomicBool,
) -> Result<PingCount> {
    // A raw socket sees every echo reply of the host, late ones too: the identifier says which are ours.
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let identifier = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let to = SocketAddrV6::new(to, 0, 0, 0).into();
    let mut seen = Vec::new();
    let mut result = PingCount::default();
    let mut next = Instant::now();
    let mut last_word = None;
    let mut buffer = [0; 2048];
    loop {
        let now = Instant::now();
        let done = result.sent + result.unsent >= count || stop.load(Ordering::Relaxed);
        if done
            && (result.received == result.sent
                || now > *last_word.get_or_insert(now + Duration::from_millis(1500)))
        {
            return Ok(result);
        }
        if !done && now >= next {
            next += interval;
            let mut packet = vec![ECHO_REQUEST, 0, 0, 0, identifier[0], identifier[1], 0, 0];
            // The sequence number of the header has 16 bits only; the payload carries the whole.
            packet[6..8].copy_from_slice(&(seen.len() as u16).to_be_bytes());
            packet.extend((seen.len() as u32).to_be_bytes());
            packet.resize(len, 0x36);
            match socket.send_to(&packet, &to) {
                Ok(_) => {
                    result.sent += 1;
                    seen.push(false);
                }
                Err(_) => result.unsent += 1,
            }
            continue;
        }
        let wait = if done { Duration::from_millis(20) } else { next - now };
        socket.set_read_timeout(Some(wait.clamp(Duration::from_millis(1), Duration::from_millis(50))))?;
        match (&*socket).read(&mut buffer) {
            Ok(n) if n >= 12 && buffer[0] == ECHO_REPLY && buffer[4..6] == identifier => {
                let number = u32::from_be_bytes([buffer[8], buffer[9], buffer[10], buffer[11]]);
                match seen.get_mut(number as usize) {
                    Some(true) => result.duplicates += 1,
                    Some(new) => {
                        *new = true;
                        result.received += 1;
                    }
                    None => {}
                }
            }
            // The packet that it is about is quoted: its identifier is ours.
            Ok(n) if n >= 54 && buffer[..2] == [UNREACHABLE, 0] && buffer[52..54] == identifier => {
                result.no_route += 1;
            }
            Ok(_) => {}
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(e).context("ping socket"),
        }
    }
}

const CHUNK: usize = 64 << 10;
const PORT: u16 = 5001;
const FLOW_CHUNK: usize = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// Moves `octets` over TCP from `from` to `to` and back again over the same connection; both ends check the content
/// against the generator it came from, so that a lost, doubled or altered octet is found.
pub fn tcp_both_ways(from: &Host, to: &Host, address: Ipv6Addr, octets: usize) -> Result<()> {
    tcp_from(to, address, octets, || {
        let stream = from.run(|| TcpStream::connect_timeout(&(address, PORT).into(), PATIENCE));
        client_half(&mut stream.context("connect")?, octets)
    })
    .with_context(|| format!("TCP from {} to {}", from.name(), to.name()))
}

/// The same where the client's half is done elsewhere, by [`tcp_client`].
pub fn tcp_from(
    to: &Host,
    address: Ipv6Addr,
    octets: usize,
    client: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let listener = to.run(|| TcpListener::bind((address, PORT))).context("cannot listen")?;
    let server = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = accept(&listener)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        receive(&mut stream, octets, 1).context("the server receives")?;
        send(&mut stream, octets, 2).context("the server sends")
    });
    let client = client();
    let server = server.join().map_err(|_| anyhow::anyhow!("the TCP server panicked"))?;
    client.and(server)
}

/// [`tcp_both_ways`] on `streams` connections at once, so many octets on each.
pub fn tcp_streams(from: &Host, to: &Host, address: Ipv6Addr, octets: usize, streams: usize) -> Result<()> {
    let listener = to.run(|| TcpListener::bind((address, PORT))).context("cannot listen")?;
    let server = std::thread::spawn(move || -> Result<()> {
        let serve = move |mut stream: TcpStream| -> Result<()> {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            receive(&mut stream, octets, 1).context("the server receives")?;
            send(&mut stream, octets, 2).context("the server sends")
        };
        let mut threads = Vec::new();
        for _ in 0..streams {
            let (stream, _) = accept(&listener)?;
            threads.push(std::thread::spawn(move || serve(stream)));
        }
        all(threads)
    });
    let mut clients = Vec::new();
    for _ in 0..streams {
        let stream = from.run(|| TcpStream::connect_timeout(&(address, PORT).into(), PATIENCE));
        let mut stream = stream.context("connect")?;
        clients.push(std::thread::spawn(move || client_half(&mut stream, octets)));
    }
    all(clients).and(all([server]))
}

fn all(threads: impl IntoIterator<Item = JoinHandle<Result<()>>>) -> Result<()> {
    let ends = threads.into_iter().map(|thread| match thread.join() {
        Ok(end) => end,
        Err(_) => bail!("a TCP thread panicked"),
    });
    ends.collect::<Vec<_>>().into_iter().collect()
}

/// The client's half, from the network namespace of this process.
pub fn tcp_client(address: Ipv6Addr, octets: usize) -> Result<()> {
    client_half(
        &mut TcpStream::connect_timeout(&(address, PORT).into(), PATIENCE).context("connect")?,
        octets,
    )
}

fn client_half(stream: &mut TcpStream, octets: usize) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(stream, octets, 1).context("the client sends")?;
    receive(stream, octets, 2).context("the client receives")
}

/// What segments the two ends of a TCP connection send, in octets of payload and options.
pub fn segment_sizes(from: &Host, to: &Host, address: Ipv6Addr) -> Result<[u32; 2]> {
    const PORT: u16 = 5004;
    let listener = to.run(|| TcpListener::bind((address, PORT))).context("cannot listen")?;
    let client =
        from.run(|| TcpStream::connect_timeout(&(address, PORT).into(), PATIENCE)).context("connect")?;
    let (server, _) = accept(&listener)?;
    Ok([SockRef::from(&client).tcp_mss()?, SockRef::from(&server).tcp_mss()?])
}

/// One TCP connection over which checked content flows both ways until it is told to stop.
pub struct Flow {
    stop: Arc<AtomicBool>,
    /// Octets that arrived, each way.
    arrived: [Arc<AtomicU64>; 2],
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Flow {
    /// Opens the connection and starts sending at both ends, some megabytes a second.
    pub fn start(from: &Host, to: &Host, address: Ipv6Addr) -> Result<Self> {
        const PORT: u16 = 5003;
        let listener = to.run(|| TcpListener::bind((address, PORT))).context("cannot listen")?;
        let client =
            from.run(|| TcpStream::connect_timeout(&(address, PORT).into(), PATIENCE)).context("connect")?;
        let (server, _) = accept(&listener)?;
        let mut flow = Self { stop: Arc::default(), arrived: Default::default(), threads: Vec::new() };
        for (direction, sender, receiver) in [(0, &client, &server), (1, &server, &client)] {
            let (mut sender, mut receiver) = (sender.try_clone()?, receiver.try_clone()?);
            let (seed, stop) = (11 + direction as u64, Arc::clone(&flow.stop));
            let arrived = Arc::clone(&flow.arrived[direction]);
            flow.threads.push(std::thread::spawn(move || {
                let mut content = Content::new(seed);
                let mut chunk = vec![0; FLOW_CHUNK];
                while !stop.load(Ordering::Relaxed) {
                    content.fill(&mut chunk);
                    sender.write_all(&chunk).context("the flow sends")?;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(sender.shutdown(std::net::Shutdown::Write)?)
            }));
            flow.threads.push(std::thread::spawn(move || {
                let mut content = Content::new(seed);
                let (mut chunk, mut expected) = (vec![0; FLOW_CHUNK], vec![0; FLOW_CHUNK]);
                receiver.set_read_timeout(Some(PATIENCE))?;
                loop {
                    match receiver.read_exact(&mut chunk) {
                        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                        other => other.context("the flow receives")?,
                    }
                    content.fill(&mut expected);
                    ensure!(chunk == expected, "the content of the flow differs");
                    arrived.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                }
            }));
        }
        Ok(flow)
    }

    /// Waits until both ends have received something more.
    pub fn goes_on(&self, patience: Duration) -> Result<()> {
        let now = || self.arrived.each_ref().map(|a| a.load(Ordering::Relaxed));
        let before = now();
        crate::wait_until("the TCP connection moves on in both directions", patience, || {
            if self.threads.iter().any(JoinHandle::is_finished) {
                bail!("the TCP connection has ended");
            }
            Ok(now().iter().zip(before).all(|(now, before)| *now > before + 20 * FLOW_CHUNK as u64))
        })
    }

    /// Ends it; an error if content was lost or altered, or the connection broke.
    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread.join().map_err(|_| anyhow::anyhow!("a thread of the flow panicked"))?;
            result = result.and(ended);
        }
        result
    }
}

/// The same over segments so small that the soak's probes are larger, and with the patience of one who lives through an
/// outage.
pub fn tcp_gently(from: &Host, to: &Host, address: Ipv6Addr, octets: usize) -> Result<()> {
    const MSS: u32 = 1160;
    const PATIENCE: Duration = Duration::from_secs(90);
    let socket = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_mss(MSS)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    // A free port each time: the last transfer's may not be free yet.
    let any_port = SocketAddrV6::new(address, 0, 0, 0).into();
    let listener = to.run(|| {
        let listener = socket()?;
        listener.set_reuse_address(true)?;
        listener.bind(&any_port)?;
        listener.listen(1)?;
        Ok(listener)
    })?;
    let place = listener.local_addr()?;
    let (done, client_done) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || -> Result<()> {
        // SO_RCVTIMEO bounds accept(2), too.
        let mut stream: TcpStream = listener.accept().context("nobody connected")?.0.into();
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        receive(&mut stream, octets, 1).context("the server receives")?;
        send(&mut stream, octets, 2).context("the server sends")?;
        // A closed socket is given up by the kernel at the first ICMP error, with what it still has to send. An error: the client
        // has ended.
        let _ = client_done.recv();
        Ok(())
    });
    let client = (|| -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let connect = || {
            let socket = socket()?;
            socket.connect_timeout(&place, PATIENCE)?;
            Ok(socket)
        };
        // Without a tunnel there is no route.
        let mut socket = from.run(connect);
        while socket.is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
            socket = from.run(connect);
        }
        let mut stream: TcpStream = socket.context("connect")?.into();
        send(&mut stream, octets, 1).context("the client sends")?;
        receive(&mut stream, octets, 2).context("the client receives")
    })();
    drop(done);
    let server = server.join().map_err(|_| anyhow::anyhow!("the TCP server panicked"))?;
    client.and(server).with_context(|| format!("TCP from {} to {}", from.name(), to.name()))
}

/// `TcpListener::accept` with an end.
fn accept(listener: &TcpListener) -> Result<(TcpStream, std::net::SocketAddr)> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(false)?;
                return Ok((stream, peer));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e).context("nobody connected"),
        }
    }
}

/// Octets that look random but can be made again: xorshift64*, half of the chunks repetitive so that IPComp has work.
struct Content(u64);

impl Content {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn fill(&mut self, chunk: &mut [u8]) {
        let repetitive = self.0 & 2 == 0;
        for word in chunk.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let value = if repetitive { (self.0 & 7).wrapping_mul(0x0101_0101_0101_0101) } else { self.0 };
            word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        }
    }
}

fn send(stream: &mut TcpStream, octets: usize, seed: u64) -> Result<()> {
    let mut content = Content::new(seed);
    let mut chunk = vec![0; CHUNK];
    let mut left = octets;
    while left > 0 {
        let n = left.min(CHUNK);
        content.fill(&mut chunk[..n]);
        stream.write_all(&chunk[..n]).with_context(|| format!("after {} octets", octets - left))?;
        left -= n;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, octets: usize, seed: u64) -> Result<()> {
    let mut content = Content::new(seed);
    let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut left = octets;
    while left > 0 {
        let n = left.min(CHUNK);
        stream.read_exact(&mut chunk[..n]).with_context(|| format!("after {} octets", octets - left))?;
        content.fill(&mut expected[..n]);
        ensure!(chunk[..n] == expected[..n], "the content differs behind octet {}", octets - left);
        left -= n;
    }
    Ok(())
}
