//! What the control thread receives, in two lanes: those whom we know, and strangers.
//!
//! The kernel sorts them ([`crate::udp`]). Between two batches of strangers those whom we know are served first, so that under a
//! flood of spoofed first messages a peer waits for one batch at most. And strangers get half of the time of one core: when
//! more of them wait after a turn, the next one begins after as long a rest as that took. What they send meanwhile waits in the
//! socket's queue, and beyond that is the kernel's to drop, which is the cheapest that can be done with it.

use crate::batch::{SendBatch, UdpPath};
use crate::control::{Control, now};
use crate::counters::DropReason;
use crate::sad;
use crate::size::Fit;
use crate::udp::{self, Receiver};
use ferry6_esp::encap::{self, Datagram, NON_ESP_MARKER};
use ferry6_ike::endpoint::DemandRoom;
use ferry6_ike::event::Path;
use nix::time::{ClockId, clock_gettime};
use std::io;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket as Watched;

/// Batches of datagrams handled between two looks at everything else, and for how long: a handshake may take a millisecond.
const BATCHES_PER_TURN: usize = 8;
const TURN: Duration = Duration::from_millis(10);
/// The same for strangers: few of them cost more than a look.
const STRANGERS_PER_TURN: usize = 32;
/// Octets for the demands for cookies that one batch brings.
const DEMANDS_LEN: usize = 16 << 10;

/// A port of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// UDP/500.
    Ike,
    /// UDP/4500.
    Nat,
}

/// The sockets of the control thread, as the event loop watches them.
pub(crate) struct WatchedLanes {
    known: [Watched; 2],
    strangers: [Watched; 2],
}

impl WatchedLanes {
    pub(crate) fn new(ike: &udp::Lanes, nat: &udp::Lanes) -> io::Result<Self> {
        Ok(Self {
            known: [ike.known.watch()?, nat.known.watch()?],
            strangers: [ike.strangers.watch()?, nat.strangers.watch()?],
        })
    }

    /// Waits for one whom we know.
    pub(crate) async fn known(&self) -> Port {
        readable(&self.known).await
    }

    /// Waits for a stranger.
    pub(crate) async fn stranger(&self) -> Port {
        readable(&self.strangers).await
    }
}

async fn readable([ike, nat]: &[Watched; 2]) -> Port {
    // An error is told by the receive that follows.
    tokio::select! {
        _ = ike.readable() => Port::Ike,
        _ = nat.readable() => Port::Nat,
    }
}

/// The receivers, and what is sent back to strangers.
pub(crate) struct Lanes {
    known: [Receiver; 2],
    strangers: [Receiver; 2],
    demands: Demands,
    /// Strangers wait until then.
    rest: Option<Instant>,
}

/// Demands for cookies that leave together.
struct Demands {
    room: DemandRoom,
    batch: SendBatch,
}

impl Lanes {
    pub(crate) fn new(ike: &udp::Lanes, nat: &udp::Lanes) -> Self {
        Self {
            known: [ike.known.receiver(), nat.known.receiver()],
            strangers: [ike.strangers.receiver(), nat.strangers.receiver()],
            demands: Demands { room: DemandRoom::default(), batch: SendBatch::new(DEMANDS_LEN) },
            rest: None,
        }
    }

    /// Until when strangers wait, if they do.
    pub(crate) fn rest(&mut self, now: Instant) -> Option<Instant> {
        self.rest = self.rest.filter(|until| *until > now);
        self.rest
    }
}

/// The time that this thread has spent on a processor.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// What one receive found.
#[derive(PartialEq, Eq)]
enum Found {
    /// Nothing, or too little to fill all slots: the socket is empty now.
    Last,
    /// There may be more.
    More,
}

impl Control {
    /// Receives from those whom we know, as the event loop found something there.
    pub(crate) fn receive_known(&mut self, watched: &WatchedLanes, lanes: &mut Lanes, port: Port) {
        let Lanes { known, demands, .. } = lanes;
        let _ = watched.known[port as usize]
            .try_io(Interest::READABLE, || self.serve(&mut known[port as usize], demands, port));
    }

