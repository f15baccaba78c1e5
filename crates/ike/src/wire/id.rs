//! Identification payloads ([RFC 7296 section 3.5](https://www.rfc-editor.org/rfc/rfc7296#section-3.5)).
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   ID Type     |                 RESERVED                      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                   Identification Data                         ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use super::WireError;
use super::codec::{Reader, numbers};

numbers! {
    /// ID types.
    pub mod id_type: u8 {
        /// Four octets.
        ID_IPV4_ADDR = 1,
        /// A domain name, ASCII, without a final NUL.
        ID_FQDN = 2,
        /// An email address.
        ID_RFC822_ADDR = 3,
        /// Sixteen octets.
        ID_IPV6_ADDR = 5,
        /// DER of a distinguished name.
        ID_DER_ASN1_DN = 9,
        /// DER of a GeneralName.
        ID_DER_ASN1_GN = 10,
        /// Opaque octets.
        ID_KEY_ID = 11,
        /// Fibre Channel (RFC 4595).
        ID_FC_NAME = 12,
        /// No identity (RFC 7619).
        ID_NULL = 13,
    }
}

/// An ID payload before it is taken for an [`crate::Identity`]; `data` is what AUTH covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawId {
    /// ID type.
    pub id_type: u8,
    /// The three reserved octets as received, for they are part of what AUTH covers (section 2.15).
    pub reserved: [u8; 3],
    /// Identification data.
    pub data: Vec<u8>,
}

impl RawId {
    /// `RestOfIDPayload` of section 2.15: the payload without its generic header.
    pub fn rest_of_payload(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.data.len());
        encode(self, &mut out);
        out
    }
}

pub(super) fn parse(body: &[u8]) -> Result<RawId, WireError> {
    let mut reader = Reader::new("Identification payload", body);
    let id_type = reader.u8()?;
    let reserved = reader.array()?;
    Ok(RawId { id_type, reserved, data: reader.rest().to_vec() })
}

pub(super) fn encode(id: &RawId, out: &mut Vec<u8>) {
    out.push(id.id_type);
    out.extend_from_slice(&id.reserved);
    out.extend_from_slice(&id.data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_octets_survive_since_auth_covers_them() {
        let id = parse(b"\x02abctunnel.my.domain").unwrap();
        assert_eq!(
            id,
            RawId { id_type: id_type::ID_FQDN, reserved: *b"abc", data: b"tunnel.my.domain".to_vec() }
        );
        assert_eq!(id.rest_of_payload(), b"\x02abctunnel.my.domain");
        assert_eq!(id_type::name(id.id_type), Some("ID_FQDN"));
        assert!(parse(&[2, 0, 0]).is_err());
    }
}
