//! What a service proxy is told.

use std::collections::BTreeSet;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use portolan_kubernetes::{ServiceEvent, ServiceWatch, ServiceWatchConfig};
use serde_json::{Value, json};

use crate::{PATIENCE, gate::Gate, need_server, objects, server::Server, until};

/// A watch, and what of a namespace it has told so far.
struct Told {
    watch: ServiceWatch,
    namespace: String,
    services: BTreeSet<String>,
    slices: BTreeSet<String>,
    synced: bool,
    /// Events of the namespace since [`Told::count`] was asked last.
    events: usize,
}

impl Told {
    fn new(watch: ServiceWatch, namespace: &str) -> Self {
        let namespace = namespace.to_owned();
        Self {
            watch,
            namespace,
            services: BTreeSet::new(),
            slices: BTreeSet::new(),
            synced: false,
            events: 0,
        }
    }

    /// Takes events until `holds`.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                let event = self.watch.next().await;
                self.take(event);
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("not within {PATIENCE:?}: {what}: {:?} {:?}", self.services, self.slices);
        }
    }

    fn take(&mut self, event: ServiceEvent) {
        let namespace = match &event {
            ServiceEvent::SetService { service, .. } => &service.name.namespace,
            ServiceEvent::SetSlice(slice) => &slice.name.namespace,
            ServiceEvent::RemoveService(name) | ServiceEvent::RemoveSlice(name) => &name.namespace,
            ServiceEvent::Synced => {
                self.synced = true;
                return;
            }
            ServiceEvent::Node(_) | ServiceEvent::ServiceNetworks(_) => return,
        };
        if *namespace != self.namespace {
            return;
        }
        self.events += 1;
        match event {
            ServiceEvent::SetService { service, .. } => drop(self.services.insert(service.name.name)),
            ServiceEvent::RemoveService(name) => assert!(self.services.remove(&name.name), "{name} twice"),
            ServiceEvent::SetSlice(slice) => drop(self.slices.insert(slice.name.name)),
            ServiceEvent::RemoveSlice(name) => assert!(self.slices.remove(&name.name), "{name} twice"),
            _ => {}
        }
    }

    fn has(&self, services: &[&str], slices: &[&str]) -> bool {
        self.services.iter().eq(services) && self.slices.iter().eq(slices)
    }
}

async fn service(client: &Client, namespace: &str, name: &str, spec: Value) {
    let mut object = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    objects::create::<Service>(client, namespace, object).await.unwrap();
}

async fn slice(client: &Client, namespace: &str, name: &str, service: &str) {
    let object = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.0.5"]}], "ports": [{"name": "", "port": 8080}]
    });
    objects::create::<EndpointSlice>(client, namespace, object).await.unwrap();
}

