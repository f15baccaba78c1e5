//! A broker forwards: between its device and the network that has IPv6.

use super::check::Findings;
use super::patient::{Patient, sysctl};
use caps::Capability;
use netlink_packet_route::route::RouteType;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Command, Stdio};

pub(super) fn forwarding(patient: &Patient, found: &mut Findings) {
    let on = |name: &str| sysctl(&format!("net/ipv6/conf/{name}/forwarding")).is_some_and(|v| v != 0);
    let hint = "sysctl -w net.ipv6.conf.all.forwarding=1 (and in /etc/sysctl.d); the broker does it by itself unless tunnel.forwarding \
                = false";
    if !on("all") {
        if patient.running().is_none() && patient.broker.as_ref().is_none_or(|b| b.forwarding) {
            return found.ok("IPv6 forwarding is off; the broker switches it on when it starts");
        }
        return found.fail("IPv6 forwarding is off: clients reach this machine and nothing else", hint);
    }
    let tun = patient.tun().map(|l| l.name.clone());
    let interfaces = uplinks(patient).into_iter().map(|i| patient.picture.name(Some(i))).chain(tun);
    for name in interfaces {
        if !on(&name) {
            found.fail(
                format!("IPv6 forwarding is off on {name}"),
                format!("sysctl -w net.ipv6.conf.{name}.forwarding=1"),
            );
        }
    }
    if found.is_empty() {
        found.ok("IPv6 forwarding is on");
    }
}

/// The interfaces with an IPv6 default route.
fn uplinks(patient: &Patient) -> BTreeSet<u32> {
    let defaults = patient
        .picture
        .routes
        .iter()
        .filter(|r| r.to.is_ipv6() && r.len == 0 && r.kind == RouteType::Unicast && r.gateway.is_some());
    defaults.filter_map(|r| r.interface).collect()
}

/// Strict reverse path filtering drops what comes in on one uplink while the way back leads out on another.
pub(super) fn rp_filter(patient: &Patient, found: &mut Findings) {
    let all = sysctl("net/ipv4/conf/all/rp_filter").unwrap_or(0);
    let defaults =
        patient.picture.routes.iter().filter(|r| {
            r.to.is_ipv4() && r.len == 0 && r.kind == RouteType::Unicast && r.interface.is_some()
        });
    let interfaces: BTreeSet<u32> = defaults.filter_map(|r| r.interface).collect();
    if interfaces.len() < 2 {
        return found.ok("one IPv4 uplink: nothing can come in by another way");
    }
    for index in &interfaces {
        let name = patient.picture.name(Some(*index));
        let own = sysctl(&format!("net/ipv4/conf/{name}/rp_filter")).unwrap_or(0);
        // The larger of the two counts: 1 is strict, 2 is loose.
        if all.max(own) == 1 {
            found.warn(
                format!("rp_filter is strict on {name}, one of several IPv4 uplinks: clients that come in there are dropped"),
                format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2"),
            );
        }
    }
    if found.is_empty() {
        found.ok(format!("{} IPv4 uplinks, none filters by the way back", interfaces.len()));
    }
}

/// Chains of nftables (and of iptables-nft) that drop what is forwarded or comes in, unless a rule says otherwise.
pub(super) fn firewall(_patient: &Patient, found: &mut Findings) {
    if !Patient::may(Capability::CAP_NET_ADMIN) {
        return found.skip("the firewall is for root to read");
    }
    let output = ["nft", "/usr/sbin/nft", "/sbin/nft"].iter().find_map(|program| {
        Command::new(program).args(["-j", "list", "chains"]).stdin(Stdio::null()).output().ok()
    });
    let Some(output) = output.filter(|o| o.status.success()) else {
        return found.skip("nft is not installed, or this kernel has no nf_tables");
    };
    for (family, table, chain, hook) in dropping(&output.stdout) {
        let rule = if hook == "forward" {
            "iifname \"ferry*\" accept and oifname \"ferry*\" accept"
        } else {
            "udp dport { 500, 4500 } accept"
        };
        found.warn(
            format!("the chain {family} {table} {chain} drops what no rule of it accepts ({hook})"),
            format!("it needs: {rule}; see nft list chain {family} {table} {chain}"),
        );
    }
    if found.is_empty() {
        found.ok("no chain drops by its policy what is forwarded or comes in");
    }
}

