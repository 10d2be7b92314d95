//! What is still to be said about each Pod: one entry for a Pod, the newest value for a key, and who is at it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{Annotations, Counters, PublishError};
use crate::{PodKey, backoff::Backoff};

/// More Pods than a node can have.
const MOST: usize = 4096;

pub(super) type Waiter = oneshot::Sender<Result<(), PublishError>>;

struct Entry {
    changes: Annotations,
    waiters: Vec<Waiter>,
    due: Instant,
    backoff: Backoff,
    /// Whether a worker is at it: no other may be, or an older word could arrive after a newer one.
    taken: bool,
}

/// The queue. There is no order among Pods but by when they may be tried.
pub(super) struct Queue {
    entries: Mutex<BTreeMap<PodKey, Entry>>,
    changed: Notify,
    empty: Notify,
    counters: Arc<Counters>,
}

/// An entry that a worker has taken and must give back by [`Queue::done`].
pub(super) struct Job {
    pub(super) pod: PodKey,
    pub(super) changes: Annotations,
    waiters: Vec<Waiter>,
}

/// What became of a [`Job`].
pub(super) enum Outcome {
    /// It is said.
    Landed,
    /// The Pod is gone: there is nothing more to say about it.
    Gone,
    /// It will never be accepted.
    Refused(PublishError),
    /// Another time.
    Later,
}

impl Queue {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { entries: Mutex::default(), changed: Notify::new(), empty: Notify::new(), counters }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodKey, Entry>> {
        // No invariant spans two statements of which one could panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn put(&self, pod: &PodKey, changes: Annotations, waiter: Option<Waiter>) {
        let mut entries = self.lock();
        if entries.len() >= MOST && !entries.contains_key(pod) {
            // The one that has failed for longest is the least likely to land.
            let oldest = entries.iter().filter(|(_, entry)| !entry.taken).max_by_key(|(_, entry)| entry.due);
            if let Some(oldest) = oldest.map(|(pod, _)| pod.clone()) {
                entries.remove(&oldest);
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        let entry = entries.entry(pod.clone()).or_insert_with(|| Entry {
            changes: Annotations::new(),
            waiters: Vec::new(),
            due: Instant::now(),
            backoff: Backoff::new(),
            taken: false,
        });
        entry.changes.extend(changes);
        entry.waiters.extend(waiter);
        drop(entries);
        self.changed.notify_one();
    }

    /// Waits for something to do.
    pub(super) async fn take(&self) -> Job {
        loop {
            let due = {
                let mut entries = self.lock();
                let next =
                    entries.iter_mut().filter(|(_, entry)| !entry.taken).min_by_key(|(_, entry)| entry.due);
                match next {
                    Some((pod, entry)) if entry.due <= Instant::now() => {
                        entry.taken = true;
                        return Job {
                            pod: pod.clone(),
                            changes: std::mem::take(&mut entry.changes),
                            waiters: std::mem::take(&mut entry.waiters),
                        };
                    }
                    Some((_, entry)) => Some(entry.due),
                    None => None,
                }
            };
            match due {
                Some(due) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// Gives an entry back.
    pub(super) fn done(&self, job: Job, outcome: Outcome) {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&job.pod) else { return };
        entry.taken = false;
        entry.due = Instant::now();
        let told = match outcome {
            Outcome::Landed => {
                count(&self.counters.landed);
                entry.backoff.reset();
                Some(Ok(()))
            }
            Outcome::Gone => {
                count(&self.counters.dropped);
                entry.changes.clear();
                Some(Err(PublishError::Gone(job.pod.clone())))
            }
            Outcome::Refused(error) => {
                count(&self.counters.dropped);
                Some(Err(error))
            }
            Outcome::Later => {
                count(&self.counters.retried);
                entry.due += entry.backoff.next();
                // What was said meanwhile is newer.
                let newer = std::mem::replace(&mut entry.changes, job.changes);
                entry.changes.extend(newer);
                None
            }
        };
        let mut waiters = job.waiters;
        match told {
            None => entry.waiters.append(&mut waiters),
            Some(_) if entry.changes.is_empty() => {
                waiters.append(&mut entry.waiters);
                entries.remove(&job.pod);
            }
            Some(_) => {}
        }
        let empty = entries.is_empty();
        drop(entries);
        if let Some(told) = told {
            for waiter in waiters {
                // Nobody waits any more when the caller's time was over.
                let _ = waiter.send(told.clone());
            }
        }
        self.changed.notify_one();
        if empty {
            self.empty.notify_waiters();
        }
    }

    /// Waits until nothing is left.
    pub(super) async fn drained(&self) {
        loop {
            let empty = self.empty.notified();
            let mut empty = std::pin::pin!(empty);
            empty.as_mut().enable();
            if self.lock().is_empty() {
                return;
            }
            empty.await;
        }
    }
}

#[cfg(test)]
mod tests;
