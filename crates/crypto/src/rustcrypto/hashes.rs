//! PRFs and hashes with the RustCrypto crates.

use crate::provider::{self, PrfKey};
use crate::{CryptoError, HashAlgorithm, Prf, Secret};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

pub(super) struct Hashes;

impl provider::Hashes for Hashes {
    fn prf(&self, prf: Prf, key: &[u8]) -> Box<dyn PrfKey> {
        match prf {
            Prf::HmacSha1 => Box::new(Keyed::<Hmac<Sha1>>::new(key)),
            Prf::HmacSha256 => Box::new(Keyed::<Hmac<Sha256>>::new(key)),
            Prf::HmacSha384 => Box::new(Keyed::<Hmac<Sha384>>::new(key)),
            Prf::HmacSha512 => Box::new(Keyed::<Hmac<Sha512>>::new(key)),
        }
    }

    fn digest(&self, hash: HashAlgorithm, parts: &[&[u8]]) -> Result<Vec<u8>, CryptoError> {
        Ok(match hash {
            HashAlgorithm::Sha1 => digest::<Sha1>(parts),
            HashAlgorithm::Sha256 => digest::<Sha256>(parts),
            HashAlgorithm::Sha384 => digest::<Sha384>(parts),
            HashAlgorithm::Sha512 => digest::<Sha512>(parts),
            HashAlgorithm::Identity => return Err(CryptoError::Unsupported),
        })
    }
}

fn digest<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut state = D::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().to_vec()
}

/// The state after the key; each computation starts from a copy of it.
struct Keyed<M>(M);

impl<M: Mac + KeyInit> Keyed<M> {
    fn new(key: &[u8]) -> Self {
        Self(<M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length"))
    }
}

impl<M: Mac + Clone + Send> PrfKey for Keyed<M> {
    fn compute(&self, parts: &[&[u8]]) -> Secret {
        let mut state = self.0.clone();
        for part in parts {
            state.update(part);
        }
        Secret::from(&*state.finalize().into_bytes())
    }
}
