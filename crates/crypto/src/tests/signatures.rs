//! Signatures: published vectors, keys and signatures made by OpenSSL, and hostile input.

use super::cross::SCHEMES;
use super::{for_both, for_pairs, hex};
use crate::SignatureScheme as S;
use crate::provider::SigningKey;
use crate::{CryptoError, CryptoProvider, SignatureScheme};
use rustls_pki_types::PrivateKeyDer;

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("data/", $name)).as_slice()
    };
}

const MESSAGE: &[u8] = data!("message");

fn pkcs8(der: &[u8]) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(der.to_vec().into())
}

fn sec1(der: &[u8]) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Sec1(der.to_vec().into())
}

fn load(provider: &CryptoProvider, key: &PrivateKeyDer<'_>) -> Box<dyn SigningKey> {
    provider.signatures.load_key(key).unwrap_or_else(|error| panic!("{}: {error}", provider.name))
}

fn load_error(provider: &CryptoProvider, key: &PrivateKeyDer<'_>) -> String {
    let error = provider.signatures.load_key(key).err().expect("the key is refused");
    assert!(matches!(error, CryptoError::Key(_)));
    error.to_string()
}

/// Key, SubjectPublicKeyInfo, and what the key may sign with. All made by OpenSSL.
fn keys() -> Vec<(PrivateKeyDer<'static>, &'static [u8], Vec<SignatureScheme>)> {
    let rsa: Vec<SignatureScheme> = SCHEMES[..7].to_vec();
    let pss: Vec<SignatureScheme> = SCHEMES[4..7].to_vec();
    let p256 = vec![S::EcdsaP256Sha256, S::EcdsaP256Sha384];
    let p384 = vec![S::EcdsaP384Sha384, S::EcdsaP384Sha256];
    vec![
        (pkcs8(data!("rsa.pkcs8.der")), data!("rsa.spki.der"), rsa.clone()),
        (PrivateKeyDer::Pkcs1(data!("rsa.pkcs1.der").into()), data!("rsa.spki.der"), rsa),
        (pkcs8(data!("rsa-pss.pkcs8.der")), data!("rsa-pss.spki.der"), pss),
        (pkcs8(data!("rsa-pss-sha384.pkcs8.der")), data!("rsa-pss-sha384.spki.der"), vec![S::RsaPssSha384]),
        (pkcs8(data!("p256.pkcs8.der")), data!("p256.spki.der"), p256.clone()),
        (sec1(data!("p256.sec1.der")), data!("p256.spki.der"), p256.clone()),
        (sec1(data!("p256-without-public.sec1.der")), data!("p256.spki.der"), p256),
        (pkcs8(data!("p384.pkcs8.der")), data!("p384.spki.der"), p384.clone()),
        (sec1(data!("p384.sec1.der")), data!("p384.spki.der"), p384),
        (pkcs8(data!("ed25519.pkcs8.der")), data!("ed25519.spki.der"), vec![S::Ed25519]),
    ]
}

#[test]
fn keys_load_from_every_container() {
    for_both(|provider| {
        for (der, spki, schemes) in keys() {
            let key = load(provider, &der);
            assert_eq!(key.public_key_spki(), spki, "{}", provider.name);
            let mut offered = key.schemes().to_vec();
            let mut expected = schemes;
            offered.sort_by_key(|scheme| format!("{scheme:?}"));
            expected.sort_by_key(|scheme| format!("{scheme:?}"));
            assert_eq!(offered, expected);
        }
    });
}

#[test]
fn what_one_signs_the_other_verifies() {
    for_pairs(|signer, verifier| {
        for (der, spki, schemes) in keys() {
            let key = load(signer, &der);
            for scheme in SCHEMES {
                let signed = key.sign(scheme, MESSAGE);
                if !schemes.contains(&scheme) {
                    assert_eq!(signed, Err(CryptoError::Unsupported));
                    continue;
                }
                let signature = signed.unwrap();
                let verify = |message: &[u8], signature: &[u8]| {
                    verifier.signatures.verify(scheme, spki, message, signature)
                };
                let what = format!("{} -> {} {scheme:?}", signer.name, verifier.name);
                assert_eq!(verify(MESSAGE, &signature), Ok(()), "{what}");
                assert_eq!(verify(b"another message", &signature), Err(CryptoError::Signature), "{what}");
                let mut forged = signature.clone();
                *forged.last_mut().unwrap() ^= 1;
                assert_eq!(verify(MESSAGE, &forged), Err(CryptoError::Signature), "{what}");
                for wrong in [&signature[1..], &[&signature[..], &[0]].concat(), &[], &[0; 9000]] {
                    assert_eq!(verify(MESSAGE, wrong), Err(CryptoError::Signature), "{what}");
                }
            }
        }
    });
}

