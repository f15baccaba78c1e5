//! How near ESP comes to the bare cipher of the same library, in ns per packet.
//!
//! `single`: packets in buffers of their own, sealed one by one. `batch`: packets one behind the other in one buffer, as
//! the send batch has them, sealed as a worker does; the bare cipher of that has the same places, for few of them are aligned, and
//! a cipher with wide registers feels that. There is no opening in batches: each packet is opened where it lies.

use super::{median, timed};
use ferry6_benches::bare::{Bare, bare};
use ferry6_benches::{SIZES, SPI, keys, providers};
use ferry6_crypto::{CipherSuite, CryptoProvider};
use ferry6_esp::{InboundSa, OutboundSa, Overhead, Plain, next_header::IPV6, sealed_len};
use std::hint::black_box;
use std::time::Duration;

/// Batches of each contestant.
const ROUNDS: usize = 60;
/// How long a batch should last.
const BATCH: Duration = Duration::from_micros(60);

/// Times in ns per packet.
struct Line {
    library: &'static str,
    seal: f64,
    seal_batch: f64,
    seal_bare: f64,
    seal_bare_batch: f64,
    open: f64,
    open_bare: f64,
}

fn measure(provider: &CryptoProvider, suite: CipherSuite, payload: usize) -> Line {
    let keys = keys(suite);
    let mut out = OutboundSa::new(provider, SPI, &keys, true).expect("the keys fit");
    let mut batched = OutboundSa::new(provider, SPI, &keys, true).expect("the keys fit");
    let mut inbound = InboundSa::new(provider, SPI, &keys, true, 1024).expect("the keys fit");
    let (library, mut bare) = bare(provider, suite);
    let len = sealed_len(suite, payload);
    let front = Overhead::of(suite).front;
    let text = len - front - suite.icv_len();

    // One packet's time gives the size of a batch.
    let mut packet = vec![0x11; len];
    let one = (0..50)
        .map(|_| {
            timed(|| {
                out.seal(&mut packet, payload, IPV6).expect("there is room");
            })
        })
        .min()
        .expect("50 samples");
    let packets = (BATCH.as_nanos() / one.as_nanos().max(1)).clamp(8, 256) as usize & !7;

    let mut buffers = vec![packet; packets];
    let mut contiguous = vec![0x11; packets * len];
    let plain = vec![Plain { len: payload, next_header: IPV6 }; packets];
    let group = batched.batch_len();
    let mut times: [Vec<Duration>; 6] = Default::default();
    let mut counter = 0;
    for _ in 0..ROUNDS {
        times[0].push(timed(|| {
            for packet in &mut buffers {
                out.seal(packet, payload, IPV6).expect("there is room");
                black_box(packet.last());
            }
        }));
        times[3].push(timed(|| {
            for packet in &mut buffers {
                inbound.open(black_box(packet)).expect("it is fresh");
            }
        }));
        times[1].push(timed(|| {
            for (room, plain) in contiguous.chunks_mut(group * len).zip(plain.chunks(group)) {
                batched.seal_batch(room, plain).expect("there is room");
                black_box(room.last());
            }
        }));
        times[5].push(timed(|| seal_bare(&mut *bare, &mut counter, contiguous.chunks_mut(len), front, text)));
        let mut opened = counter;
        let places = buffers.iter_mut().map(Vec::as_mut_slice);
        times[2].push(timed(|| seal_bare(&mut *bare, &mut counter, places, front, text)));
        // The IV of CBC is part of the packet; the last one opens only the last packet.
        if !suite.is_aead() {
            let whole = buffers.last().expect("a batch").clone();
            buffers.fill(whole);
        }
        times[4].push(timed(|| {
            for packet in &mut buffers {
                opened += 1;
                let (text, tag) = packet[front..].split_at_mut(text);
                bare.open(opened, text, tag);
                black_box(text.last());
            }
        }));
    }
    let [seal, seal_batch, seal_bare, open, open_bare, seal_bare_batch] =
        times.map(|samples| median(samples, packets));
    Line { library, seal, seal_batch, seal_bare, seal_bare_batch, open, open_bare }
}

fn seal_bare<'a>(
    bare: &mut dyn Bare,
    counter: &mut u64,
    packets: impl Iterator<Item = &'a mut [u8]>,
    front: usize,
    text: usize,
) {
    for packet in packets {
        *counter += 1;
        let (text, tag) = packet[front..].split_at_mut(text);
        bare.seal(*counter, text, tag);
        black_box(tag.last());
    }
}

/// Measures and prints.
pub(super) fn run() {
    println!(
        "\nESP against the bare cipher of the same library, ns per packet (medians of {ROUNDS} batches in turns)"
    );
    println!(
        "{:<11} {:<29} {:<10} {:>6}  {:>7} {:>7} {:>5}  {:>8} {:>7} {:>5}  {:>7} {:>7} {:>5}",
        "provider",
        "suite",
        "library",
        "octets",
        "seal",
        "bare",
        "ratio",
        "in batch",
        "bare",
        "ratio",
        "open",
        "bare",
        "ratio"
    );
    for provider in providers() {
        for suite in CipherSuite::all() {
            for payload in SIZES {
                let line = measure(&provider, suite, payload);
                println!(
                    "{:<11} {:<29} {:<10} {payload:>6}  {:>7.0} {:>7.0} {:>5.2}  {:>8.0} {:>7.0} {:>5.2}  {:>7.0} {:>7.0} {:>5.2}",
                    provider.name,
                    suite.to_string(),
                    line.library,
                    line.seal,
                    line.seal_bare,
                    line.seal_bare / line.seal,
                    line.seal_batch,
                    line.seal_bare_batch,
                    line.seal_bare_batch / line.seal_batch,
                    line.open,
                    line.open_bare,
                    line.open_bare / line.open,
                );
            }
        }
    }
}
