//! Identities (RFC 7296 section 3.5) and how they stand in certificates (RFC 4945 section 3.1).

use crate::dn;
use crate::wire::{RawId, id_type};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IKE identity.
///
/// Equal are those that mean the same: domain names without regard to case, email addresses without regard to the case
/// of the domain, distinguished names by RFC 5280 section 7.1. An identity prints as it is written in a configuration
/// (see [`FromStr`](#impl-FromStr-for-Identity)), and what is printed parses to an equal one, [`Identity::Other`] apart.
#[derive(Clone, Debug)]
pub enum Identity {
    /// ID_IPV4_ADDR (1).
    Ipv4(Ipv4Addr),
    /// ID_FQDN (2); compared without regard to case.
    Fqdn(String),
    /// ID_RFC822_ADDR (3).
    Rfc822(String),
    /// ID_IPV6_ADDR (5).
    Ipv6(Ipv6Addr),
    /// ID_DER_ASN1_DN (9): the DER of a Name.
    Dn(Vec<u8>),
    /// ID_KEY_ID (11): opaque octets.
    KeyId(Vec<u8>),
    /// A type of another number, or content that does not fit its type; kept so that it can be printed.
    Other(u8, Vec<u8>),
}

/// Octets of a domain name at most (RFC 1035 section 2.3.4, as text).
const MAX_FQDN: usize = 253;
/// Octets of an email address at most: local part, `@`, domain.
const MAX_RFC822: usize = 64 + 1 + MAX_FQDN;
/// Octets of a distinguished name or key ID at most.
const MAX_OPAQUE: usize = 2048;

impl Identity {
    /// The ID type on the wire.
    pub const fn id_type(&self) -> u8 {
        match self {
            Self::Ipv4(_) => id_type::ID_IPV4_ADDR,
            Self::Fqdn(_) => id_type::ID_FQDN,
            Self::Rfc822(_) => id_type::ID_RFC822_ADDR,
            Self::Ipv6(_) => id_type::ID_IPV6_ADDR,
            Self::Dn(_) => id_type::ID_DER_ASN1_DN,
            Self::KeyId(_) => id_type::ID_KEY_ID,
            Self::Other(id_type, _) => *id_type,
        }
    }

    /// What is compared.
    fn canonical(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Ipv4(address) => Cow::Owned(address.octets().to_vec()),
            Self::Ipv6(address) => Cow::Owned(address.octets().to_vec()),
            Self::Fqdn(name) => Cow::Owned(name.to_ascii_lowercase().into_bytes()),
            Self::Rfc822(address) => match address.rsplit_once('@') {
                Some((local, domain)) => {
                    Cow::Owned(format!("{local}@{}", domain.to_ascii_lowercase()).into_bytes())
                }
                None => Cow::Borrowed(address.as_bytes()),
            },
            Self::Dn(der) => Cow::Owned(dn::canonical(der)),
            Self::KeyId(octets) | Self::Other(_, octets) => Cow::Borrowed(octets),
        }
    }

    /// A number for each variant: `Other(2, ..)` is not an FQDN, though its type is that of one.
    const fn variant(&self) -> (bool, u8) {
        (matches!(self, Self::Other(..)), self.id_type())
    }

    /// Whether a pattern covers this identity: `*@my.domain` every email address of that domain, `*.my.domain` every
    /// name below it; `*@*.my.domain` both. In a distinguished name (`O=ferry6, CN=*`) a value `*` stands for any.
    pub fn matches_pattern(&self, pattern: &str) -> bool {
        match self {
            Self::Rfc822(address) => address
                .rsplit_once('@')
                .zip(pattern.strip_prefix("*@"))
                .is_some_and(|((_, domain), pattern)| domain_matches(domain, pattern)),
            Self::Fqdn(name) => pattern.starts_with("*.") && domain_matches(name, pattern),
            Self::Dn(der) if pattern.contains('=') => {
                dn::from_text(pattern).is_ok_and(|pattern| dn::matches(der, &pattern))
            }
            _ => false,
        }
    }
}

/// Whether `domain` is `pattern`, or below it where that begins with `*.`.
fn domain_matches(domain: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*') {
        // `suffix` begins with the dot.
        Some(suffix) => domain
            .len()
            .checked_sub(suffix.len())
            .filter(|at| *at > 0)
            .and_then(|at| domain.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix)),
        None => domain.eq_ignore_ascii_case(pattern),
    }
}

