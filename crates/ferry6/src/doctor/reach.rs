//! Is the broker there, what does it take, and what is between?

use super::check::Findings;
use super::patient::Patient;
use super::probe::{Answer, Prober, Way, everything};
use crate::config::proposal;
use ferry6_crypto::Group;
use ferry6_ike::config::IkeProposal;
use ferry6_ike::wire::notify;
use ferry6_tun_router::probe::Fragments;
use std::net::Ipv4Addr;

/// A request that every IPv4 path takes whole.
const SMALL: usize = 0;

/// Who asks, or why nobody can be asked.
pub(super) fn prober(patient: &Patient) -> Result<Prober, &'static str> {
    let crypto = patient.client.as_ref().map_or(ferry6_crypto::aws_lc::PROVIDER, |c| c.tunnel.crypto);
    let broker = patient.broker_address().ok_or("the broker has no IPv4 address")?;
    Ok(Prober::new(crypto, broker))
}

/// The proposals of the configuration, or the usual ones.
fn ours(patient: &Patient) -> Vec<IkeProposal> {
    patient.client.as_ref().map_or_else(|| vec![proposal::default_ike()], |c| c.connection.ike.clone())
}

pub(super) fn way(patient: &Patient, marked: bool) -> Way {
    let (port, nat_port) = patient.broker_ports();
    Way { port: if marked { nat_port } else { port }, marked, size: SMALL, fragments: Fragments::Allowed }
}

pub(super) fn port_500(patient: &Patient, found: &mut Findings) {
    reachable(patient, false, found);
}

pub(super) fn port_4500(patient: &Patient, found: &mut Findings) {
    reachable(patient, true, found);
}

fn reachable(patient: &Patient, marked: bool, found: &mut Findings) {
    let prober = match prober(patient) {
        Ok(prober) => prober,
        Err(why) => return found.skip(why),
    };
    let way = way(patient, marked);
    let (port, broker) = (way.port, patient.broker_address().map_or_else(String::new, |a| a.to_string()));
    match patient.answers.on(marked, || prober.ask(way, &[everything()])) {
        answer if answer.is_ike() => found.ok(format!("{broker} answers IKE on UDP {port}")),
        Answer::Silence => {
            // Only one of the two ports silent is a rule about that port.
            let other = patient.answers.on(!marked, || prober.ask(self::way(patient, !marked), &[everything()]));
            if other.is_ike() {
                found.fail(
                    format!("nothing comes back from {broker} UDP {port}, though the other port answers"),
                    format!(
                        "UDP {port} is blocked on the way, or not forwarded to the broker: its router must forward UDP 500 and 4500{}",
                        if marked { "; without 4500 a tunnel begins and does not come up" } else { "" }
                    ),
                );
            } else {
                found.fail(
                    format!("nothing comes back from {broker} UDP {port}"),
                    "is the broker running, and is this its address? Its router or firewall must forward UDP 500 and 4500 to it; this \
                     network may block them",
                );
            }
        }
        Answer::Unreachable(why) => found.fail(
            format!("{broker} UDP {port}: {why}"),
            "port unreachable: the machine is there, but no broker runs (or on another port: broker.port, broker.nat_port); \
             otherwise this machine or a router has no way there, or a firewall refuses",
        ),
        other => found.warn(
            format!("{broker} UDP {port} answers, but not as IKEv2 does ({other:?})"),
            "is it another service, or an IKEv1-only daemon?",
        ),
    }
}

/// The port on which the broker can be asked more.
pub(super) fn open_way(patient: &Patient) -> Option<(Prober, Way)> {
    let prober = prober(patient).ok()?;
    [true, false].into_iter().find_map(|marked| {
        let way = way(patient, marked);
        let answer = patient.answers.on(marked, || prober.ask(way, &[everything()]));
        answer.is_ike().then(|| (prober.clone(), way))
    })
}

