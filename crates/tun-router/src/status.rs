//! The snapshot that `ferry6 status` shows. Serde's field names are the JSON's.

use crate::control::{Child, Control, Pair};
use crate::counters::SaCounters;
use ferry6_ike::TrafficSelector;
use ferry6_ike::config::Role;
use ferry6_ike::endpoint::{ChildSaStatus, IkeSaStatus};
use ferry6_ike::event::IkeSaId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

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
    /// IKE messages dropped, refused or repeated, and peers refused, by cause.
    #[serde(default)]
    pub ike: BTreeMap<String, u64>,
    /// Half-open IKE SAs.
    #[serde(default)]
    pub half_open: usize,
    /// What all tunnels carried since the start.
    #[serde(default)]
    pub traffic: Traffic,
}

/// Inner packets and octets; these counts never fall, whatever is rekeyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets to us.
    pub packets_in: u64,
    /// Octets to us.
    pub bytes_in: u64,
    /// Packets from us.
    pub packets_out: u64,
    /// Octets from us.
    pub bytes_out: u64,
}

impl Traffic {
    pub(crate) fn of(counters_in: &SaCounters, counters_out: &SaCounters) -> Self {
        let (packets_in, bytes_in) = counters_in.get();
        let (packets_out, bytes_out) = counters_out.get();
        Self { packets_in, bytes_in, packets_out, bytes_out }
    }

    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.packets_in = self.packets_in.wrapping_add(other.packets_in);
        self.bytes_in = self.bytes_in.wrapping_add(other.bytes_in);
        self.packets_out = self.packets_out.wrapping_add(other.packets_out);
        self.bytes_out = self.bytes_out.wrapping_add(other.bytes_out);
    }

    /// What came since an earlier time.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            packets_in: self.packets_in.saturating_sub(earlier.packets_in),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            packets_out: self.packets_out.saturating_sub(earlier.packets_out),
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
        }
    }
}

/// An IKE SA.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    /// What the tunnel carried since it came up, rekeys and all.
    #[serde(default)]
    pub traffic: Traffic,
    /// Microseconds from an IKE request to its answer, the peer's work among it, when last measured on this path.
    #[serde(default)]
    pub rtt_us: Option<u64>,
    /// The mean of those measurements, of which the last is an eighth.
    #[serde(default)]
    pub srtt_us: Option<u64>,
    /// Seconds since the last measurement.
    #[serde(default)]
    pub rtt_age: Option<u64>,
    /// The peer's software where it told.
    pub vendor: Vec<String>,
    /// The peer's other addresses, as it told them (MOBIKE).
    #[serde(default)]
    pub peer_addresses: Vec<String>,
    /// What crosses the path to the peer whole, in octets with the IPv4 header; `None` where it is not observed.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// How that is known: `told` by this machine's kernel, or `proven` by a message of that size.
    #[serde(default)]
    pub path_mtu_known: Option<String>,
    /// Child SAs.
    pub children: Vec<ChildSa>,
}

/// A Child SA: a pair of ESP SAs and its flows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    /// Of the packets in, those that came compressed.
    pub compressed_in: u64,
    /// Of the packets out, those that were compressed: what does not shrink is not.
    pub compressed_out: u64,
    /// Our selectors as text.
    pub local_ts: Vec<String>,
    /// Theirs.
    pub remote_ts: Vec<String>,
    /// Its number among those of its reqid, where there may be several (RFC 9611): 0 is the first, the fallback of the others.
    pub resource: Option<u32>,
    /// The largest inner packet, in octets.
    #[serde(default)]
    pub mtu: u16,
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

/// A selector as people write it: `2a00::101/128`, `2001:db8::1-2001:db8::9[6/80-90]`.
pub fn selector_name(selector: &TrafficSelector) -> String {
    let mut text = selector.addresses.to_string();
    // Writing to a String can't fail.
    let _ = match (selector.protocol, selector.is_any_port()) {
        (0, true) => Ok(()),
        (protocol, true) => write!(text, "[{protocol}]"),
        (protocol, false) if selector.start_port > selector.end_port => write!(text, "[{protocol}/OPAQUE]"),
        (protocol, false) if selector.start_port == selector.end_port => {
            write!(text, "[{protocol}/{}]", selector.start_port)
        }
        (protocol, false) => write!(text, "[{protocol}/{}-{}]", selector.start_port, selector.end_port),
    };
    text
}

/// Puts the endpoint's view and the data path's together.
pub(crate) fn snapshot(control: &Control) -> RouterStatus {
    let now = Instant::now();
    let mut status = control.parts.status.clone();
    for drops in &control.parts.drops {
        drops.collect(&mut status.drops);
    }
    status.ike = control.endpoint.counters().collect();
    if control.notices_lost > 0 {
        status.ike.insert("notices_lost".to_owned(), control.notices_lost);
    }
    status.half_open = control.endpoint.half_open();
    let mut children: HashMap<IkeSaId, Vec<&Child>> = HashMap::new();
    for child in control.children.values() {
        children.entry(child.ike).or_default().push(child);
    }
    status.traffic = control.past;
    for pair in control.children.values().flat_map(|child| &child.pairs) {
        status.traffic.add(Traffic::of(&pair.counters_in, &pair.counters_out));
    }
    let ike_sas = control.endpoint.ike_sas().into_iter();
    status.ike_sas =
        ike_sas.map(|sa| ike_sa(control, children.remove(&sa.ike).unwrap_or_default(), sa, now)).collect();
    status
}

