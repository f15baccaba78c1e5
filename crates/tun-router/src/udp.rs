//! UDP sockets on the IKE and NAT traversal ports: GSO and GRO where the kernel has them, sendmmsg and recvmmsg
//! elsewhere.
//!
//! Each port has two sockets of the control thread, in one SO_REUSEPORT group: for strangers, and for those whom we know, as far
//! as a look at the header can tell. So no flood of spoofed first messages fills the queue in which a peer's message waits. In the group
//! of the port for ESP there is one more for each worker. A classic BPF program hands each datagram to the owner of its SPI;
//! where the kernel refuses it, hand-off between workers does, and the lanes have no meaning.

use crate::batch::{Received, Run, SendBatch, UdpPath};
use crate::counters::{DropReason, Drops};
use crate::router::StartError;
use crate::size::{Fit, MIN_PATH, OUTER_HEADERS};
use crate::sys::udp::{self as sys, Arrived, Messages};
use ferry6_crypto::Spi;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Octets that one received message may have: the largest UDP datagram, or GRO's largest bundle.
pub const SLOT_LEN: usize = 65_536;
/// Messages in one receive call where GRO bundles them; where it could and doesn't; and where it can't.
const SLOTS_GRO: usize = 4;
const SLOTS_SMALL: usize = 16;
const SLOTS_PLAIN: usize = 32;
/// A message up to this long is no bundle worth the name.
const SMALL: usize = 2048;
/// Messages in one send call.
const SEND_SLOTS: usize = 64;
/// Wanted socket buffers: some milliseconds at 10 Gbit/s.
const SOCKET_BUFFER: usize = 8 << 20;
/// SPIs at first are below this: they have room for two thousand SAs on each worker (see `sad.rs`).
const FIRST_CEILING: u32 = 1 << 23;

/// The sockets, all bound. They live and die together: when one leaves the group, the kernel numbers the others anew, and
/// the steering is wrong.
#[derive(Debug)]
pub struct Sockets {
    /// UDP/500.
    pub ike: Lanes,
    /// UDP/4500: what is not ESP.
    pub nat: Lanes,
    /// UDP/4500: ESP, one per worker.
    pub workers: Vec<UdpPort>,
    /// What was found out, for `status`.
    pub description: String,
}

/// The control thread's two sockets of one port.
#[derive(Clone, Debug)]
pub struct Lanes {
    /// For whom we know: a responder's SPI, or a notify in front, as who repeats a cookie has.
    pub known: UdpPort,
    /// For all else.
    pub strangers: UdpPort,
}

impl Lanes {
    /// Their port.
    pub fn port(&self) -> u16 {
        self.known.port
    }

    /// Binds both. The strangers' comes first in the group: a BPF program that finds too few octets returns 0.
    fn bind(address: SocketAddrV4, offload: bool) -> Result<Self, StartError> {
        // SO_REUSEPORT would let a second daemon of the same user share the port unseen; so first bind without it.
        let probe = UdpPort::bind(address, false, false)?;
        let address = SocketAddrV4::new(*address.ip(), probe.port);
        drop(probe);
        let strangers = UdpPort::bind(address, true, offload)?;
        let known = UdpPort::bind(address, true, offload)?;
        Ok(Self { known, strangers })
    }
}

/// Keeps the steering by SPI in step with the SPIs in use.
#[derive(Debug)]
pub(crate) struct Steering {
    port: UdpPort,
    workers: u32,
    ceiling: u32,
}

impl Steering {
    pub(crate) fn new(sockets: &Sockets) -> Self {
        let workers = sockets.workers.len() as u32;
        Self { port: sockets.nat.strangers.clone(), workers, ceiling: FIRST_CEILING }
    }

    /// An SA with this SPI is about to be installed.
    pub(crate) fn admit(&mut self, spi: Spi) {
        if spi.get() >= self.ceiling {
            self.ceiling =
                spi.get().checked_add(1).and_then(u32::checked_next_power_of_two).unwrap_or(u32::MAX);
            // Where there is no steering the workers hand on.
            let _ = sys::steer(&self.port.socket, self.workers, self.ceiling);
        }
    }

    /// Whether an SA of ours may have this SPI.
    pub(crate) fn may_be_ours(&self, spi: Spi) -> bool {
        spi.get() < self.ceiling || self.ceiling == u32::MAX
    }
}

