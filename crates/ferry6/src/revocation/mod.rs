//! Asking whether peers' certificates are revoked: OCSP, then CRLs, over HTTP, beside everything else.
//!
//! The addresses come out of certificates whose path to a configured CA was verified. Each certificate is asked about on a
//! thread of the runtime's pool; the router waits with that one peer until the answer is there or its time is over.

mod cache;
mod http;

use crate::sandbox::{self, Process};
use cache::Cache;
use ferry6_crypto::CryptoProvider;
use ferry6_crypto::SecureRandom as _;
use ferry6_crypto::provider::OsRandom;
use ferry6_ike::Connection;
use ferry6_ike::certs::CertError;
use ferry6_ike::config::{PeerAuth, Revocation};
use ferry6_ike::event::RevocationCheck;
use ferry6_ike::revocation::{MAX_CRL, MAX_OCSP, Query, Verdict};
use ferry6_tun_router::RouterHandle;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;

/// Peers that are asked about at once; more wait for their turn.
const AT_ONCE: usize = 16;
/// One question and its answer.
const REQUEST: Duration = Duration::from_secs(4);
/// What the router needs to tell the peer before its patience ends.
const MARGIN: Duration = Duration::from_secs(1);

/// Asks.
pub(crate) struct Checker {
    crypto: CryptoProvider,
    cache: Arc<Cache>,
    turns: Arc<Semaphore>,
}

impl Checker {
    /// CRLs are kept in this directory, which is made when it is needed.
    pub(crate) fn new(crypto: CryptoProvider, directory: PathBuf) -> Self {
        Self { crypto, cache: Arc::new(Cache::new(directory)), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Asks about all certificates of a peer, and tells the router.
    pub(crate) fn start(&self, check: RevocationCheck, handle: RouterHandle) {
        let (crypto, cache, turns) = (self.crypto, Arc::clone(&self.cache), Arc::clone(&self.turns));
        let until = Instant::now() + check.patience.saturating_sub(MARGIN);
        tokio::spawn(async move {
            // It is never closed.
            let Ok(_turn) = turns.acquire_owned().await else { return };
            let (ike, peer) = (check.ike, check.remote_id.clone());
            let task = move || Asker { crypto, cache: &cache, until }.all(&check.queries);
            let outcome = tokio::task::spawn_blocking(task).await.unwrap_or_else(|_| {
                // A panic, told elsewhere.
                let cause = "the check failed".to_owned();
                Err(CertError::RevocationUnknown { subject: peer.to_string(), cause })
            });
            handle.revocation_checked(ike, outcome);
        });
    }
}

/// Whether anybody may have to be asked for the peers of these connections.
pub(crate) fn is_checked(connections: &[Connection]) -> bool {
    connections.iter().any(|connection| match &connection.peer_auth {
        PeerAuth::Certificate { revocation, .. } => *revocation != Revocation::Off,
        PeerAuth::Psk(_) => false,
    })
}

/// Makes the directory of the CRLs, for the user that the daemon will run as. It is not there without: then they are kept in
/// memory only.
pub(crate) fn prepare(directory: &Path, process: &Process) {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    match made {
        Ok(()) => sandbox::give(directory, &process.run_as),
        Err(error) => tracing::debug!("{}: {error}; CRLs are kept in memory only", directory.display()),
    }
}

struct Asker<'a> {
    crypto: CryptoProvider,
    cache: &'a Cache,
    until: Instant,
}

impl Asker<'_> {
    fn all(&self, queries: &[Query]) -> Result<(), CertError> {
        queries.iter().try_for_each(|query| self.one(query))
    }

    /// What is remembered, then OCSP, whose answers are small and fresh, then the CRLs.
    fn one(&self, query: &Query) -> Result<(), CertError> {
        let now = SystemTime::now();
        if let Some(verdict) = self.cache.verdict(query.key(), now) {
            return judge(query, verdict);
        }
        let mut faults = Vec::new();
        for uri in &query.ocsp {
            match self.ocsp(query, uri) {
                Ok(verdict) => {
                    self.cache.remember(query.key(), verdict);
                    return judge(query, verdict);
                }
                Err(fault) => faults.push(format!("{uri}: {fault}")),
            }
        }
        for uri in &query.crls {
            match self.crl(query, uri) {
                Ok(verdict) => return judge(query, verdict),
                Err(fault) => faults.push(format!("{uri}: {fault}")),
            }
        }
        Err(query.unknown(faults.join("; ")))
    }

    fn patience(&self) -> Result<Duration, String> {
        let left = self.until.saturating_duration_since(Instant::now()).min(REQUEST);
        if left.is_zero() { Err("no time is left to ask it".to_owned()) } else { Ok(left) }
    }

    fn ocsp(&self, query: &Query, uri: &str) -> Result<Verdict, String> {
        let mut nonce = [0; 32];
        OsRandom.fill(&mut nonce).map_err(|e| e.to_string())?;
        let request = query.ocsp_request(&self.crypto, Some(&nonce)).map_err(|e| e.to_string())?;
        let response = http::post(uri, "application/ocsp-request", &request, MAX_OCSP, self.patience()?)?;
        query.read_ocsp(&self.crypto, &response, Some(&nonce), SystemTime::now()).map_err(|e| e.to_string())
    }

    fn crl(&self, query: &Query, uri: &str) -> Result<Verdict, String> {
        let read =
            |crl: &[u8]| query.read_crl(&self.crypto, crl, SystemTime::now()).map_err(|e| e.to_string());
        // A copy that has expired is fetched anew; so is one that was tampered with.
        if let Some(verdict) = self.cache.crl(uri).and_then(|crl| read(&crl).ok()) {
            return Ok(verdict);
        }
        let fetched = http::get(uri, MAX_CRL, self.patience()?)?;
        let crl = from_pem(fetched);
        let verdict = read(&crl)?;
        self.cache.keep_crl(uri, crl);
        Ok(verdict)
    }
}

fn judge(query: &Query, verdict: Verdict) -> Result<(), CertError> {
    if verdict.revoked { Err(query.revoked()) } else { Ok(()) }
}

/// RFC 5280 section 4.2.1.13 wants DER; some servers have PEM.
fn from_pem(octets: Vec<u8>) -> Vec<u8> {
    use rustls_pki_types::CertificateRevocationListDer;
    use rustls_pki_types::pem::PemObject;
    match CertificateRevocationListDer::from_pem_slice(&octets) {
        Ok(crl) => crl.to_vec(),
        Err(_) => octets,
    }
}

#[cfg(test)]
mod tests;
