//! Traffic Selector payloads ([RFC 7296 section 3.13](https://www.rfc-editor.org/rfc/rfc7296#section-3.13)).
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Number of TSs |                 RESERVED                      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                       <Traffic Selectors>                     ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   TS Type     |IP Protocol ID*|       Selector Length         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |           Start Port*         |           End Port*           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                         Starting Address*                     ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                         Ending Address*                       ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use super::WireError;
use super::codec::{Reader, fill_length, numbers};
use crate::selector::{AddressRange, TrafficSelector};
use std::net::{Ipv4Addr, Ipv6Addr};

numbers! {
    /// Traffic selector types.
    pub mod ts_type: u8 {
        /// A range of IPv4 addresses.
        TS_IPV4_ADDR_RANGE = 7,
        /// A range of IPv6 addresses.
        TS_IPV6_ADDR_RANGE = 8,
        /// Fibre Channel (RFC 4595).
        TS_FC_ADDR_RANGE = 9,
        /// A security label (RFC 9478).
        TS_SECLABEL = 10,
    }
}

/// Selectors that one payload holds at most: the count is one octet.
pub const MAX_SELECTORS: usize = 255;

/// Selectors of a type that is not known are skipped: they can only make the offer smaller.
pub(super) fn parse(body: &[u8]) -> Result<Vec<TrafficSelector>, WireError> {
    const WHAT: &str = "Traffic Selector";
    let mut reader = Reader::new("Traffic Selector payload", body);
    let [count, _, _, _] = reader.array()?;
    let mut selectors = Vec::with_capacity(usize::from(count).min(reader.rest().len() / 16));
    let mut reader = Reader::new(WHAT, reader.rest());
    for _ in 0..count {
        let [ts_type, protocol] = reader.array()?;
        let length = reader.u16()?;
        let mut inner = Reader::new(WHAT, reader.body(length, 4)?);
        if !matches!(ts_type, ts_type::TS_IPV4_ADDR_RANGE | ts_type::TS_IPV6_ADDR_RANGE) {
            continue;
        }
        let (start_port, end_port) = (inner.u16()?, inner.u16()?);
        let (addresses, ordered) = if ts_type == ts_type::TS_IPV4_ADDR_RANGE {
            let (start, end) = (Ipv4Addr::from(inner.array::<4>()?), Ipv4Addr::from(inner.array::<4>()?));
            (AddressRange::V4(start, end), start <= end)
        } else {
            let (start, end) = (Ipv6Addr::from(inner.array::<16>()?), Ipv6Addr::from(inner.array::<16>()?));
            (AddressRange::V6(start, end), start <= end)
        };
        inner.finish()?;
        if !ordered {
            return Err(WireError::Invalid { what: WHAT, problem: "first address above the last one" });
        }
        // OPAQUE is the one range that is written backwards (section 3.13.1).
        if start_port > end_port && (start_port, end_port) != (u16::MAX, 0) {
            return Err(WireError::Invalid { what: WHAT, problem: "first port above the last one" });
        }
        selectors.push(TrafficSelector { protocol, start_port, end_port, addresses });
    }
    reader.finish()?;
    Ok(selectors)
}

/// Only the first 255 selectors fit; an offer of fewer is a valid one (section 2.9).
pub(super) fn encode(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
    let selectors = &selectors[..selectors.len().min(MAX_SELECTORS)];
    let count = u8::try_from(selectors.len()).expect("cut to 255 above");
    out.extend_from_slice(&[count, 0, 0, 0]);
    for selector in selectors {
        let start = out.len();
        let ts_type = match selector.addresses {
            AddressRange::V4(..) => ts_type::TS_IPV4_ADDR_RANGE,
            AddressRange::V6(..) => ts_type::TS_IPV6_ADDR_RANGE,
        };
        out.extend_from_slice(&[ts_type, selector.protocol, 0, 0]);
        out.extend_from_slice(&selector.start_port.to_be_bytes());
        out.extend_from_slice(&selector.end_port.to_be_bytes());
        match selector.addresses {
            AddressRange::V4(first, last) => {
                out.extend_from_slice(&first.octets());
                out.extend_from_slice(&last.octets());
            }
            AddressRange::V6(first, last) => {
                out.extend_from_slice(&first.octets());
                out.extend_from_slice(&last.octets());
            }
        }
        fill_length(out, start, start + 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_hex(text: &str) -> Result<Vec<TrafficSelector>, WireError> {
        parse(&hex::decode(text.replace([' ', '\n'], "")).unwrap())
    }

    #[test]
    fn any_v6() {
        let octets =
            "01000000 0800 0028 0000 ffff 00000000000000000000000000000000 ffffffffffffffffffffffffffffffff";
        assert_eq!(parse_hex(octets), Ok(vec![TrafficSelector::ANY_V6]));
        let mut out = Vec::new();
        encode(&[TrafficSelector::ANY_V6], &mut out);
        assert_eq!(hex::encode(out), octets.replace(' ', ""));
    }

    #[test]
    fn unknown_types_are_skipped() {
        assert_eq!(parse_hex("01000000 0a00 0008 11223344"), Ok(vec![]));
        let two = "02000000 0a00 0004 0706 0010 0050 0050 0a000001 0a0000ff";
        let selectors = parse_hex(two).unwrap();
        assert_eq!(selectors.len(), 1);
        assert_eq!((selectors[0].protocol, selectors[0].start_port), (6, 80));
    }

    #[test]
    fn what_is_refused() {
        for (octets, problem) in [
            ("01000000 0706 0010 0051 0050 0a000001 0a0000ff", "first port"),
            ("01000000 0706 0010 0000 ffff 0a0000ff 0a000001", "first address"),
            ("01000000 0706 000f 0000 ffff 0a000001 0a0000ff", "cut short"),
            ("01000000 0706 0014 0000 ffff 0a000001 0a0000ff 00000000", "behind its end"),
            ("01000000 0706 0011 0000 ffff 0a000001 0a0000ff", "wrong length 17"),
            ("02000000 0706 0010 0000 ffff 0a000001 0a0000ff", "cut short"),
            ("00000000 0706 0010 0000 ffff 0a000001 0a0000ff", "behind its end"),
            ("01000000 0706 0003 0000 ffff 0a000001 0a0000ff", "wrong length 3"),
        ] {
            let error = parse_hex(octets).unwrap_err().to_string();
            assert!(error.contains(problem), "{octets}: {error}");
        }
        let opaque = parse_hex("01000000 0706 0010 ffff 0000 0a000001 0a0000ff").unwrap();
        assert!(opaque[0].is_opaque());
    }
}
