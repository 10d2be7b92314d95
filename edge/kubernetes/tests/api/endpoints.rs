//! Names for published ports.

use std::time::Duration;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice, events::v1::Event};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use portolan_kubernetes::{Connection, PodKey, remove_endpoints, run_endpoints};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{need_server, objects, server::Server, until};

struct Controller {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Controller {
    fn start(connection: &Connection) -> Self {
        let (stop, connection) = (CancellationToken::new(), connection.clone());
        let stopping = stop.clone();
        let task = tokio::spawn(async move { run_endpoints(&connection, stopping).await });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn service(annotations: Value) -> Value {
    json!({"metadata": {"name": "web", "annotations": annotations},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
}

/// A Pod with ports, ready.
async fn instance(client: &Client, namespace: &str, name: &str, node: &str, host: &str) -> PodKey {
    let status = json!({"node": node, "addresses": ["203.0.113.7", "2001:db8::7"], "ports": [
        {"name": "http", "protocols": ["tcp"], "host": host, "container": 8080},
        {"name": "game", "protocols": ["tcp", "udp"], "host": "29417", "container": 29417}
    ]});
    let pod =
        objects::pod(client, namespace, name, node, json!({"portolan.dev/ports-status": status.to_string()}))
            .await;
    ready(client, &pod, true).await;
    pod
}

async fn ready(client: &Client, pod: &PodKey, ready: bool) {
    let status = if ready { "True" } else { "False" };
    objects::patch_status(
        client,
        pod,
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}),
    )
    .await;
}

/// Each slice as `SERVICE HOSTNAME ADDRESS PROTOCOL READY name=port,…`.
async fn told(client: &Client, namespace: &str) -> Vec<String> {
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace)
        .list(&ListParams::default())
        .await
        .unwrap();
    let mut told: Vec<_> = slices
        .items
        .into_iter()
        .map(|slice| {
            let (endpoint, ports) = (&slice.endpoints[0], slice.ports.unwrap_or_default());
            let names: Vec<_> = ports
                .iter()
                .map(|port| format!("{}={}", port.name.as_ref().unwrap(), port.port.unwrap()))
                .collect();
            format!(
                "{} {} {} {} {} {}",
                slice.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"],
                endpoint.hostname.as_deref().unwrap_or("-"),
                endpoint.addresses[0],
                ports[0].protocol.as_deref().unwrap(),
                if endpoint.conditions.as_ref().unwrap().ready.unwrap() { "ready" } else { "unready" },
                names.join(",")
            )
        })
        .collect();
    told.sort();
    told
}

fn of(name: &str, readiness: &str, host: &str) -> Vec<String> {
    let line = |address: &str, protocol: &str, ports: &str| {
        format!("web-ports {name} {address} {protocol} {readiness} {ports}")
    };
    ["2001:db8::7", "203.0.113.7"]
        .into_iter()
        .flat_map(|address| {
            [line(address, "TCP", &format!("game=29417,http={host}")), line(address, "UDP", "game=29417")]
        })
        .collect()
}

async fn settles(client: &Client, namespace: &str, expected: &[Vec<String>]) {
    let mut expected: Vec<_> = expected.concat();
    expected.sort();
    let what = format!("EndpointSlices are {expected:#?}");
    let settled = tokio::time::timeout(Duration::from_secs(30), async {
        while told(client, namespace).await != expected {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    if settled.await.is_err() {
        panic!("{what}, but they are {:#?}", told(client, namespace).await);
    }
}

#[tokio::test]
async fn each_instance_of_a_service_that_asks_has_its_ports_in_slices_of_a_twin() {
    let server = need_server!();
    let client = server.client().await;
    let namespace = objects::namespace(&client, json!({})).await;
    let services = Api::<Service>::namespaced(client.clone(), &namespace);
    let controller = Controller::start(&server.connection().await);
    let node = objects::node(&client, json!({})).await;
    let zero = instance(&client, &namespace, "web-0", &node, "20417").await;
    objects::create::<Service>(&client, &namespace, service(json!({"portolan.dev/publish": "true"})))
        .await
        .unwrap();
    settles(&client, &namespace, &[of("web-0", "ready", "20417")]).await;
    let twin = services.get("web-ports").await.unwrap();
    let (owner, spec) = (&twin.metadata.owner_references.as_ref().unwrap()[0], twin.spec.unwrap());
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Service", "web"));
    assert_eq!((spec.cluster_ip.as_deref(), spec.selector), (Some("None"), None));

    let one = instance(&client, &namespace, "web-1", &node, "20418").await;
    ready(&client, &zero, false).await;
    settles(&client, &namespace, &[of("web-0", "unready", "20417"), of("web-1", "ready", "20418")]).await;
    objects::delete_pod(&client, &one).await;
    settles(&client, &namespace, &[of("web-0", "unready", "20417")]).await;
    // A twin that somebody deleted or bent is put right.
    services.delete("web-ports", &DeleteParams::default()).await.unwrap();
    until("the twin is there again", async || services.get("web-ports").await.is_ok()).await;
    let bend = Patch::Merge(json!({"spec": {"publishNotReadyAddresses": true}}));
    services.patch("web-ports", &PatchParams::default(), &bend).await.unwrap();
    until("the twin is as it was", async || {
        services.get("web-ports").await.unwrap().spec.unwrap().publish_not_ready_addresses != Some(true)
    })
    .await;
    settles(&client, &namespace, &[of("web-0", "unready", "20417")]).await;
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"portolan.dev/publish": null}}}));
    services.patch("web", &PatchParams::default(), &patch).await.unwrap();
    settles(&client, &namespace, &[]).await;
    until("the twin is gone", async || services.get_opt("web-ports").await.unwrap().is_none()).await;
    assert!(services.get("web").await.is_ok());
    controller.stop().await;
}

