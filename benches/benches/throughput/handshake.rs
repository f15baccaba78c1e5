//! A handshake in memory, both ends: IKE_SA_INIT and IKE_AUTH with X25519, and one Child SA. What each end of it takes is told
//! by `throughput_ratio`.

use divan::Bencher;
use ferry6_benches::handshakes::{Auth, Handshake};
use ferry6_benches::providers;

#[divan::bench(args = Auth::ALL, max_time = 0.5)]
fn aws_lc(bencher: Bencher<'_, '_>, auth: Auth) {
    let handshake = Handshake::new(providers()[0], auth);
    bencher.bench_local(|| handshake.run());
}

#[divan::bench(args = Auth::ALL, max_time = 0.5)]
fn rustcrypto(bencher: Bencher<'_, '_>, auth: Auth) {
    let handshake = Handshake::new(providers()[1], auth);
    bencher.bench_local(|| handshake.run());
}
