//! Unpredictable IVs for CBC.

use crate::CryptoError;
use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

/// Unpredictable IVs without asking for randomness per packet (RFC 3602 section 3; NIST SP 800-38A appendix C).
///
/// The IV is the packet's number, encrypted under a random key that serves nothing else: who lacks that key cannot
/// tell it from random, and since a block cipher is a permutation no IV comes twice.
pub(crate) struct UnpredictableIvs(Aes128);

impl UnpredictableIvs {
    /// With a fresh key.
    pub(crate) fn new() -> Result<Self, CryptoError> {
        let mut key = Zeroizing::new([0; 16]);
        getrandom::fill(key.as_mut()).map_err(|_| CryptoError::Random)?;
        Ok(Self(Aes128::new((&*key).into())))
    }

    /// The IV of packet number `counter`.
    pub(crate) fn iv(&self, counter: u64) -> [u8; 16] {
        let mut block = [0; 16];
        block[8..].copy_from_slice(&counter.to_be_bytes());
        self.0.encrypt_block((&mut block).into());
        block
    }
}
