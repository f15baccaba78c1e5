//! Traffic selectors (RFC 7296 section 3.13; RFC 4301 section 4.4.1.1).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// One traffic selector: an address range, a protocol and a port range.
///
/// Prints and parses as `2a00::101/128`, `2a00::100/120[tcp/443]`, `::1-::ff[udp]`, `::/0[ipv6-icmp/128/0]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    /// IP protocol; 0 is any.
    pub protocol: u8,
    /// First port; for ICMPv6 type and code (RFC 4301 section 4.4.1.1). 0..=65535 is any, 65535..=0 is OPAQUE.
    pub start_port: u16,
    /// Last port.
    pub end_port: u16,
    /// The addresses; both ends of one family by construction.
    pub addresses: AddressRange,
}

/// An inclusive address range of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressRange {
    /// TS_IPV4_ADDR_RANGE (7).
    V4(Ipv4Addr, Ipv4Addr),
    /// TS_IPV6_ADDR_RANGE (8).
    V6(Ipv6Addr, Ipv6Addr),
}

/// ICMP type and code as they stand in the port fields (RFC 4301 section 4.4.1.1): the type in the high octet.
pub const fn icmp_port(icmp_type: u8, code: u8) -> u16 {
    u16::from_be_bytes([icmp_type, code])
}

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const MOBILITY: u8 = 135;
/// Protocol names for configuration and display, as /etc/protocols has them.
const PROTOCOLS: [(&str, u8); 10] = [
    ("tcp", 6),
    ("udp", 17),
    ("ipv6-icmp", ICMPV6),
    ("icmpv6", ICMPV6),
    ("icmp", ICMP),
    ("sctp", 132),
    ("dccp", 33),
    ("udplite", 136),
    ("gre", 47),
    ("mobility-header", MOBILITY),
];

impl AddressRange {
    /// All of a prefix; bits behind it are ignored. `None` where the length is too large for the family.
    pub fn prefix(address: IpAddr, prefix_len: u8) -> Option<Self> {
        Some(match address {
            IpAddr::V4(address) => {
                let host = mask(prefix_len, 32)? as u32;
                Self::V4(
                    Ipv4Addr::from_bits(address.to_bits() & !host),
                    Ipv4Addr::from_bits(address.to_bits() | host),
                )
            }
            IpAddr::V6(address) => {
                let host = mask(prefix_len, 128)?;
                Self::V6(
                    Ipv6Addr::from_bits(address.to_bits() & !host),
                    Ipv6Addr::from_bits(address.to_bits() | host),
                )
            }
        })
    }

    /// From `first` to `last`; `None` where they are of two families or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => Some(Self::V4(first, last)),
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => Some(Self::V6(first, last)),
            _ => None,
        }
    }

    /// The first address.
    pub const fn first(&self) -> IpAddr {
        match *self {
            Self::V4(first, _) => IpAddr::V4(first),
            Self::V6(first, _) => IpAddr::V6(first),
        }
    }

    /// The last address.
    pub const fn last(&self) -> IpAddr {
        match *self {
            Self::V4(_, last) => IpAddr::V4(last),
            Self::V6(_, last) => IpAddr::V6(last),
        }
    }

    /// The prefix length, where the range is exactly one prefix.
    pub const fn prefix_len(&self) -> Option<u8> {
        let (first, last, width) = match *self {
            Self::V4(first, last) => (first.to_bits() as u128, last.to_bits() as u128, 32),
            Self::V6(first, last) => (first.to_bits(), last.to_bits(), 128),
        };
        let host = first ^ last;
        // A prefix: the differing bits are the lowest ones, all zero in the first and all one in the last address.
        if host & host.wrapping_add(1) != 0 || first & host != 0 {
            return None;
        }
        Some((width - (128 - host.leading_zeros())) as u8)
    }

    fn intersect(&self, other: &Self) -> Option<Self> {
        match (*self, *other) {
            (Self::V4(a, b), Self::V4(c, d)) if a.max(c) <= b.min(d) => Some(Self::V4(a.max(c), b.min(d))),
            (Self::V6(a, b), Self::V6(c, d)) if a.max(c) <= b.min(d) => Some(Self::V6(a.max(c), b.min(d))),
            _ => None,
        }
    }
}

