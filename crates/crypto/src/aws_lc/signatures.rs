//! Signatures with AWS-LC.

use crate::certificates;
use crate::keys::{self, KeyKind, PrivateKey};
use crate::provider::{self, SigningKey};
use crate::{CryptoError, SignatureScheme, rustcrypto};
use aws_lc_rs::agreement;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rustls_pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm};
use std::sync::LazyLock;

pub(super) struct Signatures;

impl provider::Signatures for Signatures {
    fn load_key(&self, key: &PrivateKeyDer<'_>) -> Result<Box<dyn SigningKey>, CryptoError> {
        Ok(Box::new(Key::new(PrivateKey::read(key)?)?))
    }

    fn verify(
        &self,
        scheme: SignatureScheme,
        spki: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        verify(scheme, keys::public_key(spki, scheme)?, message, signature)
    }

    fn certificate_algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        static ALGORITHMS: LazyLock<certificates::Algorithms> =
            LazyLock::new(|| certificates::algorithms(verify));
        *ALGORITHMS
    }
}

fn verify(
    scheme: SignatureScheme,
    public_key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), CryptoError> {
    use SignatureScheme as S;
    let algorithm: &dyn VerificationAlgorithm = match scheme {
        S::RsaPkcs1Sha1 => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
        S::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        S::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        S::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        S::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
        S::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
        S::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        S::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
        S::EcdsaP256Sha384 => &signature::ECDSA_P256_SHA384_ASN1,
        S::EcdsaP384Sha256 => &signature::ECDSA_P384_SHA256_ASN1,
        S::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
        S::Ed25519 => &signature::ED25519,
    };
    UnparsedPublicKey::new(algorithm, public_key)
        .verify(message, signature)
        .map_err(|_| CryptoError::Signature)
}

enum Pair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

struct Key {
    pair: Pair,
    public: Vec<u8>,
    /// For what AWS-LC does not sign: see [`Key::sign`].
    private: PrivateKey,
}

impl Key {
    fn new(private: PrivateKey) -> Result<Self, CryptoError> {
        let secret = private.secret.expose();
        let (pair, public) = match private.kind {
            KeyKind::Rsa | KeyKind::RsaPss(_) => {
                let pair = RsaKeyPair::from_der(secret)
                    .map_err(|_| CryptoError::Key("RSA private key is not consistent"))?;
                let public = pair.public_key().as_ref().to_vec();
                (Pair::Rsa(pair), public)
            }
            KeyKind::P256 => {
                Self::ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &agreement::ECDH_P256, secret)?
            }
            KeyKind::P384 => {
                Self::ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING, &agreement::ECDH_P384, secret)?
            }
            KeyKind::Ed25519 => {
                let pair = Ed25519KeyPair::from_seed_unchecked(secret)
                    .map_err(|_| CryptoError::Key("Ed25519 private key out of range"))?;
                let public = pair.public_key().as_ref().to_vec();
                (Pair::Ed25519(pair), public)
            }
        };
        private.check_pair(&public)?;
        Ok(Self { pair, public, private })
    }

    /// The file may lack the public key, and AWS-LC wants it: its key agreement side computes it.
    fn ecdsa(
        signing: &'static signature::EcdsaSigningAlgorithm,
        agreement: &'static agreement::Algorithm,
        scalar: &[u8],
    ) -> Result<(Pair, Vec<u8>), CryptoError> {
        const REFUSED: CryptoError = CryptoError::Key("elliptic curve private key out of range");
        let public = agreement::PrivateKey::from_private_key(agreement, scalar)
            .and_then(|key| Ok(key.compute_public_key()?.as_ref().to_vec()))
            .map_err(|_| REFUSED)?;
        let pair =
            EcdsaKeyPair::from_private_key_and_public_key(signing, scalar, &public).map_err(|_| REFUSED)?;
        Ok((Pair::Ecdsa(pair), public))
    }
}

impl SigningKey for Key {
    fn schemes(&self) -> &[SignatureScheme] {
        self.private.kind.schemes()
    }

    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        use SignatureScheme as S;
        const FAILED: CryptoError = CryptoError::Key("signing failed");
        if !self.schemes().contains(&scheme) {
            return Err(CryptoError::Unsupported);
        }
        let rsa = |pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding| {
            let mut out = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), message, &mut out).map_err(|_| FAILED)?;
            Ok(out)
        };
        match (&self.pair, scheme) {
            (Pair::Rsa(pair), S::RsaPkcs1Sha256) => rsa(pair, &signature::RSA_PKCS1_SHA256),
            (Pair::Rsa(pair), S::RsaPkcs1Sha384) => rsa(pair, &signature::RSA_PKCS1_SHA384),
            (Pair::Rsa(pair), S::RsaPkcs1Sha512) => rsa(pair, &signature::RSA_PKCS1_SHA512),
            (Pair::Rsa(pair), S::RsaPssSha256) => rsa(pair, &signature::RSA_PSS_SHA256),
            (Pair::Rsa(pair), S::RsaPssSha384) => rsa(pair, &signature::RSA_PSS_SHA384),
            (Pair::Rsa(pair), S::RsaPssSha512) => rsa(pair, &signature::RSA_PSS_SHA512),
            (Pair::Ecdsa(pair), S::EcdsaP256Sha256 | S::EcdsaP384Sha384) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| FAILED),
            (Pair::Ed25519(pair), S::Ed25519) => Ok(pair.sign(message).as_ref().to_vec()),
            // AWS-LC signs neither with SHA-1 nor with a hash that is not the curve's own. Both are rare.
            _ => rustcrypto::signing_key(&self.private)?.sign(scheme, message),
        }
    }

    fn public_key_spki(&self) -> Vec<u8> {
        keys::spki(self.private.kind, &self.public)
    }
}
