//! The two halves of an ESP SA. They are two types: nothing can seal with an inbound SA.

use crate::limits::{UsageLimits, last_sequence};
use crate::replay::{ReplayError, ReplayWindow};
use crate::size::{ESP_HEADER_LEN, Geometry, Overhead, TRAILER_LEN};
use crate::{PacketKeys, Spi};
use ferry6_crypto::provider::{LANES, Packet};
use ferry6_crypto::{CipherSuite, CryptoError, CryptoProvider, OpeningKey, SealingKey};

/// The padding octets 1, 2, 3, … (RFC 4303 section 2.4), as many as the one octet Pad Length can count.
const PADDING: [u8; 255] = {
    let mut octets = [0; 255];
    let mut i = 0;
    while i < octets.len() {
        octets[i] = i as u8 + 1;
        i += 1;
    }
    octets
};

/// What is authenticated beside the text: SPI and sequence number, and the high half of an extended one, which is
/// never on the wire. It stands between the two for an AEAD (RFC 4106 section 5), and behind the text for a cipher
/// with a separate integrity algorithm (RFC 4303 section 2.2.1).
struct Authenticated {
    octets: [u8; 12],
    aad: usize,
    suffix: usize,
}

impl Authenticated {
    #[inline]
    fn new(spi: Spi, sequence: u64, esn: bool, aead: bool) -> Self {
        let mut octets = [0; 12];
        octets[..4].copy_from_slice(&spi.to_be_bytes());
        let (aad, suffix) = match (esn, aead) {
            (true, true) => {
                octets[4..].copy_from_slice(&sequence.to_be_bytes());
                (12, 0)
            }
            (_, _) => {
                octets[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
                octets[8..].copy_from_slice(&((sequence >> 32) as u32).to_be_bytes());
                (8, if esn { 4 } else { 0 })
            }
        };
        Self { octets, aad, suffix }
    }

    #[inline]
    fn aad(&self) -> &[u8] {
        &self.octets[..self.aad]
    }

    #[inline]
    fn suffix(&self) -> &[u8] {
        &self.octets[self.aad..][..self.suffix]
    }
}

/// Why a packet could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The sequence number would wrap (RFC 4303 section 3.3.3): the SA must be rekeyed, it sends no more.
    #[error("sequence numbers exhausted")]
    Exhausted,
    /// `buffer` has no room for headers or trailer.
    #[error("no room in the buffer")]
    Room,
    /// The cipher refused; a bug.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// A packet of a batch, before it is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    /// Octets of the payload.
    pub len: usize,
    /// Its protocol.
    pub next_header: u8,
}

/// The sending half.
pub struct OutboundSa {
    key: Box<dyn SealingKey>,
    spi: Spi,
    geometry: Geometry,
    aead: bool,
    esn: bool,
    /// Sequence number of the last packet; 0 before the first.
    sequence: u64,
}

