//! Numbers for metrics and for `portolan doctor`. Rendered elsewhere.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use portolan_plan::Counting;

/// What the data plane has done since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Mappings that hold now.
    pub mappings: usize,
    /// Mappings that were added, those of the start included.
    pub adds: u64,
    /// Mappings that were removed.
    pub removes: u64,
    /// Changes that were refused, by the plan or by the kernel.
    pub refused: u64,
    /// Transactions that were written.
    pub commits: u64,
    /// How long the last one took, from the first byte to the kernel's answer.
    pub last_commit: Duration,
    /// How often the table was brought back after others had changed it.
    pub repairs: u64,
    /// How long the last repair took, from the kernel's notification to its answer.
    pub last_repair: Duration,
    /// Repairs that did not succeed; each is tried again.
    pub failed_repairs: u64,
    /// UDP connections that were deleted because they went to the wrong place.
    pub flows_deleted: u64,
    /// Looks at the tracked UDP connections that failed.
    pub failed_flushes: u64,
    /// What is counted; less than was asked for where the kernel cannot do it.
    pub counting: Counting,
}

/// The same, shared between the threads.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<Stats>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Stats> {
        // Numbers are whole after every statement, so a panic elsewhere does not spoil them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
