//! More of kube-proxy's own expectations, by the names of its tests in `pkg/proxy/nftables/proxier_test.go`, 1.36.3, for
//! every version of IP and protocol where they had one.

use std::{collections::BTreeSet, net::SocketAddr};

use portolan_model::{Endpoint, Protocol, ServiceType, TrafficPolicy};

use super::{
    Answer, World,
    cases::{Case, Ip, NODE, OTHER, asked, endpoint, port, service, slice, to, world},
    oracle::Source::{self, Node, Outside, Pod},
};

const CLUSTER: &str = "172.30.0.41";
const BALANCER: &str = "1.2.3.4";
const EXTERNAL: &str = "192.168.99.11";
const NODE_ADDRESS: &str = "192.168.0.2";

/// What comes after the version and protocol in a case's name, from where, to where, and the expectation.
type Line<'a> = (&'a str, Source, &'a str, u16, BTreeSet<Answer>);

pub fn cases(ip: Ip, protocol: Protocol) -> Vec<Case> {
    let mut cases = no_endpoints(ip, protocol);
    cases.extend(cluster_general(ip, protocol));
    cases.extend(source_ranges(ip, protocol));
    cases.extend(node_ports(ip, protocol));
    cases.extend(internal_policy(ip, protocol));
    cases.extend(terminating(ip, protocol));
    cases
}

fn made(ip: Ip, protocol: Protocol, test: &str, world: &World, lines: Vec<Line<'_>>) -> Vec<Case> {
    let case = |(name, source, address, port, expected): Line<'_>| Case {
        name: format!("{} {protocol}, {test}: {name}", ip.name()),
        world: world.clone(),
        asked: asked(ip, source, protocol, ip.address(address), port),
        expected,
    };
    lines.into_iter().map(case).collect()
}

fn rejected() -> BTreeSet<Answer> {
    BTreeSet::from([Answer::Rejected])
}

fn dropped() -> BTreeSet<Answer> {
    BTreeSet::from([Answer::Dropped])
}

fn untouched() -> BTreeSet<Answer> {
    BTreeSet::from([Answer::Untouched])
}

/// A Service with all kinds of addresses and no endpoint.
fn bare(ip: Ip, protocol: Protocol) -> World {
    let mut world = world(ip);
    let one = port(protocol, 80, Some(30_001));
    let mut service = service("svc1", ServiceType::LoadBalancer, ip.address(CLUSTER), vec![one]);
    service.external_addresses = vec![ip.address(EXTERNAL)];
    service.load_balancer_addresses = vec![ip.address(BALANCER)];
    world.services.push(service);
    world
}

fn no_endpoints(ip: Ip, protocol: Protocol) -> Vec<Case> {
    let lines = vec![
        ("pod to cluster address", Pod, CLUSTER, 80, rejected()),
        ("outside to external address", Outside, EXTERNAL, 80, rejected()),
        ("pod to node port", Pod, NODE_ADDRESS, 30_001, rejected()),
        ("outside to node port", Outside, NODE_ADDRESS, 30_001, rejected()),
        ("node to node port", Node, NODE_ADDRESS, 30_001, rejected()),
        ("pod to load balancer", Pod, BALANCER, 80, rejected()),
        ("outside to load balancer", Outside, BALANCER, 80, rejected()),
        ("node to load balancer", Node, BALANCER, 80, rejected()),
    ];
    made(ip, protocol, "TestNoEndpointsReject", &bare(ip, protocol), lines)
}

