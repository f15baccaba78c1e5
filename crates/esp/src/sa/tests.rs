use super::*;
use crate::next_header::{DUMMY, IPV6};
use ferry6_crypto::{Cipher, Integ};

mod batch;
mod fake;
mod providers;
mod vectors;

use fake::FakeKey;

const SPI: Spi = match Spi::new(0xc0de_0042) {
    Some(spi) => spi,
    None => unreachable!(),
};

fn suite(cipher: Cipher, integ: Option<Integ>) -> CipherSuite {
    CipherSuite::new(cipher, integ).unwrap()
}

fn gcm() -> CipherSuite {
    suite(Cipher::Aes128Gcm16, None)
}

fn cbc() -> CipherSuite {
    suite(Cipher::Aes128Cbc, Some(Integ::HmacSha256_128))
}

fn pair(suite: CipherSuite, esn: bool) -> (OutboundSa, InboundSa) {
    (
        OutboundSa::with_key(Box::new(FakeKey(suite)), SPI, esn),
        InboundSa::with_key(Box::new(FakeKey(suite)), SPI, esn, 64),
    )
}

/// Seals a payload into a packet of its own.
fn seal(sa: &mut OutboundSa, payload: &[u8], next_header: u8) -> Result<Vec<u8>, SealError> {
    let Overhead { front, back } = sa.overhead();
    let mut buffer = vec![0xaa; front + payload.len() + back];
    buffer[front..][..payload.len()].copy_from_slice(payload);
    let len = sa.seal(&mut buffer, payload.len(), next_header)?;
    assert!(buffer[len..].iter().all(|&octet| octet == 0xaa), "it wrote behind the packet");
    buffer.truncate(len);
    Ok(buffer)
}

