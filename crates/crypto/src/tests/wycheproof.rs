//! Project Wycheproof: the edge cases that broke other implementations.

use super::key_exchange::with_private;
use super::{for_both, packet_keys};
use crate::{Cipher, CipherSuite, CryptoError, CryptoProvider, Group, Integ, Prf, SignatureScheme as S};
use ::wycheproof::{
    TestResult, aead, cipher, ecdh, ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify, xdh,
};

/// Vectors that fit are run; a set of which none fits would prove nothing.
fn at_least(expected: usize, run: usize) {
    assert!(run >= expected, "only {run} vectors were run");
}

fn aead_set(set: aead::TestName, cipher_of: impl Fn(usize) -> Option<Cipher>) -> usize {
    let set = aead::TestSet::load(set).unwrap();
    let mut run = 0;
    for group in &set.test_groups {
        let Some(cipher) = cipher_of(group.key_size).filter(|_| group.tag_size == 128) else { continue };
        let suite = CipherSuite::new(cipher, None).unwrap();
        for test in group.tests.iter().filter(|_| group.nonce_size == 96) {
            run += 1;
            let (salt, iv) = test.nonce.split_at(4);
            let keys = packet_keys(suite, &[&test.key, salt].concat(), &[]);
            for_both(|provider| {
                let what = format!("{} {cipher:?} {}", provider.name, test.tc_id);
                let mut text = test.ct.to_vec();
                let mut opening = provider.packets.opening(&keys).unwrap();
                let opened = opening.open(&test.aad, iv, &mut text, &[], &test.tag);
                if test.result == TestResult::Invalid {
                    assert_eq!(opened, Err(CryptoError::Integrity), "{what}");
                    return;
                }
                assert_eq!(opened, Ok(()), "{what}");
                assert_eq!(text, *test.pt, "{what}");
                let mut icv = [0; 16];
                let mut sealing = provider.packets.sealing(&keys).unwrap();
                sealing.seal(&test.aad, iv, &mut text, &[], &mut icv).unwrap();
                assert_eq!((text, &icv[..]), (test.ct.to_vec(), test.tag.as_slice()), "{what}");
            });
        }
    }
    run
}

#[test]
fn aes_gcm() {
    let run = aead_set(aead::TestName::AesGcm, |key_size| match key_size {
        128 => Some(Cipher::Aes128Gcm16),
        256 => Some(Cipher::Aes256Gcm16),
        _ => None,
    });
    at_least(100, run);
}

#[test]
fn chacha20_poly1305() {
    let run = aead_set(aead::TestName::ChaCha20Poly1305, |_| Some(Cipher::ChaCha20Poly1305));
    at_least(200, run);
}

/// The vectors pad by PKCS#5, ESP by itself: the padding is put on here.
#[test]
fn aes_cbc() {
    let set = cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).unwrap();
    let mut run = 0;
    for group in &set.test_groups {
        let cipher = match group.key_size {
            128 => Cipher::Aes128Cbc,
            256 => Cipher::Aes256Cbc,
            _ => continue,
        };
        let suite = CipherSuite::new(cipher, Some(Integ::HmacSha256_128)).unwrap();
        for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
            run += 1;
            let padding = 16 - test.pt.len() % 16;
            let padded = [&test.pt[..], &vec![u8::try_from(padding).unwrap(); padding]].concat();
            let keys = packet_keys(suite, &test.key, &[7; 32]);
            for_both(|provider| {
                let mut text = padded.clone();
                let mut icv = [0; 16];
                let mut sealing = provider.packets.sealing(&keys).unwrap();
                sealing.seal(&[], &test.nonce, &mut text, &[], &mut icv).unwrap();
                assert_eq!(text, *test.ct, "{} {}", provider.name, test.tc_id);
                let mut opening = provider.packets.opening(&keys).unwrap();
                opening.open(&[], &test.nonce, &mut text, &[], &icv).unwrap();
                assert_eq!(text, padded, "{} {}", provider.name, test.tc_id);
            });
        }
    }
    at_least(40, run);
}

#[test]
fn hmac() {
    let mut run = 0;
    for (name, prf) in [
        (mac::TestName::HmacSha1, Prf::HmacSha1),
        (mac::TestName::HmacSha256, Prf::HmacSha256),
        (mac::TestName::HmacSha384, Prf::HmacSha384),
        (mac::TestName::HmacSha512, Prf::HmacSha512),
    ] {
        for group in &mac::TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                run += 1;
                for_both(|provider| {
                    let tag = provider.hashes.prf(prf, &test.key).compute(&[&test.msg]);
                    let same = tag.expose()[..group.tag_size / 8] == **test.tag;
                    assert_eq!(same, test.result == TestResult::Valid, "{} {}", provider.name, test.tc_id);
                });
            }
        }
    }
    at_least(600, run);
}

#[test]
fn x25519() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        for_both(|provider| {
            let what = format!("{} {}", provider.name, test.tc_id);
            let own = with_private(provider, Group::X25519, &test.private_key);
            let agreed = own.agree(&test.public_key);
            // "Acceptable" are non-canonical and low-order points. Zero is refused, nothing else (RFC 7748 section 6.1).
            if test.shared_secret.iter().all(|octet| *octet == 0) {
                assert_eq!(agreed, Err(CryptoError::PublicValue), "{what}");
            } else {
                assert_eq!(agreed.unwrap().expose(), &test.shared_secret[..], "{what}");
            }
        });
    }
    at_least(500, set.number_of_tests);
}

