//! What an attacker sends: IPv4 packets with any source address, in batches, as fast as one thread can.

use super::net;
use anyhow::{Context, Result};
use ferry6::lab::Host;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, IoSlice, Read};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Packets in one system call.
const BATCH: usize = 64;
const IP_HEADER: usize = 20;
const HEADERS: usize = IP_HEADER + 8;

/// What is sent.
#[derive(Clone)]
pub enum Load {
    /// This request of IKE_SA_INIT, each with another SPI, nonce and source.
    Init(Vec<u8>),
    /// Octets without sense, of any length up to 600.
    Garbage,
    /// The non-ESP marker, and then octets without sense.
    MarkedGarbage,
    /// ESP of 1300 octets with SPIs that nobody has.
    UnknownSpi,
    /// The same with SPIs as ferry6 chooses them, so that the kernel cannot tell.
    NearSpi,
    /// IKE messages of 200 octets that are right but for their SPI.
    ForgedSpi,
    /// These datagrams, with the source that they had.
    Replay(Vec<Vec<u8>>),
}

/// A small generator (SplitMix64): the speed of the flood should not be that of a good one.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn fill(&mut self, octets: &mut [u8]) {
        for chunk in octets.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_be_bytes()[..chunk.len()]);
        }
    }
}

impl Load {
    fn payload(&self, random: &mut Random, number: usize) -> Vec<u8> {
        let mut octets = match self {
            Self::Init(message) => message.clone(),
            Self::Garbage | Self::MarkedGarbage => vec![0; 8 + (random.next() % 592) as usize],
            Self::UnknownSpi | Self::NearSpi => vec![0; 1300],
            Self::ForgedSpi => {
                let mut message = vec![0; 4 + 200];
                // SK, version 2.0, IKE_AUTH, from the initiator, message ID 1, length.
                message[20..24].copy_from_slice(&[46, 0x20, 35, 8]);
                message[24..32].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 200]);
                message
            }
            Self::Replay(packets) => packets[number % packets.len()].clone(),
        };
        self.vary(random, &mut octets);
        octets
    }

    /// Makes another one of it.
    fn vary(&self, random: &mut Random, octets: &mut [u8]) {
        match self {
            Self::Init(_) => {
                // The SPI; the nonce is the peer's affair, and the cookie depends on both.
                random.fill(&mut octets[..8]);
            }
            Self::Garbage => random.fill(octets),
            Self::MarkedGarbage => {
                octets[..4].fill(0);
                random.fill(&mut octets[4..]);
            }
            Self::UnknownSpi => {
                random.fill(&mut octets[..8]);
                // Not a marker, and no SPI that is reserved.
                octets[0] |= 1;
            }
            Self::NearSpi => {
                random.fill(&mut octets[..8]);
                octets[0] = 0;
                octets[1] = octets[1] & 0x3f | 0x10;
            }
            Self::ForgedSpi => random.fill(&mut octets[4..20]),
            Self::Replay(_) => {}
        }
    }

    fn source(&self, random: &mut Random) -> Ipv4Addr {
        match self {
            Self::Replay(_) => net::CLIENT,
            // 172.16.0.0/12: nobody's here.
            _ => Ipv4Addr::from(0xac10_0000 | (random.next() as u32 & 0x000f_ffff)),
        }
    }
}

/// An attack that runs.
pub struct Attack {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    begin: Instant,
    thread: JoinHandle<Result<()>>,
}

impl Attack {
    /// Starts to send to this address and port, so many packets a second; 0: as many as it can.
    pub fn start(host: &Host, load: &Load, to: (Ipv4Addr, u16), rate: u64) -> Result<Self> {
        // IPPROTO_RAW: we write the IP header.
        let socket = host.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))))?;
        let _ = socket.set_send_buffer_size(1 << 20);
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (flag, count, load) = (Arc::clone(&stop), Arc::clone(&sent), load.clone());
        let thread = std::thread::spawn(move || send(&socket, &load, to, rate, &flag, &count));
        Ok(Self { stop, sent, begin: Instant::now(), thread })
    }

    /// Ends it; packets a second.
    pub fn stop(self) -> Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the attacker panicked"))??;
        Ok(self.sent.load(Ordering::Relaxed) as f64 / self.begin.elapsed().as_secs_f64())
    }
}

