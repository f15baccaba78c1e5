//! A worker in memory against the bare cipher and one copy of the same octets, in the same run: Gbit/s of inner packets per core.
//!
//! With four workers each has a thread and a tunnel of its own, and all run at the same time; the figure is that of one of them
//! while it has a core, so it shows what they take from each other.

use super::{median, timed};
use ferry6_benches::bare::bare;
use ferry6_benches::keys;
use ferry6_benches::workers::{Rig, Traffic};
use ferry6_crypto::{Cipher, CipherSuite, Integ, aws_lc};
use ferry6_esp::{Overhead, sealed_len};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

const ROUNDS: usize = 400;
/// Rounds in a row before the other has its turn: as many as a thread's caches forgive.
const TURN: usize = 8;

/// Times in ns for all packets of one round.
struct Line {
    out: f64,
    bare_out: f64,
    inward: f64,
    bare_in: f64,
}

fn measure(suite: CipherSuite, traffic: Traffic) -> Line {
    let keys = keys(suite);
    let rig = || {
        let packets = aws_lc::PROVIDER.packets;
        let (sealing, opening) = (packets.sealing(&keys), packets.opening(&keys));
        Rig::new(sealing.expect("the keys fit"), opening.expect("the keys fit"), traffic)
    };
    let (mut sender, mut receiver, mut outward) = (rig(), rig(), rig());
    let (_, mut cipher) = bare(&aws_lc::PROVIDER, suite);
    let (packets, plain) = (traffic.packets(), traffic.packet_len());
    let front = Overhead::of(suite).front;
    let len = sealed_len(suite, plain);
    let text = len - front - suite.icv_len();
    let source = vec![0x55; packets * plain];
    let mut sealed = vec![0; packets * len];
    let mut target = vec![0; packets * plain];
    let mut times: [Vec<Duration>; 4] = Default::default();
    let mut counter = 0;
    for _ in 0..ROUNDS / TURN {
        for _ in 0..TURN {
            times[0].push(timed(|| outward.tun_to_udp()));
        }
        let first = counter;
        for _ in 0..TURN {
            // One packet in its place in the send buffer, then sealed there.
            times[1].push(timed(|| {
                for (packet, source) in sealed.chunks_mut(len).zip(black_box(&source).chunks(plain)) {
                    counter += 1;
                    packet[front..][..plain].copy_from_slice(source);
                    let (text, tag) = packet[front..].split_at_mut(text);
                    cipher.seal(counter, text, tag);
                }
                black_box(sealed.last());
            }));
        }
        let mut batches: Vec<_> = (0..TURN).map(|_| sender.sealed()).collect();
        for batch in &mut batches {
            times[2].push(timed(|| receiver.udp_to_tun(batch)));
        }
        // Opening in place destroys: each turn has copies of its own, as the worker's have.
        let mut copies: Vec<_> = (0..TURN).map(|_| sealed.clone()).collect();
        let last = first + ((TURN - 1) * packets) as u64;
        for copy in &mut copies {
            let mut opened = last;
            if !suite.is_aead() {
                // Only the last IV is at hand: the same packet again and again.
                let (rest, whole) = copy.split_at_mut(len * (packets - 1));
                rest.chunks_mut(len).for_each(|packet| packet.copy_from_slice(whole));
            }
            times[3].push(timed(|| {
                for (packet, target) in copy.chunks_mut(len).zip(target.chunks_mut(plain)) {
                    opened += 1;
                    let (text, tag) = packet[front..].split_at_mut(text);
                    cipher.open(opened, text, tag);
                    target.copy_from_slice(&text[..plain]);
                }
                black_box(target.last());
            }));
        }
    }
    assert_eq!(receiver.written() > 0, ROUNDS > 0, "nothing came out");
    let [out, bare_out, inward, bare_in] = times.map(|samples| median(samples, 1));
    Line { out, bare_out, inward, bare_in }
}

/// So many at the same time; the mean of their medians.
fn measure_all(suite: CipherSuite, traffic: Traffic, workers: usize) -> Line {
    let barrier = Barrier::new(workers);
    let lines: Vec<Line> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    measure(suite, traffic)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let mean = |of: fn(&Line) -> f64| lines.iter().map(of).sum::<f64>() / workers as f64;
    Line {
        out: mean(|l| l.out),
        bare_out: mean(|l| l.bare_out),
        inward: mean(|l| l.inward),
        bare_in: mean(|l| l.bare_in),
    }
}

/// Measures and prints.
pub(super) fn run() {
    let suites = [
        CipherSuite::new(Cipher::Aes128Gcm16, None),
        CipherSuite::new(Cipher::Aes256Gcm16, None),
        CipherSuite::new(Cipher::ChaCha20Poly1305, None),
        CipherSuite::new(Cipher::Aes128Cbc, Some(Integ::HmacSha1_96)),
        CipherSuite::new(Cipher::Aes256Cbc, Some(Integ::HmacSha256_128)),
    ];
    println!(
        "\nworkers in memory, Gbit/s of inner packets per core, and against bare cipher + one copy (provider aws-lc, medians of {ROUNDS} rounds)"
    );
    println!(
        "{:<29} {:<9} {:>7}  {:>10} {:>8} {:>6}  {:>10} {:>8} {:>6}",
        "suite", "traffic", "workers", "tun_to_udp", "bare", "ratio", "udp_to_tun", "bare", "ratio"
    );
    for suite in suites.into_iter().flatten() {
        for traffic in [Traffic::Super, Traffic::Packets, Traffic::Small] {
            for workers in [1, 4] {
                let line = measure_all(suite, traffic, workers);
                let bits = (traffic.packets() * traffic.packet_len() * 8) as f64;
                println!(
                    "{:<29} {:<9} {workers:>7}  {:>10.2} {:>8.2} {:>6.2}  {:>10.2} {:>8.2} {:>6.2}",
                    suite.to_string(),
                    traffic.to_string(),
                    bits / line.out,
                    bits / line.bare_out,
                    line.bare_out / line.out,
                    bits / line.inward,
                    bits / line.bare_in,
                    line.bare_in / line.inward,
                );
            }
        }
    }
}
