//! Certificates for the cases, good and bad ones, by `ferry6 pki` and its files.

use anyhow::{Error, Result};
pub use ferry6::pki::KeyType;
use ferry6::pki::store::{CaFiles, parse_time};
use ferry6::pki::{Authority, Profile, Revocation, Validity};
use std::path::{Path, PathBuf};

/// A CA with its files.
pub struct Ca {
    authority: Authority,
    files: CaFiles,
    key_type: KeyType,
    dir: PathBuf,
    /// Its certificate, PEM.
    pub cert: PathBuf,
}

/// An end entity's files.
#[derive(Clone, Debug)]
pub struct Entity {
    /// The leaf, then the intermediate CAs above it, PEM.
    pub cert: PathBuf,
    /// Its key, PKCS#8 PEM.
    pub key: PathBuf,
}

impl Entity {
    /// The files `name.crt` and `name.key`.
    pub fn from_files(dir: &Path, name: &str) -> Self {
        let file = |kind: &str| dir.join(format!("{name}.{kind}"));
        Self { cert: file("crt"), key: file("key") }
    }
}

/// What is special about a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaw {
    /// Its time is over.
    pub expired: bool,
}

impl Ca {
    /// A self-signed CA, its certificate at `dir/name.crt`.
    pub fn new(dir: &Path, name: &str, key_type: KeyType) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        Self::save(dir, name, key_type, Authority::root(&Profile::new(name)?.key_type(key_type))?)
    }

    /// An intermediate CA below this one.
    pub fn intermediate(&self, name: &str) -> Result<Self> {
        let profile = Profile::new(name)?.key_type(self.key_type);
        Self::save(&self.dir, name, self.key_type, self.authority.intermediate(&profile)?)
    }

    fn save(dir: &Path, name: &str, key_type: KeyType, authority: Authority) -> Result<Self> {
        let files = CaFiles::new(&dir.join(name));
        files.save(&authority, true)?;
        Ok(Self { authority, cert: files.certificate(), files, key_type, dir: dir.into() })
    }

    /// A certificate with this subjectAltName: an address with @ or a DNS name.
    pub fn issue(&self, name: &str, san: &str, key_type: KeyType, flaw: Flaw) -> Result<Entity> {
        let mut profile = Profile { common_name: name.into(), key_type, ..Profile::for_name(san)? };
        if flaw.expired {
            let time = |text| parse_time(text).map_err(Error::msg);
            profile.validity = Validity { not_before: time("2020-01-01")?, not_after: time("2021-01-01")? };
        }
        let credential = self.authority.issue(&profile)?;
        self.files.record_issued(&credential.certificate)?;
        CaFiles::new(&self.dir.join(name)).save_credential(&credential, true)?;
        Ok(Entity::from_files(&self.dir, name))
    }

    /// A certificate that names CRL distribution points and OCSP responders.
    pub fn issue_with(&self, name: &str, san: &str, crls: &[&str], ocsp: &[&str]) -> Result<Entity> {
        let urls = |list: &[&str]| list.iter().map(|url| (*url).to_owned()).collect();
        let profile = Profile {
            common_name: name.into(),
            key_type: self.key_type,
            crl_urls: urls(crls),
            ocsp_urls: urls(ocsp),
            ..Profile::for_name(san)?
        };
        let credential = self.authority.issue(&profile)?;
        self.files.record_issued(&credential.certificate)?;
        CaFiles::new(&self.dir.join(name)).save_credential(&credential, true)?;
        Ok(Entity::from_files(&self.dir, name))
    }

    /// A certificate's serial number.
    pub fn serial_of(&self, entity: &Entity) -> Result<Vec<u8>> {
        self.files.serial_of(&entity.cert)
    }

    /// Its private key, PEM.
    pub fn key(&self) -> PathBuf {
        self.files.key()
    }

    /// Its CRL, PEM.
    pub fn crl(&self) -> PathBuf {
        self.files.crl()
    }

    /// A CRL of this CA that lists this certificate, PEM.
    pub fn revoke(&self, entity: &Entity) -> Result<PathBuf> {
        self.files.record_revoked(&self.files.serial_of(&entity.cert)?, Revocation::Unspecified)?;
        let validity = Validity::days(30)?;
        self.files.write_crl(validity.not_before, validity.not_after)?;
        Ok(self.files.crl())
    }
}
