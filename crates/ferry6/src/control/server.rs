//! The daemon's end of the control socket.

use super::{Request, Response};
use crate::config::RUN_DIR;
use crate::exit;
use crate::sandbox::{self, Process};
use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The longest request in octets.
const REQUEST_LIMIT: u64 = 16 * 1024;
/// How long a caller may take to ask, or to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Callers at a time.
const CALLERS: usize = 16;

/// A request, and where its response goes.
pub type Call = (Request, oneshot::Sender<Response>);

/// The socket's file, removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    inode: (u64, u64),
}

impl Socket {
    /// Where it is.
    pub fn directory(&self) -> Option<&Path> {
        self.path.parent().filter(|p| !p.as_os_str().is_empty()).or(Some(Path::new(".")))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Another daemon may have put its own there since.
        let same = std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode);
        if same {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds the socket: mode 0600 (0660 with a group for it), a stale one of a dead daemon is replaced, a live one is not.
///
/// # Errors
/// A directory in which anybody could put another socket in its place; a daemon that answers there already; or what the
/// system refused.
pub fn bind(path: &Path, process: &Process) -> anyhow::Result<(UnixListener, Socket)> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.exists() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("cannot make the directory {} (see `control`)", directory.display()))?;
        sandbox::give(directory, &process.run_as);
    } else if directory == Path::new(RUN_DIR) {
        // It is there for ferry6 alone, perhaps from a time without a user of its own.
        sandbox::give(directory, &process.run_as);
    }
    check_directory(directory)?;
    // Two daemons that start together must not take each other's new socket for a stale one.
    let handle = File::open(directory).with_context(|| format!("cannot open {}", directory.display()))?;
    let _lock = Flock::lock(handle, FlockArg::LockExclusive)
        .map_err(|(_, e)| e)
        .with_context(|| format!("cannot lock {}", directory.display()))?;
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            bail!("{} is in the way: it is no socket", path.display());
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => {
                return Err(exit::busy(format!(
                    "another ferry6 runs already: it answers on {}. Stop it, or set another socket: control = \"..\"",
                    path.display()
                )));
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)
                    .with_context(|| format!("cannot remove the stale {}", path.display()))?;
            }
            Err(error) => return Err(error).with_context(|| format!("cannot use {}", path.display())),
        }
    }
    // The mode must be right from the first moment on, and chmod comes too late for that.
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(old);
    let listener = listener.with_context(|| format!("cannot bind the control socket {}", path.display()))?;
    sandbox::give(path, &process.run_as);
    if let Some(group) = process.control_group {
        std::os::unix::fs::lchown(path, None, Some(group))
            .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)))
            .with_context(|| format!("control_group: {} does not go to group {group}", path.display()))?;
    }
    let meta = std::fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    Ok((listener, Socket { path: path.to_owned(), inode: (meta.dev(), meta.ino()) }))
}

/// Refuses a directory in which anybody could replace the socket. In one like /tmp (sticky) only its owner can.
fn check_directory(directory: &Path) -> anyhow::Result<()> {
    let meta = std::fs::metadata(directory).with_context(|| directory.display().to_string())?;
    let mode = meta.mode();
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        bail!(
            "anybody could put another control socket in the place of ours: {} may be written by all (mode {:04o}); \
             do: chmod o-w {}",
            directory.display(),
            mode & 0o7777,
            directory.display()
        );
    }
    Ok(())
}

/// Answers callers until the daemon drops the receiver of `calls`. With a `group` for the socket, whoever the file system
/// lets connect may ask.
pub async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>, group: bool) {
    let callers = Arc::new(Semaphore::new(CALLERS));
    loop {
        let stream = tokio::select! {
            () = calls.closed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: do not spin.
                    tracing::warn!("control socket: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            },
        };
        // More callers than that are dropped: each is a local process of ours or root's.
        let Ok(permit) = Arc::clone(&callers).try_acquire_owned() else { continue };
        let calls = calls.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = converse(stream, &calls, group).await {
                tracing::debug!("control socket: {error}");
            }
        });
    }
}

/// One caller: requests and responses in turn. [`serve`] does this with each; on its own it is there for tests.
///
/// # Errors
/// The caller is gone, or too slow to take what was said.
pub async fn converse(stream: UnixStream, calls: &mpsc::Sender<Call>, group: bool) -> std::io::Result<()> {
    let ours = |uid: u32| uid == 0 || uid == nix::unistd::geteuid().as_raw();
    let allowed = group || stream.peer_cred().is_ok_and(|c| ours(c.uid()));
    let (read, mut write) = stream.into_split();
    if !allowed {
        return respond(&mut write, &Response::Error("only root and the daemon's user may ask".to_owned()))
            .await;
    }
    let mut reader = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(REQUEST_LIMIT);
        let length = match tokio::time::timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await {
            Ok(length) => length?,
            Err(_) => return Ok(()),
        };
        if length == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == REQUEST_LIMIT {
            return respond(&mut write, &Response::Error("request too long".to_owned())).await;
        }
        let response = match serde_json::from_slice::<Request>(&line) {
            Err(error) => Response::Error(format!("not a request: {error}")),
            Ok(request) => ask(request, calls).await,
        };
        respond(&mut write, &response).await?;
    }
}

async fn ask(request: Request, calls: &mpsc::Sender<Call>) -> Response {
    let (sender, receiver) = oneshot::channel();
    let asked = async {
        calls.send((request, sender)).await.ok()?;
        receiver.await.ok()
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Some(response)) => response,
        Ok(None) => Response::Error("the daemon is stopping".to_owned()),
        Err(_) => Response::Error(format!("the daemon did not answer within {} s", PATIENCE.as_secs())),
    }
}

async fn respond(
    write: &mut (impl tokio::io::AsyncWrite + Unpin),
    response: &Response,
) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    tokio::time::timeout(PATIENCE, write.write_all(&line))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}
