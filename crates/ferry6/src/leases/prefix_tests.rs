use super::*;
use crate::config::values::range6;
use ferry6_ike::config::PrefixWish;
use proptest::prelude::*;

fn pool(prefixes: &[&str], length: u8, fixed: &[(&str, &str)]) -> Pool {
    Pool {
        ranges: vec![range6("2a00::/112").unwrap()],
        prefixes: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
        prefix_length: length,
        fixed_prefixes: fixed.iter().map(|(id, p)| (id.parse().unwrap(), p.parse().unwrap())).collect(),
        ..Pool::default()
    }
}

fn pools(pool: Pool) -> BTreeMap<String, Pool> {
    BTreeMap::from([("clients".to_owned(), pool)])
}

fn open(dir: &Path, pool: Pool) -> Leases {
    Leases::open_with_clock(dir, pools(pool), [], tests::ticking).unwrap()
}

fn ask_for(leases: &mut Leases, ike: u64, who: &str, prefix: PrefixWish) -> Option<String> {
    let identity: Identity = who.parse().unwrap();
    let ike = IkeSaId(ike);
    let request = LeaseRequest { ike, connection: "clients", identity: &identity, wanted: None, prefix };
    leases.assign(&request).unwrap().prefix.map(|p| p.to_string())
}

fn ask(leases: &mut Leases, ike: u64, who: &str) -> Option<String> {
    ask_for(leases, ike, who, PrefixWish::Any)
}

fn this(text: &str) -> PrefixWish {
    PrefixWish::This(text.parse().unwrap())
}

#[test]
fn the_lowest_free_one_for_who_asks_and_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let of = || pool(&["2a00:1::/60"], 64, &[("fixed@x.y", "2a00:1:0:1::/64"), ("far@x.y", "2a00:9::/56")]);
    let mut leases = open(dir.path(), of());
    assert_eq!(ask_for(&mut leases, 1, "nobody@x.y", PrefixWish::None), None);
    assert_eq!(ask(&mut leases, 2, "a@x.y").unwrap(), "2a00:1::/64");
    assert_eq!(ask(&mut leases, 3, "b@x.y").unwrap(), "2a00:1:0:2::/64", "that between is fixed");
    // By its name, even without a word about it.
    assert_eq!(ask_for(&mut leases, 4, "fixed@x.y", PrefixWish::None).unwrap(), "2a00:1:0:1::/64");
    assert_eq!(ask_for(&mut leases, 5, "far@x.y", this("2a00:1:0:7::/64")).unwrap(), "2a00:9::/56");
    // A wish is granted where it is free and what the pool gives; nobody gets another's.
    assert_eq!(ask_for(&mut leases, 6, "c@x.y", this("2a00:1:0:7::/64")).unwrap(), "2a00:1:0:7::/64");
    assert_eq!(ask_for(&mut leases, 7, "d@x.y", this("2a00:1::/64")).unwrap(), "2a00:1:0:3::/64");
    assert_eq!(ask_for(&mut leases, 8, "e@x.y", this("2a00:1:0:1::/64")).unwrap(), "2a00:1:0:4::/64");
    assert_eq!(ask_for(&mut leases, 9, "f@x.y", this("2a00:1::/60")).unwrap(), "2a00:1:0:5::/64");
    let in_use: BTreeSet<String> = leases.in_use().iter().map(ToString::to_string).collect();
    assert!(in_use.contains("2a00:9::/56") && in_use.contains("2a00:1:0:7::/64"), "{in_use:?}");
    assert_eq!(leases.status().iter().filter(|l| l.prefix.is_some()).count(), 8);
    drop(leases);
    let mut leases = open(dir.path(), of());
    assert_eq!(ask(&mut leases, 1, "c@x.y").unwrap(), "2a00:1:0:7::/64");
    assert_eq!(ask_for(&mut leases, 2, "b@x.y", this("2a00:1:0:9::/64")).unwrap(), "2a00:1:0:2::/64");
    assert_eq!(ask(&mut leases, 3, "new@x.y").unwrap(), "2a00:1:0:6::/64");
}

#[test]
fn an_exhausted_pool_takes_what_was_unused_for_longest() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool(&["2a00:1::/63"], 64, &[]));
    assert!(ask(&mut leases, 1, "a@x.y").is_some() && ask(&mut leases, 2, "b@x.y").is_some());
    assert_eq!(ask(&mut leases, 3, "c@x.y"), None, "both are in use");
    leases.release(IkeSaId(2));
    leases.release(IkeSaId(1));
    assert_eq!(ask(&mut leases, 4, "c@x.y").unwrap(), "2a00:1:0:1::/64", "b's, who left first");
    assert_eq!(ask(&mut leases, 5, "b@x.y").unwrap(), "2a00:1::/64", "then a's");
    assert_eq!(ask(&mut leases, 6, "a@x.y"), None);
    drop(leases);
    let mut leases = open(dir.path(), pool(&["2a00:1::/63"], 64, &[]));
    assert_eq!(ask(&mut leases, 1, "c@x.y").unwrap(), "2a00:1:0:1::/64");
    assert_eq!(ask(&mut leases, 2, "b@x.y").unwrap(), "2a00:1::/64");
}

