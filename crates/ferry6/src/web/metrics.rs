//! `/metrics`, in the text format of Prometheus, version 0.0.4.

use super::ailment;
use crate::view::{self, View, text};
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::time::Instant;

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// Samples by metric, as the format wants all of one together.
#[derive(Default)]
struct Metrics(BTreeMap<&'static str, (Kind, &'static str, String)>);

/// Names and values of labels.
type Labels<'a> = &'a [(&'static str, &'a str)];

impl Metrics {
    fn add(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &'static str,
        labels: Labels<'_>,
        value: impl Display,
    ) {
        let (_, _, out) = self.0.entry(name).or_insert_with(|| (kind, help, String::new()));
        out.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, escape(value));
        }
        let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: u64) {
        self.add(name, Kind::Counter, help, labels, value);
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: impl Display) {
        self.add(name, Kind::Gauge, help, labels, value);
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for (name, (kind, help, samples)) in &self.0 {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        out
    }
}

/// A label's value: backslash, quote and line feed are escaped; what cannot be seen is not there at all.
fn escape(value: &str) -> String {
    text::visible(value).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Everything.
pub(super) fn all(views: &[View], now: Instant) -> String {
    let mut metrics = Metrics::default();
    let info = [("version", env!("CARGO_PKG_VERSION"))];
    metrics.gauge("ferry6_web_info", "The program that tells all this.", &info, 1);
    for view in views {
        daemon(&mut metrics, view, now);
    }
    metrics.text()
}

fn daemon(metrics: &mut Metrics, view: &View, now: Instant) {
    let name = view.name();
    let socket = view.socket.display().to_string();
    let of = [("daemon", name.as_str()), ("socket", socket.as_str())];
    let well = u8::from(ailment(view, now).is_none());
    metrics.gauge(
        "ferry6_healthy",
        "Whether the daemon answers and, of a client, its tunnel is up.",
        &of,
        well,
    );
    // What was known before it went is no measurement of now.
    let up = view.is_there();
    metrics.gauge("ferry6_up", "Whether the daemon answers on its control socket.", &of, u8::from(up));
    let Some(status) = view.status.as_ref().filter(|_| up) else { return };
    let router = &status.router;
    let info =
        [of[0], of[1], ("role", &status.role), ("version", &status.version), ("crypto", &router.crypto)];
    metrics.gauge("ferry6_info", "What the daemon is.", &info, 1);
    metrics.gauge("ferry6_uptime_seconds", "Since the daemon's start.", &of, status.uptime);
    let established = router.ike_sas.iter().filter(|sa| sa.age.is_some()).count();
    metrics.gauge("ferry6_tunnels", "IKE SAs that are up.", &of, established);
    metrics.gauge("ferry6_half_open_tunnels", "IKE SAs on their way.", &of, router.half_open);
    metrics.gauge("ferry6_tunnel_mtu_bytes", "MTU of the tunnel device.", &of, router.mtu);
    if let Some(broker) = &status.broker {
        let used = broker.leases.iter().filter(|lease| !lease.ike.is_empty()).count();
        metrics.gauge("ferry6_leases", "Addresses that identities have.", &of, broker.leases.len());
        metrics.gauge("ferry6_leases_in_use", "Those of them whose tunnel is up.", &of, used);
    }
    if let Some(client) = &status.client {
        let up = u8::from(client.state == "up");
        metrics.gauge("ferry6_client_up", "Whether the client's tunnel is up.", &of, up);
    }
    let traffic = &router.traffic;
    metrics.counter("ferry6_received_bytes_total", "Octets out of all tunnels.", &of, traffic.bytes_in);
    metrics.counter("ferry6_sent_bytes_total", "Octets into all tunnels.", &of, traffic.bytes_out);
    metrics.counter("ferry6_received_packets_total", "Packets out of all tunnels.", &of, traffic.packets_in);
    metrics.counter("ferry6_sent_packets_total", "Packets into all tunnels.", &of, traffic.packets_out);
    for (reason, count) in view::all_drops(status) {
        let labels = [of[0], of[1], ("reason", reason.as_str())];
        metrics.counter("ferry6_dropped_packets_total", "Packets dropped, by reason.", &labels, count);
    }
    for (cause, count) in &router.ike {
        let labels = [of[0], of[1], ("cause", cause.as_str())];
        metrics.counter(
            "ferry6_ike_events_total",
            "IKE messages refused or repeated, by cause.",
            &labels,
            *count,
        );
    }
    let addresses = view::addresses(status);
    for sa in &router.ike_sas {
        let number = sa.id.to_string();
        let peer = view::peer(sa);
        let address = addresses.get(&sa.id).map_or_else(String::new, ToString::to_string);
        let connection = sa.connection.as_deref().unwrap_or_default();
        let of =
            [of[0], of[1], ("tunnel", number.as_str()), ("peer", peer.as_str()), ("connection", connection)];
        let info = [of[0], of[1], of[2], of[3], of[4], ("remote", &sa.remote), ("address", &address)];
        metrics.gauge("ferry6_tunnel_info", "Where a tunnel goes.", &info, 1);
        let up = u8::from(sa.age.is_some() && !sa.children.is_empty());
        metrics.gauge("ferry6_tunnel_up", "Whether a tunnel carries traffic.", &of, up);
        let traffic = &sa.traffic;
        let name = "ferry6_tunnel_received_bytes_total";
        metrics.counter(name, "Octets out of a tunnel.", &of, traffic.bytes_in);
        metrics.counter("ferry6_tunnel_sent_bytes_total", "Octets into a tunnel.", &of, traffic.bytes_out);
        let name = "ferry6_tunnel_received_packets_total";
        metrics.counter(name, "Packets out of a tunnel.", &of, traffic.packets_in);
        metrics.counter(
            "ferry6_tunnel_sent_packets_total",
            "Packets into a tunnel.",
            &of,
            traffic.packets_out,
        );
        if let Some(age) = sa.age {
            metrics.gauge("ferry6_tunnel_age_seconds", "Since a tunnel came up.", &of, age);
        }
        if let Some(next) = sa.next_rekey {
            metrics.gauge("ferry6_tunnel_rekey_seconds", "Until the IKE SA is rekeyed.", &of, next);
        }
        if let Some(us) = sa.srtt_us {
            let help = "From an IKE request to its answer, smoothed.";
            metrics.gauge("ferry6_tunnel_rtt_seconds", help, &of, seconds(us));
        }
        if let Some(mtu) = sa.path_mtu {
            metrics.gauge("ferry6_tunnel_path_mtu_bytes", "What crosses the path whole.", &of, mtu);
        }
        for child in &sa.children {
            let (reqid, resource) = (child.reqid.to_string(), child.resource.unwrap_or(0).to_string());
            // Two stand beside each other while one takes over from the other; the SPI tells them apart.
            let spi = child.spi_in.as_str();
            let of = [of[0], of[1], of[2], of[3], ("reqid", &reqid), ("resource", &resource), ("spi", spi)];
            metrics.gauge("ferry6_child_sa_age_seconds", "Since a Child SA was made.", &of, child.age);
            if let Some(next) = child.next_rekey {
                metrics.gauge("ferry6_child_sa_rekey_seconds", "Until a Child SA is rekeyed.", &of, next);
            }
        }
    }
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
