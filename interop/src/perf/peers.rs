//! The peers that are no IPsec: WireGuard's userspace implementations, and OpenVPN.

use super::net::{self, Net};
use super::subject::{Ends, Kind, Programs, log_of};
use crate::pki::{Ca, Flaw, KeyType};
use crate::{run, wait_until, write_private};
use anyhow::{Context, Result, bail};
use ferry6::lab::Host;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// MTU inside all tunnels, in octets: ferry6's default, and strongSwan's.
const MTU: u32 = 1400;
const PORT: u16 = 51820;
const DEVICE: &str = "tun0";
const LOG: &str = "peer.log";

/// Starts one process whose output goes to a log.
fn spawn(command: &mut Command, dir: &Path, what: &str) -> Result<Child> {
    let log = File::create(dir.join(LOG))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot start {what}"))
}

/// Waits until the process has made its device.
fn wait_for_device(host: &Host, process: &mut Child, dir: &Path, what: &str) -> Result<()> {
    wait_until(&format!("{what} has made {DEVICE}"), Duration::from_secs(10), || {
        if let Some(status) = process.try_wait()? {
            bail!("{what} ended at once ({status}):\n{}", log_of(dir, LOG)?);
        }
        Ok(host.index(DEVICE).is_ok())
    })
}

/// `wg genkey`, and its public key.
fn key_pair(wg: &Path, dir: &Path) -> Result<(String, String)> {
    let private = run(Command::new(wg).arg("genkey"), "wg genkey")?;
    let file = dir.join("key");
    write_private(&file, &private)?;
    let output = Command::new(wg).arg("pubkey").stdin(File::open(&file)?).output().context("wg pubkey")?;
    Ok((private.trim().to_owned(), String::from_utf8(output.stdout)?.trim().to_owned()))
}

/// A WireGuard tunnel.
pub fn wireguard(
    kind: Kind,
    programs: &Programs,
    net: &Net,
    client_dir: &Path,
    broker_dir: &Path,
) -> Result<Ends> {
    let program = match kind {
        Kind::WireGuardGo => "wireguard-go",
        Kind::BoringTun => "boringtun-cli",
        _ => "gotatun",
    };
    let file = programs.find(program).with_context(|| format!("no {program}"))?;
    let wg = programs.find("wg").context("no wg")?;
    let (client_key, client_public) = key_pair(&wg, client_dir)?;
    let (broker_key, broker_public) = key_pair(&wg, broker_dir)?;
    let start = |host: &Host, dir: &Path, address: &str, config: String| -> Result<Child> {
        // The socket by which `wg` reaches it: /run/wireguard/tun0.sock, and each end needs its own.
        host.tmpfs("/run")?;
        let mut command = host.command(&file);
        command.env("LOG_LEVEL", "error").env("WG_PROCESS_FOREGROUND", "1");
        command.args(match kind {
            Kind::BoringTun => {
                &["--foreground", "--disable-drop-privileges", "--verbosity", "error", DEVICE][..]
            }
            Kind::GotaTun => &["--foreground", "--disable-drop-privileges", DEVICE][..],
            _ => &["-f", DEVICE][..],
        });
        let mut process = spawn(&mut command, dir, program)?;
        wait_for_device(host, &mut process, dir, program)?;
        let conf = dir.join("wg.conf");
        write_private(&conf, &config)?;
        wait_until(&format!("{program} takes its configuration"), Duration::from_secs(10), || {
            let mut set = host.command(&wg);
            set.args(["setconf", DEVICE]).arg(&conf).stdin(Stdio::null());
            Ok(set.output()?.status.success())
        })
        .with_context(|| log_of(dir, LOG).unwrap_or_default())?;
        host.mtu(DEVICE, MTU)?;
        host.up(DEVICE)?;
        host.address(DEVICE, &format!("{address}/64"))?;
        Ok(process)
    };
    let broker = start(
        &net.broker,
        broker_dir,
        net::BROKER_INNER,
        format!(
            "[Interface]\nPrivateKey = {broker_key}\nListenPort = {PORT}\n\
             [Peer]\nPublicKey = {client_public}\nAllowedIPs = {}/128\n",
            net::CLIENT_INNER
        ),
    )?;
    let client = start(
        &net.client,
        client_dir,
        net::CLIENT_INNER,
        format!(
            "[Interface]\nPrivateKey = {client_key}\nListenPort = {PORT}\n\
             [Peer]\nPublicKey = {broker_public}\nAllowedIPs = ::/0\nEndpoint = {}:{PORT}\n",
            net::BROKER
        ),
    )?;
    net.client.route("::/0", net::BROKER_INNER)?;
    Ok(Ends::Plain { client, broker })
}

/// An OpenVPN tunnel from point to point: TLS, AES-128-GCM.
pub fn openvpn(programs: &Programs, net: &Net, client_dir: &Path, broker_dir: &Path) -> Result<Ends> {
    let file = programs.find("openvpn").context("no openvpn")?;
    let ca = Ca::new(&broker_dir.join("pki"), "ca", KeyType::Ecdsa256)?;
    let start = |host: &Host, dir: &Path, server: bool| -> Result<Child> {
        let (name, local, remote, remote4) = if server {
            ("broker", net::BROKER_INNER, net::CLIENT_INNER, net::CLIENT)
        } else {
            ("client", net::CLIENT_INNER, net::BROKER_INNER, net::BROKER)
        };
        let entity = ca.issue(name, &format!("{name}.my.domain"), KeyType::Ecdsa256, Flaw::default())?;
        let role = if server { "tls-server\ndh none" } else { "tls-client" };
        let config = dir.join("openvpn.conf");
        write_private(
            &config,
            &format!(
                "dev {DEVICE}\ndev-type tun\nproto udp4\nremote {remote4}\nport 1194\n{role}\n\
                 ca {}\ncert {}\nkey {}\ndata-ciphers AES-128-GCM\nifconfig-ipv6 {local}/64 {remote}\n\
                 tun-mtu {MTU}\nmssfix 0\ntxqueuelen 1000\nfast-io\ndisable-dco\nverb 3\nnobind-check\n",
                ca.cert.display(),
                entity.cert.display(),
                entity.key.display()
            )
            .replace("nobind-check\n", ""),
        )?;
        let mut command = host.command(&file);
        command.arg("--config").arg(&config);
        let mut process = spawn(&mut command, dir, "openvpn")?;
        wait_for_device(host, &mut process, dir, "openvpn")?;
        Ok(process)
    };
    let broker = start(&net.broker, broker_dir, true)?;
    let mut client = start(&net.client, client_dir, false)?;
    wait_until("openvpn is up", Duration::from_secs(20), || {
        if client.try_wait()?.is_some() {
            bail!("openvpn ended");
        }
        Ok(log_of(client_dir, LOG)?.contains("Initialization Sequence Completed"))
    })
    .with_context(|| log_of(client_dir, LOG).unwrap_or_default())?;
    net.client.route("::/0", net::BROKER_INNER)?;
    Ok(Ends::Plain { client, broker })
}
