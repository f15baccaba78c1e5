use super::server::{self, Call};
use super::*;
use crate::leases::LeaseStatus;
use crate::sandbox::{Process, SecurityStatus};
use ferry6_tun_router::status::{ChildSa, IkeSa};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// A daemon that answers every call with its own text.
fn daemon(socket: &Path) -> std::thread::JoinHandle<()> {
    let path = socket.to_owned();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (listener, _socket) = server::bind(&path, &Process::unchanged()).unwrap();
            let (sender, mut calls) = mpsc::channel::<Call>(1);
            tokio::spawn(server::serve(listener, sender, false));
            ready.send(()).unwrap();
            while let Some((request, reply)) = calls.recv().await {
                let last = request == Request::Down { which: None };
                let _ = reply.send(match request {
                    Request::Up => Response::Error("no".into()),
                    other => Response::Done(format!("{other:?}")),
                });
                if last {
                    // The response is still to be written.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    return;
                }
            }
        });
    });
    is_ready.recv().unwrap();
    thread
}

fn raw(socket: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    // The daemon may have hung up on nonsense already.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn questions_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("new").join("test.sock");
    let thread = daemon(&socket);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let request = Request::Rekey { what: Rekey::Ike, which: Some("a@x.y".into()) };
    match connect::ask(&socket, &request).unwrap() {
        Response::Done(text) => assert_eq!(text, format!("{request:?}")),
        other => panic!("{other:?}"),
    }
    assert_eq!(connect::ask(&socket, &Request::Up).unwrap_err().to_string(), "no");
    // Two on one connection.
    let both = raw(&socket, b"{\"command\":\"status\"}\n{\"command\":\"rekey\",\"what\":\"child\"}\n");
    assert_eq!(both, "{\"done\":\"Status\"}\n{\"done\":\"Rekey { what: Child, which: None }\"}\n");
    // Nonsense.
    for nonsense in [&b"\n"[..], b"{}\n", b"{\"command\":\"format\"}\n", b"\xff\xff\n"] {
        let answer = raw(&socket, nonsense);
        assert!(answer.starts_with("{\"error\":\"not a request: "), "{answer}");
    }
    assert_eq!(raw(&socket, b""), "");
    let long = raw(&socket, &vec![b'['; 1 << 20]);
    assert!(long.is_empty() || long.starts_with("{\"error\":\"request too long\"}"), "{long}");
    // It still answers, and takes its socket away at the end.
    connect::ask(&socket, &Request::Down { which: None }).unwrap();
    thread.join().unwrap();
    assert!(!socket.exists());
    let error = connect::ask(&socket, &Request::Status).unwrap_err().to_string();
    assert_eq!(error, format!("no ferry6 daemon is running: there is no {}", socket.display()));
}

#[test]
fn stale_and_living_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("test.sock");
    // A killed daemon leaves its socket behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let error = connect::ask(&socket, &Request::Status).unwrap_err().to_string();
    assert!(error.contains("nobody answers"), "{error}");
    let thread = daemon(&socket);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error =
        runtime.block_on(async { server::bind(&socket, &Process::unchanged()).unwrap_err().to_string() });
    assert!(error.contains("another ferry6 runs already"), "{error}");
    connect::ask(&socket, &Request::Down { which: None }).unwrap();
    thread.join().unwrap();
    std::fs::write(&socket, "a file").unwrap();
    let error =
        runtime.block_on(async { server::bind(&socket, &Process::unchanged()).unwrap_err().to_string() });
    assert!(error.contains("it is no socket"), "{error}");
    assert!(socket.exists(), "a file of somebody else is not removed");
}

#[test]
fn a_directory_where_anybody_may_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("test.sock");
    let mode = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bind = || runtime.block_on(async { server::bind(&socket, &Process::unchanged()).map(drop) });
    mode(0o777);
    let error = bind().unwrap_err().to_string();
    assert!(error.contains("do: chmod o-w") && error.contains("0777"), "{error}");
    for fine in [0o1777, 0o775, 0o700] {
        mode(fine);
        bind().unwrap();
    }
}

