//! What sizes the path lets through: IP fragments, and packets with DF.

use super::check::Findings;
use super::patient::Patient;
use super::probe::{HEADERS, Prober, Way, everything};
use super::reach;
use ferry6_crypto::{Cipher, CipherSuite};
use ferry6_tun_router::probe::Fragments;
use ferry6_tun_router::size::{IPV6_MIN_MTU, tunnel_mtu};
use std::time::Duration;

/// Two fragments on any Ethernet; as long as IKE_AUTH with a chain of RSA certificates.
const LARGE: usize = 2000;
/// Sizes that paths have, the largest first: Ethernet, PPPoE, tunnels, mobile networks, the IPv6 minimum, the IPv4 one.
const USUAL: [usize; 16] =
    [1500, 1492, 1480, 1472, 1460, 1450, 1440, 1430, 1420, 1400, 1380, 1358, 1320, 1280, 1000, 576];

/// A port that answers small requests, with less patience: a large one that is lost costs all of it.
fn open(patient: &Patient) -> Option<(Prober, Way)> {
    let (mut prober, way) = reach::open_way(patient)?;
    prober.patience = Duration::from_millis(600);
    prober.tries = 2;
    Some((prober, way))
}

pub(super) fn fragments(patient: &Patient, found: &mut Findings) {
    let Some((prober, way)) = open(patient) else { return found.skip("no port of the broker answers") };
    let answer = prober.ask(Way { size: LARGE, fragments: Fragments::Allowed, ..way }, &[everything()]);
    if answer.is_ike() {
        return found.ok(format!("an IKE message of {LARGE} octets arrives in IP fragments"));
    }
    let own = patient.client.as_ref().and_then(|c| c.connection.fragment_size);
    match own {
        Some(size) => found.warn(
            "IP fragments are lost on the way to the broker",
            format!(
                "IKE fragmentation is on (messages of at most {size} octets), so that it works with a peer that has it, too; strongSwan: \
                 fragmentation = yes, OpenIKED: set fragmentation"
            ),
        ),
        None => found.fail(
            "IP fragments are lost on the way to the broker, and IKE fragmentation is off: IKE_AUTH with a certificate does not arrive",
            "leave ike.fragmentation out, or set it to true",
        ),
    }
}

/// The largest packet with DF that is answered.
fn path_mtu(prober: &Prober, way: Way) -> Option<usize> {
    let passes = |size: usize| {
        prober.ask(Way { size, fragments: Fragments::Forbidden, ..way }, &[everything()]).is_ike()
    };
    if passes(USUAL[0]) {
        return Some(USUAL[0]);
    }
    // The first of USUAL that passes: larger ones do not.
    let (mut low, mut high) = (1, USUAL.len());
    while low < high {
        let middle = low.midpoint(high);
        if passes(USUAL[middle]) { high = middle } else { low = middle + 1 }
    }
    USUAL.get(low).copied()
}

pub(super) fn mtu(patient: &Patient, found: &mut Findings) {
    let Some((prober, way)) = open(patient) else { return found.skip("no port of the broker answers") };
    let Some(path) = path_mtu(&prober, way) else {
        return found.warn(
            format!("no packet of {} octets or more with DF is answered", USUAL[USUAL.len() - 1]),
            "a firewall that drops DF or large UDP; set tunnel.df = \"clear\"",
        );
    };
    let suite = CipherSuite::new(Cipher::Aes256Gcm16, None);
    let fits = suite.map_or(IPV6_MIN_MTU, |suite| tunnel_mtu(suite, path));
    let device = patient.tun().map(|l| l.mtu as usize);
    let set = patient.client.as_ref().and_then(|c| c.tunnel.sizes.mtu).map(usize::from);
    let text = format!("the path to the broker takes {path} octets: {fits} inside the tunnel (AES-GCM)");
    match set.or(device) {
        Some(mtu) if set.is_some() && mtu > fits => found.warn(
            format!("{text}, and tunnel.mtu is {mtu}"),
            format!("leave tunnel.mtu out, or set {fits}: larger packets go out in fragments or come back as Packet Too Big"),
        ),
        _ if path < USUAL[0] && fits == IPV6_MIN_MTU && path < IPV6_MIN_MTU + HEADERS + 60 => found.warn(
            format!("{text}; packets of 1280 octets, which IPv6 must take, leave in fragments"),
            "a path of 1400 octets or more has no need for that",
        ),
        _ => found.ok(text),
    }
}
