//! The return route, as a broker sees it: does the router before us send the clients' addresses to us?
//!
//! A ping goes to the next hop with a client's address for its source. Where the router has the route, its answer comes to this
//! machine, though not for it: only a packet socket sees it. Where it takes the address for one on its own link it asks for the
//! neighbour instead (RFC 4861 section 7.2.2), in vain unless we answer for it.

use super::check::Findings;
use super::patient::Patient;
use super::through::Pinger;
use caps::Capability;
use netlink_packet_route::route::RouteType;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_millis(1500);
const IPV6: usize = 40;
const ICMPV6: u8 = 58;
const ECHO_REPLY: u8 = 129;
const NEIGHBOUR_SOLICITATION: u8 = 135;

/// What was seen of the router's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    reply: bool,
    /// It asked on the link who has the address.
    asked: bool,
}

/// Looks at a packet: is it an answer to `client`, or does somebody look for it on the link?
fn look(packet: &[u8], client: Ipv6Addr, seen: &mut Seen) {
    let Some(header) = packet.first_chunk::<IPV6>() else { return };
    if header[6] != ICMPV6 {
        return;
    }
    match packet.get(IPV6) {
        Some(&ECHO_REPLY) if header[24..40] == client.octets() => seen.reply = true,
        // Type, code, checksum, reserved; then the target.
        Some(&NEIGHBOUR_SOLICITATION) if packet.get(IPV6 + 8..IPV6 + 24) == Some(&client.octets()[..]) => {
            seen.asked = true;
        }
        _ => {}
    }
}

fn watch(client: Ipv6Addr, router: Ipv6Addr) -> anyhow::Result<Seen> {
    let packets =
        socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthIpv6)?;
    setsockopt(&packets, ReceiveTimeout, &TimeVal::milliseconds(100))?;
    let pinger = Pinger::new(Some(client))?;
    let (mut seen, until) = (Seen::default(), Instant::now() + PATIENCE);
    let mut buffer = [0; 2048];
    pinger.send(router, 64, 1)?;
    while Instant::now() < until && !seen.reply {
        if let Ok((len, _)) = recvfrom::<LinkAddr>(packets.as_raw_fd(), &mut buffer) {
            look(&buffer[..len], client, &mut seen);
        }
    }
    Ok(seen)
}

/// An address of the pool that no client has at the moment: the last one there is.
fn of_pool(patient: &Patient) -> Option<Ipv6Addr> {
    let broker = patient.broker.as_ref()?;
    broker.pools.values().flat_map(|p| p.ranges.iter()).map(|r| r.last).next_back()
}

pub(super) fn check(patient: &Patient, found: &mut Findings) {
    if !Patient::may(Capability::CAP_NET_RAW) || !Patient::may(Capability::CAP_NET_ADMIN) {
        return found.skip("pings with a client's address are for root to send");
    }
    let Some(client) = of_pool(patient) else { return found.skip("there is no pool") };
    let defaults = patient.picture.routes.iter().filter(|r| r.to.is_ipv6() && r.len == 0);
    let router = defaults.filter(|r| r.kind == RouteType::Unicast).find_map(|r| match r.gateway {
        // A link-local one answers to the link only, whatever it routes.
        Some(IpAddr::V6(g)) if (g.segments()[0] & 0xffc0) != 0xfe80 => Some(g),
        _ => None,
    });
    let Some(router) = router else {
        return found.skip("the router before this machine is known by a link-local address only; ping from a client instead: ferry6 doctor client");
    };
    let proxy = patient.broker.as_ref().and_then(|b| b.proxy_ndp.clone());
    let seen = match watch(client, router) {
        Ok(seen) => seen,
        Err(error) => return found.skip(format!("no ping can be sent from {client}: {error:#}")),
    };
    let pool = patient.running().and_then(|s| s.broker.as_ref()).map(|b| b.routes.join(", "));
    let pool = pool.unwrap_or_else(|| client.to_string());
    if seen.reply {
        found.ok(format!("{router} sends what is for {client}, a client's address, to this machine"));
    } else if seen.asked && proxy.is_some() {
        found.ok(format!(
            "{router} takes {pool} for on-link, and proxy_ndp answers for those that are leased"
        ));
    } else if seen.asked {
        found.fail(
            format!("{router} looks for {client}, a client's address, on its own link: it has no route to {pool}"),
            format!("a route there: ip -6 route add {pool} via THIS-MACHINE; or, if that cannot be, tunnel.proxy_ndp = \"INTERFACE\" here"),
        );
    } else {
        found.fail(
            format!("{router} does not send what is for {client}, a client's address, to this machine"),
            format!("it needs a route to {pool} through this machine, and its firewall must let it pass; if it answers no pings at all: \
                     ferry6 doctor client tells from the other side"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x1ff);

    fn packet(to: Ipv6Addr, icmp: &[u8]) -> Vec<u8> {
        let mut octets = vec![0; IPV6];
        octets[6] = ICMPV6;
        octets[24..40].copy_from_slice(&to.octets());
        octets.extend_from_slice(icmp);
        octets
    }

    #[test]
    fn answers_and_neighbour_solicitations() {
        let seen = |packet: &[u8]| {
            let mut seen = Seen::default();
            look(packet, CLIENT, &mut seen);
            (seen.reply, seen.asked)
        };
        assert_eq!(seen(&packet(CLIENT, &[ECHO_REPLY, 0, 0, 0])), (true, false));
        assert_eq!(seen(&packet(Ipv6Addr::LOCALHOST, &[ECHO_REPLY, 0, 0, 0])), (false, false));
        let mut ns = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        ns.extend_from_slice(&CLIENT.octets());
        let solicitation = packet(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x1ff), &ns);
        assert_eq!(seen(&solicitation), (false, true));
        assert!((0..solicitation.len()).all(|len| seen(&solicitation[..len]) == (false, false)));
    }
}
