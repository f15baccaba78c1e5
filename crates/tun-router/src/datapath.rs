//! Starts and stops the worker threads.

use crate::counters::{DropReason, Drops};
use crate::device::{Device, TunWriter};
use crate::router::{StartError, ThreadKind, ThreadStart};
use crate::threads::{
    self, HandOn, IkeDatagram, InboundMessage, InboundThread, InboundThreadIo, Inbox, Mailbox,
    OutboundMessage, OutboundThread, OutboundThreadIo, Pool, ThreadReport,
};
use crate::udp::UdpPort;
use crate::worker::{Inbound, Outbound};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// The running worker threads: two per worker.
pub(crate) struct DataPath {
    pub(crate) outbound: Vec<Mailbox<OutboundMessage>>,
    pub(crate) inbound: Vec<Mailbox<InboundMessage>>,
    /// Outbound and inbound of each worker: one writer each.
    pub(crate) drops: Vec<Arc<Drops>>,
    pool: Pool,
    threads: Vec<JoinHandle<()>>,
}

impl DataPath {
    /// One worker per socket.
    pub(crate) fn start(
        device: &Device,
        sockets: &[UdpPort],
        ike: &mpsc::Sender<IkeDatagram>,
        reports: &mpsc::UnboundedSender<ThreadReport>,
        spawner: &Spawner,
    ) -> Result<Self, StartError> {
        let workers = sockets.len();
        let (outbound, outbound_inboxes) = mailboxes(workers)?;
        let (inbound, inbound_inboxes) = mailboxes(workers)?;
        let mut path = Self {
            outbound,
            inbound,
            drops: (0..2 * workers).map(|_| Arc::default()).collect(),
            pool: Pool::new(),
            threads: Vec::with_capacity(2 * workers),
        };
        for (index, inbox) in outbound_inboxes.into_iter().enumerate() {
            let drops = Arc::clone(&path.drops[2 * index]);
            let thread = OutboundThread {
                outbound: Outbound::new(index, Arc::clone(&drops)),
                queue: device.queues().get(index).cloned(),
                attached: index == 0,
                inbox,
                io: OutboundThreadIo {
                    writer: TunWriter::new(device.queues().to_vec(), Arc::clone(&drops)),
                    sender: sockets[index].sender(Arc::clone(&drops)),
                    reports: reports.clone(),
                },
                hand_on: HandOn::new(
                    path.outbound.clone(),
                    path.pool.clone(),
                    Arc::clone(&drops),
                    DropReason::OutHandoffFull,
                ),
                pool: path.pool.clone(),
                drops,
            };
            path.threads
                .push(spawner.spawn(ThreadKind::Worker, format!("out-{index}"), move || thread.run())?);
        }
        for (index, inbox) in inbound_inboxes.into_iter().enumerate() {
            let drops = Arc::clone(&path.drops[2 * index + 1]);
            let thread = InboundThread {
                inbound: Inbound::new(
                    index,
                    workers,
                    device.segmentation(),
                    device.udp_segmentation(),
                    Arc::clone(&drops),
                ),
                receiver: sockets[index].receiver(),
                inbox,
                io: InboundThreadIo {
                    writer: TunWriter::new(device.queues().to_vec(), Arc::clone(&drops)),
                    ike: ike.clone(),
                    reports: reports.clone(),
                    hand_on: path.hand_on(Arc::clone(&drops)),
                    drops,
                },
                pool: path.pool.clone(),
            };
            path.threads
                .push(spawner.spawn(ThreadKind::Worker, format!("in-{index}"), move || thread.run())?);
        }
        Ok(path)
    }

    /// A way to hand ESP on to the workers, for a thread with these counters.
    pub(crate) fn hand_on(&self, drops: Arc<Drops>) -> HandOn<InboundMessage> {
        HandOn::new(self.inbound.clone(), self.pool.clone(), drops, DropReason::InHandoffFull)
    }
}

impl Drop for DataPath {
    fn drop(&mut self) {
        for mailbox in &self.outbound {
            mailbox.post(OutboundMessage::Stop);
        }
        for mailbox in &self.inbound {
            mailbox.post(InboundMessage::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

type Mailboxes<C> = (Vec<Mailbox<C>>, Vec<Inbox<C>>);

fn mailboxes<C>(count: usize) -> Result<Mailboxes<C>, StartError> {
    let made: Result<Vec<_>, _> = (0..count).map(|_| threads::mailbox()).collect();
    made.map(|made| made.into_iter().unzip())
        .map_err(|source| StartError::Io { what: "cannot make an eventfd for a worker", source })
}

/// Starts threads, each with what the program wants done at its start.
pub(crate) struct Spawner(pub(crate) ThreadStart);

impl Default for Spawner {
    fn default() -> Self {
        Self(Arc::new(|_| ()))
    }
}

impl Spawner {
    /// Starts a thread with a name that `top -H` shows.
    pub(crate) fn spawn(
        &self,
        kind: ThreadKind,
        name: String,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, StartError> {
        let at_start = Arc::clone(&self.0);
        std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                at_start(kind);
                run();
            })
            .map_err(|source| StartError::Io { what: "cannot start a thread", source })
    }
}
