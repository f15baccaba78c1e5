//! Ciphers without any crate of ours between: what ESP and the workers are measured against.

use crate::keys;
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadCore, AeadInOut, KeyInit};
use ferry6_crypto::{Cipher, CipherSuite, CryptoProvider, Integ, aws_lc};

/// As much beside the text as ESP with extended sequence numbers has.
const AAD: [u8; 12] = [1; 12];
const FITS: &str = "the key fits";
const LENGTHS: &str = "the lengths fit";
const WHOLE: &str = "it is whole";

/// A bare AEAD in place: `seal` leaves the tag in `tag`, `open` takes it from there.
pub trait Bare: Send {
    /// Encrypts.
    fn seal(&mut self, counter: u64, text: &mut [u8], tag: &mut [u8]);
    /// Verifies and decrypts what was sealed with this counter.
    fn open(&mut self, counter: u64, text: &mut [u8], tag: &[u8]);
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [7; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

impl Bare for aws_lc_rs::aead::LessSafeKey {
    fn seal(&mut self, counter: u64, text: &mut [u8], tag: &mut [u8]) {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce(counter));
        self.seal_in_place_scatter(nonce, aws_lc_rs::aead::Aad::from(AAD), text, &[], tag).expect(LENGTHS);
    }
    fn open(&mut self, counter: u64, text: &mut [u8], tag: &[u8]) {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce(counter));
        self.open_in_place_separate_tag(nonce, aws_lc_rs::aead::Aad::from(AAD), tag, text).expect(WHOLE);
    }
}

impl Bare for ring::aead::LessSafeKey {
    fn seal(&mut self, counter: u64, text: &mut [u8], tag: &mut [u8]) {
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce(counter));
        let made = self.seal_in_place_separate_tag(nonce, ring::aead::Aad::from(AAD), text).expect(LENGTHS);
        tag.copy_from_slice(made.as_ref());
    }
    fn open(&mut self, counter: u64, text: &mut [u8], tag: &[u8]) {
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce(counter));
        let tag = tag.try_into().expect("16 octets");
        self.open_in_place_separate_tag(nonce, ring::aead::Aad::from(AAD), tag, text, 0..).expect(WHOLE);
    }
}

struct RustCrypto<A>(A);

impl<A: AeadInOut + AeadCore<NonceSize = U12, TagSize = U16> + Send> Bare for RustCrypto<A> {
    fn seal(&mut self, counter: u64, text: &mut [u8], tag: &mut [u8]) {
        let made = self.0.encrypt_inout_detached(&nonce(counter).into(), &AAD, text.into()).expect(LENGTHS);
        tag.copy_from_slice(&made);
    }
    fn open(&mut self, counter: u64, text: &mut [u8], tag: &[u8]) {
        let tag: [u8; 16] = tag.try_into().expect("16 octets");
        let nonce = nonce(counter).into();
        self.0.decrypt_inout_detached(&nonce, &AAD, text.into(), &tag.into()).expect(WHOLE);
    }
}

/// The bare cipher behind our own trait: for AES-CBC with HMAC, which no library has as one call. The IV is written too.
struct Ours {
    sealing: Box<dyn ferry6_crypto::SealingKey>,
    opening: Box<dyn ferry6_crypto::OpeningKey>,
    iv: Vec<u8>,
}

impl Bare for Ours {
    fn seal(&mut self, counter: u64, text: &mut [u8], tag: &mut [u8]) {
        self.sealing.write_iv(counter, &mut self.iv);
        self.sealing.seal(&AAD[..8], &self.iv, text, &AAD[8..], tag).expect(LENGTHS);
    }
    /// Opens the last packet only: its IV is the one at hand.
    fn open(&mut self, _counter: u64, text: &mut [u8], tag: &[u8]) {
        self.opening.open(&AAD[..8], &self.iv, text, &AAD[8..], tag).expect(WHOLE);
    }
}

/// AES-GCM of both libraries that the provider `aws-lc` chooses between: ring's and AWS-LC's; `None`: not AES-GCM.
pub fn ring_and_aws_lc(suite: CipherSuite) -> Option<[Box<dyn Bare>; 2]> {
    use {aws_lc_rs::aead as lc, ring::aead as ring};
    let (of_ring, of_aws_lc) = match suite.cipher() {
        Cipher::Aes128Gcm16 => (&ring::AES_128_GCM, &lc::AES_128_GCM),
        Cipher::Aes256Gcm16 => (&ring::AES_256_GCM, &lc::AES_256_GCM),
        Cipher::ChaCha20Poly1305 | Cipher::Aes128Cbc | Cipher::Aes256Cbc => return None,
    };
    let keys = keys(suite);
    let key = &keys.encryption.expose()[..keys.encryption.len() - 4];
    Some([
        Box::new(ring::LessSafeKey::new(ring::UnboundKey::new(of_ring, key).expect(FITS))),
        Box::new(lc::LessSafeKey::new(lc::UnboundKey::new(of_aws_lc, key).expect(FITS))),
    ])
}

