//! One Service, end to end through the plan.
#![allow(clippy::unwrap_used)]

use portolan_model::{
    Endpoint, EndpointSlice, ObjectName, Protocol, Service, ServiceOptions, ServicePort, ServiceType,
    SlicePort, TrafficPolicy,
};
use portolan_nft::{Fake, Nft as _};
use portolan_services::{Services, ServicesConfig};

fn service() -> Service {
    Service {
        name: ObjectName::new("default", "web"),
        generation: 1,
        kind: ServiceType::NodePort,
        cluster_addresses: vec!["10.96.0.10".parse().unwrap(), "fd00::10".parse().unwrap()],
        external_addresses: vec![],
        load_balancer_addresses: vec![],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30080),
        }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: vec![],
        health_check_node_port: None,
        options: ServiceOptions::default(),
    }
}

fn slice(addresses: &[&str]) -> EndpointSlice {
    let endpoint = |address: &&str| Endpoint {
        address: address.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        zones: vec![],
        nodes: vec![],
        target: None,
    };
    EndpointSlice {
        name: ObjectName::new("default", "web-1"),
        service: ObjectName::new("default", "web"),
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: addresses.iter().map(endpoint).collect(),
        triggered: None,
    }
}

fn same(fake: &mut Fake, services: &Services) {
    let (mut have, mut want) = (fake.dump(&services.table()).unwrap().unwrap(), services.ruleset());
    have.sort();
    want.sort();
    let found = portolan_plan::diff(Some(&have), &want).found;
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn changes_lead_to_the_ruleset() {
    let mut services = Services::new(ServicesConfig::default()).unwrap();
    let mut fake = Fake::new();
    fake.run(&services.ruleset().creation()).unwrap();
    let config = services.config().clone();
    for changes in [
        services.set_service(service()),
        services.set_slice(slice(&["10.0.0.1", "10.0.0.2", "10.0.0.3"])),
        services.set_slice(slice(&["10.0.0.1", "10.0.0.3"])),
    ] {
        fake.run(&changes.transaction(&config)).unwrap();
    }
    same(&mut fake, &services);
    let changes = services.remove_service(&service().name);
    fake.run(&changes.transaction(&config)).unwrap();
    same(&mut fake, &services);
    assert!(services.ruleset().sets.iter().all(|set| set.elements.is_empty()));
}
