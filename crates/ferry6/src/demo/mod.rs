//! `ferry6 demo`: the article's network in namespaces, a broker and a client of this very program in it, and the proof that IPv6
//! crosses the IPv4-only internet in IPsec alone.

mod daemon;
mod ping;
mod report;
mod transfer;

use crate::control::{Status, render};
use crate::lab::article::{self, Article};
use crate::lab::{self, Capture, CaptureOptions, Counts};
use crate::pki::{Authority, Profile};
use anyhow::{Context, bail, ensure};
use daemon::Daemon;
use report::Report;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const EXAMPLES: &str = "\
Examples:
  sudo ferry6 demo
  sudo ferry6 demo --keep --pcap demo.pcap          look around in it, and at what crossed the IPv4 internet";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Leave it all standing at the end, and say how to enter each host, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Megabytes (10^6 octets) to move over TCP each way.
    #[arg(long, value_name = "MB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    megabytes: u64,
    /// Write what crosses the IPv4 internet to this pcap file.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Do without NAT, as where the kernel or `nft` is missing.
    #[arg(long)]
    no_nat: bool,
}

const NETWORK: &str = "\
home ------------ home router ------- internet ------ firewall ------------ broker
192.168.0.2       1.2.3.4, NAT        IPv4 only       5.6.7.8, NAT          192.168.100.2, 2a00::2
                                                          `---------------- server 2a00:1::80";

const PINGS: u16 = 20;
const PING_INTERVAL: Duration = Duration::from_millis(20);
const PING_PATIENCE: Duration = Duration::from_secs(2);
/// More than any handshake with its retransmissions takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Frames that wait for the capture: a busy machine lets it run only now and then.
const CAPTURE_MEMORY: usize = 64 << 20;

/// Runs the demo.
///
/// # Errors
/// Whatever did not work, with its reason.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Before anything is made: nothing works without.
    check_tun()?;
    lab::enter()?;
    let interrupt = Interrupt::install()?;
    let report = Report::new();
    report.text(0, "ferry6 demo: IPv6 across an IPv4-only network, in IPsec in userspace\n\n");
    report.text(4, NETWORK);
    report.text(0, "\n");
    let result = act(&args, &report, &interrupt);
    match &result {
        Ok(()) => report.text(0, &format!("\nAll as it should be, in {:.1} s.", report.seconds())),
        Err(_) => report.failed(),
    }
    if interrupt.happened() {
        report.note("end", "interrupted");
        return Ok(ExitCode::from(130));
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// What stands: in the order in which it is to go.
struct Stage {
    client: Daemon,
    broker: Daemon,
    net: Article,
    directory: TempDir,
}

impl Stage {
    /// The same error with what the two daemons have to say about it.
    fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let words = [&mut self.client, &mut self.broker].map(|daemon| daemon.last_words());
        anyhow::anyhow!("{error:#}{}", words.concat())
    }
}

fn act(args: &Args, report: &Report, interrupt: &Interrupt) -> anyhow::Result<()> {
    let net = build(args, report)?;
    let directory = work_directory(args)?;
    certificates(directory.path(), report)?;
    let captures = [("home", "home router"), ("colo", "firewall")].map(|(interface, towards)| {
        let pcap = args.pcap.clone().filter(|_| interface == "colo");
        let options = CaptureOptions { pcap, memory: CAPTURE_MEMORY };
        Capture::start(&net.internet, interface, options).map(|capture| (towards, capture))
    });
    let mut stage = daemons(net, directory, report, interrupt)?;
    let outcome = measure(args, &stage, captures, report, interrupt);
    if let Err(e) = &outcome {
        report.failed();
        if args.keep {
            report.text(2, &format!("{e:#}"));
        }
    }
    let outcome = outcome.map_err(|e| stage.explain(e));
    if args.keep && !interrupt.happened() {
        keep(&stage, report, interrupt);
    }
    let stopped = tear_down(stage, report);
    outcome.and(stopped)
}

fn check_tun() -> anyhow::Result<()> {
    let device = "/dev/net/tun";
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            bail!(
                "there is no {device}: load the kernel's module with `modprobe tun` (in a container, pass the device in)"
            )
        }
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            bail!(
                "{device} may not be opened by this user: run the demo as root, or allow it with `chmod 666 {device}`"
            )
        }
        Err(e) => Err(e).with_context(|| format!("cannot open {device}")),
    }
}

fn build(args: &Args, report: &Report) -> anyhow::Result<Article> {
    report.begin("network", "making namespaces and links");
    let options = article::Options { nat: !args.no_nat, ..article::Options::default() };
    let (net, no_nat) = match article::build(options) {
        Ok(net) => (net, args.no_nat.then(|| "as asked for".to_owned())),
        Err(lab::Error::NoNat(why)) => {
            (article::build(article::Options { nat: false, ..options })?, Some(why))
        }
        Err(e) => return Err(e.into()),
    };
    let user = if lab::session().user_namespace { ", in a user namespace" } else { "" };
    report.done("network", format_args!("6 hosts in namespaces of their own{user}"));
    match no_nat {
        None => report
            .done("NAT", "the home masqueraded as 1.2.3.4; UDP 500, 4500 of 5.6.7.8 passed to the broker"),
        Some(why) => report.note(
            "NAT",
            format_args!("none ({why}): all addresses are routed, the broker has 5.6.7.8 itself"),
        ),
    }
    Ok(net)
}

/// A directory for keys, configurations and logs. In a mount namespace of our own it lies in memory, and goes with the namespace even
/// where this process is killed.
fn work_directory(args: &Args) -> anyhow::Result<TempDir> {
    let run = Path::new("/run");
    let mount = || {
        nix::mount::mount(
            Some("tmpfs"),
            run,
            Some("tmpfs"),
            nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV,
            Some("mode=0755"),
        )
    };
    // What this process still needs must stay in sight.
    let needed = [std::env::current_exe().ok(), std::env::current_dir().ok(), args.pcap.clone()];
    let in_memory = !needed.iter().flatten().any(|path| path.starts_with(run)) && mount().is_ok();
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("ferry6-demo-");
    let directory = if in_memory { builder.tempdir_in(run) } else { builder.tempdir() };
    directory.context("cannot make a directory for keys and configurations")
}

const BROKER_ID: &str = "dns:tunnel.my.domain";
const CLIENT_ID: &str = "email:client@my.domain";

fn certificates(directory: &Path, report: &Report) -> anyhow::Result<()> {
    report.begin("certificates", "making keys");
    let ca = Authority::root(&Profile::new("my.domain CA")?)?;
    let write = |name: &str, content: &str| {
        let path = directory.join(name);
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
        let mut file = options.open(&path)?;
        file.write_all(content.as_bytes())
    };
    let save =
        |name: &str, content: &str| write(name, content).with_context(|| format!("cannot write {name}"));
    save("ca.crt", &ca.certificates_pem())?;
    for (name, identity) in [("broker", BROKER_ID), ("client", CLIENT_ID)] {
        let credential = ca.issue(&Profile::for_name(identity)?)?;
        save(&format!("{name}.crt"), &credential.certificates_pem())?;
        save(&format!("{name}.key"), &credential.key_pem)?;
    }
    report.done("certificates", format_args!("a CA; {BROKER_ID} for the broker, {CLIENT_ID} for the client"));
    Ok(())
}

fn daemons(
    net: Article,
    directory: TempDir,
    report: &Report,
    interrupt: &Interrupt,
) -> anyhow::Result<Stage> {
    let here = directory.path();
    let common = |role: &str| {
        format!(
            "control = \"{0}/{role}.sock\"\n\
             [local]\ncert = \"{0}/{role}.crt\"\nkey = \"{0}/{role}.key\"\n\
             [remote]\nca = \"{0}/ca.crt\"\n",
            here.display()
        )
    };
    report.begin("broker", "starting");
    let state = format!("state_dir = \"{}/state\"\n", here.display());
    let configuration = format!("{state}{}[pool]\nrange = \"{}\"\n", common("broker"), article::POOL);
    let mut broker = Daemon::start("broker", &net.broker, here, &configuration)?;
    broker.wait("ready", PATIENCE, interrupt, |_| true)?;
    report.done("broker", format_args!("listens on {}, leases {}", article::BROKER, article::POOL));

    report.begin("tunnel", "IKE_SA_INIT, IKE_AUTH");
    let id = format!("id = \"{BROKER_ID}\"\n");
    let configuration =
        format!("{}{id}[broker]\naddress = \"{}\"\n", common("client"), article::BROKER_PUBLIC);
    let mut client = Daemon::start("client", &net.home, here, &configuration)?;
    let up = |status: &Status| {
        status.client.as_ref().is_some_and(|c| c.state == "up" && c.address.is_some() && !c.routes.is_empty())
    };
    let patience = PATIENCE;
    let status = client
        .wait("connected", patience, interrupt, up)
        .map_err(|e| anyhow::anyhow!("{e:#}{}", broker.last_words()))?;
    let time = client.started.elapsed().as_millis();
    let address = status.client.and_then(|c| c.address).context("a client that is up has an address")?;
    let lifetime = net.home.preferred_lifetime(IpAddr::V6(address))?;
    ensure!(lifetime == u32::MAX, "the address {address} is preferred for {lifetime} s only, not for ever");
    let sa = status.router.ike_sas.iter().find(|sa| !sa.children.is_empty()).context("no Child SA")?;
    report.done(
        "tunnel",
        format_args!(
            "up {time} ms after the client's start: {address}, never deprecated; {}",
            sa.children[0].algorithms
        ),
    );
    Ok(Stage { client, broker, net, directory })
}

type Captures = [Result<(&'static str, Capture), lab::Error>; 2];

fn measure(
    args: &Args,
    stage: &Stage,
    captures: Captures,
    report: &Report,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let net = &stage.net;
    let [towards_home, towards_colo] = captures;
    let captures = [towards_home?, towards_colo?];
    let ip = |text: &str| text.parse::<Ipv6Addr>().with_context(|| format!("{text} is an IPv6 address"));
    let (broker_ip, server_ip) = (ip(article::BROKER_IPV6)?, ip(article::SERVER)?);
    let client_ip =
        stage.client.status()?.client.and_then(|c| c.address).context("the client lost its address")?;

    let ways = [
        (&net.home, broker_ip, "home to broker"),
        (&net.home, server_ip, "home to server"),
        (&net.server, client_ip, "server to home"),
    ];
    for (host, target, way) in ways {
        let text = format!("{way}, {target}");
        report.begin("ping", &text);
        let pings = ping::ping(host, target, PINGS, PING_INTERVAL, PING_PATIENCE, interrupt)?;
        ensure!(pings.all_answered(), "ping, {text}: {pings}");
        report.done("ping", format_args!("{text:<26} {pings}"));
    }
    let octets = args.megabytes * 1_000_000;
    for (up, way) in [(true, "home to server"), (false, "server to home")] {
        report.begin("TCP", way);
        let moved = transfer::transfer(&net.server, server_ip, &net.home, octets, up, interrupt);
        let moved = moved.with_context(|| format!("TCP, {way}"))?;
        report.done("TCP", format_args!("{way:<26} {moved}"));
    }

    let status = stage.client.status()?;
    prove(captures, &status, 2 * octets, report)?;
    ipv4_goes_on(net)?;
    report.done("IPv4", "goes its own way, as before: home reached the internet's 5.6.7.1");

    for (name, status) in [("client", status), ("broker", stage.broker.status()?)] {
        report.text(2, &format!("\nferry6 status on the {name}:"));
        report.text(4, &render::status(&status));
    }
    report.text(0, "\n");
    for daemon in [&stage.client, &stage.broker] {
        let errors = daemon.errors();
        ensure!(errors.is_empty(), "there are errors in a log:\n    {}", errors.join("\n    "));
    }
    Ok(())
}

/// Nothing but IKE and ESP crossed the IPv4 internet, and the ESP was the tunnel's: its SPIs, and at least as much as was moved.
fn prove(
    captures: [(&'static str, Capture); 2],
    status: &Status,
    moved: u64,
    report: &Report,
) -> anyhow::Result<()> {
    let hex = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let children = status.router.ike_sas.iter().flat_map(|sa| &sa.children);
    let known: BTreeSet<u32> = children.flat_map(|c| [hex(&c.spi_in), hex(&c.spi_out)]).flatten().collect();
    for (towards, capture) in captures {
        let link = format!("internet - {towards}");
        let counts = capture.stop()?;
        ensure!(
            counts.missed == 0,
            "{link}: the capture missed {} frames, so nothing is proven; try again on a less busy machine",
            counts.missed
        );
        ensure!(counts.only_ipsec(), "{link}: more than IPsec crossed it: {counts}");
        ensure!(
            counts.spis == known,
            "{link}: ESP of other SPIs ({}) than the tunnel's ({})",
            spis(&counts.spis),
            spis(&known)
        );
        ensure!(
            counts.esp_in_udp_bytes > moved,
            "{link}: only {} octets of ESP for {moved} moved",
            counts.esp_in_udp_bytes
        );
        report.done("proof", format_args!("{link:<26} {}", summary(&counts)));
    }
    Ok(())
}

fn spis(spis: &BTreeSet<u32>) -> String {
    spis.iter().map(|spi| format!("{spi:#010x}")).collect::<Vec<_>>().join(", ")
}

fn summary(counts: &Counts) -> String {
    let megabytes = counts.esp_in_udp_bytes as f64 / 1e6;
    let (esp, ike) = (counts.esp_in_udp, counts.ike + counts.ike_nat);
    let keepalives =
        if counts.keepalives > 0 { format!(", {} keepalives", counts.keepalives) } else { String::new() };
    let arp = counts.arp;
    format!(
        "{esp} ESP in UDP ({megabytes:.0} MB), {ike} IKE{keepalives}; nothing else, save the link's own {arp} ARP"
    )
}

/// IPv4 of the home computer does not go through the tunnel.
fn ipv4_goes_on(net: &Article) -> anyhow::Result<()> {
    let listener = net.internet.run(|| TcpListener::bind("5.6.7.1:80")).context("internet: 5.6.7.1:80")?;
    let target = listener.local_addr()?;
    let timeout = Duration::from_secs(5);
    let stream = net.home.run(|| TcpStream::connect_timeout(&target, timeout));
    let mut stream = stream.context("home no longer reaches 5.6.7.1 over IPv4")?;
    let (mut accepted, _) = listener.accept()?;
    accepted.set_read_timeout(Some(timeout))?;
    stream.write_all(b"hello")?;
    let mut word = [0; 5];
    accepted.read_exact(&mut word).context("what home sent over IPv4")?;
    Ok(())
}

fn keep(stage: &Stage, report: &Report, interrupt: &Interrupt) {
    let (net, files) = (&stage.net, stage.directory.path().display());
    let hosts = [&net.home, &net.home_router, &net.internet, &net.firewall, &net.broker, &net.server];
    let entries = hosts.map(|host| format!("  {:<12} {}\n", host.name(), host.enter_command()));
    let text = format!(
        "It stays until Ctrl-C. To enter a host, in another terminal:\n\
         {}\
         Then for example, in home: ping {}; {} status --socket {files}/client.sock\n\
         Keys, configurations and logs are in {files}, seen from within.",
        entries.concat(),
        article::SERVER,
        std::env::current_exe().unwrap_or_else(|_| "ferry6".into()).display(),
    );
    report.text(2, &text);
    while !interrupt.happened() {
        std::thread::sleep(Duration::from_millis(50));
    }
    interrupt.forget();
    report.text(0, "\n");
}

fn tear_down(mut stage: Stage, report: &Report) -> anyhow::Result<()> {
    report.begin("end", "stopping client and broker");
    let device = stage.client.status().map(|s| s.router.tun);
    stage.client.stop()?;
    stage.broker.stop()?;
    if let Ok(device) = device {
        ensure!(stage.net.home.index(&device).is_err(), "the client left its device {device} behind");
    }
    drop(stage);
    report.done("end", "client and broker stopped, devices and routes gone, hosts removed");
    Ok(())
}

/// SIGINT, SIGTERM and SIGHUP: everything is torn down.
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn install() -> anyhow::Result<Interrupt> {
        use tokio::signal::unix::{SignalKind, signal};
        let flag = Arc::new(AtomicBool::new(false));
        let set = flag.clone();
        let (ready, installed) = std::sync::mpsc::channel();
        let wait = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                let mut interrupt = signal(SignalKind::interrupt())?;
                let mut terminate = signal(SignalKind::terminate())?;
                let mut hangup = signal(SignalKind::hangup())?;
                // Nobody waits any more where the demo has ended already.
                let _ = ready.send(());
                loop {
                    tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} _ = hangup.recv() => {} }
                    set.store(true, Ordering::Relaxed);
                }
            })
        };
        let thread = std::thread::Builder::new().name("signals".into());
        let thread =
            thread.spawn(move || -> std::io::Result<()> { wait() }).context("cannot start a thread")?;
        if installed.recv().is_err() {
            let outcome = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome.context("cannot handle signals")?;
        }
        Ok(Interrupt(flag))
    }

    fn happened(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The interrupt was the end that was waited for.
    fn forget(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// # Errors
    /// It was interrupted.
    fn check(&self) -> anyhow::Result<()> {
        if self.happened() { bail!("interrupted") } else { Ok(()) }
    }
}
