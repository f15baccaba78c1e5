//! For tests, benches and fuzz targets: packets, keys that are no secret, and a tunnel without IKE.

mod static_tunnel;

pub use static_tunnel::{StaticConfig, StaticTunnel};

use crate::checksum::Sum;
use crate::classify::protocol;
use ferry6_crypto::{CipherSuite, Integ, PacketKeys, Secret};
use std::net::Ipv6Addr;

/// Keys of the right length, each made of one octet again and again. They protect nothing.
pub fn keys(suite: CipherSuite, encryption: u8, integrity: u8) -> PacketKeys {
    PacketKeys {
        suite,
        encryption: Secret::new(vec![encryption; suite.cipher().key_material_len()]),
        integrity: Secret::new(vec![integrity; suite.integ().map_or(0, Integ::key_len)]),
    }
}

/// An IPv6 header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6Packet {
    /// Source.
    pub source: Ipv6Addr,
    /// Destination.
    pub destination: Ipv6Addr,
    /// Next header.
    pub next_header: u8,
}

impl Ipv6Packet {
    /// The packet with this payload.
    ///
    /// # Panics
    /// When the payload is longer than 65535 octets.
    pub fn build(&self, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).expect("an IPv6 payload");
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(len.to_be_bytes());
        packet.extend([self.next_header, 64]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend_from_slice(payload);
        packet
    }
}

fn with_checksum(packet: Ipv6Packet, mut upper: Vec<u8>, at: usize) -> Vec<u8> {
    let mut addresses = packet.source.octets().to_vec();
    addresses.extend(packet.destination.octets());
    let sum =
        Sum::ZERO.add_pseudo_header(&addresses, upper.len(), packet.next_header).octets(&upper).checksum();
    // RFC 8200 section 8.1: a UDP checksum of zero is sent as all ones.
    let sum = if sum == [0, 0] && packet.next_header == protocol::UDP { [0xff, 0xff] } else { sum };
    upper[at..at + 2].copy_from_slice(&sum);
    packet.build(&upper)
}

/// A TCP segment with a timestamp option, window 500, acknowledgement 7.
pub fn tcp(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut segment = Vec::with_capacity(32 + payload.len());
    segment.extend(source_port.to_be_bytes());
    segment.extend(destination_port.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(7_u32.to_be_bytes());
    segment.extend([0x80, flags, 0x01, 0xf4, 0, 0, 0, 0]);
    segment.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    segment.extend_from_slice(payload);
    with_checksum(Ipv6Packet { source, destination, next_header: protocol::TCP }, segment, 16)
}

/// A UDP datagram.
///
/// # Panics
/// When the payload is longer than 65527 octets.
pub fn udp(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    source_port: u16,
    destination_port: u16,
    payload: &[u8],
) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).expect("a UDP payload");
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend(source_port.to_be_bytes());
    datagram.extend(destination_port.to_be_bytes());
    datagram.extend(len.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend_from_slice(payload);
    with_checksum(Ipv6Packet { source, destination, next_header: protocol::UDP }, datagram, 6)
}

/// An ICMPv6 message.
pub fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(body);
    with_checksum(Ipv6Packet { source, destination, next_header: protocol::ICMPV6 }, message, 2)
}
