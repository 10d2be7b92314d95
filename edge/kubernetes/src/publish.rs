//! What Portolan tells the cluster: annotations of Pods, Events, and how many ports a node has.
//!
//! Whoever publishes is never made to wait and never told of a failure: the API server may be away while a Pod starts,
//! and the Pod must start all the same. What is to be said is kept by object, the newest word wins, and it is said
//! again until it lands or its object is gone.

mod annotate;
mod capacity;
mod event;
mod queue;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::{
    capacity::Capacity,
    event::{About, EventKind},
};
use self::{event::Note, queue::Queue};
use crate::{ApiError, Connection, PodKey};

/// Annotations to set, and with `None` to remove.
pub type Annotations = BTreeMap<String, Option<String>>;

/// How many Pods are annotated at the same time.
const WORKERS: usize = 4;
/// How many Events may wait: on a node that refuses Pods while the API server is away the newest are the useful ones.
const EVENTS: usize = 256;

/// Why an annotation did not land.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The Pod is gone, or another one has its name.
    #[error("the Pod {0} is gone")]
    Gone(PodKey),
    /// Too many others wait, or the publisher has ended.
    #[error("what was to be said about the Pod {0} was dropped: too much else waits for the API server")]
    Dropped(PodKey),
    /// The API server; what is retryable is still tried after the caller's time limit.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// What a publisher has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishStats {
    /// Pods and Events that wait or are on their way.
    pub queued: u64,
    /// Patches and Events that the API server has.
    pub landed: u64,
    /// Attempts that failed and are repeated.
    pub retried: u64,
    /// What nobody will ever know: its object is gone, it was refused for good, or too much waited.
    pub dropped: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    landed: AtomicU64,
    retried: AtomicU64,
    dropped: AtomicU64,
}

/// Says things to the API server. Clones share it; with the last of them it ends, whatever waits.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    annotations: Arc<Queue>,
    events: mpsc::Sender<Note>,
    /// How many Events are not written yet.
    waiting: Arc<watch::Sender<usize>>,
    counters: Arc<Counters>,
    _tasks: DropGuard,
}

impl Publisher {
    /// Begins. `instance` is named in Events as who reports: the node's name.
    pub fn start(connection: &Connection, instance: &str) -> Self {
        let (stop, counters) = (CancellationToken::new(), Arc::<Counters>::default());
        let annotations = Arc::new(Queue::new(counters.clone()));
        for _ in 0..WORKERS {
            let work = annotate::work(connection.clone(), annotations.clone());
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(work).await });
        }
        let (events, notes) = mpsc::channel(EVENTS);
        let waiting = Arc::new(watch::Sender::new(0));
        let work = event::Writer::new(connection, instance, counters.clone(), waiting.clone()).work(notes);
        let stopping = stop.clone();
        tokio::spawn(async move { stopping.run_until_cancelled(work).await });
        Self(Arc::new(Inner { annotations, events, waiting, counters, _tasks: stop.drop_guard() }))
    }

    /// Sets and removes annotations of a Pod, soon. With a UID only of that Pod, never of another of its name.
    pub fn annotate(&self, pod: &PodKey, changes: Annotations) {
        self.0.annotations.put(pod, changes, None);
    }

    /// Sets and removes annotations of a Pod and waits until they are there. When `limit` is over they are still tried.
    pub async fn annotate_now(
        &self,
        pod: &PodKey,
        changes: Annotations,
        limit: Duration,
    ) -> Result<(), PublishError> {
        let (done, told) = oneshot::channel();
        self.0.annotations.put(pod, changes, Some(done));
        match tokio::time::timeout(limit, told).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(PublishError::Dropped(pod.clone())),
            Err(_) => Err(ApiError::TimedOut { what: format!("patch Pod {pod}"), after: limit }.into()),
        }
    }

    /// Writes an Event that `kubectl describe` shows. `reason` is a word for machines such as `PortsRefused`, `action`
    /// what was tried, `message` a sentence for people. The same Event again is counted in the first one.
    pub fn event(&self, about: &About, kind: EventKind, reason: &str, action: &str, message: &str) {
        let note = Note::new(about, kind, reason, action, message);
        self.0.waiting.send_modify(|waiting| *waiting += 1);
        if self.0.events.try_send(note).is_err() {
            self.0.waiting.send_modify(|waiting| *waiting -= 1);
            self.0.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything has landed. `false` when it has not within `limit`.
    pub async fn idle(&self, limit: Duration) -> bool {
        let all = async {
            self.0.annotations.drained().await;
            // The sender lives as long as we do.
            let _ = self.0.waiting.subscribe().wait_for(|waiting| *waiting == 0).await;
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    /// What was done so far.
    pub fn stats(&self) -> PublishStats {
        let counters = &self.0.counters;
        PublishStats {
            queued: (self.0.annotations.len() + *self.0.waiting.borrow()) as u64,
            landed: counters.landed.load(Ordering::Relaxed),
            retried: counters.retried.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
        }
    }
}
