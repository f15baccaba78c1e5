//! `[hooks]`: programs that a daemon runs with the rights that it was started with.

use super::reader::Section;
use crate::helper::check_hook;
use std::path::PathBuf;

/// A client's, for its tunnel; or a broker's, for each client's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// When the tunnel is up, or has another address.
    pub up: Option<PathBuf>,
    /// When it is down.
    pub down: Option<PathBuf>,
}

impl Hooks {
    pub(super) fn read(root: &Section<'_>) -> Self {
        let section = root.section("hooks");
        let hook = |key| {
            let document = root.document();
            // No file that is read again: not one of those that `path` names.
            let found = section.text(key)?.map(|file| document.directory().join(file));
            document.convert(found, |path| check_hook(path).map(|()| path.clone())).map(|f| f.value)
        };
        let hooks = Self { up: hook("up"), down: hook("down") };
        section.finish();
        hooks
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.up.is_none() && self.down.is_none()
    }
}
