//! `ferry6 broker`: answers clients, leases them addresses, routes for them.

use crate::accounts::Accounts;
use crate::admin;
use crate::config::picture::{Change, Picture};
use crate::config::secrets::Secrets;
use crate::config::values::selector_prefixes;
use crate::config::{self, Broker, Users};
use crate::control::{BrokerStatus, Request, Response};
use crate::daemon::{self, Daemon, Prepared, Setup};
use crate::helper::broker::Runner;
use crate::leases::{self, Leases};
use crate::logging;
use crate::net::Net;
use crate::net::proxy::Proxies;
use crate::net::sysctl::{self, Changes};
use crate::notices::{self, Notices};
use crate::reload;
use crate::revocation;
use crate::sandbox::{self, Files};
use anyhow::{Context as _, anyhow};
use ferry6_ike::config::{Barred, EndpointConfig, Settings};
use ferry6_ike::event::{Closed, Established, IkeSaId};
use ferry6_ike::{Prefix6, TrafficSelector};
use ferry6_tun_router::RouterEvent;
use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tracing::Level;

/// The file in the state directory that says which sysctls were changed.
const SYSCTL_RECORD: &str = "sysctl";
/// And the one that says for which addresses it answers.
const PROXY_RECORD: &str = "proxy-ndp";

const EXAMPLES: &str = "\
Examples:
  ferry6 broker init                                make a broker: CA, certificate, configuration
  ferry6 broker invite alice                        one file for a user; then list, show, revoke
  ferry6 broker --check                             is /etc/ferry6/broker.toml right?
  ferry6 broker --config broker.toml --log debug
  ferry6 status                                     clients, SAs, leases

SIGTERM or SIGINT: DELETE to every client, then routes and device go away. A second one does not wait.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// The configuration; docs/configuration.md tells every key.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/ferry6/broker.toml")]
    pub config: PathBuf,
    /// Read and check the configuration and all files it names, change nothing, exit.
    #[arg(long)]
    pub check: bool,
    /// Write the keys of all SAs to this directory, for Wireshark. Whoever reads them can read all traffic.
    #[arg(long, value_name = "DIR")]
    pub keylog: Option<PathBuf>,
    /// Make a broker, and its users.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `ferry6 broker` does besides running.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a broker: CA, certificate, configuration, systemd unit.
    Init(admin::init::Args),
    /// Invite a user: one file with everything that a client needs.
    Invite(admin::invite::InviteArgs),
    /// Answer the request of a user who keeps the key to himself.
    Sign(admin::invite::SignArgs),
    /// List the users.
    List(admin::users::ListArgs),
    /// Show a user.
    Show(admin::users::ShowArgs),
    /// Revoke a user's certificate, and close the tunnel.
    Revoke(admin::users::RevokeArgs),
    /// Do not let a user in for a while, and close the tunnel.
    Disable(admin::settings::DisableArgs),
    /// Let a disabled user in again.
    Enable(admin::settings::EnableArgs),
    /// Set a user's expiry date, address or prefix.
    Set(admin::settings::SetArgs),
    /// What the users' tunnels carried.
    Usage(admin::accounts::UsageArgs),
}

/// Runs the broker in the foreground until SIGINT or SIGTERM.
///
/// # Errors
/// Wrong configuration ([`crate::cli::UsageError`]), or what the system refused.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(Command::Init(args)) => return admin::init::run(args),
        Some(Command::Invite(args)) => return admin::invite::invite(args),
        Some(Command::Sign(args)) => return admin::invite::sign(args),
        Some(Command::List(args)) => return admin::users::list(args),
        Some(Command::Show(args)) => return admin::users::show(args),
        Some(Command::Revoke(args)) => return admin::users::revoke(args),
        Some(Command::Disable(args)) => return admin::settings::disable(args),
        Some(Command::Enable(args)) => return admin::settings::enable(args),
        Some(Command::Set(args)) => return admin::settings::set(args),
        Some(Command::Usage(args)) => return admin::accounts::usage(args),
        None => {}
    }
    let config = config::broker(&args.config)?;
    if args.check {
        print!("{}", config::summary::broker(&args.config, &config));
        return Ok(ExitCode::SUCCESS);
    }
    logging::configure(config.log.as_ref());
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    daemon::check_permission()?;
    daemon::run(serve(args.config, config, args.keylog))
}

