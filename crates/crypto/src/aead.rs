//! AES-GCM-16 (RFC 4106) and ChaCha20-Poly1305 (RFC 7634) as packets take them: salt, and a counter as IV. A library brings the cipher.

use crate::provider::{OpeningKey, SealingKey};
use crate::{CipherSuite, CryptoError, check};
use zeroize::Zeroizing;

/// A cipher with its key: 12 octets of nonce, 16 of ICV. Lengths are checked before.
pub(crate) trait InPlace: Send + 'static {
    /// Encrypts the text and writes the ICV.
    fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> Result<(), CryptoError>;
    /// Verifies the ICV, in constant time, and decrypts the text.
    fn open(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &[u8]) -> Result<(), CryptoError>;
}

/// The key of one direction.
pub(crate) struct Aead<C> {
    suite: CipherSuite,
    cipher: C,
    salt: Zeroizing<[u8; 4]>,
}

impl<C: InPlace> Aead<C> {
    /// `make` gets the key without the salt behind it.
    pub(crate) fn new(
        suite: CipherSuite,
        key_material: &[u8],
        make: impl FnOnce(&[u8]) -> Result<C, CryptoError>,
    ) -> Result<Self, CryptoError> {
        let (key, salt) = key_material.split_last_chunk::<4>().ok_or(CryptoError::KeyLength)?;
        Ok(Self { suite, cipher: make(key)?, salt: Zeroizing::new(*salt) })
    }

    /// salt | IV (RFC 4106 section 4, RFC 7634 section 2).
    fn nonce(&self, iv: &[u8]) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&*self.salt);
        nonce[4..].copy_from_slice(iv);
        nonce
    }
}

impl<C: InPlace> SealingKey for Aead<C> {
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
        self.cipher.seal(self.nonce(iv), aad, text, icv)
    }
}

impl<C: InPlace> OpeningKey for Aead<C> {
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
        self.cipher.open(self.nonce(iv), aad, text, icv)
    }
}
