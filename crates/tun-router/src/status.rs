//! The snapshot that `ferry6 status` shows. Serde's field names are the JSON's.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The router as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RouterStatus {
    /// Interface name.
    pub tun: String,
    /// What was found out at start: `virtio-net header, TSO, USO, 2 queues` or `tun-tap`.
    pub device: String,
    /// `GSO, GRO` or `sendmmsg`.
    pub udp: String,
    /// Crypto provider.
    pub crypto: String,
    /// MTU of the TUN device.
    pub mtu: u16,
    /// Worker threads.
    pub workers: usize,
    /// IKE SAs with their children.
    pub ike_sas: Vec<IkeSa>,
    /// Packets dropped that belong to no SA, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// An IKE SA.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IkeSa {
    /// Number inside this process.
    pub id: u64,
    /// Connection name.
    pub connection: Option<String>,
    /// `initiator` or `responder`.
    pub role: String,
    /// State.
    pub state: String,
    /// `ip:port`.
    pub local: String,
    /// `ip:port`.
    pub remote: String,
    /// Our identity.
    pub local_id: Option<String>,
    /// The peer's.
    pub remote_id: Option<String>,
    /// 16 hex digits.
    pub initiator_spi: String,
    /// 16 hex digits.
    pub responder_spi: String,
    /// Suite.
    pub algorithms: String,
    /// We are behind a NAT.
    pub nat_local: bool,
    /// The peer is.
    pub nat_remote: bool,
    /// Seconds since it came up.
    pub age: Option<u64>,
    /// Seconds until its rekey.
    pub next_rekey: Option<u64>,
    /// The peer's software where it told.
    pub vendor: Vec<String>,
    /// Child SAs.
    pub children: Vec<ChildSa>,
}

/// A Child SA: a pair of ESP SAs and its flows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChildSa {
    /// Reqid.
    pub reqid: u32,
    /// Our SPI, `0x%08x`.
    pub spi_in: String,
    /// The peer's.
    pub spi_out: String,
    /// Suite.
    pub algorithms: String,
    /// Extended sequence numbers.
    pub esn: bool,
    /// CPIs where IPComp is on.
    pub ipcomp_in: Option<u16>,
    /// The peer's.
    pub ipcomp_out: Option<u16>,
    /// Our selectors as text.
    pub local_ts: Vec<String>,
    /// Theirs.
    pub remote_ts: Vec<String>,
    /// Owning worker.
    pub worker: usize,
    /// Inner packets and octets.
    pub packets_in: u64,
    /// Octets.
    pub bytes_in: u64,
    /// Packets.
    pub packets_out: u64,
    /// Octets.
    pub bytes_out: u64,
    /// Drops of this SA by reason.
    pub drops: BTreeMap<String, u64>,
    /// Seconds since installed.
    pub age: u64,
    /// Seconds until its rekey.
    pub next_rekey: Option<u64>,
}
