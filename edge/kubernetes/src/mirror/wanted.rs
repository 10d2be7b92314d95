//! What a mirror copies, by which keys, and how it is doing.

use std::time::Instant;

use kube::{Api, Resource, runtime::watcher};

use crate::{ApiError, Connection, answered::Answered};

/// Namespace (empty for cluster-wide objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ObjectKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        let metadata = object.meta();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// How the copy is doing.
#[derive(Clone, Debug, Default)]
pub(crate) struct MirrorState {
    /// Whether it was complete once.
    pub(crate) synced: bool,
    /// Since when the watch fails.
    pub(crate) away: Option<Instant>,
    /// When it failed the last time.
    pub(crate) failed: Option<Instant>,
    /// Why.
    pub(crate) error: Option<ApiError>,
    /// How often everything was listed.
    pub(crate) lists: u64,
}

impl MirrorState {
    /// The watch works. Answers whether it did not before.
    pub(crate) fn works(&mut self) -> bool {
        self.error = None;
        self.failed = None;
        self.away.take().is_some()
    }

    pub(crate) fn fails(&mut self, error: &ApiError, answered: &Answered) {
        let now = Instant::now();
        // If the server answered since the last failure, this is a new absence, not the old one.
        let resumed = |failed: Instant| answered.last().is_some_and(|when| when > failed);
        if self.failed.is_none_or(resumed) {
            self.away = Some(now);
        }
        self.failed = Some(now);
        self.error = Some(error.clone());
    }

    /// Whether nothing was answered since it failed. A watch that was resumed is silent until something happens; that
    /// the server answered is enough.
    pub(crate) fn is_failing(&self, answered: &Answered) -> bool {
        self.failed.is_some_and(|failed| answered.last().is_none_or(|when| failed > when))
    }
}

/// What a mirror copies.
pub(crate) struct Wanted<K> {
    /// The plural, for messages.
    pub(super) what: &'static str,
    pub(super) api: Api<K>,
    pub(super) answered: Answered,
    pub(super) config: watcher::Config,
    /// Whether a cluster may lack the kind at all: a 404 then is an empty list.
    pub(super) optional: bool,
}

impl<K: Resource<DynamicType = ()>> Wanted<K> {
    /// All objects of a kind, of all namespaces.
    pub(crate) fn new(connection: &Connection, what: &'static str) -> Self {
        let (api, answered) = (Api::all(connection.client()), connection.answered().clone());
        Self { what, api, answered, config: watcher::Config::default(), optional: false }
    }

    pub(crate) fn fields(mut self, selector: &str) -> Self {
        self.config = self.config.fields(selector);
        self
    }

    pub(crate) fn labels(mut self, selector: &str) -> Self {
        self.config = self.config.labels(selector);
        self
    }

    pub(crate) fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

impl<K> Wanted<K> {
    /// Whether a cluster may lack the kind at all.
    pub(crate) fn is_optional(&self) -> bool {
        self.optional
    }

    pub(crate) fn answered(&self) -> &Answered {
        &self.answered
    }
}
