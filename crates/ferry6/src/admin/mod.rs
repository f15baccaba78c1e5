//! A broker and its users by short commands: `broker init`, `invite`, `sign`, `list`, `show`, `revoke`, and on the other side
//! `client join`, `up`, `down`, `status`.
//!
//! [`site`] is the broker's directory, [`invitation`] the one file that goes to a user, [`tunnels`] what a user joined.

pub mod init;
pub mod invitation;
pub mod invite;
pub mod join;
pub mod profiles;
pub mod site;
pub mod swanctl;
pub mod tunnels;
pub mod users;

use crate::cli::UsageError;
use std::path::Path;

/// Where broker and clients keep what they need, unless told otherwise.
pub const DIRECTORY: &str = "/etc/ferry6";

/// A user's or tunnel's name, which becomes a file's name: letters, digits, `.`, `_` and `-`, at most 63, not beginning with
/// `.` or `-`.
///
/// # Errors
/// The end of a sentence that begins with the name.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > 63 || !name.bytes().all(fits) || name.starts_with(['.', '-']) {
        return Err(format!(
            "{name:?} is no name for a user or tunnel: letters, digits, '.', '_' and '-', at most 63, beginning with a letter \
             or digit"
        ));
    }
    Ok(())
}

/// For clap.
fn parse_name(name: &str) -> Result<String, String> {
    check_name(name).map(|()| name.to_owned())
}

fn usage(text: impl Into<String>) -> anyhow::Error {
    UsageError(text.into()).into()
}

/// Makes a directory and those above it with this mode for new ones.
fn make_directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    use anyhow::Context as _;
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}

#[cfg(test)]
mod tests;
