//! Certificates for the cases, good and bad ones.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, RsaKeySize, SanType,
    SerialNumber, date_time_ymd,
};
use std::path::{Path, PathBuf};

/// Key types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Rsa2048,
    Rsa4096,
    EcdsaP256,
    EcdsaP384,
    Ed25519,
}

impl KeyType {
    fn generate(self) -> Result<KeyPair> {
        Ok(match self {
            Self::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
            Self::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096)?,
            Self::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
            Self::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519)?,
        })
    }
}

/// A CA with its files.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    name: String,
    key_type: KeyType,
    dir: PathBuf,
    /// Its certificate, PEM.
    pub cert: PathBuf,
}

/// An end entity's files.
#[derive(Clone, Debug)]
pub struct Entity {
    /// The leaf, PEM.
    pub cert: PathBuf,
    /// Its key, PKCS#8 PEM.
    pub key: PathBuf,
    serial: Vec<u8>,
}

impl Entity {
    /// The files `name.crt` and `name.key`, made by somebody else.
    pub fn from_files(dir: &Path, name: &str) -> Self {
        let file = |kind: &str| dir.join(format!("{name}.{kind}"));
        Self { cert: file("crt"), key: file("key"), serial: Vec::new() }
    }
}

/// What is special about a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaw {
    /// Its time is over.
    pub expired: bool,
}

fn serial() -> Vec<u8> {
    // Unique within a case's CA; a name is part of it so that nothing depends on order.
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0x1000);
    NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec()
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::OrganizationName, "ferry6 interop");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2070, 1, 1);
    params.serial_number = Some(SerialNumber::from(serial()));
    params.use_authority_key_identifier_extension = true;
    params
}

impl Ca {
    /// A self-signed CA, its certificate at `dir/name.crt`.
    pub fn new(dir: &Path, name: &str, key_type: KeyType) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let key = key_type.generate()?;
        let params = ca_params(name);
        let cert = dir.join(format!("{name}.crt"));
        std::fs::write(&cert, params.self_signed(&key)?.pem())?;
        Ok(Self { issuer: Issuer::new(params, key), name: name.into(), key_type, dir: dir.into(), cert })
    }

    /// An intermediate CA below this one.
    pub fn intermediate(&self, name: &str) -> Result<Self> {
        let key = self.key_type.generate()?;
        let mut params = ca_params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let cert = self.dir.join(format!("{name}.crt"));
        std::fs::write(&cert, params.signed_by(&key, &self.issuer)?.pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            name: name.into(),
            key_type: self.key_type,
            dir: self.dir.clone(),
            cert,
        })
    }

    /// A certificate with this subjectAltName: an address with @ or a DNS name.
    pub fn issue(&self, name: &str, san: &str, key_type: KeyType, flaw: Flaw) -> Result<Entity> {
        let key_pair = key_type.generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![if san.contains('@') {
            SanType::Rfc822Name(san.try_into()?)
        } else {
            SanType::DnsName(san.try_into()?)
        }];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = if flaw.expired { date_time_ymd(2021, 1, 1) } else { date_time_ymd(2070, 1, 1) };
        let serial = serial();
        params.serial_number = Some(SerialNumber::from(serial.clone()));
        params.use_authority_key_identifier_extension = true;
        let cert = self.dir.join(format!("{name}.crt"));
        let key = self.dir.join(format!("{name}.key"));
        std::fs::write(&cert, params.signed_by(&key_pair, &self.issuer)?.pem())?;
        write_private(&key, &key_pair.serialize_pem())?;
        Ok(Entity { cert, key, serial })
    }

    /// A CRL of this CA that lists these certificates, at `dir/name.crl` (PEM).
    pub fn revoke(&self, entities: &[&Entity]) -> Result<PathBuf> {
        let crl = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2070, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: entities
                .iter()
                .map(|e| RevokedCertParams {
                    serial_number: SerialNumber::from(e.serial.clone()),
                    revocation_time: date_time_ymd(2020, 6, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)?;
        let file = self.dir.join(format!("{}.crl", self.name));
        std::fs::write(&file, crl.pem()?)?;
        Ok(file)
    }
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