/// Checks the text of a pattern for [`Identity::matches_pattern`].
///
/// # Errors
/// [`IdentityError`] where no identity could ever match.
pub fn check_pattern(pattern: &str) -> Result<(), IdentityError> {
    let domain = |text: &str| is_domain(text.strip_prefix("*.").unwrap_or(text));
    let valid = if pattern.contains('=') {
        dn::from_text(pattern).is_ok()
    } else if let Some(rest) = pattern.strip_prefix("*@") {
        domain(rest)
    } else {
        pattern.strip_prefix("*.").is_some_and(is_domain)
    };
    if valid {
        return Ok(());
    }
    Err(IdentityError {
        text: pattern.to_owned(),
        problem: "a pattern is *@my.domain, *.my.domain or a distinguished name with values of *",
    })
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.variant().hash(state);
        self.canonical().hash(state);
    }
}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Identity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.variant().cmp(&other.variant()).then_with(|| self.canonical().cmp(&other.canonical()))
    }
}

impl From<IpAddr> for Identity {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ipv4(address),
            IpAddr::V6(address) => Self::Ipv6(address),
        }
    }
}

/// Content that does not fit its type, as an FQDN with a NUL or an address of three octets, becomes
/// [`Identity::Other`], which equals nothing that a configuration can name.
impl From<&RawId> for Identity {
    fn from(raw: &RawId) -> Self {
        let text = |valid: fn(&str) -> bool| {
            std::str::from_utf8(&raw.data).ok().filter(|text| valid(text)).map(str::to_owned)
        };
        let identity = match raw.id_type {
            id_type::ID_IPV4_ADDR => {
                <[u8; 4]>::try_from(&raw.data[..]).ok().map(|octets| Self::Ipv4(octets.into()))
            }
            id_type::ID_IPV6_ADDR => {
                <[u8; 16]>::try_from(&raw.data[..]).ok().map(|octets| Self::Ipv6(octets.into()))
            }
            id_type::ID_FQDN => text(is_fqdn).map(Self::Fqdn),
            id_type::ID_RFC822_ADDR => text(is_rfc822).map(Self::Rfc822),
            id_type::ID_DER_ASN1_DN if raw.data.len() <= MAX_OPAQUE && dn::is_valid(&raw.data) => {
                Some(Self::Dn(raw.data.clone()))
            }
            id_type::ID_KEY_ID if (1..=MAX_OPAQUE).contains(&raw.data.len()) => {
                Some(Self::KeyId(raw.data.clone()))
            }
            _ => None,
        };
        identity.unwrap_or_else(|| Self::Other(raw.id_type, raw.data.clone()))
    }
}

impl From<&Identity> for RawId {
    fn from(identity: &Identity) -> Self {
        let data = match identity {
            Identity::Ipv4(address) => address.octets().to_vec(),
            Identity::Ipv6(address) => address.octets().to_vec(),
            Identity::Fqdn(text) | Identity::Rfc822(text) => text.clone().into_bytes(),
            Identity::Dn(octets) | Identity::KeyId(octets) | Identity::Other(_, octets) => octets.clone(),
        };
        Self { id_type: identity.id_type(), reserved: [0; 3], data }
    }
}

/// What peers may call themselves: printable ASCII without spaces. A name with an asterisk is nobody's.
fn is_fqdn(text: &str) -> bool {
    (1..=MAX_FQDN).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'*')
}

fn is_rfc822(text: &str) -> bool {
    text.len() <= MAX_RFC822
        && text.bytes().all(|octet| octet.is_ascii_graphic())
        && text.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

/// What a person may configure: letters, digits, hyphens, underscores, and no empty label.
fn is_domain(text: &str) -> bool {
    (1..=MAX_FQDN).contains(&text.len())
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
        })
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, bare) = match self {
            Self::Ipv4(address) => ("ipv4", address.to_string()),
            Self::Ipv6(address) => ("ipv6", address.to_string()),
            Self::Fqdn(name) => ("fqdn", name.clone()),
            Self::Rfc822(address) => ("email", address.clone()),
            Self::Dn(der) => ("dn", dn::to_text(der)),
            Self::KeyId(octets) => {
                let text = std::str::from_utf8(octets).ok();
                return match text.filter(|text| is_key_text(text)) {
                    Some(text) => write!(f, "keyid:{text}"),
                    None => write!(f, "keyid:#{}", dn::hex(octets)),
                };
            }
            Self::Other(number, octets) => {
                match id_type::name(*number) {
                    Some(name) => f.write_str(name)?,
                    None => write!(f, "ID type {number}")?,
                }
                let shown = &octets[..octets.len().min(32)];
                return write!(
                    f,
                    ":#{}{}",
                    dn::hex(shown),
                    if shown.len() < octets.len() { ".." } else { "" }
                );
            }
        };
        // Bare where that cannot be taken for something else.
        match guess(&bare) {
            Ok(guessed) if guessed == *self => f.write_str(&bare),
            _ => write!(f, "{prefix}:{bare}"),
        }
    }
}

