//! Both providers through the same tests: published vectors, each against the other, and hostile input.

mod cross;

use crate::{CryptoProvider, providers};

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
