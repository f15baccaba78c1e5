//! `ferry6 client`: brings the tunnel up, sets address and routes, and keeps it up.

mod backoff;
pub mod guard;
pub mod lan;
pub mod radvd;
mod roam;

use crate::admin;
use crate::config::values::{Host, selector_prefixes};
use crate::config::{self, Client, Routes};
use crate::control::{ClientStatus, Request, Response};
use crate::daemon::{self, Daemon, Prepared, Setup};
use crate::helper::{self, Helper, Reason};
use crate::logging;
use crate::net::{Net, resolve, watch::Watch};
use crate::notices::{self, Notices};
use crate::reload;
use crate::revocation;
use crate::sandbox::Files;
use backoff::{Backoff, Failure};
use ferry6_crypto::SecureRandom;
use ferry6_crypto::provider::OsRandom;
use ferry6_ike::config::{AddressConfig, EndpointConfig, PrefixWish, RemoteId, Settings};
use ferry6_ike::event::{Closed, Established, IkeSaId, Lease};
use ferry6_ike::{Prefix6, TrafficSelector};
use ferry6_tun_router::RouterEvent;
use ferry6_tun_router::router::ChildInfo;
use guard::Guard;
use lan::Lan;
use roam::{Network, Reauth};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

const EXAMPLES: &str = "\
Examples:
  ferry6 client join alice.ferry6                   take an invitation
  ferry6 client up alice                            in the background; then status, down
  ferry6 client radvd alice                         router advertisements for the LAN behind it
  ferry6 client --check                             is /etc/ferry6/client.toml right?
  ferry6 client --config client.toml --log debug
  ferry6 status                                     address, routes, SAs
  ferry6 down && ferry6 up

SIGTERM or SIGINT: DELETE to the broker, then address, routes and device go away. A second one does not wait.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// The configuration; docs/configuration.md tells every key.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/ferry6/client.toml")]
    pub config: PathBuf,
    /// Read and check the configuration and all files it names, change nothing, exit.
    #[arg(long)]
    pub check: bool,
    /// Write the keys of all SAs to this directory, for Wireshark. Whoever reads them can read all traffic.
    #[arg(long, value_name = "DIR")]
    pub keylog: Option<PathBuf>,
    /// Leave the terminal's session; `client up` starts it so.
    #[arg(long, hide = true)]
    pub detach: bool,
    /// Join a broker, and tunnels by name.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `ferry6 client` does besides running in the foreground.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Take an invitation, or make a request for one.
    Join(admin::join::Args),
    /// Bring a tunnel up, in the background.
    Up(admin::tunnels::UpArgs),
    /// Take a tunnel down.
    Down(admin::tunnels::DownArgs),
    /// Show tunnels.
    Status(admin::tunnels::StatusArgs),
    /// Print the configuration of radvd for the networks behind a tunnel.
    Radvd(radvd::Args),
}

/// Runs the client in the foreground until SIGINT or SIGTERM.
///
/// # Errors
/// Wrong configuration ([`crate::cli::UsageError`]), or what the system refused.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(Command::Join(args)) => return admin::join::run(args),
        Some(Command::Up(args)) => return admin::tunnels::up(args),
        Some(Command::Down(args)) => return admin::tunnels::down(args),
        Some(Command::Status(args)) => return admin::tunnels::status(args),
        Some(Command::Radvd(args)) => return radvd::run(args),
        None => {}
    }
    let config = config::client(&args.config)?;
    if args.check {
        print!("{}", config::summary::client(&args.config, &config));
        return Ok(ExitCode::SUCCESS);
    }
    logging::configure(config.log.as_ref());
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    daemon::check_permission()?;
    if args.detach {
        // Fails only for the leader of a process group, who has no terminal to lose.
        let _ = nix::unistd::setsid();
    }
    daemon::run(serve(args.config, config, args.keylog))
}

