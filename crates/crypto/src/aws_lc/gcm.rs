//! AES-GCM-16 (RFC 4106) by ring, on processors with VAES and VPCLMULQDQ.
//!
//! AWS-LC uses these wide instructions only together with AVX-512. On processors that have them without it (Zen 3, Intel's clients
//! since Alder Lake), its AES-GCM takes 1.6 times as long as ring's at 1400 octets, and 1.9 times at 9000; it is the largest single
//! cost of the data path (docs/performance.md). Where the processor has no VAES, both run the same code, and AWS-LC's is taken.

use crate::provider::{OpeningKey, SealingKey};
use crate::{Cipher, CipherSuite, CryptoError, check};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, Tag, UnboundKey};

/// Whether this processor gains by it.
pub(super) fn is_faster() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The key of one direction.
pub(super) struct Gcm {
    suite: CipherSuite,
    algorithm: &'static Algorithm,
    key: LessSafeKey,
    salt: [u8; 4],
}

impl Gcm {
    /// `None`: not AES-GCM.
    pub(super) fn new(suite: CipherSuite, key_material: &[u8]) -> Option<Result<Self, CryptoError>> {
        let algorithm = match suite.cipher() {
            Cipher::Aes128Gcm16 => &AES_128_GCM,
            Cipher::Aes256Gcm16 => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 | Cipher::Aes128Cbc | Cipher::Aes256Cbc => return None,
        };
        let made = key_material
            .split_last_chunk::<4>()
            .ok_or(CryptoError::KeyLength)
            .and_then(|(key, salt)| Ok(Self { suite, algorithm, key: bind(algorithm, key)?, salt: *salt }));
        Some(made)
    }

    fn nonce(&self, iv: &[u8]) -> Nonce {
        Nonce::assume_unique_for_key(check::aead_nonce(self.salt, iv))
    }
}

fn bind(algorithm: &'static Algorithm, key: &[u8]) -> Result<LessSafeKey, CryptoError> {
    UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| CryptoError::KeyLength)
}

impl Drop for Gcm {
    /// ring does not wipe its keys. A key of zeros takes the place of this one, its schedule and its hash table with it.
    fn drop(&mut self) {
        if let Ok(zeros) = bind(self.algorithm, &[0; 32][..self.algorithm.key_len()]) {
            self.key = zeros;
            std::hint::black_box(&mut self.key);
        }
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}

impl SealingKey for Gcm {
    fn suite(&self) -> CipherSuite {
        self.suite
    }

    // RFC 4106 section 3.1: the IV need only be unique, and a counter is.
    fn write_iv(&mut self, counter: u64, iv: &mut [u8]) {
        iv.copy_from_slice(&counter.to_be_bytes());
    }

    fn seal(
        &mut self,
        aad: &[u8],
        iv: &[u8],
        text: &mut [u8],
        suffix: &[u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        check::packet(self.suite, iv, text, suffix, icv)?;
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(iv), Aad::from(aad), text)
            .map_err(|_| CryptoError::Length)?;
        icv.copy_from_slice(tag.as_ref());
        Ok(())
    }
}

impl OpeningKey for Gcm {
    fn suite(&self) -> CipherSuite {
        self.suite
    }

    fn open(
        &mut self,
        aad: &[u8],
        iv: &[u8],
        text: &mut [u8],
        suffix: &[u8],
        icv: &[u8],
    ) -> Result<(), CryptoError> {
        check::packet(self.suite, iv, text, suffix, icv)?;
        let tag = Tag::try_from(icv).map_err(|_| CryptoError::Length)?;
        // ring compares tags in constant time.
        self.key
            .open_in_place_separate_tag(self.nonce(iv), Aad::from(aad), tag, text, 0..)
            .map(|_| ())
            .map_err(|_| CryptoError::Integrity)
    }
}
