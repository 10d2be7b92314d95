//! How full a pool is, for people, for metrics and for the error that says it is exhausted.

use std::{fmt, time::Duration};

use portolan_model::{LeaseUsage, Name, NodePorts, PoolUsage, PortRanges, Protocols};
use serde::{Deserialize, Serialize};

use crate::{lease::Lease, ports::Ports};

/// The state of one pool. `free + used + quarantined + reserved` is the number of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The pool.
    pub pool: Name,
    /// Its ports.
    pub ranges: PortRanges,
    /// Numbers that a random choice could take for every protocol that is counted.
    pub free: u32,
    /// Numbers in use by an instance for at least one of the protocols.
    pub used: u32,
    /// Numbers that are kept from others for a while, or were found to be taken by a foreign process.
    pub quarantined: u32,
    /// Numbers that somebody else put in `ip_local_reserved_ports`, or has announced to use.
    pub reserved: u32,
    /// The longest run of free numbers.
    pub largest_block: u32,
    /// How often this pool could not give what was asked, since the start.
    pub failed: u64,
}

impl From<Usage> for PoolUsage {
    fn from(usage: Usage) -> Self {
        Self {
            name: usage.pool,
            range: usage.ranges,
            used: usage.used,
            quarantined: usage.quarantined,
            free: usage.free,
            largest_block: usage.largest_block,
        }
    }
}

impl From<&Lease> for LeaseUsage {
    fn from(lease: &Lease) -> Self {
        Self {
            instance: lease.request.instance.clone(),
            owner: lease.request.owner.clone(),
            network: lease.request.network,
            ports: lease.ports.clone(),
            addresses: lease.addresses().collect(),
        }
    }
}

impl Ports {
    /// What the pools have left and who has what, on the node of this name.
    pub fn of_node(&mut self, node: String) -> NodePorts {
        let pools = self.usage().into_iter().map(PoolUsage::from).collect();
        NodePorts { node, pools, leases: self.leases().map(LeaseUsage::from).collect() }
    }
}

/// What could not be found in a pool, and what is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhaustion {
    /// How many contiguous ports.
    pub count: u16,
    /// Free for all of these.
    pub protocols: Protocols,
    /// The pool, counted for these protocols.
    pub usage: Usage,
    /// When the first number comes out of quarantine, from now.
    pub first_back: Option<Duration>,
}

impl fmt::Display for Exhaustion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, protocols, usage, first_back } = self;
        match count {
            1 => write!(f, "the pool {} ({}) has no free port for {protocols}: ", usage.pool, usage.ranges)?,
            _ => write!(
                f,
                "the pool {} ({}) has no {count} contiguous free ports for {protocols}: ",
                usage.pool, usage.ranges
            )?,
        }
        write!(f, "{} of {} in use, {} in quarantine", usage.used, usage.ranges.count(), usage.quarantined)?;
        if let Some(back) = first_back {
            write!(
                f,
                " (the first comes back in {} s)",
                back.as_secs() + u64::from(back.subsec_nanos() > 0)
            )?;
        }
        if usage.reserved > 0 {
            write!(
                f,
                ", {} reserved by others in ip_local_reserved_ports or by static host ports",
                usage.reserved
            )?;
        }
        write!(f, ", {} free, largest free block {}; ", usage.free, usage.largest_block)?;
        f.write_str("stop instances, wait for the quarantine, or configure a larger pool")
    }
}
