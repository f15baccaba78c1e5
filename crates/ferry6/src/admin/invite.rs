//! `ferry6 broker invite` and `sign`: a certificate for a user, and the file that brings it there.

use super::invitation::Invitation;
use super::settings::{self, Settings};
use super::site::{Offer, Site};
use super::{parse_name, profiles, swanctl, usage};
use crate::pki::authority::Credential;
use crate::pki::store::{write_public, write_secret};
use crate::pki::{Authority, Name, Profile, Validity};
use anyhow::{Context as _, bail};
use ferry6_ike::Prefix6;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use time::OffsetDateTime;
use zeroize::Zeroizing;

const INVITE_EXAMPLES: &str = "\
Examples:
  ferry6 broker invite alice                        writes alice.ferry6
  ferry6 broker invite alice --qr                   and shows it as a QR code
  ferry6 broker invite alice --expires 90d          not let in any more in 90 days
  ferry6 broker invite alice --prefix auto          with a prefix of pool.prefixes for the LAN behind her
  ferry6 broker invite alice --out - | ssh alice@laptop sudo ferry6 client join -
  ferry6 broker invite bob --for strongswan         a directory of swanctl files, bob
  ferry6 broker invite bob --for android            a profile for strongSwan's Android app, bob.sswan
  ferry6 broker invite bob --for apple              a profile for iOS and macOS, bob.mobileconfig

The file holds the user's private key: hand it over in private. `ferry6 client join --request` keeps the key on the client.";

const SIGN_EXAMPLES: &str = "\
Examples:
  ferry6 client join --request home                 on the client: makes home.csr
  ferry6 broker sign alice home.csr                 here: makes alice.ferry6, which holds no key
  ferry6 client join alice.ferry6 --name home       on the client again";

/// Arguments of `invite`.
#[derive(Debug, clap::Args)]
#[command(after_help = INVITE_EXAMPLES)]
pub struct InviteArgs {
    /// The user's name.
    #[arg(value_parser = parse_name)]
    name: String,
    /// The file to write, `-` for standard output [default: NAME.ferry6, NAME.sswan, NAME.mobileconfig; for strongswan
    /// the directory NAME].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show it as a QR code on the terminal, too.
    #[arg(long)]
    qr: bool,
    /// Whose client will read it.
    #[arg(long = "for", value_name = "CLIENT", value_enum, default_value_t = Client::Ferry6)]
    client: Client,
    #[command(flatten)]
    common: Common,
}

/// Whose clients an invitation can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Client {
    /// `ferry6 client join`.
    Ferry6,
    /// strongSwan on Linux: files for /etc/swanctl.
    Strongswan,
    /// strongSwan's app.
    Android,
    /// What iOS, iPadOS and macOS have.
    Apple,
}

/// Arguments of `sign`.
#[derive(Debug, clap::Args)]
#[command(after_help = SIGN_EXAMPLES)]
pub struct SignArgs {
    /// The user's name.
    #[arg(value_parser = parse_name)]
    name: String,
    /// The request that `client join --request` made, or any PKCS #10 request in PEM.
    request: PathBuf,
    /// The file to write, `-` for standard output; NAME.ferry6 where it is left out.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Days until the user's certificate expires.
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    #[command(flatten)]
    settings: Settings,
    /// Invite a user again whose certificate is still valid; the old one is revoked.
    #[arg(long)]
    again: bool,
    /// The broker's directory.
    #[arg(long, value_name = "DIR", default_value = super::DIRECTORY)]
    dir: PathBuf,
}

/// What both need before they make anything.
struct Prepared {
    site: Site,
    offer: Offer,
    ca: Authority,
    /// The user's identity.
    user: String,
    settings: Settings,
    /// The prefix that the user will have by name.
    prefix: Option<Prefix6>,
    profile: Profile,
    /// The certificate that the new one replaces.
    old: Option<Vec<u8>>,
}

