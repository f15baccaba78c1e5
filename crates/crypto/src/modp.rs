//! The MODP groups (RFC 3526) in constant time; they serve both providers.

use crate::provider::KeyExchange;
use crate::{CryptoError, Group, Secret};
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd, Resize};
use std::sync::LazyLock;
use zeroize::{Zeroize, Zeroizing};

/// RFC 3526 sections 3, 4, 5.
const PRIME_2048: &str = include_str!("modp/2048.hex");
const PRIME_3072: &str = include_str!("modp/3072.hex");
const PRIME_4096: &str = include_str!("modp/4096.hex");

/// What a group needs that does not change. The generator of each is 2.
struct Parameters {
    prime: BoxedUint,
    montgomery: BoxedMontyParams,
    /// Octets of the private value: more than twice the strength of the group, which RFC 7919 section 5.2 reckons as
    /// 225, 275 and 325 bits.
    private_len: usize,
}

impl Parameters {
    fn new(hex: &str, private_len: usize) -> Self {
        let hex: String = hex.split_ascii_whitespace().collect();
        let bits = u32::try_from(hex.len() * 4).expect("a prime of some thousand bits");
        let prime = BoxedUint::from_be_hex(&hex, bits).expect("the constant is hexadecimal");
        let odd = Odd::new(prime.clone()).expect("the prime is odd");
        Self { prime, montgomery: BoxedMontyParams::new(odd), private_len }
    }

    fn of(group: Group) -> Option<&'static Self> {
        static MODP_2048: LazyLock<Parameters> = LazyLock::new(|| Parameters::new(PRIME_2048, 32));
        static MODP_3072: LazyLock<Parameters> = LazyLock::new(|| Parameters::new(PRIME_3072, 40));
        static MODP_4096: LazyLock<Parameters> = LazyLock::new(|| Parameters::new(PRIME_4096, 48));
        match group {
            Group::Modp2048 => Some(&MODP_2048),
            Group::Modp3072 => Some(&MODP_3072),
            Group::Modp4096 => Some(&MODP_4096),
            Group::Ecp256 | Group::Ecp384 | Group::X25519 => None,
        }
    }

    fn bits(&self) -> u32 {
        self.prime.bits_precision()
    }

    /// `base ^ exponent mod p`, padded to the length of the prime (RFC 7296 section 2.14).
    fn power(&self, base: BoxedUint, exponent: &[u8]) -> Zeroizing<Vec<u8>> {
        let bits = u32::try_from(exponent.len() * 8).expect("an exponent of some hundred bits");
        let mut exponent = BoxedUint::from_be_slice(exponent, bits).expect("the precision is the slice's");
        let base = BoxedMontyForm::new(base, &self.montgomery);
        let mut power = base.pow_bounded_exp(&exponent, bits);
        let mut value = power.retrieve();
        let octets = Zeroizing::new(value.to_be_bytes().into_vec());
        exponent.zeroize();
        power.zeroize();
        value.zeroize();
        octets
    }
}

/// One side's key pair.
pub(crate) struct Exchange {
    group: Group,
    parameters: &'static Parameters,
    private: Secret,
    public: Vec<u8>,
}

impl Exchange {
    /// # Errors
    /// [`CryptoError::Random`]; [`CryptoError::Unsupported`] for a group that is not MODP.
    pub(crate) fn generate(group: Group) -> Result<Self, CryptoError> {
        let parameters = Parameters::of(group).ok_or(CryptoError::Unsupported)?;
        let mut private = Zeroizing::new(vec![0; parameters.private_len]);
        getrandom::fill(&mut private).map_err(|_| CryptoError::Random)?;
        // The top bit is set, so that the value is never small; it costs one bit of 256 and more.
        private[0] |= 0x80;
        Ok(Self::new(group, parameters, &private))
    }

    fn new(group: Group, parameters: &'static Parameters, private: &[u8]) -> Self {
        let generator = BoxedUint::from(2_u32).resize(parameters.bits());
        let public = parameters.power(generator, private).to_vec();
        Self { group, parameters, private: Secret::from(private), public }
    }

    #[cfg(test)]
    pub(crate) fn with_private(group: Group, private: &[u8]) -> Self {
        Self::new(group, Parameters::of(group).unwrap(), private)
    }
}

impl KeyExchange for Exchange {
    fn group(&self) -> Group {
        self.group
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    // RFC 6989 section 2.1: 1 < y < p - 1. The primes are safe primes, so no other value has a small order.
    fn agree(self: Box<Self>, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        let parameters = self.parameters;
        if peer_public.len() != self.group.public_len() {
            return Err(CryptoError::PublicValue);
        }
        let peer =
            BoxedUint::from_be_slice(peer_public, parameters.bits()).map_err(|_| CryptoError::PublicValue)?;
        let one = BoxedUint::one_with_precision(parameters.bits());
        if peer <= one || peer >= parameters.prime.wrapping_sub(&one) {
            return Err(CryptoError::PublicValue);
        }
        let shared = parameters.power(peer, self.private.expose());
        Ok(Secret::from(shared.as_slice()))
    }
}

#[cfg(test)]
pub(crate) fn prime(group: Group) -> Vec<u8> {
    Parameters::of(group).unwrap().prime.to_be_bytes().into_vec()
}
