//! What a node's agent sees of the cluster: its Pods, the namespaces, the pools, its Node, and the networks.
//!
//! Everything answers from memory, also while the API server is away. Only [`NodeView::wait_for_pod`] and
//! [`NodeView::wait_for_namespace`] ask when memory has no answer, and say whether there is none or nobody to ask.

mod ask;
mod health;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Namespace, core::v1::Pod, networking::v1::ServiceCIDR};
use kube::{Api, core::PartialObjectMeta};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::ask::{Answer, Question};
pub use self::health::{NotSynced, PodError, ViewHealth};
use crate::{
    ApiError, Change, Changes, Connection, NodeFacts, PodFacts, PoolSet, StaticHostPort,
    changes::Announcer,
    facts::SlimNode,
    mirror::{Mirror, MirrorState, ObjectKey, Wanted},
    pool::{DefinedPool, LoosePool},
};

/// The view of one node. Clones share it; the watches end with the last of them.
#[derive(Clone)]
pub struct NodeView(Arc<Inner>);

struct Inner {
    connection: Connection,
    node: String,
    announcer: Announcer,
    pods: Mirror<PodFacts>,
    namespaces: Mirror<BTreeMap<String, String>>,
    nodes: Mirror<NodeFacts>,
    pools: Mirror<DefinedPool>,
    service_networks: Mirror<Vec<IpNet>>,
    _watches: DropGuard,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.announcer.close();
    }
}

impl NodeView {
    /// Begins to watch. Returns at once; [`NodeView::synced`] waits.
    pub fn start(connection: &Connection, node: &str) -> Self {
        let (stop, announcer) = (CancellationToken::new(), Announcer::default());
        let announce = |change: fn(&ObjectKey) -> Change| {
            let announcer = announcer.clone();
            move |key: &ObjectKey| announcer.announce(&change(key))
        };
        let pods = Wanted::<Pod>::new(connection, "Pods").fields(&format!("spec.nodeName={node}"));
        let pods = Mirror::start(
            pods,
            |pod| Some(PodFacts::from(pod)),
            announce(|key| Change::Pod { namespace: key.namespace.clone(), name: key.name.clone() }),
            stop.clone(),
        );
        let namespaces = Mirror::start(
            Wanted::<PartialObjectMeta<Namespace>>::new(connection, "Namespaces"),
            |namespace| Some(namespace.metadata.labels.unwrap_or_default()),
            announce(|key| Change::Namespace(key.name.clone())),
            stop.clone(),
        );
        let (own, announcing) = (node.to_owned(), announcer.clone());
        let nodes = Mirror::start(
            Wanted::<SlimNode>::new(connection, "Nodes"),
            {
                let own = own.clone();
                move |node| Some(facts_of_node(node, &own))
            },
            move |key| {
                announcing.announce(&Change::Networks);
                if key.name == own {
                    announcing.announce(&Change::Node);
                    // Its labels decide about the pools.
                    announcing.announce(&Change::Pools);
                }
            },
            stop.clone(),
        );
        let pools = Mirror::start(
            Wanted::<LoosePool>::new(connection, "PortPools").optional(),
            |pool| Some(DefinedPool::from(pool)),
            announce(|_| Change::Pools),
            stop.clone(),
        );
        let service_networks = Mirror::start(
            Wanted::<ServiceCIDR>::new(connection, "ServiceCIDRs").optional(),
            networks_of_services,
            announce(|_| Change::Networks),
            stop.clone(),
        );
        Self(Arc::new(Inner {
            connection: connection.clone(),
            node: node.to_owned(),
            announcer,
            pods,
            namespaces,
            nodes,
            pools,
            service_networks,
            _watches: stop.drop_guard(),
        }))
    }

    /// The node's name.
    pub fn node_name(&self) -> &str {
        &self.0.node
    }

    /// Waits until everything was seen once.
    pub async fn synced(&self, limit: Duration) -> Result<(), NotSynced> {
        let inner = &self.0;
        let all = async {
            tokio::join!(
                inner.pods.synced(),
                inner.namespaces.synced(),
                inner.nodes.synced(),
                inner.pools.synced(),
                inner.service_networks.synced()
            );
        };
        if tokio::time::timeout(limit, all).await.is_ok() {
            return Ok(());
        }
        let states = self.states();
        let missing = states.iter().filter(|(_, state)| !state.synced);
        let error = missing.clone().find_map(|(_, state)| state.error.as_ref());
        let missing: Vec<_> = missing.map(|(what, _)| *what).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let because = error.map(|error| format!(": {error}")).unwrap_or_default();
        Err(NotSynced { after: limit, missing: missing.join(", "), because })
    }

    /// How the watches are doing.
    pub fn health(&self) -> ViewHealth {
        let states = self.states();
        ViewHealth::of(states.iter().map(|(_, state)| state), self.0.connection.answered())
    }

