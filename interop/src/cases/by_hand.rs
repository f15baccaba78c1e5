//! The article's tunnel, from nothing to a ping and back, by the commands that a person types.

use super::tunnel::server6;
use super::{Case, Env, Peer, Role};
use crate::strongswan::StrongSwan;
use crate::tmux::Terminal;
use crate::{traffic, wait_until};
use anyhow::{Context, Result, bail, ensure};
use ferry6::lab::Host;
use ferry6::lab::article::{BROKER_IPV6, BROKER_PUBLIC, POOL, SERVER};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    let mut case = Case::new(
        "article-commands",
        Peer::Ferry6,
        Role::Both,
        "init, invite, join, up, status, usage, monitor, doctor, disable, enable, revoke, down: nothing else is typed",
        commands,
    );
    case.timeout = Duration::from_secs(120);
    let strongswan = Case::new(
        "article-invite-strongswan",
        Peer::StrongSwan,
        Role::Broker,
        "init, invite --for strongswan --prefix auto: charon takes the directory as it is, has address and prefix, is revoked",
        invite_strongswan,
    );
    vec![case, strongswan]
}

/// A person at one of the two machines: what is typed and what comes back goes into the transcript.
struct Person<'a> {
    host: &'a Host,
    ferry6: &'a Path,
    /// Where the commands are typed; both have the invitation there.
    here: &'a Path,
    transcript: &'a RefCell<String>,
}

impl Person<'_> {
    fn types(&self, line: &str) -> Result<(i32, String)> {
        let words = line.split_whitespace();
        let output = self
            .host
            .command(self.ferry6)
            .args(words)
            .current_dir(self.here)
            .stdin(Stdio::null())
            .output()
            .context("ferry6 starts")?;
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let code = output.status.code().unwrap_or(-1);
        let mut transcript = self.transcript.borrow_mut();
        writeln!(transcript, "{}$ ferry6 {line}\n{said}[{code}]\n", self.host.name())?;
        std::fs::write(self.here.join("transcript"), transcript.as_bytes())?;
        Ok((code, said))
    }

    /// It succeeds and says all of these.
    fn does(&self, line: &str, wanted: &[&str]) -> Result<String> {
        self.gets(0, line, wanted)
    }

    fn gets(&self, code: i32, line: &str, wanted: &[&str]) -> Result<String> {
        let (got, said) = self.types(line)?;
        ensure!(got == code, "`ferry6 {line}` ended with {got}, not {code}:\n{said}");
        for part in wanted {
            ensure!(said.contains(part), "`ferry6 {line}` does not say {part:?}:\n{said}");
        }
        Ok(said)
    }
}

/// The daemon of `ferry6 broker`, as a unit would run it.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes the tunnel down even when the case fails: its client runs in the background.
struct Down<'a>(&'a Person<'a>);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let _ = self.0.types("client down alice --dir client");
    }
}

/// Starts the broker that `init` made.
fn start_broker(operator: &Person<'_>) -> Result<Daemon> {
    let here = operator.here;
    let log = std::fs::File::create(here.join("broker.log"))?;
    let mut daemon = operator.host.command(operator.ferry6);
    daemon.args(["broker", "--config", "broker/broker.toml"]).current_dir(here);
    let mut daemon = Daemon(daemon.stdin(Stdio::null()).stderr(log).spawn()?);
    wait_until("the broker answers", Duration::from_secs(20), || {
        if let Some(status) = daemon.0.try_wait()? {
            bail!("the broker ended: {status}\n{}", std::fs::read_to_string(here.join("broker.log"))?);
        }
        Ok(operator.types("status --socket broker/broker.sock")?.0 == 0)
    })?;
    Ok(daemon)
}

