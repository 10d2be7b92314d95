//! What an agent sees.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use portolan_kubernetes::{Change, NodeView, PodError};
use serde_json::json;

use crate::{PATIENCE, eventually, gate::Gate, need_server, objects, until};

#[tokio::test]
async fn an_agent_sees_its_pods_its_node_its_namespaces_and_the_networks() {
    let server = need_server!();
    let client = server.client().await;
    let (mine, other) =
        (objects::node(&client, json!({"zone": "a"})).await, objects::node(&client, json!({})).await);
    let namespace = objects::namespace(&client, json!({"portolan.dev/ports": "allowed"})).await;
    objects::pod(&client, &namespace, "mine", &mine, json!({"portolan.dev/ports": "http"})).await;
    objects::pod(&client, &namespace, "theirs", &other, json!({})).await;
    let view = NodeView::start(&server.connection().await, &mine);
    view.synced(PATIENCE).await.unwrap();
    let pods: Vec<_> = view.pods().iter().map(|pod| pod.name.clone()).collect();
    assert_eq!(pods, ["mine"]);
    let pod = view.pod(&namespace, "mine", None).unwrap();
    assert_eq!(pod.annotations["portolan.dev/ports"], "http");
    assert_eq!(pod.containers[0].ports[0].name.as_deref(), Some("http"));
    assert!(view.pod(&namespace, "mine", Some("another uid")).is_none());
    assert_eq!(view.static_host_ports().iter().map(|port| port.port).collect::<Vec<_>>(), [8081]);
    assert_eq!(view.node().unwrap().labels["zone"], "a");
    assert_eq!(view.node().unwrap().internal.len(), 1);
    assert_eq!(view.namespace_labels(&namespace).unwrap()["portolan.dev/ports"], "allowed");
    assert!(view.pod_networks().contains(&"10.244.7.0/24".parse().unwrap()));
    assert_eq!(view.service_networks(), ["10.96.0.0/16".parse().unwrap()]);
    let health = view.health();
    assert!(health.synced && health.away.is_none(), "{health:?}");
}

#[tokio::test]
async fn a_change_is_told_once_with_the_state_already_there() {
    let server = need_server!();
    let client = server.client().await;
    let node = objects::node(&client, json!({})).await;
    let namespace = objects::namespace(&client, json!({})).await;
    let view = NodeView::start(&server.connection().await, &node);
    view.synced(PATIENCE).await.unwrap();
    let mut changes = view.changes();
    assert_eq!(changes.next().await, Some(BTreeSet::from([Change::Everything])));
    let pod = objects::pod(&client, &namespace, "web-0", &node, json!({})).await;
    let wanted = Change::Pod { namespace: namespace.clone(), name: "web-0".to_owned() };
    // Other tests make nodes and pools of their own meanwhile.
    while !changes.next().await.unwrap().contains(&wanted) {}
    assert_eq!(view.pod(&namespace, "web-0", None).unwrap().uid, pod.uid);
    let api = Api::<Namespace>::all(client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": {"portolan.dev/ports": "allowed"}}}));
    api.patch(&namespace, &PatchParams::default(), &patch).await.unwrap();
    while !changes.next().await.unwrap().contains(&Change::Namespace(namespace.clone())) {}
    assert!(portolan_kubernetes::opted_in(&view.namespace_labels(&namespace).unwrap()));
    objects::delete_pod(&client, &pod).await;
    // It may be seen on its way out first.
    while view.pod(&namespace, "web-0", None).is_some() {
        while !changes.next().await.unwrap().contains(&wanted) {}
    }
    drop(view);
    while changes.next().await.is_some() {}
}

#[tokio::test]
async fn a_pod_that_does_not_exist_is_told_from_an_api_server_that_is_away() {
    let server = need_server!();
    let client = server.client().await;
    let gate = Gate::to(server.address()).await;
    let node = objects::node(&client, json!({})).await;
    let namespace = objects::namespace(&client, json!({})).await;
    let view = NodeView::start(&server.connection_by(gate.address()).await, &node);
    view.synced(PATIENCE).await.unwrap();
    let missing = view.wait_for_pod(&namespace, "nobody", None, PATIENCE).await.unwrap_err();
    assert!(matches!(missing, PodError::Missing { .. }), "{missing}");
    let known = objects::pod(&client, &namespace, "known", &node, json!({})).await;
    let wrong = view.wait_for_pod(&namespace, "known", Some("old"), PATIENCE).await.unwrap_err();
    assert!(matches!(&wrong, PodError::Replaced { uid, .. } if *uid == known.uid), "{wrong}");
    until("the Pod is in memory", async || view.pod(&namespace, "known", None).is_some()).await;

    gate.close();
    until("the absence is noticed", async || view.health().away.is_some()).await;
    assert!(view.pod(&namespace, "known", None).is_some(), "memory answers while the API server is away");
    assert!(view.wait_for_pod(&namespace, "known", Some(&known.uid), Duration::ZERO).await.is_ok());
    let start = Instant::now();
    let away = view.wait_for_pod(&namespace, "nobody", None, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&away, PodError::Api(error) if error.is_away()), "{away}");
    assert!(start.elapsed() < Duration::from_secs(3), "the time limit holds");
    objects::pod(&client, &namespace, "late", &node, json!({})).await;
    let waiting = view.wait_for_pod(&namespace, "late", None, PATIENCE);
    let (late, ()) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        gate.open();
    });
    assert_eq!(late.unwrap().name, "late");
    until("the view has recovered", async || view.health().away.is_none()).await;
    eventually("the Pod is in memory", async || view.pod(&namespace, "late", None)).await;
}

#[tokio::test]
async fn an_api_server_that_takes_calls_and_does_not_answer_is_away_too() {
    let server = need_server!();
    let client = server.client().await;
    let gate = Gate::to(server.address()).await;
    let node = objects::node(&client, json!({})).await;
    let view = NodeView::start(&server.connection_by(gate.address()).await, &node);
    view.synced(PATIENCE).await.unwrap();
    gate.stall();
    let start = Instant::now();
    let away = view.wait_for_pod("default", "nobody", None, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&away, PodError::Api(error) if error.is_away()), "{away}");
    assert!(start.elapsed() < Duration::from_secs(3), "the time limit holds");
    gate.open();
    let namespace = objects::namespace(&client, json!({})).await;
    objects::pod(&client, &namespace, "after", &node, json!({})).await;
    eventually("the watches have recovered", async || view.pod(&namespace, "after", None)).await;
}
