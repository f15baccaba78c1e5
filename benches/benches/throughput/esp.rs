//! `seal` and `open` per suite, size and provider, beside the same provider's bare cipher on as many octets.

use divan::{Bencher, counter::BytesCount};
use ferry6_benches::{SIZES, SPI, keys, providers};
use ferry6_crypto::provider::LANES;
use ferry6_crypto::{CipherSuite, CryptoProvider};
use ferry6_esp::{InboundSa, OutboundSa, Overhead, Plain, next_header::IPV6, sealed_len};
use std::fmt;

#[derive(Clone)]
struct Case {
    provider: CryptoProvider,
    suite: CipherSuite,
    payload: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.provider.name, self.suite, self.payload)
    }
}

impl Case {
    /// Octets that are encrypted: payload, padding and trailer.
    fn text_len(&self) -> usize {
        sealed_len(self.suite, self.payload) - Overhead::of(self.suite).front - self.suite.icv_len()
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for provider in providers() {
        for suite in CipherSuite::all() {
            cases.extend(SIZES.map(|payload| Case { provider, suite, payload }));
        }
    }
    cases
}

#[divan::bench(args = cases(), max_time = 0.06)]
fn seal(bencher: Bencher<'_, '_>, case: &Case) {
    let mut sa = OutboundSa::new(&case.provider, SPI, &keys(case.suite), true).expect("the keys fit");
    let mut buffer = vec![0x11; sealed_len(case.suite, case.payload)];
    bencher.counter(BytesCount::new(case.payload)).bench_local(|| {
        sa.seal(&mut buffer, case.payload, IPV6).expect("there is room");
        buffer.last().copied()
    });
}

/// Eight packets one behind the other, as the send batch has them; the columns are of all eight.
#[divan::bench(args = cases(), max_time = 0.06)]
fn seal_batch(bencher: Bencher<'_, '_>, case: &Case) {
    let mut sa = OutboundSa::new(&case.provider, SPI, &keys(case.suite), true).expect("the keys fit");
    let mut buffer = vec![0x11; LANES * sealed_len(case.suite, case.payload)];
    let plain = [Plain { len: case.payload, next_header: IPV6 }; LANES];
    bencher.counter(BytesCount::new(LANES * case.payload)).bench_local(|| {
        sa.seal_batch(&mut buffer, &plain).expect("there is room");
        buffer.last().copied()
    });
}

#[divan::bench(args = cases(), max_time = 0.06)]
fn seal_bare(bencher: Bencher<'_, '_>, case: &Case) {
    let mut key = case.provider.packets.sealing(&keys(case.suite)).expect("the keys fit");
    let mut text = vec![0x11; case.text_len()];
    let mut iv = vec![0; case.suite.cipher().iv_len()];
    let mut icv = vec![0; case.suite.icv_len()];
    let mut counter = 0;
    bencher.counter(BytesCount::new(case.payload)).bench_local(|| {
        counter += 1;
        key.write_iv(counter, &mut iv);
        key.seal(&[1; 8], &iv, &mut text, &[], &mut icv).expect("the lengths fit");
        icv.last().copied()
    });
}

#[divan::bench(args = cases(), max_time = 0.06)]
fn open(bencher: Bencher<'_, '_>, case: &Case) {
    let keys = keys(case.suite);
    let mut sender = OutboundSa::new(&case.provider, SPI, &keys, true).expect("the keys fit");
    let mut sa = InboundSa::new(&case.provider, SPI, &keys, true, 1024).expect("the keys fit");
    bencher
        .counter(BytesCount::new(case.payload))
        .with_inputs(|| {
            let mut packet = vec![0x11; sealed_len(case.suite, case.payload)];
            sender.seal(&mut packet, case.payload, IPV6).expect("there is room");
            packet
        })
        .bench_local_refs(|packet| sa.open(packet).expect("it is fresh").payload.len());
}

#[divan::bench(args = cases(), max_time = 0.06)]
fn open_bare(bencher: Bencher<'_, '_>, case: &Case) {
    let keys = keys(case.suite);
    let mut sealing = case.provider.packets.sealing(&keys).expect("the keys fit");
    let mut opening = case.provider.packets.opening(&keys).expect("the keys fit");
    let mut iv = vec![0; case.suite.cipher().iv_len()];
    sealing.write_iv(1, &mut iv);
    bencher
        .counter(BytesCount::new(case.payload))
        .with_inputs(|| {
            let (mut text, mut icv) = (vec![0x11; case.text_len()], vec![0; case.suite.icv_len()]);
            sealing.seal(&[1; 8], &iv, &mut text, &[], &mut icv).expect("the lengths fit");
            (text, icv)
        })
        .bench_local_refs(|(text, icv)| opening.open(&[1; 8], &iv, text, &[], icv).expect("it is whole"));
}