async fn serve(path: PathBuf, mut config: Broker, keylog: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut running = Running {
        path,
        picture: std::mem::take(&mut config.picture),
        secrets: std::mem::take(&mut config.secrets),
        barred: config.users.barred(SystemTime::now()),
        look_at: Running::next_look(&config.users),
        users: std::mem::take(&mut config.users),
        crl_cache: revocation::is_checked(&config.connections),
    };
    let net = Net::new()?;
    let own = net.addresses().await.context("cannot read this machine's addresses")?;
    let leases = Leases::open(&config.state_dir, config.pools.clone(), own)?;
    let setup = Setup {
        role: "broker",
        control: &config.control,
        tunnel: &config.tunnel,
        listen: config.listen,
        crl_cache: running.crl_cache.then_some(config.crl_cache.as_path()),
        keylog: keylog.as_deref(),
        process: &config.process,
        net,
    };
    let endpoint = EndpointConfig {
        connections: config.connections.iter().cloned().map(Arc::new).collect(),
        retransmit: config.retransmit,
        half_open: config.half_open,
        barred: Arc::clone(&running.barred),
        addresses: config.addresses.clone(),
        ..config.tunnel.endpoint(config.listen)
    };
    let prepared = Prepared::new(setup).await?;
    let mut machine = Machine::new(&config, leases.clone(), &prepared.net, prepared.tun).await?;
    for file in ["", leases::FILE, SYSCTL_RECORD, PROXY_RECORD] {
        let path = config.state_dir.join(file);
        if path.exists() {
            sandbox::give(&path, &config.process.run_as);
        }
    }
    let mut accounts = Accounts::new(&leases);
    // While there are rights to run them with.
    let mut hooks = Runner::start(prepared.device(), &config.hooks)?;
    let files = Files::new().write(&config.state_dir).read_all(&config.directories);
    let mut daemon = prepared.start(endpoint, Some(Box::new(leases)), files)?;
    tracing::info!(
        "broker on {} UDP {} and {}, device {}, routes {}",
        config.listen.address,
        config.listen.port,
        config.listen.nat_port,
        daemon.device(),
        machine.routes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    );
    machine.tell(&daemon);
    let mut notices = Notices::default();
    loop {
        tokio::select! {
            () = daemon.stop.recv() => break,
            () = notices.wait() => notices.flush(),
            () = hooks.turn() => {}
            () = accounts.wait() => accounts.settle(&daemon.handle).await,
            () = running.time_is_over() => running.bar(&daemon).await?,
            () = daemon.hangup.recv() => {
                reload::answer(&daemon.supervisor, running.reload(&daemon, &mut machine)).await;
            }
            () = daemon.supervisor.due() => daemon.supervisor.alive(&daemon.handle),
            Some((request, reply)) = daemon.calls.recv() => match request {
                Request::Status => daemon.answer_status(None, Some(machine.status()), reply),
                Request::Rekey { what, which } => daemon.answer_rekey(what, which, reply),
                Request::Down { which } => daemon.answer_down(which, reply),
                Request::Log { since } => {
                    let _ = reply.send(Response::Log(logging::tail(since)));
                }
                Request::Probe { which } => daemon.answer_probe(which, reply),
                Request::Usage { who } => {
                    accounts.settle(&daemon.handle).await;
                    let usage = accounts.usage(who.as_deref());
                    let _ = reply.send(usage.map_or_else(|e| Response::Error(e.to_string()), Response::Usage));
                }
                Request::Reload => {
                    let done = reload::answer(&daemon.supervisor, running.reload(&daemon, &mut machine)).await;
                    let _ = reply.send(done);
                }
                Request::Stop => {
                    let _ = reply.send(Response::Done("stopping".to_owned()));
                    break;
                }
                Request::Up => {
                    let _ = reply.send(Response::Error("a broker waits for its clients; `up` is for a client".into()));
                }
            },
            event = daemon.events.recv() => match event {
                Some(RouterEvent::Established(up)) => {
                    notices.tell(Level::INFO, notices::UP, &greeting(&up));
                    accounts.established(&up);
                    if let Err(text) = hooks.established(&up) {
                        notices.tell(Level::WARN, "hooks_wait", &text);
                    }
                    machine.established(&daemon, &up).await;
                }
                Some(RouterEvent::Closed(closed)) => {
                    let (level, cause, text) = describe(&closed);
                    notices.tell(level, cause, &text);
                    accounts.closed(&closed);
                    hooks.closed(&closed);
                    machine.closed(&daemon, &closed).await;
                }
                Some(RouterEvent::Carried { ike, traffic }) => accounts.carried(ike, traffic),
                // The device has one MTU for all tunnels; what is too large for one of them is told off there. To authenticate
                // anew is a client's task.
                Some(
                    RouterEvent::ChildInstalled(_)
                    | RouterEvent::TunnelMtu { .. }
                    | RouterEvent::ReauthenticateIn { .. },
                ) => {}
                Some(RouterEvent::CheckRevocation(check)) => daemon.check_revocation(*check),
                Some(event @ (RouterEvent::IkeKeys(_) | RouterEvent::ChildKeys(_))) => daemon.log_keys(&event),
                Some(RouterEvent::Notice { warning, cause, text }) => {
                    notices.tell(notices::level(warning), cause, &text);
                }
                None => {
                    daemon.stop.fail("the router stopped by itself");
                    break;
                }
            },
        }
    }
    // While the device is there. A second signal does not wait.
    tokio::select! {
        () = hooks.stop() => {}
        () = daemon.stop.recv() => tracing::warn!("forced to stop: hooks are not waited for"),
    }
    machine.stop(&daemon).await;
    let code = daemon
        .finish(|event| match event {
            RouterEvent::Closed(closed) => accounts.closed(&closed),
            RouterEvent::Carried { ike, traffic } => accounts.carried(ike, traffic),
            _ => {}
        })
        .await;
    accounts.write();
    Ok(code)
}

