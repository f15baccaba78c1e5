//! What is set for single users: off and on again, a time that ends, an address; and what their tunnels carried, which outlives
//! the broker. Needs root or user namespaces, and says so where it may not.

#![allow(clippy::unwrap_used)]

mod common;

use common::site::{World, done, ferry6, refused, site};
use common::text;
use serde_json::Value;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::{Duration, Instant};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn listed(d: &Path, name: &str) -> Value {
    let list = json(&done(&ferry6(d, &["broker", "list", "--dir", "b", "--json"])));
    list.as_array().unwrap().iter().find(|u| u["name"] == name).unwrap().clone()
}

#[test]
fn settings_are_kept_shown_and_refused_where_they_contradict() {
    let dir = site();
    let d = dir.path();
    let broker = |words: &[&str]| ferry6(d, &[&["broker"], words, &["--dir", "b"]].concat());
    done(&broker(&["invite", "alice", "--expires", "2100-01-31"]));
    assert_eq!(listed(d, "alice")["standing"], "valid");
    assert_eq!(listed(d, "alice")["expires"], 4_105_036_800_u64);
    let show = done(&broker(&["show", "alice"]));
    assert!(show.contains("valid, not let in from 2100-01-31 on"), "{show}");

    done(&broker(&["invite", "bob"]));
    let said = done(&broker(&["disable", "bob", "--reason", "laptop \"lost\""]));
    assert!(said.contains("bob is disabled") && said.contains("does not run"), "{said}");
    assert_eq!(listed(d, "bob")["standing"], "disabled");
    let show = done(&broker(&["show", "bob"]));
    assert!(show.contains("disabled: laptop \"lost\""), "{show}");
    // A disabled user is still an invited one.
    refused(&broker(&["invite", "bob", "--out", "again"]), "invited already");
    done(&broker(&["enable", "bob@ferry6"]));
    assert_eq!(listed(d, "bob")["standing"], "valid");
    let said = done(&broker(&["enable", "bob"]));
    assert!(said.contains("bob was not disabled"), "{said}");

    done(&broker(&["set", "bob", "--expires", "2020-01-01"]));
    assert_eq!(listed(d, "bob")["standing"], "expired");
    let said = done(&broker(&["set", "bob", "--expires", "never"]));
    assert!(said.contains("~ user bob@ferry6: expires 2020-01-01 -> never"), "{said}");
    assert_eq!(listed(d, "bob")["standing"], "valid");

    done(&broker(&["set", "alice", "--address", "2a00::142"]));
    let before = std::fs::read_to_string(d.join("b/users.toml")).unwrap();
    refused(&broker(&["set", "bob", "--address", "2a00::142"]), "2a00::142 is alice@ferry6's already");
    refused(&broker(&["set", "bob", "--address", "2a00::100"]), "anycast");
    refused(&broker(&["set", "bob", "--expires", "soon"]), "--expires");
    refused(&broker(&["set", "bob"]), "nothing to set");
    refused(&broker(&["invite", "dave", "--expires", "2020-01-01"]), "2020-01-01 is over already");
    refused(&broker(&["invite", "carol", "--address", "2a00::142"]), "alice@ferry6's already");
    assert!(!d.join("carol.ferry6").exists() && !d.join("b/users/carol.crt").exists());
    assert_eq!(std::fs::read_to_string(d.join("b/users.toml")).unwrap(), before);
    let unknown = broker(&["disable", "alise"]);
    assert!(text(&unknown).contains("do you mean alice?") && !unknown.status.success(), "{}", text(&unknown));

    // A fault of the file is told with its place, by the broker and by the commands.
    std::fs::write(d.join("b/users.toml"), "[[user]]\nid = \"alice@ferry6\"\nexpire = \"2100-01-01\"\n")
        .unwrap();
    let wanted = "b/users.toml:3:1: user.expire: unknown key; did you mean `expires`?";
    refused(&ferry6(d, &["broker", "--check", "--config", "b/broker.toml"]), wanted);
    refused(&broker(&["list"]), wanted);
    refused(&broker(&["disable", "alice"]), wanted);
}

#[test]
fn usage_of_a_broker_that_never_ran() {
    let dir = site();
    let d = dir.path();
    let usage = |words: &[&str]| ferry6(d, &[&["broker", "usage", "--dir", "b"], words].concat());
    assert_eq!(done(&usage(&[])), "nobody was here yet\n");
    done(&ferry6(d, &["broker", "invite", "alice", "--dir", "b"]));
    assert!(done(&usage(&[])).contains("never"));
    assert_eq!(json(&done(&usage(&["--json"])))[0]["total"]["bytes_in"], 0);
    refused(&usage(&["alise"]), "do you mean alice?");
    refused(&usage(&["--month", "11-2026x"]), "--month");
    refused(&ferry6(d, &["broker", "usage", "--dir", "elsewhere"]), "do that first");
}

impl World {
    fn at_broker(&self, words: &[&str]) -> std::process::Output {
        self.on(&self.cable.broker, &[&["broker"], words, &["--dir", "b"]].concat())
    }

