//! The AES-CBC suites beside OpenSSL's EVP for the same pair of cipher and HMAC, in the same run.
//!
//! OpenSSL is measured by its own program, `openssl speed -evp` and `-hmac`, on as many octets as an ESP packet of
//! 1400 octets has to encrypt and to authenticate: what a packet would take is the sum of the two. Ours is all of `esp`:
//! sequence number, IV, padding and replay window are in it. Both take turns, three times.
//!
//! The cipher suites that OpenSSL has as one call, such as AES-128-CBC-HMAC-SHA1, are no pair for this: they authenticate first,
//! as TLS does.

use ferry6_benches::{SPI, keys};
use ferry6_crypto::{Cipher, CipherSuite, Integ, aws_lc};
use ferry6_esp::{InboundSa, OutboundSa, Overhead, Plain, next_header::IPV6, sealed_len};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::Instant;

const ROUNDS: usize = 3;
const PAYLOAD: usize = 1400;
/// Packets of one batch of ours, and batches in a round.
const PACKETS: usize = 64;
const BATCHES: usize = 200;

/// Runs `openssl speed` for a second of CPU time; ns per call. `None`: there is no OpenSSL, or not this algorithm.
fn openssl(octets: usize, what: &[&str]) -> Option<f64> {
    let octets_text = octets.to_string();
    let mut command = Command::new("openssl");
    command.args(["speed", "-mr", "-seconds", "1", "-bytes", &octets_text]).args(what);
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `+F:25:AES-128-CBC:1557119623.53`: octets a second.
    let line = text.lines().find(|line| line.starts_with("+F:"))?;
    let rate: f64 = line.rsplit(':').next()?.parse().ok()?;
    (rate > 0.0).then(|| octets as f64 / rate * 1e9)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// ns per packet of ours: sealing one by one, sealing as a worker does, opening.
fn ours(suite: CipherSuite) -> [f64; 3] {
    let keys = keys(suite);
    let mut single = OutboundSa::new(&aws_lc::PROVIDER, SPI, &keys, true).expect("the keys fit");
    let mut batched = OutboundSa::new(&aws_lc::PROVIDER, SPI, &keys, true).expect("the keys fit");
    let mut inbound = InboundSa::new(&aws_lc::PROVIDER, SPI, &keys, true, 1024).expect("the keys fit");
    let len = sealed_len(suite, PAYLOAD);
    let mut buffer = vec![0x11; PACKETS * len];
    let plain = [Plain { len: PAYLOAD, next_header: IPV6 }; PACKETS];
    let group = batched.batch_len();
    let mut times: [Vec<f64>; 3] = Default::default();
    let each = |begin: Instant| begin.elapsed().as_nanos() as f64 / PACKETS as f64;
    for _ in 0..BATCHES {
        let begin = Instant::now();
        for (room, plain) in buffer.chunks_mut(group * len).zip(plain.chunks(group)) {
            batched.seal_batch(room, plain).expect("there is room");
        }
        times[1].push(each(begin));
        let begin = Instant::now();
        for packet in buffer.chunks_mut(len) {
            single.seal(packet, PAYLOAD, IPV6).expect("there is room");
        }
        times[0].push(each(begin));
        let begin = Instant::now();
        for packet in buffer.chunks_mut(len) {
            inbound.open(black_box(packet)).expect("it is fresh");
        }
        times[2].push(each(begin));
    }
    times.map(median)
}

fn main() -> ExitCode {
    let suites: Vec<CipherSuite> = CipherSuite::all().filter(|suite| !suite.is_aead()).collect();
    if openssl(64, &["-evp", "aes-128-cbc"]).is_none() {
        println!("!!! SKIPPED: there is no `openssl speed` to compare with (Debian: openssl)");
        return ExitCode::SUCCESS;
    }
    let evp = |suite: CipherSuite| {
        let cipher = if suite.cipher() == Cipher::Aes128Cbc { "aes-128-cbc" } else { "aes-256-cbc" };
        let mac = match suite.integ() {
            Some(Integ::HmacSha1_96) => "sha1",
            Some(Integ::HmacSha256_128) => "sha256",
            Some(Integ::HmacSha384_192) => "sha384",
            _ => "sha512",
        };
        (cipher, mac)
    };
    let mut rounds: BTreeMap<usize, Vec<[f64; 5]>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut known: BTreeMap<(usize, Vec<&str>), Option<f64>> = BTreeMap::new();
        for (index, suite) in suites.iter().enumerate() {
            let text = sealed_len(*suite, PAYLOAD) - Overhead::of(*suite).front - suite.icv_len();
            // SPI, sequence number with its high half, IV, text (RFC 4303 section 2.8).
            let authenticated = 12 + suite.cipher().iv_len() + text;
            let (cipher, mac) = evp(*suite);
            let mut of = |octets: usize, what: Vec<&'static str>| {
                *known.entry((octets, what.clone())).or_insert_with(|| openssl(octets, &what))
            };
            let figures = [
                of(text, vec!["-evp", cipher]),
                of(text, vec!["-decrypt", "-evp", cipher]),
                of(authenticated, vec!["-hmac", mac]),
            ];
            let [Some(encrypt), Some(decrypt), Some(mac)] = figures else { continue };
            let [single, batch, open] = ours(*suite);
            rounds.entry(index).or_default().push([single, batch, open, encrypt + mac, decrypt + mac]);
        }
    }
    println!(
        "\nAES-CBC with HMAC beside OpenSSL's EVP, ns per packet of {PAYLOAD} octets (medians of {ROUNDS} rounds; ratio: OpenSSL's time by ours)"
    );
    println!(
        "{:<29} {:>8} {:>8} {:>8} {:>6} {:>6}  {:>8} {:>8} {:>6}",
        "suite", "seal", "in batch", "OpenSSL", "ratio", "batch", "open", "OpenSSL", "ratio"
    );
    for (index, samples) in rounds {
        let of = |figure: &dyn Fn(&[f64; 5]) -> f64| median(samples.iter().map(figure).collect());
        println!(
            "{:<29} {:>8.0} {:>8.0} {:>8.0} {:>6.2} {:>6.2}  {:>8.0} {:>8.0} {:>6.2}",
            suites[index].to_string(),
            of(&|s| s[0]),
            of(&|s| s[1]),
            of(&|s| s[3]),
            of(&|s| s[3] / s[0]),
            of(&|s| s[3] / s[1]),
            of(&|s| s[2]),
            of(&|s| s[4]),
            of(&|s| s[4] / s[2]),
        );
    }
    ExitCode::SUCCESS
}
