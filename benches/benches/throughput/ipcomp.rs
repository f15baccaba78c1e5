//! IPComp of one packet. `random` is tried each time, `adaptive` is the same data with the hold-off at work.

use divan::{Bencher, counter::BytesCount};
use ferry6_benches::{noise, text};
use ferry6_esp::ipcomp::{Compressor, Decompressor, Deflater, Inflater};
use ferry6_esp::next_header::IPV6;

const SIZES: [usize; 3] = [256, 1400, 9000];
/// zlib's quickest level and its default.
const LEVELS: [u32; 2] = [1, 6];

fn compress(bencher: Bencher<'_, '_>, packet: &[u8], level: u32, adaptive: bool) {
    let mut deflater = Deflater::with_level(level);
    let mut compressor = Compressor::new(1000);
    let mut out = vec![0; packet.len()];
    bencher.counter(BytesCount::new(packet.len())).bench_local(|| {
        if !adaptive {
            compressor = Compressor::new(1000);
        }
        compressor.compress(&mut deflater, packet, IPV6, &mut out)
    });
}

#[divan::bench(args = SIZES, consts = LEVELS, max_time = 0.15)]
fn deflate_text<const LEVEL: u32>(bencher: Bencher<'_, '_>, len: usize) {
    compress(bencher, &text(len), LEVEL, false);
}

#[divan::bench(args = SIZES, consts = LEVELS, max_time = 0.15)]
fn deflate_random<const LEVEL: u32>(bencher: Bencher<'_, '_>, len: usize) {
    compress(bencher, &noise(len), LEVEL, false);
}

#[divan::bench(args = SIZES, max_time = 0.15)]
fn deflate_adaptive(bencher: Bencher<'_, '_>, len: usize) {
    compress(bencher, &noise(len), 1, true);
}

#[divan::bench(args = SIZES, max_time = 0.15)]
fn inflate_text(bencher: Bencher<'_, '_>, len: usize) {
    let packet = text(len);
    let mut out = vec![0; len];
    let sent = Compressor::new(1000)
        .compress(&mut Deflater::new(), &packet, IPV6, &mut out)
        .expect("text gets smaller");
    let (mut inflater, mut inner) = (Inflater::new(), vec![0; len]);
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        Decompressor::new(1000).decompress(&mut inflater, &out[..sent], &mut inner).expect("it is whole")
    });
}
