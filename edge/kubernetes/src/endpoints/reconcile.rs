//! What is, compared with what should be, and the difference written.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Cluster, WRITE,
    desired::{self, MANAGED_BY, MANAGED_BY_LABEL, TWIN_LABEL},
    source::SourceService,
};
use crate::{About, ApiError, Connection, EventKind};

/// Writes at the same time.
const PARALLEL: usize = 8;

/// Makes one namespace right. An error means that it should be looked at again; everything else was still done.
pub(super) async fn namespace(cluster: &Cluster, namespace: &str) -> Result<(), ApiError> {
    let services: BTreeMap<_, _> =
        cluster.services.sorted().into_iter().filter(|(key, _)| key.namespace == namespace).collect();
    let services: BTreeMap<&str, &SourceService> =
        services.iter().map(|(key, service)| (key.name.as_str(), service.as_ref())).collect();
    let writer = Writer { connection: cluster.connection.clone(), namespace: namespace.to_owned() };
    let (mut wanted_slices, mut wanted_twins) = (BTreeMap::new(), BTreeMap::new());
    let pods = cluster.pods.all();
    let mut result = Ok(());
    for service in services.values().filter(|service| service.publishes) {
        let existing = services.get(service.twin_name().as_str()).copied();
        if let Some(problem) = problem(service, existing) {
            let about = About::Service(namespace.to_owned(), service.name.clone(), service.uid.clone());
            cluster.publisher.event(&about, EventKind::Warning, "PortsNotPublished", "Publish", &problem);
            continue;
        }
        let instances = desired::instances_of(service, pods.iter().map(AsRef::as_ref));
        let twin = desired::twin(service, &instances);
        wanted_twins.insert(service.twin_name(), ());
        // The twin first: its UID owns the slices.
        let uid = match writer.twin(existing.and_then(|existing| existing.twin.as_ref()), twin).await {
            Ok(uid) => uid,
            Err(error) => {
                result = Err(error);
                // Its slices stay as they are until the twin is right.
                keep(cluster, namespace, &service.twin_name(), &mut wanted_slices);
                continue;
            }
        };
        for instance in instances {
            for slice in desired::slices(service, &uid, instance) {
                wanted_slices.insert(slice.metadata.name.clone().unwrap_or_default(), slice);
            }
        }
    }
    let present: BTreeMap<_, _> =
        cluster.slices.sorted().into_iter().filter(|(key, _)| key.namespace == namespace).collect();
    let mut writes: Vec<BoxFuture<'static, Result<(), ApiError>>> = Vec::new();
    for (key, slice) in present {
        match wanted_slices.remove(&key.name) {
            Some(wanted) if is_same(&slice, &wanted) => {}
            Some(wanted) => writes.push(writer.clone().write(Some(slice), wanted).boxed()),
            None => writes.push(writer.clone().delete((*slice).clone()).boxed()),
        }
    }
    writes.extend(wanted_slices.into_values().map(|wanted| writer.clone().write(None, wanted).boxed()));
    let mut written = stream::iter(writes).buffer_unordered(PARALLEL);
    while let Some(outcome) = written.next().await {
        // All are tried; one error is enough to come back.
        result = outcome.and(result);
    }
    for (name, service) in &services {
        // The twin goes last, and only ours.
        if let Some(twin) = &service.twin
            && !wanted_twins.contains_key(*name)
        {
            result = writer.clone().delete(twin.clone()).await.and(result);
        }
    }
    result
}

fn problem(service: &SourceService, existing: Option<&SourceService>) -> Option<String> {
    let foreign = existing.filter(|existing| existing.twin.is_none()).map(|existing| {
        format!(
            "there is a Service {} already, and it is not ours: rename it, or the Service {}",
            existing.name, service.name
        )
    });
    service.problem().or(foreign)
}

/// Puts the present slices of a twin among the wanted ones.
fn keep(cluster: &Cluster, namespace: &str, twin: &str, wanted: &mut BTreeMap<String, EndpointSlice>) {
    let of_twin = |slice: &EndpointSlice| {
        let owners = slice.metadata.owner_references.iter().flatten();
        owners.into_iter().any(|owner| owner.name == twin)
    };
    for (key, slice) in cluster.slices.sorted() {
        if key.namespace == namespace && of_twin(&slice) {
            wanted.insert(key.name, (*slice).clone());
        }
    }
}

/// Whether the API server has what we want. It adds fields of its own to the metadata only.
fn is_same(present: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    present.address_type == wanted.address_type
        && present.endpoints == wanted.endpoints
        && present.ports == wanted.ports
        && has_metadata(&present.metadata, &wanted.metadata)
        && present.metadata.annotations.as_ref().and_then(|all| all.get(desired::BLOCKS_ANNOTATION))
            == wanted.metadata.annotations.as_ref().and_then(|all| all.get(desired::BLOCKS_ANNOTATION))
}

