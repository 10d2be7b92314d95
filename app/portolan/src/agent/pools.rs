//! The pools of this node: those of the cluster's PortPools, or those of the command line where there is no PortPool.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;
use portolan_kubernetes::{PoolFacts, PoolSet};
use portolan_model::{Name, PortRange, PortRanges, Protocol, Protocols};
use portolan_ports::{Pool, PoolError, Pools};

use super::decide::Admission;

/// One pool with its policy.
#[derive(Clone, Debug)]
pub(crate) struct NodePool {
    /// Its name.
    pub(crate) name: Name,
    /// Its ports.
    pub(crate) ranges: PortRanges,
    /// What it is for.
    pub(crate) protocols: Protocols,
    /// How long a freed port is kept from others.
    pub(crate) quarantine: Duration,
    /// Who may reach its ports; empty is everybody.
    pub(crate) sources: Vec<IpNet>,
    /// The PortPool with what else it says; `None` of a pool of the command line, which is for all.
    facts: Option<PoolFacts>,
}

impl NodePool {
    /// A pool of the command line.
    pub(crate) fn configured(name: Name, range: PortRange, quarantine: Duration) -> Self {
        let protocols = Protocol::ALL.into_iter().collect();
        Self { name, ranges: range.into(), protocols, quarantine, sources: Vec::new(), facts: None }
    }

    /// What a namespace with these labels may have of it.
    fn admission(&self, labels: &BTreeMap<String, String>) -> Admission {
        let facts = self.facts.as_ref();
        Admission {
            pool: self.name.clone(),
            ranges: self.ranges.clone(),
            protocols: self.protocols,
            admitted: facts.is_none_or(|pool| pool.admits(labels)),
            quota: facts.and_then(|pool| pool.quota_per_namespace),
            anywhere: facts.is_none(),
        }
    }
}

/// The pools that count: the cluster's as soon as it has one, also if none of them is for this node.
pub(crate) fn pools(
    cluster: Option<PoolSet>,
    configured: &[NodePool],
    quarantine: Duration,
) -> Vec<NodePool> {
    let Some(set) = cluster.filter(|set| set.defined) else { return configured.to_vec() };
    let pool = |facts: PoolFacts| {
        Some(NodePool {
            name: facts.name.clone(),
            ranges: PortRanges::new(facts.ranges.iter().copied())?,
            protocols: facts.protocols,
            quarantine: facts.quarantine.unwrap_or(quarantine),
            sources: facts.source_ranges.clone(),
            facts: Some(facts),
        })
    };
    set.pools.into_iter().filter_map(pool).collect()
}

/// The same for the engine.
pub(crate) fn of_ports(pools: &[NodePool]) -> Result<Pools, PoolError> {
    let pool = |pool: &NodePool| Pool {
        name: pool.name.clone(),
        ranges: pool.ranges.clone(),
        protocols: pool.protocols,
        quarantine: pool.quarantine,
    };
    // A node that no PortPool is for: then there are static ports only.
    if pools.is_empty() {
        return Ok(Pools::none());
    }
    Pools::new(pools.iter().map(pool).collect())
}

/// What a namespace may have of each pool.
pub(crate) fn admissions(pools: &[NodePool], labels: &BTreeMap<String, String>) -> Vec<Admission> {
    pools.iter().map(|pool| pool.admission(labels)).collect()
}
