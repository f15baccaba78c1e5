//! strongSwan from Debian's packages as a peer: with its userspace ESP (plugin kernel-libipsec), or in a guest with that
//! of the kernel there.

use crate::guest::Guest;
use crate::{run, wait_until, write_private};
use anyhow::{Context, Result, bail};
use ferry6::lab::Host;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const CHARON: &str = "/usr/lib/ipsec/charon";
const SWANCTL: &str = "/usr/sbin/swanctl";
const PLUGINS: &str = "/etc/strongswan.d/charon";
/// Name of the connection, its child and its pool.
const NAME: &str = "tunnel";

/// Why strongSwan cannot run here, if so.
pub fn missing() -> Option<String> {
    let needed = [CHARON, SWANCTL, PLUGINS, "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so"];
    let absent: Vec<_> = needed.iter().filter(|p| !Path::new(p).exists()).copied().collect();
    (!absent.is_empty()).then(|| {
        format!(
            "strongSwan is not installed ({} missing; Debian: strongswan-charon strongswan-swanctl \
             libcharon-extra-plugins libstrongswan-standard-plugins libstrongswan-extra-plugins)",
            absent.join(", ")
        )
    })
}

/// How strongSwan proves who it is, and checks who the peer is.
#[derive(Clone, Debug)]
pub enum Auth {
    /// By certificate.
    Cert {
        /// Leaf and key of its own.
        cert: PathBuf,
        /// The leaf's key.
        key: PathBuf,
        /// CAs, intermediate ones too: those that are not self-signed are sent along.
        cas: Vec<PathBuf>,
        /// CRLs.
        crls: Vec<PathBuf>,
    },
    /// By pre-shared key.
    Psk(String),
}

/// One connection of a charon.
#[derive(Clone, Debug)]
pub struct Config {
    /// IDi or IDr of its own.
    pub local_id: String,
    /// The peer's, with wildcards.
    pub remote_id: String,
    /// Authentication.
    pub auth: Auth,
    /// IKE proposals in strongSwan's words; `default` for its own.
    pub ike: String,
    /// ESP proposals in strongSwan's words.
    pub esp: String,
    /// The broker's address: a client. Without: a broker.
    pub remote: Option<String>,
    /// A broker's pool; `None`: it has none.
    pub pool: Option<String>,
    /// More lines of the connection.
    pub connection: String,
    /// More lines of the connection's `remote`.
    pub remote_lines: String,
    /// More lines of the child.
    pub child: String,
    /// More lines of the charon section of strongswan.conf.
    pub charon: String,
}

/// Where a charon runs.
enum Place {
    Host(Host, Child),
    Guest(Arc<Guest>, u32),
}

/// A running charon.
pub struct StrongSwan {
    place: Place,
    dir: PathBuf,
    uri: String,
}

impl StrongSwan {
    /// Starts a charon on a host and loads the configuration. Its files and its log are in `dir`.
    pub fn start(host: &Host, dir: &Path, config: &Config) -> Result<Self> {
        prepare(dir, &uri_in(dir), config, true)?;
        Self::launch(host, dir)
    }

    /// The same with a directory whose content somebody would copy into `/etc/swanctl`.
    pub fn start_with_files(host: &Host, dir: &Path, files: &Path) -> Result<Self> {
        prepare_conf(dir, &uri_in(dir), "", true)?;
        let swanctl = dir.join("swanctl");
        let mut copy = Command::new("cp");
        run(copy.arg("-a").arg(files.join(".")).arg(&swanctl), "cp")?;
        // As Debian's package has it.
        fs::write(swanctl.join("swanctl.conf"), "include conf.d/*.conf\n")?;
        Self::launch(host, dir)
    }

