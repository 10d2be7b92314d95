//! What kube-proxy 1.36 does to the first packet of a connection, in plain Rust, written from its documentation and
//! behaviour alone: it shares no line with the compiler that it judges, and makes no rules.
//!
//! [`answers`] is the whole of it: Services, endpoints, a node and a packet give the set of what may happen.
//! [`endpoints`] is the choice of endpoints; [`oracle`] and [`vectors`] are kube-proxy's own expectations as data, both
//! made into [`cases`]; [`random`] makes worlds and packets of all kinds.
#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]

pub mod cases;
pub mod endpoints;
pub mod oracle;
pub mod random;
pub mod vectors;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use endpoints::{Candidate, Lists, lists};
use ipnet::IpNet;
use portolan_model::{EndpointSlice, Protocol, Service, ServiceNode, ServicePort, TrafficPolicy};

/// How Pods of the node are told from everybody else (KEP-1898; `detectLocalMode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pods {
    /// They are not.
    Unknown,
    /// By source address.
    Networks(Vec<IpNet>),
    /// By the interface they come by.
    Interface(String),
    /// By what its name begins with.
    Prefix(String),
}

/// Everything that decides.
#[derive(Clone, Debug)]
pub struct World {
    pub services: Vec<Service>,
    pub slices: Vec<EndpointSlice>,
    pub node: ServiceNode,
    /// Addresses of the node itself, loopback aside.
    pub own: Vec<IpAddr>,
    pub pods: Pods,
    pub masquerade_all: bool,
    /// Where node ports are served; `None`: on all of the node's addresses but loopback.
    pub node_ports: Option<BTreeSet<IpAddr>>,
    /// The networks of ServiceCIDR objects.
    pub networks: Vec<IpNet>,
}

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub protocol: Protocol,
    pub source: IpAddr,
    pub destination: SocketAddr,
    /// The interface it comes by; `None`: the node itself sends it.
    pub interface: Option<String>,
}

/// What may happen to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// It goes to this endpoint; masqueraded, or with its source kept.
    To { endpoint: SocketAddr, masqueraded: bool },
    /// Refused: the client learns of it at once.
    Rejected,
    /// Thrown away.
    Dropped,
    /// No business of Services.
    Untouched,
}

/// By which of its addresses a Service is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    Cluster,
    External,
    LoadBalancer,
    NodePort,
}

/// Where a packet is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Pod,
    Node,
    Outside,
}

/// All that may happen to a packet.
pub fn answers(world: &World, asked: &Asked) -> BTreeSet<Answer> {
    let Some((service, port, front)) = find(world, asked) else {
        return BTreeSet::from([without_a_service(world, asked)]);
    };
    if !is_admitted(world, service, front, asked) {
        return BTreeSet::from([Answer::Dropped]);
    }
    let lists = lists(world, service, port, asked.destination.is_ipv4());
    if lists.cluster.is_empty() && lists.local.is_empty() {
        return BTreeSet::from([Answer::Rejected]);
    }
    let from = origin(world, asked);
    let chosen = match list(service, front, from) {
        TrafficPolicy::Cluster => &lists.cluster,
        TrafficPolicy::Local => &lists.local,
    };
    if chosen.is_empty() {
        // There is no endpoint here and there are some elsewhere: the packet came to the wrong node.
        let told = service.options.reject_without_local;
        return BTreeSet::from([if told { Answer::Rejected } else { Answer::Dropped }]);
    }
    let answer = |candidate: &Candidate| {
        let endpoint = candidate.endpoint;
        // What comes to the node and stays there leaves by no interface whose address it could get.
        let leaves = asked.interface.is_none() || !world.own.contains(&endpoint.ip());
        let hairpin = candidate.is_local && endpoint.ip() == asked.source;
        let masqueraded = leaves && (hairpin || is_masqueraded(world, service, front, from, asked));
        Answer::To { endpoint, masqueraded }
    };
    chosen.iter().map(answer).collect()
}

/// Whether whoever asks this stays with the endpoint that answers.
pub fn keeps(world: &World, asked: &Asked) -> bool {
    find(world, asked).is_some_and(|(service, ..)| service.affinity.is_some())
}

/// The lists of a service port, for tests of affinity.
pub fn usable(world: &World, service: &Service, port: &ServicePort, ipv4: bool) -> Lists {
    lists(world, service, port, ipv4)
}

