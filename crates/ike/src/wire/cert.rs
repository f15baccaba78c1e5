//! Numbers of the Certificate and Certificate Request payloads
//! ([RFC 7296 section 3.6](https://www.rfc-editor.org/rfc/rfc7296#section-3.6) and
//! [3.7](https://www.rfc-editor.org/rfc/rfc7296#section-3.7)).
//!
//! Both are one octet of encoding and data:
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Cert Encoding |                                               |
//! +-+-+-+-+-+-+-+-+                                               |
//! ~                       Certificate Data                        ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use super::codec::numbers;

numbers! {
    /// Certificate encodings.
    pub mod encoding: u8 {
        /// Not specified enough to be used.
        PKCS7 = 1,
        /// PGP.
        PGP = 2,
        /// DNS signed key.
        DNS_SIGNED_KEY = 3,
        /// X.509 certificate, for signatures: the one that we send and take.
        X509_SIGNATURE = 4,
        /// Kerberos.
        KERBEROS_TOKENS = 6,
        /// Certificate revocation list.
        CRL = 7,
        /// Authority revocation list.
        ARL = 8,
        /// SPKI.
        SPKI = 9,
        /// X.509 attribute certificate.
        X509_ATTRIBUTE = 10,
        /// A raw RSA key; deprecated by RFC 7670.
        RAW_RSA_KEY = 11,
        /// SHA-1 and URL of a certificate.
        HASH_AND_URL = 12,
        /// SHA-1 and URL of a bundle.
        HASH_AND_URL_BUNDLE = 13,
        /// OCSP content (RFC 4806).
        OCSP_CONTENT = 14,
        /// A raw public key (RFC 7670).
        RAW_PUBLIC_KEY = 15,
    }
}
