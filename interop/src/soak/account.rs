//! The accounts: every probe that never arrived is held against what the relay did at that time, and against the times in which
//! a side was dead. What neither explains is said to be unexplained, and makes the soak fail.

use super::probe::Count;
use super::relay::{Fate, Sight};
use anyhow::{Result, ensure};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// The flows' names.
pub const UP: &str = "client to server";
pub const DOWN: &str = "server to client";
/// Longer than a probe takes from its sender to the relay, in milliseconds, on a machine that has much to do.
const UNDER_WAY: u32 = 1000;

/// Which side was dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    ClientKilled,
    BrokerKilled,
}

/// A time in which nobody can expect packets to arrive, in milliseconds of the soak: from the last packet before the kill to
/// the first one behind it.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub cause: Cause,
    pub from: u32,
    pub to: u32,
}

impl Outage {
    fn holds(&self, at: u32) -> bool {
        (self.from..=self.to).contains(&at)
    }
}

/// One way's account.
#[derive(Debug)]
pub struct Way {
    pub name: &'static str,
    pub count: Count,
    /// Lost probes of which the relay says that it dropped one at that time.
    injected: u64,
    stale: u64,
    /// Lost probes while a side was dead, of which the relay knows nothing.
    client_dead: u64,
    broker_dead: u64,
    /// When the others were sent.
    rest: Vec<u32>,
    /// Of [`Self::rest`], those that never came as far as the relay.
    before_relay: u64,
    /// Probes that the relay dropped, and of which none is lost.
    drops_without_loss: u64,
}

impl Way {
    /// Holds the lost probes against what the relay saw and against the kills.
    pub fn new(
        name: &'static str,
        count: Count,
        sights: &[Sight],
        start: Instant,
        outages: &[Outage],
    ) -> Self {
        let mine: Vec<(u32, Fate)> = sights
            .iter()
            .filter(|sight| sight.from_broker == (name == DOWN))
            .map(|sight| (sight.at.saturating_duration_since(start).as_millis() as u32, sight.fate))
            .collect();
        let mut way = Self {
            name,
            injected: 0,
            stale: 0,
            client_dead: 0,
            broker_dead: 0,
            rest: Vec::new(),
            before_relay: 0,
            drops_without_loss: 0,
            count,
        };
        // Both lists are in the order in which the probes passed. A drop belongs to the first lost probe that can be the one.
        let mut drops = mine.iter().filter(|(_, fate)| *fate != Fate::Passed).peekable();
        for &sent in &way.count.lost_at {
            while drops.next_if(|(at, _)| *at < sent).is_some() {
                way.drops_without_loss += 1;
            }
            let outage = outages.iter().find(|outage| outage.holds(sent));
            let latest = outage.map_or(u32::MAX, |outage| outage.to).min(sent.saturating_add(UNDER_WAY));
            match drops.next_if(|(at, _)| *at <= latest) {
                Some((_, Fate::Stale)) => way.stale += 1,
                Some(_) => way.injected += 1,
                None => match outage.map(|outage| outage.cause) {
                    Some(Cause::ClientKilled) => way.client_dead += 1,
                    Some(Cause::BrokerKilled) => way.broker_dead += 1,
                    None => way.rest.push(sent),
                },
            }
        }
        way.drops_without_loss += drops.count() as u64;
        let outside = |at: u32| !outages.iter().any(|outage| outage.holds(at));
        let sent = way.count.sent_at.iter().filter(|&&at| outside(at)).count() as u64;
        let seen = mine.iter().filter(|(at, _)| outside(*at)).count() as u64;
        way.before_relay = sent.saturating_sub(seen).min(way.rest.len() as u64);
        way
    }

    /// Of what no cause explains: what was lost on the side of the client, and on that of the broker.
    fn rest_by_side(&self) -> (u64, u64) {
        let behind = self.rest.len() as u64 - self.before_relay;
        if self.name == UP { (self.before_relay, behind) } else { (behind, self.before_relay) }
    }
}

/// What came out.
#[derive(Debug)]
pub struct Report {
    pub title: String,
    pub lasted: Duration,
    pub flows: Vec<Way>,
    pub outages: Vec<Outage>,
    /// Whether client and broker are strongSwan.
    pub swan: (bool, bool),
    pub overflow: u64,
    pub held: u64,
    pub doubled: u64,
    pub rebindings: u64,
    pub moves: u64,
    pub ike_lost: u64,
    pub transfers: u64,
    pub sas: (usize, usize),
}

