//! PRFs and hashes with AWS-LC.

use crate::provider::{self, PrfKey};
use crate::{CryptoError, HashAlgorithm, Prf, Secret};
use aws_lc_rs::{digest, hmac};

pub(super) struct Hashes;

impl provider::Hashes for Hashes {
    fn prf(&self, prf: Prf, key: &[u8]) -> Box<dyn PrfKey> {
        let algorithm = match prf {
            Prf::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Prf::HmacSha256 => hmac::HMAC_SHA256,
            Prf::HmacSha384 => hmac::HMAC_SHA384,
            Prf::HmacSha512 => hmac::HMAC_SHA512,
        };
        Box::new(Hmac(hmac::Key::new(algorithm, key)))
    }

    fn digest(&self, hash: HashAlgorithm, parts: &[&[u8]]) -> Result<Vec<u8>, CryptoError> {
        let algorithm = match hash {
            HashAlgorithm::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            HashAlgorithm::Sha256 => &digest::SHA256,
            HashAlgorithm::Sha384 => &digest::SHA384,
            HashAlgorithm::Sha512 => &digest::SHA512,
            HashAlgorithm::Identity => return Err(CryptoError::Unsupported),
        };
        let mut context = digest::Context::new(algorithm);
        for part in parts {
            context.update(part);
        }
        Ok(context.finish().as_ref().to_vec())
    }
}

struct Hmac(hmac::Key);

impl PrfKey for Hmac {
    fn compute(&self, parts: &[&[u8]]) -> Secret {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        Secret::from(context.sign().as_ref())
    }
}
