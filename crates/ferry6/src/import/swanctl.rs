//! `swanctl.conf`, as `swanctl.conf(5)` has it.

use super::draft::{Draft, Origin, Role, duration, list, number, text};
use super::{Fault, strongswan};

/// A section or a setting.
struct Node {
    name: String,
    line: usize,
    content: Content,
}

enum Content {
    Value(String),
    Section(Vec<Node>),
}

/// Sections deeper than this are no `swanctl.conf`.
const DEPTH: usize = 8;

/// Characters with their lines.
struct Scanner<'a> {
    rest: &'a str,
    line: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// Skips white space and comments.
    fn skip(&mut self) {
        loop {
            match self.rest.chars().next() {
                Some('#') => while self.next().is_some_and(|c| c != '\n') {},
                Some(c) if c.is_whitespace() => {
                    self.next();
                }
                _ => return,
            }
        }
    }

    fn name(&mut self) -> String {
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | '=' | '#' | ':'))
            .unwrap_or(self.rest.len());
        let name = self.rest[..end].to_owned();
        self.rest = &self.rest[end..];
        name
    }

    /// The value behind `=`: to the end of the line, or quoted.
    fn value(&mut self) -> String {
        while self.rest.starts_with([' ', '\t']) {
            self.next();
        }
        if self.rest.starts_with('"') {
            self.next();
            let mut value = String::new();
            while let Some(c) = self.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(self.next()),
                    c => value.push(c),
                }
            }
            return value;
        }
        let end = self.rest.find(['\n', '#', '}']).unwrap_or(self.rest.len());
        let value = self.rest[..end].trim().to_owned();
        self.rest = &self.rest[end..];
        value
    }

    fn nodes(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut nodes = Vec::new();
        loop {
            self.skip();
            let line = self.line;
            if self.rest.is_empty() {
                return if depth == 0 {
                    Ok(nodes)
                } else {
                    Err(Fault::new(line, "the file ends within a section: a } is missing"))
                };
            }
            if self.rest.starts_with('}') {
                if depth == 0 {
                    return Err(Fault::new(line, "a } without a section"));
                }
                self.next();
                return Ok(nodes);
            }
            let name = self.name();
            if name == "include" {
                let file = self.value();
                return Err(Fault::new(
                    line,
                    format!("include {file}: import that file by itself, or put its text here"),
                ));
            }
            self.skip();
            match self.rest.chars().next() {
                Some('{') if depth < DEPTH && !name.is_empty() => {
                    self.next();
                    nodes.push(Node { name, line, content: Content::Section(self.nodes(depth + 1)?) });
                }
                Some('=') if !name.is_empty() => {
                    self.next();
                    nodes.push(Node { name, line, content: Content::Value(self.value()) });
                }
                _ => {
                    return Err(Fault::new(
                        line,
                        format!("after {name:?}: expected `name {{` or `name = value`"),
                    ));
                }
            }
        }
    }
}

impl Node {
    fn children(&self) -> &[Node] {
        match &self.content {
            Content::Section(nodes) => nodes,
            Content::Value(_) => &[],
        }
    }

    /// A setting's value and where it stood, with `path` before its name.
    fn setting(&self, path: &str) -> Option<(&str, Origin)> {
        match &self.content {
            Content::Value(value) => {
                Some((value, Origin { line: self.line, text: format!("{path}{} = {value}", self.name) }))
            }
            Content::Section(_) => None,
        }
    }
}

fn section<'a>(nodes: &'a [Node], name: &str) -> &'a [Node] {
    nodes.iter().find(|n| n.name == name).map_or(&[], |n| n.children())
}

/// Reads the file into one draft per connection.
pub(super) fn read(input: &str) -> Result<Vec<Draft>, Fault> {
    let nodes = Scanner { rest: input, line: 1 }.nodes(0)?;
    let mut drafts = Vec::new();
    for node in section(&nodes, "connections") {
        let mut draft = Draft::new(&node.name);
        connection(&mut draft, node, section(&nodes, "pools"));
        for authority in section(&nodes, "authorities") {
            for (value, origin) in authority.children().iter().filter_map(|n| n.setting("authorities: ")) {
                if origin.text.contains("cacert = ") {
                    draft.set(&origin, "remote", "ca", file("x509ca", value));
                } else {
                    draft.none(&origin, "CRL and OCSP addresses are taken from the certificates");
                }
            }
        }
        secrets(&mut draft, section(&nodes, "secrets"));
        strongswan::complete(&mut draft, "/etc/swanctl/private");
        if draft.role.is_none() {
            // As swanctl: without remote_addrs anyone may come.
            draft.role = Some(Role::Broker);
        }
        drafts.push(draft);
    }
    Ok(drafts)
}

