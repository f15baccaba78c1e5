//! `ferry6 broker list`, `show` and `revoke`.

use super::ask::Leases;
use super::site::{Site, Standing, User};
use super::{Place, ask};
use crate::config::users::shown_time;
use crate::config::values::show_octets;
use crate::control::{Request, connect};
use crate::pki::{Revocation, Validity};
use serde::Serialize;
use std::fmt::Write as _;
use std::process::ExitCode;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const LIST_EXAMPLES: &str = "\
Examples:
  ferry6 broker list
  ferry6 broker list --json | jq -r '.[] | select(.standing == \"valid\") | .name'";

const SHOW_EXAMPLES: &str = "\
Examples:
  ferry6 broker show alice";

const REVOKE_EXAMPLES: &str = "\
Examples:
  ferry6 broker revoke alice                        her tunnel is closed, and she does not come in again
  ferry6 broker revoke alice --reason key-compromise";

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
pub struct ListArgs {
    /// As a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `show`.
#[derive(Debug, clap::Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub struct ShowArgs {
    /// The user's name or identity.
    name: String,
    /// As a JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `revoke`.
#[derive(Debug, clap::Args)]
#[command(after_help = REVOKE_EXAMPLES)]
pub struct RevokeArgs {
    /// The user's name or identity.
    name: String,
    /// Why.
    #[arg(long, value_enum, default_value_t = Revocation::Unspecified)]
    reason: Revocation,
    #[command(flatten)]
    place: Place,
}

/// A user with what the running broker knows.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    user: User,
    /// The address that is kept for the user.
    address: Option<std::net::Ipv6Addr>,
    /// The prefix that is routed to the user, or kept for the user.
    prefix: Option<String>,
    /// Whether there is a tunnel now; absent where the broker does not run.
    online: Option<bool>,
    /// When a tunnel was last there, seconds since 1970.
    last_seen: Option<u64>,
}

