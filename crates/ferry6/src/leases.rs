//! The broker's leases of addresses and prefixes: by identity, durable, never two identities on one address.
//!
//! An identity keeps its address for as long as the store exists. Only when a pool is exhausted does the lease that has
//! been unused for longest go to somebody else; a lease in use never does.

mod prefixes;
mod store;

use crate::config::Pool;
use crate::config::values::Range6;
use crate::sandbox;
use ferry6_ike::config::{AddressPool, LeaseError, LeaseRequest};
use ferry6_ike::event::{IkeSaId, Lease};
use ferry6_ike::{Identity, Prefix6};
use prefixes::Prefixes;
use redb::{Database, Durability};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
pub use store::{FILE, StoreError, identity_text, open_store};

/// One lease, for `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The address.
    pub address: Ipv6Addr,
    /// The prefix that is kept for the same identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Whose it is.
    pub identity: String,
    /// Whether the configuration says so.
    pub fixed: bool,
    /// The IKE SAs that use it now.
    pub ike: Vec<u64>,
    /// Seconds since 1970 when it was last in use; now, if it is.
    pub last_used: Option<u64>,
}

/// The leases; clones share them.
#[derive(Clone)]
pub struct Leases(Arc<Mutex<State>>);

struct State {
    store: Arc<Database>,
    pools: BTreeMap<String, Arc<Pool>>,
    /// The broker's own addresses.
    own: Vec<Ipv6Addr>,
    /// Addresses that nobody gets: the broker's own, and subnet-router anycast addresses.
    reserved: BTreeSet<Ipv6Addr>,
    /// Fixed addresses of all pools.
    fixed: BTreeMap<Ipv6Addr, Identity>,
    by_identity: HashMap<Identity, Record>,
    by_address: BTreeMap<Ipv6Addr, Holder>,
    prefixes: Prefixes,
    /// What each IKE SA holds.
    active: HashMap<IkeSaId, Ipv6Addr>,
    /// By a range's first address: no address of the range below this one is free.
    hints: HashMap<Ipv6Addr, Ipv6Addr>,
    clock: fn() -> u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    address: Ipv6Addr,
    last_used: u64,
}

/// Whose an address is now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    identity: Identity,
    users: BTreeSet<IkeSaId>,
    /// A second address of the same identity, which is not remembered (`unique = "never"`).
    volatile: bool,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Leases {
    /// Opens the store in `state_dir` (made where missing). `own` are this machine's addresses, which are not leased.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(
        state_dir: &Path,
        pools: BTreeMap<String, Pool>,
        own: impl IntoIterator<Item = Ipv6Addr>,
    ) -> Result<Self, StoreError> {
        Self::open_with_clock(state_dir, pools, own, now)
    }

    fn open_with_clock(
        state_dir: &Path,
        pools: BTreeMap<String, Pool>,
        own: impl IntoIterator<Item = Ipv6Addr>,
        clock: fn() -> u64,
    ) -> Result<Self, StoreError> {
        use std::os::unix::fs::DirBuilderExt;
        let fault = |path: &Path, text: String| StoreError::Other { path: path.display().to_string(), text };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|e| fault(state_dir, format!("cannot make the directory: {e}; see state_dir")))?;
        let path = state_dir.join(FILE);
        let store = open_store(&path)?;
        let mut records =
            store::load(&store).map_err(|e| fault(&path, format!("cannot read the leases: {e}")))?;
        // Of two that had one address (it was fixed for the second for a while) the later one keeps it.
        records.sort_by_key(|(_, record)| Reverse(record.last_used));
        let prefixes =
            prefixes::load(&store).map_err(|e| fault(&path, format!("cannot read the prefixes: {e}")))?;
        let own: Vec<Ipv6Addr> = own.into_iter().collect();
        let mut state = State {
            store: Arc::new(store),
            pools: BTreeMap::new(),
            prefixes: Prefixes::new(&own),
            own,
            reserved: BTreeSet::new(),
            fixed: BTreeMap::new(),
            by_identity: HashMap::new(),
            by_address: BTreeMap::new(),
            active: HashMap::new(),
            hints: HashMap::new(),
            clock,
        };
        state.set_pools(pools);
        for (identity, record) in records {
            state.adopt(identity, record);
        }
        for (identity, record) in prefixes {
            state.prefixes.adopt(identity, record);
        }
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change; a poisoned lock still guards whole data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes other pools. An address that is in use stays its user's for as long as that uses it.
    pub fn set_pools(&self, pools: BTreeMap<String, Pool>) {
        self.lock().set_pools(pools);
    }

    /// The store, for other tables in it.
    pub fn store(&self) -> Arc<Database> {
        Arc::clone(&self.lock().store)
    }

    /// How many addresses are in use now.
    pub fn count_in_use(&self) -> usize {
        self.lock().active.len()
    }

    /// The addresses and prefixes that are in use now.
    pub fn in_use(&self) -> Vec<Prefix6> {
        let state = self.lock();
        let addresses = state.active.values().map(|a| Prefix6 { address: *a, len: 128 });
        addresses.chain(state.prefixes.in_use()).collect()
    }

    /// All leases by address, the fixed ones that are not in use too.
    pub fn status(&self) -> Vec<LeaseStatus> {
        self.lock().status()
    }
}

