//! The files of a CA: NAME.crt, NAME.key, NAME.crl, and NAME.index, which remembers what was issued and revoked.
//!
//! The index only grows, a line each, tab-separated: `issued SERIAL NOT-AFTER SUBJECT` and `revoked SERIAL TIME REASON`. A line is
//! written at once, so two runs at the same time do not harm it.

use super::authority::{Authority, Credential, Revocation, Revoked, serial_text};
use crate::config::keys;
use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, Month, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Reads `2026-01-31` (the start of that day, UTC) or `2026-01-31T12:00:00Z`.
///
/// # Errors
/// It is neither.
pub fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let mut parts = text.splitn(3, '-');
    let mut number = || parts.next()?.parse::<u16>().ok();
    let date = (|| {
        let (year, month, day) = (number()?, number()?, number()?);
        let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
        Date::from_calendar_date(year.into(), month, day.try_into().ok()?).ok()
    })();
    date.map(|date| date.midnight().assume_utc())
        .ok_or_else(|| "not a date like 2026-01-31 or a time like 2026-01-31T12:00:00Z".into())
}

/// The files that share a name.
#[derive(Clone, Debug)]
pub struct CaFiles {
    base: PathBuf,
}

impl CaFiles {
    /// Files `name.crt`, `name.key` and so on; the name may itself end in `.crt`.
    pub fn new(name: &Path) -> CaFiles {
        let known = name.extension().is_some_and(|e| e == "crt" || e == "key");
        CaFiles { base: if known { name.with_extension("") } else { name.to_owned() } }
    }

    fn file(&self, ending: &str) -> PathBuf {
        let mut name = OsString::from(&self.base);
        name.push(ending);
        name.into()
    }

    /// The certificate, PEM.
    pub fn certificate(&self) -> PathBuf {
        self.file(".crt")
    }

    /// The private key, PEM.
    pub fn key(&self) -> PathBuf {
        self.file(".key")
    }

    /// The CRL, PEM.
    pub fn crl(&self) -> PathBuf {
        self.file(".crl")
    }

    /// What was issued and revoked.
    pub fn index(&self) -> PathBuf {
        self.file(".index")
    }

    /// Nothing stands in the way of a new CA of this name.
    ///
    /// # Errors
    /// One of its files exists, and `force` is not given.
    pub fn check_free(&self, force: bool) -> anyhow::Result<()> {
        check_free(&[self.certificate(), self.key(), self.index(), self.crl()], force)
    }

    /// Nothing stands in the way of a new certificate of this name. What belongs to a CA is never overwritten by it.
    ///
    /// # Errors
    /// One of its files exists, and `force` is not given.
    pub fn check_free_credential(&self, force: bool) -> anyhow::Result<()> {
        ensure!(!self.index().exists(), "{} belongs to a CA: choose another --out", self.base.display());
        check_free(&[self.certificate(), self.key()], force)
    }

    /// Loads the CA.
    ///
    /// # Errors
    /// A file is missing, unreadable or not a CA's.
    pub fn load(&self) -> anyhow::Result<Authority> {
        let mut certificates = certificates(&self.certificate())?;
        let certificate = certificates.remove(0);
        let key = read(&self.key())?;
        let key = std::str::from_utf8(&key).with_context(|| self.key().display().to_string())?;
        Authority::load(certificate, certificates, key).with_context(|| self.base.display().to_string())
    }

    /// Writes a new CA, with an empty CRL of 30 days.
    ///
    /// # Errors
    /// A file exists and `force` is not given, or cannot be written.
    pub fn save(&self, authority: &Authority, force: bool) -> anyhow::Result<()> {
        self.check_free(force)?;
        write(&self.key(), authority.key_pem().as_bytes(), SECRET, force)?;
        write(&self.certificate(), authority.certificates_pem().as_bytes(), PUBLIC, force)?;
        write(&self.index(), b"", PUBLIC, force)?;
        let now = OffsetDateTime::now_utc();
        let crl = authority.crl(&[], now, now + Duration::days(30))?;
        write(&self.crl(), crl.as_bytes(), PUBLIC, force)
    }

    /// Writes a certificate and its key.
    ///
    /// # Errors
    /// A file exists and `force` is not given, or cannot be written.
    pub fn save_credential(&self, credential: &Credential, force: bool) -> anyhow::Result<()> {
        self.check_free_credential(force)?;
        write(&self.key(), credential.key_pem.as_bytes(), SECRET, force)?;
        write(&self.certificate(), credential.certificates_pem().as_bytes(), PUBLIC, force)
    }

