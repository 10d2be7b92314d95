//! From the events of one watch to differences.
//!
//! Of each object that was told a hash is kept, nothing else: enough to know whether it is another one when all are
//! listed again. A list is told while it is read, object by object; what it does not have any more is told at its end.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use kube::{Resource, runtime::watcher::Event};
use portolan_model::ObjectName;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::ServiceEvent;
use crate::{
    ApiError,
    answered::Answered,
    mirror::{Follower, MirrorState},
};

/// The way to the consumer.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) events: mpsc::Sender<ServiceEvent>,
    /// How many kinds were not seen as a whole yet.
    pub(super) missing: Arc<AtomicUsize>,
}

impl Outgoing {
    async fn send(&self, event: ServiceEvent) {
        // Nobody listens any more: the watch ends in a moment.
        let _ = self.events.send(event).await;
    }

    /// A kind was seen as a whole for the first time, and all of it was sent.
    async fn one_is_complete(&self) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.send(ServiceEvent::Synced).await;
        }
    }
}

/// A kind of which each object is told by itself.
pub(super) trait Differences: Send + Sync + 'static {
    /// It, as it is watched.
    type Object: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static;

    /// What to tell of an object; `None` of one that does not count.
    fn set(&self, object: &Self::Object) -> Option<ServiceEvent>;
    /// What to tell of one that is gone.
    fn remove(&self, name: ObjectName) -> ServiceEvent;
}

/// What was told of an object.
struct Told {
    hash: u64,
    /// The list in which it was seen last.
    list: u64,
}

/// The watch of such a kind.
pub(super) struct Feed<D> {
    kind: D,
    outgoing: Outgoing,
    state: watch::Sender<MirrorState>,
    answered: Answered,
    told: HashMap<Key, Told>,
    hashes: RandomState,
    list: u64,
}

impl<D: Differences> Feed<D> {
    pub(super) fn new(
        kind: D,
        outgoing: Outgoing,
        state: watch::Sender<MirrorState>,
        answered: Answered,
    ) -> Self {
        let (told, hashes) = (HashMap::new(), RandomState::new());
        Self { kind, outgoing, state, answered, told, hashes, list: 0 }
    }

    async fn apply(&mut self, object: &D::Object) {
        let key = key(object);
        let Some(event) = self.kind.set(object) else { return self.remove(key).await };
        let (hash, list) = (self.hashes.hash_one(&event), self.list);
        match self.told.get_mut(&key) {
            Some(told) => {
                told.list = list;
                if told.hash == hash {
                    return;
                }
                told.hash = hash;
            }
            None => {
                self.told.insert(key, Told { hash, list });
            }
        }
        self.outgoing.send(event).await;
    }

    async fn remove(&mut self, key: Key) {
        if self.told.remove(&key).is_some() {
            self.outgoing.send(self.kind.remove(named(&key))).await;
        }
    }

    /// What the list that has ended did not have.
    async fn sweep(&mut self) {
        let list = self.list;
        let gone: Vec<Key> = self.told.extract_if(|_, told| told.list != list).map(|(key, _)| key).collect();
        for key in gone {
            self.outgoing.send(self.kind.remove(named(&key))).await;
        }
        self.told.shrink_to_fit();
    }
}

impl<D: Differences> Follower<D::Object> for Feed<D> {
    async fn event(&mut self, event: Event<D::Object>) {
        match event {
            Event::Init => self.list += 1,
            Event::InitApply(object) | Event::Apply(object) => self.apply(&object).await,
            Event::Delete(object) => self.remove(key(&object)).await,
            Event::InitDone => {
                self.sweep().await;
                complete(&self.state, &self.outgoing).await;
            }
        }
    }

    async fn fails(&mut self, error: &ApiError) -> bool {
        self.state.send_modify(|state| state.fails(error, &self.answered));
        false
    }

    fn works(&mut self) {
        self.state.send_if_modified(MirrorState::works);
    }
}

/// The watch of a kind that has few objects, which are told together.
pub(super) struct Whole<K, F> {
    facts: fn(&K) -> F,
    tell: fn(BTreeMap<String, F>) -> ServiceEvent,
    outgoing: Outgoing,
    state: watch::Sender<MirrorState>,
    answered: Answered,
    optional: bool,
    now: BTreeMap<String, F>,
    fresh: Option<BTreeMap<String, F>>,
    told: Option<ServiceEvent>,
}

impl<K: Resource, F: Clone> Whole<K, F> {
    pub(super) fn new(
        facts: fn(&K) -> F,
        tell: fn(BTreeMap<String, F>) -> ServiceEvent,
        outgoing: Outgoing,
        state: watch::Sender<MirrorState>,
        answered: Answered,
        optional: bool,
    ) -> Self {
        let now = BTreeMap::new();
        Self { facts, tell, outgoing, state, answered, optional, now, fresh: None, told: None }
    }

    async fn tell(&mut self) {
        let event = (self.tell)(self.now.clone());
        if self.told.as_ref() != Some(&event) {
            self.told = Some(event.clone());
            self.outgoing.send(event).await;
        }
    }

    async fn replace(&mut self) {
        self.now = self.fresh.take().unwrap_or_default();
        self.tell().await;
        complete(&self.state, &self.outgoing).await;
    }
}

impl<K, F> Follower<K> for Whole<K, F>
where
    K: Resource + Send + Sync,
    F: Clone + Send + Sync,
{
    async fn event(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.fresh = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                let facts = (self.facts)(&object);
                if let Some(fresh) = &mut self.fresh {
                    fresh.insert(name(&object).name, facts);
                }
            }
            Event::InitDone => self.replace().await,
            Event::Apply(object) => {
                self.now.insert(name(&object).name, (self.facts)(&object));
                self.tell().await;
            }
            Event::Delete(object) => {
                self.now.remove(&name(&object).name);
                self.tell().await;
            }
        }
    }

    /// A cluster may be older than a kind, and who may read Services may not know of it yet: then there is none.
    async fn fails(&mut self, error: &ApiError) -> bool {
        let refused = matches!(error, ApiError::Refused { code: 403, .. });
        let expected = self.optional && (error.is_missing() || refused);
        if !expected {
            self.state.send_modify(|state| state.fails(error, &self.answered));
        } else if self.now.is_empty() {
            self.fresh = Some(BTreeMap::new());
            self.replace().await;
        }
        expected
    }

    fn works(&mut self) {
        self.state.send_if_modified(MirrorState::works);
    }
}

/// A list has ended.
async fn complete(state: &watch::Sender<MirrorState>, outgoing: &Outgoing) {
    let mut first = false;
    state.send_modify(|state| {
        first = !state.synced;
        state.synced = true;
        state.lists += 1;
    });
    if first {
        outgoing.one_is_complete().await;
    }
}

/// Namespace, `/` and name: one allocation for each of many.
type Key = Box<str>;

fn key<K: Resource>(object: &K) -> Key {
    let ObjectName { namespace, name } = name(object);
    format!("{namespace}/{name}").into()
}

fn named(key: &str) -> ObjectName {
    let (namespace, name) = key.split_once('/').unwrap_or_default();
    ObjectName { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn name<K: Resource>(object: &K) -> ObjectName {
    let metadata = object.meta();
    ObjectName {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}
