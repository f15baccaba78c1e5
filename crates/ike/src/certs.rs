//! Certificates of peers: path, validity, revocation, key usage, and the identity in the SAN (RFC 4945).

use crate::config::Revocation;
use crate::identity::Identity;
use ferry6_crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::time::SystemTime;

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
    /// Strict, and no fresh CRL.
    #[error("no fresh CRL for {subject}, and the revocation policy is strict")]
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

/// Verifies a peer's chain (leaf first, as the CERT payloads came) and its identity. Returns the leaf's
/// SubjectPublicKeyInfo in DER.
///
/// # Errors
/// [`CertError`].
pub fn verify_peer(
    _crypto: &CryptoProvider,
    _chain: &[CertificateDer<'_>],
    _identity: &Identity,
    _anchors: &[CertificateDer<'_>],
    _crls: &[CertificateRevocationListDer<'_>],
    _revocation: Revocation,
    _wall: SystemTime,
) -> Result<Vec<u8>, CertError> {
    todo!()
}

/// The content of a CERTREQ payload: SHA-1 of each anchor's SubjectPublicKeyInfo (RFC 7296 section 3.7).
pub fn cert_request(_crypto: &CryptoProvider, _anchors: &[CertificateDer<'_>]) -> Vec<u8> {
    todo!()
}
