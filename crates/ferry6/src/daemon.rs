//! What broker and client share: the runtime, signals, hardening, and the answers to the control socket.

use crate::config::Tunnel;
use crate::control::server::{self, Call, Socket};
use crate::control::{BrokerStatus, ClientStatus, Rekey, Response, Status};
use crate::keylog::KeyLog;
use crate::net::Net;
use crate::revocation::{self, Checker};
use crate::sandbox::{self, Confined, Files, Kind, Process};
use crate::supervisor::Supervisor;
use anyhow::{Context as _, anyhow, bail};
use caps::{CapSet, Capability};
use ferry6_crypto::CryptoProvider;
use ferry6_crypto::provider::OsRandom;
use ferry6_ike::Identity;
use ferry6_ike::config::{AddressPool, EndpointConfig};
use ferry6_ike::endpoint::{Endpoint, Parts};
use ferry6_ike::event::{IkeSaId, Reqid, RevocationCheck};
use ferry6_tun_router::router::ThreadKind;
use ferry6_tun_router::status::{IkeSa, RouterStatus};
use ferry6_tun_router::{Router, RouterConfig, RouterEvent, RouterHandle};
use std::io::IsTerminal as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot};

/// How long DELETE may take to be answered at the end.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// A peer is asked no more often than this whether it is there, however many look on.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the router may take for a snapshot.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// Runs `main` on a runtime of its own; what it leaves running is not waited for.
///
/// # Errors
/// No runtime, or what `main` says.
pub fn run(main: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    harden();
    end_on_panic();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(main)));
    // A resolver that hangs must not keep the process.
    runtime.shutdown_background();
    // What `main` had set was put back while it unwound, and the hook has told of the panic.
    result.unwrap_or(Ok(ExitCode::FAILURE))
}

/// Told by a panic in any thread: the daemon ends then, in order. A panic is a bug, and a daemon with a thread less would
/// seem to work and not do so; its supervisor starts it anew.
static PANICKED: OnceLock<Notify> = OnceLock::new();

fn panicked() -> &'static Notify {
    PANICKED.get_or_init(Notify::new)
}

/// One line for each panic, and the daemon is told. No backtrace: it would read files that are out of reach by then.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let place = info.location().map_or_else(String::new, |at| format!(" at {at}"));
        let text = info.payload_as_str().unwrap_or("no text");
        tracing::error!("panic in thread {}{place}: {text}", thread.name().unwrap_or("unnamed"));
        panicked().notify_one();
    }));
}

/// No core dumps: keys are in memory.
fn harden() {
    use nix::sys::resource::{Resource, setrlimit};
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!("core dumps stay on: {error}");
    }
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!("core dumps stay on: {error}");
    }
}

/// Refuses to start where the device could not be configured anyway.
///
/// # Errors
/// With what to do.
pub fn check_permission() -> anyhow::Result<()> {
    match caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN) {
        Ok(false) => Err(crate::exit::not_permitted(
            "not permitted: the tunnel device, its address and routes need CAP_NET_ADMIN. Run ferry6 as root, or give \
             it CAP_NET_ADMIN and CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=)"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// What ends a daemon: SIGINT, SIGTERM, or a panic in one of its threads.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    failed: bool,
}

impl StopSignals {
    /// Takes them over.
    ///
    /// # Errors
    /// The system refused.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            failed: false,
        })
    }

    /// Waits for the next one.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = panicked().notified() => self.failed = true,
        }
    }

    /// The daemon ends by a fault of its own: its exit code says so.
    pub fn fail(&mut self, why: &str) {
        tracing::error!("{why}");
        self.failed = true;
    }
}

/// SIGHUP: the configuration is to be read anew. For a daemon on a terminal it says that the terminal is gone, and ends it.
pub struct Hangup(Option<Signal>);

impl Hangup {
    fn new() -> anyhow::Result<Self> {
        if std::io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        Ok(Self(Some(signal(SignalKind::hangup()).context("SIGHUP")?)))
    }

