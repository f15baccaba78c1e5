//! The fast provider: AWS-LC through `aws-lc-rs`.
//!
//! What AWS-LC does not have comes from the other provider's libraries: the MODP groups, and signing with
//! RSA-SHA-1 or with a hash that is not the curve's usual one. AES-GCM for packets is ring's where that is faster.

mod gcm;
mod groups;
mod hashes;
mod packets;
mod signatures;

#[cfg(test)]
pub(crate) use groups::with_private;

use crate::CryptoProvider;

/// The provider named `aws-lc`.
pub static PROVIDER: CryptoProvider = CryptoProvider {
    name: "aws-lc",
    packets: &packets::Packets,
    hashes: &hashes::Hashes,
    groups: &groups::Groups,
    signatures: &signatures::Signatures,
};

/// Whether AES-GCM for packets is ring's on this processor, rather than AWS-LC's.
pub fn aes_gcm_is_rings() -> bool {
    gcm::is_faster()
}
