//! An invitation for clients that take a profile: strongSwan's Android app (`.sswan`) and Apple's systems (`.mobileconfig`).
//!
//! Certificate and key lie in either as PKCS #12 (RFC 7292) under a password that is not in the file: whoever imports it types it.

use super::invitation::{Invitation, certificates};
use anyhow::{Context as _, bail};
use base64ct::{Base64, Encoding as _};
use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use plist::{Dictionary, Value};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use uuid::Uuid;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

/// Which system's PKCS #12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    /// PBES2 with AES-256, and SHA2-256.
    Modern,
    /// PBE with triple DES, and SHA-1: all that older Keychains read. The password's 100 random bits make up for it.
    Legacy,
}

/// A profile, and the password that its import asks for.
pub struct Profile {
    /// The file.
    pub text: Zeroizing<String>,
    /// Of its PKCS #12.
    pub password: Zeroizing<String>,
}

/// What both kinds of profile need of an invitation.
struct Parts {
    /// The user's certificate and those between it and the CA.
    chain: Vec<CertificateDer<'static>>,
    authorities: Vec<CertificateDer<'static>>,
    /// The user's identity, as `alice@ferry6`.
    local_id: String,
    /// The broker's, without its kind.
    remote_id: String,
    password: Zeroizing<String>,
}

impl Parts {
    fn of(invitation: &Invitation) -> anyhow::Result<Self> {
        let chain = certificates(&invitation.cert)?;
        Ok(Self {
            local_id: identity_of(&chain[0]).unwrap_or_else(|| invitation.name.clone()),
            remote_id: bare(&invitation.broker_id).to_owned(),
            authorities: certificates(&invitation.ca)?,
            password: password()?,
            chain,
        })
    }

    /// Key and certificates under the password.
    fn pkcs12(
        &self,
        invitation: &Invitation,
        chain: &[CertificateDer<'_>],
        age: Age,
    ) -> anyhow::Result<Vec<u8>> {
        let pem = invitation.key.as_deref().context("the invitation holds no private key")?;
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).context("the private key is no PKCS #8")?;
        let key = PrivateKey::from_der(key.secret_pkcs8_der()).context("the private key")?;
        let chain = chain.iter().map(|c| Certificate::from_der(c)).collect::<Result<Vec<_>, _>>()?;
        let mut store = KeyStore::new();
        let entry =
            KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(invitation.name.as_bytes(), key, chain));
        store.add_entry(&invitation.name, entry);
        let (encryption, mac) = match age {
            Age::Modern => (EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256),
            Age::Legacy => (EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc, MacAlgorithm::HmacSha1),
        };
        store
            .writer(&self.password)
            .encryption_algorithm(encryption)
            .mac_algorithm(mac)
            .write()
            .context("PKCS #12")
    }
}

/// The first identity in a certificate's subjectAltName.
pub(super) fn identity_of(certificate: &CertificateDer<'_>) -> Option<String> {
    Some(crate::config::keys::identities(certificate).ok()?.into_iter().next()?.to_string())
}

/// An identity as other programs write it: they tell the kind by its looks.
pub(super) fn bare(identity: &str) -> &str {
    ["ip:", "dns:", "email:"].iter().find_map(|kind| identity.strip_prefix(kind)).unwrap_or(identity)
}

/// Twenty letters and digits in groups of five, 100 random bits. None of them looks like another.
fn password() -> anyhow::Result<Zeroizing<String>> {
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut random = Zeroizing::new([0u8; 20]);
    getrandom::fill(&mut *random).map_err(|e| anyhow::anyhow!("no random numbers: {e}"))?;
    let mut text = Zeroizing::new(String::with_capacity(23));
    for (index, octet) in random.iter().enumerate() {
        if index > 0 && index % 5 == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[usize::from(octet & 31)]));
    }
    Ok(text)
}

/// The same for the same user of the same broker, so that a second import replaces the first (RFC 9562 section 5.5).
fn uuid(invitation: &Invitation, part: &str) -> String {
    let name = format!("ferry6:{}:{}:{part}", invitation.broker, invitation.name);
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).hyphenated().to_string()
}

/// strongSwan's Android app: a JSON object.
///
/// # Errors
/// An invitation without a key, or no random numbers.
pub fn android(invitation: &Invitation) -> anyhow::Result<Profile> {
    let parts = Parts::of(invitation)?;
    let mut p12_chain = parts.chain.clone();
    p12_chain.extend(parts.authorities.iter().cloned());
    let p12 = parts.pkcs12(invitation, &p12_chain, Age::Modern)?;
    let mut remote = serde_json::json!({
        "addr": invitation.broker,
        "id": parts.remote_id,
        "cert": Base64::encode_string(&parts.authorities[0]),
    });
    // The app knows one port, which is for IKE and ESP in UDP together.
    if (invitation.port, invitation.nat_port) != (500, 4500) {
        remote["port"] = invitation.nat_port.into();
    }
    let profile = serde_json::json!({
        "uuid": uuid(invitation, "android"),
        "name": format!("IPv6 by {}", invitation.broker),
        "type": "ikev2-cert",
        "remote": remote,
        "local": { "id": parts.local_id, "p12": Base64::encode_string(&p12) },
        // IPv4 goes on as before.
        "split-tunneling": { "subnets": ["::/0"] },
    });
    let text = serde_json::to_string_pretty(&profile).context("JSON")? + "\n";
    Ok(Profile { text: text.into(), password: parts.password })
}

