//! Random mappings, close enough together to meet, and a table that only knows elements.
#![allow(unreachable_pub, reason = "shared by several test binaries")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use portolan_model::{Mapping, PortRange, Protocol};
use portolan_nft::{Data, Element, Object, Ruleset, Transaction, Verb};
use portolan_plan::{Counting, PlanConfig, SourcePolicy};
use proptest::prelude::*;

pub fn v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, 0, number)
}

pub fn v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd70, 0x6f72, 0x746f, 0, 0, 0, 0, number.into())
}

/// A mapping of one port to instance `number`, both families.
pub fn port(protocol: Protocol, host: u16, number: u8, container: u16) -> Mapping {
    let host = PortRange::single(host).unwrap();
    Mapping { protocol, address: None, host, container, v4: Some(v4(number)), v6: Some(v6(number)) }
}

/// A mapping of a block to instance `number`, both families.
pub fn block(protocol: Protocol, first: u16, last: u16, number: u8) -> Mapping {
    Mapping { host: PortRange::new(first, last).unwrap(), ..port(protocol, first, number, first) }
}

pub fn at(address: &str, mapping: Mapping) -> Mapping {
    Mapping { address: Some(address.parse().unwrap()), ..mapping }
}

/// A node of a cluster: somebody else's networks, a policy, everything counted.
pub fn kubernetes() -> PlanConfig {
    let networks = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect();
    let policy = |ports: (u16, u16), protocols: &str, allowed: &[&str]| SourcePolicy {
        ports: PortRange::new(ports.0, ports.1).unwrap(),
        protocols: protocols.parse().unwrap(),
        allowed: networks(allowed),
    };
    PlanConfig {
        // As the addresses of these tests are, and a smaller network inside.
        local: networks(&["10.213.0.0/24", "10.213.0.64/26", "fd70:6f72:746f::/64"]),
        direct: networks(&["10.213.0.0/16", "10.96.0.0/12", "fd70:6f72:746f::/48"]),
        pools: vec![PortRange::new(20000, 29999).unwrap()],
        sources: vec![
            policy((20000, 20999), "tcp+udp", &["192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32"]),
            policy((21000, 21999), "udp", &[]),
        ],
        counting: Counting::Traffic,
        ..PlanConfig::any()
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    Add(Mapping),
    /// One of those that are there, by its place modulo their number.
    Remove(usize),
}

pub fn steps(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => mapping().prop_map(Step::Add),
        1 => any::<usize>().prop_map(Step::Remove),
    ];
    prop::collection::vec(step, count)
}

pub fn mapping() -> impl Strategy<Value = Mapping> {
    let addresses: [Option<IpAddr>; 6] = [
        None,
        None,
        None,
        Some([192, 0, 2, 1].into()),
        Some([192, 0, 2, 2].into()),
        Some("2001:db8::1".parse().unwrap()),
    ];
    let parts = (
        prop::sample::select(Protocol::ALL.to_vec()),
        prop::sample::select(addresses.to_vec()),
        1000u16..1040,
        prop_oneof![Just(1u16), Just(1), 2u16..9],
        prop_oneof![Just(None), (1000u16..1006).prop_map(Some)],
        2u8..5,
        prop_oneof![Just((true, true)), Just((true, false)), Just((false, true))],
    );
    parts.prop_map(|(protocol, address, first, count, container, instance, (has_v4, has_v6))| Mapping {
        protocol,
        address,
        host: PortRange::block(first, count).unwrap(),
        container: if count == 1 { container.unwrap_or(first) } else { first },
        v4: has_v4.then(|| v4(instance)),
        v6: has_v6.then(|| v6(instance)),
    })
}

/// Elements by set and key, changed as strictly as the kernel does it.
#[derive(Debug, PartialEq)]
pub struct Elements(pub BTreeMap<(String, Data), Element>);

impl Elements {
    pub fn of(ruleset: &Ruleset) -> Self {
        let all = ruleset.sets.iter().flat_map(|filled| {
            filled.elements.iter().map(|e| ((filled.set.name.clone(), e.key.clone()), e.clone()))
        });
        Self(all.collect())
    }

    pub fn run(&mut self, transaction: &Transaction) {
        for operation in &transaction.operations {
            let Object::Elements(elements) = &operation.object else {
                panic!("a change is elements only: {operation:?}")
            };
            for element in &elements.elements {
                let key = (elements.set.name.clone(), element.key.clone());
                match operation.verb {
                    Verb::Create => assert_eq!(self.0.insert(key, element.clone()), None),
                    Verb::Delete => assert_eq!(self.0.remove(&key), Some(element.clone())),
                    verb => panic!("{verb} is not strict"),
                }
            }
        }
    }
}
