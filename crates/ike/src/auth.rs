//! The AUTH payload: signatures (RFC 7296 section 2.15, RFC 7427, RFC 8420) and pre-shared keys.

use crate::dn::tlv;
use crate::wire::RawId;
use ferry6_crypto::{CryptoError, CryptoProvider, HashAlgorithm, Prf, Secret, SignatureScheme, SigningKey};

/// AUTH methods.
pub mod method {
    /// RSA Digital Signature.
    pub const RSA: u8 = 1;
    /// Shared Key Message Integrity Code.
    pub const PSK: u8 = 2;
    /// DSS Digital Signature; not supported.
    pub const DSS: u8 = 3;
    /// ECDSA with SHA-256 on P-256 (RFC 4754): signature is r | s.
    pub const ECDSA_256: u8 = 9;
    /// ECDSA with SHA-384 on P-384.
    pub const ECDSA_384: u8 = 10;
    /// ECDSA with SHA-512 on P-521; not supported.
    pub const ECDSA_521: u8 = 11;
    /// Generic Secure Password (RFC 6467); not supported.
    pub const GSPM: u8 = 12;
    /// NULL authentication (RFC 7619); never accepted.
    pub const NULL: u8 = 13;
    /// Digital Signature (RFC 7427).
    pub const DIGITAL_SIGNATURE: u8 = 14;

    /// What a method is called.
    pub const fn name(number: u8) -> Option<&'static str> {
        Some(match number {
            RSA => "RSA Digital Signature",
            PSK => "Shared Key Message Integrity Code",
            DSS => "DSS Digital Signature",
            ECDSA_256 => "ECDSA with SHA-256 on P-256",
            ECDSA_384 => "ECDSA with SHA-384 on P-384",
            ECDSA_521 => "ECDSA with SHA-512 on P-521",
            GSPM => "Generic Secure Password Authentication Method",
            NULL => "NULL Authentication",
            DIGITAL_SIGNATURE => "Digital Signature",
            _ => return None,
        })
    }
}

/// Why AUTH is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The signature does not verify.
    #[error("AUTH does not verify: the peer does not hold the key of its certificate")]
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

/// The hashes that we take in signatures, as SIGNATURE_HASH_ALGORITHMS lists them (RFC 7427 section 4). No SHA-1:
/// RFC 8247 section 3.2.
pub const SIGNATURE_HASHES: [HashAlgorithm; 4] =
    [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512, HashAlgorithm::Identity];

/// The data of our SIGNATURE_HASH_ALGORITHMS notify.
pub fn encode_hashes() -> Vec<u8> {
    SIGNATURE_HASHES.iter().flat_map(|hash| hash.id().to_be_bytes()).collect()
}

/// The hashes that a SIGNATURE_HASH_ALGORITHMS notify lists; unknown numbers are skipped.
pub fn decode_hashes(data: &[u8]) -> Vec<HashAlgorithm> {
    let (numbers, _) = data.as_chunks();
    let mut hashes = Vec::new();
    for hash in numbers.iter().filter_map(|number| HashAlgorithm::from_id(u16::from_be_bytes(*number))) {
        if !hashes.contains(&hash) {
            hashes.push(hash);
        }
    }
    hashes
}

/// `InitiatorSignedOctets` or `ResponderSignedOctets` (RFC 7296 section 2.15): the signer's first message, the other's
/// nonce, prf(SK_p, ID).
pub fn signed_octets(
    crypto: &CryptoProvider,
    prf: Prf,
    first_message: &[u8],
    peer_nonce: &[u8],
    sk_p: &Secret,
    id: &RawId,
) -> Vec<u8> {
    let maced_id = crypto.hashes.prf(prf, sk_p.expose()).compute(&[&id.rest_of_payload()]);
    [first_message, peer_nonce, maced_id.expose()].concat()
}

