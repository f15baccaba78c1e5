//! `ferry6 broker disable`, `enable` and `set`: what is set for single users, in `users.toml`.

use super::site::{Site, Standing};
use super::{Place, ask, usage};
use crate::config::users::{UserSettings, Users, shown_time};
use crate::config::{self, values};
use crate::exit;
use crate::leases;
use crate::pki::store::{parse_time, write_public};
use anyhow::Context as _;
use ferry6_ike::Prefix6;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::AccessFlags;
use std::fs::File;
use std::net::Ipv6Addr;
use std::process::ExitCode;
use time::OffsetDateTime;

const DISABLE_EXAMPLES: &str = "\
Examples:
  ferry6 broker disable alice                       her tunnel is closed, and she does not come in
  ferry6 broker disable alice --reason \"laptop lost\"
  ferry6 broker enable alice                        she does again";

const ENABLE_EXAMPLES: &str = "\
Examples:
  ferry6 broker enable alice";

const SET_EXAMPLES: &str = "\
Examples:
  ferry6 broker set alice --expires 2026-12-31      not let in from the start of that day on (UTC)
  ferry6 broker set alice --expires 90d             in 90 days
  ferry6 broker set alice --expires never           as long as her certificate is good
  ferry6 broker set alice --address 2a00::142       always this address
  ferry6 broker set alice --prefix auto             a prefix for the LAN behind her, out of pool.prefixes
  ferry6 broker set alice --prefix 2a00:0:0:1::/64  or this one";

/// Arguments of `disable`.
#[derive(Debug, clap::Args)]
#[command(after_help = DISABLE_EXAMPLES)]
pub struct DisableArgs {
    /// The user's name or identity.
    name: String,
    /// Why: for the broker's log and for `ferry6 broker show`; the user is not told.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `enable`.
#[derive(Debug, clap::Args)]
#[command(after_help = ENABLE_EXAMPLES)]
pub struct EnableArgs {
    /// The user's name or identity.
    name: String,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `set`.
#[derive(Debug, clap::Args)]
#[command(after_help = SET_EXAMPLES)]
pub struct SetArgs {
    /// The user's name or identity.
    name: String,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    place: Place,
}

/// What can be set.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Settings {
    /// From when on the user is not let in: a date (2026-12-31), a time (2026-12-31T12:00:00Z), from now on (90d, 12h), or `never`.
    #[arg(long, value_name = "WHEN", value_parser = parse_expiry)]
    expires: Option<Choice<OffsetDateTime>>,
    /// The address that the user gets, or `auto`: one of the pool.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    address: Option<Choice<Ipv6Addr>>,
    /// The prefix that is routed to the user: one by name, `auto` (a free one of pool.prefixes), or `none`.
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    prefix: Option<PrefixChoice>,
}

#[derive(Clone, Copy, Debug)]
enum PrefixChoice {
    /// A free one, as soon as it is known for whom.
    Auto,
    This(Option<Prefix6>),
}

/// A value, or none on purpose.
#[derive(Clone, Copy, Debug)]
struct Choice<T>(Option<T>);

fn parse_expiry(text: &str) -> Result<Choice<OffsetDateTime>, String> {
    if text == "never" {
        return Ok(Choice(None));
    }
    if let Ok(time) = parse_time(text) {
        return Ok(Choice(Some(time)));
    }
    let fault = || "not a date like 2026-12-31, a time like 2026-12-31T12:00:00Z, a while like 90d, or never";
    let while_ = values::duration(text).ok().filter(|d| !d.is_zero()).ok_or_else(fault)?;
    let at = OffsetDateTime::now_utc().checked_add(while_.try_into().map_err(|_| fault())?);
    let whole = at.and_then(|at| at.replace_nanosecond(0).ok());
    Ok(Choice(Some(whole.ok_or("that is too far away: never?")?)))
}

fn parse_address(text: &str) -> Result<Choice<Ipv6Addr>, String> {
    if text == "auto" { Ok(Choice(None)) } else { values::address6(text).map(|a| Choice(Some(a))) }
}

fn parse_prefix(text: &str) -> Result<PrefixChoice, String> {
    match text {
        "auto" => Ok(PrefixChoice::Auto),
        "none" => Ok(PrefixChoice::This(None)),
        text => text.parse().map(|p| PrefixChoice::This(Some(p))),
    }
}

impl Settings {
    /// Whether anything is to be set.
    pub(super) fn any(&self) -> bool {
        self.expires.is_some() || self.address.is_some() || self.prefix.is_some()
    }

    /// The time that `--expires` names, where that is over already.
    pub(super) fn over(&self, now: OffsetDateTime) -> Option<String> {
        let Choice(at) = self.expires?;
        at.filter(|at| *at <= now).map(shown_time)
    }

    /// Takes them over.
    pub(super) fn apply(&self, settings: &mut UserSettings) {
        if let Some(Choice(expires)) = self.expires {
            settings.expires = expires;
        }
        if let Some(Choice(address)) = self.address {
            settings.address = address;
        }
        if let Some(PrefixChoice::This(prefix)) = self.prefix {
            settings.prefix = prefix;
        }
    }

