//! The prefix that is routed to a client, and the networks behind it (router mode).

use super::check::Findings;
use super::patient::Patient;
use super::processes;
use crate::net::sysctl;
use ferry6_ike::config::PrefixWish;

/// Programs that send router advertisements.
const ADVERTISERS: &[&str] =
    &["radvd", "dnsmasq", "odhcpd", "zebra", "bird", "rad", "systemd-network", "corerad", "wide-dhcpv6-se"];

pub(super) fn check(patient: &Patient, found: &mut Findings) {
    let Some(client) = &patient.client else { return found.skip("the configuration has a fault") };
    if client.connection.addresses.prefix_wish() == PrefixWish::None {
        return found.ok("no prefix is asked for");
    }
    let Some(status) = patient.running().and_then(|s| s.client.as_ref()) else {
        return found.skip("no client runs");
    };
    let Some(prefix) = &status.prefix else {
        if patient.is_up() {
            found.fail(
                "the tunnel is up, and the broker routes no prefix to us",
                "there: ferry6 broker set NAME --prefix auto; or leave tunnel.prefix and tunnel.lan away here",
            );
        } else {
            found.skip("there is no tunnel, and so no prefix");
        }
        return;
    };
    for lan in &status.lan {
        match lan.address {
            None => found.fail(
                format!("{prefix} has no network of 64 bits for {}", lan.interface),
                "name fewer interfaces in tunnel.lan, or ask the broker's operator for a shorter prefix, like /56",
            ),
            Some(address) if lan.missing => found.fail(
                format!(
                    "{} should have {address}/64, and has not: {}",
                    lan.interface,
                    lan.reason.as_deref().unwrap_or("no cause is known")
                ),
                format!("ip link show {}: is it there, and up? Is its name right in tunnel.lan?", lan.interface),
            ),
            Some(address) => {
                let link = patient.picture.links.iter().find(|l| l.name == lan.interface);
                if link.is_some_and(|l| l.up) {
                    found.ok(format!("{} {address}/64 of {prefix}", lan.interface));
                } else {
                    found.fail(
                        format!("{} is down", lan.interface),
                        format!("ip link set {} up, and look at its cable", lan.interface),
                    );
                }
            }
        }
    }
    if status.lan.is_empty() {
        return found.ok(format!("{prefix} is routed to this machine"));
    }
    if !sysctl::is_forwarding() {
        found.fail(
            "IPv6 forwarding is off: the networks behind this machine reach nothing",
            "sysctl -w net.ipv6.conf.all.forwarding=1, and find who switched it off",
        );
    }
    let advertisers = processes::neighbours();
    match advertisers.iter().find(|p| ADVERTISERS.contains(&p.name.as_str())) {
        Some(process) => found.ok(format!("{process} may send router advertisements")),
        None => found.warn(
            "no program is known to send router advertisements here: hosts behind have no address by themselves",
            "apt install radvd; ferry6 client radvd NAME > /etc/radvd.conf; systemctl restart radvd",
        ),
    }
}
