//! What Kubernetes has no field for, as annotations of a Service (docs/services.md).
//!
//! One that cannot be read is said and ignored, and so is one that only looks like ours: a Service works as without it.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;
use portolan_model::{AffinityScope, Balance, PortRange, PortSpan, Protocol, ServiceOptions, Weights};

use super::number;
use crate::{BLOCKS_ANNOTATION, PUBLISH_ANNOTATION};

/// `random` or `source`: how an endpoint is chosen.
pub const BALANCE_ANNOTATION: &str = "portolan.dev/balance";
/// `port` or `service`: what a client's affinity is to.
pub const AFFINITY_SCOPE_ANNOTATION: &str = "portolan.dev/affinity-scope";
/// `web-0=3, 10.244.1.7=0`: weights of endpoints, by name of the Pod or by address.
pub const WEIGHTS_ANNOTATION: &str = "portolan.dev/weights";
/// `10000-20000/udp, 5060/tcp`: ports beside those of the Service, forwarded to the same number.
pub const PORT_RANGES_ANNOTATION: &str = "portolan.dev/port-ranges";
/// `true`: every protocol and port of its addresses.
pub const WHOLE_ADDRESS_ANNOTATION: &str = "portolan.dev/whole-address";
/// `10.0.0.0/8, fd00::/8`: who may reach its node ports and external addresses.
pub const SOURCE_RANGES_ANNOTATION: &str = "portolan.dev/node-source-ranges";
/// `30s`: after how long TCP connections to an endpoint that is gone are reset.
pub const DRAIN_ANNOTATION: &str = "portolan.dev/drain";
/// `drop` or `reject`: what clients are told where the policy is Local and no endpoint is.
pub const NO_LOCAL_ENDPOINTS_ANNOTATION: &str = "portolan.dev/no-local-endpoints";

/// All of them begin so.
const PREFIX: &str = "portolan.dev/";
/// So many spans of ports are enough for everybody; each is an element of interval sets.
const MOST_SPANS: usize = 64;
/// A weight is a number of slots of a map.
const MOST_WEIGHT: u16 = 100;

/// The options, and what is wrong with the others.
pub(super) fn options(annotations: Option<&BTreeMap<String, String>>) -> (ServiceOptions, Vec<String>) {
    let (mut options, mut problems) = (ServiceOptions::default(), Vec::new());
    let ours = annotations.into_iter().flatten().filter(|(name, _)| name.starts_with(PREFIX));
    for (name, value) in ours {
        if let Err(problem) = option(&mut options, name, value.trim()) {
            problems.push(format!("the annotation {name}: {value:?} is ignored: {problem}"));
        }
    }
    (options, problems)
}

fn option(options: &mut ServiceOptions, name: &str, value: &str) -> Result<(), String> {
    match name {
        BALANCE_ANNOTATION => options.balance = balance(value)?,
        AFFINITY_SCOPE_ANNOTATION => options.affinity_scope = affinity_scope(value)?,
        WEIGHTS_ANNOTATION => options.weights = weights(value)?,
        PORT_RANGES_ANNOTATION => options.spans = spans(value)?,
        WHOLE_ADDRESS_ANNOTATION => options.whole_address = boolean(value)?,
        SOURCE_RANGES_ANNOTATION => options.node_source_ranges = networks(value)?,
        DRAIN_ANNOTATION => options.drain = Some(duration(value)?),
        NO_LOCAL_ENDPOINTS_ANNOTATION => options.reject_without_local = reject(value)?,
        // For the controller of endpoints.
        PUBLISH_ANNOTATION | BLOCKS_ANNOTATION => {}
        _ => {
            return Err(format!(
                "there is no such annotation for Services; there are {}",
                [
                    BALANCE_ANNOTATION,
                    AFFINITY_SCOPE_ANNOTATION,
                    WEIGHTS_ANNOTATION,
                    PORT_RANGES_ANNOTATION,
                    WHOLE_ADDRESS_ANNOTATION,
                    SOURCE_RANGES_ANNOTATION,
                    DRAIN_ANNOTATION,
                    NO_LOCAL_ENDPOINTS_ANNOTATION
                ]
                .map(|name| name.trim_start_matches(PREFIX))
                .join(", ")
            ));
        }
    }
    Ok(())
}

fn balance(value: &str) -> Result<Balance, String> {
    match value {
        "random" => Ok(Balance::Random),
        "source" => Ok(Balance::Source),
        _ => Err("say random or source".to_owned()),
    }
}

fn affinity_scope(value: &str) -> Result<AffinityScope, String> {
    match value {
        "port" => Ok(AffinityScope::Port),
        "service" => Ok(AffinityScope::Service),
        _ => Err("say port or service".to_owned()),
    }
}

fn reject(value: &str) -> Result<bool, String> {
    match value {
        "reject" => Ok(true),
        "drop" => Ok(false),
        _ => Err("say reject or drop".to_owned()),
    }
}

fn boolean(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| "say true or false".to_owned())
}

fn duration(value: &str) -> Result<Duration, String> {
    humantime::parse_duration(value).map_err(|_| "write a time such as 30s or 2m".to_owned())
}

fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn networks(value: &str) -> Result<Vec<IpNet>, String> {
    let network = |item: &str| number::network(item).ok_or_else(|| format!("{item:?} is no network"));
    items(value).map(network).collect()
}

fn weights(value: &str) -> Result<Weights, String> {
    let weight = |item: &str| {
        let wrong = || format!("{item:?}: write NAME=0 to NAME={MOST_WEIGHT}, with commas between them");
        let (name, weight) = item.split_once('=').ok_or_else(wrong)?;
        let weight = weight.trim().parse().ok().filter(|&weight| weight <= MOST_WEIGHT).ok_or_else(wrong)?;
        // An address is known by its usual text.
        let name = name.trim();
        let name = number::address(name).map_or_else(|| name.to_owned(), |address| address.to_string());
        if name.is_empty() { Err(wrong()) } else { Ok((name, weight)) }
    };
    items(value).map(weight).collect()
}

fn spans(value: &str) -> Result<Vec<PortSpan>, String> {
    let span = |item: &str| {
        let (ports, protocol) = item.split_once('/').unwrap_or((item, "tcp"));
        let protocol: Protocol = protocol.trim().parse().map_err(|error| format!("{item:?}: {error}"))?;
        let ports: PortRange = ports.trim().parse().map_err(|error| format!("{item:?}: {error}"))?;
        Ok::<_, String>(PortSpan { protocol, ports })
    };
    let spans: Vec<PortSpan> = items(value).map(span).collect::<Result<_, _>>()?;
    if spans.len() > MOST_SPANS {
        return Err(format!("{} ranges are too many: {MOST_SPANS} are allowed", spans.len()));
    }
    for (index, one) in spans.iter().enumerate() {
        let mut others = spans[..index].iter();
        let other = others.find(|other| other.protocol == one.protocol && other.ports.overlaps(one.ports));
        if let Some(other) = other {
            return Err(format!("{} and {} overlap", other.ports, one.ports));
        }
    }
    Ok(spans)
}
