//! The broker's DNS servers, through systemd-resolved or resolvconf.

use std::ffi::OsStr;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

/// How the servers that the broker tells are set (`tunnel.dns`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Through whichever is there, else not at all.
    Auto,
    /// Through systemd-resolved.
    Resolved,
    /// Through resolvconf, Debian's or openresolv.
    Resolvconf,
    /// Not.
    Off,
}

/// What sets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Resolved,
    Resolvconf,
}

/// A program with its arguments, and what it reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) program: &'static str,
    pub(super) arguments: Vec<String>,
    pub(super) input: String,
}

impl Mode {
    /// As in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Resolved => "resolved",
            Self::Resolvconf => "resolvconf",
            Self::Off => "off",
        }
    }

    /// What sets DNS by this mode on this machine; `None` where nothing is to.
    pub(super) fn find(self) -> Result<Option<Tool>, String> {
        let resolved = in_path("resolvectl").is_some() && Path::new("/run/systemd/resolve").is_dir();
        let resolvconf = in_path("resolvconf").is_some();
        match self {
            Self::Auto if resolved => Ok(Some(Tool::Resolved)),
            Self::Auto if resolvconf => Ok(Some(Tool::Resolvconf)),
            Self::Auto | Self::Off => Ok(None),
            Self::Resolved if resolved => Ok(Some(Tool::Resolved)),
            Self::Resolved => Err("systemd-resolved does not run here, or there is no resolvectl".to_owned()),
            Self::Resolvconf if resolvconf => Ok(Some(Tool::Resolvconf)),
            Self::Resolvconf => Err("there is no resolvconf in PATH".to_owned()),
        }
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

impl Tool {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Resolvconf => "resolvconf",
        }
    }

    pub(super) fn of_word(word: &str) -> Option<Self> {
        [Self::Resolved, Self::Resolvconf].into_iter().find(|tool| tool.word() == word)
    }

    /// What sets these servers for an interface.
    pub(super) fn set(self, interface: &str, dns: &[Ipv6Addr]) -> Vec<Call> {
        match self {
            // Beside the servers of other links, not in their place: the tunnel carries IPv6 alone, and names of the local network are
            // known to the local server only. So no domain `~.`, which would take all questions from it.
            Self::Resolved => {
                let servers = dns.iter().map(ToString::to_string);
                vec![
                    call(
                        "resolvectl",
                        ["dns".to_owned(), interface.to_owned()].into_iter().chain(servers),
                        "",
                    ),
                    call("resolvectl", ["default-route", interface, "true"], ""),
                ]
            }
            Self::Resolvconf => {
                let servers: String = dns.iter().map(|a| format!("nameserver {a}\n")).collect();
                vec![call("resolvconf", ["-a".to_owned(), record(interface)], &servers)]
            }
        }
    }

    /// What takes them away.
    pub(super) fn revert(self, interface: &str) -> Vec<Call> {
        match self {
            Self::Resolved => vec![call("resolvectl", ["revert", interface], "")],
            Self::Resolvconf => vec![call("resolvconf", ["-d".to_owned(), record(interface)], "")],
        }
    }
}

/// Debian's form of a record's name: interface and program. resolvectl, where it stands in for resolvconf, knows it too.
fn record(interface: &str) -> String {
    format!("{interface}.ferry6")
}

fn call<S: AsRef<OsStr>>(program: &'static str, arguments: impl IntoIterator<Item = S>, input: &str) -> Call {
    let arguments = arguments.into_iter().map(|a| a.as_ref().to_string_lossy().into_owned()).collect();
    Call { program, arguments, input: input.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called() {
        let dns = ["2a00::2".parse().unwrap(), "2a00::3".parse().unwrap()];
        let lines = |calls: Vec<Call>| -> Vec<String> {
            calls.iter().map(|c| format!("{} {} <{}", c.program, c.arguments.join(" "), c.input)).collect()
        };
        assert_eq!(
            lines(Tool::Resolved.set("ferry0", &dns)),
            ["resolvectl dns ferry0 2a00::2 2a00::3 <", "resolvectl default-route ferry0 true <"]
        );
        assert_eq!(lines(Tool::Resolved.revert("ferry0")), ["resolvectl revert ferry0 <"]);
        assert_eq!(
            lines(Tool::Resolvconf.set("ferry0", &dns)),
            ["resolvconf -a ferry0.ferry6 <nameserver 2a00::2\nnameserver 2a00::3\n"]
        );
        assert_eq!(lines(Tool::Resolvconf.revert("ferry0")), ["resolvconf -d ferry0.ferry6 <"]);
    }
}
