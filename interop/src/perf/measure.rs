//! The measurements: TCP by iperf3, small UDP packets and pings of our own, CPU time and memory from /proc.

use super::net;
use super::subject::Standing;
use crate::{run, wait_until};
use anyhow::{Context, Result, bail, ensure};
use ferry6::lab::Host;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::unistd::{SysconfVar, sysconf};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Payload of the small packets, in octets.
pub const SMALL: usize = 64;
/// Pause between a ping's answer and the next one: long enough that all threads have gone to sleep.
const PING_PAUSE: Duration = Duration::from_millis(2);

/// How long iperf3's server may refuse a transfer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one round of one subject gave.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// TCP, Gbit/s of payload received: 1 stream up and down, 4 streams up and down.
    pub tcp: [f64; 4],
    /// CPU seconds of both ends' processes per 10^9 octets of TCP payload, over the four transfers; `None` without a tunnel.
    pub cpu_tunnel: Option<f64>,
    /// CPU seconds of the whole machine, iperf3 included, per 10^9 octets.
    pub cpu_machine: f64,
    /// UDP packets of 64 octets delivered, thousands a second: up, down.
    pub udp: [f64; 2],
    /// Round trip of a lone ping: median and 99th percentile, µs.
    pub ping: [f64; 2],
    /// Resident memory of the larger end, as high as it ever was, MB of 10^6 octets; `None` without a tunnel.
    pub rss: Option<f64>,
    /// CPU time of both ends' processes while the other subjects had their turns: ms a second; `None` without a tunnel, or others.
    pub idle: Option<f64>,
}

/// CPU time of a subject from one of its turns to the next: it has nothing to do then.
pub struct Idle(Instant, f64);

impl Idle {
    /// From now on.
    pub fn begin(standing: &Standing) -> Result<Self> {
        Ok(Self(Instant::now(), process_seconds(&standing.processes())?))
    }

    /// Until now, in ms a second; `None` where it was too short to tell, for the kernel counts hundredths of a second.
    pub fn end(&self, standing: &Standing) -> Result<Option<f64>> {
        let (time, processes) = (self.0.elapsed().as_secs_f64(), standing.processes());
        if processes.is_empty() || time < 5.0 {
            return Ok(None);
        }
        Ok(Some((process_seconds(&processes)? - self.1) / time * 1e3))
    }
}

/// All of one subject, `seconds` for each transfer.
pub fn sample(standing: &Standing, seconds: f64) -> Result<Sample> {
    let mut sample = Sample::default();
    let (mut octets, mut cpu, mut machine) = (0.0, 0.0, 0.0);
    for (slot, (streams, down)) in [(1, false), (1, true), (4, false), (4, true)].into_iter().enumerate() {
        let transfer = tcp(standing, streams, down, seconds)?;
        sample.tcp[slot] = transfer.gbits;
        octets += transfer.octets;
        cpu += transfer.cpu;
        machine += transfer.machine;
    }
    ensure!(octets > 0.0, "no octet passed in TCP");
    let processes = standing.processes();
    if !processes.is_empty() {
        sample.cpu_tunnel = Some(cpu / (octets / 1e9));
        sample.rss = Some(peak_memory(&processes)?);
    }
    sample.cpu_machine = machine / (octets / 1e9);
    let (client, server) = (&standing.net.client, &standing.net.server);
    let (client_address, server_address) = (standing.client_address().parse()?, net::SERVER.parse()?);
    sample.udp[0] = flood(client, server, server_address, seconds)? / 1e3;
    settle();
    sample.udp[1] = flood(server, client, client_address, seconds)? / 1e3;
    ensure!(sample.udp.iter().all(|rate| *rate > 0.0), "no UDP packet was delivered: {:?}", sample.udp);
    settle();
    sample.ping = ping(client, server_address, Duration::from_secs_f64(seconds))?;
    Ok(sample)
}

/// Lets queues run empty.
fn settle() {
    std::thread::sleep(Duration::from_millis(100));
}

/// What a transfer moved.
pub struct Transfer {
    /// Gbit/s.
    pub gbits: f64,
    /// Octets received.
    pub octets: f64,
    /// CPU seconds of both ends' processes meanwhile.
    cpu: f64,
    /// And of the whole machine.
    machine: f64,
}

/// The server of iperf3, for one transfer or many.
pub struct Iperf(Child);

