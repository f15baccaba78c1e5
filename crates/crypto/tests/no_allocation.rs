//! Sealing and opening take nothing from the heap, whatever the suite, the provider or the outcome.

use ferry6_crypto::{CipherSuite, CryptoError, Integ, Packet, PacketKeys, Secret, providers};

#[test]
fn packets_allocate_nothing() {
    for provider in providers() {
        for suite in CipherSuite::all() {
            let keys = PacketKeys {
                suite,
                encryption: Secret::new(vec![1; suite.cipher().key_material_len()]),
                integrity: Secret::new(vec![2; suite.integ().map_or(0, Integ::key_len)]),
            };
            let mut sealing = provider.packets.sealing(&keys).unwrap();
            let mut opening = provider.packets.opening(&keys).unwrap();
            let mut texts = [[0_u8; 1408]; 9];
            let mut ivs = [[0_u8; 16]; 9];
            let mut icvs = [[0_u8; 32]; 9];
            let (iv_len, icv_len) = (suite.cipher().iv_len(), suite.icv_len());
            let counted = allocation_counter::measure(|| {
                for (counter, iv) in ivs.iter_mut().enumerate() {
                    sealing.write_iv(counter as u64, &mut iv[..iv_len]);
                }
                let [iv, ..] = &ivs;
                let ([text, ..], [icv, ..]) = (&mut texts, &mut icvs);
                let (iv, icv) = (&iv[..iv_len], &mut icv[..icv_len]);
                sealing.seal(&[3; 8], iv, text, &[], icv).unwrap();
                opening.open(&[3; 8], iv, text, &[], icv).unwrap();
                let refused = opening.open(&[4; 8], iv, text, &[], icv);
                assert_eq!(refused, Err(CryptoError::Integrity));
                let mut ivs = ivs.iter();
                let mut icvs = icvs.iter_mut();
                let mut packets = texts.each_mut().map(|text| Packet {
                    aad: &[3; 8],
                    iv: &ivs.next().unwrap()[..iv_len],
                    text,
                    suffix: &[],
                    icv: &mut icvs.next().unwrap()[..icv_len],
                });
                sealing.seal_batch(&mut packets).unwrap();
            });
            assert_eq!(counted.count_total, 0, "{} {suite:?}", provider.name);
        }
    }
}
