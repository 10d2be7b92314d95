//! How the packet rules are to be on this node, apart from the mappings.

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
        direct = cluster.networks();
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
        ..PlanConfig::any()
    }
}
