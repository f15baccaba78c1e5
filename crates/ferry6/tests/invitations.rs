//! What `client join`, `broker sign` and `client up` say when something is wrong: one line, an exit code, and nothing half done. The part
//! with tunnels needs root or user namespaces, and says so where it may not.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Cable, Daemon, FERRY6, text};
use ferry6::lab::Host;
use ferry6::pki::store::CaFiles;
use ferry6::pki::{Name, Profile, Validity};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use time::OffsetDateTime;

/// Runs it in a directory, without a terminal and with nothing on standard input.
fn ferry6(directory: &Path, words: &[&str]) -> Output {
    Command::new(FERRY6).args(words).current_dir(directory).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

/// This exit code, and one line that says this.
#[track_caller]
fn fails(output: &Output, code: i32, expected: &str) -> String {
    let said = text(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1, "not one line: {said}");
    assert!(said.contains(expected), "it does not say {expected:?}: {said}");
    assert!(!said.contains("PRIVATE") && !said.contains("BEGIN"), "it shows what is in the file: {said}");
    said
}

/// A broker in `name`, and what it was told.
fn init(directory: &Path, name: &str) {
    let words =
        ["broker", "init", "--dir", name, "--address", "10.0.0.1", "--prefix", "2a00::100/120", "--no-unit"];
    done(&ferry6(directory, &words));
}

/// A directory with a broker `b` and the invitation of alice.
fn site() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), "b");
    done(&ferry6(dir.path(), &["broker", "invite", "alice", "--dir", "b"]));
    dir
}

fn invitation(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("alice.ferry6")).unwrap()
}

/// Joins this text into `c`, which is refused and leaves nothing there.
#[track_caller]
fn is_refused(dir: &Path, text: &str, expected: &str) -> String {
    std::fs::write(dir.join("bad.ferry6"), text).unwrap();
    let said = fails(&ferry6(dir, &["client", "join", "bad.ferry6", "--dir", "c"]), 2, expected);
    assert!(said.starts_with("error: bad.ferry6"), "it does not name the file: {said}");
    let left = std::fs::read_dir(dir.join("c")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "something is left of what was refused");
    said
}

/// Where the value of a key begins.
fn value_of(text: &str, key: &str) -> usize {
    text.find(&format!("\n{key} = ")).unwrap() + key.len() + 4
}

#[test]
fn one_that_was_cut_on_its_way() {
    let dir = site();
    let d = dir.path();
    let whole = invitation(d);
    let (ca, cert, key) = (value_of(&whole, "ca"), value_of(&whole, "cert"), value_of(&whole, "key"));
    for (length, expected) in [
        (0, "does not begin with"),
        (40, "does not begin with"),
        (ca - 8, "cut on its way?"),
        (ca + 100, "cut on its way?"),
        (cert - 8, "cut on its way?"),
        (cert + 100, "cut on its way?"),
        // All but the key: as if it had been signed.
        (key - 7, "if it should hold a key, it was cut on its way"),
        (key + 60, "cut on its way?"),
        (whole.trim_end().len() - 1, "cut on its way?"),
    ] {
        is_refused(d, &whole[..length], expected);
    }
    // Whole, it is good.
    done(&ferry6(d, &["client", "join", "alice.ferry6", "--dir", "c"]));
}

#[test]
fn one_that_was_altered_on_its_way() {
    let dir = site();
    let d = dir.path();
    let whole = invitation(d);
    // Each of these letters is one of the base64 text: in the middle, and in what the signature is.
    for (key, offset) in [("cert", 300), ("cert", 500), ("ca", 300), ("key", 120)] {
        let start = value_of(&whole, key);
        let at = (start + offset..).find(|i| whole.as_bytes()[*i].is_ascii_alphabetic()).unwrap();
        let mut other = whole.clone().into_bytes();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        let said = is_refused(d, &String::from_utf8(other).unwrap(), "cannot be used: ");
        assert!(said.len() < 600, "{said}");
    }
    for (from, to, expected) in [
        ("broker = \"10.0.0.1\"", "broker = \"2a00::1\"", "cannot be used: "),
        ("broker = \"10.0.0.1\"", "broker = \"10.0.0.1\"\nport = 0", "cannot be used: "),
        ("broker = \"10.0.0.1\"", "broker = \"10.0.0.1\"\nport = 70000", "is no invitation: "),
        ("broker = \"10.0.0.1\"", "broker = \"10.0.0.1\"\nroutes = \"all\"", "routes"),
        ("name = \"alice\"", "name = \"../alice\"", "no name for a user"),
        ("name = \"alice\"", "name = 7", "is no invitation: "),
    ] {
        assert!(whole.contains(from), "{whole}");
        is_refused(d, &whole.replace(from, to), expected);
    }
    // One CA's certificate in the other's invitation.
    init(d, "other");
    let ca = std::fs::read_to_string(d.join("other/ca.crt")).unwrap();
    let mut parsed: toml::Table = toml::from_str(&whole).unwrap();
    parsed.insert("ca".into(), ca.into());
    is_refused(d, &toml::to_string(&parsed).unwrap(), "not one that its CA made");
}

