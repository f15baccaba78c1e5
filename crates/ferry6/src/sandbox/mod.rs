//! Least privilege: what a daemon gives away once device, ports, sockets and stores are open.
//!
//! All set-up is done with the rights that the process was started with, in one thread. Then, in this order: another
//! user, all capabilities but CAP_NET_ADMIN, no way back (`no_new_privs`), no core dumps, landlock. The threads start
//! only after that, so they inherit it all; each gives away the system calls that it doesn't need, by a seccomp filter
//! of its kind. docs/security.md tells what each measure stops.

mod files;
mod syscalls;
mod trap;
mod user;

pub use files::{Files, has_landlock};
pub use syscalls::Kind;
pub use user::{RunAs, User, group};

use anyhow::Context as _;
use caps::{CapSet, Capability, CapsHashSet};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What the configuration says of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Whose rights it has after set-up.
    pub run_as: RunAs,
    /// A group whose members may use the control socket, by its number.
    pub control_group: Option<u32>,
    /// Whether landlock and seccomp are used where the kernel has them.
    pub sandbox: bool,
}

impl Process {
    /// Nothing changes.
    pub fn unchanged() -> Self {
        Self { run_as: RunAs::Same, control_group: None, sandbox: true }
    }
}

/// What is in force, as `ferry6 status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityStatus {
    /// The user's name, or number.
    pub user: String,
    /// Effective user ID.
    pub uid: u32,
    /// Effective group ID.
    pub gid: u32,
    /// Effective capabilities.
    pub capabilities: Vec<String>,
    /// Whether no program can give back what was given away.
    pub no_new_privs: bool,
    /// ABI of landlock in force; `None` without.
    pub landlock: Option<i32>,
    /// By name of the thread: whether a seccomp filter is in force.
    pub seccomp: BTreeMap<String, bool>,
    /// Whether the process may be dumped or traced.
    pub dumpable: bool,
}

/// The process after [`confine`]. Clones share what they know of the threads.
#[derive(Clone, Debug)]
pub struct Confined {
    seccomp: bool,
    landlock: Option<Arc<files::InForce>>,
    threads: Arc<Mutex<BTreeMap<String, bool>>>,
}

/// Gives away what is not needed any more. To be called while there is one thread, after all set-up.
///
/// # Errors
/// A right that must go and can't: the process must not go on then.
pub fn confine(process: &Process, files: &Files) -> anyhow::Result<Confined> {
    // What libraries do once, at their first use: AWS-LC looks for a virtual machine's generation counter.
    let _ = ferry6_crypto::aws_lc::PROVIDER.groups.initiate(ferry6_crypto::Group::X25519);
    confine_keeping(process, files, &[Capability::CAP_NET_ADMIN])
}

/// The same for a process that only asks daemons: it keeps no capability at all.
///
/// # Errors
/// A right that must go and can't: the process must not go on then.
pub fn confine_viewer(process: &Process, files: &Files) -> anyhow::Result<Confined> {
    confine_keeping(process, files, &[])
}

fn confine_keeping(process: &Process, files: &Files, keep: &[Capability]) -> anyhow::Result<Confined> {
    // Before the change of user, which takes CAP_SETPCAP out of the effective set.
    bound(keep);
    user::become_user(&process.run_as)?;
    keep_only(keep)?;
    nix::sys::prctl::set_no_new_privs().context("cannot set no_new_privs")?;
    // Another user resets it.
    nix::sys::prctl::set_dumpable(false).context("cannot switch core dumps off")?;
    let landlock = if process.sandbox { files.enforce() } else { None };
    if !process.sandbox {
        tracing::warn!("sandbox = false: neither landlock nor seccomp holds this process");
    }
    Ok(Confined { seccomp: process.sandbox, landlock: landlock.map(Arc::new), threads: Arc::default() })
}

/// Takes all others out of the bounding set, where that is permitted. It is of no use to a process that never executes
/// another program, but who looks at the process need not know that.
fn bound(keep: &[Capability]) {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        for capability in caps::all().into_iter().filter(|c| !keep.contains(c)) {
            // Those that this kernel does not know.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
}

/// Drops every capability but these.
fn keep_only(wanted: &[Capability]) -> anyhow::Result<()> {
    let held = caps::read(None, CapSet::Permitted).context("cannot read the capabilities")?;
    let keep: CapsHashSet = wanted.iter().copied().filter(|c| held.contains(c)).collect();
    // A kernel before 4.3 has none.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).context("cannot drop capabilities")?;
    caps::set(None, CapSet::Effective, &keep).context("cannot drop capabilities")?;
    caps::set(None, CapSet::Permitted, &keep).context("cannot drop capabilities")
}

impl Confined {
    /// Gives away the system calls that a thread of this kind does not make. To be called once by each thread.
    pub fn this_thread(&self, kind: Kind) {
        let current = std::thread::current();
        let name = current.name().unwrap_or("unnamed").to_owned();
        let filtered = self.seccomp
            && match syscalls::filter(kind) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!("no seccomp filter on thread {name}: {error}");
                    false
                }
            };
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), filtered);
        #[cfg(debug_assertions)]
        fault::inject(&name);
    }

    /// What is in force now, as the kernel tells.
    pub fn status(&self) -> SecurityStatus {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
        let mut capabilities: Vec<String> = effective.iter().map(ToString::to_string).collect();
        capabilities.sort();
        SecurityStatus {
            user: user::name(uid),
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            capabilities,
            no_new_privs: nix::sys::prctl::get_no_new_privs().unwrap_or(false),
            landlock: self.landlock.as_ref().map(|l| l.abi),
            seccomp: self.threads.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            dumpable: nix::sys::prctl::get_dumpable().unwrap_or(true),
        }
    }
}

