//! The Security Policy Database (RFC 4301 section 4.4.1), as far as packets need it: traffic to PROTECT with the
//! Child SA of a reqid. What no entry fits is DISCARDed; there is no BYPASS in a tunnel.
//!
//! Order: the longest remote prefix first, as in routing; among entries of one prefix those with a protocol or ports
//! before those without, then the latest first (a client that comes back under a new IKE SA is reached by the new one).
//! One hash table per remote prefix length keeps the time flat however many entries there are.

use crate::classify::{Flow, Selector, SelectorPair};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

/// What a lookup finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The Child SA that protects it.
    pub reqid: u32,
    /// The worker that owns its first outbound SA; others may own further ones (RFC 9611).
    pub owner: usize,
}

/// Entries by remote prefix.
#[derive(Debug, Default)]
pub struct Spd {
    /// Longest prefix first; none is empty.
    levels: Vec<Level>,
    lists: Lists,
    installed: HashMap<u32, Arc<SelectorPair>>,
}

#[derive(Debug)]
struct Level {
    mask: u128,
    table: HashMap<Prefix, Target, FoldState>,
}

/// A prefix as a key of eight octets' alignment: with its target it takes 24 octets of a table, where a u128 takes 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix([u64; 2]);

impl From<u128> for Prefix {
    #[inline]
    fn from(prefix: u128) -> Self {
        Self([(prefix >> 64) as u64, prefix as u64])
    }
}

impl Hash for Prefix {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from(self.0[0]) << 64 | u128::from(self.0[1]));
    }
}

/// What a prefix leads to. It is small, for what a lookup costs among many entries is the cache lines that it touches.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// The one policy of the prefix, whatever the packet's other values: a client's address, or route.
    Policy { reqid: u32, owner: u16 },
    /// Its place in [`Lists`].
    List(u32),
}

/// Prefixes with several entries, or with one that looks at more than the destination. Those with a protocol or ports
/// come first, then the latest.
#[derive(Debug, Default)]
struct Lists {
    lists: Vec<Vec<Entry>>,
    free: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Entry {
    policy: Policy,
    /// The local range where one range of addresses is all there is to check.
    local: (u128, u128),
    /// Everything else.
    full: Option<Arc<SelectorPair>>,
    /// Whether protocol or ports count.
    specific: bool,
}

impl Entry {
    fn new(policy: Policy, remote: &Selector, selectors: &Arc<SelectorPair>) -> Self {
        let simple = match &*selectors.local {
            [local] if local.is_address_only() && remote.is_address_only() => Some(*local),
            _ => None,
        };
        Self {
            policy,
            local: simple.map_or((0, 0), |local| (local.first, local.last)),
            full: if simple.is_some() { None } else { Some(Arc::clone(selectors)) },
            specific: specific(remote) || selectors.local.iter().all(specific),
        }
    }

    /// The target in its short form, where nothing but the destination counts.
    fn target(&self) -> Option<Target> {
        let Policy { reqid, owner } = self.policy;
        let any = self.full.is_none() && self.local == (0, u128::MAX);
        any.then(|| u16::try_from(owner).ok())?.map(|owner| Target::Policy { reqid, owner })
    }

    #[inline]
    fn matches(&self, flow: &Flow) -> bool {
        match &self.full {
            None => self.local.0 <= flow.source && flow.source <= self.local.1,
            Some(selectors) => selectors.matches_outbound(flow),
        }
    }
}

impl Spd {
    /// Enters the selectors of a reqid, in place of what it had.
    pub fn insert(&mut self, policy: Policy, selectors: Arc<SelectorPair>) {
        self.remove(policy.reqid);
        for remote in &selectors.remote {
            let entry = Entry::new(policy, remote, &selectors);
            for (prefix, mask) in prefixes(remote.first, remote.last) {
                // A longer prefix is a greater mask.
                let at = self.levels.partition_point(|level| level.mask > mask);
                if self.levels.get(at).is_none_or(|level| level.mask != mask) {
                    let table = HashMap::with_hasher(FoldState::default());
                    self.levels.insert(at, Level { mask, table });
                }
                let table = &mut self.levels[at].table;
                let target = self.lists.enter(table.get(&prefix.into()).copied(), &entry);
                table.insert(prefix.into(), target);
            }
        }
        self.installed.insert(policy.reqid, selectors);
    }

