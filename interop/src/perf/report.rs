//! What came out: medians, ratios within the rounds, goals; as a table, as JSON.

use super::measure::Sample;
use super::rekey;
use super::subject::{Kind, Subject};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A subject and its samples, one a round; `None` where it failed.
pub struct Row {
    pub subject: Subject,
    pub samples: Vec<Option<Sample>>,
}

/// One figure of a sample.
type Figure = fn(&Sample) -> Option<f64>;

/// The columns: heading, unit, decimals, figure.
pub const COLUMNS: &[(&str, &str, usize, Figure)] = &[
    ("TCP 1 up", "Gbit/s", 2, |s| Some(s.tcp[0])),
    ("1 down", "Gbit/s", 2, |s| Some(s.tcp[1])),
    ("4 up", "Gbit/s", 2, |s| Some(s.tcp[2])),
    ("4 down", "Gbit/s", 2, |s| Some(s.tcp[3])),
    ("CPU tunnel", "s/GB", 2, |s| s.cpu_tunnel),
    ("CPU machine", "s/GB", 2, |s| Some(s.cpu_machine)),
    ("UDP 64 up", "kpps", 0, |s| Some(s.udp[0])),
    ("down", "kpps", 0, |s| Some(s.udp[1])),
    ("ping p50", "µs", 0, |s| Some(s.ping[0])),
    ("p99", "µs", 0, |s| Some(s.ping[1])),
    ("RSS", "MB", 1, |s| s.rss),
    ("idle CPU", "ms/s", 2, |s| s.idle),
];

/// The median; the lower one of two in the middle counts half.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

impl Row {
    /// The median of a figure over the rounds.
    pub fn median(&self, figure: Figure) -> Option<f64> {
        median(self.samples.iter().flatten().filter_map(figure).collect())
    }

    fn figure(&self, round: usize, figure: Figure) -> Option<f64> {
        self.samples.get(round)?.as_ref().and_then(figure)
    }

    fn is_peer(&self) -> bool {
        !matches!(self.subject.kind, Kind::None | Kind::Ferry6 { .. })
    }
}

/// The table of medians.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!("{:<22}", "");
    for (heading, ..) in COLUMNS {
        let _ = write!(text, "{heading:>12}");
    }
    let _ = write!(text, "\n{:<22}", "");
    for (_, unit, ..) in COLUMNS {
        let _ = write!(text, "{unit:>12}");
    }
    text.push('\n');
    for row in rows {
        let _ = write!(text, "{:<22}", row.subject.name);
        for (_, _, decimals, figure) in COLUMNS {
            match row.median(*figure) {
                Some(value) => {
                    let _ = write!(text, "{value:>12.decimals$}");
                }
                None => text += &format!("{:>12}", "-"),
            }
        }
        text.push('\n');
    }
    text
}

/// One goal, and what was reached.
pub struct Goal {
    pub what: String,
    /// At least (or, with `at_most`, at most) this.
    pub goal: f64,
    pub at_most: bool,
    pub reached: f64,
    /// Lowest and highest over the rounds.
    pub range: (f64, f64),
}

impl Goal {
    /// Whether it is.
    pub fn is_met(&self) -> bool {
        if self.at_most { self.reached <= self.goal } else { self.reached >= self.goal }
    }
}

/// The median over the rounds of `ours / theirs`, each taken within its round, since the machine's speed drifts; with the
/// lowest and the highest.
fn ratio(
    rounds: usize,
    ours: impl Fn(usize) -> Option<f64>,
    theirs: impl Fn(usize) -> Option<f64>,
) -> Option<(f64, (f64, f64))> {
    let ratios: Vec<f64> = (0..rounds)
        .filter_map(|round| Some(ours(round)? / theirs(round)?))
        .filter(|ratio| ratio.is_finite())
        .collect();
    let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let high = ratios.iter().copied().fold(0.0, f64::max);
    median(ratios).map(|middle| (middle, (low, high)))
}