async fn label<K>(client: &Client, namespace: &str, name: &str, label: &str, value: Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let patch = Patch::Merge(json!({"metadata": {"labels": {label: value}}}));
    Api::<K>::namespaced(client.clone(), namespace)
        .patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

fn config(proxy_name: Option<&str>) -> ServiceWatchConfig {
    ServiceWatchConfig { node: "node-of-nobody".to_owned(), proxy_name: proxy_name.map(str::to_owned) }
}

/// F1, F2, F3: headless Services and those of another proxy are not watched, and a label that comes or goes turns a
/// Service or slice off and on.
#[tokio::test]
async fn labels_turn_services_and_slices_off_and_on() {
    let server = need_server!();
    let client = server.client().await;
    let namespace = objects::namespace(&client, json!({})).await;
    service(&client, &namespace, "plain", json!({})).await;
    service(&client, &namespace, "headless", json!({"clusterIP": "None"})).await;
    service(&client, &namespace, "alias", json!({"type": "ExternalName", "externalName": "example.org"}))
        .await;
    slice(&client, &namespace, "plain-1", "plain").await;
    let connection = server.connection().await;
    let mut all = Told::new(ServiceWatch::start(&connection, &config(None)), &namespace);
    let mut ours = Told::new(ServiceWatch::start(&connection, &config(Some("ours"))), &namespace);
    all.until("the first list", |told| told.synced).await;
    ours.until("the first list", |told| told.synced).await;
    assert!(all.has(&["plain"], &["plain-1"]), "{:?} {:?}", all.services, all.slices);
    assert!(ours.has(&[], &["plain-1"]), "{:?}", ours.services);

    let name = portolan_kubernetes::SERVICE_PROXY_NAME_LABEL;
    label::<Service>(&client, &namespace, "plain", name, json!("ours")).await;
    all.until("it is another proxy's", |told| told.has(&[], &["plain-1"])).await;
    ours.until("it is ours", |told| told.has(&["plain"], &["plain-1"])).await;
    label::<Service>(&client, &namespace, "plain", name, json!("theirs")).await;
    ours.until("it is a third one's", |told| told.has(&[], &["plain-1"])).await;
    label::<Service>(&client, &namespace, "plain", name, Value::Null).await;
    all.until("it is kube-proxy's", |told| told.has(&["plain"], &["plain-1"])).await;

    label::<EndpointSlice>(&client, &namespace, "plain-1", "service.kubernetes.io/headless", json!("")).await;
    all.until("the slice is off", |told| told.has(&["plain"], &[])).await;
    label::<EndpointSlice>(&client, &namespace, "plain-1", "service.kubernetes.io/headless", Value::Null)
        .await;
    all.until("the slice is on", |told| told.has(&["plain"], &["plain-1"])).await;

    let patch = Patch::Merge(
        json!({"spec": {"type": "ExternalName", "externalName": "example.org", "clusterIP": null, "clusterIPs": null}}),
    );
    let api = Api::<Service>::namespaced(client.clone(), &namespace);
    api.patch("plain", &PatchParams::default(), &patch).await.unwrap();
    all.until("a name has no frontends", |told| told.has(&[], &["plain-1"])).await;
}

#[tokio::test]
async fn a_change_that_changes_nothing_for_a_proxy_is_not_told() {
    let server = need_server!();
    let client = server.client().await;
    let namespace = objects::namespace(&client, json!({})).await;
    service(&client, &namespace, "web", json!({})).await;
    slice(&client, &namespace, "web-1", "web").await;
    let mut told = Told::new(ServiceWatch::start(&server.connection().await, &config(None)), &namespace);
    told.until("the first list", |told| told.synced).await;
    told.events = 0;
    for number in 0..5 {
        label::<EndpointSlice>(&client, &namespace, "web-1", "somebody/else", json!(number.to_string()))
            .await;
    }
    slice(&client, &namespace, "web-2", "web").await;
    told.until("the second slice", |told| told.slices.contains("web-2")).await;
    assert_eq!(told.events, 1);
}

/// The API server that came back has nothing of the time before in its memory, so that the position of the old watch is
/// answered with 410. After the new list only what is other is told: nothing is lost, and nothing is told twice.
#[tokio::test]
async fn a_watch_that_has_expired_tells_the_differences_only() {
    let Some(server) = Server::start() else { return };
    let client = server.client().await;
    let namespace = objects::namespace(&client, json!({})).await;
    for name in ["stays", "changes", "goes"] {
        service(&client, &namespace, name, json!({})).await;
        slice(&client, &namespace, &format!("{name}-1"), name).await;
    }
    let gate = Gate::to(server.address()).await;
    let connection = server.connection_by(gate.address()).await;
    let mut told = Told::new(ServiceWatch::start(&connection, &config(None)), &namespace);
    told.until("the first list", |told| told.synced).await;
    assert!(told.has(&["changes", "goes", "stays"], &["changes-1", "goes-1", "stays-1"]));
    let (health, lists) = (told.watch.health_of(), told.watch.health().lists);
    told.events = 0;
    gate.close();
    until("the absence is noticed", async || health.health().away.is_some()).await;
    let services = Api::<Service>::namespaced(client.clone(), &namespace);
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), &namespace);
    services.delete("goes", &DeleteParams::default()).await.unwrap();
    slices.delete("goes-1", &DeleteParams::default()).await.unwrap();
    let patch = Patch::Merge(json!({"spec": {"internalTrafficPolicy": "Local"}}));
    services.patch("changes", &PatchParams::default(), &patch).await.unwrap();
    service(&client, &namespace, "comes", json!({})).await;
    server.stop_apiserver();
    server.start_apiserver();
    gate.open();
    let after = ["changes", "comes", "stays"];
    told.until("the state after it", |told| told.has(&after, &["changes-1", "stays-1"]) && told.events >= 4)
        .await;
    until("nothing fails any more", async || health.health().away.is_none()).await;
    assert!(health.health().lists > lists, "the old position has expired");
    // And it goes on from there.
    let client = server.client().await;
    slice(&client, &namespace, "comes-1", "comes").await;
    told.until("a later change", |told| told.slices.contains("comes-1")).await;
    assert_eq!(told.events, 5, "two went, one came, one changed, and the later one");
}