    /// A Pod of the node, from memory; with a UID only that one.
    pub fn pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<PodFacts>> {
        let pod = self.0.pods.get(&ObjectKey::new(namespace, name))?;
        uid.is_none_or(|uid| pod.uid == uid).then_some(pod)
    }

    /// A Pod from memory, or else from the API server, asked again until `limit` while it is away.
    pub async fn wait_for_pod(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        limit: Duration,
    ) -> Result<Arc<PodFacts>, PodError> {
        let api = Api::<Pod>::namespaced(self.0.connection.client(), namespace);
        let what = format!("get Pod {namespace}/{name}");
        let known = || self.pod(namespace, name, uid);
        let question = || {
            let (api, name) = (api.clone(), name.to_owned());
            Box::pin(async move { api.get(&name).await }) as Question<_>
        };
        let pod = self.ask(limit, known, &what, question).await.map_err(|error| {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            if error.is_missing() { PodError::Missing { namespace, name } } else { error.into() }
        })?;
        let pod = match pod {
            Answer::Known(pod) => return Ok(pod),
            Answer::Asked(pod) => PodFacts::from(pod),
        };
        if uid.is_some_and(|uid| pod.uid != uid) {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            return Err(PodError::Replaced { namespace, name, uid: pod.uid });
        }
        Ok(Arc::new(pod))
    }

    /// All Pods of the node.
    pub fn pods(&self) -> Vec<Arc<PodFacts>> {
        self.0.pods.all()
    }

    /// A namespace's labels, from memory.
    pub fn namespace_labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.0.namespaces.get(&ObjectKey::new("", namespace)).map(|labels| (*labels).clone())
    }

    /// A namespace's labels from memory, or else from the API server.
    pub async fn wait_for_namespace(
        &self,
        namespace: &str,
        limit: Duration,
    ) -> Result<BTreeMap<String, String>, ApiError> {
        let api = Api::<Namespace>::all(self.0.connection.client());
        let what = format!("get Namespace {namespace}");
        let known = || self.namespace_labels(namespace);
        let question = || {
            let (api, namespace) = (api.clone(), namespace.to_owned());
            Box::pin(async move { api.get_metadata(&namespace).await })
                as Question<PartialObjectMeta<Namespace>>
        };
        match self.ask(limit, known, &what, question).await? {
            Answer::Known(labels) => Ok(labels),
            Answer::Asked(object) => Ok(object.metadata.labels.unwrap_or_default()),
        }
    }

    /// The pools that hold on this node.
    pub fn pools(&self) -> PoolSet {
        let labels = self.node().map(|node| node.labels.clone()).unwrap_or_default();
        PoolSet::of_node(self.0.pools.all().iter().map(AsRef::as_ref), &labels)
    }

    /// The own Node.
    pub fn node(&self) -> Option<Arc<NodeFacts>> {
        self.0.nodes.get(&ObjectKey::new("", &self.0.node))
    }

    /// The networks of all nodes' Pods, as far as Nodes have them: with some CNIs none has.
    pub fn pod_networks(&self) -> Vec<IpNet> {
        let networks: BTreeSet<_> =
            self.0.nodes.all().iter().flat_map(|node| node.pod_networks.clone()).collect();
        networks.into_iter().collect()
    }

    /// The networks of Service addresses.
    pub fn service_networks(&self) -> Vec<IpNet> {
        let networks: BTreeSet<_> =
            self.0.service_networks.all().iter().flat_map(|networks| networks.to_vec()).collect();
        networks.into_iter().collect()
    }

    /// The host ports that live Pods of the node have by their spec, in order.
    pub fn static_host_ports(&self) -> Vec<StaticHostPort> {
        let mut ports: Vec<_> =
            self.pods().iter().flat_map(|pod| pod.static_host_ports().collect::<Vec<_>>()).collect();
        ports.sort();
        ports
    }

    /// What changes from now on, beginning with [`Change::Everything`].
    pub fn changes(&self) -> Changes {
        self.0.announcer.subscribe()
    }

    fn states(&self) -> [(&'static str, MirrorState); 5] {
        let inner = &self.0;
        [
            (inner.pods.what(), inner.pods.state()),
            (inner.namespaces.what(), inner.namespaces.state()),
            (inner.nodes.what(), inner.nodes.state()),
            (inner.pools.what(), inner.pools.state()),
            (inner.service_networks.what(), inner.service_networks.state()),
        ]
    }
}

/// Of other nodes only the networks matter.
fn facts_of_node(node: SlimNode, own: &str) -> NodeFacts {
    let facts = NodeFacts::from(node);
    if facts.name == own {
        return facts;
    }
    NodeFacts { name: facts.name, pod_networks: facts.pod_networks, ..NodeFacts::default() }
}

fn networks_of_services(object: ServiceCIDR) -> Option<Vec<IpNet>> {
    let cidrs = object.spec?.cidrs?;
    Some(cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect())
}
