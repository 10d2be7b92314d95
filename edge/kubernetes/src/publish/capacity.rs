//! How many ports a node has for each pool, as extended resources: the scheduler then puts no more Pods on it than it
//! has ports for.
//!
//! `status.capacity` and `status.allocatable` of the own Node are compared with what should be there whenever either
//! changes. kubelet sets extended resources to 0 when it registers its Node again, so once is not enough:
//! <https://kubernetes.io/docs/tasks/administer-cluster/extended-resource-node/>.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use portolan_model::Name;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    ApiError, Change, Connection, NodeFacts, NodeView, RESOURCE_PREFIX, backoff::Backoff, connection::CALL,
};

/// Keeps a Node's numbers of ports right. They stay when it is dropped: Pods of the node still have their ports.
pub struct Capacity {
    wanted: watch::Sender<Option<BTreeMap<Name, u32>>>,
    _task: DropGuard,
}

impl Capacity {
    /// Begins; nothing is written before the first [`Capacity::set`].
    pub fn start(connection: &Connection, view: &NodeView) -> Self {
        let (wanted, told) = watch::channel(None);
        let stop = CancellationToken::new();
        let work = keep(connection.clone(), view.clone(), told);
        let stopping = stop.clone();
        tokio::spawn(async move { stopping.run_until_cancelled(work).await });
        Self { wanted, _task: stop.drop_guard() }
    }

    /// All pools of the node with the number of ports that Pods may have together: the size of the pool without what
    /// others hold of it. Ports that Pods have already are part of the number. Pools that are not named are removed.
    pub fn set(&self, wanted: BTreeMap<Name, u32>) {
        self.wanted.send_if_modified(|old| {
            let changes = old.as_ref() != Some(&wanted);
            *old = Some(wanted);
            changes
        });
    }
}

async fn keep(
    connection: Connection,
    view: NodeView,
    mut wanted: watch::Receiver<Option<BTreeMap<Name, u32>>>,
) {
    let (mut changes, mut backoff, mut retry) = (view.changes(), Backoff::new(), None);
    loop {
        let wait = async {
            match retry {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => {}
            told = wanted.changed() => if told.is_err() { return },
            changes = changes.next() => match changes {
                None => return,
                Some(changes) if changes.contains(&Change::Node) || changes.contains(&Change::Everything) => {}
                Some(_) => continue,
            },
        }
        retry = None;
        let target = wanted.borrow_and_update().clone();
        let (Some(target), Some(node)) = (target, view.node()) else { continue };
        let Some(patch) = difference(&target, &node) else {
            backoff.reset();
            continue;
        };
        match write(&connection, &node.name, patch).await {
            Ok(()) => {
                tracing::info!(node = node.name, ports = ?target, "the scheduler knows the node's ports")
            }
            Err(error) => {
                tracing::debug!(node = node.name, %error, "the node's ports wait");
                retry = Some(backoff.next());
            }
        }
    }
}

async fn write(connection: &Connection, node: &str, patch: Value) -> Result<(), ApiError> {
    let api = Api::<Node>::all(connection.client());
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
    let call = api.patch_status(node, &parameters, &patch);
    connection.limited(format!("patch the status of Node {node}"), CALL, call).await.map(drop)
}

/// The patch that makes the Node right; `None` when it is.
fn difference(wanted: &BTreeMap<Name, u32>, node: &NodeFacts) -> Option<Value> {
    let of = |present: &BTreeMap<String, u32>| -> Map<String, Value> {
        let other = |name: &Name, number: u32| present.get(name.as_str()) != Some(&number);
        let set = wanted.iter().filter(|(name, number)| other(name, **number));
        let set = set.map(|(name, number)| (format!("{RESOURCE_PREFIX}{name}"), json!(number.to_string())));
        let gone = present.keys().filter(|name| !wanted.contains_key(name.as_str()));
        set.chain(gone.map(|name| (format!("{RESOURCE_PREFIX}{name}"), Value::Null))).collect()
    };
    let (capacity, allocatable) = (of(&node.capacity), of(&node.allocatable));
    (!capacity.is_empty() || !allocatable.is_empty())
        .then(|| json!({"status": {"capacity": capacity, "allocatable": allocatable}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written_and_what_is_gone_removed() {
        let numbers = |pairs: &[(&str, u32)]| -> BTreeMap<String, u32> {
            pairs.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
        };
        let wanted: BTreeMap<Name, u32> =
            [("a", 1), ("b", 2)].map(|(name, number)| (name.parse().unwrap(), number)).into();
        let node = NodeFacts {
            capacity: numbers(&[("a", 1), ("b", 3), ("old", 5)]),
            allocatable: numbers(&[("a", 1)]),
            ..NodeFacts::default()
        };
        assert_eq!(
            difference(&wanted, &node),
            Some(json!({"status": {
                "capacity": {"ports.portolan.dev/b": "2", "ports.portolan.dev/old": null},
                "allocatable": {"ports.portolan.dev/b": "2"}
            }}))
        );
        let right = numbers(&[("a", 1), ("b", 2)]);
        let node = NodeFacts { capacity: right.clone(), allocatable: right, ..NodeFacts::default() };
        assert_eq!(difference(&wanted, &node), None);
    }
}
