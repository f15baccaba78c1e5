//! Cryptography that both `esp` and `ike` need.
//!
//! [`CryptoProvider`] is a plain value made of parts. It is passed in; it is never a global and never picked by
//! a cargo feature. Two complete providers exist: [`aws_lc::PROVIDER`] (the fastest) and
//! [`rustcrypto::PROVIDER`] (pure Rust); each is tested against the other and against published vectors.
//!
//! Errors are bad input, panics are bugs of ours.

pub mod algorithm;
pub mod aws_lc;
pub mod provider;
pub mod rustcrypto;
pub mod secret;
pub mod spi;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

mod aead;
mod cbc_lanes;
mod certificates;
mod check;
mod iv;
mod keys;
mod modp;

#[cfg(test)]
mod tests;

pub use algorithm::{Cipher, CipherSuite, Group, HashAlgorithm, Integ, Prf, SignatureScheme};
pub use provider::{
    CryptoError, CryptoProvider, KeyExchange, OpeningKey, Packet, PacketKeys, PrfKey, SealingKey,
    SecureRandom, SigningKey,
};
pub use secret::Secret;
pub use spi::Spi;

/// Both providers, the fastest first.
pub fn providers() -> [&'static CryptoProvider; 2] {
    [&aws_lc::PROVIDER, &rustcrypto::PROVIDER]
}

/// The provider of this name, as configuration writes it: `aws-lc` or `rustcrypto`.
pub fn provider_by_name(name: &str) -> Option<&'static CryptoProvider> {
    providers().into_iter().find(|provider| provider.name == name)
}
