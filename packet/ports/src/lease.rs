//! A lease: the right of an instance to its host ports.

use std::net::{Ipv4Addr, Ipv6Addr};

pub use portolan_model::Network;
use portolan_model::{Incarnation, Mapping, Name, PortRequest, PublishedPort};
use portolan_netlink::process::PidIdentity;
use serde::{Deserialize, Serialize};

use crate::hold::Hold;

/// The process that a lease ends with: `portolan run`, not the command that it runs.
pub type Owner = PidIdentity;

/// What an instance asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// Its name, with the ordinal: `web-2`.
    pub instance: Name,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// The process that the lease ends with.
    pub owner: Owner,
    /// The ports.
    pub requests: Vec<PortRequest>,
    /// Where it listens.
    pub network: Network,
    /// Its IPv4 address, with a network of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address, with a network of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Addr>,
}

/// What it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// What was asked.
    #[serde(flatten)]
    pub request: LeaseRequest,
    /// The ports, in the order of the requests.
    pub ports: Vec<PublishedPort>,
    /// Whether the holder has the sockets. `false` from the moment on at which an instance on the host's network is
    /// about to bind them itself.
    pub held: bool,
}

impl Lease {
    /// What must be bound for it.
    pub fn holds(&self) -> Vec<Hold> {
        self.ports.iter().flat_map(Hold::of).collect()
    }

    /// The mappings that bring packets to it. None on the host's network.
    pub fn mappings(&self) -> Vec<Mapping> {
        let LeaseRequest { network, v4, v6, .. } = self.request;
        if network == Network::Host || (v4.is_none() && v6.is_none()) {
            return Vec::new();
        }
        let one = |port: &PublishedPort, protocol| Mapping {
            protocol,
            address: port.address,
            host: port.host,
            container: port.container,
            v4,
            v6,
        };
        self.ports.iter().flat_map(|port| port.protocols.iter().map(move |p| one(port, p))).collect()
    }
}
