//! The allocator: which host ports an instance gets. Pure; time and chance are given to it.
//!
//! It knows what is leased, what is in quarantine, what others have reserved and who had which port last. It does not
//! know whether the kernel agrees: [`crate::hold`] binds what was chosen, and a port that cannot be bound comes back
//! by [`Allocator::avoid`] before another is chosen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use portolan_model::{
    InstanceId, Name, PortName, PortRange, PortRequest, Protocol, Protocols, PublishedPort,
};
use rand::Rng;

use crate::{
    bitmap::Bitmap,
    choose,
    index::{Index, Kept, Writer},
    pool::{Pool, Pools},
    quarantine::{Entry, Former, Quarantine},
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
    /// In `ip_local_reserved_ports` by others, apart from what they reserve for a pool as a whole.
    reserved: Bitmap,
    /// All that others have there.
    others: Vec<PortRange>,
    /// Ports that somebody has announced to use, by who.
    announced: BTreeMap<String, Vec<(Protocols, PortRange)>>,
    /// The same by protocol.
    avoided: [Bitmap; 3],
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
            others: Vec::new(),
            announced: BTreeMap::new(),
            avoided: Default::default(),
            sticky,
            failed: BTreeMap::new(),
        }
    }

    /// Goes on from what an earlier process has left in an index.
    pub fn resume(pools: Pools, index: &Arc<Index>) -> Self {
        let mut sticky = Sticky::default();
        sticky.set_before(Arc::clone(index));
        let bits = Protocol::ALL.map(|protocol| index.taken(protocol));
        let mut quarantine = Quarantine::default();
        for Kept { protocol, range, until, owner } in index.quarantine() {
            let owner = (owner != 0).then_some(Former::Hash(owner));
            quarantine.insert(Entry { protocol, range, until, owner });
        }
        Self { taken: Taken::restore(bits, index.addresses()), quarantine, ..Self::new(pools, sticky) }
    }

    /// Puts what the next process needs to go on into an index.
    pub fn write(&mut self, index: &mut Writer, now: Duration) {
        self.quarantine.expire(now);
        Protocol::ALL.into_iter().for_each(|protocol| index.taken(self.taken.bits(protocol)));
        self.taken.addresses().for_each(|(protocol, port, address)| index.address(protocol, port, address));
        for Entry { protocol, range, until, owner } in self.quarantine.iter() {
            let owner = owner.as_ref().map_or(0, Former::hash);
            index.kept(Kept { protocol: *protocol, range: *range, until: *until, owner });
        }
        for (hash, memory) in self.sticky.hashed() {
            index.memory(hash, memory.range, memory.used);
        }
    }

    /// The pools that it chooses from.
    pub const fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Chooses from these pools from now on. What was given stays given, also outside of them.
    pub fn set_pools(&mut self, pools: Pools) {
        self.pools = pools;
        let others = std::mem::take(&mut self.others);
        self.set_reserved(&others);
    }

    /// Keeps random choices from ports that `who` uses or is about to: the static host ports of a Pod that another
    /// program publishes. What was said of `who` before is forgotten; nothing ends it.
    pub fn announce(&mut self, who: &str, ports: Vec<(Protocols, PortRange)>) {
        if ports.is_empty() {
            if self.announced.remove(who).is_none() {
                return;
            }
        } else {
            self.announced.insert(who.to_owned(), ports);
        }
        self.avoided = Default::default();
        for (protocols, range) in self.announced.values().flatten() {
            protocols.iter().for_each(|protocol| self.avoided[protocol as usize].insert(*range));
        }
    }

    /// The ports that others have announced, and who.
    pub fn announced(&self) -> impl Iterator<Item = (&str, Protocols, PortRange)> {
        self.announced.iter().flat_map(|(who, ports)| {
            ports.iter().map(move |(protocols, range)| (who.as_str(), *protocols, *range))
        })
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
        instance: &InstanceId,
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
    pub fn remember(&mut self, instance: &InstanceId, port: &PortName, range: PortRange, used: Duration) {
        self.sticky.remember(instance, port, range, used);
    }

    /// Frees the ports of `instance`; those of a pool go into quarantine from `now` on.
    pub fn release(&mut self, instance: &InstanceId, ports: &[PublishedPort], now: Duration) {
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
    pub fn quarantine_ports(&mut self, instance: &InstanceId, ports: &[PublishedPort], at: Duration) {
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
            let owner = Some(Former::Instance(instance));
            self.quarantine.insert(Entry { protocol, range, until, owner });
        }
    }

    /// The ranges that are kept from others, and since when.
    pub fn freed(&self) -> impl Iterator<Item = Freed> {
        self.quarantine.iter().filter_map(|entry| {
            let Some(Former::Instance(instance)) = entry.owner.clone() else { return None };
            let time = self.pools.of(entry.range.first())?.quarantine;
            let at = entry.until.saturating_sub(time);
            Some(Freed { instance, protocol: entry.protocol, range: entry.range, at })
        })
    }

    /// What others have put into `ip_local_reserved_ports`: not chosen at random.
    ///
    /// A reserved range that covers a whole pool was made to protect that pool (an administrator's `sysctl.d`, or
    /// another Portolan), so it keeps nothing from it.
    pub fn set_reserved(&mut self, reserved: &[PortRange]) {
        self.others = reserved.to_vec();
        self.reserved = Bitmap::new();
        for range in reserved {
            self.reserved.insert(*range);
        }
        for pool in self.pools.iter() {
            if pool.ranges.iter().all(|range| self.reserved.count_in(range) == u32::from(range.count())) {
                pool.ranges.iter().for_each(|range| self.reserved.remove(range));
            }
        }
    }

    /// Every pool, counted over its protocols.
    pub fn usage(&mut self, now: Duration) -> Vec<Usage> {
        self.quarantine.expire(now);
        self.pools.iter().map(|pool| self.usage_of(pool, pool.protocols)).collect()
    }

    fn choose(
        &self,
        instance: &InstanceId,
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
        let pool = pool.map_err(|source| AllocateError::Pool { port: port(), source });
        if let Some(first) = request.host {
            let why = "the block goes past 65535: begin lower or ask for fewer";
            let host = PortRange::block(first, request.count)
                .ok_or_else(|| AllocateError::Request { port: port(), why })?;
            if request.pool.is_some() {
                let pool = pool?;
                if !pool.ranges.covers(host) {
                    return Err(AllocateError::OutsidePool {
                        port: port(),
                        host,
                        pool: pool.name.clone(),
                        ranges: pool.ranges.clone(),
                    });
                }
            }
            self.check(&published(request, host))?;
            return Ok(host);
        }
        let pool = pool?;
        if request.protocols.iter().any(|protocol| !pool.protocols.contains(protocol)) {
            return Err(AllocateError::Protocol {
                port: port(),
                asked: request.protocols,
                pool: pool.name.clone(),
                allowed: pool.protocols,
            });
        }
        if request.count > pool.ranges.longest() {
            return Err(AllocateError::TooLarge {
                port: port(),
                count: request.count,
                pool: pool.name.clone(),
                ranges: pool.ranges.clone(),
            });
        }
        let random_choice = |free: &Bitmap, random: &mut _| match request.count {
            1 => {
                choose::single(free, pool.ranges.hull(), random).and_then(|port| PortRange::single(port).ok())
            }
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
                    .flat_map(|protocol| pool.ranges.iter().map(move |range| (protocol, range)))
                    .filter_map(|(protocol, range)| self.quarantine.first_end(protocol, range))
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
        instance: &InstanceId,
        request: &PortRequest,
        pool: &Pool,
        now: Duration,
    ) -> Option<PortRange> {
        let range = self.sticky.recall(instance, &request.name, now)?;
        let fits = range.count() == request.count
            && pool.ranges.covers(range)
            && self.reserved.count_in(range) == 0
            && request.protocols.iter().all(|protocol| {
                self.taken.bits(protocol).count_in(range) == 0
                    && self.avoided[protocol as usize].count_in(range) == 0
                    && self.quarantine.admits(protocol, range, instance)
            });
        fits.then_some(range)
    }

    /// What a random choice may take, with `owner` also what is in quarantine on its own account.
    fn free(&self, pool: &Pool, protocols: Protocols, owner: Option<&InstanceId>) -> Bitmap {
        let taken = protocols.iter().map(|protocol| self.taken.bits(protocol));
        let others =
            protocols.iter().map(|protocol| &self.avoided[protocol as usize]).chain([&self.reserved]);
        let Some(owner) = owner else {
            let quarantined = protocols.iter().map(|protocol| self.quarantine.bits(protocol));
            let kept = taken.chain(quarantined).chain(others);
            return Bitmap::complement_of(&pool.ranges, kept);
        };
        let mut free = Bitmap::complement_of(&pool.ranges, taken.chain(others));
        for entry in self.quarantine.iter() {
            let own = entry.owner.as_ref().is_some_and(|former| former.is(owner));
            if protocols.contains(entry.protocol) && !own {
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
        let unused = Bitmap::complement_of(&pool.ranges, taken.iter().copied()).count();
        kept.extend(&taken);
        let unkept = Bitmap::complement_of(&pool.ranges, kept.iter().copied()).count();
        kept.push(&self.reserved);
        kept.extend(protocols.iter().map(|protocol| &self.avoided[protocol as usize]));
        let free_map = Bitmap::complement_of(&pool.ranges, kept);
        let largest_block = free_map.runs().map(|run| u32::from(run.count())).max().unwrap_or(0);
        let free = free_map.count();
        Usage {
            pool: pool.name.clone(),
            ranges: pool.ranges.clone(),
            free,
            used: pool.ranges.count() - unused,
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
