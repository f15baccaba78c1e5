//! `ipsec.conf`, as `ipsec.conf(5)` of strongSwan has it, with the `ipsec.secrets` beside it.

use super::draft::{Draft, Origin, Role, duration, list, number, text};
use super::{Fault, strongswan};
use std::collections::BTreeSet;
use std::path::Path;

/// `keyword = value` with its line.
#[derive(Clone)]
struct Setting {
    key: String,
    value: String,
    origin: Origin,
}

struct Section {
    kind: String,
    name: String,
    settings: Vec<Setting>,
    line: usize,
}

fn sections(input: &str) -> Result<Vec<Section>, Fault> {
    let mut sections: Vec<Section> = Vec::new();
    for (index, raw) in input.lines().enumerate() {
        let line = index + 1;
        let content = without_comment(raw);
        if content.trim().is_empty() {
            continue;
        }
        let indented = content.starts_with([' ', '\t']);
        let content = content.trim();
        if indented {
            let (key, value) = content
                .split_once('=')
                .ok_or_else(|| Fault::new(line, format!("{content:?}: expected `keyword = value`")))?;
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            let section = sections.last_mut().ok_or_else(|| {
                Fault::new(line, "a setting before the first `conn`, `ca` or `config setup`")
            })?;
            section.settings.push(Setting {
                key: key.trim().to_ascii_lowercase(),
                value: value.to_owned(),
                origin: Origin { line, text: content.to_owned() },
            });
            continue;
        }
        let mut words = content.split_whitespace();
        match (words.next(), words.next()) {
            (Some(kind @ ("conn" | "ca" | "config")), Some(name)) => sections.push(Section {
                kind: kind.to_owned(),
                name: name.to_owned(),
                settings: Vec::new(),
                line,
            }),
            (Some("include"), Some(file)) => {
                return Err(Fault::new(
                    line,
                    format!("include {file}: import that file by itself, or put its text here"),
                ));
            }
            (Some("version"), _) => {}
            _ => {
                return Err(Fault::new(
                    line,
                    format!("{content:?}: expected `conn NAME`, `ca NAME` or `config setup`"),
                ));
            }
        }
    }
    Ok(sections)
}

/// A `#` begins a comment, but within quotes.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

/// The settings of a connection with those of `%default` and of every `also` behind its own.
fn resolve(sections: &[Section], name: &str, seen: &mut BTreeSet<String>) -> Result<Vec<Setting>, Fault> {
    let mut settings: Vec<Setting> = Vec::new();
    if !seen.insert(name.to_owned()) {
        return Ok(settings);
    }
    let mut found = false;
    for section in sections.iter().filter(|s| s.kind == "conn" && s.name == name) {
        found = true;
        for setting in &section.settings {
            if setting.key == "also" {
                for more in resolve(sections, &setting.value, seen)? {
                    inherit(&mut settings, more);
                }
            } else {
                // The last of a section wins.
                settings.retain(|s| s.key != setting.key);
                settings.push(setting.clone());
            }
        }
    }
    if !found && name != "%default" {
        return Err(Fault::new(0, format!("also = {name}: there is no conn of that name")));
    }
    Ok(settings)
}

fn inherit(settings: &mut Vec<Setting>, more: Setting) {
    if !settings.iter().any(|s| s.key == more.key) {
        settings.push(more);
    }
}

/// Reads the file into one draft per connection.
pub(super) fn read(input: &str, path: &Path) -> Result<Vec<Draft>, Fault> {
    let sections = sections(input)?;
    let mut drafts = Vec::new();
    for section in sections.iter().filter(|s| s.kind == "conn" && s.name != "%default") {
        let mut settings = resolve(&sections, &section.name, &mut BTreeSet::new())?;
        for more in resolve(&sections, "%default", &mut BTreeSet::new())? {
            inherit(&mut settings, more);
        }
        // A part that others include by `also`.
        if settings.iter().any(|s| s.key == "auto" && s.value == "ignore")
            || sections.iter().any(|o| o.settings.iter().any(|s| s.key == "also" && s.value == section.name))
        {
            continue;
        }
        let mut draft = Draft::new(&section.name);
        connection(&mut draft, &settings);
        for other in &sections {
            for setting in &other.settings {
                match other.kind.as_str() {
                    "config" => setup(&mut draft, setting),
                    "ca" => authority(&mut draft, setting),
                    _ => {}
                }
            }
        }
        secrets(&mut draft, path);
        trust(&mut draft, path);
        strongswan::complete(&mut draft, "/etc/ipsec.d/private");
        if draft.role.is_none() {
            return Err(Fault::new(
                section.line,
                format!("conn {}: neither `right` nor `rightsourceip`: client or broker?", section.name),
            ));
        }
        drafts.push(draft);
    }
    Ok(drafts)
}

