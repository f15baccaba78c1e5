//! Which way packets go: rules, then routes.

use super::check::Findings;
use super::patient::Patient;
use super::vpn::{is_default_like, is_foreign_tunnel};
use crate::net::guard;
use crate::net::picture::Rule;
use netlink_packet_route::route::RouteType;
use std::net::{IpAddr, Ipv6Addr};

/// The rule that leads to the main table.
const MAIN_RULE: u32 = 32_766;
const MAIN: u32 = libc::RT_TABLE_MAIN as u32;
const LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;
/// Somewhere in the Internet, to see where a default route leads: addresses of the root servers' kind, never contacted.
const SOMEWHERE: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0x500, 0x2f, 0, 0, 0, 0, 0xf), Ipv6Addr::new(0x2a00, 0x1450, 0, 0, 0, 0, 0, 1)];

/// The IPv4 route to the broker: it must not lead into a tunnel by accident, and never into ours.
pub(super) fn to_broker(patient: &Patient, found: &mut Findings) {
    let Some(broker) = patient.broker_address() else { return found.skip("the broker has no IPv4 address") };
    let Some(route) = patient.route_to(broker) else {
        return found.fail(
            format!("there is no IPv4 route to the broker, {broker}"),
            "is the network up? ip -4 route must have a default route",
        );
    };
    let name = patient.picture.name(route.interface);
    let link = route.interface.and_then(|i| patient.picture.link(i));
    let via = route.gateway.map_or(String::new(), |g| format!(" via {g}"));
    if link.is_some_and(|l| is_foreign_tunnel(patient, l)) {
        found.warn(
            format!("the way to the broker, {broker}, leads into another VPN: {name}"),
            format!("if it is not meant: ip -4 route add {broker}/32 via YOUR-ROUTER"),
        );
    } else {
        found.ok(format!("{broker}{via} on {name}"));
    }
}

/// A rule that is asked before the main table, and takes packets away from it.
fn diverts<'a>(patient: &'a Patient, rule: &'a Rule, own: Option<u32>) -> Option<String> {
    if !rule.v6 || rule.priority >= MAIN_RULE || rule.table == LOCAL {
        return None;
    }
    if !rule.to_table {
        return Some(format!("rule {} ({}) ends there", rule.priority, or_all(&rule.selector)));
    }
    if rule.table == MAIN && rule.suppress.is_none() {
        return None;
    }
    let routes = patient.picture.routes.iter().filter(|r| r.to.is_ipv6() && r.table == rule.table);
    let taken = routes
        .filter(|r| is_default_like(r) && r.interface != own)
        .find(|r| rule.suppress.is_none_or(|len| u32::from(r.len) > len))?;
    Some(format!(
        "rule {} ({}) leads to table {}, whose route to {} goes to {}",
        rule.priority,
        or_all(&rule.selector),
        rule.table,
        taken.destination(),
        patient.picture.name(taken.interface)
    ))
}

fn or_all(selector: &str) -> &str {
    if selector.is_empty() { "all packets" } else { selector }
}

/// What belongs into the tunnel must go there.
pub(super) fn of_client(patient: &Patient, found: &mut Findings) {
    let own = patient.tun().map(|l| l.index);
    for rule in &patient.picture.rules {
        let Some(text) = diverts(patient, rule, own) else { continue };
        let hint = format!("ip -6 rule del priority {}, or end the VPN that set it", rule.priority);
        // A rule that asks for something may be meant for other packets; one for all but those (`not fwmark`, as wg-quick makes it)
        // is meant for ours.
        let all = rule.selector.is_empty() || rule.inverted;
        if all && patient.is_up() { found.fail(text, hint) } else { found.warn(text, hint) }
    }
    let Some(status) = patient.running().filter(|_| patient.is_up()) else {
        let other =
            patient.picture.routes.iter().find(|r| r.to.is_ipv6() && r.table == MAIN && is_default_like(r));
        return match other {
            Some(route) => found.ok(format!(
                "the tunnel is not up; IPv6 goes out on {} without it",
                patient.picture.name(route.interface)
            )),
            None => found.ok("the tunnel is not up, and nothing else has an IPv6 default route"),
        };
    };
    let wanted = status.client.as_ref().map(|c| c.routes.clone()).unwrap_or_default();
    if wanted.is_empty() {
        found.warn(
            "no route goes into the tunnel",
            "tunnel.default_route = false, or tunnel.routes is empty, or the broker allows too little (child.remote_ts)",
        );
    }
    let metric = patient.metric();
    let main: Vec<_> = patient.picture.routes.iter().filter(|r| r.to.is_ipv6() && r.table == MAIN).collect();
    for to in &wanted {
        let there = main.iter().any(|r| {
            r.interface == own && (format!("{}/{}", r.to, r.len) == *to || (r.len == 0 && to == "::/0"))
        });
        if !there {
            found.fail(
                format!("the route to {to} into the tunnel has gone"),
                "another program removed it (NetworkManager, a VPN): ferry6 down && ferry6 up",
            );
        }
    }
    if wanted.iter().any(|to| to == "::/0") {
        let others = main.iter().filter(|r| is_default_like(r) && r.interface != own);
        for route in others.filter(|r| r.len > 0 || r.metric <= metric) {
            let name = patient.picture.name(route.interface);
            let why = if route.len > 0 {
                "is more specific than the tunnel's default route".to_owned()
            } else {
                let better = if route.metric < metric { "better than" } else { "as good as" };
                format!("has metric {}, {better} the tunnel's {metric}", route.metric)
            };
            let to = route.destination();
            found.fail(
                format!("the IPv6 route to {to} on {name} {why}: traffic goes past the tunnel"),
                if route.len > 0 {
                    format!("ip -6 route del {to} dev {name}, or end the VPN that set it")
                } else {
                    format!(
                        "tunnel.metric below {}, or ip -6 route change default … metric 1024",
                        route.metric
                    )
                },
            );
        }
        if found.is_empty() {
            for address in SOMEWHERE {
                let route = patient.route_to(address);
                if route.as_ref().and_then(|r| r.interface) != own {
                    let name =
                        route.map_or_else(|| "nowhere".to_owned(), |r| patient.picture.name(r.interface));
                    found.fail(
                        format!(
                            "a packet to the Internet, to {address}, goes to {name} and not into the tunnel"
                        ),
                        format!("ip -6 route get {address}; ip -6 rule; ip -6 route show table all"),
                    );
                    break;
                }
            }
        }
    }
    if found.is_empty() {
        found.ok(format!("{} into the tunnel", wanted.join(", ")));
    }
}