    /// Gives a reqid to another worker; its place among others stays.
    pub fn set_owner(&mut self, reqid: u32, owner: usize) {
        let Some(selectors) = self.installed.get(&reqid) else { return };
        for remote in &selectors.remote {
            for (prefix, mask) in prefixes(remote.first, remote.last) {
                let level = self.levels.iter_mut().find(|level| level.mask == mask);
                match level.and_then(|level| level.table.get_mut(&prefix.into())) {
                    Some(Target::Policy { reqid: known, owner: old }) if *known == reqid => {
                        // There are at most 256 workers.
                        *old = u16::try_from(owner).unwrap_or(*old);
                    }
                    Some(Target::List(at)) => {
                        let list = self.lists.lists[*at as usize].iter_mut();
                        list.filter(|entry| entry.policy.reqid == reqid)
                            .for_each(|entry| entry.policy.owner = owner);
                    }
                    Some(Target::Policy { .. }) | None => {}
                }
            }
        }
    }

    /// Takes out all entries of a reqid.
    pub fn remove(&mut self, reqid: u32) {
        let Some(selectors) = self.installed.remove(&reqid) else { return };
        for remote in &selectors.remote {
            for (prefix, mask) in prefixes(remote.first, remote.last) {
                let Some(level) = self.levels.iter_mut().find(|level| level.mask == mask) else { continue };
                let Some(target) = level.table.get(&prefix.into()) else { continue };
                match self.lists.take_out(*target, reqid) {
                    Some(rest) => level.table.insert(prefix.into(), rest),
                    None => level.table.remove(&prefix.into()),
                };
            }
        }
        self.levels.retain(|level| !level.table.is_empty());
    }

    /// The policy for an outbound packet; `None`: discard.
    #[inline]
    pub fn lookup(&self, flow: &Flow) -> Option<Policy> {
        for level in &self.levels {
            match level.table.get(&(flow.destination & level.mask).into()) {
                Some(Target::Policy { reqid, owner }) => {
                    return Some(Policy { reqid: *reqid, owner: usize::from(*owner) });
                }
                Some(Target::List(at)) => {
                    if let Some(policy) = self.lists.find(*at, flow) {
                        return Some(policy);
                    }
                }
                None => {}
            }
        }
        None
    }

    /// How many reqids have entries.
    pub fn len(&self) -> usize {
        self.installed.len()
    }

    /// Whether nothing is protected.
    pub fn is_empty(&self) -> bool {
        self.installed.is_empty()
    }
}

fn specific(selector: &Selector) -> bool {
    !selector.is_address_only()
}

impl Lists {
    /// Apart from the lookup, which is short without it.
    #[inline(never)]
    fn find(&self, at: u32, flow: &Flow) -> Option<Policy> {
        self.lists[at as usize].iter().find(|entry| entry.matches(flow)).map(|entry| entry.policy)
    }

    /// Where a prefix that led to `old` leads to with one entry more.
    fn enter(&mut self, old: Option<Target>, entry: &Entry) -> Target {
        let at = match old {
            None => match entry.target() {
                Some(target) => return target,
                None => self.keep(Vec::new()),
            },
            Some(Target::Policy { reqid, owner }) => self.keep(vec![Entry {
                policy: Policy { reqid, owner: usize::from(owner) },
                local: (0, u128::MAX),
                full: None,
                specific: false,
            }]),
            Some(Target::List(at)) => at,
        };
        let list = &mut self.lists[at as usize];
        let before = list.partition_point(|other| other.specific && !entry.specific);
        list.insert(before, entry.clone());
        Target::List(at)
    }

    /// Where it leads to without those of a reqid; `None`: nowhere.
    fn take_out(&mut self, target: Target, gone: u32) -> Option<Target> {
        let at = match target {
            Target::Policy { reqid, .. } => return (reqid != gone).then_some(target),
            Target::List(at) => at,
        };
        let list = &mut self.lists[at as usize];
        list.retain(|entry| entry.policy.reqid != gone);
        let short = match &**list {
            [] => None,
            [entry] if entry.target().is_some() => entry.target(),
            _ => return Some(target),
        };
        *list = Vec::new();
        self.free.push(at);
        short
    }

