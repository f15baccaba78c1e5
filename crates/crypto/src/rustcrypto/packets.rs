//! Packet protection with the RustCrypto crates.

use crate::aead::{Aead, InPlace};
use crate::iv::UnpredictableIvs;
use crate::provider::{OpeningKey, Packet, PacketKeys, PacketProtection, SealingKey};
use crate::{Cipher, CipherSuite, CryptoError, Integ, cbc_lanes, check};
use aes::cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit,
};
use aes::{Aes128, Aes256};
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadCore, AeadInOut, Tag};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

pub(super) struct Packets;

/// Makes the key of a suite: `$aead` and `$cbc` are told the types.
macro_rules! for_suite {
    ($keys:expr, $aead:ident, $cbc:ident) => {{
        let keys: &PacketKeys = $keys;
        check::packet_keys(keys)?;
        Ok(match (keys.suite.cipher(), keys.suite.integ()) {
            (Cipher::Aes128Gcm16, _) => $aead::<Aes128Gcm>(keys)?,
            (Cipher::Aes256Gcm16, _) => $aead::<Aes256Gcm>(keys)?,
            (Cipher::ChaCha20Poly1305, _) => $aead::<ChaCha20Poly1305>(keys)?,
            (Cipher::Aes128Cbc, Some(Integ::HmacSha1_96)) => $cbc::<Aes128, Hmac<Sha1>>(keys)?,
            (Cipher::Aes128Cbc, Some(Integ::HmacSha256_128)) => $cbc::<Aes128, Hmac<Sha256>>(keys)?,
            (Cipher::Aes128Cbc, Some(Integ::HmacSha384_192)) => $cbc::<Aes128, Hmac<Sha384>>(keys)?,
            (Cipher::Aes128Cbc, Some(Integ::HmacSha512_256)) => $cbc::<Aes128, Hmac<Sha512>>(keys)?,
            (Cipher::Aes256Cbc, Some(Integ::HmacSha1_96)) => $cbc::<Aes256, Hmac<Sha1>>(keys)?,
            (Cipher::Aes256Cbc, Some(Integ::HmacSha256_128)) => $cbc::<Aes256, Hmac<Sha256>>(keys)?,
            (Cipher::Aes256Cbc, Some(Integ::HmacSha384_192)) => $cbc::<Aes256, Hmac<Sha384>>(keys)?,
            (Cipher::Aes256Cbc, Some(Integ::HmacSha512_256)) => $cbc::<Aes256, Hmac<Sha512>>(keys)?,
            (Cipher::Aes128Cbc | Cipher::Aes256Cbc, None) => return Err(CryptoError::Unsupported),
        })
    }};
}

impl PacketProtection for Packets {
    fn sealing(&self, keys: &PacketKeys) -> Result<Box<dyn SealingKey>, CryptoError> {
        fn aead<A: PacketAead>(keys: &PacketKeys) -> Result<Box<dyn SealingKey>, CryptoError> {
            Ok(Box::new(Keyed::<A>::aead(keys)?))
        }
        fn cbc<C: PacketCipher, M: PacketMac>(keys: &PacketKeys) -> Result<Box<dyn SealingKey>, CryptoError> {
            let ivs = UnpredictableIvs::new()?;
            Ok(Box::new(CbcHmacSealing { key: CbcHmac::<C, M>::new(keys)?, ivs }))
        }
        for_suite!(keys, aead, cbc)
    }

    fn opening(&self, keys: &PacketKeys) -> Result<Box<dyn OpeningKey>, CryptoError> {
        fn aead<A: PacketAead>(keys: &PacketKeys) -> Result<Box<dyn OpeningKey>, CryptoError> {
            Ok(Box::new(Keyed::<A>::aead(keys)?))
        }
        fn cbc<C: PacketCipher, M: PacketMac>(keys: &PacketKeys) -> Result<Box<dyn OpeningKey>, CryptoError> {
            Ok(Box::new(CbcHmacOpening { key: CbcHmac::<C, M>::new(keys)? }))
        }
        for_suite!(keys, aead, cbc)
    }
}

/// An AEAD as ESP takes it: 12 octets of nonce, 16 of tag.
trait PacketAead: AeadInOut + AeadCore<NonceSize = U12, TagSize = U16> + KeyInit + Send + 'static {}
impl<A: AeadInOut + AeadCore<NonceSize = U12, TagSize = U16> + KeyInit + Send + 'static> PacketAead for A {}

/// A block cipher with AES's block.
trait PacketCipher:
    BlockCipherEncrypt
    + BlockCipherDecrypt
    + aes::cipher::BlockSizeUser<BlockSize = U16>
    + KeyInit
    + Send
    + 'static
{
}
impl PacketCipher for Aes128 {}
impl PacketCipher for Aes256 {}

/// A MAC whose keyed state can be copied.
trait PacketMac: Mac + KeyInit + Clone + Send + 'static {}
impl<M: Mac + KeyInit + Clone + Send + 'static> PacketMac for M {}

/// An AEAD's key.
struct Keyed<A>(A);

