//! `ferry6 web` on both ends of a tunnel: what it tells, to whom, and what it looks like in a browser.

use super::tunnel::{BROKER_ID, CLIENT_ADDRESS, CLIENT_ID, FERRY6, Spec, Tunnel, server6};
use super::{Case, Env, Peer, Role};
use crate::ferry::Ferry;
use crate::{traffic, wait_until};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    let case = |name, feature, run: fn(&mut Env) -> Result<()>| {
        let timeout = Duration::from_secs(120);
        Case { timeout, ..Case::new(name, Peer::Ferry6, Role::Both, feature, run) }
    };
    vec![
        case(
            "web-page",
            "status page, /metrics and /healthz of a tunnel that carries, goes and comes; without rights; bounds",
            page,
        ),
        case(
            "web-unix",
            "the status page on a Unix socket, its owner's alone; wrong addresses are refused",
            unix,
        ),
        case("web-browser", "headless Chromium shows the same rows with JavaScript and without", browser),
    ]
}

/// `ferry6 web`, ended when this is dropped.
pub(super) struct Web {
    process: Child,
    address: SocketAddr,
}

impl Web {
    /// For both daemons.
    fn start(env: &Env) -> Result<Self> {
        Self::launch(env, &mut command(env)?)
    }

    /// By this command, but for where it listens.
    pub(super) fn launch(env: &Env, command: &mut Command) -> Result<Self> {
        // A port that was free just now.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = std::fs::File::create(env.dir.join("web.log"))?;
        let process = command
            .args(["--listen", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let this = Self { process, address };
        wait_until("ferry6 web listens", Duration::from_secs(10), || Ok(TcpStream::connect(address).is_ok()))
            .with_context(|| std::fs::read_to_string(env.dir.join("web.log")).unwrap_or_default())?;
        Ok(this)
    }

    /// Status code and body.
    pub(super) fn get(&self, path: &str) -> Result<(u16, String)> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        exchange(stream, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    pub(super) fn wait_for(
        &self,
        path: &str,
        what: &str,
        mut right: impl FnMut(u16, &str) -> bool,
    ) -> Result<String> {
        let mut last = String::new();
        let waited = wait_until(what, Duration::from_secs(20), || {
            let (status, body) = self.get(path)?;
            let done = right(status, &body);
            last = format!("{status}\n{body}");
            Ok(done)
        });
        waited.with_context(|| format!("{path} says {last}"))?;
        Ok(last)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(env: &Env) -> Result<Command> {
    let mut command = Command::new(&env.ferry6);
    command.arg("web");
    for name in ["broker", "client"] {
        command.arg("--socket").arg(Ferry::socket(&env.subdir(name)?));
    }
    Ok(command)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Result<(u16, String)> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}

fn up(env: &Env) -> Result<Tunnel> {
    Spec::certified(env, FERRY6, FERRY6)?.up(env)
}

/// The value of a metric whose line has all these words.
fn value(metrics: &str, name: &str, words: &[&str]) -> Option<f64> {
    let mut lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let line = lines.find(|line| words.iter().all(|word| line.contains(word)))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn page(env: &mut Env) -> Result<()> {
    let mut tunnel = up(env)?;
    let web = Web::start(env)?;
    // Somebody who asks for half a page and waits is hung up on; that is looked at in the end.
    let mut slow = TcpStream::connect(web.address)?;
    slow.write_all(b"GET / HTTP/1.1\r\nHost: local")?;
    let begun = Instant::now();

    web.wait_for("/healthz", "both daemons are well", |status, body| status == 200 && body == "ok\n")?;
    traffic::tcp_both_ways(&env.net.home, &env.net.server, server6()?, 4 << 20)?;
    let carried = web.wait_for("/metrics", "the traffic is counted", |_, body| {
        value(body, "ferry6_tunnel_received_bytes_total", &["daemon=\"broker\"", CLIENT_ID])
            .is_some_and(|octets| octets > 4e6)
    })?;
    for (name, words, wanted) in [
        ("ferry6_up", ["daemon=\"broker\"", ""], 1.0),
        ("ferry6_up", ["daemon=\"client\"", ""], 1.0),
        ("ferry6_client_up", ["daemon=\"client\"", ""], 1.0),
        ("ferry6_tunnels", ["daemon=\"broker\"", ""], 1.0),
        ("ferry6_leases_in_use", ["daemon=\"broker\"", ""], 1.0),
        ("ferry6_tunnel_up", ["daemon=\"client\"", BROKER_ID], 1.0),
    ] {
        ensure!(value(&carried, name, &words) == Some(wanted), "{name} is not {wanted}:\n{carried}");
    }
    let (status, html) = web.get("/")?;
    ensure!(status == 200);
    for wanted in [CLIENT_ID, CLIENT_ADDRESS, BROKER_ID, "AES_GCM_16_256", "<h3>Drops</h3>", "class=\"line\""]
    {
        ensure!(html.contains(wanted), "the page lacks {wanted:?}:\n{html}");
    }
    // Rates are seen while there is traffic, and the log's lines.
    ensure!(html.contains("tunnel up: tunnel.my.domain"), "the log is not there:\n{html}");
    // Another name than this machine's is not answered.
    let rebound = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let (status, body) = exchange(TcpStream::connect(web.address)?, rebound)?;
    ensure!(status == 421 && !body.contains(CLIENT_ID), "{status}: {body}");

    // It has no right but to ask.
    let of = std::fs::read_to_string(format!("/proc/{}/status", web.process.id()))?;
    for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        ensure!(of.contains(line), "{line:?} is not in\n{of}");
    }
    let owner = std::fs::metadata(Ferry::socket(&env.dir.join("broker")))?.uid();
    ensure!(of.contains(&format!("Uid:\t{owner}\t{owner}\t{owner}")), "it is not user {owner}:\n{of}");

    // The client goes: that is told within seconds, and when it is back.
    tunnel.client.ferry_mut()?.kill()?;
    web.wait_for("/healthz", "the client is gone", |status, body| {
        status == 503 && body.starts_with("client: ") && body.contains("nobody answers")
    })?;
    let metrics = web.get("/metrics")?.1;
    ensure!(value(&metrics, "ferry6_up", &["daemon=\"client\""]) == Some(0.0), "{metrics}");
    tunnel.client.ferry_mut()?.restart()?;
    web.wait_for("/healthz", "the client is back", |status, _| status == 200)?;
    // Down by command is not well, with the reason.
    tunnel.client.ferry()?.control(&["down"])?;
    web.wait_for("/healthz", "the client is down", |status, body| {
        status == 503 && body.contains("the tunnel is down: by command")
    })?;

    // Many who connect and say nothing keep nobody out for long.
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(web.address)).collect();
    slow.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    ensure!(begun.elapsed() < Duration::from_secs(60), "half a request holds a connection");
    ensure!(!String::from_utf8_lossy(&rest).contains("200 OK"), "half a request got an answer");
    wait_until("it answers others again", Duration::from_secs(20), || Ok(web.get("/metrics").is_ok()))?;
    drop(silent);

    // An orderly end.
    let mut web = web;
    kill(Pid::from_raw(web.process.id() as i32), Signal::SIGTERM)?;
    let status = web.process.wait()?;
    ensure!(status.success(), "{status} after SIGTERM");
    Ok(())
}

fn unix(env: &mut Env) -> Result<()> {
    let _tunnel = up(env)?;
    let path = env.subdir("web")?.join("sock");
    let mut process = command(env)?.arg("--unix").arg(&path).stdin(Stdio::null()).spawn()?;
    wait_until("ferry6 web listens", Duration::from_secs(10), || Ok(UnixStream::connect(&path).is_ok()))?;
    ensure!(std::fs::metadata(&path)?.permissions().mode() & 0o777 == 0o600);
    let ask = |path: &Path| {
        let request = "GET /metrics HTTP/1.1\r\nHost: status.my.domain\r\nConnection: close\r\n\r\n";
        exchange(UnixStream::connect(path)?, request)
    };
    wait_until("the tunnel is told", Duration::from_secs(10), || {
        let (status, body) = ask(&path)?;
        Ok(status == 200 && value(&body, "ferry6_tunnels", &["daemon=\"broker\""]) == Some(1.0))
    })?;
    let refused = |arguments: &[&str], code: i32, words: &str| -> Result<()> {
        let output = command(env)?.args(arguments).stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(code) && text.contains(words),
            "{arguments:?}: {} {text}",
            output.status
        );
        Ok(())
    };
    let there = path.display().to_string();
    refused(&["--unix", &there], 5, "somebody listens on")?;
    refused(&["--listen", "0.0.0.0:9696"], 2, "only a loopback address is taken")?;
    refused(&["--listen", "[2a00::2]:9696"], 2, "only a loopback address is taken")?;
    refused(&["--listen", "nonsense"], 2, "invalid")?;
    refused(&[], 2, "required")?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    refused(&["--listen", &taken.local_addr()?.to_string()], 5, "cannot listen on")?;
    kill(Pid::from_raw(process.id() as i32), Signal::SIGTERM)?;
    ensure!(process.wait()?.success());
    ensure!(!path.exists(), "the socket stays behind");
    Ok(())
}

fn browser(env: &mut Env) -> Result<()> {
    let _tunnel = up(env)?;
    let web = Web::start(env)?;
    web.wait_for("/", "the page has a tunnel", |_, body| body.contains(CLIENT_ID))?;
    traffic::tcp_both_ways(&env.net.home, &env.net.server, server6()?, 4 << 20)?;
    // Chromium's own setting; its flag for that keeps it from telling what it shows.
    let no_script = r#"{"profile":{"default_content_setting_values":{"javascript":2}}}"#;
    for (profile, preferences) in [("with", "{}"), ("without", no_script)] {
        std::fs::write(env.subdir(&format!("{profile}/Default"))?.join("Preferences"), preferences)?;
    }
    let chromium = |profile: &str, arguments: &[&str]| -> Result<String> {
        let output = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", env.dir.join(profile).display()))
            .args(arguments)
            .arg(format!("http://{}/", web.address))
            .stdin(Stdio::null())
            .output()
            .context("chromium (Debian's package of that name) is needed")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "chromium {arguments:?}: {} {said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    };
    let rows = [CLIENT_ID, CLIENT_ADDRESS, BROKER_ID, "AES_GCM_16_256", "<h3>Drops</h3>", "in all"];
    // Six seconds of the page's own time: JavaScript has put news in place more than once.
    let with = chromium("with", &["--virtual-time-budget=6000", "--dump-dom"])?;
    let without = chromium("without", &["--dump-dom"])?;
    for (name, dom) in [("with", &with), ("without", &without)] {
        for wanted in rows {
            ensure!(dom.contains(wanted), "{name} JavaScript the page lacks {wanted:?}:\n{dom}");
        }
    }
    ensure!(with.contains("class=\"live\""), "the script did not run:\n{with}");
    ensure!(without.contains("reloads every 5 s") && without.contains("http-equiv=\"refresh\""), "{without}");
    for (name, size) in [("wide.png", "1200,1000"), ("phone.png", "500,1200")] {
        let file = env.dir.join(name);
        let screenshot = format!("--screenshot={}", file.display());
        chromium("with", &[&screenshot, &format!("--window-size={size}")])?;
        ensure!(std::fs::metadata(&file)?.len() > 10_000, "{name} is empty");
    }
    Ok(())
}
