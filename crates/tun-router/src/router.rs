//! Starts the threads, and the handle to talk to them.

use crate::config::RouterConfig;
use crate::control::{Channels, Control, Parts};
use crate::counters::Drops;
use crate::datapath::{DataPath, Spawner};
use crate::device::Device;
use crate::lanes::WatchedLanes;
use crate::roaming::PathState;
use crate::sad::{SpisInUse, SteeringSpis};
use crate::status::{RouterStatus, Traffic};
use crate::udp::{Sockets, Steering};
use ferry6_crypto::provider::OsRandom;
use ferry6_crypto::{PacketKeys, Spi};
use ferry6_ike as ike;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// IKE messages from the workers' sockets that may wait for the control thread.
const IKE_QUEUE: usize = 256;

/// Why the router could not start: nothing is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TUN device could not be made.
    #[error("cannot open TUN device {name:?}: {source}. {hint}")]
    Tun {
        /// Its name.
        name: String,
        /// The cause.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A UDP port could not be bound.
    #[error("cannot bind UDP {address}: {source}. {hint}")]
    Bind {
        /// Address and port.
        address: SocketAddrV4,
        /// The cause.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A thread could not be started, or another system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// What the program should know of.
#[derive(Clone, Debug)]
pub enum RouterEvent {
    /// A tunnel is up: on a client, set address and routes now.
    Established(Box<ike::event::Established>),
    /// A Child SA was installed, perhaps in place of another one, with its narrowed selectors.
    ChildInstalled(Box<ChildInfo>),
    /// Ask whether a peer's certificates are revoked, and answer by [`RouterHandle::revocation_checked`].
    CheckRevocation(Box<ike::event::RevocationCheck>),
    /// The MTU of a tunnel, at first and when its path has another size.
    TunnelMtu {
        /// Its IKE SA.
        ike: ike::event::IkeSaId,
        /// Octets of the largest inner packet.
        mtu: u16,
    },
    /// A tunnel is gone.
    Closed(Box<ike::event::Closed>),
    /// What a tunnel carried in all: once, after [`Self::Closed`], when nothing comes in on its SAs any more.
    Carried {
        /// Its IKE SA.
        ike: ike::event::IkeSaId,
        /// All that its Child SAs carried.
        traffic: Traffic,
    },
    /// Keys of an IKE SA, for a key log; only where `EndpointConfig::keylog` asks for them.
    IkeKeys(Box<ike::event::IkeKeyLog>),
    /// Keys of a Child SA, for a key log; only where [`RouterConfig::keylog`] asks for them.
    ChildKeys(Box<ChildKeys>),
    /// The broker asks its client to reauthenticate within this time.
    ReauthenticateIn {
        /// Which IKE SA.
        ike: ike::event::IkeSaId,
        /// The time from now on.
        after: Duration,
    },
    /// For the log.
    Notice {
        /// Warn or info.
        warning: bool,
        /// What it is about, one of a few words.
        cause: &'static str,
        /// The text.
        text: String,
    },
}

/// The keys of a Child SA, each with the SPI that says where they are used.
#[derive(Clone, Debug)]
pub struct ChildKeys {
    /// Its IKE SA.
    pub ike: ike::event::IkeSaId,
    /// Reqid.
    pub reqid: ike::event::Reqid,
    /// Extended sequence numbers.
    pub esn: bool,
    /// To us.
    pub inbound: (Spi, PacketKeys),
    /// From us.
    pub outbound: (Spi, PacketKeys),
}

/// A Child SA without its keys.
#[derive(Clone, Debug)]
pub struct ChildInfo {
    /// Its IKE SA.
    pub ike: ike::event::IkeSaId,
    /// Reqid.
    pub reqid: ike::event::Reqid,
    /// Our side.
    pub local_ts: Vec<ike::TrafficSelector>,
    /// Their side.
    pub remote_ts: Vec<ike::TrafficSelector>,
    /// Whether it replaced another one.
    pub rekeyed: bool,
    /// Its number among those of its reqid: above 0 it stands beside others with the same selectors (RFC 9611).
    pub resource: u32,
}

/// The running router: worker threads and the control thread. Dropping it stops all and removes the device.
pub struct Router {
    tun_name: String,
    handle: RouterHandle,
    control: Option<JoinHandle<()>>,
    data_path: Option<DataPath>,
}

/// Commands to the control thread; cheap to clone. Each method is async and answers when the
/// control thread has taken it up; what becomes of it is a matter of events.
#[derive(Clone)]
pub struct RouterHandle {
    commands: mpsc::UnboundedSender<Command>,
}

/// What a [`RouterHandle`] asks the control thread for.
pub(crate) enum Command {
    Initiate { connection: String, broker: SocketAddrV4, answer: Answer<ike::event::IkeSaId> },
    Close { ike: ike::event::IkeSaId, answer: Answer<()> },
    RekeyChild { reqid: ike::event::Reqid, answer: Answer<()> },
    RekeyIke { ike: ike::event::IkeSaId, answer: Answer<()> },
    Probe { ike: ike::event::IkeSaId, answer: Answer<()> },
    NetworkChanged { ike: ike::event::IkeSaId, addresses: Vec<Ipv4Addr>, answer: Answer<PathState> },
    RevocationChecked { ike: ike::event::IkeSaId, outcome: Result<(), ike::certs::CertError> },
    Set { settings: Box<ike::config::Settings>, answer: oneshot::Sender<()> },
    Bar { barred: ike::config::Barred, answer: oneshot::Sender<()> },
    Traffic { answer: oneshot::Sender<Vec<(ike::event::IkeSaId, Traffic)>> },
    Status { answer: oneshot::Sender<RouterStatus> },
    Ping { answer: oneshot::Sender<()> },
    Stop { patience: Duration },
}

type Answer<T> = oneshot::Sender<Result<T, HandleError>>;

/// What a thread of the router does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadKind {
    /// Moves packets between the TUN device and the sockets, all of them open.
    Worker,
    /// IKE.
    Control,
}

/// What is called at the start of each thread, before it does anything else.
pub type ThreadStart = Arc<dyn Fn(ThreadKind) + Send + Sync>;

/// A router whose device and sockets are open, and whose threads do not run yet: the time to give rights away.
pub struct Prepared {
    config: RouterConfig,
    device: Device,
    sockets: Sockets,
}

impl Prepared {
    /// Opens the device and binds the ports.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(config: RouterConfig) -> Result<Self, StartError> {
        let device =
            Device::open(&config.tun_name, config.device, config.offload, config.mtu, worker_count(&config))?;
        Self::with_device(config, device)
    }

    /// Binds the ports for a device that is open already.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn with_device(config: RouterConfig, device: Device) -> Result<Self, StartError> {
        let sockets = Sockets::bind(
            config.listen,
            config.ike_port,
            config.nat_port,
            worker_count(&config),
            config.offload,
        )?;
        Ok(Self { config, device, sockets })
    }

    /// The real name of the TUN interface.
    pub fn tun_name(&self) -> &str {
        self.device.name()
    }

    /// Starts the threads. `make_endpoint` gets the SPI generator that steers by worker.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        self,
        make_endpoint: impl FnOnce(Box<dyn ike::config::SpiGenerator>) -> ike::Endpoint + Send + 'static,
        events: mpsc::Sender<RouterEvent>,
        at_thread_start: ThreadStart,
    ) -> Result<Router, StartError> {
        let Self { config, device, sockets } = self;
        let io = |what| move |source| StartError::Io { what, source };
        let workers = sockets.workers.len();
        let spawner = Spawner(at_thread_start);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(io("cannot make the control thread's event loop"))?;

        let (commands, command_receiver) = mpsc::unbounded_channel();
        let (reports, report_receiver) = mpsc::unbounded_channel();
        let (ike_datagrams, ike_receiver) = mpsc::channel(IKE_QUEUE);
        let spis = SpisInUse::new(workers);
        let data_path = DataPath::start(&device, &sockets.workers, &ike_datagrams, &reports, &spawner)?;
        let own_drops = Arc::<Drops>::default();

        let status = RouterStatus {
            tun: device.name().to_owned(),
            device: device.description().to_owned(),
            udp: sockets.description.clone(),
            crypto: config.crypto.name.to_owned(),
            mtu: config.mtu,
            workers,
            ..RouterStatus::default()
        };
        let steering = Steering::new(&sockets);
        let parts = Parts {
            config,
            status,
            hand_on: data_path.hand_on(Arc::clone(&own_drops)),
            ike: sockets.ike,
            nat: sockets.nat,
            steering,
            outbound: data_path.outbound.clone(),
            inbound: data_path.inbound.clone(),
            spis: spis.clone(),
            drops: std::iter::once(&own_drops).chain(&data_path.drops).cloned().collect(),
            events,
        };
        let channels = Channels { commands: command_receiver, reports: report_receiver, ike: ike_receiver };
        let (ready, started) = std::sync::mpsc::channel();
        let control = spawner.spawn(ThreadKind::Control, "control".to_owned(), move || {
            runtime.block_on(async move {
                let watched = match WatchedLanes::new(&parts.ike, &parts.nat) {
                    Ok(watched) => watched,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                let generator = SteeringSpis::new(Box::new(OsRandom), spis);
                let endpoint = make_endpoint(Box::new(generator));
                let _ = ready.send(Ok(()));
                Control::new(endpoint, parts).run(watched, channels).await;
            });
        })?;
        let router = Router {
            tun_name: device.name().to_owned(),
            handle: RouterHandle { commands },
            control: Some(control),
            data_path: Some(data_path),
        };
        match started.recv() {
            Ok(Ok(())) => Ok(router),
            Ok(Err(source)) => Err(StartError::Io { what: "cannot watch the IKE sockets", source }),
            Err(_) => Err(StartError::Io {
                what: "the control thread ended while it was starting",
                source: io::Error::other("a panic, told above"),
            }),
        }
    }
}

