//! What `ipsec.conf` and `swanctl.conf` have in common: words and defaults of strongSwan.

use super::draft::{Draft, Origin, Role, list, number, text};
use crate::config::proposal;

/// Proposals. Those that ferry6 refuses are told with the cause; where none is left its own defaults hold.
///
/// `exclusive`: nothing else is accepted. Otherwise `default` follows, as strongSwan appends its own.
pub(super) fn proposals(
    draft: &mut Draft,
    origin: &Origin,
    section: &'static str,
    value: &str,
    exclusive: bool,
) {
    let mut kept = Vec::new();
    for item in value.split(',').map(|p| p.trim().trim_end_matches('!')).filter(|p| !p.is_empty()) {
        let verdict = match section {
            "ike" => proposal::ike(item).map(drop),
            _ => proposal::esp(item).map(drop),
        };
        match verdict {
            Ok(()) => kept.push(item.to_owned()),
            Err(why) => draft.none(origin, why),
        }
    }
    if !exclusive && !kept.is_empty() && kept.last().is_none_or(|l| l != "default") {
        kept.push("default".to_owned());
    }
    if !kept.is_empty() {
        draft.set(origin, section, "proposals", list(&kept));
    }
}

/// An identity: strongSwan's `@name` and `%any`, the rest ferry6 reads alike.
pub(super) fn identity(value: &str) -> String {
    match value {
        "%any" | "any" | "*" => text("any"),
        _ => match value.strip_prefix("@#").map(|hex| format!("keyid:0x{hex}")) {
            Some(keyid) => text(&keyid),
            None => text(value.strip_prefix('@').unwrap_or(value)),
        },
    }
}

/// Traffic selectors. IPv4 ones and what ferry6 has no words for are told.
pub(super) fn selectors(draft: &mut Draft, origin: &Origin, key: &'static str, value: &str) {
    let mut kept = Vec::new();
    for item in value.split(',').map(str::trim).filter(|i| !i.is_empty()) {
        let prefix = item.split('[').next().unwrap_or(item);
        if prefix == "dynamic" {
            draft.always(origin, "selectors are narrowed to the leased address");
        } else if prefix.contains(':') {
            kept.push(if prefix.contains('/') || item.contains('[') {
                item.to_owned()
            } else {
                format!("{item}/128")
            });
        } else {
            draft.none(origin, format!("{item}: the tunnel carries IPv6 alone"));
        }
    }
    if !kept.is_empty() {
        draft.set(origin, "child", key, list(&kept));
    }
}

/// The address that the client asks for.
pub(super) fn virtual_address(draft: &mut Draft, origin: &Origin, value: &str) {
    for item in value.split(',').map(str::trim) {
        match item {
            "%config6" | "%config" | "%modeconfig" | "::" => {
                draft.set(origin, "tunnel", "address", text("request"));
            }
            "%config4" | "0.0.0.0" => draft.none(origin, format!("{item}: the tunnel carries IPv6 alone")),
            address if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                draft.set(origin, "tunnel", "address", text(address));
            }
            other => draft.none(origin, format!("{other}: not an IPv6 address")),
        }
    }
    draft.role.get_or_insert(Role::Client);
}

/// Addresses to lease.
pub(super) fn pool(draft: &mut Draft, origin: &Origin, value: &str) {
    let (v6, others): (Vec<&str>, Vec<&str>) =
        value.split(',').map(str::trim).filter(|i| !i.is_empty()).partition(|i| i.contains(':'));
    for other in others {
        let why = if other.starts_with('%') {
            "addresses come from pool.range alone"
        } else {
            "the pool is IPv6 alone"
        };
        draft.none(origin, format!("{other}: {why}"));
    }
    if !v6.is_empty() {
        draft.set(origin, "pool", "range", list(&v6));
        draft.role = Some(Role::Broker);
    }
}

/// DNS servers for the clients.
pub(super) fn dns(draft: &mut Draft, origin: &Origin, value: &str) {
    let (v6, others): (Vec<&str>, Vec<&str>) =
        value.split(',').map(str::trim).filter(|i| !i.is_empty()).partition(|i| i.contains(':'));
    for other in others {
        draft.none(origin, format!("{other}: only IPv6 DNS servers are told"));
    }
    if !v6.is_empty() {
        draft.set(origin, "pool", "dns", list(&v6));
    }
}

