//! The Security Association payload ([RFC 7296 section 3.3](https://www.rfc-editor.org/rfc/rfc7296#section-3.3)).
//!
//! A list of proposals, each with its transforms, each with its attributes:
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Last Substruc |   RESERVED    |         Proposal Length       |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Proposal Num  |  Protocol ID  |    SPI Size   |Num  Transforms|
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                        SPI (variable)                         ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                        <Transforms>                           ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Last Substruc |   RESERVED    |        Transform Length       |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Transform Type |   RESERVED    |          Transform ID         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                      Transform Attributes                     ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use super::WireError;
use super::codec::{Reader, fill_length, numbers, write_name};
use std::fmt;

numbers! {
    /// Security protocol identifiers (section 3.3.1).
    pub mod protocol: u8 {
        /// IKE.
        IKE = 1,
        /// AH.
        AH = 2,
        /// ESP.
        ESP = 3,
    }
}

numbers! {
    /// Transform types (section 3.3.2).
    pub mod transform_type: u8 {
        /// Encryption algorithm.
        ENCR = 1,
        /// Pseudorandom function.
        PRF = 2,
        /// Integrity algorithm.
        INTEG = 3,
        /// Key exchange method, once Diffie-Hellman group.
        KE = 4,
        /// Extended Sequence Numbers.
        ESN = 5,
        /// Additional key exchange 1 (RFC 9370).
        ADDKE1 = 6,
        /// Additional key exchange 2.
        ADDKE2 = 7,
        /// Additional key exchange 3.
        ADDKE3 = 8,
        /// Additional key exchange 4.
        ADDKE4 = 9,
        /// Additional key exchange 5.
        ADDKE5 = 10,
        /// Additional key exchange 6.
        ADDKE6 = 11,
        /// Additional key exchange 7.
        ADDKE7 = 12,
    }
}

numbers! {
    /// Encryption algorithms, transform type 1.
    pub mod encr: u16 {
        /// DES with 64-bit IV; MUST NOT (RFC 8247).
        ENCR_DES_IV64 = 1,
        /// DES; MUST NOT.
        ENCR_DES = 2,
        /// Triple DES.
        ENCR_3DES = 3,
        /// NULL, for ESP only.
        ENCR_NULL = 11,
        /// AES-CBC (RFC 3602).
        ENCR_AES_CBC = 12,
        /// AES-CTR (RFC 5930).
        ENCR_AES_CTR = 13,
        /// AES-CCM with an ICV of 8 octets (RFC 5282).
        ENCR_AES_CCM_8 = 14,
        /// AES-CCM with an ICV of 12 octets.
        ENCR_AES_CCM_12 = 15,
        /// AES-CCM with an ICV of 16 octets.
        ENCR_AES_CCM_16 = 16,
        /// AES-GCM with an ICV of 8 octets (RFC 5282).
        ENCR_AES_GCM_8 = 18,
        /// AES-GCM with an ICV of 12 octets.
        ENCR_AES_GCM_12 = 19,
        /// AES-GCM with an ICV of 16 octets.
        ENCR_AES_GCM_16 = 20,
        /// AES-GMAC, for ESP only (RFC 4543).
        ENCR_NULL_AUTH_AES_GMAC = 21,
        /// Camellia-CBC (RFC 5529).
        ENCR_CAMELLIA_CBC = 23,
        /// Camellia-CTR.
        ENCR_CAMELLIA_CTR = 24,
        /// Camellia-CCM with an ICV of 8 octets.
        ENCR_CAMELLIA_CCM_8 = 25,
        /// Camellia-CCM with an ICV of 12 octets.
        ENCR_CAMELLIA_CCM_12 = 26,
        /// Camellia-CCM with an ICV of 16 octets.
        ENCR_CAMELLIA_CCM_16 = 27,
        /// ChaCha20-Poly1305 (RFC 7634).
        ENCR_CHACHA20_POLY1305 = 28,
        /// AES-CCM with implicit IV, for ESP only (RFC 8750).
        ENCR_AES_CCM_8_IIV = 29,
        /// AES-GCM with implicit IV, for ESP only.
        ENCR_AES_GCM_16_IIV = 30,
        /// ChaCha20-Poly1305 with implicit IV, for ESP only.
        ENCR_CHACHA20_POLY1305_IIV = 31,
    }
}

