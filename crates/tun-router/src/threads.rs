//! The loops around the workers: two threads per worker, which block when there is nothing to do.
//!
//! Outbound: read the TUN queue until it is empty, seal, send; a lone packet leaves at once. Inbound: receive a batch, open,
//! write. Each reads, *then* drains its mailbox, *then* processes what it read, so a command that was posted before a packet
//! left the peer is in force when that packet is looked at.

use crate::batch::{Handoff, Received, SendBatch};
use crate::counters::{DropReason, Drops};
use crate::device::{READ_BUFFER_LEN, TunQueue, TunWriter};
use crate::gro::TunSink;
use crate::parking::Parking;
use crate::udp::{Receiver as UdpReceiver, Sender as UdpSender};
use crate::virtio::{HEADER_LEN, Header};
use crate::worker::{
    Inbound, InboundCommand, InboundIo, Outbound, OutboundCommand, OutboundIo, Report, Verdict,
};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Batches that may wait for one worker.
const HANDOFF_QUEUE: usize = 32;
/// Batches of hand-off in the whole router: 128 KiB each, made when they are first needed.
const HANDOFF_POOL: usize = 64;
/// Packets that come slower than this are alone.
const LONE_INTERVAL: Duration = Duration::from_micros(50);
/// Packets between two looks at the clock, and between two hand-offs, while there is no pause.
const CLOCK_INTERVAL: u32 = 64;

/// An IKE message that came to a worker's socket.
#[derive(Debug)]
pub(crate) struct IkeDatagram {
    pub(crate) message: Vec<u8>,
    pub(crate) source: SocketAddrV4,
    pub(crate) local: Ipv4Addr,
}

/// Wakes a thread that blocks in poll; costs nothing while it doesn't.
#[derive(Debug)]
pub(crate) struct Waker {
    event: EventFd,
    parking: Parking,
}

impl Waker {
    fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { event, parking: Parking::default() })
    }

    /// To be called after a message was put into the mailbox.
    fn wake(&self) {
        self.parking.wake(|| {
            // It can only fail when the counter is full, and then the thread is awake.
            let _ = self.event.write(1);
        });
    }

    /// Blocks until `fd` is readable, or until it is woken; not at all where `nothing_waits` is false.
    fn park(&self, fd: Option<BorrowedFd<'_>>, nothing_waits: impl Fn() -> bool) {
        self.parking.park(nothing_waits, || {
            let event = self.event.as_fd();
            // Where there is no `fd`, the event stands twice.
            let mut fds = [event, fd.unwrap_or(event)].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                // Take it off, so that the next poll blocks: also where a waker was late, and wrote only now.
                Ok(_) if fds[0].any() == Some(true) => {
                    let _ = self.event.read();
                }
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        });
    }
}

/// How others reach a thread: commands, which are never lost, and batches, which are when the queue is full.
#[derive(Debug)]
pub(crate) struct Mailbox<C> {
    commands: Sender<C>,
    packets: Sender<Box<Handoff>>,
    waker: Arc<Waker>,
}

impl<C> Clone for Mailbox<C> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            packets: self.packets.clone(),
            waker: Arc::clone(&self.waker),
        }
    }
}

impl<C> Mailbox<C> {
    /// Posts a command. A thread that has ended takes no more, which is no fault.
    pub(crate) fn post(&self, command: C) {
        let _ = self.commands.send(command);
        self.waker.wake();
    }

    fn post_packets(&self, packets: Box<Handoff>) -> Result<(), Box<Handoff>> {
        self.packets.try_send(packets).map_err(crossbeam_channel::TrySendError::into_inner)?;
        self.waker.wake();
        Ok(())
    }
}

/// The owner's side of a mailbox.
pub(crate) struct Inbox<C> {
    commands: Receiver<C>,
    packets: Receiver<Box<Handoff>>,
    waker: Arc<Waker>,
}

impl<C> Inbox<C> {
    fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.packets.is_empty()
    }
}

/// A mailbox and its owner's side.
pub(crate) fn mailbox<C>() -> io::Result<(Mailbox<C>, Inbox<C>)> {
    let (commands, command_receiver) = crossbeam_channel::unbounded();
    let (packets, packet_receiver) = crossbeam_channel::bounded(HANDOFF_QUEUE);
    let waker = Arc::new(Waker::new()?);
    let inbox = Inbox { commands: command_receiver, packets: packet_receiver, waker: Arc::clone(&waker) };
    Ok((Mailbox { commands, packets, waker }, inbox))
}

