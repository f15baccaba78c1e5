use super::*;
use crate::certs::verify_peer;
use crate::config::Revocation;
use ferry6_crypto::providers;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SanType,
    SerialNumber, SigningKey, date_time_ymd,
};

type Ca = CertifiedIssuer<'static, KeyPair>;

const CRL: &str = "http://ca.my.domain/ca.crl";
const OCSP: &str = "http://ocsp.my.domain:8080/";
const NONCE: &[u8] = &[7; 32];

/// In 2026, in seconds.
const NOW: u64 = 1_767_225_600;

fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}

fn ca(name: &str) -> Ca {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ca::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn access(url: &str) -> CustomExtension {
    let description = [dn::tlv(OID, OCSP_ACCESS), dn::tlv(0x86, url.as_bytes())].concat();
    let content = dn::tlv(SEQUENCE, &dn::tlv(SEQUENCE, &description));
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content)
}

fn leaf(ca: &Ca, ocsp: &[&str], crls: &[&str]) -> CertificateDer<'static> {
    let mut params = params("client");
    params.subject_alt_names = vec![SanType::Rfc822Name("client@my.domain".try_into().unwrap())];
    params.serial_number = Some(SerialNumber::from_slice(&[0x17]));
    params.custom_extensions = ocsp.iter().map(|url| access(url)).collect();
    if !crls.is_empty() {
        let uris = crls.iter().map(|url| (*url).to_owned()).collect();
        params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
    }
    params.signed_by(&KeyPair::generate().unwrap(), ca).unwrap().der().clone()
}

fn query(ca: &Ca) -> Query {
    Query::new(&leaf(ca, &[OCSP], &[CRL]), ca.der()).unwrap()
}

fn time(seconds: u64) -> Vec<u8> {
    let time = x509_parser::time::ASN1Time::from_timestamp(seconds as i64).unwrap().to_datetime();
    let (date, clock) = (time.date(), time.time());
    let text = format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    );
    dn::tlv(GENERALIZED_TIME, text.as_bytes())
}

/// An OCSPResponse to be made.
struct Response {
    status: Vec<u8>,
    this: u64,
    next: Option<u64>,
    nonce: Option<Vec<u8>>,
    delegate: Option<(CertificateParams, Ca)>,
    about: Option<Query>,
    forged: bool,
}

const GOOD: &[u8] = &[0x80, 0];

impl Default for Response {
    fn default() -> Self {
        Self {
            status: GOOD.to_vec(),
            this: NOW - 60,
            next: Some(NOW + 600),
            nonce: Some(NONCE.to_vec()),
            delegate: None,
            about: None,
            forged: false,
        }
    }
}

/// ecdsa-with-SHA256
const ECDSA_SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

impl Response {
    fn build(self, ca: &Ca, query: &Query) -> Vec<u8> {
        let crypto = &ferry6_crypto::aws_lc::PROVIDER;
        let key = KeyPair::generate().unwrap();
        let (signer, certificate): (&KeyPair, _) = match &self.delegate {
            Some((params, issuer)) => (&key, Some(params.signed_by(&key, issuer).unwrap().der().to_vec())),
            None => (ca.key(), None),
        };
        let hash = crypto.hashes.digest(HashAlgorithm::Sha1, &[signer.der_bytes()]).unwrap();
        let next = self.next.map_or(Vec::new(), |next| dn::tlv(0xa0, &time(next)));
        let cert_id = self.about.as_ref().unwrap_or(query).cert_id(crypto).unwrap();
        let single = dn::tlv(SEQUENCE, &[cert_id, self.status, time(self.this), next].concat());
        let extensions = self.nonce.map_or(Vec::new(), |nonce| {
            let value = dn::tlv(OCTET_STRING, &dn::tlv(OCTET_STRING, &nonce));
            let extension = dn::tlv(SEQUENCE, &[dn::tlv(OID, OCSP_NONCE), value].concat());
            dn::tlv(0xa1, &dn::tlv(SEQUENCE, &extension))
        });
        let responder = dn::tlv(0xa2, &dn::tlv(OCTET_STRING, &hash));
        let data =
            dn::tlv(SEQUENCE, &[responder, time(self.this), dn::tlv(SEQUENCE, &single), extensions].concat());
        let mut signature = signer.sign(&data).unwrap();
        if self.forged {
            signature = KeyPair::generate().unwrap().sign(&data).unwrap();
        }
        let signature = dn::tlv(BIT_STRING, &[&[0], signature.as_slice()].concat());
        let certificates =
            certificate.map_or(Vec::new(), |certificate| dn::tlv(0xa0, &dn::tlv(SEQUENCE, &certificate)));
        let basic = dn::tlv(SEQUENCE, &[data, ECDSA_SHA256.to_vec(), signature, certificates].concat());
        let bytes = [dn::tlv(OID, OCSP_BASIC), dn::tlv(OCTET_STRING, &basic)].concat();
        let bytes = dn::tlv(0xa0, &dn::tlv(SEQUENCE, &bytes));
        dn::tlv(SEQUENCE, &[dn::tlv(ENUMERATED, &[0]), bytes].concat())
    }

