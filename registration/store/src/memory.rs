//! A store that forgets everything with the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use portolan_model::Name;
use portolan_registry::store::{Record, Store, StoreError, Stored, Write};

/// A store in memory. Clones share their contents, so a test can start a second registry on what the first has left,
/// and look at what is "on disk".
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    contents: Arc<Mutex<Contents>>,
}

#[derive(Debug, Default)]
struct Contents {
    records: BTreeMap<Name, Record>,
    index: u64,
    refuses: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on every write fails, as on a full disk, or succeeds again.
    pub fn refuse_writes(&self, refuses: bool) {
        self.lock().refuses = refuses;
    }

    /// What it holds.
    pub fn stored(&self) -> Stored {
        let contents = self.lock();
        Stored { records: contents.records.values().cloned().collect(), index: contents.index }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Contents> {
        // A batch is applied by code that does not panic: what is there is whole.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load_all(&mut self) -> Result<Stored, StoreError> {
        Ok(self.stored())
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        let mut contents = self.lock();
        if contents.refuses {
            return Err(StoreError::new("this store was told to refuse writes"));
        }
        for write in batch {
            match write {
                Write::Put(record) => {
                    contents.records.insert(record.instance.key.name.clone(), (**record).clone());
                }
                Write::Remove(name) => {
                    contents.records.remove(name);
                }
                Write::Index(index) => contents.index = *index,
            }
        }
        Ok(())
    }
}
