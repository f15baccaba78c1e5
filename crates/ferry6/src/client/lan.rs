//! Router mode: what a client makes of the prefix that is routed to it, see docs/router.md.
//!
//! The networks behind us keep their addresses while the tunnel is lost and tried again: whoever has one there is not renumbered for
//! that, and hears at once that there is no route. They go with `down`, with the end of the client, and when another prefix comes.

use crate::config::Client;
use crate::control::LanStatus;
use crate::net::Net;
use crate::net::prefix::{self, Routed, lan_address};
use crate::net::sysctl::{self, Changes};
use ferry6_ike::Prefix6;
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

/// How often it is looked whether each interface has its address: one may come later, or go and come.
const LOOK: Duration = Duration::from_secs(5);

/// The networks behind us.
pub(super) struct Lan {
    interfaces: Vec<String>,
    table: u32,
    /// The prefix that stands, and the routes for what comes from it.
    stands: Option<Prefix6>,
    routes: Vec<Prefix6>,
    /// Addresses that were set, with the index of their interface.
    addresses: Vec<(String, u32, Ipv6Addr)>,
    /// Interfaces of which it was said that they are missing.
    missing: BTreeSet<String>,
    /// Forwarding; put back when this is dropped.
    _changes: Option<Changes>,
}

impl Lan {
    /// Takes away what a killed client left, and switches forwarding on where there is an interface to forward for.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) async fn start(config: &Client, net: &Net) -> anyhow::Result<Self> {
        let table = prefix::table(config.tunnel.metric);
        for left in net.routed_prefixes().await?.into_iter().filter(|left| left.table == table) {
            tracing::info!("the prefix {} was left by a client that was killed: taken away", left.prefix);
            take_back(net, left, &config.lan).await?;
        }
        let record = config.control.with_extension("sysctl");
        // One that was killed may have left forwarding on: where nothing is to be forwarded any more, this puts it back.
        let mut changes = Some(Changes::recorded(record)).filter(|_| !config.lan.is_empty());
        if let Some(changes) = &mut changes
            && let Err(text) = sysctl::enable_forwarding(net, changes).await
        {
            tracing::warn!("{text}; till then the networks behind this machine reach nothing");
        }
        Ok(Self {
            interfaces: config.lan.clone(),
            table,
            stands: None,
            routes: Vec::new(),
            addresses: Vec::new(),
            missing: BTreeSet::new(),
            _changes: changes,
        })
    }

    fn routed(&self) -> Option<Routed> {
        self.stands.map(|prefix| Routed { prefix, table: self.table })
    }

    /// The tunnel is up, with a prefix or without, and has these routes.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) async fn up(
        &mut self,
        net: &Net,
        tun: u32,
        prefix: Option<Prefix6>,
        routes: &[Prefix6],
    ) -> anyhow::Result<()> {
        if self.stands != prefix {
            self.clear(net).await?;
            if let Some(prefix) = prefix {
                net.route_prefix(Routed { prefix, table: self.table }).await?;
                self.stands = Some(prefix);
                self.check(prefix);
            }
        }
        if self.stands.is_some() {
            net.route_table(self.table, tun, routes).await?;
            self.routes = routes.to_vec();
            self.look(net).await;
        }
        Ok(())
    }

    /// The tunnel is lost. What comes from the prefix goes nowhere now.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) async fn lost(&mut self, net: &Net, tun: u32) -> anyhow::Result<()> {
        if self.stands.is_some() && !std::mem::take(&mut self.routes).is_empty() {
            net.route_table(self.table, tun, &[]).await?;
        }
        Ok(())
    }

    /// Takes all of it away.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) async fn clear(&mut self, net: &Net) -> anyhow::Result<()> {
        for (_, index, address) in self.addresses.drain(..) {
            net.remove_lan_address(index, address).await?;
        }
        if let Some(routed) = self.routed() {
            net.unroute_prefix(routed).await?;
        }
        self.stands = None;
        self.routes.clear();
        Ok(())
    }

    /// What cannot be made of this prefix.
    fn check(&self, prefix: Prefix6) {
        let served = (0..self.interfaces.len()).take_while(|n| lan_address(prefix, *n).is_some()).count();
        if served < self.interfaces.len() {
            tracing::warn!(
                "{prefix} has {served} networks of 64 bits, and tunnel.lan names {} interfaces: {} get no address",
                self.interfaces.len(),
                self.interfaces[served..].join(", ")
            );
        }
    }

    /// Waits until [`Self::look`] is due; for ever, where there is nothing to look for.
    pub(super) async fn wait(&self) {
        if self.stands.is_none() || self.interfaces.is_empty() {
            return std::future::pending().await;
        }
        tokio::time::sleep(LOOK).await;
    }

    /// Sets the addresses that are missing: an interface may have come just now, or been down.
    pub(super) async fn look(&mut self, net: &Net) {
        let Some(prefix) = self.stands else { return };
        let there = net.addresses().await.unwrap_or_default();
        for (n, name) in self.interfaces.clone().into_iter().enumerate() {
            let Some(address) = lan_address(prefix, n) else { return };
            if there.contains(&address) {
                self.missing.remove(&name);
                continue;
            }
            self.addresses.retain(|(other, ..)| *other != name);
            let set = async {
                let index = net.index(&name).await?;
                // A route that came back with the interface may be older than this; it is the same one.
                net.add_lan_address(index, address).await?;
                anyhow::Ok(index)
            };
            match set.await {
                Ok(index) => {
                    tracing::info!("{name} has {address}/64 of {prefix}");
                    self.missing.remove(&name);
                    self.addresses.push((name, index, address));
                }
                Err(error) if self.missing.insert(name.clone()) => {
                    tracing::warn!("tunnel.lan: {name} gets no address of {prefix} yet: {error:#}");
                }
                Err(error) => tracing::debug!("tunnel.lan: {name}: {error:#}"),
            }
        }
    }

    /// For `status`: the prefix, and what each interface has of it.
    pub(super) fn status(&self) -> (Option<String>, Vec<LanStatus>) {
        let lans = self.interfaces.iter().enumerate().map(|(n, name)| LanStatus {
            interface: name.clone(),
            address: self.stands.and_then(|prefix| lan_address(prefix, n)),
            missing: self.missing.contains(name),
        });
        (self.stands.map(|p| p.to_string()), lans.collect())
    }
}

/// Takes away what stands of a prefix, the addresses of these interfaces among it.
async fn take_back(net: &Net, left: Routed, interfaces: &[String]) -> anyhow::Result<()> {
    for (n, name) in interfaces.iter().enumerate() {
        if let (Some(address), Ok(index)) = (lan_address(left.prefix, n), net.index(name).await) {
            net.remove_lan_address(index, address).await?;
        }
    }
    net.unroute_prefix(left).await
}

/// Takes away what clients left that do not run any more: routes and rules; an interface's address is the next client's to take.
///
/// # Errors
/// The kernel refused.
pub async fn remove_left_over(net: &Net) -> anyhow::Result<Vec<Prefix6>> {
    let mut list = super::guard::remove_left_over(net).await?;
    for left in net.routed_prefixes().await? {
        net.unroute_prefix(left).await?;
        list.push(left.prefix);
    }
    Ok(list)
}
