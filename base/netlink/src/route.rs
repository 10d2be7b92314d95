//! Links, addresses and routes of a network namespace over `NETLINK_ROUTE` (rtnetlink(7)).
//!
//! [`Rtnl`] is the door; what it can do is spread over [`link`] (veth pairs, up, MTU), [`address`], [`table`] (routes),
//! `neighbour` (who has which link layer address) and [`own`] (which addresses others can reach this machine by). It speaks to the namespace in which it was opened:
//! for another one, open it there, `namespace.run(Rtnl::open)`.
//!
//! Messages are written and read by this crate's own flat codec: the few attributes of a veth, an address and a route
//! are less code than their conversion to and from the types of a general crate, and a reader that looks only for
//! what it needs does not fail on what a newer kernel adds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    attribute::Attribute,
    error::NetlinkError,
    message::{ACK, Message, MessageWriter},
    socket::{Bus, Socket},
};

pub mod address;
pub mod link;
mod neighbour;
pub mod own;
pub mod table;

pub use address::{Address, NewAddress, Scope};
pub use link::{Link, Veth};
pub use own::{Primary, default_route_address, node_addresses, primary_addresses, primary_addresses_except};
pub use table::Route;

/// Why something with links, addresses or routes failed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The exchange with the kernel failed, or the kernel refused.
    #[error("{action}: {source}")]
    Netlink {
        /// What was tried, and on what.
        action: String,
        /// Why it failed.
        source: NetlinkError,
    },
    /// The name cannot be that of an interface.
    #[error("{0:?} cannot name an interface: 1 to 15 bytes, without '/', ':' and blanks")]
    BadName(String),
}

impl RouteError {
    fn during(action: impl Into<String>) -> impl FnOnce(NetlinkError) -> Self {
        let action = action.into();
        move |source| Self::Netlink { action, source }
    }

    /// Whether it says that the object is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Netlink { source, .. } if source.is_absent())
    }

    /// Whether it says that the object is there already.
    pub fn is_present(&self) -> bool {
        matches!(self, Self::Netlink { source, .. } if source.is_present())
    }
}

/// The door to the links, addresses and routes of one network namespace.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
}

impl Rtnl {
    /// Opens it for the network namespace of the calling thread.
    pub fn open() -> Result<Self, RouteError> {
        let socket = Socket::open(Bus::Route).map_err(RouteError::during("opening the routing socket"))?;
        Ok(Self { socket })
    }

    /// Asks for one object and reads the answer with `parse`; `None` when the kernel says that it is not there.
    fn get<T>(
        &self,
        kind: u16,
        write: impl FnOnce(&mut MessageWriter),
        parse: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut writer = MessageWriter::new();
        writer.begin(kind, ACK, sequence);
        write(&mut writer);
        writer.finish()?;
        let mut found = None;
        match self.socket.exchange(writer.as_bytes(), sequence, |message| found = parse(message)) {
            Ok(()) => Ok(found),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// `AF_INET` or `AF_INET6`, as one byte.
const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

/// Writes an address as an attribute of 4 or 16 bytes.
fn write_address(writer: &mut MessageWriter, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => writer.bytes(kind, &address.octets()),
        IpAddr::V6(address) => writer.bytes(kind, &address.octets()),
    }
}

/// Reads an address of 4 or 16 bytes.
fn read_address(attribute: &Attribute<'_>) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(attribute.payload) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(attribute.payload).ok().map(|octets| Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests;
