//! Where acknowledged registrations survive a crash: the trait that a store implements, and the thread it runs on.
//!
//! The trait is blocking, because stores are; the registry's owner task talks to it through `StoreThread`, so
//! that an fsync never holds up a worker of the async runtime.

use std::{sync::mpsc, thread};

use portolan_model::{Incarnation, Instance, Name};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// What is kept of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The instance as it was last seen.
    pub instance: Instance,
    /// Its lease in milliseconds.
    pub ttl_ms: u64,
    /// Earlier incarnations of this name, newest first: a late word of theirs is refused after a restart too.
    #[serde(default)]
    pub former: Vec<Incarnation>,
}

/// Everything that a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The instances, in any order.
    pub records: Vec<Record>,
    /// The last value of [`Write::Index`], or 0.
    pub index: u64,
}

/// One thing to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Keep this record in the place of the one of that name.
    Put(Box<Record>),
    /// Forget the record of that name, if there is one.
    Remove(Name),
    /// No index of the catalog up to this one is given again, also not after a crash.
    Index(u64),
}

/// A store that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct StoreError {
    /// What was tried, on which file, and what to do about it.
    pub context: String,
    /// What went wrong.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An error that says `context`.
    pub fn new(context: impl Into<String>) -> Self {
        Self { context: context.into(), source: None }
    }

    /// An error that says `context` and was caused by `source`.
    pub fn caused(
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { context: context.into(), source: Some(source.into()) }
    }
}

/// A place that keeps records. All methods may block.
pub trait Store: Send {
    /// Reads everything.
    fn load_all(&mut self) -> Result<Stored, StoreError>;

    /// Writes all of `batch` or nothing, in this order. When it returns `Ok`, a power cut loses none of it.
    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError>;
}

/// A store on a thread of its own.
#[derive(Debug)]
pub(crate) struct StoreThread {
    jobs: mpsc::SyncSender<Job>,
    /// Fails to receive when the thread has dropped the store.
    closed: oneshot::Receiver<()>,
}

struct Job {
    batch: Vec<Write>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl StoreThread {
    /// Loads everything and keeps the store for writes. Dropping the handle ends the thread.
    pub(crate) async fn start(store: Box<dyn Store>) -> Result<(Self, Stored), StoreError> {
        let (loaded, load) = oneshot::channel();
        let (closing, closed) = oneshot::channel::<()>();
        // One owner writes one batch at a time and waits for it: a queue of one is never full.
        let (jobs, todo) = mpsc::sync_channel::<Job>(1);
        thread::Builder::new()
            .name("portolan-store".to_owned())
            .spawn(move || {
                // Declared before the store is taken over, and so dropped after it.
                let _closing = closing;
                let mut store = store;
                if loaded.send(store.load_all()).is_err() {
                    return;
                }
                for Job { batch, done } in todo {
                    // The owner may have stopped waiting because it is being shut down; the write still counts.
                    let _ = done.send(store.write(&batch));
                }
            })
            .map_err(|e| StoreError::caused("cannot start the store's thread", e))?;
        let stored = load.await.map_err(|_| Self::dead())??;
        Ok((Self { jobs, closed }, stored))
    }

    /// Writes a batch and waits until it is safe.
    pub(crate) async fn write(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.jobs.try_send(Job { batch, done }).map_err(|_| Self::dead())?;
        result.await.map_err(|_| Self::dead())?
    }

    /// Ends the thread and waits until the store is closed, so that somebody else can open it.
    pub(crate) async fn close(self) {
        drop(self.jobs);
        // Nothing is ever sent: the error is the news.
        let _ = self.closed.await;
    }

    fn dead() -> StoreError {
        StoreError::new(
            "the store's thread has ended, which is a fault of the program: restart it and report this",
        )
    }
}
