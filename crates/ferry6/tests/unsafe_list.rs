//! That `docs/unsafe.md` lists every `unsafe` of the workspace, and that each has its reason beside it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                rust_files(&path, into);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// What of a line is code: not a comment, not the contents of a string.
fn code(line: &str) -> String {
    let mut out = String::new();
    let (mut in_string, mut escaped) = (false, false);
    let mut before = ' ';
    for c in line.chars() {
        if !in_string && before == '/' && c == '/' {
            break;
        }
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c == '"' && before != '\'' {
            in_string = true;
        } else {
            out.push(c);
        }
        before = c;
    }
    out
}

fn is_unsafe(line: &str) -> bool {
    code(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

/// The function or type that an item belongs to: the nearest one above, or for `unsafe impl … for T` that T.
fn owner(lines: &[&str], at: usize) -> String {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    if let Some((_, rest)) = lines[at].split_once("unsafe impl ").and_then(|(_, r)| r.split_once(" for ")) {
        return word(rest);
    }
    let named = |line: &&str| {
        let code = code(line);
        let (before, rest) = code.split_once("fn ")?;
        let starts = before.chars().all(|c| c.is_alphanumeric() || " ()_".contains(c));
        starts.then(|| word(rest)).filter(|name| !name.is_empty())
    };
    lines[..=at].iter().rev().find_map(named).unwrap_or_default()
}

type Places = BTreeMap<(String, String), usize>;

fn in_source() -> Places {
    let root = workspace();
    let mut files = Vec::new();
    for folder in ["crates", "benches", "examples", "interop", "fuzz"] {
        rust_files(&root.join(folder), &mut files);
    }
    assert!(files.len() > 200, "{} files are not all", files.len());
    let mut places = Places::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for at in (0..lines.len()).filter(|at| is_unsafe(lines[*at])) {
            let above = &lines[at.saturating_sub(4)..at];
            assert!(
                above.iter().any(|line| line.trim_start().starts_with("// SAFETY: ")),
                "{name}:{}: no `// SAFETY:` above it",
                at + 1
            );
            *places.entry((name.clone(), owner(&lines, at))).or_default() += 1;
        }
    }
    places
}

/// `## \`file\`` and below it the rows `| \`function\` | places | reason |`.
fn in_list() -> Places {
    let text = fs::read_to_string(workspace().join("docs/unsafe.md")).unwrap();
    let mut file = String::new();
    let mut places = Places::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            file = name.trim_matches('`').to_owned();
        } else if let Some(row) = line.strip_prefix("| `") {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [function, count, reason, ..] = cells[..] else { panic!("{line}") };
            assert!(reason.len() > 10, "no reason: {line}");
            let new =
                places.insert((file.clone(), function.trim_matches('`').to_owned()), count.parse().unwrap());
            assert!(new.is_none(), "twice: {line}");
        }
    }
    places
}

#[test]
fn every_unsafe_is_listed_and_has_its_reason() {
    let (source, list) = (in_source(), in_list());
    for (place, count) in &source {
        assert_eq!(list.get(place), Some(count), "docs/unsafe.md does not say this of {place:?}");
    }
    for place in list.keys() {
        assert!(
            source.contains_key(place),
            "docs/unsafe.md lists {place:?}, where nothing is unsafe any more"
        );
    }
    assert!(source.values().sum::<usize>() > 20, "the search finds nothing");
}

/// What allows it, allows it for a file, and those are the files of the list.
#[test]
fn nothing_else_may() {
    let root = workspace();
    let mut files = Vec::new();
    rust_files(&root.join("crates"), &mut files);
    rust_files(&root.join("interop"), &mut files);
    for file in files {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        let allows = text.lines().any(|line| code(line).trim() == "#![allow(unsafe_code)]");
        assert_eq!(allows, in_list().keys().any(|(listed, _)| *listed == name), "{name}");
    }
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"deny\""));
}

#[test]
fn the_search_sees_code_alone() {
    for (line, found) in [
        ("unsafe impl Send for X {}", true),
        ("    let a = unsafe { b() };", true),
        ("    check(unsafe{ c })", true),
        ("// unsafe", false),
        ("    let text = \"unsafe\"; // unsafe", false),
        ("    let quote = \"\\\"\"; unsafe { d() }", true),
        ("#![allow(unsafe_code)]", false),
    ] {
        assert_eq!(is_unsafe(line), found, "{line}");
    }
}
