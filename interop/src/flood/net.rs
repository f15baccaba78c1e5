//! The network of the floods: client and guest are honest, the attacker can send from any address, and what the broker sends
//! to an address that nobody has goes to the attacker, as it would go to the internet.
//!
//! ```text
//!  client   198.51.100.1 ---+                         +--- 2a00:1::80  server
//!  guest    192.0.2.1 ------+--- broker (.2 each) ----+
//!  attacker 203.0.113.1 ----+
//! ```

use crate::cases::ip;
use crate::ferry::{Ferry, Mode};
use anyhow::Result;
use ferry6::lab::{Host, Lab, LinkOptions};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The client's address, and the broker's on that link.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const BROKER_AT_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The broker's address on the attacker's link.
pub const BROKER_AT_ATTACKER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const BROKER_AT_GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Behind the broker.
pub const SERVER: Ipv6Addr = Ipv6Addr::new(0x2a00, 1, 0, 0, 0, 0, 0, 0x80);
/// Addresses that the attacker has, besides its own: all of this /12.
pub const OWN_NET: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
/// The broker's identity, and what its users' ones end in.
const BROKER_ID: &str = "tunnel.my.domain";
const PSK: &str = "a secret of the floods alone";

/// The hosts, and the files of what runs there.
pub struct Net {
    pub client: Host,
    pub guest: Host,
    pub attacker: Host,
    pub broker: Host,
    pub server: Host,
    pub ferry6: PathBuf,
    dir: PathBuf,
    /// The last field: it goes when the rest has gone.
    _lab: Lab,
}

impl Net {
    /// Builds it; files and logs go below `dir`.
    pub fn build(ferry6: &Path, dir: &Path) -> Result<Self> {
        let lab = Lab::new()?;
        let broker = lab.host("broker")?;
        broker.forward()?;
        // Its answers to spoofed addresses leave by the attacker's link, so that is where such packets may come from.
        broker.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
        broker.sysctl("net.ipv4.conf.default.rp_filter", "0")?;
        let link = |name: &str, interface: &str, address: Ipv4Addr| -> Result<Host> {
            let host = lab.host(name)?;
            let options = LinkOptions { ipv6: false, ..LinkOptions::default() };
            lab.link_with(&host, "eth0", &broker, interface, options)?;
            let own = Ipv4Addr::from(u32::from(address) - 1);
            host.address("eth0", &format!("{own}/24"))?;
            broker.address(interface, &format!("{address}/24"))?;
            Ok(host)
        };
        let client = link("client", "eth0", BROKER_AT_CLIENT)?;
        let guest = link("guest", "eth2", BROKER_AT_GUEST)?;
        let attacker = link("attacker", "eth3", BROKER_AT_ATTACKER)?;
        ip(&broker, "route add default via 203.0.113.1")?;
        ip(&attacker, &format!("route add local {OWN_NET}/12 dev lo"))?;
        let server = lab.host("server")?;
        lab.link(&broker, "eth1", &server, "eth0")?;
        broker.address("eth1", "2a00:1::1/64")?;
        server.address("eth0", &format!("{SERVER}/64"))?;
        server.route("::/0", "2a00:1::1")?;
        Ok(Self {
            client,
            guest,
            attacker,
            broker,
            server,
            ferry6: ferry6.into(),
            dir: dir.into(),
            _lab: lab,
        })
    }

    fn start(&self, host: &Host, mode: Mode, name: &str, toml: &str) -> Result<Ferry> {
        let dir = self.dir.join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        Ferry::start(&self.ferry6, host, mode, &dir, toml, &[])
    }

    /// Starts the broker; `listen` are more lines of that table.
    pub fn broker(&self, listen: &str) -> Result<Ferry> {
        let dir = self.dir.join("broker");
        let toml = format!(
            "control = \"{}\"\nstate_dir = \"{}\"\n[listen]\n{listen}[pool]\nrange = \"2a00:2::/112\"\n[local]\n\
             id = \"{BROKER_ID}\"\npsk = \"{PSK}\"\n[remote]\nid = \"*@my.domain\"\n",
            Ferry::socket(&dir).display(),
            dir.join("state").display(),
        );
        self.start(&self.broker, Mode::Broker, "broker", &toml)
    }

    /// Starts a client on its host, and waits until its tunnel is up.
    pub fn connect(&self, host: &Host, name: &str) -> Result<Ferry> {
        let broker = if name == "client" { BROKER_AT_CLIENT } else { BROKER_AT_GUEST };
        let socket = Ferry::socket(&self.dir.join(name));
        self.start(host, Mode::Client, name, &client_toml(broker, name, &socket))
    }

    /// The configuration of a client for [`super::clients::Clients`], which has no control socket.
    pub fn client_config(&self, name: &str) -> Result<ferry6::config::Client> {
        let file = self.dir.join(format!("{name}.toml"));
        crate::write_private(&file, &client_toml(BROKER_AT_ATTACKER, name, &self.dir.join("none")))?;
        Ok(ferry6::config::client(&file)?)
    }

    /// Waits until a ping from this host reaches the server.
    pub fn wait_for_ping(&self, host: &Host, patience: Duration) -> Result<()> {
        crate::traffic::wait_for_ping(host, SERVER, patience)
    }
}

fn client_toml(broker: Ipv4Addr, name: &str, socket: &Path) -> String {
    format!(
        "control = \"{}\"\n[broker]\naddress = \"{broker}\"\n[local]\nid = \"{name}@my.domain\"\npsk = \"{PSK}\"\n[remote]\n\
         id = \"{BROKER_ID}\"\n",
        socket.display()
    )
}
