//! Galaxy's document of random port mapping, step by step as examples/galaxy tells it, and its annotation to the letter.

use std::{path::Path, time::Duration};

use portolan_cluster::need_cluster;
use portolan_testkit::{eventually_ok, need_root};
use portolan_tests::{
    cluster::{Asking, Outside, Space, installed, public_address, told},
    console,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn galaxys_document_is_true() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let space = Space::without_ports(cluster, "galaxy");
    let outside = Outside::new(cluster, space.name(), "examples/galaxy");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/galaxy/README.md");
    let document =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // Its reader has a cluster to himself; this test has a namespace.
    let document = document
        .replace("namespace default", &format!("namespace {}", space.name()))
        .replace("namespace/default", &format!("namespace/{}", space.name()));
    console::run(&outside, "examples/galaxy/README.md", &document);
}

#[test]
fn the_annotation_is_galaxys_to_the_letter() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let space = Space::new(cluster, "galaxy-json");
    let pod = Asking::script("web", "", "exec sleep 1000")
        .silent()
        .annotated("tkestack.io/portmapping", "")
        .container_ports(json!([
            {"containerPort": 9040},
            {"containerPort": 5000, "protocol": "UDP"},
            {"containerPort": 5001, "protocol": "SCTP"},
        ]))
        .start(&space);
    let text = eventually_ok(SOON, || {
        let pod = space.get("pod/web");
        let text =
            pod["metadata"]["annotations"]["tkestack.io/portmapping"].as_str().unwrap_or_default().to_owned();
        if text.is_empty() { Err(pod["metadata"]["annotations"].to_string()) } else { Ok(text) }
    });
    let text = text.unwrap_or_else(|annotations| panic!("{annotations}"));
    let ports: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let ports = ports.as_array().cloned().unwrap_or_default();
    let asked = [(9040, "TCP"), (5000, "UDP"), (5001, "SCTP")];
    assert_eq!(ports.len(), asked.len(), "{text}");
    for (port, (container, protocol)) in ports.iter().zip(asked) {
        let keys: Vec<&String> = port.as_object().into_iter().flat_map(|object| object.keys()).collect();
        assert_eq!(keys, ["containerPort", "hostPort", "podIP", "podName", "protocol"], "{port}");
        assert_eq!((&port["containerPort"], &port["protocol"]), (&json!(container), &json!(protocol)));
        assert_eq!((&port["podName"], &port["podIP"]), (&json!("web"), &pod["status"]["podIP"]));
        assert!(port["hostPort"].as_u64().is_some_and(|number| number >= 20000), "{port}");
    }
    // Both annotations tell the same.
    let numbers: Vec<u64> = ports.iter().filter_map(|port| port["hostPort"].as_u64()).collect();
    let ours: Vec<u64> =
        told(&space.get("pod/web")).iter().map(|port| u64::from(*port.host.start())).collect();
    assert_eq!(numbers, ours);
    assert_eq!(
        public_address(&space.get("pod/web")).to_string(),
        pod["status"]["hostIP"].as_str().unwrap_or_default()
    );
}
