//! What a plan refuses, and in which words.
#![allow(clippy::unwrap_used)]

mod common;

use common::{at, block, port};
use portolan_model::{Mapping, PortRange, Protocol};
use portolan_plan::{Plan, PlanConfig, PlanError};

fn refusal(present: &[Mapping], new: &Mapping) -> String {
    let mut plan = Plan::new(PlanConfig::default()).unwrap();
    present.iter().for_each(|mapping| drop(plan.add(mapping).unwrap()));
    let before = plan.ruleset();
    let error = plan.add(new).unwrap_err();
    assert_eq!(plan.ruleset(), before, "a refusal changes nothing");
    error.to_string()
}

#[test]
fn a_port_in_a_block_that_is_mapped() {
    let text = refusal(&[block(Protocol::Udp, 21000, 21099, 2)], &port(Protocol::Udp, 21050, 3, 53));
    assert_eq!(
        text,
        "udp port 21050 overlaps udp port 21000-21099, which is mapped already: remove that first"
    );
}

#[test]
fn a_block_over_a_port_that_is_mapped() {
    let present = [port(Protocol::Udp, 21050, 3, 53), port(Protocol::Udp, 21200, 3, 54)];
    let text = refusal(&present, &block(Protocol::Udp, 21000, 21099, 2));
    assert_eq!(
        text,
        "udp port 21000-21099 overlaps udp port 21050, which is mapped already: remove that first"
    );
}

#[test]
fn the_same_port_of_one_address_twice() {
    let mapping = at("2001:db8::1", port(Protocol::Tcp, 443, 2, 8443));
    let text = refusal(std::slice::from_ref(&mapping), &mapping);
    let shown = "tcp [2001:db8::1]:443";
    assert_eq!(text, format!("{shown} overlaps {shown}, which is mapped already: remove that first"));
}

#[test]
fn other_protocols_and_single_addresses_are_no_overlap() {
    let mut plan = Plan::new(PlanConfig::default()).unwrap();
    for mapping in [
        block(Protocol::Udp, 21000, 21099, 2),
        block(Protocol::Tcp, 21000, 21099, 2),
        at("192.0.2.1", port(Protocol::Udp, 21050, 3, 53)),
        at("192.0.2.2", port(Protocol::Udp, 21050, 3, 53)),
        port(Protocol::Udp, 20999, 3, 1),
        port(Protocol::Udp, 21100, 3, 2),
    ] {
        plan.add(&mapping).unwrap();
    }
    assert_eq!(plan.len(), 6);
}

#[test]
fn mappings_that_cannot_be() {
    let udp = |container| port(Protocol::Udp, 20001, 2, container);
    let cases = [
        (
            at("192.0.2.1", Mapping { v4: None, ..udp(1) }),
            "udp 192.0.2.1:20001 leads nowhere: the instance has no IPv4 address",
        ),
        (
            Mapping { v4: None, v6: None, ..udp(1) },
            "udp port 20001 leads nowhere: the instance has no address",
        ),
        (udp(0), "udp port 20001 leads to container port 0: use 1 to 65535"),
        (
            Mapping { v4: Some([192, 168, 0, 1].into()), ..udp(1) },
            "udp port 20001 leads to 192.168.0.1, which is in none of the instances' networks",
        ),
        (
            Mapping { container: 5000, ..block(Protocol::Udp, 21000, 21001, 2) },
            "udp port 21000-21001 leads to container port 5000: a block has the same numbers outside and inside, use 21000",
        ),
    ];
    for (mapping, text) in cases {
        assert_eq!(refusal(&[], &mapping), text);
    }
    for address in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "ff02::1"]
    {
        assert!(refusal(&[], &at(address, udp(1))).contains("cannot be published"), "{address}");
    }
}

#[test]
fn removing_what_is_not_there() {
    let mut plan = Plan::new(PlanConfig::default()).unwrap();
    plan.add(&block(Protocol::Udp, 21000, 21099, 2)).unwrap();
    let part = port(Protocol::Udp, 21050, 2, 21050).key();
    assert_eq!(plan.remove(&part), Err(PlanError::Unknown(part)));
    assert_eq!(PlanError::Unknown(part).to_string(), "udp port 21050 is not mapped");
}

#[test]
fn configurations_that_cannot_be() {
    let default = PlanConfig::default;
    let nested = vec!["10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];
    for config in [
        PlanConfig { table: String::new(), ..default() },
        PlanConfig { interfaces: Some(String::new()), ..default() },
        PlanConfig { interfaces: Some("a-long-long-name".to_owned()), ..default() },
        PlanConfig { instances: nested, ..default() },
    ] {
        assert!(matches!(Plan::new(config), Err(PlanError::Config(_))));
    }
}

#[test]
fn the_last_port_of_all_can_be_mapped() {
    let mut plan = Plan::new(PlanConfig::default()).unwrap();
    plan.add(&block(Protocol::Udp, 65000, 65535, 2)).unwrap();
    plan.add(&port(Protocol::Tcp, 65535, 2, 65535)).unwrap();
    let to = "192.0.2.1:65535".parse().unwrap();
    assert_eq!(plan.destination(Protocol::Udp, to), Some("10.213.0.2:65535".parse().unwrap()));
    assert!(PortRange::new(1, 65535).is_ok_and(|all| {
        plan.add(&Mapping { host: all, container: 1, ..port(Protocol::Sctp, 1, 2, 1) }).is_ok()
    }));
}

#[test]
fn any_address_may_be_an_instance_where_others_made_the_networks() {
    let mut plan = Plan::new(PlanConfig::any()).unwrap();
    let stranger = Mapping { v4: Some([192, 168, 0, 1].into()), ..port(Protocol::Udp, 20001, 2, 1) };
    plan.add(&stranger).unwrap();
}
