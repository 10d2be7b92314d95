//! The PortPool resource: what the API server takes, and what becomes of it.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use portolan_kubernetes::{NodeView, crd_yaml, run_pool_status};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, eventually, need_server, objects, server::Server, until};

pub(crate) fn api(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("portolan.dev", "v1alpha1", "PortPool");
    Api::all_with(client.clone(), &ApiResource::from_gvk(&kind))
}

/// Has the definition applied, as `kubectl apply` does.
pub(crate) async fn install(client: &Client) {
    let definition: Value = serde_saphyr::from_str(&crd_yaml()).unwrap();
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    let parameters = PatchParams::apply("test").force();
    crds.patch("portpools.portolan.dev", &parameters, &Patch::Apply(definition)).await.unwrap();
    until("the definition is served", async || api(client).list(&Default::default()).await.is_ok()).await;
}

pub(crate) async fn create(client: &Client, name: &str, spec: Value) -> kube::Result<DynamicObject> {
    let object = json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "PortPool", "metadata": {"name": name}, "spec": spec});
    api(client).create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await
}

async fn refusal(client: &Client, name: &str, spec: Value) -> String {
    match create(client, name, spec.clone()).await {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("{spec} was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn the_api_server_refuses_nonsense_with_clear_words() {
    let server = need_server!();
    let client = server.client().await;
    install(&client).await;
    let cases = [
        (json!({}), "spec.ranges: Required value"),
        (json!({"ranges": []}), "should have at least 1 items"),
        (json!({"ranges": ["20000-29999", "25000-26000"]}), "the ranges overlap: give each port once"),
        (json!({"ranges": ["5", "5"]}), "the ranges overlap: give each port once"),
        (json!({"ranges": ["300-200"]}), "a range is FIRST-LAST with 1 <= FIRST <= LAST <= 65535"),
        (json!({"ranges": ["0-5"]}), "a range is FIRST-LAST with 1 <= FIRST <= LAST <= 65535"),
        (json!({"ranges": ["70000"]}), "a range is FIRST-LAST with 1 <= FIRST <= LAST <= 65535"),
        (json!({"ranges": ["web"]}), "should match"),
        (json!({"ranges": ["1"], "protocols": ["ICMP"]}), "Unsupported value: \"ICMP\""),
        (json!({"ranges": ["1"], "protocols": ["TCP", "TCP"]}), "Duplicate value"),
        (json!({"ranges": ["1"], "sourceRanges": ["10.0.0.1"]}), "a source range is a CIDR"),
        (json!({"ranges": ["1"], "quarantine": "two minutes"}), "should match"),
        (json!({"ranges": ["1"], "quarantine": "25h"}), "a quarantine is 24h at most"),
        (json!({"ranges": ["1"], "quota": {"perNamespace": -1}}), "should be greater than or equal to 0"),
    ];
    for (spec, expected) in cases {
        let message = refusal(&client, "nonsense", spec.clone()).await;
        assert!(message.contains(expected), "{spec}: {message}");
    }
    let message = refusal(&client, "two.labels", json!({"ranges": ["1"]})).await;
    assert!(message.contains("a pool is named by a DNS label"), "{message}");
}

#[tokio::test]
async fn pools_come_to_their_nodes_and_their_status_says_what_became_of_them() {
    // A server of its own: pools are the whole cluster's, and other tests look at all of them.
    let Some(server) = Server::start() else { return };
    let client = server.client().await;
    let node = objects::node(&client, json!({"zone": "a"})).await;
    let connection = server.connection().await;
    let view = NodeView::start(&connection, &node);
    // Before the definition is there the agent's own flags count.
    view.synced(PATIENCE).await.unwrap();
    assert!(!view.pools().defined);
    let (stop, running) = (CancellationToken::new(), connection.clone());
    let task = tokio::spawn({
        let stop = stop.clone();
        async move { run_pool_status(&running, stop).await }
    });
    install(&client).await;
    create(&client, "default", json!({"ranges": ["20000-20999"], "quota": {"perNamespace": 10}}))
        .await
        .unwrap();
    create(
        &client,
        "elsewhere",
        json!({"ranges": ["20500"], "nodeSelector": {"matchLabels": {"zone": "b"}}}),
    )
    .await
    .unwrap();
    // Creation times have a resolution of a second, and the younger one is to lose.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    create(&client, "another", json!({"ranges": ["20999-21000"], "protocols": ["UDP"]})).await.unwrap();
    let set = eventually("the pools are seen", async || {
        Some(view.pools()).filter(|set| set.pools.len() == 1 && set.refused.len() == 1)
    })
    .await;
    assert!(set.defined);
    assert_eq!((set.pools[0].name.as_str(), set.pools[0].count()), ("default", 1000));
    assert_eq!(set.pools[0].protocols.to_string(), "tcp+udp+sctp", "the API server filled in the default");
    assert_eq!(set.pools[0].quota_per_namespace, Some(10));
    assert_eq!((set.refused[0].name.as_str(), set.refused[0].reason), ("another", "Conflict"));
    let condition = async |name: &str| {
        let object = api(&client).get(name).await.unwrap();
        let condition = &object.data["status"]["conditions"][0];
        (condition["status"].as_str().map(str::to_owned), condition["reason"].as_str().map(str::to_owned))
    };
    for (name, status, reason) in
        [("default", "True", "Accepted"), ("another", "False", "Conflict"), ("elsewhere", "True", "NoNode")]
    {
        let expected = (Some(status.to_owned()), Some(reason.to_owned()));
        until(&format!("the status of {name}"), async || condition(name).await == expected).await;
    }
    assert_eq!(api(&client).get("default").await.unwrap().data["status"]["ports"], 1000);
    api(&client).delete("default", &DeleteParams::default()).await.unwrap();
    let expected = (Some("True".to_owned()), Some("Accepted".to_owned()));
    until("the other one holds now", async || condition("another").await == expected).await;
    eventually("and the node has it", async || view.pools().get("another").cloned()).await;
    stop.cancel();
    task.await.unwrap();
}