fn prepare(name: &str, common: &Common) -> anyhow::Result<Prepared> {
    let site = Site::new(&common.dir);
    let offer = site.offer()?;
    let mut old = None;
    if site.user_file(name).exists() {
        let user = site.user(name)?;
        if user.certified {
            if !common.again {
                return Err(usage(format!(
                    "{name} is invited already (ferry6 broker show {name}); a new invitation in place of the old: --again"
                )));
            }
            old = Some(site.ca().serial_of(&site.user_file(name))?);
        }
    }
    let ca = site.ca().load()?;
    let user = format!("{name}@{}", offer.domain);
    if let Some(at) = common.settings.over(OffsetDateTime::now_utc()) {
        return Err(usage(format!("--expires: {at} is over already, and {name} would never get in")));
    }
    let settings = common.settings.resolved(&site, &user)?;
    let prefix = settings::prefix_of(&site, &user, |s| settings.apply(s))?;
    let identity = format!("email:{user}");
    let profile = Profile {
        common_name: name.to_owned(),
        names: vec![identity.parse::<Name>()?],
        validity: Validity::days(common.days)?,
        ..Profile::new(name)?
    };
    Ok(Prepared { site, offer, ca, user, settings, prefix, profile, old })
}

impl Prepared {
    /// Remembers the new certificate, and revokes the one that it replaces.
    fn record(
        &self,
        name: &str,
        certificate: &rustls_pki_types::CertificateDer<'_>,
        chain: &str,
    ) -> anyhow::Result<()> {
        self.site.ca().record_issued(certificate)?;
        super::make_directory(&self.site.users_directory(), 0o755)?;
        if self.settings.any() {
            settings::change(&self.site, &self.user, |s| self.settings.apply(s))?;
        }
        write_public(&self.site.user_file(name), chain.as_bytes())?;
        if let Some(serial) = &self.old {
            super::users::revoke_serial(&self.site, serial, crate::pki::Revocation::Superseded)?;
            eprintln!("the former invitation of {name} was revoked");
        }
        Ok(())
    }

    fn invitation(&self, name: &str, cert: String, key: Option<String>) -> Invitation {
        Invitation {
            ferry6: Invitation::VERSION,
            name: name.to_owned(),
            broker: self.offer.address.clone(),
            broker_id: self.offer.identity.clone(),
            port: self.offer.port,
            nat_port: self.offer.nat_port,
            prefix: self.prefix.map(|p| p.to_string()),
            ca: self.ca.certificates_pem(),
            cert,
            key,
        }
    }
}

