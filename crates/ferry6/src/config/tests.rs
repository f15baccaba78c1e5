//! Whole files: the documented examples, and the text of each fault.

use super::*;
use crate::config::values::Host;
use ferry6_crypto::Group;
use ferry6_ike::Identity;
use ferry6_ike::config::{
    AddressConfig, Credential, IpcompPolicy, NatPolicy, PeerAuth, PerResource, PrefixWish, RemoteId,
    Revocation, RoutabilityCheck,
};
use ferry6_tun_router::size::SizePolicy;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tempfile::TempDir;

const EXAMPLES: [(&str, &str); 4] = [
    ("client.toml", include_str!("../../../../docs/examples/client.toml")),
    ("client-full.toml", include_str!("../../../../docs/examples/client-full.toml")),
    ("broker.toml", include_str!("../../../../docs/examples/broker.toml")),
    ("broker-full.toml", include_str!("../../../../docs/examples/broker-full.toml")),
];

fn secret(dir: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A directory with the files that the examples name.
pub(crate) fn files() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Test CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = params.self_signed(&ca_key).unwrap();
    fs::write(at.join("ca.crt"), ca.pem()).unwrap();
    let issuer = Issuer::new(params, ca_key);
    for (name, san) in [
        ("client", SanType::Rfc822Name("client@my.domain".try_into().unwrap())),
        ("broker", SanType::DnsName("tunnel.my.domain".try_into().unwrap())),
        ("expired", SanType::DnsName("tunnel.my.domain".try_into().unwrap())),
        ("early", SanType::DnsName("tunnel.my.domain".try_into().unwrap())),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![san];
        match name {
            "expired" => params.not_after = date_time_ymd(2020, 1, 1),
            "early" => params.not_before = date_time_ymd(4000, 1, 1),
            _ => {}
        }
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(at.join(format!("{name}.crt")), certificate.pem()).unwrap();
        secret(at, &format!("{name}.key"), key.serialize_pem());
        if name == "client" {
            let info = pkcs8::PrivateKeyInfoRef::try_from(key.serialized_der()).unwrap();
            let encrypted = info
                .encrypt_with_params(
                    pkcs8::pkcs5::pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(
                        1000,
                        b"salt8888",
                        [7; 16],
                    )
                    .unwrap(),
                    "passphrase of the client",
                )
                .unwrap();
            let pem = encrypted.to_pem("ENCRYPTED PRIVATE KEY", pkcs8::LineEnding::LF).unwrap();
            secret(at, "client-encrypted.key", pem.as_bytes());
            secret(at, "client.passphrase", "passphrase of the client\n");
        }
    }
    let crl = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 1, 1),
        next_update: date_time_ymd(4000, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    fs::write(at.join("ca.crl"), crl.signed_by(&issuer).unwrap().pem().unwrap()).unwrap();
    secret(at, "appliance.psk", "0s3q2+7wABAgMEBQYHCAk=\n");
    for (name, text) in EXAMPLES {
        fs::write(at.join(name), text).unwrap();
    }
    dir
}

