//! The status for people, in the manner of `ipsecctl -s all`: FLOWS, then the SAD, then a broker's leases.

use super::Status;
use crate::config::values::{show_duration, show_octets};
use ferry6_tun_router::status::{ChildSa, IkeSa};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// The whole text, ending in a newline.
pub fn status(status: &Status) -> String {
    let mut out = String::new();
    head(&mut out, status);
    flows(&mut out, &status.router.ike_sas);
    sad(&mut out, &status.router.ike_sas);
    leases(&mut out, status);
    out
}

/// One line; writing to a String cannot fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => { let _ = writeln!($out, $($arg)*); };
}

fn seconds(n: u64) -> String {
    if n == 0 { "0s".to_owned() } else { show_duration(Duration::from_secs(n)) }
}

/// `12.3ms`.
#[allow(clippy::cast_precision_loss)] // for the eye
pub(crate) fn milliseconds(us: u64) -> String {
    let ms = us as f64 / 1000.0;
    if ms < 99.95 { format!("{ms:.1}ms") } else { format!("{ms:.0}ms") }
}

fn or_dash(text: Option<&str>) -> &str {
    text.filter(|t| !t.is_empty()).unwrap_or("-")
}

fn head(out: &mut String, status: &Status) {
    let router = &status.router;
    line!(
        out,
        "ferry6 {} {}, pid {}, up {}",
        status.role,
        status.version,
        status.pid,
        seconds(status.uptime)
    );
    if let Some(dir) = &status.keylog {
        line!(
            out,
            "  WARNING all keys are written to {}: whoever reads them there can read all traffic",
            dir.display()
        );
    }
    if let Some(client) = &status.client {
        // A broker by address needs no second one.
        let address = client
            .broker_address
            .map(|a| a.to_string())
            .filter(|a| *a != client.broker)
            .map_or(String::new(), |a| format!(" ({a})"));
        let retry = client.retry_in.map_or(String::new(), |s| format!(", next try in {}", seconds(s)));
        let reason = client.reason.clone().or_else(|| waits_for(status));
        let reason = reason.map_or(String::new(), |r| format!(": {r}"));
        line!(out, "  broker  {}{address}, {}{reason}{retry}", client.broker, client.state);
        if let Some(address) = client.address {
            line!(out, "  address {address}/128");
        }
        if let Some(prefix) = &client.prefix {
            line!(out, "  prefix  {prefix}");
        }
        for lan in &client.lan {
            let has = match lan.address {
                Some(address) if lan.missing => {
                    format!(
                        "should have {address}/64: {}",
                        lan.reason.as_deref().unwrap_or("is it there, and up?")
                    )
                }
                Some(address) => format!("{address}/64"),
                None => "has no network".to_owned(),
            };
            line!(out, "  lan     {} {has}", lan.interface);
        }
        if !client.routes.is_empty() {
            line!(out, "  routes  {}", client.routes.join(", "));
        }
        let guard = match &client.leak_guard {
            None => "off: while the tunnel is down, IPv6 goes where it went without it".to_owned(),
            Some(list) if list.is_empty() => "open, by `ferry6 down`".to_owned(),
            Some(list) => format!("{} unreachable but through the tunnel", list.join(", ")),
        };
        line!(out, "  guard   {guard}");
        if !client.dns.is_empty() {
            let list: Vec<String> = client.dns.iter().map(ToString::to_string).collect();
            line!(out, "  dns     {}", list.join(", "));
        }
    }
    if let Some(broker) = &status.broker {
        let up = router.ike_sas.iter().filter(|s| s.state == "established").count();
        line!(out, "  listen  {}; tunnels up: {up}", broker.listen);
        let off =
            if broker.forwarding { "" } else { " (IPv6 forwarding is off: clients reach this machine only)" };
        line!(out, "  routes  {}{off}", broker.routes.join(", "));
    }
    line!(
        out,
        "  device  {} mtu {}, {}; udp: {}; crypto: {}; workers: {}",
        router.tun,
        router.mtu,
        router.device,
        router.udp,
        router.crypto,
        router.workers
    );
    line!(out, "  rights  {}", status.security.line());
    if let Some(drops) = drops(&router.drops) {
        line!(out, "  drops   {drops}");
    }
    let half_open =
        if router.half_open > 0 { format!("half-open {}; ", router.half_open) } else { String::new() };
    if let Some(counts) =
        drops(&router.ike).or_else(|| (!half_open.is_empty()).then(|| "none refused".to_owned()))
    {
        line!(out, "  ike     {half_open}{counts}");
    }
}

/// What a client waits for that has not failed yet.
pub fn waits_for(status: &Status) -> Option<String> {
    let client = status.client.as_ref().filter(|c| c.state == "connecting" && c.reason.is_none())?;
    let own = |sa: &&IkeSa| sa.role == "initiator" && sa.state == "connecting";
    Some(match status.router.ike_sas.iter().find(own) {
        // The algorithms are those of the answer to IKE_SA_INIT.
        Some(sa) if sa.algorithms.is_empty() => format!(
            "no answer from {} yet: does the broker run, and do its firewall and NAT let UDP 500 and 4500 in?",
            sa.remote
        ),
        Some(sa) => format!(
            "{} answered, but not to IKE_AUTH yet: does UDP 4500 come through, and do fragments?",
            sa.remote
        ),
        None if client.broker_address.is_none() => format!("the name {} is being looked up", client.broker),
        None => "waiting for the tunnel's Child SA".to_owned(),
    })
}

fn drops(drops: &BTreeMap<String, u64>) -> Option<String> {
    let list: Vec<String> =
        drops.iter().filter(|(_, n)| **n > 0).map(|(why, n)| format!("{why} {n}")).collect();
    if list.is_empty() { None } else { Some(list.join(", ")) }
}

