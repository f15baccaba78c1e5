//! Certificates of peers: path, validity, revocation, key usage, and the identity in the SAN (RFC 4945).
//!
//! `webpki` builds and verifies the path. Done here: what it leaves to its caller (KeyUsage, anchors that are no CA or
//! have expired, which CRL counts), the IKE purposes in ExtendedKeyUsage, the identity, and an error that says which
//! certificate is at fault.

use crate::config::Revocation;
use crate::dn;
use crate::identity::Identity;
use crate::revocation::Query;
use crate::wire::cert::encoding;
use ferry6_crypto::{CryptoProvider, HashAlgorithm};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy,
    ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, RevocationOptionsBuilder, UnknownStatusPolicy,
    VerifiedPath,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::{OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

/// Certificates that a peer may send: the leaf and five CAs between it and the anchor.
pub const MAX_CHAIN: usize = 6;
/// Octets of one certificate at most.
pub const MAX_CERTIFICATE: usize = 16 * 1024;
/// Characters of a stranger's name, or of all names in a SAN, in an error.
const MAX_NAME: usize = 300;

/// Why a certificate is refused: the text names the certificate's subject, the cause, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertError {
    /// No CERT payload came.
    #[error("the peer sent no certificate")]
    None,
    /// It cannot be read.
    #[error("certificate cannot be read: {0}")]
    Unreadable(String),
    /// Not before, not after.
    #[error("certificate of {subject} has expired or is not yet valid ({period})")]
    Validity {
        /// Subject.
        subject: String,
        /// From, to.
        period: String,
    },
    /// No anchor.
    #[error("certificate of {subject} is issued by {issuer}, which is not one of the trusted CAs")]
    UnknownCa {
        /// Subject.
        subject: String,
        /// Issuer.
        issuer: String,
    },
    /// On a CRL.
    #[error("certificate of {subject} is revoked")]
    Revoked {
        /// Subject.
        subject: String,
    },
    /// Its CRL or OCSP responder was asked, and gave no answer that counts.
    #[error(
        "whether the certificate of {subject} is revoked is not known, and the policy wants to know: {cause}"
    )]
    RevocationUnknown {
        /// Subject.
        subject: String,
        /// Cause.
        cause: String,
    },
    /// Strict, and no fresh CRL.
    #[error(
        "no fresh CRL for {subject}, which names no OCSP responder and no CRL to fetch, and the revocation policy is strict"
    )]
    NoCrl {
        /// Subject.
        subject: String,
    },
    /// The ID is not in the SAN.
    #[error("identity {identity} does not stand in the certificate of {subject} (it has: {names})")]
    Identity {
        /// ID payload.
        identity: String,
        /// Subject.
        subject: String,
        /// SAN entries.
        names: String,
    },
    /// KeyUsage, EKU, or another extension forbids it.
    #[error("certificate of {subject} may not be used for IKE: {problem}")]
    Usage {
        /// Subject.
        subject: String,
        /// Cause.
        problem: String,
    },
    /// A bad signature in the chain, or anything else.
    #[error("certificate of {subject}: {problem}")]
    Other {
        /// Subject.
        subject: String,
        /// Cause.
        problem: String,
    },
}

/// The chain out of CERT payloads, given as encoding and data in the order in which they came: the first X.509
/// certificate is the leaf (RFC 7296 section 3.6). Encodings that are not known, and CRLs, are skipped.
///
/// # Errors
/// [`CertError::None`]; [`CertError::Unreadable`] where the peer sent only encodings that are not supported, as hash and
/// URL (we never announce HTTP_CERT_LOOKUP_SUPPORTED), or more certificates than [`MAX_CHAIN`].
pub fn chain_from_payloads<'a>(
    payloads: impl IntoIterator<Item = (u8, &'a [u8])>,
) -> Result<Vec<CertificateDer<'a>>, CertError> {
    let mut chain = Vec::new();
    let mut skipped = None;
    for (encoding, data) in payloads {
        if encoding != encoding::X509_SIGNATURE {
            skipped = skipped.or(Some(encoding));
        } else if chain.len() == MAX_CHAIN {
            return Err(CertError::Unreadable(format!("the peer sent more than {MAX_CHAIN} certificates")));
        } else {
            chain.push(CertificateDer::from(data));
        }
    }
    match (chain.is_empty(), skipped) {
        (false, _) => Ok(chain),
        (true, None) => Err(CertError::None),
        (true, Some(number)) => {
            let name = encoding::name(number).map_or_else(|| format!("encoding {number}"), str::to_owned);
            Err(CertError::Unreadable(format!(
                "the peer sent it as {name}; only X509_SIGNATURE (4) is taken"
            )))
        }
    }
}

