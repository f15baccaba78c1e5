//! Key exchange with AWS-LC.

use crate::provider::{self, KeyExchange};
use crate::{CryptoError, Group, Secret, modp};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};

pub(super) struct Groups;

impl provider::Groups for Groups {
    fn supports(&self, _group: Group) -> bool {
        true
    }

    fn initiate(&self, group: Group) -> Result<Box<dyn KeyExchange>, CryptoError> {
        Ok(match algorithm(group) {
            Some(algorithm) => Box::new(Curve::generate(group, algorithm)?),
            None => Box::new(modp::Exchange::generate(group)?),
        })
    }
}

/// `None` for the MODP groups, which AWS-LC does not offer.
fn algorithm(group: Group) -> Option<&'static agreement::Algorithm> {
    match group {
        Group::Ecp256 => Some(&agreement::ECDH_P256),
        Group::Ecp384 => Some(&agreement::ECDH_P384),
        Group::X25519 => Some(&agreement::X25519),
        Group::Modp2048 | Group::Modp3072 | Group::Modp4096 => None,
    }
}

/// X25519 (RFC 8031) or ECP (RFC 5903).
struct Curve {
    group: Group,
    private: PrivateKey,
    public: Vec<u8>,
}

impl Curve {
    fn generate(group: Group, algorithm: &'static agreement::Algorithm) -> Result<Self, CryptoError> {
        Self::new(group, PrivateKey::generate(algorithm).map_err(|_| CryptoError::Random)?)
    }

    fn new(group: Group, private: PrivateKey) -> Result<Self, CryptoError> {
        let public = private.compute_public_key().map_err(|_| CryptoError::Random)?;
        let public = public.as_ref();
        // SEC 1 puts 0x04 before x | y; RFC 5903 section 7 leaves it out.
        let public = public[public.len() - group.public_len()..].to_vec();
        Ok(Self { group, private, public })
    }
}

impl KeyExchange for Curve {
    fn group(&self) -> Group {
        self.group
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    // AWS-LC refuses points off the curve and, as RFC 7748 section 6.1 allows, an all-zero result of X25519.
    fn agree(self: Box<Self>, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        if peer_public.len() != self.group.public_len() {
            return Err(CryptoError::PublicValue);
        }
        let mut encoded = Vec::with_capacity(1 + peer_public.len());
        if self.group != Group::X25519 {
            encoded.push(4);
        }
        encoded.extend_from_slice(peer_public);
        let peer = UnparsedPublicKey::new(self.private.algorithm(), encoded);
        agreement::agree(&self.private, peer, CryptoError::PublicValue, |shared| Ok(Secret::from(shared)))
    }
}

#[cfg(test)]
pub(crate) fn with_private(group: Group, private: &[u8]) -> Box<dyn KeyExchange> {
    match algorithm(group) {
        Some(algorithm) => {
            let private = PrivateKey::from_private_key(algorithm, private).unwrap();
            Box::new(Curve::new(group, private).unwrap())
        }
        None => Box::new(modp::Exchange::with_private(group, private)),
    }
}