/// iOS, iPadOS and macOS: a property list in XML.
///
/// # Errors
/// An invitation without a key, a broker at other ports, a key that Apple's systems do not know, or no random numbers.
pub fn apple(invitation: &Invitation) -> anyhow::Result<Profile> {
    if (invitation.port, invitation.nat_port) != (500, 4500) {
        bail!(
            "Apple's systems know no other ports than 500 and 4500, and this broker is at {} and {}",
            invitation.port,
            invitation.nat_port
        );
    }
    let parts = Parts::of(invitation)?;
    // One certificate and no more.
    let p12 = parts.pkcs12(invitation, &parts.chain[..1], Age::Legacy)?;
    let title = format!("IPv6 by {}", invitation.broker);
    let payload = |kind: &str, part: &str, title: &str| {
        let uuid = uuid(invitation, part);
        dictionary([
            ("PayloadType", kind.into()),
            ("PayloadVersion", 1.into()),
            ("PayloadIdentifier", format!("ferry6.{uuid}").into()),
            ("PayloadUUID", uuid.to_uppercase().into()),
            ("PayloadDisplayName", title.into()),
        ])
    };
    let mut content = Vec::new();
    for (index, authority) in parts.authorities.iter().enumerate() {
        let mut ca = payload(
            "com.apple.security.root",
            &format!("ca{index}"),
            &format!("CA of {}", invitation.broker),
        );
        ca.insert("PayloadContent".to_owned(), Value::Data(authority.to_vec()));
        content.push(Value::Dictionary(ca));
    }
    let mut identity = payload("com.apple.security.pkcs12", "identity", &parts.local_id);
    identity.insert("PayloadContent".to_owned(), Value::Data(p12));
    identity.insert("PayloadCertificateFileName".to_owned(), format!("{}.p12", invitation.name).into());
    content.push(Value::Dictionary(identity));

    let algorithms = || {
        Value::Dictionary(dictionary([
            ("EncryptionAlgorithm", "AES-256-GCM".into()),
            ("IntegrityAlgorithm", "SHA2-256".into()),
            // 256-bit random ECP group (RFC 5903).
            ("DiffieHellmanGroup", 19.into()),
        ]))
    };
    let mut tunnel = dictionary([
        ("RemoteAddress", invitation.broker.as_str().into()),
        ("RemoteIdentifier", parts.remote_id.as_str().into()),
        ("LocalIdentifier", parts.local_id.as_str().into()),
        ("AuthenticationMethod", "Certificate".into()),
        ("CertificateType", certificate_type(&parts.chain[0])?.into()),
        ("PayloadCertificateUUID", uuid(invitation, "identity").to_uppercase().into()),
        ("DeadPeerDetectionRate", "Medium".into()),
        ("DisableMOBIKE", 0.into()),
        ("EnablePFS", 0.into()),
        ("IKESecurityAssociationParameters", algorithms()),
        ("ChildSecurityAssociationParameters", algorithms()),
    ]);
    // With it the system asks for the broker's certificate by the CA that made it.
    if let Some(name) = common_name(&parts.authorities[0]) {
        tunnel.insert("ServerCertificateIssuerCommonName".to_owned(), name.into());
    }
    let mut vpn = payload("com.apple.vpn.managed", "vpn", &title);
    vpn.insert("UserDefinedName".to_owned(), title.as_str().into());
    vpn.insert("VPNType".to_owned(), "IKEv2".into());
    vpn.insert("IKEv2".to_owned(), Value::Dictionary(tunnel));
    content.push(Value::Dictionary(vpn));

    let mut profile = payload("Configuration", "profile", &title);
    profile.insert("PayloadContent".to_owned(), Value::Array(content));
    let mut text = Zeroizing::new(Vec::new());
    Value::Dictionary(profile).to_writer_xml(&mut *text).context("property list")?;
    text.push(b'\n');
    let text = String::from_utf8(std::mem::take(&mut *text)).context("property list")?;
    Ok(Profile { text: text.into(), password: parts.password })
}

fn dictionary<const N: usize>(entries: [(&str, Value); N]) -> Dictionary {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned())
}

/// Apple's word for the key in a certificate.
fn certificate_type(certificate: &CertificateDer<'_>) -> anyhow::Result<&'static str> {
    use x509_parser::public_key::PublicKey;
    let (_, parsed) = X509Certificate::from_der(certificate).context("the user's certificate")?;
    Ok(match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(_)) => "RSA",
        Ok(PublicKey::EC(point)) if point.key_size() == 256 => "ECDSA256",
        Ok(PublicKey::EC(point)) if point.key_size() == 384 => "ECDSA384",
        _ => bail!("Apple's systems know RSA and ECDSA on P-256 and P-384, and the user's key is neither"),
    })
}
