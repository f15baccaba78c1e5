//! Floods, short and at a rate that any machine can send: `ferry6-flood` measures at full rate.

use super::{Case, Env, Peer, Role};
use crate::flood::floods::{Arena, Kind};
use crate::flood::net::Net;
use anyhow::{Result, ensure};
use std::time::Duration;

/// Packets a second.
const RATE: u64 = 10_000;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "flood-init",
            Peer::Ferry6,
            Role::Both,
            "spoofed IKE_SA_INIT, 10,000 a second: a newcomer gets in within 5 s, the tunnel goes on, memory is bounded",
            |env| {
                let arena = arena(env)?;
                arena.endure(&[Kind::Init], Duration::from_secs(3))?;
                let counted = arena.counters()?;
                let of = |name: &str| counted.get(name).copied().unwrap_or(0);
                ensure!(of("cookie_sent") > 1000, "hardly any cookie was asked for: {counted:?}");
                ensure!(of("cookie_right") > 0, "the newcomer was not asked for one: {counted:?}");
                quiet(&arena)
            },
        ),
        Case::new(
            "flood-garbage",
            Peer::Ferry6,
            Role::Both,
            "garbage to both ports, unknown SPIs, replays, 10,000 a second each: counted, and the tunnel goes on",
            |env| {
                let arena = arena(env)?;
                let kinds =
                    [Kind::Garbage500, Kind::Garbage4500, Kind::Marked4500, Kind::UnknownSpi, Kind::Replay];
                arena.endure(&kinds, Duration::from_secs(1))?;
                let counted = arena.counters()?;
                for name in ["malformed", "in_unknown_spi", "in_replay_duplicate"] {
                    ensure!(
                        counted.get(name).is_some_and(|n| *n > 100),
                        "{name} is not counted: {counted:?}"
                    );
                }
                quiet(&arena)
            },
        ),
    ]
}

fn arena(env: &Env) -> Result<Arena> {
    Arena::start(Net::build(&env.ferry6, &env.dir)?, 1.0, RATE)
}

/// The log of an attack is no flood of its own.
fn quiet(arena: &Arena) -> Result<()> {
    let log = arena.log();
    ensure!(log.lines().count() < 200, "{} lines in the log:\n{log}", log.lines().count());
    ensure!(!log.contains("ERROR"), "{log}");
    Ok(())
}
