//! A batch is what its packets are one by one.

use super::*;
use crate::next_header::IPCOMP;
use ferry6_crypto::{Secret, aws_lc, rustcrypto};

/// Payloads of several lengths, as a batch in its buffer.
fn batch(sa: &OutboundSa, count: usize) -> (Vec<u8>, Vec<Plain>, Vec<Vec<u8>>) {
    let payloads: Vec<Vec<u8>> = (0..count).map(|i| vec![i as u8 + 1; 40 + i * 37 % 90]).collect();
    let plains: Vec<Plain> = payloads
        .iter()
        .enumerate()
        .map(|(i, payload)| Plain { len: payload.len(), next_header: if i % 3 == 0 { IPCOMP } else { IPV6 } })
        .collect();
    let mut buffer = Vec::new();
    for payload in &payloads {
        let start = buffer.len();
        buffer.resize(start + sa.sealed_len(payload.len()), 0xaa);
        buffer[start + sa.overhead().front..][..payload.len()].copy_from_slice(payload);
    }
    (buffer, plains, payloads)
}

#[test]
fn each_packet_opens_in_turn() {
    for provider in [aws_lc::PROVIDER, rustcrypto::PROVIDER] {
        for suite in CipherSuite::all() {
            let keys = PacketKeys {
                suite,
                encryption: Secret::new(vec![1; suite.cipher().key_material_len()]),
                integrity: Secret::new(vec![2; suite.integ().map_or(0, Integ::key_len)]),
            };
            for esn in [false, true] {
                let mut sa = OutboundSa::new(&provider, SPI, &keys, esn).unwrap();
                let mut peer = InboundSa::new(&provider, SPI, &keys, esn, 64).unwrap();
                let mut sequence = 0;
                for count in [0, 1, 7, 8, 9, 16, 21] {
                    let (mut buffer, plains, payloads) = batch(&sa, count);
                    buffer.extend([0xaa; 50]);
                    sa.seal_batch(&mut buffer, &plains).unwrap();
                    let mut rest = &mut buffer[..];
                    for (plain, payload) in plains.iter().zip(&payloads) {
                        let (packet, behind) = rest.split_at_mut(crate::sealed_len(suite, plain.len));
                        sequence += 1;
                        let opened = peer.open(packet).unwrap();
                        assert_eq!(opened.payload, payload);
                        assert_eq!((opened.next_header, opened.sequence), (plain.next_header, sequence));
                        rest = behind;
                    }
                    assert_eq!(rest, [0xaa; 50], "it wrote behind the packets");
                }
            }
        }
    }
}

#[test]
fn all_or_nothing_where_numbers_or_room_end() {
    for suite in [gcm(), cbc()] {
        let (mut sa, _) = pair(suite, false);
        let (mut buffer, plains, _) = batch(&sa, 10);
        let len = buffer.len();
        assert_eq!(sa.seal_batch(&mut buffer[..len - 1], &plains), Err(SealError::Room));
        let huge = Plain { len: usize::MAX, next_header: IPV6 };
        assert_eq!(sa.seal_batch(&mut buffer, &[huge; 9]), Err(SealError::Room));
        assert_eq!(sa.packets(), 0);
        sa.sequence = u64::from(u32::MAX) - 9;
        assert_eq!(sa.seal_batch(&mut buffer, &plains), Err(SealError::Exhausted));
        assert_eq!(sa.remaining(), 9);
        assert_eq!(sa.seal_batch(&mut buffer, &plains[..9]), Ok(()));
        assert_eq!(sa.remaining(), 0);
    }
}
