//! What has changed since somebody looked: a set of keys, not a queue of events.
//!
//! A reader that is slow gets each key once, with whatever the cache holds by then, and never makes a writer wait. When
//! more keys gather than is reasonable they become one: [`Change::Everything`].

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

/// With more keys than this waiting, a reader might as well look at everything.
const MOST: usize = 4096;

/// Something that a reader should look at again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Anything may have changed: after a start, after a long absence of the API server, or when too much happened.
    Everything,
    /// A Pod was created, changed or is gone.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A namespace's labels.
    Namespace(String),
    /// Some PortPool.
    Pools,
    /// The own Node.
    Node,
    /// The networks of Pods or Services.
    Networks,
}

#[derive(Debug, Default)]
struct Inbox {
    waiting: Mutex<(BTreeSet<Change>, bool)>,
    arrived: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, (BTreeSet<Change>, bool)> {
        // Whoever panicked left a set of keys, which is complete after each insertion.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Announcer {
    readers: Arc<Mutex<Vec<Weak<Inbox>>>>,
}

impl Announcer {
    pub(crate) fn announce(&self, change: &Change) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| {
            let Some(inbox) = reader.upgrade() else { return false };
            let mut waiting = inbox.lock();
            if waiting.0.len() >= MOST {
                waiting.0 = BTreeSet::from([Change::Everything]);
            } else if !waiting.0.contains(&Change::Everything) {
                waiting.0.insert(change.clone());
            }
            drop(waiting);
            inbox.arrived.notify_one();
            true
        });
    }

    /// A reader that begins with everything.
    pub(crate) fn subscribe(&self) -> Changes {
        let inbox = Arc::new(Inbox::default());
        inbox.lock().0.insert(Change::Everything);
        inbox.arrived.notify_one();
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.push(Arc::downgrade(&inbox));
        Changes { inbox }
    }

    /// Tells the readers that nothing more will come.
    pub(crate) fn close(&self) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        for inbox in readers.drain(..).filter_map(|reader| reader.upgrade()) {
            inbox.lock().1 = true;
            inbox.arrived.notify_one();
        }
    }
}

/// The side that listens.
#[derive(Debug)]
pub struct Changes {
    inbox: Arc<Inbox>,
}

impl Changes {
    /// Waits until something has changed and takes all that has. `None` when the view is gone. Can be dropped and
    /// called again without losing a change.
    pub async fn next(&mut self) -> Option<BTreeSet<Change>> {
        loop {
            {
                let mut waiting = self.inbox.lock();
                if !waiting.0.is_empty() {
                    return Some(std::mem::take(&mut waiting.0));
                }
                if waiting.1 {
                    return None;
                }
            }
            self.inbox.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: usize) -> Change {
        Change::Pod { namespace: "a".to_owned(), name: name.to_string() }
    }

    #[tokio::test]
    async fn a_slow_reader_gets_each_key_once_and_no_more_than_is_reasonable() {
        let announcer = Announcer::default();
        let mut changes = announcer.subscribe();
        assert_eq!(changes.next().await, Some(BTreeSet::from([Change::Everything])));
        for _ in 0..1000 {
            announcer.announce(&pod(1));
            announcer.announce(&Change::Pools);
        }
        assert_eq!(changes.next().await, Some(BTreeSet::from([pod(1), Change::Pools])));
        for name in 0..100_000 {
            announcer.announce(&pod(name));
        }
        assert_eq!(changes.next().await, Some(BTreeSet::from([Change::Everything])));
        announcer.announce(&pod(2));
        announcer.close();
        assert_eq!(changes.next().await, Some(BTreeSet::from([pod(2)])), "what came before the end is told");
        assert_eq!(changes.next().await, None);
    }
}
