//! From files to frontends: pure.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use portolan_cli::{RelayArgs, RelayListen};
use portolan_model::{EndpointSlice, ObjectName, Protocol, Service, ServiceNode, ServicePort};
use portolan_relay::service::{Backend, Frontend, FrontendStats, ProxyProtocol};
use portolan_services::{List, Version, select};

use crate::services::files::Files;

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

    /// All frontends, and what cannot be one.
    pub(crate) fn frontends(&self, files: &Files) -> (Vec<Frontend>, Vec<String>) {
        let mut services: BTreeMap<&ObjectName, &Service> = BTreeMap::new();
        let mut aliases = Vec::new();
        for written in files.manifests().flat_map(|read| &read.services) {
            if written.is_alias() {
                aliases.push(written.name().clone());
            } else {
                services.entry(written.name()).or_insert(&written.service.service);
            }
        }
        let slices: Vec<&EndpointSlice> = files.manifests().flat_map(|read| &read.slices).collect();
        let (mut frontends, mut problems) = (Vec::new(), Vec::new());
        for service in services.values() {
            for port in &service.ports {
                let Some(number) = port.node_port.filter(|_| port.protocol != Protocol::Sctp) else {
                    continue;
                };
                for address in &self.addresses {
                    frontends.push(self.frontend(service, port, SocketAddr::new(*address, number), &slices));
                }
            }
        }
        for listen in &self.listen {
            let name = ObjectName::new(&listen.namespace, &listen.service);
            let Some(service) = services.get(&name) else {
                problems.push(match aliases.contains(&name) {
                    true => format!("--listen {name}: a Service of type ExternalName has no endpoints"),
                    false => format!("--listen {name}: no file has a Service of that name"),
                });
                continue;
            };
            match port(service, listen.port.as_deref()) {
                Ok(port) => frontends.push(self.frontend(service, port, listen.address, &slices)),
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
        slices: &[&EndpointSlice],
    ) -> Frontend {
        let list = if service.is_externally_local() { List::Local } else { List::Cluster };
        let of = |version: Version| -> Vec<Backend> {
            let slices = slices.iter().copied();
            let chosen = select(service, (&port.name, port.protocol), slices, version, &self.node);
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

type Read = fn(&FrontendStats) -> u64;

/// Name, type, ending of the name of a sample, meaning, value.
const FAMILIES: [(&str, &str, &str, &str, Read); 6] = [
    ("portolan_relay_open", "gauge", "", "Connections or UDP clients that are there.", |one| one.open),
    ("portolan_relay_opened", "counter", "_total", "Connections or UDP clients that were let in.", |one| {
        one.opened
    }),
    ("portolan_relay_refused", "counter", "_total", "Clients that were sent away.", |one| one.refused),
    (
        "portolan_relay_failed",
        "counter",
        "_total",
        "Clients whom no backend answered, or who were cut off.",
        |one| one.failed,
    ),
    ("portolan_relay_received_bytes", "counter", "_total", "Bytes from clients to backends.", |one| {
        one.received
    }),
    ("portolan_relay_sent_bytes", "counter", "_total", "Bytes from backends to clients.", |one| one.sent),
];

/// As OpenMetrics. Labels are Services and addresses of the configuration, never clients.
pub(crate) fn metrics(stats: &[FrontendStats]) -> String {
    let mut text = String::new();
    for (name, kind, suffix, help, read) in FAMILIES {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for one in stats {
            let (service, listen, protocol) = (&one.service, one.key.listen, one.key.protocol);
            let labels = format!("service=\"{service}\",listen=\"{listen}\",protocol=\"{protocol}\"");
            let _ = writeln!(text, "{name}{suffix}{{{labels}}} {}", read(one));
        }
    }
    text.push_str("# EOF\n");
    text
}
