//! Certificates, CRLs and keys in words.

use super::authority::serial_text;
use super::store;
use anyhow::{Context, bail};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use time::OffsetDateTime;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer, X509Certificate, X509Extension};
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

/// A table with its labels in one column. Control characters in what others wrote are not printed.
#[derive(Default)]
struct Table(String);

impl Table {
    fn title(&mut self, text: impl std::fmt::Display) {
        self.line("", text);
    }

    fn row(&mut self, label: &str, value: impl std::fmt::Display) {
        self.line(&format!("  {label:<12} "), value);
    }

    fn line(&mut self, start: &str, value: impl std::fmt::Display) {
        let value = value.to_string().replace(char::is_control, "\u{fffd}");
        writeln!(self.0, "{start}{value}").expect("a string takes all");
    }
}

/// All that is in a file, PEM or DER.
///
/// # Errors
/// It cannot be read, or has nothing of the kind in it.
pub fn file(path: &Path) -> anyhow::Result<String> {
    let bytes = store::read(path)?;
    let mut table = Table::default();
    let name = path.display();
    if bytes.first() == Some(&0x30) {
        der(&mut table, path, &bytes)?;
        return Ok(table.0);
    }
    let mut found = 0;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
        let (kind, content) = section.with_context(|| format!("{name} is not PEM"))?;
        let content = Zeroizing::new(content);
        if found > 0 {
            table.title("");
        }
        found += 1;
        match kind {
            SectionKind::Certificate => certificate(&mut table, path, &content)?,
            SectionKind::Crl => crl(&mut table, path, &content)?,
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                let key = PrivateKeyDer::from_pem(kind, content.to_vec()).context("a key's section")?;
                private_key(&mut table, path, key)?;
            }
            SectionKind::PublicKey => {
                table.title(format!("{name}: public key"));
                public_key(&mut table, &content)?;
            }
            other => table.title(format!("{name}: a section of PEM that is of no use here ({other:?})")),
        }
    }
    if found > 0 {
        return Ok(table.0);
    }
    if bytes.windows(27).any(|w| w == b"BEGIN ENCRYPTED PRIVATE KEY") {
        table
            .title(format!("{name}: private key, encrypted (PKCS#8): its passphrase is needed to tell more"));
        permissions(&mut table, path);
        return Ok(table.0);
    }
    bail!("{name} holds no certificate, CRL or key in PEM or DER")
}

fn der(table: &mut Table, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if X509Certificate::from_der(bytes).is_ok() {
        certificate(table, path, bytes)
    } else if CertificateRevocationList::from_der(bytes).is_ok() {
        crl(table, path, bytes)
    } else if let Ok(key) = PrivateKeyDer::try_from(bytes) {
        private_key(table, path, key.clone_key())
    } else {
        bail!("{} is DER, but no certificate, CRL or private key", path.display())
    }
}

fn certificate(table: &mut Table, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let parsed = X509Certificate::from_der(bytes);
    let (_, cert) = parsed.with_context(|| format!("{}: the certificate cannot be read", path.display()))?;
    let kind = match (cert.is_ca(), cert.subject() == cert.issuer()) {
        (true, true) => "root CA certificate",
        (true, false) => "intermediate CA certificate",
        (false, true) => "self-signed certificate",
        (false, false) => "certificate",
    };
    table.title(format!("{}: {kind}", path.display()));
    table.row("Subject", cert.subject());
    table.row("Issuer", cert.issuer());
    let names: Vec<String> = cert.extensions().iter().flat_map(names).collect();
    match (names.is_empty(), cert.is_ca()) {
        (false, _) => table.row("Names", names.join(", ")),
        (true, false) => table.row("Names", "none: no peer can be known by it"),
        (true, true) => {}
    }
    let (from, to) = (cert.validity().not_before, cert.validity().not_after);
    table.row("Valid", format!("{} to {} ({})", moment(from), moment(to), state(from, Some(to))));
    public_key(table, cert.public_key().raw)?;
    table.row("Signed", signature_name(&cert.signature_algorithm.algorithm));
    for extension in cert.extensions() {
        usage(table, extension);
    }
    table.row("Serial", serial_text(cert.raw_serial()));
    table.row("SHA-256", fingerprint(bytes)?);
    Ok(())
}

