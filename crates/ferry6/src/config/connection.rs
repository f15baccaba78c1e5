//! `[local]`, `[remote]`, `[ike]` and `[child]`: what makes an [`ike::Connection`](Connection). The same on both sides.

use super::keys;
use super::per_cpu;
use super::proposal;
use super::reader::{Document, Found, Section};
use super::tunnel::Tunnel;
use super::values;
use ferry6_crypto::{CryptoProvider, Secret};
use ferry6_ike::certs::{self, CertError};
use ferry6_ike::config::{
    AddressConfig, Credential, IpcompPolicy, NatPolicy, PeerAuth, RemoteId, Retransmit, Revocation,
    RoutabilityCheck, Unique,
};
use ferry6_ike::{Connection, Identity, TrafficSelector};
use rustls_pki_types::CertificateDer;
use std::time::{Duration, SystemTime};

/// The four sections of one connection.
pub(super) struct Sections<'d> {
    pub(super) local: Section<'d>,
    pub(super) remote: Section<'d>,
    pub(super) ike: Section<'d>,
    pub(super) child: Section<'d>,
}

impl<'d> Sections<'d> {
    /// Of the root.
    pub(super) fn of(root: &Section<'d>) -> Self {
        Self {
            local: root.section("local"),
            remote: root.section("remote"),
            ike: root.section("ike"),
            child: root.section("child"),
        }
    }

    /// Of a `[[connection]]`: what it leaves out comes from the root's sections.
    pub(super) fn of_connection(connection: &Section<'d>, root: &Self) -> Self {
        Self {
            local: connection.section_or("local", Some(&root.local)),
            remote: connection.section_or("remote", Some(&root.remote)),
            ike: connection.section_or("ike", Some(&root.ike)),
            child: connection.section_or("child", Some(&root.child)),
        }
    }

    pub(super) fn finish(self) {
        self.local.finish();
        self.remote.finish();
        self.ike.finish();
        self.child.finish();
    }
}

/// What differs between the roles.
pub(super) struct Defaults {
    pub(super) name: String,
    pub(super) addresses: AddressConfig,
    /// The peer's identity where `remote.id` is missing.
    pub(super) remote_id: RemoteId,
    pub(super) remote_ts: Vec<TrafficSelector>,
    /// The kinds of identity to take from our certificate where `local.id` is missing, best first.
    pub(super) prefer_email: bool,
}

