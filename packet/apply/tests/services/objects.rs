//! Services and slices to test with.

use std::{net::IpAddr, time::Duration};

use portolan_model::{
    AffinityScope, Balance, Endpoint, EndpointSlice, ObjectName, PortRange, PortSpan, Protocol, Service,
    ServiceNode, ServiceOptions, ServicePort, ServiceType, SlicePort, TrafficPolicy,
};
use portolan_services::{LocalDetector, ServicesConfig};

pub(crate) fn config() -> ServicesConfig {
    ServicesConfig {
        node: ServiceNode {
            name: "here".to_owned(),
            zone: Some("zone-a".to_owned()),
            addresses: vec!["192.0.2.1".parse().unwrap()],
        },
        detector: LocalDetector::Networks(vec!["10.244.1.0/24".parse().unwrap()]),
        service_networks: vec!["10.96.0.0/16".parse().unwrap(), "fd00:10:96::/112".parse().unwrap()],
        ..ServicesConfig::default()
    }
}

pub(crate) fn name(n: u32) -> ObjectName {
    ObjectName::new("default", format!("s-{n}"))
}

pub(crate) fn cluster_address(n: u32) -> IpAddr {
    IpAddr::from((0x0a60_0100 + n).to_be_bytes())
}

pub(crate) fn pod(n: u32) -> IpAddr {
    IpAddr::from((0x0af4_0000 + n).to_be_bytes())
}

pub(crate) fn port(protocol: Protocol, port: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort { name: protocol.to_string(), protocol, port, node_port }
}

/// A Service with a TCP and a UDP port.
pub(crate) fn service(n: u32) -> Service {
    Service {
        name: name(n),
        generation: 1,
        kind: ServiceType::ClusterIp,
        cluster_addresses: vec![cluster_address(n)],
        external_addresses: Vec::new(),
        load_balancer_addresses: Vec::new(),
        ports: vec![port(Protocol::Tcp, 80, None), port(Protocol::Udp, 53, None)],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        health_check_node_port: None,
        options: ServiceOptions::default(),
    }
}

pub(crate) fn endpoint(address: IpAddr) -> Endpoint {
    Endpoint {
        address,
        ready: true,
        serving: true,
        terminating: false,
        node: Some("elsewhere".to_owned()),
        zones: Vec::new(),
        nodes: Vec::new(),
        target: None,
    }
}

/// A slice of Service `n` with endpoints at these Pods.
pub(crate) fn slice(n: u32, pods: impl IntoIterator<Item = u32>) -> EndpointSlice {
    let port = |protocol: Protocol| SlicePort { name: protocol.to_string(), protocol, port: 8080 };
    EndpointSlice {
        name: ObjectName::new("default", format!("s-{n}-a")),
        service: name(n),
        ports: vec![port(Protocol::Tcp), port(Protocol::Udp)],
        endpoints: pods.into_iter().map(|n| endpoint(pod(n))).collect(),
        triggered: None,
    }
}

/// So many plain Services with two endpoints each.
pub(crate) fn many(count: u32) -> (Vec<Service>, Vec<EndpointSlice>) {
    let plain = |n| Service { ports: vec![port(Protocol::Tcp, 80, None)], ..service(n) };
    ((0..count).map(plain).collect(), (0..count).map(|n| slice(n, [2 * n, 2 * n + 1])).collect())
}

/// One of each kind.
pub(crate) fn some() -> (Vec<Service>, Vec<EndpointSlice>) {
    let node_port = Service {
        kind: ServiceType::NodePort,
        ports: vec![port(Protocol::Tcp, 80, Some(30080)), port(Protocol::Udp, 53, Some(30053))],
        external_policy: TrafficPolicy::Local,
        ..service(1)
    };
    let balancer = Service {
        kind: ServiceType::LoadBalancer,
        load_balancer_addresses: vec!["203.0.113.7".parse().unwrap()],
        source_ranges: vec!["198.51.100.0/24".parse().unwrap(), "192.0.2.0/25".parse().unwrap()],
        ..service(2)
    };
    let sticky = Service { affinity: Some(Duration::from_secs(10_800)), ..service(3) };
    let special = Service {
        affinity: Some(Duration::from_secs(60)),
        external_addresses: vec!["203.0.113.9".parse().unwrap()],
        options: ServiceOptions {
            affinity_scope: AffinityScope::Service,
            spans: vec![PortSpan { protocol: Protocol::Udp, ports: PortRange::new(10_000, 20_000).unwrap() }],
            drain: Some(Duration::from_secs(30)),
            ..ServiceOptions::default()
        },
        ..service(4)
    };
    let hashed = Service {
        options: ServiceOptions { balance: Balance::Source, ..ServiceOptions::default() },
        cluster_addresses: vec![cluster_address(5), "fd00:10:96::5".parse().unwrap()],
        ..service(5)
    };
    let empty = service(6);
    let whole = Service {
        options: ServiceOptions { whole_address: true, ..ServiceOptions::default() },
        ..service(7)
    };
    let mut here = slice(1, [1, 2, 3]);
    here.endpoints[0].node = Some("here".to_owned());
    let mut six = slice(5, []);
    six.name.name.push_str("-six");
    six.endpoints = vec![endpoint("fd00:10:244::5".parse().unwrap())];
    let slices = vec![
        here,
        slice(2, [4, 5]),
        slice(3, [6, 7, 8]),
        slice(4, [9, 10]),
        slice(5, 11..20),
        six,
        slice(7, [21]),
    ];
    (vec![service(0), node_port, balancer, sticky, special, hashed, empty, whole], slices)
}
