//! Checks of lengths that both providers make before they touch a packet.

use crate::provider::{Packet, PacketKeys};
use crate::{CipherSuite, CryptoError};

/// The key material has the suite's lengths.
pub(crate) fn packet_keys(keys: &PacketKeys) -> Result<(), CryptoError> {
    let integrity = keys.suite.integ().map_or(0, crate::Integ::key_len);
    if keys.encryption.len() == keys.suite.cipher().key_material_len() && keys.integrity.len() == integrity {
        Ok(())
    } else {
        Err(CryptoError::KeyLength)
    }
}

/// IV, text, suffix and ICV of a packet have the suite's lengths.
pub(crate) fn packet(
    suite: CipherSuite,
    iv: &[u8],
    text: &[u8],
    suffix: &[u8],
    icv: &[u8],
) -> Result<(), CryptoError> {
    let cipher = suite.cipher();
    let fits = iv.len() == cipher.iv_len()
        && icv.len() == suite.icv_len()
        && text.len().is_multiple_of(cipher.block_len())
        && (suffix.is_empty() || !cipher.is_aead());
    if fits { Ok(()) } else { Err(CryptoError::Length) }
}

/// The same for every packet of a batch.
pub(crate) fn batch(suite: CipherSuite, packets: &[Packet<'_>]) -> Result<(), CryptoError> {
    packets.iter().try_for_each(|p| packet(suite, p.iv, p.text, p.suffix, p.icv))
}
