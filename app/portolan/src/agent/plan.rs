//! How the packet rules are to be on this node, apart from the mappings.

use ipnet::IpNet;
use portolan_apply::PlanConfig;
use portolan_plan::SourcePolicy;

use super::{Agent, AgentConfig, cluster::Cluster, pools::NodePool};

/// The rules for the networks and pools as they are known now.
pub(crate) fn plan(agent: &Agent) -> PlanConfig {
    first(&agent.config, &agent.cluster, &agent.pools())
}

/// The same, before there is an agent.
pub(crate) fn first(config: &AgentConfig, cluster: &Cluster, pools: &[NodePool]) -> PlanConfig {
    let mut direct = config.direct.clone();
    if direct.is_empty() {
        direct = if cluster.is_known() { remember(config, cluster.networks()) } else { remembered(config) };
    }
    direct.sort_unstable();
    direct.dedup();
    let policies = |pool: &NodePool| {
        let (protocols, allowed) = (pool.protocols, pool.sources.clone());
        let policy = move |ports| SourcePolicy { ports, protocols, allowed: allowed.clone() };
        pool.ranges.iter().map(policy).collect::<Vec<_>>()
    };
    PlanConfig {
        direct,
        pools: pools.iter().flat_map(|pool| pool.ranges.iter().collect::<Vec<_>>()).collect(),
        sources: pools.iter().filter(|pool| !pool.sources.is_empty()).flat_map(policies).collect(),
        counting: config.counting,
        ..PlanConfig::any()
    }
}

/// An agent that starts while the API server is away goes on with the networks of the last one.
fn remembered(config: &AgentConfig) -> Vec<IpNet> {
    let text = std::fs::read_to_string(config.networks()).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn remember(config: &AgentConfig, networks: Vec<IpNet>) -> Vec<IpNet> {
    if networks != remembered(config) {
        let written = serde_json::to_string(&networks).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|text| std::fs::write(config.networks(), text)) {
            tracing::debug!(%error, "cannot remember the networks of the cluster");
        }
    }
    networks
}
