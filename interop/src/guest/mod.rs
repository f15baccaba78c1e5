//! A guest kernel with ESP and IPComp: Debian's user-mode-linux, a Linux kernel as an ordinary process, in the place of a
//! host of the laboratory.
//!
//! Its root is the machine's, read-only, by hostfs; `/run` and `/tmp` are its own; the folder of the case is shared. Its
//! network is a TAP device, bridged to what was the host's `eth0`. Its init is this program again ([`init`]), which
//! answers on the serial line: a socket pair, the UML's standard input.

pub mod init;
mod rewrite;

use crate::cases;
use crate::traffic::PingCount;
use crate::wait_until;
use anyhow::{Context, Result, bail, ensure};
use ferry6::lab::Host;
pub use rewrite::How;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The kernel.
const KERNEL: &str = "/usr/bin/linux.uml";
/// Its modules.
const MODULES: &str = "/usr/lib/uml/modules";
/// Those that the kernel does not find by itself, or too late.
const MODULES_NEEDED: &str =
    "ipv6 tun af_key xfrm_user esp4 ipcomp sit deflate authenc echainiv seqiv gcm ctr ccm cbc sha512_generic";
/// Tells this program that it is the init of a guest.
pub const INIT: &str = "--guest-init";
/// The interface inside.
pub const INTERFACE: &str = "vec0";
/// The socket beside the guest's files that takes commands.
const SOCKET: &str = "guest";
/// For the boot (some seconds) and for each request.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why no guest can run here, if so.
pub fn missing() -> Option<String> {
    let needed = [KERNEL, MODULES, "/sbin/modprobe"];
    let absent: Vec<_> = needed.iter().filter(|p| !Path::new(p).exists()).copied().collect();
    (!absent.is_empty()).then(|| {
        format!("no guest kernel ({} missing; Debian: user-mode-linux kmod iproute2)", absent.join(", "))
    })
}

/// Runs a command in a guest that a held case has, from outside; `dir` is the folder with its `console.log`.
pub fn shell(dir: &Path, command: &str) -> Result<String> {
    let socket = dir.join(SOCKET);
    let mut stream = UnixStream::connect(&socket)
        .with_context(|| format!("no guest answers at {}: is its case held?", socket.display()))?;
    writeln!(stream, "{}", command.replace('\n', ";"))?;
    let mut output = String::new();
    stream.read_to_string(&mut output)?;
    Ok(output)
}

/// What the guest has in the network.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// With prefix length.
    pub address: &'static str,
    pub gateway: &'static str,
    /// The same of IPv6; a host without has none.
    pub address6: Option<&'static str>,
    pub gateway6: Option<&'static str>,
}

/// The broker of the article.
pub const BROKER: Addresses = Addresses {
    address: "192.168.100.2/24",
    gateway: "192.168.100.1",
    address6: Some("2a00::2/64"),
    gateway6: Some("2a00::1"),
};

/// The home computer of the article.
pub const HOME: Addresses =
    Addresses { address: "192.168.0.2/24", gateway: "192.168.0.1", address6: None, gateway6: None };

/// A running guest.
pub struct Guest {
    line: Mutex<BufReader<UnixStream>>,
    console: PathBuf,
}

