//! EndpointSlices: where the traffic of a Service can go.

use std::{net::IpAddr, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{ObjectName, Protocol};

/// One port that all endpoints of a slice have. Slice ports without name or number are left out by whoever reads them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlicePort {
    /// Matches the Service port of the same name and protocol.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port on the endpoint: the target port, resolved.
    pub port: u16,
}

/// One address that serves, with its conditions as they are after the defaults of
/// `discovery.k8s.io/v1` (ready and serving: true, terminating: false).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The first address; others of an endpoint mean nothing to a proxy.
    pub address: IpAddr,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, whether it takes new connections or not.
    pub serving: bool,
    /// Is on its way out.
    pub terminating: bool,
    /// The node it runs on.
    pub node: Option<String>,
    /// `hints.forZones`: the zones that should use it.
    pub zones: Vec<String>,
    /// `hints.forNodes`: the nodes that should use it.
    pub nodes: Vec<String>,
    /// The name of its Pod or instance, for weights and for people.
    pub target: Option<String>,
}

/// Some endpoints of one Service, of one family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Its own namespace and name.
    pub name: ObjectName,
    /// The Service it belongs to, in the same namespace.
    pub service: ObjectName,
    /// Ports that each of its endpoints has.
    pub ports: Vec<SlicePort>,
    /// All of one family.
    pub endpoints: Vec<Endpoint>,
    /// When the Pod or Service changed that made this slice change (`endpoints.kubernetes.io/last-change-trigger-time`).
    pub triggered: Option<SystemTime>,
}
