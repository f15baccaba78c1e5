//! The process that holds a laboratory: PID 1 of a PID namespace, so that nothing outlives it.

use super::{Error, sys};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Tells the second run of this program that it is inside: `user` with a user namespace of its own, else `root`.
const MARK: &str = "FERRY6_LAB";

/// How long a stopped laboratory may take to end by itself.
const GRACE: Duration = Duration::from_secs(15);

/// Where this process stands.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// This process is PID 1 of a PID namespace: all that it started dies with it.
    pub own_pids: bool,
    /// This process has a user namespace of its own, in which it is root.
    pub user_namespace: bool,
    /// The PID of this process as the rest of the machine sees it.
    pub outer_pid: u32,
}

static SESSION: OnceLock<Session> = OnceLock::new();

/// Where this process stands; outside, where [`enter`] was not called.
pub fn session() -> Session {
    *SESSION.get_or_init(|| Session { own_pids: false, user_namespace: false, outer_pid: std::process::id() })
}

/// Runs this program again, with the same arguments, as PID 1 of a PID namespace, in a mount namespace and, for a plain user,
/// in a user namespace where it is root. Only the inner run returns; the outer one passes signals on, waits, and exits with
/// the inner one's code. Whatever ends either of the two, all processes inside end too.
///
/// To be called first thing in `main`, before there is any other thread. The inner run must handle SIGINT and SIGTERM itself: the
/// kernel ignores them for PID 1 where no handler is set, and then it is killed 15 s later.
///
/// # Errors
/// [`Error::Privilege`], with what to do.
pub fn enter() -> Result<(), Error> {
    if let (1, Ok(mark)) = (std::process::id(), std::env::var(MARK)) {
        return inside(mark == "user");
    }
    let code = outside().map_err(|e| Error::Privilege(hint(&e)))?;
    std::process::exit(code)
}

fn inside(user_namespace: bool) -> Result<(), Error> {
    let fail = |e| Error::new("lab", "prepare its mount namespace", e);
    // /proc is still the outer one, and tells our number there.
    let outer_pid = std::fs::read_link("/proc/self").ok().and_then(|p| p.to_str()?.parse().ok()).unwrap_or(1);
    SESSION.get_or_init(|| Session { own_pids: true, user_namespace, outer_pid });
    sys::make_mounts_private().map_err(fail)?;
    // Not permitted in some containers, where a part of /proc is covered. All works with the outer /proc, too.
    let _ =
        nix::mount::mount(Some("proc"), "/proc", Some("proc"), nix::mount::MsFlags::empty(), None::<&str>);
    Ok(())
}

fn outside() -> io::Result<i32> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    let user = match unshare(namespaces) {
        Ok(()) => false,
        Err(Errno::EPERM) => {
            unshare(namespaces | CloneFlags::CLONE_NEWUSER)?;
            std::fs::write("/proc/self/setgroups", "deny")?;
            std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
            true
        }
        Err(e) => return Err(e.into()),
    };
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let arriving = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;

    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(MARK, if user { "user" } else { "root" });
    sys::die_with_parent(&mut command);
    let mut child = command.spawn()?;
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);

    let mut deadline: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        }
        let wait = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            Some(Duration::ZERO) => {
                deadline = None;
                kill(pid, Signal::SIGKILL)?;
                continue;
            }
            Some(left) => PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut [PollFd::new(arriving.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        while let Some(info) = arriving.read_signal()? {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) | Err(_) => {}
                Ok(signal) => {
                    kill(pid, signal)?;
                    deadline.get_or_insert(Instant::now() + GRACE);
                }
            }
        }
    }
}

/// What to do about a refusal of the kernel.
pub(super) fn hint(error: &io::Error) -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|t| t.trim().to_owned());
    let advice = if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").is_some_and(|v| v != "0") {
        "AppArmor restricts user namespaces here: run it as root, or set kernel.apparmor_restrict_unprivileged_userns=0"
    } else if read("/proc/sys/kernel/unprivileged_userns_clone").is_some_and(|v| v == "0") {
        "user namespaces are for root only here: run it as root, or set kernel.unprivileged_userns_clone=1"
    } else if read("/proc/sys/user/max_user_namespaces").is_some_and(|v| v == "0") {
        "user namespaces are switched off here: run it as root, or set user.max_user_namespaces above 0"
    } else {
        match error.raw_os_error() {
            Some(libc::EPERM) => {
                "run it as root, or where user namespaces are permitted (not so in many containers)"
            }
            Some(libc::ENOSPC) => "the limit of namespaces is reached: see /proc/sys/user/max_*_namespaces",
            Some(libc::EINVAL | libc::ENOSYS) => {
                "this kernel lacks namespaces (CONFIG_NET_NS, CONFIG_PID_NS, CONFIG_USER_NS)"
            }
            _ => return error.to_string(),
        }
    };
    format!("{error}; {advice}")
}
