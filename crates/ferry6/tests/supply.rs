//! What may come into the dependency tree, by `deny.toml`, and that nothing stands in a manifest which no code uses. `cargo deny` and
//! `cargo machete` look deeper (advisories among it) where they are installed; this runs everywhere.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn cargo(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(words).current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn deny() -> toml::Table {
    fs::read_to_string(workspace().join("deny.toml")).unwrap().parse().unwrap()
}

/// An SPDX expression of `AND`, `OR` and parentheses, `/` being an old `OR`: whether it can be met.
fn allowed(expression: &str, list: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words: Vec<String> = Vec::new();
    for word in spaced.split_whitespace() {
        // `Apache-2.0 WITH LLVM-exception` is one licence.
        match words.last_mut() {
            Some(last) if word == "WITH" || last.ends_with(" WITH") => *last = format!("{last} {word}"),
            _ => words.push(word.to_owned()),
        }
    }
    fn or(words: &mut &[String], list: &BTreeSet<String>) -> bool {
        let mut met = and(words, list);
        while words.first().is_some_and(|w| w == "OR") {
            *words = &words[1..];
            met |= and(words, list);
        }
        met
    }
    fn and(words: &mut &[String], list: &BTreeSet<String>) -> bool {
        let mut met = one(words, list);
        while words.first().is_some_and(|w| w == "AND") {
            *words = &words[1..];
            met &= one(words, list);
        }
        met
    }
    fn one(words: &mut &[String], list: &BTreeSet<String>) -> bool {
        let Some((word, rest)) = words.split_first() else { return false };
        *words = rest;
        if word == "(" {
            let met = or(words, list);
            assert_eq!(words.first().map(String::as_str), Some(")"));
            *words = &words[1..];
            return met;
        }
        list.contains(word)
    }
    or(&mut &words[..], list)
}

#[test]
fn licences_are_understood() {
    let list = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "MIT/GPL-2.0",
        "(MIT OR GPL-3.0) AND Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(allowed(good, &list), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR ISC) AND MIT", "", "MIT WITH x"] {
        assert!(!allowed(bad, &list), "{bad}");
    }
}

#[test]
fn licences_sources_and_bans_are_kept() {
    let (root, deny) = (workspace().canonicalize().unwrap(), deny());
    let list = |value: &toml::Value| -> BTreeSet<String> {
        value.as_array().unwrap().iter().map(|l| l.as_str().unwrap().to_owned()).collect()
    };
    let licences = list(&deny["licenses"]["allow"]);
    let banned: BTreeSet<String> = deny["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        // One with `wrappers` may come in through these; `cargo deny` looks at that.
        .filter(|b| b.get("wrappers").is_none())
        .map(|b| b["crate"].as_str().unwrap().to_owned())
        .collect();
    let mut faults = Vec::new();
    let tree =
        cargo(&["tree", "--workspace", "--locked", "--offline", "--prefix", "none", "--format", "{p}|{l}"]);
    let packages: BTreeSet<&str> =
        tree.lines().map(|l| l.trim_end_matches(" (*)")).filter(|l| !l.is_empty()).collect();
    assert!(packages.len() > 100, "{} packages", packages.len());
    for package in packages {
        // `name v1.2.3 (proc-macro) (path or repository)|MIT`; what comes from crates.io has no place.
        let (package, licence) = package.rsplit_once('|').unwrap();
        let package = package.replace(" (proc-macro)", "");
        let name = package.split(' ').next().unwrap();
        match package.split_once(" (") {
            None => {}
            Some((_, place)) if Path::new(place.trim_end_matches(')')).starts_with(&root) => continue, // our own
            Some((_, place)) => faults.push(format!("{package} comes from {place}")),
        }
        if !allowed(licence, &licences) {
            faults.push(format!("{package}: licence {licence:?} is not in deny.toml"));
        }
        if banned.contains(name) {
            faults.push(format!("{package} is banned in deny.toml"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_dependency_is_used() {
    // Of this platform alone: what other ones need was never fetched.
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let platform = format!("{}-unknown-linux-{libc}", std::env::consts::ARCH);
    let metadata = cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--offline",
        "--filter-platform",
        &platform,
    ]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let members: BTreeSet<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    // The name in the code: rustls-webpki is `webpki` there.
    let in_code: BTreeMap<&str, String> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|p| {
            let library = p["targets"].as_array().unwrap().iter().find(|t| {
                t["kind"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|k| k.as_str().unwrap().contains("lib") || k == "proc-macro")
            })?;
            Some((p["name"].as_str().unwrap(), library["name"].as_str().unwrap().replace('-', "_")))
        })
        .collect();
    let mut faults = Vec::new();
    for package in metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| members.contains(p["id"].as_str().unwrap()))
    {
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
        let mut code = String::new();
        read_code(folder, &mut code);
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["rename"].as_str().map_or_else(
                || in_code[dependency["name"].as_str().unwrap()].clone(),
                |n| n.replace('-', "_"),
            );
            let used = code.match_indices(&name).any(|(at, _)| {
                let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                !word(code[..at].chars().next_back()) && !word(code[at + name.len()..].chars().next())
            });
            if !used {
                faults.push(format!("{}: {name} is in Cargo.toml and in no code", folder.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn read_code(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_none_or(|n| n != "target") {
            read_code(&path, code);
        } else if path.extension().is_some_and(|e| e == "rs") {
            code.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
