//! AES-GCM by ring, on processors where it is faster than AWS-LC's.
//!
//! AWS-LC uses VAES only together with AVX-512. On processors that have it without (Zen 3, Intel's clients since Alder Lake), opening
//! 1400 octets takes AWS-LC 1.6 times as long as ring; where AVX-512 is as wide as its name (Zen 5), it takes ring 1.4 times as long
//! as AWS-LC; on Zen 4 they are near each other. AES-GCM is the largest single cost of the data path (docs/performance.md), so
//! the two are timed against each other once. Where the processor has no VAES both run the same code, and AWS-LC's is taken.

use crate::aead::InPlace;
use crate::{Cipher, CryptoError};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, Tag, UnboundKey};
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Whether this processor gains by it: found out when first asked, in some 50 µs.
pub(super) fn is_faster() -> bool {
    static FASTER: OnceLock<bool> = OnceLock::new();
    *FASTER.get_or_init(|| has_vaes() && wins())
}

fn has_vaes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Seals full packets with both in turns; the shortest time of each counts, which no interruption makes shorter.
fn wins() -> bool {
    const ROUNDS: usize = 24;
    let ring = Gcm::new(&AES_128_GCM, &[0; 16]);
    let aws_lc = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_128_GCM, &[0; 16]);
    let (Ok(ring), Ok(aws_lc)) = (ring, aws_lc) else { return false };
    let aws_lc = aws_lc_rs::aead::LessSafeKey::new(aws_lc);
    let (mut text, mut icv) = ([0; 1400], [0; 16]);
    let mut time = |cipher: &dyn InPlace| {
        let begin = Instant::now();
        for counter in 0..4 {
            let _ = cipher.seal([counter; 12], &[0; 12], &mut text, &mut icv);
            black_box(&icv);
        }
        begin.elapsed()
    };
    let mut shortest = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        shortest = [shortest[0].min(time(&ring)), shortest[1].min(time(&aws_lc))];
    }
    shortest[0] < shortest[1]
}

/// The algorithm of a cipher; `None`: not AES-GCM.
pub(super) fn algorithm(cipher: Cipher) -> Option<&'static Algorithm> {
    match cipher {
        Cipher::Aes128Gcm16 => Some(&AES_128_GCM),
        Cipher::Aes256Gcm16 => Some(&AES_256_GCM),
        Cipher::ChaCha20Poly1305 | Cipher::Aes128Cbc | Cipher::Aes256Cbc => None,
    }
}

/// A key.
pub(super) struct Gcm {
    algorithm: &'static Algorithm,
    key: LessSafeKey,
}

impl Gcm {
    pub(super) fn new(algorithm: &'static Algorithm, key: &[u8]) -> Result<Self, CryptoError> {
        Ok(Self { algorithm, key: bind(algorithm, key)? })
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
            black_box(&mut self.key);
        }
    }
}

impl InPlace for Gcm {
    fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> Result<(), CryptoError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
            .map_err(|_| CryptoError::Length)?;
        icv.copy_from_slice(tag.as_ref());
        Ok(())
    }

    fn open(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &[u8]) -> Result<(), CryptoError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = Tag::try_from(icv).map_err(|_| CryptoError::Length)?;
        // ring compares tags in constant time.
        self.key
            .open_in_place_separate_tag(nonce, Aad::from(aad), tag, text, 0..)
            .map(|_| ())
            .map_err(|_| CryptoError::Integrity)
    }
}
