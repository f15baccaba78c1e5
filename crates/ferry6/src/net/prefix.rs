//! A prefix that is routed to this machine through the tunnel: where its packets go, and where they never go.
//!
//! - In the main table stands an `unreachable` route for all of it. What belongs to no network behind us does not go back into the
//!   tunnel and round and round ([RFC 7084, WPD-5](https://www.rfc-editor.org/rfc/rfc7084)); more specific
//!   routes, of the networks behind us, win.
//! - What comes from it has rules of its own: routes of the main table that are no default route, nor a part of one like
//!   2000::/3, so that neighbours are reached, and then a table with nothing but the tunnel's routes and an `unreachable`
//!   default. Where the main table has another default route, and while there is no tunnel, nothing of it leaves in clear.
//!
//! All of it is found by its protocol number, so that what a killed client left is taken away by the next one.

use super::{Net, ROUTE_PROTOCOL, explain, is_errno};
use anyhow::Context as _;
use ferry6_ike::Prefix6;
use futures_util::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};
use std::net::{IpAddr, Ipv6Addr};

/// Tables of clients begin here; the metric of the tunnel's routes is added, which two clients on one machine do not share.
const TABLES: u32 = 246_000_000;
/// Priority of the first of the two rules: before the main table's (32766), behind those that people set.
const PRIORITY: u32 = 32_000;
/// Behind all routes that anybody sets.
pub(super) const LAST: u32 = u32::MAX - 246;

/// Routes of the main table as short as this are default routes by their meaning: other tunnels set ::/1 and 8000::/1, or 2000::/3,
/// instead of ::/0, and providers do, too. An organisation's own begin with fd00::/8 (RFC 4193).
const DEFAULTS: u32 = 7;

/// The table of a client whose routes have this metric.
pub fn table(metric: u32) -> u32 {
    TABLES.saturating_add(metric)
}

/// A prefix with the table for what comes from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The prefix.
    pub prefix: Prefix6,
    /// The table.
    pub table: u32,
}

/// The table of a route.
pub(super) fn table_of(message: &RouteMessage) -> u32 {
    let long = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or_else(|| message.header.table.into())
}

fn unreachable(to: Prefix6) -> RouteMessageBuilder<Ipv6Addr> {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(to.address, to.len)
        .kind(RouteType::Unreachable)
        .priority(LAST)
        .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
}

const ALL: Prefix6 = Prefix6 { address: Ipv6Addr::UNSPECIFIED, len: 0 };

