//! F6 to F10: which endpoints of a Service there are, and which of them are used.

use serde_json::{Value, json};

use super::{NODE, OUTSIDE, POD, family_name};
use crate::proxy::{
    case::Case,
    endpoint::{Endpoint, endpoint},
    service::{Protocol, Service},
    world::{FAMILIES, Family, node_address},
};

const TCP: Protocol = Protocol::Tcp;

pub(super) fn cases() -> Vec<Case> {
    FAMILIES
        .into_iter()
        .flat_map(|family| slices(family).into_iter().chain(ports(family)).chain(conditions(family)))
        .collect()
}

/// A case about the cluster address of one Service, asked by a Pod.
fn asked(name: &str, family: Family, service: &Service, answer: &str) -> Case {
    Case::new(format!("{name}, {}", family_name(family)), &[service])
        .ask(POD, service.cluster(family, TCP), answer)
        .short_if(family == Family::V4)
}

fn slices(family: Family) -> Vec<Case> {
    let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
    let new = || Service::new(family, TCP);
    let two = |change: fn(&mut Value)| {
        new().slice(family, &[endpoint("1a")], |_| {}).slice(family, &[endpoint("2a")], change)
    };
    let named = |slice: &mut Value| {
        slice["addressType"] = "FQDN".into();
        slice["endpoints"] = json!([{"addresses": ["two.example"], "conditions": {"ready": true}}]);
    };
    vec![
        asked(
            "F2 a slice with the label headless is not used",
            family,
            &two(|slice| slice["metadata"]["labels"]["service.kubernetes.io/headless"] = "".into()),
            "1a",
        ),
        asked(
            "F2 a slice without the name of a Service is nobody's",
            family,
            &two(|slice| slice["metadata"]["labels"] = json!({})),
            "1a",
        ),
        asked(
            "F2 a slice with the name of another Service is the other's",
            family,
            &two(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] = "nobody".into()),
            "1a",
        ),
        asked("F6 names are not addresses", family, &two(named), "1a"),
        asked(
            "F6 only the first address of an endpoint is used",
            family,
            &new().endpoints(&[endpoint("1a").and_address_of("2a")]),
            "1a",
        ),
        asked(
            "F6 addresses of the other family are not used",
            family,
            &new().slice(other, &[endpoint("1a")], |_| {}),
            "refused",
        ),
        asked(
            "F6 a port without a number is not used",
            family,
            &two(|slice| slice["ports"][0]["port"] = Value::Null),
            "1a",
        ),
        asked("F8 slices are merged", family, &two(|_| {}), "1a 2a"),
        asked("F8 an endpoint in two slices is one", family, &new().at(&["1a"]).at(&["1a", "2a"]), "1a 2a"),
        asked(
            "F8 of two with one address the one that does not terminate counts",
            family,
            &new().endpoints(&[endpoint("1a").terminating()]).at(&["1a", "2a"]),
            "1a 2a",
        ),
        asked(
            "F8 the same with the slices in the other order",
            family,
            &new().at(&["1a", "2a"]).endpoints(&[endpoint("1a").terminating()]),
            "1a 2a",
        ),
    ]
}

fn ports(family: Family) -> Vec<Case> {
    let new = || Service::new(family, TCP);
    let several = Service::bare(&[family]).port(TCP, 80, 8080).port(TCP, 81, 9090).at(&["1a", "2a"]);
    let mut cases = vec![
        asked("F7 two ports", family, &several, "1a 2a").ask(
            POD,
            several.cluster_at(family, TCP, 81),
            "1a:9090 2a:9090",
        ),
        asked(
            "F7 a named target that is another number on each endpoint",
            family,
            &new()
                .at(&["1a"])
                .slice(family, &[endpoint("2a")], |slice| slice["ports"][0]["port"] = 8081.into()),
            "1a 2a:8081",
        ),
        asked(
            "F7 a port of another name is another port",
            family,
            &new()
                .at(&["1a"])
                .slice(family, &[endpoint("2a")], |slice| slice["ports"][0]["name"] = "other".into()),
            "1a",
        ),
        asked(
            "F7 a port of another protocol is another port",
            family,
            &new()
                .at(&["1a"])
                .slice(family, &[endpoint("2a")], |slice| slice["ports"][0]["protocol"] = "UDP".into()),
            "1a",
        ),
    ];
    let unnamed = |service: Service| {
        let mut service = service;
        if let Some(port) = service.object["spec"]["ports"][0].as_object_mut() {
            port.remove("name");
        }
        service.slices[0]["ports"][0]["name"] = "".into();
        service
    };
    cases.push(asked("F7 a Service with one port without a name", family, &unnamed(new().at(&["1a"])), "1a"));
    // On its own node the answer would come straight back, past the node: that is the hairpin of a real bridge.
    let host = new().at(&["1n", "2n"]);
    cases.push(asked("F7 endpoints in the network of their nodes", family, &host, "node1 node2").ask(
        OUTSIDE,
        host.cluster(family, TCP),
        "node1 node2 +m",
    ));
    cases
}

