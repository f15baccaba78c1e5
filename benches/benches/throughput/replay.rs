//! The anti-replay window: check and accept of one number.

use divan::{Bencher, black_box};
use ferry6_esp::replay::ReplayWindow;

const WINDOWS: [u32; 3] = [64, 1024, 65_536];

fn feed(window: &mut ReplayWindow, low: u32) -> bool {
    match window.check(black_box(low)) {
        Ok(candidate) => window.accept(candidate),
        Err(_) => false,
    }
}

#[divan::bench(args = WINDOWS, max_time = 0.1)]
fn in_order(bencher: Bencher<'_, '_>, size: u32) {
    let (mut window, mut low) = (ReplayWindow::new(size, true), 0_u32);
    bencher.bench_local(|| {
        low = low.wrapping_add(1);
        feed(&mut window, low)
    });
}

/// Each eight arrive in reverse.
#[divan::bench(args = WINDOWS, max_time = 0.1)]
fn reordered(bencher: Bencher<'_, '_>, size: u32) {
    let (mut window, mut i) = (ReplayWindow::new(size, true), 8_u32);
    bencher.bench_local(|| {
        i = i.wrapping_add(1);
        feed(&mut window, i ^ 7)
    });
}

/// Every packet is half a window ahead: the most words are cleared.
#[divan::bench(args = WINDOWS, max_time = 0.1)]
fn jumps(bencher: Bencher<'_, '_>, size: u32) {
    let (mut window, mut low) = (ReplayWindow::new(size, true), 0_u32);
    bencher.bench_local(|| {
        low = low.wrapping_add(size / 2);
        feed(&mut window, low)
    });
}

#[divan::bench(args = WINDOWS, max_time = 0.1)]
fn duplicates(bencher: Bencher<'_, '_>, size: u32) {
    let mut window = ReplayWindow::new(size, true);
    feed(&mut window, 1000);
    bencher.bench_local(|| feed(&mut window, 1000));
}
