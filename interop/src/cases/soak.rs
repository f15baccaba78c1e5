//! The soak, for some seconds, and rekeys at full speed.

use super::tunnel::{FERRY6, FERRY6_RUST, Spec, server6};
use super::{Case, Env, Peer, Role, spis};
use crate::soak::full_speed::FullSpeed;
use crate::soak::{self, Options, Part};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    let patient = |case: Case| Case { timeout: Duration::from_secs(180), ..case };
    vec![
        Case::new(
            "rekey-ferry6-full-speed",
            Peer::Ferry6,
            Role::Both,
            "a rekey a second, from both sides, at full speed both ways: no packet lost",
            full_speed,
        ),
        patient(Case::new(
            "soak-calm",
            Peer::Ferry6,
            Role::Both,
            "12 s of rekeys from both sides, NAT rebindings and moves: no packet lost",
            |env| {
                let calm = Options { no_rebinding: false, no_moves: false, ..Options::calm(12.0) };
                let report = soak::run(env, &calm)?;
                println!("{}", report.table());
                ensure!(report.lost() == 0, "{} packets lost\n{}", report.lost(), report.table());
                report.verify()
            },
        )),
        patient(Case::new(
            "soak-storm",
            Peer::Ferry6,
            Role::Both,
            "the same with 5 % loss, reordering, doubled datagrams and a kill of each side: each lost packet has its cause",
            |env| {
                let report = soak::run(env, &Options::storm(20.0))?;
                println!("{}", report.table());
                report.verify().with_context(|| report.table())
            },
        )),
        patient(Case::new(
            "soak-client-strongswan",
            Peer::StrongSwan,
            Role::Client,
            "10 s of rekeys from both sides, ferry6 and strongSwan: no packet lost",
            |env| calm_with_strongswan(env, Part::Ferry6, Part::Strongswan),
        )),
        patient(Case::new(
            "soak-broker-strongswan",
            Peer::StrongSwan,
            Role::Broker,
            "10 s of rekeys from both sides, strongSwan and ferry6: no packet lost",
            |env| calm_with_strongswan(env, Part::Strongswan, Part::Ferry6),
        )),
    ]
}

fn calm_with_strongswan(env: &Env, client: Part, broker: Part) -> Result<()> {
    let report = soak::run(env, &Options { client, broker, rate: 200, ..Options::calm(10.0) })?;
    println!("{}", report.table());
    ensure!(report.lost() == 0, "{} packets lost\n{}", report.lost(), report.table());
    Ok(())
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
