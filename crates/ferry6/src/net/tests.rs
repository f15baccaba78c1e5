//! Against the kernel, in a network namespace that lives as long as the test's thread.

use super::sysctl::{self, Changes};
use super::*;
use rtnetlink::LinkVeth;
use std::fs;

/// Runs `test` in a new network namespace, with the ends `one` and `two` of a cable. Without the right to make one it
/// says so, loudly.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Net, u32) -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: no network namespace ({error}); run as root");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let net = Net::new().unwrap();
            let veth = LinkVeth::new("one", "two").build();
            net.handle.link().add(veth).execute().await.unwrap();
            for name in ["lo", "one", "two"] {
                net.up(net.index(name).await.unwrap()).await.unwrap();
            }
            let one = net.index("one").await.unwrap();
            test(net, one).await;
        });
    });
    thread.join().unwrap();
}

fn prefix(text: &str) -> Prefix6 {
    text.parse().unwrap()
}

#[test]
fn the_address_is_never_deprecated() {
    in_namespace(|net, one| async move {
        let address: Ipv6Addr = "2a00::101".parse().unwrap();
        net.add_address(one, address).await.unwrap();
        let to = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build();
        let route = net.handle.route().get(to).execute().try_next().await.unwrap().unwrap();
        assert_eq!(route.header.kind, RouteType::Local, "a reply to it is taken in from now on");
        // Twice is no fault: after a rekey of the IKE SA it comes again.
        net.add_address(one, address).await.unwrap();
        let mut found = None;
        let mut list = net.handle.address().get().execute();
        while let Some(message) = list.try_next().await.unwrap() {
            if message.attributes.contains(&AddressAttribute::Address(IpAddr::V6(address))) {
                found = Some(message);
            }
        }
        let message = found.expect("the address is there");
        assert_eq!(message.header.prefix_len, 128);
        let flags = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        let flags = flags.unwrap();
        assert!(flags.contains(AddressFlags::Nodad | AddressFlags::Permanent), "{flags:?}");
        assert!(!flags.intersects(AddressFlags::Deprecated | AddressFlags::Tentative), "{flags:?}");
        let lifetime = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::CacheInfo(info) => Some((info.ifa_preferred, info.ifa_valid)),
            _ => None,
        });
        assert_eq!(lifetime, Some((FOREVER, FOREVER)));
        assert!(net.addresses().await.unwrap().contains(&address));
        net.remove_address(one, address).await.unwrap();
        net.remove_address(one, address).await.unwrap();
        assert!(!net.addresses().await.unwrap().contains(&address));
    });
}

#[test]
fn routes_leave_those_of_others_alone() {
    in_namespace(|net, one| async move {
        let two = net.index("two").await.unwrap();
        let all = prefix("::/0");
        let theirs = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(two).priority(1024).build();
        net.handle.route().add(theirs).execute().await.unwrap();
        let before = net.routes().await.unwrap();

        let address: Ipv6Addr = "2a00::101".parse().unwrap();
        net.add_address(one, address).await.unwrap();
        net.add_route(all, one, 50, Some(address)).await.unwrap();
        net.add_route(all, one, 50, Some(address)).await.unwrap();
        let now = net.routes().await.unwrap();
        let defaults: Vec<(u32, u32)> =
            now.iter().filter(|r| r.to == all).map(|r| (r.metric, r.interface.unwrap())).collect();
        assert_eq!(defaults, [(50, one), (1024, two)]);
        let ours = now.iter().find(|r| r.to == all && r.metric == 50).unwrap();
        assert_eq!(ours.protocol, RouteProtocol::Other(ROUTE_PROTOCOL));
        // A metric that is taken is told with the key that cures it, and the other route stays.
        let error = net.add_route(all, one, 1024, None).await.unwrap_err();
        assert!(error.to_string().contains("tunnel.metric"), "{error:#}");

        net.remove_route(all, one, 50).await.unwrap();
        net.remove_route(all, one, 50).await.unwrap();
        net.remove_address(one, address).await.unwrap();
        assert_eq!(net.routes().await.unwrap(), before);
    });
}

