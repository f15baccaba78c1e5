//! The client's address in the tunnel.

use super::check::Findings;
use super::patient::Patient;
use std::net::IpAddr;

pub(super) fn check(patient: &Patient, found: &mut Findings) {
    let Some(status) = patient.running() else { return found.skip("the daemon does not run") };
    let Some(tun) = patient.tun() else { return found.skip("there is no tunnel device") };
    let Some(address) = status.client.as_ref().and_then(|c| c.address) else {
        return found.skip("the tunnel has no address");
    };
    let all = &patient.picture.addresses;
    let Some(entry) = all.iter().find(|a| a.interface == tun.index && a.address == IpAddr::V6(address))
    else {
        return found.fail(
            format!("the broker gave {address}, but {} does not have it", tun.name),
            "somebody took it off (NetworkManager, disable_ipv6): ferry6 down && ferry6 up",
        );
    };
    let renew =
        format!("ip address change {address}/128 dev {} preferred_lft forever valid_lft forever", tun.name);
    if entry.duplicate {
        found.fail(
            format!("{address} is a duplicate (dadfailed): it is not used"),
            "who else has it on this machine?",
        );
    } else if entry.tentative {
        found.warn(format!("{address} is tentative: it is not used yet"), "wait a second, and look again");
    } else if entry.deprecated {
        found.fail(format!("{address} is deprecated: new connections take another source, or IPv4"), renew);
    } else if entry.preferred != u32::MAX {
        found.warn(format!("{address} is deprecated in {} s", entry.preferred), renew);
    } else {
        found.ok(format!("{address} on {}, preferred for ever", tun.name));
    }
    let elsewhere = all.iter().filter(|a| a.address == IpAddr::V6(address) && a.interface != tun.index);
    for other in elsewhere {
        let name = patient.picture.name(Some(other.interface));
        found.warn(format!("{name} has {address} as well"), format!("ip address del {address} dev {name}"));
    }
}
