//! The embedded store behind the registry's trait.
//!
//! [`RedbStore`] keeps the catalog in one file and is what `portolan up` uses. [`MemoryStore`] keeps it nowhere and
//! can be told to fail: for tests, and for a registry that need not remember.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod memory;
mod redb;

pub use memory::MemoryStore;
pub use redb::RedbStore;
