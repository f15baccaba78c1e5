//! Bad configurations and bad systems: one clear error each, with file, line and key where there is one, a non-zero
//! exit code, and nothing left behind.

use super::tunnel::{FERRY6, Spec, ip};
use super::{Case, Env, Peer, Role};
use crate::ferry::Mode;
use crate::pki::KeyType;
use crate::write_private;
use anyhow::{Context, Result, bail, ensure};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Exit code for wrong usage or configuration.
const USAGE: i32 = 2;
/// Exit code for what the system refuses.
const SYSTEM: i32 = 1;
/// Exit code for a right that is missing.
const NOT_PERMITTED: i32 = 4;
/// Exit code where another one is there already.
const BUSY: i32 = 5;

/// An edit of a good configuration, and what the error must say.
struct Edit {
    name: &'static str,
    feature: &'static str,
    mode: Mode,
    edit: fn(&str) -> String,
    /// A line of the edited file with these words is the one that the error must name.
    line: &'static str,
    says: &'static [&'static str],
}

const EDITS: &[Edit] = &[
    Edit {
        name: "wrong-toml",
        feature: "a file that is no TOML",
        mode: Mode::Client,
        edit: |t| t.replacen("[local]", "[local", 1),
        line: "[local",
        says: &[],
    },
    Edit {
        name: "unknown-key",
        feature: "an unknown key, with the one that was meant",
        mode: Mode::Client,
        edit: |t| t.replacen("[local]", "[local]\ncerts = \"x.crt\"", 1),
        line: "certs =",
        says: &["certs", "cert"],
    },
    Edit {
        name: "unknown-table",
        feature: "an unknown table",
        mode: Mode::Broker,
        edit: |t| t.replacen("[pool]", "[pols]\nx = 1\n[pool]", 1),
        line: "[pols]",
        says: &["pols"],
    },
    Edit {
        name: "wrong-value",
        feature: "a value of the wrong type",
        mode: Mode::Broker,
        edit: |t| t.replacen("[tunnel]", "[tunnel]\nmtu = \"large\"", 1),
        line: "mtu =",
        says: &["tunnel.mtu"],
    },
    Edit {
        name: "mtu-too-small",
        feature: "an MTU that IPv6 does not allow",
        mode: Mode::Client,
        edit: |t| t.replacen("[tunnel]", "[tunnel]\nmtu = 1000", 1),
        line: "mtu =",
        says: &["tunnel.mtu", "1280"],
    },
    Edit {
        name: "unknown-algorithm",
        feature: "a proposal with an unknown algorithm",
        mode: Mode::Client,
        edit: |t| t.replacen("aes256gcm16-prfsha256-x25519", "aes257gcm16-prfsha256-x25519", 1),
        line: "aes257gcm16",
        says: &["ike.proposals", "aes257gcm16"],
    },
    Edit {
        name: "no-key-file",
        feature: "a private key that is not there",
        mode: Mode::Client,
        edit: |t| t.replacen("client.key", "nowhere.key", 1),
        line: "nowhere.key",
        says: &["local.key", "nowhere.key", "No such file"],
    },
    Edit {
        name: "no-ca",
        feature: "no CA for a peer with certificates",
        mode: Mode::Broker,
        edit: |t| t.lines().filter(|l| !l.starts_with("ca =")).fold(String::new(), |t, l| t + l + "\n"),
        line: "",
        says: &["remote.ca"],
    },
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for edit in EDITS {
        cases.push(Case::new(
            format!("config-{}", edit.name),
            Peer::None,
            if edit.mode == Mode::Client { Role::Client } else { Role::Broker },
            edit.feature,
            |env| edited(env, edit),
        ));
    }
    let mut case = |name: &str, role, feature: &str, run: fn(&mut Env) -> Result<()>| {
        cases.push(Case::new(name, Peer::None, role, feature, run));
    };
    case(
        "config-check-good",
        Role::Both,
        "--check of good configurations: exit code 0, nothing changed",
        good,
    );
    case("config-mismatching-key", Role::Client, "a private key of another certificate", mismatching_key);
    case("config-expired", Role::Client, "its own certificate has expired", expired);
    case("config-id-not-in-san", Role::Client, "its own identity is not in its certificate", wrong_id);
    case("config-readable-key", Role::Broker, "a private key that others may read", readable_key);
    case("config-no-file", Role::Client, "no configuration", no_file);
    case("config-port-in-use", Role::Broker, "UDP port in use", port_in_use);
    case("config-no-tun", Role::Client, "no /dev/net/tun", no_tun);
    case("config-no-permission", Role::Client, "no permission: a plain user", no_permission);
    cases
}

