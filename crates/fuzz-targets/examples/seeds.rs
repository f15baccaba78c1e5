//! Writes the seeds of `fuzz/corpus`: `cargo run -p ferry6-fuzz-targets --example seeds`.
//!
//! They are made by the crates' own encoders, so they follow where a format grows.

use ferry6::control::{ClientStatus, Response, Status};
use ferry6_crypto::{CipherSuite, HashAlgorithm, aws_lc, fuzzing};
use ferry6_esp::ipcomp::{Compressor, Deflater};
use ferry6_esp::{OutboundSa, Overhead, next_header, sealed_len};
use ferry6_fuzz_targets::{NONCE, SPI, WALL, esp_keys, ike_keys};
use ferry6_ike::certs::verify_peer;
use ferry6_ike::config::Revocation;
use ferry6_ike::wire::{
    Config, Delete, ExchangeType, HeaderFields, Notify, Payload, Proposal, RawId, Transform, encode_message,
    encode_payloads, sk,
};
use ferry6_ike::{Identity, TrafficSelector};
use ferry6_tun_router::testing;
use std::path::Path;
use std::time::{Duration, SystemTime};
use std::{fs, io};

fn write(target: &str, name: &str, octets: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), octets)
}

fn main() -> io::Result<()> {
    esp()?;
    ipcomp()?;
    encapsulation()?;
    windows()?;
    ike()?;
    selectors()?;
    encrypted()?;
    endpoints()?;
    inner()?;
    coalesce()?;
    certificates()?;
    revocation()?;
    fragments()?;
    routers()?;
    programs()?;
    configurations()
}

