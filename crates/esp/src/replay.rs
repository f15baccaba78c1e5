//! The anti-replay window (RFC 4303 section 3.4.3 and appendix A).

/// The window of an SA where nothing else is configured, in packets. RFC 4303 asks for 32 and recommends 64; at a
/// million packets a second, with batches and several paths through a network card, 1024 is one millisecond.
pub const DEFAULT_WINDOW: u32 = 1024;
/// The largest window: 2^20 packets, 256 KiB.
pub const MAX_WINDOW: u32 = 1 << 20;

/// A sliding window over 64-bit sequence numbers.
///
/// [`ReplayWindow::check`] makes a [`Candidate`] before the ICV is verified; only [`ReplayWindow::accept`] eats it,
/// after. So a forged packet can never move the window.
///
/// One bit per number, in a ring of 64-bit words. The ring has at least one word more than the window (RFC 6479), so
/// sliding right clears whole words, each once, and never shifts a bit.
#[derive(Debug)]
pub struct ReplayWindow {
    /// A power of two of words; empty where the check is off.
    ring: Box<[u64]>,
    /// The window in packets, a multiple of 64; the span for inference only where the check is off.
    size: u64,
    /// The highest number accepted; 0 before the first.
    top: u64,
    esn: bool,
}

/// A sequence number that is not yet known, waiting for its ICV.
#[derive(Debug)]
#[must_use]
pub struct Candidate {
    /// The full 64-bit number, with the high half inferred where ESN is on (appendix A2).
    sequence: u64,
}

impl Candidate {
    /// The full sequence number.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// Why a number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Seen before.
    #[error("sequence number seen before")]
    Duplicate,
    /// Left of the window. With ESN such a number is taken for one of the next 2^32 (appendix A2.1), so it fails its
    /// ICV instead.
    #[error("sequence number older than the window")]
    TooOld,
    /// Zero is never sent (RFC 4303 section 2.2).
    #[error("sequence number 0")]
    Zero,
}

impl ReplayWindow {
    /// A window of at least `size` packets: rounded up to a multiple of 64, at most [`MAX_WINDOW`]. 0 switches the
    /// check off; the high half of extended sequence numbers is inferred all the same.
    pub fn new(size: u32, esn: bool) -> Self {
        if size == 0 {
            return Self { ring: Box::new([]), size: 1 << 31, top: 0, esn };
        }
        let words = (size.min(MAX_WINDOW) as usize).div_ceil(64);
        Self {
            ring: vec![0; (words + 1).next_power_of_two()].into_boxed_slice(),
            size: words as u64 * 64,
            top: 0,
            esn,
        }
    }

    /// The window in packets; 0 where the check is off.
    pub fn size(&self) -> u64 {
        if self.ring.is_empty() { 0 } else { self.size }
    }

    /// The highest number accepted so far; 0 before the first packet.
    #[inline]
    pub fn highest(&self) -> u64 {
        self.top
    }

    /// Looks without changing anything.
    ///
    /// # Errors
    /// [`ReplayError`].
    #[inline]
    pub fn check(&self, low: u32) -> Result<Candidate, ReplayError> {
        let sequence = if self.esn { self.infer(low)? } else { u64::from(low) };
        if !self.ring.is_empty() {
            if sequence == 0 {
                return Err(ReplayError::Zero);
            }
            self.unseen(sequence)?;
        }
        Ok(Candidate { sequence })
    }

    /// Marks it as seen. `false` where it was seen in the meantime (nothing changes then).
    #[inline]
    pub fn accept(&mut self, candidate: Candidate) -> bool {
        let sequence = candidate.sequence;
        if self.ring.is_empty() {
            self.top = self.top.max(sequence);
            return true;
        }
        if self.unseen(sequence).is_err() {
            return false;
        }
        if sequence > self.top {
            self.slide(sequence);
        }
        let slot = self.slot(sequence / 64);
        self.ring[slot] |= 1 << (sequence % 64);
        true
    }