fn file(folder: &str, name: &str) -> String {
    if name.starts_with('/') { text(name) } else { text(&format!("/etc/ipsec.d/{folder}/{name}")) }
}

fn connection(draft: &mut Draft, settings: &[Setting]) {
    let value = |key: &str| settings.iter().find(|s| s.key == key).map(|s| s.value.as_str());
    let lifetime = value("ikelifetime").unwrap_or("3h");
    // A pool says more about the role than the peer's address, so it is asked first.
    let rank = |s: &&Setting| u8::from(!matches!(s.key.as_str(), "rightsourceip" | "leftsourceip"));
    let mut ordered: Vec<_> = settings.iter().collect();
    ordered.sort_by_key(rank);
    for Setting { key, value: v, origin: o } in ordered {
        let d = &mut *draft;
        match key.as_str() {
            "leftsourceip" => strongswan::virtual_address(d, o, v),
            "rightsourceip" => strongswan::pool(d, o, v),
            "rightdns" => strongswan::dns(d, o, v),
            "leftdns" => d.always(o, "a client asks for DNS servers"),
            "left" => strongswan::local_address(d, o, v),
            "right" => strongswan::peer(d, o, v),
            "leftcert" => d.set(o, "local", "cert", file("certs", v)),
            "leftid" => d.set(o, "local", "id", strongswan::identity(v)),
            "rightid" => d.set(o, "remote", "id", strongswan::identity(v)),
            "rightca" | "leftca" => d.none(o, "a CA is named by its file, in remote.ca"),
            "rightcert" => {
                d.none(o, "name the CA of that certificate in remote.ca, and its identity in remote.id")
            }
            "leftsubnet" => strongswan::selectors(d, o, "local_ts", v),
            "rightsubnet" => strongswan::selectors(d, o, "remote_ts", v),
            "ike" => strongswan::proposals(d, o, "ike", v, v.ends_with('!')),
            "esp" => strongswan::proposals(d, o, "child", v, v.ends_with('!')),
            "compress" => d.set(o, "child", "ipcomp", text(if strongswan::yes(v) { "on" } else { "off" })),
            "mobike" => d.set(o, "ike", "mobike", strongswan::yes(v).to_string()),
            "fragmentation" => strongswan::fragmentation(d, o, v),
            "ikelifetime" => d.set(o, "ike", "rekey", duration(v)),
            "lifetime" | "keylife" => d.set(o, "child", "rekey", duration(v)),
            "lifebytes" => d.set(o, "child", "rekey_bytes", strongswan::limit(v)),
            "lifepackets" => d.set(o, "child", "rekey_packets", strongswan::limit(v)),
            "dpddelay" => d.set(o, "ike", "dpd", duration(v)),
            "reauth" if strongswan::yes(v) => d.set(o, "ike", "reauth", duration(lifetime)),
            "reauth" => {
                d.always(o, "an IKE SA is rekeyed, not authenticated again, unless ike.reauth says so")
            }
            "rekey" if !strongswan::yes(v) => d.none(
                o,
                "rekeying is never refused; ike.rekey and child.rekey = \"never\" leave it to the peer",
            ),
            "rekey" => d.always(o, "SAs are rekeyed"),
            "replay_window" => d.set(o, "tunnel", "replay_window", number(v)),
            "leftauth" | "rightauth" | "authby" | "auth" => strongswan::authentication(d, o, v),
            "keyexchange" if matches!(v.as_str(), "ikev2" | "ike") => d.always(o, "IKEv2 is what it speaks"),
            "keyexchange" => d.none(o, "IKEv1 is not supported: the other side must speak IKEv2"),
            "type" if v == "tunnel" => d.always(o, "tunnel mode is what it does"),
            "auto" if v == "start" => d.always(o, "a client connects when it is started"),
            "auto" if draft_is_broker(d) => d.always(o, "a broker waits for its clients"),
            "auto" => d.none(o, "a client connects when it is started, not on demand"),
            "keyingtries" | "dpdaction" | "closeaction" => {
                d.always(o, "a client connects again for as long as it runs")
            }
            "forceencaps" => d.always(o, "ESP goes in UDP"),
            "installpolicy" | "lefthostaccess" | "leftsendcert" | "rightsendcert" | "leftallowany"
            | "rightallowany" => {
                d.always(o, "nothing to choose here");
            }
            "margintime" | "rekeymargin" | "rekeyfuzz" | "marginbytes" | "marginpackets" => {
                d.always(o, "a random share is taken off each lifetime");
            }
            "dpdtimeout" => d.always(o, "of IKEv1 alone; ike.retransmit_tries says when a peer is given up"),
            "leftupdown" | "rightupdown" | "leftfirewall" | "rightfirewall" => {
                d.none(o, "addresses and routes are set by itself; firewall rules stay yours");
            }
            _ => d.none(o, "unknown to the import"),
        }
    }
    // What strongSwan does where nothing is said, and ferry6 does not.
    if value("reauth").is_none() {
        draft.set(
            &Origin::default("reauth = yes, ipsec.conf's default"),
            "ike",
            "reauth",
            duration(lifetime),
        );
    }
}