#[tokio::test]
async fn slices_converge_after_any_restart_of_the_controller() {
    let server = need_server!();
    let client = server.client().await;
    let namespace = objects::namespace(&client, json!({})).await;
    let services = Api::<Service>::namespaced(client.clone(), &namespace);
    let node = objects::node(&client, json!({})).await;
    let connection = server.connection().await;
    objects::create::<Service>(&client, &namespace, service(json!({"portolan.dev/publish": "true"})))
        .await
        .unwrap();
    let mut pods = Vec::new();
    for number in 0..6 {
        pods.push(
            instance(&client, &namespace, &format!("web-{number}"), &node, &(20417 + number).to_string())
                .await,
        );
    }
    let all: Vec<_> =
        (0..6).map(|number| of(&format!("web-{number}"), "ready", &(20417 + number).to_string())).collect();
    // Stopped in the middle of its work, at another point each time, it goes on where it was.
    for milliseconds in [0, 20, 60, 120, 250, 500] {
        let controller = Controller::start(&connection);
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        controller.task.abort();
        controller.stop.cancel();
    }
    let controller = Controller::start(&connection);
    settles(&client, &namespace, &all).await;
    controller.stop().await;
    // What happens while nobody looks is found afterwards.
    objects::delete_pod(&client, &pods[0]).await;
    let moved = instance(&client, &namespace, "web-9", &node, "30000").await;
    ready(&client, &pods[1], false).await;
    services.delete("web-ports", &DeleteParams::default()).await.unwrap();
    let controller = Controller::start(&connection);
    let mut expected = all[1..].to_vec();
    expected[0] = of("web-1", "unready", "20418");
    expected.push(of(&moved.name, "ready", "30000"));
    settles(&client, &namespace, &expected).await;
    controller.stop().await;
    services.delete("web", &DeleteParams::default()).await.unwrap();
    let controller = Controller::start(&connection);
    settles(&client, &namespace, &[]).await;
    until("the twin is gone", async || services.get_opt("web-ports").await.unwrap().is_none()).await;
    controller.stop().await;
}

#[tokio::test]
async fn a_service_of_the_twins_name_that_is_not_ours_is_left_alone() {
    let server = need_server!();
    let client = server.client().await;
    let namespace = objects::namespace(&client, json!({})).await;
    let foreign = json!({"metadata": {"name": "web-ports"}, "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 1}]}});
    objects::create::<Service>(&client, &namespace, foreign).await.unwrap();
    objects::create::<Service>(&client, &namespace, service(json!({"portolan.dev/publish": "true"})))
        .await
        .unwrap();
    let controller = Controller::start(&server.connection().await);
    let events = Api::<Event>::namespaced(client.clone(), &namespace);
    until("somebody is told", async || {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        events.iter().any(|event| event.note.as_deref().unwrap_or_default().contains("and it is not ours"))
    })
    .await;
    let foreign = Api::<Service>::namespaced(client.clone(), &namespace).get("web-ports").await.unwrap();
    assert_eq!(foreign.spec.unwrap().selector.unwrap()["app"], "theirs");
    assert!(told(&client, &namespace).await.is_empty());
    controller.stop().await;
}

#[tokio::test]
async fn an_uninstallation_leaves_no_twin_and_no_slice() {
    // Of its own: it removes those of all namespaces.
    let Some(server) = Server::start() else { return };
    let client = server.client().await;
    let namespace = objects::namespace(&client, json!({})).await;
    let node = objects::node(&client, json!({})).await;
    let connection = server.connection().await;
    objects::create::<Service>(&client, &namespace, service(json!({"portolan.dev/publish": "true"})))
        .await
        .unwrap();
    instance(&client, &namespace, "web-0", &node, "20417").await;
    let controller = Controller::start(&connection);
    settles(&client, &namespace, &[of("web-0", "ready", "20417")]).await;
    controller.stop().await;
    assert_eq!(remove_endpoints(&connection).await.unwrap(), 5);
    settles(&client, &namespace, &[]).await;
    let services = Api::<Service>::namespaced(client, &namespace).list(&ListParams::default()).await.unwrap();
    assert_eq!(services.items.len(), 1);
}
