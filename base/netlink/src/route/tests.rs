//! What is promised about links, addresses and routes, in namespaces, with `ip` as the independent reader.

use std::process::Command;

use ipnet::IpNet;
use portolan_testkit::{
    need_root,
    net::{End, Namespace, link as connect, private_namespace},
};

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn veth<'a>(name: &'a str, peer: &'a str) -> Veth<'a> {
    Veth { name, alias: None, peer, namespace: None, mtu: None }
}

#[test]
fn a_veth_pair_has_its_other_end_in_the_other_namespace() {
    need_root!();
    private_namespace(|| {
        let inside = crate::namespace::Namespace::create().unwrap();
        let rtnl = Rtnl::open().unwrap();
        let pair = Veth {
            alias: Some("portolan:web-0"),
            namespace: Some(std::os::fd::AsFd::as_fd(&inside)),
            mtu: Some(1400),
            ..veth("pt-0", "eth0")
        };
        rtnl.create_veth(&pair).unwrap();
        assert!(rtnl.create_veth(&pair).unwrap_err().is_present());
        let made = rtnl.link("pt-0").unwrap().unwrap();
        assert_eq!((made.mtu, made.up, made.kind.as_deref()), (1400, false, Some("veth")));
        assert_eq!((made.alias.as_deref(), made.mac.len()), (Some("portolan:web-0"), 6));
        assert_eq!(rtnl.link("eth0").unwrap(), None);
        let there = inside.run(Rtnl::open).unwrap().unwrap();
        assert_eq!(there.link("eth0").unwrap().unwrap().mtu, 1400);
        rtnl.set_up(made.index).unwrap();
        rtnl.set_mtu(made.index, 1300).unwrap();
        let listed = ip("-o link show dev pt-0");
        assert!(listed.contains("mtu 1300") && listed.contains("UP"), "{listed}");
        assert!(rtnl.links().unwrap().iter().any(|link| link.name == "pt-0" && link.up));
        assert!(rtnl.delete_link("pt-0").unwrap());
        assert!(!rtnl.delete_link("pt-0").unwrap());
        assert_eq!(there.link("eth0").unwrap(), None);
    });
}

#[test]
fn an_address_is_usable_at_once_and_goes_away_again() {
    need_root!();
    private_namespace(|| {
        let rtnl = Rtnl::open().unwrap();
        rtnl.create_veth(&veth("a", "b")).unwrap();
        let index = rtnl.link("a").unwrap().unwrap().index;
        rtnl.set_up(index).unwrap();
        for text in ["192.0.2.1/32", "2001:db8::1/128"] {
            let new = NewAddress { index, net: net(text), scope: Scope::Global };
            rtnl.add_address(&new).unwrap();
            assert!(rtnl.add_address(&new).unwrap_err().is_present());
            std::net::UdpSocket::bind((net(text).addr(), 0)).unwrap();
            let found = rtnl.addresses().unwrap();
            let found = found.iter().find(|a| a.net == net(text)).unwrap();
            assert!(found.usable && found.index == index && found.scope == Scope::Global);
            assert!(rtnl.delete_address(index, net(text)).unwrap());
            assert!(!rtnl.delete_address(index, net(text)).unwrap());
        }
        let new = NewAddress { index, net: net("192.0.2.1/32"), scope: Scope::Link };
        rtnl.add_address(&new).unwrap();
        assert!(ip("-o address show dev a").contains("scope link a"));
    });
}

