use super::super::reader::Document;
use super::super::tests::files;
use super::super::{broker, client};
use super::*;
use std::collections::BTreeSet;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
const BEGIN: &str = "<!-- keys: made by `ferry6 config --reference` -->\n";
const END: &str = "<!-- keys end -->\n";

/// The keys that a role's reader asks for; those of `[[connection]]` are those of the root.
fn read(role: Role) -> BTreeSet<String> {
    let dir = files();
    let name = if role == Role::Client { "client-full.toml" } else { "broker-full.toml" };
    let document = Document::open(&dir.path().join(name)).unwrap();
    if role == Role::Client {
        client::read(&document).unwrap();
    } else {
        broker::read(&document).unwrap();
    }
    let sections =
        ["broker", "listen", "local", "remote", "ike", "child", "pool", "tunnel", "connection", "hooks"];
    let inner = |k: &str| match k.strip_prefix("connection.") {
        Some(inner) if inner != "name" => inner.to_owned(),
        _ => k.to_owned(),
    };
    let keys = document.known_keys();
    keys.iter().map(|k| inner(k)).filter(|k| !sections.contains(&k.as_str())).collect()
}

#[test]
fn the_readers_know_these_keys_and_no_others() {
    for role in [Role::Client, Role::Broker] {
        let told: BTreeSet<String> = keys(role).map(|k| k.key.to_owned()).collect();
        assert_eq!(told, read(role), "{role:?}: left the reference, right the reader");
    }
}

#[test]
fn the_documentation_is_what_the_program_prints() {
    let text = std::fs::read_to_string(DOCS).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (between, after) = rest.split_once(END).unwrap();
    let wanted = format!("\n{}", markdown());
    if between == wanted {
        return;
    }
    if std::env::var_os("FERRY6_UPDATE_DOCS").is_some() {
        std::fs::write(DOCS, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    panic!(
        "docs/configuration.md is not what the code says; do: FERRY6_UPDATE_DOCS=1 cargo test --workspace --lib reference"
    );
}

/// A file with the example alone has faults for what is missing, but none at the key.
#[test]
fn every_example_is_right() {
    use std::os::unix::fs::PermissionsExt;
    let dir = files();
    // A file with a secret is its owner's.
    let path = dir.path().join("client.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (group, key) in groups().flat_map(|g| g.keys.iter().map(move |k| (g, k))) {
        let text = match key.key.rsplit_once('.') {
            // Of use with another key only.
            Some(("remote", "crl" | "revocation")) => format!("[remote]\nca = \"ca.crt\"\n{}\n", key.line()),
            Some(("pool", "fixed" | "dns")) => format!("[pool]\nrange = \"2a00::100/120\"\n{}\n", key.line()),
            // A hook must be there.
            Some(("hooks", name)) => {
                let hook = dir.path().join(name);
                std::fs::write(&hook, "").unwrap();
                std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
                format!("[hooks]\n{}\n", key.line().replace("/etc/ferry6", &dir.path().display().to_string()))
            }
            Some(("connection", _)) => format!("[[connection]]\n{}\n", key.line()),
            Some((section, _)) => format!("[{section}]\n{}\n", key.line()),
            None => key.line(),
        };
        let parsed: toml::Table = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", key.key));
        assert_eq!(parsed.len(), 1, "{}", key.key);
        let document = Document::new(path.clone(), text);
        let said = if group.role == Role::Broker {
            broker::read(&document).err()
        } else {
            client::read(&document).err()
        };
        let said = said.map_or_else(String::new, |e| e.to_string());
        let fault = said.lines().find(|l| l.contains(&format!(" {}: ", key.key)) && !l.contains("missing"));
        assert_eq!(fault, None, "{}", key.key);
    }
}

#[test]
fn cells_as_plain_text() {
    assert_eq!(
        plain("`0`: see [mtu.md](mtu.md), [below](#rights)"),
        "0: see mtu.md, in docs/configuration.md"
    );
    assert_eq!(plain("a `[[connection]]` and [ alone"), "a [[connection]] and [ alone");
}

#[test]
fn keys_of_a_connection_are_found() {
    assert_eq!(find("connection.ike.rekey").unwrap().key, "ike.rekey");
    assert_eq!(find("connection.name").unwrap().key, "connection.name");
    assert!(find("ike.mtu").is_none());
}
