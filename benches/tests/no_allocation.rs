//! A worker takes nothing from the heap for a packet: from the TUN device to the wire, and from the wire to the TUN device.

use allocation_counter::measure;
use ferry6_benches::keys;
use ferry6_benches::workers::{HEADERS, Rig, Traffic};
use ferry6_crypto::{CipherSuite, aws_lc};

const ROUNDS: usize = 4;

#[test]
fn from_device_to_wire_and_back() {
    for suite in CipherSuite::all() {
        for traffic in Traffic::ALL {
            let keys = keys(suite);
            let packets = aws_lc::PROVIDER.packets;
            let (sealing, opening) = (packets.sealing(&keys).unwrap(), packets.opening(&keys).unwrap());
            let mut rig = Rig::new(sealing, opening, traffic);
            let mut rounds: Vec<_> = (0..ROUNDS).map(|_| rig.sealed()).collect();
            let out = measure(|| {
                for _ in 0..ROUNDS {
                    rig.tun_to_udp();
                }
            });
            assert_eq!(out.count_total, 0, "outbound, {suite}, {traffic}");
            let inward = measure(|| rounds.iter_mut().for_each(|datagrams| rig.udp_to_tun(datagrams)));
            assert_eq!(inward.count_total, 0, "inbound, {suite}, {traffic}");
            // Of packets that were put together the headers come once.
            let payload = ROUNDS * traffic.packets() * (traffic.packet_len() - HEADERS);
            assert!(rig.written() > payload, "{} octets came out, less than {payload}", rig.written());
        }
    }
}
