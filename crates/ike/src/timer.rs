//! Timers: one array per IKE SA, one ordered set for the endpoint.

use std::collections::BTreeSet;
use std::time::Instant;

/// Everything that an IKE SA may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The request in flight was not answered yet (RFC 7296 section 2.1).
    Retransmit,
    /// A half-open IKE SA waited long enough for IKE_AUTH; a closed one for the answer to its DELETE.
    GiveUp,
    /// Silence: probe the peer (section 2.4).
    Dpd,
    /// Rekey the IKE SA (section 2.8).
    RekeyIke,
    /// The IKE SA was not rekeyed in time.
    ExpireIke,
    /// The peer's authentication is too old (RFC 4478).
    ExpireAuth,
    /// Another IKE SA of the same identity has taken its place.
    Retire,
    /// Try again what the peer refused with TEMPORARY_FAILURE (section 2.25).
    Retry,
    /// The first of the Child SAs' own times.
    Children,
    /// The cached response is older than any retransmission of its request.
    DropCached,
}

impl Timer {
    const ALL: [Self; 10] = [
        Self::Retransmit,
        Self::GiveUp,
        Self::Dpd,
        Self::RekeyIke,
        Self::ExpireIke,
        Self::ExpireAuth,
        Self::Retire,
        Self::Retry,
        Self::Children,
        Self::DropCached,
    ];
}

/// The timers of one IKE SA.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }
    pub(crate) fn set_or_stop(&mut self, timer: Timer, at: Option<Instant>) {
        self.0[timer as usize] = at;
    }
    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }
    pub(crate) fn get(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }
    /// The earliest.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }
    /// Takes off one timer that is due.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<Timer> {
        let timer = Timer::ALL.into_iter().find(|&t| self.get(t).is_some_and(|at| at <= now))?;
        self.stop(timer);
        Some(timer)
    }
}

/// When which IKE SA (by our SPI) is due; the next one is found without a scan.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(BTreeSet<(Instant, u64)>);

impl Deadlines {
    /// Moves an entry; `old` is what was registered.
    pub(crate) fn update(&mut self, spi: u64, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(at) = old {
            self.0.remove(&(at, spi));
        }
        if let Some(at) = new {
            self.0.insert((at, spi));
        }
    }
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|&(at, _)| at)
    }
    /// An IKE SA that is due. It stays in the set until [`Self::update`].
    pub(crate) fn due(&self, now: Instant) -> Option<u64> {
        self.0.first().filter(|&&(at, _)| at <= now).map(|&(_, spi)| spi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_array_gives_the_earliest_and_each_once() {
        let t0 = Instant::now();
        let at = |s| t0 + Duration::from_secs(s);
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(Timer::Dpd, at(5));
        timers.set(Timer::Retransmit, at(2));
        timers.set(Timer::DropCached, at(9));
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.expired(at(1)), None);
        assert_eq!(timers.expired(at(5)), Some(Timer::Retransmit));
        assert_eq!(timers.expired(at(5)), Some(Timer::Dpd));
        assert_eq!(timers.expired(at(5)), None);
        assert_eq!(timers.next(), Some(at(9)));
    }

    #[test]
    fn deadlines_follow_updates() {
        let t0 = Instant::now();
        let at = |s| Some(t0 + Duration::from_secs(s));
        let mut deadlines = Deadlines::default();
        deadlines.update(1, None, at(3));
        deadlines.update(2, None, at(1));
        assert_eq!(deadlines.next(), at(1));
        deadlines.update(2, at(1), at(7));
        assert_eq!(deadlines.next(), at(3));
        assert_eq!(deadlines.due(t0), None);
        assert_eq!(deadlines.due(t0 + Duration::from_secs(3)), Some(1));
        deadlines.update(1, at(3), None);
        deadlines.update(2, at(7), None);
        assert_eq!(deadlines.next(), None);
    }
}