    /// Remembers a certificate.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn record_issued(&self, certificate: &CertificateDer<'_>) -> anyhow::Result<()> {
        let (_, parsed) = X509Certificate::from_der(certificate).context("the certificate just made")?;
        let clean: String = parsed.subject().to_string().replace(char::is_control, "?");
        let until = parsed.validity().not_after.to_datetime().format(&Rfc3339)?;
        self.append(&format!("issued\t{}\t{until}\t{clean}\n", serial_text(parsed.raw_serial())))
    }

    /// Remembers a revocation; false if it was revoked before.
    ///
    /// # Errors
    /// The CA did not issue it, or the index cannot be read or written.
    pub fn record_revoked(&self, serial: &[u8], reason: Revocation) -> anyhow::Result<bool> {
        let text = serial_text(serial);
        let index = self.read_index()?;
        let issued = index.lines().any(|line| line.split('\t').take(2).eq(["issued", text.as_str()]));
        ensure!(issued, "{} knows of no such certificate", self.index().display());
        if self.revoked()?.iter().any(|r| r.serial == serial) {
            return Ok(false);
        }
        let now = OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?;
        let reason = reason.to_possible_value().context("a reason with a name")?;
        self.append(&format!("revoked\t{text}\t{now}\t{}\n", reason.get_name()))?;
        Ok(true)
    }

    /// All that was revoked, in the order of the serial numbers.
    ///
    /// # Errors
    /// The index cannot be read, or a line of it is malformed.
    pub fn revoked(&self) -> anyhow::Result<Vec<Revoked>> {
        let mut all = BTreeMap::new();
        for (number, line) in self.read_index()?.lines().enumerate() {
            let Some(rest) = line.strip_prefix("revoked\t") else { continue };
            let revoked = (|| {
                let mut fields = rest.split('\t');
                let serial = parse_serial(fields.next()?)?;
                let time = OffsetDateTime::parse(fields.next()?, &Rfc3339).ok()?;
                let reason = Revocation::from_str(fields.next()?, false).ok()?;
                Some(Revoked { serial, time, reason })
            })();
            let Some(revoked) = revoked else {
                bail!("{}, line {}: not `revoked SERIAL TIME REASON`", self.index().display(), number + 1)
            };
            all.entry(revoked.serial.clone()).or_insert(revoked);
        }
        Ok(all.into_values().collect())
    }

    /// Writes the CRL anew.
    ///
    /// # Errors
    /// The CA cannot be loaded, or the file not be written.
    pub fn write_crl(&self, this_update: OffsetDateTime, next_update: OffsetDateTime) -> anyhow::Result<()> {
        let crl = self.load()?.crl(&self.revoked()?, this_update, next_update)?;
        write(&self.crl(), crl.as_bytes(), PUBLIC, true)
    }

    /// The serial number that is meant: by a certificate's file, or in hexadecimal.
    ///
    /// # Errors
    /// Neither a file nor a number, or the certificate of another CA.
    pub fn serial_of(&self, certificate: &Path) -> anyhow::Result<Vec<u8>> {
        let text = certificate.to_str().unwrap_or_default();
        if !certificate.exists()
            && let Some(serial) = parse_serial(text)
        {
            return Ok(serial);
        }
        let all = certificates(certificate)?;
        let (_, parsed) =
            X509Certificate::from_der(&all[0]).with_context(|| certificate.display().to_string())?;
        let ca = self.load()?;
        let (_, issuer) = X509Certificate::from_der(ca.certificate()).context("the CA's certificate")?;
        ensure!(
            parsed.issuer() == issuer.subject(),
            "{} was issued by {}, not by {}",
            certificate.display(),
            parsed.issuer(),
            issuer.subject()
        );
        Ok(parsed.raw_serial().to_vec())
    }

    fn read_index(&self) -> anyhow::Result<String> {
        String::from_utf8(read(&self.index())?.to_vec()).with_context(|| self.index().display().to_string())
    }

    fn append(&self, line: &str) -> anyhow::Result<()> {
        let path = self.index();
        let mut file =
            OpenOptions::new().append(true).open(&path).with_context(|| path.display().to_string())?;
        file.write_all(line.as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| path.display().to_string())
    }
}

/// `4f:01:…`, or the same without colons.
fn parse_serial(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

fn check_free(files: &[PathBuf], force: bool) -> anyhow::Result<()> {
    match files.iter().find(|f| !force && f.symlink_metadata().is_ok()) {
        Some(file) => bail!("{} exists: choose another --out, or overwrite it with --force", file.display()),
        None => Ok(()),
    }
}

/// Reads a file as the daemons do.
pub(super) fn read(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    keys::read(path).map_err(anyhow::Error::msg)
}

/// The certificates of a file as the daemons read them: at least one.
fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    keys::certificates(path).map_err(anyhow::Error::msg)
}

/// Writes a file that anybody may read, as a whole or not at all; one of this name is replaced.
///
/// # Errors
/// It cannot be written.
pub fn write_public(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    write(path, content, PUBLIC, true)
}

/// Writes a file that only its owner may read, as a whole or not at all; one of this name is replaced.
///
/// # Errors
/// It cannot be written.
pub fn write_secret(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    write(path, content, SECRET, true)
}

/// Writes a file as a whole or not at all: never is there a half of it, or a key that others may read.
fn write(path: &Path, content: &[u8], mode: u32, overwrite: bool) -> anyhow::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("cannot write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(failed)?;
    file.write_all(content).with_context(failed)?;
    file.as_file().set_permissions(Permissions::from_mode(mode)).with_context(failed)?;
    file.as_file().sync_all().with_context(failed)?;
    let kept: Result<File, _> = if overwrite { file.persist(path) } else { file.persist_noclobber(path) };
    kept.map(drop).map_err(|e| e.error).with_context(failed)
}
