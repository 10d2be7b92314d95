//! What happens to a packet and why: the outcomes of the rules, and the Services' reasons beside them.

use std::net::{IpAddr, SocketAddr};

use portolan_model::{EndpointSlice, Service, ServicePort, TrafficPolicy};
use portolan_nft::evaluate::{EvaluateError, Machine, Origin, Outcome, Packet, What};
use portolan_services::{List, LocalDetector, Services, SetKind, Version, select};
use serde::Serialize;

use super::{
    ending::{Ending, endings},
    question::Question,
};

/// All that is told.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Explained {
    pub(super) packet: Asked,
    /// `None`: no Service has this address and port.
    pub(super) frontend: Option<Frontend>,
    /// Endpoints of the Service port with what speaks for and against each.
    pub(super) endpoints: Vec<EndpointLine>,
    /// What may become of the packet, and how often.
    pub(super) outcomes: Vec<Ending>,
    /// The way to the first of them.
    pub(super) steps: Vec<String>,
    /// What the kernel did, with `--live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) live: Option<super::live::Followed>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Asked {
    pub(super) protocol: String,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// `None`: this machine sends it.
    pub(super) interface: Option<String>,
    /// What it counts as: pod, node or outside.
    pub(super) from: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Frontend {
    pub(super) service: String,
    pub(super) port: String,
    /// By which of its addresses.
    pub(super) address: &'static str,
    /// The policy that is asked, and what it says.
    pub(super) policy: String,
    /// Seconds that a client stays with an endpoint.
    pub(super) affinity_seconds: Option<u64>,
    /// How an endpoint is chosen.
    pub(super) balance: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct EndpointLine {
    pub(super) endpoint: SocketAddr,
    pub(super) node: Option<String>,
    /// The packet may go there.
    pub(super) used: bool,
    pub(super) why: String,
}

/// What happens to this packet.
pub(super) fn explain(
    machine: &Machine,
    services: Option<(&Services, &[EndpointSlice])>,
    question: &Question,
    origin: &Origin,
) -> Result<Explained, EvaluateError> {
    let packet = Packet::new(question.protocol.number(), question.source, question.destination);
    let outcomes = machine.outcomes(&packet, origin)?;
    let interface = match origin {
        Origin::Interface(name) => Some(name.clone()),
        Origin::Here => None,
    };
    let from = whose(machine, services, question, interface.as_deref());
    let asked = Asked {
        protocol: question.protocol.to_string(),
        source: question.source,
        destination: question.destination,
        interface,
        from,
    };
    let steps = outcomes.first().map(|first| first.steps.iter().map(ToString::to_string).collect());
    let mut explained = Explained {
        packet: asked,
        frontend: None,
        endpoints: Vec::new(),
        outcomes: endings(&outcomes, question),
        steps: steps.unwrap_or_default(),
        live: None,
    };
    if let Some((services, slices)) = services
        && let Some((service, port, address)) = find(services, machine, question)
    {
        let list = list(services, &outcomes, service, address);
        explained.frontend = Some(frontend(service, port, address, from, list));
        explained.endpoints = endpoints((services, slices), (service, port), list, question, &outcomes);
    }
    Ok(explained)
}

/// Whether one of these Services has the address and port.
pub(super) fn serves(services: &Services, machine: &Machine, question: &Question) -> bool {
    find(services, machine, question).is_some()
}

/// What the packet counts as.
fn whose(
    machine: &Machine,
    services: Option<(&Services, &[EndpointSlice])>,
    question: &Question,
    interface: Option<&str>,
) -> &'static str {
    let source = question.source.ip();
    let pod = services.is_some_and(|(services, _)| match &services.config().detector {
        LocalDetector::None => false,
        LocalDetector::Networks(networks) => networks.iter().any(|network| network.contains(&source)),
        LocalDetector::Interface(name) => interface == Some(name.as_str()),
        LocalDetector::InterfacePrefix(prefix) => {
            interface.is_some_and(|name| name.starts_with(prefix.as_str()))
        }
    });
    match (pod, machine.host().is_local(source)) {
        (true, _) => "pod",
        (false, true) => "node",
        (false, false) => "outside",
    }
}

