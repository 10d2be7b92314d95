//! All Services compiled anew: at the start, and when the configuration is another one.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZero,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use portolan_model::ObjectName;
use portolan_plan::Version;

use super::{
    Entry, Services,
    compile::{identities, other_fronts},
};
use crate::{claims::Registry, shared::Shared, sources::Ranges};

/// So few Services are not worth a thread.
const SHARE: usize = 32;

/// What several Services were compiled to, besides their units.
#[derive(Default)]
struct Compiled {
    /// Users of what is shared.
    shared: BTreeMap<Shared, u32>,
    ranges: HashMap<(Version, u64), Ranges>,
}

impl Services {
    /// Everything anew.
    pub(super) fn recompile(&mut self) {
        self.registry = Registry::with_room(self.entries.len());
        self.shared.clear();
        self.late = Default::default();
        self.ranges.clear();
        // Taken out, so that nobody has to be looked up by name.
        let mut entries = std::mem::take(&mut self.entries);
        // First who they are, then what else they want, since that depends on who is known.
        for (name, entry) in &mut entries {
            entry.units = Box::default();
            entry.identities = identities(name, entry);
            for (what, claim) in &entry.identities {
                self.registry.add(*what, claim.clone(), &mut |_| {});
            }
        }
        for entry in entries.values_mut() {
            entry.fronts = other_fronts(&self.registry, entry);
            for (what, claim) in &entry.fronts {
                self.registry.add(*what, claim.clone(), &mut |_| {});
            }
        }
        self.compile_all(&mut entries);
        self.entries = entries;
    }

    /// Compiles Services that have no units yet, on all processors: no Service needs to know what another was compiled to.
    fn compile_all(&mut self, entries: &mut BTreeMap<Arc<ObjectName>, Entry>) {
        let mut all: Vec<(&Arc<ObjectName>, &mut Entry)> = entries.iter_mut().collect();
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let share = all.len().div_ceil(processors).max(SHARE);
        let count = all.len().div_ceil(share);
        let shares = Mutex::new(all.chunks_mut(share));
        let work = || {
            let next = || shares.lock().unwrap_or_else(PoisonError::into_inner).next();
            std::iter::from_fn(next).map(|entries| self.compile_share(entries)).collect()
        };
        let compiled: Vec<Compiled> = thread::scope(|scope| {
            // What no thread could be had for is done by this one.
            let begin = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (1..count).filter_map(begin).collect();
            let mut compiled: Vec<Compiled> = work();
            for other in others {
                compiled.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            compiled
        });
        for Compiled { shared, ranges } in compiled {
            if self.shared.is_empty() {
                self.shared = shared;
            } else {
                shared.into_iter().for_each(|(one, users)| *self.shared.entry(one).or_default() += users);
            }
            self.ranges.extend(ranges);
        }
    }

    fn compile_share(&self, entries: &mut [(&Arc<ObjectName>, &mut Entry)]) -> Compiled {
        let mut compiled = Compiled::default();
        for (name, entry) in entries {
            entry.units = self.units(name, entry, &mut compiled.ranges).into();
            for one in entry.units.iter().flat_map(|unit| unit.uses(&self.config)) {
                *compiled.shared.entry(one).or_default() += 1;
            }
        }
        compiled
    }
}