#[test]
fn other_pools_leave_what_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool(&["2a00:1::/60"], 64, &[]));
    assert_eq!(ask(&mut leases, 1, "a@x.y").unwrap(), "2a00:1::/64");
    // It is somebody else's now; and a has another of its own.
    let fixed = [("b@x.y", "2a00:1::/64"), ("a@x.y", "2a00:2::/56")];
    leases.set_pools(pools(pool(&["2a00:1::/60"], 64, &fixed)));
    assert_eq!(ask(&mut leases, 2, "b@x.y"), None, "a uses it");
    assert_eq!(ask(&mut leases, 3, "a@x.y").unwrap(), "2a00:2::/56");
    leases.release(IkeSaId(1));
    leases.release(IkeSaId(2));
    assert_eq!(ask(&mut leases, 4, "b@x.y").unwrap(), "2a00:1::/64");
    // A longer one, and a shorter one that covers two.
    leases.set_pools(pools(pool(&["2a00:1::/48"], 56, &[])));
    assert_eq!(ask(&mut leases, 5, "c@x.y").unwrap(), "2a00:1:0:100::/56", "b's lies in the first");
    for ike in [3, 4, 5] {
        leases.release(IkeSaId(ike));
    }
    assert_eq!(leases.in_use().len(), 0, "{:?}", leases.in_use());
}

#[test]
fn what_no_pool_gives_any_more_is_told_only_while_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool(&["2a00:1::/60"], 64, &[]));
    let told = |leases: &Leases| leases.status().into_iter().find_map(|l| l.prefix);
    assert!(ask(&mut leases, 1, "a@x.y").is_some());
    leases.set_pools(pools(pool(&[], 64, &[])));
    assert_eq!(told(&leases).unwrap(), "2a00:1::/64");
    leases.release(IkeSaId(1));
    assert_eq!(told(&leases), None);
    // It is not forgotten.
    leases.set_pools(pools(pool(&["2a00:1::/60"], 64, &[])));
    assert_eq!(told(&leases).unwrap(), "2a00:1::/64");
    leases.set_pools(pools(pool(&[], 64, &[("a@x.y", "2a00:1::/64")])));
    assert_eq!(told(&leases).unwrap(), "2a00:1::/64");
}

#[test]
fn several_tunnels_of_one_identity() {
    let dir = tempfile::tempdir().unwrap();
    let several = Pool { several: true, ..pool(&["2a00:1::/60"], 64, &[]) };
    let mut leases = open(dir.path(), several);
    assert_eq!(ask(&mut leases, 1, "a@x.y").unwrap(), "2a00:1::/64");
    assert_eq!(ask(&mut leases, 2, "a@x.y"), None);
    leases.release(IkeSaId(1));
    assert_eq!(ask(&mut leases, 3, "a@x.y").unwrap(), "2a00:1::/64");
    // Where a new tunnel replaces the old one, it has the prefix while both stand.
    let mut leases = open(tempfile::tempdir().unwrap().path(), pool(&["2a00:1::/60"], 64, &[]));
    assert_eq!(ask(&mut leases, 1, "a@x.y").unwrap(), "2a00:1::/64");
    assert_eq!(ask(&mut leases, 2, "a@x.y").unwrap(), "2a00:1::/64");
    leases.release(IkeSaId(1));
    assert!(leases.in_use().iter().any(|p| p.len == 64));
}

#[test]
fn the_brokers_own_addresses_are_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    let own = ["2a00:1::1".parse().unwrap()];
    let mut leases = Leases::open(dir.path(), pools(pool(&["2a00:1::/60"], 64, &[])), own).unwrap();
    assert_eq!(ask(&mut leases, 1, "a@x.y").unwrap(), "2a00:1:0:1::/64");
}