/// The goals that this run can judge.
pub fn goals(rows: &[Row]) -> Vec<Goal> {
    let find = |name: &str| rows.iter().find(|row| row.subject.name == name);
    let Some(ours) = find("ferry6") else { return Vec::new() };
    let rounds = ours.samples.len();
    let mut goals = Vec::new();
    let mut add = |what: String, goal, at_most, ratio: Option<(f64, (f64, f64))>| {
        if let Some((reached, range)) = ratio {
            goals.push(Goal { what, goal, at_most, reached, range });
        }
    };
    for (peer, goal, columns) in [("strongswan", 11.0, 4), ("gotatun", 7.0, 4), ("none", 0.45, 2)] {
        let Some(theirs) = find(peer) else { continue };
        for (heading, _, _, figure) in &COLUMNS[..columns] {
            let heading = heading.trim_start_matches("TCP ");
            let ratio = ratio(rounds, |r| ours.figure(r, *figure), |r| theirs.figure(r, *figure));
            add(format!("TCP {heading} against {peer}"), goal, false, ratio);
        }
    }
    if let Some(swan) = find("strongswan") {
        for (heading, _, _, figure) in &COLUMNS[4..6] {
            let ratio = ratio(rounds, |r| ours.figure(r, *figure), |r| swan.figure(r, *figure));
            // The goal is about the tunnel's own work; the machine's, with iperf3's, is told beside it.
            let goal = if *heading == "CPU tunnel" { 1.0 / 11.0 } else { f64::INFINITY };
            add(format!("{heading}, s/GB, against strongswan"), goal, true, ratio);
        }
    }
    let peers: Vec<_> = rows.iter().filter(|row| row.is_peer()).collect();
    for (index, goal, at_most) in [(6, 1.3, false), (7, 1.3, false), (8, 1.0, true)] {
        let (heading, _, _, figure) = COLUMNS[index];
        let heading = if index == 7 { "UDP 64 down" } else { heading };
        let values = peers.iter().filter_map(|row| Some((row.subject.name, row.median(figure)?)));
        let best = if at_most {
            values.min_by(|a, b| a.1.total_cmp(&b.1))
        } else {
            values.max_by(|a, b| a.1.total_cmp(&b.1))
        };
        if let Some((name, _)) = best
            && let Some(theirs) = find(name)
        {
            let ratio = ratio(rounds, |r| ours.figure(r, figure), |r| theirs.figure(r, figure));
            add(format!("{heading} against the best peer, {name}"), goal, at_most, ratio);
        }
    }
    // No ratios: bounds.
    for (index, goal) in [(10, 20.0), (11, 1.0)] {
        let (heading, unit, _, figure) = COLUMNS[index];
        add(
            format!("{heading}, {unit}"),
            goal,
            true,
            ratio(rounds, |r| ours.figure(r, figure), |_| Some(1.0)),
        );
    }
    goals
}

/// The goals in words.
pub fn goals_table(goals: &[Goal]) -> String {
    let mut text = format!("{:<48}{:>10}{:>18}{:>10}\n", "ferry6, ratio", "median", "range", "goal");
    for goal in goals {
        let range = format!("{:.3} - {:.3}", goal.range.0, goal.range.1);
        let (bound, verdict) = match (goal.goal.is_finite(), goal.at_most) {
            (false, _) => ("-".to_owned(), ""),
            (_, true) => (format!("<= {:.3}", goal.goal), if goal.is_met() { "met" } else { "NOT MET" }),
            (_, false) => (format!(">= {:.2}", goal.goal), if goal.is_met() { "met" } else { "NOT MET" }),
        };
        let _ = writeln!(text, "{:<48}{:>10.3}{range:>18}{bound:>10}  {verdict}", goal.what, goal.reached);
    }
    text
}

/// The row about rekeys.
pub fn rekey_line(outcome: &rekey::Outcome) -> String {
    let lost = outcome.counted.sent - outcome.counted.received.min(outcome.counted.sent);
    let reasons = if outcome.reasons.is_empty() { String::new() } else { format!(" ({})", outcome.reasons) };
    format!(
        "rekeys under load: {} rekeys; {} of {} datagrams lost at {} kpps of {} octets; TCP 1 up {:.2} Gbit/s, \
         {} packets dropped by ferry6{reasons}\n",
        outcome.rekeys,
        lost,
        outcome.counted.sent,
        rekey::RATE / 1000,
        rekey::LEN,
        outcome.gbits,
        outcome.dropped,
    )
}

