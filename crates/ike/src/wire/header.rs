//! The IKE header ([RFC 7296 section 3.1](https://www.rfc-editor.org/rfc/rfc7296#section-3.1)).
//!
//! ```text
//!                      1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                       IKE SA Initiator's SPI                  |
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                       IKE SA Responder's SPI                  |
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Next Payload | MjVer | MnVer | Exchange Type |X|X|R|V|I|X|X|X|
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                          Message ID                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                            Length                             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use super::WireError;
use super::codec::Reader;
use std::fmt;

/// IKE header (section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Initiator's SPI.
    pub initiator_spi: u64,
    /// Responder's SPI; 0 in the first message.
    pub responder_spi: u64,
    /// Type of the first payload.
    pub next_payload: u8,
    /// Version octet: major and minor.
    pub version: u8,
    /// Exchange type.
    pub exchange: ExchangeType,
    /// From the original initiator of the IKE SA.
    pub from_initiator: bool,
    /// A response.
    pub response: bool,
    /// Message ID.
    pub message_id: u32,
    /// Length of the whole message.
    pub length: u32,
}

/// Exchange types; unknown ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeType {
    /// 34
    IkeSaInit,
    /// 35
    IkeAuth,
    /// 36
    CreateChildSa,
    /// 37
    Informational,
    /// Any other.
    Other(u8),
}

impl ExchangeType {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::IkeSaInit => 34,
            Self::IkeAuth => 35,
            Self::CreateChildSa => 36,
            Self::Informational => 37,
            Self::Other(number) => number,
        }
    }
}

impl From<u8> for ExchangeType {
    fn from(number: u8) -> Self {
        match number {
            34 => Self::IkeSaInit,
            35 => Self::IkeAuth,
            36 => Self::CreateChildSa,
            37 => Self::Informational,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for ExchangeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IkeSaInit => f.write_str("IKE_SA_INIT"),
            Self::IkeAuth => f.write_str("IKE_AUTH"),
            Self::CreateChildSa => f.write_str("CREATE_CHILD_SA"),
            Self::Informational => f.write_str("INFORMATIONAL"),
            Self::Other(number) => write!(f, "exchange type {number}"),
        }
    }
}

/// What of a header the sender chooses; the rest follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// Initiator's SPI.
    pub initiator_spi: u64,
    /// Responder's SPI.
    pub responder_spi: u64,
    /// Exchange type.
    pub exchange: ExchangeType,
    /// From the original initiator.
    pub from_initiator: bool,
    /// A response.
    pub response: bool,
    /// Message ID.
    pub message_id: u32,
}

impl Header {
    /// Octets.
    pub const LEN: usize = 28;
    /// The version that we speak: major 2, minor 0.
    pub const VERSION: u8 = 0x20;

    const FLAG_INITIATOR: u8 = 1 << 3;
    /// "Version": the sender could speak a higher major version. Cleared on sending, ignored on receipt.
    const FLAG_RESPONSE: u8 = 1 << 5;

    /// The fields as they stand, with no check but that 28 octets are there: for the answer to a message of another
    /// major version (section 2.5), and for logs.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn peek(message: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("IKE header", message);
        let initiator_spi = reader.u64()?;
        let responder_spi = reader.u64()?;
        let [next_payload, version, exchange, flags] = reader.array()?;
        Ok(Self {
            initiator_spi,
            responder_spi,
            next_payload,
            version,
            exchange: exchange.into(),
            from_initiator: flags & Self::FLAG_INITIATOR != 0,
            response: flags & Self::FLAG_RESPONSE != 0,
            message_id: reader.u32()?,
            length: reader.u32()?,
        })
    }

    /// Parses and checks that `length` is the message's length. A minor version other than 0 and the reserved flags
    /// are ignored (sections 2.5 and 3.1).
    ///
    /// # Errors
    /// [`WireError::Version`] where the major version is not 2; [`WireError::Length`] where the length is not that of
    /// the datagram; [`WireError::Invalid`] where the initiator's SPI is zero.
    pub fn parse(message: &[u8]) -> Result<Self, WireError> {
        let header = Self::peek(message)?;
        if header.version >> 4 != Self::VERSION >> 4 {
            return Err(WireError::Version(header.version >> 4));
        }
        if u32::try_from(message.len()) != Ok(header.length) {
            let length = usize::try_from(header.length).unwrap_or(usize::MAX);
            return Err(WireError::Length { what: "IKE header", length });
        }
        if header.initiator_spi == 0 {
            return Err(WireError::Invalid { what: "IKE header", problem: "initiator's SPI is zero" });
        }
        Ok(header)
    }

    /// What the sender chose.
    pub const fn fields(&self) -> HeaderFields {
        HeaderFields {
            initiator_spi: self.initiator_spi,
            responder_spi: self.responder_spi,
            exchange: self.exchange,
            from_initiator: self.from_initiator,
            response: self.response,
            message_id: self.message_id,
        }
    }
}

