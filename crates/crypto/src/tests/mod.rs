//! Both providers through the same tests: published vectors, each against the other, and hostile input.

mod cross;
mod fuzzing;
mod key_exchange;
mod packets;
mod prf;
mod signatures;
mod wycheproof;

use crate::provider::PacketKeys;
use crate::{CipherSuite, CryptoProvider, Secret, providers};

/// Runs a test body for each provider.
fn for_both(body: impl Fn(&'static CryptoProvider)) {
    for provider in providers() {
        body(provider);
    }
}

/// Both orders of the pair: who makes, who checks.
fn for_pairs(body: impl Fn(&'static CryptoProvider, &'static CryptoProvider)) {
    for maker in providers() {
        for checker in providers() {
            body(maker, checker);
        }
    }
}

/// Hexadecimal as RFCs print it, with blanks and line ends.
fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.split_ascii_whitespace().collect::<String>()).unwrap()
}

fn packet_keys(suite: CipherSuite, encryption: &[u8], integrity: &[u8]) -> PacketKeys {
    PacketKeys { suite, encryption: Secret::from(encryption), integrity: Secret::from(integrity) }
}

#[test]
fn suites_as_text() {
    let names: Vec<_> = CipherSuite::all().map(|suite| suite.to_string()).collect();
    assert!(names.contains(&"AES_GCM_16_128".to_owned()));
    assert!(names.contains(&"AES_CBC_256/HMAC_SHA2_256_128".to_owned()));
}