/// Lists the users.
///
/// # Errors
/// No broker in the directory, or a file that cannot be read.
pub fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let site = args.place.site()?;
    let leases = ask::leases(&site);
    let rows: Vec<Row> = site.users()?.into_iter().map(|u| row(u, leases.as_ref().ok())).collect();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        println!("no users yet: ferry6 broker invite NAME");
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", table(&rows, OffsetDateTime::now_utc().unix_timestamp()));
    match leases {
        Ok(Leases { running: true, .. }) => {}
        Ok(_) => println!("\n(the broker does not run: nobody has a tunnel)"),
        Err(error) => println!("\n(who is online and the addresses are not known: {error:#})"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows one user.
///
/// # Errors
/// As [`list`], or no such user.
pub fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let site = args.place.site()?;
    let user = site.user(&args.name)?;
    let row = row(user, ask::leases(&site).as_ref().ok());
    if args.json {
        println!("{}", serde_json::to_string_pretty(&row)?);
        return Ok(ExitCode::SUCCESS);
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    println!("{}", row.user.name);
    println!("  identity    {}", row.user.identity);
    println!("  standing    {}", standing(&row.user));
    println!("  certificate until {}", date(row.user.valid_until));
    println!("  serial      {}", row.user.serial);
    println!("  address     {}", row.address.map_or_else(|| "none yet".to_owned(), |a| a.to_string()));
    if let Some(prefix) = &row.prefix {
        println!("  prefix      {prefix}");
    }
    println!("  tunnel      {}", seen(&row, now));
    println!("  carried     {}", carried(&site, &row.user));
    Ok(ExitCode::SUCCESS)
}

/// Revokes a user's certificate, and tells the running broker.
///
/// # Errors
/// No such user, or a file that cannot be written.
pub fn revoke(args: &RevokeArgs) -> anyhow::Result<ExitCode> {
    let site = args.place.site()?;
    let user = site.user(&args.name)?;
    let serial = site.ca().serial_of(&site.user_file(&user.name))?;
    let told = revoke_serial(&site, &serial, args.reason)?;
    let again = if user.standing == Standing::Revoked { " was revoked already" } else { " is revoked" };
    println!("{}{again}", user.name);
    if told {
        let request = Request::Down { which: Some(user.identity.clone()) };
        match connect::ask(&ask::socket(&site), &request) {
            Ok(_) => println!("the tunnel of {} is closed", user.identity),
            // There was none.
            Err(error) => tracing::debug!("{error:#}"),
        }
    } else {
        println!("the broker does not run: it will know at its next start");
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a certificate's revocation down, and has a running broker read it. False where none runs.
///
/// # Errors
/// A file that cannot be written, or a broker that refused.
pub(super) fn revoke_serial(site: &Site, serial: &[u8], reason: Revocation) -> anyhow::Result<bool> {
    let ca = site.ca();
    ca.record_revoked(serial, reason)?;
    ca.write_crl(OffsetDateTime::now_utc(), Validity::days(super::init::CRL_DAYS)?.not_after)?;
    ask::reload(site, "the revocation is written down")
}

fn row(user: User, leases: Option<&Leases>) -> Row {
    let lease = leases.and_then(|all| all.list.iter().find(|l| user.is(&l.identity)));
    Row {
        address: user.fixed_address.or(lease.map(|l| l.address)),
        prefix: user.fixed_prefix.clone().or(lease.and_then(|l| l.prefix.clone())),
        online: leases.filter(|l| l.running).map(|_| lease.is_some_and(|l| !l.ike.is_empty())),
        last_seen: lease.and_then(|l| l.last_used),
        user,
    }
}

/// What the user's tunnels carried in all.
fn carried(site: &Site, user: &User) -> String {
    match ask::usage(site, Some(&user.identity)) {
        Ok(accounts) => {
            let traffic = accounts.first().map(|a| a.total().traffic).unwrap_or_default();
            let (from, to) = (show_octets(traffic.bytes_in), show_octets(traffic.bytes_out));
            format!("{from} from the user, {to} to the user (ferry6 broker usage {})", user.name)
        }
        Err(error) => format!("not known: {error:#}"),
    }
}

/// `valid, until 2026-12-31`, `disabled: laptop lost`.
fn standing(user: &User) -> String {
    match (user.standing, &user.reason, user.expires) {
        (Standing::Disabled, Some(reason), _) => format!("disabled: {reason}"),
        (Standing::Valid | Standing::Expired, _, Some(at)) => {
            let at = OffsetDateTime::from_unix_timestamp(at).map(shown_time).unwrap_or_default();
            format!("{}, not let in from {at} on", user.standing)
        }
        (standing, ..) => standing.to_string(),
    }
}

fn table(rows: &[Row], now: i64) -> String {
    let width = rows.iter().map(|r| r.user.name.len()).max().unwrap_or(0).max(4);
    let address = |r: &Row| {
        let address = r.address.map_or_else(|| "-".to_owned(), |a| a.to_string());
        r.prefix.as_ref().map_or(address.clone(), |p| format!("{address} {p}"))
    };
    let room = rows.iter().map(|r| address(r).len()).max().unwrap_or(0).max(7);
    let mut out = String::new();
    let _ = writeln!(out, "{:<width$}  {:<room$}  {:<8} {:<11} tunnel", "user", "address", "", "until");
    for r in rows {
        let _ = writeln!(
            out,
            "{:<width$}  {:<room$}  {:<8} {:<11} {}",
            r.user.name,
            address(r),
            r.user.standing,
            date(r.user.until()),
            seen(r, now)
        );
    }
    out
}

fn seen(row: &Row, now: i64) -> String {
    match (row.online, row.last_seen) {
        (Some(true), _) => "up".to_owned(),
        (_, Some(time)) => {
            let ago = u64::try_from(now).unwrap_or(0).saturating_sub(time);
            format!("last seen {} ago", super::span(ago))
        }
        (Some(false), None) => "never seen".to_owned(),
        (None, None) => "-".to_owned(),
    }
}

fn date(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .map_or_else(|| "?".to_owned(), |t| t.split('T').next().unwrap_or_default().to_owned())
}
