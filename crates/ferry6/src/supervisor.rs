//! What a service manager hears of a daemon: sd_notify(3), a datagram with lines like `READY=1` to the socket that NOTIFY_SOCKET names.
//! Without one all of this does nothing.

use ferry6_tun_router::RouterHandle;
use nix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The connection to it, made while files may still be opened.
pub struct Supervisor {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Interval>,
    /// The last status.
    last: RefCell<String>,
}

impl Supervisor {
    /// By NOTIFY_SOCKET and WATCHDOG_USEC.
    pub fn of_environment() -> Self {
        let socket = std::env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty());
        let socket = socket.and_then(|name| match connect(&name) {
            Ok(socket) => Some(Arc::new(socket)),
            Err(error) => {
                tracing::warn!(
                    "NOTIFY_SOCKET {name}: {error}: the service manager hears nothing of this daemon"
                );
                None
            }
        });
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        // Meant for another process: one that was started by this manager's service and started us.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let every = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 1);
        let watchdog = every.filter(|_| socket.is_some()).map(|usec| {
            let mut interval = interval(Duration::from_micros(usec / 2));
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Self { socket, watchdog, last: RefCell::default() }
    }

    /// Set-up is done: the ports are open, callers are answered.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// One line for `systemctl status`; said once.
    pub fn status(&self, text: impl FnOnce() -> String) {
        if self.socket.is_none() {
            return;
        }
        let text = text().replace(char::is_control, " ");
        if self.last.replace(text.clone()) != text {
            self.tell(&format!("STATUS={text}"));
        }
    }

    /// The configuration is read anew; [`Self::ready`] follows. With the time, as `Type=notify-reload` wants it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The daemon ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Waits until it is time for [`Self::alive`].
    pub async fn due(&mut self) {
        match &mut self.watchdog {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Says that the daemon lives, if the control thread does: that the main thread does is seen by its being here.
    pub fn alive(&self, handle: &RouterHandle) {
        let Some(socket) = self.socket.clone() else { return };
        let handle = handle.clone();
        tokio::spawn(async move {
            if handle.ping().await.is_ok() {
                send(&socket, "WATCHDOG=1");
            }
        });
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket {
            send(socket, text);
        }
    }
}

/// A path, or the name of an abstract socket behind an `@`.
fn connect(name: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    // A manager that reads nothing must not hold us.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn send(socket: &UnixDatagram, text: &str) {
    if let Err(error) = socket.send(text.as_bytes()) {
        tracing::debug!("the service manager did not hear {text:?}: {error}");
    }
}
