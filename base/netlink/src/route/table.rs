//! Routes of the main table, and the kernel's own answer to "which way would this packet go".

use std::net::IpAddr;

use ipnet::IpNet;

use super::{RouteError, Rtnl, family, read_address, write_address};
use crate::{
    attribute::{Attributes, attributes},
    message::{CREATE, EXCLUSIVE, Message, MessageWriter, REPLACE},
};

const NEW: u16 = 24;
const DELETE: u16 = 25;
const GET: u16 = 26;

/// The size of `struct rtmsg`.
const FIXED: usize = 12;
/// The size of `struct rtnexthop`.
const NEXT_HOP: usize = 8;

// enum rtattr_type_t in include/uapi/linux/rtnetlink.h.
const DESTINATION: u16 = 1;
const INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
const METRIC: u16 = 6;
const SOURCE: u16 = 7;
const MULTIPATH: u16 = 9;
const TABLE: u16 = 15;

const TABLE_MAIN: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const SCOPE_GLOBAL: u8 = 0;
const SCOPE_LINK: u8 = 253;
const TYPE_UNICAST: u8 = 1;
/// `RTNH_F_ONLINK`.
const ONLINK: u32 = 4;

/// A way for packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; a prefix length of 0 is the default route.
    pub destination: IpNet,
    /// The router; `None` for what is on the link itself. Of a route with several next hops, the first.
    pub gateway: Option<IpAddr>,
    /// The interface's number. Of a route with several next hops, the first.
    pub interface: Option<u32>,
    /// Which source address packets without one get.
    pub source: Option<IpAddr>,
    /// Of several routes to one destination the lowest counts; `None` for the kernel's default.
    pub metric: Option<u32>,
    /// Whether the gateway is on the link although no address of ours says so. Only in routes to be added.
    pub onlink: bool,
}

impl Route {
    /// A route to what is on an interface itself.
    pub fn device(destination: IpNet, interface: u32) -> Self {
        let (gateway, source, metric) = (None, None, None);
        Self { destination, gateway, interface: Some(interface), source, metric, onlink: false }
    }

    /// A route by a router that is reached directly by this interface, whatever the addresses there are.
    pub fn onlink(destination: IpNet, gateway: IpAddr, interface: u32) -> Self {
        Self { gateway: Some(gateway), onlink: true, ..Self::device(destination, interface) }
    }

    /// The same with a source address.
    #[must_use]
    pub fn with_source(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }
}

impl Rtnl {
    /// The unicast routes of the main table, both families.
    pub fn routes(&self) -> Result<Vec<Route>, RouteError> {
        self.socket
            .dump(
                GET,
                |w| w.raw(&[0; FIXED]),
                Vec::new,
                |routes, message| routes.extend(parse(message, true)),
            )
            .map_err(RouteError::during("listing the routes"))
    }

    /// Adds a route to the main table. Fails with [`RouteError::is_present`] when there is one like it.
    pub fn add_route(&self, route: &Route) -> Result<(), RouteError> {
        self.write_route(NEW, CREATE | EXCLUSIVE, route)
            .map_err(RouteError::during(format!("adding the route to {}", route.destination)))
    }

    /// Adds a route to the main table in the place of the one to this destination with this metric, if there is one.
    pub fn replace_route(&self, route: &Route) -> Result<(), RouteError> {
        self.write_route(NEW, CREATE | REPLACE, route)
            .map_err(RouteError::during(format!("setting the route to {}", route.destination)))
    }

    /// Takes a route out of the main table; `false` when it was not there.
    pub fn delete_route(&self, route: &Route) -> Result<bool, RouteError> {
        match self.write_route(DELETE, 0, route) {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(source) => Err(RouteError::Netlink {
                action: format!("deleting the route to {}", route.destination),
                source,
            }),
        }
    }

    /// The way that a packet of ours to `destination` would take now, with the source address it would have; `None`
    /// when there is none. Nothing is sent.
    pub fn lookup(&self, destination: IpAddr) -> Result<Option<Route>, RouteError> {
        let bits = if destination.is_ipv4() { 32 } else { 128 };
        let write = |w: &mut MessageWriter| {
            let mut fixed = [0; FIXED];
            (fixed[0], fixed[1]) = (family(destination), bits);
            w.raw(&fixed);
            write_address(w, DESTINATION, destination);
        };
        let unreachable = [rustix::io::Errno::NETUNREACH, rustix::io::Errno::HOSTUNREACH];
        match self.get(GET, write, |message| parse(message, false)) {
            Err(error) if unreachable.iter().any(|e| Some(e.raw_os_error()) == error.errno()) => Ok(None),
            result => result.map_err(RouteError::during(format!("looking up the route to {destination}"))),
        }
    }

    fn write_route(&self, kind: u16, flags: u16, route: &Route) -> Result<(), crate::NetlinkError> {
        let Route { destination, gateway, .. } = *route;
        // IPv4 wants to know that what has no gateway is on the link; IPv6 does not look.
        let scope = if gateway.is_none() && destination.addr().is_ipv4() { SCOPE_LINK } else { SCOPE_GLOBAL };
        let mut fixed = [0; FIXED];
        (fixed[0], fixed[1]) = (family(destination.addr()), destination.prefix_len());
        fixed[4..8].copy_from_slice(&[TABLE_MAIN, PROTOCOL_STATIC, scope, TYPE_UNICAST]);
        fixed[8..12].copy_from_slice(&(if route.onlink { ONLINK } else { 0 }).to_ne_bytes());
        self.socket.transact(kind, flags, |w| {
            w.raw(&fixed);
            write_address(w, DESTINATION, destination.network());
            if let Some(gateway) = gateway {
                write_address(w, GATEWAY, gateway);
            }
            if let Some(interface) = route.interface {
                w.u32(INTERFACE, interface);
            }
            if let Some(source) = route.source {
                write_address(w, SOURCE, source);
            }
            if let Some(metric) = route.metric {
                w.u32(METRIC, metric);
            }
        })
    }
}

/// Reads a route; of a dump (`main_only`) only unicast ones of the main table.
fn parse(message: &Message<'_>, main_only: bool) -> Option<Route> {
    let fixed: &[u8; FIXED] = message.payload.first_chunk().filter(|_| message.kind == NEW)?;
    let found = message.attributes(FIXED);
    // The table's number in the fixed part has 8 bits only.
    let table = found.find(TABLE).and_then(|table| table.u32()).unwrap_or(u32::from(fixed[4]));
    if main_only && (table != u32::from(TABLE_MAIN) || fixed[7] != TYPE_UNICAST) {
        return None;
    }
    let everything: IpAddr = if fixed[0] == 2 { [0; 4].into() } else { [0; 16].into() };
    let address = |attributes: &Attributes<'_>, kind| attributes.find(kind).and_then(|a| read_address(&a));
    let mut route = Route {
        destination: IpNet::new(address(&found, DESTINATION).unwrap_or(everything), fixed[1]).ok()?,
        gateway: address(&found, GATEWAY),
        interface: found.find(INTERFACE).and_then(|index| index.u32()),
        source: address(&found, SOURCE),
        metric: found.find(METRIC).and_then(|metric| metric.u32()),
        onlink: false,
    };
    if let Some(hops) = found.find(MULTIPATH)
        && let Some(fixed) = hops.payload.first_chunk::<NEXT_HOP>()
    {
        let length = usize::from(u16::from_ne_bytes([fixed[0], fixed[1]]));
        route.interface = Some(u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]));
        route.gateway = address(&attributes(hops.payload.get(NEXT_HOP..length)?), GATEWAY);
    }
    Some(route)
}
