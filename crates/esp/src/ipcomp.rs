//! IPComp with DEFLATE (RFC 3173, RFC 2394): raw deflate of the whole inner packet, only when it gets smaller.
//!
//! What is large is shared, what belongs to one SA is small: a worker has one [`Deflater`] and one [`Inflater`], and
//! each SA its [`Compressor`] or [`Decompressor`] of a few octets, because packets are compressed one by one
//! (RFC 3173 section 2.2) and nothing is kept between them but whether trying was worth it.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Octets of the IPComp header: next header, flags, CPI.
pub const HEADER_LEN: usize = 4;

/// Shorter packets are not tried: DEFLATE rarely makes them smaller (RFC 3173 section 2.2; RFC 2394 section 3).
pub const MIN_LEN: usize = 90;

/// The sliding window of the compressor, as a power of two. Linux inflates with 2^11, so no match may reach further.
const WINDOW_BITS: u8 = 11;

/// Failures in a row before the compressor starts to skip packets.
const PATIENCE: u8 = 3;
/// The most packets that are skipped before the next try.
const MAX_SKIP: u16 = 256;

/// The largest packet that is tried: no IP packet is larger without a jumbogram option.
const MAX_LEN: usize = 65_535;

/// Room for the deflated form of any packet of [`MAX_LEN`]: the static codes of DEFLATE take 9 bits a literal at the
/// most (RFC 1951 section 3.2.6), and a block costs some octets more.
const SCRATCH_LEN: usize = MAX_LEN / 8 * 9 + 64;

/// The DEFLATE state of one worker, about 300 KiB.
pub struct Deflater {
    state: Compress,
    /// Each stream ends here, whatever room the caller has: `zlib-rs` 0.6 does not forget an open block when a stream
    /// that ran out of room is reset, and begins the next one in the middle of it.
    scratch: Box<[u8]>,
}

impl Deflater {
    /// With the quickest level of zlib, which costs a third of its default for most of the gain.
    pub fn new() -> Self {
        Self::with_level(1)
    }

    /// With another level, 1 (quickest) to 9 (smallest).
    ///
    /// # Panics
    /// For a level of 0 or above 9.
    pub fn with_level(level: u32) -> Self {
        assert!((1..=9).contains(&level), "DEFLATE levels are 1 to 9");
        Self {
            state: Compress::new_with_window_bits(Compression::new(level), false, WINDOW_BITS),
            scratch: vec![0; SCRATCH_LEN].into_boxed_slice(),
        }
    }

    /// The deflated `packet`.
    fn deflate(&mut self, packet: &[u8]) -> Option<&[u8]> {
        self.state.reset();
        match self.state.compress(packet, &mut self.scratch, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => self.scratch.get(..self.state.total_out() as usize),
            _ => None,
        }
    }
}

impl Default for Deflater {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deflater").finish_non_exhaustive()
    }
}

/// The INFLATE state of one worker, about 50 KiB.
pub struct Inflater {
    state: Decompress,
}

