//! The owner of the Services of `up`: files, what was exposed, numbers, and what follows from them in kernel and DNS.
//!
//! Level-triggered: each turn begins with what is written and what the catalog says now, and ends with the difference to
//! what was before. It has a thread of its own, as files, fsync and netlink block.

use std::{collections::BTreeMap, sync::Arc};

use portolan_dns::services::ServiceBoard;
use portolan_model::{EndpointSlice, Instance, ObjectName};

use super::{
    allocate::{AllocateError, Family, Ranges, Wanted},
    bound::bound,
    desired::{Admitted, Desired, desired, wanted},
    effects::Effects,
    endpoints::{World, selects},
    error::ServiceError,
    files::Files,
    manifest::{self, Written},
    ranges,
    settings::ServicesSettings,
    shown::Shown,
    store::{Store, Stored},
};
use crate::trace::state::State;

/// What `source` says of a Service that no file has.
const EXPOSED: &str = "portolan expose";

/// See the module.
pub(crate) struct Owner {
    settings: ServicesSettings,
    ranges: Ranges,
    files: Files,
    store: Store,
    stored: Stored,
    exposed: BTreeMap<ObjectName, Written>,
    /// As they were last when they could be served.
    good: BTreeMap<ObjectName, Written>,
    problems: BTreeMap<ObjectName, String>,
    world: Option<Arc<World>>,
    now: Desired,
    effects: Effects,
}

impl Owner {
    /// Reads everything and changes nothing. A file that cannot be read is an error now; later it would be told, and
    /// what it said before would hold.
    pub(crate) fn open(settings: ServicesSettings, board: ServiceBoard) -> Result<Self, ServiceError> {
        let store = Store::open(&settings.data)?;
        let mut stored = store.read();
        let addresses = ranges::choose(&settings.networks, &settings.taken, &mut stored.chosen);
        let mut files = Files::new(settings.files.clone());
        let looked = files.look();
        if let Some(error) = looked.errors.into_iter().next() {
            return Err(error.into());
        }
        for warning in looked.warnings {
            tracing::warn!("{warning}");
        }
        let mut exposed = BTreeMap::new();
        for (name, text) in &stored.exposed {
            match read_one(text) {
                Ok(written) => {
                    exposed.insert(written.name().clone(), written);
                }
                Err(error) => tracing::error!("the exposed Service {name} is not served: {error}"),
            }
        }
        let effects = Effects::new(settings.clone(), addresses.clone(), board);
        let ranges = Ranges { addresses, ports: settings.node_ports };
        Ok(Self {
            settings,
            ranges,
            files,
            store,
            stored,
            exposed,
            good: BTreeMap::new(),
            problems: BTreeMap::new(),
            world: None,
            now: Desired::default(),
            effects,
        })
    }

    /// The catalog is otherwise.
    pub(crate) fn world(&mut self, world: World) {
        let Some(before) = self.world.replace(Arc::new(world)) else {
            if self.written().is_empty() {
                self.effects.forget_former();
            }
            return self.turn();
        };
        self.follow_instances(&before);
    }

    /// Looks at the files.
    pub(crate) fn look(&mut self) {
        let looked = self.files.look();
        for warning in looked.warnings {
            tracing::warn!("{warning}");
        }
        for error in looked.errors {
            tracing::error!("{error}; what the file said before still holds");
        }
        if looked.changed {
            self.turn();
        } else {
            self.effects.look(&self.now, &self.stored.allocations);
        }
    }

    /// One more Service; it is served when this returns.
    pub(crate) fn expose(&mut self, text: &str) -> Result<Shown, ServiceError> {
        let written = read_one(text)?;
        let name = written.name().clone();
        if self.written().contains_key(&name) {
            return Err(ServiceError::Exists(name));
        }
        let before = self.stored.clone();
        self.exposed.insert(name.clone(), written);
        self.stored.exposed.insert(name.to_string(), text.to_owned());
        self.turn();
        let problem = self.problems.get(&name).cloned();
        let shown =
            self.now.shown.iter().find(|shown| shown.namespace == name.namespace && shown.name == name.name);
        match (problem, shown.cloned()) {
            (None, Some(shown)) => Ok(shown),
            (problem, _) => {
                self.exposed.remove(&name);
                self.good.remove(&name);
                self.stored = before;
                self.turn();
                Err(ServiceError::Invalid(
                    name,
                    problem.unwrap_or_else(|| "the catalog is still loading".to_owned()),
                ))
            }
        }
    }

    /// Takes an exposed Service away.
    pub(crate) fn delete(&mut self, name: &ObjectName) -> Result<(), ServiceError> {
        if self.exposed.remove(name).is_none() {
            return Err(match self.written().get(name) {
                Some(written) => ServiceError::OfFile(name.clone(), written.place.clone()),
                None => ServiceError::NotFound(name.clone()),
            });
        }
        self.stored.exposed.remove(&name.to_string());
        self.turn();
        Ok(())
    }

    /// All Services, and the files that are not as they are written.
    pub(crate) fn shown(&self) -> (Vec<Shown>, Vec<String>) {
        (self.now.shown.clone(), self.files.errors().iter().map(ToString::to_string).collect())
    }

