//! Exit codes: one list for the program, its documentation and its man pages.

use crate::leases::StoreError;
use std::fmt::Write as _;
use std::io::ErrorKind;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked to.
    Done = 0,
    /// It failed at run time.
    Failed = 1,
    /// Wrong usage or configuration. clap uses the same.
    Usage = 2,
    /// There is no daemon to ask.
    NoDaemon = 3,
    /// The system, or the daemon, does not permit it.
    NotPermitted = 4,
    /// Another one is there already.
    Busy = 5,
}

/// All of them, and when.
pub const CODES: &[(Exit, &str)] = &[
    (Exit::Done, "done"),
    (
        Exit::Failed,
        "failed at run time: what the line on stderr says; a disk that is full, a broker that does not answer, a tunnel that is not up",
    ),
    (
        Exit::Usage,
        "wrong usage or configuration: a flag, a name, a file that is missing or has a fault. To try again changes nothing",
    ),
    (Exit::NoDaemon, "no daemon is running: there is nobody on the control socket"),
    (Exit::NotPermitted, "not permitted: a right is missing (root, CAP_NET_ADMIN, a file's mode)"),
    (Exit::Busy, "another one is there already: a second daemon with the same socket, store or UDP port"),
];

/// An error that has an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// Which.
    pub exit: Exit,
    /// What to say.
    pub text: String,
}

/// There is nobody to ask.
pub fn no_daemon(text: String) -> anyhow::Error {
    Fault { exit: Exit::NoDaemon, text }.into()
}

/// A right is missing.
pub fn not_permitted(text: String) -> anyhow::Error {
    Fault { exit: Exit::NotPermitted, text }.into()
}

/// Another one is there.
pub fn busy(text: String) -> anyhow::Error {
    Fault { exit: Exit::Busy, text }.into()
}

/// The code for an error, by the first of its causes that has one.
pub fn code(error: &anyhow::Error) -> Exit {
    // Also where it is the context of another error.
    if error.is::<crate::cli::UsageError>() {
        return Exit::Usage;
    }
    if let Some(fault) = error.downcast_ref::<Fault>() {
        return fault.exit;
    }
    error.chain().find_map(of_cause).unwrap_or(Exit::Failed)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(fault) = cause.downcast_ref::<Fault>() {
        return Some(fault.exit);
    }
    if let Some(StoreError::InUse(_)) = cause.downcast_ref::<StoreError>() {
        return Some(Exit::Busy);
    }
    let kind = match cause.downcast_ref::<std::io::Error>() {
        Some(error) => error.kind(),
        None => std::io::Error::from(*cause.downcast_ref::<nix::errno::Errno>()?).kind(),
    };
    match kind {
        ErrorKind::PermissionDenied => Some(Exit::NotPermitted),
        ErrorKind::AddrInUse => Some(Exit::Busy),
        _ => None,
    }
}

/// The list as Markdown, for docs/configuration.md.
pub fn markdown() -> String {
    let mut out = "| code | when |\n|---|---|\n".to_owned();
    for (exit, when) in CODES {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {} | {when} |", *exit as u8);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::UsageError;
    use anyhow::Context as _;

    #[test]
    fn errors_have_their_codes_below_any_context() {
        let io = |kind: ErrorKind| anyhow::Error::from(std::io::Error::from(kind));
        for (error, exit) in [
            (anyhow::anyhow!("x"), Exit::Failed),
            (UsageError("x".into()).into(), Exit::Usage),
            (no_daemon("x".into()), Exit::NoDaemon),
            (busy("x".into()), Exit::Busy),
            (io(ErrorKind::PermissionDenied), Exit::NotPermitted),
            (nix::errno::Errno::EPERM.into(), Exit::NotPermitted),
            (io(ErrorKind::StorageFull), Exit::Failed),
            (io(ErrorKind::AddrInUse), Exit::Busy),
            (StoreError::InUse("x".into()).into(), Exit::Busy),
        ] {
            assert_eq!(code(&error), exit, "{error:?}");
            let wrapped = Err::<(), _>(error).context("more").context("and more").unwrap_err();
            assert_eq!(code(&wrapped), exit, "{wrapped:?}");
        }
    }

    #[test]
    fn the_list_is_whole_and_in_the_documentation() {
        for (n, (exit, _)) in CODES.iter().enumerate() {
            assert_eq!(*exit as usize, n);
        }
        let docs = include_str!("../../../docs/configuration.md");
        assert!(docs.contains(&markdown()), "docs/configuration.md lacks this list:\n{}", markdown());
    }
}
