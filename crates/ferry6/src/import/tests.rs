//! The article's two files, each connection kind, and files that are none.

use super::*;
use crate::config;

/// A client of strongSwan for this purpose.
const IPSEC: &str = include_str!("../../../../docs/examples/article/ipsec.conf");

/// A broker of OpenBSD for this purpose.
const IKED: &str = include_str!("../../../../docs/examples/article/iked.conf");

fn imported(text: &str, name: &str, only: Option<&str>) -> Imported {
    import(text, Path::new(name), format_of(Path::new(name)).unwrap(), only).unwrap()
}

/// What a user would do by hand: the certificates of the test in place of those that are named.
fn with_files(text: &str, directory: &Path, name: &str) -> String {
    let mut text = text.to_owned();
    for (from, to) in [
        ("/etc/ipsec.d/certs/client.crt", "client.crt"),
        ("/etc/iked/certs/local.crt", "broker.crt"),
        ("/etc/iked/private/local.key", "broker.key"),
        ("/etc/iked/ca/ca.crt", "ca.crt"),
        ("/etc/swanctl/x509/client.crt", "client.crt"),
        ("/etc/swanctl/private/client.key", "client.key"),
        ("/etc/swanctl/x509ca/ca.crt", "ca.crt"),
    ] {
        text = text.replace(from, to);
    }
    if text.contains("# - local.key:") {
        text = text.replace("[local]\n", "[local]\nkey = \"client.key\"\n");
    }
    if text.contains("# - remote.ca:") {
        text = text.replace("[remote]\n", "[remote]\nca = \"ca.crt\"\n");
    }
    std::fs::write(directory.join(name), &text).unwrap();
    text
}

#[test]
fn the_articles_client() {
    let result = imported(IPSEC, "ipsec.conf", None);
    assert_eq!(result.role, Role::Client);
    for line in [
        "revocation = \"strict\"",
        "address = \"tunnel.my.domain\"",
        "id = \"client@my.domain\"",
        "ipcomp = \"on\"",
        "rekey = \"4h\"",
        "proposals = [\"aes256gcm16-prfsha256-x25519\"]",
        "proposals = [\"aes256-sha256\", \"default\"]",
        "address = \"request\"",
    ] {
        assert!(result.text.contains(line), "{line} is missing in\n{}", result.text);
    }
    // Each line without an equivalent is there, with its number and the cause.
    assert!(
        result.text.contains("#   ipsec.conf:26: leftupdown=/etc/ipsec.d/ipv6.sh: addresses and routes"),
        "{}",
        result.text
    );
    assert!(result.text.contains("3des") && result.text.contains("obsolete"), "{}", result.text);
    let directory = config::tests::files();
    with_files(&result.text, directory.path(), "client.toml");
    let client = config::client(&directory.path().join("client.toml"))
        .unwrap_or_else(|e| panic!("{e}\n{}", result.text));
    assert_eq!(client.connection.ipcomp, ferry6_ike::config::IpcompPolicy::On);
}

#[test]
fn the_articles_broker() {
    let result = imported(IKED, "iked.conf", None);
    assert_eq!(result.role, Role::Broker);
    for line in [
        "address = \"192.168.100.2\"",
        "range = \"2a00::100/120\"",
        "dns = [\"2a00::2\"]",
        "proposals = [\"aes256gcm16-prfsha256-x25519\"]",
        "proposals = [\"aes256-sha384\"]",
        "rekey = \"3600s\"",
        "rekey_bytes = \"4G\"",
        "remote_ts = [\"2a00::100/120\"]",
        "mobike = true",
    ] {
        assert!(result.text.contains(line), "{line} is missing in\n{}", result.text);
    }
    assert!(result.text.contains("tag \"$name\": no equivalent"), "{}", result.text);
    let directory = config::tests::files();
    with_files(&result.text, directory.path(), "broker.toml");
    config::broker(&directory.path().join("broker.toml")).unwrap_or_else(|e| panic!("{e}\n{}", result.text));
}

/// docs/article.md puts the other program's files and ours side by side: they say the same.
#[test]
fn the_articles_files_by_hand_say_what_the_import_says() {
    let directory = config::tests::files();
    let path = |name: &str| directory.path().join(name);
    with_files(&imported(IPSEC, "ipsec.conf", None).text, directory.path(), "imported.toml");
    std::fs::write(path("hand.toml"), include_str!("../../../../docs/examples/article/client.toml")).unwrap();
    let (imported_client, hand) =
        (config::client(&path("imported.toml")).unwrap(), config::client(&path("hand.toml")).unwrap());
    assert_eq!(imported_client.broker, hand.broker);
    same(&imported_client.connection, &hand.connection);

    with_files(&imported(IKED, "iked.conf", None).text, directory.path(), "imported.toml");
    std::fs::write(path("hand.toml"), include_str!("../../../../docs/examples/article/broker.toml")).unwrap();
    let (imported_broker, hand) =
        (config::broker(&path("imported.toml")).unwrap(), config::broker(&path("hand.toml")).unwrap());
    assert_eq!(format!("{:?}", imported_broker.listen), format!("{:?}", hand.listen));
    same(&imported_broker.connections[0], &hand.connections[0]);
    // One says the pool's selectors, the other leaves that to the lease.
    assert_eq!(hand.connections[0].remote_ts, [ferry6_ike::TrafficSelector::ANY_V6]);
}