    /// What the rules are made from, as they are in the kernel.
    pub(crate) fn rules(&self) -> Result<State, ServiceError> {
        self.effects.rules()
    }

    /// Ends. `leave`: what is served stays served, for the next one to take over.
    pub(crate) fn close(self, leave: bool) -> Vec<String> {
        self.effects.close(leave)
    }

    /// Everything that is written: files first, in their order.
    fn written(&self) -> BTreeMap<ObjectName, Written> {
        let mut all: BTreeMap<ObjectName, Written> = BTreeMap::new();
        let of_files = self.files.manifests().flat_map(|read| &read.services);
        for written in of_files.chain(self.exposed.values()) {
            match all.get(written.name()) {
                Some(first) if first.place != written.place => tracing::debug!(
                    "Service {} of {} is ignored: {} has it",
                    written.name(),
                    written.place,
                    first.place
                ),
                _ => {
                    all.insert(written.name().clone(), written.clone());
                }
            }
        }
        all
    }

    /// See the module.
    fn turn(&mut self) {
        let Some(world) = self.world.clone() else { return };
        let written = self.written();
        let refused = self.allocate(&written);
        self.stored.keep(written.keys().cloned());
        let mut served = Vec::new();
        for (name, one) in &written {
            let problem = refused.get(name).map(ToString::to_string);
            if problem.is_none() {
                self.good.insert(name.clone(), one.clone());
            }
            // Who exposes one is told himself.
            if let Some(problem) = &problem
                && self.problems.get(name) != Some(problem)
                && one.place != EXPOSED
            {
                tracing::error!("{}: Service {name} is invalid: {problem}", one.place);
            }
            served.push((name.clone(), problem));
        }
        self.good.retain(|name, _| written.contains_key(name));
        self.problems =
            served.iter().filter_map(|(name, problem)| Some((name.clone(), problem.clone()?))).collect();
        let since: BTreeMap<ObjectName, _> =
            written.keys().map(|name| (name.clone(), self.stored.since(name))).collect();
        let admitted: Vec<Admitted<'_>> =
            since.iter().filter_map(|(name, since)| self.admitted(name, *since)).collect();
        let of_files: Vec<EndpointSlice> =
            self.files.manifests().flat_map(|read| read.slices.clone()).collect();
        let next = desired(&admitted, of_files.iter(), &world);
        drop(admitted);
        // Numbers are on disk before anybody is told.
        if let Err(error) = self.store.write(&self.stored) {
            tracing::error!("{error}; Services may get other addresses after a restart");
        }
        self.effects.follow(&self.now, &next, &self.stored.allocations);
        self.now = next;
    }

    /// Only the catalog is otherwise: Services that select nothing of what has changed are left as they are.
    fn follow_instances(&mut self, before: &World) {
        let Some(world) = self.world.clone() else { return };
        let changed = world.differences(before);
        if changed.is_empty() {
            return;
        }
        let concerned = |written: &Written| {
            changed.iter().any(|instance: &Arc<Instance>| selects(&written.service.selector, instance))
        };
        let names: Vec<ObjectName> =
            self.good.iter().filter(|(_, one)| concerned(one)).map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let since: Vec<_> = names.iter().map(|name| self.stored.since(name)).collect();
        let mut now = std::mem::take(&mut self.now);
        let admitted: Vec<Admitted<'_>> =
            names.iter().zip(since).filter_map(|(name, since)| self.admitted(name, since)).collect();
        let renewed = now.renew(&admitted, &world);
        drop(admitted);
        self.effects.follow_instances(&now, renewed);
        self.now = now;
    }

    /// What is served of this Service: as it was last when it could be.
    fn admitted(&self, name: &ObjectName, since: std::time::SystemTime) -> Option<Admitted<'_>> {
        let (written, given) = (self.good.get(name)?, self.stored.allocations.get(name)?);
        Some(Admitted { written, given, since, problem: self.problems.get(name).cloned() })
    }

    fn allocate(&mut self, written: &BTreeMap<ObjectName, Written>) -> BTreeMap<ObjectName, AllocateError> {
        let primary = self.ranges.addresses.first().map_or(Family::V4, |range| Family::of(range.addr()));
        let wanted: Vec<Wanted> = written.values().map(|one| wanted(one, primary)).collect();
        let pools = self.settings.pools.clone();
        let effects = &self.effects;
        let others = |port: u16| {
            if let Some(pool) = pools.iter().find(|pool| pool.contains(port)) {
                return Some(format!("by the pool {pool} that instances get ports from"));
            }
            if effects.holds(port) {
                return None;
            }
            bound(port)
        };
        self.stored.allocations.settle(&self.ranges, &wanted, &others, &mut rand::rng())
    }
}

/// A text with exactly one Service.
fn read_one(text: &str) -> Result<Written, ServiceError> {
    let mut read = manifest::read(EXPOSED, text)?;
    for warning in read.warnings {
        tracing::warn!("{warning}");
    }
    match (read.services.pop(), read.services.len()) {
        (Some(one), 0) => Ok(Written { place: EXPOSED.to_owned(), ..one }),
        _ => Err(ServiceError::NotOne),
    }
}
