//! What one provider makes, the other takes; properties over random input.

use super::{for_both, for_pairs};
use crate::provider::{Packet, PacketKeys};
use crate::{
    CipherSuite, CryptoError, CryptoProvider, Group, HashAlgorithm, Integ, Prf, Secret, SignatureScheme,
};
use proptest::prelude::*;

fn keys(suite: CipherSuite, seed: u8) -> PacketKeys {
    let octets = |len: usize, salt: u8| {
        Secret::new((0..len).map(|i| seed ^ salt ^ u8::try_from(i).unwrap().wrapping_mul(29)).collect())
    };
    PacketKeys {
        suite,
        encryption: octets(suite.cipher().key_material_len(), 0x11),
        integrity: octets(suite.integ().map_or(0, Integ::key_len), 0x5a),
    }
}

/// A sealed packet: IV, ciphertext, ICV.
fn seal(
    provider: &CryptoProvider,
    keys: &PacketKeys,
    counter: u64,
    aad: &[u8],
    suffix: &[u8],
    text: &[u8],
) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut key = provider.packets.sealing(keys).unwrap();
    let mut iv = vec![0; keys.suite.cipher().iv_len()];
    key.write_iv(counter, &mut iv);
    let mut text = text.to_vec();
    let mut icv = vec![0; keys.suite.icv_len()];
    key.seal(aad, &iv, &mut text, suffix, &mut icv).unwrap();
    (iv, text, icv)
}

fn fit(suite: CipherSuite, mut text: Vec<u8>, mut suffix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let block = suite.cipher().block_len();
    text.resize(text.len().next_multiple_of(block), 0x77);
    if suite.is_aead() {
        suffix.clear();
    }
    (text, suffix)
}