impl Iperf {
    /// Starts it on a host.
    pub fn server(host: &Host, address: &str) -> Result<Self> {
        let mut command = host.command("iperf3");
        command.args(["-s", "-B", address]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("cannot start iperf3 (Debian: iperf3)")?;
        let this = Self(child);
        wait_until("iperf3 listens", Duration::from_secs(5), || {
            // A connection would be taken for a test. Its port is 5201, 1451 in hex; 0A is TCP_LISTEN.
            let sockets = host.run(|| fs::read_to_string("/proc/thread-self/net/tcp6"))?;
            Ok(sockets.lines().any(|line| line.contains(":1451 ") && line.contains(" 0A ")))
        })?;
        Ok(this)
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One TCP transfer by iperf3, from the client, or to it where `down`.
pub fn tcp(standing: &Standing, streams: u32, down: bool, seconds: f64) -> Result<Transfer> {
    let mut command = standing.net.client.command("iperf3");
    command.args(["-c", net::SERVER, "-J", "-P", &streams.to_string(), "-t", &format!("{}", seconds.ceil())]);
    if down {
        command.arg("-R");
    }
    // iperf3's server takes one test at a time, and for a moment after one it is busy, or resets a connection. What it refused
    // is done again, as a whole.
    let begin = Instant::now();
    loop {
        let (cpu, machine) = (process_seconds(&standing.processes())?, machine_seconds()?);
        match run(&mut command, "iperf3").and_then(|text| transfer(&text)) {
            Ok(transfer) => {
                return Ok(Transfer {
                    cpu: process_seconds(&standing.processes())? - cpu,
                    machine: machine_seconds()? - machine,
                    ..transfer
                });
            }
            Err(error) => {
                let text = format!("{error:#}");
                let passes = text.contains("busy") || text.contains("reset by peer");
                if !passes || begin.elapsed() > PATIENCE + Duration::from_secs_f64(seconds) {
                    return Err(error);
                }
                if !text.contains("busy") {
                    let cause = text.lines().find(|line| line.contains("\"error\"")).unwrap_or(&text);
                    println!("    {}: once more, for {}", standing.subject.name, cause.trim());
                }
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn transfer(json: &str) -> Result<Transfer> {
    let report: Value =
        serde_json::from_str(json).with_context(|| format!("iperf3 said no JSON:\n{json}"))?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let number = |pointer: &str| {
        report
            .pointer(pointer)
            .and_then(Value::as_f64)
            .with_context(|| format!("iperf3's report lacks {pointer}"))
    };
    Ok(Transfer {
        gbits: number("/end/sum_received/bits_per_second")? / 1e9,
        octets: number("/end/sum_received/bytes")?,
        cpu: 0.0,
        machine: 0.0,
    })
}

/// A socket of a host that sends to this one.
fn towards(from: &Host, receiver: &UdpSocket) -> Result<UdpSocket> {
    let destination = receiver.local_addr()?;
    Ok(from.run(|| {
        let sender = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        sender.connect(destination)?;
        Ok(sender)
    })?)
}

/// Sends datagrams of [`SMALL`] octets as fast as one thread can, one a system call, and returns how many a second were
/// delivered.
fn flood(from: &Host, to: &Host, address: Ipv6Addr, seconds: f64) -> Result<f64> {
    let receiver = to.run(|| UdpSocket::bind((address, 0)))?;
    receiver.set_read_timeout(Some(Duration::from_millis(20)))?;
    let sender = towards(from, &receiver)?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let sending = std::thread::spawn(move || {
        let packet = [0x36; SMALL];
        while !flag.load(Ordering::Relaxed) {
            // A full queue is no fault here.
            let _ = sender.send(&packet);
        }
    });
    // The beginning, while queues fill and threads wake up, does not count.
    let begin = Instant::now() + Duration::from_millis(100);
    let end = begin + Duration::from_secs_f64(seconds);
    let mut buffer = [0; 2048];
    let mut count = 0_u64;
    let result = loop {
        match receiver.recv(&mut buffer) {
            Ok(SMALL) => count += u64::from(Instant::now() >= begin),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => break Err(e),
        }
        let now = Instant::now();
        if now >= end {
            break Ok(now);
        }
    };
    stop.store(true, Ordering::Relaxed);
    sending.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
    let elapsed = result?.duration_since(begin).as_secs_f64();
    Ok(count as f64 / elapsed)
}

/// What a counted flow lost.
pub struct Counted {
    /// Datagrams sent.
    pub sent: u64,
    /// Distinct datagrams that came.
    pub received: u64,
}

/// Sends `rate` numbered datagrams a second of `len` octets until `stop`, and counts those that come.
pub fn counted(
    from: &Host,
    to: &Host,
    address: Ipv6Addr,
    rate: u32,
    len: usize,
    stop: &AtomicBool,
) -> Result<Counted> {
    let receiver = to.run(|| {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        // As the superuser, above net.core.rmem_max, so that a pause of this program loses nothing.
        if setsockopt(&socket, RcvBufForce, &(8 << 20)).is_err() {
            socket.set_recv_buffer_size(8 << 20)?;
        }
        socket.bind(&SocketAddr::from((address, 0)).into())?;
        Ok(UdpSocket::from(socket))
    })?;
    receiver.set_read_timeout(Some(Duration::from_millis(20)))?;
    let sender = towards(from, &receiver)?;
    let sent = std::sync::atomic::AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (sent, done) = (&sent, &done);
        scope.spawn(move || {
            let begin = Instant::now();
            let mut packet = vec![0x36; len.max(8)];
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let due = (begin.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                // After a pause of this thread the rest is not sent at once: that would be a burst above the rate.
                let due = due.min(number + 32);
                while number < due {
                    packet[..8].copy_from_slice(&number.to_be_bytes());
                    if sender.send(&packet).is_ok() {
                        number += 1;
                        sent.store(number, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            done.store(true, Ordering::Release);
        });
        let mut seen: Vec<bool> = Vec::new();
        let mut received = 0;
        let mut buffer = vec![0; 65_536];
        let mut quiet = 0;
        loop {
            match receiver.recv(&mut buffer) {
                Ok(n) if n == len.max(8) => {
                    quiet = 0;
                    let number = u64::from_be_bytes(buffer[..8].try_into().expect("8 octets")) as usize;
                    // No more numbers than a run can send: 10^7.
                    if number < 10_000_000 {
                        if seen.len() <= number {
                            seen.resize(number + 1, false);
                        }
                        received += u64::from(!std::mem::replace(&mut seen[number], true));
                    }
                }
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    quiet += 1;
                    if done.load(Ordering::Acquire)
                        && (received == sent.load(Ordering::Relaxed) || quiet > 50)
                    {
                        return Ok(Counted { sent: sent.load(Ordering::Relaxed), received });
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
    })
}

/// Lone pings for so long; the median and the 99th percentile of their round trips in µs.
fn ping(from: &Host, to: Ipv6Addr, time: Duration) -> Result<[f64; 2]> {
    let socket = from.run(|| Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let to = SocketAddrV6::new(to, 0, 0, 0).into();
    let end = Instant::now() + time;
    let mut times = Vec::new();
    let mut buffer = [0; 2048];
    let mut lost = 0;
    for number in 0_u32.. {
        if Instant::now() >= end {
            break;
        }
        let mut packet = [0x36; 64];
        // Echo request; the kernel fills the checksum in.
        packet[..8].copy_from_slice(&[128, 0, 0, 0, 0x66, 0x36, 0, 0]);
        packet[8..12].copy_from_slice(&number.to_be_bytes());
        let begin = Instant::now();
        socket.send_to(&packet, &to)?;
        loop {
            match (&socket).read(&mut buffer) {
                Ok(n) if n >= 12 && buffer[0] == 129 && buffer[8..12] == number.to_be_bytes() => {
                    times.push(begin.elapsed());
                    break;
                }
                // The socket sees all of ICMPv6.
                Ok(_) if begin.elapsed() < Duration::from_millis(500) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    lost += 1;
                    break;
                }
            }
        }
        std::thread::sleep(PING_PAUSE);
    }
    ensure!(times.len() > 10 * lost, "{lost} pings were lost, {} answered", times.len());
    times.sort_unstable();
    let micros =
        |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e6;
    Ok([micros(50), micros(99)])
}

fn ticks_per_second() -> Result<f64> {
    Ok(sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")? as f64)
}

/// User and system time of these processes, seconds: all their threads, utime and stime of /proc/PID/stat.
pub fn process_seconds(processes: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for process in processes {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))
            .with_context(|| format!("process {process} of the tunnel has ended"))?;
        // The name, in parentheses, may hold spaces.
        let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        for index in [11, 12] {
            ticks += fields.get(index).context("/proc/PID/stat is short")?.parse::<u64>()?;
        }
    }
    Ok(ticks as f64 / ticks_per_second()?)
}

/// All that this machine has worked, seconds: user, nice, system, irq and softirq of /proc/stat.
fn machine_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let ticks: u64 = [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum();
    Ok(ticks as f64 / ticks_per_second()?)
}

/// The largest of the peaks of resident memory (VmHWM), MB.
fn peak_memory(processes: &[u32]) -> Result<f64> {
    let mut peak = 0.0_f64;
    for process in processes {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
        let kib: f64 = line.split_whitespace().nth(1).context("no VmHWM")?.parse()?;
        peak = peak.max(kib * 1024.0 / 1e6);
    }
    Ok(peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_iperf3() {
        let text = r#"{"end": {"sum_sent": {"retransmits": 3},
            "sum_received": {"bits_per_second": 2.5e9, "bytes": 312500000}}}"#;
        let transfer = transfer(text).unwrap();
        assert_eq!((transfer.gbits, transfer.octets), (2.5, 312_500_000.0));
        assert!(
            super::transfer(r#"{"error": "no route"}"#).is_err_and(|e| e.to_string().contains("no route"))
        );
        assert!(super::transfer(r#"{"end": {}}"#).is_err());
    }

    #[test]
    fn own_time_and_memory_are_found() {
        let own = [std::process::id()];
        assert!(process_seconds(&own).unwrap() >= 0.0);
        assert!(peak_memory(&own).unwrap() > 0.5);
        assert!(machine_seconds().unwrap() > 0.0);
        assert!(process_seconds(&[u32::MAX]).is_err());
    }
}