/// What the store of a broker that does not run tells, by address.
///
/// # Errors
/// It cannot be read.
pub fn stored(store: &Database) -> Result<Vec<LeaseStatus>, redb::Error> {
    let prefixes: HashMap<Identity, prefixes::Record> = prefixes::load(store)?.into_iter().collect();
    let mut list: Vec<LeaseStatus> = store::load(store)?
        .into_iter()
        .map(|(identity, record)| LeaseStatus {
            address: record.address,
            prefix: prefixes.get(&identity).map(|r| r.prefix.to_string()),
            identity: identity.to_string(),
            fixed: false,
            ike: Vec::new(),
            last_used: Some(record.last_used),
        })
        .collect();
    list.sort_by_key(|lease| lease.address);
    Ok(list)
}

/// A prefix for an identity, for good: the one that is kept for it, else one that is nobody's by these leases.
pub fn free_prefix(
    pools: &BTreeMap<String, Pool>,
    leases: &[LeaseStatus],
    identity: &Identity,
) -> Option<Prefix6> {
    let mut prefixes = Prefixes::new(&[]);
    prefixes.set_pools(pools.values());
    for lease in leases {
        if let (Ok(identity), Some(Ok(prefix))) =
            (lease.identity.parse(), lease.prefix.as_ref().map(|p| p.parse()))
        {
            prefixes.adopt(identity, prefixes::Record { prefix, last_used: 0 });
        }
    }
    let kept = prefixes.of(identity).filter(|p| pools.values().any(|pool| pool.has(*p)));
    kept.or_else(|| pools.values().find_map(|pool| prefixes.lowest_free(pool, |_| true)))
}

impl AddressPool for Leases {
    fn assign(&mut self, request: &LeaseRequest<'_>) -> Result<Lease, LeaseError> {
        sandbox::fault_point("lease");
        self.lock().assign(request)
    }
    fn release(&mut self, ike: IkeSaId) {
        self.lock().release(ike);
    }
}

impl State {
    fn set_pools(&mut self, pools: BTreeMap<String, Pool>) {
        self.reserved = self.own.iter().copied().collect();
        self.fixed.clear();
        for pool in pools.values() {
            self.reserved.extend(pool.ranges.iter().filter_map(|r| r.anycast()));
            self.fixed.extend(pool.fixed.iter().map(|(id, address)| (*address, id.clone())));
        }
        self.prefixes.set_pools(pools.values());
        self.pools = pools.into_iter().map(|(name, pool)| (name, Arc::new(pool))).collect();
        self.hints.clear();
        // What was given away to somebody else since is not remembered any more.
        let lost: Vec<Ipv6Addr> = self
            .by_address
            .iter()
            .filter(|(address, holder)| {
                self.reserved.contains(*address)
                    || self.fixed.get(*address).is_some_and(|owner| *owner != holder.identity)
            })
            .map(|(address, _)| *address)
            .collect();
        for address in lost {
            let Some(holder) = self.by_address.get_mut(&address) else { continue };
            if self.by_identity.get(&holder.identity).is_some_and(|r| r.address == address) {
                self.by_identity.remove(&holder.identity);
            }
            if holder.users.is_empty() {
                self.vacate(address);
            } else {
                holder.volatile = true;
            }
        }
    }

    /// Takes over a stored lease, unless the configuration gave its address away since.
    fn adopt(&mut self, identity: Identity, record: Record) {
        let taken = self.reserved.contains(&record.address)
            || self.fixed.get(&record.address).is_some_and(|owner| *owner != identity)
            || self.by_address.contains_key(&record.address);
        if !taken {
            let holder = Holder { identity: identity.clone(), users: BTreeSet::new(), volatile: false };
            self.by_address.insert(record.address, holder);
            self.by_identity.insert(identity, record);
        }
    }

