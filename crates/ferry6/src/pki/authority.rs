//! Certification authorities, and what they sign (RFC 5280, profiled by RFC 4945 section 5).

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    CrlDistributionPoint, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevocationReason, RevokedCertParams, RsaKeySize,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// id-kp-ipsecIKE (RFC 4945 section 5.1.3.12).
const IPSEC_IKE: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 17];

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The period is empty or no date.
    #[error("validity: {0}")]
    Validity(String),
    /// The CA's files do not fit together, or are not a CA's.
    #[error("not a usable CA: {0}")]
    Authority(String),
    /// Not a name of its kind.
    #[error("`{text}` {problem}")]
    Name {
        /// What was given.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// A key or signature cannot be made.
    #[error("cannot make it: {0}")]
    Sign(#[from] rcgen::Error),
    /// Not a certificate request, or not signed by its key.
    #[error("not a certificate request (PKCS #10, PEM): {0}")]
    Request(String),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyType {
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// RSA, 4096 bits.
    Rsa4096,
    /// ECDSA on P-256.
    Ecdsa256,
    /// ECDSA on P-384.
    Ecdsa384,
    /// Ed25519 (OpenIKED and Windows cannot use it).
    Ed25519,
}

impl KeyType {
    fn generate(self) -> Result<KeyPair, Error> {
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        Ok(match self {
            KeyType::Rsa2048 => rsa(RsaKeySize::_2048),
            KeyType::Rsa3072 => rsa(RsaKeySize::_3072),
            KeyType::Rsa4096 => rsa(RsaKeySize::_4096),
            KeyType::Ecdsa256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyType::Ecdsa384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyType::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        }?)
    }
}

/// An identity in a subjectAltName: `email:client@my.domain`, `dns:tunnel.my.domain`, `ip:192.0.2.1`; without the kind it is
/// found out by its looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// rfc822Name.
    Email(String),
    /// dNSName.
    Dns(String),
    /// iPAddress.
    Ip(IpAddr),
}

impl Name {
    /// The name without its kind.
    pub fn value(&self) -> String {
        match self {
            Name::Email(text) | Name::Dns(text) => text.clone(),
            Name::Ip(ip) => ip.to_string(),
        }
    }

    fn san(&self) -> Result<SanType, Error> {
        Ok(match self {
            Name::Email(text) => SanType::Rfc822Name(text.as_str().try_into()?),
            Name::Dns(text) => SanType::DnsName(text.as_str().try_into()?),
            Name::Ip(ip) => SanType::IpAddress(*ip),
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Name::Email(_) => "email",
            Name::Dns(_) => "dns",
            Name::Ip(_) => "ip",
        };
        write!(f, "{kind}:{}", self.value())
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Name, Error> {
        let fail = |problem: &str| Err(Error::Name { text: text.into(), problem: problem.into() });
        let kind = text.split_once(':').map(|(kind, value)| (kind.to_ascii_lowercase(), value));
        match kind.as_ref().map(|(kind, value)| (kind.as_str(), *value)) {
            Some(("email" | "rfc822", value)) if is_email(value) => Ok(Name::Email(value.into())),
            Some(("email" | "rfc822", _)) => fail("is not an e-mail address, like email:client@my.domain"),
            Some(("dns" | "fqdn", value)) if is_dns(value) => Ok(Name::Dns(value.into())),
            Some(("dns" | "fqdn", _)) => {
                fail("is not a host name, like dns:tunnel.my.domain (non-ASCII names as xn--…)")
            }
            Some(("ip", value)) => match value.parse() {
                Ok(ip) => Ok(Name::Ip(ip)),
                Err(_) => fail("is not an IP address, like ip:192.0.2.1"),
            },
            _ => match text.parse() {
                Ok(ip) => Ok(Name::Ip(ip)),
                Err(_) if is_email(text) => Ok(Name::Email(text.into())),
                Err(_) if is_dns(text) => Ok(Name::Dns(text.into())),
                Err(_) => fail("is none of email:client@my.domain, dns:tunnel.my.domain, ip:192.0.2.1"),
            },
        }
    }
}

fn is_dns(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (1..=253).contains(&text.len()) && text.split('.').all(label)
}

fn is_email(text: &str) -> bool {
    let local = |local: &str| {
        (1..=64).contains(&local.len())
            && local.bytes().all(|b| b.is_ascii_graphic() && !b"\"(),:;<>@[\\]".contains(&b))
    };
    text.rsplit_once('@').is_some_and(|(name, domain)| local(name) && is_dns(domain))
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// First moment.
    pub not_before: OffsetDateTime,
    /// Last moment.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From an hour ago, as clocks differ, to so many days from now.
    ///
    /// # Errors
    /// The end is beyond the year 9999.
    pub fn days(days: u32) -> Result<Validity, Error> {
        let now = OffsetDateTime::now_utc();
        let not_after = now
            .checked_add(Duration::days(days.into()))
            .ok_or_else(|| Error::Validity(format!("{days} days from now is beyond the year 9999")))?;
        Ok(Validity { not_before: now - Duration::HOUR, not_after })
    }

    /// The same, if it is not empty.
    ///
    /// # Errors
    /// It ends before it begins.
    pub fn checked(self) -> Result<Validity, Error> {
        if self.not_after <= self.not_before {
            return Err(Error::Validity(format!(
                "it ends ({}) before it begins ({})",
                self.not_after, self.not_before
            )));
        }
        Ok(self)
    }
}

/// What to certify.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Common name of the subject.
    pub common_name: String,
    /// Organisation of the subject.
    pub organisation: Option<String>,
    /// Kind of key to make.
    pub key_type: KeyType,
    /// Period.
    pub validity: Validity,
    /// Identities; none for a CA.
    pub names: Vec<Name>,
    /// CRL distribution points.
    pub crl_urls: Vec<String>,
    /// OCSP responders.
    pub ocsp_urls: Vec<String>,
}

const AUTHORITY_INFO_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
/// id-ad-ocsp, 1.3.6.1.5.5.7.48.1, in DER.
const OCSP: &[u8] = &[0x06, 8, 0x2b, 6, 1, 5, 5, 7, 48, 1];

/// RFC 5280 section 4.2.2.1, with OCSP responders alone.
fn authority_info_access(urls: &[String]) -> Result<Vec<u8>, Error> {
    fn tlv(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
        let [high, low] = u16::try_from(content.len()).ok()?.to_be_bytes();
        let header = match (high, low) {
            (0, 0..=0x7f) => vec![tag, low],
            (0, _) => vec![tag, 0x81, low],
            _ => vec![tag, 0x82, high, low],
        };
        Some([header.as_slice(), content].concat())
    }
    let describe = |url: &String| tlv(0x30, &[OCSP, &tlv(0x86, url.as_bytes())?].concat());
    let descriptions = urls.iter().map(describe).collect::<Option<Vec<_>>>().map(|all| all.concat());
    let whole =
        descriptions.filter(|_| urls.iter().all(|url| url.is_ascii())).and_then(|all| tlv(0x30, &all));
    whole.ok_or_else(|| Error::Validity("an OCSP URL is too long, or not in ASCII".into()))
}

impl Profile {
    /// A profile with only a name: ECDSA on P-256, a year.
    ///
    /// # Errors
    /// None but in the year 9998.
    pub fn new(common_name: &str) -> Result<Profile, Error> {
        Ok(Profile {
            common_name: common_name.into(),
            organisation: None,
            key_type: KeyType::Ecdsa256,
            validity: Validity::days(365)?,
            names: Vec::new(),
            crl_urls: Vec::new(),
            ocsp_urls: Vec::new(),
        })
    }

    /// The same for an identity, which becomes the common name, too.
    ///
    /// # Errors
    /// Not a name.
    pub fn for_name(name: &str) -> Result<Profile, Error> {
        let name = name.parse::<Name>()?;
        Ok(Profile { names: vec![name.clone()], ..Profile::new(&name.value())? })
    }

    /// The same with another kind of key.
    pub fn key_type(self, key_type: KeyType) -> Profile {
        Profile { key_type, ..self }
    }

    fn params(&self) -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::default();
        params.not_before = self.validity.not_before;
        params.not_after = self.validity.not_after;
        let mut serial = [0u8; 16];
        getrandom::fill(&mut serial).map_err(Error::Random)?;
        // RFC 5280 section 4.1.2.2: positive; here always of full length, too.
        serial[0] = serial[0] & 0x3f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = DistinguishedName::new();
        if let Some(organisation) = &self.organisation {
            params.distinguished_name.push(DnType::OrganizationName, organisation.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        params.subject_alt_names = self.names.iter().map(Name::san).collect::<Result<_, _>>()?;
        if !self.crl_urls.is_empty() {
            params.crl_distribution_points = vec![CrlDistributionPoint { uris: self.crl_urls.clone() }];
        }
        if !self.ocsp_urls.is_empty() {
            let content = authority_info_access(&self.ocsp_urls)?;
            params.custom_extensions.push(CustomExtension::from_oid_content(AUTHORITY_INFO_ACCESS, content));
        }
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn ca_params(&self) -> Result<CertificateParams, Error> {
        let mut params = self.params()?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(params)
    }
}

/// Why a certificate is revoked (RFC 5280 section 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Revocation {
    /// Not told.
    Unspecified,
    /// The key is known to others.
    KeyCompromise,
    /// The holder's affiliation changed.
    AffiliationChanged,
    /// There is a new certificate.
    Superseded,
    /// It is no longer needed.
    CessationOfOperation,
}

impl Revocation {
    fn code(self) -> Option<RevocationReason> {
        match self {
            // The extension is left out then, as RFC 5280 asks.
            Revocation::Unspecified => None,
            Revocation::KeyCompromise => Some(RevocationReason::KeyCompromise),
            Revocation::AffiliationChanged => Some(RevocationReason::AffiliationChanged),
            Revocation::Superseded => Some(RevocationReason::Superseded),
            Revocation::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
        }
    }
}

/// A revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Serial number, big-endian.
    pub serial: Vec<u8>,
    /// When.
    pub time: OffsetDateTime,
    /// Why.
    pub reason: Revocation,
}

/// A certificate and its key.
pub struct Credential {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The intermediate CAs above it, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key, PKCS#8 in PEM.
    pub key_pem: Zeroizing<String>,
}

impl Credential {
    /// The certificate and the intermediate CAs, leaf first, in PEM.
    pub fn certificates_pem(&self) -> String {
        chain_pem(&self.certificate, &self.chain)
    }
}

/// A new key and a request for a certificate for it: both PEM.
///
/// # Errors
/// See [`Error`].
pub fn request(common_name: &str, key_type: KeyType) -> Result<(Zeroizing<String>, String), Error> {
    let key = key_type.generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let request = params.serialize_request(&key)?.pem()?;
    Ok((key_pem(&key), request))
}

/// A certification authority.
pub struct Authority {
    certificate: CertificateDer<'static>,
    /// The CAs above, up to but without the root; empty for a root.
    chain: Vec<CertificateDer<'static>>,
    issuer: Issuer<'static, KeyPair>,
    key_identifier: Vec<u8>,
}

impl Authority {
    /// A root, which signs itself.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn root(profile: &Profile) -> Result<Authority, Error> {
        let key = profile.key_type.generate()?;
        let params = profile.ca_params()?;
        let certificate = params.self_signed(&key)?.der().clone();
        Authority::assemble(certificate, Vec::new(), key)
    }

    /// A CA below this one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn intermediate(&self, profile: &Profile) -> Result<Authority, Error> {
        let key = profile.key_type.generate()?;
        let params = profile.ca_params()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Authority::assemble(certificate, self.chain_below(), key)
    }

    /// A CA from its certificate, those above it, and its key in PEM.
    ///
    /// # Errors
    /// [`Error::Authority`].
    pub fn load(
        certificate: CertificateDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        key_pem: &str,
    ) -> Result<Authority, Error> {
        let key = KeyPair::from_pem(key_pem)
            .map_err(|e| Error::Authority(format!("its key cannot be read: {e}")))?;
        Authority::assemble(certificate, chain, key)
    }

    fn assemble(
        certificate: CertificateDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        key: KeyPair,
    ) -> Result<Authority, Error> {
        let bad = |problem: String| Error::Authority(problem);
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|e| bad(format!("its certificate cannot be read: {e}")))?;
        if !parsed.is_ca() {
            return Err(bad(format!("{} is not the certificate of a CA", parsed.subject())));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(bad(format!("the key does not belong to the certificate of {}", parsed.subject())));
        }
        let key_identifier = parsed
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
            .ok_or_else(|| bad("its certificate has no subjectKeyIdentifier".into()))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Authority { certificate, chain, issuer, key_identifier })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its certificate and the intermediate CAs above, in PEM.
    pub fn certificates_pem(&self) -> String {
        chain_pem(&self.certificate, &self.chain)
    }

    /// Its private key, PKCS#8 in PEM.
    pub fn key_pem(&self) -> Zeroizing<String> {
        key_pem(self.issuer.key())
    }

    /// What stands between the root and what this CA issues.
    fn chain_below(&self) -> Vec<CertificateDer<'static>> {
        let root = X509Certificate::from_der(&self.certificate).is_ok_and(|(_, c)| c.issuer() == c.subject());
        if root {
            Vec::new()
        } else {
            std::iter::once(&self.certificate).chain(&self.chain).cloned().collect()
        }
    }

    /// Issues a certificate for IKE, with a new key.
    ///
    /// RFC 4945 section 5.1.3.12 wants no extendedKeyUsage, or one with ipsecIKE; Windows wants serverAuth in a gateway's
    /// certificate and clientAuth in a client's. So all three stand in it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn issue(&self, profile: &Profile) -> Result<Credential, Error> {
        let key = profile.key_type.generate()?;
        let certificate = self.certify(profile, &key)?;
        Ok(Credential { certificate, chain: self.chain_below(), key_pem: key_pem(&key) })
    }

    /// Issues a certificate for a key that was made elsewhere. Of the request (PKCS #10, PEM) only the public key counts, and
    /// that its holder signed it: who it is for, says the profile. Gives the certificate and those between it and the root, in PEM.
    ///
    /// # Errors
    /// The request is none, or see [`Error`].
    pub fn sign(&self, profile: &Profile, request: &str) -> Result<(CertificateDer<'static>, String), Error> {
        let request =
            CertificateSigningRequestParams::from_pem(request).map_err(|e| Error::Request(e.to_string()))?;
        let certificate = self.certify(profile, &request.public_key)?;
        let text = chain_pem(&certificate, &self.chain_below());
        Ok((certificate, text))
    }

    fn certify(&self, profile: &Profile, key: &impl PublicKeyData) -> Result<CertificateDer<'static>, Error> {
        let mut params = profile.params()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::Other(IPSEC_IKE.to_vec()),
        ];
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }

    /// A CRL in PEM, with authorityKeyIdentifier and cRLNumber.
    ///
    /// # Errors
    /// `next_update` is not later than `this_update`, or see [`Error`].
    pub fn crl(
        &self,
        revoked: &[Revoked],
        this_update: OffsetDateTime,
        next_update: OffsetDateTime,
    ) -> Result<String, Error> {
        if next_update <= this_update {
            return Err(Error::Validity("the CRL's next update is not later than this one".into()));
        }
        // RFC 5280 section 5.2.3: it only grows. Milliseconds do, across any two runs.
        let number = (OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).max(0) as u64;
        let entry = |r: &Revoked| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&r.serial),
            revocation_time: r.time,
            reason_code: r.reason.code(),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(self.key_identifier.clone()),
        };
        Ok(pem("X509 CRL", params.signed_by(&self.issuer)?.der()))
    }
}

/// A serial number as people write it: `4f:01:…`.
pub fn serial_text(serial: &[u8]) -> String {
    serial.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

fn key_pem(key: &KeyPair) -> Zeroizing<String> {
    /// PKCS#8 version 1 of an Ed25519 key (RFC 8410 section 7), up to the seed.
    const ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der = Zeroizing::new(key.serialize_der());
    // Version 2, which adds the public key, is unknown to older OpenSSL and to strongSwan.
    let (version_2, same) = (der.get(4) == Some(&1), der.get(5..16) == Some(&ED25519[5..]));
    match der.get(16..48) {
        Some(seed) if version_2 && same => pem_secret(&Zeroizing::new([&ED25519, seed].concat())),
        _ => pem_secret(&der),
    }
}

fn chain_pem(first: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> String {
    std::iter::once(first).chain(above).map(|c| pem("CERTIFICATE", c)).collect()
}

fn pem_secret(der: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(pem("PRIVATE KEY", der))
}

/// DER in PEM (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    pkcs8::der::pem::encode_string(label, pkcs8::LineEnding::LF, der)
        .expect("PEM of a file in memory cannot fail")
}
