//! Packets take nothing from the heap; what a worker and an SA take once is bounded.

use allocation_counter::measure;
use ferry6_crypto::{CipherSuite, Integ, PacketKeys, Secret, Spi, aws_lc, rustcrypto};
use ferry6_esp::ipcomp::{Compressor, Decompressor, Deflater, Inflater};
use ferry6_esp::replay::{DEFAULT_WINDOW, ReplayWindow};
use ferry6_esp::{InboundSa, OutboundSa, Plain, next_header::IPV6, sealed_len};

#[test]
fn sealing_and_opening() {
    let spi = Spi::new(0x1234_5678).unwrap();
    for provider in [aws_lc::PROVIDER, rustcrypto::PROVIDER] {
        for suite in CipherSuite::all() {
            let keys = PacketKeys {
                suite,
                encryption: Secret::new(vec![1; suite.cipher().key_material_len()]),
                integrity: Secret::new(vec![2; suite.integ().map_or(0, Integ::key_len)]),
            };
            let mut out = OutboundSa::new(&provider, spi, &keys, true).unwrap();
            let mut inbound = InboundSa::new(&provider, spi, &keys, true, DEFAULT_WINDOW).unwrap();
            let mut packet = vec![0; sealed_len(suite, 1400)];
            let taken = measure(|| {
                for _ in 0..3 {
                    out.seal(&mut packet, 1400, IPV6).unwrap();
                    assert!(inbound.open(&mut packet).is_ok());
                    assert!(inbound.open(&mut packet).is_err());
                }
            });
            assert_eq!(taken.count_total, 0, "{} {suite:?}", provider.name);
            let mut packets = packet.repeat(10);
            let plains = [Plain { len: 1400, next_header: IPV6 }; 10];
            let taken = measure(|| out.seal_batch(&mut packets, &plains).unwrap());
            assert_eq!(taken.count_total, 0, "a batch, {} {suite:?}", provider.name);
        }
    }
}

#[test]
fn compressing_and_inflating() {
    let text: Vec<u8> = b"over the ferry ".iter().copied().cycle().take(1400).collect();
    let (mut out, mut inner) = (vec![0; 1400], vec![0; 1400]);
    let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
    let (mut compressor, mut decompressor) = (Compressor::new(300), Decompressor::new(300));
    let taken = measure(|| {
        for _ in 0..10 {
            let len = compressor.compress(&mut deflater, &text, IPV6, &mut out).unwrap();
            let got = decompressor.decompress(&mut inflater, &out[..len], &mut inner);
            assert_eq!(got, Ok((IPV6, 1400)));
            assert!(decompressor.decompress(&mut inflater, &out[..len / 2], &mut inner).is_err());
        }
    });
    assert_eq!(taken.count_total, 0, "{taken:?}");
}

#[test]
fn what_is_taken_once_is_as_the_documentation_says() {
    let kib = |work: &dyn Fn()| measure(work).bytes_max.div_ceil(1024);
    let deflater = kib(&|| drop(Deflater::new()));
    assert!((200..=350).contains(&deflater), "Deflater: {deflater} KiB");
    let inflater = kib(&|| drop(Inflater::new()));
    assert!((30..=60).contains(&inflater), "Inflater: {inflater} KiB");
    assert_eq!(kib(&|| drop(ReplayWindow::new(DEFAULT_WINDOW, true))), 1, "a window");
    assert_eq!(kib(&|| drop(ReplayWindow::new(u32::MAX, true))), 256, "the largest window");
    let small = measure(|| {
        let _ = (Compressor::new(300), Decompressor::new(300));
    });
    assert_eq!(small.count_total, 0);
}
