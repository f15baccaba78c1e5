//! Key exchange with `x25519-dalek`, `p256` and `p384`.

use crate::provider::{self, KeyExchange};
use crate::{CryptoError, Group, Secret, modp};
use getrandom::SysRng;
use p256::elliptic_curve::Generate;
use p256::elliptic_curve::ecdh::diffie_hellman;
use p256::elliptic_curve::sec1::ToSec1Point;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

pub(super) struct Groups;

impl provider::Groups for Groups {
    fn supports(&self, _group: Group) -> bool {
        true
    }

    fn initiate(&self, group: Group) -> Result<Box<dyn KeyExchange>, CryptoError> {
        Ok(match group {
            Group::X25519 => {
                let mut private = Zeroizing::new([0; 32]);
                getrandom::fill(private.as_mut()).map_err(|_| CryptoError::Random)?;
                Box::new(X25519::new(StaticSecret::from(*private)))
            }
            Group::Ecp256 => Box::new(Ecp256::new(
                p256::SecretKey::try_generate_from_rng(&mut SysRng).map_err(|_| CryptoError::Random)?,
            )),
            Group::Ecp384 => Box::new(Ecp384::new(
                p384::SecretKey::try_generate_from_rng(&mut SysRng).map_err(|_| CryptoError::Random)?,
            )),
            Group::Modp2048 | Group::Modp3072 | Group::Modp4096 => Box::new(modp::Exchange::generate(group)?),
        })
    }
}

/// RFC 8031.
struct X25519 {
    private: StaticSecret,
    public: x25519_dalek::PublicKey,
}

impl X25519 {
    fn new(private: StaticSecret) -> Self {
        let public = x25519_dalek::PublicKey::from(&private);
        Self { private, public }
    }
}

impl KeyExchange for X25519 {
    fn group(&self) -> Group {
        Group::X25519
    }

    fn public(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn agree(self: Box<Self>, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        let peer: [u8; 32] = peer_public.try_into().map_err(|_| CryptoError::PublicValue)?;
        let shared = self.private.diffie_hellman(&peer.into());
        // All zero: the peer's point has a small order.
        if shared.was_contributory() {
            Ok(Secret::from(shared.as_bytes().as_slice()))
        } else {
            Err(CryptoError::PublicValue)
        }
    }
}

/// RFC 5903 for one curve: the public value is x | y, the shared secret is x.
macro_rules! ecp {
    ($name:ident, $group:expr, $curve:ident) => {
        struct $name {
            private: $curve::SecretKey,
            public: Vec<u8>,
        }

        impl $name {
            fn new(private: $curve::SecretKey) -> Self {
                // SEC 1 puts 0x04 before x | y; RFC 5903 section 7 leaves it out.
                let public = private.public_key().to_sec1_point(false).as_bytes()[1..].to_vec();
                Self { private, public }
            }
        }

        impl KeyExchange for $name {
            fn group(&self) -> Group {
                $group
            }

            fn public(&self) -> &[u8] {
                &self.public
            }

            fn agree(self: Box<Self>, peer_public: &[u8]) -> Result<Secret, CryptoError> {
                if peer_public.len() != $group.public_len() {
                    return Err(CryptoError::PublicValue);
                }
                // Reading checks that the point is on the curve; the curve has no other small subgroup.
                let peer = $curve::PublicKey::from_sec1_bytes(&[&[4], peer_public].concat())
                    .map_err(|_| CryptoError::PublicValue)?;
                let shared = diffie_hellman(self.private.to_nonzero_scalar(), peer.as_affine());
                Ok(Secret::from(shared.raw_secret_bytes().as_slice()))
            }
        }
    };
}

ecp!(Ecp256, Group::Ecp256, p256);
ecp!(Ecp384, Group::Ecp384, p384);

#[cfg(test)]
pub(crate) fn with_private(group: Group, private: &[u8]) -> Box<dyn KeyExchange> {
    match group {
        Group::X25519 => Box::new(X25519::new(StaticSecret::from(<[u8; 32]>::try_from(private).unwrap()))),
        Group::Ecp256 => Box::new(Ecp256::new(p256::SecretKey::from_slice(private).unwrap())),
        Group::Ecp384 => Box::new(Ecp384::new(p384::SecretKey::from_slice(private).unwrap())),
        Group::Modp2048 | Group::Modp3072 | Group::Modp4096 => {
            Box::new(modp::Exchange::with_private(group, private))
        }
    }
}