#[test]
fn the_packet_is_laid_out_as_rfc_4303_section_2_draws_it() {
    let (mut sa, _) = pair(gcm(), false);
    let packet = seal(&mut sa, b"abcdefg", IPV6).unwrap();
    assert_eq!(packet[..4], [0xc0, 0xde, 0x00, 0x42]);
    assert_eq!(packet[4..8], [0, 0, 0, 1]);
    // the fake key's IV is the counter, its cipher changes nothing
    assert_eq!(packet[8..16], [0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(packet[16..28], *b"abcdefg\x01\x02\x03\x03\x29");
    assert_eq!(packet.len(), 28 + 16);
    let packet = seal(&mut sa, b"", DUMMY).unwrap();
    assert_eq!(packet[4..8], [0, 0, 0, 2]);
    assert_eq!(packet[16..20], [1, 2, 2, 59]);

    let (mut sa, _) = pair(cbc(), false);
    let packet = seal(&mut sa, b"abcd", IPV6).unwrap();
    assert_eq!(packet[24..40], *b"abcd\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0a\x29");
    assert_eq!(packet.len(), 40 + 16);
}

#[test]
fn what_is_authenticated_beside_the_text() {
    let sequence = 0x0102_0304_0506_0708;
    let octets = |esn, aead| {
        let beside = Authenticated::new(SPI, sequence, esn, aead);
        (beside.aad().to_vec(), beside.suffix().to_vec())
    };
    let head = vec![0xc0, 0xde, 0x00, 0x42, 5, 6, 7, 8];
    assert_eq!(octets(false, true), (head.clone(), vec![]));
    assert_eq!(octets(false, false), (head.clone(), vec![]));
    // RFC 4106 section 5
    assert_eq!(octets(true, true), (vec![0xc0, 0xde, 0x00, 0x42, 1, 2, 3, 4, 5, 6, 7, 8], vec![]));
    // RFC 4303 section 2.2.1
    assert_eq!(octets(true, false), (head, vec![1, 2, 3, 4]));
}

#[test]
fn the_sequence_number_never_wraps() {
    for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
        let (mut sa, mut peer) = pair(gcm(), esn);
        assert_eq!((sa.packets(), sa.remaining()), (0, last));
        sa.sequence = last - 2;
        peer.window.start_at(last - 2);
        for left in [1, 0] {
            let mut packet = seal(&mut sa, b"x", IPV6).unwrap();
            assert_eq!(sa.remaining(), left);
            assert_eq!(peer.open(&mut packet).unwrap().sequence, last - left);
        }
        for _ in 0..3 {
            assert_eq!(seal(&mut sa, b"x", IPV6), Err(SealError::Exhausted));
            assert_eq!((sa.packets(), sa.remaining()), (last, 0));
        }
    }
}

#[test]
fn no_room_uses_no_sequence_number_up() {
    for suite in [gcm(), cbc()] {
        let (mut sa, _) = pair(suite, false);
        let len = crate::sealed_len(suite, 100);
        for room in 0..len {
            assert_eq!(sa.seal(&mut vec![0; room], 100, IPV6), Err(SealError::Room), "{room}");
        }
        assert_eq!(sa.seal(&mut [0; 64], usize::MAX, IPV6), Err(SealError::Room));
        assert_eq!(sa.packets(), 0);
        assert_eq!(sa.seal(&mut vec![0; len], 100, IPV6), Ok(len));
        assert_eq!(sa.packets(), 1);
    }
}

#[test]
fn extended_numbers_cross_the_wrap_of_the_low_half() {
    for suite in [gcm(), cbc()] {
        let (mut sa, mut peer) = pair(suite, true);
        sa.sequence = 0xffff_ffff - 10;
        peer.window.start_at(0xffff_ffff - 10);
        let mut sent: Vec<_> = (0..30).map(|_| seal(&mut sa, b"payload", IPV6).unwrap()).collect();
        // each second one first, then the rest: both sides of the wrap are in the window at once
        for start in [0, 1] {
            for i in (start..30).step_by(2) {
                let sequence = peer.open(&mut sent[i].clone()).unwrap().sequence;
                assert_eq!(sequence, 0xffff_ffff - 9 + i as u64);
            }
        }
        for packet in &mut sent {
            assert_eq!(peer.open(packet), Err(OpenError::Replay(ReplayError::Duplicate)));
        }
    }
}

#[test]
fn the_high_half_is_authenticated() {
    for suite in [gcm(), cbc()] {
        let (mut sa, mut peer) = pair(suite, true);
        sa.sequence = 0x1_0000_0000;
        // the receiver infers 1, the sender meant 0x1_0000_0001
        let mut packet = seal(&mut sa, b"payload", IPV6).unwrap();
        assert_eq!(peer.open(&mut packet), Err(OpenError::Integrity));
        assert_eq!(peer.highest(), 0);
    }
}

#[test]
fn checks_come_in_the_order_of_rfc_4303_and_a_refused_packet_changes_nothing() {
    let (mut sa, mut peer) = pair(gcm(), false);
    let packet = seal(&mut sa, b"payload", IPV6).unwrap();
    for len in 0..8 + 8 + 4 + 16 {
        assert_eq!(peer.open(&mut packet.clone()[..len]), Err(OpenError::Malformed), "{len}");
    }
    let mut not_a_multiple = packet.clone();
    not_a_multiple.push(0);
    assert_eq!(peer.open(&mut not_a_multiple), Err(OpenError::Malformed));
    let mut other_spi = packet.clone();
    other_spi[3] ^= 1;
    assert_eq!(peer.open(&mut other_spi), Err(OpenError::Spi));
    let mut zero = packet.clone();
    zero[7] = 0;
    assert_eq!(peer.open(&mut zero), Err(OpenError::Replay(ReplayError::Zero)));
    // a forged number far ahead must not move the window
    let mut forged = packet.clone();
    forged[4] = 0xf0;
    assert_eq!(peer.open(&mut forged), Err(OpenError::Integrity));
    assert_eq!(peer.highest(), 0);
    assert_eq!(peer.open(&mut packet.clone()).unwrap().payload, b"payload");
    // known numbers are refused before any cryptography
    let mut replayed = packet;
    *replayed.last_mut().unwrap() ^= 1;
    assert_eq!(peer.open(&mut replayed), Err(OpenError::Replay(ReplayError::Duplicate)));
    sa.sequence = 100;
    assert!(peer.open(&mut seal(&mut sa, b"", IPV6).unwrap()).is_ok());
    sa.sequence = 36;
    let mut old = seal(&mut sa, b"", IPV6).unwrap();
    assert_eq!(peer.open(&mut old), Err(OpenError::Replay(ReplayError::TooOld)));
    let mut inside = seal(&mut sa, b"", IPV6).unwrap();
    assert_eq!(peer.open(&mut inside).unwrap().sequence, 38);
}

/// RFC 4303 appendix A2.1 and A3: with ESN what is left of the window may be right of it by 2^32.
#[test]
fn old_packets_of_an_esn_sa_are_seldom_decrypted_and_a_peer_that_lost_its_way_is_found_again() {
    let (mut sa, mut peer) = pair(gcm(), true);
    let old: Vec<_> = (0..640).map(|_| seal(&mut sa, b"old", IPV6).unwrap()).collect();
    sa.sequence = 1 << 20;
    assert!(peer.open(&mut seal(&mut sa, b"new", IPV6).unwrap()).is_ok());
    let refused: Vec<_> = old.iter().map(|p| peer.open(&mut p.clone()).unwrap_err()).collect();
    assert_eq!(refused.iter().filter(|e| **e == OpenError::Integrity).count(), 10, "one of 64 is verified");
    assert_eq!(refused.iter().filter(|e| **e == OpenError::Replay(ReplayError::TooOld)).count(), 630);
    assert_eq!(peer.highest(), (1 << 20) + 1);

    // Three milliards of packets were lost; the peer goes on.
    sa.sequence = 3_000_000_000;
    let lost =
        (0..1000).take_while(|_| peer.open(&mut seal(&mut sa, b"far", IPV6).unwrap()).is_err()).count();
    assert!(lost < 64, "{lost}");
    assert!((0..1000).all(|_| peer.open(&mut seal(&mut sa, b"on", IPV6).unwrap()).is_ok()));
    assert_eq!(peer.highest(), sa.sequence);
}

/// A packet with this text, made by hand and with a right ICV.
fn by_hand(suite: CipherSuite, sequence: u32, text: &[u8]) -> Vec<u8> {
    let geometry = Geometry::of(suite);
    let mut packet = SPI.to_be_bytes().to_vec();
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.resize(geometry.front(), 0);
    packet.extend_from_slice(text);
    packet.resize(geometry.front() + text.len() + geometry.icv, 0);
    let (head, rest) = packet.split_at_mut(ESP_HEADER_LEN);
    let (iv, rest) = rest.split_at_mut(geometry.iv);
    let (text, icv) = rest.split_at_mut(text.len());
    FakeKey(suite).seal(head, iv, text, &[], icv).unwrap();
    packet
}

#[test]
fn padding_is_checked_on_open() {
    type Row = (&'static [u8], Result<&'static [u8], OpenError>);
    let table: &[Row] = &[
        (b"ab\x00\x29", Ok(b"ab")),
        (b"a\x01\x01\x29", Ok(b"a")),
        (b"\x01\x02\x02\x29", Ok(b"")),
        (b"\x01\x02\x02\x3b", Ok(b"")),
        (b"\x02\x01\x02\x29", Err(OpenError::Padding)),
        (b"\x00\x00\x02\x29", Err(OpenError::Padding)),
        (b"a\x00\x01\x29", Err(OpenError::Padding)),
        (b"\x01\x02\x03\x29", Err(OpenError::Padding)),
        (b"\x01\x02\xff\x29", Err(OpenError::Padding)),
        // more padding than alignment needs is allowed (RFC 4303 section 2.4)
        (b"a\x01\x02\x03\x04\x05\x05\x29", Ok(b"a")),
        (b"a\x01\x02\x03\x04\x06\x05\x29", Err(OpenError::Padding)),
    ];
    for (i, (text, expected)) in table.iter().enumerate() {
        let (_, mut peer) = pair(gcm(), false);
        let mut packet = by_hand(gcm(), 1, text);
        let opened = peer.open(&mut packet).map(|opened| &*opened.payload);
        assert_eq!(opened, *expected, "row {i}");
        // it was verified, so it is not taken twice
        let again = peer.open(&mut by_hand(gcm(), 1, text)).map(|_| ());
        assert_eq!(again, Err(OpenError::Replay(ReplayError::Duplicate)), "row {i}");
    }
    // the longest padding that one octet can count
    let mut text: Vec<u8> = (1..=255).collect();
    text.splice(0..0, *b"abc");
    text.extend_from_slice(&[255, IPV6]);
    let (_, mut peer) = pair(gcm(), false);
    assert_eq!(peer.open(&mut by_hand(gcm(), 1, &text)).unwrap().payload, b"abc");
}

#[test]
fn dummy_packets_count_as_received_and_are_told() {
    let (mut sa, mut peer) = pair(gcm(), false);
    let mut packet = seal(&mut sa, &[0x55; 300], DUMMY).unwrap();
    let opened = peer.open(&mut packet).unwrap();
    assert_eq!((opened.next_header, opened.payload.len(), opened.sequence), (DUMMY, 300, 1));
    assert_eq!(peer.highest(), 1);
}

/// Only the newest packet tells where the peer is: a late one does not, and without a replay check nobody knows.
#[test]
fn the_newest_packet_is_known() {
    let (mut sa, mut peer) = pair(gcm(), false);
    let [mut first, mut second] = [b"1", b"2"].map(|text| seal(&mut sa, text, IPV6).unwrap());
    let second = peer.open(&mut second).unwrap().sequence;
    assert!(peer.is_newest(second));
    let first = peer.open(&mut first).unwrap().sequence;
    assert!(!peer.is_newest(first) && peer.is_newest(second));
    let mut unchecked = InboundSa::with_key(Box::new(FakeKey(gcm())), SPI, false, 0);
    let mut third = seal(&mut sa, b"3", IPV6).unwrap();
    let third = unchecked.open(&mut third).unwrap().sequence;
    assert!(!unchecked.is_newest(third));
}

#[test]
fn both_ends_know_their_spi_and_their_limits() {
    for (suite, esn) in [(gcm(), false), (gcm(), true), (cbc(), false)] {
        let (sa, peer) = pair(suite, esn);
        assert_eq!((sa.spi(), peer.spi()), (SPI, SPI));
        assert_eq!((sa.limits(), peer.limits()), (UsageLimits::of(suite, esn), UsageLimits::of(suite, esn)));
        // AEADs gain nothing from several packets at once.
        assert_eq!(sa.batch_len() == 1, suite.is_aead());
    }
}