#[test]
fn signatures_of_openssl_verify() {
    let vectors: &[(SignatureScheme, &[u8], &[u8])] = &[
        (S::RsaPkcs1Sha1, data!("rsa.spki.der"), data!("rsa-pkcs1-sha1.sig")),
        (S::RsaPkcs1Sha256, data!("rsa.spki.der"), data!("rsa-pkcs1-sha256.sig")),
        (S::RsaPkcs1Sha384, data!("rsa.spki.der"), data!("rsa-pkcs1-sha384.sig")),
        (S::RsaPkcs1Sha512, data!("rsa.spki.der"), data!("rsa-pkcs1-sha512.sig")),
        (S::RsaPssSha256, data!("rsa.spki.der"), data!("rsa-pss-sha256.sig")),
        (S::RsaPssSha384, data!("rsa.spki.der"), data!("rsa-pss-sha384.sig")),
        (S::RsaPssSha512, data!("rsa.spki.der"), data!("rsa-pss-sha512.sig")),
        (S::RsaPssSha512, data!("rsa-pss.spki.der"), data!("rsa-pss-key-sha512.sig")),
        (S::RsaPssSha384, data!("rsa-pss-sha384.spki.der"), data!("rsa-pss-sha384-key.sig")),
        (S::EcdsaP256Sha256, data!("p256.spki.der"), data!("p256-sha256.sig")),
        (S::EcdsaP256Sha384, data!("p256.spki.der"), data!("p256-sha384.sig")),
        (S::EcdsaP384Sha256, data!("p384.spki.der"), data!("p384-sha256.sig")),
        (S::EcdsaP384Sha384, data!("p384.spki.der"), data!("p384-sha384.sig")),
        (S::Ed25519, data!("ed25519.spki.der"), data!("ed25519.sig")),
    ];
    for_both(|provider| {
        for (scheme, spki, signature) in vectors {
            for tried in SCHEMES {
                let verified = provider.signatures.verify(tried, spki, MESSAGE, signature);
                let what = format!("{} {scheme:?} as {tried:?}: {verified:?}", provider.name);
                assert_eq!(verified.is_ok(), tried == *scheme, "{what}");
            }
        }
        // The salt must have the length of the hash, which RFC 4055 section 3.1 recommends.
        let short_salt = data!("rsa-pss-sha256-salt20.sig");
        let verified =
            provider.signatures.verify(S::RsaPssSha256, data!("rsa.spki.der"), MESSAGE, short_salt);
        assert_eq!(verified, Err(CryptoError::Signature));
    });
}

/// PKCS#1 v1.5 and Ed25519 are deterministic: both providers make exactly the octets that OpenSSL made.
#[test]
fn deterministic_signatures_equal_those_of_openssl() {
    for_both(|provider| {
        let rsa = load(provider, &pkcs8(data!("rsa.pkcs8.der")));
        for (scheme, expected) in [
            (S::RsaPkcs1Sha1, data!("rsa-pkcs1-sha1.sig")),
            (S::RsaPkcs1Sha256, data!("rsa-pkcs1-sha256.sig")),
            (S::RsaPkcs1Sha384, data!("rsa-pkcs1-sha384.sig")),
            (S::RsaPkcs1Sha512, data!("rsa-pkcs1-sha512.sig")),
        ] {
            assert_eq!(rsa.sign(scheme, MESSAGE).unwrap(), expected, "{} {scheme:?}", provider.name);
        }
        let ed25519 = load(provider, &pkcs8(data!("ed25519.pkcs8.der")));
        assert_eq!(ed25519.sign(S::Ed25519, MESSAGE).unwrap(), data!("ed25519.sig"));
    });
}

/// RFC 8032 section 7.1, tests 1 to 3.
#[test]
fn ed25519_vectors() {
    let vectors = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b
             d25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c
             387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659
             4a7c15e9716ed28dc027beceea1ec40a",
        ),
    ];
    for_both(|provider| {
        for (seed, public, message, signature) in vectors {
            // RFC 8410 section 7: PKCS#8 around the seed.
            let der = [hex("302e020100300506032b657004220420"), hex(seed)].concat();
            let key = load(provider, &pkcs8(&der));
            let spki = [hex("302a300506032b6570032100"), hex(public)].concat();
            assert_eq!(key.public_key_spki(), spki);
            assert_eq!(key.sign(S::Ed25519, &hex(message)).unwrap(), hex(signature), "{}", provider.name);
            let verified = provider.signatures.verify(S::Ed25519, &spki, &hex(message), &hex(signature));
            assert_eq!(verified, Ok(()));
        }
    });
}

