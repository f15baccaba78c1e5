//! The page. Whatever comes from elsewhere goes through [`esc`].

use super::{ailment, plot};
use crate::control::Status;
use crate::control::render::milliseconds;
use crate::view::{self, Drop, PAST, TUNNEL_PAST, View, text};
use ferry6_tun_router::status::IkeSa;
use std::fmt::{Display, Write as _};
use std::time::Instant;

/// Tunnels in a table; `/metrics` has all.
const ROWS: usize = 500;
/// Lines of the log.
const LINES: usize = 40;

/// Fit for HTML, between tags and in quoted attributes.
pub(super) fn esc(text: impl Display) -> String {
    let mut out = String::new();
    for c in text::visible(&text.to_string()).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// Writing to a String cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => { let _ = writeln!($out, $($arg)*); };
}

/// The whole document.
pub(super) fn whole(views: &[View], nobody: Option<&str>, now: Instant) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>ferry6</title>\n\
         <link rel=\"icon\" href=\"/icon.svg\">\n<link rel=\"stylesheet\" href=\"/style.css\">\n\
         <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n\
         <script src=\"/live.js\" defer></script>\n</head>\n<body>\n\
         <header><h1>ferry6</h1><span id=\"age\">reloads every 5 s</span></header>\n\
         <main id=\"live\">\n{}</main>\n\
         <footer><a href=\"/metrics\">metrics</a> &middot; <a href=\"/healthz\">health</a> &middot; ferry6 {}</footer>\n\
         </body>\n</html>\n",
        live(views, nobody, now),
        env!("CARGO_PKG_VERSION")
    )
}

/// What changes.
pub(super) fn live(views: &[View], nobody: Option<&str>, now: Instant) -> String {
    let mut out = String::new();
    if views.is_empty() {
        let why = nobody.unwrap_or("no daemon has answered yet");
        put!(out, "<section><p class=\"bad\">{}</p></section>", esc(why));
    }
    for (at, view) in views.iter().enumerate() {
        put!(out, "<section>");
        head(&mut out, view, now);
        if let Some(status) = &view.status {
            facts(&mut out, status);
            plots(&mut out, view, status);
            tunnels(&mut out, view, status);
            sas(&mut out, status, at);
            put!(out, "<div class=\"two\">");
            drops(&mut out, view, status);
            log(&mut out, view);
            put!(out, "</div>");
        }
        put!(out, "</section>");
    }
    out
}

fn head(out: &mut String, view: &View, now: Instant) {
    let ill = ailment(view, now);
    let (class, word) = match (&view.status, &ill) {
        (Some(status), _) if view.is_there() => match &status.client {
            Some(client) if client.state == "up" => ("good", "up".to_owned()),
            Some(client) => ("bad", client.state.clone()),
            None => {
                let up = status.router.ike_sas.iter().filter(|sa| sa.age.is_some()).count();
                ("good", format!("{} tunnel{}", text::thousands(up as u64), if up == 1 { "" } else { "s" }))
            }
        },
        _ => ("bad", "gone".to_owned()),
    };
    put!(
        out,
        "<div class=\"head\"><h2>{}</h2><span class=\"badge {class}\">{}</span>",
        esc(view.name()),
        esc(word)
    );
    if let Some(why) = ill {
        let gone =
            view.gone_for(now).map_or(String::new(), |t| format!(" for {}", text::seconds(t.as_secs())));
        put!(out, "<span class=\"bad\">{}{gone}</span>", esc(why));
    }
    if let Some(status) = &view.status {
        let (version, pid) = (esc(&status.version), status.pid);
        put!(out, "<span class=\"more\">{version}, pid {pid}, up {}</span>", text::seconds(status.uptime));
    }
    put!(out, "</div>");
}

