//! Signatures with the `rsa`, `p256`, `p384` and `ed25519-dalek` crates.

use crate::certificates;
use crate::keys::{self, KeyKind, PrivateKey};
use crate::provider::{self, SigningKey};
use crate::{CryptoError, SignatureScheme};
use getrandom::SysRng;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use rsa::pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey};
use rsa::{Pkcs1v15Sign, Pss};
use rustls_pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::sync::LazyLock;

pub(super) struct Signatures;

impl provider::Signatures for Signatures {
    fn load_key(&self, key: &PrivateKeyDer<'_>) -> Result<Box<dyn SigningKey>, CryptoError> {
        signing_key(&PrivateKey::read(key)?)
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
    let rsa = || {
        rsa::PublicKey::from_pkcs1_der(public_key)
            .map_err(|_| CryptoError::Key("RSA public key out of range"))
    };
    let verified = match scheme {
        S::RsaPkcs1Sha1 => {
            rsa()?.verify(Pkcs1v15Sign::new::<Sha1>(), &Sha1::digest(message), signature).is_ok()
        }
        S::RsaPkcs1Sha256 => {
            rsa()?.verify(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message), signature).is_ok()
        }
        S::RsaPkcs1Sha384 => {
            rsa()?.verify(Pkcs1v15Sign::new::<Sha384>(), &Sha384::digest(message), signature).is_ok()
        }
        S::RsaPkcs1Sha512 => {
            rsa()?.verify(Pkcs1v15Sign::new::<Sha512>(), &Sha512::digest(message), signature).is_ok()
        }
        S::RsaPssSha256 => rsa()?.verify(Pss::<Sha256>::new(), &Sha256::digest(message), signature).is_ok(),
        S::RsaPssSha384 => rsa()?.verify(Pss::<Sha384>::new(), &Sha384::digest(message), signature).is_ok(),
        S::RsaPssSha512 => rsa()?.verify(Pss::<Sha512>::new(), &Sha512::digest(message), signature).is_ok(),
        S::EcdsaP256Sha256 => verify_p256(public_key, &Sha256::digest(message), signature)?,
        S::EcdsaP256Sha384 => verify_p256(public_key, &Sha384::digest(message), signature)?,
        S::EcdsaP384Sha256 => verify_p384(public_key, &Sha256::digest(message), signature)?,
        S::EcdsaP384Sha384 => verify_p384(public_key, &Sha384::digest(message), signature)?,
        S::Ed25519 => verify_ed25519(public_key, message, signature)?,
    };
    if verified { Ok(()) } else { Err(CryptoError::Signature) }
}

const BAD_POINT: CryptoError = CryptoError::Key("public key is not a point of its curve");

fn verify_p256(public_key: &[u8], digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(public_key).map_err(|_| BAD_POINT)?;
    let signature = p256::ecdsa::Signature::from_der(signature).map_err(|_| CryptoError::Signature)?;
    Ok(key.verify_prehash(digest, &signature).is_ok())
}

fn verify_p384(public_key: &[u8], digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
    let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(public_key).map_err(|_| BAD_POINT)?;
    let signature = p384::ecdsa::Signature::from_der(signature).map_err(|_| CryptoError::Signature)?;
    Ok(key.verify_prehash(digest, &signature).is_ok())
}

fn verify_ed25519(public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
    let key = public_key.try_into().map_err(|_| BAD_POINT)?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(key).map_err(|_| BAD_POINT)?;
    let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| CryptoError::Signature)?;
    Ok(key.verify_strict(message, &signature).is_ok())
}

