//! Revocation as it is asked for: OpenSSL's OCSP responder and CRLs over HTTP, on a host of the internet; good, revoked, unknown,
//! and slow answers.

use super::tunnel::{
    BROKER_ID, CLIENT_ADDRESS, CLIENT_ID, Credentials, FERRY6, Program, Side, Spec, Tunnel, broker6,
};
use super::{Case, Env, Peer, Role};
use crate::ferry::{Ferry, Mode};
use crate::pki::{Ca, Entity, KeyType};
use crate::traffic::{self, Pinger};
use crate::wait_until;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The internet's own address, which both sides reach.
const SERVER: &str = "5.6.7.1";
pub(super) const OCSP: &str = "http://5.6.7.1:8080/";
const CRL: &str = "http://5.6.7.1:8081/ca.crl";
pub(super) const KEY: KeyType = KeyType::Ecdsa256;

/// What the responder knows of the peer's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Good,
    Revoked,
    Unknown,
}

pub(super) fn cases() -> Vec<Case> {
    let swan = Program::StrongSwan;
    let mut cases = Vec::new();
    for (name, client, broker, role) in
        [("client", FERRY6, swan, Role::Client), ("broker", swan, FERRY6, Role::Broker)]
    {
        cases.push(Case::new(
            format!("ocsp-good-{name}"),
            Peer::StrongSwan,
            role,
            "OCSP, strict on both sides: good certificates, asked for by ferry6 and by strongSwan",
            move |env| ocsp_good(env, client, broker),
        ));
        for (answer, word, words) in [
            (Answer::Revoked, "revoked", "is revoked"),
            (Answer::Unknown, "unknown", "does not know the certificate"),
        ] {
            // One role is enough for what does not depend on it.
            if role == Role::Broker || answer == Answer::Revoked {
                cases.push(Case::new(
                    format!("ocsp-{word}-{name}"),
                    Peer::StrongSwan,
                    role,
                    format!("ferry6 refuses strongSwan by OCSP: {word}"),
                    move |env| ocsp_refused(env, client, broker, answer, words),
                ));
            }
        }
    }
    cases.push(Case::new(
        "crl-fetched",
        Peer::Ferry6,
        Role::Both,
        "CRL from its distribution point: good, and kept in a file; then revoked, after that expired copy is fetched anew",
        crl_fetched,
    ));
    cases.push(Case::new(
        "crl-slow-server",
        Peer::Ferry6,
        Role::Both,
        "a CRL server that never answers: that peer is refused in time, another tunnel and the control socket go on",
        slow_server,
    ));
    cases
}

pub(super) fn credentials(ca: &Ca, entity: Entity) -> Credentials {
    Credentials {
        entity: Some(entity),
        intermediates: Vec::new(),
        trust: vec![ca.cert.clone()],
        crls: Vec::new(),
        psk: String::new(),
    }
}

/// OpenSSL's responder, which ends with this.
struct Responder(Child);

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it with these certificates in its index.
fn responder(env: &Env, ca: &Ca, signer: &Ca, known: &[(&Entity, Answer)]) -> Result<Responder> {
    let dir = env.subdir("ocsp")?;
    let mut index = String::new();
    for (entity, answer) in known {
        let serial: String = ca.serial_of(entity)?.iter().map(|octet| format!("{octet:02X}")).collect();
        index += &match answer {
            Answer::Unknown => continue,
            Answer::Revoked => {
                format!("R\t400101000000Z\t250101000000Z,keyCompromise\t{serial}\tunknown\t/CN={serial}\n")
            }
            Answer::Good => format!("V\t400101000000Z\t\t{serial}\tunknown\t/CN={serial}\n"),
        };
    }
    let file = dir.join("index.txt");
    fs::write(&file, index)?;
    let log = fs::File::create(dir.join("openssl.log"))?;
    let mut command: Command = env.net.internet.command("openssl");
    command.args(["ocsp", "-port", "8080", "-nmin", "5", "-index"]).arg(&file);
    command.arg("-CA").arg(&ca.cert).arg("-rsigner").arg(&signer.cert).arg("-rkey").arg(signer.key());
    let child =
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("openssl")?;
    let responder = Responder(child);
    wait_until("the OCSP responder listens", Duration::from_secs(5), || {
        let text = env.net.internet.run(|| fs::read_to_string("/proc/thread-self/net/tcp"))?;
        let text = text + &env.net.internet.run(|| fs::read_to_string("/proc/thread-self/net/tcp6"))?;
        Ok(text.contains(":1F90 "))
    })?;
    Ok(responder)
}

fn ocsp(env: &Env, client: Program, broker: Program, answer: Answer) -> Result<(Spec, Responder)> {
    let dir = env.subdir("pki")?;
    let ca = Ca::new(&dir, "ca", KEY)?;
    let client_entity = ca.issue_with("client", CLIENT_ID, &[], &[OCSP])?;
    let broker_entity = ca.issue_with("broker", BROKER_ID, &[], &[OCSP])?;
    // It is strongSwan whose certificate is at fault.
    let (of_client, of_broker) =
        if client == Program::StrongSwan { (answer, Answer::Good) } else { (Answer::Good, answer) };
    let responder = responder(env, &ca, &ca, &[(&client_entity, of_client), (&broker_entity, of_broker)])?;
    let mut spec =
        Spec::new(client, broker, (credentials(&ca, client_entity), credentials(&ca, broker_entity)));
    spec.ferry_client.remote = "revocation = \"strict\"\n".into();
    spec.ferry_broker.remote = "revocation = \"strict\"\n".into();
    Ok((spec, responder))
}

