//! Coalescing 46 packets of 1400 octets: parsed, checksums verified, put together, written; the columns are of all 46.

use divan::{Bencher, black_box, counter::BytesCount};
use ferry6_benches::workers::{Sink, Traffic};
use ferry6_tun_router::classify;
use ferry6_tun_router::gro::{Buffers, Coalescer, Place};
use ferry6_tun_router::gso::Segments;

/// The segments of a super-packet, one behind the other, and where each is.
fn segments() -> (Vec<u8>, Vec<(usize, usize)>) {
    let (header, packet) = Traffic::Super.reads().remove(0);
    let segments = Segments::new(&header, &packet).expect("a super-packet");
    let mut octets = vec![0; segments.count() * segments.max_len()];
    let mut places = Vec::new();
    let mut used = 0;
    for index in 0..segments.count() {
        let len = segments.write(index, &mut octets[used..]);
        places.push((used, len));
        used += len;
    }
    (octets, places)
}

fn coalesce(bencher: Bencher<'_, '_>, device_takes_them: bool) {
    let (original, places) = segments();
    let mut coalescer = Coalescer::new(device_takes_them, device_takes_them);
    let mut sink = Sink::default();
    bencher
        .counter(BytesCount::new(original.len()))
        // The headers of the first packet are rewritten in place.
        .with_inputs(|| original.clone())
        .bench_local_refs(|octets| {
            let mut buffers = Buffers { received: octets, inflated: &mut [] };
            for (start, len) in &places {
                let parsed = classify::parse(&buffers.received[*start..][..*len]).expect("a packet");
                coalescer.push(&buffers, Place::Received, *start, black_box(&parsed), 0);
            }
            coalescer.flush(&mut buffers, &mut sink);
        });
    assert!(sink.written > 0, "nothing came out");
}

#[divan::bench(max_time = 0.2)]
fn one_flow(bencher: Bencher<'_, '_>) {
    coalesce(bencher, true);
}

/// To a device that takes no super-packets: each packet is written by itself.
#[divan::bench(max_time = 0.2)]
fn none(bencher: Bencher<'_, '_>) {
    coalesce(bencher, false);
}
