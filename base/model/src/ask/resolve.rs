//! An [`Ask`] and the Pod's container ports become port requests.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ask, AskError, ContainerPort, Item};
use crate::{Name, Network, PortName, PortRange, PortRequest, Protocol, Protocols};

impl Ask {
    /// The requests of a Pod with these container ports. They have names of their own and do not contradict each
    /// other. The same Pod always gets the same list.
    pub fn resolve(&self, ports: &[ContainerPort]) -> Result<Vec<PortRequest>, AskError> {
        self.resolve_on(Network::Own, ports)
    }

    /// [`Ask::resolve`] for a Pod on this network. On the host's, nothing is between the world and the containers, so
    /// that only ports with the same number inside and outside can be had.
    pub fn resolve_on(
        &self,
        network: Network,
        ports: &[ContainerPort],
    ) -> Result<Vec<PortRequest>, AskError> {
        let mut requests: Vec<PortRequest> = Vec::new();
        for item in &self.items {
            if let Item::Port { request, protocol } = item {
                requests.push(match network {
                    Network::Own => named(item, request, *protocol, ports)?,
                    Network::Host => on_host(item, request, ports)?,
                });
            }
        }
        let mut every = self.items.iter().filter_map(|item| match item {
            Item::All { pool } => Some((item.to_string(), pool)),
            Item::Port { .. } => None,
        });
        match (every.next(), network) {
            (Some((item, _)), Network::Host) => return Err(AskError::HostNetwork { item }),
            (Some((_, pool)), Network::Own) => {
                requests.extend(all(ports, &requests, pool.as_ref()));
                if requests.is_empty() {
                    return Err(AskError::NoContainerPorts);
                }
            }
            // Galaxy has nothing against a Pod without container ports, or on the host network.
            (None, Network::Own) if self.galaxy => requests.extend(all(ports, &requests, None)),
            (None, _) => {}
        }
        check(&requests)?;
        Ok(requests)
    }
}

/// How many ports of each pool the requests need of a node, as it counts them: one for each number. `None` is the
/// default pool.
pub fn demand(requests: &[PortRequest]) -> BTreeMap<Option<Name>, u32> {
    let mut demand = BTreeMap::new();
    for request in requests {
        *demand.entry(request.pool.clone()).or_default() += u32::from(request.count);
    }
    demand
}

/// One item, with what the container port of its name or number says.
fn named(
    item: &Item,
    request: &PortRequest,
    protocol: bool,
    ports: &[ContainerPort],
) -> Result<PortRequest, AskError> {
    let mut request = request.clone();
    let number = number(&request.name)?;
    let mine: Vec<&ContainerPort> = match number {
        Some(number) => ports.iter().filter(|port| port.number == number).collect(),
        None => ports.iter().filter(|port| port.name.as_deref() == Some(request.name.as_str())).collect(),
    };
    let first = mine.first().map(|port| port.number).or(number);
    if let (Some(first), Some(other)) = (first, mine.iter().find(|port| Some(port.number) != first)) {
        return Err(AskError::Ambiguous { name: request.name, first, second: other.number });
    }
    // A number that no container port has is one all the same: containers need not say what they listen on.
    let known = match (first, request.container) {
        (Some(has), Some(says)) if has != says => {
            return Err(AskError::Contradiction { name: request.name, has, says, item: item.to_string() });
        }
        (Some(has), _) => Some(has),
        (None, says) => says,
    };
    if let Some(number) = known {
        let of_number = || ports.iter().filter(|port| port.number == number);
        if !protocol {
            let said: Protocols = if mine.is_empty() {
                of_number().map(|port| port.protocol).collect()
            } else {
                mine.iter().map(|port| port.protocol).collect()
            };
            request.protocols = if said.is_empty() { request.protocols } else { said };
        }
        if request.count > 1 && request.host != Some(number) {
            return Err(AskError::Block {
                item: item.to_string(),
                protocol: request.protocols.iter().next().unwrap_or(Protocol::Udp),
                name: request.name,
                count: request.count,
                container: number,
            });
        }
        request.container = (request.count == 1).then_some(number);
    }
    // Asked for by number, it is called as the container calls it, if that is one name.
    let names: BTreeSet<&str> = mine.iter().filter_map(|port| port.name.as_deref()).collect();
    if let (Some(_), 1, Some(name)) = (number, names.len(), names.first())
        && let Ok(name) = PortName::new(*name)
    {
        request.name = name;
    }
    Ok(request)
}

