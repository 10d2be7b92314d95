//! How everybody learns what changed: the published snapshot, the change log, and a bell that rings for both.
//!
//! A reader never subscribes to a queue of its own. It keeps the index of what it has seen, waits until the
//! catalog's index is larger, and takes what happened in between from the shared log. A reader that is slow
//! therefore costs nothing while it is slow, sees several changes at once when it comes back, and is told to start
//! over from a snapshot ([`Changes::Resync`]) when the log no longer reaches back to where it was.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
};

use arc_swap::ArcSwap;
use portolan_model::{Filter, Instance, Transition};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{Registry, Snapshot};

/// The most changes that are handed out at once; a reader asks again for the rest.
const BATCH: usize = 512;

/// One change of the catalog.
#[derive(Debug)]
pub struct Change {
    /// The catalog's index from this change on: larger than that of every change before.
    pub index: u64,
    /// What happened, with the instance as it is now; for a removal, as it was last.
    pub transition: Transition,
    /// The instance before, for changes and replacements.
    pub previous: Option<Arc<Instance>>,
}

impl Change {
    /// What a reader who sees only what `filter` matches learns of this change: an instance that begins to match is
    /// added for it, and one that ceases to match is removed. `None` when it concerns nothing of that.
    pub fn seen_through(&self, filter: &Filter) -> Option<Transition> {
        let instance = self.transition.instance();
        match self.matched(filter) {
            (false, false) => None,
            (false, true) => Some(Transition::Added(instance.clone())),
            (true, false) => Some(Transition::Removed(instance.clone())),
            (true, true) => Some(self.transition.clone()),
        }
    }

    /// Whether [`Change::seen_through`] shows anything.
    pub fn concerns(&self, filter: &Filter) -> bool {
        self.matched(filter) != (false, false)
    }

    /// Whether it matched before, and whether it does now.
    fn matched(&self, filter: &Filter) -> (bool, bool) {
        let before = self.previous.as_ref().is_some_and(|previous| filter.matches(previous));
        match &self.transition {
            Transition::Removed(last) => (filter.matches(last), false),
            Transition::Added(instance) | Transition::Changed(instance) => (before, filter.matches(instance)),
        }
    }
}

/// Returns when something that `filter` matches has changed since `since`, at the latest at `until`, and at once when
/// that cannot be told any more or the registry shuts down.
pub(crate) async fn wait_for_change(registry: &Registry, filter: &Filter, mut since: u64, until: Instant) {
    let mut bell = registry.subscribe();
    let closing = registry.closing();
    loop {
        bell.borrow_and_update();
        match registry.changes(since) {
            Changes::Resync => return,
            Changes::Since(changes) => match changes.last() {
                Some(_) if changes.iter().any(|change| change.concerns(filter)) => return,
                Some(last) => {
                    since = last.index;
                    continue;
                }
                None => {}
            },
        }
        tokio::select! {
            rung = bell.changed() => if rung.is_err() { return },
            () = sleep_until(until) => return,
            () = closing.cancelled() => return,
        }
    }
}

/// What happened since an index.
#[derive(Debug)]
pub enum Changes {
    /// These changes, oldest first; empty when nothing did. At most some hundred: the rest comes with the next
    /// call, from the index of the last one on.
    Since(Vec<Arc<Change>>),
    /// The log does not reach back that far, or the index is not of this catalog: start over from a snapshot.
    Resync,
}

/// The published side of the catalog: written by the owner, read by everybody.
#[derive(Debug)]
pub(crate) struct Board {
    snapshot: ArcSwap<Snapshot>,
    log: RwLock<Log>,
    bell: watch::Sender<u64>,
}

#[derive(Debug)]
struct Log {
    changes: VecDeque<Arc<Change>>,
    /// The index before the oldest change: who has seen this much can go on from the log.
    floor: u64,
    capacity: usize,
}

impl Board {
    pub(crate) fn new(snapshot: Snapshot, capacity: usize) -> Self {
        let floor = snapshot.index();
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            log: RwLock::new(Log { changes: VecDeque::new(), floor, capacity: capacity.max(1) }),
            bell: watch::Sender::new(floor),
        }
    }

    /// Publishes a batch: first the log, then the snapshot, then the bell, so that whoever sees the snapshot of an
    /// index finds the changes up to it.
    pub(crate) fn publish(&self, snapshot: Snapshot, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let index = snapshot.index();
        {
            // A reader that panicked has not left the log half written: readers do not write.
            let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
            log.changes.extend(changes.into_iter().map(Arc::new));
            while log.changes.len() > log.capacity {
                if let Some(oldest) = log.changes.pop_front() {
                    log.floor = oldest.index;
                }
            }
        }
        self.snapshot.store(Arc::new(snapshot));
        self.bell.send_replace(index);
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub(crate) fn changes(&self, since: u64) -> Changes {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let newest = log.changes.back().map_or(log.floor, |change| change.index);
        if since < log.floor || since > newest {
            return Changes::Resync;
        }
        let from = log.changes.partition_point(|change| change.index <= since);
        Changes::Since(log.changes.range(from..).take(BATCH).cloned().collect())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }
}

#[cfg(test)]
mod tests;