/// The bits behind a prefix.
fn mask(prefix_len: u8, width: u8) -> Option<u128> {
    let host = u32::from(width.checked_sub(prefix_len)?);
    Some(u128::MAX.checked_shr(128 - host).unwrap_or(0))
}

impl TrafficSelector {
    /// `::/0`, any protocol, any port.
    pub const ANY_V6: Self =
        Self::any_port(AddressRange::V6(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX)));

    /// `0.0.0.0/0`, any protocol, any port.
    pub const ANY_V4: Self = Self::any_port(AddressRange::V4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));

    /// These addresses, any protocol, any port.
    pub const fn any_port(addresses: AddressRange) -> Self {
        Self { protocol: 0, start_port: 0, end_port: u16::MAX, addresses }
    }

    /// All of a prefix, any protocol, any port. `None` where the length is too large for the family.
    pub fn prefix(address: IpAddr, prefix_len: u8) -> Option<Self> {
        AddressRange::prefix(address, prefix_len).map(Self::any_port)
    }

    /// One IPv6 address, any protocol, any port.
    pub const fn host_v6(address: Ipv6Addr) -> Self {
        Self::any_port(AddressRange::V6(address, address))
    }

    /// Whether every port is allowed, those that cannot be seen too.
    pub const fn is_any_port(&self) -> bool {
        self.start_port == 0 && self.end_port == u16::MAX
    }

    /// Whether only packets are allowed whose ports cannot be seen (RFC 4301 section 4.4.1.1).
    pub const fn is_opaque(&self) -> bool {
        self.start_port == u16::MAX && self.end_port == 0
    }

    /// What both allow (RFC 7296 section 2.9); `None` where that is nothing.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (ours, theirs) if ours == theirs => ours,
            _ => return None,
        };
        // ANY comprises OPAQUE, a range does not.
        let (start_port, end_port) = match (self.is_opaque(), other.is_opaque()) {
            (true, true) => (u16::MAX, 0),
            (true, false) if other.is_any_port() => (u16::MAX, 0),
            (false, true) if self.is_any_port() => (u16::MAX, 0),
            (false, false) => (self.start_port.max(other.start_port), self.end_port.min(other.end_port)),
            _ => return None,
        };
        if start_port > end_port && !(self.is_opaque() || other.is_opaque()) {
            return None;
        }
        let addresses = self.addresses.intersect(&other.addresses)?;
        Some(Self { protocol, start_port, end_port, addresses })
    }

    /// Whether all that `other` allows is allowed here too.
    pub fn contains(&self, other: &Self) -> bool {
        self.intersect(other).as_ref() == Some(other)
    }

    /// Whether one end of an IPv6 packet is allowed: its address, the protocol, and its port where it can be seen.
    pub const fn matches_v6(&self, address: Ipv6Addr, protocol: u8, port: Option<u16>) -> bool {
        let AddressRange::V6(first, last) = self.addresses else { return false };
        let address = address.to_bits();
        let ports = match port {
            Some(port) => self.start_port <= port && port <= self.end_port,
            None => self.is_any_port() || self.is_opaque(),
        };
        (self.protocol == 0 || self.protocol == protocol)
            && ports
            && first.to_bits() <= address
            && address <= last.to_bits()
    }
}

/// Selectors on one side of a Child SA at most.
const MAX_NARROWED: usize = 64;

/// What a peer means by its own side's selectors: `::` alone stands for `::/0`, and `0.0.0.0` for `0.0.0.0/0`. So says
/// OpenIKED (`from dynamic`), before it has its address, where RFC 7296 section 2.19 has the whole range, and in its answer to a
/// rekey.
pub(crate) fn meant(selectors: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let any = |addresses| match addresses {
        AddressRange::V6(Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED) => TrafficSelector::ANY_V6.addresses,
        AddressRange::V4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED) => TrafficSelector::ANY_V4.addresses,
        other => other,
    };
    selectors.iter().map(|ts| TrafficSelector { addresses: any(ts.addresses), ..*ts }).collect()
}

