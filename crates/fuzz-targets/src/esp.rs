//! ESP, its replay window, IPComp and the UDP encapsulation.

use crate::input::Input;
use ferry6_crypto::{CipherSuite, PacketKeys, Spi, aws_lc};
use ferry6_esp::encap::{Datagram, classify};
use ferry6_esp::ipcomp::{Compressor, Decompressor, Deflater, HEADER_LEN, Inflater, IpcompError, MIN_LEN};
use ferry6_esp::replay::{ReplayError, ReplayWindow};
use ferry6_esp::{ESP_HEADER_LEN, InboundSa, OpenError};
use ferry6_tun_router::testing::keys;
use std::collections::BTreeSet;

/// The SPI of the packets that are opened.
pub const SPI: Spi = match Spi::new(0x0f0e_0d0c) {
    Some(spi) => spi,
    None => unreachable!(),
};

/// The keys of those packets.
pub fn esp_keys(suite: CipherSuite) -> PacketKeys {
    keys(suite, 0x42, 0x24)
}

/// Opens a packet as it is, and one whose text is the input, so that the fuzzer gets behind the ICV.
///
/// Input: suite, flags (ESN, replay check off), then octets.
pub fn esp_open(data: &[u8]) {
    let mut input = Input(data);
    let suite = input.suite();
    let flags = input.u8();
    let (esn, window) = (flags & 1 != 0, if flags & 2 != 0 { 0 } else { 64 });
    let octets = input.rest();
    let keys = esp_keys(suite);
    let fresh = || InboundSa::new(&aws_lc::PROVIDER, SPI, &keys, esn, window).expect("the keys fit");

    // as it is
    let mut sa = fresh();
    let mut packet = octets.to_vec();
    match sa.open(&mut packet) {
        Ok(opened) => {
            assert_eq!(
                opened.sequence as u32,
                u32::from_be_bytes(octets[4..8].try_into().expect("4 octets"))
            );
            assert!(opened.payload.len() + ESP_HEADER_LEN + 2 + suite.icv_len() <= octets.len());
            let again = sa.open(&mut octets.to_vec()).map(|_| ());
            let expected = if window == 0 { Ok(()) } else { Err(ReplayError::Duplicate.into()) };
            assert_eq!(again, expected);
        }
        Err(OpenError::Padding) => {}
        Err(_) => assert_eq!(sa.highest(), 0, "a refused packet moved the window"),
    }

    // as the text of a packet whose ICV fits
    let align = suite.cipher().block_len().max(4);
    let mut text = octets.to_vec();
    text.resize(octets.len().next_multiple_of(align).max(align), 0);
    let plain = text.clone();
    let mut key = aws_lc::PROVIDER.packets.sealing(&keys).expect("the keys fit");
    let head = [SPI.to_be_bytes(), [0, 0, 0, 1]].concat();
    let mut iv = vec![0; suite.cipher().iv_len()];
    let mut icv = vec![0; suite.icv_len()];
    key.write_iv(1, &mut iv);
    // the high half of an extended number is zero in the first 2^32
    let (aad, suffix) = match (esn, suite.is_aead()) {
        (true, true) => ([&head[..4], &[0; 4], &head[4..]].concat(), &[0; 0][..]),
        (true, false) => (head.clone(), &[0; 4][..]),
        (false, _) => (head.clone(), &[0; 0][..]),
    };
    key.seal(&aad, &iv, &mut text, suffix, &mut icv).expect("the lengths fit");
    let mut packet = [head, iv, text, icv].concat();

    // the trailer, read plainly
    let (pad_len, next_header) = (usize::from(plain[plain.len() - 2]), plain[plain.len() - 1]);
    let payload_len = (plain.len() - 2).checked_sub(pad_len);
    let payload_len =
        payload_len.filter(|len| plain[*len..][..pad_len].iter().copied().eq((1..).take(pad_len)));
    match (fresh().open(&mut packet), payload_len) {
        (Ok(opened), Some(len)) => {
            assert_eq!((&*opened.payload, opened.next_header), (&plain[..len], next_header));
        }
        (Err(OpenError::Padding), None) => {}
        (got, expected) => panic!("{got:?}, expected a payload of {expected:?} octets"),
    }
}