pub(super) fn read(sections: &Sections<'_>, defaults: Defaults, tunnel: &Tunnel) -> Option<Connection> {
    let crypto = &tunnel.crypto;
    let local = read_local(&sections.local, defaults.prefer_email, crypto);
    let own_psk = match &local {
        Some((_, Credential::Psk(secret))) => Some(secret.clone()),
        _ => None,
    };
    let own = OwnPsk {
        wrong: own_psk.is_none() && (sections.local.has("psk") || sections.local.has("psk_file")),
        here: sections.local.has_own("psk") || sections.local.has_own("psk_file"),
        secret: own_psk,
    };
    let remote = read_remote(&sections.remote, defaults.remote_id, own);
    let ike = &sections.ike;
    let child = &sections.child;
    let ike_proposals = ike
        .list("proposals", "a proposal like \"aes256gcm16-prfsha256-x25519\"", proposal::ike)
        .map_or_else(|| Some(vec![proposal::default_ike()]), |f| not_empty(ike.document(), f));
    let esp_proposals = child
        .list("proposals", "a proposal like \"aes256gcm16\"", proposal::esp)
        .map_or_else(|| Some(vec![proposal::default_esp()]), |f| not_empty(child.document(), f));
    let selectors = |key, default: Vec<TrafficSelector>| {
        child
            .list(key, "a traffic selector like \"::/0\"", values::selector)
            .map_or(Some(default), |f| not_empty(child.document(), f))
    };
    let local_ts = selectors("local_ts", vec![TrafficSelector::ANY_V6]);
    let remote_ts = selectors("remote_ts", defaults.remote_ts);
    let ipcomp = child.choice(
        "ipcomp",
        &[("off", IpcompPolicy::Off), ("accept", IpcompPolicy::Accept), ("on", IpcompPolicy::On)],
    );
    let per_resource = per_cpu::read(child, tunnel);
    let unique = ike
        .choice("unique", &[("replace", Unique::Replace), ("keep", Unique::Keep), ("never", Unique::Never)]);
    let child_rekey = rekey(child, 3600);
    let ike_rekey = rekey(ike, 4 * 3600);
    let fragment_size = fragmentation(ike);
    let mobike = ike.flag("mobike").is_none_or(|f| f.value);
    let nat = ike.choice("nat", &[("auto", NatPolicy::Auto), ("forbid", NatPolicy::Forbid)]);
    let routability = ike.choice(
        "return_routability",
        &[
            ("after", RoutabilityCheck::After),
            ("before", RoutabilityCheck::Before),
            ("off", RoutabilityCheck::Off),
        ],
    );
    let reauth = ike
        .scalar("reauth", "a duration like \"24h\"", |s| {
            at_least(Duration::from_secs(1), values::duration(s)?)
        })
        .map_or(Duration::ZERO, |f| f.value);
    let dpd = ike
        .scalar("dpd", "a duration like \"30s\"", |s| at_least(Duration::from_secs(1), values::duration(s)?))
        .map_or(Duration::from_secs(30), |f| f.value);
    let child_rekey_bytes =
        child.scalar("rekey_bytes", "a size like \"10GB\"", values::octets).map_or(0, |f| f.value);
    let child_rekey_packets =
        child.scalar("rekey_packets", "a number of packets", values::octets).map_or(0, |f| f.value);
    let (local_id, credential) = local?;
    let (remote_id, peer_auth) = remote?;
    Some(Connection {
        name: defaults.name,
        local_id,
        credential,
        remote_id,
        peer_auth,
        ike: ike_proposals?,
        esp: esp_proposals?,
        local_ts: local_ts?,
        remote_ts: remote_ts?,
        addresses: defaults.addresses,
        ipcomp: ipcomp.map_or(IpcompPolicy::Accept, |f| f.value),
        per_resource,
        mobike,
        nat: nat.map_or(NatPolicy::Auto, |f| f.value),
        routability: routability.map_or(RoutabilityCheck::After, |f| f.value),
        reauth,
        fragment_size,
        child_rekey,
        ike_rekey,
        child_rekey_bytes,
        child_rekey_packets,
        dpd,
        unique: unique.map_or(Unique::Replace, |f| f.value),
    })
}

fn rekey(section: &Section<'_>, default: u64) -> Duration {
    section
        .scalar("rekey", "a duration like \"8h\"", |s| at_least(Duration::from_secs(1), values::duration(s)?))
        .map_or(Duration::from_secs(default), |f| f.value)
}

/// Zero ("never") is allowed too.
fn at_least(least: Duration, value: Duration) -> Result<Duration, String> {
    if value.is_zero() || value >= least {
        Ok(value)
    } else {
        Err(format!("expected at least {} or \"never\"", values::show_duration(least)))
    }
}

/// An empty list where at least one is needed is a fault (unless its items were).
fn not_empty<T>(document: &Document, found: Found<Vec<Found<T>>>) -> Option<Vec<T>> {
    if found.value.is_empty() {
        document.problem(&found, "at least one is needed; leave the key out for the default");
        return None;
    }
    Some(found.value.into_iter().map(|f| f.value).collect())
}

/// An IKE message of 1248 octets with marker, UDP and IPv4 header makes 1280, which every path carries.
const DEFAULT_FRAGMENT: usize = 1248;

fn fragmentation(ike: &Section<'_>) -> Option<usize> {
    let found = ike.flag_or_number("fragmentation", 512..65_000)?;
    match found.value {
        Ok(true) => Some(DEFAULT_FRAGMENT),
        Ok(false) => None,
        Err(size) => usize::try_from(size).ok(),
    }
}

/// Retransmission, from `[ike]` of the root.
pub(super) fn retransmit(ike: &Section<'_>) -> Retransmit {
    let default = Retransmit::default();
    let first = ike.scalar("retransmit_timeout", "a duration like \"1s\"", |s| {
        let wait = values::duration(s)?;
        if wait >= Duration::from_millis(100) {
            Ok(wait)
        } else {
            Err("expected at least \"100ms\"".to_owned())
        }
    });
    Retransmit {
        first: first.map_or(default.first, |f| f.value),
        tries: ike.number_or("retransmit_tries", 1..101, default.tries),
        ..default
    }
}