numbers! {
    /// Pseudorandom functions, transform type 2.
    pub mod prf: u16 {
        /// HMAC-MD5; MUST NOT (RFC 8247).
        PRF_HMAC_MD5 = 1,
        /// HMAC-SHA1.
        PRF_HMAC_SHA1 = 2,
        /// AES-XCBC (RFC 4434).
        PRF_AES128_XCBC = 4,
        /// HMAC-SHA2-256 (RFC 4868).
        PRF_HMAC_SHA2_256 = 5,
        /// HMAC-SHA2-384.
        PRF_HMAC_SHA2_384 = 6,
        /// HMAC-SHA2-512.
        PRF_HMAC_SHA2_512 = 7,
        /// AES-CMAC (RFC 4615).
        PRF_AES128_CMAC = 8,
    }
}

numbers! {
    /// Integrity algorithms, transform type 3.
    pub mod integ: u16 {
        /// None, with an AEAD.
        NONE = 0,
        /// HMAC-MD5; MUST NOT (RFC 8247).
        AUTH_HMAC_MD5_96 = 1,
        /// HMAC-SHA1 (RFC 2404).
        AUTH_HMAC_SHA1_96 = 2,
        /// AES-XCBC (RFC 3566).
        AUTH_AES_XCBC_96 = 5,
        /// AES-CMAC (RFC 4494).
        AUTH_AES_CMAC_96 = 8,
        /// AES-GMAC with a 128-bit key, for AH only (RFC 4543).
        AUTH_AES_128_GMAC = 9,
        /// AES-GMAC with a 192-bit key, for AH only.
        AUTH_AES_192_GMAC = 10,
        /// AES-GMAC with a 256-bit key, for AH only.
        AUTH_AES_256_GMAC = 11,
        /// HMAC-SHA2-256 (RFC 4868).
        AUTH_HMAC_SHA2_256_128 = 12,
        /// HMAC-SHA2-384.
        AUTH_HMAC_SHA2_384_192 = 13,
        /// HMAC-SHA2-512.
        AUTH_HMAC_SHA2_512_256 = 14,
    }
}

numbers! {
    /// Key exchange methods, transform type 4.
    pub mod ke: u16 {
        /// None.
        NONE = 0,
        /// 768-bit MODP; MUST NOT (RFC 8247).
        MODP_768 = 1,
        /// 1024-bit MODP; SHOULD NOT.
        MODP_1024 = 2,
        /// 1536-bit MODP; SHOULD NOT.
        MODP_1536 = 5,
        /// 2048-bit MODP (RFC 3526).
        MODP_2048 = 14,
        /// 3072-bit MODP.
        MODP_3072 = 15,
        /// 4096-bit MODP.
        MODP_4096 = 16,
        /// 6144-bit MODP.
        MODP_6144 = 17,
        /// 8192-bit MODP.
        MODP_8192 = 18,
        /// P-256 (RFC 5903).
        ECP_256 = 19,
        /// P-384.
        ECP_384 = 20,
        /// P-521.
        ECP_521 = 21,
        /// 1024-bit MODP with a 160-bit subgroup; MUST NOT.
        MODP_1024_160 = 22,
        /// 2048-bit MODP with a 224-bit subgroup.
        MODP_2048_224 = 23,
        /// 2048-bit MODP with a 256-bit subgroup.
        MODP_2048_256 = 24,
        /// P-192.
        ECP_192 = 25,
        /// P-224.
        ECP_224 = 26,
        /// Brainpool P-224 (RFC 6954).
        BRAINPOOL_P224 = 27,
        /// Brainpool P-256.
        BRAINPOOL_P256 = 28,
        /// Brainpool P-384.
        BRAINPOOL_P384 = 29,
        /// Brainpool P-512.
        BRAINPOOL_P512 = 30,
        /// Curve25519 (RFC 8031).
        CURVE25519 = 31,
        /// Curve448.
        CURVE448 = 32,
        /// ML-KEM-512.
        ML_KEM_512 = 35,
        /// ML-KEM-768.
        ML_KEM_768 = 36,
        /// ML-KEM-1024.
        ML_KEM_1024 = 37,
    }
}

