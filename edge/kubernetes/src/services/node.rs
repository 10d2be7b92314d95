//! The own Node, as a service proxy needs it.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_model::ServiceNode;

use super::{number, watched::WatchedNode};

/// The only label of a Node that counts.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The cluster autoscaler is about to remove the node: load balancers should leave it (KEP-3836).
const AUTOSCALER_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// The own Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProxyNode {
    /// Name, zone and primary addresses.
    pub node: ServiceNode,
    /// `spec.podCIDRs`.
    pub pod_networks: Vec<IpNet>,
    /// Whether load balancers may send new traffic here: it is neither being deleted nor about to be.
    pub eligible: bool,
}

impl From<&WatchedNode> for ProxyNode {
    fn from(object: &WatchedNode) -> Self {
        let (metadata, spec) = (&object.metadata, object.spec.as_ref());
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let leaving = taints.iter().any(|taint| taint.key.as_deref() == Some(AUTOSCALER_TAINT));
        let many = spec.and_then(|spec| spec.pod_cidrs.as_deref()).filter(|many| !many.is_empty());
        let single = spec.and_then(|spec| spec.pod_cidr.as_ref()).map(std::slice::from_ref);
        let networks = many.or(single).unwrap_or_default();
        Self {
            node: ServiceNode {
                name: metadata.name.clone().unwrap_or_default(),
                zone: metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL)).cloned(),
                addresses: addresses(object),
            },
            pod_networks: networks.iter().filter_map(|text| number::network(text)).collect(),
            eligible: !leaving && metadata.deletion_timestamp.is_none(),
        }
    }
}

/// The first of each family, internal ones before external ones, as `GetNodeHostIPs` of k8s.io/component-helpers.
fn addresses(object: &WatchedNode) -> Vec<IpAddr> {
    let all = object.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let of_kind = |kind: &'static str| {
        let of_kind = all.iter().filter(move |one| one.kind.as_deref() == Some(kind));
        of_kind.filter_map(|one| number::address(one.address.as_deref()?))
    };
    let sorted: Vec<IpAddr> = of_kind("InternalIP").chain(of_kind("ExternalIP")).collect();
    let Some(primary) = sorted.first() else { return Vec::new() };
    let other = sorted.iter().find(|address| address.is_ipv4() != primary.is_ipv4());
    [Some(primary), other].into_iter().flatten().copied().collect()
}
