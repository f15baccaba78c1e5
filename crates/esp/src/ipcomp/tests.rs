use super::*;
use crate::next_header::{IPV4, IPV6};
use proptest::prelude::*;

const CPI: u16 = 0x3f21;

/// An IPv6 packet of 160 octets with text in it.
const PACKET: &str = "60000000007811402a0000000000000000000000000001012a000000000000000000000000000002\
                      d431000700780000\
                      6665727279206665727279206665727279206f7665722074686520495076342072697665722c206f\
                      7665722074686520495076342072697665722c206f766572207468652066657272792c2049507636\
                      206f7665722049507634206f7665722049507634206f76657220495076342066";

fn text(len: usize) -> Vec<u8> {
    b"the ferry carries one network across another, ".iter().copied().cycle().take(len).collect()
}

/// Octets that do not compress (xorshift).
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    })
    .take(len)
    .collect()
}

fn compress(packet: &[u8], next_header: u8) -> Option<Vec<u8>> {
    let mut out = vec![0; packet.len()];
    let len = Compressor::new(CPI).compress(&mut Deflater::new(), packet, next_header, &mut out)?;
    out.truncate(len);
    Some(out)
}

fn decompress(packet: &[u8], bound: usize) -> Result<(u8, Vec<u8>), IpcompError> {
    let mut out = vec![0; bound];
    let (next_header, len) = Decompressor::new(CPI).decompress(&mut Inflater::new(), packet, &mut out)?;
    out.truncate(len);
    Ok((next_header, out))
}

/// An IPComp packet around a stream.
fn framed(stream: &[u8]) -> Vec<u8> {
    let mut packet = vec![IPV6, 0];
    packet.extend_from_slice(&CPI.to_be_bytes());
    packet.extend_from_slice(stream);
    packet
}

/// A raw DEFLATE stream by the `flate2` defaults.
fn deflated(level: u32, window_bits: u8, octets: &[u8]) -> Vec<u8> {
    let mut state = Compress::new_with_window_bits(Compression::new(level), false, window_bits);
    let mut out = vec![0; octets.len() + 100];
    assert_eq!(state.compress(octets, &mut out, FlushCompress::Finish).unwrap(), Status::StreamEnd);
    out.truncate(state.total_out() as usize);
    out
}

#[test]
fn streams_of_the_original_zlib_inflate() {
    // zlib 1.2.13, windowBits -15
    let fixed = hex::decode(
        "4b6000820a41072d0664c0c888ca6760ba62c8c0ce50c1c090965a5454a9804ce697a516299464a42a78069499281465\
         02b93a0404c11a754072661041b02a6cac3400",
    )
    .unwrap();
    let packet = hex::decode(PACKET).unwrap();
    assert_eq!(decompress(&framed(&fixed), 1500), Ok((IPV6, packet.clone())));
    assert_eq!(decompress(&framed(&fixed), packet.len()), Ok((IPV6, packet.clone())));
    let dynamic = hex::decode(
        "edcc090100210804409105944ffba7bd0057c10930636a5a461edbc22c7039ed25b988d88a2bebb22b40127a3d5a0b73\
         626d7475224cc60b5ef00f3e",
    )
    .unwrap();
    let numbers: Vec<u8> = (0..600_usize).map(|i| (i * i % 13 + i % 5) as u8).collect();
    assert_eq!(decompress(&framed(&dynamic), 1500), Ok((IPV6, numbers)));
    // a stored block (RFC 1951 section 3.2.4)
    let mut stored = vec![1];
    stored.extend_from_slice(&160_u16.to_le_bytes());
    stored.extend_from_slice(&(!160_u16).to_le_bytes());
    stored.extend_from_slice(&packet);
    assert_eq!(decompress(&framed(&stored), 1500), Ok((IPV6, packet)));
}

#[test]
fn header_fields_stand_where_rfc_3173_section_3_1_puts_them() {
    let packet = text(1400);
    let out = compress(&packet, IPV4).unwrap();
    assert_eq!(out[..4], [4, 0, 0x3f, 0x21]);
    assert!(out.len() < packet.len() / 2);
    let mut flags = out.clone();
    flags[1] = 0xa5;
    assert_eq!(decompress(&flags, 1400), Ok((IPV4, packet)), "flags are ignored");
    let mut cpi = out;
    cpi[3] ^= 1;
    assert_eq!(decompress(&cpi, 1400), Err(IpcompError::Cpi));
}

