//! Starts the threads, and the handle to talk to them.

use crate::config::RouterConfig;
use crate::status::RouterStatus;
use ferry6_ike as ike;
use std::net::SocketAddrV4;
use std::time::Duration;

/// Why the router could not start: nothing is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TUN device could not be made.
    #[error("cannot open TUN device {name:?}: {source}. {hint}")]
    Tun {
        /// Its name.
        name: String,
        /// The cause.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A UDP port could not be bound.
    #[error("cannot bind UDP {address}: {source}. {hint}")]
    Bind {
        /// Address and port.
        address: SocketAddrV4,
        /// The cause.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A thread could not be started, or another system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

/// What the program should know of.
#[derive(Clone, Debug)]
pub enum RouterEvent {
    /// A tunnel is up: on a client, set address and routes now.
    Established(Box<ike::event::Established>),
    /// A Child SA was installed or rekeyed (`replaces`), with its narrowed selectors.
    ChildInstalled(Box<ChildInfo>),
    /// A tunnel is gone.
    Closed(Box<ike::event::Closed>),
    /// For the log.
    Notice {
        /// Warn or info.
        warning: bool,
        /// The text.
        text: String,
    },
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
}

/// The running router: worker threads and the control thread. Dropping it stops all and removes the device.
pub struct Router {
    _todo: (),
}

/// Commands to the control thread; cheap to clone. Each method is async and answers when the thing is done.
#[derive(Clone)]
pub struct RouterHandle {
    _todo: (),
}

impl Router {
    /// Opens device and sockets, starts the threads. `make_endpoint` gets the SPI generator that steers by worker.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        _config: RouterConfig,
        _make_endpoint: impl FnOnce(Box<dyn ike::config::SpiGenerator>) -> ike::Endpoint + Send + 'static,
        _events: tokio::sync::mpsc::Sender<RouterEvent>,
    ) -> Result<Self, StartError> {
        todo!()
    }
    /// The real name of the TUN interface.
    pub fn tun_name(&self) -> &str {
        todo!()
    }
    /// A handle for commands.
    pub fn handle(&self) -> RouterHandle {
        todo!()
    }
    /// Sends DELETE for all, waits at most `patience`, stops the threads and removes the device.
    pub fn stop(self, _patience: Duration) {
        todo!()
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
        _connection: &str,
        _broker: SocketAddrV4,
    ) -> Result<ike::event::IkeSaId, HandleError> {
        todo!()
    }
    /// Closes an IKE SA.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn close(&self, _ike: ike::event::IkeSaId) -> Result<(), HandleError> {
        todo!()
    }
    /// Rekeys a Child SA.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn rekey_child(&self, _reqid: ike::event::Reqid) -> Result<(), HandleError> {
        todo!()
    }
    /// Rekeys an IKE SA.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn rekey_ike(&self, _ike: ike::event::IkeSaId) -> Result<(), HandleError> {
        todo!()
    }
    /// A snapshot of all SAs, flows and counters.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn status(&self) -> Result<RouterStatus, HandleError> {
        todo!()
    }
}
