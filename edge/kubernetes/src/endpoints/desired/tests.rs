use portolan_model::PortsStatus;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::PodFacts;

fn service() -> SourceService {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "games", "uid": "s1", "annotations": {"portolan.dev/publish": "true"}},
        "spec": {"selector": {"app": "web"}}
    }))
    .unwrap();
    service.into()
}

fn instance(name: &str, status: serde_json::Value) -> Instance {
    let pod = PodFacts {
        namespace: "games".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        node: Some("node1".to_owned()),
        ready: true,
        ..PodFacts::default()
    };
    let status: PortsStatus = serde_json::from_value(status).unwrap();
    Instance { pod, status }
}

fn published(name: &str, protocols: &[&str], host: &str, address: Option<&str>) -> serde_json::Value {
    let mut port = json!({"name": name, "protocols": protocols, "host": host, "container": 80});
    if let Some(address) = address {
        port["address"] = json!(address);
    }
    port
}

fn status(addresses: &[&str], ports: &[serde_json::Value]) -> serde_json::Value {
    json!({"node": "node1", "addresses": addresses, "ports": ports})
}

/// Each slice as `ADDRESS PROTOCOL name=port,…`.
fn told(slices: &[EndpointSlice]) -> Vec<String> {
    let mut told: Vec<_> = slices
        .iter()
        .map(|slice| {
            let ports = slice.ports.iter().flatten();
            let names: Vec<_> = ports
                .clone()
                .map(|port| format!("{}={}", port.name.as_ref().unwrap(), port.port.unwrap()))
                .collect();
            let protocol = ports.clone().next().unwrap().protocol.clone().unwrap();
            format!(
                "{} {} {protocol} {}",
                slice.address_type,
                slice.endpoints[0].addresses[0],
                names.join(",")
            )
        })
        .collect();
    told.sort();
    told
}

