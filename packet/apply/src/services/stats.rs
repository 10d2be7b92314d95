//! Numbers for metrics, health and status. Rendered elsewhere.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use portolan_model::ObjectName;

use super::chunks::Written;

/// What the owner of the Services' table has done since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStats {
    /// Services that are known.
    pub services: usize,
    /// How often changes were written, or found to change nothing.
    pub syncs: u64,
    /// How long the last one took, from what the events mean to the kernel's answer.
    pub last_sync: Duration,
    /// When it ended.
    pub last_synced: Option<SystemTime>,
    /// How long the comparison of the whole table at the start took, with what it wrote.
    pub start: Duration,
    /// Transactions that were written.
    pub transactions: u64,
    /// Elements that came or went in them.
    pub elements: u64,
    /// The longest transaction: so long nobody else could change a rule.
    pub longest_transaction: Duration,
    /// Events that were given and are not in the kernel yet.
    pub pending: u64,
    /// When the oldest of these was given.
    pub pending_since: Option<SystemTime>,
    /// How often the table was brought back after others had changed it.
    pub repairs: u64,
    /// How long the last repair took, from the kernel's notification to its answer.
    pub last_repair: Duration,
    /// Comparisons of the whole table that failed; each is tried again.
    pub failed_repairs: u64,
    /// Transactions that the kernel refused.
    pub refused: u64,
    /// Why the table is not what it should be; `None` while it is.
    pub last_error: Option<String>,
    /// UDP connections that were deleted because they went to the wrong place.
    pub flows_deleted: u64,
    /// Looks at the tracked connections that failed.
    pub failed_flushes: u64,
    /// How long the last look at the tracked connections took.
    pub last_flush: Duration,
    /// Endpoints whose remaining TCP connections are being reset, or wait for it.
    pub draining: usize,
}

/// Since when a Service is in the kernel as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its generation ([`portolan_model::Service::generation`]).
    pub generation: i64,
    /// When its last change was in the kernel, of itself or of its endpoints.
    pub since: SystemTime,
}

/// The same, shared between the threads.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stats: Mutex<ServiceStats>,
    /// The names are those that the Services have: there are many.
    live: Mutex<HashMap<Arc<ObjectName>, Live>>,
    pending: AtomicU64,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, ServiceStats> {
        // Numbers are whole after every statement, so a panic elsewhere does not spoil them.
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, HashMap<Arc<ObjectName>, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many events were given.
    pub(crate) fn given(&self, events: usize) {
        if self.pending.fetch_add(events as u64, Ordering::Relaxed) == 0 {
            self.lock().pending_since = Some(SystemTime::now());
        }
    }

    /// So many are dealt with.
    pub(crate) fn done(&self, events: usize) {
        let before = self.pending.fetch_sub(events as u64, Ordering::Relaxed);
        if before == events as u64 {
            self.lock().pending_since = None;
        }
    }

    /// A copy of all.
    pub(crate) fn stats(&self) -> ServiceStats {
        ServiceStats { pending: self.pending.load(Ordering::Relaxed), ..self.lock().clone() }
    }

    /// Adds what was written.
    pub(crate) fn wrote(&self, written: &Written) {
        let mut stats = self.lock();
        stats.transactions += written.transactions;
        stats.elements += written.elements;
        stats.longest_transaction = stats.longest_transaction.max(written.longest);
        stats.refused += written.refusals;
    }
}
