//! F1 to F3 and F11 to F17: which Services there are, and at which addresses and ports.

use std::net::IpAddr;

use serde_json::json;

use super::{NODE, OUTSIDE, POD, SOURCES, family_name, kind};
use crate::proxy::{
    case::{Case, Scene},
    service::{Protocol, Service, Target, all_kinds},
    world::{FAMILIES, Family, Place, node_address, outside_address},
};

const TCP: Protocol = Protocol::Tcp;

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> =
        all_kinds().flat_map(|(family, protocol)| external(family, protocol)).collect();
    cases.extend(
        FAMILIES.into_iter().flat_map(|family| {
            services(family).into_iter().chain(balancers(family)).chain(node_ports(family))
        }),
    );
    let both = Service::bare(&FAMILIES).port(TCP, 80, 8080).balancer().at(&["1a", "2a"]);
    let mut case = Case::new("F11 a Service of both families", &[&both]);
    for family in FAMILIES {
        case = case.ask(POD, both.cluster(family, TCP), "1a 2a").ask(
            OUTSIDE,
            both.at_balancer(family, TCP),
            "1a 2a +m",
        );
    }
    cases.push(case.short_if(true));
    let half = Service::bare(&FAMILIES).port(TCP, 80, 8080).slice(
        Family::V4,
        &[crate::proxy::endpoint::endpoint("1a")],
        |_| {},
    );
    cases.push(
        Case::new("F11 a Service of both families with endpoints of one", &[&half])
            .ask(POD, half.cluster(Family::V4, TCP), "1a")
            .ask(POD, half.cluster(Family::V6, TCP), "refused")
            .short_if(true),
    );
    cases
}

fn external(family: Family, protocol: Protocol) -> Vec<Case> {
    let new = || Service::new(family, protocol).external();
    let open = new().at(&["1a", "2a"]);
    // The API server takes the policy for a ClusterIP Service only because it has external addresses.
    let local = new().external_local().at(&["1a", "2a"]);
    let answers = [("1a 2a +m", "1a 2a"), ("1a 2a +m", "1a 2a +m"), ("1a 2a +m", "1a")];
    let each = SOURCES.iter().zip(answers).map(|((from, place), (by_cluster, by_local))| {
        let services = if *from == "pod" { vec![&open, &local] } else { Vec::new() };
        Case::new(format!("F12 {from} to an external address, {}", kind(family, protocol)), &services)
            .ask(*place, open.at_external(family, protocol), by_cluster)
            .ask(*place, local.at_external(family, protocol), by_local)
            .short_if(family == Family::V4 && protocol != Protocol::Sctp)
    });
    each.collect()
}

fn services(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let mut cases = Vec::new();
    for value in ["other", ""] {
        let labelled = Service::new(family, TCP)
            .label("service.kubernetes.io/service-proxy-name", value)
            .balancer()
            .at(&["1a"]);
        cases.push(
            Case::new(
                format!("F1 a Service of another proxy ({value:?}) is left alone, {name}"),
                &[&labelled],
            )
            .ask(POD, labelled.cluster(family, TCP), "silence")
            .ask(OUTSIDE, labelled.at_node(node_address(1, family), TCP), "refused")
            .short_if(family == Family::V4),
        );
    }
    let mut mixed = Service::bare(&[family]).port(Protocol::Udp, 80, 8080).port(TCP, 80, 8080).port(
        Protocol::Sctp,
        80,
        8080,
    );
    let only = |protocol: &'static str| {
        move |slice: &mut serde_json::Value| {
            if let Some(ports) = slice["ports"].as_array_mut() {
                ports.retain(|port| port["protocol"] == protocol);
            }
        }
    };
    for (endpoint, protocol) in [("1a", "TCP"), ("2a", "UDP"), ("1b", "SCTP")] {
        mixed = mixed.slice(family, &[crate::proxy::endpoint::endpoint(endpoint)], only(protocol));
    }
    let mixed = mixed.node_ports();
    let mut case =
        Case::new(format!("F11 one port number with three protocols is three ports, {name}"), &[&mixed]);
    for (protocol, answer) in [(TCP, "1a"), (Protocol::Udp, "2a"), (Protocol::Sctp, "1b")] {
        case = case.ask(POD, mixed.cluster(family, protocol), answer).ask(
            OUTSIDE,
            mixed.at_node(node_address(1, family), protocol),
            &format!("{answer} +m"),
        );
    }
    cases.push(case.short_if(family == Family::V4));
    cases
}

