//! The Encrypted payload ([RFC 7296 section 3.14](https://www.rfc-editor.org/rfc/rfc7296#section-3.14)) and the
//! Encrypted Fragment payload ([RFC 7383 section 2.5](https://www.rfc-editor.org/rfc/rfc7383#section-2.5)).
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Next Payload  |C|  RESERVED   |         Payload Length        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |        Fragment Number        |        Total Fragments        |  only in SKF
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                     Initialization Vector                     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                    Encrypted IKE Payloads                     ~
//! +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |               |             Padding (0-255 octets)            |
//! +-+-+-+-+-+-+-+-+                               +-+-+-+-+-+-+-+-+
//! |                                               |  Pad Length   |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                    Integrity Checksum Data                    ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! What stands before the IV is authenticated and not encrypted: with an AEAD it is the associated data
//! ([RFC 5282 section 5.1](https://www.rfc-editor.org/rfc/rfc5282#section-5.1)), with HMAC the ICV covers all of the
//! message from the first octet of the IKE header on.

use super::codec::{Reader, fill_length};
use super::message::WireError;
use super::payload::{GENERIC_HEADER_LEN, payload_type};
use super::{Header, HeaderFields};
use ferry6_crypto::{CipherSuite, OpeningKey, SealingKey};

/// Fragments of one message at most. The smallest that peers send are about 600 octets, so this is more than 32 KiB.
pub const MAX_FRAGMENTS: u16 = 64;
/// Octets of a reassembled payload chain at most.
pub const MAX_REASSEMBLED: usize = 65_535;
/// A fragment size below this is taken for this: no path needs less, and headers would be most of it.
pub const MIN_FRAGMENT_SIZE: usize = 256;

/// Octets of Fragment Number and Total Fragments.
const FRAGMENT_FIELDS_LEN: usize = 4;

/// Why an encrypted message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkError {
    /// The outer structure is wrong.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No SK or SKF payload where one must be.
    #[error("no Encrypted payload")]
    Missing,
    /// ICV does not fit. Such a message changes nothing.
    #[error("integrity check failed")]
    Integrity,
    /// Fragment numbers that contradict each other or the bound (RFC 7383 section 2.6).
    #[error("fragment {0}")]
    Fragment(&'static str),
}

/// The decrypted chain: type of its first payload and its octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// First payload.
    pub first: u8,
    /// The chain.
    pub body: Vec<u8>,
}

/// What came out of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkMessage {
    /// All of it.
    Whole(Plain),
    /// A fragment, authenticated, for a [`Reassembly`].
    Fragment {
        /// From 1.
        number: u16,
        /// Total, at most [`MAX_FRAGMENTS`].
        total: u16,
        /// First payload; told only in fragment 1.
        first: u8,
        /// Content.
        data: Vec<u8>,
    },
}

/// Encrypts a chain into one message, or into as many fragments as `fragment_size` (octets of IKE message) asks for.
/// `counter` feeds the IV and grows by one per message.
///
/// # Panics
/// Where `chain` is longer than 65,535 octets less the overhead and may not be cut: it is made of our own data, which
/// is bounded where it is loaded.
pub fn seal(
    header: &HeaderFields,
    first: u8,
    chain: &[u8],
    key: &mut dyn SealingKey,
    counter: &mut u64,
    fragment_size: Option<usize>,
) -> Vec<Vec<u8>> {
    let suite = key.suite();
    let whole = sealed_len(suite, chain.len());
    let Some(size) = fragment_size.map(|size| size.max(MIN_FRAGMENT_SIZE)).filter(|size| *size < whole)
    else {
        return vec![seal_one(header, first, None, chain, key, counter)];
    };
    let pieces = chain.chunks(fragment_content(suite, size));
    let total = u16::try_from(pieces.len()).expect("a chain of 64 KiB in pieces of 100 octets and more");
    (1..=total)
        .zip(pieces)
        // RFC 7383 section 2.5: the type of the first payload stands in the first fragment, zero in the others.
        .map(|(number, piece)| {
            let first = if number == 1 { first } else { payload_type::NONE };
            seal_one(header, first, Some((number, total)), piece, key, counter)
        })
        .collect()
}

/// Octets of a message, not in fragments, with a chain of so many.
pub(crate) const fn sealed_len(suite: CipherSuite, chain: usize) -> usize {
    Header::LEN + GENERIC_HEADER_LEN + protected_len(suite, chain)
}

/// Octets of the ciphertext of `content` octets and their pad length octet.
const fn text_len(suite: CipherSuite, content: usize) -> usize {
    (content + 1).next_multiple_of(suite.cipher().block_len())
}

