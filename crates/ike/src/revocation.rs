//! Whether a certificate is revoked: CRLs (RFC 5280 section 5) and OCSP (RFC 6960), without I/O.
//!
//! Verifying a path leaves a [`Query`] for each certificate about which no configured CRL speaks and the policy wants an
//! answer. Who has the network asks the servers that it names, hands what they say back to it, and tells the endpoint.

use crate::certs::{CertError, read, subject};
use crate::dn;
use ferry6_crypto::{CryptoProvider, HashAlgorithm};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use webpki::{BorrowedCertRevocationList, CertRevocationList};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{
    DistributionPointName, GeneralName, IssuingDistributionPoint, ParsedExtension,
};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// Octets of a CRL at most that is fetched.
pub const MAX_CRL: usize = 8 << 20;
/// Octets of an OCSP response at most.
pub const MAX_OCSP: usize = 64 << 10;
/// Addresses of one kind that are taken out of a certificate.
const MAX_URIS: usize = 4;
/// What clocks may differ by.
const SKEW: Duration = Duration::from_secs(300);
/// An OCSP response without nextUpdate says that newer news are always to be had; older than this it is no news.
const WITHOUT_NEXT_UPDATE: Duration = Duration::from_secs(3600);

/// A certificate whose status is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its subject.
    pub subject: String,
    /// Where to ask by OCSP: `http://` only.
    pub ocsp: Vec<String>,
    /// Where its issuer's CRL is: `http://` only.
    pub crls: Vec<String>,
    certificate: Vec<u8>,
    issuer: Vec<u8>,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the certificate is revoked.
    pub revoked: bool,
    /// Until when the answer holds (nextUpdate); `None`: only now.
    pub until: Option<SystemTime>,
}

/// Why an answer says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Worthless(pub String);

fn worthless<T>(why: impl Into<String>) -> Result<T, Worthless> {
    Err(Worthless(why.into()))
}

