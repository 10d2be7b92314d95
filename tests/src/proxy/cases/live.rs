//! Changes while the proxy runs: each case changes its own objects and asks again.

use portolan_testkit::programs;
use serde_json::{Value, json};

use super::{NODE, OUTSIDE, POD, family_name};
use crate::proxy::{
    api::NODES,
    case::{Case, Scene},
    endpoint::endpoint,
    service::{Protocol, Service, Target},
    world::{FAMILIES, Family, Place, node_address},
};

const TCP: Protocol = Protocol::Tcp;

pub(super) fn cases() -> Vec<Case> {
    FAMILIES
        .into_iter()
        .flat_map(|family| {
            let all = watched(family).into_iter().chain(addresses(family)).chain(policies(family));
            all.map(move |case| case.short_if(family == Family::V4)).chain(surroundings(family))
        })
        .collect()
}

/// Changes some fields of an object.
fn patch(path: String, change: Value) -> impl Fn(Scene<'_>) + Send + Sync {
    move |scene| drop(scene.api.patch(&path, &change))
}

fn watched(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let new = || Service::new(family, TCP);
    let label =
        |value: Value| json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": value}}});
    let given = new().at(&["1a"]);
    let at = |service: &Service| service.cluster(family, TCP);
    let sliced = new().at(&["1a"]).at(&["2a"]);
    let headless = |value: Value| json!({"metadata": {"labels": {"service.kubernetes.io/headless": value}}});
    let external = new().at(&["1a"]);
    let (deleted, again) = (new().at(&["1a"]), new().at(&["1a"]));
    let spec = json!({"spec": {
        "type": "ExternalName", "externalName": "elsewhere.example", "clusterIP": "", "clusterIPs": null,
        "ipFamilies": null, "ipFamilyPolicy": null, "internalTrafficPolicy": null,
    }});
    let (gone, back) = (deleted.path(), again.clone());
    let removed = again.path();
    vec![
        Case::new(format!("F1 a Service is given to another proxy and back, {name}"), &[&given])
            .ask(POD, at(&given), "1a")
            .then(patch(given.path(), label("other".into())))
            .ask(POD, at(&given), "silence")
            .then(patch(given.path(), label(Value::Null)))
            .ask(POD, at(&given), "1a"),
        Case::new(format!("F2 a slice gets the label headless and loses it, {name}"), &[&sliced])
            .ask(POD, at(&sliced), "1a 2a")
            .then(patch(sliced.slice_path(0), headless("".into())))
            .ask(POD, at(&sliced), "2a")
            .then(patch(sliced.slice_path(0), headless(Value::Null)))
            .ask(POD, at(&sliced), "1a 2a"),
        Case::new(format!("F3 a Service becomes an ExternalName, {name}"), &[&external])
            .ask(POD, at(&external), "1a")
            .then(patch(external.path(), spec))
            .ask(POD, at(&external), "silence"),
        Case::new(format!("F1 a Service is deleted, {name}"), &[&deleted])
            .ask(POD, at(&deleted), "1a")
            .then(move |scene| scene.api.delete(&gone))
            .ask(POD, at(&deleted), "silence"),
        Case::new(format!("F1 a Service is deleted and made again with other endpoints, {name}"), &[&again])
            .ask(POD, at(&again), "1a")
            .then(move |scene| {
                scene.api.delete(&removed);
                scene.api.delete(&back.slice_path(0));
                let mut back = back.clone();
                back.slices.clear();
                back.at(&["2a"]).create(scene.api);
            })
            .ask(POD, at(&again), "2a"),
        {
            let service = new().at(&["1a"]);
            let (first, second, third) = (service.clone(), service.clone(), service.clone());
            Case::new(format!("F10 endpoints go, come and change, {name}"), &[&service])
                .ask(POD, at(&service), "1a")
                .then(move |scene| first.move_to(scene.api, &[]))
                .ask(POD, at(&service), "refused")
                .then(move |scene| second.move_to(scene.api, &["1a", "2a"]))
                .ask(POD, at(&service), "1a 2a")
                .then(move |scene| {
                    third.change_endpoints(scene.api, 0, &[endpoint("1a").terminating(), endpoint("2a")])
                })
                .ask(POD, at(&service), "2a")
        },
    ]
}

