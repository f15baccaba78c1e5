//! DNS servers and hooks of a real client: set, told, and taken back, however it ends. Needs root or user namespaces, and says so
//! where it may not.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Cable, Daemon, FERRY6, joined, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct World {
    cable: Cable,
    dir: TempDir,
}

/// Up to 20 s: machines that run tests are busy.
#[track_caller]
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < end, "it did not happen within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl World {
    /// A broker with a DNS server for its clients, and a client; `resolvconf` is a script that writes down how it was called.
    fn new() -> Option<Self> {
        let cable = Cable::new()?;
        let world = Self { cable, dir: tempfile::tempdir().unwrap() };
        joined(world.dir.path());
        let toml = fs::read_to_string(world.path("b/broker.toml")).unwrap();
        world.write(
            "b/broker.toml",
            &toml.replace("[pool]", "[pool]\ndns = [\"2a00::2\", \"2a00::53\"]"),
            0o644,
        );
        fs::create_dir(world.path("bin")).unwrap();
        let log = world.path("resolvconf.log").display().to_string();
        world.write(
            "bin/resolvconf",
            &format!("#!/bin/sh\necho \"$@\" $(test \"$1\" = -a && cat) >>{log}\n"),
            0o755,
        );
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A hook that writes down what it was told, and then does `rest`.
    fn hook(&self, name: &str, rest: &str) -> String {
        let log = self.path("hooks.log").display().to_string();
        let script = format!(
            "#!/bin/sh\necho $FERRY6_EVENT $FERRY6_INTERFACE $FERRY6_ADDRESS \"<$FERRY6_DNS>\" $FERRY6_PEER $FERRY6_REASON \
             uid=$(id -u) >>{log}\n{rest}\n"
        );
        self.write(name, &script, 0o755);
        self.path(name).display().to_string()
    }

    fn configure(&self, dns: &str, hooks: &str) {
        let base = self.read("c/alice/client.toml");
        let base = base.split("\n[tunnel]").next().unwrap().to_owned();
        let text = format!("{base}\n[tunnel]\ndevice = \"ferry0\"\ndns = \"{dns}\"\n[hooks]\n{hooks}");
        self.write("c/alice/client.toml", &text, 0o644);
    }

    fn start(&self, role: &str) -> Daemon {
        let (host, file) = match role {
            "broker" => (&self.cable.broker, "b/broker.toml"),
            _ => (&self.cable.client, "c/alice/client.toml"),
        };
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.path(&format!("{role}.log"))).unwrap();
        let mut command = host.command(FERRY6);
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.args([role, "--config", file]).current_dir(self.dir.path()).env("PATH", path);
        Daemon(command.stdin(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn ask(&self, words: &[&str]) -> String {
        let output = Command::new(FERRY6)
            .args(words)
            .args(["--socket", "c/alice/client.sock"])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        text(&output)
    }

    /// The calls of `resolvconf` and of the hooks since the last look, once the last of them is as expected.
    fn expect(&self, file: &str, lines: &[&str]) {
        until(&format!("{file}: {lines:?}, but {}", self.read(file)), || {
            self.read(file).lines().count() >= lines.len()
        });
        assert_eq!(self.read(file).lines().collect::<Vec<_>>(), lines, "{}", self.read("client.log"));
        fs::write(self.path(file), "").unwrap();
    }

    /// The process that the client started.
    fn helper_of(&self, client: &Daemon) -> Pid {
        let children = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", client.0.id())).unwrap();
        until("the helper runs", || !children().is_empty());
        let list = children();
        let children: Vec<i32> = list.split_whitespace().map(|p| p.parse().unwrap()).collect();
        assert_eq!(children.len(), 1, "{list}");
        Pid::from_raw(children[0])
    }
}

const SET: &str = "-a ferry0.ferry6 nameserver 2a00::2 nameserver 2a00::53";
const TAKEN: &str = "-d ferry0.ferry6";

#[test]
fn dns_and_hooks_follow_the_tunnel_and_are_taken_back() {
    let Some(world) = World::new() else { return };
    let uid = nix::unistd::geteuid();
    let line = |event: &str, reason: &str| {
        format!("{event} ferry0 2a00::101 <2a00::2 2a00::53> 10.0.0.1 {reason} uid={uid}")
    };
    let hooks = format!("up = {:?}\ndown = {:?}\n", world.hook("up", ""), world.hook("down", "exit 3"));
    world.configure("resolvconf", &hooks);
    let _broker = world.start("broker");
    let mut client = world.start("client");
    world.expect("hooks.log", &[&line("up", "connected")]);
    world.expect("resolvconf.log", &[SET]);
    assert!(world.path("c/alice/client.dns").exists());

    // By command, and up again. A hook that fails is told, and no more.
    assert!(world.ask(&["down"]).contains("down"));
    world.expect("hooks.log", &[&line("down", "command")]);
    world.expect("resolvconf.log", &[TAKEN]);
    until("the failed hook is told", || world.read("client.log").contains("failed: exit status: 3"));
    until("the record goes", || !world.path("c/alice/client.dns").exists());
    assert!(world.ask(&["up"]).contains("connecting"));
    world.expect("hooks.log", &[&line("up", "connected")]);
    world.expect("resolvconf.log", &[SET]);

    // An orderly end: all is taken back before it is over, while the device is there.
    client.signal(Signal::SIGTERM);
    assert!(client.0.wait().unwrap().success(), "{}", world.read("client.log"));
    assert_eq!(world.read("resolvconf.log").trim(), TAKEN);
    world.expect("hooks.log", &[&line("down", "stopped")]);
    world.expect("resolvconf.log", &[TAKEN]);

    // A client that is killed: its helper sees it.
    let mut client = world.start("client");
    world.expect("resolvconf.log", &[SET]);
    world.expect("hooks.log", &[&line("up", "connected")]);
    client.signal(Signal::SIGKILL);
    client.0.wait().unwrap();
    world.expect("hooks.log", &[&line("down", "killed")]);
    world.expect("resolvconf.log", &[TAKEN]);

    // Both are killed: the next one takes back what was left.
    let mut client = world.start("client");
    world.expect("resolvconf.log", &[SET]);
    world.expect("hooks.log", &[&line("up", "connected")]);
    kill(world.helper_of(&client), Signal::SIGKILL).unwrap();
    client.signal(Signal::SIGKILL);
    client.0.wait().unwrap();
    let client = world.start("client");
    world.expect("resolvconf.log", &[TAKEN, SET]);
    world.expect("hooks.log", &[&line("up", "connected")]);
    drop(client);
    world.expect("resolvconf.log", &[TAKEN]);
}

#[test]
fn a_hook_that_hangs_holds_nobody() {
    let Some(world) = World::new() else { return };
    let hooks = format!("up = {:?}\n", world.hook("up", "sleep 1000 & sleep 1000"));
    world.configure("off", &hooks);
    let _broker = world.start("broker");
    let mut client = world.start("client");
    until("the hook runs", || world.read("hooks.log").contains("connected"));
    // Meanwhile the client is what it is.
    assert!(world.ask(&["status"]).contains("2a00::101"));
    until("it is killed", || world.read("client.log").contains("killed after 10 s"));
    assert!(world.ask(&["status"]).contains("2a00::101"));
    client.signal(Signal::SIGTERM);
    assert!(client.0.wait().unwrap().success(), "{}", world.read("client.log"));
    assert_eq!(world.read("resolvconf.log"), "", "dns is off");
}

#[test]
fn without_a_tool_and_without_hooks_there_is_no_helper() {
    let Some(world) = World::new() else { return };
    fs::remove_file(world.path("bin/resolvconf")).unwrap();
    world.configure("off", "");
    let _broker = world.start("broker");
    let client = world.start("client");
    until("it is up", || world.ask(&["status"]).contains("2a00::101"));
    let children = format!("/proc/{0}/task/{0}/children", client.0.id());
    assert_eq!(fs::read_to_string(children).unwrap(), "");
}

/// A broker whose hooks write down all of their environment but `PATH`, and then do `rest`.
fn broker_with_hooks(world: &World, rest: &str) {
    let log = world.path("hooks.log").display().to_string();
    world.write("hook", &format!("#!/bin/sh\necho $(env | grep ^FERRY6_ | sort) >>{log}\n{rest}\n"), 0o755);
    let hook = world.path("hook").display().to_string();
    let pool = "[pool]\nprefixes = \"2a00:0:0:1000::/52\"\nprefix_length = 64";
    let toml = world.read("b/broker.toml").replace("[pool]", pool);
    world.write("b/broker.toml", &format!("{toml}\n[hooks]\nup = {hook:?}\ndown = {hook:?}\n"), 0o644);
    world.configure("off", "");
    let client = world.read("c/alice/client.toml").replace("[tunnel]", "[tunnel]\nprefix = \"any\"");
    world.write("c/alice/client.toml", &client, 0o644);
}

#[test]
fn hooks_of_a_broker_follow_its_clients() {
    let Some(world) = World::new() else { return };
    broker_with_hooks(&world, "");
    let line = |event: &str, reason: &str| {
        format!(
            "FERRY6_ADDRESS=2a00::101 FERRY6_CONNECTION=clients FERRY6_EVENT={event} FERRY6_IDENTITY=alice@ferry6 \
             FERRY6_INTERFACE=ferry0 FERRY6_PREFIX=2a00:0:0:1000::/64 FERRY6_REASON={reason} FERRY6_REMOTE=10.0.0.2:4500"
        )
    };
    let mut broker = world.start("broker");
    let mut client = world.start("client");
    world.expect("hooks.log", &[&line("up", "connected")]);
    assert!(world.ask(&["down"]).contains("down"));
    world.expect("hooks.log", &[&line("down", "peer_deleted")]);
    assert!(world.ask(&["up"]).contains("connecting"));
    world.expect("hooks.log", &[&line("up", "connected")]);

    // In order: `down` has been run when it is over.
    broker.signal(Signal::SIGTERM);
    assert!(broker.0.wait().unwrap().success(), "{}", world.read("broker.log"));
    assert_eq!(world.read("hooks.log").trim(), line("down", "stopped"));
    world.expect("hooks.log", &[&line("down", "stopped")]);
    client.end();

    // Killed: its helper sees it.
    let mut broker = world.start("broker");
    let client = world.start("client");
    world.expect("hooks.log", &[&line("up", "connected")]);
    broker.signal(Signal::SIGKILL);
    broker.0.wait().unwrap();
    world.expect("hooks.log", &[&line("down", "killed")]);
    drop(client);

    // The helper is killed: the broker says so, and goes on.
    let broker = world.start("broker");
    kill(world.helper_of(&broker), Signal::SIGKILL).unwrap();
    until("it is told", || world.read("broker.log").contains("no hooks are run any more"));
    let _client = world.start("client");
    until("a client comes in", || world.ask(&["status"]).contains("2a00::101"));
    assert_eq!(world.read("hooks.log"), "");
}

/// Clients do not wait for hooks, and there is one process at a time.
#[test]
fn a_hook_that_hangs_holds_no_broker() {
    let Some(world) = World::new() else { return };
    // Once, for that takes its time.
    let hung = world.path("hung").display().to_string();
    broker_with_hooks(&world, &format!("test -e {hung} || {{ touch {hung}; sleep 1000; }}"));
    let mut broker = world.start("broker");
    let mut client = world.start("client");
    until("the hook runs", || world.read("hooks.log").contains("EVENT=up"));
    // Meanwhile it comes and goes.
    for _ in 0..3 {
        client.end();
        client = world.start("client");
        until("it is up", || world.ask(&["status"]).contains("2a00::101"));
    }
    assert_eq!(world.read("hooks.log").lines().count(), 1);
    until("it is killed", || world.read("broker.log").contains("killed after 10 s"));
    // Of all that came and went, this is left: the one that was up is down, the last one is up.
    until("the others follow", || world.read("hooks.log").lines().count() >= 3);
    let log = world.read("hooks.log");
    let events: Vec<&str> =
        log.lines().filter_map(|l| l.split("FERRY6_EVENT=").nth(1)?.split(' ').next()).collect();
    assert_eq!(events, ["up", "down", "up"], "{log}");
    broker.signal(Signal::SIGTERM);
    assert!(broker.0.wait().unwrap().success(), "{}", world.read("broker.log"));
    assert!(world.read("hooks.log").lines().last().unwrap().contains("FERRY6_REASON=stopped"));
}

/// Whoever may write a hook, or put another in its place, could do anything as root.
#[test]
fn hooks_that_others_could_write_are_refused() {
    let Some(world) = World::new() else { return };
    let hook = world.hook("hook", "");
    world.configure("off", &format!("up = {hook:?}\n"));
    let check = || {
        let output = Command::new(FERRY6)
            .args(["client", "--check", "--config", "c/alice/client.toml"])
            .current_dir(world.dir.path())
            .output()
            .unwrap();
        (output.status.code(), text(&output))
    };
    assert_eq!(check().0, Some(0), "{}", check().1);
    for (file, mode, part) in [
        ("hook", 0o775, "may be written by others (mode 0775); do: chmod go-w"),
        ("hook", 0o644, "can't be run; do: chmod u+x"),
        ("", 0o777, "may be written by others (mode 0777)"),
    ] {
        let before = fs::metadata(world.path(file)).unwrap().permissions();
        fs::set_permissions(world.path(file), fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = check();
        assert!(code == Some(2) && said.contains("hooks.up: ") && said.contains(part), "{part}: {said}");
        fs::set_permissions(world.path(file), before).unwrap();
    }
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(world.path("hook"), Some(65534), None).unwrap();
        let (code, said) = check();
        assert!(code == Some(2) && said.contains("belongs to user 65534"), "{said}");
    }
    fs::remove_file(world.path("hook")).unwrap();
    assert!(check().1.contains("No such file"), "{}", check().1);
}
