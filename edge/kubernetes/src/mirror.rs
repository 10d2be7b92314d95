//! A copy of the API server's objects of one kind, kept up to date by a watch.
//!
//! kube's `watcher` lists, watches, resumes, and lists again when its position has expired (410). What is kept here is
//! not its objects but the few facts that we need of each. While the API server is away the last known state stays and
//! answers; a new list replaces it in one step, so that a reader never sees half of one.

mod wanted;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use futures_util::StreamExt as _;
use kube::{
    Resource,
    runtime::watcher::{Event, InitialListStrategy, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use self::wanted::{MirrorState, ObjectKey, Wanted};
use crate::{ApiError, answered::Answered, backoff::Backoff};

/// Seconds until the server ends a watch, to be resumed where it was: a connection that died in silence is noticed
/// five seconds later.
const RENEW: u32 = 120;
/// After so many refusals one after the other the watch begins anew with a list: its position may be one that the
/// server will never have, as after a restore of etcd from a backup.
const GIVE_UP_POSITION: u32 = 4;

/// The copy. Clones share it.
pub(crate) struct Mirror<F> {
    what: &'static str,
    items: Arc<RwLock<HashMap<ObjectKey, Arc<F>>>>,
    state: watch::Receiver<MirrorState>,
}

impl<F> Clone for Mirror<F> {
    fn clone(&self) -> Self {
        Self { what: self.what, items: self.items.clone(), state: self.state.clone() }
    }
}

impl<F: PartialEq + Send + Sync + 'static> Mirror<F> {
    /// Watches until `stop`. `facts` reads an object; what it drops is not kept. `changed` is told the key of each
    /// object whose facts are new, other or gone.
    pub(crate) fn start<K>(
        wanted: Wanted<K>,
        facts: impl Fn(K) -> Option<F> + Send + 'static,
        changed: impl Fn(&ObjectKey) + Send + 'static,
        stop: CancellationToken,
    ) -> Self
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (state, receiver) = watch::channel(MirrorState::default());
        let items = Arc::new(RwLock::new(HashMap::new()));
        let mirror = Self { what: wanted.what, items: items.clone(), state: receiver };
        let keeper = Keeper { items, fresh: None, state, answered: wanted.answered.clone(), facts, changed };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keep(wanted, keeper) => {}
            }
        });
        mirror
    }
}

impl<F> Mirror<F> {
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<F>> {
        self.items.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<F>> {
        self.items.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// All of them in the order of their keys.
    pub(crate) fn sorted(&self) -> BTreeMap<ObjectKey, Arc<F>> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        items.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    pub(crate) fn state(&self) -> MirrorState {
        self.state.borrow().clone()
    }

    /// Waits until the copy was complete once.
    pub(crate) async fn synced(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|state| state.synced).await.is_err() {
            // The task ended, so nobody will ever be told: the caller's time limit speaks.
            std::future::pending::<()>().await;
        }
    }
}

/// The writing side.
struct Keeper<F, Facts, Changed> {
    items: Arc<RwLock<HashMap<ObjectKey, Arc<F>>>>,
    /// The list that is being read, until it is complete.
    fresh: Option<HashMap<ObjectKey, Arc<F>>>,
    state: watch::Sender<MirrorState>,
    answered: Answered,
    facts: Facts,
    changed: Changed,
}

impl<F: PartialEq, Facts, Changed: Fn(&ObjectKey)> Keeper<F, Facts, Changed> {
    fn event<K: Resource>(&mut self, event: Event<K>)
    where
        Facts: Fn(K) -> Option<F>,
    {
        match event {
            Event::Init => self.fresh = Some(HashMap::new()),
            Event::InitApply(object) => {
                let key = ObjectKey::of(&object);
                if let (Some(fresh), Some(facts)) = (&mut self.fresh, (self.facts)(object)) {
                    fresh.insert(key, Arc::new(facts));
                }
            }
            Event::InitDone => self.replace(),
            Event::Apply(object) => {
                let key = ObjectKey::of(&object);
                let facts = (self.facts)(object).map(Arc::new);
                self.put(key, facts);
            }
            Event::Delete(object) => self.put(ObjectKey::of(&object), None),
        }
    }

