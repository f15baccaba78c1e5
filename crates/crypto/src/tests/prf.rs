//! Published vectors of hashes, HMAC and the key derivation of IKEv2.

use super::{for_both, hex};
use crate::{CryptoError, HashAlgorithm, Prf};

/// RFC 2202 section 3 (SHA-1), RFC 4231 section 4 (SHA-2), RFC 4868 section 2.7.2 (keys of the output's length).
#[test]
fn hmac() {
    let long = b"Test Using Larger Than Block-Size Key - Hash Key First".as_slice();
    let what = b"what do ya want for nothing?".as_slice();
    let counting: Vec<u8> = (1..=25).collect();
    let vectors: &[(Prf, &[u8], &[u8], &str)] = &[
        (Prf::HmacSha1, &[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
        (Prf::HmacSha1, b"Jefe", what, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (Prf::HmacSha1, &[0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
        (Prf::HmacSha1, &counting, &[0xcd; 50], "4c9007f4026250c6bc8414f9bf50c86c2d7235da"),
        (Prf::HmacSha1, &[0xaa; 80], long, "aa4ae5e15272d00e95705637ce8a3b55ed402112"),
        (
            Prf::HmacSha256,
            &[0x0b; 20],
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (Prf::HmacSha256, b"Jefe", what, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            Prf::HmacSha256,
            &[0xaa; 20],
            &[0xdd; 50],
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (
            Prf::HmacSha256,
            &counting,
            &[0xcd; 50],
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        ),
        (
            Prf::HmacSha256,
            &[0xaa; 131],
            long,
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            Prf::HmacSha256,
            &[0x0b; 32],
            b"Hi There",
            "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7",
        ),
        (
            Prf::HmacSha384,
            &[0x0b; 20],
            b"Hi There",
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c
             faea9ea9076ede7f4af152e8b2fa9cb6",
        ),
        (
            Prf::HmacSha384,
            b"Jefe",
            what,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e
             8e2240ca5e69e2c78b3239ecfab21649",
        ),
        (
            Prf::HmacSha384,
            &[0xaa; 131],
            long,
            "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c6
             0c2ef6ab4030fe8296248df163f44952",
        ),
        (
            Prf::HmacSha384,
            &[0x0b; 48],
            b"Hi There",
            "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee9737a959796489bddbc
             4c5df61d5b3297b4fb68dab9f1b582c2",
        ),
        (
            Prf::HmacSha512,
            &[0x0b; 20],
            b"Hi There",
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde
             daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
        ),
        (
            Prf::HmacSha512,
            b"Jefe",
            what,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
        (
            Prf::HmacSha512,
            &[0xaa; 131],
            long,
            "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352
             6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
        ),
        (
            Prf::HmacSha512,
            &[0x0b; 64],
            b"Hi There",
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8
             ac2878ebd5803f6f0b61dbce5e251ff8789a4722c1be65aea45fd464e89f8f5b",
        ),
    ];
    for_both(|provider| {
        for (prf, key, message, expected) in vectors {
            let tag = provider.hashes.prf(*prf, key).compute(&[message]);
            assert_eq!(tag.expose(), hex(expected), "{prf:?} {}", provider.name);
        }
    });
}

/// FIPS 180-4, the one-block example.
#[test]
fn digests() {
    let vectors = [
        (HashAlgorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (HashAlgorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            HashAlgorithm::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed
             8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            HashAlgorithm::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ];
    for_both(|provider| {
        for (hash, expected) in vectors {
            assert_eq!(provider.hashes.digest(hash, &[b"a", b"", b"bc"]).unwrap(), hex(expected));
        }
        let identity = provider.hashes.digest(HashAlgorithm::Identity, &[b"abc"]);
        assert_eq!(identity, Err(CryptoError::Unsupported));
    });
}

/// NIST CAVS, IKEv2 key derivation with SHA-1: SKEYSEED (RFC 7296 section 2.14), its successor in a rekey (section
/// 2.18), and 132 octets of prf+ (section 2.13), which cross the borders of its blocks.
#[test]
fn ikev2_key_derivation() {
    let nonces = [hex("32b50d5f4a3763f3"), hex("9206a04b26564cb1")].concat();
    let spis = [hex("34c9e7c188868785"), hex("3ff77d760d2b2199")].concat();
    let shared = hex("4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52");
    let shared_new = hex("863f3c9d06efd39d2b907b97f8699e5dd5251ef64a2a176f36ee40c87d4f9330");
    let keymat = hex("a14293677cc80ff8f9cc0eee30d895da9d8f405666e30ef0dfcb63c634a46002
         a2a63080e514a062768b76606f9fa5e992204fc5a670bde3f10d6b027113936a
         5c55b648a194ae587b0088d52204b702c979fa280870d2ed41efa9c549fd1119
         8af1670b143d384bd275c5f594cf266b05ebadca855e4249520a441a81157435
         a7a56cc4");
    for_both(|provider| {
        let prf = |key: &[u8]| provider.hashes.prf(Prf::HmacSha1, key);
        let seed = prf(&nonces).compute(&[&shared]);
        assert_eq!(seed.expose(), hex("a9a7b222b59f8f48645f28a1db5b5f5d7479cba7"));
        let derived = prf(seed.expose()).prf_plus(&[&nonces, &spis], keymat.len());
        assert_eq!(derived.expose(), keymat);
        let sk_d = &derived.expose()[..20];
        let rekeyed = prf(sk_d).compute(&[&shared_new, &nonces]);
        assert_eq!(rekeyed.expose(), hex("63e81194946ebd05df7df5ebf5d8750056bf1f1d"));
        for len in [0, 1, 19, 20, 21, 131] {
            let part = prf(seed.expose()).prf_plus(&[&nonces, &spis], len);
            assert_eq!(part.expose(), &keymat[..len]);
        }
    });
}

/// NIST ACVP, with SHA-256 and SHA-512: SKEYSEED, key stream of the IKE SA, of Child SAs without and with PFS, and a rekey.
#[test]
fn ikev2_key_derivation_with_sha2() {
    let mut run = 0;
    for block in include_str!("data/ikev2-kdf.txt").split("\n\n") {
        let value = |name: &str| {
            let lines = block.lines().filter_map(|line| line.split_once(" = "));
            lines.clone().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name} is missing")).1
        };
        let octets = |name: &str| hex(value(name));
        let prf = match value("prf") {
            "HMAC_SHA2_256" => Prf::HmacSha256,
            "HMAC_SHA2_512" => Prf::HmacSha512,
            other => panic!("{other}"),
        };
        let nonces = [octets("ni"), octets("nr")].concat();
        run += 1;
        for_both(|provider| {
            let of = |key: &[u8]| provider.hashes.prf(prf, key);
            let stream = |key: &[u8], seed: &[&[u8]], name: &str| {
                let expected = octets(name);
                assert_eq!(of(key).prf_plus(seed, expected.len()).expose(), expected, "{prf:?} {name}");
                expected
            };
            let seed = of(&nonces).compute(&[&octets("secret")]);
            assert_eq!(seed.expose(), octets("skeyseed"), "{prf:?}");
            let keymat = stream(seed.expose(), &[&nonces, &octets("spis")], "keymat");
            let sk_d = &keymat[..prf.output_len()];
            stream(sk_d, &[&nonces], "child");
            stream(sk_d, &[&octets("secret_new"), &nonces], "child_new");
            let rekeyed = of(sk_d).compute(&[&octets("secret_new"), &nonces]);
            assert_eq!(rekeyed.expose(), octets("rekey"), "{prf:?}");
        });
    }
    assert_eq!(run, 2);
}

#[test]
#[should_panic(expected = "255 blocks")]
fn prf_plus_ends_after_255_blocks() {
    let prf = crate::rustcrypto::PROVIDER.hashes.prf(Prf::HmacSha1, b"key");
    prf.prf_plus(&[b"seed"], 255 * 20 + 1);
}
