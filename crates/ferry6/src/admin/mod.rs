//! A broker and its users by short commands: `broker init`, `invite`, `sign`, `list`, `show`, `revoke`, `disable`, `enable`, `set`, `usage`, and on the other side
//! `client join`, `up`, `down`, `status`.
//!
//! [`site`] is the broker's directory, [`invitation`] the one file that goes to a user, [`tunnels`] what a user joined.

pub mod accounts;
mod ask;
pub mod init;
pub mod invitation;
pub mod invite;
pub mod join;
pub mod profiles;
pub mod settings;
pub mod site;
pub mod swanctl;
pub mod tunnels;
pub mod users;

use crate::cli::UsageError;
use site::Site;
use std::path::{Path, PathBuf};

/// Where broker and clients keep what they need, unless told otherwise.
pub const DIRECTORY: &str = "/etc/ferry6";

/// Where the broker is.
#[derive(Debug, clap::Args)]
struct Place {
    /// The broker's directory.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    dir: PathBuf,
}

impl Place {
    /// The broker's directory, where there is a broker.
    fn site(&self) -> anyhow::Result<Site> {
        let site = Site::new(&self.dir);
        site.offer()?;
        Ok(site)
    }
}

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

/// A time's length, for the eye.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
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
