//! How many first messages an endpoint listens to, of those whose senders have not shown where they are (RFC 7296 section 2.6).
//!
//! To ask for a cookie stores nothing, but it costs a PRF and a datagram to somebody who, in a flood, never asked. So there is a
//! rate for that. Alone it would make an honest newcomer as unlikely to be heard as any of the flood. What sets that one apart:
//! it comes again, the very same, when no answer came (section 2.1), while each message of a flood of spoofed ones
//! comes once. So what was passed over is remembered as a few bits, and what comes again has a rate of its own.

use crate::half_open::Rate;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// First messages without a cookie that are listened to in a second, and again as many of those that come again.
const RATE: usize = 5_000;
/// So many of them at once.
const BURST: usize = 2_500;
/// Messages of another major version that are answered in a second.
const REFUSALS: usize = 100;

/// What strangers may ask.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    first: Option<Rate>,
    again: Option<Rate>,
    refusals: Option<Rate>,
    /// There once there was a flood.
    passed_over: Option<PassedOver>,
}

impl Strangers {
    /// Whether this first message is listened to. `key` is secret, and makes the memory unpredictable.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        source: SocketAddr,
        spi: u64,
        key: impl FnOnce() -> u64,
    ) -> bool {
        Rate::of(&mut self.first, now).take_of(now, RATE, BURST)
            || self.passed_over.get_or_insert_with(|| PassedOver::new(now, key())).note(now, source, spi)
                && Rate::of(&mut self.again, now).take_of(now, RATE, BURST)
    }

    /// Whether a message of another version is answered.
    pub(crate) fn refuse(&mut self, now: Instant) -> bool {
        Rate::of(&mut self.refusals, now).take_of(now, REFUSALS, REFUSALS)
    }
}

/// Words of 64 bits in each of the two generations: 2 MiB.
const WORDS: usize = 1 << 18;
/// A generation ends with so many in it: then one in a hundred that it does not have is taken for one that it has.
const FULL: usize = 1 << 20;
/// Or after this time: what was passed over is known for once to twice as long.
const GENERATION: Duration = Duration::from_secs(4);

/// Which first messages were passed over, as a Bloom filter with three bits in one word each, in two generations.
#[derive(Debug)]
struct PassedOver {
    key: u64,
    newer: Box<[u64]>,
    older: Box<[u64]>,
    noted: usize,
    since: Instant,
}

impl PassedOver {
    fn new(now: Instant, key: u64) -> Self {
        let empty = || vec![0; WORDS].into_boxed_slice();
        Self { key, newer: empty(), older: empty(), noted: 0, since: now }
    }

    /// Notes one; whether it was there.
    fn note(&mut self, now: Instant, source: SocketAddr, spi: u64) -> bool {
        let age = now.saturating_duration_since(self.since);
        if self.noted >= FULL || age >= GENERATION {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.fill(0);
            if age >= 2 * GENERATION {
                self.older.fill(0);
            }
            (self.noted, self.since) = (0, now);
        }
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.key);
        source.hash(&mut hasher);
        hasher.write_u64(spi);
        let hash = hasher.finish();
        let word = hash as usize % WORDS;
        let bits = [40, 46, 52].iter().fold(0_u64, |bits, shift| bits | 1 << (hash >> shift & 63));
        let has = |generation: &[u64]| generation[word] & bits == bits;
        let known = has(&self.newer);
        if !known {
            self.newer[word] |= bits;
            self.noted += 1;
        }
        known || has(&self.older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn source(n: u32) -> SocketAddr {
        (Ipv4Addr::from(n), 500).into()
    }

    /// A flood takes all of the first rate; who comes again a second later is heard all the same, and hardly anybody of the
    /// flood with it.
    #[test]
    fn who_comes_again_is_heard() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        let mut heard = 0;
        let mut hear = |at: Duration, n: u32, spi: u64| strangers.hear(start + at, source(n), spi, || 7);
        // 200,000 a second, for three seconds; honest ones among them: first and third try.
        for n in 0..600_000_u32 {
            let at = Duration::from_micros(5) * n;
            heard += u32::from(hear(at, n, u64::from(n)));
        }
        let right = (3 * RATE + BURST) as u32;
        assert!((right - 10..right + 6_000).contains(&heard), "{heard}, of which few by mistake");
        let mut hear =
            |at: u64, n: u32, spi: u64| strangers.hear(start + Duration::from_secs(at), source(n), spi, || 7);
        let honest = 0xc000_0000..0xc000_03e8_u32;
        let unheard: Vec<u32> = honest.filter(|n| !hear(3, *n, 1)).collect();
        assert!(unheard.len() > 900, "{}: as unlikely as any other", unheard.len());
        // A second later the first rate is used up again.
        let spoofed = (0xa000_0000..0xa000_2710_u32).filter(|n| hear(4, *n, 2)).count();
        assert!(spoofed < BURST + 500, "{spoofed}");
        assert!(unheard.iter().all(|n| hear(4, *n, 1)));
        let other = unheard.iter().filter(|n| hear(4, **n, 9)).count();
        assert!(other < 100, "{other}: another message is not the same again");
    }

    /// Who sends all of a flood twice has the second rate, and no more.
    #[test]
    fn what_comes_again_has_a_rate() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        let mut heard = 0;
        for second in 0..2 {
            for n in 0..100_000_u32 {
                let now = start + Duration::from_secs(second) + Duration::from_micros(10) * n;
                heard += u32::from(strangers.hear(now, source(n), 1, || 7));
            }
        }
        assert!(heard as usize <= 2 * 2 * RATE + 2 * BURST, "{heard}");
    }

    #[test]
    fn what_was_passed_over_is_forgotten() {
        let start = Instant::now();
        let mut passed_over = PassedOver::new(start, 1);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!passed_over.note(at(0), source(1), 1));
        assert!(passed_over.note(at(1), source(1), 1));
        assert!(!passed_over.note(at(1), source(2), 1));
        assert!(passed_over.note(at(5), source(1), 1), "a generation later");
        assert!(!passed_over.note(at(15), source(1), 1), "two later");
        // And when it is full: it never has more bits than that.
        for n in 0..3 * FULL as u32 {
            passed_over.note(at(15), source(n), 2);
        }
        assert!(passed_over.noted <= FULL);
        let mistaken = (0..10_000).filter(|n| passed_over.note(at(15), source(*n), 3)).count();
        assert!(mistaken < 400, "{mistaken} of 10,000");
    }

    #[test]
    fn other_versions_are_answered_at_a_rate() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        assert_eq!((0..1000).filter(|_| strangers.refuse(now)).count(), 100);
        assert!(strangers.refuse(now + Duration::from_secs(1)));
    }
}