impl Router {
    /// Opens device and sockets, starts the threads. `make_endpoint` gets the SPI generator that steers by worker.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        config: RouterConfig,
        make_endpoint: impl FnOnce(Box<dyn ike::config::SpiGenerator>) -> ike::Endpoint + Send + 'static,
        events: mpsc::Sender<RouterEvent>,
    ) -> Result<Self, StartError> {
        Prepared::open(config)?.start(make_endpoint, events, Spawner::default().0)
    }

    /// The same with a device that is open already.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_with_device(
        config: RouterConfig,
        device: Device,
        make_endpoint: impl FnOnce(Box<dyn ike::config::SpiGenerator>) -> ike::Endpoint + Send + 'static,
        events: mpsc::Sender<RouterEvent>,
    ) -> Result<Self, StartError> {
        Prepared::with_device(config, device)?.start(make_endpoint, events, Spawner::default().0)
    }

    /// The real name of the TUN interface.
    pub fn tun_name(&self) -> &str {
        &self.tun_name
    }

    /// A handle for commands.
    pub fn handle(&self) -> RouterHandle {
        self.handle.clone()
    }

    /// Sends DELETE for all, waits at most `patience`, stops the threads and removes the device.
    pub fn stop(mut self, patience: Duration) {
        self.shut_down(patience);
    }

    fn shut_down(&mut self, patience: Duration) {
        let _ = self.handle.commands.send(Command::Stop { patience });
        if self.control.take().is_some_and(|control| control.join().is_err()) {
            tracing::error!("the control thread panicked");
        }
        // Stops and joins the workers, which closes the last descriptors of the device.
        self.data_path = None;
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // Nothing is left to do after `stop`.
        if self.control.is_some() {
            self.shut_down(Duration::ZERO);
        }
    }
}

