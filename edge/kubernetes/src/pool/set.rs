//! The pools of one node: those that select it, can be understood, and do not take each other's ports.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{
    PoolError, PoolFacts,
    resource::{PortPool, PortPoolSpec, PortPoolStatus},
};

/// The pools of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSet {
    /// Whether the cluster has any `PortPool`, be it of other nodes: if not, the agent's own flags give the pools.
    pub defined: bool,
    /// Those that hold on this node, oldest first. No port is in two of them.
    pub pools: Vec<PoolFacts>,
    /// Those that would, if they were right.
    pub refused: Vec<RefusedPool>,
}

/// A pool that a node does not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPool {
    /// Its name.
    pub name: String,
    /// `Invalid` or `Conflict`.
    pub reason: &'static str,
    /// What is wrong.
    pub message: String,
}

/// A `PortPool` whose spec may be anything: one that cannot be understood must not keep the others from being seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LoosePool {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: serde_json::Value,
    #[serde(default)]
    status: serde_json::Value,
}

impl Resource for LoosePool {
    type DynamicType = ();
    type Scope = k8s_openapi::ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        PortPool::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        PortPool::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        PortPool::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        PortPool::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A `PortPool` that was read, or not.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DefinedPool {
    pub(crate) name: String,
    pub(crate) created: i64,
    pub(crate) generation: i64,
    pub(crate) facts: Result<PoolFacts, PoolError>,
    /// What its status says already.
    pub(crate) status: PortPoolStatus,
}

impl DefinedPool {
    pub(crate) fn accepted(&self) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.type_ == "Accepted")
    }
}

impl From<LoosePool> for DefinedPool {
    fn from(pool: LoosePool) -> Self {
        let name = pool.metadata.name.unwrap_or_default();
        let created = pool.metadata.creation_timestamp.map_or(0, |time| time.0.as_second());
        let uid = pool.metadata.uid.unwrap_or_default();
        let facts = serde_json::from_value::<PortPoolSpec>(pool.spec)
            .map_err(|error| PoolError::Shape(error.to_string()))
            .and_then(|spec| PoolFacts::read(&name, &uid, created, &spec));
        let status = serde_json::from_value(pool.status).unwrap_or_default();
        Self { name, created, generation: pool.metadata.generation.unwrap_or_default(), facts, status }
    }
}

impl PoolSet {
    /// The pools of a node with these labels. The order of `defined` does not matter: an older pool goes before a newer
    /// one, and of the same second the first by name, so that every agent decides alike.
    pub(crate) fn of_node<'a>(
        defined: impl IntoIterator<Item = &'a DefinedPool>,
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let mut defined: Vec<_> = defined.into_iter().collect();
        defined.sort_by_key(|pool| (pool.created, &pool.name));
        let mut set = Self { defined: !defined.is_empty(), ..Self::default() };
        for pool in defined {
            let refuse = |reason, message| RefusedPool { name: pool.name.clone(), reason, message };
            match &pool.facts {
                Err(error) => set.refused.push(refuse("Invalid", error.to_string())),
                Ok(facts) if !facts.nodes.matches(labels) => {}
                Ok(facts) => {
                    let taken = |older: &PoolFacts| Some((older.name.clone(), older.overlap(facts)?));
                    match set.pools.iter().find_map(taken) {
                        None => set.pools.push(facts.clone()),
                        Some((older, (theirs, ours))) => {
                            let message = format!(
                                "{ours} overlaps {theirs} of the older pool {older} on the same node: give each port to one pool"
                            );
                            set.refused.push(refuse("Conflict", message));
                        }
                    }
                }
            }
        }
        set
    }

    /// The pool of that name.
    pub fn get(&self, name: &str) -> Option<&PoolFacts> {
        self.pools.iter().find(|pool| pool.name.as_str() == name)
    }
}
