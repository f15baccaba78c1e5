//! What `ferry6-interop` says without running a case. That this needs its programs has `cargo test` build them, so
//! that `./test` has the harness from the same build.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::{Command, Output};

fn interop(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ferry6-interop")).args(arguments).output().unwrap()
}

/// A case is asked for by its name, and its logs have that name: no two may share one.
#[test]
fn each_case_has_a_name_of_its_own() {
    let output = interop(&["--list"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = text.lines().map(|l| l.split_whitespace().next().unwrap()).collect();
    assert!(names.len() > 200, "{} cases", names.len());
    assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
}

/// A filter that fits nothing is no run that passed.
#[test]
fn a_filter_that_fits_no_case_is_an_error() {
    let output = interop(&["no-such-case", "nor-this"]);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no case has no-such-case or nor-this in its name; --list shows them"), "{text}");
}

/// The harness of the performance shares the library: it says what it can do.
#[test]
fn the_performance_harness_tells_its_options() {
    let output = Command::new(env!("CARGO_BIN_EXE_ferry6-perf")).arg("--help").output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("--rounds"));
}

/// Each entry of the troubleshooting page names the case that provokes it and shows what doctor finds, and no case of doctor
/// stands apart from it.
#[test]
fn each_symptom_has_a_case_that_provokes_it() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/troubleshooting.md")).unwrap();
    let text = String::from_utf8(interop(&["--list"]).stdout).unwrap();
    let cases: BTreeSet<&str> = text.lines().filter_map(|l| l.split_whitespace().next()).collect();
    let quoted = |text: &str| -> Vec<String> {
        let words = text.split('`').skip(1).step_by(2);
        words.filter(|w| cases.contains(w) || w.starts_with("doctor-")).map(str::to_owned).collect()
    };
    let mut named = BTreeSet::from(["doctor-healthy".to_owned()]);
    let entries: Vec<&str> = page.split("\n### ").skip(1).collect();
    assert!(entries.len() > 25, "{} entries", entries.len());
    for entry in entries {
        let title = entry.lines().next().unwrap();
        let line = |begin: &str| {
            entry.lines().find(|l| l.starts_with(begin)).unwrap_or_else(|| panic!("{title}: no {begin}"))
        };
        assert!(line("- **doctor:** ").len() > 20, "{title}");
        assert!(line("- **Do:** ").len() > 10, "{title}");
        let of_entry = quoted(line("- **Case:** "));
        assert!(!of_entry.is_empty(), "{title}: no case");
        // Some are provoked where what they are about is tried.
        named.extend(of_entry.into_iter().filter(|name| name.starts_with("doctor-")));
    }
    let there: BTreeSet<String> =
        cases.iter().filter(|c| c.starts_with("doctor-")).map(|c| (*c).to_owned()).collect();
    assert_eq!(named, there, "cases on the page, and cases that there are");
}