/// Routes of the guard that keep IPv6 in while there is no tunnel.
pub(super) fn leak_guard(patient: &Patient, found: &mut Findings) {
    let routes = match patient.runtime.block_on(patient.net.guard_routes()) {
        Ok(routes) => routes,
        Err(error) => return found.skip(format!("{error:#}")),
    };
    let list = routes.iter().map(|r| r.to.to_string()).collect::<Vec<_>>().join(", ");
    let configured = patient.client.as_ref().is_some_and(|c| c.leak_guard);
    let metric = guard::metric(patient.metric());
    if routes.is_empty() {
        found.ok(if configured { "it is on in the configuration, and open now" } else { "off" });
    } else if patient.is_up() {
        let behind = routes.iter().any(|r| r.metric < metric);
        if behind {
            found.warn(
                format!("an older guard stands before the tunnel's routes: {list} is unreachable"),
                "ferry6 down && ferry6 up; or ip -6 route del unreachable default",
            );
        } else {
            found.ok(format!("{list} unreachable but through the tunnel, which is up"));
        }
    } else if patient.running().is_some() {
        found.warn(
            format!("there is no tunnel, and so {list} is unreachable, as tunnel.leak_guard wants it"),
            "ferry6 down opens it until the next ferry6 up",
        );
    } else {
        found.fail(
            format!("no client runs, and its leak guard stands: {list} is unreachable"),
            "ferry6 client up NAME, or ferry6 down to open it",
        );
    }
}

/// A broker: the clients' addresses must lead into its device.
pub(super) fn of_pool(patient: &Patient, found: &mut Findings) {
    let Some(status) = patient.running() else { return found.skip("the daemon does not run") };
    let own = patient.tun().map(|l| l.index);
    let routes = status.broker.as_ref().map(|b| b.routes.clone()).unwrap_or_default();
    for to in &routes {
        let Ok(prefix) = to.parse::<ferry6_ike::Prefix6>() else { continue };
        let first = IpAddr::V6(prefix.last());
        let here = patient.picture.routes.iter().any(|r| {
            r.table == MAIN && r.to == IpAddr::V6(prefix.address) && r.len == prefix.len && r.interface == own
        });
        let taken = patient.route_to(first);
        if !here {
            found.fail(
                format!("the route to {to} into the device has gone"),
                "restart the broker; who removed it?",
            );
        } else if taken.as_ref().is_none_or(|r| r.interface != own && r.kind != RouteType::Local) {
            let name = taken.map_or_else(|| "nowhere".to_owned(), |r| patient.picture.name(r.interface));
            found.fail(
                format!("packets to {first}, a client's address, go to {name}"),
                "a more specific route or a rule comes before: ip -6 route get, ip -6 rule",
            );
        }
    }
    for rule in &patient.picture.rules {
        if let Some(text) = diverts(patient, rule, own) {
            found.warn(
                text,
                format!("ip -6 rule del priority {}, unless it is meant for other packets", rule.priority),
            );
        }
    }
    if found.is_empty() {
        found.ok(format!("{} into the device", routes.join(", ")));
    }
}