async fn serve(path: PathBuf, config: Client, keylog: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let net = Net::new()?;
    let guard = Guard::start(&config, &net).await?;
    let lan = Lan::start(&config, &net).await?;
    let mobike = config.connection.mobike && config.listen.address.is_unspecified();
    let addresses = if mobike { net.uplink_addresses().await.unwrap_or_default() } else { Vec::new() };
    let watch = Watch::new()?;
    let setup = Setup {
        role: "client",
        control: &config.control,
        tunnel: &config.tunnel,
        listen: config.listen,
        crl_cache: revocation::is_checked(std::slice::from_ref(&config.connection))
            .then_some(config.crl_cache.as_path()),
        keylog: keylog.as_deref(),
        process: &config.process,
        net,
    };
    let endpoint = EndpointConfig {
        connections: vec![Arc::new(config.connection.clone())],
        retransmit: config.retransmit,
        remote_nat_port: config.nat_port,
        addresses,
        ..config.tunnel.endpoint(config.listen)
    };
    let mut files = Files::new().read_all(&config.directories);
    if matches!(config.broker, Host::Name(_)) {
        files = files.resolver();
    }
    let prepared = Prepared::new(setup).await?;
    let helper = Helper::start(&helper::Setup {
        interface: prepared.device(),
        dns: config.dns,
        hooks: &config.hooks,
        peer: peer(&config.connection.remote_id),
        record: &config.control.with_extension("dns"),
    })?;
    let mut daemon = prepared.start(endpoint, None, files)?;
    tracing::info!("client {} of {}, device {}", config.connection.local_id, config.broker, daemon.device());
    let (resolved, mut resolutions) = mpsc::channel(1);
    let mut tunnel = Tunnel::new(path, config, guard, lan, helper, resolved);
    let mut notices = Notices::default();
    tunnel.try_now();
    loop {
        let (retry, reauth) = (tunnel.retry_at(), tunnel.reauth_at());
        daemon.supervisor.status(|| tunnel.headline());
        tokio::select! {
            () = daemon.stop.recv() => return tunnel.stop(daemon).await,
            () = notices.wait() => notices.flush(),
            () = daemon.hangup.recv() => {
                reload::answer(&daemon.supervisor, tunnel.reload(&daemon)).await;
            }
            () = daemon.supervisor.due() => daemon.supervisor.alive(&daemon.handle),
            () = tunnel.guard.wait() => tunnel.guard.look(&daemon.net).await,
            () = tunnel.lan.wait() => tunnel.lan.look(&daemon.net).await,
            () = watch.changed() => tunnel.network_changed(&daemon).await?,
            Some(result) = resolutions.recv() => tunnel.connect(&daemon, result).await?,
            () = sleep_until(retry), if retry.is_some() => tunnel.try_now(),
            () = sleep_until(reauth), if reauth.is_some() => tunnel.reauthenticate(&daemon).await?,
            Some((request, reply)) = daemon.calls.recv() => match request {
                Request::Stop => {
                    let _ = reply.send(Response::Done("stopping".to_owned()));
                    return tunnel.stop(daemon).await;
                }
                request => tunnel.call(&daemon, request, reply).await,
            },
            event = daemon.events.recv() => match event {
                Some(RouterEvent::Established(up)) => tunnel.established(&daemon, &up).await?,
                Some(RouterEvent::ChildInstalled(child)) => tunnel.child(&daemon, &child).await?,
                Some(RouterEvent::TunnelMtu { ike, mtu }) => tunnel.mtu(&daemon, ike, mtu).await,
                Some(RouterEvent::Closed(closed)) => tunnel.closed(&daemon, &closed).await?,
                // A broker keeps accounts.
                Some(RouterEvent::Carried { .. }) => {}
                Some(RouterEvent::CheckRevocation(check)) => daemon.check_revocation(*check),
                Some(event @ (RouterEvent::IkeKeys(_) | RouterEvent::ChildKeys(_))) => daemon.log_keys(&event),
                Some(RouterEvent::ReauthenticateIn { ike, after }) => tunnel.reauthenticate_in(ike, after),
                Some(RouterEvent::Notice { warning, cause, text }) => {
                    notices.tell(notices::level(warning), cause, &text);
                }
                None => {
                    daemon.stop.fail("the router stopped by itself");
                    return Ok(daemon.finish(|_| {}).await);
                }
            },
        }
    }
}

