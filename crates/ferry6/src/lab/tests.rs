//! These make real namespaces: they need root, and say so where it is missing.

use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// A laboratory, or none where this user may make no namespaces.
fn lab() -> Option<Lab> {
    match Lab::new() {
        Ok(lab) => Some(lab),
        Err(Error::Privilege(why)) if !nix::unistd::geteuid().is_root() => {
            eprintln!("SKIPPED: {why}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

fn article(options: article::Options) -> Option<article::Article> {
    lab()?;
    match article::build(options) {
        Ok(article) => Some(article),
        Err(Error::NoNat(why)) => {
            eprintln!("SKIPPED: {why}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// A datagram from one host to an address; tells who the receiver thinks sent it, or that it did not come.
fn datagram(from: &Host, source: &str, to: &Host, bind: &str, target: &str) -> Option<(String, Vec<u8>)> {
    let receiver = to.run(|| UdpSocket::bind(bind)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let sender = from.run(|| UdpSocket::bind(source)).unwrap();
    let message = [&[0xff; 8][..], &[7; 100]].concat();
    if sender.send_to(&message, target).is_err() {
        return None;
    }
    let mut buffer = [0; 2000];
    let (length, peer) = receiver.recv_from(&mut buffer).ok()?;
    receiver.send_to(&buffer[..length], peer).unwrap();
    sender.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    sender.recv_from(&mut buffer).expect("the answer finds back");
    Some((peer.to_string(), buffer[..length].to_vec()))
}

#[test]
fn hosts_are_linked_and_apart() {
    let Some(lab) = lab() else { return };
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    lab.link_with(&a, "eth0", &b, "eth0", LinkOptions { mtu: Some(1300), ..LinkOptions::default() }).unwrap();
    a.address("eth0", "fd00::1/64").unwrap();
    b.address("eth0", "fd00::2/64").unwrap();
    let listener = b.run(|| TcpListener::bind("[fd00::2]:80")).unwrap();
    let mut client = a.run(|| TcpStream::connect("[fd00::2]:80")).unwrap();
    let (mut server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "fd00::1");
    client.write_all(b"hello").unwrap();
    let mut got = [0; 5];
    server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    let outside = TcpStream::connect_timeout(&"[fd00::2]:80".parse().unwrap(), Duration::from_millis(200));
    assert!(outside.is_err(), "the machine itself has no way in");
    let mtu = a.command("cat").arg("/proc/sys/net/ipv6/conf/eth0/mtu").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&mtu.stdout).trim(), "1300");
}

#[test]
fn errors_say_what_was_tried() {
    let Some(lab) = lab() else { return };
    let a = lab.host("a").unwrap();
    let text = |r: Result<(), Error>| r.unwrap_err().to_string();
    assert_eq!(
        text(a.address("lo", "10.0.0.1")),
        "a: cannot use `10.0.0.1`: not an address with a prefix length, like 192.168.0.2/24"
    );
    assert!(text(a.address("eth9", "10.0.0.1/8")).starts_with("a: cannot find interface eth9: "));
    assert!(text(a.route("default", "10.0.0.1")).starts_with("a: cannot route default through 10.0.0.1: "));
    assert!(text(a.sysctl("net.ipv4.nothing", "1")).contains("net.ipv4.nothing"));
    assert!(matches!(a.nft("add rubbish"), Err(Error::NoNat(_) | Error::Failed { .. })));
}

#[test]
fn mounts_are_the_hosts_own() {
    let Some(lab) = lab() else { return };
    let a = lab.host("a").unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("hello"), "from the laboratory").unwrap();
    a.bind(directory.path(), "/mnt").unwrap();
    let cat = || a.command("cat").arg("/mnt/hello").current_dir("/tmp").output().unwrap();
    assert_eq!(cat().stdout, b"from the laboratory");
    let here = a.command("pwd").current_dir("/tmp").output().unwrap();
    assert_eq!(here.stdout, b"/tmp\n", "the working directory is kept");
    assert!(!std::path::Path::new("/mnt/hello").exists(), "nothing outside sees it");
    a.tmpfs("/mnt").unwrap();
    assert!(!cat().status.success());
}

#[test]
fn the_end_of_a_lab_ends_its_processes() {
    let Some(lab) = lab() else { return };
    let a = lab.host("a").unwrap();
    // A daemon in its own session, whose parent is gone.
    let script = "setsid sleep 1000 >/dev/null 2>&1 & echo $!";
    let output = a.command("sh").args(["-c", script]).output().unwrap();
    let pid: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    let alive = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    assert!(alive());
    drop(lab);
    let deadline = std::time::Instant::now() + Duration::from_secs(2);
    while alive() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!alive());
}

#[test]
fn the_article_has_its_nats() {
    let Some(net) = article(article::Options::default()) else { return };
    let colo = Capture::start(&net.internet, "colo", CaptureOptions::default()).unwrap();
    // UDP 4500 reaches the broker, under the home router's address and another port.
    let (peer, _) = datagram(&net.home, "0.0.0.0:4500", &net.broker, "0.0.0.0:4500", "5.6.7.8:4500").unwrap();
    assert!(peer.starts_with("1.2.3.4:") && peer != "1.2.3.4:4500", "{peer}");
    assert!(datagram(&net.home, "0.0.0.0:500", &net.broker, "0.0.0.0:500", "5.6.7.8:500").is_some());
    // Nothing else does.
    assert_eq!(datagram(&net.home, "0.0.0.0:9", &net.broker, "0.0.0.0:9", "5.6.7.8:9"), None);
    // The broker and the server have IPv6; home has none.
    assert!(datagram(&net.broker, "[2a00::2]:0", &net.server, "[::]:9", "[2a00:1::80]:9").is_some());
    assert!(net.home.run(|| UdpSocket::bind("[::]:0")?.connect("[2a00:1::80]:9")).is_err());
    let counts = colo.stop().unwrap();
    assert_eq!(counts.esp_in_udp, 2, "{counts}");
    assert_eq!(counts.spis.into_iter().collect::<Vec<_>>(), [0xffff_ffff]);
    assert_eq!(counts.other, 3, "two that are no IKE, and one to the closed port: {:?}", counts.other_kinds);
    assert_eq!(counts.missed, 0);
}

#[test]
fn the_article_without_nat_and_with_more_homes() {
    let options = article::Options { nat: false, internet_mtu: 1400, ..article::Options::default() };
    let Some(net) = article(options) else { return };
    let (peer, _) = datagram(&net.home, "0.0.0.0:4500", &net.broker, "5.6.7.8:4500", "5.6.7.8:4500").unwrap();
    assert_eq!(peer, "192.168.0.2:4500");
    let site = net.site(7).unwrap();
    let clients = [net.lab.host("x").unwrap(), net.lab.host("y").unwrap()];
    for (client, expected) in clients.iter().zip(["192.168.7.2", "192.168.7.3"]) {
        assert_eq!(net.attach(&site, client, "eth0").unwrap(), expected);
        net.default_route(&site, client).unwrap();
        let (peer, _) =
            datagram(client, "0.0.0.0:4500", &net.broker, "5.6.7.8:4500", "5.6.7.8:4500").unwrap();
        assert_eq!(peer, format!("{expected}:4500"));
    }
}

#[test]
fn capture_cuts_super_packets() {
    let Some(lab) = lab() else { return };
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    lab.link_with(&a, "eth0", &b, "eth0", LinkOptions { ipv6: false, ..LinkOptions::default() }).unwrap();
    a.address("eth0", "10.0.0.1/24").unwrap();
    b.address("eth0", "10.0.0.2/24").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let pcap = directory.path().join("link.pcap");
    let capture =
        Capture::start(&b, "eth0", CaptureOptions { pcap: Some(pcap.clone()), ..CaptureOptions::default() })
            .unwrap();
    let receiver = b.run(|| UdpSocket::bind("10.0.0.2:4500")).unwrap();
    let sender = a.run(|| UdpSocket::bind("10.0.0.1:4500")).unwrap();
    nix::sys::socket::setsockopt(&sender, nix::sys::socket::sockopt::UdpGsoSegment, &1000).unwrap();
    let mut run = vec![0x11; 9500];
    for (number, segment) in run.chunks_mut(1000).enumerate() {
        segment[..4].copy_from_slice(&(0x1000 + number as u32).to_be_bytes());
    }
    sender.send_to(&run, "10.0.0.2:4500").unwrap();
    let mut buffer = [0; 2000];
    for _ in 0..10 {
        receiver.recv(&mut buffer).unwrap();
    }
    let counts = capture.stop().unwrap();
    assert!(counts.only_ipsec(), "{counts}");
    assert_eq!((counts.esp_in_udp, counts.arp), (10, 2));
    assert_eq!(counts.esp_in_udp_bytes, 9500 + 10 * 28);
    assert_eq!(counts.spis, (0x1000..0x100a).collect());
    let file = std::fs::read(pcap).unwrap();
    assert_eq!(file.len(), 24 + 12 * 16 + 2 * 42 + 9500 + 10 * 42, "each datagram is a frame of its own");
}
