//! Another VPN in the way: tunnels that take the default route, IPsec of the kernel, another IKE daemon.

use super::check::Findings;
use super::patient::Patient;
use super::processes;
use crate::net::picture::{AnyRoute, Link};
use netlink_packet_route::route::RouteType;
use std::process::{Command, Stdio};

/// Kinds of devices that carry traffic elsewhere.
const TUNNELS: &[&str] =
    &["tun", "wireguard", "ppp", "xfrm", "vti", "vti6", "ipip", "ip6tnl", "sit", "gre", "ip6gre", "gtp"];
/// Programs that speak IKE.
const IKE_DAEMONS: &[&str] =
    &["charon", "charon-systemd", "charon-nm", "iked", "pluto", "racoon", "strongswan"];
/// Nearly all: the two halves of the Internet are as good as a default route.
const NEARLY_ALL: u8 = 3;

/// Whether a link is a tunnel of somebody else. WireGuard in userspace and OpenVPN are TUN devices.
pub(super) fn is_foreign_tunnel(patient: &Patient, link: &Link) -> bool {
    let kind = link.kind.as_deref().unwrap_or_default();
    let ours = patient.running().is_some_and(|s| s.router.tun == link.name) || link.name.starts_with("ferry");
    // PPP to the provider is how many homes reach the Internet: hardware, as it were. It counts where something else does, too.
    !ours && (TUNNELS.contains(&kind) || (link.point_to_point && !link.name.starts_with("ppp")))
}

/// Routes that take all or nearly all of a family's traffic.
pub(super) fn is_default_like(route: &AnyRoute) -> bool {
    route.len <= NEARLY_ALL && route.kind == RouteType::Unicast
}

pub(super) fn check(patient: &Patient, found: &mut Findings) {
    for link in patient.picture.links.iter().filter(|l| l.up && is_foreign_tunnel(patient, l)) {
        let routes = patient.picture.routes.iter().filter(|r| r.interface == Some(link.index));
        let defaults: Vec<&AnyRoute> = routes.filter(|r| is_default_like(r)).collect();
        for (v6, family) in [(true, "IPv6"), (false, "IPv4")] {
            let of_family = defaults.iter().filter(|r| r.to.is_ipv6() == v6).map(|r| r.destination());
            let list: Vec<String> = of_family.collect();
            if list.is_empty() {
                continue;
            }
            let what = if v6 {
                "it takes the IPv6 traffic that is meant for ferry6"
            } else {
                "ferry6's own packets go into it; that works if the broker is reachable through it"
            };
            found.warn(
                format!(
                    "{} ({}) holds the {family} routes {}: {what}",
                    link.name,
                    link.kind.as_deref().unwrap_or("point to point"),
                    list.join(", ")
                ),
                format!("end that VPN, or give it AllowedIPs or routes without {family} default"),
            );
        }
    }
    let own = patient.running().map(|s| s.pid);
    let daemons: Vec<String> = processes::neighbours()
        .into_iter()
        .filter(|p| Some(p.pid) != own && IKE_DAEMONS.contains(&p.name.as_str()))
        .map(|p| p.to_string())
        .collect();
    if !daemons.is_empty() {
        found.warn(
            format!("another IKE daemon runs: {}", daemons.join(", ")),
            "two can share a machine only on different ports or addresses (see the check ports); stop it where it is not needed",
        );
    }
    policies(found);
    if found.is_empty() {
        found.ok("none in the way");
    }
}

/// IPsec policies of the kernel act on packets before they reach our device, and on ESP in UDP before it reaches our socket.
fn policies(found: &mut Findings) {
    let output = Command::new("ip").args(["-o", "xfrm", "policy"]).stdin(Stdio::null()).output();
    let Ok(output) = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()) else {
        return;
    };
    let list = policy_selectors(&output);
    if !list.is_empty() {
        found.warn(
            format!("the kernel has IPsec policies of another program: {}", list.join("; ")),
            "ip xfrm policy shows them; left over by a daemon that was killed, they go by: ip xfrm policy flush",
        );
    }
}

/// The first lines of `ip xfrm policy`, but for those that let IKE itself pass on a socket.
fn policy_selectors(text: &str) -> Vec<String> {
    let mut list: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with("src ") && !line.contains("socket "))
        .map(|line| line.split('\\').next().unwrap_or_default().trim().to_owned())
        .collect();
    list.dedup();
    list.truncate(4);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_the_kernel() {
        let text = "src 2a00::101/128 dst ::/0 \\\tdir out priority 0 \\\ttmpl src 1.2.3.4 dst 5.6.7.8\n\
                    src 0.0.0.0/0 dst 0.0.0.0/0 \\\tsocket in priority 0 \n";
        assert_eq!(policy_selectors(text), ["src 2a00::101/128 dst ::/0"]);
        assert!(policy_selectors("").is_empty());
    }
}
