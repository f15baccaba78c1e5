//! What the commands ask a running broker, and where its store answers while it does not run.

use super::site::{Site, User};
use crate::accounts::{self, Usage};
use crate::config::{self, values};
use crate::control::{Request, Response, connect};
use crate::exit;
use crate::leases::{self, LeaseStatus};
use anyhow::{Context as _, bail};
use redb::Database;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The control socket that the broker's configuration names.
pub(super) fn socket(site: &Site) -> PathBuf {
    config::control_socket(&site.configuration())
        .unwrap_or_else(|| Path::new(config::RUN_DIR).join("broker.sock"))
}

/// Has a running broker read its configuration anew, and shows what it says; false where none runs. `done` is what stands in any
/// case.
///
/// # Errors
/// It refused.
pub(super) fn reload(site: &Site, done: &str) -> anyhow::Result<bool> {
    let socket = socket(site);
    if UnixStream::connect(&socket).is_err() {
        return Ok(false);
    }
    let answer = connect::ask(&socket, &Request::Reload)
        .with_context(|| format!("{done}, but the running broker did not take it"))?;
    if let Response::Done(text) = answer {
        eprintln!("{text}");
    }
    Ok(true)
}

/// The leases, and whether the broker runs: of one that does not, its store tells.
pub(super) struct Leases {
    pub(super) running: bool,
    pub(super) list: Vec<LeaseStatus>,
}

/// What is known of leases.
///
/// # Errors
/// No right to ask, or a store that cannot be read.
pub(super) fn leases(site: &Site) -> anyhow::Result<Leases> {
    match connect::ask(&socket(site), &Request::Status) {
        Ok(Response::Status(status)) => {
            Ok(Leases { running: true, list: status.broker.map(|b| b.leases).unwrap_or_default() })
        }
        Ok(_) => bail!("the broker answered another question"),
        Err(error) if exit::code(&error) == exit::Exit::NoDaemon => {
            let list = match store(site)? {
                Some(store) => leases::stored(&store)?,
                None => Vec::new(),
            };
            Ok(Leases { running: false, list })
        }
        Err(error) => Err(error),
    }
}

/// The accounts, or that of one identity.
///
/// # Errors
/// As [`leases`].
pub(super) fn usage(site: &Site, who: Option<&str>) -> anyhow::Result<Vec<Usage>> {
    // As the store spells it.
    let who = who.and_then(|who| values::identity(who).ok()).map(|who| leases::identity_text(&who));
    match connect::ask(&socket(site), &Request::Usage { who: who.clone() }) {
        Ok(Response::Usage(list)) => Ok(list),
        Ok(_) => bail!("the broker answered another question"),
        Err(error) if exit::code(&error) == exit::Exit::NoDaemon => match store(site)? {
            Some(store) => Ok(accounts::read(&store, who.as_deref())?),
            None => Ok(Vec::new()),
        },
        Err(error) => Err(error),
    }
}

/// Whether a user has a tunnel now; `None` where the broker does not run.
pub(super) fn is_online(site: &Site, user: &User) -> Option<bool> {
    let leases = leases(site).ok().filter(|l| l.running)?;
    Some(leases.list.iter().any(|l| user.is(&l.identity) && !l.ike.is_empty()))
}

/// The store of a broker that does not run; `None` where there is none yet.
fn store(site: &Site) -> anyhow::Result<Option<Database>> {
    let path = config::state_dir(&site.configuration()).join(leases::FILE);
    match path.symlink_metadata() {
        Ok(_) => Ok(Some(leases::open_store(&path)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(exit::not_permitted(format!("{}: not permitted; ask as root", path.display())))
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
