//! What broker and client share: the runtime, signals, hardening, and the answers to the control socket.

use crate::config::Tunnel;
use crate::control::server::{self, Call, Socket};
use crate::control::{BrokerStatus, ClientStatus, Rekey, Response, Status};
use crate::keylog::KeyLog;
use crate::net::Net;
use anyhow::{Context as _, anyhow, bail};
use caps::{CapSet, Capability};
use ferry6_crypto::provider::OsRandom;
use ferry6_ike::Identity;
use ferry6_ike::config::{AddressPool, EndpointConfig};
use ferry6_ike::endpoint::{Endpoint, Parts};
use ferry6_ike::event::{IkeSaId, Reqid};
use ferry6_tun_router::status::{IkeSa, RouterStatus};
use ferry6_tun_router::{Router, RouterConfig, RouterEvent, RouterHandle};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// How long DELETE may take to be answered at the end.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// How long the router may take for a snapshot.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// Runs `main` on a runtime of its own; what it leaves running is not waited for.
///
/// # Errors
/// No runtime, or what `main` says.
pub fn run(main: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    harden();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(main);
    // A resolver that hangs must not keep the process.
    runtime.shutdown_background();
    result
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
        Ok(false) => bail!(
            "not permitted: the tunnel device, its address and routes need CAP_NET_ADMIN. Run ferry6 as root, or give \
             it CAP_NET_ADMIN and CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=)"
        ),
        _ => Ok(()),
    }
}

/// SIGINT and SIGTERM.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
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
        })
    }

    /// Waits for the next one.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
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
    /// SIGINT and SIGTERM.
    pub stop: StopSignals,
    /// Netlink.
    pub net: Net,
    /// Index of the tunnel device.
    pub tun: u32,
    keylog: Option<KeyLog>,
    _socket: Socket,
}

/// What [`Daemon::start`] needs.
pub struct Setup<'a> {
    /// `broker` or `client`.
    pub role: &'static str,
    /// Path of the control socket.
    pub control: &'a Path,
    /// Device and workers.
    pub tunnel: &'a Tunnel,
    /// Address and ports.
    pub listen: crate::config::Listen,
    /// Connections and limits.
    pub endpoint: EndpointConfig,
    /// A broker's pool.
    pub pool: Option<Box<dyn AddressPool>>,
    /// Where `--keylog` asks to write keys.
    pub keylog: Option<&'a Path>,
    /// Netlink.
    pub net: Net,
}

impl Daemon {
    /// Binds the control socket, opens device and ports, starts the threads. On an error nothing is left behind.
    ///
    /// # Errors
    /// Whatever is missing, with what to do.
    pub async fn start(setup: Setup<'_>) -> anyhow::Result<Self> {
        let stop = StopSignals::new()?;
        let (listener, socket) = server::bind(setup.control)?;
        let (event_sender, events) = mpsc::channel(1024);
        let crypto = setup.tunnel.crypto;
        let keylog = setup.keylog.map(KeyLog::open).transpose()?;
        let (mut endpoint, pool) = (setup.endpoint, setup.pool);
        endpoint.keylog = keylog.is_some();
        let router = RouterConfig { keylog: keylog.is_some(), ..setup.tunnel.router(setup.listen) };
        let router = Router::start(
            router,
            move |spis| Endpoint::new(endpoint, Parts { crypto, random: Box::new(OsRandom), spis, pool }),
            event_sender,
        )?;
        let net = setup.net;
        let device = router.tun_name().to_owned();
        crate::net::sysctl::prepare_device(&device).map_err(|e| anyhow!(e))?;
        let tun = net.index(&device).await?;
        net.up(tun).await?;
        let (call_sender, calls) = mpsc::channel(16);
        tokio::spawn(server::serve(listener, call_sender));
        Ok(Self {
            role: setup.role,
            started: Instant::now(),
            handle: router.handle(),
            router,
            events,
            calls,
            stop,
            net,
            tun,
            keylog,
            _socket: socket,
        })
    }

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

    /// Sends DELETE for everything and takes the device away, and with it its address and routes. A second signal
    /// does not wait for the peer.
    pub async fn finish(mut self) -> ExitCode {
        tracing::info!("stopping");
        let router = self.router;
        let mut stopping = tokio::task::spawn_blocking(move || router.stop(STOP_PATIENCE));
        loop {
            tokio::select! {
                _ = &mut stopping => {
                    tracing::info!("stopped");
                    return ExitCode::SUCCESS;
                }
                // Nobody else takes the events now, and the router must not wait for us.
                Some(event) = self.events.recv() => {
                    if let RouterEvent::Closed(closed) = event {
                        tracing::debug!("closed: {}", closed.reason);
                    }
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

/// Passes the endpoint's notices to the log, but not more than an operator can read.
#[derive(Debug)]
pub struct NoticeLog {
    since: Instant,
    told: u32,
    kept: u32,
}

impl NoticeLog {
    /// Notices in one [`Self::WINDOW`].
    const LIMIT: u32 = 50;
    const WINDOW: Duration = Duration::from_secs(10);

    /// Nothing told so far.
    pub fn new() -> Self {
        Self { since: Instant::now(), told: 0, kept: 0 }
    }

    /// Logs, or counts.
    pub fn tell(&mut self, warning: bool, text: &str) {
        if self.since.elapsed() >= Self::WINDOW {
            if self.kept > 0 {
                tracing::warn!("{} more notices like these within {} s", self.kept, Self::WINDOW.as_secs());
            }
            *self = Self::new();
        }
        if self.told == Self::LIMIT {
            self.kept += 1;
            return;
        }
        self.told += 1;
        if warning {
            tracing::warn!("{text}");
        } else {
            tracing::info!("{text}");
        }
    }
}

impl Default for NoticeLog {
    fn default() -> Self {
        Self::new()
    }
}
