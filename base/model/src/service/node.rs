//! The node that a service proxy runs on, as far as it matters for Services.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Own name, zone and primary addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceNode {
    /// As in `spec.nodeName` of Pods and `nodeName` of endpoints.
    pub name: String,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// The primary address of each family, from `status.addresses`.
    pub addresses: Vec<IpAddr>,
}
