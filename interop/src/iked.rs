//! OpenIKED from Debian's package as a peer. It needs PF_KEY, so it runs in a guest.

use crate::guest::Guest;
use crate::pki::Entity;
use crate::{wait_until, write_private};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const IKED: &str = "/usr/sbin/iked";
const IKECTL: &str = "/usr/sbin/ikectl";

/// Why OpenIKED cannot run here, if so.
pub fn missing() -> Option<String> {
    let absent: Vec<_> = [IKED, IKECTL].into_iter().filter(|p| !Path::new(p).exists()).collect();
    (!absent.is_empty())
        .then(|| format!("OpenIKED is not installed ({} missing; Debian: openiked)", absent.join(", ")))
}

/// What iked finds in `/etc/iked`.
#[derive(Clone, Debug)]
pub struct Files {
    /// Its certificate and key, unless it has a pre-shared key.
    pub entity: Option<Entity>,
    /// The CAs it trusts.
    pub cas: Vec<PathBuf>,
    /// CRLs.
    pub crls: Vec<PathBuf>,
}

/// A running iked.
pub struct Iked {
    process: u32,
    dir: PathBuf,
}

impl Iked {
    /// Starts iked in the guest with this `iked.conf`. Its files and its log are in `dir`, a folder of the guest's.
    pub fn start(guest: &Guest, dir: &Path, conf: &str, files: &Files) -> Result<Self> {
        let etc = dir.join("etc-iked");
        // iked(8), FILES.
        for sub in [
            "ca",
            "certs",
            "crls",
            "private",
            "pubkeys/fqdn",
            "pubkeys/ipv4",
            "pubkeys/ipv6",
            "pubkeys/ufqdn",
        ] {
            fs::create_dir_all(etc.join(sub))?;
        }
        for (sources, sub) in [(&files.cas, "ca"), (&files.crls, "crls")] {
            for source in sources {
                fs::copy(source, etc.join(sub).join(source.file_name().context("a file has a name")?))?;
            }
        }
        if let Some(Entity { cert, key }) = &files.entity {
            fs::copy(cert, etc.join("certs/local.crt"))?;
            fs::copy(key, etc.join("private/local.key"))?;
        }
        guest.sh(&format!("mount --bind '{}' /etc/iked", etc.display()))?;
        let mut this = Self { process: 0, dir: dir.into() };
        this.configure(conf)?;
        this.restart(guest)?;
        Ok(this)
    }

    /// Writes another `iked.conf`, for the next start.
    pub fn configure(&self, conf: &str) -> Result<()> {
        write_private(&self.dir.join("iked.conf"), conf)
    }

    /// Starts it (again) with the same files.
    pub fn restart(&mut self, guest: &Guest) -> Result<()> {
        let conf = self.dir.join("iked.conf");
        let before = self.log().len();
        self.process = guest.spawn(&format!("{IKED} -dvv -f '{}'", conf.display()), &self.log_file())?;
        // It answers peers before it has read its configuration, and forgets then what it has answered. Being asked
        // wakes it; the last that it reads is `stickyaddress`.
        wait_until("iked has read its configuration", Duration::from_secs(15), || {
            let answers = guest.sh(&format!("{IKECTL} show sa")).is_ok();
            Ok(answers && self.log().get(before..).is_some_and(|news| news.contains("stickyaddress")))
        })
        .with_context(|| self.log())
    }

    /// Ends it as a machine that loses its power: nothing is sent, and no SA outlives it.
    pub fn kill(&self, guest: &Guest) -> Result<()> {
        guest.sh(&format!("kill -9 {}; ip xfrm state flush; ip xfrm policy flush", self.process)).map(drop)
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("iked.log")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }
}