/// One bound socket.
#[derive(Clone, Debug)]
pub struct UdpPort {
    socket: Arc<Socket>,
    /// Our port.
    pub port: u16,
    gso: bool,
    gro: bool,
}

impl AsFd for UdpPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind_error(address: SocketAddrV4, source: io::Error) -> StartError {
    let hint = match source.kind() {
        io::ErrorKind::AddrInUse => {
            "Another program has the port, perhaps another IKE daemon (charon, iked, a second ferry6): stop it, or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "Ports below 1024 need root or CAP_NET_BIND_SERVICE; a client may use port 0 to let the kernel choose"
        }
        io::ErrorKind::AddrNotAvailable => {
            "This host does not have the address: listen on one of its own, or on 0.0.0.0"
        }
        _ => "See the cause above",
    };
    StartError::Bind { address, source, hint }
}

fn option(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Io { what, source }
}

impl Sockets {
    /// Binds all.
    ///
    /// # Errors
    /// [`StartError::Bind`] with what to do.
    pub fn bind(
        listen: Ipv4Addr,
        ike_port: u16,
        nat_port: u16,
        workers: usize,
        offload: bool,
    ) -> Result<Self, StartError> {
        let ike = Lanes::bind(SocketAddrV4::new(listen, ike_port), false)?;
        let nat = Lanes::bind(SocketAddrV4::new(listen, nat_port), offload)?;
        let shared = || UdpPort::bind(SocketAddrV4::new(listen, nat.port()), true, offload);
        let workers = (0..workers).map(|_| shared()).collect::<Result<Vec<_>, _>>()?;
        let steered = sys::steer_ike(&ike.strangers.socket)
            .and_then(|()| sys::steer(&nat.strangers.socket, workers.len() as u32, FIRST_CEILING));
        if let Err(error) = &steered {
            tracing::info!("no steering by SPI ({error}): workers hand packets on to each other");
        }
        let (gso, gro) = workers.first().map_or((false, false), |port| (port.gso, port.gro));
        let description = format!(
            "{}, {}{}",
            if gso { "GSO" } else { "sendmmsg" },
            if gro { "GRO" } else { "recvmmsg" },
            if steered.is_ok() { ", steered by SPI" } else { "" }
        );
        Ok(Self { ike, nat, workers, description })
    }
}

impl UdpPort {
    fn bind(address: SocketAddrV4, shared: bool, offload: bool) -> Result<Self, StartError> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))
            .map_err(option("cannot make a UDP socket"))?;
        if shared {
            socket.set_reuse_port(true).map_err(option("cannot set SO_REUSEPORT"))?;
        }
        sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
            .map_err(option("cannot set IP_PKTINFO"))?;
        sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)
            .map_err(option("cannot set IP_RECVTOS"))?;
        // No DF: what is larger than the path is fragmented outside, never lost in a black hole (RFC 4213 section 3.2).
        sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)
            .map_err(option("cannot set IP_MTU_DISCOVER"))?;
        set_buffers(&socket);
        let gro = offload && sys::set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        // Setting 0 changes nothing, and tells whether the kernel knows the option.
        let gso = offload && sys::set_int(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        socket.bind(&SockAddr::from(address)).map_err(|source| bind_error(address, source))?;
        let port = socket
            .local_addr()
            .map_err(option("cannot tell the port of a UDP socket"))?
            .as_socket_ipv4()
            .map_or(address.port(), |local| local.port());
        Ok(Self { socket: Arc::new(socket), port, gso, gro })
    }

    /// The same socket for the event loop to watch; it doesn't block from now on.
    pub(crate) fn watch(&self) -> io::Result<tokio::net::UdpSocket> {
        let socket = self.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        tokio::net::UdpSocket::from_std(socket.into())
    }

    /// A receiver with its buffers.
    pub fn receiver(&self) -> Receiver {
        let (few, slots) = if self.gro { (SLOTS_GRO, SLOTS_SMALL) } else { (SLOTS_PLAIN, SLOTS_PLAIN) };
        Receiver {
            port: self.clone(),
            messages: Messages::new(slots),
            // Pages that no datagram was written to take no memory.
            buffer: vec![0; slots * SLOT_LEN].into_boxed_slice(),
            received: Vec::with_capacity(slots),
            few,
            many_small: false,
        }
    }

    /// A sender with its buffers.
    pub fn sender(&self, drops: Arc<Drops>) -> Sender {
        Sender {
            port: self.clone(),
            messages: Messages::new(SEND_SLOTS),
            drops,
            unsplittable: if self.gso { usize::MAX } else { 0 },
            df: false,
        }
    }
}

