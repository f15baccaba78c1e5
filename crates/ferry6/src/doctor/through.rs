//! Through the tunnel: how far do packets get, and do they come back?
//!
//! A ping with hop limit 1 is answered by the broker's kernel if it forwards at all (Time Exceeded, RFC 4443 section 3.3), one
//! with 2 by the router behind it, if that one knows the way back to the client's address. So the first silence tells who is at fault.

use super::check::Findings;
use super::patient::Patient;
use caps::Capability;
use pnet_packet::Packet as _;
use pnet_packet::icmpv6::echo_request::MutableEchoRequestPacket;
use pnet_packet::icmpv6::{Icmpv6Code, Icmpv6Types};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Anycast, all over the Internet; asked where the broker tells no DNS server and `--ping` nothing else.
const SOMEBODY: Ipv6Addr = Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111);
/// ICMPv6 header, identifier and sequence number, and something behind.
const ECHO: usize = 8 + 16;
/// IPv6 header.
const IPV6: usize = 40;
const PATIENCE: Duration = Duration::from_millis(700);
const TRIES: u16 = 2;

/// What came back to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The target's own answer.
    Echo(Ipv6Addr),
    /// Its hops were used up at this router.
    TimeExceeded(Ipv6Addr),
    /// ICMPv6 type 1 with its code, from this router.
    Unreachable(Ipv6Addr, u8),
    /// ICMPv6 type 2, from this router.
    TooBig(Ipv6Addr),
}

/// Pings over a raw ICMPv6 socket.
pub(super) struct Pinger {
    /// A raw socket: std's type for sockets that receive with an address.
    socket: UdpSocket,
    identifier: u16,
}