/// A chain that leads to a trusted CA, and whose leaf is the peer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The leaf's SubjectPublicKeyInfo in DER.
    pub spki: Vec<u8>,
    /// Of which certificates the status must still be asked for: `Good` for each, or the peer is refused.
    pub queries: Vec<Query>,
}

/// Verifies a peer's chain (leaf first, as the CERT payloads came) and its identity.
///
/// A leaf that is itself one of the anchors is trusted as it stands (self-signed certificates, pinned ones), if it is
/// valid and may be used; neither CRL nor OCSP is asked for it, for it is revoked by taking the anchor away. An anchor that is no CA
/// vouches for nobody else.
///
/// # Errors
/// [`CertError`].
pub fn verify_peer(
    crypto: &CryptoProvider,
    chain: &[CertificateDer<'_>],
    identity: &Identity,
    anchors: &[CertificateDer<'_>],
    crls: &[CertificateRevocationListDer<'_>],
    revocation: Revocation,
    wall: SystemTime,
) -> Result<Verified, CertError> {
    let (leaf_der, intermediates) = chain.split_first().ok_or(CertError::None)?;
    if chain.len() > MAX_CHAIN {
        return Err(CertError::Unreadable(format!("the peer sent more than {MAX_CHAIN} certificates")));
    }
    let now = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let leaf = read(leaf_der)?;
    check_validity(&leaf, now)?;
    check_end_entity_usage(&leaf)?;
    let queries = if anchors.iter().any(|anchor| anchor == leaf_der) {
        check_pinned(&leaf)?;
        Vec::new()
    } else {
        verify_path(crypto, leaf_der, &leaf, intermediates, anchors, crls, revocation, now)?
    };
    check_identity(&leaf, identity)?;
    Ok(Verified { spki: leaf.public_key().raw.to_vec(), queries })
}

/// The content of a CERTREQ payload: SHA-1 of each anchor's SubjectPublicKeyInfo (RFC 7296 section 3.7). An anchor that
/// cannot be read is left out.
pub fn cert_request(crypto: &CryptoProvider, anchors: &[CertificateDer<'_>]) -> Vec<u8> {
    let key_hash = |anchor| {
        let ca = read(anchor).ok()?;
        crypto.hashes.digest(HashAlgorithm::Sha1, &[ca.public_key().raw]).ok()
    };
    anchors.iter().filter_map(key_hash).flatten().collect()
}

/// Checks our own certificate when it is loaded, as a peer will: a peer tells no more than AUTHENTICATION_FAILED.
///
/// # Errors
/// [`CertError`].
pub fn check_own(leaf: &CertificateDer<'_>, identity: &Identity, wall: SystemTime) -> Result<(), CertError> {
    let leaf = read(leaf)?;
    check_validity(&leaf, wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))?;
    check_end_entity_usage(&leaf)?;
    check_identity(&leaf, identity)
}

/// Whether a peer that looks at the purposes of our own certificate, as [`verify_peer`] does, will take it. Not all do: RFC 4945
/// section 5.1.3.12 leaves it to them.
///
/// # Errors
/// [`CertError::Usage`], [`CertError::Unreadable`].
pub fn check_own_purposes(leaf: &CertificateDer<'_>) -> Result<(), CertError> {
    check_purposes(&read(leaf)?)
}

/// Checks a trust anchor when it is loaded, so that a useless one is told at once. Returns its subject.
///
/// # Errors
/// [`CertError::Unreadable`], [`CertError::Validity`]. An anchor that is no CA is right where it is the peer's own
/// certificate, so it is no error here.
pub fn check_anchor(anchor: &CertificateDer<'_>, wall: SystemTime) -> Result<String, CertError> {
    let certificate = read(anchor)?;
    check_validity(&certificate, wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))?;
    webpki::anchor_from_trusted_cert(anchor).map_err(|error| CertError::Unreadable(error.to_string()))?;
    Ok(subject(&certificate))
}

/// Checks a CRL when it is loaded. Returns its issuer.
///
/// # Errors
/// [`CertError::Unreadable`]: [`verify_peer`] would refuse every peer because of it.
pub fn check_crl(crl: &CertificateRevocationListDer<'_>) -> Result<String, CertError> {
    let read = BorrowedCertRevocationList::from_der(crl).map_err(|error| unreadable_crl(&error))?;
    let issuer = CertRevocationList::from(read);
    Ok(limit(dn::to_text(&dn::tlv(0x30, issuer.issuer()))))
}

fn unreadable_crl(error: &webpki::Error) -> CertError {
    let hint = match error {
        webpki::Error::UnsupportedCrlVersion | webpki::Error::BadDer => {
            " (a CRL must be of version 2, with nextUpdate and extensions: `openssl ca` needs crl_extensions)"
        }
        webpki::Error::UnsupportedDeltaCrl => " (a complete CRL is needed)",
        _ => "",
    };
    CertError::Unreadable(format!("a configured CRL: {error:?}{hint}"))
}

// --- reading -------------------------------------------------------------------------------------------------------

pub(crate) fn read<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertError> {
    if der.len() > MAX_CERTIFICATE {
        return Err(CertError::Unreadable(format!(
            "it has {} octets, more than {MAX_CERTIFICATE}",
            der.len()
        )));
    }
    let certificate = match X509Certificate::from_der(der) {
        Ok(([], certificate)) => certificate,
        Ok(_) => return Err(CertError::Unreadable("octets behind its end".into())),
        Err(error) => return Err(CertError::Unreadable(format!("not a certificate in DER: {error}"))),
    };
    if certificate.version() != X509Version::V3 {
        let version = certificate.version().0.saturating_add(1);
        return Err(CertError::Unreadable(format!(
            "{} is of version {version}; make it anew as version 3, for it has no extensions",
            subject(&certificate)
        )));
    }
    Ok(certificate)
}

/// Subject, or for an empty one the names in the SAN.
pub(crate) fn subject(certificate: &X509Certificate<'_>) -> String {
    if certificate.subject().iter_rdn().next().is_none() {
        return format!("({})", names(certificate));
    }
    limit(dn::to_text(certificate.subject().as_raw()))
}

fn issuer(certificate: &X509Certificate<'_>) -> String {
    limit(dn::to_text(certificate.issuer().as_raw()))
}

fn limit(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(MAX_NAME) {
        text.truncate(at);
        text.push_str("..");
    }
    text
}

fn san<'a>(certificate: &'a X509Certificate<'_>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let san = certificate.subject_alternative_name().ok().flatten();
    san.into_iter().flat_map(|san| san.value.general_names.iter())
}

/// The SAN as text; what strangers wrote is escaped.
fn names(certificate: &X509Certificate<'_>) -> String {
    let mut out = String::new();
    for name in san(certificate) {
        if out.len() > MAX_NAME {
            out.push_str(", ..");
            break;
        }
        let separator = if out.is_empty() { "" } else { ", " };
        let written = match name {
            GeneralName::RFC822Name(text) => write!(out, "{separator}email:{}", text.escape_default()),
            GeneralName::DNSName(text) => write!(out, "{separator}DNS:{}", text.escape_default()),
            GeneralName::URI(text) => write!(out, "{separator}URI:{}", text.escape_default()),
            GeneralName::DirectoryName(name) => {
                write!(out, "{separator}dirName:{}", dn::to_text(name.as_raw()))
            }
            GeneralName::IPAddress(octets) => match ip_address(octets) {
                Some(address) => write!(out, "{separator}IP:{address}"),
                None => write!(out, "{separator}IP:#{}", dn::hex(octets)),
            },
            _ => write!(out, "{separator}another kind of name"),
        };
        written.expect("a String takes all");
    }
    if out.is_empty() { "no subject alternative name".to_owned() } else { limit(out) }
}

fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

// --- checks of one certificate -------------------------------------------------------------------------------------

fn check_validity(certificate: &X509Certificate<'_>, now: Duration) -> Result<(), CertError> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now) {
        return Ok(());
    }
    Err(CertError::Validity {
        subject: subject(certificate),
        period: format!("valid from {} to {}", validity.not_before, validity.not_after),
    })
}