/// The PSK of a section: inline or in a file.
fn read_psk(section: &Section<'_>) -> Option<Found<Secret>> {
    let document = section.document();
    let file = section.path("psk_file").and_then(|path| {
        document.convert(path, |path| {
            let octets = document.secret_file(path)?;
            keys::psk(keys::secret_line(path, &octets)?.expose())
        })
    });
    let inline = section.parsed("psk", "a string", |text| keys::psk(text.as_bytes()));
    if let Some(inline) = &inline {
        if file.is_some() {
            document.problem(inline, "either psk or psk_file, not both");
        }
        if let Err(text) = document.owner_only() {
            document.problem(inline, format!("the configuration holds a secret, and {text}"));
        }
    }
    file.or(inline)
}

fn read_local(
    local: &Section<'_>,
    prefer_email: bool,
    crypto: &CryptoProvider,
) -> Option<(Identity, Credential)> {
    let document = local.document();
    let id = local.parsed("id", "an identity like \"email:client@my.domain\"", values::identity);
    let id_wrong = id.is_none() && local.has("id");
    let psk_here = local.has_own("psk") || local.has_own("psk_file");
    let cert_here = local.has_own("cert");
    let mut psk = read_psk(local);
    let mut cert = local.path("cert");
    let mut key = local.path("key");
    let mut passphrase = local.path("key_passphrase_file");
    // What a connection says itself goes before what it inherits.
    if psk_here && !cert_here {
        cert = None;
        key = key.filter(|_| local.has_own("key"));
        passphrase = passphrase.filter(|_| local.has_own("key_passphrase_file"));
    } else if cert_here && !psk_here {
        psk = None;
    }
    if psk.is_some() || (cert.is_none() && (local.has("psk") || local.has("psk_file"))) {
        for path in [&cert, &key, &passphrase].into_iter().flatten() {
            document.problem(path, "either a certificate or a pre-shared key, not both");
        }
        let id = local.require("id", id, "our identity, for example \"email:client@my.domain\"")?.value;
        return Some((id, Credential::Psk(psk?.value)));
    }
    let cert =
        local.require("cert", cert, "the file with our certificate (or psk_file, for a pre-shared key)");
    let key_path = local.require("key", key, "the file with our certificate's private key");
    let passphrase = passphrase.and_then(|path| {
        document.convert(path, |path| keys::secret_line(path, &document.secret_file(path)?))
    });
    let passphrase = passphrase.as_ref().map(|found| &found.value);
    let key = key_path
        .and_then(|path| {
            document.convert(path, |path| {
                keys::private_key(path, &document.secret_file(path)?, passphrase, crypto)
            })
        })
        .map(|found| found.value);
    let cert = cert?;
    let chain = match keys::certificates(&cert.value) {
        Ok(chain) => chain,
        Err(text) => {
            document.problem(&cert, text);
            return None;
        }
    };
    let leaf = &chain[0];
    let now = SystemTime::now();
    let check = keys::check_own(leaf, key.as_deref(), now);
    let right_so_far = check.faults.is_empty();
    for fault in check.faults {
        document.problem(&cert, format!("{}: {fault}", cert.value.display()));
    }
    for warning in check.warnings {
        document.warn(format!("{}: {warning}", cert.value.display()));
    }
    if right_so_far && let Err(error) = certs::check_own_purposes(leaf) {
        document.warn(format!(
            "{}: {error}; ferry6 as the peer will refuse it, others may",
            cert.value.display()
        ));
    }
    let id = match id {
        Some(id) => {
            // As a peer will check it: a peer tells no more than AUTHENTICATION_FAILED.
            match certs::check_own(leaf, &id.value, now) {
                Err(error @ CertError::Identity { .. }) => {
                    document.problem(&id, format!("{}: {error}", cert.value.display()));
                }
                Err(error) if right_so_far => {
                    document.problem(&cert, format!("{}: {error}", cert.value.display()));
                }
                _ => {}
            }
            id.value
        }
        None if id_wrong => return None,
        None => match own_identity(leaf, prefer_email) {
            Some(id) => {
                if right_so_far && let Err(error) = certs::check_own(leaf, &id, now) {
                    document.problem(&cert, format!("{}: {error}", cert.value.display()));
                }
                id
            }
            None => {
                local.missing("id", "the certificate has no SAN and no subject to take it from");
                return None;
            }
        },
    };
    // Roots are not sent (RFC 7296 section 3.6): the peer has its own or does not trust it.
    let chain = keys::without_roots(chain);
    Some((id, Credential::Certificate { chain, key: key? }))
}

