//! What becomes of a new Pod.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::core::PartialObjectMeta;
use portolan_model::Name;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::review::{Request, Verdict};
use crate::{
    Connection, Count, OPT_IN_LABEL, PodFacts, PoolFacts, PoolSet, RESOURCE_PREFIX, check_quota,
    facts::whole,
    mirror::{Mirror, ObjectKey, Wanted},
    namespace_usage, opted_in,
    pool::{DefinedPool, LoosePool},
};

/// How long counting a namespace's Pods may take. The API server waits for us, ten seconds unless configured otherwise.
const COUNTING: Duration = Duration::from_secs(3);

/// Adds what a Pod asks for to its resources. Clones share everything.
#[derive(Clone)]
pub struct Mutate {
    count: Count,
    policy: Option<Policy>,
    annotations: BTreeMap<String, String>,
}

/// What the cluster allows: its namespaces and pools. Without it the agents alone refuse.
#[derive(Clone)]
pub struct Policy(Arc<PolicyInner>);

struct PolicyInner {
    connection: Connection,
    namespaces: Mirror<BTreeMap<String, String>>,
    pools: Mirror<DefinedPool>,
    _watches: DropGuard,
}

impl Policy {
    /// Begins to watch namespaces and pools.
    pub fn start(connection: &Connection) -> Self {
        let stop = CancellationToken::new();
        let namespaces = Mirror::start(
            Wanted::<PartialObjectMeta<Namespace>>::new(connection, "Namespaces"),
            |namespace| Some(namespace.metadata.labels.unwrap_or_default()),
            |_| {},
            stop.clone(),
        );
        let pools = Mirror::start(
            Wanted::<LoosePool>::new(connection, "PortPools").optional(),
            |pool| Some(DefinedPool::from(pool)),
            |_| {},
            stop.clone(),
        );
        let connection = connection.clone();
        Self(Arc::new(PolicyInner { connection, namespaces, pools, _watches: stop.drop_guard() }))
    }

    /// Whether everything was seen once.
    pub fn is_synced(&self) -> bool {
        self.0.namespaces.state().synced && self.0.pools.state().synced
    }

    /// Refuses what no agent would ever give; warns of what it would not give today.
    async fn judge(&self, namespace: &str, asked: &BTreeMap<Name, u32>, count: &Count) -> Verdict {
        let mut verdict = Verdict::default();
        // A cache that is not complete refuses nobody: the agents decide in the end.
        if !self.is_synced() {
            return verdict;
        }
        let labels = self.0.namespaces.get(&ObjectKey::new("", namespace)).unwrap_or_default();
        if !opted_in(&labels) {
            verdict.warnings.push(format!(
                "this Pod asks for ports, and the namespace {namespace} does not allow it: it will not start before \
                 the namespace has the label {OPT_IN_LABEL}=allowed"
            ));
        }
        let defined = self.0.pools.all();
        if defined.is_empty() {
            return verdict;
        }
        let pools = usable(&defined);
        for pool in asked.keys() {
            let Some(facts) = pools.get(pool.as_str()) else {
                let known: Vec<_> = pools.pools.iter().map(|pool| pool.name.as_str()).collect();
                let message = format!("there is no pool {pool}: this cluster has {}", known.join(", "));
                return Verdict::deny(422, message);
            };
            if !facts.admits(&labels) {
                let message = format!(
                    "the pool {pool} is not for the namespace {namespace}: ask for another by pool=NAME"
                );
                return Verdict::deny(403, message);
            }
        }
        let bounded =
            |pool: &Name| pools.get(pool.as_str()).is_some_and(|pool| pool.quota_per_namespace.is_some());
        if !asked.keys().any(bounded) {
            return verdict;
        }
        match namespace_usage(&self.0.connection, namespace, None, (count, &pools), COUNTING).await {
            Ok(used) => match check_quota(&pools, namespace, &used, asked) {
                Ok(()) => verdict,
                Err(message) => Verdict::deny(403, message),
            },
            Err(error) => {
                tracing::warn!(namespace, %error, "the quota is left to the agents");
                verdict
            }
        }
    }
}

/// All pools of the cluster that can be understood, whichever nodes have them, in the order of their names.
fn usable(defined: &[Arc<DefinedPool>]) -> PoolSet {
    let mut pools: Vec<PoolFacts> = defined.iter().filter_map(|pool| pool.facts.clone().ok()).collect();
    pools.sort_by(|one, other| one.name.cmp(&other.name));
    PoolSet { defined: true, pools, refused: Vec::new() }
}

impl Mutate {
    /// By `count`, which says what a Pod asks for.
    pub fn new(count: Count) -> Self {
        Self { count, policy: None, annotations: BTreeMap::new() }
    }

    /// Refuses Pods that ask for what the cluster does not allow them.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Adds these annotations to Pods that ask, unless they have them, with whatever value.
    #[must_use]
    pub fn with_annotations(mut self, annotations: BTreeMap<String, String>) -> Self {
        self.annotations = annotations;
        self
    }