#[test]
fn never_larger_nor_equal() {
    assert_eq!(compress(&noise(1400), IPV6), None);
    assert_eq!(compress(&text(MIN_LEN - 1), IPV6), None);
    // the less there is to gain, the nearer it comes to the bound
    for len in (MIN_LEN..400).step_by(5) {
        for plain in (0..len).step_by(7) {
            let mut packet = noise(len);
            packet[len - plain..].copy_from_slice(&text(plain));
            match compress(&packet, IPV6) {
                None => {}
                Some(out) => {
                    assert!(out.len() < packet.len(), "{len} {plain}");
                    assert_eq!(decompress(&out, len), Ok((IPV6, packet)));
                }
            }
        }
    }
}

#[test]
fn a_small_out_buffer_is_no_error() {
    let packet = text(1400);
    let whole = compress(&packet, IPV6).unwrap().len();
    for room in 0..whole {
        let mut out = vec![0; room];
        assert_eq!(
            Compressor::new(CPI).compress(&mut Deflater::new(), &packet, IPV6, &mut out),
            None,
            "{room}"
        );
    }
    let mut out = vec![0; whole];
    let fits = Compressor::new(CPI).compress(&mut Deflater::new(), &packet, IPV6, &mut out);
    assert_eq!(fits, Some(whole));
}

#[test]
fn no_match_reaches_further_than_2048_octets() {
    let mut far = noise(2500);
    far.extend_from_within(..1500);
    assert!(deflated(1, 15, &far).len() < 3000, "a window of 2^15 would find it");
    assert_eq!(compress(&far, IPV6), None);
    let mut near = noise(1500);
    near.extend_from_within(..);
    assert!(compress(&near, IPV6).unwrap().len() < 2000);
    // and what a peer with a larger window sends inflates
    assert_eq!(decompress(&framed(&deflated(9, 15, &far)), 9000), Ok((IPV6, far)));
}

