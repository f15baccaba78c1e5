//! Takes an IKE message apart: `cargo run -p ferry6-examples --example ike_message -- HEX`, or one of its own.

use ferry6_ike::wire::{
    ExchangeType, Header, HeaderFields, Notify, Payload, Proposal, Transform, encode_message, notify,
    parse_payloads, payload_type,
};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let message = match std::env::args().nth(1) {
        Some(text) => hex::decode(text.replace([' ', ':', '\n'], ""))?,
        None => own_message(),
    };
    let header = Header::parse(&message)?;
    println!(
        "{} {} {}, message ID {}, {} octets",
        header.exchange,
        if header.response { "response" } else { "request" },
        if header.from_initiator { "from the initiator" } else { "from the responder" },
        header.message_id,
        message.len()
    );
    println!("  SPIs {:016x} / {:016x}", header.initiator_spi, header.responder_spi);
    for payload in parse_payloads(header.next_payload, &message[Header::LEN..])? {
        let number = payload.payload_type();
        let name = payload_type::name(number).map_or_else(|| format!("payload type {number}"), str::to_owned);
        match payload {
            Payload::Sa(proposals) => {
                println!("  {name}");
                for proposal in proposals {
                    let transforms: Vec<_> = proposal.transforms.iter().map(ToString::to_string).collect();
                    println!("    proposal {}: {}", proposal.number, transforms.join(", "));
                }
            }
            Payload::Notify(notify) => {
                println!("  {name} {}, {} octets", notify::display(notify.notify_type), notify.data.len());
            }
            Payload::TsInitiator(selectors) | Payload::TsResponder(selectors) => {
                let selectors: Vec<_> = selectors.iter().map(ToString::to_string).collect();
                println!("  {name} {}", selectors.join(" "));
            }
            Payload::KeyExchange { group, data } => println!("  {name} group {group}, {} octets", data.len()),
            Payload::Nonce(nonce) => println!("  {name} {}", hex::encode(nonce)),
            // what is encrypted stays so: the keys are with the two ends
            Payload::Unknown { data, .. } => println!("  {name}, {} octets", data.len()),
            other => println!("  {name} {other:?}"),
        }
    }
    Ok(())
}

/// The first message of a handshake.
fn own_message() -> Vec<u8> {
    let header = HeaderFields {
        initiator_spi: 0x0011_2233_4455_6677,
        responder_spi: 0,
        exchange: ExchangeType::IkeSaInit,
        from_initiator: true,
        response: false,
        message_id: 0,
    };
    let proposal = Proposal {
        number: 1,
        protocol: 1,
        spi: Vec::new(),
        transforms: vec![
            // ENCR_AES_GCM_16 with 256 bits, PRF_HMAC_SHA2_256, Curve25519
            Transform { key_length: Some(256), ..Transform::new(1, 20) },
            Transform::new(2, 5),
            Transform::new(4, 31),
        ],
    };
    let payloads = [
        Payload::Sa(vec![proposal]),
        Payload::KeyExchange { group: 31, data: vec![9; 32] },
        Payload::Nonce(vec![7; 32]),
        // NAT_DETECTION_SOURCE_IP, IKEV2_FRAGMENTATION_SUPPORTED
        Payload::Notify(Notify::new(16388, vec![1; 20])),
        Payload::Notify(Notify::new(16430, Vec::new())),
    ];
    encode_message(&header, &payloads)
}
