//! What a registration makes of the catalog.

use std::sync::Arc;

use portolan_model::{Incarnation, Instance, InstanceKey, Name, Registered, State, Transition};

use super::{Entry, Now, Table, first_state, millis, target};
use crate::{
    Change, RegistryError,
    admit::{Accepted, Claim, Refusal},
    store::Record,
};

/// Earlier incarnations of a name that are remembered: a late word of theirs is refused.
const REMEMBERED: usize = 4;

/// What a registration is to the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A new name.
    Added,
    /// A new life of a name.
    Replaced,
    /// The same life, which now says something else, or is back after its lease ran out.
    Updated,
    /// The same life with the same words: a renewal.
    Unchanged,
}

impl Outcome {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Replaced => "replaced",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
        }
    }
}

/// A registration that may be committed.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) outcome: Outcome,
    /// What it becomes.
    pub(crate) record: Record,
    /// Whether the store does not have that yet.
    pub(crate) must_store: bool,
    ttl: std::time::Duration,
}

impl Table {
    /// What this registration would become. `fresh` is its incarnation if it names none and begins a life.
    pub(crate) fn prepare(
        &self,
        from: Accepted,
        fresh: Incarnation,
        now: Now,
    ) -> Result<Prepared, RegistryError> {
        self.may_change(&from.name, &from.claim)?;
        let entry = self.entries.get(&from.name);
        if entry.is_none() && self.entries.len() >= self.capacity {
            return Err(RegistryError::Full(self.capacity));
        }
        let current = entry.map(|entry| &entry.instance.key.incarnation);
        let incarnation = from.incarnation.or_else(|| current.cloned()).unwrap_or(fresh);
        let mut former = entry.map(|entry| entry.former.clone()).unwrap_or_default();
        if let Some(entry) = entry
            && former.contains(&incarnation)
        {
            let current = entry.instance.key.incarnation.clone();
            return Err(RegistryError::Replaced { name: from.name, current });
        }
        let mut instance = Instance {
            key: InstanceKey { name: from.name, incarnation },
            service: from.service,
            node: from.node,
            addresses: from.addresses,
            ports: from.ports,
            labels: from.labels,
            tags: from.tags,
            state: first_state(from.check.as_ref()),
            check: from.check,
            since: now.wall,
            registered: now.wall,
            output: String::new(),
        };
        let outcome = match entry {
            None => Outcome::Added,
            Some(entry) if entry.instance.key.incarnation != instance.key.incarnation => {
                former.insert(0, entry.instance.key.incarnation.clone());
                former.truncate(REMEMBERED);
                Outcome::Replaced
            }
            Some(entry) => {
                let before = &*entry.instance;
                instance.registered = before.registered;
                // What health has seen holds as long as it would look at the same thing.
                let alive = before.state != State::Expired;
                if alive
                    && before.check.is_some() == instance.check.is_some()
                    && target(before) == target(&instance)
                {
                    instance.state = before.state;
                    instance.since = before.since;
                    instance.output.clone_from(&before.output);
                }
                if *before == instance { Outcome::Unchanged } else { Outcome::Updated }
            }
        };
        let ttl_changed = entry.is_none_or(|entry| entry.ttl != from.ttl);
        let record = Record { instance, ttl_ms: millis(from.ttl), former };
        Ok(Prepared {
            outcome,
            record,
            must_store: outcome != Outcome::Unchanged || ttl_changed,
            ttl: from.ttl,
        })
    }

    /// Whether a caller with this claim may say something about this name: one that nobody has is anybody's.
    pub(crate) fn may_change(&self, name: &Name, claim: &Claim) -> Result<(), RegistryError> {
        match self.entries.get(name) {
            Some(entry) if !claim.covers(&entry.instance.addresses) => {
                Err(Refusal::NotYourInstance(name.clone()).into())
            }
            _ => Ok(()),
        }
    }

    /// Makes a prepared registration so. Nothing may have changed that name in between.
    pub(crate) fn commit(&mut self, prepared: Prepared, now: Now) -> Registered {
        let Prepared { outcome, record, ttl, .. } = prepared;
        let Record { instance, former, .. } = record;
        let key = instance.key.clone();
        let state = instance.state;
        self.leases.set(&key.name, now.elapsed + ttl);
        match self.entries.get_mut(&key.name) {
            Some(entry) => {
                entry.ttl = ttl;
                entry.former = former;
                self.unstored.remove(&key.name);
                if outcome != Outcome::Unchanged {
                    self.set(instance);
                }
            }
            None => {
                let index = self.snapshot.index() + 1;
                let shared = Arc::new(instance.clone());
                self.counts[state as usize] += 1;
                self.snapshot.put(Arc::clone(&shared), index);
                self.entries.insert(key.name.clone(), Entry { instance: shared, ttl, former });
                // A record of an earlier life that was to be removed has been overwritten.
                self.unstored.remove(&key.name);
                self.changes.push(Change { index, transition: Transition::Added(instance), previous: None });
            }
        }
        Registered {
            index: self.snapshot.index(),
            incarnation: key.incarnation,
            ttl,
            state,
            created: matches!(outcome, Outcome::Added | Outcome::Replaced),
        }
    }
}
