//! The leak guard: what belongs into the tunnel is unreachable while there is none.
//!
//! For each prefix that the tunnel takes stands an `unreachable` route one metric behind the tunnel's own. It belongs to no
//! device, so that it stands while the device is absent, and after a crash; the next client takes it over.

use super::{Net, ROUTE_PROTOCOL, destination, explain, is_errno, prefix};
use anyhow::Context as _;
use ferry6_ike::Prefix6;
use futures_util::TryStreamExt as _;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::RouteMessageBuilder;
use std::net::Ipv6Addr;

/// One route of a guard, as the kernel has it.
#[derive(Clone, Debug)]
pub struct GuardRoute {
    /// What it keeps from leaving.
    pub to: Prefix6,
    /// Its metric: that of the tunnel's routes and one.
    pub metric: u32,
    message: RouteMessage,
}

/// The metric of the guard behind routes of this metric.
pub fn metric(tunnel: u32) -> u32 {
    tunnel.saturating_add(1)
}

impl Net {
    /// All routes of guards on this machine, of ours and of clients that were killed.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn guard_routes(&self) -> anyhow::Result<Vec<GuardRoute>> {
        let mut list = Vec::new();
        let mut routes = self.handle.route().get(RouteMessageBuilder::<Ipv6Addr>::new().build()).execute();
        while let Some(message) = routes.try_next().await.map_err(explain)? {
            if message.header.kind != RouteType::Unreachable
                || message.header.protocol != RouteProtocol::Other(ROUTE_PROTOCOL)
                // Those of a prefix that is routed to us.
                || prefix::is_last(&message)
            {
                continue;
            }
            let metric = message.attributes.iter().find_map(|a| match a {
                RouteAttribute::Priority(priority) => Some(*priority),
                _ => None,
            });
            list.push(GuardRoute { to: destination(&message), metric: metric.unwrap_or(0), message });
        }
        Ok(list)
    }

    /// Brings the guard of this metric to exactly these prefixes: what is missing first.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn set_guard(&self, prefixes: &[Prefix6], metric: u32) -> anyhow::Result<()> {
        let there = self.guard_routes().await?;
        for to in prefixes.iter().filter(|to| !there.iter().any(|r| r.to == **to && r.metric == metric)) {
            if !self.add_guard_route(*to, metric).await? {
                anyhow::bail!(
                    "leak guard: another route to {to} has the metric {metric} already; set another tunnel.metric"
                );
            }
        }
        for route in there.into_iter().filter(|r| r.metric == metric && !prefixes.contains(&r.to)) {
            self.remove_guard_route(route).await?;
        }
        Ok(())
    }

    /// Sets what is missing of a guard, without a look at all routes of the machine. Whether anything was.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn keep_guard(&self, prefixes: &[Prefix6], metric: u32) -> anyhow::Result<bool> {
        let mut missed = false;
        for to in prefixes {
            missed |= self.add_guard_route(*to, metric).await?;
        }
        Ok(missed)
    }

    /// Whether it was not there.
    async fn add_guard_route(&self, to: Prefix6, metric: u32) -> anyhow::Result<bool> {
        let route = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to.address, to.len)
            .kind(RouteType::Unreachable)
            .priority(metric)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
        match self.handle.route().add(route.build()).execute().await {
            Err(error) if is_errno(&error, &[libc::EEXIST]) => Ok(false),
            other => other
                .map(|()| true)
                .map_err(explain)
                .with_context(|| format!("leak guard: cannot set the route to {to}")),
        }
    }

    /// Takes one route of a guard away; that it is gone already is no fault.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn remove_guard_route(&self, route: GuardRoute) -> anyhow::Result<()> {
        match self.handle.route().del(route.message).execute().await {
            Err(error) if !is_errno(&error, &[libc::ESRCH]) => Err(explain(error))
                .with_context(|| format!("leak guard: cannot remove the route to {}", route.to)),
            _ => Ok(()),
        }
    }
}