fn addresses(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let new = || Service::new(family, TCP).at(&["1a", "2a"]);
    let node = node_address(1, family);
    let (yes, ports) =
        ("1a 2a +m", Service::bare(&[family]).port(TCP, 80, 8080).port(TCP, 81, 9090).at(&["1a"]));
    let one = json!({"spec": {"ports": [ports.object["spec"]["ports"][1]]}});
    let two = json!({"spec": {"ports": ports.object["spec"]["ports"]}});
    let numbered = new().node_ports();
    let other = numbered.clone().node_port() + 1;
    let mut changed = numbered.object["spec"]["ports"].clone();
    changed[0]["nodePort"] = other.into();
    let at_other = Target { protocol: TCP, address: (node, other).into() };
    let balanced = new().balancer();
    let externally = new().external();
    let kinds = new();
    let mut with_port = kinds.object["spec"]["ports"].clone();
    with_port[0]["nodePort"] = kinds.node_port().into();
    vec![
        Case::new(format!("F11 a port is removed and added, {name}"), &[&ports])
            .ask(POD, ports.cluster_at(family, TCP, 81), "1a:9090")
            .then(patch(ports.path(), one))
            .ask(POD, ports.cluster(family, TCP), "refused")
            .ask(POD, ports.cluster_at(family, TCP, 81), "1a:9090")
            .then(patch(ports.path(), two))
            .ask(POD, ports.cluster(family, TCP), "1a"),
        Case::new(format!("F14 a node port gets another number, {name}"), &[&numbered])
            .ask(OUTSIDE, numbered.at_node(node, TCP), yes)
            .then(patch(numbered.path(), json!({"spec": {"ports": changed}})))
            .ask(OUTSIDE, at_other, yes)
            .ask(OUTSIDE, numbered.at_node(node, TCP), "refused"),
        Case::new(format!("F13 a load balancer's address goes, {name}"), &[&balanced])
            .ask(OUTSIDE, balanced.at_balancer(family, TCP), yes)
            .then(patch(format!("{}/status", balanced.path()), json!({"status": {"loadBalancer": {"ingress": null}}})))
            .ask(OUTSIDE, balanced.at_balancer(family, TCP), "refused")
            .ask(OUTSIDE, balanced.at_node(node, TCP), yes),
        Case::new(format!("F12 an external address goes, {name}"), &[&externally])
            .ask(OUTSIDE, externally.at_external(family, TCP), yes)
            .then(patch(externally.path(), json!({"spec": {"externalIPs": null}})))
            .ask(OUTSIDE, externally.at_external(family, TCP), "refused"),
        Case::new(format!("F14 a ClusterIP becomes a NodePort and again a ClusterIP, {name}"), &[&kinds])
            .ask(OUTSIDE, kinds.at_node(node, TCP), "refused")
            .then(patch(kinds.path(), json!({"spec": {"type": "NodePort", "ports": with_port}})))
            .ask(OUTSIDE, kinds.at_node(node, TCP), yes)
            .then(patch(kinds.path(), json!({"spec": {"type": "ClusterIP", "ports": kinds.object["spec"]["ports"], "externalTrafficPolicy": null}})))
            .ask(OUTSIDE, kinds.at_node(node, TCP), "refused")
            .ask(POD, kinds.cluster(family, TCP), "1a 2a"),
    ]
}

