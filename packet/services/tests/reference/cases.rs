//! Expectations with names: a world, a packet, and what must come of it. The same ones judge the reference, the compiled
//! rules in memory, and the rules in the kernel.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use portolan_model::{
    Endpoint, EndpointSlice, ObjectName, Protocol, Service, ServiceNode, ServiceOptions, ServicePort,
    ServiceType, SlicePort, TrafficPolicy,
};

use super::{
    Answer, Asked, Pods, World,
    oracle::{self, Setup, Source, Way},
    vectors,
};

/// The node of all cases.
pub const NODE: &str = "testnode";
/// Another.
pub const OTHER: &str = "remote";
/// The interface to the rest of the world.
pub const UPLINK: &str = "eth0";
/// Where Pods of the node come from.
pub const POD_INTERFACE: &str = "pod0";

/// A named expectation.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub world: World,
    pub asked: Asked,
    pub expected: BTreeSet<Answer>,
}

/// A version of IP: addresses are written as of IPv4, and each has its counterpart: 10.0.1.2 is fd00::a:0:1:2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    pub v4: bool,
}

pub const VERSIONS: [Ip; 2] = [Ip { v4: true }, Ip { v4: false }];
pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

impl Ip {
    pub fn address(self, text: &str) -> IpAddr {
        let v4: Ipv4Addr = text.parse().unwrap();
        if self.v4 {
            return IpAddr::V4(v4);
        }
        let [a, b, c, d] = v4.octets().map(u16::from);
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, a, b, c, d))
    }

    pub fn network(self, text: &str) -> IpNet {
        let (address, length) = text.split_once('/').unwrap();
        let length: u8 = length.parse().unwrap();
        let (whole, rest) = (length / 8, length % 8);
        let v6 = 64 + 16 * whole + if rest > 0 { 8 + rest } else { 0 };
        let length = if self.v4 || length == 0 { length } else { v6 };
        IpNet::new(self.address(address), length).unwrap().trunc()
    }

    pub fn name(self) -> &'static str {
        if self.v4 { "IPv4" } else { "IPv6" }
    }
}

/// A node with Pods in 10.0.0.0/8 and two addresses, nothing else.
pub fn world(ip: Ip) -> World {
    let own = vec![ip.address("192.168.0.2"), ip.address("192.168.1.2")];
    World {
        services: Vec::new(),
        slices: Vec::new(),
        node: ServiceNode { name: NODE.to_owned(), zone: None, addresses: vec![own[0]] },
        own,
        pods: Pods::Networks(vec![ip.network("10.0.0.0/8")]),
        masquerade_all: false,
        node_ports: None,
        networks: vec![ip.network("172.30.0.0/16")],
    }
}

pub fn service(name: &str, kind: ServiceType, cluster: IpAddr, ports: Vec<ServicePort>) -> Service {
    Service {
        name: ObjectName::new("ns", name),
        generation: 1,
        kind,
        cluster_addresses: vec![cluster],
        external_addresses: Vec::new(),
        load_balancer_addresses: Vec::new(),
        ports,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        health_check_node_port: None,
        options: ServiceOptions::default(),
    }
}

pub fn port(protocol: Protocol, port: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort { name: format!("p{port}"), protocol, port, node_port }
}

/// One slice of a Service, its ports named as [`port`] names them.
pub fn slice(service: &str, ports: &[(Protocol, u16, u16)], endpoints: Vec<Endpoint>) -> EndpointSlice {
    let ports = ports.iter().map(|(protocol, port, target)| SlicePort {
        name: format!("p{port}"),
        protocol: *protocol,
        port: *target,
    });
    EndpointSlice {
        name: ObjectName::new("ns", format!("{service}-1")),
        service: ObjectName::new("ns", service),
        ports: ports.collect(),
        endpoints,
        triggered: None,
    }
}

/// A ready endpoint.
pub fn endpoint(address: IpAddr, node: &str) -> Endpoint {
    Endpoint {
        address,
        ready: true,
        serving: true,
        terminating: false,
        node: Some(node.to_owned()),
        zones: Vec::new(),
        nodes: Vec::new(),
        target: None,
    }
}

/// From a Pod, the node or outside.
pub fn asked(ip: Ip, source: Source, protocol: Protocol, address: IpAddr, port: u16) -> Asked {
    let (source, interface) = match source {
        Source::Pod => ("10.0.0.2", Some(POD_INTERFACE)),
        Source::Node => ("192.168.0.2", None),
        Source::Outside => ("203.0.113.2", Some(UPLINK)),
    };
    let interface = interface.map(str::to_owned);
    Asked { protocol, source: ip.address(source), destination: SocketAddr::new(address, port), interface }
}

pub fn to(masqueraded: bool, endpoints: &[SocketAddr]) -> BTreeSet<Answer> {
    endpoints.iter().map(|endpoint| Answer::To { endpoint: *endpoint, masqueraded }).collect()
}

/// Every case there is.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for ip in VERSIONS {
        for protocol in PROTOCOLS {
            for row in oracle::rows() {
                cases.push(oracle_case(ip, protocol, row));
            }
            cases.extend(vectors::cases(ip, protocol));
        }
    }
    cases
}

/// A row of the oracle: a Service with one endpoint here and one elsewhere.
fn oracle_case(ip: Ip, protocol: Protocol, row: oracle::Row) -> Case {
    let mut world = world(ip);
    let one = port(protocol, 80, Some(30_001));
    let mut service = service("svc", ServiceType::LoadBalancer, ip.address("172.30.0.41"), vec![one]);
    service.load_balancer_addresses = vec![ip.address("1.2.3.4")];
    (service.internal_policy, service.external_policy) = row.policies;
    world.services.push(service);
    let here = SocketAddr::new(ip.address("10.180.0.1"), 8080);
    let there = SocketAddr::new(ip.address("10.180.1.1"), 8080);
    let endpoints = vec![endpoint(here.ip(), NODE), endpoint(there.ip(), OTHER)];
    world.slices.push(slice("svc", &[(protocol, 80, 8080)], endpoints));
    if matches!(row.setup, Setup::Undetected | Setup::UndetectedMasqueradeAll) {
        world.pods = Pods::Unknown;
    }
    world.masquerade_all = matches!(row.setup, Setup::MasqueradeAll | Setup::UndetectedMasqueradeAll);
    let (address, number) = match row.way {
        Way::Cluster => ("172.30.0.41", 80),
        Way::NodePort => ("192.168.0.2", 30_001),
        Way::LoadBalancer => ("1.2.3.4", 80),
    };
    let reached = if row.expected.remote_too { vec![here, there] } else { vec![here] };
    Case {
        name: format!(
            "{} {protocol}, {:?}: {:?} to {:?}, internal {:?}, external {:?}",
            ip.name(),
            row.setup,
            row.source,
            row.way,
            row.policies.0,
            row.policies.1
        ),
        world,
        asked: asked(ip, row.source, protocol, ip.address(address), number),
        expected: to(row.expected.masqueraded, &reached),
    }
}