impl OutboundSa {
    /// A new SA whose first packet has sequence number 1.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    pub fn new(
        provider: &CryptoProvider,
        spi: Spi,
        keys: &PacketKeys,
        esn: bool,
    ) -> Result<Self, CryptoError> {
        Ok(Self::with_key(provider.packets.sealing(keys)?, spi, esn))
    }

    /// The same with a key that was made elsewhere, and that has sealed nothing yet.
    pub fn with_key(key: Box<dyn SealingKey>, spi: Spi, esn: bool) -> Self {
        let suite = key.suite();
        Self { key, spi, geometry: Geometry::of(suite), aead: suite.is_aead(), esn, sequence: 0 }
    }

    /// The peer's SPI.
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// Its suite.
    pub fn suite(&self) -> CipherSuite {
        self.key.suite()
    }

    /// The overhead of its suite.
    pub fn overhead(&self) -> Overhead {
        Overhead::of(self.suite())
    }

    /// Where to rekey.
    pub fn limits(&self) -> UsageLimits {
        UsageLimits::of(self.suite(), self.esn)
    }

    /// The number of packets sealed so far.
    #[inline]
    pub fn packets(&self) -> u64 {
        self.sequence
    }

    /// How many packets may still be sealed.
    #[inline]
    pub fn remaining(&self) -> u64 {
        last_sequence(self.esn) - self.sequence
    }

    /// Seals in place (RFC 4303 section 3.3). The payload stands at `buffer[overhead.front..][..payload_len]`; the ESP
    /// packet then starts at `buffer[0]`, and its length is returned. `buffer` may be longer; what lies behind the
    /// packet is not touched.
    ///
    /// A payload of any content and [`crate::next_header::DUMMY`] make a dummy packet.
    ///
    /// # Errors
    /// [`SealError`]; no sequence number is used up then.
    #[inline]
    pub fn seal(
        &mut self,
        buffer: &mut [u8],
        payload_len: usize,
        next_header: u8,
    ) -> Result<usize, SealError> {
        let len = self.geometry.sealed_len(payload_len);
        let packet = buffer.get_mut(..len).ok_or(SealError::Room)?;
        if self.remaining() == 0 {
            return Err(SealError::Exhausted);
        }
        let sequence = self.sequence + 1;
        let (iv, text, icv) = self.frame(packet, Plain { len: payload_len, next_header }, sequence);
        let beside = Authenticated::new(self.spi, sequence, self.esn, self.aead);
        self.key.seal(beside.aad(), iv, text, beside.suffix(), icv)?;
        self.sequence = sequence;
        Ok(len)
    }

    /// How many packets [`Self::seal_batch`] should get at once: 1 where that brings nothing.
    #[inline]
    pub fn batch_len(&self) -> usize {
        if self.aead { 1 } else { LANES }
    }

    /// Octets of a sealed packet with a payload of `payload_len` octets.
    #[inline]
    pub fn sealed_len(&self, payload_len: usize) -> usize {
        self.geometry.sealed_len(payload_len)
    }

    /// Seals packets that stand one behind the other, each where it would if the one before were sealed already: see
    /// [`Self::seal`] and [`Self::sealed_len`]. With AES-CBC they are encrypted side by side, which is faster.
    ///
    /// # Errors
    /// [`SealError`]. None of the packets may be sent then. Their sequence numbers are used up where it is
    /// [`SealError::Crypto`].
    #[inline]
    pub fn seal_batch(&mut self, buffer: &mut [u8], packets: &[Plain]) -> Result<(), SealError> {
        if let [packet] = packets {
            return self.seal(buffer, packet.len, packet.next_header).map(|_| ());
        }
        let len = packets
            .iter()
            .fold(0, |len: usize, packet| len.saturating_add(self.geometry.sealed_len(packet.len)));
        let mut rest = buffer.get_mut(..len).ok_or(SealError::Room)?;
        if self.remaining() < packets.len() as u64 {
            return Err(SealError::Exhausted);
        }
        let (groups, lone) = packets.as_chunks::<LANES>();
        for group in groups {
            let first = self.sequence + 1;
            self.sequence += LANES as u64;
            let beside: [_; LANES] =
                std::array::from_fn(|i| Authenticated::new(self.spi, first + i as u64, self.esn, self.aead));
            let mut side_by_side: [_; LANES] = std::array::from_fn(|i| {
                let len = self.geometry.sealed_len(group[i].len);
                let (packet, behind) = std::mem::take(&mut rest).split_at_mut(len);
                rest = behind;
                let (iv, text, icv) = self.frame(packet, group[i], first + i as u64);
                Packet { aad: beside[i].aad(), iv, text, suffix: beside[i].suffix(), icv }
            });
            self.key.seal_batch(&mut side_by_side)?;
        }
        for packet in lone {
            let len = self.seal(rest, packet.len, packet.next_header)?;
            rest = &mut rest[len..];
        }
        Ok(())
    }

    /// Writes all but the payload into a packet of the right length: header, IV, padding, trailer. Returns IV, text
    /// and the place of the ICV.
    #[inline]
    fn frame<'b>(
        &mut self,
        packet: &'b mut [u8],
        plain: Plain,
        sequence: u64,
    ) -> (&'b [u8], &'b mut [u8], &'b mut [u8]) {
        let (header, rest) = packet.split_at_mut(ESP_HEADER_LEN);
        header[..4].copy_from_slice(&self.spi.to_be_bytes());
        header[4..].copy_from_slice(&(sequence as u32).to_be_bytes());
        let (iv, rest) = rest.split_at_mut(self.geometry.iv);
        let (text, icv) = rest.split_at_mut(self.geometry.text_len(plain.len));
        debug_assert_eq!(icv.len(), self.geometry.icv);

        let pad_len = text.len() - plain.len - TRAILER_LEN;
        let trailer = &mut text[plain.len..];
        trailer[..pad_len].copy_from_slice(&PADDING[..pad_len]);
        trailer[pad_len] = pad_len as u8;
        trailer[pad_len + 1] = plain.next_header;
        self.key.write_iv(sequence, iv);
        (iv, text, icv)
    }
}

impl std::fmt::Debug for OutboundSa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboundSa")
            .field("spi", &self.spi)
            .field("suite", &self.suite())
            .field("esn", &self.esn)
            .field("packets", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Why a packet is dropped, in the order of the checks (RFC 4303 section 3.4). One cause, one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than header, IV, one block and ICV, or text not a whole number of blocks.
    #[error("malformed ESP packet")]
    Malformed,
    /// Not of this SA.
    #[error("SPI of another SA")]
    Spi,
    /// Refused by the window.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// ICV does not fit.
    #[error("integrity check failed")]
    Integrity,
    /// Verified, but pad length or padding octets are wrong (RFC 4303 section 2.4).
    #[error("wrong padding")]
    Padding,
}

/// A verified packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The payload, padding taken off.
    pub payload: &'a mut [u8],
    /// Its protocol; [`crate::next_header::DUMMY`] means: drop silently, but it counts as received.
    pub next_header: u8,
    /// The full sequence number.
    pub sequence: u64,
}

