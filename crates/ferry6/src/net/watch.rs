//! The machine's IPv4 network from a roaming client's view: when it changes, and the way to the broker.

use super::Net;
use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressScope};
use netlink_packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{MulticastGroup, RouteMessageBuilder, new_multicast_connection};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A change of networks is a burst of events: it is told when there was no other for so long,
const QUIET: Duration = Duration::from_millis(150);
/// or at last after this.
const LATEST: Duration = Duration::from_secs(1);
/// Wait before the events are listened to again, should the socket have failed.
const AGAIN: Duration = Duration::from_secs(2);

/// Tells that links, addresses, routes or rules of IPv4 have changed. What changed has to be looked up: so it does not
/// matter when events are lost because the kernel has more than the socket holds.
pub struct Watch {
    changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Listens. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel refused the socket.
    pub fn new() -> anyhow::Result<Self> {
        // The first one here, so that an error is the caller's.
        let first = Events::open()?;
        let changed = Arc::new(Notify::new());
        let task = tokio::spawn(listen(first, Arc::clone(&changed)));
        Ok(Self { changed, task })
    }

    /// Waits for a change since the last call. May be dropped before it is done: nothing is lost.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// The multicast groups of rtnetlink that say something of the way to the broker.
struct Events {
    connection: JoinHandle<()>,
    next: std::pin::Pin<Box<dyn futures_util::Stream<Item = ()> + Send>>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Events {
    fn open() -> anyhow::Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
        ];
        let (connection, _, messages) =
            new_multicast_connection(&groups).context("cannot listen to changes of the network (netlink)")?;
        // An overrun of the socket comes as a message too.
        Ok(Self { connection: tokio::spawn(connection), next: Box::pin(messages.map(drop)) })
    }
}

async fn listen(first: Events, changed: Arc<Notify>) {
    let mut events = Some(first);
    loop {
        let Some(open) = &mut events else {
            tokio::time::sleep(AGAIN).await;
            events = Events::open().inspect_err(|e| tracing::warn!("{e:#}")).ok();
            // What happened in between is not known.
            changed.notify_one();
            continue;
        };
        if open.next.next().await.is_none() {
            events = None;
            continue;
        }
        let latest = Instant::now() + LATEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            match tokio::time::timeout_at(quiet, open.next.next()).await {
                Ok(Some(())) if Instant::now() < latest => {}
                _ => break,
            }
        }
        changed.notify_one();
    }
}

/// The way that packets to the broker take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Outgoing interface.
    pub interface: u32,
    /// The next router; none on the same link.
    pub gateway: Option<Ipv4Addr>,
    /// The address they come from.
    pub source: Option<Ipv4Addr>,
}

impl Net {
    /// The way to an address; `None` where there is none. `from` is the address that we are bound to, unless that is
    /// unspecified.
    pub async fn egress(&self, to: Ipv4Addr, from: Ipv4Addr) -> Option<Egress> {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32);
        if !from.is_unspecified() {
            message = message.source_prefix(from, 32);
        }
        // No route at all is an error of this request.
        let route = self.handle.route().get(message.build()).execute().try_next().await.ok()??;
        let mut egress = Egress { interface: 0, gateway: None, source: None };
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => egress.interface = index,
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => egress.gateway = Some(address),
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => egress.source = Some(address),
                _ => {}
            }
        }
        Some(egress)
    }

    /// The IPv4 addresses from which a broker could be reached: those of interfaces with a default route, sorted.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn uplink_addresses(&self) -> anyhow::Result<Vec<Ipv4Addr>> {
        let mut uplinks = BTreeSet::new();
        let mut routes = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        while let Some(route) = routes.try_next().await.map_err(super::explain)? {
            if route.header.destination_prefix_length == 0 {
                uplinks.extend(route.attributes.iter().filter_map(|a| match a {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                }));
            }
        }
        let mut list = BTreeSet::new();
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.map_err(super::explain)? {
            let header = &message.header;
            if header.family != AddressFamily::Inet
                || header.scope != AddressScope::Universe
                || !uplinks.contains(&header.index)
            {
                continue;
            }
            list.extend(message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                _ => None,
            }));
        }
        Ok(list.into_iter().collect())
    }
}
