//! The real TUN device, each test in a network namespace of its own. Needs root, or says loudly that it was skipped.
#![allow(clippy::unwrap_used)]

use ferry6_tun_router::classify::parse;
use ferry6_tun_router::device::{Device, READ_BUFFER_LEN, TunQueue};
use ferry6_tun_router::gso::Segments;
use ferry6_tun_router::testing::udp;
use ferry6_tun_router::virtio::{Gso, Header};
use ferry6_tun_router::{DeviceKind, StartError};
use std::io::{ErrorKind, IoSlice};
use std::net::{Ipv6Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

const US: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x101);
const FAR: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 2);

/// Moves this thread into a new network namespace; it vanishes with the thread.
fn own_namespace() -> bool {
    match nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("\n*** SKIPPED: no network namespace of our own ({error}); run as root ***\n");
            false
        }
    }
}

fn interfaces() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

fn open(name: &str, kind: DeviceKind, queues: usize) -> Result<Device, StartError> {
    Device::open(name, kind, true, 1400, queues)
}

fn ip(arguments: &str) -> bool {
    match Command::new("ip").args(arguments.split(' ')).status() {
        Ok(status) => {
            assert!(status.success(), "ip {arguments}");
            true
        }
        Err(error) => {
            eprintln!("\n*** SKIPPED: no `ip` program ({error}) ***\n");
            false
        }
    }
}

