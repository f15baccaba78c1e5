//! What `--check` prints: the configuration as it was understood, in a few lines.

use super::keys;
use super::per_cpu;
use super::proposal;
use super::values::show_duration;
use super::{Broker, Client, Tunnel};
use ferry6_ike::Connection;
use ferry6_ike::config::{Credential, IpcompPolicy, PeerAuth, PrefixWish, RemoteId};
use ferry6_tun_router::size::MssClamp;
use std::fmt::{self, Display, Write as _};
use std::path::Path;

/// Of a client.
pub fn client(path: &Path, client: &Client) -> String {
    let mut out = format!("{}: no faults\n", path.display());
    row(&mut out, "broker", format_args!("{}, port {}", client.broker, client.port));
    connection(&mut out, &client.connection);
    let routes = match &client.routes.explicit {
        Some(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        None if client.routes.default_route => {
            "what the broker allows, the default route included".to_owned()
        }
        None => "what the broker allows, without a default route".to_owned(),
    };
    row(&mut out, "routes", format_args!("{routes}, metric {}", client.tunnel.metric));
    match client.connection.addresses.prefix_wish() {
        PrefixWish::None => {}
        PrefixWish::Any => row(&mut out, "prefix", format_args!("any that the broker gives")),
        PrefixWish::This(prefix) => row(&mut out, "prefix", format_args!("{prefix}")),
    }
    if !client.lan.is_empty() {
        row(&mut out, "lan", format_args!("{}", client.lan.join(", ")));
    }
    row(&mut out, "guard", format_args!("{}", if client.leak_guard { "on" } else { "off" }));
    tunnel(&mut out, &client.tunnel);
    warnings(&mut out, &client.warnings);
    out
}

/// Of a broker.
pub fn broker(path: &Path, broker: &Broker) -> String {
    let mut out = format!("{}: no faults\n", path.display());
    let listen = broker.listen;
    row(&mut out, "listen", format_args!("{}, UDP {} and {}", listen.address, listen.port, listen.nat_port));
    for c in &broker.connections {
        let _ = writeln!(out, "  connection {}", c.name);
        connection(&mut out, c);
        if let Some(pool) = broker.pools.get(&c.name) {
            let ranges: Vec<String> = pool.ranges.iter().map(ToString::to_string).collect();
            row(
                &mut out,
                "pool",
                format_args!("{}, {} fixed addresses", ranges.join(", "), pool.fixed.len()),
            );
            if !pool.prefixes.is_empty() || !pool.fixed_prefixes.is_empty() {
                let from: Vec<String> = pool.prefixes.iter().map(ToString::to_string).collect();
                let each = if from.is_empty() {
                    "none for those who ask".to_owned()
                } else {
                    format!("a /{} each of {}", pool.prefix_length, from.join(", "))
                };
                row(&mut out, "prefixes", format_args!("{each}, {} fixed", pool.fixed_prefixes.len()));
            }
        }
    }
    tunnel(&mut out, &broker.tunnel);
    warnings(&mut out, &broker.warnings);
    out
}

/// Writing to a String cannot fail.
fn row(out: &mut String, name: &str, value: fmt::Arguments<'_>) {
    let _ = writeln!(out, "  {name:<8} {value}");
}

fn warnings(out: &mut String, warnings: &[String]) {
    for warning in warnings {
        row(out, "warning", format_args!("{warning}"));
    }
}

fn connection(out: &mut String, c: &Connection) {
    match &c.credential {
        Credential::Certificate { chain, .. } => {
            let certificate = chain.first().map(keys::describe).unwrap_or_default();
            row(out, "local", format_args!("{} ({certificate})", c.local_id));
        }
        Credential::Psk(_) => row(out, "local", format_args!("{} (pre-shared key)", c.local_id)),
    }
    let remote: &dyn Display = match &c.remote_id {
        RemoteId::Any => &"any identity",
        RemoteId::Exactly(id) => id,
        RemoteId::Pattern(pattern) => pattern,
    };
    match &c.peer_auth {
        PeerAuth::Certificate { anchors, crls, revocation } => {
            let cas: Vec<String> = anchors.iter().map(keys::subject).collect();
            row(
                out,
                "remote",
                format_args!(
                    "{remote}, certified by {} ({} CRLs, {revocation:?})",
                    cas.join(" or "),
                    crls.len()
                ),
            );
        }
        PeerAuth::Psk(_) => row(out, "remote", format_args!("{remote}, pre-shared key")),
    }
    let ike: Vec<String> = c.ike.iter().map(proposal::show_ike).collect();
    row(
        out,
        "ike",
        format_args!(
            "{}, rekey {}, reauth {}, dpd {}",
            ike.join(", "),
            show_duration(c.ike_rekey),
            show_duration(c.reauth),
            show_duration(c.dpd)
        ),
    );
    let esp: Vec<String> = c.esp.iter().map(proposal::show_esp).collect();
    let ipcomp = match c.ipcomp {
        IpcompPolicy::Off => "off",
        IpcompPolicy::Accept => "accept",
        IpcompPolicy::On => "on",
    };
    row(
        out,
        "child",
        format_args!(
            "{}, rekey {}, ipcomp {ipcomp}, {}",
            esp.join(", "),
            show_duration(c.child_rekey),
            per_cpu::show(c.per_resource)
        ),
    );
}

fn tunnel(out: &mut String, t: &Tunnel) {
    let offload = if t.offload { "" } else { ", no offload" };
    let mtu = t.sizes.mtu.map_or_else(|| "auto".to_owned(), |mtu| mtu.to_string());
    row(out, "device", format_args!("{}, mtu {mtu}, crypto {}{offload}", t.device, t.crypto.name));
    let mss = match t.sizes.mss {
        MssClamp::Off => "off".to_owned(),
        MssClamp::Auto => "auto".to_owned(),
        MssClamp::AtMost(most) => most.to_string(),
    };
    let dscp = t.sizes.fields.dscp.map_or_else(|| "copied".to_owned(), |dscp| dscp.to_string());
    let ecn = if t.sizes.fields.ecn { "copied" } else { "off" };
    row(out, "outside", format_args!("df {:?}, mss clamp {mss}, dscp {dscp}, ecn {ecn}", t.sizes.df));
}