/// All of it, every sample too.
pub fn json(
    machine: &str,
    seconds: f64,
    rows: &[Row],
    goals: &[Goal],
    rekey: Option<&rekey::Outcome>,
) -> Value {
    let key = |heading: &str, unit: &str| format!("{heading} {unit}");
    let subjects: Vec<_> = rows
        .iter()
        .map(|row| {
            let samples: Vec<_> = row
                .samples
                .iter()
                .map(|sample| match sample {
                    Some(sample) => {
                        COLUMNS.iter().map(|(h, u, _, f)| (key(h, u), json!(f(sample)))).collect()
                    }
                    None => Value::Null,
                })
                .collect();
            let medians: Value =
                COLUMNS.iter().map(|(h, u, _, f)| (key(h, u), json!(row.median(*f)))).collect();
            json!({ "name": row.subject.name, "medians": medians, "rounds": samples })
        })
        .collect();
    let goals: Vec<_> = goals
        .iter()
        .map(|goal| {
            let bound = goal.goal.is_finite().then_some(goal.goal);
            json!({
                "what": goal.what, "ratio": goal.reached, "lowest": goal.range.0, "highest": goal.range.1,
                "goal": bound, "at_most": goal.at_most, "met": goal.is_met(),
            })
        })
        .collect();
    let rekey = rekey.map(|outcome| {
        json!({
            "rekeys": outcome.rekeys, "sent": outcome.counted.sent, "received": outcome.counted.received,
            "tcp_gbits": outcome.gbits, "dropped": outcome.dropped, "reasons": outcome.reasons,
        })
    });
    json!({ "machine": machine, "seconds": seconds, "subjects": subjects, "goals": goals, "rekey": rekey })
}

#[cfg(test)]
mod tests {
    use super::super::subject::ALL;
    use super::*;

    fn row(name: &str, tcp: &[f64], udp: f64, ping: f64) -> Row {
        let subject = *ALL.iter().find(|s| s.name == name).unwrap();
        let samples = tcp
            .iter()
            .map(|gbits| {
                Some(Sample {
                    tcp: [*gbits; 4],
                    cpu_tunnel: Some(1.0 / gbits),
                    cpu_machine: 2.0 / gbits,
                    udp: [udp; 2],
                    ping: [ping; 2],
                    rss: None,
                    idle: None,
                })
            })
            .collect();
        Row { subject, samples }
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is half as fast in the second round; the ratio is not.
        let rows = [
            row("none", &[16.0, 8.0, 16.0], 200.0, 12.0),
            row("ferry6", &[8.0, 4.0, 8.0], 100.0, 110.0),
            row("strongswan", &[0.5, 0.25, 1.0], 70.0, 300.0),
            row("boringtun", &[0.4, 0.2, 0.4], 60.0, 100.0),
        ];
        let goals = goals(&rows);
        let of = |what: &str| goals.iter().find(|goal| goal.what == what).unwrap();
        let swan = of("TCP 1 up against strongswan");
        assert_eq!((swan.reached, swan.range, swan.is_met()), (16.0, (8.0, 16.0), true));
        assert_eq!(of("TCP 1 down against none").reached, 0.5);
        assert!(of("CPU tunnel, s/GB, against strongswan").is_met());
        assert!(of("UDP 64 up against the best peer, strongswan").is_met());
        assert!(!of("ping p50 against the best peer, boringtun").is_met());
        assert!(goals_table(&goals).contains("NOT MET"));
        // What was not measured is not judged.
        assert!(!goals.iter().any(|goal| goal.what.contains("gotatun")));
        let text = table(&rows);
        assert_eq!(text.lines().count(), 2 + rows.len());
        assert!(text.lines().all(|line| line.chars().count() == 22 + 12 * COLUMNS.len()));
    }

    #[test]
    fn a_failed_round_is_no_sample() {
        let mut failed = row("ferry6", &[8.0], 1.0, 1.0);
        failed.samples = vec![None];
        assert_eq!(failed.median(COLUMNS[0].3), None);
        assert!(goals(&[failed, row("strongswan", &[1.0], 1.0, 1.0)]).is_empty());
    }
}
