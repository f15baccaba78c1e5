//! Prefixes that are routed to identities, kept as the addresses are: durable, and never two identities with one address in common.
//!
//! An identity has one prefix, and one tunnel at a time that it goes with: a second tunnel beside the first has none.

use super::identity_text;
use crate::config::Pool;
use crate::config::prefixes::overlapping;
use ferry6_ike::config::PrefixWish;
use ferry6_ike::event::IkeSaId;
use ferry6_ike::{Identity, Prefix6};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Identity to prefix (16 octets and its length) and time of last use (seconds since 1970, 8 octets, big endian).
const PREFIXES: TableDefinition<'_, &str, [u8; 25]> = TableDefinition::new("prefixes-v1");

/// What an identity has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) prefix: Prefix6,
    pub(super) last_used: u64,
}

/// Whose a prefix is now.
#[derive(Debug)]
struct Holder {
    len: u8,
    identity: Identity,
    users: BTreeSet<IkeSaId>,
    /// It is somebody else's by the configuration, as soon as nobody uses it any more.
    volatile: bool,
}

/// What prefixes must know of the rest of the leases.
pub(super) trait Around {
    /// Seconds since 1970.
    fn now(&self) -> u64;
    /// Who else uses an address of this prefix now.
    fn user_within(&self, prefix: Prefix6, identity: &Identity) -> Option<&Identity>;
    /// Makes it durable that an identity has this one, and the former one none.
    fn remember(&self, identity: &Identity, record: Record, former: Option<&Identity>) -> Result<(), String>;
}

/// All prefixes; those of two holders never overlap.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    by_identity: HashMap<Identity, Record>,
    /// By the first address.
    held: BTreeMap<Ipv6Addr, Holder>,
    active: HashMap<IkeSaId, Ipv6Addr>,
    /// Of all pools.
    fixed: BTreeMap<Ipv6Addr, (u8, Identity)>,
    /// What is given to who asks, by all pools: prefixes, and the length of their parts.
    shared: Vec<(Prefix6, u8)>,
    /// The broker's own addresses.
    own: Vec<Ipv6Addr>,
    /// By a pool's prefix and the length of its parts: nothing before this address is free.
    hints: HashMap<(Prefix6, u8), Ipv6Addr>,
}

impl Prefixes {
    pub(super) fn new(own: &[Ipv6Addr]) -> Self {
        Self { own: own.to_vec(), ..Self::default() }
    }

