//! What a container leaves a daemon: CAP_NET_ADMIN and no other capability, /dev/net/tun and hardly another device, a file system that can't
//! be written but for its volumes, sysctls that can't be set. And rootless: root of a user namespace alone. docs/containers.md tells of both.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Cable, Daemon, FERRY6, joined, text};
use std::fs;
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[track_caller]
fn until(what: &str, log: &Path, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(
            Instant::now() < end,
            "not within 20 s: {what}: {}",
            fs::read_to_string(log).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// As an engine starts it, `--cap-drop=all --cap-add=net_admin --read-only --device=/dev/net/tun`: mounts first, then the capabilities.
const CONTAINER: &str = "
set -e
mount --bind \"$1\" \"$1\"
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
for place in /usr /etc /var /lib /home /root /opt; do
    if [ -d $place ] && [ ! -L $place ]; then mount --rbind $place $place; mount -o remount,bind,ro $place; fi
done
mkdir \"$1/dev\"
touch \"$1/dev/tun\" \"$1/dev/null\"
mount --bind /dev/net/tun \"$1/dev/tun\"
mount --bind /dev/null \"$1/dev/null\"
mount -t tmpfs none /dev
mkdir /dev/net
touch /dev/net/tun /dev/null
mount --bind \"$1/dev/tun\" /dev/net/tun
mount --bind \"$1/dev/null\" /dev/null
if touch /usr/written /etc/written 2>/dev/null || echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/all/forwarding; then
    echo 'ERROR this is no container' >&2
    exit 9
fi
cd \"$1\"
shift
exec setpriv --bounding-set=-all,+net_admin --inh-caps=-all --ambient-caps=-all -- \"$@\"
";

#[test]
fn net_admin_and_the_tun_device_are_enough() {
    let Some(cable) = Cable::new() else { return };
    if !Command::new("setpriv").arg("--version").output().is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: there is no setpriv");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    joined(dir.path());
    // What an engine sets for a container's network namespace: --sysctl.
    for host in [&cable.broker, &cable.client] {
        host.sysctl("net.ipv4.ip_unprivileged_port_start", "0").unwrap();
    }
    cable.broker.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    let mut daemons = Vec::new();
    for (host, role, own, config) in [
        (&cable.broker, "broker", "b", "b/broker.toml"),
        (&cable.client, "client", "c", "c/alice/client.toml"),
    ] {
        // Volumes of its own.
        let volume = dir.path().join(format!("volume-{role}"));
        fs::create_dir(&volume).unwrap();
        fs::rename(dir.path().join(own), volume.join(own)).unwrap();
        fs::copy(FERRY6, volume.join("ferry6")).unwrap();
        let log = dir.path().join(format!("{role}.log"));
        let mut command = host.command("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-c", CONTAINER, "sh"]).arg(&volume);
        command.args(["./ferry6", role, "--config", config]).stdin(Stdio::null());
        daemons.push(Daemon(command.stderr(fs::File::create(log).unwrap()).spawn().unwrap()));
    }
    let log = |role: &str| dir.path().join(format!("{role}.log"));
    until("the tunnel is up", &log("client"), || {
        fs::read_to_string(log("client")).unwrap().contains("tunnel up")
    });
    for daemon in &daemons {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.0.id())).unwrap();
        for line in ["CapEff:\t0000000000001000", "CapPrm:\t0000000000001000", "CapBnd:\t0000000000001000"] {
            assert!(status.contains(line), "{line}: {status}");
        }
    }
    until("it carries", &log("broker"), || {
        let listener = cable.broker.run(|| TcpListener::bind("[2a00::2]:0")).unwrap();
        let target = listener.local_addr().unwrap();
        let stream = cable.client.run(|| TcpStream::connect_timeout(&target, Duration::from_secs(2)));
        let from = stream.and_then(|s| s.local_addr()).map(|a| a.ip());
        from.is_ok_and(|ip| ip == "2a00::101".parse::<Ipv6Addr>().unwrap())
    });
    for daemon in daemons.iter_mut().rev() {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(daemon.0.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        assert!(daemon.0.wait().unwrap().success());
    }
    for role in ["broker", "client"] {
        let said = fs::read_to_string(log(role)).unwrap();
        assert!(!said.contains("ERROR"), "{role}: {said}");
    }
}

/// `unshare -Urn`, as a rootless engine does: a user without any right becomes root of a user namespace with a network of its own, and a
/// daemon comes up in it, device, ports, routes, sysctls and all.
#[test]
fn rootless_in_a_user_namespace() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "SKIPPED: only root can become a user without rights; the other tests run in user namespaces then"
        );
        return;
    }
    let tun = fs::metadata("/dev/net/tun").is_ok_and(|m| m.permissions().mode() & 0o006 == 0o006);
    let as_user = |dir: &Path, program: &str| {
        let mut command = Command::new(program);
        command.uid(65_534).gid(65_534).current_dir(dir).stdin(Stdio::null());
        command
    };
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let may =
        as_user(dir.path(), "unshare").args(["-Urn", "true"]).output().is_ok_and(|o| o.status.success());
    if !tun || !may {
        eprintln!("SKIPPED: /dev/net/tun is not everybody's here, or user namespaces are not");
        return;
    }
    let program = dir.path().join("ferry6");
    fs::copy(FERRY6, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    // All is the user's.
    for words in [
        &["broker", "init", "--dir", "b", "--address", "127.0.0.1", "--prefix", "2a00::100/120", "--no-unit"]
            [..],
        &["broker", "invite", "alice", "--dir", "b"],
    ] {
        let output = as_user(dir.path(), program.to_str().unwrap()).args(words).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    let script = "
set -e
echo 1 >/proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || true
ip link set lo up
./ferry6 broker --config b/broker.toml &
broker=$!
for n in $(seq 200); do ./ferry6 status --socket b/broker.sock >/dev/null 2>&1 && break; sleep 0.05; done
./ferry6 status --socket b/broker.sock
echo forwarding $(cat /proc/sys/net/ipv6/conf/all/forwarding)
ip -6 route show 2a00::100/120
kill -TERM $broker
wait $broker
echo ended $?
";
    let output = as_user(dir.path(), "unshare").args(["-Urn", "sh", "-c", script]).output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for part in ["broker on 0.0.0.0 UDP 500 and 4500", "forwarding 1", "2a00::100/120 dev ferry0", "ended 0"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}