fn facts(out: &mut String, status: &Status) {
    put!(out, "<dl>");
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            put!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", esc(value));
        }
    };
    if let Some(client) = &status.client {
        fact("broker", client.broker.clone());
        fact("address", client.address.map_or_else(String::new, |address| address.to_string()));
        fact("prefix", client.prefix.clone().unwrap_or_default());
        let behind = client.lan.iter().map(|lan| match lan.address {
            Some(address) if !lan.missing => format!("{} {address}/64", lan.interface),
            _ => format!("{} has no address", lan.interface),
        });
        fact("networks behind", behind.collect::<Vec<_>>().join(", "));
        fact("routes", client.routes.join(", "));
        let dns: Vec<String> = client.dns.iter().map(ToString::to_string).collect();
        fact("DNS", dns.join(", "));
        fact("next try in", client.retry_in.map_or_else(String::new, text::seconds));
        fact(
            "leak guard",
            match &client.leak_guard {
                None => "off".to_owned(),
                Some(list) if list.is_empty() => "open".to_owned(),
                Some(list) => list.join(", "),
            },
        );
    }
    if let Some(broker) = &status.broker {
        fact("listens on", broker.listen.clone());
        fact("routes", broker.routes.join(", "));
        fact("leases", text::thousands(broker.leases.len() as u64));
        fact("forwarding", if broker.forwarding { String::new() } else { "OFF".to_owned() });
    }
    let router = &status.router;
    fact("half-open", if router.half_open > 0 { router.half_open.to_string() } else { String::new() });
    fact("device", format!("{}, MTU {}", router.tun, router.mtu));
    fact("rights", if status.security.user.is_empty() { String::new() } else { status.security.line() });
    if status.keylog.is_some() {
        fact("WARNING", "all keys are written to a directory".to_owned());
    }
    put!(out, "</dl>");
}

fn plots(out: &mut String, view: &View, status: &Status) {
    let (now, traffic) = (view.total.now(), &status.router.traffic);
    put!(out, "<div class=\"plots\">");
    let rates = &view.total.rates;
    let mut figure = |class: &str, name: &str, now: u64, peak: u64, total: u64, plot: String| {
        put!(
            out,
            "<figure><figcaption><span>{name}</span><b class=\"{class}\">{}</b><span class=\"more\">peak {}, {} in all</span></figcaption>{plot}</figure>",
            text::rate(now),
            text::rate(peak),
            text::octets(total)
        );
    };
    let peak = rates.iter().map(|rate| rate.to_us).max().unwrap_or(0);
    let curve =
        plot::area(rates.iter().map(|rate| rate.to_us), PAST, "in", "traffic in, of the last four minutes");
    figure("in", "in", now.to_us, peak, traffic.bytes_in, curve);
    let peak = rates.iter().map(|rate| rate.from_us).max().unwrap_or(0);
    let curve = plot::area(
        rates.iter().map(|rate| rate.from_us),
        PAST,
        "out",
        "traffic out, of the last four minutes",
    );
    figure("out", "out", now.from_us, peak, traffic.bytes_out, curve);
    // Of the only tunnel, or of the first one.
    let sa = status.router.ike_sas.iter().find(|sa| sa.srtt_us.is_some());
    let rtt = sa.and_then(|sa| sa.srtt_us).map_or("-".to_owned(), milliseconds);
    let past = sa.and_then(|sa| view.tunnels.get(&sa.id));
    let values: Vec<u64> = past.map_or_else(Vec::new, |past| past.rtt.iter().copied().collect());
    let of = match (sa, status.router.ike_sas.len()) {
        (Some(sa), 2..) => format!("of {}", esc(view::peer(sa))),
        _ => "last minute".to_owned(),
    };
    let curve = plot::area(values.into_iter(), TUNNEL_PAST, "rtt", "round trips of the last minute");
    put!(
        out,
        "<figure><figcaption><span>rtt</span><b class=\"rtt\">{rtt}</b><span class=\"more\">{of}</span></figcaption>{curve}</figure>"
    );
    put!(out, "</div>");
}

fn tunnels(out: &mut String, view: &View, status: &Status) {
    let list = &status.router.ike_sas;
    put!(out, "<h3>Tunnels</h3>");
    if list.is_empty() {
        put!(out, "<p class=\"faint\">none</p>");
        return;
    }
    put!(
        out,
        "<div class=\"scroll\"><table class=\"tunnels\"><thead><tr><th>peer</th><th>address</th><th class=\"wide\">from</th>\
         <th class=\"num\">in</th><th class=\"num\">out</th><th class=\"num wide\">total in</th><th class=\"num wide\">total out</th>\
         <th class=\"num\">rtt</th><th class=\"num\">up</th></tr></thead><tbody>"
    );
    let (addresses, prefixes) = (view::addresses(status), view::prefixes(status));
    for sa in list.iter().take(ROWS) {
        let rate = view.tunnels.get(&sa.id).map(|past| past.series.now()).unwrap_or_default();
        let mut address = addresses.get(&sa.id).map_or_else(|| "-".to_owned(), ToString::to_string);
        if let Some(prefix) = prefixes.get(&sa.id) {
            address = format!("{address} {prefix}");
        }
        put!(
            out,
            "<tr><td class=\"name\">{}</td><td><code>{}</code></td><td class=\"wide\"><code>{}</code></td>\
             <td class=\"num in\">{}</td><td class=\"num out\">{}</td><td class=\"num wide\">{}</td><td class=\"num wide\">{}</td>\
             <td class=\"num\">{}</td><td class=\"num\">{}</td></tr>",
            esc(view::peer(sa)),
            esc(address),
            esc(&sa.remote),
            text::rate(rate.to_us),
            text::rate(rate.from_us),
            text::octets(sa.traffic.bytes_in),
            text::octets(sa.traffic.bytes_out),
            sa.srtt_us.map_or("-".to_owned(), milliseconds),
            sa.age.map_or_else(|| esc(&sa.state), text::seconds)
        );
    }
    put!(out, "</tbody></table></div>");
    if list.len() > ROWS {
        put!(
            out,
            "<p class=\"faint\">and {} more; /metrics has all</p>",
            text::thousands((list.len() - ROWS) as u64)
        );
    }
}

