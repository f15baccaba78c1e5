//! A lookup in the SPD and in the SAD as they grow. The time should be flat.

use divan::{Bencher, black_box};
use ferry6_crypto::Spi;
use ferry6_ike::TrafficSelector;
use ferry6_tun_router::classify::{Flow, Ports, SelectorPair};
use ferry6_tun_router::sad::Sad;
use ferry6_tun_router::spd::{Policy, Spd};
use std::net::Ipv6Addr;
use std::sync::Arc;

const ENTRIES: [u32; 6] = [1, 10, 100, 1000, 10_000, 100_000];

/// The address of client number `i`.
fn client(i: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits((0x2a00 << 112) | (u128::from(i) + 0x100))
}

/// Numbers below `count` in a scattered order, so that the caches are as in earnest.
fn scattered(count: u32) -> impl FnMut() -> u32 {
    let mut state = 1_u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(state) * u64::from(count)) >> 32) as u32
    }
}

/// A broker: one policy per client, `::/0 === client/128`.
#[divan::bench(args = ENTRIES, max_time = 0.2)]
fn spd(bencher: Bencher<'_, '_>, count: u32) {
    let mut spd = Spd::default();
    for i in 0..count {
        let remote = TrafficSelector::host_v6(client(i));
        let selectors = Arc::new(SelectorPair::new(&[TrafficSelector::ANY_V6], &[remote]));
        spd.insert(Policy { reqid: i + 1, owner: 0 }, selectors);
    }
    let mut next = scattered(count);
    bencher.bench_local(|| {
        let flow = Flow {
            source: 1,
            destination: client(next()).to_bits(),
            protocol: 6,
            ports: Ports::Known(80, 40_000),
        };
        spd.lookup(black_box(&flow)).expect("each client has a policy")
    });
}

#[divan::bench(args = ENTRIES, max_time = 0.2)]
fn sad(bencher: Bencher<'_, '_>, count: u32) {
    let spi = |i: u32| Spi::new(i.wrapping_mul(0x9e37_79b1) | 0x8000_0000).expect("above 255");
    let mut sad = Sad::default();
    for i in 0..count {
        sad.insert(spi(i), Box::new(u64::from(i)));
    }
    let mut next = scattered(count);
    bencher.bench_local(|| {
        let sa = sad.get_mut(black_box(spi(next()))).expect("each SPI has an SA");
        *sa += 1;
        *sa
    });
}