impl Pinger {
    /// # Errors
    /// No right to, without CAP_NET_RAW.
    pub(super) fn new(source: Option<Ipv6Addr>) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        if let Some(source) = source {
            // A broker pings from an address of its pool, which is not its own.
            socket.set_freebind_v6(true)?;
            socket.bind(&SocketAddrV6::new(source, 0, 0, 0).into())?;
        }
        // The lower half of our number: several run at once.
        Ok(Self { socket: OwnedFd::from(socket).into(), identifier: std::process::id() as u16 })
    }

    /// Sends one, and waits for nothing.
    ///
    /// # Errors
    /// There is no way to send it.
    pub(super) fn send(&self, to: Ipv6Addr, hops: u32, sequence: u16) -> io::Result<()> {
        SockRef::from(&self.socket).set_unicast_hops_v6(hops)?;
        let mut octets = [0x66; ECHO];
        let mut request = MutableEchoRequestPacket::new(&mut octets).ok_or(ErrorKind::InvalidInput)?;
        request.set_icmpv6_type(Icmpv6Types::EchoRequest);
        request.set_icmpv6_code(Icmpv6Code(0));
        request.set_identifier(self.identifier);
        request.set_sequence_number(sequence);
        // The kernel sets the checksum of a raw ICMPv6 socket (RFC 3542 section 3.1).
        self.socket.send_to(request.packet(), SocketAddrV6::new(to, 0, 0, 0))?;
        Ok(())
    }

    /// One ping, and what comes back to it.
    fn ping(&self, to: Ipv6Addr, hops: u32, sequence: u16) -> io::Result<Option<Reply>> {
        self.send(to, hops, sequence)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let mut buffer = [0; 1500];
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    let SocketAddr::V6(from) = from else { continue };
                    if let Some(reply) = read(&buffer[..len], *from.ip(), to, self.identifier, sequence) {
                        return Ok(Some(reply));
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Some pings, until one is answered.
    fn hop(&self, to: Ipv6Addr, hops: u32) -> io::Result<Option<Reply>> {
        for attempt in 0..TRIES {
            let sequence = u16::try_from(hops).unwrap_or(u16::MAX) * TRIES + attempt;
            if let Some(reply) = self.ping(to, hops, sequence)? {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }
}

/// What stands in an ICMPv6 message about the ping with this identifier and number (RFC 4443 sections 3 and 4.2).
fn read(octets: &[u8], from: Ipv6Addr, to: Ipv6Addr, identifier: u16, sequence: u16) -> Option<Reply> {
    let number = [identifier.to_be_bytes(), sequence.to_be_bytes()].concat();
    let (kind, code) = (*octets.first()?, *octets.get(1)?);
    if kind == Icmpv6Types::EchoReply.0 {
        return (from == to && octets.get(4..8)? == number).then_some(Reply::Echo(from));
    }
    // An error carries the packet that caused it: IPv6 header, ICMPv6 header.
    let original = octets.get(8..)?;
    let ours = original.get(24..IPV6)? == to.octets()
        && *original.get(IPV6)? == Icmpv6Types::EchoRequest.0
        && original.get(IPV6 + 4..IPV6 + 8)? == number;
    if !ours {
        return None;
    }
    match kind {
        1 => Some(Reply::Unreachable(from, code)),
        2 => Some(Reply::TooBig(from)),
        3 => Some(Reply::TimeExceeded(from)),
        _ => None,
    }
}

/// How far pings get.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// All the way, over so many routers.
    Through(u32),
    /// A router refuses.
    Refused(Ipv6Addr, u8),
    /// Silence after the last of these routers, of which the first is the broker.
    Lost(Vec<Ipv6Addr>),
}

/// Routers that are looked at; the Internet has up to about 30, but the fault lies within the first two.
const NEAR: u32 = 3;
/// As of the kernel.
const USUAL_HOPS: u32 = 64;

fn walk(to: Ipv6Addr, mut hop: impl FnMut(Ipv6Addr, u32) -> io::Result<Option<Reply>>) -> io::Result<Way> {
    match hop(to, USUAL_HOPS)? {
        Some(Reply::Echo(_)) => return Ok(Way::Through(0)),
        Some(Reply::Unreachable(from, code)) => return Ok(Way::Refused(from, code)),
        _ => {}
    }
    let mut routers = Vec::new();
    for hops in 1..=NEAR {
        match hop(to, hops)? {
            Some(Reply::TimeExceeded(from)) => routers.push(from),
            Some(Reply::Echo(_)) => return Ok(Way::Through(hops)),
            Some(Reply::Unreachable(from, code)) => return Ok(Way::Refused(from, code)),
            Some(Reply::TooBig(_)) | None => break,
        }
    }
    Ok(Way::Lost(routers))
}

pub(super) fn check(patient: &Patient, found: &mut Findings) {
    if !patient.is_up() {
        return found.skip("the tunnel is not up");
    }
    if !Patient::may(Capability::CAP_NET_RAW) {
        return found.skip("pings are for root to send (CAP_NET_RAW)");
    }
    let status = patient.running().and_then(|s| s.client.as_ref());
    let told = status.and_then(|c| c.dns.first().copied());
    let to = patient.wishes.ping.or(told).unwrap_or(SOMEBODY);
    let source = status.and_then(|c| c.address);
    // What is not routed into the tunnel says nothing about it.
    let own = patient.tun().map(|l| l.index);
    if patient.route_to(to).and_then(|r| r.interface) != own {
        return found.skip(format!(
            "{to} is not reached through the tunnel: see routes, or name another with --ping"
        ));
    }
    let walked = Pinger::new(source).and_then(|pinger| walk(to, |to, hops| pinger.hop(to, hops)));
    match walked {
        Err(error) => found.skip(format!("no ping can be sent to {to}: {error}")),
        Ok(Way::Through(_)) => found.ok(format!("{to} answers through the tunnel")),
        Ok(Way::Refused(from, code)) => {
            let why = match code {
                0 => "it has no route there",
                1 => "its firewall forbids it",
                3 => "the host is not there",
                5 => "it takes no such source address",
                _ => "it refuses",
            };
            found.fail(
                format!("{from} answers to a ping to {to}: {why} (ICMPv6 unreachable, code {code})"),
                "the way there and back works that far; look at that router, or ping another address: --ping ADDRESS",
            );
        }
        Ok(Way::Lost(routers)) => match routers.as_slice() {
            [] => found.fail(
                format!("nothing comes back from {to}, nor from the broker's own kernel"),
                "the broker does not forward (net.ipv6.conf.all.forwarding = 1), its firewall drops, or ESP does not get through: ferry6 \
                 doctor broker there",
            ),
            [broker] => found.fail(
                format!("the broker ({broker}) forwards, and nothing comes back from behind it"),
                format!(
                    "the return route is missing: the router before the broker needs a route to {} through the broker (or the broker \
                     tunnel.proxy_ndp), and its firewall must let it pass",
                    source.map_or_else(|| "the pool".to_owned(), |s| s.to_string())
                ),
            ),
            [.., last] => found.warn(
                format!("the way back works as far as {last}, but {to} does not answer"),
                "is it up? Name another: --ping ADDRESS",
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Ipv6Addr = SOMEBODY;
    const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 1);

    fn error(kind: u8, code: u8, to: Ipv6Addr, identifier: u16) -> Vec<u8> {
        let mut octets = vec![kind, code, 0, 0, 0, 0, 0, 0];
        let mut original = [0; IPV6 + 8];
        original[24..40].copy_from_slice(&to.octets());
        original[IPV6] = Icmpv6Types::EchoRequest.0;
        original[IPV6 + 4..IPV6 + 6].copy_from_slice(&identifier.to_be_bytes());
        original[IPV6 + 7] = 9;
        octets.extend_from_slice(&original);
        octets
    }

    #[test]
    fn messages_about_our_ping_and_others() {
        let read = |octets: &[u8], from| read(octets, from, TO, 77, 9);
        assert_eq!(read(&error(3, 0, TO, 77), ROUTER), Some(Reply::TimeExceeded(ROUTER)));
        assert_eq!(read(&error(1, 1, TO, 77), ROUTER), Some(Reply::Unreachable(ROUTER, 1)));
        assert_eq!(read(&error(2, 0, TO, 77), ROUTER), Some(Reply::TooBig(ROUTER)));
        assert_eq!(read(&error(3, 0, TO, 78), ROUTER), None);
        assert_eq!(read(&error(3, 0, ROUTER, 77), ROUTER), None);
        let reply = [Icmpv6Types::EchoReply.0, 0, 0, 0, 0, 77, 0, 9];
        assert_eq!(read(&reply, TO), Some(Reply::Echo(TO)));
        assert_eq!(read(&reply, ROUTER), None);
        // Cut anywhere, it is nobody's.
        let whole = error(3, 0, TO, 77);
        assert!((0..whole.len()).all(|len| read(&whole[..len], ROUTER).is_none()));
    }

    /// What each hop limit gets; 0 stands for the usual one.
    fn way(answers: &[(u32, Reply)]) -> Way {
        let hop = |_, hops| Ok(answers.iter().find(|(h, _)| *h == hops).map(|(_, reply)| *reply));
        walk(TO, hop).unwrap()
    }

    #[test]
    fn the_first_silence_tells_who_is_at_fault() {
        let exceeded = |hops| (hops, Reply::TimeExceeded(ROUTER));
        assert_eq!(way(&[(USUAL_HOPS, Reply::Echo(TO))]), Way::Through(0));
        assert_eq!(way(&[]), Way::Lost(vec![]));
        assert_eq!(way(&[exceeded(1)]), Way::Lost(vec![ROUTER]));
        assert_eq!(way(&[exceeded(1), exceeded(2)]), Way::Lost(vec![ROUTER, ROUTER]));
        assert_eq!(way(&[(USUAL_HOPS, Reply::Unreachable(ROUTER, 0))]), Way::Refused(ROUTER, 0));
    }
}
