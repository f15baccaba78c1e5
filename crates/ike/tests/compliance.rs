//! `docs/compliance.md` and `docs/security.md` may only name tests that exist.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Names of all functions below `folder` that a test attribute or a macro of property tests could stand for.
fn functions(folder: &Path, out: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                functions(&path, out);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().map(str::trim_start);
            let names =
                lines.filter_map(|line| line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn "));
            out.extend(names.filter_map(|rest| rest.split_once('(')).map(|(name, _)| name.to_owned()));
        }
    }
}

fn known() -> HashSet<String> {
    let mut known = HashSet::new();
    for folder in ["crates", "interop", "benches"] {
        functions(&root().join(folder), &mut known);
    }
    known
}

/// The last parts of `paths::like::this` in a text.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let paths = text.split('`').skip(1).step_by(2).filter(|code| code.contains("::"));
    paths.filter_map(|path| path.rsplit("::").next())
}

#[test]
fn every_test_of_the_threat_model_exists() {
    let known = known();
    let text = fs::read_to_string(root().join("docs/security.md")).unwrap();
    // `module::tests` stands for all tests of a module.
    let names: Vec<&str> = named(&text).filter(|name| *name != "tests").collect();
    for name in &names {
        assert!(known.contains(*name), "docs/security.md: no test {name}");
    }
    assert!(names.len() > 40, "only {} tests are named", names.len());
}

#[test]
fn every_test_that_is_named_exists() {
    let known = known();
    let text = fs::read_to_string(root().join("docs/compliance.md")).unwrap();
    let mut count = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| section")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{row}");
        let [section, level, _, state, shown] = cells[..] else { unreachable!() };
        assert!(!section.is_empty() && !level.is_empty() && !shown.is_empty(), "{row}");
        assert!(["yes", "part", "no", "n/a"].contains(&state), "state of: {row}");
        for name in named(shown) {
            assert!(known.contains(name), "no test {name}: {row}");
            count += 1;
        }
    }
    assert!(count > 50, "only {count} tests are named");
}
