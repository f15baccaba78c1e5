//! The Configuration payload ([RFC 7296 section 3.15](https://www.rfc-editor.org/rfc/rfc7296#section-3.15)).
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   CFG Type    |                    RESERVED                   |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                   Configuration Attributes                    ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |R|         Attribute Type      |            Length             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                             Value                             ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use super::WireError;
use super::codec::{Reader, fill_length, numbers};
use crate::prefix::Prefix6;
use std::net::Ipv6Addr;

numbers! {
    /// CFG types.
    pub mod cfg_type: u8 {
        /// What the sender would like.
        CFG_REQUEST = 1,
        /// What it gets.
        CFG_REPLY = 2,
        /// Pushed by the sender.
        CFG_SET = 3,
        /// What of it was taken.
        CFG_ACK = 4,
    }
}

numbers! {
    /// Configuration attributes.
    pub mod attribute: u16 {
        /// 0 or 4 octets.
        INTERNAL_IP4_ADDRESS = 1,
        /// 0 or 4 octets.
        INTERNAL_IP4_NETMASK = 2,
        /// 0 or 4 octets.
        INTERNAL_IP4_DNS = 3,
        /// 0 or 4 octets.
        INTERNAL_IP4_NBNS = 4,
        /// 0 or 4 octets.
        INTERNAL_IP4_DHCP = 6,
        /// Text.
        APPLICATION_VERSION = 7,
        /// 0 or 17 octets: address and prefix length.
        INTERNAL_IP6_ADDRESS = 8,
        /// 0 or 16 octets.
        INTERNAL_IP6_DNS = 10,
        /// 0 or 16 octets.
        INTERNAL_IP6_DHCP = 12,
        /// 0 or 8 octets.
        INTERNAL_IP4_SUBNET = 13,
        /// A list of attribute types.
        SUPPORTED_ATTRIBUTES = 14,
        /// 17 octets: what is behind the gateway.
        INTERNAL_IP6_SUBNET = 15,
        /// Mobile IPv6 (RFC 5026).
        MIP6_HOME_PREFIX = 16,
        /// RFC 5739.
        INTERNAL_IP6_LINK = 17,
        /// RFC 5739.
        INTERNAL_IP6_PREFIX = 18,
        /// Mobile IPv6 (RFC 6611).
        HOME_AGENT_ADDRESS = 19,
        /// 3GPP (RFC 7651).
        P_CSCF_IP4_ADDRESS = 20,
        /// 3GPP.
        P_CSCF_IP6_ADDRESS = 21,
        /// 3GPP.
        FTT_KAT = 22,
        /// 3GPP.
        EXTERNAL_SOURCE_IP4_NAT_INFO = 23,
        /// 3GPP.
        TIMEOUT_PERIOD_FOR_LIVENESS_CHECK = 24,
        /// Split DNS (RFC 8598).
        INTERNAL_DNS_DOMAIN = 25,
        /// Split DNS.
        INTERNAL_DNSSEC_TA = 26,
        /// Encrypted DNS (RFC 9464).
        ENCDNS_IP4 = 27,
        /// Encrypted DNS.
        ENCDNS_IP6 = 28,
        /// Encrypted DNS.
        ENCDNS_DIGEST_INFO = 29,
    }
}

/// More attributes than any peer sends.
const MAX_ATTRIBUTES: usize = 256;

/// Configuration payload (section 3.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// 1 CFG_REQUEST, 2 CFG_REPLY, 3 CFG_SET, 4 CFG_ACK.
    pub cfg_type: u8,
    /// Attributes: type and value. Which length a value must have is up to the reader of the attribute
    /// ([`ip6_address`], [`ip6_dns`]): an attribute that is not wanted harms nobody.
    pub attributes: Vec<(u16, Vec<u8>)>,
}

impl Config {
    /// Values of all attributes of one type, in order.
    pub fn values(&self, attribute: u16) -> impl Iterator<Item = &[u8]> {
        self.attributes.iter().filter(move |(kind, _)| *kind == attribute).map(|(_, value)| value.as_slice())
    }
}

/// INTERNAL_IP6_ADDRESS: `Ok(None)` where it is empty ("any").
///
/// # Errors
/// [`WireError::Length`] where it is neither empty nor 17 octets long; [`WireError::Invalid`] where the prefix length
/// is above 128.
pub fn ip6_address(value: &[u8]) -> Result<Option<(Ipv6Addr, u8)>, WireError> {
    const WHAT: &str = "INTERNAL_IP6_ADDRESS";
    if value.is_empty() {
        return Ok(None);
    }
    // 16 octets, without prefix length, are seen from old peers; they mean the address alone.
    let (address, prefix) = match (value.first_chunk::<16>(), value.len()) {
        (Some(address), 16) => (address, 128),
        (Some(address), 17) => (address, value[16]),
        _ => return Err(WireError::Length { what: WHAT, length: value.len() }),
    };
    if prefix > 128 {
        return Err(WireError::Invalid { what: WHAT, problem: "prefix length above 128" });
    }
    Ok(Some((Ipv6Addr::from(*address), prefix)))
}

