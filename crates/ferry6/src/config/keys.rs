//! Certificates, private keys, CRLs and pre-shared keys from files.
//!
//! Each function's error is the end of a sentence that begins with file, line and key.

use base64ct::{Base64, Encoding};
use ferry6_crypto::{CryptoProvider, Secret, SigningKey};
use ferry6_ike::Identity;
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::Decode;
use pkcs8::der::SecretDocument;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};
use zeroize::Zeroizing;

/// No certificate, key or CRL file is larger than this, in octets (a CRL of 100,000 entries is about 4 MB).
const LIMIT: u64 = 64 << 20;

/// The whole of a file of a sensible size.
///
/// # Errors
/// Unreadable, or too large.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = std::fs::File::open(path).map_err(|e| cannot_read(path, &e))?;
    read_open(path, &file)
}

pub(super) fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

fn read_open(path: &Path, file: &std::fs::File) -> Result<Zeroizing<Vec<u8>>, String> {
    let meta = file.metadata().map_err(|e| cannot_read(path, &e))?;
    if meta.is_dir() {
        return Err(format!("{} is a directory", path.display()));
    }
    if meta.len() > LIMIT {
        return Err(format!("{} is larger than {LIMIT} octets", path.display()));
    }
    // With the capacity right from the start no copy of a secret is left behind by growth.
    let mut octets = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0) + 1));
    file.take(LIMIT).read_to_end(&mut octets).map_err(|e| cannot_read(path, &e))?;
    Ok(octets)
}

/// Refuses a file that others than its owner may read, or that belongs to somebody else.
///
/// # Errors
/// With the command that cures it.
fn owner_only(path: &Path, file: &std::fs::File) -> Result<(), String> {
    let meta = file.metadata().map_err(|e| cannot_read(path, &e))?;
    let me = nix::unistd::geteuid().as_raw();
    if meta.mode() & 0o077 != 0 {
        return Err(format!(
            "{} may be read by others than its owner (mode {:04o}); do: chmod 600 {}",
            path.display(),
            meta.mode() & 0o7777,
            path.display()
        ));
    }
    if meta.uid() != me && meta.uid() != 0 {
        return Err(format!(
            "{} belongs to user {}, not to user {me} or root; do: chown {me} {}",
            path.display(),
            meta.uid(),
            path.display()
        ));
    }
    Ok(())
}

/// Checks that the configuration itself, which holds a secret, is its owner's alone.
///
/// # Errors
/// With the command that cures it.
pub fn check_owner_only(path: &Path) -> Result<(), String> {
    let file = std::fs::File::open(path).map_err(|e| cannot_read(path, &e))?;
    owner_only(path, &file)
}

/// An open file with a secret.
///
/// # Errors
/// Unreadable, or readable by others.
pub(super) fn secret_file(path: &Path, file: &std::fs::File) -> Result<Zeroizing<Vec<u8>>, String> {
    owner_only(path, file)?;
    read_open(path, file)
}

/// A file with a secret, by its name.
///
/// # Errors
/// Unreadable, or readable by others.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = std::fs::File::open(path).map_err(|e| cannot_read(path, &e))?;
    secret_file(path, &file)
}

/// The first line of a file that was read, for passphrases and pre-shared keys.
///
/// # Errors
/// Nothing in it.
pub fn secret_line(path: &Path, octets: &[u8]) -> Result<Secret, String> {
    let line = octets.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(format!("{}: the first line is empty", path.display()));
    }
    Ok(Secret::from(line))
}

/// A pre-shared key as swanctl writes it: text, `0x` and hex, or `0s` and base64.
///
/// # Errors
/// Text that is not what its prefix says, or a key shorter than 8 octets.
pub fn psk(text: &[u8]) -> Result<Secret, String> {
    let secret = if let Some(hex) = text.strip_prefix(b"0x") {
        if hex.len() % 2 != 0 {
            return Err("a hexadecimal pre-shared key needs an even number of digits".to_owned());
        }
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let octets: Option<Vec<u8>> =
            hex.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
        Secret::new(octets.ok_or("a pre-shared key that begins with 0x must be hexadecimal")?)
    } else if let Some(base64) = text.strip_prefix(b"0s") {
        let text = std::str::from_utf8(base64).map_err(|_| "not base64")?;
        Secret::new(
            Base64::decode_vec(text).map_err(|_| "a pre-shared key that begins with 0s must be base64")?,
        )
    } else {
        Secret::from(text)
    };
    if secret.len() < 8 {
        return Err(format!(
            "a pre-shared key of {} octets is guessed in no time; make one: head -c 32 /dev/urandom | base64",
            secret.len()
        ));
    }
    Ok(secret)
}