fn flows(out: &mut String, sas: &[IkeSa]) {
    line!(out, "\nFLOWS:");
    // (direction, from, to, rest)
    let mut rows: Vec<[String; 4]> = Vec::new();
    for sa in sas {
        let mut last = None;
        for child in &sa.children {
            // Those of one reqid carry the same flows.
            if last.replace(child.reqid) == Some(child.reqid) {
                continue;
            }
            let rest = format!(
                "peer {} srcid {} dstid {} reqid {}",
                sa.remote,
                or_dash(sa.local_id.as_deref()),
                or_dash(sa.remote_id.as_deref()),
                child.reqid
            );
            for local in &child.local_ts {
                for remote in &child.remote_ts {
                    rows.push(["in".into(), remote.clone(), local.clone(), rest.clone()]);
                    rows.push(["out".into(), local.clone(), remote.clone(), rest.clone()]);
                }
            }
        }
    }
    let width = |column: usize| rows.iter().map(|r| r[column].len()).max().unwrap_or(0);
    let (from, to) = (width(1), width(2));
    for row in &rows {
        line!(out, "flow esp {:<3} from {:<from$} to {:<to$} {}", row[0], row[1], row[2], row[3]);
    }
    if rows.is_empty() {
        line!(out, "none");
    }
}

fn nat(sa: &IkeSa) -> &'static str {
    match (sa.nat_local, sa.nat_remote) {
        (false, false) => "none",
        (true, false) => "here",
        (false, true) => "peer",
        (true, true) => "both",
    }
}

fn sad(out: &mut String, sas: &[IkeSa]) {
    line!(out, "\nSAD:");
    for sa in sas {
        let age = sa.age.map_or(String::new(), |s| format!(" age {}", seconds(s)));
        let rekey = sa.next_rekey.map_or(String::new(), |s| format!(" rekey {}", seconds(s)));
        let vendor =
            if sa.vendor.is_empty() { String::new() } else { format!(" ({})", sa.vendor.join(", ")) };
        let path = sa.path_mtu.map_or(String::new(), |mtu| {
            format!(" path mtu {mtu} ({})", or_dash(sa.path_mtu_known.as_deref()))
        });
        let rtt = sa.srtt_us.map_or(String::new(), |us| format!(" rtt {}", milliseconds(us)));
        line!(
            out,
            "ike {} {} {} {} from {} to {} spi {}:{} {} nat {}{path}{rtt}{age}{rekey}{vendor}",
            sa.id,
            or_dash(sa.connection.as_deref()),
            sa.role,
            sa.state,
            sa.local,
            sa.remote,
            sa.initiator_spi,
            sa.responder_spi,
            or_dash(Some(&sa.algorithms)),
            nat(sa),
        );
        for child in &sa.children {
            esp(out, sa, child, true);
            esp(out, sa, child, false);
            if let Some(drops) = drops(&child.drops) {
                line!(out, "  dropped {drops}");
            }
        }
    }
    if sas.is_empty() {
        line!(out, "none");
    }
}

fn esp(out: &mut String, sa: &IkeSa, child: &ChildSa, inbound: bool) {
    let (from, to, spi, packets, bytes) = if inbound {
        (&sa.remote, &sa.local, &child.spi_in, child.packets_in, child.bytes_in)
    } else {
        (&sa.local, &sa.remote, &child.spi_out, child.packets_out, child.bytes_out)
    };
    let (cpi, compressed) = if inbound {
        (child.ipcomp_in, child.compressed_in)
    } else {
        (child.ipcomp_out, child.compressed_out)
    };
    let esn = if child.esn { " esn" } else { "" };
    let ipcomp = cpi.map_or(String::new(), |c| format!(" ipcomp 0x{c:04x} compressed {compressed}"));
    let resource = child.resource.map_or(String::new(), |n| format!(" resource {n}"));
    let mtu = if inbound { String::new() } else { format!(" mtu {}", child.mtu) };
    let human = if bytes < 1000 { String::new() } else { format!(" ({})", show_octets(bytes)) };
    let rekey = child.next_rekey.map_or(String::new(), |s| format!(" rekey {}", seconds(s)));
    line!(
        out,
        "  esp tunnel from {from} to {to} spi {spi} {}{esn}{ipcomp}{resource}{mtu} packets {packets} bytes {bytes}{human} age {}{rekey}",
        child.algorithms,
        seconds(child.age),
    );
}

fn leases(out: &mut String, status: &Status) {
    let Some(broker) = &status.broker else { return };
    line!(out, "\nLEASES:");
    let rows: Vec<(String, &str, String)> = broker
        .leases
        .iter()
        .map(|lease| {
            let mut state = if lease.ike.is_empty() {
                "free for its owner".to_owned()
            } else {
                let list: Vec<String> = lease.ike.iter().map(ToString::to_string).collect();
                format!("in use by ike {}", list.join(", "))
            };
            if lease.fixed {
                state.push_str(", fixed");
            }
            let address = lease.address.to_string();
            let address = lease.prefix.as_ref().map_or(address.clone(), |p| format!("{address} {p}"));
            (address, lease.identity.as_str(), state)
        })
        .collect();
    let address = rows.iter().map(|r| r.0.len()).max().unwrap_or(0);
    let identity = rows.iter().map(|r| r.1.len()).max().unwrap_or(0);
    for (a, i, state) in &rows {
        line!(out, "{a:<address$}  {i:<identity$}  {state}");
    }
    if rows.is_empty() {
        line!(out, "none");
    }
}
