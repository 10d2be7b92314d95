//! F28 to F30: masquerades, and how a proxy knows the Pods of its node. Each node has another configuration
//! (`NODES` in tests/src/proxy/program.rs).

use super::{POD, family_name, kind};
use crate::proxy::{
    case::{Case, Scene},
    service::{Protocol, Service, all_kinds},
    world::{FAMILIES, Family, Place, node_address, outside_address},
};

const TCP: Protocol = Protocol::Tcp;

/// From the Pod, the node and the outside: to a cluster address, and to a node port with eTP=Local.
struct Answers {
    node: u8,
    name: &'static str,
    cluster: [&'static str; 3],
    port: [&'static str; 3],
}

pub(super) fn cases() -> Vec<Case> {
    let usual_port = ["Na 2a", "Na 2a +m", "Na"];
    let detectors = [
        Answers {
            node: 3,
            name: "masquerading all",
            cluster: ["Na 2a +m", "Na 2a +m", "Na 2a +m"],
            port: usual_port,
        },
        Answers {
            node: 4,
            name: "without a detector",
            cluster: ["Na 2a", "Na 2a", "Na 2a"],
            port: ["Na", "Na 2a +m", "Na"],
        },
        Answers {
            node: 5,
            name: "by a prefix of interfaces",
            cluster: ["Na 2a", "Na 2a +m", "Na 2a +m"],
            port: usual_port,
        },
        Answers {
            node: 6,
            name: "by an interface",
            cluster: ["Na 2a", "Na 2a +m", "Na 2a +m"],
            port: usual_port,
        },
        Answers {
            node: 7,
            name: "by the Node",
            cluster: ["Na 2a", "Na 2a +m", "Na 2a +m"],
            port: usual_port,
        },
    ];
    let mut cases = Vec::new();
    for family in FAMILIES {
        for detector in &detectors {
            cases.extend(of(family, detector));
        }
        cases.extend(marks(family));
    }
    cases.extend(all_kinds().map(|(family, protocol)| hairpin(family, protocol)));
    cases
}

fn of(family: Family, answers: &Answers) -> Vec<Case> {
    let node = answers.node;
    let local = format!("{node}a");
    let service = Service::new(family, TCP).node_ports().external_local().at(&[&local, "2a"]);
    let say = |answer: &str| answer.replace("Na", &local);
    // Endpoints are said in order, and node 2 comes before all of these.
    let ordered = |answer: &str| {
        let (names, mark) = answer
            .split_once(" +")
            .map_or((answer, String::new()), |(names, mark)| (names, format!(" +{mark}")));
        let mut names: Vec<&str> = names.split(' ').collect();
        names.sort_unstable();
        names.join(" ") + &mark
    };
    let address = if node == 6 { outside_address(6, 1, family) } else { node_address(node, family) };
    let places =
        [("pod", Place::Pod(node, 'c')), ("node", Place::Node(node)), ("outside", Place::Outside(node))];
    let each = places.iter().enumerate().map(|(number, (from, place))| {
        let services = if number == 0 { vec![&service] } else { Vec::new() };
        Case::new(
            format!("F29 {from} where Pods are known {}, {}", answers.name, family_name(family)),
            &services,
        )
        .ask(*place, service.cluster(family, TCP), &ordered(&say(answers.cluster[number])))
        .ask(*place, service.at_node(address, TCP), &ordered(&say(answers.port[number])))
    });
    each.collect()
}

/// F28 (d): a Pod that reaches itself.
fn hairpin(family: Family, protocol: Protocol) -> Case {
    let service = Service::new(family, protocol).balancer().external_local().at(&["1a"]);
    let itself = Place::Pod(1, 'a');
    Case::new(format!("F28 a Pod reaches itself, {}", kind(family, protocol)), &[&service])
        .ask(itself, service.cluster(family, protocol), "1a +m")
        .ask(itself, service.at_node(node_address(1, family), protocol), "1a +m")
        .ask(itself, service.at_balancer(family, protocol), "1a +m")
        .ask(POD, service.cluster(family, protocol), "1a")
        .short_if(family == Family::V4 && protocol != Protocol::Sctp)
}

/// F30: the mark of others survives, the proxy's own is gone when the packet leaves.
fn marks(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let words = if family == Family::V4 { "ip" } else { "ip6" };
    [(3, 0x4000), (5, 0x2000)]
        .into_iter()
        .map(|(node, bit)| {
            let service = Service::new(family, TCP).node_ports().at(&["2a"]);
            let (port, outside) = (service.at_node(node_address(node, family), TCP), Place::Outside(node));
            let table = format!("marks{words}");
            Case::new(format!("F30 marks of others survive and {bit:#x} does not, {name}"), &[&service])
                .then({
                    let table = table.clone();
                    move |scene: Scene<'_>| {
                        let source = Place::Outside(node).address(family);
                        let rules = format!(
                            "table inet {table} {{ counter kept {{ }}; counter ours {{ }}; \
                             chain first {{ type filter hook prerouting priority -300; {words} saddr {source} meta mark set 0x10001; }}; \
                             chain last {{ type filter hook postrouting priority 300; \
                             meta mark & 0x10001 == 0x10001 counter name kept; meta mark & {bit:#x} != 0 counter name ours; }}; }}"
                        );
                        portolan_testkit::programs::run(scene.world.at(Place::Node(node)).command("nft").arg(rules));
                    }
                })
                .ask(outside, port, "2a +m")
                .look(
                    "packets",
                    move |scene: Scene<'_>| {
                        let count = |counter: &str| {
                            let said = portolan_testkit::programs::run(
                                scene.world.at(Place::Node(node)).command("nft").args(["list", "counter", "inet", &table, counter]),
                            );
                            if said.contains("packets 0 ") { "none" } else { "some" }
                        };
                        format!("{} with the other's, {} with ours", count("kept"), count("ours"))
                    },
                    "some with the other's, none with ours",
                )
                .on(node)
        })
        .collect()
}