fn usage(certificate: &X509Certificate<'_>, problem: impl Into<String>) -> CertError {
    CertError::Usage { subject: subject(certificate), problem: problem.into() }
}

/// KeyUsage, if there is one. One that cannot be read, or stands twice, is not taken for none.
fn key_usage(certificate: &X509Certificate<'_>) -> Result<Option<KeyUsage>, CertError> {
    let unreadable = || usage(certificate, "its KeyUsage cannot be read");
    let Some(extension) =
        certificate.get_extension_unique(&OID_X509_EXT_KEY_USAGE).map_err(|_| unreadable())?
    else {
        return Ok(None);
    };
    match extension.parsed_extension() {
        ParsedExtension::KeyUsage(key_usage) => Ok(Some(*key_usage)),
        _ => Err(unreadable()),
    }
}

/// RFC 4945 section 5.1.3.2: KeyUsage, where there is one, must allow signatures.
fn check_end_entity_usage(leaf: &X509Certificate<'_>) -> Result<(), CertError> {
    match key_usage(leaf)? {
        Some(found) if !found.digital_signature() && !found.non_repudiation() => Err(usage(
            leaf,
            format!("its KeyUsage has neither digitalSignature nor nonRepudiation, but {found}"),
        )),
        _ => Ok(()),
    }
}

