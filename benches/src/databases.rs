//! The SPD and the SAD of a broker with many clients.

use ferry6_crypto::{Spi, provider::OsRandom};
use ferry6_ike::TrafficSelector;
use ferry6_ike::config::SpiGenerator;
use ferry6_tun_router::classify::{Flow, Ports, SelectorPair};
use ferry6_tun_router::sad::{Sad, SpisInUse, SteeringSpis};
use ferry6_tun_router::spd::{Policy, Spd};
use std::net::Ipv6Addr;
use std::sync::Arc;

/// So many clients, each with an address of its own.
#[derive(Clone, Copy, Debug)]
pub struct Clients(pub u32);

const fn address(client: u32) -> u128 {
    (0x2a00 << 112) | (client as u128 + 0x100)
}

impl Clients {
    /// A client's address.
    pub fn address(client: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits(address(client))
    }

    /// A packet to a client.
    #[inline]
    pub fn flow(client: u32) -> Flow {
        Flow { source: 1, destination: address(client), protocol: 6, ports: Ports::Known(80, 40_000) }
    }

    /// 65,536 client numbers in a scattered order, each so many times in a row.
    pub fn order(self, burst: usize) -> Vec<u32> {
        let mut state = 1_u32;
        let next = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((u64::from(state) * u64::from(self.0)) >> 32) as u32
        });
        next.flat_map(|client| std::iter::repeat_n(client, burst)).take(1 << 16).collect()
    }

    /// One policy per client: `::/0 === address/128`.
    pub fn spd(self) -> Spd {
        let mut spd = Spd::default();
        for i in 0..self.0 {
            let remote = TrafficSelector::host_v6(Ipv6Addr::from_bits(address(i)));
            let selectors = Arc::new(SelectorPair::new(&[TrafficSelector::ANY_V6], &[remote]));
            spd.insert(Policy { reqid: i + 1, owner: 0 }, selectors);
        }
        spd
    }

    /// One inbound SA per client, all of one worker, and the SPIs.
    pub fn sad(self) -> (Sad<u64>, Vec<Spi>) {
        let (mut sad, in_use) = (Sad::default(), SpisInUse::new(1));
        let mut generator = SteeringSpis::new(Box::new(OsRandom), in_use.clone());
        let spis = (0..self.0)
            .map(|i| {
                let spi = generator.generate();
                in_use.add(spi);
                sad.insert(spi, Box::new(u64::from(i)));
                spi
            })
            .collect();
        (sad, spis)
    }
}

/// Goes through a list again and again.
#[derive(Debug)]
pub struct Endless<T>(Vec<T>, usize);

impl<T: Copy> Endless<T> {
    /// Through this list, which is not empty.
    pub fn new(list: Vec<T>) -> Self {
        Self(list, 0)
    }

    /// The next one.
    #[inline]
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> T {
        self.1 = if self.1 + 1 < self.0.len() { self.1 + 1 } else { 0 };
        self.0[self.1]
    }
}