/// Base chains of hook forward or input with policy drop, of families that see IPv6 (forward) or IPv4 (input).
fn dropping(json: &[u8]) -> Vec<(String, String, String, String)> {
    let value: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let chains = value["nftables"].as_array().cloned().unwrap_or_default();
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    chains
        .iter()
        .map(|entry| &entry["chain"])
        .filter(|chain| chain["policy"] == "drop")
        .filter(|chain| {
            let (family, hook) = (text(&chain["family"]), text(&chain["hook"]));
            match hook.as_str() {
                "forward" => matches!(family.as_str(), "ip6" | "inet"),
                "input" => matches!(family.as_str(), "ip" | "inet"),
                _ => false,
            }
        })
        .map(|c| (text(&c["family"]), text(&c["table"]), text(&c["name"]), text(&c["hook"])))
        .collect()
}

/// A broker has IPv6 itself: an address, and a default route that forwarding does not take away.
pub(super) fn uplink(patient: &Patient, found: &mut Findings) {
    let uplinks = uplinks(patient);
    if uplinks.is_empty() {
        return found.fail(
            "this machine has no IPv6 default route: there is nothing to forward to",
            "set one: ip -6 route add default via YOUR-ROUTER; if it came by router advertisements and went away with forwarding: \
             sysctl -w net.ipv6.conf.IFACE.accept_ra=2",
        );
    }
    for index in &uplinks {
        let name = patient.picture.name(Some(*index));
        let global = patient.picture.addresses.iter().any(|a| {
            a.interface == *index && matches!(a.address, IpAddr::V6(a6) if (a6.segments()[0] & 0xe000) == 0x2000 || (a6.segments()[0] & 0xfe00) == 0xfc00)
        });
        let ra = sysctl(&format!("net/ipv6/conf/{name}/accept_ra")).unwrap_or(0);
        let forwards = sysctl("net/ipv6/conf/all/forwarding").is_some_and(|v| v != 0);
        let by_ra = patient.picture.routes.iter().any(|r| {
            r.to.is_ipv6()
                && r.len == 0
                && r.interface == Some(*index)
                && r.metric == 1024
                && matches!(r.gateway, Some(IpAddr::V6(g)) if (g.segments()[0] & 0xffc0) == 0xfe80)
        });
        if by_ra && forwards && ra < 2 {
            found.warn(
                format!("{name} forwards, and so takes no router advertisements (accept_ra = {ra}): its default route will expire if one made it"),
                format!("sysctl -w net.ipv6.conf.{name}.accept_ra=2"),
            );
        }
        if !global {
            found.warn(
                format!("{name} has the IPv6 default route, but no global address"),
                "it forwards all the same; what it sends itself (ICMPv6 errors) has a source that is of no use",
            );
        }
        if let Some(link) = patient.picture.link(*index)
            && link.mtu < 1280
        {
            found.fail(
                format!("{name} has MTU {}, below what IPv6 needs (1280)", link.mtu),
                format!("ip link set {name} mtu 1500"),
            );
        }
    }
    if found.is_empty() {
        let names: Vec<String> = uplinks.iter().map(|i| patient.picture.name(Some(*i))).collect();
        found.ok(format!("IPv6 default route on {}", names.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_with_policy_drop() {
        let json = br#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "inet", "table": "filter", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "inet", "table": "filter", "name": "output", "type": "filter", "hook": "output", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "forward", "hook": "forward", "policy": "accept"}},
            {"chain": {"family": "ip", "table": "filter", "name": "input", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "extra"}}]}"#;
        let names: Vec<String> = dropping(json).into_iter().map(|(f, _, c, _)| format!("{f} {c}")).collect();
        assert_eq!(names, ["inet forward", "ip input"]);
        assert!(dropping(b"nonsense").is_empty());
    }
}
