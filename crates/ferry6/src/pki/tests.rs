use super::*;
use clap::Parser;
use std::path::Path;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// Runs `pki …` in a directory: each `@name` is a file there.
fn pki(directory: &Path, line: &str) -> Result<(), String> {
    let words = line.split_whitespace().map(|w| match w.strip_prefix('@') {
        Some(file) => directory.join(file).into_os_string().into_string().unwrap(),
        None => w.to_owned(),
    });
    let line =
        Line::try_parse_from(std::iter::once("pki".to_owned()).chain(words)).map_err(|e| e.to_string())?;
    run(line.args).map(drop).map_err(|e| format!("{e:#}"))
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn each_kind_of_key_is_issued_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let kinds = [
        ("rsa2048", "RSA, 2048 bits", "RSA with SHA-256"),
        ("rsa3072", "RSA, 3072 bits", "RSA with SHA-256"),
        ("ecdsa256", "ECDSA on P-256", "ECDSA with SHA-256"),
        ("ecdsa384", "ECDSA on P-384", "ECDSA with SHA-384"),
        ("ed25519", "Ed25519", "Ed25519"),
    ];
    for (kind, key, signature) in kinds {
        pki(directory.path(), &format!("ca --cn CA-{kind} --out @ca-{kind} --type {kind}")).unwrap();
        pki(
            directory.path(),
            &format!("issue --ca @ca-{kind} --san email:a@b.example --type {kind} --out @leaf-{kind}"),
        )
        .unwrap();
        let shown = show::file(&at(&format!("leaf-{kind}.crt"))).unwrap();
        assert!(shown.contains(&format!("Key          {key}\n")), "{shown}");
        assert!(shown.contains(&format!("Signed       {signature}\n")), "{shown}");
        assert!(shown.contains("Names        email:a@b.example\n"), "{shown}");
        assert!(shown.contains("For          serverAuth, clientAuth, ipsecIKE\n"), "{shown}");
        assert!(shown.contains("Usage        Digital Signature (critical)\n"), "{shown}");
        assert!(shown.contains("(824 days left)"), "{shown}");
        let shown_key = show::file(&at(&format!("leaf-{kind}.key"))).unwrap();
        assert!(shown_key.contains("(PKCS#8, not encrypted)"), "{shown_key}");
        assert!(shown_key.contains("0600, its owner's alone"), "{shown_key}");
        let fingerprint = |text: &str| text.lines().find(|l| l.contains("Key SHA-256")).unwrap().to_owned();
        assert_eq!(fingerprint(&shown), fingerprint(&shown_key), "the key is the certificate's");
        assert_eq!(mode(&at(&format!("leaf-{kind}.crt"))), 0o644);
    }
}

#[test]
fn a_chain_verifies() {
    let root = Authority::root(&Profile::new("root").unwrap().key_type(KeyType::Ecdsa384)).unwrap();
    let middle = root.intermediate(&Profile::new("middle").unwrap()).unwrap();
    let below = middle.intermediate(&Profile::new("below").unwrap()).unwrap();
    let leaf = below.issue(&Profile::for_name("dns:tunnel.my.domain").unwrap()).unwrap();
    assert_eq!(
        leaf.chain,
        [below.certificate().clone(), middle.certificate().clone()],
        "leaf first, no root"
    );
    let anchors = [webpki::anchor_from_trusted_cert(root.certificate()).unwrap()];
    let end = webpki::EndEntityCert::try_from(&leaf.certificate).unwrap();
    let crypto = ferry6_crypto::providers()[0];
    let now = rustls_pki_types::UnixTime::now();
    let usage = webpki::KeyUsage::server_auth();
    let algorithms = crypto.signatures.certificate_algorithms();
    end.verify_for_usage(algorithms, &anchors, &leaf.chain, now, usage, None, None).unwrap();
    let missing = end.verify_for_usage(
        algorithms,
        &anchors,
        &leaf.chain[..1],
        now,
        webpki::KeyUsage::server_auth(),
        None,
        None,
    );
    assert!(missing.is_err());
}

