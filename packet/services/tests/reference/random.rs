//! Worlds and packets of all kinds. What the documentation leaves open is left out: two Services with one address and
//! port, one endpoint address twice with different conditions other than on its way out or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use portolan_model::{
    Endpoint, EndpointSlice, ObjectName, Protocol, Service, ServiceNode, ServicePort, ServiceType, SlicePort,
    TrafficPolicy,
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    Asked, Pods, World,
    cases::{Ip, OTHER, PROTOCOLS, UPLINK, VERSIONS, service},
};

/// The node's name; endpoints say it, and hints.
pub const OWN: &str = "own";
/// The node's addresses.
pub const ADDRESSES: [&str; 2] = ["192.168.0.2", "192.168.1.2"];
/// The interface that Pods of the node come by.
pub const PODS: &str = "pod0";
/// The network of Pods of the node.
pub const POD_NETWORK: &str = "10.1.0.0/24";

/// Where endpoints are: Pods of this node, the node itself, elsewhere, nowhere in particular.
pub const HOSTS: [(&str, Option<&str>); 7] = [
    ("10.1.0.11", Some(OWN)),
    ("10.1.0.12", Some(OWN)),
    ("192.168.0.2", Some(OWN)),
    ("10.2.0.11", Some("two")),
    ("10.2.0.12", Some("two")),
    ("10.3.0.11", Some(OTHER)),
    ("10.3.0.12", None),
];

/// Ready, serving, terminating.
const CONDITIONS: [(bool, bool, bool); 6] = [
    (true, true, false),
    (false, true, true),
    (false, false, true),
    (false, true, false),
    (false, false, false),
    (true, true, true),
];

#[derive(Clone, Debug)]
struct EndpointRecipe {
    host: usize,
    conditions: usize,
    zones: usize,
    nodes: usize,
}

#[derive(Clone, Debug)]
struct SliceRecipe {
    v4: bool,
    // Which of the Service's ports it has; one bit for each.
    ports: u8,
    target: u16,
    endpoints: Vec<EndpointRecipe>,
}

#[derive(Clone, Debug)]
struct ServiceRecipe {
    kind: ServiceType,
    families: usize,
    ports: Vec<(Protocol, u16, bool)>,
    external: bool,
    balancers: usize,
    affinity: bool,
    policies: (TrafficPolicy, TrafficPolicy),
    ranges: usize,
    node_ranges: usize,
    told: bool,
    slices: Vec<SliceRecipe>,
}

fn endpoint() -> impl Strategy<Value = EndpointRecipe> {
    // Mostly ready, mostly without hints.
    let conditions = prop_oneof![3 => Just(0), 2 => 0..CONDITIONS.len()];
    let hints = || prop_oneof![2 => Just(0_usize), 3 => 0..4_usize];
    (0..HOSTS.len(), conditions, hints(), hints())
        .prop_map(|(host, conditions, zones, nodes)| EndpointRecipe { host, conditions, zones, nodes })
}

fn slice() -> impl Strategy<Value = SliceRecipe> {
    (any::<bool>(), prop_oneof![3 => Just(0xff), 1 => any::<u8>()], 0..3_u16, vec(endpoint(), 0..5))
        .prop_map(|(v4, ports, target, endpoints)| SliceRecipe { v4, ports, target, endpoints })
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local])
}

fn one_service() -> impl Strategy<Value = ServiceRecipe> {
    let kind = select(vec![ServiceType::ClusterIp, ServiceType::NodePort, ServiceType::LoadBalancer]);
    let port = (select(PROTOCOLS.to_vec()), select(vec![80_u16, 443, 53]), any::<bool>());
    let ranges = || prop_oneof![3 => Just(0_usize), 2 => 0..5_usize];
    (
        (kind, 0..4_usize, vec(port, 1..4), any::<bool>(), 0..3_usize, prop::bool::weighted(0.3)),
        ((policy(), policy()), ranges(), ranges(), any::<bool>(), vec(slice(), 0..4)),
    )
        .prop_map(
            |(
                (kind, families, ports, external, balancers, affinity),
                (policies, ranges, node_ranges, told, slices),
            )| {
                ServiceRecipe {
                    kind,
                    families,
                    ports,
                    external,
                    balancers,
                    affinity,
                    policies,
                    ranges,
                    node_ranges,
                    told,
                    slices,
                }
            },
        )
}

