//! Wall time of what each packet costs. The columns are of one call, that is one packet where nothing else is said.
//!
//! Machines drift: compare figures of one run only. How near ESP and the workers come to the bare ciphers, measured in turns, is
//! in `throughput_ratio`, and AES-CBC beside OpenSSL in `throughput_openssl`.

#[path = "throughput/databases.rs"]
mod databases;
#[path = "throughput/esp.rs"]
mod esp;
#[path = "throughput/gro.rs"]
mod gro;
#[path = "throughput/gso.rs"]
mod gso;
#[path = "throughput/handshake.rs"]
mod handshake;
#[path = "throughput/ipcomp.rs"]
mod ipcomp;
#[path = "throughput/replay.rs"]
mod replay;
#[path = "throughput/worker.rs"]
mod worker;

fn main() {
    divan::main();
}
