//! The provider without protection keeps the shapes of the real ones.

use super::packet_keys;
use crate::fuzzing::{PROVIDER, REFUSED};
use crate::{CipherSuite, CryptoError, Group, HashAlgorithm, Integ, Prf, providers};

#[test]
fn packets_stay_in_the_clear() {
    for suite in CipherSuite::all() {
        let encryption = vec![1; suite.cipher().key_material_len()];
        let keys = packet_keys(suite, &encryption, &vec![2; suite.integ().map_or(0, Integ::key_len)]);
        let mut text = [5; 32];
        let mut iv = vec![9; suite.cipher().iv_len()];
        let mut icv = vec![9; suite.icv_len()];
        let mut sealing = PROVIDER.packets.sealing(&keys).unwrap();
        sealing.write_iv(7, &mut iv);
        sealing.seal(b"aad", &iv, &mut text, &[], &mut icv).unwrap();
        assert_eq!(text, [5; 32]);
        let mut opening = PROVIDER.packets.opening(&keys).unwrap();
        icv[1] = 3;
        assert_eq!(opening.open(b"other", &iv, &mut text, &[], &icv), Ok(()));
        icv[0] = REFUSED;
        assert_eq!(opening.open(b"aad", &iv, &mut text, &[], &icv), Err(CryptoError::Integrity));
        assert_eq!(opening.open(b"aad", &iv[1..], &mut text, &[], &icv), Err(CryptoError::Length));
    }
}

#[test]
fn lengths_are_those_of_the_real_ones() {
    let real = providers()[0];
    for group in Group::ALL {
        let own = PROVIDER.groups.initiate(group).unwrap();
        let (public, theirs) = PROVIDER.groups.respond(group, own.public()).unwrap();
        assert_eq!(own.agree(&public).unwrap(), theirs);
        let pair = real.groups.initiate(group).unwrap();
        assert_eq!(real.groups.respond(group, pair.public()).unwrap().1.len(), theirs.len());
        let refused = PROVIDER.groups.respond(group, &vec![REFUSED; group.public_len()]);
        assert_eq!(refused, Err(CryptoError::PublicValue));
    }
    for prf in Prf::ALL {
        let [one, other] = [b"one", b"two"].map(|key| PROVIDER.hashes.prf(prf, key).compute(&[b"message"]));
        assert_eq!(one.len(), prf.output_len());
        assert_ne!(one, other);
    }
    for hash in [HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512] {
        let [fake, true_one] = [&PROVIDER, real].map(|p| p.hashes.digest(hash, &[b"message"]).unwrap());
        assert_eq!(fake.len(), true_one.len());
    }
}
