//! Traffic selectors (RFC 7296 section 3.13; RFC 4301 section 4.4.1.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One traffic selector: an address range, a protocol and a port range.
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

impl TrafficSelector {
    /// `::/0`, any protocol, any port.
    pub const ANY_V6: Self = Self {
        protocol: 0,
        start_port: 0,
        end_port: u16::MAX,
        addresses: AddressRange::V6(
            Ipv6Addr::UNSPECIFIED,
            Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff),
        ),
    };

    /// All of a prefix, any protocol, any port. `None` where the length is too large for the family.
    pub fn prefix(_address: IpAddr, _prefix_len: u8) -> Option<Self> {
        todo!()
    }
    /// What both allow (RFC 7296 section 2.9); `None` where that is nothing.
    pub fn intersect(&self, _other: &Self) -> Option<Self> {
        todo!()
    }
    /// Whether all that `other` allows is allowed here too.
    pub fn contains(&self, _other: &Self) -> bool {
        todo!()
    }
}
