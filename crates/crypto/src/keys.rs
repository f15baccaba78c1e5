//! Public and private keys in their DER encodings, read once for both providers.

use crate::{CryptoError, Secret, SignatureScheme};

use rsa::pkcs1::{RsaPrivateKeyRef, RsaPublicKeyRef};
use rsa::pkcs8::PrivateKeyInfoRef;
use rsa::pkcs8::der::asn1::{AnyRef, BitStringRef, OctetStringRef};
use rsa::pkcs8::der::{Decode, Encode, Header, Reader, SliceReader, Tag, Tagged};
use rustls_pki_types::{AlgorithmIdentifier, PrivateKeyDer, alg_id};
use sec1::EcPrivateKey;

/// Sizes of RSA moduli that are accepted, in bits; RFC 8247 section 4.1.1 advises against less than 2048.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// `id-RSASSA-PSS` (RFC 4055 section 1.2) without parameters, as the contents of an AlgorithmIdentifier.
pub(crate) const RSA_PSS_ANY: AlgorithmIdentifier =
    AlgorithmIdentifier::from_slice(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a]);

/// What kind of key it is, and with it what it may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// `rsaEncryption`: every RSA scheme.
    Rsa,
    /// `id-RSASSA-PSS`: PSS alone; with one hash alone where the key says so.
    RsaPss(Option<SignatureScheme>),
    P256,
    P384,
    Ed25519,
}

impl KeyKind {
    /// From the contents of an AlgorithmIdentifier.
    fn from_algorithm(contents: &[u8]) -> Option<Self> {
        use SignatureScheme::{RsaPssSha256, RsaPssSha384, RsaPssSha512};
        [
            Self::Rsa,
            Self::P256,
            Self::P384,
            Self::Ed25519,
            Self::RsaPss(None),
            Self::RsaPss(Some(RsaPssSha256)),
            Self::RsaPss(Some(RsaPssSha384)),
            Self::RsaPss(Some(RsaPssSha512)),
        ]
        .into_iter()
        .find(|kind| kind.algorithm().as_ref() == contents)
    }

    /// The contents of its AlgorithmIdentifier in a SubjectPublicKeyInfo.
    fn algorithm(self) -> AlgorithmIdentifier {
        match self {
            Self::Rsa => alg_id::RSA_ENCRYPTION,
            Self::RsaPss(Some(SignatureScheme::RsaPssSha256)) => alg_id::RSA_PSS_SHA256,
            Self::RsaPss(Some(SignatureScheme::RsaPssSha384)) => alg_id::RSA_PSS_SHA384,
            Self::RsaPss(Some(_)) => alg_id::RSA_PSS_SHA512,
            Self::RsaPss(None) => RSA_PSS_ANY,
            Self::P256 => alg_id::ECDSA_P256,
            Self::P384 => alg_id::ECDSA_P384,
            Self::Ed25519 => alg_id::ED25519,
        }
    }

    /// What a key of this kind may sign with. The first is what every peer understands: RFC 7427 gives no way to
    /// learn whether a peer takes PSS, and some take PKCS#1 v1.5 alone. SHA-1 is last: the classic method 1 needs it.
    pub(crate) fn schemes(self) -> &'static [SignatureScheme] {
        use SignatureScheme as S;
        match self {
            Self::Rsa => &[
                S::RsaPkcs1Sha256,
                S::RsaPkcs1Sha384,
                S::RsaPkcs1Sha512,
                S::RsaPssSha256,
                S::RsaPssSha384,
                S::RsaPssSha512,
                S::RsaPkcs1Sha1,
            ],
            Self::RsaPss(None) => &[S::RsaPssSha256, S::RsaPssSha384, S::RsaPssSha512],
            Self::RsaPss(Some(S::RsaPssSha256)) => &[S::RsaPssSha256],
            Self::RsaPss(Some(S::RsaPssSha384)) => &[S::RsaPssSha384],
            Self::RsaPss(Some(_)) => &[S::RsaPssSha512],
            Self::P256 => &[S::EcdsaP256Sha256, S::EcdsaP256Sha384],
            Self::P384 => &[S::EcdsaP384Sha384, S::EcdsaP384Sha256],
            Self::Ed25519 => &[S::Ed25519],
        }
    }
}

