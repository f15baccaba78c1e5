//! Peers with the ESP and IPComp of a real kernel, in a guest: OpenIKED, and strongSwan.

use super::suites::child;
use super::tunnel::{
    BROKER_ID, CLIENT_ADDRESS, CLIENT_ID, Credentials, FERRY6, Program, Side, Spec, broker6, carry,
};
use super::{Case, Env, Peer, Role};
use crate::guest::{self, Guest, How};
use crate::iked::{Files, Iked};
use crate::traffic;
use anyhow::{Context, Result, ensure};
use ferry6::lab::{Capture, CaptureOptions, article};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new(
        "iked-broker",
        Peer::OpenIked,
        Role::Client,
        "certificates, ESP with iked's default proposals [SAs rewritten: flag af-unspec]",
        iked_broker,
    )];
    for case in &mut cases {
        // The boot alone is some seconds.
        case.timeout = Duration::from_secs(120);
    }
    cases
}

/// The article's iked.conf; `more` goes before it.
fn iked_conf(more: &str, options: &str) -> String {
    format!(
        "{more}\nikev2 \"ipv6\" passive {options} esp \\\n\tfrom ::/0 to 2a00::100/120 \\\n\tlocal {} peer any \\\n\
         \tsrcid {BROKER_ID} dstid {CLIENT_ID} \\\n\tconfig address {CLIENT_ADDRESS}/128\n",
        article::BROKER
    )
}

/// iked as the broker, in a guest, and ferry6 as its client.
struct IkedBroker {
    // The guest is the last to go.
    client: Side,
    iked: Iked,
    guest: Guest,
}

impl IkedBroker {
    fn up(env: &Env, conf: &str, how: How, spec: &Spec) -> Result<Self> {
        let dir = env.subdir("broker")?;
        let guest = Guest::boot(&env.net.broker, &dir, guest::BROKER)?;
        guest.rewrite(how, article::HOME_PUBLIC.parse()?)?;
        let iked = Iked::start(&guest, &dir, conf, &iked_files(&spec.broker_credentials))?;
        let client = spec.start_client(env)?;
        let this = Self { client, iked, guest };
        this.wait(env)?;
        Ok(this)
    }

    fn wait(&self, env: &Env) -> Result<()> {
        let patience = Duration::from_secs(15);
        traffic::wait_for_ping(&env.net.home, broker6()?, patience).with_context(|| self.logs())
    }

    fn carries_traffic(&self, env: &Env) -> Result<()> {
        carry(env).with_context(|| self.logs())
    }

    fn logs(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        format!(
            "--- client\n{}\n--- iked\n{}\n{}",
            tail(self.client.log()),
            tail(self.iked.log()),
            self.guest.kernel_state()
        )
    }
}

fn iked_files(credentials: &Credentials) -> Files {
    Files {
        entity: credentials.entity.clone(),
        cas: credentials.trust.clone(),
        crls: credentials.crls.clone(),
    }
}

fn iked_broker(env: &mut Env) -> Result<()> {
    let spec = Spec::certified(env, FERRY6, Program::StrongSwan)?.proposals("default", "default");
    let capture = Capture::start(&env.net.internet, "colo", CaptureOptions::default())?;
    let tunnel = IkedBroker::up(env, &iked_conf("", ""), How::AfUnspec, &spec)?;
    tunnel.carries_traffic(env)?;
    let counts = capture.stop()?;
    ensure!(counts.only_ipsec(), "on the internet there was more than IPsec: {counts}");
    ensure!(counts.esp_in_udp > 100, "the traffic did not go through the tunnel: {counts}");
    let child = child(&tunnel.client)?;
    ensure!(child["algorithms"] == "AES_CBC_256/HMAC_SHA2_384_192", "not iked's first proposal: {child}");
    Ok(())
}
