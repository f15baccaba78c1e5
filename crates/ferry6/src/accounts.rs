//! What each user's tunnels carried, by month, kept across restarts in the store of the leases.
//!
//! The router tells what each tunnel carried in all ([`RouterEvent::Carried`]) and how far the others are
//! ([`RouterHandle::traffic`]). Here the differences go to the user's account; once a minute, and soon after the end of a tunnel,
//! they are written. So a crash loses a minute at most, and an orderly end nothing.
//!
//! [`RouterEvent::Carried`]: ferry6_tun_router::RouterEvent::Carried

use crate::leases::Leases;
use crate::leases::identity_text;
use ferry6_ike::event::{Closed, Established, IkeSaId};
use ferry6_tun_router::RouterHandle;
use ferry6_tun_router::status::Traffic;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// Identity and month to the eight numbers of [`Counts`].
const USAGE: TableDefinition<'_, (&str, u32), [u64; 8]> = TableDefinition::new("usage-v1");

/// How often the accounts are brought up to date.
const INTERVAL: Duration = Duration::from_secs(60);
/// How soon after the end of a tunnel: many may end at once, and are written together.
const SOON: Duration = Duration::from_secs(5);
/// Accounts that are written in one transaction: the store has one writer, and a new tunnel's lease must not wait long.
const BATCH: usize = 1000;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Inner packets and octets: `in` is from the user, `out` to the user.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Times that the user came; a tunnel that takes the place of another of the same user does not count.
    pub sessions: u64,
    /// Seconds with at least one tunnel.
    pub seconds: u64,
    /// Seconds since 1970 when there was a tunnel first.
    pub first_seen: u64,
    /// And last.
    pub last_seen: u64,
}

impl Counts {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.traffic.add(other.traffic);
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.seconds = self.seconds.saturating_add(other.seconds);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.first_seen = match (self.first_seen, other.first_seen) {
            (0, first) | (first, 0) => first,
            (one, another) => one.min(another),
        };
    }

    fn stored(&self) -> [u64; 8] {
        let t = &self.traffic;
        [
            t.packets_in,
            t.bytes_in,
            t.packets_out,
            t.bytes_out,
            self.sessions,
            self.seconds,
            self.first_seen,
            self.last_seen,
        ]
    }

    fn of_store(numbers: [u64; 8]) -> Self {
        let [packets_in, bytes_in, packets_out, bytes_out, sessions, seconds, first_seen, last_seen] =
            numbers;
        let traffic = Traffic { packets_in, bytes_in, packets_out, bytes_out };
        Self { traffic, sessions, seconds, first_seen, last_seen }
    }
}

/// A month of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month(u32);