/// What a running broker was made of, for when its configuration is read anew.
struct Running {
    path: PathBuf,
    picture: Picture,
    /// The process gave its rights up when it started. For secrets that it may not read any more stands what it read before.
    secrets: Secrets,
    /// What is set for single users.
    users: Users,
    /// Those that are not let in now.
    barred: Barred,
    /// When to look anew who they are.
    look_at: Option<Instant>,
    /// Whether there is a place for CRLs that are fetched.
    crl_cache: bool,
}

impl Running {
    /// Reads the configuration anew. New tunnels are made by it; those that stand go on by what they were made with. What the device
    /// and the ports are made of needs a restart, and is told.
    async fn reload(&mut self, daemon: &Daemon, machine: &mut Machine) -> anyhow::Result<String> {
        let new = config::broker_again(&self.path, &self.secrets).map_err(|e| reload::fault(&e))?;
        if revocation::is_checked(&new.connections) && !self.crl_cache {
            let what = "`revocation` was \"off\" everywhere when the broker started, and now is not: it has no place for CRLs \
                        that it fetches";
            return Err(reload::needs_restart(&self.path, what));
        }
        logging::configure(new.log.as_ref());
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        let mut changes = new.picture.changes_since(&self.picture);
        machine.configured = Machine::routes_of(&new);
        machine.leases.set_pools(new.pools);
        machine.sync_routes(daemon).await;
        let settings = Settings {
            connections: new.connections.into_iter().map(Arc::new).collect(),
            retransmit: new.retransmit,
            half_open: new.half_open,
            remote_nat_port: EndpointConfig::default().remote_nat_port,
            addresses: Some(new.addresses),
        };
        daemon.handle.set(settings).await?;
        changes.extend(new.users.changes_since(&self.users).into_iter().map(Change::at_once));
        self.users = new.users;
        self.bar(daemon).await?;
        let text = reload::report(&self.path, &changes, &new.secrets);
        self.secrets = new.secrets;
        self.picture = new.picture.in_force_since(&self.picture);
        Ok(text)
    }

    /// When the time of a user may be over; now and then anyway, for the clock may have been set. Never, where no user's time ends.
    fn next_look(users: &Users) -> Option<Instant> {
        const LONGEST: Duration = Duration::from_secs(60);
        let ends = users.iter().any(|(_, settings)| settings.expires.is_some());
        let next = users.next_expiry(SystemTime::now());
        ends.then(|| Instant::now() + next.map_or(LONGEST, |wait| wait.min(LONGEST)))
    }