fn cluster_general(ip: Ip, protocol: Protocol) -> Vec<Case> {
    let mut world = world(ip);
    let one = port(protocol, 80, None);
    world.services.push(service("svc1", ServiceType::ClusterIp, ip.address(CLUSTER), vec![one.clone()]));
    let mut two = service("svc2", ServiceType::ClusterIp, ip.address("172.30.0.42"), vec![one]);
    two.ports.push(port(protocol, 443, None));
    for each in super::cases::PROTOCOLS {
        two.ports.push(port(each, 53, None));
    }
    world.services.push(two);
    let (here, there) = (ip.address("10.180.0.1"), ip.address("10.180.2.1"));
    world.slices.push(slice("svc1", &[(protocol, 80, 80)], vec![endpoint(here, NODE)]));
    // The target port of each protocol is another.
    let targets = [
        (protocol, 80, 80),
        (protocol, 443, 8443),
        (Protocol::Tcp, 53, 5353),
        (Protocol::Udp, 53, 5354),
        (Protocol::Sctp, 53, 5355),
    ];
    world.slices.push(slice("svc2", &targets, vec![endpoint(here, NODE), endpoint(there, OTHER)]));
    let both = |port| to(false, &[SocketAddr::new(here, port), SocketAddr::new(there, port)]);
    let dns = targets.iter().find(|(each, port, _)| *each == protocol && *port == 53).unwrap().2;
    let lines = vec![
        ("simple cluster address", Pod, CLUSTER, 80, to(false, &[SocketAddr::new(here, 80)])),
        ("several endpoints", Pod, "172.30.0.42", 80, both(80)),
        ("another target port", Pod, "172.30.0.42", 443, both(8443)),
        ("one port of three protocols", Pod, "172.30.0.42", 53, both(dns)),
        ("a port that another Service has", Pod, CLUSTER, 443, rejected()),
        ("a cluster address of nobody", Pod, "172.30.0.50", 80, dropped()),
        ("the same from outside", Outside, "172.30.0.50", 80, dropped()),
        ("the same from the node", Node, "172.30.0.50", 80, dropped()),
        ("somebody else's address", Pod, "198.51.100.7", 80, untouched()),
        ("the node itself", Outside, NODE_ADDRESS, 22, untouched()),
    ];
    let mut cases = made(ip, protocol, "TestClusterIPGeneral", &world, lines);
    let mut hairpin = cases[0].clone();
    hairpin.name = format!("{} {protocol}, TestClusterIPGeneral: hairpin to cluster address", ip.name());
    hairpin.asked.source = here;
    hairpin.expected = to(true, &[SocketAddr::new(here, 80)]);
    cases.push(hairpin);
    let mut other = cases[0].clone();
    other.name = format!("{} {protocol}, TestClusterIPGeneral: the port in another protocol", ip.name());
    other.asked.protocol = if protocol == Protocol::Tcp { Protocol::Udp } else { Protocol::Tcp };
    other.expected = rejected();
    cases.push(other);
    cases
}

fn source_ranges(ip: Ip, protocol: Protocol) -> Vec<Case> {
    let mut world = bare(ip, protocol);
    let here = SocketAddr::new(ip.address("10.180.0.1"), 80);
    world.slices.push(slice("svc1", &[(protocol, 80, 80)], vec![endpoint(here.ip(), NODE)]));
    let service = &mut world.services[0];
    service.load_balancer_addresses.push(ip.address("5.6.7.8"));
    service.source_ranges = vec![ip.network("192.168.0.0/24"), ip.network("203.0.113.0/25")];
    let passes = |masqueraded| to(masqueraded, &[here]);
    let mut lines = vec![
        ("pod to cluster address", Pod, CLUSTER, 80, passes(false)),
        ("outside to node port", Outside, NODE_ADDRESS, 30_001, passes(true)),
        ("outside to external address", Outside, EXTERNAL, 80, passes(true)),
    ];
    for balancer in [BALANCER, "5.6.7.8"] {
        lines.extend([
            ("accepted from outside", Outside, balancer, 80, passes(true)),
            ("pod is not accepted", Pod, balancer, 80, dropped()),
            ("node is accepted", Node, balancer, 80, passes(true)),
        ]);
    }
    let mut cases = made(ip, protocol, "TestLoadBalancer", &world, lines);
    let from = |name: &str, source: &str, address: &str, port, expected| {
        let mut case = cases[1].clone();
        case.name = format!("{} {protocol}, TestLoadBalancer: {name}", ip.name());
        case.asked.source = ip.address(source);
        case.asked.destination = SocketAddr::new(ip.address(address), port);
        case.expected = expected;
        case
    };
    let blocked = "203.0.113.130";
    let more = vec![
        from("a node port knows no source ranges", blocked, NODE_ADDRESS, 30_001, passes(true)),
        from("an external address knows no source ranges", blocked, EXTERNAL, 80, passes(true)),
        from("not accepted from outside", blocked, BALANCER, 80, dropped()),
        from("not accepted from outside, the other", blocked, "5.6.7.8", 80, dropped()),
        from("the balancer's own address as source", BALANCER, BALANCER, 80, passes(true)),
        from("the other's own address as source", "5.6.7.8", "5.6.7.8", 80, passes(true)),
        from("one balancer to the other", BALANCER, "5.6.7.8", 80, passes(true)),
    ];
    cases.extend(more);
    for (name, ranges, expected) in [
        ("a range of everything is none", vec!["203.0.113.0/25", "0.0.0.0/0"], passes(true)),
        ("the node is not within", vec!["203.0.113.0/25"], dropped()),
    ] {
        let mut case = cases.last().unwrap().clone();
        case.name = format!("{} {protocol}, TestLoadBalancer: {name}", ip.name());
        case.asked.destination = SocketAddr::new(ip.address(BALANCER), 80);
        case.world.services[0].source_ranges = ranges.into_iter().map(|range| ip.network(range)).collect();
        case.expected = expected;
        cases.push(case);
    }
    cases
}