/// Key IDs that print as text: what cannot be taken for hexadecimal, or break a line.
fn is_key_text(text: &str) -> bool {
    !text.starts_with('#') && text.chars().all(|c| c.is_ascii_graphic())
}

/// Why text is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an identity: {problem}")]
pub struct IdentityError {
    text: String,
    problem: &'static str,
}

/// What iked and strongSwan write:
///
/// | text | identity |
/// |---|---|
/// | `tunnel.my.domain`, `@tunnel.my.domain`, `fqdn:..`, `dns:..`, `FQDN/..` | ID_FQDN |
/// | `client@my.domain`, `email:..`, `rfc822:..`, `userfqdn:..`, `UFQDN/..` | ID_RFC822_ADDR |
/// | `192.0.2.1`, `2001:db8::1`, `ip:..`, `ipv4:..`, `ipv6:..`, `IPV4/..`, `IPV6/..` | ID_IPV4_ADDR, ID_IPV6_ADDR |
/// | `C=DE, O=ferry6, CN=client`, `/C=DE/CN=client`, `dn:..`, `asn1dn:..`, `ASN1_ID/..` | ID_DER_ASN1_DN |
/// | `keyid:text`, `keyid:#616263`, `@#616263` | ID_KEY_ID |
impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        parse(text.trim()).map_err(|problem| IdentityError { text: text.to_owned(), problem })
    }
}

fn parse(text: &str) -> Result<Identity, &'static str> {
    // Only the prefixes below end at a colon or slash: an IPv6 address and a name in slashes have them too.
    if let Some((prefix, rest)) = text.split_once([':', '/']) {
        let rest = rest.trim();
        match prefix.to_ascii_lowercase().as_str() {
            "email" | "rfc822" | "userfqdn" | "ufqdn" => return rfc822(rest, false),
            "fqdn" | "dns" => return fqdn(rest, false),
            "ip" | "ipv4" | "ipv6" => return rest.parse().map(IpAddr::into).map_err(|_| "no IP address"),
            "dn" | "asn1dn" | "asn1_id" => return distinguished(rest),
            "keyid" => return key_id(rest),
            _ => {}
        }
    }
    guess(text)
}

fn guess(text: &str) -> Result<Identity, &'static str> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    if text.contains('=') {
        return distinguished(text);
    }
    match text.strip_prefix('@') {
        Some(rest) if rest.starts_with('#') => key_id(rest),
        Some(rest) if rest.starts_with('@') => rfc822(&rest[1..], true),
        Some(rest) => fqdn(rest, true),
        None if text.contains('@') => rfc822(text, true),
        None => fqdn(text, true),
    }
}

/// After a prefix the type is beyond doubt, and whatever a peer may call itself is taken; bare text must look like it.
fn fqdn(text: &str, bare: bool) -> Result<Identity, &'static str> {
    if text.contains('*') {
        return Err(PATTERN);
    }
    if !text.is_ascii() {
        return Err("write an international domain name in its ASCII form (xn--..)");
    }
    if if bare { is_domain(text) } else { is_fqdn(text) } {
        Ok(Identity::Fqdn(text.to_owned()))
    } else {
        Err("not a domain name")
    }
}

fn rfc822(text: &str, bare: bool) -> Result<Identity, &'static str> {
    const PROBLEM: &str = "not an email address";
    let (local, domain) = text.rsplit_once('@').ok_or(PROBLEM)?;
    if bare && local.contains('*') {
        return Err(PATTERN);
    }
    if is_rfc822(text) && (!bare || is_domain(domain)) {
        Ok(Identity::Rfc822(text.to_owned()))
    } else {
        Err(PROBLEM)
    }
}

const PATTERN: &str = "a pattern stands for many; an identity is one";

