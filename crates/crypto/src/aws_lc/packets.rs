//! Packet protection with AWS-LC.

use super::gcm::{self, Gcm};
use crate::aead::{Aead, InPlace};
use crate::iv::UnpredictableIvs;
use crate::provider::{OpeningKey, Packet, PacketKeys, PacketProtection, SealingKey};
use crate::{Cipher, CipherSuite, CryptoError, Integ, cbc_lanes, check};
use aes::cipher::KeyInit;
use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    self, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use subtle::ConstantTimeEq;

pub(super) struct Packets;

impl PacketProtection for Packets {
    fn sealing(&self, keys: &PacketKeys) -> Result<Box<dyn SealingKey>, CryptoError> {
        check::packet_keys(keys)?;
        let encryption = keys.encryption.expose();
        Ok(match keys.suite.integ() {
            None => match gcm::is_faster().then(|| by_ring(keys.suite, encryption)).flatten() {
                Some(gcm) => Box::new(gcm?),
                None => Box::new(by_aws_lc(keys.suite, encryption)?),
            },
            Some(integ) => Box::new(CbcHmacSealing {
                suite: keys.suite,
                cipher: EncryptingKey::cbc(cbc_key(keys)?).map_err(|_| CryptoError::KeyLength)?,
                lanes: Lanes::new(encryption)?,
                hmac: hmac_key(integ, keys.integrity.expose()),
                ivs: UnpredictableIvs::new()?,
            }),
        })
    }

    fn opening(&self, keys: &PacketKeys) -> Result<Box<dyn OpeningKey>, CryptoError> {
        check::packet_keys(keys)?;
        let encryption = keys.encryption.expose();
        Ok(match keys.suite.integ() {
            None => match gcm::is_faster().then(|| by_ring(keys.suite, encryption)).flatten() {
                Some(gcm) => Box::new(gcm?),
                None => Box::new(by_aws_lc(keys.suite, encryption)?),
            },
            Some(integ) => Box::new(CbcHmacOpening {
                suite: keys.suite,
                cipher: DecryptingKey::cbc(cbc_key(keys)?).map_err(|_| CryptoError::KeyLength)?,
                hmac: hmac_key(integ, keys.integrity.expose()),
            }),
        })
    }
}

/// `None`: not AES-GCM.
fn by_ring(suite: CipherSuite, key_material: &[u8]) -> Option<Result<Aead<Gcm>, CryptoError>> {
    let algorithm = gcm::algorithm(suite.cipher())?;
    Some(Aead::new(suite, key_material, |key| Gcm::new(algorithm, key)))
}

fn by_aws_lc(suite: CipherSuite, key_material: &[u8]) -> Result<Aead<LessSafeKey>, CryptoError> {
    let algorithm = match suite.cipher() {
        Cipher::Aes128Gcm16 => &aead::AES_128_GCM,
        Cipher::Aes256Gcm16 => &aead::AES_256_GCM,
        Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        Cipher::Aes128Cbc | Cipher::Aes256Cbc => return Err(CryptoError::Unsupported),
    };
    Aead::new(suite, key_material, |key| {
        UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| CryptoError::KeyLength)
    })
}

fn cbc_key(keys: &PacketKeys) -> Result<UnboundCipherKey, CryptoError> {
    let algorithm =
        if keys.suite.cipher() == Cipher::Aes128Cbc { &cipher::AES_128 } else { &cipher::AES_256 };
    UnboundCipherKey::new(algorithm, keys.encryption.expose()).map_err(|_| CryptoError::KeyLength)
}

fn hmac_key(integ: Integ, key: &[u8]) -> hmac::Key {
    let algorithm = match integ {
        Integ::HmacSha1_96 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Integ::HmacSha256_128 => hmac::HMAC_SHA256,
        Integ::HmacSha384_192 => hmac::HMAC_SHA384,
        Integ::HmacSha512_256 => hmac::HMAC_SHA512,
    };
    hmac::Key::new(algorithm, key)
}

impl InPlace for LessSafeKey {
    fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> Result<(), CryptoError> {
        self.seal_in_place_scatter(Nonce::assume_unique_for_key(nonce), Aad::from(aad), text, &[], icv)
            .map_err(|_| CryptoError::Length)
    }

    fn open(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &[u8]) -> Result<(), CryptoError> {
        self.open_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), icv, text)
            .map(|_| ())
            .map_err(|_| CryptoError::Integrity)
    }
}

/// HMAC over `aad | iv | text | suffix`. The key's state is computed once; to copy it takes no heap.
fn mac(key: &hmac::Key, aad: &[u8], iv: &[u8], text: &[u8], suffix: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(aad);
    context.update(iv);
    context.update(text);
    context.update(suffix);
    context.sign()
}

fn cbc_iv(iv: &[u8]) -> Result<FixedLength<16>, CryptoError> {
    FixedLength::try_from(iv).map_err(|_| CryptoError::Length)
}