fn esp() -> io::Result<()> {
    for (index, suite) in CipherSuite::all().enumerate() {
        for flags in 0..4_u8 {
            let keys = esp_keys(suite);
            let mut sa =
                OutboundSa::new(&aws_lc::PROVIDER, SPI, &keys, flags & 1 != 0).expect("the keys fit");
            let payload = b"a payload";
            let mut packet = vec![0; sealed_len(suite, payload.len())];
            packet[Overhead::of(suite).front..][..payload.len()].copy_from_slice(payload);
            sa.seal(&mut packet, payload.len(), next_header::IPV6).expect("there is room");
            let name = format!("sealed-{index}-flags-{flags}");
            write("esp_open", &name, &[&[index as u8, flags], &packet[..]].concat())?;
        }
    }
    // texts of all paddings, for the part behind the ICV
    for (name, text) in [
        ("text-no-padding", &b"ab\x00\x29"[..]),
        ("text-padding", b"a\x01\x01\x29"),
        ("text-only-padding", b"\x01\x02\x02\x3b"),
        ("text-wrong-octet", b"\x02\x01\x02\x29"),
        ("text-pad-length-too-long", b"\x01\x02\x03\x29"),
        ("text-long-padding", b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0e\x04"),
    ] {
        write("esp_open", name, &[&[1, 0], text].concat())?;
    }
    Ok(())
}

fn ipcomp() -> io::Result<()> {
    let bound = 1500_u16.to_be_bytes();
    let text: Vec<u8> = b"over the ferry, ".iter().copied().cycle().take(400).collect();
    for level in [1, 6, 9] {
        let mut out = vec![0; text.len()];
        let len = Compressor::new(0x1234)
            .compress(&mut Deflater::with_level(level), &text, next_header::IPV6, &mut out)
            .expect("text gets smaller");
        write("ipcomp_inflate", &format!("level-{level}"), &[&bound[..], &[41], &out[4..len]].concat())?;
    }
    write("ipcomp_inflate", "plain-text", &[&bound[..], &[41], &text[..]].concat())?;
    write("ipcomp_inflate", "stored-block", &[&bound[..], b"\x29\x01\x03\x00\xfc\xffabc"].concat())?;
    write("ipcomp_inflate", "empty-fixed-block", &[&bound[..], b"\x29\x03\x00"].concat())?;
    let zeros = vec![0; 60_000];
    let mut out = vec![0; zeros.len()];
    let len = Compressor::new(0x1234)
        .compress(&mut Deflater::with_level(9), &zeros, next_header::IPV6, &mut out)
        .expect("zeros get smaller");
    write("ipcomp_inflate", "bomb", &[&bound[..], &[41], &out[4..len]].concat())
}

fn encapsulation() -> io::Result<()> {
    for (name, octets) in [
        ("keepalive", &[0xff][..]),
        ("ike", &[0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("marker-alone", &[0; 4]),
        ("esp", &[0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 1, 9, 9]),
        ("reserved-spi", &[0, 0, 0, 255, 0, 0, 0, 1, 9, 9]),
        ("short", &[0xca, 0xfe, 0xba]),
    ] {
        write("udp_classify", name, octets)?;
    }
    Ok(())
}

fn windows() -> io::Result<()> {
    let mut reordered = vec![0, 64, 1];
    reordered.extend((0..200).map(|i| if i % 3 == 0 { 120 } else { 2 }));
    write("replay_window", "reordered", &reordered)?;
    let mut wraps = vec![4, 0, 1];
    for i in 0..40_u8 {
        wraps.extend_from_slice(&[225, 0xff, 0xff, 0xff, i, 1, 100, 150, 201, 0, 0, i, 7]);
    }
    write("replay_window", "far-jumps-over-the-wrap", &wraps)?;
    let mut any = vec![0, 0, 0];
    for i in 0..40_u32 {
        any.push(250);
        any.extend_from_slice(&i.wrapping_mul(0x9e37_79b9).to_be_bytes());
    }
    write("replay_window", "any-numbers-without-esn", &any)
}

fn ike() -> io::Result<()> {
    let transform =
        |transform_type, id, key_length| Transform { key_length, ..Transform::new(transform_type, id) };
    let proposals = |protocol, spi: &[u8]| {
        vec![Proposal {
            number: 1,
            protocol,
            spi: spi.to_vec(),
            transforms: vec![
                transform(1, 20, Some(256)),
                transform(1, 28, None),
                transform(2, 5, None),
                transform(4, 31, None),
                transform(5, 0, None),
            ],
        }]
    };
    let id = |id_type, data: &[u8]| RawId { id_type, reserved: [0; 3], data: data.to_vec() };
    let everything: Vec<TrafficSelector> =
        ["::/0", "2a00::100/120[tcp/443]", "0.0.0.0/0"].map(|ts| ts.parse().expect("a selector")).into();
    let init = vec![
        Payload::Sa(proposals(1, &[])),
        Payload::KeyExchange { group: 31, data: vec![9; 32] },
        Payload::Nonce(vec![7; 32]),
        Payload::Notify(Notify::new(16388, vec![1; 20])),
        Payload::Notify(Notify::new(16430, vec![])),
        Payload::Notify(Notify::new(16431, vec![0, 2, 0, 3, 0, 4, 0, 5])),
        Payload::VendorId(b"OpenIKED-7.2".to_vec()),
    ];
    let auth = vec![
        Payload::IdInitiator(id(3, b"client@my.domain")),
        Payload::Cert { encoding: 4, data: vec![0x30; 40] },
        Payload::CertReq { encoding: 4, data: vec![0xcc; 20] },
        Payload::IdResponder(id(2, b"tunnel.my.domain")),
        Payload::Auth { method: 14, data: vec![0xaa; 60] },
        Payload::Config(Config { cfg_type: 1, attributes: vec![(8, vec![]), (10, vec![])] }),
        Payload::Sa(proposals(3, &[0xca, 0xfe, 0xba, 0xbe])),
        Payload::TsInitiator(everything.clone()),
        Payload::TsResponder(everything),
        Payload::Notify(Notify::new(16387, vec![0x12, 0x34, 2])),
        Payload::Eap(vec![2, 1, 0, 4]),
    ];
    let informational = vec![
        Payload::Delete(Delete { protocol: 3, spis: vec![0xcafe_babe] }),
        Payload::Notify(Notify::about_esp(16393, 0xcafe_babe, vec![])),
        Payload::Unknown { payload_type: 200, critical: true, data: vec![1, 2, 3] },
    ];
    for (name, exchange, payloads) in [
        ("ike-sa-init", ExchangeType::IkeSaInit, init),
        ("ike-auth", ExchangeType::IkeAuth, auth),
        ("informational", ExchangeType::Informational, informational),
    ] {
        let header = HeaderFields {
            initiator_spi: 0x1122_3344_5566_7788,
            responder_spi: 0,
            exchange,
            from_initiator: true,
            response: false,
            message_id: 0,
        };
        write("ike_message", name, &encode_message(&header, &payloads))?;
        for payload in &payloads {
            let (first, chain) = encode_payloads(std::slice::from_ref(payload));
            write("ike_payload", &format!("type-{first}-in-{name}"), &[&[first], &chain[4..]].concat())?;
        }
        let (first, chain) = encode_payloads(&payloads);
        write("ike_payload", &format!("chain-{name}"), &[&[first], &chain[..]].concat())?;
    }
    Ok(())
}

fn selectors() -> io::Result<()> {
    let some = [
        &[0b0001_0010][..],
        // ::/0; a range with a protocol; one with ports; an opaque one
        &[0x01],
        &[0x12, 0, 0, 0, 0xff],
        &[0xd2, 0, 1, 1, 0, 0, 80, 1, 187],
        &[0x82, 0, 1, 0, 9],
        // probes
        &[0, 5, 1, 0, 80, 1, 0, 1, 1, 0, 0, 1, 2, 0, 7],
    ]
    .concat();
    write("traffic_selectors", "some", &some)?;
    let opaque = [&[0b0000_1001][..], &[0x92, 0, 0, 1, 0, 0x01, 0, 5, 1, 0, 7]].concat();
    write("traffic_selectors", "opaque", &opaque)?;
    write("traffic_selectors", "ipv4", &[&[0b0000_1001][..], &[0x00; 9], &[0x01]].concat())
}

fn encrypted() -> io::Result<()> {
    for index in 0..CipherSuite::all().count() as u8 {
        let chain =
            [&[index, 1, 0x2c, 40, 1][..], &[40, 0, 0, 20], &[7; 16], &[0, 0, 0, 8, 1, 2, 3, 4]].concat();
        write("ike_encrypted", &format!("whole-{index}"), &chain)?;
        let long = [&[index, 0, 0, 40, 2][..], &[0x5a; 400]].concat();
        write("ike_encrypted", &format!("fragments-{index}"), &long)?;
    }
    // a message as it comes from the wire, with the cipher that takes any ICV
    let sealed = fuzzing::PROVIDER
        .packets
        .sealing(&ike_keys(CipherSuite::all().next().expect("one")))
        .map(|mut key| {
            let header = HeaderFields {
                initiator_spi: 1,
                responder_spi: 2,
                exchange: ExchangeType::Informational,
                from_initiator: true,
                response: false,
                message_id: 1,
            };
            let payloads = [Payload::Delete(Delete { protocol: 1, spis: vec![] })];
            let (first, chain) = encode_payloads(&payloads);
            sk::seal(&header, first, &chain, &mut *key, &mut 0, None).concat()
        })
        .expect("the keys fit");
    write("ike_encrypted", "from-the-wire", &[&[0, 0, 0, 0, 0][..], &sealed].concat())
}

fn endpoints() -> io::Result<()> {
    let op = |op: u8, side: u8| op << 1 | side;
    for (name, fates, operations) in [
        ("a-quiet-day", &[][..], &[op(4, 0), 60, op(8, 0), op(8, 1), op(4, 0), 60][..]),
        ("lossy-handshake", &[170, 0, 190, 210, 240, 0, 180], &[op(0, 0), 255]),
        ("child-rekeys-collide", &[], &[op(0, 0), 50, op(5, 0), op(5, 1), op(0, 0), 50]),
        ("ike-rekeys-collide", &[], &[op(0, 0), 50, op(6, 0), op(6, 1), op(0, 0), 50]),
        ("rekey-against-close", &[], &[op(0, 0), 50, op(6, 0), op(7, 1), op(0, 0), 50]),
        ("child-against-ike", &[0, 0, 0, 0, 240], &[op(0, 0), 50, op(5, 0), op(6, 1), op(0, 0), 50]),
        ("twice", &[], &[op(0, 0), 50, op(9, 0), op(0, 0), 50, op(7, 0)]),
        (
            "forged",
            &[],
            &[op(0, 0), 50, op(10, 1), 0, 1, 0, 40, 1, 0, 16, 9, op(0, 0), 20, op(11, 0), 2, 0, 0, 30, 2],
        ),
        ("garbage", &[], &[op(0, 0), 50, op(15, 1), 6, 1, 2, 3, 4, 5, 6, op(0, 0), 20]),
    ] {
        write("ike_endpoints", name, &[&[fates.len() as u8], fates, operations].concat())?;
    }
    Ok(())
}

fn inner() -> io::Result<()> {
    let [a, b] = ["2a00::101", "2a00::2"].map(|a| a.parse().expect("an address"));
    let tcp = testing::tcp(a, b, 40_000, 80, 1, 0x18, b"GET / HTTP/1.1");
    let udp = testing::udp(a, b, 5000, 53, &[0x44; 40]);
    let ping = testing::icmpv6(a, b, 128, 0, &[0, 1, 0, 1, 9, 9, 9, 9]);
    let mut extended = tcp.clone();
    extended[6] = 0;
    let len = u16::from_be_bytes([extended[4], extended[5]]) + 8 + 8;
    extended[4..6].copy_from_slice(&len.to_be_bytes());
    // hop-by-hop options, then a fragment header of a first fragment
    extended.splice(40..40, [44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 7]);
    for (name, packet) in [("tcp", &tcp), ("udp", &udp), ("icmpv6", &ping), ("extension-headers", &extended)]
    {
        write("inner_packet", name, packet)?;
        write("gso_split", &format!("no-gso-{name}"), &[&[0, 0, 0, 0, 0, 0, 0, 0, 0][..], packet].concat())?;
    }
    let many = testing::tcp(a, b, 40_000, 80, 1, 0x18, &[0x33; 700]);
    write("gso_split", "tcp", &[&[5, 0, 100, 0, 72, 0, 40, 0, 16][..], &many].concat())?;
    let many = testing::udp(a, b, 5000, 53, &[0x44; 700]);
    write("gso_split", "udp", &[&[6, 0, 100, 0, 48, 0, 40, 0, 6][..], &many].concat())
}

/// Switches, then kind, addresses and ports, flags, length, fault of each packet.
fn coalesce() -> io::Result<()> {
    let (tcp, udp, icmp) = ([0, 2, 0x10, 3, 0], [2, 2, 0, 3, 0], [3, 2, 0, 3, 0]);
    let (push, other_flow) = ([8, 2, 0x18, 3, 0], [0, 14, 0x10, 3, 0]);
    let (gap, small, wrong) = ([4, 2, 0x10, 3, 9], [0, 2, 0x10, 4, 0], [0x10, 2, 0, 3, 57]);
    let other_queue = [0x20, 2, 0x10, 3, 0];
    let list = |packets: &[[u8; 5]]| packets.concat();
    for (name, switches, packets) in [
        ("tcp-stream", 0, list(&[tcp; 8])),
        ("tcp-push-ends-it", 0, list(&[tcp, tcp, push, tcp, tcp])),
        ("tcp-two-flows", 0, list(&[tcp, other_flow, tcp, other_flow, tcp])),
        ("tcp-gap-and-short", 0, list(&[tcp, tcp, gap, tcp, small, tcp])),
        ("tcp-wrong-checksum", 0, list(&[tcp, wrong, tcp, tcp])),
        ("udp-stream", 0, list(&[udp; 70])),
        ("udp-not-merged", 2, list(&[udp; 4])),
        ("barrier", 0, list(&[tcp, icmp, tcp, udp, icmp, udp])),
        ("two-buffers", 4, list(&[tcp; 6])),
        ("two-queues", 0, list(&[tcp, other_queue, tcp, other_queue])),
        ("disabled", 1, list(&[tcp; 4])),
    ] {
        write("gro_coalesce", name, &[&[switches], &packets[..]].concat())?;
    }
    Ok(())
}

/// A CA, and what it signs with.
fn authority() -> Result<(rcgen::Certificate, rcgen::Issuer<'static, rcgen::KeyPair>), rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let anchor = ca.self_signed(&key)?;
    Ok((anchor, rcgen::Issuer::new(ca, key)))
}

fn certificates() -> io::Result<()> {
    let wrong = |error: rcgen::Error| io::Error::other(error);
    let (anchor, issuer) = authority().map_err(wrong)?;
    let key = rcgen::KeyPair::generate().map_err(wrong)?;
    let mut leaf = rcgen::CertificateParams::default();
    leaf.subject_alt_names = vec![
        rcgen::SanType::Rfc822Name("client@my.domain".try_into().map_err(wrong)?),
        rcgen::SanType::DnsName("tunnel.my.domain".try_into().map_err(wrong)?),
    ];
    leaf.serial_number = Some(rcgen::SerialNumber::from(7));
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &issuer).map_err(wrong)?;
    let crl = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2025, 12, 1),
        next_update: rcgen::date_time_ymd(2027, 12, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    }
    .signed_by(&issuer)
    .map_err(wrong)?;
    let (anchor, leaf, crl) = (anchor.der().to_vec(), leaf.der().to_vec(), crl.der().to_vec());
    let octets = |anchor: &[u8], leaf: &[u8], crl: &[u8]| {
        let lengths = [(anchor.len() as u16).to_be_bytes(), (leaf.len() as u16).to_be_bytes()].concat();
        [&lengths[..], anchor, leaf, crl].concat()
    };
    write("certificates", "chain-with-crl", &octets(&anchor, &leaf, &crl))?;
    write("certificates", "chain", &octets(&anchor, &leaf, &[]))?;
    write("certificates", "pinned", &octets(&leaf, &leaf, &[]))
}

fn configurations() -> io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    for (kind, name) in [(0, "client"), (0, "client-full"), (1, "broker"), (1, "broker-full")] {
        let text = fs::read(docs.join(name).with_extension("toml"))?;
        write("configuration", name, &[&[kind], &text[..]].concat())?;
    }
    write("configuration", "ike-proposal", b"\x02aes256gcm16-sha256-x25519")?;
    write("configuration", "esp-proposal", b"\x03aes256-sha256-ecp256-esn")?;
    write("configuration", "psk-hex", b"\x040x00112233445566778899aabbccddeeff")?;
    Ok(())
}

