//! Bounds on what strangers make an endpoint remember and compute (RFC 7296 section 2.6).
//!
//! Three rules, in this order. Who has not shown that it receives what we send, by a cookie, costs a computation only as long
//! as there are few such. Who has shown it is admitted, but no source faster than a rate. And the table of half-open IKE SAs
//! has a size: where it is full the oldest goes, never the one that just proved where it is. To push out an honest peer
//! between its two messages somebody would have to fill the whole table in that time, from many true addresses.

use crate::config::HalfOpenLimits;
use crate::strangers::Strangers;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Sources in each of the two generations whose rate is remembered.
const SOURCES: usize = 4096;

/// What the limits say to one more request of IKE_SA_INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admit,
    /// Only with a cookie.
    AskCookie,
    /// It repeated a cookie, and opens more than it may: dropped without an answer.
    TooFast,
}

/// A rate as the time at which all that was admitted would be through at that rate (the generic cell rate algorithm): no more
/// state than one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    through: Instant,
}

impl Rate {
    /// One that begins with its first use.
    pub(crate) fn of(place: &mut Option<Self>, now: Instant) -> &mut Self {
        place.get_or_insert(Self { through: now })
    }

    /// Takes one, where so many a second are allowed, and `burst` of them at once.
    pub(crate) fn take_of(&mut self, now: Instant, per_second: usize, burst: usize) -> bool {
        self.take(now, interval(per_second), burst)
    }

    /// Takes one, where `burst` of them fit: `interval` each.
    fn take(&mut self, now: Instant, interval: Duration, burst: usize) -> bool {
        let next = self.through.max(now) + interval;
        let burst = u32::try_from(burst).unwrap_or(u32::MAX);
        let fits = next - now <= interval.saturating_mul(burst);
        if fits {
            self.through = next;
        }
        fits
    }
}

/// The time between two, at `rate` a second.
fn interval(rate: usize) -> Duration {
    Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX).max(1)
}

/// The rates of the sources seen last, at most twice [`SOURCES`]: when the newer generation is full it becomes the older
/// one. Who is forgotten begins anew with all of its share, which is on the kind side.
#[derive(Debug, Default)]
struct Sources {
    newer: HashMap<IpAddr, Rate>,
    older: HashMap<IpAddr, Rate>,
}

impl Sources {
    fn rate(&mut self, now: Instant, source: IpAddr) -> &mut Rate {
        if self.newer.len() >= SOURCES && !self.newer.contains_key(&source) {
            self.older = std::mem::take(&mut self.newer);
        }
        let known = self.older.remove(&source).unwrap_or(Rate { through: now });
        self.newer.entry(source).or_insert(known)
    }
}

/// A place in a [`Book`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

/// IKE SAs in the order in which they came, and by source.
#[derive(Debug, Default)]
pub(crate) struct Book {
    by_age: BTreeMap<Place, (u64, IpAddr)>,
    /// The places of each, oldest first.
    by_source: HashMap<IpAddr, Vec<Place>>,
    next: u64,
}

impl Book {
    pub(crate) fn add(&mut self, spi: u64, source: IpAddr) -> Place {
        let place = Place(self.next);
        self.next += 1;
        self.by_age.insert(place, (spi, source));
        self.by_source.entry(source).or_default().push(place);
        place
    }

    pub(crate) fn remove(&mut self, place: Place) {
        let Some((_, source)) = self.by_age.remove(&place) else { return };
        if let Some(places) = self.by_source.get_mut(&source) {
            places.retain(|p| *p != place);
            if places.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_age.len()
    }

    /// Which one has to go, so that there is room for one more of this source.
    pub(crate) fn surplus(&self, max: usize, source: IpAddr, per_source: usize) -> Option<u64> {
        let of_source = self.by_source.get(&source).filter(|places| places.len() >= per_source);
        let place = match of_source {
            Some(places) => places.first(),
            None => self.by_age.first_key_value().map(|(place, _)| place).filter(|_| self.len() >= max),
        };
        place.and_then(|place| self.by_age.get(place)).map(|(spi, _)| *spi)
    }
}

/// All the bounds of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    /// Half-open IKE SAs.
    pub(crate) half_open: Book,
    /// IKE SAs that are over, and stay to repeat their last answer.
    pub(crate) lingering: Book,
    /// First messages of those who have not shown where they are.
    pub(crate) strangers: Strangers,
    sources: Sources,
    /// What was admitted without a cookie.
    unproven: Option<Rate>,
}