fn set_buffers(socket: &Socket) {
    let size = SOCKET_BUFFER as libc::c_int;
    if sys::set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).is_err() {
        // At most net.core.rmem_max, which the kernel applies by itself.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    }
    if sys::set_int(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size).is_err() {
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    }
}

/// Receives batches from one socket.
pub struct Receiver {
    port: UdpPort,
    messages: Messages,
    buffer: Box<[u8]>,
    received: Vec<Received>,
    /// Slots of a usual call.
    few: usize,
    /// The last call had all of its slots full of small messages: so will the next one have, and takes more.
    many_small: bool,
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}

impl Receiver {
    /// Receives what is there, without blocking; `one`: at most one message. The batch stands in [`Self::batch`].
    ///
    /// # Errors
    /// `WouldBlock` where there is nothing; asynchronous errors of the socket, which concern earlier sends.
    pub(crate) fn receive(&mut self, one: bool) -> io::Result<Arrived> {
        self.received.clear();
        let slots = match (one, self.many_small) {
            (true, _) => 1,
            (false, false) => self.few,
            (false, true) => self.messages.slots(),
        };
        let buffer = &mut self.buffer[..slots * SLOT_LEN];
        let arrived = self.messages.receive(&self.port.socket, buffer, SLOT_LEN, &mut self.received);
        self.many_small = !one
            && arrived.as_ref().is_ok_and(|arrived| arrived.full)
            && self.received.iter().all(|message| message.len <= SMALL);
        arrived
    }

    /// Whether the last receive brought a single datagram.
    pub(crate) fn is_lone(&self) -> bool {
        matches!(self.received.as_slice(), [only] if only.segment == only.len)
    }

    /// What the last receive brought.
    pub fn batch(&mut self) -> (&mut [u8], &[Received]) {
        (&mut self.buffer, &self.received)
    }
}

/// Sends batches over one socket. What can't be sent is counted and dropped: IP is like that.
pub struct Sender {
    port: UdpPort,
    messages: Messages,
    drops: Arc<Drops>,
    /// Datagrams of this size or more can't go out by GSO: larger than the path, so they need fragments. 0 without any GSO.
    /// Where the path is observed, what needs fragments is known before ([`Fit::Fragments`]), and this is never learnt.
    unsplittable: usize,
    /// Whether the socket sets DF now.
    df: bool,
}

/// Whether a run wants DF; `None`: it fits through every path, and either is as good.
fn wants_df(run: &Run) -> Option<bool> {
    match run.fit {
        Fit::Never => Some(true),
        Fit::Whole | Fit::Fragments if run.segment + OUTER_HEADERS <= MIN_PATH => None,
        Fit::Whole | Fit::Fragments => Some(false),
    }
}

impl Sender {
    /// Sends the whole batch and empties it.
    pub fn send(&mut self, batch: &mut SendBatch) {
        let (buffer, runs) = batch.runs();
        let mut next = 0;
        while next < runs.len() {
            if let Some(df) = wants_df(&runs[next]).filter(|df| *df != self.df) {
                self.set_df(df);
            }
            let group = runs[next..]
                .iter()
                .take_while(|run| run.count == 1 || run.segment < self.unsplittable)
                .take_while(|run| wants_df(run).is_none_or(|df| df == self.df))
                .count();
            if group == 0 {
                self.send_one_by_one(buffer, &runs[next]);
                next += 1;
                continue;
            }
            match self.messages.send_runs(&self.port.socket, buffer, &runs[next..next + group]) {
                Ok(sent) if sent > 0 => next += sent,
                Ok(_) => next += 1,
                Err(error) => {
                    self.recover(buffer, &runs[next], &error);
                    next += 1;
                }
            }
        }
        batch.clear();
    }

    /// A path has another size than before: GSO is tried again.
    pub(crate) fn path_changed(&mut self) {
        if self.port.gso && self.unsplittable != 0 {
            self.unsplittable = usize::MAX;
        }
    }

