//! A mapping: where the packets of a host port go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{PortRange, Protocol};

/// Host address, protocol and host ports to instance addresses and container ports: one element of the data plane.
///
/// A block (`host` of more than one port) keeps its numbers: `container` is `host.first()`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mapping {
    /// The protocol; a port with two protocols is two mappings.
    pub protocol: Protocol,
    /// The only host address that answers; `None` is every local address of both families.
    pub address: Option<IpAddr>,
    /// The host port, or block.
    pub host: PortRange,
    /// The first container port.
    pub container: u16,
    /// The instance's IPv4 address, when it has one.
    pub v4: Option<Ipv4Addr>,
    /// The instance's IPv6 address, when it has one.
    pub v6: Option<Ipv6Addr>,
}

/// What makes a mapping unique: no two mappings may answer the same packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingKey {
    /// The protocol.
    pub protocol: Protocol,
    /// The host address, or all of them.
    pub address: Option<IpAddr>,
    /// The host ports.
    pub host: PortRange,
}

impl Mapping {
    /// Its key.
    pub const fn key(&self) -> MappingKey {
        MappingKey { protocol: self.protocol, address: self.address, host: self.host }
    }
}
