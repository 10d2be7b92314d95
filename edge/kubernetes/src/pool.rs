//! Pools as the cluster defines them: the `PortPool` resource, and what of it holds on one node.
//!
//! [`resource`] is what the API server stores, [`PoolFacts`] what Portolan goes by: read once, with a message that says
//! what is wrong. [`PoolSet`] chooses among all pools those of one node.

pub(crate) mod resource;
mod selector;
mod set;
mod status;

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use portolan_model::{Name, PortRange, Protocol, Protocols};

pub use resource::crd_yaml;
use resource::{PoolProtocol, PortPoolSpec};
pub use selector::{Selector, SelectorError};
pub(crate) use set::{DefinedPool, LoosePool};
pub use set::{PoolSet, RefusedPool};
pub use status::run_pool_status;

/// What our extended resources begin with; the pool's name follows.
pub const RESOURCE_PREFIX: &str = "ports.portolan.dev/";

/// The label by which a namespace lets its Pods ask for ports, with the value `allowed`.
pub const OPT_IN_LABEL: &str = "portolan.dev/ports";

/// Whether a namespace with these labels lets its Pods ask for ports.
pub fn opted_in(labels: &BTreeMap<String, String>) -> bool {
    labels.get(OPT_IN_LABEL).is_some_and(|value| value == "allowed")
}

/// A pool that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolFacts {
    /// What requests call it.
    pub name: Name,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp` in seconds since 1970: of two pools that overlap, the older one holds.
    pub created: i64,
    /// Its ports, in rising order, none in two ranges.
    pub ranges: Vec<PortRange>,
    /// What can be asked for.
    pub protocols: Protocols,
    /// The only clients; empty is everybody.
    pub source_ranges: Vec<IpNet>,
    /// How long a freed port is kept from others; `None` is the default.
    pub quarantine: Option<Duration>,
    /// How many ports a namespace may have over the whole cluster.
    pub quota_per_namespace: Option<u32>,
    /// Which namespaces may use it, among those that are opted in.
    pub namespaces: Selector,
    /// Which nodes have it.
    pub nodes: Selector,
}

/// Why a `PortPool` cannot be used. The API server refuses most of these already, with the rules of the definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Some part of the spec.
    #[error("spec.{field}: {message}")]
    Field {
        /// The path in the spec.
        field: String,
        /// What is wrong, and what to write.
        message: String,
    },
    /// Two ranges have a port in common.
    #[error("spec.ranges: {first} and {second} overlap: give each port once")]
    Overlap {
        /// One range.
        first: PortRange,
        /// The other.
        second: PortRange,
    },
    /// The name cannot be asked for.
    #[error("metadata.name: {0}")]
    Name(#[from] portolan_model::NameError),
    /// The spec is of another shape.
    #[error("spec: {0}")]
    Shape(String),
}

impl PoolFacts {
    /// How many ports it has on each node.
    pub fn count(&self) -> u32 {
        self.ranges.iter().map(|range| u32::from(range.count())).sum()
    }

    /// Whether Pods of a namespace with these labels may use it. The namespace must be opted in besides ([`opted_in`]).
    pub fn admits(&self, namespace: &BTreeMap<String, String>) -> bool {
        self.namespaces.matches(namespace)
    }

    /// Whether a port is in both.
    pub fn overlap(&self, other: &Self) -> Option<(PortRange, PortRange)> {
        let pairs =
            self.ranges.iter().flat_map(|mine| other.ranges.iter().map(move |theirs| (*mine, *theirs)));
        pairs.into_iter().find(|(mine, theirs)| mine.overlaps(*theirs))
    }

    pub(crate) fn read(name: &str, uid: &str, created: i64, spec: &PortPoolSpec) -> Result<Self, PoolError> {
        Ok(Self {
            name: Name::new(name)?,
            uid: uid.to_owned(),
            created,
            ranges: ranges(&spec.ranges)?,
            protocols: protocols(&spec.protocols)?,
            source_ranges: source_ranges(&spec.source_ranges)?,
            quarantine: spec.quarantine.as_deref().map(quarantine).transpose()?,
            quota_per_namespace: quota(spec)?,
            namespaces: selector("namespaceSelector", spec.namespace_selector.as_ref())?,
            nodes: selector("nodeSelector", spec.node_selector.as_ref())?,
        })
    }
}

fn wrong(field: impl Into<String>, message: impl ToString) -> PoolError {
    PoolError::Field { field: field.into(), message: message.to_string() }
}

fn ranges(texts: &[String]) -> Result<Vec<PortRange>, PoolError> {
    let parsed = texts.iter().enumerate().map(|(index, text)| {
        text.parse::<PortRange>().map_err(|error| wrong(format!("ranges[{index}]"), error))
    });
    let mut ranges = parsed.collect::<Result<Vec<_>, _>>()?;
    ranges.sort();
    match ranges.windows(2).find(|pair| pair[0].overlaps(pair[1])) {
        Some(pair) => Err(PoolError::Overlap { first: pair[0], second: pair[1] }),
        None if ranges.is_empty() => Err(wrong("ranges", "no ports: give at least one, such as 20000-29999")),
        None => Ok(ranges),
    }
}

fn protocols(listed: &[PoolProtocol]) -> Result<Protocols, PoolError> {
    let protocols: Protocols = listed
        .iter()
        .map(|protocol| match protocol {
            PoolProtocol::Tcp => Protocol::Tcp,
            PoolProtocol::Udp => Protocol::Udp,
            PoolProtocol::Sctp => Protocol::Sctp,
        })
        .collect();
    if protocols.is_empty() { Err(wrong("protocols", "none: give TCP, UDP or SCTP")) } else { Ok(protocols) }
}

fn source_ranges(texts: &[String]) -> Result<Vec<IpNet>, PoolError> {
    let parsed = texts.iter().enumerate().map(|(index, text)| {
        let network: Result<IpNet, _> = text.parse();
        network.map(|network| network.trunc()).map_err(|_| {
            let message = format!("{text:?} is no CIDR: write 203.0.113.0/24 or 2001:db8::/32");
            wrong(format!("sourceRanges[{index}]"), message)
        })
    });
    parsed.collect()
}

/// Durations are written as in all of Kubernetes, which is Go's way: `90s`, `1m30s`, `1.5h`.
fn quarantine(text: &str) -> Result<Duration, PoolError> {
    let message = || format!("{text:?} is no duration: write 120s, 2m or 1h");
    let parsed: kube::core::Duration = text.parse().map_err(|_| wrong("quarantine", message()))?;
    if parsed.is_negative() { Err(wrong("quarantine", message())) } else { Ok(parsed.into()) }
}

fn quota(spec: &PortPoolSpec) -> Result<Option<u32>, PoolError> {
    let Some(number) = spec.quota.as_ref().and_then(|quota| quota.per_namespace) else { return Ok(None) };
    let number = u32::try_from(number)
        .map_err(|_| wrong("quota.perNamespace", format!("{number} is less than no ports at all")));
    number.map(Some)
}

fn selector(field: &str, selector: Option<&LabelSelector>) -> Result<Selector, PoolError> {
    let read = selector.map(|selector| Selector::try_from(selector).map_err(|error| wrong(field, error)));
    read.transpose().map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