/// Signs; picks the method: 14 where the peer listed hashes (`None`: it sent no SIGNATURE_HASH_ALGORITHMS), else the
/// classic one. Returns method and AUTH data.
///
/// With method 14 an RSA key uses the strongest hash that the peer listed, and PKCS#1 v1.5 where it may: no notify tells
/// whether a peer can do PSS. An ECDSA key prefers the hash of its curve's size.
///
/// # Errors
/// [`AuthError::NoScheme`], [`AuthError::Crypto`].
pub fn sign(
    key: &dyn SigningKey,
    peer_hashes: Option<&[HashAlgorithm]>,
    octets: &[u8],
) -> Result<(u8, Vec<u8>), AuthError> {
    if let Some(scheme) = pick_scheme(key.schemes(), peer_hashes.unwrap_or_default()) {
        let algorithm = algorithm_identifier(scheme).expect("pick_scheme leaves out SHA-1");
        let mut data = vec![u8::try_from(algorithm.len()).expect("at most 72 octets")];
        data.extend_from_slice(&algorithm);
        data.extend_from_slice(&key.sign(scheme, octets)?);
        return Ok((method::DIGITAL_SIGNATURE, data));
    }
    // RFC 7296 section 3.8; RFC 4754.
    for scheme in key.schemes() {
        return Ok(match scheme {
            SignatureScheme::RsaPkcs1Sha1 => (method::RSA, key.sign(*scheme, octets)?),
            SignatureScheme::EcdsaP256Sha256 => {
                (method::ECDSA_256, concatenated_from_der::<32>(&key.sign(*scheme, octets)?)?)
            }
            SignatureScheme::EcdsaP384Sha384 => {
                (method::ECDSA_384, concatenated_from_der::<48>(&key.sign(*scheme, octets)?)?)
            }
            _ => continue,
        });
    }
    Err(AuthError::NoScheme)
}

/// The scheme for method 14, by the hashes that the peer listed.
fn pick_scheme(ours: &[SignatureScheme], theirs: &[HashAlgorithm]) -> Option<SignatureScheme> {
    use SignatureScheme as S;
    let mut common =
        ours.iter().copied().filter(|s| s.hash() != HashAlgorithm::Sha1 && theirs.contains(&s.hash()));
    let first = common.next()?;
    let same_padding = |scheme: &S| match first {
        S::RsaPkcs1Sha256 | S::RsaPkcs1Sha384 | S::RsaPkcs1Sha512 => {
            matches!(scheme, S::RsaPkcs1Sha256 | S::RsaPkcs1Sha384 | S::RsaPkcs1Sha512)
        }
        S::RsaPssSha256 | S::RsaPssSha384 | S::RsaPssSha512 => {
            matches!(scheme, S::RsaPssSha256 | S::RsaPssSha384 | S::RsaPssSha512)
        }
        _ => false,
    };
    // The numbers of the SHA-2 hashes grow with their strength.
    common.filter(same_padding).chain([first]).max_by_key(|scheme| scheme.hash().id())
}

/// Verifies a signature AUTH with the leaf's SubjectPublicKeyInfo.
///
/// # Errors
/// [`AuthError::Wrong`] where the signature is not that of the key; [`AuthError::Method`] for methods, algorithms and
/// hashes that are not taken, or not of the key's type.
pub fn verify(
    crypto: &CryptoProvider,
    spki: &[u8],
    method: u8,
    data: &[u8],
    octets: &[u8],
) -> Result<(), AuthError> {
    use SignatureScheme as S;
    match method {
        // The hash is not told. RFC 7296 section 3.8 makes SHA-1 the default, and others may be used.
        method::RSA => {
            let schemes = [S::RsaPkcs1Sha1, S::RsaPkcs1Sha256, S::RsaPkcs1Sha384, S::RsaPkcs1Sha512];
            verify_any(crypto, spki, method, &schemes, data, octets)
        }
        method::ECDSA_256 => verify_any(
            crypto,
            spki,
            method,
            &[S::EcdsaP256Sha256],
            &der_from_concatenated::<32>(data)?,
            octets,
        ),
        method::ECDSA_384 => verify_any(
            crypto,
            spki,
            method,
            &[S::EcdsaP384Sha384],
            &der_from_concatenated::<48>(data)?,
            octets,
        ),
        method::DIGITAL_SIGNATURE => {
            let (algorithm, signature) = split_digital_signature(data)?;
            verify_any(crypto, spki, method, schemes_of(algorithm)?, signature, octets)
        }
        other => Err(AuthError::Method(describe(other))),
    }
}

fn describe(number: u8) -> String {
    match method::name(number) {
        Some(name) => format!("{number} ({name})"),
        None => number.to_string(),
    }
}