impl<A: PacketAead> Keyed<A> {
    fn aead(keys: &PacketKeys) -> Result<Aead<Self>, CryptoError> {
        Aead::new(keys.suite, keys.encryption.expose(), |key| {
            A::new_from_slice(key).map(Self).map_err(|_| CryptoError::KeyLength)
        })
    }
}

impl<A: PacketAead> InPlace for Keyed<A> {
    fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> Result<(), CryptoError> {
        let tag = self
            .0
            .encrypt_inout_detached(&nonce.into(), aad, text.into())
            .map_err(|_| CryptoError::Length)?;
        icv.copy_from_slice(&tag);
        Ok(())
    }

    fn open(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &[u8]) -> Result<(), CryptoError> {
        let tag = Tag::<A>::try_from(icv).map_err(|_| CryptoError::Length)?;
        self.0
            .decrypt_inout_detached(&nonce.into(), aad, text.into(), &tag)
            .map_err(|_| CryptoError::Integrity)
    }
}

/// AES-CBC (RFC 3602) with HMAC (RFC 2404, RFC 4868).
struct CbcHmac<C, M> {
    suite: CipherSuite,
    cipher: C,
    /// The state after the key; each packet starts from a copy of it.
    mac: M,
}

impl<C: PacketCipher, M: PacketMac> CbcHmac<C, M> {
    fn new(keys: &PacketKeys) -> Result<Self, CryptoError> {
        let cipher = C::new_from_slice(keys.encryption.expose()).map_err(|_| CryptoError::KeyLength)?;
        let mac =
            <M as KeyInit>::new_from_slice(keys.integrity.expose()).map_err(|_| CryptoError::KeyLength)?;
        Ok(Self { suite: keys.suite, cipher, mac })
    }

    /// HMAC over `aad | iv | text | suffix`.
    fn tag(&self, aad: &[u8], iv: &[u8], text: &[u8], suffix: &[u8]) -> hmac::digest::Output<M> {
        let mut mac = self.mac.clone();
        mac.update(aad);
        mac.update(iv);
        mac.update(text);
        mac.update(suffix);
        mac.finalize().into_bytes()
    }
}

struct CbcHmacSealing<C, M> {
    key: CbcHmac<C, M>,
    ivs: UnpredictableIvs,
}

impl<C: PacketCipher, M: PacketMac> SealingKey for CbcHmacSealing<C, M> {
    fn suite(&self) -> CipherSuite {
        self.key.suite
    }

    fn write_iv(&mut self, counter: u64, iv: &mut [u8]) {
        iv.copy_from_slice(&self.ivs.iv(counter));
    }

    fn seal(
        &mut self,
        aad: &[u8],
        iv: &[u8],
        text: &mut [u8],
        suffix: &[u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        check::packet(self.key.suite, iv, text, suffix, icv)?;
        let (blocks, _) = Block::<C>::slice_as_chunks_mut(text);
        cbc::Encryptor::<&C>::inner_iv_slice_init(&self.key.cipher, iv)
            .map_err(|_| CryptoError::Length)?
            .encrypt_blocks(blocks);
        let tag = self.key.tag(aad, iv, text, suffix);
        icv.copy_from_slice(&tag[..icv.len()]);
        Ok(())
    }

    fn seal_batch(&mut self, packets: &mut [Packet<'_>]) -> Result<(), CryptoError> {
        check::batch(self.key.suite, packets)?;
        let (groups, rest) = packets.as_chunks_mut();
        for group in groups {
            cbc_lanes::encrypt(&self.key.cipher, group);
            for Packet { aad, iv, text, suffix, icv } in group {
                let tag = self.key.tag(aad, iv, text, suffix);
                icv.copy_from_slice(&tag[..icv.len()]);
            }
        }
        rest.iter_mut().try_for_each(|p| self.seal(p.aad, p.iv, p.text, p.suffix, p.icv))
    }
}

/// The receiving side: nothing is decrypted before the ICV has been verified.
struct CbcHmacOpening<C, M> {
    key: CbcHmac<C, M>,
}

impl<C: PacketCipher, M: PacketMac> OpeningKey for CbcHmacOpening<C, M> {
    fn suite(&self) -> CipherSuite {
        self.key.suite
    }

    fn open(
        &mut self,
        aad: &[u8],
        iv: &[u8],
        text: &mut [u8],
        suffix: &[u8],
        icv: &[u8],
    ) -> Result<(), CryptoError> {
        check::packet(self.key.suite, iv, text, suffix, icv)?;
        let tag = self.key.tag(aad, iv, text, suffix);
        if !bool::from(tag[..icv.len()].ct_eq(icv)) {
            return Err(CryptoError::Integrity);
        }
        let (blocks, _) = Block::<C>::slice_as_chunks_mut(text);
        cbc::Decryptor::<&C>::inner_iv_slice_init(&self.key.cipher, iv)
            .map_err(|_| CryptoError::Length)?
            .decrypt_blocks(blocks);
        Ok(())
    }
}
