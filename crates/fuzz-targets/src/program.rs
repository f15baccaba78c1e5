//! What the program reads: configuration files, and requests on its control socket.

use crate::input::Input;
use ferry6::config::reader::Document;
use ferry6::config::{broker_document, client_document, keys, proposal};
use ferry6::control::Request;
use std::path::PathBuf;

/// A configuration, a proposal, a pre-shared key, or a control request. Files that a configuration names are looked for
/// in a folder that does not exist.
///
/// Input: which of them, then the text.
pub fn configuration(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.u8() % 6;
    let octets = input.rest();
    if kind == 4 {
        let _ = keys::psk(octets);
        return;
    }
    if kind == 5 {
        if let Ok(request) = serde_json::from_slice::<Request>(octets) {
            let text = serde_json::to_vec(&request).expect("a request is JSON");
            assert_eq!(serde_json::from_slice::<Request>(&text).expect("our own request"), request);
        }
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