#[test]
fn routes_by_device_and_by_a_router_that_no_address_makes_known() {
    need_root!();
    private_namespace(|| {
        let rtnl = Rtnl::open().unwrap();
        rtnl.create_veth(&veth("a", "b")).unwrap();
        let (a, b) = (rtnl.link("a").unwrap().unwrap().index, rtnl.link("b").unwrap().unwrap().index);
        rtnl.set_up(a).unwrap();
        rtnl.set_up(b).unwrap();
        for text in ["192.0.2.1/32", "2001:db8::1/128"] {
            rtnl.add_address(&NewAddress { index: a, net: net(text), scope: Scope::Global }).unwrap();
        }
        for (to, via, own) in
            [("0.0.0.0/0", "203.0.113.1", "192.0.2.1"), ("::/0", "2001:db8:1::1", "2001:db8::1")]
        {
            let route = Route::onlink(net(to), address(via), a).with_source(address(own));
            rtnl.add_route(&route).unwrap();
            assert!(rtnl.add_route(&route).unwrap_err().is_present());
            rtnl.replace_route(&route).unwrap();
            let found = rtnl.routes().unwrap();
            let found = found.iter().find(|r| r.destination == net(to)).unwrap();
            assert_eq!((found.gateway, found.interface), (Some(address(via)), Some(a)));
            let world = if own.contains(':') { "2001:db8:ffff::1" } else { "198.51.100.1" };
            let way = rtnl.lookup(address(world)).unwrap().unwrap();
            assert_eq!((way.source, way.interface), (Some(address(own)), Some(a)));
            assert!(rtnl.delete_route(&route).unwrap());
            assert!(!rtnl.delete_route(&route).unwrap());
            assert_eq!(rtnl.lookup(address(world)).unwrap(), None);
        }
        for to in ["198.51.100.7/32", "2001:db8:7::7/128"] {
            rtnl.add_route(&Route::device(net(to), b)).unwrap();
            assert_eq!(rtnl.lookup(net(to).addr()).unwrap().unwrap().interface, Some(b));
        }
    });
}

#[test]
fn a_neighbour_that_was_set_is_permanent_and_can_be_changed() {
    need_root!();
    private_namespace(|| {
        let rtnl = Rtnl::open().unwrap();
        rtnl.create_veth(&veth("a", "b")).unwrap();
        let index = rtnl.link("a").unwrap().unwrap().index;
        rtnl.set_up(index).unwrap();
        for (text, last) in [("192.0.2.1", 1), ("192.0.2.1", 2), ("fe80::7", 3)] {
            rtnl.set_neighbour(index, address(text), &[2, 0, 0, 0, 0, last]).unwrap();
            let listed = ip(&format!("neighbour show {text}"));
            assert!(listed.contains(&format!("02:00:00:00:00:0{last} PERMANENT")), "{listed}");
        }
    });
}

#[test]
fn the_primary_addresses_are_those_of_the_way_to_the_world() {
    need_root!();
    let (node, outside) = (Namespace::new(), Namespace::new());
    let own = ["192.0.2.10/24", "192.0.2.11/24", "2001:db8::10/64"];
    connect(End::new(&node, "eth1", &own), End::new(&outside, "eth0", &["192.0.2.1/24", "2001:db8::1/64"]));
    connect(End::new(&node, "eth0", &["10.9.9.9/24"]), End::new(&outside, "eth9", &[]));
    node.run(|| {
        // Without a default route: the first address of the first interface.
        let primary = primary_addresses().unwrap();
        assert_eq!(primary.v6, Some("2001:db8::10".parse().unwrap()));
        assert!(primary.v4.is_some());
        assert_eq!(primary_addresses_except(&["eth"]).unwrap(), Primary::default());
    });
    node.route("default via 192.0.2.1 src 192.0.2.11");
    node.route("default via 2001:db8::1");
    node.run(|| {
        let primary = primary_addresses_except(&["eth"]).unwrap();
        let expected = [address("192.0.2.11"), address("2001:db8::10")];
        assert_eq!(primary.iter().collect::<Vec<_>>(), expected);
        assert_eq!(default_route_address().unwrap(), Some(expected[0]));
        let mut all = node_addresses(&[]).unwrap();
        all.sort();
        assert_eq!(all, ["10.9.9.9", "192.0.2.10", "192.0.2.11", "2001:db8::10"].map(address));
        assert_eq!(node_addresses(&["eth1"]).unwrap(), [address("10.9.9.9")]);
    });
}

#[test]
fn a_namespace_without_addresses_has_no_primary_address() {
    need_root!();
    private_namespace(|| {
        assert_eq!(primary_addresses().unwrap(), Primary::default());
        assert!(node_addresses(&[]).unwrap().is_empty());
    });
}

#[test]
fn names_that_no_interface_can_have_are_refused() {
    let rtnl = Rtnl::open().unwrap();
    for name in ["", "sixteen-bytes-xx", "a b", "a/b", "a:b", ".", ".."] {
        assert!(matches!(rtnl.link(name), Err(RouteError::BadName(_))), "{name}");
    }
}