    fn put(&self, key: ObjectKey, facts: Option<Arc<F>>) {
        let same = {
            let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
            match facts {
                Some(facts) => {
                    let same = items.get(&key).is_some_and(|old| *old == facts);
                    items.insert(key.clone(), facts);
                    same
                }
                None => items.remove(&key).is_none(),
            }
        };
        if !same {
            (self.changed)(&key);
        }
    }

    /// The list is complete: it is the state from now on.
    fn replace(&mut self) {
        let fresh = self.fresh.take().unwrap_or_default();
        let mut changed = Vec::new();
        {
            let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
            changed.extend(items.keys().filter(|key| !fresh.contains_key(key)).cloned());
            changed.extend(
                fresh.iter().filter(|(key, new)| items.get(key) != Some(new)).map(|(key, _)| key.clone()),
            );
            *items = fresh;
        }
        // First the readers' keys, then "synced", so that whoever waits for it finds everything told.
        changed.iter().for_each(&self.changed);
        self.state.send_modify(|state| {
            state.synced = true;
            state.lists += 1;
        });
    }

    fn works(&self) {
        self.state.send_if_modified(|state| {
            state.error = None;
            state.failed = None;
            state.away.take().is_some()
        });
    }

    fn fails(&self, error: ApiError) {
        self.state.send_modify(|state| {
            let now = Instant::now();
            // If the server answered since the last failure, this is a new absence, not the old one.
            let resumed = |failed: Instant| self.answered.last().is_some_and(|when| when > failed);
            if state.failed.is_none_or(resumed) {
                state.away = Some(now);
            }
            state.failed = Some(now);
            state.error = Some(error);
        });
    }
}

/// Watches for ever.
async fn keep<K, F, Facts, Changed>(wanted: Wanted<K>, mut keeper: Keeper<F, Facts, Changed>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    F: PartialEq,
    Facts: Fn(K) -> Option<F>,
    Changed: Fn(&ObjectKey),
{
    let Wanted { what, api, config, optional, answered: _ } = wanted;
    // One watch that begins with the list: the server sends it from its cache, without pages.
    // <https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>
    let mut config = config.streaming_lists().timeout(RENEW);
    let mut backoff = Backoff::new();
    loop {
        let mut events = std::pin::pin!(watcher(api.clone(), config.clone()));
        let mut refusals = 0;
        while let Some(event) = events.next().await {
            let error = match event {
                Ok(event) => {
                    let told = !matches!(event, Event::Init);
                    keeper.event(event);
                    // That a list begins says nothing yet: with pages it is said before the server was asked.
                    if told {
                        refusals = 0;
                        backoff.reset();
                        keeper.works();
                    }
                    continue;
                }
                Err(error) => error,
            };
            let error = ApiError::of_watch(what, &error);
            let streaming = config.initial_list_strategy == InitialListStrategy::StreamingList;
            // 500: an etcd before 3.4.31 or 3.5.13 ("the required storage feature RequestWatchProgress is disabled").
            if streaming && has_no_streaming(&error) {
                tracing::debug!(what, "the API server has no streaming lists: listing by pages");
                config.initial_list_strategy = InitialListStrategy::ListWatch;
                break;
            }
            if optional && error.is_missing() {
                keeper.fresh = Some(HashMap::new());
                keeper.replace();
                keeper.works();
            } else {
                tracing::debug!(what, %error, "watch failed");
                keeper.fails(error.clone());
            }
            tokio::time::sleep(backoff.next()).await;
            refusals += u32::from(!matches!(error, ApiError::Away { .. } | ApiError::TimedOut { .. }));
            if refusals >= GIVE_UP_POSITION {
                break;
            }
        }
    }
}

/// Whether the API server may list in another way. Switched off it answers 422, and with an etcd that is too old for it
/// (before 3.4.31 and 3.5.13: `RequestWatchProgress`) 500. To list by pages for another reason does no harm.
fn has_no_streaming(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused { code: 400 | 422 | 500 | 501, .. })
}