/// PKCS#12 (PFX): SEQUENCE { INTEGER 3, .. }.
fn is_pkcs12(octets: &[u8]) -> bool {
    let header = match octets {
        [0x30, n, ..] if *n < 0x80 => 2,
        [0x30, n, ..] => 2 + usize::from(n & 0x7f),
        _ => return false,
    };
    octets.get(header..header + 3) == Some(&[2, 1, 3])
}

fn refuse_pkcs12(path: &Path, octets: &[u8]) -> Result<(), String> {
    if is_pkcs12(octets) {
        let p = path.display();
        return Err(format!(
            "{p} is PKCS#12, which is not supported; do: openssl pkcs12 -in {p} -nodes -out both.pem, and use both.pem \
             (mode 600) for cert and key"
        ));
    }
    Ok(())
}

fn is_pem(octets: &[u8]) -> bool {
    octets.windows(11).any(|w| w == b"-----BEGIN ")
}

/// All that a file holds of one kind: PEM, one or several, or one in DER.
fn items<T: PemObject + From<Vec<u8>>>(path: &Path, octets: &[u8]) -> Result<Vec<T>, String> {
    if is_pem(octets) {
        T::pem_slice_iter(octets)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("{} is not right PEM: {e}", path.display()))
    } else {
        Ok(vec![T::from(octets.to_vec())])
    }
}

/// All certificates of a file: PEM, one or a bundle, or one in DER. Each is parsed.
///
/// # Errors
/// Unreadable, or no certificate.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let octets = read(path)?;
    refuse_pkcs12(path, &octets)?;
    let list: Vec<CertificateDer<'static>> = items(path, &octets)?;
    if list.is_empty() {
        return Err(format!("{} holds no certificate (no BEGIN CERTIFICATE)", path.display()));
    }
    for (n, certificate) in list.iter().enumerate() {
        parse(certificate).map_err(|e| format!("{}: certificate {}: {e}", path.display(), n + 1))?;
    }
    Ok(list)
}

/// All CRLs of a file: PEM, one or several, or one in DER.
///
/// # Errors
/// Unreadable, or no CRL.
pub fn crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let list: Vec<CertificateRevocationListDer<'static>> = items(path, &read(path)?)?;
    if list.is_empty() {
        return Err(format!("{} holds no CRL (no BEGIN X509 CRL)", path.display()));
    }
    for (n, crl) in list.iter().enumerate() {
        ferry6_ike::certs::check_crl(crl).map_err(|e| format!("{}: CRL {}: {e}", path.display(), n + 1))?;
    }
    Ok(list)
}

/// A private key out of a file that was read: PKCS#8 (perhaps encrypted), PKCS#1 or SEC1, in PEM or PKCS#8 DER.
///
/// # Errors
/// No key, wrong or missing passphrase, or a kind that the provider does not take.
pub fn private_key(
    path: &Path,
    octets: &[u8],
    passphrase: Option<&Secret>,
    crypto: &CryptoProvider,
) -> Result<Arc<dyn SigningKey>, String> {
    let p = path.display();
    refuse_pkcs12(path, octets)?;
    let der = if is_pem(octets) {
        let text = std::str::from_utf8(octets).map_err(|_| format!("{p} is not text"))?;
        if let Some(start) = text.find("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            let (_, document) =
                SecretDocument::from_pem(&text[start..]).map_err(|e| format!("{p} is not right PEM: {e}"))?;
            decrypt(path, document.as_bytes(), passphrase)?
        } else if text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(format!(
                "{p} is encrypted in OpenSSL's old way; do: openssl pkcs8 -topk8 -in {p} -out new.key, \
                 and name the passphrase's file in key_passphrase_file"
            ));
        } else if text.contains("-----BEGIN OPENSSH PRIVATE KEY-----") {
            return Err(format!("{p} is an OpenSSH key; do: ssh-keygen -p -m PKCS8 -f {p}"));
        } else {
            PrivateKeyDer::from_pem_slice(octets)
                .map_err(|e| format!("{p} holds no private key (PKCS#8, PKCS#1 or SEC1 in PEM): {e}"))?
        }
    } else if EncryptedPrivateKeyInfoRef::from_der(octets).is_ok() {
        decrypt(path, octets, passphrase)?
    } else {
        PrivateKeyDer::try_from(octets.to_vec()).map_err(|e| format!("{p} holds no private key: {e}"))?
    };
    let key = crypto.signatures.load_key(&der).map_err(|e| format!("{p}: {e}"))?;
    Ok(Arc::from(key))
}

