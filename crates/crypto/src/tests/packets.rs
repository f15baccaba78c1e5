//! Published vectors of packet protection.

use super::{for_both, hex, packet_keys};
use crate::{Cipher, CipherSuite, CryptoError, Integ, Prf};

struct Vector {
    name: &'static str,
    cipher: Cipher,
    /// Key, then salt for an AEAD.
    key: &'static str,
    iv: &'static str,
    aad: &'static str,
    text: &'static str,
    sealed: &'static str,
    /// Empty for CBC, whose ICV comes from HMAC.
    icv: &'static str,
}

const VECTORS: &[Vector] = &[
    Vector {
        name: "The Galois/Counter Mode of Operation, test case 4",
        cipher: Cipher::Aes128Gcm16,
        key: "feffe9928665731c6d6a8f9467308308 cafebabe",
        iv: "facedbaddecaf888",
        aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        text: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
               1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        sealed: "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
                 21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
        icv: "5bc94fbc3221a5db94fae95ae7121a47",
    },
    Vector {
        name: "The Galois/Counter Mode of Operation, test case 16",
        cipher: Cipher::Aes256Gcm16,
        key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308 cafebabe",
        iv: "facedbaddecaf888",
        aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        text: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
               1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
                 8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        icv: "76fc6ece0f4e1768cddf8853bb2d551b",
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01: an ESP packet of RFC 4106 with an ESN",
        cipher: Cipher::Aes128Gcm16,
        key: "4c80cdefbb5d10da906ac73c3613a634 2e443b68",
        iv: "4956ed7e3b244cfe",
        aad: "000043218765432100000000",
        text: "45000048699a000080114db7c0a80102 c0a801010a9bf15638d3010000010000
               00000000045f736970045f7564700373 69700963796265726369747902646b00
               0021000101020201",
        sealed: "fecf537e729d5b07dc30df528dd22b76 8d1b98736696a6fd348509fa13ceac34
                 cfa2436f14a3f3cf65925bf1f4a13c5d 15b21e1884f5ff6247aeabb786b93bce
                 61bc17d768fd9732",
        icv: "459018148f6cbe722fd04796562dfdb4",
    },
    Vector {
        name: "RFC 7634 appendix A: an ESP packet",
        cipher: Cipher::ChaCha20Poly1305,
        key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3",
        iv: "1011121314151617",
        aad: "0102030400000005",
        text: "45000054a6f200004001e778c6336405 c000020508005b7a3a080000553bec10
               0007362708090a0b0c0d0e0f10111213 1415161718191a1b1c1d1e1f20212223
               2425262728292a2b2c2d2e2f30313233 3435363701020204",
        sealed: "24039428b97f417e3c13753a4f05087b 67c352e6a7fab1b982d466ef407ae5c6
                 14ee8099d52844eb61aa95dfab4c02f7 2aa71e7c4c4f64c9befe2facc638e8f3
                 cbec163fac469b502773f6fb94e664da 9165b82829f641e0",
        icv: "76aaa8266b7fb0f7b11b369907e1ad43",
    },
    Vector {
        name: "RFC 8439 section 2.8.2",
        cipher: Cipher::ChaCha20Poly1305,
        key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f 07000000",
        iv: "4041424344454647",
        aad: "50515253c0c1c2c3c4c5c6c7",
        text: "4c616469657320616e642047656e746c 656d656e206f662074686520636c6173
               73206f66202739393a20496620492063 6f756c64206f6666657220796f75206f
               6e6c79206f6e652074697020666f7220 746865206675747572652c2073756e73
               637265656e20776f756c642062652069 742e",
        sealed: "d31a8d34648e60db7b86afbc53ef7ec2 a4aded51296e08fea9e2b5a736ee62d6
                 3dbea45e8ca9671282fafb69da92728b 1a71de0a9e060b2905d6a5b67ecd3b36
                 92ddbd7f2d778b8c9803aee328091b58 fab324e4fad675945585808b4831d7bc
                 3ff4def08e4b7a9de576d26586cec64b 6116",
        icv: "1ae10b594f09e26a7e902ecbd0600691",
    },
    Vector {
        name: "RFC 3602 section 4, case 1",
        cipher: Cipher::Aes128Cbc,
        key: "06a9214036b8a15b512e03d534120006",
        iv: "3dafba429d9eb430b422da802c9fac41",
        aad: "",
        text: "53696e676c6520626c6f636b206d7367",
        sealed: "e353779c1079aeb82708942dbe77181a",
        icv: "",
    },
    Vector {
        name: "RFC 3602 section 4, case 2",
        cipher: Cipher::Aes128Cbc,
        key: "c286696d887c9aa0611bbb3e2025a45a",
        iv: "562e17996d093d28ddb3ba695a2e6f58",
        aad: "0000875600000001",
        text: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        sealed: "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        icv: "",
    },
    Vector {
        name: "NIST SP 800-38A F.2.5",
        cipher: Cipher::Aes256Cbc,
        key: "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        iv: "000102030405060708090a0b0c0d0e0f",
        aad: "0000875600000001",
        text: "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51
               30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
        sealed: "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d
                 39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
        icv: "",
    },
];

#[test]
fn published_vectors() {
    for_both(|provider| {
        for vector in VECTORS {
            let integs: Vec<Option<Integ>> =
                if vector.cipher.is_aead() { vec![None] } else { Integ::ALL.into_iter().map(Some).collect() };
            let (iv, aad, text) = (hex(vector.iv), hex(vector.aad), hex(vector.text));
            for integ in integs {
                let suite = CipherSuite::new(vector.cipher, integ).unwrap();
                // The key of HMAC is free; PRFs have vectors of their own, so here they are the reference.
                let integrity = vec![0xa5; integ.map_or(0, Integ::key_len)];
                let suffix: &[u8] = if integ.is_some() { &[0, 0, 0, 7] } else { &[] };
                let icv = match integ {
                    None => hex(vector.icv),
                    Some(integ) => {
                        let prf = match integ {
                            Integ::HmacSha1_96 => Prf::HmacSha1,
                            Integ::HmacSha256_128 => Prf::HmacSha256,
                            Integ::HmacSha384_192 => Prf::HmacSha384,
                            Integ::HmacSha512_256 => Prf::HmacSha512,
                        };
                        let parts: [&[u8]; 4] = [&aad, &iv, &hex(vector.sealed), suffix];
                        let tag = provider.hashes.prf(prf, &integrity).compute(&parts);
                        tag.expose()[..integ.icv_len()].to_vec()
                    }
                };
                let keys = packet_keys(suite, &hex(vector.key), &integrity);
                let mut work = text.clone();
                let mut made = vec![0; suite.icv_len()];
                provider
                    .packets
                    .sealing(&keys)
                    .unwrap()
                    .seal(&aad, &iv, &mut work, suffix, &mut made)
                    .unwrap();
                assert_eq!(work, hex(vector.sealed), "{}, {}", vector.name, provider.name);
                assert_eq!(made, icv, "{}, {}", vector.name, provider.name);
                let mut opening = provider.packets.opening(&keys).unwrap();
                opening.open(&aad, &iv, &mut work, suffix, &icv).unwrap();
                assert_eq!(work, text, "{}, {}", vector.name, provider.name);
                let refused = opening.open(&aad, &iv, &mut work, suffix, &icv);
                assert_eq!(refused, Err(CryptoError::Integrity));
            }
        }
    });
}
