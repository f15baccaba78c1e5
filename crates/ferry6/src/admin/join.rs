//! `ferry6 client join`: takes an invitation, or makes the request for one.

use super::invitation::Invitation;
use super::{make_directory, parse_name, usage};
use crate::config;
use crate::pki::store::{write_public, write_secret};
use crate::pki::{KeyType, authority};
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;
use zeroize::Zeroizing;

const EXAMPLES: &str = "\
Examples:
  sudo ferry6 client join alice.ferry6              then: sudo ferry6 client up alice
  sudo ferry6 client join alice.ferry6 --name home
  cat alice.ferry6 | sudo ferry6 client join -
  sudo ferry6 client join --request home            a key that never leaves this machine: makes home.csr for `broker sign`";

/// The key of a request that is not answered yet.
const PENDING: &str = "request.key";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The invitation; `-` for standard input.
    #[arg(required_unless_present = "request", conflicts_with = "request")]
    file: Option<PathBuf>,
    /// The tunnel's name here; the invitation's where it is left out.
    #[arg(long, value_name = "NAME", value_parser = parse_name, conflicts_with = "request")]
    name: Option<String>,
    /// Make a key and a request for a certificate: NAME.csr, to be given to the broker's operator.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    request: Option<String>,
    /// Replace a tunnel of this name.
    #[arg(long)]
    force: bool,
    /// Directory of the tunnels.
    #[arg(long, value_name = "DIR", default_value = super::DIRECTORY)]
    dir: PathBuf,
}

/// Installs an invitation. On an error nothing of it stays.
///
/// # Errors
/// Not an invitation, expired, no key to it, a tunnel that is there already, or a file that cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match (&args.request, &args.file) {
        (Some(name), _) => request(args, name),
        (None, Some(file)) => join(args, file),
        (None, None) => Err(usage("name the invitation's file")),
    }
}

fn join(args: &Args, file: &Path) -> anyhow::Result<ExitCode> {
    let invitation = Invitation::open(file).map_err(|e| usage(format!("{e:#}")))?;
    super::check_name(&invitation.name).map_err(|e| usage(format!("{}: {e}", file.display())))?;
    let name = args.name.clone().unwrap_or_else(|| invitation.name.clone());
    let home = args.dir.join(&name);
    let configuration = home.join("client.toml");
    if configuration.exists() && !args.force {
        return Err(usage(format!(
            "there is a tunnel {name} already ({}); take another --name, or replace it with --force",
            configuration.display()
        )));
    }
    invitation
        .check(SystemTime::now())
        .map_err(|e| usage(format!("{}: this invitation cannot be used: {e:#}", file.display())))?;
    let key = match &invitation.key {
        Some(key) => Zeroizing::new(key.clone()),
        None => pending_key(&home, &name, file)?,
    };
    make_directory(&args.dir, 0o755)?;
    // All is written beside its place and read by the client's own eyes; only what is right goes to its place.
    let stage = tempfile::Builder::new()
        .prefix(".join-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("cannot write into {}", args.dir.display()))?;
    write_public(&stage.path().join("ca.crt"), invitation.ca.as_bytes())?;
    write_public(&stage.path().join("client.crt"), invitation.cert.as_bytes())?;
    write_secret(&stage.path().join("client.key"), key.as_bytes())?;
    write_public(
        &stage.path().join("client.toml"),
        configuration_of(&invitation, &name, &args.dir).as_bytes(),
    )?;
    let client = config::client(&stage.path().join("client.toml"))
        .map_err(|e| usage(said_of(&e.to_string(), stage.path(), file)))?;
    for warning in &client.warnings {
        tracing::warn!("{warning}");
    }
    make_directory(&home, 0o755)?;
    // The configuration last: with it the tunnel is there.
    for part in ["ca.crt", "client.crt", "client.key", "client.toml"] {
        let target = home.join(part);
        std::fs::rename(stage.path().join(part), &target)
            .with_context(|| format!("cannot write {}", target.display()))?;
    }
    let _ = std::fs::remove_file(home.join(PENDING));
    println!(
        "joined {name}: {} by {}, valid until {}",
        client.connection.local_id,
        invitation.broker,
        invitation.valid_until()
    );
    println!("bring it up:  sudo ferry6 client up {name}");
    Ok(ExitCode::SUCCESS)
}

/// The client's own words in one line. They name files that are not there any more when they are read, and show lines of them.
fn said_of(text: &str, stage: &Path, file: &Path) -> String {
    let text = text.replace(&format!("{}/", stage.display()), "");
    let shows = |line: &&str| {
        line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|')
    };
    let faults: Vec<&str> =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).filter(|l| !shows(l)).collect();
    format!("{}: this invitation cannot be used: {}", file.display(), faults.join("; "))
}

fn pending_key(home: &Path, name: &str, file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let path = home.join(PENDING);
    let key = match crate::files::read_text(&path) {
        Ok(key) => key,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(usage(format!(
                "{}: this invitation holds no key, and there is no request {name} here ({}): join it where the request was made, \
                 and with its --name; if it should hold a key, it was cut on its way",
                file.display(),
                path.display()
            )));
        }
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    Ok(key)
}

/// The `client.toml` of an invitation: the broker's address and identity out of it, and nothing else.
pub fn configuration_of(invitation: &Invitation, name: &str, dir: &Path) -> String {
    // As TOML quotes: Rust's own form has escapes that TOML doesn't know.
    let quoted = |text: &str| toml::Value::from(text).to_string();
    // Tunnels of another directory keep to it: two of one name do not meet.
    let control = if dir == Path::new(super::DIRECTORY) {
        format!("{}/{name}.sock", config::RUN_DIR)
    } else {
        "client.sock".to_owned()
    };
    let mut broker = format!("[broker]\naddress = {}\n", quoted(&invitation.broker));
    if invitation.port != 500 {
        broker += &format!("port = {}\n", invitation.port);
    }
    if invitation.nat_port != 4500 {
        broker += &format!("nat_port = {}\n", invitation.nat_port);
    }
    // Whichever it is: it is the broker that changes it.
    let tunnel = if invitation.prefix.is_some() { "\n[tunnel]\nprefix = \"any\"\n" } else { "" };
    format!(
        "# Made by `ferry6 client join`. Every key: docs/configuration.md; check with: ferry6 client --check --config FILE\n\
         control = {}\n\n{broker}\n[local]\ncert = \"client.crt\"\nkey = \"client.key\"\n\n\
         [remote]\nid = {}\nca = \"ca.crt\"\n{tunnel}",
        quoted(&control),
        quoted(&invitation.broker_id)
    )
}

fn request(args: &Args, name: &str) -> anyhow::Result<ExitCode> {
    let home = args.dir.join(name);
    let (key, csr) = (home.join(PENDING), PathBuf::from(format!("{name}.csr")));
    for there in [&home.join("client.toml"), &key, &csr] {
        if there.exists() && !args.force {
            return Err(usage(format!(
                "{} exists: take another name, or replace it with --force",
                there.display()
            )));
        }
    }
    let (secret, text) = authority::request(name, KeyType::Ecdsa256)?;
    make_directory(&home, 0o755)?;
    write_secret(&key, secret.as_bytes())?;
    // A key without its request would stand in the way of the next one.
    write_public(&csr, text.as_bytes()).inspect_err(|_| drop(std::fs::remove_file(&key)))?;
    println!("wrote {}; its key stays in {}", csr.display(), key.display());
    println!("the broker's operator answers it:  ferry6 broker sign NAME {}", csr.display());
    println!("then here:  sudo ferry6 client join NAME.ferry6 --name {name}");
    Ok(ExitCode::SUCCESS)
}
