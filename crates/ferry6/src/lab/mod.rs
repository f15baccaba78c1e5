//! A laboratory of hosts on one machine: network namespaces, links, addresses, routes, NAT and captures.
//!
//! Everything is made by netlink and system calls; no `ip` is needed. A host's namespace has no name: file descriptors
//! of this process hold it, so the kernel removes it, with all that is in it, when this process ends, however it ends.
//!
//! ```no_run
//! # fn main() -> Result<(), ferry6::lab::Error> {
//! ferry6::lab::enter()?; // first thing in `main`: a PID namespace of our own and, for a plain user, a user namespace
//! let lab = ferry6::lab::Lab::new()?;
//! let (a, b) = (lab.host("a")?, lab.host("b")?);
//! lab.link(&a, "eth0", &b, "eth0")?;
//! a.address("eth0", "192.168.0.1/24")?;
//! b.address("eth0", "192.168.0.2/24")?;
//! b.route("default", "192.168.0.1")?;
//! b.command("ping").arg("192.168.0.1").status().expect("ping");
//! # Ok(())
//! # }
//! ```

pub mod article;
mod capture;
mod enter;
mod host;
mod packet_ring;
mod sys;

pub use capture::{Capture, CaptureOptions, Counts};
pub use enter::{Session, enter, session};
pub use host::Host;

use host::HostInner;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, Weak};

/// Why something in the laboratory could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This process may not make namespaces.
    #[error("cannot make network namespaces: {0}")]
    Privilege(String),
    /// `nft` is not installed, or this kernel has no nf_tables.
    #[error("no NAT: {0}")]
    NoNat(String),
    /// Anything else.
    #[error("{host}: cannot {action}: {cause}")]
    Failed {
        /// Host of the laboratory.
        host: String,
        /// What was tried.
        action: String,
        /// What the system said.
        cause: String,
    },
}

impl Error {
    fn new(host: &str, action: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Error::Failed { host: host.into(), action: action.into(), cause: cause.to_string() }
    }
}

/// How a link is made.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    /// MTU of both ends, in octets.
    pub mtu: Option<u32>,
    /// IPv6 on the link, with link-local addresses. Without, it carries nothing but IPv4 and ARP.
    pub ipv6: bool,
    /// Super-packets (GSO) cross the link whole, as they do on any veth. Without, each frame on it is at most the MTU.
    pub gso: bool,
}

impl Default for LinkOptions {
    fn default() -> Self {
        LinkOptions { mtu: None, ipv6: true, gso: true }
    }
}

/// The laboratory. Dropping it kills the processes that still run in its hosts, and the hosts go with the last [`Host`].
#[derive(Debug)]
pub struct Lab {
    runtime: Arc<tokio::runtime::Runtime>,
    hosts: Mutex<Vec<Weak<HostInner>>>,
}

impl Lab {
    /// An empty laboratory.
    ///
    /// # Errors
    /// [`Error::Privilege`] where namespaces may not be made: call [`enter`] first as a plain user.
    pub fn new() -> Result<Lab, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|e| Error::new("lab", "start netlink", e))?;
        sys::new_netns().map_err(|e| Error::Privilege(enter::hint(&e)))?;
        Ok(Lab { runtime: Arc::new(runtime), hosts: Mutex::new(Vec::new()) })
    }

    /// A new host: a network namespace with only `lo`, up. Neither duplicate address detection nor router solicitation
    /// delays its IPv6 addresses.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn host(&self, name: &str) -> Result<Host, Error> {
        let host = Host::new(name, self.runtime.clone())?;
        let mut hosts = self.hosts.lock().expect("no thread panics while it holds this lock");
        hosts.push(Arc::downgrade(&host.inner));
        drop(hosts);
        host.sysctl("net.ipv6.conf.all.accept_dad", "0")?;
        host.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        host.sysctl("net.ipv6.conf.default.router_solicitations", "0")?;
        host.up("lo")?;
        Ok(host)
    }

    /// A veth pair between two hosts, both ends up.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn link(&self, a: &Host, a_name: &str, b: &Host, b_name: &str) -> Result<(), Error> {
        self.link_with(a, a_name, b, b_name, LinkOptions::default())
    }

    /// [`Lab::link`] with options.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn link_with(
        &self,
        a: &Host,
        a_name: &str,
        b: &Host,
        b_name: &str,
        options: LinkOptions,
    ) -> Result<(), Error> {
        let end = |name: &str| {
            let mut end = LinkUnspec::new_with_name(name);
            if let Some(mtu) = options.mtu {
                end = end.mtu(mtu);
            }
            if !options.gso {
                end = end.append_extra_attribute(LinkAttribute::GsoMaxSegs(1));
            }
            end
        };
        let peer = end(b_name).setns_by_fd(b.inner.netns.as_raw_fd()).build();
        let mut link = LinkMessageBuilder::<LinkVeth>::new(a_name, b_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        for attribute in end(a_name).build().attributes {
            if !matches!(attribute, LinkAttribute::IfName(_)) {
                link = link.append_extra_attribute(attribute);
            }
        }
        a.netlink(&format!("make the link {a_name} - {} {b_name}", b.name()), async |handle| {
            handle.link().add(link.build()).execute().await
        })?;
        for (host, name) in [(a, a_name), (b, b_name)] {
            if !options.ipv6 {
                host.sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
            }
            host.up(name)?;
        }
        a.wait_running(a_name)?;
        b.wait_running(b_name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let hosts = std::mem::take(&mut *self.hosts.lock().unwrap_or_else(|e| e.into_inner()));
        let ids: Vec<_> =
            hosts.iter().filter_map(Weak::upgrade).filter_map(|h| sys::namespace_id(&h.netns).ok()).collect();
        sys::kill_processes_in(&ids);
    }
}

#[cfg(test)]
mod tests;