    fn client(&self, words: &[&str]) -> std::process::Output {
        self.on(&self.cable.client, &[&["client"], words, &["--dir", "c"]].concat())
    }

    fn usage(&self) -> Value {
        json(&String::from_utf8(self.at_broker(&["usage", "--json"]).stdout).unwrap())
    }

    fn alice(&self) {
        done(&self.at_broker(&["invite", "alice"]));
        done(&self.client(&["join", "alice.ferry6"]));
        done(&self.client(&["up"]));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("broker.log")).unwrap()
    }
}

#[test]
fn a_disabled_user_goes_at_once_and_comes_again() {
    let Some(world) = World::new() else { return };
    let _broker = world.run_broker();
    world.alice();
    world.carried().unwrap();
    let said = done(&world.at_broker(&["disable", "alice", "--reason", "on holiday"]));
    assert!(said.contains("alice is disabled: the tunnel is closed"), "{said}");
    assert!(said.contains("~ user alice@ferry6: disabled"), "{said}");
    assert!(world.carried().is_err());
    let list = done(&world.at_broker(&["list"]));
    assert!(list.contains("disabled") && !list.contains(" up"), "{list}");
    let log = world.log();
    assert!(
        log.contains("alice@ferry6 down from") && log.contains("the user is disabled: on holiday"),
        "{log}"
    );
    let up = world.client(&["up", "--wait", "2"]);
    assert!(text(&up).contains("AUTHENTICATION_FAILED"), "{}", text(&up));

    done(&world.at_broker(&["enable", "alice"]));
    done(&world.client(&["down"]));
    done(&world.client(&["up"]));
    assert_eq!(world.carried().unwrap(), "2a00::101".parse::<Ipv6Addr>().unwrap());
    done(&world.client(&["down"]));
}

#[test]
fn a_user_goes_when_the_time_is_over() {
    let Some(world) = World::new() else { return };
    let _broker = world.run_broker();
    world.alice();
    done(&world.at_broker(&["set", "alice", "--expires", "4s"]));
    world.carried().unwrap();
    // However often somebody asks the broker for something meanwhile.
    let until = Instant::now() + Duration::from_secs(10);
    while world.carried().is_ok() {
        assert!(Instant::now() < until, "the tunnel still stands");
        done(&world.on(&world.cable.broker, &["status", "--socket", "b/broker.sock"]));
    }
    assert!(world.log().contains("the user's time was over at"), "{}", world.log());
    let list = done(&world.at_broker(&["list"]));
    assert!(list.contains("expired"), "{list}");
    done(&world.at_broker(&["set", "alice", "--expires", "1d"]));
    done(&world.client(&["down"]));
    done(&world.client(&["up"]));
    world.carried().unwrap();
    done(&world.client(&["down"]));
}

#[test]
fn a_set_address_is_the_next_tunnels() {
    let Some(world) = World::new() else { return };
    let _broker = world.run_broker();
    world.alice();
    let said = done(&world.at_broker(&["set", "alice", "--address", "2a00::142"]));
    assert!(said.contains("keeps what it has"), "{said}");
    assert_eq!(world.carried().unwrap(), "2a00::101".parse::<Ipv6Addr>().unwrap());
    done(&world.client(&["down"]));
    done(&world.client(&["up"]));
    assert_eq!(world.carried().unwrap(), "2a00::142".parse::<Ipv6Addr>().unwrap());
    done(&world.client(&["down"]));
}

#[test]
fn accounts_grow_with_the_traffic_and_outlive_the_broker() {
    let Some(world) = World::new() else { return };
    let mut broker = world.run_broker();
    world.alice();
    world.carried().unwrap();
    let first = world.usage();
    let of = |usage: &Value, key: &str| usage[0]["total"][key].as_u64().unwrap();
    assert_eq!((first[0]["user"].as_str(), first[0]["online"].as_bool()), (Some("alice"), Some(true)));
    // A connection's packets, live: SYN, ACK and both ends of the close.
    assert!(of(&first, "packets_in") >= 2 && of(&first, "packets_out") >= 1, "{first}");
    assert_eq!(of(&first, "sessions"), 1);
    world.carried().unwrap();
    let second = world.usage();
    assert!(of(&second, "bytes_in") > of(&first, "bytes_in"), "{first} {second}");
    let table = done(&world.at_broker(&["usage"]));
    assert!(table.lines().nth(1).unwrap().starts_with("alice") && table.contains(" up"), "{table}");

    // What it carried since is on the account when the broker ends, however it ends in order.
    world.carried().unwrap();
    broker.end();
    let stopped = world.usage();
    assert!(of(&stopped, "bytes_in") > of(&second, "bytes_in"), "{second} {stopped}");
    assert_eq!(stopped[0]["online"], false);
    let list = done(&world.at_broker(&["list"]));
    assert!(list.contains("2a00::101") && list.contains("last seen"), "the store tells: {list}");

    let _broker = world.run_broker();
    done(&world.client(&["down"]));
    done(&world.client(&["up"]));
    world.carried().unwrap();
    let third = world.usage();
    assert!(of(&third, "bytes_in") > of(&stopped, "bytes_in"), "{stopped} {third}");
    assert_eq!(of(&third, "sessions"), 2, "{third}");
    let show = done(&world.at_broker(&["show", "alice"]));
    assert!(show.contains("carried     ") && show.contains(" to the user"), "{show}");
    let by_month = done(&world.at_broker(&["usage", "alice"]));
    assert!(by_month.contains("month") && by_month.contains("total"), "{by_month}");
    let month = third[0]["months"].as_object().unwrap().keys().next().unwrap().clone();
    assert!(done(&world.at_broker(&["usage", "--month", &month])).contains(" up"));
    assert!(done(&world.at_broker(&["usage", "--month", "2000-01"])).contains(" 0 B"));
    done(&world.client(&["down"]));
}