    /// Waits for the next one.
    pub async fn recv(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// The running parts of a daemon.
pub struct Daemon {
    role: &'static str,
    started: Instant,
    router: Router,
    /// Commands to the router.
    pub handle: RouterHandle,
    /// Events of the router.
    pub events: mpsc::Receiver<RouterEvent>,
    /// Calls on the control socket.
    pub calls: mpsc::Receiver<Call>,
    /// What ends it.
    pub stop: StopSignals,
    /// What has it read its configuration anew.
    pub hangup: Hangup,
    /// Who hears how it is.
    pub supervisor: Supervisor,
    /// Netlink.
    pub net: Net,
    /// Index of the tunnel device.
    pub tun: u32,
    keylog: Option<KeyLog>,
    confined: Confined,
    revocation: Checker,
    _socket: Socket,
}

/// What [`Prepared::new`] needs.
pub struct Setup<'a> {
    /// `broker` or `client`.
    pub role: &'static str,
    /// Path of the control socket.
    pub control: &'a Path,
    /// Device and workers.
    pub tunnel: &'a Tunnel,
    /// Address and ports.
    pub listen: crate::config::Listen,
    /// Where CRLs that were fetched are kept; `None` where nobody is asked about revocation.
    pub crl_cache: Option<&'a Path>,
    /// Where `--keylog` asks to write keys.
    pub keylog: Option<&'a Path>,
    /// Whose rights the process has after set-up.
    pub process: &'a Process,
    /// Netlink.
    pub net: Net,
}

/// A daemon whose device, ports and control socket are open, with all the rights that it was started with.
pub struct Prepared {
    role: &'static str,
    stop: StopSignals,
    hangup: Hangup,
    supervisor: Supervisor,
    listener: UnixListener,
    socket: Socket,
    router: ferry6_tun_router::Prepared,
    process: Process,
    crypto: CryptoProvider,
    keylog: Option<KeyLog>,
    crl_cache: Option<PathBuf>,
    /// Netlink.
    pub net: Net,
    /// Index of the tunnel device.
    pub tun: u32,
}

impl Prepared {
    /// Binds the control socket, opens device and ports. On an error nothing is left behind.
    ///
    /// # Errors
    /// Whatever is missing, with what to do.
    pub async fn new(setup: Setup<'_>) -> anyhow::Result<Self> {
        let stop = StopSignals::new()?;
        let hangup = Hangup::new()?;
        let (listener, socket) = server::bind(setup.control, setup.process)?;
        let keylog = setup.keylog.map(KeyLog::open).transpose()?;
        let config = RouterConfig { keylog: keylog.is_some(), ..setup.tunnel.router(setup.listen) };
        let router = ferry6_tun_router::Prepared::open(config)?;
        let (net, device) = (setup.net, router.tun_name());
        crate::net::sysctl::prepare_device(device).map_err(|e| anyhow!(e))?;
        let tun = net.index(device).await?;
        net.up(tun).await?;
        if let Some(directory) = setup.crl_cache {
            revocation::prepare(directory, setup.process);
        }
        Ok(Self {
            role: setup.role,
            stop,
            hangup,
            supervisor: Supervisor::of_environment(),
            listener,
            socket,
            process: setup.process.clone(),
            crypto: setup.tunnel.crypto,
            keylog,
            crl_cache: setup.crl_cache.map(Path::to_owned),
            net,
            tun,
            router,
        })
    }

    /// The name of the tunnel device.
    pub fn device(&self) -> &str {
        self.router.tun_name()
    }

