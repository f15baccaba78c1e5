//! The soak, for some seconds, and rekeys at full speed.

use super::tunnel::{FERRY6, FERRY6_RUST, Spec, server6};
use super::{Case, Env, Peer, Role, spis};
use crate::soak::full_speed::FullSpeed;
use crate::soak::{self, Options};
use anyhow::{Result, ensure};
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
        Case::new(
            "soak-rekeys",
            Peer::Ferry6,
            Role::Both,
            "12 s of rekeys from both sides: no packet lost (rebindings, moves, kills and a bad line: ferry6-interop --soak)",
            |env| {
                let report = soak::run(env, &Options::calm(12.0))?;
                println!("{}", report.table());
                ensure!(report.lost() == 0, "{} packets lost\n{}", report.lost(), report.table());
                report.verify()
            },
        ),
    ]
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