/// INTERNAL_IP6_DNS: `Ok(None)` where it is empty ("any").
///
/// # Errors
/// [`WireError::Length`] where it is neither empty nor 16 octets long.
pub fn ip6_dns(value: &[u8]) -> Result<Option<Ipv6Addr>, WireError> {
    match <[u8; 16]>::try_from(value) {
        Ok(address) => Ok(Some(address.into())),
        Err(_) if value.is_empty() => Ok(None),
        Err(_) => Err(WireError::Length { what: "INTERNAL_IP6_DNS", length: value.len() }),
    }
}

/// No prefix that is routed to a client is shorter.
pub const SHORTEST_PREFIX: u8 = 16;

/// INTERNAL_IP6_PREFIX (RFC 5739 section 5.2): `Ok(None)` where it is empty ("any"). Bits behind its length are left aside.
///
/// # Errors
/// [`WireError::Length`] where it is neither empty nor 17 octets long; [`WireError::Invalid`] where the prefix is shorter
/// than [`SHORTEST_PREFIX`] or longer than 128, or no unicast address of more than one link begins with it.
pub fn ip6_prefix(value: &[u8]) -> Result<Option<Prefix6>, WireError> {
    const WHAT: &str = "INTERNAL_IP6_PREFIX";
    if value.is_empty() {
        return Ok(None);
    }
    let Some((address, &[len])) = value.split_first_chunk::<16>() else {
        return Err(WireError::Length { what: WHAT, length: value.len() });
    };
    let invalid = |problem| WireError::Invalid { what: WHAT, problem };
    let prefix = Prefix6::new(Ipv6Addr::from(*address), len).ok_or(invalid("prefix length above 128"))?;
    // All that comes from it goes into the tunnel: nobody has half of the Internet.
    if len < SHORTEST_PREFIX {
        return Err(invalid("prefix shorter than /16"));
    }
    let first = prefix.address;
    if first.is_unspecified() || first.is_loopback() || first.is_multicast() || first.is_unicast_link_local()
    {
        return Err(invalid("no unicast prefix of more than one link"));
    }
    Ok(Some(prefix))
}

/// The value of INTERNAL_IP6_PREFIX.
pub fn encode_ip6_prefix(prefix: Prefix6) -> Vec<u8> {
    encode_ip6_address(prefix.address, prefix.len)
}

/// The value of INTERNAL_IP6_ADDRESS.
pub fn encode_ip6_address(address: Ipv6Addr, prefix: u8) -> Vec<u8> {
    let mut value = address.octets().to_vec();
    value.push(prefix);
    value
}

pub(super) fn parse(body: &[u8]) -> Result<Config, WireError> {
    let mut reader = Reader::new("Configuration payload", body);
    let [cfg_type, _, _, _] = reader.array()?;
    let mut reader = Reader::new("Configuration attribute", reader.rest());
    let mut attributes = Vec::new();
    while !reader.is_empty() {
        // The top bit is reserved and ignored.
        let kind = reader.u16()? & 0x7fff;
        let length = reader.u16()?;
        let value = reader.take(length.into())?.to_vec();
        if attributes.len() == MAX_ATTRIBUTES {
            return Err(WireError::TooMany("configuration attributes"));
        }
        attributes.push((kind, value));
    }
    Ok(Config { cfg_type, attributes })
}

pub(super) fn encode(config: &Config, out: &mut Vec<u8>) {
    out.extend_from_slice(&[config.cfg_type, 0, 0, 0]);
    for (kind, value) in &config.attributes {
        out.extend_from_slice(&(kind & 0x7fff).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        let start = out.len();
        out.extend_from_slice(value);
        fill_length(out, start, start - 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_a_reply() {
        let request = Config { cfg_type: cfg_type::CFG_REQUEST, attributes: vec![(8, vec![]), (10, vec![])] };
        let mut out = Vec::new();
        encode(&request, &mut out);
        assert_eq!(hex::encode(&out), "01000000000800000 00a0000".replace(' ', ""));
        assert_eq!(parse(&out), Ok(request));

        let reply = parse(
            &hex::decode("02000000800800112a0000000000000000000000000001 0140".replace(' ', "")).unwrap(),
        )
        .unwrap();
        let value = reply.values(attribute::INTERNAL_IP6_ADDRESS).next().unwrap();
        assert_eq!(ip6_address(value), Ok(Some(("2a00::101".parse().unwrap(), 64))));
        assert_eq!(encode_ip6_address("2a00::101".parse().unwrap(), 64), value);
    }

    #[test]
    fn values_of_wrong_length() {
        assert_eq!(ip6_address(&[]), Ok(None));
        assert_eq!(ip6_address(&[0; 16]), Ok(Some((Ipv6Addr::UNSPECIFIED, 128))));
        assert!(ip6_address(&[0; 15]).is_err());
        assert!(ip6_address(&[0; 18]).is_err());
        assert!(ip6_address(&[129; 17]).is_err());
        assert_eq!(ip6_dns(&[]), Ok(None));
        assert!(ip6_dns(&[0; 17]).is_err());
        assert!(parse(&hex::decode("010000000008000500").unwrap()).is_err());
        assert!(parse(&[1, 0, 0]).is_err());
    }

    #[test]
    fn attributes_are_bounded() {
        let mut body = vec![1, 0, 0, 0];
        body.extend_from_slice(&[0; 4 * MAX_ATTRIBUTES]);
        assert_eq!(parse(&body).unwrap().attributes.len(), MAX_ATTRIBUTES);
        body.extend_from_slice(&[0; 4]);
        assert_eq!(parse(&body), Err(WireError::TooMany("configuration attributes")));
    }
}
