//! What ferry6 does to the system it runs on: address, routes, device; and that all of it goes again.

use super::tunnel::{BROKER_ID, CLIENT_ADDRESS, CLIENT_ID, Credentials, FERRY6, Program, Spec, broker6, ip};
use super::{Case, Env, Peer, Role};
use crate::pki::Entity;
use crate::traffic;
use anyhow::{Context, Result, ensure};
use ferry6::lab::Host;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "system-client",
            Peer::StrongSwan,
            Role::Client,
            "address preferred for ever, default route in the tunnel, IPv4 as before; SIGTERM leaves nothing",
            client,
        ),
        Case::new(
            "system-broker",
            Peer::StrongSwan,
            Role::Broker,
            "routes and device of the broker; SIGTERM leaves nothing",
            broker,
        ),
        Case::new(
            "system-pki",
            Peer::StrongSwan,
            Role::Client,
            "certificates by `ferry6 pki`, read by strongSwan",
            pki,
        ),
    ]
}

/// All that the network configuration of a host is, without counters.
fn picture(host: &Host) -> Result<String> {
    let mut text = String::new();
    for words in [
        "-o link show",
        "-o -4 address show",
        "-o -6 address show",
        "-4 route show table all",
        "-6 route show table all",
        "-4 rule show",
        "-6 rule show",
    ] {
        // In the routing table of multicast, neighbours and the like a time may pass; lines are compared, not times.
        text += &format!("# ip {words}\n{}", ip(host, words)?);
    }
    Ok(text)
}

fn ipv4_works(env: &Env) -> Result<()> {
    // The internet's address on the home link: no part of any tunnel.
    let address = ("1.2.3.1", 5002);
    let listener = env.net.internet.run(|| TcpListener::bind(address)).context("listen on the internet")?;
    let mut stream = env
        .net
        .home
        .run(|| {
            TcpStream::connect_timeout(
                &"1.2.3.1:5002".parse().map_err(std::io::Error::other)?,
                Duration::from_secs(3),
            )
        })
        .context("IPv4 from home to the internet")?;
    let (mut other, peer) = listener.accept()?;
    ensure!(peer.ip().to_string() == "1.2.3.4", "IPv4 came from {peer}, not from the home router");
    stream.write_all(b"IPv4 goes on")?;
    let mut text = [0; 12];
    other.read_exact(&mut text)?;
    ensure!(&text == b"IPv4 goes on");
    Ok(())
}

fn client(env: &mut Env) -> Result<()> {
    let before = picture(&env.net.home)?;
    let mut tunnel = Spec::certified(env, FERRY6, Program::StrongSwan)?.up(env)?;
    tunnel.carries_traffic(env)?;

    let home = &env.net.home;
    let addresses = ip(home, "-6 address show")?;
    let mut lines = addresses.lines().skip_while(|l| !l.contains(&format!("inet6 {CLIENT_ADDRESS}/128")));
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    ensure!(
        second.contains("valid_lft forever preferred_lft forever") && !first.contains("deprecated"),
        "the address is not there, or not preferred for ever:\n{addresses}"
    );
    let device = ip(home, "-o -6 address show")?;
    let device = device
        .lines()
        .find(|l| l.contains(CLIENT_ADDRESS))
        .and_then(|l| l.split_whitespace().nth(1))
        .context("no device has the address")?
        .to_owned();
    let route = ip(home, "-6 route get 2001:db8::1")?;
    ensure!(
        route.contains(&format!("dev {device}")) && route.contains(&format!("src {CLIENT_ADDRESS}")),
        "the default IPv6 route does not go into the tunnel ({device}): {route}"
    );
    let route = ip(home, "-4 route get 5.6.7.8")?;
    ensure!(
        route.contains("via 192.168.0.1"),
        "the path to the broker is not outside of the tunnel: {route}"
    );
    ipv4_works(env)?;
    traffic::ping_count(home, broker6()?, 3, Duration::from_millis(10))?.no_loss()?;

    tunnel.client.ferry_mut()?.stop()?;
    let after = picture(home)?;
    ensure!(before == after, "SIGTERM left something:\n--- before\n{before}\n--- after\n{after}");
    ipv4_works(env)
}

fn broker(env: &mut Env) -> Result<()> {
    env.net.broker.forward()?;
    let before = picture(&env.net.broker)?;
    let mut tunnel = Spec::certified(env, Program::StrongSwan, FERRY6)?.up(env)?;
    tunnel.carries_traffic(env)?;
    let route = ip(&env.net.broker, &format!("-6 route get {CLIENT_ADDRESS}"))?;
    ensure!(!route.contains("dev eth0"), "the client's address does not go into the tunnel: {route}");
    tunnel.broker.ferry_mut()?.stop()?;
    let after = picture(&env.net.broker)?;
    ensure!(before == after, "SIGTERM left something:\n--- before\n{before}\n--- after\n{after}");
    Ok(())
}

fn pki(env: &mut Env) -> Result<()> {
    let dir = env.subdir("pki")?;
    let run = |arguments: &[&str]| -> Result<()> {
        let mut command = env.net.home.command(&env.ferry6);
        command.arg("pki").args(arguments).current_dir(&dir);
        crate::run(&mut command, &format!("ferry6 pki {}", arguments.join(" "))).map(drop)
    };
    run(&["ca", "--cn", "Interop CA", "--out", "ca"])?;
    run(&["issue", "--ca", "ca", "--san", &format!("email:{CLIENT_ID}"), "--out", "client"])?;
    run(&["issue", "--ca", "ca", "--san", &format!("dns:{BROKER_ID}"), "--out", "broker"])?;
    let side = |name: &str| Credentials {
        entity: Some(Entity::from_files(&dir, name)),
        intermediates: Vec::new(),
        trust: vec![dir.join("ca.crt")],
        crls: Vec::new(),
        psk: String::new(),
    };
    Spec::new(FERRY6, Program::StrongSwan, (side("client"), side("broker"))).exercise(env).map(drop)
}