fn programs() -> io::Result<()> {
    write(
        "control_socket",
        "requests",
        b"\0{\"command\":\"status\"}\n{\"command\":\"rekey\",\"what\":\"ike\",\"which\":\"home\"}\n\
          {\"command\":\"down\",\"which\":null}\nnonsense\n{\"command\":\"up\"}",
    )?;
    write("control_socket", "too-long", &[&[0][..], &[b' '; 20_000]].concat())?;
    write("control_socket", "done", b"\x01{\"done\":\"2 tunnels\"}")?;
    let status = Status {
        role: "client".to_owned(),
        version: "1".to_owned(),
        pid: 7,
        uptime: 90,
        keylog: None,
        security: Default::default(),
        client: Some(ClientStatus { state: "up".to_owned(), ..Default::default() }),
        broker: Some(Default::default()),
        router: Default::default(),
    };
    let answer = serde_json::to_vec(&Response::Status(Box::new(status)))?;
    write("control_socket", "status", &[&[1], &answer[..]].concat())?;

    let invitation =
        "ferry6 = 1\nname = \"alice\"\nbroker = \"tunnel.my.domain\"\nbroker_id = \"dns:tunnel.my.domain\"\n";
    let rest = "ca = \"-\"\ncert = \"-\"\n";
    write("invitation", "without-key", format!("{invitation}{rest}").as_bytes())?;
    write(
        "invitation",
        "with-key-and-ports",
        format!("{invitation}port = 501\nnat_port = 4501\n{rest}key = \"-\"\n").as_bytes(),
    )?;
    let quotes = invitation.replace("tunnel.my.domain", r#"a\"\nb\u0007'\\"#);
    write("invitation", "quotes-and-controls", format!("{quotes}{rest}").as_bytes())
}

/// Number, total, type, length and content of each.
fn fragments() -> io::Result<()> {
    let greater: &[[u8; 5]] =
        &[[1, 2, 35, 9, 1], [1, 3, 36, 9, 4], [2, 2, 0, 9, 2], [2, 3, 0, 9, 2], [3, 3, 0, 9, 3]];
    let lists: [(&str, &[[u8; 5]]); 6] = [
        ("in-order", &[[1, 3, 35, 9, 1], [2, 3, 0, 9, 2], [3, 3, 0, 9, 3]]),
        ("out-of-order", &[[3, 3, 0, 9, 3], [1, 3, 35, 9, 1], [2, 3, 0, 9, 2]]),
        ("twice", &[[1, 2, 35, 9, 1], [1, 2, 36, 9, 4], [2, 2, 0, 9, 2]]),
        ("a-greater-total", greater),
        (
            "numbers-that-lie",
            &[[1, 65, 35, 9, 1], [0x81, 0x82, 35, 9, 1], [0, 1, 35, 9, 1], [2, 1, 35, 9, 1]],
        ),
        ("too-long", &[[1, 4, 35, 0xff, 1], [2, 4, 0, 0xff, 2], [3, 4, 0, 0xff, 2], [4, 4, 0, 0xff, 2]]),
    ];
    lists.iter().try_for_each(|(name, list)| write("ike_fragments", name, &list.concat()))
}

/// Suite, switches, operations: see `ferry6_fuzz_targets::routers`. The side is the lowest bit of an operation.
fn routers() -> io::Result<()> {
    let (flush, deliver): (&[u8], &[u8]) = (&[16, 17], &[20, 255, 0, 21, 255, 1]);
    // worker, kind, who, class, size, count
    let tcp = |side: u8, who: u8, count: u8| vec![side, 0, 0, who, 0, 2, count];
    let udp = |side: u8, who: u8, count: u8| vec![side, 1, 1, who, 2, 1, count];
    let ping = |side: u8, who: u8| vec![side, 0, 2, who, 0, 0, 0];
    let many = [0, 0, 1, 0, 0, 0, 39];
    let rekey: &[&[u8]] = &[
        &tcp(0, 0, 9),
        &[46, 0, 1],
        &tcp(0, 0, 9),
        &[50, 0, 1],
        &tcp(0, 0, 9),
        flush,
        &[51, 0, 1],
        deliver,
        &[54, 0, 1, 56, 0],
        deliver,
    ];
    let lists: [(&str, u8, u8, &[&[u8]]); 17] = [
        ("there-and-back", 0, 0, &[&tcp(0, 0, 9), &udp(1, 0, 5), &ping(0, 0), flush, deliver]),
        ("two-workers", 3, 1, &[&tcp(0, 0, 9), &udp(1, 1, 5), &ping(0, 2), flush, &[20, 255, 2], deliver]),
        ("compressed", 1, 4, &[&tcp(0, 1, 20), &udp(1, 1, 5), flush, deliver]),
        ("no-policy", 0, 0, &[&ping(0, 3), &ping(1, 2), flush, deliver]),
        ("selectors-of-the-receiver", 0, 0, &[&ping(0, 1 | 2 << 2), &ping(1, 1 | 2 << 2), flush, deliver]),
        ("rekey-under-traffic", 2, 3, rekey),
        ("without-an-sa", 0, 0, &[&[54, 0, 0], &tcp(0, 0, 9), flush, deliver]),
        (
            "an-sa-of-each-worker",
            0,
            1,
            &[&[46, 0, 0, 50, 0, 0], &tcp(0, 0, 4), &[0, 1, 0, 0, 0, 2, 4], flush, deliver],
        ),
        (
            "lost-reordered-repeated",
            0,
            0,
            &[&tcp(0, 0, 9), flush, &[32, 2, 34, 0, 4, 38, 1, 0, 38, 2, 0], deliver],
        ),
        ("left-of-the-window", 0, 0, &[&many, &many, flush, &[34, 0, 79], deliver, &[38, 1, 0], deliver]),
        (
            "forged",
            0,
            0,
            &[&tcp(0, 0, 3), flush, &[42, 1, 0, 30, 1, 42, 1, 0, 2, 9, 42, 0, 0, 6, 1], deliver],
        ),
        ("marked", 0, 0, &[&[0, 0, 0, 0, 2, 2, 3], &tcp(0, 0, 1), flush, &[44, 0, 3, 44, 4, 3], deliver]),
        (
            "moved",
            0,
            0,
            &[&[58], &tcp(0, 0, 3), flush, deliver, &[60, 0, 61, 0], &tcp(1, 0, 3), flush, deliver],
        ),
        (
            "a-replay-from-elsewhere-moves-nobody",
            0,
            0,
            &[&tcp(0, 0, 3), flush, deliver, &[38, 1, 9], deliver, &[61, 200]],
        ),
        (
            "ike-keepalive-noise",
            0,
            0,
            &[&[62, 8, 0, 0, 0, 0, 1, 2, 3, 4, 62, 1, 0xff, 63, 5, 1, 2, 3, 4, 5], deliver],
        ),
        ("too-big", 0, 0, &[&[0, 0, 0, 0, 0, 4, 3], flush, deliver]),
        ("soft-limits", 0, 32, &[&tcp(0, 0, 30), flush, deliver, &tcp(0, 0, 30)]),
    ];
    lists.iter().try_for_each(|(name, suite, switches, list)| {
        write("routers", name, &[&[*suite, *switches], &list.concat()[..]].concat())
    })
}

/// An element of DER.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let head = match content.len() {
        len @ 0..0x80 => vec![tag, len as u8],
        len @ 0x80..0x100 => vec![tag, 0x81, len as u8],
        len => [&[tag, 0x82][..], &(len as u16).to_be_bytes()].concat(),
    };
    [head, content].concat()
}