impl SecurityStatus {
    /// In one line.
    pub fn line(&self) -> String {
        let mut parts = vec![format!("user {}", self.user)];
        match (self.uid, self.capabilities.len()) {
            (_, 0) => parts.push("no capability".to_owned()),
            (_, 1..=8) => parts.push(self.capabilities.join(" ")),
            (_, many) => parts.push(format!("{many} capabilities")),
        }
        parts.push(if self.no_new_privs { "no_new_privs" } else { "new privileges possible" }.to_owned());
        parts.push(self.landlock.map_or("no landlock".to_owned(), |abi| format!("landlock ABI {abi}")));
        let filtered = self.seccomp.values().filter(|f| **f).count();
        parts.push(match (filtered, self.seccomp.len()) {
            (0, _) => "no seccomp".to_owned(),
            (some, all) if some == all => format!("seccomp on all {all} threads"),
            (some, all) => format!("seccomp on {some} of {all} threads"),
        });
        parts.push(if self.dumpable { "core dumps possible" } else { "no core dumps" }.to_owned());
        parts.join(", ")
    }
}

/// Gives a file or directory that this process made, or that is the state of its daemon, to the user that it will run
/// as. A symbolic link is not followed.
pub fn give(path: &Path, run_as: &RunAs) {
    if let Some(user) = run_as.other()
        && let Err(error) = std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))
    {
        tracing::warn!("{} does not go to user {}: {error}", path.display(), user.name);
    }
}

/// Opens a file of the daemon's state, or makes it, its owner's alone. The directory belongs to a user with fewer rights
/// than we have at set-up, so a symbolic link that stands there is not followed.
///
/// # Errors
/// Those of `open`.
pub fn open_state(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path)
}

/// A place in the middle of the work where a test may let the daemon fail.
pub(crate) fn fault_point(_place: &str) {
    #[cfg(debug_assertions)]
    fault::inject(_place);
}

/// Faults on purpose, for the tests that show that each measure holds. Not in a release build.
#[cfg(debug_assertions)]
mod fault {
    /// `FERRY6_TEST_FAULT=in-0:open` lets the thread `in-0` do at its start what an attacker in it would do; `lease:panic` fails
    /// where a lease is given.
    pub(super) fn inject(thread: &str) {
        let Ok(text) = std::env::var("FERRY6_TEST_FAULT") else { return };
        let Some((_, fault)) = text.split_once(':').filter(|(name, _)| *name == thread) else { return };
        match fault.split_once('=').unwrap_or((fault, "")) {
            ("panic", _) => panic!("a fault on purpose"),
            ("hang", seconds) => {
                std::thread::sleep(std::time::Duration::from_secs(seconds.parse().unwrap_or(60)));
            }
            ("open", path) => tracing::error!("fault: open {path}: {:?}", std::fs::File::open(path).err()),
            ("write", path) => tracing::error!("fault: write {path}: {:?}", std::fs::write(path, "").err()),
            ("execute", path) => {
                tracing::error!(
                    "fault: execute {path}: {:?}",
                    std::process::Command::new(path).status().err()
                );
            }
            ("become-root", _) => {
                let root = nix::unistd::setresuid(0.into(), 0.into(), 0.into());
                tracing::error!("fault: become root: {root:?}");
            }
            (other, _) => panic!("no such fault: {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_status() {
        let mut status = SecurityStatus {
            user: "ferry6".into(),
            uid: 997,
            gid: 997,
            capabilities: vec!["CAP_NET_ADMIN".into()],
            no_new_privs: true,
            landlock: Some(7),
            seccomp: [("main".to_owned(), true), ("in-0".to_owned(), true)].into(),
            dumpable: false,
        };
        assert_eq!(
            status.line(),
            "user ferry6, CAP_NET_ADMIN, no_new_privs, landlock ABI 7, seccomp on all 2 threads, no core dumps"
        );
        status.seccomp.insert("out-0".into(), false);
        status.landlock = None;
        assert_eq!(
            status.line(),
            "user ferry6, CAP_NET_ADMIN, no_new_privs, no landlock, seccomp on 2 of 3 threads, no core dumps"
        );
        let nothing = SecurityStatus { user: "root".into(), dumpable: true, ..SecurityStatus::default() };
        assert_eq!(
            nothing.line(),
            "user root, no capability, new privileges possible, no landlock, no seccomp, core dumps possible"
        );
    }
}