fn node_ports(ip: Ip, protocol: Protocol) -> Vec<Case> {
    let (here, there) =
        (SocketAddr::new(ip.address("10.180.2.1"), 80), SocketAddr::new(ip.address("10.180.0.1"), 80));
    let mut all = bare(ip, protocol);
    let endpoints = vec![endpoint(here.ip(), NODE), endpoint(there.ip(), OTHER)];
    all.slices.push(slice("svc1", &[(protocol, 80, 80)], endpoints));
    let mut primary = all.clone();
    primary.node_ports = Some([primary.own[0]].into());
    let reached = || to(true, &[here, there]);
    let second = "192.168.1.2";
    let mut cases = made(
        ip,
        protocol,
        "TestNodePorts on all addresses",
        &all,
        vec![
            ("outside", Outside, NODE_ADDRESS, 30_001, reached()),
            ("outside, the node's second address", Outside, second, 30_001, reached()),
            ("node to its own node port", Node, NODE_ADDRESS, 30_001, reached()),
            ("another node's address", Outside, "192.168.0.9", 30_001, untouched()),
        ],
    );
    cases.extend(made(
        ip,
        protocol,
        "TestNodePorts on the primary address",
        &primary,
        vec![
            ("outside", Outside, NODE_ADDRESS, 30_001, reached()),
            ("outside, the node's second address", Outside, second, 30_001, untouched()),
            ("node to its second address", Node, second, 30_001, untouched()),
            ("pod to cluster address", Pod, CLUSTER, 80, to(false, &[here, there])),
        ],
    ));
    cases
}

fn internal_policy(ip: Ip, protocol: Protocol) -> Vec<Case> {
    let at = |last: u8| SocketAddr::new(ip.address(&format!("10.0.1.{last}")), 80);
    let mut cases = Vec::new();
    for (name, policy, nodes, reached) in [
        ("all of them", TrafficPolicy::Cluster, [NODE, "node1", "node2"], Some(vec![1, 2, 3])),
        ("the one here", TrafficPolicy::Local, [NODE, "node1", "node2"], Some(vec![1])),
        ("both that are here", TrafficPolicy::Local, [NODE, NODE, "node2"], Some(vec![1, 2])),
        ("none is here", TrafficPolicy::Local, ["node0", "node1", "node2"], None),
    ] {
        let mut world = bare(ip, protocol);
        world.services[0].internal_policy = policy;
        let endpoints = (1..).zip(nodes).map(|(last, node)| endpoint(at(last).ip(), node)).collect();
        world.slices.push(slice("svc1", &[(protocol, 80, 80)], endpoints));
        let expected = reached.map_or_else(dropped, |reached: Vec<u8>| {
            to(false, &reached.into_iter().map(at).collect::<Vec<_>>())
        });
        let line = (name, Pod, CLUSTER, 80, expected);
        cases.extend(made(ip, protocol, "TestInternalTrafficPolicy", &world, vec![line]));
    }
    cases
}

