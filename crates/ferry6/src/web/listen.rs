//! Where the page is to be had: a loopback address, or a Unix socket.

use crate::cli::UsageError;
use crate::exit;
use crate::sandbox::{self, RunAs};
use anyhow::{Context as _, bail};
use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Where to listen.
#[derive(Clone, Debug)]
pub(super) enum Where {
    Tcp(SocketAddr),
    Unix { path: PathBuf, group: Option<u32> },
}

impl Where {
    /// Loopback only: what the page tells is nobody else's business, and there is no password.
    ///
    /// # Errors
    /// Another address.
    pub(super) fn tcp(address: SocketAddr) -> Result<Self, UsageError> {
        if address.ip().is_loopback() {
            return Ok(Self::Tcp(address));
        }
        Err(UsageError(format!(
            "--listen {address}: only a loopback address is taken (127.0.0.1, [::1]), as everybody who can connect may read. \
             From elsewhere: ssh -L 9696:127.0.0.1:9696 HOST, or a web server that asks who it is, in front of --unix"
        )))
    }

    /// Where a socket is to be taken away at the end.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix { path, .. } => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                Some(parent.unwrap_or(Path::new(".")).to_owned())
            }
        }
    }
}

/// Listens; the runtime does not know it yet.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, taken away at the end where that is permitted.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Opens it, with the rights that the process was started with.
    ///
    /// # Errors
    /// What the system refused, or somebody is there already.
    pub(super) fn bind(place: &Where, run_as: &RunAs) -> anyhow::Result<Self> {
        match place {
            Where::Tcp(address) => {
                let listener =
                    TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            Where::Unix { path, group } => {
                let listener = bind_unix(path, *group, run_as)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener, SocketFile(path.clone())))
            }
        }
    }

    /// The same for the runtime that this is called in.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub(super) fn into_tokio(self) -> std::io::Result<Watched> {
        Ok(match self {
            Self::Tcp(listener) => Watched::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Self::Unix(listener, file) => Watched::Unix(tokio::net::UnixListener::from_std(listener)?, file),
        })
    }
}

fn bind_unix(path: &Path, group: Option<u32>, run_as: &RunAs) -> anyhow::Result<UnixListener> {
    let shown = path.display();
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            bail!("{shown} is in the way: it is no socket");
        }
        match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).with_context(|| format!("cannot remove the stale {shown}"))?;
            }
            Ok(_) => {
                return Err(exit::busy(format!(
                    "somebody listens on {shown} already: is another `ferry6 web` running?"
                )));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot use {shown}")),
        }
    }
    // The mode must be right from the first moment on.
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(old);
    let listener = listener.with_context(|| format!("cannot bind {shown}"))?;
    sandbox::give(path, run_as);
    if let Some(group) = group {
        std::os::unix::fs::lchown(path, None, Some(group))
            .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)))
            .with_context(|| format!("--group: {shown} does not go to group {group}"))?;
    }
    Ok(listener)
}

/// The same as the runtime sees it.
pub(super) enum Watched {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener, SocketFile),
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}/"),
                Err(_) => f.write_str("TCP"),
            },
            Self::Unix(_, file) => write!(f, "{}", file.0.display()),
        }
    }
}