impl Query {
    /// About a certificate and its issuer's.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(crate) fn new(
        certificate: &CertificateDer<'_>,
        issuer: &CertificateDer<'_>,
    ) -> Result<Self, CertError> {
        let parsed = read(certificate)?;
        read(issuer)?;
        let (ocsp, crls) = uris(&parsed);
        Ok(Self {
            subject: subject(&parsed),
            ocsp,
            crls,
            certificate: certificate.to_vec(),
            issuer: issuer.to_vec(),
        })
    }

    /// Whether the certificate says where to ask.
    pub fn has_uri(&self) -> bool {
        !(self.ocsp.is_empty() && self.crls.is_empty())
    }

    /// A name for what is known about this certificate: no other has it.
    pub fn key(&self) -> &[u8] {
        &self.certificate
    }

    /// An error that says that the certificate is revoked.
    pub fn revoked(&self) -> CertError {
        CertError::Revoked { subject: self.subject.clone() }
    }

    /// An error that says that nobody knows.
    pub fn unknown(&self, cause: impl Into<String>) -> CertError {
        CertError::RevocationUnknown { subject: self.subject.clone(), cause: cause.into() }
    }

    /// The certificate and its issuer's: `new` has read both.
    fn parsed(&self) -> Result<(X509Certificate<'_>, X509Certificate<'_>), Worthless> {
        let parse = |der| X509Certificate::from_der(der).map(|(_, parsed)| parsed);
        match (parse(&self.certificate), parse(&self.issuer)) {
            (Ok(certificate), Ok(issuer)) => Ok((certificate, issuer)),
            _ => worthless("the certificate cannot be read"),
        }
    }

    /// An OCSPRequest (RFC 6960 section 4.1.1) in DER, with a nonce (RFC 8954) if one is given. CertIDs are made with SHA-1,
    /// which every responder knows (RFC 5019 section 2.1.1); nothing rests on its strength.
    ///
    /// # Errors
    /// The provider has no SHA-1.
    pub fn ocsp_request(&self, crypto: &CryptoProvider, nonce: Option<&[u8]>) -> Result<Vec<u8>, Worthless> {
        let cert_id = self.cert_id(crypto)?;
        let list = dn::tlv(SEQUENCE, &dn::tlv(SEQUENCE, &cert_id));
        let extensions = nonce.map_or(Vec::new(), |nonce| {
            let value = dn::tlv(OCTET_STRING, &dn::tlv(OCTET_STRING, nonce));
            let extension = dn::tlv(SEQUENCE, &[dn::tlv(OID, OCSP_NONCE), value].concat());
            dn::tlv(0xa2, &dn::tlv(SEQUENCE, &extension))
        });
        Ok(dn::tlv(SEQUENCE, &dn::tlv(SEQUENCE, &[list, extensions].concat())))
    }

    /// CertID of section 4.1.1.
    fn cert_id(&self, crypto: &CryptoProvider) -> Result<Vec<u8>, Worthless> {
        let (certificate, issuer) = self.parsed()?;
        let hash = |octets: &[u8]| match crypto.hashes.digest(HashAlgorithm::Sha1, &[octets]) {
            Ok(digest) => Ok(dn::tlv(OCTET_STRING, &digest)),
            Err(error) => worthless(error.to_string()),
        };
        let parts = [
            SHA1_ALGORITHM.to_vec(),
            hash(certificate.issuer().as_raw())?,
            hash(&issuer.public_key().subject_public_key.data)?,
            dn::tlv(INTEGER, certificate.raw_serial()),
        ];
        Ok(dn::tlv(SEQUENCE, &parts.concat()))
    }

    /// Reads an OCSPResponse (RFC 6960 section 4.2). It counts if it is about this certificate, fresh, with our nonce or
    /// none, and signed by the issuer or by a responder to which the issuer gave id-kp-OCSPSigning (section 4.2.2.2).
    ///
    /// # Errors
    /// [`Worthless`]: anything else, and the status `unknown`.
    pub fn read_ocsp(
        &self,
        crypto: &CryptoProvider,
        response: &[u8],
        nonce: Option<&[u8]>,
        wall: SystemTime,
    ) -> Result<Verdict, Worthless> {
        if response.len() > MAX_OCSP {
            return worthless("the OCSP response is too large");
        }
        let malformed = |_| Worthless("the OCSP response is malformed".to_owned());
        let mut outer = Der(response).take(SEQUENCE).map_err(malformed)?;
        match outer.take(ENUMERATED).map_err(malformed)?.0 {
            [0] => {}
            [code] => {
                let name = match code {
                    1 => "malformedRequest",
                    2 => "internalError",
                    3 => "tryLater",
                    5 => "sigRequired",
                    6 => "unauthorized: it does not know this certificate or its CA",
                    _ => "an error",
                };
                return worthless(format!("the OCSP responder says {name} ({code})"));
            }
            _ => return Err(malformed(Malformed)),
        }
        let basic = self.basic_response(&mut outer).map_err(malformed)?;
        self.check_signer(crypto, &basic, wall)?;
        self.single_response(crypto, basic.data, nonce, wall)
    }

    /// BasicOCSPResponse out of OCSPResponse.responseBytes.
    fn basic_response<'a>(&self, outer: &mut Der<'a>) -> Result<Basic<'a>, Malformed> {
        let mut bytes = outer.take(0xa0)?.take(SEQUENCE)?;
        if bytes.take(OID)?.0 != OCSP_BASIC {
            return Err(Malformed);
        }
        let mut basic = bytes.take(OCTET_STRING)?.take(SEQUENCE)?;
        let (signed, data) = basic.take_whole(SEQUENCE)?;
        let algorithm = basic.take(SEQUENCE)?.0;
        let signature = bit_string(&mut basic)?;
        let mut certificates = Vec::new();
        if let Some(mut list) = basic.optional(0xa0)? {
            let mut list = list.take(SEQUENCE)?;
            // One responder's certificate, and some that lead to it.
            while !list.0.is_empty() && certificates.len() < 8 {
                certificates.push(CertificateDer::from(list.take_whole(SEQUENCE)?.0));
            }
        }
        Ok(Basic { signed, data, algorithm, signature, certificates })
    }

    /// Section 4.2.2.2: the issuer itself, or whom it authorized. A delegated responder's own certificate is not asked
    /// about, with id-pkix-ocsp-nocheck or without (section 4.2.2.2.1 leaves that to the client): it is short-lived.
    fn check_signer(
        &self,
        crypto: &CryptoProvider,
        basic: &Basic<'_>,
        wall: SystemTime,
    ) -> Result<(), Worthless> {
        let (_, issuer) = self.parsed()?;
        let mut data = basic.data;
        let responder =
            responder_id(&mut data).map_err(|_| Worthless("the OCSP response is malformed".into()))?;
        let is_responder = |certificate: &X509Certificate<'_>| match responder {
            Responder::Name(name) => certificate.subject().as_raw() == name,
            Responder::KeyHash(hash) => {
                let key = &certificate.public_key().subject_public_key.data;
                crypto.hashes.digest(HashAlgorithm::Sha1, &[key]).is_ok_and(|digest| digest == hash)
            }
        };
        let signed_by = |certificate: &X509Certificate<'_>| {
            is_signed(crypto, certificate, basic.algorithm, basic.signed, basic.signature)
        };
        if is_responder(&issuer) {
            return if signed_by(&issuer) {
                Ok(())
            } else {
                worthless("the OCSP response has a wrong signature")
            };
        }
        let now = unix(wall);
        for der in &basic.certificates {
            let Ok(delegate) = read(der) else { continue };
            if !is_responder(&delegate) {
                continue;
            }
            let eku = delegate.extended_key_usage().ok().flatten();
            let fault = if delegate.issuer().as_raw() != issuer.subject().as_raw()
                || !issued_by(crypto, &delegate, &issuer)
            {
                "is not issued by the CA that it speaks for"
            } else if !eku.is_some_and(|eku| eku.value.ocsp_signing) {
                "lacks id-kp-OCSPSigning in its ExtendedKeyUsage"
            } else if !(delegate.validity().not_before.timestamp()
                ..=delegate.validity().not_after.timestamp())
                .contains(&now)
            {
                "has expired or is not yet valid"
            } else if !signed_by(&delegate) {
                return worthless("the OCSP response has a wrong signature");
            } else {
                return Ok(());
            };
            return worthless(format!("the OCSP responder's certificate, {}, {fault}", subject(&delegate)));
        }
        worthless(
            "the OCSP response is signed neither by the CA nor by a responder with its certificate in it",
        )
    }

    /// The SingleResponse about this certificate, and its times (section 3.2).
    fn single_response(
        &self,
        crypto: &CryptoProvider,
        mut data: Der<'_>,
        nonce: Option<&[u8]>,
        wall: SystemTime,
    ) -> Result<Verdict, Worthless> {
        let malformed = |_| Worthless("the OCSP response is malformed".to_owned());
        responder_id(&mut data).map_err(malformed)?;
        data.take(GENERALIZED_TIME).map_err(malformed)?;
        let mut responses = data.take(SEQUENCE).map_err(malformed)?;
        if let (Some(nonce), Some(extensions)) = (nonce, data.optional(0xa1).map_err(malformed)?)
            && let Some(theirs) = nonce_of(extensions).map_err(malformed)?
            && theirs != nonce
        {
            return worthless("the OCSP response bears another nonce: it answers another request");
        }
        let wanted = self.cert_id(crypto)?;
        while !responses.0.is_empty() {
            let mut single = responses.take(SEQUENCE).map_err(malformed)?;
            let (cert_id, _) = single.take_whole(SEQUENCE).map_err(malformed)?;
            let (status, _, _) = single.any().map_err(malformed)?;
            let this_update = single.time().map_err(malformed)?;
            let next_update = match single.optional(0xa0).map_err(malformed)? {
                Some(mut inner) => Some(inner.time().map_err(malformed)?),
                None => None,
            };
            if !same_cert_id(cert_id, &wanted) {
                continue;
            }
            let now = Duration::from_secs(u64::try_from(unix(wall)).unwrap_or(0));
            if this_update > now + SKEW {
                return worthless("the OCSP response is of the future");
            }
            match next_update {
                Some(next) if next <= now => return worthless("the OCSP response has expired"),
                None if this_update + WITHOUT_NEXT_UPDATE + SKEW < now => {
                    return worthless("the OCSP response is old, and does not say how long it holds");
                }
                _ => {}
            }
            let until = next_update.map(|next| UNIX_EPOCH + next);
            return match status & 0x1f {
                0 => Ok(Verdict { revoked: false, until }),
                1 => Ok(Verdict { revoked: true, until }),
                _ => worthless("the OCSP responder does not know the certificate"),
            };
        }
        worthless("the OCSP response is not about this certificate")
    }

    /// Reads a CRL of the certificate's issuer (RFC 5280 section 6.3.3): complete, for certificates of this kind, signed by
    /// the issuer, and not past its nextUpdate.
    ///
    /// # Errors
    /// [`Worthless`].
    pub fn read_crl(
        &self,
        crypto: &CryptoProvider,
        crl: &[u8],
        wall: SystemTime,
    ) -> Result<Verdict, Worthless> {
        let der = CertificateRevocationListDer::from(crl);
        // Refuses delta CRLs, indirect ones, those for some reasons only, and critical extensions that are not known.
        let borrowed = BorrowedCertRevocationList::from_der(&der)
            .map_err(|error| Worthless(format!("the CRL cannot be taken: {error:?}")))?;
        let (_, parsed) = CertificateRevocationList::from_der(crl)
            .map_err(|_| Worthless("the CRL cannot be read".to_owned()))?;
        let (certificate, issuer) = self.parsed()?;
        if parsed.issuer().as_raw() != certificate.issuer().as_raw() {
            return worthless(format!(
                "the CRL is of {}, not of the certificate's issuer",
                dn::to_text(parsed.issuer().as_raw())
            ));
        }
        let is_ca = matches!(certificate.basic_constraints(), Ok(Some(basic)) if basic.value.ca);
        for extension in parsed.extensions() {
            if let ParsedExtension::IssuingDistributionPoint(point) = extension.parsed_extension()
                && !self.is_within(point, is_ca)
            {
                return worthless("the CRL is for other certificates (issuingDistributionPoint)");
            }
        }
        if let Ok(Some(usage)) = issuer.key_usage()
            && !usage.value.crl_sign()
        {
            return worthless("the issuer signed a CRL, but its KeyUsage lacks cRLSign");
        }
        let malformed = |_| Worthless("the CRL cannot be read".to_owned());
        let mut outer = Der(crl).take(SEQUENCE).map_err(malformed)?;
        let (signed, _) = outer.take_whole(SEQUENCE).map_err(malformed)?;
        let algorithm = outer.take(SEQUENCE).map_err(malformed)?.0;
        let signature = bit_string(&mut outer).map_err(malformed)?;
        if !is_signed(crypto, &issuer, algorithm, signed, signature) {
            return worthless("the CRL has a wrong signature");
        }
        let now = unix(wall);
        if parsed.last_update().timestamp() > now + SKEW.as_secs() as i64 {
            return worthless("the CRL is of the future");
        }
        let next = parsed.next_update().map_or(0, |time| time.timestamp());
        if next <= now {
            return worthless("the CRL has expired");
        }
        let list = CertRevocationList::from(borrowed);
        let listed = list.find_serial(certificate.raw_serial());
        let revoked =
            listed.map_err(|error| Worthless(format!("the CRL cannot be read: {error:?}")))?.is_some();
        let until = u64::try_from(next).ok().map(|next| UNIX_EPOCH + Duration::from_secs(next));
        Ok(Verdict { revoked, until })
    }

    fn is_within(&self, point: &IssuingDistributionPoint<'_>, is_ca: bool) -> bool {
        if point.only_contains_attribute_certs
            || (point.only_contains_user_certs && is_ca)
            || (point.only_contains_ca_certs && !is_ca)
        {
            return false;
        }
        match &point.distribution_point {
            None => true,
            // Section 6.3.3 (b)(2)(i): one of its names must be one of the certificate's.
            Some(DistributionPointName::FullName(names)) => names.iter().any(
                |name| matches!(name, GeneralName::URI(uri) if self.crls.iter().any(|ours| ours == uri)),
            ),
            Some(DistributionPointName::NameRelativeToCRLIssuer(_)) => false,
        }
    }
}

