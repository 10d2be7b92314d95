//! The machine that the rules run on: its addresses and routes, as far as rules and the way of a packet need them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;

/// What an address is to a machine: `RTN_*` of `linux/rtnetlink.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum AddressType {
    /// Nothing special (IPv6: the unspecified address).
    Unspecified = 0,
    /// Somebody else's.
    Unicast = 1,
    /// Its own.
    Local = 2,
    /// Everybody's of a network.
    Broadcast = 3,
    /// One of several machines' (IPv6).
    Anycast = 4,
    /// A group's.
    Multicast = 5,
    /// Nobody's: no route leads there (IPv6).
    Unreachable = 7,
}

/// A way out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// To where.
    pub network: IpNet,
    /// Through which interface.
    pub interface: String,
    /// With which address of that interface as source: what masquerading gives.
    pub source: IpAddr,
}

/// Addresses, routes, interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    addresses: BTreeMap<IpAddr, AddressType>,
    // In the order of their indices.
    interfaces: Vec<(String, Vec<IpAddr>)>,
    routes: Vec<Route>,
}

impl Host {
    /// One with its loopback addresses only.
    pub fn new() -> Self {
        Self::default()
    }

    /// With an address of its own.
    #[must_use]
    pub fn local(self, address: IpAddr) -> Self {
        self.address(address, AddressType::Local)
    }

    /// With addresses of its own on an interface. Interfaces are given in the order of their indices.
    #[must_use]
    pub fn interface(mut self, name: impl Into<String>, addresses: &[IpAddr]) -> Self {
        self.interfaces.push((name.into(), addresses.to_vec()));
        addresses.iter().fold(self, |host, address| host.local(*address))
    }

    /// With an address of this type.
    #[must_use]
    pub fn address(mut self, address: IpAddr, kind: AddressType) -> Self {
        self.addresses.insert(address, kind);
        self
    }

    /// With a way out.
    #[must_use]
    pub fn route(mut self, network: IpNet, interface: impl Into<String>, source: IpAddr) -> Self {
        self.routes.push(Route { network, interface: interface.into(), source });
        self
    }

    /// What an address is to it. IPv4 asks the table of local addresses only (`inet_dev_addr_type`), IPv6 all routes
    /// (`nft_fib6_eval_type`), v6.18. A host of which no routes are known reaches everything.
    pub fn kind(&self, address: IpAddr) -> AddressType {
        if let Some(kind) = self.addresses.get(&address) {
            return *kind;
        }
        match address {
            IpAddr::V4(v4) if v4.is_loopback() => AddressType::Local,
            IpAddr::V4(v4) if v4.octets()[0] == 0 || v4 == Ipv4Addr::BROADCAST => AddressType::Broadcast,
            IpAddr::V6(v6) if v6.is_loopback() => AddressType::Local,
            IpAddr::V6(v6) if v6.is_unspecified() => AddressType::Unspecified,
            address if address.is_multicast() => AddressType::Multicast,
            IpAddr::V6(_) if !self.routes.is_empty() && self.way(address).is_none() => {
                AddressType::Unreachable
            }
            _ => AddressType::Unicast,
        }
    }

    /// Whether it is its own.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.kind(address) == AddressType::Local
    }

    /// The way out to an address: the most specific.
    pub fn way(&self, address: IpAddr) -> Option<&Route> {
        let fitting = self.routes.iter().filter(|route| route.network.contains(&address));
        fitting.max_by_key(|route| route.network.prefix_len())
    }

    /// Whether it knows any route; if not, everything is reachable by an unknown interface.
    pub fn has_routes(&self) -> bool {
        !self.routes.is_empty()
    }

    /// The first address of that family on an interface.
    pub(super) fn first(&self, interface: &str, ipv4: bool) -> Option<IpAddr> {
        let named = self.interfaces.iter().filter(|(name, _)| name == interface);
        named.flat_map(|(_, addresses)| addresses).copied().find(|address| address.is_ipv4() == ipv4)
    }

    /// The source that masquerading gives over the loopback, which has no address of its own for it: of IPv4 the first
    /// of any interface (`inet_select_addr`), of IPv6 the destination itself (`ipv6_dev_get_saddr`, RFC 6724 rule 1).
    pub(super) fn over_loopback(&self, to: IpAddr) -> IpAddr {
        let mut all = self.interfaces.iter().flat_map(|(_, addresses)| addresses).copied();
        let first = all.find(|address| address.is_ipv4() && !address.is_loopback());
        first.filter(|_| to.is_ipv4()).unwrap_or(to)
    }
}