/// RFC 5280 sections 4.2.1.3 and 4.2.1.9: whether it may sign certificates.
fn check_ca_usage(ca: &X509Certificate<'_>) -> Result<(), CertError> {
    match ca.basic_constraints() {
        Ok(Some(basic)) if basic.value.ca => {}
        _ => return Err(usage(ca, "it issued a certificate, but is not a CA (basicConstraints)")),
    }
    match key_usage(ca)? {
        Some(found) if !found.key_cert_sign() => {
            Err(usage(ca, "it issued a certificate, but its KeyUsage lacks keyCertSign"))
        }
        _ => Ok(()),
    }
}

/// ExtendedKeyUsage: none, or one that suits IKE.
fn check_purposes(leaf: &X509Certificate<'_>) -> Result<(), CertError> {
    let unreadable = || usage(leaf, "its ExtendedKeyUsage cannot be read");
    if let Some(extension) =
        leaf.get_extension_unique(&OID_X509_EXT_EXTENDED_KEY_USAGE).map_err(|_| unreadable())?
    {
        let ParsedExtension::ExtendedKeyUsage(eku) = extension.parsed_extension() else {
            return Err(unreadable());
        };
        let others = eku.other.iter().any(|oid| IKE_PURPOSES.contains(&oid.as_bytes()));
        if !(eku.any || eku.server_auth || eku.client_auth || others) {
            return Err(usage(leaf, WRONG_PURPOSE));
        }
    }
    Ok(())
}

/// What `webpki` would check in a leaf.
fn check_pinned(leaf: &X509Certificate<'_>) -> Result<(), CertError> {
    check_purposes(leaf)?;
    let unknown = leaf.iter_extensions().find(|extension| {
        extension.critical
            && !matches!(
                extension.oid.as_bytes(),
                // keyUsage, subjectAltName, basicConstraints, nameConstraints, extKeyUsage
                [0x55, 0x1d, 15 | 17 | 19 | 30 | 37]
            )
    });
    match unknown {
        Some(extension) => Err(usage(leaf, format!("its critical extension {} is not known", extension.oid))),
        None => Ok(()),
    }
}

