//! A provider that protects nothing, so that fuzzers reach what lies behind the cryptography.
//!
//! It is deterministic and cheap: packets stay in the clear, any ICV and any signature is taken, key exchange is an
//! exclusive or. Only what begins with [`REFUSED`] is refused, so that the paths of failure are reached too. It
//! exists under test and with the feature `fuzzing`, which nothing that ships switches on.

use crate::certificates;
use crate::keys::{self, PrivateKey};
use crate::provider::{
    self, KeyExchange, OpeningKey, PacketKeys, PacketProtection, PrfKey, SealingKey, SigningKey,
};
use crate::{
    CipherSuite, CryptoError, CryptoProvider, Group, HashAlgorithm, Prf, Secret, SignatureScheme, check,
    rustcrypto,
};
use rustls_pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm};
use std::sync::LazyLock;

/// An ICV, a signature or a public value that begins with this octet is refused.
pub const REFUSED: u8 = 0xff;

/// The provider that protects nothing.
pub static PROVIDER: CryptoProvider = CryptoProvider {
    name: "fuzzing-without-any-protection",
    packets: &Packets,
    hashes: &Hashes,
    groups: &Groups,
    signatures: &Signatures,
};

/// FNV-1a, stretched to `len` octets: spreads its input, and nothing more.
fn mix(len: usize, parts: &[&[u8]]) -> Vec<u8> {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for octet in parts.iter().copied().flatten() {
        state = (state ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state = (state ^ (state >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        out.extend_from_slice(&state.to_be_bytes());
    }
    out.truncate(len);
    out
}

struct Packets;

struct Clear(CipherSuite);

impl PacketProtection for Packets {
    fn sealing(&self, keys: &PacketKeys) -> Result<Box<dyn SealingKey>, CryptoError> {
        check::packet_keys(keys)?;
        Ok(Box::new(Clear(keys.suite)))
    }

    fn opening(&self, keys: &PacketKeys) -> Result<Box<dyn OpeningKey>, CryptoError> {
        check::packet_keys(keys)?;
        Ok(Box::new(Clear(keys.suite)))
    }
}

impl SealingKey for Clear {
    fn suite(&self) -> CipherSuite {
        self.0
    }

    fn write_iv(&mut self, counter: u64, iv: &mut [u8]) {
        let (zeros, number) = iv.split_at_mut(iv.len() - 8);
        zeros.fill(0);
        number.copy_from_slice(&counter.to_be_bytes());
    }

    fn seal(
        &mut self,
        _aad: &[u8],
        iv: &[u8],
        text: &mut [u8],
        suffix: &[u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        check::packet(self.0, iv, text, suffix, icv)?;
        icv.fill(0);
        Ok(())
    }
}

impl OpeningKey for Clear {
    fn suite(&self) -> CipherSuite {
        self.0
    }

    fn open(
        &mut self,
        _aad: &[u8],
        iv: &[u8],
        text: &mut [u8],
        suffix: &[u8],
        icv: &[u8],
    ) -> Result<(), CryptoError> {
        check::packet(self.0, iv, text, suffix, icv)?;
        if icv.first() == Some(&REFUSED) { Err(CryptoError::Integrity) } else { Ok(()) }
    }
}

struct Hashes;

impl provider::Hashes for Hashes {
    fn prf(&self, prf: Prf, key: &[u8]) -> Box<dyn PrfKey> {
        Box::new(Keyed(prf, key.to_vec()))
    }

    fn digest(&self, hash: HashAlgorithm, parts: &[&[u8]]) -> Result<Vec<u8>, CryptoError> {
        let len = match hash {
            HashAlgorithm::Sha1 => 20,
            HashAlgorithm::Sha256 => 32,
            HashAlgorithm::Sha384 => 48,
            HashAlgorithm::Sha512 => 64,
            HashAlgorithm::Identity => return Err(CryptoError::Unsupported),
        };
        Ok(mix(len, parts))
    }
}

struct Keyed(Prf, Vec<u8>);

impl PrfKey for Keyed {
    fn compute(&self, parts: &[&[u8]]) -> Secret {
        let mut all: Vec<&[u8]> = vec![&self.1];
        all.extend_from_slice(parts);
        Secret::new(mix(self.0.output_len(), &all))
    }
}

struct Groups;

struct Pair {
    group: Group,
    public: Vec<u8>,
}

impl Pair {
    fn new(group: Group, octet: u8) -> Self {
        Self { group, public: vec![octet; group.public_len()] }
    }
}

impl provider::Groups for Groups {
    fn supports(&self, _group: Group) -> bool {
        true
    }

    fn initiate(&self, group: Group) -> Result<Box<dyn KeyExchange>, CryptoError> {
        Ok(Box::new(Pair::new(group, 0x11)))
    }

    fn respond(&self, group: Group, peer_public: &[u8]) -> Result<(Vec<u8>, Secret), CryptoError> {
        let own = Box::new(Pair::new(group, 0x22));
        Ok((own.public.clone(), own.agree(peer_public)?))
    }
}

impl KeyExchange for Pair {
    fn group(&self) -> Group {
        self.group
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        if peer_public.len() != self.public.len() || peer_public[0] == REFUSED {
            return Err(CryptoError::PublicValue);
        }
        let len = match self.group {
            Group::Ecp256 | Group::Ecp384 => peer_public.len() / 2,
            _ => peer_public.len(),
        };
        Ok(Secret::new(self.public.iter().zip(peer_public).take(len).map(|(a, b)| a ^ b).collect()))
    }
}

struct Signatures;

impl provider::Signatures for Signatures {
    fn load_key(&self, key: &PrivateKeyDer<'_>) -> Result<Box<dyn SigningKey>, CryptoError> {
        Ok(Box::new(Key(rustcrypto::signing_key(&PrivateKey::read(key)?)?)))
    }

    fn verify(
        &self,
        scheme: SignatureScheme,
        spki: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        verify(scheme, keys::public_key(spki, scheme)?, message, signature)
    }

    fn certificate_algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        static ALGORITHMS: LazyLock<certificates::Algorithms> =
            LazyLock::new(|| certificates::algorithms(verify));
        *ALGORITHMS
    }
}

fn verify(_: SignatureScheme, _: &[u8], _: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
    match signature.first() {
        None | Some(&REFUSED) => Err(CryptoError::Signature),
        Some(_) => Ok(()),
    }
}

/// A real key, which signs nothing.
struct Key(Box<dyn SigningKey>);

impl SigningKey for Key {
    fn schemes(&self) -> &[SignatureScheme] {
        self.0.schemes()
    }

    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if !self.schemes().contains(&scheme) {
            return Err(CryptoError::Unsupported);
        }
        Ok([&[0], &mix(63, &[message])[..]].concat())
    }

    fn public_key_spki(&self) -> Vec<u8> {
        self.0.public_key_spki()
    }
}
