//! What a Pod asks for, out of what the API server says of it. Pure.

use std::collections::BTreeMap;

use portolan_kubernetes::PodFacts;
use portolan_model::{
    Ask, AskError, ContainerPort, GALAXY_ANNOTATION, Name, Network, PORTS_ANNOTATION, PortRequest, demand,
};

use super::decide::DEFAULT_POOL;

/// Whether annotations ask for anything: quick, for those who only want to know whether to look closer.
pub(crate) fn asks(annotations: &BTreeMap<String, String>) -> bool {
    annotations.contains_key(PORTS_ANNOTATION) || annotations.contains_key(GALAXY_ANNOTATION)
}

/// The container ports of a Pod, in the order of its manifest.
pub(crate) fn container_ports(pod: &PodFacts) -> Vec<ContainerPort> {
    let port = |port: &portolan_kubernetes::ContainerPort| ContainerPort {
        name: port.name.clone(),
        number: port.container_port,
        protocol: port.protocol,
        host_port: port.host_port,
    };
    pod.ports().map(|(_, said)| port(said)).collect()
}

/// Which network a Pod is on.
pub(crate) const fn network(pod: &PodFacts) -> Network {
    if pod.host_network { Network::Host } else { Network::Own }
}

/// What a Pod asks for, and how; `None` when it asks for nothing.
pub(crate) fn requests(pod: &PodFacts) -> Result<Option<(Ask, Vec<PortRequest>)>, AskError> {
    let Some(ask) = Ask::read(&pod.annotations)? else { return Ok(None) };
    let requests = ask.resolve_on(network(pod), &container_ports(pod))?;
    Ok((!requests.is_empty()).then_some((ask, requests)))
}

/// How many ports of each pool a Pod asks for: what the scheduler and quotas count.
pub(crate) fn count(pod: &PodFacts) -> Result<BTreeMap<Name, u32>, String> {
    let asked = requests(pod).map_err(|error| format!("the annotation of the Pod: {error}"))?;
    let demand = asked.map(|(_, requests)| demand(&requests)).unwrap_or_default();
    let default = Name::new(DEFAULT_POOL).map_err(|error| error.to_string())?;
    Ok(demand.into_iter().map(|(pool, count)| (pool.unwrap_or_else(|| default.clone()), count)).collect())
}