/// A keyed HMAC: with its state copied for each message, as packets need it.
pub type Mac = Box<dyn Fn(&[u8]) -> u8>;

/// HMAC of an integrity algorithm by ring, AWS-LC and RustCrypto; of the tag, only the first octet.
pub fn macs(integ: Integ) -> [Mac; 3] {
    fn rust_crypto<M: hmac::Mac + KeyInit + Clone + 'static>() -> Mac {
        let keyed = <M as KeyInit>::new_from_slice(&[7; 20]).expect("keys of any length");
        Box::new(move |message| keyed.clone().chain_update(message).finalize().into_bytes()[0])
    }
    let (of_ring, of_aws_lc, rust_crypto) = match integ {
        Integ::HmacSha1_96 => (
            ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            rust_crypto::<hmac::Hmac<sha1::Sha1>>(),
        ),
        Integ::HmacSha256_128 => {
            (ring::hmac::HMAC_SHA256, aws_lc_rs::hmac::HMAC_SHA256, rust_crypto::<hmac::Hmac<sha2::Sha256>>())
        }
        Integ::HmacSha384_192 => {
            (ring::hmac::HMAC_SHA384, aws_lc_rs::hmac::HMAC_SHA384, rust_crypto::<hmac::Hmac<sha2::Sha384>>())
        }
        Integ::HmacSha512_256 => {
            (ring::hmac::HMAC_SHA512, aws_lc_rs::hmac::HMAC_SHA512, rust_crypto::<hmac::Hmac<sha2::Sha512>>())
        }
    };
    let ring = ring::hmac::Key::new(of_ring, &[7; 20]);
    let aws_lc = aws_lc_rs::hmac::Key::new(of_aws_lc, &[7; 20]);
    [
        Box::new(move |message| ring::hmac::sign(&ring, message).as_ref()[0]),
        Box::new(move |message| aws_lc_rs::hmac::sign(&aws_lc, message).as_ref()[0]),
        rust_crypto,
    ]
}

/// The provider's cipher, and which library it is of: the one that the provider itself takes on this processor.
pub fn bare(provider: &CryptoProvider, suite: CipherSuite) -> (&'static str, Box<dyn Bare>) {
    use {aws_lc_rs::aead as lc, ring::aead as ring};
    let keys = keys(suite);
    let key = &keys.encryption.expose()[..keys.encryption.len() - if suite.is_aead() { 4 } else { 0 }];
    let by_ring = provider.name == "aws-lc" && aws_lc::aes_gcm_is_rings();
    let by_aws_lc = provider.name == "aws-lc";
    let of_ring = |algorithm| ring::LessSafeKey::new(ring::UnboundKey::new(algorithm, key).expect(FITS));
    let of_aws_lc = |algorithm| lc::LessSafeKey::new(lc::UnboundKey::new(algorithm, key).expect(FITS));
    match suite.cipher() {
        Cipher::Aes128Gcm16 if by_ring => ("ring", Box::new(of_ring(&ring::AES_128_GCM))),
        Cipher::Aes256Gcm16 if by_ring => ("ring", Box::new(of_ring(&ring::AES_256_GCM))),
        Cipher::Aes128Gcm16 if by_aws_lc => ("aws-lc", Box::new(of_aws_lc(&lc::AES_128_GCM))),
        Cipher::Aes256Gcm16 if by_aws_lc => ("aws-lc", Box::new(of_aws_lc(&lc::AES_256_GCM))),
        Cipher::ChaCha20Poly1305 if by_aws_lc => ("aws-lc", Box::new(of_aws_lc(&lc::CHACHA20_POLY1305))),
        Cipher::Aes128Gcm16 => {
            ("rustcrypto", Box::new(RustCrypto(aes_gcm::Aes128Gcm::new_from_slice(key).expect(FITS))))
        }
        Cipher::Aes256Gcm16 => {
            ("rustcrypto", Box::new(RustCrypto(aes_gcm::Aes256Gcm::new_from_slice(key).expect(FITS))))
        }
        Cipher::ChaCha20Poly1305 => {
            let cipher = chacha20poly1305::ChaCha20Poly1305::new_from_slice(key).expect(FITS);
            ("rustcrypto", Box::new(RustCrypto(cipher)))
        }
        Cipher::Aes128Cbc | Cipher::Aes256Cbc => {
            let ours = Ours {
                sealing: provider.packets.sealing(&keys).expect(FITS),
                opening: provider.packets.opening(&keys).expect(FITS),
                iv: vec![0; suite.cipher().iv_len()],
            };
            ("ours", Box::new(ours))
        }
    }
}