    /// With a free prefix in place of `auto`: the one that is set for the user already, else the one that is kept for the user,
    /// else the first free one.
    ///
    /// # Errors
    /// The broker has no prefixes to give, or none is free.
    pub(super) fn resolved(self, site: &Site, identity: &str) -> anyhow::Result<Self> {
        if !matches!(self.prefix, Some(PrefixChoice::Auto)) {
            return Ok(self);
        }
        let path = site.configuration();
        let broker = config::broker(&path)?;
        if broker.pools.values().all(|pool| pool.prefixes.is_empty()) {
            let text = "--prefix auto: there are no pool.prefixes in";
            return Err(usage(format!("{text} {} to take one from", path.display())));
        }
        let identity = values::identity(identity).map_err(anyhow::Error::msg)?;
        let known = broker.users.get(&identity).and_then(|s| s.prefix);
        let prefix = match known {
            Some(prefix) => Some(prefix),
            None => leases::free_prefix(&broker.pools, &ask::leases(site)?.list, &identity),
        };
        let prefix =
            prefix.with_context(|| format!("no prefix of pool.prefixes in {} is free", path.display()))?;
        Ok(Self { prefix: Some(PrefixChoice::This(Some(prefix))), ..self })
    }
}

/// Switches a user off.
///
/// # Errors
/// No such user, a file that cannot be written, or a running broker that refused.
pub fn disable(args: &DisableArgs) -> anyhow::Result<ExitCode> {
    let site = args.place.site()?;
    let user = site.user(&args.name)?;
    let online = ask::is_online(&site, &user);
    let changed = change(&site, &user.identity, |settings| {
        settings.disabled = true;
        settings.reason.clone_from(&args.reason);
    })?;
    let tunnel = match online {
        Some(true) => ": the tunnel is closed",
        Some(false) => ", and has no tunnel now",
        None => "",
    };
    println!("{} is disabled{tunnel}", user.name);
    changed.tell();
    Ok(ExitCode::SUCCESS)
}

/// Switches a user on.
///
/// # Errors
/// As [`disable`].
pub fn enable(args: &EnableArgs) -> anyhow::Result<ExitCode> {
    let site = args.place.site()?;
    let user = site.user(&args.name)?;
    let was = user.standing == Standing::Disabled;
    let changed = change(&site, &user.identity, |settings| {
        settings.disabled = false;
        settings.reason = None;
    })?;
    println!("{} {}", user.name, if was { "is enabled" } else { "was not disabled" });
    changed.tell();
    let still = site.user(&args.name)?.standing;
    match still {
        Standing::Valid | Standing::Disabled => {}
        Standing::Expired => {
            println!("but expired: ferry6 broker set {} --expires WHEN, or invite --again", user.name)
        }
        Standing::Revoked => {
            println!("but revoked: ferry6 broker invite {} makes a new certificate", user.name)
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sets what is asked for.
///
/// # Errors
/// As [`disable`], or nothing to set.
pub fn set(args: &SetArgs) -> anyhow::Result<ExitCode> {
    if !args.settings.any() {
        return Err(usage("nothing to set: --expires, --address or --prefix"));
    }
    let site = args.place.site()?;
    let user = site.user(&args.name)?;
    let wanted = args.settings.resolved(&site, &user.identity)?;
    let changed = change(&site, &user.identity, |settings| wanted.apply(settings))?;
    if changed.lines.is_empty() {
        println!("{}: nothing changed", user.name);
    }
    for line in &changed.lines {
        println!("{line}");
    }
    changed.tell();
    if (args.settings.address.is_some() || args.settings.prefix.is_some())
        && ask::is_online(&site, &user) == Some(true)
    {
        println!("{}'s tunnel stands, and keeps what it has: the next one gets it", user.name);
    }
    Ok(ExitCode::SUCCESS)
}

/// Changes what is set for a user, and has a running broker read it. What the configuration contradicts is not written.
///
/// # Errors
/// A fault of the file or of the configuration, or a broker that refused.
pub(super) fn change(
    site: &Site,
    identity: &str,
    change: impl FnOnce(&mut UserSettings),
) -> anyhow::Result<Changed> {
    let identity = values::identity(identity).map_err(anyhow::Error::msg)?;
    let path = Users::file(&site.configuration());
    // Before its keys are read to see whether the configuration is right, which says less of what is wrong.
    if nix::unistd::access(site.directory(), AccessFlags::W_OK) == Err(Errno::EACCES) {
        return Err(exit::not_permitted(format!("{}: not permitted to write it; as root", path.display())));
    }
    let changes = {
        // Two commands at a time must not lose what one of them sets.
        let directory =
            File::open(site.directory()).with_context(|| site.directory().display().to_string())?;
        let _lock = Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, e)| e)
            .with_context(|| format!("cannot lock {}", site.directory().display()))?;
        let old = Users::read(&path)?;
        let new = old.changed(&identity, change);
        config::pools_with(&site.configuration(), &new)?;
        let changes = new.changes_since(&old);
        if !changes.is_empty() {
            write_public(&path, new.text().as_bytes())?;
        }
        changes
    };
    let known = changes.is_empty() || ask::reload(site, "it is written down")?;
    Ok(Changed { lines: changes, known })
}

/// What [`change`] did.
pub(super) struct Changed {
    lines: Vec<String>,
    /// A running broker knows of it.
    known: bool,
}

impl Changed {
    fn tell(&self) {
        if !self.known {
            println!("the broker does not run: it will know at its next start");
        }
    }
}

/// The prefix that is the user's by name after such a change, which the configuration allows.
///
/// # Errors
/// As [`change`].
pub(super) fn prefix_of(
    site: &Site,
    identity: &str,
    change: impl FnOnce(&mut UserSettings),
) -> anyhow::Result<Option<Prefix6>> {
    let identity = values::identity(identity).map_err(anyhow::Error::msg)?;
    let old = Users::read(&Users::file(&site.configuration()))?;
    let pools = config::pools_with(&site.configuration(), &old.changed(&identity, change))?;
    Ok(pools.values().find_map(|pool| pool.fixed_prefixes.get(&identity).copied()))
}