/// Proposal substructure (section 3.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Number, from 1.
    pub number: u8,
    /// 1 IKE, 3 ESP.
    pub protocol: u8,
    /// SPI: none, 4 or 8 octets.
    pub spi: Vec<u8>,
    /// Transforms.
    pub transforms: Vec<Transform>,
}

/// Transform substructure (section 3.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transform {
    /// 1 ENCR, 2 PRF, 3 INTEG, 4 KE, 5 ESN.
    pub transform_type: u8,
    /// Number.
    pub id: u16,
    /// Key Length attribute in bits.
    pub key_length: Option<u16>,
    /// Whether an attribute stood there that is not understood: then the transform must not be chosen (3.3.6).
    /// Such an attribute is not kept, and never encoded.
    pub unknown_attribute: bool,
}

impl Transform {
    /// A transform without attributes.
    pub const fn new(transform_type: u8, id: u16) -> Self {
        Self { transform_type, id, key_length: None, unknown_attribute: false }
    }
}

/// `ENCR_AES_CBC_256`, `PRF_HMAC_SHA2_256`, `CURVE25519`, `ESN`, `transform type 13 ID 7`.
impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transform_type {
            transform_type::ENCR => write_name(f, encr::name(self.id), "ENCR", self.id)?,
            transform_type::PRF => write_name(f, prf::name(self.id), "PRF", self.id)?,
            transform_type::INTEG if self.id == integ::NONE => f.write_str("AUTH_NONE")?,
            transform_type::INTEG => write_name(f, integ::name(self.id), "INTEG", self.id)?,
            transform_type::KE if self.id == ke::NONE => f.write_str("KE_NONE")?,
            transform_type::KE => write_name(f, ke::name(self.id), "KE", self.id)?,
            transform_type::ESN => match self.id {
                0 => f.write_str("NO_ESN")?,
                1 => f.write_str("ESN")?,
                id => write!(f, "ESN {id}")?,
            },
            other => match transform_type::name(other) {
                Some(name) => {
                    write!(f, "{name} ")?;
                    write_name(f, ke::name(self.id), "KE", self.id)?;
                }
                None => write!(f, "transform type {other} ID {}", self.id)?,
            },
        }
        if let Some(bits) = self.key_length {
            write!(f, "_{bits}")?;
        }
        if self.unknown_attribute { f.write_str(" with an unknown attribute") } else { Ok(()) }
    }
}

/// `1:IKE:ENCR_AES_CBC_256/PRF_HMAC_SHA2_256/..`.
impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.number)?;
        write_name(f, protocol::name(self.protocol), "protocol", self.protocol.into())?;
        for (index, transform) in self.transforms.iter().enumerate() {
            write!(f, "{}{transform}", if index == 0 { ':' } else { '/' })?;
        }
        Ok(())
    }
}

/// Key Length (section 3.3.5), as type octets of the fixed-length format (AF bit set).
const KEY_LENGTH: u16 = 14;
const ATTRIBUTE_FORMAT_TV: u16 = 0x8000;

/// Whether more substructures follow: `last` must agree with what is there (0 last; 2 or 3 more).
const fn check_last(what: &'static str, last: u8, more: u8, empty: bool) -> Result<(), WireError> {
    if last == if empty { 0 } else { more } {
        Ok(())
    } else {
        Err(WireError::Invalid { what, problem: "Last Substruc contradicts the length" })
    }
}