#[test]
fn a_large_pool_is_quick() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool(&["2a00:1::/32"], 96, &[]));
    let start = std::time::Instant::now();
    for n in 0..2000_u64 {
        assert!(ask(&mut leases, n, &format!("u{n}@x.y")).is_some());
    }
    // Each of them is made durable; none may walk over all that came before.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn records_of_another_length_are_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool(&["2a00:1::/62"], 64, &[]));
    for ike in 0..4 {
        assert!(ask(&mut leases, ike, &format!("u{ike}@x.y")).is_some());
    }
    for ike in 0..3 {
        leases.release(IkeSaId(ike));
    }
    // Nobody gets a /64 of it any more; the one that is in use stays.
    let wide = || pool(&["2a00:1::/62"], 63, &[]);
    leases.set_pools(pools(wide()));
    assert_eq!(ask(&mut leases, 5, "a@x.y").unwrap(), "2a00:1::/63");
    assert_eq!(ask(&mut leases, 6, "b@x.y"), None, "u3 uses a part of the second");
    leases.release(IkeSaId(3));
    assert_eq!(ask(&mut leases, 7, "b@x.y").unwrap(), "2a00:1:0:2::/63");
    // The store has some of the old ones still.
    drop(leases);
    let mut leases = open(dir.path(), wide());
    assert_eq!(ask(&mut leases, 1, "b@x.y").unwrap(), "2a00:1:0:2::/63");
    assert_eq!(ask(&mut leases, 2, "a@x.y").unwrap(), "2a00:1::/63");
    assert!(leases.status().iter().all(|l| l.prefix.as_ref().is_none_or(|p| p.ends_with("/63"))));
}

#[test]
fn a_prefix_that_was_taken_away_is_not_its_former_users_after_a_restart() {
    // All within one second: no time of use tells who is the later one.
    let open = |dir: &Path| {
        Leases::open_with_clock(dir, pools(pool(&["2a00:1::/64"], 64, &[])), [], || 1_000).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path());
    assert!(ask(&mut leases, 1, "a@x.y").is_some());
    leases.release(IkeSaId(1));
    assert!(ask(&mut leases, 2, "b@x.y").is_some());
    drop(leases);
    let leases = open(dir.path());
    let kept: Vec<String> =
        leases.status().into_iter().filter(|l| l.prefix.is_some()).map(|l| l.identity).collect();
    assert_eq!(kept, ["b@x.y"]);
}

#[test]
fn what_one_uses_as_an_address_is_in_no_others_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let mut leases = open(dir.path(), pool(&[], 64, &[]));
    let address = |leases: &mut Leases, ike, who: &str| {
        let identity: Identity = who.parse().unwrap();
        let prefix = PrefixWish::None;
        let request = LeaseRequest {
            ike: IkeSaId(ike),
            connection: "clients",
            identity: &identity,
            wanted: None,
            prefix,
        };
        leases.assign(&request).ok().and_then(|l| l.address).map(|a| a.to_string())
    };
    assert_eq!(address(&mut leases, 1, "a@x.y").unwrap(), "2a00::1");
    // The addresses are others now, and prefixes stand in the place of the old ones, while the tunnel stands.
    let other = |fixed: &[(&str, &str)]| Pool {
        ranges: vec![range6("2a00:5::/112").unwrap()],
        ..pool(&["2a00::/62"], 64, fixed)
    };
    leases.set_pools(pools(other(&[("c@x.y", "2a00::/64")])));
    assert_eq!(ask(&mut leases, 2, "b@x.y").unwrap(), "2a00:0:0:1::/64");
    assert_eq!(ask(&mut leases, 3, "c@x.y"), None, "a has an address in it until its tunnel ends");
    leases.set_pools(pools(other(&[])));
    assert_eq!(ask(&mut leases, 4, "d@x.y").unwrap(), "2a00:0:0:2::/64");
    leases.release(IkeSaId(1));
    assert_eq!(ask(&mut leases, 5, "e@x.y").unwrap(), "2a00::/64");
    // And the other way round: a's former address is an address again, in the prefix that e uses.
    leases.set_pools(pools(pool(&[], 64, &[])));
    assert_eq!(address(&mut leases, 6, "a@x.y"), None);
    leases.release(IkeSaId(5));
    assert_eq!(address(&mut leases, 7, "a@x.y").unwrap(), "2a00::1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_two_identities_share_an_address(
        steps in proptest::collection::vec((0..6_u64, 0..4_u8, 0..8_u8, any::<bool>()), 1..60)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut leases = open(dir.path(), pool(&["2a00:1::/61"], 64, &[("u5@x.y", "2a00:1:0:2::/63")]));
        let mut held: HashMap<u64, (u64, Prefix6)> = HashMap::new();
        for (n, (who, wish, which, leave)) in (0_u64..).zip(steps) {
            if leave {
                held.retain(|ike, (owner, _)| {
                    if *owner == who {
                        leases.release(IkeSaId(*ike));
                    }
                    *owner != who
                });
                continue;
            }
            let wish = match wish {
                0 => PrefixWish::None,
                1 => this(&format!("2a00:1:0:{which}::/64")),
                _ => PrefixWish::Any,
            };
            if let Some(prefix) = ask_for(&mut leases, n, &format!("u{who}@x.y"), wish) {
                held.insert(n, (who, prefix.parse().unwrap()));
            }
            for (owner, prefix) in held.values() {
                for (other, theirs) in held.values() {
                    prop_assert!(owner == other || !prefix.overlaps(*theirs), "{held:?}");
                }
            }
        }
    }
}
