//! Node ports on the node's loopback addresses, TCP and UDP, of both families: by a relay in this process, since the
//! kernel's way for it (`route_localnet`) opens the loopback to the neighbours, and has no IPv6 (F15, KEP-6032).

use std::collections::{BTreeMap, BTreeSet};

use portolan_apply::{ApplyError, ServicePlane};
use portolan_model::{Protocol, Service};
use portolan_relay::{
    LocalNodePort, LocalNodePorts,
    service::{Backend, Options},
};
use portolan_services::Services;

/// The relays.
pub(crate) struct Localhost {
    ports: LocalNodePorts,
    /// What could not be served when it was tried last, as it was told.
    failed: BTreeSet<String>,
}

impl Localhost {
    pub(crate) fn new() -> Self {
        Self { ports: LocalNodePorts::new(Options::default()), failed: BTreeSet::new() }
    }

    /// Whether a port could not be had and should be tried again.
    pub(crate) fn is_missing_one(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Serves the node ports as they are now.
    pub(crate) async fn follow(&mut self, plane: ServicePlane) {
        let asked = tokio::task::spawn_blocking(move || plane.inspect(node_ports)).await;
        let wanted = match asked {
            Ok(Ok(wanted)) => wanted,
            Ok(Err(ApplyError::Stopped)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the node ports of the loopback do not follow");
                return;
            }
        };
        let failed: BTreeSet<String> = self.ports.set(wanted).iter().map(ToString::to_string).collect();
        for line in failed.difference(&self.failed) {
            tracing::warn!("a node port is not served on the loopback: {line}");
        }
        self.failed = failed;
    }
}

/// All of them, with the endpoints that the node itself is sent to: those of all nodes, whatever the policy for others
/// (the short circuit, F20).
fn node_ports(services: &Services) -> Vec<LocalNodePort> {
    services.services().flat_map(|service| of_service(services, service)).collect()
}

fn of_service(services: &Services, service: &Service) -> Vec<LocalNodePort> {
    if service.ports.iter().all(|port| port.node_port.is_none()) {
        return Vec::new();
    }
    let mut backends: BTreeMap<(String, Protocol, u16), Vec<Backend>> = BTreeMap::new();
    for view in services.view(&service.name).unwrap_or_default() {
        let Some(port) = view.port else { continue };
        let chosen = view.endpoints.iter().filter(|endpoint| endpoint.cluster.is_in());
        let chosen = chosen.map(|one| Backend { address: one.target.socket(), weight: one.weight });
        backends.entry(port).or_default().extend(chosen);
    }
    let ports = service.ports.iter().filter_map(|port| {
        let key = (port.name.clone(), port.protocol, port.port);
        Some(LocalNodePort {
            service: (service.name.clone(), port.name.clone()),
            protocol: port.protocol,
            port: port.node_port?,
            backends: backends.get(&key).cloned().unwrap_or_default(),
            affinity: service.affinity,
        })
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portolan_kubernetes::services_from_yaml;
    use portolan_model::ServiceNode;
    use portolan_services::ServicesConfig;

    use super::*;

    #[test]
    fn the_loopback_leads_to_endpoints_of_all_nodes_whatever_the_policy() {
        let manifest = services_from_yaml(
            r#"
apiVersion: v1
kind: Service
metadata: {namespace: ns, name: web}
spec:
  type: NodePort
  clusterIP: 10.96.0.1
  externalTrafficPolicy: Local
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80, nodePort: 30080}, {name: inner, port: 81}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: ns, name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.244.0.1], nodeName: here}
- {addresses: [10.244.1.1], nodeName: there}
- {addresses: [10.244.1.2], nodeName: there, conditions: {ready: false}}
ports: [{name: http, port: 8080}, {name: inner, port: 8081}]
"#,
        )
        .unwrap();
        let config = ServicesConfig {
            node: ServiceNode { name: "here".to_owned(), ..ServiceNode::default() },
            ..ServicesConfig::default()
        };
        let written = manifest.services.into_iter().map(|one| one.service);
        let services = Services::load(config, written, manifest.slices).unwrap();
        let ports = node_ports(&services);
        let [port] = ports.as_slice() else { panic!("{ports:?}") };
        assert_eq!(
            (port.port, port.protocol, port.affinity),
            (30080, Protocol::Tcp, Some(Duration::from_secs(10_800)))
        );
        let backends: Vec<_> = port.backends.iter().map(|one| one.address.to_string()).collect();
        assert_eq!(backends, ["10.244.0.1:8080", "10.244.1.1:8080"]);
    }
}
