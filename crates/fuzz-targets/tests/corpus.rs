//! Runs every target over its committed corpus, so that `cargo test` needs no fuzzer.

#![allow(clippy::unwrap_used)] // a test program: helpers of tests are not seen as tests

use ferry6_fuzz_targets::TARGETS;
use std::fs;
use std::path::{Path, PathBuf};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The files of a folder; none where it does not exist.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

#[test]
fn every_corpus_replays_clean() {
    for (name, target) in TARGETS {
        let seeds = files(&fuzz().join("corpus").join(name));
        assert!(!seeds.is_empty(), "no seeds for {name}: see docs/fuzzing.md");
        for file in seeds {
            // shown where the target panics
            println!("{name}: {}", file.display());
            target(&fs::read(&file).unwrap());
        }
        target(&[]);
    }
}

#[test]
fn every_prefix_of_a_seed_runs_too() {
    for (name, target) in TARGETS {
        for file in files(&fuzz().join("corpus").join(name)) {
            let octets = fs::read(&file).unwrap();
            if octets.len() > 600 {
                continue;
            }
            println!("{name}: {}", file.display());
            for len in 0..octets.len() {
                target(&octets[..len]);
            }
        }
    }
}

#[test]
fn cargo_fuzz_has_the_same_targets() {
    let mut named: Vec<_> = files(&fuzz().join("fuzz_targets"))
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    named.sort();
    let mut ours: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    ours.sort();
    assert_eq!(named, ours);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in ours {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} stands not in fuzz/Cargo.toml");
    }
}
