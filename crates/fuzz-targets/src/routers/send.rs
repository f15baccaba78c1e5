//! Packets and super-packets as the kernel hands them to a router.

use super::Run;
use super::model::{Fate, Meta, host};
use crate::input::Input;
use ferry6_tun_router::checksum::Sum;
use ferry6_tun_router::testing::{Ipv6Packet, icmpv6, tcp, udp};
use ferry6_tun_router::virtio::{Gso, Header};
use ferry6_tun_router::worker::Verdict;

impl Run {
    /// A packet or super-packet from the TUN device of one end.
    pub(super) fn send(&mut self, side: usize, input: &mut Input<'_>) {
        let [worker, kind, who, class, size, count] = input.array();
        let worker = usize::from(worker) % self.model.workers;
        let mut meta = Meta {
            tunnel: u16::from(who & 3) + 1,
            hosts: [u16::from(who >> 2 & 3), u16::from(who >> 4 & 1)],
            protocol: [6, 17, 58, 99][usize::from(kind & 3)],
            ports: [1000 + u16::from(who >> 5 & 1), 2000 + u16::from(who >> 6 & 1)],
        };
        let [source, destination] = [side, 1 - side].map(|end| host(end, meta.tunnel, meta.hosts[end]));
        let (from, to) = (meta.ports[side], meta.ports[1 - side]);
        let size = [16, 100, 700, 1300, 1370, usize::from(size), 8 + usize::from(size), 1320]
            [usize::from(size & 7)]
        .max(8);
        let count = if meta.protocol == 6 || meta.protocol == 17 { usize::from(count % 40) + 1 } else { 1 };
        let last = if kind & 4 == 0 { size } else { size.div_ceil(2).max(8) };
        let payloads: Vec<Vec<u8>> =
            (1..=count).map(|n| self.payload(if n == count { last } else { size }, kind & 8 != 0)).collect();
        // As many as one super-packet may have; the rest is not sent.
        let most = (60_000 / size).max(1);
        let payloads = &payloads[..count.min(most)];
        let whole = payloads.concat();
        let flags = [0x10, 0x18, 0x11, 0x10][usize::from(kind >> 4 & 3)];
        let sequence = self.next_tcp;
        let mut at = sequence;
        let mut segments: Vec<Vec<u8>> = Vec::new();
        for (n, payload) in payloads.iter().enumerate() {
            // PSH and FIN stand in the last one alone.
            let flags = if n + 1 == payloads.len() { flags } else { 0x10 };
            segments.push(match meta.protocol {
                6 => tcp(source, destination, from, to, at, flags, payload),
                17 => udp(source, destination, from, to, payload),
                58 => icmpv6(source, destination, 128, 0, payload),
                next_header => Ipv6Packet { source, destination, next_header }.build(payload),
            });
            at = at.wrapping_add(payload.len() as u32);
        }
        let mut header = Header::default();
        let mut packet = segments[0].clone();
        if segments.len() > 1 {
            // As the kernel gives it: the checksum is that of the pseudo-header.
            let (gso, csum_offset, hdr_len) =
                if meta.protocol == 6 { (Gso::Tcp6, 16, 72) } else { (Gso::Udp, 6, 48) };
            packet = if meta.protocol == 6 {
                self.next_tcp = at;
                tcp(source, destination, from, to, sequence, flags, &whole)
            } else {
                udp(source, destination, from, to, &whole)
            };
            let len = packet.len() - 40;
            let sum = Sum::ZERO.add_pseudo_header(&packet[8..40], len, meta.protocol).partial();
            let field = 40 + usize::from(csum_offset);
            packet[field..field + 2].copy_from_slice(&sum);
            header = Header {
                needs_csum: true,
                data_valid: false,
                gso,
                gso_size: size as u16,
                hdr_len,
                csum_start: 40,
                csum_offset,
            };
        } else if meta.protocol == 6 {
            self.next_tcp = at;
        }
        for packet in segments.iter_mut().chain([&mut packet]) {
            packet[0] = 0x60 | class >> 4;
            packet[1] = class << 4;
        }
        if meta.protocol == 58 || meta.protocol == 99 {
            meta.ports = [0; 2];
        }

        let end = &mut self.ends[side];
        let mut expected = self.model.send(side, worker, meta, &segments);
        let mut verdict = end.outbound[worker].handle_tun(self.now, &header, &packet, &mut end.world);
        if let (Fate::HandOff(owner), Verdict::HandOff(other)) = (&expected, verdict) {
            assert_eq!(*owner, other, "to the wrong worker");
            verdict = end.outbound[other].handle_tun(self.now, &header, &packet, &mut end.world);
            expected = self.model.send(side, other, meta, &segments);
        }
        assert_eq!((expected, verdict), (Fate::Done, Verdict::Done));
        // Errors go back to who sent.
        for (_, header, message) in end.world.tun.drain(..) {
            assert_eq!(header, Header::default());
            assert_eq!((message[6], &message[24..40]), (58, &packet[8..24]), "an answer to somebody else");
            assert!(message[40] == 1 || message[40] == 2, "no error");
        }
    }

    /// Octets with a number of their own; the rest can be compressed or not.
    fn payload(&mut self, len: usize, noise: bool) -> Vec<u8> {
        self.number += 1;
        let mut payload = self.number.to_be_bytes().to_vec();
        let mut state = self.number as u32 | 1;
        while payload.len() < len {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            payload.push(if noise { (state >> 24) as u8 } else { b'x' });
        }
        payload
    }
}
