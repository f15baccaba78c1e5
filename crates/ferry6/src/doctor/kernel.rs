//! What the kernel must give: the TUN device, rights, IPv6, and what holds the daemon.

use super::check::Findings;
use super::patient::{Patient, sysctl};
use crate::sandbox::has_landlock;
use caps::Capability;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

const TUN: &str = "/dev/net/tun";

pub(super) fn tun(patient: &Patient, found: &mut Findings) {
    if let Some(status) = patient.running() {
        match patient.tun() {
            None => found.fail(
                format!("the daemon runs, but its device {} has gone", status.router.tun),
                "somebody deleted it: restart the daemon",
            ),
            Some(link) if !link.up => found.fail(
                format!("the device {} is set down", link.name),
                format!("ip link set {} up, or restart the daemon", link.name),
            ),
            Some(link) => found.ok(format!("{}, MTU {}, {}", link.name, link.mtu, status.router.device)),
        }
        return;
    }
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => found.ok(format!("{TUN} can be opened")),
        Err(error) if error.kind() == ErrorKind::NotFound => found.fail(
            format!("there is no {TUN}"),
            "modprobe tun; in a container: --device /dev/net/tun; in a namespace: mknod /dev/net/tun c 10 200",
        ),
        // No driver behind the device.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => {
            found.fail(format!("{TUN} has no driver: {error}"), "modprobe tun, or a kernel with CONFIG_TUN");
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !nix::unistd::geteuid().is_root() => {
            found.skip(format!("{TUN}: for root to open"));
        }
        Err(error) => found.fail(
            format!("{TUN} cannot be opened: {error}"),
            "chmod 666 /dev/net/tun is usual; in a container or unit the device must be allowed (DeviceAllow=/dev/net/tun rw)",
        ),
    }
}

pub(super) fn rights(patient: &Patient, found: &mut Findings) {
    if let Some(status) = patient.running() {
        let held = &status.security;
        if held.capabilities.iter().any(|c| c == "CAP_NET_ADMIN") {
            found.ok(format!("the daemon runs as {} with CAP_NET_ADMIN", held.user));
        } else {
            found.fail(
                format!(
                    "the daemon runs as {} without CAP_NET_ADMIN: it can set no address and no route",
                    held.user
                ),
                "start it as root, or with AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE",
            );
        }
        return;
    }
    let (port, nat_port) = patient.own_ports();
    let low = sysctl("net/ipv4/ip_unprivileged_port_start").unwrap_or(1024);
    let needs_bind = [port, nat_port].iter().any(|p| *p != 0 && i64::from(*p) < low);
    let mut missing = Vec::new();
    if !Patient::may(Capability::CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    if needs_bind && !Patient::may(Capability::CAP_NET_BIND_SERVICE) {
        missing.push("CAP_NET_BIND_SERVICE");
    }
    if missing.is_empty() {
        found.ok("this user may run the daemon");
    } else if nix::unistd::geteuid().is_root() {
        found.fail(
            format!("even root lacks {} here", missing.join(" and ")),
            "a container needs --cap-add NET_ADMIN; a unit needs them in CapabilityBoundingSet=",
        );
    } else {
        found.skip(format!("this user lacks {}: the daemon is for root to run", missing.join(" and ")));
    }
}

const KERNEL_FOR_SANDBOX: &str =
    "a kernel with CONFIG_SECURITY_LANDLOCK (in lsm=) and CONFIG_SECCOMP_FILTER; it works without";

/// For information: without them it runs as well.
pub(super) fn sandbox(patient: &Patient, found: &mut Findings) {
    if let Some(status) = patient.running() {
        let held = &status.security;
        let without: Vec<&str> =
            held.seccomp.iter().filter(|(_, on)| !**on).map(|(name, _)| name.as_str()).collect();
        let wanted = match (&patient.client, &patient.broker) {
            (Some(c), _) => c.process.sandbox,
            (_, Some(b)) => b.process.sandbox,
            _ => true,
        };
        if !wanted {
            found.warn(
                "switched off in the configuration (sandbox = false)",
                "leave sandbox out unless it is in the way",
            );
        } else if held.landlock.is_none() || !without.is_empty() {
            found.warn(
                format!(
                    "landlock {}, seccomp {}",
                    if held.landlock.is_some() { "in force" } else { "is not there" },
                    if without.is_empty() {
                        "in force".to_owned()
                    } else {
                        format!("missing on {}", without.join(", "))
                    }
                ),
                KERNEL_FOR_SANDBOX,
            );
        } else {
            found.ok("landlock and seccomp hold the daemon");
        }
        return;
    }
    let seccomp = Path::new("/proc/sys/kernel/seccomp/actions_avail").exists();
    let missing = match (has_landlock(), seccomp) {
        (true, true) => return found.ok("the kernel has landlock and seccomp"),
        (false, true) => "landlock",
        (true, false) => "seccomp filters",
        (false, false) => "landlock and no seccomp filters",
    };
    found.warn(format!("this kernel has no {missing}"), KERNEL_FOR_SANDBOX);
}

pub(super) fn ipv6(patient: &Patient, found: &mut Findings) {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return found.fail("this kernel has no IPv6", "boot without ipv6.disable=1");
    }
    let off = |name: &str| sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6")).is_some_and(|v| v != 0);
    if let Some(link) = patient.tun().filter(|l| off(&l.name)) {
        found.fail(
            format!("IPv6 is switched off on {} (disable_ipv6), after the daemon switched it on", link.name),
            format!(
                "sysctl -w net.ipv6.conf.{}.disable_ipv6=0, and look who sets it: /etc/sysctl.d, NetworkManager, another VPN's \
                 leak protection; then restart the daemon, for its address and routes have gone",
                link.name
            ),
        );
    }
    if off("lo") {
        found.warn(
            "IPv6 is switched off on lo: this machine does not reach its own addresses",
            "sysctl -w net.ipv6.conf.lo.disable_ipv6=0",
        );
    }
    if patient.broker.is_some() && off("all") {
        found.fail(
            "IPv6 is switched off on this machine (net.ipv6.conf.all.disable_ipv6)",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0: a broker needs IPv6 towards its own network",
        );
    }
    if found.is_empty() {
        found.ok("the kernel has IPv6");
    }
}
