//! Which endpoints of a Service port may get new connections on a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use portolan_model::{Endpoint, Service, ServicePort};

use super::World;

/// One that may be chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub endpoint: SocketAddr,
    /// On this node.
    pub is_local: bool,
}

/// Those for the policy Cluster and those for the policy Local.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    pub cluster: BTreeSet<Candidate>,
    pub local: BTreeSet<Candidate>,
}

pub fn lists(world: &World, service: &Service, port: &ServicePort, ipv4: bool) -> Lists {
    let all = merged(world, service, port, ipv4);
    let is_local = |endpoint: &Endpoint| endpoint.node.as_deref() == Some(world.node.name.as_str());
    let candidates = |endpoints: &BTreeMap<SocketAddr, &Endpoint>| {
        let candidate = |(address, endpoint): (&SocketAddr, &&Endpoint)| Candidate {
            endpoint: *address,
            is_local: is_local(endpoint),
        };
        endpoints.iter().map(candidate).collect::<BTreeSet<_>>()
    };
    let here = all.iter().filter(|(_, endpoint)| is_local(endpoint));
    let here = here.map(|(address, endpoint)| (*address, *endpoint)).collect();
    Lists { cluster: candidates(&hinted(world, in_use(&all))), local: candidates(&in_use(&here)) }
}

/// All slices of a Service together. The port is that of the same name and protocol in each slice. An address that is
/// there twice was given anew: what is not on its way out counts.
fn merged<'w>(
    world: &'w World,
    service: &Service,
    port: &ServicePort,
    ipv4: bool,
) -> BTreeMap<SocketAddr, &'w Endpoint> {
    let mut all: BTreeMap<SocketAddr, &Endpoint> = BTreeMap::new();
    for slice in world.slices.iter().filter(|slice| slice.service == service.name) {
        for target in slice.ports.iter().filter(|it| it.name == port.name && it.protocol == port.protocol) {
            for endpoint in slice.endpoints.iter().filter(|it| it.address.is_ipv4() == ipv4) {
                let address = SocketAddr::new(endpoint.address, target.port);
                all.entry(address)
                    .and_modify(|known| {
                        if known.terminating && !endpoint.terminating {
                            *known = endpoint;
                        }
                    })
                    .or_insert(endpoint);
            }
        }
    }
    all
}

/// The ready ones; without any, those that leave and still answer (KEP-1669).
fn in_use<'w>(all: &BTreeMap<SocketAddr, &'w Endpoint>) -> BTreeMap<SocketAddr, &'w Endpoint> {
    let those = |wanted: fn(&Endpoint) -> bool| -> BTreeMap<SocketAddr, &'w Endpoint> {
        all.iter().filter(|(_, it)| wanted(it)).map(|(address, it)| (*address, *it)).collect()
    };
    let ready = those(|endpoint| endpoint.ready);
    if ready.is_empty() { those(|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
}

/// Hints narrow a list down, if every ready endpoint has one and one of them names this node, or else this zone
/// (KEP-2433, KEP-3015). Those that leave have none that mean anything.
fn hinted<'w>(world: &World, all: BTreeMap<SocketAddr, &'w Endpoint>) -> BTreeMap<SocketAddr, &'w Endpoint> {
    if all.values().any(|endpoint| !endpoint.ready) {
        return all;
    }
    let own_zone = world.node.zone.as_deref();
    let narrowed = |names: fn(&Endpoint) -> &Vec<String>, own: Option<&str>| {
        let own = own?;
        if all.values().any(|endpoint| names(endpoint).is_empty()) {
            return None;
        }
        let fitting = all.iter().filter(|(_, endpoint)| names(endpoint).iter().any(|name| name == own));
        let fitting: BTreeMap<_, _> = fitting.map(|(address, endpoint)| (*address, *endpoint)).collect();
        (!fitting.is_empty()).then_some(fitting)
    };
    narrowed(|endpoint| &endpoint.nodes, Some(&world.node.name))
        .or_else(|| narrowed(|endpoint| &endpoint.zones, own_zone))
        .unwrap_or(all)
}
