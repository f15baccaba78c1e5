//! ICMPv6 errors (RFC 4443) for packets that can't go through the tunnel: the user sees a reason instead of silence.

use crate::checksum::Sum;
use crate::classify::{IPV6_HEADER_LEN, Parsed, Ports, protocol};
use std::time::{Duration, Instant};

/// The IPv6 minimum MTU (RFC 8200 section 5): an error message is never longer, Packet Too Big never tells less.
pub const MIN_MTU: usize = crate::size::IPV6_MIN_MTU;
/// The longest error message.
pub const MAX_LEN: usize = MIN_MTU;

/// Which error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Type 1 code 1: communication administratively prohibited. No policy lets the packet through.
    Prohibited,
    /// Type 1 code 0: no route to destination. There should be a tunnel, but it is down.
    NoRoute,
    /// Type 2: Packet Too Big, with the MTU of the tunnel.
    TooBig(u32),
}

/// Writes the error about `packet` to `out`; returns its length. `None` where RFC 4443 section 2.4 (e) forbids an error: about
/// another ICMPv6 error, to or from a multicast address, from the unspecified one.
///
/// The source is the address that could not be reached, which is the one way to have an address that the sender's host accepts
/// and that is reachable from where the packet came.
pub fn write(error: IcmpError, packet: &[u8], parsed: &Parsed, out: &mut [u8; MAX_LEN]) -> Option<usize> {
    let is_multicast = |address: u128| address >> 120 == 0xff;
    if parsed.flow.source == 0
        || is_multicast(parsed.flow.source)
        || is_multicast(parsed.flow.destination)
        || packet.len() < IPV6_HEADER_LEN
    {
        return None;
    }
    if parsed.flow.protocol == protocol::ICMPV6 {
        match parsed.flow.ports {
            // Error messages have a type below 128; Redirect (137) counts as one (RFC 4443 section 2.4 (e)).
            Ports::Known(type_code, _) if type_code >> 8 >= 128 && type_code >> 8 != 137 => {}
            // A later fragment may be one of an error message; Packet Too Big is due even so, or the path's MTU stays unknown.
            Ports::Opaque if matches!(error, IcmpError::TooBig(_)) => {}
            _ => return None,
        }
    }
    let (kind, code, word) = match error {
        IcmpError::NoRoute => (1, 0, 0),
        IcmpError::Prohibited => (1, 1, 0),
        IcmpError::TooBig(mtu) => (2, 0, mtu.max(MIN_MTU as u32)),
    };
    let quoted = &packet[..packet.len().min(MAX_LEN - IPV6_HEADER_LEN - 8)];
    let upper = 8 + quoted.len();
    let len = IPV6_HEADER_LEN + upper;
    out[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    out[4..6].copy_from_slice(&(upper as u16).to_be_bytes());
    out[6] = protocol::ICMPV6;
    out[7] = 64;
    out[8..24].copy_from_slice(&packet[24..40]);
    out[24..40].copy_from_slice(&packet[8..24]);
    out[40..44].copy_from_slice(&[kind, code, 0, 0]);
    out[44..48].copy_from_slice(&word.to_be_bytes());
    out[48..len].copy_from_slice(quoted);
    let sum =
        Sum::ZERO.add_pseudo_header(&out[8..40], upper, protocol::ICMPV6).octets(&out[40..len]).checksum();
    out[42..44].copy_from_slice(&sum);
    Some(len)
}

/// A token bucket (RFC 4443 section 2.4 (f)): a burst, then a steady rate.
#[derive(Debug)]
pub struct RateLimit {
    tokens: u32,
    burst: u32,
    interval: Duration,
    refilled: Option<Instant>,
}

impl RateLimit {
    /// `burst` at once, then one per `interval`.
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self { tokens: burst, burst, interval, refilled: None }
    }

    /// Whether one more is allowed now.
    pub fn allow(&mut self, now: Instant) -> bool {
        let refilled = *self.refilled.get_or_insert(now);
        let elapsed = now.saturating_duration_since(refilled);
        let earned =
            (elapsed.as_nanos() / self.interval.as_nanos().max(1)).min(u128::from(self.burst)) as u32;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(self.burst);
            self.refilled = Some(now);
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::parse;
    use crate::testing::{icmpv6, tcp, udp};
    use pnet_packet::Packet;
    use pnet_packet::icmpv6::{Icmpv6Packet, checksum};
    use pnet_packet::ipv6::Ipv6Packet;
    use std::net::Ipv6Addr;

    const A: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x101);
    const B: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 2);

    fn error(kind: IcmpError, packet: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0; MAX_LEN];
        write(kind, packet, &parse(packet).unwrap(), &mut out).map(|len| out[..len].to_vec())
    }

    #[test]
    fn well_formed_by_an_independent_reader() {
        for packet in [udp(A, B, 1, 2, &[1; 20]), tcp(A, B, 1, 2, 3, 0x10, &[1; 4000])] {
            for (kind, expected) in [
                (IcmpError::NoRoute, (1, 0, 0)),
                (IcmpError::Prohibited, (1, 1, 0)),
                (IcmpError::TooBig(1390), (2, 0, 1390)),
            ] {
                let message = error(kind, &packet).unwrap();
                let ip = Ipv6Packet::new(&message).unwrap();
                assert_eq!((ip.get_source(), ip.get_destination()), (B, A));
                assert!(message.len() <= 1280);
                let icmp = Icmpv6Packet::new(ip.payload()).unwrap();
                assert_eq!(icmp.get_checksum(), checksum(&icmp, &B, &A));
                assert_eq!((icmp.get_icmpv6_type().0, icmp.get_icmpv6_code().0), (expected.0, expected.1));
                assert_eq!(message[44..48], u32::to_be_bytes(expected.2));
                assert!(packet.starts_with(&message[48..]));
            }
        }
        assert_eq!(
            error(IcmpError::TooBig(100), &udp(A, B, 1, 2, b"")).unwrap()[44..48],
            1280_u32.to_be_bytes()
        );
    }

    #[test]
    fn never_about_errors_or_multicast() {
        let multicast = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        for packet in [
            icmpv6(A, B, 1, 0, &[0; 48]),
            icmpv6(A, B, 137, 0, &[0; 48]),
            udp(A, multicast, 1, 2, b""),
            udp(Ipv6Addr::UNSPECIFIED, B, 1, 2, b""),
        ] {
            assert_eq!(error(IcmpError::NoRoute, &packet), None);
        }
        assert!(error(IcmpError::NoRoute, &icmpv6(A, B, 128, 0, &[0; 8])).is_some());
        // Not about an error message that is too big, either; an echo request that is, is told.
        assert_eq!(error(IcmpError::TooBig(1400), &icmpv6(A, B, 1, 0, &[0; 1400])), None);
        assert!(error(IcmpError::TooBig(1400), &icmpv6(A, B, 128, 0, &[0; 1400])).is_some());
    }

    #[test]
    fn rate() {
        let mut limit = RateLimit::new(3, Duration::from_millis(10));
        let start = Instant::now();
        assert_eq!((0..10).filter(|_| limit.allow(start)).count(), 3);
        assert_eq!((0..10).filter(|_| limit.allow(start + Duration::from_millis(25))).count(), 2);
        assert_eq!((0..10).filter(|_| limit.allow(start + Duration::from_secs(9))).count(), 3);
    }
}