    /// Gives away what is not needed any more, but for `files`; starts the threads.
    ///
    /// # Errors
    /// A right that can't be given away, or a thread that can't be started.
    pub fn start(
        self,
        mut endpoint: EndpointConfig,
        pool: Option<Box<dyn AddressPool>>,
        files: Files,
    ) -> anyhow::Result<Daemon> {
        let files = match self.socket.directory() {
            // Taking the socket away at the end.
            Some(directory) => files.write(directory),
            None => files,
        };
        let files = match &self.crl_cache {
            // The servers' names are looked up.
            Some(directory) => files.write(directory).resolver(),
            None => files,
        };
        let confined = sandbox::confine(&self.process, &files)?;
        let (event_sender, events) = mpsc::channel(1024);
        endpoint.keylog = self.keylog.is_some();
        let crypto = self.crypto;
        let at_thread_start = {
            let confined = confined.clone();
            Arc::new(move |kind| {
                confined.this_thread(match kind {
                    ThreadKind::Worker => Kind::Worker,
                    ThreadKind::Control => Kind::Control,
                });
            })
        };
        let router = self.router.start(
            move |spis| Endpoint::new(endpoint, Parts { crypto, random: Box::new(OsRandom), spis, pool }),
            event_sender,
            at_thread_start,
        )?;
        confined.this_thread(Kind::Main);
        let (call_sender, calls) = mpsc::channel(16);
        tokio::spawn(server::serve(self.listener, call_sender, self.process.control_group.is_some()));
        let daemon = Daemon {
            role: self.role,
            started: Instant::now(),
            handle: router.handle(),
            router,
            events,
            calls,
            stop: self.stop,
            hangup: self.hangup,
            supervisor: self.supervisor,
            net: self.net,
            tun: self.tun,
            confined,
            keylog: self.keylog,
            revocation: Checker::new(crypto, self.crl_cache.unwrap_or_default()),
            _socket: self.socket,
        };
        tracing::debug!("rights: {}", daemon.confined.status().line());
        daemon.supervisor.ready();
        Ok(daemon)
    }
}

impl Daemon {
    /// The name of the tunnel device.
    pub fn device(&self) -> &str {
        self.router.tun_name()
    }

    /// Writes the keys of an event that has some, where they are asked for.
    pub fn log_keys(&mut self, event: &RouterEvent) {
        if let Some(log) = &mut self.keylog {
            log.event(event);
        }
    }

    /// Asks whether certificates are revoked, beside everything else, and tells the router.
    pub fn check_revocation(&self, check: RevocationCheck) {
        self.revocation.start(check, self.handle.clone());
    }

    /// Sends DELETE for everything and takes the device away, and with it its address and routes. A second signal
    /// does not wait for the peer. What the router still tells goes to `event`.
    pub async fn finish(mut self, mut event: impl FnMut(RouterEvent)) -> ExitCode {
        tracing::info!("stopping");
        self.supervisor.stopping();
        let router = self.router;
        let mut stopping = tokio::task::spawn_blocking(move || router.stop(STOP_PATIENCE));
        loop {
            tokio::select! {
                _ = &mut stopping => {
                    std::iter::from_fn(|| self.events.try_recv().ok()).for_each(event);
                    tracing::info!("stopped");
                    return if self.stop.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
                }
                // Nobody else takes the events now, and the router must not wait for us.
                Some(told) = self.events.recv() => {
                    if let RouterEvent::Closed(closed) = &told {
                        tracing::debug!("closed: {}", closed.reason);
                    }
                    event(told);
                }
                () = self.stop.recv() => {
                    tracing::warn!("forced to stop: the peer may not know");
                    return ExitCode::FAILURE;
                }
            }
        }
    }

    /// Answers a status request, without keeping the daemon from its work.
    pub fn answer_status(
        &self,
        client: Option<ClientStatus>,
        broker: Option<BrokerStatus>,
        reply: oneshot::Sender<Response>,
    ) {
        let mut status = Status {
            role: self.role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.started.elapsed().as_secs(),
            keylog: self.keylog.as_ref().map(|log| log.dir().to_owned()),
            security: self.confined.status(),
            client,
            broker,
            router: RouterStatus::default(),
        };
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let response = match snapshot(&handle).await {
                Ok(router) => {
                    status.router = router;
                    Response::Status(Box::new(status))
                }
                Err(error) => Response::Error(format!("{error:#}")),
            };
            let _ = reply.send(response);
        });
    }

    /// Rekeys what was named.
    pub fn answer_rekey(&self, what: Rekey, which: Option<String>, reply: oneshot::Sender<Response>) {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let done = rekey(&handle, what, which.as_deref()).await;
            let _ = reply.send(done.map_or_else(|e| Response::Error(format!("{e:#}")), Response::Done));
        });
    }

    /// Asks those that were named whether they are there, unless that was measured just now.
    pub fn answer_probe(&self, which: Option<String>, reply: oneshot::Sender<Response>) {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let done = probe(&handle, which.as_deref()).await;
            let _ = reply.send(done.map_or_else(|e| Response::Error(format!("{e:#}")), Response::Done));
        });
    }

    /// Closes what was named.
    pub fn answer_down(&self, which: Option<String>, reply: oneshot::Sender<Response>) {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let done = down(&handle, which.as_deref()).await;
            let _ = reply.send(done.map_or_else(|e| Response::Error(format!("{e:#}")), Response::Done));
        });
    }
}

