//! Who changed state when: the last transitions, for the page of an instance.
//!
//! One task reads the registry's change log and keeps a ring of all instances' transitions. A ring of the whole
//! catalog, not one of each instance: what is kept is bounded whatever registers, and a page looks through it in less
//! time than it takes to write its HTML.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use portolan_model::{Instance, Transition};
use portolan_registry::{Change, Changes, Registry};

/// Transitions of the whole catalog that are remembered: some MiB.
const KEPT: usize = 20_000;

/// The most characters of a check's output that are kept with a transition.
const OUTPUT: usize = 240;

/// One transition.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) at: SystemTime,
    /// The state that it came to, or `removed`.
    pub(crate) state: &'static str,
    /// What happened, in words.
    pub(crate) what: &'static str,
    pub(crate) output: String,
    name: String,
}

/// The last transitions of all instances.
#[derive(Debug, Default)]
pub(crate) struct History {
    ring: Mutex<VecDeque<Moment>>,
}

impl History {
    /// Begins to remember, until the registry ends.
    pub(crate) fn follow(registry: Registry) -> Arc<Self> {
        let history = Arc::new(Self::default());
        let ring = history.clone();
        // From this moment on, not from that in which the task first runs.
        let seen = registry.snapshot().index();
        tokio::spawn(async move {
            let closing = registry.closing();
            closing.run_until_cancelled(ring.remember(&registry, seen)).await;
        });
        history
    }

    async fn remember(&self, registry: &Registry, mut seen: u64) {
        let mut bell = registry.subscribe();
        loop {
            loop {
                match registry.changes(seen) {
                    Changes::Since(changes) => {
                        let Some(last) = changes.last() else { break };
                        seen = last.index;
                        self.add(changes.iter().filter_map(|change| moment(change)));
                    }
                    Changes::Resync => {
                        // Faster than this task for 8,192 changes: a gap in a history is no harm.
                        seen = registry.snapshot().index();
                        break;
                    }
                }
            }
            if bell.changed().await.is_err() {
                return;
            }
        }
    }

    fn add(&self, moments: impl Iterator<Item = Moment>) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        for moment in moments {
            if ring.len() == KEPT {
                ring.pop_front();
            }
            ring.push_back(moment);
        }
    }

    /// The transitions of one instance, newest first, 50 at most.
    pub(crate) fn of(&self, name: &str) -> Vec<Moment> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().rev().filter(|moment| moment.name == name).take(50).cloned().collect()
    }
}

/// What a change is in a history; `None` for changes of other things than the state and the life.
fn moment(change: &Change) -> Option<Moment> {
    let moment = |instance: &Instance, at, state, what| Moment {
        at,
        state,
        what,
        output: instance.output.chars().take(OUTPUT).collect(),
        name: instance.key.name.to_string(),
    };
    match (&change.transition, &change.previous) {
        (Transition::Removed(last), _) => {
            Some(moment(last, SystemTime::now(), "removed", "left the catalog"))
        }
        (Transition::Added(now), None) => Some(moment(now, now.registered, now.state.as_str(), "registered")),
        (Transition::Added(now), Some(_)) => {
            Some(moment(now, now.registered, now.state.as_str(), "replaced by a new incarnation"))
        }
        (Transition::Changed(now), Some(before)) if now.state == before.state => None,
        (Transition::Changed(now), _) => Some(moment(now, now.since, now.state.as_str(), "changed state")),
    }
}
