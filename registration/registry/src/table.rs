//! What the catalog becomes: a pure state machine. The third stage of a registration.
//!
//! No clock, no I/O, no randomness: times and fresh incarnations are handed in, changes and what must be stored are
//! handed out. The owner task is the only one that calls this; tests call it with histories of their own.
//!
//! A registration comes in two steps, so that the store can be written in between: [`Table::prepare`] says what it
//! would become or why it is refused, and [`Table::commit`] makes it so.

mod register;

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use portolan_model::{CheckSpec, Incarnation, Instance, InstanceKey, Name, State, Transition};
pub(crate) use register::Prepared;

use crate::{
    Change, RegistryConfig, RegistryError, Snapshot, admit::checked_port, evict::Leases, store::Record,
};

/// A moment: on the clock of leases, and as people write it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) elapsed: Duration,
    pub(crate) wall: SystemTime,
}

/// What health looks at for an instance. As long as it is the same, what was seen stays true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) key: InstanceKey,
    pub(crate) address: SocketAddr,
    pub(crate) check: CheckSpec,
}

#[derive(Clone, Debug)]
struct Entry {
    instance: Arc<Instance>,
    ttl: Duration,
    former: Vec<Incarnation>,
}

/// The catalog.
#[derive(Debug)]
pub(crate) struct Table {
    snapshot: Snapshot,
    entries: HashMap<Name, Entry>,
    leases: Leases,
    changes: Vec<Change>,
    /// Names whose record in the store is no longer what it is here.
    unstored: BTreeSet<Name>,
    counts: [usize; State::ALL.len()],
    capacity: usize,
    remove_after: Duration,
}

impl Table {
    /// An empty catalog whose next change has the index after `index`.
    pub(crate) fn new(config: &RegistryConfig, index: u64) -> Self {
        Self {
            snapshot: Snapshot::new(index.max(1)),
            entries: HashMap::new(),
            leases: Leases::default(),
            changes: Vec::new(),
            unstored: BTreeSet::new(),
            counts: [0; State::ALL.len()],
            capacity: config.capacity,
            remove_after: config.remove_after,
        }
    }

    /// Takes up what the store had: everybody in the state they were in, with a whole lease from now on. Those who
    /// could not renew because the registry was away must not pay for it.
    pub(crate) fn load(&mut self, records: Vec<Record>, now: Now) {
        for record in records {
            let Record { instance, ttl_ms, former } = record;
            let ttl = Duration::from_millis(ttl_ms);
            let lease = if instance.state == State::Expired { self.remove_after } else { ttl };
            self.leases.set(&instance.key.name, now.elapsed + lease);
            let instance = Arc::new(instance);
            let entry = Entry { instance: Arc::clone(&instance), ttl, former };
            if let Some(twice) = self.entries.insert(instance.key.name.clone(), entry) {
                self.counts[twice.instance.state as usize] -= 1;
            }
            self.counts[instance.state as usize] += 1;
            self.snapshot.put(instance, self.snapshot.index());
        }
    }

    /// Prolongs a lease. An instance that had expired is alive again, and is looked at anew.
    pub(crate) fn renew(
        &mut self,
        name: &Name,
        incarnation: Option<&Incarnation>,
        now: Now,
    ) -> Result<(), RegistryError> {
        let entry = self.holder(name, incarnation)?;
        let (ttl, instance) = (entry.ttl, Arc::clone(&entry.instance));
        self.leases.set(name, now.elapsed + ttl);
        if instance.state == State::Expired {
            let alive = first_state(instance.check.as_ref());
            self.unstored.insert(name.clone());
            self.set(Instance {
                state: alive,
                since: now.wall,
                output: String::new(),
                ..(*instance).clone()
            });
        }
        Ok(())
    }

    /// Whether [`Self::leave`] would take that instance out.
    pub(crate) fn may_leave(
        &self,
        name: &Name,
        incarnation: Option<&Incarnation>,
    ) -> Result<(), RegistryError> {
        self.holder(name, incarnation).map(|_| ())
    }

    /// Takes an instance out. The owner has removed its record from the store.
    pub(crate) fn leave(&mut self, name: &Name) {
        self.unstored.remove(name);
        self.take_out(name);
    }

    /// What a look, or several, came to. `false` when that is about something that is no longer so.
    pub(crate) fn observed(&mut self, target: &Target, state: State, output: String, now: Now) -> bool {
        let name = &target.key.name;
        if self.target(name).as_ref() != Some(target) {
            return false;
        }
        let Some(entry) = self.entries.get(name) else { return false };
        if entry.instance.state == state {
            return false;
        }
        let instance = Instance { state, since: now.wall, output, ..(*entry.instance).clone() };
        self.unstored.insert(name.clone());
        self.set(instance);
        true
    }

