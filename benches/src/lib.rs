//! What the benchmarks share: suites, keys, payloads. Run them with `cargo bench throughput`.

pub mod bare;
pub mod databases;
pub mod handshakes;
pub mod workers;

use ferry6_crypto::{CipherSuite, CryptoProvider, PacketKeys, Spi, aws_lc, rustcrypto};

/// Payload sizes in octets: an ACK, a voice packet, a full segment, a jumbo frame.
pub const SIZES: [usize; 4] = [64, 256, 1400, 9000];

/// The SPI of all SAs here.
pub const SPI: Spi = match Spi::new(0xf0e0_d0c0) {
    Some(spi) => spi,
    None => unreachable!(),
};

/// Both providers.
pub fn providers() -> [CryptoProvider; 2] {
    [aws_lc::PROVIDER, rustcrypto::PROVIDER]
}

/// Keys that are no secret.
pub fn keys(suite: CipherSuite) -> PacketKeys {
    ferry6_tun_router::testing::keys(suite, 0x11, 0x22)
}

/// Octets that compress to about half, as prose does.
pub fn text(len: usize) -> Vec<u8> {
    const WORDS: [&str; 24] = [
        "the ",
        "of ",
        "and ",
        "to ",
        "in ",
        "is ",
        "that ",
        "tunnel ",
        "packet ",
        "address ",
        "router ",
        "which ",
        "security ",
        "association ",
        "carries ",
        "IPv6 ",
        "IPv4 ",
        "network ",
        "between ",
        "sequence ",
        "number ",
        "client ",
        "broker ",
        ", ",
    ];
    let mut noise = Noise::default();
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        let word = WORDS[noise.next().expect("it never ends") as usize % WORDS.len()];
        out.extend_from_slice(word.as_bytes());
        out.push(b'a' + noise.next().expect("it never ends") % 26);
    }
    out.truncate(len);
    out
}

/// Octets that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    Noise::default().take(len).collect()
}

/// A xorshift generator: the same octets in each run.
struct Noise(u64);

impl Default for Noise {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Iterator for Noise {
    type Item = u8;
    fn next(&mut self) -> Option<u8> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Some((self.0 >> 32) as u8)
    }
}
