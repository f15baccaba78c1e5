//! The broker's address: A records only. The name may well have AAAA records, but IPv6 is what the tunnel is there to
//! bring, so they are not even asked for.

use crate::config::values::Host;
use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The IPv4 addresses of a host, in the resolver's order, without doubles.
///
/// # Errors
/// The name, the cause, and what to do.
pub async fn ipv4(host: &Host) -> Result<Vec<Ipv4Addr>, String> {
    let name = match host {
        Host::Address(address) => return Ok(vec![*address]),
        Host::Name(name) => name.clone(),
    };
    let shown = name.clone();
    let lookup = tokio::task::spawn_blocking(move || lookup(&name));
    match tokio::time::timeout(PATIENCE, lookup).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(format!("the resolver failed on {shown}")),
        Err(_) => Err(format!("no answer from the resolver about {shown} within {} s", PATIENCE.as_secs())),
    }
}

fn lookup(name: &str) -> Result<Vec<Ipv4Addr>, String> {
    let hints = AddrInfoHints {
        address: libc::AF_INET,
        socktype: SockType::DGram.into(),
        ..AddrInfoHints::default()
    };
    let found = getaddrinfo(Some(name), None, Some(hints)).map_err(|e| match e.kind() {
        LookupErrorKind::NoName | LookupErrorKind::NoData => {
            format!("{name} has no IPv4 address (A record) in DNS")
        }
        LookupErrorKind::Again => format!("the name {name} cannot be resolved now: no resolver answers"),
        _ => format!("the name {name} cannot be resolved: {}", std::io::Error::from(e)),
    })?;
    let mut list = Vec::new();
    for entry in found.flatten() {
        if let SocketAddr::V4(address) = entry.sockaddr
            && !list.contains(address.ip())
        {
            list.push(*address.ip());
        }
    }
    if list.is_empty() { Err(format!("{name} has no IPv4 address (A record) in DNS")) } else { Ok(list) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn address_needs_no_resolver() {
        let address = Ipv4Addr::new(5, 6, 7, 8);
        assert_eq!(ipv4(&Host::Address(address)).await, Ok(vec![address]));
    }

    #[tokio::test]
    async fn localhost_is_ipv4_only() {
        assert_eq!(ipv4(&Host::Name("localhost".into())).await, Ok(vec![Ipv4Addr::LOCALHOST]));
    }

    #[tokio::test]
    async fn a_name_that_is_not_there() {
        // RFC 6761: .invalid never resolves; whether a resolver answers at all depends on the machine.
        let error = ipv4(&Host::Name("broker.invalid".into())).await.unwrap_err();
        assert!(error.contains("broker.invalid"), "{error}");
    }
}