impl Inflater {
    /// With the full window of DEFLATE: any peer's packets inflate.
    pub fn new() -> Self {
        Self { state: Decompress::new(false) }
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

/// Compresses for one outbound SA: the peer's CPI, and whether trying is worth it.
///
/// After three packets in a row that did not shrink it leaves the next ones alone (RFC 3173 section 2.2 allows it), twice
/// as many after each further failure, 256 at the most; the first success ends it.
#[derive(Debug)]
pub struct Compressor {
    cpi: u16,
    /// Failures since the last success, up to `PATIENCE`.
    failures: u8,
    /// How many to skip after the next failure; 0 before the patience is at its end.
    next_skip: u16,
    /// How many are still to be skipped.
    skip: u16,
}

impl Compressor {
    /// For this peer's CPI.
    pub fn new(cpi: u16) -> Self {
        Self { cpi, failures: 0, next_skip: 1, skip: 0 }
    }

    /// The peer's CPI.
    pub fn cpi(&self) -> u16 {
        self.cpi
    }

    /// Writes IPComp header and deflated `packet` to `out`, and returns their length; the Next Header of what goes
    /// into ESP is then [`crate::next_header::IPCOMP`].
    ///
    /// `None` where it would not become smaller, header included (RFC 3173 section 2.2), does not fit into `out`, or where
    /// the hold-off says not to try: send it as it is. What `out` holds then is of no use.
    pub fn compress(
        &mut self,
        deflater: &mut Deflater,
        packet: &[u8],
        next_header: u8,
        out: &mut [u8],
    ) -> Option<usize> {
        if !(MIN_LEN..=MAX_LEN).contains(&packet.len()) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let stream = deflater.deflate(packet)?;
        let len = HEADER_LEN + stream.len();
        if len >= packet.len() {
            self.failed();
            return None;
        }
        self.failures = 0;
        self.next_skip = 1;
        let (header, rest) = out.get_mut(..len)?.split_at_mut(HEADER_LEN);
        // RFC 3173 section 3.1: the flags are zero
        let [high, low] = self.cpi.to_be_bytes();
        header.copy_from_slice(&[next_header, 0, high, low]);
        rest.copy_from_slice(stream);
        Some(len)
    }

    fn failed(&mut self) {
        if self.failures < PATIENCE {
            self.failures += 1;
        }
        if self.failures == PATIENCE {
            self.skip = self.next_skip;
            self.next_skip = (self.next_skip * 2).min(MAX_SKIP);
        }
    }
}

/// Inflates for one inbound SA: our own CPI.
#[derive(Debug)]
pub struct Decompressor {
    cpi: u16,
}

/// Why an IPComp packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpcompError {
    /// Shorter than its header.
    #[error("shorter than an IPComp header")]
    Truncated,
    /// A CPI that was not negotiated.
    #[error("unknown CPI")]
    Cpi,
    /// Not a DEFLATE stream, or one that ends too early.
    #[error("damaged DEFLATE stream")]
    Damaged,
    /// Larger than the bound when inflated.
    #[error("inflates beyond the bound")]
    TooLarge,
    /// Octets behind the last DEFLATE block.
    #[error("octets behind the DEFLATE stream")]
    Trailing,
}

impl Decompressor {
    /// For our own CPI.
    pub fn new(cpi: u16) -> Self {
        Self { cpi }
    }

    /// Our own CPI.
    pub fn cpi(&self) -> u16 {
        self.cpi
    }

    /// Inflates into `out`, whose length is the bound. Returns the inner next header and the length.
    ///
    /// `packet` begins with the IPComp header. Its flags are ignored (RFC 3173 section 3.1). A packet without IPComp
    /// header may come on the same SA, and is no business of this function: ESP's Next Header tells.
    ///
    /// # Errors
    /// [`IpcompError`].
    pub fn decompress(
        &mut self,
        inflater: &mut Inflater,
        packet: &[u8],
        out: &mut [u8],
    ) -> Result<(u8, usize), IpcompError> {
        let (&[next_header, _flags, high, low], stream) =
            packet.split_first_chunk::<HEADER_LEN>().ok_or(IpcompError::Truncated)?;
        if u16::from_be_bytes([high, low]) != self.cpi {
            return Err(IpcompError::Cpi);
        }
        let state = &mut inflater.state;
        state.reset(false);
        let status = state.decompress(stream, out, FlushDecompress::Finish);
        let (read, written) = (state.total_in() as usize, state.total_out() as usize);
        match status {
            Ok(Status::StreamEnd) if read == stream.len() => Ok((next_header, written)),
            Ok(Status::StreamEnd) => Err(IpcompError::Trailing),
            // it wants more room where there is none left, and more input otherwise
            Ok(_) if written == out.len() => Err(IpcompError::TooLarge),
            Ok(_) | Err(_) => Err(IpcompError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests;