#[test]
fn prefixes_are_chosen_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let init = "broker init --dir b --address 10.0.0.1 --prefix 2a00::100/120 --prefixes 2a00:0:0:1000::/63 --no-unit";
    let said = done(&ferry6(d, &init.split(' ').collect::<Vec<_>>()));
    assert!(said.contains("3. route 2a00:0:0:1000::/63"), "{said}");
    let broker = |words: &[&str]| ferry6(d, &[&["broker"], words, &["--dir", "b"]].concat());
    done(&broker(&["invite", "alice", "--prefix", "auto"]));
    let invitation = std::fs::read_to_string(d.join("alice.ferry6")).unwrap();
    assert!(invitation.contains("prefix = \"2a00:0:0:1000::/64\""), "{invitation}");
    done(&ferry6(d, &["client", "join", "alice.ferry6", "--dir", "c"]));
    let toml = std::fs::read_to_string(d.join("c/alice/client.toml")).unwrap();
    assert!(toml.contains("[tunnel]\nprefix = \"any\"\n"), "{toml}");
    // Once more is the same one.
    let again = done(&broker(&["set", "alice", "--prefix", "auto"]));
    assert!(again.contains("nothing changed"), "{again}");
    done(&broker(&["invite", "bob", "--for", "strongswan", "--prefix", "auto"]));
    let conf = std::fs::read_to_string(d.join("bob/conf.d/bob.conf")).unwrap();
    assert!(conf.contains("local_ts = dynamic, 2a00:0:0:1001::/64\n"), "{conf}");
    assert!(conf.contains("\n# ip -6 address add 2a00:0:0:1001::1/128 dev lo\n"), "{conf}");
    let none = broker(&["invite", "carol", "--prefix", "auto"]);
    assert!(text(&none).contains("no prefix of pool.prefixes in b/broker.toml is free"), "{}", text(&none));
    assert!(!d.join("carol.ferry6").exists() && !d.join("b/users/carol.crt").exists());
    refused(
        &broker(&["invite", "carol", "--prefix", "2a00:0:0:1001::/72"]),
        "overlaps with 2a00:0:0:1001::/64, which is bob@ferry6's already",
    );
    refused(&broker(&["set", "alice", "--prefix", "2a00::/64"]), "overlaps with the addresses of the pool");
    refused(&broker(&["set", "alice", "--prefix", "fe80::/64"]), "no prefix of unicast addresses");
    refused(&broker(&["set", "alice", "--prefix", "2a00::1/64"]), "did you mean \"2a00::/64\"?");
    done(&broker(&["set", "alice", "--prefix", "none"]));
    done(&broker(&["invite", "carol", "--prefix", "auto"]));
    let list = done(&broker(&["list"]));
    assert!(list.contains("2a00:0:0:1001::/64") && list.contains("2a00:0:0:1000::/64"), "{list}");
    refused(&ferry6(d, &["broker", "set", "alice", "--prefix", "auto", "--dir", "none"]), "do that first");
    let site = site();
    done(&ferry6(site.path(), &["broker", "invite", "alice", "--dir", "b"]));
    let without = ferry6(site.path(), &["broker", "set", "alice", "--prefix", "auto", "--dir", "b"]);
    refused(&without, "there are no pool.prefixes in b/broker.toml");
}

/// One that is killed loses what came since the accounts were written last, and nothing else.
#[test]
fn a_killed_broker_keeps_what_was_written() {
    let Some(world) = World::new() else { return };
    let mut broker = world.run_broker();
    world.alice();
    world.carried().unwrap();
    let written = world.usage();
    broker.signal(nix::sys::signal::Signal::SIGKILL);
    broker.0.wait().unwrap();
    let left = world.usage();
    assert_eq!(left[0]["total"]["bytes_in"], written[0]["total"]["bytes_in"]);
    assert_eq!((&left[0]["total"]["sessions"], &left[0]["online"]), (&1.into(), &false.into()));
    let _broker = world.run_broker();
    done(&world.client(&["down"]));
}
