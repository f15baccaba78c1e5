//! Broker and client as processes, with the documented examples and certificates by `ferry6 pki`: what a person sees who
//! follows the README. Needs root or user namespaces, and says so where it may not.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Cable, FERRY6, text};
use ferry6::lab::Host;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A broker at 10.0.0.1 and a client at 10.0.0.2, on one cable.
struct World {
    cable: Cable,
    dir: TempDir,
}

impl World {
    /// None where this user may make no namespaces.
    fn new() -> Option<Self> {
        let cable = Cable::new()?;
        let dir = tempfile::tempdir().unwrap();
        let world = Self { cable, dir };
        world.pki();
        Some(world)
    }

    /// The README's first step, by its commands.
    fn pki(&self) {
        for words in [
            &["ca", "--cn", "my.domain CA", "--out", "ca"][..],
            &["issue", "--ca", "ca", "--san", "dns:tunnel.my.domain", "--out", "broker"],
            &["issue", "--ca", "ca", "--san", "email:client@my.domain", "--out", "client"],
        ] {
            let output =
                Command::new(FERRY6).arg("pki").args(words).current_dir(self.dir.path()).output().unwrap();
            assert!(output.status.success(), "{}", text(&output));
        }
        let broker = include_str!("../../../docs/examples/broker.toml");
        self.write("broker.toml", &format!("control = \"broker.sock\"\nstate_dir = \"state\"\n{broker}"));
        let client = include_str!("../../../docs/examples/client.toml")
            .replace("address = \"tunnel.my.domain\"", "address = \"10.0.0.1\"")
            .replace("[remote]", "[remote]\nid = \"tunnel.my.domain\"");
        self.write("client.toml", &format!("control = \"client.sock\"\n{client}"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn host(&self, role: &str) -> &Host {
        if role == "broker" { &self.cable.broker } else { &self.cable.client }
    }

    fn daemon(&self, role: &str) -> Command {
        let mut command = self.host(role).command(FERRY6);
        command.args([role, "--config"]).arg(self.path(&format!("{role}.toml"))).stdin(Stdio::null());
        command
    }

    /// Starts a daemon whose log goes to `role.log`, and waits until it answers.
    fn start(&self, role: &str) -> Daemon {
        let log = fs::File::create(self.path(&format!("{role}.log"))).unwrap();
        let child = self.daemon(role).stderr(log).spawn().unwrap();
        let mut daemon = Daemon(Some(child));
        until(|| {
            assert!(daemon.child().try_wait().unwrap().is_none(), "{role}: {}", self.log(role));
            self.ask(role, &["status"]).status.success()
        });
        daemon
    }

    fn log(&self, role: &str) -> String {
        fs::read_to_string(self.path(&format!("{role}.log"))).unwrap()
    }

    /// A control command. The socket is a file: any namespace reaches it.
    fn ask(&self, role: &str, words: &[&str]) -> Output {
        let socket = self.path(&format!("{role}.sock"));
        Command::new(FERRY6).args(words).arg("--socket").arg(socket).output().unwrap()
    }

    /// Octets through the tunnel: from the client to the broker's IPv6 address and back.
    fn carries(&self) -> bool {
        let listener = self.cable.broker.run(|| TcpListener::bind("[2a00::2]:0")).unwrap();
        let address = listener.local_addr().unwrap();
        self.cable
            .client
            .run(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)))
            .and_then(|stream| stream.local_addr())
            .is_ok_and(|from| from.ip() == "2a00::101".parse::<Ipv6Addr>().unwrap())
    }

    /// Interfaces, IPv6 addresses and routes of a host.
    fn picture(&self, role: &str) -> String {
        let script = "cat /proc/net/dev | cut -d: -f1; cat /proc/net/if_inet6; cat /proc/net/ipv6_route | cut -c1-150; \
                      cat /proc/sys/net/ipv6/conf/all/forwarding";
        let output = self.host(role).command("sh").args(["-c", script]).output().unwrap();
        assert!(output.status.success());
        let mut lines: Vec<String> = text(&output)
            .lines()
            // The last columns count uses.
            .map(|l| if l.len() > 100 { l[..72].to_owned() } else { l.to_owned() })
            .collect();
        lines.sort();
        lines.join("\n")
    }
}

/// A process that does not outlive its test.
struct Daemon(Option<Child>);

impl Daemon {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it runs")
    }

