//! From what people write to what is served: pure. The API server's part and the slice controller's.

use std::collections::BTreeMap;

use portolan_dns::services::{NamedEndpoint, NamedPort, ServiceName, ServiceNames};
use portolan_kubernetes::{AddressFamily, TargetPort};
use portolan_model::{EndpointSlice, ObjectName, Protocol, Service, ServiceType, TrafficPolicy};

use super::{
    allocate::{Family, Given, PortKey, Wanted},
    endpoints::{self, World},
    manifest::Written,
    shown::{Shown, ShownEndpoint, ShownPort},
};

/// Everything that follows from the files, what was exposed, the numbers given and the catalog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desired {
    /// Those with frontends.
    pub(crate) services: BTreeMap<ObjectName, Service>,
    pub(crate) slices: BTreeMap<ObjectName, EndpointSlice>,
    /// Which of them are made from instances, by Service.
    pub(crate) of_instances: BTreeMap<ObjectName, Vec<ObjectName>>,
    pub(crate) names: ServiceNames,
    /// All of them, for people.
    pub(crate) shown: Vec<Shown>,
}

/// What this Service asks of the allocator.
pub(crate) fn wanted(written: &Written, primary: Family) -> Wanted {
    let (service, more) = (&written.service.service, &written.service);
    let mut families: Vec<Family> = Vec::new();
    if !more.headless && !written.is_alias() {
        let said = more.families.iter().map(|family| match family {
            AddressFamily::V4 => Family::V4,
            AddressFamily::V6 => Family::V6,
        });
        families.extend(said);
        for address in &service.cluster_addresses {
            if !families.contains(&Family::of(*address)) {
                families.push(Family::of(*address));
            }
        }
        if families.is_empty() {
            families.push(primary);
        }
        if more.dual_stack {
            let both = [Family::V4, Family::V6];
            families.extend(both.into_iter().find(|family| !families.contains(family)));
        }
    }
    let node_ports = service.ports.iter().filter(|_| more.wants_node_ports && !written.is_alias());
    let checked =
        service.kind == ServiceType::LoadBalancer && service.external_policy == TrafficPolicy::Local;
    Wanted {
        name: service.name.clone(),
        addresses: if families.is_empty() { Vec::new() } else { service.cluster_addresses.clone() },
        families,
        node_ports: node_ports
            .map(|port| (PortKey { port: port.port, protocol: port.protocol }, port.node_port))
            .collect(),
        health: checked.then_some(service.health_check_node_port),
    }
}

/// One Service with what it was given, and what is to be told of it.
pub(crate) struct Admitted<'a> {
    pub(crate) written: &'a Written,
    pub(crate) given: &'a Given,
    pub(crate) since: std::time::SystemTime,
    pub(crate) problem: Option<String>,
}

/// Puts it together. `slices`: those of the files.
pub(crate) fn desired<'a>(
    admitted: &[Admitted<'a>],
    slices: impl Iterator<Item = &'a EndpointSlice>,
    world: &World,
) -> Desired {
    let mut desired = Desired::default();
    for slice in slices {
        desired.slices.insert(slice.name.clone(), slice.clone());
    }
    for one in admitted {
        let of_instances = endpoints::slices(&one.written.service, world);
        let names = of_instances.iter().map(|slice| slice.name.clone()).collect();
        desired.of_instances.insert(one.written.name().clone(), names);
        desired.slices.extend(of_instances.into_iter().map(|slice| (slice.name.clone(), slice)));
    }
    let mut by_service: BTreeMap<&ObjectName, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in desired.slices.values() {
        by_service.entry(&slice.service).or_default().push(slice);
    }
    for one in admitted {
        let service = filled(one);
        let own = by_service.get(&service.name).map(Vec::as_slice).unwrap_or_default();
        desired.names.set(service.name.clone(), named(one, &service, own));
        desired.shown.push(shown(one, &service, own));
        if !one.written.service.headless && !one.written.is_alias() && !service.cluster_addresses.is_empty() {
            desired.services.insert(service.name.clone(), service);
        }
    }
    desired
}

/// What becomes of slices when instances change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Renewed {
    pub(crate) gone: Vec<ObjectName>,
    pub(crate) set: Vec<EndpointSlice>,
}

