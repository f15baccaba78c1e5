//! The network of the article: a home behind a masquerading router, an IPv4-only internet, and a broker in a dual-stack
//! colocation network behind a static NAT.
//!
//! ```text
//!  home            home-router             internet              firewall                 broker
//!  192.168.0.2 --- 192.168.0.1   1.2.3.4 --- 1.2.3.1   5.6.7.1 --- 5.6.7.8   192.168.100.1 --- 192.168.100.2
//!                  masquerade              IPv4 only             UDP 500, 4500     2a00::1     2a00::2
//!                                                                to the broker
//!                                                                          2a00:1::1 --- 2a00:1::80
//!                                                                                        server
//! ```

use super::{Error, Host, Lab, LinkOptions};

/// The home router's public address.
pub const HOME_PUBLIC: &str = "1.2.3.4";
/// The broker in its own network.
pub const BROKER: &str = "192.168.100.2";
/// The address under which the internet sees the broker.
pub const BROKER_PUBLIC: &str = "5.6.7.8";
/// The broker's IPv6 address.
pub const BROKER_IPV6: &str = "2a00::2";
/// The addresses for clients; the firewall routes them to the broker.
pub const POOL: &str = "2a00::100/120";
/// An IPv6 host beyond the firewall.
pub const SERVER: &str = "2a00:1::80";

/// What to vary.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Masquerading at home and static NAT before the broker, through nftables. Without, all addresses are routed, and
    /// the broker itself has [`BROKER_PUBLIC`].
    pub nat: bool,
    /// MTU of the links from home router to internet and on to the firewall, in octets.
    pub internet_mtu: u32,
    /// Super-packets cross links whole.
    pub gso: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { nat: true, internet_mtu: 1500, gso: true }
    }
}

/// The network, built.
#[derive(Debug)]
pub struct Article {
    /// How it was built.
    pub options: Options,
    /// The first home's computer; its interface is `eth0`.
    pub home: Host,
    /// The first home's router: `lan` and `wan`.
    pub home_router: Host,
    /// The internet, a router without IPv6: `home` towards the first home, `colo` towards the colocation network.
    pub internet: Host,
    /// The colocation firewall: `wan`, `dmz` towards the broker, `v6` towards the server.
    pub firewall: Host,
    /// The broker: `eth0`.
    pub broker: Host,
    /// The IPv6 host beyond: `eth0`.
    pub server: Host,
    /// The laboratory, for more hosts and links. The last field: it goes when the rest has gone.
    pub lab: Lab,
}

/// A further home: a router with a public address of its own and a network `192.168.n.0/24` behind it.
#[derive(Debug)]
pub struct Site {
    /// The router: `lan`, a bridge, and `wan`.
    pub router: Host,
    number: u8,
    clients: std::cell::Cell<u8>,
}

/// Builds the network.
///
/// # Errors
/// [`Error::Privilege`] or [`Error::NoNat`] (then try `nat: false`), or what the kernel refuses.
pub fn build(options: Options) -> Result<Article, Error> {
    let lab = Lab::new()?;
    let host = |name: &str| lab.host(name);
    let (home, home_router, internet) = (host("home")?, host("home-router")?, host("internet")?);
    let (firewall, broker, server) = (host("firewall")?, host("broker")?, host("server")?);
    let article = Article { options, home, home_router, internet, firewall, broker, server, lab };
    article.wire()?;
    Ok(article)
}

impl Article {
    fn ipv4_only(&self) -> LinkOptions {
        LinkOptions { mtu: None, ipv6: false, gso: self.options.gso }
    }

    fn outside(&self) -> LinkOptions {
        LinkOptions { mtu: Some(self.options.internet_mtu), ..self.ipv4_only() }
    }