/// Answers to a real question, signed by nobody: the target's provider takes any signature.
fn revocation() -> io::Result<()> {
    let wrong = |error: rcgen::Error| io::Error::other(error);
    let (anchor, issuer) = authority().map_err(wrong)?;
    let mut leaf = rcgen::CertificateParams::default();
    leaf.subject_alt_names = vec![rcgen::SanType::Rfc822Name("client@my.domain".try_into().map_err(wrong)?)];
    leaf.serial_number = Some(rcgen::SerialNumber::from(0x17));
    leaf.crl_distribution_points = vec![rcgen::CrlDistributionPoint { uris: vec!["http://a/c".to_owned()] }];
    let ocsp = tlv(0x30, &[&[6, 8, 0x2b, 6, 1, 5, 5, 7, 48, 1], &tlv(0x86, &[b"http://a/o"])]);
    leaf.custom_extensions =
        vec![rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], tlv(0x30, &[&ocsp]))];
    let key = rcgen::KeyPair::generate().map_err(wrong)?;
    let leaf = leaf.signed_by(&key, &issuer).map_err(wrong)?;
    let (anchor, leaf) = (anchor.der().to_vec(), leaf.der().to_vec());
    let lengths = [(anchor.len() as u16).to_be_bytes(), (leaf.len() as u16).to_be_bytes()].concat();
    let save = |kind: u8, name: &str, answer: &[u8]| {
        let octets = [&[kind][..], &lengths, &anchor, &leaf, answer].concat();
        write("revocation_answers", name, &octets)
    };
    for (name, serial) in [("crl-good", 5), ("crl-revoked", 0x17)] {
        let crl = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2025, 12, 1),
            next_update: rcgen::date_time_ymd(2027, 12, 1),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: rcgen::SerialNumber::from(serial),
                revocation_time: rcgen::date_time_ymd(2025, 11, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        save(1, name, crl.signed_by(&issuer).map_err(wrong)?.der())?;
    }
    let verified = verify_peer(
        &fuzzing::PROVIDER,
        &[leaf.clone().into()],
        &Identity::Rfc822("client@my.domain".to_owned()),
        &[anchor.clone().into()],
        &[],
        Revocation::Strict,
        SystemTime::UNIX_EPOCH + Duration::from_secs(WALL),
    );
    let verified = verified.map_err(io::Error::other)?;
    let request = verified.queries[0].ocsp_request(&fuzzing::PROVIDER, None).map_err(io::Error::other)?;
    // Four sequences around it: OCSPRequest, TBSRequest, requestList, Request. Each header has two octets.
    let cert_id = &request[8..];
    let [this, next] = [&b"20251231235900Z"[..], b"20260102000000Z"].map(|time| tlv(0x18, &[time]));
    let nonce = tlv(0x04, &[&tlv(0x04, &[NONCE])]);
    let nonce = tlv(0x30, &[&[6, 9, 0x2b, 6, 1, 5, 5, 7, 48, 1, 2], &nonce]);
    let nonce = tlv(0xa1, &[&tlv(0x30, &[&nonce])]);
    let key_hash = fuzzing::PROVIDER
        .hashes
        .digest(HashAlgorithm::Sha1, &[rcgen::PublicKeyData::der_bytes(issuer.key())]);
    let responder = tlv(0xa2, &[&tlv(0x04, &[&key_hash.map_err(io::Error::other)?])]);
    let revoked = tlv(0xa1, &[&tlv(0x18, &[b"20251101000000Z"])]);
    for (name, status, with_next, nonce) in [
        ("ocsp-good", &[0x80, 0][..], true, &nonce[..]),
        ("ocsp-revoked", &revoked, true, &[]),
        ("ocsp-unknown", &[0x82, 0], true, &nonce),
        ("ocsp-without-next-update", &[0x80, 0], false, &nonce),
    ] {
        let until = if with_next { tlv(0xa0, &[&next]) } else { Vec::new() };
        let single = tlv(0x30, &[cert_id, status, &this, &until]);
        let data = tlv(0x30, &[&responder, &this, &tlv(0x30, &[&single]), nonce]);
        // ecdsa-with-SHA256
        let algorithm = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        let basic = tlv(0x30, &[&data, &algorithm, &tlv(0x03, &[&[0; 9]])]);
        let bytes = tlv(0x30, &[&[6, 9, 0x2b, 6, 1, 5, 5, 7, 48, 1, 1], &tlv(0x04, &[&basic])]);
        save(0, name, &tlv(0x30, &[&[0x0a, 1, 0], &tlv(0xa0, &[&bytes])]))?;
    }
    save(0, "ocsp-try-later", &[0x30, 3, 0x0a, 1, 3])
}
