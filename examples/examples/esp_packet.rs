//! Seals an IPv6 packet in ESP and opens it again; then tries what an attacker would.

use ferry6_crypto::{Cipher, CipherSuite, PacketKeys, Secret, Spi, aws_lc};
use ferry6_esp::{InboundSa, OutboundSa, Overhead, next_header, sealed_len};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    // Both ends get these from IKE: a suite, an SPI, and key material (here a key of 16 octets and a salt of 4).
    let suite = CipherSuite::new(Cipher::Aes128Gcm16, None).ok_or("an AEAD takes no integrity algorithm")?;
    let spi = Spi::new(0xc0ff_ee01).ok_or("SPIs up to 255 are reserved")?;
    let keys =
        PacketKeys { suite, encryption: Secret::new((0..20).collect()), integrity: Secret::new(Vec::new()) };
    let mut sender = OutboundSa::new(&aws_lc::PROVIDER, spi, &keys, true)?;
    let mut receiver = InboundSa::new(&aws_lc::PROVIDER, spi, &keys, true, 1024)?;

    // An IPv6 header with nothing behind it. The payload is put where it will stay: sealing moves no octet.
    let mut payload = [0_u8; 40];
    payload[0] = 0x60;
    payload[6] = next_header::DUMMY;
    let front = Overhead::of(suite).front;
    let mut packet = vec![0; sealed_len(suite, payload.len())];
    packet[front..][..payload.len()].copy_from_slice(&payload);
    let len = sender.seal(&mut packet, payload.len(), next_header::IPV6)?;
    println!("sealed: {len} octets for {} of payload", payload.len());
    println!("  SPI {}  sequence {}", hex::encode(&packet[..4]), hex::encode(&packet[4..8]));
    println!("  the rest: {}", hex::encode(&packet[8..]));

    let mut copy = packet.clone();
    let opened = receiver.open(&mut copy)?;
    assert_eq!(*opened.payload, payload);
    println!("opened: next header {}, sequence number {}", opened.next_header, opened.sequence);

    let mut replayed = packet.clone();
    println!("the same again: {}", receiver.open(&mut replayed).expect_err("a replay"));
    let mut forged = packet.clone();
    forged[7] += 1;
    println!("with another sequence number: {}", receiver.open(&mut forged).expect_err("a forgery"));
    println!("cut short: {}", receiver.open(&mut packet[..20]).expect_err("a torso"));
    Ok(())
}