#[test]
fn authority_and_subject_key_identifiers_agree() {
    let ca = Authority::root(&Profile::new("root").unwrap()).unwrap();
    let leaf = ca.issue(&Profile::for_name("ip:192.0.2.1").unwrap()).unwrap();
    let identifier = |der: &[u8], issuer: bool| {
        let (_, certificate) = X509Certificate::from_der(der).unwrap();
        certificate.extensions().iter().find_map(|e| match e.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) if !issuer => {
                Some(id.0.to_vec())
            }
            x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) if issuer => {
                id.key_identifier.as_ref().map(|id| id.0.to_vec())
            }
            _ => None,
        })
    };
    let of_ca = identifier(ca.certificate(), false);
    assert!(of_ca.is_some());
    assert_eq!(identifier(&leaf.certificate, true), of_ca);
    assert_ne!(identifier(&leaf.certificate, false), of_ca);
    let now = OffsetDateTime::now_utc();
    let crl = ca.crl(&[], now, now + time::Duration::DAY).unwrap();
    let (_, crl) = x509_parser::pem::parse_x509_pem(crl.as_bytes()).unwrap();
    let (_, crl) = CertificateRevocationList::from_der(&crl.contents).unwrap();
    let of_crl = crl.extensions().iter().find_map(|e| match e.parsed_extension() {
        x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
            id.key_identifier.as_ref().map(|i| i.0.to_vec())
        }
        _ => None,
    });
    assert_eq!(of_crl, of_ca, "strongSwan ignores a CRL without");
}

#[test]
fn nothing_is_overwritten_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let run = |line: &str| pki(directory.path(), line);
    run("ca --cn CA --out @ca").unwrap();
    run("issue --ca @ca --san dns:a.example --out @leaf").unwrap();
    let before = std::fs::read(directory.path().join("leaf.key")).unwrap();
    let error = run("issue --ca @ca --san dns:a.example --out @leaf").unwrap_err();
    assert!(
        error.ends_with("leaf.crt exists: choose another --out, or overwrite it with --force"),
        "{error}"
    );
    assert!(run("ca --cn CA --out @ca").unwrap_err().contains("ca.crt exists"));
    assert_eq!(std::fs::read(directory.path().join("leaf.key")).unwrap(), before);
    run("issue --ca @ca --san dns:a.example --out @leaf --force").unwrap();
    assert_ne!(std::fs::read(directory.path().join("leaf.key")).unwrap(), before);
    // Not even --force lets a certificate replace the CA that issues it.
    let error = run("issue --ca @ca --san dns:a.example --out @ca --force").unwrap_err();
    assert!(error.contains("belongs to a CA"), "{error}");
}

#[test]
fn revocation() {
    let directory = tempfile::tempdir().unwrap();
    let run = |line: &str| pki(directory.path(), line);
    run("ca --cn CA --out @ca").unwrap();
    run("ca --cn Other --out @other").unwrap();
    for name in ["one", "two"] {
        run(&format!("issue --ca @ca --san dns:{name}.example --out @{name}")).unwrap();
    }
    let shown = |name: &str| show::file(&directory.path().join(name)).unwrap();
    assert!(shown("ca.crl").contains("Revoked      none\n"));
    let serial_line = shown("two.crt").lines().find(|l| l.contains("Serial")).unwrap().to_owned();
    let serial = serial_line.split_whitespace().last().unwrap();
    run("revoke --ca @ca @one.crt --reason key-compromise").unwrap();
    run(&format!("revoke --ca @ca {}", serial.replace(':', "").to_uppercase())).unwrap();
    run("revoke --ca @ca @one.crt").unwrap();
    let crl = shown("ca.crl");
    assert_eq!(crl.lines().filter(|l| l.contains(" on ")).count(), 2, "each once: {crl}");
    assert!(crl.contains("Key Compromise") || crl.contains("KeyCompromise"), "{crl}");
    assert!(crl.contains(serial), "{crl}");
    assert!(run("revoke --ca @other @one.crt").unwrap_err().contains("was issued by CN=CA, not by CN=Other"));
    assert!(run("revoke --ca @ca 4001").unwrap_err().contains("knows of no such certificate"));
    run("crl --ca @ca --this-update 2020-01-01 --next-update 2020-02-01").unwrap();
    assert!(shown("ca.crl").contains("EXPIRED"));
    assert!(run("crl --ca @ca --next-update 2020-02-01").unwrap_err().contains("not later"));
}

