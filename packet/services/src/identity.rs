//! What the keys of the maps are made of: who is asked, who a Service port is, who answers.
//!
//! A Service port is known by its cluster address, protocol and port. That is unique by itself, so no number has to be
//! invented: what the kernel holds follows from the objects alone, and `nft list` can be read.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use portolan_model::{PortRange, Protocol};
use portolan_nft::{Data, Element};
use portolan_plan::Version;

/// A Service port in one version of IP: its cluster address, protocol and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The Service's port.
    pub port: u16,
}

impl Identity {
    /// Behind what is there already.
    pub(crate) fn append_to(&self, data: Data) -> Data {
        data.protocol(self.protocol.number()).port(self.port).ip(self.address)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.address, self.port), self.protocol)
    }
}

/// An endpoint's address and port. Smaller than a [`SocketAddr`], as there are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0 where the port that was asked for is kept.
    pub port: u16,
}

impl Target {
    /// Both as one.
    pub const fn socket(self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port == 0 { self.address.fmt(f) } else { self.socket().fmt(f) }
    }
}

/// A way in: what clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Front {
    /// One port of an address: a cluster address, an external one or a load balancer's.
    Port {
        /// The address.
        address: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// A port of the node, in one version of IP.
    Node {
        /// The version.
        version: Version,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// A run of ports of an address.
    Span {
        /// The address.
        address: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The ports.
        ports: PortRange,
    },
    /// Everything else that goes to an address.
    Address(
        /// The address.
        IpAddr,
    ),
}

/// The kinds of [`Front`]; each has maps of its own, since their keys differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// One port of an address.
    Port,
    /// A port of the node.
    Node,
    /// A run of ports of an address.
    Span,
    /// A whole address.
    Address,
}

impl Space {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Port, Self::Node, Self::Span, Self::Address];

    /// Whether the port that was asked for is kept.
    pub const fn keeps_port(self) -> bool {
        matches!(self, Self::Span | Self::Address)
    }
}

impl Front {
    /// Its kind.
    pub const fn space(&self) -> Space {
        match self {
            Self::Port { .. } => Space::Port,
            Self::Node { .. } => Space::Node,
            Self::Span { .. } => Space::Span,
            Self::Address(_) => Space::Address,
        }
    }

    /// Its version of IP.
    pub const fn version(&self) -> Version {
        match self {
            Self::Port { address, .. } | Self::Span { address, .. } | Self::Address(address) => {
                Version::of(*address)
            }
            Self::Node { version, .. } => *version,
        }
    }

    /// Its address; none for ports of the node.
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Port { address, .. } | Self::Span { address, .. } | Self::Address(address) => {
                Some(*address)
            }
            Self::Node { .. } => None,
        }
    }

    /// The frontend of an element of `services4` and its like; `None` for what no frontend can be.
    pub fn read(space: Space, version: Version, element: &Element) -> Option<Self> {
        let protocol = |key: &Data| {
            let number = *key.as_bytes().first()?;
            Protocol::ALL.into_iter().find(|one| one.number() == number)
        };
        let port = |key: &Data| Some(u16::from_be_bytes(key.as_bytes().get(4..6)?.try_into().ok()?));
        let key = &element.key;
        let address = || address_at_end(version, key.as_bytes());
        Some(match space {
            Space::Node => Self::Node { version, protocol: protocol(key)?, port: port(key)? },
            Space::Port => Self::Port { address: address()?, protocol: protocol(key)?, port: port(key)? },
            Space::Span => {
                let ports = PortRange::new(port(key)?, port(element.last())?).ok()?;
                Self::Span { address: address()?, protocol: protocol(key)?, ports }
            }
            Space::Address => Self::Address(address()?),
        })
    }

    /// The key of its elements, and the last key of an interval.
    pub(crate) fn data(&self) -> (Data, Option<Data>) {
        let at = |address: IpAddr, protocol: Protocol, port| {
            Data::new().protocol(protocol.number()).port(port).ip(address)
        };
        match *self {
            Self::Port { address, protocol, port } => (at(address, protocol, port), None),
            Self::Node { protocol, port, .. } => (Data::new().protocol(protocol.number()).port(port), None),
            Self::Span { address, protocol, ports } => {
                let (first, last) =
                    (at(address, protocol, ports.first()), at(address, protocol, ports.last()));
                let last = (first != last).then_some(last);
                (first, last)
            }
            Self::Address(address) => (address.into(), None),
        }
    }
}

/// The address that a key ends with.
pub(crate) fn address_at_end(version: Version, bytes: &[u8]) -> Option<IpAddr> {
    match version {
        Version::V4 => bytes.last_chunk::<4>().map(|address| (*address).into()),
        Version::V6 => bytes.last_chunk::<16>().map(|address| (*address).into()),
    }
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { address, protocol, port } => {
                write!(f, "{}/{protocol}", SocketAddr::new(*address, *port))
            }
            Self::Node { protocol, port, .. } => write!(f, "node port {port}/{protocol}"),
            Self::Span { address: IpAddr::V6(address), protocol, ports } => {
                write!(f, "[{address}]:{ports}/{protocol}")
            }
            Self::Span { address, protocol, ports } => write!(f, "{address}:{ports}/{protocol}"),
            Self::Address(address) => write!(f, "all of {address}"),
        }
    }
}
