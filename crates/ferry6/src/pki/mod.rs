//! `ferry6 pki`: a CA, certificates and CRLs as the tunnel needs them, and a look at such files.
//!
//! [`authority`] makes them, in memory; [`store`] keeps them in files; [`show`] prints any.

pub mod authority;
pub mod show;
pub mod store;

pub use authority::{Authority, Credential, KeyType, Name, Profile, Revocation, Validity};

use anyhow::Context;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use store::CaFiles;
use time::OffsetDateTime;

const EXAMPLES: &str = "\
Examples:
  ferry6 pki ca --cn \"my.domain CA\" --out ca
  ferry6 pki issue --ca ca --san dns:tunnel.my.domain --out broker
  ferry6 pki issue --ca ca --san email:client@my.domain --out client
  ferry6 pki show ca.crt client.crt client.key
  ferry6 pki revoke --ca ca client.crt              then give ca.crl to the broker";

const CA_EXAMPLES: &str = "\
Examples:
  ferry6 pki ca --cn \"my.domain CA\" --out ca
  ferry6 pki ca --cn \"my.domain users\" --issuer ca --out users";

const ISSUE_EXAMPLES: &str = "\
Examples:
  ferry6 pki issue --ca ca --san dns:tunnel.my.domain --out broker
  ferry6 pki issue --ca ca --san email:client@my.domain --days 90 --out client";

const REVOKE_EXAMPLES: &str = "\
Examples:
  ferry6 pki revoke --ca ca client.crt
  ferry6 pki revoke --ca ca 4a1f9b --reason key-compromise";

const CRL_EXAMPLES: &str = "\
Examples:
  ferry6 pki crl --ca ca --days 7";

const SHOW_EXAMPLES: &str = "\
Examples:
  ferry6 pki show ca.crt client.crt client.key ca.crl";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a certification authority: NAME.crt, NAME.key, NAME.index, and an empty NAME.crl.
    Ca(CaArgs),
    /// Issue a certificate: NAME.crt (with intermediate CAs, leaf first) and NAME.key.
    Issue(IssueArgs),
    /// Revoke certificates, and write the CA's new CRL.
    Revoke(RevokeArgs),
    /// Write the CA's CRL anew; it expires.
    Crl(CrlArgs),
    /// Show certificates, CRLs and keys (PEM or DER).
    Show(ShowArgs),
}

/// When a certificate is valid. By default from an hour ago: clocks differ.
#[derive(Debug, clap::Args)]
struct ValidityArgs {
    /// First moment of validity: 2026-01-31, or with a time 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = store::parse_time)]
    not_before: Option<OffsetDateTime>,
    /// Last moment of validity, instead of --days.
    #[arg(long, value_name = "TIME", value_parser = store::parse_time, conflicts_with = "days")]
    not_after: Option<OffsetDateTime>,
}

