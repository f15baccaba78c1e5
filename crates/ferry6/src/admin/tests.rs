use super::invitation::Invitation;
use super::*;

fn invitation() -> Invitation {
    Invitation {
        prefix: None,
        ferry6: Invitation::VERSION,
        name: "alice".into(),
        broker: "tunnel.my.domain".into(),
        broker_id: "dns:tunnel.my.domain".into(),
        port: 500,
        nat_port: 4500,
        ca: "-----BEGIN CERTIFICATE-----\n".into(),
        cert: "-----BEGIN CERTIFICATE-----\n".into(),
        key: Some("secret".into()),
    }
}

#[test]
fn an_invitation_is_read_as_it_was_written() {
    let text = invitation().to_text().unwrap();
    assert!(text.contains("holds a private key"), "{text}");
    assert!(!text.contains("nat_port"), "a default need not be said: {text}");
    let read = Invitation::parse(&text).unwrap();
    assert_eq!((read.name.as_str(), read.nat_port, read.key.as_deref()), ("alice", 4500, Some("secret")));
    let mut without = invitation();
    without.key = None;
    without.nat_port = 4501;
    let text = without.to_text().unwrap();
    assert!(text.contains("no private key"), "{text}");
    let read = Invitation::parse(&text).unwrap();
    assert_eq!((read.nat_port, read.key.as_deref()), (4501, None));
}

#[test]
fn what_is_no_invitation_is_told_without_its_secrets() {
    let good = invitation().to_text().unwrap();
    for (text, expected) in [
        (String::new(), "does not begin with `ferry6 = 1`"),
        ("\u{0}\u{1}".to_owned(), "not TOML"),
        (good.replace("ferry6 = 1", "ferry6 = 2"), "take a newer ferry6"),
        (good.replace("broker_id", "brooker_id"), "unknown field"),
        (good.replace("key = \"secret\"", "key = 7"), "line 13"),
        (good.replace("port = 500", ""), ""),
    ] {
        match Invitation::parse(&text) {
            Ok(_) => assert!(expected.is_empty(), "{text} was taken"),
            Err(error) => {
                let said = format!("{error:#}");
                assert!(!expected.is_empty() && said.contains(expected), "{said}");
                assert!(!said.contains("secret"), "{said}");
            }
        }
    }
}

#[test]
fn names_stay_within_their_directory() {
    for name in ["alice", "a", "home.office-2", "A_b"] {
        check_name(name).unwrap();
    }
    let long = "a".repeat(64);
    for name in ["", ".", "..", "../etc", "a/b", "-x", ".hidden", "ä", "a b", "a\n", &long] {
        assert!(check_name(name).is_err(), "{name:?}");
    }
}