/// The peer's address: it decides the role, unless something has.
pub(super) fn peer(draft: &mut Draft, origin: &Origin, value: &str) {
    let first = value.split(',').next().unwrap_or("").trim();
    match first {
        "" | "%any" | "%any4" | "%any6" | "0.0.0.0" | "0.0.0.0/0" => {
            draft.role.get_or_insert(Role::Broker);
            draft.always(origin, "a broker takes peers from anywhere; the identity decides");
        }
        _ if first.contains('/') || first.starts_with('%') => {
            draft.role.get_or_insert(Role::Broker);
            draft.none(origin, "peers are told apart by identity, not by address");
        }
        host if host.contains(':') => {
            draft.none(origin, "the outer path is IPv4: name an IPv4 address or a host name")
        }
        host => {
            draft.role.get_or_insert(Role::Client);
            draft.set(origin, "broker", "address", text(host));
        }
    }
}

/// Our own address.
pub(super) fn local_address(draft: &mut Draft, origin: &Origin, value: &str) {
    match value {
        "%any" | "%any4" | "%defaultroute" | "0.0.0.0" => draft.always(origin, "it listens on all addresses"),
        address if address.parse::<std::net::Ipv4Addr>().is_ok() => {
            draft.set(origin, "listen", "address", text(address));
        }
        _ => draft.none(origin, "listen.address takes one IPv4 address"),
    }
}

/// How an end authenticates: ferry6 sees it by what it is given.
pub(super) fn authentication(draft: &mut Draft, origin: &Origin, value: &str) {
    let method = value.split(['-', ':']).next().unwrap_or(value);
    match method {
        "pubkey" | "rsasig" | "ecdsasig" | "rsa" | "ecdsa" | "ed25519" | "any" => {
            draft.always(origin, "a certificate authenticates where one is configured");
        }
        "psk" | "secret" => draft.always(origin, "a pre-shared key authenticates where one is configured"),
        "eap" | "xauth" => {
            draft.none(origin, "EAP and XAuth are not supported: use certificates, or a pre-shared key")
        }
        _ => draft.none(origin, "this kind of authentication is not supported"),
    }
}

/// `yes`, `no` and their friends.
pub(super) fn yes(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "yes" | "true" | "1" | "enabled" | "force" | "accept")
}

/// A limit in octets or packets, where 0 stands for none.
pub(super) fn limit(value: &str) -> String {
    if value == "0" { text("never") } else { number(value) }
}

/// IKE fragmentation.
pub(super) fn fragmentation(draft: &mut Draft, origin: &Origin, value: &str) {
    draft.set(origin, "ike", "fragmentation", yes(value).to_string());
}

/// `uniqueids`, `unique`.
pub(super) fn unique(draft: &mut Draft, origin: &Origin, value: &str) {
    let ours = match value {
        "yes" | "replace" | "no" => "replace",
        "keep" => "keep",
        "never" => "never",
        _ => return draft.none(origin, "known are replace, keep and never"),
    };
    if value == "no" {
        draft.none(origin, "taken for \"replace\": ferry6 does not make it depend on INITIAL_CONTACT");
    }
    draft.set(origin, "ike", "unique", text(ours));
}

/// What every connection needs and the file may not have said.
pub(super) fn complete(draft: &mut Draft, directory: &str) {
    let secret = draft.has("local", "psk_file") || draft.has("remote", "psk_file");
    if !draft.has("local", "cert") && !secret {
        draft.todo("local.cert and local.key, or local.psk_file: who we are");
    }
    if draft.has("local", "cert") && !draft.has("local", "key") {
        draft.todo(format!("local.key: the private key of local.cert (usually in {directory})"));
    }
    if !draft.has("remote", "ca") && !secret {
        draft.todo("remote.ca: the CA whose certificates the other side shows");
    }
    draft.needs_a_pool();
}