    /// What both providers make of it, which must be the same.
    fn read(self, ca: &Ca, query: &Query) -> Result<Verdict, Worthless> {
        let response = self.build(ca, query);
        let [one, other] = providers().map(|crypto| query.read_ocsp(crypto, &response, Some(NONCE), wall()));
        assert_eq!(one, other);
        one
    }
}

fn revoked_info() -> Vec<u8> {
    dn::tlv(0xa1, &[time(NOW - 1000), dn::tlv(0xa0, &dn::tlv(ENUMERATED, &[1]))].concat())
}

#[test]
fn ocsp_answers() {
    let ca = ca("ca");
    let query = query(&ca);
    let until = Some(UNIX_EPOCH + Duration::from_secs(NOW + 600));
    assert_eq!(Response::default().read(&ca, &query), Ok(Verdict { revoked: false, until }));
    let revoked = Response { status: revoked_info(), ..Response::default() };
    assert_eq!(revoked.read(&ca, &query), Ok(Verdict { revoked: true, until }));
    let without_nonce = Response { nonce: None, ..Response::default() };
    assert!(without_nonce.read(&ca, &query).is_ok());
    let without_end = Response { next: None, ..Response::default() };
    assert_eq!(without_end.read(&ca, &query), Ok(Verdict { revoked: false, until: None }));
}