impl Net {
    /// Sets what is described above; what stands already is no fault. Whether something was missing.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn route_prefix(&self, routed: Routed) -> anyhow::Result<bool> {
        let Routed { prefix, table } = routed;
        let mut missed = false;
        // The bolt first.
        for route in [unreachable(ALL).table_id(table).build(), unreachable(prefix).build()] {
            match self.handle.route().add(route).execute().await {
                Err(error) if is_errno(&error, &[libc::EEXIST]) => {}
                other => {
                    other.map_err(explain).with_context(|| format!("cannot keep {prefix} in"))?;
                    missed = true;
                }
            }
        }
        for rule in rules(routed) {
            let mut request = self.handle.rule().add().v6();
            *request.message_mut() = rule;
            match request.execute().await {
                Err(error) if is_errno(&error, &[libc::EEXIST]) => {}
                other => {
                    other
                        .map_err(explain)
                        .with_context(|| format!("cannot set a rule for what comes from {prefix}"))?;
                    missed = true;
                }
            }
        }
        Ok(missed)
    }

    /// Takes it away again, the routes in the table among it.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn unroute_prefix(&self, routed: Routed) -> anyhow::Result<()> {
        let Routed { prefix, table } = routed;
        let failed = || format!("cannot take the routes of {prefix} away");
        for rule in rules(routed) {
            match self.handle.rule().del(rule).execute().await {
                Err(error) if !is_errno(&error, &[libc::ENOENT]) => {
                    return Err(explain(error)).with_context(failed);
                }
                _ => {}
            }
        }
        for route in self.own_routes().await? {
            let of_table = table_of(&route) == table;
            let bolt = table_of(&route) == u32::from(libc::RT_TABLE_MAIN) && is_bolt(&route, prefix);
            if of_table || bolt {
                self.delete_route(route).await.with_context(failed)?;
            }
        }
        Ok(())
    }

    /// Sets the tunnel's routes in the table; what stands already is no fault. Whether something was missing.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn add_to_table(&self, table: u32, tun: u32, routes: &[Prefix6]) -> anyhow::Result<bool> {
        let mut missed = false;
        for to in routes {
            let route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to.address, to.len)
                .output_interface(tun)
                .table_id(table)
                .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
                .build();
            match self.handle.route().add(route).execute().await {
                Err(error) if is_errno(&error, &[libc::EEXIST]) => {}
                other => {
                    other.map_err(explain).with_context(|| format!("cannot set the route to {to}"))?;
                    missed = true;
                }
            }
        }
        Ok(missed)
    }

    /// Brings the tunnel's routes in the table to exactly these.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn route_table(&self, table: u32, tun: u32, routes: &[Prefix6]) -> anyhow::Result<()> {
        self.add_to_table(table, tun, routes).await?;
        for route in self.own_routes().await? {
            if table_of(&route) == table
                && route.header.kind == RouteType::Unicast
                && !routes.contains(&super::destination(&route))
            {
                self.delete_route(route).await?;
            }
        }
        Ok(())
    }

    /// What clients have set of this kind, those that were killed among them.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn routed_prefixes(&self) -> anyhow::Result<Vec<Routed>> {
        let mut list: Vec<Routed> = Vec::new();
        let mut rules = self.handle.rule().get(IpVersion::V6).execute();
        while let Some(rule) = rules.try_next().await.map_err(explain)? {
            let ours = RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
            if !rule.attributes.contains(&ours) {
                continue;
            }
            let (mut source, mut table) = (None, None);
            for attribute in &rule.attributes {
                match attribute {
                    RuleAttribute::Source(IpAddr::V6(address)) => source = Some(*address),
                    RuleAttribute::Table(number) => table = Some(*number),
                    _ => {}
                }
            }
            let prefix = source.and_then(|address| Prefix6::new(address, rule.header.src_len));
            if let (Some(prefix), Some(table)) = (prefix, table.filter(|t| *t >= TABLES)) {
                list.push(Routed { prefix, table });
            }
        }
        Ok(list)
    }

    /// Puts an address of a network behind us on its interface, unless it is there. It is marked as ours (kernels before 5.18
    /// pass the mark over).
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn add_lan_address(&self, index: u32, address: Ipv6Addr) -> anyhow::Result<()> {
        let mut request = self.handle.address().add(index, IpAddr::V6(address), LAN_LEN).replace();
        request.message_mut().attributes.push(MARK);
        match request.execute().await {
            // Permission would have been missed long before.
            Err(error) if is_errno(&error, &[libc::EACCES]) => {
                anyhow::bail!("IPv6 is switched off on this interface (sysctl disable_ipv6)")
            }
            other => other.map_err(explain).with_context(|| format!("cannot set the address {address}")),
        }
    }

    /// All addresses that may be of a network behind us: of 64 bits.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn lan_addresses(&self) -> anyhow::Result<Vec<LanAddress>> {
        let mut list = Vec::new();
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.map_err(explain)? {
            if message.header.prefix_len != LAN_LEN {
                continue;
            }
            let (mut address, mut flags) = (None, AddressFlags::empty());
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Address(IpAddr::V6(found)) => address = Some(*found),
                    AddressAttribute::Flags(found) => flags = *found,
                    _ => {}
                }
            }
            list.extend(address.map(|address| LanAddress {
                index: message.header.index,
                address,
                marked: message.attributes.contains(&MARK),
                duplicate: flags.contains(AddressFlags::Dadfailed),
            }));
        }
        Ok(list)
    }

    /// Takes it off again; that it is gone already is no fault.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn remove_lan_address(&self, index: u32, address: Ipv6Addr) -> anyhow::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.index = index;
        message.header.prefix_len = LAN_LEN;
        message.attributes.push(AddressAttribute::Address(IpAddr::V6(address)));
        match self.handle.address().del(message).execute().await {
            Err(error) if !is_errno(&error, &[libc::EADDRNOTAVAIL, libc::ENODEV]) => {
                Err(explain(error)).with_context(|| format!("cannot remove the address {address}"))
            }
            _ => Ok(()),
        }
    }

    /// All IPv6 routes with our protocol number, of all tables.
    async fn own_routes(&self) -> anyhow::Result<Vec<RouteMessage>> {
        let mut list = Vec::new();
        let mut routes = self.handle.route().get(RouteMessageBuilder::<Ipv6Addr>::new().build()).execute();
        while let Some(message) = routes.try_next().await.map_err(explain)? {
            if message.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL) {
                list.push(message);
            }
        }
        Ok(list)
    }

    async fn delete_route(&self, route: RouteMessage) -> anyhow::Result<()> {
        match self.handle.route().del(route).execute().await {
            Err(error) if !is_errno(&error, &[libc::ESRCH, libc::ENODEV]) => Err(explain(error)),
            _ => Ok(()),
        }
    }
}

