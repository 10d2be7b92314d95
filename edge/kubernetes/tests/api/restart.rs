//! An API server that goes and comes back.

use k8s_openapi::api::core::v1::ConfigMap;
use portolan_kubernetes::NodeView;
use serde_json::json;

use crate::{PATIENCE, eventually, gate::Gate, objects, server::Server, until};

/// The API server that came back has nothing of the time before in its memory, so that the position of the old watch is
/// answered with 410: what was deleted and created meanwhile is found by a new list.
#[tokio::test]
async fn a_watch_that_has_expired_recovers_with_everything_that_happened_meanwhile() {
    let Some(server) = Server::start() else { return };
    let client = server.client().await;
    let node = objects::node(&client, json!({})).await;
    let namespace = objects::namespace(&client, json!({})).await;
    let stays = objects::pod(&client, &namespace, "stays", &node, json!({})).await;
    let goes = objects::pod(&client, &namespace, "goes", &node, json!({})).await;
    let gate = Gate::to(server.address()).await;
    let view = NodeView::start(&server.connection_by(gate.address()).await, &node);
    view.synced(PATIENCE).await.unwrap();
    let lists = view.health().lists;
    gate.close();
    until("the absence is noticed", async || view.health().away.is_some()).await;
    objects::delete_pod(&client, &goes).await;
    objects::patch_pod(&client, &stays, json!({"metadata": {"annotations": {"changed": "yes"}}})).await;
    for number in 0..20 {
        let object = json!({"metadata": {"name": format!("filler-{number}")}});
        objects::create::<ConfigMap>(&client, &namespace, object).await.unwrap();
    }
    server.stop_apiserver();
    assert!(view.pod(&namespace, "goes", None).is_some(), "memory is as it was");
    server.start_apiserver();
    let client = server.client().await;
    let comes = objects::pod(&client, &namespace, "comes", &node, json!({})).await;
    gate.open();
    eventually("the new Pod", async || view.pod(&namespace, "comes", Some(&comes.uid))).await;
    until("the old Pod is gone", async || view.pod(&namespace, "goes", None).is_none()).await;
    let stays = view.pod(&namespace, "stays", None).unwrap();
    assert_eq!(stays.annotations.get("changed").map(String::as_str), Some("yes"));
    until("nothing fails any more", async || view.health().away.is_none()).await;
    assert!(view.health().lists > lists, "the old position has expired");
    // And it goes on from there.
    objects::delete_pod(&client, &comes).await;
    until("a later change", async || view.pod(&namespace, "comes", None).is_none()).await;
}
