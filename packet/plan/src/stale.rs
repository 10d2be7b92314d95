//! Connections that the kernel tracks by rules which no longer hold.
//!
//! The nat chains see only the first packet of a connection; the others follow what connection tracking remembers. A
//! UDP "connection" has no end, so a client that goes on sending from the same port would reach the instance that
//! had the port before, or nobody, for as long as it keeps trying (kubernetes#58336, containernetworking/plugins#123;
//! 13 hours in kubernetes#139628). `packet/apply` therefore deletes such entries after each change. TCP and SCTP
//! connections are left to end by themselves.
//!
//! Which ones is decided here, flow by flow, by comparing what the kernel does with what the plan would do now.
//! Everything else survives: other ports, other protocols, and traffic that merely passes through.

use std::net::{IpAddr, SocketAddr};

use portolan_model::{Mapping, Protocol};
use portolan_nft::{Object, Transaction};

use crate::{Difference, Placement, Plan, SetId, config::contains, ingress};

/// An entry of connection tracking: who asked whom, and how that was rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The protocol.
    pub protocol: Protocol,
    /// The client as it sees itself: source of the original direction.
    pub client: SocketAddr,
    /// The server as the client sees it: destination of the original direction.
    pub asked: SocketAddr,
    /// The server as it sees itself: source of the reply direction.
    pub server: SocketAddr,
    /// The client as the server sees it: destination of the reply direction.
    pub seen: SocketAddr,
}

impl Plan {
    /// Whether the kernel treats this flow otherwise than the plan would. `touched`: the ports whose mappings came and
    /// went since flows were looked at last. `is_local`: whether an address is one of this machine's own.
    pub fn is_stale(&self, flow: &Flow, touched: &Touched, is_local: impl Fn(IpAddr) -> bool) -> bool {
        let for_us = is_served(flow.asked.ip()) && is_local(flow.asked.ip());
        let rewritten = flow.asked != flow.server;
        let target = if for_us { self.destination(flow.protocol, flow.asked) } else { None };
        match target {
            // To another instance, or to a socket of this machine: from before the mapping.
            Some(target) if flow.server != target => return true,
            // To an instance although nothing is mapped: from a mapping that is gone.
            None if for_us && rewritten && self.was_ours(flow, touched) => return true,
            _ => {}
        }
        // A socket of this machine that had the number before it was mapped: its peer would be heard by nobody.
        if is_served(flow.client.ip()) && is_local(flow.client.ip()) && flow.seen == flow.client {
            return self.destination(flow.protocol, flow.client).is_some();
        }
        if is_multicast(flow.asked.ip()) {
            return false;
        }
        let published = self.reverse.published(flow.client.ip(), flow.protocol, flow.client.port());
        match self.config().placement {
            Placement::Own => {
                // From an instance to this machine itself, or straight to another instance: never rewritten.
                let is_instance = |address| contains(&self.config().instances, address);
                let stays = if for_us { !rewritten } else { is_instance(flow.asked.ip()) };
                let masqueraded = flow.seen.ip() != flow.client.ip();
                is_instance(flow.client.ip()) && !stays && {
                    published.map_or_else(
                        // Still leaving with a number that was published and is not any more.
                        || masqueraded && !self.config().outbound_ports.contains(flow.seen.port()),
                        |published| differs(flow, published),
                    )
                }
            }
            Placement::Any => {
                // Only these pass the rules of the way back: to an instance by our rules, or to the outside.
                let outside = (!for_us || rewritten) && !self.config().is_direct(flow.server.ip());
                if target.is_none() && !outside {
                    return false;
                }
                published.map_or_else(
                    || {
                        if target.is_some() && self.is_between_local(flow) {
                            return flow.seen == flow.client;
                        }
                        let shown = flow.seen.port();
                        // Whatever others do to what is not ours, it must not show a number that is.
                        flow.seen != flow.client
                            && is_local(flow.seen.ip())
                            && !is_local(flow.client.ip())
                            && (self.is_of_pool(shown) || touched.names(shown))
                    },
                    |published| differs(flow, published),
                )
            }
        }
    }

