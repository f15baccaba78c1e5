//! Fragments that wait for the rest of their message (RFC 7383 section 2.6), of all IKE SAs together.
//!
//! A message may have 64 KiB, and ten thousand peers may each have sent all but one fragment of one, before they have authenticated
//! themselves: keys of IKE_SA_INIT are anybody's. So what waits is bounded for the whole endpoint: where there is no room,
//! what has waited longest is forgotten. Its sender repeats the message, and an honest one's fragments wait
//! for a moment only.

use crate::wire::sk::{Plain, Reassembly, SkError};
use std::collections::{BTreeMap, HashMap};

/// Octets in all, of fragments and what is kept about them.
const MAX_OCTETS: usize = 16 << 20;
/// What a message costs besides its octets: a place for each of 64 fragments, and one in the books.
const OVERHEAD: usize = 2048;

/// Whose message: our SPI of the IKE SA, and whether it is a response.
pub(crate) type Whose = (u64, bool);

/// One incomplete message.
#[derive(Debug)]
struct Waiting {
    parts: Reassembly,
    /// Its key in the order of age.
    age: u64,
    /// What it is counted with.
    octets: usize,
}

/// All incomplete messages.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    waiting: HashMap<Whose, Waiting>,
    by_age: BTreeMap<u64, Whose>,
    octets: usize,
    next: u64,
}

impl Fragments {
    /// Takes a fragment, as [`Reassembly::insert`] does. The second value: how many messages were forgotten for it.
    pub(crate) fn insert(
        &mut self,
        whose: Whose,
        number: u16,
        total: u16,
        first: u8,
        data: Vec<u8>,
    ) -> (Result<Option<Plain>, SkError>, usize) {
        let waiting = self.waiting.entry(whose).or_insert_with(|| {
            let age = self.next;
            self.next += 1;
            self.by_age.insert(age, whose);
            Waiting { parts: Reassembly::default(), age, octets: 0 }
        });
        let outcome = waiting.parts.insert(number, total, first, data);
        if waiting.parts.is_empty() {
            // It is whole, or was refused.
            self.remove(whose);
            return (outcome, 0);
        }
        let octets = waiting.parts.octets() + OVERHEAD;
        self.octets = self.octets - waiting.octets + octets;
        waiting.octets = octets;
        let mut forgotten = 0;
        while self.octets > MAX_OCTETS
            && let Some((_, &oldest)) = self.by_age.first_key_value()
        {
            self.remove(oldest);
            forgotten += 1;
        }
        (outcome, forgotten)
    }

    /// Forgets what waits of a message.
    pub(crate) fn remove(&mut self, whose: Whose) {
        if let Some(waiting) = self.waiting.remove(&whose) {
            self.by_age.remove(&waiting.age);
            self.octets -= waiting.octets;
        }
    }

    /// Of how many fragments the message is, as far as is known.
    pub(crate) fn total(&self, whose: Whose) -> usize {
        self.waiting.get(&whose).map_or(0, |waiting| waiting.parts.total())
    }

    /// How many messages wait, and their octets.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        assert_eq!(self.waiting.len(), self.by_age.len());
        (self.waiting.len(), self.octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All but one fragment of the largest message that there may be.
    fn fill(fragments: &mut Fragments, whose: Whose) -> usize {
        (1..=63)
            .map(|n| {
                let (outcome, forgotten) = fragments.insert(whose, n, 64, 35, vec![0; 1000]);
                assert_eq!(outcome, Ok(None));
                forgotten
            })
            .sum()
    }

    #[test]
    fn ten_thousand_incomplete_messages_are_bounded_and_the_oldest_goes() {
        let mut fragments = Fragments::default();
        let forgotten: usize = (0..10_000).map(|spi| fill(&mut fragments, (spi, false))).sum();
        let (messages, octets) = fragments.size();
        assert_eq!(messages + forgotten, 10_000);
        assert!(octets <= MAX_OCTETS && octets > MAX_OCTETS - 64 * 1024, "{octets}");
        assert_eq!(fragments.total((9_999, false)), 64, "the youngest are there");
        assert_eq!(fragments.total((0, false)), 0);
        // An honest peer's message comes together meanwhile.
        for n in 1..=3 {
            let (outcome, _) = fragments.insert((77_777, false), n, 3, 35, vec![n as u8; 500]);
            assert_eq!(outcome.unwrap().is_some(), n == 3);
            fill(&mut fragments, (20_000 + u64::from(n), false));
        }
        // And of what was forgotten, if it is sent again.
        fill(&mut fragments, (0, false));
        let (outcome, _) = fragments.insert((0, false), 64, 64, 35, vec![0; 1000]);
        assert_eq!(outcome.unwrap().unwrap().body.len(), 64_000);
    }

    #[test]
    fn what_is_whole_refused_or_removed_takes_no_room() {
        let mut fragments = Fragments::default();
        fill(&mut fragments, (1, false));
        assert!(fragments.insert((1, false), 64, 64, 35, vec![0; 1000]).0.unwrap().is_some());
        assert_eq!(fragments.size(), (0, 0));
        fill(&mut fragments, (1, true));
        assert!(fragments.insert((1, true), 64, 64, 35, vec![0; 3000]).0.is_err());
        assert_eq!(fragments.size(), (0, 0));
        assert!(fragments.insert((1, true), 9, 3, 35, vec![0; 30]).0.is_err());
        assert_eq!(fragments.size(), (0, 0), "numbers that contradict each other");
        fill(&mut fragments, (1, true));
        fill(&mut fragments, (1, false));
        assert_eq!(fragments.size().0, 2, "a request and a response are two");
        fragments.remove((1, true));
        fragments.remove((1, false));
        fragments.remove((1, false));
        assert_eq!(fragments.size(), (0, 0));
    }
}
