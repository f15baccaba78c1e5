//! `ferry6 broker usage`: what the users' tunnels carried.

use super::site::Site;
use super::{Place, ask, usage as wrong};
use crate::accounts::{Counts, Month, Usage};
use crate::config::values::show_octets;
use crate::view::text::thousands;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use time::OffsetDateTime;

const EXAMPLES: &str = "\
Examples:
  ferry6 broker usage                               each user, since the beginning
  ferry6 broker usage --month 2026-11               in one month
  ferry6 broker usage alice                         one user, month by month
  ferry6 broker usage --json | jq -r '.[] | [.user, .total.bytes_out] | @tsv'";

/// Arguments of `usage`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct UsageArgs {
    /// The user's name or identity; all users without it.
    name: Option<String>,
    /// Only this month (UTC).
    #[arg(long, value_name = "YYYY-MM")]
    month: Option<Month>,
    /// As a JSON array: octets and packets of what was inside the tunnels, in from the user, out to the user.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// A user's account with the user's name.
#[derive(Debug, Serialize)]
struct Row {
    /// The name; the identity of one who is no user of this directory.
    user: String,
    identity: String,
    online: bool,
    total: Counts,
    months: BTreeMap<Month, Counts>,
}

/// Shows the accounts.
///
/// # Errors
/// No such user, no right to ask, or a store that cannot be read.
pub fn usage(args: &UsageArgs) -> anyhow::Result<ExitCode> {
    let site = Site::new(&args.place.dir);
    if !site.configuration().exists() {
        // It says what to do.
        site.offer()?;
    }
    let mut rows = rows(&site, args.month)?;
    if let Some(name) = &args.name {
        rows.retain(|row| row.user == *name || row.identity == *name);
        if rows.is_empty() {
            // Its message knows names that are near.
            let user = site.user(name).map_err(|error| wrong(error.to_string()))?;
            rows.push(Row::new(user.name, user.identity));
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(ExitCode::SUCCESS);
    }
    let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0);
    match (&args.name, &rows[..]) {
        (Some(_), [row]) => print!("{}", by_month(row, now)),
        (_, []) => println!("nobody was here yet"),
        (_, rows) => print!("{}", table(rows, now)),
    }
    Ok(ExitCode::SUCCESS)
}

impl Row {
    fn new(user: String, identity: String) -> Self {
        Self { user, identity, online: false, total: Counts::default(), months: BTreeMap::new() }
    }
}

/// All users, those who never came among them, and then others that have an account.
fn rows(site: &Site, month: Option<Month>) -> anyhow::Result<Vec<Row>> {
    let mut accounts = ask::usage(site, None)?;
    for account in &mut accounts {
        account.months.retain(|m, _| month.is_none_or(|wanted| wanted == *m));
    }
    let mut rows = Vec::new();
    for user in site.users()? {
        let at = accounts.iter().position(|a| user.is(&a.identity));
        let mut row = Row::new(user.name, user.identity);
        if let Some(at) = at {
            row.take(accounts.remove(at));
        }
        rows.push(row);
    }
    for account in accounts.into_iter().filter(|a| !a.months.is_empty()) {
        let mut row = Row::new(account.identity.clone(), account.identity.clone());
        row.take(account);
        rows.push(row);
    }
    Ok(rows)
}

impl Row {
    fn take(&mut self, account: Usage) {
        self.total = account.total();
        self.online = account.online;
        self.months = account.months;
    }
}

const HEAD: [&str; 6] = ["sessions", "connected", "from user", "to user", "packets", "last seen"];

fn cells(counts: &Counts, online: bool, now: u64) -> [String; 6] {
    let traffic = &counts.traffic;
    [
        counts.sessions.to_string(),
        if counts.seconds == 0 { "-".to_owned() } else { super::span(counts.seconds) },
        show_octets(traffic.bytes_in),
        show_octets(traffic.bytes_out),
        thousands(traffic.packets_in.wrapping_add(traffic.packets_out)),
        match counts.last_seen {
            _ if online => "up".to_owned(),
            0 => "never".to_owned(),
            at => format!("{} ago", super::span(now.saturating_sub(at))),
        },
    ]
}

/// Lines of cells, the first to the left, the others to the right.
fn lines(head: &str, rows: &[(String, [String; 6])]) -> String {
    let width = |n: usize| rows.iter().map(|r| r.1[n].len()).max().unwrap_or(0).max(HEAD[n].len());
    let first = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0).max(head.len());
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |name: &str, cells: &[&str]| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{name:<first$}");
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(out, "  {cell:>width$}");
        }
        out.push('\n');
    };
    line(head, &HEAD);
    for (name, cells) in rows {
        line(name, &cells.each_ref().map(String::as_str));
    }
    out
}

fn table(rows: &[Row], now: u64) -> String {
    let cells: Vec<_> =
        rows.iter().map(|row| (row.user.clone(), cells(&row.total, row.online, now))).collect();
    lines("user", &cells)
}

fn by_month(row: &Row, now: u64) -> String {
    let last = row.months.keys().next_back();
    let mut list: Vec<_> = row
        .months
        .iter()
        .map(|(month, counts)| (month.to_string(), cells(counts, row.online && Some(month) == last, now)))
        .collect();
    list.push(("total".to_owned(), cells(&row.total, row.online, now)));
    format!("{}  {}\n{}", row.user, row.identity, lines("month", &list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry6_tun_router::status::Traffic;

    #[test]
    fn tables_are_aligned() {
        let counts = |n: u64| Counts {
            traffic: Traffic { packets_in: n, bytes_in: n * 1000, packets_out: n, bytes_out: n * 1_000_000 },
            sessions: n,
            seconds: n * 3600,
            first_seen: 1_790_000_000,
            last_seen: 1_790_000_000 + n,
        };
        let mut alice = Row::new("alice".to_owned(), "alice@my.domain".to_owned());
        alice.months.insert("2026-10".parse().unwrap(), counts(1));
        alice.months.insert("2026-11".parse().unwrap(), counts(1234));
        alice.total = counts(1235);
        let now = 1_790_010_000;
        assert_eq!(
            by_month(&alice, now),
            "alice  alice@my.domain\n\
             month    sessions  connected  from user  to user  packets  last seen\n\
             2026-10         1     60 min     1.0 kB   1.0 MB        2    2 h ago\n\
             2026-11      1234    51 days     1.2 MB   1.2 GB    2,468    2 h ago\n\
             total        1235    51 days     1.2 MB   1.2 GB    2,470    2 h ago\n"
        );
        let bob = Row::new("bob".to_owned(), "bob@my.domain".to_owned());
        alice.online = true;
        assert_eq!(
            table(&[alice, bob], now),
            "user   sessions  connected  from user  to user  packets  last seen\n\
             alice      1235    51 days     1.2 MB   1.2 GB    2,470         up\n\
             bob           0          -        0 B      0 B        0      never\n"
        );
    }
}