/// Which Service port a packet is for. A version of IP in which a Service has no cluster address has nothing of it.
fn find<'w>(world: &'w World, asked: &Asked) -> Option<(&'w Service, &'w ServicePort, Front)> {
    let to = asked.destination;
    for service in &world.services {
        if !service.cluster_addresses.iter().any(|address| address.is_ipv4() == to.is_ipv4()) {
            continue;
        }
        let front = if service.cluster_addresses.contains(&to.ip()) {
            Some(Front::Cluster)
        } else if service.external_addresses.contains(&to.ip()) {
            Some(Front::External)
        } else if service.load_balancer_addresses.contains(&to.ip()) {
            Some(Front::LoadBalancer)
        } else {
            None
        };
        for port in service.ports.iter().filter(|port| port.protocol == asked.protocol) {
            if let Some(front) = front
                && port.port == to.port()
            {
                return Some((service, port, front));
            }
            if port.node_port == Some(to.port()) && serves_node_ports(world, to.ip()) {
                return Some((service, port, Front::NodePort));
            }
        }
    }
    None
}

fn serves_node_ports(world: &World, address: IpAddr) -> bool {
    let among = world.node_ports.as_ref().is_none_or(|only| only.contains(&address));
    world.own.contains(&address) && among
}

/// A cluster address on a port that it does not have, or one that was given to nobody.
fn without_a_service(world: &World, asked: &Asked) -> Answer {
    let to = asked.destination.ip();
    if world.services.iter().any(|service| service.cluster_addresses.contains(&to)) {
        Answer::Rejected
    } else if world.networks.iter().any(|network| network.contains(&to)) {
        Answer::Dropped
    } else {
        Answer::Untouched
    }
}

/// `loadBalancerSourceRanges` concern the addresses of the load balancer only, and everybody who asks there. What a
/// node sends to such an address may come back with one of those addresses as its source, so who lets the node in lets
/// them in too.
fn is_admitted(world: &World, service: &Service, front: Front, asked: &Asked) -> bool {
    let ranges = match front {
        Front::LoadBalancer => &service.source_ranges,
        Front::NodePort | Front::External => &service.options.node_source_ranges,
        Front::Cluster => return true,
    };
    let ipv4 = asked.destination.is_ipv4();
    let ranges: Vec<&IpNet> = ranges.iter().filter(|range| range.addr().is_ipv4() == ipv4).collect();
    if ranges.is_empty() || ranges.iter().any(|range| range.prefix_len() == 0) {
        return true;
    }
    let among = |address: IpAddr| ranges.iter().any(|range| range.contains(&address));
    let lets_node_in = world.node.addresses.iter().any(|address| among(*address));
    let is_itself = front == Front::LoadBalancer && service.load_balancer_addresses.contains(&asked.source);
    among(asked.source) || (is_itself && lets_node_in)
}

fn origin(world: &World, asked: &Asked) -> From {
    let pod = match (&world.pods, &asked.interface) {
        (Pods::Unknown, _) | (Pods::Interface(_) | Pods::Prefix(_), None) => false,
        (Pods::Networks(networks), _) => networks.iter().any(|network| network.contains(&asked.source)),
        (Pods::Interface(name), Some(interface)) => name == interface,
        (Pods::Prefix(prefix), Some(interface)) => interface.starts_with(prefix),
    };
    if pod {
        From::Pod
    } else if world.own.contains(&asked.source) || asked.source.is_loopback() {
        From::Node
    } else {
        From::Outside
    }
}

/// Which list serves: by the policy, and for what comes from within the node to an outside address, always all (the
/// "short circuit": the packet has not left the cluster, so no load balancer chose this node).
fn list(service: &Service, front: Front, from: From) -> TrafficPolicy {
    match front {
        Front::Cluster => service.internal_policy,
        _ if !service.is_externally_local() || from != From::Outside => TrafficPolicy::Cluster,
        _ => TrafficPolicy::Local,
    }
}

/// So that answers come back here. Pods of the node keep their address where they can.
fn is_masqueraded(world: &World, service: &Service, front: Front, from: From, asked: &Asked) -> bool {
    match front {
        Front::Cluster if world.masquerade_all => true,
        Front::Cluster => detects(world, asked.destination.is_ipv4()) && from != From::Pod,
        _ if service.is_externally_local() => from == From::Node,
        _ => true,
    }
}

/// Whether Pods can be told from others at all, in this version of IP.
fn detects(world: &World, ipv4: bool) -> bool {
    match &world.pods {
        Pods::Unknown => false,
        Pods::Networks(networks) => networks.iter().any(|network| network.addr().is_ipv4() == ipv4),
        Pods::Interface(_) | Pods::Prefix(_) => true,
    }
}