#[test]
fn one_of_another_version() {
    let dir = site();
    let d = dir.path();
    let whole = invitation(d);
    let newer = whole.replace("ferry6 = 1\n", "ferry6 = 2\n").replace("\nname = ", "\nuser = ");
    is_refused(d, &newer, "it is of version 2, and this ferry6 reads version 1: take a newer ferry6");
    is_refused(d, &whole.replace("ferry6 = 1\n", ""), "does not begin with `ferry6 = 1`");
    is_refused(d, &whole.replace("ferry6 = 1\n", "ferry6 = \"1\"\n"), "is no invitation");
    // Something else altogether.
    is_refused(d, &std::fs::read_to_string(d.join("b/ca.crt")).unwrap(), "is no invitation");
    is_refused(d, "{\"uuid\": \"x\"}", "is no invitation");
}

/// The invitation of alice with a certificate of another time.
fn with_period(d: &Path, from_days: i64, to_days: i64) -> String {
    let now = OffsetDateTime::now_utc();
    let profile = Profile {
        names: vec!["email:alice@ferry6".parse::<Name>().unwrap()],
        validity: Validity {
            not_before: now + time::Duration::days(from_days),
            not_after: now + time::Duration::days(to_days),
        },
        ..Profile::new("alice").unwrap()
    };
    let issued = CaFiles::new(&d.join("b/ca")).load().unwrap().issue(&profile).unwrap();
    let mut parsed: toml::Table = toml::from_str(&invitation(d)).unwrap();
    parsed.insert("cert".into(), issued.certificates_pem().into());
    parsed.insert("key".into(), issued.key_pem.to_string().into());
    toml::to_string(&parsed).unwrap()
}

#[test]
fn one_that_has_expired_or_is_not_valid_yet() {
    let dir = site();
    let d = dir.path();
    let said = is_refused(d, &with_period(d, -20, -10), "it expired on ");
    assert!(said.contains("ask the broker's operator for another one"), "{said}");
    is_refused(d, &with_period(d, 10, 20), "is this machine's clock right?");
    std::fs::write(d.join("good.ferry6"), with_period(d, -1, 20)).unwrap();
    done(&ferry6(d, &["client", "join", "good.ferry6", "--dir", "c"]));
}

#[test]
fn a_name_that_is_taken_stays_as_it_was() {
    let dir = site();
    let d = dir.path();
    done(&ferry6(d, &["client", "join", "alice.ferry6", "--dir", "c"]));
    let key = || std::fs::read(d.join("c/alice/client.key")).unwrap();
    let before = key();
    done(&ferry6(d, &["broker", "invite", "alice", "--dir", "b", "--again", "--out", "second.ferry6"]));
    let join = ["client", "join", "second.ferry6", "--dir", "c"];
    fails(&ferry6(d, &join), 2, "there is a tunnel alice already");
    assert_eq!(key(), before);
    done(&ferry6(d, &[&join[..], &["--name", "work"]].concat()));
    done(&ferry6(d, &[&join[..], &["--force"]].concat()));
    assert_ne!(key(), before);
}

#[test]
fn nothing_waits_for_a_person_without_a_terminal() {
    let dir = site();
    let d = dir.path();
    fails(&ferry6(d, &["client", "join", "-", "--dir", "c"]), 2, "standard input is no invitation");
    fails(&ferry6(d, &["client", "join", "b", "--dir", "c"]), 2, "cannot read b: ");
    fails(&ferry6(d, &["client", "join", "/dev/zero", "--dir", "c"]), 2, "longer than 65536 octets");
    fails(&ferry6(d, &["client", "join", "none.ferry6", "--dir", "c"]), 2, "cannot read none.ferry6: ");
    fails(&ferry6(d, &["broker", "init", "--dir", "x", "--no-unit"]), 2, "--address is missing");
    fails(&ferry6(d, &["client", "up", "--dir", "c"]), 2, "there is no tunnel in c: ferry6 client join FILE");
}

