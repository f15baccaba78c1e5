//! Another user: names and numbers, and the change.

use anyhow::{Context as _, bail};
use nix::unistd::{Gid, Group, Uid, geteuid, setgroups, setresgid, setresuid};

/// The users that a daemon takes by itself, where the system has one.
const OWN: [&str; 2] = ["ferry6", "_ferry6"];

/// A user of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name, or number where it has none.
    pub name: String,
    /// User ID.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

/// Whose rights the daemon has after set-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// The configuration's user.
    Configured(User),
    /// A user of the daemon's own, which the system has.
    Own(User),
    /// Nobody was named, and the system has no user for ferry6: the one that started it.
    Same,
}

impl RunAs {
    /// What is done without `user` in the configuration.
    pub fn by_default() -> Self {
        OWN.iter().find_map(|name| User::named(name).ok()).map_or(Self::Same, Self::Own)
    }

    /// The user to become, where this process is root and that is another one.
    pub fn other(&self) -> Option<&User> {
        match self {
            Self::Configured(user) | Self::Own(user) => {
                Some(user).filter(|u| geteuid().is_root() && u.uid != 0)
            }
            Self::Same => None,
        }
    }
}

impl User {
    /// By name or number.
    ///
    /// # Errors
    /// There is none, and how to make it.
    pub fn named(name: &str) -> Result<Self, String> {
        let fault = |e: nix::errno::Errno| format!("the user {name:?} cannot be looked up: {e}");
        if let Ok(uid) = name.parse::<u32>() {
            let known = nix::unistd::User::from_uid(Uid::from_raw(uid)).map_err(fault)?;
            let gid = known.map_or(uid, |user| user.gid.as_raw());
            return Ok(Self { name: name.to_owned(), uid, gid });
        }
        match nix::unistd::User::from_name(name).map_err(fault)? {
            Some(user) => Ok(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
            None => Err(format!(
                "this system has no user {name:?}; make it: useradd --system --no-create-home --shell /usr/sbin/nologin {name}"
            )),
        }
    }
}

/// A group's number by its name or number.
///
/// # Errors
/// There is none.
pub fn group(name: &str) -> Result<u32, String> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    match Group::from_name(name).map_err(|e| format!("the group {name:?} cannot be looked up: {e}"))? {
        Some(group) => Ok(group.gid.as_raw()),
        None => Err(format!("this system has no group {name:?}; make it: groupadd --system {name}")),
    }
}

/// The user's name, or its number.
pub(super) fn name(uid: Uid) -> String {
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// Takes another user's rights for good, but keeps the capabilities.
pub(super) fn become_user(run_as: &RunAs) -> anyhow::Result<()> {
    let Some(user) = run_as.other() else {
        match run_as {
            RunAs::Same if geteuid().is_root() => tracing::warn!(
                "the process stays root, if without root's capabilities: this system has no user ferry6. Make it \
                 (useradd --system --no-create-home --shell /usr/sbin/nologin ferry6), or set user = \"..\""
            ),
            RunAs::Configured(user) if user.uid != geteuid().as_raw() => {
                bail!(
                    "cannot become user {}: only root can; start ferry6 as root, or leave `user` out",
                    user.name
                )
            }
            _ => {}
        }
        return Ok(());
    };
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let change = || -> anyhow::Result<()> {
        // Otherwise the kernel takes all capabilities with user 0.
        caps::securebits::set_keepcaps(true)?;
        setgroups(&[gid])?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        caps::securebits::set_keepcaps(false)?;
        Ok(())
    };
    change().with_context(|| format!("cannot become user {} ({uid}, group {gid})", user.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_name_and_number() {
        let root = User { name: "root".into(), uid: 0, gid: 0 };
        assert_eq!(User::named("root"), Ok(root.clone()));
        assert_eq!(User::named("0"), Ok(User { name: "0".into(), ..root.clone() }));
        assert_eq!(
            User::named("4000000"),
            Ok(User { name: "4000000".into(), uid: 4_000_000, gid: 4_000_000 })
        );
        let error = User::named("no-such-user").unwrap_err();
        assert!(error.contains("useradd --system") && error.contains("no-such-user"), "{error}");
        assert_eq!(group("root"), Ok(0));
        assert_eq!(group("17"), Ok(17));
        assert!(group("no-such-group").unwrap_err().contains("groupadd"));
        assert_eq!(RunAs::Configured(root).other(), None, "root need not become root");
        assert_eq!(RunAs::Same.other(), None);
    }
}