impl Report {
    fn sum(&self, of: impl Fn(&Way) -> u64) -> u64 {
        self.flows.iter().map(of).sum()
    }

    /// Probes that never arrived.
    pub fn lost(&self) -> u64 {
        self.sum(|way| way.count.lost_at.len() as u64)
    }

    /// Lost between the relay and an end that is strongSwan: what it dropped itself, or could not be reached with.
    fn by_strongswan(&self) -> u64 {
        self.sum(|way| {
            let (client, broker) = way.rest_by_side();
            client * u64::from(self.swan.0) + broker * u64::from(self.swan.1)
        })
    }

    /// Those that no cause accounts for.
    pub fn unexplained(&self) -> u64 {
        self.sum(|way| way.rest.len() as u64) - self.by_strongswan()
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(out, "  {name:<58} {value:>12}").expect("a String takes all")
        };
        line("probes sent", self.sum(|w| w.count.sent).to_string());
        for way in &self.flows {
            line(&format!("  {}", way.name), way.count.sent.to_string());
        }
        line(
            "not sent: no route or address while the tunnel was down",
            self.sum(|w| w.count.unsent).to_string(),
        );
        line("received", self.sum(|w| w.count.received).to_string());
        line("  behind a later one", self.sum(|w| w.count.late).to_string());
        line("  twice", self.sum(|w| w.count.duplicates).to_string());
        line("lost", self.lost().to_string());
        line("  by the path (injected)", self.sum(|w| w.injected).to_string());
        line("  by the NAT: for a mapping that is no more", self.sum(|w| w.stale).to_string());
        line("  while the client was dead", self.sum(|w| w.client_dead).to_string());
        line("  while the broker was dead", self.sum(|w| w.broker_dead).to_string());
        if self.swan.0 || self.swan.1 {
            line("  on strongSwan's side of the path", self.by_strongswan().to_string());
        }
        line("  unexplained", self.unexplained().to_string());
        for way in self.flows.iter().filter(|way| !way.rest.is_empty()) {
            let times: Vec<String> =
                way.rest.iter().take(30).map(|at| format!("{:.3}", f64::from(*at) / 1000.0)).collect();
            line(
                &format!("  {}, no cause; before the relay: {}", way.name, way.before_relay),
                format!("{}: {}", way.rest.len(), times.join(" ")),
            );
        }
        line("dropped by the path, and not lost", self.sum(|w| w.drops_without_loss).to_string());
        line("dropped by the relay's own queue", self.overflow.to_string());
        line("IKE SAs, Child SAs seen", format!("{}, {}", self.sas.0, self.sas.1));
        line("IKE messages lost by the path", self.ike_lost.to_string());
        line("datagrams held (reordered), doubled", format!("{}, {}", self.held, self.doubled));
        line("NAT rebindings, moves of the client", format!("{}, {}", self.rebindings, self.moves));
        for outage in &self.outages {
            line(
                &format!("{:?}: seconds until packets flowed", outage.cause),
                format!(
                    "{:.1}, from {:.3}",
                    f64::from(outage.to - outage.from) / 1000.0,
                    f64::from(outage.from) / 1000.0
                ),
            );
        }
        line("TCP transfers, content checked", self.transfers.to_string());
        format!("{}, {:.0} s\n{out}", self.title, self.lasted.as_secs_f32())
    }

    /// An error if anything was lost that is not accounted for, came twice, or did not happen at all.
    pub fn verify(&self) -> Result<()> {
        ensure!(self.unexplained() == 0, "{} probes are lost without a cause", self.unexplained());
        ensure!(self.overflow == 0, "the relay itself lost {} datagrams", self.overflow);
        ensure!(self.sum(|w| w.drops_without_loss) == 0, "the relay dropped probes that nobody misses");
        ensure!(
            self.sum(|w| w.count.duplicates) == 0,
            "probes came twice: replay protection let them through"
        );
        ensure!(self.flows.iter().all(|w| w.count.received > 0), "a way was never open");
        ensure!(self.transfers > 0, "no TCP transfer came to its end");
        Ok(())
    }
}
