//! Whole ESP packets as others published them.

use super::super::*;
use ferry6_crypto::{Cipher, Secret, aws_lc, rustcrypto};

struct Vector {
    name: &'static str,
    cipher: Cipher,
    /// Key and salt.
    key: &'static str,
    /// All 64 bits.
    sequence: u64,
    esn: bool,
    packet: &'static str,
    /// Payload, padding, pad length, next header.
    text: &'static str,
}

const VECTORS: &[Vector] = &[
    Vector {
        name: "draft-mcgrew-gcm-test-01 case 1",
        cipher: Cipher::Aes128Gcm16,
        key: "4c80cdefbb5d10da906ac73c3613a6342e443b68",
        sequence: 0x8765432100000000,
        esn: true,
        packet: "00004321000000004956ed7e3b244cfefecf537e729d5b07dc30df528dd22b768d1b98736696a6fd\
                 348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce\
                 61bc17d768fd9732459018148f6cbe722fd04796562dfdb4",
        text: "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f7369\
                 70045f756470037369700963796265726369747902646b000021000101020201",
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 case 2",
        cipher: Cipher::Aes128Gcm16,
        key: "feffe9928665731c6d6a8f9467308308cafebabe",
        sequence: 0xa,
        esn: false,
        packet: "0000a5f80000000afacedbaddecaf888deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f\
                 1ba76d5d114d2a5c3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1\
                 83b70d3aa8bc6ee4c309e9d85a41ad4a",
        text: "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d001000001000000000000\
                 037369700963796265726369747902646b00000100010001",
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 case 3",
        cipher: Cipher::Aes256Gcm16,
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab11223344",
        sequence: 0x2,
        esn: false,
        packet: "4a2cbfe3000000020102030405060708ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf\
                 06efae9d65a5d763748a637985771d347f0545659f14e99def842d8eb335f4eecfdbf831824b4c49\
                 15956c96",
        text: "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000\
                 020405b40101040201020201",
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 case 5",
        cipher: Cipher::Aes128Gcm16,
        key: "3de09874b388e6491988d0c3607eae1f57690e43",
        sequence: 0x1010101010101010,
        esn: true,
        packet: "42f67e3f101010104e280000a2fca1a3fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b0\
                 0d1138ec9c35791765acbd8701ad79845bf9fe3fba487bc91755e6662b4c8d0d1f5e22739530320a\
                 e0d731cc978ecafaeae88f00e80d6e48",
        text: "4500003c99c300008001cb7c40679318010101010800085c020043006162636465666768696a6b6c\
                 6d6e6f707172737475767761626364656667686901020201",
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 case 8",
        cipher: Cipher::Aes128Gcm16,
        key: "abbccddef00112233445566778899aabdecaf888",
        sequence: 0x1,
        esn: true,
        packet: "0000010000000001cafedebaceface7418a6fd42f72cbf4ab2a2ea901f73d814e3e7f243d95412e1\
                 c349c1d2fbec168f9190feebaf2cb01984e65863965d7472b79da345e0e780191f0d2f0e0f496c22\
                 6f2127b27db35724e7845d68651f57e65f354f75ff17015769623436",
        text: "4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d500004e20001e8c18\
                 d75b81dc91baa0476b91b924b280389d92c963bac046ec959b6266c04722b14923010101",
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 case 9",
        cipher: Cipher::Aes256Gcm16,
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab73616c74",
        sequence: 0x156f3126dd0db99b,
        esn: true,
        packet: "17405e67dd0db99b616e640169766563f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef6754\
                 9d524a3018d9a57ff4d3a31ce673119e451626c2415771e3b7eebca614c89b35",
        text: "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 case 12",
        cipher: Cipher::Aes128Gcm16,
        key: "7d773d00c144c525ac619d18c84a3f47d9664267",
        sequence: 0xffffffff,
        esn: false,
        packet: "335467aeffffffff43457e9182443bc6437f866bcb3f699fe9b0822bac961c4504bef270",
        text: "01020201",
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 case 14",
        cipher: Cipher::Aes256Gcm16,
        key: "6c6567616c697a656d6172696a75616e61616e64646f69746265666f726569617475726e",
        sequence: 0xffffffffffffffff,
        esn: true,
        packet: "796b6963ffffffff333021696765746df97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b6\
                 4a274b39b49c3a864cd3d78ca4ae68a32b42458fb57dbe821dcc63b9d0937ba2945f669368661a32\
                 9fb4c053",
        text: "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c\
                 6d6e6f707172737401020201",
    },
    Vector {
        name: "RFC 7634 appendix A",
        cipher: Cipher::ChaCha20Poly1305,
        key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3",
        sequence: 0x5,
        esn: false,
        packet: "0102030400000005101112131415161724039428b97f417e3c13753a4f05087b67c352e6a7fab1b9\
                 82d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3\
                 cbec163fac469b502773f6fb94e664da9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43",
        text: "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b\
                 0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233\
                 3435363701020204",
    },
];

#[test]
fn published_packets_open() {
    for provider in [aws_lc::PROVIDER, rustcrypto::PROVIDER] {
        for vector in VECTORS {
            let name = vector.name;
            let suite = CipherSuite::new(vector.cipher, None).unwrap();
            let keys = PacketKeys {
                suite,
                encryption: Secret::new(hex::decode(vector.key).unwrap()),
                integrity: Secret::new(vec![]),
            };
            let packet = hex::decode(vector.packet).unwrap();
            let text = hex::decode(vector.text).unwrap();
            let spi = Spi::new(u32::from_be_bytes(packet[..4].try_into().unwrap())).unwrap();
            assert_eq!(packet[4..8], (vector.sequence as u32).to_be_bytes(), "{name}");

            let mut sa = InboundSa::new(&provider, spi, &keys, vector.esn, 64).unwrap();
            sa.window.start_at(vector.sequence - 1);
            let mut copy = packet.clone();
            let opened = sa.open(&mut copy).unwrap();
            let [.., pad_len, next_header] = text[..] else { unreachable!() };
            assert_eq!(opened.sequence, vector.sequence, "{name}");
            assert_eq!(opened.next_header, next_header, "{name}");
            assert_eq!(*opened.payload, text[..text.len() - 2 - usize::from(pad_len)], "{name}");
            let replayed = sa.open(&mut packet.clone()).map(|_| ());
            assert_eq!(replayed, Err(OpenError::Replay(ReplayError::Duplicate)), "{name}");

            // another 2^32 of sequence numbers is another AAD
            if vector.esn {
                let mut sa = InboundSa::new(&provider, spi, &keys, true, 64).unwrap();
                sa.window.start_at(vector.sequence ^ (1 << 40));
                assert_eq!(sa.open(&mut packet.clone()), Err(OpenError::Integrity), "{name}");
            }
        }
    }
}
