//! The pure-Rust provider: the RustCrypto and dalek crates.

mod groups;
mod hashes;
mod packets;
mod signatures;

#[cfg(test)]
pub(crate) use groups::with_private;

pub(crate) use signatures::signing_key;

use crate::CryptoProvider;

/// The provider named `rustcrypto`.
pub static PROVIDER: CryptoProvider = CryptoProvider {
    name: "rustcrypto",
    packets: &packets::Packets,
    hashes: &hashes::Hashes,
    groups: &groups::Groups,
    signatures: &signatures::Signatures,
};