impl Guest {
    /// Boots a guest in the place of `host`, whose `eth0` becomes its own.
    ///
    /// It ends with the process of the case. Until then each connection to the socket `guest` in `dir` may have a command run in it
    /// ([`shell`]).
    pub fn boot(host: &Host, dir: &Path, addresses: Addresses) -> Result<Arc<Self>> {
        if let Some(why) = missing() {
            bail!(why);
        }
        fs::create_dir_all(dir)?;
        let ip = |words: &str| cases::ip(host, words);
        ip("addr flush dev eth0")?;
        ip("tuntap add dev tap0 mode tap")?;
        host.bridge("br0")?;
        for port in ["eth0", "tap0"] {
            host.bridge_port("br0", port)?;
            host.up(port)?;
        }
        host.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;

        let begin = Instant::now();
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let console = dir.join("console.log");
        let log = File::create(&console)?;
        // Its memory is an unlinked file, which must be executable: many machines forbid that in /tmp.
        let memory = dir.join("memory");
        fs::create_dir_all(&memory)?;
        host.command(KERNEL)
            .args(["mem=192M", "rootfstype=hostfs", "rootflags=/", "ro", "noreboot", "panic=1"])
            .args(["con=null", "con0=null,fd:1", "ssl=null", "ssl0=fd:0"])
            .arg(format!("uml_dir={}/", memory.display()))
            .arg("vec0:transport=tap,ifname=tap0,depth=128")
            .arg(format!("init={}", std::env::current_exe()?.display()))
            .args(["--", INIT])
            .arg(dir)
            .env("TMPDIR", "/dev/shm")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the guest kernel")?;
        let this = Arc::new(Self { line: Mutex::new(BufReader::new(ours)), console });
        let ready = {
            let mut line = this.line.lock().unwrap_or_else(PoisonError::into_inner);
            this.receive(&mut line).context("the guest does not boot")?
        };
        ensure!(ready["ready"] == true, "the guest boots with {ready}");
        let booted = begin.elapsed();
        this.configure(addresses).context("the guest's network")?;
        println!("the guest booted in {booted:.1?}, and was configured after {:.1?}", begin.elapsed());
        let listener = UnixListener::bind(dir.join(SOCKET)).context("the guest's socket")?;
        let guest = Arc::clone(&this);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever asks sees what went wrong; a broken connection is none of ours.
                let _ = guest.serve(stream);
            }
        });
        Ok(this)
    }

    /// Runs the command that comes over this connection, and sends back what it says.
    fn serve(&self, mut stream: UnixStream) -> Result<()> {
        let mut command = String::new();
        BufReader::new(&stream).read_line(&mut command)?;
        let output = self.sh(command.trim()).unwrap_or_else(|error| format!("{error:#}\n"));
        Ok(stream.write_all(output.as_bytes())?)
    }

    fn configure(&self, addresses: Addresses) -> Result<()> {
        let Addresses { address, gateway, address6, gateway6 } = addresses;
        let mut script = format!(
            "set -e; /run/modprobe -a {MODULES_NEEDED}\n\
             sysctl -q -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0\n\
             ip link set lo up; ip link set {INTERFACE} up\n\
             ip addr add {address} dev {INTERFACE}; ip route add default via {gateway}\n"
        );
        if let (Some(address), Some(gateway)) = (address6, gateway6) {
            script += &format!(
                "sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n\
                 ip addr add {address} dev {INTERFACE} nodad; ip route add default via {gateway}\n"
            );
        }
        self.sh(&script).map(drop)
    }

    fn receive(&self, line: &mut BufReader<UnixStream>) -> Result<Value> {
        let mut text = String::new();
        match line.read_line(&mut text) {
            Ok(0) => bail!("it has ended\n{}", self.console()),
            Ok(_) => serde_json::from_str(&text).with_context(|| format!("it says {text:?}")),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("it is silent for {} s\n{}", PATIENCE.as_secs(), self.console())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn ask(&self, request: &Value) -> Result<Value> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(line.get_mut(), "{request}").context("the guest's serial line")?;
        let response = self.receive(&mut line).context("the guest")?;
        if let Some(error) = response["error"].as_str() {
            bail!("in the guest: {error}");
        }
        Ok(response)
    }

    /// The end of what its kernel has said.
    pub fn console(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        format!("--- the guest's console\n{}\n---", lines[lines.len().saturating_sub(20)..].join("\n"))
    }

    /// SAs, policies and drops of its kernel, without keys.
    pub fn kernel_state(&self) -> String {
        let show = "ip xfrm state | grep -vE 'enc |auth|aead |sel |anti-replay|^\\s+[0-9a-f]{8} '; \
                    ip xfrm policy | grep -vE '^src (::|0.0.0.0)/0 dst (::|0.0.0.0)/0 |^\\s*socket'; \
                    ip -s link show sit1; grep -v '\\b0$' /proc/net/xfrm_stat; true";
        format!("--- the guest's kernel\n{}\n---", self.sh(show).unwrap_or_else(|e| format!("{e:#}")))
    }

    /// Packets so far for which its kernel had no SA, in either direction.
    pub fn packets_without_sa(&self) -> Result<u32> {
        let sum = "awk '/AcquireError|NoStates/ { n += $2 } END { print n + 0 }' /proc/net/xfrm_stat";
        Ok(self.sh(sum)?.trim().parse()?)
    }

    /// Runs a shell command in the guest, and returns what it says.
    ///
    /// # Errors
    /// It fails: with all it said.
    pub fn sh(&self, command: &str) -> Result<String> {
        let response = self.ask(&json!({ "do": "sh", "command": command }))?;
        let output = response["output"].as_str().unwrap_or_default().to_owned();
        ensure!(response["ok"] == true, "`{command}` failed in the guest:\n{output}");
        Ok(output)
    }

    /// Starts a daemon in the guest, with its output in this file; returns its process's number there.
    pub fn spawn(&self, command: &str, log: &Path) -> Result<u32> {
        let said = self.sh(&format!("{command} >>'{}' 2>&1 </dev/null & echo $!", log.display()))?;
        said.trim().parse().with_context(|| format!("a process number: {said:?}"))
    }

    /// Rewrites, from now on, what the daemon installs in the guest's kernel for a tunnel with this peer. A sit device gets
    /// this IPv6 route.
    pub fn rewrite(&self, how: How, peer: Ipv4Addr, route: &str) -> Result<()> {
        let peer = peer.to_string();
        self.ask(&json!({ "do": "rewrite", "how": how.word(), "peer": peer, "route": route })).map(drop)
    }

    /// Pings from the guest.
    pub fn ping(&self, to: Ipv6Addr, count: u32, pause: Duration) -> Result<PingCount> {
        let request = json!({ "do": "ping", "to": to.to_string(), "count": count, "pause_ms": pause.as_millis() as u64 });
        let response = self.ask(&request)?;
        let number = |key: &str| response[key].as_u64().unwrap_or_default() as u32;
        Ok(PingCount {
            sent: number("sent"),
            unsent: number("unsent"),
            received: number("received"),
            duplicates: number("duplicates"),
            ..PingCount::default()
        })
    }

    /// The client's half of a TCP transfer both ways.
    pub fn tcp(&self, to: Ipv6Addr, octets: usize) -> Result<()> {
        self.ask(&json!({ "do": "tcp", "to": to.to_string(), "octets": octets })).map(drop)
    }

    /// Waits until a shell command in the guest succeeds.
    pub fn wait_for(&self, what: &str, command: &str, patience: Duration) -> Result<()> {
        wait_until(what, patience, || Ok(self.sh(command).is_ok()))
    }
}
