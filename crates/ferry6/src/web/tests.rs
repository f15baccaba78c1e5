//! Pages, metrics and answers, without a socket.

use super::server::{Site, converse};
use super::*;
use crate::view::tests::{broker, client, log, news};
use std::collections::{BTreeMap, BTreeSet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn known(list: Vec<News>) -> Known {
    let known = Known::default();
    list.into_iter().for_each(|news| known.take(news));
    known
}

/// A broker with these clients and a client, watched twice.
fn both(names: &[&str]) -> Known {
    let start = Instant::now();
    let mut list = Vec::new();
    for n in 0..30 {
        let at = start + Duration::from_secs(n);
        list.push(News {
            log: (n == 0).then(|| {
                log(&[("INFO", "a line"), ("WARN", &format!("{} refused", names.first().unwrap_or(&"")))])
            }),
            ..news("/run/ferry6/broker.sock", at, broker(n, names))
        });
        list.push(news("/run/ferry6/client.sock", at, client(n)));
    }
    known(list)
}

fn page_of(known: &Known) -> String {
    page::whole(&known.views(), None, Instant::now())
}

/// What the server answers to these octets, until it hangs up or has nothing more to say for a while.
fn ask_raw(known: &Known, by_name: bool, request: &str) -> String {
    let site = Arc::new(Site { known: known.clone(), sockets: vec!["/nowhere".into()], by_name });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        tokio::spawn(converse(far, site));
        near.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), near.read_to_end(&mut answer)).await;
        String::from_utf8(answer).unwrap()
    })
}

fn get(known: &Known, path: &str) -> String {
    ask_raw(known, true, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9\r\nConnection: close\r\n\r\n"))
}

const HOSTILE: [&str; 8] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "</title></table><h1>&lt;",
    "a\"} 1\nferry6_up 7\n",
    "back\\slash\\",
    "\x1b[31m\u{202e}\u{200b}\0\r",
    "C=DE, O=Müller & Söhne, CN=日本語",
];

/// The tags of a document, each with the names of its attributes. It fails where something stands that we do not write.
fn tags(html: &str) -> Vec<String> {
    let mut list = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "a stray > in {:?}", &rest[..at]);
        let end = rest[at..].find('>').expect("each tag ends") + at;
        let tag = &rest[at + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in {tag:?}");
        // Values are quoted, so that every second piece is one.
        let names: String = tag.split('"').step_by(2).collect();
        assert!(!names.contains('\''), "{tag:?}");
        list.push(names);
        rest = &rest[end + 1..];
    }
    list
}

/// The same tags and attributes, whatever the peers call themselves.
#[test]
fn hostile_names_are_text() {
    let harmless: Vec<String> = (0..HOSTILE.len()).map(|n| format!("user{n}")).collect();
    let harmless: Vec<&str> = harmless.iter().map(String::as_str).collect();
    let (page, wanted) = (page_of(&both(&HOSTILE)), page_of(&both(&harmless)));
    assert_eq!(tags(&page), tags(&wanted));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "it is shown as what it is");
    assert!(!page.contains(['\x1b', '\u{202e}', '\u{200b}', '\0', '\r']));
    assert!(page.contains("O=Müller &amp; Söhne, CN=日本語"));
    // And what is wrong with a daemon may have a name in it.
    let why = "<b>\"gone\"";
    let fault =
        News { socket: "/run/<i>.sock".into(), at: Instant::now(), status: Err(why.into()), log: None };
    let page = page_of(&known(vec![fault]));
    assert!(page.contains("&lt;b&gt;&quot;gone&quot;") && page.contains("&lt;i&gt;"), "{page}");
    assert!(page::whole(&[], Some("<u>"), Instant::now()).contains("&lt;u&gt;"));
}

