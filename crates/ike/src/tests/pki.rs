//! Certificates for tests, as the article has them.

use crate::config::{Connection, Credential, PeerAuth, Revocation};
use crate::testing::psk_connections;
use ferry6_crypto::CryptoProvider;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CrlDistributionPoint, DnType, IsCa, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::sync::Arc;

pub(super) type Ca = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}

pub(super) fn ca(name: &str) -> Ca {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ca::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A CA below another one.
pub(super) fn intermediate(name: &str, root: &Ca) -> Ca {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ca::signed_by(params, KeyPair::generate().unwrap(), root).unwrap()
}

pub(super) struct Leaf {
    pub(super) san: SanType,
    pub(super) serial: u8,
    pub(super) not_after: i32,
    pub(super) algorithm: &'static SignatureAlgorithm,
}

pub(super) fn email(address: &str) -> Leaf {
    Leaf {
        san: SanType::Rfc822Name(address.try_into().unwrap()),
        serial: 7,
        not_after: 2040,
        algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
    }
}

pub(super) fn dns(name: &str) -> Leaf {
    Leaf { san: SanType::DnsName(name.try_into().unwrap()), ..email("x@y") }
}

pub(super) fn issue(crypto: &CryptoProvider, ca: &Ca, leaf: Leaf, chain: &[&Ca]) -> Credential {
    issue_by(crypto, ca, leaf, chain, params("leaf"))
}

/// A certificate that says where the CRL of its CA is.
pub(super) fn issue_with_crl(crypto: &CryptoProvider, ca: &Ca, leaf: Leaf) -> Credential {
    let mut params = params("leaf");
    params.crl_distribution_points =
        vec![CrlDistributionPoint { uris: vec!["http://ca.my.domain/ca.crl".to_owned()] }];
    issue_by(crypto, ca, leaf, &[], params)
}

fn issue_by(
    crypto: &CryptoProvider,
    ca: &Ca,
    leaf: Leaf,
    chain: &[&Ca],
    mut params: CertificateParams,
) -> Credential {
    params.subject_alt_names = vec![leaf.san];
    params.serial_number = Some(SerialNumber::from_slice(&[leaf.serial]));
    params.not_after = date_time_ymd(leaf.not_after, 1, 1);
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(leaf.algorithm).unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut all = vec![certificate.der().clone()];
    all.extend(chain.iter().map(|ca| ca.der().clone()));
    Credential::Certificate { chain: all, key: Arc::from(crypto.signatures.load_key(&der).unwrap()) }
}

pub(super) fn crl(ca: &Ca, revoked: u8) -> CertificateRevocationListDer<'static> {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 1, 1),
        next_update: date_time_ymd(2030, 1, 1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[revoked]),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    params.signed_by(ca).unwrap().into()
}

pub(super) fn trust(anchor: &Ca) -> PeerAuth {
    let anchor: CertificateDer<'static> = anchor.der().clone();
    PeerAuth::Certificate { anchors: vec![anchor], crls: vec![], revocation: Revocation::IfUri }
}

/// The article's pair: one CA, `email:client@my.domain` and `DNS:tunnel.my.domain`.
pub(super) fn connections(crypto: &CryptoProvider, ca: &Ca) -> (Connection, Connection) {
    let (mut client, mut broker) = psk_connections();
    client.credential = issue(crypto, ca, email("client@my.domain"), &[]);
    client.peer_auth = trust(ca);
    broker.credential = issue(crypto, ca, dns("tunnel.my.domain"), &[]);
    broker.peer_auth = trust(ca);
    (client, broker)
}
