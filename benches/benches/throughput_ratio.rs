//! How near `esp` comes to the bare cipher of the same library: the two take turns, batch by batch, so that a machine
//! that drifts slows both alike. Each figure is the median of the batches, in ns per packet.
//!
//! `library` is the AEAD called without any crate of ours between, on as many octets and with as much AAD as ESP has.
//! For AES-CBC with HMAC, which no library has as one call, the bare cipher is our own `SealingKey` and `OpeningKey`,
//! IV included.

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadCore, AeadInOut, KeyInit};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ferry6_benches::{SIZES, SPI, keys, providers};
use ferry6_crypto::{Cipher, CipherSuite, CryptoProvider};
use ferry6_esp::{InboundSa, OutboundSa, Overhead, next_header::IPV6, sealed_len};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Batches of each contestant.
const ROUNDS: usize = 60;
/// How long a batch should last.
const BATCH: Duration = Duration::from_micros(60);

const AAD: [u8; 12] = [1; 12];

/// A bare AEAD in place: `seal` leaves the tag in `tag`, `open` takes it from there.
trait Bare {
    fn seal(&mut self, counter: u64, text: &mut [u8], tag: &mut [u8]);
    fn open(&mut self, counter: u64, text: &mut [u8], tag: &[u8]);
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [7; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

impl Bare for LessSafeKey {
    fn seal(&mut self, counter: u64, text: &mut [u8], tag: &mut [u8]) {
        let nonce = Nonce::assume_unique_for_key(nonce(counter));
        self.seal_in_place_scatter(nonce, Aad::from(AAD), text, &[], tag).expect("the lengths fit");
    }
    fn open(&mut self, counter: u64, text: &mut [u8], tag: &[u8]) {
        let nonce = Nonce::assume_unique_for_key(nonce(counter));
        self.open_in_place_separate_tag(nonce, Aad::from(AAD), tag, text).expect("it is whole");
    }
}

struct RustCrypto<A>(A);

impl<A: AeadInOut + AeadCore<NonceSize = U12, TagSize = U16>> Bare for RustCrypto<A> {
    fn seal(&mut self, counter: u64, text: &mut [u8], tag: &mut [u8]) {
        let made = self
            .0
            .encrypt_inout_detached(&nonce(counter).into(), &AAD, text.into())
            .expect("the lengths fit");
        tag.copy_from_slice(&made);
    }
    fn open(&mut self, counter: u64, text: &mut [u8], tag: &[u8]) {
        let tag: [u8; 16] = tag.try_into().expect("16 octets");
        self.0
            .decrypt_inout_detached(&nonce(counter).into(), &AAD, text.into(), &tag.into())
            .expect("it is whole");
    }
}

/// The provider's AEAD without our crates; `None` for CBC.
fn library(provider: &CryptoProvider, suite: CipherSuite) -> Option<Box<dyn Bare>> {
    let keys = keys(suite);
    let key = &keys.encryption.expose()[..keys.encryption.len() - if suite.is_aead() { 4 } else { 0 }];
    if provider.name == "aws-lc" {
        let algorithm = match suite.cipher() {
            Cipher::Aes128Gcm16 => &AES_128_GCM,
            Cipher::Aes256Gcm16 => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes128Cbc | Cipher::Aes256Cbc => return None,
        };
        return Some(Box::new(LessSafeKey::new(UnboundKey::new(algorithm, key).expect("the key fits"))));
    }
    const FITS: &str = "the key fits";
    Some(match suite.cipher() {
        Cipher::Aes128Gcm16 => Box::new(RustCrypto(aes_gcm::Aes128Gcm::new_from_slice(key).expect(FITS))),
        Cipher::Aes256Gcm16 => Box::new(RustCrypto(aes_gcm::Aes256Gcm::new_from_slice(key).expect(FITS))),
        Cipher::ChaCha20Poly1305 => {
            Box::new(RustCrypto(chacha20poly1305::ChaCha20Poly1305::new_from_slice(key).expect(FITS)))
        }
        Cipher::Aes128Cbc | Cipher::Aes256Cbc => return None,
    })
}

/// The bare cipher behind our own trait.
struct Ours {
    sealing: Box<dyn ferry6_crypto::SealingKey>,
    opening: Box<dyn ferry6_crypto::OpeningKey>,
    iv: Vec<u8>,
}

impl Bare for Ours {
    fn seal(&mut self, counter: u64, text: &mut [u8], tag: &mut [u8]) {
        self.sealing.write_iv(counter, &mut self.iv);
        self.sealing.seal(&AAD[..8], &self.iv, text, &AAD[8..], tag).expect("the lengths fit");
    }
    fn open(&mut self, _counter: u64, text: &mut [u8], tag: &[u8]) {
        self.opening.open(&AAD[..8], &self.iv, text, &AAD[8..], tag).expect("it is whole");
    }
}

struct Line {
    esp: f64,
    bare: f64,
}

fn median(mut samples: Vec<Duration>, packets: usize) -> f64 {
    samples.sort_unstable();
    samples[samples.len() / 2].as_nanos() as f64 / packets as f64
}

/// Times `work` on each item of a batch.
fn timed<T>(batch: &mut [T], mut work: impl FnMut(&mut T)) -> Duration {
    let start = Instant::now();
    for item in batch {
        work(item);
    }
    start.elapsed()
}

fn measure(provider: &CryptoProvider, suite: CipherSuite, payload: usize) -> (Line, Line) {
    let keys = keys(suite);
    let mut out = OutboundSa::new(provider, SPI, &keys, true).expect("the keys fit");
    let mut inbound = InboundSa::new(provider, SPI, &keys, true, 1024).expect("the keys fit");
    let mut bare = library(provider, suite).unwrap_or_else(|| {
        Box::new(Ours {
            sealing: provider.packets.sealing(&keys).expect("the keys fit"),
            opening: provider.packets.opening(&keys).expect("the keys fit"),
            iv: vec![0; suite.cipher().iv_len()],
        })
    });
    let len = sealed_len(suite, payload);
    let text = len - Overhead::of(suite).front - suite.icv_len();
    let front = Overhead::of(suite).front;

    // one packet's time gives the size of a batch
    let mut packet = vec![0x11; len];
    let one = (0..50)
        .map(|_| {
            timed(&mut [0], |_| {
                out.seal(&mut packet, payload, IPV6).expect("there is room");
            })
        })
        .min()
        .expect("50 samples");
    let packets = (BATCH.as_nanos() / one.as_nanos().max(1)).clamp(8, 256) as usize;

    // both work on the same buffers: equally warm
    let mut buffers = vec![packet; packets];
    let mut times: [Vec<Duration>; 4] = Default::default();
    let mut counter = 0;
    for _ in 0..ROUNDS {
        times[0].push(timed(&mut buffers, |packet| {
            out.seal(packet, payload, IPV6).expect("there is room");
            black_box(packet.last());
        }));
        times[1].push(timed(&mut buffers, |packet| {
            inbound.open(black_box(packet)).expect("it is fresh");
        }));
        let mut opened = counter;
        times[2].push(timed(&mut buffers, |packet| {
            counter += 1;
            let (text, tag) = packet[front..].split_at_mut(text);
            bare.seal(counter, text, tag);
            black_box(packet.last());
        }));
        // the IV of CBC is part of the packet; the last one opens only the last packet
        if suite.is_aead() {
            times[3].push(timed(&mut buffers, |packet| {
                opened += 1;
                let (text, tag) = packet[front..].split_at_mut(text);
                bare.open(opened, text, tag);
            }));
        } else {
            let whole = buffers.last().expect("a batch").clone();
            buffers.fill(whole);
            times[3].push(timed(&mut buffers, |packet| {
                let (text, tag) = packet[front..].split_at_mut(text);
                bare.open(0, text, tag);
            }));
        }
    }
    let [seal, open, bare_seal, bare_open] = times.map(|samples| median(samples, packets));
    (Line { esp: seal, bare: bare_seal }, Line { esp: open, bare: bare_open })
}

fn main() {
    println!(
        "\nESP against the bare cipher of the same library, ns per packet (medians of {ROUNDS} batches in turns)"
    );
    println!(
        "{:<11} {:<29} {:>5}  {:>8} {:>8} {:>6}  {:>8} {:>8} {:>6}",
        "provider", "suite", "octets", "seal", "library", "ratio", "open", "library", "ratio"
    );
    for provider in providers() {
        for suite in CipherSuite::all() {
            for payload in SIZES {
                let (seal, open) = measure(&provider, suite, payload);
                println!(
                    "{:<11} {:<29} {payload:>5}  {:>8.0} {:>8.0} {:>6.2}  {:>8.0} {:>8.0} {:>6.2}",
                    provider.name,
                    suite.to_string(),
                    seal.esp,
                    seal.bare,
                    seal.bare / seal.esp,
                    open.esp,
                    open.bare,
                    open.bare / open.esp,
                );
            }
        }
    }
}
