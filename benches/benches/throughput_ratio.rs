//! Ratios that a drifting machine does not spoil: what is compared takes turns, batch by batch, and each figure is the median
//! of its batches. `cargo bench --bench throughput_ratio -- [esp] [libraries] [worker] [databases] [handshake]`; without an argument all.
//!
//! The bare cipher is the provider's own library called without any crate of ours between, on as many octets and with as
//! much AAD as ESP has. For AES-CBC with HMAC, which no library has as one call, it is our own `SealingKey` and
//! `OpeningKey`, IV included, packet by packet.

#[path = "throughput_ratio/databases.rs"]
mod databases;
#[path = "throughput_ratio/esp.rs"]
mod esp;
#[path = "throughput_ratio/handshake.rs"]
mod handshake;
#[path = "throughput_ratio/libraries.rs"]
mod libraries;
#[path = "throughput_ratio/worker.rs"]
mod worker;

use std::time::{Duration, Instant};

/// The median, in ns for each of so many.
fn median(mut samples: Vec<Duration>, each: usize) -> f64 {
    samples.sort_unstable();
    samples[samples.len() / 2].as_nanos() as f64 / each as f64
}

/// How long `work` takes.
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn main() {
    let parts: [(&str, fn()); 5] = [
        ("esp", esp::run),
        ("libraries", libraries::run),
        ("worker", worker::run),
        ("databases", databases::run),
        ("handshake", handshake::run),
    ];
    // Cargo hands over `--bench`, and the filter of `cargo bench throughput`.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| parts.iter().any(|(name, _)| name == arg)).collect();
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part();
        }
    }
}
