//! Inside the guest: its first process, which mounts what daemons need, and then does what the case asks over the serial
//! line.

use super::rewrite;
use crate::traffic;
use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The serial line to the case.
const LINE: &str = "/dev/ttyS0";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Octets of output that one command may send back.
const MAX_OUTPUT: usize = 1 << 20;

/// Runs as the guest's init; `dir` is the folder that is shared with the case. Returns only if something is wrong.
pub fn run(dir: &Path) -> Result<()> {
    prepare(dir)?;
    let raw = Command::new("stty").args(["-F", LINE, "raw", "-echo"]).status()?;
    ensure!(raw.success(), "stty cannot set {LINE} raw: {raw}");
    let mut line = File::options().read(true).write(true).open(LINE)?;
    let requests = BufReader::new(line.try_clone()?);
    answer(&mut line, &json!({ "ready": true }))?;
    for request in requests.lines() {
        let request = request?;
        let result = serde_json::from_str(&request).map_err(Into::into).and_then(|r| serve(&r));
        let response = result.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        answer(&mut line, &response)?;
    }
    bail!("the serial line has ended")
}

fn answer(line: &mut File, response: &Value) -> Result<()> {
    let mut text = response.to_string();
    text.push('\n');
    Ok(line.write_all(text.as_bytes())?)
}

fn prepare(dir: &Path) -> Result<()> {
    let put = |kind: &str, target: &str| {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} on {target}"))
    };
    put("proc", "/proc")?;
    put("sysfs", "/sys")?;
    put("tmpfs", "/run")?;
    put("tmpfs", "/tmp")?;
    // The root is the machine's own, read-only; the case's folder alone can be written to.
    fs::create_dir_all(dir)?;
    let option = dir.to_str().context("the folder's name is no text")?;
    mount(Some("none"), dir, Some("hostfs"), MsFlags::empty(), Some(option))
        .with_context(|| format!("cannot mount the case's folder {option}"))?;

    // The kernel loads modules through a program of our choice: the modules are not where modprobe looks.
    fs::create_dir_all("/run/modules/lib")?;
    symlink(super::MODULES, "/run/modules/lib/modules")?;
    let wrapper = Path::new("/run/modprobe");
    fs::write(wrapper, "#!/bin/sh\nexec /sbin/modprobe -d /run/modules \"$@\"\n")?;
    fs::set_permissions(wrapper, fs::Permissions::from_mode(0o755))?;
    fs::write("/proc/sys/kernel/modprobe", "/run/modprobe")?;
    // Failures of daemons are the case's to see, not cores on the machine.
    fs::write("/proc/sys/kernel/core_pattern", "/dev/null")?;
    Ok(())
}

fn serve(request: &Value) -> Result<Value> {
    let text = |key: &str| request[key].as_str().with_context(|| format!("`{key}` is missing in {request}"));
    let number =
        |key: &str| request[key].as_u64().with_context(|| format!("`{key}` is missing in {request}"));
    match text("do")? {
        "sh" => shell(text("command")?),
        "rewrite" => {
            rewrite::start(text("how")?.parse()?, text("peer")?.parse()?, text("route")?.to_owned())?;
            Ok(json!({}))
        }
        "ping" => {
            let pause = Duration::from_millis(number("pause_ms")?);
            let count = traffic::ping_here(text("to")?.parse()?, number("count")? as u32, pause)?;
            Ok(json!({
                "sent": count.sent, "unsent": count.unsent, "received": count.received, "duplicates": count.duplicates,
            }))
        }
        "tcp" => {
            traffic::tcp_client(text("to")?.parse()?, number("octets")? as usize)?;
            Ok(json!({}))
        }
        other => bail!("unknown request {other}"),
    }
}

/// Runs a command to its end. What it leaves in the background must write elsewhere than to its output.
fn shell(command: &str) -> Result<Value> {
    let output = Command::new("/bin/sh")
        .args(["-c", command])
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .output()
        .context("cannot start /bin/sh")?;
    let mut text = [output.stdout, output.stderr].concat();
    text.truncate(MAX_OUTPUT);
    Ok(json!({ "ok": output.status.success(), "output": String::from_utf8_lossy(&text) }))
}
