//! Whose are UDP 500 and 4500 on this machine?

use super::check::Findings;
use super::patient::Patient;
use super::processes;
use std::fs;
use std::net::Ipv4Addr;

/// A UDP socket of /proc/net/udp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Udp {
    address: Ipv4Addr,
    port: u16,
    inode: u64,
}

/// One line: `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …`, the address in the machine's own order
/// of octets. An IPv6 socket on `::` takes IPv4 as well, unless it says otherwise, which does not stand there.
fn parse(line: &str) -> Option<Udp> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    let address = match address.len() {
        8 => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes()),
        32 if address.bytes().all(|b| b == b'0') => Ipv4Addr::UNSPECIFIED,
        _ => return None,
    };
    Some(Udp { address, port: u16::from_str_radix(port, 16).ok()?, inode: fields.get(9)?.parse().ok()? })
}

fn sockets(port: u16) -> Vec<Udp> {
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    let of =
        |text: String| -> Vec<Udp> { text.lines().filter_map(parse).filter(|s| s.port == port).collect() };
    let list = of(read("udp"));
    // Daemons bind both families; the IPv4 socket is the one that counts.
    if list.is_empty() { of(read("udp6")) } else { list }
}

pub(super) fn check(patient: &Patient, found: &mut Findings) {
    let (port, nat_port) = patient.own_ports();
    let own = patient.running().map(|s| s.pid);
    for port in [port, nat_port] {
        if port == 0 {
            found.ok("a port that the kernel chooses");
            continue;
        }
        let sockets = sockets(port);
        let holders: Vec<_> = sockets.iter().flat_map(|s| processes::holders(s.inode)).collect();
        let strangers: Vec<String> =
            holders.iter().filter(|p| Some(p.pid) != own).map(ToString::to_string).collect();
        let ours = holders.iter().any(|p| Some(p.pid) == own);
        if sockets.is_empty() && own.is_some() {
            found.fail(
                format!("nobody has UDP {port}, though the daemon runs"),
                "the configuration was changed after its start? Restart it",
            );
        } else if sockets.is_empty() {
            found.ok(format!("UDP {port} is free"));
        } else if !strangers.is_empty() && !ours {
            let mut list = strangers;
            list.sort();
            list.dedup();
            found.fail(
                format!("UDP {port} is taken by {}", list.join(", ")),
                format!(
                    "stop the other daemon (strongSwan: systemctl disable --now strongswan; OpenIKED: iked; Libreswan: ipsec), or \
                     set another port in [listen]{}",
                    if patient.client.is_some() { "; a client may use port = 0, nat_port = 0" } else { "" }
                ),
            );
        } else if holders.is_empty() && own.is_none() {
            found.warn(
                format!("UDP {port} is taken, by whom is for root to see"),
                format!("sudo ss -ulpn 'sport = :{port}'"),
            );
        } else {
            found.ok(format!("UDP {port} is the daemon's"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_net_udp() {
        let line = "  123: 0200A8C0:1194 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 54321 2 0000 0";
        let socket = parse(line).unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(socket.address, Ipv4Addr::new(192, 168, 0, 2));
        }
        assert_eq!((socket.port, socket.inode), (4500, 54321));
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
        assert_eq!(parse(""), None);
        let any = "1: 00000000000000000000000000000000:01F4 0:0 07 0:0 00:0 0 0 0 77 2 0 0";
        assert_eq!(parse(any).unwrap(), Udp { address: Ipv4Addr::UNSPECIFIED, port: 500, inode: 77 });
    }
}