/// A signature r, s as the ASN.1 that X9.62 wants.
fn ecdsa_der(r: &str, s: &str) -> Vec<u8> {
    let integer = |text: &str| {
        let mut octets = hex(text);
        if octets[0] >= 0x80 {
            octets.insert(0, 0);
        }
        [vec![2, u8::try_from(octets.len()).unwrap()], octets].concat()
    };
    let contents = [integer(r), integer(s)].concat();
    [vec![0x30, u8::try_from(contents.len()).unwrap()], contents].concat()
}

/// RFC 6979 appendix A.2.5 and A.2.6: the message "sample". With the curve's own hash `rustcrypto` makes the same; with
/// another it takes the curve's hash, not the message's, to derive k.
#[test]
fn ecdsa_vectors() {
    let p256_key = "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721";
    let p256_public = "0460FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6
                       7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299";
    let p384_key = "6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D8
                    96D5724E4C70A825F872C9EA60D2EDF5";
    let p384_public = "04EC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64
                       DEF8F0EA9055866064A254515480BC13
                       8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1
                       288B231C3AE0D4FE7344FD2533264720";
    let p256_spki = [hex("3059301306072a8648ce3d020106082a8648ce3d030107034200"), hex(p256_public)].concat();
    let p384_spki = [hex("3076301006072a8648ce3d020106052b81040022036200"), hex(p384_public)].concat();
    let p256_sec1 = [hex("30310201010420"), hex(p256_key), hex("a00a06082a8648ce3d030107")].concat();
    let p384_sec1 = [hex("303e0201010430"), hex(p384_key), hex("a00706052b81040022")].concat();
    let vectors = [
        (
            S::EcdsaP256Sha256,
            &p256_sec1,
            &p256_spki,
            ecdsa_der(
                "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
                "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
            ),
        ),
        (
            S::EcdsaP256Sha384,
            &p256_sec1,
            &p256_spki,
            ecdsa_der(
                "0EAFEA039B20E9B42309FB1D89E213057CBF973DC0CFC8F129EDDDC800EF7719",
                "4861F0491E6998B9455193E34E7B0D284DDD7149A74B95B9261F13ABDE940954",
            ),
        ),
        (
            S::EcdsaP384Sha256,
            &p384_sec1,
            &p384_spki,
            ecdsa_der(
                "21B13D1E013C7FA1392D03C5F99AF8B30C570C6F98D4EA8E354B63A21D3DAA33
                 BDE1E888E63355D92FA2B3C36D8FB2CD",
                "F3AA443FB107745BF4BD77CB3891674632068A10CA67E3D45DB2266FA7D1FEEB
                 EFDC63ECCD1AC42EC0CB8668A4FA0AB0",
            ),
        ),
        (
            S::EcdsaP384Sha384,
            &p384_sec1,
            &p384_spki,
            ecdsa_der(
                "94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C
                 81A648152E44ACF96E36DD1E80FABE46",
                "99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94F
                 A329C145786E679E7B82C71A38628AC8",
            ),
        ),
    ];
    for_both(|provider| {
        for (scheme, der, spki, signature) in &vectors {
            let key = load(provider, &sec1(der));
            assert_eq!(&key.public_key_spki(), *spki);
            let verified = provider.signatures.verify(*scheme, spki, b"sample", signature);
            assert_eq!(verified, Ok(()), "{} {scheme:?}", provider.name);
            let own_hash = matches!(scheme, S::EcdsaP256Sha256 | S::EcdsaP384Sha384);
            if provider.name == "rustcrypto" && own_hash {
                assert_eq!(&key.sign(*scheme, b"sample").unwrap(), signature, "{scheme:?}");
            }
        }
    });
}

