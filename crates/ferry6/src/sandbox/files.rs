//! Landlock: which files may still be opened.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The newest ABI that these rules were written for; on an older kernel less is in force.
const WRITTEN_FOR: ABI = ABI::V6;

/// Files and directories that a daemon opens after set-up. All else is out of reach, whatever their modes allow.
#[derive(Clone, Debug, Default)]
pub struct Files {
    readable: Vec<PathBuf>,
    writable: Vec<PathBuf>,
}

/// The rules, in force for as long as this is kept.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) abi: i32,
    /// A rule is tied to an inode. Those below /proc/sys exist only while somebody holds them.
    _held: Vec<File>,
}

impl Files {
    /// Nothing but what every daemon needs: the sysctls of IPv6 interfaces.
    pub fn new() -> Self {
        Self::default().write("/proc/sys/net/ipv6/conf")
    }

    /// A file, or all that is below a directory, may be read.
    #[must_use]
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.readable.push(path.into());
        self
    }

    /// The same for several.
    #[must_use]
    pub fn read_all<'a>(self, paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        paths.into_iter().cloned().fold(self, Self::read)
    }

    /// A file, or all that is below a directory, may be read, written, made and removed.
    #[must_use]
    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.writable.push(path.into());
        self
    }

    /// What a resolver reads: its files change while the daemon runs, by a new file in the place of the old one, so
    /// the directories count; and the modules that it loads.
    #[must_use]
    pub fn resolver(self) -> Self {
        let directories =
            ["/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman"];
        let modules = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo"];
        directories.into_iter().chain(modules).fold(self, Self::read)
    }

    /// Puts the rules in force, as far as this kernel has landlock. What fails is told; the process goes on without.
    pub(super) fn enforce(&self) -> Option<InForce> {
        match self.try_enforce() {
            Ok(in_force) => in_force,
            Err(error) => {
                tracing::warn!("no landlock: {error:#}");
                None
            }
        }
    }

    fn try_enforce(&self) -> anyhow::Result<Option<InForce>> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let write = read
            | AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::RemoveFile;
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(WRITTEN_FOR))?
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)?
            .create()?;
        let mut held = Vec::new();
        for path in &self.readable {
            rules = add(rules, path, read, &mut held)?;
        }
        for path in &self.writable {
            rules = add(rules, path, write, &mut held)?;
        }
        let status = rules.restrict_self()?;
        let abi = match status.landlock {
            LandlockStatus::Available { effective_abi, kernel_abi } => {
                kernel_abi.unwrap_or(effective_abi as i32)
            }
            LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
        };
        if status.ruleset == RulesetStatus::NotEnforced {
            tracing::info!("this kernel has no landlock: file modes alone protect other files");
            return Ok(None);
        }
        Ok(Some(InForce { abi, _held: held }))
    }
}

/// Whether this kernel has landlock; nothing is put in force.
pub fn has_landlock() -> bool {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    rules.handle_access(AccessFs::from_all(ABI::V1)).and_then(|rules| rules.create()).is_ok()
}

fn add(
    rules: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
    held: &mut Vec<File>,
) -> anyhow::Result<RulesetCreated> {
    // What is not there can't be opened either.
    let Ok(file) = File::options().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path) else {
        return Ok(rules);
    };
    let access = if file.metadata()?.is_dir() { access } else { access & AccessFs::from_file(WRITTEN_FOR) };
    let rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
    held.push(file);
    Ok(rules)
}
