//! The system calls below the laboratory: namespaces, mounts, and the processes inside.
#![allow(unsafe_code)]

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Runs `work` on a thread of its own, so that the namespaces it enters are its alone.
pub(super) fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A new network namespace, held by the descriptor alone.
pub(super) fn new_netns() -> io::Result<OwnedFd> {
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    })
}

/// Moves the calling thread into a network namespace.
pub(super) fn enter_netns(netns: impl AsFd) -> io::Result<()> {
    Ok(setns(netns, CloneFlags::CLONE_NEWNET)?)
}

/// Runs `work` in a network namespace.
pub(super) fn in_netns<T: Send>(
    netns: &OwnedFd,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    on_own_thread(|| {
        enter_netns(netns)?;
        work()
    })
}

/// A new mount namespace, from which nothing propagates, held by the descriptor alone.
pub(super) fn new_mntns() -> io::Result<OwnedFd> {
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        make_mounts_private()?;
        Ok(File::open("/proc/thread-self/ns/mnt")?.into())
    })
}

/// Mounts of this mount namespace no longer propagate to others.
pub(super) fn make_mounts_private() -> io::Result<()> {
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?)
}

/// Binds `source` over `target`, or mounts an empty tmpfs there without `source`.
pub(super) fn mount_in(mntns: &OwnedFd, source: Option<&Path>, target: &Path) -> io::Result<()> {
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_FS)?;
        setns(mntns, CloneFlags::CLONE_NEWNS)?;
        match source {
            Some(source) => {
                mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
            }
            None => mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?,
        }
        Ok(())
    })
}

/// Lets the command's process run in these namespaces. With `die_with_thread`, it is killed when the thread that spawned it
/// ends: the only thing the kernel offers to a process that has no PID namespace of its own.
pub(super) fn run_in(
    command: &mut Command,
    netns: Arc<impl AsFd + Send + Sync + 'static>,
    mntns: Option<Arc<OwnedFd>>,
    die_with_thread: bool,
) {
    let enter = move || {
        if die_with_thread {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        }
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
        if let Some(mntns) = &mntns {
            // setns(2) moves the working directory to the root; the caller's stays.
            let mut directory = [0u8; libc::PATH_MAX as usize];
            // SAFETY: the buffer is writable for the length given, and outlives the call.
            let known = unsafe { !libc::getcwd(directory.as_mut_ptr().cast(), directory.len()).is_null() };
            setns(mntns, CloneFlags::CLONE_NEWNS)?;
            if known {
                // SAFETY: getcwd(3) wrote a string that ends in NUL. A directory hidden by a mount is no error.
                unsafe { libc::chdir(directory.as_ptr().cast()) };
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only system calls: no allocation, no lock.
    unsafe { command.pre_exec(enter) };
}

/// Lets the command's process start with no signal blocked, and be killed when this thread ends.
pub(super) fn die_with_parent(command: &mut Command) {
    let prepare = || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        nix::sys::signal::SigSet::empty().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(prepare) };
}

/// What tells a namespace from others: device and inode of its file.
pub(super) type NamespaceId = (u64, u64);

/// The identity of an open namespace.
pub(super) fn namespace_id(namespace: &OwnedFd) -> io::Result<NamespaceId> {
    let meta = std::fs::metadata(format!("/proc/self/fd/{}", namespace.as_raw_fd()))?;
    Ok((meta.dev(), meta.ino()))
}

/// Kills each process that lives in one of the network namespaces.
pub(super) fn kill_processes_in(namespaces: &[NamespaceId]) {
    // Where /proc shows other numbers than ours (no mount of our PID namespace's), it names the wrong processes.
    let own = std::process::id();
    if std::fs::read_link("/proc/self").ok().and_then(|p| p.to_str()?.parse().ok()) != Some(own) {
        return;
    }
    // A process may fork while we look: again, until there is none left.
    for _ in 0..100 {
        let mut found = false;
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            if pid == own {
                continue;
            }
            // The descriptor comes first: the check and the signal then are about one and the same process.
            let Ok(process) = open_pid(pid) else { continue };
            let Ok(meta) = std::fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
            if namespaces.contains(&(meta.dev(), meta.ino())) {
                found = true;
                kill(&process);
            }
        }
        if !found {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn open_pid(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn kill(process: &OwnedFd) {
    // SAFETY: pidfd_send_signal(2) with no siginfo; a process that has ended is an error that does not matter.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
}