/// Interface identifiers have 64 bits (RFC 4291 section 2.5.4).
const LAN_LEN: u8 = 64;
/// On our addresses, as on our routes.
const MARK: AddressAttribute = AddressAttribute::Protocol(AddressProtocol::Other(ROUTE_PROTOCOL));

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanAddress {
    /// The interface.
    pub index: u32,
    /// The address.
    pub address: Ipv6Addr,
    /// A client set it.
    pub marked: bool,
    /// Somebody else in that network has it, so that the kernel does not use it (RFC 4862 section 5.4.5).
    pub duplicate: bool,
}

/// Whether it is the `unreachable` route of a prefix.
pub(super) fn is_last(route: &RouteMessage) -> bool {
    route.attributes.contains(&RouteAttribute::Priority(LAST))
}

fn is_bolt(route: &RouteMessage, prefix: Prefix6) -> bool {
    route.header.kind == RouteType::Unreachable && is_last(route) && super::destination(route) == prefix
}

/// The two rules: neighbours first, then the table.
fn rules(routed: Routed) -> [RuleMessage; 2] {
    let Routed { prefix, table } = routed;
    let rule = |priority, table: u32| {
        let mut rule = RuleMessage::default();
        rule.header.family = AddressFamily::Inet6;
        rule.header.src_len = prefix.len;
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::Source(IpAddr::V6(prefix.address)),
            RuleAttribute::Priority(priority),
            RuleAttribute::Table(table),
            RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)),
        ];
        rule
    };
    let mut neighbours = rule(PRIORITY, u32::from(libc::RT_TABLE_MAIN));
    neighbours.attributes.push(RuleAttribute::SuppressPrefixLen(DEFAULTS));
    [neighbours, rule(PRIORITY + 1, table)]
}

/// The n-th network of 64 bits in a prefix, and our address there; `None` where it has not so many.
pub fn lan_address(prefix: Prefix6, n: usize) -> Option<Ipv6Addr> {
    if prefix.len > LAN_LEN {
        return None;
    }
    let networks = 1_u128 << (LAN_LEN - prefix.len);
    let n = u128::try_from(n).ok().filter(|n| *n < networks)?;
    Some(Ipv6Addr::from_bits(prefix.address.to_bits() | (n << 64) | 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_a_prefix() {
        let address = |prefix: &str, n| lan_address(prefix.parse().unwrap(), n).map(|a| a.to_string());
        assert_eq!(address("2a00:0:0:1000::/64", 0).unwrap(), "2a00:0:0:1000::1");
        assert_eq!(address("2a00:0:0:1000::/64", 1), None);
        assert_eq!(address("2a00:0:0:1000::/56", 255).unwrap(), "2a00:0:0:10ff::1");
        assert_eq!(address("2a00:0:0:1000::/56", 256), None);
        assert_eq!(address("2a00::/72", 0), None);
        assert_eq!(address("::/0", 0).unwrap(), "::1");
        assert_eq!(table(50), 246_000_050);
        assert_eq!(table(u32::MAX), u32::MAX);
    }
}