fn seconds_until(at: Option<Instant>, now: Instant) -> Option<u64> {
    at.map(|at| at.saturating_duration_since(now).as_secs())
}

fn ike_sa(control: &Control, children: Vec<&Child>, sa: IkeSaStatus, now: Instant) -> IkeSa {
    let path = control.paths.get(&sa.ike);
    let mut traffic = control.carried.get(&sa.ike).map(|account| account.past).unwrap_or_default();
    for pair in children.iter().flat_map(|child| &child.pairs) {
        traffic.add(Traffic::of(&pair.counters_in, &pair.counters_out));
    }
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let mut children: Vec<ChildSa> = children
        .into_iter()
        .flat_map(|child| {
            child.pairs.iter().filter(|pair| pair.has_outbound).map(|pair| {
                let told = sa.children.iter().find(|told| told.inbound == pair.inbound);
                child_sa(child, pair, told, now)
            })
        })
        .collect();
    children.sort_by_key(|child| (child.reqid, child.resource, child.age));
    IkeSa {
        id: sa.ike.0,
        connection: sa.connection,
        role: match sa.role {
            Role::Initiator => "initiator",
            Role::Responder => "responder",
        }
        .to_owned(),
        state: sa.state.to_owned(),
        local: sa.path.local.to_string(),
        remote: sa.path.remote.to_string(),
        local_id: sa.local_id.map(|id| id.to_string()),
        remote_id: sa.remote_id.map(|id| id.to_string()),
        initiator_spi: format!("{:016x}", sa.initiator_spi),
        responder_spi: format!("{:016x}", sa.responder_spi),
        algorithms: sa.algorithms,
        nat_local: sa.nat.0,
        nat_remote: sa.nat.1,
        age: sa.established.map(|at| now.saturating_duration_since(at).as_secs()),
        next_rekey: seconds_until(sa.next_rekey, now),
        traffic,
        rtt_us: sa.rtt.map(|rtt| micros(rtt.last)),
        srtt_us: sa.rtt.map(|rtt| micros(rtt.smoothed)),
        rtt_age: sa.rtt.map(|rtt| now.saturating_duration_since(rtt.at).as_secs()),
        vendor: sa.vendor,
        peer_addresses: sa.peer_addresses.iter().map(ToString::to_string).collect(),
        path_mtu: path.and_then(|path| u16::try_from(path.size()).ok()),
        path_mtu_known: path.map(|path| path.known().name().to_owned()),
        children,
    }
}

fn child_sa(child: &Child, pair: &Pair, told: Option<&ChildSaStatus>, now: Instant) -> ChildSa {
    let mut drops = BTreeMap::new();
    pair.counters_in.drops.collect(&mut drops);
    pair.counters_out.drops.collect(&mut drops);
    let (packets_in, bytes_in) = pair.counters_in.get();
    let (packets_out, bytes_out) = pair.counters_out.get();
    ChildSa {
        reqid: child.reqid.0,
        spi_in: pair.inbound.to_string(),
        spi_out: pair.outbound.to_string(),
        algorithms: pair.algorithms.clone(),
        esn: pair.esn,
        ipcomp_in: pair.ipcomp.0,
        ipcomp_out: pair.ipcomp.1,
        compressed_in: pair.counters_in.compressed.load(Relaxed),
        compressed_out: pair.counters_out.compressed.load(Relaxed),
        local_ts: child.local_ts.iter().map(selector_name).collect(),
        remote_ts: child.remote_ts.iter().map(selector_name).collect(),
        resource: told.and_then(|told| told.resource),
        mtu: u16::try_from(pair.outer.mtu).unwrap_or(u16::MAX),
        worker: pair.owner,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
        drops,
        age: now.saturating_duration_since(pair.installed).as_secs(),
        next_rekey: told.and_then(|told| seconds_until(told.next_rekey, now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry6_ike::selector::AddressRange;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn selectors_as_text() {
        let v6 = |a: &str, b: &str, protocol, start_port, end_port| TrafficSelector {
            protocol,
            start_port,
            end_port,
            addresses: AddressRange::V6(a.parse::<Ipv6Addr>().unwrap(), b.parse::<Ipv6Addr>().unwrap()),
        };
        assert_eq!(selector_name(&TrafficSelector::ANY_V6), "::/0");
        for (selector, text) in [
            (v6("2a00::101", "2a00::101", 0, 0, 65535), "2a00::101/128"),
            (v6("2a00::100", "2a00::1ff", 6, 0, 65535), "2a00::100/120[6]"),
            (v6("2a00::1", "2a00::3", 6, 80, 80), "2a00::1-2a00::3[6/80]"),
            (v6("2a00::2", "2a00::3", 17, 1, 9), "2a00::2/127[17/1-9]"),
            (v6("2a00::2", "2a00::3", 17, 65535, 0), "2a00::2/127[17/OPAQUE]"),
        ] {
            assert_eq!(selector_name(&selector), text);
        }
        let v4 = TrafficSelector {
            addresses: AddressRange::V4(Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 0, 0, 255)),
            ..TrafficSelector::ANY_V6
        };
        assert_eq!(selector_name(&v4), "10.0.0.0/24");
    }
}
