//! What the documentation says to type is what the program takes, what it shows of files is what is in them, and its links lead somewhere.

#![allow(clippy::unwrap_used)]

use clap::Parser as _;
use ferry6::cli::Cli;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// README.md and all pages of docs/.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|e| e.unwrap().path());
    let mut list: Vec<PathBuf> = docs.filter(|p| p.extension().is_some_and(|e| e == "md")).collect();
    list.push(root().join("README.md"));
    list.sort();
    list.into_iter().map(|p| (p.clone(), std::fs::read_to_string(p).unwrap())).collect()
}

/// The command in a line of code: what follows `ferry6`, up to a comment (behind `#` or in a column of its own), a pipe or the like. None where there is none, or one with
/// alternatives or gaps.
fn command(code: &str) -> Option<Vec<&str>> {
    let code =
        code.split(" #").next()?.split("   ").next()?.split(['|', '>', ';']).next()?.split("&&").next()?;
    let mut words = code.split_whitespace().peekable();
    words.next_if_eq(&"sudo");
    words.next_if_eq(&"ferry6")?;
    let words: Vec<&str> = words.collect();
    let gaps = words.iter().any(|w| w.contains(['…', '[', '*', '\'', '"', '`', '$', '(']));
    (!gaps && !words.is_empty()).then_some(words)
}

#[test]
fn commands_are_those_that_the_program_takes() {
    let mut count = 0;
    for (path, text) in pages() {
        for (number, line) in text.lines().enumerate() {
            let Some(words) = line.strip_prefix("    ").and_then(command) else { continue };
            let parsed = Cli::try_parse_from(["ferry6"].into_iter().chain(words));
            if let Err(error) = parsed {
                panic!("{}:{}: {}\n{error}", path.display(), number + 1, line.trim());
            }
            count += 1;
        }
    }
    assert!(count > 40, "only {count} commands were found");
}

#[test]
fn what_the_test_takes_for_a_command() {
    assert_eq!(command("sudo ferry6 broker list   # who"), Some(vec!["broker", "list"]));
    assert_eq!(command("ferry6 broker list --json | jq"), Some(vec!["broker", "list", "--json"]));
    assert_eq!(command("ferry6 monitor      all of it"), Some(vec!["monitor"]));
    assert_eq!(command("sudo systemctl start ferry6"), None);
    assert_eq!(command("ferry6"), None);
}

/// Behind `<!-- file: NAME -->` stands the file, indented.
#[test]
fn files_are_shown_as_they_are() {
    let mut count = 0;
    for (path, text) in pages() {
        for part in text.split("<!-- file: ").skip(1) {
            let (name, rest) = part.split_once(" -->\n").unwrap();
            let file = std::fs::read_to_string(path.parent().unwrap().join(name)).unwrap();
            let indent = |l: &str| if l.is_empty() { "\n".to_owned() } else { format!("    {l}\n") };
            let wanted: String = file.lines().map(indent).collect();
            assert!(
                rest.trim_start_matches('\n').starts_with(&wanted),
                "{} shows another {name}",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count >= 4, "only {count} files were found");
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for (path, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") || file.contains(' ') {
                continue;
            }
            assert!(path.parent().unwrap().join(file).exists(), "{}: {link}", path.display());
            count += 1;
        }
    }
    assert!(count > 30, "only {count} links were found");
}
