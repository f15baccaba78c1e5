//! The seam: what a provider gives to `esp` and `ike`.

use crate::{CipherSuite, Group, HashAlgorithm, Prf, Secret, SignatureScheme};
use rustls_pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm};

/// Why a cryptographic operation failed. It never says more than the caller may act upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The ICV does not fit: forged, damaged, or another key.
    #[error("integrity check failed")]
    Integrity,
    /// Key material of the wrong length for the algorithm.
    #[error("key of the wrong length")]
    KeyLength,
    /// Text not a multiple of the block, or an IV or ICV of the wrong length.
    #[error("wrong length of text, IV or ICV")]
    Length,
    /// A public value that is not allowed: off the curve, zero, 1, p-1, of small order, of the wrong length.
    #[error("public value not acceptable")]
    PublicValue,
    /// A signature that does not verify.
    #[error("signature does not verify")]
    Signature,
    /// A key that cannot be read, or of a type or size that is not supported.
    #[error("key cannot be used: {0}")]
    Key(&'static str),
    /// This provider does not have the algorithm.
    #[error("algorithm not supported")]
    Unsupported,
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system")]
    Random,
}

/// A set of algorithms, as parts. Two exist; a caller may combine parts of both, or put in its own for tests.
#[derive(Clone, Copy)]
pub struct CryptoProvider {
    /// Name for `status` and logs: `aws-lc` or `rustcrypto`.
    pub name: &'static str,
    /// Packet protection, of ESP and of the IKE Encrypted payload.
    pub packets: &'static dyn PacketProtection,
    /// PRFs and hashes.
    pub hashes: &'static dyn Hashes,
    /// Key exchange methods.
    pub groups: &'static dyn Groups,
    /// Signatures.
    pub signatures: &'static dyn Signatures,
}

impl std::fmt::Debug for CryptoProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CryptoProvider({})", self.name)
    }
}

/// Keys of one direction of one SA, as they come from KEYMAT or SK_*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketKeys {
    /// The algorithms they are for.
    pub suite: CipherSuite,
    /// `suite.cipher().key_material_len()` octets: key, then salt for an AEAD.
    pub encryption: Secret,
    /// `integ.key_len()` octets, or none for an AEAD.
    pub integrity: Secret,
}

/// Makes packet keys.
pub trait PacketProtection: Send + Sync {
    /// The sending side.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    fn sealing(&self, keys: &PacketKeys) -> Result<Box<dyn SealingKey>, CryptoError>;
    /// The receiving side.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    fn opening(&self, keys: &PacketKeys) -> Result<Box<dyn OpeningKey>, CryptoError>;
}

