//! What the program tells the router.

use crate::size::SizePolicy;
use ferry6_crypto::CryptoProvider;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Which TUN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeviceKind {
    /// Multi-queue with virtio-net header and segmentation offload where the kernel has it; found out at start.
    #[default]
    Auto,
    /// One packet a system call, through the `tun-tap` crate: the baseline.
    TunTap,
}

/// Configuration of a [`crate::Router`].
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Interface name; `ferry%d` lets the kernel count.
    pub tun_name: String,
    /// Device kind.
    pub device: DeviceKind,
    /// Whether packets cross the device and the UDP sockets in super-packets (TSO, USO, GSO, GRO) where the kernel has
    /// them. Off, each packet is a system call of its own on the device; for comparison, and against faulty drivers.
    pub offload: bool,
    /// MTU of the TUN device, at least 1280.
    pub mtu: u16,
    /// MTU of the tunnel, and what its outer packets say.
    pub sizes: SizePolicy,
    /// IPv4 address to listen on; unspecified for all.
    pub listen: Ipv4Addr,
    /// UDP port for IKE; 500. 0 lets the kernel choose (a client that may not bind low ports).
    pub ike_port: u16,
    /// UDP port for ESP and IKE; 4500. 0 lets the kernel choose.
    pub nat_port: u16,
    /// Workers; 0: as many as cores.
    pub workers: usize,
    /// Replay window in packets.
    pub replay_window: u32,
    /// Interval of NAT keepalives when we are behind a NAT; 0 switches them off (RFC 3948 section 4: 20 s).
    pub keepalive: Duration,
    /// Tell the keys of Child SAs by [`crate::RouterEvent::ChildKeys`]. Never in normal use.
    pub keylog: bool,
    /// Cryptography for ESP.
    pub crypto: CryptoProvider,
}