fn commands(env: &mut Env) -> Result<()> {
    let here: PathBuf = env.dir.clone();
    let transcript = RefCell::default();
    let person = |host| Person { host, ferry6: &env.ferry6, here: &here, transcript: &transcript };
    let (operator, alice) = (person(&env.net.broker), person(&env.net.home));

    // The broker, in two minutes.
    let said = operator.does(
        &format!(
            "broker init --dir broker --no-unit --address {BROKER_PUBLIC} --prefix {POOL} --interface eth0"
        ),
        &["A broker is ready", "forward UDP 500 and 4500", "route 2a00::100/120 to this machine"],
    )?;
    ensure!(said.lines().count() < 20, "it says more than a screen:\n{said}");
    let _daemon = start_broker(&operator)?;
    operator.does(
        "broker invite alice --dir broker",
        &["wrote alice.ferry6", "ferry6 client join alice.ferry6"],
    )?;

    // Names resolve at home as in an office without a server of its own.
    for (name, text) in [("hosts", format!("{SERVER} server.my.domain\n")), ("resolv.conf", String::new())] {
        std::fs::write(here.join(name), text)?;
        env.net.home.bind(here.join(name), Path::new("/etc").join(name))?;
    }

    // The client, in one.
    alice.does("client join alice.ferry6 --dir client", &["joined alice", "ferry6 client up alice"])?;
    let _down = Down(&alice);
    alice.does("client up --dir client", &["alice is up: 2a00::101, routes ::/0"])?;
    traffic::ping_count(&env.net.home, server6()?, 10, Duration::from_millis(50))?.no_loss()?;
    traffic::tcp_both_ways(&env.net.home, &env.net.server, server6()?, 4 << 20)?;

    // Both see what is going on.
    alice.does("client status --dir client", &["alice:", "2a00::101", BROKER_PUBLIC])?;
    operator.does("broker list --dir broker", &["alice", "2a00::101", " up"])?;
    operator.does("broker show alice --dir broker", &["alice", "2a00::101"])?;
    operator.does("broker usage --dir broker", &["alice", "MB", " up"])?;
    let doctor = format!("doctor client alice --dir client --ping {SERVER} --lookup server.my.domain");
    alice.does(&doctor, &["0 failed", "answers through the tunnel"])?;
    operator.does("doctor broker --dir broker", &["0 failed"])?;
    let monitor = format!(
        "{} monitor --socket {}; echo EXIT=$?; sleep 100",
        env.ferry6.display(),
        here.join("broker/broker.sock").display()
    );
    let terminal = Terminal::start(&env.subdir("monitor")?, (80, 24), &monitor)?;
    let screen = terminal.wait_for(&["2a00::101", "leases 1", "rekey in"])?;
    writeln!(transcript.borrow_mut(), "broker$ ferry6 monitor\n{screen}\n")?;
    terminal.press(&["q"])?;
    terminal.wait_for(&["EXIT=0"])?;

    // Off and on again, with the same address; IPv6 is gone in between, never in clear.
    alice.does("client down alice --dir client", &["alice is down"])?;
    ensure!(
        traffic::ping_count(&env.net.home, server6()?, 1, Duration::from_millis(50)).is_err()
            || traffic::ping_count(&env.net.home, server6()?, 1, Duration::from_millis(50))?
                .no_loss()
                .is_err(),
        "{SERVER} answers without a tunnel"
    );
    alice.does("client up alice --dir client", &["alice is up: 2a00::101"])?;

    // Off for a while, and on again.
    operator.does(
        "broker disable alice --reason holiday --dir broker",
        &["alice is disabled: the tunnel is closed"],
    )?;
    operator.does("broker list --dir broker", &["disabled"])?;
    let said = alice.gets(1, "client up alice --dir client --wait 3", &["AUTHENTICATION_FAILED"])?;
    ensure!(!said.contains("holiday"), "the reason is the operator's: {said}");
    operator.does("broker enable alice --dir broker", &["alice is enabled"])?;
    alice.does("client down alice --dir client", &["alice is down"])?;
    alice.does("client up alice --dir client", &["alice is up: 2a00::101"])?;

    // Revoked: the tunnel goes at once and does not come again; the user is told why.
    operator.does("broker revoke alice --dir broker", &["alice is revoked", "is closed"])?;
    let said = alice.gets(1, "client up alice --dir client --wait 3", &["AUTHENTICATION_FAILED"])?;
    ensure!(!said.contains("panicked"), "{said}");
    alice.gets(1, &doctor, &["AUTHENTICATION_FAILED"])?;
    operator.does("broker list --dir broker", &["revoked"])?;
    alice.does("client down alice --dir client", &["alice is down"])?;
    Ok(())
}

fn invite_strongswan(env: &mut Env) -> Result<()> {
    const PREFIXES: &str = "2a00:0:0:1000::/52";
    env.net.firewall.route(PREFIXES, BROKER_IPV6)?;
    let here: PathBuf = env.dir.clone();
    let transcript = RefCell::default();
    let operator =
        Person { host: &env.net.broker, ferry6: &env.ferry6, here: &here, transcript: &transcript };
    let init = "broker init --dir broker --no-unit --interface eth0";
    operator.does(
        &format!("{init} --address {BROKER_PUBLIC} --prefix {POOL} --prefixes {PREFIXES}"),
        &["route 2a00:0:0:1000::/52 to this machine"],
    )?;
    let _daemon = start_broker(&operator)?;
    operator.does("broker invite alice --dir broker --for strongswan --prefix auto", &["wrote alice"])?;

    let home = &env.net.home;
    // As the file says: strongSwan's ESP in userspace takes no prefix of which the machine has no address.
    home.address("lo", "2a00:0:0:1000::1/128")?;
    let within = "2a00:0:0:1000::1".parse()?;
    let swan = StrongSwan::start_with_files(home, &env.subdir("client")?, &here.join("alice"))?;
    let initiate = ["--initiate", "--child", "alice", "--timeout", "20"];
    swan.swanctl(&initiate).with_context(|| swan.log())?;
    let pause = Duration::from_millis(50);
    traffic::wait_for_ping(home, server6()?, Duration::from_secs(10)).with_context(|| swan.log())?;
    traffic::ping_count(home, server6()?, 10, pause)?.no_loss().with_context(|| swan.log())?;
    traffic::ping_count(&env.net.server, within, 10, pause)?.no_loss().with_context(|| swan.log())?;
    operator.does("broker list --dir broker", &["alice", "2a00::101", "2a00:0:0:1000::/64", " up"])?;
    operator.does("broker show alice --dir broker", &["2a00:0:0:1000::/64"])?;

    operator.does("broker revoke alice --dir broker", &["alice is revoked", "is closed"])?;
    let refused = format!("{:#}", swan.swanctl(&initiate).expect_err("alice is revoked"));
    ensure!(refused.contains("AUTHENTICATION_FAILED"), "{refused}");
    let counted = traffic::ping_count(&env.net.server, within, 2, pause)?;
    ensure!(counted.received == 0, "the prefix of a revoked user is still reached");
    Ok(())
}