/// The key, ready to sign. The other provider comes here too, for the schemes that it lacks.
pub(crate) fn signing_key(private: &PrivateKey) -> Result<Box<dyn SigningKey>, CryptoError> {
    const BAD_SCALAR: CryptoError = CryptoError::Key("elliptic curve private key out of range");
    let secret = private.secret.expose();
    let (pair, public) = match private.kind {
        KeyKind::Rsa | KeyKind::RsaPss(_) => {
            let mut key = rsa::PrivateKey::from_pkcs1_der(secret)
                .map_err(|_| CryptoError::Key("RSA private key is not consistent"))?;
            key.validate().map_err(|_| CryptoError::Key("RSA private key is not consistent"))?;
            key.precompute().map_err(|_| CryptoError::Key("RSA private key is not consistent"))?;
            let public = private.public.clone().ok_or(CryptoError::Key("malformed RSA private key"))?;
            (Pair::Rsa(Box::new(key)), public)
        }
        KeyKind::P256 => {
            let key = p256::ecdsa::SigningKey::from_slice(secret).map_err(|_| BAD_SCALAR)?;
            let public = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
            (Pair::P256(key), public)
        }
        KeyKind::P384 => {
            let key = p384::ecdsa::SigningKey::from_slice(secret).map_err(|_| BAD_SCALAR)?;
            let public = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
            (Pair::P384(key), public)
        }
        KeyKind::Ed25519 => {
            let seed = secret.try_into().map_err(|_| CryptoError::Key("Ed25519 private key out of range"))?;
            let key = ed25519_dalek::SigningKey::from_bytes(seed);
            let public = key.verifying_key().to_bytes().to_vec();
            (Pair::Ed25519(key), public)
        }
    };
    private.check_pair(&public)?;
    Ok(Box::new(Key { kind: private.kind, pair, public }))
}

enum Pair {
    Rsa(Box<rsa::PrivateKey>),
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

struct Key {
    kind: KeyKind,
    pair: Pair,
    public: Vec<u8>,
}

impl SigningKey for Key {
    fn schemes(&self) -> &[SignatureScheme] {
        self.kind.schemes()
    }

    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        use SignatureScheme as S;
        const FAILED: CryptoError = CryptoError::Key("signing failed");
        if !self.schemes().contains(&scheme) {
            return Err(CryptoError::Unsupported);
        }
        // RSA takes randomness to blind the private operation, so that its timing tells nothing of the key.
        match &self.pair {
            Pair::Rsa(key) => match scheme {
                S::RsaPkcs1Sha1 => {
                    key.sign_with_rng(&mut SysRng, Pkcs1v15Sign::new::<Sha1>(), &Sha1::digest(message))
                }
                S::RsaPkcs1Sha256 => {
                    key.sign_with_rng(&mut SysRng, Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message))
                }
                S::RsaPkcs1Sha384 => {
                    key.sign_with_rng(&mut SysRng, Pkcs1v15Sign::new::<Sha384>(), &Sha384::digest(message))
                }
                S::RsaPkcs1Sha512 => {
                    key.sign_with_rng(&mut SysRng, Pkcs1v15Sign::new::<Sha512>(), &Sha512::digest(message))
                }
                S::RsaPssSha256 => {
                    key.sign_with_rng(&mut SysRng, Pss::<Sha256>::new(), &Sha256::digest(message))
                }
                S::RsaPssSha384 => {
                    key.sign_with_rng(&mut SysRng, Pss::<Sha384>::new(), &Sha384::digest(message))
                }
                S::RsaPssSha512 => {
                    key.sign_with_rng(&mut SysRng, Pss::<Sha512>::new(), &Sha512::digest(message))
                }
                _ => return Err(CryptoError::Unsupported),
            }
            .map_err(|_| FAILED),
            Pair::P256(key) => {
                let signature: p256::ecdsa::Signature = match scheme {
                    S::EcdsaP256Sha384 => key.sign_prehash(&Sha384::digest(message)),
                    _ => key.sign_prehash(&Sha256::digest(message)),
                }
                .map_err(|_| FAILED)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Pair::P384(key) => {
                let signature: p384::ecdsa::Signature = match scheme {
                    S::EcdsaP384Sha256 => key.sign_prehash(&Sha256::digest(message)),
                    _ => key.sign_prehash(&Sha384::digest(message)),
                }
                .map_err(|_| FAILED)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Pair::Ed25519(key) => Ok(key.sign(message).to_bytes().to_vec()),
        }
    }

    fn public_key_spki(&self) -> Vec<u8> {
        keys::spki(self.kind, &self.public)
    }
}
