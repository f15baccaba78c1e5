//! A client that is let in, and then keeps to nothing: it sends whatever it likes through its Child SA.

use crate::flood::clients::{Clients, Happened};
use anyhow::{Context, Result, bail, ensure};
use ferry6::lab::Host;
use ferry6_crypto::aws_lc;
use ferry6_esp::{InboundSa, OutboundSa, next_header};
use ferry6_ike::event::ChildSa;
use ferry6_ike::{Connection, TrafficSelector};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

/// The client, its tunnel up.
pub struct Rogue {
    clients: Clients,
    outbound: OutboundSa,
    inbound: InboundSa,
    /// What the broker left of the selectors that it asked for.
    pub granted: Vec<TrafficSelector>,
    echoes: u16,
}

impl Rogue {
    /// Connects from this host.
    pub fn connect(host: &Host, broker: Ipv4Addr, connection: Connection) -> Result<Self> {
        let mut clients = Clients::new(host, broker)?;
        clients.initiate(&Arc::new(connection))?;
        let end = Instant::now() + PATIENCE;
        loop {
            for happened in clients.turn(Duration::from_millis(20))? {
                match happened {
                    Happened::Child(child) => return Self::with(clients, *child),
                    Happened::Closed(_, why) => bail!("the rogue is not let in: {why}"),
                    Happened::Up(_) | Happened::Esp(_) => {}
                }
            }
            ensure!(Instant::now() < end, "the rogue has no tunnel after {} s", PATIENCE.as_secs());
        }
    }

    fn with(clients: Clients, child: ChildSa) -> Result<Self> {
        let provider = &aws_lc::PROVIDER;
        let window = 1024;
        let inbound = InboundSa::new(provider, child.inbound.spi, &child.inbound.keys, child.esn, window)?;
        let outbound = OutboundSa::new(provider, child.outbound.spi, &child.outbound.keys, child.esn)?;
        Ok(Self { clients, outbound, inbound, granted: child.local_ts, echoes: 0 })
    }

    /// Sends an echo request from any address to any other.
    pub fn echo_request(&mut self, from: Ipv6Addr, to: Ipv6Addr) -> Result<()> {
        self.echoes += 1;
        let packet = echo_request(from, to, self.echoes);
        let mut buffer = vec![0; self.outbound.sealed_len(packet.len())];
        let front = self.outbound.overhead().front;
        buffer[front..][..packet.len()].copy_from_slice(&packet);
        let len = self.outbound.seal(&mut buffer, packet.len(), next_header::IPV6)?;
        self.clients.send_esp(&buffer[..len])
    }

    /// The destinations of all that comes out of the tunnel within this time.
    pub fn receives(&mut self, within: Duration) -> Result<Vec<Ipv6Addr>> {
        let end = Instant::now() + within;
        let mut destinations = Vec::new();
        while Instant::now() < end {
            for happened in self.clients.turn(Duration::from_millis(20))? {
                match happened {
                    Happened::Esp(mut packet) => {
                        let opened = self.inbound.open(&mut packet).context("ESP for the rogue")?;
                        let destination = opened.payload.get(24..40).context("an IPv6 packet")?;
                        destinations.push(Ipv6Addr::from(<[u8; 16]>::try_from(destination)?));
                    }
                    Happened::Closed(_, why) => bail!("the tunnel of the rogue ended: {why}"),
                    Happened::Up(_) | Happened::Child(_) => {}
                }
            }
        }
        Ok(destinations)
    }
}

fn echo_request(from: Ipv6Addr, to: Ipv6Addr, number: u16) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    let mut message = vec![128, 0, 0, 0, 0x66, 0x06];
    message.extend(number.to_be_bytes());
    // RFC 8200 section 8.1: the pseudo-header.
    let mut summed = [from.octets(), to.octets()].concat();
    summed.extend((message.len() as u32).to_be_bytes());
    summed.extend([0, 0, 0, ICMPV6]);
    summed.extend(&message);
    let sum: u32 = summed.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((message.len() as u16).to_be_bytes());
    packet.extend([ICMPV6, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(message);
    packet
}
