//! What a broker or a client insists on before it believes a peer: cookies, and no NAT where none may be.

use super::roaming::{move_route, public_broker, public_line};
use super::tunnel::{FERRY6, Program, Spec, eventually};
use super::{Case, Env, Peer, Role};
use anyhow::{Context, Result, ensure};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, peer, role, client) in [
        ("cookie-both-ferry6", Peer::Ferry6, Role::Both, FERRY6),
        ("cookie-broker-strongswan", Peer::StrongSwan, Role::Broker, Program::StrongSwan),
    ] {
        cases.push(Case::new(
            name,
            peer,
            role,
            "COOKIE is asked of everybody (`listen.cookie_from = 0`): the initiator repeats it and gets in",
            move |env| cookie(env, client),
        ));
    }
    for (name, what) in [
        (
            "nat-forbid-refused",
            "`ike.nat = \"forbid\"` (NO_NATS_ALLOWED) behind a NAT: refused with its cause, nothing is installed",
        ),
        ("nat-forbid-without-nat", "the same without a NAT between the ends: the tunnel comes up"),
    ] {
        let public = name == "nat-forbid-without-nat";
        cases.push(Case::new(name, Peer::Ferry6, Role::Both, what, move |env| forbid(env, public)));
    }
    cases
}

fn cookie(env: &mut Env, client: Program) -> Result<()> {
    let mut spec = Spec::certified(env, client, FERRY6)?;
    spec.ferry_broker.listen = "cookie_from = 0\n".into();
    let tunnel = spec.up(env)?;
    let status = tunnel.broker.ferry()?.status()?;
    let counted = &status[0]["router"]["ike"];
    let of = |name: &str| counted[name].as_u64().unwrap_or(0);
    ensure!(of("cookie_sent") >= 1, "no cookie was asked for: {counted}");
    ensure!(
        of("cookie_right") >= 1 && of("cookie_wrong") == 0,
        "the cookie did not come back right: {counted}"
    );
    tunnel.carries_traffic(env)
}

fn forbid(env: &mut Env, public: bool) -> Result<()> {
    let mut spec = Spec::certified(env, FERRY6, FERRY6)?;
    spec.ferry_client.ike = "nat = \"forbid\"\n".into();
    if public {
        public_line(env)?;
        public_broker(env)?;
        move_route(&env.net.home, "192.168.0.1", "1.2.9.1")?;
        let tunnel = spec.up(env)?;
        return tunnel.carries_traffic(env);
    }
    let broker = spec.start_broker(env)?;
    let client = spec.start_client(env)?;
    let tunnel = super::tunnel::Tunnel { client, broker };
    eventually(&tunnel, "the client says that a NAT is in the way", || {
        Ok(tunnel.client.log().contains("NAT"))
    })?;
    std::thread::sleep(Duration::from_secs(1));
    let status = tunnel.client.ferry()?.status()?;
    ensure!(status[0]["client"]["state"] != "up", "the tunnel is up\n{}", tunnel.logs());
    ensure!(status[0]["client"]["address"].is_null(), "an address is set\n{}", tunnel.logs());
    let reason = status[0]["client"]["reason"].as_str().context("no reason in status")?;
    ensure!(reason.contains("NAT"), "status does not say why: {reason}");
    let broker = tunnel.broker.ferry()?.status()?;
    let up = super::life::ike_sas(&broker).iter().filter(|sa| sa["state"] == "established").count();
    ensure!(up == 0, "the broker has a tunnel\n{}", tunnel.logs());
    Ok(())
}