/// The HTTP addresses in authorityInfoAccess and cRLDistributionPoints.
fn uris(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<String>) {
    let (mut ocsp, mut crls) = (Vec::new(), Vec::new());
    let take = |list: &mut Vec<String>, name: &GeneralName<'_>| {
        if let GeneralName::URI(uri) = name
            && list.len() < MAX_URIS
            && uri.len() <= 1024
            && uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"))
            && uri.chars().all(|c| c.is_ascii_graphic())
        {
            list.push((*uri).to_owned());
        }
    };
    for extension in certificate.iter_extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityInfoAccess(access) => {
                let about_ocsp =
                    access.accessdescs.iter().filter(|d| d.access_method.as_bytes() == OCSP_ACCESS);
                about_ocsp.for_each(|description| take(&mut ocsp, &description.access_location));
            }
            ParsedExtension::CRLDistributionPoints(points) => {
                for point in
                    points.iter().filter(|point| point.crl_issuer.is_none() && point.reasons.is_none())
                {
                    if let Some(DistributionPointName::FullName(names)) = &point.distribution_point {
                        names.iter().for_each(|name| take(&mut crls, name));
                    }
                }
            }
            _ => {}
        }
    }
    (ocsp, crls)
}

fn unix(wall: SystemTime) -> i64 {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Whether this certificate's key made the signature, by the algorithm that is named.
fn is_signed(
    crypto: &CryptoProvider,
    signer: &X509Certificate<'_>,
    algorithm: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let key = signer.public_key();
    let Ok(key_algorithm) = Der(key.raw).take(SEQUENCE).and_then(|mut spki| spki.take(SEQUENCE)) else {
        return false;
    };
    crypto.signatures.certificate_algorithms().iter().any(|candidate| {
        candidate.public_key_alg_id().as_ref() == key_algorithm.0
            && candidate.signature_alg_id().as_ref() == algorithm
            && candidate.verify_signature(&key.subject_public_key.data, message, signature).is_ok()
    })
}

/// Whether the issuer's key signed the certificate.
fn issued_by(
    crypto: &CryptoProvider,
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> bool {
    // TBSCertificate, then the algorithm, then the signature: the parser keeps the first and the last.
    let algorithms = crypto.signatures.certificate_algorithms();
    let (message, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    let key = issuer.public_key();
    let Ok(key_algorithm) = Der(key.raw).take(SEQUENCE).and_then(|mut spki| spki.take(SEQUENCE)) else {
        return false;
    };
    algorithms.iter().any(|algorithm| {
        algorithm.public_key_alg_id().as_ref() == key_algorithm.0
            && algorithm.verify_signature(&key.subject_public_key.data, message, signature).is_ok()
    })
}

// --- DER ------------------------------------------------------------------------------------------------------------

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// id-ad-ocsp, 1.3.6.1.5.5.7.48.1, and what is below it.
const OCSP_ACCESS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1];
const OCSP_BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 1];
const OCSP_NONCE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 2];
/// AlgorithmIdentifier of SHA-1, with NULL parameters.
const SHA1_ALGORITHM: &[u8] = &[0x30, 9, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0];

