//! What is asked for, what is given, and why something is not.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_model::{ObjectName, PortRange, Protocol};
use serde::{Deserialize, Serialize};

/// What is given from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// At most one of each family.
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) ports: PortRange,
}

/// A port that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PortKey {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: ObjectName,
    /// The families of its cluster addresses, in this order; empty: none.
    pub(crate) families: Vec<Family>,
    /// Those that it asks for by number.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its ports with the node port that it asks for by number; `None` for any.
    pub(crate) node_ports: Vec<(PortKey, Option<u16>)>,
    /// A port for the health checks of load balancers; the same.
    pub(crate) health: Option<Option<u16>>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What a Service has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Given {
    #[serde(default)]
    pub(crate) addresses: Vec<IpAddr>,
    #[serde(default)]
    pub(crate) node_ports: Vec<(PortKey, u16)>,
    #[serde(default)]
    pub(crate) health: Option<u16>,
}

impl Given {
    pub(crate) fn node_port(&self, key: &PortKey) -> Option<u16> {
        self.node_ports.iter().find(|(known, _)| known == key).map(|(_, port)| *port)
    }

    /// Every number that is its own on the node.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        self.node_ports.iter().map(|(_, port)| *port).chain(self.health)
    }
}

/// Why something is not given, in the words of the API server, which people search for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AllocateError {
    #[error(
        "spec.clusterIPs: Invalid value: {0}: failed to allocate IP: provided IP is not in the valid range. The range of valid IPs is {1}"
    )]
    AddressOutside(IpAddr, String),
    #[error(
        "spec.clusterIPs: Invalid value: {0}: failed to allocate IP: provided IP is already allocated (by {1})"
    )]
    AddressTaken(IpAddr, ObjectName),
    #[error("spec.clusterIPs: Invalid value: {0}: the first and the last address of {1} are given to nobody")]
    AddressEdge(IpAddr, IpNet),
    #[error(
        "failed to allocate a cluster address: the range {0} is full: give a larger one by --service-cidr"
    )]
    AddressesFull(IpNet),
    #[error("it asks for an {0} cluster address, and there is no such range: add one by --service-cidr")]
    NoRange(&'static str),
    #[error(
        "spec.{0}: Invalid value: {1}: provided port is not in the valid range. The range of valid ports is {2}"
    )]
    PortOutside(String, u16, PortRange),
    #[error("spec.{0}: Invalid value: {1}: provided port is already allocated ({2})")]
    PortTaken(String, u16, String),
    #[error("failed to allocate a nodePort: range {0} is full: give a larger one by --node-port-range")]
    PortsFull(PortRange),
}
