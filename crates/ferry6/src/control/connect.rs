//! The command's end of the control socket.

use super::{Request, Response};
use crate::cli::UsageError;
use crate::config::RUN_DIR;
use crate::exit;
use anyhow::{Context as _, anyhow, bail};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest response in octets; 10,000 tunnels are about 10 MB.
const RESPONSE_LIMIT: u64 = 256 << 20;
/// Longer than the daemon's own patience, so that its reason is told and not ours.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks one daemon.
///
/// # Errors
/// No daemon, no permission, no answer; and what the daemon itself refused.
pub fn ask(socket: &Path, request: &Request) -> anyhow::Result<Response> {
    let shown = socket.display();
    let stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
        ErrorKind::NotFound => exit::no_daemon(format!("no ferry6 daemon is running: there is no {shown}")),
        ErrorKind::ConnectionRefused => {
            exit::no_daemon(format!("no ferry6 daemon is running: nobody answers on {shown}"))
        }
        ErrorKind::PermissionDenied => {
            exit::not_permitted(format!("{shown}: not permitted; ask as root or as the daemon's user"))
        }
        _ => anyhow!("{shown}: {e}"),
    })?;
    stream.set_read_timeout(Some(PATIENCE)).context("control socket")?;
    stream.set_write_timeout(Some(PATIENCE)).context("control socket")?;
    let mut line = serde_json::to_vec(request).context("cannot write the request")?;
    line.push(b'\n');
    (&stream).write_all(&line).with_context(|| format!("{shown}: cannot ask"))?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new((&stream).take(RESPONSE_LIMIT));
    reader.read_until(b'\n', &mut answer).with_context(|| format!("{shown}: no answer from the daemon"))?;
    if answer.is_empty() {
        bail!("{shown}: the daemon hung up; is it stopping?");
    }
    match serde_json::from_slice(&answer).with_context(|| format!("{shown}: the answer is not understood"))? {
        Response::Error(text) => bail!("{text}"),
        Response::Misconfigured(text) => Err(UsageError(text).into()),
        response => Ok(response),
    }
}

/// The sockets to ask: the one that was named, else all in /run/ferry6.
///
/// # Errors
/// There is none.
pub fn sockets(named: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    if let Some(named) = named {
        return Ok(vec![named.to_owned()]);
    }
    let mut list: Vec<PathBuf> = match std::fs::read_dir(RUN_DIR) {
        Ok(entries) => entries
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "sock"))
            .collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).context(RUN_DIR),
    };
    list.sort();
    if list.is_empty() {
        return Err(exit::no_daemon(format!(
            "no ferry6 daemon is running (no socket in {RUN_DIR}); name its socket with --socket if it is elsewhere"
        )));
    }
    Ok(list)
}

/// The one socket for a command that changes something.
///
/// # Errors
/// There is none, or there are several and the caller must choose.
pub fn one_socket(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let mut list = sockets(named)?;
    if list.len() > 1 {
        let all: Vec<String> = list.iter().map(|p| p.display().to_string()).collect();
        bail!("several daemons are running; choose one with --socket: {}", all.join(", "));
    }
    Ok(list.remove(0))
}