#[test]
fn ocsp_answers_that_count_for_nothing() {
    let ca = ca("ca");
    let query = query(&ca);
    let refused = |response: Response, why: &str| {
        let text = response.read(&ca, &query).unwrap_err().to_string();
        assert!(text.contains(why), "{text}, not {why}");
    };
    let d = Response::default;
    refused(Response { status: vec![0x82, 0], ..d() }, "does not know the certificate");
    refused(Response { next: Some(NOW), ..d() }, "has expired");
    refused(Response { this: NOW + 301, next: Some(NOW + 900), ..d() }, "of the future");
    refused(Response { this: NOW - 4000, next: None, ..d() }, "does not say how long");
    refused(Response { nonce: Some(vec![8; 32]), ..d() }, "another nonce");
    refused(Response { forged: true, ..d() }, "wrong signature");
    let mut other = params("another");
    other.serial_number = Some(SerialNumber::from_slice(&[0x18]));
    let other = other.signed_by(&KeyPair::generate().unwrap(), &ca).unwrap();
    refused(
        Response { about: Some(Query::new(other.der(), ca.der()).unwrap()), ..d() },
        "not about this certificate",
    );

    for (code, why) in [(1, "malformedRequest"), (3, "tryLater"), (6, "unauthorized")] {
        let response = dn::tlv(SEQUENCE, &dn::tlv(ENUMERATED, &[code]));
        let crypto = &ferry6_crypto::aws_lc::PROVIDER;
        let text = query.read_ocsp(crypto, &response, None, wall()).unwrap_err().to_string();
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn ocsp_responders() {
    let (ca, stranger) = (ca("ca"), ca("stranger"));
    let query = query(&ca);
    let responder = || {
        let mut params = params("responder");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
        params
    };
    let by = |params, issuer| Response { delegate: Some((params, issuer)), ..Response::default() };
    // The CA again, as an owned value: same name, same key.
    let again = |of: &Ca| {
        let mut params = params("ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca::self_signed(params, KeyPair::from_pem(&of.key().serialize_pem()).unwrap()).unwrap()
    };
    assert!(by(responder(), again(&ca)).read(&ca, &query).is_ok());
    let refused = |response: Response, why: &str| {
        let text = response.read(&ca, &query).unwrap_err().to_string();
        assert!(text.contains(why), "{text}, not {why}");
    };
    refused(by(params("responder"), again(&ca)), "lacks id-kp-OCSPSigning");
    let mut expired = responder();
    expired.not_after = date_time_ymd(2025, 1, 1);
    refused(by(expired, again(&ca)), "has expired");
    refused(by(responder(), stranger), "not issued by the CA");
    // Of the CA's name, but not of its key.
    refused(by(responder(), self::ca("ca")), "not issued by the CA");
    refused(Response { forged: true, ..by(responder(), again(&ca)) }, "wrong signature");
}

fn crl(ca: &Ca, revoked: &[u8], years: (i32, i32), point: Option<CrlIssuingDistributionPoint>) -> Vec<u8> {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(years.0, 1, 1),
        next_update: date_time_ymd(years.1, 1, 2),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: point,
        revoked_certs: revoked
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from_slice(&[*serial]),
                revocation_time: date_time_ymd(years.0, 1, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    params.signed_by(ca).unwrap().der().to_vec()
}

#[test]
fn fetched_crls() {
    let ca = ca("ca");
    let query = query(&ca);
    let read = |crl: &[u8]| {
        let [one, other] = providers().map(|crypto| query.read_crl(crypto, crl, wall()));
        assert_eq!(one, other);
        one.map(|verdict| verdict.revoked)
    };
    assert_eq!(read(&crl(&ca, &[0x16], (2025, 2030), None)), Ok(false));
    assert_eq!(read(&crl(&ca, &[0x16, 0x17], (2025, 2030), None)), Ok(true));
    let refused = |crl: Vec<u8>, why: &str| {
        let text = read(&crl).unwrap_err().to_string();
        assert!(text.contains(why), "{text}, not {why}");
    };
    refused(crl(&ca, &[], (2024, 2025), None), "has expired");
    refused(crl(&ca, &[], (2028, 2030), None), "of the future");
    refused(crl(&self::ca("other"), &[], (2025, 2030), None), "not of the certificate's issuer");
    refused(crl(&self::ca("ca"), &[], (2025, 2030), None), "wrong signature");
    refused(b"<html>404</html>".to_vec(), "cannot be taken");

    let point = |url: &str, scope| {
        let distribution_point = CrlDistributionPoint { uris: vec![url.to_owned()] };
        Some(CrlIssuingDistributionPoint { distribution_point, scope })
    };
    assert_eq!(read(&crl(&ca, &[], (2025, 2030), point(CRL, None))), Ok(false));
    assert_eq!(read(&crl(&ca, &[], (2025, 2030), point(CRL, Some(CrlScope::UserCertsOnly)))), Ok(false));
    refused(crl(&ca, &[], (2025, 2030), point("http://elsewhere/x.crl", None)), "for other certificates");
    refused(crl(&ca, &[], (2025, 2030), point(CRL, Some(CrlScope::CaCertsOnly))), "for other certificates");
}

#[test]
fn what_is_asked() {
    let ca = ca("ca");
    let crypto = &ferry6_crypto::aws_lc::PROVIDER;
    let identity = "client@my.domain".parse().unwrap();
    let verify = |leaf: CertificateDer<'static>, crls: &[CertificateRevocationListDer<'_>], policy| {
        verify_peer(crypto, &[leaf], &identity, &[ca.der().clone()], crls, policy, wall()).map(|v| v.queries)
    };
    let both = || leaf(&ca, &[OCSP], &[CRL]);
    for policy in [Revocation::IfUri, Revocation::Strict] {
        let asked = verify(both(), &[], policy).unwrap();
        assert_eq!(asked.len(), 1);
        assert_eq!((&asked[0].ocsp[..], &asked[0].crls[..]), (&[OCSP.to_owned()][..], &[CRL.to_owned()][..]));
        // What a configured CRL says need not be asked for, if it is fresh.
        let fresh = CertificateRevocationListDer::from(crl(&ca, &[], (2025, 2030), None));
        assert_eq!(verify(both(), &[fresh], policy), Ok(vec![]));
        let stale = CertificateRevocationListDer::from(crl(&ca, &[], (2024, 2025), None));
        assert_eq!(verify(both(), &[stale], policy).unwrap().len(), 1);
        let listed = CertificateRevocationListDer::from(crl(&ca, &[0x17], (2025, 2030), None));
        assert!(matches!(verify(both(), &[listed], policy), Err(CertError::Revoked { .. })));
    }
    assert_eq!(verify(both(), &[], Revocation::Off), Ok(vec![]));
    // Nobody to ask.
    let deaf = leaf(&ca, &["https://ca/"], &["ldap://ca/", "file:///etc/passwd"]);
    assert_eq!(verify(deaf.clone(), &[], Revocation::IfUri), Ok(vec![]));
    assert!(matches!(verify(deaf, &[], Revocation::Strict), Err(CertError::NoCrl { .. })));
}

#[test]
fn ocsp_requests() {
    let ca = ca("ca");
    let query = query(&ca);
    let [one, other] = providers().map(|crypto| query.ocsp_request(crypto, Some(NONCE)).unwrap());
    assert_eq!(one, other);
    let mut list = Der(&one).take(SEQUENCE).unwrap().take(SEQUENCE).unwrap();
    let mut request = list.take(SEQUENCE).unwrap().take(SEQUENCE).unwrap();
    let mut id = request.take(SEQUENCE).unwrap();
    id.take(SEQUENCE).unwrap();
    assert_eq!((id.take(OCTET_STRING).unwrap().0.len(), id.take(OCTET_STRING).unwrap().0.len()), (20, 20));
    assert_eq!(id.take(INTEGER).unwrap().0, [0x17]);
    assert_eq!(nonce_of(list.take(0xa2).unwrap()).unwrap(), Some(NONCE));
}

proptest! {
    #[test]
    fn any_octets_are_no_answer(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let query = Query { subject: String::new(), ocsp: vec![], crls: vec![], certificate: vec![], issuer: vec![] };
        let crypto = &ferry6_crypto::aws_lc::PROVIDER;
        prop_assert!(query.read_ocsp(crypto, &octets, None, wall()).is_err());
        prop_assert!(query.read_crl(crypto, &octets, wall()).is_err());
    }

    #[test]
    fn a_changed_octet_is_no_other_answer(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        thread_local!(static MADE: (Query, Vec<u8>) = {
            let ca = ca("ca");
            let query = query(&ca);
            let response = Response { status: revoked_info(), ..Response::default() }.build(&ca, &query);
            (query, response)
        });
        MADE.with(|(query, response)| {
            let mut changed = response.clone();
            let at = at.index(changed.len());
            changed[at] = to;
            let read = query.read_ocsp(&ferry6_crypto::aws_lc::PROVIDER, &changed, Some(NONCE), wall());
            prop_assert!(read.is_err() || read.is_ok_and(|verdict| verdict.revoked));
            Ok(())
        })?;
    }
}