fn crl(table: &mut Table, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let parsed = CertificateRevocationList::from_der(bytes);
    let (_, crl) = parsed.with_context(|| format!("{}: the CRL cannot be read", path.display()))?;
    table.title(format!("{}: CRL", path.display()));
    table.row("Issuer", crl.issuer());
    if let Some(number) = crl.crl_number() {
        table.row("Number", number);
    }
    let next = crl.next_update().map_or("no end".into(), moment);
    table.row(
        "Valid",
        format!("{} to {next} ({})", moment(crl.last_update()), state(crl.last_update(), crl.next_update())),
    );
    let mut has_key_identifier = false;
    for extension in crl.extensions() {
        has_key_identifier |=
            matches!(extension.parsed_extension(), ParsedExtension::AuthorityKeyIdentifier(_));
        usage(table, extension);
    }
    if !has_key_identifier {
        table.row("Issuer key", "none: strongSwan ignores a CRL without an authorityKeyIdentifier");
    }
    table.row("Signed", signature_name(&crl.signature_algorithm.algorithm));
    let mut none = true;
    for revoked in crl.iter_revoked_certificates() {
        let reason = revoked.extensions().iter().find_map(|e| match e.parsed_extension() {
            ParsedExtension::ReasonCode(code) => Some(format!(", {code}")),
            _ => None,
        });
        let label = if none { "Revoked" } else { "" };
        none = false;
        let serial = serial_text(revoked.raw_serial());
        table.row(
            label,
            format!("{serial} on {}{}", moment(revoked.revocation_date), reason.unwrap_or_default()),
        );
    }
    if none {
        table.row("Revoked", "none");
    }
    Ok(())
}

fn private_key(table: &mut Table, path: &Path, key: PrivateKeyDer<'static>) -> anyhow::Result<()> {
    let form = match &key {
        PrivateKeyDer::Pkcs1(_) => "PKCS#1",
        PrivateKeyDer::Sec1(_) => "SEC1",
        _ => "PKCS#8",
    };
    let parsed = KeyPair::try_from(&key);
    let key = parsed.with_context(|| format!("{}: the private key cannot be read", path.display()))?;
    table.title(format!("{}: private key ({form}, not encrypted)", path.display()));
    public_key(table, &key.subject_public_key_info())?;
    permissions(table, path);
    Ok(())
}

/// A private key is its owner's alone.
fn permissions(table: &mut Table, path: &Path) {
    let Ok(mode) = path.metadata().map(|m| m.permissions().mode() & 0o777) else { return };
    let verdict = if mode & 0o077 == 0 { "its owner's alone" } else { "others can read it: chmod 600" };
    table.row("Mode", format!("{mode:04o}, {verdict}"));
}

fn public_key(table: &mut Table, spki: &[u8]) -> anyhow::Result<()> {
    let (_, parsed) = SubjectPublicKeyInfo::from_der(spki).context("the public key cannot be read")?;
    let algorithm = parsed.algorithm.algorithm.to_id_string();
    let curve =
        parsed.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string());
    let kind = match (algorithm.as_str(), curve.as_deref()) {
        ("1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10", _) => {
            format!("RSA, {} bits", parsed.parsed().map_or(0, |key| key.key_size()))
        }
        ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => "ECDSA on P-256".into(),
        ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => "ECDSA on P-384".into(),
        ("1.2.840.10045.2.1", Some("1.3.132.0.35")) => "ECDSA on P-521".into(),
        ("1.3.101.112", _) => "Ed25519".into(),
        ("1.3.101.113", _) => "Ed448".into(),
        (other, curve) => format!("{other} {}", curve.unwrap_or_default()),
    };
    table.row("Key", kind);
    table.row("Key SHA-256", fingerprint(spki)?);
    Ok(())
}

fn names(extension: &X509Extension<'_>) -> Vec<String> {
    match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(san) => san.general_names.iter().map(general_name).collect(),
        _ => Vec::new(),
    }
}

fn general_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::RFC822Name(text) => format!("email:{text}"),
        GeneralName::DNSName(text) => format!("dns:{text}"),
        GeneralName::URI(text) => format!("uri:{text}"),
        GeneralName::DirectoryName(text) => format!("dn:{text}"),
        GeneralName::IPAddress(octets) => match (<[u8; 4]>::try_from(*octets), <[u8; 16]>::try_from(*octets))
        {
            (Ok(v4), _) => format!("ip:{}", Ipv4Addr::from(v4)),
            (_, Ok(v6)) => format!("ip:{}", Ipv6Addr::from(v6)),
            _ => "ip: of a wrong length".into(),
        },
        other => format!("{other:?}"),
    }
}

