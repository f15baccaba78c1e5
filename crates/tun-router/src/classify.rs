//! From an IPv6 packet to the values that selectors are compared with (RFC 4301 section 4.4.1.1).

use ferry6_ike::TrafficSelector;
use ferry6_ike::selector::AddressRange;

/// Octets of the IPv6 header.
pub const IPV6_HEADER_LEN: usize = 40;

/// Protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// Hop-by-Hop Options.
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// Routing Header.
    pub const ROUTING: u8 = 43;
    /// Fragment Header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication Header.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Destination Options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// Mobility Header.
    pub const MOBILITY: u8 = 135;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
    /// DCCP.
    pub const DCCP: u8 = 33;
}

/// More extension headers than this in one packet are refused: no honest packet has them.
const MAX_EXTENSION_HEADERS: usize = 16;

/// The selector values of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address.
    pub source: u128,
    /// Destination address.
    pub destination: u128,
    /// Next Layer Protocol.
    pub protocol: u8,
    /// Ports, or what stands for them.
    pub ports: Ports,
}

/// The port selectors' values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Source and destination port. For ICMPv6 both are type and code, for the Mobility Header both are the type in
    /// the high octet: such a message has one value, and it is compared with either side's selector.
    Known(u16, u16),
    /// Not there: a non-first fragment, or a protocol without ports (RFC 4301: OPAQUE).
    Opaque,
}

/// A packet that has been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Selector values.
    pub flow: Flow,
    /// Where the next layer's header begins; the packet's length where it isn't there.
    pub transport: usize,
    /// Octets of the packet by its own Payload Length.
    pub len: usize,
    /// Whether it is a fragment.
    pub fragment: bool,
    /// DS field and ECN.
    pub traffic_class: u8,
}

/// Why a packet can't be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Another version in the first four bits, or no octets at all.
    #[error("not an IPv6 packet")]
    NotIpv6,
    /// A length that doesn't fit.
    #[error("malformed IPv6 packet")]
    Malformed,
}

/// Reads source and destination at octets 8 and 24 of the IPv6 header.
#[inline]
fn address(packet: &[u8], at: usize) -> u128 {
    let mut octets = [0; 16];
    octets.copy_from_slice(&packet[at..at + 16]);
    u128::from_be_bytes(octets)
}

/// Looks at a packet. It may be longer than its Payload Length says (traffic flow confidentiality padding, RFC 4303
/// section 2.7), never shorter. Jumbograms (RFC 2675) are refused.
///
/// # Errors
/// [`ParseError`].
#[inline]
pub fn parse(packet: &[u8]) -> Result<Parsed, ParseError> {
    match packet.first() {
        Some(first) if first >> 4 == 6 => {}
        _ => return Err(ParseError::NotIpv6),
    }
    if packet.len() < IPV6_HEADER_LEN {
        return Err(ParseError::Malformed);
    }
    let len = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    if len > packet.len() {
        return Err(ParseError::Malformed);
    }
    let packet = &packet[..len];
    let next_layer = match packet[6] {
        p @ (protocol::TCP | protocol::UDP | protocol::ICMPV6) => {
            NextLayer { protocol: p, at: IPV6_HEADER_LEN, fragment: false, absent: false }
        }
        p => walk(packet, p)?,
    };
    let ports =
        if next_layer.absent { Ports::Opaque } else { ports(next_layer.protocol, &packet[next_layer.at..]) };
    Ok(Parsed {
        flow: Flow {
            source: address(packet, 8),
            destination: address(packet, 24),
            protocol: next_layer.protocol,
            ports,
        },
        transport: next_layer.at,
        len,
        fragment: next_layer.fragment,
        traffic_class: packet[0] << 4 | packet[1] >> 4,
    })
}

struct NextLayer {
    protocol: u8,
    at: usize,
    fragment: bool,
    /// A non-first fragment: the next layer's header is in another packet.
    absent: bool,
}