pub(super) fn proposals(patient: &Patient, found: &mut Findings) {
    let Some((prober, way)) = open_way(patient) else { return found.skip("no port of the broker answers") };
    let ours = ours(patient);
    match prober.ask(way, &ours) {
        Answer::OtherGroup(group) => {
            let name = Group::from_transform(group)
                .map_or_else(|| format!("group {group}"), |g| word_of(Part::Group(g)));
            found.ok(format!("the broker takes one of our IKE proposals, with {name}"));
        }
        Answer::Whole(whole) => found.ok(format!("the broker takes {}", whole.chosen)),
        Answer::NoProposal => refused(&prober, way, &ours, found),
        Answer::Refused(error) => found
            .fail(format!("the broker refuses IKE_SA_INIT: {}", notify::display(error)), "its log says why"),
        other => found.skip(format!("no clear answer ({other:?})")),
    }
}

/// One thing of a proposal.
#[derive(Clone, Copy)]
enum Part {
    Cipher(ferry6_crypto::Cipher),
    Integ(ferry6_crypto::Integ),
    Prf(ferry6_crypto::Prf),
    Group(Group),
}

/// Its word in `[ike] proposals`.
fn word_of(part: Part) -> String {
    let none = IkeProposal { ciphers: Vec::new(), integs: Vec::new(), prfs: Vec::new(), groups: Vec::new() };
    proposal::show_ike(&with(&none, part))
}

/// The proposal with this alone in its place.
fn with(all: &IkeProposal, part: Part) -> IkeProposal {
    let mut one = all.clone();
    match part {
        Part::Cipher(c) => one.ciphers = vec![c],
        // What a CBC cipher goes with; an AEAD has none.
        Part::Integ(i) => {
            one.integs = vec![i];
            one.ciphers.retain(|c| !c.is_aead());
        }
        Part::Prf(p) => one.prfs = vec![p],
        Part::Group(g) => one.groups = vec![g],
    }
    one
}

