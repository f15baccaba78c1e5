//! What is known for a while: OCSP answers in memory, CRLs in memory and in files. All of it is bounded, and a file is worth
//! no more than what came over the network: its signature and its times are checked each time.

use ferry6_ike::revocation::{MAX_CRL, Verdict};
use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// OCSP answers that are remembered.
const MAX_VERDICTS: usize = 4096;
/// CRLs that are kept, in memory and in files.
const MAX_CRLS: usize = 32;

pub(super) struct Cache {
    directory: PathBuf,
    verdicts: Mutex<HashMap<Vec<u8>, (Verdict, SystemTime)>>,
    crls: Mutex<HashMap<String, Arc<Vec<u8>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, verdicts: Mutex::default(), crls: Mutex::default() }
    }

    /// What OCSP said about a certificate, until its nextUpdate.
    pub(super) fn verdict(&self, certificate: &[u8], now: SystemTime) -> Option<Verdict> {
        let verdicts = lock(&self.verdicts);
        verdicts.get(certificate).filter(|(_, until)| *until > now).map(|(verdict, _)| *verdict)
    }

    /// One without nextUpdate is not remembered.
    pub(super) fn remember(&self, certificate: &[u8], verdict: Verdict) {
        let Some(until) = verdict.until else { return };
        let mut verdicts = lock(&self.verdicts);
        if verdicts.len() >= MAX_VERDICTS {
            let now = SystemTime::now();
            verdicts.retain(|_, (_, until)| *until > now);
        }
        if verdicts.len() < MAX_VERDICTS {
            verdicts.insert(certificate.to_vec(), (verdict, until));
        }
    }

    /// A CRL that was fetched from this address before.
    pub(super) fn crl(&self, uri: &str) -> Option<Arc<Vec<u8>>> {
        if let Some(crl) = lock(&self.crls).get(uri) {
            return Some(Arc::clone(crl));
        }
        let file = fs::File::open(self.path(uri)).ok()?;
        let mut crl = Vec::new();
        file.take(MAX_CRL as u64).read_to_end(&mut crl).ok()?;
        Some(self.hold(uri, crl))
    }

    fn hold(&self, uri: &str, crl: Vec<u8>) -> Arc<Vec<u8>> {
        let crl = Arc::new(crl);
        let mut crls = lock(&self.crls);
        if crls.len() >= MAX_CRLS && !crls.contains_key(uri) {
            // Any one: it is in its file still, and can be fetched.
            if let Some(other) = crls.keys().next().cloned() {
                crls.remove(&other);
            }
        }
        crls.insert(uri.to_owned(), Arc::clone(&crl));
        crl
    }

    /// Keeps a CRL that was fetched and found good. Without the directory it is kept in memory only.
    pub(super) fn keep_crl(&self, uri: &str, crl: Vec<u8>) {
        let crl = self.hold(uri, crl);
        if let Err(error) = self.write(uri, &crl) {
            tracing::debug!("{}: the CRL of {uri} is not kept: {error}", self.directory.display());
        }
    }

    fn write(&self, uri: &str, crl: &[u8]) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let path = self.path(uri);
        let mut files: Vec<_> = fs::read_dir(&self.directory)?.flatten().map(|entry| entry.path()).collect();
        files.sort_by_key(|file| file.metadata().and_then(|meta| meta.modified()).ok());
        let surplus = (files.len() + 1).saturating_sub(MAX_CRLS);
        for oldest in files.iter().filter(|file| **file != path).take(surplus) {
            fs::remove_file(oldest)?;
        }
        // A reader sees the old one or the new one.
        let unfinished = tempfile::NamedTempFile::new_in(&self.directory)?;
        fs::write(unfinished.path(), crl)?;
        unfinished.persist(&path).map(drop).map_err(|error| error.error)
    }

    /// A name that follows from the address. Two that share one overwrite each other, and are then fetched each time.
    fn path(&self, uri: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        uri.hash(&mut hasher);
        let host = uri.split('/').nth(2).unwrap_or_default();
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').take(64).collect();
        self.directory.join(format!("{host}-{:016x}.crl", hasher.finish()))
    }
}
