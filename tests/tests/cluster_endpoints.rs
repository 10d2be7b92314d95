//! A Service that asks has a twin, whose names and ports CoreDNS answers, one per instance.

use std::{collections::BTreeSet, time::Duration};

use portolan_cluster::need_cluster;
use portolan_testkit::{eventually_ok, need_root};
use portolan_tests::cluster::{Asking, Space, installed, public_address, told};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn coredns_answers_with_the_node_and_host_port_of_each_instance() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let space = Space::new(cluster, "srv");
    space.create(&json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "annotations": {"portolan.dev/publish": "true"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}));
    space.create(&Asking::new("web", "http").controlled("Deployment", 3));
    let pods = space.wait_for_pods("app=web", 3);
    let wanted: BTreeSet<u16> = pods.iter().map(|pod| *told(pod)[0].host.start()).collect();
    assert_eq!(wanted.len(), 3);

    let name = format!("_http._tcp.web-ports.{}.svc.cluster.local", space.name());
    let dig = |name: &str, kind: &str| {
        let server = format!("@{}", portolan_cluster::DNS_V4);
        cluster.node(1).run(["dig", "+short", &server, name, kind]).map_err(|error| format!("{error:#}"))
    };
    let answer = eventually_ok(SOON, || {
        let said = dig(&name, "SRV")?;
        let ports: BTreeSet<u16> =
            said.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse().ok()).collect();
        if ports == wanted { Ok(said) } else { Err(format!("{said:?} is not {wanted:?}")) }
    });
    let answer = answer.unwrap_or_else(|seen| panic!("{seen}"));
    let nodes: BTreeSet<String> = pods.iter().map(|pod| public_address(pod).to_string()).collect();
    for target in answer.lines().filter_map(|line| line.split_whitespace().nth(3)) {
        let addresses = dig(target, "A").unwrap_or_else(|error| panic!("{error}"));
        assert!(addresses.lines().all(|address| nodes.contains(address)), "{target}: {addresses}");
    }

    // One goes, and so does its answer.
    space.kubectl(&["scale", "deployment", "web", "--replicas=2"]);
    let fewer = eventually_ok(SOON, || {
        let said = dig(&name, "SRV")?;
        if said.lines().count() == 2 { Ok(()) } else { Err(said) }
    });
    assert!(fewer.is_ok(), "{fewer:?}");
}