/// Batches for hand-off: bounded in number, used again and again.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    free: (Sender<Box<Handoff>>, Receiver<Box<Handoff>>),
    made: Arc<AtomicUsize>,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self { free: crossbeam_channel::bounded(HANDOFF_POOL), made: Arc::default() }
    }

    fn take(&self) -> Option<Box<Handoff>> {
        if let Ok(batch) = self.free.1.try_recv() {
            return Some(batch);
        }
        let more = |made| (made < HANDOFF_POOL).then_some(made + 1);
        self.made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Box::default())
    }

    fn give_back(&self, mut batch: Box<Handoff>) {
        batch.clear();
        // As many places as batches: never full.
        let _ = self.free.0.try_send(batch);
    }
}

/// Collects what is to be handed on, one batch per other thread.
pub(crate) struct HandOn<C> {
    peers: Vec<Mailbox<C>>,
    pending: Vec<Option<Box<Handoff>>>,
    any: bool,
    pool: Pool,
    drops: Arc<Drops>,
    full: DropReason,
}

impl<C> HandOn<C> {
    pub(crate) fn new(peers: Vec<Mailbox<C>>, pool: Pool, drops: Arc<Drops>, full: DropReason) -> Self {
        let pending = peers.iter().map(|_| None).collect();
        Self { peers, pending, any: false, pool, drops, full }
    }

    /// Adds a packet to the batch for worker `owner`.
    pub(crate) fn push(&mut self, owner: usize, parts: &[&[u8]], meta: Received) {
        for _ in 0..2 {
            if self.pending[owner].is_none() {
                self.pending[owner] = self.pool.take();
            }
            let Some(batch) = &mut self.pending[owner] else { break };
            if batch.push(parts, meta) {
                self.any = true;
                return;
            }
            self.send(owner);
        }
        self.drops.count(self.full);
    }

    fn send(&mut self, owner: usize) {
        if let Some(batch) = self.pending[owner].take()
            && let Err(batch) = self.peers[owner].post_packets(batch)
        {
            self.drops.add(self.full, batch.items.len() as u64);
            self.pool.give_back(batch);
        }
    }

    /// Sends all batches.
    pub(crate) fn flush(&mut self) {
        if std::mem::replace(&mut self.any, false) {
            for owner in 0..self.peers.len() {
                self.send(owner);
            }
        }
    }
}

/// To an outbound thread.
pub(crate) enum OutboundMessage {
    Command(OutboundCommand),
    /// The worker owns a tunnel now: let the kernel use its TUN queue.
    Attach,
    Stop,
}

/// To an inbound thread.
pub(crate) enum InboundMessage {
    Command(InboundCommand),
    Stop,
}

/// What threads tell the control thread.
pub(crate) enum ThreadReport {
    Worker(Report),
    /// The TUN device can't be read any more.
    DeviceGone(io::Error),
}

pub(crate) struct OutboundThread {
    pub(crate) outbound: Outbound,
    /// `None` where the device has fewer queues than there are workers.
    pub(crate) queue: Option<TunQueue>,
    pub(crate) attached: bool,
    pub(crate) inbox: Inbox<OutboundMessage>,
    pub(crate) io: OutboundThreadIo,
    pub(crate) hand_on: HandOn<OutboundMessage>,
    pub(crate) pool: Pool,
    pub(crate) drops: Arc<Drops>,
}

pub(crate) struct OutboundThreadIo {
    pub(crate) writer: TunWriter,
    pub(crate) sender: UdpSender,
    pub(crate) reports: mpsc::UnboundedSender<ThreadReport>,
}

