//! The promises of the allocator, for random histories of Services.

use std::net::IpAddr;

use proptest::{collection::vec, prelude::*};
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

fn ranges() -> Ranges {
    Ranges {
        addresses: vec!["10.96.0.0/24".parse().unwrap(), "fd00::/112".parse().unwrap()],
        ports: "30000-32767".parse().unwrap(),
    }
}

fn name(text: &str) -> ObjectName {
    ObjectName::new("default", text)
}

fn wanted(text: &str) -> Wanted {
    Wanted {
        name: name(text),
        families: vec![Family::V4],
        addresses: Vec::new(),
        node_ports: Vec::new(),
        health: None,
    }
}

fn key(port: u16, protocol: Protocol) -> PortKey {
    PortKey { port, protocol }
}

fn with_port(text: &str, asked: Option<u16>) -> Wanted {
    Wanted { node_ports: vec![(key(80, Protocol::Tcp), asked)], ..wanted(text) }
}

fn settle(allocations: &mut Allocations, wanted: &[Wanted]) -> BTreeMap<ObjectName, AllocateError> {
    allocations.settle(&ranges(), wanted, &|_| None, &mut StdRng::seed_from_u64(7))
}

#[test]
fn the_static_band_has_the_size_of_the_enhancement_proposal() {
    let band = |text: &str| static_band(text.parse().unwrap());
    assert_eq!(band("30000-32767"), 86);
    assert_eq!(band("30000-30015"), 0);
    assert_eq!(band("30000-30127"), 16);
    assert_eq!(band("30000-38191"), 128);
}

#[test]
fn random_node_ports_leave_the_band_alone_until_nothing_else_is_left() {
    let small = Ranges { ports: "30000-30099".parse().unwrap(), ..ranges() };
    let all: Vec<Wanted> = (0..100).map(|n| with_port(&format!("s{n}"), None)).collect();
    let mut allocations = Allocations::default();
    let mut rng = StdRng::seed_from_u64(1);
    let problems = allocations.settle(&small, &all[..84], &|_| None, &mut rng);
    assert!(problems.is_empty() && allocations.node_ports().iter().all(|port| *port >= 30016));
    assert!(allocations.settle(&small, &all, &|_| None, &mut rng).is_empty());
    let mut more = all;
    more.push(with_port("more", None));
    let problems = allocations.settle(&small, &more, &|_| None, &mut rng);
    let said = problems[&name("more")].to_string();
    assert!(said.contains("range 30000-30099 is full"), "{said}");
}

#[test]
fn what_cannot_be_given_is_said_in_the_words_of_the_api_server() {
    let mut allocations = Allocations::default();
    let first = [with_port("a", Some(30080))];
    assert!(settle(&mut allocations, &first).is_empty());
    let say = |allocations: &mut Allocations, one: Wanted| {
        let problems = settle(allocations, &[first[0].clone(), one.clone()]);
        problems[&one.name].to_string()
    };
    let said = say(&mut allocations, with_port("b", Some(30080)));
    assert_eq!(
        said,
        "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated (by default/a)"
    );
    let said = say(&mut allocations, with_port("b", Some(80)));
    assert!(
        said.contains("provided port is not in the valid range. The range of valid ports is 30000-32767")
    );
    let address = allocations.get(&name("a")).unwrap().addresses[0];
    let asks = |ip: &str| Wanted { addresses: vec![ip.parse().unwrap()], ..wanted("b") };
    let said = say(&mut allocations, asks(&address.to_string()));
    assert!(said.contains("provided IP is already allocated (by default/a)"), "{said}");
    let said = say(&mut allocations, asks("10.97.0.1"));
    assert!(said.contains("The range of valid IPs is 10.96.0.0/24"), "{said}");
    assert!(say(&mut allocations, asks("10.96.0.255")).contains("given to nobody"));
    let taken = |port: u16| (port == 30081).then(|| "bound by nginx (pid 812)".to_owned());
    let wants = [first[0].clone(), with_port("b", Some(30081))];
    let problems = allocations.settle(&ranges(), &wants, &taken, &mut StdRng::seed_from_u64(1));
    assert!(problems[&name("b")].to_string().contains("bound by nginx"));
}

#[test]
fn one_number_serves_several_protocols_of_one_port_and_never_two_services() {
    let mut both = with_port("dns", None);
    both.node_ports.push((key(80, Protocol::Udp), None));
    both.node_ports.push((key(81, Protocol::Udp), None));
    let mut allocations = Allocations::default();
    assert!(settle(&mut allocations, &[both.clone()]).is_empty());
    let given = allocations.get(&both.name).unwrap();
    assert_eq!(given.node_ports[0].1, given.node_ports[1].1);
    assert_ne!(given.node_ports[0].1, given.node_ports[2].1);
    // By number too, but not for the same protocol twice.
    let mut same = with_port("same", Some(30001));
    same.node_ports.push((key(80, Protocol::Udp), Some(30001)));
    assert!(settle(&mut allocations, &[both.clone(), same.clone()]).is_empty());
    same.node_ports.push((key(81, Protocol::Udp), Some(30001)));
    assert!(settle(&mut allocations, &[both, same.clone()]).contains_key(&same.name));
}

