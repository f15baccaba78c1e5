//! The AUTH payload: signatures (RFC 7296 section 2.15, RFC 7427, RFC 8420) and pre-shared keys.

use crate::wire::RawId;
use ferry6_crypto::{CryptoError, CryptoProvider, HashAlgorithm, Prf, Secret, SigningKey};

/// AUTH methods.
pub mod method {
    /// RSA Digital Signature.
    pub const RSA: u8 = 1;
    /// Shared Key Message Integrity Code.
    pub const PSK: u8 = 2;
    /// ECDSA with SHA-256 on P-256 (RFC 4754): signature is r | s.
    pub const ECDSA_256: u8 = 9;
    /// ECDSA with SHA-384 on P-384.
    pub const ECDSA_384: u8 = 10;
    /// Digital Signature (RFC 7427).
    pub const DIGITAL_SIGNATURE: u8 = 14;
}

/// Why AUTH is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Signature or MAC does not verify.
    #[error("AUTH does not verify: wrong key or pre-shared key")]
    Wrong,
    /// A method or algorithm that is not supported or not allowed.
    #[error("AUTH method {0} not acceptable")]
    Method(String),
    /// Our own key cannot sign with anything that the peer takes.
    #[error("the peer takes none of the signature algorithms of our key")]
    NoScheme,
    /// Crypto failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// `InitiatorSignedOctets` or `ResponderSignedOctets`: the signer's first message, the other's nonce, prf(SK_p, ID).
pub fn signed_octets(
    _crypto: &CryptoProvider,
    _prf: Prf,
    _first_message: &[u8],
    _peer_nonce: &[u8],
    _sk_p: &Secret,
    _id: &RawId,
) -> Vec<u8> {
    todo!()
}

/// Signs; picks the method: 14 where the peer listed hashes (`None`: it sent no SIGNATURE_HASH_ALGORITHMS), else the
/// classic one. Returns method and AUTH data.
///
/// # Errors
/// [`AuthError::NoScheme`], [`AuthError::Crypto`].
pub fn sign(
    _key: &dyn SigningKey,
    _peer_hashes: Option<&[HashAlgorithm]>,
    _octets: &[u8],
) -> Result<(u8, Vec<u8>), AuthError> {
    todo!()
}

/// Verifies a signature AUTH with the leaf's SubjectPublicKeyInfo.
///
/// # Errors
/// [`AuthError`].
pub fn verify(
    _crypto: &CryptoProvider,
    _spki: &[u8],
    _method: u8,
    _data: &[u8],
    _octets: &[u8],
) -> Result<(), AuthError> {
    todo!()
}

/// AUTH data for a pre-shared key: prf(prf(secret, "Key Pad for IKEv2"), octets).
pub fn psk_auth(_crypto: &CryptoProvider, _prf: Prf, _psk: &Secret, _octets: &[u8]) -> Secret {
    todo!()
}
