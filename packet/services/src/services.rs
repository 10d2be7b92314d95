//! The Services, their endpoints, and what each change of them means for the kernel.

mod anew;
mod compile;
mod gathered;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

pub use gathered::Gathered;
use portolan_model::{EndpointSlice, ObjectName, Service};
use portolan_nft::Table;
use portolan_plan::Version;

use crate::{
    Changes, Front, List, Problem, ServicesConfig, ServicesError,
    changes::{self},
    claims::{Claim, Claimed, Registry},
    roster::{self},
    shared::Shared,
    slices::{Here, Names, Slice, Slices},
    sources::Ranges,
    unit::Unit,
};

/// What a Service claims.
type Claims = Box<[(Claimed, Claim)]>;

/// A Service with its slices; either may be there without the other. There are many, in the half empty nodes of a tree,
/// so what is large is elsewhere and no list has room for more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) service: Option<Box<Service>>,
    pub(crate) slices: Slices,
    /// What its units are known by.
    identities: Claims,
    /// All other frontends of those units that are known.
    fronts: Claims,
    /// By id.
    pub(crate) units: Box<[Unit]>,
}

/// The Services, and the elements that follow from them.
///
/// Which elements there are depends on the objects alone, not on the order in which they came: after any history the
/// sum of all [`Changes`] is [`Services::ruleset`] of the objects that are left.
#[derive(Clone, Debug)]
pub struct Services {
    pub(crate) config: ServicesConfig,
    pub(crate) names: Names,
    pub(crate) entries: BTreeMap<Arc<ObjectName>, Entry>,
    /// Which Service each slice belongs to.
    slices: HashMap<ObjectName, Arc<ObjectName>>,
    pub(crate) registry: Registry,
    pub(crate) shared: BTreeMap<Shared, u32>,
    /// Services whose endpoints are other ones than those that were compiled, and how many endpoints were told of.
    late: (BTreeSet<Arc<ObjectName>>, usize),
    ranges: HashMap<(Version, u64), Ranges>,
}

impl Services {
    /// No Service yet.
    ///
    /// # Errors
    /// When the configuration cannot be made into rules.
    pub fn new(config: ServicesConfig) -> Result<Self, ServicesError> {
        config.validate()?;
        Ok(Self::empty(config))
    }

    fn empty(config: ServicesConfig) -> Self {
        Self {
            config,
            names: Names::default(),
            entries: BTreeMap::new(),
            slices: HashMap::new(),
            registry: Registry::default(),
            shared: BTreeMap::new(),
            late: Default::default(),
            ranges: HashMap::new(),
        }
    }

    /// With all of these, without planning how to get there.
    ///
    /// # Errors
    /// When the configuration cannot be made into rules.
    pub fn load(
        config: ServicesConfig,
        services: impl IntoIterator<Item = Service>,
        slices: impl IntoIterator<Item = EndpointSlice>,
    ) -> Result<Self, ServicesError> {
        let mut gathered = Gathered::default();
        slices.into_iter().for_each(|slice| gathered.set_slice(slice));
        services.into_iter().for_each(|service| gathered.set_service(service));
        gathered.into_services(config)
    }

    /// What it was made with.
    pub const fn config(&self) -> &ServicesConfig {
        &self.config
    }

    /// The table, as it is named and described in the kernel.
    pub fn table(&self) -> Table {
        changes::table(&self.config)
    }

    /// How many Services there are.
    pub fn len(&self) -> usize {
        self.entries.values().filter(|entry| entry.service.is_some()).count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The Services by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.entries.values().filter_map(|entry| entry.service.as_deref())
    }

    /// Their names, in the same order.
    pub fn names(&self) -> impl Iterator<Item = Arc<ObjectName>> {
        let some = self.entries.iter().filter(|(_, entry)| entry.service.is_some());
        some.map(|(name, _)| name.clone())
    }

