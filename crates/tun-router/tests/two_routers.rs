//! A client and a broker with all their threads, real IKE and real UDP on the loopback, over devices in memory: no root.
#![allow(clippy::unwrap_used)]

use ferry6_crypto::aws_lc;
use ferry6_crypto::provider::OsRandom;
use ferry6_ike::config::{Connection, IpcompPolicy, PerResource};
use ferry6_ike::endpoint::{Endpoint, Parts};
use ferry6_ike::event::{CloseReason, IkeSaId, Reqid};
use ferry6_ike::testing::{config, pool, psk_connections};
use ferry6_tun_router::device::Device;
use ferry6_tun_router::size::SizePolicy;
use ferry6_tun_router::status::ChildSa;
use ferry6_tun_router::testing::{icmpv6, tcp, udp};
use ferry6_tun_router::virtio::{HEADER_LEN, Header};
use ferry6_tun_router::{DeviceKind, Router, RouterConfig, RouterEvent};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket};
use std::ops::Range;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x101);
const HOST: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 2);
const PATIENCE: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(1);

struct End {
    router: Router,
    /// The other end of the first queue.
    tun: UnixDatagram,
    /// Of all queues.
    queues: Vec<UnixDatagram>,
    events: mpsc::Receiver<RouterEvent>,
}

