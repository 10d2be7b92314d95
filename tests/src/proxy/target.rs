//! What a client connects to: protocols, and the addresses that Services have by their numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::world::{FAMILIES, Family};

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// All three.
pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

impl Protocol {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// Where a client connects to.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// By what.
    pub protocol: Protocol,
    /// The address and the port.
    pub address: SocketAddr,
}

/// Every address of the services' networks that no case uses.
pub fn unallocated(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, 200, 200).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xc8c8).into(),
    }
}

/// The addresses of Services by their number; the first thousand are not given by the API server itself.
pub(super) fn cluster_address(number: u16, family: Family) -> IpAddr {
    let [high, low] = (1024 + number).to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, high, low).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 1024 + number).into(),
    }
}

/// Addresses that are on no interface: of load balancers (1) and external ones (2).
pub(super) fn outside_address(kind: u8, number: u16, family: Family) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(100, 64 + kind, high, low).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, kind.into(), 0, 0, 0, number).into(),
    }
}

/// All families and protocols.
pub fn all_kinds() -> impl Iterator<Item = (Family, Protocol)> {
    FAMILIES.into_iter().flat_map(|family| PROTOCOLS.into_iter().map(move |protocol| (family, protocol)))
}