    /// The Service with this name.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.entries.get(name)?.service.as_deref()
    }

    /// Takes a Service, or what it is now. What cannot be served is in [`Services::problems`].
    pub fn set_service(&mut self, service: Service) -> Changes {
        let name = service.name.clone();
        self.entry(&name).service = Some(compact(service));
        self.service_changed(&name)
    }

    /// Forgets a Service. Its slices may stay; they mean nothing without it.
    pub fn remove_service(&mut self, name: &ObjectName) -> Changes {
        let Some(entry) = self.entries.get_mut(name) else { return Changes::none() };
        entry.service = None;
        let changes = self.service_changed(name);
        self.forget_if_empty(name);
        changes
    }

    /// Takes a slice, or what it is now.
    pub fn set_slice(&mut self, slice: EndpointSlice) -> Changes {
        let mut changes = match self.slices.get(&slice.name) {
            // It belongs to another Service now: rare, but possible.
            Some(owner) if **owner != slice.service => self.remove_slice(&slice.name.clone()),
            _ => Changes::none(),
        };
        let service = self.keep_slice(slice);
        changes.append(self.endpoints_changed(&service));
        changes
    }

    /// Forgets a slice.
    pub fn remove_slice(&mut self, name: &ObjectName) -> Changes {
        let Some(owner) = self.forget_slice(name) else { return Changes::none() };
        let changes = self.endpoints_changed(&owner);
        self.forget_if_empty(&owner);
        changes
    }

    /// The same, compiled later, by [`Services::catch_up`]: of a Service with a thousand endpoints ten slices come one
    /// after the other, and all endpoints are put in order each time. Nothing may be asked before.
    pub fn set_slice_later(&mut self, slice: EndpointSlice) -> Changes {
        if self.slices.get(&slice.name).is_some_and(|owner| **owner != slice.service) {
            return self.set_slice(slice);
        }
        let endpoints = slice.endpoints.len();
        let service = self.keep_slice(slice);
        self.late.0.insert(service);
        self.late.1 += endpoints;
        Changes::none()
    }

    /// How many endpoints wait to be compiled.
    pub const fn late(&self) -> usize {
        self.late.1
    }

    /// Compiles what was told for later.
    pub fn catch_up(&mut self) -> Changes {
        let (late, _) = std::mem::take(&mut self.late);
        let mut changes = Changes::none();
        for service in late {
            changes.append(self.endpoints_changed(&service));
        }
        changes
    }

    /// The same Services with another configuration. The difference is found by comparing [`Services::ruleset`].
    ///
    /// # Errors
    /// When the configuration cannot be made into rules; then nothing changed.
    pub fn reconfigure(&mut self, config: ServicesConfig) -> Result<(), ServicesError> {
        config.validate()?;
        self.config = config;
        self.recompile();
        Ok(())
    }

    /// The slices as they were given, but for when they were triggered.
    pub fn slices(&self) -> impl Iterator<Item = EndpointSlice> + '_ {
        self.entries.iter().flat_map(|(service, entry)| {
            entry.slices.iter().map(|(name, slice)| {
                let name = ObjectName::new(service.namespace.clone(), name);
                slice.given(name, (**service).clone(), &self.names)
            })
        })
    }

    /// These and no others: the changes that lead there, Service by Service.
    pub fn replace(
        &mut self,
        services: impl IntoIterator<Item = Service>,
        slices: impl IntoIterator<Item = EndpointSlice>,
    ) -> Changes {
        let mut changes = Changes::none();
        let (mut seen_services, mut seen_slices) = (BTreeSet::new(), BTreeSet::new());
        for slice in slices {
            seen_slices.insert(slice.name.clone());
            changes.append(self.set_slice(slice));
        }
        for service in services {
            seen_services.insert(service.name.clone());
            changes.append(self.set_service(service));
        }
        let gone: Vec<ObjectName> = self
            .services()
            .map(|service| &service.name)
            .filter(|name| !seen_services.contains(name))
            .cloned()
            .collect();
        for name in gone {
            changes.append(self.remove_service(&name));
        }
        let gone: Vec<ObjectName> =
            self.slices.keys().filter(|name| !seen_slices.contains(name)).cloned().collect();
        for name in gone {
            changes.append(self.remove_slice(&name));
        }
        changes
    }

    /// What is wrong, by Service.
    pub fn problems(&self) -> Vec<(&ObjectName, Problem)> {
        let mut problems: Vec<_> =
            self.entries.iter().flat_map(|(name, entry)| self.problems_of(name, entry)).collect();
        problems.sort();
        problems.dedup();
        problems
    }

    fn problems_of<'a>(&self, name: &'a ObjectName, entry: &Entry) -> Vec<(&'a ObjectName, Problem)> {
        let mut problems = Vec::new();
        for (claimed, claim) in entry.identities.iter().chain(&entry.fronts) {
            let front = match *claimed {
                Claimed::Front(front) => front,
                Claimed::Wide(address) => Front::Address(address),
            };
            if let Some(winner) = self.registry.winner(*claimed)
                && !self.registry.has(*claimed, claim)
                && *winner.service != *name
            {
                problems.push((name, Problem::Taken { front, by: (*winner.service).clone() }));
            }
        }
        let Some(service) = &entry.service else { return problems };
        for unit in &entry.units {
            let selection = self.selection(service, entry, unit.id);
            let count = selection.list(List::Cluster).count();
            if count > roster::ENDPOINTS {
                problems.push((name, Problem::Endpoints { count }));
            }
            if !service.options.weights.is_empty() {
                let weights = selection.list(List::Cluster).map(|one| one.weight);
                problems.extend(roster::too_many(weights).map(|total| (name, Problem::Weights { total })));
            }
        }
        problems
    }

    /// How many different addresses of ready endpoints of this Service are on this node: what a load balancer is told.
    pub fn local_ready(&self, name: &ObjectName) -> usize {
        let Some(entry) = self.entries.get(name) else { return 0 };
        let here = Here::new(&self.config, &self.names);
        let endpoints = entry.slices.values().flat_map(|slice| &slice.endpoints);
        let ready = endpoints.filter(|one| one.ready && here.is_local(one)).map(|one| one.address);
        ready.collect::<BTreeSet<IpAddr>>().len()
    }

    fn entry(&mut self, name: &ObjectName) -> &mut Entry {
        if !self.entries.contains_key(name) {
            self.entries.insert(Arc::new(name.clone()), Entry::default());
        }
        self.entries.get_mut(name).unwrap_or_else(|| unreachable!("it was inserted"))
    }

    /// A Service's name, as it is kept: once.
    pub fn shared_name(&self, name: &ObjectName) -> Arc<ObjectName> {
        let known = self.entries.get_key_value(name).map(|(known, _)| known.clone());
        known.unwrap_or_else(|| Arc::new(name.clone()))
    }

    fn keep_slice(&mut self, slice: EndpointSlice) -> Arc<ObjectName> {
        let (name, service) = (slice.name.clone(), slice.service.clone());
        let slice = Slice::new(slice, &mut self.names);
        self.entry(&service).slices.insert(&name.name, slice);
        let service = self.shared_name(&service);
        self.slices.insert(name, service.clone());
        service
    }

    /// Whose it was.
    fn forget_slice(&mut self, name: &ObjectName) -> Option<Arc<ObjectName>> {
        let owner = self.slices.remove(name)?;
        if let Some(entry) = self.entries.get_mut(&*owner) {
            entry.slices.remove(name.name.as_str());
        }
        Some(owner)
    }

    fn forget_if_empty(&mut self, name: &ObjectName) {
        if self.entries.get(name).is_some_and(|entry| entry.service.is_none() && entry.slices.is_empty()) {
            self.entries.remove(name);
        }
    }
}

/// As it is kept: without room for more.
fn compact(mut service: Service) -> Box<Service> {
    service.name.namespace.shrink_to_fit();
    service.name.name.shrink_to_fit();
    service.ports.shrink_to_fit();
    service.cluster_addresses.shrink_to_fit();
    service.external_addresses.shrink_to_fit();
    service.load_balancer_addresses.shrink_to_fit();
    Box::new(service)
}