/// How far ahead of the highest number verified a number is rather a replay than the next one, in packets.
///
/// With ESN a number left of the window stands for one of the next 2^32 (RFC 4303 appendix A2.1), which only its ICV tells apart: so
/// whoever replays what is older than the window has every packet decrypted. Half of the 2^32 is what a peer cannot have sent
/// without one packet coming through, but for a peer that lost its way (appendix A3): for its sake a few are verified, and the first that
/// is true moves the window to where they are likely again.
const UNLIKELY: u64 = 1 << 31;
/// One of so many of them is verified.
const UNLIKELY_EACH: u32 = 64;

/// The receiving half, with its replay window.
pub struct InboundSa {
    key: Box<dyn OpeningKey>,
    spi: Spi,
    geometry: Geometry,
    aead: bool,
    esn: bool,
    window: ReplayWindow,
    /// How many numbers were [`UNLIKELY`].
    unlikely: u32,
}

impl InboundSa {
    /// `replay_window` in packets, see [`ReplayWindow::new`]; 0 switches the check off.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    pub fn new(
        provider: &CryptoProvider,
        spi: Spi,
        keys: &PacketKeys,
        esn: bool,
        replay_window: u32,
    ) -> Result<Self, CryptoError> {
        Ok(Self::with_key(provider.packets.opening(keys)?, spi, esn, replay_window))
    }

    /// The same with a key that was made elsewhere.
    pub fn with_key(key: Box<dyn OpeningKey>, spi: Spi, esn: bool, replay_window: u32) -> Self {
        let suite = key.suite();
        Self {
            key,
            spi,
            geometry: Geometry::of(suite),
            aead: suite.is_aead(),
            esn,
            window: ReplayWindow::new(replay_window, esn),
            unlikely: 0,
        }
    }

    /// Our SPI.
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// Its suite.
    pub fn suite(&self) -> CipherSuite {
        self.key.suite()
    }

    /// Where to rekey.
    pub fn limits(&self) -> UsageLimits {
        UsageLimits::of(self.suite(), self.esn)
    }

    /// The highest sequence number that was verified; 0 before the first packet.
    #[inline]
    pub fn highest(&self) -> u64 {
        self.window.highest()
    }

    /// Whether a verified packet is the newest so far, and for certain: without a replay check nobody knows. Only such a
    /// packet tells where the peer is now (RFC 7296 section 2.23).
    #[inline]
    pub fn is_newest(&self, sequence: u64) -> bool {
        sequence == self.window.highest() && self.window.size() > 0
    }

    /// Whether this one of the numbers that are [`UNLIKELY`] has its ICV verified: the first, and each 64th of them.
    #[cold]
    fn is_worth_a_look(&mut self) -> bool {
        self.unlikely = self.unlikely.wrapping_add(1);
        self.unlikely % UNLIKELY_EACH == 1
    }

    /// Replay check, ICV, decryption in place, replay accept, trailer (RFC 4303 section 3.4.3 and 3.4.4).
    ///
    /// `packet` is the whole ESP packet, from its SPI to the last octet of its ICV.
    ///
    /// # Errors
    /// [`OpenError`]. The window has moved only where it says [`OpenError::Padding`]. What `packet` holds then is
    /// of no use.
    #[inline]
    pub fn open<'a>(&mut self, packet: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        let Geometry { icv: icv_len, align, .. } = self.geometry;
        let front = self.geometry.front();
        let text_len = packet.len().checked_sub(front + icv_len).ok_or(OpenError::Malformed)?;
        if text_len < align || text_len & (align - 1) != 0 {
            return Err(OpenError::Malformed);
        }
        let (header, rest) = packet.split_at_mut(ESP_HEADER_LEN);
        let (iv, rest) = rest.split_at_mut(front - ESP_HEADER_LEN);
        let (text, icv) = rest.split_at_mut(text_len);
        if header[..4] != self.spi.to_be_bytes() {
            return Err(OpenError::Spi);
        }
        let low = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);

        let candidate = self.window.check(low)?;
        let sequence = candidate.sequence();
        let ahead = sequence.saturating_sub(self.window.highest());
        if ahead > UNLIKELY && self.esn && !self.is_worth_a_look() {
            return Err(OpenError::Replay(ReplayError::TooOld));
        }
        let beside = Authenticated::new(self.spi, sequence, self.esn, self.aead);
        self.key.open(beside.aad(), iv, text, beside.suffix(), icv).map_err(|error| match error {
            CryptoError::Length => OpenError::Malformed,
            _ => OpenError::Integrity,
        })?;
        if !self.window.accept(candidate) {
            return Err(OpenError::Replay(ReplayError::Duplicate));
        }

        let pad_len = usize::from(text[text_len - TRAILER_LEN]);
        let next_header = text[text_len - 1];
        let payload_len = (text_len - TRAILER_LEN).checked_sub(pad_len).ok_or(OpenError::Padding)?;
        if text[payload_len..][..pad_len] != PADDING[..pad_len] {
            return Err(OpenError::Padding);
        }
        Ok(Opened { payload: &mut text[..payload_len], next_header, sequence })
    }
}

impl std::fmt::Debug for InboundSa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboundSa")
            .field("spi", &self.spi)
            .field("suite", &self.suite())
            .field("esn", &self.esn)
            .field("highest", &self.highest())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
