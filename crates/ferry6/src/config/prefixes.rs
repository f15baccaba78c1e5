//! The prefixes of a broker's `[pool]`.

use super::broker::Pool;
use super::reader::{Document, Found, Section};
use super::values::{self, Range6};
use ferry6_ike::wire::config::SHORTEST_PREFIX;
use ferry6_ike::{Identity, Prefix6};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// What an operator would give a user whose LAN is one link (RFC 4291 section 2.5.4: interface identifiers of 64 bits).
const LENGTH: u8 = 64;

/// A pool with its prefixes, and nothing else; `ranges` are its addresses.
pub(super) fn read(section: &Section<'_>, ranges: Option<&Found<Vec<Found<Range6>>>>) -> Pool {
    let document = section.document();
    let from = section.list("prefixes", "an IPv6 prefix like \"2a00:0:0:1000::/52\"", str::parse::<Prefix6>);
    let from = from.map_or_else(Vec::new, |f| f.value);
    let length = section.number("prefix_length", u64::from(SHORTEST_PREFIX)..129);
    let prefix_length = length.as_ref().and_then(|f| u8::try_from(f.value).ok()).unwrap_or(LENGTH);
    for (n, prefix) in from.iter().enumerate() {
        check(document, prefix, ranges);
        if let Some(other) = from[..n].iter().find(|o| o.value.overlaps(prefix.value)) {
            document.problem(prefix, format!("overlaps with {}", other.value));
        }
        if prefix.value.len > prefix_length {
            let text = format!(
                "a user gets a /{prefix_length} (pool.prefix_length), which does not fit into {}",
                prefix.value
            );
            document.problem(length.as_ref().map_or(prefix, |_| prefix), text);
        }
    }
    if length.is_some() && from.is_empty() {
        document.warn(
            "pool.prefix_length: there are no pool.prefixes to take prefixes of this length from".to_owned(),
        );
    }
    let mut fixed = BTreeMap::new();
    for (who, text) in section.map("fixed_prefixes", "identity = \"prefix\"") {
        let (Some(id), Some(prefix)) = (
            document.convert(who, |who| values::identity(who)),
            document.convert(text, |text| text.parse::<Prefix6>()),
        ) else {
            continue;
        };
        check(document, &prefix, ranges);
        if let Some(text) = overlap(&fixed, &id.value, prefix.value) {
            document.problem(&prefix, text);
        }
        if fixed.insert(id.value.clone(), prefix.value).is_some() {
            document.problem(&id, format!("{} has a fixed prefix already", id.value));
        }
    }
    Pool {
        prefixes: from.into_iter().map(|f| f.value).collect(),
        prefix_length,
        fixed_prefixes: fixed,
        ..Pool::default()
    }
}

/// Why a prefix can't be fixed for an identity beside these others. One that is nested in another is refused even where both are the
/// same identity's: whoever looks for what overlaps relies on it.
pub(super) fn overlap(
    fixed: &BTreeMap<Identity, Prefix6>,
    identity: &Identity,
    prefix: Prefix6,
) -> Option<String> {
    let (other, theirs) =
        fixed.iter().find(|(id, p)| p.overlaps(prefix) && (*id != identity || **p != prefix))?;
    Some(format!("{prefix} overlaps with {theirs}, which is {other}'s already"))
}

/// The entry of a map of prefixes by their first addresses that overlaps with this one. As they do not overlap among each other, it
/// is the last that begins in it or before it.
pub(crate) fn overlapping<T>(
    map: &BTreeMap<Ipv6Addr, T>,
    prefix: Prefix6,
    len: impl Fn(&T) -> u8,
) -> Option<(Prefix6, &T)> {
    let (address, value) = map.range(..=prefix.last()).next_back()?;
    let other = Prefix6 { address: *address, len: len(value) };
    other.overlaps(prefix).then_some((other, value))
}

/// What is whose in all pools, found quickly, for files with many users.
#[derive(Default)]
pub(super) struct Owners {
    addresses: BTreeMap<Ipv6Addr, Identity>,
    prefixes: BTreeMap<Ipv6Addr, (u8, Identity)>,
}

impl Owners {
    pub(super) fn of<'p>(pools: impl Iterator<Item = &'p Pool>) -> Self {
        let mut this = Self::default();
        for pool in pools {
            pool.fixed.iter().for_each(|(identity, address)| this.add_address(identity, *address));
            pool.fixed_prefixes.iter().for_each(|(identity, prefix)| this.add_prefix(identity, *prefix));
        }
        this
    }

    pub(super) fn add_address(&mut self, identity: &Identity, address: Ipv6Addr) {
        self.addresses.insert(address, identity.clone());
    }

    pub(super) fn add_prefix(&mut self, identity: &Identity, prefix: Prefix6) {
        self.prefixes.insert(prefix.address, (prefix.len, identity.clone()));
    }

    /// Whose an address is.
    pub(super) fn of_address(&self, address: Ipv6Addr) -> Option<&Identity> {
        self.addresses.get(&address)
    }

    /// What overlaps with a prefix, and whose it is.
    pub(super) fn of_prefix(&self, prefix: Prefix6) -> Option<(Prefix6, &Identity)> {
        overlapping(&self.prefixes, prefix, |(len, _)| *len).map(|(other, (_, owner))| (other, owner))
    }
}

/// Why an address can't be fixed for an identity beside the prefixes of a pool and those that have `owners`: whoever has a prefix may
/// send from all of it. `own` is the identity's.
pub(super) fn anothers(
    pool: &Pool,
    owners: &Owners,
    identity: &Identity,
    own: Option<&Prefix6>,
    address: Ipv6Addr,
) -> Option<String> {
    if own.is_some_and(|prefix| prefix.contains(address)) {
        return None;
    }
    let lies = |prefix: &Prefix6| format!("{address} of {identity} lies in {prefix}, which is");
    if let Some((prefix, owner)) = owners.of_prefix(Prefix6 { address, len: 128 })
        && owner != identity
    {
        return Some(format!("{} {owner}'s", lies(&prefix)));
    }
    let prefix = pool.prefixes.iter().find(|p| p.contains(address))?;
    Some(format!(
        "{} for the prefixes of others; take another, or fix a prefix for {identity} that it lies in",
        lies(prefix)
    ))
}

fn check(document: &Document, prefix: &Found<Prefix6>, ranges: Option<&Found<Vec<Found<Range6>>>>) {
    let value = prefix.value;
    if let Some(text) = fault(value) {
        document.problem(prefix, text);
    }
    if let Some(other) = ranges.iter().flat_map(|r| &r.value).find(|r| r.value.overlaps(value.into())) {
        document.problem(prefix, format!("overlaps with the addresses of pool.range, {}", other.value));
    }
}

/// Why it cannot be somebody's.
pub(crate) fn fault(prefix: Prefix6) -> Option<String> {
    let none_of = ["::/8", "fe80::/10", "ff00::/8"];
    if none_of.iter().any(|other| other.parse().is_ok_and(|other: Prefix6| other.overlaps(prefix))) {
        return Some(format!("{prefix} is no prefix of unicast addresses of more than one link"));
    }
    (prefix.len < SHORTEST_PREFIX).then(|| {
        format!("{prefix} is shorter than /{SHORTEST_PREFIX}: no client believes that it has so much")
    })
}
