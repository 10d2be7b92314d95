//! The allocator: which host ports an instance gets. Pure; time and chance are given to it.
//!
//! It knows what is leased, what is in quarantine, what others have reserved and who had which port last. It does not
//! know whether the kernel agrees: [`crate::hold`] binds what was chosen, and a port that cannot be bound comes back
//! by [`Allocator::avoid`] before another is chosen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use portolan_model::{Name, PortName, PortRange, PortRequest, Protocol, Protocols, PublishedPort};
use rand::Rng;

use crate::{
    bitmap::Bitmap,
    choose,
    pool::{Pool, Pools},
    quarantine::{Entry, Quarantine},
    replay::Freed,
    sticky::Sticky,
    taken::Taken,
    usage::{Exhaustion, Usage},
};

mod error;
#[cfg(test)]
mod tests;

pub use error::AllocateError;

/// The ports of one node.
#[derive(Debug)]
pub struct Allocator {
    pools: Pools,
    taken: Taken,
    quarantine: Quarantine,
    reserved: Bitmap,
    sticky: Sticky,
    failed: BTreeMap<Name, u64>,
}

impl Allocator {
    /// Everything free.
    pub fn new(pools: Pools, sticky: Sticky) -> Self {
        Self {
            pools,
            taken: Taken::default(),
            quarantine: Quarantine::default(),
            reserved: Bitmap::new(),
            sticky,
            failed: BTreeMap::new(),
        }
    }

    /// The pools that it chooses from.
    pub const fn pools(&self) -> &Pools {
        &self.pools
    }

    /// What it remembers of former choices.
    pub const fn sticky(&self) -> &Sticky {
        &self.sticky
    }

