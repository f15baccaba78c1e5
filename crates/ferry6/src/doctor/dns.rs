//! DNS for IPv6: names must have their AAAA records, over resolvers that can be reached.

use super::check::Findings;
use super::name;
use super::patient::Patient;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_millis(1500);
/// glibc asks no more of them.
const SERVERS: usize = 3;

/// `nameserver` lines (resolv.conf(5)); a scope behind `%` is not for us.
fn servers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|l| l.trim().strip_prefix("nameserver"));
    let addresses = lines.filter_map(|rest| rest.split_whitespace().next());
    addresses.filter_map(|a| a.split('%').next()?.parse().ok()).take(SERVERS).collect()
}

/// A question for the AAAA records of a name (RFC 1035 section 4.1, RFC 3596 section 2.1); `None` for what is no name.
fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&id.to_be_bytes());
    // Recursion desired; one question.
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
        out.push(len);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    // Type 28, class IN.
    out.extend_from_slice(&[0, 28, 0, 1]);
    (out.len() <= 512).then_some(out)
}

/// What a server made of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// So many records.
    Records(u16),
    /// RCODE.
    Refused(u8),
    Silent,
}

/// The header of an answer (RFC 1035 section 4.1.1).
fn read(id: u16, octets: &[u8]) -> Option<Answer> {
    let header = octets.first_chunk::<12>()?;
    if header[..2] != id.to_be_bytes() || header[2] & 0x80 == 0 {
        return None;
    }
    let rcode = header[3] & 0x0f;
    Some(if rcode == 0 {
        Answer::Records(u16::from_be_bytes([header[6], header[7]]))
    } else {
        Answer::Refused(rcode)
    })
}

fn ask(server: IpAddr, name: &str) -> std::io::Result<Answer> {
    let any: SocketAddr =
        if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().map_err(std::io::Error::other)?;
    let socket = UdpSocket::bind(any)?;
    socket.connect((server, 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let id = std::process::id() as u16;
    let Some(question) = question(id, name) else { return Ok(Answer::Silent) };
    socket.send(&question)?;
    let mut buffer = [0; 1500];
    match socket.recv(&mut buffer) {
        Ok(len) => Ok(read(id, &buffer[..len]).unwrap_or(Answer::Silent)),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            Ok(Answer::Silent)
        }
        Err(e) => Err(e),
    }
}

pub(super) fn check(patient: &Patient, found: &mut Findings) {
    if !patient.is_up() {
        return found.skip("the tunnel is not up");
    }
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let used = servers(&text);
    let lookup = &patient.wishes.lookup;
    if used.is_empty() {
        found.warn("/etc/resolv.conf names no server", "names resolve by /etc/hosts alone");
    }
    let mut silent = 0;
    for server in &used {
        let text = match ask(*server, lookup) {
            Ok(Answer::Records(n)) if n > 0 => continue,
            // Told below, of what the resolver library makes of it.
            Ok(Answer::Records(_) | Answer::Refused(_)) => continue,
            Ok(Answer::Silent) => format!("the DNS server {server} does not answer"),
            Err(error) => format!("the DNS server {server} cannot be reached: {error}"),
        };
        silent += 1;
        found.warn(text, "take it out of /etc/resolv.conf, or name one that is reachable");
    }
    let told = patient.running().and_then(|s| s.client.as_ref()).map(|c| c.dns.clone()).unwrap_or_default();
    let unused: Vec<String> =
        told.iter().filter(|a| !used.contains(&IpAddr::V6(**a))).map(ToString::to_string).collect();
    // systemd-resolved stands between with one of its own.
    let resolved = used.iter().any(|a| a.to_string().starts_with("127.0.0.5"));
    if !unused.is_empty() && !resolved {
        found.warn(
            format!("the broker tells DNS servers that are not used: {}", unused.join(", ")),
            "where names of its network are wanted: tunnel.dns = \"auto\" with systemd-resolved or resolvconf installed, or write them into \
             /etc/resolv.conf",
        );
    }
    let addresses = name::ipv6(lookup);
    if !addresses.is_empty() {
        if found.is_empty() {
            found.ok(format!("{lookup} is {}", addresses[0]));
        }
    } else if silent == used.len() && !used.is_empty() {
        found.fail("no DNS server answers: no name resolves", "see the servers above");
    } else {
        found.fail(
            format!("{lookup} gets no AAAA record"),
            "the resolver filters AAAA (dnsmasq: filter-AAAA; unbound: private-address), or the name has none: --lookup NAME",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let list = servers(
            "# x\nnameserver 192.168.0.1\nsearch a\n nameserver fe80::1%eth0\nnameserver nonsense\nnameserver ::1\n",
        );
        assert_eq!(
            list,
            ["192.168.0.1".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap(), "::1".parse().unwrap()]
        );
    }

    #[test]
    fn a_question_on_the_wire() {
        let octets = question(0x1234, "a.example.").unwrap();
        assert_eq!(octets[..12], [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(octets[12..], *b"\x01a\x07example\x00\x00\x1c\x00\x01");
        assert_eq!(question(1, ""), None);
        assert_eq!(question(1, "a..b"), None);
        assert_eq!(question(1, &"a.".repeat(300)), None);
    }

    #[test]
    fn headers_of_answers() {
        let header = |flags: [u8; 2], count: u8| [0x12, 0x34, flags[0], flags[1], 0, 1, 0, count, 0, 0, 0, 0];
        assert_eq!(read(0x1234, &header([0x81, 0x80], 2)), Some(Answer::Records(2)));
        assert_eq!(read(0x1234, &header([0x81, 0x83], 0)), Some(Answer::Refused(3)));
        assert_eq!(read(0x1235, &header([0x81, 0x80], 2)), None);
        assert_eq!(read(0x1234, &header([0x01, 0x80], 2)), None);
        assert_eq!(read(0x1234, &[0x12]), None);
    }
}
