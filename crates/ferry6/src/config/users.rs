//! `users.toml` beside `broker.toml`: what is set for single users by `ferry6 broker set`, `disable` and `enable`, or by hand.
//!
//! It is read with the configuration, and so by `ferry6 reload`, too. Who does not stand in it is let in as the configuration says.

use super::Pool;
use super::prefixes::{self, Owners};
use super::reader::{Document, Section};
use super::values;
use crate::cli::UsageError;
use crate::pki::store::parse_time;
use ferry6_ike::config::Barred;
use ferry6_ike::{Identity, Prefix6};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The file's name.
pub const FILE: &str = "users.toml";

const HEADER: &str = "\
# What is set for single users; `ferry6 broker set`, `disable` and `enable` write it, and keep no comments.
# By hand: docs/users.md tells the keys, then `ferry6 reload`.
";

/// What is set for one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSettings {
    /// Whether the user is switched off.
    pub disabled: bool,
    /// Why, for the log and for whoever asks.
    pub reason: Option<String>,
    /// From when on the user is not let in.
    pub expires: Option<OffsetDateTime>,
    /// The address that the user gets.
    pub address: Option<Ipv6Addr>,
    /// The prefix that is routed to the user.
    pub prefix: Option<Prefix6>,
}

impl UserSettings {
    /// Why the user is not let in at this time.
    pub fn barred(&self, now: OffsetDateTime) -> Option<String> {
        if self.disabled {
            return Some(match &self.reason {
                Some(reason) => format!("the user is disabled: {reason}"),
                None => "the user is disabled".to_owned(),
            });
        }
        let expires = self.expires.filter(|at| *at <= now)?;
        Some(format!("the user's time was over at {}", shown_time(expires)))
    }
}

/// What is set for all users, by their identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<Identity, UserSettings>);

impl Users {
    /// The file beside a broker's configuration.
    pub fn file(configuration: &Path) -> PathBuf {
        configuration.with_file_name(FILE)
    }