/// Invites a user.
///
/// # Errors
/// No broker in the directory, a user who is there already, or a file that cannot be written.
pub fn invite(args: &InviteArgs) -> anyhow::Result<ExitCode> {
    let name = &args.name;
    let client = args.client;
    if args.qr && client != Client::Ferry6 {
        return Err(usage("--qr is for ferry6's own invitations: leave --for away, or --qr"));
    }
    let target = Target::of(args.out.as_deref(), name, client)?;
    let prepared = prepare(name, &args.common)?;
    let issued: Credential = prepared.ca.issue(&prepared.profile)?;
    let chain = issued.certificates_pem();
    let invitation = prepared.invitation(name, chain.clone(), Some(issued.key_pem.to_string()));
    // What cannot be made leaves no user behind.
    let profile = match client {
        Client::Ferry6 | Client::Strongswan => None,
        Client::Android => Some(profiles::android(&invitation)?),
        Client::Apple => Some(profiles::apple(&invitation)?),
    };
    let record = || prepared.record(name, &issued.certificate, &chain);
    if let Target::Swanctl(directory) = &target {
        swanctl::write(directory, &invitation).and_then(|()| record()).inspect_err(|_| target.take_back())?;
        println!(
            "wrote {}: copy its content into /etc/swanctl of {name}'s machine, then swanctl --load-all",
            directory.display()
        );
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(profile) = profile {
        target.write(&profile.text)?;
        record().inspect_err(|_| target.take_back())?;
        target.tell_profile(&invitation, &profile.password);
        return Ok(ExitCode::SUCCESS);
    }
    let text = Zeroizing::new(invitation.to_text()?);
    target.write(&text)?;
    record().inspect_err(|_| target.take_back())?;
    if args.qr {
        show_qr(&text)?;
    }
    target.tell(&prepared, &invitation, &format!("&& sudo ferry6 client up {name}"));
    Ok(ExitCode::SUCCESS)
}

/// Signs a user's request.
///
/// # Errors
/// As [`invite`], or a request that is none.
pub fn sign(args: &SignArgs) -> anyhow::Result<ExitCode> {
    let name = &args.name;
    let target = Target::of(args.out.as_deref(), name, Client::Ferry6)?;
    let request = crate::files::read_text(&args.request)
        .with_context(|| format!("cannot read {}", args.request.display()))?;
    let prepared = prepare(name, &args.common)?;
    let (certificate, chain) = prepared
        .ca
        .sign(&prepared.profile, &request)
        .map_err(|e| usage(format!("{}: {e}", args.request.display())))?;
    let invitation = prepared.invitation(name, chain.clone(), None);
    target.write(&invitation.to_text()?)?;
    prepared.record(name, &certificate, &chain).inspect_err(|_| target.take_back())?;
    target.tell(&prepared, &invitation, "--name THE-NAME-OF-THE-REQUEST");
    Ok(ExitCode::SUCCESS)
}

enum Target {
    File(PathBuf),
    Output,
    Swanctl(PathBuf),
}

impl Target {
    /// Refuses what stands in the way before anything is made.
    fn of(out: Option<&Path>, name: &str, client: Client) -> anyhow::Result<Self> {
        let directory = client == Client::Strongswan;
        let path = match out {
            Some(path) if path == Path::new("-") && directory => {
                return Err(usage("an invitation for strongSwan is a directory: name one with --out"));
            }
            Some(path) if path == Path::new("-") => return Ok(Self::Output),
            Some(path) => path.to_owned(),
            None => PathBuf::from(match client {
                Client::Ferry6 => format!("{name}.ferry6"),
                Client::Strongswan => name.to_owned(),
                Client::Android => format!("{name}.sswan"),
                Client::Apple => format!("{name}.mobileconfig"),
            }),
        };
        if path.symlink_metadata().is_ok() {
            return Err(usage(format!(
                "{} exists: remove it, or choose another name with --out",
                path.display()
            )));
        }
        Ok(if directory { Self::Swanctl(path) } else { Self::File(path) })
    }

    /// Says what was written, and what the user does with it; `rest` ends that command.
    fn tell(&self, prepared: &Prepared, invitation: &Invitation, rest: &str) {
        let Self::File(path) = self else { return };
        let until = invitation.valid_until();
        println!("wrote {} for {}, valid until {until}", path.display(), prepared.profile.names[0]);
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        println!("there:  sudo ferry6 client join {file} {rest}");
    }

    /// On standard error where the profile itself goes to standard output.
    fn tell_profile(&self, invitation: &Invitation, password: &str) {
        let tell = |line: String| match self {
            Self::Output => eprintln!("{line}"),
            _ => println!("{line}"),
        };
        if let Self::File(path) = self {
            tell(format!(
                "wrote {} for {}, valid until {}",
                path.display(),
                invitation.name,
                invitation.valid_until()
            ));
        }
        tell(format!("its import asks for a password, which is kept nowhere: {password}"));
    }

    /// The user is not invited after all: [`Self::of`] saw that nothing was there before.
    fn take_back(&self) {
        let _ = match self {
            Self::File(path) => std::fs::remove_file(path),
            Self::Swanctl(directory) => std::fs::remove_dir_all(directory),
            Self::Output => Ok(()),
        };
    }

    fn write(&self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::File(path) => write_secret(path, text.as_bytes()),
            Self::Output => std::io::stdout().write_all(text.as_bytes()).context("standard output"),
            Self::Swanctl(_) => Ok(()),
        }
    }
}

/// On standard error, so that `--out - --qr` gives both.
fn show_qr(text: &str) -> anyhow::Result<()> {
    // Comments are for people.
    let compact: Zeroizing<String> =
        Zeroizing::new(text.lines().filter(|l| !l.starts_with('#')).flat_map(|l| [l, "\n"]).collect());
    let Ok(code) = QrCode::with_error_correction_level(compact.as_bytes(), EcLevel::L) else {
        bail!("the invitation is too long for a QR code ({} octets): hand the file over", compact.len());
    };
    // Dark on light, whatever the terminal's colours are.
    let image = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    eprintln!("{image}");
    Ok(())
}