fn file(folder: &str, name: &str) -> String {
    if name.starts_with('/') { text(name) } else { text(&format!("/etc/swanctl/{folder}/{name}")) }
}

fn files(folder: &str, names: &str) -> String {
    let files: Vec<String> = names
        .split(',')
        .map(str::trim)
        .map(|n| if n.starts_with('/') { n.to_owned() } else { format!("/etc/swanctl/{folder}/{n}") })
        .collect();
    match files.as_slice() {
        [one] => text(one),
        all => list(all),
    }
}

fn connection(draft: &mut Draft, node: &Node, pools: &[Node]) {
    // Pools and virtual addresses say more about the role than the peer's address.
    let rank = |n: &&Node| u8::from(!matches!(n.name.as_str(), "pools" | "vips"));
    let mut ordered: Vec<_> = node.children().iter().collect();
    ordered.sort_by_key(rank);
    for child in ordered {
        let Some((v, origin)) = child.setting("") else {
            subsection(draft, child);
            continue;
        };
        let (d, o) = (&mut *draft, &origin);
        match child.name.as_str() {
            "version" if v == "1" => d.none(o, "IKEv1 is not supported: the other side must speak IKEv2"),
            "version" => d.always(o, "IKEv2 is what it speaks"),
            "vips" => strongswan::virtual_address(d, o, v),
            "pools" => {
                for name in v.split(',').map(str::trim) {
                    pool(d, o, name, pools);
                }
            }
            "local_addrs" => strongswan::local_address(d, o, v),
            "remote_addrs" => strongswan::peer(d, o, v),
            "local_port" => d.set(o, "listen", "port", number(v)),
            "remote_port" => d.set(o, "broker", "port", number(v)),
            // swanctl takes just what stands there; `default` is a word of its own.
            "proposals" => strongswan::proposals(d, o, "ike", v, true),
            "mobike" => d.set(o, "ike", "mobike", strongswan::yes(v).to_string()),
            "fragmentation" => strongswan::fragmentation(d, o, v),
            "dpd_delay" => d.set(o, "ike", "dpd", duration(v)),
            "unique" => strongswan::unique(d, o, v),
            "reauth_time" => d.set(o, "ike", "reauth", duration(v)),
            "rekey_time" => d.set(o, "ike", "rekey", duration(v)),
            "over_time" | "rand_time" | "dpd_timeout" => {
                d.always(o, "a random share is taken off each lifetime")
            }
            "encap" => d.always(o, "ESP goes in UDP"),
            "keyingtries" => d.always(o, "a client connects again for as long as it runs"),
            "send_cert" | "send_certreq" => d.always(o, "certificates are sent and asked for"),
            _ => d.none(o, "unknown to the import"),
        }
    }
}

fn pool(draft: &mut Draft, origin: &Origin, name: &str, pools: &[Node]) {
    let Some(node) = pools.iter().find(|p| p.name == name) else {
        return draft.none(origin, format!("there is no pool {name}"));
    };
    for (value, origin) in node.children().iter().filter_map(|n| n.setting(&format!("pools.{name}."))) {
        match origin.text.split([' ', '.']).nth(2) {
            Some("addrs") => strongswan::pool(draft, &origin, value),
            Some("dns") => strongswan::dns(draft, &origin, value),
            _ => draft.none(&origin, "only addresses and DNS servers are told"),
        }
    }
}

