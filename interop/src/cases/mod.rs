//! The cases: what is tried between which peers.

mod auth;
mod by_hand;
mod configuration;
mod crowd;
mod defence;
mod doctor;
mod flood;
mod forged;
mod iked;
mod kernel;
mod keylog;
mod life;
mod monitor;
mod per_cpu;
mod prefix_lan;
mod prefix_users;
mod prefixes;
mod refusals;
mod rekey;
mod revocation;
mod roaming;
mod sizes;
mod soak;
mod suites;
mod survival;
mod system;
pub mod tunnel;
mod unique;
mod web;

pub use rekey::spis;

use crate::{guest, strongswan};
use anyhow::{Context, Result};
use ferry6::lab::Host;
use ferry6::lab::article::{self, Article};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    StrongSwan,
    /// strongSwan with the ESP and IPComp of a guest kernel.
    KernelStrongSwan,
    /// OpenIKED with those of a guest kernel.
    OpenIked,
    Ferry6,
    /// Nobody: ferry6 alone.
    None,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::StrongSwan => "strongSwan",
            Self::KernelStrongSwan => "strongSwan, kernel",
            Self::OpenIked => "OpenIKED",
            Self::Ferry6 => "ferry6",
            Self::None => "-",
        })
    }
}

/// Which part ferry6 plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Broker,
    Both,
    /// None: strongSwan against itself, which shows that the harness works.
    Neither,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Client => "client",
            Self::Broker => "broker",
            Self::Both => "both",
            Self::Neither => "neither",
        })
    }
}

pub use tunnel::ip;

type Run = Box<dyn Fn(&mut Env) -> Result<()> + Send + Sync>;

/// A case.
pub struct Case {
    /// Its name: unique, and that of its directory of logs.
    pub name: String,
    pub peer: Peer,
    pub role: Role,
    /// What it shows, in words.
    pub feature: String,
    /// It fails when it takes longer.
    pub timeout: Duration,
    pub run: Run,
}

impl Case {
    fn new(
        name: impl Into<String>,
        peer: Peer,
        role: Role,
        feature: impl Into<String>,
        run: impl Fn(&mut Env) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let timeout = Duration::from_secs(60);
        Self { name: name.into(), peer, role, feature: feature.into(), timeout, run: Box::new(run) }
    }

    /// Why it cannot run on this machine, if so.
    pub fn missing(&self) -> Option<String> {
        match self.peer {
            Peer::StrongSwan => strongswan::missing(),
            Peer::KernelStrongSwan => strongswan::missing().or_else(guest::missing),
            Peer::OpenIked => crate::iked::missing().or_else(guest::missing),
            Peer::Ferry6 | Peer::None => None,
        }
    }
}

/// All cases, in the order in which they run.
pub fn all() -> Vec<Case> {
    [
        by_hand::cases(),
        suites::cases(),
        auth::cases(),
        rekey::cases(),
        per_cpu::cases(),
        prefixes::cases(),
        prefix_lan::cases(),
        prefix_users::cases(),
        soak::cases(),
        life::cases(),
        roaming::cases(),
        sizes::cases(),
        survival::cases(),
        unique::cases(),
        flood::cases(),
        keylog::cases(),
        refusals::cases(),
        revocation::cases(),
        forged::cases(),
        system::cases(),
        monitor::cases(),
        web::cases(),
        crowd::cases(),
        configuration::cases(),
        defence::cases(),
        doctor::cases(),
        iked::cases(),
        kernel::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a case works with.
pub struct Env {
    /// The program under test.
    pub ferry6: PathBuf,
    /// The case's directory, empty at first.
    pub dir: PathBuf,
    /// The hosts.
    pub net: Article,
}

impl Env {
    /// Builds the network of the article.
    pub fn new(ferry6: &Path, dir: &Path) -> Result<Self> {
        let net = article::build(article::Options::default()).context("the laboratory")?;
        Ok(Self { ferry6: ferry6.into(), dir: dir.into(), net })
    }

    /// An empty directory below the case's.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn hosts(&self) -> [&Host; 6] {
        let n = &self.net;
        [&n.home, &n.home_router, &n.internet, &n.firewall, &n.broker, &n.server]
    }

    /// Prints how to enter each host.
    pub fn tell_hosts(&self) {
        for host in self.hosts() {
            println!("  {:<12} {}", host.name(), host.enter_command());
        }
    }
}