/// All parts of one kind, and what the kind is called.
fn kinds() -> [(&'static str, Vec<Part>); 4] {
    let all = everything();
    [
        ("cipher", all.ciphers.into_iter().map(Part::Cipher).collect()),
        ("integrity", all.integs.into_iter().map(Part::Integ).collect()),
        ("PRF", all.prfs.into_iter().map(Part::Prf).collect()),
        ("key exchange", all.groups.into_iter().map(Part::Group).collect()),
    ]
}

fn offers(ours: &[IkeProposal], part: Part) -> bool {
    ours.iter().any(|p| match part {
        Part::Cipher(c) => p.ciphers.contains(&c),
        Part::Integ(i) => p.integs.contains(&i),
        Part::Prf(f) => p.prfs.contains(&f),
        Part::Group(g) => p.groups.contains(&g),
    })
}

/// Finds what the broker takes, by asking for each thing alone among everything else: at most as many requests as there are
/// algorithms.
fn refused(prober: &Prober, way: Way, ours: &[IkeProposal], found: &mut Findings) {
    let all = everything();
    if !matches!(prober.ask(way, std::slice::from_ref(&all)), Answer::OtherGroup(_) | Answer::Whole(_)) {
        return found.fail(
            "the broker takes none of our IKE proposals, nor any other that this program knows",
            "it must offer one of AES-GCM, AES-CBC, ChaCha20 with SHA-2 and x25519, ecp256, ecp384 or modp2048 and larger",
        );
    }
    let mut takes = Vec::new();
    let mut missing = Vec::new();
    for (kind, parts) in kinds() {
        let accepted: Vec<Part> = parts
            .into_iter()
            .filter(|part| {
                let answer = prober.ask(way, &[with(&all, *part)]);
                matches!(answer, Answer::OtherGroup(_) | Answer::Whole(_))
            })
            .collect();
        let words: Vec<String> = accepted.iter().map(|p| word_of(*p)).collect();
        if !accepted.is_empty() {
            if !accepted.iter().any(|p| offers(ours, *p)) {
                missing.push(kind);
            }
            takes.push(format!("{kind} {}", words.join(" ")));
        }
    }
    let shown: Vec<String> = ours.iter().map(proposal::show_ike).collect();
    let what = if missing.is_empty() {
        "in this combination".to_owned()
    } else {
        format!("by its {}", missing.join(" and "))
    };
    found.fail(
        format!("the broker takes none of our IKE proposals, {}; it fails {what}", shown.join(", ")),
        format!("the broker takes: {}; set [ike] proposals to one of these on either side, or leave it out on both", takes.join("; ")),
    );
}

pub(super) fn nat(patient: &Patient, found: &mut Findings) {
    let Some((prober, way)) = open_way(patient) else { return found.skip("no port of the broker answers") };
    let all = [everything()];
    let group = match prober.ask(way, &all) {
        Answer::OtherGroup(group) => Group::from_transform(group),
        _ => None,
    };
    let Some(group) = group else {
        return found.skip("the broker takes no proposal that this program knows");
    };
    let whole = match prober.ask_whole(way, &all, group) {
        Answer::Whole(whole) => whole,
        other => return found.skip(format!("no answer that tells ({other:?})")),
    };
    let forbidden =
        patient.client.as_ref().is_some_and(|c| c.connection.nat == ferry6_ike::config::NatPolicy::Forbid);
    let text = match whole.nat {
        None => {
            return found
                .warn("the broker has no NAT detection", "a tunnel through a NAT will not work with it");
        }
        Some((false, false)) => "no NAT between here and the broker",
        Some((true, false)) => "a NAT here: this machine's address or port is translated",
        Some((false, true)) => "a NAT before the broker",
        Some((true, true)) => "a NAT here and one before the broker",
    };
    if forbidden && whole.nat != Some((false, false)) {
        found.fail(text, "ike.nat = \"forbid\" refuses that: leave it out");
    } else {
        found.ok(text);
    }
    let keepalive = patient.client.as_ref().map_or(20, |c| c.tunnel.keepalive.as_secs());
    if whole.nat.is_some_and(|(here, _)| here) && (keepalive == 0 || keepalive > 60) {
        found.warn(
            format!(
                "tunnel.keepalive is {keepalive} s: many NATs forget a mapping of UDP after 30 s to 2 min"
            ),
            "keepalive = \"20s\", or what is sent from outside does not arrive after silence",
        );
    }
}

/// A broker asks itself, as a client would: over its own address, past all routers.
pub(super) fn of_broker(patient: &Patient, found: &mut Findings) {
    let Some(broker) = patient.broker.as_ref() else { return found.skip("the configuration cannot be read") };
    if patient.running().is_none() {
        return found.skip("the daemon does not run");
    }
    let address =
        if broker.listen.address.is_unspecified() { Ipv4Addr::LOCALHOST } else { broker.listen.address };
    let prober = Prober::new(broker.tunnel.crypto, address);
    for (port, marked) in [(broker.listen.port, false), (broker.listen.nat_port, true)] {
        if port == 0 {
            continue;
        }
        let way = Way { port, marked, size: SMALL, fragments: Fragments::Allowed };
        let ours: Vec<IkeProposal> = broker.connections.iter().flat_map(|c| c.ike.clone()).collect();
        let answer = prober.ask(way, &ours);
        if answer.is_ike() {
            found.ok(format!("it answers on {address} UDP {port}"));
        } else {
            found.fail(
                format!("it does not answer itself on {address} UDP {port} ({answer:?})"),
                "a rule of this machine's firewall (nft list ruleset), or the daemon hangs",
            );
        }
    }
}

/// What a broker sees of its clients' NATs: whether they keep the port that IKE uses (RFC 7296 section 2.23).
pub(super) fn nat_of_clients(patient: &Patient, found: &mut Findings) {
    let Some(status) = patient.running() else { return found.skip("the daemon does not run") };
    let sas: Vec<_> = status.router.ike_sas.iter().filter(|sa| sa.state == "established").collect();
    if sas.is_empty() {
        return found.skip("there is no tunnel");
    }
    let behind: Vec<_> = sas.iter().filter(|sa| sa.nat_remote).collect();
    let kept = behind.iter().filter(|sa| sa.remote.ends_with(":4500") || sa.remote.ends_with(":500")).count();
    let own = if sas.iter().any(|sa| sa.nat_local) { "; a NAT before this machine" } else { "" };
    found.ok(format!(
        "clients behind a NAT: {} of {}; port kept for {kept}, changed for {}{own}",
        behind.len(),
        sas.len(),
        behind.len() - kept
    ));
}