    /// As if all up to `top` had come and gone; nothing in the window is marked.
    #[cfg(test)]
    pub(crate) fn start_at(&mut self, top: u64) {
        self.slide(top);
    }

    #[inline]
    fn slot(&self, word: u64) -> usize {
        // the cut to usize keeps all bits that the mask keeps
        word as usize & (self.ring.len() - 1)
    }

    #[inline]
    fn unseen(&self, sequence: u64) -> Result<(), ReplayError> {
        if sequence > self.top {
            return Ok(());
        }
        if self.top - sequence >= self.size {
            return Err(ReplayError::TooOld);
        }
        if self.ring[self.slot(sequence / 64)] >> (sequence % 64) & 1 == 1 {
            return Err(ReplayError::Duplicate);
        }
        Ok(())
    }

    /// Moves the right edge, and clears the words that come into the ring.
    #[inline]
    fn slide(&mut self, top: u64) {
        let from = self.top / 64;
        let entering = (top / 64 - from).min(self.ring.len() as u64);
        for word in 1..=entering {
            let slot = self.slot(from.wrapping_add(word));
            self.ring[slot] = 0;
        }
        self.top = top;
    }

    /// The full number for its low half (RFC 4303 appendix A2.1): the only one of the 2^32 numbers from the left edge
    /// of the window on that ends in `low`.
    ///
    /// The left edge is never below 0, so a number before the first is not thought of; one behind the last would be
    /// a number that no sender reaches, and what it stands for left the window long ago.
    #[inline]
    fn infer(&self, low: u32) -> Result<u64, ReplayError> {
        let bottom = self.top.saturating_sub(self.size - 1);
        bottom.checked_add(u64::from(low.wrapping_sub(bottom as u32))).ok_or(ReplayError::TooOld)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const SEEN: Option<ReplayError> = Some(ReplayError::Duplicate);
    const OLD: Option<ReplayError> = Some(ReplayError::TooOld);

    /// Checks and accepts; the reason of a refusal.
    fn feed(window: &mut ReplayWindow, low: u32) -> Option<ReplayError> {
        match window.check(low) {
            Err(reason) => Some(reason),
            Ok(candidate) => {
                assert!(window.accept(candidate), "accepted right after its check");
                None
            }
        }
    }

    fn run(size: u32, table: &[(u32, Option<ReplayError>)]) {
        let mut window = ReplayWindow::new(size, false);
        for (row, (low, refused)) in table.iter().enumerate() {
            assert_eq!(feed(&mut window, *low), *refused, "row {row}: {low}");
        }
    }

    #[test]
    fn table_of_64() {
        run(
            64,
            &[
                (0, Some(ReplayError::Zero)),
                (1, None),
                (1, SEEN),
                (9, None),
                (8, None),
                (9, SEEN),
                (8, SEEN),
                (64, None),
                (2, None),
                (1, SEEN),
                // the window is 2..=65 now
                (65, None),
                (1, OLD),
                (2, SEEN),
                (3, None),
                (128, None),
                (64, OLD),
                (65, SEEN),
                (66, None),
                (1000, None),
                (936, OLD),
                (937, None),
                (u32::MAX, None),
                (u32::MAX, SEEN),
                (u32::MAX - 63, None),
                (u32::MAX - 64, OLD),
                (1000, OLD),
                (1, OLD),
            ],
        );
    }

    #[test]
    fn words_that_enter_the_ring_are_clean() {
        for size in [1, 64, 65, 1024, 4096] {
            let mut window = ReplayWindow::new(size, false);
            let all = (0..20_000_u32).map(|n| 1 + n);
            for low in all.clone() {
                assert_eq!(feed(&mut window, low), None, "{size} {low}");
            }
            for low in all.rev() {
                let refused = if window.top - u64::from(low) >= window.size() { OLD } else { SEEN };
                assert_eq!(feed(&mut window, low), refused, "{size} {low}");
            }
            for jump in [63, 64, 65, 1023, 1024, 1025, 2047, 2048, 4097, 10_000, 1 << 20, 1 << 30] {
                let before = window.top as u32;
                let low = before + jump;
                assert_eq!(feed(&mut window, low), None, "{size} {jump}");
                let left = low - window.size() as u32;
                assert_eq!(feed(&mut window, left), OLD, "{size} {jump}");
                for inside in (left.max(before) + 1..low).step_by(7) {
                    assert_eq!(feed(&mut window, inside), None, "{size} {jump} {inside}");
                }
            }
        }
    }

    #[test]
    fn the_size_is_rounded_up_and_bounded() {
        for (asked, got) in [(0, 0), (1, 64), (64, 64), (65, 128), (1024, 1024), (u32::MAX, MAX_WINDOW)] {
            assert_eq!(ReplayWindow::new(asked, true).size(), u64::from(got));
        }
    }

    #[test]
    fn a_forged_number_moves_nothing_and_one_number_is_accepted_once() {
        let mut window = ReplayWindow::new(64, false);
        assert_eq!(feed(&mut window, 10), None);
        let forged = window.check(4_000_000_000).unwrap();
        drop(forged);
        assert_eq!(window.highest(), 10);
        let (first, second) = (window.check(11).unwrap(), window.check(11).unwrap());
        assert!(window.accept(first));
        assert!(!window.accept(second));
        // a candidate that fell out of the window while its ICV was verified
        let late = window.check(3).unwrap();
        assert_eq!(feed(&mut window, 500), None);
        assert!(!window.accept(late));
    }

    #[test]
    fn switched_off_it_refuses_nothing_and_still_infers() {
        let mut window = ReplayWindow::new(0, true);
        for (low, full) in
            [(5, 5), (5, 5), (u32::MAX, 0xffff_ffff), (3, 0x1_0000_0003), (u32::MAX, 0xffff_ffff)]
        {
            let candidate = window.check(low).unwrap();
            assert_eq!(candidate.sequence(), full);
            assert!(window.accept(candidate));
        }
        assert_eq!(feed(&mut ReplayWindow::new(0, false), 0), None);
    }

    #[test]
    fn extended_numbers_by_the_cases_of_appendix_a2() {
        // (top, low, full or refused), window 64
        let table = [
            // case A: the window lies within one 2^32
            (0x0000_0001_0000_1000_u64, 0x0000_0fc1, Ok(0x0000_0001_0000_0fc1)),
            (0x0000_0001_0000_1000, 0x0000_2000, Ok(0x0000_0001_0000_2000)),
            (0x0000_0001_0000_1000, 0xffff_ffff, Ok(0x0000_0001_ffff_ffff)),
            (0x0000_0001_0000_1000, 0x0000_0fc0, Ok(0x0000_0002_0000_0fc0)),
            (0x0000_0001_0000_1000, 0x0000_0000, Ok(0x0000_0002_0000_0000)),
            (0x0000_0001_0000_003f, 0x0000_0000, Ok(0x0000_0001_0000_0000)),
            (0x0000_0001_0000_003f, 0xffff_ffff, Ok(0x0000_0001_ffff_ffff)),
            // case B: it spans two
            (0x0000_0001_0000_0010, 0xffff_ffff, Ok(0x0000_0000_ffff_ffff)),
            (0x0000_0001_0000_0010, 0xffff_ffd1, Ok(0x0000_0000_ffff_ffd1)),
            (0x0000_0001_0000_0010, 0xffff_ffd0, Ok(0x0000_0001_ffff_ffd0)),
            (0x0000_0001_0000_0010, 0x0000_0000, Ok(0x0000_0001_0000_0000)),
            (0x0000_0001_0000_0010, 0x0000_0011, Ok(0x0000_0001_0000_0011)),
            // before the first 2^32 there is nothing
            (0, 1, Ok(1)),
            (0, 0xffff_ffff, Ok(0xffff_ffff)),
            (5, 0xffff_ffff, Ok(0xffff_ffff)),
            (5, 0, Err(ReplayError::Zero)),
            // nor behind the last
            (u64::MAX, 0, Err(ReplayError::TooOld)),
            (u64::MAX - 5, 0xffff_ffff, Ok(u64::MAX)),
            (u64::MAX, 0xffff_ffc0, Ok(u64::MAX - 63)),
            (u64::MAX, 0xffff_ffbf, Err(ReplayError::TooOld)),
        ];
        for (top, low, expected) in table {
            let mut window = ReplayWindow::new(64, true);
            window.start_at(top);
            assert_eq!(window.check(low).map(|c| c.sequence()), expected, "{top:#x} {low:#x}");
        }
    }

    /// The window in its plainest form: every number ever accepted.
    struct Model {
        seen: HashSet<u64>,
        top: u64,
        size: u64,
        esn: bool,
    }

    impl Model {
        fn feed(&mut self, low: u32) -> Result<u64, ReplayError> {
            let full = if self.esn { self.infer(low)? } else { u64::from(low) };
            if full == 0 {
                return Err(ReplayError::Zero);
            }
            if full <= self.top && self.top - full >= self.size {
                return Err(ReplayError::TooOld);
            }
            if !self.seen.insert(full) {
                return Err(ReplayError::Duplicate);
            }
            self.top = self.top.max(full);
            Ok(full)
        }

        /// Appendix A2.1 to the letter, with Th, Tl, Bl; what has no high half is told apart at the ends.
        fn infer(&self, low: u32) -> Result<u64, ReplayError> {
            let (th, tl) = (self.top >> 32, self.top & 0xffff_ffff);
            let (seql, w) = (u64::from(low), self.size);
            let seqh = if tl >= w - 1 {
                let bl = tl + 1 - w;
                if seql >= bl { Some(th) } else { Some(th + 1) }
            } else {
                let bl = (tl + (1 << 32) - w + 1) & 0xffff_ffff;
                if seql >= bl { th.checked_sub(1).or(Some(0)) } else { Some(th) }
            };
            match seqh {
                Some(h) if h <= u64::from(u32::MAX) => Ok(h << 32 | seql),
                _ => Err(ReplayError::TooOld),
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Ahead of the highest by so much.
        Ahead(u32),
        /// Behind it by so much.
        Behind(u32),
        /// Any number at all.
        Any(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..5_u32).prop_map(Step::Ahead),
            2 => (0..300_u32).prop_map(Step::Ahead),
            1 => (0..0x8000_0000_u32).prop_map(Step::Ahead),
            4 => (0..80_u32).prop_map(Step::Behind),
            2 => (0..3000_u32).prop_map(Step::Behind),
            1 => any::<u32>().prop_map(Step::Any),
        ]
    }

    proptest! {
        #[test]
        fn the_window_does_what_the_set_of_all_numbers_does(
            size in prop_oneof![1..200_u32, Just(1024), 1..5000_u32],
            esn: bool,
            start in prop_oneof![
                Just(0_u64),
                0..0x2_0000_0000_u64,
                0xffff_f000..0x1_0000_1000_u64,
                0xffff_fffe_ffff_f000..=u64::MAX,
                any::<u64>(),
            ],
            steps in prop::collection::vec(step(), 1..400),
        ) {
            let mut window = ReplayWindow::new(size, esn);
            let start = if esn { start } else { start & 0xffff_ffff };
            window.start_at(start);
            let mut model = Model { seen: HashSet::new(), top: start, size: window.size(), esn };
            for step in steps {
                let low = match step {
                    Step::Ahead(n) => (model.top as u32).wrapping_add(n),
                    Step::Behind(n) => (model.top as u32).wrapping_sub(n),
                    Step::Any(n) => n,
                };
                let got = window.check(low).map(|candidate| {
                    let sequence = candidate.sequence();
                    assert!(window.accept(candidate));
                    sequence
                });
                prop_assert_eq!(got, model.feed(low), "{:?}", step);
                prop_assert_eq!(window.highest(), model.top);
            }
        }
    }
}
