//! A host of the laboratory.

use super::{Error, sys};
use crate::net::is_local;
use futures_util::TryStreamExt;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::InfoKind;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the kernel may take for what it does later.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host: a network namespace and, once something is mounted for it, a mount namespace. Clones are the same host.
#[derive(Clone, Debug)]
pub struct Host {
    pub(super) inner: Arc<HostInner>,
}

#[derive(Debug)]
pub(super) struct HostInner {
    name: String,
    pub(super) netns: OwnedFd,
    mntns: Mutex<Option<Arc<OwnedFd>>>,
    handle: Handle,
    runtime: Arc<tokio::runtime::Runtime>,
}

impl AsFd for HostInner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }
}

impl Host {
    pub(super) fn new(name: &str, runtime: Arc<tokio::runtime::Runtime>) -> Result<Host, Error> {
        let fail = |e: io::Error| Error::new(name, "make its network namespace", e);
        let netns = sys::new_netns().map_err(fail)?;
        // A netlink socket belongs for ever to the namespace it was opened in.
        let (connection, handle, _) = sys::in_netns(&netns, || {
            let _context = runtime.enter();
            rtnetlink::new_connection()
        })
        .map_err(fail)?;
        runtime.spawn(connection);
        let inner = HostInner { name: name.into(), netns, mntns: Mutex::new(None), handle, runtime };
        Ok(Host { inner: Arc::new(inner) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The shell command that enters this host from outside, for as long as this process and host live. `nsenter` is of
    /// util-linux.
    pub fn enter_command(&self) -> String {
        let session = super::session();
        let pid = session.outer_pid;
        let own = match (session.own_pids, session.user_namespace) {
            (true, true) => format!("-t {pid} -U --preserve-credentials -m -p "),
            (true, false) => format!("-t {pid} -m -p "),
            (false, _) => String::new(),
        };
        format!("nsenter {own}--net=/proc/{pid}/fd/{}", self.inner.netns.as_raw_fd())
    }

    fn error(&self, action: impl Into<String>, cause: impl std::fmt::Display) -> Error {
        Error::new(self.name(), action, cause)
    }

    /// One netlink request in this host.
    pub(super) fn netlink<T>(
        &self,
        action: &str,
        request: impl AsyncFnOnce(&Handle) -> Result<T, rtnetlink::Error>,
    ) -> Result<T, Error> {
        self.inner.runtime.block_on(request(&self.inner.handle)).map_err(|e| match e {
            rtnetlink::Error::NetlinkError(message) => self.error(action, message.to_io()),
            other => self.error(action, other),
        })
    }

    /// Index of an interface.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn index(&self, interface: &str) -> Result<u32, Error> {
        self.run(|| Ok(if_nametoindex(interface)?))
            .map_err(|e| self.error(format!("find interface {interface}"), e))
    }

    fn change(
        &self,
        interface: &str,
        action: &str,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), Error> {
        let message = change(LinkUnspec::new_with_index(self.index(interface)?)).build();
        self.netlink(&format!("{action} {interface}"), async |handle| {
            handle.link().set(message).execute().await
        })
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn up(&self, interface: &str) -> Result<(), Error> {
        self.change(interface, "set up", |link| link.up())
    }

    /// Waits until the interface has found its carrier: before that the kernel silently drops what is sent on it.
    pub(super) fn wait_running(&self, interface: &str) -> Result<(), Error> {
        let running = || {
            let mut all = nix::ifaddrs::getifaddrs()?;
            Ok(all.any(|i| i.interface_name == interface && i.flags.contains(InterfaceFlags::IFF_RUNNING)))
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let action = || format!("bring up {interface}");
            if self.run(running).map_err(|e| self.error(action(), e))? {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.error(action(), "it has no carrier"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sets an interface down: a pulled plug.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn down(&self, interface: &str) -> Result<(), Error> {
        self.change(interface, "set down", |link| link.down())
    }

    /// MTU of an interface, in octets.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn mtu(&self, interface: &str, mtu: u32) -> Result<(), Error> {
        self.change(interface, "set the MTU of", |link| link.mtu(mtu))
    }

    /// A bridge, up, without spanning tree.
    ///
    /// # Errors
    /// The kernel has no bridges, or refuses.
    pub fn bridge(&self, name: &str) -> Result<(), Error> {
        let message =
            LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge).name(name).build();
        self.netlink(&format!("make the bridge {name}"), async |handle| {
            handle.link().add(message).execute().await
        })?;
        self.up(name)
    }

    /// Makes an interface a port of a bridge.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn bridge_port(&self, bridge: &str, interface: &str) -> Result<(), Error> {
        let controller = self.index(bridge)?;
        self.change(interface, &format!("add to {bridge} the port"), |link| link.controller(controller))
    }

    /// Adds an address such as `192.168.0.2/24` or `2a00::2/64`, at once usable (no duplicate address detection).
    ///
    /// # Errors
    /// A malformed address, or what the kernel refuses.
    pub fn address(&self, interface: &str, address: &str) -> Result<(), Error> {
        let (index, (ip, length)) = (self.index(interface)?, self.prefix(address)?);
        self.netlink(&format!("set {address} on {interface}"), async |handle| {
            let mut request = handle.address().add(index, ip, length);
            if ip.is_ipv6() {
                request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
                request.message_mut().header.flags = AddressHeaderFlags::Nodad;
            }
            request.execute().await
        })?;
        self.wait_for_local(ip)
    }

    fn wait_for_local(&self, ip: IpAddr) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while !self.inner.runtime.block_on(is_local(&self.inner.handle, ip)) {
            if Instant::now() > deadline {
                let cause = "the kernel does not take it for its own; is the interface up?";
                return Err(self.error(format!("use its address {ip}"), cause));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Removes an address.
    ///
    /// # Errors
    /// A malformed address, or what the kernel refuses.
    pub fn remove_address(&self, interface: &str, address: &str) -> Result<(), Error> {
        let (index, (ip, length)) = (self.index(interface)?, self.prefix(address)?);
        let mut message = AddressMessage::default();
        message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.index = index;
        message.header.prefix_len = length;
        message.attributes.extend([AddressAttribute::Local(ip), AddressAttribute::Address(ip)]);
        self.netlink(&format!("remove {address} from {interface}"), async |handle| {
            handle.address().del(message).execute().await
        })
    }

    /// How long an address stays preferred, in seconds; `u32::MAX` is for ever, 0 is deprecated (RFC 4862 section 5.5.4).
    ///
    /// # Errors
    /// The host has no such address.
    pub fn preferred_lifetime(&self, address: IpAddr) -> Result<u32, Error> {
        let action = format!("find the lifetime of {address}");
        let found = self.netlink(&action, async |handle| {
            let mut all = handle.address().get().execute();
            while let Some(message) = all.try_next().await? {
                let is = |a: &AddressAttribute| matches!(a, AddressAttribute::Address(ip) if *ip == address);
                if message.attributes.iter().any(is) {
                    return Ok(Some(message));
                }
            }
            Ok(None)
        })?;
        let lifetime = found.and_then(|message| {
            message.attributes.into_iter().find_map(|attribute| match attribute {
                AddressAttribute::CacheInfo(info) => Some(info.ifa_preferred),
                _ => None,
            })
        });
        lifetime.ok_or_else(|| self.error(action, "it has no such address"))
    }

    /// A route to `default` or a prefix, through a gateway's address. `default` is of the gateway's family.
    ///
    /// # Errors
    /// Malformed addresses, or what the kernel refuses.
    pub fn route(&self, destination: &str, gateway: &str) -> Result<(), Error> {
        let message = self.route_message(destination, gateway)?;
        self.netlink(&format!("route {destination} through {gateway}"), async |handle| {
            handle.route().add(message).execute().await
        })
    }

    /// Removes what [`Host::route`] made.
    ///
    /// # Errors
    /// Malformed addresses, or what the kernel refuses.
    pub fn remove_route(&self, destination: &str, gateway: &str) -> Result<(), Error> {
        let message = self.route_message(destination, gateway)?;
        self.netlink(&format!("remove the route {destination} through {gateway}"), async |handle| {
            handle.route().del(message).execute().await
        })
    }

    fn route_message(&self, destination: &str, gateway: &str) -> Result<RouteMessage, Error> {
        let fail =
            |e: &dyn std::fmt::Display| self.error(format!("route {destination} through {gateway}"), e);
        let via: IpAddr = gateway.parse().map_err(|e| fail(&e))?;
        let (to, length) = match (destination, via) {
            ("default", IpAddr::V4(_)) => (IpAddr::from([0; 4]), 0),
            ("default", IpAddr::V6(_)) => (IpAddr::from([0; 16]), 0),
            (prefix, _) => self.prefix(prefix)?,
        };
        let builder =
            RouteMessageBuilder::<IpAddr>::new().destination_prefix(to, length).map_err(|e| fail(&e))?;
        Ok(builder.gateway(via).map_err(|e| fail(&e))?.build())
    }

    fn prefix(&self, text: &str) -> Result<(IpAddr, u8), Error> {
        let parsed = text.split_once('/').and_then(|(ip, length)| {
            let (ip, length) = (ip.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?);
            (length <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, length))
        });
        parsed.ok_or_else(|| {
            self.error(format!("use `{text}`"), "not an address with a prefix length, like 192.168.0.2/24")
        })
    }

    /// Writes a sysctl of this host: `net.ipv4.ip_forward`, or with slashes where an interface's name has dots.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        let path = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
        self.run(|| std::fs::write(format!("/proc/sys/{path}"), value))
            .map_err(|e| self.error(format!("set sysctl {key} = {value}"), e))
    }

    /// Forwards IPv4 and IPv6: the host is a router.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn forward(&self) -> Result<(), Error> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Loads an nftables ruleset: `nft -f -` in this host.
    ///
    /// # Errors
    /// [`Error::NoNat`] where `nft` or nf_tables is missing; else what `nft` says.
    pub fn nft(&self, ruleset: &str) -> Result<(), Error> {
        let program =
            nft_program().ok_or_else(|| Error::NoNat("`nft` is not installed (Debian: nftables)".into()))?;
        let fail = |e: io::Error| self.error("run nft", e);
        let mut command = self.command(program);
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(fail)?;
        let mut input = child.stdin.take().expect("stdin is piped");
        // nft reports its own errors; a pipe that it closed early is none of ours.
        let _ = input.write_all(ruleset.as_bytes());
        drop(input);
        let output = child.wait_with_output().map_err(fail)?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if text.contains("not supported") || text.contains("Invalid argument") && text.contains("netlink") {
            return Err(Error::NoNat(format!("this kernel has no nf_tables NAT ({text})")));
        }
        Err(self.error("load the nftables ruleset", text))
    }

    /// A command that will run in this host, with the environment and working directory of this process.
    ///
    /// It dies with this process. Where [`super::enter`] was not called, it is even killed when the *thread* that spawns it
    /// ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let mounts = self.inner.mntns.lock().expect("no thread panics while it holds this lock").clone();
        sys::run_in(&mut command, self.inner.clone(), mounts, !super::session().own_pids);
        command
    }

    /// Binds a file or directory over `target`, for the commands of this host alone. `source` is looked up as the host sees
    /// it: bind what lies below a directory before that directory is covered.
    ///
    /// # Errors
    /// What the kernel refuses; `target` must exist.
    pub fn bind(&self, source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<(), Error> {
        self.mount(Some(source.as_ref()), target.as_ref())
    }

    /// An empty tmpfs over the directory `target`, for the commands of this host alone.
    ///
    /// # Errors
    /// What the kernel refuses; `target` must exist.
    pub fn tmpfs(&self, target: impl AsRef<Path>) -> Result<(), Error> {
        self.mount(None, target.as_ref())
    }

    fn mount(&self, source: Option<&Path>, target: &Path) -> Result<(), Error> {
        let mut mntns = self.inner.mntns.lock().expect("no thread panics while it holds this lock");
        let action = || match source {
            Some(source) => format!("bind {} over {}", source.display(), target.display()),
            None => format!("mount a tmpfs on {}", target.display()),
        };
        if mntns.is_none() {
            *mntns = Some(Arc::new(sys::new_mntns().map_err(|e| self.error("make its mount namespace", e))?));
        }
        let Some(view) = mntns.as_ref() else { return Ok(()) };
        sys::mount_in(view, source, target).map_err(|e| self.error(action(), e))
    }

    /// Runs `work` on a thread in this host's network namespace, and waits for it. Sockets it opens stay in the namespace.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        sys::in_netns(&self.inner.netns, work)
    }
}

/// Where `nft` is: a plain user's PATH often lacks the sbin directories.
pub(super) fn nft_program() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|d| d.join("nft")).find(|p| p.is_file())
}
