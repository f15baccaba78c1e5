//! MSS clamping: a SYN and a SYN/ACK that pass through the tunnel promise no larger segments than the tunnel carries. It
//! helps where Packet Too Big is lost on the way to a sender.

use crate::checksum::Sum;
use crate::classify::{IPV6_HEADER_LEN, Parsed, protocol};

const TCP_HEADER_LEN: usize = 20;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
const SYN: u8 = 0x02;
/// TCP options (RFC 9293 section 3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;

/// Whether a packet may have an MSS option to look at: TCP right behind the IPv6 header, with SYN. Behind extension headers it
/// stays as it is: an AH (RFC 4302) would break, a fragment need not have the whole header.
#[inline]
pub fn is_syn(packet: &[u8], parsed: &Parsed) -> bool {
    parsed.flow.protocol == protocol::TCP
        && parsed.transport == IPV6_HEADER_LEN
        && packet.get(IPV6_HEADER_LEN + FLAGS).is_some_and(|flags| flags & SYN != 0)
}

/// Lowers the MSS of a packet that [`is_syn`] to `most`. `complete`: its checksum is a whole one and follows (RFC 1624), rather
/// than one that the device leaves to be finished. Options that lie about their lengths are left to the receiver.
pub fn clamp(packet: &mut [u8], most: u16, complete: bool) {
    let Some(tcp) = packet.get_mut(IPV6_HEADER_LEN..) else { return };
    let Some(offset) = tcp.get(12) else { return };
    let end = usize::from(offset >> 4) * 4;
    if end < TCP_HEADER_LEN || end > tcp.len() {
        return;
    }
    let mut at = TCP_HEADER_LEN;
    while at < end {
        let len = match (tcp[at], tcp[..end].get(at + 1)) {
            (END, _) => return,
            (NO_OPERATION, _) => 1,
            (_, Some(len)) if *len >= 2 && at + usize::from(*len) <= end => usize::from(*len),
            _ => return,
        };
        if tcp[at] == MSS && len == 4 {
            let value = u16::from_be_bytes([tcp[at + 2], tcp[at + 3]]);
            if value > most {
                tcp[at + 2..at + 4].copy_from_slice(&most.to_be_bytes());
                if complete {
                    patch_checksum(tcp, at + 2, value, most);
                }
            }
            return;
        }
        at += len;
    }
}

/// RFC 1624: the checksum of a header in which `old` at `at` became `new`. Behind an odd number of octets (padding by
/// no-operations) a value counts with its octets swapped.
fn patch_checksum(tcp: &mut [u8], at: usize, old: u16, new: u16) {
    let (old, new) = if at.is_multiple_of(2) { (old, new) } else { (old.swap_bytes(), new.swap_bytes()) };
    let stored = u16::from_be_bytes([tcp[CHECKSUM], tcp[CHECKSUM + 1]]);
    let sum = Sum::ZERO.add_u16(!stored).sub_u16(old).add_u16(new);
    tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.checksum());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::parse;
    use proptest::prelude::*;

    /// A TCP packet with these options, padded with zeros, and a right checksum.
    fn packet(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let padded = options.len().next_multiple_of(4);
        let upper = TCP_HEADER_LEN + padded + payload.len();
        let mut out = vec![0_u8; IPV6_HEADER_LEN + upper];
        out[0] = 0x60;
        out[4..6].copy_from_slice(&(upper as u16).to_be_bytes());
        out[6] = protocol::TCP;
        out[8..40].fill(0x2a);
        let tcp = &mut out[IPV6_HEADER_LEN..];
        tcp[12] = (((TCP_HEADER_LEN + padded) / 4) << 4) as u8;
        tcp[FLAGS] = flags;
        tcp[TCP_HEADER_LEN..TCP_HEADER_LEN + options.len()].copy_from_slice(options);
        tcp[TCP_HEADER_LEN + padded..].copy_from_slice(payload);
        let sum = Sum::ZERO.add_pseudo_header(&out[8..40], upper, protocol::TCP).octets(&out[40..]);
        out[IPV6_HEADER_LEN + CHECKSUM..][..2].copy_from_slice(&sum.checksum());
        out
    }

    fn is_valid(packet: &[u8]) -> bool {
        let upper = packet.len() - IPV6_HEADER_LEN;
        Sum::ZERO.add_pseudo_header(&packet[8..40], upper, protocol::TCP).octets(&packet[40..]).is_valid()
    }

    proptest! {
        /// Whatever stands in front of it: the MSS is the lesser of both, nothing else changes, the checksum stays right.
        #[test]
        fn the_lesser_wins(nops in 0_usize..4, value: u16, most in 500_u16..u16::MAX, ack: bool, payload in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut options = vec![NO_OPERATION; nops];
            options.extend([4, 2, MSS, 4]);
            options.extend(value.to_be_bytes());
            options.extend([3, 3, 7]);
            let flags = SYN | if ack { 0x10 } else { 0 };
            let mut got = packet(flags, &options, &payload);
            prop_assert!(is_valid(&got) && is_syn(&got, &parse(&got).unwrap()));
            clamp(&mut got, most, true);
            prop_assert!(is_valid(&got));
            options[nops + 4..nops + 6].copy_from_slice(&value.min(most).to_be_bytes());
            prop_assert_eq!(got, packet(flags, &options, &payload));
        }

        /// Options of any content: no panic, and a packet that was changed has the same sum as before.
        #[test]
        fn any_options(options in proptest::collection::vec(prop_oneof![0_u8..6, any::<u8>()], 0..40), offset in 0_u8..16) {
            let mut got = packet(SYN, &options, &[]);
            clamp(&mut got, 1000, true);
            prop_assert!(is_valid(&got));
            got[IPV6_HEADER_LEN + 12] = offset << 4;
            let mut cut = got[..got.len().min(IPV6_HEADER_LEN + usize::from(offset))].to_vec();
            clamp(&mut cut, 500, true);
            clamp(&mut got, 500, false);
        }
    }

    #[test]
    fn others_are_not_looked_at() {
        let data = packet(0x10, &[MSS, 4, 5, 0xa0], b"x");
        assert!(!is_syn(&data, &parse(&data).unwrap()));
        // Behind Destination Options.
        let mut behind = packet(SYN, &[MSS, 4, 5, 0xa0], b"");
        behind[6] = protocol::DESTINATION_OPTIONS;
        behind.splice(40..40, [protocol::TCP, 0, 1, 4, 0, 0, 0, 0]);
        let upper = (behind.len() - 40) as u16;
        behind[4..6].copy_from_slice(&upper.to_be_bytes());
        assert!(!is_syn(&behind, &parse(&behind).unwrap()));
    }
}