#[test]
fn an_instance_has_a_slice_for_each_family_and_protocol() {
    let ports = [
        published("http", &["tcp"], "20417", None),
        published("game", &["tcp", "udp"], "29417", None),
        published("media", &["udp"], "20032-20131", None),
    ];
    let instance = instance("web-0", status(&["203.0.113.7", "2001:db8::7"], &ports));
    let slices = slices(&service(), "t1", &instance);
    assert_eq!(
        told(&slices),
        [
            "IPv4 203.0.113.7 TCP game=29417,http=20417",
            "IPv4 203.0.113.7 UDP game=29417,media=20032",
            "IPv6 2001:db8::7 TCP game=29417,http=20417",
            "IPv6 2001:db8::7 UDP game=29417,media=20032",
        ]
    );
    let udp = slices.iter().find(|slice| slice.metadata.annotations.is_some()).unwrap();
    assert_eq!(udp.metadata.annotations.as_ref().unwrap()[BLOCKS_ANNOTATION], r#"{"media":"20032-20131"}"#);
    let endpoint = &udp.endpoints[0];
    assert_eq!((endpoint.hostname.as_deref(), endpoint.node_name.as_deref()), (Some("web-0"), Some("node1")));
    assert_eq!(udp.metadata.labels.as_ref().unwrap()[SERVICE_NAME_LABEL], "web-ports");
    assert_eq!(udp.metadata.owner_references.as_ref().unwrap()[0].uid, "t1");
}

#[test]
fn a_port_of_one_address_is_told_with_that_one() {
    let ports = [
        published("a", &["tcp"], "1", Some("198.51.100.9")),
        published("b", &["tcp"], "2", Some("127.0.0.1")),
        published("c", &["tcp"], "3", Some("0.0.0.0")),
    ];
    let instance = instance("web-0", status(&["203.0.113.7", "2001:db8::7", "fe80::1"], &ports));
    assert_eq!(
        told(&slices(&service(), "t", &instance)),
        ["IPv4 198.51.100.9 TCP a=1", "IPv4 203.0.113.7 TCP c=3"]
    );
}

#[test]
fn readiness_is_the_pods() {
    let conditions = |change: fn(&mut PodFacts, &mut SourceService)| {
        let mut service = service();
        let mut instance =
            instance("web-0", status(&["203.0.113.7"], &[published("a", &["tcp"], "1", None)]));
        change(&mut instance.pod, &mut service);
        let slice = slices(&service, "t", &instance).remove(0);
        let conditions = slice.endpoints[0].conditions.clone().unwrap();
        [conditions.ready, conditions.serving, conditions.terminating].map(|condition| condition.unwrap())
    };
    assert_eq!(conditions(|_, _| {}), [true, true, false]);
    assert_eq!(conditions(|pod, _| pod.ready = false), [false, false, false]);
    assert_eq!(conditions(|pod, _| pod.terminating = true), [false, true, true]);
    assert_eq!(
        conditions(|pod, service| {
            pod.ready = false;
            service.publish_not_ready = true;
        }),
        [true, true, false]
    );
}

#[test]
fn only_pods_of_the_service_with_ports_of_their_own_node_are_instances() {
    let good = instance("good", status(&[], &[]));
    let mut others = vec![good.clone(); 4];
    others[0].pod.labels.clear();
    others[1].pod.namespace = "elsewhere".to_owned();
    others[2].pod.phase = crate::Phase::Failed;
    others[3].status.node = "node2".to_owned();
    let service = service();
    assert_eq!(instances_of(&service, others.iter().chain([&good])), [&good]);
}

#[test]
fn a_service_that_cannot_have_a_twin_says_why() {
    assert_eq!(service().problem(), None);
    let without = SourceService { selector: BTreeMap::new(), ..service() };
    assert!(without.problem().unwrap().contains("selector"));
    let long = SourceService { name: "x".repeat(60), ..service() };
    assert!(long.problem().unwrap().contains("66 characters"), "{:?}", long.problem());
}

#[test]
fn a_twin_is_headless_without_a_selector_and_belongs_to_its_service() {
    let ports =
        [published("game", &["tcp", "udp"], "29417", None), published("web", &["tcp"], "20417", None)];
    let instance = instance("web-0", status(&[], &ports));
    let twin = twin(&service(), &[&instance]);
    let spec = twin.spec.unwrap();
    assert_eq!((spec.cluster_ip.as_deref(), spec.selector), (Some("None"), None));
    assert_eq!(twin.metadata.owner_references.unwrap()[0].uid, "s1");
    let ports: Vec<_> = spec
        .ports
        .unwrap()
        .into_iter()
        .map(|port| (port.name.unwrap(), port.protocol.unwrap(), port.port))
        .collect();
    let expected = [("game", "TCP", 80), ("game-udp", "UDP", 80), ("web", "TCP", 81)];
    assert_eq!(ports, expected.map(|(name, protocol, port)| (name.to_owned(), protocol.to_owned(), port)));
}

proptest! {
    // What the API server demands of a Service and of an EndpointSlice, whatever Pods publish.
    #[test]
    fn names_and_numbers_are_never_twice(
        ports in prop::collection::vec(("[a-c](-udp)?", 1usize..8, 1u16..4), 0..8),
    ) {
        let all = ["tcp", "udp", "sctp"];
        let ports: Vec<_> = ports.iter().enumerate().map(|(index, (name, set, container))| {
            let protocols: Vec<_> = all.iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0).map(|(_, name)| name).collect();
            json!({"name": name, "protocols": protocols, "host": (20000 + index).to_string(), "container": container})
        }).collect();
        let instance = instance("web-0", status(&["203.0.113.7"], &ports));
        for slice in slices(&service(), "t", &instance) {
            let ports = slice.ports.unwrap();
            let names: BTreeSet<_> = ports.iter().map(|port| port.name.clone()).collect();
            prop_assert!(names.len() == ports.len() && !ports.is_empty());
        }
        let twin = twin(&service(), &[&instance]).spec.unwrap().ports.unwrap_or_default();
        let names: BTreeSet<_> = twin.iter().map(|port| port.name.clone()).collect();
        let numbers: BTreeSet<_> = twin.iter().map(|port| (port.protocol.clone(), port.port)).collect();
        prop_assert!(names.len() == twin.len() && numbers.len() == twin.len());
    }
}