/// For a branch that is off where there is no time.
async fn sleep_until(at: Option<Instant>) {
    tokio::time::sleep_until(at.unwrap_or_else(Instant::now).into()).await;
}

/// Where the client is.
#[derive(Debug)]
enum State {
    /// Waits for the next try.
    Waiting(Instant),
    /// Looks the broker's name up.
    Resolving,
    /// IKE runs.
    Connecting(IkeSaId),
    /// The tunnel is up.
    Up { ike: IkeSaId, since: Instant },
    /// By command.
    Down,
}

/// The tunnel of a client: its state, and what it put on the machine.
struct Tunnel {
    /// The configuration's file.
    path: PathBuf,
    config: Client,
    /// Whether there is a place for CRLs that are fetched.
    crl_cache: bool,
    resolved: mpsc::Sender<Result<Vec<Ipv4Addr>, String>>,
    state: State,
    backoff: Backoff,
    /// Tries so far: they take turns among the broker's addresses.
    tries: usize,
    broker: Option<Ipv4Addr>,
    /// All addresses that the last successful lookup gave.
    known: Vec<Ipv4Addr>,
    /// Why it is not up; told once, not at each try.
    reason: Option<String>,
    /// It was refused: the next tries will be, too.
    refused: bool,
    lease: Lease,
    remote_ts: Vec<TrafficSelector>,
    applied: Applied,
    guard: Guard,
    lan: Lan,
    helper: Helper,
    network: Network,
    reauth: Reauth,
}

/// What is on the device now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Applied {
    address: Option<Ipv6Addr>,
    prefix: Option<Prefix6>,
    routes: Vec<Prefix6>,
}

impl Tunnel {
    fn new(
        path: PathBuf,
        config: Client,
        guard: Guard,
        lan: Lan,
        helper: Helper,
        resolved: mpsc::Sender<Result<Vec<Ipv4Addr>, String>>,
    ) -> Self {
        Self {
            path,
            crl_cache: revocation::is_checked(std::slice::from_ref(&config.connection)),
            config,
            resolved,
            state: State::Down,
            backoff: Backoff::default(),
            tries: 0,
            broker: None,
            known: Vec::new(),
            reason: None,
            refused: false,
            lease: Lease::default(),
            remote_ts: Vec::new(),
            applied: Applied::default(),
            guard,
            lan,
            helper,
            network: Network::default(),
            reauth: Reauth::default(),
        }
    }

    /// An orderly end: DELETE, and nothing of us stays on the machine.
    async fn stop(mut self, mut daemon: Daemon) -> anyhow::Result<ExitCode> {
        // While the device is there. A second signal does not wait.
        tokio::select! {
            () = self.helper.stop() => {}
            () = daemon.stop.recv() => tracing::warn!("forced to stop: hooks and DNS are not waited for"),
        }
        if let Err(error) = self.lan.clear(&daemon.net).await {
            tracing::warn!("{error:#}");
        }
        if let Err(error) = self.guard.open(&daemon.net).await {
            tracing::warn!("{error:#}");
        }
        Ok(daemon.finish(|_| {}).await)
    }

    fn retry_at(&self) -> Option<Instant> {
        if let State::Waiting(until) = self.state { Some(until) } else { None }
    }

    /// Begins a try: the name first.
    fn try_now(&mut self) {
        self.state = State::Resolving;
        let (host, resolved) = (self.config.broker.clone(), self.resolved.clone());
        tokio::spawn(async move {
            let _ = resolved.send(resolve::ipv4(&host).await).await;
        });
    }

