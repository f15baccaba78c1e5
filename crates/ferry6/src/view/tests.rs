//! A broker and a client to look at, and what is made of them.

use super::*;
use crate::control::{BrokerStatus, ClientStatus};
use crate::leases::LeaseStatus;
use crate::sandbox::SecurityStatus;
use ferry6_tun_router::status::{ChildSa, RouterStatus};

/// An IKE SA with one Child SA, that has carried this much.
pub(crate) fn tunnel(id: u64, remote_id: &str, megabytes: u64) -> IkeSa {
    let traffic = Traffic {
        packets_in: megabytes * 700,
        bytes_in: megabytes * 1_000_000,
        packets_out: megabytes * 300,
        bytes_out: megabytes * 90_000,
    };
    let child = ChildSa {
        reqid: u32::try_from(id).unwrap(),
        spi_in: format!("0xc5a3b7{id:02x}"),
        spi_out: format!("0x0190d1{id:02x}"),
        algorithms: "AES_GCM_16_256".into(),
        esn: true,
        local_ts: vec!["::/0".into()],
        remote_ts: vec![format!("2a00::1{id:02x}/128")],
        mtu: 1432,
        packets_in: traffic.packets_in,
        bytes_in: traffic.bytes_in,
        packets_out: traffic.packets_out,
        bytes_out: traffic.bytes_out,
        drops: BTreeMap::from([("in_replay_duplicate".into(), id)]),
        age: 600 * id % 3600,
        next_rekey: Some(3600 - 600 * id % 3600),
        ..ChildSa::default()
    };
    IkeSa {
        id,
        connection: Some("clients".into()),
        role: "responder".into(),
        state: "established".into(),
        local: "192.168.100.2:4500".into(),
        remote: format!("1.2.3.{id}:4500"),
        local_id: Some("tunnel.my.domain".into()),
        remote_id: Some(remote_id.into()),
        algorithms: "AES_GCM_16_256/PRF_HMAC_SHA2_256/CURVE25519".into(),
        age: Some(7261 * id),
        next_rekey: Some(9000),
        path_mtu: Some(1492),
        traffic,
        rtt_us: Some(11_000 + 1700 * id),
        srtt_us: Some(12_000 + 1700 * id),
        rtt_age: Some(3),
        children: vec![child],
        ..IkeSa::default()
    }
}

fn status(role: &str, pid: u32, ike_sas: Vec<IkeSa>) -> Status {
    let mut traffic = Traffic::default();
    for sa in &ike_sas {
        traffic.packets_in += sa.traffic.packets_in;
        traffic.bytes_in += sa.traffic.bytes_in;
        traffic.packets_out += sa.traffic.packets_out;
        traffic.bytes_out += sa.traffic.bytes_out;
    }
    Status {
        role: role.into(),
        version: "0.1.0".into(),
        pid,
        uptime: 90_061,
        keylog: None,
        security: SecurityStatus::default(),
        client: None,
        broker: None,
        router: RouterStatus {
            tun: "ferry0".into(),
            device: "virtio-net header, TSO, USO, 2 queues".into(),
            udp: "GSO, GRO".into(),
            crypto: "aws-lc".into(),
            mtu: 1432,
            workers: 2,
            ike_sas,
            drops: BTreeMap::from([("in_unknown_spi".into(), 41), ("out_no_policy".into(), 1204)]),
            ike: BTreeMap::from([("auth_failed".into(), 3), ("cookie_sent".into(), 12)]),
            half_open: 2,
            traffic,
        },
    }
}

/// A broker whose tunnels have carried this much more than at first.
pub(crate) fn broker(more: u64, names: &[&str]) -> Status {
    let tunnels =
        names.iter().zip(1..).map(|(name, id)| tunnel(id, name, 200 / id + more * 4 / id)).collect();
    let mut status = status("broker", 4242, tunnels);
    let leases = names.iter().zip(1_u64..).map(|(name, id)| LeaseStatus {
        address: format!("2a00::1{id:02x}").parse().unwrap(),
        prefix: (id == 2).then(|| "2a00:0:0:1000::/64".to_owned()),
        identity: (*name).to_owned(),
        fixed: false,
        ike: vec![id],
        last_used: Some(1),
    });
    status.broker = Some(BrokerStatus {
        listen: "0.0.0.0 UDP 500, 4500".into(),
        forwarding: true,
        routes: vec!["2a00::100/120".into()],
        leases: leases.collect(),
    });
    status
}