/// IV, ciphertext and ICV of `content` octets.
const fn protected_len(suite: CipherSuite, content: usize) -> usize {
    suite.cipher().iv_len() + text_len(suite, content) + suite.icv_len()
}

/// Octets of content in a fragment, so that the message has at most `size` octets.
const fn fragment_content(suite: CipherSuite, size: usize) -> usize {
    let overhead =
        Header::LEN + GENERIC_HEADER_LEN + FRAGMENT_FIELDS_LEN + suite.cipher().iv_len() + suite.icv_len();
    let text = size - overhead;
    text - text % suite.cipher().block_len() - 1
}

fn seal_one(
    header: &HeaderFields,
    first: u8,
    fragment: Option<(u16, u16)>,
    content: &[u8],
    key: &mut dyn SealingKey,
    counter: &mut u64,
) -> Vec<u8> {
    let suite = key.suite();
    let fields_len = if fragment.is_some() { FRAGMENT_FIELDS_LEN } else { 0 };
    let payload_len = GENERIC_HEADER_LEN + fields_len + protected_len(suite, content.len());
    let sk_type = if fragment.is_some() { payload_type::SKF } else { payload_type::SK };

    let mut message = Vec::with_capacity(Header::LEN + payload_len);
    message.extend_from_slice(&header.encode(sk_type, payload_len));
    message.extend_from_slice(&[first, 0, 0, 0]);
    if let Some((number, total)) = fragment {
        message.extend_from_slice(&number.to_be_bytes());
        message.extend_from_slice(&total.to_be_bytes());
    }
    let aad_len = message.len();
    let iv_end = aad_len + suite.cipher().iv_len();
    message.resize(iv_end, 0);
    message.extend_from_slice(content);
    let icv_start = iv_end + text_len(suite, content.len());
    let padding = icv_start - message.len() - 1;
    message.resize(icv_start, 0);
    message[icv_start - 1] = u8::try_from(padding).expect("padding is less than a block");
    message.resize(Header::LEN + payload_len, 0);
    fill_length(&mut message, Header::LEN, Header::LEN + 2);

    let (aad, rest) = message.split_at_mut(aad_len);
    let (iv, rest) = rest.split_at_mut(iv_end - aad_len);
    let (text, icv) = rest.split_at_mut(icv_start - iv_end);
    key.write_iv(*counter, iv);
    *counter += 1;
    key.seal(aad, iv, text, &[], icv).expect("all lengths were computed from the suite");
    message
}

/// Verifies and decrypts one message. The Encrypted payload must be its only one: what stands before it could have no
/// meaning that an exchange of ours knows.
///
/// # Errors
/// [`SkError`]. Until the ICV has been verified nothing may be believed, so every error but a wrong pad length says as
/// little about the peer as noise does.
pub fn open(message: &[u8], key: &mut dyn OpeningKey) -> Result<SkMessage, SkError> {
    let header = Header::parse(message)?;
    let (what, fragmented) = match header.next_payload {
        payload_type::SK => ("Encrypted payload", false),
        payload_type::SKF => ("Encrypted Fragment payload", true),
        _ => return Err(SkError::Missing),
    };
    let mut reader = Reader::new(what, &message[Header::LEN..]);
    let [first, _critical] = reader.array()?;
    let length = reader.u16()?;
    let mut reader = {
        let body = reader.body(length, GENERIC_HEADER_LEN)?;
        reader.finish()?;
        Reader::new(what, body)
    };
    let fragment = if fragmented { Some(check_fragment(reader.u16()?, reader.u16()?)?) } else { None };

    let suite = key.suite();
    let aad = &message[..message.len() - reader.rest().len()];
    let iv = reader.take(suite.cipher().iv_len())?;
    let text_len = reader.rest().len().checked_sub(suite.icv_len()).ok_or(WireError::Truncated { what })?;
    if text_len == 0 || text_len % suite.cipher().block_len() != 0 {
        return Err(WireError::Invalid { what, problem: "ciphertext is not a multiple of the block" }.into());
    }
    let mut text = reader.take(text_len)?.to_vec();
    key.open(aad, iv, &mut text, &[], reader.rest()).map_err(|_| SkError::Integrity)?;

    // Any padding must be accepted, only its length must be true.
    let padding = text.pop().expect("checked above: at least one octet");
    let content = text
        .len()
        .checked_sub(padding.into())
        .ok_or(WireError::Length { what: "padding", length: padding.into() })?;
    text.truncate(content);
    Ok(match fragment {
        None => SkMessage::Whole(Plain { first, body: text }),
        Some((number, total)) => SkMessage::Fragment { number, total, first, data: text },
    })
}