    fn signal(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.child().id() as i32), signal).unwrap();
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let child = self.child();
        until(|| child.try_wait().unwrap().is_some());
        self.0.take().expect("it ran").wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Up to 15 s: machines that run tests are busy.
fn until(mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !happened() {
        assert!(Instant::now() < end, "it did not happen within 15 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs to its end.
fn fails(mut command: Command, code: i32, words: &[&str]) {
    let output = command.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "it does not say {word:?}: {said}");
    }
}

#[test]
fn the_whole_life_of_a_tunnel() {
    let Some(world) = World::new() else { return };
    let before = (world.picture("broker"), world.picture("client"));
    for role in ["broker", "client"] {
        let output = world.daemon(role).arg("--check").output().unwrap();
        assert!(output.status.success() && text(&output).contains("no faults"), "{}", text(&output));
    }
    assert_eq!(before, (world.picture("broker"), world.picture("client")), "--check changed something");

    let mut broker = world.start("broker");
    let mut client = world.start("client");
    until(|| world.log("client").contains("tunnel up: tunnel.my.domain at 10.0.0.1:4500, 2a00::101/128"));
    until(|| world.carries());
    let status = text(&world.ask("broker", &["status"]));
    assert!(status.contains("flow esp in  from 2a00::101/128 to ::/0"), "{status}");
    assert!(status.contains("2a00::101  client@my.domain  in use by ike 1"), "{status}");
    let json: serde_json::Value =
        serde_json::from_slice(&world.ask("client", &["status", "--json"]).stdout).unwrap();
    assert_eq!(json[0]["client"]["state"], "up");
    assert_eq!(json[0]["client"]["address"], "2a00::101");

    // Rekeys: new SPIs, and traffic goes on.
    let spi = |json: &serde_json::Value| json[0]["router"]["ike_sas"][0]["children"][0]["spi_in"].clone();
    for words in [&["rekey"][..], &["rekey", "--child", "client@my.domain"], &["rekey", "--ike", "1"]] {
        let role = if words.len() == 1 { "client" } else { "broker" };
        let output = world.ask(role, words);
        assert!(output.status.success(), "{}", text(&output));
        until(|| world.carries());
    }
    until(|| {
        let now = world.ask("client", &["status", "--json"]).stdout;
        spi(&serde_json::from_slice(&now).unwrap()) != spi(&json)
    });
    let output = world.ask("broker", &["rekey", "nobody@my.domain"]);
    assert_eq!((output.status.code(), text(&output).contains("no SA is nobody@my.domain")), (Some(1), true));

    // Down and up by command: while it is down, nothing of it is left.
    assert!(world.ask("client", &["down"]).status.success());
    until(|| text(&world.ask("client", &["status"])).contains("down: by command"));
    assert!(
        !world.picture("client").contains("2a000000000000000000000000000101"),
        "the address is still there"
    );
    assert!(world.ask("client", &["up"]).status.success());
    until(|| world.carries());

    // A killed client is replaced; the broker knows it again.
    client.end(Signal::SIGKILL);
    assert!(world.path("client.sock").exists(), "a killed daemon leaves its socket");
    let mut client = world.start("client");
    until(|| world.carries());
    // A killed broker comes again: the same address, from its store.
    broker.end(Signal::SIGKILL);
    let mut broker = world.start("broker");
    assert!(world.ask("client", &["down"]).status.success());
    assert!(world.ask("client", &["up"]).status.success());
    until(|| world.carries());

    // A second daemon with the same socket or store says so, and the first one goes on.
    fails(world.daemon("client"), 5, &["another ferry6 runs already", "client.sock"]);
    let config = fs::read_to_string(world.path("broker.toml")).unwrap();
    world.write("broker.toml", &config.replace("broker.sock", "other.sock"));
    fails(world.daemon("broker"), 5, &["leases.redb is in use", "state_dir"]);
    assert!(world.carries());

    // An orderly end: DELETE, exit code 0, and everything as it was.
    assert!(client.end(Signal::SIGINT).success(), "{}", world.log("client"));
    until(|| world.log("broker").contains("client@my.domain down from 10.0.0.2:4500: deleted by the peer"));
    assert!(broker.end(Signal::SIGTERM).success(), "{}", world.log("broker"));
    assert_eq!(before, (world.picture("broker"), world.picture("client")), "something is left behind");
    for socket in ["client.sock", "broker.sock", "other.sock"] {
        assert!(!world.path(socket).exists(), "{socket} is left behind");
    }
    for role in ["client", "broker"] {
        assert!(!world.log(role).contains('\u{1b}'), "colours in a file");
        assert!(!world.log(role).contains("ERROR"), "{}", world.log(role));
    }
}

/// Both sides read their configuration anew, by command and by SIGHUP; the tunnel stands throughout.
#[test]
fn a_reload_drops_no_tunnel() {
    let Some(world) = World::new() else { return };
    let mut broker = world.start("broker");
    let mut client = world.start("client");
    until(|| world.carries());
    let sa = || {
        let json: serde_json::Value =
            serde_json::from_slice(&world.ask("client", &["status", "--json"]).stdout).unwrap();
        let sa = &json[0]["router"]["ike_sas"][0];
        (sa["id"].clone(), sa["children"][0]["spi_in"].clone())
    };
    let first = sa();
    let said = |role: &str| {
        let output = world.ask(role, &["reload"]);
        assert!(output.status.success(), "{}", text(&output));
        text(&output).lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(said("broker"), [""; 0]);

    // A line a key; what needs a restart is told until there is one.
    let config = fs::read_to_string(world.path("broker.toml")).unwrap();
    let pool = "[pool]\nfixed = { \"other@my.domain\" = \"2a00::150\" }";
    let changed = config.replace("[pool]", pool) + "[ike]\nrekey = \"8h\"\n[tunnel]\nmtu = 1400\n";
    world.write("broker.toml", &changed);
    let restart = "~ tunnel.mtu auto -> 1400: needs restart";
    assert_eq!(
        said("broker"),
        ["~ ike.rekey 4h -> 8h: for new tunnels", "+ pool.fixed.\"other@my.domain\" 2a00::150", restart]
    );
    assert!(text(&world.ask("broker", &["status"])).contains("2a00::150  other@my.domain"));
    assert_eq!(said("broker"), [restart]);

    // The log's level at once: what is below it is not in the log any more, and then it is again.
    world.write("broker.toml", &format!("log = \"warn\"\n{changed}"));
    assert_eq!(said("broker"), ["~ log info -> warn", restart]);
    world.write("broker.toml", &changed);
    assert_eq!(said("broker"), ["~ log warn -> info", restart]);
    until(|| world.log("broker").contains("~ log warn -> info"));
    assert!(!world.log("broker").contains("~ log info -> warn"), "{}", world.log("broker"));

    // A fault changes nothing, and is told with its place.
    world.write(
        "broker.toml",
        &(config.replace("2a00::100/120", "2a00::200/120") + "[tunnel]\nmtu = \"big\"\n"),
    );
    let output = world.ask("broker", &["reload"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    for part in ["broker.toml:14:7: tunnel.mtu: expected", "nothing was changed"] {
        assert!(text(&output).contains(part), "{part}: {}", text(&output));
    }
    broker.signal(Signal::SIGHUP);
    until(|| world.log("broker").contains("ERROR not reloaded: "));
    assert!(text(&world.ask("broker", &["status"])).contains("2a00::150  other@my.domain"));
    assert!(world.carries());

    // Another pool: who is there stays, who comes gets one of it.
    world.write("broker.toml", &config.replace("2a00::100/120", "2a00::200/120"));
    broker.signal(Signal::SIGHUP);
    until(|| world.log("broker").contains("~ pool.range 2a00::100/120 -> 2a00::200/120"));
    assert!(world.carries());
    assert_eq!(sa(), first);
    let routes = |role: &str| world.picture(role);
    assert!(routes("broker").contains("2a000000000000000000000000000101 80"), "{}", routes("broker"));

    // The client's routes are others at once.
    let client_config = fs::read_to_string(world.path("client.toml")).unwrap();
    world.write("client.toml", &(client_config.clone() + "[tunnel]\nroutes = [\"2a00::/64\"]\n"));
    assert_eq!(said("client"), ["~ tunnel.routes default -> [2a00::/64]"]);
    assert!(world.picture("client").contains("2a000000000000000000000000000000 40"));
    assert!(world.carries());
    world.write("client.toml", &client_config);
    client.signal(Signal::SIGHUP);
    until(|| world.log("client").contains("~ tunnel.routes [2a00::/64] -> default"));
    until(|| world.carries());
    assert!(!world.picture("client").contains("2a000000000000000000000000000000 40"));
    assert_eq!(sa(), first);

    // The next tunnel is by the new pool, and nothing is left of the old one.
    assert!(world.ask("client", &["down"]).status.success());
    assert!(world.ask("client", &["up"]).status.success());
    until(|| text(&world.ask("client", &["status"])).contains("2a00::201"));
    until(|| !routes("broker").contains("2a000000000000000000000000000101 80"));
    assert!(client.end(Signal::SIGTERM).success(), "{}", world.log("client"));
    assert!(broker.end(Signal::SIGTERM).success(), "{}", world.log("broker"));
}

#[test]
fn a_client_waits_for_its_broker() {
    let Some(world) = World::new() else { return };
    let mut client = world.start("client");
    until(|| text(&world.ask("client", &["status"])).contains("10.0.0.1, connecting"));
    // Nobody is there to answer DELETE: a second signal does not wait, one alone does not wait long.
    let begin = Instant::now();
    let status = client.end(Signal::SIGTERM);
    assert!(status.success() && begin.elapsed() < Duration::from_secs(6), "{status}, {:?}", begin.elapsed());
    let mut client = world.start("client");
    let broker = world.start("broker");
    until(|| world.carries());
    drop(broker);
    client.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    let status = client.end(Signal::SIGTERM);
    assert!(
        status.code() == Some(1) && begin.elapsed() < Duration::from_secs(1),
        "{status}, {:?}",
        begin.elapsed()
    );
    assert!(world.log("client").contains("forced to stop"), "{}", world.log("client"));
    assert!(!world.path("client.sock").exists());
}

#[test]
fn refusals_are_told_once_and_tried_again() {
    let Some(world) = World::new() else { return };
    let config = fs::read_to_string(world.path("broker.toml")).unwrap();
    world.write("broker.toml", &config.replace("[remote]", "[remote]\nid = \"somebody@my.domain\""));
    let broker = world.start("broker");
    let _client = world.start("client");
    until(|| world.log("client").contains("AUTHENTICATION_FAILED"));
    until(|| world.log("broker").contains("client@my.domain"));
    until(|| text(&world.ask("client", &["status"])).contains("next try in"));
    // Once it is right, `up` needs no waiting.
    drop(broker);
    world.write("broker.toml", &config);
    let _broker = world.start("broker");
    assert!(world.ask("client", &["up"]).status.success());
    until(|| world.carries());
}

#[test]
fn what_is_wrong_is_said_and_leaves_nothing_behind() {
    let Some(world) = World::new() else { return };
    let before = world.picture("broker");
    let held = world.cable.broker.run(|| UdpSocket::bind("0.0.0.0:4500")).unwrap();
    fails(world.daemon("broker"), 5, &["UDP 0.0.0.0:4500", "in use"]);
    drop(held);
    world.cable.broker.tmpfs("/dev/net").unwrap();
    fails(world.daemon("broker"), 1, &["/dev/net/tun", "modprobe tun"]);
    assert_eq!(world.picture("broker"), before);
    assert!(!world.path("broker.sock").exists());
}

#[test]
fn usage() {
    let run = |words: &[&str]| {
        let mut command = Command::new(FERRY6);
        command.args(words).env_remove("FERRY6_LOG");
        command
    };
    let nowhere = Path::new("/nonexistent/x");
    fails(run(&["client", "--config", nowhere.to_str().unwrap()]), 2, &["/nonexistent/x", "No such file"]);
    fails(run(&["klient"]), 2, &["client"]);
    fails(run(&["--log", "verbose", "status"]), 2, &["verbose", "debug"]);
    fails(run(&["rekey", "--ike", "--child"]), 2, &["cannot be used with"]);
    fails(run(&["status", "--socket", nowhere.to_str().unwrap()]), 3, &["no ferry6 daemon is running"]);
    fails(run(&["--help"]), 0, &["Examples:", "Exit codes:"]);
}
