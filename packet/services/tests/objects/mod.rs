//! Services and slices, close enough together to meet.
#![allow(unreachable_pub, reason = "shared by several test binaries")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use portolan_model::{
    AffinityScope, Balance, Endpoint, EndpointSlice, ObjectName, PortRange, PortSpan, Protocol, Service,
    ServiceNode, ServiceOptions, ServicePort, ServiceType, SlicePort, TrafficPolicy,
};
use portolan_services::{Counting, LocalDetector, NodePortAddresses, ServicesConfig};
use proptest::{collection::vec, prelude::*, sample::select};

pub fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

/// A Service of both versions with one port, which is on nodes too.
pub fn service(text: &str, number: u16) -> Service {
    let [high, low] = number.to_be_bytes();
    Service {
        name: name(text),
        generation: 1,
        kind: ServiceType::NodePort,
        cluster_addresses: vec![[10, 96, high, low].into(), [0xfd00, 0, 0, 0, 0, 0, 0x96, number].into()],
        external_addresses: vec![],
        load_balancer_addresses: vec![],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30_000 + number),
        }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: vec![],
        health_check_node_port: None,
        options: ServiceOptions::default(),
    }
}

pub fn endpoint(number: u16) -> Endpoint {
    let [high, low] = number.to_be_bytes();
    Endpoint {
        address: [10, 0, high, low].into(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(if number.is_multiple_of(2) { "own" } else { "other" }.into()),
        zones: vec![],
        nodes: vec![],
        target: Some(format!("pod-{number}")),
    }
}

/// The slice of a Service's port, with these endpoints.
pub fn slice(service: &str, endpoints: &[Endpoint]) -> EndpointSlice {
    EndpointSlice {
        name: name(&format!("{service}-1")),
        service: name(service),
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: endpoints.to_vec(),
        triggered: None,
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    SetService(Box<Service>),
    RemoveService(ObjectName),
    SetSlice(EndpointSlice),
    RemoveSlice(ObjectName),
}

/// What is there after some steps.
#[derive(Default)]
pub struct Objects {
    services: BTreeMap<ObjectName, Service>,
    slices: BTreeMap<ObjectName, EndpointSlice>,
}

impl Objects {
    pub fn take(&mut self, step: &Step) {
        match step {
            Step::SetService(service) => {
                self.services.insert(service.name.clone(), (**service).clone());
            }
            Step::RemoveService(name) => {
                self.services.remove(name);
            }
            Step::SetSlice(slice) => {
                self.slices.insert(slice.name.clone(), slice.clone());
            }
            Step::RemoveSlice(name) => {
                self.slices.remove(name);
            }
        }
    }

    pub fn services(&self) -> Vec<Service> {
        // Not in the order in which they came.
        self.services.values().rev().cloned().collect()
    }

    pub fn slices(&self) -> Vec<EndpointSlice> {
        self.slices.values().rev().cloned().collect()
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

pub fn steps(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => services().prop_map(|service| Step::SetService(Box::new(service))),
        1 => select(NAMES.to_vec()).prop_map(|text| Step::RemoveService(name(text))),
        6 => slices().prop_map(Step::SetSlice),
        1 => (0..8u8).prop_map(|number| Step::RemoveSlice(name(&format!("slice-{number}")))),
    ];
    vec(step, count)
}

fn addresses(some: &'static [&'static str]) -> impl Strategy<Value = Vec<IpAddr>> {
    prop_oneof![
        2 => Just(Vec::new()),
        1 => vec(select(some.to_vec()), 1..3).prop_map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect()),
    ]
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local])
}

fn networks() -> impl Strategy<Value = Vec<ipnet::IpNet>> {
    let some = ["10.0.0.0/8", "10.0.0.0/9", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "2001:db8:1::/48"];
    prop_oneof![
        2 => Just(Vec::new()),
        1 => vec(select(some.to_vec()), 1..3).prop_map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect()),
    ]
}

fn ports() -> impl Strategy<Value = Vec<ServicePort>> {
    let port = (
        select(vec!["http", "dns"]),
        select(Protocol::ALL.to_vec()),
        select(vec![53u16, 80, 81]),
        prop_oneof![Just(None), (30_000u16..30_003).prop_map(Some)],
    );
    let port = port.prop_map(|(name, protocol, port, node_port)| ServicePort {
        name: name.into(),
        protocol,
        port,
        node_port,
    });
    vec(port, 0..3)
}