    /// Decides about one question. A Pod that does not ask for ports is never touched, whatever is in it. There are no
    /// side effects, so a dry run is like any other.
    pub(super) async fn review(&self, request: &Request) -> Verdict {
        if !request.is_new_pod() {
            return Verdict::default();
        }
        let Ok(pod) = Pod::deserialize_loosely(&request.object) else {
            // The API server has read it before us, so it is newer than we are.
            tracing::warn!(namespace = request.namespace, "a Pod could not be read and is let through");
            return Verdict::default();
        };
        let mut facts = PodFacts::from(pod);
        // At this point the API server has not filled it in yet.
        facts.namespace.clone_from(&request.namespace);
        let asked = match (self.count)(&facts) {
            Ok(asked) if asked.is_empty() => return Verdict::default(),
            Ok(asked) => asked,
            Err(message) => return Verdict::deny(422, message),
        };
        let mut verdict = match &self.policy {
            Some(policy) => policy.judge(&request.namespace, &asked, &self.count).await,
            None => Verdict::default(),
        };
        if verdict.denied.is_none() {
            verdict.patch = annotate(&request.object, &self.annotations);
            verdict.patch.extend(patch(&request.object, &asked));
        }
        verdict
    }
}

/// The operations that add what is missing of `annotations`.
fn annotate(pod: &Value, annotations: &BTreeMap<String, String>) -> Vec<Value> {
    let add = |path: String, value: Value| json!({"op": "add", "path": path, "value": value});
    let Some(present) = pod["metadata"]["annotations"].as_object() else {
        // Who asks without an annotation has none yet.
        return match annotations.is_empty() {
            true => Vec::new(),
            false => vec![add("/metadata/annotations".to_owned(), json!(annotations))],
        };
    };
    let missing = annotations.iter().filter(|(key, _)| !present.contains_key(*key));
    missing.map(|(key, value)| add(format!("/metadata/annotations/{}", token(key)), json!(value))).collect()
}

/// A key as part of a JSON pointer (RFC 6901 section 3).
fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

trait Loosely: Sized {
    fn deserialize_loosely(object: &Value) -> Result<Self, serde_json::Error>;
}

impl Loosely for Pod {
    /// The few fields that are looked at: any other may be of a shape that we do not know.
    fn deserialize_loosely(object: &Value) -> Result<Self, serde_json::Error> {
        let containers = |field: &str| -> Value {
            let containers = object["spec"][field].as_array().into_iter().flatten();
            let kept = containers.map(|one| {
                json!({"name": one["name"], "ports": one["ports"], "restartPolicy": one["restartPolicy"]})
            });
            Value::Array(kept.collect())
        };
        let metadata = &object["metadata"];
        serde_json::from_value(json!({
            "metadata": {
                "name": metadata["name"], "annotations": metadata["annotations"], "labels": metadata["labels"],
                "ownerReferences": metadata["ownerReferences"]
            },
            "spec": {
                "hostNetwork": object["spec"]["hostNetwork"], "nodeName": object["spec"]["nodeName"],
                "initContainers": containers("initContainers"), "containers": containers("containers")
            }
        }))
    }
}

/// The operations that bring the Pod's resources up to what it asks for. Nothing when they are: the API server calls
/// again after other webhooks, and people may have written them themselves.
fn patch(pod: &Value, asked: &BTreeMap<Name, u32>) -> Vec<Value> {
    let empty = Vec::new();
    let containers = pod["spec"]["containers"].as_array().unwrap_or(&empty);
    let Some(first) = containers.first() else { return Vec::new() };
    let mut missing = BTreeMap::new();
    for (pool, asked) in asked {
        let resource = format!("{RESOURCE_PREFIX}{pool}");
        let of = |container: &Value| -> u32 {
            // For extended resources both must be equal; the API server fills in requests from limits.
            let [requests, limits] =
                ["requests", "limits"].map(|kind| number(&container["resources"][kind][&resource]));
            requests.max(limits)
        };
        let has = containers.iter().map(of).fold(0u32, u32::saturating_add);
        if has < *asked {
            let wanted = of(first).saturating_add(asked - has);
            missing.insert(resource, wanted);
        }
    }
    if missing.is_empty() {
        return Vec::new();
    }
    let mut operations = Vec::new();
    let mut add =
        |path: String, value: Value| operations.push(json!({"op": "add", "path": path, "value": value}));
    let base = "/spec/containers/0/resources";
    let quantities = |missing: &BTreeMap<String, u32>| -> Value {
        missing.iter().map(|(resource, number)| (resource.clone(), json!(number.to_string()))).collect()
    };
    if !first["resources"].is_object() {
        add(base.to_owned(), json!({"requests": quantities(&missing), "limits": quantities(&missing)}));
        return operations;
    }
    for kind in ["requests", "limits"] {
        if first["resources"][kind].is_object() {
            for (resource, number) in &missing {
                add(format!("{base}/{kind}/{}", token(resource)), json!(number.to_string()));
            }
        } else {
            add(format!("{base}/{kind}"), quantities(&missing));
        }
    }
    operations
}

/// A quantity, which people may also write as a number.
fn number(quantity: &Value) -> u32 {
    match quantity {
        Value::String(text) => whole(text).unwrap_or_default(),
        Value::Number(number) => {
            number.as_u64().and_then(|number| number.try_into().ok()).unwrap_or_default()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