/// Narrows an offer to what the policy allows (RFC 7296 section 2.9), in the order of the offer, so that what the
/// initiator put first (the packet that started it all) stands first. At most 64 selectors: more than any peer needs.
/// Empty: TS_UNACCEPTABLE.
pub fn narrow(offer: &[TrafficSelector], policy: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    for candidate in offer.iter().flat_map(|ours| policy.iter().filter_map(|theirs| ours.intersect(theirs))) {
        if narrowed.iter().any(|wider| wider.contains(&candidate)) {
            continue;
        }
        // A wider one takes the place of the first that it covers.
        match narrowed.iter().position(|smaller| candidate.contains(smaller)) {
            Some(place) => {
                narrowed[place] = candidate;
                let mut index = 0;
                narrowed.retain(|smaller| {
                    index += 1;
                    index - 1 <= place || !candidate.contains(smaller)
                });
            }
            None if narrowed.len() < MAX_NARROWED => narrowed.push(candidate),
            None => {}
        }
    }
    narrowed
}

/// Selectors as a log has them; the first few of many.
pub(crate) fn list(selectors: &[TrafficSelector]) -> String {
    const SHOWN: usize = 4;
    let mut shown: Vec<_> = selectors.iter().take(SHOWN).map(ToString::to_string).collect();
    if selectors.len() > SHOWN {
        shown.push(format!("{} more", selectors.len() - SHOWN));
    }
    shown.join(", ")
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_len() {
            Some(len) => write!(f, "{}/{len}", self.first()),
            None => write!(f, "{}-{}", self.first(), self.last()),
        }
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addresses.fmt(f)?;
        if self.protocol == 0 && self.is_any_port() {
            return Ok(());
        }
        match PROTOCOLS.iter().find(|(_, number)| *number == self.protocol) {
            Some((name, _)) => write!(f, "[{name}")?,
            None => write!(f, "[{}", self.protocol)?,
        }
        if self.is_opaque() {
            return f.write_str("/opaque]");
        }
        if self.is_any_port() {
            return f.write_str("]");
        }
        let [first_type, first_code] = self.start_port.to_be_bytes();
        let [last_type, last_code] = self.end_port.to_be_bytes();
        match self.protocol {
            ICMP | ICMPV6 | MOBILITY if self.start_port == self.end_port => {
                write!(f, "/{first_type}/{first_code}]")
            }
            ICMP | ICMPV6 | MOBILITY
                if (first_code, last_code) == (0, u8::MAX) && first_type == last_type =>
            {
                write!(f, "/{first_type}]")
            }
            ICMP | ICMPV6 | MOBILITY if (first_code, last_code) == (0, u8::MAX) => {
                write!(f, "/{first_type}-{last_type}]")
            }
            ICMP | ICMPV6 | MOBILITY => write!(f, "/{first_type}/{first_code}-{last_type}/{last_code}]"),
            _ if self.start_port == self.end_port => write!(f, "/{}]", self.start_port),
            _ => write!(f, "/{}-{}]", self.start_port, self.end_port),
        }
    }
}

/// Why text is not a traffic selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a traffic selector: {problem} (write for example 2a00::/64, ::1-::ff or ::/0[tcp/443])"
)]
pub struct SelectorError {
    text: String,
    problem: &'static str,
}

/// `ADDRESS`, `ADDRESS/LEN` or `ADDRESS-ADDRESS`, then perhaps `[PROTOCOL]`, `[PROTOCOL/PORT]`, `[PROTOCOL/PORT-PORT]`,
/// `[PROTOCOL/opaque]`; for ICMPv6 `[ipv6-icmp/TYPE]` or `[ipv6-icmp/TYPE/CODE]`, and ranges of them.
impl FromStr for TrafficSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        parse_selector(text.trim()).map_err(|problem| SelectorError { text: text.to_owned(), problem })
    }
}