fn subsection(draft: &mut Draft, node: &Node) {
    let ours = node.name.starts_with("local");
    if node.name == "children" {
        for (number, child) in node.children().iter().enumerate() {
            for (value, origin) in child.children().iter().filter_map(|n| n.setting("")) {
                if number == 0 {
                    child_setting(draft, &origin, value);
                } else {
                    draft.none(
                        &origin,
                        format!(
                            "child {}: a connection has one Child SA, with all selectors in it",
                            child.name
                        ),
                    );
                }
            }
        }
        return;
    }
    for child in node.children() {
        let Some((v, origin)) = child.setting(&format!("{}: ", node.name)) else { continue };
        let (d, o) = (&mut *draft, &origin);
        match (child.name.as_str(), ours) {
            ("auth", _) => strongswan::authentication(d, o, v),
            ("certs", true) => {
                d.set(o, "local", "cert", file("x509", v.split(',').next().unwrap_or(v).trim()))
            }
            ("certs", false) => {
                d.none(o, "name the CA of that certificate in remote.ca, and its identity in remote.id")
            }
            ("id", true) => d.set(o, "local", "id", strongswan::identity(v)),
            ("id", false) => d.set(o, "remote", "id", strongswan::identity(v)),
            ("cacerts", false) => d.set(o, "remote", "ca", files("x509ca", v)),
            // strongSwan's relaxed, where a CRL counts that is at hand and its absence doesn't matter, is not among ours: ifuri is
            // the nearest that is not laxer.
            ("revocation", false) => {
                d.set(o, "remote", "revocation", text(if v == "strict" { "strict" } else { "ifuri" }));
            }
            _ => d.none(o, "unknown to the import"),
        }
    }
}

fn child_setting(d: &mut Draft, o: &Origin, v: &str) {
    match o.text.split(' ').next().unwrap_or("") {
        "local_ts" => strongswan::selectors(d, o, "local_ts", v),
        "remote_ts" => strongswan::selectors(d, o, "remote_ts", v),
        "esp_proposals" => strongswan::proposals(d, o, "child", v, true),
        "ipcomp" => d.set(o, "child", "ipcomp", text(if strongswan::yes(v) { "on" } else { "off" })),
        "rekey_time" => d.set(o, "child", "rekey", duration(v)),
        "rekey_bytes" => d.set(o, "child", "rekey_bytes", strongswan::limit(v)),
        "rekey_packets" => d.set(o, "child", "rekey_packets", strongswan::limit(v)),
        "replay_window" => d.set(o, "tunnel", "replay_window", number(v)),
        "mode" if v == "tunnel" => d.always(o, "tunnel mode is what it does"),
        "life_time" | "life_bytes" | "life_packets" | "rand_time" | "rand_bytes" | "rand_packets" => {
            d.always(o, "the hard limits follow from the rekey's");
        }
        "dpd_action" | "close_action" => d.always(o, "a client connects again for as long as it runs"),
        "start_action" if matches!(v, "start" | "none") => {
            d.always(o, "a client connects when it is started")
        }
        "start_action" => d.none(o, "a client connects when it is started, not on demand"),
        "updown" => d.none(o, "addresses and routes are set by itself; firewall rules stay yours"),
        _ => d.none(o, "unknown to the import"),
    }
}

/// Where keys and secrets lie. No secret is taken out of the file.
fn secrets(draft: &mut Draft, nodes: &[Node]) {
    for node in nodes {
        let kind = node.name.split('-').next().unwrap_or("").trim_end_matches(|c: char| c.is_ascii_digit());
        let origin = Origin { line: node.line, text: format!("secrets: {}", node.name) };
        match kind {
            "ike" if !draft.has("local", "cert") => {
                let psk = format!("{}.psk", draft.name);
                draft.set(&origin, "local", "psk_file", text(&psk));
                draft.todo(format!(
                    "{psk}: the secret of line {} as its only line, mode 600 (0x and 0s are read alike)",
                    node.line
                ));
            }
            "private" | "rsa" | "ecdsa" | "pkcs8" if draft.has("local", "cert") => {
                let folder = if kind == "private" { "private" } else { kind };
                for child in node.children() {
                    match (&child.content, child.name.as_str()) {
                        (Content::Value(name), "file") => {
                            draft.set(&origin, "local", "key", file(folder, name))
                        }
                        (Content::Value(_), "secret") => {
                            draft.todo("local.key_passphrase_file: a file whose first line decrypts the key, mode 600");
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}
