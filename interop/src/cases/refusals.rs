//! Refusals: each with its clear message in the log of the side that refuses, and the fitting notify as the other side
//! sees it.

use super::tunnel::{
    BROKER_ID, CLIENT_ADDRESS, CLIENT_ID, Credentials, FERRY6, Program, Side, Spec, Tunnel, psk,
};
use super::{Case, Env, Peer, Role};
use crate::ferry::Mode;
use crate::pki::{Ca, Flaw, KeyType};
use anyhow::{Context, Result, ensure};

const KEY: KeyType = KeyType::Ecdsa256;
const AUTHENTICATION_FAILED: &str = "AUTH_FAILED";

/// What is wrong with one side's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Expired,
    UnknownCa,
    IdNotInSan,
    Revoked,
    WrongPsk,
}

impl Fault {
    const ALL: [Self; 5] = [Self::Expired, Self::UnknownCa, Self::IdNotInSan, Self::Revoked, Self::WrongPsk];

    fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::UnknownCa => "unknown-ca",
            Self::IdNotInSan => "id-not-in-san",
            Self::Revoked => "revoked",
            Self::WrongPsk => "wrong-psk",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Expired => "expired certificate",
            Self::UnknownCa => "certificate of an unknown CA",
            Self::IdNotInSan => "identity that is not in the certificate's SAN",
            Self::Revoked => "revoked certificate (CRL)",
            Self::WrongPsk => "wrong pre-shared key",
        }
    }

    /// What ferry6's log must say when it refuses.
    fn cause(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::UnknownCa => "not one of the trusted CAs",
            Self::IdNotInSan => "does not stand in the certificate",
            Self::Revoked => "is revoked",
            Self::WrongPsk => "pre-shared key",
        }
    }

    /// Credentials of client and broker, where those of `bad` have this fault.
    fn credentials(self, env: &Env, bad: Mode) -> Result<(Credentials, Credentials)> {
        let dir = env.subdir("pki")?;
        if self == Self::WrongPsk {
            let (mut client, mut broker) = psk("the right pre-shared key");
            let wrong = if bad == Mode::Client { &mut client } else { &mut broker };
            wrong.psk = "a wrong pre-shared key".into();
            return Ok((client, broker));
        }
        let ca = Ca::new(&dir, "ca", KEY)?;
        let other = Ca::new(&dir, "other", KEY)?;
        let side = |mode: Mode, id: &str| -> Result<Credentials> {
            let faulty = mode == bad;
            let issuer = if faulty && self == Self::UnknownCa { &other } else { &ca };
            let id = if faulty && self == Self::IdNotInSan { "somebody.else" } else { id };
            let flaw = Flaw { expired: faulty && self == Self::Expired };
            Ok(Credentials {
                entity: Some(issuer.issue(mode.word(), id, KEY, flaw)?),
                intermediates: Vec::new(),
                trust: vec![ca.cert.clone()],
                crls: Vec::new(),
                psk: String::new(),
            })
        };
        let (mut client, mut broker) = (side(Mode::Client, CLIENT_ID)?, side(Mode::Broker, BROKER_ID)?);
        if self == Self::Revoked {
            let (bad, good) =
                if bad == Mode::Client { (&client, &mut broker) } else { (&broker, &mut client) };
            let revoked = bad.entity.as_ref().context("it has a certificate")?;
            good.crls = vec![ca.revoke(revoked)?];
        }
        Ok((client, broker))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let swan = Program::StrongSwan;
    let mut cases = Vec::new();
    for fault in Fault::ALL {
        for (name, client, broker, role) in
            [("broker", swan, FERRY6, Role::Broker), ("client", FERRY6, swan, Role::Client)]
        {
            // Of two different pre-shared keys the broker sees first that they differ; then the client sees nothing more.
            let by_broker = fault == Fault::WrongPsk;
            if !(by_broker && role == Role::Client) {
                cases.push(Case::new(
                    format!("refuse-{}-by-{name}", fault.name()),
                    Peer::StrongSwan,
                    role,
                    format!("ferry6 refuses strongSwan: {}", fault.words()),
                    move |env| ferry_refuses(env, client, broker, fault),
                ));
            }
            // ferry6 itself does not start with a certificate that has expired or does not say who it is.
            let starts = matches!(fault, Fault::UnknownCa | Fault::Revoked | Fault::WrongPsk);
            if starts && !(by_broker && role == Role::Broker) {
                cases.push(Case::new(
                    format!("refused-{}-as-{name}", fault.name()),
                    Peer::StrongSwan,
                    role,
                    format!("strongSwan refuses ferry6: {}", fault.words()),
                    move |env| swan_refuses(env, client, broker, fault),
                ));
            }
        }
        if fault != Fault::Expired && fault != Fault::IdNotInSan {
            for bad in [Mode::Client, Mode::Broker] {
                if fault == Fault::WrongPsk && bad == Mode::Broker {
                    continue;
                }
                cases.push(Case::new(
                    format!("refuse-{}-ferry6-{}", fault.name(), bad.word()),
                    Peer::Ferry6,
                    Role::Both,
                    format!("the {}'s {}: both logs say why", bad.word(), fault.words()),
                    move |env| both_ferry(env, bad, fault),
                ));
            }
        }
    }
    for (name, client, broker, peer, role) in [
        ("client", FERRY6, swan, Peer::StrongSwan, Role::Client),
        ("broker", swan, FERRY6, Peer::StrongSwan, Role::Broker),
        ("ferry6", FERRY6, FERRY6, Peer::Ferry6, Role::Both),
    ] {
        cases.push(Case::new(
            format!("refuse-no-ike-proposal-{name}"),
            peer,
            role,
            "no common IKE proposal: NO_PROPOSAL_CHOSEN",
            move |env| no_proposal(env, client, broker, true),
        ));
        cases.push(Case::new(
            format!("refuse-no-esp-proposal-{name}"),
            peer,
            role,
            "no common ESP proposal: NO_PROPOSAL_CHOSEN",
            move |env| no_proposal(env, client, broker, false),
        ));
        cases.push(Case::new(
            format!("refuse-no-address-{name}"),
            peer,
            role,
            "no free address: INTERNAL_ADDRESS_FAILURE",
            move |env| no_address(env, client, broker),
        ));
    }
    cases
}