#[test]
fn the_hold_off_grows_is_bounded_and_ends_with_a_success() {
    let (mut compressor, mut deflater) = (Compressor::new(CPI), Deflater::new());
    let (good, bad) = (text(1400), noise(1400));
    let mut out = vec![0; 1400];
    let mut try_one = |packet: &[u8]| {
        let skipped = compressor.skip > 0;
        (skipped, compressor.compress(&mut deflater, packet, IPV6, &mut out).is_some())
    };
    // failures in a row: three tries, then ever longer gaps
    let mut gaps = Vec::new();
    let mut gap = 0;
    while gaps.len() < 14 {
        match try_one(&bad) {
            (true, shrunk) => {
                assert!(!shrunk);
                gap += 1;
            }
            (false, shrunk) => {
                assert!(!shrunk);
                gaps.push(gap);
                gap = 0;
            }
        }
    }
    assert_eq!(gaps, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
    // text again: at the latest after the longest gap it is compressed, and every packet from then on
    let waited = (0..).take_while(|_| !try_one(&good).1).count();
    assert_eq!(waited, 256);
    for _ in 0..10 {
        assert_eq!(try_one(&good), (false, true));
    }
    // one that fails among many costs nothing
    assert_eq!(try_one(&bad), (false, false));
    assert_eq!(try_one(&good), (false, true));
}

#[test]
fn small_packets_do_not_count_as_failures() {
    let (mut compressor, mut deflater) = (Compressor::new(CPI), Deflater::new());
    let mut out = vec![0; 1400];
    for _ in 0..100 {
        assert_eq!(compressor.compress(&mut deflater, &noise(60), IPV6, &mut out), None);
    }
    assert!(compressor.compress(&mut deflater, &text(1400), IPV6, &mut out).is_some());
}

#[test]
fn a_bomb_stops_at_the_bound() {
    let bomb = framed(&deflated(9, 15, &vec![0; 1 << 20]));
    assert!(bomb.len() < 1500, "one packet on the wire, a mebibyte inflated");
    for bound in [0, 1, 1280, 65_535] {
        assert_eq!(decompress(&bomb, bound), Err(IpcompError::TooLarge), "{bound}");
    }
    let packet = text(1400);
    let out = compress(&packet, IPV6).unwrap();
    assert_eq!(decompress(&out, 1399), Err(IpcompError::TooLarge));
    assert_eq!(decompress(&out, 1400), Ok((IPV6, packet)));
}

#[test]
fn every_truncation_and_every_octet_too_many_is_an_error() {
    let out = compress(&text(1400), IPV6).unwrap();
    for len in 0..out.len() {
        let expected = if len < HEADER_LEN { IpcompError::Truncated } else { IpcompError::Damaged };
        assert_eq!(decompress(&out[..len], 1500), Err(expected), "{len}");
    }
    for octet in [0, 1, 0xff] {
        let mut longer = out.clone();
        longer.push(octet);
        assert_eq!(decompress(&longer, 1500), Err(IpcompError::Trailing));
    }
}

#[test]
fn a_failure_leaves_nothing_behind_in_the_shared_state() {
    let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
    let (mut compressor, mut decompressor) = (Compressor::new(CPI), Decompressor::new(CPI));
    let (good, bad) = (text(1400), noise(MAX_LEN));
    let mut first = vec![0; 1400];
    let len = compressor.compress(&mut deflater, &good, IPV6, &mut first).unwrap();
    first.truncate(len);
    let (mut out, mut inner) = (vec![0; 1400], vec![0; 1500]);
    for cut in 0..first.len() {
        assert_eq!(Compressor::new(CPI).compress(&mut deflater, &bad, IPV6, &mut out), None);
        let _ = decompressor.decompress(&mut inflater, &first[..cut], &mut inner);
        let got = decompressor.decompress(&mut inflater, &first, &mut inner);
        assert_eq!(got, Ok((IPV6, 1400)));
        assert_eq!(inner[..1400], good);
        // another SA with the same state: one packet does not depend on the ones before
        let again = Compressor::new(CPI).compress(&mut deflater, &good, IPV6, &mut out).unwrap();
        assert_eq!(out[..again], first);
    }
}

proptest! {
    #[test]
    fn what_was_compressed_inflates_to_the_same(
        (packet, level) in (
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..3000),
                prop::collection::vec(0..4_u8, 0..9000),
                (1..20_usize, 0..65_535_usize).prop_map(|(period, len)| (0..len).map(|i| (i % period) as u8).collect()),
            ],
            1..=9_u32,
        ),
        next_header: u8,
        cpi: u16,
    ) {
        let mut out = vec![0; packet.len() + 10];
        let sent = Compressor::new(cpi).compress(&mut Deflater::with_level(level), &packet, next_header, &mut out);
        if let Some(len) = sent {
            prop_assert!(len < packet.len());
            let mut inner = vec![0; packet.len()];
            let got = Decompressor::new(cpi).decompress(&mut Inflater::new(), &out[..len], &mut inner);
            prop_assert_eq!(got, Ok((next_header, packet.len())));
            prop_assert_eq!(inner, packet);
        }
    }

    #[test]
    fn garbage_and_bit_flips_never_panic(
        mut packet in prop::collection::vec(any::<u8>(), 0..600),
        flip in any::<prop::sample::Index>(),
        bound in 0..2000_usize,
    ) {
        let _ = decompress(&packet, bound);
        let _ = decompress(&framed(&packet), bound);
        packet.extend_from_slice(&text(200));
        if let Some(mut out) = compress(&packet, IPV6) {
            let bit = flip.index(out.len() * 8);
            out[bit / 8] ^= 1 << (bit % 8);
            if let Ok((_, inner)) = decompress(&out, bound) {
                prop_assert!(inner.len() <= bound);
            }
        }
    }
}

#[test]
fn what_was_agreed_is_told_and_no_content_is_printed() {
    assert_eq!((Compressor::new(CPI).cpi(), Decompressor::new(CPI).cpi()), (CPI, CPI));
    let printed = format!("{:?} {:?}", Deflater::default(), Inflater::default());
    assert_eq!(printed, "Deflater { .. } Inflater { .. }");
}