    /// The name was looked up: IKE begins.
    async fn connect(
        &mut self,
        daemon: &Daemon,
        result: Result<Vec<Ipv4Addr>, String>,
    ) -> anyhow::Result<()> {
        if !matches!(self.state, State::Resolving) {
            return Ok(());
        }
        match result {
            Ok(list) => self.known = list,
            // Where DNS is gone the last known address may still be right.
            Err(text) if self.known.is_empty() => {
                self.failed(Failure::Passing, text);
                return Ok(());
            }
            Err(text) => tracing::debug!("{text}; the last known address is used"),
        }
        let address = self.known[self.tries % self.known.len()];
        self.tries = self.tries.wrapping_add(1);
        self.broker = Some(address);
        let broker = SocketAddrV4::new(address, self.config.port);
        if self.look(daemon).await.is_none() {
            self.no_route(broker);
            return Ok(());
        }
        let ike = daemon.handle.initiate(&self.config.connection.name, broker).await?;
        self.state = State::Connecting(ike);
        tracing::debug!("connecting to {broker}");
        Ok(())
    }

    /// This try failed: says why, unless that is known, and when the next one is.
    fn failed(&mut self, failure: Failure, reason: String) {
        let mut random = [0];
        // Without randomness all clients come at once, which is no reason not to come.
        let _ = OsRandom.fill(&mut random);
        let wait = self.backoff.next(failure, random[0]);
        if self.reason.as_ref() == Some(&reason) {
            tracing::debug!("{reason}; next try in {} s", wait.as_secs());
        } else {
            tracing::warn!(
                "no tunnel to {}: {reason}; trying again, next in {:.0?}",
                self.config.broker,
                wait
            );
        }
        self.reason = Some(reason);
        self.refused = failure == Failure::Refused;
        self.state = State::Waiting(Instant::now() + wait);
    }

    fn is_current(&self, ike: IkeSaId) -> bool {
        matches!(self.state, State::Connecting(current) | State::Up { ike: current, .. } if current == ike)
    }

    async fn established(&mut self, daemon: &Daemon, up: &Established) -> anyhow::Result<()> {
        if !self.is_current(up.ike) && self.reauth.next != Some(up.ike) {
            return Ok(());
        }
        let wants_address = matches!(self.config.connection.addresses, AddressConfig::Request { .. });
        if wants_address && up.lease.address.is_none() {
            daemon.handle.close(up.ike).await?;
            if self.reauth.next == Some(up.ike) {
                return Ok(());
            }
            self.failed(
                Failure::Refused,
                "the broker gave no IPv6 address (tunnel.address = \"none\" if that is meant)".to_owned(),
            );
            return Ok(());
        }
        self.reason = None;
        self.refused = false;
        self.lease = up.lease.clone();
        if self.reauthenticated(up) {
            tracing::info!("reauthenticated to {} at {}", up.remote_id, up.path.remote);
            return self.apply(daemon).await;
        }
        self.state = State::Up { ike: up.ike, since: Instant::now() };
        let nat = match (up.nat_local, up.nat_remote) {
            (false, false) => "no NAT",
            (true, false) => "we are behind a NAT",
            (false, true) => "the broker is behind a NAT",
            (true, true) => "both behind NAT",
        };
        let address = up.lease.address.map_or_else(|| "no address".to_owned(), |a| format!("{a}/128"));
        let prefix = up.lease.prefix.map_or_else(String::new, |p| format!(", prefix {p}"));
        tracing::info!("tunnel up: {} at {}, {address}{prefix}, {nat}", up.remote_id, up.path.remote);
        let wish = self.config.connection.addresses.prefix_wish();
        if wish != PrefixWish::None && up.lease.prefix.is_none() {
            tracing::warn!("the broker routes no prefix to us, though tunnel.prefix asks for one");
        }
        if !up.lease.dns.is_empty() {
            let list: Vec<String> = up.lease.dns.iter().map(ToString::to_string).collect();
            tracing::info!("DNS servers that the broker tells: {}", list.join(", "));
        }
        self.apply(daemon).await
    }

