//! The admission webhook, called by a real API server.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{Pod, Secret},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use portolan_kubernetes::{Certificates, CertificatesConfig, Count, Mutate, Policy, serve_webhook};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{objects, pools, server::Server, until};

/// Asks for as many ports as the annotation says, of the pool that another says.
fn count() -> Count {
    Arc::new(|pod| {
        let Some(number) = pod.annotations.get("n") else { return Ok(BTreeMap::new()) };
        let number = number.parse().map_err(|_| format!("{number:?} is no number of ports: write 3"))?;
        let pool = pod.annotations.get("pool").map_or("default", String::as_str);
        Ok(BTreeMap::from([(pool.parse().unwrap(), number)]))
    })
}

struct Replica {
    stop: CancellationToken,
    port: u16,
}

async fn replica(server: &Server, namespace: &str, policy: bool) -> Replica {
    let connection = server.connection().await;
    let stop = CancellationToken::new();
    let config = CertificatesConfig {
        namespace: namespace.to_owned(),
        secret: "portolan-webhook".to_owned(),
        names: vec!["127.0.0.1".to_owned(), "portolan-webhook.portolan.svc".to_owned()],
        configurations: vec!["portolan".to_owned()],
    };
    let certificates = Certificates::start(&connection, config, stop.clone()).await.unwrap();
    let mut mutate = Mutate::new(count());
    if policy {
        let policy = Policy::start(&connection);
        until("the policy is known", async || policy.is_synced()).await;
        mutate = mutate.with_policy(policy);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve_webhook(listener, certificates, mutate, stop.clone()));
    Replica { stop, port }
}

/// The configuration as the chart has it, but by URL: there are no Pods here that a Service could lead to.
async fn configure(client: &Client, port: u16) {
    let object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "portolan"},
        "webhooks": [{
            "name": "ports.portolan.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
            "clientConfig": {"url": format!("https://127.0.0.1:{port}/mutate")},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
        }]
    });
    let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
    api.patch("portolan", &PatchParams::apply("chart").force(), &Patch::Apply(object)).await.unwrap();
}

async fn bundle(client: &Client) -> Option<String> {
    let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let bundle = api.get("portolan").await.unwrap().webhooks?.remove(0).client_config.ca_bundle?;
    Some(String::from_utf8(bundle.0).unwrap())
}