/// The Service port that is asked for, and by which kind of address.
fn find<'s>(
    services: &'s Services,
    machine: &Machine,
    question: &Question,
) -> Option<(&'s Service, &'s ServicePort, &'static str)> {
    let to = question.destination;
    let mut found = services.services().filter_map(|service| {
        let kind = if service.cluster_addresses.contains(&to.ip()) {
            "cluster address"
        } else if service.external_addresses.contains(&to.ip()) {
            "external address"
        } else if service.load_balancer_addresses.contains(&to.ip()) {
            "load balancer address"
        } else if machine.host().is_local(to.ip()) {
            "node port"
        } else {
            return None;
        };
        let fits = |port: &&ServicePort| {
            let number = if kind == "node port" { port.node_port } else { Some(port.port) };
            port.protocol == question.protocol && number == Some(to.port())
        };
        Some((service, service.ports.iter().find(fits)?, kind))
    });
    found.next()
}

/// Which list was asked: the one that the rules took the endpoint from; where they took none, the one whose emptiness
/// is the reason.
fn list(services: &Services, outcomes: &[Outcome], service: &Service, address: &str) -> List {
    // Tables of several owners have sets of the same names.
    let ours = format!("inet {}", services.config().table);
    let steps = outcomes.iter().flat_map(|outcome| &outcome.steps);
    let own = steps.filter(|step| step.place.as_ref().is_some_and(|place| place.table == ours));
    let looked = own.filter_map(|step| match &step.what {
        What::Looked { set, found: Some(_), .. } => services.set_id(set),
        _ => None,
    });
    let mut lists = looked.filter_map(|id| match id.kind {
        SetKind::Backends(list)
        | SetKind::AddressBackends(list)
        | SetKind::NotedBackends(list)
        | SetKind::NotedAddressBackends(list)
        | SetKind::Members(list) => Some(list),
        _ => None,
    });
    let by_policy = match address {
        "cluster address" => service.internal_policy == TrafficPolicy::Local,
        _ => service.is_externally_local(),
    };
    lists.next().unwrap_or(if by_policy { List::Local } else { List::Cluster })
}

fn frontend(
    service: &Service,
    port: &ServicePort,
    address: &'static str,
    from: &str,
    list: List,
) -> Frontend {
    let (name, policy) = match address {
        "cluster address" => ("internalTrafficPolicy", service.internal_policy),
        _ => ("externalTrafficPolicy", service.external_policy),
    };
    let means = match (policy, list) {
        (TrafficPolicy::Cluster, _) => "endpoints of all nodes".to_owned(),
        (TrafficPolicy::Local, List::Local) => "endpoints of this node only".to_owned(),
        (TrafficPolicy::Local, List::Cluster) => {
            format!("endpoints of all nodes, since it does not leave the cluster (from {from})")
        }
    };
    let named = if port.name.is_empty() { String::new() } else { format!("{} ", port.name) };
    let balance = format!("{:?}", service.options.balance).to_lowercase();
    Frontend {
        service: service.name.to_string(),
        port: format!("{named}{}/{}", port.port, port.protocol),
        address,
        policy: format!("{name} {policy:?}: {means}"),
        affinity_seconds: service.affinity.map(|time| time.as_secs()),
        balance,
    }
}

fn endpoints(
    (services, slices): (&Services, &[EndpointSlice]),
    (service, port): (&Service, &ServicePort),
    list: List,
    question: &Question,
    outcomes: &[Outcome],
) -> Vec<EndpointLine> {
    let node = &services.config().node;
    let version = Version::of(question.destination.ip());
    let selection = select(service, (&port.name, port.protocol), slices, version, node);
    let of = |address: IpAddr| {
        let own = slices.iter().filter(|slice| slice.service == service.name);
        own.flat_map(|slice| &slice.endpoints).find(|one| one.address == address)
    };
    let line = |candidate: &portolan_services::Candidate| {
        let endpoint = candidate.target.socket();
        EndpointLine {
            endpoint,
            node: of(endpoint.ip()).and_then(|one| one.node.clone()),
            used: outcomes.iter().any(|outcome| outcome.packet.destination == endpoint),
            why: selection.standing(list, candidate).to_string(),
        }
    };
    selection.candidates().iter().map(line).collect()
}
