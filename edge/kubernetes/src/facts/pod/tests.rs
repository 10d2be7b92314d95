use serde_json::json;

use super::*;

fn pod(value: serde_json::Value) -> PodFacts {
    serde_json::from_value::<Pod>(value).unwrap().into()
}

fn sample() -> PodFacts {
    pod(json!({
        "metadata": {
            "namespace": "games", "name": "game-0", "uid": "u1", "creationTimestamp": "2026-11-21T10:00:00Z",
            "annotations": {"portolan.dev/ports": "game/udp"},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "x"},
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "game", "uid": "s1", "controller": true}
            ]
        },
        "spec": {
            "nodeName": "node1",
            "initContainers": [
                {"name": "migrate", "ports": [{"containerPort": 1}]},
                {"name": "proxy", "restartPolicy": "Always", "ports": [{"name": "admin", "containerPort": 9901}]}
            ],
            "containers": [
                {"name": "game", "ports": [
                    {"name": "game", "containerPort": 7777, "protocol": "UDP"},
                    {"name": "web", "containerPort": 80, "hostPort": 8080, "hostIP": "0.0.0.0"},
                    {"containerPort": 81, "hostPort": 8081, "hostIP": "192.0.2.1", "protocol": "SCTP"}
                ]}
            ]
        },
        "status": {
            "phase": "Running", "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "game", "ready": true, "started": true, "restartCount": 2, "image": "", "imageID": "",
                "containerID": "containerd://abc"
            }]
        }
    }))
}

#[test]
fn a_pod_is_read_with_its_sidecars_and_without_its_init_containers() {
    let pod = sample();
    let names: Vec<_> = pod.containers.iter().map(|c| (c.name.as_str(), c.sidecar)).collect();
    assert_eq!(names, [("proxy", true), ("game", false)]);
    assert_eq!(pod.owner.as_ref().map(|owner| owner.kind.as_str()), Some("StatefulSet"));
    assert_eq!(pod.addresses, ["10.244.0.5".parse::<IpAddr>().unwrap(), "fd00::5".parse().unwrap()]);
    assert!(pod.ready && pod.phase == Phase::Running && !pod.terminating);
    let game = &pod.containers[1];
    assert_eq!((game.restarts, game.id.as_deref(), game.started), (2, Some("abc"), true));
    assert_eq!(game.ports[0].protocol, Protocol::Udp);
    assert_eq!(game.ports[1].host_address, None, "every address is no address in particular");
    assert_eq!(pod.created, Some(1_795_255_200));
}

#[test]
fn static_host_ports_are_those_of_the_spec() {
    let mut pod = sample();
    let ports: Vec<_> = pod.static_host_ports().map(|p| (p.port, p.protocol, p.host_network)).collect();
    assert_eq!(ports, [(8080, Protocol::Tcp, false), (8081, Protocol::Sctp, false)]);
    pod.phase = Phase::Succeeded;
    assert_eq!(pod.static_host_ports().count(), 0);
}

#[test]
fn on_the_hosts_network_every_container_port_is_a_host_port() {
    let pod = pod(json!({
        "metadata": {"namespace": "a", "name": "b"},
        "spec": {"hostNetwork": true, "containers": [{"name": "c", "ports": [{"containerPort": 53, "protocol": "UDP"}]}]}
    }));
    let ports: Vec<_> = pod.static_host_ports().map(|p| (p.port, p.protocol, p.host_network)).collect();
    assert_eq!(ports, [(53, Protocol::Udp, true)]);
}

#[test]
fn a_pod_that_was_just_created_has_no_status() {
    let pod = pod(json!({"metadata": {"generateName": "x-"}, "spec": {"containers": []}}));
    assert_eq!((pod.phase, pod.ready, pod.node), (Phase::Pending, false, None));
}
