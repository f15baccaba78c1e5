//! A terminal to run programs in: tmux, with a server of its own.

use crate::{run, wait_until};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A program in a terminal; both end when this is dropped.
pub struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs a shell command in a terminal of this size. tmux's own socket is in `dir`.
    pub fn start(dir: &Path, size: (u16, u16), command: &str) -> Result<Self> {
        let this = Self { socket: dir.join("tmux").display().to_string() };
        let (width, height) = (size.0.to_string(), size.1.to_string());
        let words = ["new-session", "-d", "-s", "case", "-x", &width, "-y", &height, command];
        this.tmux(&words).context("tmux (Debian's package of that name) is needed")?;
        Ok(this)
    }

    fn tmux(&self, words: &[&str]) -> Result<String> {
        let mut tmux = Command::new("tmux");
        // No configuration but its own; UTF-8 whatever the locale says.
        tmux.args(["-u", "-f", "/dev/null", "-S", &self.socket]).args(words);
        run(&mut tmux, &format!("tmux {}", words.join(" ")))
    }

    /// What is to be seen.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-t", "case"])
    }

    /// The same with its colours.
    pub fn coloured(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e", "-t", "case"])
    }

    /// Presses keys, by tmux's names for them.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys", "-t", "case"], keys].concat()).map(drop)
    }

    /// Another size.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-t", "case", "-x", &width, "-y", &height]).map(drop)
    }

    /// Waits until the screen has all these words, and shows it where it does not get them.
    pub fn wait_for(&self, words: &[&str]) -> Result<String> {
        let what = format!("the screen shows {words:?}");
        self.wait_until(&what, |screen| words.iter().all(|word| screen.contains(word)))
    }

    /// Waits until the screen is as it should be.
    pub fn wait_until(&self, what: &str, mut right: impl FnMut(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        let waited = wait_until(what, Duration::from_secs(15), || {
            last = self.screen()?;
            Ok(right(&last))
        });
        match waited {
            Ok(()) => Ok(last),
            Err(error) => bail!("{error:#}; it shows:\n{last}"),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
