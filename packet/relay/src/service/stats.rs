//! What a frontend has done.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::FrontendKey;

/// Of one frontend, since it began to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendStats {
    /// Which.
    pub key: FrontendKey,
    /// `NAMESPACE/NAME:PORT` of its Service.
    pub service: String,
    /// Connections or UDP clients that are there now.
    pub open: u64,
    /// That have been let in.
    pub opened: u64,
    /// Clients that were sent away: not in the source ranges, or too many.
    pub refused: u64,
    /// Clients for whom no backend answered, or whose connection was cut.
    pub failed: u64,
    /// Bytes from clients to backends.
    pub received: u64,
    /// Bytes from backends to clients.
    pub sent: u64,
}

/// The same while it happens.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    open: AtomicU64,
    opened: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
}

impl Counters {
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// One more, until the value is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.opened.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    pub(crate) fn read(&self, key: FrontendKey, service: String) -> FrontendStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FrontendStats {
            key,
            service,
            open: of(&self.open),
            opened: of(&self.opened),
            refused: of(&self.refused),
            failed: of(&self.failed),
            received: of(&self.received),
            sent: of(&self.sent),
        }
    }
}

/// A connection or UDP client that is there.
#[derive(Debug)]
pub(crate) struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