    /// Waits until then, however often something else comes in between.
    async fn time_is_over(&self) {
        match self.look_at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Keeps those out that are not let in any more.
    async fn bar(&mut self, daemon: &Daemon) -> anyhow::Result<()> {
        self.look_at = Self::next_look(&self.users);
        let barred = self.users.barred(SystemTime::now());
        if barred != self.barred {
            self.barred = Arc::clone(&barred);
            daemon.handle.bar(barred).await?;
        }
        Ok(())
    }
}

/// A tunnel that came up.
fn greeting(up: &Established) -> String {
    let mut address = up.lease.address.map_or_else(|| "no address".to_owned(), |a| a.to_string());
    if let Some(prefix) = up.lease.prefix {
        address += &format!(", prefix {prefix}");
    }
    format!("{} up from {} ({}): {address}", up.remote_id, up.path.remote, up.connection)
}

/// The end of an IKE SA, for the log; a warning where the peer never got in.
fn describe(closed: &Closed) -> (Level, &'static str, String) {
    let who = closed.remote_id.as_ref().map_or_else(|| "a peer".to_owned(), ToString::to_string);
    let from = closed.path.remote;
    if closed.established {
        (Level::INFO, notices::DOWN, format!("{who} down from {from}: {}", closed.reason))
    } else {
        (Level::WARN, closed.reason.cause(), format!("{who} at {from}: {}", closed.reason))
    }
}

/// What the broker changed on its machine, besides the device.
struct Machine {
    listen: String,
    /// Routes into the device that stand.
    routes: Vec<Prefix6>,
    /// Those of the configuration.
    configured: Vec<Prefix6>,
    metric: u32,
    leases: Leases,
    /// `proxy_ndp`, and for whom it answers.
    proxy: Option<Proxies>,
    proxied: HashMap<IkeSaId, Ipv6Addr>,
    /// Put back when this is dropped.
    _changes: Changes,
}

impl Machine {
    async fn new(config: &Broker, leases: Leases, net: &Net, tun: u32) -> anyhow::Result<Self> {
        let mut changes = Changes::recorded(config.state_dir.join(SYSCTL_RECORD));
        let routes = Self::routes_of(config);
        for route in &routes {
            net.add_route(*route, tun, config.tunnel.metric, None).await?;
        }
        if config.forwarding
            && let Err(text) = sysctl::enable_forwarding(net, &mut changes).await
        {
            tracing::warn!(
                "{text}; till then clients reach this machine only (forwarding = false if that is meant)"
            );
        }
        let record = config.state_dir.join(PROXY_RECORD);
        Proxies::remove_left_over(net, &record).await;
        let mut proxy = None;
        if let Some(interface) = &config.proxy_ndp {
            let index = net.index(interface).await.context("tunnel.proxy_ndp")?;
            proxy = Some(Proxies::new(index, record));
            sysctl::enable_proxy_ndp(interface, &mut changes)
                .map_err(|e| anyhow!("tunnel.proxy_ndp: {e}"))?;
        }
        let listen = &config.listen;
        Ok(Self {
            listen: format!("{} UDP {}, {}", listen.address, listen.port, listen.nat_port),
            configured: routes.clone(),
            routes,
            metric: config.tunnel.metric,
            leases,
            proxy,
            proxied: HashMap::new(),
            _changes: changes,
        })
    }

    /// What goes into the device by the configuration.
    fn routes_of(config: &Broker) -> Vec<Prefix6> {
        let mut routes: Vec<Prefix6> = config.pools.values().flat_map(config::Pool::routes).collect();
        for connection in config.connections.iter().filter(|c| !config.pools.contains_key(&c.name)) {
            let behind = connection.remote_ts.iter().filter(|ts| **ts != TrafficSelector::ANY_V6);
            routes.extend(behind.flat_map(selector_prefixes));
        }
        routes.sort_unstable();
        routes.dedup();
        routes
    }

    /// Brings the routes to what the configuration wants, and to the addresses that are in use though they are no pool's any more.
    async fn sync_routes(&mut self, daemon: &Daemon) {
        let mut wanted = self.configured.clone();
        for used in self.leases.in_use() {
            if !wanted.iter().any(|r| r.len <= used.len && r.contains(used.address)) {
                wanted.push(used);
            }
        }
        for route in wanted.iter().filter(|r| !self.routes.contains(r)) {
            if let Err(error) = daemon.net.add_route(*route, daemon.tun, self.metric, None).await {
                tracing::warn!("{error:#}");
            }
        }
        for route in self.routes.iter().filter(|r| !wanted.contains(r)) {
            if let Err(error) = daemon.net.remove_route(*route, daemon.tun, self.metric).await {
                tracing::warn!("{error:#}");
            }
        }
        self.routes = wanted;
    }

    async fn established(&mut self, daemon: &Daemon, up: &Established) {
        self.tell(daemon);
        if let (Some(proxy), Some(address)) = (&mut self.proxy, up.lease.address) {
            proxy.add(&daemon.net, address).await;
            self.proxied.insert(up.ike, address);
        }
    }

    /// To the service manager.
    fn tell(&self, daemon: &Daemon) {
        daemon
            .supervisor
            .status(|| format!("{}; addresses in use: {}", self.listen, self.leases.count_in_use()));
    }

    async fn closed(&mut self, daemon: &Daemon, closed: &Closed) {
        self.tell(daemon);
        if let (Some(proxy), Some(address)) = (&mut self.proxy, self.proxied.remove(&closed.ike)) {
            proxy.remove(&daemon.net, address).await;
        }
        // The last one of a pool that is gone.
        if self.routes != self.configured {
            self.sync_routes(daemon).await;
        }
    }

    /// Takes back what does not go away with the device.
    async fn stop(&mut self, daemon: &Daemon) {
        if let Some(proxy) = &mut self.proxy {
            proxy.clear(&daemon.net).await;
        }
    }

    fn status(&self) -> BrokerStatus {
        BrokerStatus {
            listen: self.listen.clone(),
            forwarding: sysctl::is_forwarding(),
            routes: self.routes.iter().map(ToString::to_string).collect(),
            leases: self.leases.status(),
        }
    }
}
