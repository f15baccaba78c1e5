//! The configuration, the running daemon, and what it counts.

use super::check::Findings;
use super::patient::Patient;
use super::{Role, processes};
use crate::config::values::show_duration;
use std::time::Duration;

/// Packets that must have gone before silence is a fault.
const ENOUGH: u64 = 4;

pub(super) fn config(patient: &Patient, found: &mut Findings) {
    if let Some(fault) = &patient.fault {
        let (hidden, faults) = faults(fault);
        if !nix::unistd::geteuid().is_root() && !hidden.is_empty() {
            found.skip(format!("for root to read: {}", hidden.join("; ")));
        } else {
            hidden.into_iter().for_each(|text| found.fail(text, "the daemon must be able to read it"));
        }
        for text in faults {
            found.fail(text, "docs/configuration.md tells every key; ferry6 config KEY explains one");
        }
        return;
    }
    for warning in &patient.warnings {
        found.warn(warning.clone(), format!("see {}", patient.path.display()));
    }
    if found.is_empty() {
        found.ok(format!("{} has no fault", patient.path.display()));
    }
}

/// The faults of a configuration, without the lines that show it: first what could not be read, then the others.
fn faults(text: &str) -> (Vec<String>, Vec<String>) {
    // What shows a line of the file: `2 | key = 1` and `  | ^^^`.
    let shows = |line: &&str| {
        line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|')
    };
    let lines = text.lines().filter(|l| !l.trim().is_empty() && !shows(l));
    lines.map(|l| l.trim().to_owned()).partition(|l| l.contains("ermission denied"))
}

/// Other processes of ours that would run the same side here.
fn others(patient: &Patient) -> Vec<String> {
    let own = patient.running().map(|s| s.pid);
    let word = patient.role.word();
    processes::neighbours()
        .into_iter()
        .filter(|p| p.name == "ferry6" && Some(p.pid) != own)
        .filter(|p| {
            p.arguments.iter().skip(1).any(|a| a == word) && !p.arguments.iter().any(|a| a == "doctor")
        })
        .map(|p| format!("pid {} ({})", p.pid, p.arguments.join(" ")))
        .collect()
}

pub(super) fn daemon(patient: &Patient, found: &mut Findings) {
    let others = others(patient);
    let status = match &patient.status {
        Err(error) if error.contains("not permitted") => {
            return found.skip(format!("{error}: for root to ask"));
        }
        Err(_) if !others.is_empty() => {
            return found.fail(
                format!(
                    "nobody answers on {}, but another ferry6 {} runs: {}",
                    patient.socket.display(),
                    patient.role.word(),
                    others.join(", ")
                ),
                "it has another configuration: stop it, or look at that one with --config",
            );
        }
        Err(error) => {
            let hint = match patient.role {
                Role::Client => "start it: ferry6 client up NAME, or ferry6 client --config FILE",
                Role::Broker => "start it: systemctl start ferry6-broker, or ferry6 broker --config FILE",
            };
            return found.fail(error.clone(), hint);
        }
        Ok(status) => status,
    };
    if !others.is_empty() {
        found.warn(
            format!("a second ferry6 {} runs: {}", patient.role.word(), others.join(", ")),
            "two share no port and no default route: stop the one that is not meant",
        );
    }
    let uptime = show_duration(Duration::from_secs(status.uptime.max(1)));
    if let Some(client) = &status.client {
        let reason = client.reason.as_deref().map_or(String::new(), |r| format!(": {r}"));
        let retry = client.retry_in.map_or(String::new(), |s| format!(", next try in {s} s"));
        match client.state.as_str() {
            "up" => found.ok(format!("pid {}, up for {uptime}; the tunnel is up", status.pid)),
            "down" => found.fail("the tunnel was taken down by command", "ferry6 up"),
            state => {
                found.fail(format!("the tunnel is {state}{reason}{retry}"), hint(client.reason.as_deref()))
            }
        }
    }
    if status.broker.is_some() {
        let up = status.router.ike_sas.iter().filter(|s| s.state == "established").count();
        found.ok(format!("pid {}, up for {uptime}; tunnels: {up}", status.pid));
        let counts = status.router.ike.iter();
        let refused: Vec<String> = counts
            .filter(|(cause, n)| **n > 0 && (cause.starts_with("auth_") || *cause == "no_proposal"))
            .map(|(cause, n)| format!("{cause} {n}"))
            .collect();
        if !refused.is_empty() {
            found.warn(format!("clients were refused: {}", refused.join(", ")), "the log says whom and why");
        }
    }
}