/// The octets of the public key in a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7): RSAPublicKey, SEC 1 point, or
/// Ed25519 key; checked to be of `scheme`'s type.
pub(crate) fn public_key(spki: &[u8], scheme: SignatureScheme) -> Result<&[u8], CryptoError> {
    const MALFORMED: CryptoError = CryptoError::Key("malformed SubjectPublicKeyInfo");
    let outer = AnyRef::from_der(spki).map_err(|_| MALFORMED)?;
    if outer.tag() != Tag::Sequence {
        return Err(MALFORMED);
    }
    let mut reader = SliceReader::new(outer.value()).map_err(|_| MALFORMED)?;
    let algorithm: AnyRef<'_> = reader.decode().map_err(|_| MALFORMED)?;
    let key: BitStringRef<'_> = reader.decode().map_err(|_| MALFORMED)?;
    if algorithm.tag() != Tag::Sequence || !reader.is_finished() {
        return Err(MALFORMED);
    }
    let kind = KeyKind::from_algorithm(algorithm.value())
        .ok_or(CryptoError::Key("type of public key not supported"))?;
    if !kind.schemes().contains(&scheme) {
        return Err(CryptoError::Key("public key is not of the signature's type"));
    }
    let octets = key.as_bytes().ok_or(MALFORMED)?;
    check_public(scheme, octets)?;
    Ok(octets)
}

/// Checks the octets of a public key as far as the libraries leave it open.
pub(crate) fn check_public(scheme: SignatureScheme, octets: &[u8]) -> Result<(), CryptoError> {
    use SignatureScheme as S;
    match scheme {
        S::RsaPkcs1Sha1
        | S::RsaPkcs1Sha256
        | S::RsaPkcs1Sha384
        | S::RsaPkcs1Sha512
        | S::RsaPssSha256
        | S::RsaPssSha384
        | S::RsaPssSha512 => {
            let key = RsaPublicKeyRef::try_from(octets)
                .map_err(|_| CryptoError::Key("malformed RSA public key"))?;
            check_rsa_size(key.modulus.as_bytes())
        }
        // RFC 5480 section 2.2: nothing else may stand in the first octet.
        S::EcdsaP256Sha256 | S::EcdsaP256Sha384 | S::EcdsaP384Sha256 | S::EcdsaP384Sha384 => {
            match octets.first() {
                Some(2..=4) => Ok(()),
                _ => Err(CryptoError::Key("malformed elliptic curve point")),
            }
        }
        S::Ed25519 if octets.len() == 32 => Ok(()),
        S::Ed25519 => Err(CryptoError::Key("Ed25519 public key of the wrong length")),
    }
}

fn check_rsa_size(modulus: &[u8]) -> Result<(), CryptoError> {
    let zeros = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    let bits = modulus.len() * 8 - zeros;
    if bits < *RSA_BITS.start() {
        Err(CryptoError::Key("RSA key of less than 2048 bits"))
    } else if bits > *RSA_BITS.end() {
        Err(CryptoError::Key("RSA key of more than 8192 bits"))
    } else {
        Ok(())
    }
}

/// A private key out of its container.
pub(crate) struct PrivateKey {
    pub(crate) kind: KeyKind,
    /// RSAPrivateKey (RFC 8017) in DER, the scalar of an elliptic curve, or the seed of Ed25519.
    pub(crate) secret: Secret,
    /// The public key that stands beside it, or for RSA in it: RSAPublicKey, SEC 1 point, Ed25519 key.
    pub(crate) public: Option<Vec<u8>>,
}

