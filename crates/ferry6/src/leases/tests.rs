use super::*;
use crate::config::values::range6;
use ferry6_ike::config::PrefixWish;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// A clock that moves at each look, so that "unused for longest" has one answer.
pub(super) fn ticking() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(1_000);
    NOW.fetch_add(1, Ordering::Relaxed)
}

fn pool(range: &str, fixed: &[(&str, &str)]) -> Pool {
    Pool {
        ranges: vec![range6(range).unwrap()],
        fixed: fixed.iter().map(|(id, a)| (id.parse().unwrap(), a.parse().unwrap())).collect(),
        ..Pool::default()
    }
}

fn pools(pool: Pool) -> BTreeMap<String, Pool> {
    BTreeMap::from([("clients".to_owned(), pool)])
}

fn open(dir: &Path, pool: Pool) -> Leases {
    Leases::open_with_clock(dir, pools(pool), [], ticking).unwrap()
}

fn ask(leases: &mut Leases, ike: u64, who: &str, wanted: Option<&str>) -> Result<String, String> {
    let identity: Identity = who.parse().unwrap();
    let request = LeaseRequest {
        ike: IkeSaId(ike),
        connection: "clients",
        identity: &identity,
        wanted: wanted.map(|w| w.parse().unwrap()),
        prefix: PrefixWish::None,
    };
    leases.assign(&request).map(|l| l.address.unwrap().to_string()).map_err(|e| e.to_string())
}

#[test]
fn lowest_free_and_never_the_anycast_address() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool("2a00::100/120", &[]));
    assert_eq!(ask(&mut leases, 1, "a@x.y", None).unwrap(), "2a00::101");
    assert_eq!(ask(&mut leases, 2, "b@x.y", None).unwrap(), "2a00::102");
    // It may ask for one, but not for somebody's, the anycast address, or one outside of the pool.
    assert_eq!(ask(&mut leases, 3, "c@x.y", Some("2a00::150")).unwrap(), "2a00::150");
    assert_eq!(ask(&mut leases, 4, "d@x.y", Some("2a00::101")).unwrap(), "2a00::103");
    assert_eq!(ask(&mut leases, 5, "e@x.y", Some("2a00::100")).unwrap(), "2a00::104");
    assert_eq!(ask(&mut leases, 6, "f@x.y", Some("2a00::1")).unwrap(), "2a00::105");
    // The same identity, in other letters.
    assert_eq!(ask(&mut leases, 7, "a@X.Y", None).unwrap(), "2a00::101");
}

#[test]
fn reserved_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let own = ["2a00::1".parse().unwrap(), "2a00::2".parse().unwrap()];
    let mut leases = Leases::open(dir.path(), pools(pool("2a00::/126", &[])), own).unwrap();
    assert_eq!(ask(&mut leases, 1, "a@x.y", None).unwrap(), "2a00::3");
    let error = ask(&mut leases, 2, "b@x.y", None).unwrap_err();
    assert_eq!(
        error,
        "no address for b@x.y: all of 2a00::/126 are leased and in use; make pool.range larger"
    );
    // A pool of a single address has no anycast address.
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(ask(&mut open(dir.path(), pool("2a00::7/128", &[])), 1, "a@x.y", None).unwrap(), "2a00::7");
    // Windows takes no address that ends in "::".
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool("2a00::ffff:ffff-2a00:0:0:0:0:1::5", &[]));
    assert_eq!(ask(&mut leases, 1, "a@x.y", None).unwrap(), "2a00::ffff:ffff");
    assert_eq!(ask(&mut leases, 2, "b@x.y", None).unwrap(), "2a00::1:0:1");
}

#[test]
fn the_same_address_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut leases = open(dir.path(), pool("2a00::100/120", &[]));
        ask(&mut leases, 1, "a@x.y", None).unwrap();
        ask(&mut leases, 2, "CN=b", None).unwrap();
        leases.release(IkeSaId(1));
        let in_use = Leases::open(dir.path(), BTreeMap::new(), []).err().unwrap().to_string();
        assert!(in_use.contains("leases.redb is in use by another process"), "{in_use}");
    }
    let mut leases = open(dir.path(), pool("2a00::100/120", &[]));
    assert_eq!(ask(&mut leases, 1, "c@x.y", None).unwrap(), "2a00::103");
    assert_eq!(ask(&mut leases, 2, "cn=B", None).unwrap(), "2a00::102");
    assert_eq!(ask(&mut leases, 3, "a@x.y", None).unwrap(), "2a00::101");
}

#[test]
fn a_crash_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool("2a00::100/120", &[]));
    ask(&mut leases, 1, "a@x.y", None).unwrap();
    // What is on the disk now is what a killed process leaves: nothing was closed.
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join(FILE), copy.path().join(FILE)).unwrap();
    let mut leases = open(copy.path(), pool("2a00::100/120", &[]));
    assert_eq!(ask(&mut leases, 1, "b@x.y", None).unwrap(), "2a00::102");
    assert_eq!(ask(&mut leases, 2, "a@x.y", None).unwrap(), "2a00::101");
}

