//! Seccomp: which system calls a thread may still make.
//!
//! The lists say what is allowed; everything else ends the process (see [`super::trap`]), because a thread that asks for
//! something else is not ours any more. They were drawn up from traces and from the sources of glibc, and each entry
//! says what it is for. Who adds a system call to a thread adds it here.

use super::trap;
use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A worker: packets between descriptors that are open already.
    Worker,
    /// The control thread: IKE's sockets, and a broker's store of leases.
    Control,
    /// The main thread: netlink, control socket, names, sysctls.
    Main,
}

/// What each thread's memory, locks, clock, log and end need.
const EVERYWHERE: &[libc::c_long] = &[
    // memory; mmap and mprotect are below
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // locks and waiting
    libc::SYS_clock_nanosleep,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    // where the vDSO has none
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    // randomness
    libc::SYS_getrandom,
    // eventfd, the TUN queue, the log
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // UDP
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    // descriptors at the end
    libc::SYS_close,
    libc::SYS_fcntl,
    // the end of a thread, by itself or by abort
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
];

/// The control thread, beyond that.
const CONTROL: &[libc::c_long] = &[
    // the event loop
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    // IKE's sockets, and the one that tells which address the kernel would send from
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // the store of leases, whose file is open
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    // its length, when it grows: std asks by statx with an empty path
    libc::SYS_statx,
];

/// The main thread, beyond that; its short-lived helpers (the resolver) inherit it.
const MAIN: &[libc::c_long] = &[
    // helper threads
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_prctl,
    libc::SYS_set_tid_address,
    // files, of those that landlock leaves: sysctls, state, certificates, the resolver's
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_renameat2,
    libc::SYS_renameat,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    // netlink, the control socket, the resolver
    libc::SYS_accept4,
    libc::SYS_listen,
    libc::SYS_pipe2,
    libc::SYS_socketpair,
    // who we are
    libc::SYS_capget,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getppid,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getuid,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Those that newer architectures do not have any more.
#[cfg(target_arch = "x86_64")]
mod old {
    pub(super) const EVERYWHERE: &[libc::c_long] = &[libc::SYS_poll, libc::SYS_time];
    pub(super) const CONTROL: &[libc::c_long] = &[libc::SYS_epoll_wait];
    pub(super) const MAIN: &[libc::c_long] = &[
        libc::SYS_access,
        libc::SYS_chmod,
        libc::SYS_dup2,
        libc::SYS_lstat,
        libc::SYS_mkdir,
        libc::SYS_open,
        libc::SYS_readlink,
        libc::SYS_rename,
        libc::SYS_select,
        libc::SYS_stat,
        libc::SYS_unlink,
    ];
}
#[cfg(not(target_arch = "x86_64"))]
mod old {
    pub(super) const EVERYWHERE: &[libc::c_long] = &[];
    pub(super) const CONTROL: &[libc::c_long] = &[];
    pub(super) const MAIN: &[libc::c_long] = &[];
}

/// A condition on an argument of 32 bits.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> anyhow::Result<SeccompCondition> {
    Ok(SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?)
}

fn all_of(conditions: Vec<SeccompCondition>) -> anyhow::Result<SeccompRule> {
    Ok(SeccompRule::new(conditions)?)
}

/// The filter of a kind of thread.
fn program(kind: Kind) -> anyhow::Result<BpfProgram> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let lists: &[&[libc::c_long]] = match kind {
        Kind::Worker => &[EVERYWHERE, old::EVERYWHERE],
        Kind::Control => &[EVERYWHERE, old::EVERYWHERE, CONTROL, old::CONTROL],
        Kind::Main => &[EVERYWHERE, old::EVERYWHERE, CONTROL, old::CONTROL, MAIN, old::MAIN],
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        lists.iter().flat_map(|list| list.iter()).map(|call| (*call, Vec::new())).collect();
    let mut limited = |call: libc::c_long, any_of: Vec<SeccompRule>| {
        rules.insert(call, any_of);
    };
    // Memory is data: only the main thread's resolver loads code.
    let executable = libc::PROT_EXEC as u64;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let data = vec![all_of(vec![argument(2, MaskedEq(executable), 0)?])?];
        limited(call, if kind == Kind::Main { Vec::new() } else { data });
    }
    let requests = [libc::TUNSETQUEUE, libc::FIONBIO, libc::FIONREAD];
    let ioctl = match kind {
        Kind::Worker | Kind::Control => {
            requests.into_iter().map(|r| all_of(vec![argument(1, Eq, r)?])).collect::<Result<_, _>>()?
        }
        // All but those that type into the terminal.
        Kind::Main => vec![all_of(vec![argument(1, Ne, libc::TIOCSTI)?, argument(1, Ne, libc::TIOCLINUX)?])?],
    };
    limited(libc::SYS_ioctl, ioctl);
    let family = |f: libc::c_int| all_of(vec![argument(0, Eq, f as u64)?]);
    match kind {
        Kind::Worker => {
            // DF is an option of the socket.
            let df = argument(2, Eq, libc::IP_MTU_DISCOVER as u64)?;
            let df = all_of(vec![argument(1, Eq, libc::IPPROTO_IP as u64)?, df])?;
            limited(libc::SYS_setsockopt, vec![df]);
        }
        Kind::Control => limited(libc::SYS_socket, vec![family(libc::AF_INET)?, family(libc::AF_INET6)?]),
        Kind::Main => {
            limited(libc::SYS_prctl, vec![all_of(vec![argument(0, Ne, libc::PR_SET_DUMPABLE as u64)?])?]);
            let families = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX, libc::AF_NETLINK];
            limited(libc::SYS_socket, families.into_iter().map(family).collect::<Result<_, _>>()?);
        }
    }
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, architecture)?;
    Ok(filter.try_into()?)
}

/// Puts the filter in force for this thread, and those that it starts.
pub(super) fn filter(kind: Kind) -> anyhow::Result<()> {
    let program = program(kind)?;
    trap::install().context("SIGSYS")?;
    Ok(seccompiler::apply_filter(&program)?)
}