fn conditions(family: Family) -> Vec<Case> {
    let of = |endpoints: &[Endpoint]| Service::new(family, TCP).endpoints(endpoints);
    let (yes, no) = (Some(true), Some(false));
    let ending = |name: &str| endpoint(name).terminating();
    let gone = |name: &str| endpoint(name).conditions(no, no, yes);
    let unready = |name: &str| endpoint(name).conditions(no, no, no);
    let mut cases = vec![
        asked(
            "F9 an endpoint that says nothing is ready",
            family,
            &of(&[endpoint("1a").conditions(None, None, None), unready("2a")]),
            "1a",
        ),
        asked(
            "F9 a terminating endpoint that does not say whether it serves",
            family,
            &of(&[endpoint("1a").conditions(no, None, yes), unready("2a")]),
            "1a",
        ),
        asked(
            "F9 serving does not make ready",
            family,
            &of(&[endpoint("1a").conditions(no, yes, no), unready("2a")]),
            "refused",
        ),
        asked(
            "F10 endpoints that are not ready are not used",
            family,
            &of(&[endpoint("1a"), unready("2a")]),
            "1a",
        ),
        asked(
            "F10 nothing is used of what neither serves nor is ready",
            family,
            &of(&[unready("1a"), gone("2a")]),
            "refused",
        ),
        asked(
            "F10 terminating ones are not used beside one that is ready",
            family,
            &of(&[ending("1a"), endpoint("2a")]),
            "2a",
        ),
        asked(
            "F10 terminating ones are used when none is ready",
            family,
            &of(&[ending("1a"), ending("2a")]),
            "1a 2a",
        ),
        asked("F10 of terminating ones those that serve", family, &of(&[ending("1a"), gone("2a")]), "1a"),
        asked(
            "F10 ready with publishNotReadyAddresses while it ends",
            family,
            &of(&[endpoint("1a").conditions(yes, yes, yes)]),
            "1a",
        ),
    ];
    // The Local list decides by itself: the node's own terminating one, although another node has one that is ready.
    let local = |endpoints: &[Endpoint]| of(endpoints).balancer().external_local().internal_local();
    let table: [(&str, Vec<Endpoint>, &str, &str, &str); 5] = [
        ("a local one ends, a remote one is ready", vec![ending("1a"), endpoint("2a")], "1a", "1a", "2a"),
        (
            "a local one is ready, another ends",
            vec![endpoint("1a"), ending("1b"), endpoint("2a")],
            "1a",
            "1a",
            "1a 2a",
        ),
        ("all end", vec![ending("1a"), ending("2a")], "1a", "1a", "1a 2a"),
        (
            "the local one has ended, a remote one is ready",
            vec![gone("1a"), endpoint("2a")],
            "silence",
            "silence",
            "2a",
        ),
        ("only the remote one ends", vec![ending("2a")], "silence", "silence", "2a"),
    ];
    for (name, endpoints, internal, external, within) in table {
        let service = local(&endpoints);
        let (cluster, port) = (service.cluster(family, TCP), service.at_node(node_address(1, family), TCP));
        let masqueraded = if internal == "silence" { "silence".to_owned() } else { format!("{internal} +m") };
        cases.push(
            Case::new(format!("F10 with policies Local {name}, {}", family_name(family)), &[&service])
                .ask(POD, cluster, internal)
                .ask(NODE, cluster, &masqueraded)
                .ask(OUTSIDE, port, external)
                .ask(OUTSIDE, service.at_balancer(family, TCP), external)
                .ask(POD, port, within)
                .short_if(family == Family::V4),
        );
    }
    cases
}