fn same(imported: &ferry6_ike::config::Connection, hand: &ferry6_ike::config::Connection) {
    assert_eq!(imported.local_id, hand.local_id);
    assert_eq!(format!("{:?}", imported.remote_id), format!("{:?}", hand.remote_id));
    assert_eq!(format!("{:?}", imported.ike), format!("{:?}", hand.ike));
    // The first proposal is the file's; what follows is what its program would offer besides.
    assert_eq!(format!("{:?}", imported.esp[0]), format!("{:?}", hand.esp[0]));
    assert_eq!(imported.local_ts, hand.local_ts);
    assert_eq!(imported.ipcomp, hand.ipcomp);
    assert_eq!(imported.mobike, hand.mobike);
    assert_eq!((imported.child_rekey, imported.ike_rekey), (hand.child_rekey, hand.ike_rekey));
    assert_eq!(imported.child_rekey_bytes, hand.child_rekey_bytes);
}

const SWANCTL: &str = r#"
connections {
    home {
        version = 2
        remote_addrs = tunnel.my.domain
        vips = ::   # whatever it gives
        proposals = aes128gcm16-prfsha256-ecp256,default
        dpd_delay = 30s
        local { auth = pubkey
                certs = client.crt
                id = client@my.domain }
        remote {
            auth = pubkey
            id = tunnel.my.domain
            cacerts = ca.crt
            revocation = ifuri
        }
        children {
            home {
                local_ts = dynamic
                remote_ts = ::/0, 10.0.0.0/8
                start_action = start
                rekey_bytes = 4000000000
                mark_in = 42
            }
        }
    }
    office {
        local_addrs = 192.0.2.1
        pools = clients
        local { certs = broker.crt }
        remote { cacerts = ca.crt }
        children { all { local_ts = ::/0 } }
    }
}
pools { clients { addrs = 2a00::100/120
                  dns = 2a00::2, 192.0.2.53
                  split_include = 2a00::/64 } }
secrets {
    private-client { file = client.key
                     secret = "do not print me" }
}
"#;

#[test]
fn swanctl_client_and_broker() {
    let refused = import(SWANCTL, Path::new("swanctl.conf"), Format::Swanctl, None).unwrap_err();
    assert!(refused.0.contains("choose with --connection: home, office"), "{refused}");
    let home = imported(SWANCTL, "swanctl.conf", Some("home"));
    assert_eq!(home.role, Role::Client);
    assert!(home.text.contains("swanctl.conf:24: mark_in = 42: unknown to the import"), "{}", home.text);
    assert!(home.text.contains("10.0.0.0/8: the tunnel carries IPv6 alone"), "{}", home.text);
    assert!(home.text.contains("key_passphrase_file"), "{}", home.text);
    assert!(!home.text.contains("do not print me"));
    let directory = config::tests::files();
    with_files(&home.text, directory.path(), "client.toml");
    config::client(&directory.path().join("client.toml")).unwrap_or_else(|e| panic!("{e}\n{}", home.text));

    let office = imported(SWANCTL, "swanctl.conf", Some("office"));
    assert_eq!(office.role, Role::Broker);
    assert!(office.text.contains("range = [\"2a00::100/120\"]"), "{}", office.text);
    assert!(office.text.contains("192.0.2.53: only IPv6 DNS servers are told"), "{}", office.text);
    assert!(office.text.contains("split_include = 2a00::/64: only addresses"), "{}", office.text);
}

/// What is no number where one belongs makes no broken file: the configuration's own reader names it.
#[test]
fn a_number_that_is_none_is_quoted() {
    let text = SWANCTL
        .replace("rekey_bytes = 4000000000", "rekey_bytes = much")
        .replace("version = 2", "remote_port = a]b");
    let home = imported(&text, "swanctl.conf", Some("home"));
    assert!(
        home.text.contains("rekey_bytes = \"much\"") && home.text.contains("port = \"a]b\""),
        "{}",
        home.text
    );
    assert!(home.text.parse::<toml::Table>().is_ok(), "{}", home.text);
}

