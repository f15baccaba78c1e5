//! When a client tries again.

use ferry6_ike::event::{CloseReason, Closed};
use std::time::Duration;

/// What kind of failure it was: how soon another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Something that may be over in a second: no answer, no name, a tunnel that was deleted.
    Passing,
    /// The broker says no, or we do: only a human can change that, but it may have changed by the next try.
    Refused,
}

impl Failure {
    pub(super) fn of(closed: &Closed) -> Self {
        match closed.reason {
            CloseReason::PeerRefused(_) | CloseReason::WeRefused(_) | CloseReason::PeerMisbehaved(_) => {
                Self::Refused
            }
            _ => Self::Passing,
        }
    }
}

/// Grows with each failure in a row; a tunnel that held for a while starts it anew.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

/// A tunnel that was up for so long was a success.
const HELD: Duration = Duration::from_secs(30);

impl Backoff {
    /// A tunnel ended that had been up for so long.
    pub(super) fn was_up(&mut self, time: Duration) {
        if time >= HELD {
            self.failures = 0;
        }
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next try. `random` (0..=255) adds up to a quarter, so that the clients of a broker that was
    /// restarted do not come all at once.
    pub(super) fn next(&mut self, failure: Failure, random: u8) -> Duration {
        let (first, most) = match failure {
            Failure::Passing => (1_000_u64, 30_000_u64),
            Failure::Refused => (5_000, 300_000),
        };
        let wait = first.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(wait + wait / 4 * u64::from(random) / 255)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_starts_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..7).map(|_| backoff.next(Failure::Passing, 0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        backoff.was_up(Duration::from_secs(1));
        assert_eq!(backoff.next(Failure::Passing, 0).as_secs(), 30);
        backoff.was_up(HELD);
        assert_eq!(backoff.next(Failure::Refused, 0).as_secs(), 5);
        let long = (0..40).map(|_| backoff.next(Failure::Refused, 255)).max();
        assert_eq!(long, Some(Duration::from_secs(375)));
    }
}
