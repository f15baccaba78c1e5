//! The machine's network around the tunnel: addresses and routes (netlink), forwarding (sysctl), names (DNS).

pub mod guard;
pub mod picture;
pub mod prefix;
pub mod proxy;
pub mod resolve;
pub mod sysctl;
pub mod watch;

use anyhow::{Context as _, anyhow};
use ferry6_ike::Prefix6;
use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::{Error, Handle, LinkUnspec, RouteMessageBuilder};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use tokio::task::JoinHandle;

/// RTPROT of our routes, so that `ip -6 route show proto 246` finds them. 246 is assigned to nobody.
pub const ROUTE_PROTOCOL: u8 = 246;

/// A lifetime that never ends (RFC 4862 section 5.5.3: all one bits).
const FOREVER: u32 = u32::MAX;

/// A netlink socket. It belongs to the namespace in which it was opened.
pub struct Net {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Net {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An IPv6 route of the main table, as far as we look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub to: Prefix6,
    /// Outgoing interface.
    pub interface: Option<u32>,
    /// Metric.
    pub metric: u32,
    /// RTPROT.
    pub protocol: RouteProtocol,
}

/// Whether netlink says "it exists already" or "there is no such thing".
fn is_errno(error: &Error, codes: &[i32]) -> bool {
    matches!(error, Error::NetlinkError(message) if codes.contains(&-message.raw_code()))
}

/// With what to do about it, where that is known.
fn explain(error: Error) -> anyhow::Error {
    if is_errno(&error, &[libc::EPERM, libc::EACCES]) {
        return anyhow!("not permitted: run as root or with CAP_NET_ADMIN");
    }
    match error {
        Error::NetlinkError(message) => anyhow!("{}", message.to_io()),
        other => anyhow!("{other}"),
    }
}

/// Where a route leads.
fn destination(message: &RouteMessage) -> Prefix6 {
    let address = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(*address),
        _ => None,
    });
    Prefix6 {
        address: address.unwrap_or(Ipv6Addr::UNSPECIFIED),
        len: message.header.destination_prefix_length,
    }
}

/// Whether the kernel takes packets for this address in. Linux takes a new IPv6 address as a source at once, but makes it
/// a destination later, in a work queue: a reply that comes before is discarded as a stranger's. That takes some
/// milliseconds on a busy machine, and for ever where the interface is down.
pub(crate) async fn is_local(handle: &Handle, address: IpAddr) -> bool {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let Ok(message) = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, bits) else {
        return false;
    };
    // No route at all is an error of this request, and no fault here.
    let route = handle.route().get(message.build()).execute().try_next().await;
    matches!(route, Ok(Some(route)) if route.header.kind == RouteType::Local)
}

