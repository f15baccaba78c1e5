//! From nothing to a tunnel by `broker init`, `invite`, `client join` and `up`, and back by `revoke` and `down`; and what each
//! says to wrong input. Needs root or user namespaces, and says so where it may not.

#![allow(clippy::unwrap_used)]

mod common;

use common::site::{World, done, ferry6, refused, site};
use common::text;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn init_says_what_is_left_to_do_and_touches_nothing_twice() {
    let dir = site();
    let d = dir.path();
    let before = std::fs::read(d.join("b/ca.key")).unwrap();
    refused(
        &ferry6(d, &["broker", "init", "--dir", "b", "--address", "10.0.0.1", "--prefix", "2a00::100/120"]),
        "there is a broker in b already",
    );
    assert_eq!(std::fs::read(d.join("b/ca.key")).unwrap(), before);
    for key in ["b/ca.key", "b/broker.key"] {
        assert_eq!(std::fs::metadata(d.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
    }
    let checked = done(&ferry6(d, &["broker", "--check", "--config", "b/broker.toml"]));
    assert!(checked.contains("2a00::100/120") && checked.contains("10.0.0.1"), "{checked}");

    let named = [
        "broker",
        "init",
        "--dir",
        "n",
        "--address",
        "tunnel.my.domain",
        "--prefix",
        "2a00::100/120",
        "--no-unit",
    ];
    let said = done(&ferry6(d, &named));
    for part in [
        "*@tunnel.my.domain",
        "UDP 500 and 4500",
        "ip -6 route add 2a00::100/120",
        "broker invite alice --dir n",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn wrong_words_to_init_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    for (words, expected) in [
        (&["--prefix", "2a00::100/120"][..], "--address is missing"),
        (&["--address", "t.my.domain"], "--prefix is missing"),
        (&["--address", "2a00::1", "--prefix", "2a00::/64"], "crosses IPv4"),
        (&["--address", "t.my.domain", "--prefix", "10.0.0.0/8"], "--prefix"),
        (&["--address", "t.my.domain", "--prefix", "2a00::1/128"], "no room for a client"),
        (
            &["--address", "t.my.domain", "--prefix", "2a00::/64", "--interface", "nosuch0"],
            "no interface nosuch0",
        ),
        (&["--address", "t.my.domain", "--prefix", "2a00::/64", "--domain", "a b"], "--domain"),
        (
            &["--address", "t.my.domain", "--prefix", "2a00::/64", "--prefixes", "2a00::/56"],
            "--prefixes: 2a00::/56 overlaps",
        ),
        (
            &["--address", "t.my.domain", "--prefix", "2a00::/64", "--prefixes", "2b00::/72"],
            "--prefixes: 2b00::/72 has no room for a /64",
        ),
        (
            &["--address", "t.my.domain", "--prefix", "2a00::/64", "--prefixes", "ff00::/16"],
            "no prefix of unicast",
        ),
        (
            &[
                "--address",
                "t.my.domain",
                "--prefix",
                "2a00::/64",
                "--prefixes",
                "2b00::/32",
                "--prefix-length",
                "200",
            ],
            "--prefix-length",
        ),
    ] {
        refused(&ferry6(d, &[&["broker", "init", "--dir", "x", "--no-unit"], words].concat()), expected);
        assert!(!d.join("x").exists(), "{words:?}");
    }
}

#[test]
fn invitations_are_made_listed_and_revoked_without_a_running_broker() {
    let dir = site();
    let d = dir.path();
    let said = done(&ferry6(d, &["broker", "invite", "alice", "--dir", "b", "--qr"]));
    assert!(said.contains("email:alice@ferry6") && said.contains('█'), "{said}");
    assert_eq!(std::fs::metadata(d.join("alice.ferry6")).unwrap().permissions().mode() & 0o777, 0o600);
    refused(&ferry6(d, &["broker", "invite", "alice", "--dir", "b"]), "alice.ferry6 exists");
    refused(&ferry6(d, &["broker", "invite", "alice", "--dir", "b", "--out", "2"]), "invited already");
    refused(&ferry6(d, &["broker", "invite", "../x", "--dir", "b"]), "no name for a user");
    refused(&ferry6(d, &["broker", "invite", "bob", "--dir", "elsewhere"]), "do that first");

    let list = done(&ferry6(d, &["broker", "list", "--dir", "b"]));
    assert!(list.contains("alice") && list.contains("valid"), "{list}");
    let again = done(&ferry6(d, &["broker", "invite", "alice", "--dir", "b", "--again", "--out", "2"]));
    assert!(again.contains("former invitation of alice was revoked"), "{again}");
    let said = done(&ferry6(d, &["broker", "revoke", "alice@ferry6", "--dir", "b"]));
    assert!(said.contains("alice is revoked") && said.contains("does not run"), "{said}");
    let json = done(&ferry6(d, &["broker", "list", "--dir", "b", "--json"]));
    let users: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(users[0]["standing"], "revoked");
    let wrong = ferry6(d, &["broker", "show", "alise", "--dir", "b"]);
    assert!(!wrong.status.success() && text(&wrong).contains("do you mean alice?"), "{}", text(&wrong));
    // Both certificates stand in the CRL.
    let crl = done(&ferry6(d, &["pki", "show", "b/ca.crl"]));
    assert_eq!(crl.matches(" on 20").count(), 2, "{crl}");

    done(&ferry6(d, &["broker", "invite", "carol", "--dir", "b", "--for", "strongswan"]));
    let conf = std::fs::read_to_string(d.join("carol/conf.d/carol.conf")).unwrap();
    assert!(conf.contains("id = carol@ferry6") && conf.contains("remote_addrs = 10.0.0.1"), "{conf}");
}

/// The password that the command told, and what is in the PKCS #12 that it opens: key and certificates as PEM, by openssl.
fn opened(said: &str, p12: &[u8]) -> String {
    let password = said.trim().rsplit(' ').next().unwrap();
    assert!(password.len() == 23 && !said.contains("PRIVATE"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p12");
    std::fs::write(&file, p12).unwrap();
    let open = |password: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["pkcs12", "-legacy", "-nodes", "-passin", &format!("pass:{password}"), "-in"]);
        openssl.arg(&file).output().expect("openssl is installed")
    };
    assert!(!open("another").status.success());
    let output = open(password);
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn profiles_for_android_hold_all_that_the_app_asks_for() {
    use base64ct::{Base64, Encoding as _};
    let dir = site();
    let d = dir.path();
    let said = done(&ferry6(d, &["broker", "invite", "alice", "--dir", "b", "--for", "android"]));
    assert_eq!(std::fs::metadata(d.join("alice.sswan")).unwrap().permissions().mode() & 0o777, 0o600);
    let profile = std::fs::read(d.join("alice.sswan")).unwrap();
    let profile: serde_json::Value = serde_json::from_slice(&profile).unwrap();
    let at = |pointer: &str| profile.pointer(pointer).and_then(|v| v.as_str()).unwrap_or("");
    assert_eq!(at("/type"), "ikev2-cert");
    assert_eq!(
        (at("/remote/addr"), at("/remote/id"), at("/local/id")),
        ("10.0.0.1", "10.0.0.1", "alice@ferry6")
    );
    assert_eq!(profile["split-tunneling"]["subnets"][0], "::/0", "IPv4 stays outside");
    let ca = Base64::decode_vec(at("/remote/cert")).unwrap();
    let pem = std::fs::read_to_string(d.join("b/ca.crt")).unwrap();
    assert!(pem.replace('\n', "").contains(&Base64::encode_string(&ca)), "the broker's CA");

    let content = opened(&said, &Base64::decode_vec(at("/local/p12")).unwrap());
    assert_eq!(content.matches("BEGIN PRIVATE KEY").count(), 1);
    assert_eq!(content.matches("BEGIN CERTIFICATE").count(), 2, "alice's and the CA's: {content}");

    // The same user's next profile takes the place of this one in the app.
    let words = ["broker", "invite", "alice", "--dir", "b", "--for", "android", "--again", "--out", "-"];
    let again: serde_json::Value = {
        let output = ferry6(d, &words);
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(again["uuid"], profile["uuid"]);
    assert_ne!(again["local"]["p12"], profile["local"]["p12"]);
    refused(&ferry6(d, &["broker", "invite", "bob", "--dir", "b", "--for", "android", "--qr"]), "--qr");
    refused(
        &ferry6(d, &["broker", "invite", "bob", "--dir", "b", "--for", "strongswan", "--out", "-"]),
        "directory",
    );
    assert!(!d.join("b/users/bob.crt").exists(), "what was refused made no user");
}

#[test]
fn profiles_for_apple_are_property_lists_that_refer_to_their_own_parts() {
    let dir = site();
    let d = dir.path();
    let said = done(&ferry6(d, &["broker", "invite", "alice", "--dir", "b", "--for", "apple"]));
    let profile = plist::Value::from_file(d.join("alice.mobileconfig")).unwrap();
    let profile = profile.as_dictionary().unwrap();
    assert_eq!(profile["PayloadType"].as_string(), Some("Configuration"));
    let parts: Vec<_> =
        profile["PayloadContent"].as_array().unwrap().iter().map(|v| v.as_dictionary().unwrap()).collect();
    let part = |kind: &str| {
        *parts
            .iter()
            .find(|p| p["PayloadType"].as_string() == Some(kind))
            .unwrap_or_else(|| panic!("no {kind}"))
    };
    let uuids: std::collections::HashSet<_> =
        parts.iter().map(|p| p["PayloadUUID"].as_string().unwrap()).collect();
    assert_eq!(uuids.len(), parts.len(), "each its own");
    let (identity, vpn) = (part("com.apple.security.pkcs12"), part("com.apple.vpn.managed"));
    let tunnel = vpn["IKEv2"].as_dictionary().unwrap();
    assert_eq!(tunnel["PayloadCertificateUUID"], identity["PayloadUUID"]);
    assert_eq!(tunnel["CertificateType"].as_string(), Some("ECDSA256"));
    assert_eq!(tunnel["RemoteAddress"].as_string(), Some("10.0.0.1"));
    assert_eq!(tunnel["LocalIdentifier"].as_string(), Some("alice@ferry6"));
    assert!(part("com.apple.security.root")["PayloadContent"].as_data().unwrap().starts_with(&[0x30, 0x82]));
    assert!(!identity.contains_key("Password"), "it goes another way");
    let content = opened(&said, identity["PayloadContent"].as_data().unwrap());
    assert_eq!(content.matches("BEGIN PRIVATE KEY").count(), 1);
    assert_eq!(content.matches("BEGIN CERTIFICATE").count(), 1, "no more than one may be in it: {content}");
}

#[test]
fn a_bad_invitation_is_refused_whole() {
    let dir = site();
    let d = dir.path();
    done(&ferry6(d, &["broker", "invite", "alice", "--dir", "b"]));
    done(&ferry6(d, &["broker", "invite", "bob", "--dir", "b"]));
    let alice = std::fs::read_to_string(d.join("alice.ferry6")).unwrap();
    let bob = std::fs::read_to_string(d.join("bob.ferry6")).unwrap();
    let key = |t: &str| t.split("key = ").nth(1).unwrap().to_owned();
    for (name, content, expected) in [
        ("empty", String::new(), "does not begin with"),
        ("cut", alice[..alice.len() / 2].to_owned(), "is no invitation"),
        ("mixed", alice.replace(&key(&alice), &key(&bob)), "does not belong"),
        ("path", alice.replace("name = \"alice\"", "name = \"../../x\""), "no name for a user"),
    ] {
        std::fs::write(d.join(name), content).unwrap();
        refused(&ferry6(d, &["client", "join", name, "--dir", "c"]), expected);
        let left: Vec<_> = std::fs::read_dir(d.join("c")).map_or_else(|_| Vec::new(), |e| e.collect());
        assert!(left.is_empty(), "{name}: {left:?}");
    }
    refused(&ferry6(d, &["client", "join", "nosuch", "--dir", "c"]), "cannot read nosuch");
    refused(&ferry6(d, &["client", "up", "--dir", "c"]), "there is no tunnel");
    done(&ferry6(d, &["client", "join", "alice.ferry6", "--dir", "c"]));
    refused(&ferry6(d, &["client", "join", "alice.ferry6", "--dir", "c"]), "there is a tunnel alice already");
    refused(&ferry6(d, &["client", "up", "bob", "--dir", "c"]), "there is no tunnel bob");
    let status = ferry6(d, &["client", "status", "--dir", "c"]);
    assert_eq!(status.status.code(), Some(1), "{}", text(&status));
    assert!(text(&status).contains("alice: down"), "{}", text(&status));
    assert!(done(&ferry6(d, &["client", "down", "--dir", "c"])).contains("down already"));
}

/// Keys that root alone may read stay as they were; all else is read anew.
#[test]
fn a_revocation_reaches_a_broker_that_is_another_user() {
    let Some(world) = World::new() else { return };
    // In a user namespace that knows only one user nobody can become another.
    let users = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    if users.split_whitespace().nth(2) != Some("4294967295") {
        eprintln!("SKIPPED: there is only one user here");
        return;
    }
    std::fs::set_permissions(world.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let configuration = world.path("b/broker.toml");
    let toml = std::fs::read_to_string(&configuration).unwrap();
    std::fs::write(&configuration, format!("user = \"65534\"\n{toml}")).unwrap();
    let _broker = world.run_broker();
    done(&world.on(&world.cable.broker, &["broker", "invite", "alice", "--dir", "b"]));
    done(&world.on(&world.cable.client, &["client", "join", "alice.ferry6", "--dir", "c"]));
    done(&world.on(&world.cable.client, &["client", "up", "--dir", "c"]));
    assert_eq!(world.carried().unwrap(), "2a00::101".parse::<Ipv6Addr>().unwrap());

    let said = done(&world.on(&world.cable.broker, &["broker", "revoke", "alice", "--dir", "b"]));
    assert!(said.contains("the tunnel of alice@ferry6 is closed"), "{said}");
    let kept = said.lines().find(|l| l.starts_with("as they were before")).unwrap();
    assert!(kept.contains("broker.key") && !kept.contains("ca.crl"), "{said}");
    assert!(said.contains("~ remote.crl ca.crl: its content changed: for new tunnels"), "{said}");
    assert!(world.carried().is_err());
    let up = world.on(&world.cable.client, &["client", "up", "--dir", "c", "--wait", "2"]);
    assert_eq!(up.status.code(), Some(1), "{}", text(&up));
    assert!(text(&up).contains("AUTHENTICATION_FAILED"), "{}", text(&up));
    done(&world.on(&world.cable.client, &["client", "down", "--dir", "c"]));
}

#[test]
fn from_nothing_to_a_tunnel_and_back() {
    let Some(world) = World::new() else { return };
    let _broker = world.run_broker();
    done(&world.on(&world.cable.broker, &["broker", "invite", "alice", "--dir", "b"]));
    done(&world.on(&world.cable.client, &["client", "join", "alice.ferry6", "--dir", "c"]));
    let up = done(&world.on(&world.cable.client, &["client", "up", "--dir", "c"]));
    assert!(up.contains("alice is up: 2a00::101, routes ::/0"), "{up}");
    assert_eq!(world.carried().unwrap(), "2a00::101".parse::<Ipv6Addr>().unwrap());
    // Once more is no fault, nor a second process.
    done(&world.on(&world.cable.client, &["client", "up", "alice", "--dir", "c"]));
    let status = done(&world.on(&world.cable.client, &["client", "status", "--dir", "c"]));
    assert!(status.contains("alice:") && status.contains("2a00::101"), "{status}");
    let list = done(&world.on(&world.cable.broker, &["broker", "list", "--dir", "b"]));
    assert!(list.contains("2a00::101") && list.contains(" up"), "{list}");

    // The key that stays on the client.
    done(&world.on(&world.cable.client, &["client", "join", "--request", "home", "--dir", "c"]));
    done(&world.on(&world.cable.broker, &["broker", "sign", "bob", "home.csr", "--dir", "b"]));
    let signed = std::fs::read_to_string(world.path("bob.ferry6")).unwrap();
    assert!(!signed.contains("PRIVATE KEY"), "{signed}");
    refused(&world.on(&world.cable.client, &["client", "join", "bob.ferry6", "--dir", "c"]), "holds no key");
    done(&world.on(&world.cable.client, &["client", "join", "bob.ferry6", "--dir", "c", "--name", "home"]));
    refused(&world.on(&world.cable.client, &["client", "up", "--dir", "c"]), "which tunnel?");

    let down = done(&world.on(&world.cable.client, &["client", "down", "alice", "--dir", "c"]));
    assert!(down.contains("alice is down"), "{down}");
    assert!(world.carried().is_err());
    done(&world.on(&world.cable.client, &["client", "up", "home", "--dir", "c"]));
    assert_eq!(world.carried().unwrap(), "2a00::102".parse::<Ipv6Addr>().unwrap());

    // Revoked: the tunnel goes at once, and does not come again.
    let said = done(&world.on(&world.cable.broker, &["broker", "revoke", "bob", "--dir", "b"]));
    assert!(said.contains("the tunnel of bob@ferry6 is closed"), "{said}");
    assert!(world.carried().is_err());
    let up = world.on(&world.cable.client, &["client", "up", "home", "--dir", "c", "--wait", "2"]);
    assert_eq!(up.status.code(), Some(1), "{}", text(&up));
    assert!(text(&up).contains("AUTHENTICATION_FAILED"), "{}", text(&up));
    done(&world.on(&world.cable.client, &["client", "down", "home", "--dir", "c"]));
    // Who was not revoked is not touched by it.
    done(&world.on(&world.cable.client, &["client", "up", "alice", "--dir", "c"]));
    assert_eq!(world.carried().unwrap(), "2a00::101".parse::<Ipv6Addr>().unwrap());
    done(&world.on(&world.cable.client, &["client", "down", "alice", "--dir", "c"]));
}
