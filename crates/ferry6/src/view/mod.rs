//! What the viewers (`ferry6 monitor`, `ferry6 web`) know of the daemons: what the control sockets tell, and a short past of it.

pub mod ask;
pub mod text;

use crate::control::{LogLine, LogTail, Status};
use ask::News;
use ferry6_tun_router::status::{IkeSa, Traffic};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Samples of the past that are kept.
pub const PAST: usize = 240;
/// The same of a single tunnel, of which there may be thousands.
pub const TUNNEL_PAST: usize = 60;
/// Lines of a log that are kept.
const LINES: usize = 500;

/// Rates in octets a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// To us.
    pub to_us: u64,
    /// From us.
    pub from_us: u64,
}

/// Rates of the past, made from counts that never fall.
#[derive(Clone, Debug, Default)]
pub struct Series {
    last: Option<(Instant, Traffic)>,
    /// The oldest first.
    pub rates: VecDeque<Rate>,
}

impl Series {
    fn push(&mut self, at: Instant, traffic: Traffic, most: usize) {
        if let Some((before, old)) = self.last {
            let seconds = at.saturating_duration_since(before).as_secs_f64();
            if seconds <= 0.0 {
                return;
            }
            let rate = Rate {
                to_us: per_second(old.bytes_in, traffic.bytes_in, seconds),
                from_us: per_second(old.bytes_out, traffic.bytes_out, seconds),
            };
            bounded(&mut self.rates, rate, most);
        }
        self.last = Some((at, traffic));
    }

    /// The last one.
    pub fn now(&self) -> Rate {
        self.rates.back().copied().unwrap_or_default()
    }
}

/// Nothing where a counter began anew.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // for the eye
fn per_second(old: u64, new: u64, seconds: f64) -> u64 {
    new.checked_sub(old).map_or(0, |more| (more as f64 / seconds).round() as u64)
}

fn bounded<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    if list.len() >= most {
        list.pop_front();
    }
    list.push_back(item);
}

/// A tunnel's past.
#[derive(Clone, Debug, Default)]
pub struct TunnelPast {
    /// Rates.
    pub series: Series,
    /// Round trips in microseconds, one for each sample of the status.
    pub rtt: VecDeque<u64>,
}

/// A reason for drops: how many so far, and a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drop {
    /// As `status` names it.
    pub reason: String,
    /// Since the daemon's start.
    pub count: u64,
    /// Of late.
    pub per_second: u64,
}

/// One daemon as a viewer sees it.
#[derive(Clone, Debug)]
pub struct View {
    /// Where it is asked.
    pub socket: PathBuf,
    /// The last answer, also while it is gone.
    pub status: Option<Status>,
    /// When that came.
    pub answered: Option<Instant>,
    /// Why it does not answer, and since when.
    pub fault: Option<(String, Instant)>,
    /// Of all tunnels.
    pub total: Series,
    /// Of each tunnel, by its number.
    pub tunnels: HashMap<u64, TunnelPast>,
    /// By reason; those that grow first.
    pub drops: Vec<Drop>,
    /// The end of its log.
    pub log: VecDeque<LogLine>,
}

impl View {
    /// One that has not answered yet.
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            status: None,
            answered: None,
            fault: None,
            total: Series::default(),
            tunnels: HashMap::new(),
            drops: Vec::new(),
            log: VecDeque::new(),
        }
    }

    /// Takes what was told, or that nothing was.
    pub fn take(&mut self, news: News) {
        let status = match news.status {
            Ok(status) => *status,
            Err(why) => {
                let since = self.fault.take().map_or(news.at, |(_, since)| since);
                self.fault = Some((why, since));
                return;
            }
        };
        self.fault = None;
        if self.status.as_ref().is_some_and(|old| old.pid != status.pid) {
            // Another process: its counters have nothing to do with those before.
            self.total.last = None;
            self.tunnels.clear();
            self.drops.clear();
            self.log.clear();
        }
        let seconds = self.answered.map(|before| news.at.saturating_duration_since(before).as_secs_f64());
        self.total.push(news.at, status.router.traffic, PAST);
        for sa in &status.router.ike_sas {
            let past = self.tunnels.entry(sa.id).or_default();
            past.series.push(news.at, sa.traffic, TUNNEL_PAST);
            if let Some(us) = sa.rtt_us {
                bounded(&mut past.rtt, us, TUNNEL_PAST);
            }
        }
        if self.tunnels.len() > status.router.ike_sas.len() {
            let there: std::collections::HashSet<u64> =
                status.router.ike_sas.iter().map(|sa| sa.id).collect();
            self.tunnels.retain(|id, _| there.contains(id));
        }
        self.drops = drops(&status, &self.drops, seconds.filter(|s| *s > 0.0));
        self.status = Some(status);
        self.answered = Some(news.at);
        if let Some(LogTail { lines, .. }) = news.log {
            for line in lines {
                bounded(&mut self.log, line, LINES);
            }
        }
    }

    /// `client` or `broker`, and the socket where it says more.
    pub fn name(&self) -> String {
        let stem = self.socket.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        let name = match &self.status {
            Some(status) if status.role == stem || stem == "control" => stem_or(&status.role, &self.socket),
            Some(status) => format!("{} {stem}", status.role),
            None => stem,
        };
        text::visible(&name)
    }

    /// Whether it answered the last time.
    pub fn is_there(&self) -> bool {
        self.fault.is_none() && self.status.is_some()
    }

    /// How long it has not answered.
    pub fn gone_for(&self, now: Instant) -> Option<Duration> {
        self.fault.as_ref().map(|(_, since)| now.saturating_duration_since(*since))
    }
}