impl Net {
    /// Opens the socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn new() -> anyhow::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// The interface's index.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn index(&self, name: &str) -> anyhow::Result<u32> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        let link = links.try_next().await.map_err(explain).with_context(|| format!("interface {name}"))?;
        Ok(link.ok_or_else(|| anyhow!("there is no interface {name}"))?.header.index)
    }

    /// The interface's name.
    ///
    /// # Errors
    /// There is none of this index.
    pub async fn name(&self, index: u32) -> anyhow::Result<String> {
        let mut links = self.handle.link().get().match_index(index).execute();
        let link = links.try_next().await.map_err(explain)?;
        link.into_iter()
            .flat_map(|l| l.attributes)
            .find_map(|a| if let LinkAttribute::IfName(name) = a { Some(name) } else { None })
            .ok_or_else(|| anyhow!("interface {index} has no name"))
    }

    /// Sets the interface up.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn up(&self, index: u32) -> anyhow::Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.set_link(message).await.context("cannot set the tunnel device up")
    }

    /// Sets the interface's MTU.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn set_mtu(&self, index: u32, mtu: u16) -> anyhow::Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu.into()).build();
        self.set_link(message).await.context("cannot set the MTU of the tunnel device")
    }

    async fn set_link(&self, message: LinkMessage) -> anyhow::Result<()> {
        self.handle.link().set(message).execute().await.map_err(explain)
    }

    /// Puts an address on the interface, as a /128 that is never deprecated (preferred and valid for ever), without
    /// duplicate address detection, which has nobody to ask in a tunnel.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn add_address(&self, index: u32, address: Ipv6Addr) -> anyhow::Result<()> {
        let mut request = self.handle.address().add(index, IpAddr::V6(address), 128).replace();
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_preferred = FOREVER;
        lifetime.ifa_valid = FOREVER;
        let message = request.message_mut();
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        request
            .execute()
            .await
            .map_err(explain)
            .with_context(|| format!("cannot set the address {address}"))?;
        self.wait_for_local(address).await;
        Ok(())
    }

    /// Waits some time for [`is_local`].
    async fn wait_for_local(&self, address: Ipv6Addr) {
        for _ in 0..200 {
            if is_local(&self.handle, address.into()).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tracing::debug!("the kernel does not take {address} for its own yet");
    }

    /// Takes an address off again; that it is gone already is no fault.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn remove_address(&self, index: u32, address: Ipv6Addr) -> anyhow::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.index = index;
        message.header.prefix_len = 128;
        message.attributes.push(AddressAttribute::Address(IpAddr::V6(address)));
        match self.handle.address().del(message).execute().await {
            Err(error) if !is_errno(&error, &[libc::EADDRNOTAVAIL, libc::ENODEV]) => {
                Err(explain(error)).with_context(|| format!("cannot remove the address {address}"))
            }
            _ => Ok(()),
        }
    }

    /// All IPv6 addresses of this machine.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn addresses(&self) -> anyhow::Result<Vec<Ipv6Addr>> {
        let mut list = Vec::new();
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.map_err(explain)? {
            list.extend(message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
                _ => None,
            }));
        }
        Ok(list)
    }

    fn route(to: Prefix6, index: u32, metric: u32, source: Option<Ipv6Addr>) -> RouteMessage {
        let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to.address, to.len)
            .output_interface(index)
            .priority(metric)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
        if let Some(source) = source {
            route = route.pref_source(source);
        }
        route.build()
    }

    /// Routes `to` into the interface. Routes of another metric or interface stay as they are.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn add_route(
        &self,
        to: Prefix6,
        index: u32,
        metric: u32,
        source: Option<Ipv6Addr>,
    ) -> anyhow::Result<()> {
        match self.handle.route().add(Self::route(to, index, metric, source)).execute().await {
            // The same route on the same device: ours, from before.
            Err(error) if is_errno(&error, &[libc::EEXIST]) => {
                let there = self.routes().await?;
                if there.iter().any(|r| r.to == to && r.metric == metric && r.interface == Some(index)) {
                    return Ok(());
                }
                Err(anyhow!(
                    "another route to {to} has the metric {metric} already; set another one: tunnel.metric"
                ))
            }
            other => other.map_err(explain).with_context(|| format!("cannot set the route to {to}")),
        }
    }

    /// Removes a route that [`Self::add_route`] made; that it is gone already is no fault.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn remove_route(&self, to: Prefix6, index: u32, metric: u32) -> anyhow::Result<()> {
        match self.handle.route().del(Self::route(to, index, metric, None)).execute().await {
            Err(error) if !is_errno(&error, &[libc::ESRCH, libc::ENODEV]) => {
                Err(explain(error)).with_context(|| format!("cannot remove the route to {to}"))
            }
            _ => Ok(()),
        }
    }

    /// All IPv6 unicast routes of the main table.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn routes(&self) -> anyhow::Result<Vec<Route>> {
        let mut list = Vec::new();
        let mut routes = self.handle.route().get(RouteMessageBuilder::<Ipv6Addr>::new().build()).execute();
        while let Some(message) = routes.try_next().await.map_err(explain)? {
            if message.header.kind != RouteType::Unicast || message.header.table != libc::RT_TABLE_MAIN {
                continue;
            }
            let mut route = Route {
                to: destination(&message),
                interface: None,
                metric: 0,
                protocol: message.header.protocol,
            };
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => route.interface = Some(*index),
                    RouteAttribute::Priority(metric) => route.metric = *metric,
                    _ => {}
                }
            }
            list.push(route);
        }
        Ok(list)
    }

    /// Answers neighbour solicitations for `address` on the interface (proxy NDP).
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn add_proxy(&self, index: u32, address: Ipv6Addr) -> anyhow::Result<()> {
        let request =
            self.handle.neighbours().add(index, IpAddr::V6(address)).flags(NeighbourFlags::Proxy).replace();
        request
            .execute()
            .await
            .map_err(explain)
            .with_context(|| format!("cannot answer for {address} (proxy_ndp)"))
    }

    /// Ends [`Self::add_proxy`].
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn remove_proxy(&self, index: u32, address: Ipv6Addr) -> anyhow::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.ifindex = index;
        message.header.flags = NeighbourFlags::Proxy;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)));
        match self.handle.neighbours().del(message).execute().await {
            Err(error) if !is_errno(&error, &[libc::ENOENT, libc::ENODEV]) => Err(explain(error))
                .with_context(|| format!("cannot stop answering for {address} (proxy_ndp)")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
