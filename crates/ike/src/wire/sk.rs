//! The Encrypted payload (RFC 7296 section 3.14) and the Encrypted Fragment payload (RFC 7383).

use super::message::{HeaderFields, WireError};
use ferry6_crypto::{OpeningKey, SealingKey};

/// Why an encrypted message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkError {
    /// The outer structure is wrong.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No SK or SKF payload where one must be.
    #[error("no Encrypted payload")]
    Missing,
    /// ICV does not fit. Such a message changes nothing.
    #[error("integrity check failed")]
    Integrity,
    /// Fragment numbers that contradict each other or the bound (RFC 7383 section 2.6).
    #[error("fragment {0}")]
    Fragment(&'static str),
}

/// The decrypted chain: type of its first payload and its octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// First payload.
    pub first: u8,
    /// The chain.
    pub body: Vec<u8>,
}

/// What came out of one message.
#[derive(Debug)]
pub enum SkMessage {
    /// All of it.
    Whole(Plain),
    /// A fragment, authenticated, for a [`Reassembly`].
    Fragment {
        /// From 1.
        number: u16,
        /// Total.
        total: u16,
        /// First payload; told only in fragment 1.
        first: u8,
        /// Content.
        data: Vec<u8>,
    },
}

/// Encrypts a chain into one message, or into as many fragments as `fragment_size` (octets of IKE message) asks for.
/// `counter` feeds the IV and grows by one per message.
pub fn seal(
    _header: &HeaderFields,
    _first: u8,
    _chain: &[u8],
    _key: &mut dyn SealingKey,
    _counter: &mut u64,
    _fragment_size: Option<usize>,
) -> Vec<Vec<u8>> {
    todo!()
}

/// Verifies and decrypts one message.
///
/// # Errors
/// [`SkError`].
pub fn open(_message: &[u8], _key: &mut dyn OpeningKey) -> Result<SkMessage, SkError> {
    todo!()
}

/// Collects the fragments of one message; bounded in number and octets.
#[derive(Debug, Default)]
pub struct Reassembly {
    _todo: (),
}

impl Reassembly {
    /// Takes a fragment; returns the whole when it is complete. A greater `total` starts anew (RFC 7383 section 2.6).
    ///
    /// # Errors
    /// [`SkError::Fragment`].
    pub fn insert(
        &mut self,
        _number: u16,
        _total: u16,
        _first: u8,
        _data: Vec<u8>,
    ) -> Result<Option<Plain>, SkError> {
        todo!()
    }
}
