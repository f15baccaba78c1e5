//! Echo requests (RFC 4443 section 4) without the `ping` program.

use super::Interrupt;
use crate::lab::Host;
use anyhow::Context;
use pnet_packet::Packet;
use pnet_packet::icmpv6::echo_reply::EchoReplyPacket;
use pnet_packet::icmpv6::echo_request::MutableEchoRequestPacket;
use pnet_packet::icmpv6::{Icmpv6Code, Icmpv6Types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fmt;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// ICMPv6 header, identifier and sequence number.
const HEADER: usize = 8;
/// As of `ping`: 64 octets of ICMPv6 in all.
const PAYLOAD: usize = 56;

/// Outcome of a number of pings.
pub(super) struct Pings {
    pub(super) sent: usize,
    /// Round-trip times, shortest first.
    times: Vec<Duration>,
}

impl Pings {
    pub(super) fn all_answered(&self) -> bool {
        self.sent > 0 && self.times.len() == self.sent
    }
}

impl fmt::Display for Pings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        write!(f, "{} of {}", self.times.len(), self.sent)?;
        if let (Some(min), Some(max)) = (self.times.first(), self.times.last()) {
            let median = self.times[self.times.len() / 2];
            write!(
                f,
                ", round trip {:.2} / {:.2} / {:.2} ms (min/median/max)",
                ms(*min),
                ms(median),
                ms(*max)
            )?;
        }
        Ok(())
    }
}

/// Pings from a host, `interval` apart; each request has `patience` for its reply.
pub(super) fn ping(
    host: &Host,
    target: Ipv6Addr,
    count: u16,
    interval: Duration,
    patience: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Pings> {
    let open = || Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6));
    let mut socket = host.run(open).with_context(|| format!("{}: no raw ICMPv6 socket", host.name()))?;
    let address = SockAddr::from(SocketAddr::new(IpAddr::V6(target), 0));
    socket.connect(&address).with_context(|| format!("{}: no route to {target}", host.name()))?;
    let identifier = std::process::id() as u16;
    let mut pings = Pings { sent: 0, times: Vec::new() };
    for sequence in 0..count {
        interrupt.check()?;
        let mut octets = [0x55; HEADER + PAYLOAD];
        let mut request =
            MutableEchoRequestPacket::new(&mut octets).context("an echo request is this long")?;
        request.set_icmpv6_type(Icmpv6Types::EchoRequest);
        request.set_icmpv6_code(Icmpv6Code(0));
        request.set_identifier(identifier);
        request.set_sequence_number(sequence);
        // The kernel sets the checksum of a raw ICMPv6 socket (RFC 3542 section 3.1).
        let sent = Instant::now();
        socket.send(request.packet()).with_context(|| format!("{}: cannot ping {target}", host.name()))?;
        pings.sent += 1;
        if await_reply(&mut socket, identifier, sequence, sent + patience)? {
            pings.times.push(sent.elapsed());
        }
        std::thread::sleep(interval.saturating_sub(sent.elapsed()));
    }
    pings.times.sort();
    Ok(pings)
}

fn await_reply(
    socket: &mut Socket,
    identifier: u16,
    sequence: u16,
    deadline: Instant,
) -> anyhow::Result<bool> {
    let mut buffer = [0; 1500];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(length) => {
                let reply = EchoReplyPacket::new(&buffer[..length]);
                let ours = reply.is_some_and(|r| {
                    r.get_icmpv6_type() == Icmpv6Types::EchoReply
                        && (r.get_identifier(), r.get_sequence_number()) == (identifier, sequence)
                        && r.payload() == [0x55; PAYLOAD]
                });
                if ours {
                    return Ok(true);
                }
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(e).context("no reply can be read"),
        }
    }
}