/// The error of a file with this text, its directory taken out.
fn error(dir: &TempDir, role: &str, text: &str) -> String {
    let path = dir.path().join("test.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let result = if role == "client" { client(&path).map(|_| ()) } else { broker(&path).map(|_| ()) };
    let mut prefix = dir.path().display().to_string();
    prefix.push('/');
    result.expect_err("must be refused").to_string().replace(&prefix, "")
}

fn client_with(rest: &str) -> String {
    format!(
        "[broker]\naddress = \"tunnel.my.domain\"\n[local]\ncert = \"client.crt\"\nkey = \"client.key\"\n[remote]\nca = \"ca.crt\"\n{rest}"
    )
}

#[test]
fn minimal_client() {
    let dir = files();
    let c = client(&dir.path().join("client.toml")).unwrap();
    assert_eq!(c.broker, Host::Name("tunnel.my.domain".into()));
    assert_eq!(c.connection.local_id, Identity::Rfc822("client@my.domain".into()));
    assert_eq!(c.connection.remote_id, RemoteId::Exactly(Identity::Fqdn("tunnel.my.domain".into())));
    assert_eq!(c.connection.addresses, AddressConfig::REQUEST);
    assert_eq!(c.connection.ipcomp, IpcompPolicy::Accept);
    assert!(matches!(&c.connection.credential, Credential::Certificate { chain, .. } if chain.len() == 1));
    assert!(
        matches!(&c.connection.peer_auth, PeerAuth::Certificate { anchors, revocation: Revocation::IfUri, .. } if anchors.len() == 1)
    );
    assert_eq!((c.listen.port, c.listen.nat_port), (500, 4500));
    assert_eq!((c.tunnel.sizes, c.tunnel.device_mtu()), (SizePolicy::default(), 1438));
    assert_eq!(c.control, Path::new("/run/ferry6/client.sock"));
    assert!(c.routes.default_route && c.routes.explicit.is_none());
    assert_eq!(c.warnings, [""; 0]);
}

#[test]
fn every_key_of_a_client() {
    let dir = files();
    let full = client(&dir.path().join("client-full.toml")).unwrap();
    let minimal = client(&dir.path().join("client.toml")).unwrap();
    // The file claims to show the defaults.
    assert_eq!(full.connection.child_rekey, minimal.connection.child_rekey);
    assert_eq!(full.connection.ike_rekey, minimal.connection.ike_rekey);
    assert_eq!(full.connection.dpd, minimal.connection.dpd);
    assert_eq!(full.connection.fragment_size, minimal.connection.fragment_size);
    assert_eq!(full.retransmit, minimal.retransmit);
    assert_eq!(full.connection.per_resource, minimal.connection.per_resource);
    let per_cpu = |rest: &str| {
        let path = dir.path().join("per-cpu.toml");
        fs::write(&path, client_with(rest)).unwrap();
        client(&path).unwrap().connection.per_resource
    };
    let more = per_cpu("[child]\nper_cpu_sas = 6\n[tunnel]\nworkers = 4\n");
    assert_eq!(more, PerResource { wanted: 6, limit: 12 });
    assert_eq!(per_cpu("[child]\nper_cpu_sas = \"off\"\n"), PerResource::default());
    assert_eq!(full.tunnel.device, minimal.tunnel.device);
    assert_eq!((full.tunnel.kind, full.tunnel.offload), (minimal.tunnel.kind, minimal.tunnel.offload));
    assert_eq!(full.tunnel.sizes, minimal.tunnel.sizes);
    assert_eq!(full.tunnel.keepalive, minimal.tunnel.keepalive);
    assert_eq!(full.tunnel.replay_window, minimal.tunnel.replay_window);
    assert_eq!(full.tunnel.crypto.name, minimal.tunnel.crypto.name);
    assert_eq!(full.tunnel.metric, minimal.tunnel.metric);
    assert_eq!(full.leak_guard, minimal.leak_guard);
    let mobility = |c: &Client| (c.connection.nat, c.connection.routability, c.connection.reauth);
    assert_eq!(mobility(&full), mobility(&minimal));
    assert_eq!(full.connection.ike.len(), 3);
    assert_eq!(full.connection.ike[1].groups, [Group::Ecp256]);
}

#[test]
fn keys_of_router_mode() {
    let dir = files();
    let path = dir.path().join("test.toml");
    let read = |tunnel: &str| {
        fs::write(&path, client_with(&format!("[tunnel]\n{tunnel}\n"))).unwrap();
        client(&path)
    };
    let wish = |tunnel: &str| match read(tunnel).unwrap().connection.addresses {
        AddressConfig::Request { prefix, .. } => prefix,
        other => panic!("{other:?}"),
    };
    assert_eq!(wish(""), PrefixWish::None);
    assert_eq!(wish("lan = \"eth1\""), PrefixWish::Any);
    let named = "prefix = \"2a00:0:0:1f00::/56\"\nlan = [\"eth1\", \"wlan0\"]";
    assert_eq!(wish(named), PrefixWish::This("2a00:0:0:1f00::/56".parse().unwrap()));
    let c = read(named).unwrap();
    assert_eq!(c.lan, ["eth1", "wlan0"]);
    let summary = summary::client(&path, &c);
    assert!(summary.contains("lan      eth1, wlan0\n"), "{summary}");
    for (wrong, words) in [
        ("lan = \"eth1/2\"", "tunnel.lan: expected the name of an interface"),
        ("lan = \"a-name-of-sixteen\"", "tunnel.lan: expected the name of an interface"),
        ("lan = [\"eth1\", \"eth1\"]", "tunnel.lan: eth1 is there twice"),
        ("device = \"tun6\"\nlan = \"tun6\"", "tunnel.lan: tun6 is the tunnel itself"),
        ("prefix = \"none\"\nlan = \"eth1\"", "`tunnel.prefix = \"none\"` asks for none"),
        ("prefix = \"2a00::1/56\"", "tunnel.prefix: "),
        ("address = \"none\"\nprefix = \"any\"", "a prefix is asked for together with an address"),
    ] {
        let fault = read(wrong).err().expect("a fault").to_string();
        assert!(fault.contains(words), "{words}: {fault}");
    }
}

#[test]
fn keys_of_mobility() {
    let dir = files();
    let path = dir.path().join("test.toml");
    let text = client_with(
        "[ike]\nnat = \"forbid\"\nreturn_routability = \"before\"\nreauth = \"24h\"\n[tunnel]\nleak_guard = true\n",
    );
    fs::write(&path, text).unwrap();
    let c = client(&path).unwrap();
    assert_eq!(
        (c.connection.nat, c.connection.routability, c.connection.reauth),
        (NatPolicy::Forbid, RoutabilityCheck::Before, Duration::from_secs(24 * 3600))
    );
    assert!(c.leak_guard);
    for (wrong, key) in [
        ("[ike]\nnat = \"no\"\n", "ike.nat: expected one of auto, forbid"),
        ("[ike]\nreturn_routability = true\n", "ike.return_routability"),
        ("[ike]\nreauth = \"10ms\"\n", "ike.reauth: expected at least 1s"),
        ("[tunnel]\nleak_guard = \"on\"\n", "tunnel.leak_guard"),
        ("[listen]\nadditional_addresses = [\"5.6.7.9\"]\n", "listen.additional_addresses: unknown key"),
    ] {
        fs::write(&path, client_with(wrong)).unwrap();
        let fault = client(&path).err().expect("a fault").to_string();
        assert!(fault.contains(key), "{key}: {fault}");
    }
    let text = fs::read_to_string(dir.path().join("broker.toml")).unwrap();
    let more = "[listen]\nadditional_addresses = [\"5.6.7.9\", \"5.6.7.10\"]\n";
    fs::write(&path, format!("{text}\n{more}")).unwrap();
    let b = broker(&path).unwrap();
    assert_eq!(b.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["5.6.7.9", "5.6.7.10"]);
}

#[test]
fn minimal_broker() {
    let dir = files();
    let b = broker(&dir.path().join("broker.toml")).unwrap();
    assert_eq!(b.connections.len(), 1);
    assert_eq!(b.connections[0].local_id, Identity::Fqdn("tunnel.my.domain".into()));
    assert_eq!(b.connections[0].remote_id, RemoteId::Any);
    assert_eq!(b.connections[0].addresses, AddressConfig::Assign);
    let pool = &b.pools[&b.connections[0].name];
    assert_eq!(pool.routes().iter().map(ToString::to_string).collect::<Vec<_>>(), ["2a00::100/120"]);
}

#[test]
fn several_connections_inherit() {
    let dir = files();
    let b = broker(&dir.path().join("broker-full.toml")).unwrap();
    let [staff, appliance] = &b.connections[..] else { panic!("two connections") };
    assert_eq!(staff.name, "staff");
    assert_eq!(staff.remote_id, RemoteId::Pattern("*@my.domain".into()));
    assert!(matches!(staff.credential, Credential::Certificate { .. }));
    assert_eq!(b.pools["staff"].dns.len(), 1);
    assert!(matches!(&appliance.credential, Credential::Psk(s) if s.len() == 14));
    assert!(matches!(&appliance.peer_auth, PeerAuth::Psk(_)));
    assert_eq!(appliance.esp[0].groups, [Group::Modp2048]);
    assert_eq!(b.pools["appliance"].ranges.len(), 2);
}

/// Wherever docs/configuration.md names a key, in a table, beside a line of iked.conf or in the text, it is one that is read.
#[test]
fn documentation_names_no_key_that_is_not_read() {
    let docs = include_str!("../../../../docs/configuration.md");
    for code in docs.split('`').skip(1).step_by(2) {
        let key = code.split([' ', '=']).next().unwrap();
        let section = key.split('.').next().unwrap();
        if key.contains('.')
            && ["broker", "listen", "local", "remote", "ike", "child", "pool", "tunnel"].contains(&section)
        {
            let file = [".toml", ".conf", ".sock", ".crt", ".key"]
                .iter()
                .any(|e| key.ends_with(e) && key != "local.key");
            assert!(
                file || key == "tunnel.my.domain" || reference::find(key).is_some(),
                "configuration.md tells of {key}, which is not read"
            );
        }
    }
}

#[test]
fn faults_name_file_line_key_and_remedy() {
    let dir = files();
    for (role, text, wanted) in [
        (
            "client",
            client_with("[ike]\npropsals = [\"default\"]\n"),
            "test.toml:9:1: ike.propsals: unknown key; did you mean `proposals`?\n    9 | propsals = [\"default\"]\n      | ^^^^^^^^",
        ),
        (
            "client",
            client_with("[ike]\nmtu = 1400\n"),
            "test.toml:9:1: ike.mtu: unknown key here; did you mean `tunnel.mtu`?\n    9 | mtu = 1400\n      | ^^^",
        ),
        (
            "client",
            client_with("[tunel]\nmtu = 1400\n"),
            "test.toml:8:2: tunel: unknown key; did you mean `tunnel`?\n    8 | [tunel]\n      |  ^^^^^",
        ),
        (
            "client",
            client_with("[tunnel]\nmtu = \"big\"\n"),
            "test.toml:9:7: tunnel.mtu: expected \"auto\" or a number from 1280 to 65535, found \"big\"\n    9 | mtu = \"big\"\n      |       ^^^^^",
        ),
        (
            "client",
            client_with("[tunnel]\nmtu = 1000\n"),
            "test.toml:9:7: tunnel.mtu: expected \"auto\" or a number from 1280 to 65535, found the integer 1000\n    9 | mtu = 1000\n      |       ^^^^",
        ),
        (
            "client",
            client_with("[child]\nipcomp = \"yes\"\n"),
            "test.toml:9:10: child.ipcomp: expected one of off, accept, on, found \"yes\"\n    9 | ipcomp = \"yes\"\n      |          ^^^^^",
        ),
        (
            "client",
            client_with("[child]\nper_cpu_sas = 40\n"),
            "test.toml:9:15: child.per_cpu_sas: expected \"auto\", \"off\" or a number from 2 to 16, found \"40\"\n    9 | per_cpu_sas = 40\n      |               ^^",
        ),
        (
            "client",
            client_with(
                "[ike]\nproposals = [\"aes256gcm16-prfsha256-x25519\", \"aes256gcm61-prfsha256-x25519\"]\n",
            ),
            "test.toml:9:46: ike.proposals: unknown algorithm \"aes256gcm61\"; did you mean \"aes256gcm16\"?\n    9 | proposals = [\"aes256gcm16-prfsha256-x25519\", \"aes256gcm61-prfsha256-x25519\"]\n      |                                              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        ),
        (
            "client",
            "[broker]\naddress = \"2a00::2\"\n".to_owned(),
            "test.toml:1:1: local.cert: missing (there is no [local] section): the file with our certificate (or psk_file, for a pre-shared key)",
        ),
        (
            "broker",
            "[local]\ncert = \"broker.crt\"\nkey = \"broker.key\"\n[remote]\nca = \"ca.crt\"\n".to_owned(),
            "test.toml:1:1: pool.range: missing: the IPv6 addresses to lease, for example range = \"2a00::100/120\" in [pool]",
        ),
        ("client", "[broker\naddress = 1".to_owned(), "test.toml:1:8: "),
    ] {
        let got = error(&dir, role, &text);
        assert!(got.starts_with(wanted), "wanted: {wanted}\n   got: {got}");
    }
}

#[test]
fn all_faults_of_a_file_at_once() {
    let dir = files();
    let got = error(
        &dir,
        "client",
        "[broker]\naddress = 5\n[local]\ncert = \"missing.pem\"\nkey = \"client.key\"\n[remote]\nca = \"ca.crt\"\n[tunnel]\nworker = 2\nmetric = 0\n",
    );
    let heads: Vec<&str> = got.lines().filter(|l| l.contains("test.toml:")).collect();
    assert_eq!(
        heads,
        [
            "test.toml:2:11: broker.address: expected a host name or an IPv4 address, found the integer 5",
            "error: test.toml:4:8: local.cert: cannot read missing.pem: No such file or directory (os error 2)",
            "error: test.toml:9:1: tunnel.worker: unknown key; did you mean `workers`?",
            "error: test.toml:10:10: tunnel.metric: expected a number from 1 to 4294967295, found the integer 0",
        ]
    );
}

#[test]
fn keys_and_certificates() {
    let dir = files();
    let at = dir.path();
    let local = |cert: &str, key: &str, rest: &str| {
        format!(
            "[local]\ncert = \"{cert}\"\nkey = \"{key}\"\n{rest}\n[remote]\nca = \"ca.crt\"\n[pool]\nrange = \"2a00::100/120\"\n"
        )
    };
    fs::write(at.join("open.key"), fs::read(at.join("broker.key")).unwrap()).unwrap();
    fs::set_permissions(at.join("open.key"), fs::Permissions::from_mode(0o640)).unwrap();
    secret(at, "garbage.key", "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n");
    secret(at, "wrong.passphrase", "no\n");
    fs::write(at.join("both.p12"), [0x30, 0x82, 0x01, 0x00, 0x02, 0x01, 0x03, 0x30]).unwrap();
    for (text, wanted) in [
        (local("broker.crt", "client.key", ""), "local.cert: broker.crt: the private key does not belong to the certificate of \"CN=broker\""),
        (local("broker.crt", "open.key", ""), "local.key: open.key may be read by others than its owner (mode 0640); do: chmod 600 open.key"),
        (local("broker.crt", "absent.key", ""), "local.key: cannot read absent.key: No such file or directory"),
        (local("broker.crt", "garbage.key", ""), "local.key: garbage.key"),
        (local("broker.crt", "ca.crt", ""), "local.key: ca.crt may be read by others"),
        (local("client.key", "client.key", ""), "local.cert: client.key holds no certificate (no BEGIN CERTIFICATE)"),
        (local("both.p12", "broker.key", ""), "local.cert: both.p12 is PKCS#12, which is not supported; do: openssl pkcs12"),
        (local("expired.crt", "expired.key", ""), "the certificate of \"CN=expired\" expired on"),
        (local("early.crt", "early.key", ""), "is this machine's clock right?"),
        (local("broker.crt", "broker.key", "id = \"other.my.domain\""), "local.id: broker.crt: identity other.my.domain does not stand in the certificate of "),
        (local("client.crt", "client-encrypted.key", ""), "client-encrypted.key is encrypted; name a file with its passphrase: key_passphrase_file"),
        (local("client.crt", "client-encrypted.key", "key_passphrase_file = \"wrong.passphrase\""), "client-encrypted.key: wrong passphrase"),
        (local("broker.crt", "broker.key", "psk = \"0123456789abcdef\""), "either a certificate or a pre-shared key, not both"),
        ("[local]\nid = \"tunnel.my.domain\"\npsk = \"0123456789abcdef\"\n[pool]\nrange = \"2a00::100/120\"\n".to_owned(), "local.psk: the configuration holds a secret, and test.toml may be read by others than its owner (mode 0644); do: chmod 600 test.toml"),
        ("[local]\nid = \"tunnel.my.domain\"\npsk = \"short\"\n[pool]\nrange = \"2a00::100/120\"\n".to_owned(), "local.psk: a pre-shared key of 5 octets is guessed in no time"),
    ] {
        let got = error(&dir, "broker", &text);
        assert!(got.contains(wanted), "wanted: {wanted}\n   got: {got}");
        assert!(!got.contains("0123456789abcdef") && !got.contains("short\""), "a secret is shown: {got}");
    }
}

#[test]
fn pools() {
    let dir = files();
    let with = |pool: &str| {
        format!(
            "[local]\ncert = \"broker.crt\"\nkey = \"broker.key\"\n[remote]\nca = \"ca.crt\"\n[pool]\n{pool}\n"
        )
    };
    for (pool, wanted) in [
        ("range = \"2a00::101/120\"", "did you mean \"2a00::100/120\"?"),
        ("range = \"10.0.0.0/24\"", "expected an IPv6 prefix"),
        ("range = \"ff02::/64\"", "not a range of unicast addresses"),
        ("range = [\"2a00::/64\", \"2a00::100/120\"]", "overlaps with 2a00::/64"),
        (
            "range = \"2a00::100/120\"\nfixed = { \"a@b.c\" = \"2a00::100\" }",
            "subnet-router anycast address of 2a00::100/120",
        ),
        (
            "range = \"2a00::100/120\"\nfixed = { \"a@b.c\" = \"2a00::101\", \"d@e.f\" = \"2a00::101\" }",
            "already",
        ),
        ("range = \"2a00::100/120\"\nfixed = { \"a@b.c\" = \"x\" }", "expected an IPv6 address"),
        ("dns = [\"2a00::2\"]", "pool.range: missing"),
        ("range = \"2a00::100/120\"\nprefixes = \"2a00::/64\"", "overlaps with the addresses of pool.range"),
        ("range = \"2a00::100/120\"\nprefixes = \"fe80::/16\"", "no prefix of unicast addresses"),
        (
            "range = \"2a00::100/120\"\nprefixes = \"2a00:1::/64\"\nprefix_length = 56",
            "which does not fit into 2a00:1::/64",
        ),
        (
            "range = \"2a00::100/120\"\nprefixes = [\"2a00:1::/48\", \"2a00:1::/56\"]",
            "overlaps with 2a00:1::/48",
        ),
        (
            "range = \"2a00::100/120\"\nfixed_prefixes = { \"a@b.c\" = \"2a00:1::/56\", \"d@e.f\" = \"2a00:1::/64\" }",
            "2a00:1::/56",
        ),
        (
            "range = \"2a00::100/120\"\nfixed_prefixes = { \"a@b.c\" = \"2a00::/64\" }",
            "pool.range, 2a00::100/120",
        ),
        (
            "range = \"2a00::100/120\"\nprefixes = \"2a00:1::/52\"\nfixed = { \"a@b.c\" = \"2a00:1::5\" }",
            "2a00:1::5 of a@b.c lies in 2a00:1::/52, which is for the prefixes of others; take another, or fix a prefix for a@b.c that it lies in",
        ),
        (
            "range = \"2a00::100/120\"\nfixed = { \"a@b.c\" = \"2a00:1::5\" }\nfixed_prefixes = { \"d@e.f\" = \"2a00:1::/64\" }",
            "2a00:1::5 of a@b.c lies in 2a00:1::/64, which is d@e.f's",
        ),
    ] {
        let got = error(&dir, "broker", &with(pool));
        assert!(got.contains(wanted), "wanted: {wanted}\n   got: {got}");
    }
    // One's own address may be in one's own prefix. A prefix by name that is larger than those of the pool is routed whole.
    let own = "range = \"2a00::100/120\"\nprefixes = [\"2a00:1::/52\", \"2a00:2::/52\"]\nfixed = { \"a@b.c\" = \"2a00:1::5\" }\n\
               fixed_prefixes = { \"a@b.c\" = \"2a00:1::/64\", \"d@e.f\" = \"2a00:2::/48\" }";
    fs::write(dir.path().join("own.toml"), with(own)).unwrap();
    let routes = broker(&dir.path().join("own.toml")).unwrap().pools["clients"].routes();
    assert!(routes.contains(&"2a00:2::/48".parse().unwrap()), "{routes:?}");
    assert!(!routes.contains(&"2a00:1::/64".parse().unwrap()), "{routes:?}");
    // Two connections may share an address of one identity, but never give one address to two.
    let connection = |name: &str, range: &str, id: &str| {
        format!(
            "[[connection]]\nname = \"{name}\"\n[connection.pool]\nrange = \"{range}\"\nfixed = {{ \"{id}\" = \"2a00::999\" }}\n"
        )
    };
    let two = |second: &str| {
        let text = with("range = \"2a00::100/120\"");
        format!(
            "{text}{}{}",
            connection("one", "2a00::200/120", "a@b.c"),
            connection("two", "2a00::300/120", second)
        )
    };
    let got = error(&dir, "broker", &two("d@e.f"));
    assert!(
        got.contains("2a00::999 is fixed for a@b.c in the pool of \"one\" and for d@e.f in that of \"two\""),
        "{got}"
    );
    fs::write(dir.path().join("one.toml"), two("a@b.c")).unwrap();
    assert_eq!(broker(&dir.path().join("one.toml")).unwrap().pools.len(), 2);
    // One identity's prefixes in two pools are the same or apart.
    let nested = |second: &str| {
        let text = with("range = \"2a00::100/120\"");
        let of = |name: &str, range: &str, prefix: &str| {
            format!(
                "[[connection]]\nname = \"{name}\"\n[connection.pool]\nrange = \"{range}\"\n\
                 fixed_prefixes = {{ \"a@b.c\" = \"{prefix}\" }}\n"
            )
        };
        format!("{text}{}{}", of("one", "2a00::200/120", "2a00:1::/57"), of("two", "2a00::300/120", second))
    };
    let got = error(&dir, "broker", &nested("2a00:1::/64"));
    assert!(got.contains("2a00:1::/64 overlaps with 2a00:1::/57, which is a@b.c's already"), "{got}");
    for good in ["2a00:1::/57", "2a00:2::/64"] {
        fs::write(dir.path().join("one.toml"), nested(good)).unwrap();
        broker(&dir.path().join("one.toml")).unwrap();
    }
}

#[test]
fn what_is_set_for_single_users_is_nothing_of_others() {
    let dir = files();
    let file = dir.path().join("broker.toml");
    let pool = "[pool]\nrange = \"2a00::100/120\"\nprefixes = \"2a00:1::/52\"\n";
    let text =
        format!("[local]\ncert = \"broker.crt\"\nkey = \"broker.key\"\n[remote]\nca = \"ca.crt\"\n{pool}");
    fs::write(&file, text).unwrap();
    let user = |id: &str, what: &str| format!("[[user]]\nid = \"{id}\"\n{what}\n");
    let alice = user("a@b.c", "prefix = \"2a00:9::/56\"");
    for (users, wanted) in [
        (
            user("d@e.f", "address = \"2a00:1::5\""),
            "2a00:1::5 of d@e.f lies in 2a00:1::/52, which is for the prefixes of others",
        ),
        (
            format!("{alice}{}", user("d@e.f", "address = \"2a00:9::5\"")),
            "2a00:9::5 of d@e.f lies in 2a00:9::/56, which is a@b.c's",
        ),
        (
            format!("{alice}{}", user("d@e.f", "prefix = \"2a00:9:0:7::/64\"")),
            "d@e.f: 2a00:9:0:7::/64 overlaps with 2a00:9::/56, which is a@b.c's already",
        ),
        (
            format!(
                "{}{}",
                user("a@b.c", "address = \"2a00::150\""),
                user("d@e.f", "address = \"2a00::150\"")
            ),
            "d@e.f: 2a00::150 is a@b.c's already",
        ),
        (user("d@e.f", "address = \"2a00::100\""), "subnet-router anycast address"),
        (user("d@e.f", "prefix = \"2a00::/64\""), "overlaps with the addresses of the pool"),
    ] {
        fs::write(dir.path().join("users.toml"), users).unwrap();
        let got = broker(&file).map(drop).unwrap_err().to_string();
        assert!(got.contains("users.toml") && got.contains(wanted), "wanted: {wanted}\n   got: {got}");
    }
    let own = user("d@e.f", "address = \"2a00:1::5\"\nprefix = \"2a00:1::/64\"");
    fs::write(dir.path().join("users.toml"), format!("{alice}{own}")).unwrap();
    broker(&file).unwrap();
}

#[test]
fn text_of_any_kind_is_refused_without_panic() {
    let dir = files();
    for text in [
        "\u{0}",
        "[[[[",
        "a = {",
        "ä = \"ö",
        "[connection]\n",
        "connection = [1]",
        "local = 3",
        "[local]\ncert = []\n",
        "[pool]\nfixed = 1",
    ] {
        for role in ["client", "broker"] {
            assert!(error(&dir, role, text).starts_with("test.toml:"), "{text:?}");
        }
    }
    fs::write(dir.path().join("binary.toml"), [b'a', b'\n', 0xff]).unwrap();
    let got = client(&dir.path().join("binary.toml")).err().unwrap().to_string();
    assert!(got.ends_with("binary.toml:2: not UTF-8 text"), "{got}");
    // A device has no length, and no end.
    let got = client(Path::new("/dev/zero")).err().unwrap().to_string();
    assert_eq!(got, "/dev/zero: larger than 1048576 octets, so hardly a configuration");
    let got = client(&dir.path().join("absent.toml")).err().unwrap().to_string();
    assert!(got.contains("absent.toml: cannot read: No such file"), "{got}");
}