    /// `WouldBlock` where the socket is empty now, which tells the event loop to wait for more.
    fn serve(&mut self, receiver: &mut Receiver, demands: &mut Demands, port: Port) -> io::Result<()> {
        let start = Instant::now();
        for _ in 0..BATCHES_PER_TURN {
            if start.elapsed() >= TURN {
                return Ok(());
            }
            self.receive_batch(receiver, demands, port)?;
        }
        Ok(())
    }

    /// Receives from strangers.
    pub(crate) fn receive_strangers(&mut self, watched: &WatchedLanes, lanes: &mut Lanes, port: Port) {
        let Lanes { known, strangers, demands, rest } = lanes;
        let begin = cpu_time();
        let outcome = watched.strangers[port as usize].try_io(Interest::READABLE, || {
            let start = Instant::now();
            for _ in 0..STRANGERS_PER_TURN {
                if start.elapsed() >= TURN {
                    break;
                }
                for (receiver, port) in known.iter_mut().zip([Port::Ike, Port::Nat]) {
                    // That there is none is no news to the event loop, which looks for itself.
                    let _ = self.receive_batch(receiver, demands, port);
                }
                if self.receive_batch(&mut strangers[port as usize], demands, port)? == Found::Last {
                    return Ok(Found::Last);
                }
            }
            Ok(Found::More)
        });
        if matches!(outcome, Ok(Found::More)) {
            *rest = Some(Instant::now() + cpu_time().saturating_sub(begin));
        }
    }

    /// `WouldBlock` where there is nothing.
    fn receive_batch(
        &mut self,
        receiver: &mut Receiver,
        demands: &mut Demands,
        port: Port,
    ) -> io::Result<Found> {
        let arrived = match receiver.receive(false) {
            Ok(arrived) => arrived,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Found::More),
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::debug!("cannot receive on UDP port {}: {error}", self.number(port));
                }
                return Err(io::ErrorKind::WouldBlock.into());
            }
        };
        self.parts.drops[0].add(DropReason::InTruncated, arrived.truncated);
        let (number, now) = (self.number(port), now());
        let (buffer, received) = receiver.batch();
        for meta in received {
            let path =
                Path { local: SocketAddrV4::new(meta.local, number).into(), remote: meta.source.into() };
            for datagram in buffer[meta.start..meta.start + meta.len].chunks(meta.segment) {
                let message = match (port, encap::classify(datagram)) {
                    (Port::Ike, _) => datagram,
                    (Port::Nat, Datagram::Ike(message)) => message,
                    (Port::Nat, Datagram::Keepalive) => continue,
                    (Port::Nat, Datagram::Malformed) => {
                        self.parts.drops[0].count(DropReason::InMalformedDatagram);
                        continue;
                    }
                    (Port::Nat, Datagram::Esp(spi)) => {
                        if self.parts.steering.may_be_ours(spi) {
                            let owner = sad::owner(spi, self.parts.inbound.len());
                            self.parts.hand_on.push(owner, &[datagram], *meta);
                        } else {
                            self.parts.drops[0].count(DropReason::InUnknownSpi);
                        }
                        continue;
                    }
                };
                let Demands { room, batch } = &mut *demands;
                if let Some(demand) = self.endpoint.handle_datagram_with(now, path, message, room) {
                    let marker: &[u8] = if port == Port::Nat { &NON_ESP_MARKER } else { &[] };
                    let len = marker.len() + demand.len();
                    if batch.room().len() < len {
                        self.sender(port).send(batch);
                    }
                    let (front, rest) = batch.room().split_at_mut(marker.len());
                    front.copy_from_slice(marker);
                    rest[..demand.len()].copy_from_slice(demand);
                    batch.commit(len, UdpPath { local: meta.local, remote: meta.source }, 0, Fit::Whole);
                }
            }
        }
        // Answers leave before the next question is looked at.
        self.drain_endpoint();
        if !demands.batch.is_empty() {
            self.sender(port).send(&mut demands.batch);
        }
        self.parts.hand_on.flush();
        Ok(if arrived.full { Found::More } else { Found::Last })
    }

    fn number(&self, port: Port) -> u16 {
        match port {
            Port::Ike => self.parts.ike.port(),
            Port::Nat => self.parts.nat.port(),
        }
    }

    fn sender(&mut self, port: Port) -> &mut udp::Sender {
        match port {
            Port::Ike => &mut self.ike_sender,
            Port::Nat => &mut self.nat_sender,
        }
    }
}
