//! `iked.conf`, as OpenBSD's `iked.conf(5)` has it.

use super::Fault;
use super::draft::{Draft, Origin, Role, duration, list, text};
use crate::config::proposal;
use std::collections::HashMap;

/// A word of the file. Quoted ones are never keywords.
#[derive(Clone, Debug)]
struct Word {
    text: String,
    quoted: bool,
    line: usize,
}

/// The words of one statement: a line, with those that follow a `\` at its end, or stand in braces.
type Statement = Vec<Word>;

fn statements(input: &str) -> Result<Vec<Statement>, Fault> {
    let mut statements = Vec::new();
    let mut words: Statement = Vec::new();
    let (mut line, mut depth) = (1, 0_usize);
    let mut chars = input.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'\n') => {
                chars.next();
                line += 1;
            }
            '\n' => {
                line += 1;
                if depth == 0 && !words.is_empty() {
                    statements.push(std::mem::take(&mut words));
                }
            }
            '#' => {
                while chars.peek().is_some_and(|&c| c != '\n') {
                    chars.next();
                }
            }
            '"' => {
                let start = line;
                let mut word = String::new();
                loop {
                    match chars.next() {
                        None => return Err(Fault::new(start, "a \" without its end")),
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some('\n') => line += 1,
                            other => word.extend(other),
                        },
                        Some(c) => {
                            line += usize::from(c == '\n');
                            word.push(c);
                        }
                    }
                }
                words.push(Word { text: word, quoted: true, line: start });
            }
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' => {}
            '=' => words.push(Word { text: "=".to_owned(), quoted: false, line }),
            c if c.is_whitespace() => {}
            c => {
                let mut word = String::from(c);
                while let Some(&c) = chars.peek() {
                    if c.is_whitespace() || matches!(c, '"' | '{' | '}' | ',' | '=' | '#') {
                        break;
                    }
                    word.push(c);
                    chars.next();
                }
                words.push(Word { text: word, quoted: false, line });
            }
        }
    }
    if depth > 0 {
        return Err(Fault::new(line, "the file ends within braces: a } is missing"));
    }
    if !words.is_empty() {
        statements.push(words);
    }
    Ok(statements)
}

/// Reads the file into one draft per policy.
pub(super) fn read(input: &str) -> Result<Vec<Draft>, Fault> {
    let mut macros: HashMap<String, Statement> = HashMap::new();
    let mut settings: Vec<Statement> = Vec::new();
    let mut drafts: Vec<Draft> = Vec::new();
    let mut others: Vec<(Origin, String)> = Vec::new();
    for statement in statements(input)? {
        if let [name, equals, value @ ..] = statement.as_slice()
            && !name.quoted
            && equals.text == "="
        {
            macros.insert(name.text.clone(), value.to_vec());
            continue;
        }
        let statement = expand(statement, &macros)?;
        let Some(first) = statement.first() else { continue };
        match first.text.as_str() {
            "set" => settings.push(statement),
            "ikev2" => drafts.push(policy(&statement, drafts.len())?),
            "user" => {
                let origin = Origin { line: first.line, text: "user … ***".to_owned() };
                others
                    .push((origin, "EAP is not supported: use certificates, or a pre-shared key".to_owned()));
            }
            "include" => {
                return Err(Fault::new(
                    first.line,
                    "include: import that file by itself, or put its text here",
                ));
            }
            other => {
                return Err(Fault::new(
                    first.line,
                    format!("{other:?}: expected ikev2, set, user, or a macro"),
                ));
            }
        }
    }
    for draft in &mut drafts {
        for words in &settings {
            global(draft, words);
        }
        for (origin, why) in &others {
            draft.none(origin, why.clone());
        }
        places(draft);
    }
    Ok(drafts)
}

fn expand(statement: Statement, macros: &HashMap<String, Statement>) -> Result<Statement, Fault> {
    let mut words = Vec::new();
    for word in statement {
        match word.text.strip_prefix('$').filter(|_| !word.quoted) {
            None => words.push(word),
            Some(name) => {
                let value = macros.get(name).ok_or_else(|| {
                    Fault::new(word.line, format!("${name}: that macro is not defined before"))
                })?;
                // What a macro holds are words, quoted as a whole or not.
                for part in value.iter().flat_map(|v| v.text.split_whitespace()) {
                    words.push(Word {
                        text: part.trim_end_matches(',').to_owned(),
                        quoted: false,
                        line: word.line,
                    });
                }
            }
        }
    }
    Ok(words)
}

