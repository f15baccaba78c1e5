//! IKEv2 without I/O: two endpoints, and a loop that carries their messages and the time. A program with real sockets has
//! the same loop, with `recv_from` and a poll in place of the queue.

use ferry6_crypto::{aws_lc, provider::OsRandom};
use ferry6_ike::config::{AddressPool, Now};
use ferry6_ike::endpoint::Parts;
use ferry6_ike::event::{Path, Transmit};
use ferry6_ike::testing::{CountingSpis, config, pool, psk_connections};
use ferry6_ike::{Connection, Endpoint, Event};
use std::time::{Duration, Instant, SystemTime};

fn endpoint(connection: Connection, first_spi: u32, pool: Option<Box<dyn AddressPool>>) -> Endpoint {
    let (random, spis) = (Box::new(OsRandom), Box::new(CountingSpis(first_spi)));
    Endpoint::new(config([connection]), Parts { crypto: aws_lc::PROVIDER, random, spis, pool })
}

/// What an endpoint wants done: its messages go to the other one, the rest is told. Whether there was anything.
fn drain(name: &str, from: &mut Endpoint, to: &mut Endpoint, now: Now) -> bool {
    let mut any = false;
    while let Some(event) = from.poll() {
        any = true;
        match event {
            Event::Transmit(Transmit { path: Path { local, remote }, payload, .. }) => {
                println!("{name}: sends {} octets from port {} to {remote}", payload.len(), local.port());
                to.handle_datagram(now, Path { local: remote, remote: local }, &payload);
            }
            Event::Established(up) => println!("{name}: {} is up, {:?}", up.remote_id, up.lease),
            Event::InstallChildSa(sa) => {
                println!("{name}: install SPI {} in, {} out", sa.inbound.spi, sa.outbound.spi)
            }
            Event::Closed(closed) => println!("{name}: closed, {:?}", closed.reason),
            _ => {}
        }
    }
    any
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (client, broker) = psk_connections();
    let mut client = endpoint(client, 0x1000, None);
    let mut broker = endpoint(broker, 0x2000, Some(Box::new(pool())));
    let mut now = Now { monotonic: Instant::now(), wall: SystemTime::now() };

    let path = Path { local: "192.0.2.1:500".parse()?, remote: "203.0.113.1:500".parse()? };
    let ike = client.initiate(now, "to-broker", path)?;
    for second in 0..40 {
        if second == 35 {
            client.close(now, ike)?; // after each has once asked whether the other is there (DPD)
        }
        client.handle_timeout(now);
        broker.handle_timeout(now);
        while drain("client", &mut client, &mut broker, now) || drain("broker", &mut broker, &mut client, now)
        {
        }
        now.monotonic += Duration::from_secs(1);
    }
    assert!(client.is_idle(), "nothing of it is left");
    Ok(())
}