    pub(super) fn set_pools<'p>(&mut self, pools: impl Iterator<Item = &'p Pool>) {
        self.fixed.clear();
        self.shared.clear();
        for pool in pools {
            let fixed = pool.fixed_prefixes.iter();
            self.fixed.extend(fixed.map(|(who, prefix)| (prefix.address, (prefix.len, who.clone()))));
            self.shared.extend(pool.prefixes.iter().map(|from| (*from, pool.prefix_length)));
        }
        self.hints.clear();
        // What was given to somebody else since is not remembered any more.
        let lost = self.held.iter().filter(|(address, holder)| {
            let prefix = Prefix6 { address: **address, len: holder.len };
            self.is_lost(&holder.identity, prefix)
        });
        let lost: Vec<Ipv6Addr> = lost.map(|(address, _)| *address).collect();
        for address in lost {
            let Some(holder) = self.held.get_mut(&address) else { continue };
            self.by_identity.remove(&holder.identity);
            if holder.users.is_empty() {
                self.held.remove(&address);
            } else {
                holder.volatile = true;
            }
        }
    }

    /// Whether somebody else may get a part of it now, by name or by asking: then nobody can keep it.
    fn is_lost(&self, identity: &Identity, prefix: Prefix6) -> bool {
        if let Some((fixed, (_, owner))) = overlapping(&self.fixed, prefix, |f| f.0) {
            return owner != identity || fixed != prefix;
        }
        // One of another length, of before `pool.prefix_length` was changed, would lie in the way of others for ever.
        let overlaps = |(from, _): &&(Prefix6, u8)| from.overlaps(prefix);
        self.shared.iter().find(overlaps).is_some_and(|(_, len)| *len != prefix.len)
    }

    /// Takes over a stored one, unless it is another's now.
    pub(super) fn adopt(&mut self, identity: Identity, record: Record) {
        let prefix = record.prefix;
        if self.is_lost(&identity, prefix) || self.holder_of(prefix).is_some() {
            return;
        }
        let holder =
            Holder { len: prefix.len, identity: identity.clone(), users: BTreeSet::new(), volatile: false };
        self.held.insert(prefix.address, holder);
        self.by_identity.insert(identity, record);
    }

    fn holder_of(&self, prefix: Prefix6) -> Option<(Prefix6, &Holder)> {
        overlapping(&self.held, prefix, |h| h.len)
    }

    /// The prefix of an identity for a tunnel; `None` where it gets none. The error is for the log: the tunnel comes up without.
    pub(super) fn assign(
        &mut self,
        ike: IkeSaId,
        identity: &Identity,
        pool: &Pool,
        wish: PrefixWish,
        around: &impl Around,
    ) -> Result<Option<Prefix6>, String> {
        if let Some(address) = self.active.get(&ike) {
            return Ok(self.held.get(address).map(|h| Prefix6 { address: *address, len: h.len }));
        }
        let fixed = pool.fixed_prefixes.get(identity).copied();
        if fixed.is_none() && (wish == PrefixWish::None || pool.prefixes.is_empty()) {
            return Ok(None);
        }
        let remembered = self.by_identity.get(identity).map(|r| r.prefix).filter(|p| pool.has(*p));
        // Who loses it to this identity.
        let mut former = None;
        let prefix = match fixed.or(remembered) {
            Some(prefix) => match self.holder_of(prefix) {
                Some((_, holder)) if holder.identity != *identity => {
                    return Err(format!(
                        "{prefix} is {identity}'s, but {} uses it until its tunnel ends",
                        holder.identity
                    ));
                }
                Some((other, _)) if other != prefix => {
                    return Err(format!(
                        "{identity} has {other} until its tunnel ends, and {prefix} after that"
                    ));
                }
                // Several tunnels of one identity at once: where would a packet go?
                Some((_, holder)) if pool.several && !holder.users.is_empty() => return Ok(None),
                // After a change of the pools an address may have become a part of a prefix.
                _ => match around.user_within(prefix, identity) {
                    Some(other) => {
                        return Err(format!(
                            "{prefix} is {identity}'s, but {other} uses an address of it until its tunnel ends"
                        ));
                    }
                    None => prefix,
                },
            },
            None => {
                // One that is in use, though no pool has it any more.
                if let Some(held) =
                    self.held.values().find(|h| h.identity == *identity && !h.users.is_empty())
                {
                    return if pool.several {
                        Ok(None)
                    } else {
                        Err(format!("{} has another prefix until its tunnel ends", held.identity))
                    };
                }
                let usable = |prefix| around.user_within(prefix, identity).is_none();
                let wanted = match wish {
                    PrefixWish::This(prefix) => {
                        Some(prefix).filter(|p| pool.has(*p) && self.is_free(*p) && usable(*p))
                    }
                    PrefixWish::None | PrefixWish::Any => None,
                };
                if let Some(prefix) = wanted.or_else(|| self.lowest_free(pool, usable)) {
                    prefix
                } else {
                    let (prefix, loser) = self.reclaim(pool, usable).ok_or_else(|| {
                        format!(
                            "no prefix for {identity}: all of the pool are in use; make pool.prefixes larger"
                        )
                    })?;
                    former = Some(loser);
                    prefix
                }
            }
        };
        if self.by_identity.get(identity).is_none_or(|r| r.prefix != prefix) {
            let record = Record { prefix, last_used: around.now() };
            around.remember(identity, record, former.as_ref())?;
            if let Some(old) = self.by_identity.insert(identity.clone(), record)
                && self.held.get(&old.prefix.address).is_some_and(|h| h.users.is_empty())
            {
                self.vacate(old.prefix.address);
            }
        }
        let holder = self.held.entry(prefix.address).or_insert_with(|| Holder {
            len: prefix.len,
            identity: identity.clone(),
            users: BTreeSet::new(),
            volatile: false,
        });
        holder.users.insert(ike);
        self.active.insert(ike, prefix.address);
        Ok(Some(prefix))
    }

    /// The IKE SA is gone; tells what is to be written of its identity.
    pub(super) fn release(&mut self, ike: IkeSaId, now: u64) -> Option<(Identity, Record)> {
        let address = self.active.remove(&ike)?;
        let holder = self.held.get_mut(&address)?;
        holder.users.remove(&ike);
        if !holder.users.is_empty() {
            return None;
        }
        // It is another's by now, or its identity has another one.
        let record = self.by_identity.get_mut(&holder.identity).filter(|r| r.prefix.address == address);
        let Some(record) = record.filter(|_| !holder.volatile) else {
            self.vacate(address);
            return None;
        };
        record.last_used = now;
        Some((holder.identity.clone(), *record))
    }

    /// What an identity has: in use, or kept for it and given by some pool still.
    pub(super) fn of(&self, identity: &Identity) -> Option<Prefix6> {
        let prefix = self.by_identity.get(identity)?.prefix;
        let in_use = || self.held.get(&prefix.address).is_some_and(|h| !h.users.is_empty());
        let fixed = self.fixed.get(&prefix.address).is_some_and(|(len, _)| *len == prefix.len);
        let shared = |(from, len): &(Prefix6, u8)| *len == prefix.len && from.contains(prefix.address);
        (fixed || self.shared.iter().any(shared) || in_use()).then_some(prefix)
    }

    /// Whether somebody else uses a prefix with this address now.
    pub(super) fn is_anothers(&self, address: Ipv6Addr, identity: &Identity) -> bool {
        self.holder_of(Prefix6 { address, len: 128 })
            .is_some_and(|(_, holder)| holder.identity != *identity && !holder.users.is_empty())
    }

    /// The end of the prefix in use that has this address.
    pub(super) fn used_until(&self, address: Ipv6Addr) -> Option<Ipv6Addr> {
        let (prefix, holder) = self.holder_of(Prefix6 { address, len: 128 })?;
        (!holder.users.is_empty()).then(|| prefix.last())
    }

    /// Those that are in use.
    pub(super) fn in_use(&self) -> impl Iterator<Item = Prefix6> {
        self.active.values().filter_map(|a| self.held.get(a).map(|h| Prefix6 { address: *a, len: h.len }))
    }

    fn is_free(&self, prefix: Prefix6) -> bool {
        self.in_the_way(prefix).is_none() && !self.own.iter().any(|own| prefix.contains(*own))
    }

    /// What overlaps with it.
    fn in_the_way(&self, prefix: Prefix6) -> Option<Prefix6> {
        let held = self.holder_of(prefix).map(|(other, _)| other);
        held.or_else(|| overlapping(&self.fixed, prefix, |f| f.0).map(|(other, _)| other))
    }

    /// Walks from one that is in the way to the next, so that a large pool costs no more than a small one. One that is not
    /// `usable` for the moment is passed over.
    pub(super) fn lowest_free(&mut self, pool: &Pool, usable: impl Fn(Prefix6) -> bool) -> Option<Prefix6> {
        let len = pool.prefix_length;
        for from in &pool.prefixes {
            let hint = self.hints.get(&(*from, len)).copied().unwrap_or(from.address);
            let mut next = Prefix6::new(hint, len);
            // The hint stays before the first one that is free, usable or not.
            let mut passed_over = false;
            while let Some(prefix) = next.filter(|p| from.contains(p.address)) {
                if !passed_over {
                    self.hints.insert((*from, len), prefix.address);
                }
                if self.is_free(prefix) {
                    if usable(prefix) {
                        return Some(prefix);
                    }
                    passed_over = true;
                }
                let last =
                    self.in_the_way(prefix).map_or(prefix.last(), |other| other.last().max(prefix.last()));
                next = last
                    .to_bits()
                    .checked_add(1)
                    .and_then(|bits| Prefix6::new(Ipv6Addr::from_bits(bits), len));
            }
        }
        None
    }

    fn vacate(&mut self, address: Ipv6Addr) {
        self.held.remove(&address);
        self.hints.clear();
    }

    /// Takes the one away that has been unused for longest; also tells whose it was.
    fn reclaim(&mut self, pool: &Pool, usable: impl Fn(Prefix6) -> bool) -> Option<(Prefix6, Identity)> {
        let unused = |r: &Record| {
            let fixed = overlapping(&self.fixed, r.prefix, |f| f.0).is_some();
            !fixed && self.held.get(&r.prefix.address).is_some_and(|h| h.users.is_empty())
        };
        let (identity, record) = self
            .by_identity
            .iter()
            .filter(|(_, r)| pool.has(r.prefix) && unused(r) && usable(r.prefix))
            .min_by_key(|(_, r)| (r.last_used, r.prefix))
            .map(|(identity, r)| (identity.clone(), *r))?;
        let prefix = record.prefix;
        tracing::info!("prefixes exhausted: {prefix} goes from {identity}, unused for longest, to another");
        self.by_identity.remove(&identity);
        self.vacate(prefix.address);
        Some((prefix, identity))
    }
}