/// Words of a policy that begin something: the words behind one belong to it until the next.
const KEYWORDS: &[&str] = &[
    "ikev2",
    "active",
    "passive",
    "default",
    "quick",
    "skip",
    "ipcomp",
    "notransport",
    "transport",
    "tunnel",
    "tap",
    "natt",
    "esp",
    "ah",
    "inet",
    "inet6",
    "proto",
    "rdomain",
    "from",
    "to",
    "local",
    "peer",
    "ikesa",
    "childsa",
    "srcid",
    "dstid",
    "ikelifetime",
    "lifetime",
    "bytes",
    "rsa",
    "ecdsa",
    "ecdsa256",
    "ecdsa384",
    "ecdsa521",
    "rfc7427",
    "psk",
    "eap",
    "config",
    "request",
    "iface",
    "tag",
];

/// A keyword with the words behind it.
fn clauses(statement: &[Word]) -> Vec<&[Word]> {
    let mut clauses: Vec<&[Word]> = Vec::new();
    let mut start = 0;
    for (at, word) in statement.iter().enumerate().skip(1) {
        // The name behind ikev2, and the value of `config name-server` and the like, are no keywords by place.
        let by_place = matches!(statement[at - 1].text.as_str(), "psk" | "tag" | "iface" | "srcid" | "dstid");
        if !word.quoted && !by_place && KEYWORDS.contains(&word.text.as_str()) {
            clauses.push(&statement[start..at]);
            start = at;
        }
    }
    clauses.push(&statement[start..]);
    clauses
}

fn policy(statement: &[Word], number: usize) -> Result<Draft, Fault> {
    let quoted = statement.get(1).filter(|w| w.quoted);
    let mut draft = Draft::new(&quoted.map_or_else(|| format!("policy{}", number + 1), |w| w.text.clone()));
    let clauses = clauses(statement);
    let active = clauses.iter().any(|c| c[0].text == "active" && !c[0].quoted);
    draft.role = Some(if active { Role::Client } else { Role::Broker });
    for clause in clauses {
        let words: Vec<&str> = clause[1..].iter().map(|w| w.text.as_str()).collect();
        let shown = if clause[0].text == "psk" { "psk ***".to_owned() } else { shown(clause) };
        let origin = Origin { line: clause[0].line, text: shown };
        clause_of(&mut draft, &origin, &clause[0].text, &words)?;
    }
    Ok(draft)
}

fn shown(clause: &[Word]) -> String {
    let words: Vec<_> =
        clause.iter().map(|w| if w.quoted { format!("{:?}", w.text) } else { w.text.clone() }).collect();
    words.join(" ")
}