/// Nodes with up to four Services.
pub fn worlds() -> impl Strategy<Value = World> {
    let pods = select(vec![
        Pods::Unknown,
        Pods::Networks(VERSIONS.iter().map(|ip| ip.network(POD_NETWORK)).collect()),
        Pods::Networks(vec![VERSIONS[0].network(POD_NETWORK)]),
        Pods::Interface(PODS.to_owned()),
        Pods::Prefix("pod".to_owned()),
    ]);
    let zone = select(vec![None, Some("a".to_owned())]);
    (vec(one_service(), 1..4), pods, zone, prop::bool::weighted(0.2), 0..4_usize, any::<bool>()).prop_map(
        |(recipes, pods, zone, masquerade_all, node_ports, networks)| {
            let own: Vec<_> = ADDRESSES.iter().flat_map(|text| VERSIONS.map(|ip| ip.address(text))).collect();
            let node_ports = match node_ports {
                0 | 1 => None,
                2 => Some(own[..2].iter().copied().collect()),
                _ => Some(BTreeSet::from([own[2], own[1]])),
            };
            let node = ServiceNode { name: OWN.to_owned(), zone, addresses: own[..2].to_vec() };
            let networks =
                if networks { VERSIONS.map(|ip| ip.network("172.30.0.0/16")).to_vec() } else { Vec::new() };
            let mut world = World {
                services: vec![],
                slices: vec![],
                node,
                own,
                pods,
                masquerade_all,
                node_ports,
                networks,
            };
            for (number, recipe) in recipes.into_iter().enumerate() {
                build(&mut world, number, recipe);
            }
            world
        },
    )
}

fn build(world: &mut World, number: usize, recipe: ServiceRecipe) {
    let families: Vec<Ip> = match recipe.families {
        0 => vec![VERSIONS[0]],
        1 => vec![VERSIONS[1]],
        _ => VERSIONS.to_vec(),
    };
    let name = format!("svc{number}");
    let at = |ip: Ip, network: &str, host: usize| ip.address(&format!("{network}.{host}"));
    let mut made =
        service(&name, recipe.kind, at(families[0], "172.30.0", number + 1), ports(number, &recipe));
    made.cluster_addresses = families.iter().map(|ip| at(*ip, "172.30.0", number + 1)).collect();
    if recipe.external {
        // Also of a version that it has no cluster address of.
        made.external_addresses = VERSIONS.iter().map(|ip| at(*ip, "192.0.2", number + 1)).collect();
    }
    if recipe.kind == ServiceType::LoadBalancer {
        let balancers = (0..recipe.balancers).flat_map(|balancer| {
            families.iter().map(move |ip| at(*ip, "198.51.100", number * 10 + balancer + 1))
        });
        made.load_balancer_addresses = balancers.collect();
    }
    (made.internal_policy, made.external_policy) = recipe.policies;
    made.affinity = recipe.affinity.then_some(Duration::from_secs(10_800));
    made.source_ranges = ranges(recipe.ranges);
    made.options.node_source_ranges = ranges(recipe.node_ranges);
    made.options.reject_without_local = recipe.told;
    let mut known = BTreeMap::new();
    for (index, slice) in recipe.slices.iter().enumerate() {
        let built = built_slice(&made, index, slice, &mut known);
        world.slices.push(built);
    }
    world.services.push(made);
}

fn ranges(which: usize) -> Vec<ipnet::IpNet> {
    let ranges: &[&str] = match which {
        0 => &[],
        1 => &["203.0.113.0/25"],
        2 => &["203.0.113.0/25", "192.168.0.0/24"],
        3 => &["10.1.0.0/16", "203.0.113.0/24", "203.0.113.128/25"],
        _ => &["10.0.0.0/8", "0.0.0.0/0"],
    };
    ranges.iter().flat_map(|text| VERSIONS.map(|ip| ip.network(text))).collect()
}