fn check_fragment(number: u16, total: u16) -> Result<(u16, u16), SkError> {
    if number == 0 || number > total {
        return Err(SkError::Fragment("number is zero or above the total"));
    }
    if total > MAX_FRAGMENTS {
        return Err(SkError::Fragment("total is above 64"));
    }
    Ok((number, total))
}

/// Collects the fragments of one message; bounded in number and octets.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// One place for each fragment; empty while there is none.
    fragments: Vec<Option<Vec<u8>>>,
    missing: usize,
    octets: usize,
    first: u8,
}

impl Reassembly {
    /// Takes a fragment; returns the whole when it is complete. A greater `total` starts anew, a smaller one and a
    /// fragment that is there already are dropped (RFC 7383 section 2.6).
    ///
    /// # Errors
    /// [`SkError::Fragment`] where numbers contradict each other, or the bound would be passed: then all that was
    /// collected is dropped too.
    pub fn insert(
        &mut self,
        number: u16,
        total: u16,
        first: u8,
        data: Vec<u8>,
    ) -> Result<Option<Plain>, SkError> {
        let (number, total) = check_fragment(number, total)?;
        let (index, total) = (usize::from(number) - 1, usize::from(total));
        if total < self.fragments.len() {
            return Ok(None);
        }
        if total > self.fragments.len() {
            *self =
                Self { fragments: vec![None; total], missing: total, octets: 0, first: payload_type::NONE };
        }
        if self.fragments[index].is_some() {
            return Ok(None);
        }
        if self.octets + data.len() > MAX_REASSEMBLED {
            *self = Self::default();
            return Err(SkError::Fragment("makes the message longer than 65535 octets"));
        }
        if number == 1 {
            self.first = first;
        }
        self.octets += data.len();
        self.missing -= 1;
        self.fragments[index] = Some(data);
        if self.missing > 0 {
            return Ok(None);
        }
        let done = std::mem::take(self);
        let mut body = Vec::with_capacity(done.octets);
        done.fragments.into_iter().flatten().for_each(|piece| body.extend_from_slice(&piece));
        Ok(Some(Plain { first: done.first, body }))
    }

    /// How many fragments the message has, as far as is known.
    pub const fn total(&self) -> usize {
        self.fragments.len()
    }

    /// Octets of the fragments that wait.
    pub const fn octets(&self) -> usize {
        self.octets
    }

    /// Whether no fragment waits.
    pub const fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ExchangeType;
    use ferry6_crypto::{CryptoProvider, PacketKeys, Secret, providers};
    use proptest::prelude::*;

    const HEADER: HeaderFields = HeaderFields {
        initiator_spi: 0x1122_3344_5566_7788,
        responder_spi: 0x99aa_bbcc_ddee_ff00,
        exchange: ExchangeType::IkeAuth,
        from_initiator: true,
        response: false,
        message_id: 1,
    };

    fn keys(suite: CipherSuite, fill: u8) -> PacketKeys {
        PacketKeys {
            suite,
            encryption: Secret::new(vec![fill; suite.cipher().key_material_len()]),
            integrity: Secret::new(vec![fill; suite.integ().map_or(0, |integ| integ.key_len())]),
        }
    }

    fn seal_with(
        provider: &CryptoProvider,
        suite: CipherSuite,
        chain: &[u8],
        fragment_size: Option<usize>,
    ) -> Vec<Vec<u8>> {
        let mut counter = 7;
        let mut key = provider.packets.sealing(&keys(suite, 1)).unwrap();
        let messages = seal(&HEADER, 35, chain, key.as_mut(), &mut counter, fragment_size);
        assert_eq!(counter, 7 + messages.len() as u64);
        messages
    }

    fn open_with(
        provider: &CryptoProvider,
        suite: CipherSuite,
        message: &[u8],
    ) -> Result<SkMessage, SkError> {
        open(message, provider.packets.opening(&keys(suite, 1)).unwrap().as_mut())
    }

    #[test]
    fn whole_messages_of_every_suite() {
        let [aws_lc, rustcrypto] = providers();
        for suite in CipherSuite::all() {
            for len in [0, 1, 14, 15, 16, 17, 31, 1000] {
                let chain: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let messages = seal_with(aws_lc, suite, &chain, None);
                let [message] = &messages[..] else { panic!() };
                let header = Header::parse(message).unwrap();
                assert_eq!((header.fields(), header.next_payload), (HEADER, payload_type::SK));
                let expected = SkMessage::Whole(Plain { first: 35, body: chain });
                assert_eq!(open_with(rustcrypto, suite, message), Ok(expected), "{suite:?} {len}");
            }
        }
    }

