//! SPD and SAD lookups at 100,000 entries against 100, in turns.
//!
//! `random`: each lookup is another client's, and nothing lies between two: the worst for the caches. `bursts`: eight of one
//! client, then of another, as GRO brings them at the least. `super`: 46, as many as the datagrams of a super-packet.
//! `worker`: all of `Outbound::handle_tun` for a packet of 100 octets to another client each, AES-128-GCM: the
//! dearest way in which the data path looks the SPD up, once per packet. A super-packet is one lookup, too.

use super::{median, timed};
use ferry6_benches::databases::{Clients, Endless};
use ferry6_benches::workers::{Sink, Traffic, new_outbound};
use ferry6_benches::{SPI, keys};
use ferry6_crypto::{Cipher, CipherSuite, Spi, aws_lc};
use ferry6_esp::OutboundSa;
use ferry6_ike::TrafficSelector;
use ferry6_tun_router::classify::SelectorPair;
use ferry6_tun_router::spd::Policy;
use ferry6_tun_router::virtio::Header;
use ferry6_tun_router::worker::{Outbound, OutboundCommand, Verdict};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: usize = 200;
const LOOKUPS: usize = 4096;
const SMALL: u32 = 100;
const LARGE: u32 = 100_000;

/// Runs both in turns; ns per lookup of the small and the large one.
fn compare<T: Copy>(order: [Vec<T>; 2], mut lookup: impl FnMut(usize, T)) -> [f64; 2] {
    let mut order = order.map(Endless::new);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (which, times) in times.iter_mut().enumerate() {
            times.push(timed(|| {
                for _ in 0..LOOKUPS {
                    lookup(which, black_box(order[which].next()));
                }
            }));
        }
    }
    times.map(|samples| median(samples, LOOKUPS))
}

fn print(what: &str, way: &str, [small, large]: [f64; 2]) {
    println!("{what:<5} {way:<8} {small:>8.1} {large:>8.1} {:>6.2}", large / small);
}

/// The outbound half of a broker's worker: [`SMALL`] SAs, each with so many addresses.
struct Broker {
    worker: Outbound,
    io: Sink,
    packet: Vec<u8>,
    now: Instant,
}

impl Broker {
    fn new(addresses: u32) -> Self {
        let (mut worker, mut io) = (Outbound::new(0, Arc::default()), Sink::default());
        let suite = CipherSuite::new(Cipher::Aes128Gcm16, None).expect("there is this suite");
        for reqid in 1..=SMALL {
            let remote: Vec<_> = (0..addresses)
                .map(|i| TrafficSelector::host_v6(Clients::address((reqid - 1) * addresses + i)))
                .collect();
            let selectors = Arc::new(SelectorPair::new(&[TrafficSelector::ANY_V6], &remote));
            worker.handle_command(OutboundCommand::SetPolicy(Policy { reqid, owner: 0 }, selectors), &mut io);
            let sa = OutboundSa::new(&aws_lc::PROVIDER, SPI, &keys(suite), true).expect("the keys fit");
            worker.handle_command(OutboundCommand::Install(Box::new(new_outbound(reqid, sa)), true), &mut io);
        }
        let (_, packet) = Traffic::Lone.reads().remove(0);
        Self { worker, io, packet, now: Instant::now() }
    }

    fn send(&mut self, client: u32) {
        self.packet[24..40].copy_from_slice(&Clients::address(client).octets());
        let verdict = self.worker.handle_tun(self.now, &Header::default(), &self.packet, &mut self.io);
        assert_eq!(verdict, Verdict::Done);
    }
}

/// Measures and prints.
pub(super) fn run() {
    println!(
        "\nlookups, ns each, with {SMALL} entries and with {LARGE} (medians of {ROUNDS} batches in turns)"
    );
    println!("{:<5} {:<8} {:>8} {:>8} {:>6}", "", "clients", SMALL, LARGE, "ratio");
    let ways = [("random", 1), ("bursts", 8), ("super", 46)];
    let spds = [SMALL, LARGE].map(|count| Clients(count).spd());
    for (way, burst) in ways {
        let order = [SMALL, LARGE].map(|count| Clients(count).order(burst));
        let times = compare(order, |which, client| {
            black_box(spds[which].lookup(&Clients::flow(client)));
        });
        print("SPD", way, times);
    }
    let mut workers = [SMALL, LARGE].map(|addresses| Broker::new(addresses / SMALL));
    let order = [SMALL, LARGE].map(|count| Clients(count).order(1));
    print("SPD", "worker", compare(order, |which, client| workers[which].send(client)));
    let (mut sads, spis): (Vec<_>, Vec<_>) =
        [SMALL, LARGE].map(|count| Clients(count).sad()).into_iter().unzip();
    for (way, burst) in ways {
        let order: [Vec<Spi>; 2] = [0, 1].map(|which| {
            let clients = Clients([SMALL, LARGE][which]).order(burst);
            clients.into_iter().map(|client| spis[which][client as usize]).collect()
        });
        let times = compare(order, |which, spi| {
            black_box(sads[which].get_mut(spi).map(std::ptr::from_mut));
        });
        print("SAD", way, times);
    }
}
