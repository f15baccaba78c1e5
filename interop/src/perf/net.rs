//! The network of a measurement: client - broker - server, IPv4 alone between client and broker, IPv6 behind the broker.
//!
//! ```text
//!  client               broker                    server
//!  198.51.100.1 ------- 198.51.100.2
//!                       2a00:1::1 --------------- 2a00:1::80
//! ```
//! Each subject has one of its own, so that all tunnels stand at the same time and rounds can be interleaved.

use anyhow::Result;
use ferry6::lab::{Host, Lab, LinkOptions};

/// The client's IPv4 address.
pub const CLIENT: &str = "198.51.100.1";
/// The broker's.
pub const BROKER: &str = "198.51.100.2";
/// The server's IPv6 address.
pub const SERVER: &str = "2a00:1::80";
/// The client's address inside the tunnels that have no way to lease one, and with no tunnel.
pub const CLIENT_INNER: &str = "2a00:9::2";
/// The broker's beside it.
pub const BROKER_INNER: &str = "2a00:9::1";

/// The three hosts.
pub struct Net {
    pub client: Host,
    pub broker: Host,
    pub server: Host,
    /// The last field: it goes when the rest has gone.
    _lab: Lab,
}

impl Net {
    /// Builds it. `dual`: IPv6 between client and broker, too, for the path without a tunnel.
    pub fn build(dual: bool) -> Result<Self> {
        let lab = Lab::new()?;
        let (client, broker, server) = (lab.host("client")?, lab.host("broker")?, lab.host("server")?);
        broker.forward()?;
        lab.link_with(
            &client,
            "eth0",
            &broker,
            "eth0",
            LinkOptions { ipv6: dual, ..LinkOptions::default() },
        )?;
        client.address("eth0", &format!("{CLIENT}/24"))?;
        broker.address("eth0", &format!("{BROKER}/24"))?;
        if dual {
            client.address("eth0", &format!("{CLIENT_INNER}/64"))?;
            broker.address("eth0", &format!("{BROKER_INNER}/64"))?;
            client.route("::/0", BROKER_INNER)?;
        }
        lab.link(&broker, "eth1", &server, "eth0")?;
        broker.address("eth1", "2a00:1::1/64")?;
        server.address("eth0", &format!("{SERVER}/64"))?;
        server.route("::/0", "2a00:1::1")?;
        Ok(Self { client, broker, server, _lab: lab })
    }
}