    #[test]
    fn every_bit_is_authenticated() {
        let [provider, _] = providers();
        for suite in CipherSuite::all() {
            for fragment_size in [None, Some(MIN_FRAGMENT_SIZE)] {
                let message = seal_with(provider, suite, &[5; 300], fragment_size).remove(0);
                for bit in 0..message.len() * 8 {
                    let mut flipped = message.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    assert!(open_with(provider, suite, &flipped).is_err(), "{suite:?} bit {bit}");
                }
                for len in 0..message.len() {
                    assert!(open_with(provider, suite, &message[..len]).is_err());
                }
                let mut other = provider.packets.opening(&keys(suite, 2)).unwrap();
                assert_eq!(open(&message, other.as_mut()), Err(SkError::Integrity));
            }
        }
    }

    /// Truncations whose lengths were mended still must not get through, nor panic.
    #[test]
    fn cut_messages_with_true_lengths() {
        let [provider, _] = providers();
        for suite in CipherSuite::all() {
            for fragment_size in [None, Some(MIN_FRAGMENT_SIZE)] {
                let message = seal_with(provider, suite, &[5; 300], fragment_size).remove(0);
                for len in Header::LEN + GENERIC_HEADER_LEN..message.len() {
                    let mut cut = message[..len].to_vec();
                    cut[24..28].copy_from_slice(&(len as u32).to_be_bytes());
                    fill_length(&mut cut, Header::LEN, Header::LEN + 2);
                    assert!(open_with(provider, suite, &cut).is_err());
                }
            }
        }
    }

    #[test]
    fn fragments_keep_to_the_size_and_fill_it() {
        let [provider, _] = providers();
        for suite in CipherSuite::all() {
            let chain: Vec<u8> = (0..3000_u32).map(|i| i as u8).collect();
            for size in [0, MIN_FRAGMENT_SIZE, 500, 576, 1200, 1236, 2999] {
                let messages = seal_with(provider, suite, &chain, Some(size));
                let size = size.max(MIN_FRAGMENT_SIZE);
                assert!(messages.len() > 1);
                let mut reassembly = Reassembly::default();
                let mut whole = None;
                for (index, message) in messages.iter().enumerate() {
                    assert!(message.len() <= size, "{} > {size}", message.len());
                    if index + 1 < messages.len() {
                        assert!(message.len() + suite.cipher().block_len() > size);
                    }
                    let SkMessage::Fragment { number, total, first, data } =
                        open_with(provider, suite, message).unwrap()
                    else {
                        panic!("not a fragment");
                    };
                    assert_eq!((usize::from(number), usize::from(total)), (index + 1, messages.len()));
                    assert_eq!(first, if index == 0 { 35 } else { 0 });
                    whole = reassembly.insert(number, total, first, data).unwrap();
                }
                assert_eq!(whole, Some(Plain { first: 35, body: chain.clone() }));
            }
            // What fits is not cut.
            let whole = seal_with(provider, suite, &chain, None)[0].len();
            assert_eq!(seal_with(provider, suite, &chain, Some(whole)).len(), 1);
            assert_eq!(seal_with(provider, suite, &chain, Some(whole - 1)).len(), 2);
        }
    }

    /// The message as RFC 7296 section 3.14 and RFC 5282 section 5.1 describe it, built here by hand.
    #[test]
    fn layout_by_hand() {
        let [provider, _] = providers();
        for suite in CipherSuite::all() {
            let iv_len = suite.cipher().iv_len();
            let mut text = b"\x29\x00\x00\x04padding follows".to_vec();
            // Padding may have any content and be longer than needed (section 3.14).
            let pad = if suite.is_aead() { 200 } else { 31 - (text.len() % 16) + 16 };
            text.extend((0..pad).map(|i| i as u8 | 1));
            text.push(pad as u8);
            let payload_len = 4 + iv_len + text.len() + suite.icv_len();
            let mut message = HEADER.encode(payload_type::SK, payload_len).to_vec();
            message.extend_from_slice(&[41, 0]);
            message.extend_from_slice(&(payload_len as u16).to_be_bytes());
            let mut iv = vec![0; iv_len];
            let mut icv = vec![0; suite.icv_len()];
            let mut key = provider.packets.sealing(&keys(suite, 1)).unwrap();
            key.write_iv(1, &mut iv);
            key.seal(&message, &iv, &mut text, &[], &mut icv).unwrap();
            message.extend(iv.into_iter().chain(text).chain(icv));
            let body = b"\x29\x00\x00\x04padding follows".to_vec();
            assert_eq!(
                open_with(provider, suite, &message),
                Ok(SkMessage::Whole(Plain { first: 41, body })),
                "{suite:?}"
            );
        }
    }