    fn wire(&self) -> Result<(), Error> {
        let Article { options, home, home_router, internet, firewall, broker, server, lab } = self;
        let dual = LinkOptions { mtu: None, ipv6: true, gso: options.gso };
        ipv4_router(internet)?;
        ipv4_router(home_router)?;
        firewall.forward()?;

        lab.link_with(home, "eth0", home_router, "lan", self.ipv4_only())?;
        home.address("eth0", "192.168.0.2/24")?;
        home.route("default", "192.168.0.1")?;
        home_router.address("lan", "192.168.0.1/24")?;

        lab.link_with(home_router, "wan", internet, "home", self.outside())?;
        home_router.address("wan", "1.2.3.4/24")?;
        home_router.route("default", "1.2.3.1")?;
        internet.address("home", "1.2.3.1/24")?;

        lab.link_with(internet, "colo", firewall, "wan", self.outside())?;
        internet.address("colo", "5.6.7.1/24")?;
        firewall.address("wan", if options.nat { "5.6.7.8/24" } else { "5.6.7.2/24" })?;
        firewall.route("default", "5.6.7.1")?;

        lab.link_with(firewall, "dmz", broker, "eth0", dual)?;
        firewall.address("dmz", "192.168.100.1/24")?;
        firewall.address("dmz", "2a00::1/64")?;
        firewall.route(POOL, BROKER_IPV6)?;
        broker.address("eth0", "192.168.100.2/24")?;
        broker.address("eth0", "2a00::2/64")?;
        broker.route("default", "192.168.100.1")?;
        broker.route("default", "2a00::1")?;

        lab.link_with(firewall, "v6", server, "eth0", dual)?;
        firewall.address("v6", "2a00:1::1/64")?;
        server.address("eth0", "2a00:1::80/64")?;
        server.route("default", "2a00:1::1")?;

        if options.nat {
            home_router.nft(MASQUERADE)?;
            firewall.nft(STATIC_NAT)
        } else {
            internet.route("192.168.0.0/24", HOME_PUBLIC)?;
            internet.route("5.6.7.8/32", "5.6.7.2")?;
            firewall.route("5.6.7.8/32", BROKER)?;
            broker.address("eth0", "5.6.7.8/32")
        }
    }

    /// A further home, number 1 to 250: `192.168.<number>.0/24` behind the public address `1.2.<3 + number>.4`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn site(&self, number: u8) -> Result<Site, Error> {
        let router = self.lab.host(&format!("router-{number}"))?;
        ipv4_router(&router)?;
        let (third, port) = (3 + u16::from(number), format!("home{number}"));
        self.lab.link_with(&router, "wan", &self.internet, &port, self.outside())?;
        router.address("wan", &format!("1.2.{third}.4/24"))?;
        router.route("default", &format!("1.2.{third}.1"))?;
        self.internet.address(&port, &format!("1.2.{third}.1/24"))?;
        router.bridge("lan")?;
        router.address("lan", &format!("192.168.{number}.1/24"))?;
        if self.options.nat {
            router.nft(MASQUERADE)?;
        } else {
            self.internet.route(&format!("192.168.{number}.0/24"), &format!("1.2.{third}.4"))?;
        }
        Ok(Site { router, number, clients: std::cell::Cell::new(0) })
    }

    /// Links a host into a site's network as `interface`, without a default route, and returns its new address. The first
    /// host becomes `192.168.<number>.2`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn attach(&self, site: &Site, host: &Host, interface: &str) -> Result<String, Error> {
        let client = site.clients.get() + 1;
        site.clients.set(client);
        let port = format!("lan{client}");
        self.lab.link_with(host, interface, &site.router, &port, self.ipv4_only())?;
        site.router.bridge_port("lan", &port)?;
        let address = format!("192.168.{}.{}", site.number, client + 1);
        host.address(interface, &format!("{address}/24"))?;
        Ok(address)
    }

    /// Puts the default IPv4 route of a host to a site's router. The host must be attached, and have no other.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn default_route(&self, site: &Site, host: &Host) -> Result<(), Error> {
        host.route("default", &format!("192.168.{}.1", site.number))
    }
}

/// A router that knows no IPv6.
fn ipv4_router(host: &Host) -> Result<(), Error> {
    host.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
    host.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
    host.sysctl("net.ipv4.ip_forward", "1")
}

/// All of the home behind one address, with source ports of the router's own choice.
const MASQUERADE: &str = "
table ip nat {
    chain postrouting {
        type nat hook postrouting priority 100;
        oifname \"wan\" meta l4proto { tcp, udp } masquerade to :20000-60000 random
        oifname \"wan\" masquerade
    }
}
";

/// The broker under the firewall's address, for IKE and ESP in UDP alone; nothing else comes in.
const STATIC_NAT: &str = "
table ip nat {
    chain prerouting {
        type nat hook prerouting priority -100;
        iifname \"wan\" ip daddr 5.6.7.8 udp dport { 500, 4500 } dnat to 192.168.100.2
    }
    chain postrouting {
        type nat hook postrouting priority 100;
        oifname \"wan\" ip saddr 192.168.100.2 snat to 5.6.7.8
    }
}
table ip filter {
    chain forward {
        type filter hook forward priority 0;
        ct state established,related accept
        iifname \"wan\" ct status dnat accept
        iifname \"wan\" drop
    }
    chain input {
        type filter hook input priority 0;
        ct state established,related accept
        iifname \"wan\" drop
    }
}
";