#[test]
fn validity_can_be_set() {
    let directory = tempfile::tempdir().unwrap();
    let run = |line: &str| pki(directory.path(), line);
    run("ca --cn CA --out @ca").unwrap();
    run("issue --ca @ca --san dns:a --out @old --not-before 2020-01-01 --not-after 2020-12-31T23:59:59Z")
        .unwrap();
    let shown = show::file(&directory.path().join("old.crt")).unwrap();
    assert!(
        shown.contains("Valid        2020-01-01 00:00:00 UTC to 2020-12-31 23:59:59 UTC (EXPIRED"),
        "{shown}"
    );
    run("issue --ca @ca --san dns:a --out @new --not-before 2999-01-01 --not-after 2999-12-31").unwrap();
    assert!(show::file(&directory.path().join("new.crt")).unwrap().contains("NOT YET VALID"));
    let error = run("issue --ca @ca --san dns:a --out @x --not-before 2999-01-01").unwrap_err();
    assert!(error.contains("ends") && error.contains("before it begins"), "{error}");
    assert!(
        run("issue --ca @ca --san dns:a --out @x --not-before 31.1.2026")
            .unwrap_err()
            .contains("not a date like")
    );
}

#[test]
fn names_are_checked() {
    let name = |text: &str| text.parse::<Name>().map(|n| n.to_string()).map_err(|e| e.to_string());
    for (text, expected) in [
        ("email:client@my.domain", "email:client@my.domain"),
        ("client@my.domain", "email:client@my.domain"),
        ("DNS:tunnel.my.domain", "dns:tunnel.my.domain"),
        ("tunnel.my.domain", "dns:tunnel.my.domain"),
        ("ip:192.0.2.1", "ip:192.0.2.1"),
        ("2001:db8::1", "ip:2001:db8::1"),
        ("ip:2001:db8::1", "ip:2001:db8::1"),
    ] {
        assert_eq!(name(text).as_deref(), Ok(expected));
    }
    for text in [
        "",
        "email:nobody",
        "email:@x",
        "email:a b@c",
        "dns:",
        "dns:a..b",
        "dns:-a",
        "dns:a b",
        "dns:ü.de",
        "ip:1.2.3",
        "x:y",
    ] {
        let error = name(text).unwrap_err();
        assert!(error.starts_with(&format!("`{text}` is n")), "{error}");
    }
    assert!(name(&format!("dns:{}", "a".repeat(64))).is_err());
}

#[test]
fn faults_name_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let run = |line: &str| pki(directory.path(), line);
    assert!(run("issue --ca @none --san dns:a --out @x").unwrap_err().contains("none.crt: No such file"));
    run("ca --cn CA --out @ca").unwrap();
    run("ca --cn B --out @b").unwrap();
    run("issue --ca @ca --san dns:a --out @leaf").unwrap();
    assert!(
        run("issue --ca @leaf --san dns:a --out @x").unwrap_err().contains("is not the certificate of a CA")
    );
    std::fs::copy(directory.path().join("b.key"), directory.path().join("ca.key")).unwrap();
    let error = run("issue --ca @ca --san dns:a --out @x").unwrap_err();
    assert!(error.contains("the key does not belong to the certificate of CN=CA"), "{error}");
    assert!(!directory.path().join("x.key").exists());
    std::fs::write(directory.path().join("noise"), "nothing").unwrap();
    assert!(run("show @noise").unwrap_err().contains("noise holds no certificate, CRL or key"));
    std::fs::write(directory.path().join("der"), [0x30, 0x82, 0xff, 0xff, 1]).unwrap();
    assert!(run("show @der").unwrap_err().contains("der is DER, but no certificate"));
    assert!(run("issue --ca @b --san dns:a --out @missing/x").unwrap_err().contains("cannot write"));
}
