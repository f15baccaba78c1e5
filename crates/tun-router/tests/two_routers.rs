//! A client and a broker with all their threads, real IKE and real UDP on the loopback, over devices in memory: no root.
#![allow(clippy::unwrap_used)]

use ferry6_crypto::aws_lc;
use ferry6_crypto::provider::OsRandom;
use ferry6_ike::config::{Connection, IpcompPolicy};
use ferry6_ike::endpoint::{Endpoint, Parts};
use ferry6_ike::event::{CloseReason, Reqid};
use ferry6_ike::testing::{config, pool, psk_connections};
use ferry6_tun_router::device::Device;
use ferry6_tun_router::status::ChildSa;
use ferry6_tun_router::testing::{icmpv6, tcp, udp};
use ferry6_tun_router::virtio::{HEADER_LEN, Header};
use ferry6_tun_router::{DeviceKind, Router, RouterConfig, RouterEvent};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x101);
const HOST: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 2);
const PATIENCE: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(1);

struct End {
    router: Router,
    tun: UnixDatagram,
    events: mpsc::Receiver<RouterEvent>,
}

fn start(listen: Ipv4Addr, ports: (u16, u16), connection: Connection, broker: bool, workers: usize) -> End {
    let (device, tun) = Device::in_memory(if broker { "broker" } else { "client" }).unwrap();
    tun.set_read_timeout(Some(PATIENCE)).unwrap();
    let router_config = RouterConfig {
        tun_name: String::new(),
        device: DeviceKind::Auto,
        offload: true,
        mtu: 1400,
        listen,
        ike_port: ports.0,
        nat_port: ports.1,
        workers,
        replay_window: 4096,
        keepalive: KEEPALIVE,
        keylog: false,
        crypto: aws_lc::PROVIDER,
    };
    let mut endpoint_config = config([connection]);
    endpoint_config.nat_port = ports.1;
    endpoint_config.remote_nat_port = BROKER_PORTS.1;
    let (sender, events) = mpsc::channel(64);
    let router = Router::start_with_device(
        router_config,
        device,
        move |spis| {
            let parts = Parts {
                crypto: aws_lc::PROVIDER,
                random: Box::new(OsRandom),
                spis,
                pool: broker.then(|| Box::new(pool()) as Box<dyn ferry6_ike::config::AddressPool>),
            };
            Endpoint::new(endpoint_config, parts)
        },
        sender,
    )
    .unwrap();
    End { router, tun, events }
}

/// Each test has loopback addresses of its own, so all can use the same ports.
const BROKER_PORTS: (u16, u16) = (20_500, 24_500);

fn pair(net: u8, workers: usize, ipcomp: IpcompPolicy) -> (End, End) {
    let (mut client, mut broker) = psk_connections();
    client.ipcomp = ipcomp;
    broker.ipcomp = ipcomp;
    let client = start(Ipv4Addr::new(127, 6, net, 1), (0, 0), client, false, workers);
    let broker = start(Ipv4Addr::new(127, 6, net, 2), BROKER_PORTS, broker, true, workers);
    (client, broker)
}

async fn event<T>(end: &mut End, mut pick: impl FnMut(RouterEvent) -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let event = tokio::time::timeout_at(deadline, end.events.recv()).await;
        let event = event.expect("an event in time").expect("the router runs");
        if let Some(picked) = pick(event) {
            return picked;
        }
    }
}

async fn bring_up(net: u8, client: &mut End, broker: &mut End) {
    bring_up_at(Ipv4Addr::new(127, 6, net, 2), client, broker).await;
}

async fn bring_up_at(address: Ipv4Addr, client: &mut End, broker: &mut End) {
    let address = SocketAddrV4::new(address, BROKER_PORTS.0);
    client.router.handle().initiate("to-broker", address).await.unwrap();
    let lease = event(client, |event| match event {
        RouterEvent::Established(up) => Some(up.lease),
        RouterEvent::Closed(closed) => panic!("{}", closed.reason),
        _ => None,
    });
    assert_eq!(lease.await.address, Some(CLIENT));
    for end in [client, broker] {
        let child = event(end, |event| match event {
            RouterEvent::ChildInstalled(child) => Some(child),
            _ => None,
        })
        .await;
        assert!(!child.rekeyed);
    }
}