    fn assign(&mut self, request: &LeaseRequest<'_>) -> Result<Lease, LeaseError> {
        let identity = request.identity;
        let pool = self.pools.get(request.connection).cloned().ok_or_else(|| {
            LeaseError(format!(
                "no address for {}: connection {:?} has no pool",
                request.identity, request.connection
            ))
        })?;
        // The same IKE SA asks once more: what it has is its answer.
        if let Some(address) = self.active.get(&request.ike).copied() {
            let prefix = self.assign_prefix(request, &pool);
            return Ok(Lease { address: Some(address), prefix, dns: pool.dns.clone() });
        }
        let free_for_us = |state: &Self, address: Ipv6Addr| {
            (!pool.several || state.by_address.get(&address).is_none_or(|h| h.users.is_empty()))
                && !state.prefixes.is_anothers(address, identity)
        };
        let own_fixed = pool.fixed.get(identity).copied();
        if let Some((address, other)) = own_fixed.and_then(|a| Some((a, self.by_address.get(&a)?)))
            && other.identity != *identity
        {
            // It was given to this identity while the other one used it.
            return Err(LeaseError(format!(
                "{address} is fixed for {identity}, but {} uses it until its tunnel ends",
                other.identity
            )));
        }
        let remembered = self
            .by_identity
            .get(identity)
            .map(|r| r.address)
            .filter(|a| own_fixed.is_none() && pool.ranges.iter().any(|r| r.contains(*a)));
        let (address, volatile) = match own_fixed.or(remembered) {
            Some(address) if free_for_us(self, address) => (address, false),
            // A second tunnel of one identity at the same time gets an address of its own, for as long as it lasts.
            first => {
                let wanted = request.wanted.filter(|a| {
                    pool.ranges.iter().any(|r| r.contains(*a))
                        && self.is_free(*a)
                        && self.prefixes.used_until(*a).is_none()
                });
                let address =
                    wanted.or_else(|| self.lowest_free(&pool.ranges)).or_else(|| self.reclaim(&pool.ranges));
                (address.ok_or_else(|| exhausted(&pool, request))?, first.is_some())
            }
        };
        if !volatile {
            self.remember(identity, address)?;
        }
        let holder = self.by_address.entry(address).or_insert_with(|| Holder {
            identity: identity.clone(),
            users: BTreeSet::new(),
            volatile,
        });
        holder.users.insert(request.ike);
        self.active.insert(request.ike, address);
        let prefix = self.assign_prefix(request, &pool);
        Ok(Lease { address: Some(address), prefix, dns: pool.dns.clone() })
    }

    /// Without a prefix the tunnel is still worth something.
    fn assign_prefix(&mut self, request: &LeaseRequest<'_>, pool: &Pool) -> Option<Prefix6> {
        let around = AroundPrefixes { store: &self.store, held: &self.by_address, clock: self.clock };
        let given = self.prefixes.assign(request.ike, request.identity, pool, request.prefix, &around);
        given.unwrap_or_else(|why| {
            tracing::warn!("{why}");
            None
        })
    }

    fn release(&mut self, ike: IkeSaId) {
        if let Some((identity, record)) = self.prefixes.release(ike, (self.clock)())
            && let Err(error) = prefixes::write(&self.store, &identity, record, None, Durability::None)
        {
            tracing::warn!("the prefix of {identity} was not brought up to date: {error}");
        }
        let Some(address) = self.active.remove(&ike) else { return };
        let Some(holder) = self.by_address.get_mut(&address) else { return };
        holder.users.remove(&ike);
        if !holder.users.is_empty() {
            return;
        }
        if holder.volatile {
            self.vacate(address);
            return;
        }
        let identity = holder.identity.clone();
        let record = Record { address, last_used: (self.clock)() };
        self.by_identity.insert(identity.clone(), record);
        // When it was last used may be lost in a crash; whose it is may not, and that was written at once.
        if let Err(error) = store::write(&self.store, &identity, record, Durability::None) {
            tracing::warn!("the lease of {identity} was not brought up to date: {error}");
        }
    }

    fn is_free(&self, address: Ipv6Addr) -> bool {
        // Windows rejects an address that ends in "::" (two groups of zeros at least).
        address.to_bits() & 0xffff_ffff != 0
            && !self.reserved.contains(&address)
            && !self.fixed.contains_key(&address)
            && !self.by_address.contains_key(&address)
    }

    /// Walks the taken addresses from the hint on, so that a large pool costs no more than a small one.
    fn lowest_free(&mut self, ranges: &[Range6]) -> Option<Ipv6Addr> {
        for range in ranges {
            let mut address = self.hints.get(&range.first).copied().unwrap_or(range.first);
            // After a change of the pools they may be in a prefix that is in use, and free later: the hint stays before it.
            let mut passed_over = false;
            loop {
                let in_prefix = self.prefixes.used_until(address);
                let free = self.is_free(address);
                passed_over |= in_prefix.is_some();
                if !passed_over {
                    self.hints.insert(range.first, address);
                }
                if free && in_prefix.is_none() {
                    return Some(address);
                }
                let last = in_prefix.unwrap_or(address);
                if last >= range.last {
                    break;
                }
                address = Ipv6Addr::from_bits(last.to_bits() + 1);
            }
        }
        None
    }