    async fn child(&mut self, daemon: &Daemon, child: &ChildInfo) -> anyhow::Result<()> {
        if !self.is_current(child.ike) {
            return Ok(());
        }
        if child.resource > 0 && !child.rekeyed {
            tracing::debug!("one more Child SA for this tunnel, number {}", child.resource);
        }
        self.remote_ts.clone_from(&child.remote_ts);
        self.apply(daemon).await?;
        self.leave_old(daemon).await;
        Ok(())
    }

    /// Programs on this machine learn the tunnel's MTU from the device. Where that can't be, Packet Too Big tells them.
    async fn mtu(&self, daemon: &Daemon, ike: IkeSaId, mtu: u16) {
        if !self.is_current(ike) && self.reauth.next != Some(ike) {
            return;
        }
        match daemon.net.set_mtu(daemon.tun, mtu).await {
            Ok(()) => tracing::debug!("the tunnel's MTU is {mtu}"),
            Err(error) => tracing::warn!("{error:#}"),
        }
    }

    async fn closed(&mut self, daemon: &Daemon, closed: &Closed) -> anyhow::Result<()> {
        if self.reauth_failed(closed) || !self.is_current(closed.ike) {
            return Ok(());
        }
        let reason = closed.reason.to_string();
        self.network.offline = false;
        let successor = self.successor();
        if let State::Up { since, .. } = self.state {
            self.backoff.was_up(since.elapsed());
        }
        match successor {
            Some(ike) => self.state = State::Connecting(ike),
            None => self.failed(Failure::of(closed), reason),
        }
        self.unapply(daemon).await
    }

    /// The tunnel is gone: so are its address and routes.
    async fn unapply(&mut self, daemon: &Daemon) -> anyhow::Result<()> {
        self.lease = Lease::default();
        self.remote_ts.clear();
        self.apply(daemon).await
    }

    /// Brings the device to what was negotiated: what is new first, then off with what is not wanted any more.
    async fn apply(&mut self, daemon: &Daemon) -> anyhow::Result<()> {
        let up = matches!(self.state, State::Up { .. });
        let wanted = if up {
            Applied {
                address: self.lease.address,
                prefix: self.lease.prefix,
                routes: wanted_routes(&self.config.routes, &self.remote_ts),
            }
        } else {
            Applied::default()
        };
        if wanted == self.applied {
            self.tell_helper().await;
            return Ok(());
        }
        let (net, tun, metric) = (&daemon.net, daemon.tun, self.config.tunnel.metric);
        if let Some(address) = wanted.address.filter(|a| self.applied.address != Some(*a)) {
            net.add_address(tun, address).await?;
        }
        // The source is part of the route: with another address the routes are others too.
        let same_source = wanted.address == self.applied.address;
        let stale: Vec<Prefix6> = self
            .applied
            .routes
            .iter()
            .filter(|r| !same_source || !wanted.routes.contains(r))
            .copied()
            .collect();
        for route in &stale {
            net.remove_route(*route, tun, metric).await?;
        }
        for route in wanted.routes.iter().filter(|r| !same_source || !self.applied.routes.contains(r)) {
            net.add_route(*route, tun, metric, wanted.address).await?;
        }
        if let Some(address) = self.applied.address.filter(|_| !same_source) {
            net.remove_address(tun, address).await?;
        }
        if up {
            self.lan.up(net, tun, wanted.prefix, &wanted.routes).await?;
        } else {
            self.lan.lost(net, tun).await?;
        }
        if up && !wanted.routes.is_empty() {
            let list: Vec<String> = wanted.routes.iter().map(ToString::to_string).collect();
            tracing::info!("routes into {}: {}, metric {metric}", daemon.device(), list.join(", "));
        }
        self.applied = wanted;
        self.tell_helper().await;
        Ok(())
    }

    /// Address and routes stand, or are gone: DNS and hooks follow.
    async fn tell_helper(&mut self) {
        if self.applied != Applied::default() {
            let given = helper::Given {
                address: self.applied.address,
                prefix: self.applied.prefix.map(|p| (p.address, p.len)),
                dns: self.lease.dns.clone(),
            };
            self.helper.up(given).await;
        } else if matches!(self.state, State::Down) {
            self.helper.down(Reason::Command).await;
        } else {
            self.helper.down(Reason::Lost).await;
        }
    }

