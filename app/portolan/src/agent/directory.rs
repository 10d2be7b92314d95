//! Who has which ports, for everybody who only reads: the self address, NRI, the teller, the catalog.
//!
//! The engine's leases are the truth; this is what is known besides of the Pods that have them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use portolan_model::{Incarnation, InstanceId, Network, PublishedPort};

/// A Pod with ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The key of its lease.
    pub(crate) instance: InstanceId,
    /// The sandbox.
    pub(crate) incarnation: Incarnation,
    /// Where it is.
    pub(crate) network: Network,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// The ports of its annotation, then those of the runtime.
    pub(crate) ports: Vec<PublishedPort>,
    /// How many of them are of its annotation. With none the Pod is told nothing: it chose all by itself.
    pub(crate) asked: usize,
    /// Whether its containers get them in their environment.
    pub(crate) environment: bool,
    /// Whether Galaxy's annotation is to be written.
    pub(crate) galaxy: bool,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<InstanceId, Entry>,
    addresses: HashMap<IpAddr, InstanceId>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Directory(Mutex<Inner>);

impl Directory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Two maps without a condition between them that a panic could break for long: `put` mends both.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a Pod, in place of an earlier life of it.
    pub(crate) fn put(&self, entry: Entry) {
        let mut inner = self.lock();
        inner.forget(&entry.instance);
        for address in &entry.addresses {
            inner.addresses.insert(*address, entry.instance.clone());
        }
        inner.entries.insert(entry.instance.clone(), entry);
    }

    /// Forgets a life of a Pod; a later one stays.
    pub(crate) fn remove(&self, instance: &InstanceId, life: &Incarnation) -> Option<Entry> {
        let mut inner = self.lock();
        inner.entries.get(instance).filter(|entry| entry.incarnation == *life)?;
        inner.forget(instance)
    }

    /// The Pod of that key.
    pub(crate) fn get(&self, instance: &InstanceId) -> Option<Entry> {
        self.lock().entries.get(instance).cloned()
    }

    /// The Pod that has an address of its own.
    pub(crate) fn of_address(&self, address: IpAddr) -> Option<Entry> {
        let inner = self.lock();
        inner.entries.get(inner.addresses.get(&address)?).cloned()
    }

    /// The Pods that somebody is interested in.
    pub(crate) fn select(&self, interesting: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        self.lock().entries.values().filter(|entry| interesting(entry)).cloned().collect()
    }
}

impl Inner {
    fn forget(&mut self, instance: &InstanceId) -> Option<Entry> {
        let entry = self.entries.remove(instance)?;
        for address in &entry.addresses {
            // The address may have been given to another Pod in the meantime.
            if self.addresses.get(address) == Some(instance) {
                self.addresses.remove(address);
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pod: &str, life: &str, address: &str) -> Entry {
        Entry {
            instance: pod.parse().unwrap(),
            incarnation: life.parse().unwrap(),
            network: Network::Own,
            addresses: vec![address.parse().unwrap()],
            ports: Vec::new(),
            asked: 0,
            environment: true,
            galaxy: false,
        }
    }

    #[test]
    fn an_address_that_was_given_on_belongs_to_its_new_pod() {
        let directory = Directory::default();
        directory.put(entry("a/one", "1", "10.0.0.5"));
        directory.put(entry("a/two", "2", "10.0.0.5"));
        assert!(directory.remove(&"a/one".parse().unwrap(), &"1".parse().unwrap()).is_some());
        let found = directory.of_address("10.0.0.5".parse().unwrap()).unwrap();
        assert_eq!(found.instance.as_str(), "a/two");
    }

    #[test]
    fn a_late_removal_leaves_the_next_life_alone() {
        let directory = Directory::default();
        directory.put(entry("a/one", "1", "10.0.0.5"));
        directory.put(entry("a/one", "2", "10.0.0.6"));
        assert_eq!(directory.of_address("10.0.0.5".parse().unwrap()), None);
        assert_eq!(directory.remove(&"a/one".parse().unwrap(), &"1".parse().unwrap()), None);
        assert!(directory.of_address("10.0.0.6".parse().unwrap()).is_some());
        assert_eq!(directory.select(|_| true).len(), 1);
    }
}
