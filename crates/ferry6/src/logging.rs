//! The log: one line per event on stderr, short, with no colours where nobody looks (journald, a file). A daemon keeps the last
//! ones in memory too, for `ferry6 monitor`.

use crate::control::{LogLine, LogTail};
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt as lines, reload};

/// Lines that are kept.
const KEPT: usize = 200;
/// Octets of one.
const LONGEST: usize = 1000;

/// A log filter that was checked when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(String);

impl FromStr for Filter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        // EnvFilter takes any bare word as a target; a misspelt level must not silence the log.
        for part in text.split(',').filter(|p| !p.contains('=')) {
            if !["off", "error", "warn", "info", "debug", "trace"].contains(&part.trim()) {
                return Err(format!("{part:?} is none of off, error, warn, info, debug, trace"));
            }
        }
        EnvFilter::try_new(text).map_err(|e| e.to_string())?;
        Ok(Self(text.to_owned()))
    }
}

/// What decides where nobody says anything.
const DEFAULT: &str = "info";

/// The filter in force; `None` where the command line has decided, or logging was not started.
static CHANGEABLE: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging, with what the command line says. A second call changes nothing.
pub fn init(filter: Option<&Filter>) {
    let (layer_filter, handle) =
        reload::Layer::new(EnvFilter::new(filter.map_or(DEFAULT, |filter| filter.0.as_str())));
    let terminal = std::io::stderr().is_terminal();
    let layer = lines::layer().with_writer(std::io::stderr).with_target(false).with_ansi(terminal);
    let registry = tracing_subscriber::registry().with(layer_filter).with(Keeper);
    // systemd tells by JOURNAL_STREAM that its journal takes stderr; the journal has the time already.
    let result = if std::env::var_os("JOURNAL_STREAM").is_some() {
        registry.with(layer.without_time()).try_init()
    } else {
        registry.with(layer).try_init()
    };
    match result {
        Ok(()) if filter.is_none() => {
            let _ = CHANGEABLE.set(handle);
        }
        Ok(()) => {}
        Err(error) => tracing::debug!("log was started before: {error}"),
    }
}

/// What the configuration says (`log`), unless the command line has decided.
pub fn configure(filter: Option<&Filter>) {
    let Some(handle) = CHANGEABLE.get() else { return };
    let filter = EnvFilter::new(filter.map_or(DEFAULT, |filter| filter.0.as_str()));
    if let Err(error) = handle.reload(filter) {
        tracing::warn!("the log's filter stays: {error}");
    }
}

/// The last lines of this process's log, from number `since` on.
pub fn tail(since: Option<u64>) -> LogTail {
    TAIL.lock().unwrap_or_else(PoisonError::into_inner).since(since)
}

static TAIL: Mutex<Tail> = Mutex::new(Tail { next: 0, lines: VecDeque::new() });

/// The last lines, of a bounded number and length.
struct Tail {
    next: u64,
    lines: VecDeque<LogLine>,
}

impl Tail {
    fn push(&mut self, level: &str, text: String) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        if self.lines.len() >= KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(LogLine { number: self.next, time, level: level.to_owned(), text });
        self.next += 1;
    }

    fn since(&self, since: Option<u64>) -> LogTail {
        let wanted = |line: &&LogLine| since.is_none_or(|since| line.number >= since);
        LogTail { next: self.next, lines: self.lines.iter().filter(wanted).cloned().collect() }
    }
}

/// Keeps what the filter lets through.
struct Keeper;

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let level = event.metadata().level().as_str();
        TAIL.lock().unwrap_or_else(PoisonError::into_inner).push(level, text.0);
    }
}

/// The message, then the fields, as one line of a bounded length.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing fails only where the line is full.
        let _ = match field.name() {
            "message" => write!(Bounded(&mut self.0), "{space}{value:?}"),
            name => write!(Bounded(&mut self.0), "{space}{name}={value:?}"),
        };
    }
}

/// Takes characters up to [`LONGEST`] octets; what would end or colour a line is replaced.
struct Bounded<'a>(&'a mut String);

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.len() + c.len_utf8() > LONGEST {
                return Err(fmt::Error);
            }
            self.0.push(if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(tail: &LogTail) -> Vec<&str> {
        tail.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn the_last_lines_are_kept_and_no_more() {
        let mut tail = Tail { next: 0, lines: VecDeque::new() };
        for n in 0..KEPT + 5 {
            tail.push("INFO", format!("line {n}"));
        }
        let all = tail.since(None);
        assert_eq!((all.lines.len(), all.lines[0].text.as_str()), (KEPT, "line 5"));
        let last = tail.since(Some(all.next - 1));
        assert_eq!(texts(&last), ["line 204"]);
        assert!(tail.since(Some(last.next)).lines.is_empty());
    }

    #[test]
    fn lines_are_kept_as_the_filter_lets_them_through() {
        let filter = EnvFilter::new("info");
        let _guard = tracing_subscriber::registry().with(filter).with(Keeper).set_default();
        let start = tail(None).next;
        tracing::debug!("not wanted");
        tracing::warn!(peer = 7, "forged\n12:00 WARN \x1b[31m{}", "x".repeat(2000));
        let kept = tail(Some(start));
        // Tests beside this one may log too.
        let line = kept.lines.iter().find(|line| line.text.starts_with("forged")).unwrap();
        assert_eq!((line.level.as_str(), line.text.contains(['\n', '\x1b'])), ("WARN", false));
        assert!(line.text.len() <= LONGEST && line.text.len() > LONGEST - 4);
        assert!(!texts(&kept).contains(&"not wanted"));
    }
}