#[test]
fn the_page_tells_what_there_is() {
    let page = page_of(&both(&["alice@my.domain", "bob@my.domain"]));
    for wanted in [
        "<h2>broker</h2>",
        "<h2>client</h2>",
        "alice@my.domain",
        "2a00::101",
        "<code>2a00::102 2a00:0:0:1000::/64</code>",
        "1.2.3.2:4500",
        "2 tunnels",
        "AES_GCM_16_256",
        "<progress value=",
        "in unknown spi",
        "out no policy",
        "auth failed",
        "a line",
        "rtt",
        "class=\"plot in\"",
        "32.0 Mbit/s",
        "tunnel.my.domain",
        "leak guard",
        "http-equiv=\"refresh\"",
    ] {
        assert!(page.contains(wanted), "no {wanted:?} in {page}");
    }
    // Nothing that the policy would not let through.
    for unwanted in ["style=", "<style", "onclick", "http://", "https://", "<script>"] {
        assert!(!page.contains(unwanted), "{unwanted:?} in {page}");
    }
    assert!(page.ends_with("</html>\n"));
    let none = page::whole(&[], Some("no ferry6 daemon is running"), Instant::now());
    assert!(none.contains("no ferry6 daemon is running"));
    let names: Vec<String> = (0..700).map(|n| format!("user{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let page = page_of(&known(vec![news("x", Instant::now(), broker(0, &names[..250]))]));
    assert!(page.contains("user249") && !page.contains("more; /metrics"));
}

/// One sample: its labels, then its value.
type Samples = BTreeMap<String, Vec<(BTreeMap<String, String>, f64)>>;

/// Reads the text format of Prometheus, version 0.0.4, and is strict.
fn parse(text: &str) -> (BTreeMap<String, String>, Samples) {
    fn is_name(name: &str) -> bool {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    }
    let (mut kinds, mut samples, mut helped) = (BTreeMap::new(), Samples::new(), BTreeSet::new());
    let mut current = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty() && helped.insert(name.to_owned()), "{line}");
            current = name.to_owned();
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(name == current && ["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            continue;
        }
        assert!(!line.starts_with('#'), "{line}");
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        assert_eq!(name, current, "samples of one metric stand together, behind its TYPE: {line}");
        let mut labels = BTreeMap::new();
        let value = if let Some(mut rest) = rest.strip_prefix('{') {
            loop {
                let (label, after) = rest.split_once("=\"").unwrap();
                assert!(is_name(label), "{line}");
                let (mut value, mut chars) = (String::new(), after.char_indices());
                let end = loop {
                    match chars.next().expect("the value ends") {
                        (at, '"') => break at,
                        (_, '\\') => match chars.next().expect("something is escaped").1 {
                            'n' => value.push('\n'),
                            c @ ('\\' | '"') => value.push(c),
                            c => panic!("\\{c} in {line}"),
                        },
                        (_, c) => value.push(c),
                    }
                };
                assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
                rest = &after[end + 1..];
                match rest.strip_prefix(',') {
                    Some(more) => rest = more,
                    None => break rest.strip_prefix("} ").unwrap(),
                }
            }
        } else {
            rest.strip_prefix(' ').unwrap()
        };
        let list = samples.entry(name.to_owned()).or_default();
        assert!(list.iter().all(|(other, _)| *other != labels), "twice: {line}");
        list.push((labels, value.parse().unwrap()));
    }
    (kinds, samples)
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let known = both(&HOSTILE);
    let (kinds, samples) = parse(&metrics::all(&known.views(), Instant::now() + Duration::from_secs(29)));
    assert!(kinds.keys().all(|name| name.starts_with("ferry6_") && samples.contains_key(name)));
    let find = |name: &str, wanted: &[(&str, &str)]| -> f64 {
        let fits = |labels: &BTreeMap<String, String>| {
            wanted.iter().all(|(label, value)| labels.get(*label).is_some_and(|v| v == value))
        };
        let found: Vec<f64> = samples[name].iter().filter(|(l, _)| fits(l)).map(|(_, v)| *v).collect();
        assert_eq!(found.len(), 1, "{name} {wanted:?}: {:?}", samples[name]);
        found[0]
    };
    let of = ("daemon", "broker");
    assert_eq!(find("ferry6_up", &[of]), 1.0);
    assert_eq!(find("ferry6_tunnels", &[of]), 8.0);
    assert_eq!(find("ferry6_leases_in_use", &[of]), 8.0);
    assert_eq!(find("ferry6_client_up", &[("daemon", "client")]), 1.0);
    assert_eq!(find("ferry6_dropped_packets_total", &[of, ("reason", "out_no_policy")]), 1204.0);
    assert_eq!(find("ferry6_ike_events_total", &[of, ("cause", "auth_failed")]), 3.0);
    let peer = [of, ("peer", HOSTILE[0])];
    assert_eq!(find("ferry6_tunnel_received_bytes_total", &peer), 316e6);
    assert_eq!(find("ferry6_tunnel_rtt_seconds", &peer), 0.0137);
    assert_eq!(find("ferry6_tunnel_info", &[of, ("peer", HOSTILE[5]), ("remote", "1.2.3.6:4500")]), 1.0);
    assert_eq!(find("ferry6_child_sa_rekey_seconds", &[of, ("peer", HOSTILE[1])]), 2400.0);
    assert_eq!(samples["ferry6_up"].len(), 2, "nobody has added one by a name");
    // What is gone has no counters, only that.
    known.take(News {
        socket: "/run/ferry6/broker.sock".into(),
        at: Instant::now(),
        status: Err("gone".into()),
        log: None,
    });
    let (_, samples) = parse(&metrics::all(&known.views(), Instant::now()));
    let up = |name: &str| samples[name].iter().find(|(l, _)| l["daemon"] == "broker").map(|(_, v)| *v);
    assert_eq!((up("ferry6_up"), up("ferry6_healthy"), up("ferry6_tunnels")), (Some(0.0), Some(0.0), None));
    parse(&metrics::all(&[], Instant::now()));
}

#[test]
fn healthy_or_not() {
    let now = Instant::now();
    let status = |answer: &str| answer.lines().next().unwrap_or_default().to_owned();
    let known = known(vec![news("/run/ferry6/broker.sock", now, broker(0, &[]))]);
    let answer = get(&known, "/healthz");
    assert!(status(&answer) == "HTTP/1.1 200 OK" && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    let mut down = client(0);
    if let Some(client) = &mut down.client {
        (client.state, client.reason) = ("waiting".into(), Some("no answer from the peer".into()));
    }
    known.take(news("/run/ferry6/client.sock", now, down));
    let answer = get(&known, "/healthz");
    assert_eq!(status(&answer), "HTTP/1.1 503 Service Unavailable");
    assert!(answer.ends_with("\r\n\r\nclient: the tunnel is waiting: no answer from the peer\n"), "{answer}");
    known.take(news("/run/ferry6/client.sock", now, client(0)));
    assert_eq!(status(&get(&known, "/healthz")), "HTTP/1.1 200 OK");
    known.take(News {
        socket: "/run/ferry6/broker.sock".into(),
        at: now,
        status: Err("nobody answers".into()),
        log: None,
    });
    let answer = get(&known, "/healthz");
    assert!(answer.ends_with("\r\n\r\nbroker: nobody answers\n"), "{answer}");
    assert!(get(&Known::default(), "/healthz").contains("503"));
    // A daemon that hangs gives no news at all.
    let views = known.views();
    let late = ailment(&views[1], now + STALE + Duration::from_secs(1)).unwrap();
    assert_eq!(late, "no answer for 21 s");
}

#[test]
fn only_names_of_this_machine() {
    let known = both(&[]);
    let status = |host: &str, by_name| {
        let request = format!("GET / HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        let answer = ask_raw(&known, by_name, &request);
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    for host in
        ["127.0.0.1", "127.0.0.1:9696", "127.9.9.9", "localhost", "LocalHost:80", "[::1]", "[::1]:9696"]
    {
        assert_eq!(status(&format!("Host: {host}\r\n"), true), "200", "{host}");
    }
    for host in [
        "Host: evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: localhost.evil.example:80\r\n",
        "Host: 10.0.0.1\r\n",
        "Host: [::]\r\n",
        "Host: 0.0.0.0\r\n",
        "Host: \r\n",
        "",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host: a@localhost b\r\n",
    ] {
        assert_ne!(status(host, true), "200", "{host}");
    }
    // A Unix socket has no name to be taken for; whoever is in front of it has one of its own.
    assert_eq!(status("Host: status.my.domain\r\n", false), "200");
}

#[test]
fn every_answer_has_its_headers_and_bounds() {
    let known = both(&["alice@my.domain"]);
    for path in
        ["/", "/live", "/metrics", "/healthz", "/style.css", "/live.js", "/icon.svg", "/etc/passwd", "/../x"]
    {
        let answer = get(&known, path);
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        for wanted in [
            "content-security-policy: default-src 'none'; style-src 'self';",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-store",
            "content-type: ",
        ] {
            assert!(head.contains(wanted), "{path}: no {wanted:?} in {head}");
        }
        assert!(!head.contains("access-control"), "{head}");
    }
    let ask = |request: &str| ask_raw(&known, true, &format!("{request}\r\nConnection: close\r\n\r\n"));
    let host = "HTTP/1.1\r\nHost: localhost";
    assert!(ask(&format!("GET /metrics {host}")).starts_with("HTTP/1.1 200 "));
    assert!(ask(&format!("GET /nothing {host}")).starts_with("HTTP/1.1 404 "));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "FORMAT"] {
        let answer = ask(&format!("{method} / {host}"));
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD"), "{answer}");
    }
    let head = ask(&format!("HEAD / {host}"));
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    // Too long a head, too many lines, nonsense; a body is not waited for.
    let long = ask(&format!("GET /{} {host}", "x".repeat(40_000)));
    assert!(long.starts_with("HTTP/1.1 414 ") || long.starts_with("HTTP/1.1 431 "), "{long}");
    let many = "\r\nX: y".repeat(100);
    assert!(ask(&format!("GET / {host}{many}")).starts_with("HTTP/1.1 431 "));
    assert!(ask("\u{1}\u{2} nonsense").starts_with("HTTP/1.1 400 "));
    let body =
        ask_raw(&known, true, &format!("GET /healthz {host}\r\nContent-Length: 1000000000\r\n\r\nabc"));
    assert!(body.starts_with("HTTP/1.1 200 ") && body.contains("connection: close"), "{body}");
}

#[test]
fn nothing_but_loopback() {
    for good in ["127.0.0.1:9696", "127.1.2.3:1", "[::1]:9696"] {
        assert!(Where::tcp(good.parse().unwrap()).is_ok());
    }
    for bad in ["0.0.0.0:9696", "192.168.1.2:80", "[::]:80", "[2a00::1]:80", "[::ffff:127.0.0.1]:80"] {
        let error = Where::tcp(bad.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("only a loopback address") && error.contains("ssh -L"), "{error}");
    }
}

#[test]
fn a_unix_socket_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.sock");
    let place = Where::Unix { path: path.clone(), group: None };
    let first = Listener::bind(&place, &RunAs::Same).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = Listener::bind(&place, &RunAs::Same).err().unwrap().to_string();
    assert!(error.contains("somebody listens on"), "{error}");
    drop(first);
    assert!(!path.exists());
    // A stale one is replaced, a file of somebody else is not.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let group = Some(nix::unistd::getegid().as_raw());
    let second = Listener::bind(&Where::Unix { path: path.clone(), group }, &RunAs::Same).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    drop(second);
    std::fs::write(&path, "a file").unwrap();
    assert!(Listener::bind(&place, &RunAs::Same).err().unwrap().to_string().contains("no socket"));
    assert!(path.exists());
}