    /// Reads the file; nothing is set for anybody where there is none.
    ///
    /// # Errors
    /// Every fault of the file at once, each with file, line, column and key.
    pub fn read(path: &Path) -> Result<Self, UsageError> {
        if path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            return Ok(Self::default());
        }
        Self::of(&Document::open(path)?)
    }

    /// Reads a document that is in memory already.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of(document: &Document) -> Result<Self, UsageError> {
        document.read(|root| {
            let mut users = BTreeMap::new();
            for section in root.sections("user") {
                let id = section.require(
                    "id",
                    section.parsed("id", "an identity", values::identity),
                    "the user's identity, for example \"alice@my.domain\"",
                );
                let settings = read_user(&section);
                section.finish();
                let Some(id) = id else { continue };
                if users.insert(id.value.clone(), settings).is_some() {
                    document.problem(&id, format!("a second [[user]] for {}", id.value));
                }
            }
            Some(Self(users))
        })
    }

    /// What is set for a user.
    pub fn get(&self, identity: &Identity) -> Option<&UserSettings> {
        self.0.get(identity)
    }

    /// Sets it.
    pub fn set(&mut self, identity: Identity, settings: UserSettings) {
        if settings == UserSettings::default() {
            self.0.remove(&identity);
        } else {
            self.0.insert(identity, settings);
        }
    }

    /// The same with a change for one user.
    pub fn changed(&self, identity: &Identity, change: impl FnOnce(&mut UserSettings)) -> Self {
        let mut settings = self.get(identity).cloned().unwrap_or_default();
        change(&mut settings);
        let mut new = self.clone();
        new.set(identity.clone(), settings);
        new
    }

    /// All users for whom something is set.
    pub fn iter(&self) -> impl Iterator<Item = (&Identity, &UserSettings)> {
        self.0.iter()
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut out = HEADER.to_owned();
        // A string as TOML writes it.
        let quoted = |text: &str| toml::Value::from(text).to_string();
        for (identity, settings) in &self.0 {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "\n[[user]]\nid = {}", quoted(&identity.to_string()));
            let UserSettings { disabled, reason, expires, address, prefix } = settings;
            if *disabled {
                let _ = writeln!(out, "disabled = true");
            }
            if let Some(reason) = reason {
                let _ = writeln!(out, "reason = {}", quoted(reason));
            }
            if let Some(expires) = expires {
                let _ = writeln!(out, "expires = {}", quoted(&shown_time(*expires)));
            }
            if let Some(address) = address {
                let _ = writeln!(out, "address = {}", quoted(&address.to_string()));
            }
            if let Some(prefix) = prefix {
                let _ = writeln!(out, "prefix = {}", quoted(&prefix.to_string()));
            }
        }
        out
    }

    /// Those that are not let in at this time.
    pub fn barred(&self, now: SystemTime) -> Barred {
        let now = OffsetDateTime::from(now);
        Arc::new(self.0.iter().filter_map(|(who, s)| Some((who.clone(), s.barred(now)?))).collect())
    }

    /// How long until the next one's time is over.
    pub fn next_expiry(&self, now: SystemTime) -> Option<Duration> {
        let now = OffsetDateTime::from(now);
        let later = self.0.values().filter_map(|s| s.expires).filter(|at| *at > now);
        later.min().map(|at| (at - now).unsigned_abs())
    }

    /// Addresses and prefixes that are set here are fixed in every pool.
    ///
    /// # Errors
    /// What contradicts the configuration.
    pub(super) fn fix(&self, pools: &mut BTreeMap<String, Pool>) -> Result<(), String> {
        let mut owners = Owners::of(pools.values());
        for (identity, settings) in &self.0 {
            if let Some(address) = settings.address {
                check_address(identity, address, pools, &owners)?;
                for pool in pools.values_mut() {
                    pool.fixed.insert(identity.clone(), address);
                }
                owners.add_address(identity, address);
            }
            if let Some(prefix) = settings.prefix {
                check_prefix(identity, prefix, pools, &owners)?;
                for pool in pools.values_mut() {
                    pool.fixed_prefixes.insert(identity.clone(), prefix);
                }
                owners.add_prefix(identity, prefix);
            }
        }
        // With all of them in place: none has an address in a prefix of another.
        let pools: Vec<&Pool> = pools.values().collect();
        for pool in &pools {
            for (identity, address) in &pool.fixed {
                let own = pool.fixed_prefixes.get(identity);
                let anothers = |other: &&Pool| prefixes::anothers(other, &owners, identity, own, *address);
                if let Some(text) = pools.iter().find_map(anothers) {
                    return Err(text);
                }
            }
        }
        Ok(())
    }

    /// What is not as it was before, a line each.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let mut list = Vec::new();
        let ids: std::collections::BTreeSet<_> = before.0.keys().chain(self.0.keys()).collect();
        let nothing = UserSettings::default();
        for id in ids {
            let was = before.0.get(id).unwrap_or(&nothing);
            let is = self.0.get(id).unwrap_or(&nothing);
            if was.disabled != is.disabled {
                list.push(format!("~ user {id}: {}", if is.disabled { "disabled" } else { "enabled" }));
            } else if is.disabled && was.reason != is.reason {
                list.push(format!("~ user {id}: another reason"));
            }
            let mut told = |what: &str, was: Option<String>, is: Option<String>, none: &str| {
                if was != is {
                    let show = |value: Option<String>| value.unwrap_or_else(|| none.to_owned());
                    list.push(format!("~ user {id}: {what} {} -> {}", show(was), show(is)));
                }
            };
            told("expires", was.expires.map(shown_time), is.expires.map(shown_time), "never");
            let text = |value: &dyn ToString| value.to_string();
            let address = |s: &UserSettings| s.address.as_ref().map(|a| text(a));
            told("address", address(was), address(is), "of the pool");
            let prefix = |s: &UserSettings| s.prefix.as_ref().map(|p| text(p));
            told("prefix", prefix(was), prefix(is), "none of its own");
        }
        list
    }
}

fn read_user(section: &Section<'_>) -> UserSettings {
    UserSettings {
        disabled: section.flag("disabled").is_some_and(|f| f.value),
        reason: section.text("reason").map(|f| f.value),
        expires: section.parsed("expires", "a date like \"2026-12-31\"", parse_time).map(|f| f.value),
        address: section.parsed("address", "an IPv6 address", values::address6).map(|f| f.value),
        prefix: section.parsed("prefix", "an IPv6 prefix", str::parse::<Prefix6>).map(|f| f.value),
    }
}

/// What is set for one user must not be another's, nor something else of the same one.
fn check_address(
    identity: &Identity,
    address: Ipv6Addr,
    pools: &BTreeMap<String, Pool>,
    owners: &Owners,
) -> Result<(), String> {
    for pool in pools.values() {
        if let Some(other) = pool.fixed.get(identity).filter(|other| **other != address) {
            return Err(format!("{identity}: {address}, but {other} is fixed already, by broker.toml"));
        }
        if pool.ranges.iter().any(|r| r.anycast() == Some(address)) {
            return Err(format!(
                "{identity}: {address} is the subnet-router anycast address of a pool; take another"
            ));
        }
    }
    match owners.of_address(address).filter(|owner| *owner != identity) {
        Some(owner) => Err(format!("{identity}: {address} is {owner}'s already")),
        None => Ok(()),
    }
}