#[test]
fn forwarding_is_put_back_and_keeps_a_router_advertisements_route() {
    in_namespace(|net, one| async move {
        let conf = |key: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{key}")).unwrap();
        let advertised = RouteMessageBuilder::<Ipv6Addr>::new()
            .output_interface(one)
            .priority(1024)
            .protocol(RouteProtocol::Ra)
            .build();
        net.handle.route().add(advertised).execute().await.unwrap();
        assert_eq!((conf("all/forwarding").trim(), conf("one/accept_ra").trim()), ("0", "1"));
        let mut changes = Changes::default();
        sysctl::enable_forwarding(&net, &mut changes).await.unwrap();
        assert_eq!((conf("all/forwarding").trim(), conf("one/accept_ra").trim()), ("1", "2"));
        assert!(sysctl::is_forwarding());
        assert_eq!(conf("two/accept_ra").trim(), "1", "it has no route to lose");
        drop(changes);
        assert_eq!((conf("all/forwarding").trim(), conf("one/accept_ra").trim()), ("0", "1"));
        // A killed process leaves its changes and its record; the next one puts back what was before both.
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("sysctl");
        let mut killed = Changes::recorded(record.clone());
        sysctl::enable_forwarding(&net, &mut killed).await.unwrap();
        std::mem::forget(killed);
        let mut next = Changes::recorded(record.clone());
        sysctl::enable_forwarding(&net, &mut next).await.unwrap();
        drop(next);
        assert_eq!((conf("all/forwarding").trim(), conf("one/accept_ra").trim()), ("0", "1"));
        assert!(!record.exists());
        // What another boot or namespace recorded is not put back here.
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        fs::write(&record, "another\n/proc/sys/net/ipv6/conf/all/forwarding=0").unwrap();
        drop(Changes::recorded(record));
        assert_eq!(conf("all/forwarding").trim(), "1");
        // What was on before is left on.
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        let mut changes = Changes::default();
        sysctl::enable_forwarding(&net, &mut changes).await.unwrap();
        drop(changes);
        assert_eq!(conf("all/forwarding").trim(), "1");
    });
}

#[test]
fn a_device_of_a_machine_without_ipv6_by_default() {
    in_namespace(|net, one| async move {
        fs::write("/proc/sys/net/ipv6/conf/one/disable_ipv6", "1").unwrap();
        let address: Ipv6Addr = "2a00::101".parse().unwrap();
        assert!(net.add_address(one, address).await.is_err());
        sysctl::prepare_device("one").unwrap();
        net.add_address(one, address).await.unwrap();
        assert!(net.index("none").await.unwrap_err().to_string().contains("none"));
        assert_eq!(net.name(one).await.unwrap(), "one");
    });
}

#[test]
fn proxy_ndp() {
    in_namespace(|net, one| async move {
        let address: Ipv6Addr = "2a00::101".parse().unwrap();
        let mut changes = Changes::default();
        sysctl::enable_proxy_ndp("one", &mut changes).unwrap();
        net.add_proxy(one, address).await.unwrap();
        net.add_proxy(one, address).await.unwrap();
        let proxied = || async {
            let mut list = net.handle.neighbours().get().proxies().execute();
            let mut found = Vec::new();
            while let Some(message) = list.try_next().await.unwrap() {
                found.extend(message.attributes.into_iter().filter_map(|a| match a {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(a),
                    _ => None,
                }));
            }
            found
        };
        assert_eq!(proxied().await, [address]);
        net.remove_proxy(one, address).await.unwrap();
        net.remove_proxy(one, address).await.unwrap();
        assert!(proxied().await.is_empty());
        drop(changes);
        let value = fs::read_to_string("/proc/sys/net/ipv6/conf/one/proxy_ndp").unwrap();
        assert_eq!(value.trim(), "0");
        assert!(sysctl::enable_proxy_ndp("none", &mut Changes::default()).unwrap_err().contains("none"));
    });
}
