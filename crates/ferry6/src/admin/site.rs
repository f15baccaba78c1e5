//! The directory of a broker: its configuration, its CA, and the certificates of its users.
//!
//! - `broker.toml`: the configuration
//! - `ca.crt`, `ca.key`, `ca.index`, `ca.crl`
//! - `broker.crt`, `broker.key`
//! - `invite.toml`: what `init` was told, for the invitations: address, identity, ports, domain of the users
//! - `users/NAME.crt`
//! - `users.toml`: what is set for single users ([`crate::config::users`])

use super::usage;
use crate::config::{Users, keys, values};
use crate::pki::authority::serial_text;
use crate::pki::store::CaFiles;
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The directory.
#[derive(Clone, Debug)]
pub struct Site {
    directory: PathBuf,
}

/// `invite.toml`: what every invitation repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The broker's name or IPv4 address as clients reach it.
    pub address: String,
    /// Its identity: `dns:tunnel.my.domain`, `ip:5.6.7.8`.
    pub identity: String,
    /// Domain of the users' identities: alice is `email:alice@DOMAIN`.
    pub domain: String,
    /// Port of IKE as clients reach it.
    pub port: u16,
    /// Port of IKE and ESP in UDP as clients reach it.
    pub nat_port: u16,
}

/// Whether a user may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// May come in.
    Valid,
    /// Is switched off (`ferry6 broker disable`).
    Disabled,
    /// The time of the certificate, or of the user, is over.
    Expired,
    /// The certificate was revoked.
    Revoked,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Valid => "valid",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        })
    }
}

/// A user, by the certificate that was issued last.
#[derive(Clone, Debug, Serialize)]
pub struct User {
    /// The name.
    pub name: String,
    /// `client@my.domain`.
    pub identity: String,
    /// Serial number of the certificate.
    pub serial: String,
    /// Last moment of the certificate's validity, seconds since 1970.
    pub valid_until: i64,
    /// From when on the user is not let in, seconds since 1970; absent where only the certificate's time counts.
    pub expires: Option<i64>,
    /// Whether the user may come in.
    pub standing: Standing,
    /// Why the user is disabled, where that was told.
    pub reason: Option<String>,
    /// The address that is set for the user.
    pub fixed_address: Option<Ipv6Addr>,
    /// The prefix that is set for the user.
    pub fixed_prefix: Option<String>,
    /// Whether the certificate is good, whatever else is set for the user.
    #[serde(skip)]
    pub certified: bool,
}

impl User {
    /// Whether it is this identity: a store's spelling may differ in its case.
    pub fn is(&self, identity: &str) -> bool {
        identity.eq_ignore_ascii_case(&self.identity)
    }

    /// Until when the user may come in: the certificate's time, or the user's where that is shorter.
    pub fn until(&self) -> i64 {
        self.expires.map_or(self.valid_until, |at| at.min(self.valid_until))
    }
}

impl Site {
    /// The directory, which need not exist.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The CA's files.
    pub fn ca(&self) -> CaFiles {
        CaFiles::new(&self.directory.join("ca"))
    }

    /// The broker's certificate and key.
    pub fn credential(&self) -> CaFiles {
        CaFiles::new(&self.directory.join("broker"))
    }

    /// The configuration.
    pub fn configuration(&self) -> PathBuf {
        self.directory.join("broker.toml")
    }

    /// What invitations repeat.
    pub fn offer_file(&self) -> PathBuf {
        self.directory.join("invite.toml")
    }

    /// Certificates of the users.
    pub fn users_directory(&self) -> PathBuf {
        self.directory.join("users")
    }

    /// A user's certificate.
    pub fn user_file(&self, name: &str) -> PathBuf {
        self.users_directory().join(format!("{name}.crt"))
    }

    /// Reads what invitations repeat.
    ///
    /// # Errors
    /// There is no broker in this directory, or the file is wrong.
    pub fn offer(&self) -> anyhow::Result<Offer> {
        let path = self.offer_file();
        let text = match crate::files::read_text(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(usage(format!(
                    "{} was not made by `ferry6 broker init` (there is no {}); do that first, or name the broker's directory \
                     with --dir",
                    self.directory.display(),
                    path.display()
                )));
            }
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        toml::from_str(&text).map_err(|e| usage(format!("{}: {e}", path.display())))
    }

    /// All users by name.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn users(&self) -> anyhow::Result<Vec<User>> {
        let directory = self.users_directory();
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| directory.display().to_string()),
        };
        let revoked: Vec<Vec<u8>> = self.ca().revoked()?.into_iter().map(|r| r.serial).collect();
        let settings = Users::read(&Users::file(&self.configuration()))?;
        let now = OffsetDateTime::now_utc();
        let mut users = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| directory.display().to_string())?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".crt"))
            else {
                continue;
            };
            users.push(read_user(name, &path, &revoked, &settings, now)?);
        }
        users.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(users)
    }

    /// One user.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn user(&self, name: &str) -> anyhow::Result<User> {
        let users = self.users()?;
        // By the identity, too: that is what logs and `status` show.
        if let Some(user) = users.iter().find(|u| u.name == name || u.identity == name) {
            return Ok(user.clone());
        }
        let near = users.iter().map(|u| (strsim::jaro_winkler(&u.name, name), &u.name));
        let hint = near
            .filter(|(score, _)| *score > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or_else(String::new, |(_, n)| format!("; do you mean {n}?"));
        bail!("there is no user {name}{hint} (ferry6 broker list)")
    }
}

fn read_user(
    name: &str,
    path: &Path,
    revoked: &[Vec<u8>],
    settings: &Users,
    now: OffsetDateTime,
) -> anyhow::Result<User> {
    let chain = keys::certificates(path).map_err(anyhow::Error::msg)?;
    let (_, parsed) = X509Certificate::from_der(&chain[0]).with_context(|| path.display().to_string())?;
    let identity = parsed.subject_alternative_name().ok().flatten().and_then(|san| {
        san.value.general_names.iter().find_map(|n| match n {
            GeneralName::RFC822Name(text) | GeneralName::DNSName(text) => Some((*text).to_owned()),
            _ => None,
        })
    });
    let valid_until = parsed.validity().not_after.timestamp();
    let identity = identity.unwrap_or_else(|| parsed.subject().to_string());
    let settings =
        values::identity(&identity).ok().and_then(|id| settings.get(&id)).cloned().unwrap_or_default();
    let revoked = revoked.iter().any(|serial| serial == parsed.raw_serial());
    let certificate_expired = valid_until < now.unix_timestamp();
    let standing = if revoked {
        Standing::Revoked
    } else if settings.disabled {
        Standing::Disabled
    } else if certificate_expired || settings.barred(now).is_some() {
        Standing::Expired
    } else {
        Standing::Valid
    };
    Ok(User {
        name: name.to_owned(),
        identity,
        serial: serial_text(parsed.raw_serial()),
        valid_until,
        expires: settings.expires.map(OffsetDateTime::unix_timestamp),
        standing,
        reason: settings.reason,
        fixed_address: settings.address,
        fixed_prefix: settings.prefix.map(|p| p.to_string()),
        certified: !revoked && !certificate_expired,
    })
}
