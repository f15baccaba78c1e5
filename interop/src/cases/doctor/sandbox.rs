//! A machine without what holds a daemon.

use super::{Findings, config, must, spec};
use crate::cases::Env;
use crate::cases::tunnel::Tunnel;
use crate::ferry::Mode;
use crate::{traffic, write_private};
use anyhow::{Context, Result, anyhow, ensure};
use ferry6::lab::article::BROKER_IPV6;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::time::Duration;

/// From here on this thread, and what it starts, is on a kernel that has neither landlock nor seccomp, as far as it can tell.
fn forget_sandboxes() -> Result<()> {
    let old_way =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::PR_SET_SECCOMP as u64)?;
    let rules = [
        (libc::SYS_landlock_create_ruleset, Vec::new()),
        (libc::SYS_seccomp, Vec::new()),
        (libc::SYS_prctl, vec![SeccompRule::new(vec![old_way])?]),
    ];
    let unknown = SeccompAction::Errno(nix::errno::Errno::ENOSYS as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules.into(), SeccompAction::Allow, unknown, arch)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}

/// What this starts finds neither.
fn without_sandboxes<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            forget_sandboxes()?;
            work()
        });
        thread.join().map_err(|_| anyhow!("the thread panicked"))?
    })
}

pub(super) fn case(env: &mut Env) -> Result<()> {
    let spec = spec(env)?;
    let broker = spec.start_broker(env)?;
    let client = without_sandboxes(|| spec.start_client(env))?;
    let mut tunnel = Tunnel { client, broker };
    traffic::wait_for_ping(&env.net.home, BROKER_IPV6.parse()?, Duration::from_secs(10))
        .with_context(|| tunnel.logs())?;
    // It says so, and works.
    let file = config(&tunnel, Mode::Client)?;
    let found = Findings::of(env, &env.net.home, Mode::Client, &file, &["sandbox"])?;
    found.must("sandbox", "warn", "landlock is not there, seccomp missing on")?;
    ensure!(found.well, "a daemon without a sandbox works");
    let log = tunnel.client.log();
    ensure!(log.contains("no seccomp filter on thread main") && log.contains("no landlock"), "{log}");
    tunnel.carries_traffic(env)?;

    let client = tunnel.client.ferry_mut()?;
    client.stop()?;
    // Before it runs, doctor asks the kernel itself.
    without_sandboxes(|| {
        must(env, &env.net.home, Mode::Client, &file, ("sandbox", "warn", "this kernel has no landlock"))
    })?;
    write_private(&file, &format!("sandbox = false\n{}", std::fs::read_to_string(&file)?))?;
    client.restart()?;
    must(env, &env.net.home, Mode::Client, &file, ("sandbox", "warn", "switched off in the configuration"))
}
