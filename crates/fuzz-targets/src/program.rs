//! What the program reads: configuration files and invitations.

use crate::input::Input;
use ferry6::admin::invitation::Invitation;
use ferry6::admin::join::configuration_of;
use ferry6::config::reader::Document;
use ferry6::config::{broker_document, client_document, keys, proposal};
use std::path::{Path, PathBuf};

/// A configuration, a proposal or a pre-shared key. Files that a configuration names are looked for in a folder that does
/// not exist.
///
/// Input: which of them, then the text.
pub fn configuration(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.u8() % 5;
    let octets = input.rest();
    if kind == 4 {
        let _ = keys::psk(octets);
        return;
    }
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let document = || Document::new(PathBuf::from("/nonexistent/folder/ferry6.toml"), text.to_owned());
    match kind {
        0 => check(client_document(&document()).err().map(|error| error.to_string())),
        1 => check(broker_document(&document()).err().map(|error| error.to_string())),
        2 => {
            if let Ok(proposal) = proposal::ike(text) {
                let shown = proposal::show_ike(&proposal);
                assert_eq!(proposal::ike(&shown), Ok(proposal), "{shown}");
            }
        }
        _ => {
            if let Ok(proposal) = proposal::esp(text) {
                let shown = proposal::show_esp(&proposal);
                assert_eq!(proposal::esp(&shown), Ok(proposal), "{shown}");
            }
        }
    }
}

/// A fault is told with the file that has it.
fn check(fault: Option<String>) {
    if let Some(text) = fault {
        assert!(text.contains("/nonexistent/folder"), "{text}");
    }
}

/// An invitation, which comes from somebody else and becomes a configuration that root uses: it says where the broker is
/// and who, and nothing more.
///
/// Input: the file.
pub fn invitation(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(invitation) = Invitation::parse(text) else { return };
    let _ = invitation.valid_until();
    let written = invitation.to_text().expect("what was TOML is TOML");
    let again = Invitation::parse(&written).expect("our own invitation");
    assert_eq!(again.to_text().expect("as before"), written);

    let made = configuration_of(&invitation, "home", Path::new("/nonexistent"));
    let table: toml::Table = made.parse().unwrap_or_else(|error| panic!("{error}: {made}"));
    let mut broker = toml::Table::from_iter([("address".to_owned(), invitation.broker.as_str().into())]);
    for (key, port, usual) in [("port", invitation.port, 500), ("nat_port", invitation.nat_port, 4500)] {
        if port != usual {
            broker.insert(key.to_owned(), i64::from(port).into());
        }
    }
    let expected = toml::toml! {
        control = "client.sock"
        [local]
        cert = "client.crt"
        key = "client.key"
        [remote]
        ca = "ca.crt"
    };
    let mut expected = expected;
    expected.insert("broker".to_owned(), broker.into());
    let remote = expected.get_mut("remote").and_then(toml::Value::as_table_mut).expect("it stands above");
    remote.insert("id".to_owned(), invitation.broker_id.as_str().into());
    assert_eq!(table, expected);
}
