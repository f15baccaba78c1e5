use super::*;
use ferry6_crypto::providers;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CustomExtension,
    DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
    RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

/// All certificates here are valid from 2020 to 2040, if nothing else is said.
fn wall() -> SystemTime {
    year(2026)
}

fn year(year: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600)
}

fn params(cn: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "ferry6");
    params.distinguished_name.push(DnType::CommonName, cn);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}

fn ca_params(cn: &str) -> CertificateParams {
    let mut params = params(cn);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca(cn: &str) -> Ca {
    Ca::self_signed(ca_params(cn), key()).unwrap()
}

fn email(address: &str) -> SanType {
    SanType::Rfc822Name(address.try_into().unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn client() -> CertificateParams {
    let mut params = params("client");
    params.subject_alt_names = vec![email("client@my.domain")];
    params.serial_number = Some(SerialNumber::from_slice(&[0x17]));
    params
}

fn issue(params: CertificateParams, ca: &Issuer<'static, KeyPair>) -> CertificateDer<'static> {
    params.signed_by(&key(), ca).unwrap().der().clone()
}

fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

/// With both providers, which must agree.
fn check(
    chain: &[CertificateDer<'_>],
    identity: &str,
    anchors: &[&CertificateDer<'_>],
    crls: &[CertificateRevocationListDer<'_>],
    revocation: Revocation,
    wall: SystemTime,
) -> Result<Vec<u8>, CertError> {
    let anchors: Vec<_> = anchors.iter().map(|anchor| CertificateDer::from(anchor.as_ref())).collect();
    let [one, other] =
        providers().map(|crypto| verify_peer(crypto, chain, &id(identity), &anchors, crls, revocation, wall));
    assert_eq!(one, other);
    one.map(|verified| {
        assert_eq!(verified.queries, []);
        verified.spki
    })
}

fn simple(chain: &[CertificateDer<'_>], anchors: &[&CertificateDer<'_>]) -> Result<Vec<u8>, CertError> {
    check(chain, "client@my.domain", anchors, &[], Revocation::IfUri, wall())
}

fn problem(result: Result<Vec<u8>, CertError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_client_with_only_an_email_san() {
    let ca = ca("ca");
    let key = key();
    let leaf = client().signed_by(&key, &ca).unwrap();
    let spki = simple(&[leaf.der().clone()], &[ca.der()]).unwrap();
    assert_eq!(spki, rcgen::PublicKeyData::subject_public_key_info(&key));
}

#[test]
fn every_kind_of_key() {
    let rsa = || KeyPair::from_pem(include_str!("../../testdata/rsa-2048.key")).unwrap();
    let of = |algorithm: &'static SignatureAlgorithm| KeyPair::generate_for(algorithm).unwrap();
    let ec256 = || of(&rcgen::PKCS_ECDSA_P256_SHA256);
    let ec384 = || of(&rcgen::PKCS_ECDSA_P384_SHA384);
    let ed25519 = || of(&rcgen::PKCS_ED25519);
    let pairs =
        [(rsa(), ec256()), (ec256(), rsa()), (ec384(), ed25519()), (ed25519(), ec384()), (rsa(), rsa())];
    for (ca_key, leaf_key) in pairs {
        let ca = Ca::self_signed(ca_params("ca"), ca_key).unwrap();
        let leaf = client().signed_by(&leaf_key, &ca).unwrap();
        assert!(simple(&[leaf.der().clone()], &[ca.der()]).is_ok());
    }
}

#[test]
fn intermediates_in_any_order() {
    let root = ca("root");
    let middle = Ca::signed_by(ca_params("middle"), key(), &root).unwrap();
    let low = Ca::signed_by(ca_params("low"), key(), &middle).unwrap();
    let leaf = issue(client(), &low);
    let chain = |cas: &[&Ca]| {
        std::iter::once(leaf.clone()).chain(cas.iter().map(|ca| ca.der().clone())).collect::<Vec<_>>()
    };
    assert!(simple(&chain(&[&low, &middle]), &[root.der()]).is_ok());
    assert!(simple(&chain(&[&middle, &low]), &[root.der()]).is_ok());
    assert!(simple(&chain(&[&middle, &low, &root]), &[root.der()]).is_ok());
    // An intermediate as the anchor.
    assert!(simple(&chain(&[&low]), &[middle.der()]).is_ok());
    // The one whose issuer is missing is named.
    assert_eq!(
        simple(&chain(&[&low]), &[root.der()]),
        Err(CertError::UnknownCa {
            subject: "O=ferry6, CN=low".into(),
            issuer: "O=ferry6, CN=middle".into()
        })
    );
}

#[test]
fn no_certificate_or_too_many_or_too_long() {
    let ca = ca("ca");
    assert_eq!(simple(&[], &[ca.der()]), Err(CertError::None));
    let leaf = issue(client(), &ca);
    let many = vec![leaf.clone(); MAX_CHAIN + 1];
    assert!(matches!(simple(&many, &[ca.der()]), Err(CertError::Unreadable(_))));
    assert!(simple(&many[..MAX_CHAIN], &[ca.der()]).is_ok());
    let long = CertificateDer::from(vec![0x30; MAX_CERTIFICATE + 1]);
    assert!(problem(simple(std::slice::from_ref(&long), &[ca.der()])).contains("16385 octets"));
    assert!(matches!(simple(&[leaf, long], &[ca.der()]), Err(CertError::Unreadable(_))));
}

#[test]
fn expired_and_not_yet_valid() {
    let root = ca("root");
    let expired = |result| {
        let CertError::Validity { subject, period } = result else { panic!("{result}") };
        assert!(period.contains("2020") && period.contains("20"), "{period}");
        subject
    };
    let leaf = issue(client(), &root);
    for when in [year(2019), year(2041), UNIX_EPOCH, year(9000)] {
        let result =
            check(std::slice::from_ref(&leaf), "client@my.domain", &[root.der()], &[], Revocation::Off, when);
        assert_eq!(expired(result.unwrap_err()), "O=ferry6, CN=client");
    }
    let short = |cn| {
        let mut params = ca_params(cn);
        params.not_after = date_time_ymd(2021, 1, 1);
        params
    };
    let middle = Ca::signed_by(short("middle"), key(), &root).unwrap();
    let leaf = issue(client(), &middle);
    let result = simple(&[leaf, middle.der().clone()], &[root.der()]);
    assert_eq!(expired(result.unwrap_err()), "O=ferry6, CN=middle");
    let old_root = Ca::self_signed(short("old root"), key()).unwrap();
    let result = simple(&[issue(client(), &old_root)], &[old_root.der()]);
    assert_eq!(expired(result.unwrap_err()), "O=ferry6, CN=old root");
    assert!(matches!(check_anchor(old_root.der(), wall()), Err(CertError::Validity { .. })));
    assert_eq!(check_anchor(root.der(), wall()), Ok("O=ferry6, CN=root".into()));
}

#[test]
fn unknown_ca() {
    let [ca, other] = ["ca", "other"].map(ca);
    let leaf = issue(client(), &other);
    assert_eq!(
        problem(simple(std::slice::from_ref(&leaf), &[ca.der()])),
        "certificate of O=ferry6, CN=client is issued by O=ferry6, CN=other, which is not one of the trusted CAs"
    );
    assert!(matches!(simple(std::slice::from_ref(&leaf), &[]), Err(CertError::UnknownCa { .. })));
    // Sending the unknown CA along makes it no better.
    assert!(matches!(simple(&[leaf, other.der().clone()], &[ca.der()]), Err(CertError::UnknownCa { .. })));
    // Another CA of the same name.
    let impostor = self::ca("ca");
    let leaf = issue(client(), &impostor);
    assert!(problem(simple(&[leaf], &[ca.der()])).contains("not the key that signed"));
    // Self-signed, and not an anchor.
    let own = client().self_signed(&key()).unwrap();
    assert!(matches!(simple(&[own.der().clone()], &[ca.der()]), Err(CertError::UnknownCa { .. })));
}

#[test]
fn a_wrong_signature_in_the_chain() {
    let root = ca("root");
    let middle = Ca::signed_by(ca_params("middle"), key(), &root).unwrap();
    let other_middle = Ca::signed_by(ca_params("middle"), key(), &root).unwrap();
    let leaf = issue(client(), &other_middle);
    let result = simple(&[leaf, middle.der().clone()], &[root.der()]);
    assert_eq!(problem(result), "certificate of O=ferry6, CN=client: a signature in its chain is wrong");
}

#[test]
fn every_octet_is_signed() {
    let ca = ca("ca");
    let leaf = issue(client(), &ca);
    for octet in 0..leaf.len() {
        let mut altered = leaf.to_vec();
        altered[octet] ^= 1;
        let altered = CertificateDer::from(altered);
        let anchors = [CertificateDer::from(ca.der().as_ref())];
        for revocation in [Revocation::Off, Revocation::IfUri] {
            let result = verify_peer(
                providers()[0],
                std::slice::from_ref(&altered),
                &id("client@my.domain"),
                &anchors,
                &[],
                revocation,
                wall(),
            );
            assert!(result.is_err(), "octet {octet}");
        }
    }
    for len in 0..leaf.len() {
        assert!(simple(&[CertificateDer::from(&leaf[..len])], &[ca.der()]).is_err());
    }
}

#[test]
fn pinned_certificates() {
    let own = |change: fn(&mut CertificateParams)| {
        let mut params = client();
        change(&mut params);
        params.self_signed(&key()).unwrap().der().clone()
    };
    let plain = own(|_| {});
    assert!(simple(std::slice::from_ref(&plain), &[&plain]).is_ok());
    // As `openssl req -x509` makes them.
    let as_ca = own(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(simple(std::slice::from_ref(&as_ca), &[&as_ca]).is_ok());
    // Not self-signed, its CA unknown: the pin is enough.
    let by_ca = issue(client(), &ca("ca"));
    assert!(simple(std::slice::from_ref(&by_ca), &[&by_ca]).is_ok());
    // All else is still checked.
    let server = own(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::TimeStamping]);
    assert!(matches!(simple(std::slice::from_ref(&server), &[&server]), Err(CertError::Usage { .. })));
    let ike = own(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17])];
    });
    assert!(simple(std::slice::from_ref(&ike), &[&ike]).is_ok());
    let critical = own(|params| params.custom_extensions = vec![critical_extension()]);
    assert!(problem(simple(std::slice::from_ref(&critical), &[&critical])).contains("1.2.3.4 is not known"));
    let result = check(std::slice::from_ref(&plain), "a@my.domain", &[&plain], &[], Revocation::Off, wall());
    assert!(matches!(result, Err(CertError::Identity { .. })));
    let result =
        check(std::slice::from_ref(&plain), "client@my.domain", &[&plain], &[], Revocation::Off, year(2050));
    assert!(matches!(result, Err(CertError::Validity { .. })));
}

/// The certificate of one peer as anchor must not let that peer vouch for others.
#[test]
fn an_anchor_that_is_no_ca_vouches_for_nobody() {
    for change in [
        (|params| params.is_ca = IsCa::NoCa) as fn(&mut CertificateParams),
        |params| params.is_ca = IsCa::ExplicitNoCa,
        |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature],
    ] {
        let mut params = ca_params("peer");
        change(&mut params);
        let peer = Ca::self_signed(params, key()).unwrap();
        let forged = issue(client(), &peer);
        let error = simple(std::slice::from_ref(&forged), &[peer.der()]).unwrap_err();
        assert!(
            matches!(&error, CertError::Usage { subject, .. } if subject == "O=ferry6, CN=peer"),
            "{error}"
        );
        // Nor as an intermediate.
        let root = ca("root");
        let mut params = ca_params("peer");
        change(&mut params);
        let peer = Ca::signed_by(params, key(), &root).unwrap();
        let error = simple(&[issue(client(), &peer), peer.der().clone()], &[root.der()]).unwrap_err();
        assert!(
            matches!(&error, CertError::Usage { subject, .. } if subject == "O=ferry6, CN=peer"),
            "{error}"
        );
    }
}

#[test]
fn key_usage_of_the_leaf() {
    use KeyUsagePurpose as K;
    let ca = ca("ca");
    for (usages, good) in [
        (vec![], true),
        (vec![K::DigitalSignature], true),
        (vec![K::ContentCommitment], true),
        (vec![K::KeyEncipherment, K::DigitalSignature], true),
        (vec![K::KeyEncipherment], false),
        (vec![K::KeyCertSign], false),
    ] {
        let mut params = client();
        params.key_usages = usages.clone();
        let result = simple(&[issue(params, &ca)], &[ca.der()]);
        assert_eq!(result.is_ok(), good, "{usages:?}");
        if !good {
            assert!(problem(result).contains("digitalSignature"));
        }
    }
}

#[test]
fn extended_key_usage() {
    use ExtendedKeyUsagePurpose as E;
    let ipsec_ike = E::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    let ike_intermediate = E::Other(vec![1, 3, 6, 1, 5, 5, 8, 2, 2]);
    let ca = ca("ca");
    for (purposes, good) in [
        (vec![], true),
        (vec![E::ServerAuth], true),
        (vec![E::ClientAuth], true),
        (vec![E::Any], true),
        (vec![ipsec_ike], true),
        (vec![E::CodeSigning, ike_intermediate], true),
        (vec![E::CodeSigning], false),
        (vec![E::EmailProtection, E::TimeStamping], false),
    ] {
        let mut params = client();
        params.extended_key_usages = purposes.clone();
        let leaf = issue(params, &ca);
        let result = simple(std::slice::from_ref(&leaf), &[ca.der()]);
        assert_eq!(result.is_ok(), good, "{purposes:?}");
        // The two ways of checking agree.
        assert_eq!(simple(std::slice::from_ref(&leaf), &[&leaf]).is_ok(), good, "{purposes:?}");
        assert_eq!(check_own_purposes(&leaf).is_ok(), good, "{purposes:?}");
        if !good {
            assert!(problem(result).contains("ipsecIKE"));
        }
    }
}

/// An extension that cannot be read is not an absent one.
#[test]
fn malformed_usages() {
    let ca = ca("ca");
    for (oid, name) in [(15, "KeyUsage"), (37, "ExtendedKeyUsage")] {
        for content in [vec![], vec![5, 0], vec![3, 1], vec![0x30, 3, 6, 1]] {
            let mut params = client();
            params.custom_extensions =
                vec![CustomExtension::from_oid_content(&[2, 5, 29, oid], content.clone())];
            let leaf = issue(params, &ca);
            assert!(simple(std::slice::from_ref(&leaf), &[ca.der()]).is_err(), "{name} {content:?}");
            assert!(
                problem(simple(std::slice::from_ref(&leaf), &[&leaf])).contains(name),
                "{name} {content:?}"
            );
        }
    }
}

#[test]
fn our_own_certificate() {
    let leaf = issue(client(), &ca("ca"));
    assert_eq!(check_own(&leaf, &id("client@my.domain"), wall()), Ok(()));
    assert!(matches!(check_own(&leaf, &id("my.domain"), wall()), Err(CertError::Identity { .. })));
    assert!(matches!(check_own(&leaf, &id("client@my.domain"), year(2050)), Err(CertError::Validity { .. })));
}

fn critical_extension() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    extension
}

#[test]
fn other_extensions_and_constraints() {
    let root = ca("root");
    let mut params = client();
    params.custom_extensions = vec![critical_extension()];
    assert!(problem(simple(&[issue(params, &root)], &[root.der()])).contains("critical extension"));

    let mut params = client();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    assert!(problem(simple(&[issue(params, &root)], &[root.der()])).contains("certificate of a CA"));

    let mut params = ca_params("middle");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let middle = Ca::signed_by(params, key(), &root).unwrap();
    let low = Ca::signed_by(ca_params("low"), key(), &middle).unwrap();
    let chain = [issue(client(), &low), low.der().clone(), middle.der().clone()];
    assert!(problem(simple(&chain, &[root.der()])).contains("pathLenConstraint"));

    let constrained = |subtree: GeneralSubtree| {
        let mut params = ca_params("constrained");
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: vec![subtree], excluded_subtrees: vec![] });
        Ca::self_signed(params, key()).unwrap()
    };
    let by_email = constrained(GeneralSubtree::Rfc822Name("my.domain".into()));
    assert!(problem(simple(&[issue(client(), &by_email)], &[by_email.der()])).contains("email addresses"));
    let by_dns = constrained(GeneralSubtree::DnsName("my.domain".into()));
    for (name, good) in [("tunnel.my.domain", true), ("tunnel.other.domain", false)] {
        let mut params = self::params("broker");
        params.subject_alt_names = vec![dns(name)];
        let result = check(&[issue(params, &by_dns)], name, &[by_dns.der()], &[], Revocation::Off, wall());
        assert_eq!(result.is_ok(), good, "{name}");
    }
}

