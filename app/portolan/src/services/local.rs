//! Node ports on the loopback: the endpoints that a client on the node is sent to.

use std::collections::BTreeMap;

use portolan_model::{EndpointSlice, ObjectName, Protocol, ServiceNode};
use portolan_relay::{LocalNodePort, service::Backend};
use portolan_services::{List, Version, select};

use super::desired::Desired;

/// All of them. A client on the node is sent to endpoints of every node, whatever the policy for others.
pub(crate) fn ports(desired: &Desired, node: &ServiceNode) -> Vec<LocalNodePort> {
    let mut by_service: BTreeMap<&ObjectName, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in desired.slices.values() {
        by_service.entry(&slice.service).or_default().push(slice);
    }
    let mut ports = Vec::new();
    for service in desired.services.values() {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Sctp) {
            let Some(number) = port.node_port else { continue };
            let backends = [Version::V4, Version::V6].into_iter().flat_map(|version| {
                let slices = by_service.get(&service.name).into_iter().flatten().copied();
                let chosen = select(service, (&port.name, port.protocol), slices, version, node);
                let all = chosen.list(List::Cluster).map(|one| Backend {
                    address: (one.target.address, one.target.port).into(),
                    weight: one.weight,
                });
                all.collect::<Vec<_>>()
            });
            ports.push(LocalNodePort {
                service: (service.name.clone(), port.name.clone()),
                protocol: port.protocol,
                port: number,
                backends: backends.collect(),
                affinity: service.affinity,
            });
        }
    }
    ports
}
