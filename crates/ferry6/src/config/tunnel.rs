//! `[tunnel]`: device, workers, cryptography. The same on both sides.

use super::reader::Section;
use super::values;
use ferry6_crypto::CryptoProvider;
use ferry6_ike::config::EndpointConfig;
use ferry6_tun_router::{DeviceKind, RouterConfig};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The tunnel device and what drives it.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Interface name; `ferry%d` lets the kernel count.
    pub device: String,
    /// Which kind of device.
    pub kind: DeviceKind,
    /// Whether super-packets are used.
    pub offload: bool,
    /// MTU in octets.
    pub mtu: u16,
    /// Workers; 0 for as many as cores.
    pub workers: usize,
    /// Cryptography.
    pub crypto: CryptoProvider,
    /// Replay window in packets.
    pub replay_window: u32,
    /// Interval of NAT keepalives; zero for none.
    pub keepalive: Duration,
    /// How long a replaced inbound SA still takes packets.
    pub linger: Duration,
    /// Metric of the routes into the device: lower than that of router advertisements (1024), so that the tunnel wins
    /// while it is up.
    pub metric: u32,
}

/// IPv4 address and UDP ports of `[listen]`.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// Address; unspecified for all.
    pub address: Ipv4Addr,
    /// IKE without NAT; 0 lets the kernel choose.
    pub port: u16,
    /// IKE and ESP behind the non-ESP marker; 0 lets the kernel choose.
    pub nat_port: u16,
}

impl Listen {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let listen = Self {
            address: section
                .parsed("address", "an IPv4 address", values::address4)
                .map_or(Ipv4Addr::UNSPECIFIED, |f| f.value),
            port: section.number_or("port", 0..65_536, 500),
            nat_port: section.number_or("nat_port", 0..65_536, 4500),
        };
        if listen.port == listen.nat_port && listen.port != 0 {
            section.document().problem(&section.here(), "port and nat_port must differ");
        }
        listen
    }
}

/// What fits every path of the article: 1500 octets less PPPoE, IPv4, UDP, and the largest ESP overhead.
const DEFAULT_MTU: u16 = 1400;

impl Tunnel {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let device = section
            .parsed("device", "an interface name", interface_name)
            .map_or_else(|| "ferry%d".to_owned(), |f| f.value);
        let kind = section.choice("kind", &[("auto", DeviceKind::Auto), ("tun-tap", DeviceKind::TunTap)]);
        let time = |key, default| {
            section
                .scalar(key, "a duration like \"20s\"", values::duration)
                .map_or(Duration::from_secs(default), |f| f.value)
        };
        Self {
            device,
            kind: kind.map_or(DeviceKind::Auto, |f| f.value),
            offload: section.flag("offload").is_none_or(|f| f.value),
            mtu: section.number_or("mtu", 1280..65_536, DEFAULT_MTU),
            workers: section.number_or("workers", 0..257, 0),
            crypto: section
                .choice(
                    "crypto",
                    &[
                        ("aws-lc", ferry6_crypto::aws_lc::PROVIDER),
                        ("rustcrypto", ferry6_crypto::rustcrypto::PROVIDER),
                    ],
                )
                .map_or(ferry6_crypto::aws_lc::PROVIDER, |f| f.value),
            replay_window: section.number_or("replay_window", 0..65_537, 1024),
            keepalive: time("keepalive", 20),
            linger: time("linger", 5),
            metric: section.number_or("metric", 1..u64::from(u32::MAX) + 1, 50),
        }
    }

    /// The endpoint's configuration, as far as the device and the ports decide it.
    pub fn endpoint(&self, listen: Listen) -> EndpointConfig {
        let default = EndpointConfig::default();
        let nat_port = if listen.nat_port == 0 { default.nat_port } else { listen.nat_port };
        EndpointConfig { nat_port, linger: self.linger, ..default }
    }

    /// The router's configuration for these sockets.
    pub fn router(&self, listen: Listen) -> RouterConfig {
        RouterConfig {
            tun_name: self.device.clone(),
            device: self.kind,
            offload: self.offload,
            mtu: self.mtu,
            listen: listen.address,
            ike_port: listen.port,
            nat_port: listen.nat_port,
            workers: self.workers,
            replay_window: self.replay_window,
            keepalive: self.keepalive,
            keylog: false,
            crypto: self.crypto,
        }
    }
}

/// IFNAMSIZ is 16 with the final zero; no slash, no colon, no space; `%d` at most once.
fn interface_name(text: &str) -> Result<String, String> {
    let fits = (1..=15).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
        && !matches!(text, "." | "..")
        && matches!(text.matches('%').count(), 0 | 1)
        && (!text.contains('%') || text.contains("%d"));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "expected an interface name of at most 15 characters like \"ferry0\" or \"ferry%d\", found {text:?}"
        ))
    }
}