/// AES-CBC (RFC 3602) with HMAC (RFC 2404, RFC 4868): encrypt, then authenticate.
struct CbcHmacSealing {
    suite: CipherSuite,
    cipher: EncryptingKey,
    /// The same key for batches: AWS-LC offers no way to encrypt several packets side by side.
    lanes: Lanes,
    hmac: hmac::Key,
    ivs: UnpredictableIvs,
}

enum Lanes {
    Aes128(aes::Aes128),
    Aes256(aes::Aes256),
}

impl Lanes {
    fn new(key: &[u8]) -> Result<Self, CryptoError> {
        match key.len() {
            16 => aes::Aes128::new_from_slice(key).map(Self::Aes128),
            _ => aes::Aes256::new_from_slice(key).map(Self::Aes256),
        }
        .map_err(|_| CryptoError::KeyLength)
    }
}

impl SealingKey for CbcHmacSealing {
    fn suite(&self) -> CipherSuite {
        self.suite
    }

    fn write_iv(&mut self, counter: u64, iv: &mut [u8]) {
        iv.copy_from_slice(&self.ivs.iv(counter));
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
        self.cipher
            .less_safe_encrypt(text, EncryptionContext::Iv128(cbc_iv(iv)?))
            .map_err(|_| CryptoError::Length)?;
        let tag = mac(&self.hmac, aad, iv, text, suffix);
        icv.copy_from_slice(&tag.as_ref()[..icv.len()]);
        Ok(())
    }

    fn seal_batch(&mut self, packets: &mut [Packet<'_>]) -> Result<(), CryptoError> {
        check::batch(self.suite, packets)?;
        let (groups, rest) = packets.as_chunks_mut();
        for group in groups {
            match &self.lanes {
                Lanes::Aes128(cipher) => cbc_lanes::encrypt(cipher, group),
                Lanes::Aes256(cipher) => cbc_lanes::encrypt(cipher, group),
            }
            for Packet { aad, iv, text, suffix, icv } in group {
                let tag = mac(&self.hmac, aad, iv, text, suffix);
                icv.copy_from_slice(&tag.as_ref()[..icv.len()]);
            }
        }
        rest.iter_mut().try_for_each(|p| self.seal(p.aad, p.iv, p.text, p.suffix, p.icv))
    }
}

/// The receiving side of [`CbcHmacSealing`]: nothing is decrypted before the ICV has been verified.
struct CbcHmacOpening {
    suite: CipherSuite,
    cipher: DecryptingKey,
    hmac: hmac::Key,
}

impl OpeningKey for CbcHmacOpening {
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
        let tag = mac(&self.hmac, aad, iv, text, suffix);
        if !bool::from(tag.as_ref()[..icv.len()].ct_eq(icv)) {
            return Err(CryptoError::Integrity);
        }
        self.cipher
            .decrypt(text, DecryptionContext::Iv128(cbc_iv(iv)?))
            .map(|_| ())
            .map_err(|_| CryptoError::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On one processor the tests of the provider meet ring alone, on another AWS-LC alone: so here each opens what the
    /// other has sealed.
    #[test]
    fn ring_and_aws_lc_are_the_same() {
        for (cipher, key_len) in [(Cipher::Aes128Gcm16, 16), (Cipher::Aes256Gcm16, 32)] {
            let suite = CipherSuite::new(cipher, None).unwrap();
            let material: Vec<u8> = (1..=key_len + 4).collect();
            for len in [0, 1, 15, 16, 64, 255, 1400, 9000] {
                let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let mut ring = by_ring(suite, &material).unwrap().unwrap();
                let mut aws = by_aws_lc(suite, &material).unwrap();
                let (mut by_ring, mut by_aws) = (plain.clone(), plain.clone());
                let (mut ring_icv, mut aws_icv) = ([0; 16], [0; 16]);
                ring.seal(b"aad", &[7; 8], &mut by_ring, &[], &mut ring_icv).unwrap();
                aws.seal(b"aad", &[7; 8], &mut by_aws, &[], &mut aws_icv).unwrap();
                assert_eq!((&by_ring, ring_icv), (&by_aws, aws_icv), "{cipher:?}, {len} octets");
                ring.open(b"aad", &[7; 8], &mut by_aws, &[], &aws_icv).unwrap();
                assert_eq!(by_aws, plain);
                aws.open(b"aad", &[7; 8], &mut by_ring, &[], &ring_icv).unwrap();
                ring_icv[15] ^= 1;
                ring.seal(b"aad", &[7; 8], &mut by_ring, &[], &mut aws_icv).unwrap();
                let wrong = ring.open(b"aad", &[7; 8], &mut by_ring, &[], &ring_icv);
                assert_eq!(wrong, Err(CryptoError::Integrity));
            }
            assert!(matches!(by_ring(suite, &material[1..]), Some(Err(CryptoError::KeyLength))));
        }
        let chacha = CipherSuite::new(Cipher::ChaCha20Poly1305, None).unwrap();
        assert!(by_ring(chacha, &[0; 36]).is_none());
    }
}