fn verify_any(
    crypto: &CryptoProvider,
    spki: &[u8],
    method: u8,
    schemes: &[SignatureScheme],
    signature: &[u8],
    octets: &[u8],
) -> Result<(), AuthError> {
    let mut error = None;
    for scheme in schemes {
        match crypto.signatures.verify(*scheme, spki, octets, signature) {
            Ok(()) => return Ok(()),
            Err(CryptoError::Signature) => error = Some(AuthError::Wrong),
            // A key of another type: perhaps the next scheme is for it.
            Err(CryptoError::Key(problem)) => {
                error.get_or_insert_with(|| AuthError::Method(format!("{}: {problem}", describe(method))));
            }
            Err(other) => return Err(other.into()),
        }
    }
    Err(error.unwrap_or_else(|| AuthError::Method(describe(method))))
}

/// RFC 7427 section 3: one octet of length, AlgorithmIdentifier, signature value.
fn split_digital_signature(data: &[u8]) -> Result<(&[u8], &[u8]), AuthError> {
    data.split_first()
        .and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)))
        .ok_or_else(|| AuthError::Method("14 (Digital Signature): AlgorithmIdentifier is cut short".into()))
}

// --- AlgorithmIdentifier (RFC 7427 appendix A, RFC 8420 section 2) ------------------------------------------------

const SEQUENCE: u8 = 0x30;
/// Tags, lengths and contents of the OBJECT IDENTIFIERs.
mod oid {
    pub(super) const RSA_SHA256: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b";
    pub(super) const RSA_SHA384: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c";
    pub(super) const RSA_SHA512: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d";
    pub(super) const RSASSA_PSS: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
    pub(super) const MGF1: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08";
    pub(super) const SHA256: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01";
    pub(super) const SHA384: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02";
    pub(super) const SHA512: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03";
    pub(super) const ECDSA_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    pub(super) const ECDSA_SHA384: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";
    pub(super) const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
}
const NULL: &[u8] = b"\x05\x00";

/// What we write; `None` for SHA-1, which method 14 never carries (RFC 8247 section 3.2).
fn algorithm_identifier(scheme: SignatureScheme) -> Option<Vec<u8>> {
    use SignatureScheme as S;
    let parts: &[&[u8]] = match scheme {
        S::RsaPkcs1Sha1 => return None,
        // Appendix A.1: the parameters are NULL. A.3: absent.
        S::RsaPkcs1Sha256 => &[oid::RSA_SHA256, NULL],
        S::RsaPkcs1Sha384 => &[oid::RSA_SHA384, NULL],
        S::RsaPkcs1Sha512 => &[oid::RSA_SHA512, NULL],
        S::EcdsaP256Sha256 | S::EcdsaP384Sha256 => &[oid::ECDSA_SHA256],
        S::EcdsaP256Sha384 | S::EcdsaP384Sha384 => &[oid::ECDSA_SHA384],
        S::Ed25519 => &[oid::ED25519],
        // Appendix A.4.3 writes the trailer field out, though it is the default.
        S::RsaPssSha256 => return Some(pss(oid::SHA256, 32, NULL, NULL, true)),
        S::RsaPssSha384 => return Some(pss(oid::SHA384, 48, NULL, NULL, true)),
        S::RsaPssSha512 => return Some(pss(oid::SHA512, 64, NULL, NULL, true)),
    };
    Some(tlv(SEQUENCE, &parts.concat()))
}

/// RSASSA-PSS with its parameters (RFC 4055 section 3.1).
fn pss(hash: &[u8], salt: u8, hash_null: &[u8], mgf_null: &[u8], trailer: bool) -> Vec<u8> {
    let hash_algorithm = tlv(SEQUENCE, &[hash, hash_null].concat());
    let mgf_hash = tlv(SEQUENCE, &[hash, mgf_null].concat());
    let mgf = tlv(SEQUENCE, &[oid::MGF1, &mgf_hash].concat());
    let mut parameters = [tlv(0xa0, &hash_algorithm), tlv(0xa1, &mgf), tlv(0xa2, &[2, 1, salt])].concat();
    if trailer {
        parameters.extend_from_slice(&[0xa3, 3, 2, 1, 1]);
    }
    tlv(SEQUENCE, &[oid::RSASSA_PSS, &tlv(SEQUENCE, &parameters)].concat())
}

