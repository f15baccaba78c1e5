//! The broker's name: it must have an IPv4 address, because IPv6 is what is not there yet.

use super::check::Findings;
use super::patient::Patient;
use crate::config::values::Host;
use dns_lookup::{AddrInfoHints, SockType, getaddrinfo};
use std::net::{IpAddr, Ipv6Addr};

/// The IPv6 addresses of a name, or none.
pub(super) fn ipv6(name: &str) -> Vec<Ipv6Addr> {
    let hints = AddrInfoHints {
        address: libc::AF_INET6,
        socktype: SockType::DGram.into(),
        ..AddrInfoHints::default()
    };
    let Ok(found) = getaddrinfo(Some(name), None, Some(hints)) else { return Vec::new() };
    let mut list: Vec<Ipv6Addr> = found
        .flatten()
        .filter_map(|entry| match entry.sockaddr.ip() {
            IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => Some(address),
            _ => None,
        })
        .collect();
    list.dedup();
    list
}

pub(super) fn check(patient: &Patient, found: &mut Findings) {
    let name = match patient.broker_host() {
        None => return found.skip("the configuration names no broker"),
        Some(Host::Address(address)) => {
            return found.ok(format!("the broker is named by its address, {address}"));
        }
        Some(Host::Name(name)) => name,
    };
    let list = match &patient.broker_addresses {
        Ok(list) => list,
        Err(error) => {
            let other = ipv6(&name);
            return if other.is_empty() {
                found.fail(
                    error.clone(),
                    "is the name right (broker.address)? Does /etc/resolv.conf name a resolver that is reachable over IPv4?",
                );
            } else {
                found.fail(
                    format!("{name} has no IPv4 address, only IPv6: {}", other[0]),
                    "the tunnel runs over IPv4: the name needs an A record, or set broker.address to the IPv4 address",
                );
            };
        }
    };
    let shown: Vec<String> = list.iter().map(ToString::to_string).collect();
    let used = patient.running().and_then(|s| s.client.as_ref()?.broker_address);
    if let Some(used) = used.filter(|used| !list.contains(used)) {
        found.warn(
            format!("{name} is {} now, and the daemon uses {used}", shown.join(", ")),
            "if the broker moved: ferry6 down && ferry6 up",
        );
    } else if list.len() > 1 {
        found.ok(format!("{name} is {}; they are tried in turn", shown.join(", ")));
    } else {
        found.ok(format!("{name} is {}", shown.join(", ")));
    }
}