fn pod(name: &str, annotations: Value) -> Value {
    json!({"metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "none"}, {"name": "other", "image": "none"}]}})
}

async fn create(client: &Client, namespace: &str, name: &str, annotations: Value) -> Result<Pod, String> {
    match objects::create::<Pod>(client, namespace, pod(name, annotations)).await {
        Ok(pod) => Ok(pod),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(error) => panic!("{error}"),
    }
}

/// What the first container of a Pod asks the scheduler for.
fn requests(pod: &Pod) -> BTreeMap<String, String> {
    let resources = pod.spec.as_ref().unwrap().containers[0].resources.clone().unwrap_or_default();
    let text = |map: Option<BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>| {
        map.unwrap_or_default()
            .into_iter()
            .map(|(name, quantity)| (name, quantity.0))
            .collect::<BTreeMap<_, _>>()
    };
    let requests = text(resources.requests);
    assert_eq!(requests, text(resources.limits), "extended resources cannot be overcommitted");
    requests
}

/// Until the API server has learned of the webhook and its authority, it fails or lets Pods through as they are.
async fn until_called(client: &Client, namespace: &str) {
    until("the API server calls the webhook", async || {
        let name = objects::unique("probe");
        create(client, namespace, &name, json!({"n": "1"})).await.is_ok_and(|pod| !requests(&pod).is_empty())
    })
    .await;
}

#[tokio::test]
async fn pods_that_ask_get_resources_and_others_are_as_they_were() {
    let Some(server) = Server::start() else { return };
    let client = server.client().await;
    let namespace = objects::namespace(&client, json!({"portolan.dev/ports": "allowed"})).await;
    let one = replica(&server, &namespace, false).await;
    configure(&client, one.port).await;
    until_called(&client, &namespace).await;
    let three = BTreeMap::from([("ports.portolan.dev/default".to_owned(), "3".to_owned())]);
    let asks = create(&client, &namespace, "asks", json!({"n": "3"})).await.unwrap();
    assert_eq!(requests(&asks), three);
    let plain = create(&client, &namespace, "plain", json!({})).await.unwrap();
    assert!(requests(&plain).is_empty());
    let denied = create(&client, &namespace, "denied", json!({"n": "some"})).await.unwrap_err();
    assert!(denied.contains("\"some\" is no number of ports: write 3"), "{denied}");
    // A dry run is answered like any other, and leaves nothing.
    let api = Api::<Pod>::namespaced(client.clone(), &namespace);
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let dry = serde_json::from_value(pod("dry", json!({"n": "3"}))).unwrap();
    assert_eq!(requests(&api.create(&parameters, &dry).await.unwrap()), three);
    assert!(api.get_opt("dry").await.unwrap().is_none());

    // A second replica shows the same certificate, without another word to the API server.
    let before = bundle(&client).await.unwrap();
    let two = replica(&server, &namespace, false).await;
    configure(&client, two.port).await;
    until_called(&client, &namespace).await;
    assert_eq!(bundle(&client).await.unwrap(), before);
    // An upgrade of the chart writes the configuration without a bundle; somebody deletes the Secret.
    Api::<Secret>::namespaced(client.clone(), &namespace)
        .delete("portolan-webhook", &DeleteParams::default())
        .await
        .unwrap();
    let three_replicas = replica(&server, &namespace, false).await;
    until("the bundle is that of the new Secret", async || {
        bundle(&client).await.is_some_and(|now| now != before)
    })
    .await;
    configure(&client, three_replicas.port).await;
    until_called(&client, &namespace).await;
    for replica in [one, two, three_replicas] {
        replica.stop.cancel();
    }
}

#[tokio::test]
async fn pods_that_nobody_would_serve_are_refused_at_once_with_the_reason() {
    let Some(server) = Server::start() else { return };
    let client = server.client().await;
    let allowed = objects::namespace(&client, json!({"portolan.dev/ports": "allowed", "team": "a"})).await;
    let other = objects::namespace(&client, json!({"portolan.dev/ports": "allowed"})).await;
    pools::install(&client).await;
    let quota = json!({"ranges": ["20000-29999"], "quota": {"perNamespace": 5}});
    pools::create(&client, "default", quota).await.unwrap();
    let selective = json!({"ranges": ["31000-31999"], "namespaceSelector": {"matchLabels": {"team": "a"}}});
    pools::create(&client, "media", selective).await.unwrap();
    // As an installation leaves it: there, and empty.
    objects::create::<Secret>(&client, &allowed, json!({"metadata": {"name": "portolan-webhook"}}))
        .await
        .unwrap();
    let replica = replica(&server, &allowed, true).await;
    configure(&client, replica.port).await;
    until_called(&client, &other).await;
    for (annotations, expected) in [
        (json!({"n": "1", "pool": "nowhere"}), "there is no pool nowhere: this cluster has default, media"),
        (json!({"n": "6"}), "the quota of pool default is 5 ports for a namespace"),
    ] {
        let message = create(&client, &allowed, "refused", annotations).await.unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
    let message = create(&client, &other, "refused", json!({"n": "1", "pool": "media"})).await.unwrap_err();
    assert!(message.contains("the pool media is not for the namespace"), "{message}");
    create(&client, &allowed, "media", json!({"n": "100", "pool": "media"})).await.unwrap();
    create(&client, &allowed, "first", json!({"n": "3"})).await.unwrap();
    let message = create(&client, &allowed, "second", json!({"n": "3"})).await.unwrap_err();
    assert!(message.contains("have asked for 3 of them, and 3 more do not fit"), "{message}");
    let api = Api::<Pod>::namespaced(client.clone(), &allowed);
    api.delete("first", &DeleteParams::default().grace_period(0)).await.unwrap();
    create(&client, &allowed, "second", json!({"n": "3"})).await.unwrap();
    replica.stop.cancel();
}
