//! A lookup in the SPD and in the SAD as they grow. The time should be flat.
//!
//! `random`: each lookup is another client's, the worst for the caches. `bursts`: eight of one client, then of another,
//! as super-packets and GRO bring them at the least. Neither touches what was found.

use divan::{Bencher, black_box};
use ferry6_benches::databases::{Clients, Endless};

const ENTRIES: [u32; 6] = [1, 10, 100, 1000, 10_000, 100_000];

fn spd(bencher: Bencher<'_, '_>, count: u32, burst: usize) {
    let spd = Clients(count).spd();
    let mut order = Endless::new(Clients(count).order(burst));
    bencher.bench_local(|| spd.lookup(black_box(&Clients::flow(order.next()))));
}

#[divan::bench(args = ENTRIES, sample_size = 4096, sample_count = 100)]
fn spd_random(bencher: Bencher<'_, '_>, count: u32) {
    spd(bencher, count, 1);
}

#[divan::bench(args = ENTRIES, sample_size = 4096, sample_count = 100)]
fn spd_bursts(bencher: Bencher<'_, '_>, count: u32) {
    spd(bencher, count, 8);
}

fn sad(bencher: Bencher<'_, '_>, count: u32, burst: usize) {
    let (mut sad, spis) = Clients(count).sad();
    let order = Clients(count).order(burst).into_iter().map(|client| spis[client as usize]);
    let mut order = Endless::new(order.collect());
    bencher.bench_local(|| sad.get_mut(black_box(order.next())).map(std::ptr::from_mut));
}

#[divan::bench(args = ENTRIES, sample_size = 4096, sample_count = 100)]
fn sad_random(bencher: Bencher<'_, '_>, count: u32) {
    sad(bencher, count, 1);
}

#[divan::bench(args = ENTRIES, sample_size = 4096, sample_count = 100)]
fn sad_bursts(bencher: Bencher<'_, '_>, count: u32) {
    sad(bencher, count, 8);
}