fn clause_of(d: &mut Draft, o: &Origin, keyword: &str, words: &[&str]) -> Result<(), Fault> {
    let first = words.first().copied();
    let need =
        |what: &str| first.ok_or_else(|| Fault::new(o.line, format!("{keyword}: expected {what} behind it")));
    let broker = d.role == Some(Role::Broker);
    match keyword {
        "ikev2" => {}
        "passive" => d.always(o, "a broker waits for its clients"),
        "active" => d.always(o, "a client connects, again and again"),
        "ipcomp" => d.set(o, "child", "ipcomp", text("on")),
        "tunnel" | "esp" | "natt" | "inet6" | "notransport" => {
            d.always(o, "ESP in tunnel mode, in UDP, is what it does")
        }
        "transport" | "ah" | "tap" => d.none(o, "only ESP in tunnel mode is supported"),
        "inet" => d.none(o, "the tunnel carries IPv6 alone"),
        "from" => selector(d, o, "local_ts", need("an address")?),
        "to" => selector(d, o, "remote_ts", need("an address")?),
        "local" if need("an address")?.parse::<std::net::Ipv4Addr>().is_ok() => {
            d.set(o, "listen", "address", text(need("an address")?));
        }
        "local" if first == Some("any") => d.always(o, "it listens on all addresses"),
        "local" => d.none(o, "listen.address takes one IPv4 address"),
        "peer" if broker && first == Some("any") => {
            d.always(o, "a broker takes peers from anywhere; the identity decides")
        }
        "peer" if broker => d.none(o, "peers are told apart by identity, not by address"),
        "peer" => d.set(o, "broker", "address", text(need("an address")?)),
        "ikesa" => transforms(d, o, "ike", words),
        "childsa" => transforms(d, o, "child", words),
        "srcid" => d.set(o, "local", "id", identity(need("an identity")?)),
        "dstid" => d.set(o, "remote", "id", identity(need("an identity")?)),
        "ikelifetime" => d.set(o, "ike", "rekey", duration(need("a time")?)),
        "lifetime" => d.set(o, "child", "rekey", duration(need("a time")?)),
        "bytes" => d.set(o, "child", "rekey_bytes", text(need("a size")?)),
        "psk" => {
            let file = format!("{}.psk", d.name);
            d.set(o, "local", "psk_file", text(&file));
            d.todo(format!("{file}: the secret of line {} as its only line, mode 600", o.line));
        }
        "rsa" | "ecdsa" | "ecdsa256" | "ecdsa384" | "rfc7427" => d.always(o, "the certificate's key decides"),
        "ecdsa521" => d.none(o, "P-521 is not supported: use P-256 or P-384"),
        "eap" => d.none(o, "EAP is not supported: use certificates, or a pre-shared key"),
        "config" | "request" => configuration(d, o, keyword == "request", words),
        "iface" => d.set(o, "tunnel", "device", text(need("an interface")?)),
        "default" | "quick" => d.none(o, "the first connection that fits the peer is taken"),
        _ => d.none(o, "no equivalent"),
    }
    Ok(())
}

fn selector(d: &mut Draft, o: &Origin, key: &'static str, value: &str) {
    match value {
        "any" | "dynamic" => d.always(o, "selectors are ::/0, narrowed to the leased address"),
        v if v.contains(':') && v.contains('/') => d.set(o, "child", key, list(&[v])),
        v if v.contains(':') => d.set(o, "child", key, list(&[format!("{v}/128")])),
        _ => d.none(o, "the tunnel carries IPv6 alone: name a prefix"),
    }
}

/// iked names identities by their looks, as ferry6 does, and a DN with slashes.
fn identity(value: &str) -> String {
    match value.strip_prefix('/') {
        Some(dn) => text(&format!("dn:{}", dn.split('/').collect::<Vec<_>>().join(", "))),
        None => text(value),
    }
}

/// `enc … auth … prf … group …`: one proposal.
fn transforms(d: &mut Draft, o: &Origin, section: &'static str, words: &[&str]) {
    let mut proposal_words = Vec::new();
    let mut pairs = words.iter();
    while let Some(&kind) = pairs.next() {
        if matches!(kind, "esn" | "noesn") {
            proposal_words.push(kind.to_owned());
            continue;
        }
        let Some(name) = pairs.next() else { break };
        match algorithm(kind, name) {
            // AES-GCM needs no auth of its own, and `none` is no group.
            Some(word) if word.is_empty() => {}
            Some(word) => proposal_words.push(word),
            None => return d.none(o, format!("{kind} {name} is not supported: the defaults are taken")),
        }
    }
    if section == "ike" && !proposal_words.iter().any(|w| w.starts_with("prf")) && !words.contains(&"auth") {
        proposal_words.push("prfsha256".to_owned());
    }
    let joined = proposal_words.join("-");
    let verdict =
        if section == "ike" { proposal::ike(&joined).map(drop) } else { proposal::esp(&joined).map(drop) };
    match verdict {
        Ok(()) => d.set(o, section, "proposals", list(&[joined])),
        Err(why) => d.none(o, format!("{why}: the defaults are taken")),
    }
}