fn send(end: &End, packet: &[u8]) {
    end.tun.send(&[&Header::default().encode(), packet].concat()).unwrap();
}

fn receive(end: &End) -> (Header, Vec<u8>) {
    let mut buffer = vec![0; 70_000];
    let len = end.tun.recv(&mut buffer).expect("a packet in time");
    let (header, packet) = buffer[..len].split_first_chunk::<HEADER_LEN>().unwrap();
    (Header::decode(header), packet.to_vec())
}

async fn child(end: &End) -> ChildSa {
    end.router.handle().status().await.unwrap().ike_sas.remove(0).children.pop().unwrap()
}

#[tokio::test]
async fn up_traffic_status_down() {
    let (mut client, mut broker) = pair(1, 2, IpcompPolicy::Off);
    // Before the tunnel is up nothing leaves, and the sender is told.
    send(&client, &udp(CLIENT, HOST, 1, 2, b"too early"));
    let (_, answer) = receive(&client);
    assert_eq!((answer[6], answer[40], answer[41]), (58, 1, 0));
    bring_up(1, &mut client, &mut broker).await;
    let (echo, reply) =
        (icmpv6(CLIENT, HOST, 128, 0, b"12345678"), icmpv6(HOST, CLIENT, 129, 0, b"12345678"));
    send(&client, &echo);
    assert_eq!(receive(&broker).1, echo);
    send(&broker, &reply);
    assert_eq!(receive(&client).1, reply);
    // Another source address is not within the selectors.
    let other = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x102);
    send(&client, &udp(other, HOST, 1, 2, b"no"));
    assert_eq!(receive(&client).1[40..42], [1, 1]);

    let status = client.router.handle().status().await.unwrap();
    assert!(status.udp.contains("GSO"), "{status:?}");
    assert_eq!(status.drops.get("out_no_policy"), Some(&2), "{:?}", status.drops);
    let ike = &status.ike_sas[0];
    assert_eq!((ike.role.as_str(), ike.state.as_str()), ("initiator", "established"));
    let sa = &ike.children[0];
    assert_eq!((sa.packets_in, sa.packets_out, sa.bytes_out), (1, 1, echo.len() as u64));
    assert_eq!(
        (sa.local_ts.clone(), sa.remote_ts.clone()),
        (vec!["2a00::101/128".to_owned()], vec!["::/0".to_owned()])
    );

    // DELETE reaches the broker, whose selectors go with it.
    client.router.stop(Duration::from_secs(3));
    let reason = event(&mut broker, |event| match event {
        RouterEvent::Closed(closed) => Some(closed.reason),
        _ => None,
    })
    .await;
    assert!(matches!(reason, CloseReason::PeerDeleted), "{reason}");
    assert!(broker.router.handle().status().await.unwrap().ike_sas.is_empty());
    send(&broker, &udp(HOST, CLIENT, 1, 2, b"too late"));
    assert_eq!(receive(&broker).1[40..42], [1, 0]);
    let handle = broker.router.handle();
    drop(broker);
    assert!(handle.status().await.is_err());
}

#[tokio::test]
async fn ipcomp_from_end_to_end() {
    let (mut client, mut broker) = pair(2, 1, IpcompPolicy::On);
    bring_up(2, &mut client, &mut broker).await;
    let sa = child(&client).await;
    assert!(sa.ipcomp_in.is_some() && sa.ipcomp_out.is_some());
    let text = udp(CLIENT, HOST, 1, 2, &b"the same again and again ".repeat(40));
    for _ in 0..10 {
        send(&client, &text);
        assert_eq!(receive(&broker).1, text);
    }
}

