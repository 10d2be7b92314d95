//! From Services to frontends: pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portolan_cli::{RelayArgs, RelayListen};
use portolan_model::{EndpointSlice, ObjectName, Protocol, Service, ServiceNode, ServicePort};
use portolan_relay::service::{Backend, Frontend, ProxyProtocol};
use portolan_services::{List, Version, select};

use super::source::Known;

/// What is served where.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    node: ServiceNode,
    addresses: Vec<IpAddr>,
    listen: Vec<RelayListen>,
    proxy_protocol: Option<ProxyProtocol>,
}

impl Plan {
    pub(crate) fn new(args: &RelayArgs) -> Self {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let all = || vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        Self {
            node: ServiceNode {
                name: args.node_name.clone().unwrap_or_else(host),
                zone: args.zone_name.clone(),
                addresses: Vec::new(),
            },
            addresses: match (args.no_node_ports, args.address.is_empty()) {
                (true, _) => Vec::new(),
                (false, true) => all(),
                (false, false) => args.address.clone(),
            },
            listen: args.listen.clone(),
            proxy_protocol: args.proxy_protocol.map(super::version),
        }
    }

    /// What this machine is called.
    pub(crate) fn node(&self) -> &str {
        &self.node.name
    }

    /// All frontends, and what cannot be one.
    pub(crate) fn frontends(&self, known: &Known<'_>) -> (Vec<Frontend>, Vec<String>) {
        let (services, slices) = (&known.services, &known.slices);
        let node = match &self.node.zone {
            Some(_) => self.node.clone(),
            None => ServiceNode { zone: known.zone.map(str::to_owned), ..self.node.clone() },
        };
        let (mut frontends, mut problems) = (Vec::new(), Vec::new());
        for service in services.values() {
            for port in &service.ports {
                let Some(number) = port.node_port.filter(|_| port.protocol != Protocol::Sctp) else {
                    continue;
                };
                for address in &self.addresses {
                    frontends.push(self.frontend(
                        service,
                        port,
                        SocketAddr::new(*address, number),
                        (slices, &node),
                    ));
                }
            }
        }
        for listen in &self.listen {
            let name = ObjectName::new(&listen.namespace, &listen.service);
            let Some(service) = services.get(&name) else {
                problems.push(match known.aliases.contains(&name) {
                    true => format!("--listen {name}: a Service of type ExternalName has no endpoints"),
                    false => format!("--listen {name}: {}", known.missing),
                });
                continue;
            };
            match port(service, listen.port.as_deref()) {
                Ok(port) => frontends.push(self.frontend(service, port, listen.address, (slices, &node))),
                Err(problem) => problems.push(format!("--listen {name}: {problem}")),
            }
        }
        (frontends, problems)
    }

    /// Who is sent where: clients come from outside, so the external policy holds.
    fn frontend(
        &self,
        service: &Service,
        port: &ServicePort,
        listen: SocketAddr,
        (slices, node): (&[&EndpointSlice], &ServiceNode),
    ) -> Frontend {
        let list = if service.is_externally_local() { List::Local } else { List::Cluster };
        let of = |version: Version| -> Vec<Backend> {
            let slices = slices.iter().copied();
            let chosen = select(service, (&port.name, port.protocol), slices, version, node);
            let backend = |one: &portolan_services::Candidate| Backend {
                address: (one.target.address, one.target.port).into(),
                weight: one.weight,
            };
            chosen.list(list).map(backend).collect()
        };
        let (own, other) =
            if listen.is_ipv4() { (Version::V4, Version::V6) } else { (Version::V6, Version::V4) };
        let mut backends = of(own);
        if backends.is_empty() {
            // In user space a client of one family reaches an endpoint of the other.
            backends = of(other);
        }
        Frontend {
            balance: service.options.balance,
            affinity: service.affinity,
            source_ranges: service.options.node_source_ranges.clone(),
            proxy_protocol: self.proxy_protocol,
            ..Frontend::new(service.name.clone(), port.name.clone(), port.protocol, listen, backends)
        }
    }
}

/// The port of that name or number; without either, the only one.
fn port<'a>(service: &'a Service, wanted: Option<&str>) -> Result<&'a ServicePort, String> {
    let name = |port: &ServicePort| match port.name.as_str() {
        "" => port.port.to_string(),
        name => name.to_owned(),
    };
    let names = service.ports.iter().map(name).collect::<Vec<_>>().join(", ");
    let Some(wanted) = wanted else {
        return match service.ports.as_slice() {
            [only] => Ok(only),
            _ => Err(format!("it has several ports: name one of {names} after a colon")),
        };
    };
    let found = service.ports.iter().find(|port| port.name == wanted || port.port.to_string() == wanted);
    found.ok_or_else(|| format!("it has no port {wanted}, but {names}"))
}
