//! Objects that tests need.

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Namespace, Node, Pod},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use portolan_kubernetes::PodKey;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// A name that no other test has.
pub(crate) fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn namespace(client: &Client, labels: Value) -> String {
    let name = unique("ns");
    let object: Namespace =
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
    name
}

pub(crate) async fn node(client: &Client, labels: Value) -> String {
    let name = unique("node");
    let object: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.240.0.11"}]}
    }))
    .unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
    name
}

pub(crate) async fn create<K>(client: &Client, namespace: &str, object: Value) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await
}

/// A Pod that was put on a node, with these annotations.
pub(crate) async fn pod(
    client: &Client,
    namespace: &str,
    name: &str,
    node: &str,
    annotations: Value,
) -> PodKey {
    let object = json!({
        "metadata": {"name": name, "labels": {"app": "web"}, "annotations": annotations},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none", "ports": [
            {"name": "http", "containerPort": 8080}, {"name": "static", "containerPort": 81, "hostPort": 8081}
        ]}]}
    });
    let pod: Pod = create(client, namespace, object).await.unwrap();
    PodKey { namespace: namespace.to_owned(), name: name.to_owned(), uid: pod.metadata.uid.unwrap() }
}

pub(crate) async fn delete_pod(client: &Client, pod: &PodKey) {
    let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace);
    api.delete(&pod.name, &DeleteParams::default().grace_period(0)).await.unwrap();
}

pub(crate) async fn get_pod(client: &Client, pod: &PodKey) -> Pod {
    Api::<Pod>::namespaced(client.clone(), &pod.namespace).get(&pod.name).await.unwrap()
}

pub(crate) async fn annotation(client: &Client, pod: &PodKey, key: &str) -> Option<String> {
    get_pod(client, pod).await.metadata.annotations?.get(key).cloned()
}

pub(crate) async fn patch_pod(client: &Client, pod: &PodKey, patch: Value) {
    let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace);
    api.patch(&pod.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// What kubelet would say of a Pod.
pub(crate) async fn patch_status(client: &Client, pod: &PodKey, status: Value) {
    let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace);
    let patch = Patch::Merge(json!({ "status": status }));
    api.patch_status(&pod.name, &PatchParams::default(), &patch).await.unwrap();
}
