//! One of several replicas.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::PostParams};
use portolan_kubernetes::{Leader, LeaderConfig};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, gate::Gate, need_server, objects, until};

fn config(namespace: &str, identity: &str) -> LeaderConfig {
    LeaderConfig {
        duration: Duration::from_secs(3),
        renew: Duration::from_secs(2),
        period: Duration::from_millis(200),
        ..LeaderConfig::new(namespace, "portolan-controller", identity)
    }
}

#[tokio::test]
async fn one_replica_leads_and_another_takes_over_when_it_is_cut_off_or_stops() {
    let server = need_server!();
    let client = server.client().await;
    let namespace = objects::namespace(&client, json!({})).await;
    // As an installation leaves it: there, and empty.
    let lease: Lease = serde_json::from_value(json!({"metadata": {"name": "portolan-controller"}})).unwrap();
    let leases = Api::<Lease>::namespaced(client, &namespace);
    leases.create(&PostParams::default(), &lease).await.unwrap();
    let gate = Gate::to(server.address()).await;
    let stop: [CancellationToken; 2] = Default::default();
    let mut one = Leader::start(
        &server.connection_by(gate.address()).await,
        config(&namespace, "one"),
        stop[0].clone(),
    );
    tokio::time::timeout(PATIENCE, one.lead()).await.unwrap();
    let mut two = Leader::start(&server.connection().await, config(&namespace, "two"), stop[1].clone());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(one.is_leader() && !two.is_leader(), "a lease that is renewed stays where it is");

    gate.close();
    // Whichever comes first must be that the old one stops.
    tokio::select! {
        biased;
        () = one.lost() => {}
        () = two.lead() => panic!("two leaders at once"),
    }
    tokio::time::timeout(PATIENCE, two.lead()).await.unwrap();
    gate.open();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(two.is_leader() && !one.is_leader(), "who comes back does not take it away again");

    stop[1].cancel();
    two.ended().await;
    let start = std::time::Instant::now();
    tokio::time::timeout(PATIENCE, one.lead()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "a lease that was given back need not expire");
    let spec = leases.get("portolan-controller").await.unwrap().spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("one"));
    stop[0].cancel();
    one.ended().await;
    until("the lease is free", async || {
        let spec = leases.get("portolan-controller").await.unwrap().spec.unwrap();
        spec.holder_identity.unwrap_or_default().is_empty()
    })
    .await;
}
