//! Rekeys under full load: what they lose.
//!
//! Two flows run one after the other through ferry6 on both ends, while the Child SA and the IKE SA are rekeyed in turn, once a second:
//! iperf3 as fast as TCP can go, which loads both cores, and then a flow of numbered UDP datagrams at a rate that the
//! path carries without loss, each of which must come. A full queue of the kernel drops packets under the first with and
//! without rekeys, so there the counters of ferry6 tell what was lost for want of keys.

use super::measure::{self, Counted, tcp};
use super::net;
use super::subject::{Ends, Standing};
use anyhow::{Result, bail};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Datagrams a second of the counted flow, and octets of each.
pub const RATE: u32 = 20_000;
pub const LEN: usize = 1200;

/// How long ferry6 keeps a replaced inbound SA (`tunnel.linger`).
const LINGER: Duration = Duration::from_secs(5);

/// What came out.
pub struct Outcome {
    /// Rekeys that were done in both parts.
    pub rekeys: u32,
    /// The counted flow.
    pub counted: Counted,
    /// TCP under rekeys, Gbit/s.
    pub gbits: f64,
    /// What ferry6 dropped on both ends in both parts, by its own counters.
    pub dropped: u64,
    /// The reasons.
    pub reasons: String,
}

/// Runs both parts, each for so long.
pub fn run(standing: &Standing, seconds: f64) -> Result<Outcome> {
    let before = drops(standing)?;
    let rekeys = AtomicU32::new(0);
    let transfer = rekeying(standing, &rekeys, || tcp(standing, 1, false, seconds))?;
    let counted = rekeying(standing, &rekeys, || {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_secs_f64(seconds));
                stop.store(true, Ordering::Relaxed);
            });
            let (client, server) = (&standing.net.client, &standing.net.server);
            measure::counted(client, server, net::SERVER.parse()?, RATE, LEN, &stop)
        })
    })?;
    // What a replaced SA dropped is in the sum when its linger is over.
    std::thread::sleep(LINGER + Duration::from_secs(1));
    let after = drops(standing)?;
    let mut reasons = Vec::new();
    let mut dropped = 0;
    for (reason, count) in after {
        let old = before.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n);
        if count > old {
            dropped += count - old;
            reasons.push(format!("{reason} {}", count - old));
        }
    }
    Ok(Outcome {
        rekeys: rekeys.into_inner(),
        counted,
        gbits: transfer.gbits,
        dropped,
        reasons: reasons.join(", "),
    })
}

/// Runs `work` while the client rekeys, once a second, Child SA and IKE SA in turn.
fn rekeying<T>(standing: &Standing, rekeys: &AtomicU32, work: impl FnOnce() -> Result<T> + Send) -> Result<T>
where
    T: Send,
{
    let Ends::Ferry { client, .. } = &standing.ends else { bail!("only ferry6 can be told to rekey here") };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let result = work();
            done.store(true, Ordering::Release);
            result
        });
        let mut next = Instant::now() + Duration::from_millis(300);
        let mut failure = None;
        while !done.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(10));
            if Instant::now() >= next && failure.is_none() {
                next += Duration::from_secs(1);
                let what = if rekeys.load(Ordering::Relaxed) % 4 == 3 { "--ike" } else { "--child" };
                match client.control(&["rekey", what]) {
                    Ok(_) => {
                        rekeys.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => failure = Some(error),
                }
            }
        }
        let result = working.join().map_err(|_| anyhow::anyhow!("a measurement panicked"))?;
        match failure {
            Some(error) => Err(error.context("a rekey failed")),
            None => result,
        }
    })
}

/// All counters of drops of both ends, those of SAs that are gone included.
fn drops(standing: &Standing) -> Result<Vec<(String, u64)>> {
    let Ends::Ferry { client, broker } = &standing.ends else { bail!("only ferry6 counts for us") };
    let mut all = Vec::new();
    for (side, ferry) in [("client", client), ("broker", broker)] {
        let status = ferry.status()?;
        collect(side, &status, &mut all);
    }
    Ok(all)
}

fn collect(side: &str, value: &Value, all: &mut Vec<(String, u64)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("drops", Value::Object(drops)) => {
                        for (reason, count) in drops {
                            let (name, count) = (format!("{side} {reason}"), count.as_u64().unwrap_or(0));
                            match all.iter_mut().find(|(n, _)| *n == name) {
                                Some((_, sum)) => *sum += count,
                                None => all.push((name, count)),
                            }
                        }
                    }
                    _ => collect(side, value, all),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(side, value, all)),
        _ => {}
    }
}
