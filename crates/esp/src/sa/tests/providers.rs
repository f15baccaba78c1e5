//! Every suite, with and without extended sequence numbers, between both providers, in both directions.

use super::*;
use ferry6_crypto::{CryptoProvider, Secret, aws_lc, rustcrypto};
use proptest::prelude::*;

fn keys(suite: CipherSuite, seed: u8) -> PacketKeys {
    let octets =
        |len, step: u8| -> Vec<u8> { (0..len).map(|i| (i as u8).wrapping_mul(step) ^ seed).collect() };
    PacketKeys {
        suite,
        encryption: Secret::new(octets(suite.cipher().key_material_len(), 7)),
        integrity: Secret::new(octets(suite.integ().map_or(0, Integ::key_len), 13)),
    }
}

fn sa_pair(
    sender: &CryptoProvider,
    receiver: &CryptoProvider,
    suite: CipherSuite,
    esn: bool,
) -> (OutboundSa, InboundSa) {
    let keys = keys(suite, 0x5a);
    (
        OutboundSa::new(sender, SPI, &keys, esn).unwrap(),
        InboundSa::new(receiver, SPI, &keys, esn, 64).unwrap(),
    )
}

/// All suites, ESN off and on, each provider to each.
fn all() -> impl Iterator<Item = (CipherSuite, bool, CryptoProvider, CryptoProvider)> {
    let providers = [aws_lc::PROVIDER, rustcrypto::PROVIDER];
    CipherSuite::all().flat_map(move |suite| {
        [false, true].into_iter().flat_map(move |esn| {
            providers.into_iter().flat_map(move |sender| {
                providers.into_iter().map(move |receiver| (suite, esn, sender, receiver))
            })
        })
    })
}

#[test]
fn every_payload_length_makes_the_round_trip() {
    for (suite, esn, sender, receiver) in all() {
        let (mut out, mut inbound) = sa_pair(&sender, &receiver, suite, esn);
        // past the first 2^32 the high half is not zero
        if esn {
            out.sequence = 0x7_ffff_ff00;
            inbound.window.start_at(out.sequence);
        }
        for len in (0..70).chain([1279, 1280, 1400, 8999, 65_535]) {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let sequence = out.packets() + 1;
            let mut packet = seal(&mut out, &payload, IPV6).unwrap();
            assert_eq!(packet.len(), crate::sealed_len(suite, len));
            let opened = inbound.open(&mut packet).unwrap();
            let wanted = (&payload[..], IPV6, sequence);
            assert_eq!((&*opened.payload, opened.next_header, opened.sequence), wanted, "{suite:?} {esn}");
        }
    }
}

#[test]
fn every_bit_matters_and_every_truncation_is_an_error() {
    for (suite, esn, sender, receiver) in all() {
        let (mut out, mut inbound) = sa_pair(&sender, &receiver, suite, esn);
        let packet = seal(&mut out, b"every bit of it", IPV6).unwrap();
        for bit in 0..packet.len() * 8 {
            let mut forged = packet.clone();
            forged[bit / 8] ^= 0x80 >> (bit % 8);
            let refused = inbound.open(&mut forged).unwrap_err();
            let expected = match bit / 32 {
                0 => OpenError::Spi,
                1 if bit == 63 => OpenError::Replay(ReplayError::Zero),
                _ => OpenError::Integrity,
            };
            assert_eq!(refused, expected, "{suite:?} {esn} bit {bit}");
        }
        for len in 0..packet.len() {
            assert!(
                matches!(
                    inbound.open(&mut packet.clone()[..len]),
                    Err(OpenError::Malformed | OpenError::Integrity)
                ),
                "{suite:?} {esn} {len}"
            );
        }
        let mut longer = packet.clone();
        for _ in 0..40 {
            longer.push(0);
            assert!(inbound.open(&mut longer.clone()).is_err());
        }
        assert_eq!(inbound.highest(), 0);
        assert_eq!(inbound.open(&mut packet.clone()).unwrap().payload, b"every bit of it");
    }
}

#[test]
fn the_other_keys_do_not_open() {
    for (suite, esn, sender, receiver) in all() {
        let mut out = OutboundSa::new(&sender, SPI, &keys(suite, 1), esn).unwrap();
        let packet = seal(&mut out, b"payload", IPV6).unwrap();
        let mut inbound = InboundSa::new(&receiver, SPI, &keys(suite, 2), esn, 64).unwrap();
        assert_eq!(inbound.open(&mut packet.clone()), Err(OpenError::Integrity));
        let mut inbound = InboundSa::new(&receiver, SPI, &keys(suite, 1), !esn, 64).unwrap();
        assert_eq!(inbound.open(&mut packet.clone()), Err(OpenError::Integrity), "ESN is of one mind");
    }
}

#[test]
fn a_key_of_the_wrong_length_makes_no_sa() {
    for (suite, esn, provider, _) in all() {
        let mut wrong = keys(suite, 1);
        wrong.encryption = Secret::new(vec![1; suite.cipher().key_material_len() - 1]);
        assert_eq!(OutboundSa::new(&provider, SPI, &wrong, esn).unwrap_err(), CryptoError::KeyLength);
        assert_eq!(InboundSa::new(&provider, SPI, &wrong, esn, 64).unwrap_err(), CryptoError::KeyLength);
    }
}

#[test]
fn nothing_secret_is_printed() {
    let (out, inbound) = sa_pair(&aws_lc::PROVIDER, &aws_lc::PROVIDER, gcm(), false);
    assert_eq!(
        format!("{out:?}"),
        "OutboundSa { spi: 0xc0de0042, suite: CipherSuite { cipher: Aes128Gcm16, integ: None }, esn: false, packets: 0, .. }"
    );
    assert!(format!("{inbound:?}").ends_with("esn: false, highest: 0, .. }"));
}

proptest! {
    #[test]
    fn garbage_is_refused(
        index in 0..CipherSuite::all().count(),
        esn: bool,
        mut packet in prop::collection::vec(any::<u8>(), 0..300),
        spi: bool,
    ) {
        let suite = CipherSuite::all().nth(index).unwrap();
        let (_, mut inbound) = sa_pair(&aws_lc::PROVIDER, &rustcrypto::PROVIDER, suite, esn);
        if let (true, Some(head)) = (spi, packet.first_chunk_mut::<4>()) {
            *head = SPI.to_be_bytes();
        }
        prop_assert!(inbound.open(&mut packet).is_err());
    }
}
