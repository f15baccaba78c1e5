//! What a certificate is not for, and what stands behind it in its file.

use super::{KEY, must};
use crate::cases::Env;
use crate::cases::tunnel::{CLIENT_ID, FERRY6, Spec, certificates};
use crate::ferry::Mode;
use crate::pki::{Ca, Entity, Flaw};
use crate::{run, write_private};
use anyhow::{Context, Result};
use ferry6::pki::{Profile, Validity};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub(super) fn case(env: &mut Env) -> Result<()> {
    let dir = env.subdir("client")?;
    let good = Spec::new(FERRY6, FERRY6, certificates(&env.subdir("pki")?, KEY)?);
    let ca = Ca::new(&env.subdir("own")?, "ca", KEY)?;
    let file = dir.join("ferry6.toml");
    let write = |entity: Entity| {
        let mut spec = good.clone();
        spec.client_credentials.entity = Some(entity);
        write_private(&file, &spec.toml(Mode::Client, &dir, "aws-lc")?)
    };
    let doctor = |found| must(env, &env.net.home, Mode::Client, &file, found);
    let made = env.subdir("made")?;
    write(signed(&ca, &made, "encryption", "keyUsage=keyEncipherment")?)?;
    doctor(("certificate", "fail", "neither digitalSignature nor nonRepudiation"))?;
    doctor(("config", "fail", "neither digitalSignature nor nonRepudiation"))?;
    // The same without an identity in the configuration: that of the certificate.
    let anonymous = std::fs::read_to_string(&file)?.replace(&format!("id = \"{CLIENT_ID}\"\n"), "");
    write_private(&file, &anonymous)?;
    doctor(("certificate", "fail", "neither digitalSignature nor nonRepudiation"))?;
    doctor(("config", "fail", "neither digitalSignature nor nonRepudiation"))?;
    write(signed(&ca, &made, "code", "extendedKeyUsage=codeSigning")?)?;
    doctor(("certificate", "warn", "has none of ipsecIKE"))?;
    doctor(("config", "warn", "has none of ipsecIKE"))?;
    write(signed(&ca, &made, "right", "extendedKeyUsage=clientAuth")?)?;
    doctor(("certificate", "ok", "issued by CN=ca"))?;

    // A chain with another CA's certificate in the place of the issuer's.
    let (one, two) = (ca.intermediate("one-ca")?, ca.intermediate("two-ca")?);
    let right = one.issue("chained", CLIENT_ID, KEY, Flaw::default())?;
    write(right.clone())?;
    doctor(("certificate", "ok", "issued by CN=one-ca"))?;
    let text = std::fs::read_to_string(&right.cert)?;
    let end = "-----END CERTIFICATE-----\n";
    let leaf = text.split_inclusive(end).next().context("a leaf")?;
    let broken = Entity { cert: made.join("broken.crt"), key: right.key };
    std::fs::write(&broken.cert, leaf.to_owned() + &std::fs::read_to_string(&two.cert)?)?;
    write(broken)?;
    doctor(("certificate", "warn", "is not issued by the one behind it"))?;
    write(below_expired(&env.subdir("expired-ca")?)?)?;
    doctor(("certificate", "fail", "in the chain expired"))
}

/// A certificate of this CA with one extension beside its subjectAltName.
fn signed(ca: &Ca, dir: &Path, name: &str, extension: &str) -> Result<Entity> {
    let entity = Entity::from_files(dir, name);
    let (request, extensions) = (dir.join("request"), dir.join("extensions"));
    std::fs::write(&extensions, format!("subjectAltName=email:{CLIENT_ID}\n{extension}\n"))?;
    let mut command = Command::new("openssl");
    command.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    command.args(["-subj", "/CN=client", "-keyout"]).arg(&entity.key).arg("-out").arg(&request);
    run(&mut command, "openssl req")?;
    let mut command = Command::new("openssl");
    command.args(["x509", "-req", "-days", "30", "-in"]).arg(&request).arg("-extfile").arg(&extensions);
    command.arg("-CA").arg(&ca.cert).arg("-CAkey").arg(ca.key()).args(["-set_serial", "99", "-out"]);
    run(command.arg(&entity.cert), "openssl x509")?;
    Ok(entity)
}

/// A certificate whose CA, in the chain, has expired.
fn below_expired(dir: &Path) -> Result<Entity> {
    let root = ferry6::pki::Authority::root(&Profile::new("root")?.key_type(KEY))?;
    let year = Duration::from_secs(365 * 86_400);
    let Validity { not_before, .. } = Validity::days(30)?;
    let past = Validity { not_before: not_before - 2 * year, not_after: not_before - year };
    let between = Profile { validity: past, ..Profile::new("between")?.key_type(KEY) };
    let credential = root.intermediate(&between)?.issue(&Profile {
        common_name: "client".into(),
        key_type: KEY,
        ..Profile::for_name(CLIENT_ID)?
    })?;
    ferry6::pki::store::CaFiles::new(&dir.join("below")).save_credential(&credential, true)?;
    Ok(Entity::from_files(dir, "below"))
}
