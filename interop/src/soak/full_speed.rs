//! UDP through the tunnel as fast as it goes, and no faster: so many packets are under way at most, as in a TCP window, so
//! that no queue on the way overflows. What does not arrive was lost by the tunnel.

use anyhow::{Context, Result, ensure};
use ferry6::lab::Host;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn6, sendmsg};
use std::io::{ErrorKind, IoSlice};
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Octets in a packet, and packets that the sender hands to the kernel at once (UDP_SEGMENT).
const PAYLOAD: usize = 1200;
const RUN: usize = 16;
/// Packets under way at most.
const WINDOW: u64 = 128;
/// What has not arrived by then is lost.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A flow one way.
pub struct FullSpeed {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<()>>,
}

impl FullSpeed {
    /// Starts it.
    pub fn start(from: &Host, to: (&Host, Ipv6Addr, u16)) -> Result<Self> {
        let (host, address, port) = to;
        let out = from.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
        let back = host.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))?;
        socket2::SockRef::from(&back).set_recv_buffer_size(4 << 20)?;
        back.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (flag, count) = (Arc::clone(&stop), Arc::clone(&received));
        let to = SocketAddrV6::new(address, port, 0, 0).into();
        let sender = std::thread::spawn(move || send(&out, &to, &flag, &count));
        let (flag, count) = (Arc::clone(&stop), Arc::clone(&received));
        let receiver = std::thread::spawn(move || receive(&back, &flag, &count));
        Ok(Self { stop, received, sender, receiver })
    }

    /// Ends it. Packets sent, and packets received.
    pub fn stop(self) -> Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        self.receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
        Ok((sent, self.received.load(Ordering::Relaxed)))
    }
}

fn send(socket: &UdpSocket, to: &SockaddrIn6, stop: &AtomicBool, received: &AtomicU64) -> Result<u64> {
    let mut packets = vec![0x46; RUN * PAYLOAD];
    let (mut sent, mut lost) = (0_u64, 0);
    while !stop.load(Ordering::Relaxed) {
        let waiting = Instant::now();
        while sent - received.load(Ordering::Relaxed) - lost > WINDOW - RUN as u64 {
            std::thread::yield_now();
            if waiting.elapsed() > PATIENCE {
                // They do not come any more: counted at the end; the flow goes on.
                lost = sent - received.load(Ordering::Relaxed);
            }
        }
        for (packet, number) in packets.chunks_mut(PAYLOAD).zip(sent..) {
            packet[..8].copy_from_slice(&number.to_be_bytes());
        }
        let segment = PAYLOAD as u16;
        sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(&packets)],
            &[ControlMessage::UdpGsoSegments(&segment)],
            MsgFlags::empty(),
            Some(to),
        )
        .context("cannot send")?;
        sent += RUN as u64;
    }
    Ok(sent)
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, received: &AtomicU64) -> Result<()> {
    let mut packet = [0; 2048];
    let mut seen: Vec<u64> = Vec::new();
    let mut end = None;
    loop {
        match socket.recv(&mut packet) {
            Ok(length) => {
                ensure!(length == PAYLOAD, "a packet of {length} octets");
                let number = u64::from_be_bytes(packet[..8].try_into().context("8 octets")?);
                let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
                if word >= seen.len() {
                    seen.resize(word + 1, 0);
                }
                ensure!(seen[word] & bit == 0, "packet {number} came twice");
                seen[word] |= bit;
                received.fetch_add(1, Ordering::Relaxed);
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(e).context("cannot receive"),
        }
        if stop.load(Ordering::Relaxed)
            && *end.get_or_insert_with(|| Instant::now() + PATIENCE) < Instant::now()
        {
            return Ok(());
        }
    }
}