/// Walks the extension headers (RFC 8200 section 4), bounded by the packet and by their number.
#[cold]
fn walk(packet: &[u8], first: u8) -> Result<NextLayer, ParseError> {
    let mut next = NextLayer { protocol: first, at: IPV6_HEADER_LEN, fragment: false, absent: false };
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let header = &packet[next.at..];
        let len = match next.protocol {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                header.get(1).map(|len| (usize::from(*len) + 1) * 8)
            }
            // RFC 4302 section 2.2: in 32-bit words, less 2.
            protocol::AH => header.get(1).map(|len| (usize::from(*len) + 2) * 4),
            protocol::FRAGMENT => Some(8),
            _ => return Ok(next),
        };
        let Some(len) = len.filter(|len| *len <= header.len()) else {
            // The chain goes on in a later fragment: RFC 7112 forbids it, and selectors can't be checked.
            return Err(ParseError::Malformed);
        };
        let fragment = next.protocol == protocol::FRAGMENT;
        next.protocol = header[0];
        next.at += len;
        if fragment {
            next.fragment = true;
            if u16::from_be_bytes([header[2], header[3]]) >> 3 != 0 {
                next.absent = true;
                // RFC 8200 section 4.5: the Next Header of a non-first fragment is that of the first.
                return Ok(next);
            }
        }
    }
    Err(ParseError::Malformed)
}

#[inline]
fn ports(protocol: u8, header: &[u8]) -> Ports {
    match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDP_LITE | protocol::DCCP => {
            match header.first_chunk::<4>() {
                Some([a, b, c, d]) => {
                    Ports::Known(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
                }
                None => Ports::Opaque,
            }
        }
        protocol::ICMPV6 => match header.first_chunk::<2>() {
            Some(type_code) => {
                let value = u16::from_be_bytes(*type_code);
                Ports::Known(value, value)
            }
            None => Ports::Opaque,
        },
        protocol::MOBILITY => match header.get(2) {
            Some(kind) => Ports::Known(u16::from(*kind) << 8, u16::from(*kind) << 8),
            None => Ports::Opaque,
        },
        _ => Ports::Opaque,
    }
}

/// A traffic selector in the form that is compared with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector {
    /// First address.
    pub first: u128,
    /// Last address.
    pub last: u128,
    /// 0 is any.
    pub protocol: u8,
    /// First port.
    pub start_port: u16,
    /// Last port; less than the first: OPAQUE.
    pub end_port: u16,
}

impl Selector {
    /// `None` for an IPv4 selector: nothing of it ever comes through this router.
    pub fn new(selector: &TrafficSelector) -> Option<Self> {
        match selector.addresses {
            AddressRange::V6(first, last) => Some(Self {
                first: first.to_bits(),
                last: last.to_bits(),
                protocol: selector.protocol,
                start_port: selector.start_port,
                end_port: selector.end_port,
            }),
            AddressRange::V4(..) => None,
        }
    }

    /// The IPv6 selectors of a list.
    pub fn list(selectors: &[TrafficSelector]) -> Box<[Self]> {
        selectors.iter().filter_map(Self::new).collect()
    }

    /// Whether only addresses count.
    #[inline]
    pub fn is_address_only(&self) -> bool {
        self.protocol == 0 && self.start_port == 0 && self.end_port == u16::MAX
    }

    /// Whether a packet's values are within. ANY ports (0..=65535) take OPAQUE too; a port range takes only known
    /// ports; OPAQUE (65535..=0) takes only packets whose ports can't be seen (RFC 4301 section 4.4.1.1).
    #[inline]
    pub fn matches(&self, address: u128, protocol: u8, port: Option<u16>) -> bool {
        if address < self.first || address > self.last {
            return false;
        }
        if self.is_address_only() {
            return true;
        }
        if self.protocol != 0 && self.protocol != protocol {
            return false;
        }
        if self.start_port == 0 && self.end_port == u16::MAX {
            return true;
        }
        match port {
            Some(port) => self.start_port <= port && port <= self.end_port,
            None => self.start_port > self.end_port,
        }
    }
}

