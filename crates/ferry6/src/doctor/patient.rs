//! What the checks look at: the configuration, the running daemon, this machine's network. Each part may be missing.

use super::probe::Answer;
use super::settings::Settings;
use super::{Role, Wishes};
use crate::config::values::{self, Host};
use crate::config::{self, Broker, Client, RUN_DIR};
use crate::control::{Request, Response, Status, connect};
use crate::net::Net;
use crate::net::picture::{AnyRoute, Link, Picture};
use anyhow::Context as _;
use caps::{CapSet, Capability};
use netlink_packet_route::route::RouteType;
use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

/// All that is known about one side.
pub(super) struct Patient {
    pub(super) role: Role,
    pub(super) path: PathBuf,
    pub(super) wishes: Wishes,
    pub(super) settings: Settings,
    pub(super) client: Option<Client>,
    pub(super) broker: Option<Broker>,
    /// What is wrong with the configuration.
    pub(super) fault: Option<String>,
    /// What should be seen in it.
    pub(super) warnings: Vec<String>,
    /// The running daemon, or why there is no answer.
    pub(super) status: Result<Box<Status>, String>,
    pub(super) socket: PathBuf,
    pub(super) picture: Picture,
    pub(super) runtime: Runtime,
    pub(super) net: Net,
    /// The IPv4 addresses of the broker, or why there are none; a client's.
    pub(super) broker_addresses: Result<Vec<Ipv4Addr>, String>,
    pub(super) answers: Answers,
}

/// What the broker said to the first, small question on its two ports: several checks begin with it.
#[derive(Default)]
pub(super) struct Answers([OnceCell<Answer>; 2]);

impl Answers {
    /// Asks once.
    pub(super) fn on(&self, marked: bool, ask: impl FnOnce() -> Answer) -> Answer {
        self.0[usize::from(marked)].get_or_init(ask).clone()
    }
}

impl Patient {
    /// Looks at everything once.
    ///
    /// # Errors
    /// No netlink.
    pub(super) fn new(role: Role, path: PathBuf, wishes: Wishes) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
        let net = {
            let _context = runtime.enter();
            Net::new()?
        };
        let picture = runtime.block_on(net.picture())?;
        let settings = Settings::read(&path);
        let (mut client, mut broker, mut fault) = (None, None, None);
        match role {
            Role::Client => match config::client(&path) {
                Ok(read) => client = Some(read),
                Err(error) => fault = Some(error.to_string()),
            },
            Role::Broker => match config::broker(&path) {
                Ok(read) => broker = Some(read),
                Err(error) => fault = Some(error.to_string()),
            },
        }
        let warnings = client
            .as_ref()
            .map(|c| c.warnings.clone())
            .or_else(|| broker.as_ref().map(|b| b.warnings.clone()))
            .unwrap_or_default();
        let socket = config::control_socket(&path)
            .unwrap_or_else(|| Path::new(RUN_DIR).join(format!("{}.sock", role.word())));
        let status = match connect::ask(&socket, &Request::Status) {
            Ok(Response::Status(status)) => Ok(status),
            Ok(_) => Err("the daemon gave an answer to another question".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        };
        let mut this = Self {
            role,
            path,
            wishes,
            settings,
            client,
            broker,
            fault,
            warnings,
            status,
            socket,
            picture,
            runtime,
            net,
            broker_addresses: Err("a broker has none".to_owned()),
            answers: Answers::default(),
        };
        if role == Role::Client {
            this.broker_addresses = match this.broker_host() {
                Some(host) => this.runtime.block_on(crate::net::resolve::ipv4(&host)),
                None => Err("the configuration names no broker".to_owned()),
            };
        }
        Ok(this)
    }

    /// The broker that a client's configuration names, whatever else is wrong in it.
    pub(super) fn broker_host(&self) -> Option<Host> {
        match &self.client {
            Some(client) => Some(client.broker.clone()),
            None => values::host(&self.settings.text("broker", "address")?).ok(),
        }
    }

    /// Its ports.
    pub(super) fn broker_ports(&self) -> (u16, u16) {
        match &self.client {
            Some(client) => (client.port, client.nat_port),
            None => (
                self.settings.number("broker", "port").unwrap_or(500),
                self.settings.number("broker", "nat_port").unwrap_or(4500),
            ),
        }
    }

    /// Our own ports; 0 is one that the kernel chooses.
    pub(super) fn own_ports(&self) -> (u16, u16) {
        match (&self.client, &self.broker) {
            (Some(Client { listen, .. }), _) | (_, Some(Broker { listen, .. })) => {
                (listen.port, listen.nat_port)
            }
            _ => (
                self.settings.number("listen", "port").unwrap_or(500),
                self.settings.number("listen", "nat_port").unwrap_or(4500),
            ),
        }
    }

    /// The address that the daemon uses, or else the first one.
    pub(super) fn broker_address(&self) -> Option<Ipv4Addr> {
        let used = self.status.as_ref().ok().and_then(|s| s.client.as_ref()?.broker_address);
        used.or_else(|| self.broker_addresses.as_ref().ok()?.first().copied())
    }

    /// The running daemon.
    pub(super) fn running(&self) -> Option<&Status> {
        self.status.as_deref().ok()
    }

    /// Whether a client's tunnel is up.
    pub(super) fn is_up(&self) -> bool {
        self.running().and_then(|s| s.client.as_ref()).is_some_and(|c| c.state == "up")
    }

    /// The tunnel device, while the daemon runs.
    pub(super) fn tun(&self) -> Option<&Link> {
        let name = &self.running()?.router.tun;
        self.picture.links.iter().find(|l| l.name == *name)
    }

    /// The metric of the tunnel's routes.
    pub(super) fn metric(&self) -> u32 {
        match (&self.client, &self.broker) {
            (Some(Client { tunnel, .. }), _) | (_, Some(Broker { tunnel, .. })) => tunnel.metric,
            _ => 50,
        }
    }

    /// The route that a packet takes, if it is one that leads somewhere.
    pub(super) fn route_to(&self, address: impl Into<IpAddr>) -> Option<AnyRoute> {
        let route = self.runtime.block_on(self.net.route_to(address.into()))?;
        matches!(route.kind, RouteType::Unicast | RouteType::Local).then_some(route)
    }

    /// Whether this process may do this.
    pub(super) fn may(capability: Capability) -> bool {
        caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
    }
}

/// A sysctl's number.
pub(super) fn sysctl(path: &str) -> Option<i64> {
    std::fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().parse().ok()
}
