//! The leases by instance: those that this process knows, and those that an earlier one has written down.
//!
//! A process that lives for one change cannot read ten thousand leases for it. What [`crate::index`] says of them is
//! enough for most questions; a lease is read from the journal when it is asked for itself.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, OnceLock},
};

use ipnet::IpNet;
use portolan_model::{InstanceId, Mapping};

use crate::{
    index::Index,
    journal::{Place, Reader},
    lease::Lease,
    replay::Record,
};

/// Leases, by instance.
#[derive(Debug, Default)]
pub struct Leases {
    known: BTreeMap<InstanceId, (Lease, Option<Place>)>,
    rest: Option<Rest>,
    networks: BTreeSet<IpNet>,
}

/// Leases that are in the journal and were not read, unless somebody asked.
#[derive(Debug)]
struct Rest {
    index: Arc<Index>,
    journal: Reader,
    read: Vec<OnceLock<Option<Box<Lease>>>>,
    /// Slots that hold no longer: ended, or known otherwise.
    gone: HashSet<usize>,
}

impl Leases {
    /// Those of an index, which are in this journal.
    pub fn indexed(index: Arc<Index>, journal: Reader) -> Self {
        let read = (0..index.len()).map(|_| OnceLock::new()).collect();
        let networks = index.networks().collect();
        let rest = Some(Rest { index, journal, read, gone: HashSet::new() });
        Self { known: BTreeMap::new(), rest, networks }
    }

    /// The lease of an instance.
    pub fn get(&self, instance: &InstanceId) -> Option<&Lease> {
        if let Some((lease, _)) = self.known.get(instance) {
            return Some(lease);
        }
        self.rest.as_ref().and_then(|rest| rest.find(instance)).map(|(_, lease)| lease)
    }

    /// The same, to change what the journal has been told.
    pub fn get_mut(&mut self, instance: &InstanceId) -> Option<&mut Lease> {
        if !self.known.contains_key(instance)
            && let Some((slot, lease)) = self.rest.as_ref().and_then(|rest| rest.find(instance))
        {
            let (lease, place) = (lease.clone(), self.rest.as_ref().map(|rest| rest.index.slot(slot).place));
            self.forget(slot);
            self.known.insert(instance.clone(), (lease, place));
        }
        self.known.get_mut(instance).map(|(lease, _)| lease)
    }

    /// Takes a lease in, in place of what the instance had; `place` is where the journal has it.
    pub fn insert(&mut self, lease: Lease, place: Option<Place>) {
        let instance = lease.request.instance.clone();
        self.networks.extend(&lease.request.local);
        self.remove(&instance);
        self.known.insert(instance, (lease, place));
    }

    /// Takes one out.
    pub fn remove(&mut self, instance: &InstanceId) -> Option<Lease> {
        if let Some((lease, _)) = self.known.remove(instance) {
            return Some(lease);
        }
        let (slot, lease) = self.rest.as_ref()?.find(instance)?;
        let lease = lease.clone();
        self.forget(slot);
        Some(lease)
    }