/// One item of a Pod on the host network.
fn on_host(item: &Item, request: &PortRequest, ports: &[ContainerPort]) -> Result<PortRequest, AskError> {
    let number = number(&request.name)?;
    let declared = |port: &ContainerPort| {
        port.name.as_deref() == Some(request.name.as_str()) || number.is_some_and(|n| n == port.number)
    };
    if number.is_some() || ports.iter().any(declared) {
        return Err(AskError::HostNetwork { item: item.to_string() });
    }
    match request.container {
        Some(container) if request.host != Some(container) => {
            Err(AskError::Shifted { item: item.to_string(), container })
        }
        _ => Ok(request.clone()),
    }
}

/// What a name of digits only says. Kubernetes' port names have a letter (RFC 6335 section 5.1), so it is no name.
fn number(name: &PortName) -> Result<Option<u16>, AskError> {
    let text = name.as_str();
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u16>() {
        Ok(number) if number > 0 && number.to_string() == text => Ok(Some(number)),
        _ => Err(AskError::Number(name.clone())),
    }
}

/// Every container port that no request publishes and that has no host port. One number with two protocols is one
/// request, so that it stays one number outside, unless the two have names of their own.
fn all(ports: &[ContainerPort], asked: &[PortRequest], pool: Option<&Name>) -> Vec<PortRequest> {
    let covered = |port: &ContainerPort| {
        asked.iter().any(|request| {
            request.protocols.contains(port.protocol)
                && match request.container {
                    Some(container) => container == port.number,
                    None => request.host.is_some_and(|first| {
                        PortRange::block(first, request.count)
                            .is_some_and(|block| block.contains(port.number))
                    }),
                }
        })
    };
    // A name that two numbers have, or that is none of ours, does not tell ports apart.
    let unique = |port: &ContainerPort| -> Option<PortName> {
        let name = port.name.as_deref()?;
        let same = |other: &&ContainerPort| other.name.as_deref() == Some(name);
        let alone = ports.iter().filter(same).all(|other| other.number == port.number);
        let free = !asked.iter().any(|request| request.name.as_str() == name);
        PortName::new(name).ok().filter(|_| alone && free)
    };
    let mut requests: Vec<PortRequest> = Vec::new();
    for port in ports.iter().filter(|port| port.host_port.is_none() && !covered(port)) {
        let by_number = || PortName::new(port.number.to_string()).ok();
        let Some(name) = unique(port).or_else(by_number) else { continue };
        if let Some(same) = requests.iter_mut().find(|request| request.name == name) {
            same.protocols = same.protocols.with(port.protocol);
            continue;
        }
        requests.push(PortRequest {
            protocols: port.protocol.into(),
            container: Some(port.number),
            pool: pool.cloned(),
            ..PortRequest::named(name)
        });
    }
    requests
}

/// Refuses what cannot all be.
fn check(requests: &[PortRequest]) -> Result<(), AskError> {
    for (index, one) in requests.iter().enumerate() {
        for other in &requests[..index] {
            if other.name == one.name {
                return Err(AskError::Twice(one.name.clone()));
            }
            let (Some(first), Some(second)) = (block(other), block(one)) else { continue };
            let apart = matches!((other.address, one.address), (Some(a), Some(b)) if a != b);
            if first.overlaps(second) && other.protocols.intersects(one.protocols) && !apart {
                return Err(AskError::SameHostPort {
                    first: other.name.clone(),
                    second: one.name.clone(),
                    port: first.first().max(second.first()),
                });
            }
        }
    }
    Ok(())
}

fn block(request: &PortRequest) -> Option<PortRange> {
    PortRange::block(request.host?, request.count)
}
