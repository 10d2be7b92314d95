//! What a plan refuses.

use std::{fmt, net::IpAddr};

use portolan_model::{Mapping, MappingKey};

use crate::Placement;

/// Why a mapping was not taken. The plan is as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A packet to a port in both would have two destinations.
    #[error("{} overlaps {}, which is mapped already: remove that first", Shown(.new), Shown(.present))]
    Overlap {
        /// What was to be added.
        new: MappingKey,
        /// What is there.
        present: MappingKey,
    },
    /// Nothing with this key is mapped.
    #[error("{} is not mapped", Shown(.0))]
    Unknown(MappingKey),
    /// The mapping has no instance address of the version of its host address, or none at all.
    #[error("{} leads nowhere: the instance has no {}", Shown(.0), wanted(.0))]
    Nowhere(MappingKey),
    /// The host address cannot be one that clients reach from elsewhere.
    #[error(
        "{} cannot be published: loopback, link-local IPv6, multicast and unspecified addresses are not served (leave the address out for all addresses)",
        Shown(.0)
    )]
    Address(MappingKey),
    /// The instance's address is in none of the configured networks, so nothing that it sends would be recognised.
    #[error("{} leads to {instance}, which is in none of the instances' networks", Shown(.key))]
    Stranger {
        /// The mapping.
        key: MappingKey,
        /// Where it leads.
        instance: IpAddr,
    },
    /// A block keeps its numbers: one element of a map cannot shift them.
    #[error(
        "{} leads to container port {container}: a block has the same numbers outside and inside, use {}",
        Shown(.key), .key.host.first()
    )]
    Shifted {
        /// The mapping.
        key: MappingKey,
        /// The first container port.
        container: u16,
    },
    /// Port 0 is no port.
    #[error("{} leads to container port 0: use 1 to 65535", Shown(.0))]
    ContainerZero(MappingKey),
    /// The configuration cannot be made into rules.
    #[error("the data plane's configuration: {0}")]
    Config(String),
}

impl PlanError {
    /// Refuses what no plan can hold, whatever else is mapped.
    pub(crate) fn of(mapping: &Mapping, placement: Placement) -> Option<Self> {
        let key = mapping.key();
        let reachable = |address: IpAddr| match address {
            // See `crate::ingress` for what reaches a mapping of the loopback.
            IpAddr::V4(v4) if v4.is_loopback() => placement == Placement::Any,
            IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
            IpAddr::V6(v6) => {
                !(v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local())
            }
        };
        let leads_somewhere = match key.address {
            Some(IpAddr::V4(_)) => mapping.v4.is_some(),
            Some(IpAddr::V6(_)) => mapping.v6.is_some(),
            None => mapping.v4.is_some() || mapping.v6.is_some(),
        };
        if key.address.is_some_and(|address| !reachable(address)) {
            Some(Self::Address(key))
        } else if !leads_somewhere {
            Some(Self::Nowhere(key))
        } else if mapping.container == 0 {
            Some(Self::ContainerZero(key))
        } else if !key.host.is_single() && mapping.container != key.host.first() {
            Some(Self::Shifted { key, container: mapping.container })
        } else {
            None
        }
    }
}

fn wanted(key: &MappingKey) -> &'static str {
    match key.address {
        None => "address",
        Some(IpAddr::V4(_)) => "IPv4 address",
        Some(IpAddr::V6(_)) => "IPv6 address",
    }
}

/// `udp 192.0.2.1:21000-21099`, as people write it.
struct Shown<'a>(&'a MappingKey);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MappingKey { protocol, address, host } = self.0;
        match address {
            Some(IpAddr::V6(address)) => write!(f, "{protocol} [{address}]:{host}"),
            Some(IpAddr::V4(address)) => write!(f, "{protocol} {address}:{host}"),
            None => write!(f, "{protocol} port {host}"),
        }
    }
}
