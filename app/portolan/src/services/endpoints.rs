//! The endpoints of a Service that selects instances of the catalog: pure.
//!
//! An instance with a network of its own is reached there, at the port that it listens on: its published port is itself
//! a translation, and a packet is translated once. Any other is reached where clients reach it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use portolan_kubernetes::{TargetPort, WrittenService};
use portolan_model::{
    Endpoint, EndpointSlice, Instance, InstancePort, LeaseUsage, Network, ObjectName, Protocol, SlicePort,
};

/// Labels that every instance has without being given them.
pub(crate) const INSTANCE_LABEL: &str = "portolan.dev/instance";
/// The name of the service that it is a copy of.
pub(crate) const SERVICE_LABEL: &str = "portolan.dev/service";
/// The machine it runs on.
pub(crate) const NODE_LABEL: &str = "portolan.dev/node";

/// The catalog and the leases of this node at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) instances: Vec<Arc<Instance>>,
    /// Of instances of this node with networks of their own, by name.
    pub(crate) own: HashMap<String, LeaseUsage>,
}

impl World {
    pub(crate) fn new(instances: Vec<Arc<Instance>>, leases: Vec<LeaseUsage>) -> Self {
        let own =
            leases.into_iter().filter(|lease| lease.network == Network::Own && !lease.addresses.is_empty());
        Self { instances, own: own.map(|lease| (lease.instance.to_string(), lease)).collect() }
    }

    /// Instances that a selector may see otherwise than `before`: as they were, and as they are.
    pub(crate) fn differences(&self, before: &Self) -> Vec<Arc<Instance>> {
        let by_name = |world: &Self| -> HashMap<String, Arc<Instance>> {
            let all = world.instances.iter();
            all.map(|instance| (instance.key.name.to_string(), Arc::clone(instance))).collect()
        };
        let (then, now) = (by_name(before), by_name(self));
        let same = |name: &str, one: &Arc<Instance>, other: Option<&Arc<Instance>>| {
            let unchanged = other.is_some_and(|other| Arc::ptr_eq(one, other) || one == other);
            unchanged && before.own.get(name) == self.own.get(name)
        };
        let gone = then.iter().filter(|(name, instance)| !same(name, instance, now.get(*name)));
        let come = now.iter().filter(|(name, instance)| !same(name, instance, then.get(*name)));
        gone.chain(come).map(|(_, instance)| Arc::clone(instance)).collect()
    }
}

/// Whether the instance has all of these labels.
pub(crate) fn selects(selector: &BTreeMap<String, String>, instance: &Instance) -> bool {
    !selector.is_empty()
        && selector.iter().all(|(key, value)| match key.as_str() {
            INSTANCE_LABEL => instance.key.name.as_str() == value,
            SERVICE_LABEL => instance.service.as_str() == value,
            NODE_LABEL => instance.node == *value,
            key => instance.labels.get(key) == Some(value),
        })
}

/// The slices of the Service: one for each family and each set of port numbers, as the same target port may be another
/// number on each instance.
pub(crate) fn slices(written: &WrittenService, world: &World) -> Vec<EndpointSlice> {
    let mut slices: BTreeMap<(bool, Vec<u16>), EndpointSlice> = BTreeMap::new();
    let name = &written.service.name;
    for instance in world.instances.iter().filter(|instance| selects(&written.selector, instance)) {
        let own = world.own.get(instance.key.name.as_str());
        let ports: Vec<SlicePort> = written
            .service
            .ports
            .iter()
            .zip(&written.target_ports)
            .filter_map(|(port, target)| {
                let number = resolve(target, port.protocol, instance, own.is_some())?;
                Some(SlicePort { name: port.name.clone(), protocol: port.protocol, port: number })
            })
            .collect();
        // A Service of a whole address or of runs of ports keeps the numbers, and needs none here.
        if ports.is_empty() && !written.service.ports.is_empty() {
            continue;
        }
        let served = instance.state.is_served() || written.publish_not_ready;
        for address in addresses(instance, own) {
            let numbers: Vec<u16> = ports.iter().map(|port| port.port).collect();
            let index = slices.len();
            let slice = slices.entry((address.is_ipv6(), numbers)).or_insert_with(|| EndpointSlice {
                name: ObjectName::new(&name.namespace, format!("{}-instances-{index}", name.name)),
                service: name.clone(),
                ports: ports.clone(),
                endpoints: Vec::new(),
                triggered: None,
            });
            slice.endpoints.push(Endpoint {
                address,
                ready: served,
                serving: served,
                terminating: false,
                node: Some(instance.node.clone()),
                zones: Vec::new(),
                nodes: Vec::new(),
                target: Some(instance.key.name.to_string()),
            });
        }
    }
    // By what is in them, whichever instance came first: the same world has the same slices.
    let sorted = slices.into_values().enumerate().map(|(index, mut slice)| {
        slice.name.name = format!("{}-instances-{index}", name.name);
        slice
    });
    sorted.collect()
}

