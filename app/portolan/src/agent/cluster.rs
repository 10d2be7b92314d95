//! What the agent knows of the cluster, and whom it tells: the API server, or nobody.

use std::{collections::BTreeMap, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use ipnet::IpNet;
use portolan_kubernetes::{
    About, ApiError, Capacity, Changes, Connection, Count, EventKind, NodeView, PodError, PodFacts, PodKey,
    PoolSet, Publisher, StaticHostPort, namespace_usage, opted_in,
};
use portolan_model::{Name, PodRef};

use super::asks;

/// How long the API server is waited for when it must be asked: containerd gives a CNI plugin no limit of its own, and
/// kubelet comes again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question to the API server. Boxed, as the compiler cannot see that those of kube may go from thread to thread
/// (rust-lang/rust#102211).
pub(crate) type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, Unknown>> + Send + 'a>>;

/// Where Pods are known from.
pub(crate) enum Cluster {
    /// From the API server.
    Kubernetes(Box<Kubernetes>),
    /// From nowhere: what the runtime says is all there is.
    Standalone,
}

/// The API server, from all sides.
pub(crate) struct Kubernetes {
    /// For rare questions.
    pub(crate) connection: Connection,
    /// What is watched.
    pub(crate) view: NodeView,
    /// Annotations and Events.
    pub(crate) publisher: Publisher,
    /// The Node's resources.
    pub(crate) capacity: Capacity,
}

/// Why nothing is known of a Pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unknown {
    /// The API server does not have it, or has another of that name.
    #[error(transparent)]
    Pod(#[from] PodError),
    /// The API server cannot be asked.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl Cluster {
    /// The API server, if there is one.
    pub(crate) const fn kubernetes(&self) -> Option<&Kubernetes> {
        match self {
            Self::Kubernetes(kubernetes) => Some(kubernetes),
            Self::Standalone => None,
        }
    }

    /// Whether what is known is all there is to know.
    pub(crate) fn is_known(&self) -> bool {
        self.kubernetes().is_none_or(|kubernetes| kubernetes.view.health().synced)
    }

    /// The pools of the cluster; `None` without a cluster.
    pub(crate) fn pools(&self) -> Option<PoolSet> {
        self.kubernetes().map(|kubernetes| kubernetes.view.pools())
    }

    /// The Pod, as the API server has it now or very soon. `None` without a cluster.
    pub(crate) fn pod<'a>(&'a self, pod: &'a PodRef) -> Asked<'a, Option<Arc<PodFacts>>> {
        Box::pin(async move {
            let Some(kubernetes) = self.kubernetes() else { return Ok(None) };
            let uid = pod.uid.as_deref();
            Ok(Some(kubernetes.view.wait_for_pod(&pod.namespace, &pod.name, uid, PATIENCE).await?))
        })
    }

    /// Whether a namespace may have ports at all, and its labels. Without a cluster there is nobody to forbid anything.
    pub(crate) fn namespace<'a>(&'a self, namespace: &'a str) -> Asked<'a, (bool, BTreeMap<String, String>)> {
        Box::pin(async move {
            let Some(kubernetes) = self.kubernetes() else { return Ok((true, BTreeMap::new())) };
            let labels = kubernetes.view.wait_for_namespace(namespace, PATIENCE).await?;
            Ok((opted_in(&labels), labels))
        })
    }

    /// What the Pods of a namespace that go before this one have asked for, by pool.
    pub(crate) fn used<'a>(&'a self, pod: &'a PodFacts) -> Asked<'a, BTreeMap<Name, u32>> {
        Box::pin(async move {
            let Some(kubernetes) = self.kubernetes() else { return Ok(BTreeMap::new()) };
            let (connection, pools) = (&kubernetes.connection, kubernetes.view.pools());
            let count: Count = Arc::new(asks::count);
            Ok(namespace_usage(connection, &pod.namespace, Some(pod), (&count, &pools), PATIENCE).await?)
        })
    }

    /// What is known of a Pod without asking.
    pub(crate) fn known(&self, namespace: &str, name: &str) -> Option<Arc<PodFacts>> {
        self.kubernetes()?.view.pod(namespace, name, None)
    }

    /// The Pods of this node, without asking.
    pub(crate) fn pods(&self) -> Vec<Arc<PodFacts>> {
        self.kubernetes().map(|kubernetes| kubernetes.view.pods()).unwrap_or_default()
    }

    /// The static host ports of this node's Pods.
    pub(crate) fn static_ports(&self) -> Vec<StaticHostPort> {
        self.kubernetes().map(|kubernetes| kubernetes.view.static_host_ports()).unwrap_or_default()
    }

    /// The networks of Pods and of Services.
    pub(crate) fn networks(&self) -> Vec<IpNet> {
        let Some(kubernetes) = self.kubernetes() else { return Vec::new() };
        [kubernetes.view.pod_networks(), kubernetes.view.service_networks()].concat()
    }

    /// Where clients reach this node as the cluster says: at most one address of each family, from outside if the Node
    /// has an ExternalIP.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let Some(node) = self.kubernetes().and_then(|kubernetes| kubernetes.view.node()) else {
            return Vec::new();
        };
        let first = |v4: bool| {
            let mut all = node.external.iter().chain(&node.internal);
            all.find(|address| address.is_ipv4() == v4).copied()
        };
        [first(true), first(false)].into_iter().flatten().collect()
    }

    /// What changes, from now on.
    pub(crate) fn changes(&self) -> Option<Changes> {
        self.kubernetes().map(|kubernetes| kubernetes.view.changes())
    }

    /// Says something about a Pod where people look for it.
    pub(crate) fn event(&self, pod: &PodFacts, kind: EventKind, reason: &str, action: &str, message: &str) {
        if let Some(kubernetes) = self.kubernetes() {
            kubernetes.publisher.event(&About::Pod(pod.key()), kind, reason, action, message);
        }
    }

    /// Says something about this node.
    pub(crate) fn node_event(&self, node: &str, kind: EventKind, reason: &str, action: &str, message: &str) {
        if let Some(kubernetes) = self.kubernetes() {
            kubernetes.publisher.event(&About::Node(node.to_owned()), kind, reason, action, message);
        }
    }

    /// Writes annotations of a Pod, some time soon.
    pub(crate) fn annotate(&self, pod: PodKey, changes: BTreeMap<String, Option<String>>) {
        if let Some(kubernetes) = self.kubernetes() {
            kubernetes.publisher.annotate(&pod, changes);
        }
    }
}