/// Feeds numbers to a window and to the set of all numbers ever accepted.
///
/// Input: window size, flags (ESN), then steps of one octet and, for some, four more.
pub fn replay_window(data: &[u8]) {
    let mut input = Input(data);
    let size = u32::from(input.u16() % 5000) + 1;
    let esn = input.u8() & 1 != 0;
    let mut window = ReplayWindow::new(size, esn);
    let size = window.size();
    assert!(size >= 64 && size.is_multiple_of(64));
    let (mut seen, mut top) = (BTreeSet::new(), 0_u64);
    while !input.is_empty() {
        let step = input.u8();
        let low = match step {
            0..100 => (top as u32).wrapping_add(u32::from(step)),
            100..200 => (top as u32).wrapping_sub(u32::from(step) - 100),
            200..220 => (top as u32).wrapping_sub(input.u32() % 10_000),
            220..240 => (top as u32).wrapping_add(input.u32() >> 1),
            240.. => input.u32(),
        };
        let full = if esn { infer(top, low, size) } else { Some(u64::from(low)) };
        let expected = match full {
            Some(0) => Err(ReplayError::Zero),
            None => Err(ReplayError::TooOld),
            Some(full) if full <= top && top - full >= size => Err(ReplayError::TooOld),
            Some(full) if !seen.insert(full) => Err(ReplayError::Duplicate),
            Some(full) => Ok(full),
        };
        let got = window.check(low).map(|candidate| {
            let sequence = candidate.sequence();
            assert!(window.accept(candidate));
            sequence
        });
        assert_eq!(got, expected, "low {low:#x} top {top:#x} size {size}");
        top = top.max(got.unwrap_or(0));
        assert_eq!(window.highest(), top);
    }
}

/// RFC 4303 appendix A2.1, line by line. `None`: a number behind the last.
pub(crate) fn infer(top: u64, low: u32, size: u64) -> Option<u64> {
    let (th, tl) = (top >> 32, top & 0xffff_ffff);
    let low = u64::from(low);
    let high = if tl >= size - 1 {
        if low >= tl - (size - 1) { th } else { th + 1 }
    } else {
        let bottom = tl + (1 << 32) - (size - 1);
        if low >= bottom { th.saturating_sub(1) } else { th }
    };
    (high < 1 << 32).then_some(high << 32 | low)
}

/// Inflates anything into a bounded buffer; and deflates it first, which must come back the same.
///
/// Input: bound, next header, then octets.
pub fn ipcomp_inflate(data: &[u8]) {
    let mut input = Input(data);
    let bound = usize::from(input.u16());
    let next_header = input.u8();
    let octets = input.rest();
    let (mut inflater, mut deflater) = (Inflater::new(), Deflater::new());
    let mut out = vec![0; bound];
    let packet = [&[next_header, 0, 0x12, 0x34], octets].concat();
    match Decompressor::new(0x1234).decompress(&mut inflater, &packet, &mut out) {
        Ok((header, len)) => {
            assert_eq!(header, next_header);
            assert!(len <= bound);
            // one octet less of room is too little, one more changes nothing
            let mut exact = vec![0; len];
            let again = Decompressor::new(0x1234).decompress(&mut inflater, &packet, &mut exact);
            assert_eq!(again, Ok((next_header, len)));
            assert_eq!(exact, out[..len]);
            if let Some(less) = len.checked_sub(1) {
                let again = Decompressor::new(0x1234).decompress(&mut inflater, &packet, &mut exact[..less]);
                assert_eq!(again, Err(IpcompError::TooLarge));
            }
        }
        Err(IpcompError::TooLarge | IpcompError::Damaged | IpcompError::Trailing) => {}
        Err(other) => panic!("{other} for a packet with a right header"),
    }
    assert_eq!(Decompressor::new(0x1235).decompress(&mut inflater, &packet, &mut out), Err(IpcompError::Cpi));
    let _ = Decompressor::new(0x1234).decompress(&mut inflater, octets, &mut out);

    let mut sent = vec![0; octets.len()];
    if let Some(len) = Compressor::new(7).compress(&mut deflater, octets, next_header, &mut sent) {
        assert!(len < octets.len() && len > HEADER_LEN && octets.len() >= MIN_LEN);
        let mut inner = vec![0; octets.len()];
        let got = Decompressor::new(7).decompress(&mut inflater, &sent[..len], &mut inner);
        assert_eq!(got, Ok((next_header, octets.len())));
        assert_eq!(inner, octets);
    }
}

/// Classifies a datagram, against the rules of RFC 3948 written down one by one.
pub fn udp_classify(data: &[u8]) {
    let expected_ike = data.len() > 4 && data[..4] == [0; 4];
    let reserved = data.len() >= 4 && data[..3] == [0; 3];
    match classify(data) {
        Datagram::Ike(message) => {
            assert!(expected_ike);
            assert_eq!(message, &data[4..]);
        }
        Datagram::Esp(spi) => {
            assert!(data.len() >= ESP_HEADER_LEN && !reserved);
            assert_eq!(spi.to_be_bytes(), data[..4]);
        }
        Datagram::Keepalive => assert_eq!(data, [0xff]),
        Datagram::Malformed => {
            assert!(!expected_ike && data != [0xff]);
            assert!(data.len() < ESP_HEADER_LEN || reserved);
        }
    }
}
