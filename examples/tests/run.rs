//! Runs each example as a user would, and looks at what it says.

use std::path::PathBuf;
use std::process::Command;

/// Runs the example that `cargo test` built beside this test.
fn run(name: &str) -> String {
    let mut path: PathBuf = std::env::current_exe().expect("our own path");
    path.pop();
    path.set_file_name("examples");
    path.push(name);
    let output = Command::new(&path).output().unwrap_or_else(|e| {
        panic!(
            "{}: {e} (`cargo test -p ferry6-examples` builds it; `--test run` alone doesn't)",
            path.display()
        )
    });
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{name}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

#[track_caller]
fn says(said: &str, expected: &[&str]) {
    for part in expected {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
}

#[test]
fn ike_handshake() {
    let said = run("ike_handshake");
    says(
        &said,
        &["Lease { address: Some(2a00::101)", "client: install SPI", "broker: install SPI", "broker: closed"],
    );
    // IKE_SA_INIT, IKE_AUTH, a DPD of each and DELETE: a request and a response each.
    assert_eq!(said.matches(": sends ").count(), 10, "{said}");
}

#[test]
fn ike_rekey() {
    says(&run("ike_rekey"), &["established", "pings came, 0 were lost", "closed on both sides"]);
}

#[test]
fn ike_message() {
    says(&run("ike_message"), &["IKE_SA_INIT"]);
}

#[test]
fn esp_packet() {
    says(
        &run("esp_packet"),
        &["opened: next header 41", "seen before", "integrity check failed", "malformed"],
    );
}

#[test]
fn two_routers() {
    run("two_routers");
}

#[test]
fn each_example_is_run_here() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    for entry in std::fs::read_dir(folder).expect("the examples' folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy().replace(".rs", "");
        assert!(include_str!("run.rs").contains(&format!("fn {name}()")), "{name} is not run");
    }
}