/// An IPv4 packet with a UDP datagram; its UDP checksum is 0, which IPv4 allows.
fn packet(source: Ipv4Addr, port: u16, to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let (len, udp) = (HEADERS + payload.len(), 8 + payload.len());
    let mut out = vec![0x45, 0];
    out.extend((len as u16).to_be_bytes());
    // Identification, no flags, TTL 64, UDP, and a checksum that the kernel fills in.
    out.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    out.extend(source.octets());
    out.extend(to.0.octets());
    out.extend(port.to_be_bytes());
    out.extend(to.1.to_be_bytes());
    out.extend((udp as u16).to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    out
}

fn send(
    socket: &Socket,
    load: &Load,
    to: (Ipv4Addr, u16),
    rate: u64,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Result<()> {
    let begin = Instant::now();
    let mut random = Random(0x6665_7272_7936);
    let mut packets: Vec<Vec<u8>> = (0..BATCH)
        .map(|number| {
            let payload = load.payload(&mut random, number);
            packet(load.source(&mut random), 500, to, &payload)
        })
        .collect();
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let addresses = [Some(SockaddrIn::from(std::net::SocketAddrV4::new(to.0, 0))); BATCH];
    while !stop.load(Ordering::Relaxed) {
        let due = (begin.elapsed().as_secs_f64() * rate as f64) as u64;
        if rate > 0 && sent.load(Ordering::Relaxed) > due {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        for packet in &mut packets {
            packet[12..16].copy_from_slice(&load.source(&mut random).octets());
            load.vary(&mut random, &mut packet[HEADERS..]);
        }
        let slices: Vec<[IoSlice<'_>; 1]> = packets.iter().map(|p| [IoSlice::new(p)]).collect();
        match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, addresses, [], MsgFlags::empty()) {
            Ok(results) => {
                sent.fetch_add(results.count() as u64, Ordering::Relaxed);
            }
            Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EAGAIN) => std::thread::yield_now(),
            Err(error) => return Err(error).context("the attacker cannot send"),
        }
    }
    Ok(())
}

/// A plain UDP receiver: what the machine does with the same flood when nobody looks at it.
pub struct Sink {
    pub port: u16,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sink {
    pub fn start(host: &Host) -> Result<Self> {
        let socket = host.run(|| std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let port = socket.local_addr()?.port();
        let stop = Arc::<AtomicBool>::default();
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut count, mut buffer) = (0, [0; 2048]);
            while !flag.load(Ordering::Relaxed) {
                count += u64::from(socket.recv(&mut buffer).is_ok());
            }
            count
        });
        Ok(Self { port, stop, thread })
    }

    /// Ends it; how many datagrams it saw.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the sink panicked"))
    }
}

/// ESP datagrams of the client, as they come in at the broker while something small runs.
pub fn overhear(host: &Host, count: usize, traffic: impl FnOnce() -> Result<()>) -> Result<Vec<Vec<u8>>> {
    let socket = host.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)))?;
    socket.set_recv_buffer_size(1 << 20)?;
    traffic()?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (mut packets, mut buffer) = (Vec::new(), vec![0; 65_536]);
    while packets.len() < count {
        match (&socket).read(&mut buffer) {
            Ok(len) => {
                let packet = &buffer[..len];
                let from_client = len > HEADERS + 8 && packet[12..16] == net::CLIENT.octets();
                if from_client && packet[22..24] == 4500_u16.to_be_bytes() && packet[28..32] != [0; 4] {
                    packets.push(packet[HEADERS..].to_vec());
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(e) => return Err(e.into()),
        }
    }
    anyhow::ensure!(!packets.is_empty(), "no ESP of the client was seen");
    Ok(packets)
}
