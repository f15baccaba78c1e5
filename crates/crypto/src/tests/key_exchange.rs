//! Key exchange: published vectors, an independent oracle for MODP, and public values that must be refused.

use super::{for_both, hex};
use crate::provider::KeyExchange;
use crate::{CryptoError, CryptoProvider, Group, Secret, aws_lc, rustcrypto};
use num_bigint::BigUint;

/// The provider's key pair with a given private value.
pub(super) fn with_private(provider: &CryptoProvider, group: Group, private: &[u8]) -> Box<dyn KeyExchange> {
    match provider.name {
        "aws-lc" => aws_lc::with_private(group, private),
        _ => rustcrypto::with_private(group, private),
    }
}

struct Vector {
    group: Group,
    initiator: &'static str,
    initiator_public: &'static str,
    responder: &'static str,
    responder_public: &'static str,
    shared: &'static str,
}

const VECTORS: &[Vector] = &[
    // RFC 7748 section 6.1
    Vector {
        group: Group::X25519,
        initiator: "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        initiator_public: "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        responder: "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        responder_public: "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        shared: "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    },
    // RFC 5903 section 8.1
    Vector {
        group: Group::Ecp256,
        initiator: "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
        initiator_public: "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180
                           5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
        responder: "C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53",
        responder_public: "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63
                           56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
        shared: "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
    },
    // RFC 5903 section 8.2
    Vector {
        group: Group::Ecp384,
        initiator: "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655
                    E35B538041E649EE3FAEF896783AB194",
        initiator_public: "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6
                           DE3AC808ACB4BDB4C88732AEE95F41AA
                           9482ED1FC0EEB9CAFC4984625CCFC23F65032149E0E144ADA024181535A0F38E
                           EB9FCFF3C2C947DAE69B4C634573A81C",
        responder: "41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942
                    E0308312916B8ED2960E4BD55A7448FC",
        responder_public: "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D
                           0D1AC43A0336DEF96FDA41D0774A3571
                           DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FF
                           F83FA40142209DFF5EAAD96DB9E6386C",
        shared: "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4
                 D603135569B9E9D09CF5D4A270F59746",
    },
];

#[test]
fn published_vectors() {
    for_both(|provider| {
        for vector in VECTORS {
            let initiator = with_private(provider, vector.group, &hex(vector.initiator));
            let responder = with_private(provider, vector.group, &hex(vector.responder));
            assert_eq!(initiator.public(), hex(vector.initiator_public), "{:?}", vector.group);
            assert_eq!(responder.public(), hex(vector.responder_public), "{:?}", vector.group);
            let shared = Secret::new(hex(vector.shared));
            assert_eq!(initiator.agree(&hex(vector.responder_public)).unwrap(), shared);
            assert_eq!(responder.agree(&hex(vector.initiator_public)).unwrap(), shared);
        }
    });
}

/// RFC 7748 section 5.2: scalar multiplication from other points than the generator.
#[test]
fn x25519_of_any_point() {
    let vectors = [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ];
    for_both(|provider| {
        for (scalar, point, product) in vectors {
            let own = with_private(provider, Group::X25519, &hex(scalar));
            assert_eq!(own.agree(&hex(point)).unwrap(), Secret::new(hex(product)));
        }
    });
}

const MODP: [(Group, u32, u32); 3] =
    [(Group::Modp2048, 2048, 124_476), (Group::Modp3072, 3072, 1_690_314), (Group::Modp4096, 4096, 240_904)];

/// RFC 3526: p = 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + c), with pi from Machin's formula.
fn published_prime(bits: u32, c: u32) -> BigUint {
    const GUARD: u32 = 64;
    let one = BigUint::from(1_u32);
    let unit = &one << (bits - 130 + GUARD);
    // atan(1/x) = 1/x - 1/3x^3 + 1/5x^5 - ...
    let atan_of_inverse = |x: u32| {
        let (mut plus, mut minus) = (BigUint::ZERO, BigUint::ZERO);
        let mut power = &unit / x;
        for k in 0_u32.. {
            if power == BigUint::ZERO {
                break;
            }
            *(if k % 2 == 0 { &mut plus } else { &mut minus }) += &power / (2 * k + 1);
            power /= x * x;
        }
        plus - minus
    };
    let pi = (atan_of_inverse(5) * 16_u32 - atan_of_inverse(239) * 4_u32) >> GUARD;
    (&one << bits) - (&one << (bits - 64)) - &one + ((pi + c) << 64)
}

#[test]
fn modp_primes_are_those_of_rfc_3526() {
    for (group, bits, c) in MODP {
        assert_eq!(crate::modp::prime(group), published_prime(bits, c).to_bytes_be(), "{group:?}");
    }
}

/// num-bigint computes the same powers in a wholly different way.
#[test]
fn modp_agrees_with_an_independent_oracle() {
    for_both(|provider| {
        for (group, bits, c) in MODP {
            let prime = published_prime(bits, c);
            let padded = |value: &BigUint| {
                let octets = value.to_bytes_be();
                [vec![0; group.public_len() - octets.len()], octets].concat()
            };
            // Private values of several lengths, and one that is all ones.
            for private in [vec![0x80, 1, 2, 3, 4, 5, 6, 7], vec![0xff; 32], hex(&"8badf00d".repeat(12))] {
                let exponent = BigUint::from_bytes_be(&private);
                let own = with_private(provider, group, &private);
                let expected = BigUint::from(2_u32).modpow(&exponent, &prime);
                assert_eq!(own.public(), padded(&expected), "{group:?}");
                let peer = BigUint::from_bytes_be(&hex(&"0123456789abcdef".repeat(group.public_len() / 8)));
                let shared = own.agree(&padded(&peer)).unwrap();
                assert_eq!(shared.expose(), padded(&peer.modpow(&exponent, &prime)), "{group:?}");
            }
        }
    });
}

/// A shared secret with leading zeros keeps the length of the prime (RFC 7296 section 2.14).
#[test]
fn modp_secrets_are_padded() {
    for_both(|provider| {
        let own = with_private(provider, Group::Modp2048, &[3]);
        let peer = [vec![0; 255], vec![2]].concat();
        assert_eq!(own.agree(&peer).unwrap().expose(), [vec![0; 255], vec![8]].concat());
    });
}

fn refused(provider: &CryptoProvider, group: Group, public: &[u8]) {
    let what = format!("{} {group:?} {}", provider.name, hex::encode(&public[..public.len().min(40)]));
    let answered = provider.groups.respond(group, public).err();
    assert_eq!(answered, Some(CryptoError::PublicValue), "{what}");
    let agreed = provider.groups.initiate(group).unwrap().agree(public).err();
    assert_eq!(agreed, Some(CryptoError::PublicValue), "{what}");
}

#[test]
fn public_values_of_the_wrong_length_are_refused() {
    for_both(|provider| {
        for group in Group::ALL {
            let good = provider.groups.initiate(group).unwrap().public().to_vec();
            refused(provider, group, &[]);
            refused(provider, group, &good[1..]);
            refused(provider, group, &[&[0], good.as_slice()].concat());
            refused(provider, group, &[&[4], good.as_slice()].concat());
            refused(provider, group, &[&good, &good[..1]].concat());
            refused(provider, group, &vec![1; 70_000]);
        }
    });
}

/// RFC 6989 section 2.1: 0, 1, p - 1, and all that is not below p.
#[test]
fn modp_values_out_of_range_are_refused() {
    for_both(|provider| {
        for (group, bits, c) in MODP {
            let prime = published_prime(bits, c);
            let one = BigUint::from(1_u32);
            for value in [&prime - &one, prime.clone(), &prime + &one, (&one << bits) - &one] {
                refused(provider, group, &value.to_bytes_be());
            }
            let mut small = vec![0; group.public_len()];
            refused(provider, group, &small);
            *small.last_mut().unwrap() = 1;
            refused(provider, group, &small);
            *small.last_mut().unwrap() = 2;
            assert!(provider.groups.respond(group, &small).is_ok());
            let largest = (&prime - BigUint::from(2_u32)).to_bytes_be();
            assert!(provider.groups.respond(group, &largest).is_ok());
        }
    });
}

/// RFC 6989 section 2.3: off the curve, and coordinates that are not below p.
#[test]
fn points_off_the_curve_are_refused() {
    for_both(|provider| {
        for group in [Group::Ecp256, Group::Ecp384] {
            let mut public = provider.groups.initiate(group).unwrap().public().to_vec();
            *public.last_mut().unwrap() ^= 1;
            refused(provider, group, &public);
            refused(provider, group, &vec![0; group.public_len()]);
            refused(provider, group, &vec![0xff; group.public_len()]);
        }
    });
}

/// The points of small order on Curve25519 and its twist, and their non-canonical encodings: all give zero.
#[test]
fn points_of_small_order_are_refused() {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for_both(|provider| {
        for point in points {
            let mut public = hex(point);
            refused(provider, Group::X25519, &public);
            // The top bit is ignored (RFC 7748 section 5).
            public[31] |= 0x80;
            refused(provider, Group::X25519, &public);
        }
    });
}