    async fn call(&mut self, daemon: &Daemon, request: Request, reply: oneshot::Sender<Response>) {
        match request {
            Request::Status => daemon.answer_status(Some(self.status()), None, reply),
            Request::Rekey { what, which } => daemon.answer_rekey(what, which, reply),
            Request::Log { since } => {
                let _ = reply.send(Response::Log(logging::tail(since)));
            }
            Request::Probe { which } => daemon.answer_probe(which, reply),
            Request::Up => {
                let text = match self.state {
                    State::Up { .. } => "the tunnel is up already",
                    State::Connecting(_) | State::Resolving => "connecting already",
                    State::Waiting(_) | State::Down => {
                        if let Err(error) = self.guard.set(&daemon.net).await {
                            let _ = reply.send(Response::Error(format!("{error:#}")));
                            return;
                        }
                        self.backoff.reset();
                        self.reason = None;
                        self.refused = false;
                        self.try_now();
                        "connecting"
                    }
                };
                let _ = reply.send(Response::Done(text.to_owned()));
            }
            Request::Reload => {
                let _ = reply.send(reload::answer(&daemon.supervisor, self.reload(daemon)).await);
            }
            Request::Usage { .. } => {
                let text = "a client keeps no accounts; `usage` is for a broker".to_owned();
                let _ = reply.send(Response::Error(text));
            }
            // The loop ends by it.
            Request::Stop => {}
            Request::Down { which: Some(which) } => daemon.answer_down(Some(which), reply),
            Request::Down { which: None } => {
                let _ = reply.send(match self.go_down(daemon).await {
                    Ok(()) => Response::Done("down; `ferry6 up` connects again".to_owned()),
                    Err(error) => Response::Error(format!("{error:#}")),
                });
            }
        }
    }

    /// Reads the configuration anew. The next tunnel is made by it, the one that stands stays, with the routes that are wanted now.
    async fn reload(&mut self, daemon: &Daemon) -> anyhow::Result<String> {
        let old = &self.config;
        let new = config::client_again(&self.path, &old.secrets).map_err(|e| reload::fault(&e))?;
        if revocation::is_checked(std::slice::from_ref(&new.connection)) && !self.crl_cache {
            let what = "`remote.revocation` was \"off\" when the client started: it has no place for CRLs that it fetches";
            return Err(reload::needs_restart(&self.path, what));
        }
        if matches!((&old.broker, &new.broker), (Host::Address(_), Host::Name(_))) {
            let what = "`broker.address` is a name now: a client that was started with an address can't look names up";
            return Err(reload::needs_restart(&self.path, what));
        }
        logging::configure(new.log.as_ref());
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        let changes = new.picture.changes_since(&old.picture);
        let settings = Settings {
            connections: vec![Arc::new(new.connection.clone())],
            retransmit: new.retransmit,
            half_open: EndpointConfig::default().half_open,
            remote_nat_port: new.nat_port,
            addresses: None,
        };
        daemon.handle.set(settings).await?;
        if new.broker != old.broker {
            self.known.clear();
        }
        let text = reload::report(&self.path, &changes, &new.secrets);
        let picture = new.picture.in_force_since(&old.picture);
        // The device, the ports, the guard and whose rights we have stay as they are.
        self.config.broker = new.broker;
        self.config.port = new.port;
        self.config.nat_port = new.nat_port;
        self.config.connection = new.connection;
        self.config.routes = new.routes;
        self.config.secrets = new.secrets;
        self.config.picture = picture;
        self.guard.follow(&self.config, &daemon.net).await?;
        self.apply(daemon).await?;
        Ok(text)
    }