/// The selectors of one Child SA: any of ours together with any of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorPair {
    /// Our side.
    pub local: Box<[Selector]>,
    /// The peer's side.
    pub remote: Box<[Selector]>,
}

impl SelectorPair {
    /// The IPv6 part of what was negotiated.
    pub fn new(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Self {
        Self { local: Selector::list(local), remote: Selector::list(remote) }
    }

    /// A packet from us to the peer.
    #[inline]
    pub fn matches_outbound(&self, flow: &Flow) -> bool {
        let (source, destination) = flow.ports();
        any_matches(&self.local, flow.source, flow.protocol, source)
            && any_matches(&self.remote, flow.destination, flow.protocol, destination)
    }

    /// A packet from the peer to us (RFC 4301 section 5.2, step 4).
    #[inline]
    pub fn matches_inbound(&self, flow: &Flow) -> bool {
        let (source, destination) = flow.ports();
        any_matches(&self.remote, flow.source, flow.protocol, source)
            && any_matches(&self.local, flow.destination, flow.protocol, destination)
    }
}

impl Flow {
    #[inline]
    fn ports(&self) -> (Option<u16>, Option<u16>) {
        match self.ports {
            Ports::Known(source, destination) => (Some(source), Some(destination)),
            Ports::Opaque => (None, None),
        }
    }
}

#[inline]
fn any_matches(selectors: &[Selector], address: u128, protocol: u8, port: Option<u16>) -> bool {
    selectors.iter().any(|selector| selector.matches(address, protocol, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Ipv6Packet, icmpv6, tcp, udp};
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    const A: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x101);
    const B: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 2);

    fn with_header(chain: &[(u8, Vec<u8>)], last: u8, body: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (i, (_, header)) in chain.iter().enumerate() {
            let mut header = header.clone();
            header[0] = chain.get(i + 1).map_or(last, |(p, _)| *p);
            payload.extend(header);
        }
        payload.extend_from_slice(body);
        Ipv6Packet { source: A, destination: B, next_header: chain.first().map_or(last, |(p, _)| *p) }
            .build(&payload)
    }

    #[test]
    fn tcp_udp_and_icmp() {
        let parsed = parse(&tcp(A, B, 1000, 80, 1, 0x10, b"x")).unwrap();
        assert_eq!(parsed.flow.source, A.to_bits());
        assert_eq!(parsed.flow.destination, B.to_bits());
        assert_eq!((parsed.flow.protocol, parsed.flow.ports), (6, Ports::Known(1000, 80)));
        let parsed = parse(&udp(A, B, 53, 5353, b"x")).unwrap();
        assert_eq!((parsed.flow.protocol, parsed.flow.ports), (17, Ports::Known(53, 5353)));
        let parsed = parse(&icmpv6(A, B, 128, 0, b"1234")).unwrap();
        assert_eq!((parsed.flow.protocol, parsed.flow.ports), (58, Ports::Known(0x8000, 0x8000)));
    }

    #[test]
    fn extension_headers_are_walked() {
        let hop = (protocol::HOP_BY_HOP, vec![0, 0, 1, 4, 0, 0, 0, 0]);
        let routing = (protocol::ROUTING, {
            let mut h = vec![0; 24];
            h[1] = 2;
            h
        });
        let ah = (protocol::AH, {
            let mut h = vec![0; 24];
            h[1] = 4;
            h
        });
        let packet = with_header(&[hop, routing, ah], protocol::UDP, &[0, 53, 0, 54, 0, 8, 0, 0]);
        let parsed = parse(&packet).unwrap();
        assert_eq!((parsed.flow.protocol, parsed.flow.ports), (17, Ports::Known(53, 54)));
        assert_eq!(parsed.transport, 40 + 8 + 24 + 24);
    }

