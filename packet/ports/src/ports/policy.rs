//! What changes about pools while leases live: other ranges, and ports that others announce.

use portolan_model::{InstanceId, PortRange, Protocols};

use super::Ports;
use crate::{
    overlap::{self, Other, Overlap},
    pool::Pools,
    reserve::ReserveError,
};

/// What [`Ports::set_pools`] has found.
#[derive(Debug, Default)]
pub struct PoolsChanged {
    /// The instances that have random ports which no pool has now. They keep them; their next life gets others.
    pub outside: Vec<InstanceId>,
    /// Why the pools are not in `ip_local_reserved_ports`.
    pub unprotected: Option<ReserveError>,
}

impl Ports {
    /// Chooses from these pools from now on. Leases live on as they are, wherever their ports are, and
    /// `ip_local_reserved_ports` follows.
    pub fn set_pools(&mut self, pools: Pools) -> PoolsChanged {
        let ranges: Vec<PortRange> = pools.iter().flat_map(|pool| pool.ranges.iter()).collect();
        self.allocator.set_pools(pools);
        let changed = self.reservation.as_mut().map(|reservation| reservation.change(&ranges));
        let unprotected = match changed {
            Some(Ok(others)) => {
                self.allocator.set_reserved(&others);
                None
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        PoolsChanged { outside: self.outside(), unprotected }
    }

    /// The pools.
    pub const fn pools(&self) -> &Pools {
        self.allocator.pools()
    }

    /// The instances that have random ports outside of every pool: the pools have changed since.
    pub fn outside(&self) -> Vec<InstanceId> {
        let pools = self.allocator.pools();
        let is_outside = |range: PortRange| !pools.iter().any(|pool| pool.ranges.covers(range));
        self.leases
            .values()
            .filter(|lease| {
                let pairs = lease.ports.iter().zip(&lease.request.requests);
                pairs.into_iter().any(|(port, request)| request.host.is_none() && is_outside(port.host))
            })
            .map(|lease| lease.request.instance.clone())
            .collect()
    }

    /// Keeps random choices from ports that `who` uses or is about to, such as the static host ports of a Pod whose
    /// runtime publishes them by another program. Replaces what was said of `who`; nothing ends it. It is not written
    /// down: whoever says it says it again after a start.
    pub fn avoid(&mut self, who: &str, ports: Vec<(Protocols, PortRange)>) {
        self.allocator.announce(who, ports);
    }

    /// The pools that share ports with `others` or with what [`Ports::avoid`] was told.
    pub fn overlaps(&self, others: &[Other]) -> Vec<Overlap> {
        let announced = self.allocator.announced();
        let announced = announced.map(|(who, _, range)| Other::Static(range, who.to_owned()));
        let others: Vec<Other> = others.iter().cloned().chain(announced).collect();
        overlap::find(self.allocator.pools(), &others)
    }
}