    fn launch(host: &Host, dir: &Path) -> Result<Self> {
        let (socket, uri) = (dir.join("vici"), uri_in(dir));

        // Two charons may live on one machine only if each has a /run of its own: it holds a PID file.
        host.tmpfs("/run")?;
        let log = File::create(dir.join("charon.out"))?;
        // Left by one that was killed.
        let _ = fs::remove_file(&socket);
        let process = host
            .command(CHARON)
            .env("STRONGSWAN_CONF", dir.join("strongswan.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start charon")?;
        let mut this = Self { place: Place::Host(host.clone(), process), dir: dir.into(), uri };
        wait_until("charon answers", Duration::from_secs(10), || {
            if let Place::Host(_, process) = &mut this.place
                && let Some(status) = process.try_wait()?
            {
                bail!("charon ended at once ({status}):\n{}", this.log());
            }
            Ok(UnixStream::connect(&socket).is_ok())
        })?;
        this.swanctl(&["--load-all"])?;
        Ok(this)
    }

    /// The same in a guest, with the ESP of its kernel; `dir` is in the guest's folder.
    pub fn start_in(guest: &Arc<Guest>, dir: &Path, config: &Config) -> Result<Self> {
        let socket = "/run/charon.vici";
        let uri = format!("unix://{socket}");
        prepare(dir, &uri, config, false)?;
        let conf = dir.join("strongswan.conf");
        let command = format!("STRONGSWAN_CONF='{}' {CHARON}", conf.display());
        let process = guest.spawn(&command, &dir.join("charon.out"))?;
        let this = Self { place: Place::Guest(Arc::clone(guest), process), dir: dir.into(), uri };
        guest
            .wait_for("charon answers", &format!("test -S {socket}"), Duration::from_secs(20))
            .with_context(|| this.log())?;
        this.swanctl(&["--load-all"])?;
        Ok(this)
    }

    /// The guest in which it runs.
    pub fn guest(&self) -> Option<&Guest> {
        match &self.place {
            Place::Guest(guest, _) => Some(guest),
            Place::Host(..) => None,
        }
    }

    /// Brings the tunnel up, as a client.
    pub fn initiate(&self) -> Result<String> {
        self.swanctl(&["--initiate", "--child", NAME, "--timeout", "20"])
    }

    /// Rekeys its Child SA.
    pub fn rekey_child(&self) -> Result<String> {
        self.swanctl(&["--rekey", "--child", NAME])
    }

    /// Rekeys its IKE SA.
    pub fn rekey_ike(&self) -> Result<String> {
        self.swanctl(&["--rekey", "--ike", NAME])
    }

    /// Sends DELETE for its IKE SA.
    pub fn terminate(&self) -> Result<String> {
        self.swanctl(&["--terminate", "--ike", NAME, "--timeout", "5"])
    }

    /// What `swanctl --list-sas` says.
    pub fn list_sas(&self) -> Result<String> {
        self.swanctl(&["--list-sas"])
    }

    /// Runs swanctl; an error if it fails.
    pub fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let (conf, swanctl) = (self.dir.join("strongswan.conf"), self.dir.join("swanctl"));
        let host = match &self.place {
            Place::Host(host, _) => host,
            Place::Guest(guest, _) => {
                return guest.sh(&format!(
                    "STRONGSWAN_CONF='{}' SWANCTL_DIR='{}' {SWANCTL} {} --uri {}",
                    conf.display(),
                    swanctl.display(),
                    arguments.join(" "),
                    self.uri
                ));
            }
        };
        let mut command = host.command(SWANCTL);
        command.args(arguments).args(["--uri", &self.uri]);
        command.env("STRONGSWAN_CONF", conf).env("SWANCTL_DIR", swanctl);
        run(&mut command, &format!("swanctl {}", arguments.join(" ")))
    }

