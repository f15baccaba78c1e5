//! The Security Policy Database (RFC 4301 section 4.4.1), as far as packets need it: traffic to PROTECT with the
//! Child SA of a reqid. What no entry fits is DISCARDed; there is no BYPASS in a tunnel.
//!
//! Order: the longest remote prefix first, as in routing; among entries of one prefix those with a protocol or ports
//! before those without, then the latest first (a client that comes back under a new IKE SA is reached by the new one).
//! One hash table per remote prefix length keeps the time flat however many entries there are.

use crate::classify::{Flow, Selector, SelectorPair};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

/// What a lookup finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The Child SA that protects it.
    pub reqid: u32,
    /// The worker that owns its outbound SA.
    pub owner: usize,
}

/// Entries by remote prefix.
#[derive(Debug, Default)]
pub struct Spd {
    /// Longest prefix first; none is empty.
    levels: Vec<Level>,
    installed: HashMap<u32, Arc<SelectorPair>>,
    sequence: u64,
}

#[derive(Debug)]
struct Level {
    mask: u128,
    table: HashMap<u128, Bucket, FoldState>,
}

/// The entries of one prefix; nearly always one, which therefore stands in the table itself.
#[derive(Debug)]
struct Bucket {
    first: Entry,
    rest: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    policy: Policy,
    /// The local range where one range of addresses is all there is to check.
    local: (u128, u128),
    /// Everything else.
    full: Option<Arc<SelectorPair>>,
    /// Sorts within a bucket: greatest first.
    rank: (bool, u64),
}

impl Entry {
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
        self.sequence += 1;
        for remote in &selectors.remote {
            let simple = match &*selectors.local {
                [local] if local.is_address_only() && remote.is_address_only() => Some(*local),
                _ => None,
            };
            let entry = Entry {
                policy,
                local: simple.map_or((0, 0), |local| (local.first, local.last)),
                full: if simple.is_some() { None } else { Some(Arc::clone(&selectors)) },
                rank: (specific(remote) || selectors.local.iter().all(specific), self.sequence),
            };
            for (prefix, mask) in prefixes(remote.first, remote.last) {
                self.level(mask).enter(prefix, entry.clone());
            }
        }
        self.installed.insert(policy.reqid, selectors);
    }

    /// Takes out all entries of a reqid.
    pub fn remove(&mut self, reqid: u32) {
        let Some(selectors) = self.installed.remove(&reqid) else { return };
        for remote in &selectors.remote {
            for (prefix, mask) in prefixes(remote.first, remote.last) {
                if let Some(level) = self.levels.iter_mut().find(|level| level.mask == mask) {
                    level.take_out(prefix, reqid);
                }
            }
        }
        self.levels.retain(|level| !level.table.is_empty());
    }

    /// The policy for an outbound packet; `None`: discard.
    #[inline]
    pub fn lookup(&self, flow: &Flow) -> Option<Policy> {
        for level in &self.levels {
            let Some(bucket) = level.table.get(&(flow.destination & level.mask)) else { continue };
            if bucket.first.matches(flow) {
                return Some(bucket.first.policy);
            }
            if let Some(entry) = bucket.rest.iter().find(|entry| entry.matches(flow)) {
                return Some(entry.policy);
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

    fn level(&mut self, mask: u128) -> &mut Level {
        // A longer prefix is a greater mask.
        let at = self.levels.partition_point(|level| level.mask > mask);
        if self.levels.get(at).is_none_or(|level| level.mask != mask) {
            self.levels.insert(at, Level { mask, table: HashMap::with_hasher(FoldState::default()) });
        }
        &mut self.levels[at]
    }
}

fn specific(selector: &Selector) -> bool {
    !selector.is_address_only()
}

impl Level {
    fn enter(&mut self, prefix: u128, entry: Entry) {
        match self.table.entry(prefix) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Bucket { first: entry, rest: Vec::new() });
            }
            std::collections::hash_map::Entry::Occupied(mut occupied) => {
                let bucket = occupied.get_mut();
                if entry.rank > bucket.first.rank {
                    let second = std::mem::replace(&mut bucket.first, entry);
                    bucket.rest.insert(0, second);
                } else {
                    let at = bucket.rest.partition_point(|other| other.rank > entry.rank);
                    bucket.rest.insert(at, entry);
                }
            }
        }
    }

    fn take_out(&mut self, prefix: u128, reqid: u32) {
        let Some(bucket) = self.table.get_mut(&prefix) else { return };
        bucket.rest.retain(|entry| entry.policy.reqid != reqid);
        if bucket.first.policy.reqid == reqid {
            if bucket.rest.is_empty() {
                self.table.remove(&prefix);
            } else {
                bucket.first = bucket.rest.remove(0);
            }
        }
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

/// A hash for addresses: one multiplication. The keys are random per table, for selectors are in part the peers' choice.
#[derive(Clone, Debug)]
struct FoldState(u64, u64);

impl Default for FoldState {
    fn default() -> Self {
        let random = std::collections::hash_map::RandomState::new();
        Self(random.hash_one(0_u64) | 1, random.hash_one(1_u64))
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
        let product = u128::from(high ^ self.keys.0) * u128::from(low ^ self.keys.1)
            + u128::from(high.rotate_left(32).wrapping_mul(self.keys.0));
        self.hash = (((product >> 64) as u64) ^ (product as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash ^= self.hash >> 32;
    }
    #[inline]
    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.hash = (self.hash ^ u64::from(*octet)).wrapping_mul(self.keys.0);
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
    fn the_local_side_counts_too() {
        let mut spd = Spd::default();
        spd.insert(policy(1), pair(range(7, 7), range(0, u128::MAX)));
        assert_eq!(spd.lookup(&flow(7, 300, 6, OPEN)), Some(policy(1)));
        assert_eq!(spd.lookup(&flow(8, 300, 6, OPEN)), None);
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let port = 0_u16..4;
        (0_u128..20, 0_u128..20, prop::sample::select(vec![0_u8, 6]), port.clone(), port, prop::bool::ANY)
            .prop_map(|(a, b, protocol, c, d, whole)| {
                let (start_port, end_port) = if whole || protocol == 0 { (0, 65535) } else { (c, d) };
                Selector { first: a.min(b), last: a.max(b), protocol, start_port, end_port }
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        /// A lookup finds something exactly where a plain list does, and what it finds fits.
        #[test]
        fn equals_a_plain_list(
            entries in proptest::collection::vec((selector(), selector()), 0..12),
            gone in 0_u32..12,
            source in 0_u128..20, destination in 0_u128..20, proto in prop::sample::select(vec![6_u8, 17]), port in 0_u16..4,
        ) {
            let mut spd = Spd::default();
            let mut list = Vec::new();
            for (i, (local, remote)) in entries.iter().enumerate() {
                spd.insert(policy(i as u32), pair(*local, *remote));
                list.push(pair(*local, *remote));
            }
            spd.remove(gone);
            let flow = flow(source, destination, proto, Ports::Known(port, port));
            let fits = |i: u32| i != gone && list[i as usize].matches_outbound(&flow);
            match spd.lookup(&flow) {
                Some(policy) => prop_assert!(fits(policy.reqid)),
                None => prop_assert!(!(0..list.len() as u32).any(fits)),
            }
        }
    }
}
