//! Services: addresses that many copies of one workload share, in the words of Kubernetes.
//!
//! These are the facts that a service proxy needs and nothing else, whoever gives them: the API server
//! (`edge/kubernetes`), a file, or the catalog. What they mean for packets is in `packet/services`.

mod endpoint;
mod name;
mod node;
mod options;

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::{
    endpoint::{Endpoint, EndpointSlice, SlicePort},
    name::ObjectName,
    node::ServiceNode,
    options::{AffinityScope, Balance, PortSpan, ServiceOptions, Weights},
};
use crate::Protocol;

/// What `kubernetes.io/docs/concepts/services-networking/service` calls the type, as far as packets are concerned.
/// Headless Services and those of type `ExternalName` have no frontends and are never one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServiceType {
    /// Addresses within the cluster only (and external addresses that are named).
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// The same, and a port on every node.
    NodePort,
    /// The same, and addresses of a load balancer.
    LoadBalancer,
}

/// Which endpoints traffic of one kind may go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// All of them.
    #[default]
    Cluster,
    /// Those on the node where the packet is; without any the packet is dropped.
    Local,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServicePort {
    /// Matches the port of the same name and protocol of slices. Empty where a Service has one port without a name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// What clients connect to.
    pub port: u16,
    /// The same on the addresses of every node.
    pub node_port: Option<u16>,
}

/// A Service that has frontends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Service {
    /// Its namespace and name.
    pub name: ObjectName,
    /// `metadata.generation`, or whatever grows with each change of what is asked for; 0 if nothing does.
    pub generation: i64,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// `spec.clusterIPs`, at most one of each family; never empty.
    pub cluster_addresses: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_addresses: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` of those whose ipMode is VIP.
    pub load_balancer_addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// For traffic to its cluster addresses.
    pub internal_policy: TrafficPolicy,
    /// For traffic to all others of its addresses.
    pub external_policy: TrafficPolicy,
    /// How long a client stays with an endpoint after its last new connection; `None`: no affinity.
    pub affinity: Option<Duration>,
    /// Who may reach the addresses of the load balancer; empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// Where a load balancer asks whether this node has endpoints.
    pub health_check_node_port: Option<u16>,
    /// What Kubernetes has no field for.
    pub options: ServiceOptions,
}

impl Service {
    /// Whether its external policy means anything: a Service without external addresses has none.
    pub fn is_externally_local(&self) -> bool {
        self.external_policy == TrafficPolicy::Local
            && (self.kind != ServiceType::ClusterIp || !self.external_addresses.is_empty())
    }
}