    async fn go_down(&mut self, daemon: &Daemon) -> anyhow::Result<()> {
        if let State::Connecting(ike) | State::Up { ike, .. } = self.state {
            daemon.handle.close(ike).await?;
        }
        if let Some(next) = self.successor() {
            daemon.handle.close(next).await?;
        }
        tracing::info!("down by command");
        self.state = State::Down;
        self.reason = Some("by command".to_owned());
        self.unapply(daemon).await?;
        self.lan.clear(&daemon.net).await?;
        self.guard.open(&daemon.net).await
    }

    /// One line for the service manager.
    fn headline(&self) -> String {
        let broker = &self.config.broker;
        match (&self.state, self.applied.address) {
            (State::Up { .. }, Some(address)) => format!("up at {broker}: {address}"),
            (State::Up { .. }, None) => format!("up at {broker}"),
            (State::Connecting(_) | State::Resolving, _) => format!("connecting to {broker}"),
            (State::Waiting(_), _) => {
                format!("no tunnel to {broker}: {}", self.reason.as_deref().unwrap_or("not tried yet"))
            }
            (State::Down, _) => "down by command".to_owned(),
        }
    }

    fn status(&self) -> ClientStatus {
        let (state, retry_in) = match self.state {
            // Without a Child SA there are no routes yet: who waits for "up" would send before they stand.
            State::Up { .. } if self.network.offline => ("offline", None),
            State::Up { .. } if !self.remote_ts.is_empty() => ("up", None),
            State::Up { .. } | State::Connecting(_) | State::Resolving => ("connecting", None),
            State::Waiting(until) => {
                ("waiting", Some(until.saturating_duration_since(Instant::now()).as_secs()))
            }
            State::Down => ("down", None),
        };
        let (prefix, lan) = self.lan.status();
        ClientStatus {
            prefix,
            lan,
            broker: self.config.broker.to_string(),
            broker_address: self.broker,
            state: state.to_owned(),
            reason: self.reason.clone(),
            refused: self.refused,
            retry_in,
            address: self.applied.address,
            dns: self.lease.dns.clone(),
            routes: self.applied.routes.iter().map(ToString::to_string).collect(),
            leak_guard: self.guard.status(),
        }
    }
}

/// The broker's identity as configured, for hooks.
fn peer(id: &RemoteId) -> String {
    match id {
        RemoteId::Any => "any".to_owned(),
        RemoteId::Exactly(id) => id.to_string(),
        RemoteId::Pattern(pattern) => pattern.to_string(),
    }
}

/// The routes that the configuration and the peer's selectors make together.
fn wanted_routes(routes: &Routes, remote_ts: &[TrafficSelector]) -> Vec<Prefix6> {
    if remote_ts.is_empty() {
        return Vec::new();
    }
    let mut list: Vec<Prefix6> = match &routes.explicit {
        Some(list) => list.clone(),
        None => remote_ts
            .iter()
            .flat_map(selector_prefixes)
            .filter(|p| p.len > 0 || routes.default_route)
            .collect(),
    };
    list.sort_unstable();
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_follow_selectors_and_configuration() {
        let prefix = |t: &str| t.parse::<Prefix6>().unwrap();
        let selector = |t: &str| config::values::selector(t).unwrap();
        let auto = Routes { explicit: None, default_route: true };
        assert_eq!(wanted_routes(&auto, &[TrafficSelector::ANY_V6]), [prefix("::/0")]);
        assert_eq!(wanted_routes(&auto, &[]), []);
        let narrowed = [selector("2a00::/32"), selector("2a00::/32[tcp/443]"), selector("2001:db8::/48")];
        assert_eq!(wanted_routes(&auto, &narrowed), [prefix("2001:db8::/48"), prefix("2a00::/32")]);
        let none = Routes { default_route: false, ..auto.clone() };
        assert_eq!(wanted_routes(&none, &[TrafficSelector::ANY_V6]), []);
        let explicit = Routes { explicit: Some(vec![prefix("2a00::/32")]), ..none };
        assert_eq!(wanted_routes(&explicit, &[TrafficSelector::ANY_V6]), [prefix("2a00::/32")]);
    }
}