impl Month {
    /// The month of a time.
    pub fn of(time: SystemTime) -> Self {
        let time = OffsetDateTime::from(time);
        // A clock before year 0 is as wrong as one that says 0.
        let year = u32::try_from(time.year()).unwrap_or(0);
        Self(year * 12 + u32::from(u8::from(time.month())) - 1)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

impl std::str::FromStr for Month {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("expected a month like \"2026-01\", found {text:?}");
        let (year, month) = text.split_once('-').ok_or_else(fault)?;
        let (year, month): (u16, u32) =
            (year.parse().map_err(|_| fault())?, month.parse().map_err(|_| fault())?);
        let month = month.checked_sub(1).filter(|m| *m < 12).ok_or_else(fault)?;
        Ok(Self(u32::from(year) * 12 + month))
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

impl TryFrom<String> for Month {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A user's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The identity.
    pub identity: String,
    /// Whether there is a tunnel now.
    pub online: bool,
    /// By month, the oldest first.
    pub months: BTreeMap<Month, Counts>,
}

impl Usage {
    /// All months together.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.months.values().for_each(|month| total.add(month));
        total
    }
}

/// Reads all accounts, or one.
///
/// # Errors
/// The store cannot be read.
pub fn read(store: &Database, identity: Option<&str>) -> Result<Vec<Usage>, redb::Error> {
    let table = match store.begin_read()?.open_table(USAGE) {
        Ok(table) => table,
        // Nothing was ever written.
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut list: Vec<Usage> = Vec::new();
    let mut take = |key: (&str, u32), value: [u64; 8]| {
        if list.last().is_none_or(|last| last.identity != key.0) {
            list.push(Usage { identity: key.0.to_owned(), online: false, months: BTreeMap::new() });
        }
        if let Some(last) = list.last_mut() {
            last.months.insert(Month(key.1), Counts::of_store(value));
        }
    };
    let entries = match identity {
        Some(identity) => table.range((identity, 0)..=(identity, u32::MAX))?,
        None => table.iter()?,
    };
    for entry in entries {
        let (key, value) = entry?;
        take(key.value(), value.value());
    }
    Ok(list)
}

fn write(store: &Database, batch: &[((String, Month), Counts)]) -> Result<(), redb::Error> {
    let transaction = store.begin_write()?;
    {
        let mut table = transaction.open_table(USAGE)?;
        for ((identity, month), counts) in batch {
            let key = (identity.as_str(), month.0);
            let mut sum = table.get(key)?.map(|old| Counts::of_store(old.value())).unwrap_or_default();
            sum.add(counts);
            table.insert(key, sum.stored())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// A tunnel that stands, or that the router has not told of for the last time.
struct Session {
    who: Arc<str>,
    /// What of it is on the account.
    counted: Traffic,
    /// It is gone, and what it carried comes yet.
    closed: bool,
}

/// A user who is there.
struct Online {
    tunnels: usize,
    /// Until when the time is on the account.
    counted: Instant,
}

/// The accounts of a running broker.
pub struct Accounts {
    store: Arc<Database>,
    sessions: HashMap<IkeSaId, Session>,
    online: HashMap<Arc<str>, Online>,
    /// What is not written yet.
    pending: BTreeMap<(String, Month), Counts>,
    due: Instant,
    clock: fn() -> SystemTime,
}

impl Accounts {
    /// In the store of the leases.
    pub fn new(leases: &Leases) -> Self {
        Self::with_clock(leases.store(), SystemTime::now)
    }

    fn with_clock(store: Arc<Database>, clock: fn() -> SystemTime) -> Self {
        let due = Instant::now() + INTERVAL;
        Self { store, sessions: HashMap::new(), online: HashMap::new(), pending: BTreeMap::new(), due, clock }
    }

    /// Waits until [`Self::settle`] is due.
    pub async fn wait(&self) {
        tokio::time::sleep_until(self.due.into()).await;
    }

    /// A tunnel came up.
    pub fn established(&mut self, up: &Established) {
        self.opened(up.ike, identity_text(&up.remote_id).into(), Instant::now());
    }

    fn opened(&mut self, ike: IkeSaId, who: Arc<str>, now: Instant) {
        let session = Session { who: Arc::clone(&who), counted: Traffic::default(), closed: false };
        if self.sessions.insert(ike, session).is_some() {
            return;
        }
        let online = self.online.entry(Arc::clone(&who)).or_insert(Online { tunnels: 0, counted: now });
        online.tunnels += 1;
        let sessions = u64::from(online.tunnels == 1);
        self.book(&who, Counts { sessions, ..Counts::default() });
    }

    /// A tunnel is gone; what it carried is told by [`Self::carried`] yet.
    pub fn closed(&mut self, closed: &Closed) {
        self.left(closed.ike, Instant::now());
    }

    fn left(&mut self, ike: IkeSaId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&ike).filter(|s| !s.closed) else { return };
        session.closed = true;
        let who = Arc::clone(&session.who);
        self.count_time(now, Some(&who));
        if let Some(online) = self.online.get_mut(&who) {
            online.tunnels -= 1;
            if online.tunnels == 0 {
                self.online.remove(&who);
            }
        }
        self.due = self.due.min(now + SOON);
    }

    /// What a tunnel carried in all.
    pub fn carried(&mut self, ike: IkeSaId, traffic: Traffic) {
        self.left(ike, Instant::now());
        let Some(session) = self.sessions.remove(&ike) else { return };
        let more = traffic.since(session.counted);
        self.book(&session.who, Counts { traffic: more, ..Counts::default() });
    }

    /// Brings the accounts up to date, and writes them.
    pub async fn settle(&mut self, handle: &RouterHandle) {
        // Without a router there is nothing new.
        let traffic = handle.traffic().await.unwrap_or_default();
        self.count(Instant::now(), traffic);
        self.write();
    }

    fn count(&mut self, now: Instant, traffic: Vec<(IkeSaId, Traffic)>) {
        self.due = now + INTERVAL;
        for (ike, traffic) in traffic {
            let Some(session) = self.sessions.get_mut(&ike) else { continue };
            let more = traffic.since(session.counted);
            session.counted = traffic;
            if more != Traffic::default() {
                let who = Arc::clone(&session.who);
                self.book(&who, Counts { traffic: more, ..Counts::default() });
            }
        }
        self.count_time(now, None);
    }

    /// The time that users were there, of all or of one.
    fn count_time(&mut self, now: Instant, of: Option<&str>) {
        let mut booked = Vec::new();
        let mut one = |who: &Arc<str>, online: &mut Online| {
            // Whole seconds; the rest is for the next time.
            let seconds = now.saturating_duration_since(online.counted).as_secs();
            online.counted += Duration::from_secs(seconds);
            booked.push((Arc::clone(who), seconds));
        };
        match of {
            Some(who) => {
                if let Some(online) = self.online.get_mut(who) {
                    one(&who.into(), online);
                }
            }
            None => self.online.iter_mut().for_each(|(who, online)| one(who, online)),
        }
        for (who, seconds) in booked {
            self.book(&who, Counts { seconds, ..Counts::default() });
        }
    }

    fn book(&mut self, who: &str, mut counts: Counts) {
        let time = (self.clock)();
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        (counts.first_seen, counts.last_seen) = (seconds, seconds);
        self.pending.entry((who.to_owned(), Month::of(time))).or_default().add(&counts);
    }

    /// Writes what is not written yet. What cannot be written is kept, and tried again.
    pub fn write(&mut self) {
        let pending: Vec<_> = std::mem::take(&mut self.pending).into_iter().collect();
        for (n, batch) in pending.chunks(BATCH).enumerate() {
            if let Err(error) = write(&self.store, batch) {
                tracing::warn!("the users' accounts were not written, which is tried again: {error}");
                self.pending = pending[n * BATCH..].iter().cloned().collect();
                return;
            }
        }
    }

    /// All accounts, or one, as they are written.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn usage(&self, identity: Option<&str>) -> Result<Vec<Usage>, redb::Error> {
        let mut list = read(&self.store, identity)?;
        for usage in &mut list {
            usage.online = self.online.contains_key(usage.identity.as_str());
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;

    fn store() -> Arc<Database> {
        Arc::new(Database::builder().create_with_backend(InMemoryBackend::new()).unwrap())
    }

    fn november() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_000_000)
    }

    fn december() -> SystemTime {
        november() + Duration::from_secs(20 * 86_400)
    }

    fn traffic(n: u64) -> Traffic {
        Traffic { packets_in: n, bytes_in: 100 * n, packets_out: 2 * n, bytes_out: 1000 * n }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn months() {
        assert_eq!(Month::of(november()).to_string(), "2026-11");
        assert_eq!(Month::of(december()).to_string(), "2026-12");
        assert_eq!("2026-11".parse(), Ok(Month::of(november())));
        for wrong in ["2026", "2026-0", "2026-13", "-1-1", "99999-01", "2026-1-1"] {
            assert!(wrong.parse::<Month>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_tunnels_carry_adds_up_across_months_and_restarts() {
        let store = store();
        let start = Instant::now();
        let mut accounts = Accounts::with_clock(Arc::clone(&store), november);
        assert!(accounts.usage(None).unwrap().is_empty());
        accounts.opened(IkeSaId(1), "alice@my.domain".into(), start);
        accounts.count(start + seconds(60), vec![(IkeSaId(1), traffic(10)), (IkeSaId(7), traffic(5))]);
        accounts.write();
        // A second tunnel takes the place of the first one: one session, one time.
        accounts.opened(IkeSaId(2), "alice@my.domain".into(), start + seconds(80));
        accounts.left(IkeSaId(1), start + seconds(90));
        accounts.carried(IkeSaId(1), traffic(12));
        accounts.count(start + seconds(100), vec![(IkeSaId(2), traffic(1))]);
        accounts.write();
        let usage = accounts.usage(Some("alice@my.domain")).unwrap();
        assert_eq!(usage.len(), 1);
        assert!(usage[0].online);
        let total = usage[0].total();
        assert_eq!(
            (total.traffic, total.sessions, total.seconds, total.last_seen),
            (traffic(13), 1, 100, 1_795_000_000)
        );
        drop(accounts);

        let mut accounts = Accounts::with_clock(Arc::clone(&store), december);
        assert!(!accounts.usage(None).unwrap()[0].online);
        accounts.opened(IkeSaId(1), "alice@my.domain".into(), start);
        accounts.opened(IkeSaId(2), "bob@my.domain".into(), start);
        accounts.left(IkeSaId(1), start + seconds(3));
        accounts.carried(IkeSaId(1), traffic(4));
        accounts.write();
        let usage = accounts.usage(None).unwrap();
        let names: Vec<_> = usage.iter().map(|u| (u.identity.as_str(), u.online)).collect();
        assert_eq!(names, [("alice@my.domain", false), ("bob@my.domain", true)]);
        let alice = &usage[0];
        let months: Vec<_> = alice.months.iter().map(|(m, c)| (m.to_string(), c.traffic)).collect();
        assert_eq!(months, [("2026-11".to_owned(), traffic(13)), ("2026-12".to_owned(), traffic(4))]);
        assert_eq!((alice.total().sessions, alice.total().seconds), (2, 103));
        // What nobody opened is nobody's.
        accounts.carried(IkeSaId(99), traffic(1000));
        assert!(accounts.pending.is_empty());
    }

    #[test]
    fn its_json_is_read_back() {
        let mut months = BTreeMap::new();
        months
            .insert(Month::of(november()), Counts { traffic: traffic(1), sessions: 1, ..Counts::default() });
        let usage = Usage { identity: "alice@my.domain".to_owned(), online: true, months };
        let text = serde_json::to_string(&usage).unwrap();
        assert!(text.contains("\"2026-11\":{\"packets_in\":1,\"bytes_in\":100,"), "{text}");
        assert_eq!(serde_json::from_str::<Usage>(&text).unwrap(), usage);
    }
}
