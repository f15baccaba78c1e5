//! The log under attack: each cause has a few lines in a while; what is beyond them is counted, and told in one line.
//!
//! Causes are words of ours, never of a peer, so the memory for them is bounded; so is the length of a line, and what a peer
//! puts into its identity cannot break it.

use crate::view::text::thousands;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tracing::Level;

/// After this long a cause has its lines again.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one cause in a window.
const LINES: u64 = 5;
/// The same for tunnels that come up or go down, which somebody may want to see each: a broker's clients may all come at once.
const LINES_OF_LIFE: u64 = 100;
/// Characters of a text.
const LONGEST: usize = 400;

/// What tunnels do, in the log.
pub const UP: &str = "up";
/// And their end.
pub const DOWN: &str = "down";

/// Notices for the log, with their limits.
#[derive(Debug, Default)]
pub struct Notices {
    causes: BTreeMap<&'static str, Cause>,
}

#[derive(Debug)]
struct Cause {
    since: Instant,
    told: u64,
    kept: u64,
    /// The last one that was kept back.
    last: Option<(Level, String)>,
}

/// One line of the log.
type Line = (Level, String);

impl Notices {
    /// Logs, or counts.
    pub fn tell(&mut self, level: Level, cause: &'static str, text: &str) {
        self.take(Instant::now(), level, cause, text).into_iter().for_each(write);
    }

    /// When [`Self::flush`] has something to tell.
    pub fn due(&self) -> Option<Instant> {
        self.causes.values().filter(|cause| cause.kept > 0).map(|cause| cause.since + WINDOW).min()
    }

    /// Tells what was kept back.
    pub fn flush(&mut self) {
        self.ended(Instant::now()).into_iter().for_each(write);
    }

    /// Waits for the next [`Self::flush`]; for ever, where nothing is kept back.
    pub async fn wait(&self) {
        match self.due() {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, now: Instant, level: Level, name: &'static str, text: &str) -> Vec<Line> {
        let mut lines = self.ended(now);
        let most = if [UP, DOWN].contains(&name) { LINES_OF_LIFE } else { LINES };
        let fresh = || Cause { since: now, told: 0, kept: 0, last: None };
        let cause = self.causes.entry(name).or_insert_with(fresh);
        if cause.told < most {
            cause.told += 1;
            lines.push((level, clean(text)));
        } else {
            cause.kept += 1;
            cause.last = Some((level, clean(text)));
        }
        lines
    }

    /// The causes whose window is over, each with what it kept back.
    fn ended(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        self.causes.retain(|_, cause| {
            let over = now.saturating_duration_since(cause.since) >= WINDOW;
            if over && let Some((level, text)) = cause.last.take() {
                let more = match cause.kept - 1 {
                    0 => String::new(),
                    more => format!(" … and {} more in {} s", thousands(more), WINDOW.as_secs()),
                };
                lines.push((level, format!("{text}{more}")));
            }
            !over
        });
        lines
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.causes
            .values_mut()
            .for_each(|cause| cause.since = cause.since.checked_sub(WINDOW).unwrap_or(cause.since));
        self.flush();
    }
}

/// The level of a router's notice.
pub const fn level(warning: bool) -> Level {
    if warning { Level::WARN } else { Level::INFO }
}

fn write((level, text): Line) {
    match level {
        Level::ERROR => tracing::error!("{text}"),
        Level::WARN => tracing::warn!("{text}"),
        Level::INFO => tracing::info!("{text}"),
        _ => tracing::debug!("{text}"),
    }
}

/// One line of a bounded length, whatever a peer put into it.
fn clean(text: &str) -> String {
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut line: String = text.chars().take(LONGEST).map(printable).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_cause_has_a_few_lines_and_then_one_with_the_count() {
        let (mut notices, start) = (Notices::default(), Instant::now());
        let mut lines = Vec::new();
        for n in 0..1210 {
            let now = start + Duration::from_millis(n);
            lines.extend(texts(notices.take(now, Level::WARN, "auth", &format!("peer {n} refused"))));
        }
        assert_eq!(
            lines,
            ["peer 0 refused", "peer 1 refused", "peer 2 refused", "peer 3 refused", "peer 4 refused"]
        );
        assert_eq!(notices.due(), Some(start + WINDOW));
        assert!(notices.ended(start + WINDOW - Duration::from_millis(1)).is_empty());
        assert_eq!(texts(notices.ended(start + WINDOW)), ["peer 1209 refused … and 1,204 more in 10 s"]);
        assert_eq!(notices.due(), None);
        assert!(notices.causes.is_empty());
    }

    /// A flood of one cause hides none of another, and the counts come without a further notice of that cause.
    #[test]
    fn causes_do_not_hide_each_other() {
        let (mut notices, start) = (Notices::default(), Instant::now());
        for _ in 0..100_000 {
            notices.take(start, Level::WARN, "no_proposal", "no proposal fits");
        }
        let other = notices.take(start, Level::WARN, "auth", "bob is refused");
        assert_eq!(texts(other), ["bob is refused"]);
        let later = notices.take(start + WINDOW, Level::INFO, "path", "moved");
        assert_eq!(texts(later), ["no proposal fits … and 99,994 more in 10 s", "moved"]);
    }

    #[test]
    fn one_kept_back_is_told_as_it_was() {
        let (mut notices, start) = (Notices::default(), Instant::now());
        for n in 0..6 {
            notices.take(start, Level::INFO, "path", &format!("moved {n}"));
        }
        assert_eq!(texts(notices.ended(start + WINDOW)), ["moved 5"]);
    }

    #[test]
    fn each_tunnel_is_seen_also_when_many_come_at_once() {
        let (mut notices, start) = (Notices::default(), Instant::now());
        let told = (0..500).flat_map(|_| notices.take(start, Level::INFO, UP, "up")).count();
        assert_eq!(told, 100);
    }

    /// A name cannot begin a line of its own, colour a terminal, or fill a disk.
    #[test]
    fn what_a_peer_writes_stays_one_line() {
        assert_eq!(clean("eve\n12:00 WARN forged\x1b[31m"), "eve\u{fffd}12:00 WARN forged\u{fffd}[31m");
        assert_eq!(clean(&"x".repeat(70_000)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1204, 1_234_567].map(thousands), ["0", "999", "1,204", "1,234,567"]);
    }
}