struct Basic<'a> {
    signed: &'a [u8],
    data: Der<'a>,
    algorithm: &'a [u8],
    signature: &'a [u8],
    certificates: Vec<CertificateDer<'a>>,
}

enum Responder<'a> {
    Name(&'a [u8]),
    KeyHash(&'a [u8]),
}

/// Version and responderID of ResponseData.
fn responder_id<'a>(data: &mut Der<'a>) -> Result<Responder<'a>, Malformed> {
    if let Some(mut version) = data.optional(0xa0)?
        && version.take(INTEGER)?.0 != [0]
    {
        return Err(Malformed);
    }
    let (tag, mut inner, _) = data.any()?;
    match tag {
        0xa1 => Ok(Responder::Name(inner.take_whole(SEQUENCE)?.0)),
        0xa2 => Ok(Responder::KeyHash(inner.take(OCTET_STRING)?.0)),
        _ => Err(Malformed),
    }
}

/// The same CertID, where SHA-1 may have NULL parameters or none.
fn same_cert_id(theirs: &[u8], ours: &[u8]) -> bool {
    let fields = |der| -> Result<_, Malformed> {
        let mut id = Der(der).take(SEQUENCE)?;
        let algorithm = id.take(SEQUENCE)?.take(OID)?.0;
        Ok((algorithm, id.0))
    };
    matches!((fields(theirs), fields(ours)), (Ok(theirs), Ok(ours)) if theirs == ours)
}