    fn forget(&mut self, slot: usize) {
        if let Some(rest) = &mut self.rest {
            rest.gone.insert(slot);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len() + self.rest.as_ref().map_or(0, |rest| rest.index.len() - rest.gone.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them by instance. Reads those that were not read.
    pub fn values(&self) -> Box<dyn Iterator<Item = &Lease> + '_> {
        let known = self.known.values().map(|(lease, _)| lease);
        let Some(rest) = &self.rest else { return Box::new(known) };
        let mut all: Vec<&Lease> = known.chain(rest.live().filter_map(|slot| rest.read(slot))).collect();
        all.sort_unstable_by(|one, other| one.request.instance.cmp(&other.request.instance));
        Box::new(all.into_iter())
    }

    /// The mappings of all but this instance, in no order.
    pub fn mappings_except(&self, instance: Option<&InstanceId>) -> Vec<Mapping> {
        let known = self.known.values().map(|(lease, _)| lease);
        let other = |lease: &&Lease| instance != Some(&lease.request.instance);
        let mut all: Vec<Mapping> = known.filter(other).flat_map(Lease::mappings).collect();
        if let Some(rest) = &self.rest {
            let own = instance.and_then(|instance| rest.find(instance)).map(|(slot, _)| slot);
            let mappings = rest.index.mappings();
            all.extend(
                mappings
                    .filter(|(slot, _)| Some(*slot) != own && !rest.gone.contains(slot))
                    .map(|(_, mapping)| mapping),
            );
        }
        all
    }

    /// The networks that instances' addresses are in, or were since everything was looked at: rules that know one too
    /// many do no harm, and rules that change with each container would.
    pub const fn networks(&self) -> &BTreeSet<IpNet> {
        &self.networks
    }

    /// Those of [`Leases::mappings_except`] that lead to an instance which one of `these` leads to, or share a port with
    /// one of them.
    pub fn mappings_concerned(&self, instance: &InstanceId, these: &[Mapping]) -> Vec<Mapping> {
        let v4: Vec<Ipv4Addr> = these.iter().filter_map(|mapping| mapping.v4).collect();
        let v6: Vec<Ipv6Addr> = these.iter().filter_map(|mapping| mapping.v6).collect();
        let ports: Vec<_> = these.iter().map(|mapping| (mapping.protocol, mapping.host)).collect();
        let concerned = |mapping: &Mapping| {
            mapping.v4.is_some_and(|own| v4.contains(&own))
                || mapping.v6.is_some_and(|own| v6.contains(&own))
                || ports
                    .iter()
                    .any(|(protocol, host)| mapping.protocol == *protocol && host.overlaps(mapping.host))
        };
        let known = self.known.values().map(|(lease, _)| lease);
        let known = known.filter(|lease| lease.request.instance != *instance);
        let mut all: Vec<Mapping> = known.flat_map(Lease::mappings).filter(concerned).collect();
        if let Some(rest) = &self.rest {
            let own = rest.find(instance).map(|(slot, _)| slot);
            let (v4, v6) = (unique(&v4), unique(&v6));
            let found = rest.index.concerned(&v4, &v6, &ports);
            let others = found.filter(|(slot, _)| Some(*slot) != own && !rest.gone.contains(slot));
            all.extend(others.map(|(_, mapping)| mapping));
        }
        all
    }

    /// Whether what was read of an index cannot be trusted.
    pub fn is_damaged(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.index.is_damaged())
    }

    /// The leases of a container.
    pub fn of_container(&self, container: &str) -> Vec<&Lease> {
        let is =
            |lease: &&Lease| lease.request.attachment.as_ref().is_some_and(|own| own.container == container);
        let known = self.known.values().map(|(lease, _)| lease).filter(is);
        let rest = self.rest.iter().flat_map(|rest| {
            let slots = rest.index.of_container(container).filter(|slot| !rest.gone.contains(slot));
            slots.filter_map(|slot| rest.read(slot)).filter(is)
        });
        known.chain(rest).collect()
    }

    /// Whether all are known, and none must be read from the journal.
    pub const fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// Those that this process knows, with their places.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&Lease, Option<Place>)> {
        self.known.values().map(|(lease, place)| (lease, *place))
    }

    /// The index of the others, and its slots that still hold.
    pub(crate) fn rest(&self) -> Option<(&Index, Vec<usize>)> {
        self.rest.as_ref().map(|rest| (&*rest.index, rest.live().collect()))
    }
}

impl Rest {
    fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.index.len()).filter(|slot| !self.gone.contains(slot))
    }

    fn find(&self, instance: &InstanceId) -> Option<(usize, &Lease)> {
        let slots = self.index.of_instance(instance).filter(|slot| !self.gone.contains(slot));
        slots
            .filter_map(|slot| Some((slot, self.read(slot)?)))
            .find(|(_, lease)| lease.request.instance == *instance)
    }

    fn read(&self, number: usize) -> Option<&Lease> {
        let read = || {
            let slot = self.index.slot(number);
            match self.journal.record(slot.place) {
                Ok(Record::Leased { lease, .. }) => Some(Box::new(Lease { held: slot.held, ..*lease })),
                Ok(_) => {
                    tracing::error!(place = ?slot.place, "the journal has no lease where it should have one");
                    None
                }
                Err(error) => {
                    tracing::error!(%error, "a lease cannot be read from the journal");
                    None
                }
            }
        };
        self.read.get(number)?.get_or_init(read).as_deref()
    }
}

fn unique<T: Copy + Ord>(all: &[T]) -> Vec<T> {
    all.iter().copied().collect::<BTreeSet<T>>().into_iter().collect()
}

/// An address as the index has it.
pub(crate) const fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
