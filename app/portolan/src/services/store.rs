//! What outlives a restart: who has which numbers, what was exposed, which ranges were chosen.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use portolan_model::ObjectName;
use serde::{Deserialize, Serialize};

use super::allocate::Allocations;

/// The file's name in the data folder.
const FILE: &str = "services.json";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not what this program writes: {source}; move it away, and Services get new addresses", path.display())]
    Content { path: PathBuf, source: serde_json::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) allocations: Allocations,
    /// By `NAMESPACE/NAME`, as YAML.
    #[serde(default)]
    pub(crate) exposed: BTreeMap<String, String>,
    /// When each Service was seen first, in seconds since 1970.
    #[serde(default)]
    since: BTreeMap<String, u64>,
    /// What was chosen where nobody said.
    #[serde(default)]
    pub(crate) chosen: Option<IpNet>,
}

impl Stored {
    /// When this Service was seen first: now, if it was not.
    pub(crate) fn since(&mut self, name: &ObjectName) -> SystemTime {
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let seconds = *self.since.entry(name.to_string()).or_insert_with(now);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Forgets the ages of those that are gone.
    pub(crate) fn keep(&mut self, names: impl Iterator<Item = ObjectName>) {
        let names: std::collections::BTreeSet<String> = names.map(|name| name.to_string()).collect();
        self.since.retain(|name, _| names.contains(name));
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    written: Stored,
}

impl Store {
    /// What is in it; nothing if there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let written = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(stored) => stored,
                Err(source) => return Err(StoreError::Content { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stored::default(),
            Err(source) => return Err(StoreError::Read { path, source }),
        };
        Ok(Self { path, written })
    }

    /// What is in it.
    pub(crate) fn read(&self) -> Stored {
        self.written.clone()
    }

    /// On disk when this returns; writes nothing when it is the same.
    pub(crate) fn write(&mut self, stored: &Stored) -> Result<(), StoreError> {
        if *stored == self.written {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        let write = || {
            let bytes = serde_json::to_vec_pretty(stored).map_err(io::Error::from)?;
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().map_err(|source| StoreError::Write { path: self.path.clone(), source })?;
        self.written = stored.clone();
        Ok(())
    }
}