fn stem_or(role: &str, socket: &Path) -> String {
    match socket.parent().and_then(Path::file_name) {
        // Several in directories of their own.
        Some(parent) if socket.file_stem().is_some_and(|s| s == "control") && parent != role => {
            format!("{role} {}", parent.to_string_lossy())
        }
        _ => role.to_owned(),
    }
}

/// Drops of all kinds: those that grow first, then by number.
fn drops(status: &Status, before: &[Drop], seconds: Option<f64>) -> Vec<Drop> {
    let old: HashMap<&str, u64> = before.iter().map(|drop| (drop.reason.as_str(), drop.count)).collect();
    let mut list: Vec<Drop> = all_drops(status)
        .into_iter()
        .map(|(reason, count)| {
            let was = old.get(reason.as_str()).copied().unwrap_or(0);
            let per_second = seconds.map_or(0, |seconds| per_second(was, count, seconds));
            Drop { reason, count, per_second }
        })
        .collect();
    list.sort_by(|a, b| (b.per_second > 0, b.count, &a.reason).cmp(&(a.per_second > 0, a.count, &b.reason)));
    list
}

/// The packets dropped since the start, by reason: what belongs to no SA, and each SA's.
pub fn all_drops(status: &Status) -> BTreeMap<String, u64> {
    let mut all = status.router.drops.clone();
    for child in status.router.ike_sas.iter().flat_map(|sa| &sa.children) {
        for (reason, count) in &child.drops {
            *all.entry(reason.clone()).or_default() += count;
        }
    }
    all.retain(|_, count| *count > 0);
    all
}

/// The address in the tunnel of each IKE SA: leased by the broker, or ours from it.
pub fn addresses(status: &Status) -> HashMap<u64, Ipv6Addr> {
    let mut all = HashMap::new();
    if let Some(broker) = &status.broker {
        for lease in &broker.leases {
            all.extend(lease.ike.iter().map(|ike| (*ike, lease.address)));
        }
    }
    if let Some(address) = status.client.as_ref().and_then(|client| client.address) {
        all.extend(status.router.ike_sas.iter().map(|sa| (sa.id, address)));
    }
    all
}

/// The prefix that a broker routes to the peer of each IKE SA, where there is one.
pub fn prefixes(status: &Status) -> HashMap<u64, &str> {
    let leases = status.broker.iter().flat_map(|broker| &broker.leases);
    leases
        .filter_map(|lease| Some((lease, lease.prefix.as_deref()?)))
        .flat_map(|(lease, prefix)| lease.ike.iter().map(move |ike| (*ike, prefix)))
        .collect()
}

/// The peer as it proved itself to be, else where it is. Fit to be shown.
pub fn peer(sa: &IkeSa) -> String {
    text::visible(sa.remote_id.as_deref().unwrap_or(&sa.remote))
}

/// How far an SA is on its way to the next rekey, 0 to 1.
#[allow(clippy::cast_precision_loss)] // for the eye
pub fn way_to_rekey(age: u64, next_rekey: Option<u64>) -> Option<f64> {
    let next = next_rekey?;
    let all = age.saturating_add(next);
    (all > 0).then(|| age as f64 / all as f64)
}

#[cfg(test)]
pub(crate) mod tests;
