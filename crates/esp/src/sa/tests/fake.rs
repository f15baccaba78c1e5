//! A key that encrypts nothing, and whose ICV is a checksum of all that it should authenticate. It shows the layout of
//! packets in clear, and lets tests make packets by hand.

use ferry6_crypto::{CipherSuite, CryptoError, OpeningKey, SealingKey};

pub(super) struct FakeKey(pub(super) CipherSuite);

impl FakeKey {
    fn icv(aad: &[u8], iv: &[u8], text: &[u8], suffix: &[u8], icv: &mut [u8]) {
        let mut sum = 0xcbf2_9ce4_8422_2325_u64;
        for part in [aad, iv, text, suffix] {
            for octet in part.iter().chain(&(part.len() as u64).to_be_bytes()) {
                sum = (sum ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        for (octet, value) in icv.iter_mut().zip(sum.to_be_bytes().iter().cycle()) {
            *octet = *value;
        }
    }
}

impl SealingKey for FakeKey {
    fn suite(&self) -> CipherSuite {
        self.0
    }
    fn write_iv(&mut self, counter: u64, iv: &mut [u8]) {
        iv.fill(0);
        let low = iv.len() - 8;
        iv[low..].copy_from_slice(&counter.to_be_bytes());
    }
    fn seal(
        &mut self,
        aad: &[u8],
        iv: &[u8],
        text: &mut [u8],
        suffix: &[u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        assert_eq!(icv.len(), self.0.icv_len());
        assert_eq!(text.len() % self.0.cipher().block_len(), 0);
        assert!(suffix.is_empty() || !self.0.is_aead());
        Self::icv(aad, iv, text, suffix, icv);
        Ok(())
    }
}

impl OpeningKey for FakeKey {
    fn suite(&self) -> CipherSuite {
        self.0
    }
    fn open(
        &mut self,
        aad: &[u8],
        iv: &[u8],
        text: &mut [u8],
        suffix: &[u8],
        icv: &[u8],
    ) -> Result<(), CryptoError> {
        let mut expected = vec![0; self.0.icv_len()];
        Self::icv(aad, iv, text, suffix, &mut expected);
        if expected == icv { Ok(()) } else { Err(CryptoError::Integrity) }
    }
}