impl HeaderFields {
    /// The 28 octets in front of a message whose payloads are `payloads_len` octets long.
    pub(super) fn encode(&self, next_payload: u8, payloads_len: usize) -> [u8; Header::LEN] {
        let length = u32::try_from(Header::LEN + payloads_len).expect("a message is far below 4 GiB");
        let flags = if self.from_initiator { Header::FLAG_INITIATOR } else { 0 }
            | if self.response { Header::FLAG_RESPONSE } else { 0 };
        let mut out = [0; Header::LEN];
        out[..8].copy_from_slice(&self.initiator_spi.to_be_bytes());
        out[8..16].copy_from_slice(&self.responder_spi.to_be_bytes());
        out[16..20].copy_from_slice(&[next_payload, Header::VERSION, self.exchange.number(), flags]);
        out[20..24].copy_from_slice(&self.message_id.to_be_bytes());
        out[24..].copy_from_slice(&length.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIELDS: HeaderFields = HeaderFields {
        initiator_spi: 0x1122_3344_5566_7788,
        responder_spi: 0x99aa_bbcc_ddee_ff00,
        exchange: ExchangeType::IkeSaInit,
        from_initiator: true,
        response: false,
        message_id: 0x0102_0304,
    };

    #[test]
    fn octets_are_those_of_the_rfc() {
        assert_eq!(
            FIELDS.encode(33, 0).as_slice(),
            hex::decode("112233445566778899aabbccddeeff002120220801020304 0000001c".replace(' ', ""))
                .unwrap()
        );
        let answer = HeaderFields { from_initiator: false, response: true, ..FIELDS };
        assert_eq!(answer.encode(33, 0)[19], 0x20);
    }

    #[test]
    fn reserved_flags_and_minor_version_are_ignored() {
        let mut message = FIELDS.encode(33, 0);
        message[19] |= 0b1101_0111;
        message[17] = 0x2f;
        let header = Header::parse(&message).unwrap();
        assert_eq!(header.fields(), FIELDS);
        assert_eq!(header.version, 0x2f);
    }

    #[test]
    fn what_is_refused() {
        let good = FIELDS.encode(33, 0);
        for len in 0..good.len() {
            assert_eq!(Header::parse(&good[..len]), Err(WireError::Truncated { what: "IKE header" }));
        }
        for major in (0..16_u8).filter(|major| *major != 2) {
            let mut other = good;
            other[17] = major << 4;
            assert_eq!(Header::parse(&other), Err(WireError::Version(major)));
        }
        let mut longer = good.to_vec();
        longer.push(0);
        assert_eq!(Header::parse(&longer), Err(WireError::Length { what: "IKE header", length: 28 }));
        let mut lie = good;
        lie[24..].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(Header::parse(&lie), Err(WireError::Length { .. })));
        let mut zero = good;
        zero[..8].fill(0);
        assert!(matches!(Header::parse(&zero), Err(WireError::Invalid { .. })));
    }

    #[test]
    fn exchange_numbers_survive() {
        for number in 0..=u8::MAX {
            assert_eq!(ExchangeType::from(number).number(), number);
        }
        assert_eq!(ExchangeType::from(43).to_string(), "exchange type 43");
        assert_eq!(ExchangeType::from(34).to_string(), "IKE_SA_INIT");
    }

    proptest! {
        #[test]
        fn round_trip(i in 1..=u64::MAX, r: u64, exchange: u8, from_initiator: bool, response: bool, id: u32, next: u8) {
            let fields = HeaderFields {
                initiator_spi: i, responder_spi: r, exchange: exchange.into(), from_initiator, response, message_id: id,
            };
            let header = Header::parse(&fields.encode(next, 0)).unwrap();
            prop_assert_eq!(header.fields(), fields);
            prop_assert_eq!(header.next_payload, next);
        }
    }
}