    /// The address is nobody's any more.
    fn vacate(&mut self, address: Ipv6Addr) {
        self.by_address.remove(&address);
        self.hints.clear();
    }

    /// Takes the lease away that has been unused for longest.
    fn reclaim(&mut self, ranges: &[Range6]) -> Option<Ipv6Addr> {
        let (identity, record) = self
            .by_identity
            .iter()
            .filter(|(_, r)| ranges.iter().any(|range| range.contains(r.address)))
            .filter(|(_, r)| !self.fixed.contains_key(&r.address))
            .filter(|(_, r)| self.prefixes.used_until(r.address).is_none())
            .filter(|(_, r)| self.by_address.get(&r.address).is_some_and(|h| h.users.is_empty()))
            .min_by_key(|(_, r)| (r.last_used, r.address))
            .map(|(i, r)| (i.clone(), *r))?;
        tracing::info!(
            "pool exhausted: {} goes from {identity}, unused for longest, to another",
            record.address
        );
        self.by_identity.remove(&identity);
        self.vacate(record.address);
        if let Err(error) = store::forget(&self.store, &identity) {
            tracing::warn!("the lease of {identity} was not removed: {error}");
        }
        Some(record.address)
    }

    /// Makes the lease durable before the peer hears of it.
    fn remember(&mut self, identity: &Identity, address: Ipv6Addr) -> Result<(), LeaseError> {
        let old = self.by_identity.get(identity).copied();
        if old.is_some_and(|o| o.address == address) {
            return Ok(());
        }
        let record = Record { address, last_used: (self.clock)() };
        store::write(&self.store, identity, record, Durability::Immediate)
            .map_err(|e| LeaseError(format!("the lease of {identity} cannot be stored: {e}")))?;
        if let Some(old) = old {
            // The fixed address changed: the old one is free unless still in use.
            if self.by_address.get(&old.address).is_some_and(|h| h.users.is_empty()) {
                self.vacate(old.address);
            } else if let Some(holder) = self.by_address.get_mut(&old.address) {
                holder.volatile = true;
            }
        }
        self.by_identity.insert(identity.clone(), record);
        Ok(())
    }

    fn prefix_of(&self, identity: &Identity) -> Option<String> {
        self.prefixes.of(identity).map(|p| p.to_string())
    }

    fn status(&self) -> Vec<LeaseStatus> {
        let mut list: BTreeMap<Ipv6Addr, LeaseStatus> = self
            .fixed
            .iter()
            .map(|(address, identity)| {
                let entry = LeaseStatus {
                    address: *address,
                    prefix: self.prefix_of(identity),
                    identity: identity.to_string(),
                    fixed: true,
                    ike: Vec::new(),
                    last_used: None,
                };
                (*address, entry)
            })
            .collect();
        for (address, holder) in &self.by_address {
            let last_used = if holder.users.is_empty() {
                self.by_identity.get(&holder.identity).filter(|r| r.address == *address).map(|r| r.last_used)
            } else {
                Some((self.clock)())
            };
            list.insert(
                *address,
                LeaseStatus {
                    address: *address,
                    prefix: self.prefix_of(&holder.identity).filter(|_| !holder.volatile),
                    identity: holder.identity.to_string(),
                    fixed: self.fixed.contains_key(address),
                    ike: holder.users.iter().map(|i| i.0).collect(),
                    last_used,
                },
            );
        }
        list.into_values().collect()
    }
}

/// The rest of the state while a prefix is looked for.
struct AroundPrefixes<'s> {
    store: &'s Database,
    held: &'s BTreeMap<Ipv6Addr, Holder>,
    clock: fn() -> u64,
}

impl prefixes::Around for AroundPrefixes<'_> {
    fn now(&self) -> u64 {
        (self.clock)()
    }

    fn user_within(&self, prefix: Prefix6, identity: &Identity) -> Option<&Identity> {
        let within = self.held.range(prefix.address..=prefix.last()).map(|(_, holder)| holder);
        within.filter(|h| !h.users.is_empty()).map(|h| &h.identity).find(|user| *user != identity)
    }

    fn remember(
        &self,
        identity: &Identity,
        record: prefixes::Record,
        former: Option<&Identity>,
    ) -> Result<(), String> {
        prefixes::write(self.store, identity, record, former, Durability::Immediate)
            .map_err(|e| format!("the prefix of {identity} cannot be stored: {e}"))
    }
}

fn exhausted(pool: &Pool, request: &LeaseRequest<'_>) -> LeaseError {
    let ranges: Vec<String> = pool.ranges.iter().map(ToString::to_string).collect();
    LeaseError(format!(
        "no address for {}: all of {} are leased and in use; make pool.range larger",
        request.identity,
        ranges.join(", ")
    ))
}

#[cfg(test)]
mod prefix_tests;
#[cfg(test)]
mod tests;
