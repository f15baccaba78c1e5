//! Our own certificate as a peer will see it, and what we trust.

use super::check::Findings;
use super::patient::Patient;
use super::settings::Local;
use crate::config::{keys, values};
use ferry6_crypto::CryptoProvider;
use ferry6_ike::certs::{self, CertError};
use ferry6_ike::config::Revocation;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

const RENEW: &str = "have a new one issued: ferry6 broker invite NAME --again for a user, ferry6 pki issue for a broker, or your CA; the peer says \
                     no more than AUTHENTICATION_FAILED";

fn crypto(patient: &Patient) -> CryptoProvider {
    match (&patient.client, &patient.broker) {
        (Some(c), _) => c.tunnel.crypto,
        (_, Some(b)) => b.tunnel.crypto,
        _ => ferry6_crypto::aws_lc::PROVIDER,
    }
}

/// Whether a file is there, but for root alone.
fn is_for_root(path: &Path) -> bool {
    !nix::unistd::geteuid().is_root()
        && fs::File::open(path).is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Dates, key, identity, usage, chain and revocation of our own.
pub(super) fn own(patient: &Patient, found: &mut Findings) {
    let crypto = crypto(patient);
    for local in patient.settings.locals() {
        let Some(path) = &local.cert else {
            found.ok("no certificate: a pre-shared key");
            continue;
        };
        match keys::certificates(path) {
            Ok(chain) => one(&crypto, &local, path, &chain, found),
            Err(_) if is_for_root(path) => found.skip(format!("{}: for root to read", path.display())),
            Err(error) => found.fail(error, "name the right file in local.cert"),
        }
    }
}

fn one(
    crypto: &CryptoProvider,
    local: &Local,
    path: &Path,
    chain: &[CertificateDer<'static>],
    found: &mut Findings,
) {
    let now = SystemTime::now();
    let leaf = &chain[0];
    let before = found.failures();
    let key = private_key(crypto, local, found);
    let check = keys::check_own(leaf, key.as_deref(), now);
    for fault in check.faults {
        let hint = if fault.contains("private key") {
            "cert and key are of two pairs: take the key that was made with this certificate"
        } else {
            RENEW
        };
        found.fail(format!("{}: {fault}", path.display()), hint);
    }
    for warning in check.warnings {
        found.warn(warning, RENEW);
    }
    // By default it is one of those that stand in the certificate.
    let own = || keys::identities(leaf).ok()?.into_iter().next().map(Ok);
    match local.id.as_deref().map(values::identity).or_else(own) {
        None => {}
        Some(Err(error)) => found.fail(format!("local.id: {error}"), "an identity that stands in the certificate"),
        Some(Ok(identity)) => match certs::check_own(leaf, &identity, now) {
            // Told above.
            Ok(()) | Err(CertError::Validity { .. }) => {}
            Err(error @ CertError::Identity { .. }) => found.fail(
                error.to_string(),
                "set local.id to one of its names, or leave it out; or have a certificate with this subjectAltName issued",
            ),
            Err(error) => found.fail(
                error.to_string(),
                "have a certificate issued whose keyUsage has digitalSignature, or that has none",
            ),
        },
    }
    if let Err(error) = certs::check_own_purposes(leaf) {
        found.warn(
            format!("{error}; ferry6 as the peer refuses it, others may"),
            "have a certificate issued with extendedKeyUsage ipsecIKE, serverAuth or clientAuth, or without any",
        );
    }
    chain_order(chain, found);
    revoked(crypto, local, chain, found);
    if found.failures() == before {
        let connection = local.connection.as_ref().map_or(String::new(), |name| format!("{name}: "));
        found.ok(format!("{connection}{}", keys::describe(leaf)));
    }
}

fn private_key(
    crypto: &CryptoProvider,
    local: &Local,
    found: &mut Findings,
) -> Option<std::sync::Arc<dyn ferry6_crypto::SigningKey>> {
    let path = local.key.as_ref().or(local.cert.as_ref())?;
    if is_for_root(path) {
        found.skip(format!(
            "{}: for root to read; whether it fits the certificate is not known",
            path.display()
        ));
        return None;
    }
    let passphrase = local.passphrase.as_deref();
    let passphrase = passphrase.map(|p| keys::secret_line(p, &keys::read_secret(p)?)).transpose();
    let octets = keys::read_secret(path);
    match passphrase.and_then(|p| keys::private_key(path, &octets?, p.as_ref(), crypto)) {
        Ok(key) => return Some(key),
        Err(error) => {
            let mode = fs::metadata(path).map_or(0, |m| m.mode() & 0o7777);
            let hint = if mode & 0o077 != 0 {
                format!("chmod 600 {}", path.display())
            } else {
                "name the right file in local.key".to_owned()
            };
            found.fail(error, hint);
        }
    }
    None
}

/// Each certificate must be followed by its issuer's, and all must be valid (RFC 7296 section 3.6).
fn chain_order(chain: &[CertificateDer<'static>], found: &mut Findings) {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    for (n, pair) in chain.windows(2).enumerate() {
        let (Ok((_, lower)), Ok((_, upper))) =
            (X509Certificate::from_der(&pair[0]), X509Certificate::from_der(&pair[1]))
        else {
            continue;
        };
        if lower.issuer().as_raw() != upper.subject().as_raw() {
            found.warn(
                format!(
                    "certificate {} of the file is not issued by the one behind it ({})",
                    n + 1,
                    upper.subject()
                ),
                "leaf first, then the CA that issued it, then that one's",
            );
        }
        if now > upper.validity().not_after.timestamp() {
            found.fail(
                format!(
                    "the CA certificate of {} in the chain expired on {}",
                    upper.subject(),
                    upper.validity().not_after
                ),
                "take the CA's new certificate into the file",
            );
        }
    }
}

/// Whether the CRLs that we have list our own certificate.
fn revoked(crypto: &CryptoProvider, local: &Local, chain: &[CertificateDer<'static>], found: &mut Findings) {
    let anchors: Vec<CertificateDer<'static>> =
        local.ca.iter().flat_map(|p| keys::certificates(p).unwrap_or_default()).collect();
    let crls: Vec<CertificateRevocationListDer<'static>> =
        local.crl.iter().flat_map(|p| keys::crls(p).unwrap_or_default()).collect();
    let Some(identity) = keys::identities(&chain[0]).ok().and_then(|list| list.into_iter().next()) else {
        return;
    };
    if anchors.is_empty() || crls.is_empty() {
        return;
    }
    let verdict =
        certs::verify_peer(crypto, chain, &identity, &anchors, &crls, Revocation::IfUri, SystemTime::now());
    if let Err(error @ CertError::Revoked { .. }) = verdict {
        found.fail(error.to_string(), "ask for a new one: ferry6 broker invite NAME --again");
    }
}

/// The CAs and CRLs that peers are held against.
pub(super) fn trust(patient: &Patient, found: &mut Findings) {
    let now = SystemTime::now();
    let before = found.failures();
    let mut names = Vec::new();
    for local in patient.settings.locals() {
        for path in &local.ca {
            match keys::certificates(path) {
                Err(_) if is_for_root(path) => found.skip(format!("{}: for root to read", path.display())),
                Err(error) => found
                    .fail(error, "name the file of the CA that issued the peer's certificate in remote.ca"),
                Ok(list) => {
                    for anchor in &list {
                        match certs::check_anchor(anchor, now) {
                            Ok(subject) => names.push(subject),
                            Err(error) => found.fail(
                                format!("{}: {error}", path.display()),
                                "take the CA's new certificate: with this one every peer is refused",
                            ),
                        }
                    }
                }
            }
        }
        for path in &local.crl {
            crl(path, local.strict, found);
        }
    }
    if found.failures() == before {
        names.dedup();
        found.ok(if names.is_empty() {
            "no CA is named: peers prove themselves by a pre-shared key".to_owned()
        } else {
            format!("peers must have a certificate of {}", names.join(" or "))
        });
    }
}

fn crl(path: &Path, strict: bool, found: &mut Findings) {
    let list = match keys::crls(path) {
        Ok(list) => list,
        Err(_) if is_for_root(path) => return found.skip(format!("{}: for root to read", path.display())),
        Err(error) => return found.fail(error, "name the CA's CRL in remote.crl"),
    };
    let now = OffsetDateTime::now_utc().unix_timestamp();
    for der in &list {
        let Ok((_, crl)) = CertificateRevocationList::from_der(der) else { continue };
        let Some(next) = crl.next_update().filter(|next| next.timestamp() < now) else { continue };
        let text = format!("{}: the CRL of {} was good until {next}", path.display(), crl.issuer());
        let hint = "fetch a new one (ferry6 pki crl), then ferry6 reload";
        if strict {
            found.fail(format!("{text}, and revocation is \"strict\": every peer is refused"), hint);
        } else {
            found.warn(text, hint);
        }
    }
}