fn parse_selector(text: &str) -> Result<TrafficSelector, &'static str> {
    let (addresses, upper) = match text.split_once('[') {
        Some((addresses, upper)) => (addresses, Some(upper.strip_suffix(']').ok_or("']' is missing")?)),
        None => (text, None),
    };
    let mut selector = TrafficSelector::any_port(parse_addresses(addresses)?);
    let Some(upper) = upper else { return Ok(selector) };
    let (protocol, ports) = match upper.split_once('/') {
        Some((protocol, ports)) => (protocol, Some(ports)),
        None => (upper, None),
    };
    selector.protocol = match PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(protocol)) {
        Some((_, number)) => *number,
        None if matches!(protocol, "any" | "%any") => 0,
        None => protocol.parse().map_err(|_| "unknown protocol; give its number")?,
    };
    (selector.start_port, selector.end_port) = match ports {
        None | Some("any" | "%any") => (0, u16::MAX),
        Some("opaque" | "%opaque") => (u16::MAX, 0),
        Some(_) if selector.protocol == 0 => return Err("a port needs a protocol"),
        Some(ports) => {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            (parse_port(selector.protocol, first, 0)?, parse_port(selector.protocol, last, u8::MAX)?)
        }
    };
    if selector.start_port > selector.end_port && !selector.is_opaque() {
        return Err("the first port is above the last one");
    }
    Ok(selector)
}

fn parse_addresses(text: &str) -> Result<AddressRange, &'static str> {
    const ADDRESS: &str = "no IP address";
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (first.parse().map_err(|_| ADDRESS)?, last.parse().map_err(|_| ADDRESS)?);
        return AddressRange::new(first, last)
            .ok_or("the two ends are of two families, or in the wrong order");
    }
    let Some((address, len)) = text.split_once('/') else {
        let address = text.parse().map_err(|_| ADDRESS)?;
        return AddressRange::new(address, address).ok_or(ADDRESS);
    };
    let address: IpAddr = address.parse().map_err(|_| ADDRESS)?;
    let len = len.parse().map_err(|_| "no prefix length")?;
    let range = AddressRange::prefix(address, len).ok_or("the prefix length is too large")?;
    if range.first() != address {
        return Err("the address has bits behind the prefix length");
    }
    Ok(range)
}

