//! Forged news of revocation: answers of an OCSP responder and a CRL that say "good", and must count for nothing. The answers are
//! OpenSSL's, made beforehand with the wrong signer or about the wrong certificate, and served as they are.

use super::revocation::{KEY, OCSP, credentials, serve};
use super::tunnel::{BROKER_ID, CLIENT_ID, FERRY6, Spec, broker6};
use super::{Case, Env, Peer, Role};
use crate::pki::{Ca, Entity, Flaw};
use crate::traffic;
use crate::{run, wait_until};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const CRL: &str = "http://5.6.7.1:8081/forged.crl";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "ocsp-forged",
            Peer::Ferry6,
            Role::Both,
            "forged OCSP answers (strange, unauthorized, expired signer; signature, CertID, time wrong) count for nothing",
            forged_ocsp,
        ),
        Case::new(
            "crl-forged",
            Peer::Ferry6,
            Role::Both,
            "a CRL of a distribution point that another key signed counts for nothing",
            forged_crl,
        ),
        Case::new(
            "reload-says-what-it-cannot",
            Peer::None,
            Role::Broker,
            "a broker that was started without revocation, and is told to read a policy with it, says that it needs a restart, and goes on",
            reload,
        ),
    ]
}

/// The files of an answer's making.
struct Forger {
    dir: PathBuf,
    ca: PathBuf,
}

impl Forger {
    /// An answer that says that this certificate is good, signed with these files.
    fn answer(&self, about: &Path, serial: &str, signer: (&Path, &Path)) -> Result<Vec<u8>> {
        let (index, out) = (self.dir.join("index.txt"), self.dir.join("answer.der"));
        fs::write(&index, format!("V\t400101000000Z\t\t{serial}\tunknown\t/CN={serial}\n"))?;
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-no_nonce", "-noverify", "-nmin", "60", "-index"]).arg(&index);
        command.arg("-CA").arg(&self.ca).arg("-issuer").arg(&self.ca).arg("-cert").arg(about);
        command.arg("-rsigner").arg(signer.0).arg("-rkey").arg(signer.1).arg("-respout").arg(&out);
        run(&mut command, "openssl ocsp")?;
        Ok(fs::read(&out)?)
    }

    /// A responder's certificate of the CA itself, with id-kp-OCSPSigning, whose time is over.
    fn expired_responder(&self, ca: &Ca) -> Result<(PathBuf, PathBuf)> {
        let file = |name: &str| self.dir.join(name);
        fs::write(file("extensions"), "extendedKeyUsage=OCSPSigning\n")?;
        let mut request = Command::new("openssl");
        request.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        request.args(["-subj", "/CN=responder", "-keyout"]).arg(file("responder.key"));
        run(request.arg("-out").arg(file("responder.csr")), "openssl req")?;
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-req", "-set_serial", "77", "-days", "-1", "-in"]).arg(file("responder.csr"));
        sign.arg("-CA").arg(&ca.cert).arg("-CAkey").arg(ca.key()).arg("-extfile").arg(file("extensions"));
        run(sign.arg("-out").arg(file("responder.crt")), "openssl x509")?;
        Ok((file("responder.crt"), file("responder.key")))
    }
}

/// DER: tag, length, content.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = match length {
        ..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    out.extend_from_slice(content);
    out
}

/// The content of the first element, and what follows it.
fn split(der: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, head) = match *der.get(1).context("DER ends")? {
        short @ ..=0x7f => (usize::from(short), 2),
        0x81 => (usize::from(der[2]), 3),
        0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        other => anyhow::bail!("a length of the form {other:#x}"),
    };
    let content = der.get(head..head + length).context("DER ends")?;
    Ok((content, &der[head + length..]))
}

/// The same answer signed anew with this key; `stale` with all its times years ago.
fn signed_anew(dir: &Path, answer: &[u8], key: &Path, stale: bool) -> Result<Vec<u8>> {
    // OCSPResponse { status, [0] { ResponseBytes { type, OCTET STRING { BasicOCSPResponse { tbs, algorithm, signature } } } } }
    let (response, _) = split(answer)?;
    let (_, bytes) = split(response)?;
    let (bytes, _) = split(split(bytes)?.0)?;
    let (kind, rest) = split(bytes)?;
    let (basic, _) = split(split(rest)?.0)?;
    let (tbs, rest) = split(basic)?;
    let (algorithm, _) = split(rest)?;
    let mut tbs = tlv(0x30, tbs);
    let time = [0x18, 15, b'2', b'0'];
    for at in 0..tbs.len().saturating_sub(time.len() + 2) {
        if stale && tbs[at..].starts_with(&time) {
            tbs[at + 4..at + 6].copy_from_slice(b"15");
        }
    }
    let (file, out) = (dir.join("tbs"), dir.join("signature"));
    fs::write(&file, &tbs)?;
    let mut sign = Command::new("openssl");
    sign.args(["dgst", "-sha256", "-sign"]).arg(key).arg("-out").arg(&out).arg(&file);
    run(&mut sign, "openssl dgst")?;
    let signature = [&[0], fs::read(&out)?.as_slice()].concat();
    let basic = [tbs, tlv(0x30, algorithm), tlv(0x03, &signature)].concat();
    let bytes = [tlv(0x06, kind), tlv(0x04, &tlv(0x30, &basic))].concat();
    Ok(tlv(0x30, &[tlv(0x0a, &[0]), tlv(0xa0, &tlv(0x30, &bytes))].concat()))
}

