//! Names for published ports: for each Service that asks by its annotation, a twin that DNS knows the ports of.
//!
//! Service `web` with the annotation `portolan.dev/publish: "true"` gets the headless Service `web-ports` without a
//! selector, and for each of its Pods that has ports EndpointSlices with the node's address and the host ports. CoreDNS
//! then answers `_http._tcp.web-ports.NAMESPACE.svc.CLUSTER` with SRV, and `POD.web-ports.…` for each instance.
//!
//! [`desired`] says what should be, purely; [`reconcile`] compares it with what is, namespace by namespace, and writes
//! the difference. Nothing is remembered: after a restart the same comparison finds what is left to do.

mod desired;
mod reconcile;
mod source;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::{core::v1::Pod, core::v1::Service, discovery::v1::EndpointSlice};
use portolan_model::{PortsStatus, STATUS_ANNOTATION};
use tokio_util::sync::CancellationToken;

pub use self::desired::{BLOCKS_ANNOTATION, MANAGED_BY, PUBLISH_ANNOTATION, TWIN_SUFFIX};
use self::source::SourceService;
use crate::{
    ApiError, Change, Changes, Connection, PodFacts, Publisher,
    backoff::Backoff,
    changes::Announcer,
    connection::CALL,
    mirror::{Mirror, ObjectKey, Wanted},
};

/// Changes are gathered for this long: a Deployment that is scaled changes many Pods at once.
const GATHER: Duration = Duration::from_millis(50);
/// How long the first look may wait for all watches; after that it is tried again.
const SYNC: Duration = Duration::from_secs(60);
/// Everything is compared this often without a reason.
const LOOK: Duration = Duration::from_secs(300);

/// What is copied of the cluster.
struct Cluster {
    connection: Connection,
    publisher: Publisher,
    /// Pods that have ports.
    pods: Mirror<Instance>,
    /// Services that ask, or are twins, or have the name of one.
    services: Mirror<SourceService>,
    /// EndpointSlices of ours.
    slices: Mirror<EndpointSlice>,
}

/// A Pod that has ports.
#[derive(Clone, Debug, PartialEq)]
struct Instance {
    pod: PodFacts,
    status: PortsStatus,
}

/// Keeps twins and EndpointSlices right until `stop`. One replica at a time should do so.
pub async fn run_endpoints(connection: &Connection, stop: CancellationToken) {
    // The watches end with us, however we end.
    let watching = CancellationToken::new();
    let _watches = watching.clone().drop_guard();
    let announcer = Announcer::default();
    let mut changes = announcer.subscribe();
    let cluster = Arc::new(Cluster::watch(connection, &announcer, &watching));
    stop.run_until_cancelled(async {
        let all =
            async { tokio::join!(cluster.pods.synced(), cluster.services.synced(), cluster.slices.synced()) };
        let mut all = std::pin::pin!(all);
        while tokio::time::timeout(SYNC, all.as_mut()).await.is_err() {
            tracing::warn!(
                "Services, Pods and EndpointSlices cannot be listed: is the API server away, or RBAC missing?"
            );
        }
        work(&cluster, &mut changes).await;
    })
    .await;
}

/// Removes every twin and EndpointSlice of ours: for an uninstallation.
pub async fn remove_endpoints(connection: &Connection) -> Result<usize, ApiError> {
    reconcile::remove_all(connection).await
}

impl Cluster {
    fn watch(connection: &Connection, announcer: &Announcer, stop: &CancellationToken) -> Self {
        let tell = || {
            let announcer = announcer.clone();
            move |key: &ObjectKey| announcer.announce(&Change::Namespace(key.namespace.clone()))
        };
        let pods = Mirror::start(Wanted::<Pod>::new(connection, "Pods"), instance, tell(), stop.clone());
        let services = Mirror::start(
            Wanted::<Service>::new(connection, "Services"),
            |service| Some(SourceService::from(service)),
            tell(),
            stop.clone(),
        );
        let slices = Wanted::<EndpointSlice>::new(connection, "EndpointSlices");
        let slices = slices.labels(&format!("{}={MANAGED_BY}", desired::MANAGED_BY_LABEL));
        let slices = Mirror::start(slices, |slice| Some(desired::bare(slice)), tell(), stop.clone());
        let publisher = Publisher::start(connection, "controller");
        Self { connection: connection.clone(), publisher, pods, services, slices }
    }

    /// All namespaces that anything of ours is in, or should be.
    fn namespaces(&self) -> BTreeSet<String> {
        let services = self.services.sorted().into_iter();
        let services = services.filter(|(_, service)| service.concerns_us()).map(|(key, _)| key.namespace);
        services.chain(self.slices.sorted().into_keys().map(|key| key.namespace)).collect()
    }
}

/// Of all Pods only those that have ports are kept.
fn instance(pod: Pod) -> Option<Instance> {
    let status = pod.metadata.annotations.as_ref()?.get(STATUS_ANNOTATION)?;
    let status = serde_json::from_str(status).ok()?;
    Some(Instance { pod: pod.into(), status })
}

/// Namespace by namespace, whenever something in it has changed.
async fn work(cluster: &Cluster, changes: &mut Changes) {
    let mut backoff = Backoff::new();
    let mut failed = BTreeSet::new();
    loop {
        let wait = if failed.is_empty() { LOOK } else { backoff.next() };
        let changed = match tokio::time::timeout(wait, changes.next()).await {
            Ok(Some(changed)) => changed,
            Ok(None) => return,
            Err(_) if failed.is_empty() => BTreeSet::from([Change::Everything]),
            Err(_) => BTreeSet::new(),
        };
        let mut dirty = std::mem::take(&mut failed);
        for change in changed {
            match change {
                Change::Namespace(namespace) => drop(dirty.insert(namespace)),
                _ => dirty.extend(cluster.namespaces()),
            }
        }
        for namespace in dirty {
            if let Err(error) = reconcile::namespace(cluster, &namespace).await {
                tracing::debug!(namespace, %error, "the names of published ports wait");
                failed.insert(namespace);
            }
        }
        if failed.is_empty() {
            backoff.reset();
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// The time limit of one write.
const WRITE: Duration = CALL;
