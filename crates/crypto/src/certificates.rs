//! The signature algorithms of certificates and CRLs, as `webpki` takes them.

use crate::keys::{RSA_PSS_ANY, check_public};
use crate::{CryptoError, SignatureScheme};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

/// A provider's verification: scheme, octets of the public key, message, signature.
pub(crate) type Verify = fn(SignatureScheme, &[u8], &[u8], &[u8]) -> Result<(), CryptoError>;

/// One pair of key type and signature algorithm.
struct CertificateAlgorithm {
    public_key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    scheme: SignatureScheme,
    verify: Verify,
}

impl std::fmt::Debug for CertificateAlgorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertificateAlgorithm({:?})", self.scheme)
    }
}

impl SignatureVerificationAlgorithm for CertificateAlgorithm {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        check_public(self.scheme, public_key)
            .and_then(|()| (self.verify)(self.scheme, public_key, message, signature))
            .map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.public_key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

/// sha256WithRSAEncryption and its kin without parameters: RFC 4055 section 5 wants NULL there, and wants those who
/// verify to accept an absent one.
const fn rsa_without_parameters(contents: &'static [u8; 11]) -> AlgorithmIdentifier {
    AlgorithmIdentifier::from_slice(contents)
}
const RSA_SHA256_ABSENT: AlgorithmIdentifier =
    rsa_without_parameters(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]);
const RSA_SHA384_ABSENT: AlgorithmIdentifier =
    rsa_without_parameters(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c]);
const RSA_SHA512_ABSENT: AlgorithmIdentifier =
    rsa_without_parameters(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d]);

/// What `webpki` takes.
pub(crate) type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

/// Every algorithm, the usual first, over a provider's verification. No SHA-1. `webpki` wants them for as long as the
/// program lives; so each provider makes them once.
pub(crate) fn algorithms(verify: Verify) -> Algorithms {
    use SignatureScheme as S;
    use alg_id::{
        ECDSA_P256, ECDSA_P384, ECDSA_SHA256, ECDSA_SHA384, ED25519, RSA_ENCRYPTION, RSA_PKCS1_SHA256,
        RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    };
    let table = [
        (RSA_ENCRYPTION, RSA_PKCS1_SHA256, S::RsaPkcs1Sha256),
        (ECDSA_P256, ECDSA_SHA256, S::EcdsaP256Sha256),
        (ED25519, ED25519, S::Ed25519),
        (ECDSA_P384, ECDSA_SHA384, S::EcdsaP384Sha384),
        (RSA_ENCRYPTION, RSA_PKCS1_SHA384, S::RsaPkcs1Sha384),
        (RSA_ENCRYPTION, RSA_PKCS1_SHA512, S::RsaPkcs1Sha512),
        (RSA_ENCRYPTION, RSA_SHA256_ABSENT, S::RsaPkcs1Sha256),
        (RSA_ENCRYPTION, RSA_SHA384_ABSENT, S::RsaPkcs1Sha384),
        (RSA_ENCRYPTION, RSA_SHA512_ABSENT, S::RsaPkcs1Sha512),
        (RSA_ENCRYPTION, RSA_PSS_SHA256, S::RsaPssSha256),
        (RSA_ENCRYPTION, RSA_PSS_SHA384, S::RsaPssSha384),
        (RSA_ENCRYPTION, RSA_PSS_SHA512, S::RsaPssSha512),
        (RSA_PSS_ANY, RSA_PSS_SHA256, S::RsaPssSha256),
        (RSA_PSS_ANY, RSA_PSS_SHA384, S::RsaPssSha384),
        (RSA_PSS_ANY, RSA_PSS_SHA512, S::RsaPssSha512),
        (RSA_PSS_SHA256, RSA_PSS_SHA256, S::RsaPssSha256),
        (RSA_PSS_SHA384, RSA_PSS_SHA384, S::RsaPssSha384),
        (RSA_PSS_SHA512, RSA_PSS_SHA512, S::RsaPssSha512),
        (ECDSA_P256, ECDSA_SHA384, S::EcdsaP256Sha384),
        (ECDSA_P384, ECDSA_SHA256, S::EcdsaP384Sha256),
    ];
    let table: Vec<&'static dyn SignatureVerificationAlgorithm> = table
        .into_iter()
        .map(|(public_key, signature, scheme)| {
            let algorithm = CertificateAlgorithm { public_key, signature, scheme, verify };
            &*Box::leak(Box::new(algorithm)) as _
        })
        .collect();
    table.leak()
}