fn worker_count(config: &RouterConfig) -> usize {
    if config.workers > 0 {
        config.workers
    } else {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }
}

/// The router does not run any more, or refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HandleError {
    /// It has stopped.
    #[error("the router has stopped")]
    Stopped,
    /// The endpoint refused.
    #[error(transparent)]
    Command(#[from] ike::endpoint::CommandError),
}

impl RouterHandle {
    /// Brings a connection up towards a broker at this IPv4 address and IKE port.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn initiate(
        &self,
        connection: &str,
        broker: SocketAddrV4,
    ) -> Result<ike::event::IkeSaId, HandleError> {
        let connection = connection.to_owned();
        self.ask(|answer| Command::Initiate { connection, broker, answer }).await?
    }
    /// Closes an IKE SA.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn close(&self, ike: ike::event::IkeSaId) -> Result<(), HandleError> {
        self.ask(|answer| Command::Close { ike, answer }).await?
    }
    /// Rekeys a Child SA.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn rekey_child(&self, reqid: ike::event::Reqid) -> Result<(), HandleError> {
        self.ask(|answer| Command::RekeyChild { reqid, answer }).await?
    }
    /// Rekeys an IKE SA.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn rekey_ike(&self, ike: ike::event::IkeSaId) -> Result<(), HandleError> {
        self.ask(|answer| Command::RekeyIke { ike, answer }).await?
    }
    /// Asks whether the peer is there; the answer's time is in [`crate::status::IkeSa::rtt_us`].
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn probe(&self, ike: ike::event::IkeSaId) -> Result<(), HandleError> {
        self.ask(|answer| Command::Probe { ike, answer }).await?
    }
    /// What is known of the certificates of a [`RouterEvent::CheckRevocation`].
    pub fn revocation_checked(&self, ike: ike::event::IkeSaId, outcome: Result<(), ike::certs::CertError>) {
        // A router that has stopped needs no answer.
        let _ = self.commands.send(Command::RevocationChecked { ike, outcome });
    }
    /// Takes other settings. New IKE SAs are made by the new connections; those that stand keep theirs.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn set(&self, settings: ike::config::Settings) -> Result<(), HandleError> {
        self.ask(|answer| Command::Set { settings: Box::new(settings), answer }).await
    }
    /// Takes another list of those that are not let in, and closes the tunnels that they have.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn bar(&self, barred: ike::config::Barred) -> Result<(), HandleError> {
        self.ask(|answer| Command::Bar { barred, answer }).await
    }
    /// What each tunnel has carried that stands, or is not told by [`RouterEvent::Carried`] yet. Much cheaper than
    /// [`Self::status`].
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn traffic(&self) -> Result<Vec<(ike::event::IkeSaId, Traffic)>, HandleError> {
        self.ask(|answer| Command::Traffic { answer }).await
    }
    /// Addresses or routes of the machine have changed: finds out from which address the peer is reached now, and moves
    /// the IKE SA there. `addresses` are all that we could use; a peer that speaks MOBIKE is told.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn network_changed(
        &self,
        ike: ike::event::IkeSaId,
        addresses: Vec<Ipv4Addr>,
    ) -> Result<PathState, HandleError> {
        self.ask(|answer| Command::NetworkChanged { ike, addresses, answer }).await?
    }
    /// Answered by the control thread as soon as it comes to it.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn ping(&self) -> Result<(), HandleError> {
        self.ask(|answer| Command::Ping { answer }).await
    }
    /// A snapshot of all SAs, flows and counters.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn status(&self) -> Result<RouterStatus, HandleError> {
        self.ask(|answer| Command::Status { answer }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, HandleError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).map_err(|_| HandleError::Stopped)?;
        answered.await.map_err(|_| HandleError::Stopped)
    }
}
