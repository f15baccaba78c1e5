//! Writes the seeds of `fuzz/corpus`: `cargo run -p ferry6-fuzz-targets --example seeds`.
//!
//! They are made by the crates' own encoders, so they follow where a format grows.

use ferry6_crypto::{CipherSuite, Integ, PacketKeys, Secret, Spi, aws_lc};
use ferry6_esp::ipcomp::{Compressor, Deflater};
use ferry6_esp::{OutboundSa, Overhead, next_header, sealed_len};
use ferry6_ike::TrafficSelector;
use ferry6_ike::wire::{
    Config, Delete, ExchangeType, HeaderFields, Notify, Payload, Proposal, RawId, Transform, encode_message,
    encode_payloads,
};
use std::path::Path;
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
    selectors()
}

fn esp() -> io::Result<()> {
    for (index, suite) in CipherSuite::all().enumerate() {
        for flags in 0..4_u8 {
            let keys = PacketKeys {
                suite,
                encryption: Secret::new(vec![0x42; suite.cipher().key_material_len()]),
                integrity: Secret::new(vec![0x24; suite.integ().map_or(0, Integ::key_len)]),
            };
            let spi = Spi::new(0x0f0e_0d0c).expect("not reserved");
            let mut sa =
                OutboundSa::new(&aws_lc::PROVIDER, spi, &keys, flags & 1 != 0).expect("the keys fit");
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
