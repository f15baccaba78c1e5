//! The one file that a user gets: everything a client needs, as TOML.
//!
//! It holds no path and no option of the machine that it goes to, so that accepting it can do nothing but make a tunnel to its broker.

use crate::config::keys;
use anyhow::{Context as _, bail, ensure};
use ferry6_ike::certs::{self, CertError};
use ferry6_ike::config::Revocation;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The version that this program writes and reads.
const VERSION: u32 = 1;
/// No invitation is longer, in octets.
const LIMIT: u64 = 64 << 10;

/// An invitation.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// Version of this format.
    pub ferry6: u32,
    /// The user's name with the broker, and the proposed name of the tunnel.
    pub name: String,
    /// The broker's name or IPv4 address.
    pub broker: String,
    /// The broker's identity, as `dns:tunnel.my.domain`.
    pub broker_id: String,
    /// The broker's IKE port, where it is not 500.
    #[serde(default = "ike_port", skip_serializing_if = "is_ike_port")]
    pub port: u16,
    /// The broker's port for IKE and ESP in UDP, where it is not 4500.
    #[serde(default = "nat_port", skip_serializing_if = "is_nat_port")]
    pub nat_port: u16,
    /// The prefix that is routed to the user, where there is one: the client asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The CA's certificate, PEM.
    pub ca: String,
    /// The user's certificate and those between it and the CA, PEM.
    pub cert: String,
    /// The user's private key, PEM; absent where the user made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

fn ike_port() -> u16 {
    500
}
fn nat_port() -> u16 {
    4500
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_ike_port(port: &u16) -> bool {
    *port == ike_port()
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_nat_port(port: &u16) -> bool {
    *port == nat_port()
}

impl Invitation {
    /// The version to write.
    pub const VERSION: u32 = VERSION;

    /// As a file.
    ///
    /// # Errors
    /// It cannot be written as TOML.
    pub fn to_text(&self) -> anyhow::Result<String> {
        let secret = if self.key.is_some() {
            "It holds a private key: whoever has this file has the tunnel."
        } else {
            "It holds no private key: that stays where the request was made."
        };
        let body = toml::to_string(self).context("cannot write the invitation")?;
        // In a comment a line end would end it.
        let (broker, name) = (self.broker.escape_debug(), self.name.escape_debug());
        Ok(format!(
            "# An invitation to the IPv6 tunnel of {broker}. {secret}\n# sudo ferry6 client join FILE && sudo ferry6 client up {name}\n{body}"
        ))
    }

    /// Reads a file, or standard input for `-`.
    ///
    /// # Errors
    /// Unreadable, or not an invitation.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut text = String::new();
        let shown =
            if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let read = if path == Path::new("-") {
            std::io::stdin().take(LIMIT + 1).read_to_string(&mut text)
        } else {
            std::fs::File::open(path).and_then(|f| f.take(LIMIT + 1).read_to_string(&mut text))
        };
        let length = read.with_context(|| format!("cannot read {shown}"))?;
        if length as u64 > LIMIT {
            bail!("{shown} is no invitation: it is longer than {LIMIT} octets");
        }
        let parsed = Self::parse(&text);
        text.zeroize();
        parsed.with_context(|| format!("{shown} is no invitation"))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            ferry6: Option<u32>,
        }
        // The version first: another one may have other keys. The parser's own words could show the key: they are left out.
        let at = |e: &toml::de::Error| {
            e.span()
                .map_or_else(String::new, |s| format!("line {}: ", text[..s.start].lines().count().max(1)))
        };
        let head: Head = toml::from_str(text)
            .map_err(|e| anyhow::anyhow!("{}not TOML: {}{CUT}", at(&e), first_line(e.message())))?;
        match head.ferry6 {
            Some(VERSION) => {}
            Some(other) => bail!(
                "it is of version {other}, and this ferry6 reads version {VERSION}: take a newer ferry6"
            ),
            None => bail!("it does not begin with `ferry6 = {VERSION}`"),
        }
        toml::from_str(text).map_err(|e| anyhow::anyhow!("{}{}{CUT}", at(&e), first_line(e.message())))
    }

    /// Judges the certificate as the broker will: its dates, and that the CA of this invitation signed it. What was altered on its way
    /// is found here, and not by a broker that says no more than AUTHENTICATION_FAILED.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, now: SystemTime) -> anyhow::Result<()> {
        let chain = certificates(&self.cert).context("its certificate cannot be read")?;
        let anchors = certificates(&self.ca).context("the CA's certificate cannot be read")?;
        let names = keys::identities(&chain[0])
            .map_err(|e| anyhow::anyhow!("its certificate cannot be read: {e}"))?;
        let identity = names.first().context("its certificate names nobody")?;
        let crypto = ferry6_crypto::aws_lc::PROVIDER;
        match certs::verify_peer(&crypto, &chain, identity, &anchors, &[], Revocation::Off, now) {
            Ok(_) => Ok(()),
            Err(CertError::Validity { .. }) if seconds(now) > not_after(&chain[0]) => {
                bail!(
                    "it expired on {}: ask the broker's operator for another one",
                    keys::valid_until(&chain[0])
                )
            }
            Err(error @ CertError::Validity { .. }) => bail!("{error}; is this machine's clock right?"),
            Err(error) => {
                bail!("its certificate is not one that its CA made: {error}; was it altered on its way?")
            }
        }
    }

    /// Until when the certificate is valid, for people.
    pub fn valid_until(&self) -> String {
        certificates(&self.cert).map_or_else(|_| "?".to_owned(), |chain| keys::valid_until(&chain[0]))
    }
}

/// Ends what is said of a file that does not read as a whole.
const CUT: &str = " (was it cut on its way?)";

/// A parser may say more than one line.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn not_after(certificate: &CertificateDer<'_>) -> i64 {
    X509Certificate::from_der(certificate).map_or(i64::MAX, |(_, c)| c.validity().not_after.timestamp())
}

/// The certificates of a PEM text: at least one.
pub(super) fn certificates(pem: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let list =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().context("not PEM")?;
    ensure!(!list.is_empty(), "no certificate in it");
    Ok(list)
}
