//! The registry as the source of the answers: its snapshot, without a copy and without a lock.

use std::sync::{Arc, OnceLock};

use portolan_model::Instance;
use portolan_registry::{Registry, Snapshot};

use crate::{answer::View, respond::Catalog};

impl View for Arc<Snapshot> {
    fn index(&self) -> u64 {
        Snapshot::index(self)
    }

    fn instance(&self, name: &str) -> Option<&Arc<Instance>> {
        self.get(name)
    }

    fn copies(&self, service: &str) -> &[Arc<Instance>] {
        self.service(service)
    }
}

impl Catalog for Registry {
    type View = Arc<Snapshot>;

    /// A registry that runs has loaded its store.
    fn now(&self) -> Option<Arc<Snapshot>> {
        Some(self.snapshot())
    }
}

/// A registry that is still loading: DNS can listen before, so that clients get SERVFAIL and ask again instead of
/// an ICMP error that some of them take for the end.
impl Catalog for OnceLock<Registry> {
    type View = Arc<Snapshot>;

    fn now(&self) -> Option<Arc<Snapshot>> {
        self.get().map(Registry::snapshot)
    }
}
