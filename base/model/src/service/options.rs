//! What a Service may ask of us that Kubernetes has no field for. Annotations say it there, see docs/services.md.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{PortRange, Protocol};

/// How an endpoint is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    /// At random, each as likely as its weight says.
    #[default]
    Random,
    /// By a hash of the client's address, with few clients moved when endpoints come and go (Maglev, NSDI 2016,
    /// section 3.4).
    Source,
}

/// What a client's affinity is to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AffinityScope {
    /// Each port of the Service by itself, as Kubernetes does.
    #[default]
    Port,
    /// The endpoint's address: all ports of the Service lead a client to the same Pod.
    Service,
}

/// A run of ports that is forwarded with the port number kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortSpan {
    /// The protocol.
    pub protocol: Protocol,
    /// The ports, the same on the Service and on its endpoints.
    pub ports: PortRange,
}

/// Weights of endpoints by the name of their Pod or instance, or by address; 1 for those that are not named, 0 for
/// none of the new connections.
pub type Weights = BTreeMap<String, u16>;

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceOptions {
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// What affinity is to.
    pub affinity_scope: AffinityScope,
    /// Weights of endpoints.
    pub weights: Weights,
    /// Runs of ports beside the ports of the Service, on all its addresses but those of nodes.
    pub spans: Vec<PortSpan>,
    /// Every protocol and port of its cluster, external and load balancer addresses that no other port of it takes.
    pub whole_address: bool,
    /// Who may reach its node ports and external addresses; empty: everybody.
    pub node_source_ranges: Vec<IpNet>,
    /// What becomes of TCP connections to an endpoint that is gone: after this time they are reset. `None`: they are
    /// left alone, as kube-proxy does.
    pub drain: Option<Duration>,
    /// Where the policy is Local and no endpoint is: tell the client (ICMP) instead of dropping.
    pub reject_without_local: bool,
}
