//! IPComp with DEFLATE (RFC 3173, RFC 2394): raw deflate of the whole inner packet, only when it gets smaller.

/// Octets of the IPComp header: next header, flags, CPI.
pub const HEADER_LEN: usize = 4;

/// Compresses for one outbound SA; reuses its state, never allocates per packet.
#[derive(Debug)]
pub struct Compressor {
    _todo: (),
}

impl Compressor {
    /// For this peer's CPI.
    pub fn new(_cpi: u16) -> Self {
        todo!()
    }
    /// Writes IPComp header and deflated `packet` to `out`; `None` where it would not become smaller, or where the
    /// adaptive hold-off (RFC 3173 section 2.2) says not to try: send it as it is.
    pub fn compress(&mut self, _packet: &[u8], _next_header: u8, _out: &mut [u8]) -> Option<usize> {
        todo!()
    }
}

/// Inflates for one inbound SA.
#[derive(Debug)]
pub struct Decompressor {
    _todo: (),
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
    /// Not a DEFLATE stream.
    #[error("damaged DEFLATE stream")]
    Damaged,
    /// Larger than the bound when inflated.
    #[error("inflates beyond the bound")]
    TooLarge,
}

impl Decompressor {
    /// For our own CPI.
    pub fn new(_cpi: u16) -> Self {
        todo!()
    }
    /// Inflates into `out`, whose length is the bound. Returns the inner next header and the length.
    ///
    /// # Errors
    /// [`IpcompError`].
    pub fn decompress(&mut self, _packet: &[u8], _out: &mut [u8]) -> Result<(u8, usize), IpcompError> {
        todo!()
    }
}