    /// Chooses and takes ports for all `requests`, or none. Answers in the order of the requests.
    ///
    /// Static ports are taken first, so that a random choice of the same instance cannot be in their way.
    pub fn allocate(
        &mut self,
        instance: &Name,
        requests: &[PortRequest],
        now: Duration,
        random: &mut impl Rng,
    ) -> Result<Vec<PublishedPort>, AllocateError> {
        self.quarantine.expire(now);
        let mut names = BTreeSet::new();
        for request in requests {
            if !names.insert(&request.name) {
                let why = "two ports have this name: give each its own";
                return Err(AllocateError::Request { port: request.name.clone(), why });
            }
        }
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|&index| requests[index].host.is_none());
        let mut answers: Vec<Option<PublishedPort>> = vec![None; requests.len()];
        for index in order {
            let request = &requests[index];
            match self.choose(instance, request, now, random) {
                Ok(host) => {
                    let port = published(request, host);
                    self.taken.insert(&port);
                    answers[index] = Some(port);
                }
                Err(error) => {
                    self.undo(answers.into_iter().flatten());
                    self.count_failure(request, &error);
                    return Err(error);
                }
            }
        }
        let ports: Vec<_> = answers.into_iter().flatten().collect();
        for (port, request) in ports.iter().zip(requests) {
            if request.host.is_none() {
                self.sticky.remember(instance, &port.name, port.host, now);
            }
        }
        Ok(ports)
    }

    /// Takes ports that were chosen in an earlier life. Fails when something else has one of them.
    pub fn adopt(&mut self, ports: &[PublishedPort]) -> Result<(), AllocateError> {
        for (index, port) in ports.iter().enumerate() {
            if let Err(error) = self.check(port) {
                self.undo(ports[..index].iter().cloned());
                return Err(error);
            }
            self.taken.insert(port);
        }
        Ok(())
    }

    /// Remembers a choice of an earlier life.
    pub fn remember(&mut self, instance: &Name, port: &PortName, range: PortRange, used: Duration) {
        self.sticky.remember(instance, port, range, used);
    }

    /// Frees the ports of `instance`; those of a pool go into quarantine from `now` on.
    pub fn release(&mut self, instance: &Name, ports: &[PublishedPort], now: Duration) {
        self.quarantine_ports(instance, ports, now);
        for port in ports {
            self.taken.remove(port);
            if self.sticky.recall(instance, &port.name, now) == Some(port.host) {
                self.sticky.remember(instance, &port.name, port.host, now);
            }
        }
    }

    /// Frees ports without quarantine: nobody has learned their numbers.
    pub fn undo(&mut self, ports: impl IntoIterator<Item = PublishedPort>) {
        for port in ports {
            self.taken.remove(&port);
        }
    }

    /// Keeps a random choice from a port that a foreign process was found to have, until then.
    pub fn avoid(&mut self, protocol: Protocol, port: u16, until: Duration) {
        if let Ok(range) = PortRange::single(port) {
            self.quarantine.insert(Entry { protocol, range, until, owner: None });
        }
    }

    /// Keeps ports that `instance` had until `at` from others: [`Allocator::quarantine`].
    pub fn quarantine_ports(&mut self, instance: &Name, ports: &[PublishedPort], at: Duration) {
        for port in ports {
            for protocol in port.protocols.iter() {
                self.quarantine(Freed { instance: instance.clone(), protocol, range: port.host, at });
            }
        }
    }

    /// Keeps a freed range from others for as long as its pool says. Ports outside of every pool are not kept: a random
    /// choice never takes them.
    pub fn quarantine(&mut self, freed: Freed) {
        let Freed { instance, protocol, range, at } = freed;
        let time = self.pools.of(range.first()).map_or(Duration::ZERO, |pool| pool.quarantine);
        if time > Duration::ZERO {
            let until = at.saturating_add(time);
            self.quarantine.insert(Entry { protocol, range, until, owner: Some(instance) });
        }
    }

    /// The ranges that are kept from others, and since when.
    pub fn freed(&self) -> impl Iterator<Item = Freed> {
        self.quarantine.iter().filter_map(|entry| {
            let time = self.pools.of(entry.range.first())?.quarantine;
            let at = entry.until.saturating_sub(time);
            Some(Freed { instance: entry.owner.clone()?, protocol: entry.protocol, range: entry.range, at })
        })
    }

    /// What others have put into `ip_local_reserved_ports`: not chosen at random.
    ///
    /// A reserved range that covers a whole pool was made to protect that pool (an administrator's `sysctl.d`, or
    /// another Portolan), so it keeps nothing from it.
    pub fn set_reserved(&mut self, reserved: &[PortRange]) {
        self.reserved = Bitmap::new();
        for range in reserved {
            self.reserved.insert(*range);
        }
        for pool in self.pools.iter() {
            if self.reserved.count_in(pool.range) == u32::from(pool.range.count()) {
                self.reserved.remove(pool.range);
            }
        }
    }

    /// Every pool, counted over all protocols.
    pub fn usage(&mut self, now: Duration) -> Vec<Usage> {
        self.quarantine.expire(now);
        let all: Protocols = Protocol::ALL.into_iter().collect();
        self.pools.iter().map(|pool| self.usage_of(pool, all)).collect()
    }

    fn choose(
        &self,
        instance: &Name,
        request: &PortRequest,
        now: Duration,
        random: &mut impl Rng,
    ) -> Result<PortRange, AllocateError> {
        let port = || request.name.clone();
        if request.protocols.is_empty() || request.count == 0 {
            let why = "no protocol or no port is asked for: name at least one of each";
            return Err(AllocateError::Request { port: port(), why });
        }
        let pool = self.pools.get(request.pool.as_ref());
        let pool = pool.map_err(|source| AllocateError::Pool { port: port(), source })?;
        if let Some(first) = request.host {
            let why = "the block goes past 65535: begin lower or ask for fewer";
            let host = PortRange::block(first, request.count)
                .ok_or_else(|| AllocateError::Request { port: port(), why })?;
            if request.pool.is_some() && !covers(pool.range, host) {
                return Err(AllocateError::OutsidePool {
                    port: port(),
                    host,
                    pool: pool.name.clone(),
                    range: pool.range,
                });
            }
            self.check(&published(request, host))?;
            return Ok(host);
        }
        if request.count > pool.range.count() {
            return Err(AllocateError::TooLarge {
                port: port(),
                count: request.count,
                pool: pool.name.clone(),
                range: pool.range,
            });
        }
        let random_choice = |free: &Bitmap, random: &mut _| match request.count {
            1 => choose::single(free, pool.range, random).and_then(|port| PortRange::single(port).ok()),
            count => choose::block(free, count, random),
        };
        self.had_last(instance, request, pool, now)
            .or_else(|| random_choice(&self.free(pool, request.protocols, None), random))
            // Only when nothing else is left: what the same instance gave back a moment ago under another name.
            .or_else(|| random_choice(&self.free(pool, request.protocols, Some(instance)), random))
            .ok_or_else(|| {
                let first_back = request
                    .protocols
                    .iter()
                    .filter_map(|protocol| self.quarantine.first_end(protocol, pool.range))
                    .min()
                    .map(|until| until.saturating_sub(now));
                AllocateError::Exhausted {
                    port: port(),
                    exhaustion: Box::new(Exhaustion {
                        count: request.count,
                        protocols: request.protocols,
                        usage: self.usage_of(pool, request.protocols),
                        first_back,
                    }),
                }
            })
    }

    /// The range that the instance had last under this port name, if it still fits the request and is free.
    fn had_last(
        &self,
        instance: &Name,
        request: &PortRequest,
        pool: &Pool,
        now: Duration,
    ) -> Option<PortRange> {
        let range = self.sticky.recall(instance, &request.name, now)?;
        let fits = range.count() == request.count
            && covers(pool.range, range)
            && self.reserved.count_in(range) == 0
            && request.protocols.iter().all(|protocol| {
                self.taken.bits(protocol).count_in(range) == 0
                    && self.quarantine.admits(protocol, range, instance)
            });
        fits.then_some(range)
    }

    /// What a random choice may take, with `owner` also what is in quarantine on its own account.
    fn free(&self, pool: &Pool, protocols: Protocols, owner: Option<&Name>) -> Bitmap {
        let taken = protocols.iter().map(|protocol| self.taken.bits(protocol));
        let Some(owner) = owner else {
            let quarantined = protocols.iter().map(|protocol| self.quarantine.bits(protocol));
            return Bitmap::complement_in(pool.range, taken.chain(quarantined).chain([&self.reserved]));
        };
        let mut free = Bitmap::complement_in(pool.range, taken.chain([&self.reserved]));
        for entry in self.quarantine.iter() {
            if protocols.contains(entry.protocol) && entry.owner.as_ref() != Some(owner) {
                free.remove(entry.range);
            }
        }
        free
    }

    fn check(&self, port: &PublishedPort) -> Result<(), AllocateError> {
        let conflict = self.taken.conflict(port.protocols, port.host, port.address);
        conflict.map_or(Ok(()), |(protocol, number)| {
            Err(AllocateError::Leased { port: port.name.clone(), number, protocol, address: port.address })
        })
    }

    fn count_failure(&mut self, request: &PortRequest, error: &AllocateError) {
        if matches!(error, AllocateError::Exhausted { .. } | AllocateError::TooLarge { .. })
            && let Ok(pool) = self.pools.get(request.pool.as_ref())
        {
            *self.failed.entry(pool.name.clone()).or_default() += 1;
        }
    }

    fn usage_of(&self, pool: &Pool, protocols: Protocols) -> Usage {
        let taken: Vec<_> = protocols.iter().map(|protocol| self.taken.bits(protocol)).collect();
        let mut kept: Vec<_> = protocols.iter().map(|protocol| self.quarantine.bits(protocol)).collect();
        let count = |bitmap: Bitmap| bitmap.count_in(pool.range);
        let unused = count(Bitmap::complement_in(pool.range, taken.iter().copied()));
        kept.extend(&taken);
        let unkept = count(Bitmap::complement_in(pool.range, kept.iter().copied()));
        kept.push(&self.reserved);
        let free_map = Bitmap::complement_in(pool.range, kept);
        let largest_block = free_map.runs().map(|run| u32::from(run.count())).max().unwrap_or(0);
        let free = count(free_map);
        Usage {
            pool: pool.name.clone(),
            range: pool.range,
            free,
            used: u32::from(pool.range.count()) - unused,
            quarantined: unused - unkept,
            reserved: unkept - free,
            largest_block,
            failed: self.failed.get(&pool.name).copied().unwrap_or(0),
        }
    }
}

/// The answer to `request`.
fn published(request: &PortRequest, host: PortRange) -> PublishedPort {
    PublishedPort {
        name: request.name.clone(),
        protocols: request.protocols,
        host,
        container: request.container.unwrap_or(host.first()),
        address: request.address,
    }
}

/// Whether all of `inner` is in `outer`.
const fn covers(outer: PortRange, inner: PortRange) -> bool {
    outer.first() <= inner.first() && inner.last() <= outer.last()
}
