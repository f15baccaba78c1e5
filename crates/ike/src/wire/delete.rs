//! The Delete payload ([RFC 7296 section 3.11](https://www.rfc-editor.org/rfc/rfc7296#section-3.11)).
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Protocol ID   |   SPI Size    |          Num of SPIs          |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~               Security Parameter Index(es) (SPI)              ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use super::codec::Reader;
use super::{WireError, protocol};

/// Delete payload (section 3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// 1 IKE (no SPIs), 2 AH, 3 ESP.
    pub protocol: u8,
    /// SPIs of 4 octets.
    pub spis: Vec<u32>,
}

pub(super) fn parse(body: &[u8]) -> Result<Delete, WireError> {
    const WHAT: &str = "Delete payload";
    let mut reader = Reader::new(WHAT, body);
    let [protocol, spi_size] = reader.array()?;
    let count = usize::from(reader.u16()?);
    // The SPI of an IKE SA is in the header: size zero, and the count means nothing.
    if protocol == protocol::IKE && spi_size == 0 {
        reader.finish()?;
        return Ok(Delete { protocol, spis: Vec::new() });
    }
    if protocol == protocol::IKE || spi_size != 4 {
        return Err(WireError::Invalid { what: WHAT, problem: "SPI size does not fit the protocol" });
    }
    if reader.rest().len() != count * 4 {
        return Err(WireError::Length { what: WHAT, length: count * 4 });
    }
    let (spis, _) = reader.rest().as_chunks();
    Ok(Delete { protocol, spis: spis.iter().map(|spi| u32::from_be_bytes(*spi)).collect() })
}

pub(super) fn encode(delete: &Delete, out: &mut Vec<u8>) {
    let count = u16::try_from(delete.spis.len()).expect("an IKE SA has far fewer Child SAs");
    out.extend_from_slice(&[delete.protocol, if delete.protocol == protocol::IKE { 0 } else { 4 }]);
    out.extend_from_slice(&count.to_be_bytes());
    for spi in &delete.spis {
        out.extend_from_slice(&spi.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds() {
        let esp = Delete { protocol: protocol::ESP, spis: vec![0x0102_0304, 0xffff_ffff] };
        let mut out = Vec::new();
        encode(&esp, &mut out);
        assert_eq!(hex::encode(&out), "0304000201020304ffffffff");
        assert_eq!(parse(&out), Ok(esp));
        let ike = Delete { protocol: protocol::IKE, spis: vec![] };
        out.clear();
        encode(&ike, &mut out);
        assert_eq!(hex::encode(&out), "01000000");
        assert_eq!(parse(&out), Ok(ike));
    }

    #[test]
    fn sizes_that_lie() {
        for octets in [
            "03",
            "03040001",
            "0304000101020304ff",
            "0304ffff01020304",
            "03000000",
            "0104000101020304",
            "0308000101020304",
        ] {
            assert!(parse(&hex::decode(octets).unwrap()).is_err(), "{octets}");
        }
    }
}