/// A port, or type and code; where the code is left out, all codes are meant, of which `code` is the one at this end.
fn parse_port(protocol: u8, text: &str, code: u8) -> Result<u16, &'static str> {
    if !matches!(protocol, ICMP | ICMPV6 | MOBILITY) {
        return text.parse().map_err(|_| "no port");
    }
    let (icmp_type, code) = match text.split_once('/') {
        Some((icmp_type, code)) => (icmp_type, code.parse().map_err(|_| "no ICMP code")?),
        None => (text, code),
    };
    Ok(icmp_port(icmp_type.parse().map_err(|_| "no ICMP type")?, code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ts(text: &str) -> TrafficSelector {
        text.parse().unwrap()
    }

    #[test]
    fn display_and_parse() {
        for text in [
            "::/0",
            "0.0.0.0/0",
            "2a00::101/128",
            "2a00::100/120",
            "2a00::100/120[tcp/443]",
            "2a00::1-2a00::5",
            "2a00::1-2a00::5[udp]",
            "::/0[udp/1024-65535]",
            "::/0[tcp/opaque]",
            "::/0[ipv6-icmp]",
            "::/0[ipv6-icmp/128]",
            "::/0[ipv6-icmp/128/0]",
            "::/0[ipv6-icmp/128-129]",
            "::/0[ipv6-icmp/1/2-3/4]",
            "192.0.2.0/24[icmp/8/0]",
            "::/0[89]",
            "::/0[89/7]",
        ] {
            assert_eq!(ts(text).to_string(), text);
        }
        assert_eq!(ts("2a00::1").to_string(), "2a00::1/128");
        assert_eq!(ts("::/0[icmpv6/any]").to_string(), "::/0[ipv6-icmp]");
        assert_eq!(ts("::/0[any]"), TrafficSelector::ANY_V6);
        assert_eq!(ts("::/0[ipv6-icmp/128]").start_port, 0x8000);
        assert_eq!(ts("::/0[ipv6-icmp/128]").end_port, 0x80ff);
    }

    #[test]
    fn bad_text_says_what_is_wrong() {
        for (text, problem) in [
            ("", "no IP address"),
            ("::/129", "too large"),
            ("0.0.0.0/33", "too large"),
            ("::/x", "no prefix length"),
            ("2a00::1/64", "behind the prefix"),
            ("::2-::1", "wrong order"),
            ("::1-1.2.3.4", "two families"),
            ("::/0[tcp/80", "']' is missing"),
            ("::/0[foo]", "unknown protocol"),
            ("::/0[tcp/http]", "no port"),
            ("::/0[tcp/70000]", "no port"),
            ("::/0[tcp/90-80]", "first port"),
            ("::/0[any/80]", "needs a protocol"),
            ("::/0[ipv6-icmp/300]", "ICMP type"),
            ("::/0[ipv6-icmp/1/300]", "ICMP code"),
        ] {
            let error = text.parse::<TrafficSelector>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn an_unspecified_address_stands_for_any() {
        for (text, means) in [
            ("::", "::/0"),
            ("::[tcp/443]", "::/0[tcp/443]"),
            ("0.0.0.0", "0.0.0.0/0"),
            ("2a00::101", "2a00::101"),
            ("::-::1", "::-::1"),
        ] {
            assert_eq!(meant(&[ts(text)]), [ts(means)], "{text}");
        }
        assert_eq!(list(&[ts("::/0"), ts("2a00::1")]), "::/0, 2a00::1/128");
        assert_eq!(list(&[ts("::1"); 6]), "::1/128, ::1/128, ::1/128, ::1/128, 2 more");
    }

    #[test]
    fn intersection() {
        for (a, b, both) in [
            ("::/0", "2a00::/64", Some("2a00::/64")),
            ("::/0", "0.0.0.0/0", None),
            ("2a00::1-2a00::9", "2a00::5-2a00::ff", Some("2a00::5-2a00::9")),
            ("2a00::1-2a00::4", "2a00::5-2a00::ff", None),
            ("10.0.0.0/8", "10.1.0.0/16[tcp]", Some("10.1.0.0/16[tcp]")),
            ("::/0[tcp]", "::/0[udp]", None),
            ("::/0[tcp]", "::/0[tcp/80]", Some("::/0[tcp/80]")),
            ("::/0[tcp/1-80]", "::/0[tcp/80-90]", Some("::/0[tcp/80]")),
            ("::/0[tcp/1-79]", "::/0[tcp/80-90]", None),
            ("::/0", "::/0[tcp/opaque]", Some("::/0[tcp/opaque]")),
            ("::/0[tcp/opaque]", "::/0[tcp/opaque]", Some("::/0[tcp/opaque]")),
            ("::/0[tcp/1-80]", "::/0[tcp/opaque]", None),
        ] {
            let expected = both.map(ts);
            assert_eq!(ts(a).intersect(&ts(b)), expected, "{a} {b}");
            assert_eq!(ts(b).intersect(&ts(a)), expected, "{b} {a}");
        }
        assert!(ts("::/0").contains(&ts("::/0[tcp/opaque]")));
        assert!(!ts("::/0[tcp/opaque]").contains(&ts("::/0")));
        assert!(!ts("2a00::/64").contains(&ts("2a00::/63")));
    }

    /// RFC 7296 section 2.9.
    #[test]
    fn narrowing() {
        let list = |texts: &[&str]| texts.iter().map(|text| ts(text)).collect::<Vec<_>>();
        let policy = list(&["2a00::101/128"]);
        assert_eq!(narrow(&list(&["::/0"]), &policy), policy);
        assert_eq!(narrow(&list(&["2a00::100/120"]), &policy), policy);
        assert_eq!(narrow(&list(&["0.0.0.0/0"]), &policy), []);
        assert_eq!(narrow(&[], &policy), []);
        // The packet that started it stands first; the range that covers it takes its place.
        let offer = list(&["2a00::5/128[tcp/80]", "2a00::/64", "2b00::/64"]);
        assert_eq!(narrow(&offer, &list(&["2b00::1/128", "::/0"])), list(&["2a00::/64", "2b00::/64"]));
        // Only the first choice is allowed: it is kept.
        assert_eq!(narrow(&offer, &list(&["2a00::5/128"])), list(&["2a00::5/128"]));
    }

    #[test]
    fn narrowing_is_bounded() {
        let many: Vec<_> =
            (0..400_u128).map(|i| TrafficSelector::host_v6(Ipv6Addr::from_bits(i * 2))).collect();
        assert_eq!(narrow(&many, &[TrafficSelector::ANY_V6]).len(), MAX_NARROWED);
    }

    #[test]
    fn packets() {
        let address = "2b00::1".parse().unwrap();
        let echo = icmp_port(128, 0);
        for (selector, protocol, port, matches) in [
            ("::/0", 6, Some(443), true),
            ("::/0", 6, None, true),
            ("2b00::/64[tcp/443]", 6, Some(443), true),
            ("2b00::/64[tcp/443]", 6, Some(444), false),
            ("2b00::/64[tcp/443]", 17, Some(443), false),
            ("2b00::/64[tcp/443]", 6, None, false),
            ("2b00::/64[tcp/opaque]", 6, None, true),
            ("2b00::/64[tcp/opaque]", 6, Some(443), false),
            ("2b00::/64[tcp]", 6, None, true),
            ("::/0[ipv6-icmp/128]", 58, Some(echo), true),
            ("::/0[ipv6-icmp/129]", 58, Some(echo), false),
            ("2a00::/64", 6, Some(443), false),
            ("0.0.0.0/0", 6, Some(443), false),
        ] {
            assert_eq!(
                ts(selector).matches_v6(address, protocol, port),
                matches,
                "{selector} {protocol} {port:?}"
            );
        }
    }

    #[test]
    fn prefixes() {
        assert_eq!(TrafficSelector::prefix("2a00::1ff".parse().unwrap(), 120), Some(ts("2a00::100/120")));
        assert_eq!(TrafficSelector::prefix("::".parse().unwrap(), 0), Some(TrafficSelector::ANY_V6));
        assert_eq!(TrafficSelector::prefix("::".parse().unwrap(), 129), None);
        assert_eq!(TrafficSelector::prefix("1.2.3.4".parse().unwrap(), 0), Some(TrafficSelector::ANY_V4));
        assert_eq!(TrafficSelector::prefix("1.2.3.4".parse().unwrap(), 33), None);
    }

    pub(crate) fn selector() -> impl Strategy<Value = TrafficSelector> {
        let ports = prop_oneof![
            Just((0, u16::MAX)),
            Just((u16::MAX, 0)),
            any::<(u16, u16)>().prop_map(|(a, b)| (a.min(b), a.max(b))),
        ];
        // Few distinct addresses, so that ranges meet.
        let range = prop_oneof![
            (0..20_u32, 0..20_u32).prop_map(|(a, b)| AddressRange::V4(a.min(b).into(), a.max(b).into())),
            (0..20_u128, 0..20_u128).prop_map(|(a, b)| AddressRange::V6(a.min(b).into(), a.max(b).into())),
        ];
        (prop_oneof![Just(0), Just(6), Just(58), any::<u8>()], ports, range).prop_map(
            |(protocol, (start_port, end_port), addresses)| TrafficSelector {
                protocol,
                start_port,
                end_port,
                addresses,
            },
        )
    }

    proptest! {
        #[test]
        fn intersection_is_what_both_match(
            a in selector(), b in selector(), address in 0..20_u128, protocol in prop_oneof![Just(6_u8), Just(58), any::<u8>()],
            port in proptest::option::of(any::<u16>()),
        ) {
            let matches = |ts: &TrafficSelector| ts.matches_v6(address.into(), protocol, port);
            let both = a.intersect(&b);
            prop_assert_eq!(both.is_some_and(|both| matches(&both)), matches(&a) && matches(&b));
            prop_assert_eq!(both, b.intersect(&a));
            if let Some(both) = both {
                prop_assert!(a.contains(&both) && b.contains(&both));
            }
        }

        #[test]
        fn narrowed_matches_exactly_what_both_lists_match(
            offer in proptest::collection::vec(selector(), 0..6), policy in proptest::collection::vec(selector(), 0..6),
            address in 0..20_u128, port in proptest::option::of(any::<u16>()),
        ) {
            let matches = |list: &[TrafficSelector]| list.iter().any(|ts| ts.matches_v6(address.into(), 6, port));
            prop_assert_eq!(matches(&narrow(&offer, &policy)), matches(&offer) && matches(&policy));
        }

        #[test]
        fn text_round_trip(selector in selector()) {
            // A port without a protocol cannot be written, only received.
            prop_assume!(selector.protocol != 0 || selector.is_any_port());
            prop_assert_eq!(selector.to_string().parse::<TrafficSelector>(), Ok(selector));
        }

        #[test]
        fn any_text(text in ".{0,40}") {
            let _ = text.parse::<TrafficSelector>();
        }
    }
}