fn nonce_of(mut extensions: Der<'_>) -> Result<Option<&[u8]>, Malformed> {
    let mut list = extensions.take(SEQUENCE)?;
    while !list.0.is_empty() {
        let mut extension = list.take(SEQUENCE)?;
        let oid = extension.take(OID)?.0;
        let _critical = extension.optional(0x01)?;
        let mut value = extension.take(OCTET_STRING)?;
        if oid == OCSP_NONCE {
            return Ok(Some(value.take(OCTET_STRING)?.0));
        }
    }
    Ok(None)
}

fn bit_string<'a>(der: &mut Der<'a>) -> Result<&'a [u8], Malformed> {
    match der.take(BIT_STRING)?.0 {
        [0, bits @ ..] => Ok(bits),
        _ => Err(Malformed),
    }
}

#[derive(Clone, Copy, Debug)]
struct Malformed;

/// Elements of DER one after the other.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: tag, content, and the whole.
    fn any(&mut self) -> Result<(u8, Der<'a>, &'a [u8]), Malformed> {
        let (tag, length, header) = match *self.0 {
            [tag, length @ 0..=0x7f, ..] => (tag, usize::from(length), 2),
            [tag, 0x81, length @ 0x80..=0xff, ..] => (tag, usize::from(length), 3),
            [tag, 0x82, a @ 1..=0xff, b, ..] => (tag, usize::from(a) << 8 | usize::from(b), 4),
            [tag, 0x83, a @ 1..=0xff, b, c, ..] => {
                (tag, usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c), 5)
            }
            _ => return Err(Malformed),
        };
        if tag & 0x1f == 0x1f {
            return Err(Malformed);
        }
        let whole = self.0.get(..header + length).ok_or(Malformed)?;
        self.0 = &self.0[whole.len()..];
        Ok((tag, Der(&whole[header..]), whole))
    }

    fn take(&mut self, tag: u8) -> Result<Der<'a>, Malformed> {
        match self.any()? {
            (found, content, _) if found == tag => Ok(content),
            _ => Err(Malformed),
        }
    }

    /// The whole element, and its content.
    fn take_whole(&mut self, tag: u8) -> Result<(&'a [u8], Der<'a>), Malformed> {
        match self.any()? {
            (found, content, whole) if found == tag => Ok((whole, content)),
            _ => Err(Malformed),
        }
    }

    fn optional(&mut self, tag: u8) -> Result<Option<Der<'a>>, Malformed> {
        if self.0.first() == Some(&tag) { self.take(tag).map(Some) } else { Ok(None) }
    }

    /// GeneralizedTime as RFC 5280 section 4.1.2.5.2 writes it, since 1970.
    fn time(&mut self) -> Result<Duration, Malformed> {
        let (whole, _) = self.take_whole(GENERALIZED_TIME)?;
        let (_, time) = x509_parser::time::ASN1Time::from_der(whole).map_err(|_| Malformed)?;
        u64::try_from(time.timestamp()).map(Duration::from_secs).map_err(|_| Malformed)
    }
}

#[cfg(test)]
mod tests;