#[test]
fn identities() {
    let ca = ca("ca");
    let mut params = params("tunnel.my.domain");
    params.subject_alt_names = vec![
        dns("Tunnel.My.Domain"),
        dns("*.wild.domain"),
        email("client@My.Domain"),
        SanType::IpAddress("192.0.2.1".parse().unwrap()),
        SanType::IpAddress("2001:db8::1".parse().unwrap()),
        SanType::URI("https://my.domain/".try_into().unwrap()),
    ];
    let leaf = issue(params, &ca);
    for (identity, good) in [
        ("tunnel.my.domain", true),
        ("TUNNEL.MY.DOMAIN", true),
        ("my.domain", false),
        ("a.tunnel.my.domain", false),
        ("a.wild.domain", false),
        ("wild.domain", false),
        ("client@my.domain", true),
        ("Client@my.domain", false),
        ("client@tunnel.my.domain", false),
        ("fqdn:client@my.domain", false),
        ("192.0.2.1", true),
        ("192.0.2.2", false),
        ("fqdn:192.0.2.1", false),
        ("2001:db8::1", true),
        ("2001:db8::2", false),
        ("O=ferry6, CN=tunnel.my.domain", true),
        ("o=FERRY6, cn=Tunnel.My.Domain", true),
        ("CN=tunnel.my.domain", false),
        ("CN=tunnel.my.domain, O=ferry6", false),
        ("keyid:tunnel.my.domain", false),
    ] {
        let result = check(std::slice::from_ref(&leaf), identity, &[ca.der()], &[], Revocation::Off, wall());
        assert_eq!(result.is_ok(), good, "{identity}");
        if let Err(error) = result {
            assert_eq!(
                error.to_string(),
                format!(
                    "identity {} does not stand in the certificate of O=ferry6, CN=tunnel.my.domain (it has: \
                     DNS:Tunnel.My.Domain, DNS:*.wild.domain, email:client@My.Domain, IP:192.0.2.1, IP:2001:db8::1, \
                     URI:https://my.domain/)",
                    id(identity)
                )
            );
        }
    }
    // A peer may not call itself by the asterisk, though it stands there.
    let anchors = [CertificateDer::from(ca.der().as_ref())];
    let raw = crate::wire::RawId { id_type: 2, reserved: [0; 3], data: b"*.wild.domain".to_vec() };
    for identity in [Identity::from(&raw), Identity::Other(13, vec![])] {
        let chain = std::slice::from_ref(&leaf);
        let result = verify_peer(providers()[0], chain, &identity, &anchors, &[], Revocation::Off, wall());
        assert!(matches!(result, Err(CertError::Identity { .. })), "{identity}");
    }
}

