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

use crate::{Plan, ingress};

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
    /// Whether the kernel treats this flow otherwise than the plan would. `is_local`: whether an address is one of this
    /// machine's own.
    pub fn is_stale(&self, flow: &Flow, is_local: impl Fn(IpAddr) -> bool) -> bool {
        let is_instance = |address| self.config().is_instance(address);
        let for_us = is_served(flow.asked.ip()) && is_local(flow.asked.ip());
        let rewritten = flow.asked != flow.server;
        if for_us {
            match self.destination(flow.protocol, flow.asked) {
                // To another instance, or to a socket of this machine: from before the mapping.
                Some(target) if flow.server != target => return true,
                // To an instance although nothing is mapped: from a mapping that is gone.
                None if rewritten && is_instance(flow.server.ip()) => return true,
                _ => {}
            }
        }
        // A socket of this machine that had the number before it was mapped: its peer would be heard by nobody.
        if is_served(flow.client.ip()) && is_local(flow.client.ip()) && flow.seen == flow.client {
            return self.destination(flow.protocol, flow.client).is_some();
        }
        // From an instance to this machine itself, or straight to another instance: never rewritten.
        let stays = if for_us { !rewritten } else { is_instance(flow.asked.ip()) };
        if !is_instance(flow.client.ip()) || stays || is_multicast(flow.asked.ip()) {
            return false;
        }
        let published = self.reverse.published(flow.client.ip(), flow.protocol, flow.client.port());
        match published {
            Some((address, port)) => {
                let other_address = match address {
                    Some(address) => flow.seen.ip() != address,
                    None => flow.seen.ip() == flow.client.ip(),
                };
                flow.seen.port() != port || other_address
            }
            // Still leaving with a number that was published and is not any more.
            None => {
                flow.seen.ip() != flow.client.ip() && !self.config().outbound_ports.contains(flow.seen.port())
            }
        }
    }
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

    /// These and those.
    pub fn merge(&mut self, other: &Self) {
        self.everything |= other.everything;
        for (mine, theirs) in [(&mut self.host, &other.host), (&mut self.container, &other.container)] {
            mine.resize(mine.len().max(theirs.len()), 0);
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine |= theirs);
        }
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