#[test]
fn an_edit_that_cannot_be_takes_nothing_away() {
    let mut allocations = Allocations::default();
    let (a, b) = (with_port("a", Some(30001)), with_port("b", Some(30002)));
    assert!(settle(&mut allocations, &[a.clone(), b.clone()]).is_empty());
    let before = allocations.get(&b.name).cloned();
    let problems = settle(&mut allocations, &[a, with_port("b", Some(30001))]);
    assert!(problems.contains_key(&b.name));
    assert_eq!(allocations.get(&b.name).cloned(), before);
}

#[test]
fn who_comes_back_gets_the_same_unless_somebody_has_it() {
    let mut allocations = Allocations::default();
    let a = with_port("a", None);
    settle(&mut allocations, std::slice::from_ref(&a));
    let had = allocations.get(&a.name).cloned().unwrap();
    settle(&mut allocations, &[]);
    assert!(allocations.get(&a.name).is_none());
    let text = serde_json::to_string(&allocations).unwrap();
    let mut allocations: Allocations = serde_json::from_str(&text).unwrap();
    settle(&mut allocations, std::slice::from_ref(&a));
    assert_eq!(allocations.get(&a.name), Some(&had));
    settle(&mut allocations, &[with_port("b", Some(had.node_ports[0].1))]);
    settle(&mut allocations, &[with_port("b", Some(had.node_ports[0].1)), a.clone()]);
    assert_ne!(allocations.get(&a.name).unwrap().node_ports[0].1, had.node_ports[0].1);
}

/// Some Services that ask by number or not.
fn anything() -> impl Strategy<Value = Vec<Wanted>> {
    let one = (0..12u8, any::<bool>(), prop::option::of(0..6u8), prop::option::of(0..8u16), any::<bool>());
    vec(one, 0..10).prop_map(|all| {
        let wanted = all.into_iter().map(|(n, dual, address, port, health)| {
            let mut families = vec![Family::V4];
            families.extend(dual.then_some(Family::V6));
            let addresses = address.map(|n| IpAddr::from([10, 96, 0, n])).into_iter().collect();
            Wanted {
                families,
                addresses,
                node_ports: vec![
                    (key(80, Protocol::Tcp), port.map(|n| 29_998 + n)),
                    (key(80, Protocol::Udp), None),
                ],
                health: health.then_some(None),
                ..wanted(&format!("s{n}"))
            }
        });
        let by_name: BTreeMap<ObjectName, Wanted> = wanted.map(|one| (one.name.clone(), one)).collect();
        by_name.into_values().collect()
    })
}

proptest! {
    /// After any history: nobody shares anything, everything is in its range, what was asked for by number is given,
    /// and what somebody had and may keep is kept.
    #[test]
    fn nobody_shares_and_nobody_loses(history in vec(anything(), 1..6), seed in any::<u64>()) {
        let mut allocations = Allocations::default();
        let mut rng = StdRng::seed_from_u64(seed);
        let ranges = ranges();
        for wanted in history {
            let before = allocations.clone();
            let problems = allocations.settle(&ranges, &wanted, &|_| None, &mut rng);
            let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
            for one in &wanted {
                let given = allocations.get(&one.name);
                prop_assert!(given.is_some() || problems.contains_key(&one.name));
                let Some(given) = given else { continue };
                for address in &given.addresses {
                    prop_assert!(addresses.insert(*address), "{address} twice");
                    prop_assert!(ranges.addresses.iter().any(|range| range.contains(address)));
                }
                for port in given.ports().collect::<BTreeSet<_>>() {
                    prop_assert!(ports.insert(port), "{port} twice");
                    prop_assert!(ranges.ports.contains(port));
                }
                if problems.contains_key(&one.name) {
                    prop_assert_eq!(Some(given), before.get(&one.name));
                    continue;
                }
                prop_assert!(one.addresses.iter().all(|address| given.addresses.contains(address)));
                prop_assert_eq!(given.addresses.len(), one.families.len());
                let kept = before.get(&one.name).filter(|_| one.addresses.is_empty());
                if let Some(kept) = kept.and_then(|had| had.addresses.first()) {
                    prop_assert_eq!(kept, &given.addresses[0]);
                }
            }
            let others: Vec<_> = wanted.iter().map(|one| &one.name).collect();
            prop_assert!(before.given.keys().all(|name| others.contains(&name) || allocations.get(name).is_none()));
        }
    }
}
