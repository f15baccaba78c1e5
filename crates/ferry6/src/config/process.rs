//! Whose rights the daemon has, and what holds it. The same on both sides.

use super::reader::Section;
use crate::sandbox::{self, Process, RunAs, User};

/// Reads the keys at the top of the file.
pub(super) fn read(root: &Section<'_>) -> Process {
    let user = root.scalar("user", "a user's name or number", User::named);
    let group = root.scalar("control_group", "a group's name or number", sandbox::group);
    Process {
        run_as: user.map_or_else(RunAs::by_default, |found| RunAs::Configured(found.value)),
        control_group: group.map(|found| found.value),
        sandbox: root.flag("sandbox").is_none_or(|found| found.value),
    }
}
