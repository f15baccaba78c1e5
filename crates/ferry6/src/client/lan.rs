//! Router mode: what a client makes of the prefix that is routed to it, see docs/router.md.
//!
//! The networks behind us keep their addresses while the tunnel is lost and tried again: whoever has one there is not renumbered for
//! that, and hears at once that there is no route. They go with `down`, with the end of the client, and when another prefix comes.

use crate::config::Client;
use crate::control::LanStatus;
use crate::net::Net;
use crate::net::prefix::{self, LanAddress, Routed, lan_address};
use crate::net::sysctl::{self, Changes};
use anyhow::bail;
use ferry6_ike::Prefix6;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

/// How often it is looked whether all stands, and each interface has its address: one may come later, or go and come.
const LOOK: Duration = Duration::from_secs(5);
/// After a fault of an interface is gone: longer than duplicate address detection takes (RFC 4862: one second).
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The networks behind us.
pub(super) struct Lan {
    interfaces: Vec<String>,
    table: u32,
    /// The prefix that stands, and the routes for what comes from it.
    stands: Option<Prefix6>,
    routes: Vec<Prefix6>,
    tun: u32,
    /// Addresses that were set, with the index of their interface.
    addresses: Vec<(String, u32, Ipv6Addr)>,
    /// Why an interface has no address; told once.
    faults: BTreeMap<String, String>,
    /// When it is looked next.
    due: Instant,
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
            tun: 0,
            addresses: Vec::new(),
            faults: BTreeMap::new(),
            due: Instant::now(),
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
                // Of a client that was killed and had another metric: its rules would come before ours, and lead nowhere.
                for left in net.routed_prefixes().await? {
                    if left.prefix == prefix && left.table != self.table {
                        take_back(net, left, &self.interfaces).await?;
                    }
                }
                net.route_prefix(Routed { prefix, table: self.table }).await?;
                self.stands = Some(prefix);
                self.check(prefix);
            }
        }
        if self.stands.is_some() {
            net.route_table(self.table, tun, routes).await?;
            self.routes = routes.to_vec();
            self.tun = tun;
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
        for (_, index, address) in std::mem::take(&mut self.addresses) {
            net.remove_lan_address(index, address).await?;
        }
        if let Some(routed) = self.routed() {
            net.unroute_prefix(routed).await?;
        }
        self.stands = None;
        self.routes.clear();
        self.faults.clear();
        Ok(())
    }

    /// What cannot be made of this prefix.
    fn check(&self, prefix: Prefix6) {
        let served = (0..self.interfaces.len()).take_while(|n| lan_address(prefix, *n).is_some()).count();
        if served < self.interfaces.len() {
            tracing::warn!(
                "{prefix} has {served} networks of 64 bits, and tunnel.lan names {} interfaces: no address for {}",
                self.interfaces.len(),
                self.interfaces[served..].join(", ")
            );
        }
    }

    /// Waits until [`Self::look`] is due; for ever, where there is nothing to look for.
    pub(super) async fn wait(&self) {
        if self.stands.is_none() {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.due.into()).await;
    }

    /// Sets what is missing. An interface may have come just now, or been down; and who manages the network may have taken rules
    /// and routes away that are not its own, as systemd-networkd does when it starts (`ManageForeignRoutingPolicyRules=`).
    pub(super) async fn look(&mut self, net: &Net) {
        self.due = Instant::now() + LOOK;
        let Some(routed) = self.routed() else { return };
        let set = async {
            let missed = net.route_prefix(routed).await?;
            anyhow::Ok(net.add_to_table(self.table, self.tun, &self.routes).await? || missed)
        };
        match set.await {
            Ok(false) => {}
            Ok(true) => tracing::warn!("somebody took rules or routes of {} away: set again", routed.prefix),
            Err(error) => tracing::warn!("{error:#}"),
        }
        let prefix = routed.prefix;
        if self.interfaces.is_empty() {
            return;
        }
        let there = match net.lan_addresses().await {
            Ok(there) => there,
            Err(error) => return tracing::debug!("tunnel.lan: {error:#}"),
        };
        for (n, name) in self.interfaces.clone().into_iter().enumerate() {
            let Some(address) = lan_address(prefix, n) else { return };
            match self.serve(net, &name, address, &there).await {
                // Whether it is another host's, too, is seen at the next look.
                Ok(Served::Now) if self.faults.contains_key(&name) => self.due = Instant::now() + LOOK_AGAIN,
                Ok(Served::Before) if self.faults.remove(&name).is_none() => {}
                Ok(_) => tracing::info!("{name} has {address}/64 of {prefix}"),
                Err(error) => {
                    let text = format!("{error:#}");
                    if self.faults.get(&name) != Some(&text) {
                        tracing::warn!("tunnel.lan: {name} has no address of {prefix} yet: {text}");
                        self.faults.insert(name, text);
                    }
                }
            }
        }
    }

    /// Sets the address of an interface, unless it is there.
    async fn serve(
        &mut self,
        net: &Net,
        name: &str,
        address: Ipv6Addr,
        there: &[LanAddress],
    ) -> anyhow::Result<Served> {
        let index = net.index(name).await?;
        let known = self.addresses.contains(&(name.to_owned(), index, address));
        for found in there.iter().filter(|found| found.address == address) {
            if found.index == index && !found.duplicate {
                if !known {
                    self.addresses.push((name.to_owned(), index, address));
                }
                return Ok(Served::Before);
            }
            if found.index == index {
                // The kernel asks once only: with the next one that we set it asks again.
                net.remove_lan_address(index, address).await?;
                bail!("another host there has {address}");
            }
            if found.marked {
                net.remove_lan_address(found.index, address).await?;
            }
        }
        net.add_lan_address(index, address).await?;
        self.addresses.retain(|(other, ..)| other != name);
        self.addresses.push((name.to_owned(), index, address));
        Ok(Served::Now)
    }

    /// For `status`: the prefix, and what each interface has of it.
    pub(super) fn status(&self) -> (Option<String>, Vec<LanStatus>) {
        let lans = self.interfaces.iter().enumerate().map(|(n, name)| LanStatus {
            interface: name.clone(),
            address: self.stands.and_then(|prefix| lan_address(prefix, n)),
            missing: self.faults.contains_key(name),
            reason: self.faults.get(name).cloned(),
        });
        (self.stands.map(|p| p.to_string()), lans.collect())
    }
}

/// How an interface has its address.
enum Served {
    /// It was there.
    Before,
    /// It was set.
    Now,
}

/// Takes away what stands of a prefix, with the addresses: those with our mark, and on older kernels those of these interfaces.
async fn take_back(net: &Net, left: Routed, interfaces: &[String]) -> anyhow::Result<()> {
    for found in net.lan_addresses().await? {
        if found.marked && left.prefix.contains(found.address) {
            net.remove_lan_address(found.index, found.address).await?;
        }
    }
    for (n, name) in interfaces.iter().enumerate() {
        if let (Some(address), Ok(index)) = (lan_address(left.prefix, n), net.index(name).await) {
            net.remove_lan_address(index, address).await?;
        }
    }
    net.unroute_prefix(left).await
}

/// Takes away what clients left that do not run any more. On kernels before 5.18 the addresses stay for the next client to take.
///
/// # Errors
/// The kernel refused.
pub async fn remove_left_over(net: &Net) -> anyhow::Result<Vec<Prefix6>> {
    let mut list = super::guard::remove_left_over(net).await?;
    for left in net.routed_prefixes().await? {
        take_back(net, left, &[]).await?;
        list.push(left.prefix);
    }
    Ok(list)
}