    /// Expires and removes who is due. Returns how many expired.
    pub(crate) fn tick(&mut self, now: Now) -> usize {
        let mut expired = 0;
        while let Some(name) = self.leases.pop(now.elapsed) {
            let Some(entry) = self.entries.get(&name) else { continue };
            self.unstored.insert(name.clone());
            if entry.instance.state == State::Expired {
                self.take_out(&name);
                continue;
            }
            expired += 1;
            let ttl = humantime::format_duration(entry.ttl);
            let output = format!("not renewed within its lease of {ttl}");
            let instance =
                Instance { state: State::Expired, since: now.wall, output, ..(*entry.instance).clone() };
            self.leases.set(&name, now.elapsed + self.remove_after);
            self.set(instance);
        }
        expired
    }

    /// When [`Self::tick`] has something to do next.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.leases.next()
    }

    /// What health should look at for this instance: nothing when it has no check or has expired.
    pub(crate) fn target(&self, name: &Name) -> Option<Target> {
        target(&self.entries.get(name)?.instance)
    }

    /// Its state.
    pub(crate) fn state(&self, name: &Name) -> Option<State> {
        self.entries.get(name).map(|entry| entry.instance.state)
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.entries.keys()
    }

    /// How many instances are in each state.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (State, usize)> {
        State::ALL.into_iter().map(|state| (state, self.counts[state as usize]))
    }

    /// The picture with all changes in it.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The changes since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The names whose record in the store is out of date since the last call, with the record they should have.
    pub(crate) fn take_unstored(&mut self) -> Vec<(Name, Option<Record>)> {
        let names = std::mem::take(&mut self.unstored);
        names.into_iter().map(|name| (name.clone(), self.record(&name))).collect()
    }

    /// Says that these could not be stored and must be handed out again.
    pub(crate) fn still_unstored(&mut self, names: impl IntoIterator<Item = Name>) {
        self.unstored.extend(names);
    }

    fn record(&self, name: &Name) -> Option<Record> {
        self.entries.get(name).map(|entry| Record {
            instance: (*entry.instance).clone(),
            ttl_ms: millis(entry.ttl),
            former: entry.former.clone(),
        })
    }

    /// The entry of that name, if that incarnation (or any, for `None`) holds it.
    fn holder(&self, name: &Name, incarnation: Option<&Incarnation>) -> Result<&Entry, RegistryError> {
        let entry = self.entries.get(name).ok_or_else(|| RegistryError::NotFound(name.clone()))?;
        match incarnation {
            Some(asked) if *asked != entry.instance.key.incarnation => Err(RegistryError::Replaced {
                name: name.clone(),
                current: entry.instance.key.incarnation.clone(),
            }),
            _ => Ok(entry),
        }
    }

    /// Makes `instance` the record of its name, as a change.
    fn set(&mut self, instance: Instance) {
        let name = instance.key.name.clone();
        let Some(entry) = self.entries.get_mut(&name) else { return };
        let instance = Arc::new(instance);
        let previous = std::mem::replace(&mut entry.instance, Arc::clone(&instance));
        self.counts[previous.state as usize] -= 1;
        self.counts[instance.state as usize] += 1;
        let same_life = previous.key == instance.key;
        let now = (*instance).clone();
        let transition = if same_life { Transition::Changed(now) } else { Transition::Added(now) };
        let index = self.snapshot.index() + 1;
        self.snapshot.put(instance, index);
        self.changes.push(Change { index, transition, previous: Some(previous) });
    }

    fn take_out(&mut self, name: &Name) {
        self.leases.remove(name);
        let Some(entry) = self.entries.remove(name) else { return };
        self.counts[entry.instance.state as usize] -= 1;
        let index = self.snapshot.index() + 1;
        self.snapshot.remove(name.as_str(), index);
        let last = Arc::unwrap_or_clone(entry.instance);
        self.changes.push(Change { index, transition: Transition::Removed(last), previous: None });
    }
}

fn target(instance: &Instance) -> Option<Target> {
    if instance.state == State::Expired {
        return None;
    }
    let check = instance.check.clone()?;
    let port = checked_port(&check, &instance.ports)?;
    let address = SocketAddr::new(*instance.addresses.first()?, port);
    Some(Target { key: instance.key.clone(), address, check })
}

/// What an instance is before anybody has looked: nobody is sent to one with a check, and one without a check has
/// nothing else to wait for.
fn first_state(check: Option<&CheckSpec>) -> State {
    if check.is_some() { State::Unknown } else { State::Passing }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