fn written(env: &Env, mode: Mode, edit: impl FnOnce(&str) -> String) -> Result<PathBuf> {
    let dir = env.subdir(mode.word())?;
    let toml = Spec::certified(env, FERRY6, FERRY6)?.toml(mode, &dir, "aws-lc")?;
    let edited = edit(&toml);
    let file = dir.join("ferry6.toml");
    write_private(&file, &edited)?;
    Ok(file)
}

fn host(env: &Env, mode: Mode) -> &ferry6::lab::Host {
    if mode == Mode::Client { &env.net.home } else { &env.net.broker }
}

/// Runs to its end; a ferry6 that stays up is a fault.
fn finishes(command: &mut Command) -> Result<Output> {
    let mut child = command
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let end = Instant::now() + Duration::from_secs(10);
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            let output = child.wait_with_output()?;
            bail!("it runs instead of an error:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child.wait_with_output()?)
}

/// It must end with this exit code, say these words, and leave nothing behind.
fn refuses(env: &Env, mode: Mode, command: &mut Command, code: i32, says: &[&str]) -> Result<()> {
    let host = host(env, mode);
    let before = (ip(host, "-o link show")?, ip(host, "-6 route show")?);
    let output = finishes(command)?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{} instead of exit code {code}:\n{text}", output.status);
    for words in says {
        ensure!(text.contains(words), "the error does not say “{words}”:\n{text}");
    }
    ensure!(!text.contains("panicked"), "it panicked:\n{text}");
    let after = (ip(host, "-o link show")?, ip(host, "-6 route show")?);
    ensure!(before == after, "it left something behind: {before:?} {after:?}");
    ensure!(
        !crate::ferry::Ferry::socket(&env.subdir(mode.word())?).exists(),
        "it left its control socket behind"
    );
    Ok(())
}

fn command(env: &Env, mode: Mode, file: &std::path::Path) -> Command {
    let mut command = host(env, mode).command(&env.ferry6);
    command.args([mode.word(), "--config"]).arg(file);
    command
}

fn edited(env: &mut Env, edit: &Edit) -> Result<()> {
    let file = written(env, edit.mode, edit.edit)?;
    let text = std::fs::read_to_string(&file)?;
    let place = if edit.line.is_empty() {
        file.display().to_string()
    } else {
        let line = text.lines().position(|l| l.contains(edit.line)).context("the edit is there")? + 1;
        format!("{}:{line}", file.display())
    };
    let says: Vec<&str> = edit.says.iter().copied().chain([place.as_str()]).collect();
    // The same with and without --check.
    refuses(env, edit.mode, &mut command(env, edit.mode, &file), USAGE, &says)?;
    refuses(env, edit.mode, command(env, edit.mode, &file).arg("--check"), USAGE, &says)
}

fn good(env: &mut Env) -> Result<()> {
    for mode in [Mode::Client, Mode::Broker] {
        let file = written(env, mode, str::to_owned)?;
        let host = host(env, mode);
        let before = (ip(host, "-o link show")?, ip(host, "-6 route show")?);
        let output = finishes(command(env, mode, &file).arg("--check"))?;
        ensure!(output.status.success(), "{}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        ensure!(
            before == (ip(host, "-o link show")?, ip(host, "-6 route show")?),
            "--check changed something"
        );
    }
    Ok(())
}

fn mismatching_key(env: &mut Env) -> Result<()> {
    let file = written(env, Mode::Client, |t| t.replacen("client.key", "broker.key", 1))?;
    let place = format!("{}:", file.display());
    refuses(
        env,
        Mode::Client,
        &mut command(env, Mode::Client, &file),
        USAGE,
        &[&place, "local.", "does not belong to the certificate"],
    )
}

fn expired(env: &mut Env) -> Result<()> {
    let file = written(env, Mode::Client, |t| t.replacen("client.key", "old.key", 1))?;
    let text = std::fs::read_to_string(&file)?;
    let ca = crate::pki::Ca::new(&env.subdir("old-pki")?, "ca", KeyType::Ecdsa256)?;
    let old =
        ca.issue("old", super::tunnel::CLIENT_ID, KeyType::Ecdsa256, crate::pki::Flaw { expired: true })?;
    let mut edited = String::new();
    for line in text.lines() {
        edited += &match line.split_once(" = ") {
            Some(("cert", _)) => format!("cert = {:?}", old.cert),
            Some(("key", _)) => format!("key = {:?}", old.key),
            _ => line.to_owned(),
        };
        edited.push('\n');
    }
    write_private(&file, &edited)?;
    refuses(
        env,
        Mode::Client,
        &mut command(env, Mode::Client, &file),
        USAGE,
        &["local.cert", "expired", "2021"],
    )
}

fn wrong_id(env: &mut Env) -> Result<()> {
    let file = written(env, Mode::Client, |t| t.replacen("client@my.domain", "other@my.domain", 1))?;
    refuses(
        env,
        Mode::Client,
        &mut command(env, Mode::Client, &file),
        USAGE,
        &["local.", "other@my.domain", "client@my.domain"],
    )
}

fn readable_key(env: &mut Env) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let file = written(env, Mode::Broker, str::to_owned)?;
    let key = env.subdir("pki")?.join("broker.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))?;
    let says = ["local.key", "chmod 600", "broker.key"];
    refuses(env, Mode::Broker, &mut command(env, Mode::Broker, &file), USAGE, &says)
}

fn no_file(env: &mut Env) -> Result<()> {
    let file = env.dir.join("nowhere.toml");
    refuses(
        env,
        Mode::Client,
        &mut command(env, Mode::Client, &file),
        USAGE,
        &["nowhere.toml", "No such file"],
    )
}

fn port_in_use(env: &mut Env) -> Result<()> {
    let file = written(env, Mode::Broker, str::to_owned)?;
    for port in [500, 4500] {
        let _held = env.net.broker.run(|| UdpSocket::bind(("0.0.0.0", port)))?;
        let port = port.to_string();
        refuses(env, Mode::Broker, &mut command(env, Mode::Broker, &file), BUSY, &[&port, "in use"])?;
    }
    Ok(())
}

fn no_tun(env: &mut Env) -> Result<()> {
    let file = written(env, Mode::Client, str::to_owned)?;
    env.net.home.tmpfs("/dev/net")?;
    refuses(
        env,
        Mode::Client,
        &mut command(env, Mode::Client, &file),
        SYSTEM,
        &["/dev/net/tun", "modprobe tun"],
    )
}

fn no_permission(env: &mut Env) -> Result<()> {
    const NOBODY: &str = "65534";
    let file = written(env, Mode::Client, str::to_owned)?;
    let owner = format!("{NOBODY}:{NOBODY}");
    let chown = Command::new("chown").args(["-R", &owner]).arg(&env.dir).output()?;
    ensure!(chown.status.success(), "chown failed");
    // The whole path to the files must be open to nobody, which a log directory need not be: under /tmp it is.
    let home = tempfile::Builder::new().prefix("ferry6-interop-").tempdir_in("/tmp")?;
    let copied = Command::new("cp").arg("-a").arg(&env.dir).arg(home.path()).output()?;
    ensure!(copied.status.success(), "cp failed");
    let binary = home.path().join("ferry6");
    std::fs::copy(&env.ferry6, &binary)?;
    let chown = Command::new("chown").arg(&owner).arg(home.path()).arg(&binary).output()?;
    ensure!(chown.status.success(), "chown failed");
    let name = env.dir.file_name().context("the case's directory has a name")?;
    let copy = home.path().join(name);
    let file = copy.join(file.strip_prefix(&env.dir)?);
    let text = std::fs::read_to_string(&file)?;
    let text = text.replace(&env.dir.display().to_string(), &copy.display().to_string());
    std::fs::write(&file, text)?;
    let mut command = env.net.home.command("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=-all", "--"]);
    command.arg(binary).args(["client", "--config"]).arg(&file);
    refuses(env, Mode::Client, &mut command, NOT_PERMITTED, &["CAP_NET_ADMIN"])
}
