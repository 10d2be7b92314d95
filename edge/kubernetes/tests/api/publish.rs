//! What is told to the cluster.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::{core::v1::Node, events::v1::Event};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use portolan_kubernetes::{About, Annotations, Capacity, EventKind, NodeView, PublishError, Publisher};
use serde_json::json;

use crate::{PATIENCE, gate::Gate, need_server, objects, until};

fn say(key: &str, value: &str) -> Annotations {
    Annotations::from([(key.to_owned(), Some(value.to_owned()))])
}

#[tokio::test]
async fn a_pod_of_the_same_name_never_gets_the_annotations_of_the_one_before() {
    let server = need_server!();
    let client = server.client().await;
    let gate = Gate::to(server.address()).await;
    let node = objects::node(&client, json!({})).await;
    let namespace = objects::namespace(&client, json!({})).await;
    let publisher = Publisher::start(&server.connection_by(gate.address()).await, &node);
    let old = objects::pod(&client, &namespace, "web-0", &node, json!({})).await;
    publisher.annotate_now(&old, say("ports", "old"), PATIENCE).await.unwrap();
    assert_eq!(objects::annotation(&client, &old, "ports").await.as_deref(), Some("old"));

    gate.close();
    publisher.annotate(&old, say("ports", "later"));
    objects::delete_pod(&client, &old).await;
    let new = objects::pod(&client, &namespace, "web-0", &node, json!({})).await;
    assert_ne!(old.uid, new.uid);
    gate.open();
    assert!(publisher.idle(PATIENCE).await);
    assert_eq!(objects::annotation(&client, &new, "ports").await, None);
    let gone = publisher.annotate_now(&old, say("ports", "again"), PATIENCE).await;
    assert_eq!(gone, Err(PublishError::Gone(old.clone())));
    publisher.annotate_now(&new, say("ports", "new"), PATIENCE).await.unwrap();
    assert_eq!(objects::annotation(&client, &new, "ports").await.as_deref(), Some("new"));
    objects::delete_pod(&client, &new).await;
    assert_eq!(publisher.annotate_now(&new, say("a", "b"), PATIENCE).await, Err(PublishError::Gone(new)));
}

#[tokio::test]
async fn what_is_said_while_the_api_server_is_away_lands_later_and_the_newest_wins() {
    let server = need_server!();
    let client = server.client().await;
    let gate = Gate::to(server.address()).await;
    let node = objects::node(&client, json!({})).await;
    let namespace = objects::namespace(&client, json!({})).await;
    let publisher = Publisher::start(&server.connection_by(gate.address()).await, &node);
    let mut pods = Vec::new();
    for number in 0..5 {
        pods.push(
            objects::pod(&client, &namespace, &format!("web-{number}"), &node, json!({"gone": "1"})).await,
        );
    }
    gate.close();
    for pod in &pods {
        publisher.annotate(pod, say("ports", "1"));
        publisher.annotate(pod, Annotations::from([("gone".to_owned(), None)]));
        publisher.annotate(pod, say("ports", "2"));
    }
    let now = publisher.annotate_now(&pods[0], say("third", "3"), Duration::from_millis(300)).await;
    assert!(matches!(&now, Err(PublishError::Api(error)) if error.is_away()), "{now:?}");
    publisher.event(
        &About::Pod(pods[0].clone()),
        EventKind::Normal,
        "PortsPublished",
        "Publish",
        "http is 20417",
    );
    assert_eq!(publisher.stats().landed, 0);
    gate.open();
    assert!(publisher.idle(PATIENCE).await);
    for pod in &pods {
        assert_eq!(objects::annotation(&client, pod, "ports").await.as_deref(), Some("2"));
        assert_eq!(objects::annotation(&client, pod, "gone").await, None);
    }
    assert_eq!(objects::annotation(&client, &pods[0], "third").await.as_deref(), Some("3"));
    assert_eq!(events(&client, &namespace).await.len(), 1);
}

async fn events(client: &kube::Client, namespace: &str) -> Vec<Event> {
    Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default()).await.unwrap().items
}

#[tokio::test]
async fn the_same_event_is_counted_and_another_message_is_another_event() {
    let server = need_server!();
    let client = server.client().await;
    let node = objects::node(&client, json!({})).await;
    let namespace = objects::namespace(&client, json!({})).await;
    let publisher = Publisher::start(&server.connection().await, &node);
    let about = About::Pod(objects::pod(&client, &namespace, "web-0", &node, json!({})).await);
    for message in ["the pool is full", "the pool is full", "the pool is full", "the quota is exceeded"] {
        publisher.event(&about, EventKind::Warning, "PortsRefused", "Allocate", message);
    }
    assert!(publisher.idle(PATIENCE).await);
    let mut told: Vec<_> = events(&client, &namespace)
        .await
        .into_iter()
        .map(|event| (event.note.unwrap(), event.series.map(|series| series.count), event.type_.unwrap()))
        .collect();
    told.sort();
    let warning = "Warning".to_owned();
    assert_eq!(
        told,
        [
            ("the pool is full".to_owned(), Some(3), warning.clone()),
            ("the quota is exceeded".to_owned(), None, warning)
        ]
    );
    // Events go after an hour: the next one of the kind is a new one, not an error.
    let api = Api::<Event>::namespaced(client.clone(), &namespace);
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    publisher.event(&about, EventKind::Warning, "PortsRefused", "Allocate", "the pool is full");
    assert!(publisher.idle(PATIENCE).await);
    assert_eq!(events(&client, &namespace).await.len(), 1);
    publisher.event(
        &About::Node(node),
        EventKind::Normal,
        "PoolChanged",
        "Reload",
        "default has 10000 ports",
    );
    assert!(publisher.idle(PATIENCE).await);
    assert_eq!(publisher.stats().dropped, 0);
}

#[tokio::test]
async fn the_scheduler_knows_a_nodes_ports_also_after_somebody_resets_them() {
    let server = need_server!();
    let client = server.client().await;
    let node = objects::node(&client, json!({})).await;
    let connection = server.connection().await;
    let view = NodeView::start(&connection, &node);
    let capacity = Capacity::start(&connection, &view);
    let nodes = Api::<Node>::all(client.clone());
    let told = async || {
        let status = nodes.get(&node).await.unwrap().status.unwrap();
        let of = |resources: Option<BTreeMap<String, _>>| -> BTreeMap<String, String> {
            let resources: BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity> =
                resources.unwrap_or_default();
            resources.into_iter().map(|(name, quantity)| (name, quantity.0)).collect()
        };
        (of(status.capacity), of(status.allocatable))
    };
    let ports = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(pool, number)| (format!("ports.portolan.dev/{pool}"), (*number).to_owned()))
            .collect()
    };
    let both = |pairs: &[(&str, &str)]| (ports(pairs), ports(pairs));
    capacity.set(BTreeMap::from([("default".parse().unwrap(), 9898), ("media".parse().unwrap(), 10_000)]));
    // The API server writes numbers in its own way.
    let expected = both(&[("default", "9898"), ("media", "10k")]);
    until("both pools are told", async || told().await == expected).await;
    let reset = Patch::Merge(json!({"status": {"capacity": {"ports.portolan.dev/default": "0"}}}));
    nodes.patch_status(&node, &PatchParams::default(), &reset).await.unwrap();
    until("what kubelet reset is told again", async || told().await == expected).await;
    capacity.set(BTreeMap::from([("default".parse().unwrap(), 9000)]));
    let expected = both(&[("default", "9k")]);
    until("a pool that is gone is taken away", async || told().await == expected).await;
}