#[test]
fn fixed_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let fixed = [("a@x.y", "2a00::102"), ("b@x.y", "2a00::999")];
    let mut leases = open(dir.path(), pool("2a00::100/120", &fixed));
    assert_eq!(ask(&mut leases, 1, "c@x.y", None).unwrap(), "2a00::101");
    // Not to others, whoever asks first.
    assert_eq!(ask(&mut leases, 2, "d@x.y", Some("2a00::102")).unwrap(), "2a00::103");
    assert_eq!(ask(&mut leases, 3, "a@x.y", Some("2a00::150")).unwrap(), "2a00::102");
    assert_eq!(ask(&mut leases, 4, "b@x.y", None).unwrap(), "2a00::999");
    drop(leases);
    // The address of c is given to e now: c gets another one.
    let mut leases = open(dir.path(), pool("2a00::100/120", &[("e@x.y", "2a00::101")]));
    assert_eq!(ask(&mut leases, 1, "c@x.y", None).unwrap(), "2a00::104");
    assert_eq!(ask(&mut leases, 2, "e@x.y", None).unwrap(), "2a00::101");
    let status = leases.status();
    let e = status.iter().find(|l| l.identity == "e@x.y").unwrap();
    assert!(e.fixed && e.ike == [2]);
}

#[test]
fn who_had_an_address_last_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        ask(&mut open(dir.path(), pool("2a00::100/120", &[])), 1, "c@x.y", None).unwrap(),
        "2a00::101"
    );
    // The address is given to e, and c does not come while it is.
    let mut leases = open(dir.path(), pool("2a00::100/120", &[("e@x.y", "2a00::101")]));
    assert_eq!(ask(&mut leases, 1, "e@x.y", None).unwrap(), "2a00::101");
    drop(leases);
    let mut leases = open(dir.path(), pool("2a00::100/120", &[]));
    assert_eq!(ask(&mut leases, 1, "c@x.y", None).unwrap(), "2a00::102");
    assert_eq!(ask(&mut leases, 2, "e@x.y", None).unwrap(), "2a00::101");
}

#[test]
fn an_exhausted_pool_takes_what_was_unused_for_longest() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool("2a00::100/126", &[]));
    for (ike, who) in [(1, "a@x.y"), (2, "b@x.y"), (3, "c@x.y")] {
        ask(&mut leases, ike, who, None).unwrap();
    }
    assert!(ask(&mut leases, 4, "d@x.y", None).is_err(), "all are in use");
    leases.release(IkeSaId(2));
    leases.release(IkeSaId(1));
    assert_eq!(ask(&mut leases, 5, "d@x.y", None).unwrap(), "2a00::102", "b left first");
    assert_eq!(ask(&mut leases, 6, "b@x.y", None).unwrap(), "2a00::101", "then a");
    assert!(ask(&mut leases, 7, "a@x.y", None).is_err());
}

#[test]
fn several_tunnels_of_one_identity() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), Pool { several: true, ..pool("2a00::100/120", &[]) });
    assert_eq!(ask(&mut leases, 1, "a@x.y", None).unwrap(), "2a00::101");
    assert_eq!(ask(&mut leases, 2, "a@x.y", None).unwrap(), "2a00::102");
    // An IKE SA that asks twice has one address.
    assert_eq!(ask(&mut leases, 2, "a@x.y", None).unwrap(), "2a00::102");
    leases.release(IkeSaId(2));
    assert_eq!(ask(&mut leases, 3, "b@x.y", None).unwrap(), "2a00::102", "the second one was not kept");
    // With unique = "replace" the new tunnel takes the address over from the old one.
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool("2a00::100/120", &[]));
    assert_eq!(ask(&mut leases, 1, "a@x.y", None), ask(&mut leases, 2, "a@x.y", None));
    leases.release(IkeSaId(1));
    let status = leases.status();
    assert_eq!((status.len(), &status[0].ike[..]), (1, &[2][..]));
}

#[test]
fn connections_without_a_pool_and_stores_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool("2a00::100/120", &[]));
    let identity = "a@x.y".parse().unwrap();
    let request = LeaseRequest {
        ike: IkeSaId(1),
        connection: "other",
        identity: &identity,
        wanted: None,
        prefix: PrefixWish::None,
    };
    let error = leases.assign(&request).unwrap_err().to_string();
    assert_eq!(error, "no address for a@x.y: connection \"other\" has no pool");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE), b"this is no database").unwrap();
    let error = Leases::open(dir.path(), BTreeMap::new(), []).err().unwrap().to_string();
    assert!(error.contains("cannot open the leases"), "{error}");
    let file = dir.path().join(FILE).join("below");
    assert!(Leases::open(&file, BTreeMap::new(), []).is_err());
}