async fn snapshot(handle: &RouterHandle) -> anyhow::Result<RouterStatus> {
    tokio::time::timeout(STATUS_PATIENCE, handle.status())
        .await
        .map_err(|_| anyhow!("the router did not answer within {} s", STATUS_PATIENCE.as_secs()))?
        .map_err(Into::into)
}

/// Whether an IKE SA is meant by a number, a connection's name, or the peer's identity.
fn is_meant(sa: &IkeSa, which: &str) -> bool {
    let remote = sa.remote_id.as_deref();
    sa.id.to_string() == which
        || sa.connection.as_deref() == Some(which)
        || remote == Some(which)
        || remote.zip(which.parse::<Identity>().ok()).is_some_and(|(r, w)| r.parse() == Ok(w))
}

async fn probe(handle: &RouterHandle, which: Option<&str>) -> anyhow::Result<String> {
    let sas = snapshot(handle).await?.ike_sas;
    let meant: Vec<&IkeSa> = sas.iter().filter(|sa| which.is_none_or(|w| is_meant(sa, w))).collect();
    if let (true, Some(which)) = (meant.is_empty(), which) {
        bail!("no SA is {which}; see ferry6 status");
    }
    let mut asked = 0;
    for sa in meant {
        let fresh = sa.rtt_age.is_some_and(|age| age < PROBE_INTERVAL.as_secs());
        // One that has gone meanwhile is no fault.
        if sa.age.is_some() && !fresh && handle.probe(IkeSaId(sa.id)).await.is_ok() {
            asked += 1;
        }
    }
    Ok(format!("{asked} asked"))
}

async fn rekey(handle: &RouterHandle, what: Rekey, which: Option<&str>) -> anyhow::Result<String> {
    let sas = snapshot(handle).await?.ike_sas;
    let meant = |sa: &IkeSa| which.is_none_or(|w| is_meant(sa, w));
    let mut done = Vec::new();
    match what {
        Rekey::Ike => {
            for sa in sas.iter().filter(|sa| meant(sa)) {
                handle.rekey_ike(IkeSaId(sa.id)).await?;
                done.push(format!("ike {}", sa.id));
            }
        }
        Rekey::Child => {
            // A number is a reqid here, as it stands in the flows.
            let number = which.and_then(|w| w.parse::<u32>().ok());
            for sa in &sas {
                for child in &sa.children {
                    if number.map_or_else(|| meant(sa), |n| n == child.reqid) {
                        handle.rekey_child(Reqid(child.reqid)).await?;
                        done.push(format!("reqid {}", child.reqid));
                    }
                }
            }
        }
    }
    told("rekeying", &done, which)
}

async fn down(handle: &RouterHandle, which: Option<&str>) -> anyhow::Result<String> {
    let sas = snapshot(handle).await?.ike_sas;
    let mut done = Vec::new();
    for sa in sas.iter().filter(|sa| which.is_none_or(|w| is_meant(sa, w))) {
        handle.close(IkeSaId(sa.id)).await?;
        done.push(format!("ike {}", sa.id));
    }
    told("closing", &done, which)
}

fn told(verb: &str, done: &[String], which: Option<&str>) -> anyhow::Result<String> {
    match (done, which) {
        ([], Some(which)) => bail!("no SA is {which}; see ferry6 status"),
        ([], None) => bail!("there is no SA"),
        (done, _) => Ok(format!("{verb} {}", done.join(", "))),
    }
}
