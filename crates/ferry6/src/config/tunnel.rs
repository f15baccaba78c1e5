//! `[tunnel]`: device, workers, cryptography. The same on both sides.

use super::reader::Section;
use super::values;
use ferry6_crypto::CipherSuite;
use ferry6_crypto::CryptoProvider;
use ferry6_ike::config::EndpointConfig;
use ferry6_tun_router::size::{self, DfPolicy, MssClamp, OuterFields, SizePolicy};
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
    /// MTU, DF, MSS, DSCP and ECN.
    pub sizes: SizePolicy,
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

impl Tunnel {
    /// `clamp`: whether the MSS of TCP is clamped where nothing is said.
    pub(super) fn read(section: &Section<'_>, clamp: MssClamp) -> Self {
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
            sizes: sizes(section, clamp),
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

    /// The MTU that the device starts with: by itself the largest that a path of 1500 octets lets through with any suite. What is
    /// too large for an SA is refused there.
    pub fn device_mtu(&self) -> u16 {
        let largest = CipherSuite::all().map(|suite| size::tunnel_mtu(suite, size::USUAL_PATH)).max();
        let largest = largest.and_then(|mtu| u16::try_from(mtu).ok());
        self.sizes.mtu.or(largest).unwrap_or(size::IPV6_MIN_MTU as u16)
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
            mtu: self.device_mtu(),
            sizes: self.sizes,
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

/// `mtu`, `df`, `mss_clamp`, `dscp` and `ecn`.
fn sizes(section: &Section<'_>, clamp: MssClamp) -> SizePolicy {
    let df = [("auto", DfPolicy::Auto), ("set", DfPolicy::Set), ("clear", DfPolicy::Clear)];
    let mss = [("auto", MssClamp::Auto), ("off", MssClamp::Off)];
    let dscp = section.choice_or_number("dscp", &[("copy", None)], 0..64);
    SizePolicy {
        mtu: section.choice_or_number("mtu", &[("auto", None)], 1280..65_536).and_then(|f| match f.value {
            Ok(auto) => auto,
            Err(number) => u16::try_from(number).ok(),
        }),
        df: section.choice("df", &df).map_or(DfPolicy::Auto, |f| f.value),
        mss: section.choice_or_number("mss_clamp", &mss, 536..65_536).map_or(clamp, |f| match f.value {
            Ok(word) => word,
            Err(number) => u16::try_from(number).map_or(clamp, MssClamp::AtMost),
        }),
        fields: OuterFields {
            dscp: dscp.and_then(|f| match f.value {
                Ok(copy) => copy,
                Err(number) => u8::try_from(number).ok(),
            }),
            ecn: section.choice("ecn", &[("copy", true), ("off", false)]).is_none_or(|f| f.value),
        },
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