/// Starts both; the tunnel must not come up. strongSwan's word for its failure, if it is the client.
fn start(env: &Env, spec: &Spec) -> Result<Tunnel> {
    let broker = spec.start_broker(env)?;
    let client = spec.start_client(env)?;
    let tunnel = Tunnel { client, broker };
    if let Side::Swan(swan) = &tunnel.client {
        ensure!(swan.initiate().is_err(), "the tunnel came up\n{}", tunnel.logs());
    }
    Ok(tunnel)
}

/// The log must say it in one line that also names the peer.
fn says(tunnel: &Tunnel, side: &Side, words: &[&str]) -> Result<()> {
    crate::wait_until(&format!("a line of the log has {words:?}"), std::time::Duration::from_secs(10), || {
        Ok(side.log().lines().any(|line| words.iter().all(|w| line.contains(w))))
    })
    .with_context(|| tunnel.logs())
}

fn ferry_refuses(env: &mut Env, client: Program, broker: Program, fault: Fault) -> Result<()> {
    let ferry_is_client = client == FERRY6;
    let bad = if ferry_is_client { Mode::Broker } else { Mode::Client };
    let mut spec = Spec::new(client, broker, fault.credentials(env, bad)?);
    // strongSwan shall send what it has, whatever it thinks of it.
    spec.swan_connection = "  send_cert = always\n".into();
    let tunnel = start(env, &spec)?;
    let (ferry, swan) = tunnel.ferry_and_other();
    let peer = if ferry_is_client { BROKER_ID } else { CLIENT_ID };
    says(&tunnel, ferry, &[fault.cause(), peer])?;
    says(&tunnel, swan, &["parsed", AUTHENTICATION_FAILED])
}

fn swan_refuses(env: &mut Env, client: Program, broker: Program, fault: Fault) -> Result<()> {
    let ferry_is_client = client == FERRY6;
    let bad = if ferry_is_client { Mode::Client } else { Mode::Broker };
    let spec = Spec::new(client, broker, fault.credentials(env, bad)?);
    let tunnel = start(env, &spec)?;
    let (ferry, swan) = tunnel.ferry_and_other();
    says(&tunnel, swan, &["generating", AUTHENTICATION_FAILED])?;
    says(&tunnel, ferry, &["AUTHENTICATION_FAILED"])
}

fn both_ferry(env: &mut Env, bad: Mode, fault: Fault) -> Result<()> {
    let spec = Spec::new(FERRY6, FERRY6, fault.credentials(env, bad)?);
    let tunnel = start(env, &spec)?;
    let (refused, refuses) = match bad {
        Mode::Client => (&tunnel.client, &tunnel.broker),
        Mode::Broker => (&tunnel.broker, &tunnel.client),
    };
    says(&tunnel, refuses, &[fault.cause()])?;
    says(&tunnel, refused, &["AUTHENTICATION_FAILED"])
}

fn no_proposal(env: &mut Env, client: Program, broker: Program, ike: bool) -> Result<()> {
    let mut spec = Spec::certified(env, client, broker)?;
    if ike {
        spec.client_ike = "aes128-sha256-ecp256".into();
    } else {
        spec.client_esp = "aes128-sha256".into();
    }
    let tunnel = start(env, &spec)?;
    for side in [&tunnel.client, &tunnel.broker] {
        match side {
            Side::Ferry(_) => says(&tunnel, side, &["NO_PROPOSAL_CHOSEN"])?,
            Side::Swan(_) => says(&tunnel, side, &["NO_PROP"])?,
        }
    }
    if let Side::Ferry(_) = &tunnel.broker {
        // What was offered: who reads it can repair one side or the other.
        let offered = if ike { "ECP_256" } else { "ENCR_AES_CBC_128, AUTH_HMAC_SHA2_256_128" };
        says(&tunnel, &tunnel.broker, &["NO_PROPOSAL_CHOSEN", offered])?;
    }
    Ok(())
}

fn no_address(env: &mut Env, client: Program, broker: Program) -> Result<()> {
    let mut spec = Spec::certified(env, client, broker)?;
    spec.swan_pool = None;
    // The only address is somebody else's.
    spec.ferry_pool = format!(
        "range = \"{CLIENT_ADDRESS}/128\"\n[pool.fixed]\n\"another@my.domain\" = \"{CLIENT_ADDRESS}\"\n"
    );
    let tunnel = start(env, &spec)?;
    match &tunnel.client {
        Side::Ferry(_) => says(&tunnel, &tunnel.client, &["INTERNAL_ADDRESS_FAILURE"])?,
        Side::Swan(_) => says(&tunnel, &tunnel.client, &["parsed", "INT_ADDR_FAIL"])?,
    }
    if let Side::Ferry(_) = &tunnel.broker {
        says(&tunnel, &tunnel.broker, &["address", CLIENT_ID])?;
    }
    Ok(())
}