/// The key stays on the client: request there, signature here, and back.
#[test]
fn requests_and_their_answers() {
    let dir = site();
    let d = dir.path();
    let request = ["client", "join", "--request", "home", "--dir", "c"];
    let said = done(&ferry6(d, &request));
    assert!(said.contains("ferry6 broker sign NAME home.csr"), "{said}");
    assert!(said.contains("ferry6 client join NAME.ferry6 --name home"), "{said}");
    // A second one would take the key away from the first.
    fails(&ferry6(d, &request), 2, "exists: take another name, or replace it with --force");

    let csr = std::fs::read_to_string(d.join("home.csr")).unwrap();
    let mut altered = csr.clone().into_bytes();
    let at = csr.len() / 2;
    altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
    for (name, content) in [
        ("empty.csr", Vec::new()),
        ("cut.csr", csr.as_bytes()[..csr.len() / 2].to_vec()),
        ("altered.csr", altered),
        ("certificate.csr", std::fs::read(d.join("b/ca.crt")).unwrap()),
    ] {
        std::fs::write(d.join(name), content).unwrap();
        fails(&ferry6(d, &["broker", "sign", "bob", name, "--dir", "b"]), 2, name);
        assert!(!d.join("bob.ferry6").exists() && !d.join("b/users/bob.crt").exists(), "{name}");
    }
    done(&ferry6(d, &["broker", "sign", "bob", "home.csr", "--dir", "b"]));
    fails(
        &ferry6(d, &["broker", "sign", "bob", "home.csr", "--dir", "b", "--out", "2"]),
        2,
        "invited already",
    );

    // Where there is no key to it, and where there is another one.
    fails(&ferry6(d, &["client", "join", "bob.ferry6", "--dir", "c"]), 2, "there is no request bob here");
    done(&ferry6(d, &["client", "join", "--request", "laptop", "--dir", "c"]));
    let other = ["client", "join", "bob.ferry6", "--name", "laptop", "--dir", "c"];
    fails(&ferry6(d, &other), 2, "does not belong to the certificate");
    assert!(d.join("c/laptop/request.key").exists(), "the request still waits for its own answer");
    assert!(!d.join("c/laptop/client.toml").exists());
    done(&ferry6(d, &["client", "join", "bob.ferry6", "--name", "home", "--dir", "c"]));
    assert!(!d.join("c/home/request.key").exists(), "it is the tunnel's key now");
}

#[test]
fn who_has_no_right_is_told_so() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody without rights");
        return;
    }
    let dir = site();
    let d = dir.path();
    done(&ferry6(d, &["client", "join", "alice.ferry6", "--dir", "c"]));
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(d, 0o755);
    mode(&d.join("alice.ferry6"), 0o644);
    let program = d.join("ferry6");
    std::fs::copy(FERRY6, &program).unwrap();
    let nobody = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).current_dir(d).stdin(Stdio::null()).uid(65534).gid(65534);
        command.output().unwrap()
    };
    fails(
        &nobody(&["client", "join", "alice.ferry6", "--name", "other", "--dir", "c"]),
        4,
        "cannot write into c",
    );
    fails(
        &nobody(&["client", "join", "--request", "home", "--dir", "c"]),
        4,
        "cannot make the directory c/home",
    );
    fails(&nobody(&["client", "up", "--dir", "c"]), 4, "CAP_NET_ADMIN");
    // A client that runs, and whose socket is for root: it is not "down".
    let socket = d.join("c/alice/client.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    mode(&socket, 0o600);
    for command in ["up", "down", "status"] {
        fails(&nobody(&["client", command, "--dir", "c"]), 4, "client.sock: not permitted; ask as root");
    }
    mode(&d.join("alice.ferry6"), 0o600);
    fails(
        &nobody(&["client", "join", "alice.ferry6", "--dir", "c"]),
        2,
        "cannot read alice.ferry6: Permission denied",
    );
}

#[test]
fn status_tells_what_a_client_ended_with() {
    let dir = site();
    let d = dir.path();
    done(&ferry6(d, &["client", "join", "alice.ferry6", "--dir", "c"]));
    let status = || {
        let output = ferry6(d, &["client", "status", "--dir", "c"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    };
    assert_eq!(status(), "alice: down (ferry6 client up alice)\n");
    let log = d.join("c/alice/client.log");
    std::fs::write(&log, "INFO all is well\nerror: the router stopped by itself\n\n").unwrap();
    assert_eq!(
        status(),
        "alice: down: it ended with: the router stopped by itself (ferry6 client up alice)\n"
    );
    std::fs::write(&log, "error: of old\nINFO down by command\n").unwrap();
    assert_eq!(status(), "alice: down (ferry6 client up alice)\n");
}

fn on(host: &Host, d: &Path, words: &[&str]) -> Output {
    host.command(FERRY6).args(words).current_dir(d).stdin(Stdio::null()).output().unwrap()
}

/// Takes the tunnel down even when the test fails: its client runs in the background.
struct Down<'a>(&'a Host, &'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let _ = on(self.0, self.1, &["client", "down", "alice", "--dir", "c"]);
    }
}

