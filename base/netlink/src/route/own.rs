//! By which addresses others reach this machine.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{Address, Link, RouteError, Rtnl, Scope};

/// An address that is surely in the world: the name server `a.root-servers.net` (<https://www.internic.net/zones/named.root>).
/// It is only looked up in the routes; nothing is sent there.
const WORLD: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 41, 0, 4), Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30));

/// The addresses by which a machine reaches the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Primary {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Primary {
    /// Both, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

/// All addresses by which others can reach this namespace: of global scope, usable, on interfaces that are up, not
/// the loopback, and not one whose name begins with one of `except`. In the order of the interfaces.
pub fn node_addresses(except: &[&str]) -> Result<Vec<IpAddr>, RouteError> {
    Ok(reachable(&Rtnl::open()?, except)?.into_iter().map(|address| address.net.addr()).collect())
}

/// The addresses that this machine would use as its own to reach the world: what the kernel's routes say (the
/// preferred source of the default route, or the first fitting address of its interface); without a route to the
/// world the first of [`node_addresses`]; otherwise none.
pub fn primary_addresses() -> Result<Primary, RouteError> {
    primary_addresses_except(&[])
}

/// [`primary_addresses`] which, where there is no route to the world, passes over the interfaces whose name begins
/// with one of `except`.
pub fn primary_addresses_except(except: &[&str]) -> Result<Primary, RouteError> {
    let rtnl = Rtnl::open()?;
    let all = reachable(&rtnl, except)?;
    let first = |v4: bool| {
        let mut found: Vec<_> = all.iter().filter(|a| a.net.addr().is_ipv4() == v4).collect();
        // A temporary IPv6 address is gone tomorrow: only when there is no other.
        found.sort_by_key(|address| address.secondary);
        found.first().map(|address| address.net.addr())
    };
    let (mut primary, (world_v4, world_v6)) = (Primary::default(), WORLD);
    if let Some(IpAddr::V4(address)) = towards(&rtnl, world_v4.into())?.or_else(|| first(true)) {
        primary.v4 = Some(address);
    }
    if let Some(IpAddr::V6(address)) = towards(&rtnl, world_v6.into())?.or_else(|| first(false)) {
        primary.v6 = Some(address);
    }
    Ok(primary)
}

/// The one address by which this machine reaches the world, IPv4 rather than IPv6.
pub fn default_route_address() -> Result<Option<IpAddr>, RouteError> {
    let primary = primary_addresses()?;
    Ok(primary.iter().next())
}

/// The source address of packets to `world`, when it is one that others can answer to.
fn towards(rtnl: &Rtnl, world: IpAddr) -> Result<Option<IpAddr>, RouteError> {
    let source = rtnl.lookup(world)?.and_then(|route| route.source);
    Ok(source.filter(|address| !address.is_loopback() && !address.is_unspecified()))
}

fn reachable(rtnl: &Rtnl, except: &[&str]) -> Result<Vec<Address>, RouteError> {
    let links: HashMap<u32, Link> = rtnl.links()?.into_iter().map(|link| (link.index, link)).collect();
    let mut found = rtnl.addresses()?;
    found.retain(|address| {
        address.scope == Scope::Global
            && address.usable
            && links.get(&address.index).is_some_and(|link| {
                link.up && !link.loopback && !except.iter().any(|prefix| link.name.starts_with(prefix))
            })
    });
    found.sort_by_key(|address| address.index);
    Ok(found)
}
