//! How long the peer takes to answer: from a request's only send to its answer.

use std::time::{Duration, Instant};

/// What was measured over the path in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtt {
    /// The last sample. It holds the peer's work too: little for an empty INFORMATIONAL, a key exchange for a rekey.
    pub last: Duration,
    /// The mean, of which each sample is an eighth (RFC 6298 section 2).
    pub smoothed: Duration,
    /// When the last sample was taken.
    pub at: Instant,
}

impl Rtt {
    /// Takes a sample. Requests that were repeated give none, as nobody can tell which of them was answered (Karn's algorithm,
    /// RFC 6298 section 3).
    pub(crate) fn sample(before: Option<Self>, sent: Instant, now: Instant) -> Self {
        let last = now.saturating_duration_since(sent);
        let smoothed = before.map_or(last, |rtt| (rtt.smoothed * 7 + last) / 8);
        Self { last, smoothed, at: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_of_each_sample() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let first = Rtt::sample(None, start, start + ms(80));
        assert_eq!((first.last, first.smoothed), (ms(80), ms(80)));
        let second = Rtt::sample(Some(first), start + ms(1000), start + ms(1160));
        assert_eq!((second.last, second.smoothed, second.at), (ms(160), ms(90), start + ms(1160)));
    }
}
