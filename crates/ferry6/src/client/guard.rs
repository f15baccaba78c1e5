//! The leak guard of a client (`tunnel.leak_guard`): see [`crate::net::guard`].

use crate::config::Client;
use crate::net::{Net, guard};
use ferry6_ike::Prefix6;
use std::time::{Duration, Instant};

/// How often it is looked whether the guard stands: who manages the network may take routes away that are not its own.
const LOOK: Duration = Duration::from_secs(5);

/// What is kept from leaving outside the tunnel, and whether it is now.
#[derive(Debug)]
pub(super) struct Guard {
    /// Empty where it is off.
    prefixes: Vec<Prefix6>,
    metric: u32,
    stands: bool,
    /// When it is looked next.
    due: Instant,
}

impl Guard {
    /// Sets the guard, or takes away what a client before this one has left and this one does not want. It comes before
    /// everything else, and an error does not end it: what belongs into the tunnel never leaves outside of it, whatever
    /// happens to this process.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) async fn start(config: &Client, net: &Net) -> anyhow::Result<Self> {
        let prefixes = if config.leak_guard { protected(config) } else { Vec::new() };
        let metric = guard::metric(config.tunnel.metric);
        let mut this = Self { prefixes, metric, stands: false, due: Instant::now() };
        this.set(net).await?;
        if this.stands {
            tracing::info!("leak guard: {} unreachable but through the tunnel", this.show().join(", "));
        }
        Ok(this)
    }

    /// # Errors
    /// The kernel refused.
    pub(super) async fn set(&mut self, net: &Net) -> anyhow::Result<()> {
        net.set_guard(&self.prefixes, self.metric).await?;
        self.stands = !self.prefixes.is_empty();
        Ok(())
    }

    /// Waits until [`Self::look`] is due; for ever, where nothing is kept in.
    pub(super) async fn wait(&self) {
        if !self.stands {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.due.into()).await;
    }

    /// Sets what somebody took away.
    pub(super) async fn look(&mut self, net: &Net) {
        self.due = Instant::now() + LOOK;
        match net.keep_guard(&self.prefixes, self.metric).await {
            Ok(false) => {}
            Ok(true) => tracing::warn!("leak guard: somebody took routes of it away: set again"),
            Err(error) => tracing::warn!("{error:#}"),
        }
    }

    /// Other routes go into the tunnel now.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) async fn follow(&mut self, config: &Client, net: &Net) -> anyhow::Result<()> {
        if self.prefixes.is_empty() {
            return Ok(());
        }
        self.prefixes = protected(config);
        if self.stands { self.set(net).await } else { Ok(()) }
    }

    /// The user wants IPv6 to go where it went without ferry6.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) async fn open(&mut self, net: &Net) -> anyhow::Result<()> {
        net.set_guard(&[], self.metric).await?;
        self.stands = false;
        Ok(())
    }

    fn show(&self) -> Vec<String> {
        self.prefixes.iter().map(ToString::to_string).collect()
    }

    /// For `status`: `None` where it is off, else what it keeps in now.
    pub(super) fn status(&self) -> Option<Vec<String>> {
        let on = !self.prefixes.is_empty();
        on.then(|| if self.stands { self.show() } else { Vec::new() })
    }
}

/// What the configuration sends into the tunnel, whatever the broker makes of it.
fn protected(config: &Client) -> Vec<Prefix6> {
    super::wanted_routes(&config.routes, &config.connection.remote_ts)
}

/// Takes away the guards of clients that do not run any more, and tells of what.
///
/// # Errors
/// The kernel refused.
pub async fn remove_left_over(net: &Net) -> anyhow::Result<Vec<Prefix6>> {
    let mut list = Vec::new();
    for route in net.guard_routes().await? {
        list.push(route.to);
        net.remove_guard_route(route).await?;
    }
    Ok(list)
}