/// The next packet that is not link-scope noise.
fn read(queues: &[TunQueue]) -> (Header, Vec<u8>) {
    let start = Instant::now();
    let mut buffer = vec![0; READ_BUFFER_LEN];
    while start.elapsed() < Duration::from_secs(5) {
        for queue in queues {
            match queue.read(&mut buffer) {
                Ok((header, packet)) => return (header, packet.to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A queue that is not attached.
                Err(error) if error.raw_os_error() == Some(77) => {}
                Err(error) => panic!("{error}"),
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("nothing came");
}

#[test]
fn comes_and_goes() {
    if !own_namespace() {
        return;
    }
    let device = open("ferry%d", DeviceKind::Auto, 2).unwrap();
    assert_eq!(device.name(), "ferry0");
    assert!(device.description().starts_with("virtio-net header, TSO"), "{}", device.description());
    assert_eq!(device.queues().len(), 2);
    assert!(interfaces().contains(&"ferry0".to_owned()));
    let conf = |key: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/ferry0/{key}")).unwrap();
    assert_eq!(conf("mtu").trim(), "1400");
    assert_eq!(conf("addr_gen_mode").trim(), "1");
    // No router solicitation, no multicast report: silence.
    std::thread::sleep(Duration::from_millis(300));
    let mut buffer = vec![0; READ_BUFFER_LEN];
    assert_eq!(device.queues()[0].read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);

    let error = open("ferry0", DeviceKind::TunTap, 1).unwrap_err().to_string();
    assert!(error.contains("ferry0") && error.contains("another name"), "{error}");
    drop(device);
    assert_eq!(interfaces(), ["lo"]);
}

#[test]
fn a_name_in_use_is_told() {
    if !own_namespace() {
        return;
    }
    for queues in [1, 2] {
        let _first = open("ferry0", DeviceKind::Auto, queues).unwrap();
        let error = open("ferry0", DeviceKind::Auto, queues).unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("ferry%d"), "{error}");
    }
    let error = open("lo", DeviceKind::Auto, 1).unwrap_err().to_string();
    assert!(error.contains("lo") && error.contains("another"), "{error}");
}

#[test]
fn vanishes_after_sigkill() {
    if !own_namespace() {
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_a_device", "--ignored"])
        .spawn()
        .unwrap();
    let start = Instant::now();
    let wait_for = |present: bool| {
        while interfaces().contains(&"ferrykill".to_owned()) != present {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait_for(true);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(false);
}

/// The victim of [`vanishes_after_sigkill`].
#[test]
#[ignore = "only a part of vanishes_after_sigkill"]
fn holds_a_device() {
    let _device = open("ferrykill", DeviceKind::Auto, 2).unwrap();
    std::thread::sleep(Duration::from_secs(30));
}

/// Packets of the kernel's sockets come out, whole and with right checksums; ours go in.
fn traffic(kind: DeviceKind, queues: usize) {
    if !own_namespace() {
        return;
    }
    let device = open("ferry0", kind, queues).unwrap();
    if !ip("-6 addr add 2a00::101/128 dev ferry0 nodad") || !ip("-6 route add default dev ferry0") {
        return;
    }
    let socket = UdpSocket::bind((US, 5000)).unwrap();
    for size in [0, 1, 1000, 1352] {
        socket.send_to(&vec![7; size], (FAR, 6000)).unwrap();
        let (header, packet) = read(device.queues());
        assert_eq!(header.gso, Gso::None);
        let segments = Segments::new(&header, &packet).unwrap();
        let mut whole = vec![0; segments.max_len()];
        let len = segments.write(0, &mut whole);
        assert!(parse(&whole).is_ok());
        let mut expected = udp(US, FAR, 5000, 6000, &vec![7; size]);
        // The kernel has flow labels, which no checksum covers.
        expected[..4].copy_from_slice(&whole[..4]);
        assert_eq!(whole[..len], expected);
    }
    // The other way, in two parts.
    let answer = udp(FAR, US, 6000, 5000, b"answer");
    let (a, b) = answer.split_at(50);
    let queue = &device.queues()[0];
    let mut buffer = [0; 100];
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    // All namespaces of a busy machine share the kernel's backlog, which may drop one.
    let received = (0..25).find_map(|_| {
        queue.write(&Header::default(), &[IoSlice::new(a), IoSlice::new(b)]).unwrap();
        socket.recv_from(&mut buffer).ok()
    });
    assert_eq!(received.expect("the answer comes in").0, 6);
    assert_eq!(&buffer[..6], b"answer");
}

#[test]
fn traffic_through_the_fast_device() {
    traffic(DeviceKind::Auto, 1);
}

#[test]
fn traffic_through_two_queues() {
    traffic(DeviceKind::Auto, 2);
}

#[test]
fn traffic_through_tun_tap() {
    traffic(DeviceKind::TunTap, 2);
}

/// A second queue is idle until it is attached, and then gets its share of the flows.
#[test]
fn queues_are_attached_when_needed() {
    if !own_namespace() {
        return;
    }
    let device = open("ferry0", DeviceKind::Auto, 2).unwrap();
    if !ip("-6 addr add 2a00::101/128 dev ferry0 nodad") || !ip("-6 route add default dev ferry0") {
        return;
    }
    assert_eq!(device.queues().len(), 2);
    let socket = UdpSocket::bind((US, 0)).unwrap();
    let mut buffer = vec![0; READ_BUFFER_LEN];
    let mut flows = |device: &Device| {
        for port in 1..=64 {
            socket.send_to(b"x", (FAR, port)).unwrap();
        }
        let mut counts = [0; 2];
        for (count, queue) in counts.iter_mut().zip(device.queues()) {
            while queue.read(&mut buffer).is_ok() {
                *count += 1;
            }
        }
        counts
    };
    assert_eq!(flows(&device), [64, 0]);
    device.queues()[1].attach().unwrap();
    let counts = flows(&device);
    assert_eq!(counts[0] + counts[1], 64);
    assert!(counts[1] > 0, "{counts:?}");
}

#[test]
fn without_offload_packets_are_single() {
    if !own_namespace() {
        return;
    }
    let device = Device::open("ferry0", DeviceKind::Auto, false, 1400, 2).unwrap();
    assert_eq!(device.description(), "virtio-net header, 2 queues");
    assert!(!device.segmentation() && !device.udp_segmentation());
}
