//! The PortPool resource as the API server knows it. Its definition in `deploy/crds/portpools.yaml` is generated from
//! these types, comments included: `kubectl explain portpool.spec` shows them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The numbers of a range: the first and the last part of `FIRST-LAST` or of one port.
const RANGE_IN_ORDER: &str = "self.all(r, int(r.split('-')[0]) >= 1 && \
    int(r.split('-')[0]) <= int(r.split('-')[size(r.split('-')) - 1]) && \
    int(r.split('-')[size(r.split('-')) - 1]) <= 65535)";

/// Each range overlaps one range of the list: itself.
const RANGES_DISJOINT: &str = "self.all(a, self.exists_one(b, \
    int(a.split('-')[0]) <= int(b.split('-')[size(b.split('-')) - 1]) && \
    int(b.split('-')[0]) <= int(a.split('-')[size(a.split('-')) - 1])))";

/// What a pool offers, and to whom.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "portolan.dev",
    version = "v1alpha1",
    kind = "PortPool",
    plural = "portpools",
    category = "portolan",
    status = "PortPoolStatus",
    derive = "PartialEq",
    doc = "A named set of host ports that Pods may ask for, on every node that it selects.",
    printcolumn(name = "Ranges", type_ = "string", json_path = ".spec.ranges"),
    printcolumn(name = "Protocols", type_ = "string", json_path = ".spec.protocols", priority = 1),
    printcolumn(name = "Quota", type_ = "integer", json_path = ".spec.quota.perNamespace"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("a pool is named by a DNS label: 1 to 63 of a-z, 0-9 and '-'; Pods ask for it as pool=NAME"),
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PortPoolSpec {
    /// Host ports, each as FIRST-LAST or one number, such as "20000-29999". They must not overlap each other. Keep them
    /// apart from the nodes' ephemeral range (32768-60999) and from the cluster's node ports (30000-32767).
    #[schemars(
        length(min = 1, max = 16),
        inner(length(max = 11), regex(pattern = r"^[0-9]{1,5}(-[0-9]{1,5})?$"))
    )]
    #[x_kube(
        validation = Rule::new(RANGE_IN_ORDER).message("a range is FIRST-LAST with 1 <= FIRST <= LAST <= 65535"),
        validation = Rule::new(RANGES_DISJOINT).message("the ranges overlap: give each port once")
    )]
    pub(crate) ranges: Vec<String>,

    /// The protocols that can be asked for; all three unless given.
    #[serde(default = "all_protocols")]
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub(crate) protocols: Vec<PoolProtocol>,

    /// The only clients that may open connections to ports of this pool, as CIDRs such as "203.0.113.0/24"; everybody
    /// unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c))").message("a source range is a CIDR such as 203.0.113.0/24 or 2001:db8::/32"))]
    pub(crate) source_ranges: Vec<String>,

    /// How long a freed port is kept from other Pods, as "120s" or "2m"; two minutes unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) <= duration('24h')").message("a quarantine is 24h at most"))]
    pub(crate) quarantine: Option<String>,

    /// The namespaces whose Pods may use the pool, by their labels; unless given, every namespace that is opted in by
    /// the label portolan.dev/ports=allowed, which is needed in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace_selector: Option<LabelSelector>,

    /// The nodes that have the pool, by their labels; every node unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node_selector: Option<LabelSelector>,

    /// Bounds for its users; none unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<PoolQuota>,
}

/// Bounds for a pool's users.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PoolQuota {
    /// How many ports of the pool the Pods of one namespace may have together, over the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub(crate) per_namespace: Option<i32>,
}

/// A transport protocol, in the spelling of Kubernetes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum PoolProtocol {
    Tcp,
    Udp,
    Sctp,
}

/// What became of a pool.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PortPoolStatus {
    /// Accepted: whether nodes use the pool. It is False with the reason Conflict when an older pool has some of its
    /// ports on the same node, and with the reason Invalid when it cannot be understood.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub(crate) conditions: Vec<Condition>,
    /// How many ports it has on each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ports: Option<i32>,
}

fn all_protocols() -> Vec<PoolProtocol> {
    vec![PoolProtocol::Tcp, PoolProtocol::Udp, PoolProtocol::Sctp]
}

/// The definition of the resource, as YAML for `kubectl apply`.
pub fn crd_yaml() -> String {
    let yaml = serde_saphyr::to_string(&PortPool::crd());
    // Types of our own, known to serialize since the test below does it.
    format!(
        "# Generated from edge/kubernetes/src/pool/resource.rs; its test rewrites it with UPDATE_CRDS=1.\n{}",
        yaml.unwrap_or_default()
    )
}