/// What an AlgorithmIdentifier stands for; for ECDSA the key decides between the curves.
fn schemes_of(algorithm: &[u8]) -> Result<&'static [SignatureScheme], AuthError> {
    use SignatureScheme as S;
    let is = |oid: &[u8], parameters: &[u8]| algorithm == tlv(SEQUENCE, &[oid, parameters].concat());
    // RFC 4055 section 5: NULL is to be written, and an absent one to be accepted.
    for (oid, schemes) in [
        (oid::RSA_SHA256, &[S::RsaPkcs1Sha256]),
        (oid::RSA_SHA384, &[S::RsaPkcs1Sha384]),
        (oid::RSA_SHA512, &[S::RsaPkcs1Sha512]),
    ] {
        if is(oid, NULL) || is(oid, &[]) {
            return Ok(schemes);
        }
    }
    if is(oid::ECDSA_SHA256, &[]) {
        return Ok(&[S::EcdsaP256Sha256, S::EcdsaP384Sha256]);
    }
    if is(oid::ECDSA_SHA384, &[]) {
        return Ok(&[S::EcdsaP384Sha384, S::EcdsaP256Sha384]);
    }
    if is(oid::ED25519, &[]) {
        return Ok(&[S::Ed25519]);
    }
    // RFC 4055 section 2.1: NULL and absent parameters of the hashes are both right; the trailer is there or not.
    for (hash, salt, schemes) in [
        (oid::SHA256, 32, &[S::RsaPssSha256]),
        (oid::SHA384, 48, &[S::RsaPssSha384]),
        (oid::SHA512, 64, &[S::RsaPssSha512]),
    ] {
        for variant in 0..8_u8 {
            let null = |bit: u8| if variant & bit == 0 { NULL } else { &[] };
            if algorithm == pss(hash, salt, null(1), null(2), variant & 4 == 0) {
                return Ok(schemes);
            }
        }
    }
    Err(AuthError::Method(format!(
        "14 (Digital Signature) with AlgorithmIdentifier {}",
        crate::dn::hex(&algorithm[..algorithm.len().min(80)])
    )))
}

// --- ECDSA signatures: DER (RFC 5480) and r | s (RFC 4754 section 7) -----------------------------------------------

/// `SEQUENCE { INTEGER r, INTEGER s }` from r | s of `N` octets each.
fn der_from_concatenated<const N: usize>(data: &[u8]) -> Result<Vec<u8>, AuthError> {
    if data.len() != 2 * N {
        return Err(AuthError::Wrong);
    }
    let integer = |octets: &[u8]| {
        let zeros = octets.iter().take_while(|octet| **octet == 0).count();
        // A positive INTEGER has its top bit clear, and at least one octet.
        let mut content = vec![0];
        content.extend_from_slice(&octets[zeros..]);
        match content.get(1) {
            Some(first) if *first < 0x80 => tlv(2, &content[1..]),
            _ => tlv(2, &content),
        }
    };
    let (r, s) = data.split_at(N);
    Ok(tlv(SEQUENCE, &[integer(r), integer(s)].concat()))
}

/// r | s of `N` octets each, from what our own signing key gave.
fn concatenated_from_der<const N: usize>(der: &[u8]) -> Result<Vec<u8>, CryptoError> {
    const MALFORMED: CryptoError = CryptoError::Key("signing failed: ECDSA signature is not DER");
    // A signature on P-384 has less than 128 octets, so all lengths are of the short form.
    let read = |octets: &'_ [u8], tag: u8| -> Option<(usize, usize)> {
        let [found, len, ..] = *octets else { return None };
        (found == tag && usize::from(len) <= octets.len() - 2).then_some((2, usize::from(len)))
    };
    let (start, len) =
        read(der, SEQUENCE).filter(|(start, len)| start + len == der.len()).ok_or(MALFORMED)?;
    let mut rest = &der[start..start + len];
    let mut out = Vec::with_capacity(2 * N);
    for _ in 0..2 {
        let (start, len) = read(rest, 2).ok_or(MALFORMED)?;
        let mut content = &rest[start..start + len];
        rest = &rest[start + len..];
        while let [0, tail @ ..] = content {
            content = tail;
        }
        let zeros = N.checked_sub(content.len()).ok_or(MALFORMED)?;
        out.resize(out.len() + zeros, 0);
        out.extend_from_slice(content);
    }
    if rest.is_empty() { Ok(out) } else { Err(MALFORMED) }
}

