//! Which of many mappings a change has to do with: what a process that lives for one change alone needs to look at.
//!
//! Elements of a mapping depend on the mappings that lead to the same instances (which of them wins on the way back,
//! which is the last one), and whether it may come on those that share a port with it. All others could be anything.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use portolan_model::{Mapping, MappingKey, PortRange, Protocol};

use crate::Flow;

/// Those of `mappings` on which the outcome of this change depends, those to be removed among them.
pub fn concerned<'a>(
    mappings: &'a [Mapping],
    remove: &[MappingKey],
    add: &[Mapping],
) -> impl Iterator<Item = &'a Mapping> + use<'a> {
    let remove: HashSet<MappingKey> = remove.iter().copied().collect();
    let removed = mappings.iter().filter(|mapping| remove.contains(&mapping.key()));
    let instances: HashSet<IpAddr> = removed.chain(add).flat_map(instances).collect();
    let ports: Vec<(Protocol, PortRange)> =
        add.iter().map(|mapping| (mapping.protocol, mapping.host)).collect();
    mappings.iter().filter(move |mapping| {
        remove.contains(&mapping.key())
            || self::instances(mapping).any(|instance| instances.contains(&instance))
            || ports
                .iter()
                .any(|(protocol, host)| mapping.protocol == *protocol && host.overlaps(mapping.host))
    })
}

/// Those of `mappings` on which it depends whether these flows are stale.
pub fn concerned_by_flows<'a>(
    mappings: &'a [Mapping],
    flows: &[Flow],
) -> impl Iterator<Item = &'a Mapping> + use<'a> {
    let ends = || flows.iter().flat_map(|flow| [flow.asked, flow.client]);
    let mut ports: Vec<u16> = ends().map(|end: SocketAddr| end.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    let clients: HashSet<IpAddr> = flows.iter().map(|flow| flow.client.ip()).collect();
    mappings.iter().filter(move |mapping| {
        let next = ports.partition_point(|port| *port < mapping.host.first());
        ports.get(next).is_some_and(|port| mapping.host.contains(*port))
            || instances(mapping).any(|instance| clients.contains(&instance))
    })
}

fn instances(mapping: &Mapping) -> impl Iterator<Item = IpAddr> + use<> {
    mapping.v4.map(IpAddr::V4).into_iter().chain(mapping.v6.map(IpAddr::V6))
}
