//! F37 to F39: what load balancers, operators and tests are told.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{OUTSIDE, family_name};
use crate::proxy::{
    api::NODES,
    case::{Case, Scene},
    endpoint::endpoint,
    program::get,
    service::{Protocol, Service},
    world::{FAMILIES, Family, Place, node_address},
};

/// Metrics of kube-proxy that operators look at and that are there from the first programming on (F40).
const METRICS: [&str; 10] = [
    "kubeproxy_sync_full_proxy_rules_duration_seconds",
    "kubeproxy_sync_partial_proxy_rules_duration_seconds",
    "kubeproxy_sync_proxy_rules_duration_seconds",
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
    "kubeproxy_sync_proxy_rules_endpoint_changes_total",
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
    "kubeproxy_sync_proxy_rules_service_changes_pending",
    "kubeproxy_sync_proxy_rules_service_changes_total",
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = FAMILIES.into_iter().flat_map(balancers).collect();
    let at = |node: u8, port: u16, path: &'static str| {
        move |scene: Scene<'_>| {
            answer(get(
                scene.world,
                Place::Outside(node),
                (node_address(node, Family::V4), port).into(),
                path,
            ))
        }
    };
    let inside = |path: &'static str| {
        move |scene: Scene<'_>| {
            answer(get(scene.world, Place::Node(1), SocketAddr::from(([127, 0, 0, 1], 10249)), path))
        }
    };
    let has = |words: &'static str, look: fn(Scene<'_>) -> Result<(u16, String), String>| {
        move |scene: Scene<'_>| match look(scene) {
            Ok((200, text)) => if text.contains(words) { "yes" } else { "no" }.to_owned(),
            other => answer(other),
        }
    };
    let health =
        |scene: Scene<'_>| get(scene.world, OUTSIDE, (node_address(1, Family::V4), 10256).into(), "/healthz");
    let mode = |scene: Scene<'_>| {
        get(scene.world, Place::Node(1), SocketAddr::from(([127, 0, 0, 1], 10249)), "/proxyMode")
    };
    cases.push(
        Case::new("F38 /healthz says that the node is served", &[])
            .look("it", at(1, 10256, "/healthz"), "200")
            .look("with lastUpdated", has("lastUpdated", health), "yes")
            .short_if(true),
    );
    cases.push(
        Case::new("F38 /livez says that the proxy lives", &[])
            .look("it", at(1, 10256, "/livez"), "200")
            .short_if(true),
    );
    let taint = |taints: Value| {
        move |scene: Scene<'_>| {
            drop(scene.api.patch(&format!("{NODES}/node7"), &json!({"spec": {"taints": taints}})))
        }
    };
    cases.push(
        Case::new("F38 a node that the autoscaler takes away is not healthy, and its proxy lives", &[])
            .on(7)
            .then(taint(json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}])))
            .look("/healthz", at(7, 10256, "/healthz"), "503")
            .look("/livez", at(7, 10256, "/livez"), "200")
            .then(taint(json!([])))
            .look("/healthz", at(7, 10256, "/healthz"), "200"),
    );
    for path in ["/healthz", "/metrics", "/configz", "/statusz", "/flagz", "/metrics/slis"] {
        cases.push(
            Case::new(format!("F39 {path} is there for the node"), &[])
                .look("it", inside(path), "200")
                .short_if(true),
        );
    }
    cases.push(
        Case::new("F39 /proxyMode says nftables", &[])
            .look("it", has("nftables", mode), "yes")
            .short_if(true),
    );
    cases.push(
        Case::new("F39 and none of it for others", &[])
            .look("it", at(1, 10249, "/metrics"), "no answer")
            .short_if(true),
    );
    let metrics = |scene: Scene<'_>| match get(
        scene.world,
        Place::Node(1),
        SocketAddr::from(([127, 0, 0, 1], 10249)),
        "/metrics",
    ) {
        Ok((_, text)) => {
            METRICS.into_iter().filter(|name| !text.contains(name)).collect::<Vec<_>>().join(" ")
        }
        other => answer(other),
    };
    cases.push(
        Case::new("F40 metrics have the names that dashboards know", &[])
            .look("missing", metrics, "")
            .short_if(true),
    );
    cases
}

fn answer(got: Result<(u16, String), String>) -> String {
    got.map_or_else(|_| "no answer".to_owned(), |(status, _)| status.to_string())
}

/// F37: the health check port of a Service on each of two nodes.
fn balancers(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let short = family == Family::V4;
    let new = || Service::new(family, Protocol::Tcp).balancer().external_local();
    let told = move |node: u8, port: u16| {
        move |scene: Scene<'_>| match get(
            scene.world,
            Place::Outside(node),
            (node_address(node, family), port).into(),
            "/any/path",
        ) {
            Ok((status, text)) => {
                let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
                let body: Value = serde_json::from_str(body).unwrap_or_default();
                let weight = head.lines().find_map(|line| {
                    line.to_lowercase().strip_prefix("x-load-balancing-endpoint-weight: ").map(str::to_owned)
                });
                let sniff = head.to_lowercase().contains("x-content-type-options: nosniff")
                    && head.to_lowercase().contains("content-type: application/json");
                format!(
                    "{status} {} {} {} weight {}{}",
                    body["service"]["name"].is_string(),
                    body["localEndpoints"],
                    body["serviceProxyHealthy"],
                    weight.unwrap_or_default(),
                    if sniff { "" } else { " without its headers" }
                )
            }
            Err(_) => "no answer".to_owned(),
        }
    };
    let ready = new().at(&["1a", "1b", "2a"]);
    let remote = new().at(&["2a"]);
    let ending = new().endpoints(&[endpoint("1a").terminating()]);
    let changing = new().at(&["1a"]);
    let path = changing.path();
    let policy = move |value: &'static str, port: Option<u16>| {
        let path = path.clone();
        move |scene: Scene<'_>| {
            drop(scene.api.patch(
                &path,
                &json!({"spec": {"externalTrafficPolicy": value, "healthCheckNodePort": port}}),
            ))
        }
    };
    let (good, bad) = ("200 true 1 true weight 1", "503 true 0 true weight 0");
    vec![
        Case::new(format!("F37 each node tells how many endpoints it has, {name}"), &[&ready])
            .look("node 1", told(1, ready.health_port()), "200 true 2 true weight 2")
            .look("node 2", told(2, ready.health_port()), good)
            .short_if(short),
        Case::new(format!("F37 a node without endpoints says so, {name}"), &[&remote])
            .look("node 1", told(1, remote.health_port()), bad)
            .short_if(short),
        Case::new(format!("F37 endpoints that end do not count, though they are used, {name}"), &[&ending])
            .look("node 1", told(1, ending.health_port()), bad)
            .ask(OUTSIDE, ending.at_node(node_address(1, family), Protocol::Tcp), "1a")
            .short_if(short),
        Case::new(format!("F37 the port comes and goes with the policy, {name}"), &[&changing])
            .look("Local", told(1, changing.health_port()), good)
            .then(policy("Cluster", None))
            .look("Cluster", told(1, changing.health_port()), "no answer")
            .then(policy("Local", Some(changing.health_port())))
            .look("Local", told(1, changing.health_port()), good),
    ]
}
