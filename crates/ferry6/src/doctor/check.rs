//! What a check says.

use serde::Serialize;
use std::fmt::Write as _;

/// How it came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Nothing wrong.
    Ok,
    /// It works, but should be seen; or it may be the cause of something.
    Warn,
    /// It does not work, or cannot.
    Fail,
    /// It could not be looked at.
    Skipped,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skipped => "skipped",
        }
    }
}

/// One finding. A check that finds several things makes several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The check's name, as `--only` takes it.
    pub check: &'static str,
    /// How it came out.
    pub result: Outcome,
    /// What was seen; where it was skipped, why.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Collects the findings of one check.
#[derive(Debug)]
pub(super) struct Findings {
    name: &'static str,
    list: Vec<Check>,
}

impl Findings {
    pub(super) fn of(name: &'static str) -> Self {
        Self { name, list: Vec::new() }
    }

    fn push(&mut self, result: Outcome, text: String, hint: Option<String>) {
        self.list.push(Check { check: self.name, result, text, hint });
    }

    pub(super) fn ok(&mut self, text: impl Into<String>) {
        self.push(Outcome::Ok, text.into(), None);
    }

    pub(super) fn warn(&mut self, text: impl Into<String>, hint: impl Into<String>) {
        self.push(Outcome::Warn, text.into(), Some(hint.into()));
    }

    pub(super) fn fail(&mut self, text: impl Into<String>, hint: impl Into<String>) {
        self.push(Outcome::Fail, text.into(), Some(hint.into()));
    }

    pub(super) fn skip(&mut self, why: impl Into<String>) {
        self.push(Outcome::Skipped, why.into(), None);
    }

    /// Whether nothing was found so far.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many failed so far.
    pub(super) fn failures(&self) -> usize {
        self.list.iter().filter(|c| c.result == Outcome::Fail).count()
    }

    pub(super) fn into_list(self) -> Vec<Check> {
        self.list
    }
}

/// All findings about one configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `client` or `broker`.
    pub role: &'static str,
    /// The configuration.
    pub config: std::path::PathBuf,
    /// What was found, in the order of the checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether nothing failed.
    pub fn is_well(&self) -> bool {
        self.checks.iter().all(|c| c.result != Outcome::Fail)
    }

    /// For people: a line each, and an indented one for what to do.
    pub fn text(&self) -> String {
        let mut out = format!("ferry6 {} {}\n", self.role, self.config.display());
        let width = self.checks.iter().map(|c| c.check.len()).max().unwrap_or(0);
        for check in &self.checks {
            let word = check.result.word();
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  {word:<7}  {:<width$}  {}", check.check, one_line(&check.text));
            if let Some(hint) = &check.hint {
                let _ = writeln!(out, "  {:<7}  {:<width$}  -> {}", "", "", one_line(hint));
            }
        }
        let count = |outcome| self.checks.iter().filter(|c| c.result == outcome).count();
        let _ = writeln!(
            out,
            "{} failed, {} warn, {} ok, {} skipped",
            count(Outcome::Fail),
            count(Outcome::Warn),
            count(Outcome::Ok),
            count(Outcome::Skipped)
        );
        out
    }
}

/// Names out of DNS, certificates and other processes may hold anything: no control character reaches a terminal.
fn one_line(text: &str) -> String {
    text.trim().chars().map(|c| if c == '\n' { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut name = Findings::of("name");
        name.ok("tunnel.my.domain is 5.6.7.8");
        let mut port = Findings::of("udp-500");
        port.fail("nothing comes back\nfrom \u{1b}[31m5.6.7.8", "forward UDP 500");
        port.skip("no time");
        let checks = [name.into_list(), port.into_list()].concat();
        Report { role: "client", config: "client.toml".into(), checks }
    }

    #[test]
    fn lines_are_aligned_and_hold_no_control_characters() {
        let text = report().text();
        assert_eq!(
            text,
            "ferry6 client client.toml\n\
             \x20 ok       name     tunnel.my.domain is 5.6.7.8\n\
             \x20 FAIL     udp-500  nothing comes back from [31m5.6.7.8\n\
             \x20                   -> forward UDP 500\n\
             \x20 skipped  udp-500  no time\n\
             1 failed, 0 warn, 1 ok, 1 skipped\n"
        );
        assert!(!report().is_well());
    }

    #[test]
    fn json_has_names_that_scripts_can_use() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["checks"][1]["result"], "fail");
        assert_eq!(json["checks"][1]["check"], "udp-500");
        assert!(json["checks"][0].get("hint").is_none());
    }
}
