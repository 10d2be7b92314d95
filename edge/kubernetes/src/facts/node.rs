//! A Node.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};

use crate::RESOURCE_PREFIX;

/// A Node, as far as addresses, networks and ports are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Addresses of type `ExternalIP`.
    pub external: Vec<IpAddr>,
    /// Addresses of type `InternalIP`.
    pub internal: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_networks: Vec<IpNet>,
    /// `status.capacity` of our extended resources, by pool.
    pub capacity: BTreeMap<String, u32>,
    /// `status.allocatable` of our extended resources, by pool: what the scheduler goes by.
    pub allocatable: BTreeMap<String, u32>,
}

/// The fields of a Node that we read: its list of images alone is larger than all of them, and there is an object for
/// each node of the cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SlimNode {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimSpec {
    #[serde(rename = "podCIDR", default)]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs", default)]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct SlimStatus {
    #[serde(default)]
    addresses: Vec<SlimAddress>,
    #[serde(default)]
    capacity: BTreeMap<String, String>,
    #[serde(default)]
    allocatable: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct SlimAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl Resource for SlimNode {
    type DynamicType = ();
    type Scope = k8s_openapi::ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Node::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        Node::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        Node::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        Node::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl From<SlimNode> for NodeFacts {
    fn from(node: SlimNode) -> Self {
        let SlimNode { metadata, spec, status } = node;
        let of_kind = |kind: &str| -> Vec<IpAddr> {
            let addresses = status.addresses.iter().filter(|address| address.kind == kind);
            addresses.filter_map(|address| address.address.parse().ok()).collect()
        };
        let mut cidrs = spec.pod_cidrs;
        if cidrs.is_empty() {
            cidrs.extend(spec.pod_cidr);
        }
        Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            external: of_kind("ExternalIP"),
            internal: of_kind("InternalIP"),
            pod_networks: cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            capacity: ours(&status.capacity),
            allocatable: ours(&status.allocatable),
        }
    }
}

/// Our resources, by pool. Extended resources are whole numbers, but the API may write 10000 as `10k`.
/// <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#extended-resources>
fn ours(resources: &BTreeMap<String, String>) -> BTreeMap<String, u32> {
    let ours = resources.iter().filter_map(|(name, quantity)| {
        let pool = name.strip_prefix(RESOURCE_PREFIX)?;
        // A quantity that cannot be read is not what we wrote: 0 lets it be written again.
        Some((pool.to_owned(), whole(quantity).unwrap_or_default()))
    });
    ours.collect()
}

/// Reads a quantity that is a whole number.
pub(crate) fn whole(quantity: &str) -> Option<u32> {
    let (digits, factor) = match quantity.as_bytes().last()? {
        b'k' => (&quantity[..quantity.len() - 1], 1000),
        b'M' => (&quantity[..quantity.len() - 1], 1_000_000),
        _ => (quantity, 1),
    };
    digits.parse::<u32>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_read_with_its_addresses_networks_and_ports() {
        let node: SlimNode = serde_json::from_value(json!({
            "metadata": {"name": "node1", "uid": "n", "labels": {"zone": "a"}},
            "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00::/64"], "taints": []},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "node1"}, {"type": "InternalIP", "address": "10.240.0.11"},
                    {"type": "ExternalIP", "address": "203.0.113.7"}, {"type": "InternalIP", "address": "fd01::11"}
                ],
                "capacity": {"cpu": "2", "ports.portolan.dev/default": "10k"},
                "images": [{"names": ["a"], "sizeBytes": 1}]
            }
        }))
        .unwrap();
        let node = NodeFacts::from(node);
        assert_eq!(node.internal.len(), 2);
        assert_eq!(node.external, ["203.0.113.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(node.pod_networks.len(), 2);
        assert_eq!(node.capacity, BTreeMap::from([("default".to_owned(), 10_000)]));
    }

    #[test]
    fn quantities_are_whole_numbers() {
        for (text, number) in
            [("0", Some(0)), ("9898", Some(9898)), ("10k", Some(10_000)), ("1500m", None), ("", None)]
        {
            assert_eq!(whole(text), number, "{text}");
        }
    }
}