/// An algorithm of iked in strongSwan's words; `None`: neither end of ours has it.
fn algorithm(kind: &str, name: &str) -> Option<String> {
    let word = match (kind, name) {
        ("enc", "aes-256-gcm") => "aes256gcm16",
        ("enc", "aes-128-gcm") => "aes128gcm16",
        ("enc", "aes-256") => "aes256",
        ("enc", "aes-128") => "aes128",
        ("enc", "chacha20-poly1305") => "chacha20poly1305",
        ("auth", "hmac-sha2-256") => "sha256",
        ("auth", "hmac-sha2-384") => "sha384",
        ("auth", "hmac-sha2-512") => "sha512",
        ("auth", "hmac-sha1") => "sha1",
        ("prf", "hmac-sha2-256") => "prfsha256",
        ("prf", "hmac-sha2-384") => "prfsha384",
        ("prf", "hmac-sha2-512") => "prfsha512",
        ("prf", "hmac-sha1") => "prfsha1",
        ("group", "none") => "",
        ("group", "curve25519" | "grp31") => "x25519",
        ("group", "ecp256" | "grp19") => "ecp256",
        ("group", "ecp384" | "grp20") => "ecp384",
        ("group", "modp2048" | "grp14") => "modp2048",
        ("group", "modp3072" | "grp15") => "modp3072",
        ("group", "modp4096" | "grp16") => "modp4096",
        _ => return None,
    };
    Some(word.to_owned())
}

/// `config address …` on the broker, `request address any` on the client.
fn configuration(d: &mut Draft, o: &Origin, asks: bool, words: &[&str]) {
    match (words, asks) {
        (["address", "any"], true) => d.set(o, "tunnel", "address", text("request")),
        (["address", address], true) if address.contains(':') => {
            d.set(o, "tunnel", "address", text(address.split('/').next().unwrap_or(address)));
        }
        (["name-server", ..], true) => d.always(o, "a client asks for DNS servers"),
        (["address", range], false) if range.contains(':') => d.set(o, "pool", "range", text(range)),
        (["name-server", server], false) if server.contains(':') => d.set(o, "pool", "dns", list(&[server])),
        (["address" | "name-server", ..], _) => d.none(o, "the tunnel carries IPv6 alone"),
        _ => d.none(o, "only addresses and DNS servers are told"),
    }
}

fn global(d: &mut Draft, words: &[Word]) {
    let origin = Origin { line: words[0].line, text: shown(words) };
    let o = &origin;
    let rest: Vec<&str> = words[1..].iter().map(|w| w.text.as_str()).collect();
    match rest.as_slice() {
        ["fragmentation"] => d.set(o, "ike", "fragmentation", "true".into()),
        ["nofragmentation"] => d.set(o, "ike", "fragmentation", "false".into()),
        ["mobike"] => d.set(o, "ike", "mobike", "true".into()),
        ["nomobike"] => d.set(o, "ike", "mobike", "false".into()),
        ["enforcesingleikesa"] => d.set(o, "ike", "unique", text("replace")),
        ["noenforcesingleikesa"] => d.set(o, "ike", "unique", text("never")),
        ["dpd_check_interval", seconds] => d.set(o, "ike", "dpd", duration(seconds)),
        ["active" | "passive" | "couple" | "decouple", ..] => {
            d.always(o, "a broker waits, a client connects")
        }
        ["stickyaddress" | "nostickyaddress"] => d.always(o, "an identity keeps its address"),
        ["ocsp", ..] => d.none(o, "OCSP addresses are taken from the certificates"),
        ["cert_partial_chain"] => d.always(o, "an intermediate CA in remote.ca is trusted as it is"),
        _ => d.none(o, "no equivalent"),
    }
}

/// Files that iked finds by their place.
fn places(d: &mut Draft) {
    if !d.has("local", "psk_file") {
        d.set(&Origin::default("iked: certs/ by srcid"), "local", "cert", text("/etc/iked/certs/local.crt"));
        d.set(&Origin::default("iked's place"), "local", "key", text("/etc/iked/private/local.key"));
        d.set(&Origin::default("iked's place"), "remote", "ca", text("/etc/iked/ca/ca.crt"));
        d.todo("local.cert: the file of /etc/iked/certs whose certificate has srcid");
    }
    if d.role == Some(Role::Client) && !d.has("broker", "address") {
        d.todo("broker.address: the broker's name or IPv4 address (the policy has no peer)");
    }
    d.needs_a_pool();
}