impl ValidityArgs {
    fn resolve(&self, days: u32) -> anyhow::Result<Validity> {
        let mut validity = Validity::days(days)?;
        if let Some(not_before) = self.not_before {
            validity.not_before = not_before;
        }
        if let Some(not_after) = self.not_after {
            validity.not_after = not_after;
        }
        Ok(validity.checked()?)
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = CA_EXAMPLES)]
struct CaArgs {
    /// Common name of the CA.
    #[arg(long, value_name = "NAME")]
    cn: String,
    /// Organisation.
    #[arg(long, value_name = "NAME")]
    org: Option<String>,
    /// Files to make: NAME.crt, NAME.key, NAME.index, NAME.crl.
    #[arg(long, value_name = "NAME")]
    out: PathBuf,
    /// The CA above: this one becomes an intermediate CA. Without, it is a root and signs itself.
    #[arg(long, value_name = "NAME")]
    issuer: Option<PathBuf>,
    /// Kind of key.
    #[arg(long = "type", value_enum, default_value_t = KeyType::Ecdsa256)]
    key_type: KeyType,
    /// Days of validity.
    #[arg(long, default_value_t = 3650)]
    days: u32,
    #[command(flatten)]
    validity: ValidityArgs,
    /// Overwrite files that exist.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = ISSUE_EXAMPLES)]
struct IssueArgs {
    /// The CA: NAME.crt and NAME.key.
    #[arg(long, value_name = "NAME")]
    ca: PathBuf,
    /// Identity: email:client@my.domain, dns:tunnel.my.domain or ip:192.0.2.1; as often as needed.
    #[arg(long, value_name = "KIND:NAME", required = true)]
    san: Vec<Name>,
    /// Common name; the first --san where it is left out.
    #[arg(long, value_name = "NAME")]
    cn: Option<String>,
    /// Organisation.
    #[arg(long, value_name = "NAME")]
    org: Option<String>,
    /// Files to make: NAME.crt and NAME.key.
    #[arg(long, value_name = "NAME")]
    out: PathBuf,
    /// Kind of key.
    #[arg(long = "type", value_enum, default_value_t = KeyType::Ecdsa256)]
    key_type: KeyType,
    /// Days of validity.
    #[arg(long, default_value_t = 825)]
    days: u32,
    #[command(flatten)]
    validity: ValidityArgs,
    /// Where the CRL can be fetched: a CRL distribution point.
    #[arg(long, visible_alias = "crl-uri", value_name = "URL")]
    crl_url: Vec<String>,
    /// Where an OCSP responder can be asked (http://).
    #[arg(long, visible_alias = "ocsp-uri", value_name = "URL")]
    ocsp_url: Vec<String>,
    /// Overwrite files that exist.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = REVOKE_EXAMPLES)]
struct RevokeArgs {
    /// The CA.
    #[arg(long, value_name = "NAME")]
    ca: PathBuf,
    /// Certificates to revoke: files, or serial numbers in hexadecimal as `pki show` prints them.
    #[arg(required = true, value_name = "FILE|SERIAL")]
    certificates: Vec<PathBuf>,
    /// Why.
    #[arg(long, value_enum, default_value_t = Revocation::Unspecified)]
    reason: Revocation,
    /// Days until the CRL expires.
    #[arg(long, default_value_t = 30)]
    days: u32,
}

#[derive(Debug, clap::Args)]
#[command(after_help = CRL_EXAMPLES)]
struct CrlArgs {
    /// The CA.
    #[arg(long, value_name = "NAME")]
    ca: PathBuf,
    /// Days until the CRL expires.
    #[arg(long, default_value_t = 30)]
    days: u32,
    /// When the CRL was made; now where it is left out.
    #[arg(long, value_name = "TIME", value_parser = store::parse_time)]
    this_update: Option<OffsetDateTime>,
    /// When the next one is due, instead of --days.
    #[arg(long, value_name = "TIME", value_parser = store::parse_time, conflicts_with = "days")]
    next_update: Option<OffsetDateTime>,
}

#[derive(Debug, Parser)]
#[command(after_help = SHOW_EXAMPLES)]
struct ShowArgs {
    /// Certificates, CRLs or keys.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Runs the subcommand.
///
/// # Errors
/// What cannot be made, written or read.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Ca(args) => ca(&args)?,
        Command::Issue(args) => issue(&args)?,
        Command::Revoke(args) => revoke(&args)?,
        Command::Crl(args) => {
            let this_update = args.this_update.unwrap_or_else(OffsetDateTime::now_utc);
            let files = CaFiles::new(&args.ca);
            files.write_crl(this_update, next_update(args.next_update, args.days)?)?;
            println!("wrote {}", files.crl().display());
        }
        Command::Show(args) => {
            for (position, file) in args.files.iter().enumerate() {
                let text = show::file(file)?;
                print!("{}{text}", if position == 0 { "" } else { "\n" });
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ca(args: &CaArgs) -> anyhow::Result<()> {
    let files = CaFiles::new(&args.out);
    files.check_free(args.force)?;
    let profile = Profile {
        common_name: args.cn.clone(),
        organisation: args.org.clone(),
        key_type: args.key_type,
        validity: args.validity.resolve(args.days)?,
        names: Vec::new(),
        crl_urls: Vec::new(),
        ocsp_urls: Vec::new(),
    };
    let authority = match &args.issuer {
        None => Authority::root(&profile)?,
        Some(issuer) => {
            let issuer = CaFiles::new(issuer);
            let above = issuer.load()?;
            let authority = above.intermediate(&profile)?;
            issuer.record_issued(authority.certificate())?;
            authority
        }
    };
    files.save(&authority, args.force)?;
    for file in [files.certificate(), files.key(), files.index(), files.crl()] {
        println!("wrote {}", file.display());
    }
    Ok(())
}

fn issue(args: &IssueArgs) -> anyhow::Result<()> {
    let files = CaFiles::new(&args.ca);
    let authority = files.load()?;
    let credential = CaFiles::new(&args.out);
    credential.check_free_credential(args.force)?;
    let profile = Profile {
        common_name: args.cn.clone().unwrap_or_else(|| args.san[0].value()),
        organisation: args.org.clone(),
        key_type: args.key_type,
        validity: args.validity.resolve(args.days)?,
        names: args.san.clone(),
        crl_urls: args.crl_url.clone(),
        ocsp_urls: args.ocsp_url.clone(),
    };
    let issued = authority.issue(&profile)?;
    // First: a certificate that exists can always be revoked.
    files.record_issued(&issued.certificate)?;
    credential.save_credential(&issued, args.force)?;
    println!("wrote {}\nwrote {}", credential.certificate().display(), credential.key().display());
    Ok(())
}

fn revoke(args: &RevokeArgs) -> anyhow::Result<()> {
    let files = CaFiles::new(&args.ca);
    let next = next_update(None, args.days)?;
    for certificate in &args.certificates {
        let serial = files.serial_of(certificate)?;
        let text = authority::serial_text(&serial);
        let fresh =
            files.record_revoked(&serial, args.reason).with_context(|| format!("cannot revoke {text}"))?;
        println!("{} {text}", if fresh { "revoked" } else { "already revoked:" });
    }
    files.write_crl(OffsetDateTime::now_utc(), next)?;
    println!("wrote {}", files.crl().display());
    Ok(())
}

fn next_update(given: Option<OffsetDateTime>, days: u32) -> anyhow::Result<OffsetDateTime> {
    match given {
        Some(time) => Ok(time),
        None => Ok(Validity::days(days)?.not_after),
    }
}

#[cfg(test)]
mod tests;