fn options() -> impl Strategy<Value = ServiceOptions> {
    let span = (select(Protocol::ALL.to_vec()), 50u16..60, 1u16..40).prop_map(|(protocol, first, count)| {
        PortSpan { protocol, ports: PortRange::block(first, count).unwrap() }
    });
    let weights = prop::collection::btree_map(select(vec!["pod-0", "pod-1", "10.0.0.2"]), 0u16..4, 0..3);
    (
        select(vec![Balance::Random, Balance::Random, Balance::Random, Balance::Source]),
        select(vec![AffinityScope::Port, AffinityScope::Service]),
        prop_oneof![2 => Just(BTreeMap::new()), 1 => weights],
        prop_oneof![2 => Just(Vec::new()), 1 => vec(span, 1..3)],
        prop::bool::weighted(0.2),
        networks(),
        prop_oneof![2 => Just(None), 1 => Just(Some(Duration::from_secs(3)))],
        any::<bool>(),
    )
        .prop_map(
            |(balance, affinity_scope, weights, spans, whole_address, node_source_ranges, drain, told)| {
                ServiceOptions {
                    balance,
                    affinity_scope,
                    weights: weights.into_iter().map(|(name, weight)| (name.to_owned(), weight)).collect(),
                    spans,
                    whole_address,
                    node_source_ranges,
                    drain,
                    reject_without_local: told,
                }
            },
        )
}

fn services() -> impl Strategy<Value = Service> {
    let cluster: Vec<Vec<IpAddr>> = [
        &["10.96.0.1"][..],
        &["10.96.0.2", "fd00::2"],
        &["fd00::1", "10.96.0.1"],
        &["fd00::1"],
        &["10.96.0.3"],
    ]
    .iter()
    .map(|all| all.iter().map(|text| text.parse().unwrap()).collect())
    .collect();
    let external = addresses(&["192.0.2.1", "192.0.2.2", "2001:db8::1", "10.96.0.1"]);
    let balancers = addresses(&["192.0.2.1", "192.0.2.3", "2001:db8::1"]);
    (
        select(NAMES.to_vec()),
        select(vec![ServiceType::ClusterIp, ServiceType::NodePort, ServiceType::LoadBalancer]),
        (select(cluster), external, balancers),
        ports(),
        (policy(), policy()),
        prop_oneof![2 => Just(None), 1 => Just(Some(Duration::from_secs(10))), 1 => Just(Some(Duration::from_secs(86_400)))],
        networks(),
        options(),
    )
        .prop_map(|(text, kind, addresses, ports, policies, affinity, source_ranges, options)| Service {
            name: name(text),
            generation: 1,
            kind,
            cluster_addresses: addresses.0,
            external_addresses: addresses.1,
            load_balancer_addresses: addresses.2,
            ports,
            internal_policy: policies.0,
            external_policy: policies.1,
            affinity,
            source_ranges,
            health_check_node_port: None,
            options,
        })
}

fn slices() -> impl Strategy<Value = EndpointSlice> {
    let endpoint = (
        (0u16..30, any::<bool>()),
        select(vec![(true, true, false), (true, true, false), (false, true, true), (false, false, false)]),
        select(vec![None, Some("own"), Some("other")]),
        select(vec![vec![], vec!["z"], vec!["y"]]),
        select(vec![vec![], vec![], vec!["own"]]),
    )
        .prop_map(|((number, v4), (ready, serving, terminating), node, zones, nodes)| Endpoint {
            address: if v4 {
                [10, 0, 0, number as u8].into()
            } else {
                [0xfd00, 0, 0, 1, 0, 0, 0, number].into()
            },
            ready,
            serving,
            terminating,
            node: node.map(str::to_owned),
            zones: zones.into_iter().map(str::to_owned).collect(),
            nodes: nodes.into_iter().map(str::to_owned).collect(),
            target: Some(format!("pod-{number}")),
        });
    let port = (select(vec!["http", "dns"]), select(Protocol::ALL.to_vec()), 8000u16..8003)
        .prop_map(|(name, protocol, port)| SlicePort { name: name.into(), protocol, port });
    (0..8u8, select(NAMES.to_vec()), vec(port, 1..4), vec(endpoint, 0..24)).prop_map(
        |(number, service, ports, endpoints)| EndpointSlice {
            name: name(&format!("slice-{number}")),
            service: name(service),
            ports,
            endpoints,
            triggered: None,
        },
    )
}

pub fn configs() -> impl Strategy<Value = ServicesConfig> {
    let detector = select(vec![
        LocalDetector::None,
        LocalDetector::Networks(vec!["10.0.0.0/16".parse().unwrap()]),
        LocalDetector::InterfacePrefix("veth".into()),
    ]);
    let node_ports = select(vec![
        NodePortAddresses::All,
        NodePortAddresses::Only([[192, 168, 0, 1].into(), [192, 168, 0, 2].into()].into()),
    ]);
    let counting = select(vec![Counting::Off, Counting::Connections, Counting::Traffic]);
    (detector, node_ports, counting, any::<bool>(), select(vec![None, Some("z")])).prop_map(
        |(detector, node_ports, counting, masquerade_all, zone)| ServicesConfig {
            node: ServiceNode {
                name: "own".into(),
                zone: zone.map(str::to_owned),
                addresses: vec!["192.0.2.9".parse().unwrap()],
            },
            detector,
            node_ports,
            counting,
            masquerade_all,
            service_networks: vec!["10.96.0.0/16".parse().unwrap(), "fd00::/112".parse().unwrap()],
            ..ServicesConfig::default()
        },
    )
}
