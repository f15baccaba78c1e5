//! A tunnel's life on a fake clock: the first message is lost, the Child SA is rekeyed under traffic, the client leaves.
//! It takes some milliseconds of real time.

use ferry6_crypto::aws_lc;
use ferry6_ike::testing::{Fate, Pair, Side, psk_connections};
use ferry6_ike::wire::Header;
use std::time::Duration;

fn main() {
    let (client, broker) = psk_connections();
    let mut pair = Pair::new(aws_lc::PROVIDER, client, broker);
    let mut first = true;
    pair.link.fate = Box::new(move |_| if std::mem::take(&mut first) { Fate::Drop } else { Fate::Deliver });

    let ike = pair.initiate();
    pair.run(Duration::from_secs(10));
    let up = pair.client.established()[0].clone();
    println!("established; the client's address is {:?}", up.lease.address);
    tell_messages(&pair, 0);

    let child = pair.client.live()[0].clone();
    println!("Child SA {} out, {} in", child.outbound.spi, child.inbound.spi);
    let selectors = |list: &[ferry6_ike::TrafficSelector]| {
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    println!("  {} === {}", selectors(&child.local_ts), selectors(&child.remote_ts));

    let before = pair.sent.len();
    pair.act(Side::Client, |endpoint, now| endpoint.rekey_child(now, child.reqid)).expect("it is up");
    pair.run_with_pings(Duration::from_secs(2), Duration::from_millis(10));
    println!(
        "rekeyed: {} now, {} pings came, {} were lost",
        pair.client.live()[0].outbound.spi,
        pair.broker.pings,
        pair.broker.lost_pings.len()
    );
    tell_messages(&pair, before);

    let before = pair.sent.len();
    pair.act(Side::Client, |endpoint, now| endpoint.close(now, ike)).expect("it is up");
    pair.run(Duration::from_secs(2));
    println!("closed on both sides: {:?}", pair.broker.closed()[0].reason);
    tell_messages(&pair, before);
}

fn tell_messages(pair: &Pair, from: usize) {
    for (side, octets) in &pair.sent[from..] {
        let header = Header::parse(octets).expect("our own message");
        let kind = if header.response { "response" } else { "request" };
        println!("  {side:?}: {} {kind} {}, {} octets", header.exchange, header.message_id, octets.len());
    }
}