    #[test]
    fn fragments() {
        let first = (protocol::FRAGMENT, vec![0, 0, 0, 1, 0, 0, 0, 9]);
        let later = (protocol::FRAGMENT, vec![0, 0, 0, 8, 0, 0, 0, 9]);
        let parsed = parse(&with_header(&[first], protocol::UDP, &[0, 53, 0, 54, 0, 8, 0, 0])).unwrap();
        assert!(parsed.fragment);
        assert_eq!(parsed.flow.ports, Ports::Known(53, 54));
        // The body looks like ports, and must not be taken for them.
        let parsed = parse(&with_header(&[later], protocol::UDP, &[0, 53, 0, 54, 0, 8, 0, 0])).unwrap();
        assert!(parsed.fragment);
        assert_eq!((parsed.flow.protocol, parsed.flow.ports), (17, Ports::Opaque));
    }

    #[test]
    fn lies_are_refused() {
        assert_eq!(parse(&[]), Err(ParseError::NotIpv6));
        assert_eq!(parse(&[0x45; 60]), Err(ParseError::NotIpv6));
        assert_eq!(parse(&[0x60; 39]), Err(ParseError::Malformed));
        let mut short = udp(A, B, 1, 2, b"abc");
        short.pop();
        assert_eq!(parse(&short), Err(ParseError::Malformed));
        let beyond = (protocol::ROUTING, vec![0, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse(&with_header(&[beyond], protocol::UDP, &[0; 8])), Err(ParseError::Malformed));
        let many = vec![(protocol::DESTINATION_OPTIONS, vec![0; 8]); 17];
        assert_eq!(parse(&with_header(&many, protocol::UDP, &[0; 8])), Err(ParseError::Malformed));
        let mut padded = udp(A, B, 1, 2, b"abc");
        let len = padded.len();
        padded.extend([0; 100]);
        assert_eq!(parse(&padded).unwrap().len, len);
    }

    #[test]
    fn selectors() {
        let selector = |protocol, start_port, end_port| Selector {
            first: A.to_bits(),
            last: A.to_bits() + 5,
            protocol,
            start_port,
            end_port,
        };
        let (any, web, opaque) =
            (selector(0, 0, 65535), selector(protocol::TCP, 80, 90), selector(protocol::UDP, 65535, 0));
        let a = A.to_bits();
        // (selector, address, protocol, port, matches)
        for (s, address, protocol, port, expected) in [
            (any, a, 6, Some(80), true),
            (any, a, 17, None, true),
            (any, a + 5, 6, Some(80), true),
            (any, a + 6, 6, Some(80), false),
            (any, a - 1, 6, Some(80), false),
            (web, a, 6, Some(80), true),
            (web, a, 6, Some(90), true),
            (web, a, 6, Some(91), false),
            (web, a, 17, Some(80), false),
            (web, a, 6, None, false),
            (opaque, a, 17, None, true),
            (opaque, a, 17, Some(0), false),
            (opaque, a, 17, Some(65535), false),
            (selector(protocol::UDP, 0, 65535), a, 17, None, true),
            (selector(protocol::ICMPV6, 0x8000, 0x80ff), a, 58, Some(0x8000), true),
            (selector(protocol::ICMPV6, 0x8000, 0x80ff), a, 58, Some(0x8100), false),
        ] {
            assert_eq!(s.matches(address, protocol, port), expected, "{s:?} {protocol} {port:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn never_panics(mut octets in proptest::collection::vec(any::<u8>(), 0..200), fix_len: bool, next in prop::sample::select(vec![0_u8, 6, 17, 43, 44, 51, 58, 60, 135])) {
            if octets.len() >= 40 {
                octets[0] = 0x60;
                octets[6] = next;
                if fix_len {
                    let len = (octets.len() - 40) as u16;
                    octets[4..6].copy_from_slice(&len.to_be_bytes());
                }
            }
            if let Ok(parsed) = parse(&octets) {
                prop_assert!(parsed.len <= octets.len());
                prop_assert!(parsed.transport <= parsed.len);
            }
        }
    }
}