/// Open where there are few.
fn sas(out: &mut String, status: &Status, at: usize) {
    let list = &status.router.ike_sas;
    if list.is_empty() {
        return;
    }
    let open = if list.len() <= 3 { " open" } else { "" };
    put!(
        out,
        "<details id=\"sas-{at}\"{open}><summary>security associations</summary><div class=\"scroll\"><table class=\"sas\"><thead><tr><th>SA</th>\
         <th>peer</th><th class=\"wide\">suite</th><th class=\"wide\">SPI in, out</th><th class=\"num\">age</th><th></th>\
         <th class=\"num\">rekey in</th></tr></thead><tbody>"
    );
    for sa in list.iter().take(ROWS) {
        rows_of(out, sa);
    }
    put!(out, "</tbody></table></div></details>");
}

fn rows_of(out: &mut String, sa: &IkeSa) {
    let rekey = |next: Option<u64>| next.map_or("-".to_owned(), text::seconds);
    put!(
        out,
        "<tr><td>IKE {}</td><td class=\"name\">{}</td><td class=\"wide\"><code>{}</code></td><td class=\"wide\"></td><td class=\"num\">{}</td><td></td>\
         <td class=\"num\">{}</td></tr>",
        sa.id,
        esc(view::peer(sa)),
        esc(&sa.algorithms),
        sa.age.map_or("-".to_owned(), text::seconds),
        rekey(sa.next_rekey)
    );
    for child in &sa.children {
        let way = view::way_to_rekey(child.age, child.next_rekey)
            .map_or(String::new(), |part| format!("<progress value=\"{part:.3}\"></progress>"));
        let esn = if child.esn { " ESN" } else { "" };
        put!(
            out,
            "<tr><td>ESP {}</td><td></td><td class=\"wide\"><code>{}{esn}</code></td><td class=\"wide\"><code>{} {}</code></td>\
             <td class=\"num\">{}</td><td>{way}</td><td class=\"num\">{}</td></tr>",
            child.reqid,
            esc(&child.algorithms),
            esc(&child.spi_in),
            esc(&child.spi_out),
            text::seconds(child.age),
            rekey(child.next_rekey)
        );
    }
}

fn drops(out: &mut String, view: &View, status: &Status) {
    put!(out, "<div><h3>Drops</h3><table class=\"drops\"><tbody>");
    for Drop { reason, count, per_second } in &view.drops {
        let (class, more) = match per_second {
            0 => ("", String::new()),
            n => (" class=\"notable\"", format!(" (+{}/s)", text::thousands(*n))),
        };
        let name = esc(reason.replace('_', " "));
        put!(out, "<tr{class}><td>{name}</td><td class=\"num\">{}{more}</td></tr>", text::thousands(*count));
    }
    if view.drops.is_empty() {
        put!(out, "<tr><td class=\"good\">no packet dropped</td><td></td></tr>");
    }
    for (cause, count) in status.router.ike.iter().filter(|(_, count)| **count > 0) {
        let name = esc(cause.replace('_', " "));
        put!(
            out,
            "<tr><td><span class=\"faint\">IKE</span> {name}</td><td class=\"num\">{}</td></tr>",
            text::thousands(*count)
        );
    }
    put!(out, "</tbody></table></div>");
}

fn log(out: &mut String, view: &View) {
    put!(out, "<div><h3>Log, UTC, the newest first</h3><ol class=\"log\">");
    for line in view.log.iter().rev().take(LINES) {
        let class = match line.level.as_str() {
            "ERROR" => " class=\"bad\"",
            "WARN" => " class=\"notable\"",
            _ => "",
        };
        put!(out, "<li{class}><time>{}</time>{}</li>", text::clock(line.time), esc(&line.text));
    }
    put!(out, "</ol></div>");
}
