//! What the kernel says of this machine's network, for those who look for a fault: links, addresses, routes of all tables and
//! policy rules of both families.

use super::{Net, explain};
use futures_util::TryStreamExt as _;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// `tun`, `wireguard`, `veth`; nothing for hardware.
    pub kind: Option<String>,
    /// MTU.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Whether it has one peer only, as tunnels and PPP have.
    pub point_to_point: bool,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Interface.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Duplicate address detection goes on.
    pub tentative: bool,
    /// It found a duplicate.
    pub duplicate: bool,
    /// No new connection takes it for its source (RFC 4862 section 5.5.4).
    pub deprecated: bool,
    /// Seconds for which it stays preferred; `u32::MAX` is for ever.
    pub preferred: u32,
}

/// A route of any table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyRoute {
    /// Destination.
    pub to: IpAddr,
    /// Its prefix length.
    pub len: u8,
    /// Table.
    pub table: u32,
    /// Kind.
    pub kind: RouteType,
    /// Outgoing interface.
    pub interface: Option<u32>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// The source address that goes with it.
    pub source: Option<IpAddr>,
    /// Metric.
    pub metric: u32,
}

impl AnyRoute {
    /// `default` or `2a00::/32`.
    pub fn destination(&self) -> String {
        if self.len == 0 { "default".to_owned() } else { format!("{}/{}", self.to, self.len) }
    }
}

/// A policy rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether it is for IPv6.
    pub v6: bool,
    /// Lower ones are asked first; the main table has 32766.
    pub priority: u32,
    /// The table it leads to.
    pub table: u32,
    /// Whether it leads to a table, and not to an end.
    pub to_table: bool,
    /// What it asks for, as `ip rule` writes it; empty for all packets.
    pub selector: String,
    /// It is for all packets but those that the selector fits.
    pub inverted: bool,
    /// Routes of the table with at most this prefix length are passed over.
    pub suppress: Option<u32>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Interfaces.
    pub links: Vec<Link>,
    /// Addresses.
    pub addresses: Vec<Address>,
    /// Routes.
    pub routes: Vec<AnyRoute>,
    /// Rules, in the order in which they are asked.
    pub rules: Vec<Rule>,
}

impl Picture {
    /// The interface of this index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|l| l.index == index)
    }

    /// Its name, or its number where it has gone.
    pub fn name(&self, index: Option<u32>) -> String {
        match index {
            None => "no interface".to_owned(),
            Some(index) => self.link(index).map_or_else(|| format!("interface {index}"), |l| l.name.clone()),
        }
    }
}

impl Net {
    /// Looks at everything.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn picture(&self) -> anyhow::Result<Picture> {
        let mut picture = Picture::default();
        let mut links = self.handle.link().get().execute();
        while let Some(message) = links.try_next().await.map_err(explain)? {
            let mut link = Link {
                index: message.header.index,
                name: String::new(),
                kind: None,
                mtu: 0,
                up: message.header.flags.contains(LinkFlags::Up),
                point_to_point: message.header.flags.contains(LinkFlags::Pointopoint),
            };
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                    LinkAttribute::LinkInfo(list) => {
                        link.kind = list.into_iter().find_map(|info| match info {
                            LinkInfo::Kind(kind) => Some(kind.to_string()),
                            _ => None,
                        });
                    }
                    _ => {}
                }
            }
            picture.links.push(link);
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.map_err(explain)? {
            let mut flags = message.header.flags;
            let (mut found, mut preferred, mut more) = (None, u32::MAX, AddressFlags::empty());
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Address(address) => found = Some(*address),
                    AddressAttribute::CacheInfo(info) => preferred = info.ifa_preferred,
                    AddressAttribute::Flags(all) => more = *all,
                    _ => {}
                }
            }
            flags |= AddressHeaderFlags::from_bits_truncate(more.bits() as u8);
            picture.addresses.extend(found.map(|address| Address {
                interface: message.header.index,
                address,
                tentative: flags.contains(AddressHeaderFlags::Tentative),
                duplicate: flags.contains(AddressHeaderFlags::Dadfailed),
                deprecated: flags.contains(AddressHeaderFlags::Deprecated) || preferred == 0,
                preferred,
            }));
        }
        let families =
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for message in families {
            let v6 = message.header.address_family == netlink_packet_route::AddressFamily::Inet6;
            let mut routes = self.handle.route().get(message).execute();
            while let Some(message) = routes.try_next().await.map_err(explain)? {
                picture.routes.push(route(&message, v6));
            }
        }
        for (version, v6) in [(IpVersion::V4, false), (IpVersion::V6, true)] {
            let mut rules = self.handle.rule().get(version).execute();
            while let Some(message) = rules.try_next().await.map_err(explain)? {
                picture.rules.push(rule(&message, v6));
            }
        }
        picture.rules.sort_by_key(|r| r.priority);
        Ok(picture)
    }

    /// The route that a packet to this address takes; `None` where there is none.
    pub async fn route_to(&self, address: IpAddr) -> Option<AnyRoute> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let message = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, bits).ok()?;
        let found = self.handle.route().get(message.build()).execute().try_next().await.ok()??;
        Some(route(&found, !address.is_ipv4()))
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

fn route(message: &RouteMessage, v6: bool) -> AnyRoute {
    let any = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let mut route = AnyRoute {
        to: any,
        len: message.header.destination_prefix_length,
        table: message.header.table.into(),
        kind: message.header.kind,
        interface: None,
        gateway: None,
        source: None,
        metric: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => route.to = ip(address).unwrap_or(any),
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Oif(index) => route.interface = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::MultiPath(hops) if route.interface.is_none() => {
                route.interface = hops.first().map(|hop| hop.interface_index);
            }
            _ => {}
        }
    }
    route
}

fn rule(message: &RuleMessage, v6: bool) -> Rule {
    let mut rule = Rule {
        v6,
        priority: 0,
        table: message.header.table.into(),
        to_table: message.header.action == RuleAction::ToTable,
        selector: String::new(),
        inverted: message.header.flags.contains(RuleFlags::Invert),
        suppress: None,
    };
    let mut selector = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::SuppressPrefixLen(len) if *len != u32::MAX => rule.suppress = Some(*len),
            RuleAttribute::Source(address) => {
                selector.push(format!("from {address}/{}", message.header.src_len));
            }
            RuleAttribute::Destination(address) => {
                selector.push(format!("to {address}/{}", message.header.dst_len));
            }
            RuleAttribute::Iifname(name) => selector.push(format!("iif {name}")),
            RuleAttribute::Oifname(name) => selector.push(format!("oif {name}")),
            RuleAttribute::FwMark(mark) => selector.push(format!("fwmark {mark:#x}")),
            RuleAttribute::UidRange(range) => {
                selector.push(format!("uidrange {}-{}", range.start, range.end))
            }
            RuleAttribute::IpProtocol(protocol) => selector.push(format!("ipproto {protocol:?}")),
            _ => {}
        }
    }
    rule.selector = selector.join(" ");
    if rule.inverted {
        rule.selector.insert_str(0, "not ");
    }
    rule
}
