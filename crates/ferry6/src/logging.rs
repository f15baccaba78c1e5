//! The log: one line per event on stderr, short, with no colours where nobody looks (journald, a file).

use std::io::IsTerminal;
use std::str::FromStr;
use tracing_subscriber::EnvFilter;

/// A log filter that was checked when the command line was read.
#[derive(Clone, Debug)]
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

/// Starts logging. A second call changes nothing.
pub fn init(filter: &Filter) {
    let terminal = std::io::stderr().is_terminal();
    let filter = EnvFilter::new(&filter.0);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(terminal);
    // systemd tells by JOURNAL_STREAM that its journal takes stderr; the journal has the time already.
    let result = if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().try_init()
    } else {
        builder.try_init()
    };
    if let Err(error) = result {
        tracing::debug!("log was started before: {error}");
    }
}