#[test]
fn ecdh() {
    for (name, group, field) in [
        (ecdh::TestName::EcdhSecp256r1Ecpoint, Group::Ecp256, 32),
        (ecdh::TestName::EcdhSecp384r1Ecpoint, Group::Ecp384, 48),
    ] {
        let mut run = 0;
        let set = ecdh::TestSet::load(name).unwrap();
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            // RFC 5903 has the uncompressed form alone, without its leading octet.
            let Some((4, public)) = test.public_key.split_first() else { continue };
            run += 1;
            // The vectors print the private value as a number.
            let number = &test.private_key[test.private_key.len().saturating_sub(field)..];
            let private = [&vec![0; field - number.len()], number].concat();
            for_both(|provider| {
                let what = format!("{} {group:?} {}", provider.name, test.tc_id);
                let agreed = with_private(provider, group, &private).agree(public);
                if test.result == TestResult::Invalid {
                    assert_eq!(agreed, Err(CryptoError::PublicValue), "{what}");
                } else {
                    assert_eq!(agreed.unwrap().expose(), &test.shared_secret[..], "{what}");
                }
            });
        }
        at_least(150, run);
    }
}

/// Runs one signature vector; "acceptable" ones may go either way.
fn verify(provider: &CryptoProvider, case: (S, &[u8], &[u8], &[u8], TestResult), what: &str) {
    let (scheme, spki, message, signature, expected) = case;
    let verified = provider.signatures.verify(scheme, spki, message, signature);
    let what = format!("{} {scheme:?} {what}: {verified:?}", provider.name);
    match expected {
        TestResult::Valid => assert_eq!(verified, Ok(()), "{what}"),
        TestResult::Invalid => assert!(verified.is_err(), "{what}"),
        TestResult::Acceptable => {}
    }
}

#[test]
fn ecdsa() {
    let mut run = 0;
    for (name, scheme) in [
        (ecdsa::TestName::EcdsaSecp256r1Sha256, S::EcdsaP256Sha256),
        (ecdsa::TestName::EcdsaSecp384r1Sha256, S::EcdsaP384Sha256),
        (ecdsa::TestName::EcdsaSecp384r1Sha384, S::EcdsaP384Sha384),
    ] {
        for group in &ecdsa::TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                run += 1;
                let case = (scheme, &group.der[..], &test.msg[..], &test.sig[..], test.result);
                for_both(|provider| verify(provider, case, &test.tc_id.to_string()));
            }
        }
    }
    at_least(1200, run);
}

#[test]
fn ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in &set.test_groups {
        for test in &group.tests {
            let case = (S::Ed25519, &group.der[..], &test.msg[..], &test.sig[..], test.result);
            for_both(|provider| verify(provider, case, &test.tc_id.to_string()));
        }
    }
    at_least(140, set.number_of_tests);
}

#[test]
fn rsa_pkcs1() {
    use rsa_pkcs1_verify::{TestName as N, TestSet};
    let mut run = 0;
    for (name, scheme) in [
        (N::Rsa2048Sha256, S::RsaPkcs1Sha256),
        (N::Rsa2048Sha384, S::RsaPkcs1Sha384),
        (N::Rsa2048Sha512, S::RsaPkcs1Sha512),
        (N::Rsa3072Sha256, S::RsaPkcs1Sha256),
        (N::Rsa3072Sha384, S::RsaPkcs1Sha384),
        (N::Rsa3072Sha512, S::RsaPkcs1Sha512),
        (N::Rsa4096Sha256, S::RsaPkcs1Sha256),
        (N::Rsa4096Sha512, S::RsaPkcs1Sha512),
        (N::Rsa8192Sha256, S::RsaPkcs1Sha256),
    ] {
        for group in &TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                run += 1;
                let case = (scheme, &group.der[..], &test.msg[..], &test.sig[..], test.result);
                for_both(|provider| verify(provider, case, &format!("{name:?} {}", test.tc_id)));
            }
        }
    }
    at_least(2000, run);
}

#[test]
fn rsa_pss() {
    use rsa_pss_verify::{TestName as N, TestSet};
    let mut run = 0;
    for (name, scheme) in [
        (N::RsaPss2048Sha256Mgf1SaltLen32, S::RsaPssSha256),
        (N::RsaPss2048Sha384Mgf1SaltLen48, S::RsaPssSha384),
        (N::RsaPss3072Sha256Mgf1SaltLen32, S::RsaPssSha256),
        (N::RsaPss4096Sha256Mgf1SaltLen32, S::RsaPssSha256),
        (N::RsaPss4096Sha384Mgf1SaltLen48, S::RsaPssSha384),
        (N::RsaPss4096Sha512Mgf1SaltLen64, S::RsaPssSha512),
    ] {
        for group in &TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                run += 1;
                let case = (scheme, &group.der[..], &test.msg[..], &test.sig[..], test.result);
                for_both(|provider| verify(provider, case, &format!("{name:?} {}", test.tc_id)));
            }
        }
    }
    at_least(400, run);
}
