//! Stateless cookies (RFC 7296 section 2.6).

use ferry6_crypto::{CryptoError, CryptoProvider, Prf, Secret, SecureRandom};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a secret makes new cookies; it verifies them for as long again.
const ROTATE: Duration = Duration::from_secs(60);

/// Cookie = version of the secret | prf(secret, Ni | IPi | port | SPIi), as section 2.6 proposes: to verify one takes one
/// computation. Nothing is stored for it.
pub(crate) struct Cookies {
    version: u8,
    current: Secret,
    previous: Option<Secret>,
    since: Instant,
}

impl Cookies {
    fn fresh(random: &mut dyn SecureRandom) -> Result<Secret, CryptoError> {
        let mut secret = vec![0; 32];
        random.fill(&mut secret)?;
        Ok(Secret::new(secret))
    }

    pub(crate) fn new(random: &mut dyn SecureRandom, now: Instant) -> Result<Self, CryptoError> {
        Ok(Self { version: 0, current: Self::fresh(random)?, previous: None, since: now })
    }

    fn rotate(&mut self, random: &mut dyn SecureRandom, now: Instant) -> Result<(), CryptoError> {
        let age = now.saturating_duration_since(self.since);
        if age >= ROTATE {
            let fresh = Self::fresh(random)?;
            let old = std::mem::replace(&mut self.current, fresh);
            self.previous = (age < 2 * ROTATE).then_some(old);
            self.version = self.version.wrapping_add(1);
            self.since = now;
        }
        Ok(())
    }

    fn compute(crypto: &CryptoProvider, secret: &Secret, asker: &Asker<'_>) -> Secret {
        crypto.hashes.prf(Prf::HmacSha256, secret.expose()).compute(&[
            asker.nonce,
            &crate::nat::octets(asker.from.ip()),
            &asker.from.port().to_be_bytes(),
            &asker.spi.to_be_bytes(),
        ])
    }

    /// The cookie to ask for.
    pub(crate) fn make(
        &mut self,
        crypto: &CryptoProvider,
        random: &mut dyn SecureRandom,
        now: Instant,
        asker: &Asker<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        self.rotate(random, now)?;
        let mut cookie = vec![self.version];
        cookie.extend_from_slice(Self::compute(crypto, &self.current, asker).expose());
        Ok(cookie)
    }

    /// Whether a cookie that came back is one of ours for this sender.
    pub(crate) fn verify(
        &mut self,
        crypto: &CryptoProvider,
        random: &mut dyn SecureRandom,
        now: Instant,
        asker: &Asker<'_>,
        cookie: &[u8],
    ) -> Result<bool, CryptoError> {
        self.rotate(random, now)?;
        let Some((version, cookie)) = cookie.split_first() else { return Ok(false) };
        let secret = match self.version.wrapping_sub(*version) {
            0 => Some(&self.current),
            1 => self.previous.as_ref(),
            _ => None,
        };
        Ok(secret.is_some_and(|secret| Self::compute(crypto, secret, asker).ct_eq(cookie)))
    }
}

/// Whom a cookie is for.
pub(crate) struct Asker<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) spi: u64,
    pub(crate) nonce: &'a [u8],
}
