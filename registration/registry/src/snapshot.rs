//! What readers see: an immutable picture of the catalog at one index.
//!
//! A picture is published after every batch of changes, so taking the next one must not cost a copy of the whole
//! catalog. The instances are spread over [`SHARDS`] sorted vectors behind `Arc`s; a change copies the one vector
//! it falls into and shares all others with the pictures before it. Reading needs no lock at all.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use portolan_model::{Filter, Instance, Name};

/// 10,000 instances are 40 to a shard, 100,000 are 400: a change copies that many pointers.
const SHARDS: usize = 256;

/// Instances by name.
type Group = Vec<Arc<Instance>>;

/// The catalog at one moment. Cheap to clone, never changes.
#[derive(Clone, Debug)]
pub struct Snapshot {
    index: u64,
    len: usize,
    names: Vec<Arc<Group>>,
    services: Vec<Arc<BTreeMap<Name, Arc<Group>>>>,
}

impl Snapshot {
    pub(crate) fn new(index: u64) -> Self {
        Self { index, len: 0, names: vec![Arc::default(); SHARDS], services: vec![Arc::default(); SHARDS] }
    }

    /// The index of the last change that is in it. Never 0, and it never falls.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many instances.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The instance of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Instance>> {
        let group = &self.names[shard(name)];
        position(group, name).ok().map(|at| &group[at])
    }

    /// All copies of a service, by name, whatever their state. Empty when no instance says it is one: an unknown
    /// service and a service without copies are the same thing.
    pub fn service(&self, service: &str) -> &[Arc<Instance>] {
        self.services[shard(service)].get(service).map_or(&[], |group| group.as_slice())
    }

    /// The names of the services that have an instance, sorted.
    pub fn services(&self) -> Vec<&Name> {
        let mut names: Vec<_> = self.services.iter().flat_map(|shard| shard.keys()).collect();
        names.sort_unstable();
        names
    }

    /// All instances, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Instance>> {
        let mut all: Vec<_> = self.names.iter().flat_map(|group| group.iter()).collect();
        all.sort_unstable_by(|a, b| a.key.name.cmp(&b.key.name));
        all.into_iter()
    }

    /// The instances that match, sorted by name. A filter by name or service looks at those only.
    pub fn select(&self, filter: &Filter) -> Vec<&Arc<Instance>> {
        if let Some(name) = &filter.name {
            self.get(name.as_str()).into_iter().filter(|instance| filter.matches(instance)).collect()
        } else if let Some(service) = &filter.service {
            self.service(service.as_str()).iter().filter(|instance| filter.matches(instance)).collect()
        } else {
            self.iter().filter(|instance| filter.matches(instance)).collect()
        }
    }

    /// Puts an instance in, in the place of the one of that name.
    pub(crate) fn put(&mut self, instance: Arc<Instance>, index: u64) {
        let name = instance.key.name.clone();
        self.take(name.as_str());
        self.len += 1;
        let services = Arc::make_mut(&mut self.services[shard(instance.service.as_str())]);
        insert(Arc::make_mut(services.entry(instance.service.clone()).or_default()), Arc::clone(&instance));
        insert(Arc::make_mut(&mut self.names[shard(name.as_str())]), instance);
        self.index = index;
    }

    /// Takes an instance out.
    pub(crate) fn remove(&mut self, name: &str, index: u64) {
        self.take(name);
        self.index = index;
    }

    fn take(&mut self, name: &str) {
        let group = &mut self.names[shard(name)];
        let Ok(at) = position(group, name) else { return };
        let gone = Arc::make_mut(group).remove(at);
        self.len -= 1;
        let services = Arc::make_mut(&mut self.services[shard(gone.service.as_str())]);
        if let Some(group) = services.get_mut(&gone.service) {
            let group = Arc::make_mut(group);
            if let Ok(at) = position(group, name) {
                group.remove(at);
            }
            if group.is_empty() {
                services.remove(&gone.service);
            }
        }
    }
}

fn position(group: &Group, name: &str) -> Result<usize, usize> {
    group.binary_search_by(|instance| instance.key.name.as_str().cmp(name))
}

fn insert(group: &mut Group, instance: Arc<Instance>) {
    match position(group, instance.key.name.as_str()) {
        Ok(at) => group[at] = instance,
        Err(at) => group.insert(at, instance),
    }
}

fn shard(name: &str) -> usize {
    // Fixed keys: whoever fills one shard on purpose makes changes there slower and nothing else.
    (BuildHasherDefault::<DefaultHasher>::default().hash_one(name) % SHARDS as u64) as usize
}
