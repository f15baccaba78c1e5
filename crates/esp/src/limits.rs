//! How much one key may protect.
//!
//! The figures follow the method of RFC 9001 section 6.6 and appendix B: whatever one SA protects gives an attacker
//! an advantage of 2^-57 at the most. The router rekeys an SA before it reaches one of them; none is a hard stop
//! here, only the end of the sequence numbers is (RFC 4303 section 3.3.3).

use ferry6_crypto::{Cipher, CipherSuite};

/// The bounds of one SA in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageLimits {
    /// Packets: what the cipher allows, and never more than 15/16 of the sequence numbers, so that a rekey has time.
    pub packets: u64,
    /// Octets of ciphertext.
    pub octets: u64,
    /// Packets whose ICV did not fit, on the receiving side.
    pub forgeries: u64,
}

impl UsageLimits {
    /// Of this suite, with or without extended sequence numbers.
    ///
    /// - AES-GCM and AES-CBC: a block cipher of 128 bits stays within 2^-57 for 2^36 blocks in all, because the
    ///   advantage is about (blocks^2) / 2^129 (draft-irtf-cfrg-aead-limits section 5.1). A packet costs its blocks and
    ///   two more (AES-GCM: the masked tag and the hash key; AES-CBC: the IV): half of the blocks bounds the packets,
    ///   half the octets.
    /// - ChaCha20-Poly1305: above any number of packets that ESP can count (RFC 9001 appendix B.2).
    /// - Forgeries: 2^52 for AES-GCM, 2^36 for ChaCha20-Poly1305 (RFC 9001 section 6.6, packets of any length);
    ///   2^(ICV bits - 57) for an HMAC.
    pub const fn of(suite: CipherSuite, esn: bool) -> Self {
        let sequence = last_sequence(esn);
        let sequence = sequence - sequence / 16;
        let (packets, octets) = match suite.cipher() {
            Cipher::ChaCha20Poly1305 => (u64::MAX, u64::MAX),
            _ => (1 << 34, (1 << 35) * 16),
        };
        let forgeries = match suite.integ() {
            None => match suite.cipher() {
                Cipher::ChaCha20Poly1305 => 1 << 36,
                _ => 1 << 52,
            },
            Some(integ) => {
                let bits = integ.icv_len() * 8 - 57;
                if bits >= 64 { u64::MAX } else { 1 << bits }
            }
        };
        Self { packets: if packets < sequence { packets } else { sequence }, octets, forgeries }
    }
}

/// The last sequence number of an SA: the counter never cycles (RFC 4303 section 3.3.3).
pub const fn last_sequence(esn: bool) -> u64 {
    if esn { u64::MAX } else { u32::MAX as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry6_crypto::Integ;

    #[test]
    fn limits_leave_room_for_a_rekey() {
        for suite in CipherSuite::all() {
            for esn in [false, true] {
                let limits = UsageLimits::of(suite, esn);
                assert!(limits.packets < last_sequence(esn) - last_sequence(esn) / 32, "{suite:?}");
                assert!(limits.octets >= 1 << 39 && limits.forgeries >= 1 << 36, "{suite:?}");
            }
        }
        let gcm = CipherSuite::new(Cipher::Aes256Gcm16, None).unwrap();
        assert_eq!(UsageLimits::of(gcm, false).packets, 0xf000_0000);
        assert_eq!(UsageLimits::of(gcm, true).packets, 1 << 34);
        let sha1 = CipherSuite::new(Cipher::Aes128Cbc, Some(Integ::HmacSha1_96)).unwrap();
        assert_eq!(UsageLimits::of(sha1, false).forgeries, 1 << 39);
    }
}