fn start(listen: Ipv4Addr, ports: (u16, u16), connection: Connection, broker: bool, workers: usize) -> End {
    // Without several SAs all comes to one queue.
    let queues = if connection.per_resource.wanted > 1 { workers } else { 1 };
    let name = if broker { "broker" } else { "client" };
    let (device, queues) = Device::in_memory_with_queues(name, queues).unwrap();
    for queue in &queues {
        queue.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let tun = queues[0].try_clone().unwrap();
    let router_config = RouterConfig {
        tun_name: String::new(),
        device: DeviceKind::Auto,
        offload: true,
        mtu: 1400,
        sizes: SizePolicy { mtu: Some(1400), ..SizePolicy::default() },
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
    End { router, tun, queues, events }
}

/// Each test has loopback addresses of its own, so all can use the same ports.
const BROKER_PORTS: (u16, u16) = (20_500, 24_500);

fn pair(net: u8, workers: usize, ipcomp: IpcompPolicy) -> (End, End) {
    pair_with(net, workers, |connection| connection.ipcomp = ipcomp)
}

fn pair_with(net: u8, workers: usize, change: impl Fn(&mut Connection)) -> (End, End) {
    let (mut client, mut broker) = psk_connections();
    change(&mut client);
    change(&mut broker);
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

    let carried = ike.traffic;
    assert_eq!(client.router.handle().traffic().await.unwrap(), [(IkeSaId(ike.id), carried)]);

    // DELETE reaches the broker, whose selectors go with it.
    let End { router, events: mut client_events, .. } = client;
    router.stop(Duration::from_secs(3));
    let reason = event(&mut broker, |event| match event {
        RouterEvent::Closed(closed) => Some(closed.reason),
        _ => None,
    })
    .await;
    assert!(matches!(reason, CloseReason::PeerDeleted), "{reason}");
    // Both ends tell what it carried, once it carries no more.
    let told = |event| match event {
        RouterEvent::Carried { traffic, .. } => Some(traffic),
        _ => None,
    };
    assert_eq!(event(&mut broker, told).await, carried);
    let last = std::iter::from_fn(|| client_events.try_recv().ok()).find_map(told);
    assert_eq!(last, Some(carried));
    assert!(broker.router.handle().traffic().await.unwrap().is_empty());
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

async fn children(end: &End) -> Vec<ChildSa> {
    end.router.handle().status().await.unwrap().ike_sas.remove(0).children
}

/// As the kernel gives packets to the queues of a TUN device: a flow goes where its last packet from there was written, and
/// one that is not known where its hash says.
#[derive(Default)]
struct Steering(Mutex<HashMap<u16, usize>>);

impl Steering {
    fn of(&self, flow: u16, queues: usize) -> usize {
        *self.0.lock().unwrap().get(&flow).unwrap_or(&(usize::from(flow) % queues))
    }
    fn written(&self, flow: u16, queue: usize) {
        self.0.lock().unwrap().insert(flow, queue);
    }
}

/// One end's device, what comes out of it, flow by flow, and how many numbers that are in all.
struct Tun {
    queues: Vec<UnixDatagram>,
    steering: Steering,
    arrived: Mutex<HashMap<u16, Vec<(usize, u32)>>>,
    count: AtomicUsize,
}

impl Tun {
    fn of(end: &End) -> Arc<Self> {
        let queues = end.queues.iter().map(|queue| queue.try_clone().unwrap()).collect();
        let tun = Arc::new(Self {
            queues,
            steering: Steering::default(),
            arrived: Mutex::default(),
            count: AtomicUsize::new(0),
        });
        for index in 0..tun.queues.len() {
            let tun = Arc::clone(&tun);
            std::thread::spawn(move || tun.read(index));
        }
        tun
    }

    fn read(&self, index: usize) {
        let mut buffer = vec![0; 70_000];
        while let Ok(len) = self.queues[index].recv(&mut buffer) {
            let packet = &buffer[HEADER_LEN..len];
            let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            // The client's port is the lower one, and names the flow.
            let flow = port(40).min(port(42));
            self.steering.written(flow, index);
            let numbers = packet[72..].chunks_exact(4).map(|n| u32::from_be_bytes(n.try_into().unwrap()));
            let mut arrived = self.arrived.lock().unwrap();
            let of_flow = arrived.entry(flow).or_default();
            let before = of_flow.len();
            of_flow.extend(numbers.map(|number| (index, number)));
            let more = of_flow.len() - before;
            self.count.fetch_add(more, Ordering::Release);
        }
    }

    fn send(&self, flow: u16, packet: &[u8]) {
        let queue = self.steering.of(flow, self.queues.len());
        self.queues[queue].send(&[&Header::default().encode(), packet].concat()).unwrap();
    }
}

/// RFC 9611 with four workers: each has an SA of its own, many flows use them all, each flow stays on one and in order, and
/// rekeys of all of them from both sides lose nothing.
#[tokio::test]
async fn each_worker_has_an_sa_of_its_own() {
    const WORKERS: usize = 4;
    const FLOWS: u16 = 24;
    const EACH: u32 = 400;
    // Less than what a socket of the device in memory holds.
    const WINDOW: usize = 8;
    let several = PerResource { wanted: WORKERS, limit: 2 * WORKERS };
    let (mut client, mut broker) = pair_with(6, WORKERS, |connection| connection.per_resource = several);
    bring_up(6, &mut client, &mut broker).await;
    let deadline = Instant::now() + PATIENCE;
    for end in [&client, &broker] {
        while children(end).await.len() < WORKERS {
            assert!(Instant::now() < deadline, "{:?}", children(end).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let children = children(end).await;
        let workers: HashSet<usize> = children.iter().map(|child| child.worker).collect();
        assert_eq!(workers.len(), WORKERS, "{children:?}");
        let inbound =
            |child: &ChildSa| u32::from_str_radix(&child.spi_in[2..], 16).unwrap() as usize % WORKERS;
        assert_eq!(children.iter().map(inbound).collect::<HashSet<_>>().len(), WORKERS, "{children:?}");
        let numbers: Vec<Option<u32>> = children.iter().map(|child| child.resource).collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(2), Some(3)]);
        assert!(children.iter().all(|child| child.reqid == children[0].reqid));
    }

    let (up, down) = (Tun::of(&client), Tun::of(&broker));
    let direction = |from: &Arc<Tun>,
                     to: &Arc<Tun>,
                     source: Ipv6Addr,
                     destination: Ipv6Addr,
                     numbers: Range<u32>| {
        let (from, to) = (Arc::clone(from), Arc::clone(to));
        std::thread::spawn(move || {
            let (before, mut sent) = (to.count.load(Ordering::Acquire), 0);
            let deadline = Instant::now() + 3 * PATIENCE;
            for number in numbers {
                for flow in 1..=FLOWS {
                    while sent - (to.count.load(Ordering::Acquire) - before) >= WINDOW {
                        assert!(Instant::now() < deadline, "something was lost");
                        std::thread::yield_now();
                    }
                    let (a, b) = if source == CLIENT { (flow, 1000 + flow) } else { (1000 + flow, flow) };
                    from.send(flow, &tcp(source, destination, a, b, number * 4, 0x18, &number.to_be_bytes()));
                    sent += 1;
                }
            }
            while to.count.load(Ordering::Acquire) - before < sent {
                assert!(Instant::now() < deadline, "something was lost");
                std::thread::yield_now();
            }
        })
    };
    // As TCP begins: one packet of each flow, and then its answer.
    direction(&up, &down, CLIENT, HOST, 0..1).join().unwrap();
    direction(&down, &up, HOST, CLIENT, 0..1).join().unwrap();
    let threads =
        [direction(&up, &down, CLIENT, HOST, 1..EACH), direction(&down, &up, HOST, CLIENT, 1..EACH)];
    let (client_reqid, broker_reqid) = (child(&client).await.reqid, child(&broker).await.reqid);
    let first: HashSet<String> = children(&client).await.into_iter().map(|child| child.spi_in).collect();
    let mut rekeys = 0;
    while !threads.iter().all(std::thread::JoinHandle::is_finished) {
        let (end, reqid) = if rekeys % 2 == 0 { (&client, client_reqid) } else { (&broker, broker_reqid) };
        end.router.handle().rekey_child(Reqid(reqid)).await.unwrap();
        rekeys += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(rekeys > 1, "{rekeys} rekeys");
    assert!(children(&client).await.iter().all(|child| !first.contains(&child.spi_in)), "all were rekeyed");
    for (end, tun) in [(&client, &up), (&broker, &down)] {
        {
            let arrived = tun.arrived.lock().unwrap();
            assert_eq!(arrived.len(), usize::from(FLOWS));
            let mut used = HashSet::new();
            for (flow, got) in arrived.iter() {
                assert!(got.iter().map(|(_, number)| *number).eq(0..EACH), "flow {flow}: {got:?}");
                let queue = got[1].0;
                assert!(
                    got[1..].iter().all(|(at, _)| *at == queue),
                    "flow {flow} did not stay on one worker"
                );
                used.insert(queue);
            }
            assert_eq!(used.len(), WORKERS, "flows on all workers");
        }
        let status = end.router.handle().status().await.unwrap();
        assert_eq!(status.drops, BTreeMap::new());
    }
    // The SAs that the rekeys made count from zero; the flows go on on all of them.
    direction(&up, &down, CLIENT, HOST, EACH..EACH + 5).join().unwrap();
    direction(&down, &up, HOST, CLIENT, EACH..EACH + 5).join().unwrap();
    for end in [&client, &broker] {
        for child in children(end).await {
            assert!(child.packets_in > 0 && child.packets_out > 0, "{child:?}");
        }
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