/// F13 and F16.
fn balancers(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let new = || Service::new(family, TCP).balancer();
    let address = |service: &Service| service.at_balancer(family, TCP).address.ip().to_string();
    let with = |entry: fn(String) -> Vec<serde_json::Value>| {
        let service = new();
        let address = address(&service);
        service.ingress(entry(address)).at(&["1a", "2a"])
    };
    let none = with(|address| vec![json!({"ip": address})]);
    let proxied = with(|address| vec![json!({"ip": address, "ipMode": "Proxy"})]);
    let named = with(|address| {
        vec![json!({"hostname": "balancer.example"}), json!({"ip": address, "ipMode": "VIP"})]
    });
    let bare = new().without_node_ports().at(&["1a", "2a"]);
    let (yes, short) = ("1a 2a +m", family == Family::V4);
    vec![
        Case::new(format!("F13 an address without ipMode, {name}"), &[&none])
            .ask(OUTSIDE, none.at_balancer(family, TCP), yes)
            .short_if(short),
        Case::new(format!("F13 an address with ipMode Proxy is not the proxy's, {name}"), &[&proxied])
            .ask(OUTSIDE, proxied.at_balancer(family, TCP), "refused")
            .ask(POD, proxied.at_balancer(family, TCP), "refused")
            .ask(OUTSIDE, proxied.at_node(node_address(1, family), TCP), yes)
            .short_if(short),
        Case::new(format!("F13 a name beside an address, {name}"), &[&named])
            .ask(OUTSIDE, named.at_balancer(family, TCP), yes)
            .short_if(short),
        Case::new(format!("F16 a load balancer without node ports, {name}"), &[&bare])
            .ask(OUTSIDE, bare.at_balancer(family, TCP), yes)
            .ask(POD, bare.cluster(family, TCP), "1a 2a")
            .ask(OUTSIDE, bare.at_node(node_address(1, family), TCP), "refused")
            .short_if(short),
    ]
}

/// F14, F15 and F17.
fn node_ports(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let loopback: IpAddr =
        if family == Family::V4 { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
    let service = Service::new(family, TCP).node_ports().at(&["1a", "2a"]);
    let port = service.node_port();
    let (yes, no) = ("1a 2a +m", "refused");
    let case = |title: &str, first: bool| {
        Case::new(format!("F14 {title}, {name}"), if first { vec![&service] } else { vec![] }.as_slice())
    };
    let mut primary = case("a node port is on the first address of the Node only", true)
        .ask(OUTSIDE, service.at_node(outside_address(1, 1, family), TCP), no)
        .ask(OUTSIDE, service.at_node(node_address(1, family), TCP), yes)
        .ask(NODE, service.at_node(outside_address(1, 1, family), TCP), no);
    // Another node's port is that node's business.
    primary = primary
        .ask(POD, service.at_node(node_address(2, family), TCP), "1a 2a +node2")
        .short_if(family == Family::V4);
    let everywhere = case("with /0 a node port is on every address", false)
        .ask(Place::Outside(5), service.at_node(node_address(5, family), TCP), yes)
        .ask(Place::Outside(5), service.at_node(outside_address(5, 1, family), TCP), yes)
        .ask(Place::Node(5), service.at_node(outside_address(5, 1, family), TCP), yes);
    let loopback_case =
        case("a node port is not on the loopback, as nftables kube-proxy has it", false).on(5).look(
            "node 5",
            move |scene: Scene<'_>| {
                let target = Target { protocol: TCP, address: (loopback, port).into() };
                match crate::proxy::probe::ask_from(scene.world, Place::Node(5), loopback, target) {
                    Ok(answer) => answer,
                    Err(failure) => failure,
                }
            },
            no,
        );
    let network = case("with a network a node port is on the addresses in it", false)
        .ask(Place::Outside(6), service.at_node(outside_address(6, 1, family), TCP), yes)
        .ask(Place::Outside(6), service.at_node(node_address(6, family), TCP), no);
    let quiet = Case::new(format!("F17 nothing listens on a node port, {name}"), &[])
        .look(
            "listeners",
            move |scene: Scene<'_>| {
                let said = portolan_testkit::programs::run(
                    scene.world.at(NODE).command("ss").args(["-Hlntu", &format!("sport = :{port}")]),
                );
                said.lines().count().to_string()
            },
            "0",
        )
        .short_if(family == Family::V4);
    vec![primary, everywhere, loopback_case, network, quiet]
}
