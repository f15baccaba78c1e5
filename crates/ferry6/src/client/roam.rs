//! What a client does when its network changes, and when its authentication grows old.

use super::backoff::Failure;
use super::{State, Tunnel};
use crate::daemon::Daemon;
use crate::net::watch::Egress;
use ferry6_crypto::SecureRandom;
use ferry6_crypto::provider::OsRandom;
use ferry6_ike::event::{Closed, Established, IkeSaId};
use ferry6_tun_router::PathState;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Where no broker is known yet: an address of documentation (RFC 5737), which goes by the default route.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// A reauthentication that failed is tried again after this and a random half of it.
const REAUTH_AGAIN: Duration = Duration::from_secs(30);

/// The network, as last seen.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// The way to the broker.
    pub(super) egress: Option<Egress>,
    addresses: Vec<Ipv4Addr>,
    /// The tunnel waits for a way to the broker.
    pub(super) offline: bool,
}

/// Reauthentication by make-before-break (RFC 7296 section 2.8.3): a second IKE SA beside the first, which then goes.
#[derive(Debug, Default)]
pub(super) struct Reauth {
    at: Option<Instant>,
    /// The new one, not up yet.
    pub(super) next: Option<IkeSaId>,
    /// The old one, until the new one's Child SA is there.
    old: Option<IkeSaId>,
}

fn spread(most: Duration) -> Duration {
    let mut random = [0];
    // Without randomness it is not spread, which is no reason not to do it.
    let _ = OsRandom.fill(&mut random);
    most * u32::from(random[0]) / 255
}

impl Tunnel {
    /// Addresses at which we could be reached, to be told to the broker; none where we are bound to one.
    async fn addresses(&self, daemon: &Daemon) -> Vec<Ipv4Addr> {
        if !self.config.listen.address.is_unspecified() {
            return Vec::new();
        }
        daemon.net.uplink_addresses().await.unwrap_or_default()
    }

    /// The way to the broker now, which is looked at anew.
    pub(super) async fn look(&mut self, daemon: &Daemon) -> Option<Egress> {
        let to = self.broker.unwrap_or(ELSEWHERE);
        self.network.egress = daemon.net.egress(to, self.config.listen.address).await;
        self.network.addresses = self.addresses(daemon).await;
        self.network.egress
    }

    /// Something of the machine's IPv4 has changed.
    pub(super) async fn network_changed(&mut self, daemon: &Daemon) -> anyhow::Result<()> {
        let before = (self.network.egress, std::mem::take(&mut self.network.addresses));
        let egress = self.look(daemon).await;
        if before.0 == egress && before.1 == self.network.addresses {
            return Ok(());
        }
        match self.state {
            State::Up { ike, .. } => {
                if let Some(next) = self.reauth.next.take() {
                    self.leave(daemon, next).await;
                    self.reauth.at = Some(Instant::now() + Duration::from_secs(1));
                }
                self.move_tunnel(daemon, ike).await
            }
            State::Connecting(ike) if before.0 != egress => {
                self.leave(daemon, ike).await;
                self.start_over();
                Ok(())
            }
            State::Waiting(_) if egress.is_some() => {
                self.start_over();
                Ok(())
            }
            State::Connecting(_) | State::Waiting(_) | State::Resolving | State::Down => Ok(()),
        }
    }

    async fn move_tunnel(&mut self, daemon: &Daemon, ike: IkeSaId) -> anyhow::Result<()> {
        let addresses = self.network.addresses.clone();
        // An error: it is gone, and `Closed` is on its way.
        let Ok(state) = daemon.handle.network_changed(ike, addresses).await else { return Ok(()) };
        let was_offline = std::mem::replace(&mut self.network.offline, state == PathState::NoRoute);
        match state {
            PathState::Same if was_offline => tracing::info!("the network is back"),
            PathState::Same => tracing::debug!("the network changed; our address is as before"),
            PathState::Moved(path) => tracing::info!("moved to {} (MOBIKE)", path.local.ip()),
            PathState::NoRoute if was_offline => {}
            PathState::NoRoute => tracing::warn!("no way to the broker: the tunnel waits for a network"),
            PathState::Stuck => {
                tracing::info!("our address changed, and the broker does not speak MOBIKE: connecting anew");
                self.leave(daemon, ike).await;
                self.start_over();
                return self.unapply(daemon).await;
            }
        }
        Ok(())
    }

    /// Closes an IKE SA that is nobody's any more. That it is gone already is no fault.
    async fn leave(&self, daemon: &Daemon, ike: IkeSaId) {
        if let Err(error) = daemon.handle.close(ike).await {
            tracing::debug!("close: {error}");
        }
    }

    fn start_over(&mut self) {
        self.network.offline = false;
        self.backoff.reset();
        self.try_now();
    }

    /// There is no way to the broker: another try when there is one, or by and by.
    pub(super) fn no_route(&mut self, broker: SocketAddrV4) {
        self.failed(Failure::Passing, format!("there is no route to {}: waiting for a network", broker.ip()));
    }

    // --- reauthentication --------------------------------------------------------------------------------------

    /// When to reauthenticate.
    pub(super) fn reauth_at(&self) -> Option<Instant> {
        let ready =
            matches!(self.state, State::Up { .. }) && self.reauth.next.is_none() && !self.network.offline;
        self.reauth.at.filter(|_| ready)
    }

    /// The broker has said anew how long our authentication holds.
    pub(super) fn reauthenticate_in(&mut self, ike: IkeSaId, after: Duration) {
        if matches!(self.state, State::Up { ike: current, .. } if current == ike) {
            tracing::info!("the broker asks for reauthentication within {after:.0?}");
            self.reauth.at = Some(Instant::now() + after);
        }
    }

    /// Begins.
    pub(super) async fn reauthenticate(&mut self, daemon: &Daemon) -> anyhow::Result<()> {
        self.reauth.at = None;
        let Some(address) = self.broker else { return Ok(()) };
        let broker = SocketAddrV4::new(address, self.config.port);
        self.reauth.next = Some(daemon.handle.initiate(&self.config.connection.name, broker).await?);
        tracing::debug!("reauthenticating to {broker}");
        Ok(())
    }

    /// An IKE SA is up. Whether it is one in place of another.
    pub(super) fn reauthenticated(&mut self, up: &Established) -> bool {
        self.reauth.at = up.reauth.map(|after| Instant::now() + after);
        if self.reauth.next != Some(up.ike) {
            return false;
        }
        self.reauth.next = None;
        if let State::Up { ike, since } = self.state {
            self.reauth.old = Some(ike);
            self.state = State::Up { ike: up.ike, since };
        }
        true
    }

    /// The new one carries the traffic: the old one goes.
    pub(super) async fn leave_old(&mut self, daemon: &Daemon) {
        if let Some(old) = self.reauth.old.take() {
            self.leave(daemon, old).await;
        }
    }

    /// An IKE SA is gone. Whether that was an attempt to reauthenticate, so that the tunnel still is up.
    pub(super) fn reauth_failed(&mut self, closed: &Closed) -> bool {
        if self.reauth.next != Some(closed.ike) {
            return false;
        }
        self.reauth.next = None;
        self.reauth.at = Some(Instant::now() + REAUTH_AGAIN + spread(REAUTH_AGAIN / 2));
        tracing::warn!("could not reauthenticate: {}; the tunnel stays, trying again soon", closed.reason);
        true
    }

    /// The tunnel is gone while its successor was on its way: that one is now what we wait for.
    pub(super) fn successor(&mut self) -> Option<IkeSaId> {
        self.reauth.old = None;
        self.reauth.at = None;
        self.reauth.next.take()
    }
}
