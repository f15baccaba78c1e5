//! The soak, for some seconds, and rekeys at full speed.

use super::tunnel::{FERRY6, FERRY6_RUST, Spec, server6};
use super::{Case, Env, Peer, Role, spis};
use crate::soak::full_speed::FullSpeed;
use crate::soak::{self, Options, Part};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "rekey-ferry6-full-speed",
            Peer::Ferry6,
            Role::Both,
            "a rekey a second, from both sides, at full speed both ways: no packet lost",
            full_speed,
        ),
        soak_case(
            "soak-rekeys",
            (Part::Ferry6, Part::Ferry6),
            "12 s of rekeys from both sides: no packet lost",
            Options::calm(12.0),
        ),
        soak_case(
            "soak-calm",
            (Part::Ferry6, Part::Ferry6),
            "rekeys, NAT rebindings whose old mapping stays open, moves: no packet lost",
            Options { no_rebinding: false, no_moves: false, ..Options::calm(25.0) },
        ),
        soak_case(
            "soak-storm",
            (Part::Ferry6, Part::Ferry6),
            "rekeys, 5 % loss, reordering, NAT rebindings, moves, a kill of each side: every lost packet has its cause",
            storm(30.0),
        ),
        soak_case(
            "soak-storm-client",
            (Part::Ferry6, Part::Strongswan),
            "the storm against strongSwan: ferry6 loses nothing without a cause",
            Options { no_kill: true, ..storm(25.0) },
        ),
        soak_case(
            "soak-storm-broker",
            (Part::Strongswan, Part::Ferry6),
            "rekeys, 5 % loss, reordering against strongSwan: ferry6 loses nothing without a cause",
            // strongSwan as a client does not look after a mapping that is gone while it sends.
            Options { no_kill: true, no_moves: true, no_rebinding: true, ..storm(25.0) },
        ),
    ]
}

fn storm(seconds: f64) -> Options {
    let calm = Options::calm(seconds);
    Options {
        loss: 5.0,
        reorder: 3.0,
        duplicate: 1.0,
        no_kill: false,
        no_rebinding: false,
        no_moves: false,
        nat_grace: 0,
        ..calm
    }
}

/// A short soak between these two, client and broker.
fn soak_case(name: &str, (client, broker): (Part, Part), feature: &str, options: Options) -> Case {
    let options = Options { client, broker, ..options };
    let (peer, role) = match (client, broker) {
        (Part::Ferry6, Part::Ferry6) => (Peer::Ferry6, Role::Both),
        (Part::Ferry6, Part::Strongswan) => (Peer::StrongSwan, Role::Client),
        _ => (Peer::StrongSwan, Role::Broker),
    };
    let mut case = Case::new(name, peer, role, feature, move |env| {
        let report = soak::run(env, &options)?;
        println!("{}", report.table());
        // Nothing may be lost where nothing is done to the path and nobody dies.
        let quiet = options.loss == 0.0 && options.no_kill && peer == Peer::Ferry6;
        ensure!(!quiet || report.lost() == 0, "{} packets lost\n{}", report.lost(), report.table());
        report.verify().with_context(|| report.table())
    });
    case.timeout = Duration::from_secs(150);
    case
}

fn full_speed(env: &mut Env) -> Result<()> {
    let tunnel = Spec::certified(env, FERRY6, FERRY6_RUST)?.up(env)?;
    let first = spis(&tunnel)?;
    let (home, server) = (&env.net.home, &env.net.server);
    let flows = [
        FullSpeed::start(home, (server, server6()?, 5400))?,
        FullSpeed::start(server, (home, super::tunnel::CLIENT_ADDRESS.parse()?, 5401))?,
    ];
    let mut seen: BTreeSet<String> = first.clone();
    let begin = Instant::now();
    for round in 0..6 {
        let side = if round % 2 == 0 { &tunnel.client } else { &tunnel.broker };
        if round == 3 {
            side.rekey_ike()?
        } else {
            side.rekey_child()?
        }
        let next = begin + Duration::from_secs(round + 1);
        while Instant::now() < next {
            seen.extend(spis(&tunnel)?);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    for flow in flows {
        let (sent, received) = flow.stop()?;
        println!("{sent} packets sent, {received} received in {} s", begin.elapsed().as_secs());
        ensure!(sent == received, "{} of {sent} packets lost\n{}", sent - received, tunnel.logs());
        ensure!(sent > 3000, "{sent} packets in 6 s are not full speed");
    }
    let children = seen.iter().filter(|s| s.starts_with("esp")).count();
    ensure!(children >= 5, "{children} Child SAs were seen\n{}", tunnel.logs());
    Ok(())
}