/// What to do about a reason that IKE gives.
fn hint(reason: Option<&str>) -> &'static str {
    let reason = reason.unwrap_or_default();
    if reason.contains("AUTHENTICATION_FAILED") {
        "the broker does not say why; its log does: clock, certificate, CA, identity, revoked, another pre-shared key"
    } else if reason.contains("NO_PROPOSAL_CHOSEN") {
        "the checks proposals tell what the broker takes; [ike] proposals and [child] proposals must have one in common"
    } else if reason.contains("INTERNAL_ADDRESS_FAILURE") {
        "the broker's pool is used up, or has no address for this identity: pool.range, pool.fixed"
    } else if reason.contains("TS_UNACCEPTABLE") {
        "the traffic selectors have nothing in common: child.local_ts and child.remote_ts on both sides"
    } else if reason.contains("no answer")
        || reason.contains("timed out")
        || reason.contains("did not answer")
    {
        "see udp-500, udp-4500 and fragments below"
    } else {
        "see the other checks, and the log"
    }
}

/// SAs that send and get nothing back.
pub(super) fn traffic(patient: &Patient, found: &mut Findings) {
    let Some(status) = patient.running() else { return found.skip("the daemon does not run") };
    let children: Vec<_> =
        status.router.ike_sas.iter().flat_map(|sa| sa.children.iter().map(move |c| (sa, c))).collect();
    if children.is_empty() {
        return found.skip("there is no tunnel");
    }
    let one_way: Vec<_> =
        children.iter().filter(|(_, c)| c.packets_out >= ENOUGH && c.packets_in == 0).collect();
    let back = children.iter().filter(|(_, c)| c.packets_in >= ENOUGH && c.packets_out == 0).count();
    if patient.role == Role::Client {
        let (sent, received): (u64, u64) = (
            children.iter().map(|(_, c)| c.packets_out).sum(),
            children.iter().map(|(_, c)| c.packets_in).sum(),
        );
        if sent >= ENOUGH && received == 0 {
            found.fail(
                format!("{sent} packets went into the tunnel, none came back"),
                "UDP 4500 lets ESP out but not in, or the way back is missing behind the broker: see the check inside",
            );
        } else {
            found.ok(format!("{sent} packets out, {received} in"));
        }
    } else {
        for (sa, c) in one_way {
            found.warn(
                format!(
                    "{} packets went to {}, none came from it",
                    c.packets_out,
                    sa.remote_id.as_deref().unwrap_or("a client")
                ),
                "its NAT or firewall lets no ESP out (UDP 4500), or it has no route into the tunnel",
            );
        }
        if back > 0 {
            found.warn(
                format!("packets come out of tunnels, and nothing goes back (pairs of SAs: {back})"),
                "forwarding, the firewall, or the route to the pool at the upstream router: see those checks",
            );
        }
    }
    let mut lost: Vec<String> = Vec::new();
    for cause in ["in_integrity", "in_replay_duplicate", "in_replay_too_old", "in_selector_mismatch"] {
        let n: u64 = children.iter().filter_map(|(_, c)| c.drops.get(cause)).sum();
        if n > 0 {
            lost.push(format!("{cause} {n}"));
        }
    }
    if !lost.is_empty() {
        found.warn(
            format!("packets were dropped: {}", lost.join(", ")),
            "integrity: altered on the way; replay: doubled or much reordered on the way (tunnel.replay_window); selector: a source \
             address that is not the client's",
        );
    }
    if found.is_empty() {
        found.ok(format!("traffic both ways; pairs of SAs: {}", children.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_without_the_lines_that_show_them() {
        let text = "client.toml:2:1: nonsense: unknown key\n  2 | nonsense = 1\n    | ^^^^^^^^\n\
                    client.toml:7:7: local.key: cannot read client.key: Permission denied (os error 13)\n";
        let (hidden, others) = faults(text);
        assert_eq!(others, ["client.toml:2:1: nonsense: unknown key"]);
        assert_eq!(hidden.len(), 1);
    }
}