pub(super) fn parse(body: &[u8]) -> Result<Vec<Proposal>, WireError> {
    const WHAT: &str = "SA payload";
    let mut reader = Reader::new("Proposal", body);
    let mut proposals: Vec<Proposal> = Vec::new();
    while !reader.is_empty() {
        let [last, _reserved] = reader.array()?;
        let length = reader.u16()?;
        let body = reader.body(length, 4)?;
        check_last("Proposal", last, 2, reader.is_empty())?;
        let proposal = parse_proposal(body)?;
        // Section 3.3.1: the first is 1, each next one more. A lone one may carry any number: it answers an offer.
        let expected = proposals.last().map(|previous| previous.number.checked_add(1));
        let broken = match expected {
            Some(expected) => expected != Some(proposal.number) || proposals[0].number != 1,
            None => proposal.number == 0,
        };
        if broken {
            return Err(WireError::Invalid { what: WHAT, problem: "proposals are not numbered 1, 2, 3, .." });
        }
        proposals.push(proposal);
    }
    if proposals.is_empty() {
        return Err(WireError::Invalid { what: WHAT, problem: "no proposal" });
    }
    Ok(proposals)
}

fn parse_proposal(body: &[u8]) -> Result<Proposal, WireError> {
    const WHAT: &str = "Proposal";
    let mut reader = Reader::new(WHAT, body);
    let [number, protocol, spi_size, count] = reader.array()?;
    let spi = reader.take(spi_size.into())?.to_vec();
    let fits = match protocol {
        protocol::IKE => matches!(spi_size, 0 | 8),
        protocol::AH | protocol::ESP => spi_size == 4,
        _ => true,
    };
    if !fits {
        return Err(WireError::Invalid { what: WHAT, problem: "SPI size does not fit the protocol" });
    }
    // The count is one octet, so this allocation is bounded whatever it says.
    let mut transforms = Vec::with_capacity(usize::from(count).min(reader.rest().len() / 8));
    let mut reader = Reader::new("Transform", reader.rest());
    while !reader.is_empty() {
        let [last, _reserved] = reader.array()?;
        let length = reader.u16()?;
        let body = reader.body(length, 4)?;
        check_last("Transform", last, 3, reader.is_empty())?;
        if transforms.len() == usize::from(count) {
            return Err(WireError::Invalid { what: WHAT, problem: "more transforms than it says" });
        }
        transforms.push(parse_transform(body)?);
    }
    if transforms.len() != usize::from(count) {
        return Err(WireError::Invalid { what: WHAT, problem: "fewer transforms than it says" });
    }
    Ok(Proposal { number, protocol, spi, transforms })
}

fn parse_transform(body: &[u8]) -> Result<Transform, WireError> {
    let mut reader = Reader::new("Transform", body);
    let [transform_type, _reserved] = reader.array()?;
    let mut transform = Transform::new(transform_type, reader.u16()?);
    let mut attributes = Reader::new("Transform attribute", reader.rest());
    while !attributes.is_empty() {
        let format_and_type = attributes.u16()?;
        let length_or_value = attributes.u16()?;
        if format_and_type == ATTRIBUTE_FORMAT_TV | KEY_LENGTH && transform.key_length.is_none() {
            transform.key_length = Some(length_or_value);
            continue;
        }
        if format_and_type & ATTRIBUTE_FORMAT_TV == 0 {
            attributes.take(length_or_value.into())?;
        }
        transform.unknown_attribute = true;
    }
    Ok(transform)
}