/// A client that is up.
pub(crate) fn client(more: u64) -> Status {
    let mut status = status("client", 77, vec![tunnel(1, "tunnel.my.domain", 40 + more)]);
    status.client = Some(ClientStatus {
        broker: "tunnel.my.domain".into(),
        broker_address: Some("5.6.7.8".parse().unwrap()),
        state: "up".into(),
        address: Some("2a00::101".parse().unwrap()),
        routes: vec!["::/0".into()],
        prefix: Some("2a00:0:0:1f00::/56".into()),
        leak_guard: Some(vec!["::/0".into()]),
        ..ClientStatus::default()
    });
    status
}

/// Lines of a log.
pub(crate) fn log(texts: &[(&str, &str)]) -> LogTail {
    let lines = texts.iter().zip(0..).map(|((level, text), number)| LogLine {
        number,
        time: 45_296_000 + number * 7000,
        level: (*level).to_owned(),
        text: (*text).to_owned(),
    });
    LogTail { next: texts.len() as u64, lines: lines.collect() }
}

pub(crate) fn news(socket: &str, at: Instant, status: Status) -> News {
    News { socket: socket.into(), at, status: Ok(Box::new(status)), log: None }
}

#[test]
fn rates_come_from_counts_and_begin_anew_with_the_process() {
    let mut view = View::new("/run/ferry6/broker.sock".into());
    let start = Instant::now();
    let at = |n| start + Duration::from_secs(n);
    view.take(news("", at(0), broker(0, &["a@x", "b@x"])));
    assert_eq!(view.total.rates.len(), 0);
    view.take(news("", at(2), broker(1, &["a@x", "b@x"])));
    // 4 MB and 2 MB more in two seconds.
    assert_eq!(view.total.now(), Rate { to_us: 3_000_000, from_us: 270_000 });
    assert_eq!(view.tunnels[&1].series.now().to_us, 2_000_000);
    assert_eq!(view.tunnels[&2].rtt, [14_400, 14_400]);
    // A tunnel that has gone takes its past along.
    view.take(news("", at(3), broker(1, &["a@x"])));
    assert_eq!(view.tunnels.keys().collect::<Vec<_>>(), [&1]);
    // It is gone, then another process answers.
    let fault = |n| News { socket: "".into(), at: at(n), status: Err("gone".into()), log: None };
    view.take(fault(4));
    view.take(fault(9));
    assert_eq!((view.is_there(), view.gone_for(at(10))), (false, Some(Duration::from_secs(6))));
    assert!(view.status.is_some());
    let mut other = broker(0, &["a@x"]);
    other.pid += 1;
    let rates = view.total.rates.len();
    view.take(news("", at(11), other));
    assert!(view.is_there());
    assert_eq!(view.total.rates.len(), rates, "no rate from the counters of two processes");
}

#[test]
fn drops_of_all_kinds_those_that_grow_first() {
    let mut view = View::new("x".into());
    let start = Instant::now();
    view.take(news("", start, broker(0, &["a@x", "b@x"])));
    let names = |view: &View| view.drops.iter().map(|d| (d.reason.clone(), d.count)).collect::<Vec<_>>();
    let wanted = |a: &str, n| (a.to_owned(), n);
    assert_eq!(
        names(&view),
        [wanted("out_no_policy", 1204), wanted("in_unknown_spi", 41), wanted("in_replay_duplicate", 3)]
    );
    let mut more = broker(0, &["a@x", "b@x"]);
    more.router.ike_sas[1].children[0].drops.insert("in_replay_duplicate".into(), 22);
    view.take(news("", start + Duration::from_secs(2), more));
    assert_eq!(view.drops[0], Drop { reason: "in_replay_duplicate".into(), count: 23, per_second: 10 });
}

#[test]
fn names_of_daemons() {
    let mut view = View::new("/run/ferry6/broker.sock".into());
    assert_eq!(view.name(), "broker");
    view.take(news("", Instant::now(), broker(0, &[])));
    assert_eq!(view.name(), "broker");
    view.socket = "/run/ferry6/alice.sock".into();
    assert_eq!(view.name(), "broker alice");
    view.socket = "/tmp/one/control".into();
    assert_eq!(view.name(), "broker one");
    view.socket = "/tmp/broker/control".into();
    assert_eq!(view.name(), "broker");
}