/// RFC 4945 section 3.1.2: the common name is no identity.
#[test]
fn the_common_name_is_no_identity() {
    let ca = ca("ca");
    let leaf = issue(params("tunnel.my.domain"), &ca);
    let result = check(&[leaf], "tunnel.my.domain", &[ca.der()], &[], Revocation::Off, wall());
    assert!(problem(result).contains("no subject alternative name"));
}

/// An empty subject is no distinguished name that anybody could have, and strangers' names cannot break a line.
#[test]
fn odd_names() {
    let ca = ca("ca");
    let mut params = client();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let leaf = issue(params, &ca);
    assert!(simple(std::slice::from_ref(&leaf), &[ca.der()]).is_ok());
    let result = check(std::slice::from_ref(&leaf), "dn:#3000", &[ca.der()], &[], Revocation::Off, wall());
    assert!(problem(result).contains("of (email:client@my.domain)"));

    let mut params = self::params("a\nb\u{202e}c");
    params.subject_alt_names = vec![SanType::DnsName("x\ny".try_into().unwrap()); 60];
    let text = problem(simple(&[issue(params, &ca)], &[ca.der()]));
    assert!(text.is_ascii() && !text.contains('\n'), "{text}");
    assert!(text.contains("CN=a\\0ab\\e2\\80\\aec") && text.contains("DNS:x\\ny"), "{text}");
    assert!(text.len() < 3 * MAX_NAME);
}