/// Encrypts and authenticates packets in place. It does not allocate per packet.
///
/// What is authenticated is `aad | iv | text | suffix` for CBC with HMAC, and `aad` and `text` (the IV through the
/// nonce) for an AEAD, where `suffix` must be empty. ESP puts SPI and sequence number into `aad`, and with ESN the
/// high half into `aad` for an AEAD (RFC 4106 section 5) and into `suffix` otherwise (RFC 4303 section 2.2.1).
pub trait SealingKey: Send {
    /// The suite it is for.
    fn suite(&self) -> CipherSuite;
    /// Writes the IV for packet number `counter`: the number itself for an AEAD (RFC 4106 section 3.1), an
    /// unpredictable one for CBC (RFC 3602 section 3). A `counter` must never come twice.
    fn write_iv(&mut self, counter: u64, iv: &mut [u8]);
    /// Encrypts `text` in place and writes the ICV.
    ///
    /// # Errors
    /// [`CryptoError::Length`] where a length does not fit the suite.
    fn seal(
        &mut self,
        aad: &[u8],
        iv: &[u8],
        text: &mut [u8],
        suffix: &[u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError>;
    /// The same for several packets at once; faster where the packets of a batch can be encrypted side by side, as
    /// with AES-CBC. Each packet must have its own IV.
    ///
    /// # Errors
    /// [`CryptoError::Length`] where a length does not fit the suite; some packets may have been sealed by then.
    fn seal_batch(&mut self, packets: &mut [Packet<'_>]) -> Result<(), CryptoError> {
        for Packet { aad, iv, text, suffix, icv } in packets {
            self.seal(aad, iv, text, suffix, icv)?;
        }
        Ok(())
    }
}

/// As many packets [`SealingKey::seal_batch`] encrypts side by side, where it does. Fewer gain little over one after the
/// other, more gain nothing further.
pub const LANES: usize = 8;

/// One packet of a batch to seal: the arguments of [`SealingKey::seal`].
#[derive(Debug)]
pub struct Packet<'a> {
    /// What is authenticated before the IV.
    pub aad: &'a [u8],
    /// As [`SealingKey::write_iv`] wrote it.
    pub iv: &'a [u8],
    /// Encrypted in place.
    pub text: &'a mut [u8],
    /// What is authenticated behind the text.
    pub suffix: &'a [u8],
    /// Written.
    pub icv: &'a mut [u8],
}

/// Verifies and decrypts packets in place. It does not allocate per packet.
pub trait OpeningKey: Send {
    /// The suite it is for.
    fn suite(&self) -> CipherSuite;
    /// Verifies the ICV in constant time, then decrypts `text` in place. On an error `text` holds nothing of use.
    ///
    /// # Errors
    /// [`CryptoError::Integrity`], [`CryptoError::Length`].
    fn open(
        &mut self,
        aad: &[u8],
        iv: &[u8],
        text: &mut [u8],
        suffix: &[u8],
        icv: &[u8],
    ) -> Result<(), CryptoError>;
}

/// PRFs and hashes.
pub trait Hashes: Send + Sync {
    /// A keyed PRF. Keys of any length (HMAC).
    fn prf(&self, prf: Prf, key: &[u8]) -> Box<dyn PrfKey>;
    /// The digest of the concatenated `parts`.
    ///
    /// # Errors
    /// [`CryptoError::Unsupported`] for [`HashAlgorithm::Identity`].
    fn digest(&self, hash: HashAlgorithm, parts: &[&[u8]]) -> Result<Vec<u8>, CryptoError>;
}

/// A PRF with its key.
pub trait PrfKey: Send {
    /// `prf(key, parts[0] | parts[1] | ..)`.
    fn compute(&self, parts: &[&[u8]]) -> Secret;
}

impl dyn PrfKey + '_ {
    /// `prf+` (RFC 7296 section 2.13): `len` octets from the concatenated `seed`.
    ///
    /// # Panics
    /// When `len` needs more than 255 rounds, which no key schedule of IKEv2 does.
    pub fn prf_plus(&self, seed: &[&[u8]], len: usize) -> Secret {
        use zeroize::Zeroize;
        let mut out: Vec<u8> = Vec::with_capacity(len + 64);
        let mut block: Option<Secret> = None;
        for round in 1..=255_u8 {
            if out.len() >= len {
                break;
            }
            let counter = [round];
            let mut parts: Vec<&[u8]> = Vec::with_capacity(seed.len() + 2);
            parts.extend(block.as_ref().map(Secret::expose));
            parts.extend_from_slice(seed);
            parts.push(&counter);
            let next = self.compute(&parts);
            out.extend_from_slice(next.expose());
            block = Some(next);
        }
        assert!(out.len() >= len, "prf+ is limited to 255 blocks");
        out[len..].zeroize();
        out.truncate(len);
        Secret::new(out)
    }
}

/// Key exchange methods. Shaped so that a KEM fits too: the responder answers to the initiator's public value.
pub trait Groups: Send + Sync {
    /// Whether the provider has it.
    fn supports(&self, group: Group) -> bool;
    /// The initiator's fresh key pair.
    ///
    /// # Errors
    /// [`CryptoError::Unsupported`], [`CryptoError::Random`].
    fn initiate(&self, group: Group) -> Result<Box<dyn KeyExchange>, CryptoError>;
    /// The responder: its public value and the shared secret g^ir. As it stands here it suits Diffie-Hellman, where
    /// the responder makes a key pair like the initiator's.
    ///
    /// # Errors
    /// [`CryptoError::PublicValue`], [`CryptoError::Unsupported`], [`CryptoError::Random`].
    fn respond(&self, group: Group, peer_public: &[u8]) -> Result<(Vec<u8>, Secret), CryptoError> {
        // Before a key pair is made for nothing.
        if peer_public.len() != group.public_len() {
            return Err(CryptoError::PublicValue);
        }
        let own = self.initiate(group)?;
        let public = own.public().to_vec();
        Ok((public, own.agree(peer_public)?))
    }
}

/// A key pair that awaits the peer's public value; used once.
pub trait KeyExchange: Send {
    /// Its group.
    fn group(&self) -> Group;
    /// The public value for the KE payload (RFC 7296 section 3.4; RFC 5903: x | y without a leading octet).
    fn public(&self) -> &[u8];
    /// The shared secret: for MODP padded to the length of the prime, for ECP the x coordinate.
    ///
    /// # Errors
    /// [`CryptoError::PublicValue`].
    fn agree(self: Box<Self>, peer_public: &[u8]) -> Result<Secret, CryptoError>;
}

/// Signatures: own keys, peers' signatures, and certificate chains.
pub trait Signatures: Send + Sync {
    /// Reads a private key: PKCS#8, PKCS#1 or SEC1; RSA of 2048 to 8192 bits, P-256, P-384, Ed25519.
    ///
    /// # Errors
    /// [`CryptoError::Key`] with what is wrong.
    fn load_key(&self, key: &PrivateKeyDer<'_>) -> Result<Box<dyn SigningKey>, CryptoError>;
    /// Verifies `signature` over `message` with a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// [`CryptoError::Signature`]; [`CryptoError::Key`] where the key is not of the scheme's type or too small.
    fn verify(
        &self,
        scheme: SignatureScheme,
        spki: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError>;
    /// What `webpki` takes to verify certificates: RSA PKCS#1 and PSS, ECDSA, Ed25519; no SHA-1.
    fn certificate_algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm];
}

/// A private signing key.
pub trait SigningKey: Send + Sync {
    /// What it can sign with, best first.
    fn schemes(&self) -> &[SignatureScheme];
    /// Signs `message` (not a digest).
    ///
    /// # Errors
    /// [`CryptoError::Unsupported`] for a scheme not in [`Self::schemes`].
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, CryptoError>;
    /// SubjectPublicKeyInfo in DER, to compare with the certificate's.
    fn public_key_spki(&self) -> Vec<u8>;
}

/// Where `ike` takes nonces, SPIs and cookies from; an argument, so that tests can repeat a run.
pub trait SecureRandom: Send {
    /// Fills `out`.
    ///
    /// # Errors
    /// [`CryptoError::Random`].
    fn fill(&mut self, out: &mut [u8]) -> Result<(), CryptoError>;
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl SecureRandom for OsRandom {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), CryptoError> {
        getrandom::fill(out).map_err(|_| CryptoError::Random)
    }
}
