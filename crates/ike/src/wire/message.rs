//! Whole messages: header and payload chain.

use super::codec::{Reader, fill_length};
pub use super::header::HeaderFields;
use super::payload::{GENERIC_HEADER_LEN, NONCE_LEN, notation, payload_type};
use super::{Header, Payload};

/// Why octets are not an IKE message; each says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than what stands there claims.
    #[error("{what} is cut short")]
    Truncated {
        /// The structure.
        what: &'static str,
    },
    /// A length field that lies.
    #[error("{what}: wrong length {length}")]
    Length {
        /// The structure.
        what: &'static str,
        /// What it says.
        length: usize,
    },
    /// A field with a value that the RFC forbids.
    #[error("{what}: {problem}")]
    Invalid {
        /// The structure.
        what: &'static str,
        /// The cause.
        problem: &'static str,
    },
    /// Major version not 2 (RFC 7296 section 2.5).
    #[error("IKE major version {0}")]
    Version(u8),
    /// More payloads, proposals or transforms than any peer sends.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A payload that may stand only once in a message.
    #[error("a second {0} payload")]
    Duplicate(&'static str),
}

/// Payloads in one message at most. Peers send up to about 40.
pub const MAX_PAYLOADS: usize = 256;

/// Whether no exchange has more than one payload of this type (RFC 7296 sections 1.2 to 1.4 and appendix C).
const fn stands_once(payload: u8) -> bool {
    matches!(
        payload,
        payload_type::SA
            | payload_type::KE
            | payload_type::IDI
            | payload_type::IDR
            | payload_type::AUTH
            | payload_type::NONCE
            | payload_type::TSI
            | payload_type::TSR
            | payload_type::CP
            | payload_type::EAP
    )
}

/// Parses the payload chain of `body`, whose first payload has type `first`. Does not step into SK and SKF: they end the
/// chain and come as [`Payload::Unknown`] of their type.
///
/// # Errors
/// [`WireError`].
pub fn parse_payloads(first: u8, body: &[u8]) -> Result<Vec<Payload>, WireError> {
    const WHAT: &str = "payload";
    let mut reader = Reader::new(WHAT, body);
    let mut payloads = Vec::new();
    let mut seen = [false; 256];
    let mut next = first;
    while next != payload_type::NONE {
        if payloads.len() == MAX_PAYLOADS {
            return Err(WireError::TooMany("payloads"));
        }
        if stands_once(next) && std::mem::replace(&mut seen[usize::from(next)], true) {
            return Err(WireError::Duplicate(notation(next).unwrap_or(WHAT)));
        }
        let [following, flags] = reader.array()?;
        let length = reader.u16()?;
        let body = reader.body(length, GENERIC_HEADER_LEN)?;
        payloads.push(Payload::parse(next, flags & 0x80 != 0, body)?);
        // The next-payload octet of SK and SKF tells what is inside them (sections 3.14; RFC 7383 section 2.5).
        if matches!(next, payload_type::SK | payload_type::SKF) {
            break;
        }
        next = following;
    }
    if !reader.is_empty() {
        return Err(WireError::Invalid { what: "payload chain", problem: "octets behind the last payload" });
    }
    Ok(payloads)
}

/// The data of the COOKIE notify in front of all else, where one stands there (section 2.6: "as the first payload").
/// This and [`first_nonce`] keep nothing, so that a flood costs nothing but a look.
pub(crate) fn leading_cookie(first: u8, body: &[u8]) -> Option<&[u8]> {
    const COOKIE: [u8; 2] = 16390_u16.to_be_bytes();
    if first != payload_type::NOTIFY {
        return None;
    }
    let mut reader = Reader::new("COOKIE", body);
    let [_next, _flags] = reader.array().ok()?;
    let length = reader.u16().ok()?;
    let (notify, data) = reader.body(length, GENERIC_HEADER_LEN).ok()?.split_first_chunk::<4>()?;
    // Protocol, size of an SPI, which it does not have, and type.
    (notify[1] == 0 && notify[2..] == COOKIE).then_some(data)
}

/// The content of the first Nonce payload of a chain.
pub(crate) fn first_nonce(first: u8, body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new("payload", body);
    let mut next = first;
    for _ in 0..MAX_PAYLOADS {
        let [following, _flags] = reader.array().ok()?;
        let length = reader.u16().ok()?;
        let content = reader.body(length, GENERIC_HEADER_LEN).ok()?;
        match next {
            payload_type::NONE => return None,
            payload_type::NONCE => return NONCE_LEN.contains(&content.len()).then_some(content),
            _ => next = following,
        }
    }
    None
}

/// Octets that [`demand_cookie`] writes at most.
pub(crate) const COOKIE_DEMAND_LEN: usize = Header::LEN + 8 + 64;

/// Writes a message that is a COOKIE notify and nothing else; returns its length.
///
/// # Panics
/// With a cookie of more than 64 octets, which is none (section 2.6).
pub(crate) fn demand_cookie(
    header: &HeaderFields,
    cookie: &[u8],
    room: &mut [u8; COOKIE_DEMAND_LEN],
) -> usize {
    let len = GENERIC_HEADER_LEN + 4 + cookie.len();
    room[..Header::LEN].copy_from_slice(&header.encode(payload_type::NOTIFY, len));
    let len_field = u16::try_from(len).expect("at most 72").to_be_bytes();
    let notify = [payload_type::NONE, 0, len_field[0], len_field[1], 0, 0, 0x40, 0x06];
    room[Header::LEN..Header::LEN + 8].copy_from_slice(&notify);
    room[Header::LEN + 8..Header::LEN + len].copy_from_slice(cookie);
    Header::LEN + len
}

/// Encodes a chain; returns the type of the first payload and the octets.
///
/// # Panics
/// Where one payload is longer than 65,535 octets, or has more than 255 transforms in a proposal: those are our own
/// data (certificates, configuration), which are bounded where they are loaded.
pub fn encode_payloads(payloads: &[Payload]) -> (u8, Vec<u8>) {
    let mut out = Vec::with_capacity(512);
    encode_into(payloads, &mut out);
    (first_type(payloads), out)
}

fn first_type(payloads: &[Payload]) -> u8 {
    payloads.first().map_or(payload_type::NONE, Payload::payload_type)
}

fn encode_into(payloads: &[Payload], out: &mut Vec<u8>) {
    for (index, payload) in payloads.iter().enumerate() {
        let start = out.len();
        let flags = if payload.critical() { 0x80 } else { 0 };
        out.extend_from_slice(&[first_type(&payloads[index + 1..]), flags, 0, 0]);
        payload.encode(out);
        fill_length(out, start, start + 2);
    }
}

/// Encodes a message in clear (IKE_SA_INIT).
///
/// # Panics
/// See [`encode_payloads`].
pub fn encode_message(header: &HeaderFields, payloads: &[Payload]) -> Vec<u8> {
    let mut out = vec![0; Header::LEN];
    out.reserve(512);
    encode_into(payloads, &mut out);
    let encoded = header.encode(first_type(payloads), out.len() - Header::LEN);
    out[..Header::LEN].copy_from_slice(&encoded);
    out
}