impl Desired {
    /// Looks again for the instances of these Services, which are otherwise as they were. The rest is not looked at: the
    /// cost of a change is that of the Services that select what has changed.
    pub(crate) fn renew(&mut self, admitted: &[Admitted<'_>], world: &World) -> Renewed {
        let mut renewed = Renewed::default();
        for one in admitted {
            let slices = endpoints::slices(&one.written.service, world);
            let names: Vec<ObjectName> = slices.iter().map(|slice| slice.name.clone()).collect();
            let before = self.of_instances.insert(one.written.name().clone(), names.clone());
            for name in before.unwrap_or_default().into_iter().filter(|name| !names.contains(name)) {
                self.slices.remove(&name);
                renewed.gone.push(name);
            }
            for slice in slices {
                if self.slices.get(&slice.name) != Some(&slice) {
                    self.slices.insert(slice.name.clone(), slice.clone());
                    renewed.set.push(slice);
                }
            }
            let service = filled(one);
            let own: Vec<&EndpointSlice> =
                self.slices.values().filter(|slice| slice.service == service.name).collect();
            self.names.set(service.name.clone(), named(one, &service, &own));
            let now = shown(one, &service, &own);
            let place =
                self.shown.iter_mut().find(|all| all.name == now.name && all.namespace == now.namespace);
            if let Some(place) = place {
                *place = now;
            }
        }
        renewed
    }
}

/// With its numbers.
fn filled(one: &Admitted<'_>) -> Service {
    let mut service = one.written.service.service.clone();
    service.cluster_addresses.clone_from(&one.given.addresses);
    for port in &mut service.ports {
        port.node_port = one.given.node_port(&PortKey { port: port.port, protocol: port.protocol });
    }
    service.health_check_node_port = one.given.health;
    service
}

fn named(one: &Admitted<'_>, service: &Service, slices: &[&EndpointSlice]) -> ServiceName {
    if let Some(target) = &one.written.service.external_name {
        return ServiceName::External(target.trim_end_matches('.').to_ascii_lowercase());
    }
    let port =
        |name: &str, protocol: Protocol, port: u16| NamedPort { name: name.to_owned(), protocol, port };
    let endpoints = slices.iter().flat_map(|slice| {
        let ports: Vec<NamedPort> =
            slice.ports.iter().map(|one| port(&one.name, one.protocol, one.port)).collect();
        slice.endpoints.iter().filter(|endpoint| endpoint.ready).map(move |endpoint| NamedEndpoint {
            // What is no label is found by its address.
            hostname: endpoint.target.clone().filter(|name| !name.contains('.') && name.len() <= 63),
            address: endpoint.address,
            ports: ports.clone(),
        })
    });
    if one.written.service.headless {
        return ServiceName::Headless(endpoints.collect());
    }
    ServiceName::Cluster {
        addresses: service.cluster_addresses.clone(),
        ports: service.ports.iter().map(|one| port(&one.name, one.protocol, one.port)).collect(),
        endpoints: endpoints.collect(),
    }
}

fn shown(one: &Admitted<'_>, service: &Service, slices: &[&EndpointSlice]) -> Shown {
    let written = &one.written.service;
    let policy = |policy| if policy == TrafficPolicy::Local { "Local" } else { "Cluster" }.to_owned();
    let kind = match service.kind {
        _ if one.written.is_alias() => "ExternalName",
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let ports = service.ports.iter().zip(&written.target_ports).map(|(port, target)| ShownPort {
        name: port.name.clone(),
        protocol: port.protocol.as_str().to_ascii_uppercase(),
        port: port.port,
        target: match target {
            TargetPort::Number(number) => number.to_string(),
            TargetPort::Name(name) => name.clone(),
        },
        node_port: port.node_port,
    });
    let endpoints = slices.iter().flat_map(|slice| {
        slice.ports.iter().flat_map(|port| {
            slice.endpoints.iter().map(|endpoint| ShownEndpoint {
                address: (endpoint.address, port.port).into(),
                port: port.name.clone(),
                ready: endpoint.ready,
                target: endpoint.target.clone(),
                node: endpoint.node.clone(),
            })
        })
    });
    Shown {
        namespace: service.name.namespace.clone(),
        name: service.name.name.clone(),
        kind: kind.to_owned(),
        cluster_addresses: service.cluster_addresses.clone(),
        headless: written.headless,
        external_name: written.external_name.clone(),
        external_addresses: service.external_addresses.clone(),
        load_balancer_addresses: service.load_balancer_addresses.clone(),
        ports: ports.collect(),
        labels: written.labels.clone(),
        selector: written.selector.clone(),
        internal_policy: policy(service.internal_policy),
        external_policy: policy(service.external_policy),
        affinity: service.affinity.map(|timeout| timeout.as_secs()),
        endpoints: endpoints.collect(),
        source: one.written.place.clone(),
        since: one.since,
        problem: one.problem.clone(),
    }
}

#[cfg(test)]
mod tests;