// --- Pre-shared keys -----------------------------------------------------------------------------------------------

/// AUTH data for a pre-shared key: prf(prf(secret, "Key Pad for IKEv2"), octets) (RFC 7296 section 2.15). To be compared
/// with the peer's by [`Secret::ct_eq`].
pub fn psk_auth(crypto: &CryptoProvider, prf: Prf, psk: &Secret, octets: &[u8]) -> Secret {
    let key = crypto.hashes.prf(prf, psk.expose()).compute(&[b"Key Pad for IKEv2"]);
    crypto.hashes.prf(prf, key.expose()).compute(&[octets])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry6_crypto::providers;
    use proptest::prelude::*;
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject;

    use HashAlgorithm::{Identity, Sha1, Sha256, Sha384, Sha512};

    const OCTETS: &[u8] = b"signed octets";

    /// Test keys, made for nothing else.
    fn keys() -> Vec<(&'static str, Box<dyn SigningKey>)> {
        [
            ("rsa", include_str!("../testdata/rsa-2048.key")),
            ("p256", include_str!("../testdata/p256.key")),
            ("p384", include_str!("../testdata/p384.key")),
            ("ed25519", include_str!("../testdata/ed25519.key")),
        ]
        .into_iter()
        .map(|(name, pem)| {
            let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
            (name, providers()[0].signatures.load_key(&der).unwrap())
        })
        .collect()
    }

    fn key(name: &str) -> Box<dyn SigningKey> {
        keys().into_iter().find(|(found, _)| *found == name).unwrap().1
    }

    #[test]
    fn every_key_and_every_list_of_hashes() {
        for (name, key) in keys() {
            let spki = key.public_key_spki();
            for (hashes, expected) in [
                (Some(&[Sha256, Sha384, Sha512, Identity][..]), Some(14)),
                (Some(&[Sha256]), if name == "ed25519" { None } else { Some(14) }),
                (Some(&[Sha384]), if name == "ed25519" { None } else { Some(14) }),
                (Some(&[Identity]), if name == "ed25519" { Some(14) } else { classic(name) }),
                (Some(&[Sha1]), classic(name)),
                (Some(&[]), classic(name)),
                (None, classic(name)),
            ] {
                let signed = sign(key.as_ref(), hashes, OCTETS);
                let Some(expected) = expected else {
                    assert_eq!(signed, Err(AuthError::NoScheme), "{name} {hashes:?}");
                    continue;
                };
                let (method, data) = signed.unwrap();
                assert_eq!(method, expected, "{name} {hashes:?}");
                for provider in providers() {
                    assert_eq!(verify(provider, &spki, method, &data, OCTETS), Ok(()), "{name} {hashes:?}");
                    assert_eq!(
                        verify(provider, &spki, method, &data, b"other octets"),
                        Err(AuthError::Wrong),
                        "{name}"
                    );
                }
            }
        }
    }

    fn classic(name: &str) -> Option<u8> {
        match name {
            "rsa" => Some(method::RSA),
            "p256" => Some(method::ECDSA_256),
            "p384" => Some(method::ECDSA_384),
            _ => None,
        }
    }

    #[test]
    fn which_scheme() {
        use SignatureScheme as S;
        let all = [Sha1, Sha256, Sha384, Sha512, Identity];
        let rsa = key("rsa");
        assert_eq!(pick_scheme(rsa.schemes(), &all), Some(S::RsaPkcs1Sha512));
        assert_eq!(pick_scheme(rsa.schemes(), &[Sha256, Sha384]), Some(S::RsaPkcs1Sha384));
        assert_eq!(pick_scheme(rsa.schemes(), &[Sha1]), None);
        assert_eq!(pick_scheme(key("p256").schemes(), &all), Some(S::EcdsaP256Sha256));
        assert_eq!(pick_scheme(key("p256").schemes(), &[Sha384]), Some(S::EcdsaP256Sha384));
        assert_eq!(pick_scheme(key("p384").schemes(), &all), Some(S::EcdsaP384Sha384));
        assert_eq!(pick_scheme(key("ed25519").schemes(), &all), Some(S::Ed25519));
        let pss = [S::RsaPssSha256, S::RsaPssSha384, S::RsaPssSha512];
        assert_eq!(pick_scheme(&pss, &all), Some(S::RsaPssSha512));
    }

    /// All schemes of RFC 7427 that a key has, PSS too.
    #[test]
    fn every_scheme_of_method_14() {
        for (name, key) in keys() {
            for scheme in key.schemes().iter().filter(|scheme| scheme.hash() != Sha1) {
                let algorithm = algorithm_identifier(*scheme).unwrap();
                assert!(schemes_of(&algorithm).unwrap().contains(scheme));
                let mut data = vec![algorithm.len() as u8];
                data.extend_from_slice(&algorithm);
                data.extend_from_slice(&key.sign(*scheme, OCTETS).unwrap());
                for provider in providers() {
                    let spki = key.public_key_spki();
                    assert_eq!(verify(provider, &spki, 14, &data, OCTETS), Ok(()), "{name} {scheme:?}");
                    for octet in [0, 3, data.len() - 1] {
                        let mut wrong = data.clone();
                        wrong[octet] ^= 1;
                        assert!(verify(provider, &spki, 14, &wrong, OCTETS).is_err());
                    }
                }
            }
        }
    }

    /// RFC 7427 appendix A.
    #[test]
    fn algorithm_identifiers_are_those_of_the_rfc() {
        use SignatureScheme as S;
        let hex = |scheme| crate::dn::hex(&algorithm_identifier(scheme).unwrap());
        assert_eq!(hex(S::RsaPkcs1Sha256), "300d06092a864886f70d01010b0500");
        assert_eq!(hex(S::EcdsaP256Sha256), "300a06082a8648ce3d040302");
        assert_eq!(hex(S::Ed25519), "300506032b6570");
        assert_eq!(
            hex(S::RsaPssSha256),
            "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d010108\
             300d06096086480165030402010500a203020120a303020101"
        );
        assert_eq!(algorithm_identifier(S::RsaPkcs1Sha1), None);
        for (accepted, scheme) in [
            ("300b06092a864886f70d01010b", S::RsaPkcs1Sha256),
            (
                "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108\
                 300d06096086480165030402010500a203020120",
                S::RsaPssSha256,
            ),
        ] {
            assert_eq!(schemes_of(&hex::decode(accepted).unwrap()).unwrap(), [scheme]);
        }
        for (refused, what) in [
            ("300d06092a864886f70d0101050500", "SHA-1 with RSA"),
            ("300906072a8648ce3d0401", "SHA-1 with ECDSA"),
            ("300d06092a864886f70d01010a3000", "PSS with its SHA-1 defaults"),
            ("300c06082a8648ce3d0403020500", "ECDSA with parameters"),
            ("300706032b65700500", "Ed25519 with parameters"),
            ("300506032b6571", "Ed448"),
            ("", "nothing"),
        ] {
            assert!(schemes_of(&hex::decode(refused).unwrap()).is_err(), "{what}");
        }
    }

    #[test]
    fn methods_and_keys_that_do_not_fit() {
        for provider in providers() {
            let spki = key("p256").public_key_spki();
            for method in [0, 3, 11, 12, 13, 15, 255] {
                let error = verify(provider, &spki, method, &[0; 64], OCTETS).unwrap_err();
                assert!(matches!(error, AuthError::Method(_)), "{method}: {error}");
            }
            assert!(matches!(verify(provider, &spki, 1, &[0; 256], OCTETS), Err(AuthError::Method(_))));
            assert!(matches!(verify(provider, &spki, 10, &[1; 96], OCTETS), Err(AuthError::Method(_))));
            assert_eq!(verify(provider, &spki, 9, &[1; 96], OCTETS), Err(AuthError::Wrong));
            assert_eq!(verify(provider, &spki, 9, &[0; 64], OCTETS), Err(AuthError::Wrong));
            assert!(matches!(verify(provider, &spki, 14, &[], OCTETS), Err(AuthError::Method(_))));
            assert!(matches!(verify(provider, &spki, 14, &[9, 0], OCTETS), Err(AuthError::Method(_))));
            assert!(matches!(verify(provider, b"junk", 9, &[1; 64], OCTETS), Err(AuthError::Method(_))));
        }
        assert_eq!(
            AuthError::Method(describe(13)).to_string(),
            "AUTH method 13 (NULL Authentication) not acceptable"
        );
        assert_eq!(AuthError::Method(describe(200)).to_string(), "AUTH method 200 not acceptable");
    }

    /// Method 1 does not tell its hash; peers that do not use SHA-1 are taken too.
    #[test]
    fn classic_rsa_with_any_hash() {
        use SignatureScheme as S;
        let key = key("rsa");
        for scheme in [S::RsaPkcs1Sha1, S::RsaPkcs1Sha256, S::RsaPkcs1Sha384, S::RsaPkcs1Sha512] {
            let data = key.sign(scheme, OCTETS).unwrap();
            for provider in providers() {
                assert_eq!(verify(provider, &key.public_key_spki(), 1, &data, OCTETS), Ok(()));
            }
        }
        let pss = key.sign(S::RsaPssSha256, OCTETS).unwrap();
        assert_eq!(verify(providers()[0], &key.public_key_spki(), 1, &pss, OCTETS), Err(AuthError::Wrong));
    }

    #[test]
    fn signed_octets_cover_all_of_the_id_payload() {
        let sk_p = Secret::new(vec![7; 32]);
        let id = |reserved, data: &[u8]| RawId { id_type: 2, reserved, data: data.to_vec() };
        for provider in providers() {
            let octets =
                |id: &RawId| signed_octets(provider, Prf::HmacSha256, b"message", b"nonce", &sk_p, id);
            let plain = octets(&id([0; 3], b"a"));
            let mac = provider.hashes.prf(Prf::HmacSha256, &[7; 32]).compute(&[b"\x02\0\0\0a"]);
            assert_eq!(plain, [b"messagenonce", mac.expose()].concat());
            assert_ne!(plain, octets(&id([0, 0, 1], b"a")));
            assert_ne!(plain, octets(&id([0; 3], b"b")));
        }
    }

    /// HMAC-SHA2-256 of HMAC-SHA2-256, computed with another implementation (Python's hmac).
    #[test]
    fn psk() {
        let psk = Secret::new(b"correct horse battery staple".to_vec());
        for provider in providers() {
            let auth = psk_auth(provider, Prf::HmacSha256, &psk, OCTETS);
            assert_eq!(
                crate::dn::hex(auth.expose()),
                "3a6f56da2b14d5186d7d5850bec52f2df5af34a5766c1fe032e228cc9acd2476"
            );
            assert_ne!(auth, psk_auth(provider, Prf::HmacSha256, &psk, b"other octets"));
            assert_ne!(auth, psk_auth(provider, Prf::HmacSha256, &Secret::new(vec![1]), OCTETS));
        }
    }

    #[test]
    fn hash_lists() {
        assert_eq!(encode_hashes(), [0, 2, 0, 3, 0, 4, 0, 5]);
        assert_eq!(decode_hashes(&encode_hashes()), SIGNATURE_HASHES);
        assert_eq!(decode_hashes(&[0, 9, 0, 1, 0, 1, 7]), [Sha1]);
        assert_eq!(decode_hashes(&[]), []);
    }

    #[test]
    fn ecdsa_conversions() {
        let mut small = [0; 64];
        small[31] = 1;
        small[63] = 0x80;
        assert_eq!(der_from_concatenated::<32>(&small).unwrap(), [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        assert_eq!(der_from_concatenated::<32>(&[0; 64]).unwrap(), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        assert_eq!(der_from_concatenated::<32>(&[0; 63]), Err(AuthError::Wrong));
        for bad in [
            &b""[..],
            b"\x30\x06\x02\x01\x01\x02\x01",
            b"\x30\x03\x02\x01\x01",
            b"\x31\x06\x02\x01\x01\x02\x01\x01",
        ] {
            assert!(concatenated_from_der::<32>(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn ecdsa_round_trip(data in proptest::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 96)) {
            let der = der_from_concatenated::<48>(&data).unwrap();
            prop_assert_eq!(concatenated_from_der::<48>(&der).unwrap(), data);
        }

        #[test]
        fn any_auth_data(method: u8, data in proptest::collection::vec(any::<u8>(), 0..100)) {
            let spki = key("p256").public_key_spki();
            for provider in providers() {
                prop_assert!(verify(provider, &spki, method, &data, OCTETS).is_err());
            }
            let _ = (decode_hashes(&data), concatenated_from_der::<32>(&data));
        }
    }
}