/// RFC 4945 section 3.1: the ID must stand in the SAN, or be the subject where it is a distinguished name. The common
/// name is never looked at, and wildcards mean nothing.
fn check_identity(leaf: &X509Certificate<'_>, identity: &Identity) -> Result<(), CertError> {
    let found = match identity {
        Identity::Dn(_) => {
            leaf.subject().iter_rdn().next().is_some()
                && *identity == Identity::Dn(leaf.subject().as_raw().to_vec())
        }
        Identity::Fqdn(_) => san(leaf)
            .any(|name| matches!(name, GeneralName::DNSName(text) if Identity::Fqdn((*text).to_owned()) == *identity)),
        Identity::Rfc822(_) => san(leaf).any(
            |name| matches!(name, GeneralName::RFC822Name(text) if Identity::Rfc822((*text).to_owned()) == *identity),
        ),
        Identity::Ipv4(address) => {
            san(leaf).any(|name| matches!(name, GeneralName::IPAddress(octets) if *octets == address.octets()))
        }
        Identity::Ipv6(address) => {
            san(leaf).any(|name| matches!(name, GeneralName::IPAddress(octets) if *octets == address.octets()))
        }
        Identity::KeyId(_) | Identity::Other(..) => false,
    };
    if found {
        return Ok(());
    }
    Err(CertError::Identity {
        identity: limit(identity.to_string()),
        subject: subject(leaf),
        names: names(leaf),
    })
}

// --- the path ------------------------------------------------------------------------------------------------------

/// Contents of the OIDs ipsecIKE (RFC 4945 section 5.1.3.12) and iKEIntermediate, which Microsoft and Apple ask for.
const IPSEC_IKE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 17];
const IKE_INTERMEDIATE: &[u8] = &[0x2b, 6, 1, 5, 5, 8, 2, 2];
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const ANY_PURPOSE: &[u8] = &[0x55, 0x1d, 0x25, 0];
const IKE_PURPOSES: [&[u8]; 5] = [IPSEC_IKE, IKE_INTERMEDIATE, SERVER_AUTH, CLIENT_AUTH, ANY_PURPOSE];
const WRONG_PURPOSE: &str =
    "its ExtendedKeyUsage has none of ipsecIKE, iKEIntermediate, serverAuth, clientAuth, anyExtendedKeyUsage";

/// No ExtendedKeyUsage, or one with a purpose that IKE peers are given.
struct IkePurpose;

impl ExtendedKeyUsageValidator for IkePurpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut empty = true;
        for purpose in purposes {
            let purpose = purpose?;
            if IKE_PURPOSES.iter().any(|oid| KeyPurposeId::new(oid) == purpose) {
                return Ok(());
            }
            empty = false;
        }
        #[allow(deprecated)] // The variant with context has no public constructor.
        if empty { Ok(()) } else { Err(webpki::Error::RequiredEkuNotFound) }
    }
}

#[allow(clippy::too_many_arguments)]
fn verify_path(
    crypto: &CryptoProvider,
    leaf_der: &CertificateDer<'_>,
    leaf: &X509Certificate<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &[CertificateDer<'_>],
    crls: &[CertificateRevocationListDer<'_>],
    revocation: Revocation,
    now: Duration,
) -> Result<Vec<Query>, CertError> {
    // A certificate that cannot be read must not hide behind one that can.
    let intermediates_read = intermediates.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut useless = Vec::new();
    let mut trusted: Vec<TrustAnchor<'_>> = Vec::new();
    for anchor in anchors {
        let Ok(certificate) = read(anchor) else { continue };
        match check_validity(&certificate, now).and_then(|()| check_ca_usage(&certificate)) {
            Ok(()) => trusted.extend(webpki::anchor_from_trusted_cert(anchor)),
            Err(problem) => useless.push((certificate, problem)),
        }
    }

    let explain =
        |error: webpki::Error| explain(crypto, &error, leaf, &intermediates_read, &trusted, &useless, now);
    let end_entity = EndEntityCert::try_from(leaf_der).map_err(explain)?;
    let time = UnixTime::since_unix_epoch(now);
    let algorithms = crypto.signatures.certificate_algorithms();
    // What `webpki` does not check in intermediates; a path with a wrong one is given up for another.
    let keys_may_sign = |path: &VerifiedPath<'_>| {
        let may_sign = |der: CertificateDer<'_>| read(&der).is_ok_and(|ca| check_ca_usage(&ca).is_ok());
        if path.intermediate_certificates().all(|ca| may_sign(ca.der())) {
            Ok(())
        } else {
            Err(webpki::Error::EndEntityUsedAsCa)
        }
    };
    let build = |revocation: Option<webpki::RevocationOptions<'_>>| {
        end_entity.verify_for_usage(
            algorithms,
            &trusted,
            intermediates,
            time,
            IkePurpose,
            revocation,
            Some(&keys_may_sign),
        )
    };
    let path = build(None).map_err(explain)?;
    if revocation == Revocation::Off {
        return Ok(Vec::new());
    }
    check_crls(&build, crls, leaf, &intermediates_read, explain)?;
    unsettled(crypto, leaf_der, &path, anchors, crls, revocation, UNIX_EPOCH + now)
}

