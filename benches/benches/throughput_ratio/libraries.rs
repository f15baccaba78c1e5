//! AES-GCM by ring and by AWS-LC: which one the provider `aws-lc` had better take on this processor. And HMAC by three libraries.

use super::{median, timed};
use ferry6_benches::SIZES;
use ferry6_benches::bare::{macs, ring_and_aws_lc};
use ferry6_crypto::{CipherSuite, Integ, aws_lc};
use std::hint::black_box;

const ROUNDS: usize = 100;
const PACKETS: usize = 64;

/// Measures and prints.
pub(super) fn run() {
    let taken = if aws_lc::aes_gcm_is_rings() { "ring" } else { "AWS-LC" };
    println!(
        "\nAES-GCM by both libraries, ns per packet (medians of {ROUNDS} batches in turns); here {taken} is taken"
    );
    println!(
        "{:<29} {:>6}  {:>9} {:>9} {:>6}  {:>9} {:>9} {:>6}",
        "suite", "octets", "seal ring", "AWS-LC", "ratio", "open ring", "AWS-LC", "ratio"
    );
    for suite in CipherSuite::all() {
        let Some(mut libraries) = ring_and_aws_lc(suite) else { continue };
        for len in SIZES {
            let mut packets = vec![(vec![0x11; len], [0; 16]); PACKETS];
            let mut times: [_; 4] = std::array::from_fn(|_| Vec::new());
            let mut counter = 0;
            for _ in 0..ROUNDS {
                for (which, library) in libraries.iter_mut().enumerate() {
                    let mut opened = counter;
                    times[which].push(timed(|| {
                        for (text, tag) in &mut packets {
                            counter += 1;
                            library.seal(counter, text, tag);
                            black_box(tag);
                        }
                    }));
                    times[2 + which].push(timed(|| {
                        for (text, tag) in &mut packets {
                            opened += 1;
                            library.open(opened, text, tag);
                            black_box(text);
                        }
                    }));
                }
            }
            let [ring, aws_lc, ring_open, aws_lc_open] = times.map(|samples| median(samples, PACKETS));
            println!(
                "{:<29} {len:>6}  {ring:>9.0} {aws_lc:>9.0} {:>6.2}  {ring_open:>9.0} {aws_lc_open:>9.0} {:>6.2}",
                suite.to_string(),
                aws_lc / ring,
                aws_lc_open / ring_open,
            );
        }
    }
    hmacs();
}

fn hmacs() {
    // What an ESP packet of 1400 octets has to authenticate with AES-CBC.
    let message = vec![0x11; 1436];
    println!("\nHMAC of {} octets, ns (medians of {ROUNDS} batches in turns)", message.len());
    println!("{:<20} {:>9} {:>9} {:>11}", "", "ring", "AWS-LC", "RustCrypto");
    for integ in [Integ::HmacSha1_96, Integ::HmacSha256_128, Integ::HmacSha384_192, Integ::HmacSha512_256] {
        let macs = macs(integ);
        let mut times: [_; 3] = std::array::from_fn(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (mac, times) in macs.iter().zip(&mut times) {
                times.push(timed(|| {
                    for _ in 0..PACKETS {
                        black_box(mac(black_box(&message)));
                    }
                }));
            }
        }
        let [ring, aws_lc, rust_crypto] = times.map(|samples| median(samples, PACKETS));
        println!("{:<20} {ring:>9.0} {aws_lc:>9.0} {rust_crypto:>11.0}", format!("{integ:?}"));
    }
}
