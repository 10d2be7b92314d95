//! What became of each pool, in its status: people see by `kubectl get portpools` which pools are in use.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{LoosePool, PoolSet, set::DefinedPool};
use crate::{
    ApiError, Connection,
    backoff::Backoff,
    connection::CALL,
    facts::SlimNode,
    mirror::{Mirror, Wanted},
};

/// Changes are gathered for this long: labels of many nodes are often changed at once.
const GATHER: Duration = Duration::from_millis(200);

/// Keeps the status of all pools right until `stop`. One replica at a time should do so.
pub async fn run_pool_status(connection: &Connection, stop: CancellationToken) {
    let watching = CancellationToken::new();
    let _watches = watching.clone().drop_guard();
    let changed = Arc::new(Notify::new());
    let (pools_changed, nodes_changed) = (changed.clone(), changed.clone());
    let pools = Mirror::start(
        Wanted::<LoosePool>::new(connection, "PortPools").optional(),
        |pool| Some(DefinedPool::from(pool)),
        move |_| pools_changed.notify_one(),
        watching.clone(),
    );
    let nodes = Mirror::start(
        Wanted::<SlimNode>::new(connection, "Nodes"),
        |node| Some(crate::NodeFacts::from(node).labels),
        move |_| nodes_changed.notify_one(),
        watching.clone(),
    );
    stop.run_until_cancelled(async {
        tokio::join!(pools.synced(), nodes.synced());
        let mut backoff = Backoff::new();
        loop {
            let mut failed = false;
            let labels: BTreeMap<String, BTreeMap<String, String>> =
                nodes.sorted().into_iter().map(|(key, labels)| (key.name, (*labels).clone())).collect();
            let defined = pools.all();
            for pool in &defined {
                let verdict = Verdict::of(pool, &defined, &labels);
                if let Err(error) = write(connection, pool, &verdict).await {
                    tracing::debug!(pool = pool.name, %error, "the status of a pool waits");
                    failed = true;
                }
            }
            if failed {
                tokio::time::sleep(backoff.next()).await;
            } else {
                backoff.reset();
                changed.notified().await;
                tokio::time::sleep(GATHER).await;
            }
        }
    })
    .await;
}

/// What the condition `Accepted` should say.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    accepted: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn of(
        pool: &DefinedPool,
        all: &[Arc<DefinedPool>],
        nodes: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> Self {
        let facts = match &pool.facts {
            Ok(facts) => facts,
            Err(error) => return Self { accepted: false, reason: "Invalid", message: error.to_string() },
        };
        let mut used = false;
        for (node, labels) in nodes.iter().filter(|(_, labels)| facts.nodes.matches(labels)) {
            used = true;
            let set = PoolSet::of_node(all.iter().map(AsRef::as_ref), labels);
            if let Some(refused) = set.refused.into_iter().find(|refused| refused.name == pool.name) {
                let message = format!("on node {node}: {}", refused.message);
                return Self { accepted: false, reason: refused.reason, message };
            }
        }
        if used {
            Self { accepted: true, reason: "Accepted", message: "its nodes use it".to_owned() }
        } else {
            let message = "no node has the labels of spec.nodeSelector".to_owned();
            Self { accepted: true, reason: "NoNode", message }
        }
    }
}

async fn write(connection: &Connection, pool: &DefinedPool, verdict: &Verdict) -> Result<(), ApiError> {
    let ports = pool.facts.as_ref().ok().and_then(|facts| i32::try_from(facts.count()).ok());
    let status = if verdict.accepted { "True" } else { "False" };
    let present = pool.accepted();
    let same = present.is_some_and(|present| {
        present.status == status
            && present.reason == verdict.reason
            && present.message == verdict.message
            && present.observed_generation == Some(pool.generation)
    });
    if same && pool.status.ports == ports {
        return Ok(());
    }
    let since = present
        .filter(|present| present.status == status)
        .map(|present| present.last_transition_time.clone());
    let condition = Condition {
        type_: "Accepted".to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.to_owned(),
        message: verdict.message.clone(),
        observed_generation: Some(pool.generation),
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
    };
    let api = Api::<LoosePool>::all(connection.client());
    let patch = Patch::Merge(json!({"status": {"conditions": [condition], "ports": ports}}));
    let parameters = PatchParams::default();
    let call = api.patch_status(&pool.name, &parameters, &patch);
    match connection.limited(format!("patch the status of PortPool {}", pool.name), CALL, call).await {
        // It was deleted meanwhile.
        Err(error) if error.is_missing() => Ok(()),
        written => written.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pool(name: &str, created: &str, spec: Value) -> Arc<DefinedPool> {
        let object = json!({"metadata": {"name": name, "creationTimestamp": created}, "spec": spec});
        Arc::new(serde_json::from_value::<LoosePool>(object).unwrap().into())
    }

    #[test]
    fn a_pool_says_whether_it_is_used_and_if_not_why() {
        let nodes = BTreeMap::from([("node1".to_owned(), BTreeMap::new())]);
        let all = [
            pool("old", "2026-11-20T10:00:00Z", json!({"ranges": ["1000-2000"]})),
            pool("new", "2026-11-21T10:00:00Z", json!({"ranges": ["2000-3000"]})),
            pool("broken", "2026-11-21T10:00:00Z", json!({"ranges": []})),
            pool(
                "nowhere",
                "2026-11-21T10:00:00Z",
                json!({"ranges": ["1500"], "nodeSelector": {"matchLabels": {"gpu": "yes"}}}),
            ),
        ];
        let verdicts: Vec<_> = all.iter().map(|pool| Verdict::of(pool, &all, &nodes)).collect();
        let told: Vec<_> = verdicts.iter().map(|verdict| (verdict.accepted, verdict.reason)).collect();
        assert_eq!(told, [(true, "Accepted"), (false, "Conflict"), (false, "Invalid"), (true, "NoNode")]);
        assert!(
            verdicts[1].message.starts_with("on node node1: 2000-3000 overlaps"),
            "{}",
            verdicts[1].message
        );
    }
}