impl Bounds {
    /// About one more request; `proven`: with a cookie of ours.
    pub(crate) fn admission(
        &mut self,
        limits: &HalfOpenLimits,
        now: Instant,
        source: IpAddr,
        proven: bool,
    ) -> Admission {
        let each = interval(limits.per_source_rate);
        let limited = limits.per_source_rate > 0;
        if proven {
            let fits = !limited || self.sources.rate(now, source).take(now, each, limits.per_source);
            return if fits { Admission::Admit } else { Admission::TooFast };
        }
        // Not more without a cookie than half-open ones are allowed without, in number and each second: what is refused
        // after the computation leaves nothing half-open.
        let few = self.half_open.len() < limits.cookie_from.min(limits.max)
            && Rate::of(&mut self.unproven, now).take_of(now, limits.cookie_from, limits.cookie_from);
        // A quarter of a source's share at most, so that a spoofer cannot lock out whom it imitates.
        let quarter = limits.per_source / 4 + 1;
        let of_source = self.half_open.by_source.get(&source).map_or(0, Vec::len);
        let modest = few
            && of_source < quarter
            && (!limited || self.sources.rate(now, source).take(now, each, quarter));
        if modest { Admission::Admit } else { Admission::AskCookie }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn source(n: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    const LIMITS: HalfOpenLimits = HalfOpenLimits {
        cookie_from: 64,
        max: 1000,
        per_source: 32,
        per_source_rate: 10,
        lifetime: Duration::from_secs(30),
    };

    #[test]
    fn a_proven_source_has_a_burst_and_then_its_rate() {
        let (mut bounds, start) = (Bounds::default(), Instant::now());
        let mut admitted = |second: u64| {
            let now = start + Duration::from_secs(second);
            let admit = |_: &u32| bounds.admission(&LIMITS, now, source(1), true) == Admission::Admit;
            (0..100).filter(admit).count()
        };
        assert_eq!((admitted(0), admitted(1), admitted(3)), (32, 10, 20));
        assert_eq!(admitted(100), 32, "what is not used is not saved beyond the burst");
        let unlimited = HalfOpenLimits { per_source_rate: 0, ..LIMITS };
        assert!((0..1000).all(|_| bounds.admission(&unlimited, start, source(1), true) == Admission::Admit));
    }

    /// Whoever imitates an address takes a quarter of its share and no more: the rest is for who has a cookie.
    #[test]
    fn a_spoofer_does_not_use_up_the_share_of_whom_it_imitates() {
        let (mut bounds, now) = (Bounds::default(), Instant::now());
        let spoofed =
            (0..1000).filter(|_| bounds.admission(&LIMITS, now, source(1), false) == Admission::Admit);
        assert_eq!(spoofed.count(), 9);
        let honest =
            (0..1000).filter(|_| bounds.admission(&LIMITS, now, source(1), true) == Admission::Admit);
        assert_eq!(honest.count(), 23);
    }

    /// Though nothing stays half-open: what is refused after the computation costs as much.
    #[test]
    fn without_cookies_there_is_a_rate_for_all() {
        let (mut bounds, start) = (Bounds::default(), Instant::now());
        let mut admitted = |now| {
            (0..10_000)
                .filter(|n| bounds.admission(&LIMITS, now, source(*n), false) == Admission::Admit)
                .count()
        };
        assert_eq!(admitted(start), 64);
        assert_eq!(admitted(start + Duration::from_millis(500)), 32);
    }

    #[test]
    fn memory_for_rates_is_bounded_and_the_latest_are_remembered() {
        let (mut bounds, now) = (Bounds::default(), Instant::now());
        for _ in 0..40 {
            bounds.admission(&LIMITS, now, source(0), true);
        }
        for n in 1..100_000 {
            bounds.admission(&LIMITS, now, source(n), true);
            if n % 1000 == 0 {
                assert_eq!(bounds.admission(&LIMITS, now, source(0), true), Admission::TooFast);
            }
        }
        assert!(bounds.sources.newer.len() + bounds.sources.older.len() <= 2 * SOURCES);
    }

    #[test]
    fn the_oldest_goes_first_its_own_before_others() {
        let mut book = Book::default();
        let places: Vec<Place> = (0..4).map(|n| book.add(n, source(u32::from(n != 1)))).collect();
        assert_eq!(book.surplus(5, source(9), 2), None, "there is room");
        assert_eq!(book.surplus(4, source(9), 2), Some(0));
        assert_eq!(book.surplus(5, source(1), 3), Some(0), "of the three of this source the oldest");
        assert_eq!(book.surplus(4, source(0), 1), Some(1));
        places.into_iter().for_each(|place| book.remove(place));
        assert_eq!((book.len(), book.by_source.len()), (0, 0));
    }
}
