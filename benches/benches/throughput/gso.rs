//! Splitting a TCP super-packet into its segments, checksums and copy included; the columns are of the whole super-packet.

use divan::{Bencher, black_box, counter::BytesCount};
use ferry6_benches::workers::Traffic;
use ferry6_tun_router::gso::Segments;

#[divan::bench(max_time = 0.2)]
fn split(bencher: Bencher<'_, '_>) {
    let (header, packet) = Traffic::Super.reads().remove(0);
    let mut out = vec![0; 2 * packet.len()];
    bencher.counter(BytesCount::new(packet.len())).bench_local(|| {
        let segments = Segments::new(&header, black_box(&packet)).expect("a super-packet");
        (0..segments.count()).fold(0, |used, index| used + segments.write(index, &mut out[used..]))
    });
}

/// The copy alone, for comparison.
#[divan::bench(max_time = 0.2)]
fn copy(bencher: Bencher<'_, '_>) {
    let (_, packet) = Traffic::Super.reads().remove(0);
    let mut out = vec![0; packet.len()];
    bencher.counter(BytesCount::new(packet.len())).bench_local(|| {
        out.copy_from_slice(black_box(&packet));
        out.last().copied()
    });
}