/// Writes what an identity has, and at once that the `former` one has it no more.
pub(super) fn write(
    store: &Database,
    identity: &Identity,
    record: Record,
    former: Option<&Identity>,
    durability: Durability,
) -> Result<(), redb::Error> {
    let mut value = [0; 25];
    value[..16].copy_from_slice(&record.prefix.address.octets());
    value[16] = record.prefix.len;
    value[17..].copy_from_slice(&record.last_used.to_be_bytes());
    let mut transaction = store.begin_write()?;
    transaction.set_durability(durability)?;
    {
        let mut table = transaction.open_table(PREFIXES)?;
        if let Some(former) = former {
            table.remove(identity_text(former).as_str())?;
        }
        table.insert(identity_text(identity).as_str(), value)?;
    }
    transaction.commit()?;
    Ok(())
}

/// All that are written.
pub(super) fn load(store: &Database) -> Result<Vec<(Identity, Record)>, redb::Error> {
    // A write transaction makes the table where the store is new, or of a time without prefixes.
    let transaction = store.begin_write()?;
    transaction.open_table(PREFIXES)?;
    transaction.commit()?;
    let table = store.begin_read()?.open_table(PREFIXES)?;
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (identity, value) = entry?;
        let value = value.value();
        let (address, rest) = value.split_at(16);
        let (len, time) = rest.split_at(1);
        if let (Ok(identity), Ok(address), Ok(time)) =
            (Identity::from_str(identity.value()), <[u8; 16]>::try_from(address), <[u8; 8]>::try_from(time))
            && let Some(prefix) = Prefix6::new(address.into(), len[0])
        {
            records.push((identity, Record { prefix, last_used: u64::from_be_bytes(time) }));
        }
    }
    // Of two that had one address in common the later one keeps it.
    records.sort_by_key(|(_, record)| std::cmp::Reverse(record.last_used));
    Ok(records)
}