#[test]
fn a_group_may_ask() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("test.sock");
    // Any group that this process may give a file to.
    let group = nix::unistd::getegid().as_raw();
    let process = Process { control_group: Some(group), ..Process::unchanged() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _kept = runtime.block_on(async { server::bind(&socket, &process).unwrap() });
    let meta = std::fs::metadata(&socket).unwrap();
    assert_eq!((meta.permissions().mode() & 0o777, meta.gid()), (0o660, group));
}

#[test]
fn many_silent_callers_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let socket: PathBuf = dir.path().join("test.sock");
    let thread = daemon(&socket);
    let silent: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    drop(silent);
    std::thread::sleep(std::time::Duration::from_millis(50));
    connect::ask(&socket, &Request::Down { which: None }).unwrap();
    thread.join().unwrap();
}

fn example() -> Status {
    let child = ChildSa {
        reqid: 1,
        spi_in: "0xc5a3b7e1".into(),
        spi_out: "0x0190d112".into(),
        algorithms: "AES_GCM_16_256".into(),
        esn: true,
        ipcomp_in: Some(0x1a2b),
        ipcomp_out: None,
        compressed_in: 2,
        compressed_out: 0,
        local_ts: vec!["::/0".into()],
        remote_ts: vec!["2a00::101/128".into()],
        resource: None,
        mtu: 1432,
        worker: 0,
        packets_in: 3,
        bytes_in: 312,
        packets_out: 5,
        bytes_out: 1_500_000,
        drops: BTreeMap::from([("replay".into(), 2), ("selector".into(), 0)]),
        age: 61,
        next_rekey: Some(3540),
    };
    let ike = IkeSa {
        id: 7,
        connection: Some("clients".into()),
        role: "responder".into(),
        state: "established".into(),
        local: "192.168.100.2:4500".into(),
        remote: "1.2.3.4:61034".into(),
        local_id: Some("tunnel.my.domain".into()),
        remote_id: Some("client@my.domain".into()),
        initiator_spi: "5a85a7c585bea857".into(),
        responder_spi: "1d39d1a8f297358f".into(),
        algorithms: "AES_GCM_16_256/PRF_HMAC_SHA2_256/CURVE25519".into(),
        nat_local: true,
        nat_remote: true,
        age: Some(61),
        next_rekey: Some(13_000),
        vendor: vec!["strongSwan".into()],
        peer_addresses: Vec::new(),
        path_mtu: Some(1492),
        path_mtu_known: Some("proven".into()),
        rtt_us: Some(20_000),
        srtt_us: Some(12_345),
        rtt_age: Some(9),
        children: vec![child],
        ..IkeSa::default()
    };
    Status {
        role: "broker".into(),
        version: "0.1.0".into(),
        pid: 42,
        uptime: 90_061,
        keylog: None,
        security: SecurityStatus {
            user: "ferry6".into(),
            capabilities: vec!["CAP_NET_ADMIN".into()],
            no_new_privs: true,
            landlock: Some(7),
            seccomp: [("main".to_owned(), true), ("control".to_owned(), true)].into(),
            ..SecurityStatus::default()
        },
        client: None,
        broker: Some(BrokerStatus {
            listen: "0.0.0.0 UDP 500, 4500".into(),
            forwarding: false,
            routes: vec!["2a00::100/120".into()],
            leases: vec![LeaseStatus {
                address: "2a00::101".parse().unwrap(),
                prefix: None,
                identity: "client@my.domain".into(),
                fixed: true,
                ike: vec![7],
                last_used: Some(1),
            }],
        }),
        router: RouterStatus {
            tun: "ferry0".into(),
            device: "tun-tap".into(),
            udp: "GSO, GRO".into(),
            crypto: "aws-lc".into(),
            mtu: 1400,
            workers: 2,
            ike_sas: vec![ike],
            drops: BTreeMap::from([("in_unknown_spi".into(), 4)]),
            ike: BTreeMap::from([("auth_psk".into(), 3), ("cookie_sent".into(), 12)]),
            half_open: 2,
            ..RouterStatus::default()
        },
    }
}

