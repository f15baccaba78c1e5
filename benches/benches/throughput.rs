//! Wall time of what each packet costs. The columns are of one call, that is one packet.
//!
//! Machines drift: compare figures of one run only. How near ESP comes to the bare ciphers, measured in turns, is in
//! `throughput_ratio`.

#[path = "throughput/databases.rs"]
mod databases;
#[path = "throughput/esp.rs"]
mod esp;
#[path = "throughput/ipcomp.rs"]
mod ipcomp;
#[path = "throughput/replay.rs"]
mod replay;
#[path = "throughput/worker.rs"]
mod worker;

fn main() {
    divan::main();
}