fn has_metadata(present: &ObjectMeta, wanted: &ObjectMeta) -> bool {
    let labels = wanted.labels.iter().flatten();
    let has = |(key, value)| present.labels.as_ref().and_then(|labels| labels.get(key)) == Some(value);
    labels.into_iter().all(has) && present.owner_references == wanted.owner_references
}

fn is_same_twin(present: &Service, wanted: &Service) -> bool {
    let (Some(is), Some(should)) = (&present.spec, &wanted.spec) else { return false };
    has_metadata(&present.metadata, &wanted.metadata)
        && is.cluster_ip == should.cluster_ip
        && is.selector.as_ref().is_none_or(BTreeMap::is_empty)
        && is.publish_not_ready_addresses.unwrap_or_default()
            == should.publish_not_ready_addresses.unwrap_or_default()
        && is.ports == should.ports
}

/// Writes into one namespace.
#[derive(Clone)]
struct Writer {
    connection: Connection,
    namespace: String,
}

impl Writer {
    /// Makes the twin right and returns its UID.
    async fn twin(&self, present: Option<&Service>, mut wanted: Service) -> Result<String, ApiError> {
        let uid = |service: &Service| service.metadata.uid.clone().unwrap_or_default();
        let api = Api::<Service>::namespaced(self.connection.client(), &self.namespace);
        let name = wanted.metadata.name.clone().unwrap_or_default();
        let parameters = PostParams::default();
        let Some(present) = present else {
            let what = format!("create Service {}/{name}", self.namespace);
            return self
                .connection
                .limited(what, WRITE, api.create(&parameters, &wanted))
                .await
                .map(|made| uid(&made));
        };
        if is_same_twin(present, &wanted) {
            return Ok(uid(present));
        }
        wanted.metadata.resource_version.clone_from(&present.metadata.resource_version);
        if let (Some(is), Some(should)) = (&present.spec, &mut wanted.spec) {
            // What the API server has chosen cannot be changed.
            should.cluster_ips.clone_from(&is.cluster_ips);
            should.ip_families.clone_from(&is.ip_families);
            should.ip_family_policy.clone_from(&is.ip_family_policy);
        }
        let what = format!("update Service {}/{name}", self.namespace);
        self.connection
            .limited(what, WRITE, api.replace(&name, &parameters, &wanted))
            .await
            .map(|made| uid(&made))
    }

    async fn write(
        self,
        present: Option<Arc<EndpointSlice>>,
        mut wanted: EndpointSlice,
    ) -> Result<(), ApiError> {
        let api = Api::<EndpointSlice>::namespaced(self.connection.client(), &self.namespace);
        let name = wanted.metadata.name.clone().unwrap_or_default();
        let (what, parameters) = (format!("EndpointSlice {}/{name}", self.namespace), PostParams::default());
        if let Some(present) = present {
            wanted.metadata.resource_version.clone_from(&present.metadata.resource_version);
            let call = api.replace(&name, &parameters, &wanted);
            return self.connection.limited(format!("update {what}"), WRITE, call).await.map(drop);
        }
        self.connection
            .limited(format!("create {what}"), WRITE, api.create(&parameters, &wanted))
            .await
            .map(drop)
    }

    /// Deletes this very object; that it is gone is well.
    async fn delete<K>(self, object: K) -> Result<(), ApiError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + std::fmt::Debug,
    {
        let metadata = object.meta();
        let name = metadata.name.clone().unwrap_or_default();
        let api = Api::<K>::namespaced(self.connection.client(), &self.namespace);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        let what = format!("delete {} {}/{name}", K::kind(&()), self.namespace);
        match self.connection.limited(what, WRITE, api.delete(&name, &parameters)).await {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Deletes everything of ours in all namespaces and says how much that was.
pub(super) async fn remove_all(connection: &Connection) -> Result<usize, ApiError> {
    let client = connection.client();
    let slices = ListParams::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let api = Api::<EndpointSlice>::all(client.clone());
    let slices = connection.limited("list EndpointSlices", WRITE, api.list(&slices)).await?.items;
    let twins = ListParams::default().labels(TWIN_LABEL);
    let api = Api::<Service>::all(client);
    let twins = connection.limited("list Services", WRITE, api.list(&twins)).await?.items;
    let count = slices.len() + twins.len();
    let writer = |metadata: &ObjectMeta| Writer {
        connection: connection.clone(),
        namespace: metadata.namespace.clone().unwrap_or_default(),
    };
    for slice in slices {
        writer(&slice.metadata).delete(slice).await?;
    }
    for twin in twins {
        writer(&twin.metadata).delete(twin).await?;
    }
    Ok(count)
}
