//! What the demo prints: a line per step, and on a terminal the step that is under way.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// The steps so far.
pub(super) struct Report {
    terminal: bool,
    colour: bool,
    started: Instant,
    /// Label and text of the step under way.
    step: RefCell<Option<(String, String)>>,
}

const LABEL: usize = 13;

impl Report {
    pub(super) fn new() -> Report {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Report { terminal, colour, started: Instant::now(), step: RefCell::new(None) }
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn mark(&self, mark: &str, colour: u8) -> String {
        if self.colour { format!("\x1b[{colour}m{mark}\x1b[0m") } else { mark.to_owned() }
    }

    /// A step begins. Seen on a terminal only, until it ends.
    pub(super) fn begin(&self, label: &str, text: &str) {
        self.step.replace(Some((label.to_owned(), text.to_owned())));
        if self.terminal {
            self.print(format_args!("\r\x1b[K  {} {label:<LABEL$} {text}", self.mark("…", 36)));
        }
    }

    /// A step has ended well.
    pub(super) fn done(&self, label: &str, text: impl Display) {
        self.line(&self.mark("✓", 32), label, text);
    }

    /// Something is not as it could be, but goes on.
    pub(super) fn note(&self, label: &str, text: impl Display) {
        self.line(&self.mark("!", 33), label, text);
    }

    /// The step under way has failed; why is told elsewhere.
    pub(super) fn failed(&self) {
        if let Some((label, text)) = self.step.take() {
            self.line(&self.mark("✗", 31), &label, text);
        }
    }

    fn line(&self, mark: &str, label: &str, text: impl Display) {
        self.step.take();
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        self.print(format_args!("{start}  {mark} {label:<LABEL$} {text}\n"));
    }

    /// Text as it is, with its lines moved in.
    pub(super) fn text(&self, indent: usize, text: &str) {
        for line in text.lines() {
            let line = if line.is_empty() { "\n".into() } else { format!("{:indent$}{line}\n", "") };
            self.print(format_args!("{line}"));
        }
    }

    fn print(&self, text: std::fmt::Arguments<'_>) {
        // A closed pipe, as of `| head`, must not stop the demo from cleaning up.
        let mut out = std::io::stdout().lock();
        let _ = out.write_fmt(text).and_then(|()| out.flush());
    }
}
