//! Pools: named ranges of host ports, each with its own protocols and quarantine.
//!
//! A pool is policy, not state: what is in use of it is known by [`crate::allocate::Allocator`].

use std::time::Duration;

use portolan_model::{Name, PortRange, PortRanges, Protocol, Protocols};
use serde::{Deserialize, Serialize};

/// How long a freed port stays out of use unless the pool says otherwise.
///
/// Two minutes: as long as conntrack keeps the entry of a UDP stream (`nf_conntrack_udp_timeout_stream`, 120 s), and
/// twice as long as TCP keeps TIME_WAIT. Clients of the old owner have noticed by then.
pub const DEFAULT_QUARANTINE: Duration = Duration::from_secs(120);

/// Named ranges of host ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// What requests call it.
    pub name: Name,
    /// Its ports.
    pub ranges: PortRanges,
    /// For which protocols its ports are given.
    pub protocols: Protocols,
    /// How long a freed port of it is kept from other instances.
    pub quarantine: Duration,
}

/// The pools of a node: no name twice, no port in two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools(Vec<Pool>);

/// Why pools cannot be used, or cannot be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// No pool at all.
    #[error("no pool of ports is configured: configure at least one, such as default=20000-29999")]
    None,
    /// One name for two ranges.
    #[error("the pool {0} is configured twice")]
    Twice(Name),
    /// Ports that would belong to two policies.
    #[error(
        "the pools {first} ({first_range}) and {second} ({second_range}) overlap: give each port to one pool"
    )]
    Overlap {
        /// One pool.
        first: Name,
        /// Its range.
        first_range: PortRanges,
        /// The other.
        second: Name,
        /// Its range.
        second_range: PortRanges,
    },
    /// A request names a pool that is not configured.
    #[error("there is no pool {asked}: this node has {known}")]
    Unknown {
        /// The name in the request.
        asked: Name,
        /// The names that exist, separated by commas.
        known: String,
    },
}

impl Pool {
    /// A pool for every protocol, with the default quarantine.
    pub fn new(name: Name, ranges: impl Into<PortRanges>) -> Self {
        let protocols = Protocol::ALL.into_iter().collect();
        Self { name, ranges: ranges.into(), protocols, quarantine: DEFAULT_QUARANTINE }
    }
}

impl Pools {
    /// Keeps `pools` when they can be told apart. The first is the one for requests that name none, unless one of
    /// them is called `default`.
    pub fn new(mut pools: Vec<Pool>) -> Result<Self, PoolError> {
        for (index, pool) in pools.iter().enumerate() {
            for other in &pools[..index] {
                if other.name == pool.name {
                    return Err(PoolError::Twice(pool.name.clone()));
                }
                if pool.ranges.iter().any(|range| other.ranges.overlaps(range)) {
                    return Err(PoolError::Overlap {
                        first: other.name.clone(),
                        first_range: other.ranges.clone(),
                        second: pool.name.clone(),
                        second_range: pool.ranges.clone(),
                    });
                }
            }
        }
        if let Some(default) = pools.iter().position(|pool| pool.name.as_str() == "default") {
            pools.swap(0, default);
        }
        if pools.is_empty() { Err(PoolError::None) } else { Ok(Self(pools)) }
    }

    /// No pool: there are static ports only.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// The pool of that name; without a name the default pool.
    pub fn get(&self, name: Option<&Name>) -> Result<&Pool, PoolError> {
        let Some(name) = name else { return self.0.first().ok_or(PoolError::None) };
        self.0.iter().find(|pool| pool.name == *name).ok_or_else(|| {
            let known: Vec<_> = self.0.iter().map(|pool| pool.name.as_str()).collect();
            PoolError::Unknown { asked: name.clone(), known: known.join(", ") }
        })
    }

    /// The pool that `port` belongs to.
    pub fn of(&self, port: u16) -> Option<&Pool> {
        self.0.iter().find(|pool| pool.ranges.contains(port))
    }

    /// All of them, the default first.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.0.iter()
    }
}

impl Default for Pools {
    /// One pool, `default`, 20000-29999: below the ephemeral range of Linux (32768-60999, `ip-sysctl.rst`) and of
    /// IANA (49152-65535), below Kubernetes' node ports (30000-32767), above the registered services in wide use.
    fn default() -> Self {
        let (Ok(name), Ok(range)) = (Name::new("default"), PortRange::new(20000, 29999)) else {
            unreachable!("both are constants in the legal range")
        };
        Self(vec![Pool::new(name, range)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, range: &str) -> Pool {
        Pool::new(name.parse().unwrap(), range.parse::<PortRanges>().unwrap())
    }

    #[test]
    fn a_port_belongs_to_one_pool() {
        let error = Pools::new(vec![pool("a", "1000-2000"), pool("b", "2000-3000")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the pools a (1000-2000) and b (2000-3000) overlap: give each port to one pool"
        );
    }

    #[test]
    fn the_pool_called_default_is_the_default_wherever_it_stands() {
        let pools = Pools::new(vec![pool("media", "1000-1999"), pool("default", "2000-2999")]).unwrap();
        assert_eq!(pools.get(None).unwrap().name.as_str(), "default");
        let alone = Pools::new(vec![pool("media", "1000-1999")]).unwrap();
        assert_eq!(alone.get(None).unwrap().name.as_str(), "media");
    }

    #[test]
    fn an_unknown_pool_is_answered_with_the_known_ones() {
        let pools = Pools::new(vec![pool("a", "1000-1999"), pool("b", "2000-2999")]).unwrap();
        let error = pools.get(Some(&"c".parse().unwrap())).unwrap_err();
        assert_eq!(error.to_string(), "there is no pool c: this node has a, b");
    }
}
