//! The mappings that hold, and what each change of them means for the kernel.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use portolan_model::{Mapping, MappingKey, PortRange, Protocol};
use portolan_nft::{Element, Table};

use crate::{
    Changes, PlanConfig, PlanError, SetId, SetKind, hairpin::Hairpin, ingress, networks,
    published::Published, reverse::Reverse, ruleset,
};

/// The mappings, and the elements that follow from them.
///
/// Which elements there are depends on the mappings alone, not on the order in which they came: after any history the
/// sum of all [`Changes`] is [`Plan::ruleset`] of the mappings that are left.
#[derive(Clone, Debug)]
pub struct Plan {
    config: PlanConfig,
    mappings: BTreeMap<MappingKey, Mapping>,
    pub(crate) hairpin: Hairpin,
    pub(crate) published: Published,
    pub(crate) reverse: Reverse,
}

impl Plan {
    /// No mapping yet.
    ///
    /// # Errors
    /// [`PlanError::Config`] when the configuration cannot be made into rules.
    pub fn new(config: PlanConfig) -> Result<Self, PlanError> {
        config.validate()?;
        let (hairpin, published) = (Hairpin::new(config.placement), Published::new(&config));
        Ok(Self { config, mappings: BTreeMap::new(), hairpin, published, reverse: Reverse::default() })
    }

    /// With these mappings.
    ///
    /// # Errors
    /// As [`Plan::new`] and [`Plan::add`].
    pub fn with<'a>(
        config: PlanConfig,
        mappings: impl IntoIterator<Item = &'a Mapping>,
    ) -> Result<Self, PlanError> {
        let mut plan = Self::new(config)?;
        for mapping in mappings {
            plan.add(mapping)?;
        }
        Ok(plan)
    }

    /// What it was made with.
    pub const fn config(&self) -> &PlanConfig {
        &self.config
    }

    /// The table, as it is named and described in the kernel.
    pub fn table(&self) -> Table {
        ruleset::table(&self.config)
    }

    /// How many mappings there are.
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// The mappings by key.
    pub fn mappings(&self) -> impl ExactSizeIterator<Item = &Mapping> {
        self.mappings.values()
    }

    /// The mapping with this key.
    pub fn get(&self, key: &MappingKey) -> Option<&Mapping> {
        self.mappings.get(key)
    }

    /// Takes one more mapping. The cost does not depend on how many there are, apart from a search.
    ///
    /// # Errors
    /// Any [`PlanError`] but `Unknown`; then nothing changed.
    pub fn add(&mut self, mapping: &Mapping) -> Result<Changes, PlanError> {
        let key = mapping.key();
        if let Some(error) = PlanError::of(mapping, self.config.placement) {
            return Err(error);
        }
        if let Some(instance) =
            ingress::targets(mapping).find(|&address| !self.config.may_be_instance(address))
        {
            return Err(PlanError::Stranger { key, instance });
        }
        if let Some(present) = self.overlapping(&key) {
            return Err(PlanError::Overlap { new: key, present });
        }
        let mut changes = Changes::none();
        for (set, element) in ingress::elements(mapping) {
            changes.add(set, element);
        }
        for instance in ingress::targets(mapping) {
            self.hairpin.add(instance, &mut changes);
        }
        self.published.add(mapping, &mut changes);
        self.reverse.add(mapping, &mut changes);
        self.mappings.insert(key, mapping.clone());
        Ok(changes)
    }

    /// Forgets a mapping.
    ///
    /// # Errors
    /// [`PlanError::Unknown`] when there is none with this key; a part of a block is no key.
    pub fn remove(&mut self, key: &MappingKey) -> Result<Changes, PlanError> {
        let mapping = self.mappings.remove(key).ok_or(PlanError::Unknown(*key))?;
        let mut changes = Changes::none();
        for (set, element) in ingress::elements(&mapping) {
            changes.delete(set, element);
        }
        for instance in ingress::targets(&mapping) {
            self.hairpin.remove(instance, &mut changes);
        }
        self.published.remove(&mapping, &mut changes);
        self.reverse.remove(&mapping, &mut changes);
        Ok(changes)
    }

    /// The networks of instances on this machine are these from now on ([`PlanConfig::local`]). The cost does not depend
    /// on how many mappings there are, so that an instance with a network of its own, as several CNI plugins make them,
    /// costs no more than one of a common network.
    pub fn set_local(&mut self, local: Vec<IpNet>) -> Changes {
        let elements = |config: &PlanConfig| -> Vec<(SetId, Element)> {
            networks::elements(SetKind::Local, &config.local).collect()
        };
        let before = elements(&self.config);
        self.config.local = local;
        let after = elements(&self.config);
        let mut changes = Changes::none();
        for (set, element) in before.iter().filter(|element| !after.contains(element)) {
            changes.delete(*set, element.clone());
        }
        for (set, element) in after.iter().filter(|element| !before.contains(element)) {
            changes.add(*set, element.clone());
        }
        changes
    }

    /// Where a packet to this local address goes; `None` when nothing is mapped there.
    pub fn destination(&self, protocol: Protocol, to: SocketAddr) -> Option<SocketAddr> {
        let wanted = PortRange::single(to.port()).ok()?;
        let key = |address| MappingKey { protocol, address, host: wanted };
        // As in the rules: the mapping of this address first.
        [Some(to.ip()), None].into_iter().find_map(|address| {
            let mapping = &self.mappings[&self.overlapping(&key(address))?];
            let instance = match to.ip() {
                IpAddr::V4(_) => IpAddr::V4(mapping.v4?),
                IpAddr::V6(_) => IpAddr::V6(mapping.v6?),
            };
            // A block keeps its numbers, so that the same sum serves both.
            Some((instance, mapping.container + (to.port() - mapping.host.first())).into())
        })
    }

    /// The mapping of the same protocol and address that shares a port with this one. Those present share none among
    /// themselves, so only the last one that does not begin behind it can.
    fn overlapping(&self, key: &MappingKey) -> Option<MappingKey> {
        let highest = PortRange::new(key.host.last(), u16::MAX).ok()?;
        let (present, _) = self.mappings.range(..=MappingKey { host: highest, ..*key }).next_back()?;
        let same = present.protocol == key.protocol && present.address == key.address;
        (same && present.host.overlaps(key.host)).then_some(*present)
    }
}