fn ports(number: usize, recipe: &ServiceRecipe) -> Vec<ServicePort> {
    let mut seen = BTreeSet::new();
    let distinct = recipe.ports.iter().filter(|(protocol, port, _)| seen.insert((*protocol, *port)));
    let made = distinct.enumerate().map(|(index, (protocol, port, on_nodes))| {
        let serves = *on_nodes && recipe.kind != ServiceType::ClusterIp;
        ServicePort {
            name: format!("{protocol}-{port}"),
            protocol: *protocol,
            port: *port,
            node_port: serves.then_some(30_000 + (number * 10 + index) as u16),
        }
    });
    made.collect()
}

fn built_slice(
    service: &Service,
    index: usize,
    recipe: &SliceRecipe,
    known: &mut BTreeMap<(std::net::IpAddr, bool), Endpoint>,
) -> EndpointSlice {
    let ip = Ip { v4: recipe.v4 };
    let has = |bit: usize| recipe.ports & 1 << (bit % 8) != 0;
    let ports = service.ports.iter().enumerate().filter(|(bit, _)| has(*bit)).map(|(_, port)| SlicePort {
        name: port.name.clone(),
        protocol: port.protocol,
        port: 8000 + recipe.target * 100 + port.port,
    });
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for one in &recipe.endpoints {
        let (address, node) = HOSTS[one.host];
        let (ready, serving, terminating) = CONDITIONS[one.conditions];
        let words = |which: usize, all: [&'static [&'static str]; 4]| -> Vec<String> {
            all[which].iter().map(|word| (*word).to_owned()).collect()
        };
        let made = Endpoint {
            address: ip.address(address),
            ready,
            serving,
            terminating,
            node: node.map(str::to_owned),
            zones: words(one.zones, [&[], &["a"], &["b"], &["a", "b"]]),
            nodes: words(one.nodes, [&[], &[OWN], &["two"], &[OWN, "two"]]),
            target: None,
        };
        let made = known.entry((made.address, terminating)).or_insert(made).clone();
        if endpoints.iter().all(|there| there.address != made.address) {
            endpoints.push(made);
        }
    }
    EndpointSlice {
        name: ObjectName::new(&service.name.namespace, format!("{}-{index}", service.name.name)),
        service: service.name.clone(),
        ports: ports.collect(),
        endpoints,
        triggered: None,
    }
}

/// Packets from everywhere to every address of every Service and around them.
pub fn packets(world: &World) -> Vec<Asked> {
    let mut packets = Vec::new();
    for ip in VERSIONS {
        let mut sources: Vec<(&str, Option<&str>)> = vec![
            (ADDRESSES[0], None),
            (ADDRESSES[1], None),
            ("10.1.0.11", Some(PODS)),
            ("10.1.0.77", Some(PODS)),
            ("10.1.0.78", Some("pod17")),
            ("10.2.0.77", Some(UPLINK)),
            ("203.0.113.2", Some(UPLINK)),
            ("203.0.113.130", Some(UPLINK)),
        ];
        sources.push(("198.51.100.1", Some(UPLINK)));
        for (source, interface) in sources {
            for (protocol, destination) in destinations(world, ip) {
                let interface = interface.map(str::to_owned);
                packets.push(Asked { protocol, source: ip.address(source), destination, interface });
            }
        }
    }
    packets
}

fn destinations(world: &World, ip: Ip) -> Vec<(Protocol, std::net::SocketAddr)> {
    let mut addresses: BTreeSet<std::net::IpAddr> = BTreeSet::new();
    let mut numbers = BTreeSet::from([22]);
    for service in &world.services {
        addresses.extend(&service.cluster_addresses);
        addresses.extend(&service.external_addresses);
        addresses.extend(&service.load_balancer_addresses);
        numbers.extend(service.ports.iter().map(|port| port.port));
    }
    addresses.retain(|address| address.is_ipv4() == ip.v4);
    addresses.insert(ip.address("172.30.0.200"));
    addresses.insert(ip.address("10.2.0.11"));
    let mut all = Vec::new();
    for protocol in PROTOCOLS {
        for number in &numbers {
            all.extend(addresses.iter().map(|address| (protocol, (*address, *number).into())));
        }
    }
    for port in world.services.iter().flat_map(|service| &service.ports) {
        for (protocol, number) in [(port.protocol, port.node_port.unwrap_or(22)), (port.protocol, 30_999)] {
            for text in ADDRESSES {
                all.push((protocol, (ip.address(text), number).into()));
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}