fn distinguished(text: &str) -> Result<Identity, &'static str> {
    let der = match text.strip_prefix('#') {
        Some(hex) => {
            dn::unhex(hex).filter(|der| dn::is_valid(der)).ok_or("not the hexadecimal DER of a name")?
        }
        None => dn::from_text(text)?,
    };
    if der.len() > MAX_OPAQUE { Err("longer than 2048 octets") } else { Ok(Identity::Dn(der)) }
}

fn key_id(text: &str) -> Result<Identity, &'static str> {
    let octets = match text.strip_prefix('#') {
        Some(hex) => dn::unhex(hex).ok_or("not an even number of hexadecimal digits")?,
        None => text.as_bytes().to_vec(),
    };
    match octets.len() {
        0 => Err("empty"),
        1..=MAX_OPAQUE => Ok(Identity::KeyId(octets)),
        _ => Err("longer than 2048 octets"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> Identity {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn what_iked_and_strongswan_write() {
        for (text, number, printed) in [
            ("email:client@my.domain", 3, "client@my.domain"),
            ("client@my.domain", 3, "client@my.domain"),
            ("@@client@my.domain", 3, "client@my.domain"),
            ("UFQDN/client@my.domain", 3, "client@my.domain"),
            ("dns:tunnel.my.domain", 2, "tunnel.my.domain"),
            ("DNS:tunnel.my.domain", 2, "tunnel.my.domain"),
            ("fqdn:tunnel.my.domain", 2, "tunnel.my.domain"),
            ("FQDN/tunnel.my.domain", 2, "tunnel.my.domain"),
            ("@tunnel.my.domain", 2, "tunnel.my.domain"),
            ("tunnel", 2, "tunnel"),
            ("192.0.2.1", 1, "192.0.2.1"),
            ("IPV4/192.0.2.1", 1, "192.0.2.1"),
            ("ip:2001:db8::1", 5, "2001:db8::1"),
            ("2001:db8::1", 5, "2001:db8::1"),
            ("dn:CN=client, O=ferry6", 9, "CN=client, O=ferry6"),
            ("CN=client,O=ferry6", 9, "CN=client, O=ferry6"),
            ("/C=DE/CN=client", 9, "C=DE, CN=client"),
            ("ASN1_ID/C=DE/CN=client", 9, "C=DE/CN\\=client"),
            ("ASN1_ID//C=DE/CN=client", 9, "C=DE, CN=client"),
            ("keyid:shelf-7", 11, "keyid:shelf-7"),
            ("keyid:#00ff", 11, "keyid:#00ff"),
            ("@#616263", 11, "keyid:abc"),
        ] {
            let identity = id(text);
            assert_eq!(identity.id_type(), number, "{text}");
            assert_eq!(identity.to_string(), printed, "{text}");
            assert_eq!(id(printed), identity, "{text}");
        }
    }

    #[test]
    fn bad_text_says_what_is_wrong() {
        for (text, problem) in [
            ("", "not a domain name"),
            ("a b", "not a domain name"),
            ("my..domain", "not a domain name"),
            ("*.my.domain", "pattern"),
            ("*@my.domain", "pattern"),
            ("münchen.de", "xn--"),
            ("email:client", "not an email"),
            ("email:@my.domain", "not an email"),
            ("email:a b@my.domain", "not an email"),
            ("ip:tunnel", "no IP address"),
            ("dn:client", "CN=client"),
            ("dn:#0500", "hexadecimal DER"),
            ("keyid:", "empty"),
            ("keyid:#0", "hexadecimal"),
            ("keyid:#+1", "hexadecimal"),
            ("%any", "not a domain name"),
        ] {
            let error = text.parse::<Identity>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn comparison() {
        assert_eq!(id("Tunnel.My.Domain"), id("tunnel.my.domain"));
        assert_eq!(id("client@MY.domain"), id("client@my.domain"));
        assert_ne!(id("Client@my.domain"), id("client@my.domain"));
        assert_eq!(id("O=My Company, CN=a"), id("O=my  company, CN=A"));
        assert_ne!(id("a.b"), id("keyid:a.b"));
        assert_ne!(id("0.0.0.0"), Identity::Other(1, vec![0; 4]));
        let hash = |identity: &Identity| {
            let mut hasher = std::hash::DefaultHasher::new();
            identity.hash(&mut hasher);
            hasher.finish()
        };
        assert_eq!(hash(&id("Tunnel.My.Domain")), hash(&id("tunnel.my.domain")));
    }

    #[test]
    fn patterns() {
        for (pattern, identity, matches) in [
            ("*@my.domain", "client@my.domain", true),
            ("*@MY.domain", "client@my.DOMAIN", true),
            ("*@my.domain", "client@sub.my.domain", false),
            ("*@*.my.domain", "client@sub.my.domain", true),
            ("*@*.my.domain", "client@my.domain", false),
            ("*@my.domain", "client@notmy.domain", false),
            ("*@my.domain", "my.domain", false),
            ("*.my.domain", "a.my.domain", true),
            ("*.my.domain", "A.b.MY.domain", true),
            ("*.my.domain", "my.domain", false),
            ("*.my.domain", "amy.domain", false),
            ("*.my.domain", "client@a.my.domain", false),
            ("my.domain", "my.domain", false),
            ("O=ferry6, CN=*", "O=Ferry6, CN=client", true),
            ("O=ferry6, CN=*", "O=other, CN=client", false),
            ("O=ferry6, CN=*", "O=ferry6, CN=client, OU=x", false),
            ("O=ferry6, CN=*", "O=ferry6, OU=client", false),
        ] {
            assert_eq!(id(identity).matches_pattern(pattern), matches, "{pattern} {identity}");
        }
        for good in ["*@my.domain", "*.my.domain", "*@*.my.domain", "O=ferry6, CN=*"] {
            assert_eq!(check_pattern(good), Ok(()));
        }
        for bad in ["", "*", "*@", "*.", "a@my.domain", "my.domain", "*@a b", "**.my.domain", "CN"] {
            assert!(check_pattern(bad).is_err(), "{bad}");
        }
    }

    /// Strangers' identities go to logs and lease files: no control character, no NUL trick.
    #[test]
    fn content_that_does_not_fit_its_type() {
        for (number, data) in [
            (1, &b"abc"[..]),
            (5, b"abc"),
            (2, b""),
            (2, b"tunnel.my.domain\0.evil"),
            (2, b"a\nb"),
            (2, b"*.my.domain"),
            (2, "ä".as_bytes()),
            (3, b"client"),
            (3, b"@my.domain"),
            (3, b"a b@my.domain"),
            (9, b"CN=client"),
            (11, b""),
            (13, b""),
            (200, b"x"),
        ] {
            let identity = Identity::from(&RawId { id_type: number, reserved: [0; 3], data: data.to_vec() });
            assert_eq!(identity, Identity::Other(number, data.to_vec()));
            assert_eq!(RawId::from(&identity).data, data);
            assert!(identity.to_string().is_ascii());
        }
        assert_eq!(Identity::Other(13, vec![]).to_string(), "ID_NULL:#");
        assert_eq!(
            Identity::Other(200, vec![7; 40]).to_string(),
            format!("ID type 200:#{}..", "07".repeat(32))
        );
    }

    #[test]
    fn names_that_look_like_others_print_with_their_type() {
        assert_eq!(Identity::Fqdn("192.0.2.1".into()).to_string(), "fqdn:192.0.2.1");
        assert_eq!(id("fqdn:192.0.2.1"), Identity::Fqdn("192.0.2.1".into()));
    }

    proptest! {
        #[test]
        fn raw_round_trip(number: u8, data in proptest::collection::vec(any::<u8>(), 0..40)) {
            let raw = RawId { id_type: number, reserved: [0; 3], data };
            let identity = Identity::from(&raw);
            prop_assert_eq!(RawId::from(&identity), raw);
            if !matches!(identity, Identity::Other(..)) {
                prop_assert_eq!(identity.to_string().parse::<Identity>(), Ok(identity));
            }
        }

        #[test]
        fn names_of_peers_print_and_parse(number in 2..=3_u8, data in "[!-~]{1,12}(@[!-~]{1,9})?") {
            let identity = Identity::from(&RawId { id_type: number, reserved: [0; 3], data: data.into_bytes() });
            if !matches!(identity, Identity::Other(..)) {
                prop_assert_eq!(identity.to_string().parse::<Identity>(), Ok(identity));
            }
        }

        #[test]
        fn any_text(text in ".{0,40}") {
            if let Ok(identity) = text.parse::<Identity>() {
                prop_assert_eq!(identity.to_string().parse::<Identity>(), Ok(identity));
            }
            let _ = Identity::Fqdn("a.b".into()).matches_pattern(&text);
            let _ = check_pattern(&text);
        }
    }
}