/// Conditions of an endpoint, and its node.
#[derive(Clone, Copy)]
enum Is {
    Ready,
    Leaving,
    Gone,
}

fn conditions(is: Is, of: Endpoint) -> Endpoint {
    let (ready, serving, terminating) = match is {
        Is::Ready => (true, true, false),
        Is::Leaving => (false, true, true),
        Is::Gone => (false, false, true),
    };
    Endpoint { ready, serving, terminating, ..of }
}

/// Both tables of terminating endpoints: external policy Local, then Cluster. The cluster address is asked by a Pod, the
/// load balancer's from outside.
fn terminating(ip: Ip, protocol: Protocol) -> Vec<Case> {
    use Is::{Gone, Leaving, Ready};
    use TrafficPolicy::{Cluster, Local};
    type Table<'a> = (&'a str, TrafficPolicy, Vec<(u8, Is, &'a str)>, BTreeSet<Answer>, BTreeSet<Answer>);
    let reach = |masqueraded, last: &[u8]| {
        let at = |last: &u8| SocketAddr::new(ip.address(&format!("10.0.1.{last}")), 80);
        to(masqueraded, &last.iter().map(at).collect::<Vec<_>>())
    };
    let ready_here =
        vec![(1, Ready, NODE), (2, Ready, NODE), (3, Leaving, NODE), (4, Gone, NODE), (5, Ready, OTHER)];
    let leaving_here = vec![(2, Leaving, NODE), (3, Leaving, NODE), (4, Gone, NODE), (5, Ready, OTHER)];
    let ready =
        vec![(1, Ready, NODE), (2, Ready, NODE), (3, Leaving, OTHER), (4, Gone, OTHER), (5, Ready, OTHER)];
    let leaving = vec![(2, Leaving, NODE), (3, Leaving, NODE), (4, Gone, OTHER), (5, Leaving, OTHER)];
    let remote = vec![(5, Leaving, OTHER)];
    let none = vec![(5, Gone, NODE), (6, Gone, OTHER)];
    let tables: Vec<Table<'_>> = vec![
        ("ready ones", Local, ready_here, reach(false, &[1, 2, 5]), reach(false, &[1, 2])),
        ("only leaving ones here", Local, leaving_here, reach(false, &[5]), reach(false, &[2, 3])),
        ("only leaving ones elsewhere", Local, remote.clone(), reach(false, &[5]), dropped()),
        ("none that serves", Local, none.clone(), rejected(), rejected()),
        ("ready ones", Cluster, ready, reach(false, &[1, 2, 5]), reach(true, &[1, 2, 5])),
        ("only leaving ones", Cluster, leaving, reach(false, &[2, 3, 5]), reach(true, &[2, 3, 5])),
        ("only leaving ones elsewhere", Cluster, remote, reach(false, &[5]), reach(true, &[5])),
        ("none that serves", Cluster, none, rejected(), rejected()),
        ("no endpoint", Local, Vec::new(), rejected(), rejected()),
        ("no endpoint", Cluster, Vec::new(), rejected(), rejected()),
    ];
    let mut cases = Vec::new();
    for (name, policy, endpoints, from_pod, from_outside) in tables {
        let mut world = bare(ip, protocol);
        world.services[0].external_policy = policy;
        let made_of = |(last, is, node): (u8, Is, &str)| {
            conditions(is, endpoint(ip.address(&format!("10.0.1.{last}")), node))
        };
        let endpoints = endpoints.into_iter().map(made_of).collect();
        world.slices.push(slice("svc1", &[(protocol, 80, 80)], endpoints));
        let test = format!("TestTerminatingEndpointsTrafficPolicy{policy:?}, {name}");
        let lines = vec![
            ("pod to cluster address", Pod, CLUSTER, 80, from_pod),
            ("outside to load balancer", Outside, BALANCER, 80, from_outside),
        ];
        cases.extend(made(ip, protocol, &test, &world, lines));
    }
    cases
}