fn draft_is_broker(draft: &Draft) -> bool {
    draft.role == Some(Role::Broker)
}

fn setup(draft: &mut Draft, Setting { key, value, origin }: &Setting) {
    match key.as_str() {
        "strictcrlpolicy" => {
            let policy = match value.as_str() {
                "yes" => "strict",
                "ifuri" => "ifuri",
                _ => "off",
            };
            draft.set(origin, "remote", "revocation", text(policy));
        }
        "uniqueids" => strongswan::unique(draft, origin, value),
        "charondebug" => draft.none(origin, "what goes to the log: ferry6 --log debug, or FERRY6_LOG"),
        "cachecrls" => draft.always(origin, "fetched CRLs are kept in crl_cache"),
        _ => draft.none(origin, "unknown to the import"),
    }
}

fn authority(draft: &mut Draft, Setting { key, value, origin }: &Setting) {
    match key.as_str() {
        "cacert" => draft.set(origin, "remote", "ca", file("cacerts", value)),
        "crluri" | "crluri1" | "crluri2" | "ocspuri" | "ocspuri1" | "ocspuri2" => {
            draft.none(
                origin,
                "CRL and OCSP addresses are taken from the certificates; a CRL file goes to remote.crl",
            );
        }
        "auto" => draft.always(origin, "nothing to choose here"),
        _ => draft.none(origin, "unknown to the import"),
    }
}

/// `ipsec.secrets`: where the key lies. No secret is taken out of it.
fn secrets(draft: &mut Draft, path: &Path) {
    let file_name = path.with_file_name("ipsec.secrets");
    let Ok(content) = crate::files::read_text(&file_name) else {
        return;
    };
    for (index, raw) in content.lines().enumerate() {
        let Some((_, rest)) = without_comment(raw).split_once(':') else { continue };
        // The selectors before the colon may be IPv6 addresses: the kind is the first word that is one.
        let mut words = rest.split_whitespace().skip_while(|w| !["RSA", "ECDSA", "PKCS8", "PSK"].contains(w));
        let (Some(kind), name) = (words.next(), words.next()) else { continue };
        let origin = Origin { line: 0, text: format!("ipsec.secrets:{}: {kind}", index + 1) };
        match (kind, name) {
            ("PSK", _) if !draft.has("local", "cert") => {
                let psk = format!("{}.psk", draft.name);
                draft.set(&origin, "local", "psk_file", text(&psk));
                draft.todo(format!(
                    "{psk}: the secret of ipsec.secrets:{} as its only line, mode 600 (0x and 0s are read alike)",
                    index + 1
                ));
            }
            ("RSA" | "ECDSA" | "PKCS8", Some(name)) if draft.has("local", "cert") => {
                draft.set(&origin, "local", "key", file("private", name.trim_matches('"')));
                if words.next().is_some() {
                    draft.todo(
                        "local.key_passphrase_file: a file whose first line decrypts that key, mode 600",
                    );
                }
            }
            _ => {}
        }
    }
}

/// strongSwan trusts every file of `ipsec.d/cacerts`.
fn trust(draft: &mut Draft, path: &Path) {
    let origin = |folder: &str| Origin { line: 0, text: format!("every file of ipsec.d/{folder}") };
    for (folder, key) in [("cacerts", "ca"), ("crls", "crl")] {
        if draft.has("remote", key) {
            continue;
        }
        let directory = path.with_file_name("ipsec.d").join(folder);
        let mut files: Vec<_> = std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .filter_map(|e| Some(e.ok()?.path().display().to_string()))
            .collect();
        files.sort();
        if !files.is_empty() {
            draft.set(&origin(folder), "remote", key, list(&files));
        }
    }
}
