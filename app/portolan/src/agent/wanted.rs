//! From a Pod to the requests of its lease: its annotations, its container ports, and whether it may.

use std::{collections::BTreeMap, sync::Arc};

use portolan_kubernetes::PodFacts;
use portolan_model::{Ask, Network, PodRef, PortRequest};

use super::{
    Agent,
    asks::{asks, container_ports},
    cluster::Unknown,
    decide::{Asking, Refusal, decide},
    pools,
};

/// What a Pod is to get.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// How it asked.
    pub(crate) ask: Ask,
    /// Each with the name of its pool.
    pub(crate) requests: Vec<PortRequest>,
}

/// A Pod that asks, and what comes of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The Pod, where it is known.
    pub(crate) facts: Option<Arc<PodFacts>>,
    /// What it is to get, or why not.
    pub(crate) wanted: Result<Wanted, Refusal>,
}

/// What a Pod asks for; `None` when it asks for nothing. `annotations` are those that the runtime tells.
///
/// # Errors
/// The API server has to be asked and does not say.
pub(crate) async fn wanted(
    agent: &Agent,
    pod: &PodRef,
    annotations: Option<&BTreeMap<String, String>>,
    on: Network,
) -> Result<Option<Outcome>, Unknown> {
    if annotations.is_some_and(|annotations| !asks(annotations)) {
        return Ok(None);
    }
    let facts = agent.cluster.pod(pod).await?;
    // The runtime's are those of the Pod when its sandbox was made; both are the same unless somebody changed them in
    // the meantime.
    let annotations = annotations.or_else(|| facts.as_ref().map(|facts| &facts.annotations));
    let Some(annotations) = annotations.filter(|annotations| asks(annotations)) else { return Ok(None) };
    let asked = match Ask::read(annotations) {
        Ok(None) => return Ok(None),
        Ok(Some(ask)) => {
            let ports = facts.as_deref().map(container_ports).unwrap_or_default();
            ask.resolve_on(on, &ports).map(|requests| (ask, requests))
        }
        Err(error) => Err(error),
    };
    let (ask, requests) = match asked {
        Ok((_, requests)) if requests.is_empty() => return Ok(None),
        Ok(asked) => asked,
        Err(error) => return Ok(Some(Outcome { facts, wanted: Err(error.into()) })),
    };
    let (opted_in, labels) = agent.cluster.namespace(&pod.namespace).await?;
    let admissions = pools::admissions(&agent.pools(), &labels);
    // Counting is a question to the API server, and only asked where there is a limit.
    let limited = admissions.iter().any(|pool| pool.admitted && pool.quota.is_some());
    let used = match facts.as_deref() {
        Some(facts) if opted_in && limited => agent.cluster.used(facts).await?,
        _ => BTreeMap::new(),
    };
    let asking = Asking { namespace: &pod.namespace, opted_in, pools: &admissions, used: &used };
    let wanted = decide(&asking, requests).map(|requests| Wanted { ask, requests });
    Ok(Some(Outcome { facts, wanted }))
}
