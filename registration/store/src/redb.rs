//! The catalog in one file, by redb: transactions with an fsync each, no threads of its own.
//!
//! Layout, version 1: the table `meta` holds numbers (`version`, `index`), the table `instances` holds a record as
//! JSON for each name. JSON, because a record must still be read by a later version that has added a field, and a
//! person must be able to see what is in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ::redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};
use portolan_registry::store::{Record, Store, StoreError, Stored, Write};

/// The file in the data folder.
const FILE: &str = "catalog.redb";
/// What this program writes. A later layout gets the next number and a step that carries the old one over.
const VERSION: u64 = 1;
/// The cache: records are read once, at the start.
const CACHE: usize = 8 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const INSTANCES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("instances");

/// Names and records as they are in the file.
type Rows = Vec<(String, Vec<u8>)>;

/// The catalog in the file `catalog.redb` of a data folder.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    /// `None` after a failed write: redb refuses everything after an I/O error until the file is opened anew.
    database: Option<Database>,
}

impl RedbStore {
    /// Opens or creates the file in `folder`, which must exist. It stays locked as long as the store lives: a second
    /// process gets an error at once.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let database = open(&path)?;
        let store = Self { path, database: Some(database) };
        store.check_version()?;
        Ok(store)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_version(&self) -> Result<(), StoreError> {
        let Some(database) = &self.database else { return Ok(()) };
        let path = self.path.display();
        let run = || -> Result<Option<u64>, ::redb::Error> {
            let transaction = database.begin_write()?;
            let found = {
                let mut meta = transaction.open_table(META)?;
                let found = meta.get("version")?.map(|version| version.value());
                if found.is_none() {
                    meta.insert("version", VERSION)?;
                }
                transaction.open_table(INSTANCES)?;
                found
            };
            transaction.commit()?;
            Ok(found)
        };
        match run().map_err(|e| self.failed("prepare", e))? {
            None | Some(VERSION) => Ok(()),
            Some(other) => Err(StoreError::new(format!(
                "{path} has layout {other}, and this program reads layout {VERSION}: use the version of portolan that wrote it, or move the file away to begin with an empty catalog"
            ))),
        }
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        match &mut self.database {
            Some(database) => Ok(database),
            closed => Ok(closed.insert(open(&self.path)?)),
        }
    }

    fn failed(&self, what: &str, error: impl Into<::redb::Error>) -> StoreError {
        let path = self.path.display();
        let error = error.into();
        let advice = match &error {
            ::redb::Error::Corrupted(_) => {
                ": the file is damaged; move it away to begin with an empty catalog, into which whatever still runs registers again by itself"
            }
            ::redb::Error::Io(e) if e.kind() == io::ErrorKind::StorageFull => {
                ": the disk is full; make room, and writes go on by themselves"
            }
            _ => "",
        };
        StoreError::caused(format!("cannot {what} {path}: {error}{advice}"), error)
    }
}

impl Store for RedbStore {
    fn load_all(&mut self) -> Result<Stored, StoreError> {
        let path = self.path.clone();
        let database = self.database()?;
        let read = |database: &Database| -> Result<(Rows, u64), ::redb::Error> {
            let transaction = database.begin_read()?;
            let index = transaction.open_table(META)?.get("index")?.map_or(0, |index| index.value());
            let mut rows = Vec::new();
            for row in transaction.open_table(INSTANCES)?.iter()? {
                let (name, record) = row?;
                rows.push((name.value().to_owned(), record.value().to_vec()));
            }
            Ok((rows, index))
        };
        let (rows, index) = read(database).map_err(|e| self.failed("read", e))?;
        let mut records = Vec::with_capacity(rows.len());
        for (name, bytes) in rows {
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) => records.push(record),
                // One record that a later version wrote must not keep all others from being served.
                Err(error) => {
                    tracing::warn!(instance = name, %error, path = %path.display(), "a record is unreadable and left out")
                }
            }
        }
        Ok(Stored { records, index })
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        let database = self.database()?;
        let result = write(database, batch);
        if let Err(error) = result {
            self.database = None;
            return Err(self.failed("write", error));
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let shown = path.display();
    Database::builder().set_cache_size(CACHE).create(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::new(format!(
            "{shown} is in use by another process: a second `portolan up` needs a data folder of its own (--data)"
        )),
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            damaged(path, error)
        }
        DatabaseError::Storage(error @ StorageError::Corrupted(_)) => damaged(path, error),
        DatabaseError::UpgradeRequired(version) => StoreError::new(format!(
            "{shown} was written by a redb of another age (file format {version}): move it away to begin with an empty catalog"
        )),
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            StoreError::caused(format!("cannot open {shown}: its folder does not exist"), error)
        }
        error => StoreError::caused(format!("cannot open {shown}: {error}"), error),
    })
}

fn damaged(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    let error = error.into();
    let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
    StoreError::caused(
        format!(
            "{} ({size} bytes) is no catalog or is damaged: {error}; move it away to begin with an empty catalog, into which whatever still runs registers again by itself",
            path.display()
        ),
        error,
    )
}

fn write(database: &Database, batch: &[Write]) -> Result<(), ::redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut instances = transaction.open_table(INSTANCES)?;
        let mut meta = transaction.open_table(META)?;
        for write in batch {
            match write {
                Write::Put(record) => {
                    let json = serde_json::to_vec(record).map_err(|e| ::redb::Error::Io(e.into()))?;
                    instances.insert(record.instance.key.name.as_str(), json.as_slice())?;
                }
                Write::Remove(name) => {
                    instances.remove(name.as_str())?;
                }
                Write::Index(index) => {
                    meta.insert("index", *index)?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