    /// Whether a rewritten flow to this machine, to a port that is not mapped, was rewritten by us.
    fn was_ours(&self, flow: &Flow, touched: &Touched) -> bool {
        match self.config().placement {
            Placement::Own => contains(&self.config().instances, flow.server.ip()),
            Placement::Any => self.is_of_pool(flow.asked.port()) || touched.names(flow.asked.port()),
        }
    }

    fn is_between_local(&self, flow: &Flow) -> bool {
        let local = &self.config().local;
        contains(local, flow.client.ip()) && contains(local, flow.server.ip())
    }

    fn is_of_pool(&self, port: u16) -> bool {
        self.config().pools.iter().any(|pool| pool.contains(port))
    }
}

/// Whether a flow from a mapped port leaves otherwise than with this address (`None`: one of this machine's) and port.
fn differs(flow: &Flow, (address, port): (Option<IpAddr>, u16)) -> bool {
    let other_address = match address {
        Some(address) => flow.seen.ip() != address,
        None => flow.seen.ip() == flow.client.ip(),
    };
    flow.seen.port() != port || other_address
}

/// Whether mappings are asked about this destination at all: the exceptions of the chain `ports`.
fn is_served(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

fn is_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// The ports which changes have touched: flows of other ports need not be judged.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// A bit for each port; empty for none.
    host: Vec<u64>,
    container: Vec<u64>,
    everything: bool,
}

impl Touched {
    /// Every flow is to be judged: after a start, or after others changed the rules.
    pub const fn everything() -> Self {
        Self { host: Vec::new(), container: Vec::new(), everything: true }
    }

    /// The same after this difference was found and mended: what it names is known to have been ours.
    pub fn everything_and(difference: &Difference) -> Self {
        let mut touched = Self::everything();
        touched.elements(&difference.transaction);
        touched
    }

    /// This mapping came or went. Only UDP matters.
    pub fn mapping(&mut self, mapping: &Mapping) {
        if mapping.protocol != Protocol::Udp || ingress::targets(mapping).next().is_none() {
            return;
        }
        mapping.host.iter().for_each(|port| set(&mut self.host, port));
        (mapping.container..)
            .take(mapping.host.count().into())
            .for_each(|port| set(&mut self.container, port));
    }

    /// Elements of the table came or went that a difference found: what happened to mappings while nobody looked.
    pub fn elements(&mut self, transaction: &Transaction) {
        for operation in &transaction.operations {
            let Object::Elements(elements) = &operation.object else { continue };
            let Some(set) = SetId::forwarding().find(|set| set.name() == elements.set.name) else { continue };
            for mapping in elements.elements.iter().filter_map(|element| ingress::mapping(set, element)) {
                self.mapping(&mapping);
            }
        }
    }

    /// These and those.
    pub fn merge(&mut self, other: &Self) {
        self.everything |= other.everything;
        for (mine, theirs) in [(&mut self.host, &other.host), (&mut self.container, &other.container)] {
            mine.resize(mine.len().max(theirs.len()), 0);
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine |= theirs);
        }
    }

    /// Whether a mapping of this host port came or went.
    pub fn names(&self, host: u16) -> bool {
        is_set(&self.host, host)
    }

    /// Whether no flow needs to be judged.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.host.is_empty()
    }

    /// Whether this flow needs to be judged: it goes to a touched port, comes from one of this machine's, or from an
    /// instance's.
    pub fn contains(&self, flow: &Flow) -> bool {
        self.everything
            || is_set(&self.host, flow.asked.port())
            || is_set(&self.host, flow.client.port())
            || is_set(&self.container, flow.client.port())
    }
}

fn set(bits: &mut Vec<u64>, port: u16) {
    if bits.is_empty() {
        bits.resize(1 << 10, 0);
    }
    bits[usize::from(port >> 6)] |= 1 << (port & 63);
}

fn is_set(bits: &[u64], port: u16) -> bool {
    bits.get(usize::from(port >> 6)).is_some_and(|word| word & 1 << (port & 63) != 0)
}

#[cfg(test)]
mod tests;
