//! The fields of Services, EndpointSlices and the own Node that are read.
//!
//! A Service of the API has some 500 bytes that matter here and often kilobytes that do not: managed fields, labels,
//! the last applied configuration. They are skipped while JSON is parsed. Every field may be missing or `null`: Go
//! writes an empty list without `omitempty` as `null`, and EndpointSlices have such lists.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    api::{core::v1::Node, core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::Resource;
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<serde::de::IgnoredAny>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

/// `metadata` without what nobody reads. kube wants its own type.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let metadata = Metadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        generation: metadata.generation,
        // Only whether there is one is asked.
        deletion_timestamp: metadata.deletion_timestamp.map(|_| Time(Timestamp::UNIX_EPOCH)),
        labels: metadata.labels,
        annotations: metadata.annotations,
        ..ObjectMeta::default()
    })
}

/// A Service.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct WatchedService {
    #[serde(deserialize_with = "metadata")]
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Option<Spec>,
    pub(super) status: Option<Status>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub(super) cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    pub(super) external_ips: Option<Vec<String>>,
    pub(super) external_name: Option<String>,
    pub(super) ports: Option<Vec<Port>>,
    pub(super) selector: Option<BTreeMap<String, String>>,
    pub(super) internal_traffic_policy: Option<String>,
    pub(super) external_traffic_policy: Option<String>,
    pub(super) session_affinity: Option<String>,
    pub(super) session_affinity_config: Option<AffinityConfig>,
    pub(super) load_balancer_source_ranges: Option<Vec<String>>,
    pub(super) health_check_node_port: Option<i64>,
    pub(super) publish_not_ready_addresses: Option<bool>,
    pub(super) allocate_load_balancer_node_ports: Option<bool>,
    pub(super) ip_families: Option<Vec<String>>,
    pub(super) ip_family_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    pub(super) name: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) port: Option<i64>,
    pub(super) node_port: Option<i64>,
    pub(super) target_port: Option<NumberOrName>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum NumberOrName {
    Number(i64),
    Name(String),
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct AffinityConfig {
    #[serde(rename = "clientIP")]
    pub(super) client_ip: Option<ClientIp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClientIp {
    pub(super) timeout_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) load_balancer: Option<LoadBalancer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct LoadBalancer {
    pub(super) ingress: Option<Vec<Ingress>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ingress {
    pub(super) ip: Option<String>,
    pub(super) ip_mode: Option<String>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WatchedSlice {
    #[serde(deserialize_with = "metadata")]
    pub(super) metadata: ObjectMeta,
    pub(super) address_type: Option<String>,
    pub(super) endpoints: Option<Vec<WatchedEndpoint>>,
    pub(super) ports: Option<Vec<WatchedPort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WatchedEndpoint {
    pub(super) addresses: Option<Vec<String>>,
    pub(super) conditions: Option<Conditions>,
    pub(super) node_name: Option<String>,
    pub(super) hints: Option<Hints>,
    pub(super) target_ref: Option<Reference>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hints {
    pub(super) for_zones: Option<Vec<Reference>>,
    pub(super) for_nodes: Option<Vec<Reference>>,
}

/// Something with a name.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Reference {
    pub(super) name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct WatchedPort {
    pub(super) name: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) port: Option<i64>,
}

/// A Node.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct WatchedNode {
    #[serde(deserialize_with = "metadata")]
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Option<NodeSpec>,
    pub(super) status: Option<NodeStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pub(super) pod_cidrs: Option<Vec<String>>,
    pub(super) taints: Option<Vec<Taint>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Taint {
    pub(super) key: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct NodeStatus {
    pub(super) addresses: Option<Vec<NodeAddress>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct NodeAddress {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) address: Option<String>,
}

/// kube asks for the kind of what it lists: ours is that of the type that k8s-openapi has for it.
macro_rules! resource {
    ($slim:ty, $full:ty, $scope:ty) => {
        impl Resource for $slim {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                <$full as Resource>::kind(&())
            }
            fn group((): &()) -> Cow<'_, str> {
                <$full as Resource>::group(&())
            }
            fn version((): &()) -> Cow<'_, str> {
                <$full as Resource>::version(&())
            }
            fn plural((): &()) -> Cow<'_, str> {
                <$full as Resource>::plural(&())
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(WatchedService, Service, NamespaceResourceScope);
resource!(WatchedSlice, EndpointSlice, NamespaceResourceScope);
resource!(WatchedNode, Node, ClusterResourceScope);