fn policies(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let new = || Service::new(family, TCP).at(&["1a", "2a"]);
    let node = node_address(1, family);
    let external = new().node_ports();
    let internal = new();
    let ranged = new().balancer();
    let pod = format!("{}/{}", POD.address(family), if family == Family::V4 { 32 } else { 128 });
    let set =
        |service: &Service, field: &str, value: Value| patch(service.path(), json!({"spec": {field: value}}));
    vec![
        Case::new(format!("F19 eTP becomes Local and Cluster again, {name}"), &[&external])
            .ask(OUTSIDE, external.at_node(node, TCP), "1a 2a +m")
            .then(set(&external, "externalTrafficPolicy", "Local".into()))
            .ask(OUTSIDE, external.at_node(node, TCP), "1a")
            .then(set(&external, "externalTrafficPolicy", "Cluster".into()))
            .ask(OUTSIDE, external.at_node(node, TCP), "1a 2a +m"),
        Case::new(format!("F18 iTP becomes Local and Cluster again, {name}"), &[&internal])
            .ask(POD, internal.cluster(family, TCP), "1a 2a")
            .then(set(&internal, "internalTrafficPolicy", "Local".into()))
            .ask(POD, internal.cluster(family, TCP), "1a")
            .then(set(&internal, "internalTrafficPolicy", "Cluster".into()))
            .ask(POD, internal.cluster(family, TCP), "1a 2a"),
        Case::new(format!("F23 source ranges come and go, {name}"), &[&ranged])
            .ask(OUTSIDE, ranged.at_balancer(family, TCP), "1a 2a +m")
            .then(set(&ranged, "loadBalancerSourceRanges", json!([pod])))
            .ask(OUTSIDE, ranged.at_balancer(family, TCP), "silence")
            .ask(POD, ranged.at_balancer(family, TCP), "1a 2a +m")
            .then(set(&ranged, "loadBalancerSourceRanges", Value::Null))
            .ask(OUTSIDE, ranged.at_balancer(family, TCP), "1a 2a +m"),
        {
            let service = new();
            let hinted = service.clone();
            Case::new(format!("F24 hints come, {name}"), &[&service])
                .ask(POD, service.cluster(family, TCP), "1a 2a")
                .then(move |scene| {
                    hinted.change_endpoints(
                        scene.api,
                        0,
                        &[endpoint("1a").for_zones(&["zone-a"]), endpoint("2a").for_zones(&["zone-b"])],
                    )
                })
                .ask(POD, service.cluster(family, TCP), "1a")
        },
    ]
}

/// What changes is not the Service.
fn surroundings(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let hinted = Service::new(family, TCP)
        .endpoints(&[endpoint("1a").for_zones(&["zone-a"]), endpoint("2a").for_zones(&["zone-b"])]);
    let zone = |zone: &str| {
        patch(
            format!("{NODES}/node7"),
            json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}),
        )
    };
    let ported = Service::new(family, TCP).node_ports().at(&["1a", "2a"]);
    let (added, network) = match family {
        Family::V4 => ("198.51.6.77/32", "10.97.0.0/24"),
        Family::V6 => ("2001:db8:6::77/128", "fd00:10:97::/120"),
    };
    let address: std::net::IpAddr =
        added.split('/').next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{added}"));
    let unallocated = match family {
        Family::V4 => std::net::IpAddr::from([10, 97, 0, 200]),
        Family::V6 => std::net::Ipv6Addr::new(0xfd00, 0x10, 0x97, 0, 0, 0, 0, 200).into(),
    };
    let target = Target { protocol: TCP, address: (unallocated, 80).into() };
    let cidr = format!("proxy-{}", name.to_lowercase());
    let mut cases = Vec::new();
    // One after the other: both families change the same Node.
    if family == Family::V4 {
        let asker = Place::Pod(7, 'c');
        cases.push(
            Case::new(format!("F4 the node moves to another zone, {name}"), &[&hinted])
                .ask(asker, hinted.cluster(family, TCP), "1a")
                .then(zone("zone-b"))
                .ask(asker, hinted.cluster(family, TCP), "2a")
                .then(zone("zone-c"))
                .ask(asker, hinted.cluster(family, TCP), "1a 2a")
                .then(zone("zone-a"))
                .ask(asker, hinted.cluster(family, TCP), "1a"),
        );
    }
    cases.push(
        Case::new(format!("W6 an address that a node gets has node ports at once, {name}"), &[&ported])
            .then(move |scene| {
                programs::run(
                    scene.world.at(Place::Node(6)).command("ip").args(["addr", "add", added, "dev", "lo"]),
                );
            })
            .ask(Place::Outside(6), ported.at_node(address, TCP), "1a 2a +m"),
    );
    cases.push(
        Case::new(format!("W5 a network that Services get is theirs at once, {name}"), &[])
            .then({
                let cidr = cidr.clone();
                move |scene| {
                    let object = json!({"metadata": {"name": cidr}, "spec": {"cidrs": [network]}});
                    scene.api.delete(&format!("/apis/networking.k8s.io/v1/servicecidrs/{cidr}"));
                    scene.api.create("/apis/networking.k8s.io/v1/servicecidrs", &object);
                }
            })
            .ask(NODE, target, "silence"),
    );
    cases
}