    /// DF is an option of the socket, not of a message.
    #[cold]
    fn set_df(&mut self, df: bool) {
        let mode = if df { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_DONT };
        // Where that is refused it goes as the socket was made: without.
        let _ = sys::set_int(&self.port.socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode);
        self.df = df;
    }

    /// Sends one datagram with DF, for the control thread, whatever the kernel takes the path for.
    ///
    /// # Errors
    /// Those of sendmsg; EMSGSIZE where the interface takes no packet of that size.
    pub(crate) fn send_probe(&mut self, datagram: &[u8], path: &UdpPath) -> io::Result<()> {
        let mode = |mode| sys::set_int(&self.port.socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode);
        mode(libc::IP_PMTUDISC_PROBE)?;
        let sent = self.messages.send_singles(&self.port.socket, std::iter::once(datagram), path, 0);
        mode(libc::IP_PMTUDISC_DONT)?;
        sent.map(|_| ())
    }

    /// Sends one datagram, for the control thread.
    ///
    /// # Errors
    /// Those of sendmsg.
    pub fn send_datagram(&mut self, datagram: &[u8], path: &UdpPath) -> io::Result<()> {
        let result = self.messages.send_singles(&self.port.socket, std::iter::once(datagram), path, 0);
        match result {
            Err(error) if local_address_is_gone(&error, path) => {
                let path = UdpPath { local: Ipv4Addr::UNSPECIFIED, ..*path };
                self.messages.send_singles(&self.port.socket, std::iter::once(datagram), &path, 0).map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    /// The first message of a send was refused.
    #[cold]
    fn recover(&mut self, buffer: &[u8], run: &Run, error: &io::Error) {
        match error.raw_os_error() {
            // Segments larger than the path's MTU: the kernel fragments single datagrams only. With DF they don't leave anyway.
            Some(libc::EINVAL | libc::EMSGSIZE) if run.count > 1 && run.fit != Fit::Never => {
                self.unsplittable = self.unsplittable.min(run.segment);
            }
            // No checksum offload on the device that the route leads to.
            Some(libc::EIO | libc::EOPNOTSUPP) if run.count > 1 => self.unsplittable = 0,
            _ => {}
        }
        self.send_one_by_one(buffer, run);
    }

    fn send_one_by_one(&mut self, buffer: &[u8], run: &Run) {
        let octets = &buffer[run.start..run.start + run.len];
        let mut path = run.path;
        let mut next = 0;
        while next < run.count {
            let rest = octets[next * run.segment..].chunks(run.segment);
            match self.messages.send_singles(&self.port.socket, rest, &path, run.tos) {
                Ok(sent) if sent > 0 => next += sent,
                Err(error) if local_address_is_gone(&error, &path) => path.local = Ipv4Addr::UNSPECIFIED,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.drops.count(reason(&error));
                    next += 1;
                }
                Ok(_) => next += 1,
            }
        }
    }
}

/// Our address of the path is not ours any more (a client that moved): let the kernel choose.
fn local_address_is_gone(error: &io::Error, path: &UdpPath) -> bool {
    !path.local.is_unspecified()
        && matches!(
            error.raw_os_error(),
            Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENODEV | libc::ENETUNREACH)
        )
}

/// Which counter an error goes to.
pub(crate) fn reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => DropReason::SendTooBig,
        Some(libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => DropReason::SendNoBuffers,
        Some(
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::EADDRNOTAVAIL
            | libc::ECONNREFUSED,
        ) => DropReason::SendUnreachable,
        Some(libc::EPERM | libc::EACCES) => DropReason::SendNotPermitted,
        _ => DropReason::SendFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn receive(receiver: &mut Receiver) -> Vec<(Vec<u8>, Received)> {
        for _ in 0..200 {
            match receiver.receive(false) {
                Ok(_) => {
                    let (buffer, received) = receiver.batch();
                    return received
                        .iter()
                        .flat_map(|meta| {
                            buffer[meta.start..meta.start + meta.len]
                                .chunks(meta.segment)
                                .map(|d| (d.to_vec(), *meta))
                        })
                        .collect();
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        Vec::new()
    }

    fn receive_all(receivers: &mut [Receiver], count: usize) -> Vec<(usize, Vec<u8>, Received)> {
        let mut all = Vec::new();
        for _ in 0..200 {
            for (i, receiver) in receivers.iter_mut().enumerate() {
                if receiver.receive(false).is_ok() {
                    let (buffer, received) = receiver.batch();
                    for meta in received {
                        let octets = &buffer[meta.start..meta.start + meta.len];
                        all.extend(octets.chunks(meta.segment).map(|d| (i, d.to_vec(), *meta)));
                    }
                }
            }
            if all.len() >= count {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        all
    }

    #[test]
    fn runs_arrive_with_address_and_tos() {
        let a = Sockets::bind(Ipv4Addr::LOCALHOST, 0, 0, 1, true).unwrap();
        let b = Sockets::bind(Ipv4Addr::LOCALHOST, 0, 0, 1, true).unwrap();
        let path = UdpPath {
            local: Ipv4Addr::LOCALHOST,
            remote: SocketAddrV4::new(Ipv4Addr::LOCALHOST, b.nat.port()),
        };
        for gso in [true, false] {
            let mut sender = a.workers[0].sender(Arc::default());
            if !gso {
                sender.unsplittable = 0;
            }
            let mut batch = SendBatch::new(1 << 18);
            let mut sent = Vec::new();
            for i in 0..100_usize {
                // SPIs as ours are, so that they go to the worker.
                let len = if i % 10 == 9 { 500 } else { 1400 };
                let mut datagram = vec![i as u8 + 1; len];
                datagram[0] = 0;
                batch.room()[..len].copy_from_slice(&datagram);
                batch.commit(len, path, 0b10, Fit::Whole);
                sent.push(datagram);
            }
            sender.send(&mut batch);
            assert!(batch.is_empty());
            let mut receivers = [b.workers[0].receiver()];
            let got = receive_all(&mut receivers, sent.len());
            assert_eq!(got.iter().map(|(_, d, _)| d.clone()).collect::<Vec<_>>(), sent);
            for (_, _, meta) in got {
                assert_eq!(meta.source, SocketAddrV4::new(Ipv4Addr::LOCALHOST, a.nat.port()));
                assert_eq!(meta.local, Ipv4Addr::LOCALHOST);
                assert_eq!(meta.tos, 0b10);
            }
        }
    }

    /// An IKE header.
    fn ike(responder_spi: u64, next_payload: u8, version: u8) -> Vec<u8> {
        let spis = [7_u64.to_be_bytes(), responder_spi.to_be_bytes()].concat();
        [&spis[..], &[next_payload, version, 34, 8, 0, 0, 0, 0, 0, 0, 0, 28]].concat()
    }

    /// What is whose: of those we know, and of strangers.
    fn lanes() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let known = [ike(1, 46, 0x20), ike(1 << 32, 46, 0x20), ike(0, 41, 0x20), ike(0, 41, 0x21)];
        let strangers = [
            ike(0, 33, 0x20),
            ike(0, 0, 0x20),
            ike(1, 46, 0x30),
            ike(0, 41, 0x10),
            ike(1, 46, 0x20)[..16].to_vec(),
        ];
        (known.to_vec(), strangers.to_vec())
    }

    #[test]
    fn steering_by_spi() {
        let sockets = Sockets::bind(Ipv4Addr::LOCALHOST, 0, 0, 3, true).unwrap();
        assert!(sockets.description.contains("steered"), "{}", sockets.description);
        let (mut known, mut strangers) = (sockets.nat.known.receiver(), sockets.nat.strangers.receiver());
        let mut workers: Vec<_> = sockets.workers.iter().map(UdpPort::receiver).collect();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, sockets.nat.port());
        let send = |octets: &[u8]| sender.send_to(octets, to).unwrap();
        for spi in [256_u32, 257, 1000, FIRST_CEILING - 1] {
            send(&[&spi.to_be_bytes()[..], b"rest"].concat());
            let got = receive_all(&mut workers, 1);
            assert_eq!(got[0].0, spi as usize % 3);
        }
        for other in [&[0, 0, 0, 0, 1, 2, 3][..], &[0xff], &[0, 0, 0, 255, 9], &[1, 2, 3]] {
            send(other);
            assert_eq!(receive(&mut strangers)[0].0, other);
        }
        let marked = |message: Vec<u8>| [&[0; 4], &message[..]].concat();
        for message in lanes().0.into_iter().map(marked) {
            send(&message);
            assert_eq!(receive(&mut known)[0].0, message);
        }
        for message in lanes().1.into_iter().map(marked) {
            send(&message);
            assert_eq!(receive(&mut strangers)[0].0, message);
        }
        // No SA has such an SPI, until one has.
        let mut steering = Steering::new(&sockets);
        let high = |spi: u32| [&spi.to_be_bytes()[..], b"rest"].concat();
        for (spi, ceiling) in [(FIRST_CEILING, 1 << 24), (0x0100_0000, 1 << 25), (u32::MAX - 1, u32::MAX)] {
            send(&high(spi));
            assert_eq!(receive(&mut strangers)[0].0, high(spi));
            assert!(!steering.may_be_ours(Spi::new(spi).unwrap()));
            steering.admit(Spi::new(spi).unwrap());
            assert_eq!(steering.ceiling, ceiling);
            send(&high(spi));
            assert_eq!(receive_all(&mut workers, 1)[0].0, spi as usize % 3);
        }
    }

    #[test]
    fn strangers_have_a_lane_of_their_own_on_the_ike_port() {
        let sockets = Sockets::bind(Ipv4Addr::LOCALHOST, 0, 0, 1, true).unwrap();
        let (mut known, mut strangers) = (sockets.ike.known.receiver(), sockets.ike.strangers.receiver());
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, sockets.ike.port());
        for (lane, messages) in [(&mut known, lanes().0), (&mut strangers, lanes().1)] {
            for message in messages {
                sender.send_to(&message, to).unwrap();
                assert_eq!(receive(lane)[0].0, message);
            }
        }
    }

    /// Who is flooded with small messages takes more of them at once.
    #[test]
    fn more_slots_for_small_messages() {
        let sockets = Sockets::bind(Ipv4Addr::LOCALHOST, 0, 0, 1, true).unwrap();
        let mut receiver = sockets.workers[0].receiver();
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, sockets.nat.port());
        // From sockets of their own, so that GRO does not bundle them.
        for n in 0..64_u32 {
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(&(1000 + n).to_be_bytes(), to).unwrap();
        }
        let mut batches = Vec::new();
        while receiver.receive(false).is_ok() {
            batches.push(receiver.batch().1.len());
        }
        if receiver.few == SLOTS_GRO {
            assert_eq!(batches, [4, 16, 16, 16, 12]);
        }
        assert_eq!(batches.iter().sum::<usize>(), 64);
    }

    #[test]
    fn without_offload() {
        let sockets = Sockets::bind(Ipv4Addr::LOCALHOST, 0, 0, 1, false).unwrap();
        assert_eq!(sockets.description, "sendmmsg, recvmmsg, steered by SPI");
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let first = Sockets::bind(Ipv4Addr::LOCALHOST, 0, 0, 1, true).unwrap();
        let error = Sockets::bind(Ipv4Addr::LOCALHOST, 0, first.nat.port(), 1, true).unwrap_err();
        assert!(error.to_string().contains("Another program has the port"), "{error}");
        let error = Sockets::bind(Ipv4Addr::new(192, 0, 2, 1), 0, 0, 1, true).unwrap_err();
        assert!(error.to_string().contains("does not have the address"), "{error}");
    }

    #[test]
    fn what_cannot_be_sent_is_counted() {
        let sockets = Sockets::bind(Ipv4Addr::LOCALHOST, 0, 0, 1, true).unwrap();
        let drops = Arc::new(Drops::default());
        let mut sender = sockets.workers[0].sender(Arc::clone(&drops));
        let mut batch = SendBatch::new(1 << 16);
        // From 127.0.0.1 to the outside: EINVAL; or without a network at all: ENETUNREACH.
        let path = UdpPath {
            local: Ipv4Addr::UNSPECIFIED,
            remote: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9),
        };
        batch.room()[..4].fill(1);
        batch.commit(4, path, 0, Fit::Whole);
        sender.send(&mut batch);
        let counted = DropReason::ALL.iter().map(|reason| drops.get(*reason)).sum::<u64>();
        assert_eq!(counted, 1);
    }
}