/// What the policy wants to know of the path, and no configured CRL tells.
fn unsettled(
    crypto: &CryptoProvider,
    leaf: &CertificateDer<'_>,
    path: &VerifiedPath<'_>,
    anchors: &[CertificateDer<'_>],
    crls: &[CertificateRevocationListDer<'_>],
    revocation: Revocation,
    wall: SystemTime,
) -> Result<Vec<Query>, CertError> {
    let is_anchor = |der: &&CertificateDer<'_>| {
        webpki::anchor_from_trusted_cert(der).is_ok_and(|anchor| anchor == *path.anchor())
    };
    let Some(anchor) = anchors.iter().find(is_anchor) else { return Ok(Vec::new()) };
    let mut chain = vec![leaf.clone()];
    chain.extend(path.intermediate_certificates().map(|certificate| certificate.der()));
    chain.push(anchor.clone());
    let mut queries = Vec::new();
    for pair in chain.windows(2) {
        let query = Query::new(&pair[0], &pair[1])?;
        // Revoked ones were refused before.
        if crls.iter().any(|crl| query.read_crl(crypto, crl, wall).is_ok_and(|verdict| !verdict.revoked)) {
            continue;
        }
        match (query.has_uri(), revocation) {
            (true, _) => queries.push(query),
            (false, Revocation::Strict) => return Err(CertError::NoCrl { subject: query.subject }),
            (false, _) => {}
        }
    }
    Ok(queries)
}

/// Refuses what a configured CRL lists, fresh or not, and CRLs that are not their issuers'.
fn check_crls<'p>(
    build: &dyn Fn(Option<webpki::RevocationOptions<'_>>) -> Result<VerifiedPath<'p>, webpki::Error>,
    crls: &[CertificateRevocationListDer<'_>],
    leaf: &X509Certificate<'_>,
    intermediates: &[X509Certificate<'_>],
    explain: impl Fn(webpki::Error) -> CertError,
) -> Result<(), CertError> {
    let crls = newest_first(crls)?;
    let crls: Vec<&CertRevocationList<'_>> = crls.iter().collect();
    let Ok(options) = RevocationOptionsBuilder::new(&crls) else { return Ok(()) };
    let options = options
        .with_status_policy(UnknownStatusPolicy::Allow)
        .with_expiration_policy(ExpirationPolicy::Ignore);
    build(Some(options.build())).map(|_| ()).map_err(|error| {
        let of_issuer = |certificate: &X509Certificate<'_>, crl: &CertRevocationList<'_>| {
            dn::tlv(0x30, crl.issuer()) == certificate.issuer().as_raw()
        };
        let listed = |certificate: &&X509Certificate<'_>| {
            crls.iter().any(|crl| {
                of_issuer(certificate, crl)
                    && matches!(crl.find_serial(certificate.raw_serial()), Ok(Some(_)))
            })
        };
        match error {
            webpki::Error::CertRevoked => {
                let culprit = std::iter::once(leaf).chain(intermediates).find(listed);
                CertError::Revoked { subject: subject(culprit.unwrap_or(leaf)) }
            }
            other => explain(other),
        }
    })
}

/// `webpki` takes the first CRL that is for a certificate: that must be the newest one.
fn newest_first<'a>(
    crls: &'a [CertificateRevocationListDer<'_>],
) -> Result<Vec<CertRevocationList<'a>>, CertError> {
    let mut read = Vec::with_capacity(crls.len());
    for der in crls {
        let crl = BorrowedCertRevocationList::from_der(der).map_err(|error| unreadable_crl(&error))?;
        let (_, dated) = CertificateRevocationList::from_der(der)
            .map_err(|error| CertError::Unreadable(format!("a configured CRL: {error}")))?;
        read.push((dated.last_update().timestamp(), CertRevocationList::from(crl)));
    }
    read.sort_by_key(|(issued, _)| std::cmp::Reverse(*issued));
    Ok(read.into_iter().map(|(_, crl)| crl).collect())
}

