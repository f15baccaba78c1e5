//! What OCSP responders and CRL servers answer, over plain HTTP: whoever is on the way may have written it.

use crate::input::Input;
use ferry6_crypto::{aws_lc, fuzzing};
use ferry6_ike::Identity;
use ferry6_ike::certs::verify_peer;
use ferry6_ike::config::Revocation;
use ferry6_ike::revocation::{Verdict, Worthless};
use rustls_pki_types::CertificateDer;
use std::time::{Duration, SystemTime};

/// The nonce of the question.
pub const NONCE: &[u8] = &[7; 32];
/// The time at which answers are read: the first of January 2026.
pub const WALL: u64 = 1_767_225_600;

/// An answer about the certificate of a peer. The provider takes any signature, so that the fuzzer gets behind it.
///
/// Input: kind, anchor length, leaf length, then anchor, leaf and the answer.
pub fn revocation_answers(data: &[u8]) {
    let _ = verdict(data);
}

fn verdict(data: &[u8]) -> Option<Result<Verdict, Worthless>> {
    let mut input = Input(data);
    let kind = input.u8();
    let (anchor, leaf) = (usize::from(input.u16()), usize::from(input.u16()));
    let (anchor, rest) = input.0.split_at(anchor.min(input.0.len()));
    let (leaf, answer) = rest.split_at(leaf.min(rest.len()));
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(WALL);
    let verified = verify_peer(
        &fuzzing::PROVIDER,
        &[CertificateDer::from(leaf)],
        &Identity::Rfc822("client@my.domain".to_owned()),
        &[CertificateDer::from(anchor)],
        &[],
        Revocation::Strict,
        wall,
    );
    let Ok(verified) = verified else { return None };
    let [query] = &verified.queries[..] else {
        panic!("one certificate, {} queries", verified.queries.len())
    };
    assert!(query.ocsp.iter().chain(&query.crls).all(|uri| uri[..7].eq_ignore_ascii_case("http://")));
    assert!(query.ocsp_request(&fuzzing::PROVIDER, Some(NONCE)).is_ok());

    let fresh = |until: Option<SystemTime>| assert!(until.is_none_or(|until| until > wall), "it has expired");
    if kind & 1 == 0 {
        let lax = query.read_ocsp(&fuzzing::PROVIDER, answer, Some(NONCE), wall);
        if let Ok(verdict) = &lax {
            fresh(verdict.until);
            // Without the nonce nothing changes; with another one it is as good, or refused for that.
            assert_eq!(query.read_ocsp(&fuzzing::PROVIDER, answer, None, wall).as_ref(), Ok(verdict));
            let other = query.read_ocsp(&fuzzing::PROVIDER, answer, Some(&[8; 32]), wall);
            let holds_nonce = answer.windows(NONCE.len()).any(|octets| octets == NONCE);
            assert!(other.as_ref() == Ok(verdict) || other.is_err() && holds_nonce);
            // A century later no answer is news.
            let later = wall + Duration::from_secs(100 * 365 * 86_400);
            if verdict.until.is_none_or(|until| until < later) {
                assert!(query.read_ocsp(&fuzzing::PROVIDER, answer, Some(NONCE), later).is_err());
            }
        }
        // CertIDs made with the lax provider's hash fit nothing that is really asked, and nobody has the key.
        assert!(query.read_ocsp(&aws_lc::PROVIDER, answer, Some(NONCE), wall).is_err());
        Some(lax)
    } else {
        let lax = query.read_crl(&fuzzing::PROVIDER, answer, wall);
        if let Ok(verdict) = &lax {
            fresh(verdict.until);
            assert!(verdict.until.is_some(), "a CRL says until when");
        }
        if let Ok(verdict) = query.read_crl(&aws_lc::PROVIDER, answer, wall) {
            assert_eq!(lax.as_ref(), Ok(&verdict), "what is truly signed is taken by who takes all");
        }
        Some(lax)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_say_what_they_are_named_for() {
        for (seed, revoked) in [
            ("crl-good", Some(false)),
            ("crl-revoked", Some(true)),
            ("ocsp-good", Some(false)),
            ("ocsp-revoked", Some(true)),
            ("ocsp-without-next-update", Some(false)),
            ("ocsp-unknown", None),
            ("ocsp-try-later", None),
        ] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            let file = folder.join("../../fuzz/corpus/revocation_answers").join(seed);
            let verdict = verdict(&std::fs::read(file).expect("a seed")).expect("the certificates are good");
            assert_eq!(verdict.as_ref().ok().map(|verdict| verdict.revoked), revoked, "{seed}: {verdict:?}");
        }
    }
}
