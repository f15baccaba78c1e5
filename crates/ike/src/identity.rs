//! Identities (RFC 7296 section 3.5) and how they stand in certificates (RFC 4945 section 3.1).

use std::net::{Ipv4Addr, Ipv6Addr};

/// An IKE identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// A type of another number, kept so that it can be printed.
    Other(u8, Vec<u8>),
}
// Display, FromStr ("email:client@my.domain", "fqdn:..."/"dns:", "ip:", "dn:CN=..", "keyid:"; bare text is guessed as
// iked and strongSwan do), matching and certificate checks: to come.