fn check_prefix(
    identity: &Identity,
    prefix: Prefix6,
    pools: &BTreeMap<String, Pool>,
    owners: &Owners,
) -> Result<(), String> {
    if let Some(text) = prefixes::fault(prefix) {
        return Err(format!("{identity}: {text}"));
    }
    for pool in pools.values() {
        if pool.fixed_prefixes.get(identity).is_some_and(|other| *other != prefix) {
            return Err(format!("{identity}: {prefix}, but another is fixed already, by broker.toml"));
        }
        if let Some(addresses) = pool.ranges.iter().find(|r| r.overlaps(prefix.into())) {
            return Err(format!("{identity}: {prefix} overlaps with the addresses of the pool, {addresses}"));
        }
    }
    match owners.of_prefix(prefix).filter(|other| *other != (prefix, identity)) {
        Some((theirs, owner)) => {
            Err(format!("{identity}: {prefix} overlaps with {theirs}, which is {owner}'s already"))
        }
        None => Ok(()),
    }
}

/// `2026-12-31`, or with the time of day where that is not midnight.
pub fn shown_time(time: OffsetDateTime) -> String {
    let whole = time.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(time);
    let text = whole.format(&Rfc3339).unwrap_or_default();
    text.strip_suffix("T00:00:00Z").map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Users, String> {
        Users::of(&Document::new("users.toml".into(), text.to_owned())).map_err(|e| e.0)
    }

    fn id(text: &str) -> Identity {
        values::identity(text).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut users = Users::default();
        assert_eq!(read(&users.text()).unwrap(), users);
        let all = UserSettings {
            disabled: true,
            reason: Some("lost her \"laptop\"\nand more".to_owned()),
            expires: Some(parse_time("2026-12-31").unwrap()),
            address: Some("2a00::142".parse().unwrap()),
            prefix: Some("2a00:0:0:1::/64".parse().unwrap()),
        };
        users.set(id("alice@my.domain"), all.clone());
        let late = parse_time("2027-01-31T12:30:00Z").unwrap();
        users.set(id("C=DE, CN=bob"), UserSettings { expires: Some(late), ..UserSettings::default() });
        assert_eq!(read(&users.text()).unwrap(), users);
        assert!(users.text().contains("expires = \"2026-12-31\"\n"), "{}", users.text());
        assert!(users.text().contains("expires = \"2027-01-31T12:30:00Z\"\n"), "{}", users.text());
        // Nothing set is nothing written.
        users.set(id("alice@my.domain"), UserSettings::default());
        assert_eq!(users.iter().count(), 1);
    }

    #[test]
    fn who_is_barred_and_when() {
        let users = read(
            "[[user]]\nid = \"alice@my.domain\"\nexpires = \"2026-12-31\"\n\
             [[user]]\nid = \"bob@my.domain\"\ndisabled = true\nreason = \"on holiday\"\n\
             [[user]]\nid = \"carol@my.domain\"\naddress = \"2a00::142\"\n",
        )
        .unwrap();
        let at = |text: &str| users.barred(parse_time(text).unwrap().into());
        let before = at("2026-12-30T23:59:59Z");
        assert_eq!(before.len(), 1);
        assert_eq!(before[&id("bob@my.domain")], "the user is disabled: on holiday");
        let after = at("2026-12-31");
        assert_eq!(after.len(), 2);
        let wait = |text: &str| users.next_expiry(parse_time(text).unwrap().into());
        assert_eq!(wait("2026-12-30"), Some(Duration::from_secs(86_400)));
        assert_eq!(wait("2026-12-31"), None);
        // The domain's case is no difference (RFC 5321).
        assert_eq!(after[&id("alice@MY.domain")], "the user's time was over at 2026-12-31");
    }

    #[test]
    fn faults_name_line_and_key() {
        for (text, wanted) in [
            ("[[user]]\nid = \"a@b.c\"\nexpires = \"soon\"\n", "users.toml:3:11: user.expires: not a date"),
            ("[[user]]\ndisabled = true\n", "user.id: missing: the user's identity"),
            ("[[user]]\nid = \"a@b.c\"\ndisable = true\n", "did you mean `disabled`?"),
            (
                "[[user]]\nid = \"a@b.c\"\n[[user]]\nid = \"a@B.c\"\n",
                "users.toml:4:6: user.id: a second [[user]] for a@B.c",
            ),
            ("[user]\nid = \"a@b.c\"\n", "expected tables [[user]]"),
            ("[[user]]\nid = \"a@b.c\"\nprefix = \"2a00::1/64\"\n", "did you mean \"2a00::/64\"?"),
        ] {
            let got = read(text).unwrap_err();
            assert!(got.contains(wanted), "wanted: {wanted}\n   got: {got}");
        }
    }

    #[test]
    fn changes_are_told() {
        let old = read("[[user]]\nid = \"a@b.c\"\n[[user]]\nid = \"d@e.f\"\ndisabled = true\n").unwrap();
        let new =
            read("[[user]]\nid = \"a@b.c\"\nexpires = \"2026-12-31\"\nprefix = \"2a00::/64\"\n").unwrap();
        assert_eq!(
            new.changes_since(&old),
            [
                "~ user a@b.c: expires never -> 2026-12-31",
                "~ user a@b.c: prefix none of its own -> 2a00::/64",
                "~ user d@e.f: enabled",
            ]
        );
        assert!(new.changes_since(&new).is_empty());
    }
}