    /// A pad length that lies comes from a peer with the right key: an error, no panic.
    #[test]
    fn pad_length_that_lies() {
        let [provider, _] = providers();
        for suite in CipherSuite::all() {
            let mut message = seal_with(provider, suite, &[], None).remove(0);
            let (iv_len, text_len) = (suite.cipher().iv_len(), text_len(suite, 0));
            let (aad, rest) = message.split_at_mut(Header::LEN + GENERIC_HEADER_LEN);
            let (iv, rest) = rest.split_at_mut(iv_len);
            let (text, icv) = rest.split_at_mut(text_len);
            text.fill(255);
            provider.packets.sealing(&keys(suite, 1)).unwrap().seal(aad, iv, text, &[], icv).unwrap();
            assert_eq!(
                open_with(provider, suite, &message),
                Err(WireError::Length { what: "padding", length: 255 }.into())
            );
        }
    }

    #[test]
    fn messages_without_an_encrypted_payload() {
        let [provider, _] = providers();
        let suite = CipherSuite::all().next().unwrap();
        let clear = crate::wire::encode_message(&HEADER, &[crate::wire::Payload::Nonce(vec![0; 16])]);
        assert_eq!(open_with(provider, suite, &clear), Err(SkError::Missing));
        let empty = crate::wire::encode_message(&HEADER, &[]);
        assert_eq!(open_with(provider, suite, &empty), Err(SkError::Missing));
    }

    proptest! {
        #[test]
        fn any_octets_behind_a_header(sk in 46..=53_u8, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let [provider, _] = providers();
            for suite in CipherSuite::all() {
                let mut message = HEADER.encode(sk, body.len()).to_vec();
                message.extend_from_slice(&body);
                prop_assert!(open_with(provider, suite, &message).is_err());
            }
        }

        #[test]
        fn reassembly_takes_anything(fragments in proptest::collection::vec((0..6_u16, 0..6_u16, 0..20_usize), 0..60)) {
            let mut reassembly = Reassembly::default();
            for (number, total, len) in fragments {
                let _ = reassembly.insert(number, total, 35, vec![0; len]);
            }
        }
    }

    #[test]
    fn reassembly_in_any_order() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.insert(3, 3, 0, vec![5]), Ok(None));
        assert_eq!(reassembly.insert(1, 3, 35, vec![1, 2]), Ok(None));
        // There already: dropped, whatever is in it.
        assert_eq!(reassembly.insert(1, 3, 77, vec![9, 9]), Ok(None));
        assert_eq!(
            reassembly.insert(2, 3, 0, vec![3, 4]),
            Ok(Some(Plain { first: 35, body: vec![1, 2, 3, 4, 5] }))
        );
        assert!(reassembly.is_empty());
    }

    /// RFC 7383 section 2.6: the sender went over to smaller fragments; late ones of before are dropped.
    #[test]
    fn a_greater_total_starts_anew() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.insert(1, 2, 35, vec![1]), Ok(None));
        assert_eq!(reassembly.insert(3, 3, 0, vec![30]), Ok(None));
        assert_eq!(reassembly.insert(2, 2, 0, vec![2]), Ok(None));
        assert_eq!(reassembly.insert(1, 3, 36, vec![10]), Ok(None));
        assert_eq!(
            reassembly.insert(2, 3, 0, vec![20]),
            Ok(Some(Plain { first: 36, body: vec![10, 20, 30] }))
        );
    }

    #[test]
    fn reassembly_is_bounded() {
        let mut reassembly = Reassembly::default();
        for (number, total) in [(0, 1), (2, 1), (0, 0), (1, 65), (1, u16::MAX)] {
            assert!(matches!(reassembly.insert(number, total, 35, vec![]), Err(SkError::Fragment(_))));
        }
        assert!(reassembly.is_empty());
        assert_eq!(reassembly.insert(1, 2, 35, vec![0; MAX_REASSEMBLED]), Ok(None));
        assert!(matches!(reassembly.insert(2, 2, 0, vec![0]), Err(SkError::Fragment(_))));
        assert!(reassembly.is_empty());
    }
}