impl PrivateKey {
    /// Reads PKCS#8 (RFC 5958), PKCS#1 (RFC 8017) or SEC 1 (RFC 5915).
    pub(crate) fn read(key: &PrivateKeyDer<'_>) -> Result<Self, CryptoError> {
        match key {
            PrivateKeyDer::Pkcs1(der) => Self::from_pkcs1(KeyKind::Rsa, der.secret_pkcs1_der()),
            PrivateKeyDer::Sec1(der) => Self::from_sec1(None, der.secret_sec1_der()),
            PrivateKeyDer::Pkcs8(der) => Self::from_pkcs8(der.secret_pkcs8_der()),
            _ => Err(CryptoError::Key("container of the private key not supported")),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, CryptoError> {
        const MALFORMED: CryptoError = CryptoError::Key("malformed PKCS#8 private key");
        let info = PrivateKeyInfoRef::try_from(der).map_err(|_| MALFORMED)?;
        let algorithm = info.algorithm.to_der().map_err(|_| MALFORMED)?;
        let algorithm = AnyRef::from_der(&algorithm).map_err(|_| MALFORMED)?;
        let kind = KeyKind::from_algorithm(algorithm.value())
            .ok_or(CryptoError::Key("type of private key not supported: use RSA, P-256, P-384 or Ed25519"))?;
        let inner = info.private_key.as_bytes();
        match kind {
            KeyKind::Rsa | KeyKind::RsaPss(_) => Self::from_pkcs1(kind, inner),
            KeyKind::P256 | KeyKind::P384 => Self::from_sec1(Some(kind), inner),
            KeyKind::Ed25519 => {
                // RFC 8410 section 7: an OCTET STRING within the OCTET STRING.
                let seed = <&OctetStringRef>::from_der(inner).map_err(|_| MALFORMED)?.as_bytes();
                if seed.len() != 32 {
                    return Err(MALFORMED);
                }
                let public = info.public_key.as_ref().and_then(BitStringRef::as_bytes).map(<[u8]>::to_vec);
                Ok(Self { kind, secret: Secret::from(seed), public })
            }
        }
    }

    fn from_pkcs1(kind: KeyKind, der: &[u8]) -> Result<Self, CryptoError> {
        const MALFORMED: CryptoError = CryptoError::Key("malformed RSA private key");
        let key = RsaPrivateKeyRef::try_from(der).map_err(|_| MALFORMED)?;
        check_rsa_size(key.modulus.as_bytes())?;
        let public = key.public_key().to_der().map_err(|_| MALFORMED)?;
        Ok(Self { kind, secret: Secret::from(der), public: Some(public) })
    }

    /// `outer` is the curve that PKCS#8 named; on its own the structure must name it.
    fn from_sec1(outer: Option<KeyKind>, der: &[u8]) -> Result<Self, CryptoError> {
        let key = EcPrivateKey::try_from(der)
            .map_err(|_| CryptoError::Key("malformed elliptic curve private key"))?;
        let inner = match key.parameters.and_then(|parameters| parameters.named_curve()) {
            None => None,
            Some(oid) if alg_id::ECDSA_P256.ends_with(oid.as_bytes()) => Some(KeyKind::P256),
            Some(oid) if alg_id::ECDSA_P384.ends_with(oid.as_bytes()) => Some(KeyKind::P384),
            Some(_) => return Err(CryptoError::Key("elliptic curve not supported: use P-256 or P-384")),
        };
        let kind = match (outer, inner) {
            (Some(outer), Some(inner)) if outer != inner => {
                return Err(CryptoError::Key("private key names two different curves"));
            }
            (Some(kind), _) | (None, Some(kind)) => kind,
            (None, None) => return Err(CryptoError::Key("private key does not name its curve")),
        };
        Ok(Self { kind, secret: Secret::from(key.private_key), public: key.public_key.map(<[u8]>::to_vec) })
    }

    /// Fails where the container's public key is not `derived`, the one that belongs to the private key.
    pub(crate) fn check_pair(&self, derived: &[u8]) -> Result<(), CryptoError> {
        match &self.public {
            Some(public) if public != derived => {
                Err(CryptoError::Key("public key in the file does not belong to the private key"))
            }
            _ => Ok(()),
        }
    }
}

/// SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) in DER.
pub(crate) fn spki(kind: KeyKind, public: &[u8]) -> Vec<u8> {
    let algorithm = tlv(Tag::Sequence, &[kind.algorithm().as_ref()]);
    let key = tlv(Tag::BitString, &[&[0], public]);
    tlv(Tag::Sequence, &[&algorithm, &key])
}

fn tlv(tag: Tag, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let length = u32::try_from(contents.len()).expect("a public key is shorter than 4 GiB").into();
    let mut out = Header::new(tag, length).to_der().expect("a header fits into memory");
    out.extend_from_slice(&contents);
    out
}