/// The extensions that say what it may be used for, and whose key it is.
fn usage(table: &mut Table, extension: &X509Extension<'_>) {
    let critical = if extension.critical { " (critical)" } else { "" };
    match extension.parsed_extension() {
        ParsedExtension::BasicConstraints(basic) if basic.ca => {
            let depth =
                basic.path_len_constraint.map_or(String::new(), |n| format!(", at most {n} CAs below"));
            table.row("CA", format!("yes{depth}{critical}"));
        }
        ParsedExtension::KeyUsage(usage) => table.row("Usage", format!("{usage}{critical}")),
        ParsedExtension::ExtendedKeyUsage(usage) => {
            let known = [
                (usage.any, "any"),
                (usage.server_auth, "serverAuth"),
                (usage.client_auth, "clientAuth"),
                (usage.code_signing, "codeSigning"),
                (usage.email_protection, "emailProtection"),
                (usage.time_stamping, "timeStamping"),
                (usage.ocsp_signing, "OCSPSigning"),
            ];
            let known = known.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned());
            let other = usage.other.iter().map(|oid| match oid.to_id_string().as_str() {
                "1.3.6.1.5.5.7.3.17" => "ipsecIKE".into(),
                "1.3.6.1.5.5.8.2.2" => "ikeIntermediate".into(),
                oid => oid.to_owned(),
            });
            table.row("For", format!("{}{critical}", known.chain(other).collect::<Vec<_>>().join(", ")));
        }
        ParsedExtension::SubjectKeyIdentifier(id) => table.row("Key ID", serial_text(id.0)),
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            if let Some(id) = &id.key_identifier {
                table.row("Issuer key", serial_text(id.0));
            }
        }
        ParsedExtension::AuthorityInfoAccess(access) => {
            for description in &access.accessdescs {
                let what = match description.access_method.to_id_string().as_str() {
                    "1.3.6.1.5.5.7.48.1" => "OCSP at",
                    "1.3.6.1.5.5.7.48.2" => "Issuer at",
                    _ => "More at",
                };
                table.row(what, general_name(&description.access_location));
            }
        }
        ParsedExtension::CRLDistributionPoints(points) => {
            for point in points.iter() {
                if let Some(DistributionPointName::FullName(names)) = &point.distribution_point {
                    table.row("CRL at", names.iter().map(general_name).collect::<Vec<_>>().join(", "));
                }
            }
        }
        _ => {}
    }
}

fn signature_name(oid: &Oid<'_>) -> String {
    let id = oid.to_id_string();
    let name = match id.as_str() {
        "1.2.840.113549.1.1.5" => "RSA with SHA-1 (too weak: ferry6 refuses it)",
        "1.2.840.113549.1.1.10" => "RSA-PSS",
        "1.2.840.113549.1.1.11" => "RSA with SHA-256",
        "1.2.840.113549.1.1.12" => "RSA with SHA-384",
        "1.2.840.113549.1.1.13" => "RSA with SHA-512",
        "1.2.840.10045.4.3.2" => "ECDSA with SHA-256",
        "1.2.840.10045.4.3.3" => "ECDSA with SHA-384",
        "1.2.840.10045.4.3.4" => "ECDSA with SHA-512",
        "1.3.101.112" => "Ed25519",
        _ => return id,
    };
    name.into()
}

fn moment(time: ASN1Time) -> String {
    let t = time.to_datetime();
    let (date, clock) = (t.date(), (t.hour(), t.minute(), t.second()));
    format!("{date} {:02}:{:02}:{:02} UTC", clock.0, clock.1, clock.2)
}

fn state(from: ASN1Time, to: Option<ASN1Time>) -> String {
    let now = OffsetDateTime::now_utc();
    let days = |d: time::Duration| match d.whole_days() {
        0 => format!("{} hours", d.whole_hours()),
        1 => "1 day".into(),
        n => format!("{n} days"),
    };
    let (from, to) = (from.to_datetime(), to.map(|t| t.to_datetime()));
    match to {
        _ if now < from => format!("NOT YET VALID, in {}", days(from - now)),
        Some(to) if to < now => format!("EXPIRED {} ago", days(now - to)),
        Some(to) => format!("{} left", days(to - now)),
        None => "for ever".into(),
    }
}

fn fingerprint(bytes: &[u8]) -> anyhow::Result<String> {
    let crypto = ferry6_crypto::providers()[0];
    let digest = crypto.hashes.digest(ferry6_crypto::HashAlgorithm::Sha256, &[bytes])?;
    Ok(serial_text(&digest))
}
