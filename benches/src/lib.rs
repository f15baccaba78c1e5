//! Benchmarks of ferry6; run `cargo bench throughput`.