impl TunSink for OutboundThreadIo {
    fn write(&mut self, queue: usize, header: &Header, parts: &[IoSlice<'_>]) {
        self.writer.write(queue, header, parts);
    }
}

impl OutboundIo for OutboundThreadIo {
    #[inline]
    fn send(&mut self, batch: &mut SendBatch) {
        self.sender.send(batch);
    }
    fn path_changed(&mut self) {
        self.sender.path_changed();
    }
    fn report(&mut self, report: Report) {
        let _ = self.reports.send(ThreadReport::Worker(report));
    }
}

/// Whether a thread goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

impl OutboundThread {
    pub(crate) fn run(mut self) {
        let mut buffer = vec![0; READ_BUFFER_LEN].into_boxed_slice();
        let mut now = Instant::now();
        let mut until_clock = 0;
        // Packets since the last pause, and whether they come one by one: then each is sent and waited for at once, without a
        // look whether there is another one, which costs a system call in front of the send.
        let (mut burst, mut lone) = (0_u32, false);
        loop {
            if lone && burst == 1 {
                self.pause();
                let before = std::mem::replace(&mut now, Instant::now());
                until_clock = CLOCK_INTERVAL;
                lone = now.saturating_duration_since(before) >= LONE_INTERVAL;
                burst = 0;
            }
            let read = match &self.queue {
                Some(queue) if self.attached => queue.read(&mut buffer),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            };
            if until_clock == 0 {
                now = Instant::now();
                until_clock = CLOCK_INTERVAL;
                // The few packets for another worker don't wait for as long as there are many of our own.
                self.hand_on.flush();
            }
            until_clock -= 1;
            if !self.inbox.is_empty() && self.drain(now) == Flow::Stop {
                break;
            }
            match read {
                Ok((header, packet)) => {
                    burst += 1;
                    match self.outbound.handle_tun(now, &header, packet, &mut self.io) {
                        Verdict::Done => {}
                        Verdict::HandOff(owner) => {
                            self.hand_on.push(owner, &[&header.encode(), packet], NO_META);
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    lone = burst == 1;
                    burst = 0;
                    self.pause();
                    until_clock = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // EIO: the interface is down, and may come up again. What is sealed already does not wait for that.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    self.outbound.flush(&mut self.io);
                    self.hand_on.flush();
                    until_clock = 0;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => {
                    self.attached = false;
                    let _ = self.io.reports.send(ThreadReport::DeviceGone(error));
                }
            }
        }
        self.outbound.flush(&mut self.io);
    }

    /// Sends what waits, and sleeps until there is a packet or a message.
    fn pause(&mut self) {
        self.outbound.flush(&mut self.io);
        self.hand_on.flush();
        let fd = self.queue.as_ref().filter(|_| self.attached).map(AsFd::as_fd);
        self.inbox.waker.park(fd, || self.inbox.is_empty());
    }

    fn drain(&mut self, now: Instant) -> Flow {
        loop {
            match self.inbox.commands.try_recv() {
                Ok(OutboundMessage::Command(command)) => self.outbound.handle_command(command, &mut self.io),
                Ok(OutboundMessage::Attach) => self.attach(),
                Ok(OutboundMessage::Stop) | Err(TryRecvError::Disconnected) => return Flow::Stop,
                Err(TryRecvError::Empty) => break,
            }
        }
        while let Ok(batch) = self.inbox.packets.try_recv() {
            for item in &batch.items {
                let octets = &batch.buffer[item.start..item.start + item.len];
                let Some((header, packet)) = octets.split_first_chunk::<HEADER_LEN>() else { continue };
                let verdict = self.outbound.handle_tun(now, &Header::decode(header), packet, &mut self.io);
                if verdict != Verdict::Done {
                    // The owner changed in between; never round and round.
                    self.drops.count(DropReason::OutHandoffFull);
                }
            }
            self.pool.give_back(batch);
        }
        Flow::Go
    }

    fn attach(&mut self) {
        if let Some(queue) = self.queue.as_ref().filter(|_| !self.attached) {
            match queue.attach() {
                Ok(()) => self.attached = true,
                Err(error) => {
                    tracing::warn!("cannot attach a TUN queue ({error}): another worker reads for this one")
                }
            }
        }
    }
}

/// Super-packets come from the kernel, not from a peer.
const NO_META: Received = Received {
    start: 0,
    len: 0,
    segment: 1,
    source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
    local: Ipv4Addr::UNSPECIFIED,
    tos: 0,
};

pub(crate) struct InboundThread {
    pub(crate) inbound: Inbound,
    pub(crate) receiver: UdpReceiver,
    pub(crate) inbox: Inbox<InboundMessage>,
    pub(crate) io: InboundThreadIo,
    pub(crate) pool: Pool,
}

pub(crate) struct InboundThreadIo {
    pub(crate) writer: TunWriter,
    pub(crate) ike: mpsc::Sender<IkeDatagram>,
    pub(crate) reports: mpsc::UnboundedSender<ThreadReport>,
    pub(crate) hand_on: HandOn<InboundMessage>,
    pub(crate) drops: Arc<Drops>,
}

impl TunSink for InboundThreadIo {
    #[inline]
    fn write(&mut self, queue: usize, header: &Header, parts: &[IoSlice<'_>]) {
        self.writer.write(queue, header, parts);
    }
}

impl InboundIo for InboundThreadIo {
    fn ike(&mut self, message: &[u8], meta: &Received) {
        let datagram = IkeDatagram { message: message.to_vec(), source: meta.source, local: meta.local };
        if self.ike.try_send(datagram).is_err() {
            self.drops.count(DropReason::InIkeQueueFull);
        }
    }
    fn hand_off(&mut self, owner: usize, packet: &[u8], meta: &Received) {
        self.hand_on.push(owner, &[packet], *meta);
    }
    fn report(&mut self, report: Report) {
        let _ = self.reports.send(ThreadReport::Worker(report));
    }
}

impl InboundThread {
    pub(crate) fn run(mut self) {
        let mut now = Instant::now();
        // As in the outbound thread: where datagrams come one by one, the look for a second one would only delay the first.
        let mut lone = false;
        loop {
            let only_one = lone;
            let arrived = self.receiver.receive(only_one);
            let before = std::mem::replace(&mut now, Instant::now());
            lone = arrived.is_ok()
                && self.receiver.is_lone()
                && now.saturating_duration_since(before) >= LONE_INTERVAL;
            if !self.inbox.is_empty() && self.drain(now) == Flow::Stop {
                break;
            }
            let wait = match arrived {
                Ok(arrived) => {
                    self.io.drops.add(DropReason::InTruncated, arrived.truncated);
                    let (buffer, received) = self.receiver.batch();
                    self.inbound.handle_udp(now, buffer, received, &mut self.io);
                    self.io.hand_on.flush();
                    // Slots were left: most likely the socket is empty.
                    !arrived.full || only_one && lone
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
                Err(error) => {
                    tracing::debug!("cannot receive: {error}");
                    std::thread::sleep(Duration::from_millis(10));
                    true
                }
            };
            if wait {
                self.inbox.waker.park(Some(self.receiver.as_fd()), || self.inbox.is_empty());
            }
        }
    }

    fn drain(&mut self, now: Instant) -> Flow {
        loop {
            match self.inbox.commands.try_recv() {
                Ok(InboundMessage::Command(command)) => self.inbound.handle_command(command),
                Ok(InboundMessage::Stop) | Err(TryRecvError::Disconnected) => return Flow::Stop,
                Err(TryRecvError::Empty) => break,
            }
        }
        while let Ok(mut batch) = self.inbox.packets.try_recv() {
            let Handoff { buffer, items } = &mut *batch;
            self.inbound.handle_udp(now, buffer, items, &mut self.io);
            self.pool.give_back(batch);
        }
        Flow::Go
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_thread_wakes_for_each_message() {
        let (mailbox, inbox) = mailbox::<u32>().unwrap();
        let thread = std::thread::spawn(move || {
            let mut got = Vec::new();
            while got.len() < 1000 {
                match inbox.commands.try_recv() {
                    Ok(number) => got.push(number),
                    Err(_) => inbox.waker.park(None, || inbox.is_empty()),
                }
            }
            got
        });
        for number in 0..1000 {
            mailbox.post(number);
            if number % 100 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert_eq!(thread.join().unwrap(), (0..1000).collect::<Vec<_>>());
    }

    /// A waker may be stopped between its two steps, while the thread finds the message by itself. What is written then
    /// wakes it once for nothing, and not again and again.
    #[test]
    fn a_late_wake_up_is_taken_off() {
        let waker = Waker::new().unwrap();
        waker.event.write(1).unwrap();
        waker.park(None, || true);
        assert_eq!(waker.event.read(), Err(nix::errno::Errno::EAGAIN));
    }

    #[test]
    fn hand_off_is_bounded_and_counted() {
        let (mailbox, inbox) = mailbox::<u32>().unwrap();
        let (pool, drops) = (Pool::new(), Arc::new(Drops::default()));
        let mut hand_on =
            HandOn::new(vec![mailbox], pool.clone(), Arc::clone(&drops), DropReason::InHandoffFull);
        for _ in 0..HANDOFF_QUEUE + 3 {
            hand_on.push(0, &[b"packet"], NO_META);
            hand_on.flush();
        }
        assert_eq!(drops.get(DropReason::InHandoffFull), 3);
        assert_eq!(inbox.packets.len(), HANDOFF_QUEUE);
        assert!(pool.made.load(Ordering::Relaxed) <= HANDOFF_QUEUE + 1);
        while let Ok(batch) = inbox.packets.try_recv() {
            assert_eq!(batch.buffer, b"packet");
            pool.give_back(batch);
        }
        assert!(pool.take().unwrap().items.is_empty());
    }
}