fn ocsp_good(env: &mut Env, client: Program, broker: Program) -> Result<()> {
    let (mut spec, _responder) = ocsp(env, client, broker, Answer::Good)?;
    spec.swan_remote = "   revocation = strict\n".into();
    let tunnel = spec.up(env)?;
    let (_, swan) = tunnel.ferry_and_other();
    swan.wait_for_log("certificate status is good").with_context(|| tunnel.logs())?;
    tunnel.carries_traffic(env)?;
    // Kept: the next tunnel asks nobody, so that it comes up without a responder, too.
    let asked = fs::read_to_string(env.subdir("ocsp")?.join("openssl.log"))?;
    ensure!(!asked.to_lowercase().contains("error"), "the responder was not content:\n{asked}");
    Ok(())
}

fn ocsp_refused(env: &mut Env, client: Program, broker: Program, answer: Answer, words: &str) -> Result<()> {
    let (mut spec, _responder) = ocsp(env, client, broker, answer)?;
    spec.swan_remote = "   revocation = relaxed\n".into();
    let broker = spec.start_broker(env)?;
    let client = spec.start_client(env)?;
    if let Side::Swan(swan) = &client {
        let _ = swan.initiate();
    }
    let tunnel = Tunnel { client, broker };
    let (ferry, _) = tunnel.ferry_and_other();
    ferry.wait_for_log(words).with_context(|| tunnel.logs())?;
    let counted = traffic::ping_count(&env.net.home, broker6()?, 2, Duration::from_millis(100))?;
    ensure!(counted.received == 0, "traffic passes\n{}", tunnel.logs());
    Ok(())
}

/// An HTTP server that answers every request with the octets of a file; one that does not answer, without a file.
pub(super) fn serve(env: &Env, port: u16, file: Option<&Path>) -> Result<()> {
    let listener = env.net.internet.run(|| TcpListener::bind((SERVER, port)))?;
    let file = file.map(Path::to_owned);
    // It ends with the case's process.
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let Some(file) = &file else {
                silent.push(stream);
                continue;
            };
            let _ = stream.read(&mut [0; 4096]);
            let content = fs::read(file).unwrap_or_default();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
            let _ = stream.write_all(&[head.as_bytes(), &content].concat());
        }
    });
    Ok(())
}

fn crl_fetched(env: &mut Env) -> Result<()> {
    let ca = Ca::new(&env.subdir("pki")?, "ca", KEY)?;
    let client = ca.issue_with("client", CLIENT_ID, &[CRL], &[])?;
    let broker = ca.issue_with("broker", BROKER_ID, &[CRL], &[])?;
    serve(env, 8081, Some(&ca.crl()))?;
    let mut spec = Spec::new(FERRY6, FERRY6, (credentials(&ca, client.clone()), credentials(&ca, broker)));
    spec.ferry_broker.remote = "revocation = \"strict\"\n".into();
    let mut tunnel = spec.up(env)?;
    tunnel.carries_traffic(env)?;
    let kept = env.dir.join("broker/state/crls");
    ensure!(fs::read_dir(&kept)?.count() == 1, "no CRL is kept in {}", kept.display());

    // Revoked, and the broker anew, without the copy that still holds.
    ca.revoke(&client)?;
    tunnel.broker.ferry_mut()?.stop()?;
    fs::remove_dir_all(&kept)?;
    tunnel.broker.ferry_mut()?.restart()?;
    tunnel.broker.wait_for_log("is revoked").with_context(|| tunnel.logs())?;
    ensure!(
        traffic::ping_count(&env.net.home, broker6()?, 2, Duration::from_millis(100))?.received == 0,
        "traffic passes\n{}",
        tunnel.logs()
    );
    Ok(())
}

fn slow_server(env: &mut Env) -> Result<()> {
    let ca = Ca::new(&env.subdir("pki")?, "ca", KEY)?;
    let first = ca.issue_with("client", CLIENT_ID, &[], &[])?;
    let second = ca.issue_with("second", "second@my.domain", &[CRL], &[])?;
    let broker = ca.issue_with("broker", BROKER_ID, &[], &[])?;
    serve(env, 8081, None)?;
    let mut spec = Spec::new(FERRY6, FERRY6, (credentials(&ca, first), credentials(&ca, broker)));
    spec.ferry_pool = format!("range = \"{CLIENT_ADDRESS}-2a00::1ff\"\n");
    let tunnel = spec.up(env)?;
    let pinger = Pinger::start(&env.net.home, broker6()?, Duration::from_millis(10))?;

    let site = env.net.site(2)?;
    let host = env.net.lab.host("second")?;
    env.net.attach(&site, &host, "eth0")?;
    env.net.default_route(&site, &host)?;
    let mut other = spec.clone();
    other.client_credentials = credentials(&ca, second);
    other.client_id = "second@my.domain".into();
    let dir = env.subdir("second")?;
    let toml = other.toml(Mode::Client, &dir, "aws-lc")?;
    let begin = Instant::now();
    let _second = Ferry::start(&env.ferry6, &host, Mode::Client, &dir, &toml, &[])?;
    let ferry = tunnel.broker.ferry()?;
    wait_until("the second client is refused", Duration::from_secs(25), || {
        let asked = Instant::now();
        ferry.status()?;
        ensure!(asked.elapsed() < Duration::from_secs(2), "the control socket waits with the slow server");
        Ok(ferry.log().contains("is revoked is not known"))
    })
    .with_context(|| tunnel.logs())?;
    let took = begin.elapsed();
    ensure!((3..20).contains(&took.as_secs()), "it took {took:?}\n{}", tunnel.logs());
    pinger.stop()?.no_loss().context("the other tunnel").with_context(|| tunnel.logs())
}