#[test]
fn keys_that_are_not_supported_are_refused_with_a_reason() {
    for_both(|provider| {
        let refused = |key: &PrivateKeyDer<'_>, reason: &str| {
            let error = load_error(provider, key);
            assert!(error.contains(reason), "{}: {error}", provider.name);
        };
        refused(&pkcs8(data!("rsa-1024.pkcs8.der")), "less than 2048 bits");
        refused(&pkcs8(data!("p521.pkcs8.der")), "not supported");
        refused(&pkcs8(data!("ed448.pkcs8.der")), "not supported");
        refused(&pkcs8(data!("rsa.pkcs1.der")), "malformed PKCS#8");
        refused(&sec1(data!("p256.pkcs8.der")), "malformed elliptic curve");
        refused(&PrivateKeyDer::Pkcs1(data!("p256.sec1.der").into()), "malformed RSA");

        // A private key beside the public key of another.
        let mut mismatched = data!("p256.sec1.der").to_vec();
        let at = mismatched.len() - 65;
        mismatched[at..].copy_from_slice(&data!("p256.spki.der")[26..]);
        load(provider, &sec1(&mismatched));
        mismatched[7..39].copy_from_slice(&[0x11; 32]);
        refused(&sec1(&mismatched), "does not belong");

        // Scalars out of range.
        for scalar in [[0_u8; 32], [0xff; 32]] {
            let der = [&hex("30310201010420")[..], &scalar, &hex("a00a06082a8648ce3d030107")].concat();
            refused(&sec1(&der), "out of range");
        }
        let nameless = [&hex("30250201010420")[..], &[7; 32]].concat();
        refused(&sec1(&nameless), "does not name its curve");

        // An RSA key whose private exponent does not fit its modulus.
        let mut broken = data!("rsa.pkcs1.der").to_vec();
        broken[300] ^= 0x10;
        refused(&PrivateKeyDer::Pkcs1(broken.into()), "RSA private key is not consistent");

        let small = data!("rsa-1024.spki.der");
        let verified = provider.signatures.verify(S::RsaPkcs1Sha256, small, MESSAGE, &[0; 128]);
        assert!(verified.unwrap_err().to_string().contains("less than 2048 bits"));
        let trailing = [data!("rsa.spki.der"), &[0]].concat();
        let signature = data!("rsa-pkcs1-sha256.sig");
        let verified = provider.signatures.verify(S::RsaPkcs1Sha256, &trailing, MESSAGE, signature);
        assert!(matches!(verified, Err(CryptoError::Key(_))));
    });
}

/// Each algorithm verifies what a key of its type signed, under the identifiers that certificates carry.
#[test]
fn certificate_algorithms_cover_every_key() {
    let public_keys: [(&[u8], usize); 6] = [
        (data!("rsa.spki.der"), 24),
        (data!("rsa-pss.spki.der"), 22),
        (data!("rsa-pss-sha384.spki.der"), 76),
        (data!("p256.spki.der"), 26),
        (data!("p384.spki.der"), 23),
        (data!("ed25519.spki.der"), 12),
    ];
    let signatures: [&[u8]; 13] = [
        data!("rsa-pkcs1-sha256.sig"),
        data!("rsa-pkcs1-sha384.sig"),
        data!("rsa-pkcs1-sha512.sig"),
        data!("rsa-pss-sha256.sig"),
        data!("rsa-pss-sha384.sig"),
        data!("rsa-pss-sha512.sig"),
        data!("rsa-pss-key-sha512.sig"),
        data!("rsa-pss-sha384-key.sig"),
        data!("p256-sha256.sig"),
        data!("p256-sha384.sig"),
        data!("p384-sha256.sig"),
        data!("p384-sha384.sig"),
        data!("ed25519.sig"),
    ];
    for_both(|provider| {
        let algorithms = provider.signatures.certificate_algorithms();
        assert_eq!(algorithms.len(), 20);
        let mut verified = vec![0; signatures.len()];
        for algorithm in algorithms {
            let id = algorithm.public_key_alg_id();
            for (spki, offset) in public_keys {
                // The identifier stands in the SubjectPublicKeyInfo, right before the BIT STRING.
                if !spki[..offset].windows(id.len()).any(|window| window == &*id) {
                    continue;
                }
                for (signature, count) in signatures.iter().zip(&mut verified) {
                    let result = algorithm.verify_signature(&spki[offset..], MESSAGE, signature);
                    *count += i32::from(result.is_ok());
                    assert!(algorithm.verify_signature(&spki[offset..], b"other", signature).is_err());
                }
            }
        }
        assert!(verified.iter().all(|count| *count > 0), "{}: {verified:?}", provider.name);
        let sha1 = data!("rsa-pkcs1-sha1.sig");
        let key = &data!("rsa.spki.der")[24..];
        assert!(algorithms.iter().all(|a| a.verify_signature(key, MESSAGE, sha1).is_err()));
    });
}