    /// The PID of charon, where it is a process of this machine.
    pub fn pid(&self) -> Option<u32> {
        match &self.place {
            Place::Host(_, process) => Some(process.id()),
            Place::Guest(..) => None,
        }
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read(self.dir.join(name)).unwrap_or_default();
        let text = [read("charon.log"), read("charon.out")].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Ends it as a machine that loses its power: nothing is sent.
    pub fn kill(mut self) -> Result<()> {
        match &mut self.place {
            Place::Host(_, process) => {
                process.kill()?;
                process.wait()?;
            }
            Place::Guest(guest, process) => {
                guest.sh(&format!("kill -9 {process}; ip xfrm state flush; ip xfrm policy flush"))?;
            }
        }
        Ok(())
    }
}

fn uri_in(dir: &Path) -> String {
    format!("unix://{}", dir.join("vici").display())
}

/// Writes all that charon reads. `userspace`: ESP by the plugin kernel-libipsec, not by the kernel.
fn prepare(dir: &Path, uri: &str, config: &Config, userspace: bool) -> Result<()> {
    prepare_conf(dir, uri, &config.charon, userspace)?;
    let swanctl = dir.join("swanctl");
    if let Auth::Cert { cert, key, cas, crls } = &config.auth {
        copy_into(cert, &swanctl.join("x509"))?;
        copy_into(key, &swanctl.join("private"))?;
        for ca in cas {
            copy_into(ca, &swanctl.join("x509ca"))?;
        }
        for crl in crls {
            copy_into(crl, &swanctl.join("x509crl"))?;
        }
    }
    write_private(&swanctl.join("swanctl.conf"), &config.text()?)
}

/// What does not depend on a connection.
fn prepare_conf(dir: &Path, uri: &str, charon: &str, userspace: bool) -> Result<()> {
    if let Some(why) = missing() {
        bail!(why);
    }
    let swanctl = dir.join("swanctl");
    // swanctl complains about each of its directories that is not there.
    for sub in [
        "x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "private", "rsa", "ecdsa",
        "bliss", "pkcs8", "pkcs12",
    ] {
        fs::create_dir_all(swanctl.join(sub))?;
    }
    fs::write(dir.join("strongswan.conf"), strongswan_conf(dir, uri, charon, userspace))?;
    Ok(())
}

fn copy_into(file: &Path, dir: &Path) -> Result<()> {
    let name = file.file_name().context("a file has a name")?;
    fs::copy(file, dir.join(name)).with_context(|| file.display().to_string())?;
    Ok(())
}

fn strongswan_conf(dir: &Path, uri: &str, charon: &str, userspace: bool) -> String {
    let libipsec = if userspace { "yes" } else { "no" };
    format!(
        "charon {{
  load_modular = yes
  install_virtual_ip = yes
  # One answer in time is all that a test waits for.
  retransmit_tries = 4
  retransmit_timeout = 1.0
  retransmit_base = 1.5
  plugins {{
    include {PLUGINS}/*.conf
    kernel-libipsec {{ load = {libipsec} }}
    vici {{ socket = {uri} }}
    bypass-lan {{ load = no }}
    resolve {{ load = no }}
    stroke {{ load = no }}
  }}
  filelog {{
    log {{
      path = {}
      time_format = %b %e %T
      time_add_ms = yes
      default = 1
      ike = 2
      cfg = 2
      enc = 1
      flush_line = yes
    }}
  }}
  {}
}}
",
        dir.join("charon.log").display(),
        charon
    )
}

impl Config {
    /// The swanctl.conf.
    fn text(&self) -> Result<String> {
        let mut text = format!("connections {{\n {NAME} {{\n  version = 2\n  proposals = {}\n", self.ike);
        match &self.remote {
            // Asks for an IPv6 address.
            Some(remote) => write!(text, "  remote_addrs = {remote}\n  vips = ::\n")?,
            None if self.pool.is_some() => writeln!(text, "  pools = {NAME}")?,
            None => {}
        }
        text += &self.connection;
        let (auth, certs) = match &self.auth {
            Auth::Cert { cert, .. } => {
                let name = cert.file_name().context("a file has a name")?.display();
                ("pubkey", format!("   certs = {name}\n"))
            }
            Auth::Psk(_) => ("psk", String::new()),
        };
        write!(text, "\n  local {{\n   auth = {auth}\n{certs}   id = {}\n  }}\n", self.local_id)?;
        write!(
            text,
            "  remote {{\n   auth = {auth}\n   id = {}\n{}  }}\n",
            self.remote_id, self.remote_lines
        )?;
        let side = if self.remote.is_some() { "remote_ts" } else { "local_ts" };
        write!(text, "  children {{\n   {NAME} {{\n    {side} = ::/0\n    esp_proposals = {}\n", self.esp)?;
        writeln!(text, "{}\n   }}\n  }}\n }}\n}}", self.child)?;
        if let Some(pool) = &self.pool {
            writeln!(text, "pools {{\n {NAME} {{ addrs = {pool} }}\n}}")?;
        }
        if let Auth::Psk(secret) = &self.auth {
            writeln!(text, "secrets {{\n ike-1 {{\n  secret = \"{secret}\"\n }}\n}}")?;
        }
        Ok(text)
    }
}