#[test]
fn the_status_in_the_manner_of_ipsecctl() {
    let wanted = "\
ferry6 broker 0.1.0, pid 42, up 1d1h
  listen  0.0.0.0 UDP 500, 4500; tunnels up: 1
  routes  2a00::100/120 (IPv6 forwarding is off: clients reach this machine only)
  device  ferry0 mtu 1400, tun-tap; udp: GSO, GRO; crypto: aws-lc; workers: 2
  rights  user ferry6, CAP_NET_ADMIN, no_new_privs, landlock ABI 7, seccomp on all 2 threads, no core dumps
  drops   in_unknown_spi 4
  ike     half-open 2; auth_psk 3, cookie_sent 12

FLOWS:
flow esp in  from 2a00::101/128 to ::/0          peer 1.2.3.4:61034 srcid tunnel.my.domain dstid client@my.domain reqid 1
flow esp out from ::/0          to 2a00::101/128 peer 1.2.3.4:61034 srcid tunnel.my.domain dstid client@my.domain reqid 1

SAD:
ike 7 clients responder established from 192.168.100.2:4500 to 1.2.3.4:61034 spi 5a85a7c585bea857:1d39d1a8f297358f AES_GCM_16_256/PRF_HMAC_SHA2_256/CURVE25519 nat both path mtu 1492 (proven) rtt 12.3ms age 1m1s rekey 3h36m (strongSwan)
  esp tunnel from 1.2.3.4:61034 to 192.168.100.2:4500 spi 0xc5a3b7e1 AES_GCM_16_256 esn ipcomp 0x1a2b compressed 2 packets 3 bytes 312 age 1m1s rekey 59m
  esp tunnel from 192.168.100.2:4500 to 1.2.3.4:61034 spi 0x0190d112 AES_GCM_16_256 esn mtu 1432 packets 5 bytes 1500000 (1.5 MB) age 1m1s rekey 59m
  dropped replay 2

LEASES:
2a00::101  client@my.domain  in use by ike 7, fixed
";
    let status = example();
    assert_eq!(render::status(&status), wanted);
    // What `--json` prints is read again.
    let json = serde_json::to_string(&status).unwrap();
    let again: Status = serde_json::from_str(&json).unwrap();
    assert_eq!(render::status(&again), wanted);
}

#[test]
fn the_status_of_a_client_that_is_down() {
    let mut status = example();
    status.role = "client".into();
    status.broker = None;
    status.keylog = Some("/root/keys".into());
    status.router.ike_sas.clear();
    status.router.drops.clear();
    status.router.ike.clear();
    status.router.half_open = 0;
    status.client = Some(ClientStatus {
        broker: "tunnel.my.domain".into(),
        broker_address: Some("5.6.7.8".parse().unwrap()),
        state: "waiting".into(),
        reason: Some("no answer from the peer after 7 tries in 80 s".into()),
        retry_in: Some(12),
        ..ClientStatus::default()
    });
    assert_eq!(
        render::status(&status),
        "\
ferry6 client 0.1.0, pid 42, up 1d1h
  WARNING all keys are written to /root/keys: whoever reads them there can read all traffic
  broker  tunnel.my.domain (5.6.7.8), waiting: no answer from the peer after 7 tries in 80 s, next try in 12s
  guard   off: while the tunnel is down, IPv6 goes where it went without it
  device  ferry0 mtu 1400, tun-tap; udp: GSO, GRO; crypto: aws-lc; workers: 2
  rights  user ferry6, CAP_NET_ADMIN, no_new_privs, landlock ABI 7, seccomp on all 2 threads, no core dumps

FLOWS:
none

SAD:
none
"
    );
}