fn forged_ocsp(env: &mut Env) -> Result<()> {
    let dir = env.subdir("pki")?;
    let ca = Ca::new(&dir, "ca", KEY)?;
    let other = Ca::new(&env.subdir("stranger")?, "stranger", KEY)?;
    let client = ca.issue_with("client", CLIENT_ID, &[], &[OCSP])?;
    let broker = ca.issue_with("broker", BROKER_ID, &[], &[])?;
    let colleague = ca.issue("colleague", "colleague@my.domain", KEY, Flaw::default())?;
    let serial = |entity: &Entity| -> Result<String> {
        Ok(ca.serial_of(entity)?.iter().map(|octet| format!("{octet:02X}")).collect())
    };
    let forger = Forger { dir: env.subdir("forger")?, ca: ca.cert.clone() };
    let expired = forger.expired_responder(&ca)?;
    let about =
        |entity: &Entity, signer: (&Path, &Path)| forger.answer(&entity.cert, &serial(entity)?, signer);
    let (ca_cert, ca_key) = (ca.cert.clone(), ca.key());
    let honest = about(&client, (&ca_cert, &ca_key))?;
    let forgeries = [
        (about(&client, (&other.cert, &other.key()))?, "is not issued by the CA that it speaks for"),
        (about(&client, (&colleague.cert, &colleague.key))?, "lacks id-kp-OCSPSigning"),
        (about(&client, (&expired.0, &expired.1))?, "has expired or is not yet valid"),
        (signed_anew(&forger.dir, &honest, &other.key(), false)?, "the OCSP response has a wrong signature"),
        (about(&colleague, (&ca_cert, &ca_key))?, "the OCSP response is not about this certificate"),
        (signed_anew(&forger.dir, &honest, &ca_key, true)?, "the OCSP response has expired"),
    ];
    let served = forger.dir.join("served");
    fs::write(&served, &forgeries[0].0)?;
    serve(env, 8080, Some(&served))?;
    let mut spec = Spec::new(FERRY6, FERRY6, (credentials(&ca, client), credentials(&ca, broker)));
    spec.ferry_broker.remote = "revocation = \"strict\"\n".into();
    refused_until_honest(env, &spec, &served, &forgeries, &honest)
}

fn forged_crl(env: &mut Env) -> Result<()> {
    let ca = Ca::new(&env.subdir("pki")?, "ca", KEY)?;
    // Of the same name, with another key.
    let other = Ca::new(&env.subdir("stranger")?, "ca", KEY)?;
    let client = ca.issue_with("client", CLIENT_ID, &[CRL], &[])?;
    let broker = ca.issue_with("broker", BROKER_ID, &[], &[])?;
    let forgeries = [(fs::read(other.crl())?, "the CRL has a wrong signature")];
    let served = env.subdir("forger")?.join("served");
    fs::write(&served, &forgeries[0].0)?;
    serve(env, 8081, Some(&served))?;
    let mut spec = Spec::new(FERRY6, FERRY6, (credentials(&ca, client), credentials(&ca, broker)));
    spec.ferry_broker.remote = "revocation = \"strict\"\n".into();
    refused_until_honest(env, &spec, &served, &forgeries, &fs::read(ca.crl())?)
}

/// Each forgery in turn, and the broker says what is wrong with it; then what is honest, from the same place: the tunnel is up.
fn refused_until_honest(
    env: &Env,
    spec: &Spec,
    served: &Path,
    forgeries: &[(Vec<u8>, &str)],
    honest: &[u8],
) -> Result<()> {
    let broker = spec.start_broker(env)?;
    let mut client = spec.start_client(env)?;
    for (number, (forgery, words)) in forgeries.iter().enumerate() {
        if number > 0 {
            client.ferry_mut()?.stop()?;
            fs::write(served, forgery)?;
            client.ferry_mut()?.restart()?;
        }
        // Of one cause the log takes five lines in 10 s; the client tries again meanwhile.
        wait_until(&format!("the broker says {words:?}"), Duration::from_secs(25), || {
            Ok(broker.ferry()?.log().contains(words))
        })
        .with_context(|| format!("{}\n{}", broker.log(), client.log()))?;
    }
    let counted = traffic::ping_count(&env.net.home, broker6()?, 2, Duration::from_millis(100))?;
    ensure!(counted.received == 0, "traffic passes\n{}", broker.log());
    client.ferry_mut()?.stop()?;
    fs::write(served, honest)?;
    client.ferry_mut()?.restart()?;
    traffic::wait_for_ping(&env.net.home, broker6()?, Duration::from_secs(10))
        .with_context(|| format!("{}\n{}", broker.log(), client.log()))
}

fn reload(env: &mut Env) -> Result<()> {
    let ca = Ca::new(&env.subdir("pki")?, "ca", KEY)?;
    let client = ca.issue_with("client", CLIENT_ID, &[], &[])?;
    let broker = ca.issue_with("broker", BROKER_ID, &[], &[])?;
    let mut spec = Spec::new(FERRY6, FERRY6, (credentials(&ca, client), credentials(&ca, broker.clone())));
    spec.ferry_broker.remote = "revocation = \"off\"\n".into();
    let tunnel = spec.up(env)?;
    let dir = env.dir.join("broker");
    let ask = || -> Result<String> {
        let answer = ferry6::control::connect::ask(&dir.join("control"), &ferry6::control::Request::Reload);
        Ok(answer.map_or_else(|error| format!("{error:#}"), |answer| format!("{answer:?}")))
    };
    let says = ask()?;
    ensure!(says.contains("anew") && says.contains("Done"), "without a change: {says}");
    let file = dir.join("ferry6.toml");
    let before = fs::read_to_string(&file)?;
    fs::write(&file, before.replace("revocation = \"off\"", "revocation = \"ifuri\""))?;
    let says = ask()?;
    ensure!(says.contains("needs a restart"), "another policy: {says}");
    fs::write(&file, before)?;
    tunnel.carries_traffic(env)
}
