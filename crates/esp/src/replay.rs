//! The anti-replay window (RFC 4303 section 3.4.3 and appendix A).

/// A sliding window over 64-bit sequence numbers.
///
/// [`ReplayWindow::check`] makes a [`Candidate`] before the ICV is verified; only [`ReplayWindow::accept`] eats it,
/// after. So a forged packet can never move the window.
#[derive(Debug)]
pub struct ReplayWindow {
    _todo: (),
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
    /// Left of the window.
    #[error("sequence number older than the window")]
    TooOld,
    /// Zero is never sent (RFC 4303 section 2.2).
    #[error("sequence number 0")]
    Zero,
}

impl ReplayWindow {
    /// A window of at least `size` packets (rounded up to a multiple of 64); 0 switches the check off.
    pub fn new(_size: u32, _esn: bool) -> Self {
        todo!()
    }
    /// Looks without changing anything.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn check(&self, _low: u32) -> Result<Candidate, ReplayError> {
        todo!()
    }
    /// Marks it as seen. `false` where it was seen in the meantime (nothing changes then).
    pub fn accept(&mut self, _candidate: Candidate) -> bool {
        todo!()
    }
}