/// The identity of a certificate that speaks for itself.
fn own_identity(leaf: &CertificateDer<'_>, prefer_email: bool) -> Option<Identity> {
    let all = keys::identities(leaf).ok()?;
    let rank = |id: &Identity| match id {
        Identity::Rfc822(_) => i32::from(!prefer_email),
        Identity::Fqdn(_) => i32::from(prefer_email),
        Identity::Ipv4(_) | Identity::Ipv6(_) => 2,
        _ => 3,
    };
    all.into_iter().min_by_key(rank)
}

/// What `[local]` says about a pre-shared key, which by default is the peer's too.
struct OwnPsk {
    secret: Option<Secret>,
    /// It is there, but has a fault, which was told.
    wrong: bool,
    /// It stands in the connection itself, not in the sections behind it.
    here: bool,
}

fn read_remote(remote: &Section<'_>, default_id: RemoteId, own: OwnPsk) -> Option<(RemoteId, PeerAuth)> {
    let document = remote.document();
    let id = remote.parsed(
        "id",
        "an identity like \"tunnel.my.domain\", a pattern like \"*@my.domain\", or \"any\"",
        |s| match s {
            "any" | "%any" | "*" => Ok(RemoteId::Any),
            pattern if pattern.contains('*') => pattern_id(pattern),
            text => values::identity(text).map(RemoteId::Exactly),
        },
    );
    let id_wrong = id.is_none() && remote.has("id");
    let mut psk = read_psk(remote);
    let mut ca = remote.paths("ca");
    let crl = remote.paths("crl");
    // What a connection says itself goes before what it inherits.
    let ca_here = remote.has_own("ca");
    let psk_here = remote.has_own("psk") || remote.has_own("psk_file");
    if (psk_here || own.here) && !ca_here {
        ca = None;
    } else if ca_here && !psk_here {
        psk = None;
    }
    let revocation = remote.choice(
        "revocation",
        &[("off", Revocation::Off), ("ifuri", Revocation::IfUri), ("strict", Revocation::Strict)],
    );
    let auth = if let Some(ca) = ca {
        if let Some(psk) = &psk {
            document.problem(psk, "either ca or a pre-shared key, not both");
        }
        let mut whole = !ca.value.is_empty();
        if ca.value.is_empty() {
            document.problem(&ca, "at least one CA certificate is needed");
        }
        let mut anchors = Vec::new();
        for path in &ca.value {
            match keys::certificates(&path.value) {
                Ok(list) => {
                    for anchor in &list {
                        match certs::check_anchor(anchor, SystemTime::now()) {
                            // Another CA of the list may be right still.
                            Err(error @ CertError::Validity { .. }) => {
                                document.warn(format!("{}: {error}", path.value.display()));
                            }
                            Err(error) => {
                                whole = false;
                                document.problem(path, format!("{}: {error}", path.value.display()));
                            }
                            Ok(_) => {}
                        }
                    }
                    anchors.extend(list);
                }
                Err(text) => {
                    whole = false;
                    document.problem(path, text);
                }
            }
        }
        let mut crls = Vec::new();
        for path in crl.iter().flat_map(|f| &f.value) {
            match keys::crls(&path.value) {
                Ok(list) => crls.extend(list),
                Err(text) => document.problem(path, text),
            }
        }
        let revocation = revocation.map_or(Revocation::IfUri, |f| f.value);
        whole.then_some(PeerAuth::Certificate { anchors, crls, revocation })
    } else {
        for path in crl.iter().filter(|_| remote.has_own("crl")).flat_map(|f| &f.value) {
            document.problem(path, "a CRL is of use with ca only");
        }
        let secret = psk.map(|f| f.value).or(own.secret);
        if secret.is_none() && !(own.wrong || remote.has("psk") || remote.has("psk_file")) {
            remote
                .missing("ca", "the file with the CA certificate that the peer's certificate must come from");
        }
        secret.map(PeerAuth::Psk)
    };
    if id_wrong {
        return None;
    }
    Some((id.map_or(default_id, |f| f.value), auth?))
}

/// `*@my.domain`, `*.my.domain`, `O=ferry6, CN=*`; a type in front is taken off.
fn pattern_id(text: &str) -> Result<RemoteId, String> {
    let bare = ["email:", "fqdn:", "dns:", "dn:"].iter().find_map(|p| text.strip_prefix(p)).unwrap_or(text);
    ferry6_ike::identity::check_pattern(bare)
        .map(|()| RemoteId::Pattern(bare.to_owned()))
        .map_err(|e| format!("expected a pattern like \"*@my.domain\" or \"*.my.domain\": {e}"))
}