fn any_suite() -> impl Strategy<Value = CipherSuite> {
    proptest::sample::select(CipherSuite::all().collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn packets_open_with_either_provider(
        suite in any_suite(),
        seed: u8,
        counter: u64,
        aad in proptest::collection::vec(any::<u8>(), 0..32),
        suffix in proptest::collection::vec(any::<u8>(), 0..5),
        text in proptest::collection::vec(any::<u8>(), 0..3000),
    ) {
        let (text, suffix) = fit(suite, text, suffix);
        let keys = keys(suite, seed);
        for_pairs(|maker, checker| {
            let (iv, mut sealed, icv) = seal(maker, &keys, counter, &aad, &suffix, &text);
            assert!(text.len() < 16 || sealed != text);
            let mut opening = checker.packets.opening(&keys).unwrap();
            opening.open(&aad, &iv, &mut sealed, &suffix, &icv).unwrap();
            assert_eq!(sealed, text, "{} -> {} {suite:?}", maker.name, checker.name);
        });
    }

    #[test]
    fn one_flipped_bit_is_refused(
        suite in any_suite(),
        seed: u8,
        counter: u64,
        aad in proptest::collection::vec(any::<u8>(), 1..32),
        text in proptest::collection::vec(any::<u8>(), 1..200),
        place: proptest::sample::Index,
        bit in 0..8_u32,
    ) {
        let (text, suffix) = fit(suite, text, vec![0, 0, 0, 1]);
        let keys = keys(suite, seed);
        for_both(|provider| {
            let (mut iv, mut sealed, mut icv) = seal(provider, &keys, counter, &aad, &suffix, &text);
            let (mut aad, mut suffix) = (aad.clone(), suffix.clone());
            let mut octets: Vec<&mut u8> = aad
                .iter_mut()
                .chain(&mut iv)
                .chain(&mut sealed)
                .chain(&mut suffix)
                .chain(&mut icv)
                .collect();
            let at = place.index(octets.len());
            *octets[at] ^= 1 << bit;
            let mut opening = provider.packets.opening(&keys).unwrap();
            let opened = opening.open(&aad, &iv, &mut sealed, &suffix, &icv);
            assert_eq!(opened, Err(CryptoError::Integrity), "{} {suite:?}", provider.name);
            assert_ne!(sealed, text, "no plaintext comes out of a forged packet");
        });
    }

    #[test]
    fn any_lengths_give_an_error_or_a_result(
        suite in any_suite(),
        aad in proptest::collection::vec(any::<u8>(), 0..20),
        iv in proptest::collection::vec(any::<u8>(), 0..20),
        mut text in proptest::collection::vec(any::<u8>(), 0..70),
        suffix in proptest::collection::vec(any::<u8>(), 0..6),
        mut icv in proptest::collection::vec(any::<u8>(), 0..70),
    ) {
        let keys = keys(suite, 1);
        let fits = iv.len() == suite.cipher().iv_len()
            && icv.len() == suite.icv_len()
            && text.len().is_multiple_of(suite.cipher().block_len())
            && (suffix.is_empty() || !suite.is_aead());
        for_both(|provider| {
            let (mut text, mut icv) = (text.clone(), icv.clone());
            let opened =
                provider.packets.opening(&keys).unwrap().open(&aad, &iv, &mut text, &suffix, &icv);
            let expected = if fits { CryptoError::Integrity } else { CryptoError::Length };
            assert_eq!(opened, Err(expected));
            let sealed =
                provider.packets.sealing(&keys).unwrap().seal(&aad, &iv, &mut text, &suffix, &mut icv);
            assert_eq!(sealed, if fits { Ok(()) } else { Err(CryptoError::Length) });
        });
        text.clear();
        icv.clear();
    }

    #[test]
    fn prfs_and_hashes_agree(
        key in proptest::collection::vec(any::<u8>(), 0..300),
        first in proptest::collection::vec(any::<u8>(), 0..300),
        second in proptest::collection::vec(any::<u8>(), 0..300),
        len in 0..400_usize,
    ) {
        let [one, other] = crate::providers();
        for prf in Prf::ALL {
            let (a, b) = (one.hashes.prf(prf, &key), other.hashes.prf(prf, &key));
            prop_assert_eq!(a.compute(&[&first, &second]), b.compute(&[&[first.as_slice(), &second].concat()]));
            prop_assert_eq!(a.prf_plus(&[&first, &second], len), b.prf_plus(&[&first, &second], len));
            prop_assert_eq!(a.compute(&[&first]).len(), prf.output_len());
        }
        for hash in [HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512] {
            prop_assert_eq!(
                one.hashes.digest(hash, &[&first, &second]).unwrap(),
                other.hashes.digest(hash, &[&[first.as_slice(), &second].concat()]).unwrap()
            );
        }
    }

    #[test]
    fn any_public_value_gives_an_error_or_a_secret(
        group in proptest::sample::select(Group::ALL.to_vec()),
        octets in proptest::collection::vec(any::<u8>(), 0..520),
    ) {
        for_both(|provider| {
            if let Ok((public, secret)) = provider.groups.respond(group, &octets) {
                assert_eq!(octets.len(), group.public_len());
                assert_eq!(public.len(), group.public_len());
                assert!(!secret.is_empty());
            }
        });
    }

    #[test]
    fn any_octets_as_key_or_signature_give_an_error(
        octets in proptest::collection::vec(any::<u8>(), 0..600),
        signature in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        for_both(|provider| {
            for scheme in SCHEMES {
                assert!(provider.signatures.verify(scheme, &octets, b"m", &signature).is_err());
            }
            for algorithm in provider.signatures.certificate_algorithms() {
                assert!(algorithm.verify_signature(&octets, b"m", &signature).is_err());
            }
            for der in [
                rustls_pki_types::PrivateKeyDer::Pkcs8(octets.clone().into()),
                rustls_pki_types::PrivateKeyDer::Pkcs1(octets.clone().into()),
                rustls_pki_types::PrivateKeyDer::Sec1(octets.clone().into()),
            ] {
                assert!(matches!(provider.signatures.load_key(&der), Err(CryptoError::Key(_))));
            }
        });
    }
}

pub(super) const SCHEMES: [SignatureScheme; 12] = [
    SignatureScheme::RsaPkcs1Sha1,
    SignatureScheme::RsaPkcs1Sha256,
    SignatureScheme::RsaPkcs1Sha384,
    SignatureScheme::RsaPkcs1Sha512,
    SignatureScheme::RsaPssSha256,
    SignatureScheme::RsaPssSha384,
    SignatureScheme::RsaPssSha512,
    SignatureScheme::EcdsaP256Sha256,
    SignatureScheme::EcdsaP256Sha384,
    SignatureScheme::EcdsaP384Sha256,
    SignatureScheme::EcdsaP384Sha384,
    SignatureScheme::Ed25519,
];

#[test]
fn key_exchange_agrees_between_providers() {
    for_pairs(|initiator, responder| {
        for group in Group::ALL {
            assert!(initiator.groups.supports(group));
            let own = initiator.groups.initiate(group).unwrap();
            assert_eq!(own.group(), group);
            assert_eq!(own.public().len(), group.public_len());
            let (public, theirs) = responder.groups.respond(group, own.public()).unwrap();
            let ours = own.agree(&public).unwrap();
            assert_eq!(ours, theirs, "{group:?}");
            let again = initiator.groups.initiate(group).unwrap();
            assert_ne!(again.public(), public, "key pairs are fresh");
        }
    });
}

#[test]
fn key_material_of_the_wrong_length_is_refused() {
    for_both(|provider| {
        for suite in CipherSuite::all() {
            for (encryption, integrity) in [(-1, 0), (1, 0), (0, 1), (0, -1)] {
                let mut keys = keys(suite, 0);
                let change = |secret: &Secret, by: i32| {
                    let len = i32::try_from(secret.len()).unwrap() + by;
                    usize::try_from(len).ok().map(|len| {
                        let mut octets = secret.expose().to_vec();
                        octets.resize(len, 0);
                        Secret::new(octets)
                    })
                };
                let Some(integrity) = change(&keys.integrity, integrity) else { continue };
                keys.encryption = change(&keys.encryption, encryption).unwrap();
                keys.integrity = integrity;
                assert_eq!(provider.packets.sealing(&keys).err(), Some(CryptoError::KeyLength));
                assert_eq!(provider.packets.opening(&keys).err(), Some(CryptoError::KeyLength));
            }
        }
    });
}

#[test]
fn aead_ivs_are_the_counter_and_cbc_ivs_are_not() {
    for_both(|provider| {
        for suite in CipherSuite::all() {
            let mut one = provider.packets.sealing(&keys(suite, 0)).unwrap();
            let mut other = provider.packets.sealing(&keys(suite, 0)).unwrap();
            let mut seen = std::collections::HashSet::new();
            for counter in [0, 1, 2, 0xffff_ffff, u64::MAX] {
                let mut iv = vec![0; suite.cipher().iv_len()];
                one.write_iv(counter, &mut iv);
                if suite.is_aead() {
                    assert_eq!(iv, counter.to_be_bytes());
                } else {
                    let mut second = vec![0; 16];
                    other.write_iv(counter, &mut second);
                    assert_ne!(iv, second, "the key of the IVs is the SA's own secret");
                }
                assert!(seen.insert(iv));
            }
        }
    });
}

proptest! {
    #[test]
    fn a_batch_equals_its_packets(
        suite in any_suite(),
        seed: u8,
        texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
    ) {
        let keys = keys(suite, seed);
        let texts: Vec<(Vec<u8>, Vec<u8>)> =
            texts.into_iter().map(|text| fit(suite, text, vec![0, 0, 0, 9])).collect();
        for_both(|provider| {
            let mut key = provider.packets.sealing(&keys).unwrap();
            let mut batch = texts.clone();
            let mut ivs = vec![vec![0; suite.cipher().iv_len()]; texts.len()];
            for (iv, counter) in ivs.iter_mut().zip(1..) {
                key.write_iv(counter, iv);
            }
            let mut icvs = vec![vec![0; suite.icv_len()]; texts.len()];
            let mut packets: Vec<Packet<'_>> = batch
                .iter_mut()
                .zip(&ivs)
                .zip(&mut icvs)
                .map(|(((text, suffix), iv), icv)| Packet { aad: b"header", iv, text, suffix, icv })
                .collect();
            key.seal_batch(&mut packets).unwrap();
            for (at, (text, suffix)) in texts.iter().enumerate() {
                let (mut text, mut icv) = (text.clone(), vec![0; suite.icv_len()]);
                key.seal(b"header", &ivs[at], &mut text, suffix, &mut icv).unwrap();
                assert_eq!((&batch[at].0, &icvs[at]), (&text, &icv), "{} {suite:?}", provider.name);
            }
        });
    }
}

#[test]
fn a_batch_with_a_wrong_length_is_refused_whole() {
    for_both(|provider| {
        for suite in CipherSuite::all().filter(|suite| !suite.is_aead()) {
            let mut key = provider.packets.sealing(&keys(suite, 0)).unwrap();
            let (mut good, mut bad, iv) = ([7; 32], [7; 31], [0; 16]);
            let (mut one, mut other) = (vec![0; suite.icv_len()], vec![0; suite.icv_len()]);
            let mut packets = [
                Packet { aad: &[], iv: &iv, text: &mut good, suffix: &[], icv: &mut one },
                Packet { aad: &[], iv: &iv, text: &mut bad, suffix: &[], icv: &mut other },
            ];
            assert_eq!(key.seal_batch(&mut packets), Err(CryptoError::Length));
            assert_eq!(good, [7; 32]);
        }
    });
}