fn run_broker(cable: &Cable, d: &Path, name: &str) -> Daemon {
    let log = std::fs::File::create(d.join("broker.log")).unwrap();
    let mut command = cable.broker.command(FERRY6);
    command.args(["broker", "--config", &format!("{name}/broker.toml")]).current_dir(d).stderr(log);
    let daemon = Daemon(command.stdin(Stdio::null()).spawn().unwrap());
    let until = Instant::now() + Duration::from_secs(20);
    while !on(&cable.broker, d, &["status", "--socket", &format!("{name}/broker.sock")]).status.success() {
        assert!(Instant::now() < until, "{}", std::fs::read_to_string(d.join("broker.log")).unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
    daemon
}

#[test]
fn up_where_nobody_answers_says_so_and_so_does_status() {
    let Some(cable) = Cable::new() else { return };
    let dir = site();
    let d = dir.path();
    done(&ferry6(d, &["client", "join", "alice.ferry6", "--dir", "c"]));
    let _down = Down(&cable.client, d);
    let began = Instant::now();
    let said = fails(
        &on(&cable.client, d, &["client", "up", "--dir", "c", "--wait", "2"]),
        1,
        "alice is not up after 2 s: no answer from 10.0.0.1:500 yet: does the broker run",
    );
    assert!(said.contains("to stop it: ferry6 client down alice"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let status = done(&on(&cable.client, d, &["client", "status", "--dir", "c"]));
    assert!(status.contains("connecting: no answer from 10.0.0.1:500 yet"), "{status}");
    // It comes up by itself as soon as there is somebody.
    let _broker = run_broker(&cable, d, "b");
    let up = done(&on(&cable.client, d, &["client", "up", "--dir", "c"]));
    assert!(up.contains("alice is up: 2a00::101"), "{up}");
}

#[test]
fn up_that_is_refused_does_not_wait_and_says_why() {
    let Some(cable) = Cable::new() else { return };
    let dir = site();
    let d = dir.path();
    init(d, "other");
    done(&ferry6(d, &["client", "join", "alice.ferry6", "--dir", "c"]));
    let _down = Down(&cable.client, d);
    let up = ["client", "up", "--dir", "c", "--wait", "60"];
    let refused = |expected: &str| {
        let began = Instant::now();
        let said = fails(&on(&cable.client, d, &up), 1, expected);
        assert!(began.elapsed() < Duration::from_secs(20), "it waited {:?}: {said}", began.elapsed());
        let status = done(&on(&cable.client, d, &["client", "status", "--dir", "c"]));
        assert!(status.contains(expected) && status.contains("next try in"), "{status}");
    };
    // Another CA's broker does not know alice, and says no more than the protocol lets it.
    let other = run_broker(&cable, d, "other");
    refused("AUTHENTICATION_FAILED");
    drop(other);
    // The right one, but the client trusts another CA.
    let _broker = run_broker(&cable, d, "b");
    done(&on(&cable.client, d, &["client", "down", "alice", "--dir", "c"]));
    let (good, ca) = (std::fs::read(d.join("c/alice/ca.crt")).unwrap(), d.join("c/alice/ca.crt"));
    std::fs::copy(d.join("other/ca.crt"), &ca).unwrap();
    refused("not one of the trusted CAs");
    done(&on(&cable.client, d, &["client", "down", "alice", "--dir", "c"]));
    std::fs::write(&ca, good).unwrap();
    // The right CA, but not the broker that was meant: it knows by the IDr that somebody else is called.
    let toml = std::fs::read_to_string(d.join("c/alice/client.toml")).unwrap();
    std::fs::write(d.join("c/alice/client.toml"), toml.replace("ip:10.0.0.1", "dns:tunnel.my.domain"))
        .unwrap();
    refused("AUTHENTICATION_FAILED");
    done(&on(&cable.client, d, &["client", "down", "alice", "--dir", "c"]));
    std::fs::write(d.join("c/alice/client.toml"), toml).unwrap();
    done(&on(&cable.client, d, &up));
}

#[test]
fn up_of_a_name_that_nobody_knows() {
    let Some(cable) = Cable::new() else { return };
    let dir = site();
    let d = dir.path();
    let renamed = invitation(d).replace("broker = \"10.0.0.1\"", "broker = \"tunnel.invalid\"");
    std::fs::write(d.join("named.ferry6"), renamed).unwrap();
    done(&ferry6(d, &["client", "join", "named.ferry6", "--dir", "c"]));
    let _down = Down(&cable.client, d);
    let said = fails(
        &on(&cable.client, d, &["client", "up", "--dir", "c", "--wait", "3"]),
        1,
        "alice is not up after 3 s: ",
    );
    assert!(said.contains("tunnel.invalid"), "{said}");
}