/// Two policies are two connections of one broker.
#[test]
fn several_policies() {
    let text = "ikev2 \"staff\" passive from ::/0 to 2a00::100/120 local 192.0.2.1 dstid \"a@b.c\"\n\
                ikev2 passive from ::/0 to 2a00::200/120 local 192.0.2.2 psk \"very secret words\"\n";
    let result = imported(text, "iked.conf", None);
    assert_eq!(result.text.matches("[[connection]]").count(), 2, "{}", result.text);
    assert!(
        result.text.contains("name = \"staff\"") && result.text.contains("name = \"policy2\""),
        "{}",
        result.text
    );
    assert!(result.text.contains("psk_file = \"policy2.psk\""), "{}", result.text);
    assert!(!result.text.contains("secret words"), "{}", result.text);
    assert!(result.text.parse::<toml::Table>().is_ok(), "{}", result.text);
}

/// Nothing of a secret, and the names of keys.
#[test]
fn the_secrets_beside_ipsec_conf() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ipsec.conf");
    std::fs::write(directory.path().join("ipsec.secrets"), "# keys\n: RSA client.key \"open sesame\"\n")
        .unwrap();
    std::fs::create_dir_all(directory.path().join("ipsec.d/cacerts")).unwrap();
    std::fs::write(directory.path().join("ipsec.d/cacerts/my.crt"), "").unwrap();
    let result = import(IPSEC, &path, Format::Ipsec, None).unwrap();
    assert!(result.text.contains("key = \"/etc/ipsec.d/private/client.key\""), "{}", result.text);
    assert!(result.text.contains("ipsec.d/cacerts/my.crt"), "{}", result.text);
    assert!(!result.text.contains("sesame"), "{}", result.text);
    std::fs::write(directory.path().join("ipsec.secrets"), "a@b.c : PSK \"open sesame\"\n").unwrap();
    let psk = IPSEC.replace("leftcert=client.crt", "leftauth=psk");
    let result = import(&psk, &path, Format::Ipsec, None).unwrap();
    assert!(
        result.text.contains("psk_file = \"ipv6.psk\"") && !result.text.contains("sesame"),
        "{}",
        result.text
    );
}

#[test]
fn faults_name_file_and_line() {
    for (name, text, expected) in [
        ("ipsec.conf", "conn a\n  left\n", "ipsec.conf:2: \"left\": expected `keyword = value`"),
        ("ipsec.conf", "  left=1.2.3.4\n", "ipsec.conf:1: a setting before the first"),
        (
            "ipsec.conf",
            "include other.conf\n",
            "ipsec.conf:1: include other.conf: import that file by itself",
        ),
        ("ipsec.conf", "conn a\n  also=b\n", "also = b: there is no conn of that name"),
        ("ipsec.conf", "config setup\n", "there is no connection in it"),
        ("ipsec.conf", "conn a\n left=%any\n", "ipsec.conf:1: conn a: neither `right` nor `rightsourceip`"),
        ("swanctl.conf", "connections { a {\n", "swanctl.conf:2: the file ends within a section"),
        ("swanctl.conf", "}\n", "swanctl.conf:1: a } without a section"),
        ("swanctl.conf", "a b\n", "swanctl.conf:1: after \"a\": expected"),
        ("iked.conf", "ikev2 \"a\n", "iked.conf:1: a \" without its end"),
        ("iked.conf", "ikev2 from $x\n", "iked.conf:1: $x: that macro is not defined before"),
        ("iked.conf", "ikev1 passive\n", "iked.conf:1: \"ikev1\": expected ikev2, set, user"),
        ("iked.conf", "ikev2 passive srcid\n", "iked.conf:1: srcid: expected an identity behind it"),
        ("iked.conf", "\n", "there is no connection in it"),
    ] {
        let error = import(text, Path::new(name), format_of(Path::new(name)).unwrap(), None).unwrap_err();
        assert!(error.0.contains(expected), "{name} {text:?}: {error}");
    }
    assert_eq!(format_of(Path::new("/etc/other.conf")), None);
}

proptest::proptest! {
    /// Whatever it is fed, it answers, and what it makes is TOML.
    #[test]
    fn it_never_panics(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "ikev2", "passive", "from", "::/0", "to", "psk", "\"", "\n", "{", "}", "=", "conn", "a", " left", "right", "%any",
            "connections", "children", "#", "\\\n", "config", "setup", "also", "set", "mobike", "\u{0}", "$a", "x\"y", "'", "[", "]",
        ]), 0..40)) {
        let text = words.join(" ");
        for format in [Format::Ipsec, Format::Swanctl, Format::Iked] {
            if let Ok(imported) = import(&text, Path::new("x.conf"), format, None) {
                proptest::prop_assert!(imported.text.parse::<toml::Table>().is_ok(), "{}", imported.text);
            }
        }
    }
}