/// Numbered packets at a steady rate in both directions, rekeys from both sides meanwhile: each arrives, in order.
#[tokio::test]
async fn rekeys_under_traffic_lose_nothing() {
    let (mut client, mut broker) = pair(3, 2, IpcompPolicy::Off);
    bring_up(3, &mut client, &mut broker).await;
    const COUNT: u32 = 20_000;
    let flow = |from: &End, to: &End, source: Ipv6Addr, destination: Ipv6Addr| {
        let (from, to) = (from.tun.try_clone().unwrap(), to.tun.try_clone().unwrap());
        let sender = std::thread::spawn(move || {
            for number in 0..COUNT {
                let packet = tcp(source, destination, 1, 2, number, 0x18, &number.to_be_bytes());
                from.send(&[&Header::default().encode(), &packet[..]].concat()).unwrap();
                if number % 20 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        let receiver = std::thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            let mut numbers = Vec::new();
            while numbers.len() < COUNT as usize {
                let Ok(len) = to.recv(&mut buffer) else { break };
                // The payload of a merged packet is the numbers one after the other.
                let payload = &buffer[HEADER_LEN + 72..len];
                numbers.extend(payload.chunks_exact(4).map(|n| u32::from_be_bytes(n.try_into().unwrap())));
            }
            numbers
        });
        (sender, receiver)
    };
    let up = flow(&client, &broker, CLIENT, HOST);
    let down = flow(&broker, &client, HOST, CLIENT);
    let (client_reqid, broker_reqid) = (child(&client).await.reqid, child(&broker).await.reqid);
    let first = child(&client).await.spi_in;
    let mut rekeys = 0;
    while !up.0.is_finished() || !down.0.is_finished() {
        let (end, reqid) = if rekeys % 2 == 0 { (&client, client_reqid) } else { (&broker, broker_reqid) };
        if end.router.handle().rekey_child(Reqid(reqid)).await.is_ok() {
            rekeys += 1;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert!(rekeys > 3, "{rekeys} rekeys");
    assert_ne!(child(&client).await.spi_in, first);
    for (sender, receiver) in [up, down] {
        sender.join().unwrap();
        let mut numbers = receiver.join().unwrap();
        assert_eq!(numbers.len(), COUNT as usize, "lost in a rekey");
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..COUNT), "some came twice, others never");
    }
}

/// One port of a NAT in front of the broker: what comes from elsewhere goes on to the broker, and is told; what the broker
/// sends goes back to who spoke last.
fn nat(outside: SocketAddrV4, broker: SocketAddrV4) -> std::sync::mpsc::Receiver<(Instant, Vec<u8>)> {
    let socket = UdpSocket::bind(outside).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut buffer, mut client) = ([0; 2000], None);
        while let Ok((len, source)) = socket.recv_from(&mut buffer) {
            let datagram = &buffer[..len];
            if source == broker.into() {
                client.map(|client| socket.send_to(datagram, client));
                continue;
            }
            client = Some(source);
            let _ = socket.send_to(datagram, broker);
            if tell.send((Instant::now(), datagram.to_vec())).is_err() {
                break;
            }
        }
    });
    told
}

/// RFC 3948 section 4: a packet right after a keepalive doesn't put off the next one by a whole interval more.
#[tokio::test]
async fn a_nat_sees_something_in_each_interval() {
    let (mut client, mut broker) = pair(5, 1, IpcompPolicy::Off);
    let [outside, inside] = [3, 2].map(|host| Ipv4Addr::new(127, 6, 5, host));
    let at = |address, port| SocketAddrV4::new(address, port);
    let _ike = nat(at(outside, BROKER_PORTS.0), at(inside, BROKER_PORTS.0));
    let seen = nat(at(outside, BROKER_PORTS.1), at(inside, BROKER_PORTS.1));
    bring_up_at(outside, &mut client, &mut broker).await;
    let next = || seen.recv_timeout(PATIENCE).expect("a datagram in time");
    while next().1 != [0xff] {}
    send(&client, &udp(CLIENT, HOST, 1, 2, b"busy"));
    let (sent, esp) = next();
    assert!(esp.len() > 40, "the packet itself");
    assert!(next().0 - sent < KEEPALIVE * 3 / 2);
}

#[tokio::test]
async fn stopping_without_a_peer_takes_no_longer_than_the_patience() {
    let (client, _) = psk_connections();
    let client = start(Ipv4Addr::new(127, 6, 4, 1), (0, 0), client, false, 1);
    let nobody = SocketAddrV4::new(Ipv4Addr::new(127, 6, 4, 9), 500);
    client.router.handle().initiate("to-broker", nobody).await.unwrap();
    assert!(client.router.handle().initiate("no such", nobody).await.is_err());
    let start = Instant::now();
    client.router.stop(Duration::from_millis(500));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}
