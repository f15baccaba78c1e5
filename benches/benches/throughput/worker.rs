//! A worker in memory: one call is all that [`Traffic`] brings in one go, and `max_time` goes round the suites.

use divan::{Bencher, counter::BytesCount};
use ferry6_benches::keys;
use ferry6_benches::workers::{Rig, Traffic};
use ferry6_crypto::{Cipher, CipherSuite, Integ, aws_lc};
use std::fmt;

#[derive(Clone, Copy)]
struct Case {
    suite: CipherSuite,
    traffic: Traffic,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.suite, self.traffic)
    }
}

fn cases() -> Vec<Case> {
    let suites = [
        CipherSuite::new(Cipher::Aes128Gcm16, None),
        CipherSuite::new(Cipher::ChaCha20Poly1305, None),
        CipherSuite::new(Cipher::Aes256Cbc, Some(Integ::HmacSha256_128)),
    ];
    suites
        .into_iter()
        .flatten()
        .flat_map(|suite| Traffic::ALL.map(|traffic| Case { suite, traffic }))
        .collect()
}

impl Case {
    fn rig(self) -> Rig {
        let keys = keys(self.suite);
        let packets = aws_lc::PROVIDER.packets;
        let (sealing, opening) = (packets.sealing(&keys), packets.opening(&keys));
        Rig::new(sealing.expect("the keys fit"), opening.expect("the keys fit"), self.traffic)
    }

    fn octets(self) -> BytesCount {
        BytesCount::new(self.traffic.packets() * self.traffic.packet_len())
    }
}

#[divan::bench(args = cases(), max_time = 0.3)]
fn tun_to_udp(bencher: Bencher<'_, '_>, case: Case) {
    let mut rig = case.rig();
    bencher.counter(case.octets()).bench_local(|| rig.tun_to_udp());
}

#[divan::bench(args = cases(), max_time = 0.3, sample_size = 8)]
fn udp_to_tun(bencher: Bencher<'_, '_>, case: Case) {
    let mut sender = case.rig();
    let mut rig = case.rig();
    bencher
        .counter(case.octets())
        .with_inputs(|| sender.sealed())
        .bench_local_refs(|datagrams| rig.udp_to_tun(datagrams));
    assert!(rig.written() > 0, "nothing came out");
}
