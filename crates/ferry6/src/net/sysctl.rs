//! IPv6 forwarding and what must go with it.

use super::Net;
use crate::sandbox;
use netlink_packet_route::route::RouteProtocol;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const CONF: &str = "/proc/sys/net/ipv6/conf";

/// What was changed under /proc/sys, put back when this is dropped; after a kill, by the next process.
#[derive(Debug, Default)]
pub struct Changes {
    /// Path and old value, in the order of the changes.
    list: Vec<(PathBuf, String)>,
    /// Where the list is kept for the case that this process is killed.
    record: Option<PathBuf>,
    /// The same, open: the user that the process runs as at the end may not remove it.
    open: Option<File>,
}

impl Drop for Changes {
    fn drop(&mut self) {
        for (path, old) in self.list.drain(..).rev() {
            if let Err(error) = std::fs::write(&path, &old) {
                // The interface may be gone by now, and then there is nothing to put back.
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!("{} could not be set back to {old}: {error}", path.display());
                }
            }
        }
        let left = self.record.as_ref().is_some_and(|record| std::fs::remove_file(record).is_err());
        if let Some(open) = self.open.as_ref().filter(|_| left) {
            let _ = open.set_len(0);
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

/// This boot and this network namespace: what was changed in another one is not ours to put back.
pub(super) fn era() -> std::io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let boot = read(Path::new("/proc/sys/kernel/random/boot_id"))?;
    Ok(format!("{boot} {}", std::fs::metadata("/proc/thread-self/ns/net")?.ino()))
}

impl Changes {
    /// None yet, but those that a killed process wrote to `record`, a file only we write.
    pub fn recorded(record: PathBuf) -> Self {
        let mut list = Vec::new();
        if let (Ok(text), Ok(era)) = (std::fs::read_to_string(&record), era()) {
            let mut lines = text.lines();
            if lines.next() == Some(&era) {
                let entries = lines.filter_map(|l| l.split_once('='));
                let ours = entries.filter(|(path, _)| path.starts_with(CONF) && !path.contains(".."));
                list.extend(ours.map(|(path, old)| (PathBuf::from(path), old.to_owned())));
            }
        }
        Self { list, record: Some(record), open: None }
    }

    /// Sets a value, and remembers the old one. Nothing is written where the value is right already.
    ///
    /// # Errors
    /// The path and the cause.
    pub fn set(&mut self, path: PathBuf, value: &str) -> Result<(), String> {
        let fault = |e: std::io::Error| format!("{}: {e}", path.display());
        let old = read(&path).map_err(fault)?;
        if old != value {
            std::fs::write(&path, value).map_err(fault)?;
            // The oldest value is the one to put back.
            if !self.list.iter().any(|(p, _)| *p == path) {
                self.list.push((path, old));
                self.write_record();
            }
        }
        Ok(())
    }

    fn write_record(&mut self) {
        let Some(record) = &self.record else { return };
        let written = era().and_then(|mut text| {
            for (path, old) in &self.list {
                text.push_str(&format!("\n{}={old}", path.display()));
            }
            let mut file = sandbox::open_state(record)?;
            file.set_len(0)?;
            file.write_all(text.as_bytes())?;
            self.open = Some(file);
            Ok(())
        });
        if let Err(error) = written {
            tracing::warn!("{}: {error}; after a kill nobody sets the sysctls back", record.display());
        }
    }
}

/// Whether the kernel forwards IPv6.
pub fn is_forwarding() -> bool {
    read(&Path::new(CONF).join("all/forwarding")).is_ok_and(|v| v == "1")
}

/// Switches IPv6 forwarding on. An uplink that lives on router advertisements gets `accept_ra = 2` first, because
/// otherwise the kernel would throw its default route away.
///
/// # Errors
/// What could not be set, and what to do.
pub async fn enable_forwarding(net: &Net, changes: &mut Changes) -> Result<(), String> {
    if is_forwarding() {
        return Ok(());
    }
    let routes = net.routes().await.unwrap_or_default();
    for route in routes.iter().filter(|r| r.to.len == 0 && r.protocol == RouteProtocol::Ra) {
        let Some(index) = route.interface else { continue };
        let Ok(name) = net.name(index).await else { continue };
        let accept = Path::new(CONF).join(&name).join("accept_ra");
        changes.set(accept, "2").map_err(|e| {
            format!(
                "{e}; the default route of {name} comes from router advertisements and would vanish with forwarding: \
                 do `sysctl -w net.ipv6.conf.{name}.accept_ra=2 net.ipv6.conf.all.forwarding=1`"
            )
        })?;
    }
    changes.set(Path::new(CONF).join("all/forwarding"), "1").map_err(|e| {
        format!(
            "IPv6 forwarding is off and cannot be switched on ({e}): do `sysctl -w net.ipv6.conf.all.forwarding=1` \
             as root"
        )
    })
}

/// Lets an interface answer for others' addresses.
///
/// # Errors
/// The path and the cause.
pub fn enable_proxy_ndp(interface: &str, changes: &mut Changes) -> Result<(), String> {
    changes.set(Path::new(CONF).join(interface).join("proxy_ndp"), "1")
}

/// Makes the new tunnel device ready for IPv6: it may be off by default (`disable_ipv6`), and a tunnel has no use for a
/// link-local address, router solicitations and multicast listener reports of its own. The device goes away with us, so
/// nothing is put back.
///
/// # Errors
/// IPv6 is off and cannot be switched on.
pub fn prepare_device(interface: &str) -> Result<(), String> {
    let conf = Path::new(CONF);
    if !conf.exists() {
        return Err("this kernel has no IPv6 (no /proc/sys/net/ipv6): boot without ipv6.disable=1".to_owned());
    }
    let device = conf.join(interface);
    let disabled = device.join("disable_ipv6");
    if read(&disabled).is_ok_and(|v| v != "0") {
        std::fs::write(&disabled, "0").map_err(|e| {
            format!(
                "IPv6 is switched off on {interface} and cannot be switched on: {}: {e}",
                disabled.display()
            )
        })?;
    }
    for (key, value) in
        [("addr_gen_mode", "1"), ("accept_ra", "0"), ("router_solicitations", "0"), ("autoconf", "0")]
    {
        if let Err(error) = std::fs::write(device.join(key), value) {
            tracing::debug!("{interface}: {key} stays: {error}");
        }
    }
    Ok(())
}