#[test]
fn a_large_pool_is_quick() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool("2a00::/64", &[]));
    {
        // Durable commits are the disk's time; here it is ours that counts.
        let mut state = leases.lock();
        for n in 1..=50_000_u32 {
            let identity: Identity = format!("client{n}@x.y").parse().unwrap();
            let address = Ipv6Addr::from_bits(0x2a00 << 112 | u128::from(n));
            state.adopt(identity, Record { address, last_used: 0 });
        }
    }
    let begin = std::time::Instant::now();
    for n in 0..100 {
        assert_eq!(
            ask(&mut leases, n, &format!("new{n}@x.y"), None).unwrap(),
            Ipv6Addr::from_bits(0x2a00 << 112 | u128::from(50_001 + n)).to_string()
        );
    }
    // One walk over 50,000 addresses, not a hundred; generous, for slow disks and debug builds.
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}

#[derive(Clone, Debug)]
enum Step {
    Assign { ike: u64, who: u8, wanted: Option<u8> },
    Release { ike: u64 },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..12_u64, 0..10_u8, proptest::option::of(0..20_u8))
            .prop_map(|(ike, who, wanted)| Step::Assign { ike, who, wanted }),
        5 => (0..12_u64).prop_map(|ike| Step::Release { ike }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever happens: no two identities share an address that is in use, no reserved address is ever given, a fixed
    /// one goes to its owner alone, and a restart changes nothing.
    #[test]
    fn no_two_identities_share_an_address(steps in steps(), several in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let make = || Pool { several, ..pool("2a00::10/125", &[("who0@x.y", "2a00::12")]) };
        let mut leases = open(dir.path(), make());
        let mut active: BTreeMap<u64, (u8, String)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Assign { ike, who, wanted } => {
                    // An IKE SA has one identity for all its life.
                    let who = active.get(&ike).map_or(who, |(w, _)| *w);
                    let wanted = wanted.map(|n| format!("2a00::{:x}", 0x10 + u16::from(n)));
                    let Ok(address) = ask(&mut leases, ike, &format!("who{who}@x.y"), wanted.as_deref()) else {
                        let mut held: Vec<&str> = active.values().map(|(_, a)| a.as_str()).collect();
                        held.sort_unstable();
                        held.dedup();
                        // Seven addresses, one of which is who0's.
                        let free = 6 - held.iter().filter(|a| **a != "2a00::12").count();
                        prop_assert_eq!(free, 0, "refused although there are free ones");
                        continue;
                    };
                    prop_assert_ne!(&address, "2a00::10");
                    if address == "2a00::12" {
                        prop_assert_eq!(who, 0);
                    }
                    for (other, (identity, held)) in &active {
                        if *held == address && *other != ike {
                            prop_assert!(*identity == who && !several, "{} and {} on {}", identity, who, held);
                        }
                    }
                    active.insert(ike, (who, address));
                }
                Step::Release { ike } => {
                    active.remove(&ike);
                    leases.release(IkeSaId(ike));
                }
                Step::Restart => {
                    let before: Vec<(Ipv6Addr, String)> = leases
                        .status()
                        .into_iter()
                        .filter(|l| several || !l.fixed)
                        .map(|l| (l.address, l.identity))
                        .collect();
                    drop(leases);
                    active.clear();
                    leases = open(dir.path(), make());
                    let after: Vec<(Ipv6Addr, String)> =
                        leases.status().into_iter().map(|l| (l.address, l.identity)).collect();
                    if !several {
                        for lease in &before {
                            prop_assert!(after.contains(lease), "{:?} is forgotten", lease);
                        }
                    }
                }
            }
        }
    }
}

/// The pools change under a running broker.
#[test]
fn other_pools_leave_what_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool("2a00::100/120", &[]));
    assert_eq!(ask(&mut leases, 1, "a@x.y", None).unwrap(), "2a00::101");
    assert_eq!(ask(&mut leases, 2, "b@x.y", None).unwrap(), "2a00::102");
    leases.release(IkeSaId(2));
    // Both addresses are given to others: one is in use still, the other is free at once.
    leases.set_pools(pools(pool("2a00::100/120", &[("c@x.y", "2a00::101"), ("d@x.y", "2a00::102")])));
    assert_eq!(leases.in_use(), ["2a00::101/128".parse::<Prefix6>().unwrap()]);
    let error = ask(&mut leases, 3, "c@x.y", None).unwrap_err();
    assert_eq!(error, "2a00::101 is fixed for c@x.y, but a@x.y uses it until its tunnel ends");
    assert_eq!(ask(&mut leases, 4, "d@x.y", None).unwrap(), "2a00::102");
    leases.release(IkeSaId(1));
    assert_eq!(ask(&mut leases, 5, "c@x.y", None).unwrap(), "2a00::101");
    assert_eq!(ask(&mut leases, 6, "a@x.y", None).unwrap(), "2a00::103");
    // Another range altogether: who comes again gets one of it, even who was here before.
    leases.set_pools(pools(pool("2a00::200/120", &[])));
    leases.release(IkeSaId(6));
    assert_eq!(ask(&mut leases, 7, "a@x.y", None).unwrap(), "2a00::201");
    assert_eq!(ask(&mut leases, 8, "e@x.y", None).unwrap(), "2a00::202");
}