/// From `webpki`'s error to one that names the certificate at fault.
fn explain(
    crypto: &CryptoProvider,
    error: &webpki::Error,
    leaf: &X509Certificate<'_>,
    intermediates: &[X509Certificate<'_>],
    trusted: &[TrustAnchor<'_>],
    useless: &[(X509Certificate<'_>, CertError)],
    now: Duration,
) -> CertError {
    use webpki::Error as E;
    let path = || std::iter::once(leaf).chain(intermediates);
    // From the leaf upwards as far as the names go: the last one's issuer is missing.
    let mut top = leaf;
    for _ in intermediates {
        match intermediates.iter().find(|ca| ca.subject() == top.issuer() && ca.subject() != top.subject()) {
            Some(ca) => top = ca,
            None => break,
        }
    }
    let other = |problem: &str| CertError::Other { subject: subject(leaf), problem: problem.to_owned() };
    #[allow(deprecated)] // Older variants of the same causes may still come.
    match error {
        E::CertExpired { .. } | E::CertNotValidYet { .. } | E::InvalidCertValidity => path()
            .find_map(|certificate| check_validity(certificate, now).err())
            .unwrap_or_else(|| other("a certificate of its chain has an impossible validity")),
        E::UnknownIssuer => match useless.iter().find(|(anchor, _)| anchor.subject() == top.issuer()) {
            Some((_, problem)) => problem.clone(),
            None => CertError::UnknownCa { subject: subject(top), issuer: issuer(top) },
        },
        E::InvalidSignatureForPublicKey => {
            // The name is that of a trusted CA: is the key too?
            let impostor = |anchor: &TrustAnchor<'_>| {
                dn::tlv(0x30, anchor.subject.as_ref()) == top.issuer().as_raw()
                    && !is_signed_by(crypto, top, anchor)
            };
            if trusted.iter().any(impostor) {
                CertError::UnknownCa {
                    subject: subject(top),
                    issuer: format!(
                        "{} (a trusted CA has that name, but not the key that signed)",
                        issuer(top)
                    ),
                }
            } else {
                other("a signature in its chain is wrong")
            }
        }
        E::InvalidCrlSignatureForPublicKey => other("the CRL of its issuer has a wrong signature"),
        E::IssuerNotCrlSigner => other("its issuer signed a CRL, but its KeyUsage lacks cRLSign"),
        E::RequiredEkuNotFound | E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
            usage(leaf, format!("{WRONG_PURPOSE} (in it or a CA above it)"))
        }
        E::CaUsedAsEndEntity => usage(leaf, "it is the certificate of a CA"),
        E::EndEntityUsedAsCa => intermediates
            .iter()
            .find_map(|ca| check_ca_usage(ca).err())
            .unwrap_or_else(|| other("a certificate that is not a CA's issued one of its chain")),
        E::UnsupportedCriticalExtension => {
            usage(leaf, "it, or a CA above it, has a critical extension that is not known")
        }
        E::PathLenConstraintViolated => {
            other("its chain is longer than a CA above it allows (pathLenConstraint)")
        }
        E::NameConstraintViolation => other(
            "a CA above it does not allow one of its names (nameConstraints; those on email addresses and directory \
             names are not supported and allow none)",
        ),
        E::UnsupportedSignatureAlgorithm
        | E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKey
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            other("it, or a CA above it, is signed with an algorithm that is not accepted (SHA-1, DSA, ..)")
        }
        error => other(&format!("{error:?}")),
    }
}

/// Whether the anchor's key made the certificate's signature, by any algorithm.
fn is_signed_by(
    crypto: &CryptoProvider,
    certificate: &X509Certificate<'_>,
    anchor: &TrustAnchor<'_>,
) -> bool {
    let spki = dn::tlv(0x30, anchor.subject_public_key_info.as_ref());
    let Ok((_, spki)) = SubjectPublicKeyInfo::from_der(&spki) else { return false };
    let (message, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    let mut algorithms = crypto.signatures.certificate_algorithms().iter();
    algorithms.any(|algorithm| {
        algorithm.verify_signature(&spki.subject_public_key.data, message, signature).is_ok()
    })
}

#[cfg(test)]
mod tests;
