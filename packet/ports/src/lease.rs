//! A lease: the right of an instance to its host ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use portolan_model::{Attachment, Incarnation, InstanceId, Mapping, PortRequest, PublishedPort};
pub use portolan_model::{Network, Owner};
use serde::{Deserialize, Serialize};

use crate::hold::Hold;

/// What an instance asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// Its key, with the ordinal: `web-2`, `default/web-2`.
    pub instance: InstanceId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// What the lease ends with: `portolan run` and not the command that it runs, or a container's network.
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
    /// The networks that its addresses are in, when somebody else made them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub local: Vec<IpNet>,
    /// What a container runtime calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
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

    /// The instance's own addresses; none on the host's network.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [self.request.v4.map(IpAddr::V4), self.request.v6.map(IpAddr::V6)].into_iter().flatten()
    }

    /// The mappings that bring packets to it. None on the host's network.
    pub fn mappings(&self) -> Vec<Mapping> {
        let LeaseRequest { network, v4, v6, .. } = self.request;
        if network == Network::Host || (v4.is_none() && v6.is_none()) {
            return Vec::new();
        }
        let one = |port: &PublishedPort, protocol| {
            // An address of one family serves that family only; all addresses of a family need no match on one.
            let (v4, v6) = match port.address {
                None => (v4, v6),
                Some(IpAddr::V4(_)) => (v4, None),
                Some(IpAddr::V6(_)) => (None, v6),
            };
            let address = port.address.filter(|address| !address.is_unspecified());
            // The kernel cannot forward what is for ::1; of 127.0.0.0/8 see `packet/plan/src/ingress.rs`.
            if address == Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) {
                return None;
            }
            let mapping = Mapping { protocol, address, host: port.host, container: port.container, v4, v6 };
            // An instance without an address of that family has nothing to be reached by.
            (v4.is_some() || v6.is_some()).then_some(mapping)
        };
        self.ports.iter().flat_map(|port| port.protocols.iter().filter_map(move |p| one(port, p))).collect()
    }
}