/// One address of each family.
fn addresses(instance: &Instance, own: Option<&LeaseUsage>) -> Vec<IpAddr> {
    let all = own.map_or(&instance.addresses, |lease| &lease.addresses);
    let first = |v4: bool| all.iter().copied().find(move |address| address.is_ipv4() == v4);
    [first(true), first(false)].into_iter().flatten().collect()
}

/// The number behind a target port: of the instance's port of that name, or of the one that is known by that number on
/// either side; without such a port, the number as it is.
fn resolve(target: &TargetPort, protocol: Protocol, instance: &Instance, own: bool) -> Option<u16> {
    let number = |port: &InstancePort| match port.container {
        Some(container) if own => container,
        _ => port.port.first(),
    };
    let mut ports = instance.ports.iter().filter(|port| port.protocols.contains(protocol));
    match target {
        TargetPort::Name(name) => ports.find(|port| port.name.as_str() == name).map(number),
        TargetPort::Number(wanted) => {
            let known =
                |port: &&InstancePort| port.container == Some(*wanted) || port.port.first() == *wanted;
            Some(ports.find(known).map_or(*wanted, number))
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_kubernetes::services_from_yaml;
    use serde_json::json;

    use super::*;

    fn instance(name: &str, state: &str, port: u16, container: u16) -> Arc<Instance> {
        let value = json!({
            "name": name, "incarnation": "1", "service": "web", "node": "n", "addresses": ["192.0.2.1", "fd02::1"],
            "ports": [{"name": "http", "protocols": ["tcp"], "port": port.to_string(), "container": container}],
            "labels": {"app": "web"}, "state": state,
            "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z",
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn service(selector: &str, target: &str) -> WrittenService {
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{selector: {{{selector}}}, ports: [{{name: h, port: 80, targetPort: {target}}}]}}}}"
        );
        services_from_yaml(&text).unwrap().services.remove(0)
    }

    fn found(selector: &str, target: &str, world: &World) -> Vec<String> {
        let mut all = Vec::new();
        for slice in slices(&service(selector, target), world) {
            for endpoint in &slice.endpoints {
                let port = slice.ports[0].port;
                let ready = if endpoint.ready { "" } else { " not ready" };
                all.push(format!(
                    "{} {} {port}{ready}",
                    endpoint.target.as_deref().unwrap(),
                    endpoint.address
                ));
            }
        }
        all
    }

    #[test]
    fn instances_are_selected_by_their_labels_and_those_that_all_have() {
        let world = World::new(
            vec![instance("a", "passing", 20001, 8080), instance("b", "critical", 20002, 8080)],
            vec![],
        );
        let both = found("app: web", "http", &world);
        assert_eq!(
            both,
            [
                "a 192.0.2.1 20001",
                "b 192.0.2.1 20002 not ready",
                "a fd02::1 20001",
                "b fd02::1 20002 not ready"
            ]
        );
        assert_eq!(found("portolan.dev/service: web", "http", &world).len(), 4);
        assert_eq!(found("portolan.dev/instance: a", "http", &world).len(), 2);
        assert!(found("app: other", "http", &world).is_empty());
        assert!(found("app: web, more: x", "http", &world).is_empty());
        assert!(found("app: web", "other", &world).is_empty());
    }

    #[test]
    fn a_number_is_the_instances_port_on_either_side_or_itself() {
        let world = World::new(vec![instance("a", "passing", 20001, 8080)], vec![]);
        assert_eq!(found("app: web", "8080", &world)[0], "a 192.0.2.1 20001");
        assert_eq!(found("app: web", "20001", &world)[0], "a 192.0.2.1 20001");
        assert_eq!(found("app: web", "9000", &world)[0], "a 192.0.2.1 9000");
    }

    #[test]
    fn an_instance_with_a_network_of_its_own_is_reached_there() {
        let lease = json!({
            "instance": "a", "owner": {"pid": 1, "start_time": 1}, "network": "own", "ports": [],
            "addresses": ["10.213.0.2"],
        });
        let lease: LeaseUsage = serde_json::from_value(lease).unwrap();
        let world = World::new(vec![instance("a", "passing", 20001, 8080)], vec![lease]);
        assert_eq!(found("app: web", "http", &world), ["a 10.213.0.2 8080"]);
        assert_eq!(found("app: web", "20001", &world), ["a 10.213.0.2 8080"]);
    }
}