    fn keep(&mut self, list: Vec<Entry>) -> u32 {
        if let Some(at) = self.free.pop() {
            self.lists[at as usize] = list;
            return at;
        }
        self.lists.push(list);
        u32::try_from(self.lists.len() - 1)
            .expect("fewer lists than reqids times 254, and memory ends before")
    }
}

/// An address range as prefixes: (prefix, mask), at most 254.
fn prefixes(first: u128, last: u128) -> impl Iterator<Item = (u128, u128)> {
    let mut next = if first <= last { Some(first) } else { None };
    std::iter::from_fn(move || {
        let start = next?;
        // As many trailing zeros as `start` has, and as fit before `last`.
        let room = last - start;
        let mut bits = start.trailing_zeros().min(128);
        while bits > 0 && host_bits(bits) > room {
            bits -= 1;
        }
        let host = host_bits(bits);
        next = (start + host).checked_add(1).filter(|next| *next <= last);
        Some((start, !host))
    })
}

fn host_bits(bits: u32) -> u128 {
    u128::MAX.checked_shr(128 - bits).unwrap_or(0)
}

/// A hash for addresses: one multiplication, its halves folded into each other. The keys are random per table, for
/// selectors are in part the peers' choice.
#[derive(Clone, Debug)]
struct FoldState(u64, u64);

impl Default for FoldState {
    fn default() -> Self {
        let random = std::collections::hash_map::RandomState::new();
        Self(random.hash_one(0_u64), random.hash_one(1_u64))
    }
}

impl BuildHasher for FoldState {
    type Hasher = Fold;
    #[inline]
    fn build_hasher(&self) -> Fold {
        Fold { keys: (self.0, self.1), hash: 0 }
    }
}

struct Fold {
    keys: (u64, u64),
    hash: u64,
}

impl Hasher for Fold {
    #[inline]
    fn write_u128(&mut self, value: u128) {
        let (high, low) = ((value >> 64) as u64, value as u64);
        let product = u128::from(high ^ self.keys.0) * u128::from(low ^ self.keys.1);
        self.hash ^= (product >> 64) as u64 ^ product as u64;
    }
    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.write_u128(u128::from(self.hash) << 64 | u128::from(*octet));
        }
    }
    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{Ports, protocol};
    use proptest::prelude::*;

    fn range(first: u128, last: u128) -> Selector {
        Selector { first, last, protocol: 0, start_port: 0, end_port: 65535 }
    }
    fn pair(local: Selector, remote: Selector) -> Arc<SelectorPair> {
        Arc::new(SelectorPair { local: [local].into(), remote: [remote].into() })
    }
    fn policy(reqid: u32) -> Policy {
        Policy { reqid, owner: 0 }
    }
    fn flow(source: u128, destination: u128, protocol: u8, ports: Ports) -> Flow {
        Flow { source, destination, protocol, ports }
    }
    const OPEN: Ports = Ports::Known(1000, 80);

    #[test]
    fn ranges_become_prefixes() {
        let list: Vec<_> = prefixes(0, u128::MAX).collect();
        assert_eq!(list, [(0, 0)]);
        assert_eq!(prefixes(5, 5).collect::<Vec<_>>(), [(5, u128::MAX)]);
        assert_eq!(prefixes(1, 4).collect::<Vec<_>>(), [(1, u128::MAX), (2, !1), (4, u128::MAX)]);
        assert_eq!(prefixes(1, u128::MAX - 1).count(), 254);
        assert_eq!(prefixes(u128::MAX, u128::MAX).count(), 1);
        assert_eq!(prefixes(2, 1).count(), 0);
    }

    #[test]
    fn longest_prefix_then_specific_then_latest() {
        let mut spd = Spd::default();
        spd.insert(policy(1), pair(range(0, u128::MAX), range(0, u128::MAX)));
        spd.insert(policy(2), pair(range(0, u128::MAX), range(256, 511)));
        assert_eq!(spd.lookup(&flow(9, 300, 6, OPEN)), Some(policy(2)));
        assert_eq!(spd.lookup(&flow(9, 512, 6, OPEN)), Some(policy(1)));
        // The same selectors again: the latest wins, and the older one is back when it goes.
        spd.insert(policy(3), pair(range(0, u128::MAX), range(256, 511)));
        assert_eq!(spd.lookup(&flow(9, 300, 6, OPEN)), Some(policy(3)));
        let web = Selector { protocol: protocol::TCP, start_port: 80, end_port: 80, ..range(256, 511) };
        spd.insert(policy(4), pair(range(0, u128::MAX), web));
        spd.insert(policy(5), pair(range(0, u128::MAX), range(256, 511)));
        assert_eq!(spd.lookup(&flow(9, 300, 6, OPEN)), Some(policy(4)));
        assert_eq!(spd.lookup(&flow(9, 300, 17, OPEN)), Some(policy(5)));
        assert_eq!(spd.lookup(&flow(9, 300, 6, Ports::Opaque)), Some(policy(5)));
        spd.remove(5);
        assert_eq!(spd.lookup(&flow(9, 300, 17, OPEN)), Some(policy(3)));
        for reqid in 1..=4 {
            spd.remove(reqid);
        }
        assert!(spd.is_empty() && spd.levels.is_empty());
        assert_eq!(spd.lookup(&flow(9, 300, 6, OPEN)), None);
    }

    #[test]
    fn another_owner_in_the_same_place() {
        let mut spd = Spd::default();
        for reqid in [1, 2] {
            spd.insert(policy(reqid), pair(range(0, u128::MAX), range(256, 511)));
        }
        spd.set_owner(1, 7);
        assert_eq!(spd.lookup(&flow(9, 300, 6, OPEN)), Some(policy(2)), "the latest stays in front");
        spd.set_owner(2, 5);
        assert_eq!(spd.lookup(&flow(9, 300, 6, OPEN)), Some(Policy { owner: 5, ..policy(2) }));
        spd.remove(2);
        assert_eq!(spd.lookup(&flow(9, 300, 6, OPEN)), Some(Policy { owner: 7, ..policy(1) }));
        spd.set_owner(2, 3);
    }

    #[test]
    fn the_local_side_counts_too() {
        let mut spd = Spd::default();
        spd.insert(policy(1), pair(range(7, 7), range(0, u128::MAX)));
        assert_eq!(spd.lookup(&flow(7, 300, 6, OPEN)), Some(policy(1)));
        assert_eq!(spd.lookup(&flow(8, 300, 6, OPEN)), None);
    }

    fn selector() -> impl Strategy<Value = Selector> {
        prop_oneof![1 => Just(range(0, u128::MAX)), 3 => small_selector()]
    }

    fn small_selector() -> impl Strategy<Value = Selector> {
        let port = 0_u16..4;
        (0_u128..20, 0_u128..20, prop::sample::select(vec![0_u8, 6]), port.clone(), port, prop::bool::ANY)
            .prop_map(|(a, b, protocol, c, d, whole)| {
                let (start_port, end_port) = if whole || protocol == 0 { (0, 65535) } else { (c, d) };
                Selector { first: a.min(b), last: a.max(b), protocol, start_port, end_port }
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        /// A lookup finds what a plain list does, gone through by the rules: the longest prefix, then with protocol or
        /// ports, then the latest.
        #[test]
        fn equals_a_plain_list(
            entries in proptest::collection::vec((selector(), selector()), 0..12),
            gone in proptest::collection::vec(0_u32..12, 0..8),
            source in 0_u128..20, destination in 0_u128..20, proto in prop::sample::select(vec![6_u8, 17]), port in 0_u16..4,
        ) {
            let mut spd = Spd::default();
            for (i, (local, remote)) in entries.iter().enumerate() {
                spd.insert(policy(i as u32), pair(*local, *remote));
            }
            for reqid in &gone {
                spd.remove(*reqid);
            }
            let flow = flow(source, destination, proto, Ports::Known(port, port));
            let expected = entries
                .iter()
                .enumerate()
                .filter(|(i, (local, remote))| {
                    !gone.contains(&(*i as u32)) && pair(*local, *remote).matches_outbound(&flow)
                })
                .max_by_key(|(i, (local, remote))| {
                    let mask = prefixes(remote.first, remote.last)
                        .find(|(prefix, mask)| destination & mask == *prefix)
                        .map(|(_, mask)| mask);
                    (mask, specific(local) || specific(remote), *i)
                })
                .map(|(i, _)| policy(i as u32));
            prop_assert_eq!(spd.lookup(&flow), expected);
        }

        /// Nothing is left behind when all are gone.
        #[test]
        fn empties(entries in proptest::collection::vec((selector(), selector()), 0..12)) {
            let mut spd = Spd::default();
            for (i, (local, remote)) in entries.iter().enumerate() {
                spd.insert(policy(i as u32), pair(*local, *remote));
            }
            for i in 0..entries.len() {
                spd.remove(i as u32);
            }
            prop_assert!(spd.is_empty() && spd.levels.is_empty());
            prop_assert!(spd.lists.lists.iter().all(Vec::is_empty));
            prop_assert_eq!(spd.lists.lists.len(), spd.lists.free.len());
        }
    }
}