fn crl(
    ca: &Issuer<'static, KeyPair>,
    serials: &[u8],
    from: i32,
    to: i32,
) -> CertificateRevocationListDer<'static> {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(from, 1, 1),
        next_update: date_time_ymd(to, 1, 1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: serials
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from_slice(&[*serial]),
                revocation_time: date_time_ymd(from, 1, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    params.signed_by(ca).unwrap().der().clone()
}

#[test]
fn revocation() {
    use Revocation::{IfUri, Off, Strict};
    let ca = ca("ca");
    let leaf = [issue(client(), &ca)];
    let run = |crls: &[CertificateRevocationListDer<'_>], policy| {
        check(&leaf, "client@my.domain", &[ca.der()], crls, policy, wall())
    };
    let subject = || "O=ferry6, CN=client".to_owned();
    let revoked = Err(CertError::Revoked { subject: subject() });
    let none = Err(CertError::NoCrl { subject: subject() });

    let listed = crl(&ca, &[0x05, 0x17], 2025, 2030);
    assert_eq!(run(std::slice::from_ref(&listed), IfUri), revoked);
    assert_eq!(run(std::slice::from_ref(&listed), Strict), revoked);
    assert!(run(std::slice::from_ref(&listed), Off).is_ok());

    let clean = crl(&ca, &[0x05], 2025, 2030);
    assert!(run(std::slice::from_ref(&clean), IfUri).is_ok());
    assert!(run(std::slice::from_ref(&clean), Strict).is_ok());

    assert!(run(&[], IfUri).is_ok());
    assert!(run(&[], Off).is_ok());
    assert_eq!(run(&[], Strict), none);

    let stale = crl(&ca, &[], 2024, 2025);
    assert!(run(std::slice::from_ref(&stale), IfUri).is_ok());
    assert_eq!(run(std::slice::from_ref(&stale), Strict), none);
    let stale_listed = crl(&ca, &[0x17], 2024, 2025);
    assert_eq!(run(&[stale_listed], IfUri), revoked);

    // The newest one counts, in whatever order they stand.
    let old = crl(&ca, &[0x17], 2023, 2030);
    for crls in [[old.clone(), clean.clone()], [clean.clone(), old]] {
        assert!(run(&crls, Strict).is_ok());
    }

    // Of another CA: none for this one. Of an impostor with its name: refused.
    let other = crl(&self::ca("other"), &[0x17], 2025, 2030);
    assert!(run(std::slice::from_ref(&other), IfUri).is_ok());
    assert_eq!(run(&[other], Strict), none);
    let forged = crl(&self::ca("ca"), &[], 2025, 2030);
    assert!(problem(run(std::slice::from_ref(&forged), IfUri)).contains("wrong signature"));
    assert!(run(&[forged], Strict).is_err());

    // A CRL that cannot be read is the operator's fault, and told when it is loaded.
    let junk = CertificateRevocationListDer::from(vec![0x30, 0]);
    assert!(matches!(run(std::slice::from_ref(&junk), IfUri), Err(CertError::Unreadable(_))));
    assert!(check_crl(&junk).is_err());
    assert_eq!(check_crl(&clean), Ok("O=ferry6, CN=ca".into()));
}

#[test]
fn revoked_intermediates() {
    let root = ca("root");
    let mut params = ca_params("middle");
    params.serial_number = Some(SerialNumber::from_slice(&[0x33]));
    let middle = Ca::signed_by(params, key(), &root).unwrap();
    let chain = [issue(client(), &middle), middle.der().clone()];
    let run = |crls: &[CertificateRevocationListDer<'_>], policy| {
        check(&chain, "client@my.domain", &[root.der()], crls, policy, wall())
    };
    let of_middle = crl(&middle, &[], 2025, 2030);
    let of_root = crl(&root, &[0x33], 2025, 2030);
    let revoked = Err(CertError::Revoked { subject: "O=ferry6, CN=middle".into() });
    assert_eq!(run(&[of_middle.clone(), of_root], Revocation::Strict), revoked);
    let missing = Err(CertError::NoCrl { subject: "O=ferry6, CN=middle".into() });
    assert_eq!(run(std::slice::from_ref(&of_middle), Revocation::Strict), missing);
    assert!(run(&[of_middle, crl(&root, &[], 2025, 2030)], Revocation::Strict).is_ok());

    let mut params = ca_params("no crl");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let no_crl = Ca::signed_by(params, key(), &root).unwrap();
    let chain = [issue(client(), &no_crl), no_crl.der().clone()];
    // The signer is told that it may not, so sign as a CA of the same name and key that may.
    let mut params = ca_params("no crl");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let signer = Issuer::new(params, KeyPair::from_pem(&no_crl.key().serialize_pem()).unwrap());
    let crls = [crl(&signer, &[], 2025, 2030)];
    let result = check(&chain, "client@my.domain", &[root.der()], &crls, Revocation::IfUri, wall());
    assert!(problem(result).contains("cRLSign"));
}

#[test]
fn certificates_of_version_1() {
    let old = include_str!("../../testdata/v1-ca.pem");
    let old = <CertificateDer<'static> as rustls_pki_types::pem::PemObject>::from_pem_slice(old.as_bytes())
        .unwrap();
    let ca = ca("ca");
    for result in
        [simple(std::slice::from_ref(&old), &[ca.der()]), simple(std::slice::from_ref(&old), &[&old])]
    {
        assert_eq!(
            problem(result),
            "certificate cannot be read: CN=old CA is of version 1; make it anew as version 3, for it has no extensions"
        );
    }
    assert!(check_anchor(&old, wall()).is_err());
}

#[test]
fn certificate_requests() {
    let [ca, other] = ["ca", "other"].map(ca);
    let junk = CertificateDer::from(vec![1, 2, 3]);
    for crypto in providers() {
        let request = cert_request(crypto, &[ca.der().clone(), junk.clone(), other.der().clone()]);
        assert_eq!(request.len(), 40);
        for (ca, hash) in [&ca, &other].into_iter().zip(request.chunks(20)) {
            let spki = rcgen::PublicKeyData::subject_public_key_info(ca.key());
            assert_eq!(hash, crypto.hashes.digest(HashAlgorithm::Sha1, &[&spki]).unwrap());
        }
    }
}

#[test]
fn chains_out_of_payloads() {
    assert_eq!(chain_from_payloads([]), Err(CertError::None));
    let chain = chain_from_payloads([(4, &b"leaf"[..]), (7, b"crl"), (4, b"ca")]).unwrap();
    assert_eq!(chain, [CertificateDer::from(&b"leaf"[..]), CertificateDer::from(&b"ca"[..])]);
    let error = chain_from_payloads([(12, &b"hash and url"[..])]).unwrap_err().to_string();
    assert!(error.contains("HASH_AND_URL"), "{error}");
    assert!(chain_from_payloads([(99, &b"x"[..])]).unwrap_err().to_string().contains("encoding 99"));
    assert!(chain_from_payloads(vec![(4, &b"x"[..]); MAX_CHAIN]).is_ok());
    assert!(chain_from_payloads(vec![(4, &b"x"[..]); MAX_CHAIN + 1]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_octets(junk in proptest::collection::vec(any::<u8>(), 0..300)) {
        let ca = ca("ca");
        let certificate = CertificateDer::from(junk.clone());
        prop_assert!(simple(std::slice::from_ref(&certificate), &[ca.der()]).is_err());
        prop_assert!(simple(&[issue(client(), &ca), certificate.clone()], &[ca.der()]).is_err());
        prop_assert!(simple(&[issue(client(), &ca)], &[&certificate, ca.der()]).is_ok());
        let _ = check_crl(&CertificateRevocationListDer::from(junk));
    }

    /// Altered in several places, with a signature that then does not matter: as a pin.
    #[test]
    fn altered_certificates_do_not_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut altered = issue(client(), &ca("ca")).to_vec();
        for (index, octet) in changes {
            let at = index.index(altered.len());
            altered[at] = octet;
        }
        let altered = CertificateDer::from(altered);
        let _ = simple(std::slice::from_ref(&altered), &[&altered]);
    }
}
