//! `docs/compliance.md` may only name tests that exist.
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

#[test]
fn every_test_that_is_named_exists() {
    let mut known = HashSet::new();
    for folder in ["crates", "interop", "benches"] {
        functions(&root().join(folder), &mut known);
    }
    let text = fs::read_to_string(root().join("docs/compliance.md")).unwrap();
    let mut named = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| section")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{row}");
        let [section, level, _, state, shown] = cells[..] else { unreachable!() };
        assert!(!section.is_empty() && !level.is_empty() && !shown.is_empty(), "{row}");
        assert!(["yes", "part", "no", "n/a"].contains(&state), "state of: {row}");
        let tests = shown.split('`').skip(1).step_by(2).filter(|code| code.contains("::"));
        for name in tests.map(|path| path.rsplit("::").next().unwrap()) {
            assert!(known.contains(name), "no test {name}: {row}");
            named += 1;
        }
    }
    assert!(named > 50, "only {named} tests are named");
}
