//! Other processes of this machine, as /proc shows them.

use std::fs;
use std::path::PathBuf;

/// A process that shares our network namespace, as far as that can be seen.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// The kernel's name for it: at most 15 characters.
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
}

fn namespace(of: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{of}/ns/net")).ok()
}

/// All but ourselves.
fn everybody() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments = arguments.split(|b| *b == 0).filter(|a| !a.is_empty());
            let arguments = arguments.map(|a| String::from_utf8_lossy(a).into_owned()).collect();
            Some(Process { pid, name, arguments })
        })
        .collect()
}

/// Those that share our network namespace. What belongs to other users shows its namespace to root only, so that others see
/// their own.
pub(super) fn neighbours() -> Vec<Process> {
    let own = namespace("thread-self");
    let mut list = everybody();
    list.retain(|p| own.is_some() && namespace(&p.pid.to_string()) == own);
    list
}

/// Who has this socket open; root sees all, others their own.
pub(super) fn holders(inode: u64) -> Vec<Process> {
    let wanted = format!("socket:[{inode}]");
    let holds = |process: &Process| {
        let Ok(files) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else { return false };
        files.flatten().any(|f| fs::read_link(f.path()).is_ok_and(|to| to.to_str() == Some(&wanted)))
    };
    everybody().into_iter().filter(holds).collect()
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}