pub(super) fn encode(proposals: &[Proposal], out: &mut Vec<u8>) {
    for (index, proposal) in proposals.iter().enumerate() {
        let start = out.len();
        let spi_size = u8::try_from(proposal.spi.len()).expect("an SPI has 0, 4 or 8 octets");
        let count = u8::try_from(proposal.transforms.len()).expect("fewer than 256 transforms exist");
        let more = if index + 1 == proposals.len() { 0 } else { 2 };
        out.extend_from_slice(&[more, 0, 0, 0, proposal.number, proposal.protocol, spi_size, count]);
        out.extend_from_slice(&proposal.spi);
        for (index, transform) in proposal.transforms.iter().enumerate() {
            let more = if index + 1 == proposal.transforms.len() { 0 } else { 3 };
            let length = if transform.key_length.is_some() { 12 } else { 8 };
            out.extend_from_slice(&[more, 0, 0, length, transform.transform_type, 0]);
            out.extend_from_slice(&transform.id.to_be_bytes());
            if let Some(bits) = transform.key_length {
                out.extend_from_slice(&(ATTRIBUTE_FORMAT_TV | KEY_LENGTH).to_be_bytes());
                out.extend_from_slice(&bits.to_be_bytes());
            }
        }
        fill_length(out, start, start + 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_hex(text: &str) -> Result<Vec<Proposal>, WireError> {
        parse(&hex::decode(text.replace([' ', '\n'], "")).unwrap())
    }

    #[test]
    fn one_esp_proposal() {
        let proposals = parse_hex(
            "0000 0028 01 03 04 03 01020304
             0300 000c 01 00 000c 800e 0100
             0300 0008 03 00 000c
             0000 0008 05 00 0000",
        )
        .unwrap();
        assert_eq!(
            proposals,
            [Proposal {
                number: 1,
                protocol: protocol::ESP,
                spi: vec![1, 2, 3, 4],
                transforms: vec![
                    Transform { key_length: Some(256), ..Transform::new(1, 12) },
                    Transform::new(3, 12),
                    Transform::new(5, 0),
                ],
            }]
        );
        assert_eq!(proposals[0].to_string(), "1:ESP:ENCR_AES_CBC_256/AUTH_HMAC_SHA2_256_128/NO_ESN");
        let mut out = Vec::new();
        encode(&proposals, &mut out);
        assert_eq!(parse(&out).unwrap(), proposals);
    }

    /// Section 3.3.6: a transform with an attribute that is not understood must be rejected, but the others stand.
    #[test]
    fn unknown_attributes_are_flagged() {
        for attribute in ["8013 0001", "0013 0002 ffff", "000e 0002 0100", "800e 0080 800e 0100"] {
            let attribute = hex::decode(attribute.replace(' ', "")).unwrap();
            let mut transform = vec![1, 0, 0, 20];
            transform.extend_from_slice(&attribute);
            assert!(parse_transform(&transform).unwrap().unknown_attribute, "{attribute:?}");
        }
        assert_eq!(
            parse_transform(&hex::decode("0100001400130008ffff").unwrap()),
            Err(WireError::Truncated { what: "Transform attribute" })
        );
    }

    #[test]
    fn lies_are_refused() {
        let cases = [
            ("", "no proposal"),
            ("0000 0010 01 01 00 02 0000 0008 02 00 0005", "fewer transforms"),
            ("0000 0010 01 01 00 00 0000 0008 02 00 0005", "more transforms"),
            ("0200 0010 01 01 00 01 0000 0008 02 00 0005", "Last Substruc"),
            ("0000 0010 01 01 00 01 0300 0008 02 00 0005", "Last Substruc"),
            ("0000 0003 01 01 00 01 0000 0008 02 00 0005", "wrong length 3"),
            ("0000 0011 01 01 00 01 0000 0008 02 00 0005", "wrong length 17"),
            ("0000 0010 01 01 00 01 0000 0009 02 00 0005", "wrong length 9"),
            ("0000 0010 01 03 00 01 0000 0008 02 00 0005", "SPI size"),
            ("0000 0010 01 01 ff 01 0000 0008 02 00 0005", "cut short"),
            ("0000 0010 00 01 00 01 0000 0008 02 00 0005", "numbered"),
            ("0200 0008 01 01 00 00 0000 0008 03 01 00 00", "numbered"),
            ("0200 0008 02 01 00 00 0000 0008 03 01 00 00", "numbered"),
        ];
        for (octets, problem) in cases {
            let error = parse_hex(octets).unwrap_err().to_string();
            assert!(error.contains(problem), "{octets}: {error}");
        }
    }

    #[test]
    fn numbers_without_a_name_print_as_numbers() {
        assert_eq!(Transform::new(1, 999).to_string(), "ENCR 999");
        assert_eq!(Transform::new(6, 36).to_string(), "ADDKE1 ML_KEM_768");
        assert_eq!(Transform::new(77, 5).to_string(), "transform type 77 ID 5");
        assert_eq!(Transform::new(3, 0).to_string(), "AUTH_NONE");
    }
}
