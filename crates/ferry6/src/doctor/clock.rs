//! Is this machine's clock right? Nobody on an IPv4-only network tells it in a way that could be believed, so it is held
//! against what must lie in the past: certificates that were issued, CRLs, this program.

use super::check::Findings;
use super::patient::Patient;
use crate::config::keys;
use std::time::SystemTime;
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

/// No machine that runs this program has an earlier date.
const FIRST_YEAR: i32 = 2025;
/// A CA's clock may be so much ahead of ours, in seconds.
const TOLERANCE: i64 = 300;

pub(super) fn check(patient: &Patient, found: &mut Findings) {
    judge(OffsetDateTime::now_utc(), &evidence(patient), found);
}

/// What happened in the past, and when, in seconds since 1970.
fn evidence(patient: &Patient) -> Vec<(String, i64)> {
    let mut list = Vec::new();
    for local in patient.settings.locals() {
        for file in local.cert.iter().chain(&local.ca) {
            for certificate in keys::certificates(file).unwrap_or_default() {
                if let Ok((_, c)) = X509Certificate::from_der(&certificate) {
                    let what = format!("the certificate of {} was issued", c.subject());
                    list.push((what, c.validity().not_before.timestamp()));
                }
            }
        }
        for file in &local.crl {
            for crl in keys::crls(file).unwrap_or_default() {
                if let Ok((_, c)) = CertificateRevocationList::from_der(&crl) {
                    list.push((format!("the CRL of {} was issued", c.issuer()), c.last_update().timestamp()));
                }
            }
        }
    }
    let program = std::env::current_exe().and_then(|p| p.metadata()).and_then(|m| m.modified());
    if let Some(age) = program.ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok()) {
        list.push(("this program was installed".to_owned(), i64::try_from(age.as_secs()).unwrap_or(0)));
    }
    list
}

fn show(timestamp: i64) -> String {
    OffsetDateTime::from_unix_timestamp(timestamp).map_or_else(
        |_| timestamp.to_string(),
        |t| {
            format!(
                "{:04}-{:02}-{:02} {:02}:{:02} UTC",
                t.year(),
                u8::from(t.month()),
                t.day(),
                t.hour(),
                t.minute()
            )
        },
    )
}

fn judge(now: OffsetDateTime, past: &[(String, i64)], found: &mut Findings) {
    const HINT: &str = "set it: timedatectl set-ntp true, or date -s; with a wrong clock every certificate is expired or not yet \
                        valid";
    let shown = show(now.unix_timestamp());
    if let Some((what, when)) = past.iter().max_by_key(|(_, when)| *when)
        && now.unix_timestamp() + TOLERANCE < *when
    {
        return found.fail(format!("it is {shown} here, but {what} on {}", show(*when)), HINT);
    }
    if now.year() < FIRST_YEAR {
        return found.fail(format!("it is {shown} here"), HINT);
    }
    found.ok(format!("{shown}, later than all that must be in the past"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Outcome;

    fn outcome(now: i64, past: &[(String, i64)]) -> (Outcome, String) {
        let mut found = Findings::of("clock");
        judge(OffsetDateTime::from_unix_timestamp(now).unwrap(), past, &mut found);
        let check = found.into_list().remove(0);
        (check.result, check.text)
    }

    #[test]
    fn before_what_was_issued() {
        let issued = [("the certificate of CN=a was issued".to_owned(), 1_900_000_000)];
        let (result, text) = outcome(1_899_000_000, &issued);
        assert_eq!(result, Outcome::Fail);
        assert!(text.contains("CN=a was issued on 2030-03-17 17:46 UTC"), "{text}");
        // A CA's clock that is a minute ahead is no fault of ours.
        assert_eq!(outcome(1_899_999_940, &issued).0, Outcome::Ok);
        assert_eq!(outcome(1_900_000_001, &issued).0, Outcome::Ok);
    }

    #[test]
    fn a_clock_that_never_was_set() {
        assert_eq!(outcome(86_400, &[]).0, Outcome::Fail);
    }
}