fn decrypt(path: &Path, der: &[u8], passphrase: Option<&Secret>) -> Result<PrivateKeyDer<'static>, String> {
    let p = path.display();
    let info = EncryptedPrivateKeyInfoRef::from_der(der)
        .map_err(|e| format!("{p}: encrypted in a way that is not supported: {e}"))?;
    let passphrase = passphrase
        .ok_or_else(|| format!("{p} is encrypted; name a file with its passphrase: key_passphrase_file"))?;
    let plain = info
        .decrypt(passphrase.expose())
        .map_err(|e| format!("{p}: wrong passphrase, or an encryption other than PBES2 with AES ({e})"))?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec())))
}

fn parse<'c>(certificate: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, String> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|e| format!("cannot be parsed: {e}"))?;
    if rest.is_empty() { Ok(parsed) } else { Err("has octets behind its end".to_owned()) }
}

/// The identities that a certificate stands for: those of its SAN in order, then its subject.
///
/// # Errors
/// A certificate that cannot be parsed.
pub fn identities(certificate: &CertificateDer<'_>) -> Result<Vec<Identity>, String> {
    let parsed = parse(certificate)?;
    let mut list = Vec::new();
    for extension in parsed.extensions() {
        let ParsedExtension::SubjectAlternativeName(san) = extension.parsed_extension() else { continue };
        for name in &san.general_names {
            match name {
                GeneralName::RFC822Name(s) => list.push(Identity::Rfc822((*s).to_owned())),
                GeneralName::DNSName(s) => list.push(Identity::Fqdn((*s).to_owned())),
                GeneralName::IPAddress(octets) => {
                    if let Ok(v4) = <[u8; 4]>::try_from(*octets) {
                        list.push(Identity::Ipv4(Ipv4Addr::from(v4)));
                    } else if let Ok(v6) = <[u8; 16]>::try_from(*octets) {
                        list.push(Identity::Ipv6(Ipv6Addr::from(v6)));
                    }
                }
                GeneralName::DirectoryName(dn) => list.push(Identity::Dn(dn.as_raw().to_vec())),
                _ => {}
            }
        }
    }
    if parsed.subject().iter().next().is_some() {
        list.push(Identity::Dn(parsed.subject().as_raw().to_vec()));
    }
    Ok(list)
}

/// What is wrong with our own certificate now, and what should be seen.
pub struct CertificateCheck {
    /// Faults.
    pub faults: Vec<String>,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// Checks our own leaf against its key and the clock.
pub fn check_own(
    certificate: &CertificateDer<'_>,
    key: Option<&dyn SigningKey>,
    now: SystemTime,
) -> CertificateCheck {
    let mut check = CertificateCheck { faults: Vec::new(), warnings: Vec::new() };
    let parsed = match parse(certificate) {
        Ok(parsed) => parsed,
        Err(text) => {
            check.faults.push(text);
            return check;
        }
    };
    let subject = parsed.subject().to_string();
    if key.is_some_and(|k| k.public_key_spki() != parsed.tbs_certificate.subject_pki.raw) {
        check.faults.push(format!("the private key does not belong to the certificate of {subject:?}"));
    }
    let validity = parsed.validity();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        check.faults.push(format!(
            "the certificate of {subject:?} is not valid before {}; is this machine's clock right?",
            validity.not_before
        ));
    } else if now > validity.not_after.timestamp() {
        check.faults.push(format!("the certificate of {subject:?} expired on {}", validity.not_after));
    } else if validity.not_after.timestamp() - now < 14 * 86_400 {
        check.warnings.push(format!("the certificate of {subject:?} expires on {}", validity.not_after));
    }
    if parsed.is_ca() {
        check.faults.push(format!("the certificate of {subject:?} is a CA's; an own certificate is needed"));
    }
    check
}

/// The chain without self-signed certificates; its first stays in any case.
pub fn without_roots(chain: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
    let root = |c: &CertificateDer<'_>| parse(c).is_ok_and(|p| p.subject().as_raw() == p.issuer().as_raw());
    chain.into_iter().enumerate().filter(|(n, c)| *n == 0 || !root(c)).map(|(_, c)| c).collect()
}

/// The subject, for people.
pub fn subject(certificate: &CertificateDer<'_>) -> String {
    parse(certificate).map_or_else(|e| e, |c| c.subject().to_string())
}

/// The last moment of validity, for people.
pub fn valid_until(certificate: &CertificateDer<'_>) -> String {
    parse(certificate).map_or_else(|e| e, |c| c.validity().not_after.to_string())
}

/// Subject and end of validity, for `--check`.
pub fn describe(certificate: &CertificateDer<'_>) -> String {
    parse(certificate).map_or_else(
        |e| e,
        |c| format!("{}, issued by {}, valid until {}", c.subject(), c.issuer(), c.validity().not_after),
    )
}
